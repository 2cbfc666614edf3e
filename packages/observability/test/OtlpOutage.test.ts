import { Orchestrator } from "@effect-orchestra/core"
import { Otlp, type OtlpSettings, Telemetry } from "@effect-orchestra/observability"
import * as OpenTelemetry from "@effect-orchestra/observability/OpenTelemetry"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Logger, Schedule } from "effect"
import type { ServerResponse } from "node:http"
import * as OtlpReceiver from "./OtlpReceiver.ts"

const variants = { light: Otlp.layer, sdk: OpenTelemetry.layer }

/** Runs a program that exports, and returns what it warned about. */
const exporting = <A, E>(
  variant: keyof typeof variants,
  program: Effect.Effect<A, E, Orchestrator | Telemetry>,
  options: OtlpSettings.OtlpOptions,
  env: Record<string, string>
) => {
  const warnings: Array<string> = []
  const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
    if (logLevel === "Warn") warnings.push(String(message))
  })
  const base = Telemetry.layer.pipe(Layer.provideMerge(Orchestrator.layerWith({ name: "app" })))
  const layer = variants[variant](options).pipe(
    Layer.provideMerge(base),
    Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env }))),
    Layer.provideMerge(Logger.layer([logger]))
  )
  return Effect.map(Effect.provide(program, layer), (value) => ({ value, warnings }))
}

const quick = { OTEL_BSP_SCHEDULE_DELAY: "5", OTEL_BLRP_SCHEDULE_DELAY: "5", OTEL_METRICS_EXPORTER: "none" }

/** What was counted as lost, by signal. */
const lost = Effect.gen(function*() {
  const { collect } = yield* Telemetry
  const meter = (yield* collect).find(({ metric }) => metric.name === "orchestra.telemetry.dropped.items")
  return Object.fromEntries(
    Array.from(meter?.series.values() ?? [], ({ attributes: [signal], value }) => [signal?.[1], value])
  ) as { readonly span?: number; readonly log?: number }
})

const spans = (count: number) => {
  const span = Effect.withSpan(Effect.void, "span")
  return Effect.forEach(Array.from({ length: count }), () => span, { discard: true })
}

const until = <E, R>(condition: Effect.Effect<boolean, E, R>) =>
  Effect.flatMap(condition, (holds) => holds ? Effect.void : Effect.fail("not yet")).pipe(
    Effect.retry(Schedule.spaced("10 millis")),
    Effect.timeout("9 seconds"),
    Effect.orDie
  )

const answer = (status: number, headers: Record<string, string> = {}) => (response: ServerResponse) => {
  response.writeHead(status, headers).end()
}

/** Answers of a Collector that is not well. */
const faults = {
  "answers 400": { misbehave: answer(400), reason: "HTTP status 400" },
  "answers 429 for a long time": { misbehave: answer(429, { "retry-after": "60" }), reason: /429|retryable/ },
  "answers 503": { misbehave: answer(503), reason: /503|retryable/ },
  "drops connections": {
    misbehave: (response: ServerResponse) => void response.socket?.destroy(),
    reason: /ECONNRESET|UND_ERR_SOCKET|socket/
  },
  "never answers": { misbehave: () => {}, reason: /no answer|timed out/i }
}

describe("Otlp with a Collector that is not well", () => {
  for (const variant of ["light", "sdk"] as const) {
    for (const [name, { misbehave, reason }] of Object.entries(faults)) {
      it.live(
        `${variant}, one that ${name}: counts every span as lost and warns once, then recovers`,
        () =>
          Effect.gen(function*() {
            const receiver = yield* OtlpReceiver.make
            receiver.misbehave = misbehave
            const program = Effect.gen(function*() {
              yield* spans(10)
              yield* until(Effect.map(lost, ({ span }) => span === 10))
              yield* spans(5)
              yield* until(Effect.map(lost, ({ span }) => span === 15))
              receiver.misbehave = undefined
              yield* spans(3)
              yield* until(Effect.sync(() => receiver.spans.length === 3))
              // The answer is on its way.
              yield* Effect.sleep("50 millis")
              return yield* lost
            })
            const env = { ...quick, OTEL_EXPORTER_OTLP_TIMEOUT: "150", OTEL_LOGS_EXPORTER: "none" }
            const { value, warnings } = yield* exporting(variant, program, { endpoint: receiver.url }, env)
            assert.deepStrictEqual(value, { span: 15 })
            assert.lengthOf(warnings, 2, warnings.join("\n"))
            assert.match(warnings[0] ?? "", new RegExp(`^telemetry does not reach ${receiver.url} \\(traces\\): `))
            assert.match(warnings[0] ?? "", new RegExp(reason))
            assert.match(
              warnings[1] ?? "",
              new RegExp(`^telemetry reaches ${receiver.url} again after \\d+ s, 15 spans and log records lost$`)
            )
          }),
        15_000
      )
    }

    it.live(`${variant}: tries again what a busy Collector refused, when it said to`, () =>
      Effect.gen(function*() {
        const receiver = yield* OtlpReceiver.make
        receiver.misbehave = (response) => {
          receiver.misbehave = undefined
          answer(429, { "retry-after": "1" })(response)
        }
        const program = Effect.gen(function*() {
          yield* spans(1)
          yield* until(Effect.sync(() => receiver.spans.length === 1))
          return yield* lost
        })
        const { value, warnings } = yield* exporting(variant, program, { endpoint: receiver.url }, quick)
        assert.deepStrictEqual(value, {})
        assert.deepStrictEqual(warnings, [])
        assert.lengthOf(receiver.requests, 2)
      }), 15_000)

    it.live(
      `${variant}: with nobody there, holds no more than the queue, and the program goes on as fast`,
      () =>
        Effect.gen(function*() {
          const receiver = yield* OtlpReceiver.make
          const count = 8000
          const timed = Effect.gen(function*() {
            // Warm, and with a first batch under way.
            yield* spans(3000)
            const start = performance.now()
            yield* spans(count)
            return performance.now() - start
          })
          const env = { ...quick, OTEL_LOGS_EXPORTER: "none" }
          const healthy = yield* exporting(variant, timed, { endpoint: receiver.url, shutdownTimeout: 100 }, env)
          const dead = Effect.gen(function*() {
            const before = process.memoryUsage().heapUsed
            const time = yield* timed
            return { time, grown: process.memoryUsage().heapUsed - before, lost: yield* lost }
          })
          const { value, warnings } = yield* exporting(variant, dead, {
            endpoint: "http://127.0.0.1:1",
            shutdownTimeout: 100
          }, env)
          // Queue and what is under way: all else was lost.
          assert.isAtLeast(value.lost.span ?? 0, count + 3000 - 2048 - 512 - 512)
          assert.isAtMost(value.time, healthy.value * 2 + 50)
          assert.isAtMost(value.grown, 60_000_000)
          assert.lengthOf(warnings, 1)
        }),
      15_000
    )

    it.live(`${variant}: ends within its bound with a Collector that never answers, and counts what it leaves`, () =>
      Effect.gen(function*() {
        const receiver = yield* OtlpReceiver.make
        receiver.misbehave = () => {}
        let telemetry: Telemetry["Service"] | undefined
        const program = Effect.gen(function*() {
          telemetry = yield* Telemetry
          yield* spans(7)
          yield* Effect.log("a line")
        })
        const start = performance.now()
        const { warnings } = yield* exporting(variant, program, { endpoint: receiver.url, shutdownTimeout: 200 }, {})
        const took = performance.now() - start
        assert.isAtLeast(took, 190)
        assert.isAtMost(took, 1500)
        assert.deepStrictEqual(warnings, [
          `telemetry does not reach ${receiver.url} (traces): the program ended before it was sent`
        ])
        const meters = telemetry === undefined ? [] : yield* telemetry.collect
        const counted = meters.find(({ metric }) => metric.name === "orchestra.telemetry.dropped.items")
        assert.deepStrictEqual(
          Array.from(counted?.series.values() ?? [], ({ attributes: [signal], value }) => [signal?.[1], value]),
          [["span", 7], ["log", 1]]
        )
      }))
  }
})
