/** How a run is made to end: it is interrupted, waited for within a bound, and after that missed. */
import type * as Context from "effect/Context"
import type * as Fiber from "effect/Fiber"
import type * as Scope from "effect/Scope"
import type { StopLimits } from "../Kernel.ts"
import type { RoutineRecord, Stopper } from "../RoutineRecord.ts"
import type { Deadline, Job, Writer } from "../Writer.ts"

/** Interrupts by way of the writer: a fiber that is interrupted stops what it has forked, and that what it has forked. */
export class Interruption implements Job {
  private readonly fiber: Fiber.Fiber<unknown, unknown>
  private readonly by: Context.Context<never> | undefined

  constructor(fiber: Fiber.Fiber<unknown, unknown>, by: Context.Context<never> | undefined) {
    this.fiber = fiber
    this.by = by
  }

  run(): void {
    this.fiber.interruptUnsafe(undefined, this.by)
  }
}

/** The wait for the end of a run that was interrupted. */
export class Ending implements Job {
  private readonly record: RoutineRecord
  private readonly limits: StopLimits
  private readonly stopper: Stopper
  private readonly asked: number
  private readonly bound: number
  /** The run. */
  private readonly scope: Scope.Scope | undefined
  private isDue = false
  private isOver = false
  private deadline: Deadline | undefined = undefined
  private unwatch: (() => void) | undefined = undefined

  constructor(record: RoutineRecord, limits: StopLimits, stopper: Stopper, asked: number, bound: number) {
    this.record = record
    this.limits = limits
    this.stopper = stopper
    this.asked = asked
    this.bound = bound
    this.scope = record.scope
  }

  private get writer(): Writer {
    return this.record.kernel.writer
  }

  /** Behind the interruption, where what ends on the spot has ended and needs no deadline; then when its time is over. */
  run(): void {
    const { bound, record, scope, writer } = this
    const isRunning = record.scope === scope && !record.isFinal
    if (this.isDue && isRunning) this.stopper.missed(writer.now() - this.asked)
    if (this.isDue || !isRunning) return this.end()
    this.isDue = true
    if (bound === 0) return writer.nextTurn(this)
    this.deadline = writer.after(bound, this)
    this.unwatch = record.onRunEnd(() => this.end())
  }

  private end(): void {
    if (this.isOver) return
    this.isOver = true
    this.unwatch?.()
    this.writer.cancel(this.deadline)
    this.record.stopBelow(this.limits, this.stopper)
  }
}
