import type { Meter } from "@effect-orchestra/observability"
import * as Prometheus from "@effect-orchestra/observability/Prometheus"
import * as RuntimeMetrics from "@effect-orchestra/observability/RuntimeMetrics"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Scope } from "effect"
import { TestClock } from "effect/testing"
import { execFileSync, spawnSync } from "node:child_process"
import { open } from "node:fs/promises"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

/** The thread does nothing else for so long. */
const block = (millis: number) =>
  Effect.sync(() => {
    for (const until = performance.now() + millis; performance.now() < until;);
  })

/** So long nothing runs: the timer of the runtime ticks, and what it observes is delivered. */
const idle = (millis: number) => Effect.promise(() => new Promise((resolve) => setTimeout(resolve, millis)))

const value = (meters: ReadonlyArray<Meter.Meter>, name: string, attribute?: string): number => {
  const series = meters.find(({ metric }) => metric.name === name)?.series
  const found = series?.get(JSON.stringify(attribute === undefined ? [] : [attribute]))
  assert(
    found !== undefined,
    `${name} ${attribute}: no such series among ${Array.from(series?.keys() ?? []).join(" ")}`
  )
  return found.value
}

const count = (meters: ReadonlyArray<Meter.Meter>, name: string, attribute: string): number =>
  meters.find(({ metric }) => metric.name === name)?.series.get(JSON.stringify([attribute]))?.buckets
    .reduce((sum, inBucket) => sum + inBucket, 0) ?? 0

setFlagsFromString("--expose-gc")
const gc: (options?: { readonly type: "minor" }) => void = runInNewContext("gc")

describe("RuntimeMetrics", () => {
  describe("process", () => {
    it.effect("tells the CPU time, memory and uptime that Node tells", () =>
      Effect.gen(function*() {
        const { collect } = yield* RuntimeMetrics.make
        const cpu = Effect.map(collect, (meters) =>
          ["user", "system"].map((mode) => value(meters, "process.cpu.time", mode)).reduce((a, b) => a + b))
        const before = yield* cpu
        const start = process.cpuUsage()
        yield* block(100)
        const burned = process.cpuUsage(start)
        const grown = (yield* cpu) - before
        assert.closeTo(grown, (burned.user + burned.system) / 1e6, 0.03)
        const meters = yield* collect
        assert.closeTo(value(meters, "process.memory.usage") / process.memoryUsage.rss(), 1, 0.1)
        assert.closeTo(value(meters, "process.uptime"), process.uptime(), 0.5)
      }).pipe(Effect.scoped))

    it.effect.skipIf(process.platform !== "linux")("counts the files that are open", () =>
      Effect.gen(function*() {
        const { collect } = yield* RuntimeMetrics.make
        const before = value(yield* collect, "process.unix.file_descriptor.count")
        const files = yield* Effect.promise(() => Promise.all(Array.from({ length: 20 }, () => open("/dev/null"))))
        const during = value(yield* collect, "process.unix.file_descriptor.count")
        yield* Effect.promise(() => Promise.all(files.map((file) => file.close())))
        // Others in this process open and close some as well.
        assert.closeTo(during - before, 20, 5)
      }).pipe(Effect.scoped))
  })

  describe("event loop", () => {
    it.effect("shows that it was blocked, to everyone who asks, for one to two minutes", () =>
      Effect.gen(function*() {
        const { collect } = yield* RuntimeMetrics.make
        const delay = Effect.map(collect, (meters) => (statistic: string) =>
          value(meters, `nodejs.eventloop.delay.${statistic}`))
        yield* idle(60)
        yield* block(200)
        yield* idle(30)
        const first = yield* delay
        assert.isAtLeast(first("max"), 0.19)
        assert.isBelow(first("max"), 2)
        assert.strictEqual(first("p99"), first("max"))
        // The period of the timer is in it, as the conventions say.
        assert.isAtLeast(first("min"), 0.015)
        assert.isBelow(first("p50"), 0.1)
        assert.isAbove(first("mean"), first("min"))
        assert.isBelow(first("mean"), first("max"))
        assert.isAbove(first("stddev"), 0.01)
        assert.isAtLeast(first("p90"), first("p50"))
        assert.strictEqual((yield* delay)("max"), first("max"))
        yield* TestClock.adjust("59 seconds")
        assert.isAtLeast((yield* delay)("max"), first("max"))
        // Asked after a minute it still tells of that minute, and then of what came since.
        yield* TestClock.adjust("1 second")
        assert.isAtLeast((yield* delay)("max"), 0.19)
        yield* idle(60)
        yield* TestClock.adjust("1 minute")
        assert.isBelow((yield* delay)("max"), 0.19)
      }).pipe(Effect.scoped))

    it.effect("tells how much of the time it was at work", () =>
      Effect.gen(function*() {
        const { collect } = yield* RuntimeMetrics.make
        const before = yield* collect
        yield* block(150)
        const busy = yield* collect
        yield* idle(300)
        const lazy = yield* collect
        const grown = (state: string, from: typeof before, to: typeof before) =>
          value(to, "nodejs.eventloop.time", state) - value(from, "nodejs.eventloop.time", state)
        assert.isAtLeast(grown("active", before, busy), 0.14)
        assert.isBelow(grown("idle", before, busy), 0.05)
        assert.isAtLeast(grown("idle", busy, lazy), 0.15)
        const utilization = (meters: typeof before) => value(meters, "nodejs.eventloop.utilization")
        assert.isAbove(utilization(busy), 0.8)
        // Of the time since the reading began, not of the life of the process.
        const [active, idled] = [grown("active", before, lazy), grown("idle", before, lazy)]
        assert.closeTo(utilization(lazy), active / (active + idled), 0.03)
      }).pipe(Effect.scoped))

    it.effect("has no delay to tell before the first tick", () =>
      Effect.gen(function*() {
        const meters = yield* Effect.flatMap(RuntimeMetrics.make, ({ collect }) => collect)
        const delays = meters.filter(({ metric }) => metric.name.includes("delay"))
        assert.strictEqual(delays.length, 7)
        for (const { series } of delays) assert.strictEqual(series.size, 0)
      }).pipe(Effect.scoped))
  })

  describe("engine", () => {
    it.effect("records collections by their type, until the scope closes", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const { collect } = yield* Scope.provide(RuntimeMetrics.make, scope)
        const before = yield* collect
        assert.deepStrictEqual(
          Array.from(
            ["major", "minor", "incremental", "weakcb"],
            (type) => value(before, "v8js.gc.duration", type) >= 0
          ),
          [true, true, true, true]
        )
        const counts = (type: string) => Effect.map(collect, (meters) => count(meters, "v8js.gc.duration", type))
        const [majors, minors] = [
          count(before, "v8js.gc.duration", "major"),
          count(before, "v8js.gc.duration", "minor")
        ]
        const started = performance.now()
        for (let i = 0; i < 3; i++) gc()
        for (let i = 0; i < 3; i++) gc({ type: "minor" })
        const took = performance.now() - started
        yield* idle(20)
        assert.isAtLeast(yield* counts("major"), majors + 3)
        assert.isAtLeast(yield* counts("minor"), minors + 3)
        const seconds = value(yield* collect, "v8js.gc.duration", "major")
        assert.isAbove(seconds, 0)
        assert.isBelow(seconds, took / 1000 + 1)
        const last = yield* counts("major")
        yield* Scope.close(scope, Exit.void)
        gc()
        yield* idle(20)
        assert.strictEqual(yield* counts("major"), last)
      }))

    it.effect("tells what the spaces of the heap hold", () =>
      Effect.gen(function*() {
        const { collect } = yield* RuntimeMetrics.make
        const sum = (meters: ReadonlyArray<Meter.Meter>, name: string) =>
          Array.from(meters.find(({ metric }) => metric.name === name)?.series.values() ?? [], ({ value }) => value)
            .reduce((a, b) => a + b, 0)
        const before = yield* collect
        assert.closeTo(sum(before, "v8js.memory.heap.used") / process.memoryUsage().heapUsed, 1, 0.1)
        assert.closeTo(sum(before, "v8js.memory.heap.space.size") / process.memoryUsage().heapTotal, 1, 0.1)
        const held = Array.from({ length: 4 }, () => Array.from({ length: 1_000_000 }, () => 0.5))
        const after = yield* collect
        const grown = value(after, "v8js.memory.heap.used", "large_object_space") -
          value(before, "v8js.memory.heap.used", "large_object_space")
        assert.isAtLeast(
          grown + value(after, "v8js.memory.heap.used", "new_large_object_space"),
          held.length * 8_000_000
        )
        assert.isAtLeast(sum(after, "v8js.memory.heap.space.size"), sum(after, "v8js.memory.heap.used"))
        assert.isAbove(value(after, "v8js.memory.heap.space.available_size", "old_space"), 0)
        assert.isAbove(value(after, "v8js.memory.heap.space.physical_size", "old_space"), 0)
      }).pipe(Effect.scoped))

    it.effect("counts what keeps the event loop alive", () =>
      Effect.gen(function*() {
        const { collect } = yield* RuntimeMetrics.make
        const timers = Effect.map(collect, (meters) => value(meters, "v8js.resource.active", "Timeout"))
        const held = [setTimeout(() => {}, 60_000)]
        const before = yield* timers
        for (let i = 0; i < 5; i++) held.push(setTimeout(() => {}, 60_000))
        assert.strictEqual(yield* timers, before + 5)
        held.forEach(clearTimeout)
      }).pipe(Effect.scoped))
  })

  it.effect.skipIf(spawnSync("promtool", ["--version"]).error !== undefined)(
    "passes the linter of Prometheus",
    () =>
      Effect.gen(function*() {
        const { collect } = yield* RuntimeMetrics.make
        gc()
        yield* idle(50)
        const text = yield* Prometheus.render(yield* collect, {})
        const { status, stderr } = spawnSync("promtool", ["check", "metrics"], { input: text, encoding: "utf8" })
        assert.deepStrictEqual([stderr, status], ["", 0])
      }).pipe(Effect.scoped)
  )

  it("keeps no process alive", { timeout: 20_000 }, () => {
    const program = `
      import * as RuntimeMetrics from "@effect-orchestra/observability/RuntimeMetrics"
      import { Effect, Scope } from "effect"
      const { collect } = await Effect.runPromise(Scope.provide(RuntimeMetrics.make, Scope.makeUnsafe()))
      const meters = await Effect.runPromise(collect)
      console.log(meters.length)
    `
    const out = execFileSync(process.execPath, ["--input-type=module", "--eval", program], {
      cwd: import.meta.dirname,
      encoding: "utf8",
      timeout: 15_000
    })
    assert.strictEqual(out, "19\n")
  })
})
