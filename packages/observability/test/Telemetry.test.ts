import { Orchestrator, Routine } from "@effect-orchestra/core"
import { Meter, Prometheus, Telemetry } from "@effect-orchestra/observability"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Context, Data, Deferred, Effect, Layer, Logger } from "effect"
import { TestClock } from "effect/testing"

const layer = Layer.provideMerge(Telemetry.layer, Orchestrator.layerWith({ name: "app" }))

/** The samples whose name begins so, as Prometheus would read them. */
const samples = (prefix: string) =>
  Effect.gen(function*() {
    const { collect, resource } = yield* Telemetry
    const text = yield* Prometheus.render(yield* collect, resource)
    return text.split("\n").filter((line) => line.startsWith(prefix))
  })

class Oops extends Data.TaggedError("Oops")<{ readonly message: string }> {}

describe("Telemetry", () => {
  it.effect("counts routines by template name and state, and their starts", () =>
    Effect.gen(function*() {
      yield* Orchestrator.fork(Effect.never, { name: "poller" })
      yield* Orchestrator.fork(Effect.never, { name: "poller" })
      yield* Orchestrator.fork(Effect.never, { name: "listener", ready: "signal" })
      yield* Orchestrator.fork(Effect.void, { name: "poller" })
      const live = (yield* samples("orchestra_routine_active{")).filter((line) => !line.endsWith(" 0"))
      assert.deepStrictEqual(live, [
        "orchestra_routine_active{orchestra_routine_name=\"poller\",orchestra_routine_state=\"running\"} 2",
        "orchestra_routine_active{orchestra_routine_name=\"listener\",orchestra_routine_state=\"starting\"} 1"
      ])
      assert.deepStrictEqual(yield* samples("orchestra_routine_starts_total{"), [
        "orchestra_routine_starts_total{orchestra_routine_name=\"poller\"} 3",
        "orchestra_routine_starts_total{orchestra_routine_name=\"listener\"} 1"
      ])
    }).pipe(Effect.provide(layer)))

  it.effect("records how long runs lasted, by how they ended", () =>
    Effect.gen(function*() {
      yield* TestClock.adjust("1 hour")
      yield* Orchestrator.fork(Effect.sleep("3 seconds"), { name: "job" })
      yield* Orchestrator.fork(Effect.andThen(Effect.sleep("20 seconds"), new Oops({ message: "no" })), { name: "job" })
      yield* TestClock.adjust("1 minute")
      const prefix = "orchestra_routine_run_duration_seconds"
      const ok = "orchestra_routine_name=\"job\",orchestra_exit_reason=\"success\""
      const failed = "orchestra_routine_name=\"job\",orchestra_exit_reason=\"failure\",error_type=\"Oops\""
      const lines = yield* samples(prefix)
      assert.includeMembers(lines, [
        `${prefix}_bucket{${ok},le="2.5"} 0`,
        `${prefix}_bucket{${ok},le="5.0"} 1`,
        `${prefix}_sum{${ok}} 3`,
        `${prefix}_count{${ok}} 1`,
        `${prefix}_bucket{${failed},le="10.0"} 0`,
        `${prefix}_bucket{${failed},le="30.0"} 1`,
        `${prefix}_bucket{${failed},le="+Inf"} 1`,
        `${prefix}_sum{${failed}} 20`
      ])
      assert.strictEqual(lines.length, 2 * (17 + 2))
    }).pipe(Effect.provide([layer, Logger.layer([])])))

  it.effect("tells apart the errors that runs of one routine end with, one after the other", () =>
    Effect.gen(function*() {
      for (const error of [new Oops({ message: "no" }), "a text", new Oops({ message: "no" })]) {
        const routine = yield* Orchestrator.fork(Effect.fail(error), { name: "job" })
        yield* Effect.exit(Routine.await(routine))
      }
      const prefix = "orchestra_routine_run_duration_seconds_count"
      const failed = "orchestra_routine_name=\"job\",orchestra_exit_reason=\"failure\""
      assert.deepStrictEqual(yield* samples(prefix), [
        `${prefix}{${failed},error_type="Oops"} 2`,
        `${prefix}{${failed},error_type="_OTHER"} 1`
      ])
    }).pipe(Effect.provide([layer, Logger.layer([])])))

  it.effect("counts decisions, restarts by their reason, and shows how much of the budget is used", () =>
    Effect.gen(function*() {
      const crash = yield* Deferred.make<never, Oops>()
      let runs = 0
      const database = Effect.suspend(() => ++runs === 1 ? Deferred.await(crash) : Effect.never)
      yield* Supervisor.start(Supervisor.make({
        name: "backup",
        strategy: "rest_for_one",
        intensity: 4,
        period: "1 minute",
        children: [Child.make("database", database), Child.make("watcher", Effect.never)]
      }))
      assert.deepStrictEqual(yield* samples("orchestra_supervisor"), [
        "orchestra_supervisor_restart_budget_utilization_ratio{orchestra_supervisor_name=\"backup\"} 0"
      ])
      yield* Deferred.fail(crash, new Oops({ message: "gone" }))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* samples("orchestra_supervisor"), [
        "orchestra_supervisor_decisions_total{orchestra_supervisor_name=\"backup\"," +
        "orchestra_supervisor_decision=\"restart_group\"} 1",
        "orchestra_supervisor_restart_budget_utilization_ratio{orchestra_supervisor_name=\"backup\"} 0.25"
      ])
      assert.deepStrictEqual(yield* samples("orchestra_routine_restarts"), [
        "orchestra_routine_restarts_total{orchestra_routine_name=\"database\"," +
        "orchestra_supervisor_name=\"backup\",orchestra_restart_reason=\"failure\"} 1",
        "orchestra_routine_restarts_total{orchestra_routine_name=\"watcher\"," +
        "orchestra_supervisor_name=\"backup\",orchestra_restart_reason=\"sibling\"} 1"
      ])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* samples("orchestra_supervisor_restart"), [
        "orchestra_supervisor_restart_budget_utilization_ratio{orchestra_supervisor_name=\"backup\"} 0"
      ])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("shows what a shutdown waits for, by its phase", () =>
    Effect.gen(function*() {
      yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("3 seconds")), { name: "stubborn" })
      yield* Orchestrator.fork(Effect.never, { name: "docile", drain: Effect.sleep("2 seconds") })
      const remaining = Effect.map(samples("orchestra_shutdown_remaining{"), (lines) =>
        lines.map((line) => line.replace(/.*phase="(\w+)"\} /, "$1 ")))
      assert.deepStrictEqual(yield* remaining, ["ask 0", "interrupt 0", "abandon 0"])
      const fiber = yield* Effect.forkChild(Orchestrator.shutdown(), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* remaining, ["ask 2", "interrupt 0", "abandon 0"])
      yield* TestClock.adjust("1500 millis")
      assert.deepStrictEqual(yield* remaining, ["ask 0", "interrupt 1", "abandon 0"])
      yield* TestClock.adjust("10 seconds")
      yield* Effect.yieldNow
      assert.isNotNull(fiber.pollUnsafe())
      assert.deepStrictEqual(yield* remaining, ["ask 0", "interrupt 0", "abandon 0"])
    }).pipe(Effect.provide(layer)))

  it.effect("stays small however many names there are, and says so once", () =>
    Effect.gen(function*() {
      const logged: Array<unknown> = []
      const logger = Logger.layer([Logger.make(({ message }) => logged.push(message))])
      yield* Effect.gen(function*() {
        for (let n = 0; n < 500; n++) yield* Orchestrator.fork(Effect.void, { name: `name-${n}` })
        const { collect } = yield* Telemetry
        for (const { metric, series } of yield* collect) assert.isAtMost(series.size, 1001, metric.name)
        const runs = (yield* collect).find(({ metric }) => metric.name === "orchestra.routine.run.duration")
        assert(runs !== undefined)
        assert.isTrue(Meter.overflowed(runs))
        const counted = [...runs.series.values()].reduce((sum, each) => sum + each.buckets.reduce((a, b) => a + b), 0)
        assert.strictEqual(counted, 500)
        assert.strictEqual(logged.length, 1)
      }).pipe(Effect.provide([layer, logger]))
    }))

  it.effect("shares one overflow among the metrics of a tree, and goes on counting what it knows", () =>
    Effect.gen(function*() {
      for (let n = 0; n < 300; n++) {
        yield* Effect.flatMap(Orchestrator.fork(Effect.void, { name: `name-${n}` }), Routine.await)
      }
      yield* Effect.flatMap(Orchestrator.fork(Effect.void, { name: "name-0" }), Routine.await)
      const runs = yield* samples("orchestra_routine_run_duration_seconds_count{")
      assert.strictEqual(runs.length, 201)
      assert.includeMembers(runs, [
        "orchestra_routine_run_duration_seconds_count{orchestra_routine_name=\"name-0\"," +
        "orchestra_exit_reason=\"success\"} 2",
        "orchestra_routine_run_duration_seconds_count{otel_metric_overflow=\"true\"} 100"
      ])
      const starts = yield* samples("orchestra_routine_starts_total{otel")
      assert.deepStrictEqual(starts, ["orchestra_routine_starts_total{otel_metric_overflow=\"true\"} 100"])
    }).pipe(Effect.provide([layer, Logger.layer([])])))

  it.effect("counts what was dropped, the streams that are open, and its own series", () =>
    Effect.gen(function*() {
      const { collect, dropped, streaming } = yield* Telemetry
      dropped("span", 3)
      dropped("span", 2)
      dropped("log", 1)
      streaming(1)
      streaming(1)
      streaming(-1)
      assert.deepStrictEqual(yield* samples("orchestra_telemetry_dropped_items_total"), [
        "orchestra_telemetry_dropped_items_total{orchestra_telemetry_signal=\"span\"} 5",
        "orchestra_telemetry_dropped_items_total{orchestra_telemetry_signal=\"log\"} 1"
      ])
      assert.deepStrictEqual(yield* samples("orchestra_http_stream_active"), ["orchestra_http_stream_active 1"])
      const meters = yield* collect
      const series = meters.reduce((sum, { series }) => sum + series.size, 0)
      const told = meters.find(({ metric }) => metric.name === "orchestra.telemetry.series")
      assert.strictEqual([...told?.series.values() ?? []][0]?.value, series)
    }).pipe(Effect.provide(layer)))

  it.effect("is the same for all who share it, and their own when there is none", () =>
    Effect.gen(function*() {
      class One extends Context.Service<One, string>()("One") {}
      class Two extends Context.Service<Two, string>()("Two") {}
      const seen = Effect.map(Telemetry, ({ instance }) => instance)
      const sharing = <I>(service: Context.Key<I, string>) =>
        Layer.provide(Layer.effect(service, seen), Telemetry.shared)
      const both = Layer.mergeAll(sharing(One), sharing(Two))
      const alone = Effect.all([One, Two]).pipe(Effect.provide(Layer.provide(both, Orchestrator.layer)))
      const [one, two] = yield* alone
      assert.strictEqual(one, two)
      const program = Effect.all([seen, One, Two])
      const given = Layer.provideMerge(Telemetry.layerWith({}), Orchestrator.layer)
      const all = yield* Effect.provide(program, Layer.provideMerge(both, given))
      assert.strictEqual(new Set(all).size, 1)
    }))

  it.effect("says since when it counts, and adds to what is measured what it is told to", () =>
    Effect.gen(function*() {
      yield* TestClock.adjust("1 hour")
      const options = { resource: { "service.version": "1.2.3", "service.name": "shop" } }
      const made = Layer.provideMerge(Telemetry.layerWith(options), Orchestrator.layerWith({ name: "app" }))
      const { resource, since } = yield* Effect.provide(Telemetry, made)
      assert.strictEqual(since, 3_600_000)
      assert.include(resource, { "service.version": "1.2.3", "service.name": "shop", "process.runtime.name": "nodejs" })
    }))

  it.effect("counts nothing any more once its layer is closed", () =>
    Effect.gen(function*() {
      const { kernel } = yield* Orchestrator
      yield* Effect.scoped(Layer.build(Telemetry.layer))
      assert.isUndefined(kernel.observers)
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("makes no events: only who listens to them pays for them", () =>
    Effect.gen(function*() {
      const { kernel } = yield* Orchestrator
      assert.isFalse(kernel.bus.observed)
    }).pipe(Effect.provide(layer)))

  it.effect("names the process and gives each start of it a name of its own", () =>
    Effect.gen(function*() {
      const { instance, resource } = yield* Telemetry
      assert.match(instance, /^[0-9a-f]{8}$/)
      assert.include(resource, { "service.name": "app", "service.instance.id": instance })
      const [info] = yield* samples("target_info{")
      assert.include(info, `service_name="app",service_instance_id="${instance}",process_pid="${process.pid}"`)
    }).pipe(Effect.provide(layer)))

  it.effect("measures the process", () =>
    Effect.gen(function*() {
      const lines = yield* samples("process_")
      assert.deepStrictEqual(lines.map((line) => line.replace(/ .*/, "")), [
        "process_cpu_time_seconds_total{cpu_mode=\"user\"}",
        "process_cpu_time_seconds_total{cpu_mode=\"system\"}",
        "process_memory_usage_bytes",
        "process_uptime_seconds",
        ...process.platform === "linux" ? ["process_open_fds"] : []
      ])
      for (const line of lines) assert.isAbove(Number(line.split(" ")[1]), 0, line)
    }).pipe(Effect.provide(layer)))
})
