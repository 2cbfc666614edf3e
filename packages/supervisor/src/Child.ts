/**
 * What a supervisor runs: an effect, a layer, or another supervisor, and how each is restarted and stopped.
 *
 * A child of `Child.layer` gives its services to the siblings that start after it (under a group strategy, where they
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
import { millisOf } from "@effect-orchestra/core/Kernel"
import type { Resource } from "@effect-orchestra/core/Routine"
import type * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import type * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { type Probe, probeOf, type ProbeOptions } from "./internal/Probe.ts"
import { cycle, type Member, type RestartType, type Strategy } from "./Restart.ts"
import type { Facade, Supervised } from "./Supervised.ts"
import type { Supervisor } from "./Supervisor.ts"
import type { RestartIntensityReached, StartFailure } from "./SupervisorError.ts"

/**
 * How a child is started, watched, restarted and stopped. `Probe` is what its probe requires.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChildOptions<out Probe = never> extends ProbeOptions<Probe> {
  /**
   * When it runs again after it ended: `"permanent"` (the default) always, `"transient"` after an abnormal end,
   * `"temporary"` never, and then it is forgotten.
   */
  readonly restart?: RestartType | undefined
  /**
   * How long its interruption and its finalizers may take before it is abandoned: 5 seconds by default, for a
   * supervisor as long as its parent has; `"brutal_kill"` waits not at all, `"infinity"` without a bound.
   */
  readonly shutdown?: Duration.Input | "brutal_kill" | "infinity" | undefined
  /** Whether its own end can end the supervisor: see the supervisor's `autoShutdown`. Default false. */
  readonly significant?: boolean | undefined
  /** For `Child.make`: whether it is ready only at its `Routine.ready`. Default false. */
  readonly awaitReady?: boolean | undefined
  /** How long a start may take. Default 30 seconds where readiness is awaited by `awaitReady`, else no bound. */
  readonly startTimeout?: Duration.Input | undefined
  /** The delay before each restart. Its end is the end of the supervisor's patience. Default: no delay. */
  readonly backoff?: Schedule.Schedule<unknown, Cause.Cause<unknown>> | undefined
  /** After a run of this length the backoff starts from its beginning again. Default 30 seconds. */
  readonly resetAfter?: Duration.Input | undefined
  /**
   * A restart budget of its own: `intensity` restarts (default 3) within `period` (default 5 seconds). Such a child does
   * not use the supervisor's. Default: none of its own.
   */
  readonly intensity?: number | undefined
  readonly period?: Duration.Input | undefined
  /**
   * When its budget is used up, or its backoff has ended: `"escalate"` (the default) makes it the supervisor's matter,
   * `"quarantine"` leaves it stopped, and says so, until `Supervisor.release`.
   */
  readonly onGiveUp?: "escalate" | "quarantine" | undefined
  /**
   * When a run ignores its interruption past its `shutdown`, the next `"wait"`s for its end (the default), or
   * `"replace"`s it and runs beside it.
   */
  readonly onUnstoppable?: "wait" | "replace" | undefined
  /** The ids of the children that have to be ready before it starts, under the strategy `"dependency"`. */
  readonly dependsOn?: ReadonlyArray<string> | undefined
  /** Whether a fiber that its layer forks while it is built fails the child when it fails. Default true. */
  readonly linkForks?: boolean | undefined
  /** A run that does not `Routine.beat` for so long has failed. Default: no watch. */
  readonly idleTimeout?: Duration.Input | undefined
  /** The mailboxes that belong to it: its stats sum them up. They outlive its runs. */
  readonly mailbox?: Resource | ReadonlyArray<Resource> | undefined
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
  | { readonly _tag: "Supervisor"; readonly spec: Supervisor<unknown, unknown, unknown, string> }

/**
 * The options of a child, all defaults filled in. `type` is OTP's; an unbounded time is infinite.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChildSpec extends Member {
  readonly type: "worker" | "supervisor"
  readonly restart: RestartType
  readonly shutdown: Duration.Duration | "brutal_kill" | "infinity"
  readonly significant: boolean
  readonly awaitReady: boolean
  readonly startTimeout: Duration.Duration
  readonly backoff: Schedule.Schedule<unknown, Cause.Cause<unknown>> | undefined
  readonly resetAfter: Duration.Duration
  readonly budget: { readonly intensity: number; readonly period: Duration.Duration } | undefined
  readonly onGiveUp: "escalate" | "quarantine"
  readonly onUnstoppable: "wait" | "replace"
  readonly linkForks: boolean
  readonly idleTimeout: Duration.Duration | undefined
  readonly probe: Probe | undefined
  readonly stable: ReadonlyArray<Facade<unknown, unknown>>
  readonly mailbox: ReadonlyArray<Resource>
  readonly attributes: Readonly<Record<string, string>>
}

/**
 * A child specification: its id, the services it gives its siblings (`Raw`), those that outlive its runs (`Out`), how it
 * can fail, what it requires, and the ids that it depends on.
 *
 * @category models
 * @since 0.1.0
 */
export interface Child<out Id extends string, out Raw, out Out, out E, out R, out Deps extends string = never> {
  readonly id: Id
  readonly body: Body
  readonly spec: ChildSpec
  readonly "~effect-orchestra/supervisor/Child": {
    readonly Raw: Raw
    readonly Out: Out
    readonly E: E
    readonly R: R
    readonly Deps: Deps
  }
}

/**
 * Any child.
 *
 * @category models
 * @since 0.1.0
 */
export type Any = Child<string, unknown, unknown, unknown, unknown, string>

interface Stable {
  readonly stable?: ReadonlyArray<Facade<unknown, unknown>> | undefined
}

const child = <Id extends string, Raw, Out, E, R, Deps extends string>(
  id: Id,
  body: Body,
  options: ChildOptions<unknown> & Stable
): Child<Id, Raw, Out, E, R, Deps> =>
  // The last property exists for the compiler only.
  ({ id, body, spec: specOf(id, body._tag === "Supervisor" ? "supervisor" : "worker", options) }) as Child<
    Id,
    Raw,
    Out,
    E,
    R,
    Deps
  >

/** @internal */
export const specOf = (id: string, type: ChildSpec["type"], options: ChildOptions<unknown> & Stable): ChildSpec => {
  const wrong = (rule: string, got: unknown) => new Error(`child "${id}": ${rule}, got: ${String(got)}`)
  for (const key of Object.keys(options)) if (!known.has(key)) throw wrong("unknown option", key)
  const oneOf = <const A extends string>(
    name: string,
    allowed: ReadonlyArray<A>,
    given: A | undefined,
    otherwise: A
  ): A => {
    if (given !== undefined && !allowed.includes(given)) throw wrong(`${name} is one of ${allowed.join(", ")}`, given)
    return given ?? otherwise
  }
  const time = (name: string, given: Duration.Input): Duration.Duration =>
    Duration.millis(millisOf(`child "${id}": ${name}`, given))
  const { awaitReady = false, intensity, mailbox = [], period, shutdown, significant = false, stable = [] } = options
  const restart = oneOf("restart", ["permanent", "transient", "temporary"], options.restart, "permanent")
  if (significant && restart === "permanent") throw wrong("a significant child is transient or temporary", restart)
  return {
    id,
    type,
    restart,
    shutdown: shutdown === undefined
      ? type === "supervisor" ? "infinity" : Duration.seconds(5)
      : shutdown === "brutal_kill" || shutdown === "infinity"
      ? shutdown
      : time("shutdown", shutdown),
    significant,
    awaitReady,
    startTimeout: time("startTimeout", options.startTimeout ?? (awaitReady ? "30 seconds" : Infinity)),
    backoff: options.backoff,
    resetAfter: time("resetAfter", options.resetAfter ?? "30 seconds"),
    budget: intensity === undefined && period === undefined ? undefined : budgetOf(`child "${id}"`, intensity, period),
    onGiveUp: oneOf("onGiveUp", ["escalate", "quarantine"], options.onGiveUp, "escalate"),
    onUnstoppable: oneOf("onUnstoppable", ["wait", "replace"], options.onUnstoppable, "wait"),
    dependsOn: options.dependsOn ?? [],
    linkForks: options.linkForks ?? true,
    idleTimeout: options.idleTimeout === undefined ? undefined : time("idleTimeout", options.idleTimeout),
    probe: probeOf(`child "${id}"`, options),
    stable,
    mailbox: isMany(mailbox) ? mailbox : [mailbox],
    attributes: options.attributes ?? {}
  }
}

const isMany = (mailbox: Resource | ReadonlyArray<Resource>): mailbox is ReadonlyArray<Resource> =>
  Array.isArray(mailbox)

/** @internal */
export const budgetOf = (
  what: string,
  intensity: number = 3,
  period: Duration.Input = "5 seconds"
): { readonly intensity: number; readonly period: Duration.Duration } => {
  if (!Number.isInteger(intensity) || intensity < 0) {
    throw new Error(`${what}: intensity is a whole number from 0 on, got: ${intensity}`)
  }
  const millis = millisOf(`${what}: period`, period)
  if (!(millis > 0 && millis < Infinity)) {
    throw new Error(`${what}: period is more than 0 and finite, got: ${String(period)}`)
  }
  return { intensity, period: Duration.millis(millis) }
}

/**
 * What is wrong with the children of a supervisor, which of them it is, and the offending value. `present` are children
 * that it has already.
 *
 * @internal
 */
export const problemOf = (
  { autoShutdown, children, strategy }: Pick<
    Supervisor<unknown, unknown, unknown>,
    "autoShutdown" | "children" | "strategy"
  >,
  present?: ReadonlyMap<unknown, { readonly policy: { readonly spec: ChildSpec } }>
): { readonly child: string; readonly rule: string; readonly got: string } | undefined => {
  const ids = new Set<string>()
  for (const { id } of children) {
    if (ids.has(id)) return { child: id, rule: "children have different ids", got: id }
    ids.add(id)
  }
  for (const { id, spec: { dependsOn, significant } } of children) {
    if (significant && autoShutdown === "never") {
      return { child: id, rule: "a significant child needs an autoShutdown", got: `"${id}" under autoShutdown never` }
    }
    if (dependsOn.length > 0 && strategy !== "dependency") {
      return { child: id, rule: "dependsOn needs the strategy dependency", got: `"${id}" under ${strategy}` }
    }
    const missing = dependsOn.find((on) => !ids.has(on) && present?.has(on) !== true)
    if (missing !== undefined) return { child: id, rule: `"${id}" depends on a child of the supervisor`, got: missing }
  }
  // Whoever depends on an id that was forgotten depends on the child that takes it.
  const around = present === undefined || children.every(({ spec }) => spec.dependsOn.length === 0)
    ? []
    : [...present.values()]
  const all = [...around.map(({ policy }) => policy.spec), ...children.map(({ spec }) => spec)]
  const [first = "", ...rest] = cycle(all) ?? []
  if (rest.length > 0) return { child: first, rule: "no child depends on itself", got: [first, ...rest].join(" -> ") }
  return undefined
}

const known: ReadonlySet<string> = new Set<keyof ChildOptions | "stable">([
  "restart",
  "shutdown",
  "significant",
  "awaitReady",
  "startTimeout",
  "backoff",
  "resetAfter",
  "intensity",
  "period",
  "onGiveUp",
  "onUnstoppable",
  "dependsOn",
  "linkForks",
  "idleTimeout",
  "probe",
  "every",
  "timeout",
  "failures",
  "stable",
  "mailbox",
  "attributes"
])

/**
 * The options of a child, with the types of what they name: the ids it depends on, and what its probe requires. A layer
 * and a supervisor are ready when built.
 *
 * @category models
 * @since 0.1.0
 */
export type OptionsWith<Deps, Probe, But extends string = never> = Omit<ChildOptions, "dependsOn" | "probe" | But> & {
  readonly dependsOn?: ReadonlyArray<Deps> | undefined
  readonly probe?: Effect.Effect<unknown, unknown, Probe> | undefined
}

/**
 * A child that runs an effect. It is ready, and the next child starts, before its first instruction; with `awaitReady`
 * at its `Routine.ready`, and then ending, failing or `startTimeout` before that is a failed start.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <const Id extends string, A, E, R, const D extends string = never, P = never>(
  id: Id,
  effect: Effect.Effect<A, E, R>,
  options: OptionsWith<D, P> = {}
): Child<Id, never, never, E, Exclude<R | Needed<P>, Scope.Scope>, NoInfer<D>> =>
  child(id, { _tag: "Effect", effect: effect as Effect.Effect<unknown, unknown, unknown> }, options)

/**
 * A child that is a layer: ready when built, gone when its scope is closed. Each run builds it anew, with a memo map
 * of its own. What it relies on in the background is forked with `Orchestrator.forkScoped`: such a routine is linked,
 * and its failure is the child's. A layer has no successful end, so `transient` behaves as `permanent`.
 *
 * Siblings that start after it read what it gives, under a group strategy; all others reach it through `Supervised.use`,
 * and, where `stable` says so, through a facade.
 *
 * @category constructors
 * @since 0.1.0
 */
export const layer = <
  const Id extends string,
  ROut,
  E,
  RIn,
  const F extends ReadonlyArray<Facade<unknown, unknown>> = [],
  const D extends string = never,
  P = never
>(
  id: Id,
  layer: Layer.Layer<ROut, E, RIn>,
  options: OptionsWith<D, P, "awaitReady"> & {
    /** The services that are also exported themselves, each by a `Supervised.stable`. */
    readonly stable?: F & Given<F, NoInfer<ROut>> | undefined
  } = {}
): Child<
  Id,
  ROut,
  SupervisedOf<ROut> | FacadeServices<NoInfer<F>>,
  E,
  RIn | Exclude<Needed<P>, ROut | Scope.Scope>,
  NoInfer<D>
> =>
  // What the layer gives is known to the types of the siblings alone.
  child(id, { _tag: "Layer", layer: layer as unknown as Layer.Layer<never, unknown, unknown> }, options)

/**
 * A child that is a supervisor, under the name of its spec. It is ready when all its children are. When it gives up it
 * has failed, and its parent's budget decides whether it starts afresh; a restart starts its static children.
 *
 * @category constructors
 * @since 0.1.0
 */
export const supervisor = <const Id extends string, Out, E, R, const D extends string = never, P = never>(
  spec: Supervisor<Out, E, R, Id>,
  options: OptionsWith<D, P, "awaitReady"> = {}
): Child<
  Id,
  never,
  Out,
  StartFailure | RestartIntensityReached,
  R | Exclude<Needed<P>, Out | Scope.Scope>,
  NoInfer<D>
> => child(spec.name, { _tag: "Supervisor", spec: spec as Supervisor<unknown, unknown, unknown, string> }, options)

/** `NoInfer`, for what is excluded from: the compiler does not look through that, and does not infer through this. */
type Needed<P> = [P] extends [infer R] ? R : never

type SupervisedOf<I> = I extends unknown ? Supervised<I> : never

type FacadeServices<F extends ReadonlyArray<Facade<unknown, unknown>>> = F[number] extends infer X
  ? X extends Facade<infer I, unknown> ? I : never
  : never

type Given<F extends ReadonlyArray<Facade<unknown, unknown>>, ROut> = [Exclude<FacadeServices<F>, ROut>] extends
  [never] ? unknown
  : NotGiven<Exclude<FacadeServices<F>, ROut>>

/**
 * Says that a facade stands for a service that the layer does not give.
 *
 * @category models
 * @since 0.1.0
 */
export interface NotGiven<Service> {
  readonly "the layer does not give this service": Service
}

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
  readonly "exported by a sibling this child cannot read: start it earlier, name it in dependsOn, or (one_for_one) read it through Supervised.use or a stable facade":
    Service
}

/**
 * Says that a child depends on an id that no earlier child has.
 *
 * @category models
 * @since 0.1.0
 */
export interface UnknownDependency<Id> {
  readonly "no earlier child has this id": Id
}

/** @since 0.1.0 */
export type Phantom<C extends Any> = C["~effect-orchestra/supervisor/Child"]

type GivenBy<H extends Any, Ids> = H extends Any ? H["id"] extends Ids ? Phantom<H>["Raw" | "Out"] : never : never

/** What a child may read of those before it; under `dependency` of those it depends on alone, so the graph cannot lie. */
type Visible<S extends Strategy, H extends Any, Seen extends Any> = S extends "one_for_one" ? Phantom<Seen>["Out"]
  : GivenBy<Seen, S extends "dependency" ? Phantom<H>["Deps"] : string>

/**
 * What the children require that no sibling gives.
 *
 * @category models
 * @since 0.1.0
 */
export type Needs<C, S extends Strategy, Seen extends Any = never, R = never> = C extends
  readonly [infer H extends Any, ...infer T] ? Needs<T, S, Seen | H, R | Exclude<Phantom<H>["R"], Visible<S, H, Seen>>>
  : C extends readonly [] ? R
  : C extends ReadonlyArray<Any> ? R | Exclude<Phantom<C[number]>["R"], Visible<S, C[number], Seen>>
  : R

type CheckOne<H extends Any, S extends Strategy, All extends Any, Seen extends Any> =
  [Extract<KnownId<H>, KnownId<Seen>>] extends [never] ? CheckRest<H, S, All, Seen>
    : DuplicateChildId<H["id"]>

type CheckRest<H extends Any, S extends Strategy, All extends Any, Seen extends Any> =
  [Exclude<Phantom<H>["Deps"], Seen["id"]>] extends [never]
    ? [Hidden<H, S, All, Seen>] extends [never] ? H : SiblingNotVisible<Hidden<H, S, All, Seen>>
    : UnknownDependency<Exclude<Phantom<H>["Deps"], Seen["id"]>>

/** The id, where it is a literal: two that are any string need not be the same. */
type KnownId<H extends Any> = H extends Any ? {} extends Record<H["id"], true> ? never : H["id"] : never

/** What a child requires, and a sibling gives, but not to it. */
type Hidden<H extends Any, S extends Strategy, All extends Any, Seen extends Any> = Extract<
  Exclude<Phantom<H>["R"], Visible<S, H, Seen>>,
  Phantom<Exclude<All, H>>["Raw" | "Out"]
>

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
  : C extends readonly [] ? Readonly<Out>
  : Out extends readonly [] ? C
  // What is left of a tuple that ends in an array.
  : C extends ReadonlyArray<unknown> ? readonly [...Out, ...C]
  : C
