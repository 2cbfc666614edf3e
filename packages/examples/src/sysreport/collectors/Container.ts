/**
 * `container_info`: the control group that this program runs in, and what it allows.
 */
import { Collect } from "@effect-orchestra/workflow"
import { Effect, type FileSystem, Schema } from "effect"
import * as ProcFile from "../ProcFile.ts"
import { type File, isThere, needText, readNumber, readText, type Roots } from "../Roots.ts"
import { rate, sample } from "../Sampling.ts"
import { type Collected, where } from "./Collected.ts"

export const ContainerData = Schema.Struct({
  sample_seconds: Schema.Finite,
  runtime: Schema.Literals(["kubernetes", "docker", "lxc", "none"]),
  cgroup_version: Schema.optionalKey(Schema.Literals([1, 2])),
  cgroup_path: Schema.optionalKey(Schema.String),
  container_id: Schema.optionalKey(Schema.String),
  pod_name: Schema.optionalKey(Schema.String),
  namespace: Schema.optionalKey(Schema.String),
  /** Microseconds of processor time in each period; left out without a limit. */
  cpu_quota: Schema.optionalKey(Schema.Finite),
  cpu_period: Schema.optionalKey(Schema.Finite),
  /** Since the group was made. */
  cpu_throttled_periods: Schema.optionalKey(Schema.Finite),
  cpu_throttled_time_us: Schema.optionalKey(Schema.Finite),
  cpu_throttled_periods_per_sec: Schema.optionalKey(Schema.Finite),
  cpu_throttled_us_per_sec: Schema.optionalKey(Schema.Finite),
  /** Processors in use, over the sample. */
  cpu_usage_cores: Schema.optionalKey(Schema.Finite),
  /** `cpu_usage_cores` in percent of what the quota allows. */
  cpu_quota_used_pct: Schema.optionalKey(Schema.Finite),
  /** Left out without a limit. */
  memory_limit_bytes: Schema.optionalKey(Schema.Finite),
  memory_usage_bytes: Schema.optionalKey(Schema.Finite),
  /** The usage without cached files that can be dropped at once: what counts against the limit before the OOM killer does. */
  memory_working_set_bytes: Schema.optionalKey(Schema.Finite)
})
export type ContainerData = typeof ContainerData.Type

/** `/proc/[pid]/cgroup`: the path of the group by controller; that of version 2 is under "". */
export const parseCgroup = (text: string): ReadonlyMap<string, string> =>
  new Map(
    ProcFile.lines(text).flatMap((line) => {
      const [, controllers, path] = /^\d+:([^:]*):(\/.*)$/.exec(line) ?? []
      return controllers === undefined || path === undefined
        ? []
        : controllers.split(",").map((controller) => [controller, path] as const)
    })
  )

/** The variables of `/proc/[pid]/environ`. */
export const parseEnvironment = (text: string): ReadonlyMap<string, string> =>
  new Map(
    text.split("\0").flatMap((entry) => {
      const equals = entry.indexOf("=")
      return equals < 1 ? [] : [[entry.slice(0, equals), entry.slice(equals + 1)]]
    })
  )

/** `cpu.max`: the quota and the period in microseconds; `undefined` for `max`. */
export const parseCpuMax = (text: string | undefined): CpuLimit | undefined => {
  const [quota, period] = ProcFile.words(text ?? "").map(ProcFile.number)
  return limitOf(quota, period)
}

/** A group of the first version has a quota of -1 where it has none. */
const limitOf = (quota: number | undefined, period: number | undefined): CpuLimit | undefined =>
  quota === undefined || quota <= 0 || period === undefined || period <= 0 ? undefined : { quota, period }

/** Names of groups and of mounts have the whole id of a container, of 64 digits. */
export const containerId = (text: string): string | undefined =>
  /(?:^|[/:-])([0-9a-f]{64})(?![0-9a-f])/m.exec(text)?.[1]

/** Which runtime made this container, as far as what it leaves in it tells. */
export const runtimeOf = (traces: {
  /** `/proc/self/cgroup` */
  readonly cgroup: string
  /** `/proc/self/mountinfo` */
  readonly mounts: string
  readonly environment: ReadonlyMap<string, string>
  /** The environment of the first process. */
  readonly init: ReadonlyMap<string, string>
  readonly dockerenv: boolean
}): ContainerData["runtime"] => {
  const { cgroup, dockerenv, environment, init, mounts } = traces
  if (cgroup.includes("kubepods") || environment.has("KUBERNETES_SERVICE_HOST")) return "kubernetes"
  if (dockerenv || /docker[/-]/.test(cgroup) || mounts.includes("/docker/containers/")) return "docker"
  if (init.get("container")?.startsWith("lxc") === true || /\/lxc[./]/.test(cgroup)) return "lxc"
  return "none"
}

/**
 * The directories of a group and of those that it is in, its own first: what a group allows holds for all in it. Groups
 * that a container cannot see have names that lead out of what is mounted.
 */
const upwards = (mount: File, path = "/"): ReadonlyArray<File> => {
  const directories = [mount]
  for (const name of path.split("/")) {
    if (name !== "" && name !== "..") directories.unshift(`${directories[0] ?? mount}/${name}`)
  }
  return directories
}

/** Where a version of control groups has what, in a directory of its own for each controller. */
interface Layout {
  readonly version: 1 | 2
  readonly cpu: ReadonlyArray<File>
  readonly cpuLimit: (directory: File) => Effect.Effect<CpuLimit | undefined, never, Source>
  readonly cpuUse: (directory: File) => Effect.Effect<CpuUse, never, Source>
  readonly memory: ReadonlyArray<File>
  readonly memoryLimit: (directory: File) => Effect.Effect<number | undefined, never, Source>
  readonly memoryUsage: string
  /** The line of `memory.stat` with the cached files that nobody used lately. */
  readonly inactiveFile: string
}
type Source = Roots | FileSystem.FileSystem

interface CpuLimit {
  readonly quota: number
  readonly period: number
}

/** Since the group was made, times in microseconds. */
interface CpuUse {
  readonly used: number | undefined
  readonly throttledPeriods: number | undefined
  readonly throttledTime: number | undefined
}

const readCounters = (file: File) => Effect.map(readText(file), (text) => ProcFile.counters(text ?? ""))
const thousandth = (count: number | undefined) => count === undefined ? undefined : count / 1000

const unified = (groups: ReadonlyMap<string, string>): Layout => {
  const directories = upwards("sys/fs/cgroup", groups.get(""))
  return {
    version: 2,
    cpu: directories,
    cpuLimit: (directory) => Effect.map(readText(`${directory}/cpu.max`), parseCpuMax),
    cpuUse: (directory) =>
      Effect.map(readCounters(`${directory}/cpu.stat`), (stat) => ({
        used: stat.get("usage_usec"),
        throttledPeriods: stat.get("nr_throttled"),
        throttledTime: stat.get("throttled_usec")
      })),
    memory: directories,
    memoryLimit: (directory) => readNumber(`${directory}/memory.max`),
    memoryUsage: "memory.current",
    inactiveFile: "inactive_file"
  }
}

const separate = (groups: ReadonlyMap<string, string>): Layout => ({
  version: 1,
  cpu: upwards("sys/fs/cgroup/cpu", groups.get("cpu")),
  cpuLimit: Effect.fnUntraced(function*(directory) {
    return limitOf(
      yield* readNumber(`${directory}/cpu.cfs_quota_us`),
      yield* readNumber(`${directory}/cpu.cfs_period_us`)
    )
  }),
  cpuUse: Effect.fnUntraced(function*(directory) {
    const stat = yield* readCounters(`${directory}/cpu.stat`)
    const used = yield* readNumber(`${directory.replace("cgroup/cpu", "cgroup/cpuacct") as File}/cpuacct.usage`)
    return {
      used: thousandth(used),
      throttledPeriods: stat.get("nr_throttled"),
      throttledTime: thousandth(stat.get("throttled_time"))
    }
  }),
  memory: upwards("sys/fs/cgroup/memory", groups.get("memory")),
  // Without a limit it is the greatest number of pages there can be.
  memoryLimit: (directory) =>
    Effect.map(
      readNumber(`${directory}/memory.limit_in_bytes`),
      (limit) => limit !== undefined && limit < 2 ** 62 ? limit : undefined
    ),
  memoryUsage: "memory.usage_in_bytes",
  inactiveFile: "total_inactive_file"
})

/** The nearest directory that has a limit, with the limit; else the nearest that is there at all. */
const limiting = Effect.fnUntraced(function*<A, R>(
  directories: ReadonlyArray<File>,
  find: (directory: File) => Effect.Effect<A | undefined, never, R>
) {
  let own: File | undefined
  for (const directory of directories) {
    const limit = yield* find(directory)
    if (limit !== undefined) return { directory, limit }
    if (own === undefined && (yield* isThere(directory))) own = directory
  }
  return own && { directory: own, limit: undefined }
})

const cpuOf = Effect.fnUntraced(function*({ cpu, cpuLimit, cpuUse }: Layout) {
  const group = yield* limiting(cpu, cpuLimit)
  const use = yield* sample(group === undefined ? Effect.succeed(nothing) : cpuUse(group.directory))
  const perSecond = (of: keyof CpuUse) => rate(use, (use) => use[of])
  const limit = group?.limit
  const usedPerSecond = perSecond("used")
  const cores = usedPerSecond === undefined ? undefined : usedPerSecond / 1_000_000
  return {
    sample_seconds: use.seconds,
    cpu_quota: limit?.quota,
    cpu_period: limit?.period,
    cpu_throttled_periods: use.after.throttledPeriods,
    cpu_throttled_time_us: use.after.throttledTime,
    cpu_throttled_periods_per_sec: perSecond("throttledPeriods"),
    cpu_throttled_us_per_sec: perSecond("throttledTime"),
    cpu_usage_cores: cores,
    cpu_quota_used_pct: limit === undefined || cores === undefined
      ? undefined
      : 100 * cores * limit.period / limit.quota
  }
})

const nothing: CpuUse = { used: undefined, throttledPeriods: undefined, throttledTime: undefined }

const memoryOf = Effect.fnUntraced(function*({ inactiveFile, memory, memoryLimit, memoryUsage }: Layout) {
  const group = yield* limiting(memory, memoryLimit)
  if (group === undefined) return {}
  const usage = yield* readNumber(`${group.directory}/${memoryUsage}`)
  const inactive = (yield* readCounters(`${group.directory}/memory.stat`)).get(inactiveFile)
  return {
    memory_limit_bytes: group.limit,
    memory_usage_bytes: usage,
    memory_working_set_bytes: usage === undefined || inactive === undefined ? undefined : Math.max(0, usage - inactive)
  }
})

const collect = Effect.gen(function*() {
  const cgroup = yield* needText("proc/self/cgroup")
  const mounts = (yield* readText("proc/self/mountinfo")) ?? ""
  const environment = parseEnvironment((yield* readText("proc/self/environ")) ?? "")
  const runtime = runtimeOf({
    cgroup,
    mounts,
    environment,
    init: parseEnvironment((yield* readText("proc/1/environ")) ?? ""),
    dockerenv: yield* isThere("proc/self/root/.dockerenv")
  })
  const groups = parseCgroup(cgroup)
  // A machine may have both: then the controllers that limit are where the first version lists them.
  const layout = groups.has("cpu") || groups.has("memory") ? separate(groups) : unified(groups)
  const kubernetes = runtime === "kubernetes"
  const data: ContainerData = {
    runtime,
    cgroup_version: layout.version,
    ...ProcFile.known({
      cgroup_path: groups.get(layout.version === 2 ? "" : "memory"),
      container_id: containerId(cgroup) ?? containerId(mounts),
      pod_name: kubernetes ? yield* readText("etc/hostname") : undefined,
      namespace: kubernetes
        ? yield* readText("proc/self/root/var/run/secrets/kubernetes.io/serviceaccount/namespace")
        : undefined,
      ...yield* cpuOf(layout),
      ...yield* memoryOf(layout)
    })
  }
  return { data, errors: [] } satisfies Collected<ContainerData>
})

export const containerInfo = Collect.make("container_info", {
  category: "container",
  available: where("proc/self/cgroup"),
  collect
})
