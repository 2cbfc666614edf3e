/**
 * Every typed error of supervision. Fields hold the offending values.
 *
 * **Example** (Who made a supervisor give up, and why)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Child, Supervisor } from "@effect-orchestra/supervisor"
 * import { Effect } from "effect"
 *
 * const spec = Supervisor.make({
 *   name: "app",
 *   strategy: "one_for_one",
 *   intensity: 1,
 *   children: [Child.make("importer", Effect.fail("no such file"))]
 * })
 *
 * const program = Supervisor.run(spec).pipe(
 *   Effect.as("ended"),
 *   Effect.catchTag("RestartIntensityReached", (error) => Effect.succeed(`${error.child}, started ${error.attempts} times`))
 * )
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Orchestrator.layer))) // => "importer, started 2 times"
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Schema from "effect/Schema"

const cause = Schema.Cause(Schema.Defect(), Schema.Defect())

/**
 * A child did not start. When its supervisor was starting, that did not either: the children before it were stopped
 * again, in reverse order.
 *
 * @category errors
 * @since 0.1.0
 */
export class StartFailure extends Schema.TaggedError<StartFailure>()("StartFailure", {
  supervisor: Schema.String,
  child: Schema.String,
  cause
}) {
  override get message(): string {
    return `supervisor ${this.supervisor}: child "${this.child}" did not start: ${firstError(this.cause)}`
  }
}

/**
 * A supervisor gave up: one more restart would have exceeded `window` (or the child's backoff schedule had ended, or the
 * `attemptBudget` of a whole subtree). `child` is the offender (its path below the supervisor, when it stands deeper),
 * `causes` why the last restarts had been needed, up to 10, oldest first, `attempts` how often the child had been started.
 *
 * @category errors
 * @since 0.1.0
 */
export class RestartIntensityReached extends Schema.TaggedError<RestartIntensityReached>()("RestartIntensityReached", {
  supervisor: Schema.String,
  child: Schema.String,
  causes: Schema.Array(cause),
  attempts: Schema.Int,
  window: Schema.Struct({ intensity: Schema.Int, periodMillis: Schema.Finite })
}) {
  override get message(): string {
    const { attempts, causes, child, supervisor, window: { intensity, periodMillis } } = this
    return `supervisor ${supervisor} gave up on child "${child}" after ${attempts} starts ` +
      `(${intensity} restarts in ${periodMillis} ms allowed): ${firstError(causes.at(-1) ?? Cause.empty)}`
  }
}

/**
 * The supervisor is being stopped or has ended.
 *
 * @category errors
 * @since 0.1.0
 */
export class SupervisorNotRunning extends Schema.TaggedError<SupervisorNotRunning>()("SupervisorNotRunning", {
  supervisor: Schema.String,
  state: Schema.String
}) {
  override get message(): string {
    return `supervisor ${this.supervisor} is not running (${this.state})`
  }
}

/**
 * The supervisor has no child of this id.
 *
 * @category errors
 * @since 0.1.0
 */
export class ChildNotFound extends Schema.TaggedError<ChildNotFound>()("ChildNotFound", {
  supervisor: Schema.String,
  child: Schema.String
}) {
  override get message(): string {
    return `supervisor ${this.supervisor} has no child "${this.child}"`
  }
}

/**
 * A child of this id runs already (or is starting, or stopping).
 *
 * @category errors
 * @since 0.1.0
 */
export class AlreadyStarted extends Schema.TaggedError<AlreadyStarted>()("AlreadyStarted", {
  supervisor: Schema.String,
  child: Schema.String
}) {
  override get message(): string {
    return `supervisor ${this.supervisor} already runs a child "${this.child}"`
  }
}

/**
 * A child of this id is there but does not run: restart or delete it.
 *
 * @category errors
 * @since 0.1.0
 */
export class AlreadyPresent extends Schema.TaggedError<AlreadyPresent>()("AlreadyPresent", {
  supervisor: Schema.String,
  child: Schema.String,
  state: Schema.String
}) {
  override get message(): string {
    return `supervisor ${this.supervisor} already has a child "${this.child}" (${this.state})`
  }
}

/**
 * The child runs (or is starting, or stopping, or was abandoned and has not ended yet): terminate it first.
 *
 * @category errors
 * @since 0.1.0
 */
export class ChildRunning extends Schema.TaggedError<ChildRunning>()("ChildRunning", {
  supervisor: Schema.String,
  child: Schema.String,
  state: Schema.String
}) {
  override get message(): string {
    return `supervisor ${this.supervisor}: child "${this.child}" is ${this.state}`
  }
}

/**
 * The child is about to run again by itself: terminate it first.
 *
 * @category errors
 * @since 0.1.0
 */
export class ChildRestarting extends Schema.TaggedError<ChildRestarting>()("ChildRestarting", {
  supervisor: Schema.String,
  child: Schema.String
}) {
  override get message(): string {
    return `supervisor ${this.supervisor}: child "${this.child}" is restarting`
  }
}

/**
 * There is nothing to release the child from.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotQuarantined extends Schema.TaggedError<NotQuarantined>()("NotQuarantined", {
  supervisor: Schema.String,
  child: Schema.String,
  state: Schema.String
}) {
  override get message(): string {
    return `supervisor ${this.supervisor}: child "${this.child}" is not quarantined (${this.state})`
  }
}

/**
 * The supervisor cannot have such a child; nothing was changed.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidChild extends Schema.TaggedError<InvalidChild>()("InvalidChild", {
  supervisor: Schema.String,
  child: Schema.String,
  problem: Schema.String
}) {
  override get message(): string {
    return `supervisor ${this.supervisor} cannot have child "${this.child}": ${this.problem}`
  }
}

/**
 * The dynamic supervisor has as many children as it may have.
 *
 * @category errors
 * @since 0.1.0
 */
export class MaxChildren extends Schema.TaggedError<MaxChildren>()("MaxChildren", {
  supervisor: Schema.String,
  maxChildren: Schema.Int
}) {
  override get message(): string {
    return `supervisor ${this.supervisor} has ${this.maxChildren} children, and may have no more`
  }
}

/**
 * Said by a child: it is not needed now. See `Supervisor.ignore`.
 *
 * @category errors
 * @since 0.1.0
 */
export class Ignore extends Schema.TaggedError<Ignore>()("Ignore", {}) {
  override get message(): string {
    return "not needed now"
  }
}

/**
 * Said by a child: it has done its work and is not to be restarted. See `Supervisor.done`.
 *
 * @category errors
 * @since 0.1.0
 */
export class Done extends Schema.TaggedError<Done>()("Done", {}) {
  override get message(): string {
    return "done"
  }
}

/**
 * Said by a child: its whole supervisor is to end. See `Supervisor.terminateTree`.
 *
 * @category errors
 * @since 0.1.0
 */
export class TerminateTree extends Schema.TaggedError<TerminateTree>()("TerminateTree", {}) {
  override get message(): string {
    return "terminate the tree"
  }
}

/**
 * The probes of a child failed, or did not answer in time, so often in a row that its run was ended. It is a defect of
 * that run, like `IdleTimeout`. `cause` is that of the last probe.
 *
 * @category errors
 * @since 0.1.0
 */
export class ProbeFailed extends Schema.TaggedError<ProbeFailed>()("ProbeFailed", {
  path: Schema.String,
  failures: Schema.Int,
  cause: Schema.Cause(Schema.Defect(), Schema.Defect())
}) {
  override get message(): string {
    return `${this.path} failed ${this.failures} probes in a row: ${firstError(this.cause)}`
  }
}

/**
 * A call found no instance of a supervised service: the child that gives it is `state`, and was waited for as long as
 * `unavailable.wait` says, or is not expected back.
 *
 * @category errors
 * @since 0.1.0
 */
export class ServiceUnavailable extends Schema.TaggedError<ServiceUnavailable>()("ServiceUnavailable", {
  service: Schema.String,
  path: Schema.String,
  state: Schema.String
}) {
  override get message(): string {
    return `service ${this.service} is unavailable: ${this.path} is ${this.state}`
  }
}

/**
 * A task took longer than it was given, and was stopped.
 *
 * @category errors
 * @since 0.1.0
 */
export class TaskTimeout extends Schema.TaggedError<TaskTimeout>()("TaskTimeout", {
  task: Schema.String,
  timeoutMillis: Schema.Finite
}) {
  override get message(): string {
    return `task ${this.task} took longer than ${this.timeoutMillis} ms`
  }
}

const firstError = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return error instanceof Error ? error.message : String(error)
}

/**
 * Another routine holds this name of the namespace `registry`: `holder` is its path. It may hold it between two of its
 * runs.
 *
 * @category errors
 * @since 0.1.0
 */
export class AlreadyRegistered extends Schema.TaggedError<AlreadyRegistered>()("AlreadyRegistered", {
  registry: Schema.String,
  key: Schema.String,
  holder: Schema.String
}) {
  override get message(): string {
    return `registry ${this.registry}: ${this.holder} holds "${this.key}"`
  }
}

/**
 * Nobody can be reached by this name: nobody holds it (`holder` is null), or its holder was between two of its runs for
 * longer than the namespace waits.
 *
 * @category errors
 * @since 0.1.0
 */
export class NameUnavailable extends Schema.TaggedError<NameUnavailable>()("NameUnavailable", {
  registry: Schema.String,
  key: Schema.String,
  holder: Schema.NullOr(Schema.String),
  waitedMillis: Schema.Finite
}) {
  override get message(): string {
    return this.holder === null
      ? `registry ${this.registry}: nobody holds "${this.key}"`
      : `registry ${this.registry}: ${this.holder}, which holds "${this.key}", was not back after ${this.waitedMillis} ms`
  }
}

/**
 * Only who has registered a name in its present run changes the value of it; here that is `holder`, or nobody.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotOwner extends Schema.TaggedError<NotOwner>()("NotOwner", {
  registry: Schema.String,
  key: Schema.String,
  holder: Schema.NullOr(Schema.String)
}) {
  override get message(): string {
    return `registry ${this.registry}: the value of "${this.key}" belongs to ${this.holder ?? "nobody"}`
  }
}

/**
 * The routine is no child of a supervisor: nobody could start it again.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotSupervised extends Schema.TaggedError<NotSupervised>()("NotSupervised", {
  path: Schema.String
}) {
  override get message(): string {
    return `${this.path} has no supervisor that could start it again`
  }
}

/**
 * The child is temporary: once it has ended it never runs again.
 *
 * @category errors
 * @since 0.1.0
 */
export class TemporaryChild extends Schema.TaggedError<TemporaryChild>()("TemporaryChild", {
  supervisor: Schema.String,
  child: Schema.String
}) {
  override get message(): string {
    return `supervisor ${this.supervisor}: child "${this.child}" is temporary, and never runs again`
  }
}
