/**
 * The event that an action on a routine adds to the bus of the orchestrator.
 *
 * **Example** (As JSON)
 *
 * ```ts import.meta.vitest
 * import { Actions } from "@effect-orchestra/observability"
 * import { Schema } from "effect"
 *
 * Schema.is(Actions.Action)("restart") // => true
 * Schema.is(Actions.Action)("kill") // => false
 * ```
 *
 * @since 0.1.0
 */
import { baseFields } from "@effect-orchestra/core/Event"
import * as Schema from "effect/Schema"

/**
 * What can be done to a routine.
 *
 * - `restart` ends its present run and starts the next, with those that its supervisor restarts with it; no budget is
 *   charged. One in its backoff starts now, one that does not run starts again.
 * - `stop` ends it for good. A supervised child stays stopped until somebody restarts it; a temporary or dynamic one is
 *   forgotten.
 * - `interrupt` ends its present run as a stranger would: to its supervisor that is a failure, so a permanent or transient
 *   child comes back, at a charge.
 * - `release` starts a quarantined child again, with a budget that begins anew.
 *
 * @category models
 * @since 0.1.0
 */
export const Action = Schema.Literals(["restart", "stop", "interrupt", "release"])

/** @since 0.1.0 */
export type Action = typeof Action.Type

/**
 * Somebody has acted on the routine that the event names: `by` is the label of a token, null where none is asked for.
 * It is `requested` when it begins and `done` or `failed` when it ends, or `refused`; `detail` says more of the last two.
 *
 * @category events
 * @since 0.1.0
 */
export const Acted = Schema.TaggedStruct("Acted", {
  ...baseFields,
  actionId: Schema.String,
  action: Action,
  by: Schema.NullOr(Schema.String),
  reason: Schema.String,
  result: Schema.Literals(["requested", "done", "failed", "refused"]),
  detail: Schema.NullOr(Schema.String)
})

declare module "@effect-orchestra/core/Event" {
  interface EventMap {
    readonly Acted: typeof Acted.Type
  }
}
