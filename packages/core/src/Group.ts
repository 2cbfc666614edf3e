/**
 * Bounded concurrent children: one failure interrupts the siblings, and nothing outlives the group.
 *
 * `Group.run` is Go's `errgroup` and Kotlin's `coroutineScope`: it returns the body's value once the body and every
 * task have ended, finalizers included, or fails with the first failure once everything else was interrupted and has
 * ended. Later failures stand behind the first in the cause. Task types are inferred: `Group.fork` adds a phantom
 * requirement that `run` reads and removes. A `Joiner` makes something else of the ends of the tasks.
 *
 * A typed failure leads the cause, and what else failed until the end stands behind it: `Effect.exit` and
 * `Effect.catchCause` show it all. `Effect.catch` and `Effect.catchTag` catch it unless there is a defect among them, such
 * as a finalizer that died: Effect recovers from no error that a defect stands beside, and neither does a group hide one.
 *
 * **Example** (At most two at a time; the first failure stops the rest)
 *
 * ```ts import.meta.vitest
 * import { Group, Routine } from "@effect-orchestra/core"
 * import { Effect, Exit } from "effect"
 *
 * const lengths = Group.run((group) =>
 *   Effect.gen(function*() {
 *     const tasks = yield* Effect.forEach(["a", "bb", "ccc"], (word) =>
 *       Group.fork(group, Effect.succeed(word.length)))
 *     return yield* Effect.forEach(tasks, Routine.join)
 *   }), { concurrency: 2 })
 *
 * await Effect.runPromise(lengths) // => [1, 2, 3]
 *
 * const failing = Group.run((group) =>
 *   Effect.andThen(Group.fork(group, Effect.fail("boom")), Group.fork(group, Effect.never)))
 *
 * await Effect.runPromiseExit(failing) // => Exit.fail("boom")
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { type DeadlineExceeded, type GroupClosed, NotReady } from "./CoreError.ts"
import { forkSite } from "./internal/ForkSite.ts"
import { GroupNode, place, type Request, type Settings, type TaskRecord, TypeId } from "./internal/GroupNode.ts"
import { LongGroupNode } from "./internal/LongGroupNode.ts"
import { StreamNode } from "./internal/StreamNode.ts"
import * as Joiner from "./Joiner.ts"
import { because, millisOf, path, unbounded } from "./Kernel.ts"
import type { Routine, RoutineOptions } from "./Routine.ts"
import { Current } from "./RoutineRecord.ts"

/**
 * A group that is running.
 *
 * @category models
 * @since 0.1.0
 */
export interface Group {
  readonly [TypeId]: typeof TypeId
}

/**
 * A group that lives as long as its scope, and takes tasks with values of type `A` and errors of type `E`.
 *
 * @category models
 * @since 0.1.0
 */
export interface LongGroup<in out A, in out E, out L extends Joiner.JoinerLambda = Joiner.FailFast> extends Group {
  readonly "~effect-orchestra/core/LongGroup": {
    readonly A: (_: A) => A
    readonly E: (_: E) => E
    readonly L: (_: never) => L
  }
}

/**
 * The phantom requirement by which `fork` tells `run` the types of its tasks.
 *
 * @category models
 * @since 0.1.0
 */
export interface Task<out A, out E> {
  readonly "~effect-orchestra/core/Group/Task": { readonly A: A; readonly E: E }
}

/** @since 0.1.0 */
export type TaskValue<R> = R extends Task<infer A, unknown> ? A : never

/** @since 0.1.0 */
export type TaskError<R> = R extends Task<unknown, infer E> ? E : never

/** @since 0.1.0 */
export type WithoutTasks<R> = Exclude<R, Task<unknown, unknown>>

/** The error that a deadline adds where one is given. @since 0.1.0 */
export type TimedOut<D> = [D] extends [undefined] ? never : DeadlineExceeded

/**
 * What a group is called, and how many of its tasks run at once.
 *
 * @category models
 * @since 0.1.0
 */
export interface MakeOptions {
  /** Its name in the tree. Default `"group"`. */
  readonly name?: string | undefined
  /** How many tasks may run at once: a positive integer, or `"unbounded"`, the default. */
  readonly concurrency?: number | "unbounded" | undefined
}

/**
 * How many tasks run at once, and for how long.
 *
 * @category models
 * @since 0.1.0
 */
export interface TasksOptions<D extends Duration.Input | undefined = undefined> extends MakeOptions {
  /**
   * After this time everything is interrupted and awaited, and the run fails with `DeadlineExceeded`. With zero the body
   * runs until it waits for the first time. Default: none, and an infinite one is none.
   */
  readonly deadline?: D | undefined
}

/**
 * How a group is run.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupOptions<
  L extends Joiner.JoinerLambda = Joiner.FailFast,
  D extends Duration.Input | undefined = undefined
> extends TasksOptions<D> {
  /** What the ends of the tasks add up to. Default `Joiner.failFast`. */
  readonly joiner?: Joiner.Joiner<L> | undefined
  /** Whether the tasks are waited for (`"wait"`, the default) or interrupted (`"halt"`) when the body has returned. */
  readonly onBodyEnd?: "wait" | "halt" | undefined
}

/**
 * How a task is forked.
 *
 * @category models
 * @since 0.1.0
 */
export type TaskOptions = Pick<
  RoutineOptions,
  "name" | "attributes" | "drain" | "shutdown" | "idleTimeout" | "resources"
>

/**
 * Runs a body that forks tasks, and waits for all of them. Returns the body's value, or fails with the first failure
 * of the body or of a task; the failure of one interrupts all others. With a joiner it returns the joiner's result.
 * Never returns before every task has finished its finalizers, unless somebody stopped a task and that was abandoned.
 * Interrupting it interrupts the tasks. A task that was ended by `Routine.stop` is no failure; one that was interrupted
 * by a stranger is.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = <
  B,
  E,
  R,
  L extends Joiner.JoinerLambda = Joiner.FailFast,
  D extends Duration.Input | undefined = undefined
>(
  body: (group: Group) => Effect.Effect<B, E, R>,
  options: GroupOptions<L, D> = {}
): Effect.Effect<
  Joiner.Out<L, TaskValue<R>, TaskError<R>, B>,
  E | Joiner.Err<L, TaskValue<R>, TaskError<R>, B> | TimedOut<D>,
  WithoutTasks<R>
> => running(body, options)

/** The types of what it returns are those that the joiner computes. */
const running = (body: Body, settings: Settings): Effect.Effect<never> =>
  // From its registration to its removal nothing may interrupt it but where it waits.
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiber((fiber) => {
      const group = new GroupNode(place(fiber), settings, fiber.getRef(Current))
      group.begin(bodyOf(body, group), fiber.context)
      return outcome(group, restore) as Effect.Effect<never>
    })
  )

type Body = (group: Group) => Effect.Effect<unknown, unknown, unknown>

/** What the body requires stands in the context that it runs with, its tasks as a phantom. */
const bodyOf = (body: Body, group: GroupNode) => Effect.suspend(() => body(group)) as Effect.Effect<unknown, unknown>

/** Waits for the end of a group; interrupted, for the end of its interruption. */
const outcome = (group: GroupNode, restore: <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, E>) =>
  Effect.flatMap(Effect.exit(restore(group.ended)), (exit) => {
    if (Exit.isSuccess(exit)) return restore(exit.value)
    group.interrupted(exit.cause)
    return Effect.flatten(group.ended)
  })

/**
 * Makes a group that lives as long as the scope: closing it interrupts the tasks and waits for them. Unlike in `run`, the
 * types of the tasks are written: `Group.make<number, MyError>()`, and with another joiner
 * `Group.make<number, MyError, Joiner.All>({ joiner: Joiner.all })`.
 *
 * Its tasks come in rounds, each ended by a `join`. Once a round has failed, or its joiner needs nothing more, its tasks
 * are interrupted and it takes no more until it is joined. A joiner that looks at the tasks remembers those of the round,
 * so a group that is never joined keeps the default. A failure that nobody sees is logged when the scope closes.
 *
 * @category constructors
 * @since 0.1.0
 */
export function make<A = unknown, E = never>(
  options?: MakeOptions
): Effect.Effect<LongGroup<A, E>, never, Scope.Scope>
export function make<A, E, L extends Joiner.JoinerLambda>(
  options: MakeOptions & { readonly joiner: Joiner.Joiner<L> }
): Effect.Effect<LongGroup<A, E, L>, never, Scope.Scope>
export function make(options: Settings = {}): Effect.Effect<Group, never, Scope.Scope> {
  return Effect.acquireRelease(
    Effect.withFiber((fiber) => {
      const { concurrency, joiner, name } = options
      return Effect.succeed(
        new LongGroupNode(place(fiber), { name, concurrency, joiner }, fiber.getRef(Current))
      )
    }),
    (group) => group.close
  )
}

/**
 * Waits until every task of a long-lived group has ended, and ends the round: returns what its joiner makes of the tasks
 * since the last join, or fails with their first failure. The next join begins with nothing, neither results nor
 * failures. Joins at the same time share one result; with nothing forked it returns at once. Fails with `GroupClosed`
 * when the scope of the group is closed.
 *
 * @category operations
 * @since 0.1.0
 */
export const join = <A, E, L extends Joiner.JoinerLambda>(
  group: LongGroup<A, E, L>
): Effect.Effect<Joiner.Out<L, A, E, void>, Joiner.Err<L, A, E, void> | E | GroupClosed> =>
  // Every long-lived group is made by `make`; the types of the outcome are those that its joiner computes.
  (group as unknown as LongGroupNode).join as Effect.Effect<never>

/**
 * Forks a task. Waits for a slot when the group is full; a producer that waits here is released with the group's
 * cause when the group fails, and interrupted when it stops otherwise. Returns the task's routine. Fails with the
 * group's cause when it has already failed, in a long-lived group with `GroupClosed` when its scope is closed.
 *
 * Tasks that wait for a slot are listed as `pending`; one that is stopped there never runs.
 *
 * **Gotchas**
 *
 * A task is counted to the innermost `run` around the fork, whichever group it was forked into: there its error is
 * found in the types. A fork outside any `run` does not compile where the program is run, as nothing removes its `Task`
 * from the requirements.
 *
 * @category operations
 * @since 0.1.0
 */
export function fork<A, E, L extends Joiner.JoinerLambda, A1 extends A, E1 extends E, R>(
  group: LongGroup<A, E, L>,
  effect: Effect.Effect<A1, E1, R>,
  options?: TaskOptions
): Effect.Effect<Routine<A1, E1>, E | GroupClosed, Exclude<R, Scope.Scope>>
export function fork<A, E, L extends Joiner.JoinerLambda>(
  group: LongGroup<A, E, L>,
  options?: TaskOptions
): <A1 extends A, E1 extends E, R>(
  effect: Effect.Effect<A1, E1, R>
) => Effect.Effect<Routine<A1, E1>, E | GroupClosed, Exclude<R, Scope.Scope>>
export function fork<A, E, R>(
  group: Group,
  effect: Effect.Effect<A, E, R>,
  options?: TaskOptions
): Effect.Effect<Routine<A, E>, never, Exclude<R, Scope.Scope> | Task<A, E>>
export function fork(
  group: Group,
  options?: TaskOptions
): <A, E, R>(
  effect: Effect.Effect<A, E, R>
) => Effect.Effect<Routine<A, E>, never, Exclude<R, Scope.Scope> | Task<A, E>>
export function fork(group: Group, ...rest: ReadonlyArray<unknown>): unknown {
  return taking(rest, forkSite(fork), (request) => nodeOf(group).fork(request))
}

/**
 * Forks a task if there is a slot now. Never waits: `None` when the group is full, or takes no task any more.
 *
 * @category operations
 * @since 0.1.0
 */
export function tryFork<A, E, L extends Joiner.JoinerLambda, A1 extends A, E1 extends E, R>(
  group: LongGroup<A, E, L>,
  effect: Effect.Effect<A1, E1, R>,
  options?: TaskOptions
): Effect.Effect<Option.Option<Routine<A1, E1>>, never, Exclude<R, Scope.Scope>>
export function tryFork<A, E, L extends Joiner.JoinerLambda>(
  group: LongGroup<A, E, L>,
  options?: TaskOptions
): <A1 extends A, E1 extends E, R>(
  effect: Effect.Effect<A1, E1, R>
) => Effect.Effect<Option.Option<Routine<A1, E1>>, never, Exclude<R, Scope.Scope>>
export function tryFork<A, E, R>(
  group: Group,
  effect: Effect.Effect<A, E, R>,
  options?: TaskOptions
): Effect.Effect<Option.Option<Routine<A, E>>, never, Exclude<R, Scope.Scope> | Task<A, E>>
export function tryFork(
  group: Group,
  options?: TaskOptions
): <A, E, R>(
  effect: Effect.Effect<A, E, R>
) => Effect.Effect<Option.Option<Routine<A, E>>, never, Exclude<R, Scope.Scope> | Task<A, E>>
export function tryFork(group: Group, ...rest: ReadonlyArray<unknown>): unknown {
  return taking(rest, forkSite(tryFork), (request) => Effect.sync(() => nodeOf(group).tryFork(request)))
}

/**
 * Forks a task and waits until it says `Routine.ready`; returns its routine. What the task fails with before that goes to
 * the caller and not to the group; one that succeeds before that, or is not ready within `startTimeout`, makes it fail
 * with `NotReady`. From then on it is a task like any other. Interrupting the caller stops a task that is not ready.
 *
 * @category operations
 * @since 0.1.0
 */
export function start<A, E, L extends Joiner.JoinerLambda, A1 extends A, E1 extends E, R>(
  group: LongGroup<A, E, L>,
  effect: Effect.Effect<A1, E1, R>,
  options?: StartOptions
): Effect.Effect<Routine<A1, E1>, E | GroupClosed | NotReady, Exclude<R, Scope.Scope>>
export function start<A, E, L extends Joiner.JoinerLambda>(
  group: LongGroup<A, E, L>,
  options?: StartOptions
): <A1 extends A, E1 extends E, R>(
  effect: Effect.Effect<A1, E1, R>
) => Effect.Effect<Routine<A1, E1>, E | GroupClosed | NotReady, Exclude<R, Scope.Scope>>
export function start<A, E, R>(
  group: Group,
  effect: Effect.Effect<A, E, R>,
  options?: StartOptions
): Effect.Effect<Routine<A, E>, E | NotReady, Exclude<R, Scope.Scope> | Task<A, E>>
export function start(
  group: Group,
  options?: StartOptions
): <A, E, R>(
  effect: Effect.Effect<A, E, R>
) => Effect.Effect<Routine<A, E>, E | NotReady, Exclude<R, Scope.Scope> | Task<A, E>>
export function start(group: Group, ...rest: ReadonlyArray<unknown>): unknown {
  return taking(rest, forkSite(start), (request) => started(nodeOf(group), request))
}

/**
 * How a task is started: `startTimeout` is how long it may take until it is ready. Default: no bound.
 *
 * @category models
 * @since 0.1.0
 */
export type StartOptions = TaskOptions & Pick<RoutineOptions, "startTimeout">

const started = (group: GroupNode, request: Request): Effect.Effect<Routine<unknown, unknown>, unknown> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      const { writer } = group.kernel
      const begun = writer.now()
      const { startTimeout } = request.options
      const within = startTimeout === undefined ? Infinity : millisOf("a task's startTimeout", startTimeout)
      let task: TaskRecord | undefined = undefined
      const forked = group.fork({ ...request, starting: (record) => (task = record) })
      const waiting = Effect.andThen(forked, Effect.suspend(() => task?.readyOrEnded ?? Effect.void))
      const bounded = within === Infinity ? Effect.asSome(waiting) : Effect.timeoutOption(waiting, within)
      return Effect.flatMap(Effect.exit(restore(bounded)), (exit) => {
        if (task?.isReady === true) return Effect.succeed(task)
        const stop = Effect.suspend(() => task?.stop({ ...unbounded, by: because("not_ready", group) }) ?? Effect.void)
        return Effect.andThen(stop, () => {
          if (Exit.isFailure(exit)) return Effect.failCause(exit.cause)
          if (group.stopped !== undefined) return Effect.failCause(group.stopped)
          const ended = Option.isSome(exit.value)
          if (ended && task?.exit !== undefined && Exit.isFailure(task.exit)) return task.exit
          return Effect.fail(
            new NotReady({
              path: task === undefined ? group.path : path(task),
              reason: ended ? "ended" : "timeout",
              waitedMillis: Math.round(writer.now() - begun)
            })
          )
        })
      })
    })
  )

/** Takes `(effect, options)` at once, or `(options)` now and the effect later: the overloads say which fits. */
const taking = <A, E>(
  [first, second]: ReadonlyArray<unknown>,
  site: string | undefined,
  use: (request: Request) => Effect.Effect<A, E>
): Effect.Effect<A, E> | ((effect: Request["effect"]) => Effect.Effect<A, E>) => {
  const taken = (effect: Request["effect"], options: unknown) =>
    Effect.withFiber((fiber) => use({ effect, options: options ?? noOptions, context: fiber.context, site }))
  return Effect.isEffect(first)
    ? taken(first as Request["effect"], second)
    : (effect) => taken(effect, first)
}

// One for all who give none.
const noOptions: StartOptions = {}

/**
 * Stops everything in a group, and does not wait for it: a task may cancel its own group. `run` then fails with an
 * interruption that says `reason` (default `"cancelled"`) and the path of the routine that asked.
 *
 * @category operations
 * @since 0.1.0
 */
export const cancel = (group: Group, reason = "cancelled"): Effect.Effect<void> =>
  Effect.withFiber((fiber) => Effect.sync(() => nodeOf(group).cancel(reason, fiber.getRef(Current))))

/**
 * Moves the deadline of a group to `duration` from now: only the new one applies. Returns false, and does nothing, when
 * the group was given no deadline or has already stopped.
 *
 * @category operations
 * @since 0.1.0
 */
export const extend: {
  (duration: Duration.Input): (group: Group) => Effect.Effect<boolean>
  (group: Group, duration: Duration.Input): Effect.Effect<boolean>
} = dual(
  2,
  (group: Group, duration: Duration.Input) =>
    Effect.sync(() => nodeOf(group).extend(millisOf("a group's deadline", duration)))
)

type AnyEffect = Effect.Effect<unknown, unknown, unknown>

/**
 * Tasks that keep their places: a tuple or array, a record, or any iterable.
 *
 * @category models
 * @since 0.1.0
 */
export type Tasks = Iterable<AnyEffect> | Readonly<Record<string, AnyEffect>>

/** Any one of the tasks. @since 0.1.0 */
export type Each<T extends Tasks> = T extends Iterable<infer X extends AnyEffect> ? X
  : T extends Readonly<Record<string, infer X extends AnyEffect>> ? X
  : never

/** @since 0.1.0 */
export type Values<T extends Tasks> = T extends ReadonlyArray<AnyEffect> | Readonly<Record<string, AnyEffect>>
  ? { -readonly [K in keyof T]: Effect.Success<Extract<T[K], AnyEffect>> }
  : Array<Effect.Success<Each<T>>>

/** @since 0.1.0 */
export type Exits<T extends Tasks> = T extends ReadonlyArray<AnyEffect> | Readonly<Record<string, AnyEffect>> ? {
    -readonly [K in keyof T]: Exit.Exit<
      Effect.Success<Extract<T[K], AnyEffect>>,
      Effect.Error<Extract<T[K], AnyEffect>>
    >
  }
  : Array<Exit.Exit<Effect.Success<Each<T>>, Effect.Error<Each<T>>>>

/**
 * Runs the tasks of a tuple, a record or an iterable in a group, and returns their values under the same keys. The first
 * failure stops the rest.
 *
 * @category constructors
 * @since 0.1.0
 */
export const all = <const T extends Tasks, D extends Duration.Input | undefined = undefined>(
  tasks: T,
  options: TasksOptions<D> = {}
): Effect.Effect<
  Values<T>,
  Effect.Error<Each<T>> | TimedOut<D>,
  Exclude<Effect.Services<Each<T>>, Scope.Scope>
> => keyed(tasks, { ...options, joiner: Joiner.all })

/**
 * Runs the tasks of a tuple, a record or an iterable in a group until all have ended, and returns their exits under the
 * same keys. No failure of a task stops the others; defects are among the exits.
 *
 * @category constructors
 * @since 0.1.0
 */
export const settled = <const T extends Tasks, D extends Duration.Input | undefined = undefined>(
  tasks: T,
  options: TasksOptions<D> = {}
): Effect.Effect<Exits<T>, TimedOut<D>, Exclude<Effect.Services<Each<T>>, Scope.Scope>> =>
  keyed(tasks, { ...options, joiner: Joiner.collect })

/** One result for each task, in the order of the keys: what the mapped types say of them. */
const keyed = (tasks: Tasks, settings: Settings): Effect.Effect<never> => {
  const keys = Symbol.iterator in tasks ? undefined : Object.keys(tasks)
  const effects = Symbol.iterator in tasks ? tasks : Object.values(tasks)
  const body = (group: Group) => Effect.forEach(effects, (effect) => fork(group, effect), { discard: true })
  const results: Effect.Effect<ReadonlyArray<unknown>> = running(body, settings)
  return Effect.map(
    results,
    (values) => keys === undefined ? values : Object.fromEntries(keys.map((key, index) => [key, values[index]]))
  ) as Effect.Effect<never>
}

/**
 * Runs a body that forks tasks, and streams their values in the order they were forked, each as soon as it and all before
 * it have ended. A task keeps its slot until its value is read: at most `concurrency` tasks run or have values that
 * nobody has read, and a fork beyond them waits. The stream ends when the body has ended and every value is read; it fails
 * with the first failure of the body or of a task, when everything else was interrupted and has ended. A reader that fails
 * or reads no further stops the body and the tasks, and waits for them.
 *
 * @category constructors
 * @since 0.1.0
 */
export const stream = <B, E, R, D extends Duration.Input | undefined = undefined>(
  body: (group: Group) => Effect.Effect<B, E, R>,
  options: TasksOptions<D> = {}
): Stream.Stream<TaskValue<R>, E | TaskError<R> | TimedOut<D>, Exclude<WithoutTasks<R>, Scope.Scope>> =>
  Stream.unwrap(Effect.gen(function*() {
    const outer = yield* Effect.scope
    // Of the resources of the body, closed after the tasks have ended.
    const scope = yield* Scope.fork(outer)
    const group = yield* Effect.acquireRelease(
      Effect.withFiber((fiber) => {
        const group = new StreamNode(place(fiber), options, fiber.getRef(Current))
        group.begin(bodyOf(body, group), Context.add(fiber.context, Scope.Scope, scope))
        return Effect.succeed(group)
      }),
      (group) =>
        Effect.suspend(() => {
          group.halt("not_needed")
          return group.ended
        })
    )
    // The tasks alone know the types of what it pulls.
    return Stream.fromPull(Effect.succeed(group.pull)) as Stream.Stream<never>
  }))

/**
 * Tests whether a value is a `Group`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isGroup = (u: unknown): u is Group => Predicate.hasProperty(u, TypeId)

// Every group is made by this module.
const nodeOf = (group: Group): GroupNode => group as GroupNode
