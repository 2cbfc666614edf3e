/** What becomes of the context, and so of the span, of whoever forks a routine. */
import * as Context from "effect/Context"
import * as Tracer from "effect/Tracer"
import type { RoutineRecord } from "../RoutineRecord.ts"

/**
 * The context without its span: what is forked from within a request outlives it.
 *
 * @stability unstable
 * @category getters
 * @since 0.1.0
 */
export const withoutSpan = (context: Context.Context<never>): Context.Context<never> =>
  spanOf(context) === undefined ? context : Context.omit(Tracer.ParentSpan)(context) as Context.Context<never>

const spanOf = (context: Context.Context<never>): Tracer.AnySpan | undefined =>
  Context.getOrUndefined(context as Context.Context<Tracer.ParentSpan>, Tracer.ParentSpan)

/** What a meter below the orchestrator and then observers make of the context that a run begins with. */
export const contextFor = (record: RoutineRecord, given: Context.Context<never>): Context.Context<never> => {
  const { kernel } = record
  const { observers, runContext } = kernel
  const context = runContext === undefined ? given : runContext(given)
  if (observers?.starting === undefined) return context
  const spawner = context === kernel.spanless ? undefined : spanOf(context)
  if (spawner === undefined) kernel.spanless = context
  // A task inherits the span of its group.
  const own = spawner === undefined || record.owner?.kind === "group" ? context : withoutSpan(context)
  return observers.starting(record, own, spawner)
}
