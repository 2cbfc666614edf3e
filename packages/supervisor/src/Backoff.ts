/**
 * Ready-made delays before a restart, as schedules for the `backoff` of a child. They work wherever Effect takes a
 * schedule; none of them ends.
 *
 * The pauses between the failures of one child must not become the pauses of all who share its cause: `exponential` and
 * `decorrelated` spread them at random. `decay` restarts at once as long as failures are rare, and pauses when they are
 * not. Randomness is Effect's `Random`, time is what the schedule is driven with.
 *
 * **Example** (A child that is restarted after 1, 2, 4 and then every 5 seconds)
 *
 * ```ts import.meta.vitest
 * import { Backoff, Child } from "@effect-orchestra/supervisor"
 * import { Duration, Effect, Schedule } from "effect"
 *
 * const backoff = Backoff.exponential({ base: "1 second", max: "5 seconds", jitter: "none" })
 * const child = Child.make("importer", Effect.never, { backoff })
 *
 * const seconds = Effect.gen(function*() {
 *   const step = yield* Schedule.toStep(backoff)
 *   const delays = yield* Effect.replicateEffect(step(0, undefined), 4)
 *   return delays.map(([, delay]) => Duration.toSeconds(delay))
 * })
 *
 * await Effect.runPromise(seconds) // => [1, 2, 4, 5]
 * ```
 *
 * @since 0.1.0
 */
import { millisOf } from "@effect-orchestra/core/Kernel"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"

/**
 * How a delay is spread: over all of it, from zero on (`"full"`), over its second half (`"equal"`), or not (`"none"`).
 *
 * @category models
 * @since 0.1.0
 */
export type Jitter = "full" | "equal" | "none"

/**
 * Delays that grow by `factor` from `base` (default 100 milliseconds, then twice as long each time) up to `max` (default
 * 30 seconds). The jitter comes after the cap, so that delays do not pile up at it; it is `"full"` by default: anything
 * from 0 up to the delay. The output of the schedule is the delay before the jitter.
 *
 * A `base` or `max` that is not positive and finite, a `max` below `base`, or a `factor` below 1 is a defect, and so is
 * an unknown option, here and below.
 *
 * @category constructors
 * @since 0.1.0
 */
export const exponential = (options: {
  readonly base?: Duration.Input | undefined
  readonly factor?: number | undefined
  readonly max?: Duration.Input | undefined
  readonly jitter?: Jitter | undefined
} = {}): Schedule.Schedule<Duration.Duration> => {
  only(options, "base", "factor", "max", "jitter")
  const { factor = 2, jitter = "full" } = options
  const { base, max } = bounds(options)
  if (!(factor >= 1)) throw new Error(`the factor of a backoff is a number from 1 on, got: ${factor}`)
  return Schedule.modifyDelay(
    Schedule.min([Schedule.exponential(base, factor), Schedule.spaced(max)]),
    spread(jitter)
  )
}

/**
 * Delays of which each is drawn from between `base` (default 100 milliseconds) and three times the one before it, and is
 * `max` (default 30 seconds) at most: they grow like `exponential` ones, but depend on luck instead of on the number of
 * failures, so that those who failed together drift apart. The output of the schedule is the delay.
 *
 * A `base` or `max` that is not positive and finite, or a `max` below `base`, is a defect.
 *
 * @category constructors
 * @since 0.1.0
 */
export const decorrelated = (options: {
  readonly base?: Duration.Input | undefined
  readonly max?: Duration.Input | undefined
} = {}): Schedule.Schedule<Duration.Duration> => {
  only(options, "base", "max")
  const { base, max } = bounds(options)
  return Schedule.fromStep(Effect.sync(() => {
    let previous = base
    return () =>
      Effect.map(Random.nextBetween(base, previous * 3), (drawn) => {
        previous = Math.min(max, drawn)
        const delay = Duration.millis(previous)
        return [delay, delay]
      })
  }))
}

/**
 * No delay as long as failures are rare, else a pause: each failure counts 1 and is worth half after `decay` (default 30
 * seconds), and one that lifts the sum above `threshold` (default 5) pauses for `pause` (default 15 seconds); then the
 * count begins anew. With a jitter (default `"none"`) the pause is shorter. The output of the schedule is the sum.
 *
 * A child forgets its schedule after a run of its `resetAfter`: give it a long one, this schedule forgets by itself. The
 * restarts count against the `intensity` of the supervisor as any others do.
 *
 * A `decay` or `pause` that is not positive, a pause without end, or a `threshold` below 0 is a defect.
 *
 * @category constructors
 * @since 0.1.0
 */
export const decay = (options: {
  readonly threshold?: number | undefined
  readonly decay?: Duration.Input | undefined
  readonly pause?: Duration.Input | undefined
  readonly jitter?: Jitter | undefined
} = {}): Schedule.Schedule<number> => {
  only(options, "threshold", "decay", "pause", "jitter")
  const { jitter = "none", threshold = 5 } = options
  const half = positive("the decay of a backoff", options.decay ?? "30 seconds")
  const pause = finite("the pause of a backoff", options.pause ?? "15 seconds")
  if (!(threshold >= 0)) throw new Error(`the threshold of a backoff is a number from 0 on, got: ${threshold}`)
  const pauses = Schedule.fromStepWithMetadata(Effect.sync(() => {
    let failures = 0
    return ({ elapsedSincePrevious }: Schedule.InputMetadata<unknown>) => {
      const sum = failures = failures * 0.5 ** (elapsedSincePrevious / half) + 1
      if (sum > threshold) failures = 0
      return Effect.succeed<[number, Duration.Duration]>([sum, Duration.millis(sum > threshold ? pause : 0)])
    }
  }))
  return Schedule.modifyDelay(pauses, spread(jitter))
}

const only = (options: object, ...known: ReadonlyArray<string>): void => {
  const unknown = Object.keys(options).find((key) => !known.includes(key))
  if (unknown !== undefined) throw new Error(`unknown option of a backoff, got: ${unknown}`)
}

const bounds = (options: {
  readonly base?: Duration.Input | undefined
  readonly max?: Duration.Input | undefined
}): { readonly base: number; readonly max: number } => {
  const base = finite("the base of a backoff", options.base ?? "100 millis")
  const max = finite("the max of a backoff", options.max ?? "30 seconds")
  if (max < base) throw new Error(`the max of a backoff is at least its base of ${base} ms, got: ${max} ms`)
  return { base, max }
}

const finite = (what: string, input: Duration.Input): number => {
  const millis = positive(what, input)
  if (millis === Infinity) throw new Error(`${what} is finite, got: ${String(input)}`)
  return millis
}

const positive = (what: string, input: Duration.Input): number => {
  const millis = millisOf(what, input)
  if (millis === 0) throw new Error(`${what} is a positive duration, got: ${String(input)}`)
  return millis
}

const spread = (jitter: Jitter) => {
  const least = shares.get(jitter)
  if (least === undefined) {
    throw new Error(`the jitter of a backoff is one of ${[...shares.keys()].join(", ")}, got: ${jitter}`)
  }
  return ({ duration }: { readonly duration: Duration.Duration }): Effect.Effect<Duration.Duration> =>
    least === 1 || Duration.isZero(duration)
      ? Effect.succeed(duration)
      : Effect.map(
        Random.next,
        (random) => Duration.millis(Duration.toMillis(duration) * (least + (1 - least) * random))
      )
}

/** The share of a delay that its jitter leaves at least. */
const shares: ReadonlyMap<Jitter, number> = new Map([["full", 0], ["equal", 0.5], ["none", 1]])
