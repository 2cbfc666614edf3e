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

/** The published names. Renaming one breaks dashboards and alerts: change a row only with a reason. */
const published: ReadonlyArray<Row> = [
  ["orchestra.routine.active", "gauge", "{routine}", "orchestra_routine_active"],
  ["orchestra.routine.starts", "counter", "{start}", "orchestra_routine_starts_total"],
  ["orchestra.routine.run.duration", "histogram", "s", "orchestra_routine_run_duration_seconds"],
  ["orchestra.routine.restarts", "counter", "{restart}", "orchestra_routine_restarts_total"],
  ["orchestra.supervisor.decisions", "counter", "{decision}", "orchestra_supervisor_decisions_total"],
  [
    "orchestra.supervisor.restart.budget.utilization",
    "gauge",
    "1",
    "orchestra_supervisor_restart_budget_utilization_ratio"
  ],
  ["orchestra.shutdown.remaining", "gauge", "{routine}", "orchestra_shutdown_remaining"],
  ["process.cpu.time", "counter", "s", "process_cpu_time_seconds_total"],
  ["process.memory.usage", "gauge", "By", "process_memory_usage_bytes"],
  ["process.uptime", "gauge", "s", "process_uptime_seconds"],
  ["process.unix.file_descriptor.count", "gauge", "{file_descriptor}", "process_open_fds"]
]

/** Names that are planned: the rules must hold for them as well. */
const planned: ReadonlyArray<Row> = [
  ["orchestra.routine.restart.delay", "histogram", "s", "orchestra_routine_restart_delay_seconds"],
  ["orchestra.routine.heartbeat.age.max", "gauge", "s", "orchestra_routine_heartbeat_age_max_seconds"],
  ["orchestra.routine.cpu.time", "counter", "s", "orchestra_routine_cpu_time_seconds_total"],
  ["orchestra.routine.slice.duration", "histogram", "s", "orchestra_routine_slice_duration_seconds"],
  ["orchestra.mailbox.usage", "gauge", "{message}", "orchestra_mailbox_usage"],
  ["orchestra.mailbox.limit", "gauge", "{message}", "orchestra_mailbox_limit"],
  ["orchestra.mailbox.utilization.max", "gauge", "1", "orchestra_mailbox_utilization_max_ratio"],
  ["orchestra.mailbox.message.age.max", "gauge", "s", "orchestra_mailbox_message_age_max_seconds"],
  ["orchestra.mailbox.sent.messages", "counter", "{message}", "orchestra_mailbox_sent_messages_total"],
  ["orchestra.mailbox.received.messages", "counter", "{message}", "orchestra_mailbox_received_messages_total"],
  ["orchestra.mailbox.wait.duration", "histogram", "s", "orchestra_mailbox_wait_duration_seconds"],
  ["orchestra.bus.published.messages", "counter", "{message}", "orchestra_bus_published_messages_total"],
  ["orchestra.bus.delivered.messages", "counter", "{message}", "orchestra_bus_delivered_messages_total"],
  ["orchestra.bus.subscription.active", "gauge", "{subscription}", "orchestra_bus_subscription_active"],
  ["orchestra.bus.subscription.lag.max", "gauge", "{message}", "orchestra_bus_subscription_lag_max"],
  ["orchestra.group.wait.duration", "histogram", "s", "orchestra_group_wait_duration_seconds"],
  ["orchestra.group.task.active", "gauge", "{task}", "orchestra_group_task_active"],
  ["orchestra.saga.duration", "histogram", "s", "orchestra_saga_duration_seconds"],
  ["orchestra.saga.active", "gauge", "{saga}", "orchestra_saga_active"],
  ["orchestra.saga.step.duration", "histogram", "s", "orchestra_saga_step_duration_seconds"],
  ["orchestra.saga.compensation.failures", "counter", "{failure}", "orchestra_saga_compensation_failures_total"],
  ["orchestra.shutdown.duration", "histogram", "s", "orchestra_shutdown_duration_seconds"],
  ["orchestra.telemetry.dropped.items", "counter", "{item}", "orchestra_telemetry_dropped_items_total"],
  ["orchestra.telemetry.series", "gauge", "{series}", "orchestra_telemetry_series"],
  ["orchestra.http.stream.active", "gauge", "{stream}", "orchestra_http_stream_active"],
  ["nodejs.eventloop.utilization", "gauge", "1", "nodejs_eventloop_utilization_ratio"],
  ["v8js.memory.heap.used", "gauge", "By", "v8js_memory_heap_used_bytes"]
]

describe("MetricTable", () => {
  it("holds exactly the published metrics, under their Prometheus names", () => {
    const rows = MetricTable.all.map((each) => [each.name, each.kind, each.unit, MetricTable.prometheusName(each)])
    assert.deepStrictEqual(rows, published.map((row) => [...row]))
  })

  it.each(planned)("derives the Prometheus name of %s (%s in %s): %s", (name, kind, unit, prometheus) => {
    assert.strictEqual(MetricTable.prometheusName(metric([name, kind, unit])), prometheus)
  })

  it("gives a ratio its word only as a gauge", () => {
    assert.strictEqual(MetricTable.prometheusName(metric(["a.b", "counter", "1"])), "a_b_total")
    assert.strictEqual(MetricTable.prometheusName(metric(["a.b", "histogram", "1"])), "a_b")
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
