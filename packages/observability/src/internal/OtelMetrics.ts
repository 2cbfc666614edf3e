/** Meters as the data that the metric readers of the SDK take. */
import { type HrTime, ValueType } from "@opentelemetry/api"
import type { Resource } from "@opentelemetry/resources"
import {
  AggregationTemporality,
  type CollectionResult,
  DataPointType,
  type MetricData,
  type MetricProducer
} from "@opentelemetry/sdk-metrics"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { Meter, Series } from "../Meter.ts"
import type { Telemetry } from "../Telemetry.ts"
import * as OtlpMetrics from "./OtlpMetrics.ts"

/** Reads all meters whenever the reader asks. */
export const producer = Effect.fnUntraced(function*(telemetry: Telemetry["Service"], resource: Resource) {
  const run = Effect.runPromiseWith(yield* Effect.context<never>())
  const collect = Effect.map(
    Effect.all([telemetry.collect, Clock.currentTimeMillis]),
    ([meters, now]): CollectionResult => ({
      resourceMetrics: { resource, scopeMetrics: [{ scope: OtlpMetrics.scope, metrics: encode(meters, now) }] },
      errors: []
    })
  )
  const producer: MetricProducer = { collect: () => run(collect) }
  return producer
})

const encode = (meters: ReadonlyArray<Meter>, now: number): Array<MetricData> =>
  meters.flatMap(split).filter(({ series }) => series.size > 0).map((meter) => metric(meter, hrTime(now)))

/** The SDK has no summaries: what one says becomes a gauge of its quantiles and two counters. */
const split = (meter: Meter): ReadonlyArray<Meter> => {
  if (meter.metric.kind !== "summary") return [meter]
  const all = Array.from(meter.series.values())
  const part = (suffix: string, kind: "gauge" | "counter", series: ReadonlyArray<Series>): Meter => ({
    ...meter,
    metric: { ...meter.metric, name: `${meter.metric.name}${suffix}`, kind },
    series: new Map(series.map((series, index) => [String(index), series]))
  })
  const quantiles = all.flatMap((series) =>
    (series.summary?.quantiles ?? []).map(([quantile, value]): Series => ({
      ...series,
      attributes: [...series.attributes, ["quantile", String(quantile)]],
      value
    }))
  )
  return [
    part("", "gauge", quantiles),
    part(".sum", "counter", all),
    part(".count", "counter", all.map((series) => ({ ...series, value: series.summary?.count ?? 0 })))
  ]
}

const hrTime = (milliseconds: number): HrTime => [
  Math.floor(milliseconds / 1000),
  Math.round((milliseconds % 1000) * 1e6)
]

const metric = ({ metric, series }: Meter, endTime: HrTime): MetricData => {
  const { description, kind, name, unit } = metric
  const all = Array.from(series.values())
  const common = {
    descriptor: { name, description, unit, valueType: ValueType.DOUBLE },
    aggregationTemporality: AggregationTemporality.CUMULATIVE
  }
  const point = <A>(series: Series, value: A) => ({
    attributes: Object.fromEntries(OtlpMetrics.attributes(series)),
    startTime: hrTime(OtlpMetrics.start),
    endTime,
    value
  })
  if (kind === "histogram") {
    const boundaries = [...metric.boundaries ?? []]
    const dataPoints = all.map((series) =>
      point(series, {
        buckets: { boundaries, counts: Array.from(series.buckets) },
        count: OtlpMetrics.count(series),
        sum: series.value
      })
    )
    return { ...common, dataPointType: DataPointType.HISTOGRAM, dataPoints }
  }
  const dataPoints = all.map((series) => point(series, series.value))
  return kind === "gauge"
    ? { ...common, dataPointType: DataPointType.GAUGE, dataPoints }
    : { ...common, dataPointType: DataPointType.SUM, isMonotonic: kind === "counter", dataPoints }
}
