/**
 * Every typed error of core. Fields hold the offending values.
 *
 * **Example** (An orchestrator that has shut down takes no routine)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Effect } from "effect"
 *
 * const program = Effect.andThen(Orchestrator.shutdown(), Orchestrator.fork(Effect.void)).pipe(
 *   Effect.as("forked"),
 *   Effect.catchTag("OrchestratorClosed", (error) => Effect.succeed(error.message))
 * )
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Orchestrator.layer))) // => 'orchestrator "orchestra" is closed'
 * ```
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import * as Schema from "effect/Schema"

/**
 * The orchestrator is shutting down or has shut down: it takes no new routine.
 *
 * @category errors
 * @since 0.1.0
 */
export class OrchestratorClosed extends Schema.TaggedError<OrchestratorClosed>()("OrchestratorClosed", {
  orchestrator: Schema.String,
  state: Schema.Literals(["closing", "closed"])
}) {
  override get message(): string {
    return `orchestrator "${this.orchestrator}" is ${this.state}`
  }
}

/**
 * A routine was not ready in time, or ended before it was ready.
 *
 * @category errors
 * @since 0.1.0
 */
export class NotReady extends Schema.TaggedError<NotReady>()("NotReady", {
  path: Schema.String,
  reason: Schema.Literals(["ended", "timeout"]),
  waitedMillis: Schema.Finite
}) {
  override get message(): string {
    return this.reason === "timeout"
      ? `${this.path} was not ready within ${this.waitedMillis} ms`
      : `${this.path} ended before it was ready`
  }
}

/**
 * A supervisor without a parent gave up: the program cannot go on. `cause` says why.
 *
 * @category errors
 * @since 0.1.0
 */
export class SupervisorFailure extends Schema.TaggedError<SupervisorFailure>()("SupervisorFailure", {
  path: Schema.String,
  cause: Schema.Cause(Schema.Defect(), Schema.Defect())
}) {
  override get message(): string {
    return `supervisor ${this.path} gave up`
  }
}

/**
 * Nothing was heard of a routine within its idle timeout, and its run was interrupted. It is a defect of that run:
 * whoever awaits it sees it, and it cannot pass for an ordinary cancellation.
 *
 * @category errors
 * @since 0.1.0
 */
export class IdleTimeout extends Schema.TaggedError<IdleTimeout>()("IdleTimeout", {
  path: Schema.String,
  idleMillis: Schema.Finite
}) {
  override get message(): string {
    return `${this.path} gave no sign of life for ${Math.round(this.idleMillis)} ms`
  }
}

/**
 * A group did not end within its deadline, and everything in it was interrupted.
 *
 * @category errors
 * @since 0.1.0
 */
export class DeadlineExceeded extends Schema.TaggedError<DeadlineExceeded>()("DeadlineExceeded", {
  group: Schema.String,
  afterMillis: Schema.Finite
}) {
  override get message(): string {
    return `group ${this.group} did not end within ${this.afterMillis} ms`
  }
}

/**
 * The mailbox takes no message any more: it was ended, it failed, or its scope is closed.
 *
 * @category errors
 * @since 0.1.0
 */
export class MailboxClosed extends Schema.TaggedError<MailboxClosed>()("MailboxClosed", {
  mailbox: Schema.String,
  reason: Schema.Literals(["ended", "failed", "closed"])
}) {
  override get message(): string {
    return `mailbox ${this.mailbox} has been ${this.reason}`
  }
}

/**
 * The mailbox is full and its overflow policy is `"fail"`.
 *
 * @category errors
 * @since 0.1.0
 */
export class MailboxFull extends Schema.TaggedError<MailboxFull>()("MailboxFull", {
  mailbox: Schema.String,
  capacity: Schema.Int
}) {
  override get message(): string {
    return `mailbox ${this.mailbox} is full: it holds ${this.capacity}`
  }
}

/**
 * Nobody answered in time.
 *
 * @category errors
 * @since 0.1.0
 */
export class AskTimeout extends Schema.TaggedError<AskTimeout>()("AskTimeout", {
  mailbox: Schema.String,
  waitedMillis: Schema.Finite
}) {
  override get message(): string {
    return `nobody answered a question to ${this.mailbox} within ${this.waitedMillis} ms`
  }
}

/**
 * The group has ended or its scope is closed: it takes no task.
 *
 * @category errors
 * @since 0.1.0
 */
export class GroupClosed extends Schema.TaggedError<GroupClosed>()("GroupClosed", { group: Schema.String }) {
  override get message(): string {
    return `group ${this.group} has ended: it takes no task`
  }
}

const failures = Schema.Array(Schema.Cause(Schema.Defect(), Schema.Defect()))

/**
 * No task of the group succeeded. `failures` are their causes, in the order they were forked.
 *
 * @category errors
 * @since 0.1.0
 */
export class NoSuccess<out E = unknown> extends Schema.TaggedError<NoSuccess>()("NoSuccess", {
  group: Schema.String,
  failures
}) {
  declare readonly failures: ReadonlyArray<Cause.Cause<E>>
  override get message(): string {
    return `none of ${this.failures.length} tasks of group ${this.group} succeeded`
  }
}

/**
 * Too few tasks of the group are left for `needed` of them to succeed: `reached` did. `failures` are the causes of those
 * that failed, in the order they were forked.
 *
 * @category errors
 * @since 0.1.0
 */
export class QuorumUnreachable<out E = unknown> extends Schema.TaggedError<QuorumUnreachable>()("QuorumUnreachable", {
  group: Schema.String,
  needed: Schema.Int,
  reached: Schema.Int,
  failures
}) {
  declare readonly failures: ReadonlyArray<Cause.Cause<E>>
  override get message(): string {
    return `group ${this.group} cannot reach ${this.needed} successes any more: ${this.reached} of its tasks succeeded`
  }
}

/**
 * A question was dropped, or its handler failed: nobody will answer it.
 *
 * @category errors
 * @since 0.1.0
 */
export class Unanswered extends Schema.TaggedError<Unanswered>()("Unanswered", {
  mailbox: Schema.String,
  reason: Schema.Literals(["dropped", "failed"])
}) {
  override get message(): string {
    return this.reason === "dropped"
      ? `mailbox ${this.mailbox} dropped a question`
      : `a question to ${this.mailbox} failed its handler`
  }
}

/**
 * The scope of the bus is closed: nothing is published or subscribed any more.
 *
 * @category errors
 * @since 0.1.0
 */
export class BusClosed extends Schema.TaggedError<BusClosed>()("BusClosed", {
  bus: Schema.String
}) {
  override get message(): string {
    return `bus ${this.bus} is closed`
  }
}

/**
 * The run of a routine on whose behalf something was to be forked has ended, or its scope is being closed.
 *
 * @category errors
 * @since 0.1.0
 */
export class RunEnded extends Schema.TaggedError<RunEnded>()("RunEnded", {
  path: Schema.String,
  incarnation: Schema.Int
}) {
  override get message(): string {
    return `run ${this.incarnation} of ${this.path} has ended: nothing is forked on its behalf any more`
  }
}
