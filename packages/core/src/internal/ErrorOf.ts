/** The error that a cause stands for. */
import type * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import * as Predicate from "effect/Predicate"
import type { ExitReason } from "../Event.ts"

export const errorOf = (cause: Cause.Cause<unknown>): { readonly value: unknown } | undefined => {
  let found: { readonly value: unknown } | undefined = undefined
  for (const reason of cause.reasons) {
    if (reason._tag === "Fail") return { value: reason.error }
    if (reason._tag === "Die") found ??= { value: reason.defect }
  }
  return found
}

/**
 * The `_tag` of the error or defect that a run ended with, else its class, else `_OTHER`; undefined when there was none.
 *
 * @stability unstable
 * @category getters
 * @since 0.1.0
 */
export const errorTypeOf = (reason: ExitReason, exit: Exit.Exit<unknown, unknown>): string | undefined => {
  if (Exit.isSuccess(exit)) return undefined
  const error = errorOf(exit.cause)
  return error !== undefined ? errorType(error.value) : reason === "failure" ? "Interrupted" : undefined
}

/** OpenTelemetry's `error.type`: the `_tag` of a tagged error, else the class name, else `_OTHER`. */
const errorType = (error: unknown): string => {
  if (Predicate.hasProperty(error, "_tag") && typeof error._tag === "string") return error._tag
  if (error instanceof Error) return error.constructor.name
  return "_OTHER"
}
