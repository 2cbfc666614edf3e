/**
 * The names, once: every metric with its OpenTelemetry name, kind, unit, attributes and description, and the
 * rules that turn such a name into a Prometheus one.
 *
 * The rules are those of the OpenTelemetry compatibility specification, so that a scrape of this process and a
 * Collector fed by it show the same series under the same name.
 *
 * @since 0.1.0
 */
import { Phase } from "@effect-orchestra/core/Shutdown"
import { Decision } from "@effect-orchestra/supervisor/SupervisorEvent"
import * as Attributes from "./Attributes.ts"
import { runtime } from "./internal/RuntimeRows.ts"

/**
 * A metric: `unit` is UCUM (`s`, `By`, `1`, or an annotation such as `{restart}`), `attributes` are the names of
 * its attributes in the order in which their values are given, `values` all that those may be which have a closed set of
 * them, `boundaries` the upper bounds of a histogram's buckets. One that is `optIn` has values where that was asked for.
 *
 * @category models
 * @since 0.1.0
 */
export interface Metric {
  readonly name: string
  readonly kind: "counter" | "updowncounter" | "gauge" | "histogram" | "summary"
  readonly unit: string
  readonly attributes: ReadonlyArray<string>
  readonly values?: { readonly [attribute: string]: ReadonlyArray<string> } | undefined
  readonly description: string
  readonly boundaries?: ReadonlyArray<number> | undefined
  readonly optIn?: boolean | undefined
  /** Stands in for the derived Prometheus name. */
  readonly prometheusName?: string | undefined
}

/**
 * Upper bounds of the buckets of every duration, in seconds.
 *
 * @category constants
 * @since 0.1.0
 */
export const seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]

const exitReasons = ["success", "failure", "defect", "interrupted", "idle_timeout", "abandoned"]

const groupOutcomes = ["success", "failure", "defect", "interrupted"]

/**
 * The metrics of an orchestrator. `*.name` is the template name given at definition, never an instance.
 *
 * @category metrics
 * @since 0.1.0
 */
export const routineActive: Metric = {
  name: "orchestra.routine.active",
  kind: "gauge",
  unit: "{routine}",
  attributes: [Attributes.routineName, Attributes.routineState],
  values: { [Attributes.routineState]: ["pending", "starting", "running", "backoff", "stopping"] },
  description: "Routines that have not ended, by state."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const routineStarts: Metric = {
  name: "orchestra.routine.starts",
  kind: "counter",
  unit: "{start}",
  attributes: [Attributes.routineName],
  description: "Runs of routines that have started, restarts included."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const routineRunDuration: Metric = {
  name: "orchestra.routine.run.duration",
  kind: "histogram",
  unit: "s",
  attributes: [Attributes.routineName, Attributes.exitReason, Attributes.errorType],
  values: { [Attributes.exitReason]: exitReasons },
  description: "How long runs of routines lasted, by how they ended.",
  boundaries: seconds
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const routineRestarts: Metric = {
  name: "orchestra.routine.restarts",
  kind: "counter",
  unit: "{restart}",
  attributes: [Attributes.routineName, Attributes.supervisorName, Attributes.restartReason],
  values: { [Attributes.restartReason]: [...exitReasons, "sibling"] },
  description: "Restarts of supervised routines, by how their previous run ended."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const routineRestartDelay: Metric = {
  name: "orchestra.routine.restart.delay",
  kind: "histogram",
  unit: "s",
  attributes: [Attributes.routineName],
  description: "How long restarts were put off by a backoff or by a child that had not ended.",
  boundaries: seconds
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const routineHeartbeatAge: Metric = {
  name: "orchestra.routine.heartbeat.age.max",
  kind: "gauge",
  unit: "s",
  attributes: [Attributes.routineName],
  description:
    "Time since the last beat of the routine of that name that has not beaten for longest, of those that beat or have to."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const routineCpuTime: Metric = {
  name: "orchestra.routine.cpu.time",
  kind: "counter",
  unit: "s",
  attributes: [Attributes.routineName],
  description: "Time for which the fibers of routines ran on the thread of JavaScript. Only with Metering.layer.",
  optIn: true
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const routineSliceDuration: Metric = {
  name: "orchestra.routine.slice.duration",
  kind: "histogram",
  unit: "s",
  attributes: [Attributes.routineName],
  description: "How long routines ran at a stretch before others could. Only with Metering.layer.",
  boundaries: seconds,
  optIn: true
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const supervisorDecisions: Metric = {
  name: "orchestra.supervisor.decisions",
  kind: "counter",
  unit: "{decision}",
  attributes: [Attributes.supervisorName, Attributes.supervisorDecision],
  values: { [Attributes.supervisorDecision]: Decision.literals },
  description: "What supervisors decided when a child ended."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const supervisorBudgetUtilization: Metric = {
  name: "orchestra.supervisor.restart.budget.utilization",
  kind: "gauge",
  unit: "1",
  attributes: [Attributes.supervisorName],
  description: "Restarts within the period over those allowed; the highest of all supervisors of that name."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const mailboxUsage: Metric = {
  name: "orchestra.mailbox.usage",
  kind: "gauge",
  unit: "{message}",
  attributes: [Attributes.mailboxName],
  description: "Messages inside, of all mailboxes of that name."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const mailboxLimit: Metric = {
  name: "orchestra.mailbox.limit",
  kind: "gauge",
  unit: "{message}",
  attributes: [Attributes.mailboxName],
  description: "Messages that fit, of all mailboxes of that name."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const mailboxUtilization: Metric = {
  name: "orchestra.mailbox.utilization.max",
  kind: "gauge",
  unit: "1",
  attributes: [Attributes.mailboxName],
  description: "Messages inside over those that fit; the highest of all mailboxes of that name."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const mailboxMessageAge: Metric = {
  name: "orchestra.mailbox.message.age.max",
  kind: "gauge",
  unit: "s",
  attributes: [Attributes.mailboxName],
  description: "How long the next message has been inside; the longest of all mailboxes of that name."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const mailboxSent: Metric = {
  name: "orchestra.mailbox.sent.messages",
  kind: "counter",
  unit: "{message}",
  attributes: [Attributes.mailboxName, Attributes.mailboxOutcome],
  values: { [Attributes.mailboxOutcome]: ["accepted", "dropped", "rejected", "closed"] },
  description:
    "Messages sent, by what became of them: they went in, were dropped because there was no room (with drop_old after they had gone in), were rejected for that, or came when the mailbox was closed."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const mailboxReceived: Metric = {
  name: "orchestra.mailbox.received.messages",
  kind: "counter",
  unit: "{message}",
  attributes: [Attributes.mailboxName],
  description: "Messages handed to receivers, each time that they were."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const mailboxWaitDuration: Metric = {
  name: "orchestra.mailbox.wait.duration",
  kind: "histogram",
  unit: "s",
  attributes: [Attributes.mailboxName, Attributes.mailboxOperation],
  values: { [Attributes.mailboxOperation]: ["send", "receive"] },
  description: "How long those waited that had to, for room, or, where that was asked for, for a message.",
  boundaries: seconds
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const busPublished: Metric = {
  name: "orchestra.bus.published.messages",
  kind: "counter",
  unit: "{message}",
  attributes: [Attributes.busTopic],
  description: "Messages published while somebody could see them."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const busDelivered: Metric = {
  name: "orchestra.bus.delivered.messages",
  kind: "counter",
  unit: "{message}",
  attributes: [Attributes.busTopic, Attributes.busOutcome],
  values: { [Attributes.busOutcome]: ["accepted", "dropped", "undelivered"] },
  description:
    "Messages times subscribers, by what became of them: they reached a subscriber, were dropped because it had no room (with drop_old after they had reached it), or were left when nobody took them any more."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const busSubscriptions: Metric = {
  name: "orchestra.bus.subscription.active",
  kind: "gauge",
  unit: "{subscription}",
  attributes: [Attributes.busTopic],
  description: "Subscriptions, those of groups included."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const busSubscriptionLag: Metric = {
  name: "orchestra.bus.subscription.lag.max",
  kind: "gauge",
  unit: "{message}",
  attributes: [Attributes.busTopic],
  description: "Messages that a subscriber has not taken yet; the most of all of them."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const groupWaitDuration: Metric = {
  name: "orchestra.group.wait.duration",
  kind: "histogram",
  unit: "s",
  attributes: [Attributes.groupName, Attributes.outcome, Attributes.errorType],
  values: { [Attributes.outcome]: groupOutcomes },
  description: "How long groups took until all in them had ended, and long-lived ones from a join on.",
  boundaries: seconds
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const groupTaskActive: Metric = {
  name: "orchestra.group.task.active",
  kind: "gauge",
  unit: "{task}",
  attributes: [Attributes.groupName],
  description: "Tasks that run, of all groups of that name."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const sagaDuration: Metric = {
  name: "orchestra.saga.duration",
  kind: "histogram",
  unit: "s",
  attributes: [Attributes.sagaName, Attributes.outcome],
  values: { [Attributes.outcome]: ["completed", "compensated", "stuck", "committed"] },
  description: "How long sagas took, by how they ended.",
  boundaries: seconds
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const sagaActive: Metric = {
  name: "orchestra.saga.active",
  kind: "gauge",
  unit: "{saga}",
  attributes: [Attributes.sagaName],
  description: "Sagas that have not ended."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const sagaStepDuration: Metric = {
  name: "orchestra.saga.step.duration",
  kind: "histogram",
  unit: "s",
  attributes: [Attributes.sagaName, Attributes.sagaStepName, Attributes.sagaStepDirection, Attributes.errorType],
  values: { [Attributes.sagaStepDirection]: ["forward", "compensate"] },
  description: "How long the steps of sagas took with all their attempts, forward and in compensation.",
  boundaries: seconds
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const sagaCompensationFailures: Metric = {
  name: "orchestra.saga.compensation.failures",
  kind: "counter",
  unit: "{failure}",
  attributes: [Attributes.sagaName, Attributes.sagaStepName],
  description: "Compensations of steps that gave up."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const shutdownDuration: Metric = {
  name: "orchestra.shutdown.duration",
  kind: "histogram",
  unit: "s",
  attributes: [Attributes.shutdownPhase],
  values: { [Attributes.shutdownPhase]: Phase.literals },
  description: "How long stops of the whole tree were in each phase; in abandon only those that gave something up.",
  boundaries: seconds
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const shutdownRemaining: Metric = {
  name: "orchestra.shutdown.remaining",
  kind: "gauge",
  unit: "{routine}",
  attributes: [Attributes.shutdownPhase],
  values: { [Attributes.shutdownPhase]: Phase.literals },
  description: "Routines that a shutdown still waits for, or gave up waiting for, by phase."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const telemetryDropped: Metric = {
  name: "orchestra.telemetry.dropped.items",
  kind: "counter",
  unit: "{item}",
  attributes: [Attributes.telemetrySignal],
  values: { [Attributes.telemetrySignal]: ["event", "log", "metric", "span", "stream"] },
  description: "What telemetry itself had to drop to stay small."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const telemetrySeries: Metric = {
  name: "orchestra.telemetry.series",
  kind: "gauge",
  unit: "{series}",
  attributes: [],
  description: "Series of all metrics of this process."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const httpStreams: Metric = {
  name: "orchestra.http.stream.active",
  kind: "gauge",
  unit: "{stream}",
  attributes: [],
  description: "Event streams that are open."
}

export * from "./internal/RuntimeRows.ts"

/**
 * What an orchestrator tells, in the order in which it is rendered.
 *
 * @category metrics
 * @since 0.1.0
 */
export const orchestra: ReadonlyArray<Metric> = [
  routineActive,
  routineStarts,
  routineRunDuration,
  routineRestarts,
  routineRestartDelay,
  routineHeartbeatAge,
  routineCpuTime,
  routineSliceDuration,
  supervisorDecisions,
  supervisorBudgetUtilization,
  mailboxUsage,
  mailboxLimit,
  mailboxUtilization,
  mailboxMessageAge,
  mailboxSent,
  mailboxReceived,
  mailboxWaitDuration,
  busPublished,
  busDelivered,
  busSubscriptions,
  busSubscriptionLag,
  groupWaitDuration,
  groupTaskActive,
  sagaDuration,
  sagaActive,
  sagaStepDuration,
  sagaCompensationFailures,
  shutdownDuration,
  shutdownRemaining,
  telemetryDropped,
  telemetrySeries,
  httpStreams
]

/**
 * Every metric, in the order in which it is rendered.
 *
 * @category metrics
 * @since 0.1.0
 */
export const all: ReadonlyArray<Metric> = [...orchestra, ...runtime]

const unitWords: { readonly [unit: string]: string } = {
  d: "days",
  h: "hours",
  min: "minutes",
  s: "seconds",
  ms: "milliseconds",
  us: "microseconds",
  ns: "nanoseconds",
  By: "bytes",
  KiBy: "kibibytes",
  MiBy: "mebibytes",
  GiBy: "gibibytes",
  TiBy: "tibibytes",
  KBy: "kilobytes",
  MBy: "megabytes",
  GBy: "gigabytes",
  TBy: "terabytes",
  m: "meters",
  V: "volts",
  A: "amperes",
  J: "joules",
  W: "watts",
  g: "grams",
  Cel: "celsius",
  Hz: "hertz",
  "%": "percent",
  "1": ""
}

const perUnitWords: { readonly [unit: string]: string } = {
  s: "second",
  m: "minute",
  h: "hour",
  d: "day",
  w: "week",
  mo: "month",
  y: "year"
}

/**
 * The words of a metric's unit that stand in its Prometheus name: `["seconds"]` for `s`, `["ratio"]` for a gauge of
 * unit `1`, `["bytes", "per", "second"]` for `By/s`, none for an annotation in braces.
 *
 * @category getters
 * @since 0.1.0
 */
export const unitTokens = (metric: Metric): ReadonlyArray<string> => {
  if (metric.unit === "1") return metric.kind === "gauge" ? ["ratio"] : []
  const [main = "", per = ""] = metric.unit.replace(/\{[^}]*\}/g, "").split("/")
  const perWord = perUnitWords[per] ?? per
  return [...tokens(unitWords[main] ?? main), ...(perWord === "" ? [] : ["per", ...tokens(perWord)])]
}

const tokens = (name: string): Array<string> => name.split(/[^a-zA-Z0-9:]+/).filter((token) => token !== "")

/**
 * The Prometheus name of a metric: dots become `_`, then the word of its unit (`_seconds`, `_bytes`, `_ratio` for
 * a gauge of unit `1`, nothing for an annotation in braces), then `_total` for a counter. A word that stands in the
 * name already is not added again.
 *
 * **Example** (Deriving names)
 *
 * ```ts import.meta.vitest
 * import { MetricTable } from "@effect-orchestra/observability"
 *
 * MetricTable.prometheusName(MetricTable.processCpuTime) // => "process_cpu_time_seconds_total"
 * MetricTable.prometheusName(MetricTable.routineRestarts) // => "orchestra_routine_restarts_total"
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const prometheusName = (metric: Metric): string => {
  if (metric.prometheusName !== undefined) return metric.prometheusName
  const unit = unitTokens(metric)
  const last = metric.kind === "counter" ? ["total"] : unit[0] === "ratio" ? unit : []
  const words = tokens(metric.name).filter((token) => !last.includes(token))
  if (!last.includes("ratio") && !words.includes(unit[0] ?? "")) words.push(...unit)
  return words.concat(last).join("_").replace(/^[0-9:]/, "_$&")
}

/**
 * The Prometheus label of an attribute: every run of characters that a label may not have becomes `_`.
 *
 * @category getters
 * @since 0.1.0
 */
export const labelName = (attribute: string): string =>
  // No run of `_` is kept either: labels that begin with two belong to Prometheus.
  attribute.replace(/[^a-zA-Z0-9]+/g, "_").replace(/^$|^\d/, "_$&")

/**
 * Every name that a metric takes in either exposition format: its own, the one it has there without suffix, and
 * those of its samples.
 *
 * @category getters
 * @since 0.1.0
 */
export const occupiedNames = (metric: Metric): ReadonlyArray<string> => {
  const name = prometheusName(metric)
  if (metric.kind === "counter") {
    const bare = name.replace(/_total$/, "")
    return [metric.name, bare, `${bare}_total`, `${bare}_created`]
  }
  const suffixes: { readonly [kind: string]: ReadonlyArray<string> } = {
    histogram: ["_bucket", "_sum", "_count", "_created"],
    summary: ["_sum", "_count", "_created"]
  }
  return [metric.name, name, ...(suffixes[metric.kind] ?? []).map((suffix) => name + suffix)]
}

/**
 * Returns the metrics unchanged, or throws if two of them cannot be told apart: one name registered twice with
 * different kinds or units, two names that Prometheus would show as one, or two such attributes of one metric.
 *
 * **Details**
 *
 * Exporters drop every metric of a process over such a pair, minutes after its start and without a word.
 *
 * @category constructors
 * @since 0.1.0
 */
export const register = (metrics: ReadonlyArray<Metric>): ReadonlyArray<Metric> => {
  const taken = new Map<string, Metric>()
  for (const metric of metrics) {
    const labels = new Set(metric.attributes.map(labelName))
    if (labels.size < metric.attributes.length || labels.has("le")) {
      throw new Error(`the labels of "${metric.name}" are not distinct, got: ${metric.attributes.join(", ")}`)
    }
    for (const occupied of occupiedNames(metric)) {
      const other = taken.get(occupied)
      if (other !== undefined && other !== metric) {
        throw new Error(`"${occupied}" is registered twice, got: ${describe(other)} and ${describe(metric)}`)
      }
      taken.set(occupied, metric)
    }
  }
  return metrics
}

const describe = (metric: Metric): string => `${metric.kind} "${metric.name}" in "${metric.unit}"`
