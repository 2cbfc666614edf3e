/** A saga in the tree: its steps, what it has to undo, and what still runs in it. */
import { type Health, reasonOf, type State } from "@effect-orchestra/core/Event"
import { type Kernel, Node, shown, type StopLimits } from "@effect-orchestra/core/Kernel"
import { errorTypeOf } from "@effect-orchestra/core/Observer"
import { kernelOf } from "@effect-orchestra/core/Orchestrator"
import { Current } from "@effect-orchestra/core/RoutineRecord"
import type { SagaSnapshot, SagaStep } from "@effect-orchestra/core/Snapshot"
import { Waiters } from "@effect-orchestra/core/Writer"
import type * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import type * as Schedule from "effect/Schedule"
import type * as Tracer from "effect/Tracer"
import type { AttemptOutcome, Direction } from "../SagaEvent.ts"
import { abandon } from "./Bound.ts"

/** How the undos of a saga are run: in which order, whether the first that gives up ends them, and how they are tried. */
export interface Settings {
  readonly name: string
  readonly order: "reverse" | "parallel" | "grouped"
  readonly halts: boolean
  readonly compensationMillis: number
  readonly compensationRetry: Schedule.Schedule<unknown, unknown>
}

/** A step as it goes: what the snapshot shows of it. */
export class StepRecord {
  readonly name: string
  state: SagaStep["state"] = "running"
  attempt = 0

  constructor(name: string) {
    this.name = name
  }
}

/** What one step left to undo. Its services are those that the step had. */
export interface Undo {
  readonly record: StepRecord
  readonly run: (cause: Cause.Cause<unknown>) => Effect.Effect<unknown, unknown>
  readonly context: Context.Context<never>
  readonly span: Tracer.AnySpan
  readonly group: string | undefined
  readonly millis: number
  readonly retry: Schedule.Schedule<unknown, unknown>
}

/** What a nested saga left to undo, which its parent undoes at this place. */
export interface Nested {
  readonly settings: Settings
  readonly entries: ReadonlyArray<Entry>
}

export type Entry = Undo | Nested

/** What runs in a saga: a step, or a nested saga. */
export interface Running {
  readonly name: string
  readonly fiber: Fiber.Fiber<unknown, unknown>
}

export class SagaNode extends Node {
  readonly kind = "saga"
  readonly incarnation = 1
  readonly kernel: Kernel
  readonly settings: Settings
  readonly parent: SagaNode | undefined
  readonly fiber: Fiber.Fiber<unknown, unknown>
  readonly began: number
  status: State = "running"
  private since: number
  private direction: Direction = "forward"
  /** The point of no return that it has passed. */
  pivot: string | undefined = undefined
  private readonly names = new Set<string>()
  private readonly steps: Array<{ readonly name: string; readonly record: StepRecord }> = []
  /** What it has to undo, in the order in which it was registered. */
  readonly entries: Array<Entry> = []
  readonly running = new Set<Running>()
  private readonly leaving = new Waiters<void>()
  private readonly ending = new Waiters<void>()
  /** Whether its body has ended: it takes no step any more. Closed, it takes nothing that is to be undone either. */
  phase: "open" | "closing" | "closed" = "open"
  isListed = true
  private isStuck = false

  constructor(fiber: Fiber.Fiber<unknown, unknown>, settings: Settings, around: SagaNode | undefined) {
    // A saga that has ended is nobody's parent: its context may outlive it.
    const parent = around?.phase === "open" ? around : undefined
    const kernel = kernelOf(fiber.context, "saga", parent?.kernel)
    const current = fiber.getRef(Current)
    const owner = parent?.kernel === kernel ? parent : current?.kernel === kernel && !current.isFinal ? current : kernel
    super(kernel.nextId(), settings.name, owner)
    this.kernel = kernel
    this.settings = settings
    this.parent = parent
    this.fiber = fiber
    this.began = this.since = kernel.writer.now()
    kernel.add(this)
    parent?.running.add(this)
    if (kernel.bus.observed) kernel.bus.emit("SagaStarted", this, { severity: "debug" })
  }

  /** A step begins. */
  begin(name: string): StepRecord {
    const of = `of saga "${this.name}"`
    if (this.phase !== "open") throw new Error(`no step ${of} begins after its body has ended, got: ${name}`)
    if (this.names.has(name)) throw new Error(`the names of the steps ${of} are unique, got: ${name}`)
    this.names.add(name)
    const record = new StepRecord(name)
    this.steps.push({ name, record })
    return record
  }

  /** Something that ran in it does so no more. */
  leave(running: Running): void {
    this.running.delete(running)
    this.leaving.wake(this.kernel.writer, undefined)
  }

  /** Waits until this runs in it no more. */
  left(running: Running): Effect.Effect<unknown> {
    return until(this.kernel, this.leaving, () => !this.running.has(running), Infinity)
  }

  /** Waits until nothing runs in it any more, at most so long. */
  idle(millis: number): Effect.Effect<boolean> {
    return until(this.kernel, this.leaving, () => this.running.size === 0, millis)
  }

  pass(pivot: string): void {
    this.pivot ??= pivot
    this.parent?.pass(`${this.name}/${pivot}`)
  }

  /** Takes over what a nested saga that is complete would have to undo; false when it is too late for that. */
  adopt({ entries, settings, steps }: SagaNode): boolean {
    if (this.phase === "closed") return false
    if (entries.length > 0) this.entries.push({ settings, entries })
    for (const { name, record } of steps) this.steps.push({ name: `${settings.name}/${name}`, record })
    return true
  }

  /** It goes back. */
  turn(): void {
    this.direction = "compensate"
    this.move("stopping")
  }

  /** An undo gave up. */
  gaveUp(): void {
    this.isStuck = true
  }

  private move(to: State): void {
    this.status = to
    this.since = this.kernel.writer.now()
  }

  /** It has ended. */
  end(state: State): void {
    this.move(state)
    this.isListed = false
    this.kernel.remove(this)
    this.parent?.leave(this)
    this.ending.wake(this.kernel.writer, undefined)
  }

  stop(limits: StopLimits): Effect.Effect<void> | undefined {
    if (!this.isListed) return undefined
    const { stopping, writer } = this.kernel
    stopping?.enter("interrupt")
    writer.wake({ run: () => this.fiber.interruptUnsafe(undefined, limits.by) })
    const asked = writer.now()
    const ended = (millis: number) => until(this.kernel, this.ending, () => !this.isListed, millis)
    return Effect.map(ended(Math.max(0, Math.min(limits.interrupt, limits.deadline - asked))), (inTime) => {
      const name = this.direction === "forward" ? "body" : "compensation"
      if (!inTime) abandon(this, name, ended(Infinity), writer.now() - asked)
    })
  }

  snapshot(): SagaSnapshot {
    const health: Health = this.isStuck ? "stuck" : this.direction === "forward" ? "ok" : "degraded"
    return {
      ...shown(this, this.kernel, this.since),
      health,
      direction: this.direction,
      pivot: this.pivot ?? null,
      steps: this.steps.map(({ name, record: { attempt, state } }) => ({ name, state, attempt }))
    }
  }
}

/** Waits until something is true, at most so long, and returns whether it is; `waiters` are woken when it may be. */
const until = (
  { writer }: Kernel,
  waiters: Waiters<void>,
  is: () => boolean,
  millis: number
): Effect.Effect<boolean> =>
  Effect.callback((resume) => {
    if (is()) return resume(Effect.succeed(true))
    const end = () => resume(Effect.sync(is))
    const look = () => is() ? end() : waiters.add(look)
    const deadline = writer.after(millis, { run: () => writer.wake({ run: end }) })
    waiters.add(look)
    return Effect.sync(() => {
      writer.cancel(deadline)
      waiters.delete(look)
    })
  })

/** The attempts of a step in one direction, as they are told. */
export class Attempts {
  private readonly node: SagaNode
  private readonly step: string
  private readonly record: StepRecord
  private readonly direction: Direction
  private readonly began: number
  private failures = 0
  private started: number | undefined = undefined

  constructor(node: SagaNode, step: string, record: StepRecord, direction: Direction) {
    this.node = node
    this.step = step
    this.record = record
    this.direction = direction
    this.began = node.kernel.writer.now()
    record.attempt = 0
  }

  start(): void {
    const { direction, node: { kernel }, record, step } = this
    record.attempt++
    this.started = kernel.writer.now()
    if (!kernel.bus.observed) return
    kernel.bus.emit("SagaStepStarted", this.node, { severity: "debug", step, direction, attempt: record.attempt })
  }

  /** The attempt that was started has ended: told once, whatever becomes of it later. */
  end(exit: Exit.Exit<unknown, unknown>, outcome: AttemptOutcome = outcomeOf(exit)): void {
    const { direction, node: { kernel }, record, started, step } = this
    if (started === undefined) return
    this.started = undefined
    if (exit._tag === "Failure") this.failures++
    if (!kernel.bus.observed) return
    kernel.bus.emit("SagaStepEnded", this.node, {
      severity: exit._tag === "Success" ? "debug" : "warning",
      step,
      direction,
      attempt: record.attempt,
      durationMillis: kernel.writer.now() - started,
      outcome,
      errorType: errorTypeOf(reasonOf(exit), exit) ?? null
    })
  }

  /** There is no further attempt. */
  conclude(exit: Exit.Exit<unknown, unknown>, stuck = false): void {
    const { began, direction, failures, node, step } = this
    const { observers, writer } = node.kernel
    observers?.stepped?.(node, { step, direction, exit, millis: writer.now() - began, failures, stuck })
  }
}

const outcomeOf = (exit: Exit.Exit<unknown, unknown>): AttemptOutcome => {
  const reason = reasonOf(exit)
  return reason === "success" || reason === "failure" || reason === "defect" ? reason : "interrupted"
}
