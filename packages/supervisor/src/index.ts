/**
 * OTP supervision for Effect: children, strategies, restart intensity, supervised layers.
 *
 * @since 0.1.0
 */
export * as Backoff from "./Backoff.ts"
export * as Child from "./Child.ts"
export * as DynamicSupervisor from "./DynamicSupervisor.ts"
export * as Intervention from "./Intervention.ts"
export * as PartitionSupervisor from "./PartitionSupervisor.ts"
export { Registry } from "./Registry.ts"
export * as Restart from "./Restart.ts"
export * as Supervised from "./Supervised.ts"
export * as Supervisor from "./Supervisor.ts"
export * as SupervisorError from "./SupervisorError.ts"
export * as SupervisorEvent from "./SupervisorEvent.ts"
export * as TaskSupervisor from "./TaskSupervisor.ts"
