import { Orchestrator, Routine } from "@effect-orchestra/core"
import { Feed, Telemetry } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Queue, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"

const layer = Feed.layer.pipe(
  Layer.provideMerge(Telemetry.layer),
  Layer.provideMerge(Orchestrator.layerWith({ name: "app" }))
)

interface Frame {
  readonly id: string | undefined
  readonly event: string | undefined
  readonly data: any
}

const parse = (text: string): Frame => {
  assert.isTrue(text.endsWith("\n\n"))
  const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(text)?.[1]
  const data = field("data")
  return { id: field("id"), event: field("event"), data: data === undefined ? undefined : JSON.parse(data) }
}

/** A reader that takes everything at once, and gives what it has received since it was last asked. */
const read = Effect.fnUntraced(function*(lastEventId?: string) {
  const frames: Array<Frame> = []
  const stream = yield* Feed.use((feed) => feed.open(lastEventId))
  const fiber = yield* Effect.forkScoped(
    Stream.runForEach(stream, (text) => Effect.sync(() => frames.push(parse(text))))
  )
  const take = Effect.andThen(TestClock.adjust(0), Effect.sync(() => frames.splice(0)))
  return { take, fiber }
})

const kinds = (frames: ReadonlyArray<Frame>) => frames.map(({ event }) => event)

describe("Feed", () => {
  it.effect("begins with hello and a snapshot of everything", () =>
    Effect.gen(function*() {
      yield* Orchestrator.fork(Effect.never, { name: "poller" })
      const { instance } = yield* Telemetry
      const [hello, snapshot, ...rest] = yield* (yield* read()).take
      assert.deepStrictEqual(rest, [])
      assert.strictEqual(hello?.event, "hello")
      assert.deepInclude(hello?.data, { v: 1, instance, name: "app", since: 0 })
      assert.strictEqual(snapshot?.event, "snapshot")
      assert.deepInclude(snapshot?.data, { at: 0, part: 1, last: true })
      assert.deepInclude(snapshot?.data.summary, { status: "open", nodes: 2, running: 1, starts: 1 })
      assert.deepStrictEqual(snapshot?.data.rows.map((row: any) => row.path), ["/app", "/app/poller"])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("numbers its frames, and says reset to who comes back with a number", () =>
    Effect.gen(function*() {
      const first = yield* (yield* read()).take
      assert.deepStrictEqual(first.map(({ id }) => id), ["1", "2"])
      const again = yield* (yield* read("2")).take
      assert.deepStrictEqual(kinds(again), ["hello", "reset", "snapshot"])
      assert.deepStrictEqual(again.map(({ id }) => id), ["3", "4", "5"])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("tells events at once and changes twice a second, and says nothing when nothing happens", () =>
    Effect.gen(function*() {
      const { take } = yield* read()
      yield* take
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* take, [])
      const routine = yield* Orchestrator.fork(Effect.never, { name: "poller" })
      const atOnce = yield* take
      assert.deepStrictEqual(kinds(atOnce), ["event", "event"])
      assert.deepStrictEqual(atOnce.map(({ data }) => data._tag), ["Forked", "Ready"])
      yield* TestClock.adjust("500 millis")
      const [delta, ...none] = yield* take
      assert.deepStrictEqual(none, [])
      assert.strictEqual(delta?.event, "delta")
      assert.deepStrictEqual(delta?.data.rows.map((row: any) => [row.path, row.state]), [["/app/poller", "running"]])
      assert.deepStrictEqual(delta?.data.removed, [])
      yield* Routine.stop(routine)
      yield* TestClock.adjust("500 millis")
      const gone = (yield* take).filter(({ event }) => event === "delta")
      assert.deepStrictEqual(gone.map(({ data }) => [data.removed, data.rows]), [[["r-1"], []]])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("follows a node until it rests, also where a move is no event", () =>
    Effect.gen(function*() {
      const { take } = yield* read()
      yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("7 seconds")), { name: "stubborn" })
      yield* TestClock.adjust("1 second")
      yield* take
      yield* Effect.forkChild(Orchestrator.shutdown({ interrupt: "20 seconds" }), { startImmediately: true })
      const states: Array<unknown> = []
      for (let n = 0; n < 16; n++) {
        yield* TestClock.adjust("500 millis")
        for (const { data, event } of yield* take) {
          if (event === "delta") states.push(...data.rows.map((row: any) => `${row.path} ${row.health} ${row.state}`))
        }
      }
      assert.deepStrictEqual(states, ["/app ok stopping", "/app/stubborn ok stopping", "/app ok succeeded"])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("sends a comment after 15 quiet seconds", () =>
    Effect.gen(function*() {
      const stream = yield* Feed.use((feed) => feed.open(undefined))
      const received: Array<string> = []
      yield* Effect.forkScoped(Stream.runForEach(stream, (text) => Effect.sync(() => received.push(text))))
      yield* TestClock.adjust("14 seconds")
      assert.strictEqual(received.length, 2)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(received.slice(2), [": ping\n\n"])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("splits a large snapshot into frames of at most 64 KB", () =>
    Effect.gen(function*() {
      for (let n = 0; n < 900; n++) yield* Orchestrator.fork(Effect.never, { attributes: { note: "x".repeat(200) } })
      const stream = yield* Feed.use((feed) => feed.open(undefined))
      const frames: Array<string> = []
      yield* Effect.forkScoped(Stream.runForEach(stream, (text) => Effect.sync(() => frames.push(text))))
      yield* TestClock.adjust(0)
      const parts = frames.slice(1).map(parse)
      assert.isAbove(parts.length, 4)
      assert.deepStrictEqual(parts.map(({ data }) => data.last), parts.map((_, index) => index === parts.length - 1))
      assert.strictEqual(new Set(parts.flatMap(({ data }) => data.rows.map((row: any) => row.id))).size, 901)
      for (const frame of frames) assert.isAtMost(frame.length, 64 * 1024)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("shows the first thousand of many routines, those with a problem among them", () =>
    Effect.gen(function*() {
      for (let n = 0; n < 1500; n++) yield* Orchestrator.fork(Effect.never)
      yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("1 minute")), {
        name: "stubborn",
        shutdown: "1 second"
      })
      const { kernel } = yield* Orchestrator
      const last = [...kernel.nodes.values()].at(-1)
      assert(last !== undefined)
      yield* Effect.forkChild(last.stop({ grace: 0, interrupt: 1000, deadline: Infinity }) ?? Effect.void)
      yield* TestClock.adjust("2 seconds")
      const rows = (yield* (yield* read()).take).flatMap(({ data }) => data.rows ?? [])
      assert.strictEqual(rows.length, 1001)
      assert.deepStrictEqual(rows.slice(0, 2).map((row: any) => row.path), ["/app", "/app/stubborn"])
      yield* TestClock.adjust("1 minute")
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("keeps nothing for a slow reader but what is now: old changes are replaced, old events dropped", () =>
    Effect.gen(function*() {
      const stream = yield* Feed.use((feed) => feed.open(undefined))
      // A rendezvous: the stream is pulled only when the reader asks.
      const slow = yield* Queue.bounded<string>(1)
      yield* Effect.forkScoped(Stream.runForEach(stream, (text) => Queue.offer(slow, text)))
      assert.strictEqual(parse(yield* Queue.take(slow)).event, "hello")
      yield* TestClock.adjust(0)
      // Now it stops reading, while 20,000 routines come and go.
      for (let n = 0; n < 20_000; n++) yield* Orchestrator.fork(Effect.void, { name: "short" })
      yield* TestClock.adjust("1 minute")
      const late: Array<Frame> = []
      yield* Effect.forkScoped(Effect.forever(Effect.map(Queue.take(slow), (text) => late.push(parse(text)))))
      // Handing over one frame at a time takes a turn each.
      const turns = Effect.forEach(Array.from({ length: 2000 }), () => Effect.yieldNow, { discard: true })
      yield* turns
      yield* TestClock.adjust("1 second")
      yield* turns
      const after = late.slice(1)
      const events = after.filter(({ event }) => event === "event")
      // One batch on its way when the reader stopped, and one that waited for it.
      assert.isAtMost(events.length, 2 * 256)
      const dropped = after.filter(({ event }) => event === "dropped").reduce((sum, { data }) => sum + data.dropped, 0)
      // Four for each routine: forked, ready, exited, stopped.
      assert.strictEqual(events.length + dropped, 80_000)
      assert.strictEqual(events.at(-1)?.data.seq, 80_000)
      const rows = after.filter(({ event }) => event === "snapshot")
      assert.deepStrictEqual(rows.map(({ data }) => data.rows.length), [1])
      assert.deepInclude(rows[0]?.data.summary, { starts: 20_000, running: 0 })
      assert.isAtMost(after.length, 2 * 256 + 4)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("has sixteen places, and gives one to the next who comes when it is free", () =>
    Effect.gen(function*() {
      const scopes: Array<Scope.Closeable> = []
      const open = Effect.gen(function*() {
        const scope = yield* Scope.make()
        scopes.push(scope)
        return yield* Effect.exit(Feed.use((feed) => Scope.provide(feed.open(undefined), scope)))
      })
      for (let n = 0; n < 16; n++) assert.isTrue(Exit.isSuccess(yield* open))
      const error = yield* Effect.flip(Feed.use((feed) => Effect.scoped(feed.open(undefined))))
      assert.deepInclude(error, { _tag: "TooManyStreams", limit: 16 })
      yield* Scope.close(scopes[3] ?? assert.fail(), Exit.void)
      assert.isTrue(Exit.isSuccess(yield* open))
      assert.isTrue(Exit.isFailure(yield* open))
    }).pipe(Effect.provide(layer)))

  it.effect("ends its streams when it is closed", () =>
    Effect.gen(function*() {
      const { fiber, take } = yield* read()
      yield* take
      yield* Feed.use((feed) => feed.close)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(yield* Fiber.await(fiber), Exit.void)
      assert.deepStrictEqual(yield* (yield* read()).take, [])
    }).pipe(Effect.scoped, Effect.provide(layer)))
})
