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
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Tracer from "effect/Tracer"
import { IdleTimeout } from "./CoreError.ts"
import { type ExitReason, type Health, reasonOf, type State } from "./Event.ts"
import { Past } from "./History.ts"
import { EndedRoutine } from "./internal/EndedRoutine.ts"
import {
  errorMessage,
  errorOf,
  failed,
  finalStates,
  healthOf,
  Imposed,
  runExit,
  withFinalizers
} from "./internal/RunExit.ts"
import { Vitals, Watchdog } from "./internal/Vitals.ts"
import {
  because,
  cancelledBy,
  type Kernel,
  millisOf,
  Node,
  path,
  shown,
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
  /** The fiber of the run has ended; its finalizers may still run. */
  exited(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>): void
  /** The run has ended at `now`, finalizers included. The keeper starts the next one or settles the routine. */
  closed(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>, now: number): void
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
    // A routine that starts at once is pending for no time that anybody could see.
    this.since = this.isSupervised ? kernel.writer.now() : 0
    this.template.count(this.status, 1)
    kernel.add(this)
    if (kernel.bus.observed) kernel.bus.emit("Forked", this, {})
  }

  /** Where it was forked, if that was looked at and is kept here. */
  forkedAt(site: string | undefined): void {
    if (site !== undefined && this.kernel.forkSites) this.past.forkSite = site
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

  /** Whether it ignored its interruption past its bound. */
  get isStuck(): boolean {
    return this.seenVitals?.stuck === true
  }

  /** Whether the failure of a routine forked into the scope of this run fails the run. */
  get linksForks(): boolean {
    return this.seenVitals?.linkForks === true
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
    const fiber = writer.start(Context.add(Context.add(context, Scope.Scope, this.scope), Current, this), effect)
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return this.ran(exit)
    this.fiber = fiber
    fiber.addObserver(this.ran.bind(this))
    // Interrupted in the step that started it, before there was a fiber to interrupt.
    if (this.wasInterrupted) fiber.interruptUnsafe(undefined, this.seenWaiting?.interruption)
  }

  /** The fiber of the run has ended. */
  private ran(exit: Exit.Exit<unknown, unknown>): void {
    this.fiber = undefined
    this.fiberExit = exit
    this.kernel.writer.submit(this)
  }

  /** The present run is ready. */
  markReady(now = this.kernel.writer.now()): void {
    if (this.isReady || this.scope === undefined || this.fiberExit !== undefined) return
    this.isReady = true
    if (!this.stopping) this.move("running", now)
    if (this.kernel.bus.observed) this.kernel.bus.emit("Ready", this, {})
    this.keeper?.ready(this)
    this.seenWaiting?.ready.wake(this.kernel.writer, undefined)
  }

  /** The writer's job when the fiber of the run has ended: close its scope, then tell what that means. */
  run(): void {
    if (this.fiberExit === undefined || this.scope === undefined) return
    const { writer } = this.kernel
    this.seenVitals?.watchdog?.disarm()
    const exit = this.imposed === undefined ? this.fiberExit : this.imposed.on(this.fiberExit)
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

  private closed(end: Exit.Exit<unknown, unknown>): void {
    const { bus, history, writer } = this.kernel
    const now = writer.now()
    const exit = this.isSupervised || bus.observed ? this.telling(end) : end
    this.fiberExit = undefined
    this.scope = undefined
    if (this.isSupervised || bus.observed) {
      const { past } = this
      past.lastExit = runExit(this, this.reason(exit), exit, now)
      if (this.isSupervised) history.keep(past.attempts, past.lastExit)
      if (bus.observed) bus.emit("Exited", this, { exit: past.lastExit })
    }
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

  /** Gives the routine its final state and wakes whoever waits for it. */
  settle(exit: Exit.Exit<unknown, unknown>, now = this.kernel.writer.now()): void {
    const reason = this.reason(exit)
    this.finish(exit, finalStates[reason], now)
    const { ended } = this.kernel.history
    if (ended.limit > 0) {
      ended.push(this.holds(exit) ? new EndedRoutine(this, exit, reason, this.seenPast, this.by) : this)
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
    if (this.kernel.bus.observed) this.kernel.bus.emit("Abandoned", this, { waitedMillis })
    this.finish(Exit.interrupt(), "abandoned", this.kernel.writer.now())
  }

  private finish(exit: Exit.Exit<unknown, unknown>, state: State, now: number): void {
    const { bus, writer } = this.kernel
    // The types of its value and its errors are known to the holders of the routine alone.
    this.exit = exit as Exit.Exit<never, never>
    this.move(state, now)
    if (bus.observed) bus.emit("Stopped", this, { state })
    if (this.endWaiters?.isEmpty === false) this.endWaiters.wake(writer, this.toldExit ?? this.exit)
    this.seenWaiting?.ready.wake(writer, undefined)
    this.seenWaiting?.endChanges()
  }

  /** The final end, and in it why it was interrupted. */
  get toldExit(): Exit.Exit<never, never> | undefined {
    return this.exit = this.exit === undefined ? undefined : this.telling(this.exit)
  }

  private telling<A, E>(exit: Exit.Exit<A, E>): Exit.Exit<A, E> {
    const { by } = this
    this.by = undefined
    return by === undefined || Exit.isSuccess(exit) ? exit : Exit.failCause(Cause.annotate(exit.cause, by))
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
    if (this.stopping || this.imposed !== undefined || this.fiber === undefined) return
    const { writer } = this.kernel
    this.imposed = new Imposed(Cause.die(new IdleTimeout({ path: path(this), idleMillis })), "idle_timeout")
    this.move("stopping")
    const bound = this.boundOf(unbounded)
    const asked = writer.now()
    const overdue = writer.after(bound, { run: () => this.overdue(writer.now() - asked) })
    this.onRunEnd(() => writer.cancel(overdue))
    this.interruptRun(because("idle_timeout", this))
  }

  /** How many milliseconds its interruption may take. */
  private boundOf({ interrupt }: StopLimits): number {
    return this.options.shutdown === undefined ? interrupt : Duration.toMillis(this.options.shutdown)
  }

  /** Timed out, interrupted, and still running. A keeper waits for its end; else nobody does. */
  private overdue(waitedMillis: number): void {
    if (this.keeper === undefined) return this.abandon(waitedMillis)
    this.vitals.stuck = true
    if (this.kernel.bus.observed) this.kernel.bus.emit("Stuck", this, { waitedMillis })
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
    // By way of the writer: a fiber that is interrupted stops what it has forked, and that what it has forked.
    else this.kernel.writer.wake({ run: () => fiber.interruptUnsafe(undefined, inside) })
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
    const asked = this.asked(limits)
    if (!this.stopping) {
      this.stopping = true
      this.seenVitals?.watchdog?.disarm()
      this.move("stopping")
      if (this.kernel.bus.observed) this.kernel.bus.emit("StopRequested", this, { by: cancelledBy(limits.by) })
      this.seenWaiting?.asked.wake(this.kernel.writer, undefined)
    }
    this.kernel.stopping?.enter(asked === undefined ? "interrupt" : "ask")
    const ended = asked === undefined ? this.interruptWithin(limits, missed) : Effect.flatMap(asked, () => {
      this.kernel.stopping?.enter("interrupt")
      return this.interruptWithin(limits, missed) ?? Effect.void
    })
    return ended === undefined ? undefined : Effect.andThen(ended, Effect.suspend(() => this.stopBelow(limits)))
  }

  /** Who abandons a routine stops what lives below it, which its own end would have stopped. */
  private stopBelow(limits: StopLimits): Effect.Effect<void> {
    if (!this.isFinal || this.scope === undefined) return Effect.void
    const stops = Array.from(this.children ?? [], (child) => child.stop({ ...limits, grace: 0 }) ?? Effect.void)
    return Effect.all(stops, { concurrency: "unbounded", discard: true })
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

  private interruptWithin(limits: StopLimits, missed: (waitedMillis: number) => void): Effect.Effect<void> | undefined {
    this.interruptRun(limits.by, limits.told)
    if (this.scope === undefined || this.isFinal) return undefined
    const { writer } = this.kernel
    const started = writer.now()
    const bound = Math.max(0, Math.min(this.boundOf(limits), limits.deadline - started))
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
    if (this.isStuck) return "stuck"
    const { idleTimeout } = this.options
    const isLate = idleTimeout !== undefined && this.scope !== undefined &&
      this.idle(this.kernel.writer.now()) > Duration.toMillis(idleTimeout) / 2
    return healthOf(this.status, isLate)
  }

  /** How long ago the present run beat last, or started. */
  idle(now: number): number {
    return now - (this.seenVitals?.heard(now) ?? this.startedAt ?? now)
  }

  /** Since when it has been told to stop and still runs. */
  get askedAt(): number | undefined {
    return this.seenVitals?.askedAt ?? (this.status === "stopping" ? this.since : undefined)
  }

  snapshot(): RoutineSnapshot {
    const { writer } = this.kernel
    const exit = this.toldExit
    const lastBeat = this.seenVitals?.heard(writer.now())
    const nextStartAt = this.seenPast?.nextStartAt
    return {
      ...shown(this, this.kernel, this.since),
      health: this.health,
      // A tree that is being shut down is ready for nothing, from the first phase on.
      ready: this.isReady && this.scope !== undefined && !this.stopping && this.kernel.closing === "open",
      startedAt: this.startedAt === undefined ? null : writer.shown(this.startedAt),
      incarnation: this.incarnation,
      restarts: this.seenPast?.restarts ?? 0,
      supervisor: this.isSupervised && this.owner !== undefined ? path(this.owner) : null,
      nextStartAt: nextStartAt === undefined ? null : writer.shown(nextStartAt),
      lastExit: this.seenPast?.lastExit ??
        (exit === undefined ? null : runExit(this, this.reason(exit), exit, this.since)),
      lastBeat: lastBeat === undefined ? null : writer.shown(lastBeat),
      info: this.seenVitals?.info ?? {},
      forkSite: this.seenPast?.forkSite ?? null,
      attributes: this.options.attributes ?? {}
    }
  }

  stats(): RoutineStats {
    const now = this.isFinal ? this.since : this.kernel.writer.now()
    const queue = { length: 0, capacity: 0, bytes: 0 }
    for (const { stats } of this.options.resources ?? []) {
      queue.length += stats.length
      queue.capacity += stats.capacity
      queue.bytes += stats.bytes
    }
    return {
      uptimeMillis: this.startedAt === undefined ? 0 : now - this.startedAt,
      idleMillis: this.idle(now),
      busyMillis: this.seenVitals?.busy?.total(now) ?? 0,
      blockedMillis: this.seenVitals?.blocked?.total(now) ?? 0,
      queue
    }
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

/** How many changes a stream may lag behind before it loses the oldest. */
const changesCapacity = 64

/**
 * Who waits for what becomes of a routine.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export class Waiting {
  readonly run = new Waiters<void>()
  readonly ready = new Waiters<void>()
  readonly asked = new Waiters<void>()
  drains: Array<Effect.Effect<void>> | undefined = undefined
  /** Annotates an interruption that came before there was a fiber. */
  interruption: Context.Context<never> | undefined = undefined
  private readonly changes = new Set<Queue.Queue<RoutineSnapshot, Cause.Done>>()

  tellChange(record: RoutineRecord): void {
    if (this.changes.size === 0) return
    const snapshot = record.snapshot()
    for (const queue of this.changes) Queue.offerUnsafe(queue, snapshot)
  }

  endChanges(): void {
    for (const queue of this.changes) Queue.endUnsafe(queue)
    this.changes.clear()
  }

  /** The changes from now on, until the scope is closed. */
  subscribe(): Effect.Effect<Queue.Dequeue<RoutineSnapshot, Cause.Done>, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.tap(
        Queue.sliding<RoutineSnapshot, Cause.Done>(changesCapacity),
        (queue) => Effect.sync(() => this.changes.add(queue))
      ),
      (queue) => Effect.sync(() => this.changes.delete(queue))
    )
  }
}

// An empty scope is replaced, never changed: all can share one.
const emptyScope = { _tag: "Empty" } as const

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
