/** Row 1: forking a routine and awaiting it, against raw `forkIn` and `Fiber.await`. */
import { Orchestrator, Routine } from "@effect-orchestra/core"
import { Effect, Fiber, type Scope } from "effect"
import type { Row } from "./Bench.ts"

const bodies = [
  { name: "yieldNow", effect: Effect.yieldNow, budget: 1.2 },
  { name: "trivial", effect: Effect.void, budget: 1.6 }
]

/** `operations` forks, one after the other. */
export const rows = (operations: number): Effect.Effect<ReadonlyArray<Row>, never, Orchestrator | Scope.Scope> =>
  Effect.gen(function*() {
    const context = yield* Effect.context<Orchestrator>()
    const scope = yield* Effect.scope
    const repeat = (effect: Effect.Effect<unknown, unknown, Orchestrator>) =>
      Effect.gen(function*() {
        for (let i = 0; i < operations; i++) yield* effect
      }).pipe(Effect.orDie, Effect.provideContext(context))
    return bodies.flatMap(({ budget, effect, name }) => {
      const forked = Effect.flatMap(Orchestrator.fork(effect), Routine.await)
      const ours = repeat(forked)
      const raw = (startImmediately: boolean) =>
        repeat(Effect.flatMap(Effect.forkIn(effect, scope, { startImmediately }), Fiber.await))
      const row = { row: 1, operations, ours }
      return [
        { ...row, name: `fork + await, ${name}, both start at once`, budget, reference: raw(true) },
        { ...row, name: `fork + await, ${name}, raw starts in the next turn`, budget: undefined, reference: raw(false) }
      ]
    })
  })
