/**
 * `disk_stats`: what whole block devices did.
 */
import { Collect } from "@effect-orchestra/workflow"
import { Effect, Schema } from "effect"
import * as ProcFile from "../ProcFile.ts"
import { needText, readNames, readNumber, readText } from "../Roots.ts"
import { rise, type Sample, sample } from "../Sampling.ts"
import { type Collected, where } from "./Collected.ts"

/** Operations, bytes and times are those of the sample, not since boot. */
export const DiskDevice = Schema.Struct({
  name: Schema.String,
  read_ops: Schema.Finite,
  write_ops: Schema.Finite,
  read_bytes: Schema.Finite,
  write_bytes: Schema.Finite,
  /** Requests under way at the end of the sample. */
  io_in_progress: Schema.Finite,
  /** Milliseconds of the sample with a request under way. */
  io_time_ms: Schema.Finite,
  weighted_io_ms: Schema.Finite,
  /** `io_time_ms` in percent of the time that really passed, at most 100. */
  utilization_pct: Schema.Finite,
  /** 0 for a device without requests; left out where requests waited and none was done. */
  avg_latency_ms: Schema.optionalKey(Schema.Finite),
  scheduler: Schema.optionalKey(Schema.String),
  queue_depth: Schema.optionalKey(Schema.Finite),
  rotational: Schema.optionalKey(Schema.Boolean),
  read_ahead_kb: Schema.optionalKey(Schema.Finite)
})

export type DiskDevice = typeof DiskDevice.Type

export const DiskData = Schema.Struct({
  sample_seconds: Schema.Finite,
  devices: Schema.Array(DiskDevice),
  total_ops: Schema.Finite,
  read_ops: Schema.Finite,
  write_ops: Schema.Finite,
  psi_some_10: Schema.optionalKey(Schema.Finite),
  psi_some_60: Schema.optionalKey(Schema.Finite)
})
export type DiskData = typeof DiskData.Type

/** A line of `/proc/diskstats`, since boot. */
interface DiskCounters {
  readonly reads: number
  readonly sectorsRead: number
  readonly writes: number
  readonly sectorsWritten: number
  readonly inProgress: number
  readonly ioMs: number
  readonly weightedMs: number
}

/** `/proc/diskstats`, by device. A line of 2.6 with fewer numbers is that of a partition. */
export const parseDiskstats = (text: string): ReadonlyMap<string, DiskCounters> =>
  new Map(
    ProcFile.lines(text).flatMap((line) => {
      const [, , name, ...values] = ProcFile.words(line)
      const [reads, , sectorsRead, , writes, , sectorsWritten, , inProgress, ioMs, weightedMs] = values.map(
        ProcFile.number
      )
      const counters = { reads, sectorsRead, writes, sectorsWritten, inProgress, ioMs, weightedMs }
      return name === undefined || !isComplete(counters) ? [] : [[name, counters]]
    })
  )

const isComplete = (
  counters: { readonly [Name in keyof DiskCounters]: number | undefined }
): counters is DiskCounters => Object.values(counters).every(Number.isFinite)

/** Whole devices, in `/sys/block` and in `diskstats`, that are nothing to wait for: memory, images, drives without a medium. */
export const isVirtual = (name: string) => /^(loop|ram|zram|dm-|sr|fd)\d/.test(name)

/** Whether the name is that of a part of a device: `sda1`, `nvme0n1p2`, `mmcblk0p1`. */
export const isPartition = (name: string) => /^(([shv]|xv)d[a-z]+\d+|(nvme\d+n\d+|mmcblk\d+)p\d+)$/.test(name)

/** A sector of these files has 512 bytes, whatever the device says of its own. */
const sector = 512

export const deviceOf = (name: string, { after, before, seconds }: Sample<DiskCounters>): DiskDevice => {
  const over = (of: keyof DiskCounters) => rise(before[of], after[of])
  const ops = over("reads") + over("writes")
  const weighted = over("weightedMs")
  return ProcFile.known({
    name,
    read_ops: over("reads"),
    write_ops: over("writes"),
    read_bytes: over("sectorsRead") * sector,
    write_bytes: over("sectorsWritten") * sector,
    io_in_progress: after.inProgress,
    io_time_ms: over("ioMs"),
    weighted_io_ms: weighted,
    utilization_pct: seconds > 0 ? Math.min(100, over("ioMs") / (seconds * 10)) : 0,
    // Requests that waited all the time without one being done have no latency yet, and not one of 0.
    avg_latency_ms: ops > 0 ? weighted / ops : weighted > 0 ? undefined : 0
  })
}

const withQueue = Effect.fnUntraced(function*(device: DiskDevice) {
  const queue = `sys/block/${device.name.replaceAll("/", "!")}/queue` as const
  const scheduler = yield* readText(`${queue}/scheduler`)
  const rotational = yield* readNumber(`${queue}/rotational`)
  const described: DiskDevice = {
    ...device,
    ...ProcFile.known({
      // A device with one scheduler to choose from shows it without brackets.
      scheduler: ProcFile.chosen(scheduler) ?? scheduler,
      queue_depth: yield* readNumber(`${queue}/nr_requests`),
      rotational: rotational === undefined ? undefined : rotational === 1,
      read_ahead_kb: yield* readNumber(`${queue}/read_ahead_kb`)
    })
  }
  return described
})

const collect = Effect.gen(function*() {
  const { after, before, seconds } = yield* sample(Effect.map(needText("proc/diskstats"), parseDiskstats))
  const whole = new Set((yield* readNames("sys/block")).map((name) => name.replaceAll("!", "/")))
  const devices = Array.from(after).flatMap(([name, now]) => {
    const then = before.get(name)
    const skipped = isVirtual(name) || (whole.size > 0 ? !whole.has(name) : isPartition(name))
    return then === undefined || skipped ? [] : [deviceOf(name, { before: then, after: now, seconds })]
  })
  const sum = (count: (device: DiskDevice) => number) => devices.reduce((total, device) => total + count(device), 0)
  const pressure = ProcFile.pressure(yield* readText("proc/pressure/io"))
  const data: DiskData = ProcFile.known({
    sample_seconds: seconds,
    devices: yield* Effect.forEach(devices, withQueue),
    total_ops: sum(({ read_ops, write_ops }) => read_ops + write_ops),
    read_ops: sum(({ read_ops }) => read_ops),
    write_ops: sum(({ write_ops }) => write_ops),
    psi_some_10: pressure.some10,
    psi_some_60: pressure.some60
  })
  return { data, errors: [] } satisfies Collected<DiskData>
})

export const diskStats = Collect.make("disk_stats", {
  category: "disk",
  available: where("proc/diskstats"),
  collect
})
