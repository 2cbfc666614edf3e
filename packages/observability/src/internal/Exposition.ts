/** The two text formats that Prometheus reads, written piece by piece. */
import type { Exemplar, Meter, Series } from "../Meter.ts"
import { labelName, type Metric, prometheusName, unitTokens } from "../MetricTable.ts"

export type Format = "text" | "openmetrics"

/** So many samples stand in one piece, or as many as one series has. */
const pieceSize = 250

/**
 * Yields the text in pieces; what reads it lets others run in between. The samples of one series never stand in two
 * pieces: the buckets, sum and count of a histogram agree.
 */
export function* write(
  meters: ReadonlyArray<Meter>,
  resource: { readonly [attribute: string]: string },
  format: Format
): Generator<string, void> {
  const open = format === "openmetrics"
  const info: readonly [string, string] = open ? ["target", "info"] : ["target_info", "gauge"]
  let piece = header(open, ...info, "What is measured here.") +
    sample("target_info", labels(distinct(Object.entries(resource))), 1)
  let samples = 0
  for (const { metric, series } of meters) {
    if (series.size === 0) continue
    const name = metric.kind === "counter" ? prometheusName(metric).replace(/_total$/, "") : prometheusName(metric)
    const unit = unitTokens(metric).join("_")
    piece += header(
      open,
      open || metric.kind !== "counter" ? name : `${name}_total`,
      types[metric.kind],
      metric.description
    )
    if (open && unit !== "" && name.endsWith(`_${unit}`)) piece += `# UNIT ${name} ${unit}\n`
    for (const each of series.values()) {
      piece += writers[metric.kind](name, each, metric, open)
      samples += metric.kind === "histogram" ? each.buckets.length + 2 : 1
      if (samples < pieceSize) continue
      samples = 0
      yield piece
      piece = ""
    }
  }
  yield open ? `${piece}# EOF\n` : piece
}

/** What Prometheus calls a counter never falls. */
const types = {
  counter: "counter",
  updowncounter: "gauge",
  gauge: "gauge",
  histogram: "histogram",
  summary: "summary"
}

const header = (open: boolean, name: string, type: string, help: string): string =>
  `# HELP ${name} ${open ? escapeQuoted(help) : escape(help)}\n# TYPE ${name} ${type}\n`

const sample = (name: string, labels: string, value: number, exemplar = ""): string =>
  `${name}${labels === "" ? "" : `{${labels}}`} ${number(value)}${exemplar}\n`

type Writer = (name: string, series: Series, metric: Metric, open: boolean) => string

const one: Writer = (name, series) => sample(name, labels(series.attributes), series.value)

const counter: Writer = (name, series, _, open) =>
  sample(`${name}_total`, labels(series.attributes), series.value, open ? exemplar(series.exemplars[0]) : "")

const histogram: Writer = (name, series, { boundaries = [] }, open) => {
  const own = labels(series.attributes)
  const prefix = own === "" ? "" : `${own},`
  let out = ""
  let count = 0
  series.buckets.forEach((inBucket, index) => {
    count += inBucket
    out += sample(
      `${name}_bucket`,
      `${prefix}le="${bound(boundaries[index] ?? Infinity)}"`,
      count,
      open ? exemplar(series.exemplars[index]) : ""
    )
  })
  // Where observations may be negative their sum does not only grow, and OpenMetrics knows no other, nor a count alone.
  if (open && (boundaries[0] ?? 0) < 0) return out
  return out + sample(`${name}_sum`, own, series.value) + sample(`${name}_count`, own, count)
}

const summary: Writer = (name, series) => {
  const own = labels(series.attributes)
  const prefix = own === "" ? "" : `${own},`
  let out = ""
  for (const [quantile, value] of series.summary?.quantiles ?? []) {
    out += sample(name, `${prefix}quantile="${bound(quantile)}"`, value)
  }
  return out + sample(`${name}_sum`, own, series.value) + sample(`${name}_count`, own, series.summary?.count ?? 0)
}

const writers = { counter, updowncounter: one, gauge: one, histogram, summary }

/** A scrape with one label twice is refused whole: the resource is the user's, so the first one counts. */
const distinct = (attributes: ReadonlyArray<readonly [name: string, value: string]>) => {
  const seen = new Set<string>()
  return attributes.filter(([name]) => !seen.has(labelName(name)) && seen.add(labelName(name)))
}

const labels = (attributes: ReadonlyArray<readonly [name: string, value: string]>): string =>
  attributes.map(([name, value]) => `${labelName(name)}="${escapeQuoted(value)}"`).join(",")

/** Above 128 characters of names and values OpenMetrics forbids it. */
const exemplar = (exemplar: Exemplar | undefined): string =>
  exemplar === undefined || [...exemplar.traceId, ...exemplar.spanId].length > 128 - "trace_idspan_id".length
    ? ""
    : ` # {${labels([["trace_id", exemplar.traceId], ["span_id", exemplar.spanId]])}} ${number(exemplar.value)} ${
      number(exemplar.at / 1000)
    }`

const escape = (text: string): string => text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n")

/** Of help texts OpenMetrics wants this too, where a text of version 0.0.4 would keep the backslash. */
const escapeQuoted = (text: string): string => escape(text).replaceAll("\"", "\\\"")

const number = (value: number): string => value === Infinity ? "+Inf" : value === -Infinity ? "-Inf" : String(value)

/** As OpenMetrics writes it (`1.0`), in both: labels must not change with the negotiated format. */
const bound = (value: number): string => /^-?\d+$/.test(String(value)) ? `${value}.0` : number(value)
