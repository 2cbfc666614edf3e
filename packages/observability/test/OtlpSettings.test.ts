import { InvalidSetting, type OtlpOptions, read } from "@effect-orchestra/observability/OtlpSettings"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Redacted, Result } from "effect"

const settings = (env: Record<string, string>, options: OtlpOptions = {}) =>
  Effect.provideService(
    read(options, { "service.name": "app", "process.pid": "7" }),
    ConfigProvider.ConfigProvider,
    ConfigProvider.fromEnv({ env })
  )

describe("OtlpSettings", () => {
  it.effect("has the defaults of the specification", () =>
    Effect.gen(function*() {
      const { logs, metrics, resource, shutdownTimeout, traces } = yield* settings({})
      const target = { headers: {}, timeout: 10_000, compression: "none" as const }
      const batch = { exportTimeout: 30_000, maxQueue: 2048, maxBatch: 512 }
      const base = "http://localhost:4318/v1"
      assert.deepInclude(traces, { ...target, ...batch, url: `${base}/traces`, delay: 5000 })
      assert.deepInclude(traces?.sampling, { ratio: 1, never: false, parent: true })
      assert.deepStrictEqual<unknown>(logs, { ...target, ...batch, url: `${base}/logs`, delay: 1000 })
      assert.deepStrictEqual<unknown>(metrics, {
        ...target,
        url: `${base}/metrics`,
        interval: 60_000,
        exportTimeout: 30_000
      })
      assert.deepStrictEqual(resource, { "service.name": "app", "process.pid": 7 })
      assert.strictEqual(Duration.toMillis(shutdownTimeout), 3000)
    }))

  it.effect("takes the variable of a signal before that of all", () =>
    Effect.gen(function*() {
      const { logs, traces } = yield* settings({
        OTEL_EXPORTER_OTLP_ENDPOINT: "http://all:1/base/",
        OTEL_EXPORTER_OTLP_LOGS_ENDPOINT: "http://logs:2/exactly",
        OTEL_EXPORTER_OTLP_TIMEOUT: "1",
        OTEL_EXPORTER_OTLP_LOGS_TIMEOUT: "2",
        OTEL_EXPORTER_OTLP_COMPRESSION: "gzip",
        OTEL_EXPORTER_OTLP_LOGS_COMPRESSION: "none",
        OTEL_EXPORTER_OTLP_HEADERS: "a=1,b=2",
        OTEL_EXPORTER_OTLP_LOGS_HEADERS: "b=3",
        OTEL_BSP_MAX_QUEUE_SIZE: "100",
        OTEL_BLRP_MAX_EXPORT_BATCH_SIZE: "7"
      })
      assert.deepInclude(traces, { url: "http://all:1/base/v1/traces", timeout: 1, compression: "gzip", maxBatch: 100 })
      assert.deepInclude(logs, { url: "http://logs:2/exactly", timeout: 2, compression: "none", maxBatch: 7 })
      assert.deepStrictEqual([traces?.headers, logs?.headers], [{ a: "1", b: "2" }, { a: "1", b: "3" }])
    }))

  it.effect("takes an option before the environment", () =>
    Effect.gen(function*() {
      const { metrics, resource, traces } = yield* settings({
        OTEL_EXPORTER_OTLP_ENDPOINT: "http://all:1",
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT: "http://traces:1",
        OTEL_EXPORTER_OTLP_HEADERS: "a=1,b=2",
        OTEL_SERVICE_NAME: "env",
        OTEL_RESOURCE_ATTRIBUTES: "service.version=1,team=a%20b",
        OTEL_TRACES_SAMPLER: "always_off",
        OTEL_METRIC_EXPORT_INTERVAL: "1000"
      }, {
        endpoint: "https://here:2/",
        headers: { b: Redacted.make("secret") },
        serviceName: "option",
        serviceVersion: "2",
        resource: { zone: "z" },
        sampling: { ratio: 0.25 },
        metricInterval: "2 seconds"
      })
      assert.strictEqual(traces?.url, "https://here:2/v1/traces")
      assert.deepStrictEqual(traces?.headers, { a: "1", b: "secret" })
      assert.deepInclude(traces?.sampling, { ratio: 0.25, never: false })
      assert.deepInclude(metrics, { interval: 2000, exportTimeout: 2000 })
      assert.deepInclude(resource, { "service.name": "option", "service.version": "2", team: "a b", zone: "z" })
    }))

  it.effect("understands every sampler", () =>
    Effect.gen(function*() {
      const sampling = (name: string, argument = "") =>
        Effect.map(
          settings({ OTEL_TRACES_SAMPLER: name, OTEL_TRACES_SAMPLER_ARG: argument }),
          ({ traces }) => [traces?.sampling.ratio, traces?.sampling.never, traces?.sampling.parent]
        )
      assert.deepStrictEqual(yield* sampling("always_on"), [1, false, false])
      assert.deepStrictEqual(yield* sampling("parentbased_always_off"), [1, true, true])
      assert.deepStrictEqual(yield* sampling("traceidratio", "0.5"), [0.5, false, false])
      assert.deepStrictEqual(yield* sampling("parentbased_traceidratio", "0"), [0, false, true])
    }))

  it.effect("takes an empty variable for none, and names what is wrong with the others", () =>
    Effect.gen(function*() {
      for (const [variable, value, expected] of wrong) {
        yield* settings({ [variable]: " " })
        const result = yield* Effect.result(settings({ [variable]: value }))
        if (Result.isSuccess(result)) return assert.fail(`${variable}=${value} was taken`)
        const isSecret = variable.endsWith("HEADERS")
        assert.deepStrictEqual(
          result.failure,
          new InvalidSetting({ variable, value: isSecret ? "***" : value, expected })
        )
        // Nothing of it is looked at by halves: what is switched off is checked as well.
        assert.isTrue(Result.isFailure(
          yield* Effect.result(
            settings({ [variable]: value, OTEL_TRACES_EXPORTER: variable.includes("TRACES_EX") ? value : "none" })
          )
        ))
      }
      const option = yield* Effect.flip(settings({}, { endpoint: "collector:4318" }))
      assert.strictEqual(option.message, "endpoint is to be an http or https URL, got: \"collector:4318\"")
      assert.strictEqual((yield* Effect.flip(settings({}, { sampling: { ratio: 2 } }))).variable, "sampling.ratio")
      assert.strictEqual((yield* Effect.flip(settings({}, { metricInterval: 0 }))).variable, "metricInterval")
    }))
})

const url = "an http or https URL"
const list = "a list such as key1=value1,key2=value2, percent-encoded"
const atLeast = (least: number) => `a whole number of milliseconds, at least ${least}`
const signals = ["TRACES", "METRICS", "LOGS"]

const wrong: ReadonlyArray<readonly [variable: string, value: string, expected: string]> = [
  ["OTEL_SDK_DISABLED", "yes", "true or false"],
  ...["", ...signals.map((signal) => `${signal}_`)].flatMap((signal) =>
    [
      [`OTEL_EXPORTER_OTLP_${signal}ENDPOINT`, "localhost:4318", url],
      [`OTEL_EXPORTER_OTLP_${signal}HEADERS`, "secret", list],
      [`OTEL_EXPORTER_OTLP_${signal}TIMEOUT`, "10s", atLeast(1)],
      [`OTEL_EXPORTER_OTLP_${signal}COMPRESSION`, "zstd", "gzip or none"],
      [`OTEL_EXPORTER_OTLP_${signal}PROTOCOL`, "grpc", "http/protobuf"]
    ] as const
  ),
  ...signals.map((signal) => [`OTEL_${signal}_EXPORTER`, "console", "otlp or none"] as const),
  [
    "OTEL_TRACES_SAMPLER",
    "sometimes",
    "always_on or always_off or traceidratio or parentbased_always_on or parentbased_always_off or parentbased_traceidratio"
  ],
  ["OTEL_TRACES_SAMPLER_ARG", "1.5", "a number from 0 to 1"],
  ...["OTEL_BSP", "OTEL_BLRP"].flatMap((prefix) =>
    [
      [`${prefix}_SCHEDULE_DELAY`, "-1", atLeast(0)],
      [`${prefix}_EXPORT_TIMEOUT`, "0", atLeast(1)],
      [`${prefix}_MAX_QUEUE_SIZE`, "1.5", "a whole number, at least 1"],
      [`${prefix}_MAX_EXPORT_BATCH_SIZE`, "4096", "a whole number from 1 to 2048, the size of the queue"]
    ] as const
  ),
  ["OTEL_METRIC_EXPORT_INTERVAL", "NaN", atLeast(1)],
  ["OTEL_METRIC_EXPORT_TIMEOUT", "99999999999", atLeast(1)],
  ["OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta", "cumulative"],
  ["OTEL_RESOURCE_ATTRIBUTES", "team=%zz", list]
]
