/**
 * How many of what is asked for are under way: up to `max`, and then none until there are no more than `min`.
 *
 * @internal
 */
import { Waiters, waitFor, type Writer } from "@effect-orchestra/core/Writer"
import * as Effect from "effect/Effect"

export class Demand {
  private readonly writer: Writer
  private readonly max: number
  private readonly min: number
  private live = 0
  private isMet = false
  private readonly waiters = new Waiters<void>()
  /** Waits until something may be asked for. */
  readonly open: Effect.Effect<void>

  constructor(writer: Writer, max: number, min: number) {
    this.writer = writer
    this.max = max
    this.min = min
    this.open = Effect.suspend(() =>
      this.isMet ? waitFor(this.waiters, () => this.isMet ? undefined : Effect.void) : Effect.void
    )
  }

  enter(): void {
    if (++this.live >= this.max) this.isMet = true
  }

  leave(): void {
    if (--this.live > this.min || !this.isMet) return
    this.isMet = false
    this.waiters.wake(this.writer, undefined)
  }
}
