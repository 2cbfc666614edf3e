/**
 * Fibers that wait in the order they came, and how long they have waited.
 *
 * Entering, leaving and looking who is first are O(1). A `Set` is not: what has left it is passed over each time its
 * first is looked for, and 100,000 in a line take a second.
 *
 * **Example** (The second becomes the first)
 *
 * ```ts import.meta.vitest
 * import { Line, Place } from "@effect-orchestra/core/Line"
 *
 * const line = new Line()
 * const [a, b] = [new Place(undefined), new Place(undefined)]
 * line.add(a, 0)
 * line.add(b, 10)
 * line.delete(a, 15)
 * const second = line.first === b // => true
 * line.watch.total(20) // => 25
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
import type * as Effect from "effect/Effect"
import type * as Tracer from "effect/Tracer"
import type { RoutineRecord } from "./RoutineRecord.ts"
import { Stopwatch } from "./Stopwatch.ts"

/**
 * A place in a line. `own` is the stopwatch of the run that waits, `record` its routine, `span` the one that it is in.
 *
 * @category models
 * @since 0.1.0
 */
export class Place {
  readonly own: Stopwatch | undefined
  readonly record: RoutineRecord | undefined
  readonly span: Tracer.AnySpan | undefined
  since = 0
  previous: Place | undefined = undefined
  next: Place | undefined = undefined
  waits = false
  resume: (effect: Effect.Effect<unknown, unknown>) => void = () => undefined

  constructor(own: Stopwatch | undefined, record?: RoutineRecord, span?: Tracer.AnySpan) {
    this.own = own
    this.record = record
    this.span = span
  }
}

/**
 * A line of fibers. Times are monotonic milliseconds.
 *
 * @category models
 * @since 0.1.0
 */
export class Line<W extends Place> {
  private head: Place | undefined = undefined
  private tail: Place | undefined = undefined
  readonly watch = new Stopwatch()

  get size(): number {
    return this.watch.active
  }

  get first(): W | undefined {
    // Only what was added stands in it.
    return this.head as W | undefined
  }

  after(waiting: W): W | undefined {
    return waiting.next as W | undefined
  }

  add(waiting: W, now: number): void {
    waiting.previous = this.tail
    if (this.tail === undefined) this.head = waiting
    else this.tail.next = waiting
    this.tail = waiting
    waiting.waits = true
    waiting.since = now
    this.watch.enter(now)
    waiting.own?.enter(now)
  }

  /** Returns how long it has waited. */
  delete(waiting: W, now: number): number {
    const { next, previous } = waiting
    if (previous === undefined) this.head = next
    else previous.next = next
    if (next === undefined) this.tail = previous
    else next.previous = previous
    waiting.previous = waiting.next = undefined
    waiting.waits = false
    this.watch.leave(now)
    waiting.own?.leave(now)
    return now - waiting.since
  }
}
