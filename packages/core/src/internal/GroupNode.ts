/**
 * A group in the tree: who runs, who waits for a slot, and why it stopped.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Tracer from "effect/Tracer"
import { DeadlineExceeded, GroupClosed } from "../CoreError.ts"
import type { Health, State } from "../Event.ts"
import {
  failFast,
  type JoinerGroup,
  type JoinerResult,
  type JoinerState,
  type Policy,
  type Verdict
} from "../Joiner.ts"
import { because, cancelledBy, type Kernel, millisOf, Node, path, shown, type StopLimits } from "../Kernel.ts"
import { kernelOf } from "../Orchestrator.ts"
import type { Routine, RoutineOptions } from "../Routine.ts"
import { Current, type Keeper, RoutineRecord } from "../RoutineRecord.ts"
import type { GroupSnapshot } from "../Snapshot.ts"
import { type Deadline, Waiters, waitFor } from "../Writer.ts"
import { forkedAt } from "./ForkSite.ts"

export const TypeId = "~effect-orchestra/core/Group"

export interface Settings {
  readonly name?: string | undefined
  readonly concurrency?: number | "unbounded" | undefined
  readonly joiner?: Policy | undefined
  readonly deadline?: Duration.Input | undefined
  readonly onBodyEnd?: "wait" | "halt" | undefined
}

export interface Request {
  /** What it requires stands in the forker's context. */
  readonly effect: Effect.Effect<unknown, unknown>
  readonly context: Context.Context<never>
  readonly options: RoutineOptions
  /** The line that forked it, where that is kept. */
  readonly site: string | undefined
  /** Called with the record of a task whose end, until it is ready, is the matter of whoever starts it. */
  readonly starting?: (task: TaskRecord) => void
}

type Forked = Effect.Effect<Routine<unknown, unknown>>

interface Parked {
  readonly request: Request
  readonly resume: (forked: Forked) => void
}

/** The group whose body runs: what the body makes itself stands below it. */
const Within = Context.Reference<GroupNode | undefined>("@effect-orchestra/core/Group/Within", {
  defaultValue: () => undefined
})

/**
 * Where a group made by this fiber stands: below the routine that it runs in, or the group whose body it is. What has
 * ended by now holds nothing.
 */
export const place = (fiber: Fiber.Fiber<unknown, unknown>): readonly [kernel: Kernel, owner: Node] => {
  const current = fiber.getRef(Current)
  const within = fiber.getRef(Within)
  const kernel = kernelOf(fiber.context, "group", within?.kernel)
  if (within?.kernel === kernel && within.current === current && !within.hasEnded) return [kernel, within]
  return [kernel, current?.kernel === kernel && !current.isFinal ? current : kernel]
}

export class TaskRecord extends RoutineRecord {
  readonly group: GroupNode
  readonly index: number
  /** Whether its end is the matter of whoever starts it. */
  starting: boolean
  /** Whether it ended other than by the stop of its group. */
  finished = false
  /** Who waits for its slot; only a pending task has one. */
  parked: Parked | undefined = undefined

  constructor(group: GroupNode, index: number, { options, site, starting }: Request) {
    super(group.kernel, group, options, group)
    this.group = group
    this.index = index
    this.starting = starting !== undefined
    forkedAt(this, site)
    starting?.(this)
  }

  override interruptRun(by?: Context.Context<never>, told?: boolean): void {
    if (this.parked === undefined) super.interruptRun(by, told)
    else this.group.forget(this)
  }
}

export class GroupNode extends Node implements Keeper, JoinerGroup {
  readonly [TypeId]: typeof TypeId = TypeId
  readonly kind = "group"
  readonly kernel: Kernel
  readonly incarnation = 1
  /** The routine that its body runs in. */
  readonly current: RoutineRecord | undefined
  status: State = "running"
  protected since: number
  private readonly limit: number
  private readonly joiner: Policy
  private readonly halts: boolean
  /** Milliseconds; undefined when it never had a deadline. */
  private readonly within: number | undefined
  protected began: number
  protected state: JoinerState<unknown, unknown, unknown, unknown, unknown> | undefined = undefined
  /** The tasks that a joiner looks at, in fork order. */
  protected kept: Set<TaskRecord> | undefined = undefined
  /** Why it takes no task any more: what whoever forks fails with. Its error type is known to its users alone. */
  stopped: Cause.Cause<never> | undefined = undefined
  /** Why it failed: the first failure, and what failed behind it. */
  protected cause: Cause.Cause<never> | undefined = undefined
  protected behind: Array<Cause.Reason<never>> = []
  /** Whether somebody has seen that it failed. */
  protected told = false
  private active = 0
  /** Slots of tasks that have ended, and whose results nobody has read yet. */
  protected held = 0
  protected forked = 0
  /** The span of whoever joins. */
  protected joiningSpan: Tracer.AnySpan | undefined = undefined
  /** How many of them before this round. */
  protected before = 0
  private readonly queue = new Set<TaskRecord>()
  private body: Fiber.Fiber<unknown, unknown> | undefined = undefined
  protected bodyExit: Exit.Exit<unknown, unknown> | undefined = undefined
  private deadline: Deadline | undefined = undefined
  protected timeout: Deadline | undefined = undefined
  /** What its run returns, once everything in it has ended. */
  protected outcome: Effect.Effect<unknown, unknown> | undefined = undefined
  protected readonly endWaiters = new Waiters<Effect.Effect<unknown, unknown>>()

  constructor([kernel, owner]: readonly [Kernel, Node], settings: Settings, current: RoutineRecord | undefined) {
    super(kernel.nextId(), settings.name ?? "group", owner)
    const limit = settings.concurrency ?? "unbounded"
    if (limit !== "unbounded" && !(Number.isInteger(limit) && limit > 0)) {
      throw new Error(`a group's concurrency is a positive integer or "unbounded", got: ${limit}`)
    }
    this.within = settings.deadline === undefined ? undefined : millisOf("a group's deadline", settings.deadline)
    this.limit = limit === "unbounded" ? Infinity : limit
    this.joiner = settings.joiner ?? failFast
    this.halts = settings.onBodyEnd === "halt"
    this.kernel = kernel
    this.current = current
    this.began = this.since = kernel.writer.now()
    kernel.add(this)
  }

  get path(): string {
    return path(this)
  }

  get remaining(): number {
    return this.active + this.queue.size
  }

  get bodyEnded(): boolean {
    return this.bodyExit !== undefined
  }

  get hasEnded(): boolean {
    return this.outcome !== undefined
  }

  /** Completes with what the run returns when the body and every task have ended, finalizers included. */
  readonly ended: Effect.Effect<Effect.Effect<unknown, unknown>> = Effect.suspend(() =>
    waitFor(this.endWaiters, () => this.outcome === undefined ? undefined : Effect.succeed(this.outcome))
  )

  /** Runs a body in it. */
  begin(body: Effect.Effect<unknown, unknown>, context: Context.Context<never>): void {
    const { within, kernel: { writer } } = this
    this.open()
    this.arm()
    if (within !== undefined && within > 0) this.expireIn(within)
    const fiber = writer.start(
      Context.add(this.kernel.observers?.opening?.(this, context) ?? context, Within, this),
      Effect.withFiber((self) => {
        this.body = self
        return body
      })
    )
    if (fiber.pollUnsafe() === undefined) this.body = fiber
    fiber.addObserver((exit) => {
      this.body = undefined
      writer.submit({ run: () => this.endBody(exit) })
    })
    if (within === 0) writer.submit({ run: () => this.expire() })
  }

  /** Makes the state of one run. */
  protected open(): void {
    const { keepsTasks, make } = this.joiner
    if (keepsTasks) this.kept = new Set()
    // The lambda of the joiner has told the compiler which tasks it takes.
    this.state = make?.() as typeof this.state
  }

  /** Starts the time that the joiner has. */
  protected arm(): void {
    const { timeout } = this.joiner
    if (timeout < Infinity) this.timeout = this.kernel.writer.after(timeout, { run: () => this.timedOut() })
  }

  protected endBody(exit: Exit.Exit<unknown, unknown>): void {
    this.bodyExit = exit
    if (Exit.isFailure(exit)) {
      if (this.stopped === undefined || !Cause.hasInterruptsOnly(exit.cause)) this.fail(exit.cause)
    } else if (this.halts) this.halt("body_ended")
    else this.ask((state) => state.onBodyEnd?.(this))
    this.check()
  }

  fork(request: Request): Forked {
    return this.admit(request) ?? Effect.callback((resume) => {
      // The fiber may have yielded in between.
      const now = this.admit(request)
      if (now !== undefined) return resume(now)
      const task = new TaskRecord(this, this.forked++, request)
      task.parked = { request, resume }
      task.since = this.kernel.writer.now()
      this.queue.add(task)
      this.kept?.add(task)
      return Effect.sync(() => {
        // Also run when what it was resumed with is an interruption.
        if (task.parked === undefined) return
        this.kept?.delete(task)
        this.drop(task)
        this.check()
      })
    })
  }

  tryFork(request: Request): Option.Option<Routine<unknown, unknown>> {
    return this.takesNone || this.isFull ? Option.none() : Option.some(this.forkNow(request))
  }

  /** The task if there is a slot, its failure if the group takes none; undefined if it has to wait. */
  private admit(request: Request): Forked | undefined {
    if (!this.takesNone) return this.isFull ? undefined : Effect.succeed(this.forkNow(request))
    this.told = true
    return this.stopped === undefined
      ? Effect.die(new GroupClosed({ group: this.path }))
      : Effect.failCause(this.stopped)
  }

  /** Whether it has stopped or ended. */
  private get takesNone(): boolean {
    return this.stopped !== undefined || this.outcome !== undefined
  }

  private get isFull(): boolean {
    return this.active + this.held >= this.limit
  }

  private forkNow(request: Request): TaskRecord {
    this.active++
    const task = new TaskRecord(this, this.forked++, request)
    this.kept?.add(task)
    this.launch(task, request)
    return task
  }

  private launch(task: TaskRecord, { context, effect }: Request): void {
    if (!task.starting) this.ask((state) => state.onFork?.(task))
    task.start(effect, context, task.starting ? readyLater : readyNow)
  }

  ready(record: RoutineRecord): void {
    const task = taskOf(record)
    if (!task.starting) return
    task.starting = false
    this.ask((state) => state.onFork?.(task))
  }

  /** The first failure leads; what else fails until the end stands behind it. Interruptions that we caused do not. */
  fail(failure: Cause.Cause<unknown>, by = because("sibling_failed", this), gently = false): void {
    if (this.hasEnded) return
    const cause = failure as Cause.Cause<never>
    if (this.cause === undefined) {
      this.cause = cause
      this.kernel.observers?.failing?.(this, cause)
    } else if (!Cause.hasInterruptsOnly(cause)) this.behind.push(...cause.reasons)
    this.stopWith(this.cause, by, gently)
  }

  /** Stops it with what it has. */
  halt(reason: string): void {
    const by = because(reason, this)
    this.stopWith(interruption(by), by, false)
  }

  private stopWith(stopped: Cause.Cause<never>, by: Context.Context<never>, gently: boolean): void {
    if (this.takesNone) return
    const { writer } = this.kernel
    this.stopped = stopped
    this.move("stopping")
    writer.cancel(this.deadline)
    writer.cancel(this.timeout)
    const { body, tasks } = this
    // A producer sees the cause before it is interrupted itself.
    for (const task of tasks) this.drop(task, Effect.failCause(stopped))
    if (body !== undefined) writer.wake({ run: () => body.interruptUnsafe(undefined, by) })
    if (!gently) { for (const task of tasks) if (!task.isFinal) task.interruptRun(by) }
    this.check()
  }

  private get tasks(): ReadonlyArray<TaskRecord> {
    return Array.from(this.children ?? []).filter((node) => node instanceof TaskRecord)
  }

  exited(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>): void {
    if (Exit.isSuccess(exit) || record.isFinal || taskOf(record).starting) return
    const { failFast, keepsDefects } = this.joiner
    const interrupted = Cause.hasInterruptsOnly(exit.cause)
    const matters = failFast
      // Without its value, the one that was stopped leaves a joiner nothing to join.
      ? !interrupted || this.stopped === undefined && (!record.stopping || this.state !== undefined)
      : Cause.hasDies(exit.cause) && !keepsDefects
    if (matters) this.fail(exit.cause)
  }

  closed(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>, now: number): void {
    this.exited(record, exit)
    record.settle(exit, now)
    this.active--
    this.count(taskOf(record), exit)
    this.fill()
  }

  /** What the end of a task means to the joiner. */
  private count(task: TaskRecord, exit: Exit.Exit<unknown, unknown>): void {
    if (task.starting) return void this.kept?.delete(task)
    if (this.stopped !== undefined && Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)) return
    task.finished = true
    this.ask((state) => state.onExit(task, exit, this))
  }

  /** What a joiner decides: code of the user, called while there is something to decide. */
  private ask(question: (state: NonNullable<typeof this.state>) => Verdict | void): void {
    const { state } = this
    if (state === undefined || this.stopped !== undefined) return
    try {
      if (question(state) === "stop") this.halt("not_needed")
    } catch (defect) {
      this.fail(Cause.die(defect))
    }
  }

  /** Free slots go to those that have waited longest. */
  protected fill(): void {
    const { writer } = this.kernel
    for (const task of this.queue) {
      if (this.isFull) break
      this.queue.delete(task)
      this.active++
      writer.wake({
        run: () => {
          const { parked } = task
          if (parked === undefined) {
            this.active--
            return this.fill()
          }
          task.parked = undefined
          this.launch(task, parked.request)
          parked.resume(Effect.succeed(task))
        }
      })
    }
    this.check()
  }

  /** Takes a task that never ran out of the queue. */
  private drop(task: TaskRecord, then?: Forked): void {
    const { parked } = task
    if (parked === undefined) return
    task.parked = undefined
    this.queue.delete(task)
    task.settle(Exit.interrupt())
    if (then !== undefined) this.kernel.writer.wake({ run: () => parked.resume(then) })
  }

  /** Somebody ended a task that waited for its slot: it never runs, and whoever forked it sees that. */
  forget(task: TaskRecord): void {
    this.drop(task, Effect.succeed(task))
    this.count(task, Exit.interrupt())
    this.check()
  }

  /** Everything in it has ended. */
  protected check(): void {
    if (this.bodyExit !== undefined && this.remaining === 0 && this.outcome === undefined) {
      this.finish(this.telling(this.result()))
    }
  }

  /** Sees to it that observers are told how it ended, once: what a joiner makes of the tasks is known when that is run. */
  protected telling(outcome: Effect.Effect<unknown, unknown>): Effect.Effect<unknown, unknown> {
    const { observers, writer } = this.kernel
    if (observers?.grouped === undefined) return outcome
    const end = { waitMillis: writer.now() - this.began, size: this.forked - this.before, span: this.joiningSpan }
    let told = false
    const tell = (exit: Exit.Exit<unknown, unknown>) => {
      if (!told) observers.grouped?.(this, { exit, ...end })
      told = true
    }
    if (!Exit.isExit(outcome)) return Effect.onExit(outcome, (exit) => Effect.sync(() => tell(exit)))
    tell(outcome)
    return outcome
  }

  protected finish(outcome: Effect.Effect<unknown, unknown>): void {
    const { writer } = this.kernel
    this.outcome = outcome
    writer.cancel(this.deadline)
    writer.cancel(this.timeout)
    this.move(this.cause === undefined ? "succeeded" : "failed")
    this.kernel.remove(this)
    this.endWaiters.wake(writer, outcome)
  }

  private result(): Effect.Effect<unknown, unknown> {
    const { behind, bodyExit, cause, kept, state } = this
    if (cause !== undefined) {
      return Exit.failCause(behind.length === 0 ? cause : Cause.combine(cause, Cause.fromReasons(behind)))
    }
    if (state === undefined) return bodyExit ?? Exit.void
    const results = Array.from(kept ?? [], ({ exit, finished, index, name }): JoinerResult<unknown, unknown> => ({
      index,
      name,
      exit: finished ? Option.fromUndefinedOr(exit) : Option.none()
    }))
    const body = bodyExit === undefined ? Option.none() : Exit.getSuccess(bodyExit)
    return Effect.suspend(() => state.result(body, results, this))
  }

  protected move(to: State): void {
    this.status = to
    this.since = this.kernel.writer.now()
  }

  private expireIn(time: number): void {
    this.deadline = this.kernel.writer.after(time, { run: () => this.expire() })
  }

  private expire(): void {
    if (this.takesNone) return
    const afterMillis = Math.round(this.kernel.writer.now() - this.began)
    this.fail(Cause.fail(new DeadlineExceeded({ group: this.path, afterMillis })), because("deadline", this))
  }

  private timedOut(): void {
    const { state } = this
    if (state?.onTimeout !== undefined) this.ask(() => state.onTimeout?.(this))
    else if (!this.takesNone) this.halt("deadline")
  }

  /** Moves its deadline; false when it has none, or has stopped. */
  extend(time: number): boolean {
    if (this.within === undefined || this.takesNone) return false
    this.kernel.writer.cancel(this.deadline)
    this.expireIn(time)
    return true
  }

  /** Ends it as interrupted, on behalf of `requester`. */
  cancel(reason: string, requester: Node | undefined): void {
    const by = because(reason, requester)
    this.fail(interruption(by), by)
  }

  /** Whoever waits for it was interrupted; what that interruption says goes to the tasks. */
  interrupted(cause: Cause.Cause<unknown>): void {
    const said = Cause.annotations(cause)
    this.fail(cause, cancelledBy(said) === null ? because("interrupted", this) : said)
  }

  stopChild(record: RoutineRecord, limits: StopLimits): Effect.Effect<void> | undefined {
    const task = taskOf(record)
    if (task.parked !== undefined) {
      this.forget(task)
      return undefined
    }
    return task.stopRun(limits, (waited) => {
      task.abandon(waited)
      this.active--
      this.count(task, Exit.interrupt())
      this.fill()
    })
  }

  stop(limits: StopLimits): Effect.Effect<void> | undefined {
    if (this.outcome !== undefined) return undefined
    const by = limits.by ?? because("stopped", this)
    // The tasks are asked before they are interrupted.
    this.fail(interruption(by), by, true)
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

// One for all of them.
const readyNow = { readyNow: true }
const readyLater = { readyNow: false }

// A group keeps no other records than its tasks.
const taskOf = (record: RoutineRecord): TaskRecord => record as TaskRecord

const interruption = (by: Context.Context<never>): Cause.Cause<never> => Cause.annotate(Cause.interrupt(), by)
