/**
 * Sends traces, logs and metrics to an OpenTelemetry Collector with the OpenTelemetry SDK, and shares spans with other
 * instrumentation of the process: a span of theirs is the parent of the Effect that runs within it, and one that they
 * start within an Effect is the child of its span.
 *
 * This module needs the packages of the SDK, which are optional peers, and so is not in the barrel. Without them use
 * `Otlp`, which takes the same options.
 *
 * Metrics are those of `Telemetry`, so a Collector shows what a scrape of `/metrics` shows. All `OTEL_*` variables for
 * this are honoured, and one with a wrong value fails the layer with `InvalidSetting`, where the SDK takes a default.
 *
 * **Details**
 *
 * A Collector that is slow or dead neither slows the program nor makes it grow: at most 2,048 spans and as many log
 * records wait. What is lost is counted in `orchestra.telemetry.dropped.items`; metrics are late, not lost. One warning
 * says that nothing gets through, another one that it does again.
 *
 * `OTEL_EXPORTER_OTLP_CERTIFICATE` and its like are honoured here alone: `Otlp` trusts whom Node trusts.
 *
 * Exemplars are not sent: the encoders of the SDK leave them out. A scrape has them.
 *
 * **Example** (A Collector that is not there harms nobody)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import * as OpenTelemetry from "@effect-orchestra/observability/OpenTelemetry"
 * import { Effect, Layer, Logger } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const job = yield* Orchestrator.fork(Effect.succeed("done"), { name: "job" })
 *   return yield* Routine.join(job)
 * }).pipe(Effect.withSpan("program"))
 *
 * const openTelemetry = OpenTelemetry.layer({ endpoint: "http://127.0.0.1:1", shutdownTimeout: "50 millis" })
 * const layer = openTelemetry.pipe(Layer.provideMerge(Orchestrator.layer), Layer.provide(Logger.layer([])))
 * await Effect.runPromise(program.pipe(Effect.provide(layer))) // => "done"
 * ```
 *
 * @since 0.1.0
 */
import type { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import * as OtelLogger from "@effect/opentelemetry/OtelLogger"
import * as OtelTracer from "@effect/opentelemetry/OtelTracer"
import { TraceFlags } from "@opentelemetry/api"
import { OTLPLogExporter } from "@opentelemetry/exporter-logs-otlp-proto"
import { OTLPMetricExporter } from "@opentelemetry/exporter-metrics-otlp-proto"
import { OTLPTraceExporter } from "@opentelemetry/exporter-trace-otlp-proto"
import { type Resource, resourceFromAttributes } from "@opentelemetry/resources"
import { BatchLogRecordProcessor, LoggerProvider, type LogRecordProcessor } from "@opentelemetry/sdk-logs"
import { PeriodicExportingMetricReader } from "@opentelemetry/sdk-metrics"
import { BatchSpanProcessor, type SpanProcessor } from "@opentelemetry/sdk-trace-base"
import { NodeTracerProvider } from "@opentelemetry/sdk-trace-node"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Tracer from "effect/Tracer"
import * as OtelContext from "./internal/OtelContext.ts"
import * as OtelMetrics from "./internal/OtelMetrics.ts"
import * as OtelQueue from "./internal/OtelQueue.ts"
import * as OtelSampling from "./internal/OtelSampling.ts"
import * as Outage from "./internal/Outage.ts"
import * as OtlpSettings from "./OtlpSettings.ts"
import * as Sampler from "./Sampler.ts"
import { Telemetry } from "./Telemetry.ts"

/**
 * Sends all there is until the program ends, then waits at most `shutdownTimeout` (default 3 seconds) for the rest.
 *
 * Provide it to the program, whose spans and log lines are to be sent. Fails with `InvalidSetting`.
 *
 * **Details**
 *
 * Sets the global context manager and tracer provider of `@opentelemetry/api` if nobody has yet, and takes them back at
 * the end.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: OtlpSettings.OtlpOptions = {}
): Layer.Layer<never, OtlpSettings.InvalidSetting, Orchestrator> =>
  Layer.unwrap(make(options)).pipe(Layer.provide(Telemetry.shared))

const make = Effect.fnUntraced(function*(options: OtlpSettings.OtlpOptions) {
  const telemetry = yield* Telemetry
  const settings = yield* OtlpSettings.read(options, telemetry.resource)
  const resource = resourceFromAttributes(settings.resource)
  const outage = yield* Outage.shared
  const traces = settings.traces === undefined ? undefined : yield* traced(settings.traces, telemetry, outage)
  const logs = settings.logs === undefined ? undefined : yield* logged(settings.logs, telemetry, outage)
  const metrics = settings.metrics === undefined ? undefined : yield* measured(settings.metrics, outage)
  metrics?.reader.setMetricProducer(yield* OtelMetrics.producer(telemetry, resource))

  // All at once, within one bound; the layers of `NodeSdk` end one after the other, each within its own.
  yield* Effect.addFinalizer(() =>
    Effect.promise(() =>
      Promise.allSettled([traces?.processor.shutdown(), logs?.processor.shutdown(), metrics?.reader.shutdown()])
    ).pipe(
      Effect.interruptible,
      Effect.timeoutOption(settings.shutdownTimeout),
      Effect.andThen(Effect.sync(() => {
        for (const part of [traces, logs, metrics]) part?.queue.close()
      }))
    )
  )

  return Layer.merge(
    traces === undefined ? Layer.empty : tracer(traces.processor, traces.sampling, resource, telemetry),
    logs === undefined ? Layer.empty : logger(logs.processor, resource, telemetry, options.keepLoggers ?? true)
  )
})

type ExporterConfig = NonNullable<ConstructorParameters<typeof OTLPTraceExporter>[0]>

/** What all exporters are told, and the queue in front of this one. */
const queued = Effect.fnUntraced(function*(
  signal: string,
  target: OtlpSettings.Target & { readonly maxQueue?: number },
  outage: Outage.Shared,
  lost: (items: number) => void
) {
  const { headers, maxQueue = 0 } = target
  const queue = OtelQueue.make({ signal, maxQueue, headers, lost, outage: yield* outage(target.url) })
  return {
    queue,
    exporter: {
      url: target.url,
      headers: queue.headers,
      timeoutMillis: target.timeout,
      // The enum of a package that is none of ours, of which this is a value.
      compression: target.compression as NonNullable<ExporterConfig["compression"]>
    }
  }
})

const batched = ({ delay, exportTimeout, maxBatch, maxQueue }: OtlpSettings.Batch) => ({
  scheduledDelayMillis: delay,
  exportTimeoutMillis: exportTimeout,
  maxExportBatchSize: maxBatch,
  maxQueueSize: maxQueue
})

const length = (batch: ReadonlyArray<unknown>): number => batch.length

const traced = Effect.fnUntraced(function*(
  target: NonNullable<OtlpSettings.Settings["traces"]>,
  telemetry: Telemetry["Service"],
  outage: Outage.Shared
) {
  const { exporter, queue } = yield* queued("traces", target, outage, (items) => telemetry.dropped("span", items))
  const inner = new BatchSpanProcessor(queue.watch(new OTLPTraceExporter(exporter), length), batched(target))
  const processor: SpanProcessor = {
    onStart: () => {},
    onEnd: (span) => {
      const isSampled = (span.spanContext().traceFlags & TraceFlags.SAMPLED) !== 0
      if (isSampled && queue.enter()) inner.onEnd(span)
    },
    forceFlush: () => inner.forceFlush(),
    shutdown: () => inner.shutdown()
  }
  return { queue, processor, sampling: target.sampling }
})

const logged = Effect.fnUntraced(function*(
  target: NonNullable<OtlpSettings.Settings["logs"]>,
  telemetry: Telemetry["Service"],
  outage: Outage.Shared
) {
  const { exporter, queue } = yield* queued("logs", target, outage, (items) => telemetry.dropped("log", items))
  const inner = new BatchLogRecordProcessor({
    exporter: queue.watch(new OTLPLogExporter(exporter), length),
    ...batched(target)
  })
  const processor: LogRecordProcessor = {
    onEmit: (record) => {
      if (queue.enter()) inner.onEmit(record)
    },
    forceFlush: () => inner.forceFlush(),
    shutdown: () => inner.shutdown()
  }
  return { queue, processor }
})

const measured = Effect.fnUntraced(function*(
  target: NonNullable<OtlpSettings.Settings["metrics"]>,
  outage: Outage.Shared
) {
  const { exporter, queue } = yield* queued("metrics", target, outage, () => {})
  const reader = new PeriodicExportingMetricReader({
    exporter: queue.watch(new OTLPMetricExporter(exporter), () => 0),
    exportIntervalMillis: target.interval,
    exportTimeoutMillis: target.exportTimeout
  })
  return { queue, reader }
})

const tracer = (
  processor: SpanProcessor,
  sampling: OtlpSettings.Sampling,
  resource: Resource,
  telemetry: Telemetry["Service"]
) =>
  Layer.effect(
    Tracer.Tracer,
    Effect.gen(function*() {
      const spanProcessors = [processor]
      const ours = new NodeTracerProvider({ resource, spanProcessors, sampler: OtelSampling.ofEffect(sampling) })
      const others = new NodeTracerProvider({ resource, spanProcessors, sampler: OtelSampling.ofOthers(sampling) })
      yield* OtelContext.register(others)
      const tracer = yield* Effect.provideService(OtelTracer.make, OtelTracer.OtelTracer, ours.getTracer("effect"))
      return Sampler.make(tracer, {
        ratio: sampling.ratio,
        slow: sampling.slow,
        dropped: (items) => telemetry.dropped("span", items)
      })
    })
  )

const logger = (
  processor: LogRecordProcessor,
  resource: Resource,
  telemetry: Telemetry["Service"],
  mergeWithExisting: boolean
) =>
  Logger.layer([Effect.tap(OtelLogger.make, telemetry.logTo)], { mergeWithExisting }).pipe(
    Layer.provide(
      Layer.sync(OtelLogger.OtelLoggerProvider, () => new LoggerProvider({ resource, processors: [processor] }))
    )
  )
