/**
 * The clock behind `TestOrchestra.run`: time stands still until nobody has anything to do, then it jumps.
 *
 * Unlike a `TestClock` it knows when the next sleeper wakes, and so can be moved by whoever sees that all are blocked.
 *
 * **Example** (An hour passes in no time)
 *
 * ```ts import.meta.vitest
 * import { TestOrchestra } from "@effect-orchestra/core/testing"
 * import { Clock, Effect } from "effect"
 *
 * const program = Effect.andThen(Effect.sleep("1 hour"), Clock.currentTimeMillis)
 *
 * await Effect.runPromise(TestOrchestra.run(program)) // => 3_600_000
 * ```
 *
 * @since 0.1.0
 */
import type * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { SeededScheduler } from "./SeededScheduler.ts"

interface Sleeper {
  readonly at: number
  readonly order: number
  readonly wake: () => void
}

/**
 * A clock that starts at 0, for the fibers of one scheduler. Who sleeps until the same time wakes in the order that
 * the scheduler picks.
 *
 * @category services
 * @since 0.1.0
 */
export class VirtualClock implements Clock.Clock {
  private readonly scheduler: SeededScheduler
  /** The next one last. */
  private readonly sleepers: Array<Sleeper> = []
  private order = 0
  private millis = 0

  constructor(scheduler: SeededScheduler) {
    this.scheduler = scheduler
  }

  currentTimeMillisUnsafe(): number {
    return this.millis
  }

  currentTimeNanosUnsafe(): bigint {
    return BigInt(Math.round(this.millis * 1_000_000))
  }

  monotonicTimeNanosUnsafe(): bigint {
    return this.currentTimeNanosUnsafe()
  }

  readonly currentTimeMillis = Effect.sync(() => this.currentTimeMillisUnsafe())
  readonly currentTimeNanos = Effect.sync(() => this.currentTimeNanosUnsafe())
  readonly monotonicTimeNanos = Effect.sync(() => this.monotonicTimeNanosUnsafe())

  sleep(duration: Duration.Duration): Effect.Effect<void> {
    const millis = Duration.toMillis(duration)
    if (millis <= 0) return Effect.yieldNow
    if (millis === Infinity) return Effect.never
    return Effect.callback((resume) => {
      const sleeper = { at: this.millis + millis, order: ++this.order, wake: () => resume(Effect.void) }
      this.sleepers.splice(this.placeOf(sleeper), 0, sleeper)
      return Effect.sync(() => {
        const place = this.placeOf(sleeper)
        if (this.sleepers[place] === sleeper) this.sleepers.splice(place, 1)
      })
    })
  }

  /** What `TestClock.adjust` asks for: here, to wait so long, and until all that became due has been done. */
  adjust(duration: Duration.Input): Effect.Effect<void> {
    // Of all that is ready, the least urgent.
    return Effect.andThen(this.sleep(Duration.fromInputUnsafe(duration)), Effect.yieldNowWith(Infinity))
  }

  /** Jumps to the next time at which somebody wakes; returns false when nobody sleeps. */
  advance(): boolean {
    const next = this.sleepers.at(-1)
    if (next === undefined) return false
    this.millis = next.at
    const dispatcher = this.scheduler.makeDispatcher()
    for (let due = next as Sleeper | undefined; due?.at === next.at; due = this.sleepers.at(-1)) {
      this.sleepers.pop()
      dispatcher.scheduleTask(due.wake, 0)
    }
    return true
  }

  private placeOf({ at, order }: Sleeper): number {
    let low = 0
    let high = this.sleepers.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const sleeper = this.sleepers[middle]
      if (sleeper !== undefined && (sleeper.at > at || (sleeper.at === at && sleeper.order > order))) low = middle + 1
      else high = middle
    }
    return low
  }
}
