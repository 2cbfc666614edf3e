/** Row 14: what metering adds to an operation of a fiber, and to its way through the scheduler. */
import { Metering } from "@effect-orchestra/observability"
import { type Context, Effect, Layer, type Scope } from "effect"
import { against, type Size, type Source, timed, type Work } from "./Bench.ts"

const operation = Effect.suspend(() => Effect.void)

const programs = [
  { work: "an operation, metered", effect: operation, operations: 200_000, budget: 1.15 },
  { work: "a yield, metered", effect: Effect.yieldNow, operations: 20_000, budget: undefined }
]

/** Nothing metered is around: the sides differ in the context alone. */
const timedIn = (
  context: Context.Context<never>,
  name: string,
  operations: number,
  effect: Effect.Effect<unknown>
): Source =>
  timed(
    name,
    operations,
    Effect.promise(() =>
      Effect.runPromiseWith(context)(Effect.gen(function*() {
        for (let i = 0; i < operations; i++) yield* effect
      }))
    )
  )

export const work = ({ rounds, smoke, warmUp }: Size): Effect.Effect<Work, never, Scope.Scope> =>
  Effect.gen(function*() {
    const plain = yield* Effect.context<never>()
    const metered = yield* Layer.build(Metering.layer)
    const figures = programs.flatMap(({ budget, effect, operations, work }) => {
      const count = smoke ? 100 : operations
      return against({
        row: 14,
        work,
        ours: timedIn(metered as Context.Context<never>, "Metering.layer", count, effect)
      }, [
        [timedIn(plain, "unmetered", count, effect), budget]
      ])
    })
    return { row: 14, rounds, warmUp, figures }
  })
