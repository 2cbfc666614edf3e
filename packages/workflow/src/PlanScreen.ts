/**
 * What a running plan looks like, as text: what it told so far, and the lines that show it, to be drawn in place or
 * written one after the other. No escape codes, no effects.
 *
 * **Example** (From what is told to lines)
 *
 * ```ts import.meta.vitest
 * import type { Plan } from "@effect-orchestra/workflow"
 * import * as PlanScreen from "@effect-orchestra/workflow/PlanScreen"
 *
 * const progress: Array<Plan.Progress> = [
 *   { _tag: "Applying", phase: "apply", step: "restart", key: "web", what: "restart it", done: 3, total: 6 }
 * ]
 * const screen = progress.reduce(PlanScreen.told, PlanScreen.empty)
 *
 * PlanScreen.lines(screen, 30, 0) // => ["⠋ applying 3/6 [######......]", "  restart/web"]
 * progress.map(PlanScreen.line) // => ["restart/web  applying: restart it"]
 * ```
 *
 * @since 0.1.0
 */
import { displayWidth } from "effect/cli/CliOutput"
import type { Progress } from "./Plan.ts"
import { formatState, inLine, knownAfter, nameOf, type Report } from "./PlanReport.ts"

/**
 * What is shown: the phase, the names of what is checked or applied now, in the order in which it began, and how many
 * of how many steps and items have their state.
 *
 * @category models
 * @since 0.1.0
 */
export interface Screen {
  readonly phase: Progress["phase"]
  readonly running: ReadonlySet<string>
  readonly done: number
  readonly total: number
}

/**
 * The screen before anything was told.
 *
 * @category constructors
 * @since 0.1.0
 */
export const empty: Screen = { phase: "preview", running: new Set(), done: 0, total: 0 }

/**
 * The screen after this was told.
 *
 * @category operations
 * @since 0.1.0
 */
export const told = (screen: Screen, progress: Progress): Screen => {
  const running = new Set(screen.running)
  if (progress._tag === "Ended") running.delete(nameOf(progress))
  else running.add(nameOf(progress))
  return { phase: progress.phase, running, done: progress.done, total: progress.total }
}

const frames = [..."⠋⠙⠹⠸⠼⠴⠦⠧⠇⠏"]
const shownAtOnce = 8

/**
 * The lines that show a screen, each shorter than `columns`: how far it is, and what runs now. `frame` counts up, and
 * turns the first character. Nine lines at most.
 *
 * @category getters
 * @since 0.1.0
 */
export const lines = (screen: Screen, columns: number, frame: number): ReadonlyArray<string> => {
  const doing = screen.phase === "apply" ? "applying" : "checking"
  const head = `${frames[frame % frames.length]} ${doing} ${screen.done}/${screen.total}`
  const names = [...screen.running]
  const shown = names.slice(0, names.length > shownAtOnce ? shownAtOnce - 1 : shownAtOnce)
  const more = names.length - shown.length
  return [
    `${head} ${bar(screen.done, screen.total, Math.min(40, columns - displayWidth(head) - 2))}`,
    ...shown.map((name) => `  ${name}`),
    ...(more > 0 ? [`  and ${more} more`] : [])
  ].map((line) => cut(line.trimEnd(), columns - 1))
}

/** A bar of `cells`, brackets included, as long as there is room for one. */
const bar = (done: number, total: number, cells: number): string => {
  const inside = cells - 2
  if (inside < 5 || total === 0) return ""
  const filled = Math.min(inside, Math.floor((inside * done) / total))
  return `[${"#".repeat(filled)}${".".repeat(inside - filled)}]`
}

const graphemes = new Intl.Segmenter()

/** A line that reaches the edge would wrap, and the region be taller than it is thought to be. */
const cut = (line: string, columns: number): string => {
  const text = line.replaceAll(/\p{Cc}/gu, " ")
  if (displayWidth(text) <= columns) return text
  let [kept, width] = ["", 0]
  for (const { segment } of graphemes.segment(text)) {
    width += displayWidth(segment)
    // One cell is left for the ellipsis.
    if (width >= columns) break
    kept += segment
  }
  return columns > 0 ? `${kept}…` : ""
}

/**
 * The line that says it where nothing can be drawn: that an apply began, and how it ended. There is none for the rest.
 *
 * @category getters
 * @since 0.1.0
 */
export const line = (progress: Progress): string | undefined => {
  if (progress.phase === "preview") return undefined
  if (progress._tag === "Applying") return `${inLine(nameOf(progress))}  applying: ${inLine(progress.what)}`
  if (progress._tag === "Checking") return undefined
  const { _tag } = progress.state
  return _tag === "Applied" || _tag === "Failed"
    ? `${inLine(nameOf(progress))}  ${formatState(progress.state)}`
    : undefined
}

/**
 * The question after a preview, which says how much would be changed.
 *
 * @category getters
 * @since 0.1.0
 */
export const question = ({ steps }: Report): string => {
  const changes = steps.flatMap(({ state }) => state._tag === "WouldApply" ? [state] : [])
  const destructive = changes.filter((change) => change.destructive).length
  // A step whose items are not known yet counts as one.
  const more = changes.some(({ what }) => what.startsWith(knownAfter)) ? " or more" : ""
  const counted = `${changes.length} ${changes.length === 1 ? "change" : "changes"}${more}`
  return `Apply ${counted}${destructive > 0 ? `, ${destructive} destructive` : ""}? [y/N] `
}
