/**
 * What has changed from one report to another.
 */
import { DateTime, Duration, Effect, Schema } from "effect"
import * as Findings from "./Findings.ts"
import * as GoDuration from "./GoDuration.ts"
import { Anomaly, NotEvaluated, type Report, type Resource, Severity } from "./Report.ts"

export const Change = Schema.Struct({
  category: Schema.String,
  metric: Schema.String,
  old_value: Schema.Finite,
  new_value: Schema.Finite,
  delta: Schema.Finite,
  /** Of the old value; null if that is 0. */
  delta_pct: Schema.NullOr(Schema.Finite),
  direction: Schema.Literals(["regression", "improvement", "unchanged"]),
  significance: Schema.Literals(["high", "medium", "low"])
})
export type Change = typeof Change.Type

export const Diff = Schema.Struct({
  /** When the reports were made, and the time between them, as Go writes durations. */
  baseline: Schema.DateTimeUtcFromString,
  current: Schema.DateTimeUtcFromString,
  time_delta: Schema.String,
  changes: Schema.Array(Change),
  /** How many of the changes are such. */
  regressions: Schema.Natural,
  improvements: Schema.Natural,
  /** Above 0 is better; null if one of the reports has no score, or they are of different resources. */
  health_delta: Schema.NullOr(Schema.Int),
  new_anomalies: Schema.Array(Anomaly),
  /** As they were. */
  resolved_anomalies: Schema.Array(Anomaly),
  /** What is an anomaly in both, and worse or better than it was. */
  changed_anomalies: Schema.Array(Schema.Struct({
    category: Schema.String,
    metric: Schema.String,
    from: Severity,
    to: Severity
  })),
  /** What one of them does not know, and why. An anomaly among these is neither new nor resolved. */
  not_compared: Schema.Array(NotEvaluated)
})
export type Diff = typeof Diff.Type

/** What is compared. Counters since boot are not: they rise with the time. */
interface Metric {
  readonly category: string
  readonly metric: string
  readonly worse: "higher" | "lower"
  readonly of: (report: Report, data: Findings.Findings["data"]) => number | undefined
}

const useOf = (category: keyof Report["summary"]["resources"]): ReadonlyArray<Metric> =>
  (["utilization_pct", "saturation_pct", "errors"] satisfies Array<keyof Resource>).map((
    metric
  ) => ({
    category,
    metric,
    worse: "higher",
    of: (report) => report.summary.resources[category]?.[metric]
  }))

const numbersOf = <S extends Findings.Source>(
  source: S,
  worse: Metric["worse"],
  values: Readonly<Record<string, (data: Findings.Data[S]) => number | undefined>>
): ReadonlyArray<Metric> =>
  Object.entries(values).map(([metric, value]) => ({
    category: source,
    metric,
    worse,
    of: (_, data) => {
      const found: Findings.Data[S] | undefined = data[source]
      return found && value(found)
    }
  }))

const metrics: ReadonlyArray<Metric> = [
  ...useOf("cpu"),
  ...numbersOf("cpu", "higher", {
    user_pct: ({ user_pct }) => user_pct,
    system_pct: ({ system_pct }) => system_pct,
    iowait_pct: ({ iowait_pct }) => iowait_pct,
    steal_pct: ({ steal_pct }) => steal_pct,
    load_avg_1: ({ load_avg_1 }) => load_avg_1,
    context_switches_per_sec: ({ context_switches_per_sec }) => context_switches_per_sec,
    psi_some_10: ({ psi_some_10 }) => psi_some_10
  }),
  ...numbersOf("cpu", "lower", { idle_pct: ({ idle_pct }) => idle_pct }),
  ...useOf("memory"),
  ...numbersOf("memory", "higher", {
    swap_used_bytes: ({ swap_used_bytes }) => swap_used_bytes,
    major_faults_per_sec: ({ major_faults_per_sec }) => major_faults_per_sec,
    direct_reclaim_rate: ({ reclaim }) => reclaim?.direct_reclaim_rate,
    psi_some_10: ({ psi_some_10 }) => psi_some_10
  }),
  ...numbersOf("memory", "lower", { available_bytes: ({ available_bytes }) => available_bytes }),
  ...useOf("disk"),
  ...numbersOf("disk", "higher", {
    avg_latency_ms: ({ devices }) => Findings.worst(devices, ({ avg_latency_ms }) => avg_latency_ms, () => "")?.value,
    psi_some_10: ({ psi_some_10 }) => psi_some_10
  }),
  ...useOf("network"),
  ...numbersOf("network", "higher", {
    retrans_rate_per_sec: ({ tcp }) => tcp?.retrans_rate_per_sec,
    time_wait_count: ({ tcp }) => tcp?.time_wait_count,
    close_wait_count: ({ tcp }) => tcp?.close_wait_count,
    conntrack_usage_pct: ({ conntrack }) => conntrack?.usage_pct,
    softnet_drop_rate: ({ softnet }) => softnet?.drop_rate,
    listen_overflows_rate: ({ tcp_ext }) => tcp_ext?.listen_overflows_rate,
    udp_rcvbuf_err_rate: ({ udp }) => udp?.rcvbuf_err_rate
  }),
  ...numbersOf("process", "higher", { zombie: ({ zombie }) => zombie }),
  ...useOf("container_cpu"),
  ...useOf("container_memory")
]

/** Compares what both reports know. */
export const diff = (base: Report, current: Report): Diff => {
  const before = Findings.make(base.categories).data
  const after = Findings.make(current.categories).data
  const changes: Array<Change> = []
  const notCompared: Array<NotEvaluated> = []
  for (const { category, metric, of, worse } of metrics) {
    const from = of(base, before)
    const to = of(current, after)
    if (from !== undefined && to !== undefined) {
      const change = compare(from, to, worse)
      if (change !== undefined) changes.push({ category, metric, ...change })
    } else if (from !== undefined || to !== undefined) {
      notCompared.push({
        metric,
        category,
        reason: `${from === undefined ? "the baseline" : "the current report"} does not have it`
      })
    }
  }
  const anomalies = compareAnomalies(base.summary, current.summary)
  const count = (direction: Change["direction"]) => changes.filter((change) => change.direction === direction).length
  return {
    baseline: base.metadata.timestamp,
    current: current.metadata.timestamp,
    time_delta: between(base.metadata.timestamp, current.metadata.timestamp),
    changes,
    regressions: count("regression"),
    improvements: count("improvement"),
    health_delta: healthDelta(base.summary, current.summary),
    ...anomalies,
    not_compared: [...notCompared, ...anomalies.not_compared]
  }
}

const between = (from: DateTime.Utc, to: DateTime.Utc): string => {
  const millis = DateTime.toEpochMillis(to) - DateTime.toEpochMillis(from)
  return (millis < 0 ? "-" : "") + GoDuration.format(Duration.millis(Math.abs(millis)))
}

/**
 * What a value has become; `undefined` if that is next to nothing. Percent are of the old value. Whether something has
 * changed is asked of the smaller one of both, so that the way back changes as much as the way there.
 */
const compare = (from: number, to: number, worse: Metric["worse"]) => {
  const delta = to - from
  if (delta === 0) return undefined
  const least = Math.min(Math.abs(from), Math.abs(to))
  const share = least === 0 ? Infinity : 100 * Math.abs(delta) / least
  if (share < 1 && Math.abs(delta) < 0.1) return undefined
  const delta_pct = from === 0 ? null : 100 * delta / Math.abs(from)
  const grown = Math.abs(delta_pct ?? Infinity)
  return {
    old_value: rounded(from),
    new_value: rounded(to),
    delta: rounded(delta),
    delta_pct: delta_pct === null ? null : rounded(delta_pct),
    direction: share <= 5 ? "unchanged" : (delta > 0) === (worse === "higher") ? "regression" : "improvement",
    significance: grown >= 50 ? "high" : grown >= 20 ? "medium" : "low"
  } satisfies Partial<Change>
}

const rounded = (value: number): number => Number(value.toFixed(3))

/** A machine is no better because less is known of it. */
const healthDelta = (base: Report["summary"], current: Report["summary"]): number | null => {
  const [then, now] = [base.health_score, current.health_score]
  const [some, others] = [Object.keys(base.resources), Object.keys(current.resources)]
  const same = some.length === others.length && some.every((name) => others.includes(name))
  return then === null || now === null || !same ? null : now - then
}

const compareAnomalies = (base: Report["summary"], current: Report["summary"]) => {
  const [before, after] = [byMetric(base.anomalies), byMetric(current.anomalies)]
  const [unknownBefore, unknownAfter] = [byMetric(base.not_evaluated), byMetric(current.not_evaluated)]
  const unknown = (
    anomalies: ReadonlyArray<Anomaly>,
    reasons: ReadonlyMap<string, NotEvaluated>,
    where: string
  ): ReadonlyArray<NotEvaluated> =>
    anomalies.flatMap(({ category, metric }) => {
      const found = reasons.get(metric)
      return found === undefined ? [] : [{ metric, category, reason: `${where}: ${found.reason}` }]
    })
  return {
    new_anomalies: current.anomalies.filter(({ metric }) => !before.has(metric) && !unknownBefore.has(metric)),
    resolved_anomalies: base.anomalies.filter(({ metric }) => !after.has(metric) && !unknownAfter.has(metric)),
    changed_anomalies: base.anomalies.flatMap(({ category, metric, severity: from }) => {
      const to = after.get(metric)?.severity
      return to === undefined || to === from ? [] : [{ category, metric, from, to }]
    }),
    not_compared: [
      ...unknown(current.anomalies, unknownBefore, "the baseline"),
      ...unknown(base.anomalies, unknownAfter, "the current report")
    ]
  }
}

const byMetric = <A extends { readonly metric: string }>(of: ReadonlyArray<A>): ReadonlyMap<string, A> =>
  new Map(of.map((each) => [each.metric, each]))

const Text = Schema.fromJsonString(Diff, { space: 2 })

/** The text of a diff, with a line feed at its end. */
export const encode = (diff: Diff): Effect.Effect<string> =>
  Schema.encodeEffect(Text)(diff).pipe(Effect.map((text) => `${text}\n`), Effect.orDie)
