/**
 * A supervisor of tasks: each runs once, is listed in the tree, and is stopped with its supervisor. Elixir:
 * `Task.Supervisor`.
 *
 * A task lives as long as its supervisor lets it (`startChild`, `asyncNolink`), or at most as long as its owner
 * (`async`, `asyncStream`). However it ends, no task is restarted, and none counts against a restart budget.
 *
 * **Example** (The sizes of three pages, two fetched at a time; one fails alone)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { TaskSupervisor } from "@effect-orchestra/supervisor"
 * import { Effect, Exit, Stream } from "effect"
 *
 * const size = (page: string) => page === "c" ? Effect.fail("not found") : Effect.succeed(page.length)
 *
 * const program = Effect.gen(function*() {
 *   const tasks = yield* TaskSupervisor.start(TaskSupervisor.make({ name: "fetches" }))
 *   const sizes = TaskSupervisor.asyncStreamNolink(tasks, ["a", "bb", "c"], size, { concurrency: 2 })
 *   return yield* Stream.runCollect(sizes)
 * })
 *
 * const sizes = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
 * sizes // => [Exit.succeed(1), Exit.succeed(2), Exit.fail("not found")]
 * ```
 *
 * @since 0.1.0
 */
import { because, millisOf, path, positive, unbounded } from "@effect-orchestra/core/Kernel"
import type { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import type { Routine } from "@effect-orchestra/core/Routine"
import { Current, type RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { dual } from "effect/Function"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { ChildOptions } from "./Child.ts"
import * as DynamicSupervisor from "./DynamicSupervisor.ts"
import { cores } from "./internal/Cores.ts"
import type { DynamicChildren } from "./internal/DynamicChildren.ts"
import * as Operations from "./internal/Operations.ts"
import { inherited } from "./internal/Starts.ts"
import { type MaxChildren, type StartFailure, type SupervisorNotRunning, TaskTimeout } from "./SupervisorError.ts"

/**
 * How tasks are run.
 *
 * @category models
 * @since 0.1.0
 */
export interface TaskSupervisorOptions extends Pick<ChildOptions, "shutdown" | "idleTimeout" | "attributes"> {
  /** How many tasks there may be at once. Default: no limit. */
  readonly maxChildren?: number | undefined
}

type Task = Effect.Effect<unknown, unknown>

/**
 * The specification of a task supervisor.
 *
 * @category models
 * @since 0.1.0
 */
export interface TaskSupervisor<out Name extends string = string>
  extends DynamicSupervisor.DynamicSupervisor<Task, unknown, unknown, never, Name>
{}

/**
 * A task supervisor that has been started: a dynamic supervisor, and all operations of one do with it what they say.
 *
 * @category models
 * @since 0.1.0
 */
export interface TaskRef extends DynamicSupervisor.DynamicRef<Task, unknown, unknown> {}

/**
 * Describes a task supervisor. Nothing starts. A wrong constant is a defect that names it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <const Name extends string>(
  options: TaskSupervisorOptions & { readonly name: Name }
): TaskSupervisor<Name> => DynamicSupervisor.make({ ...options, restart: "temporary", child: (task: Task) => task })

/**
 * Starts a task supervisor that the scope owns. Closing the scope stops its tasks, all at once, each bounded by
 * `shutdown`. As a child of another supervisor: `Child.layer(id, Layer.effect(Tasks, TaskSupervisor.start(spec)))`.
 *
 * @category operations
 * @since 0.1.0
 */
export const start = (
  spec: TaskSupervisor
): Effect.Effect<TaskRef, StartFailure, Scope.Scope | Orchestrator> => DynamicSupervisor.start(spec)

/** Every ref is made by `DynamicSupervisor`. */
const childrenOf = (self: TaskRef): DynamicChildren => self as unknown as DynamicChildren

/** What a task has of its caller. */
const callerOf = (self: TaskRef, { context }: Fiber.Fiber<unknown, unknown>): Context.Context<never> =>
  inherited(context, childrenOf(self).node.kernel)

/** Starts a task on the spot, if there is room. */
const begin = (
  self: TaskRef,
  task: Task,
  context: Context.Context<never>
): Effect.Effect<RoutineRecord, MaxChildren | SupervisorNotRunning> =>
  Effect.suspend((): ReturnType<typeof begin> => {
    const children = childrenOf(self)
    const { refusal } = children
    return refusal ?? Effect.succeed(children.now(children.add({ _tag: "Effect", effect: task }, context)))
  })

// The context that a task is begun with holds what it requires; its types are those of its routine.
type Started<A, E, R, E2 = never, R2 = never> = Effect.Effect<
  Routine<A, E>,
  MaxChildren | SupervisorNotRunning | E2,
  Exclude<R, Scope.Scope> | R2
>

/**
 * Starts a task that nobody need wait for, with the services of the caller, and returns its routine at once. It goes on
 * when the caller ends. A failure that nobody awaits is logged. Fails with `MaxChildren` when there are so many: nothing
 * is started then.
 *
 * @category operations
 * @since 0.1.0
 */
export const startChild: {
  <A, E, R>(task: Effect.Effect<A, E, R>): (self: TaskRef) => Started<A, E, R>
  <A, E, R>(self: TaskRef, task: Effect.Effect<A, E, R>): Started<A, E, R>
} = dual(2, <A, E, R>(self: TaskRef, task: Effect.Effect<A, E, R>) =>
  Effect.withFiber((fiber) => {
    const unseen = Effect.withFiber((own) => {
      const record = own.getRef(Current)
      if (record !== undefined) record.observed = false
      return task as Effect.Effect<A, E>
    })
    return begin(self, unseen, callerOf(self, fiber))
  }) as Started<A, E, R>)

/**
 * Starts a task for its result, with the services of the caller, and returns its routine at once: `Routine.await` tells
 * how it ended. It goes on when the caller ends, and its failure is nobody else's. Fails as `startChild` does.
 *
 * @category operations
 * @since 0.1.0
 */
export const asyncNolink: {
  <A, E, R>(task: Effect.Effect<A, E, R>): (self: TaskRef) => Started<A, E, R>
  <A, E, R>(self: TaskRef, task: Effect.Effect<A, E, R>): Started<A, E, R>
} = dual(
  2,
  <A, E, R>(self: TaskRef, task: Effect.Effect<A, E, R>) =>
    Effect.withFiber((fiber) => begin(self, task as Effect.Effect<A, E>, callerOf(self, fiber))) as Started<A, E, R>
)

/**
 * The same, linked to the caller: closing the caller's scope stops the task, and a task that fails fails the caller's
 * routine with its cause, or interrupts the calling fiber where there is no routine. An interruption is no failure.
 * Elixir: `Task.Supervisor.async`. Fails as `startChild` does.
 *
 * @category operations
 * @since 0.1.0
 */
const async_: {
  <A, E, R>(task: Effect.Effect<A, E, R>): (self: TaskRef) => Started<A, E, R, never, Scope.Scope>
  <A, E, R>(self: TaskRef, task: Effect.Effect<A, E, R>): Started<A, E, R, never, Scope.Scope>
} = dual(
  2,
  <A, E, R>(self: TaskRef, task: Effect.Effect<A, E, R>) =>
    Effect.uninterruptible(Effect.withFiber((fiber) =>
      Effect.flatMap(
        begin(self, task as Effect.Effect<A, E>, callerOf(self, fiber)),
        (record) => Effect.as(link(record, fiber), record)
      )
    )) as Started<A, E, R, never, Scope.Scope>
)

export {
  // `async` is a reserved word in some places.
  async_ as async
}

/** The scope of the owner stops the task; the end of the task frees the scope of it, and its failure fails the owner. */
const link = (task: RoutineRecord, fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<void> => {
  const owner = fiber.getRef(Current)
  const run = owner?.scope
  return Effect.flatMap(
    Scope.fork(Context.getUnsafe(fiber.context as Context.Context<Scope.Scope>, Scope.Scope)),
    (own) => {
      const stop = Effect.suspend(() => task.stop({ ...unbounded, by: because("scope_closed", owner) }) ?? Effect.void)
      const told = (exit: Exit.Exit<unknown, unknown>) => {
        Scope.closeUnsafe(own, exit)
        if (Exit.isSuccess(exit) || Cause.hasInterruptsOnly(exit.cause)) return
        if (owner === undefined) fiber.interruptUnsafe(undefined, because("linked_task_failed", task))
        else if (owner.scope === run && !owner.isClosing) owner.failLinked(exit.cause)
      }
      if (task.toldExit === undefined) task.ended.add(told)
      else told(task.toldExit)
      return Scope.addFinalizer(own, stop)
    }
  )
}

/**
 * How a stream of tasks is run.
 *
 * @category models
 * @since 0.1.0
 */
export interface TaskStreamOptions {
  /** How many run at once. Default: the number of processors. */
  readonly concurrency?: number | undefined
  /** Whether the results come in the order of the input, however long each takes. Default true. */
  readonly ordered?: boolean | undefined
  /** How long each task may take before it is stopped. Default 5 seconds. */
  readonly timeout?: Duration.Input | undefined
}

/** What is turned into tasks: a stream, or anything that can be iterated, which is done one by one. */
type Input<I, E, R> = Stream.Stream<I, E, R> | Iterable<I>

type Tasks<A, E, R, R2> = Stream.Stream<A, E | MaxChildren | SupervisorNotRunning, Exclude<R, Scope.Scope> | R2>

/**
 * Runs a task for each element of the input, which is pulled no further than there is room, and emits their results. The
 * first failure or timeout (`TaskTimeout`) fails the stream. However the stream ends, also when its consumer has
 * enough, no task of it is left by then. Fails with `MaxChildren` when there is no room for a task.
 *
 * @category operations
 * @since 0.1.0
 */
export const asyncStream: {
  <I, A, E, R, E2 = never, R2 = never>(
    input: Input<I, E2, R2>,
    f: (element: NoInfer<I>) => Effect.Effect<A, E, R>,
    options?: TaskStreamOptions
  ): (self: TaskRef) => Tasks<A, E | E2 | TaskTimeout, R, R2>
  <I, A, E, R, E2 = never, R2 = never>(
    self: TaskRef,
    input: Input<I, E2, R2>,
    f: (element: NoInfer<I>) => Effect.Effect<A, E, R>,
    options?: TaskStreamOptions
  ): Tasks<A, E | E2 | TaskTimeout, R, R2>
} = dual(
  (args) => typeof args[2] === "function",
  <I, A, E, R, E2, R2>(
    self: TaskRef,
    input: Input<I, E2, R2>,
    f: (element: I) => Effect.Effect<A, E, R>,
    options?: TaskStreamOptions
  ) => {
    const { node } = childrenOf(self)
    return streamOf(
      self,
      input,
      f,
      options,
      (exit): Effect.Effect<A, E | TaskTimeout | SupervisorNotRunning> =>
        node.isStopping && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause) ? Operations.refused(node) : exit
    )
  }
)

/**
 * The same, but every element has its result, an `Exit`: a task that fails, dies, or takes too long (`TaskTimeout`)
 * concerns no other.
 *
 * @category operations
 * @since 0.1.0
 */
export const asyncStreamNolink: {
  <I, A, E, R, E2 = never, R2 = never>(
    input: Input<I, E2, R2>,
    f: (element: NoInfer<I>) => Effect.Effect<A, E, R>,
    options?: TaskStreamOptions
  ): (self: TaskRef) => Tasks<Exit.Exit<A, E | TaskTimeout>, E2, R, R2>
  <I, A, E, R, E2 = never, R2 = never>(
    self: TaskRef,
    input: Input<I, E2, R2>,
    f: (element: NoInfer<I>) => Effect.Effect<A, E, R>,
    options?: TaskStreamOptions
  ): Tasks<Exit.Exit<A, E | TaskTimeout>, E2, R, R2>
} = dual(
  (args) => typeof args[2] === "function",
  <I, A, E, R, E2, R2>(
    self: TaskRef,
    input: Input<I, E2, R2>,
    f: (element: I) => Effect.Effect<A, E, R>,
    options?: TaskStreamOptions
  ) => streamOf(self, input, f, options, (exit: Exit.Exit<A, E | TaskTimeout>) => Effect.succeed(exit))
)

const streamOf = <I, A, E, R, E2, R2, B, E3>(
  self: TaskRef,
  input: Input<I, E2, R2>,
  f: (element: I) => Effect.Effect<A, E, R>,
  { concurrency = cores(), ordered = true, timeout = "5 seconds" }: TaskStreamOptions = {},
  told: (exit: Exit.Exit<A, E | TaskTimeout>) => Effect.Effect<B, E3>
): Tasks<B, E2 | E3, R, R2> =>
  Stream.unwrap(Effect.withFiber((fiber) => {
    const what = `a stream of tasks of "${self.name}"`
    const context = callerOf(self, fiber)
    const timeoutMillis = millisOf(`the timeout of ${what}`, timeout)
    positive(`the concurrency of ${what}`, concurrency)
    const tasks = new Set<RoutineRecord>()
    let isOver = false
    // All at once, whichever of those that wait for them is told first.
    const stopAll = Effect.suspend(() => {
      isOver = true
      return Effect.forEach(tasks, stopped, { concurrency: "unbounded", discard: true })
    })
    const run = (task: RoutineRecord): Effect.Effect<B, E3> =>
      Effect.flatMap(exitWithin(task, timeoutMillis), (exit) => {
        // The types of a task are known to whoever has made it.
        if (exit !== undefined) return told(exit as Exit.Exit<A, E>)
        const late = new TaskTimeout({ task: path(task), timeoutMillis })
        return Effect.andThen(Effect.uninterruptible(stopped(task)), Effect.suspend(() => told(Exit.fail(late))))
      })
    const one = (element: I) =>
      Effect.uninterruptibleMask((restore) => {
        // It goes when the stream does. With an end of its own it would make room for the next.
        if (isOver) return restore(Effect.never)
        const begun = begin(self, Effect.suspend(() => f(element)) as Effect.Effect<A, E>, context)
        return Effect.flatMap(begun, (task) => {
          tasks.add(task)
          return restore(run(task)).pipe(
            Effect.onInterrupt(() => stopAll),
            Effect.ensuring(Effect.sync(() => tasks.delete(task)))
          )
        })
      })
    const elements = Stream.isStream(input) ? input : Stream.fromIterable(input, { chunkSize: 1 })
    const results = Stream.mapEffect(elements, one, { concurrency, unordered: !ordered })
    return Effect.as(Effect.addFinalizer(() => stopAll), results)
  })) as Tasks<B, E2 | E3, R, R2>

const stopped = (task: RoutineRecord): Effect.Effect<void> =>
  Effect.withFiber((fiber) => task.stop({ ...unbounded, by: because("stopped", fiber.getRef(Current)) }) ?? Effect.void)

/** How a task ends; undefined when it does not in time. */
const exitWithin = (
  task: RoutineRecord,
  millis: number
): Effect.Effect<Exit.Exit<unknown, unknown> | undefined> =>
  Effect.callback((resume) => {
    if (task.toldExit !== undefined) return resume(Effect.succeed(task.toldExit))
    const { writer } = task.kernel
    const ended = (exit: Exit.Exit<unknown, unknown>) => {
      writer.cancel(deadline)
      resume(Effect.succeed(exit))
    }
    const deadline = writer.after(millis, {
      run: () => {
        task.ended.delete(ended)
        writer.wake({ run: () => resume(Effect.succeed(undefined)) })
      }
    })
    task.ended.add(ended)
    return Effect.sync(() => {
      writer.cancel(deadline)
      task.ended.delete(ended)
    })
  })

/** `DynamicSupervisor.terminateChild`. @since 0.1.0 */
export const terminateChild = DynamicSupervisor.terminateChild

/** `DynamicSupervisor.whichChildren`. @since 0.1.0 */
export const whichChildren = DynamicSupervisor.whichChildren

/** `DynamicSupervisor.countChildren`. @since 0.1.0 */
export const countChildren = DynamicSupervisor.countChildren

/** `DynamicSupervisor.stop`. @since 0.1.0 */
export const stop = DynamicSupervisor.stop

/** `DynamicSupervisor.events`. @since 0.1.0 */
export const events = DynamicSupervisor.events

/** `DynamicSupervisor.await`. @since 0.1.0 */
const await_ = DynamicSupervisor.await

export {
  // `await` is a reserved word.
  await_ as await
}
