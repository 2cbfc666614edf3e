import { Meter, MetricTable, Prometheus } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import { type Family, parse } from "./model/Exposition.ts"

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

  it.effect("renders OpenMetrics: bare families, units, exemplars, an info, and an end", () =>
    Effect.gen(function*() {
      const items = Meter.make({ ...counter, description: "Items \"quoted\",\nwith \\." })
      const exemplar = {
        traceId: "4bf92f3577b34da6a3ce929d0e0e4736",
        spanId: "00f067aa0ba902b7",
        at: 1_795_170_000_123
      }
      items.add(["b"], 2, { ...exemplar, value: 2 })
      const waits = Meter.make(histogram)
      waits.record(["a"], 0.75, { ...exemplar, value: 0.75 })
      waits.record(["a"], 61)
      const below = Meter.make({ ...histogram, name: "test.below", unit: "1", boundaries: [-1e21, 0] })
      below.record([undefined], -2)
      const ratio = Meter.make({ ...gauge, unit: "1" })
      ratio.add([], 0.5)
      const level = Meter.make({ ...gauge, name: "test.other", kind: "updowncounter" })
      level.add([], -3)
      const fds = Meter.make(MetricTable.processFileDescriptors)
      fds.add([], 9)
      const sizes = Meter.make({ ...gauge, name: "test.sizes", kind: "summary", unit: "By" })
      Object.assign(sizes.at([]), { value: 8, summary: { count: 3, quantiles: [[0.5, 2], [1, NaN]] } })
      const inside = Meter.make({ ...gauge, name: "test.seconds.max", unit: "s" })
      inside.add([], 4)
      const all = [items, waits, below, ratio, level, fds, sizes, inside]
      const text = yield* Prometheus.render(all, { "service.name": "svc", service_name: "other" }, {
        format: "openmetrics"
      })
      const traced = `# {trace_id="${exemplar.traceId}",span_id="${exemplar.spanId}"}`
      assert.strictEqual(
        text,
        `# HELP target What is measured here.
# TYPE target info
target_info{service_name="svc"} 1
# HELP test_items Items \\"quoted\\",\\nwith \\\\.
# TYPE test_items counter
test_items_total{item_name="b"} 2 ${traced} 2 1795170000.123
# HELP test_wait_seconds Waits.
# TYPE test_wait_seconds histogram
# UNIT test_wait_seconds seconds
test_wait_seconds_bucket{item_name="a",le="0.5"} 0
test_wait_seconds_bucket{item_name="a",le="1.0"} 1 ${traced} 0.75 1795170000.123
test_wait_seconds_bucket{item_name="a",le="60.0"} 1
test_wait_seconds_bucket{item_name="a",le="+Inf"} 2
test_wait_seconds_sum{item_name="a"} 61.75
test_wait_seconds_count{item_name="a"} 2
# HELP test_below Waits.
# TYPE test_below histogram
test_below_bucket{le="-1e+21"} 0
test_below_bucket{le="0.0"} 1
test_below_bucket{le="+Inf"} 1
# HELP test_level_ratio L.
# TYPE test_level_ratio gauge
# UNIT test_level_ratio ratio
test_level_ratio 0.5
# HELP test_other L.
# TYPE test_other gauge
test_other -3
# HELP process_open_fds Open file descriptors of this process.
# TYPE process_open_fds gauge
process_open_fds 9
# HELP test_sizes_bytes L.
# TYPE test_sizes_bytes summary
# UNIT test_sizes_bytes bytes
test_sizes_bytes{quantile="0.5"} 2
test_sizes_bytes{quantile="1.0"} NaN
test_sizes_bytes_sum 8
test_sizes_bytes_count 3
# HELP test_seconds_max L.
# TYPE test_seconds_max gauge
test_seconds_max 4
# EOF
`
      )
      const plain = yield* Prometheus.render(all, {})
      assert.notMatch(plain, /trace_id|# UNIT|# EOF/)
      assert.include(plain, "# HELP test_items_total Items \"quoted\",\\nwith \\\\.\n")
      assert.include(plain, "test_below_sum -2\n")
      parse(text, "openmetrics")
      parse(plain, "text")
    }))

  it.effect("leaves out an exemplar with more characters than OpenMetrics allows", () =>
    Effect.gen(function*() {
      const items = Meter.make(counter)
      const sized = (length: number) => ({ traceId: "é".repeat(length), spanId: "", value: 1, at: 0 })
      items.add(["fits"], 1, sized(128 - "trace_idspan_id".length))
      items.add(["long"], 1, sized(129 - "trace_idspan_id".length))
      const text = yield* Prometheus.render([items], {}, { format: "openmetrics" })
      assert.match(text, /"fits"} 1 # \{/)
      assert.match(text, /"long"} 1\n/)
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

describe("what Prometheus renders", () => {
  const seeds = Number(process.env["SEEDS"] ?? 200)
  const pick = <A>(from: ReadonlyArray<A>) =>
    Effect.map(Random.nextIntBetween(0, from.length, { halfOpen: true }), (index) => from[index]!)
  const hostile = [
    "",
    "a",
    "\"",
    "\\",
    "\n",
    "\\n",
    "{a=\"b\"}",
    ",",
    "é\u0000",
    "\r",
    " ",
    "# EOF\n",
    "\u2028",
    "x".repeat(300)
  ]
  const word = Effect.map(Effect.all([pick(hostile), pick(hostile), pick(hostile)]), (words) => words.join(""))
  const numbers = [0, 1, -1, 0.1, 1e21, -1e-7, 2 ** 53, 5e-324, Infinity, -Infinity, NaN]
  const bounds = [-1e21, -1, 0, 0.1, 1, 1e6, 1e21]

  /** A meter with anything in it, and the samples that it must show. */
  const meter = Effect.fnUntraced(function*(index: number) {
    const kind = yield* pick(["counter", "updowncounter", "gauge", "histogram", "summary"] as const)
    const metric: MetricTable.Metric = {
      name: `m.${index}`,
      kind,
      unit: yield* pick(["", "1", "s", "By", "{x}", "By/s", "%"]),
      attributes: ["a.b", "c"],
      description: yield* word,
      boundaries: kind === "histogram" ? bounds.slice(yield* pick([0, 2, 7])) : undefined
    }
    const made = Meter.make(metric)
    for (let n = 0; n < 4; n++) {
      const series = made.at([yield* word, (yield* pick([true, false])) ? undefined : yield* word])
      const exemplar = { traceId: yield* word, spanId: yield* word, value: yield* pick(numbers), at: index }
      series.value = yield* pick(numbers)
      if (kind === "summary") {
        series.summary = {
          count: yield* pick([0, 7]),
          quantiles: [[0, yield* pick(numbers)], [1, yield* pick(numbers)]]
        }
      }
      for (let at = 0; at < series.buckets.length; at++) {
        series.buckets[at] = yield* pick([0, 1, 2 ** 40])
        series.exemplars[at] = exemplar
      }
      series.exemplars[0] = exemplar
    }
    return made
  })

  const expected = ({ metric, series }: Meter.Meter) =>
    [...series.values()].flatMap(({ attributes, buckets, summary, value }) => {
      const own = Object.fromEntries(attributes.map(([name, text]) => [name.replace(".", "_"), text]))
      const of = (suffix: string, value: number, more = {}) => ({ suffix, labels: { ...own, ...more }, value })
      if (metric.kind === "summary") {
        const quantiles = summary?.quantiles.map(([quantile, at]) => of("", at, { quantile: `${quantile}.0` }))
        return [...(quantiles ?? []), of("_sum", value), of("_count", summary?.count ?? 0)]
      }
      if (metric.kind !== "histogram") return [of("", value)]
      const below = [...buckets].map((_, index) => buckets.slice(0, index + 1).reduce((sum, count) => sum + count, 0))
      const le = [...(metric.boundaries ?? []), Infinity]
      return [
        ...below.map((count, index) => of("_bucket", count, { le: le[index] })),
        ...((metric.boundaries?.[0] ?? 0) < 0 ? [] : [of("_sum", value), of("_count", below.at(-1) ?? 0)])
      ]
    })

  const read = ({ name, samples, type }: Family) =>
    samples.map(({ labels, name: sample, value }) => ({
      suffix: type === "counter" ? "" : sample.slice(name.length),
      labels: Object.fromEntries(
        [...labels].map(([name, text]) => [name, name === "le" ? Number(text.replace("+Inf", "Infinity")) : text])
      ),
      value
    }))

  it.effect("is read back as it was, in both formats", () =>
    Effect.gen(function*() {
      for (let seed = 0; seed < seeds; seed++) {
        const one = Effect.gen(function*() {
          const meters = yield* Effect.forEach([0, 1, 2], meter)
          const resource = { [`r${yield* word}`]: yield* word, "a.b": yield* word, a_b: "second" }
          const open = parse(yield* Prometheus.render(meters, resource, { format: "openmetrics" }), "openmetrics")
          const text = parse(yield* Prometheus.render(meters, resource), "text")
          assert.lengthOf(open, 4)
          assert.deepStrictEqual(open.slice(1).map(read), meters.map(expected))
          assert.deepStrictEqual(open.slice(1).map(({ help }) => help), meters.map(({ metric }) => metric.description))
          const points = (family: Family) => read(family).filter(({ suffix }) => !/_(sum|count)$/.test(suffix))
          assert.deepStrictEqual(text.slice(1).map(points), open.slice(1).map(points))
          assert.deepStrictEqual(text.map(({ help }) => help), open.map(({ help }) => help))
        })
        yield* Random.withSeed(one, `exposition ${seed}`)
      }
    }), 30_000 + seeds * 20)
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
