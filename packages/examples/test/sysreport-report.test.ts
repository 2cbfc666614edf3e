import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, FileSystem, Random, Schema, type SchemaAST } from "effect"
import { Diff, diff, encode as encodeDiff } from "../src/sysreport/Diff.ts"
import * as Document from "../src/sysreport/Document.ts"
import { encode, Report } from "../src/sysreport/Report.ts"
import { categoriesOf, healthy, reportOf, result } from "./SysreportData.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

/** Field names of melisai 1.1.0, by where they stand. */
const melisai: Readonly<Record<string, string>> = {
  "": "metadata system categories summary ai_context",
  "metadata": "tool version schema_version hostname timestamp duration profile focus_areas kernel_version arch cpus " +
    "memory_gb capabilities container_env cgroup_version observer_overhead",
  "metadata.observer_overhead": "self_pid child_pids cpu_user_ms cpu_system_ms memory_rss_bytes disk_read_bytes " +
    "disk_write_bytes context_switches",
  "system": "os kernel uptime_seconds boot_params filesystems block_devices dmesg_errors journal_errors",
  "system.filesystems": "mount device type size_gb used_pct",
  "system.block_devices": "name type size_gb model",
  "system.dmesg_errors": "time level unit message",
  "system.journal_errors": "time level unit message",
  "categories": "cpu memory disk network process container system",
  "categories.cpu": "collector category tier start_time end_time data histograms events stacks errors truncated",
  "categories.cpu.histograms": "name unit buckets total_count p50 p90 p99 p999 max mean",
  "categories.cpu.histograms.buckets": "low high count",
  "categories.cpu.events": "time pid comm details",
  "categories.cpu.stacks": "stack count type",
  "categories.cpu.data": "user_pct system_pct iowait_pct idle_pct steal_pct irq_pct softirq_pct " +
    "context_switches_per_sec load_avg_1 load_avg_5 load_avg_15 num_cpus per_cpu sched_latency_ns " +
    "sched_min_granularity_ns psi_some_10 psi_some_60",
  "categories.cpu.data.per_cpu": "cpu user_pct system_pct iowait_pct idle_pct",
  "categories.memory.data": "total_bytes free_bytes available_bytes cached_bytes buffers_bytes swap_total_bytes " +
    "swap_used_bytes dirty_bytes major_faults minor_faults swappiness overcommit_memory overcommit_ratio dirty_ratio " +
    "dirty_background_ratio huge_pages_total huge_pages_free psi_some_10 psi_some_60 psi_full_10 psi_full_60 " +
    "thp_enabled thp_defrag min_free_kbytes watermark_scale_factor numa_nodes buddy_info reclaim",
  "categories.memory.data.numa_nodes": "node mem_total_bytes mem_free_bytes numa_hit numa_miss numa_foreign " +
    "miss_ratio distance cpus",
  "categories.memory.data.reclaim": "pgscan_direct pgscan_kswapd pgsteal_direct pgsteal_kswapd allocstall_normal " +
    "compact_stall compact_success compact_fail thp_fault_alloc thp_collapse_alloc thp_split_page " +
    "direct_reclaim_rate compact_stall_rate thp_split_rate",
  "categories.disk.data": "devices total_ops read_ops write_ops psi_some_10 psi_some_60",
  "categories.disk.data.devices": "name read_ops write_ops read_bytes write_bytes io_in_progress io_time_ms " +
    "weighted_io_ms avg_latency_ms scheduler queue_depth rotational read_ahead_kb",
  "categories.network.data": "interfaces tcp conntrack tcp_ext udp softnet socket_mem sysctls listen_sockets " +
    "recvq_saturated_count",
  "categories.network.data.interfaces":
    "name rx_bytes tx_bytes rx_packets rx_errors rx_dropped errors_per_sec driver " +
    "speed rx_queues tx_queues ring_rx_current ring_rx_max rx_discards rx_buf_errors rps_enabled xps_enabled " +
    "bond_slave mtu tso_enabled gro_enabled gso_enabled coalesce_rx_usecs",
  "categories.network.data.tcp": "curr_estab active_opens passive_opens retrans_segs retrans_rate_per_sec in_errs " +
    "out_rsts time_wait_count close_wait_count",
  "categories.network.data.conntrack": "count max usage_pct drops insert_failed early_drop",
  "categories.network.data.tcp_ext": "listen_overflows listen_drops tcp_abort_on_memory tcp_ofo_queue prune_called " +
    "tcp_rcvq_drop tcp_zero_window_drop listen_overflows_rate listen_drops_rate tcp_abort_on_memory_rate " +
    "prune_called_rate tcp_rcvq_drop_rate tcp_zero_window_drop_rate",
  "categories.network.data.udp": "rcvbuf_errors sndbuf_errors in_errors rcvbuf_err_rate",
  "categories.network.data.softnet": "stats irq_distribution drop_rate squeeze_rate",
  "categories.network.data.softnet.stats": "cpu processed dropped time_squeeze",
  "categories.network.data.softnet.irq_distribution": "cpu net_rx_delta",
  "categories.network.data.socket_mem": "tcp_inuse tcp_orphans tcp_mem_pages udp_inuse",
  "categories.network.data.listen_sockets": "local_addr recv_q send_q fill_pct",
  "categories.process.data": "top_by_cpu top_by_mem total_processes running sleeping zombie excluded_pids",
  "categories.process.data.top_by_cpu": "pid comm cpu_pct mem_rss_bytes mem_pct threads fds state",
  "categories.process.data.top_by_mem": "pid comm cpu_pct mem_rss_bytes mem_pct threads fds state",
  "categories.container.data":
    "runtime cgroup_version cgroup_path container_id pod_name namespace cpu_quota cpu_period " +
    "cpu_throttled_periods cpu_throttled_time_us memory_limit_bytes memory_usage_bytes",
  "summary": "health_score anomalies hotspots resources recommendations",
  "summary.anomalies": "severity category metric message value threshold",
  "summary.hotspots": "category description evidence",
  "summary.resources": "cpu memory disk network container_cpu container_memory",
  "summary.resources.cpu": "utilization_pct saturation_pct errors",
  "summary.recommendations": "priority category type title commands persistent expected_impact evidence source",
  "ai_context": "prompt methodology known_patterns"
}

/** The paths of all fields; elements of lists stand where their list does. */
const fieldsOf = (ast: SchemaAST.AST, at = ""): ReadonlyArray<string> => {
  switch (ast._tag) {
    case "Objects":
      return ast.propertySignatures.flatMap(({ name, type }) => {
        const path = at === "" ? String(name) : `${at}.${String(name)}`
        return [path, ...fieldsOf(type, path)]
      })
    case "Arrays":
      return ast.rest.flatMap((element) => fieldsOf(element, at))
    case "Union":
      return ast.types.flatMap((member) => fieldsOf(member, at))
    default:
      return []
  }
}

describe("the document of sysreport", () => {
  it("has every field name of melisai", () => {
    const ours = new Set(fieldsOf(Schema.toEncoded(Report).ast))
    const theirs = Object.entries(melisai).flatMap(([at, names]) =>
      names.split(" ").map((name) => at === "" ? name : `${at}.${name}`)
    )
    assert.deepStrictEqual(theirs.filter((path) => !ours.has(path)), [])
  })

  it("has the same fields in the system block as in the data of its collector", () => {
    const paths = fieldsOf(Schema.toEncoded(Report).ast)
    const inCategory = new Set(paths.filter((path) => path.startsWith("categories.system.data.")))
    const inBlock = paths.filter((path) => path.startsWith("system."))
    assert.isAbove(inBlock.length, 15)
    assert.deepStrictEqual(inBlock.filter((path) => !inCategory.has(`categories.system.data.${path.slice(7)}`)), [])
  })

  const written = (text: string) =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const file = `${yield* fs.makeTempDirectoryScoped()}/report.json`
      yield* fs.writeFileString(file, text)
      return file
    })

  it.effect("is read as it was written, typed data and all", () =>
    Effect.gen(function*() {
      const report = reportOf(categoriesOf(healthy))
      const text = yield* encode(report)
      assert.isTrue(text.endsWith("}\n"))
      const read = yield* Document.read("report", yield* written(text), Report)
      assert.deepStrictEqual(read, report)
      assert.strictEqual(read.categories.cpu?.[0]?.data?.user_pct, 10)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("says where it is wrong, and what was expected", () =>
    Effect.gen(function*() {
      const text = yield* encode(reportOf(categoriesOf(healthy)))
      const problem = (from: string, to: string) =>
        written(text.replace(from, to)).pipe(
          Effect.flatMap((file) => Effect.flip(Document.read("report", file, Report))),
          Effect.map(({ message }) => message.slice(message.indexOf("report.json: ") + "report.json: ".length))
        )
      assert.strictEqual(
        yield* problem("\"sysreport/1\"", "\"1.1.0\""),
        "metadata.schema_version: expected \"sysreport/1\", got \"1.1.0\""
      )
      assert.include(yield* problem("\"user_pct\": 10", "\"user_pct\": \"10\""), "categories.cpu[0].data.user_pct: ")
    }).pipe(Effect.provide(NodeServices.layer)))
})

const later = DateTime.makeUnsafe("2026-03-01T13:30:05Z")
const base = reportOf(categoriesOf(healthy))
const ofCpu = (cpu: Partial<typeof healthy.cpu>, timestamp = later) =>
  reportOf(categoriesOf({ ...healthy, cpu: { ...healthy.cpu, ...cpu } }), timestamp)

describe("diff of two reports", () => {
  it("of a report and itself is empty", () => {
    assert.deepStrictEqual(diff(base, base), {
      baseline: base.metadata.timestamp,
      current: base.metadata.timestamp,
      time_delta: "0s",
      changes: [],
      regressions: 0,
      improvements: 0,
      health_delta: 0,
      new_anomalies: [],
      resolved_anomalies: [],
      changed_anomalies: [],
      not_compared: []
    })
  })

  it.effect("sees processors and memory in reports that were read from files", () =>
    Effect.gen(function*() {
      const read = (report: Report) =>
        Effect.flatMap(encode(report), (text) => Schema.decodeEffect(Schema.fromJsonString(Report))(text))
      const memory = { ...healthy.memory, available_bytes: healthy.memory.total_bytes / 10 }
      const worse = reportOf(
        categoriesOf({ ...healthy, memory, cpu: { ...healthy.cpu, user_pct: 40, idle_pct: 54 } }),
        later
      )
      const { changes, ...found } = diff(yield* read(base), yield* read(worse))
      assert.deepStrictEqual(
        changes.map(({ category, direction, metric, significance }) =>
          `${category} ${metric} ${direction} ${significance}`
        ),
        [
          "cpu utilization_pct regression high",
          "cpu user_pct regression high",
          "cpu idle_pct regression medium",
          "memory utilization_pct regression high",
          "memory available_bytes regression high"
        ]
      )
      assert.deepStrictEqual(changes[1], {
        category: "cpu",
        metric: "user_pct",
        old_value: 10,
        new_value: 40,
        delta: 30,
        delta_pct: 300,
        direction: "regression",
        significance: "high"
      })
      assert.strictEqual(found.regressions, 5)
      assert.strictEqual(found.improvements, 0)
      assert.strictEqual(found.time_delta, "1h30m5s")
      assert.strictEqual(found.health_delta, -12)
      assert.deepStrictEqual(found.new_anomalies.map(({ metric }) => metric), ["memory_utilization"])
    }))

  it("what changes by 5 % at most is unchanged, and what hardly changes is left out", () => {
    const changes = (user_pct: number) => diff(base, ofCpu({ user_pct })).changes
    assert.deepStrictEqual(changes(10.09), [])
    assert.deepStrictEqual(changes(10.5).map(({ direction }) => direction), ["unchanged"])
    assert.deepStrictEqual(changes(10.51).map(({ direction }) => direction), ["regression"])
    // The way back from 10.5 is less than 5 % of it, and from 10.51 more than 5 % of where it ends.
    assert.deepStrictEqual(diff(ofCpu({ user_pct: 10.51 }), base).changes.map(({ direction }) => direction), [
      "improvement"
    ])
  })

  it("significance is by 20 and 50 % of the old value, and what begins at nothing is high", () => {
    const significance = (from: number, to: number) =>
      diff(ofCpu({ user_pct: from }), ofCpu({ user_pct: to })).changes.map((change) => change.significance)
    assert.deepStrictEqual(significance(100, 119.9), ["low"])
    assert.deepStrictEqual(significance(100, 120), ["medium"])
    assert.deepStrictEqual(significance(100, 150), ["high"])
    assert.deepStrictEqual(significance(0, 3), ["high"])
    assert.strictEqual(diff(ofCpu({ user_pct: 0 }), base).changes[0]?.delta_pct, null)
  })

  it("anomalies are new, resolved, or of another severity", () => {
    const [warned, ill] = [ofCpu({ idle_pct: 20 }), ofCpu({ idle_pct: 5, psi_some_10: 9 })]
    const names = ({ changed_anomalies, new_anomalies, resolved_anomalies }: Diff) => ({
      gained: new_anomalies.map(({ metric }) => metric),
      lost: resolved_anomalies.map(({ metric }) => metric),
      changed: changed_anomalies.map(({ from, metric, to }) => `${metric} ${from} ${to}`)
    })
    assert.deepStrictEqual(names(diff(warned, ill)), {
      gained: ["cpu_psi_pressure"],
      lost: [],
      changed: ["cpu_utilization warning critical"]
    })
    assert.deepStrictEqual(names(diff(ill, warned)), {
      gained: [],
      lost: ["cpu_psi_pressure"],
      changed: ["cpu_utilization critical warning"]
    })
  })

  it("what one of them does not know is neither better nor worse, and is named", () => {
    const ill = ofCpu({ idle_pct: 5 })
    const { data: _, ...timedOut } = result("cpu_utilization", "cpu", healthy.cpu)
    const blind = reportOf(
      { ...categoriesOf(healthy), cpu: [{ ...timedOut, status: "timeout", reason: "took longer than 16s" }] },
      later
    )
    const found = diff(ill, blind)
    assert.deepStrictEqual(found.changes, [])
    assert.deepStrictEqual(found.resolved_anomalies, [])
    assert.strictEqual(found.health_delta, null)
    assert.deepStrictEqual(found.not_compared.map(({ metric, reason }) => `${metric}: ${reason}`), [
      "utilization_pct: the current report does not have it",
      "saturation_pct: the current report does not have it",
      "errors: the current report does not have it",
      "user_pct: the current report does not have it",
      "system_pct: the current report does not have it",
      "iowait_pct: the current report does not have it",
      "steal_pct: the current report does not have it",
      "load_avg_1: the current report does not have it",
      "context_switches_per_sec: the current report does not have it",
      "psi_some_10: the current report does not have it",
      "idle_pct: the current report does not have it",
      "cpu_utilization: the current report: cpu_utilization: timeout, took longer than 16s"
    ])
    assert.deepStrictEqual(diff(blind, ill).new_anomalies, [])
    assert.strictEqual(diff(reportOf({}), base).health_delta, null)
  })

  it.effect("the way back changes as much as the way there, the other way round", () =>
    Effect.gen(function*() {
      const opposite = { regression: "improvement", improvement: "regression", unchanged: "unchanged" } as const
      // Mostly near the value of before, to come close to 5 %.
      const near = (value: number) =>
        Effect.map(
          Effect.all([Random.next, Random.nextBetween(0.9, 1.1), Random.nextBetween(0, 3)]),
          ([chance, a, b]) => chance < 0.1 ? 0 : chance < 0.8 ? value * a : value * b
        )
      const random = Effect.gen(function*() {
        const { cpu, memory, network } = healthy
        return reportOf(categoriesOf({
          ...healthy,
          cpu: {
            ...cpu,
            user_pct: yield* near(10),
            idle_pct: yield* near(84),
            load_avg_1: yield* near(4),
            psi_some_10: yield* near(5)
          },
          memory: {
            ...memory,
            available_bytes: yield* near(memory.total_bytes / 8),
            swap_used_bytes: yield* near(4e8)
          },
          network: {
            ...network,
            recvq_saturated_count: 0,
            udp: { rcvbuf_errors: 0, sndbuf_errors: 0, in_errors: 0, rcvbuf_err_rate: yield* near(1) }
          }
        }))
      })
      let seen = 0
      for (let seed = 0; seed < seeds; seed++) {
        const [one, other] = yield* Effect.all([random, random]).pipe(Random.withSeed(`diff ${seed}`))
        const [there, back] = [diff(one, other), diff(other, one)]
        seen += there.changes.length
        assert.deepStrictEqual(
          back.changes.map(({ category, delta, direction, metric }) => ({ category, metric, delta, direction })),
          there.changes.map(({ category, delta, direction, metric }) => ({
            category,
            metric,
            delta: -delta,
            direction: opposite[direction]
          }))
        )
        assert.strictEqual(back.regressions, there.improvements)
        assert.strictEqual(back.health_delta, -(there.health_delta ?? NaN))
        assert.deepStrictEqual(back.new_anomalies, there.resolved_anomalies)
        assert.deepStrictEqual(diff(one, one).changes, [])
        yield* encodeDiff(there)
      }
      assert.isAbove(seen, seeds)
    }), 30_000)

  it.effect("is a document of its own", () =>
    Effect.gen(function*() {
      const found = diff(base, ofCpu({ idle_pct: 5, user_pct: 89 }))
      const text = yield* encodeDiff(found)
      assert.deepStrictEqual(yield* Schema.decodeEffect(Schema.fromJsonString(Diff))(text), found)
    }))
})
