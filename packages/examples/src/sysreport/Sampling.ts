/**
 * Rates: two readings of the same counters, and the time that really passed between them.
 */
import { Clock, Context, Duration, Effect } from "effect"

/** The time between the two readings. Default 1 second. */
export const Sampling = Context.Reference<{ readonly interval: Duration.Duration }>("sysreport/Sampling", {
  defaultValue: () => ({ interval: Duration.seconds(1) })
})

export interface Sample<A> {
  readonly before: A
  readonly after: A
  /** What the clock says that passed: on a busy machine more than the interval. */
  readonly seconds: number
}

/** Reads twice, one interval apart. */
export const sample = <A, E, R>(read: Effect.Effect<A, E, R>): Effect.Effect<Sample<A>, E, R> =>
  Effect.gen(function*() {
    const { interval } = yield* Sampling
    const [startedAt, before] = yield* stamped(read)
    yield* Effect.sleep(interval)
    const [endedAt, after] = yield* stamped(read)
    return { before, after, seconds: Number(endedAt - startedAt) / 1e9 }
  })

const stamped = <A, E, R>(read: Effect.Effect<A, E, R>) => Effect.zip(Clock.monotonicTimeNanos, read)

/**
 * What a counter rose by. Counters that begin again at 0 after their last value have 32, 40 or 64 bits: one that was in
 * the last quarter of such a range and is in the first one has done so. Any other that fell was set back to 0, as when
 * its device was, and has risen since by what it shows.
 */
export const rise = (before: number, after: number): number => {
  if (after >= before) return after - before
  const range = ranges.find((range) => before < range)
  return range !== undefined && before >= range * 0.75 && after < range * 0.25 ? after + (range - before) : after
}

const ranges = [2 ** 32, 2 ** 40, 2 ** 64]

/** What a counter rose by in each second of a sample; `undefined` if one of the readings lacks it. */
export const rate = <A>(
  { after, before, seconds }: Sample<A>,
  counter: (reading: A) => number | undefined
): number | undefined => {
  const from = counter(before)
  const to = counter(after)
  return from === undefined || to === undefined || seconds <= 0 ? undefined : rise(from, to) / seconds
}
