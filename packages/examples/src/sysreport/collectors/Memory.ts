/**
 * `memory_info`: how much memory there is, who reclaims it, and how it is set up.
 */
import { Collect } from "@effect-orchestra/workflow"
import { Effect, Schema } from "effect"
import * as ProcFile from "../ProcFile.ts"
import { type File, needText, readNames, readNumber, readText } from "../Roots.ts"
import { rate, type Sample, sample } from "../Sampling.ts"
import { SourceMalformed } from "../SourceError.ts"
import { type Collected, where } from "./Collected.ts"

/** Counters since boot, as `/proc/vmstat` has them, and what they rose by per second of the sample. */
export const Reclaim = Schema.Struct({
  pgscan_direct: Schema.optionalKey(Schema.Finite),
  pgscan_kswapd: Schema.optionalKey(Schema.Finite),
  pgsteal_direct: Schema.optionalKey(Schema.Finite),
  pgsteal_kswapd: Schema.optionalKey(Schema.Finite),
  allocstall_normal: Schema.optionalKey(Schema.Finite),
  allocstall_movable: Schema.optionalKey(Schema.Finite),
  compact_stall: Schema.optionalKey(Schema.Finite),
  compact_success: Schema.optionalKey(Schema.Finite),
  compact_fail: Schema.optionalKey(Schema.Finite),
  thp_fault_alloc: Schema.optionalKey(Schema.Finite),
  thp_collapse_alloc: Schema.optionalKey(Schema.Finite),
  thp_split_page: Schema.optionalKey(Schema.Finite),
  oom_kill: Schema.optionalKey(Schema.Finite),
  /** Pages scanned by processes that had to wait for memory. */
  direct_reclaim_rate: Schema.optionalKey(Schema.Finite),
  compact_stall_rate: Schema.optionalKey(Schema.Finite),
  thp_split_rate: Schema.optionalKey(Schema.Finite),
  oom_kill_rate: Schema.optionalKey(Schema.Finite)
})

export type Reclaim = typeof Reclaim.Type

export const NumaNode = Schema.Struct({
  node: Schema.Natural,
  mem_total_bytes: Schema.optionalKey(Schema.Finite),
  mem_free_bytes: Schema.optionalKey(Schema.Finite),
  numa_hit: Schema.optionalKey(Schema.Finite),
  numa_miss: Schema.optionalKey(Schema.Finite),
  numa_foreign: Schema.optionalKey(Schema.Finite),
  /** Percent of the pages that were allocated on this node within the sample but meant for another one. */
  miss_ratio: Schema.optionalKey(Schema.Finite),
  distance: Schema.Array(Schema.Finite),
  cpus: Schema.optionalKey(Schema.String)
})

export type NumaNode = typeof NumaNode.Type

export const MemoryData = Schema.Struct({
  sample_seconds: Schema.Finite,
  total_bytes: Schema.Finite,
  free_bytes: Schema.Finite,
  available_bytes: Schema.Finite,
  cached_bytes: Schema.Finite,
  buffers_bytes: Schema.Finite,
  swap_total_bytes: Schema.Finite,
  swap_used_bytes: Schema.Finite,
  dirty_bytes: Schema.Finite,
  /** Since boot. */
  major_faults: Schema.optionalKey(Schema.Finite),
  minor_faults: Schema.optionalKey(Schema.Finite),
  major_faults_per_sec: Schema.optionalKey(Schema.Finite),
  minor_faults_per_sec: Schema.optionalKey(Schema.Finite),
  swappiness: Schema.optionalKey(Schema.Finite),
  overcommit_memory: Schema.optionalKey(Schema.Finite),
  overcommit_ratio: Schema.optionalKey(Schema.Finite),
  dirty_ratio: Schema.optionalKey(Schema.Finite),
  dirty_background_ratio: Schema.optionalKey(Schema.Finite),
  huge_pages_total: Schema.Finite,
  huge_pages_free: Schema.Finite,
  psi_some_10: Schema.optionalKey(Schema.Finite),
  psi_some_60: Schema.optionalKey(Schema.Finite),
  psi_full_10: Schema.optionalKey(Schema.Finite),
  psi_full_60: Schema.optionalKey(Schema.Finite),
  /** The chosen word of the file: `always`, `madvise`, `never`. */
  thp_enabled: Schema.optionalKey(Schema.String),
  thp_defrag: Schema.optionalKey(Schema.String),
  min_free_kbytes: Schema.optionalKey(Schema.Finite),
  watermark_scale_factor: Schema.optionalKey(Schema.Finite),
  numa_nodes: Schema.Array(NumaNode),
  /** Free blocks of 2^n pages, n from 0. */
  buddy_info: Schema.Array(Schema.Struct({
    node: Schema.Natural,
    zone: Schema.String,
    free_blocks: Schema.Array(Schema.Finite)
  })),
  reclaim: Schema.optionalKey(Reclaim)
})
export type MemoryData = typeof MemoryData.Type

type Counters = ReadonlyMap<string, number>

/** `/proc/meminfo`; `undefined` if it does not have the memory there is and what is free of it. */
export const parseMeminfo = (text: string) => {
  const counters = ProcFile.counters(text)
  const bytes = (name: string) => ProcFile.kibibytes(counters.get(name)) ?? 0
  const total = ProcFile.kibibytes(counters.get("MemTotal"))
  const free = ProcFile.kibibytes(counters.get("MemFree"))
  if (total === undefined || total === 0 || free === undefined) return undefined
  return {
    total_bytes: total,
    free_bytes: free,
    // Kernels before 3.14 leave this to the reader.
    available_bytes: ProcFile.kibibytes(counters.get("MemAvailable")) ?? free + bytes("Cached") + bytes("Buffers"),
    cached_bytes: bytes("Cached"),
    buffers_bytes: bytes("Buffers"),
    swap_total_bytes: bytes("SwapTotal"),
    swap_used_bytes: bytes("SwapTotal") - bytes("SwapFree"),
    dirty_bytes: bytes("Dirty"),
    huge_pages_total: counters.get("HugePages_Total") ?? 0,
    huge_pages_free: counters.get("HugePages_Free") ?? 0
  }
}

/** `/proc/buddyinfo`: `Node 0, zone   Normal   12   3 ...`. */
export const parseBuddyinfo = (text: string): MemoryData["buddy_info"] =>
  ProcFile.lines(text).flatMap((line) => {
    const [, node, zone, blocks = ""] = /^Node (\d{1,10}), zone\s+(\S+)\s+([\d\s]+)$/.exec(line) ?? []
    return zone === undefined ? [] : [{ node: Number(node), zone, free_blocks: ProcFile.words(blocks).map(Number) }]
  })

const reclaim = (vmstat: Sample<Counters>): Reclaim => {
  const total = (name: string) => vmstat.after.get(name)
  const perSecond = (name: string) => rate(vmstat, (counters) => counters.get(name))
  return ProcFile.known({
    pgscan_direct: total("pgscan_direct"),
    pgscan_kswapd: total("pgscan_kswapd"),
    pgsteal_direct: total("pgsteal_direct"),
    pgsteal_kswapd: total("pgsteal_kswapd"),
    allocstall_normal: total("allocstall_normal"),
    allocstall_movable: total("allocstall_movable"),
    compact_stall: total("compact_stall"),
    compact_success: total("compact_success"),
    compact_fail: total("compact_fail"),
    thp_fault_alloc: total("thp_fault_alloc"),
    thp_collapse_alloc: total("thp_collapse_alloc"),
    thp_split_page: total("thp_split_page"),
    oom_kill: total("oom_kill"),
    direct_reclaim_rate: perSecond("pgscan_direct"),
    compact_stall_rate: perSecond("compact_stall"),
    thp_split_rate: perSecond("thp_split_page"),
    oom_kill_rate: perSecond("oom_kill")
  })
}

const nodes = "sys/devices/system/node" as const

const readNodes = Effect.gen(function*() {
  const names = (yield* readNames(nodes)).filter((name) => /^node\d{1,10}$/.test(name))
  return yield* Effect.forEach(
    names,
    (name) => Effect.zip(Effect.succeed(name), readCounters(`${nodes}/${name}/numastat`))
  )
})

const readCounters = (file: File) => Effect.map(readText(file), (text) => ProcFile.counters(text ?? ""))

/** Percent of the pages that came to this node in the sample though they were meant for another. */
export const missRatio = (numastat: Sample<Counters>): number | undefined => {
  const hits = rate(numastat, (counters) => counters.get("numa_hit"))
  const misses = rate(numastat, (counters) => counters.get("numa_miss"))
  if (hits === undefined || misses === undefined) return undefined
  return misses === 0 ? 0 : 100 * misses / (hits + misses)
}

const numaNode = Effect.fnUntraced(function*(name: string, numastat: Sample<Counters>) {
  const meminfo = yield* readCounters(`${nodes}/${name}/meminfo`)
  const distance = (yield* readText(`${nodes}/${name}/distance`)) ?? ""
  const node: NumaNode = ProcFile.known({
    node: Number(name.slice("node".length)),
    mem_total_bytes: ProcFile.kibibytes(meminfo.get("MemTotal")),
    mem_free_bytes: ProcFile.kibibytes(meminfo.get("MemFree")),
    numa_hit: numastat.after.get("numa_hit"),
    numa_miss: numastat.after.get("numa_miss"),
    numa_foreign: numastat.after.get("numa_foreign"),
    miss_ratio: missRatio(numastat),
    distance: ProcFile.words(distance).flatMap((word) => ProcFile.number(word) ?? []),
    cpus: yield* readText(`${nodes}/${name}/cpulist`)
  })
  return node
})

const readMeminfo = Effect.gen(function*() {
  const meminfo = parseMeminfo(yield* needText("proc/meminfo"))
  return meminfo ?? (yield* new SourceMalformed({ path: "/proc/meminfo", expected: "MemTotal and MemFree" }))
})

const collect = Effect.gen(function*() {
  const { after, before, seconds } = yield* sample(
    Effect.all({ vmstat: readCounters("proc/vmstat"), nodes: readNodes })
  )
  const vmstat = { before: before.vmstat, after: after.vmstat, seconds }
  const minorFaults = (counters: Counters) => {
    const [all, major] = [counters.get("pgfault"), counters.get("pgmajfault")]
    return all === undefined || major === undefined ? undefined : all - major
  }
  const pressure = ProcFile.pressure(yield* readText("proc/pressure/memory"))
  const vm = (name: string) => readNumber(`proc/sys/vm/${name}`)
  const thp = (name: string) => Effect.map(readText(`sys/kernel/mm/transparent_hugepage/${name}`), ProcFile.chosen)
  const earlier = new Map(before.nodes)
  const data: MemoryData = ProcFile.known({
    sample_seconds: seconds,
    ...yield* readMeminfo,
    major_faults: after.vmstat.get("pgmajfault"),
    minor_faults: minorFaults(after.vmstat),
    major_faults_per_sec: rate(vmstat, (counters) => counters.get("pgmajfault")),
    minor_faults_per_sec: rate(vmstat, minorFaults),
    swappiness: yield* vm("swappiness"),
    overcommit_memory: yield* vm("overcommit_memory"),
    overcommit_ratio: yield* vm("overcommit_ratio"),
    dirty_ratio: yield* vm("dirty_ratio"),
    dirty_background_ratio: yield* vm("dirty_background_ratio"),
    psi_some_10: pressure.some10,
    psi_some_60: pressure.some60,
    psi_full_10: pressure.full10,
    psi_full_60: pressure.full60,
    thp_enabled: yield* thp("enabled"),
    thp_defrag: yield* thp("defrag"),
    min_free_kbytes: yield* vm("min_free_kbytes"),
    watermark_scale_factor: yield* vm("watermark_scale_factor"),
    numa_nodes: yield* Effect.forEach(
      after.nodes,
      ([name, numastat]) => numaNode(name, { before: earlier.get(name) ?? new Map(), after: numastat, seconds })
    ),
    buddy_info: parseBuddyinfo((yield* readText("proc/buddyinfo")) ?? ""),
    reclaim: after.vmstat.size === 0 ? undefined : reclaim(vmstat)
  })
  return { data, errors: [] } satisfies Collected<MemoryData>
})

export const memoryInfo = Collect.make("memory_info", {
  category: "memory",
  available: where("proc/meminfo"),
  collect
})
