/** Meters as the OTLP messages that Effect's serialization takes. */
import type { MetricsData } from "effect/observability/OtlpMetrics"
import { entriesToAttributes, type Resource } from "effect/observability/OtlpResource"
import { overflow } from "../Attributes.ts"
import type { Meter, Series } from "../Meter.ts"

/** The instrumentation scope of all metrics. */
export const scope = { name: "@effect-orchestra/observability" }

/**
 * When all counting began, in milliseconds: with the process, since nothing here outlives one. A later moment would
 * claim that what was counted before it happened after it.
 */
export const start = performance.timeOrigin

/** The attributes of a series: the mark of the overflow is a boolean in OTLP. */
export const attributes = (series: Series): ReadonlyArray<[string, string | boolean]> =>
  series.attributes.map(([name, value]) => [name, name === overflow ? true : value])

export const count = (series: Series): number => series.buckets.reduce((sum, inBucket) => sum + inBucket, 0)

type Metric = MetricsData["resourceMetrics"][number]["scopeMetrics"][number]["metrics"][number]

/** `now` is in milliseconds. A meter without series is left out: a metric without points is not valid. */
export const encode = (meters: ReadonlyArray<Meter>, resource: Resource, now: number): MetricsData => {
  const metrics = meters.filter(({ series }) => series.size > 0).map((meter) => metric(meter, nanos(now)))
  return { resourceMetrics: [{ resource, scopeMetrics: [{ scope, metrics }] }] }
}

const nanos = (milliseconds: number): string => String(BigInt(Math.round(milliseconds * 1000)) * 1000n)

const cumulative = 2

const metric = ({ metric, series }: Meter, timeUnixNano: string): Metric => {
  const { description, name, unit } = metric
  const all = Array.from(series.values())
  const common = (series: Series) => ({
    attributes: entriesToAttributes(attributes(series)),
    startTimeUnixNano: nanos(start),
    timeUnixNano
  })
  if (metric.kind === "histogram") {
    const dataPoints = all.map((series) => ({
      ...common(series),
      count: count(series),
      sum: series.value,
      bucketCounts: Array.from(series.buckets),
      explicitBounds: [...metric.boundaries ?? []]
    }))
    return { name, description, unit, histogram: { aggregationTemporality: cumulative, dataPoints } }
  }
  if (metric.kind === "summary") {
    const dataPoints = all.map((series) => ({
      ...common(series),
      count: series.summary?.count ?? 0,
      sum: series.value,
      quantileValues: (series.summary?.quantiles ?? []).map(([quantile, value]) => ({ quantile, value }))
    }))
    return { name, description, unit, summary: { dataPoints } }
  }
  const dataPoints = all.map((series) => ({ ...common(series), asDouble: series.value }))
  if (metric.kind === "gauge") return { name, description, unit, gauge: { dataPoints } }
  const isMonotonic = metric.kind === "counter"
  return { name, description, unit, sum: { aggregationTemporality: cumulative, isMonotonic, dataPoints } }
}
