import { Orchestrator } from "@effect-orchestra/core"
import { Meter, type MetricTable, Prometheus, Server, Telemetry } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Redacted, Scope } from "effect"
import { HttpEffect, HttpRouter, type HttpServerRequest } from "effect/http"
import { TestClock } from "effect/testing"
import { gunzipSync } from "node:zlib"

const metric: MetricTable.Metric = {
  name: "test.items",
  kind: "counter",
  unit: "{item}",
  attributes: ["n"],
  description: "Items."
}

/** The route alone, over whatever is collected. */
const scraping = Effect.fnUntraced(function*(collect: Effect.Effect<ReadonlyArray<Meter.Meter>>) {
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope) => Scope.close(scope, Exit.void))
  const own = Layer.effect(Telemetry, Effect.map(Telemetry, (telemetry) => ({ ...telemetry, collect })))
  const below = Layer.provideMerge(Layer.provide(own, Telemetry.layer), Orchestrator.layer)
  const mounted = HttpRouter.toHttpEffect(Layer.provide(Prometheus.router(), below))
  const app = yield* Effect.provideService(mounted, Scope.Scope, scope)
  const context = yield* Effect.context<never>()
  const handler = HttpEffect.toWebHandlerWith<never, HttpServerRequest.HttpServerRequest | Scope.Scope>(context)(app)
  const get = (headers: Record<string, string> = {}) =>
    Effect.promise((signal) => handler(new Request("http://localhost/metrics", { headers, signal })))
  return { close: Scope.close(scope, Exit.void), get }
})

/** Counts how often it is collected; the n-th collection shows n. */
const counting = () => {
  let runs = 0
  const collect = Effect.sync(() => {
    const meter = Meter.make(metric)
    meter.add([undefined], ++runs)
    return [meter]
  })
  return { collect, runs: () => runs }
}

const text = (response: Response) => Effect.promise(() => response.text())
const openMetrics = { accept: "application/openmetrics-text" }

describe("scrapes", () => {
  it("get the format that they prefer", () => {
    const prometheus242 =
      "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75," +
      "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
    const prometheus3 = "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6," +
      "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4," +
      "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    const cases: ReadonlyArray<readonly [string | undefined, Prometheus.Format]> = [
      [prometheus242, "openmetrics"],
      [prometheus3, "openmetrics"],
      [undefined, "text"],
      ["", "text"],
      ["*/*", "text"],
      ["text/html, */*;q=0.8", "text"],
      ["image/png", "text"],
      ["application/openmetrics-text", "openmetrics"],
      ["APPLICATION/OpenMetrics-Text ; Version=\"1.0.0\"", "openmetrics"],
      ["application/*", "openmetrics"],
      ["application/openmetrics-text;version=2.0.0", "text"],
      ["application/openmetrics-text;q=0.4, text/plain;q=0.5", "text"],
      ["application/openmetrics-text;q=0.5, text/plain;q=0.4", "openmetrics"],
      ["text/plain, application/openmetrics-text", "text"],
      ["application/openmetrics-text, text/plain", "openmetrics"],
      ["*/*, application/openmetrics-text", "openmetrics"],
      ["*/*;q=1, application/openmetrics-text;q=0.9", "text"],
      ["*/*, text/plain;q=0", "openmetrics"],
      ["*/*, application/openmetrics-text;q=0", "text"],
      ["application/openmetrics-text;q=nonsense, text/plain;q=0.9", "openmetrics"]
    ]
    for (const [accept, format] of cases) assert.strictEqual(Prometheus.negotiate(accept), format, accept)
  })

  it.effect("are compressed if they allow it", () =>
    Effect.gen(function*() {
      const { get } = yield* scraping(counting().collect)
      const cases: ReadonlyArray<readonly [string, string | null]> = [
        ["", null],
        ["gzip", "gzip"],
        ["deflate, GZIP;q=0.5", "gzip"],
        ["x-gzip", "gzip"],
        ["*", "gzip"],
        ["gzip;q=0, *", null],
        ["identity, br", null],
        ["*;q=0", null]
      ]
      for (const [header, encoding] of cases) {
        const response = yield* get({ "accept-encoding": header })
        assert.strictEqual(response.headers.get("content-encoding"), encoding, header)
      }
    }).pipe(Effect.scoped))

  it.effect("are answered in that format, whole, compressed or not", () =>
    Effect.gen(function*() {
      const { get } = yield* scraping(counting().collect)
      const plain = yield* get()
      assert.strictEqual(plain.headers.get("content-type"), "text/plain; version=0.0.4; charset=utf-8")
      assert.strictEqual(plain.headers.get("content-encoding"), null)
      assert.strictEqual(plain.headers.get("vary"), "Accept, Accept-Encoding")
      assert.include(yield* text(plain), "# TYPE test_items_total counter\ntest_items_total 1\n")
      const open = yield* get(openMetrics)
      assert.strictEqual(open.headers.get("content-type"), "application/openmetrics-text; version=1.0.0; charset=utf-8")
      assert.match(yield* text(open), /# TYPE test_items counter\ntest_items_total \d\n# EOF\n$/)
      const zipped = yield* get({ ...openMetrics, "accept-encoding": "gzip" })
      assert.strictEqual(zipped.headers.get("content-encoding"), "gzip")
      assert.strictEqual(zipped.headers.get("content-type"), open.headers.get("content-type"))
      const bytes = yield* Effect.promise(() => zipped.arrayBuffer())
      assert.match(gunzipSync(bytes).toString(), /# EOF\n$/)
    }).pipe(Effect.scoped))

  it.effect("that come at once or within a second share one rendering for each format", () =>
    Effect.gen(function*() {
      const { collect, runs } = counting()
      const gate = yield* Deferred.make<void>()
      const { get } = yield* scraping(Effect.andThen(Deferred.await(gate), collect))
      const all = yield* Effect.forkChild(
        Effect.all(Array.from({ length: 8 }, (_, n) => get(n % 2 === 0 ? {} : { "accept-encoding": "gzip" })), {
          concurrency: "unbounded"
        })
      )
      yield* TestClock.adjust("5 seconds")
      yield* Deferred.succeed(gate, undefined)
      for (const response of yield* Fiber.join(all)) assert.strictEqual(response.status, 200)
      assert.strictEqual(runs(), 1)
      // Longer than a second after its start it is no longer given away.
      assert.include(yield* text(yield* get()), "test_items_total 2\n")
      yield* TestClock.adjust("999 millis")
      assert.include(yield* text(yield* get()), "test_items_total 2\n")
      assert.include(yield* text(yield* get(openMetrics)), "test_items_total 3\n")
      yield* TestClock.adjust("1 millis")
      assert.include(yield* text(yield* get()), "test_items_total 4\n")
    }).pipe(Effect.scoped))

  it.effect("that go away do not end the rendering of the others", () =>
    Effect.gen(function*() {
      const { collect, runs } = counting()
      const gate = yield* Deferred.make<void>()
      const { get } = yield* scraping(Effect.andThen(Deferred.await(gate), collect))
      const first = yield* Effect.forkChild(get(), { startImmediately: true })
      const second = yield* Effect.forkChild(get(), { startImmediately: true })
      yield* TestClock.adjust(1)
      yield* Fiber.interrupt(first)
      yield* TestClock.adjust(1)
      yield* Deferred.succeed(gate, undefined)
      assert.include(yield* text(yield* Fiber.join(second)), "test_items_total 1\n")
      assert.strictEqual(runs(), 1)
    }).pipe(Effect.scoped))

  it.effect("do not get what failed before they came", () =>
    Effect.gen(function*() {
      const { collect } = counting()
      let broken = true
      const { get } = yield* scraping(Effect.suspend(() => broken ? Effect.die(new Error("broken")) : collect))
      assert.strictEqual((yield* get()).status, 500)
      broken = false
      assert.strictEqual((yield* get()).status, 200)
    }).pipe(Effect.scoped))

  it.effect("do not hang when the server closes while they wait", () =>
    Effect.gen(function*() {
      const { close, get } = yield* scraping(Effect.never)
      const waiting = yield* Effect.forkChild(get(), { startImmediately: true })
      yield* TestClock.adjust(1)
      yield* close
      assert.isAtLeast((yield* Fiber.join(waiting)).status, 499)
    }).pipe(Effect.scoped))

  it.effect("get 503 at 90 % of the time they wait rather than metrics too late", () =>
    Effect.gen(function*() {
      const { get } = yield* scraping(Effect.never)
      const waiting = yield* Effect.forkChild(get({ "x-prometheus-scrape-timeout-seconds": "10" }), {
        startImmediately: true
      })
      yield* TestClock.adjust("8999 millis")
      assert.isUndefined(waiting.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const response = yield* Fiber.join(waiting)
      assert.strictEqual(response.status, 503)
      assert.strictEqual(response.headers.get("content-type"), "application/problem+json")
    }).pipe(Effect.scoped))

  it.effect("are waited for if the time they give is no time", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const { get } = yield* scraping(Effect.andThen(Deferred.await(gate), counting().collect))
      const given = ["x", "", "0", "-1", "NaN", "Infinity", "1e999", "0x", "10, 5"]
      const all = yield* Effect.forEach(given, (seconds) =>
        Effect.forkChild(get({ "x-prometheus-scrape-timeout-seconds": seconds }), { startImmediately: true }))
      yield* TestClock.adjust("1 hour")
      for (const fiber of all) {
        assert.isUndefined(fiber.pollUnsafe())
      }
      yield* Deferred.succeed(gate, undefined)
      for (const fiber of all) {
        assert.strictEqual((yield* Fiber.join(fiber)).status, 200)
      }
    }).pipe(Effect.scoped))

  it.effect("let other fibers run while histograms are rendered", () =>
    Effect.gen(function*() {
      const boundaries = Array.from({ length: 23 }, (_, n) => n)
      const meter = Meter.make({ ...metric, kind: "histogram", boundaries }, { maxValues: 2000 })
      for (let n = 0; n < 500; n++) meter.record([`${n}`], n)
      const { get } = yield* scraping(Effect.succeed([meter]))
      let turns = 0
      const other = yield* Effect.forkChild(Effect.forever(Effect.andThen(Effect.sync(() => turns++), Effect.yieldNow)))
      yield* get()
      assert.isAtLeast(turns, 20)
      yield* Fiber.interrupt(other)
    }).pipe(Effect.scoped))
})

describe("Prometheus.router", () => {
  const mount = (options?: Prometheus.RouterOptions) => {
    const app = Layer.provide(Prometheus.router(options), Orchestrator.layerWith({ name: "app" }))
    const { handler } = HttpRouter.toWebHandler(app, { disableLogger: true })
    return (path: string, init?: RequestInit) =>
      Effect.promise(() => handler(new Request(`http://localhost${path}`, init)))
  }

  it.effect("mounts the metrics alone, where it is told, for whoever has the token", () =>
    Effect.gen(function*() {
      const open = mount()
      assert.strictEqual((yield* open("/metrics")).status, 200)
      assert.strictEqual((yield* open("/healthz")).status, 404)
      const guarded = mount({ path: "/internal/metrics", token: Redacted.make("secret") })
      assert.strictEqual((yield* guarded("/metrics")).status, 404)
      assert.strictEqual((yield* guarded("/internal/metrics")).status, 401)
      const response = yield* guarded("/internal/metrics", { headers: { authorization: "Bearer secret" } })
      assert.strictEqual(response.status, 200)
      assert.include(yield* text(response), "target_info{service_name=\"app\"")
    }))

  // A real server: what HEAD may not carry is decided by the last of all layers.
  it.live("answers HEAD with the headers of GET and no body", () =>
    Effect.gen(function*() {
      const { url } = yield* Server.Server
      const ask = (method: string) =>
        Effect.promise(() =>
          fetch(`${url}/metrics`, { method, headers: { ...openMetrics, "accept-encoding": "identity" } })
        )
      const get = yield* ask("GET")
      const head = yield* ask("HEAD")
      assert.strictEqual(head.status, 200)
      assert.strictEqual(yield* text(head), "")
      for (const name of ["content-type", "content-length", "vary"]) {
        assert.strictEqual(head.headers.get(name), get.headers.get(name), name)
      }
      assert.strictEqual(Number(get.headers.get("content-length")), Buffer.byteLength(yield* text(get)))
    }).pipe(Effect.provide(Layer.provide(Server.layer({ port: 0 }), Orchestrator.layer))))
})
