/**
 * Sends traces, logs and metrics to an OpenTelemetry Collector, over HTTP in protobuf, with nothing but Effect: the
 * light sibling of `OpenTelemetry`, which uses the OpenTelemetry SDK and shares its context with other instrumentation.
 *
 * Metrics are those of `Telemetry`, so a Collector shows what a scrape of `/metrics` shows. All `OTEL_*` variables for
 * this are honoured, and one with a wrong value fails the layer with `InvalidSetting`.
 *
 * **Details**
 *
 * A Collector that is slow or dead neither slows the program nor makes it grow: at most 2,048 spans and as many log
 * records wait, one request of each signal is under way. What is lost is counted in
 * `orchestra.telemetry.dropped.items`; metrics are late, not lost. One warning says that nothing gets through, another
 * one that it does again.
 *
 * **Example** (A Collector that is not there harms nobody)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { Otlp } from "@effect-orchestra/observability"
 * import { Effect, Layer, Logger } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const job = yield* Orchestrator.fork(Effect.succeed("done"), { name: "job" })
 *   return yield* Routine.join(job)
 * }).pipe(Effect.withSpan("program"))
 *
 * const otlp = Otlp.layer({ endpoint: "http://127.0.0.1:1", shutdownTimeout: "50 millis" })
 * const layer = otlp.pipe(Layer.provideMerge(Orchestrator.layer), Layer.provide(Logger.layer([])))
 * await Effect.runPromise(program.pipe(Effect.provide(layer))) // => "done"
 * ```
 *
 * @since 0.1.0
 */
import type { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as FetchHttpClient from "effect/http/FetchHttpClient"
import * as HttpBody from "effect/http/HttpBody"
import * as HttpClient from "effect/http/HttpClient"
import * as HttpClientResponse from "effect/http/HttpClientResponse"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as OtlpExporter from "effect/observability/OtlpExporter"
import * as OtlpLogger from "effect/observability/OtlpLogger"
import { entriesToAttributes } from "effect/observability/OtlpResource"
import { layerProtobuf, OtlpSerialization } from "effect/observability/OtlpSerialization"
import * as OtlpTracer from "effect/observability/OtlpTracer"
import * as Tracer from "effect/Tracer"
import * as OtlpMetrics from "./internal/OtlpMetrics.ts"
import * as OtlpSender from "./internal/OtlpSender.ts"
import * as Outage from "./internal/Outage.ts"
import * as OtlpSettings from "./OtlpSettings.ts"
import * as Sampler from "./Sampler.ts"
import { Telemetry } from "./Telemetry.ts"

/**
 * Sends all there is until the program ends, then waits at most `shutdownTimeout` (default 3 seconds) for the rest.
 *
 * Provide it to the program, whose spans and log lines are to be sent. Fails with `InvalidSetting`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: OtlpSettings.OtlpOptions = {}
): Layer.Layer<never, OtlpSettings.InvalidSetting, Orchestrator> =>
  Layer.unwrap(make(options)).pipe(
    Layer.provide([FetchHttpClient.layer, layerProtobuf]),
    Layer.provide(Telemetry.shared)
  )

const make = Effect.fnUntraced(function*(options: OtlpSettings.OtlpOptions) {
  const telemetry = yield* Telemetry
  const serialization = yield* OtlpSerialization
  const { logs, metrics, resource: attributes, shutdownTimeout, traces } = yield* OtlpSettings.read(
    options,
    telemetry.resource
  )
  const resource = { attributes: entriesToAttributes(Object.entries(attributes)), droppedAttributesCount: 0 }
  const outage = yield* Outage.shared
  const sender = Effect.fnUntraced(function*(
    signal: string,
    target: OtlpSettings.Target & { readonly maxQueue?: number } | undefined,
    lost: (items: number) => void
  ) {
    if (target === undefined) return undefined
    const { maxQueue = 0 } = target
    return yield* OtlpSender.make({ signal, target, maxQueue, lost, outage: yield* outage(target.url) })
  })
  const spans = yield* sender("traces", traces, (items) => telemetry.dropped("span", items))
  const records = yield* sender("logs", logs, (items) => telemetry.dropped("log", items))
  const points = yield* sender("metrics", metrics, () => {})

  const collect = points === undefined ? Effect.void : Effect.gen(function*() {
    const now = yield* Clock.currentTimeMillis
    const data = OtlpMetrics.encode(yield* telemetry.collect, resource, now)
    yield* points.send(0, () => serialization.metrics(data))
  })
  if (metrics !== undefined) {
    yield* Effect.sleep(metrics.interval).pipe(Effect.andThen(collect), Effect.forever, Effect.forkScoped)
  }

  // Below the tracer and the logger, whose last batches are here by then; above the senders, which still run.
  yield* Effect.addFinalizer(() =>
    Effect.all([collect, spans?.drained ?? Effect.void, records?.drained ?? Effect.void], {
      concurrency: "unbounded",
      discard: true
    }).pipe(
      Effect.interruptible,
      Effect.timeoutOption(shutdownTimeout),
      Effect.andThen(Effect.sync(() => {
        spans?.abandon()
        records?.abandon()
      }))
    )
  )

  // Effect's exporters make the messages and hand them over here instead of sending them: theirs keep as many requests
  // under way as there are batches, and give a Collector up for a minute when it fails once.
  const handOver = Layer.mergeAll(
    Layer.succeed(HttpClient.HttpClient, taken),
    OtlpExporter.layerFlusher,
    Layer.succeed(OtlpSerialization, {
      traces: ({ resourceSpans: [first] }) => {
        const scopeSpans = first?.scopeSpans ?? []
        const items = scopeSpans.reduce((sum, { spans }) => sum + spans.length, 0)
        spans?.offer(items, () => serialization.traces({ resourceSpans: [{ resource, scopeSpans }] }))
        return HttpBody.empty
      },
      logs: ({ resourceLogs: [first] }) => {
        const scopeLogs = first?.scopeLogs ?? []
        const items = scopeLogs.reduce((sum, { logRecords }) => sum + (logRecords?.length ?? 0), 0)
        records?.offer(items, () => serialization.logs({ resourceLogs: [{ resource, scopeLogs }] }))
        return HttpBody.empty
      },
      metrics: () => HttpBody.empty
    })
  )
  const batches = (of: OtlpSettings.Target & OtlpSettings.Batch) => ({
    url: of.url,
    resource: { serviceName: "unused" },
    exportInterval: of.delay,
    maxBatchSize: of.maxBatch
  })
  const tracer = traces === undefined || traces.sampling.never
    ? Layer.empty
    : Layer.effect(
      Tracer.Tracer,
      Effect.map(OtlpTracer.make(batches(traces)), (tracer) =>
        Sampler.make(tracer, {
          ratio: traces.sampling.ratio,
          slow: traces.sampling.slow,
          dropped: (items) => telemetry.dropped("span", items)
        }))
    )
  const logger = logs === undefined
    ? Layer.empty
    : Logger.layer([Effect.tap(OtlpLogger.make(batches(logs)), telemetry.logTo)], {
      mergeWithExisting: options.keepLoggers ?? true
    })
  return Layer.merge(tracer, logger).pipe(Layer.provide(handOver))
})

/** Answers at once: what it was asked to send has been handed over already. */
const taken = HttpClient.make((request) =>
  Effect.sync(() => HttpClientResponse.fromWeb(request, new Response(null, { status: 200 })))
)
