/**
 * The record behind a routine: its state, its runs, and how each ended. Only the writer changes it.
 *
 * For packages that keep routines (a supervisor its children, a group its tasks); programs use `Routine`.
 *
 * @stability unstable
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { pipeArguments } from "effect/Pipeable"
import * as Scope from "effect/Scope"
import { IdleTimeout } from "./CoreError.ts"
import { type ExitReason, type Health, reasonOf, type RunExit, type State } from "./Event.ts"
import { Past } from "./History.ts"
import { EndedRoutine } from "./internal/EndedRoutine.ts"
import { Ending, Interruption } from "./internal/Ending.ts"
import { errorOf } from "./internal/ErrorOf.ts"
import { errorMessage, failed, finalStates, Imposed, runExit, withFinalizers } from "./internal/RunExit.ts"
import { contextFor } from "./internal/Spans.ts"
import { lookOf, snapshotOf, statsOf } from "./internal/View.ts"
import { Vitals, Watchdog } from "./internal/Vitals.ts"
import { Waiting } from "./internal/Waiting.ts"
import {
  because,
  cancelledBy,
  type Kernel,
  millisOf,
  Node,
  path,
  type StopLimits,
  type Template,
  unbounded
} from "./Kernel.ts"
import type { Routine, RoutineOptions } from "./Routine.ts"
import type { RoutineSnapshot, RoutineStats } from "./Snapshot.ts"
import { Stopwatch } from "./Stopwatch.ts"
import { type Job, Waiters, waitFor } from "./Writer.ts"

/** @since 0.1.0 */
export const TypeId = "~effect-orchestra/core/Routine"

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
  /**
   * The fiber of the run has ended; its finalizers may still run. What the keeper returns is how it has ended for
   * everyone else.
   */
  exited(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>): Exit.Exit<unknown, unknown> | void
  /** Its finalizers run, and take their time. */
  finalizing?(record: RoutineRecord): void
  /** Whether another run may follow the one that has just ended. Without it one may. */
  continues?(record: RoutineRecord): boolean
  /** The run has ended at `now`, finalizers included. The keeper starts the next one or settles the routine. */
  closed(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>, now: number): void
  /** How many milliseconds a run may take to end that idles or fails its probes. Without it as long as any routine. */
  bound?(record: RoutineRecord): number
  /** Such a run has not ended within its bound: with this exit, if at all. Without it there is nothing but to wait. */
  overdue?(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>): void
  /** Somebody outside asks for the end of the routine. */
  stopChild(record: RoutineRecord, limits: StopLimits): Effect.Effect<void> | undefined
}

/**
 * Who makes a run end, and waits in no fiber: is told that it was `missed`, it has not ended within its bound, and once
 * that it is `gone`, it has ended or was missed.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export interface Stopper {
  missed(waitedMillis: number): void
  gone(): void
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
  readonly scope?: Scope.Closeable | undefined
  readonly linkForks?: boolean
  /** Called when the run has its number, before anything else is told of it. */
  readonly begun?: (() => void) | undefined
}

/**
 * The record of a routine, which is also the `Scope` of its run: a fiber that acquires nothing costs no scope.
 * (`state` and `parent` are those of the scope; the routine's own are `status` and `owner`.) What few routines need is
 * made when it is needed: `vitals`, `past`, `waiting`.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export class RoutineRecord extends Node implements Routine<never, never>, Scope.Closeable, Job {
  declare readonly [TypeId]: Routine<never, never>[typeof TypeId]
  declare readonly "~effect/Scope": "~effect/Scope"
  declare readonly "~effect/Scope/Closeable": "~effect/Scope/Closeable"
  declare readonly strategy: "sequential"
  declare readonly parent: undefined
  declare readonly kind: "routine"
  state: Scope.Scope["state"] = emptyScope

  readonly kernel: Kernel
  readonly options: RoutineOptions
  readonly template: Template
  readonly keeper: Keeper | undefined

  status: State = "pending"
  /** When it entered its state, on the monotonic clock like every time here. */
  since: number
  incarnation = 0
  startedAt: number | undefined = undefined
  isReady = false
  /** Whether this run was asked to stop. */
  stopping = false
  private wasInterrupted = false
  /** Whether somebody looks at how it ends; else a failure is logged. */
  observed: boolean
  fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  /** The scope of the present run; undefined between runs. */
  scope: Scope.Closeable | undefined = undefined
  /** The final end. */
  exit: Exit.Exit<never, never> | undefined = undefined
  /** Why it was interrupted, until the exit says it: most exits nobody reads. */
  private by: Context.Context<never> | undefined = undefined
  private fiberExit: Exit.Exit<unknown, unknown> | undefined = undefined
  private imposed: Imposed | undefined = undefined
  private endWaiters: Waiters<Exit.Exit<never, never>> | undefined = undefined
  private seenVitals: Vitals | undefined = undefined
  private seenPast: Past | undefined = undefined
  private seenWaiting: Waiting | undefined = undefined

  constructor(kernel: Kernel, owner: Node, options: RoutineOptions, keeper?: Keeper) {
    super(kernel.nextId(), options.name ?? "routine", owner)
    if (options.shutdown !== undefined) millisOf("a routine's shutdown", options.shutdown)
    if (options.idleTimeout !== undefined && millisOf("a routine's idleTimeout", options.idleTimeout) === 0) {
      throw new Error("a routine's idleTimeout is a positive duration, got: 0")
    }
    this.kernel = kernel
    this.options = options
    this.keeper = keeper
    this.observed = keeper !== undefined
    this.template = kernel.template(this.name)
    // One that starts at once is pending for no time that anybody could see: who lets it wait says since when.
    this.since = 0
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

  /** The signs of life of its present run. */
  get vitals(): Vitals {
    return this.seenVitals ??= new Vitals()
  }

  /** What is remembered of the runs before. */
  get past(): Past {
    return this.seenPast ??= new Past()
  }

  /** Who waits for what becomes of it. */
  get waiting(): Waiting {
    return this.seenWaiting ??= new Waiting()
  }

  /** Whether the fiber of its present run has ended, and its finalizers run. */
  get isClosing(): boolean {
    return this.fiberExit !== undefined && this.scope !== undefined
  }

  /** Whether it ignored its interruption past its bound. */
  get isStuck(): boolean {
    return this.seenVitals?.stuck === true
  }

  /** Whether the failure of a routine forked into the scope of this run fails the run. */
  get linksForks(): boolean {
    return this.seenVitals?.linkForks === true
  }

  /** Whether it is meant to run as long as whoever keeps it. */
  get lasts(): boolean {
    return false
  }

  get isSupervised(): boolean {
    return this.owner?.kind === "supervisor"
  }

  /** How long the fibers of its present run have waited for messages or for room. */
  get blocked(): Stopwatch {
    return this.vitals.blocked ??= new Stopwatch()
  }

  /** How long the fibers of its present run were busy, by their own word. */
  get busy(): Stopwatch {
    return this.vitals.busy ??= new Stopwatch()
  }

  pipe() {
    return pipeArguments(this, arguments)
  }

  /** Counts on where another routine has ended: the same child, started again by hand. */
  continues(previous: RoutineRecord): void {
    this.incarnation = previous.incarnation
    this.past.restarts = previous.past.restarts
    if (previous.incarnation > 0) this.past.lastExit = previous.lastExit
  }

  /** Starts the next run. `scope` holds its resources, and is closed when it ends. */
  start(effect: Effect.Effect<unknown, unknown>, context: Context.Context<never>, options: StartOptions): void {
    const { writer } = this.kernel
    this.incarnation++
    options.begun?.()
    this.scope = options.scope ?? this
    this.isReady = false
    this.stopping = false
    this.wasInterrupted = false
    this.by = undefined
    this.imposed = undefined
    this.seenVitals = undefined
    if (options.linkForks === true) this.vitals.linkForks = true
    if (this.seenPast !== undefined) this.seenPast.nextStartAt = undefined
    const now = this.startedAt = writer.now()
    this.template.starts++
    if (options.readyNow) this.markReady(now)
    else this.move("starting", now)
    if (this.options.idleTimeout !== undefined) {
      const watchdog = new Watchdog(this, Duration.toMillis(this.options.idleTimeout))
      this.vitals.watchdog = watchdog
      watchdog.arm(now)
    }
    const own = Context.addUnsafe(contextFor(this, context), Scope.Scope.key, this.scope)
    const fiber = writer.start(Context.addUnsafe(own, Current.key, this), effect)
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return this.ran(exit)
    this.fiber = fiber
    // Smaller than a closure, and every routine has one.
    fiber.addObserver(this.ran.bind(this))
    // Interrupted in the step that started it, before there was a fiber to interrupt.
    if (this.wasInterrupted) fiber.interruptUnsafe(undefined, this.seenWaiting?.interruption)
  }

  /** The fiber of the run has ended. */
  private ran(exit: Exit.Exit<unknown, unknown>): void {
    for (const left of this.seenWaiting?.left?.values() ?? []) {
      if (left.fiber?.pollUnsafe() !== undefined) return left.ran(exit)
    }
    this.fiber = undefined
    this.fiberExit = exit
    this.seenWaiting?.watchers?.forEach((watcher) => watcher(false))
    this.kernel.writer.submit(this)
  }

  /** The present run is ready. */
  markReady(now = this.kernel.writer.now()): void {
    if (this.isReady || this.scope === undefined || this.fiberExit !== undefined) return
    this.isReady = true
    if (!this.stopping) this.move("running", now)
    this.kernel.observers?.ready?.(this)
    if (this.kernel.bus.observed) this.kernel.bus.emit("Ready", this, {})
    this.keeper?.ready(this)
    this.seenWaiting?.ready.wake(this.kernel.writer, undefined)
  }

  /** The writer's job when the fiber of the run has ended: close its scope, then tell what that means. */
  run(): void {
    if (this.fiberExit === undefined || this.scope === undefined) return
    const { writer } = this.kernel
    this.seenVitals?.watchdog?.disarm()
    const ended = this.imposed === undefined ? this.fiberExit : this.imposed.on(this.fiberExit)
    const exit = this.keeper?.exited(this, ended) ?? ended
    const closing = Scope.closeUnsafe(this.scope, exit)
    if (closing === undefined) return this.closed(exit)
    this.keeper?.finalizing?.(this)
    if (!this.stopping) this.move("stopping")
    const run = this.incarnation
    writer.wake({
      run: () => {
        // They are still its own: what they cost is its cost.
        const context = Context.addUnsafe(this.kernel.context, Current.key, this)
        const finalizers = Effect.runForkWith(context)(closing, { uninterruptible: true })
        finalizers.addObserver((end) =>
          writer.submit({ run: () => (this.seenWaiting?.left?.get(run) ?? this).closed(withFinalizers(exit, end)) })
        )
      }
    })
  }

  private closed(exit: Exit.Exit<unknown, unknown>): void {
    const { bus, writer } = this.kernel
    const now = writer.now()
    this.fiberExit = undefined
    this.scope = undefined
    this.kernel.observers?.ended?.(this, exit, now)
    if (bus.observed) bus.emit("Exited", this, { exit: this.remember(exit, now) })
    else if (this.isOneOfMany) this.remember(exit, now)
    if (this.stopping && failed(exit)) {
      this.kernel.stopping?.failures.push({ path: path(this), message: errorMessage(errorOf(exit.cause)?.value) })
    }
    if (this.seenWaiting !== undefined) {
      this.seenWaiting.drains = undefined
      this.seenWaiting.run.wake(writer, undefined)
    }
    if (this.isFinal) this.endLate(now)
    else if (this.keeper === undefined) this.settle(exit, now)
    else this.keeper.closed(this, exit, now)
  }

  /** Whether more is to be told of its run than the routine itself tells once that is final. */
  private get isOneOfMany(): boolean {
    return this.isSupervised && (this.isFinal || this.incarnation > 1 || this.keeper?.continues?.(this) !== false)
  }

  private remember(exit: Exit.Exit<unknown, unknown>, at: number): RunExit {
    const { past } = this
    past.lastExit = runExit(this, this.reason(exit), exit, at, this.by, past.traceId)
    if (this.isSupervised) this.kernel.history.keep(past.attempts, past.lastExit)
    return past.lastExit
  }

  /** How its last run has ended. */
  get lastExit(): RunExit | undefined {
    const exit = this.seenPast?.lastExit === undefined ? this.toldExit : undefined
    return exit === undefined
      ? this.seenPast?.lastExit
      : runExit(this, this.reason(exit), exit, this.since, undefined, this.seenPast?.traceId)
  }

  /** How the runs of a supervised child have ended, oldest first. */
  get attempts(): ReadonlyArray<RunExit> {
    const exits = this.seenPast?.attempts.exits ?? []
    const isOnly = exits.length === 0 && this.isSupervised && this.isFinal && this.startedAt !== undefined &&
      this.scope === undefined
    return isOnly && this.lastExit !== undefined ? [this.lastExit] : exits
  }

  /** Gives the routine its final state and wakes whoever waits for it. */
  settle(exit: Exit.Exit<unknown, unknown>, now = this.kernel.writer.now()): void {
    const reason = this.reason(exit)
    this.finish(exit, finalStates[reason], now)
    const { ended } = this.kernel.history
    if (ended.limit > 0) {
      ended.push(this.holds(exit) ? new EndedRoutine(this, this.exit ?? exit, reason, this.seenPast, this.by) : this)
    }
    this.kernel.remove(this)
    if (!this.observed && Exit.isFailure(exit) && reason !== "interrupted") {
      this.kernel.writer.nextTurn({ run: () => this.report(exit.cause) })
    }
  }

  /** Whether it keeps alive anything that is not its own: then the history remembers it by another. */
  private holds(exit: Exit.Exit<unknown, unknown>): boolean {
    return Exit.isFailure(exit) || exit.value !== undefined || this.owner !== this.kernel ||
      this.keeper !== undefined ||
      this.seenPast !== undefined || this.options.drain !== undefined || this.options.resources !== undefined
  }

  /** No longer waits for a run that ignores its interruption. It stays listed until it ends. */
  abandon(waitedMillis: number): void {
    if (this.isFinal) return
    this.vitals.stuck = true
    this.vitals.askedAt = this.since
    this.kernel.observers?.abandoned?.(this, waitedMillis)
    if (this.kernel.bus.observed) this.kernel.bus.emit("Abandoned", this, { waitedMillis })
    this.finish(Exit.interrupt(), "abandoned", this.kernel.writer.now())
  }

  /**
   * Lets go of the present run, which ignores its interruption, so that the next can start beside it. It stays listed,
   * as an abandoned routine of its own, until it ends.
   */
  leave(waitedMillis: number): void {
    const left = new RoutineRecord(this.kernel, this.owner ?? this.kernel, this.options)
    left.incarnation = this.incarnation
    left.startedAt = this.startedAt
    left.since = this.since
    left.scope = this.scope
    left.fiber = this.fiber
    left.fiberExit = this.fiberExit
    left.wasInterrupted = this.wasInterrupted
    left.seenVitals = this.seenVitals
    ;(this.waiting.left ??= new Map()).set(this.incarnation, left)
    left.onRunEnd(() => this.waiting.left?.delete(left.incarnation))
    left.seenVitals?.watchdog?.disarm()
    this.scope =
      this.fiber =
      this.fiberExit =
      this.seenVitals =
        undefined
    this.seenWaiting?.watchers?.forEach((watcher) => watcher(false))
    this.kernel.observers?.left?.(this, left)
    left.abandon(waitedMillis)
    this.seenWaiting?.run.wake(this.kernel.writer, undefined)
  }

  private finish(exit: Exit.Exit<unknown, unknown>, state: State, now: number): void {
    const { bus, writer } = this.kernel
    // The types of its value and its errors are known to the holders of the routine alone.
    this.exit = exit as Exit.Exit<never, never>
    this.seenWaiting?.watchers?.forEach((watcher) => watcher(true))
    this.move(state, now)
    if (bus.observed) bus.emit("Stopped", this, { state })
    if (this.endWaiters?.isEmpty === false) this.endWaiters.wake(writer, this.toldExit ?? this.exit)
    this.seenWaiting?.ready.wake(writer, undefined)
    this.seenWaiting?.endChanges()
  }

  /** The final end, and in it why it was interrupted. */
  get toldExit(): Exit.Exit<never, never> | undefined {
    const { by, exit } = this
    this.by = undefined
    if (by === undefined || exit === undefined || Exit.isSuccess(exit)) return exit
    return this.exit = Exit.failCause(Cause.annotate(exit.cause, by))
  }

  private endLate(now: number): void {
    const { bus, history } = this.kernel
    history.ended.push(new EndedRoutine(this, Exit.interrupt(), "abandoned", this.seenPast))
    this.kernel.remove(this)
    if (bus.observed) bus.emit("EndedLate", this, { waitedMillis: now - this.since })
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
    this.seenWaiting?.tellChange(this)
  }

  /** Makes this run fail with the cause of a routine that it relies on. */
  failLinked(cause: Cause.Cause<unknown>): void {
    if (this.stopping || this.imposed !== undefined || this.scope === undefined) return
    this.imposed = new Imposed(cause, undefined)
    this.interruptRun()
  }

  /** Nothing was heard of this run for too long. */
  timeOut(idleMillis: number): void {
    this.impose(Cause.die(new IdleTimeout({ path: path(this), idleMillis })), "idle_timeout", "idle_timeout")
  }

  /**
   * Interrupts this run, `by` saying why: it ends for `reason` and with `cause` in the lead, unless it succeeds all the
   * same. Not within its bound, it is stuck.
   */
  impose(cause: Cause.Cause<unknown>, reason: ExitReason, by: string): void {
    if (this.stopping || this.imposed !== undefined || this.fiber === undefined) return
    const { writer } = this.kernel
    const imposed = this.imposed = new Imposed(cause, reason)
    this.move("stopping")
    const bound = this.keeper?.bound?.(this) ?? this.boundOf(unbounded)
    const asked = writer.now()
    const overdue = writer.after(bound, { run: () => this.overdue(writer.now() - asked, imposed) })
    this.onRunEnd(() => writer.cancel(overdue))
    this.interruptRun(because(by, this))
  }

  /** How many milliseconds its interruption may take. */
  private boundOf({ interrupt }: StopLimits): number {
    return this.options.shutdown === undefined ? interrupt : Duration.toMillis(this.options.shutdown)
  }

  /** Interrupted, and still running. A keeper waits for its end; else nobody does. */
  private overdue(waitedMillis: number, imposed: Imposed): void {
    if (this.keeper === undefined) return this.abandon(waitedMillis)
    this.vitals.stuck = true
    if (this.kernel.bus.observed) this.kernel.bus.emit("Stuck", this, { waitedMillis })
    this.keeper.overdue?.(this, imposed.on(Exit.interrupt()))
  }

  /**
   * Interrupts the present run. What `by` says is known inside it too, in the causes that its finalizers see, unless it
   * is only `told`: to annotate an interruption costs as much as the rest of it.
   */
  interruptRun(by?: Context.Context<never>, told = false): void {
    if (this.scope === undefined || this.fiberExit !== undefined) return
    this.wasInterrupted = true
    if (told) this.by = by
    const { fiber } = this
    const inside = told ? undefined : by
    if (fiber === undefined) this.waiting.interruption = inside
    else this.kernel.writer.wake(new Interruption(fiber, inside))
  }

  addDrain(drain: Effect.Effect<void>): void {
    ;(this.waiting.drains ??= []).push(drain)
  }

  /** Completes when the routine is asked to stop. */
  get stopRequested(): Effect.Effect<void> {
    return Effect.suspend(() => waitFor(this.waiting.asked, () => this.stopping ? Effect.void : undefined))
  }

  /** Calls `listener`, by way of the writer, when the present run has ended. Returns how to take it back. */
  onRunEnd(listener: () => void): () => void {
    const { run } = this.waiting
    run.add(listener)
    return () => run.delete(listener)
  }

  /** Completes when the present run has ended, finalizers included. */
  get runEnded(): Effect.Effect<void> {
    return Effect.suspend(() => waitFor(this.waiting.run, () => this.scope === undefined ? Effect.void : undefined))
  }

  /** Completes when the present run is ready or the routine has ended. */
  get readyOrEnded(): Effect.Effect<void> {
    return Effect.suspend(() =>
      waitFor(this.waiting.ready, () => this.isReady || this.isFinal ? Effect.void : undefined)
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
    let isGone = false
    const waiters = new Waiters<void>()
    const gone = () => {
      isGone = true
      waiters.wake(this.kernel.writer, undefined)
    }
    this.stopThen(limits, { missed, gone })
    return isGone ? undefined : waitFor(waiters, () => isGone ? Effect.void : undefined)
  }

  /** The same for who waits in no fiber. What is to end `before` it is interrupted calls back. */
  stopThen(limits: StopLimits, stopper: Stopper, before?: (ended: () => void) => void): void {
    const { kernel } = this
    const asked = before === undefined ? this.asked(limits) : undefined
    if (!this.stopping) {
      this.stopping = true
      this.seenVitals?.watchdog?.disarm()
      this.move("stopping")
      kernel.observers?.asked?.(this)
      if (kernel.bus.observed) kernel.bus.emit("StopRequested", this, { by: cancelledBy(limits.by) })
      this.seenWaiting?.asked.wake(kernel.writer, undefined)
    }
    kernel.stopping?.enter(asked === undefined ? "interrupt" : "ask")
    if (before !== undefined) return before(() => this.endThen(limits, stopper))
    if (asked === undefined) return this.endThen(limits, stopper)
    this.fork(asked, () => {
      kernel.stopping?.enter("interrupt")
      this.endThen(limits, stopper)
    })
  }

  /** Runs what the user gave, so not within a decision; what follows is one. */
  private fork(effect: Effect.Effect<unknown>, then: () => void): void {
    const { context, writer } = this.kernel
    writer.wake({
      run: () => void Effect.runForkWith(context)(effect).addObserver(() => writer.submit({ run: then }))
    })
  }

  /** Who abandons a routine stops what lives below it, which its own end would have stopped. */
  stopBelow(limits: StopLimits, stopper: Stopper): void {
    if (!this.isFinal || this.scope === undefined) return stopper.gone()
    const stops = Array.from(this.children ?? [], (child) => child.stop({ ...limits, grace: 0 }) ?? Effect.void)
    this.fork(Effect.all(stops, { concurrency: "unbounded", discard: true }), () => stopper.gone())
  }

  /** Runs the drains, and waits for a run that watches `stopRequested`; undefined when there is neither. */
  private asked(limits: StopLimits): Effect.Effect<void> | undefined {
    if (this.fiber === undefined) return undefined
    const watches = this.seenWaiting?.asked.isEmpty === false
    const own = this.seenWaiting?.drains
    const drains = this.options.drain === undefined ? own : [this.options.drain, ...own ?? []]
    if (drains === undefined && !watches) return undefined
    const drained = Effect.forEach(drains ?? [], Effect.exit, { concurrency: "unbounded", discard: true })
    const { runEnded } = this
    const finished = watches ? Effect.andThen(drained, runEnded) : Effect.raceFirst(drained, runEnded)
    const grace = Math.min(limits.grace, limits.deadline - this.kernel.writer.now())
    return Effect.asVoid(Effect.timeoutOption(finished, Math.max(0, grace)))
  }

  /** Interrupts the run, and waits for its end within its bound. */
  endThen(limits: StopLimits, stopper: Stopper): void {
    this.interruptRun(limits.by, limits.told)
    if (this.scope === undefined) return stopper.gone()
    if (this.isFinal) return this.stopBelow(limits, stopper)
    const { writer } = this.kernel
    const asked = writer.now()
    const bound = Math.max(0, Math.min(this.boundOf(limits), limits.deadline - asked))
    if (this.children?.isEmpty === false) this.vitals.endsBy = asked + bound
    // Behind the interruption: whole groups stop one after the other.
    writer.wake(new Ending(this, limits, stopper, asked, bound))
  }

  /**
   * Why a run, or the routine, ended. An interruption that nobody asked of it (it joined a fiber that was interrupted)
   * is a failure like any other.
   */
  reason(exit: Exit.Exit<unknown, unknown>): ExitReason {
    if (this.status === "abandoned") return "abandoned"
    if (Exit.isSuccess(exit)) return "success"
    const reason = this.imposed?.reason ?? reasonOf(exit)
    return reason === "interrupted" && !this.wasInterrupted && this.incarnation > 0 ? "failure" : reason
  }

  get health(): Health {
    return lookOf(this)
  }

  /** How long ago the present run beat last, or started. */
  idle(now: number): number {
    return now - (this.seenVitals?.heard(now) ?? this.startedAt ?? now)
  }

  /** How long ago its present run beat last, if it is one that beats, or has to. */
  heartbeatAge(now: number): number | undefined {
    if (this.scope === undefined || this.isFinal) return undefined
    const beats = this.seenVitals?.heard(now) !== undefined || this.options.idleTimeout !== undefined
    return beats ? this.idle(now) : undefined
  }

  /** Since when it has been told to stop and still runs. */
  get askedAt(): number | undefined {
    return this.seenVitals?.askedAt ?? (this.status === "stopping" ? this.since : undefined)
  }

  snapshot(): RoutineSnapshot {
    return snapshotOf(this, this.seenVitals, this.seenPast)
  }

  stats(): RoutineStats {
    return statsOf(this, this.seenVitals)
  }
}

// The same for all of them: as fields they would cost each routine 56 bytes.
const shared: Partial<RoutineRecord> = {
  [TypeId]: { _A: (_: never): never => _, _E: (_: never): never => _ },
  "~effect/Scope": "~effect/Scope",
  "~effect/Scope/Closeable": "~effect/Scope/Closeable",
  strategy: "sequential",
  kind: "routine"
}
Object.assign(RoutineRecord.prototype, shared, { parent: undefined })

// An empty scope is replaced, never changed: all can share one.
const emptyScope = { _tag: "Empty" } as const

export { withoutSpan } from "./internal/Spans.ts"
