/**
 * The rules that need no more than the files of the kernel, as data: what is measured, in which unit and of what time,
 * and from where on it is told. Rates are those of the sample; what the kernel counted since boot judges nothing.
 */
import { type Data, type Findings, percentOf, type Source, worst } from "./Findings.ts"
import type { Anomaly, NotEvaluated, Resources, Severity } from "./Report.ts"

/** What use of a resource a rule judges too, so that health does not count the same thing twice. */
export type Aspect = `${keyof Resources}/${"utilization" | "saturation" | "errors"}`

/** A value, and which of several things has it, or why there is nothing to judge; `undefined` is not known. */
type Reading =
  | number
  | { readonly value: number; readonly subject: string }
  | { readonly why: string }
  | undefined

interface Criteria {
  readonly metric: string
  readonly category: string
  readonly unit: string
  readonly window: "now" | "sample" | "10 seconds" | "1 minute"
  /** At this value and above. */
  readonly warning: number
  readonly critical: number
  readonly judges?: Aspect
  readonly message: (value: number) => string
}

export interface Rule extends Criteria {
  readonly evaluate: (findings: Findings) => Exclude<Reading, number | undefined> | { readonly value: number }
}

/** Makes the rules that read the data of a collector. */
const from = <S extends Source>(source: S, category: string = source) =>
(
  criteria: Omit<Criteria, "category"> & {
    /** The fields that it cannot do without. */
    readonly needs: string
    readonly read: (data: Data[S]) => Reading
  }
): Rule => ({
  category,
  ...criteria,
  evaluate: ({ absent, data }) => {
    const found: Data[S] | undefined = data[source]
    if (found === undefined) return { why: absent(source) }
    const reading = criteria.read(found)
    if (reading === undefined) return { why: `${criteria.needs} is not known` }
    return typeof reading === "number" ? { value: reading } : reading
  }
})

const cpu = from("cpu")
const memory = from("memory")
const disk = from("disk")
const network = from("network")
const container = from("container")
const gpu = from("gpu", "system")

const percent = { unit: "%" }
const perSecond = { unit: "per second", window: "sample" } as const
const pressure = { unit: "%", window: "10 seconds" } as const

const fixed = (digits: number, before: string, after = "") => (value: number) =>
  `${before}${value.toFixed(digits)}${after}`

export const rules: ReadonlyArray<Rule> = [
  cpu({
    metric: "cpu_utilization",
    ...percent,
    window: "sample",
    warning: 80,
    critical: 95,
    judges: "cpu/utilization",
    needs: "idle_pct",
    read: ({ idle_pct }) => idle_pct === undefined ? undefined : 100 - idle_pct,
    message: fixed(1, "CPU utilization at ", "%")
  }),
  cpu({
    metric: "cpu_iowait",
    ...percent,
    window: "sample",
    warning: 10,
    critical: 30,
    needs: "iowait_pct",
    read: ({ iowait_pct }) => iowait_pct,
    message: fixed(1, "CPUs idle while they wait for I/O: ", "%")
  }),
  cpu({
    metric: "load_average",
    unit: "per CPU",
    window: "1 minute",
    warning: 2,
    critical: 4,
    judges: "cpu/saturation",
    needs: "load_avg_1",
    read: ({ load_avg_1, num_cpus }) => load_avg_1 === undefined || num_cpus === 0 ? undefined : load_avg_1 / num_cpus,
    message: fixed(2, "Load average per CPU: ", " (saturation threshold: 1.0)")
  }),
  cpu({
    metric: "cpu_psi_pressure",
    ...pressure,
    warning: 5,
    critical: 25,
    judges: "cpu/saturation",
    needs: "psi_some_10",
    read: ({ psi_some_10 }) => psi_some_10,
    message: fixed(1, "Tasks wait for a CPU ", "% of the time")
  }),
  memory({
    metric: "memory_utilization",
    ...percent,
    window: "now",
    warning: 85,
    critical: 95,
    judges: "memory/utilization",
    needs: "total_bytes",
    read: ({ available_bytes, total_bytes }) => percentOf(total_bytes - available_bytes, total_bytes),
    message: fixed(1, "Memory utilization at ", "%")
  }),
  memory({
    metric: "swap_usage",
    ...percent,
    window: "now",
    warning: 10,
    critical: 50,
    judges: "memory/saturation",
    needs: "swap_total_bytes",
    read: ({ swap_total_bytes, swap_used_bytes }) =>
      percentOf(swap_used_bytes, swap_total_bytes) ?? { why: "there is no swap" },
    message: fixed(1, "Swap usage at ", "%")
  }),
  memory({
    metric: "memory_psi_pressure",
    ...pressure,
    warning: 5,
    critical: 25,
    judges: "memory/saturation",
    needs: "psi_some_10",
    read: ({ psi_some_10 }) => psi_some_10,
    message: fixed(1, "Tasks wait for memory ", "% of the time")
  }),
  memory({
    metric: "direct_reclaim_rate",
    ...perSecond,
    warning: 10,
    critical: 1000,
    judges: "memory/saturation",
    needs: "direct_reclaim_rate",
    read: ({ reclaim }) => reclaim?.direct_reclaim_rate,
    message: fixed(0, "Direct reclaim: ", " pages/s scanned by tasks that wait for memory")
  }),
  memory({
    metric: "compaction_stall_rate",
    ...perSecond,
    warning: 1,
    critical: 100,
    needs: "compact_stall_rate",
    read: ({ reclaim }) => reclaim?.compact_stall_rate,
    message: fixed(1, "Compaction stalls: ", "/s (memory is fragmented)")
  }),
  memory({
    metric: "thp_split_rate",
    ...perSecond,
    warning: 1,
    critical: 100,
    needs: "thp_split_rate",
    read: ({ reclaim }) => reclaim?.thp_split_rate,
    message: fixed(1, "Huge pages split: ", "/s")
  }),
  memory({
    metric: "numa_miss_ratio",
    ...percent,
    window: "sample",
    warning: 5,
    critical: 20,
    needs: "miss_ratio",
    read: ({ numa_nodes }) =>
      numa_nodes.length < 2
        ? { why: "there is one NUMA node" }
        : worst(numa_nodes, ({ miss_ratio }) => miss_ratio, ({ node }) => `node ${node}`),
    message: fixed(1, "NUMA misses: ", "% of the pages taken from a node were meant for another")
  }),
  disk({
    metric: "disk_utilization",
    ...percent,
    window: "sample",
    warning: 70,
    critical: 90,
    judges: "disk/utilization",
    needs: "utilization_pct",
    read: ({ devices }) => noDevice(devices) ?? worst(devices, ({ utilization_pct }) => utilization_pct, nameOf),
    message: fixed(1, "Disk utilization: ", "%")
  }),
  disk({
    metric: "io_psi_pressure",
    ...pressure,
    warning: 10,
    critical: 50,
    judges: "disk/saturation",
    needs: "psi_some_10",
    read: ({ psi_some_10 }) => psi_some_10,
    message: fixed(1, "Tasks wait for I/O ", "% of the time")
  }),
  disk({
    metric: "disk_avg_latency",
    unit: "ms",
    window: "sample",
    warning: 5,
    critical: 50,
    judges: "disk/saturation",
    needs: "avg_latency_ms",
    read: ({ devices }) => noDevice(devices) ?? worst(devices, ({ avg_latency_ms }) => avg_latency_ms, nameOf),
    message: fixed(1, "Average I/O latency: ", " ms")
  }),
  network({
    metric: "tcp_retransmits",
    ...perSecond,
    warning: 10,
    critical: 50,
    judges: "network/errors",
    needs: "tcp",
    read: ({ tcp }) => tcp?.retrans_rate_per_sec,
    message: fixed(1, "TCP retransmissions: ", "/s")
  }),
  network({
    metric: "tcp_timewait",
    unit: "sockets",
    window: "now",
    warning: 5000,
    critical: 20_000,
    needs: "time_wait_count",
    read: ({ tcp }) => tcp?.time_wait_count,
    message: fixed(0, "TIME_WAIT connections: ")
  }),
  network({
    metric: "tcp_close_wait",
    unit: "sockets",
    window: "now",
    // A socket is in this state for a moment whenever the other side closes first: a few are no leak.
    warning: 10,
    critical: 100,
    needs: "close_wait_count",
    read: ({ tcp }) => tcp?.close_wait_count,
    message: fixed(0, "CLOSE_WAIT connections: ", " that their process does not close")
  }),
  network({
    metric: "network_errors_per_sec",
    ...perSecond,
    warning: 10,
    critical: 100,
    judges: "network/errors",
    needs: "errors_per_sec",
    read: ({ interfaces }) => worst(interfaces, ({ errors_per_sec }) => errors_per_sec, nameOf),
    message: fixed(1, "Errors and drops of an interface: ", "/s")
  }),
  network({
    metric: "conntrack_usage_pct",
    ...percent,
    window: "now",
    warning: 70,
    critical: 90,
    needs: "conntrack",
    read: ({ conntrack }) => conntrack?.usage_pct,
    message: fixed(1, "Connection tracking table at ", "%")
  }),
  network({
    metric: "softnet_dropped",
    ...perSecond,
    warning: 1,
    critical: 100,
    needs: "softnet",
    read: ({ softnet }) => softnet?.drop_rate,
    message: fixed(1, "Packets dropped before the kernel looked at them: ", "/s")
  }),
  network({
    metric: "softnet_time_squeeze",
    ...perSecond,
    warning: 1,
    critical: 100,
    needs: "softnet",
    read: ({ softnet }) => softnet?.squeeze_rate,
    message: fixed(1, "Rounds of receiving that ended with packets left: ", "/s")
  }),
  network({
    metric: "listen_overflows",
    ...perSecond,
    warning: 1,
    critical: 100,
    judges: "network/saturation",
    needs: "listen_overflows_rate",
    read: ({ tcp_ext }) => tcp_ext?.listen_overflows_rate,
    message: fixed(1, "Connections that found the queue of their listener full: ", "/s")
  }),
  network({
    metric: "listen_queue_saturation",
    ...percent,
    window: "now",
    warning: 70,
    critical: 90,
    judges: "network/saturation",
    needs: "listen_sockets",
    read: ({ listen_sockets }) => fullestQueue(listen_sockets),
    message: fixed(0, "Queue of a listener is ", "% full")
  }),
  network({
    metric: "nic_rx_discards",
    ...perSecond,
    warning: 100,
    critical: 10_000,
    needs: "rx_discards_per_sec",
    read: ({ interfaces }) => worst(interfaces, ({ rx_discards_per_sec }) => rx_discards_per_sec, nameOf),
    message: fixed(0, "Packets that a network card discards: ", "/s")
  }),
  network({
    metric: "tcp_abort_on_memory",
    ...perSecond,
    warning: 0.1,
    critical: 1,
    needs: "tcp_abort_on_memory_rate",
    read: ({ tcp_ext }) => tcp_ext?.tcp_abort_on_memory_rate,
    message: fixed(2, "Connections that the kernel ends for want of memory: ", "/s")
  }),
  network({
    metric: "udp_rcvbuf_errors",
    ...perSecond,
    warning: 1,
    critical: 100,
    needs: "udp",
    read: ({ udp }) => udp?.rcvbuf_err_rate,
    message: fixed(1, "UDP packets that found their buffer full: ", "/s")
  }),
  network({
    metric: "tcp_rcvq_drop",
    ...perSecond,
    warning: 1,
    critical: 100,
    needs: "tcp_rcvq_drop_rate",
    read: ({ tcp_ext }) => tcp_ext?.tcp_rcvq_drop_rate,
    message: fixed(1, "TCP packets that found their buffer full: ", "/s")
  }),
  network({
    metric: "tcp_zero_window_drop",
    ...perSecond,
    warning: 1,
    critical: 50,
    needs: "tcp_zero_window_drop_rate",
    read: ({ tcp_ext }) => tcp_ext?.tcp_zero_window_drop_rate,
    message: fixed(1, "TCP packets that came when their window was closed: ", "/s")
  }),
  network({
    metric: "irq_imbalance",
    unit: "times the mean",
    window: "sample",
    warning: 5,
    critical: 20,
    needs: "irq_distribution",
    read: ({ softnet }) => softnet && imbalance(softnet.irq_distribution),
    message: fixed(1, "The busiest CPU receives ", " times what a CPU does on average")
  }),
  container({
    metric: "cpu_throttling",
    unit: "ms per second",
    window: "sample",
    warning: 100,
    critical: 1000,
    judges: "container_cpu/saturation",
    needs: "cpu_throttled_us_per_sec",
    read: ({ cpu_quota, cpu_throttled_us_per_sec }) =>
      cpu_quota === undefined
        ? { why: "the container has no limit of processor time" }
        : cpu_throttled_us_per_sec && cpu_throttled_us_per_sec / 1000,
    message: fixed(0, "The container is held back by its limit of processor time: ", " ms/s")
  }),
  container({
    metric: "container_memory_usage",
    ...percent,
    window: "now",
    warning: 80,
    critical: 95,
    judges: "container_memory/utilization",
    needs: "memory_usage_bytes",
    read: (data) =>
      data.memory_limit_bytes === undefined ? { why: "the container has no limit of memory" } : memoryOfLimit(data),
    message: fixed(1, "Container memory: ", "% of limit (OOM risk)")
  }),
  gpu({
    metric: "gpu_nic_cross_numa",
    unit: "pairs",
    window: "now",
    warning: 1,
    critical: 1,
    needs: "cross_numa_pairs",
    read: ({ cross_numa_pairs, gpus }) =>
      gpus.length === 0 ? { why: "there is no graphics processor" } : cross_numa_pairs?.length,
    message: fixed(0, "Pairs of a graphics processor and a network card on different NUMA nodes: ")
  })
]

const nameOf = ({ name }: { readonly name: string }) => name

const noDevice = (devices: ReadonlyArray<unknown>) => devices.length === 0 ? { why: "there is no disk" } : undefined

/** Listeners whose queue is less than half full are not in the data. */
export const fullestQueue = (sockets: Data["network"]["listen_sockets"]) =>
  sockets && (worst(sockets, ({ fill_pct }) => fill_pct, ({ local_addr }) => local_addr) ?? 0)

/** Files that are cached count against the limit too, but are dropped before anything is killed. */
export const memoryOfLimit = (data: Data["container"]): number | undefined =>
  percentOf(data.memory_working_set_bytes ?? data.memory_usage_bytes, data.memory_limit_bytes)

/**
 * What the busiest processor receives, in times of the mean of all: a ratio to the idlest one would be unbounded as soon
 * as that receives next to nothing, which is no fault.
 */
const imbalance = (distribution: NonNullable<Data["network"]["softnet"]>["irq_distribution"]): Reading => {
  const busiest = worst(distribution, ({ net_rx_delta }) => net_rx_delta, ({ cpu }) => `CPU ${cpu}`)
  if (busiest === undefined || busiest.value < 100) return { why: "no CPU received 100 times in the sample" }
  const total = distribution.reduce((sum, { net_rx_delta }) => sum + net_rx_delta, 0)
  return { value: busiest.value * distribution.length / total, subject: busiest.subject }
}

/** What a value is worth to a rule. */
export const severityOf = (
  { critical, warning }: Pick<Rule, "warning" | "critical">,
  value: number
): Severity | undefined => value >= critical ? "critical" : value >= warning ? "warning" : undefined

export interface Judgement {
  /** Critical ones first, otherwise in the order of the rules. */
  readonly anomalies: ReadonlyArray<Anomaly>
  readonly notEvaluated: ReadonlyArray<NotEvaluated>
}

/** Asks every rule. */
export const judge = (findings: Findings): Judgement => {
  const critical: Array<Anomaly> = []
  const warning: Array<Anomaly> = []
  const notEvaluated: Array<NotEvaluated> = []
  for (const rule of rules) {
    const { category, metric, unit, window } = rule
    const reading = rule.evaluate(findings)
    if ("why" in reading) {
      notEvaluated.push({ metric, category, reason: reading.why })
      continue
    }
    const severity = severityOf(rule, reading.value)
    if (severity === undefined) continue
    const subject = "subject" in reading ? { subject: reading.subject } : {}
    const anomaly = {
      severity,
      category,
      metric,
      message: rule.message(reading.value) + ("subject" in reading ? ` (${reading.subject})` : ""),
      value: reading.value.toFixed(2),
      threshold: `warning=${rule.warning}, critical=${rule.critical}`,
      unit,
      window,
      ...subject
    }
    if (severity === "critical") critical.push(anomaly)
    else warning.push(anomaly)
  }
  return { anomalies: [...critical, ...warning], notEvaluated }
}
