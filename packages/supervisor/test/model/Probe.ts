/** When the probes of a run give up on it, by the clock alone. */

/** What one probe does: it answers after so many milliseconds, or never and then lets itself be interrupted, or not. */
export type Answer =
  | { readonly _tag: "yes" | "no"; readonly after: number }
  | { readonly _tag: "hangs" }
  | { readonly _tag: "ignores"; readonly until: number }

export interface Options {
  readonly every: number
  readonly timeout: number
  readonly failures: number
}

/**
 * The time at which the run is given up, counted from its readiness, and how many probes had been started by then; or
 * nothing, when the answers run out first.
 */
export const givesUp = (
  { every, failures, timeout }: Options,
  answers: ReadonlyArray<Answer>
): { readonly at: number; readonly started: number } | undefined => {
  let asked = every
  let started = 0
  let inARow = 0
  let busyUntil = 0
  while (true) {
    let heard = asked
    let isYes = false
    if (asked >= busyUntil) {
      const answer = answers[started]
      if (answer === undefined) return undefined
      started++
      const took = answer._tag === "yes" || answer._tag === "no" ? answer.after : Infinity
      isYes = answer._tag === "yes" && took < timeout
      heard = asked + Math.min(took, timeout)
      if (answer._tag === "ignores") busyUntil = asked + answer.until
    }
    inARow = isYes ? 0 : inARow + 1
    if (inARow === failures) return { at: heard, started }
    asked = Math.max(asked + every, heard)
  }
}
