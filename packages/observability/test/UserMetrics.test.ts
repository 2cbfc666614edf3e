import { Orchestrator } from "@effect-orchestra/core"
import { Prometheus, Telemetry } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Logger, Metric, Random } from "effect"
import { parse } from "./model/Exposition.ts"

/** A program with a registry of its own, and what it logged. */
const program = <A, E>(
  body: (logged: ReadonlyArray<string>) => Effect.Effect<A, E, Telemetry | Orchestrator>
) => {
  const logged: Array<string> = []
  const logger = Logger.make(({ message }) => {
    logged.push(String(message))
  })
  const layer = Layer.provideMerge(Telemetry.layer, Orchestrator.layerWith({ name: "app" }))
  return Effect.suspend(() => body(logged)).pipe(
    Effect.provide([layer, Logger.layer([logger])], { local: true }),
    Effect.provideService(Metric.MetricRegistry, new Map())
  )
}

/** What Prometheus would read of the program's own metrics. */
const families = Effect.fnUntraced(function*(format: Prometheus.Format = "openmetrics") {
  const { collect, resource } = yield* Telemetry
  const text = yield* Prometheus.render(yield* collect, resource, { format })
  return parse(text, format).filter(({ name }) => !/^(orchestra|process|target|nodejs|v8js)/.test(name))
})

const samples = Effect.map(
  families(),
  (all) =>
    all.flatMap(({ samples }) => samples.map(({ labels, name, value }) => [name, Object.fromEntries(labels), value]))
)

const left = (logged: ReadonlyArray<string>) => logged.filter((line) => line.includes("is left out"))

describe("the program's own metrics", () => {
  it.effect("are named, typed and counted by the same rules as ours", () =>
    program(() =>
      Effect.gen(function*() {
        const requests = Metric.counter("http.requests_total", {
          incremental: true,
          attributes: { "http.route": "/a" }
        })
        yield* Metric.update(requests, 3)
        yield* Metric.update(Metric.counter("jobs.queued", { attributes: { unit: "{job}" } }), -2)
        yield* Metric.update(Metric.gauge("cache.size", { bigint: true, attributes: { unit: "bytes" } }), 2n ** 40n)
        yield* Metric.update(Metric.gauge("cache.level", { attributes: { unit: "1" } }), 0.5)
        yield* Metric.update(Metric.gauge("plain"), 7)
        const timer = Metric.timer("step", { description: "Steps." })
        yield* Metric.update(timer, Duration.millis(20))
        const wait = Metric.histogram("wait", { boundaries: [1, 2, 2, Infinity], attributes: { unit: "s" } })
        for (const seconds of [0.5, 1.5, 1.5, 9]) yield* Metric.update(wait, seconds)
        const open = Metric.histogram("open", { boundaries: [2, 1] })
        for (const value of [1, 3, 3]) yield* Metric.update(open, value)
        const sizes = Metric.summary("sizes", { maxAge: "1 hour", maxSize: 9, quantiles: [0.5, 1] })
        for (const size of [1, 2, 5]) yield* Metric.update(sizes, size)
        const words = Metric.frequency("words", { attributes: { lang: "en" } })
        for (const word of ["yes", "no", "yes"]) yield* Metric.update(words, word)

        const all = yield* families()
        assert.deepStrictEqual(all.map(({ name, type, unit }) => [name, type, unit]), [
          ["http_requests", "counter", undefined],
          ["jobs_queued", "gauge", undefined],
          ["cache_size_bytes", "gauge", "bytes"],
          ["cache_level_ratio", "gauge", "ratio"],
          ["plain", "gauge", undefined],
          ["step_milliseconds", "histogram", "milliseconds"],
          ["wait_seconds", "histogram", "seconds"],
          ["open", "histogram", undefined],
          ["sizes", "summary", undefined],
          ["words", "counter", undefined]
        ])
        assert.strictEqual(all.find(({ name }) => name === "step_milliseconds")?.help, "Steps.")
        assert.strictEqual(all[0]?.help, "The metric http.requests_total of this program.")
        const read = (yield* samples).filter(([name]) => !String(name).startsWith("step"))
        assert.deepStrictEqual(read, [
          ["http_requests_total", { http_route: "/a" }, 3],
          ["jobs_queued", {}, -2],
          ["cache_size_bytes", {}, 2 ** 40],
          ["cache_level_ratio", {}, 0.5],
          ["plain", {}, 7],
          ["wait_seconds_bucket", { le: "1.0" }, 1],
          ["wait_seconds_bucket", { le: "2.0" }, 3],
          ["wait_seconds_bucket", { le: "+Inf" }, 4],
          ["wait_seconds_sum", {}, 12.5],
          ["wait_seconds_count", {}, 4],
          ["open_bucket", { le: "1.0" }, 1],
          ["open_bucket", { le: "2.0" }, 1],
          ["open_bucket", { le: "+Inf" }, 3],
          ["open_sum", {}, 7],
          ["open_count", {}, 3],
          ["sizes", { quantile: "0.5" }, 2],
          ["sizes", { quantile: "1.0" }, 5],
          ["sizes_sum", {}, 8],
          ["sizes_count", {}, 3],
          ["words_total", { key: "yes", lang: "en" }, 2],
          ["words_total", { key: "no", lang: "en" }, 1]
        ])
        const text = yield* families("text")
        assert.deepStrictEqual(text.map(({ name }) => name).slice(0, 2), ["http_requests_total", "jobs_queued"])
      })
    ))

  it.effect("are left out where one name has two types, units or boundaries, and named in one warning", () =>
    program((logged) =>
      Effect.gen(function*() {
        yield* Metric.update(Metric.counter("twice", { incremental: true }), 1)
        yield* Metric.update(Metric.gauge("twice"), 5)
        yield* Metric.update(Metric.counter("falls", { attributes: { a: "1" } }), 1)
        yield* Metric.update(Metric.counter("falls", { incremental: true, attributes: { a: "2" } }), 5)
        yield* Metric.update(Metric.gauge("unit", { attributes: { unit: "s" } }), 1)
        yield* Metric.update(Metric.gauge("unit", { attributes: { unit: "By" } }), 5)
        yield* Metric.update(Metric.histogram("bounds", { boundaries: [1], attributes: { a: "1" } }), 0.5)
        yield* Metric.update(Metric.histogram("bounds", { boundaries: [2], attributes: { a: "2" } }), 0.5)
        yield* Metric.update(Metric.gauge("good"), 1)
        for (const _ of [1, 2]) {
          const values = (yield* samples).filter(([name]) => !String(name).startsWith("bounds_"))
          assert.deepStrictEqual(values, [["twice_total", {}, 1], ["falls", { a: "1" }, 1], ["unit_seconds", {}, 1], [
            "good",
            {},
            1
          ]])
        }
        assert.deepStrictEqual(left(logged), [
          "The metric \"twice\" is left out: it is registered twice, as counter in \"\" and as gauge in \"\"",
          "The metric \"falls\" is left out: it is registered twice, as updowncounter in \"\" and as counter in \"\"",
          "The metric \"unit\" is left out: it is registered twice, as gauge in \"s\" and as gauge in \"By\"",
          "The metric \"bounds\" is left out: it is registered twice, as histogram in \"\" and as histogram in \"\", " +
          "with other boundaries"
        ])
        const meters = yield* Effect.flatMap(Telemetry, ({ collect }) => collect)
        const dropped = meters.find(({ metric }) => metric.name === "orchestra.telemetry.dropped.items")
        // What the first two readings left out; the third one is told of with the next.
        assert.deepStrictEqual(
          [...(dropped?.series.values() ?? [])].map(({ attributes, value }) => [attributes, value]),
          [[
            [["orchestra.telemetry.signal", "metric"]],
            12
          ]]
        )
      })
    ))

  it.effect("are left out where two names become one, with each other or with ours", () =>
    program((logged) =>
      Effect.gen(function*() {
        yield* Metric.update(Metric.gauge("a.b"), 1)
        yield* Metric.update(Metric.gauge("a_b"), 2)
        yield* Metric.update(Metric.counter("a-b", { incremental: true }), 2)
        yield* Metric.update(Metric.histogram("h", { boundaries: [1] }), 1)
        yield* Metric.update(Metric.gauge("h.count"), 2)
        yield* Metric.update(Metric.gauge("target"), 2)
        yield* Metric.update(Metric.counter("orchestra.routine.starts", { incremental: true }), 2)
        yield* Metric.update(Metric.gauge("process.cpu.time.seconds.total"), 2)
        yield* Metric.update(Metric.gauge("日本"), 2)
        assert.deepStrictEqual((yield* samples).filter(([name]) => !String(name).startsWith("h_")), [["a_b", {}, 1]])
        assert.deepStrictEqual(left(logged).map((line) => /left out: (.*)/.exec(line)?.[1]), [
          "the name \"a_b\" is taken",
          "the name \"a_b\" is taken",
          "the name \"h_count\" is taken",
          "the name \"target\" is taken",
          "the name \"orchestra.routine.starts\" is taken",
          "the name \"process_cpu_time_seconds_total\" is taken",
          "no name is left of it without the characters that Prometheus does not know"
        ])
      })
    ))

  it.effect("are left out where two attributes become one label, in one series or in two", () =>
    program((logged) =>
      Effect.gen(function*() {
        yield* Metric.update(Metric.gauge("one", { attributes: { "x.y": "1", "x_y": "2" } }), 1)
        yield* Metric.update(Metric.gauge("two", { attributes: { "x.y": "1" } }), 2)
        yield* Metric.update(Metric.gauge("two", { attributes: { "x_y": "1" } }), 3)
        yield* Metric.update(Metric.gauge("two", { attributes: { z: "1" } }), 4)
        yield* Metric.update(Metric.histogram("three", { boundaries: [1], attributes: { le: "1" } }), 4)
        yield* Metric.update(Metric.frequency("four", { attributes: { a: "1" } }), "word")
        yield* Metric.update(Metric.frequency("four", { attributes: { key: "1" } }), "word")
        yield* Metric.update(Metric.gauge("five", { attributes: { "__name__": "up" } }), 5)
        assert.deepStrictEqual(yield* samples, [
          ["two", { x_y: "1" }, 2],
          ["two", { z: "1" }, 4],
          ["four_total", { a: "1", key: "word" }, 1],
          ["five", { _name_: "up" }, 5]
        ])
        assert.deepStrictEqual(left(logged).map((line) => /"(\w+)" is left/.exec(line)?.[1]), [
          "one",
          "two",
          "three",
          "four"
        ])
      })
    ))

  it.effect("are left out where reading them throws", () =>
    program((logged) =>
      Effect.gen(function*() {
        const context = yield* Effect.context<never>()
        const hooks = { update: () => {}, modify: () => {} }
        Metric.registerUnsafe(Metric.gauge("pulled"), context, { ...hooks, get: () => ({ value: 4 }) })
        Metric.registerUnsafe(Metric.gauge("broken"), context, {
          ...hooks,
          get: () => {
            throw new Error("no")
          }
        })
        assert.deepStrictEqual(yield* samples, [["pulled", {}, 4]])
        assert.deepStrictEqual(left(logged), ["The metric \"broken\" is left out: it cannot be read: no"])
      })
    ))

  it.effect("have at most 2,000 series each, and one for the rest", () =>
    program((logged) =>
      Effect.gen(function*() {
        const words = Metric.frequency("words")
        for (let n = 0; n < 3000; n++) yield* Metric.update(words, `word ${n}`)
        for (let n = 0; n < 2500; n++) yield* Metric.update(Metric.gauge("level", { attributes: { n: `${n}` } }), n)
        const read = (yield* families()).map(({ samples }) => samples)
        assert.deepStrictEqual(read.map((all) => all.length), [2001, 2001])
        assert.deepStrictEqual(read.map((all) => all.at(-1)?.labels.get("otel_metric_overflow")), ["true", "true"])
        assert.strictEqual(read[0]?.at(-1)?.value, 1000)
        assert.strictEqual(read[1]?.at(-1)?.value, 2499)
        yield* families()
        assert.deepStrictEqual(logged.filter((line) => line.includes("too many series")), [
          "too many series, the rest is counted as otel.metric.overflow: words, level"
        ])
      })
    ))

  it.effect("hold those of Effect's fibers if the program asks for them", () =>
    program(() =>
      Effect.gen(function*() {
        yield* Effect.forEach([1, 2, 3], () => Effect.yieldNow, { concurrency: 3 }).pipe(
          Effect.provideService(Metric.FiberRuntimeMetrics, Metric.FiberRuntimeMetricsImpl)
        )
        const names = (yield* families()).map(({ name, type }) => `${name} ${type}`)
        assert.includeMembers(names, ["child_fibers_active gauge", "child_fibers_started counter"])
      })
    ))

  const seeds = Number(process.env["SEEDS"] ?? 200)
  const words = [
    "a.b",
    "a_b",
    "a",
    "9",
    "",
    "é",
    "\ud800",
    "x\ny",
    "le",
    "key",
    "__name__",
    "\"",
    "\\",
    "total",
    "}",
    "unit"
  ]

  const pick = <A>(from: ReadonlyArray<A>) =>
    Effect.map(Random.nextIntBetween(0, from.length, { halfOpen: true }), (index) => from[index]!)
  const word = Effect.map(Effect.all([pick(words), pick(words)]), ([a, b]) => a + b)
  const anything = Effect.gen(function*() {
    const id = yield* word
    const attributes = {
      [yield* word]: yield* word,
      [yield* word]: yield* word,
      unit: yield* pick(["1", "s"])
    }
    const value = yield* pick([0, 1, -1, 1e21, NaN, Infinity, 2 ** 60])
    const options = { attributes, description: yield* word }
    yield* yield* pick<Effect.Effect<void>>([
      Metric.update(Metric.gauge(id, options), value),
      Metric.update(Metric.counter(id, options), value),
      Metric.update(Metric.counter(id, { ...options, incremental: true }), value),
      Metric.update(Metric.frequency(id, options), `${value}`),
      Metric.update(Metric.histogram(id, { ...options, boundaries: [-1, 1e21, NaN, 2] }), value),
      Metric.update(Metric.summary(id, { ...options, maxAge: 1, maxSize: 1, quantiles: [0.5] }), value)
    ])
  })

  it.effect("give a scrape that can be read, whatever they are called", () =>
    program(() =>
      Effect.gen(function*() {
        const registry = yield* Metric.MetricRegistry
        const { collect, resource } = yield* Telemetry
        for (let seed = 0; seed < seeds; seed++) {
          registry.clear()
          yield* Random.withSeed(Effect.repeat(anything, { times: 11 }), `user metrics ${seed}`)
          yield* Metric.update(Metric.gauge("sound"), seed)
          const meters = yield* collect
          for (const format of ["openmetrics", "text"] as const) {
            const read = parse(yield* Prometheus.render(meters, resource, { format }), format)
            const sound = read.find(({ name }) => name === "sound")
            assert.deepStrictEqual(sound?.samples.map(({ value }) => value), [seed], `seed ${seed}`)
          }
        }
      })
    ), 30_000 + seeds * 20)
})
