/**
 * Where the load is: the processes and devices to look at first.
 */
import type { Findings } from "./Findings.ts"
import type { Hotspot } from "./Report.ts"

/** At most three of a kind, in the order of the data. */
export const hotspots = ({ data: { disk, process, system } }: Findings): ReadonlyArray<Hotspot> => [
  ...(process?.top_by_cpu ?? []).filter(({ cpu_pct }) => cpu_pct >= 50).slice(0, 3).map((
    { comm, cpu_pct, pid, threads }
  ) => ({
    category: "cpu",
    description: `${comm} uses ${cpu_pct.toFixed(0)}% of a CPU`,
    evidence: `pid=${pid}, cpu_pct=${cpu_pct.toFixed(1)}, threads=${threads}`
  })),
  ...(process?.top_by_mem ?? []).flatMap(({ comm, mem_pct = 0, mem_rss_bytes, pid }) =>
    mem_pct < 20 ? [] : [{
      category: "memory",
      description: `${comm} has ${mem_pct.toFixed(0)}% of the memory`,
      evidence: `pid=${pid}, mem_rss_bytes=${mem_rss_bytes}`
    }]
  ).slice(0, 3),
  ...(disk?.devices ?? []).filter(({ utilization_pct }) => utilization_pct >= 70).slice(0, 3).map((device) => ({
    category: "disk",
    description: `${device.name} works ${device.utilization_pct.toFixed(0)}% of the time`,
    evidence: `read_ops=${device.read_ops}, write_ops=${device.write_ops}, io_in_progress=${device.io_in_progress}`
  })),
  ...(system?.filesystems ?? []).filter(({ used_pct }) => used_pct >= 90).slice(0, 3).map((
    { mount, size_gb, used_pct }
  ) => ({
    category: "system",
    description: `${mount} is ${used_pct.toFixed(0)}% full`,
    evidence: `used_pct=${used_pct.toFixed(1)}, size_gb=${size_gb.toFixed(1)}`
  }))
]
