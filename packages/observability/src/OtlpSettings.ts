/**
 * What the exporters are told: options before the `OTEL_*` environment before defaults. A value that does not fit fails
 * here, at start, where the SDKs would quietly take a default.
 *
 * **Example** (A wrong variable)
 *
 * ```ts import.meta.vitest
 * import { OtlpSettings } from "@effect-orchestra/observability"
 * import { ConfigProvider, Effect } from "effect"
 *
 * const env = ConfigProvider.fromEnv({ env: { OTEL_TRACES_SAMPLER_ARG: "10 %" } })
 * const reading = OtlpSettings.read({}, {}).pipe(Effect.provideService(ConfigProvider.ConfigProvider, env), Effect.flip)
 * const { message } = await Effect.runPromise(reading)
 * message // => 'OTEL_TRACES_SAMPLER_ARG is to be a number from 0 to 1, got: "10 %"'
 * ```
 *
 * @since 0.1.0
 */
import * as Config from "effect/Config"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

/**
 * A setting of the export that does not fit: an `OTEL_*` environment variable, or an option by its name. What may be
 * secret, headers that is, is not repeated in `value`.
 *
 * @category errors
 * @since 0.1.0
 */
export class InvalidSetting extends Schema.TaggedError<InvalidSetting>()("InvalidSetting", {
  variable: Schema.String,
  value: Schema.String,
  expected: Schema.String
}) {
  override get message() {
    return `${this.variable} is to be ${this.expected}, got: "${this.value}"`
  }
}

/**
 * Where telemetry goes, under which name, and how much of it. Each option has an `OTEL_*` environment variable that it
 * stands before.
 *
 * @category models
 * @since 0.1.0
 */
export interface OtlpOptions {
  /** The Collector, without `/v1/traces`: default `OTEL_EXPORTER_OTLP_ENDPOINT`, else `http://localhost:4318`. */
  readonly endpoint?: string | undefined
  /** Sent with each request, such as a token. Added to those of `OTEL_EXPORTER_OTLP_HEADERS`. */
  readonly headers?: { readonly [name: string]: string | Redacted.Redacted } | undefined
  /** Default `OTEL_SERVICE_NAME`, else the name of the orchestrator. */
  readonly serviceName?: string | undefined
  readonly serviceVersion?: string | undefined
  /** Attributes of the resource, beside and before those of `OTEL_RESOURCE_ATTRIBUTES`. */
  readonly resource?: { readonly [attribute: string]: string | number | boolean } | undefined
  /**
   * The share of traces that is kept, from 0 to 1 (default `OTEL_TRACES_SAMPLER`, else 1), and from how long on an
   * orchestration span is kept nevertheless, as is every failed one (default 10 seconds).
   */
  readonly sampling?: { readonly ratio?: number | undefined; readonly slow?: Duration.Input | undefined } | undefined
  /** How often metrics are sent. Default `OTEL_METRIC_EXPORT_INTERVAL`, else 60 seconds. */
  readonly metricInterval?: Duration.Input | undefined
  /** How long the end of the program may wait until the rest is sent. Default 3 seconds. */
  readonly shutdownTimeout?: Duration.Input | undefined
  /** Whether log lines go to the loggers that are there as well. Default true. */
  readonly keepLoggers?: boolean | undefined
}

/**
 * Where and how one signal is sent. Times are milliseconds.
 *
 * @category models
 * @since 0.1.0
 */
export interface Target {
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  /** For one batch, its repetitions included. */
  readonly timeout: number
  readonly compression: "gzip" | "none"
}

/**
 * How spans or log records wait, in milliseconds. Beyond `maxQueue` they are lost.
 *
 * @category models
 * @since 0.1.0
 */
export interface Batch {
  readonly delay: number
  readonly exportTimeout: number
  readonly maxQueue: number
  readonly maxBatch: number
}

/**
 * All that the exporters need. `undefined` is a signal that is not exported.
 *
 * @category models
 * @since 0.1.0
 */
export interface Settings {
  readonly traces: Target & Batch & { readonly sampling: Sampling } | undefined
  readonly logs: Target & Batch | undefined
  readonly metrics: Target & { readonly interval: number; readonly exportTimeout: number } | undefined
  readonly resource: Readonly<Record<string, string | number | boolean>>
  readonly shutdownTimeout: Duration.Duration
}

/**
 * Which spans are sent. `parent`: whether a caller from elsewhere decides for what it calls.
 *
 * @category models
 * @since 0.1.0
 */
export interface Sampling {
  readonly ratio: number
  readonly never: boolean
  readonly parent: boolean
  readonly slow: Duration.Duration
}

type Signal = "TRACES" | "METRICS" | "LOGS"

/** Reads one variable; an empty one is as none, says OpenTelemetry. */
const variable = <A>(name: string, expected: string, parse: (text: string) => A | undefined) =>
  Effect.gen(function*() {
    const found = yield* Effect.orElseSucceed(Config.option(Config.String(name)), Option.none)
    const text = Option.getOrElse(found, () => "").trim()
    if (text === "") return undefined
    const parsed = parse(text)
    if (parsed !== undefined) return parsed
    return yield* new InvalidSetting({ variable: name, value: name.endsWith("HEADERS") ? "***" : text, expected })
  })

const literal = <const A extends string>(name: string, ...values: ReadonlyArray<A>) =>
  variable(name, values.join(" or "), (text) => values.find((value) => value === text.toLowerCase()))

const number = (name: string, expected: string, min: number, max = Infinity, isInteger = true) =>
  variable(name, expected, (text) => {
    const value = Number(text)
    return value >= min && value <= max && (!isInteger || Number.isSafeInteger(value)) ? value : undefined
  })

const milliseconds = (name: string, min = 1) =>
  number(name, `a whole number of milliseconds, at least ${min}`, min, 2 ** 31 - 1)

const items = (name: string) => number(name, "a whole number, at least 1", 1)

const pairs = (name: string) =>
  variable(name, "a list such as key1=value1,key2=value2, percent-encoded", (text) => {
    const entries = text.split(",").filter((entry) => entry.trim() !== "").map((entry) => {
      const at = entry.indexOf("=")
      return [decode(entry.slice(0, Math.max(0, at))), decode(entry.slice(at + 1))] as const
    })
    const isWrong = entries.some(([key, value]) => key === undefined || key === "" || value === undefined)
    return isWrong ? undefined : Object.fromEntries(entries as ReadonlyArray<readonly [string, string]>)
  })

const decode = (text: string): string | undefined => {
  try {
    return decodeURIComponent(text.trim())
  } catch {
    return undefined
  }
}

const httpUrl = (text: string): string | undefined =>
  URL.canParse(text) && /^https?:$/.test(new URL(text).protocol) ? text : undefined

const anUrl = "an http or https URL"

const below = (base: string, signal: Signal): string => `${base.replace(/\/+$/, "")}/v1/${signal.toLowerCase()}`

/** That of the signal, before that of all signals. */
const either = <A, E>(read: (name: string) => Effect.Effect<A | undefined, E>, signal: Signal, name: string) =>
  Effect.gen(function*() {
    const common = yield* read(`OTEL_EXPORTER_OTLP_${name}`)
    return (yield* read(`OTEL_EXPORTER_OTLP_${signal}_${name}`)) ?? common
  })

/** Where a signal goes, or `undefined` if it is not to be sent. All is checked either way. */
const target = Effect.fnUntraced(function*(signal: Signal, options: OtlpOptions) {
  const exporter = yield* literal(`OTEL_${signal}_EXPORTER`, "otlp", "none")
  const endpoint = yield* variable("OTEL_EXPORTER_OTLP_ENDPOINT", anUrl, httpUrl)
  const exact = yield* variable(`OTEL_EXPORTER_OTLP_${signal}_ENDPOINT`, anUrl, httpUrl)
  const headers = {
    ...yield* pairs("OTEL_EXPORTER_OTLP_HEADERS"),
    ...yield* pairs(`OTEL_EXPORTER_OTLP_${signal}_HEADERS`)
  }
  for (const [name, value] of Object.entries(options.headers ?? {})) {
    headers[name] = Redacted.isRedacted(value) ? Redacted.value(value) : value
  }
  const timeout = yield* either(milliseconds, signal, "TIMEOUT")
  const compression = yield* either((name) => literal(name, "gzip", "none"), signal, "COMPRESSION")
  yield* either((name) => literal(name, "http/protobuf"), signal, "PROTOCOL")
  if (exporter === "none") return undefined
  return {
    url: options.endpoint === undefined
      ? exact ?? below(endpoint ?? "http://localhost:4318", signal)
      : below(options.endpoint, signal),
    headers,
    timeout: timeout ?? 10_000,
    compression: compression ?? "none"
  }
})

/** A batch larger than the queue cannot come together: what the SDK corrects without a word fails here. */
const batch = Effect.fnUntraced(function*(prefix: "OTEL_BSP" | "OTEL_BLRP", delay: number) {
  const maxQueue = (yield* items(`${prefix}_MAX_QUEUE_SIZE`)) ?? 2048
  const size = `${prefix}_MAX_EXPORT_BATCH_SIZE`
  const maxBatch = (yield* number(size, `a whole number from 1 to ${maxQueue}, the size of the queue`, 1, maxQueue)) ??
    Math.min(512, maxQueue)
  return {
    delay: (yield* milliseconds(`${prefix}_SCHEDULE_DELAY`, 0)) ?? delay,
    exportTimeout: (yield* milliseconds(`${prefix}_EXPORT_TIMEOUT`)) ?? 30_000,
    maxQueue,
    maxBatch
  }
})

const sampling = Effect.fnUntraced(function*(options: OtlpOptions) {
  const sampler = (yield* literal(
    "OTEL_TRACES_SAMPLER",
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio"
  )) ?? "parentbased_always_on"
  const argument = yield* number("OTEL_TRACES_SAMPLER_ARG", "a number from 0 to 1", 0, 1, false)
  const { ratio } = options.sampling ?? {}
  if (ratio !== undefined && !(ratio >= 0 && ratio <= 1)) {
    return yield* new InvalidSetting({
      variable: "sampling.ratio",
      value: String(ratio),
      expected: "a number from 0 to 1"
    })
  }
  return {
    ratio: ratio ?? (sampler.endsWith("traceidratio") ? argument ?? 1 : 1),
    never: ratio === undefined && sampler.endsWith("always_off"),
    parent: ratio !== undefined || sampler.startsWith("parentbased"),
    slow: Duration.fromInputUnsafe(options.sampling?.slow ?? "10 seconds")
  }
})

/**
 * The options and the environment, checked. `resource` is what is known of the process already. Fails with
 * `InvalidSetting`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const read = Effect.fnUntraced(function*(
  options: OtlpOptions,
  resource: Readonly<Record<string, string | number | boolean>>
) {
  if (options.endpoint !== undefined && httpUrl(options.endpoint) === undefined) {
    return yield* new InvalidSetting({ variable: "endpoint", value: options.endpoint, expected: anUrl })
  }
  const isDisabled = (yield* literal("OTEL_SDK_DISABLED", "true", "false")) === "true"
  const traces = yield* target("TRACES", options)
  const logs = yield* target("LOGS", options)
  const metrics = yield* target("METRICS", options)
  const spans = { ...yield* batch("OTEL_BSP", 5000), sampling: yield* sampling(options) }
  const records = yield* batch("OTEL_BLRP", 1000)
  const periodic = yield* period(options)
  yield* literal("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "cumulative")
  const attributes = yield* pairs("OTEL_RESOURCE_ATTRIBUTES")
  const serviceName = options.serviceName ?? (yield* variable("OTEL_SERVICE_NAME", "a name", (text) => text))
  const settings: Settings = {
    traces: isDisabled || traces === undefined ? undefined : { ...traces, ...spans },
    logs: isDisabled || logs === undefined ? undefined : { ...logs, ...records },
    metrics: isDisabled || metrics === undefined ? undefined : { ...metrics, ...periodic },
    resource: {
      ...resource,
      // A number in OTLP.
      ...("process.pid" in resource ? { "process.pid": Number(resource["process.pid"]) } : {}),
      ...attributes,
      ...options.resource,
      ...(serviceName === undefined ? {} : { "service.name": serviceName }),
      ...(options.serviceVersion === undefined ? {} : { "service.version": options.serviceVersion })
    },
    shutdownTimeout: Duration.fromInputUnsafe(options.shutdownTimeout ?? "3 seconds")
  }
  return settings
})

/** Metrics are late, not lost: the next ones say it all. */
const period = Effect.fnUntraced(function*(options: OtlpOptions) {
  const name = "OTEL_METRIC_EXPORT_INTERVAL"
  const given = options.metricInterval === undefined ? undefined : Duration.toMillis(options.metricInterval)
  const interval = given ?? (yield* milliseconds(name)) ?? 60_000
  if (!(interval >= 1)) {
    return yield* new InvalidSetting({
      variable: "metricInterval",
      value: String(interval),
      expected: "at least 1 millisecond"
    })
  }
  const exportTimeout = (yield* milliseconds("OTEL_METRIC_EXPORT_TIMEOUT")) ?? 30_000
  return { interval, exportTimeout: Math.min(exportTimeout, interval) }
})
