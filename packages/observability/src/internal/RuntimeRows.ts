/** The metrics of the process, for `MetricTable`. */
import type { Metric } from "../MetricTable.ts"

// Names, units and kinds from here on are those of OpenTelemetry's semantic conventions 1.45: `process.*` is a release
// candidate there, `nodejs.*` and `v8js.*` are in development.

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
  kind: "updowncounter",
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
  kind: "updowncounter",
  unit: "{file_descriptor}",
  attributes: [],
  description: "Open file descriptors of this process.",
  // Derived, it would end in `_count`, which Prometheus keeps for histograms and its linter refuses. This is the
  // name that Prometheus' own client libraries give to the same number.
  prometheusName: "process_open_fds"
}

const delay = (statistic: string, description: string): Metric => ({
  name: `nodejs.eventloop.delay.${statistic}`,
  kind: "gauge",
  unit: "s",
  attributes: [],
  description: `${description} delay of the event loop in the last one to two minutes, the 20 ms of its timer included.`
})

/**
 * @category metrics
 * @since 0.1.0
 */
export const eventLoopDelayMin = delay("min", "Lowest")

/**
 * @category metrics
 * @since 0.1.0
 */
export const eventLoopDelayMax = delay("max", "Highest")

/**
 * @category metrics
 * @since 0.1.0
 */
export const eventLoopDelayMean = delay("mean", "Mean")

/**
 * @category metrics
 * @since 0.1.0
 */
export const eventLoopDelayStddev = delay("stddev", "Standard deviation of the")

/**
 * @category metrics
 * @since 0.1.0
 */
export const eventLoopDelayP50 = delay("p50", "Percentile 50 of the")

/**
 * @category metrics
 * @since 0.1.0
 */
export const eventLoopDelayP90 = delay("p90", "Percentile 90 of the")

/**
 * @category metrics
 * @since 0.1.0
 */
export const eventLoopDelayP99 = delay("p99", "Percentile 99 of the")

/**
 * @category metrics
 * @since 0.1.0
 */
export const eventLoopUtilization: Metric = {
  name: "nodejs.eventloop.utilization",
  kind: "gauge",
  unit: "1",
  attributes: [],
  description: "Share of the last one to two minutes in which the event loop was not idle."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const eventLoopTime: Metric = {
  name: "nodejs.eventloop.time",
  kind: "counter",
  unit: "s",
  attributes: ["nodejs.eventloop.state"],
  description: "Time for which the event loop was in each state."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const gcDuration: Metric = {
  name: "v8js.gc.duration",
  kind: "histogram",
  unit: "s",
  attributes: ["v8js.gc.type"],
  description: "How long garbage collections lasted.",
  boundaries: [0.01, 0.1, 1, 10]
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const heapUsed: Metric = {
  name: "v8js.memory.heap.used",
  kind: "updowncounter",
  unit: "By",
  attributes: ["v8js.heap.space.name"],
  description: "Memory in use in a space of the heap."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const heapSpaceSize: Metric = {
  name: "v8js.memory.heap.space.size",
  kind: "updowncounter",
  unit: "By",
  attributes: ["v8js.heap.space.name"],
  description: "Memory set apart for a space of the heap."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const heapSpaceAvailable: Metric = {
  name: "v8js.memory.heap.space.available_size",
  kind: "updowncounter",
  unit: "By",
  attributes: ["v8js.heap.space.name"],
  description: "Memory not in use in a space of the heap."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const heapSpacePhysical: Metric = {
  name: "v8js.memory.heap.space.physical_size",
  kind: "updowncounter",
  unit: "By",
  attributes: ["v8js.heap.space.name"],
  description: "Memory that a space of the heap really occupies."
}

/**
 * @category metrics
 * @since 0.1.0
 */
export const resourceActive: Metric = {
  name: "v8js.resource.active",
  kind: "gauge",
  unit: "{resource}",
  attributes: ["v8js.resource.type"],
  description: "Timers, sockets and other resources that keep the event loop alive."
}

/**
 * What the process tells.
 *
 * @category metrics
 * @since 0.1.0
 */
export const runtime: ReadonlyArray<Metric> = [
  processCpuTime,
  processMemoryUsage,
  processUptime,
  processFileDescriptors,
  eventLoopDelayMin,
  eventLoopDelayMax,
  eventLoopDelayMean,
  eventLoopDelayStddev,
  eventLoopDelayP50,
  eventLoopDelayP90,
  eventLoopDelayP99,
  eventLoopUtilization,
  eventLoopTime,
  gcDuration,
  heapUsed,
  heapSpaceSize,
  heapSpaceAvailable,
  heapSpacePhysical,
  resourceActive
]
