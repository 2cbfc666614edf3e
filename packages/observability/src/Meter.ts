/**
 * A metric's values: one number, or one histogram, for each set of attribute values, and never more sets than a
 * monitoring system can bear.
 *
 * Whoever chooses attribute values (routine names, error types) may choose without end; each new one is a series
 * that lives as long as the process. Beyond the bounds everything is added to one series that is marked
 * `otel.metric.overflow="true"`: sums stay right, memory stays flat.
 *
 * **Example** (Names beyond the bound)
 *
 * ```ts import.meta.vitest
 * import { Meter, MetricTable } from "@effect-orchestra/observability"
 *
 * const starts = Meter.make(MetricTable.routineStarts, { maxValues: 1 })
 * for (const name of ["mailer", "poller", "pdf"]) starts.add([name], 1)
 *
 * const series = Array.from(starts.series.values(), ({ attributes, value }) => [...attributes.flat(), value])
 * series // => [["orchestra.routine.name", "mailer", 1], ["otel.metric.overflow", "true", 2]]
 * ```
 *
 * @since 0.1.0
 */
import { overflow as overflowAttribute } from "./Attributes.ts"
import type { Metric } from "./MetricTable.ts"

/**
 * One observation that stands for others, and the span within which it was made. `at` is wall clock milliseconds.
 *
 * @category models
 * @since 0.1.0
 */
export interface Exemplar {
  readonly traceId: string
  readonly spanId: string
  readonly value: number
  readonly at: number
}

/**
 * The value of a metric under one set of attributes. For a histogram `value` is the sum of what was recorded and
 * `buckets` counts it by upper bound, the last one being infinity.
 *
 * **Details**
 *
 * Counts are 64-bit floats, exact up to 2^53; a `Uint32Array` would wrap after a few weeks of a busy service.
 *
 * @category models
 * @since 0.1.0
 */
export interface Series {
  readonly attributes: ReadonlyArray<readonly [name: string, value: string]>
  value: number
  readonly buckets: Float64Array
  /** The last one of each bucket, or of the counter. */
  readonly exemplars: Array<Exemplar | undefined>
  /** Of a summary, whose `value` is a sum: how many observations it sums, and quantiles of the recent ones. */
  summary?: { readonly count: number; readonly quantiles: ReadonlyArray<readonly [quantile: number, value: number]> }
}

/**
 * A metric and its values so far, in the order in which their attributes were first seen.
 *
 * @category models
 * @since 0.1.0
 */
export interface Meter {
  readonly metric: Metric
  readonly series: ReadonlyMap<string, Series>
  /** The series under these attributes, given in the metric's order, made if there is none: that of the overflow beyond the bounds. */
  readonly at: (values: ReadonlyArray<string | undefined>) => Series
  /** Adds to the value under these attributes, given in the metric's order; `undefined` leaves one out. */
  readonly add: (values: ReadonlyArray<string | undefined>, amount: number, exemplar?: Exemplar) => void
  /** Records one observation in a histogram. */
  readonly record: (values: ReadonlyArray<string | undefined>, observation: number, exemplar?: Exemplar) => void
  /** Keeps the highest value seen under these attributes, at least 0. */
  readonly max: (values: ReadonlyArray<string | undefined>, value: number) => void
}

/**
 * How far a metric may grow.
 *
 * @category models
 * @since 0.1.0
 */
export interface Bounds {
  /** How many distinct values each attribute may have. Default 200. */
  readonly maxValues?: number | undefined
  /** How many sets of them there may be. Default 2,000, that of the OpenTelemetry SDKs. */
  readonly maxSeries?: number | undefined
}

const overflow = "overflow"

/** Series by the values of their attributes, one after the other. */
type Branch = Map<string | undefined, Branch | Series>

/**
 * Makes a meter without values.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (metric: Metric, { maxSeries = 2000, maxValues = 200 }: Bounds = {}): Meter => {
  const boundaries = metric.boundaries ?? []
  const series = new Map<string, Series>()
  const known = metric.attributes.map(() => new Set<string>())
  const paths: Branch = new Map()
  const depth = metric.attributes.length
  // What was asked for last, in an array of its own: that of the caller is the caller's.
  const lastValues: Array<string | undefined> = metric.attributes.map(() => undefined)
  let last: Series | undefined

  const insert = (key: string, attributes: Series["attributes"]): Series => {
    const made: Series = {
      attributes,
      value: 0,
      buckets: new Float64Array(metric.kind === "histogram" ? boundaries.length + 1 : 0),
      exemplars: []
    }
    series.set(key, made)
    return made
  }

  /** A counter is updated in some ten nanoseconds: a key made of the values would cost ten times that. */
  const at = (values: ReadonlyArray<string | undefined>): Series => {
    // Most updates are of the series of the one before.
    let same = last !== undefined
    for (let i = 0; same && i < depth; i++) same = values[i] === lastValues[i]
    if (same && last !== undefined) return last
    last = find(values)
    for (let i = 0; i < depth; i++) lastValues[i] = values[i]
    return last
  }

  const find = (values: ReadonlyArray<string | undefined>): Series => {
    let found: Branch | Series | undefined = paths
    for (let i = 0; i < depth && found !== undefined; i++) found = (found as Branch).get(values[i])
    // As deep as there are attributes stand the series.
    return depth === 0 || found === undefined ? enter(values) : found as Series
  }

  const enter = (given: ReadonlyArray<string | undefined>): Series => {
    // Lone surrogates all encode to the same bytes: two such names would be one series, twice.
    const values = metric.attributes.map((_, index) => given[index]?.toWellFormed())
    // Names without end end here, and are worth no key.
    const isTooMuch = known.some((seen, index) => {
      const value = values[index]
      return value !== undefined && !seen.has(value) && (seen.size >= maxValues || series.size >= maxSeries)
    })
    const key = isTooMuch ? overflow : JSON.stringify(values)
    const existing = series.get(key)
    if (existing !== undefined) return existing
    if (isTooMuch || series.size >= maxSeries) {
      return series.get(overflow) ?? insert(overflow, [[overflowAttribute, "true"]])
    }
    const attributes: Array<readonly [string, string]> = []
    metric.attributes.forEach((name, index) => {
      const value = values[index]
      if (value === undefined) return
      known[index]?.add(value)
      attributes.push([name, value])
    })
    const made = insert(key, attributes)
    let branch = paths
    values.forEach((value, index) => {
      if (index === depth - 1) return void branch.set(value, made)
      const next = (branch.get(value) ?? new Map()) as Branch
      branch.set(value, next)
      branch = next
    })
    return made
  }

  return {
    metric,
    series,
    at,
    add: (values, amount, exemplar) => {
      const into = at(values)
      into.value += amount
      if (exemplar !== undefined) into.exemplars[0] = exemplar
    },
    record: (values, observation, exemplar) => {
      const into = at(values)
      const bucket = recordIn(into, boundaries, observation)
      if (exemplar !== undefined) into.exemplars[bucket] = exemplar
    },
    max: (values, value) => {
      const into = at(values)
      into.value = Math.max(into.value, value)
    }
  }
}

/**
 * Records one observation in a series of a histogram with these boundaries, and returns its bucket. For who keeps the
 * series: to look it up costs more than this.
 *
 * @internal
 */
export const recordIn = (series: Series, boundaries: ReadonlyArray<number>, observation: number): number => {
  let bucket = 0
  // What is no number is in the last one.
  while (bucket < boundaries.length && !(observation <= (boundaries[bucket] ?? NaN))) bucket++
  series.buckets[bucket] = (series.buckets[bucket] ?? 0) + 1
  series.value += observation
  return bucket
}

/**
 * Whether values were added to the overflow series because a bound was reached.
 *
 * @category getters
 * @since 0.1.0
 */
export const overflowed = (meter: Meter): boolean => meter.series.has(overflow)
