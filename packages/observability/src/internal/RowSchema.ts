/** The rows of the API: one for each kind of node. */
import { ExitReason, Health, State } from "@effect-orchestra/core/Event"
import { MailboxStats, SagaStep } from "@effect-orchestra/core/Snapshot"
import * as Schema from "effect/Schema"

/**
 * Restarts `used` of the `max` that a supervisor allows within `windowMs`.
 *
 * @category models
 * @since 0.1.0
 */
export const Budget = Schema.Struct({ used: Schema.Int, max: Schema.Int, windowMs: Schema.Finite })

/**
 * How a run ended. `traceId` is that of the run's span, `null` where it had none.
 *
 * @category models
 * @since 0.1.0
 */
export const LastExit = Schema.Struct({
  incarnation: Schema.Int,
  at: Schema.Finite,
  reason: ExitReason,
  errorType: Schema.NullOr(Schema.String),
  message: Schema.NullOr(Schema.String),
  ranMs: Schema.Finite,
  traceId: Schema.NullOr(Schema.String)
})

/** @since 0.1.0 */
export type LastExit = typeof LastExit.Type

/**
 * What a routine has spent on the CPU: `share` is that of the last seconds, 1 being one core, `maxSliceMs` the longest it
 * held the event loop at once.
 *
 * @category models
 * @since 0.1.0
 */
export const Cpu = Schema.Struct({ ms: Schema.Finite, share: Schema.Finite, maxSliceMs: Schema.Finite })

/** @since 0.1.0 */
export type Cpu = typeof Cpu.Type

/**
 * What waits for a routine in its mailboxes. `oldestMs` is how long the oldest of the messages has waited, where that is
 * known.
 *
 * @category models
 * @since 0.1.0
 */
export const Depth = Schema.Struct({
  depth: Schema.Int,
  limit: Schema.Finite,
  oldestMs: Schema.NullOr(Schema.Finite)
})

/** @since 0.1.0 */
export type Depth = typeof Depth.Type

const baseRow = {
  id: Schema.String,
  name: Schema.String,
  path: Schema.String,
  /** The id of the node above, `null` for the orchestrator. */
  parent: Schema.NullOr(Schema.String),
  state: State,
  health: Health,
  /** When it entered its state. */
  since: Schema.Finite,
  /** What is wrong with it, in words; `null` when nothing is. */
  problem: Schema.NullOr(Schema.String),
  /** Where the API tells more of it. */
  links: Schema.Struct({ self: Schema.String })
}

/**
 * A routine: `incarnation` counts its runs from 1, `budget` is what its next restart is charged to, `cpu` is there when
 * it is metered, `mailbox` when it has one.
 *
 * @category models
 * @since 0.1.0
 */
export const RoutineRow = Schema.Struct({
  kind: Schema.Literal("routine"),
  ...baseRow,
  ready: Schema.Boolean,
  startedAt: Schema.NullOr(Schema.Finite),
  incarnation: Schema.Int,
  restarts: Schema.Int,
  nextStartAt: Schema.NullOr(Schema.Finite),
  supervisor: Schema.NullOr(Schema.String),
  budget: Schema.NullOr(Budget),
  lastExit: Schema.NullOr(LastExit),
  lastBeat: Schema.NullOr(Schema.Finite),
  cpu: Schema.NullOr(Cpu),
  mailbox: Schema.NullOr(Depth),
  info: Schema.Record(Schema.String, Schema.String),
  forkSite: Schema.NullOr(Schema.String),
  attributes: Schema.Record(Schema.String, Schema.String)
})

/** @since 0.1.0 */
export type RoutineRow = typeof RoutineRow.Type

/**
 * A supervisor. Of `stopped`, the children that do not run, a quarantined one used up its restart budget.
 *
 * @category models
 * @since 0.1.0
 */
export const SupervisorRow = Schema.Struct({
  kind: Schema.Literal("supervisor"),
  ...baseRow,
  strategy: Schema.String,
  budget: Budget,
  stopped: Schema.Array(Schema.Struct({
    id: Schema.String,
    /** The id of its last routine, by which it is restarted or released. */
    routine: Schema.String,
    state: Schema.Literals(["stopped", "quarantined"]),
    since: Schema.Finite,
    lastExit: Schema.NullOr(LastExit)
  }))
})

/**
 * A group of tasks.
 *
 * @category models
 * @since 0.1.0
 */
export const GroupRow = Schema.Struct({
  kind: Schema.Literal("group"),
  ...baseRow,
  active: Schema.Int,
  concurrency: Schema.NullOr(Schema.Int)
})

/**
 * A saga: whether it goes forward or back, the pivot that it has passed, and its steps in the order they began.
 *
 * @category models
 * @since 0.1.0
 */
export const SagaRow = Schema.Struct({
  kind: Schema.Literal("saga"),
  ...baseRow,
  direction: Schema.Literals(["forward", "compensate"]),
  pivot: Schema.NullOr(Schema.String),
  steps: Schema.Array(SagaStep)
})

/**
 * A mailbox, of its own or of a subscriber of a topic.
 *
 * @category models
 * @since 0.1.0
 */
export const MailboxRow = Schema.Struct({
  kind: Schema.Literal("mailbox"),
  ...baseRow,
  overflow: Schema.String,
  stats: MailboxStats
})

/** @since 0.1.0 */
export type MailboxRow = typeof MailboxRow.Type

/**
 * A topic in use; the mailboxes of its subscribers stand below it.
 *
 * @category models
 * @since 0.1.0
 */
export const TopicRow = Schema.Struct({
  kind: Schema.Literal("topic"),
  ...baseRow,
  delivery: Schema.Literals(["queue", "broadcast"]),
  published: Schema.Int,
  subscribers: Schema.Int
})

/**
 * A bus; its topics stand below it.
 *
 * @category models
 * @since 0.1.0
 */
export const BusRow = Schema.Struct({ kind: Schema.Literal("bus"), ...baseRow })

/**
 * Any node of the tree.
 *
 * @category models
 * @since 0.1.0
 */
export const Row = Schema.Union([
  RoutineRow,
  SupervisorRow,
  GroupRow,
  SagaRow,
  MailboxRow,
  TopicRow,
  BusRow,
  Schema.Struct({ kind: Schema.Literal("orchestrator"), ...baseRow })
])

/** @since 0.1.0 */
export type Row = typeof Row.Type
