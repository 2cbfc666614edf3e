/**
 * What became of an order, whichever way it went.
 */
import { Cause } from "effect"

export interface Outcome {
  readonly order: string
  /** All done; all undone; an undo gave up; failed when it was too late to undo. */
  readonly ending: "completed" | "compensated" | "stuck" | "committed"
  /** Why it was not completed. */
  readonly why: string
  /** The steps that were undone, in this order. */
  readonly undone: ReadonlyArray<string>
  /** Those whose undo gave up. */
  readonly stuck: ReadonlyArray<string>
}

export const endings = ["completed", "compensated", "committed", "stuck"] as const

export const completed = (order: string): Outcome => ({ order, ending: "completed", why: "", undone: [], stuck: [] })

export const format = ({ ending, order, stuck, undone, why }: Outcome): string =>
  [
    `order ${order} ${ending}`,
    ...(why === "" ? [] : [`  why: ${why}`]),
    ...(undone.length === 0 ? [] : [`  undone: ${undone.join(", ")}`]),
    ...(stuck.length === 0 ? [] : [`  stuck: ${stuck.join(", ")}`])
  ].join("\n")

/** Of a command that places one order. */
export const exitCode = ({ ending }: Outcome): number => ending === "completed" ? 0 : ending === "compensated" ? 1 : 3

/** Why something failed, in a few words. */
export const reasonOf = (cause: Cause.Cause<unknown>): string => {
  if (Cause.hasInterruptsOnly(cause)) return "interrupted"
  const error = Cause.squash(cause)
  return error instanceof Error ? error.message : String(error)
}
