import { Group, Orchestrator, Routine } from "@effect-orchestra/core"
import { TestOrchestra } from "@effect-orchestra/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber } from "effect"

const seeds = Number(process.env["SEEDS"] ?? 200)

/** Runs a program under many orders of what it does. A lost wake-up is a deadlock. */
const underManyOrders = <A>(program: Effect.Effect<A, never, Orchestrator>) =>
  Effect.gen(function*() {
    for (let seed = 0; seed < seeds; seed++) {
      const exit = yield* Effect.exit(TestOrchestra.run(program, { seed, yieldChance: 0.25 }))
      if (Exit.isFailure(exit)) assert.fail(`seed ${seed}: ${exit}`)
    }
  })

const soon = Effect.yieldNow

describe("what comes true just before a wait begins", () => {
  it.effect(
    "ends a wait for the end of a routine",
    () => underManyOrders(Effect.flatMap(Effect.orDie(Orchestrator.fork(soon)), Routine.await)),
    120_000
  )

  it.effect("ends a wait for readiness", () =>
    underManyOrders(
      Effect.gen(function*() {
        const body = Effect.andThen(soon, Effect.andThen(Routine.ready, soon))
        yield* Routine.await(yield* Orchestrator.fork(body, { ready: "signal", awaitReady: true }))
      }).pipe(Effect.orDie)
    ), 120_000)

  it.effect("ends a wait for a request to stop", () =>
    underManyOrders(
      Effect.gen(function*() {
        const routine = yield* Orchestrator.fork(Effect.uninterruptible(Routine.stopRequested), { drain: Effect.void })
        yield* soon
        assert.strictEqual(yield* Routine.stop(routine), "stopped")
      }).pipe(Effect.orDie)
    ), 120_000)

  it.effect("ends a wait of a group for its tasks, and for a slot", () =>
    underManyOrders(
      Group.run((group) => Effect.forEach([1, 2, 3, 4], () => Group.fork(group, soon)), { concurrency: 2 })
    ), 120_000)

  it.effect("ends a wait for a slot of a group that fails", () =>
    underManyOrders(Effect.exit(
      Group.run(
        (group) => Effect.forEach([1, 2, 3], () => Group.fork(group, Effect.andThen(soon, Effect.fail("boom")))),
        {
          concurrency: 1
        }
      )
    )), 120_000)

  it.effect("ends a wait of a group that is interrupted", () =>
    underManyOrders(Effect.gen(function*() {
      const running = Group.run((group) => Effect.forEach([1, 2], () => Group.fork(group, Effect.never)), {
        concurrency: 1
      })
      const fiber = yield* Effect.forkChild(running)
      yield* soon
      yield* Fiber.interrupt(fiber)
    })), 120_000)
})
