import { Orchestrator, Routine } from "@effect-orchestra/core"
import { Chaos, recorder, TestError, TestOrchestra } from "@effect-orchestra/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit } from "effect"
import { TestClock } from "effect/testing"

/** One routine that passes one point. */
const passing = Effect.flatMap(Orchestrator.fork(Chaos.point("here"), { name: "worker" }), Routine.await)

describe("Chaos", () => {
  it.effect("does nothing where it is not provided", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* passing, Exit.void)
      assert.isFalse(yield* Chaos.drops("here"))
      assert.deepStrictEqual(yield* Chaos.log, [])
    }).pipe(Effect.provide(TestOrchestra.layer)))

  it.effect("kills the routine, and says so", () =>
    Effect.gen(function*() {
      const exit = yield* passing
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      assert.deepStrictEqual(yield* Chaos.log, [{ kind: "kill", point: "here", path: "/orchestra/worker", at: 0 }])
    }).pipe(Effect.provide([Chaos.layer({ kill: 1 }), TestOrchestra.layer])))

  it.effect("kills the fiber outside a routine", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(TestOrchestra.run(Chaos.point("here")))
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
    }).pipe(Effect.provide(Chaos.layer({ kill: 1 }))))

  it.effect("fails a point with a defect", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* passing, Exit.die(new TestError.ChaosFault({ point: "here" })))
      assert.deepStrictEqual(yield* Chaos.counts, { "fail here": 1 })
    }).pipe(Effect.provide([Chaos.layer({ fail: 1 }), TestOrchestra.layer])))

  it.effect("fails a start, and nothing after it", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* passing, Exit.void)
      const starting = yield* Orchestrator.fork(Chaos.point("start"), { ready: "signal" })
      assert.deepStrictEqual(yield* Routine.await(starting), Exit.die(new TestError.ChaosFault({ point: "start" })))
    }).pipe(Effect.provide([Chaos.layer({ failStart: 1 }), TestOrchestra.layer])))

  it.effect("holds up a point for no longer than it may", () =>
    Effect.gen(function*() {
      const routine = yield* Orchestrator.fork(Chaos.point("here"))
      yield* TestClock.adjust(0)
      assert.strictEqual((yield* Routine.snapshot(routine)).state, "running")
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Routine.snapshot(routine)).state, "succeeded")
    }).pipe(Effect.provide([Chaos.layer({ delay: [1, "1 second"] }), TestOrchestra.layer])))

  it.effect("drops what it is asked about, as often as it was told", () =>
    Effect.gen(function*() {
      let dropped = 0
      for (let i = 0; i < 1000; i++) if (yield* Chaos.drops("message")) dropped++
      assert.deepStrictEqual(yield* Chaos.counts, { "drop message": dropped })
      assert.isTrue(dropped > 200 && dropped < 300)
    }).pipe(Effect.provide(Chaos.layer({ drop: 0.25 }))))

  it.effect("does the same again for the same seed", () =>
    Effect.gen(function*() {
      const logOf = (seed: number) =>
        TestOrchestra.run(
          Effect.andThen(Effect.replicateEffect(passing, 60), Chaos.log).pipe(
            Effect.provide(Chaos.layer({ seed, kill: 0.3, delay: [0.3, "1 minute"], fail: 0.3 }))
          ),
          { seed: 0 }
        )
      const log = yield* logOf(1)
      assert.deepStrictEqual(yield* logOf(1), log)
      assert.notDeepEqual(yield* logOf(2), log)
      assert.deepStrictEqual(Array.from(new Set(log.map(({ kind }) => kind))).sort(), ["delay", "fail", "kill"])
    }))

  it("refuses a probability that is none", () => {
    assert.throws(() => Effect.runSync(Effect.provide(Effect.void, Chaos.layer({ drop: 2 }))), /drop .* got: 2/)
  })

  describe("monkey", () => {
    it.effect("kills one routine after the other, of those that it may", () =>
      Effect.gen(function*() {
        const record = yield* recorder
        const fork = (name: string) => Orchestrator.fork(Effect.never, { name })
        const a = yield* fork("a")
        const b = yield* fork("b")
        const spared = yield* fork("spared")
        yield* Orchestrator.fork(
          Chaos.monkey({ every: "1 second", only: (path) => path !== "/orchestra/spared" }),
          { name: "monkey" }
        )
        yield* TestClock.adjust("5 seconds")
        const states = yield* Effect.forEach([a, b, spared], (routine) => Routine.snapshot(routine))
        assert.deepStrictEqual(states.map(({ state }) => state), ["interrupted", "interrupted", "running"])
        assert.deepStrictEqual(yield* Chaos.counts, { "kill monkey": 2 })
        assert.deepStrictEqual(
          record.log.filter((line) => line.startsWith("Exited")).map((line) => line.split(": ")[1]),
          Array.from({ length: 2 }, () => "interrupted (chaos by /orchestra/monkey)")
        )
      }).pipe(Effect.provide([Chaos.layer({}), TestOrchestra.layer])))
  })
})
