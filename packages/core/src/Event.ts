/**
 * What happened in the tree: one tagged union, in the order it happened.
 *
 * Every event carries where it happened (`path`, `id`, `incarnation`) and when (`at`, wall clock milliseconds, and
 * `seq`, which grows by one per event of an orchestrator). All of them are plain data and encode with `Schema`.
 *
 * Other packages add their own tags through the same bus: they declare them in `EventMap` and export a schema.
 *
 * **Example** (What a routine that succeeds goes through)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { Effect } from "effect"
 *
 * const tags: Array<string> = []
 * const program = Effect.gen(function*() {
 *   yield* Orchestrator.instrument((event) => void tags.push(event._tag))
 *   yield* Effect.flatMap(Orchestrator.fork(Effect.void), Routine.join)
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
 * tags // => ["Forked", "Ready", "Exited", "Stopped"]
 * ```
 *
 * @since 0.1.0
 */
import * as Exit from "effect/Exit"
import * as Schema from "effect/Schema"

/**
 * The fields that every event carries.
 *
 * @category models
 * @since 0.1.0
 */
export const baseFields = {
  seq: Schema.Int,
  at: Schema.Finite,
  path: Schema.String,
  id: Schema.String,
  name: Schema.String,
  incarnation: Schema.Int
}

/**
 * Where a routine stands. `pending` waits for a slot; the last six are final and never rewritten.
 *
 * @category models
 * @since 0.1.0
 */
export const State = Schema.Literals([
  "pending",
  "starting",
  "running",
  "backoff",
  "stopping",
  "succeeded",
  "failed",
  "defect",
  "interrupted",
  "timed_out",
  "abandoned"
])

/** @since 0.1.0 */
export type State = typeof State.Type

/**
 * Why one run of a routine ended.
 *
 * @category models
 * @since 0.1.0
 */
export const ExitReason = Schema.Literals([
  "success",
  "failure",
  "defect",
  "interrupted",
  "idle_timeout",
  "abandoned"
])

/** @since 0.1.0 */
export type ExitReason = typeof ExitReason.Type

/**
 * The reason that an exit gives: a failure before a defect before an interruption.
 *
 * @category getters
 * @since 0.1.0
 */
export const reasonOf = (exit: Exit.Exit<unknown, unknown>): ExitReason => {
  if (Exit.isSuccess(exit)) return "success"
  const { reasons } = exit.cause
  // Most have one.
  if (reasons.length === 1 && reasons[0]?._tag === "Fail") return "failure"
  let reason: ExitReason = "interrupted"
  for (const { _tag } of reasons) {
    if (_tag === "Fail") return "failure"
    if (_tag === "Die") reason = "defect"
  }
  return reason
}

/**
 * How a routine fares, derived from its state.
 *
 * @category models
 * @since 0.1.0
 */
export const Health = Schema.Literals(["ok", "degraded", "failed", "stuck"])

/** @since 0.1.0 */
export type Health = typeof Health.Type

/**
 * Why a run was interrupted, and the path of the node whose code asked for it; null when that was no node of the tree.
 * Ours are `"stopped"`, `"interrupted"`, `"shutdown"`, `"deadline"`, `"idle_timeout"`, `"sibling_failed"`,
 * `"not_needed"`, `"body_ended"`, `"cancelled"`, `"scope_closed"`, `"not_ready"` and `"restart"`; whoever stops a routine
 * may give another.
 *
 * @category models
 * @since 0.1.0
 */
export const CancelledBy = Schema.Struct({ reason: Schema.String, requester: Schema.NullOr(Schema.String) })

/** @since 0.1.0 */
export type CancelledBy = typeof CancelledBy.Type

/**
 * How one run ended: when (`at`, wall clock), why, how long it had run, and the error's type and message when it
 * failed. `errorType` is the `_tag` of a tagged error, else the class name, else `_OTHER`; `cancelledBy` says who
 * interrupted it, if anybody did, and `traceId` is the trace of the run, where it has one.
 *
 * @category models
 * @since 0.1.0
 */
export const RunExit = Schema.Struct({
  incarnation: Schema.Int,
  at: Schema.Finite,
  reason: ExitReason,
  ranMillis: Schema.Finite,
  errorType: Schema.NullOr(Schema.String),
  message: Schema.NullOr(Schema.String),
  cancelledBy: Schema.NullOr(CancelledBy),
  traceId: Schema.optionalKey(Schema.String)
})

/** @since 0.1.0 */
export type RunExit = typeof RunExit.Type

/** A routine was registered; its first instruction has not run yet. */
export const Forked = Schema.TaggedStruct("Forked", baseFields)

/** A run is ready: at once, or at its `Routine.ready`. */
export const Ready = Schema.TaggedStruct("Ready", baseFields)

/** One run ended, its finalizers included. A supervised child may run again. */
export const Exited = Schema.TaggedStruct("Exited", { ...baseFields, exit: RunExit })

/** The next run of a supervised child starts after this delay. */
export const BackoffStarted = Schema.TaggedStruct("BackoffStarted", {
  ...baseFields,
  delayMillis: Schema.Finite,
  attempt: Schema.Int
})

/** Somebody asked the routine to stop; `by` is null when they did not say why. */
export const StopRequested = Schema.TaggedStruct("StopRequested", {
  ...baseFields,
  by: Schema.NullOr(CancelledBy)
})

/** The routine reached a final state: it will not run again. */
export const Stopped = Schema.TaggedStruct("Stopped", { ...baseFields, state: State })

/** The run ignored its interruption for `waitedMillis`. Its supervisor starts the next one only when it has ended. */
export const Stuck = Schema.TaggedStruct("Stuck", { ...baseFields, waitedMillis: Schema.Finite })

/** The routine ignored its interruption for `waitedMillis` and is no longer waited for. It stays listed. */
export const Abandoned = Schema.TaggedStruct("Abandoned", { ...baseFields, waitedMillis: Schema.Finite })

/** An abandoned routine ended after all. Its state stays `abandoned`; it is no longer listed. */
export const EndedLate = Schema.TaggedStruct("EndedLate", { ...baseFields, waitedMillis: Schema.Finite })

/** A mailbox became full. It is told again only when it has been half empty meanwhile, not for every message. */
export const MailboxFull = Schema.TaggedStruct("MailboxFull", { ...baseFields, capacity: Schema.Int })

/** A slow listener of the event stream lost `dropped` events since the last one it saw. */
export const ListenerDropped = Schema.TaggedStruct("ListenerDropped", { ...baseFields, dropped: Schema.Int })

/**
 * The events of core as one schema, for encoding and decoding.
 *
 * @category models
 * @since 0.1.0
 */
export const CoreEvent = Schema.Union([
  Forked,
  Ready,
  Exited,
  BackoffStarted,
  StopRequested,
  Stopped,
  Stuck,
  Abandoned,
  EndedLate,
  MailboxFull,
  ListenerDropped
])

/**
 * Every event by its tag. A package that emits its own declares them here:
 * `declare module "@effect-orchestra/core/Event" { interface EventMap { readonly Decided: Decided } }`.
 *
 * @category models
 * @since 0.1.0
 */
export interface EventMap {
  readonly Forked: typeof Forked.Type
  readonly Ready: typeof Ready.Type
  readonly Exited: typeof Exited.Type
  readonly BackoffStarted: typeof BackoffStarted.Type
  readonly StopRequested: typeof StopRequested.Type
  readonly Stopped: typeof Stopped.Type
  readonly Stuck: typeof Stuck.Type
  readonly Abandoned: typeof Abandoned.Type
  readonly EndedLate: typeof EndedLate.Type
  readonly MailboxFull: typeof MailboxFull.Type
  readonly ListenerDropped: typeof ListenerDropped.Type
}

/**
 * Any event of the tree.
 *
 * @category models
 * @since 0.1.0
 */
export type OrchestratorEvent = EventMap[keyof EventMap]

/**
 * The fields of an event beyond those that the bus adds.
 *
 * @category models
 * @since 0.1.0
 */
export type Body<Tag extends keyof EventMap> = Omit<EventMap[Tag], "_tag" | keyof typeof baseFields>
