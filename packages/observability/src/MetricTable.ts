/**
 * The names, once: every metric with its OpenTelemetry name, kind, unit, attributes and description, and the
 * rules that turn such a name into a Prometheus one.
 *
 * The rules are those of the OpenTelemetry compatibility specification, so that a scrape of this process and a
 * Collector fed by it show the same series under the same name.
 *
 * @since 0.1.0
 */

/**
 * A metric: `unit` is UCUM (`s`, `By`, `1`, or an annotation such as `{restart}`), `attributes` are the names of
 * its attributes in the order in which their values are given, `boundaries` the upper bounds of a histogram's
 * buckets.
 *
 * @category models
 * @since 0.1.0
 */
export interface Metric {
  readonly name: string
  readonly kind: "counter" | "gauge" | "histogram"
  readonly unit: string
  readonly attributes: ReadonlyArray<string>
  readonly description: string
  readonly boundaries?: ReadonlyArray<number> | undefined
  /** Stands in for the derived Prometheus name. */
  readonly prometheusName?: string | undefined
}

const routineName = "orchestra.routine.name"
const supervisorName = "orchestra.supervisor.name"

/** Upper bounds of the buckets of every duration, in seconds. */
const seconds = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300]

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
  attributes: [routineName, "orchestra.routine.state"],
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
  attributes: [routineName],
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
  attributes: [routineName, "orchestra.exit.reason", "error.type"],
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
  attributes: [routineName, supervisorName, "orchestra.restart.reason"],
  description: "Restarts of supervised routines, by how their previous run ended."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const supervisorDecisions: Metric = {
  name: "orchestra.supervisor.decisions",
  kind: "counter",
  unit: "{decision}",
  attributes: [supervisorName, "orchestra.supervisor.decision"],
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
  attributes: [supervisorName],
  description: "Restarts within the period over those allowed; the highest of all supervisors of that name."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const shutdownRemaining: Metric = {
  name: "orchestra.shutdown.remaining",
  kind: "gauge",
  unit: "{routine}",
  attributes: ["orchestra.shutdown.phase"],
  description: "Routines that a shutdown still waits for, or gave up waiting for, by phase."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const processCpuTime: Metric = {
  name: "process.cpu.time",
  kind: "counter",
  unit: "s",
  attributes: ["cpu.mode"],
  description: "CPU time of this process."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const processMemoryUsage: Metric = {
  name: "process.memory.usage",
  kind: "gauge",
  unit: "By",
  attributes: [],
  description: "Physical memory in use by this process."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const processUptime: Metric = {
  name: "process.uptime",
  kind: "gauge",
  unit: "s",
  attributes: [],
  description: "Time since this process started."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const processFileDescriptors: Metric = {
  name: "process.unix.file_descriptor.count",
  kind: "gauge",
  unit: "{file_descriptor}",
  attributes: [],
  description: "Open file descriptors of this process.",
  // Derived, it would end in `_count`, which Prometheus keeps for histograms and its linter refuses. This is the
  // name that Prometheus' own client libraries give to the same number.
  prometheusName: "process_open_fds"
}

/**
 * Every metric, in the order in which it is rendered.
 *
 * @category metrics
 * @since 0.1.0
 */
export const all: ReadonlyArray<Metric> = [
  routineActive,
  routineStarts,
  routineRunDuration,
  routineRestarts,
  supervisorDecisions,
  supervisorBudgetUtilization,
  shutdownRemaining,
  processCpuTime,
  processMemoryUsage,
  processUptime,
  processFileDescriptors
]

const unitWords: { readonly [unit: string]: string } = { s: "_seconds", By: "_bytes" }

/**
 * The Prometheus name of a metric: dots become `_`, then the word of its unit (`_seconds`, `_bytes`, `_ratio` for
 * a gauge of unit `1`, nothing for an annotation in braces), then `_total` for a counter.
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
export const prometheusName = (metric: Metric): string =>
  metric.prometheusName ??
    labelName(metric.name) +
      (metric.unit === "1" && metric.kind === "gauge" ? "_ratio" : unitWords[metric.unit] ?? "") +
      (metric.kind === "counter" ? "_total" : "")

/**
 * The Prometheus label of an attribute: every character that a label may not have becomes `_`.
 *
 * @category getters
 * @since 0.1.0
 */
export const labelName = (attribute: string): string => attribute.replace(/[^a-zA-Z0-9_]/g, "_").replace(/^\d/, "_$&")

/**
 * Returns the metrics unchanged, or throws if two of them cannot be told apart: one name registered twice with
 * different kinds or units, two names that Prometheus would show as one, or two such attributes of one metric.
 *
 * **Details**
 *
 * Exporters drop every metric of a process over such a pair, minutes after its start and without a word. A
 * histogram also occupies its `_bucket`, `_sum` and `_count`.
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
    const name = prometheusName(metric)
    const suffixes = metric.kind === "histogram" ? ["", "_bucket", "_sum", "_count"] : [""]
    for (const occupied of [metric.name, ...suffixes.map((suffix) => name + suffix)]) {
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
