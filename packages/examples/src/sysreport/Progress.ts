/**
 * What the command tells on standard error while it works: `[elapsed] message`.
 */
import type { Collect } from "@effect-orchestra/workflow"

const seconds = (millis: number) => `${(millis / 1000).toFixed(1)}s`

/** Tells synchronously: the last lines are out before the process ends. */
export const teller = (quiet: boolean, elapsedMillis: () => number) => (message: string): void => {
  if (!quiet) console.error(`[${seconds(elapsedMillis())}] ${message}`)
}

export const describe = (progress: Collect.Progress): string => `  [${progress.name}] ${doing(progress)}`

const doing = (progress: Collect.Progress): string => {
  if (progress._tag === "Started") return "collecting..."
  const { durationMillis, reason, status } = progress
  switch (status) {
    case "ok":
      return `done (${seconds(durationMillis)})`
    case "skipped":
      return `skipped: ${reason}`
    case "interrupted":
      return `interrupted (${reason})`
    case "timeout":
    case "error":
    case "stuck":
      return `${status === "error" ? "error" : "timeout"}: ${reason}`
  }
}
