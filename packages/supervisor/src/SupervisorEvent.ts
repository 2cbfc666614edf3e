/**
 * The events that supervision adds to the bus of core.
 *
 * **Example** (What a supervisor decides about a child that fails once)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Child, Supervisor } from "@effect-orchestra/supervisor"
 * import { Effect } from "effect"
 *
 * let runs = 0
 * const once = Effect.suspend(() => ++runs === 1 ? Effect.fail("no") : Effect.succeed("yes"))
 * const spec = Supervisor.make({
 *   name: "app",
 *   strategy: "one_for_one",
 *   children: [Child.make("once", once, { restart: "transient" })]
 * })
 *
 * const decisions: Array<string> = []
 * const program = Effect.gen(function*() {
 *   yield* Orchestrator.instrument((event) => {
 *     if (event._tag === "Decided") decisions.push(`${event.child}: ${event.decision} after ${event.reason}`)
 *   })
 *   yield* Supervisor.start(spec)
 *   while (decisions.length < 2) yield* Effect.yieldNow
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
 * decisions // => ["once: restart after failure", "once: stop after success"]
 * ```
 *
 * @since 0.1.0
 */
import { baseFields, ExitReason } from "@effect-orchestra/core/Event"
import * as Schema from "effect/Schema"

/**
 * What a supervisor decided about the end of a child: restart it (`restart_group`: with those that stand on it), leave it
 * stopped (`ignore`: because it said so), forget it, put it under quarantine, or end itself: because it gave up
 * (`escalate` when a parent takes over), because a significant child ended, or because a child asked for it.
 *
 * @category models
 * @since 0.1.0
 */
export const Decision = Schema.Literals([
  "restart",
  "restart_group",
  "stop",
  "ignore",
  "remove",
  "quarantine",
  "escalate",
  "give_up",
  "auto_shutdown",
  "terminate_tree"
])

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

/**
 * A supervisor decided what the end of `child` means. The event's path is the supervisor's. `severity` is that of OTP's
 * report: an error for every failure and for the normal end of a permanent child, else not.
 */
export const Decided = Schema.TaggedStruct("Decided", {
  ...baseFields,
  child: Schema.String,
  decision: Decision,
  reason: ExitReason,
  severity: Schema.Literals(["info", "error"])
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

/** A child used up its budget and is left stopped until somebody releases it. The event's path is the child's. */
export const Quarantined = Schema.TaggedStruct("Quarantined", {
  ...baseFields,
  supervisor: Schema.String,
  attempts: Schema.Int
})

/** A quarantined child is started again by hand. The event's path is the child's. */
export const Released = Schema.TaggedStruct("Released", { ...baseFields, supervisor: Schema.String })

/** The next run starts beside one that has ignored its interruption for `waitedMillis`. */
export const Replaced = Schema.TaggedStruct("Replaced", { ...baseFields, waitedMillis: Schema.Finite })

/**
 * The events of supervision as one schema.
 *
 * @category models
 * @since 0.1.0
 */
export const SupervisorEvent = Schema.Union([Decided, Restarted, GaveUp, Quarantined, Released, Replaced])

declare module "@effect-orchestra/core/Event" {
  interface EventMap {
    readonly Decided: typeof Decided.Type
    readonly Restarted: typeof Restarted.Type
    readonly GaveUp: typeof GaveUp.Type
    readonly Quarantined: typeof Quarantined.Type
    readonly Released: typeof Released.Type
    readonly Replaced: typeof Replaced.Type
  }
}
