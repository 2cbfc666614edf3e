/**
 * The events that supervision adds to the bus of core.
 *
 * @since 0.1.0
 */
import { baseFields, ExitReason } from "@effect-orchestra/core/Event"
import * as Schema from "effect/Schema"

/**
 * What a supervisor decided about the end of a child: restart it, restart it with those that depend on it, leave it
 * stopped, or give up (`escalate` when a parent takes over).
 *
 * @category models
 * @since 0.1.0
 */
export const Decision = Schema.Literals(["restart", "restart_group", "stop", "escalate", "give_up"])

/** @since 0.1.0 */
export type Decision = typeof Decision.Type

/**
 * Why a child runs again: its own end, or that of a sibling it is restarted with.
 *
 * @category models
 * @since 0.1.0
 */
export const RestartReason = Schema.Union([ExitReason, Schema.Literal("sibling")])

/** @since 0.1.0 */
export type RestartReason = typeof RestartReason.Type

/** A supervisor decided what the end of `child` means. The event's path is the supervisor's. */
export const Decided = Schema.TaggedStruct("Decided", {
  ...baseFields,
  child: Schema.String,
  decision: Decision,
  reason: ExitReason
})

/** A child is started again. The event's path is the child's, its incarnation the new one. */
export const Restarted = Schema.TaggedStruct("Restarted", {
  ...baseFields,
  supervisor: Schema.String,
  reason: RestartReason,
  delayMillis: Schema.Finite
})

/** A supervisor exceeded its restart intensity and stops. The event's path is the supervisor's. */
export const GaveUp = Schema.TaggedStruct("GaveUp", {
  ...baseFields,
  child: Schema.String,
  attempts: Schema.Int
})

/**
 * The events of supervision as one schema.
 *
 * @category models
 * @since 0.1.0
 */
export const SupervisorEvent = Schema.Union([Decided, Restarted, GaveUp])

declare module "@effect-orchestra/core/Event" {
  interface EventMap {
    readonly Decided: typeof Decided.Type
    readonly Restarted: typeof Restarted.Type
    readonly GaveUp: typeof GaveUp.Type
  }
}
