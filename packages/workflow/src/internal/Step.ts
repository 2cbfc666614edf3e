/** How one step of a saga runs: its attempts, and what it leaves to undo. */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Schedule from "effect/Schedule"
import type * as Tracer from "effect/Tracer"
import { StepTimedOut } from "../WorkflowError.ts"
import { bounded } from "./Bound.ts"
import { Compensation, withoutInterrupts } from "./Compensation.ts"
import { Attempts, type SagaNode, type Undo } from "./SagaNode.ts"
import { spanned } from "./Span.ts"

type AnyEffect = Effect.Effect<unknown, unknown>

/** A step as it was written, and checked. */
export interface Plan {
  readonly name: string
  readonly run: AnyEffect
  readonly compensate: ((result: unknown, cause: Cause.Cause<unknown>) => AnyEffect) | undefined
  readonly before: boolean
  readonly retry: Schedule.Schedule<unknown, unknown> | undefined
  readonly timeoutMillis: number | undefined
  readonly pivot: boolean
  readonly group: string | undefined
  readonly compensationRetry: Schedule.Schedule<unknown, unknown> | undefined
  readonly compensationMillis: number | undefined
}

/** Runs a step of a saga, in the fiber that asks. */
export const stepping = (node: SagaNode, plan: Plan): AnyEffect =>
  spanned(`step ${plan.name}`, {}, (span) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.withFiber((fiber) => {
        const step = new Step(node, plan, fiber, span)
        const { retry } = plan
        const attempt = (restore: Restore) => Effect.suspend(() => step.attempt(restore))
        const tries = retry === undefined ? attempt(restore) : restore(
          Effect.retry(Effect.uninterruptibleMask(attempt), { schedule: retry, while: () => step.mayRetry })
        )
        return Effect.onExit(tries, (exit) => Effect.sync(() => step.end(exit)))
      })
    ))

type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

class Step {
  readonly name: string
  readonly fiber: Fiber.Fiber<unknown, unknown>
  private readonly span: Tracer.Span
  private readonly node: SagaNode
  private readonly plan: Plan
  private readonly context: Context.Context<never>
  private readonly record
  private readonly attempts: Attempts
  /** What is known of its result. */
  private result: Option.Option<unknown> = Option.none()
  private isRegistered = false
  /** Whether an attempt that failed may have done something all the same, or still runs: another would do it twice. */
  mayRetry = true

  constructor(node: SagaNode, plan: Plan, fiber: Fiber.Fiber<unknown, unknown>, span: Tracer.Span) {
    this.name = plan.name
    this.node = node
    this.plan = plan
    this.fiber = fiber
    this.span = span
    this.context = fiber.context
    this.record = node.begin(plan.name)
    this.attempts = new Attempts(node, plan.name, this.record, "forward")
    node.running.add(this)
  }

  /** One attempt, in an uninterruptible region: what it did is registered before anything can come in between. */
  attempt(restore: Restore): AnyEffect {
    const { attempts, context, name, node, plan } = this
    attempts.start()
    if (plan.before) this.register()
    const task = {
      name: `step ${name}`,
      effect: plan.run,
      context,
      late: (exit: Exit.Success<unknown, unknown>) => Effect.exit(this.succeed(exit))
    }
    const bound = {
      within: plan.timeoutMillis ?? Infinity,
      // Without a bound it is Effect's way to wait as long as it takes.
      grace: plan.timeoutMillis === undefined ? Infinity : node.settings.compensationMillis
    }
    return Effect.flatMap(bounded(node, task, bound, restore), ({ cut, exit }) => {
      if (cut === undefined) {
        attempts.end(exit)
        return Exit.isSuccess(exit) ? this.succeed(exit) : exit
      }
      const timedOut = cut === "deadline"
      const why: Cause.Cause<unknown> = timedOut
        ? Cause.fail(new StepTimedOut({ saga: node.name, step: name, timeoutMillis: bound.within }))
        : cut
      // What failed while it was being interrupted stands behind.
      const behind = exit !== undefined && Exit.isFailure(exit) ? withoutInterrupts(exit.cause) : Cause.empty
      const failure = Exit.failCause(Cause.combine(why, behind))
      attempts.end(failure, timedOut ? "timed_out" : "interrupted")
      if (exit !== undefined && Exit.isFailure(exit)) return failure
      this.mayRetry = false
      // It succeeded too late for the body, but what it did is known, and is to be undone.
      return exit === undefined ? failure : Effect.andThen(this.succeed(exit), failure)
    })
  }

  private succeed(exit: Exit.Success<unknown, unknown>): AnyEffect {
    const { node, plan } = this
    this.result = Option.some(exit.value)
    if (plan.pivot) node.pass(plan.name)
    // Too late for that as well: its saga has gone back without it, or forward.
    if (node.phase === "closed") return node.pivot === undefined ? this.undoAlone(exit) : exit
    this.register()
    return exit
  }

  /** Leaves its undo to the saga. */
  private register(): void {
    if (this.isRegistered || this.plan.compensate === undefined) return
    this.isRegistered = true
    this.node.entries.push(this.undo)
  }

  private get undo(): Undo {
    const { compensate, before, group } = this.plan
    const { settings } = this.node
    return {
      record: this.record,
      run: (cause) =>
        Effect.suspend(() => {
          const result = this.result
          return compensate === undefined
            ? Effect.void
            : compensate(before ? result : Option.getOrUndefined(result), cause)
        }),
      context: this.context,
      span: this.span,
      group,
      millis: this.plan.compensationMillis ?? settings.compensationMillis,
      retry: this.plan.compensationRetry ?? settings.compensationRetry
    }
  }

  /** What it did belongs to nobody. */
  private undoAlone(exit: Exit.Success<unknown, unknown>): AnyEffect {
    if (this.plan.compensate === undefined) return exit
    const cause = Cause.interrupt()
    return Effect.andThen(
      new Compensation(this.node, cause, this.span).undo(this.undo, this.name),
      Effect.failCause(cause)
    )
  }

  end(exit: Exit.Exit<unknown, unknown>): void {
    if (this.record.state === "running") this.record.state = Exit.isSuccess(exit) ? "done" : "failed"
    this.attempts.conclude(exit)
    this.node.leave(this)
  }
}
