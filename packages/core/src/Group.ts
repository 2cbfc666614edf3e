/**
 * Bounded concurrent children: one failure interrupts the siblings, and nothing outlives the group.
 *
 * `Group.run` is Go's `errgroup` and Kotlin's `coroutineScope`: it returns the body's value once the body and every
 * task have ended, finalizers included, or fails with the first failure once everything else was interrupted and has
 * ended. Later failures stand behind the first in the cause. Task types are inferred: `Group.fork` adds a phantom
 * requirement that `run` reads and removes.
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
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import type { Health, State } from "./Event.ts"
import { type Kernel, Node, path, shown, type StopLimits } from "./Kernel.ts"
import { kernelOf } from "./Orchestrator.ts"
import type { Routine, RoutineOptions } from "./Routine.ts"
import { Current, type Keeper, RoutineRecord } from "./RoutineRecord.ts"
import type { GroupSnapshot } from "./Snapshot.ts"
import { Waiters, waitFor } from "./Writer.ts"

const TypeId = "~effect-orchestra/core/Group"

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
 * The phantom requirement by which `fork` tells `run` the types of its tasks.
 *
 * @category models
 * @since 0.1.0
 */
export interface Task<out A, out E> {
  readonly "~effect-orchestra/core/Group/Task": { readonly A: A; readonly E: E }
}

/** @since 0.1.0 */
export type TaskError<R> = R extends Task<unknown, infer E> ? E : never

/** @since 0.1.0 */
export type WithoutTasks<R> = Exclude<R, Task<unknown, unknown>>

/**
 * How a group is run.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupOptions {
  /** Its name in the tree. Default `"group"`. */
  readonly name?: string | undefined
  /** How many tasks may run at once: a positive integer, or `"unbounded"`, the default. */
  readonly concurrency?: number | "unbounded" | undefined
}

/**
 * How a task is forked.
 *
 * @category models
 * @since 0.1.0
 */
export type TaskOptions = Pick<RoutineOptions, "name" | "attributes" | "drain" | "shutdown">

/**
 * Runs a body that forks tasks, and waits for all of them. Returns the body's value, or fails with the first failure
 * of the body or of a task; the failure of one interrupts all others. Never returns before every task has finished
 * its finalizers. Interrupting it interrupts the tasks. A task that was ended by `Routine.stop` is no failure; one
 * that was interrupted by a stranger is.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = <B, E, R>(
  body: (group: Group) => Effect.Effect<B, E, R>,
  options: GroupOptions = {}
): Effect.Effect<B, E | TaskError<R>, WithoutTasks<R>> =>
  // From its registration to its removal nothing may interrupt it but where it waits.
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiber((fiber) => {
      const group = new GroupNode(kernelOf(fiber.context, "group"), fiber.getRef(Current), options)
      // The requirement of the body holds its tasks as a phantom; running it takes them out and puts their errors in.
      const running = Effect.suspend(() => body(group)) as Effect.Effect<B, E | TaskError<R>, WithoutTasks<R>>
      return Effect.gen(function*() {
        const exit = yield* Effect.exit(restore(Effect.raceFirst(running, group.failed)))
        if (Exit.isFailure(exit)) group.fail(exit.cause)
        const waited = yield* Effect.exit(restore(group.idle))
        if (Exit.isFailure(waited)) group.fail(waited.cause)
        yield* group.idle
        group.close()
        return yield* group.cause === undefined ? exit : Exit.failCause(group.cause)
      })
    })
  )

/**
 * Forks a task. Waits for a slot when the group is full; a producer that waits here is released with the group's
 * cause when the group fails. Returns the task's routine. Fails with the group's cause when it has already failed.
 *
 * @category operations
 * @since 0.1.0
 */
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
  return taking(rest, (request) => nodeOf(group).fork(request))
}

/**
 * Forks a task if there is a slot now. Never waits: `None` when the group is full or has ended.
 *
 * @category operations
 * @since 0.1.0
 */
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
  return taking(rest, (request) => Effect.succeed(nodeOf(group).tryFork(request)))
}

/** Takes `(effect, options)` at once, or `(options)` now and the effect later: the overloads say which fits. */
const taking = <A>(
  [first, second]: ReadonlyArray<unknown>,
  use: (request: Request) => Effect.Effect<A>
): Effect.Effect<A> | ((effect: Request["effect"]) => Effect.Effect<A>) => {
  const withOptions = (options: unknown) => (effect: Request["effect"]) =>
    Effect.withFiber((fiber) => use({ effect, options: options as TaskOptions ?? {}, context: fiber.context }))
  return Effect.isEffect(first) ? withOptions(second)(first as Request["effect"]) : withOptions(first)
}

/**
 * Tests whether a value is a `Group`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isGroup = (u: unknown): u is Group => Predicate.hasProperty(u, TypeId)

interface Request {
  /** What it requires stands in the forker's context. */
  readonly effect: Effect.Effect<unknown, unknown>
  readonly context: Context.Context<never>
  readonly options: TaskOptions
}

interface Parked extends Request {
  readonly resume: (effect: Effect.Effect<Routine<unknown, unknown>>) => void
}

class GroupNode extends Node implements Group, Keeper {
  readonly [TypeId] = TypeId
  readonly kind = "group"
  readonly kernel: Kernel
  readonly incarnation = 1
  readonly limit: number
  status: State = "running"
  private since: number
  /** Why it failed. Its error type is known to the caller of `run` alone. */
  cause: Cause.Cause<never> | undefined = undefined
  private active = 0
  private readonly parked = new Set<Parked>()
  private readonly failWaiters = new Waiters<void>()
  private readonly idleWaiters = new Waiters<void>()

  constructor(kernel: Kernel, owner: Node | undefined, options: GroupOptions) {
    super(kernel.nextId(), options.name ?? "group", owner ?? kernel)
    const limit = options.concurrency ?? "unbounded"
    if (limit !== "unbounded" && !(Number.isInteger(limit) && limit > 0)) {
      throw new Error(`a group's concurrency is a positive integer or "unbounded", got: ${limit}`)
    }
    this.limit = limit === "unbounded" ? Infinity : limit
    this.kernel = kernel
    this.since = kernel.writer.now()
    kernel.add(this)
  }

  /** Fails with the group's cause when it has one. */
  readonly failed: Effect.Effect<never> = Effect.suspend(() =>
    this.cause === undefined
      ? Effect.flatMap(waitFor(this.failWaiters), () => this.failed)
      : Effect.failCause(this.cause)
  )

  /** Completes when no task runs and no producer waits. */
  readonly idle: Effect.Effect<void> = Effect.suspend(() =>
    this.active === 0 && this.parked.size === 0 ? Effect.void : Effect.andThen(waitFor(this.idleWaiters), this.idle)
  )

  fork(request: Request): Effect.Effect<Routine<unknown, unknown>> {
    if (this.cause !== undefined) return Effect.failCause(this.cause)
    if (this.status !== "running") return Effect.die(new Error(`group ${path(this)} has ended: it takes no task`))
    if (this.active < this.limit) {
      this.active++
      return Effect.succeed(this.begin(request))
    }
    return Effect.callback((resume) => {
      const parked: Parked = { ...request, resume }
      this.parked.add(parked)
      return Effect.sync(() => this.parked.delete(parked))
    })
  }

  tryFork(request: Request): Option.Option<Routine<unknown, unknown>> {
    if (this.cause !== undefined || this.status !== "running" || this.active >= this.limit) return Option.none()
    this.active++
    return Option.some(this.begin(request))
  }

  private begin({ context, effect, options }: Request): RoutineRecord {
    const record = new RoutineRecord(this.kernel, this, options, this)
    record.start(effect, context, { readyNow: true })
    return record
  }

  /** The first failure leads; what else fails until the end stands behind it. Interruptions that we caused do not. */
  fail(failure: Cause.Cause<unknown>): void {
    const cause = failure as Cause.Cause<never>
    if (this.cause !== undefined) {
      if (!Cause.hasInterruptsOnly(cause)) this.cause = Cause.combine(this.cause, cause)
      return
    }
    this.cause = cause
    const { writer } = this.kernel
    for (const { resume } of this.parked) writer.wake({ run: () => resume(Effect.failCause(cause)) })
    this.parked.clear()
    this.failWaiters.wake(writer, undefined)
    for (const task of this.tasks) writer.wake({ run: () => task.interruptRun() })
    if (this.active === 0) this.idleWaiters.wake(writer, undefined)
  }

  private get tasks(): ReadonlyArray<RoutineRecord> {
    return Array.from(this.children ?? []).filter((node) => node instanceof RoutineRecord)
  }

  close(): void {
    this.status = this.cause === undefined ? "succeeded" : "failed"
    this.since = this.kernel.writer.now()
    this.kernel.remove(this)
  }

  ready(): void {}

  exited(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>): void {
    const wanted = record.stopping && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)
    if (Exit.isFailure(exit) && !wanted) this.fail(exit.cause)
  }

  closed(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>): void {
    this.exited(record, exit)
    record.settle(exit)
    this.release()
  }

  /** A slot is free: the producer that has waited longest gets it. */
  private release(): void {
    const { writer } = this.kernel
    this.active--
    for (const parked of this.parked) {
      if (this.active >= this.limit) break
      this.parked.delete(parked)
      this.active++
      writer.wake({
        run: () => {
          if (this.cause === undefined) return parked.resume(Effect.succeed(this.begin(parked)))
          parked.resume(Effect.failCause(this.cause))
          this.release()
        }
      })
    }
    if (this.active === 0) this.idleWaiters.wake(writer, undefined)
  }

  stopChild(record: RoutineRecord, limits: StopLimits): Effect.Effect<void> | undefined {
    return record.stopRun(limits, (waited) => record.abandon(waited))
  }

  stop(limits: StopLimits): Effect.Effect<void> | undefined {
    if (this.status !== "running") return undefined
    this.fail(Cause.interrupt())
    return Effect.forEach(this.tasks, (task) => task.stop(limits) ?? Effect.void, {
      concurrency: "unbounded",
      discard: true
    })
  }

  snapshot(): GroupSnapshot {
    const health: Health = this.cause === undefined ? "ok" : "failed"
    return {
      ...shown(this, this.kernel, this.since),
      health,
      active: this.active,
      concurrency: this.limit === Infinity ? null : this.limit
    }
  }
}

// Every group is made by this module.
const nodeOf = (group: Group): GroupNode => group as GroupNode
