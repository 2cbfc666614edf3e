import { MetricTable } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"

type Row = readonly [name: string, kind: MetricTable.Metric["kind"], unit: string, prometheus: string]

const metric = ([name, kind, unit]: readonly [string, MetricTable.Metric["kind"], string, ...Array<unknown>]) => ({
  name,
  kind,
  unit,
  attributes: [],
  description: "d"
})

/** The published names of the runtime; those of orchestra stand in `MetricPage.test.ts`. */
const published: ReadonlyArray<Row> = [
  ["process.cpu.time", "counter", "s", "process_cpu_time_seconds_total"],
  ["process.memory.usage", "updowncounter", "By", "process_memory_usage_bytes"],
  ["process.uptime", "gauge", "s", "process_uptime_seconds"],
  ["process.unix.file_descriptor.count", "updowncounter", "{file_descriptor}", "process_open_fds"],
  ["nodejs.eventloop.delay.min", "gauge", "s", "nodejs_eventloop_delay_min_seconds"],
  ["nodejs.eventloop.delay.max", "gauge", "s", "nodejs_eventloop_delay_max_seconds"],
  ["nodejs.eventloop.delay.mean", "gauge", "s", "nodejs_eventloop_delay_mean_seconds"],
  ["nodejs.eventloop.delay.stddev", "gauge", "s", "nodejs_eventloop_delay_stddev_seconds"],
  ["nodejs.eventloop.delay.p50", "gauge", "s", "nodejs_eventloop_delay_p50_seconds"],
  ["nodejs.eventloop.delay.p90", "gauge", "s", "nodejs_eventloop_delay_p90_seconds"],
  ["nodejs.eventloop.delay.p99", "gauge", "s", "nodejs_eventloop_delay_p99_seconds"],
  ["nodejs.eventloop.utilization", "gauge", "1", "nodejs_eventloop_utilization_ratio"],
  ["nodejs.eventloop.time", "counter", "s", "nodejs_eventloop_time_seconds_total"],
  ["v8js.gc.duration", "histogram", "s", "v8js_gc_duration_seconds"],
  ["v8js.memory.heap.used", "updowncounter", "By", "v8js_memory_heap_used_bytes"],
  ["v8js.memory.heap.space.size", "updowncounter", "By", "v8js_memory_heap_space_size_bytes"],
  ["v8js.memory.heap.space.available_size", "updowncounter", "By", "v8js_memory_heap_space_available_size_bytes"],
  ["v8js.memory.heap.space.physical_size", "updowncounter", "By", "v8js_memory_heap_space_physical_size_bytes"],
  ["v8js.resource.active", "gauge", "{resource}", "v8js_resource_active"]
]

describe("MetricTable", () => {
  it("holds exactly the published metrics of the process, under their Prometheus names", () => {
    const rows = MetricTable.runtime.map((each) => [each.name, each.kind, each.unit, MetricTable.prometheusName(each)])
    assert.deepStrictEqual(rows, published.map((row) => [...row]))
  })

  it("gives a ratio its word only as a gauge", () => {
    assert.strictEqual(MetricTable.prometheusName(metric(["a.b", "counter", "1"])), "a_b_total")
    assert.strictEqual(MetricTable.prometheusName(metric(["a.b", "histogram", "1"])), "a_b")
  })

  it("does not say in a Prometheus name what the name says already", () => {
    assert.strictEqual(MetricTable.prometheusName(metric(["queue.bytes", "gauge", "By"])), "queue_bytes")
    assert.strictEqual(MetricTable.prometheusName(metric(["queue.bytes.max", "gauge", "By"])), "queue_bytes_max")
    assert.strictEqual(
      MetricTable.prometheusName(metric(["http.requests_total", "counter", ""])),
      "http_requests_total"
    )
    assert.strictEqual(MetricTable.prometheusName(metric(["hit.ratio", "gauge", "1"])), "hit_ratio")
    assert.strictEqual(
      MetricTable.prometheusName(metric(["disk.io", "gauge", "MiBy/s"])),
      "disk_io_mebibytes_per_second"
    )
    assert.strictEqual(MetricTable.prometheusName(metric(["5xx", "counter", "{request}"])), "_5xx_total")
  })

  it("turns attributes into labels that Prometheus accepts", () => {
    assert.strictEqual(MetricTable.labelName("orchestra.routine.name"), "orchestra_routine_name")
    assert.strictEqual(MetricTable.labelName("8-bit"), "_8_bit")
  })

  it("describes every metric, and uses no attribute that names an instance", () => {
    for (const each of MetricTable.all) {
      assert.match(each.description, /^[A-Z].*\.$/)
      for (const attribute of each.attributes) assert.notMatch(attribute, /\.(id|path)$/)
    }
  })

  describe("register", () => {
    it("takes the table, and one metric twice", () => {
      assert.strictEqual(MetricTable.register(MetricTable.all), MetricTable.all)
      MetricTable.register([MetricTable.routineStarts, MetricTable.routineStarts])
    })

    it("refuses one name with two kinds or units", () => {
      assert.throws(
        () => MetricTable.register([metric(["a.b", "counter", "1"]), metric(["a.b", "gauge", "1"])]),
        "\"a.b\" is registered twice, got: counter \"a.b\" in \"1\" and gauge \"a.b\" in \"1\""
      )
      assert.throws(() => MetricTable.register([metric(["a", "gauge", "s"]), metric(["a", "gauge", "By"])]))
    })

    it("refuses two names that Prometheus would show as one", () => {
      assert.throws(
        () => MetricTable.register([metric(["a.b", "gauge", "{x}"]), metric(["a_b", "gauge", "{x}"])]),
        "\"a_b\" is registered twice"
      )
      assert.throws(() =>
        MetricTable.register([metric(["a", "histogram", "s"]), metric(["a.seconds.sum", "gauge", "{x}"])])
      )
    })

    it("refuses attributes of one metric that would become one label", () => {
      const twice = { ...metric(["a", "gauge", "1"]), attributes: ["x.y", "x_y"] }
      assert.throws(() => MetricTable.register([twice]), "the labels of \"a\" are not distinct, got: x.y, x_y")
    })
  })
})
