/**
 * What a supervisor runs: an effect, a layer, or another supervisor, and how each is restarted and stopped.
 *
 * A child of `Child.layer` gives its services to the siblings that start after it (under `rest_for_one`, where they
 * are rebuilt with it); what no sibling gives stays in the supervisor's requirements.
 *
 * **Example** (A pool that a worker needs: whichever order is wrong does not compile)
 *
 * ```ts import.meta.vitest
 * import { Child, Supervisor } from "@effect-orchestra/supervisor"
 * import { Context, Effect, Layer } from "effect"
 *
 * class Pool extends Context.Service<Pool, { readonly size: number }>()("app/Pool") {}
 *
 * const spec = Supervisor.make({
 *   name: "app",
 *   strategy: "rest_for_one",
 *   children: [
 *     Child.layer("pool", Layer.succeed(Pool, { size: 4 })),
 *     Child.make("worker", Effect.andThen(Pool, Effect.never), { restart: "transient" })
 *   ]
 * })
 *
 * spec.name // => "app"
 * ```
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import type { RestartType, Strategy } from "./Restart.ts"
import type { Supervisor } from "./Supervisor.ts"
import type { RestartIntensityReached, StartFailure } from "./SupervisorError.ts"

/**
 * How a child is started, restarted and stopped.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChildOptions {
  /** When it runs again after it ended: `"permanent"` (the default) always, `"transient"` after an abnormal end. */
  readonly restart?: RestartType | undefined
  /**
   * How long its interruption and its finalizers may take before it is abandoned: 5 seconds by default, for a
   * supervisor as long as its parent has; `"brutal_kill"` waits not at all, `"infinity"` without a bound.
   */
  readonly shutdown?: Duration.Input | "brutal_kill" | "infinity" | undefined
  /** For `Child.make`: whether the next child starts only after this one's `Routine.ready`. Default false. */
  readonly awaitReady?: boolean | undefined
  /** How long a start may take. Default 30 seconds where readiness is awaited by `awaitReady`, else no bound. */
  readonly startTimeout?: Duration.Input | undefined
  /** The delay before each restart. Its end is the end of the supervisor's patience. Default: no delay. */
  readonly backoff?: Schedule.Schedule<unknown, Cause.Cause<unknown>> | undefined
  /** After a run of this length the backoff starts from its beginning again. Default 30 seconds. */
  readonly resetAfter?: Duration.Input | undefined
  /** Shown in snapshots, never in metrics. */
  readonly attributes?: Readonly<Record<string, string>> | undefined
}

/**
 * What a child runs.
 *
 * @category models
 * @since 0.1.0
 */
export type Body =
  | { readonly _tag: "Effect"; readonly effect: Effect.Effect<unknown, unknown, unknown> }
  | { readonly _tag: "Layer"; readonly layer: Layer.Layer<never, unknown, unknown> }
  | { readonly _tag: "Supervisor"; readonly spec: Supervisor<unknown, unknown, string> }

/**
 * A child specification: its id, the services it gives its siblings (`Raw`), how it can fail, and what it requires.
 *
 * @category models
 * @since 0.1.0
 */
export interface Child<out Id extends string, out Raw, out E, out R> {
  readonly id: Id
  readonly body: Body
  readonly options: ChildOptions
  readonly "~effect-orchestra/supervisor/Child": { readonly Raw: Raw; readonly E: E; readonly R: R }
}

/**
 * Any child.
 *
 * @category models
 * @since 0.1.0
 */
export type Any = Child<string, unknown, unknown, unknown>

const child = <Id extends string, Raw, E, R>(id: Id, body: Body, options: ChildOptions): Child<Id, Raw, E, R> => {
  for (const key of Object.keys(options)) {
    if (!known.has(key)) throw new Error(`child "${id}": unknown option, got: ${key}`)
  }
  // The last property exists for the compiler only.
  return { id, body, options } as Child<Id, Raw, E, R>
}

const known: ReadonlySet<string> = new Set<keyof ChildOptions>([
  "restart",
  "shutdown",
  "awaitReady",
  "startTimeout",
  "backoff",
  "resetAfter",
  "attributes"
])

/**
 * A child that runs an effect. It is ready, and the next child starts, before its first instruction; with `awaitReady`
 * at its `Routine.ready`, and then ending, failing or `startTimeout` before that is a failed start.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <const Id extends string, A, E, R>(
  id: Id,
  effect: Effect.Effect<A, E, R>,
  options: ChildOptions = {}
): Child<Id, never, E, Exclude<R, Scope.Scope>> =>
  child(id, { _tag: "Effect", effect: effect as Effect.Effect<unknown, unknown, unknown> }, options)

/**
 * A child that is a layer: ready when built, gone when its scope is closed. Each run builds it anew, with a memo map
 * of its own. What it relies on in the background is forked with `Orchestrator.forkScoped`: such a routine is linked,
 * and its failure is the child's. A layer has no successful end, so `transient` behaves as `permanent`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const layer = <const Id extends string, ROut, E, RIn>(
  id: Id,
  layer: Layer.Layer<ROut, E, RIn>,
  options: Omit<ChildOptions, "awaitReady"> = {}
): Child<Id, ROut, E, RIn> =>
  // What the layer gives is known to the types of the siblings alone.
  child(id, { _tag: "Layer", layer: layer as unknown as Layer.Layer<never, unknown, unknown> }, options)

/**
 * A child that is a supervisor, under the name of its spec. It is ready when all its children are. When it gives up it
 * has failed, and its parent's budget decides whether it starts afresh; a restart starts its static children.
 *
 * @category constructors
 * @since 0.1.0
 */
export const supervisor = <const Id extends string, E, R>(
  spec: Supervisor<E, R, Id>,
  options: Omit<ChildOptions, "awaitReady"> = {}
): Child<Id, never, StartFailure | RestartIntensityReached, R> =>
  child(spec.name, { _tag: "Supervisor", spec: spec as Supervisor<unknown, unknown, string> }, options)

/**
 * Says that two children of one list share an id.
 *
 * @category models
 * @since 0.1.0
 */
export interface DuplicateChildId<Id> {
  readonly "another child has this id": Id
}

/**
 * Says that a child requires what only a sibling gives that it cannot read.
 *
 * @category models
 * @since 0.1.0
 */
export interface SiblingNotVisible<Service> {
  readonly "given by a sibling that this child cannot read: start it earlier, under rest_for_one": Service
}

/** @since 0.1.0 */
export type Phantom<C extends Any> = C["~effect-orchestra/supervisor/Child"]

type Visible<S extends Strategy, Seen extends Any> = S extends "one_for_one" ? never : Phantom<Seen>["Raw"]

/**
 * What the children require that no earlier sibling gives.
 *
 * @category models
 * @since 0.1.0
 */
export type Needs<C, S extends Strategy, Seen extends Any = never, R = never> = C extends
  readonly [infer H extends Any, ...infer T] ? Needs<T, S, Seen | H, R | Exclude<Phantom<H>["R"], Visible<S, Seen>>>
  : C extends readonly [] ? R
  : C extends ReadonlyArray<Any> ? R | Phantom<C[number]>["R"]
  : R

type CheckOne<H extends Any, S extends Strategy, All extends Any, Seen extends Any> = H["id"] extends Seen["id"] ?
  DuplicateChildId<H["id"]>
  : [Extract<Exclude<Phantom<H>["R"], Visible<S, Seen>>, Phantom<All>["Raw"]>] extends [never] ? H
  : SiblingNotVisible<Extract<Exclude<Phantom<H>["R"], Visible<S, Seen>>, Phantom<All>["Raw"]>>

/**
 * The children themselves where they are right; where one is not, a type that names what is wrong with it.
 *
 * @category models
 * @since 0.1.0
 */
export type Check<
  C,
  S extends Strategy,
  All extends Any,
  Seen extends Any = never,
  Out extends ReadonlyArray<unknown> = []
> = C extends readonly [infer H extends Any, ...infer T]
  ? Check<T, S, All, Seen | H, [...Out, CheckOne<H, S, All, Seen>]>
  : C extends readonly [] ? Out
  : C
