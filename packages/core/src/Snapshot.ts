/**
 * What the tree looks like at one moment, as plain data that encodes with `Schema`.
 *
 * A snapshot is immutable, is taken without waiting for anything, and lists nodes in a stable order: the order in
 * which they were registered.
 *
 * **Example** (The tree, from the orchestrator down)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Snapshot } from "@effect-orchestra/core"
 * import { Effect } from "effect"
 *
 * const outline = ({ children, node }: Snapshot.TreeSnapshot): ReadonlyArray<string> => [
 *   `${node.kind} ${node.path}`,
 *   ...children.flatMap(outline)
 * ]
 *
 * const program = Effect.andThen(
 *   Orchestrator.fork(Effect.never, { name: "poller" }),
 *   Effect.map(Orchestrator.tree, outline)
 * )
 *
 * const lines = await Effect.runPromise(program.pipe(Effect.provide(Orchestrator.layer)))
 * lines // => ["orchestrator /orchestra", "routine /orchestra/poller"]
 * ```
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { Health, RunExit, State } from "./Event.ts"

/** What every node shows. `since` is when it entered its state, in wall clock milliseconds. */
const nodeFields = {
  id: Schema.String,
  name: Schema.String,
  path: Schema.String,
  state: State,
  health: Health,
  since: Schema.Finite
}

/**
 * How much of a restart intensity has been used: `used` restarts of `max` within the last `periodMillis`.
 *
 * @category models
 * @since 0.1.0
 */
export const Budget = Schema.Struct({ used: Schema.Int, max: Schema.Int, periodMillis: Schema.Finite })

/** @since 0.1.0 */
export type Budget = typeof Budget.Type

/**
 * A routine. `startedAt` is when its present run began (wall clock milliseconds); `incarnation` counts its runs from 1,
 * `restarts` those that followed a failed or ended one; `supervisor` is the path of the supervisor that keeps it, `budget`
 * the one that its next restart is charged to, `nextStartAt` when a backoff ends. `lastBeat` is when its present run was last seen to beat, as coarse as whoever
 * looks (its idle timeout, a reader), and null before the first; `info` is what its run said with `Routine.readyWith`; `forkSite` is the line that
 * forked it, where the orchestrator keeps them.
 *
 * @category models
 * @since 0.1.0
 */
export const RoutineSnapshot = Schema.Struct({
  kind: Schema.Literal("routine"),
  ...nodeFields,
  ready: Schema.Boolean,
  startedAt: Schema.NullOr(Schema.Finite),
  incarnation: Schema.Int,
  restarts: Schema.Int,
  supervisor: Schema.NullOr(Schema.String),
  nextStartAt: Schema.NullOr(Schema.Finite),
  budget: Schema.NullOr(Budget),
  lastExit: Schema.NullOr(RunExit),
  lastBeat: Schema.NullOr(Schema.Finite),
  info: Schema.Record(Schema.String, Schema.String),
  forkSite: Schema.NullOr(Schema.String),
  attributes: Schema.Record(Schema.String, Schema.String)
})

/** @since 0.1.0 */
export type RoutineSnapshot = typeof RoutineSnapshot.Type

/**
 * How a routine spends its present run, in milliseconds: how long it runs, how long ago it last beat (or started), how
 * long its fibers were busy by their own word, and how long they waited for messages or for room. What is going on
 * counts. Several fibers at once add up, as fiber-seconds do. `queue` sums over the mailboxes that belong to it.
 *
 * @category models
 * @since 0.1.0
 */
export const RoutineStats = Schema.Struct({
  uptimeMillis: Schema.Finite,
  idleMillis: Schema.Finite,
  busyMillis: Schema.Finite,
  blockedMillis: Schema.Finite,
  queue: Schema.Struct({ length: Schema.Int, capacity: Schema.Int, bytes: Schema.Int })
})

/** @since 0.1.0 */
export type RoutineStats = typeof RoutineStats.Type

/**
 * A child that its supervisor keeps but does not run: the id of its last routine, since when, and how its last run had
 * ended. A quarantined one used up its restart budget and waits for somebody to release it.
 *
 * @category models
 * @since 0.1.0
 */
export const StoppedChild = Schema.Struct({
  id: Schema.String,
  routine: Schema.String,
  state: Schema.Literals(["stopped", "quarantined"]),
  since: Schema.Finite,
  lastExit: Schema.NullOr(RunExit)
})

/** @since 0.1.0 */
export type StoppedChild = typeof StoppedChild.Type

/**
 * A supervisor: its strategy, its restart budget, where it stands, and the children that do not run. It is `degraded`
 * while one of them is quarantined.
 *
 * @category models
 * @since 0.1.0
 */
export const SupervisorSnapshot = Schema.Struct({
  kind: Schema.Literal("supervisor"),
  ...nodeFields,
  strategy: Schema.String,
  budget: Budget,
  stopped: Schema.Array(StoppedChild)
})

/** @since 0.1.0 */
export type SupervisorSnapshot = typeof SupervisorSnapshot.Type

/**
 * A group: how many of its tasks are live, out of how many may run at once (`null` is unbounded).
 *
 * @category models
 * @since 0.1.0
 */
export const GroupSnapshot = Schema.Struct({
  kind: Schema.Literal("group"),
  ...nodeFields,
  active: Schema.Int,
  concurrency: Schema.NullOr(Schema.Int)
})

/** @since 0.1.0 */
export type GroupSnapshot = typeof GroupSnapshot.Type

/**
 * A step of a saga: `running` goes forward, `done` has its result and `failed` has none, `undoing` runs its
 * compensation, `undone` had it, `stuck` is one whose compensation gave up, `not_run` one that was not tried after that.
 *
 * @category models
 * @since 0.1.0
 */
export const SagaStep = Schema.Struct({
  name: Schema.String,
  state: Schema.Literals(["running", "done", "failed", "undoing", "undone", "stuck", "not_run"]),
  attempt: Schema.Int
})

/** @since 0.1.0 */
export type SagaStep = typeof SagaStep.Type

/**
 * A saga: whether it goes forward or back, the pivot that it has passed, if any, and its steps in the order they began.
 *
 * @category models
 * @since 0.1.0
 */
export const SagaSnapshot = Schema.Struct({
  kind: Schema.Literal("saga"),
  ...nodeFields,
  direction: Schema.Literals(["forward", "compensate"]),
  pivot: Schema.NullOr(Schema.String),
  steps: Schema.Array(SagaStep)
})

/** @since 0.1.0 */
export type SagaSnapshot = typeof SagaSnapshot.Type

/**
 * The counts of a mailbox since it was made, and what is in it now. Every message that it took over (`sent`: it went
 * in, a policy dropped it, or a sender waited with it when the mailbox was closed) is exactly one of these:
 *
 * - `received`: a receiver has it, or its handler succeeded;
 * - `dropped`: by the overflow policy, or because its handler failed and `"drop"` was the policy;
 * - `deadLettered`: it went to the dead letters;
 * - `undelivered`: nobody could take it, because its handler failed or because the mailbox was closed;
 * - `handling`: its handler runs;
 * - `length`: it is inside.
 *
 * So `sent = received + dropped + deadLettered + undelivered + handling + length`, at any time. `redelivered` counts how
 * often a message went back because its handler failed. `blockedSendMillis` and `blockedReceiveMillis` sum over all
 * senders or receivers, waits in progress included; `bytes` is what `sizeOf` says of the messages inside, 0 without
 * one.
 *
 * @category models
 * @since 0.1.0
 */
export const MailboxStats = Schema.Struct({
  length: Schema.Int,
  capacity: Schema.Int,
  sent: Schema.Int,
  received: Schema.Int,
  dropped: Schema.Int,
  undelivered: Schema.Int,
  handling: Schema.Int,
  redelivered: Schema.Int,
  deadLettered: Schema.Int,
  blockedSenders: Schema.Int,
  blockedReceivers: Schema.Int,
  blockedSendMillis: Schema.Finite,
  blockedReceiveMillis: Schema.Finite,
  bytes: Schema.Int
})

/** @since 0.1.0 */
export type MailboxStats = typeof MailboxStats.Type

/**
 * A mailbox: `running` while it takes messages, `stopping` while what is left in it is drained.
 *
 * @category models
 * @since 0.1.0
 */
export const MailboxSnapshot = Schema.Struct({
  kind: Schema.Literal("mailbox"),
  ...nodeFields,
  overflow: Schema.String,
  stats: MailboxStats
})

/** @since 0.1.0 */
export type MailboxSnapshot = typeof MailboxSnapshot.Type

/**
 * A topic of a bus: how many messages were published on it, and how many subscribers it has now. The mailboxes of its
 * subscribers stand below it.
 *
 * @category models
 * @since 0.1.0
 */
export const TopicSnapshot = Schema.Struct({
  kind: Schema.Literal("topic"),
  ...nodeFields,
  delivery: Schema.Literals(["queue", "broadcast"]),
  published: Schema.Int,
  subscribers: Schema.Int
})

/** @since 0.1.0 */
export type TopicSnapshot = typeof TopicSnapshot.Type

/**
 * A bus; its topics stand below it.
 *
 * @category models
 * @since 0.1.0
 */
export const BusSnapshot = Schema.Struct({
  kind: Schema.Literal("bus"),
  ...nodeFields
})

/** @since 0.1.0 */
export type BusSnapshot = typeof BusSnapshot.Type

/**
 * The orchestrator itself, the root of its tree.
 *
 * @category models
 * @since 0.1.0
 */
export const OrchestratorSnapshot = Schema.Struct({
  kind: Schema.Literal("orchestrator"),
  ...nodeFields
})

/** @since 0.1.0 */
export type OrchestratorSnapshot = typeof OrchestratorSnapshot.Type

/**
 * Any node of the tree.
 *
 * @category models
 * @since 0.1.0
 */
export type NodeSnapshot =
  | RoutineSnapshot
  | SupervisorSnapshot
  | GroupSnapshot
  | SagaSnapshot
  | MailboxSnapshot
  | TopicSnapshot
  | BusSnapshot
  | OrchestratorSnapshot

/** @since 0.1.0 */
export const NodeSnapshot = Schema.Union([
  RoutineSnapshot,
  SupervisorSnapshot,
  GroupSnapshot,
  SagaSnapshot,
  MailboxSnapshot,
  TopicSnapshot,
  BusSnapshot,
  OrchestratorSnapshot
])

/**
 * A node with its children, in the order they were registered.
 *
 * @category models
 * @since 0.1.0
 */
export interface TreeSnapshot {
  readonly node: NodeSnapshot
  readonly children: ReadonlyArray<TreeSnapshot>
}

/** @since 0.1.0 */
export const TreeSnapshot = Schema.Struct({
  node: NodeSnapshot,
  children: Schema.Array(Schema.suspend((): Schema.Codec<TreeSnapshot> => TreeSnapshot))
})

/**
 * Counts of all routines that share a template name: how many are in each live state now, and how many starts,
 * restarts and exits (by reason) there have been. Names beyond the first 200 share the name `_OTHER`.
 *
 * @category models
 * @since 0.1.0
 */
export interface TemplateStats {
  readonly name: string
  readonly active: {
    readonly pending: number
    readonly starting: number
    readonly running: number
    readonly backoff: number
    readonly stopping: number
  }
  readonly starts: number
  readonly restarts: number
}

/**
 * One line for each routine, under a line of titles, in columns. Durations over an hour in whole seconds, else in
 * milliseconds; `BUSY%` is the share of its uptime.
 *
 * @category getters
 * @since 0.1.0
 */
export const formatStats = (
  rows: ReadonlyArray<{ readonly routine: RoutineSnapshot; readonly stats: RoutineStats }>
): string => {
  const titles = "ID PATH STATE HEALTH UPTIME IDLE BUSY% BUSY BLOCKED Q(LEN/CAP) Q(BYTES) RESTARTS ERR".split(" ")
  const lines = rows.map(({ routine, stats: { blockedMillis, busyMillis, idleMillis, queue, uptimeMillis } }) => [
    routine.id,
    routine.path,
    routine.state,
    routine.health,
    shownDuration(uptimeMillis),
    shownDuration(idleMillis),
    uptimeMillis === 0 ? "0" : (100 * busyMillis / uptimeMillis).toFixed(0),
    shownDuration(busyMillis),
    shownDuration(blockedMillis),
    `${queue.length}/${queue.capacity}`,
    `${queue.bytes}`,
    `${routine.restarts}`,
    routine.lastExit?.message?.split("\n", 1)[0] ?? "-"
  ])
  const widths = titles.map((title, column) =>
    Math.max(title.length, ...lines.map((line) => line[column]?.length ?? 0))
  )
  const row = (cells: ReadonlyArray<string>) =>
    cells.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd()
  return [titles, ...lines].map(row).join("\n")
}

const shownDuration = (millis: number): string =>
  millis > 3_600_000 ? `${Math.round(millis / 1000)}s` : `${Math.round(millis)}ms`
