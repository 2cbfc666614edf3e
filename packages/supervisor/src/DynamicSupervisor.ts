/**
 * A supervisor of children that come and go: all of one template, independent of each other, started by `startChild`
 * and forgotten when they end or are terminated. OTP: `simple_one_for_one`; Elixir: `DynamicSupervisor`.
 *
 * A start costs about as much as a fork; children are stopped all at once, each bounded by its own `shutdown`.
 *
 * **Example** (A worker for each job, at most two at a time)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { DynamicSupervisor } from "@effect-orchestra/supervisor"
 * import { Effect } from "effect"
 *
 * const spec = DynamicSupervisor.make({
 *   name: "workers",
 *   child: (job: number) => job === 0 ? Effect.succeed("nothing to do") : Effect.never,
 *   restart: "transient",
 *   maxChildren: 2
 * })
 *
 * const program = Effect.gen(function*() {
 *   const workers = yield* DynamicSupervisor.start(spec)
 *   const idle = yield* DynamicSupervisor.startChild(workers, 0)
 *   yield* DynamicSupervisor.startChild(workers, 1)
 *   const value = yield* Routine.join(idle)
 *   yield* DynamicSupervisor.startChild(workers, 2)
 *   const refused = yield* Effect.flip(DynamicSupervisor.startChild(workers, 3))
 *   return [value, refused._tag]
 * })
 *
 * const seen = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
 * seen // => ["nothing to do", "MaxChildren"]
 * ```
 *
 * @since 0.1.0
 */
import type { OrchestratorEvent } from "@effect-orchestra/core/Event"
import { type Node, path, positive } from "@effect-orchestra/core/Kernel"
import type { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import type { Routine } from "@effect-orchestra/core/Routine"
import { Current } from "@effect-orchestra/core/RoutineRecord"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import { dual } from "effect/Function"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as Child from "./Child.ts"
import { Demand } from "./internal/Demand.ts"
import { DynamicChildren } from "./internal/DynamicChildren.ts"
import * as Operations from "./internal/Operations.ts"
import { begin, nodeOf } from "./internal/SupervisorNode.ts"
import * as Supervisor from "./Supervisor.ts"
import type {
  ChildNotFound,
  ChildRunning,
  MaxChildren,
  NotQuarantined,
  RestartIntensityReached,
  StartFailure,
  SupervisorNotRunning
} from "./SupervisorError.ts"

const TypeId = "~effect-orchestra/supervisor/DynamicSupervisor"

/**
 * How a dynamic supervisor and its children behave. What a child and a supervisor have in common is the supervisor's:
 * `intensity` and `period` are the budget that all children share.
 *
 * @category models
 * @since 0.1.0
 */
export interface DynamicOptions extends
  Pick<
    Supervisor.SupervisorOptions,
    "intensity" | "period" | "attemptBudget" | "concurrentRestarts" | "propagateTermination"
  >,
  Omit<Child.ChildOptions, "intensity" | "period" | "significant" | "dependsOn">
{
  /** A restart budget for each child alone, in place of the shared one. */
  readonly childBudget?: Pick<Child.ChildOptions, "intensity" | "period"> | undefined
  /** How many children there may be at once, those that wait for their restart included. Default: no limit. */
  readonly maxChildren?: number | undefined
  /**
   * Whether the children that it had are started again, once each, when it is started again in the same routine: a
   * supervised child that has been restarted. Default false: they are lost, as in OTP.
   */
  readonly restore?: boolean | undefined
}

/**
 * The specification of a dynamic supervisor.
 *
 * @category models
 * @since 0.1.0
 */
export interface DynamicSupervisor<in Arg, out A, out E, out R, out Name extends string = string> {
  readonly [TypeId]: { readonly A: A; readonly E: E; readonly R: R }
  readonly name: Name
  readonly child: (arg: Arg) => Effect.Effect<unknown, unknown, unknown> | Layer.Layer<never, unknown, unknown>
  readonly childSpec: Child.ChildSpec
  readonly maxChildren: number
  readonly restore: boolean
  readonly supervisor: Supervisor.Any
}

/**
 * A dynamic supervisor that has been started.
 *
 * @category models
 * @since 0.1.0
 */
export interface DynamicRef<in Arg, out A, out E> {
  readonly [TypeId]: { readonly A: A; readonly E: E; readonly Arg: (arg: Arg) => void }
  readonly id: string
  readonly name: string
}

/**
 * Describes a dynamic supervisor. Nothing starts. Each start calls `child` with its argument once; a restart runs what
 * it returned again. A wrong constant is a defect that names it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: {
  <const Name extends string, Arg, A, E, R>(
    options: DynamicOptions & { readonly name: Name; readonly child: (arg: Arg) => Effect.Effect<A, E, R> }
  ): DynamicSupervisor<Arg, A, E, Exclude<R, Scope.Scope>, Name>
  <const Name extends string, Arg, ROut, E, R>(
    options: DynamicOptions & { readonly name: Name; readonly child: (arg: Arg) => Layer.Layer<ROut, E, R> }
  ): DynamicSupervisor<Arg, never, E, R, Name>
} = <Arg>(
  {
    attemptBudget,
    child,
    childBudget,
    concurrentRestarts,
    intensity,
    maxChildren,
    name,
    period,
    propagateTermination,
    restore = false,
    ...options
  }:
    & DynamicOptions
    & {
      readonly name: string
      readonly child: (arg: Arg) => Effect.Effect<unknown, unknown, unknown> | Layer.Layer<never, unknown, unknown>
    }
) => {
  if (maxChildren !== undefined && !(Number.isInteger(maxChildren) && maxChildren >= 0)) {
    throw new Error(`supervisor "${name}": maxChildren is a whole number from 0 on, got: ${maxChildren}`)
  }
  const supervisor = Supervisor.make({
    name,
    strategy: "one_for_one",
    intensity,
    period,
    attemptBudget,
    concurrentRestarts,
    propagateTermination,
    children: []
  })
  const spec = {
    name,
    child,
    childSpec: Child.specOf(name, "worker", { ...options, ...childBudget }),
    maxChildren: maxChildren ?? Infinity,
    restore,
    supervisor: { ...supervisor, isDynamic: true }
  }
  // The type id carries types only.
  return spec as unknown as DynamicSupervisor<Arg, never, never, never, never>
}

// Every ref is made by this module.
const refOf = (self: DynamicRef<never, unknown, unknown>): DynamicChildren => self as DynamicChildren

/** With what the children were started that supervisors, when they ended, left to those that start in the same routine. */
const legacies = new WeakMap<Node, Map<unknown, Array<ReadonlyArray<unknown>>>>()

/**
 * Starts a dynamic supervisor that the scope owns, without children; with `restore`, with those that it had. Closing
 * the scope stops it. When it gives up it fails the routine that it was started in, or else `Orchestrator.fatal`. As a
 * child of another supervisor: `Child.layer(id, Layer.effect(Workers, DynamicSupervisor.start(spec)))`.
 *
 * @category operations
 * @since 0.1.0
 */
export const start: <Arg, A, E, R>(
  spec: DynamicSupervisor<Arg, A, E, R>
) => Effect.Effect<DynamicRef<Arg, A, E>, StartFailure, R | Scope.Scope | Orchestrator> = Effect.fnUntraced(
  function*<Arg, A, E, R>(spec: DynamicSupervisor<Arg, A, E, R>) {
    const routine = yield* Current
    const node = nodeOf(
      yield* begin<unknown, E, R>(spec.supervisor as Supervisor.Supervisor<unknown, E, R>, { escalates: true })
    )
    const ref = new DynamicChildren(spec as DynamicSupervisor<unknown, A, E, R>, node)
    if (spec.restore && routine !== undefined) yield* restored(ref, routine)
    return ref as unknown as DynamicRef<Arg, A, E>
  }
)

const restored = Effect.fnUntraced(function*(ref: DynamicChildren, routine: Node) {
  const legacy = legacies.get(routine) ?? new Map<unknown, Array<ReadonlyArray<unknown>>>()
  legacies.set(routine, legacy)
  const left = legacy.get(ref.spec) ?? []
  legacy.set(ref.spec, left)
  // Of several, the last is stopped first.
  const args = left.shift() ?? []
  ref.node.onShutDown = (slots) => {
    left.unshift(slots.map(({ record }) => ref.args.get(record.number)))
  }
  for (const arg of args) {
    yield* Effect.catch(
      ref.start(arg),
      (error) => Effect.logError(`${path(ref.node)}: a child could not be restored: ${error.message}`)
    )
  }
})

/**
 * Starts a child. It returns its routine at once, or with `awaitReady` or a layer when it is ready. Fails with
 * `MaxChildren` when there are so many (nothing is started then), and with `StartFailure` when it does not start: then it
 * is forgotten. Interrupting the call takes the child out again.
 *
 * @category operations
 * @since 0.1.0
 */
export const startChild: {
  <Arg>(
    arg: Arg
  ): <A, E>(
    self: DynamicRef<Arg, A, E>
  ) => Effect.Effect<Routine<A, E>, StartFailure | MaxChildren | SupervisorNotRunning>
  <Arg, A, E>(
    self: DynamicRef<Arg, A, E>,
    arg: Arg
  ): Effect.Effect<Routine<A, E>, StartFailure | MaxChildren | SupervisorNotRunning>
} = dual(2, (self: DynamicRef<never, unknown, unknown>, arg: unknown) => refOf(self).start(arg))

/**
 * How many elements of a stream are children at a time.
 *
 * @category models
 * @since 0.1.0
 */
export interface ConsumeOptions {
  /** At most so many live at once. Default 1,000, or the supervisor's `maxChildren` if that is less. */
  readonly maxDemand?: number | undefined
  /** Once there were so many, nothing is asked for until no more than this many live. Default half of `maxDemand`. */
  readonly minDemand?: number | undefined
}

/**
 * Starts a child for each element of a stream, and asks the stream for no more than live at a time: OTP's
 * `ConsumerSupervisor`. A child holds its place until it has ended for good, so also while it is restarted. One that does
 * not start is logged and its element is dropped. What `startChild` starts is not counted here, but `MaxChildren` is what
 * this fails with when it leaves no room.
 *
 * Returns when the stream has ended; the children go on, also when it fails or is interrupted. Fails as the stream does,
 * and with `SupervisorNotRunning` when the supervisor has ended. What a stream hands over in one piece, as a
 * subscription does with what is there, is taken in one piece.
 *
 * **Example** (At most two orders are handled at a time, the others wait in the topic)
 *
 * ```ts import.meta.vitest
 * import { Bus, Orchestrator, Topic } from "@effect-orchestra/core"
 * import { DynamicSupervisor } from "@effect-orchestra/supervisor"
 * import { Effect, Layer, Schema } from "effect"
 *
 * const Orders = Topic.make("Orders", Schema.String, { kind: "queue", capacity: 4 })
 *
 * const program = Effect.gen(function*() {
 *   const handled: Array<string> = []
 *   const handlers = yield* DynamicSupervisor.start(DynamicSupervisor.make({
 *     name: "handlers",
 *     child: ({ value }: Topic.Envelope<string>) => Effect.andThen(Effect.yieldNow, Effect.sync(() => handled.push(value))),
 *     restart: "transient"
 *   }))
 *   yield* Effect.forkScoped(DynamicSupervisor.consume(handlers, Bus.stream(Orders), { maxDemand: 2 }))
 *   for (let n = 1; n <= 6; n++) yield* Bus.publish(Orders, `order ${n}`)
 *   while (handled.length < 6) yield* Effect.yieldNow
 *   return handled
 * })
 *
 * const layer = Layer.provideMerge(Bus.layer, Orchestrator.layer)
 * const handled = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(layer)))
 * handled // => ["order 1", "order 2", "order 3", "order 4", "order 5", "order 6"]
 * ```
 *
 * @category operations
 * @since 0.1.0
 */
export const consume: {
  <Arg, E2, R2>(
    stream: Stream.Stream<Arg, E2, R2>,
    options?: ConsumeOptions
  ): <A, E>(self: DynamicRef<Arg, A, E>) => Effect.Effect<void, E2 | MaxChildren | SupervisorNotRunning, R2>
  <Arg, A, E, E2, R2>(
    self: DynamicRef<Arg, A, E>,
    stream: Stream.Stream<Arg, E2, R2>,
    options?: ConsumeOptions
  ): Effect.Effect<void, E2 | MaxChildren | SupervisorNotRunning, R2>
} = dual(
  (args) => Stream.isStream(args[1]),
  <E2, R2>(
    self: DynamicRef<never, unknown, unknown>,
    stream: Stream.Stream<unknown, E2, R2>,
    options: ConsumeOptions = {}
  ) =>
    Effect.suspend(() => {
      const children = refOf(self)
      const { node } = children
      const demand = demandOf(children, options)
      const dropped = (cause: Cause.Cause<unknown>) =>
        Effect.logError(`${path(node)}: a child did not start, and what it was to consume is dropped`, cause)
      const failed = (cause: Cause.Cause<unknown>) =>
        node.writer.wake({ run: () => void Effect.runForkWith(node.kernel.context)(dropped(cause)) })
      const start = (arg: unknown) =>
        Effect.suspend((): Effect.Effect<void, MaxChildren | SupervisorNotRunning> => {
          if (children.refusal !== undefined) return children.refusal
          children.startUnattended(arg, failed, () => demand.leave())
          demand.enter()
          return Effect.void
        })
      const one = (arg: unknown) =>
        Effect.andThen(Effect.catchDefect(start(arg), (defect) => dropped(Cause.die(defect))), demand.open)
      const ended = Effect.andThen(Effect.exit(node.awaitEnd), Effect.suspend(() => Operations.refused(node)))
      return Effect.raceFirst(Stream.runForEach(stream, one), ended)
    })
)

const demandOf = (
  { node, spec: { maxChildren, name } }: DynamicChildren,
  { maxDemand = Math.max(1, Math.min(1000, maxChildren)), minDemand = Math.floor(maxDemand / 2) }: ConsumeOptions
): Demand => {
  const what = `what dynamic supervisor "${name}" consumes`
  positive(`${what}: maxDemand`, maxDemand)
  if (maxDemand > Math.max(1, maxChildren)) {
    throw new Error(`${what}: maxDemand is at most maxChildren, got: ${maxDemand}`)
  }
  if (!(Number.isInteger(minDemand) && minDemand >= 0 && minDemand < maxDemand)) {
    throw new Error(`${what}: minDemand is a whole number from 0 on and less than maxDemand, got: ${minDemand}`)
  }
  return new Demand(node.writer, maxDemand, minDemand)
}

/**
 * Stops a child, also one that waits for its restart, and forgets it. Returns `"stopped"`, or `"abandoned"` when it still
 * runs after its `shutdown`. A routine that is no child of it (any more) is `ChildNotFound`, and is left alone.
 *
 * @category operations
 * @since 0.1.0
 */
export const terminateChild: {
  (
    routine: Routine<unknown, unknown>
  ): <Arg, A, E>(
    self: DynamicRef<Arg, A, E>
  ) => Effect.Effect<"stopped" | "abandoned", ChildNotFound | SupervisorNotRunning>
  <Arg, A, E>(
    self: DynamicRef<Arg, A, E>,
    routine: Routine<unknown, unknown>
  ): Effect.Effect<"stopped" | "abandoned", ChildNotFound | SupervisorNotRunning>
} = dual(
  2,
  (self: DynamicRef<never, unknown, unknown>, routine: Routine<unknown, unknown>) =>
    Operations.terminateChild(refOf(self).node, routine.id, refOf(self).find(routine))
)

/**
 * Starts a quarantined child again, with a budget and a backoff that begin anew, and returns its new routine when it is
 * ready: a routine that has ended does not run again.
 *
 * @category operations
 * @since 0.1.0
 */
export const release: {
  (
    routine: Routine<unknown, unknown>
  ): <Arg, A, E>(
    self: DynamicRef<Arg, A, E>
  ) => Effect.Effect<
    Routine<A, E>,
    ChildNotFound | ChildRunning | NotQuarantined | StartFailure | SupervisorNotRunning
  >
  <Arg, A, E>(
    self: DynamicRef<Arg, A, E>,
    routine: Routine<unknown, unknown>
  ): Effect.Effect<
    Routine<A, E>,
    ChildNotFound | ChildRunning | NotQuarantined | StartFailure | SupervisorNotRunning
  >
} = dual(
  2,
  (self: DynamicRef<never, unknown, unknown>, routine: Routine<unknown, unknown>) =>
    Effect.map(
      Operations.release(refOf(self).node, routine.id, refOf(self).find(routine)),
      (info) => info.routine
    )
)

/**
 * The children in the order they came, those that wait for their restart included. `id` is that of the routine. Waits
 * for nothing.
 *
 * @category getters
 * @since 0.1.0
 */
export const whichChildren = <Arg, A, E>(
  self: DynamicRef<Arg, A, E>
): Effect.Effect<ReadonlyArray<Supervisor.ChildInfo>, SupervisorNotRunning> =>
  Operations.whichChildren(refOf(self).node)

/**
 * Counts the children. Waits for nothing.
 *
 * @category getters
 * @since 0.1.0
 */
export const countChildren = <Arg, A, E>(
  self: DynamicRef<Arg, A, E>
): Effect.Effect<Supervisor.ChildCounts, SupervisorNotRunning> => Operations.countChildren(refOf(self).node)

/**
 * Waits until the supervisor has ended with all its children. Fails when it gave up.
 *
 * @category operations
 * @since 0.1.0
 */
const await_ = <Arg, A, E>(self: DynamicRef<Arg, A, E>): Effect.Effect<void, RestartIntensityReached> =>
  refOf(self).node.awaitEnd

export {
  // `await` is a reserved word.
  await_ as await
}

/**
 * Stops all children at once, each bounded by its own `shutdown`, and waits until they are gone or abandoned. Called from
 * within one of them it does not wait.
 *
 * @category operations
 * @since 0.1.0
 */
export const stop = <Arg, A, E>(self: DynamicRef<Arg, A, E>): Effect.Effect<void> => Operations.stop(refOf(self).node)

/**
 * What happens to this supervisor and below it, from now on.
 *
 * @category getters
 * @since 0.1.0
 */
export const events = <Arg, A, E>(self: DynamicRef<Arg, A, E>): Stream.Stream<OrchestratorEvent> =>
  Supervisor.events(refOf(self).node)
