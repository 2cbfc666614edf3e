/**
 * A metric's values: one number, or one histogram, for each set of attribute values, and never more sets than a
 * monitoring system can bear.
 *
 * Whoever chooses attribute values (routine names, error types) may choose without end; each new one is a series
 * that lives as long as the process. Beyond the bounds everything is added to one series that is marked
 * `otel.metric.overflow="true"`: sums stay right, memory stays flat.
 *
 * @since 0.1.0
 */
import type { Metric } from "./MetricTable.ts"

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
  /** Adds to the value under these attributes, given in the metric's order; `undefined` leaves one out. */
  readonly add: (values: ReadonlyArray<string | undefined>, amount: number) => void
  /** Records one observation in a histogram. */
  readonly record: (values: ReadonlyArray<string | undefined>, observation: number) => void
  /** Keeps the highest value seen under these attributes, at least 0. */
  readonly max: (values: ReadonlyArray<string | undefined>, value: number) => void
}

const overflow = "overflow"

/**
 * Makes a meter without values.
 *
 * **Details**
 *
 * `maxValues` bounds the distinct values of each attribute (default 200), `maxSeries` the sets of them
 * (default 2,000, that of the OpenTelemetry SDKs).
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (
  metric: Metric,
  options?: { readonly maxValues?: number | undefined; readonly maxSeries?: number | undefined }
): Meter => {
  const maxValues = options?.maxValues ?? 200
  const maxSeries = options?.maxSeries ?? 2000
  const boundaries = metric.boundaries ?? []
  const series = new Map<string, Series>()
  const known = metric.attributes.map(() => new Set<string>())

  const insert = (key: string, attributes: Series["attributes"]): Series => {
    const made: Series = {
      attributes,
      value: 0,
      buckets: new Float64Array(metric.kind === "histogram" ? boundaries.length + 1 : 0)
    }
    series.set(key, made)
    return made
  }

  const at = (given: ReadonlyArray<string | undefined>): Series => {
    // Lone surrogates all encode to the same bytes: two such names would be one series, twice.
    const values = given.map((value) => value?.toWellFormed())
    const key = JSON.stringify(values)
    const existing = series.get(key)
    if (existing !== undefined) return existing
    const fits = series.size < maxSeries && known.every((seen, index) => {
      const value = values[index]
      return value === undefined || seen.has(value) || seen.size < maxValues
    })
    if (!fits) return series.get(overflow) ?? insert(overflow, [["otel.metric.overflow", "true"]])
    const attributes: Array<readonly [string, string]> = []
    metric.attributes.forEach((name, index) => {
      const value = values[index]
      if (value === undefined) return
      known[index]?.add(value)
      attributes.push([name, value])
    })
    return insert(key, attributes)
  }

  return {
    metric,
    series,
    add: (values, amount) => {
      at(values).value += amount
    },
    record: (values, observation) => {
      const into = at(values)
      const index = boundaries.findIndex((bound) => observation <= bound)
      const bucket = index === -1 ? boundaries.length : index
      into.buckets[bucket] = (into.buckets[bucket] ?? 0) + 1
      into.value += observation
    },
    max: (values, value) => {
      const into = at(values)
      into.value = Math.max(into.value, value)
    }
  }
}

/**
 * Whether values were added to the overflow series because a bound was reached.
 *
 * @category getters
 * @since 0.1.0
 */
export const overflowed = (meter: Meter): boolean => meter.series.has(overflow)
