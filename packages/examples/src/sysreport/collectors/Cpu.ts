/**
 * `cpu_utilization`: where the time of the processors goes.
 */
import { Collect } from "@effect-orchestra/workflow"
import { Effect, Schema } from "effect"
import * as ProcFile from "../ProcFile.ts"
import { needText, readNumber, readText } from "../Roots.ts"
import { rate, type Sample, sample } from "../Sampling.ts"
import { SourceMalformed } from "../SourceError.ts"
import { type Collected, where } from "./Collected.ts"

/**
 * Shares of time are percent of the sample. A field whose source is not there is left out, here as in all collectors.
 */
export const CpuData = Schema.Struct({
  /** Seconds between the two readings that rates and shares are of. */
  sample_seconds: Schema.Finite,
  /** The shares are left out if no time passed by the kernel's account. */
  user_pct: Schema.optionalKey(Schema.Finite),
  system_pct: Schema.optionalKey(Schema.Finite),
  iowait_pct: Schema.optionalKey(Schema.Finite),
  idle_pct: Schema.optionalKey(Schema.Finite),
  steal_pct: Schema.optionalKey(Schema.Finite),
  irq_pct: Schema.optionalKey(Schema.Finite),
  softirq_pct: Schema.optionalKey(Schema.Finite),
  context_switches_per_sec: Schema.optionalKey(Schema.Finite),
  load_avg_1: Schema.optionalKey(Schema.Finite),
  load_avg_5: Schema.optionalKey(Schema.Finite),
  load_avg_15: Schema.optionalKey(Schema.Finite),
  num_cpus: Schema.Natural,
  per_cpu: Schema.Array(Schema.Struct({
    cpu: Schema.Natural,
    user_pct: Schema.Finite,
    system_pct: Schema.Finite,
    iowait_pct: Schema.Finite,
    idle_pct: Schema.Finite
  })),
  sched_latency_ns: Schema.optionalKey(Schema.Finite),
  sched_min_granularity_ns: Schema.optionalKey(Schema.Finite),
  psi_some_10: Schema.optionalKey(Schema.Finite),
  psi_some_60: Schema.optionalKey(Schema.Finite)
})
export type CpuData = typeof CpuData.Type

/** Ticks that a processor, or all of them, spent since boot. */
interface Ticks {
  readonly user: number
  readonly system: number
  readonly idle: number
  readonly iowait: number
  readonly irq: number
  readonly softirq: number
  readonly steal: number
}

interface Stat {
  readonly all: Ticks
  readonly cpus: ReadonlyMap<number, Ticks>
  readonly contextSwitches: number | undefined
}

/** `/proc/stat`; `undefined` if it has no line of all processors. */
export const parseStat = (text: string): Stat | undefined => {
  let all: Ticks | undefined
  let contextSwitches: number | undefined
  const cpus = new Map<number, Ticks>()
  for (const line of ProcFile.lines(text)) {
    const [name = "", ...values] = ProcFile.words(line)
    if (name === "ctxt") contextSwitches = ProcFile.number(values[0])
    if (!name.startsWith("cpu")) continue
    const cpu = ProcFile.index(name.slice("cpu".length))
    // The times of guests come after these, and are in those of the user already.
    const [user, nice, system, idle, iowait = 0, irq = 0, softirq = 0, steal = 0] = values.map(ProcFile.number)
    if (user === undefined || nice === undefined || system === undefined || idle === undefined) continue
    const ticks = { user: user + nice, system, idle, iowait, irq, softirq, steal }
    if (name === "cpu") all = ticks
    else if (cpu !== undefined) cpus.set(cpu, ticks)
  }
  return all && { all, cpus, contextSwitches }
}

/** Shares of the ticks between two readings, in percent; `undefined` if there were none. */
const shares = (before: Ticks, after: Ticks) => {
  // The kernel estimates the time of idle processors anew each time it is asked, and may tell less than before.
  const spent = (of: keyof Ticks) => Math.max(0, after[of] - before[of])
  const total = spent("user") + spent("system") + spent("idle") + spent("iowait") + spent("irq") + spent("softirq") +
    spent("steal")
  const percent = (of: keyof Ticks) => 100 * spent(of) / total
  return total === 0 ? undefined : {
    user_pct: percent("user"),
    system_pct: percent("system"),
    iowait_pct: percent("iowait"),
    idle_pct: percent("idle"),
    steal_pct: percent("steal"),
    irq_pct: percent("irq"),
    softirq_pct: percent("softirq")
  }
}

const perCpu = ({ after, before }: Sample<Stat>): CpuData["per_cpu"] =>
  Array.from(after.cpus).flatMap(([cpu, ticks]) => {
    // A processor that was switched on meanwhile has nothing to compare with.
    const then = before.cpus.get(cpu)
    const share = then && shares(then, ticks)
    if (share === undefined) return []
    const { idle_pct, iowait_pct, system_pct, user_pct } = share
    return [{ cpu, user_pct, system_pct, iowait_pct, idle_pct }]
  })

const readStat = Effect.gen(function*() {
  const stat = parseStat(yield* needText("proc/stat"))
  return stat ??
    (yield* new SourceMalformed({ path: "/proc/stat", expected: "a line \"cpu\" with at least 4 numbers" }))
})

const collect = Effect.gen(function*() {
  const stats = yield* sample(readStat)
  const [load1, load5, load15] = ProcFile.words((yield* readText("proc/loadavg")) ?? "").map(ProcFile.number)
  const pressure = ProcFile.pressure(yield* readText("proc/pressure/cpu"))
  const data: CpuData = ProcFile.known({
    sample_seconds: stats.seconds,
    ...shares(stats.before.all, stats.after.all),
    context_switches_per_sec: rate(stats, ({ contextSwitches }) => contextSwitches),
    load_avg_1: load1,
    load_avg_5: load5,
    load_avg_15: load15,
    num_cpus: stats.after.cpus.size,
    per_cpu: perCpu(stats),
    // The scheduler's settings moved to debugfs in Linux 5.13; 6.6 has another scheduler, without a latency.
    sched_latency_ns: (yield* readNumber("proc/sys/kernel/sched_latency_ns")) ??
      (yield* readNumber("sys/kernel/debug/sched/latency_ns")),
    sched_min_granularity_ns: (yield* readNumber("proc/sys/kernel/sched_min_granularity_ns")) ??
      (yield* readNumber("sys/kernel/debug/sched/min_granularity_ns")),
    psi_some_10: pressure.some10,
    psi_some_60: pressure.some60
  })
  return { data, errors: [] } satisfies Collected<CpuData>
})

export const cpuUtilization = Collect.make("cpu_utilization", {
  category: "cpu",
  available: where("proc/stat"),
  collect
})
