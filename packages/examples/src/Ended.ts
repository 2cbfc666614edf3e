/**
 * How a command ends: an expected error is one line on standard error, and the exit code is that of the error.
 */
import * as SupervisorError from "@effect-orchestra/supervisor/SupervisorError"
import { Cause, Console, Effect, Runtime, Schema } from "effect"

/** All that there is to say was said: the command ends with this code. */
export class EndedWith extends Schema.TaggedError<EndedWith>()("EndedWith", { exitCode: Schema.Int }) {
  override readonly [Runtime.errorExitCode] = this.exitCode
  override readonly [Runtime.errorReported] = false
}

/** Tells an error, if that was not done, and ends with its code. Of a part that did not start it tells why. */
export const tell = (error: Error): Effect.Effect<never, EndedWith> => {
  const squashed = error instanceof SupervisorError.StartFailure ? Cause.squash(error.cause) : error
  const reason = squashed instanceof Error ? squashed : error
  return Effect.andThen(
    Runtime.getErrorReported(reason) ? Console.error(reason.message) : Effect.void,
    Effect.fail(new EndedWith({ exitCode: Runtime.getErrorExitCode(squashed) }))
  )
}
