/**
 * Starts children in order, watches them, restarts what fails, and stops them in reverse order.
 *
 * A spec is a value (`Supervisor.make`); `run`, `start` and `layer` bring it to life. The words and rules are OTP's:
 * strategy, restart type, intensity, period, shutdown. Unlike OTP's, a supervisor never blocks: while one child starts
 * or stops slowly, the failure of another, a query and a stop are served.
 *
 * **Example** (A worker that fails twice and then holds)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Child, Supervisor } from "@effect-orchestra/supervisor"
 * import { Effect } from "effect"
 *
 * let runs = 0
 * const flaky = Effect.suspend(() => ++runs < 3 ? Effect.fail("flaky") : Effect.never)
 *
 * const spec = Supervisor.make({
 *   name: "app",
 *   strategy: "one_for_one",
 *   children: [Child.make("flaky", flaky)]
 * })
 *
 * const program = Effect.gen(function*() {
 *   const app = yield* Supervisor.start(spec)
 *   while (runs < 3) yield* Effect.yieldNow
 *   yield* Supervisor.stop(app)
 *   return runs
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Orchestrator.layer))) // => 3
 * ```
 *
 * @since 0.1.0
 */
import type { SupervisorFailure } from "@effect-orchestra/core/CoreError"
import type { OrchestratorEvent } from "@effect-orchestra/core/Event"
import { millisOf, path, positive } from "@effect-orchestra/core/Kernel"
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import type { Routine } from "@effect-orchestra/core/Routine"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Child from "./Child.ts"
import { exportsOf } from "./internal/Exports.ts"
import * as Operations from "./internal/Operations.ts"
import * as Reconcile from "./internal/Reconcile.ts"
import { begin, nodeOf, type RefTypeId } from "./internal/SupervisorNode.ts"
import type { Strategy } from "./Restart.ts"
import {
  type AlreadyPresent,
  type AlreadyStarted,
  type ChildNotFound,
  type ChildRestarting,
  type ChildRunning,
  Done,
  Ignore,
  type InvalidChild,
  type NotQuarantined,
  type RestartIntensityReached,
  type StartFailure,
  type SupervisorNotRunning,
  TerminateTree
} from "./SupervisorError.ts"

const TypeId = "~effect-orchestra/supervisor/Supervisor"

/**
 * Whether the own end of a significant child ends the supervisor (OTP 24): never, that of any, or that of the last.
 *
 * @category models
 * @since 0.1.0
 */
export type AutoShutdown = "never" | "any_significant" | "all_significant"

/**
 * A supervisor specification: what it gives, how it can fail, what it requires, and its options, defaults filled in.
 *
 * @category models
 * @since 0.1.0
 */
export interface Supervisor<out Out, out E, out R, out Name extends string = string> {
  readonly [TypeId]: { readonly Out: Out; readonly E: E; readonly R: R }
  readonly name: Name
  readonly strategy: Strategy
  readonly intensity: number
  readonly period: Duration.Duration
  readonly autoShutdown: AutoShutdown
  readonly restartStopped: boolean
  readonly attemptBudget: { readonly attempts: number; readonly period: Duration.Duration } | undefined
  readonly concurrentRestarts: number
  readonly propagateTermination: boolean
  readonly unavailable: { readonly wait: Duration.Duration }
  readonly children: ReadonlyArray<Child.Any>
  /** Whether its children are of one template: see `DynamicSupervisor`. */
  readonly isDynamic?: boolean
}

/**
 * Any specification.
 *
 * @category models
 * @since 0.1.0
 */
export type Any = Supervisor<unknown, unknown, unknown>

/**
 * A supervisor that has been started.
 *
 * @category models
 * @since 0.1.0
 */
export interface SupervisorRef {
  readonly [RefTypeId]: typeof RefTypeId
  readonly id: string
  readonly name: string
}

/**
 * The options of a supervisor beside its name, its strategy and its children.
 *
 * @category models
 * @since 0.1.0
 */
export interface SupervisorOptions {
  /** How many restarts within `period` it makes before it gives up. Default 3. */
  readonly intensity?: number | undefined
  /** Default 5 seconds. */
  readonly period?: Duration.Input | undefined
  /** Whether the end of significant children ends it. Default `"never"`. */
  readonly autoShutdown?: AutoShutdown | undefined
  /**
   * Whether the restart of a group also starts members that somebody stopped, or that had finished or said that they
   * were not needed, as OTP does. Default false: they stay as they are.
   */
  readonly restartStopped?: boolean | undefined
  /**
   * Bounds the automatic restarts of everything below it: one more than `attempts` within `period` and it gives up at
   * once, naming the leaf. Default: off, and the budgets of nested supervisors multiply as in OTP.
   */
  readonly attemptBudget?: { readonly attempts: number; readonly period: Duration.Input } | undefined
  /** How many children may be starting again at the same time. Default `"unbounded"`. */
  readonly concurrentRestarts?: number | "unbounded" | undefined
  /** Whether a `Supervisor.terminateTree` below it goes on to its parent. Default true. */
  readonly propagateTermination?: boolean | undefined
  /** How long a call of a service waits while its child is down. Default 5 seconds. */
  readonly unavailable?: { readonly wait: Duration.Input } | undefined
}

/**
 * Describes a supervisor. Nothing starts. A wrong constant is a defect that names it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <
  const Name extends string,
  const S extends Strategy,
  const C extends ReadonlyArray<Child.Any>
>(
  options: SupervisorOptions & {
    readonly name: Name
    readonly strategy: S
    readonly children: C & Child.Check<C, S, C[number]>
  }
): Supervisor<Child.Phantom<C[number]>["Out"], Child.Phantom<C[number]>["E"], Child.Needs<C, S>, Name> => {
  const { attemptBudget, autoShutdown = "never", children, concurrentRestarts = "unbounded", name, strategy } = options
  const what = `supervisor "${name}"`
  const wrong = (rule: string, got: unknown) => new Error(`${what}: ${rule}, got: ${String(got)}`)
  const unknown = Object.keys(options).find((key) => !known.has(key))
  if (unknown !== undefined) throw wrong("unknown option", unknown)
  if (!strategies.includes(strategy)) throw wrong(`strategy is one of ${strategies.join(", ")}`, strategy)
  if (!autoShutdowns.includes(autoShutdown)) {
    throw wrong(`autoShutdown is one of ${autoShutdowns.join(", ")}`, autoShutdown)
  }
  const spec = {
    name,
    strategy,
    ...Child.budgetOf(what, options.intensity, options.period),
    autoShutdown,
    restartStopped: options.restartStopped ?? false,
    attemptBudget: attemptBudget === undefined ? undefined : {
      attempts: positive(`${what}: attemptBudget.attempts`, attemptBudget.attempts),
      period: Child.budgetOf(`${what}: attemptBudget`, 0, attemptBudget.period).period
    },
    concurrentRestarts: concurrentRestarts === "unbounded"
      ? Infinity
      : positive(`${what}: concurrentRestarts`, concurrentRestarts),
    propagateTermination: options.propagateTermination ?? true,
    unavailable: {
      wait: Duration.millis(millisOf(`${what}: unavailable.wait`, options.unavailable?.wait ?? "5 seconds"))
    },
    children
  }
  const problem = Child.problemOf(spec)
  if (problem !== undefined) throw wrong(problem.rule, problem.got)
  // The type id carries types only.
  return spec as unknown as Supervisor<
    Child.Phantom<C[number]>["Out"],
    Child.Phantom<C[number]>["E"],
    Child.Needs<C, S>,
    Name
  >
}

const known: ReadonlySet<string> = new Set<keyof SupervisorOptions | "name" | "strategy" | "children">([
  "name",
  "strategy",
  "children",
  "intensity",
  "period",
  "autoShutdown",
  "restartStopped",
  "attemptBudget",
  "concurrentRestarts",
  "propagateTermination",
  "unavailable"
])

const strategies: ReadonlyArray<Strategy> = ["one_for_one", "one_for_all", "rest_for_one", "dependency"]
const autoShutdowns: ReadonlyArray<AutoShutdown> = ["never", "any_significant", "all_significant"]

/**
 * Starts a supervisor that the scope owns, and waits until its last child is ready. When a child does not start, those
 * before it are stopped in reverse order and it fails with `StartFailure`; a first start is never retried. Closing the
 * scope stops it. When it gives up it fails the routine that it was started in, or else `Orchestrator.fatal`.
 *
 * @category operations
 * @since 0.1.0
 */
export const start = <Out, E, R>(
  spec: Supervisor<Out, E, R>
): Effect.Effect<SupervisorRef, StartFailure, R | Scope.Scope | Orchestrator> => begin(spec, { escalates: true })

/**
 * Runs a supervisor until it ends: fails with `StartFailure` when it does not start and with `RestartIntensityReached`
 * when it gives up, each after everything was stopped; returns when somebody stopped it, when a significant child ended
 * it, or when a child asked for it. Interrupting it stops it.
 *
 * @category operations
 * @since 0.1.0
 */
export const run = <Out, E, R>(
  spec: Supervisor<Out, E, R>
): Effect.Effect<void, StartFailure | RestartIntensityReached, R | Orchestrator> =>
  Effect.flatMap(begin(spec, { escalates: false }), await_).pipe(
    // A scope in the requirements of a child is its run's own: none is asked of the caller.
    Effect.scoped as <A, E, R>(effect: Effect.Effect<A, E, R | Scope.Scope>) => Effect.Effect<A, E, R>
  )

/**
 * A supervisor as a layer: built when its last child is ready, stopped when the layer is released. Of the services of its
 * children it gives what survives a restart: each `S` as `Supervised<S>`, and itself where it has a facade.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <Out, E, R>(
  spec: Supervisor<Out, E, R>
): Layer.Layer<Out, StartFailure, Exclude<R, Scope.Scope> | Orchestrator> =>
  // What it exports is what the types of its children say.
  Layer.effectContext(Effect.map(start(spec), (self) => exportsOf(nodeOf(self)).context as Context.Context<Out>))

/**
 * Builds a layer and holds it, as `Layer.launch` does, but fails when a supervisor that nobody stands above gives up: of
 * the orchestrator in the context, so one that this layer has not started counts too. What was built is released first.
 *
 * @category operations
 * @since 0.1.0
 */
export const launch = <ROut, E, RIn>(
  layer: Layer.Layer<ROut, E, RIn>
): Effect.Effect<never, E | SupervisorFailure, RIn | Orchestrator> =>
  Effect.raceFirst(Orchestrator.fatal, Layer.launch(layer))

/**
 * Waits until the supervisor has ended with all its children. Fails when it gave up.
 *
 * @category operations
 * @since 0.1.0
 */
const await_ = (self: SupervisorRef): Effect.Effect<void, RestartIntensityReached> => nodeOf(self).awaitEnd

export {
  // `await` is a reserved word.
  await_ as await
}

/**
 * Stops the children in reverse order, each bounded by its own `shutdown`, and waits until they are gone or abandoned.
 * May be called at any time, also while it starts, and again: concurrent calls wait for one stop. Called from within one
 * of its own children it does not wait: the stop goes on, and ends the caller.
 *
 * @category operations
 * @since 0.1.0
 */
export const stop = (self: SupervisorRef): Effect.Effect<void> => Operations.stop(nodeOf(self))

/**
 * What happens to this supervisor and below it, from now on.
 *
 * @category getters
 * @since 0.1.0
 */
export const events = (self: SupervisorRef): Stream.Stream<OrchestratorEvent> => {
  const node = nodeOf(self)
  const own = path(node)
  return Stream.filter(node.kernel.bus.stream, (event) => event.path === own || event.path.startsWith(`${own}/`))
}

/**
 * A child and where it stands. `restarting` waits for its next start or is in it; `stopped` is kept but does not run;
 * `quarantined` is stopped because its budget was used up. `routine` is its last when it does not run.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChildInfo {
  readonly id: string
  readonly type: "worker" | "supervisor"
  readonly state: "starting" | "running" | "restarting" | "stopping" | "stopped" | "quarantined"
  readonly incarnation: number
  readonly routine: Routine<unknown, unknown>
}

/**
 * Adds a child after all others, starts it, and returns when it is ready. Its siblings are not touched; it belongs to
 * every later restart of the group. A child that does not start is forgotten (`StartFailure`); one that says
 * `Supervisor.ignore` is kept, stopped. Interrupting the call takes the child out again.
 *
 * @category operations
 * @since 0.1.0
 */
export const startChild: {
  <Id extends string, Raw, Out, E, R>(
    child: Child.Child<Id, Raw, Out, E, R, string>
  ): (
    self: SupervisorRef
  ) => Effect.Effect<
    ChildInfo,
    StartFailure | AlreadyStarted | AlreadyPresent | ChildRunning | InvalidChild | SupervisorNotRunning,
    R
  >
  <Id extends string, Raw, Out, E, R>(
    self: SupervisorRef,
    child: Child.Child<Id, Raw, Out, E, R, string>
  ): Effect.Effect<
    ChildInfo,
    StartFailure | AlreadyStarted | AlreadyPresent | ChildRunning | InvalidChild | SupervisorNotRunning,
    R
  >
} = dual(2, (self: SupervisorRef, child: Child.Any) => Operations.startChild(nodeOf(self), child))

/**
 * Stops a child and keeps its specification (a temporary one is forgotten). Returns `"stopped"` when it is gone, also
 * when it did not run, or `"abandoned"` when it still runs after its `shutdown`. A restart that was pending is
 * cancelled; its siblings are not touched. Interrupting the call does not interrupt the stop.
 *
 * @category operations
 * @since 0.1.0
 */
export const terminateChild: {
  (id: string): (self: SupervisorRef) => Effect.Effect<"stopped" | "abandoned", ChildNotFound | SupervisorNotRunning>
  (self: SupervisorRef, id: string): Effect.Effect<"stopped" | "abandoned", ChildNotFound | SupervisorNotRunning>
} = dual(2, (self: SupervisorRef, id: string) => Operations.terminateChild(nodeOf(self), id))

/**
 * Starts a stopped child again, it alone, and returns when it is ready. Does not count as a restart. When it does not
 * start it stays stopped and is not retried.
 *
 * @category operations
 * @since 0.1.0
 */
export const restartChild: {
  (
    id: string
  ): (
    self: SupervisorRef
  ) => Effect.Effect<ChildInfo, ChildNotFound | ChildRunning | ChildRestarting | StartFailure | SupervisorNotRunning>
  (
    self: SupervisorRef,
    id: string
  ): Effect.Effect<ChildInfo, ChildNotFound | ChildRunning | ChildRestarting | StartFailure | SupervisorNotRunning>
} = dual(2, (self: SupervisorRef, id: string) => Operations.restartChild(nodeOf(self), id))

/**
 * Forgets a stopped child.
 *
 * @category operations
 * @since 0.1.0
 */
export const deleteChild: {
  (
    id: string
  ): (self: SupervisorRef) => Effect.Effect<void, ChildNotFound | ChildRunning | ChildRestarting | SupervisorNotRunning>
  (
    self: SupervisorRef,
    id: string
  ): Effect.Effect<void, ChildNotFound | ChildRunning | ChildRestarting | SupervisorNotRunning>
} = dual(2, (self: SupervisorRef, id: string) => Operations.deleteChild(nodeOf(self), id))

/**
 * Starts a quarantined child again, with a budget and a backoff that begin anew, and returns when it is ready.
 *
 * @category operations
 * @since 0.1.0
 */
export const release: {
  (
    id: string
  ): (
    self: SupervisorRef
  ) => Effect.Effect<ChildInfo, ChildNotFound | ChildRunning | NotQuarantined | StartFailure | SupervisorNotRunning>
  (
    self: SupervisorRef,
    id: string
  ): Effect.Effect<ChildInfo, ChildNotFound | ChildRunning | NotQuarantined | StartFailure | SupervisorNotRunning>
} = dual(2, (self: SupervisorRef, id: string) => Operations.release(nodeOf(self), id))

/**
 * The children in start order (OTP lists the newest first), also those that do not run. Waits for nothing.
 *
 * @category getters
 * @since 0.1.0
 */
export const whichChildren = (self: SupervisorRef): Effect.Effect<ReadonlyArray<ChildInfo>, SupervisorNotRunning> =>
  Operations.whichChildren(nodeOf(self))

/**
 * How many children are specified, how many run, and how many of those specified are supervisors and workers.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChildCounts {
  readonly specs: number
  readonly active: number
  readonly supervisors: number
  readonly workers: number
}

/**
 * Counts the children. Waits for nothing.
 *
 * @category getters
 * @since 0.1.0
 */
export const countChildren = (self: SupervisorRef): Effect.Effect<ChildCounts, SupervisorNotRunning> =>
  Operations.countChildren(nodeOf(self))

/**
 * The specification of a child, with all defaults filled in.
 *
 * @category getters
 * @since 0.1.0
 */
export const childSpec: {
  (id: string): (self: SupervisorRef) => Effect.Effect<Child.ChildSpec, ChildNotFound | SupervisorNotRunning>
  (self: SupervisorRef, id: string): Effect.Effect<Child.ChildSpec, ChildNotFound | SupervisorNotRunning>
} = dual(2, (self: SupervisorRef, id: string) => Operations.childSpec(nodeOf(self), id))

/**
 * What a reconciliation changed: the ids of the children that were added and started, stopped and removed, given another
 * effect or layer and started again (`replaced`), given other options (`updated`, from the next restart on), started
 * again because they stand on one that was replaced (`restarted`), and left alone; and the options of the supervisor.
 *
 * @category models
 * @since 0.1.0
 */
export interface ReconcileReport {
  readonly added: ReadonlyArray<string>
  readonly removed: ReadonlyArray<string>
  readonly replaced: ReadonlyArray<string>
  readonly updated: ReadonlyArray<string>
  readonly restarted: ReadonlyArray<string>
  readonly unchanged: ReadonlyArray<string>
  readonly flags: ReadonlyArray<string>
}

/**
 * Brings a running supervisor to another specification of the same name, and returns what that changed when the last
 * child is ready. A child runs the same as before when its effect or layer is the same value: then it is not touched. A
 * child that somebody has stopped stays so. What is wrong with the specification fails with `InvalidChild` before anything
 * is changed; when a child does not start, or the caller is interrupted, everything is taken back (what had been stopped
 * for it is started again) and the call fails. Concurrent calls take turns. Does not count as a restart.
 *
 * @category operations
 * @since 0.1.0
 */
export const reconcile: {
  <Out, E, R>(
    spec: Supervisor<Out, E, R>
  ): (
    self: SupervisorRef
  ) => Effect.Effect<ReconcileReport, StartFailure | InvalidChild | SupervisorNotRunning, R>
  <Out, E, R>(
    self: SupervisorRef,
    spec: Supervisor<Out, E, R>
  ): Effect.Effect<ReconcileReport, StartFailure | InvalidChild | SupervisorNotRunning, R>
} = dual(2, (self: SupervisorRef, spec: Any) => Reconcile.reconcile(nodeOf(self), spec))

/**
 * For a child to run: it is not needed now. It is stopped and kept (a temporary one is forgotten); nobody counts that as
 * a failure, and no significant end is seen in it. OTP: `ignore`. Anywhere else it dies with `Ignore`.
 *
 * @category operations
 * @since 0.1.0
 */
export const ignore: Effect.Effect<never> = Effect.die(new Ignore())

/**
 * For a child to run: it has done its work. It is forgotten, whatever its restart type. suture: `ErrDoNotRestart`.
 * Anywhere else it dies with `Done`.
 *
 * @category operations
 * @since 0.1.0
 */
export const done: Effect.Effect<never> = Effect.die(new Done())

/**
 * For a child to run: its supervisor stops all its children and ends normally, and so does the parent of that, unless
 * `propagateTermination` is off: then the parent forgets it. suture: `ErrTerminateSupervisorTree`. Anywhere else it dies
 * with `TerminateTree`.
 *
 * @category operations
 * @since 0.1.0
 */
export const terminateTree: Effect.Effect<never> = Effect.die(new TerminateTree())
