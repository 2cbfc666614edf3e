/**
 * Steps that are done, or undone again: a saga in one process.
 *
 * Every step says how it is undone. When a later step fails, or whoever runs the saga is interrupted, the undos of what
 * was done run, the newest first, each tried again and bounded, and the outcome says what became of them.
 *
 * **Example** (No car: the flight is cancelled)
 *
 * ```ts import.meta.vitest
 * import { Saga } from "@effect-orchestra/workflow"
 * import { Effect } from "effect"
 *
 * const log: Array<string> = []
 * const say = (line: string) => Effect.sync(() => void log.push(line))
 *
 * const trip = Effect.gen(function*() {
 *   yield* Saga.step("flight", {
 *     run: say("book flight").pipe(Effect.as("LH 400")),
 *     compensate: (flight) => say(`cancel ${flight}`)
 *   })
 *   yield* Saga.step("car", { run: Effect.fail("no car"), compensate: Saga.irreversible })
 * })
 *
 * const outcome = await Effect.runPromise(Saga.outcome(trip, { name: "trip" }))
 * outcome._tag // => "Compensated"
 * log // => ["book flight", "cancel LH 400"]
 * ```
 *
 * @since 0.1.0
 */
import { millisOf } from "@effect-orchestra/core/Kernel"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import { running } from "./internal/Run.ts"
import { SagaNode } from "./internal/SagaNode.ts"
import { stepping } from "./internal/Step.ts"
import { SagaAborted, SagaCommitted, SagaStuck, type StepTimedOut } from "./WorkflowError.ts"

/**
 * The saga that a step belongs to: what `step` requires, and `outcome` and `run` provide.
 *
 * @category services
 * @since 0.1.0
 */
export class Journal extends Context.Service<Journal, { readonly name: string; readonly id: string }>()(
  "@effect-orchestra/workflow/Saga/Journal"
) {}

/**
 * Says of a step that there is nothing to undo.
 *
 * @category models
 * @since 0.1.0
 */
export const irreversible: unique symbol = Symbol.for("@effect-orchestra/workflow/Saga/irreversible")

/**
 * How a saga ended. `cause` is always the original failure, never that of an undo.
 *
 * @category models
 * @since 0.1.0
 */
export type Outcome<A, E> = Completed<A> | Compensated<E> | Stuck<E> | Committed<E>

/** All steps are done. @since 0.1.0 */
export interface Completed<out A> {
  readonly _tag: "Completed"
  readonly value: A
}

/** It failed, and everything was undone: `undone` are the steps in that order. @since 0.1.0 */
export interface Compensated<out E> {
  readonly _tag: "Compensated"
  readonly cause: Cause.Cause<E>
  readonly undone: ReadonlyArray<string>
}

/**
 * It failed, and the undos of the steps in `stuck` gave up. The others ran all the same, but those in `notRun`, of a saga
 * that halts there. @since 0.1.0
 */
export interface Stuck<out E> {
  readonly _tag: "Stuck"
  readonly cause: Cause.Cause<E>
  readonly undone: ReadonlyArray<string>
  readonly stuck: ReadonlyArray<{ readonly step: string; readonly cause: Cause.Cause<unknown> }>
  readonly notRun: ReadonlyArray<string>
}

/** It failed after the step `pivot`, the point of no return: nothing was undone, and the caller has to go forward. @since 0.1.0 */
export interface Committed<out E> {
  readonly _tag: "Committed"
  readonly cause: Cause.Cause<E>
  readonly pivot: string
}

/**
 * What a step does, and within which bounds.
 *
 * @category models
 * @since 0.1.0
 */
export interface StepSettings<A, E, R, T extends Duration.Input | undefined, RS> {
  /** What it does. */
  readonly run: Effect.Effect<A, E, R>
  /** When a failed attempt is followed by another. Defects and interruptions are not. Default: never. */
  readonly retry?: Schedule.Schedule<unknown, NoInfer<E> | StepTimedOut, never, RS> | undefined
  /** How long each attempt may take. Default: no bound. */
  readonly timeout?: T | undefined
  /** Whether there is no way back once it has succeeded, and be it too late for its timeout. Default false. */
  readonly pivot?: boolean | undefined
  /** Where the saga's order is `"grouped"`: the undos of one group run at once. */
  readonly group?: string | undefined
  /** When a failed try of its undo is followed by another. Default: as the saga says. */
  readonly compensationRetry?: Schedule.Schedule<unknown, unknown> | undefined
  /** How long its undo may take with all tries. Default: as the saga says. */
  readonly compensationTimeout?: Duration.Input | undefined
}

/**
 * A step whose undo is registered once it has succeeded: one that failed has done nothing. The undo is given the result
 * of the step, and why the saga failed.
 *
 * @category models
 * @since 0.1.0
 */
export interface StepOptions<A, E, R, T extends Duration.Input | undefined, RC, RS>
  extends StepSettings<A, E, R, T, RS>
{
  readonly register?: "after" | undefined
  readonly compensate:
    | ((result: A, cause: Cause.Cause<unknown>) => Effect.Effect<unknown, unknown, RC>)
    | typeof irreversible
}

/**
 * A step whose undo is registered before it runs, because one that failed, was interrupted or timed out may have done
 * something all the same. The undo is given the result where it is known.
 *
 * @category models
 * @since 0.1.0
 */
export interface UncertainStepOptions<A, E, R, T extends Duration.Input | undefined, RC, RS>
  extends StepSettings<A, E, R, T, RS>
{
  readonly register: "before"
  readonly compensate:
    | ((result: Option.Option<A>, cause: Cause.Cause<unknown>) => Effect.Effect<unknown, unknown, RC>)
    | typeof irreversible
}

/** The error that a timeout adds where one is given. @since 0.1.0 */
export type TimedOut<T> = [T] extends [undefined] ? never : StepTimedOut

/**
 * A step of a saga: runs it, returns its result, and leaves its undo to the saga. Fails as `run` does after the last of
 * its attempts, and with `StepTimedOut` where it has a `timeout`. The names of the steps of a saga are unique: in a loop
 * they are made of what the loop is over.
 *
 * It runs in a fiber of its own, with which its children end, and what it has done is registered before anything can come
 * in between, also where it was interrupted or timed out in an uninterruptible region: what it then does is undone. Of what
 * it did where it can be interrupted nobody knows: such a step is registered `"before"`. An attempt that succeeded too late,
 * or that ignores its interruption, is followed by no other.
 *
 * **Gotchas**
 *
 * A body that goes on after a failed step has to know what it did: what is registered is undone only when the saga fails.
 *
 * Where the undo looks at the result, `run` is a value, a generator or a pipe: the type of `Effect.map(self, f)`, written
 * within the options, is not seen by TypeScript in time.
 *
 * @category constructors
 * @since 0.1.0
 */
export const step: {
  <A, E, R, T extends Duration.Input | undefined = undefined, RC = never, RS = never>(
    name: string,
    options: StepOptions<A, E, R, T, RC, RS>
  ): Effect.Effect<A, E | TimedOut<T>, R | NoInfer<RC> | NoInfer<RS> | Journal>
  <A, E, R, T extends Duration.Input | undefined = undefined, RC = never, RS = never>(
    name: string,
    options: UncertainStepOptions<A, E, R, T, RC, RS>
  ): Effect.Effect<A, E | TimedOut<T>, R | NoInfer<RC> | NoInfer<RS> | Journal>
} = (
  name: string,
  options: AnyStepOptions
) => {
  const { compensate, compensationRetry, compensationTimeout, group, pivot, register, retry, run, timeout } = options
  const of = `of step "${name}"`
  if (typeof compensate !== "function" && compensate !== irreversible) {
    throw new Error(`the compensation ${of} is a function or Saga.irreversible, got: ${String(compensate)}`)
  }
  oneOf(`the registration ${of}`, ["before", "after"], register)
  const plan = {
    name,
    run,
    compensate: compensate === irreversible ? undefined : compensate,
    before: register === "before",
    retry,
    timeoutMillis: timeout === undefined ? undefined : millisOf(`the timeout ${of}`, timeout),
    pivot: pivot === true,
    group,
    compensationRetry,
    compensationMillis: compensationTimeout === undefined
      ? undefined
      : millisOf(`the compensationTimeout ${of}`, compensationTimeout)
  }
  // The types of what goes in and comes out are those of the options, which the saga need not know.
  return Effect.flatMap(Journal, (saga) => stepping(saga as SagaNode, plan as never)) as Effect.Effect<never>
}

const oneOf = (what: string, values: ReadonlyArray<string>, given: string | undefined): void => {
  if (given !== undefined && !values.includes(given)) {
    throw new Error(`${what} is one of ${values.join(", ")}, got: ${given}`)
  }
}

type AnyStepOptions = StepSettings<unknown, unknown, unknown, Duration.Input | undefined, unknown> & {
  readonly register?: "after" | "before" | undefined
  readonly compensate: unknown
}

/**
 * How a saga is run.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options<A = unknown, E = unknown, R = never> {
  /** Its name in the tree, in spans and in metrics: the kind of saga, not the instance. Default `"saga"`. */
  readonly name?: string | undefined
  /** In which order it is undone: the newest first (default), all at once, or group by group, the newest first. */
  readonly order?: "reverse" | "parallel" | "grouped" | undefined
  /** Whether the other undos run when one has given up (`"continue"`, the default), or no further one is begun. */
  readonly onStuck?: "continue" | "halt" | undefined
  /** How long an undo may take, all its tries counted, before it is stuck. Default 30 seconds. */
  readonly compensationTimeout?: Duration.Input | undefined
  /** When a failed try of an undo is followed by another. Default: 5 tries, after 0.5, 1, 2 and 4 seconds. */
  readonly compensationRetry?: Schedule.Schedule<unknown, unknown> | undefined
  /** Which business case it is about. A hash of it goes to the span. */
  readonly key?: string | undefined
  /** Told how it ended, also when the caller is interrupted and does not see it. Its failure is logged. */
  readonly onOutcome?: ((outcome: Outcome<A, E>) => Effect.Effect<unknown, unknown, R>) | undefined
}

const defaultRetry = Schedule.exponential("500 millis").pipe(Schedule.upTo({ times: 4 }))

/**
 * Runs a saga, and returns how it ended: it never fails. Interrupting it undoes what was done, waits for that, and then
 * goes on as interruption: nobody but `onOutcome` and the bus then hears of the outcome.
 *
 * Undos cannot be interrupted from outside. One that does not end within its time is stuck, and listed in the tree as an
 * abandoned routine when it ignores its own interruption too. Within another saga it is one step of that: complete, it
 * hands over what it would have to undo, which its parent undoes at this place under the names `child/step`, in its own
 * order; a pivot that it passed is one of its parent in any case. A body that ends while one of its steps still runs has
 * failed: the step is stopped.
 *
 * @category constructors
 * @since 0.1.0
 */
export const outcome = <A, E, R, R2 = never>(
  body: Effect.Effect<A, E, R>,
  options: Options<A, E, R2> = {}
): Effect.Effect<Outcome<A, E>, never, Exclude<R | R2, Journal>> => {
  const { compensationTimeout = "30 seconds", name = "saga" } = options
  oneOf(`the order of saga "${name}"`, ["reverse", "parallel", "grouped"], options.order)
  oneOf(`the onStuck of saga "${name}"`, ["continue", "halt"], options.onStuck)
  const settings = {
    name,
    order: options.order ?? "reverse",
    halts: options.onStuck === "halt",
    compensationMillis: millisOf(`the compensationTimeout of saga "${name}"`, compensationTimeout),
    compensationRetry: options.compensationRetry ?? defaultRetry
  }
  return running(
    (fiber) => new SagaNode(fiber, settings, around(fiber.context)),
    (node) => Effect.provideService(body, Journal, node) as Effect.Effect<A, E>,
    options as Options
  ) as Effect.Effect<never>
}

/**
 * Runs a saga, and returns the value of its body. Fails with `SagaAborted` when it failed and was undone, with `SagaStuck`
 * when something could not be undone, and with `SagaCommitted` when it failed after its pivot. Their `cause` is that of
 * the body, and may hold a defect. Interrupted, it undoes and goes on as interruption, as `outcome` does.
 *
 * @category constructors
 * @since 0.1.0
 */
export const run = <A, E, R, R2 = never>(
  body: Effect.Effect<A, E, R>,
  options?: Options<A, E, R2>
): Effect.Effect<A, SagaAborted<E> | SagaStuck<E> | SagaCommitted<E>, Exclude<R | R2, Journal>> =>
  Effect.flatMap(
    outcome(body, options),
    (outcome): Effect.Effect<A, SagaAborted<E> | SagaStuck<E> | SagaCommitted<E>> => {
      const saga = options?.name ?? "saga"
      if (outcome._tag === "Completed") return Effect.succeed(outcome.value)
      const { _tag, ...fields } = outcome
      // The fields are those of the outcome of that name, and its error is that of the body.
      return Effect.fail(new failures[_tag]({ saga, ...fields } as never) as SagaAborted<E>)
    }
  )

const failures = { Compensated: SagaAborted, Stuck: SagaStuck, Committed: SagaCommitted }

const around = (context: Context.Context<never>): SagaNode | undefined =>
  Context.getOrUndefined(context as Context.Context<Journal>, Journal) as SagaNode | undefined
