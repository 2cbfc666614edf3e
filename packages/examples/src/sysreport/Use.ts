/**
 * Utilization, saturation and errors of each resource (Brendan Gregg's USE method).
 */
import { fullestQueue, memoryOfLimit } from "./Anomalies.ts"
import { type Data, type Findings, percentOf, worst } from "./Findings.ts"
import { known } from "./ProcFile.ts"
import type { Resource, Resources } from "./Report.ts"

/** The resources that there is data of. */
export const use = ({ data: { container, cpu, disk, memory, network } }: Findings): Resources =>
  known({
    cpu: cpu && ofCpu(cpu),
    memory: memory && ofMemory(memory),
    disk: disk && ofDisk(disk),
    network: network && ofNetwork(network),
    container_cpu: container && ofContainerCpu(container),
    container_memory: container && ofContainerMemory(container)
  })

const ofCpu = ({ idle_pct, load_avg_1, num_cpus }: Data["cpu"]): Resource =>
  known({
    utilization_pct: idle_pct === undefined ? undefined : 100 - idle_pct,
    // Percent of the processors there are by which those are exceeded that are asked for.
    saturation_pct: load_avg_1 === undefined || num_cpus === 0
      ? undefined
      : Math.max(0, (load_avg_1 / num_cpus - 1) * 100),
    errors: 0
  })

const ofMemory = (data: Data["memory"]): Resource =>
  known({
    utilization_pct: percentOf(data.total_bytes - data.available_bytes, data.total_bytes),
    // Without swap nothing is swapped out.
    saturation_pct: percentOf(data.swap_used_bytes, data.swap_total_bytes) ?? 0,
    errors: Math.round((data.reclaim?.oom_kill_rate ?? 0) * data.sample_seconds)
  })

const ofDisk = ({ devices }: Data["disk"]): Resource => {
  const most = (value: (device: Data["disk"]["devices"][number]) => number | undefined) =>
    worst(devices, value, ({ name }) => name)?.value
  const filled = most(({ io_in_progress, queue_depth }) => percentOf(io_in_progress, queue_depth))
  return known({
    utilization_pct: most(({ utilization_pct }) => utilization_pct),
    saturation_pct: filled === undefined ? undefined : Math.min(100, filled),
    saturation_count: most(({ io_in_progress }) => io_in_progress),
    errors: 0
  })
}

const ofNetwork = ({ interfaces, listen_sockets, tcp }: Data["network"]): Resource => {
  const fullest = fullestQueue(listen_sockets)
  const errors = interfaces.reduce((sum, { errors_per_sec }) => sum + errors_per_sec, 0)
  return known({
    // Of the busiest direction of the busiest interface that says how fast it is.
    utilization_pct: worst(
      interfaces,
      ({ rx_bytes_per_sec, speed, tx_bytes_per_sec }) =>
        speed === undefined
          ? undefined
          : percentOf(Math.max(rx_bytes_per_sec, tx_bytes_per_sec) * 8, speed * 1_000_000),
      ({ name }) => name
    )?.value,
    saturation_pct: typeof fullest === "object" ? fullest.value : fullest,
    saturation_count: tcp?.time_wait_count === undefined && tcp?.close_wait_count === undefined
      ? undefined
      : (tcp.time_wait_count ?? 0) + (tcp.close_wait_count ?? 0),
    errors: Math.floor(errors + (tcp?.retrans_rate_per_sec ?? 0))
  })
}

/** Without a limit there is nothing to be used up. */
const ofContainerCpu = (data: Data["container"]): Resource | undefined => {
  const { cpu_period, cpu_quota, cpu_quota_used_pct, cpu_throttled_periods_per_sec } = data
  if (cpu_quota === undefined) return undefined
  return known({
    utilization_pct: cpu_quota_used_pct,
    saturation_pct: cpu_period === undefined
      ? undefined
      : percentOf(cpu_throttled_periods_per_sec, 1_000_000 / cpu_period),
    saturation_count: cpu_throttled_periods_per_sec,
    errors: 0
  })
}

const ofContainerMemory = (data: Data["container"]): Resource | undefined =>
  data.memory_limit_bytes === undefined ? undefined : known({ utilization_pct: memoryOfLimit(data), errors: 0 })
