/**
 * The events that sagas add to the bus of core.
 *
 * **Example** (What a saga of one step and a failure goes through)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Saga } from "@effect-orchestra/workflow"
 * import { Effect } from "effect"
 *
 * const told: Array<string> = []
 * const flight = Saga.step("flight", { run: Effect.void, compensate: () => Effect.void })
 * const program = Effect.gen(function*() {
 *   yield* Orchestrator.instrument((event) => {
 *     if (event._tag === "SagaStepEnded") told.push(`${event.step} ${event.direction} ${event.outcome}`)
 *     if (event._tag === "SagaEnded") told.push(`${event.name} ${event.outcome} (${event.severity})`)
 *   })
 *   yield* Saga.outcome(Effect.andThen(flight, Effect.fail("no car")), { name: "trip" })
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
 * told // => ["flight forward success", "flight compensate success", "trip compensated (warning)"]
 * ```
 *
 * @since 0.1.0
 */
import { baseFields } from "@effect-orchestra/core/Event"
import * as Schema from "effect/Schema"

/**
 * Whether a step runs (`forward`) or is undone (`compensate`).
 *
 * @category models
 * @since 0.1.0
 */
export const Direction = Schema.Literals(["forward", "compensate"])

/** @since 0.1.0 */
export type Direction = typeof Direction.Type

/**
 * How one attempt ended. `timed_out` is one that was cut because its time was over.
 *
 * @category models
 * @since 0.1.0
 */
export const AttemptOutcome = Schema.Literals(["success", "failure", "defect", "interrupted", "timed_out"])

/** @since 0.1.0 */
export type AttemptOutcome = typeof AttemptOutcome.Type

/** How much an event matters to whoever knows nothing else of it. */
const Severity = Schema.Literals(["debug", "info", "warning", "error"])

const sagaFields = { ...baseFields, severity: Severity }

const stepFields = { ...sagaFields, step: Schema.String, direction: Direction, attempt: Schema.Int }

/** A saga begins. */
export const SagaStarted = Schema.TaggedStruct("SagaStarted", sagaFields)

/** An attempt of a step, or of its undo, begins; attempts count from 1 in either direction. */
export const SagaStepStarted = Schema.TaggedStruct("SagaStepStarted", stepFields)

/** That attempt has ended, well or, as a warning, not. `errorType` is that of its failure or defect, if it had one. */
export const SagaStepEnded = Schema.TaggedStruct("SagaStepEnded", {
  ...stepFields,
  durationMillis: Schema.Finite,
  outcome: AttemptOutcome,
  errorType: Schema.NullOr(Schema.String)
})

/**
 * A saga has ended: the steps that were undone, in that order, those whose undo gave up, and those that were not tried
 * after that. `pivot` is the point of no return that it has passed. It is an error when something is left half done.
 */
export const SagaEnded = Schema.TaggedStruct("SagaEnded", {
  ...sagaFields,
  outcome: Schema.Literals(["completed", "compensated", "stuck", "committed"]),
  durationMillis: Schema.Finite,
  pivot: Schema.NullOr(Schema.String),
  undone: Schema.Array(Schema.String),
  stuck: Schema.Array(Schema.String),
  notRun: Schema.Array(Schema.String)
})

/**
 * The events of sagas as one schema, for encoding and decoding.
 *
 * @category models
 * @since 0.1.0
 */
export const SagaEvent = Schema.Union([SagaStarted, SagaStepStarted, SagaStepEnded, SagaEnded])

/** @since 0.1.0 */
export type SagaEvent = typeof SagaEvent.Type

declare module "@effect-orchestra/core/Event" {
  interface EventMap {
    readonly SagaStarted: typeof SagaStarted.Type
    readonly SagaStepStarted: typeof SagaStepStarted.Type
    readonly SagaStepEnded: typeof SagaStepEnded.Type
    readonly SagaEnded: typeof SagaEnded.Type
  }
}
