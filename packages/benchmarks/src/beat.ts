/** Row 12: a beat of a watched routine, against an effect that does nothing. */
import { Orchestrator, Routine } from "@effect-orchestra/core"
import { Effect } from "effect"
import { against, type Size, timed, type Work } from "./Bench.ts"

export const work = ({ rounds, smoke, warmUp }: Size): Effect.Effect<Work, never, Orchestrator> =>
  Effect.gen(function*() {
    const orchestrator = yield* Orchestrator
    const operations = smoke ? 100 : 200_000
    const repeated = (name: string, effect: Effect.Effect<void>) => {
      const loop = Effect.gen(function*() {
        for (let i = 0; i < operations; i++) yield* effect
      })
      const watched = Effect.flatMap(Orchestrator.fork(loop, { idleTimeout: "1 hour" }), Routine.join)
      return timed(name, operations, Effect.provideService(Effect.orDie(watched), Orchestrator, orchestrator))
    }
    const figures = against({ row: 12, work: "a beat", ours: repeated("Routine.beat", Routine.beat) }, [
      [repeated("Effect.void", Effect.void), 4]
    ])
    return { row: 12, rounds, warmUp, figures }
  })
