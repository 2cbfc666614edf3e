/**
 * `process_info`: which processes there are and which of them take the most.
 */
import { Collect } from "@effect-orchestra/workflow"
import { Effect, Schema } from "effect"
import { Commands } from "../Commands.ts"
import * as ProcFile from "../ProcFile.ts"
import { readNames, readText } from "../Roots.ts"
import { sample } from "../Sampling.ts"
import { type Collected, where } from "./Collected.ts"

export const Process = Schema.Struct({
  pid: Schema.Natural,
  comm: Schema.String,
  /** Percent of one processor, over the sample. */
  cpu_pct: Schema.Finite,
  mem_rss_bytes: Schema.Finite,
  mem_pct: Schema.optionalKey(Schema.Finite),
  threads: Schema.Finite,
  /** Left out for the processes of others, whose descriptors cannot be seen. */
  fds: Schema.optionalKey(Schema.Finite),
  state: Schema.String
})

export type Process = typeof Process.Type

export const ProcessData = Schema.Struct({
  sample_seconds: Schema.Finite,
  top_by_cpu: Schema.Array(Process),
  top_by_mem: Schema.Array(Process),
  total_processes: Schema.Natural,
  running: Schema.Natural,
  /** Asleep, whether that can be interrupted (S) or not (D). */
  sleeping: Schema.Natural,
  zombie: Schema.Natural,
  /** This program and what it started: not counted, not listed. */
  excluded_pids: Schema.Array(Schema.Natural)
})
export type ProcessData = typeof ProcessData.Type

/** What `/proc/[pid]/stat` says of a process. */
interface Stat {
  readonly pid: number
  readonly comm: string
  readonly state: string
  readonly parent: number
  /** Of processor time that it had, user and system. */
  readonly ticks: number
  readonly threads: number
  /** In ticks since boot. With the pid it names the process: a pid alone may be that of another one a moment later. */
  readonly startedAt: number
  readonly pages: number
}

/** `/proc/[pid]/stat`. The name stands in brackets, and may hold brackets, blanks and line ends itself. */
export const parseStat = (text: string): Stat | undefined => {
  const [, pid, comm, rest = ""] = /^(\d{1,10}) \((.*)\) (.*)$/s.exec(text.trim()) ?? []
  const [state = "", ...numbers] = ProcFile.words(rest)
  const [parent, , , , , , , , , , user, system, , , , , threads, , startedAt, , pages] = numbers.map(ProcFile.number)
  return comm === undefined || pages === undefined ? undefined : {
    pid: Number(pid),
    comm,
    state,
    parent: parent ?? 0,
    ticks: (user ?? 0) + (system ?? 0),
    threads: threads ?? 1,
    startedAt: startedAt ?? 0,
    pages
  }
}

/** Linux counts processor time for its users in hundredths of a second, whatever it uses itself. */
const ticksPerSecond = 100
/** Nearly everywhere. It only ranks: what is listed is read from `status`, which is in kibibytes. */
const pageBytes = 4096
const top = 20

/** All processes. One that is gone before its file is read is none. */
const readProcesses = Effect.gen(function*() {
  const names = (yield* readNames("proc/")).filter((name) => ProcFile.index(name) !== undefined)
  const stats = yield* Effect.forEach(names, (pid) => readText(`proc/${pid}/stat`), { concurrency: 16 })
  return stats.flatMap((text) => text === undefined ? [] : parseStat(text) ?? [])
})

/** This program, and all that it started, or that was started by what it started. */
export const family = (processes: ReadonlyArray<Stat>, roots: Iterable<number>): ReadonlySet<number> => {
  const found = new Set(roots)
  const children = Map.groupBy(processes, ({ parent }) => parent)
  // A set hands out what is added while it is walked through.
  for (const pid of found) for (const child of children.get(pid) ?? []) found.add(child.pid)
  return found
}

const describe = Effect.fnUntraced(function*(process: Stat, cpu: number, memory: number | undefined) {
  const status = ProcFile.counters((yield* readText(`proc/${process.pid}/status`)) ?? "")
  const fds = yield* readNames(`proc/${process.pid}/fd`)
  const rss = ProcFile.kibibytes(status.get("VmRSS")) ?? process.pages * pageBytes
  const described: Process = ProcFile.known({
    pid: process.pid,
    comm: process.comm,
    cpu_pct: cpu,
    mem_rss_bytes: rss,
    mem_pct: memory === undefined || memory === 0 ? undefined : 100 * rss / memory,
    threads: process.threads,
    fds: fds.length === 0 ? undefined : fds.length,
    state: process.state
  })
  return described
})

const collect = Effect.gen(function*() {
  const { pids } = yield* Commands
  const { after, before, seconds } = yield* sample(readProcesses)
  const self = parseStat((yield* readText("proc/self/stat")) ?? "")
  const started = yield* pids
  const excluded = family([...before, ...after], self === undefined ? started : [self.pid, ...started])
  const processes = after.filter(({ pid }) => !excluded.has(pid))

  const earlier = new Map(before.map((process) => [process.pid, process]))
  const cpu = (process: Stat) => {
    const then = earlier.get(process.pid)
    // All the time of a process that began after the first reading is of the sample.
    const ticks = process.ticks - (then?.startedAt === process.startedAt ? then.ticks : 0)
    return seconds > 0 ? 100 * Math.max(0, ticks) / ticksPerSecond / seconds : 0
  }
  const memory = ProcFile.kibibytes(ProcFile.counters((yield* readText("proc/meminfo")) ?? "").get("MemTotal"))
  const topBy = (measure: (process: Stat) => number) =>
    Effect.forEach(
      processes.toSorted((a, b) => measure(b) - measure(a) || a.pid - b.pid).slice(0, top),
      (process) => describe(process, cpu(process), memory)
    )
  const inState = (states: string) => processes.filter(({ state }) => states.includes(state)).length
  const data: ProcessData = {
    sample_seconds: seconds,
    top_by_cpu: yield* topBy(cpu),
    top_by_mem: yield* topBy(({ pages }) => pages),
    total_processes: processes.length,
    running: inState("R"),
    sleeping: inState("SD"),
    zombie: inState("Z"),
    excluded_pids: Array.from(excluded).sort((a, b) => a - b)
  }
  return { data, errors: [] } satisfies Collected<ProcessData>
})

export const processInfo = Collect.make("process_info", {
  category: "process",
  available: where("proc/stat"),
  collect
})
