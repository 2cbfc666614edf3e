/**
 * What the service tells on standard output.
 */
import { Context, Effect, Latch, Layer, Terminal } from "effect"
import { TerminalCapabilities } from "effect/cli"

export class Display extends Context.Service<Display, {
  /** Prints the first line; all others wait for it. */
  readonly announce: (text: string) => Effect.Effect<void>
  readonly line: (text: string) => Effect.Effect<void>
  /**
   * Tells how much of a job is done: on a terminal in one line that is rewritten, elsewhere in a line for each 10 %.
   * Of fewer than ten files nothing is told.
   */
  readonly progress: (done: number, total: number) => Effect.Effect<void>
}>()("backup-service/Display") {
  static readonly layer = Layer.effect(
    Display,
    Effect.gen(function*() {
      const terminal = yield* Terminal.Terminal
      const { canAnimate } = yield* TerminalCapabilities.TerminalCapabilities
      const announced = yield* Latch.make()
      const clear = canAnimate ? "\r\u001b[2K" : ""
      // Nobody reads any more (a closed pipe): that is no reason to stop backing up.
      const print = (text: string) => Effect.ignore(terminal.display(text))

      let shown = 0
      return {
        announce: (text) => Effect.andThen(print(`${text}\n`), announced.open),
        line: (text) => announced.whenOpen(print(`${clear}${text}\n`)),
        progress: (done, total) =>
          Effect.suspend(() => {
            const step = canAnimate ? 1 : 10
            const percent = Math.floor(100 * done / total / step) * step
            if (percent === shown || total < 10) return Effect.void
            // The next job starts at 0 again.
            shown = percent === 100 ? 0 : percent
            const text = `${percent} % (${done} of ${total} files)`
            return announced.whenOpen(print(canAnimate ? clear + (percent === 100 ? "" : text) : `${text}\n`))
          })
      }
    })
  )
}
