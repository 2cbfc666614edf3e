/**
 * What the command line of a plan needs of Node: it is loaded when a command runs, so that the rest of the package does
 * without.
 *
 * @internal
 */
import * as NodeMain from "@effect-orchestra/core/NodeMain"
import type * as EffectConsole from "effect/Console"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { createLogUpdate } from "log-update"
import { Console } from "node:console"
import { constants } from "node:os"
import process from "node:process"
import { Writable } from "node:stream"

/**
 * The first signal, and the exit code that goes with it.
 *
 * @internal
 */
export const firstSignal = Effect.map(NodeMain.firstSignal, (signal) => ({
  signal,
  exitCode: 128 + constants.signals[signal]
}))

/**
 * A console whose every word goes to standard error: standard output is for the report.
 *
 * @internal
 */
export const console: EffectConsole.Console = new Console(process.stderr, process.stderr)

/** @internal */
export interface Region {
  /** Writes to standard error, above the region. */
  readonly console: EffectConsole.Console
  /** Takes the region away while the effect runs. */
  readonly hiddenDuring: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
}

/**
 * A region at the end of standard error that shows the lines again and again. When the scope closes it is erased, and the
 * cursor is back, as it is when the process ends in the middle.
 *
 * @internal
 */
export const region = Effect.fnUntraced(function*(lines: (columns: number, frame: number) => ReadonlyArray<string>) {
  const log = createLogUpdate(process.stderr)
  let hidden = 0
  let frame = 0
  const draw = Effect.sync(() => {
    const text = hidden > 0 ? [] : lines(process.stderr.columns, frame++)
    if (text.length > 0) log(text.join("\n"))
  })
  const erase = Effect.sync(() => {
    log.clear()
    log.done()
  })
  const above = new Writable({
    write: (chunk, _encoding, done) => {
      log.clear()
      process.stderr.write(chunk, done)
    }
  })
  yield* Effect.addFinalizer(() => erase)
  // What is over within the first frame shows nothing.
  yield* Effect.forkScoped(Effect.repeat(Effect.delay(draw, "80 millis"), Schedule.forever))
  return {
    console: new Console(above, above),
    hiddenDuring: (effect) =>
      Effect.acquireUseRelease(
        Effect.andThen(Effect.sync(() => void hidden++), erase),
        () => effect,
        () => Effect.sync(() => void hidden--)
      )
  } satisfies Region as Region
})
