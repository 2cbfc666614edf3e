import { type Event, Orchestrator, Routine, Snapshot } from "@effect-orchestra/core"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Logger, Option, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"

const provided = <A, E>(effect: Effect.Effect<A, E, Orchestrator | Scope.Scope>) =>
  Effect.provide(effect, Orchestrator.layer)

describe("Orchestrator", () => {
  describe("fork", () => {
    it.effect("registers the routine before its first instruction", () =>
      provided(Effect.gen(function*() {
        const seen = yield* Effect.flatMap(Orchestrator.fork(Orchestrator.list, { name: "self" }), Routine.join)
        assert.deepStrictEqual(seen.map(({ path, state }) => [path, state]), [["/orchestra/self", "running"]])
      })))

    it.effect("gives the same ids and paths in the same run, and encodes a slash in a name", () =>
      provided(Effect.gen(function*() {
        for (const name of ["a", "a", "b/c"]) yield* Orchestrator.fork(Effect.never, { name })
        assert.deepStrictEqual(
          (yield* Orchestrator.list).map(({ id, path }) => [id, path]),
          [["r-1", "/orchestra/a"], ["r-2", "/orchestra/a#r-2"], ["r-3", "/orchestra/b%2Fc"]]
        )
      })))

    it.effect("a name is free again when its routine has ended", () =>
      provided(Effect.gen(function*() {
        const first = yield* Orchestrator.fork(Effect.never, { name: "a" })
        yield* Routine.interrupt(first)
        yield* Orchestrator.fork(Effect.never, { name: "a" })
        assert.deepStrictEqual((yield* Orchestrator.list).map(({ path }) => path), ["/orchestra/a"])
      })))

    it.effect(
      "takes 100,000 live routines with names of their own, and forgets the names when they have ended",
      () =>
        provided(Effect.gen(function*() {
          const { kernel } = yield* Orchestrator
          for (let i = 0; i < 100_000; i++) yield* Orchestrator.fork(Effect.never, { name: `n${i}` })
          yield* Orchestrator.interruptAll()
          assert.isTrue(kernel.children?.isEmpty)
          for (let i = 0; i < 200_000; i++) yield* Orchestrator.fork(Effect.void, { name: `m${i}` })
          const { holders } = kernel.children as unknown as { readonly holders: ReadonlyMap<string, unknown> }
          assert.isBelow(holders.size, 1001)
        })),
      10_000
    )

    it.effect("fails at once after a shutdown, and during one", () =>
      provided(Effect.gen(function*() {
        yield* Orchestrator.fork(Effect.never, { drain: Effect.sleep("1 second") })
        const fiber = yield* Effect.forkChild(Orchestrator.shutdown(), { startImmediately: true })
        const during = yield* Effect.flip(Orchestrator.fork(Effect.die("must not run")))
        assert.strictEqual(during._tag === "OrchestratorClosed" && during.state, "closing")
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(fiber)
        const after = yield* Effect.flip(Orchestrator.fork(Effect.die("must not run")))
        assert.strictEqual(after._tag === "OrchestratorClosed" && after.state, "closed")
      })))
  })

  describe("a failure that nobody awaits", () => {
    const failing = (observe: boolean) =>
      Effect.gen(function*() {
        const logged: Array<string> = []
        const logger = Logger.make(({ logLevel, message }) => void logged.push(`${logLevel} ${String(message)}`))
        yield* Effect.gen(function*() {
          const routine = yield* Orchestrator.fork(Effect.fail("no"), { name: "lonely" })
          if (observe) yield* Routine.await(routine)
          for (let i = 0; i < 5; i++) yield* Effect.yieldNow
        }).pipe(Effect.provide(Layer.provideMerge(Orchestrator.layer, Logger.layer([logger]))))
        return logged
      })

    it.effect("is logged once, with its path", () =>
      Effect.gen(function*() {
        const [line, ...rest] = yield* failing(false)
        assert.match(line ?? "", /^Error .*\/orchestra\/lonely failed and nobody awaits it/)
        assert.deepStrictEqual(rest, [])
      }))

    it.effect("is not logged when somebody does", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* failing(true), [])
      }))
  })

  describe("forkScoped", () => {
    it.effect("ends with the scope, bounded; a routine that ended before leaves nothing in the scope", () =>
      provided(Effect.gen(function*() {
        const scope = yield* Scope.make()
        const routine = yield* Scope.provide(Orchestrator.forkScoped(Effect.never), scope)
        yield* Effect.flatMap(Scope.provide(Orchestrator.forkScoped(Effect.void), scope), Routine.join)
        const before = scope.state._tag === "Open" && (scope.state.finalizers?.size ?? 1)
        assert.strictEqual(before, 1)
        yield* Scope.close(scope, Exit.void)
        assert.isTrue(Exit.isFailure(yield* Routine.await(routine)))
        assert.deepStrictEqual(yield* Orchestrator.list, [])
      })))
  })

  describe("lookups", () => {
    it.effect("find by id and by path, or say that there is none", () =>
      provided(Effect.gen(function*() {
        yield* Orchestrator.fork(Effect.never, { name: "a", attributes: { region: "eu" } })
        const byId = yield* Orchestrator.get("r-1")
        assert.deepStrictEqual(Option.map(byId, ({ attributes }) => attributes), Option.some({ region: "eu" }))
        assert.isTrue(Option.isSome(yield* Orchestrator.find("/orchestra/a")))
        assert.isTrue(Option.isSome(yield* Orchestrator.find("/orchestra")))
        for (const id of ["r-2", "1", "x-1", ""]) assert.isTrue(Option.isNone(yield* Orchestrator.get(id)))
        assert.isTrue(Option.isNone(yield* Orchestrator.find("/nobody")))
      })))

    it.effect("every snapshot encodes and decodes to itself", () =>
      provided(Effect.gen(function*() {
        yield* Orchestrator.fork(Effect.never)
        const tree = yield* Orchestrator.tree
        const codec = Schema.toCodecJson(Snapshot.TreeSnapshot)
        const json = JSON.parse(JSON.stringify(yield* Schema.encodeEffect(codec)(tree)))
        assert.deepStrictEqual(yield* Schema.decodeUnknownEffect(codec)(json), tree)
      })))

    it.effect("counts by template without visiting a routine, and folds names beyond 200", () =>
      provided(Effect.gen(function*() {
        for (let i = 0; i < 205; i++) yield* Orchestrator.fork(Effect.never, { name: `n${i}` })
        yield* Effect.flatMap(Orchestrator.fork(Effect.void, { name: "n0" }), Routine.join)
        const stats = yield* Orchestrator.stats
        assert.strictEqual(stats.length, 201)
        assert.deepStrictEqual([stats[0]?.starts, stats[0]?.active.running], [2, 1])
        assert.deepStrictEqual([stats[200]?.name, stats[200]?.active.running], ["_OTHER", 5])
      })))
  })

  describe("events", () => {
    it.effect("come in order to hooks and streams; a hook that throws is removed and harms nobody", () =>
      provided(Effect.gen(function*() {
        const { events, instrument } = yield* Orchestrator
        const seen: Array<Event.OrchestratorEvent> = []
        let thrown = 0
        yield* instrument(() => {
          thrown++
          throw new Error("hook")
        })
        yield* instrument((event) => void seen.push(event))
        const stream = yield* Effect.forkChild(Stream.runCollect(Stream.take(events, 4)), { startImmediately: true })
        yield* Effect.flatMap(Orchestrator.fork(Effect.fail("no"), { name: "a" }), Routine.await)
        const tags = ["Forked", "Ready", "Exited", "Stopped"]
        assert.deepStrictEqual(seen.map((event) => event._tag), tags)
        assert.deepStrictEqual((yield* Fiber.join(stream)).map((event) => event._tag), tags)
        assert.strictEqual(thrown, 1)
        const exited = seen[2]
        assert.isTrue(exited?._tag === "Exited" && exited.exit.reason === "failure" && exited.exit.message === "no")
      })))

    it.effect("a stream that lags loses the oldest, and is told how many", () =>
      provided(Effect.gen(function*() {
        const { events } = yield* Orchestrator
        const gate = yield* Deferred.make<void>()
        const seen: Array<Event.OrchestratorEvent> = []
        const slow = Stream.runForEach(events, (event) =>
          Effect.andThen(Effect.sync(() => seen.push(event)), Deferred.await(gate)))
        yield* Effect.forkChild(slow, { startImmediately: true })
        for (let i = 0; i < 1000; i++) {
          yield* Effect.flatMap(Orchestrator.fork(Effect.void), Routine.join)
        }
        yield* Deferred.succeed(gate, undefined)
        while (seen.at(-1)?.seq !== 4000) {
          yield* Effect.yieldNow
        }
        const lost = seen.map((event) =>
          event._tag === "ListenerDropped" ? event.dropped : 0
        ).reduce((a, b) => a + b)
        const own = seen.filter((event) => event._tag !== "ListenerDropped").length
        assert.isTrue(lost > 0)
        assert.strictEqual(own + lost, 4000)
      })))
  })
})
