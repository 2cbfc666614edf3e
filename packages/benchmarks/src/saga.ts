/** Row 18: a saga of three steps, against what a careful program writes by hand. */
import { Saga } from "@effect-orchestra/workflow"
import { Effect, Exit } from "effect"
import { against, type Size, timed, type Work } from "./Bench.ts"

const yes = Effect.yieldNow
const no = Effect.andThen(Effect.yieldNow, Effect.fail("no"))

const saga = (last: Effect.Effect<void, string>) =>
  Saga.outcome(Effect.gen(function*() {
    yield* Saga.step("stock", { run: yes, compensate: () => yes })
    yield* Saga.step("card", { run: yes, compensate: () => yes })
    yield* Saga.step("parcel", { run: last, compensate: () => yes })
  }))

/** The undos of what was done, the newest first; no retries, no bounds, no names, nobody sees it. */
const byHand = (last: Effect.Effect<void, string>) =>
  Effect.uninterruptibleMask((restore) => {
    const undos: Array<Effect.Effect<void>> = []
    const step = (run: Effect.Effect<void, string>) =>
      Effect.uninterruptibleMask((restore) => Effect.tap(restore(run), () => Effect.sync(() => void undos.push(yes))))
    const body = Effect.gen(function*() {
      yield* step(yes)
      yield* step(yes)
      yield* step(last)
    })
    return Effect.flatMap(Effect.exit(restore(body)), (exit) =>
      Exit.isSuccess(exit) ? Effect.void : Effect.forEach(undos.toReversed(), (undo) => undo, { discard: true }))
  })

/** The same with the four spans that a saga of three steps has, and one for each undo. */
const spanned = (last: Effect.Effect<void, string>) =>
  Effect.withSpan(
    Effect.uninterruptibleMask((restore) => {
      const undos: Array<Effect.Effect<void>> = []
      const step = (name: string, run: Effect.Effect<void, string>) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.tap(
            restore(Effect.withSpan(run, `step ${name}`)),
            () => Effect.sync(() => void undos.push(Effect.withSpan(yes, `compensate ${name}`)))
          )
        )
      const body = Effect.gen(function*() {
        yield* step("stock", yes)
        yield* step("card", yes)
        yield* step("parcel", last)
      })
      return Effect.flatMap(Effect.exit(restore(body)), (exit) =>
        Exit.isSuccess(exit) ? Effect.void : Effect.forEach(undos.toReversed(), (undo) =>
          undo, { discard: true }))
    }),
    "saga"
  )

export const work = ({ rounds, smoke, warmUp }: Size): Work => {
  const count = smoke ? 10 : 2000
  const source = (name: string, effect: Effect.Effect<unknown>) =>
    timed(name, count, Effect.repeat(effect, { times: count - 1 }))
  const figures = ([["completed", yes], ["compensated", no]] as const).flatMap(([how, last]) =>
    against({ row: 18, work: `a saga of three steps, ${how}`, ours: source("Saga.outcome", saga(last)) }, [
      [source("by hand", byHand(last))],
      [source("by hand, with its spans", spanned(last))]
    ])
  )
  return { row: 18, rounds, warmUp, figures }
}
