/** Rows 1 and 14: forking a routine and awaiting it, against raw `forkIn` and `Fiber.await`. */
import { Orchestrator, Routine } from "@effect-orchestra/core"
import { Effect, Fiber, type Scope } from "effect"
import { against, type Size, timed, type Work } from "./Bench.ts"
import { observed } from "./observed.ts"

const bodies = [
  { name: "yieldNow", effect: Effect.yieldNow, budget: 1.2 },
  { name: "trivial", effect: Effect.void, budget: 1.6 }
]

export const work = (
  { rounds, smoke, warmUp }: Size
): Effect.Effect<Work, never, Orchestrator | Scope.Scope> =>
  Effect.gen(function*() {
    const context = yield* Effect.context<Orchestrator>()
    const told = yield* observed
    const scope = yield* Effect.scope
    const operations = smoke ? 100 : 20_000
    /** `operations` forks, one after the other. */
    const repeated = (name: string, effect: Effect.Effect<unknown, unknown, Orchestrator>, within = context) =>
      timed(
        name,
        operations,
        Effect.gen(function*() {
          for (let i = 0; i < operations; i++) yield* effect
        }).pipe(Effect.orDie, Effect.provideContext(within))
      )
    const figures = bodies.flatMap(({ budget, effect, name }) => {
      const raw = (startImmediately: boolean) =>
        repeated(
          `raw forkIn, ${startImmediately ? "started at once" : "started in the next turn"}`,
          Effect.flatMap(Effect.forkIn(effect, scope, { startImmediately }), Fiber.await)
        )
      const forked = Effect.flatMap(Orchestrator.fork(effect), Routine.await)
      const ours = repeated("Orchestrator.fork", forked)
      const listened = repeated("Orchestrator.fork with telemetry", forked, told)
      const work = `fork + await, ${name}`
      return [
        ...against({ row: 1, work, ours }, [[raw(true), budget], [raw(false)]]),
        ...against({ row: 14, work: `${work}, telemetry on`, ours: listened }, [[ours, 1.15]])
      ]
    })
    return { row: 1, rounds, warmUp, figures }
  })
