/**
 * The metrics of the program itself: Effect's registry as meters, so that they are named, bounded and exported by the
 * same rules as ours.
 *
 * A registry takes everything: one name with two types, two attributes that become one label, a name that is ours.
 * Prometheus refuses a scrape whole over any of these. The offender is left out, the rest stays valid: whoever was
 * there first, ours before all.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as EffectMetric from "effect/Metric"
import * as Meter from "../Meter.ts"
import * as MetricTable from "../MetricTable.ts"

/** How many names of offenders are remembered, each having been warned about. */
const maxWarned = 100

/** Attributes by which Effect's metrics carry their unit. They are no labels. */
const unitAttributes = new Set(["unit", "time_unit"])

/** What Effect's own metrics say for UCUM. */
const ucum: { readonly [word: string]: string } = {
  nanoseconds: "ns",
  microseconds: "us",
  milliseconds: "ms",
  seconds: "s",
  bytes: "By"
}

/** One entry of the registry, read. */
interface Entry {
  readonly attributes: ReadonlyMap<string, string>
  readonly read: (meter: Meter.Meter, values: ReadonlyArray<string | undefined>) => Iterable<void>
}

interface Family {
  readonly metric: Omit<MetricTable.Metric, "attributes">
  /** By label, the attribute that has it. */
  readonly labels: Map<string, string>
  /** The attributes that have one. */
  readonly known: Set<string>
  readonly entries: Array<Entry>
}

/**
 * Makes what reads the registry of `context`. `reserved` are the metrics whose names nobody else may take, `dropped` is
 * told how many series one reading left out.
 */
export const make = (options: {
  readonly context: Context.Context<never>
  readonly reserved: ReadonlyArray<MetricTable.Metric>
  readonly dropped: (series: number) => void
}): Effect.Effect<ReadonlyArray<Meter.Meter>> => {
  const { context, dropped, reserved } = options
  const warned = new Set<string>()
  const ours = new Set(["target", "target_info", ...reserved.flatMap(MetricTable.occupiedNames)])

  const warn = (name: string, why: string) => {
    if (warned.has(name) || warned.size === maxWarned) return Effect.void
    warned.add(name)
    return Effect.logWarning(`The metric ${JSON.stringify(name)} is left out: ${why}`)
  }

  return Effect.gen(function*() {
    const families = new Map<string, Family | string>()
    const taken = new Set(ours)
    const pause = everySoOften()
    let leftOut = 0
    for (const metadata of Context.get(context, EffectMetric.MetricRegistry).values()) {
      const fault = admit(families, taken, metadata, context)
      if (fault !== undefined) {
        leftOut++
        yield* warn(metadata.id, fault)
      }
      if (pause()) yield* Effect.yieldNow
    }
    if (leftOut > 0) dropped(leftOut)

    const meters: Array<Meter.Meter> = []
    for (const family of families.values()) {
      if (typeof family === "string" || family.entries.length === 0) continue
      const attributes = [...family.labels.values()]
      const meter = Meter.make({ ...family.metric, attributes }, { maxValues: maxSeries, maxSeries })
      for (const { attributes: own, read } of family.entries) {
        for (const _ of read(meter, attributes.map((name) => own.get(name)))) {
          if (pause()) yield* Effect.yieldNow
        }
      }
      meters.push(meter)
    }
    return meters
  })
}

const maxSeries = 2000

const everySoOften = () => {
  let steps = 0
  return () => ++steps % 100 === 0
}

/** Takes an entry of the registry into its family, or says why not. */
const admit = (
  families: Map<string, Family | string>,
  taken: Set<string>,
  metadata: EffectMetric.Metric.Metadata<never, unknown>,
  context: Context.Context<never>
): string | undefined => {
  const { attributes, description, id } = metadata
  const of = stateOf(metadata, context)
  if (typeof of === "string") return of
  const { boundaries, kind, read } = of
  const given = attributes?.["unit"] ?? attributes?.["time_unit"] ?? ""
  const unit = ucum[given] ?? given
  const known = families.get(id)
  const family = known ?? claim(taken, {
    name: id,
    kind,
    unit,
    description: description === undefined || description === "" ? `The metric ${id} of this program.` : description,
    boundaries
  })
  if (known === undefined) families.set(id, family)
  if (typeof family === "string") return family
  const { metric } = family
  if (metric.kind !== kind || metric.unit !== unit || !same(metric.boundaries, boundaries)) {
    return `it is registered twice, as ${metric.kind} in "${metric.unit}" and as ${kind} in "${unit}"${
      metric.kind === kind && metric.unit === unit ? ", with other boundaries" : ""
    }`
  }
  const own = new Map<string, string>()
  for (const name in attributes) {
    const value = attributes[name]
    if (value !== undefined && !unitAttributes.has(name)) own.set(name, value)
  }
  // Nearly always all names have been seen before, and this is done for every series of a program.
  const fresh = [...own.keys()].filter((name) => !family.known.has(name))
  if (metadata.type === "Frequency") {
    if (own.has("key")) return "its attribute \"key\" is that of the words which it counts"
    if (!family.known.has("key")) fresh.push("key")
  }
  const reserved = ["otel_metric_overflow", reservedLabels[kind]]
  const claimed = new Map<string, string>()
  for (const name of fresh) {
    const label = MetricTable.labelName(name)
    const other = claimed.get(label) ?? family.labels.get(label)
    if (other !== undefined && other !== name) {
      return `its attributes "${other}" and "${name}" are one label, "${label}"`
    }
    if (reserved.includes(label)) return `"${label}" is no label for anybody else`
    claimed.set(label, name)
  }
  for (const [label, name] of claimed) {
    family.labels.set(label, name)
    family.known.add(name)
  }
  family.entries.push({ attributes: own, read })
  return undefined
}

const same = (a: ReadonlyArray<number> = [], b: ReadonlyArray<number> = []): boolean =>
  a.length === b.length && a.every((each, index) => each === b[index])

const reservedLabels: { readonly [kind: string]: string } = { histogram: "le", summary: "quantile" }

/** A family whose names are free, which it takes, or why there is none. */
const claim = (taken: Set<string>, metric: Family["metric"]): Family | string => {
  const full = { ...metric, attributes: [] }
  const name = MetricTable.prometheusName(full)
  if (!/[a-zA-Z]/.test(name)) return "no name is left of it without the characters that Prometheus does not know"
  const names = MetricTable.occupiedNames(full)
  const clash = names.find((each) => taken.has(each))
  if (clash !== undefined) return `the name "${clash}" is taken`
  for (const each of names) taken.add(each)
  return { metric, labels: new Map(), known: new Set(), entries: [] }
}

interface Read {
  readonly kind: MetricTable.Metric["kind"]
  readonly boundaries?: ReadonlyArray<number>
  readonly read: Entry["read"]
}

/** What an entry holds now, and how it is added to a meter; or why it cannot be read. */
const stateOf = (
  { hooks, type }: EffectMetric.Metric.Metadata<never, unknown>,
  context: Context.Context<never>
): Read | string => {
  // Whoever registered hooks of his own may throw here, or answer nonsense.
  try {
    // The registry does not tie a type to its state; `Metric.snapshotUnsafe` asserts the same.
    const snapshot = { type, state: hooks.get(context) } as EffectMetric.Metric.Snapshot
    switch (snapshot.type) {
      case "Counter": {
        const { count, incremental } = snapshot.state
        return { kind: incremental ? "counter" : "updowncounter", read: adding(Number(count)) }
      }
      case "Gauge":
        return { kind: "gauge", read: setting(Number(snapshot.state.value)) }
      case "Frequency":
        return { kind: "counter", read: counting(snapshot.state.occurrences) }
      case "Histogram": {
        const boundaries = [...new Set(snapshot.state.buckets.map(([bound]) => bound).filter(Number.isFinite))]
        return { kind: "histogram", boundaries, read: filling(snapshot.state, boundaries) }
      }
      case "Summary":
        return { kind: "summary", read: summing(snapshot.state) }
    }
  } catch (error) {
    return `it cannot be read: ${error instanceof Error ? error.message : String(error)}`
  }
}

const adding = (count: number): Entry["read"] =>
  function*(meter, values) {
    yield meter.add(values, count)
  }

/** Of the gauges beyond the bounds the last one stands for all. */
const setting = (value: number): Entry["read"] =>
  function*(meter, values) {
    meter.at(values).value = value
    yield
  }

const counting = (occurrences: ReadonlyMap<string, number>): Entry["read"] =>
  function*(meter, values) {
    const key = meter.metric.attributes.indexOf("key")
    for (const [word, count] of occurrences) yield meter.add(values.with(key, word), count)
  }

const filling = (state: EffectMetric.HistogramState, boundaries: ReadonlyArray<number>): Entry["read"] => {
  const buckets = new Float64Array(boundaries.length + 1)
  let below = 0
  for (const [bound, cumulated] of state.buckets) {
    const index = boundaries.findIndex((boundary) => bound <= boundary)
    const bucket = index === -1 ? boundaries.length : index
    buckets[bucket] = (buckets[bucket] ?? 0) + cumulated - below
    below = cumulated
  }
  buckets[boundaries.length] = (buckets[boundaries.length] ?? 0) + state.count - below
  return function*(meter, values) {
    const into = meter.at(values)
    into.value += state.sum
    buckets.forEach((count, index) => {
      into.buckets[index] = (into.buckets[index] ?? 0) + count
    })
    yield
  }
}

const summing = (state: EffectMetric.SummaryState): Entry["read"] => {
  // Without recent observations there is no quantile, and Prometheus knows the word for that.
  const quantiles = new Map(state.quantiles.map(([quantile, value]) => [quantile, value ?? NaN]))
  return function*(meter, values) {
    const into = meter.at(values)
    into.value += state.sum
    into.summary = into.summary === undefined
      ? { count: state.count, quantiles: [...quantiles] }
      // Counts add up, quantiles do not.
      : { count: into.summary.count + state.count, quantiles: [] }
    yield
  }
}
