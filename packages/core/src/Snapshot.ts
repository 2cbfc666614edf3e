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
 * A routine. `startedAt` is when its present run began (wall clock milliseconds); `incarnation` counts its runs from 1, `restarts` those that followed a failed or ended one;
 * `supervisor` is the path of the supervisor that keeps it, `nextStartAt` when a backoff ends.
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
  lastExit: Schema.NullOr(RunExit),
  attributes: Schema.Record(Schema.String, Schema.String)
})

/** @since 0.1.0 */
export type RoutineSnapshot = typeof RoutineSnapshot.Type

/**
 * How much of its restart intensity a supervisor has used: `used` restarts of `max` within the last `periodMillis`.
 *
 * @category models
 * @since 0.1.0
 */
export const Budget = Schema.Struct({ used: Schema.Int, max: Schema.Int, periodMillis: Schema.Finite })

/** @since 0.1.0 */
export type Budget = typeof Budget.Type

/**
 * A supervisor: its strategy, its restart budget, and where it stands.
 *
 * @category models
 * @since 0.1.0
 */
export const SupervisorSnapshot = Schema.Struct({
  kind: Schema.Literal("supervisor"),
  ...nodeFields,
  strategy: Schema.String,
  budget: Budget
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
export type NodeSnapshot = RoutineSnapshot | SupervisorSnapshot | GroupSnapshot | OrchestratorSnapshot

/** @since 0.1.0 */
export const NodeSnapshot = Schema.Union([RoutineSnapshot, SupervisorSnapshot, GroupSnapshot, OrchestratorSnapshot])

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
