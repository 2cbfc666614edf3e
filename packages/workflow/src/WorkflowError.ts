/**
 * Every typed error of the package. Fields hold the offending values.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"

/**
 * An attempt of a step took longer than the step allows. What it did by then is not known.
 *
 * @category errors
 * @since 0.1.0
 */
export class StepTimedOut extends Schema.TaggedError<StepTimedOut>()("StepTimedOut", {
  saga: Schema.String,
  step: Schema.String,
  timeoutMillis: Schema.Finite
}) {
  override get message(): string {
    return `step "${this.step}" of saga "${this.saga}" took longer than ${
      Duration.format(Duration.millis(this.timeoutMillis))
    }`
  }
}

/**
 * There is no profile of this name.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnknownProfile extends Schema.TaggedError<UnknownProfile>()("UnknownProfile", {
  profile: Schema.String,
  known: Schema.Array(Schema.String)
}) {
  override readonly [Runtime.errorExitCode] = 2
  override get message(): string {
    return `there is no profile "${this.profile}"; there are ${this.known.join(", ")}`
  }
}

/**
 * A profile names collectors, or categories, that are not there.
 *
 * @category errors
 * @since 0.1.0
 */
export class UnknownCollector extends Schema.TaggedError<UnknownCollector>()("UnknownCollector", {
  profile: Schema.String,
  of: Schema.Literals(["collector", "category"]),
  unknown: Schema.Array(Schema.String),
  known: Schema.Array(Schema.String)
}) {
  override readonly [Runtime.errorExitCode] = 2
  override get message(): string {
    const unknown = this.unknown.map((name) => `"${name}"`).join(", ")
    return `profile "${this.profile}" names no ${this.of} that there is with ${unknown}; there are ${
      this.known.join(", ")
    }`
  }
}

/**
 * An undo did not end within its time, all its tries counted. What it did by then is not known.
 *
 * @category errors
 * @since 0.1.0
 */
export class CompensationTimedOut extends Schema.TaggedError<CompensationTimedOut>()("CompensationTimedOut", {
  saga: Schema.String,
  step: Schema.String,
  timeoutMillis: Schema.Finite
}) {
  override get message(): string {
    return `the undo of step "${this.step}" of saga "${this.saga}" took longer than ${
      Duration.format(Duration.millis(this.timeoutMillis))
    }`
  }
}

const anyCause = Schema.Cause(Schema.Defect(), Schema.Defect())

/**
 * A saga failed and everything it had done was undone. `cause` is the original failure (which may be a defect, or an
 * interruption that was not the caller's), `undone` the steps in the order they were undone.
 *
 * @category errors
 * @since 0.1.0
 */
export class SagaAborted<out E = unknown> extends Schema.TaggedError<SagaAborted>()("SagaAborted", {
  saga: Schema.String,
  cause: anyCause,
  undone: Schema.Array(Schema.String)
}) {
  declare readonly cause: Cause.Cause<E>
  override get message(): string {
    return `saga "${this.saga}" failed and was undone: ${messageOf(this.cause)}`
  }
}

/**
 * A saga failed, and what the steps in `stuck` did could not be undone, each for its own cause. `undone` are those that
 * were, `notRun` those that were not tried because the saga halts at the first. `cause` is the original failure.
 *
 * @category errors
 * @since 0.1.0
 */
export class SagaStuck<out E = unknown> extends Schema.TaggedError<SagaStuck>()("SagaStuck", {
  saga: Schema.String,
  cause: anyCause,
  undone: Schema.Array(Schema.String),
  stuck: Schema.Array(Schema.Struct({ step: Schema.String, cause: anyCause })),
  notRun: Schema.Array(Schema.String)
}) {
  declare readonly cause: Cause.Cause<E>
  override get message(): string {
    const steps = this.stuck.map(({ step }) => step).join(", ")
    return `saga "${this.saga}" failed and is stuck, what ${steps} did could not be undone: ${messageOf(this.cause)}`
  }
}

/**
 * A saga failed after its point of no return, the step `pivot`: nothing was undone, and the caller has to go forward.
 *
 * @category errors
 * @since 0.1.0
 */
export class SagaCommitted<out E = unknown> extends Schema.TaggedError<SagaCommitted>()("SagaCommitted", {
  saga: Schema.String,
  cause: anyCause,
  pivot: Schema.String
}) {
  declare readonly cause: Cause.Cause<E>
  override get message(): string {
    return `saga "${this.saga}" failed after "${this.pivot}", from where there is no way back: ${messageOf(this.cause)}`
  }
}

const messageOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return error instanceof Error ? error.message : String(error)
}

/**
 * A plan that cannot be run: steps with one name, a cycle, or names that no step has. Nothing was checked or applied.
 *
 * @category errors
 * @since 0.1.0
 */
export class PlanError extends Schema.TaggedError<PlanError>()("PlanError", {
  plan: Schema.String,
  problems: Schema.Array(Schema.String)
}) {
  override readonly [Runtime.errorExitCode] = 2
  override get message(): string {
    return `plan "${this.plan}" cannot be run: ${this.problems.join("; ")}`
  }
}

/**
 * A plan that would be run, but not like this. `destructive`: something would be destroyed, and nobody was asked; the
 * details name it. `stale`: the world is not that of the saved plan any more; the details are the difference. Nothing
 * was applied.
 *
 * @category errors
 * @since 0.1.0
 */
export class PlanRefused extends Schema.TaggedError<PlanRefused>()("PlanRefused", {
  plan: Schema.String,
  reason: Schema.Literals(["destructive", "stale"]),
  details: Schema.Array(Schema.String)
}) {
  override readonly [Runtime.errorExitCode] = 2
  override get message(): string {
    const { details, plan, reason } = this
    if (reason === "stale") {
      return `plan "${plan}" refused, the world has changed since it was saved: ${details.join("; ")}`
    }
    const more = details.length > 5 ? `; and ${details.length - 5} more` : ""
    const some = details.slice(0, 5).join("; ")
    return `plan "${plan}" refused, it is destructive and nobody can be asked; it needs force (--force): ${some}${more}`
  }
}

/**
 * A saved plan that cannot be written, or that cannot be read: it is not there, not a saved plan, or not one of this plan
 * and these steps. Nothing was applied.
 *
 * @category errors
 * @since 0.1.0
 */
export class PlanFileError extends Schema.TaggedError<PlanFileError>()("PlanFileError", {
  file: Schema.String,
  operation: Schema.Literals(["read", "write"]),
  reason: Schema.String
}) {
  override readonly [Runtime.errorExitCode] = this.operation === "read" ? 2 : 1
  override get message(): string {
    return `cannot ${this.operation} saved plan ${this.file}: ${this.reason}`
  }
}

/**
 * Flags of a plan's command that contradict each other. Nothing was checked or applied.
 *
 * @category errors
 * @since 0.1.0
 */
export class PlanFlagsError extends Schema.TaggedError<PlanFlagsError>()("PlanFlagsError", {
  plan: Schema.String,
  flags: Schema.Array(Schema.String)
}) {
  override readonly [Runtime.errorExitCode] = 2
  override get message(): string {
    return `${this.flags.join(" and ")} do not go together`
  }
}

/**
 * The command of a plan has told how the plan ended, and this is its exit code, other than 0.
 *
 * @category errors
 * @since 0.1.0
 */
export class PlanEnded extends Schema.TaggedError<PlanEnded>()("PlanEnded", {
  plan: Schema.String,
  exitCode: Schema.Int
}) {
  override readonly [Runtime.errorExitCode] = this.exitCode
  override readonly [Runtime.errorReported] = false
  override get message(): string {
    return `plan "${this.plan}" ended with exit code ${this.exitCode}`
  }
}
