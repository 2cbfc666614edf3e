/**
 * A managed fiber: it has a name, a place in the tree, a state, a health, and an end that somebody sees.
 *
 * `Orchestrator.fork` makes one. A supervised child is one routine from its first start to its removal, however often
 * it is restarted: same id, same path; `incarnation` counts its runs, and `await` waits for its final end.
 *
 * **Example** (Forking a routine and reading how it ended)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { Effect, Exit } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const routine = yield* Orchestrator.fork(Effect.succeed(42), { name: "answer" })
 *   const exit = yield* Routine.await(routine)
 *   const { path, state } = yield* Routine.snapshot(routine)
 *   return { exit, path, state }
 * })
 *
 * const { exit, path, state } = await Effect.runPromise(program.pipe(Effect.provide(Orchestrator.layer)))
 * exit // => Exit.succeed(42)
 * path // => "/orchestra/answer"
 * state // => "succeeded"
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import { type Pipeable, pipeArguments } from "effect/Pipeable"
import * as Predicate from "effect/Predicate"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import type { ExitReason, Health, RunExit, State } from "./Event.ts"
import { cancelledBy, type Kernel, Node, path, shown, type StopLimits, type Template, unbounded } from "./Kernel.ts"
import type { RoutineSnapshot } from "./Snapshot.ts"
import { Stopwatch } from "./Stopwatch.ts"
import { type Job, Waiters, waitFor } from "./Writer.ts"

const TypeId = "~effect-orchestra/core/Routine"

/**
 * A handle on a managed fiber. It survives restarts.
 *
 * @category models
 * @since 0.1.0
 */
export interface Routine<out A, out E = never> extends Pipeable {
  readonly [TypeId]: { readonly _A: (_: never) => A; readonly _E: (_: never) => E }
  readonly id: string
  readonly name: string
}

/**
 * How a routine is forked.
 *
 * @category models
 * @since 0.1.0
 */
export interface RoutineOptions {
  /** The template name, an attribute of metrics: name the kind of work, not the instance. Default `"routine"`. */
  readonly name?: string | undefined
  /** Shown in snapshots, never in metrics. */
  readonly attributes?: Readonly<Record<string, string>> | undefined
  /** When it counts as ready: as soon as its fiber starts (`"fork"`, the default) or at its `Routine.ready`. */
  readonly ready?: "fork" | "signal" | undefined
  /** Whether the fork waits until it is ready. Default false. */
  readonly awaitReady?: boolean | undefined
  /** With `awaitReady`: how long to wait before the routine is stopped and the fork fails. Default: no bound. */
  readonly startTimeout?: Duration.Input | undefined
  /** Run when a stop is requested; interruption waits for its end, at most for the grace of the stop. */
  readonly drain?: Effect.Effect<void> | undefined
  /** How long an interruption may take before the routine is abandoned. Default 5 seconds. */
  readonly shutdown?: Duration.Input | undefined
}

/**
 * Tests whether a value is a `Routine`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isRoutine = (u: unknown): u is Routine<unknown, unknown> => Predicate.hasProperty(u, TypeId)

/**
 * Waits for the final end and returns it as an `Exit`. Never fails. A supervised child has its final end when it will
 * not run again; an abandoned routine counts as interrupted.
 *
 * @category operations
 * @since 0.1.0
 */
const await_ = <A, E>(self: Routine<A, E>): Effect.Effect<Exit.Exit<A, E>> =>
  Effect.suspend(() => {
    const record = recordOf(self)
    record.observed = true
    return record.exit === undefined
      ? waitFor(record.ended)
      : Effect.succeed(record.exit)
  })

export {
  // `await` is a reserved word.
  await_ as await
}

/**
 * Waits for the final end; returns its value, or fails with its cause.
 *
 * @category operations
 * @since 0.1.0
 */
export const join = <A, E>(self: Routine<A, E>): Effect.Effect<A, E> => Effect.flatten(await_(self))

/**
 * Interrupts the present run and waits, without a bound, until it has ended with its finalizers. To a supervisor this
 * is a failure like any other (OTP: an exit signal from a stranger), so a permanent or transient child runs again;
 * use `stop` to end it.
 *
 * @category operations
 * @since 0.1.0
 */
export const interrupt = <A, E>(self: Routine<A, E>): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const record = recordOf(self)
    if (record.scope === undefined) return resume(Effect.void)
    record.observed = true
    // Listens first: a supervisor may have started the next run by the time that the interruption returns.
    const cancel = record.onRunEnd(() => resume(Effect.void))
    record.interruptRun()
    return Effect.sync(cancel)
  })

/**
 * Stops for good: asks (a routine with a drain, or one that watches `stopRequested`, has up to `within` to finish),
 * then interrupts, then abandons. Returns `"stopped"`, or `"abandoned"` if it still runs after its bound. Stopping a
 * supervised child is `Supervisor.terminateChild`.
 *
 * @category operations
 * @since 0.1.0
 */
export const stop: {
  (within?: Duration.Input): <A, E>(self: Routine<A, E>) => Effect.Effect<"stopped" | "abandoned">
  <A, E>(self: Routine<A, E>, within?: Duration.Input): Effect.Effect<"stopped" | "abandoned">
} = dual((args) => isRoutine(args[0]), <A, E>(self: Routine<A, E>, within?: Duration.Input) =>
  Effect.suspend(() => {
    const record = recordOf(self)
    record.observed = true
    const limits = within === undefined ? unbounded : { ...unbounded, grace: Duration.toMillis(within) }
    return Effect.map(
      record.stop(limits) ?? Effect.void,
      () => record.status === "abandoned" ? "abandoned" as const : "stopped" as const
    )
  }))

/**
 * What the routine looks like now. Waits for nothing.
 *
 * @category getters
 * @since 0.1.0
 */
export const snapshot = <A, E>(self: Routine<A, E>): Effect.Effect<RoutineSnapshot> =>
  Effect.sync(() => recordOf(self).snapshot())

/**
 * The routine whose fiber runs this, if any. Fibers that a routine forks by plain Effect count as the routine.
 *
 * @category getters
 * @since 0.1.0
 */
export const current: Effect.Effect<Option.Option<Routine<unknown, unknown>>> = Effect.withFiber((fiber) =>
  Effect.succeed(Option.fromUndefinedOr(fiber.getRef(Current)))
)

/**
 * Says that the present run is ready. Does nothing outside a routine, or when said again.
 *
 * @category operations
 * @since 0.1.0
 */
export const ready: Effect.Effect<void> = Effect.withFiber((fiber) => {
  fiber.getRef(Current)?.markReady()
  return Effect.void
})

/**
 * Completes when the routine is asked to stop: whoever watches it has the grace of the stop to finish by itself.
 * Never completes outside a routine.
 *
 * @category operations
 * @since 0.1.0
 */
export const stopRequested: Effect.Effect<void> = Effect.withFiber((fiber) => {
  const record = fiber.getRef(Current)
  return record === undefined ? Effect.never : record.stopRequested
})

/**
 * Adds work for when the routine is asked to stop; its interruption waits for it, at most for the grace of the stop.
 * Lasts as long as the present run. Does nothing outside a routine.
 *
 * @category operations
 * @since 0.1.0
 */
export const onDrain = <R>(drain: Effect.Effect<void, never, R>): Effect.Effect<void, never, R> =>
  Effect.contextWith((context: Context.Context<R>) =>
    Effect.sync(() => {
      Context.get(context, Current)?.addDrain(Effect.provideContext(drain, context))
    })
  )

/**
 * The routine of the running fiber.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export const Current = Context.Reference<RoutineRecord | undefined>("@effect-orchestra/core/Routine/Current", {
  defaultValue: () => undefined
})

/**
 * Who decides what the end of a run means: the supervisor of a child, the group of a task.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export interface Keeper {
  /** The run is ready. */
  ready(record: RoutineRecord): void
  /** The fiber of the run has ended; its finalizers may still run. */
  exited(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>): void
  /** The run has ended, finalizers included. The keeper starts the next one or settles the routine. */
  closed(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>): void
  /** Somebody outside asks for the end of the routine. */
  stopChild(record: RoutineRecord, limits: StopLimits): Effect.Effect<void> | undefined
}

/**
 * How a run starts: ready at once or at its `Routine.ready`; in a scope of its own or in the record; whether the
 * failure of a routine forked into its scope is its own.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export interface StartOptions {
  readonly readyNow: boolean
  readonly scope?: Scope.Closeable
  readonly linkForks?: boolean
  /** Called when the run has its number, before anything else is told of it. */
  readonly begun?: () => void
}

/**
 * The record of a routine, which is also the `Scope` of its run: a fiber that acquires nothing costs no scope.
 * (`state` and `parent` are those of the scope; the routine's own are `status` and `owner`.)
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export class RoutineRecord extends Node implements Routine<never, never>, Scope.Closeable, Job {
  readonly [TypeId] = variance
  readonly "~effect/Scope" = "~effect/Scope"
  readonly "~effect/Scope/Closeable" = "~effect/Scope/Closeable"
  readonly strategy = "sequential"
  readonly parent = undefined
  state: Scope.Scope["state"] = emptyScope

  readonly kind = "routine"
  readonly kernel: Kernel
  readonly options: RoutineOptions
  readonly template: Template
  readonly keeper: Keeper | undefined

  status: State = "pending"
  /** When it entered its state, on the monotonic clock like every time here. */
  since: number
  incarnation = 0
  /** How often a run followed one that the keeper did not want to end. */
  restarts = 0
  startedAt: number | undefined = undefined
  isReady = false
  /** Whether this run was asked to stop, and when. */
  stopping = false
  stoppingSince = 0
  /** Whether it ignored its interruption past its bound. */
  stuck = false
  /** Whether somebody looks at how it ends; else a failure is logged. */
  observed: boolean
  /** Whether the failure of a routine forked into the scope of this run fails the run. */
  linkForks = false
  nextStartAt: number | undefined = undefined
  /** The line that forked it, where the orchestrator keeps them. */
  forkSite: string | undefined = undefined
  /** How long its fibers have waited for messages or for room, all runs together. */
  readonly blocked = new Stopwatch()
  lastExit: RunExit | undefined = undefined
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  /** The scope of the present run; undefined between runs. */
  scope: Scope.Closeable | undefined = undefined
  /** The final end. */
  exit: Exit.Exit<never, never> | undefined = undefined
  private endWaiters: Waiters<Exit.Exit<never, never>> | undefined = undefined
  private fiberExit: Exit.Exit<unknown, unknown> | undefined = undefined
  private linked: Cause.Cause<unknown> | undefined = undefined
  private runWaiters: Waiters<void> | undefined = undefined
  private readyWaiters: Waiters<void> | undefined = undefined
  private askedWaiters: Waiters<void> | undefined = undefined
  private drains: Array<Effect.Effect<void>> | undefined = undefined

  constructor(kernel: Kernel, owner: Node, options: RoutineOptions, keeper?: Keeper) {
    super(kernel.nextId(), options.name ?? "routine", owner)
    this.kernel = kernel
    this.options = options
    this.keeper = keeper
    this.observed = keeper !== undefined
    this.template = kernel.template(this.name)
    // A routine that starts at once is pending for no time that anybody could see.
    this.since = keeper === undefined ? 0 : kernel.writer.now()
    this.template.count(this.status, 1)
    kernel.add(this)
    if (kernel.bus.observed) kernel.bus.emit("Forked", this, {})
  }

  /** Who waits for the final end. */
  get ended(): Waiters<Exit.Exit<never, never>> {
    return this.endWaiters ??= new Waiters()
  }

  get isFinal(): boolean {
    return this.exit !== undefined
  }

  pipe() {
    return pipeArguments(this, arguments)
  }

  /** Starts the next run. `scope` holds its resources, and is closed when it ends. */
  start(effect: Effect.Effect<unknown, unknown>, context: Context.Context<never>, options: StartOptions): void {
    const { writer } = this.kernel
    this.incarnation++
    options.begun?.()
    this.scope = options.scope ?? this
    this.isReady = false
    this.stopping = false
    this.stuck = false
    this.linked = undefined
    this.linkForks = options.linkForks === true
    this.nextStartAt = undefined
    const now = this.startedAt = writer.now()
    this.template.starts++
    if (options.readyNow) this.markReady(now)
    else this.move("starting", now)
    const run = Context.add(Context.add(context, Scope.Scope, this.scope), Current, this)
    const fiber = writer.start(
      run,
      Effect.withFiber((self) => {
        this.fiber = self
        return effect
      })
    )
    if (fiber.pollUnsafe() === undefined) this.fiber = fiber
    fiber.addObserver((exit) => {
      this.fiber = undefined
      this.fiberExit = exit
      writer.submit(this)
    })
  }

  /** The present run is ready. */
  markReady(now = this.kernel.writer.now()): void {
    if (this.isReady || this.scope === undefined || this.fiberExit !== undefined) return
    this.isReady = true
    if (!this.stopping) this.move("running", now)
    if (this.kernel.bus.observed) this.kernel.bus.emit("Ready", this, {})
    this.keeper?.ready(this)
    this.readyWaiters?.wake(this.kernel.writer, undefined)
  }

  /** The writer's job when the fiber of the run has ended: close its scope, then tell what that means. */
  run(): void {
    if (this.fiberExit === undefined || this.scope === undefined) return
    const { writer } = this.kernel
    const exit = this.linked === undefined ? this.fiberExit : Exit.failCause(this.linked)
    this.keeper?.exited(this, exit)
    const closing = Scope.closeUnsafe(this.scope, exit)
    if (closing === undefined) return this.closed(exit)
    if (!this.stopping) this.move("stopping")
    writer.wake({
      run: () => {
        const finalizers = Effect.runForkWith(this.kernel.context)(closing, { uninterruptible: true })
        finalizers.addObserver((end) => writer.submit({ run: () => this.closed(withFinalizers(exit, end)) }))
      }
    })
  }

  private closed(exit: Exit.Exit<unknown, unknown>): void {
    const { bus, writer } = this.kernel
    this.fiberExit = undefined
    this.scope = undefined
    this.drains = undefined
    if (this.keeper !== undefined || bus.observed) {
      this.lastExit = this.describe(exit)
      if (bus.observed) bus.emit("Exited", this, { exit: this.lastExit })
    }
    if (this.stopping && failed(exit)) {
      this.kernel.stopping?.failures.push({ path: path(this), message: errorMessage(errorOf(exit.cause)?.value) })
    }
    this.runWaiters?.wake(writer, undefined)
    if (this.isFinal) this.endLate()
    else if (this.keeper === undefined) this.settle(exit)
    else this.keeper.closed(this, exit)
  }

  /** Gives the routine its final state and wakes whoever waits for it. */
  settle(exit: Exit.Exit<unknown, unknown>): void {
    this.finish(exit, finalStates[reasonOf(exit)])
    this.kernel.remove(this)
    if (!this.observed && failed(exit)) this.kernel.writer.nextTurn({ run: () => this.report(exit.cause) })
  }

  /** No longer waits for a run that ignores its interruption. It stays listed until it ends. */
  abandon(waitedMillis: number): void {
    if (this.isFinal) return
    this.stuck = true
    if (this.kernel.bus.observed) this.kernel.bus.emit("Abandoned", this, { waitedMillis })
    this.finish(Exit.interrupt(), "abandoned")
  }

  private finish(exit: Exit.Exit<unknown, unknown>, state: State): void {
    const { bus, writer } = this.kernel
    // The types of its value and its errors are known to the holders of the routine alone.
    const end = this.exit = exit as Exit.Exit<never, never>
    this.move(state)
    if (bus.observed) bus.emit("Stopped", this, { state })
    this.endWaiters?.wake(writer, end)
    this.readyWaiters?.wake(writer, undefined)
  }

  private endLate(): void {
    const { bus, writer } = this.kernel
    this.kernel.remove(this)
    if (bus.observed) bus.emit("EndedLate", this, { waitedMillis: writer.now() - this.since })
  }

  private report(cause: Cause.Cause<unknown>): void {
    if (this.observed) return
    Effect.runForkWith(this.kernel.context)(Effect.logError(`${path(this)} failed and nobody awaits it`, cause))
  }

  move(to: State, now = this.kernel.writer.now()): void {
    this.template.count(this.status, -1)
    this.template.count(to, 1)
    this.status = to
    this.since = now
  }

  /** Makes this run fail with the cause of a routine that it relies on. */
  failLinked(cause: Cause.Cause<unknown>): void {
    if (this.stopping || this.linked !== undefined || this.scope === undefined) return
    this.linked = cause
    this.interruptRun()
  }

  interruptRun(by?: Context.Context<never>): void {
    this.fiber?.interruptUnsafe(undefined, by)
  }

  addDrain(drain: Effect.Effect<void>): void {
    ;(this.drains ??= []).push(drain)
  }

  /** Completes when the routine is asked to stop. */
  get stopRequested(): Effect.Effect<void> {
    return Effect.suspend(() => this.stopping ? Effect.void : waitFor(this.askedWaiters ??= new Waiters()))
  }

  /** Calls `listener`, by way of the writer, when the present run has ended. Returns how to take it back. */
  onRunEnd(listener: () => void): () => void {
    const waiters = this.runWaiters ??= new Waiters()
    waiters.add(listener)
    return () => waiters.delete(listener)
  }

  /** Completes when the present run has ended, finalizers included. */
  get runEnded(): Effect.Effect<void> {
    return Effect.suspend(() => this.scope === undefined ? Effect.void : waitFor(this.runWaiters ??= new Waiters()))
  }

  /** Completes when the present run is ready or the routine has ended. */
  get readyOrEnded(): Effect.Effect<void> {
    return Effect.suspend(() =>
      this.isReady || this.isFinal ? Effect.void : waitFor(this.readyWaiters ??= new Waiters())
    )
  }

  stop(limits: StopLimits): Effect.Effect<void> | undefined {
    if (this.isFinal) return undefined
    if (this.keeper !== undefined) return this.keeper.stopChild(this, limits)
    return this.stopRun(limits, (waited) => this.abandon(waited))
  }

  /**
   * Asks, interrupts, and calls `missed` if the run still has not ended after its bound. Returns undefined when that
   * needed no waiting.
   */
  stopRun(limits: StopLimits, missed: (waitedMillis: number) => void): Effect.Effect<void> | undefined {
    const asked = this.asked(limits)
    if (!this.stopping) {
      this.stopping = true
      this.move("stopping")
      this.stoppingSince = this.since
      if (this.kernel.bus.observed) this.kernel.bus.emit("StopRequested", this, { by: cancelledBy(limits.by) })
      this.askedWaiters?.wake(this.kernel.writer, undefined)
    }
    this.kernel.stopping?.enter(asked === undefined ? "interrupt" : "ask")
    const interrupted = Effect.suspend(() => {
      this.kernel.stopping?.enter("interrupt")
      return this.interruptWithin(limits, missed) ?? Effect.void
    })
    return asked === undefined ? this.interruptWithin(limits, missed) : Effect.andThen(asked, interrupted)
  }

  /** Runs the drains, and waits for a run that watches `stopRequested`; undefined when there is neither. */
  private asked(limits: StopLimits): Effect.Effect<void> | undefined {
    if (this.fiber === undefined) return undefined
    const watches = this.askedWaiters !== undefined && !this.askedWaiters.isEmpty
    const drains = this.options.drain === undefined ? this.drains : [this.options.drain, ...this.drains ?? []]
    if (drains === undefined && !watches) return undefined
    const drained = Effect.forEach(drains ?? [], Effect.exit, { concurrency: "unbounded", discard: true })
    const { runEnded } = this
    const finished = watches ? Effect.andThen(drained, runEnded) : Effect.raceFirst(drained, runEnded)
    const grace = Math.min(limits.grace, limits.deadline - this.kernel.writer.now())
    return Effect.asVoid(Effect.timeoutOption(finished, Math.max(0, grace)))
  }

  private interruptWithin(limits: StopLimits, missed: (waitedMillis: number) => void): Effect.Effect<void> | undefined {
    this.interruptRun(limits.by)
    if (this.scope === undefined || this.isFinal) return undefined
    const { writer } = this.kernel
    const started = writer.now()
    const own = this.options.shutdown === undefined ? limits.interrupt : Duration.toMillis(this.options.shutdown)
    const bound = Math.max(0, Math.min(own, limits.deadline - started))
    if (bound === 0) {
      return Effect.map(Effect.yieldNow, () => {
        if (this.scope !== undefined && !this.isFinal) missed(0)
      })
    }
    return Effect.callback((resume) => {
      if (this.scope === undefined) return resume(Effect.void)
      const cancel = this.onRunEnd(() => {
        writer.cancel(deadline)
        resume(Effect.void)
      })
      const deadline = writer.after(bound, {
        run: () => {
          cancel()
          missed(writer.now() - started)
          writer.wake({ run: () => resume(Effect.void) })
        }
      })
      return Effect.sync(() => {
        cancel()
        writer.cancel(deadline)
      })
    })
  }

  private describe(exit: Exit.Exit<unknown, unknown>): RunExit {
    const { writer } = this.kernel
    const error = Exit.isFailure(exit) ? errorOf(exit.cause) : undefined
    return {
      incarnation: this.incarnation,
      at: writer.wall(),
      reason: reasonOf(exit),
      ranMillis: this.startedAt === undefined ? 0 : Math.round((writer.now() - this.startedAt) * 1000) / 1000,
      errorType: error === undefined ? null : errorType(error.value),
      message: error === undefined ? null : errorMessage(error.value),
      cancelledBy: Exit.isFailure(exit) ? cancelledBy(Cause.annotations(exit.cause)) : null
    }
  }

  get health(): Health {
    if (this.stuck) return "stuck"
    if (this.status === "backoff") return "degraded"
    return this.status === "failed" || this.status === "defect" || this.status === "timed_out" ? "failed" : "ok"
  }

  snapshot(): RoutineSnapshot {
    const { writer } = this.kernel
    return {
      ...shown(this, this.kernel, this.since),
      health: this.health,
      ready: this.isReady && this.scope !== undefined && !this.stopping,
      startedAt: this.startedAt === undefined ? null : writer.shown(this.startedAt),
      incarnation: this.incarnation,
      restarts: this.restarts,
      supervisor: this.owner?.kind === "supervisor" ? path(this.owner) : null,
      nextStartAt: this.nextStartAt === undefined ? null : writer.shown(this.nextStartAt),
      lastExit: this.lastExit ?? null,
      lastBeat: null,
      info: {},
      forkSite: this.forkSite ?? null,
      attributes: this.options.attributes ?? {}
    }
  }
}

// An empty scope is replaced, never changed: all can share one.
const emptyScope = { _tag: "Empty" } as const

const variance = { _A: (_: never): never => _, _E: (_: never): never => _ }

// Every routine is made by this module; the interface hides what only the tree may touch.
const recordOf = (self: Routine<unknown, unknown>): RoutineRecord => self as RoutineRecord

/**
 * The context without its span: what is forked from within a request outlives it.
 *
 * @stability unstable
 * @category getters
 * @since 0.1.0
 */
export const withoutSpan = (context: Context.Context<never>): Context.Context<never> =>
  Context.getOrUndefined(context, Tracer.ParentSpan) === undefined
    ? context
    : Context.omit(Tracer.ParentSpan)(context) as Context.Context<never>

const failed = (exit: Exit.Exit<unknown, unknown>): exit is Exit.Failure<unknown, unknown> =>
  Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)

/**
 * The reason that an exit gives: a failure before a defect before an interruption.
 *
 * @category getters
 * @since 0.1.0
 */
export const reasonOf = (exit: Exit.Exit<unknown, unknown>): ExitReason =>
  Exit.isSuccess(exit)
    ? "success"
    : Cause.hasFails(exit.cause)
    ? "failure"
    : Cause.hasDies(exit.cause)
    ? "defect"
    : "interrupted"

const finalStates: { readonly [R in ExitReason]: State } = {
  success: "succeeded",
  failure: "failed",
  defect: "defect",
  interrupted: "interrupted",
  idle_timeout: "timed_out",
  abandoned: "abandoned"
}

/** A run's exit with what its finalizers added: its own reasons lead, and a finalizer can turn success into failure. */
const withFinalizers = (
  exit: Exit.Exit<unknown, unknown>,
  finalizers: Exit.Exit<unknown, unknown>
): Exit.Exit<unknown, unknown> =>
  Exit.isSuccess(finalizers)
    ? exit
    : Exit.isSuccess(exit)
    ? finalizers
    : Exit.failCause(Cause.combine(exit.cause, finalizers.cause))

const errorOf = (cause: Cause.Cause<unknown>): { readonly value: unknown } | undefined => {
  const fail = cause.reasons.find(Cause.isFailReason)
  if (fail !== undefined) return { value: fail.error }
  const die = cause.reasons.find(Cause.isDieReason)
  return die === undefined ? undefined : { value: die.defect }
}

/** OpenTelemetry's `error.type`: the `_tag` of a tagged error, else the class name, else `_OTHER`. */
const errorType = (error: unknown): string => {
  if (Predicate.hasProperty(error, "_tag") && typeof error._tag === "string") return error._tag
  if (error instanceof Error) return error.constructor.name
  return "_OTHER"
}

const maxMessage = 4096

const errorMessage = (error: unknown): string =>
  (error instanceof Error
    ? error.message
    : Predicate.hasProperty(error, "message")
    ? String(error.message)
    : String(error))
    .slice(0, maxMessage)
