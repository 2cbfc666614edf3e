/**
 * `system_info`: what machine this is.
 */
import { Collect } from "@effect-orchestra/workflow"
import { Effect, Schema } from "effect"
import * as ProcFile from "../ProcFile.ts"
import { needText, readNames, readNumber, readText } from "../Roots.ts"
import { SourceMalformed } from "../SourceError.ts"
import { ask, type Collected, where } from "./Collected.ts"
import { isVirtual } from "./Disk.ts"

export const Filesystem = Schema.Struct({
  mount: Schema.String,
  device: Schema.String,
  type: Schema.String,
  /** GiB, here and below. */
  size_gb: Schema.Finite,
  used_pct: Schema.Finite
})

export type Filesystem = typeof Filesystem.Type

export const BlockDevice = Schema.Struct({
  name: Schema.String,
  type: Schema.optionalKey(Schema.Literals(["ssd", "hdd"])),
  size_gb: Schema.Finite,
  model: Schema.optionalKey(Schema.String)
})

export type BlockDevice = typeof BlockDevice.Type

export const LogEntry = Schema.Struct({
  time: Schema.String,
  level: Schema.String,
  unit: Schema.String,
  message: Schema.String
})

export type LogEntry = typeof LogEntry.Type

export const SystemData = Schema.Struct({
  os: Schema.optionalKey(Schema.String),
  kernel: Schema.optionalKey(Schema.String),
  uptime_seconds: Schema.Finite,
  boot_params: Schema.optionalKey(Schema.String),
  /** Left out where `df` is not there. */
  filesystems: Schema.optionalKey(Schema.Array(Filesystem)),
  block_devices: Schema.Array(BlockDevice),
  /** The last 50 errors and warnings of the kernel; left out where they cannot be read. */
  dmesg_errors: Schema.optionalKey(Schema.Array(LogEntry)),
  journal_errors: Schema.optionalKey(Schema.Array(LogEntry))
})
export type SystemData = typeof SystemData.Type

const gib = 2 ** 30

/** `/etc/os-release`: the name of the system for people. */
export const parsePrettyName = (text: string): string | undefined => /^PRETTY_NAME=(["']?)(.*)\1$/m.exec(text)?.[2]

/** `/proc/version`: the release of the kernel. */
export const parseVersion = (text: string): string | undefined => /^Linux version (\S+)/.exec(text)?.[1]

/**
 * `df -P -T`: device, type, 1024-blocks, used, available, capacity, mount. File systems without a size are left out, and
 * those that are images, which are always full.
 */
export const parseDf = (text: string): ReadonlyArray<Filesystem> =>
  ProcFile.lines(text).flatMap((line) => {
    const [, device, type, blocks, used, available, mount] =
      /^(.+?)\s+(\S+)\s+(\d+)\s+(\d+)\s+(-?\d+)\s+(?:\d+%|-)\s+(\/.*)$/.exec(line) ?? []
    const size = Number(blocks)
    if (mount === undefined || device === undefined || type === undefined || size === 0 || images.has(type)) return []
    // As `df` does: without the blocks that only root may use.
    const usable = Number(used) + Math.max(0, Number(available))
    const used_pct = usable === 0 ? 0 : 100 * Number(used) / usable
    return [{ mount, device, type, size_gb: size * 1024 / gib, used_pct }]
  })

const images = new Set(["squashfs", "iso9660", "erofs", "udf"])

/** `dmesg -x --time-format=iso`: `kern  :warn  : 2026-11-21T06:32:27,123456+00:00 message`; the last 50 lines. */
export const parseDmesg = (text: string): ReadonlyArray<LogEntry> =>
  ProcFile.lines(text).flatMap((line) => {
    const [, unit, level, time, message] = /^(\w+)\s*:(\w+)\s*: (\S+) (.*)$/.exec(line) ?? []
    if (unit === undefined || level === undefined || time === undefined || message === undefined) return []
    return [{ time: time.replace(",", "."), level, unit, message }]
  }).slice(-50)

const blockDevice = Effect.fnUntraced(function*(name: string) {
  const sectors = (yield* readNumber(`sys/block/${name}/size`)) ?? 0
  const rotational = yield* readNumber(`sys/block/${name}/queue/rotational`)
  const device: BlockDevice = ProcFile.known({
    name: name.replaceAll("!", "/"),
    type: rotational === undefined ? undefined : rotational === 1 ? "hdd" as const : "ssd" as const,
    size_gb: sectors * 512 / gib,
    model: yield* readText(`sys/block/${name}/device/model`)
  })
  return device
})

const readUptime = Effect.gen(function*() {
  const uptime = ProcFile.number(ProcFile.words(yield* needText("proc/uptime"))[0])
  return uptime ?? (yield* new SourceMalformed({ path: "/proc/uptime", expected: "a number of seconds" }))
})

const collect = Effect.gen(function*() {
  const errors: Array<string> = []
  const df = yield* ask(errors, "df", "-P", "-T")
  const dmesg = yield* ask(errors, "dmesg", "-x", "--time-format=iso", "--nopager", "--level=emerg,alert,crit,err,warn")
  const disks = (yield* readNames("sys/block")).filter((name) => !isVirtual(name))
  const data: SystemData = ProcFile.known({
    os: parsePrettyName((yield* readText("etc/os-release")) ?? ""),
    kernel: parseVersion((yield* readText("proc/version")) ?? ""),
    uptime_seconds: yield* readUptime,
    boot_params: yield* readText("proc/cmdline"),
    filesystems: df === undefined ? undefined : parseDf(df),
    block_devices: yield* Effect.forEach(disks, blockDevice),
    dmesg_errors: dmesg === undefined ? undefined : parseDmesg(dmesg)
  })
  return { data, errors } satisfies Collected<SystemData>
})

export const systemInfo = Collect.make("system_info", {
  category: "system",
  available: where("proc/uptime"),
  collect
})
