/**
 * How long something has been going on, several at a time: each adds its own time, as fiber-seconds do, and what is
 * still going on counts. Reading it is O(1).
 *
 * **Example** (Two at a time)
 *
 * ```ts import.meta.vitest
 * import { Stopwatch } from "@effect-orchestra/core/Stopwatch"
 *
 * const watch = new Stopwatch()
 * watch.enter(0)
 * watch.enter(10)
 * watch.leave(15)
 * watch.total(20) // => 25
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */

/**
 * A stopwatch of any number of hands. Times are those of one clock, in milliseconds.
 *
 * @category models
 * @since 0.1.0
 */
export class Stopwatch {
  /** How many go on now. */
  active = 0
  private ended = 0

  enter(now: number): void {
    this.active++
    this.ended -= now
  }

  leave(now: number): void {
    this.active--
    this.ended += now
  }

  /** Adds what was measured elsewhere. */
  add(millis: number): void {
    this.ended += millis
  }

  total(now: number): number {
    return this.active === 0 ? this.ended : this.ended + this.active * now
  }
}
