/**
 * Every typed error of supervision. Fields hold the offending values.
 *
 * **Example** (Who made a supervisor give up, and why)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Child, Supervisor } from "@effect-orchestra/supervisor"
 * import { Effect } from "effect"
 *
 * const spec = Supervisor.make({
 *   name: "app",
 *   strategy: "one_for_one",
 *   intensity: 1,
 *   children: [Child.make("importer", Effect.fail("no such file"))]
 * })
 *
 * const program = Supervisor.run(spec).pipe(
 *   Effect.as("ended"),
 *   Effect.catchTag("RestartIntensityReached", (error) => Effect.succeed(`${error.child}, started ${error.attempts} times`))
 * )
 *
 * await Effect.runPromise(program.pipe(Effect.provide(Orchestrator.layer))) // => "importer, started 2 times"
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Schema from "effect/Schema"

/**
 * A child did not start, so its supervisor did not: the children before it were stopped again, in reverse order.
 *
 * @category errors
 * @since 0.1.0
 */
export class StartFailure extends Schema.TaggedError<StartFailure>()("StartFailure", {
  supervisor: Schema.String,
  child: Schema.String,
  cause: Schema.Cause(Schema.Defect(), Schema.Defect())
}) {
  override get message(): string {
    return `supervisor ${this.supervisor}: child "${this.child}" did not start: ${firstError(this.cause)}`
  }
}

/**
 * A supervisor gave up: one more restart would have exceeded `intensity` restarts within `periodMillis` (or the
 * child's backoff schedule had ended). `child` is the offender, `cause` its last failure, `attempts` how often it had
 * been started.
 *
 * @category errors
 * @since 0.1.0
 */
export class RestartIntensityReached extends Schema.TaggedError<RestartIntensityReached>()("RestartIntensityReached", {
  supervisor: Schema.String,
  child: Schema.String,
  cause: Schema.Cause(Schema.Defect(), Schema.Defect()),
  attempts: Schema.Int,
  intensity: Schema.Int,
  periodMillis: Schema.Finite
}) {
  override get message(): string {
    return `supervisor ${this.supervisor} gave up on child "${this.child}" after ${this.attempts} starts ` +
      `(${this.intensity} restarts in ${this.periodMillis} ms allowed): ${firstError(this.cause)}`
  }
}

const firstError = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  return error instanceof Error ? error.message : String(error)
}
