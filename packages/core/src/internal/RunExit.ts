/** How a run ended: what its exit adds up to, and what is told of it. */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import type { ExitReason, Health, RunExit, State } from "../Event.ts"
import { cancelledBy, type Kernel } from "../Kernel.ts"
import { errorOf, errorTypeOf } from "./ErrorOf.ts"

/** A run, of which it is told how it ended. */
interface Run {
  readonly kernel: Kernel
  readonly incarnation: number
  readonly startedAt: number | undefined
}

const foreign = "ended by an interruption that was not its own"

export const runExit = (
  run: Run,
  reason: ExitReason,
  exit: Exit.Exit<unknown, unknown>,
  at: number,
  by?: Context.Context<never>,
  traceId?: string
): RunExit => {
  const error = Exit.isFailure(exit) ? errorOf(exit.cause) : undefined
  return {
    incarnation: run.incarnation,
    at: run.kernel.writer.shown(at),
    reason,
    ranMillis: run.startedAt === undefined ? 0 : Math.round((at - run.startedAt) * 1000) / 1000,
    errorType: errorTypeOf(reason, exit) ?? null,
    message: error !== undefined ? errorMessage(error.value) : reason === "failure" ? foreign : null,
    cancelledBy: Exit.isFailure(exit) ? cancelledBy(by ?? annotationsOf(exit.cause)) : null,
    ...(traceId === undefined ? undefined : { traceId })
  }
}

/** Most failures have none, and are not worth a map. */
const annotationsOf = (cause: Cause.Cause<unknown>): Context.Context<never> | undefined =>
  cause.reasons.some(({ annotations }) => annotations.size > 0) ? Cause.annotations(cause) : undefined

/** A cause that a run ends with in place of its own interruption. */
export class Imposed {
  private readonly cause: Cause.Cause<unknown>
  readonly reason: ExitReason | undefined

  constructor(cause: Cause.Cause<unknown>, reason: ExitReason | undefined) {
    this.cause = cause
    this.reason = reason
  }

  on(exit: Exit.Exit<unknown, unknown>): Exit.Exit<unknown, unknown> {
    // A run that was through before it could be interrupted has done what it should.
    if (Exit.isSuccess(exit) && this.reason !== undefined) return exit
    return Exit.failCause(
      Exit.isSuccess(exit) || this.reason === undefined ? this.cause : Cause.combine(this.cause, exit.cause)
    )
  }
}

export const finalStates: { readonly [R in ExitReason]: State } = {
  success: "succeeded",
  failure: "failed",
  defect: "defect",
  interrupted: "interrupted",
  idle_timeout: "timed_out",
  abandoned: "abandoned"
}

export const healthOf = (status: State, isLate: boolean): Health => {
  switch (status) {
    case "abandoned":
      return "stuck"
    case "failed":
    case "defect":
    case "timed_out":
      return "failed"
    case "backoff":
      return "degraded"
    default:
      return isLate ? "degraded" : "ok"
  }
}

export const failed = (exit: Exit.Exit<unknown, unknown>): exit is Exit.Failure<unknown, unknown> =>
  Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)

/** A run's exit with what its finalizers added: its own reasons lead, and a finalizer can turn success into failure. */
export const withFinalizers = (
  exit: Exit.Exit<unknown, unknown>,
  finalizers: Exit.Exit<unknown, unknown>
): Exit.Exit<unknown, unknown> =>
  Exit.isSuccess(finalizers)
    ? exit
    : Exit.isSuccess(exit)
    ? finalizers
    : Exit.failCause(Cause.combine(exit.cause, finalizers.cause))

const maxMessage = 4096

export const errorMessage = (error: unknown): string =>
  (error instanceof Error
    ? error.message
    : Predicate.hasProperty(error, "message")
    ? String(error.message)
    : String(error))
    .slice(0, maxMessage)
