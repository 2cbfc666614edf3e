import { Orchestrator, Routine } from "@effect-orchestra/core"
import type { OrchestratorEvent } from "@effect-orchestra/core/Event"
import { recorder, TestOrchestra } from "@effect-orchestra/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Scope } from "effect"
import { TestClock } from "effect/testing"

describe("recorder", () => {
  it.effect("has every event in its order, and those of one node by its path", () =>
    Effect.gen(function*() {
      const record = yield* recorder
      yield* Effect.flatMap(Orchestrator.fork(Effect.void, { name: "a" }), Routine.join)
      yield* Effect.flatMap(Orchestrator.fork(Effect.void, { name: "b" }), Routine.join)
      const one: Array<OrchestratorEvent["_tag"]> = ["Forked", "Ready", "Exited", "Stopped"]
      assert.deepStrictEqual(record.tags, [...one, ...one])
      assert.deepStrictEqual(record.of("/orchestra/b").map(({ _tag }) => _tag), one)
    }).pipe(Effect.provide(TestOrchestra.layer)))

  it.effect("waits for an event that is yet to come, and finds one that has been", () =>
    Effect.gen(function*() {
      const record = yield* recorder
      const stopped = record.await(({ _tag }) => _tag === "Stopped")
      const waiting = yield* Effect.forkChild(stopped, { startImmediately: true })
      yield* Effect.flatMap(Orchestrator.fork(Effect.sleep("1 second")), () => TestClock.adjust("1 second"))
      assert.strictEqual(yield* Fiber.join(waiting), yield* stopped)
      assert.strictEqual((yield* stopped).at, 1000)
    }).pipe(Effect.provide(TestOrchestra.layer)))

  it.effect("writes the same log whenever it runs", () =>
    Effect.gen(function*() {
      const logOf = (millis: number) =>
        Effect.gen(function*() {
          yield* TestClock.adjust(millis)
          const record = yield* recorder
          const deaf = Effect.uninterruptible(Effect.sleep("1 minute"))
          const routine = yield* Orchestrator.fork(deaf, { name: "worker", shutdown: millis })
          yield* Effect.forkChild(Routine.stop(routine), { startImmediately: true })
          yield* TestClock.adjust("1 minute")
          return record.log
        }).pipe(Effect.provide(TestOrchestra.layerWith({})))
      const log = yield* logOf(7)
      assert.deepStrictEqual(log, yield* logOf(900))
      assert.deepStrictEqual(log, [
        "Forked /orchestra/worker",
        "Ready /orchestra/worker run 1",
        "StopRequested /orchestra/worker run 1: stopped from outside",
        "Abandoned /orchestra/worker run 1",
        "Stopped /orchestra/worker run 1: state abandoned",
        "Exited /orchestra/worker run 1: abandoned (stopped from outside)",
        "EndedLate /orchestra/worker run 1"
      ])
    }))

  it.effect("ends a wait when its scope is closed", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const record = yield* Scope.provide(recorder, scope)
      const never = record.await(() => false)
      const waiting = yield* Effect.forkChild(never, { startImmediately: true })
      yield* Scope.close(scope, Exit.void)
      for (const exit of [yield* Fiber.await(waiting), yield* Effect.exit(never)]) {
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      }
    }).pipe(Effect.provide(TestOrchestra.layer)))
})
