import { Routine } from "@effect-orchestra/core"
import { TestOrchestra } from "@effect-orchestra/core/testing"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit } from "effect"

const seeds = Number(process.env["SEEDS"] ?? 200)

const soon = Effect.yieldNow

describe("what comes true just before a supervisor waits for it", () => {
  it.effect(
    "ends its wait: a child that gets ready, one that fails its start, a supervisor that gives up",
    () =>
      Effect.gen(function*() {
        const ready = Effect.andThen(soon, Effect.andThen(Routine.ready, Effect.never))
        const nested = Supervisor.make({
          name: "nested",
          strategy: "one_for_one",
          intensity: 1,
          children: [Child.make("failing", Effect.andThen(soon, Effect.fail("boom")))]
        })
        const spec = Supervisor.make({
          name: "app",
          strategy: "one_for_one",
          intensity: 2,
          children: [
            Child.make("slow", ready, { awaitReady: true }),
            Child.make("nested", Supervisor.run(nested)),
            Child.make("bad", Effect.andThen(soon, Effect.fail("no")), { awaitReady: true })
          ]
        })
        for (let seed = 0; seed < seeds; seed++) {
          const program = Effect.exit(Supervisor.run(spec))
          const exit = yield* Effect.exit(TestOrchestra.run(program, { seed, yieldChance: 0.25 }))
          if (Exit.isFailure(exit)) assert.fail(`seed ${seed}: ${exit}`)
        }
      }),
    120_000
  )
})
