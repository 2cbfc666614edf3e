/**
 * Turns what happens in the tree into metrics.
 *
 * Counters and histograms follow the events of the orchestrator through its instrumentation hook; gauges are read
 * from the orchestrator when somebody asks, so that they cost nothing in between.
 *
 * **Example** (What has been counted)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { Telemetry } from "@effect-orchestra/observability"
 * import { Effect, Layer } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   yield* Effect.flatMap(Orchestrator.fork(Effect.void, { name: "job" }), Routine.join)
 *   const meters = yield* Effect.flatMap(Telemetry, (telemetry) => telemetry.collect)
 *   const starts = meters.find(({ metric }) => metric.name === "orchestra.routine.starts")
 *   return Array.from(starts?.series.values() ?? [], ({ attributes, value }) => [attributes, value])
 * })
 *
 * const layer = Layer.provideMerge(Telemetry.layer, Orchestrator.layer)
 * const series = await Effect.runPromise(program.pipe(Effect.provide(layer)))
 * series // => [[[["orchestra.routine.name", "job"]], 1]]
 * ```
 *
 * @since 0.1.0
 */
import { observe } from "@effect-orchestra/core/Observer"
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type * as Scope from "effect/Scope"
import * as Attributes from "./Attributes.ts"
import * as Census from "./internal/Census.ts"
import { Recorder, type Signal } from "./internal/Recorder.ts"
import { Runs } from "./internal/Runs.ts"
import * as UserMetrics from "./internal/UserMetrics.ts"
import * as Logs from "./Logs.ts"
import * as Meter from "./Meter.ts"
import { meteringOf } from "./Metering.ts"
import * as MetricTable from "./MetricTable.ts"
import * as RuntimeMetrics from "./RuntimeMetrics.ts"
import * as Traces from "./Traces.ts"

/**
 * What is told, and how much of it at most.
 *
 * @category models
 * @since 0.1.0
 */
export interface TelemetryOptions extends Meter.Bounds {
  /** What is added to `resource`, such as `service.version`. An attribute that is there already is replaced. */
  readonly resource?: { readonly [attribute: string]: string } | undefined
  /** Whether the waits of receivers are recorded, and not those of senders alone. Default false: to wait is their life. */
  readonly receiveWaits?: boolean | undefined
  /** Whether spans are made of what runs, and how. Default: with any tracer that the program is given. */
  readonly traces?: boolean | Traces.TracesOptions | undefined
  /** Whether lines are annotated, and lines about the lives of routines are logged. Default true. */
  readonly logs?: boolean | undefined
}

/**
 * The metrics of one orchestrator and its process.
 *
 * @category services
 * @since 0.1.0
 */
export class Telemetry extends Context.Service<Telemetry, {
  /** Random for each start of the process: tells a restarted one from the one before. */
  readonly instance: string
  /** When it began to count, in wall clock milliseconds. */
  readonly since: number
  /** What is measured: the OpenTelemetry resource. */
  readonly resource: { readonly [attribute: string]: string }
  /**
   * Every metric of `MetricTable.all`, in that order, then those of the program's own registry, as they stand now.
   * Visits the tree once, and lets others run after every 500 nodes. Counters and histograms are not copies: they go on.
   */
  readonly collect: Effect.Effect<ReadonlyArray<Meter.Meter>>
  /** Counts what some part of telemetry had to drop to stay small. Synchronous: whoever drops is in a hurry. */
  readonly dropped: (signal: Signal, items: number) => void
  /** Counts an event stream that was opened (1) or closed (-1). */
  readonly streaming: (change: 1 | -1) => void
  /** Lines about the lives of routines go to this logger as well, while the scope is open. */
  readonly logTo: (logger: Logger.Logger<unknown, unknown>) => Effect.Effect<void, never, Scope.Scope>
  /** The spans of runs. */
  readonly traces: Traces.Traces
  /** The last lines of routines that somebody looks at. */
  readonly logs: Logs.Logs
}>()("@effect-orchestra/observability/Telemetry") {
  /**
   * Follows the orchestrator from the moment the layer is built: what ended before is not counted.
   *
   * @category layers
   * @since 0.1.0
   */
  static readonly layer: Layer.Layer<Telemetry, never, Orchestrator> = Layer.effect(
    this,
    Effect.suspend(() => make({}))
  )

  /**
   * The same with options. Call it once, and provide what it returns: every call makes another.
   *
   * @category layers
   * @since 0.1.0
   */
  static layerWith(options: TelemetryOptions): Layer.Layer<Telemetry, never, Orchestrator> {
    return Layer.effect(this, Effect.suspend(() => make(options)))
  }

  /**
   * The one that is in the context already, else `layer`: for what exports, so that all of it tells the same.
   *
   * @category layers
   * @since 0.1.0
   */
  static readonly shared: Layer.Layer<Telemetry, never, Orchestrator> = Layer.unwrap(
    Effect.map(
      Effect.serviceOption(this),
      Option.match({ onNone: () => this.layer, onSome: (telemetry) => Layer.succeed(this, telemetry) })
    )
  )
}

const make = Effect.fnUntraced(function*(bounds: TelemetryOptions) {
  MetricTable.register(MetricTable.all)
  const orchestrator = yield* Orchestrator
  const { kernel } = orchestrator
  const instance = (yield* Random.nextIntBetween(0, 2 ** 32)).toString(16).padStart(8, "0")
  const since = yield* Clock.currentTimeMillis
  const { logs, traces = true } = bounds
  const runs = new Runs()
  const spans = traces === false ? Traces.none : yield* Traces.make(kernel, runs, traces === true ? {} : traces)
  const census = new Census.Census(kernel, bounds)
  const recorder = new Recorder(kernel, census, {
    bounds,
    receiveWaits: bounds.receiveWaits === true,
    spanOf: spans.spanOf
  })
  const runtime = yield* RuntimeMetrics.make
  const warned = new Set<string>()
  let streams = 0

  yield* observe(kernel, recorder.others)
  // Who exports is built on top of this, and adds its logger then.
  const loggers = new Set(yield* Logger.CurrentLoggers)
  const lines = logs === false ? Logs.none : yield* Effect.provideService(
    Logs.make(kernel, runs, (dropped) => recorder.dropped("log", dropped)),
    Logger.CurrentLoggers,
    loggers
  )
  runs.counts = recorder
  yield* runs.observe(kernel)

  const routines = Effect.map(orchestrator.stats, (stats) => {
    const active = Meter.make(MetricTable.routineActive, bounds)
    const starts = Meter.make(MetricTable.routineStarts, bounds)
    for (const template of stats) {
      for (const [state, count] of Object.entries(template.active)) active.add([template.name, state], count)
      starts.add([template.name], template.starts)
    }
    return [active, starts]
  })

  const remaining = Effect.gen(function*() {
    const meter = Meter.make(MetricTable.shutdownRemaining)
    for (const phase of ["ask", "interrupt", "abandon"]) meter.add([phase], 0)
    // Outside a shutdown nobody needs to be counted.
    if (kernel.stopping === undefined) return meter
    const { phase, remaining } = yield* orchestrator.shutdownProgress
    if (phase !== undefined) meter.add([phase], remaining)
    return meter
  })

  /** A metric that is one number. */
  const single = (metric: MetricTable.Metric, value: number) => {
    const meter = Meter.make(metric)
    meter.add([], value)
    return meter
  }

  const userMetrics = UserMetrics.make({
    context: orchestrator.kernel.context,
    reserved: MetricTable.all,
    dropped: (series) => recorder.dropped("metric", series)
  })

  const collect = Effect.gen(function*() {
    const gauges = yield* census.take
    const meters = inOrder([
      ...yield* routines,
      ...Object.values(gauges),
      ...census.meters,
      ...recorder.meters,
      yield* remaining,
      single(MetricTable.httpStreams, streams),
      ...meteringOf(kernel)?.meters ?? [],
      ...yield* runtime.collect,
      ...yield* userMetrics
    ])
    const series = meters.reduce((sum, meter) => sum + meter.series.size, 1)
    yield* warn(meters)
    return meters.map((meter) =>
      meter.metric === MetricTable.telemetrySeries ? single(MetricTable.telemetrySeries, series) : meter
    )
  })

  /** Once for each metric, and in one line for all that overflow together. */
  const warn = (meters: ReadonlyArray<Meter.Meter>) =>
    Effect.suspend(() => {
      const fresh = meters.filter((meter) => Meter.overflowed(meter) && !warned.has(meter.metric.name))
      if (fresh.length === 0) return Effect.void
      for (const { metric } of fresh) warned.add(metric.name)
      const names = fresh.map(({ metric }) => metric.name).join(", ")
      return Effect.logWarning(`too many series, the rest is counted as ${Attributes.overflow}: ${names}`)
    })

  return Telemetry.of({
    instance,
    since,
    resource: {
      "service.name": orchestrator.name,
      "service.instance.id": instance,
      "process.pid": String(process.pid),
      "process.runtime.name": "nodejs",
      "process.runtime.version": process.versions.node,
      "telemetry.sdk.name": "effect-orchestra",
      "telemetry.sdk.language": "nodejs",
      ...bounds.resource
    },
    collect,
    dropped: (signal, items) => recorder.dropped(signal, items),
    streaming: (change) => void (streams += change),
    logTo: (logger) =>
      Effect.asVoid(Effect.acquireRelease(
        Effect.sync(() => loggers.add(logger)),
        () => Effect.sync(() => loggers.delete(logger))
      )),
    traces: spans,
    logs: lines
  })
})

/** In the order of the table, with a meter for each metric of it that has no values; others stand behind. */
const inOrder = (meters: ReadonlyArray<Meter.Meter>): ReadonlyArray<Meter.Meter> => {
  const found = new Map(meters.map((meter) => [meter.metric, meter]))
  const known = new Set(MetricTable.all)
  return [
    ...MetricTable.all.map((metric) => found.get(metric) ?? Meter.make(metric)),
    ...meters.filter(({ metric }) => !known.has(metric))
  ]
}
