/**
 * How a tree is stopped: within which budget, and what became of it.
 *
 * A shutdown goes through three phases. **ask**: a routine with a drain, or that watches `Routine.stopRequested`, is
 * told and has up to `grace`; everyone else goes straight to **interrupt**, bounded by its own `shutdown`, else by
 * `interrupt`. What still runs after that is **abandoned** and named in the report. Roots are stopped in reverse order
 * of their start, each awaited before the next, and the bounds of each are cut to what is left of the whole budget.
 *
 * **Example** (A routine that does not hear, and how the report names it)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("200 millis")), { name: "deaf" })
 *   return yield* Orchestrator.shutdown({ grace: 0, interrupt: "20 millis" })
 * })
 *
 * const report = await Effect.runPromise(program.pipe(Effect.provide(Orchestrator.layer)))
 * report.clean // => false
 * report.stuck.map(({ path, phase }) => [path, phase]) // => [["/orchestra/deaf", "abandon"]]
 * ```
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { millisOf, type StopLimits, unbounded } from "./Kernel.ts"

/**
 * How long a shutdown may take: `grace` for those who asked to drain, then `interrupt` for the rest. Both default to
 * 5 seconds; the whole takes at most their sum.
 *
 * @category models
 * @since 0.1.0
 */
export interface ShutdownBudget {
  readonly grace?: Duration.Input | undefined
  readonly interrupt?: Duration.Input | undefined
}

/**
 * The phases of a shutdown.
 *
 * @category models
 * @since 0.1.0
 */
export const Phase = Schema.Literals(["ask", "interrupt", "abandon"])

/** @since 0.1.0 */
export type Phase = typeof Phase.Type

/**
 * What came of a shutdown. `clean` when nothing was left running; `phases` says how long each took; `stuck` names
 * everything that still runs, down to the last nested routine: how long it has ignored its stop, when it last beat (wall
 * clock), and the line that forked it, where these are known; `failures` names what failed while it was stopped.
 * Durations in milliseconds.
 *
 * @category models
 * @since 0.1.0
 */
export const ShutdownReport = Schema.Struct({
  clean: Schema.Boolean,
  durationMillis: Schema.Finite,
  stopped: Schema.Int,
  phases: Schema.Array(Schema.Struct({ phase: Phase, durationMillis: Schema.Finite })),
  stuck: Schema.Array(Schema.Struct({
    path: Schema.String,
    phase: Phase,
    waitedMillis: Schema.Finite,
    lastBeat: Schema.NullOr(Schema.Finite),
    forkSite: Schema.NullOr(Schema.String)
  })),
  failures: Schema.Array(Schema.Struct({ path: Schema.String, message: Schema.String }))
})

/** @since 0.1.0 */
export type ShutdownReport = typeof ShutdownReport.Type

/**
 * The budget in milliseconds, with its defaults, from the monotonic time `now`; `by` says why it stops.
 *
 * @category getters
 * @since 0.1.0
 */
export const limits = (budget: ShutdownBudget, now: number, by?: Context.Context<never>): StopLimits => {
  const grace = millisOf("the grace of a shutdown", budget.grace ?? unbounded.grace)
  const interrupt = millisOf("the interrupt of a shutdown", budget.interrupt ?? unbounded.interrupt)
  return { grace, interrupt, deadline: now + grace + interrupt, by, told: true }
}

/**
 * The report as lines for a person: one for the whole, one for each routine that is stuck.
 *
 * @category getters
 * @since 0.1.0
 */
export const format = (report: ShutdownReport): string => {
  const head = `stopped ${report.stopped} in ${Math.round(report.durationMillis)} ms`
  const stuck = report.stuck.map(({ forkSite, path, waitedMillis }) =>
    `  stuck: ${path}, waited ${Math.round(waitedMillis)} ms${forkSite === null ? "" : `, forked ${forkSite}`}`
  )
  const failures = report.failures.map((entry) => `  failed: ${entry.path}: ${entry.message}`)
  return [report.clean ? head : `${head}, ${report.stuck.length} left running`, ...stuck, ...failures].join("\n")
}
