/**
 * OTP supervision for Effect: children, strategies, restart intensity, supervised layers.
 *
 * @since 0.1.0
 */
export * as Child from "./Child.ts"
export * as Restart from "./Restart.ts"
export * as Supervisor from "./Supervisor.ts"
export * as SupervisorError from "./SupervisorError.ts"
export * as SupervisorEvent from "./SupervisorEvent.ts"
