/**
 * A service with something of everything to scrape, for the test of Prometheus itself: `node scraped.ts PORT`. Its
 * first line is its URL, every other line the trace of a job that has ended.
 */
import { Mailbox, Orchestrator } from "@effect-orchestra/core"
import { Server, Telemetry } from "@effect-orchestra/observability"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { NodeRuntime } from "@effect/platform-node"
import { Console, Effect, Layer, Logger, Metric } from "effect"

const ticks = Metric.counter("fixture.ticks", {
  incremental: true,
  description: "Ticks.",
  attributes: { unit: "{tick}" }
})
const sizes = Metric.histogram("fixture.size", {
  description: "Sizes.",
  boundaries: [1, 10],
  attributes: { unit: "By", "h.\"ost\"": "a \"quoted\"\n\\ value" }
})
const levels = Metric.summary("fixture.level", {
  description: "Levels.",
  maxAge: "1 minute",
  maxSize: 10,
  quantiles: [0.5, 0.99],
  attributes: { unit: "1" }
})
const words = Metric.frequency("fixture.words", { description: "Words." })

const tick = Effect.gen(function*() {
  yield* Metric.update(ticks, 1)
  yield* Metric.update(sizes, 5)
  yield* Metric.update(levels, 0.5)
  yield* Metric.update(words, "tick")
  // What the rules of Prometheus do not allow must not cost the rest.
  yield* Metric.update(Metric.gauge("fixture.ticks"), 1)
})

const job = Effect.gen(function*() {
  const span = yield* Effect.currentSpan
  yield* Effect.addFinalizer(() => Console.log(span.traceId))
  yield* Effect.sleep("20 millis")
}).pipe(Effect.scoped, Effect.orDie)

const program = Effect.gen(function*() {
  const { url } = yield* Server.Server
  yield* Console.log(url)
  yield* Supervisor.start(Supervisor.make({
    name: "service",
    strategy: "one_for_one",
    intensity: 1000,
    children: [
      Child.make("ticker", Effect.forever(Effect.andThen(tick, Effect.sleep("100 millis")))),
      Child.make("flaky", Effect.andThen(Effect.sleep("500 millis"), Effect.fail(new Error("no"))))
    ]
  }))
  const mailbox = yield* Mailbox.make<number>({ name: "orders", capacity: 10 })
  yield* Mailbox.send(mailbox, 1)
  return yield* Effect.forever(
    Effect.andThen(Orchestrator.fork(job, { name: "job" }), Effect.sleep("200 millis"))
  )
}).pipe(Effect.scoped)

const port = Number(process.argv[2] ?? 0)
const layer = Server.layer({ port }).pipe(
  Layer.provide(Telemetry.layerWith({ traces: { always: true } })),
  Layer.provideMerge(Orchestrator.layerWith({ name: "scraped" })),
  Layer.provide(Logger.layer([]))
)

NodeRuntime.runMain(Effect.provide(program, layer))
