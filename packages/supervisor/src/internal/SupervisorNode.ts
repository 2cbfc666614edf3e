/**
 * A supervisor that runs: its children in their places, the rounds that start and stop them, and the decisions.
 *
 * Every method that changes something is a job of the writer and waits for nothing. What takes time (a start, a stop, a
 * backoff) calls back, and that is the next job.
 *
 * @internal
 */
import { NotReady, OrchestratorClosed } from "@effect-orchestra/core/CoreError"
import type { Health, State } from "@effect-orchestra/core/Event"
import { cancelledBy, type Kernel, Node, path, shown, type StopLimits, unbounded } from "@effect-orchestra/core/Kernel"
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import { ready } from "@effect-orchestra/core/Routine"
import { Current, type Keeper, type RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import type { SupervisorSnapshot } from "@effect-orchestra/core/Snapshot"
import { Waiters, waitFor, type Writer } from "@effect-orchestra/core/Writer"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type * as Child from "../Child.ts"
import { classify, decide, type Ending, type Strategy } from "../Restart.ts"
import type { Any, Supervisor, SupervisorRef } from "../Supervisor.ts"
import { Done, RestartIntensityReached, StartFailure, TerminateTree } from "../SupervisorError.ts"
import type { Decision } from "../SupervisorEvent.ts"
import { watch } from "./Probe.ts"
import { Restarts } from "./Restarts.ts"
import { type Plan, Round } from "./Round.ts"
import { ChildRecord, Policy, Slot } from "./Slot.ts"
import { inherited, Starts } from "./Starts.ts"
import { Stops } from "./Stops.ts"

/** @internal */
export const RefTypeId = "~effect-orchestra/supervisor/SupervisorRef"

interface BeginOptions {
  readonly escalates: boolean
  readonly begun?: (node: SupervisorNode) => void
}

/** @internal */
export const begin = <Out, E, R>(
  spec: Supervisor<Out, E, R>,
  { begun, escalates }: BeginOptions
): Effect.Effect<SupervisorRef, StartFailure, R | Scope.Scope | Orchestrator> =>
  // From its registration on it has a holder: the scope.
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiber((fiber) => {
      const { kernel } = Context.getUnsafe(fiber.context, Orchestrator)
      if (kernel.closing !== "open") return Effect.fail(refused(kernel, kernel.closing, spec))
      const parent = fiber.getRef(Current)
      const node = new SupervisorNode(kernel, parent, spec, fiber.context, escalates)
      begun?.(node)
      // Within what the routine that it stands in has left.
      const left = () => ({ ...unbounded, deadline: parent?.vitals.endsBy ?? Infinity })
      const stopped = Effect.suspend(() => node.stop(left()) ?? Effect.void)
      return Effect.addFinalizer(() => stopped).pipe(
        Effect.andThen(Effect.onInterrupt(restore(node.started), () => stopped)),
        Effect.as(node)
      )
    })
  )

/** A tree that is being stopped takes no supervisor. */
const refused = (kernel: Kernel, state: "closing" | "closed", spec: Any) =>
  new StartFailure({
    supervisor: `${path(kernel)}/${spec.name}`,
    child: spec.children[0]?.id ?? "",
    cause: Cause.fail(new OrchestratorClosed({ orchestrator: kernel.name, state }))
  })

/** A supervisor as a child of another: it is ready when its children are, and its end is that of the child. */
const nested = (spec: Any, slot: Slot): Effect.Effect<void, unknown> =>
  Effect.scoped(
    Effect.flatMap(begin(spec, { escalates: false, begun: (node) => slot.nested = node }), (ref) =>
      Effect.andThen(
        Effect.andThen(ready, nodeOf(ref).awaitEnd),
        Effect.suspend(() => nodeOf(ref).verdict)
      ))
  ) as Effect.Effect<void, unknown>

/** Every supervisor is made by this module. @internal */
export const nodeOf = (self: SupervisorRef): SupervisorNode => self as SupervisorNode

/** Decisions that are errors, however the child has ended: one that is restarted was not to end. */
const errors: ReadonlySet<Decision> = new Set(["restart", "restart_group", "quarantine", "escalate", "give_up"])

/** @internal */
export class SupervisorNode extends Node implements SupervisorRef, Keeper {
  readonly [RefTypeId] = RefTypeId
  readonly kind = "supervisor"
  readonly kernel: Kernel
  readonly incarnation = 1
  spec: Any
  private readonly parent: RoutineRecord | undefined
  /** The supervisor above it. */
  private readonly above: SupervisorNode | undefined
  private readonly escalates: boolean
  readonly context: Context.Context<never>
  /** The children by id, in start order. Those of a template stand below it, and in no map. */
  readonly slots = new Map<string, Slot>()
  /** How many children of a template it has. */
  size = 0
  /** Those that are kept and do not run. */
  readonly stopped = new Set<Slot>()
  private readonly rounds = new Set<Round>()
  /** What has ended, and is judged when the first start is through. */
  private readonly early = new Map<Slot, { readonly ending: Ending; readonly exit: Exit.Exit<unknown, unknown> }>()
  readonly restarts: Restarts
  readonly starts = new Starts(this, nested)
  readonly stops = new Stops(this)
  private readonly startWaiters = new Waiters<Exit.Exit<void, StartFailure>>()
  readonly endWaiters = new Waiters<void>()
  private startFailure: StartFailure | undefined = undefined
  private gaveUp: RestartIntensityReached | undefined = undefined
  /** Whether it ends in good order, and whether because a child asked for the end of the tree. */
  private isThrough = false
  private terminated = false
  /** Told which children were to run when it is being stopped. */
  onShutDown: ((slots: ReadonlyArray<Slot>) => void) | undefined = undefined
  status: State = "starting"
  private since: number

  constructor(
    kernel: Kernel,
    parent: RoutineRecord | undefined,
    spec: Any,
    context: Context.Context<never>,
    escalates: boolean
  ) {
    super(kernel.nextId(), spec.name, parent ?? kernel)
    this.kernel = kernel
    this.parent = parent
    let above = this.owner
    while (above !== undefined && !(above instanceof SupervisorNode)) above = above.owner
    this.above = above
    this.spec = spec
    this.escalates = escalates
    this.context = inherited(context)
    this.restarts = new Restarts(this, spec)
    this.since = kernel.writer.now()
    kernel.add(this)
    for (const child of spec.children) this.add(child)
  }

  get writer(): Writer {
    return this.kernel.writer
  }

  get strategy(): Strategy {
    return this.spec.strategy
  }

  get all(): ReadonlyArray<Slot> {
    if (this.spec.isDynamic !== true) return [...this.slots.values()]
    const { stopped } = this
    const listed = this.listed.filter((slot) => !slot.isForgotten && !stopped.has(slot))
    return stopped.size === 0 ? listed : [...listed, ...stopped].sort((a, b) => a.record.number - b.record.number)
  }

  /** The children of a template that are listed, and what is still listed on behalf of what runs below it. */
  private get listed(): ReadonlyArray<Slot> {
    const listed: Array<Slot> = []
    // Looks at nothing but the routines: there may be 100,000 of them.
    for (let node = this.children?.first; node !== undefined; node = node.next) {
      if (node instanceof ChildRecord) listed.push(node.slot)
    }
    return listed
  }

  /** Takes a child in, as the last one. */
  add({ body, spec }: Child.Any, context = this.context): Slot {
    const slot = new Slot(body, new Policy(body._tag, spec), context, this)
    this.slots.set(slot.id, slot)
    return slot
  }

  /** Takes in a child of a template, which has no id but that of its routine. */
  addAnonymous(body: Child.Body, policy: Policy, context: Context.Context<never>): Slot {
    this.size++
    return new Slot(body, policy, context, this)
  }

  remove(slot: Slot): void {
    this.stopped.delete(slot)
    if (!slot.policy.isTemplate) {
      if (this.slots.get(slot.id) === slot) this.slots.delete(slot.id)
    } else if (!slot.isForgotten) {
      slot.isForgotten = true
      this.size--
    }
  }

  /** These and no others are the children from now on, in this order. */
  arrange(slots: ReadonlyArray<Slot>): void {
    this.slots.clear()
    for (const slot of slots) this.slots.set(slot.id, slot)
  }

  /** Starts the children; completes when the last is ready, or fails when the rollback is done. */
  get started(): Effect.Effect<void, StartFailure> {
    return Effect.callback((resume) => {
      this.startWaiters.add(resume)
      this.submit(() => this.open({ members: this.all, offenders: [], kind: "first" }))
    })
  }

  /** Completes when everything was stopped; fails if that was because it gave up. */
  get awaitEnd(): Effect.Effect<void, RestartIntensityReached> {
    return Effect.suspend(() => {
      if (!this.isEnded) {
        return Effect.andThen(waitFor(this.endWaiters, () => this.isEnded ? Effect.void : undefined), this.awaitEnd)
      }
      return this.gaveUp === undefined ? Effect.void : Effect.fail(this.gaveUp)
    })
  }

  get isEnded(): boolean {
    return this.status === "failed" || this.status === "interrupted" || this.status === "succeeded"
  }

  get isStopping(): boolean {
    return this.status === "stopping" || this.isEnded
  }

  submit(run: () => void): void {
    this.writer.submit({ run })
  }

  private move(to: State): void {
    this.status = to
    this.since = this.writer.now()
  }

  // -- what the runs tell --

  /** The child whose present routine it is: what was abandoned, and others stand beside, says nothing of the child. */
  private slotOf(record: RoutineRecord): Slot | undefined {
    return record instanceof ChildRecord && record.slot.record === record ? record.slot : undefined
  }

  ready(record: RoutineRecord): void {
    const slot = this.slotOf(record)
    if (slot === undefined) return
    const { policy, start } = slot
    const { probe } = policy.spec
    if (probe !== undefined) watch(record, probe, this.starts.servicesOf(slot))
    if (policy.readyNow) return
    if (start !== undefined) this.submit(() => this.starts.settle(slot, start, "ready"))
  }

  exited(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>): Exit.Exit<unknown, unknown> {
    const slot = this.slotOf(record)
    if (slot === undefined) return exit
    const ending = classify(exit)
    // What a child says to its supervisor is no failure to anybody else.
    const told = ending === "normal" || ending === "abnormal" ? exit : Exit.void
    slot.services = slot.nested = undefined
    slot.ranMillis = this.writer.now() - (record.startedAt ?? 0)
    slot.lastExit = told
    if (this.isStopping || record.stopping || !slot.wanted) this.starts.settle(slot, slot.start, "stopped")
    else if (!record.isReady) this.endedEarly(slot, ending, slot.start?.late ?? told)
    else if (this.status === "starting") this.early.set(slot, { ending, exit: told })
    else this.judge(slot, ending, told)
    return told
  }

  bound(record: RoutineRecord): number {
    return record instanceof ChildRecord ? record.slot.policy.bound : Infinity
  }

  /** A run that idles or fails its probes, and ignores its interruption, has failed as soon as another may replace it. */
  overdue(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>): void {
    const slot = this.slotOf(record)
    if (slot === undefined || record.stopping) return
    const { policy } = slot
    if (policy.spec.onUnstoppable === "replace" && decide(policy.restart, classify(exit)) === "restart") {
      this.exited(record, exit)
      this.finalizing(record)
    }
  }

  finalizing(record: RoutineRecord): void {
    const slot = this.slotOf(record)
    if (slot?.isDirect === true) this.restarts.openAlone(slot)
  }

  continues(record: RoutineRecord): boolean {
    return record instanceof ChildRecord && record.slot.wanted && !this.isStopping
  }

  closed(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>, now: number): void {
    const slot = this.slotOf(record)
    if (slot === undefined) return
    slot.lastExit = exit
    if (this.isStopping || !slot.wanted) return this.retire(slot, now)
    if (slot.isDirect) {
      slot.isDirect = false
      return this.writer.wake(slot)
    }
    const { blocked } = slot
    slot.blocked = undefined
    if (blocked !== undefined) return blocked()
    if (slot.round === undefined || slot.round.until !== undefined || slot.round.members.length > 1) {
      record.move("backoff")
    }
  }

  // -- decisions --

  /** What the end of a run that was ready means. */
  private judge(slot: Slot, ending: Ending, exit: Exit.Exit<unknown, unknown>): void {
    const verdict = decide(slot.policy.restart, ending)
    if (verdict === "restart") return this.restarts.add(slot, exit)
    this.decided(slot, verdict === "stop" && ending === "ignore" ? "ignore" : verdict, exit)
    this.leaveStopped(slot, verdict === "remove")
    if (verdict === "terminate_tree") return this.terminate()
    if (ending !== "ignore") this.endedByItself(slot)
  }

  /** A child that is not to run any more. */
  private leaveStopped(slot: Slot, forget: boolean): void {
    slot.wanted = false
    slot.doomed ||= forget || slot.policy.forgets
    slot.round?.drop(slot)
    slot.tell()
    if (!slot.isLive) this.retire(slot)
  }

  /** Gives a child that is not to run any more its final state, and forgets it if it is not to be kept. */
  retire(slot: Slot, now?: number): void {
    const { record } = slot
    if (!record.isFinal) record.settle(slot.lastExit, now)
    if (!slot.doomed) return slot.wanted ? undefined : void this.stopped.add(slot)
    if (slot.isLive) record.onRunEnd(() => this.submit(() => this.retired(slot, record)))
    else {
      this.remove(slot)
      this.restarts.next()
    }
  }

  /** The same when it has ended, unless it runs again already. */
  private retired(slot: Slot, record: RoutineRecord): void {
    if (slot.record === record) this.retire(slot)
  }

  /** OTP's automatic shutdown: only the own end of a significant child counts. */
  private endedByItself(slot: Slot): void {
    const { autoShutdown } = this.spec
    if (!slot.policy.spec.significant || autoShutdown === "never" || this.isStopping) return
    const others = autoShutdown === "all_significant" &&
      this.all.some((other) => other !== slot && other.wanted && other.policy.spec.significant)
    if (others) return
    this.decided(slot, "auto_shutdown", slot.lastExit)
    this.isThrough = true
    this.shutDown(unbounded)
  }

  private terminate(): void {
    this.isThrough = this.terminated = true
    this.shutDown(unbounded)
  }

  /** A child that had been stopped runs again, in a routine of its own: a final state is never rewritten. */
  revive(slot: Slot): void {
    slot.wanted = true
    this.stopped.delete(slot)
    if (!slot.record.isFinal) return
    const { record } = slot
    if (slot.isLive) this.starts.beside(record)
    slot.record = new ChildRecord(slot, this)
    slot.record.continues(record)
  }

  /**
   * Whether this and every supervisor above allow one more attempt below them; the first that does not gives up, for
   * these causes.
   */
  admitsBelow(slot: Slot, now: number, how: "charge" | "look", causes = this.restarts.causes): boolean {
    if (this.restarts.admits(now, how)) return this.above?.admitsBelow(slot, now, how, causes) ?? true
    const { attempts = 0, period = Duration.zero } = this.spec.attemptBudget ?? {}
    const window = { intensity: attempts, periodMillis: Duration.toMillis(period) }
    const child = path(slot.record).slice(path(this).length + 1)
    if (!this.isStopping) this.giveUp(slot, child, window, slot.lastExit, causes)
    return false
  }

  /** A child has used up its budget, or its backoff has ended. */
  giveUpOn(slot: Slot, exit: Exit.Exit<unknown, unknown>): void {
    if (slot.policy.spec.onGiveUp === "quarantine") return this.quarantine(slot, exit)
    const { intensity, period: periodMillis } = this.restarts.window
    this.giveUp(slot, slot.id, { intensity, periodMillis }, exit)
  }

  private giveUp(
    slot: Slot,
    child: string,
    window: RestartIntensityReached["window"],
    exit: Exit.Exit<unknown, unknown>,
    causes = this.restarts.causes
  ): void {
    const { bus } = this.kernel
    const attempts = slot.record.incarnation
    this.gaveUp = new RestartIntensityReached({ supervisor: path(this), child, causes: [...causes], attempts, window })
    const all = this.quiesce(unbounded)
    // The offender ends first, then its supervisor says why.
    this.stops.whenEnded(slot, unbounded, () => {
      this.decided(slot, this.parent === undefined ? "give_up" : "escalate", exit)
      if (bus.observed) bus.emit("GaveUp", this, { child, attempts })
      this.stops.all(all, () => this.finish())
    })
  }

  private quarantine(slot: Slot, exit: Exit.Exit<unknown, unknown>): void {
    const { bus } = this.kernel
    const attempts = slot.record.incarnation
    this.decided(slot, "quarantine", exit)
    if (bus.observed) bus.emit("Quarantined", slot.record, { supervisor: this.name, attempts })
    const told = Effect.logError(`${path(slot.record)} is quarantined after ${attempts} starts`)
    this.writer.wake({ run: () => void Effect.runForkWith(this.kernel.context)(told) })
    // It waits to be released, unless somebody was about to forget it.
    const { doomed } = slot
    slot.quarantined = true
    this.leaveStopped(slot, false)
    slot.doomed = doomed
  }

  decided(slot: Slot, decision: Decision, exit: Exit.Exit<unknown, unknown>): void {
    const { bus, observers } = this.kernel
    observers?.decided?.(this, slot.record, decision, exit)
    if (!bus.observed) return
    const severity = Exit.isFailure(exit) || errors.has(decision) ? "error" : "info"
    bus.emit("Decided", this, { child: slot.id, decision, reason: slot.record.reason(exit), severity })
  }

  // -- rounds --

  open(plan: Plan): void {
    const round = new Round(this, plan)
    this.rounds.add(round)
    // Behind what is under way: the end of a run whose exit has just been seen.
    this.writer.submit(round)
  }

  cancel(round: Round): void {
    this.rounds.delete(round)
    round.cancel()
  }

  waits(round: Round, delayMillis: number): void {
    const { bus } = this.kernel
    for (const { record } of round.staying) {
      // Who waits until then already has been told.
      if (record.past.nextStartAt === round.until) continue
      record.past.nextStartAt = round.until
      if (record.scope === undefined) record.move("backoff")
      if (bus.observed) bus.emit("BackoffStarted", record, { delayMillis, attempt: record.incarnation + 1 })
    }
  }

  startFailed(round: Round, slot: Slot, exit: Exit.Exit<unknown, unknown>): void {
    if (round.kind === "first") return this.startRefused(slot, exit)
    // Whoever asked for the start takes it back.
    if (slot.command !== undefined) return slot.answer(exit)
    this.restarts.add(slot, exit)
  }

  ended(round: Round): void {
    this.rounds.delete(round)
    if (this.isStopping) return
    if (round.kind === "first") {
      this.move("running")
      this.startWaiters.wake(this.writer, Exit.void)
      for (const [slot, { ending, exit }] of this.early) this.judge(slot, ending, exit)
      this.early.clear()
    }
    this.restarts.next()
  }

  // -- starting --

  /** A run ended before it was ready. */
  private endedEarly(slot: Slot, ending: Ending, exit: Exit.Exit<unknown, unknown>): void {
    const verdict = decide(slot.policy.restart, ending)
    if (ending === "normal" || ending === "abnormal") {
      return this.starts.settle(slot, slot.start, Exit.isSuccess(exit) ? this.endedUnready(slot) : exit)
    }
    this.decided(slot, ending === "ignore" && verdict === "stop" ? "ignore" : verdict, exit)
    if (ending === "terminate_tree") return this.terminate()
    slot.wanted = false
    slot.doomed ||= verdict === "remove" || slot.policy.forgets
    slot.tell()
    this.starts.settle(slot, slot.start, "ignored")
  }

  private endedUnready({ record }: Slot): Exit.Exit<never, NotReady> {
    const waitedMillis = Math.round(this.writer.now() - (record.startedAt ?? 0))
    return Exit.fail(new NotReady({ path: path(record), reason: "ended", waitedMillis }))
  }

  private startRefused(slot: Slot, exit: Exit.Exit<unknown, unknown>): void {
    const cause = Exit.isFailure(exit) ? exit.cause : Cause.empty
    this.startFailure = new StartFailure({ supervisor: path(this), child: slot.id, cause })
    this.shutDown(unbounded)
  }

  /** What its end says to the supervisor above. */
  get verdict(): Effect.Effect<void, Done | TerminateTree> {
    if (!this.terminated) return Effect.void
    return Effect.fail(this.spec.propagateTermination ? new TerminateTree() : new Done())
  }

  // -- stopping --

  /** The supervisor that is the child of another lives at that child's path. */
  override get transparent(): boolean {
    return this.parent?.keeper instanceof SupervisorNode && this.parent.name === this.name
  }

  stop(limits: StopLimits): Effect.Effect<void> | undefined {
    if (!this.isEnded) this.submit(() => this.shutDown(limits))
    return this.isEnded ? undefined : Effect.asVoid(Effect.exit(this.awaitEnd))
  }

  /** Stops one child for good. Its siblings are not touched. */
  stopChild(record: RoutineRecord, limits: StopLimits): Effect.Effect<void> | undefined {
    if (!(record instanceof ChildRecord)) return undefined
    let isGone = false
    const waiters = new Waiters<void>()
    const gone = () => {
      isGone = true
      waiters.wake(this.writer, undefined)
    }
    this.submit(() => this.terminateSlot(record.slot, limits, gone))
    return isGone ? undefined : waitFor(waiters, () => isGone ? Effect.void : undefined)
  }

  terminateSlot(slot: Slot, limits: StopLimits, gone: () => void): void {
    const { record } = slot
    slot.wanted = false
    slot.doomed ||= slot.policy.forgets
    this.early.delete(slot)
    this.restarts.delete(slot)
    slot.blocked = undefined
    slot.tell()
    this.starts.settle(slot, slot.start, "stopped")
    slot.answer("stopped")
    slot.round?.drop(slot)
    this.stops.end(slot, limits, () => {
      this.retired(slot, record)
      gone()
    })
  }

  /** From here on nothing starts: what is under way is cancelled, and the children are stopped in reverse order. */
  shutDown(limits: StopLimits): void {
    if (this.isStopping) return this.stops.tighten(limits)
    const all = this.quiesce(limits)
    this.stops.all(all, () => this.finish())
  }

  private quiesce(limits: StopLimits): ReadonlyArray<Slot> {
    this.move("stopping")
    this.stops.limits = limits
    if (this.kernel.bus.observed) this.kernel.bus.emit("StopRequested", this, { by: cancelledBy(limits.by) })
    this.early.clear()
    this.restarts.clear()
    this.starts.clear()
    for (const round of this.rounds) this.cancel(round)
    this.onShutDown?.(this.all.filter(({ wanted }) => wanted))
    if (this.spec.isDynamic === true) return this.listed
    for (const slot of this.slots.values()) this.close(slot)
    return this.all
  }

  /** Whoever waits for it to start is told that it will not. */
  close(slot: Slot): void {
    slot.blocked = undefined
    this.starts.settle(slot, slot.start, "closed")
    slot.answer("closed")
    slot.tell()
  }

  private finish(): void {
    const failed = this.gaveUp !== undefined || this.startFailure !== undefined
    this.move(failed ? "failed" : this.isThrough ? "succeeded" : "interrupted")
    this.kernel.remove(this)
    this.startWaiters.wake(
      this.writer,
      this.startFailure !== undefined ? Exit.fail(this.startFailure) : this.isThrough ? Exit.void : Exit.interrupt()
    )
    this.endWaiters.wake(this.writer, undefined)
    if (!this.escalates) return
    if (this.gaveUp !== undefined && this.parent === undefined) this.kernel.fail(path(this), Cause.fail(this.gaveUp))
    else if (this.gaveUp !== undefined) this.parent?.failLinked(Cause.fail(this.gaveUp))
    else if (this.terminated && this.spec.propagateTermination) this.parent?.failLinked(Cause.fail(new TerminateTree()))
  }

  /** How much of its restarts it has used: told without a look at its children. */
  get budget(): SupervisorSnapshot["budget"] {
    const { window } = this.restarts
    return { used: window.used(this.writer.now()), max: window.intensity, periodMillis: window.period }
  }

  snapshot(): SupervisorSnapshot {
    const stopped = [...this.stopped]
    const health: Health = this.status === "failed"
      ? "failed"
      : stopped.some(({ quarantined }) => quarantined)
      ? "degraded"
      : "ok"
    return {
      ...shown(this, this.kernel, this.since),
      health,
      strategy: this.strategy,
      budget: this.budget,
      stopped: stopped.map(({ id, quarantined, record }) => {
        const { lastExit, since } = record.snapshot()
        return { id, routine: record.id, state: quarantined ? "quarantined" : "stopped", since, lastExit }
      })
    }
  }
}
