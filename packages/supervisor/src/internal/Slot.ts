/**
 * A child in its place: its specification, its routine, and what stands between two runs.
 *
 * @internal
 */
import type { RoutineOptions } from "@effect-orchestra/core/Routine"
import { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import type { Budget, RoutineSnapshot } from "@effect-orchestra/core/Snapshot"
import { type Deadline, type Job, Waiters } from "@effect-orchestra/core/Writer"
import type * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Exit from "effect/Exit"
import type * as Pull from "effect/Pull"
import type * as Child from "../Child.ts"
import { type RestartType, Window } from "../Restart.ts"
import type { ChildInfo } from "../Supervisor.ts"
import type { RestartReason } from "../SupervisorEvent.ts"
import { type Exports, exportsOf } from "./Exports.ts"
import type { Round } from "./Round.ts"
import type { End } from "./Stops.ts"
import type { SupervisorNode } from "./SupervisorNode.ts"

/** The routine of a child. */
export class ChildRecord extends RoutineRecord {
  readonly slot: Slot

  constructor(slot: Slot, node: SupervisorNode) {
    super(node.kernel, node, slot.policy.routine, node)
    this.slot = slot
    if (!slot.policy.isTemplate || !slot.policy.readyNow) this.since = node.writer.now()
  }

  override get lasts(): boolean {
    return this.slot.policy.restart === "permanent"
  }

  override snapshot(): RoutineSnapshot {
    return { ...super.snapshot(), budget: this.slot.budget }
  }
}

/** What the options of a child come to, times in milliseconds. The children of one template share it. */
export class Policy {
  readonly spec: Child.ChildSpec
  readonly restart: RestartType
  readonly routine: RoutineOptions
  readonly startTimeout: number
  readonly resetAfter: number
  /** Whether it counts as ready before its first instruction. */
  readonly readyNow: boolean

  /** How many milliseconds its interruption may take. */
  readonly bound: number
  /** Whether a restart of it alone waits for nothing. */
  readonly isDirect: boolean
  /** Whether a child that is not to run any more is forgotten. */
  readonly forgets: boolean
  /** Whether many children have it, which have no id but that of their routine. */
  readonly isTemplate: boolean

  constructor(body: Child.Body["_tag"], spec: Child.ChildSpec, isTemplate = false) {
    const { attributes, awaitReady, backoff, id, idleTimeout, mailbox, resetAfter, restart, shutdown, startTimeout } =
      spec
    this.spec = spec
    // A layer has no successful end.
    this.restart = body === "Layer" && restart === "transient" ? "permanent" : restart
    this.isTemplate = isTemplate
    this.forgets = isTemplate || restart === "temporary"
    this.routine = { name: id, attributes, idleTimeout, resources: mailbox.length === 0 ? undefined : mailbox }
    this.startTimeout = Duration.toMillis(startTimeout)
    this.resetAfter = Duration.toMillis(resetAfter)
    this.readyNow = body === "Effect" && !awaitReady
    this.bound = shutdown === "infinity" ? Infinity : shutdown === "brutal_kill" ? 0 : Duration.toMillis(shutdown)
    this.isDirect = this.readyNow && backoff === undefined
  }

  /** The same for a child that depends on these. */
  dependingOn(dependsOn: ReadonlyArray<string>): Policy {
    return Object.assign(Object.create(Policy.prototype), this, { spec: { ...this.spec, dependsOn } })
  }

  get window(): Window | undefined {
    const { budget } = this.spec
    return budget === undefined ? undefined : new Window(budget.intensity, Duration.toMillis(budget.period))
  }
}

export type Step = (now: number, input: Cause.Cause<unknown>) => Pull.Pull<[unknown, Duration.Duration], never, unknown>

/** How a start by hand ended, for whoever asked for it. */
export type Answer = "ready" | "ignored" | "stopped" | "closed" | Exit.Exit<unknown, unknown>

/** A start under way: the run is user code, and so begins after the decision. */
export class Start implements Job {
  readonly slot: Slot
  readonly round: Round
  /** The backoff before a restart. */
  readonly delayMillis: number | undefined
  deadline: Deadline | undefined = undefined
  /** Why it failed, when it took too long. */
  late: Exit.Exit<unknown, unknown> | undefined = undefined

  constructor(slot: Slot, round: Round, delayMillis: number | undefined) {
    this.slot = slot
    this.round = round
    this.delayMillis = delayMillis
  }

  run(): void {
    this.slot.node.starts.run(this)
  }
}

// One for all: most children are started at once.
const neverRan = Exit.interrupt()

export class Slot implements Job {
  readonly node: SupervisorNode
  /** What it runs; undefined once a child that never runs again has been started. */
  body: Child.Body | undefined
  policy: Policy
  record: ChildRecord
  /** What it is started with beyond what its siblings give. */
  context: Context.Context<never>
  /** What its layer gives, while it runs. */
  services: Context.Context<never> | undefined = undefined
  private waiters: Waiters<void> | undefined = undefined
  /** The supervisor that it runs, while it does. */
  nested: SupervisorNode | undefined = undefined
  /** Whether it is to run: not finished, not stopped by hand, not quarantined. */
  wanted = true
  quarantined = false
  /** Whether it is forgotten as soon as nothing of it runs. */
  doomed = false
  isForgotten = false
  /** The round that is busy with it, and its position in it. */
  round: Round | undefined = undefined
  position = 0
  start: Start | undefined = undefined
  /** Who asked for its start by hand. */
  command: ((answer: Answer) => void) | undefined = undefined
  /** Its stop for good; those who wait for it need not any more once it is run. */
  ending: End | undefined = undefined
  /** Whether it runs again as soon as its last run has ended, without a round. */
  isDirect = false
  /** Starts it once its last run has ended. */
  blocked: (() => void) | undefined = undefined
  /** A restart budget of its own. */
  window: Window | undefined
  step: Step | undefined = undefined
  /** How its last run ended: its own end, when none follows. */
  lastExit: Exit.Exit<unknown, unknown> = neverRan
  ranMillis = 0
  reason: RestartReason = "sibling"

  constructor(body: Child.Body, policy: Policy, context: Context.Context<never>, node: SupervisorNode) {
    this.node = node
    this.body = body
    this.policy = policy
    this.context = context
    this.window = policy.window
    this.record = new ChildRecord(this, node)
  }

  /** The next run, without a round. */
  run(): void {
    if (this.wanted && !this.node.isStopping) this.node.starts.now(this, 0)
  }

  /** That of its routine, when it has none of its own. */
  get id(): string {
    return this.policy.isTemplate ? this.record.id : this.policy.spec.id
  }

  get dependsOn(): ReadonlyArray<string> {
    return this.policy.spec.dependsOn
  }

  /** What the supervisor that is its body exports, while it runs. */
  get exports(): Exports | undefined {
    return this.nested === undefined ? undefined : exportsOf(this.nested)
  }

  /** Who waits for what its layer gives. */
  get offered(): Waiters<void> {
    return this.waiters ??= new Waiters()
  }

  /** Tells those who wait for its services: they are there, or will not come. */
  tell(): void {
    this.waiters?.wake(this.record.kernel.writer, undefined)
  }

  /** What its next restart is charged to. */
  get budget(): Budget {
    const window = this.window ?? this.node.restarts.window
    return { used: window.used(this.node.writer.now()), max: window.intensity, periodMillis: window.period }
  }

  /** Why nobody need wait for its services; undefined when they are there or will come again. */
  get unavailable(): string | undefined {
    if (this.wanted && !this.record.isFinal) return undefined
    return this.quarantined ? "quarantined" : this.record.status === "stopping" ? "stopping" : "stopped"
  }

  /** Whether something of it runs. */
  get isLive(): boolean {
    return this.record.scope !== undefined
  }

  get isRunning(): boolean {
    const { record } = this
    return this.wanted && record.isReady && record.scope !== undefined && !record.stopping && record.fiber !== undefined
  }

  get state(): ChildInfo["state"] {
    const { record } = this
    if (this.quarantined) return "quarantined"
    if (!this.wanted || record.isFinal) return this.isLive && !record.isFinal ? "stopping" : "stopped"
    if (this.isRunning) return "running"
    return this.command !== undefined || record.incarnation === 0 ||
        (record.incarnation === 1 && this.start !== undefined)
      ? "starting"
      : "restarting"
  }

  get info(): ChildInfo {
    const { policy, record, state } = this
    return {
      id: this.id,
      type: policy.spec.type,
      state,
      incarnation: record.incarnation,
      routine: record
    }
  }

  /** Answers whoever asked for its start by hand. */
  answer(answer: Answer): void {
    const { command } = this
    this.command = undefined
    command?.(answer)
  }
}
