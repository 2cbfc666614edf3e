/**
 * Renders meters in the Prometheus text format, version 0.0.4.
 *
 * Names, units and types come from `MetricTable`, so that what Prometheus scrapes here is what an OpenTelemetry
 * Collector would show it. Series stand in the order in which they were first seen, which does not change while
 * the process lives.
 *
 * **Example** (Two starts of one routine, as Prometheus scrapes them)
 *
 * ```ts import.meta.vitest
 * import { Meter, MetricTable, Prometheus } from "@effect-orchestra/observability"
 * import { Effect } from "effect"
 *
 * const starts = Meter.make(MetricTable.routineStarts)
 * starts.add(["mailer"], 2)
 *
 * const text = await Effect.runPromise(Prometheus.render([starts], { "service.name": "orders" }))
 * text.includes('orchestra_routine_starts_total{orchestra_routine_name="mailer"} 2') // => true
 * text.includes('target_info{service_name="orders"} 1') // => true
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type { Meter, Series } from "./Meter.ts"
import { labelName, prometheusName } from "./MetricTable.ts"

/**
 * The media type of what `render` returns.
 *
 * @category constants
 * @since 0.1.0
 */
export const contentType = "text/plain; version=0.0.4; charset=utf-8"

/**
 * Renders meters, with `resource` (what is measured: service name, process, runtime) as `target_info`.
 *
 * **Details**
 *
 * Lets other fibers run after every 250 series, so that a large rendering does not hold the event loop. One
 * histogram is always rendered whole: its buckets, sum and count agree.
 *
 * @category operations
 * @since 0.1.0
 */
export const render = Effect.fnUntraced(function*(
  meters: ReadonlyArray<Meter>,
  resource: { readonly [attribute: string]: string }
) {
  let out = header("target_info", "gauge", "What is measured here.") +
    sample("target_info", labels(Object.entries(resource)), 1)
  let sinceYield = 0
  for (const meter of meters) {
    const name = prometheusName(meter.metric)
    out += header(name, meter.metric.kind, meter.metric.description)
    for (const series of meter.series.values()) {
      out += meter.metric.kind === "histogram"
        ? histogram(name, series, meter.metric.boundaries ?? [])
        : sample(name, labels(series.attributes), series.value)
      if (++sinceYield === 250) {
        sinceYield = 0
        yield* Effect.yieldNow
      }
    }
  }
  return out
})

const header = (name: string, type: string, help: string): string =>
  `# HELP ${name} ${escape(help)}\n# TYPE ${name} ${type}\n`

const sample = (name: string, labels: string, value: number): string =>
  `${name}${labels === "" ? "" : `{${labels}}`} ${number(value)}\n`

const histogram = (name: string, series: Series, boundaries: ReadonlyArray<number>): string => {
  const own = labels(series.attributes)
  const prefix = own === "" ? "" : `${own},`
  let out = ""
  let count = 0
  series.buckets.forEach((inBucket, index) => {
    count += inBucket
    out += sample(`${name}_bucket`, `${prefix}le="${bound(boundaries[index] ?? Infinity)}"`, count)
  })
  return out + sample(`${name}_sum`, own, series.value) + sample(`${name}_count`, own, count)
}

const labels = (attributes: ReadonlyArray<readonly [name: string, value: string]>): string =>
  attributes.map(([name, value]) => `${labelName(name)}="${escape(value).replaceAll("\"", "\\\"")}"`).join(",")

const escape = (text: string): string => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")

const number = (value: number): string => value === Infinity ? "+Inf" : value === -Infinity ? "-Inf" : String(value)

/** As OpenMetrics writes it (`1.0`), in this format too: labels must not change with the negotiated format. */
const bound = (value: number): string => Number.isInteger(value) ? `${value}.0` : number(value)
