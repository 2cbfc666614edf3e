/**
 * A supervisor that runs: its children in their places, the rounds that start and stop them, and the decisions.
 *
 * Every method that changes something is a job of the writer and waits for nothing. What takes time (stopping some
 * children, a backoff, starting some) is a round, a fiber whose end is the next job.
 *
 * @internal
 */
import { NotReady, OrchestratorClosed } from "@effect-orchestra/core/CoreError"
import type { ExitReason, Health, State } from "@effect-orchestra/core/Event"
import {
  because,
  cancelledBy,
  type Kernel,
  Node,
  path,
  shown,
  type StopLimits,
  unbounded
} from "@effect-orchestra/core/Kernel"
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import { ready } from "@effect-orchestra/core/Routine"
import { Current, type Keeper, RoutineRecord, withoutSpan } from "@effect-orchestra/core/RoutineRecord"
import type { SupervisorSnapshot } from "@effect-orchestra/core/Snapshot"
import { Waiters, waitFor } from "@effect-orchestra/core/Writer"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import * as Scope from "effect/Scope"
import type * as Child from "../Child.ts"
import { classify, decide, plan, Window } from "../Restart.ts"
import type { Supervisor, SupervisorRef } from "../Supervisor.ts"
import { RestartIntensityReached, StartFailure } from "../SupervisorError.ts"
import type { Decision, RestartReason } from "../SupervisorEvent.ts"

/** @internal */
export const RefTypeId = "~effect-orchestra/supervisor/SupervisorRef"

interface BeginOptions {
  readonly escalates: boolean
}

/** @internal */
export const begin = <E, R>(
  spec: Supervisor<E, R>,
  { escalates }: BeginOptions
): Effect.Effect<SupervisorRef, StartFailure, R | Scope.Scope | Orchestrator> =>
  // From its registration on it has a holder: the scope.
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiber((fiber) => {
      const { kernel } = Context.getUnsafe(fiber.context, Orchestrator)
      if (kernel.closing !== "open") return Effect.fail(refused(kernel, kernel.closing, spec))
      const parent = fiber.getRef(Current)
      const node = new SupervisorNode(kernel, parent, spec, fiber.context, escalates)
      const stopped = Effect.suspend(() => node.stop(unbounded) ?? Effect.void)
      return Effect.addFinalizer(() => stopped).pipe(
        Effect.andThen(Effect.onInterrupt(restore(node.started), () => stopped)),
        Effect.as(node)
      )
    })
  )

/** A tree that is being stopped takes no supervisor. */
const refused = (kernel: Kernel, state: "closing" | "closed", spec: Supervisor<unknown, unknown>) =>
  new StartFailure({
    supervisor: `${path(kernel)}/${spec.name}`,
    child: spec.children[0]?.id ?? "",
    cause: Cause.fail(new OrchestratorClosed({ orchestrator: kernel.name, state }))
  })

/** Every supervisor is made by this module. @internal */
export const nodeOf = (self: SupervisorRef): SupervisorNode => self as SupervisorNode

/** A child in its place: its specification, its routine, and what stands between two runs. */
class Slot {
  readonly index: number
  readonly child: Child.Any
  readonly record: RoutineRecord
  readonly outcome = new Waiters<void>()
  /** What its layer gives, while it runs. */
  services: Context.Context<never> | undefined = undefined
  /** Whether it is to run: not finished, and not stopped by hand. */
  wanted = true
  /** The round that is busy with it. */
  round: Round | undefined = undefined
  /** How the run that was to become ready ended instead. */
  startExit: Exit.Exit<unknown, unknown> | undefined = undefined
  /** How its last run ended: its own end, when none follows. */
  lastExit: Exit.Exit<unknown, unknown> = Exit.interrupt()
  ranMillis = 0
  step: Step | undefined = undefined
  reason: RestartReason = "sibling"

  constructor(node: SupervisorNode, child: Child.Any, index: number) {
    this.child = child
    this.index = index
    this.record = new RoutineRecord(
      node.kernel,
      node,
      child.options.attributes === undefined
        ? { name: child.id }
        : { name: child.id, attributes: child.options.attributes },
      node
    )
  }

  /** Whether it counts as ready before its first instruction. */
  get readyNow(): boolean {
    return this.child.body._tag === "Effect" && this.child.options.awaitReady !== true
  }
}

type Step = (now: number, input: Cause.Cause<unknown>) => Pull.Pull<[unknown, Duration.Duration], never, unknown>

/** One orderly change: stop some children in this order, wait for the backoff of the offender, start some in this. */
interface Round {
  readonly stop: ReadonlyArray<Slot>
  readonly start: ReadonlyArray<Slot>
  readonly offender: Slot | undefined
  cancelled: boolean
  /** The monotonic time until which it waits in its backoff. */
  until: number | undefined
  fiber: Fiber.Fiber<void, StartError> | undefined
}

/** Why a round ended early: this child did not start; or, when `exhausted`, its backoff schedule gives no more. */
interface StartError {
  readonly slot: Slot
  readonly exit: Exit.Exit<unknown, unknown>
  readonly exhausted: boolean
}

class SupervisorNode extends Node implements SupervisorRef, Keeper {
  readonly [RefTypeId] = RefTypeId
  readonly kind = "supervisor"
  readonly kernel: Kernel
  readonly incarnation = 1
  readonly spec: Supervisor<unknown, unknown>
  private readonly parent: RoutineRecord | undefined
  private readonly escalates: boolean
  private readonly context: Context.Context<never>
  /** The children in start order. */
  private readonly slots: ReadonlyMap<RoutineRecord, Slot>
  private readonly window: Window
  private readonly rounds = new Set<Round>()
  private readonly failed = new Map<Slot, Exit.Exit<unknown, unknown>>()
  private readonly startWaiters = new Waiters<Exit.Exit<void, StartFailure>>()
  private readonly endWaiters = new Waiters<void>()
  private startFailure: StartFailure | undefined = undefined
  private gaveUp: RestartIntensityReached | undefined = undefined
  status: State = "starting"
  private since: number

  constructor(
    kernel: Kernel,
    parent: RoutineRecord | undefined,
    spec: Supervisor<unknown, unknown>,
    context: Context.Context<never>,
    escalates: boolean
  ) {
    super(kernel.nextId(), spec.name, parent ?? kernel)
    this.kernel = kernel
    this.parent = parent
    this.spec = spec
    this.escalates = escalates
    // A child builds its layers with a memo map of its own, whatever the supervisor itself is built with.
    this.context = Context.omit(Scope.Scope, Layer.CurrentMemoMap)(withoutSpan(context)) as Context.Context<
      never
    >
    this.window = new Window(spec.intensity, Duration.toMillis(spec.period))
    this.since = kernel.writer.now()
    kernel.add(this)
    const slots = spec.children.map((child, index) => new Slot(this, child, index))
    this.slots = new Map(slots.map((slot) => [slot.record, slot]))
  }

  /** Starts the children; completes when the last is ready, or fails when the rollback is done. */
  get started(): Effect.Effect<void, StartFailure> {
    return Effect.callback((resume) => {
      this.startWaiters.add(resume)
      this.submit(() => this.open({ stop: [], start: [...this.slots.values()], offender: undefined }))
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

  private get isEnded(): boolean {
    return this.status === "failed" || this.status === "interrupted"
  }

  private get isStopping(): boolean {
    return this.status === "stopping" || this.isEnded
  }

  private submit(run: () => void): void {
    this.kernel.writer.submit({ run })
  }

  private move(to: State): void {
    this.status = to
    this.since = this.kernel.writer.now()
  }

  // -- what the runs tell --

  ready(record: RoutineRecord): void {
    this.slots.get(record)?.outcome.wake(this.kernel.writer, undefined)
  }

  exited(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>): void {
    const slot = this.slots.get(record)
    if (slot === undefined) return
    slot.services = undefined
    slot.ranMillis = this.kernel.writer.now() - (record.startedAt ?? 0)
    if (this.isStopping || record.stopping || !slot.wanted) return slot.outcome.wake(this.kernel.writer, undefined)
    if (!record.isReady) {
      slot.startExit = exit
      return slot.outcome.wake(this.kernel.writer, undefined)
    }
    const restart = slot.child.body._tag === "Layer" ? "permanent" : slot.child.options.restart ?? "permanent"
    if (decide(restart, classify(exit)) === "stop") {
      slot.wanted = false
      return this.decided(slot, "stop", slot.record.reason(exit))
    }
    this.failed.set(slot, exit)
    // Under a group strategy whatever fails in the same turn is one failure, that of the earliest.
    if (this.spec.strategy === "one_for_one") this.act()
    else this.kernel.writer.nextTurn({ run: () => this.act() })
  }

  closed(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>): void {
    const slot = this.slots.get(record)
    if (slot !== undefined) slot.lastExit = exit
    if (slot === undefined || this.isStopping || !slot.wanted) record.settle(exit)
    else if (slot.round?.until !== undefined) record.move("backoff")
  }

  // -- decisions --

  /** Restarts what has failed, as far as no round is busy with it. */
  private act(): void {
    if (this.status !== "running" || this.failed.size === 0) return
    if (this.spec.strategy === "one_for_one") {
      for (const [slot, exit] of this.failed) {
        if (slot.round !== undefined) continue
        this.failed.delete(slot)
        this.restart(slot, exit)
      }
      return
    }
    const [busy] = this.rounds
    if (busy !== undefined && busy.until === undefined) return
    const [first] = [...this.failed].sort(([a], [b]) => a.index - b.index)
    if (first === undefined) return
    this.failed.clear()
    // A member that fails while the others wait in the backoff joins them: one round, counted once.
    if (busy !== undefined) this.cancel(busy)
    this.restart(first[0], first[1], busy?.until)
  }

  private restart(slot: Slot, exit: Exit.Exit<unknown, unknown>, until?: number): void {
    if (until === undefined && !this.window.admit(this.kernel.writer.now())) return this.giveUp(slot, exit)
    const planned = plan(this.spec.strategy, this.slots.size, slot.index)
    const pick = (indices: ReadonlyArray<number>) =>
      [...this.slots.values()].filter((other) => other.wanted && indices.includes(other.index))
    const start = pick(planned.start)
    for (const other of start) other.reason = other === slot ? slot.record.reason(exit) : "sibling"
    slot.lastExit = exit
    this.decided(slot, start.length > 1 ? "restart_group" : "restart", slot.record.reason(exit))
    this.open({ stop: pick(planned.stop).reverse(), start, offender: slot }, until)
  }

  private giveUp(slot: Slot, exit: Exit.Exit<unknown, unknown>): void {
    const { bus } = this.kernel
    this.decided(slot, this.parent === undefined ? "give_up" : "escalate", slot.record.reason(exit))
    const attempts = slot.record.incarnation
    if (bus.observed) bus.emit("GaveUp", this, { child: slot.child.id, attempts })
    this.gaveUp = new RestartIntensityReached({
      supervisor: path(this),
      child: slot.child.id,
      cause: Exit.isFailure(exit) ? exit.cause : Cause.fail("ended successfully"),
      attempts,
      intensity: this.spec.intensity,
      periodMillis: this.window.period
    })
    this.shutDown(unbounded)
  }

  private decided(slot: Slot, decision: Decision, reason: ExitReason): void {
    const { bus } = this.kernel
    if (bus.observed) bus.emit("Decided", this, { child: slot.child.id, decision, reason })
  }

  // -- rounds --

  private open(plan: Pick<Round, "stop" | "start" | "offender">, until?: number): void {
    const round: Round = { ...plan, cancelled: false, until, fiber: undefined }
    this.rounds.add(round)
    for (const slot of round.start) slot.round = round
    this.fork(round, this.play(round), (exit) => this.played(round, exit))
  }

  /** Runs user code, so it starts after the decision, and its end is another decision. */
  private fork<E>(
    round: Pick<Round, "cancelled"> & { fiber: Fiber.Fiber<void, E> | undefined },
    effect: Effect.Effect<void, E>,
    ended: (exit: Exit.Exit<void, E>) => void
  ): void {
    this.kernel.writer.wake({
      run: () => {
        if (round.cancelled) return
        const fiber = Effect.runForkWith(this.context)(effect)
        round.fiber = fiber
        fiber.addObserver((exit) => this.submit(() => ended(exit)))
      }
    })
  }

  private cancel(round: Round): void {
    round.cancelled = true
    this.rounds.delete(round)
    for (const slot of round.start) slot.round = undefined
    round.fiber?.interruptUnsafe()
  }

  private played(round: Round, exit: Exit.Exit<void, StartError>): void {
    if (round.cancelled) return
    this.rounds.delete(round)
    for (const slot of round.start) slot.round = undefined
    if (this.isStopping) return
    const error = errorOf(round, exit)
    if (this.status === "starting") {
      if (error !== undefined) return this.startFailed(error)
      this.move("running")
      this.startWaiters.wake(this.kernel.writer, Exit.void)
    } else if (error !== undefined) {
      if (error.exhausted) return this.giveUp(error.slot, error.exit)
      this.failed.set(error.slot, error.exit)
    }
    this.act()
  }

  private startFailed({ exit, slot }: StartError): void {
    this.startFailure = new StartFailure({
      supervisor: path(this),
      child: slot.child.id,
      cause: Exit.isFailure(exit) ? exit.cause : Cause.fail("ended before it was ready")
    })
    this.shutDown(unbounded)
  }

  private readonly play = Effect.fnUntraced(function*(this: SupervisorNode, round: Round) {
    for (const slot of round.stop) {
      if (slot.record.scope === undefined) continue
      yield* slot.record.stopRun(this.limitsOf(slot, this.restarting), (waited) => this.overdue(slot, waited)) ??
        Effect.void
    }
    const delayMillis = round.offender === undefined ? undefined : yield* this.backOff(round, round.offender)
    for (const slot of round.start) {
      // The next run never overlaps the one before, however long that one takes to end.
      yield* slot.record.runEnded
      if (slot.wanted) yield* this.startSlot(slot, delayMillis)
    }
  })

  private readonly backOff = Effect.fnUntraced(function*(this: SupervisorNode, round: Round, offender: Slot) {
    const { bus, writer } = this.kernel
    const delay = round.until === undefined ? yield* this.nextDelay(offender) : Math.max(0, round.until - writer.now())
    if (delay === undefined) {
      return yield* Effect.fail({ slot: offender, exit: offender.lastExit, exhausted: true })
    }
    if (delay === 0) {
      round.until = undefined
      return 0
    }
    round.until = writer.now() + delay
    for (const { record } of round.start) {
      record.past.nextStartAt = round.until
      if (record.scope === undefined) record.move("backoff")
      if (bus.observed) bus.emit("BackoffStarted", record, { delayMillis: delay, attempt: record.incarnation + 1 })
    }
    yield* writer.sleep(delay)
    round.until = undefined
    return delay
  })

  /** The delay before the next start in milliseconds; undefined when the schedule has ended. */
  private readonly nextDelay = Effect.fnUntraced(function*(this: SupervisorNode, slot: Slot) {
    const { backoff, resetAfter = "30 seconds" } = slot.child.options
    if (backoff === undefined) return 0
    if (slot.ranMillis >= Duration.toMillis(resetAfter)) slot.step = undefined
    const step = slot.step ??= yield* Schedule.toStep(backoff)
    const cause = Exit.isFailure(slot.lastExit) ? slot.lastExit.cause : Cause.empty
    return yield* Pull.matchEffect(step(this.kernel.writer.now(), cause), {
      onSuccess: ([, delay]) => Effect.succeed<number | undefined>(Duration.toMillis(delay)),
      onDone: () => Effect.succeed(undefined),
      onFailure: Effect.failCause
    })
  })

  /** Starts a child and waits until it is ready; `delayMillis` is the backoff before a restart. */
  private readonly startSlot = Effect.fnUntraced(function*(this: SupervisorNode, slot: Slot, delayMillis?: number) {
    const { writer } = this.kernel
    const { record } = slot
    slot.startExit = undefined
    // Whatever it failed of before is made good by this start.
    this.failed.delete(slot)
    record.start(this.bodyOf(slot), this.contextOf(slot), {
      readyNow: slot.readyNow,
      scope: Scope.makeUnsafe(),
      linkForks: slot.child.body._tag === "Layer",
      ...(delayMillis === undefined ? {} : { begun: () => this.restarted(slot, delayMillis) })
    })
    if (slot.readyNow || record.isReady) return
    const within = slot.child.options.startTimeout ?? (slot.child.options.awaitReady === true ? "30 seconds" : Infinity)
    const started = writer.now()
    if (slot.startExit === undefined) {
      const known = () => {
        const cut = record.fiber === undefined && (this.isStopping || record.stopping || !slot.wanted)
        return cut || record.isReady || slot.startExit !== undefined ? Effect.void : undefined
      }
      yield* Effect.timeoutOption(waitFor(slot.outcome, known), within)
    }
    if (record.isReady || !slot.wanted || this.isStopping) return
    // A start that cannot be interrupted fails on time all the same; what is left of it stays listed as stuck.
    const exit = slot.startExit ?? Exit.fail(yield* this.tooLate(slot, writer.now() - started))
    return yield* Effect.fail({ slot, exit, exhausted: false })
  })

  private bodyOf(slot: Slot): Effect.Effect<unknown, unknown> {
    const { body } = slot.child
    switch (body._tag) {
      // What the child requires stands in the context that it is started with: the types saw to it.
      case "Effect":
        return body.effect as Effect.Effect<unknown, unknown>
      case "Layer":
        return build(body.layer as Layer.Layer<never, unknown>, (services) => slot.services = services)
      case "Supervisor":
        return begin(body.spec as Supervisor<unknown, never>, { escalates: false }).pipe(
          Effect.tap(ready),
          Effect.flatMap((ref) => nodeOf(ref).awaitEnd)
        ) as Effect.Effect<unknown, unknown>
    }
  }

  /** The supervisor's own context, and under `rest_for_one` what earlier children give: they are rebuilt together. */
  private contextOf(slot: Slot): Context.Context<never> {
    if (this.spec.strategy === "one_for_one") return this.context
    return [...this.slots.values()].slice(0, slot.index).reduce(
      (context, earlier) => earlier.services === undefined ? context : Context.merge(context, earlier.services),
      this.context
    )
  }

  private restarted({ reason, record }: Slot, delayMillis: number): void {
    const { bus } = this.kernel
    record.past.restarts++
    record.template.restarts++
    if (bus.observed) bus.emit("Restarted", record, { supervisor: this.name, reason, delayMillis })
  }

  private readonly tooLate = Effect.fnUntraced(function*(this: SupervisorNode, slot: Slot, waitedMillis: number) {
    const { record } = slot
    record.interruptRun()
    yield* Effect.yieldNow
    if (record.scope !== undefined) this.overdue(slot, waitedMillis)
    return new NotReady({ path: path(record), reason: "timeout", waitedMillis: Math.round(waitedMillis) })
  })

  private overdue({ record }: Slot, waitedMillis: number): void {
    record.vitals.stuck = true
    if (this.kernel.bus.observed) this.kernel.bus.emit("Stuck", record, { waitedMillis })
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
    const slot = this.slots.get(record)
    if (slot === undefined) return undefined
    slot.wanted = false
    this.failed.delete(slot)
    if (slot.round !== undefined && this.spec.strategy === "one_for_one") this.cancel(slot.round)
    return this.end(slot, limits)
  }

  private end(slot: Slot, limits: StopLimits): Effect.Effect<void> | undefined {
    const { record } = slot
    if (record.isFinal) return undefined
    if (record.scope !== undefined) {
      return record.stopRun(this.limitsOf(slot, limits), (waited) => record.abandon(waited))
    }
    this.submit(() => {
      if (!record.isFinal) record.settle(slot.lastExit)
    })
    return undefined
  }

  /** The limits of a stop after which the child runs again. */
  private get restarting(): StopLimits {
    return { ...unbounded, by: because("restart", this) }
  }

  /** From here on nothing starts: what is under way is cancelled, and the children are stopped in reverse order. */
  private shutDown(limits: StopLimits): void {
    if (this.isStopping) return
    this.move("stopping")
    if (this.kernel.bus.observed) this.kernel.bus.emit("StopRequested", this, { by: cancelledBy(limits.by) })
    this.failed.clear()
    for (const round of this.rounds) this.cancel(round)
    const stopping = Effect.forEach(
      [...this.slots.values()].reverse(),
      (slot) => this.end(slot, limits) ?? Effect.void,
      {
        discard: true
      }
    )
    this.fork({ cancelled: false, fiber: undefined }, stopping, () => this.finish())
  }

  private finish(): void {
    const { writer } = this.kernel
    this.move(this.gaveUp === undefined && this.startFailure === undefined ? "interrupted" : "failed")
    this.kernel.remove(this)
    this.startWaiters.wake(
      writer,
      this.startFailure === undefined ? Exit.interrupt() : Exit.fail(this.startFailure)
    )
    this.endWaiters.wake(writer, undefined)
    if (this.gaveUp === undefined || !this.escalates) return
    if (this.parent === undefined) this.kernel.fail(path(this), Cause.fail(this.gaveUp))
    else this.parent.failLinked(Cause.fail(this.gaveUp))
  }

  private limitsOf(slot: Slot, limits: StopLimits): StopLimits {
    const { body, options } = slot.child
    const bound = options.shutdown ?? (body._tag === "Supervisor" ? "infinity" : undefined)
    if (slot.record.isStuck || bound === "brutal_kill") return { ...limits, grace: 0, interrupt: 0 }
    if (bound === "infinity") return { ...limits, interrupt: Infinity }
    return bound === undefined ? limits : { ...limits, interrupt: Duration.toMillis(bound) }
  }

  snapshot(): SupervisorSnapshot {
    const health: Health = this.status === "failed" ? "failed" : "ok"
    return {
      ...shown(this, this.kernel, this.since),
      health,
      strategy: this.spec.strategy,
      budget: {
        used: this.window.used(this.kernel.writer.now()),
        max: this.spec.intensity,
        periodMillis: this.window.period
      }
    }
  }
}

/** Why a round did not get through. A defect in what the user gave it, such as a backoff schedule, is final. */
const errorOf = (round: Round, exit: Exit.Exit<void, StartError>): StartError | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  const slot = round.offender ?? round.start[0]
  const error = exit.cause.reasons.find(Cause.isFailReason)?.error
  return error === undefined && slot !== undefined ? { slot, exit, exhausted: true } : error
}

/** Builds a layer with a memo map of its own, gives what it gives, and holds it until the run is ended. */
const build = (
  layer: Layer.Layer<never, unknown>,
  give: (services: Context.Context<never>) => void
): Effect.Effect<never, unknown> =>
  Effect.withFiber((fiber) => {
    const scope = Context.getUnsafe(fiber.context as Context.Context<Scope.Scope>, Scope.Scope)
    return Layer.buildWithMemoMap(layer, Layer.makeMemoMapUnsafe(), scope).pipe(
      Effect.flatMap((services) => {
        give(Context.omit(Layer.CurrentMemoMap)(services) as Context.Context<never>)
        return Effect.andThen(ready, Effect.never)
      })
    )
  })
