import { Orchestrator, Routine } from "@effect-orchestra/core"
import { Otlp, Profiler, Server, Telemetry } from "@effect-orchestra/observability"
import * as OpenTelemetry from "@effect-orchestra/observability/OpenTelemetry"
import { assert, describe, it } from "@effect/vitest"
import { Console, Context, Effect, Exit, Fiber, Layer, Logger, Schedule, Scope } from "effect"

const api = "/orchestra/api/v1"
const app = Layer.mergeAll(Orchestrator.layerWith({ name: "app" }), Logger.layer([]))

/** What a layer has built, and how to close that. */
const built = Effect.fnUntraced(function*<A, E, R>(layer: Layer.Layer<A, E, R>) {
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
  return { context: yield* Layer.buildWithScope(Layer.fresh(layer), scope), close: Scope.close(scope, Exit.void) }
})

const server = Effect.fnUntraced(function*(options: Server.ServerOptions, around: Context.Context<Orchestrator>) {
  const { close, context } = yield* built(
    Layer.provide(Server.layer({ port: 0, ...options }), Layer.succeedContext(around))
  )
  const { url } = Context.get(context, Server.Server)
  const get = (path: string) =>
    Effect.promise(() => fetch(url + path, { headers: { connection: "close" } })).pipe(
      Effect.flatMap((response) =>
        Effect.map(Effect.promise(() => response.text()), (text) => ({ status: response.status, text }))
      )
    )
  return { close, get }
})

const job = Effect.flatMap(Orchestrator.fork(Effect.void, { name: "job" }), Routine.join)
const run = `orchestra_routine_run_duration_seconds_count{orchestra_routine_name="job",orchestra_exit_reason="success"}`

/** Scrapes within a second share one rendering. */
const counted = (get: (path: string) => Effect.Effect<{ readonly text: string }>, runs: number) =>
  Effect.map(get("/metrics"), ({ text }) => text.includes(`${run} ${runs}\n`)).pipe(
    Effect.repeat({ schedule: Schedule.spaced("100 millis"), until: (found) => found }),
    Effect.timeout("5 seconds"),
    Effect.orDie
  )

describe("a server", () => {
  it.live(
    "goes on when another one of the same orchestrator is closed, and both count once",
    () =>
      Effect.gen(function*() {
        const around = yield* Effect.context<Orchestrator>()
        const first = yield* server({}, around)
        const second = yield* server({}, around)
        yield* job
        yield* counted(first.get, 1)
        yield* counted(second.get, 1)
        yield* first.close
        assert.isTrue(Exit.isFailure(yield* Effect.exit(first.get("/healthz"))))
        yield* job
        yield* counted(second.get, 2)
      }).pipe(Effect.scoped, Effect.provide(app)),
    15_000
  )

  it.live("goes on answering when the telemetry that it was given is closed", () =>
    Effect.gen(function*() {
      const around = yield* Effect.context<Orchestrator>()
      const telemetry = yield* built(Telemetry.layer)
      const { get } = yield* server({}, Context.merge(around, telemetry.context))
      yield* telemetry.close
      yield* job
      for (const path of ["/metrics", "/readyz", `${api}/overview`, `${api}/routines`, `${api}/dump`]) {
        assert.strictEqual((yield* get(path)).status, 200, path)
      }
    }).pipe(Effect.scoped, Effect.provide(app)), 15_000)

  it.live(
    "answers what is under way when the orchestrator shuts down, and what is asked after",
    () =>
      Effect.gen(function*() {
        const orchestrator = yield* built(app)
        const { close, get } = yield* server({ profile: true }, orchestrator.context)
        const crowd = Effect.forEach(
          Array.from({ length: 2000 }),
          () => Orchestrator.fork(Effect.never, { name: "one" })
        )
        yield* Effect.provideContext(crowd, orchestrator.context)
        const paths = ["/metrics", `${api}/dump`, "/debug/pprof/goroutine", "/debug/pprof/profile?seconds=0.3"]
        const stream = yield* Effect.forkChild(get(`${api}/stream`))
        const answers = yield* Effect.forkChild(Effect.forEach(paths, get, { concurrency: "unbounded" }))
        yield* Effect.sleep("20 millis")
        yield* orchestrator.close
        assert.deepStrictEqual(
          (yield* Fiber.join(answers)).map(({ status }) => status),
          [200, 200, 200, 200]
        )
        assert.strictEqual((yield* get("/readyz")).status, 503)
        for (const path of ["/metrics", `${api}/overview`, `${api}/tree`, `${api}/dump`, "/debug/pprof/block"]) {
          assert.strictEqual((yield* get(path)).status, 200, path)
        }
        yield* close
        assert.include((yield* Fiber.join(stream)).text, "event: hello")
      }).pipe(Effect.scoped),
    15_000
  )
})

describe("a layer that is interrupted while it is built", () => {
  const dead = { endpoint: "http://127.0.0.1:1", shutdownTimeout: "1 millis" } as const
  const layers: Record<string, Layer.Layer<never, unknown, Orchestrator>> = {
    telemetry: Telemetry.layer,
    profiler: Profiler.layer,
    server: Server.layer({ port: 0, profile: true, control: true }),
    otlp: Layer.provide(Otlp.layer(dead), Telemetry.layer),
    sdk: OpenTelemetry.layer(dead)
  }

  it.live.each(Object.entries(layers))("leaves nothing behind: %s", ([, layer]) =>
    Effect.gen(function*() {
      const { kernel } = yield* Orchestrator
      let completed = 0
      const building = Effect.scoped(Effect.andThen(Layer.build(layer), Effect.sync(() => completed++)))
      for (let turns = 0; turns < 40; turns++) {
        const fiber = yield* Effect.forkChild(building)
        for (let turn = 0; turn < turns; turn++) {
          yield* turn < 20 ? Effect.yieldNow : Effect.promise(() => new Promise((resume) => setImmediate(resume)))
        }
        yield* Fiber.interrupt(fiber)
        assert.isUndefined(kernel.observers, `after ${turns} turns`)
        assert.isFalse(kernel.bus.observed, `after ${turns} turns`)
      }
      assert.isBelow(completed, 40)
      yield* building
      assert.isUndefined(kernel.observers)
    }).pipe(Effect.provideService(Console.Console, { ...console, error: () => {} }), Effect.provide(app)), 15_000)
})
