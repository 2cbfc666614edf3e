/**
 * Structured concurrency for services on Effect: an orchestrator, routines, groups, an honest shutdown.
 *
 * @since 0.1.0
 */
export * as CoreError from "./CoreError.ts"
export * as Event from "./Event.ts"
export * as Group from "./Group.ts"
export { Orchestrator } from "./Orchestrator.ts"
export * as Routine from "./Routine.ts"
export * as Shutdown from "./Shutdown.ts"
export * as Snapshot from "./Snapshot.ts"
