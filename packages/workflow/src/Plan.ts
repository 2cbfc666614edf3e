/**
 * Get a system into a state: look at what is there, show what would change, ask once, change only that.
 *
 * A step has a `check`, which only reads and says what is needed, and an `apply`, which changes it. Their requirements are
 * apart: a dry run needs nothing that may write. `Plan.run` makes every check that can be made now, asks for the whole
 * change, then applies it in the order of `after`, and its report lists every step. A step that stands on something that
 * was applied is checked again right before its turn; one that was satisfied and stands on nothing that changed is not.
 * What fails or dies is a state in the report, not a failure of the run.
 *
 * **Example** (A dry run, and a run)
 *
 * ```ts import.meta.vitest
 * import { Plan } from "@effect-orchestra/workflow"
 * import { Effect } from "effect"
 *
 * const running = new Map([["web", 1], ["api", 2]])
 *
 * const plan = Plan.make("upgrade", [
 *   Plan.each("restart", {
 *     items: Effect.sync(() => running.keys()),
 *     key: (name) => name,
 *     check: (name) => Effect.sync(() => running.get(name) === 2
 *       ? Plan.Need.Satisfied({ why: "runs version 2" })
 *       : Plan.Need.Change({ what: "restart with version 2" })),
 *     apply: (name) => Effect.sync(() => running.set(name, 2))
 *   })
 * ])
 *
 * const preview = await Effect.runPromise(Plan.run(plan, { mode: "dry-run" }))
 * Plan.format(preview).split("\n") // => ["upgrade:", "  restart/web  would restart with version 2", "  restart/api  ok: runs version 2", "changes are pending (1 to apply, 1 ok)"]
 *
 * const report = await Effect.runPromise(Plan.run(plan, { mode: "apply" }))
 * report.steps.map(({ state }) => state._tag) // => ["Applied", "Satisfied"]
 * Plan.exitCode(report) // => 0
 * ```
 *
 * @since 0.1.0
 */
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { runPlan } from "./internal/PlanRun.ts"
import type { Mode, Report, StepState } from "./PlanReport.ts"
import type { PlanError, PlanRefused } from "./WorkflowError.ts"

export { command, type CommandOptions, type Flags, flags, handle, stepCommands, stepFlags } from "./PlanCommand.ts"
export {
  difference,
  Ending,
  exitCode,
  format,
  formatState,
  Mode,
  nameOf,
  Report,
  Row,
  StepState,
  summary
} from "./PlanReport.ts"

const TypeId = "~effect-orchestra/workflow/Plan"

/**
 * What a check says: nothing is to be done, or `what` is to be changed, in words that go after "would". A destructive
 * change is one that a person should be asked about.
 *
 * @category models
 * @since 0.1.0
 */
export type Need = Data.TaggedEnum<{
  Satisfied: { readonly why: string }
  Change: { readonly what: string; readonly destructive?: boolean | undefined }
}>

/**
 * `Need.Satisfied({ why })` and `Need.Change({ what, destructive })`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const Need = Data.taggedEnum<Need>()

/**
 * A step of a plan: `RC` is what its check requires, `RA` its apply.
 *
 * @category models
 * @since 0.1.0
 */
export interface Step<out RC, out RA> {
  readonly [TypeId]: { readonly RC: (_: never) => RC; readonly RA: (_: never) => RA }
  readonly name: string
  readonly after: ReadonlyArray<string>
  readonly description: string | undefined
}

/** @since 0.1.0 */
export type CheckServices<S> = S extends Step<infer RC, unknown> ? RC : never

/** @since 0.1.0 */
export type ApplyServices<S> = S extends Step<unknown, infer RA> ? RA : never

/**
 * Steps to run together: `RC` is what their checks require, `RA` what it takes to apply them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Plan<out RC, out RA> {
  readonly name: string
  readonly description: string | undefined
  /** How many steps run at once. */
  readonly concurrency: number
  /** As they were declared. */
  readonly steps: ReadonlyArray<Step<RC, RA>>
}

/**
 * What every step may say.
 *
 * @category models
 * @since 0.1.0
 */
export interface StepOptions {
  /** The names of the steps that it stands on: it runs after them, and not at all when one of them failed. */
  readonly after?: ReadonlyArray<string> | undefined
  /** For the help of its command. */
  readonly description?: string | undefined
}

/**
 * A step with one check and one apply. The check changes nothing, and says after the apply that it is satisfied. Both
 * have a scope of their own, and may fail with anything.
 *
 * @category constructors
 * @since 0.1.0
 */
export const step = <EC, RC, EA, RA>(
  name: string,
  options: StepOptions & {
    /** Says, without changing anything, whether a change is needed. */
    readonly check: Effect.Effect<Need, EC, RC>
    readonly apply: Effect.Effect<unknown, EA, RA>
  }
): Step<Exclude<RC, Scope.Scope>, Exclude<RA, Scope.Scope>> =>
  stepOf(name, options, {
    items: [{ key: null, check: options.check, apply: options.apply }],
    concurrency: 1
  })

/**
 * A step for each item of a list that is read when the plan runs. If it stands on a step that will be applied, the
 * preview says "(known after ...)", and the items are read after that. First all items are checked, then those are
 * applied that need it. Two items with one key are a failed check, and none is applied.
 *
 * **Gotchas**
 *
 * The compiler knows the type of the items from a name, a `pipe` or an `Effect.gen`. Of `items: Effect.map(list, f)`,
 * written in place, it knows nothing, and says that the item is `unknown`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const each = <I, EI, RI, EC, RC, EA, RA>(
  name: string,
  options: StepOptions & {
    /** Reads the list, without changing anything. */
    readonly items: Effect.Effect<Iterable<I>, EI, RI>
    /** The name of an item, unique among them. */
    readonly key: (item: I) => string
    readonly check: (item: I) => Effect.Effect<Need, EC, RC>
    readonly apply: (item: I) => Effect.Effect<unknown, EA, RA>
    /** How many items are checked or applied at once: a positive integer, default 1. */
    readonly concurrency?: number | undefined
  }
): Step<Exclude<RI | RC, Scope.Scope>, Exclude<RA, Scope.Scope>> =>
  stepOf(name, options, {
    items: Effect.map(options.items, (items) =>
      [...items].map((item) => ({
        key: options.key(item),
        check: Effect.suspend(() => options.check(item)),
        apply: Effect.suspend(() => options.apply(item))
      }))),
    concurrency: options.concurrency ?? 1
  })

interface WorkOf {
  readonly items: ReadonlyArray<Keyed> | Effect.Effect<ReadonlyArray<Keyed>, unknown, unknown>
  readonly concurrency: number
}

interface Keyed {
  readonly key: string | null
  readonly check: Effect.Effect<Need, unknown, unknown>
  readonly apply: Effect.Effect<unknown, unknown, unknown>
}

// The types of the step say what its effects require; `run` hands that on.
const stepOf = (name: string, { after = [], description }: StepOptions, work: WorkOf): Step<never, never> =>
  ({ name, after, description, ...work }) as unknown as Step<never, never>

/**
 * Makes a plan of steps. What is wrong with it (two steps of one name, a cycle, an unknown name) is said when it is run.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <const Steps extends ReadonlyArray<Step<unknown, unknown>>>(
  name: string,
  steps: Steps,
  options: {
    /** How many steps run at once: a positive integer. Default 1: one after the other, in their order. */
    readonly concurrency?: number | undefined
    /** For the help of its command. */
    readonly description?: string | undefined
  } = {}
): Plan<CheckServices<Steps[number]>, ApplyServices<Steps[number]>> => ({
  name,
  description: options.description,
  concurrency: options.concurrency ?? 1,
  // Each requires part of what all of them require.
  steps: steps as ReadonlyArray<Step<CheckServices<Steps[number]>, ApplyServices<Steps[number]>>>
})

/**
 * What a run is doing: told when a check or an apply begins, and when a step or item has its state in this phase. `done`
 * of `total` steps and items have it; `total` grows when the items of a step become known.
 *
 * @category models
 * @since 0.1.0
 */
export type Progress = Data.TaggedEnum<{
  Checking: ProgressFields
  Applying: ProgressFields & { readonly what: string }
  Ended: ProgressFields & { readonly state: StepState; readonly durationMillis: number }
}>

/** @since 0.1.0 */
export interface ProgressFields {
  readonly phase: "preview" | "apply"
  readonly step: string
  readonly key: string | null
  readonly done: number
  readonly total: number
}

/**
 * How a plan is run.
 *
 * @category models
 * @since 0.1.0
 */
export interface RunOptions<M extends Mode, RP = never> {
  /** Whether changes are applied, or only shown (`"dry-run"`) or asked for (`"check"`); these two differ in exit codes. */
  readonly mode: M
  /** Apply without asking, destructive changes too. Default false. */
  readonly force?: boolean | undefined
  /** Whether to go on after a failure, with what does not stand on it. Default false. */
  readonly keepGoing?: boolean | undefined
  /** The names of the only steps to run. With none in the list nothing runs. Default: all. */
  readonly only?: ReadonlyArray<string> | undefined
  /** The names of steps to leave out. What stands on them runs as if they were there. */
  readonly skip?: ReadonlyArray<string> | undefined
  /**
   * Asks, once, whether to apply what the preview shows, if anything is to be changed and there is no `force`. Yes is
   * a yes to what becomes known only on the way, too. Without it what is not destructive is applied unasked.
   */
  readonly confirm?: ((preview: Report) => Effect.Effect<boolean, PlanRefused, RP>) | undefined
  /**
   * When it completes nothing more is started, checks are interrupted, and what is being applied has `cutGrace` to
   * finish. Its value, if a string, says in the report what stopped it. Such as `NodeMain.firstSignal`.
   */
  readonly cut?: Effect.Effect<unknown> | undefined
  /**
   * How long what is being applied at a cut may take to finish; then it is interrupted, and abandoned if that takes
   * longer than an eighth of this. Default 4 seconds.
   */
  readonly cutGrace?: Duration.Input | undefined
  /** How long a check, or the list of items, may take; then it has failed. Default 1 minute. */
  readonly checkTimeout?: Duration.Input | undefined
  /** Told of each step of the way, synchronously. If it throws, that is logged and it is told no more. */
  readonly onProgress?: ((progress: Progress) => void) | undefined
}

/**
 * Runs a plan, and returns its report when everything has ended. What runs are tasks of a group `plan NAME` in the tree,
 * named `step` or `step/key`. Interrupting it interrupts them, and waits.
 *
 * The first failure stops the rest unless `keepGoing`: a check that fails in the preview, before anything is applied; an
 * apply, when what is being applied beside it has finished. What stands on the failed step is `Blocked` in either case. A
 * check that fails while something that its step stands on is still to be applied may be missing just that: it is made
 * again after it, and the preview says "(known after ...; now: ...)".
 *
 * Fails with `PlanError` when something is wrong with the plan or the selection, and with `PlanRefused` when there is a
 * destructive change, no `force`, and no `confirm` to ask; nothing was applied then. A destructive change of which the
 * preview did not know is not applied unasked either: it is a failed step.
 *
 * @category operations
 * @since 0.1.0
 */
export const run = <RC, RA, M extends Mode, RP = never>(
  plan: Plan<RC, RA>,
  options: RunOptions<M, RP>
): Effect.Effect<Report, PlanError | PlanRefused, RC | ("apply" extends M ? RA | RP : never)> =>
  // What it requires is in the type.
  runPlan(plan, options) as Effect.Effect<Report, PlanError | PlanRefused, never>
