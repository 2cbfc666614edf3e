/**
 * The checks and applies of a plan as tasks of its group, and their end when the run is cut.
 *
 * @internal
 */
import * as Group from "@effect-orchestra/core/Group"
import { millisOf } from "@effect-orchestra/core/Kernel"
import * as Routine from "@effect-orchestra/core/Routine"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import type { RunOptions } from "../Plan.ts"
import { type Mode, nameOf, type Row } from "../PlanReport.ts"

export type Phase = "check" | "apply"

export interface Failure {
  readonly error: string
  readonly errorType: string
}

/** How a check or an apply ended. One that was cut may not have begun. */
export type Ended<A> =
  & { readonly millis: number }
  & (
    | { readonly _tag: "Success"; readonly value: A }
    | { readonly _tag: "Failure" } & Failure
    | { readonly _tag: "Cut"; readonly begun: boolean; readonly abandoned: boolean }
  )

export class PlanTasks {
  /** What cut the run. */
  cutBy: string | undefined = undefined
  private readonly group: Group.Group
  private readonly running = new Map<Routine.Routine<unknown, unknown>, Phase>()
  private readonly grace: number
  /** How long an interruption may take; what is not to be cut has the default of every task. */
  private readonly shutdown: number | undefined
  private readonly checkTimeout: number
  private readonly latch = Deferred.makeUnsafe<void>()

  constructor(group: Group.Group, { checkTimeout = "1 minute", cut, cutGrace = "4 seconds" }: RunOptions<Mode>) {
    this.group = group
    this.grace = millisOf("the cutGrace of a plan", cutGrace)
    this.shutdown = cut === undefined ? undefined : this.grace / 8
    this.checkTimeout = millisOf("the checkTimeout of a plan", checkTimeout)
  }

  /** Completes when the run is cut. */
  get wasCut(): Effect.Effect<void> {
    return Deferred.await(this.latch)
  }

  /** Runs one as a task, unless the run is `stopped` when it would begin, and waits for its end. */
  run<A>(
    row: Pick<Row, "step" | "key">,
    phase: Phase,
    effect: Effect.Effect<A, unknown>,
    stopped: () => boolean
  ): Effect.Effect<Ended<A>, never, Group.Task<A, unknown>> {
    let begun = false
    const bounded = phase === "check" ? Effect.timeout(effect, this.checkTimeout) : effect
    // It is listed before it looks whether the run was stopped: a cut finds either it, or nothing that has begun.
    const task = Effect.flatMap(Routine.current, (self) => {
      if (Option.isSome(self)) this.running.set(self.value, phase)
      if (stopped()) return Effect.interrupt
      begun = true
      return bounded
    })
    const attributes = row.key === null ? {} : { "plan.key": row.key }
    return Effect.gen({ self: this }, function*() {
      const start = yield* Clock.monotonicTimeNanos
      const routine = yield* Group.fork(this.group, Effect.withSpan(task, `${phase} ${row.step}`, { attributes }), {
        name: nameOf(row),
        attributes: { phase },
        shutdown: this.shutdown
      })
      const exit = yield* Routine.await(routine)
      this.running.delete(routine)
      const millis = Number((yield* Clock.monotonicTimeNanos) - start) / 1e6
      if (Exit.isSuccess(exit)) return { _tag: "Success", value: exit.value, millis }
      const cut = (this.cutBy !== undefined || !begun) && Cause.hasInterruptsOnly(exit.cause)
      if (!cut) return { _tag: "Failure", ...failureOf(exit), millis }
      return { _tag: "Cut", begun, abandoned: (yield* Routine.snapshot(routine)).state === "abandoned", millis }
    })
  }

  /** Ends what runs: checks at once, what is being applied after its grace. Waits until all is over. */
  cut(by: string): Effect.Effect<void> {
    this.cutBy = by
    Deferred.doneUnsafe(this.latch, Exit.void)
    const end = (phase: Phase) =>
      Effect.suspend(() => {
        const ending = Array.from(this.running).filter(([, runs]) => runs === phase)
        const stops = ending.map(([routine]) => Routine.stop(routine, 0, by))
        return Effect.all(stops, { concurrency: "unbounded", discard: true })
      })
    const all = [end("check"), Effect.delay(end("apply"), this.grace)]
    return Effect.all(all, { concurrency: "unbounded", discard: true })
  }
}

const failureOf = (exit: Exit.Failure<unknown, unknown>): Failure => {
  const { cause } = exit
  if (Cause.hasInterruptsOnly(cause)) {
    const by = Option.getOrUndefined(Routine.cancellation(exit))
    return { error: by === undefined ? "interrupted" : `interrupted: ${by.reason}`, errorType: "Interrupted" }
  }
  const thrown = Cause.squash(cause)
  const [pretty] = Cause.prettyErrors(cause)
  const errorType = Predicate.hasProperty(thrown, "_tag") && typeof thrown._tag === "string"
    ? thrown._tag
    : thrown instanceof Error
    ? thrown.name
    : typeof thrown
  return { error: pretty?.message || errorType, errorType }
}
