/**
 * Whether a child that runs still works: it is asked now and then, and one that has no answer is as good as dead.
 *
 * @internal
 */
import { because, millisOf, path, positive } from "@effect-orchestra/core/Kernel"
import { Current, type RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import type { Deadline, Job } from "@effect-orchestra/core/Writer"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { ProbeFailed } from "../SupervisorError.ts"

/**
 * How a child is probed, as options of the child.
 *
 * @internal
 */
export interface ProbeOptions<out R = never> {
  /**
   * Asks a run that is ready whether it still works, with the services of its layer: any success is a yes. Each probe
   * has a scope of its own and belongs to no routine. Default: no probe.
   */
  readonly probe?: Effect.Effect<unknown, unknown, R> | undefined
  /** From one probe to the next, and from readiness to the first. Default 10 seconds. */
  readonly every?: Duration.Input | undefined
  /** How long a probe may take before it has failed, and is interrupted: at most `every`. Default 1 second. */
  readonly timeout?: Duration.Input | undefined
  /** So many probes that fail in a row end the run, with the defect `ProbeFailed`. Default 3. */
  readonly failures?: number | undefined
}

/**
 * A probe with the defaults filled in, times in milliseconds.
 *
 * @internal
 */
export interface Probe {
  readonly effect: Effect.Effect<unknown, unknown>
  readonly every: number
  readonly timeout: number
  readonly failures: number
}

/**
 * The probe that these options ask for, if any. A wrong constant is a defect; `what` names the child in it.
 *
 * @internal
 */
export const probeOf = (what: string, options: ProbeOptions<unknown>): Probe | undefined => {
  const { every, failures, probe, timeout } = options
  if (probe === undefined) {
    for (const [name, given] of Object.entries({ every, failures, timeout })) {
      if (given !== undefined) throw new Error(`${what}: ${name} belongs to a probe, got: no probe`)
    }
    return undefined
  }
  const time = (name: string, given: Duration.Input): number => {
    const millis = millisOf(`${what}: ${name}`, given)
    if (millis === 0) throw new Error(`${what}: ${name} is more than 0, got: ${String(given)}`)
    return millis
  }
  const period = time("every", every ?? "10 seconds")
  const bound = timeout === undefined ? Math.min(1000, period) : time("timeout", timeout)
  if (bound > period) throw new Error(`${what}: timeout is at most every (${period} ms), got: ${String(timeout)}`)
  return {
    // What it requires stands in the context that it is watched with.
    effect: Effect.scoped(probe as Effect.Effect<unknown, unknown>),
    every: period,
    timeout: bound,
    failures: positive(`${what}: failures`, failures ?? 3)
  }
}

/**
 * Probes the present run, which has just become ready, with the services in `context`, until it ends or is told to.
 *
 * @internal
 */
export const watch = (record: RoutineRecord, probe: Probe, context: Context.Context<never>): void => {
  const watcher = new Watcher(record, probe, Context.add(context, Current, undefined))
  watcher.arm(record.kernel.writer.now())
}

/** Who asks: one probe at a time, and not again while one that was interrupted goes on. */
class Watcher implements Job {
  private readonly record: RoutineRecord
  private readonly scope: RoutineRecord["scope"]
  private readonly probe: Probe
  private readonly context: Context.Context<never>
  private failed = 0
  private askedAt = 0
  /** Whether an answer is awaited. */
  private asks = false
  /** The probe that has not ended. */
  private fiber: Fiber.Fiber<unknown, unknown> | undefined = undefined
  /** When the answer, or the next question, is due. */
  private deadline: Deadline | undefined = undefined

  constructor(record: RoutineRecord, probe: Probe, context: Context.Context<never>) {
    this.record = record
    this.scope = record.scope
    this.probe = probe
    this.context = context
    record.onRunEnd(() => this.end())
  }

  arm(asked: number): void {
    const { writer } = this.record.kernel
    const millis = asked + this.probe.every - writer.now()
    if (millis > 0) this.deadline = writer.after(millis, this)
    // Behind the interruption of the one before.
    else writer.wake(this)
  }

  /** The next question is due. */
  run(): void {
    const { record } = this
    const { writer } = record.kernel
    // Who is closing, or has been told to stop, is asked no more.
    if (record.scope !== this.scope || record.stopping || record.fiber === undefined) return
    this.askedAt = writer.now()
    this.asks = true
    if (this.fiber !== undefined) return this.answered(this.tooLate)
    this.deadline = writer.after(this.probe.timeout, { run: () => this.timedOut() })
    writer.wake({ run: () => this.ask() })
  }

  private ask(): void {
    if (!this.asks || this.fiber !== undefined) return
    const { writer } = this.record.kernel
    const fiber = this.fiber = writer.start(this.context, this.probe.effect)
    fiber.addObserver((exit) =>
      writer.submit({
        run: () => {
          this.fiber = undefined
          this.answered(exit)
        }
      })
    )
  }

  private timedOut(): void {
    this.interrupt("probe_timeout")
    this.answered(this.tooLate)
  }

  private get tooLate(): Exit.Exit<never, Cause.TimeoutError> {
    return Exit.fail(new Cause.TimeoutError(`no answer within ${this.probe.timeout} ms`))
  }

  private answered(exit: Exit.Exit<unknown, unknown>): void {
    if (!this.asks) return
    const { probe, record } = this
    this.asks = false
    record.kernel.writer.cancel(this.deadline)
    this.failed = Exit.isSuccess(exit) ? 0 : this.failed + 1
    if (Exit.isSuccess(exit) || this.failed < probe.failures) return this.arm(this.askedAt)
    const error = new ProbeFailed({ path: path(record), failures: this.failed, cause: exit.cause })
    record.impose(Cause.die(error), "defect", "probe_failed")
  }

  private interrupt(reason: string): void {
    const { fiber, record } = this
    if (fiber === undefined) return
    record.kernel.writer.wake({ run: () => fiber.interruptUnsafe(undefined, because(reason, record)) })
  }

  /** The run has ended. A probe that does not is not waited for. */
  private end(): void {
    this.asks = false
    this.record.kernel.writer.cancel(this.deadline)
    this.interrupt("run_ended")
  }
}
