/** The lines that fork routines. */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { RoutineRecord } from "../RoutineRecord.ts"

/** How many orchestrators keep the lines that fork. */
let keepers = 0

/**
 * While the scope is open, `forkSite` looks where it is called from.
 */
export const keepForkSites: Effect.Effect<void, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => void keepers++),
  () => Effect.sync(() => void keepers--)
)

/** Keeps where a routine was forked, if its orchestrator keeps that. */
export const forkedAt = (record: RoutineRecord, site: string | undefined): void => {
  if (site !== undefined && record.kernel.forkSites) record.past.forkSite = site
}

/**
 * The line that called `fork`, as the stack tells it. Undefined while no orchestrator keeps them, and where the engine
 * cannot tell (it needs V8's `Error.captureStackTrace`).
 */
export const forkSite = (fork: (...args: ReadonlyArray<never>) => unknown): string | undefined => {
  if (keepers === 0 || !("captureStackTrace" in Error)) return undefined
  const { stackTraceLimit } = Error
  Error.stackTraceLimit = 1
  const site: { readonly stack?: string } = {}
  Error.captureStackTrace(site, fork)
  Error.stackTraceLimit = stackTraceLimit
  return site.stack?.split("\n")[1]?.trim()
}
