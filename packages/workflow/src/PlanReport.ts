/**
 * What a plan found and did: every step with its state, as data that can be written to a file and read again.
 *
 * **Example** (The exit code of a report)
 *
 * ```ts import.meta.vitest
 * import { Plan } from "@effect-orchestra/workflow"
 *
 * const report: Plan.Report = {
 *   plan: "orchestrate",
 *   mode: "apply",
 *   ending: "partial",
 *   steps: [
 *     { step: "cache", key: null, state: { _tag: "Applied", what: "rebuild" }, durationMillis: 120 },
 *     { step: "restart", key: "web", state: { _tag: "Blocked", by: "cache" }, durationMillis: 0 }
 *   ]
 * }
 *
 * Plan.exitCode(report) // => 3
 * ```
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"

/**
 * The state of a step, or of an item of one. `Satisfied`: nothing is to be done. `WouldApply`: it would be changed.
 * `Applied`: it was. `Failed`: its check or its apply did; what an apply did by then is not known. `Blocked`: what it
 * stands on failed. `NotRun`: it was not selected, or the run ended before it.
 *
 * @category models
 * @since 0.1.0
 */
export const StepState = Schema.TaggedUnion({
  Satisfied: { why: Schema.String },
  WouldApply: { what: Schema.String, destructive: Schema.Boolean },
  Applied: { what: Schema.String },
  Failed: { phase: Schema.Literals(["check", "apply"]), error: Schema.String, errorType: Schema.String },
  Blocked: { by: Schema.String },
  NotRun: { why: Schema.String }
})

/** @since 0.1.0 */
export type StepState = typeof StepState.Type

/**
 * A line of a report: a step, or an item of a step of `Plan.each`. `key` is `null` where there is no item, or they are
 * not known yet. The duration is that of its checks and its apply.
 *
 * @category models
 * @since 0.1.0
 */
export const Row = Schema.Struct({
  step: Schema.String,
  key: Schema.NullOr(Schema.String),
  state: StepState,
  durationMillis: Schema.Finite
})

/** @since 0.1.0 */
export type Row = typeof Row.Type

/**
 * How a plan is run: its changes are applied, or shown, or only asked for.
 *
 * @category models
 * @since 0.1.0
 */
export const Mode = Schema.Literals(["apply", "dry-run", "check"])

/** @since 0.1.0 */
export type Mode = typeof Mode.Type

/**
 * How a run ended. `nothing`: there was nothing to do. `previewed`: changes are pending. `done`: they were applied.
 * `aborted`: the answer was no. `failed`: something failed and nothing was applied. `partial`: something failed and
 * something was applied. `cut`: it was stopped on the way.
 *
 * @category models
 * @since 0.1.0
 */
export const Ending = Schema.Literals(["nothing", "previewed", "done", "aborted", "failed", "partial", "cut"])

/** @since 0.1.0 */
export type Ending = typeof Ending.Type

/**
 * What a plan found and did. It lists every step, in the order of the plan.
 *
 * @category models
 * @since 0.1.0
 */
export const Report = Schema.Struct({ plan: Schema.String, mode: Mode, ending: Ending, steps: Schema.Array(Row) })

/** @since 0.1.0 */
export type Report = typeof Report.Type

/**
 * The exit code of a command that ran the plan: 0 when all is well, was only shown or was declined; 1 when it failed
 * and nothing was applied, or `check` found changes; 2 when `check` could not find out; 3 when something was applied and
 * something was not. What a signal makes of it is the matter of whoever handles signals: `NodeMain` exits with 128 + n.
 *
 * @category getters
 * @since 0.1.0
 */
export const exitCode = ({ ending, mode, steps }: Report): 0 | 1 | 2 | 3 => {
  switch (ending) {
    case "nothing":
    case "done":
    case "aborted":
      return 0
    case "previewed":
      return mode === "check" ? 1 : 0
    case "partial":
      return 3
    case "failed":
    case "cut":
      return mode === "check" ? 2 : steps.some(({ state }) => state._tag === "Applied") ? 3 : 1
  }
}

/**
 * A row's name for people: `step`, or `step/key`.
 *
 * @category getters
 * @since 0.1.0
 */
export const nameOf = ({ key, step }: Pick<Row, "step" | "key">): string => key === null ? step : `${step}/${key}`

/** How `what` of a change begins that is not known before another step was applied. @internal */
export const knownAfter = "(known after "

const escapes = new RegExp(`${String.fromCharCode(27)}\\[[\\d;?]*[A-Za-z]`, "g")

/** What others say as a part of a line: without escape codes and line breaks. @internal */
export const inLine = (text: string): string =>
  text.replaceAll(escapes, "").replaceAll(/[\s\p{Cc}]*\p{Cc}[\s\p{Cc}]*/gu, " ").trimEnd()

/**
 * A state in words, and in one line, such as `would rebuild the cache (destructive)`.
 *
 * @category getters
 * @since 0.1.0
 */
export const formatState = (state: StepState): string => inLine(words(state))

const words = (state: StepState): string => {
  switch (state._tag) {
    case "Satisfied":
      return `ok: ${state.why}`
    case "WouldApply":
      if (state.what.startsWith(knownAfter)) return state.what
      return `would ${state.what}${state.destructive ? " (destructive)" : ""}`
    case "Applied":
      return `applied: ${state.what}`
    case "Failed":
      return `${state.phase === "check" ? "check failed" : "failed"}: ${state.error}`
    case "Blocked":
      return `blocked by ${state.by}`
    case "NotRun":
      return `not run: ${state.why}`
  }
}

/**
 * A report in plain lines, a step or item each, and a last line that sums it up. No colours, no line break at the end.
 *
 * @category getters
 * @since 0.1.0
 */
export const format = (report: Report): string => {
  const names = report.steps.map((row) => inLine(nameOf(row)))
  const width = Math.max(0, ...names.map((name) => name.length))
  const lines = report.steps.map(({ state }, index) => `  ${(names[index] ?? "").padEnd(width)}  ${formatState(state)}`)
  return [`${report.plan}:`, ...lines, summary(report)].join("\n")
}

const endings: Readonly<Record<Ending, string>> = {
  nothing: "nothing to do",
  previewed: "changes are pending",
  done: "done",
  aborted: "aborted, nothing was applied",
  failed: "failed, nothing was applied",
  partial: "failed in part",
  cut: "stopped on the way"
}

const counted: Readonly<Record<StepState["_tag"], string>> = {
  Applied: "applied",
  WouldApply: "to apply",
  Satisfied: "ok",
  Failed: "failed",
  Blocked: "blocked",
  NotRun: "not run"
}

/**
 * The last line of `format`: how it ended, and how many are in which state.
 *
 * @category getters
 * @since 0.1.0
 */
export const summary = ({ ending, steps }: Report): string => {
  const counts = Object.entries(counted)
    .map(([tag, words]) => [steps.filter(({ state }) => state._tag === tag).length, words] as const)
    .filter(([count]) => count > 0)
    .map(([count, words]) => `${count} ${words}`)
  return counts.length === 0 ? endings[ending] : `${endings[ending]} (${counts.join(", ")})`
}

/**
 * What a fresh preview says other than a saved one, a line for each step or item; empty when they agree. Durations do
 * not matter, nor does why nothing is to be done.
 *
 * @category getters
 * @since 0.1.0
 */
export const difference = (saved: Report, fresh: Report): ReadonlyArray<string> => {
  if (saved.plan !== fresh.plan) return [`plan: ${saved.plan} -> ${fresh.plan}`]
  const before = states(saved)
  const now = states(fresh)
  return Array.from(new Set([...before.keys(), ...now.keys()])).flatMap((name) => {
    const [was, is] = [before.get(name), now.get(name)]
    // Why nothing is to be done may read otherwise each time.
    if (was?._tag === "Satisfied" && is?._tag === "Satisfied") return []
    const [wasSaid, isSaid] = [was, is].map((state) => state === undefined ? "not there" : formatState(state))
    return wasSaid === isSaid ? [] : [`${name}: ${wasSaid} -> ${isSaid}`]
  })
}

const states = ({ steps }: Report): ReadonlyMap<string, StepState> =>
  new Map(steps.map((row) => [nameOf(row), row.state]))
