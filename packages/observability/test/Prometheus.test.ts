import { Meter, type MetricTable, Prometheus } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"

const counter: MetricTable.Metric = {
  name: "test.items",
  kind: "counter",
  unit: "{item}",
  attributes: ["item.name", "error.type"],
  description: "Items with a \\ and\na second line."
}

const histogram: MetricTable.Metric = {
  name: "test.wait",
  kind: "histogram",
  unit: "s",
  attributes: ["item.name"],
  description: "Waits.",
  boundaries: [0.5, 1, 60]
}

const gauge: MetricTable.Metric = { ...counter, name: "test.level", kind: "gauge", attributes: [], description: "L." }

const body = (meters: ReadonlyArray<Meter.Meter>) =>
  Effect.map(Prometheus.render(meters, {}), (text) => text.split("\n").slice(3).join("\n"))

describe("Prometheus", () => {
  it.effect("renders every kind, with names, help, types, labels and buckets", () =>
    Effect.gen(function*() {
      const items = Meter.make(counter)
      items.add(["b", undefined], 2)
      items.add(["a", "Oops"], 1)
      items.add(["b", undefined], 0.5)
      const waits = Meter.make(histogram)
      for (const seconds of [0.25, 0.5, 1, 0.75, 61]) waits.record(["a"], seconds)
      const level = Meter.make(gauge)
      level.add([], -3)
      const text = yield* Prometheus.render([items, waits, level], { "service.name": "svc", "process.pid": "7" })
      assert.strictEqual(
        text,
        `# HELP target_info What is measured here.
# TYPE target_info gauge
target_info{service_name="svc",process_pid="7"} 1
# HELP test_items_total Items with a \\\\ and\\na second line.
# TYPE test_items_total counter
test_items_total{item_name="b"} 2.5
test_items_total{item_name="a",error_type="Oops"} 1
# HELP test_wait_seconds Waits.
# TYPE test_wait_seconds histogram
test_wait_seconds_bucket{item_name="a",le="0.5"} 2
test_wait_seconds_bucket{item_name="a",le="1.0"} 4
test_wait_seconds_bucket{item_name="a",le="60.0"} 4
test_wait_seconds_bucket{item_name="a",le="+Inf"} 5
test_wait_seconds_sum{item_name="a"} 63.5
test_wait_seconds_count{item_name="a"} 5
# HELP test_level L.
# TYPE test_level gauge
test_level -3
`
      )
    }))

  it.effect("escapes what a label may not hold, and keeps what it may", () =>
    Effect.gen(function*() {
      const items = Meter.make(counter)
      items.add(["a\"b\\c\nd<img src=x onerror=alert(1)>é", undefined], 1)
      assert.include(
        yield* body([items]),
        "test_items_total{item_name=\"a\\\"b\\\\c\\nd<img src=x onerror=alert(1)>é\"} 1\n"
      )
    }))

  it.effect("writes the values that are no finite numbers as Prometheus reads them", () =>
    Effect.gen(function*() {
      const items = Meter.make(counter)
      items.add(["up"], Infinity)
      items.add(["down"], -Infinity)
      items.add(["no"], NaN)
      items.add(["large"], 2 ** 70)
      assert.deepStrictEqual((yield* body([items])).match(/\} .*/g), [
        "} +Inf",
        "} -Inf",
        "} NaN",
        "} 1.1805916207174113e+21"
      ])
    }))

  it.effect("shows names with lone surrogates as one series, not as the same series twice", () =>
    Effect.gen(function*() {
      const items = Meter.make(counter)
      items.add(["\ud800"], 1)
      items.add(["\ud801"], 1)
      assert.deepStrictEqual((yield* body([items])).match(/\} .*/g), ["} 2"])
    }))

  it.effect("counts past what 32 bits hold", () =>
    Effect.gen(function*() {
      const waits = Meter.make(histogram)
      waits.record(["a"], 0.1)
      const series = [...waits.series.values()][0]
      assert(series !== undefined)
      series.buckets[0] = 2 ** 32
      waits.record(["a"], 0.1)
      assert.include(yield* body([waits]), `test_wait_seconds_count{item_name="a"} ${2 ** 32 + 1}\n`)
    }))

  it.effect("lets other fibers run while it renders many series", () =>
    Effect.gen(function*() {
      const items = Meter.make(counter, { maxValues: 2000 })
      for (let n = 0; n < 2000; n++) items.add([`n${n}`], 1)
      let turns = 0
      const fiber = yield* Effect.forkChild(Effect.forever(Effect.andThen(Effect.sync(() => turns++), Effect.yieldNow)))
      yield* body([items])
      assert.isAtLeast(turns, 3)
      fiber.interruptUnsafe()
    }))
})

describe("Meter", () => {
  it.effect("adds what is beyond its bounds to one overflow series", () =>
    Effect.gen(function*() {
      const items = Meter.make(counter, { maxValues: 2 })
      for (const name of ["a", "b", "c", "d", "a"]) items.add([name], 1)
      assert.isTrue(Meter.overflowed(items))
      assert.strictEqual(
        (yield* body([items])).split("\n").slice(2).join("\n"),
        "test_items_total{item_name=\"a\"} 2\ntest_items_total{item_name=\"b\"} 1\n" +
          "test_items_total{otel_metric_overflow=\"true\"} 2\n"
      )
    }))

  it("keeps the highest of several values", () => {
    const level = Meter.make(gauge)
    for (const value of [1, 3, 2]) level.max([], value)
    assert.deepStrictEqual([...level.series.values()].map(({ value }) => value), [3])
  })

  it("does not grow with a million names", () => {
    const items = Meter.make(counter)
    for (let n = 0; n < 1_000_000; n++) items.add([`n${n}`], 1)
    assert.strictEqual(items.series.size, 201)
  })

  it("bounds the sets of values as well as the values", () => {
    const items = Meter.make(counter)
    for (let a = 0; a < 100; a++) for (let b = 0; b < 100; b++) items.add([`a${a}`, `b${b}`], 1)
    assert.strictEqual(items.series.size, 2001)
    assert.strictEqual([...items.series.values()].reduce((sum, { value }) => sum + value, 0), 10_000)
  })
})
