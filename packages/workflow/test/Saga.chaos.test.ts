import { Orchestrator, Routine } from "@effect-orchestra/core"
import { TestOrchestra } from "@effect-orchestra/core/testing"
import { Saga } from "@effect-orchestra/workflow"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Random, Schedule } from "effect"
import { World } from "./World.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

const upTo = (n: number) => Random.nextIntBetween(0, n, { halfOpen: true })
const chance = (percent: number) => Effect.map(upTo(100), (n) => n < percent)
const pause = Effect.flatMap(upTo(40), Effect.sleep)

/** A saga of steps one after the other, at once and nested, that fail, time out and are tried again. */
const chaotic = (world: World, name: string, depth: number): Effect.Effect<void, unknown, Saga.Journal> =>
  Effect.gen(function*() {
    for (let i = 0; i < 3; i++) {
      const step = Effect.gen(function*() {
        const own = `${name}/${i}${yield* upTo(1e9)}`
        const run = Effect.andThen(
          pause,
          Effect.flatMap(chance(15), (fails) => fails ? Effect.fail(own) : world.take(own, pause))
        )
        yield* world.step(own, pause, {
          run,
          register: (yield* chance(50)) ? "before" : "after",
          ...((yield* chance(50)) ? { timeout: 50 } : {}),
          ...((yield* chance(50)) ? { retry: Schedule.recurs(2) } : {})
        })
      })
      if (depth > 0 && (yield* chance(30))) {
        yield* Saga.run(chaotic(world, `${name}/${i}`, depth - 1), { name: `nested ${i}` })
      } else yield* Effect.all([step, step].slice(yield* upTo(2)), { concurrency: 2, discard: true })
    }
  })

const program = Effect.gen(function*() {
  const world = new World()
  const told: Array<string> = []
  const running = Saga.outcome(chaotic(world, "s", 2), {
    order: (yield* chance(50)) ? "parallel" : "reverse",
    onOutcome: ({ _tag }) => Effect.sync(() => told.push(_tag))
  })
  const routine = yield* Orchestrator.fork(running, { name: "saga" })
  if (yield* chance(40)) {
    yield* Effect.andThen(pause, Effect.andThen(pause, pause))
    yield* Routine.stop(routine, "1 minute")
  }
  yield* Routine.await(routine)
  return { told, left: world.left, undoneAgain: world.undoneAgain }
})

describe("Saga and chaos", () => {
  it.live("whatever fails, times out or is cut, in any order of what is ready, all is done or nothing", () =>
    // Virtual time, of each run its own.
    Effect.gen(function*() {
      const endings = { Completed: 0, Compensated: 0, none: 0 }
      for (let seed = 0; seed < seeds; seed++) {
        const { left, told, undoneAgain } = yield* TestOrchestra.run(program, { seed })
        const ending = told[0] ?? "none"
        assert.isTrue(told.length <= 1 && ending in endings, `seed ${seed}: ${told.join()}`)
        endings[ending as keyof typeof endings]++
        assert.deepStrictEqual(undoneAgain, [], `seed ${seed}`)
        if (ending !== "Completed") assert.deepStrictEqual(left, [], `seed ${seed}`)
        // A number before the name would be of one that was done again.
        else assert.isTrue(left.length > 0 && left.every((name) => !name.includes(" ")), `seed ${seed}: ${left.join()}`)
      }
      assert.isTrue(endings.Completed > 0 && endings.Compensated > 0)
    }), 60_000)
})
