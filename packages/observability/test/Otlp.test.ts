import { Orchestrator, Routine } from "@effect-orchestra/core"
import { Meter, MetricTable, Otlp, OtlpSettings, Prometheus, Telemetry } from "@effect-orchestra/observability"
import * as OpenTelemetry from "@effect-orchestra/observability/OpenTelemetry"
import { assert, describe, it } from "@effect/vitest"
import { Cause, ConfigProvider, Data, Effect, Exit, Layer, Logger, Metric, References, Schedule } from "effect"
import * as OtlpReceiver from "./OtlpReceiver.ts"

class Oops extends Data.TaggedError("Oops")<{ readonly message: string }> {}

const variants = { light: Otlp.layer, sdk: OpenTelemetry.layer }
const environment = (env: Record<string, string>) => ConfigProvider.layer(ConfigProvider.fromEnv({ env }))
const silent = Logger.layer([])

/** Runs a program with what it exports to, until all of that is sent. */
const exporting = <A, E>(
  variant: keyof typeof variants,
  program: Effect.Effect<A, E, Orchestrator | Telemetry>,
  options: OtlpSettings.OtlpOptions,
  env: Record<string, string> = {}
) => {
  const base = Telemetry.layer.pipe(Layer.provideMerge(Orchestrator.layerWith({ name: "app" })))
  const layer = variants[variant]({ keepLoggers: false, ...options }).pipe(
    Layer.provideMerge(base),
    Layer.provide(environment(env)),
    Layer.provideMerge(silent)
  )
  return Effect.provide(program, layer)
}

/** One number of a metric, by the values of its attributes. */
const points = (metric: OtlpReceiver.Metric | undefined) =>
  metric?.gauge?.dataPoints ?? metric?.sum?.dataPoints ?? metric?.histogram?.dataPoints ?? []

const workload = Effect.gen(function*() {
  const job = yield* Orchestrator.fork(Effect.log("at work"), { name: "job" })
  yield* Routine.join(job)
  const broken = yield* Orchestrator.fork(new Oops({ message: "no" }), { name: "broken" })
  yield* Effect.exit(Routine.join(broken))
})

describe("Otlp", () => {
  for (const variant of ["light", "sdk"] as const) {
    it.live(`${variant}: sends every metric with its name, unit, kind and value, once`, () =>
      Effect.gen(function*() {
        const receiver = yield* OtlpReceiver.make
        const program = Effect.gen(function*() {
          yield* workload
          const { collect, instance } = yield* Telemetry
          return { meters: (yield* collect).filter(isSteady), instance }
        })
        const { instance, meters } = yield* exporting(variant, program, { endpoint: receiver.url })
        assert.lengthOf(receiver.metrics, 1)
        const metrics = (receiver.metrics[0] ?? []).filter((metric) => isSteady({ metric }))
        assert.deepStrictEqual(
          metrics.map(({ description, name, unit }) => ({ description, name, unit })),
          meters.filter(({ series }) => series.size > 0).map(({ metric: { description, name, unit } }) => ({
            description,
            name,
            unit
          }))
        )
        for (const { metric, series } of meters) {
          const found = metrics.find(({ name }) => name === metric.name)
          const [kind, isMonotonic] = found === undefined || found.gauge !== undefined
            ? ["gauge", undefined]
            : found.histogram !== undefined
            ? ["histogram", undefined]
            : ["sum", found.sum?.isMonotonic ?? false]
          if (series.size > 0) {
            assert.deepStrictEqual<unknown>([kind, isMonotonic], kindOf[metric.kind], metric.name)
          }
          const temporality = found?.sum?.aggregationTemporality ?? found?.histogram?.aggregationTemporality
          if (temporality !== undefined) assert.strictEqual(temporality, "AGGREGATION_TEMPORALITY_CUMULATIVE")
          assert.deepStrictEqual(
            points(found).map(({ attributes }) => attributes),
            Array.from(series.values(), ({ attributes }) => Object.fromEntries(attributes)),
            metric.name
          )
          for (const { startTimeUnixNano, timeUnixNano } of points(found)) {
            assert.isTrue(BigInt(startTimeUnixNano) < BigInt(timeUnixNano))
          }
        }
        const starts = metrics.find(({ name }) => name === "orchestra.routine.starts")
        assert.deepStrictEqual(points(starts).map(({ asDouble }) => asDouble), [1, 1])
        const [duration] = points(metrics.find(({ name }) => name === "orchestra.routine.run.duration"))
        assert.deepStrictEqual(duration?.explicitBounds, MetricTable.routineRunDuration.boundaries)
        assert.lengthOf(duration?.bucketCounts ?? [], (duration?.explicitBounds?.length ?? 0) + 1)
        assert.strictEqual(duration?.count, "1")
        assert.deepInclude(receiver.resources[0], {
          "service.name": "app",
          "service.instance.id": instance,
          "process.pid": process.pid,
          "process.runtime.name": "nodejs",
          "telemetry.sdk.language": "nodejs"
        })
        assert.isTrue(receiver.scopes.has("/v1/metrics @effect-orchestra/observability"))
      }))

    it.live(`${variant}: sends spans with their status, events and links, and log records with their span`, () =>
      Effect.gen(function*() {
        const receiver = yield* OtlpReceiver.make
        const first = Effect.withSpan(Effect.currentSpan, "first", { attributes: { count: 3, ok: true, name: "x" } })
        const program = Effect.gen(function*() {
          const span = yield* first
          yield* Effect.logWarning("inside").pipe(
            Effect.annotateLogs("orchestra.routine.name", "job"),
            Effect.andThen(new Oops({ message: "no" })),
            Effect.withSpan("second", { links: [{ span, attributes: { why: "test" } }] }),
            Effect.withSpan("outer"),
            Effect.exit
          )
          yield* Effect.exit(Effect.withSpan(Effect.interrupt, "third"))
        })
        yield* exporting(variant, program, { endpoint: receiver.url })
        const names = receiver.spans.map(({ name }) => name)
        assert.deepStrictEqual(names.sort(), ["first", "outer", "second", "third"])
        const span = (name: string) => receiver.spans.find((span) => span.name === name)
        assert.deepStrictEqual(span("first")?.attributes, { count: 3, ok: true, name: "x" })
        assert.strictEqual(span("first")?.status?.code, "STATUS_CODE_OK")
        const second = span("second")
        assert.strictEqual(second?.status?.code, "STATUS_CODE_ERROR")
        assert.strictEqual(second?.status?.message, "no")
        assert.strictEqual(second?.parentSpanId, span("outer")?.spanId)
        assert.strictEqual(second?.traceId, span("outer")?.traceId)
        assert.includeMembers(second?.events.map(({ name }) => name) ?? [], ["exception"])
        assert.deepStrictEqual(
          second?.links.map(({ attributes, spanId, traceId }) => ({ attributes, spanId, traceId })),
          [{ attributes: { why: "test" }, spanId: span("first")?.spanId ?? "", traceId: span("first")?.traceId ?? "" }]
        )
        // An interruption is no error.
        assert.include([undefined, "STATUS_CODE_UNSET"], span("third")?.status?.code)
        const logs = receiver.logs.filter(({ body }) => body === "inside")
        assert.lengthOf(logs, 1)
        assert.deepInclude(logs[0]?.attributes, { "orchestra.routine.name": "job" })
        assert.deepStrictEqual([logs[0]?.traceId, logs[0]?.spanId], [second?.traceId, second?.spanId])
        assert.strictEqual(logs[0]?.severityText, "Warn")
      }))

    it.live(`${variant}: marks the overflow series with a boolean`, () =>
      Effect.gen(function*() {
        const receiver = yield* OtlpReceiver.make
        const program = Effect.forEach(
          Array.from({ length: 300 }, (_, index) => index),
          (index) => Effect.flatMap(Orchestrator.fork(Effect.void, { name: `job ${index}` }), Routine.join),
          { discard: true }
        )
        yield* exporting(variant, program, { endpoint: receiver.url })
        const runs = receiver.metrics[0]?.find(({ name }) => name === "orchestra.routine.run.duration")
        const overflow = points(runs).find(({ attributes }) => "otel.metric.overflow" in attributes)
        assert.deepStrictEqual(overflow?.attributes, { "otel.metric.overflow": true })
        assert.strictEqual(overflow?.count, "100")
      }))

    it.live(`${variant}: sends the metrics of the program, and goes on when a name is taken twice`, () =>
      Effect.gen(function*() {
        const receiver = yield* OtlpReceiver.make
        const orders = Metric.counter("orders", {
          description: "Orders.",
          attributes: { unit: "{order}" },
          incremental: true
        })
        const latency = Metric.summary("latency", { maxAge: "1 minute", maxSize: 10, quantiles: [0.5] })
        const program = Effect.gen(function*() {
          yield* Metric.update(orders, 3)
          yield* Metric.update(latency, 7)
          yield* Metric.update(Metric.counter("taken", { incremental: true }), 1)
          yield* Metric.update(Metric.gauge("taken"), 2)
        })
        const registry = Layer.succeed(Metric.MetricRegistry, new Map())
        yield* exporting(variant, program, { endpoint: receiver.url }).pipe(Effect.provide(registry))
        const [metrics = []] = receiver.metrics
        const found = (name: string) => metrics.filter((metric) => metric.name === name)
        assert.deepStrictEqual(found("orders").map(({ description, unit }) => ({ description, unit })), [
          { description: "Orders.", unit: "{order}" }
        ])
        assert.strictEqual(found("orders")[0]?.sum?.isMonotonic, true)
        assert.deepStrictEqual(points(found("orders")[0]).map(({ asDouble, attributes }) => [asDouble, attributes]), [[
          3,
          {}
        ]])
        assert.lengthOf(found("taken"), 1)
        assert.deepStrictEqual(
          metrics.map(({ name }) => name).filter((name) => name.startsWith("latency")),
          variant === "light" ? ["latency"] : ["latency", "latency.sum", "latency.count"]
        )
      }))

    it.live(`${variant}: sends the spans of runs, and the lines about their lives`, () =>
      Effect.gen(function*() {
        const receiver = yield* OtlpReceiver.make
        // The lines are logged behind what happens.
        const program = Effect.andThen(Effect.withSpan(workload, "request"), Effect.sleep("20 millis"))
        yield* exporting(variant, program, { endpoint: receiver.url }).pipe(
          Effect.provideService(References.MinimumLogLevel, "Debug")
        )
        const span = (name: string) => receiver.spans.find((span) => span.name === name)
        assert.strictEqual(span("run job")?.parentSpanId, span("request")?.spanId)
        assert.strictEqual(span("run broken")?.status?.code, "STATUS_CODE_ERROR")
        const line = receiver.logs.find(({ body }) => body === "at work")
        assert.deepInclude(line?.attributes, { "orchestra.routine.name": "job" })
        assert.strictEqual(line?.spanId, span("run job")?.spanId)
        const events = receiver.logs.map(({ attributes }) => attributes["orchestra.event"])
        assert.includeMembers(events, ["routine.exited"])
      }))

    it.live(`${variant}: sends periodically, and cumulatively`, () =>
      Effect.gen(function*() {
        const receiver = yield* OtlpReceiver.make
        const starts = () =>
          receiver.metrics.map((metrics) => points(metrics.find(({ name }) => name === "orchestra.routine.starts")))
        const program = Effect.gen(function*() {
          yield* Effect.flatMap(Orchestrator.fork(Effect.void, { name: "job" }), Routine.join)
          yield* until(() => starts().length > 0)
          yield* Effect.flatMap(Orchestrator.fork(Effect.void, { name: "job" }), Routine.join)
          yield* until(() => starts().length > 2)
        })
        yield* exporting(variant, program, { endpoint: receiver.url, metricInterval: "30 millis" })
        const values = starts().map(([point]) => point?.asDouble)
        assert.strictEqual(values[0], 1)
        assert.strictEqual(values.at(-1), 2)
        assert.lengthOf(new Set(starts().map(([point]) => point?.startTimeUnixNano)), 1)
      }))

    it.live(`${variant}: takes endpoint, headers, compression and resource from the environment`, () =>
      Effect.gen(function*() {
        const receiver = yield* OtlpReceiver.make
        const env = {
          OTEL_EXPORTER_OTLP_ENDPOINT: `${receiver.url}/`,
          OTEL_EXPORTER_OTLP_HEADERS: "authorization=Bearer%20abc,x-kind=all",
          OTEL_EXPORTER_OTLP_TRACES_HEADERS: "x-kind=traces",
          OTEL_EXPORTER_OTLP_COMPRESSION: "gzip",
          OTEL_SERVICE_NAME: "from-env",
          OTEL_RESOURCE_ATTRIBUTES: "deployment.environment.name=test,service.name=other"
        }
        yield* exporting(variant, Effect.withSpan(Effect.log("line"), "span"), {}, env)
        assert.lengthOf(receiver.spans, 1)
        assert.deepStrictEqual(receiver.requests.map(({ path }) => path).sort(), [
          "/v1/logs",
          "/v1/metrics",
          "/v1/traces"
        ])
        for (const { headers, path } of receiver.requests) {
          assert.strictEqual(headers["authorization"], "Bearer abc")
          assert.strictEqual(headers["x-kind"], path === "/v1/traces" ? "traces" : "all")
          assert.strictEqual(headers["content-type"], "application/x-protobuf")
        }
        const zipped = receiver.requests.find(({ path }) => path === "/v1/metrics")
        assert.strictEqual(zipped?.headers["content-encoding"], "gzip")
        for (const resource of receiver.resources) {
          assert.deepInclude(resource, { "service.name": "from-env", "deployment.environment.name": "test" })
        }
      }))

    it.live(`${variant}: does not send what is switched off`, () =>
      Effect.gen(function*() {
        const receiver = yield* OtlpReceiver.make
        const program = Effect.withSpan(Effect.log("line"), "span")
        yield* exporting(variant, program, { endpoint: receiver.url }, { OTEL_SDK_DISABLED: "true" })
        assert.lengthOf(receiver.requests, 0)
        yield* exporting(variant, program, { endpoint: receiver.url }, {
          OTEL_TRACES_EXPORTER: "none",
          OTEL_METRICS_EXPORTER: "none"
        })
        assert.deepStrictEqual(receiver.requests.map(({ path }) => path), ["/v1/logs"])
        yield* exporting(variant, program, { endpoint: receiver.url }, {
          OTEL_TRACES_SAMPLER: "always_off",
          OTEL_METRICS_EXPORTER: "none",
          OTEL_LOGS_EXPORTER: "none"
        })
        assert.lengthOf(receiver.spans, 0)
      }))

    it.effect(`${variant}: a wrong variable fails at start`, () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(exporting(variant, Effect.void, {}, { OTEL_BSP_SCHEDULE_DELAY: "soon" }))
        const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        assert.instanceOf(error, OtlpSettings.InvalidSetting)
        assert.strictEqual(
          error.message,
          "OTEL_BSP_SCHEDULE_DELAY is to be a whole number of milliseconds, at least 0, got: \"soon\""
        )
      }))
  }

  it.live("both variants send what a scrape shows", () =>
    Effect.gen(function*() {
      const light = yield* OtlpReceiver.make
      const sdk = yield* OtlpReceiver.make
      const base = Telemetry.layer.pipe(Layer.provideMerge(Orchestrator.layerWith({ name: "app" })))
      const exporters = Layer.merge(
        Otlp.layer({ endpoint: light.url }),
        OpenTelemetry.layer({ endpoint: sdk.url })
      ).pipe(Layer.provideMerge(base), Layer.provide(environment({})), Layer.provideMerge(silent))
      const scraped = yield* Effect.gen(function*() {
        yield* workload
        const { collect } = yield* Telemetry
        return yield* scrape(yield* collect)
      }).pipe(Effect.provide(exporters))
      const [ofLight, ofSdk] = yield* Effect.forEach([light, sdk], ({ metrics }) => scrape(metersOf(metrics[0] ?? [])))
      assert.isAbove(scraped.length, 30)
      assert.deepStrictEqual(ofLight, scraped)
      assert.deepStrictEqual(ofSdk, scraped)
      assert.deepStrictEqual(light.resources[0], sdk.resources[0])
    }))
})

/** What Prometheus would see of the metrics that do not change by themselves. */
const scrape = (meters: ReadonlyArray<Meter.Meter>) =>
  Effect.map(
    Prometheus.render(meters.filter((meter) => isSteady(meter) && meter.series.size > 0), {}),
    (text) => text.split("\n").filter((line) => !/orchestra_telemetry_series/.test(line))
  )

/** Back from OTLP, with nothing but what was received. */
const metersOf = (metrics: ReadonlyArray<OtlpReceiver.Metric>): ReadonlyArray<Meter.Meter> =>
  metrics.map(({ description, gauge, histogram, name, sum, unit }) => {
    const kind = histogram !== undefined ? "histogram" : gauge !== undefined ? "gauge" : "counter"
    const dataPoints = (histogram ?? gauge ?? sum)?.dataPoints ?? []
    const boundaries = dataPoints[0]?.explicitBounds
    const series = dataPoints.map((point, index): readonly [string, Meter.Series] => [String(index), {
      attributes: Object.entries(point.attributes).map(([key, value]) => [key, String(value)]),
      value: point.sum ?? point.asDouble ?? 0,
      buckets: Float64Array.from(point.bucketCounts ?? [], Number),
      exemplars: []
    }])
    const metric: MetricTable.Metric = { name, description, unit, kind, boundaries, attributes: [] }
    return { ...Meter.make(metric), series: new Map(series) }
  })

/** Whether it is of the orchestrator: the process goes on by itself. */
const isSteady = ({ metric }: { readonly metric: { readonly name: string } }) => metric.name.startsWith("orchestra.")

const kindOf: Readonly<Record<string, readonly [string, boolean | undefined]>> = {
  counter: ["sum", true],
  updowncounter: ["sum", false],
  gauge: ["gauge", undefined],
  histogram: ["histogram", undefined]
}

const until = (condition: () => boolean) =>
  Effect.suspend(() => condition() ? Effect.void : Effect.fail("not yet")).pipe(
    Effect.retry(Schedule.spaced("10 millis")),
    Effect.timeout("8 seconds"),
    Effect.orDie
  )
