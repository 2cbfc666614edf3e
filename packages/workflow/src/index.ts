/**
 * Sagas, plans and collectors for Effect.
 *
 * @since 0.1.0
 */
export * as Collect from "./Collect.ts"
export * as Plan from "./Plan.ts"
export * as Saga from "./Saga.ts"
export * as SagaEvent from "./SagaEvent.ts"
export * as WorkflowError from "./WorkflowError.ts"
