/**
 * Structured concurrency for services on Effect: an orchestrator, routines, groups, mailboxes, a bus, an
 * honest shutdown.
 *
 * @since 0.1.0
 */
export { Bus } from "./Bus.ts"
export * as CoreError from "./CoreError.ts"
export * as Event from "./Event.ts"
export * as Group from "./Group.ts"
export * as Joiner from "./Joiner.ts"
export * as Mailbox from "./Mailbox.ts"
export { Orchestrator } from "./Orchestrator.ts"
export type * as Reply from "./Reply.ts"
export * as Routine from "./Routine.ts"
export * as Shutdown from "./Shutdown.ts"
export * as Snapshot from "./Snapshot.ts"
export * as Subscription from "./Subscription.ts"
export * as Topic from "./Topic.ts"
