import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Random, Schema } from "effect"
import { TestClock } from "effect/testing"
import { machine } from "../src/sysreport/advice/Machine.ts"
import { network } from "../src/sysreport/advice/Network.ts"
import { analyze } from "../src/sysreport/Analysis.ts"
import { rules } from "../src/sysreport/Anomalies.ts"
import { containerInfo } from "../src/sysreport/collectors/Container.ts"
import { cpuUtilization } from "../src/sysreport/collectors/Cpu.ts"
import { diskStats } from "../src/sysreport/collectors/Disk.ts"
import { gpuPcie } from "../src/sysreport/collectors/Gpu.ts"
import { memoryInfo } from "../src/sysreport/collectors/Memory.ts"
import { networkStats } from "../src/sysreport/collectors/Network.ts"
import { processInfo } from "../src/sysreport/collectors/Process.ts"
import { systemInfo } from "../src/sysreport/collectors/System.ts"
import type { Data } from "../src/sysreport/Findings.ts"
import * as Health from "../src/sysreport/Health.ts"
import { type Anomaly, Categories, type Resources, Summary } from "../src/sysreport/Report.ts"
import { categoriesOf, type Found, healthy, result } from "./SysreportData.ts"
import * as SysreportWorld from "./SysreportWorld.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

const summaryOf = (found: Found) => analyze(categoriesOf(found)).summary

/** The healthy machine, but for this. */
const but = (change: { readonly [S in keyof Data]?: Partial<Data[S]> }): Found => ({
  cpu: { ...healthy.cpu, ...change.cpu },
  memory: { ...healthy.memory, ...change.memory },
  disk: { ...healthy.disk, ...change.disk },
  network: { ...healthy.network, ...change.network },
  process: { ...healthy.process, ...change.process },
  container: { ...healthy.container, ...change.container },
  system: { ...healthy.system, ...change.system },
  gpu: { ...healthy.gpu, ...change.gpu }
})

const reclaim = (change: Partial<NonNullable<Data["memory"]["reclaim"]>>) =>
  but({ memory: { reclaim: { ...healthy.memory.reclaim, ...change } } })
const tcp = (change: Partial<NonNullable<Data["network"]["tcp"]>>) =>
  but({ network: { tcp: { ...required(healthy.network.tcp), ...change } } })
const tcpExt = (change: Partial<NonNullable<Data["network"]["tcp_ext"]>>) =>
  but({ network: { tcp_ext: { ...healthy.network.tcp_ext, ...change } } })
const softnet = (change: Partial<NonNullable<Data["network"]["softnet"]>>) =>
  but({ network: { softnet: { ...required(healthy.network.softnet), ...change } } })
const device = (change: Partial<Data["disk"]["devices"][number]>) =>
  but({ disk: { devices: healthy.disk.devices.map((each, at) => at === 1 ? { ...each, ...change } : each) } })
const nic = (change: Partial<Data["network"]["interfaces"][number]>) =>
  but({
    network: { interfaces: healthy.network.interfaces.map((each, at) => at === 1 ? { ...each, ...change } : each) }
  })

const required = <A>(value: A | undefined): A => {
  if (value === undefined) throw new Error("the healthy machine knows everything")
  return value
}

interface Row {
  readonly metric: string
  readonly category: string
  readonly warning: number
  readonly critical: number
  /** A machine on which the value of the rule is this, and nothing else is out of the ordinary. */
  readonly at: (value: number) => Found
  /** In the message, of those that could have the value. */
  readonly subject?: string
  /** How far below a threshold there is another value. Default: very little. */
  readonly step?: number
}

const table: ReadonlyArray<Row> = [
  {
    metric: "cpu_utilization",
    category: "cpu",
    warning: 80,
    critical: 95,
    at: (value) => but({ cpu: { idle_pct: 100 - value } })
  },
  {
    metric: "cpu_iowait",
    category: "cpu",
    warning: 10,
    critical: 30,
    at: (iowait_pct) => but({ cpu: { iowait_pct } })
  },
  {
    metric: "load_average",
    category: "cpu",
    warning: 2,
    critical: 4,
    at: (value) => but({ cpu: { load_avg_1: value * 4 } })
  },
  {
    metric: "cpu_psi_pressure",
    category: "cpu",
    warning: 5,
    critical: 25,
    at: (psi_some_10) => but({ cpu: { psi_some_10 } })
  },
  {
    metric: "memory_utilization",
    category: "memory",
    warning: 85,
    critical: 95,
    at: (value) => but({ memory: { total_bytes: 100_000, available_bytes: 100_000 - value * 1000 } })
  },
  {
    metric: "swap_usage",
    category: "memory",
    warning: 10,
    critical: 50,
    at: (value) => but({ memory: { swap_total_bytes: 100_000, swap_used_bytes: value * 1000 } })
  },
  {
    metric: "memory_psi_pressure",
    category: "memory",
    warning: 5,
    critical: 25,
    at: (psi_some_10) => but({ memory: { psi_some_10 } })
  },
  {
    metric: "direct_reclaim_rate",
    category: "memory",
    warning: 10,
    critical: 1000,
    at: (direct_reclaim_rate) => reclaim({ direct_reclaim_rate })
  },
  {
    metric: "compaction_stall_rate",
    category: "memory",
    warning: 1,
    critical: 100,
    at: (compact_stall_rate) => reclaim({ compact_stall_rate })
  },
  {
    metric: "thp_split_rate",
    category: "memory",
    warning: 1,
    critical: 100,
    at: (thp_split_rate) => reclaim({ thp_split_rate })
  },
  {
    metric: "numa_miss_ratio",
    category: "memory",
    warning: 5,
    critical: 20,
    subject: "node 1",
    at: (miss_ratio) =>
      but({
        memory: {
          numa_nodes: healthy.memory.numa_nodes.map((each) => each.node === 1 ? { ...each, miss_ratio } : each)
        }
      })
  },
  {
    metric: "disk_utilization",
    category: "disk",
    warning: 70,
    critical: 90,
    subject: "nvme0n1",
    at: (utilization_pct) => device({ utilization_pct })
  },
  {
    metric: "io_psi_pressure",
    category: "disk",
    warning: 10,
    critical: 50,
    at: (psi_some_10) => but({ disk: { psi_some_10 } })
  },
  {
    metric: "disk_avg_latency",
    category: "disk",
    warning: 5,
    critical: 50,
    subject: "nvme0n1",
    at: (avg_latency_ms) => device({ avg_latency_ms })
  },
  {
    metric: "tcp_retransmits",
    category: "network",
    warning: 10,
    critical: 50,
    at: (retrans_rate_per_sec) => tcp({ retrans_rate_per_sec })
  },
  {
    metric: "tcp_timewait",
    category: "network",
    warning: 5000,
    critical: 20_000,
    step: 1,
    at: (time_wait_count) => tcp({ time_wait_count })
  },
  {
    metric: "tcp_close_wait",
    category: "network",
    warning: 10,
    critical: 100,
    step: 1,
    at: (close_wait_count) => tcp({ close_wait_count })
  },
  {
    metric: "network_errors_per_sec",
    category: "network",
    warning: 10,
    critical: 100,
    subject: "eth0",
    at: (errors_per_sec) => nic({ errors_per_sec })
  },
  {
    metric: "conntrack_usage_pct",
    category: "network",
    warning: 70,
    critical: 90,
    at: (usage_pct) => but({ network: { conntrack: { ...required(healthy.network.conntrack), usage_pct } } })
  },
  {
    metric: "softnet_dropped",
    category: "network",
    warning: 1,
    critical: 100,
    at: (drop_rate) => softnet({ drop_rate })
  },
  {
    metric: "softnet_time_squeeze",
    category: "network",
    warning: 1,
    critical: 100,
    at: (squeeze_rate) => softnet({ squeeze_rate })
  },
  {
    metric: "listen_overflows",
    category: "network",
    warning: 1,
    critical: 100,
    at: (listen_overflows_rate) => tcpExt({ listen_overflows_rate })
  },
  {
    metric: "listen_queue_saturation",
    category: "network",
    warning: 70,
    critical: 90,
    subject: "*:80",
    at: (fill_pct) =>
      but({
        network: {
          listen_sockets: [
            { local_addr: "*:22", recv_q: 64, send_q: 128, fill_pct: 50 },
            { local_addr: "*:80", recv_q: 100, send_q: 128, fill_pct }
          ]
        }
      })
  },
  {
    metric: "nic_rx_discards",
    category: "network",
    warning: 100,
    critical: 10_000,
    subject: "eth0",
    at: (rx_discards_per_sec) => nic({ rx_discards_per_sec })
  },
  {
    metric: "tcp_abort_on_memory",
    category: "network",
    warning: 0.1,
    critical: 1,
    at: (tcp_abort_on_memory_rate) => tcpExt({ tcp_abort_on_memory_rate })
  },
  {
    metric: "udp_rcvbuf_errors",
    category: "network",
    warning: 1,
    critical: 100,
    at: (rcvbuf_err_rate) => but({ network: { udp: { ...required(healthy.network.udp), rcvbuf_err_rate } } })
  },
  {
    metric: "tcp_rcvq_drop",
    category: "network",
    warning: 1,
    critical: 100,
    at: (tcp_rcvq_drop_rate) => tcpExt({ tcp_rcvq_drop_rate })
  },
  {
    metric: "tcp_zero_window_drop",
    category: "network",
    warning: 1,
    critical: 50,
    at: (tcp_zero_window_drop_rate) => tcpExt({ tcp_zero_window_drop_rate })
  },
  {
    metric: "irq_imbalance",
    category: "network",
    warning: 5,
    critical: 20,
    subject: "CPU 3",
    // 40 is the mean of all 41.
    at: (value) =>
      softnet({
        irq_distribution: Array.from({ length: 41 }, (_, cpu) => ({
          cpu,
          net_rx_delta: cpu === 3 ? value * 40 : 41 - value
        }))
      })
  },
  {
    metric: "cpu_throttling",
    category: "container",
    warning: 100,
    critical: 1000,
    at: (value) => but({ container: { cpu_throttled_us_per_sec: value * 1000 } })
  },
  {
    metric: "container_memory_usage",
    category: "container",
    warning: 80,
    critical: 95,
    at: (value) => but({ container: { memory_limit_bytes: 100_000, memory_working_set_bytes: value * 1000 } })
  },
  {
    metric: "gpu_nic_cross_numa",
    category: "system",
    warning: 1,
    critical: 1,
    step: 1,
    at: (value) =>
      but({
        gpu: {
          cross_numa_pairs: Array.from({ length: value }, () => ({ gpu: "GPU", gpu_node: 0, nic: "eth0", nic_node: 1 }))
        }
      })
  }
]

describe("anomalies of sysreport", () => {
  it("the table of this test has every rule, in its order", () => {
    assert.strictEqual(rules.length, 32)
    assert.deepStrictEqual(
      rules.map(({ category, critical, metric, warning }) => ({ metric, category, warning, critical })),
      table.map(({ category, critical, metric, warning }) => ({ metric, category, warning, critical }))
    )
  })

  for (const row of table) {
    const { category, critical, metric, step = 1e-6, subject, warning } = row
    const own = (value: number): ReadonlyArray<Anomaly> =>
      summaryOf(row.at(value)).anomalies.filter((anomaly) => anomaly.metric === metric)

    it(`${metric} is told from ${warning} on, and is critical from ${critical} on`, () => {
      assert.deepStrictEqual(own(warning - step), [])
      if (warning < critical) {
        assert.deepStrictEqual(own(warning).map(({ severity }) => severity), ["warning"])
        assert.deepStrictEqual(own(critical - step).map(({ severity }) => severity), ["warning"])
      }
      const [anomaly, ...others] = own(critical)
      assert.deepStrictEqual(others, [])
      assert.strictEqual(anomaly?.severity, "critical")
      assert.strictEqual(anomaly?.category, category)
      assert.strictEqual(anomaly?.threshold, `warning=${warning}, critical=${critical}`)
      assert.strictEqual(anomaly?.value, critical.toFixed(2))
      assert.strictEqual(anomaly?.subject, subject)
      if (subject !== undefined) assert.include(anomaly?.message, `(${subject})`)
    })
  }

  it("a healthy machine has none, though its counters have a past and its settings are those of the kernel", () => {
    const summary = summaryOf(healthy)
    assert.deepStrictEqual(summary.anomalies, [])
    assert.deepStrictEqual(summary.not_evaluated, [])
    assert.deepStrictEqual(summary.recommendations, [])
    assert.deepStrictEqual(summary.hotspots, [])
    assert.strictEqual(summary.health_score, 100)
  })

  it("critical ones come first", () => {
    const { anomalies } = summaryOf(but({ cpu: { iowait_pct: 10 }, disk: { psi_some_10: 50 } }))
    assert.deepStrictEqual(anomalies.map(({ metric }) => metric), ["io_psi_pressure", "cpu_iowait"])
  })

  it("a threshold is printed as it is", () => {
    const [anomaly] = summaryOf(tcpExt({ tcp_abort_on_memory_rate: 0.5 })).anomalies
    assert.strictEqual(anomaly?.threshold, "warning=0.1, critical=1")
    assert.strictEqual(anomaly?.value, "0.50")
    assert.strictEqual(anomaly?.message, "Connections that the kernel ends for want of memory: 0.50/s")
  })

  it("interrupts of few packets are not judged, and a CPU without any is no fault", () => {
    const distribution = (...deltas: ReadonlyArray<number>) =>
      softnet({ irq_distribution: deltas.map((net_rx_delta, cpu) => ({ cpu, net_rx_delta })) })
    const few = summaryOf(distribution(99, 0, 0, 0, 0, 0, 0, 0))
    assert.deepStrictEqual(few.anomalies, [])
    assert.deepStrictEqual(few.not_evaluated, [{
      metric: "irq_imbalance",
      category: "network",
      reason: "no CPU received 100 times in the sample"
    }])
    assert.deepStrictEqual(summaryOf(distribution(5000, 5000, 5000, 0)).anomalies, [])
  })

  it("what the machine does not have is not judged", () => {
    const { not_evaluated, resources } = summaryOf({
      ...but({
        memory: { swap_total_bytes: 0, numa_nodes: healthy.memory.numa_nodes.slice(0, 1) },
        disk: { devices: [] },
        gpu: { gpus: [] }
      }),
      container: { sample_seconds: 1, runtime: "none" }
    })
    assert.deepStrictEqual(
      not_evaluated.map(({ metric, reason }) => `${metric}: ${reason}`),
      [
        "swap_usage: there is no swap",
        "numa_miss_ratio: there is one NUMA node",
        "disk_utilization: there is no disk",
        "disk_avg_latency: there is no disk",
        "cpu_throttling: the container has no limit of processor time",
        "container_memory_usage: the container has no limit of memory",
        "gpu_nic_cross_numa: there is no graphics processor"
      ]
    )
    assert.deepStrictEqual(Object.keys(resources), ["cpu", "memory", "disk", "network"])
  })

  it("a field that is not known is named", () => {
    const { idle_pct: _, psi_some_10: __, ...cpu } = healthy.cpu
    assert.deepStrictEqual(
      summaryOf({ ...healthy, cpu }).not_evaluated.map(({ metric, reason }) => `${metric}: ${reason}`),
      ["cpu_utilization: idle_pct is not known", "cpu_psi_pressure: psi_some_10 is not known"]
    )
  })

  it("a collector without data leaves its rules without a judgement, for its reason", () => {
    const { cpu: _, disk: __, ...categories } = categoriesOf(healthy)
    const { data: ___, ...timedOut } = result("cpu_utilization", "cpu", healthy.cpu)
    const { notEvaluated, summary } = analyze({
      ...categories,
      cpu: [{ ...timedOut, status: "timeout", reason: "took longer than 16s" }]
    })
    assert.strictEqual(summary.not_evaluated, notEvaluated)
    assert.deepStrictEqual(summary.rules, { evaluated: 25, total: 32 })
    assert.deepStrictEqual(
      notEvaluated.map(({ category, reason }) => `${category}: ${reason}`),
      [
        ...Array.from({ length: 4 }, () => "cpu: cpu_utilization: timeout, took longer than 16s"),
        ...Array.from({ length: 3 }, () => "disk: disk_stats was not selected")
      ]
    )
    assert.deepStrictEqual(Object.keys(summary.resources), ["memory", "network", "container_cpu", "container_memory"])
  })

  it("without any data there is no score", () => {
    const { summary } = analyze({})
    assert.strictEqual(summary.health_score, null)
    assert.deepStrictEqual(summary.rules, { evaluated: 0, total: 32 })
    assert.deepStrictEqual(summary.anomalies, [])
    assert.deepStrictEqual(summary.recommendations, [])
  })
})

describe("use of resources", () => {
  it("is of the sample, in percent where there is a whole", () => {
    assert.deepStrictEqual(
      summaryOf(but({
        cpu: { idle_pct: 25, load_avg_1: 6 },
        memory: { total_bytes: 1000, available_bytes: 300, swap_total_bytes: 200, swap_used_bytes: 50 },
        disk: {
          devices: healthy.disk.devices.map((each, at) => ({ ...each, utilization_pct: 40 + at, io_in_progress: 16 }))
        },
        container: { cpu_throttled_periods_per_sec: 5, cpu_quota_used_pct: 99 }
      })).resources,
      {
        cpu: { utilization_pct: 75, saturation_pct: 50, errors: 0 },
        memory: { utilization_pct: 70, saturation_pct: 25, errors: 0 },
        disk: { utilization_pct: 41, saturation_pct: 25, saturation_count: 16, errors: 0 },
        network: { utilization_pct: 0.08, saturation_pct: 0, saturation_count: 61, errors: 0 },
        container_cpu: { utilization_pct: 99, saturation_pct: 50, saturation_count: 5, errors: 0 },
        container_memory: { utilization_pct: 25, errors: 0 }
      }
    )
  })

  it("what is not known is left out, and is not 0", () => {
    const { idle_pct: _, load_avg_1: __, ...cpu } = healthy.cpu
    const { listen_sockets: ___, tcp: ____, ...net } = healthy.network
    const interfaces = net.interfaces.map(({ speed: _, ...each }) => each)
    const { resources } = summaryOf({ cpu, network: { ...net, interfaces } })
    assert.deepStrictEqual(resources, { cpu: { errors: 0 }, network: { errors: 0 } })
  })

  it("errors are those of the sample: what was killed for want of memory, and what was lost on the way", () => {
    const { memory, network } = summaryOf({
      ...healthy,
      memory: { ...healthy.memory, sample_seconds: 10, reclaim: { oom_kill: 40, oom_kill_rate: 0.3 } },
      network: required(tcp({ retrans_rate_per_sec: 2.7 }).network)
    }).resources
    assert.strictEqual(memory?.errors, 3)
    assert.strictEqual(network?.errors, 2)
  })
})

describe("health", () => {
  it("takes the dearest of the views of one trouble, and not their sum", () => {
    // Utilization of 96 %, weighed: 22. That it is critical too: 10, for the same.
    assert.strictEqual(summaryOf(but({ cpu: { idle_pct: 4 } })).health_score, 100 - 22)
    // Waiting for a CPU is another trouble.
    assert.strictEqual(summaryOf(but({ cpu: { idle_pct: 4, psi_some_10: 30 } })).health_score, 100 - 22 - 10)
    // Two rules about one saturation.
    assert.strictEqual(summaryOf(but({ cpu: { psi_some_10: 30, load_avg_1: 16 } })).health_score, 100 - 22)
  })

  it("does not take a count for a percentage", () => {
    assert.strictEqual(summaryOf(tcp({ time_wait_count: 4999, close_wait_count: 9 })).health_score, 100)
  })

  const aspect = Random.nextBetween(0, 120)
  const resource = Effect.gen(function*() {
    return {
      utilization_pct: yield* aspect,
      saturation_pct: yield* aspect,
      errors: Math.floor((yield* Random.next) ** 4 * 2000)
    }
  })
  const anomaly = (metric: string, severity: Anomaly["severity"]): Anomaly => ({
    metric,
    severity,
    category: "",
    message: "",
    value: "",
    threshold: "",
    unit: "",
    window: ""
  })
  const severities = ["none", "warning", "critical"] as const

  it.effect("is from 0 to 100, and never rises when anything gets worse", () =>
    Effect.gen(function*() {
      for (let seed = 0; seed < seeds; seed++) {
        yield* Effect.gen(function*() {
          const names = ["cpu", "memory", "disk", "network", "container_cpu", "container_memory"] as const
          const resources: { -readonly [K in keyof Resources]: Resources[K] } = {}
          for (const name of names) if ((yield* Random.next) < 0.7) resources[name] = yield* resource
          const judged = new Map<string, number>()
          for (const { metric } of rules) judged.set(metric, Math.floor((yield* Random.next) ** 4 * 3))
          const anomalies = () =>
            Array.from(judged).flatMap(([metric, level]) => {
              const severity = severities[level]
              return severity === undefined || severity === "none" ? [] : [anomaly(metric, severity)]
            })
          const before = Health.score(resources, anomalies())
          assert.isTrue(Number.isInteger(before) && before >= 0 && before <= 100, String(before))

          for (const { metric } of rules) {
            const level = judged.get(metric) ?? 0
            judged.set(metric, Math.min(2, level + 1))
            assert.isAtMost(Health.score(resources, anomalies()), before, metric)
            judged.set(metric, level)
          }
          for (const name of names) {
            const of = resources[name]
            if (of === undefined) continue
            for (const aspect of ["utilization_pct", "saturation_pct", "errors"] as const) {
              const worse = {
                ...resources,
                [name]: { ...of, [aspect]: (of[aspect] ?? 0) + Math.floor((yield* Random.next) * 50) }
              }
              assert.isAtMost(Health.score(worse, anomalies()), before, `${name} ${aspect}`)
            }
          }
        }).pipe(Random.withSeed(`health ${seed}`))
      }
    }), 30_000)
})

/** A machine on which everything is wrong at once. */
const wrecked: Found = but({
  cpu: { idle_pct: 1, load_avg_1: 40, psi_some_10: 90 },
  memory: {
    available_bytes: 1,
    swap_used_bytes: healthy.memory.swap_total_bytes,
    dirty_bytes: healthy.memory.total_bytes / 10,
    psi_some_10: 60,
    numa_nodes: healthy.memory.numa_nodes.map((each) => ({ ...each, miss_ratio: 50 })),
    reclaim: {
      ...healthy.memory.reclaim,
      direct_reclaim_rate: 5000,
      compact_stall_rate: 500,
      thp_split_rate: 500,
      oom_kill_rate: 1
    }
  },
  disk: {
    psi_some_10: 90,
    devices: healthy.disk.devices.map((each) => ({ ...each, utilization_pct: 100, avg_latency_ms: 90 }))
  },
  network: {
    interfaces: healthy.network.interfaces.map((each) => ({
      ...each,
      errors_per_sec: 900,
      rx_discards_per_sec: 90_000,
      rx_bytes_per_sec: 90_000_000
    })),
    tcp: {
      ...required(healthy.network.tcp),
      curr_estab: 30_000,
      time_wait_count: 30_000,
      close_wait_count: 900,
      retrans_rate_per_sec: 90
    },
    conntrack: { ...required(healthy.network.conntrack), usage_pct: 99 },
    tcp_ext: {
      ...healthy.network.tcp_ext,
      listen_overflows_rate: 900,
      tcp_abort_on_memory_rate: 9,
      prune_called_rate: 9,
      tcp_rcvq_drop_rate: 900,
      tcp_zero_window_drop_rate: 900
    },
    udp: { ...required(healthy.network.udp), rcvbuf_err_rate: 900 },
    softnet: {
      ...required(healthy.network.softnet),
      drop_rate: 900,
      squeeze_rate: 900,
      irq_distribution: Array.from({ length: 32 }, (_, cpu) => ({ cpu, net_rx_delta: cpu === 0 ? 9000 : 0 }))
    },
    listen_sockets: [{ local_addr: "[::]:80", recv_q: 128, send_q: 128, fill_pct: 100 }],
    recvq_saturated_count: 8
  },
  container: {
    cpu_throttled_us_per_sec: 5_000_000,
    cpu_throttled_periods_per_sec: 10,
    memory_working_set_bytes: 8 * 1024 ** 3
  },
  gpu: { cross_numa_pairs: [{ gpu: "GPU", gpu_node: 0, nic: "eth0", nic_node: 1 }] }
})

describe("recommendations", () => {
  it("are ranked by what they mend, then what mends before what tunes, then by impact", () => {
    const { recommendations } = summaryOf({
      ...wrecked,
      cpu: healthy.cpu,
      disk: healthy.disk,
      memory: { ...healthy.memory, swap_used_bytes: healthy.memory.swap_total_bytes / 5 },
      network: required(tcp({ retrans_rate_per_sec: 60, time_wait_count: 2000 }).network)
    })
    assert.deepStrictEqual(
      recommendations.map(({ expected_impact, priority, title, type }) => [
        priority,
        title,
        type,
        expected_impact.split(":")[0]
      ]),
      [
        [1, "Investigate TCP retransmissions", "fix", "high"],
        [2, "Use BBR congestion control: packets are lost", "optimization", "medium"],
        [3, "Lower swappiness: the memory of programs is swapped out", "fix", "medium"],
        [4, "Use ports in TIME_WAIT for new connections", "fix", "medium"],
        [5, "Send data with the first packet of a connection", "optimization", "low"]
      ]
    )
  })

  it("say what speaks for them, what to do, and how that is kept", () => {
    const [first] = summaryOf(but({ memory: { swap_used_bytes: 1024 } })).recommendations
    assert.deepStrictEqual(first, {
      priority: 1,
      category: "memory",
      type: "fix",
      title: "Lower swappiness: the memory of programs is swapped out",
      commands: ["sysctl -w vm.swappiness=10"],
      persistent: ["echo 'vm.swappiness=10' >> /etc/sysctl.d/99-sysreport.conf"],
      expected_impact: "medium: fewer waits for what was swapped out",
      evidence: "swappiness=60, swap_used_bytes=1024",
      source: "Brendan Gregg, Systems Performance, chapter 7"
    })
  })

  it("name the device, and what is in its name is not run", () => {
    const titles = (found: Found) => summaryOf(found).recommendations.map(({ title }) => title)
    assert.deepStrictEqual(titles(device({ utilization_pct: 30 })), ["Use the scheduler mq-deadline for nvme0n1"])
    const ring = { rx_discards_per_sec: 5, name: "e'0; reboot" }
    assert.deepStrictEqual(
      summaryOf(nic(ring)).recommendations.map(({ commands }) => commands),
      [["ethtool -G 'e'\\''0; reboot' rx 4096"]]
    )
  })

  it("a setting is not lowered by one that asks for more of it", () => {
    const settings = { min_free_kbytes: 500_000, watermark_scale_factor: 300 }
    const { recommendations } = summaryOf({
      ...healthy,
      memory: { ...healthy.memory, ...settings, reclaim: { ...healthy.memory.reclaim, direct_reclaim_rate: 1 } }
    })
    assert.deepStrictEqual(recommendations.flatMap(({ commands }) => commands), [])
  })

  it("a setting that is as advised is not advised again, whatever is wrong", () => {
    const { sysctls, ...network } = required(wrecked.network)
    const memory = required(wrecked.memory)
    const { recommendations } = summaryOf({
      ...wrecked,
      cpu: { ...required(wrecked.cpu), sched_latency_ns: 6_000_000 },
      memory: {
        ...memory,
        swappiness: 10,
        dirty_ratio: 10,
        overcommit_memory: 2,
        thp_enabled: "madvise",
        min_free_kbytes: 131_072,
        watermark_scale_factor: 200
      },
      disk: {
        ...required(wrecked.disk),
        devices: required(wrecked.disk).devices.map((each) => ({
          ...each,
          scheduler: each.rotational === true ? "bfq" : "none"
        }))
      },
      network: {
        ...network,
        interfaces: network.interfaces.map((each) => ({ ...each, ring_rx_current: 4096 })),
        sysctls: {
          ...sysctls,
          somaxconn: 65_535,
          netdev_max_backlog: 10_000,
          netdev_budget: 600,
          rmem_max: 25 * 1024 ** 2,
          wmem_max: 16 * 1024 ** 2,
          tcp_congestion_control: "bbr",
          tcp_rmem: "4096 131072 16777216",
          tcp_wmem: "4096 65536 16777216",
          ip_local_port_range: "1024 65535",
          tcp_tw_reuse: 1,
          tcp_max_syn_backlog: 65_535,
          tcp_fastopen: 3,
          tcp_slow_start_after_idle: 0,
          gc_thresh3: 8192
        }
      }
    })
    assert.deepStrictEqual(recommendations.map(({ title }) => title), [
      "CPU saturation detected — investigate high-CPU processes",
      "Investigate TCP retransmissions",
      // Tables that are as full as before are still too small.
      "Connection tracking table approaching capacity: double it",
      "Listeners overflow: allow longer queues, and accept faster",
      "The queue of the listener at [::]:80 is almost full",
      "Give TCP more memory: what it received is pruned",
      "Compaction stalls: memory is fragmented",
      "A process does not read what its connections received",
      "Bind processes to the NUMA node that their memory is on",
      "Bind processes to the NUMA node that their memory is on"
    ])
  })

  it("every rule has a machine that it is for, and none repeats or contradicts another one", () => {
    const all = [
      wrecked,
      // What there is a fix for on the wrecked machine is only tuned on this one.
      but({
        memory: { available_bytes: 1024 ** 3, psi_some_10: 9 },
        network: {
          interfaces: healthy.network.interfaces.map((each) => ({ ...each, rx_bytes_per_sec: 90_000_000 })),
          listen_sockets: [{ local_addr: "*:80", recv_q: 64, send_q: 128, fill_pct: 50 }]
        }
      }),
      device({ utilization_pct: 30 }),
      but({ disk: { devices: healthy.disk.devices.map((each) => ({ ...each, utilization_pct: 30 })) } })
    ]
    const advices = [...machine, ...network]
    assert.strictEqual(advices.length, 35)
    assert.deepStrictEqual(advices.filter(({ when }) => all.every((found) => when(found).length === 0)), [])
    const metrics = new Set(rules.map(({ metric }) => metric))
    assert.deepStrictEqual(advices.flatMap(({ against }) => against).filter((metric) => !metrics.has(metric)), [])
    for (const found of all) {
      const chosen = new Map<string, string>()
      const { recommendations } = summaryOf(found)
      const done = recommendations.map(({ commands }) => commands.join("\n"))
      assert.strictEqual(new Set(done).size, done.length)
      for (const command of recommendations.flatMap(({ commands }) => commands)) {
        const [, name = "", value = ""] = /^sysctl -w ([\w.]+)=(.*)$/.exec(command) ?? []
        if (name === "") continue
        assert.strictEqual(chosen.get(name) ?? value, value, name)
        chosen.set(name, value)
      }
    }
  })
})

describe("analysis of what the collectors find", () => {
  const summaryIn = (world: string) =>
    Effect.gen(function*() {
      const running = yield* Effect.forkChild(Effect.all({
        cpu: cpuUtilization.collect,
        memory: memoryInfo.collect,
        disk: diskStats.collect,
        network: networkStats.collect,
        process: processInfo.collect,
        container: containerInfo.collect,
        system: systemInfo.collect,
        gpu: gpuPcie.collect
      }, { concurrency: "unbounded" }))
      yield* TestClock.adjust("1 second")
      const { container, cpu, disk, gpu, memory, network, process, system } = yield* Fiber.join(running)
      return summaryOf({
        cpu: cpu.data,
        memory: memory.data,
        disk: disk.data,
        network: network.data,
        process: process.data,
        container: container.data,
        system: system.data,
        gpu: gpu.data
      })
    }).pipe(Effect.provide(SysreportWorld.layer(world)))

  it.effect("is content with a machine that does nothing", () =>
    Effect.gen(function*() {
      const summary = yield* summaryIn("idle")
      assert.deepStrictEqual(summary.anomalies, [])
      assert.deepStrictEqual(summary.recommendations, [])
      assert.strictEqual(summary.health_score, 100)
    }))

  it.effect("sees what is wrong with one that is busy", () =>
    Effect.gen(function*() {
      const summary = yield* summaryIn("busy")
      const quiet = ["tcp_close_wait", "irq_imbalance"]
      assert.deepStrictEqual(summary.not_evaluated, [])
      assert.deepStrictEqual(
        new Set(summary.anomalies.map(({ metric }) => metric)),
        new Set(rules.flatMap(({ metric }) => quiet.includes(metric) ? [] : [metric]))
      )
      assert.strictEqual(summary.anomalies.find(({ metric }) => metric === "cpu_throttling")?.value, "1400.00")
      assert.strictEqual(summary.health_score, 0)
      assert.deepStrictEqual(summary.recommendations.slice(0, 2).map(({ evidence }) => evidence), [
        "load_avg_1=18.5, num_cpus=4, psi_some_10=41.25",
        "direct_reclaim_rate=3000, watermark_scale_factor=10, min_free_kbytes=45056"
      ])
    }))
})

describe("hotspots", () => {
  it("are the processes, disks and file systems to look at first", () => {
    const busy = { pid: 7, comm: "ffmpeg", cpu_pct: 380, mem_rss_bytes: 9000, mem_pct: 30, threads: 9, state: "R" }
    const { hotspots } = summaryOf({
      ...device({ utilization_pct: 95 }),
      process: { ...healthy.process, top_by_cpu: [busy], top_by_mem: [busy] },
      system: {
        ...healthy.system,
        filesystems: [{ mount: "/var", device: "/dev/sdb1", type: "ext4", size_gb: 9, used_pct: 97 }]
      }
    })
    assert.deepStrictEqual(hotspots.map(({ category, description }) => `${category}: ${description}`), [
      "cpu: ffmpeg uses 380% of a CPU",
      "memory: ffmpeg has 30% of the memory",
      "disk: nvme0n1 works 95% of the time",
      "system: /var is 97% full"
    ])
  })
})

describe("analysis of any data", () => {
  it.effect(
    "gives a summary that can be written, and judges each rule or says why not",
    () =>
      Effect.gen(function*() {
        const encode = Schema.encodeEffect(Summary)
        for (let seed = 0; seed < seeds; seed++) {
          const categories = yield* randomly(categoriesOf(wrecked)).pipe(Random.withSeed(`analysis ${seed}`))
          if (!Schema.is(Categories)(categories)) throw new Error(`these are no categories: seed ${seed}`)
          const { summary } = analyze(categories)
          yield* encode(summary)
          const judged = rules.length - summary.not_evaluated.length
          assert.deepStrictEqual(summary.rules, { evaluated: judged, total: 32 })
          assert.isAtMost(summary.anomalies.length, judged)
          assert.deepStrictEqual(
            summary.recommendations.map(({ priority }) => priority),
            summary.recommendations.map((_, index) => index + 1)
          )
        }
      }),
    30_000
  )
})

/** The same shape with other numbers, some of them 0, and some collectors and fields left out. */
const randomly = (value: unknown): Effect.Effect<unknown> =>
  Effect.gen(function*() {
    if (typeof value === "number") {
      const chance = yield* Random.next
      return chance < 0.2 ? 0 : chance < 0.6 ? value : Math.floor(value * (yield* Random.next) * 2)
    }
    if (Array.isArray(value)) return yield* Effect.forEach(value, randomly)
    if (typeof value !== "object" || value === null || Object.getPrototypeOf(value) !== Object.prototype) return value
    const kept: Record<string, unknown> = {}
    for (const [name, of] of Object.entries(value)) {
      if (optional.has(name) && (yield* Random.next) < 0.1) continue
      kept[name] = name === "cgroup_version" ? of : yield* randomly(of)
    }
    return kept
  })

/** Names that may be left out wherever they stand. */
const optional = new Set([
  "data",
  "load_avg_1",
  "psi_some_10",
  "reclaim",
  "tcp",
  "tcp_ext",
  "softnet",
  "conntrack",
  "udp",
  "listen_sockets",
  "speed",
  "avg_latency_ms",
  "queue_depth",
  "cpu_quota",
  "memory_limit_bytes",
  "memory_working_set_bytes",
  "cross_numa_pairs"
])
