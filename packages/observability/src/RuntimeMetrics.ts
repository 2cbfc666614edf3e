/**
 * How this process and its runtime fare: CPU, memory, the event loop, garbage collections, the heap. Names and units
 * are OpenTelemetry's.
 *
 * **Example** (What is read)
 *
 * ```ts import.meta.vitest
 * import * as RuntimeMetrics from "@effect-orchestra/observability/RuntimeMetrics"
 * import { Effect } from "effect"
 *
 * const read = Effect.flatMap(RuntimeMetrics.make, ({ collect }) => collect)
 * const names = (await Effect.runPromise(Effect.scoped(read))).map(({ metric }) => metric.name)
 * names.slice(0, 2) // => ["process.cpu.time", "process.memory.usage"]
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { readdir } from "node:fs/promises"
import {
  constants,
  monitorEventLoopDelay,
  type NodeGCPerformanceDetail,
  performance,
  PerformanceObserver
} from "node:perf_hooks"
import { getHeapSpaceStatistics } from "node:v8"
import * as Meter from "./Meter.ts"
import * as MetricTable from "./MetricTable.ts"

/**
 * What reads the metrics of process and runtime, in the order of `MetricTable.all`.
 *
 * @category models
 * @since 0.1.0
 */
export interface RuntimeMetrics {
  readonly collect: Effect.Effect<ReadonlyArray<Meter.Meter>>
}

/**
 * Watches the event loop and the garbage collector until the scope closes.
 *
 * **Details**
 *
 * Watching costs a timer of the runtime each 20 milliseconds, which keeps no process alive. Reading waits for one
 * directory listing and never fails: where the platform does not list file descriptors (everywhere but Linux) that
 * metric has no value.
 *
 * What the event loop did is told of the last one to two minutes, however often and by how many it is asked. Were it
 * told since the last reading, as OpenTelemetry's own instrumentation does, each of two scrapers would hide from the
 * other what it has read.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: Effect.Effect<RuntimeMetrics, never, Scope.Scope> = Effect.gen(function*() {
  const collections = yield* watchCollections
  const loop = yield* watchLoop
  const collect = Effect.map(
    openDescriptors,
    (open) => [...ofProcess(open), ...loop(), collections, ...ofHeap(), resources()]
  )
  return { collect }
})

const read = (
  metric: MetricTable.Metric,
  values: Iterable<readonly [attribute: string | undefined, value: number]>
) => {
  const meter = Meter.make(metric)
  for (const [attribute, value] of values) meter.add(attribute === undefined ? [] : [attribute], value)
  return meter
}

const openDescriptors = Effect.map(Effect.option(Effect.tryPromise(() => readdir("/proc/self/fd"))), (listed) =>
  // One of them is the descriptor of the listing itself.
  listed._tag === "Some" ? [listed.value.length - 1] : [])

const ofProcess = (open: ReadonlyArray<number>): ReadonlyArray<Meter.Meter> => {
  const { system, user } = process.cpuUsage()
  return [
    read(MetricTable.processCpuTime, [["user", user / 1_000_000], ["system", system / 1_000_000]]),
    read(MetricTable.processMemoryUsage, [[undefined, process.memoryUsage.rss()]]),
    read(MetricTable.processUptime, [[undefined, process.uptime()]]),
    read(MetricTable.processFileDescriptors, open.map((count) => [undefined, count]))
  ]
}

/** Begins to count the event loop's delays and its use. */
class Window {
  private readonly histogram = monitorEventLoopDelay({ resolution: 20 })
  private readonly use = performance.eventLoopUtilization()
  readonly since: bigint

  constructor(since: bigint) {
    this.since = since
    this.histogram.enable()
  }

  end(): void {
    this.histogram.disable()
  }

  meters(): ReadonlyArray<Meter.Meter> {
    const { histogram } = this
    const seconds = (metric: MetricTable.Metric, nanos: number) =>
      // Before the first tick there is nothing to tell.
      read(metric, histogram.count === 0 ? [] : [[undefined, nanos / 1e9]])
    return [
      seconds(MetricTable.eventLoopDelayMin, histogram.min),
      seconds(MetricTable.eventLoopDelayMax, histogram.max),
      seconds(MetricTable.eventLoopDelayMean, histogram.mean),
      seconds(MetricTable.eventLoopDelayStddev, histogram.stddev),
      seconds(MetricTable.eventLoopDelayP50, histogram.percentile(50)),
      seconds(MetricTable.eventLoopDelayP90, histogram.percentile(90)),
      seconds(MetricTable.eventLoopDelayP99, histogram.percentile(99)),
      read(MetricTable.eventLoopUtilization, [[undefined, performance.eventLoopUtilization(this.use).utilization]])
    ]
  }
}

/** The time of a window: who reads at least so often misses nothing. */
const windowNanos = 60_000_000_000n

/** Two windows, of which the older is told: it covers the last minute at any time, and the next one is open already. */
const watchLoop = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const open = () => new Window(clock.monotonicTimeNanosUnsafe())
  let [older, newer] = [open(), open()]
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      older.end()
      newer.end()
    })
  )
  return () => {
    if (clock.monotonicTimeNanosUnsafe() - newer.since >= windowNanos) {
      older.end()
      older = newer
      newer = open()
    }
    const { active, idle } = performance.eventLoopUtilization()
    return [
      ...older.meters(),
      read(MetricTable.eventLoopTime, [["active", active / 1000], ["idle", idle / 1000]])
    ]
  }
})

const gcTypes = new Map([
  [constants.NODE_PERFORMANCE_GC_MAJOR, "major"],
  [constants.NODE_PERFORMANCE_GC_MINOR, "minor"],
  [constants.NODE_PERFORMANCE_GC_INCREMENTAL, "incremental"],
  [constants.NODE_PERFORMANCE_GC_WEAKCB, "weakcb"]
])

const watchCollections = Effect.gen(function*() {
  const meter = Meter.make(MetricTable.gcDuration)
  // Known from the start: a rate has to see the zero before the first.
  for (const type of gcTypes.values()) meter.at([type])
  const observer = new PerformanceObserver((list) => {
    for (const entry of list.getEntries()) {
      // An entry of the type "gc" has it.
      const { detail, duration } = entry as typeof entry & { readonly detail: NodeGCPerformanceDetail }
      meter.record([gcTypes.get(detail.kind ?? 0) ?? "other"], duration / 1000)
    }
  })
  yield* Effect.acquireRelease(
    Effect.sync(() => observer.observe({ entryTypes: ["gc"] })),
    () => Effect.sync(() => observer.disconnect())
  )
  return meter
})

const ofHeap = (): ReadonlyArray<Meter.Meter> => {
  const spaces = getHeapSpaceStatistics()
  const each = (metric: MetricTable.Metric, value: (space: (typeof spaces)[number]) => number) =>
    read(metric, spaces.map((space) => [space.space_name, value(space)]))
  return [
    each(MetricTable.heapUsed, (space) => space.space_used_size),
    each(MetricTable.heapSpaceSize, (space) => space.space_size),
    each(MetricTable.heapSpaceAvailable, (space) => space.space_available_size),
    each(MetricTable.heapSpacePhysical, (space) => space.physical_space_size)
  ]
}

const resources = (): Meter.Meter => {
  const counts = new Map<string, number>()
  // A hundred thousand timers are no reason to hold the event loop: counted first, they take less than 2 ms.
  for (const type of process.getActiveResourcesInfo()) counts.set(type, (counts.get(type) ?? 0) + 1)
  return read(MetricTable.resourceActive, counts)
}
