/**
 * Processors, memory and disks.
 */
import type { Data } from "../Findings.ts"
import { above, type Advice, from, gregg, kernel, look, type Occasion, quoted, raise, settings } from "./Advice.ts"

const cpu = from("cpu")
const memory = from("memory")
const disk = from("disk")

export const machine: ReadonlyArray<Advice> = [
  cpu({
    title: "CPU saturation detected — investigate high-CPU processes",
    type: "fix",
    impact: "high",
    gain: "finds what the processors are short of",
    against: ["load_average", "cpu_utilization", "cpu_psi_pressure"],
    source: gregg(6),
    when: ({ load_avg_1, num_cpus, psi_some_10 }) =>
      num_cpus > 0 && above(load_avg_1, 2 * num_cpus) &&
      look(["ps -eo pid,comm,pcpu,stat --sort=-pcpu | head -20"], { load_avg_1, num_cpus, psi_some_10 })
  }),
  cpu({
    title: "Shorten the period in which the scheduler gives every task its turn",
    type: "optimization",
    impact: "low",
    gain: "shorter waits for a CPU, for more switches between tasks",
    against: ["cpu_psi_pressure"],
    source: kernel("scheduler/sched-design-CFS"),
    when: ({ load_avg_1, num_cpus, psi_some_10, sched_latency_ns }) =>
      above(sched_latency_ns, 24_000_000) && (above(psi_some_10, 5) || above(load_avg_1, num_cpus)) &&
      settings({ "kernel.sched_latency_ns": 6_000_000 }, { sched_latency_ns, psi_some_10, load_avg_1, num_cpus })
  }),
  memory({
    title: "Lower swappiness: the memory of programs is swapped out",
    type: "fix",
    impact: "medium",
    gain: "fewer waits for what was swapped out",
    against: ["swap_usage", "memory_psi_pressure"],
    source: gregg(7),
    when: ({ swap_used_bytes, swappiness }) =>
      above(swappiness, 30) && swap_used_bytes > 0 && settings({ "vm.swappiness": 10 }, { swappiness, swap_used_bytes })
  }),
  memory({
    title: "Write changed pages earlier, and less of them at once",
    type: "fix",
    impact: "medium",
    gain: "no stalls while a large part of the memory is written",
    against: ["io_psi_pressure", "disk_avg_latency"],
    source: kernel("admin-guide/sysctl/vm"),
    // Where less than a fiftieth of the memory is changed, nothing waits for it to be written.
    when: ({ dirty_background_ratio, dirty_bytes, dirty_ratio, total_bytes }) =>
      above(dirty_ratio, 20) && dirty_bytes > total_bytes / 50 && settings({
        "vm.dirty_ratio": 10,
        "vm.dirty_background_ratio": 5
      }, { dirty_ratio, dirty_background_ratio, dirty_bytes })
  }),
  memory({
    title: "Limit what memory may be promised: processes were killed for want of it",
    type: "optimization",
    impact: "medium",
    gain: "an allocation fails instead of a process being killed",
    against: ["memory_utilization"],
    source: kernel("mm/overcommit-accounting"),
    when: ({ overcommit_memory, overcommit_ratio, reclaim }) =>
      overcommit_memory === 0 && above(reclaim?.oom_kill_rate, 0) &&
      settings({ "vm.overcommit_memory": 2 }, {
        overcommit_memory,
        overcommit_ratio,
        oom_kill_rate: reclaim?.oom_kill_rate
      })
  }),
  memory({
    title: "Direct reclaim: keep more memory free",
    type: "fix",
    impact: "high",
    gain: "the kernel reclaims memory before tasks have to wait for it",
    against: ["direct_reclaim_rate", "memory_psi_pressure"],
    source: gregg(7),
    when: (data) => {
      const { min_free_kbytes, reclaim, watermark_scale_factor } = data
      return above(reclaim?.direct_reclaim_rate, 0) && settings({
        "vm.watermark_scale_factor": raise(watermark_scale_factor, 200),
        "vm.min_free_kbytes": raise(min_free_kbytes, minFreeKbytes(data))
      }, { direct_reclaim_rate: reclaim?.direct_reclaim_rate, watermark_scale_factor, min_free_kbytes })
    }
  }),
  memory({
    title: "Huge pages are made and split again: give them to those that ask",
    type: "fix",
    impact: "medium",
    gain: "no time is lost in making and splitting huge pages",
    against: ["thp_split_rate", "compaction_stall_rate"],
    source: kernel("admin-guide/mm/transhuge"),
    when: ({ reclaim, thp_enabled }) =>
      thp_enabled === "always" && above(reclaim?.thp_split_rate, 1) &&
      hugePagesOnRequest({ thp_split_rate: reclaim?.thp_split_rate, thp_enabled })
  }),
  memory({
    title: "Bind processes to the NUMA node that their memory is on",
    type: "optimization",
    impact: "medium",
    gain: "memory is read without a way through another node",
    against: ["numa_miss_ratio"],
    source: gregg(7),
    when: ({ numa_nodes }) =>
      numa_nodes.filter(({ miss_ratio }) => above(miss_ratio, 5)).flatMap(({ cpus, miss_ratio, node }) =>
        look(["numastat -p $(pidof PROGRAM)", `numactl --cpunodebind=${node} --membind=${node} PROGRAM`], {
          node,
          miss_ratio,
          cpus
        })
      )
  }),
  memory({
    title: "Compaction stalls: memory is fragmented",
    type: "fix",
    impact: "medium",
    gain: "large blocks are found without a wait",
    against: ["compaction_stall_rate"],
    source: kernel("admin-guide/sysctl/vm"),
    when: (data) => {
      const { min_free_kbytes, reclaim } = data
      const evidence = {
        compact_stall_rate: reclaim?.compact_stall_rate,
        compact_fail: reclaim?.compact_fail,
        min_free_kbytes
      }
      return above(reclaim?.compact_stall_rate, 1) &&
        settings(
          { "vm.compact_memory": 1, "vm.min_free_kbytes": raise(min_free_kbytes, minFreeKbytes(data)) },
          evidence
        )
          // Compaction is done once, and is not a setting to be kept.
          .map((occasion) => ({
            ...occasion,
            persistent: occasion.persistent.filter((line) => !line.includes("compact_memory"))
          }))
    }
  }),
  memory({
    title: "Give huge pages to those that ask: tasks wait for memory",
    type: "optimization",
    impact: "low",
    gain: "no waits for blocks that are large enough",
    against: ["compaction_stall_rate", "memory_psi_pressure"],
    source: gregg(7),
    when: ({ psi_some_10, reclaim, thp_enabled }) =>
      // Above that many splits there is a fix for them already.
      thp_enabled === "always" && !above(reclaim?.thp_split_rate, 1) &&
      (above(reclaim?.compact_stall_rate, 0) || above(psi_some_10, 5)) &&
      hugePagesOnRequest({ thp_enabled, compact_stall_rate: reclaim?.compact_stall_rate, psi_some_10 })
  }),
  memory({
    title: "Keep more memory free on a large machine that is short of it",
    type: "optimization",
    impact: "low",
    gain: "fewer tasks that have to reclaim memory themselves",
    against: ["memory_utilization", "memory_psi_pressure"],
    source: gregg(7),
    when: (data) => {
      const { available_bytes, min_free_kbytes, psi_some_10, reclaim, total_bytes } = data
      const short = available_bytes < total_bytes * 0.15 || above(psi_some_10, 1)
      // With direct reclaim there is a fix for it already.
      return total_bytes > 16 * 1024 ** 3 && short && !above(reclaim?.direct_reclaim_rate, 0) &&
        settings({ "vm.min_free_kbytes": raise(min_free_kbytes, 64 * 1024) && 131_072 }, {
          min_free_kbytes,
          total_bytes,
          available_bytes,
          psi_some_10
        })
    }
  }),
  disk({
    title: "Use a scheduler for solid state",
    type: "optimization",
    impact: "low",
    gain: "shorter waits of a device that has no heads to move",
    against: ["disk_avg_latency"],
    source: gregg(9),
    when: ({ devices }) =>
      busy(devices, false).filter(({ scheduler }) => scheduler !== "mq-deadline" && scheduler !== "none")
        .map((device) => scheduledBy("mq-deadline", device))
  }),
  disk({
    title: "Use a scheduler for spinning disks",
    type: "optimization",
    impact: "medium",
    gain: "fewer moves of the heads, and fairness between processes",
    against: ["disk_avg_latency", "disk_utilization"],
    source: gregg(9),
    when: ({ devices }) =>
      busy(devices, true).filter(({ scheduler }) => scheduler !== "bfq").map((device) => scheduledBy("bfq", device))
  })
]

type Device = Data["disk"]["devices"][number]

/** A device with little to do gains nothing by the order in which it does it. */
const busy = (devices: ReadonlyArray<Device>, spinning: boolean): ReadonlyArray<Device> =>
  devices.filter(({ rotational, scheduler, utilization_pct }) =>
    rotational === spinning && scheduler !== undefined && utilization_pct >= 20
  )

const scheduledBy = (scheduler: string, device: Device): Occasion => ({
  title: `Use the scheduler ${scheduler} for ${device.name}`,
  evidence: {
    device: device.name,
    scheduler: device.scheduler,
    utilization_pct: device.utilization_pct,
    avg_latency_ms: device.avg_latency_ms
  },
  commands: [`echo ${scheduler} > ${quoted(`/sys/block/${device.name.replaceAll("/", "!")}/queue/scheduler`)}`],
  persistent: [
    `echo 'ACTION=="add|change", KERNEL=="${device.name}", ATTR{queue/scheduler}="${scheduler}"'` +
    " >> /etc/udev/rules.d/99-sysreport.rules"
  ]
})

const hugePagesOnRequest = (evidence: Occasion["evidence"]): ReadonlyArray<Occasion> => [{
  evidence,
  commands: ["echo madvise > /sys/kernel/mm/transparent_hugepage/enabled"],
  persistent: [
    "echo 'w /sys/kernel/mm/transparent_hugepage/enabled - - - - madvise' >> /etc/tmpfiles.d/99-sysreport.conf"
  ]
}]

/** 128 MiB, or a fiftieth of a memory for which that is too much: it is kept free at all times. */
const minFreeKbytes = ({ total_bytes }: Data["memory"]): number =>
  Math.min(131_072, Math.floor(total_bytes / 50 / 1024))
