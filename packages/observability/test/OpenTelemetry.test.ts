import { Orchestrator } from "@effect-orchestra/core"
import { type OtlpSettings, Sampler } from "@effect-orchestra/observability"
import * as OpenTelemetry from "@effect-orchestra/observability/OpenTelemetry"
import { assert, describe, it } from "@effect/vitest"
import * as Otel from "@opentelemetry/api"
import { ConfigProvider, Context, Effect, Layer, Logger } from "effect"
import { channel } from "node:diagnostics_channel"
import * as OtlpReceiver from "./OtlpReceiver.ts"

/** A runtime that exports, closed with the scope. */
const exporting = Effect.fnUntraced(function*(options: OtlpSettings.OtlpOptions, env: Record<string, string> = {}) {
  const layer = OpenTelemetry.layer(options).pipe(
    Layer.provide(Orchestrator.layer),
    Layer.provide(ConfigProvider.layer(ConfigProvider.fromEnv({ env: { OTEL_METRICS_EXPORTER: "none", ...env } }))),
    Layer.provide(Logger.layer([]))
  )
  return yield* Layer.build(layer)
})

/** A span of other instrumentation, which knows nothing of Effect. */
const foreign = (name: string) => Otel.trace.getTracer("foreign").startSpan(name)

const one = (receiver: OtlpReceiver.Receiver, name: string) => {
  const found = receiver.spans.filter((span) => span.name === name)
  assert.lengthOf(found, 1, name)
  return found[0]
}

describe("OpenTelemetry", () => {
  it.live("is one trace with other instrumentation, around an Effect and within", () =>
    Effect.gen(function*() {
      const receiver = yield* OtlpReceiver.make
      yield* Effect.scoped(Effect.gen(function*() {
        const context = yield* exporting({ endpoint: receiver.url })
        const inside = Effect.promise(async () => {
          await Promise.resolve()
          foreign("deep within").end()
        })
        const program = Effect.yieldNow.pipe(
          Effect.andThen(Effect.sync(() => foreign("within").end())),
          Effect.andThen(inside),
          Effect.withSpan("effect")
        )
        const around = foreign("around")
        yield* Effect.promise(() =>
          Otel.context.with(
            Otel.trace.setSpan(Otel.context.active(), around),
            () => Effect.runPromiseWith(context)(program)
          )
        )
        around.end()
        foreign("elsewhere").end()
      }))
      const around = one(receiver, "around")
      const effect = one(receiver, "effect")
      assert.strictEqual(effect?.parentSpanId, around?.spanId)
      assert.strictEqual(one(receiver, "within")?.parentSpanId, effect?.spanId)
      assert.strictEqual(one(receiver, "deep within")?.parentSpanId, effect?.spanId)
      const ofTrace = receiver.spans.filter(({ traceId }) => traceId === around?.traceId)
      assert.lengthOf(ofTrace, 4)
      assert.notStrictEqual(one(receiver, "elsewhere")?.traceId, around?.traceId)
    }))

  it.live("leaves nothing behind in the API of OpenTelemetry", () =>
    Effect.gen(function*() {
      const receiver = yield* OtlpReceiver.make
      yield* Effect.scoped(Effect.andThen(
        exporting({ endpoint: receiver.url }),
        Effect.sync(() => assert.isTrue(foreign("during").isRecording()))
      ))
      assert.isFalse(foreign("after").isRecording())
      const key = Otel.createContextKey("key")
      const seen = Otel.context.with(Otel.ROOT_CONTEXT.setValue(key, 1), () => Otel.context.active().getValue(key))
      assert.isUndefined(seen)
    }))

  it.live("leaves a provider alone that somebody registered before", () =>
    Effect.gen(function*() {
      const receiver = yield* OtlpReceiver.make
      const names: Array<string> = []
      const provider: Otel.TracerProvider = {
        getTracer: () => ({
          startSpan: (name) => {
            names.push(name)
            return Otel.trace.wrapSpanContext(Otel.INVALID_SPAN_CONTEXT)
          },
          startActiveSpan: () => undefined as never
        })
      }
      yield* Effect.acquireRelease(
        Effect.sync(() => Otel.trace.setGlobalTracerProvider(provider)),
        () => Effect.sync(() => Otel.trace.disable())
      )
      yield* Effect.scoped(exporting({ endpoint: receiver.url }))
      foreign("theirs").end()
      assert.deepStrictEqual(names, ["theirs"])
    }))

  it.live("does not trace its own requests", () =>
    Effect.gen(function*() {
      const receiver = yield* OtlpReceiver.make
      // As the instrumentation of node:http does it.
      const requests = channel("http.client.request.start")
      const listener = () => foreign("POST").end()
      yield* Effect.acquireRelease(
        Effect.sync(() => requests.subscribe(listener)),
        () => Effect.sync(() => requests.unsubscribe(listener))
      )
      yield* Effect.scoped(Effect.gen(function*() {
        const context = yield* exporting({ endpoint: receiver.url }, {
          OTEL_BSP_SCHEDULE_DELAY: "1",
          OTEL_BLRP_SCHEDULE_DELAY: "1",
          OTEL_METRICS_EXPORTER: "otlp",
          OTEL_METRIC_EXPORT_INTERVAL: "20"
        })
        const program = Effect.withSpan(Effect.log("line"), "program")
        yield* Effect.promise(() => Effect.runPromiseWith(context)(program))
        yield* Effect.sleep("100 millis")
      }))
      assert.isAbove(receiver.requests.length, 4)
      assert.deepStrictEqual(receiver.spans.map(({ name }) => name), ["program"])
    }))

  it.live("keeps the same traces of Effect and of other instrumentation", () =>
    Effect.gen(function*() {
      const receiver = yield* OtlpReceiver.make
      const effects: Array<string> = []
      yield* Effect.scoped(Effect.gen(function*() {
        const context = yield* exporting({ endpoint: receiver.url, sampling: { ratio: 0.5 } })
        const program = Effect.gen(function*() {
          const { traceId } = yield* Effect.currentSpan
          effects.push(traceId)
          foreign("child").end()
        }).pipe(Effect.withSpan("parent"))
        for (let run = 0; run < 100; run++) yield* Effect.promise(() => Effect.runPromiseWith(context)(program))
        for (let run = 0; run < 100; run++) foreign("root").end()
      }))
      const traces = (name: string) => receiver.spans.filter((span) => span.name === name).map(({ traceId }) => traceId)
      assert.deepStrictEqual(traces("parent").sort(), traces("child").sort())
      assert.isAbove(traces("parent").length, 20)
      assert.isBelow(traces("parent").length, 80)
      assert.isAbove(traces("root").length, 20)
      assert.isBelow(traces("root").length, 80)
    }))

  it.live("keeps what failed or was slow of the traces that were not chosen", () =>
    Effect.gen(function*() {
      const receiver = yield* OtlpReceiver.make
      yield* Effect.scoped(Effect.gen(function*() {
        const context = yield* exporting({ endpoint: receiver.url, sampling: { ratio: 0, slow: "30 millis" } })
        const annotations = Context.make(Sampler.Watched, true)
        const program = Effect.gen(function*() {
          yield* Effect.withSpan(Effect.void, "fine", { annotations })
          yield* Effect.ignore(Effect.withSpan(Effect.fail("no"), "broken", { annotations }))
          yield* Effect.withSpan(Effect.sleep("40 millis"), "slow", { annotations })
        })
        yield* Effect.promise(() => Effect.runPromiseWith(context)(program))
      }))
      assert.deepStrictEqual(receiver.spans.map(({ name }) => name), ["broken", "slow"])
    }))
})
