import { Mailbox, Orchestrator, Routine } from "@effect-orchestra/core"
import { Feed, Telemetry } from "@effect-orchestra/observability"
import type { OpenOptions } from "@effect-orchestra/observability/Feed"
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
const read = Effect.fnUntraced(function*(lastEventId?: string, options?: OpenOptions) {
  const frames: Array<Frame> = []
  const stream = yield* Feed.use((feed) => feed.open({ lastEventId, ...options }))
  const fiber = yield* Effect.forkScoped(
    Stream.runForEach(stream, (text) => Effect.sync(() => frames.push(parse(text))))
  )
  const take = Effect.andThen(settled, Effect.sync(() => frames.splice(0)))
  return { take, fiber }
})

/** Walks take slices of real time: how many turns that makes is not known. */
const settled = Effect.andThen(
  TestClock.adjust(0),
  Effect.forEach(Array.from({ length: 50 }), () => Effect.yieldNow, { discard: true })
)

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
      const { instance } = yield* Telemetry
      assert.deepStrictEqual(first.map(({ id }) => id), [undefined, `${instance}-1`])
      for (const unknown of [`${instance}-7`, `${"x".repeat(instance.length)}-1`, "1", "", "x".repeat(10_000)]) {
        const again = yield* (yield* read(unknown)).take
        assert.deepStrictEqual(kinds(again), ["hello", "reset", "snapshot"])
        assert.deepStrictEqual(again.map(({ id }) => id), [undefined, undefined, `${instance}-1`])
      }
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
      const stream = yield* Feed.use((feed) => feed.open())
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
      const stream = yield* Feed.use((feed) => feed.open())
      const frames: Array<string> = []
      yield* Effect.forkScoped(Stream.runForEach(stream, (text) => Effect.sync(() => frames.push(text))))
      yield* settled
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
      const stream = yield* Feed.use((feed) => feed.open())
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
        return yield* Effect.exit(Feed.use((feed) => Scope.provide(feed.open(), scope)))
      })
      for (let n = 0; n < 16; n++) assert.isTrue(Exit.isSuccess(yield* open))
      const error = yield* Effect.flip(Feed.use((feed) => Effect.scoped(feed.open())))
      assert.deepInclude(error, { _tag: "TooManyStreams", limit: 16 })
      yield* Scope.close(scopes[3] ?? assert.fail(), Exit.void)
      assert.isTrue(Exit.isSuccess(yield* open))
      assert.isTrue(Exit.isFailure(yield* open))
    }).pipe(Effect.provide(layer)))

  it.effect("gives who comes back what happened meanwhile, and no snapshot", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const before = yield* Scope.provide(read(), scope)
      yield* before.take
      yield* Orchestrator.fork(Effect.never, { name: "seen" })
      yield* TestClock.adjust("500 millis")
      const { id } = (yield* before.take).at(-1) ?? assert.fail()
      yield* Scope.close(scope, Exit.void)
      yield* Orchestrator.fork(Effect.never, { name: "missed" })
      yield* TestClock.adjust("20 seconds")
      const after = yield* read(id)
      const frames = yield* after.take
      assert.deepStrictEqual(kinds(frames), ["hello", "delta"])
      assert.deepStrictEqual(frames[1]?.data.rows.map((row: any) => row.path), ["/app/missed"])
      yield* Fiber.interrupt(after.fiber)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("replays the frames that others got while one was away", () =>
    Effect.gen(function*() {
      const stays = yield* read()
      yield* stays.take
      const scope = yield* Scope.make()
      const leaves = yield* Scope.provide(read(), scope)
      const { id } = (yield* leaves.take).at(-1) ?? assert.fail()
      yield* Scope.close(scope, Exit.void)
      for (const name of ["a", "b", "c"]) {
        yield* Orchestrator.fork(Effect.never, { name })
        yield* TestClock.adjust("500 millis")
      }
      const missed = yield* stays.take
      assert.deepStrictEqual(kinds(missed).filter((kind) => kind === "delta").length, 3)
      assert.deepStrictEqual((yield* (yield* read(id)).take).slice(1), missed)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("forgets who has been away for more than half a minute", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const { id } = (yield* (yield* Scope.provide(read(), scope)).take).at(-1) ?? assert.fail()
      yield* Scope.close(scope, Exit.void)
      yield* TestClock.adjust("31 seconds")
      assert.deepStrictEqual(kinds(yield* (yield* read(id)).take), ["hello", "reset", "snapshot"])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("replays no more than 2,048 frames", () =>
    Effect.gen(function*() {
      const stays = yield* read()
      const { id } = (yield* stays.take).at(-1) ?? assert.fail()
      const ids: Array<string | undefined> = [id]
      for (let n = 0; n < 1100; n++) {
        yield* Orchestrator.fork(Effect.never, { name: "n" })
        if (n % 50 !== 49) continue
        yield* TestClock.adjust("50 millis")
        ids.push(...(yield* stays.take).map((frame) => frame.id))
      }
      assert.isAbove(ids.length, 2200)
      const kept = ids.at(-2049)
      assert.deepStrictEqual(kinds(yield* (yield* read(ids[10])).take).slice(0, 3), ["hello", "reset", "snapshot"])
      const again = (yield* (yield* read(kept)).take).slice(1)
      assert.deepStrictEqual(again.map((frame) => frame.id), ids.slice(-2048))
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("works for as many readers as for one, who get the same frames", () =>
    Effect.gen(function*() {
      let looks = 0
      const options = {
        name: "watched",
        get attributes() {
          looks++
          return {}
        }
      }
      const routine = yield* Orchestrator.fork(Effect.never, options)
      const readers = [yield* read(), yield* read(), yield* read(), yield* read()]
      const greeted = yield* Effect.forEach(readers, ({ take }) => take)
      for (const frames of greeted) assert.deepStrictEqual(kinds(frames), ["hello", "snapshot"])
      // One row for all of them, and what it takes to fork a routine.
      const first = looks
      assert.isAtMost(first, 3)
      yield* Effect.forkChild(Routine.stop(routine))
      yield* TestClock.adjust("500 millis")
      const told = yield* Effect.forEach(readers, ({ take }) => take)
      assert.isAbove(told[0]?.length ?? 0, 0)
      for (const frames of told) assert.deepStrictEqual(frames, told[0])
      assert.isAtMost(looks - first, 2)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("computes nothing while nobody reads", () =>
    Effect.gen(function*() {
      let looks = 0
      const options = {
        name: "watched",
        get attributes() {
          looks++
          return {}
        }
      }
      const scope = yield* Scope.make()
      yield* (yield* Scope.provide(read(), scope)).take
      yield* Scope.close(scope, Exit.void)
      yield* Orchestrator.fork(Effect.never, options)
      const forked = looks
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(looks, forked)
    }).pipe(Effect.provide(layer), Effect.scoped))

  it.effect("tells of the nodes that it is asked for, also what is no event", () =>
    Effect.gen(function*() {
      const mailbox = yield* Mailbox.make<string>({ name: "inbox", capacity: 10 })
      yield* Orchestrator.fork(Effect.never, { name: "other" })
      const { kernel } = yield* Orchestrator
      const id = [...kernel.nodes.values()][0]?.id ?? ""
      const { take } = yield* read(undefined, { ids: [id, "r-99", "__proto__"], topics: ["rows"] })
      const [, snapshot] = yield* take
      assert.deepStrictEqual(snapshot?.data.rows.map((row: any) => [row.path, row.stats.length]), [["/app/inbox", 0]])
      yield* Orchestrator.fork(Effect.never, { name: "another" })
      yield* Mailbox.send(mailbox, "a")
      yield* TestClock.adjust("500 millis")
      const frames = yield* take
      assert.deepStrictEqual(kinds(frames), ["delta"])
      assert.deepStrictEqual(frames[0]?.data.rows.map((row: any) => [row.path, row.stats.length]), [["/app/inbox", 1]])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* take, [])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("tells only what it is asked about", () =>
    Effect.gen(function*() {
      const events = yield* read(undefined, { topics: ["events"] })
      const sums = yield* read(undefined, { topics: ["overview"] })
      for (const { take } of [events, sums]) assert.deepStrictEqual((yield* take)[1]?.data.rows, [])
      yield* Orchestrator.fork(Effect.never, { name: "poller" })
      yield* TestClock.adjust("500 millis")
      assert.deepStrictEqual(kinds(yield* events.take), ["event", "event"])
      const [delta, ...none] = yield* sums.take
      assert.deepStrictEqual(none, [])
      assert.deepInclude(delta?.data, { rows: [], removed: [] })
      assert.strictEqual(delta?.data.summary.running, 1)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect(
    "goes on from what is now for a reader who is more than a megabyte behind, and holds nothing for it",
    () =>
      Effect.gen(function*() {
        const rows = 300
        const note = "x".repeat(1000)
        const states = yield* Effect.forEach(Array.from({ length: rows }), () =>
          Effect.gen(function*() {
            const mailbox = yield* Mailbox.make<string>({ name: note, capacity: 1000 })
            return mailbox
          }))
        const stream = yield* Feed.use((feed) => feed.open())
        const slow = yield* Queue.bounded<string>(1)
        yield* Effect.forkScoped(Stream.runForEach(stream, (text) => Queue.offer(slow, text)))
        const fast = yield* read()
        yield* fast.take
        // Every half second each of the rows changes: some 800 KB.
        const change = Effect.andThen(
          Effect.forEach(states, (mailbox) => Mailbox.send(mailbox, "a"), { discard: true }),
          TestClock.adjust("500 millis")
        )
        yield* Effect.andThen(change, change)
        const all = yield* fast.take
        assert.isAbove(JSON.stringify(all).length, 1_300_000)
        const late: Array<Frame> = []
        yield* Effect.forkScoped(Effect.forever(Effect.map(Queue.take(slow), (text) => late.push(parse(text)))))
        for (let n = 0; n < 20; n++) yield* settled
        // What had begun when it stopped, and then what is now: nothing of what was in between.
        const told = late.flatMap(({ data }) => data.rows ?? [])
        const first = told.find((row: any) => row.kind === "mailbox")?.id
        const seen = told.filter((row: any) => row.id === first).map((row: any) => row.stats.length)
        assert.deepStrictEqual(seen.filter((length: number) => length === 1), [])
        const last = new Map(late.flatMap(({ data }) => data.rows ?? []).map((row: any) => [row.id, row.stats?.length]))
        assert.deepStrictEqual([...last.values()].filter((length) => length === 2).length, rows)
        // Frames are kept for who comes back, but not more than 2 MiB of them.
        const { id } = all[0] ?? assert.fail()
        yield* Effect.andThen(change, Effect.andThen(change, change))
        assert.deepStrictEqual(kinds(yield* (yield* read(id)).take).slice(0, 2), ["hello", "reset"])
      }).pipe(Effect.scoped, Effect.provide(layer)),
    10_000
  )

  it.effect("counts its streams, and what they were too slow for", () =>
    Effect.gen(function*() {
      const value = (name: string, signal?: string) =>
        Effect.map(Effect.flatMap(Telemetry, ({ collect }) => collect), (meters) => {
          const series = meters.find(({ metric }) => metric.name === name)?.series.values() ?? []
          return [...series].find(({ attributes }) => signal === undefined || attributes[0]?.[1] === signal)?.value ?? 0
        })
      const feed = yield* Feed
      const { fiber, take } = yield* read()
      yield* read()
      yield* take
      assert.strictEqual(yield* value("orchestra.http.stream.active"), 2)
      for (let n = 0; n < 1000; n++) yield* Orchestrator.fork(Effect.void, { name: "short" })
      yield* take
      const { active, dropped, limit } = feed.stats()
      assert.deepStrictEqual([active, limit], [2, 16])
      assert.isAbove(dropped, 0)
      assert.strictEqual(yield* value("orchestra.telemetry.dropped.items", "stream"), dropped)
      yield* Fiber.interrupt(fiber)
    }).pipe(Effect.scoped, Effect.provide(layer)))

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
