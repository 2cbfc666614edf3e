/**
 * One run of the collectors of a profile, made into a report.
 */
import * as NodeMain from "@effect-orchestra/core/NodeMain"
import { Collect } from "@effect-orchestra/workflow"
import { Clock, DateTime, Effect, Fiber, type FileSystem, Schema } from "effect"
import { hostname, machine } from "node:os"
import { analyze } from "./Analysis.ts"
import * as Bcc from "./Bcc.ts"
import * as Capabilities from "./Capabilities.ts"
import type { Collected } from "./collectors/Collected.ts"
import * as Tier1 from "./collectors/Collectors.ts"
import { Commands } from "./Commands.ts"
import * as GoDuration from "./GoDuration.ts"
import * as Observer from "./Observer.ts"
import * as ProcFile from "./ProcFile.ts"
import * as Profiles from "./Profiles.ts"
import * as Progress from "./Progress.ts"
import { Categories, type Report, schemaVersion, type Status } from "./Report.ts"
import { isThere, needText, readText, Roots } from "./Roots.ts"
import { Sampling } from "./Sampling.ts"
import { ProcNotThere } from "./SysreportError.ts"

export const version = "0.1.0"

export interface Request extends Profiles.Request {
  /** The name of a profile, or of a file that holds one. */
  readonly profile: string
  readonly quiet: boolean
  /** Whether the roots are those of this machine. */
  readonly ofThisMachine: boolean
}

type Collector = Collect.Collector<Collected<unknown>, Roots | Commands | FileSystem.FileSystem>

export const collectors: ReadonlyArray<Collector> = [...Tier1.collectors, ...Bcc.collectors]

/**
 * Collects until all is there, the time is up or a signal comes, and returns the report of it. Whatever is wrong with the
 * request is found before anything is measured.
 */
export const collect = Effect.fnUntraced(function*(request: Request) {
  // From here to the end of the program: what a signal cuts short still becomes a report that is written.
  const signal = yield* Effect.forkChild(NodeMain.firstSignal, { startImmediately: true })
  const roots = yield* Roots
  const commands = yield* Commands
  const profile = yield* Profiles.find(request.profile)
  const selected = yield* Profiles.select(collectors, profile, request)
  if (!(yield* isThere("proc/stat"))) return yield* new ProcNotThere({ root: roots.proc })

  const clock = yield* Clock.Clock
  const started = clock.monotonicTimeNanosUnsafe()
  const tell = Progress.teller(request.quiet, () => Number(clock.monotonicTimeNanosUnsafe() - started) / 1e6)
  const timestamp = yield* DateTime.now
  const taken = yield* Observer.watch

  const sampled = selected.map((collector) => ({
    ...collector,
    collect: Effect.provideService(collector.collect, Sampling, {
      interval: Profiles.sampleOf(profile, request, collector.category)
    })
  }))
  const found = yield* Collect.run(sampled, {
    name: "sysreport",
    deadline: Profiles.deadlineOf(profile, request),
    concurrency: profile.concurrency,
    cut: Fiber.join(signal),
    // A program has 3 seconds to end, and the process 5 when a signal has come.
    grace: "4 seconds",
    onProgress: (progress) => tell(Progress.describe(progress))
  })

  const categories = yield* categoriesOf(found)
  const { summary } = analyze(categories)
  const container = categories.container?.[0]?.data
  const system = categories.system?.find((result) => result.collector === "system_info")?.data
  const status = found.complete ? "complete" : found.missing.some(wasInterrupted) ? "interrupted" : "partial"
  const report: Report = {
    metadata: {
      tool: "sysreport",
      version,
      schema_version: schemaVersion,
      hostname: (yield* readText("proc/sys/kernel/hostname")) ?? hostname(),
      timestamp,
      duration: GoDuration.format(request.duration ?? profile.duration),
      profile: profile.name,
      focus_areas: request.focus,
      ...ProcFile.known({ kernel_version: yield* readText("proc/sys/kernel/osrelease"), memory_gb: yield* memory }),
      arch: machine(),
      cpus: yield* processors,
      capabilities: yield* Capabilities.find(request.ofThisMachine),
      ...ProcFile.known({ container_env: container?.runtime, cgroup_version: container?.cgroup_version }),
      observer_overhead: {
        self_pid: process.pid,
        child_pids: [...yield* commands.pids],
        ...yield* taken
      },
      status
    },
    ...ProcFile.known({ system }),
    categories,
    summary,
    timeline: timelineOf(found)
  }
  const withData = Object.values(categories).filter((results) => results.some(({ data }) => data !== undefined)).length
  tell(
    `Collection ${status}. ${withData} categories, ` +
      `health=${summary.health_score === null ? "unknown" : `${summary.health_score}/100`}, ` +
      `anomalies=${summary.anomalies.length}`
  )
  return report
})

const wasInterrupted = ({ why }: Collect.Missing): boolean => why._tag === "Cut" && why.by === "signal"

type Found = Collect.Report<Collected<unknown>>

/** What the timeline and the results both say of a collector. */
const runOf = (found: Found, timing: Collect.Timing) => {
  const { durationMillis, name, startedAt } = timing
  const missing = found.missing.find((missing) => missing.name === name)
  const times = startedAt === null ? {} : {
    start_time: DateTime.makeUnsafe(startedAt),
    end_time: DateTime.makeUnsafe(startedAt + durationMillis)
  }
  return ProcFile.known({
    ...times,
    status: statusOf(timing, missing),
    duration_ms: rounded(durationMillis),
    stuck: missing?.stuck === true ? true : undefined,
    reason: missing === undefined
      ? found.skipped.find((skipped) => skipped.name === name)?.reason
      : Collect.reason(missing)
  })
}

const statusOf = ({ status }: Collect.Timing, missing: Collect.Missing | undefined): Status =>
  status === "stuck" ? missing?.why._tag === "TimedOut" ? "timeout" : "interrupted" : status

const rounded = (millis: number): number => Math.round(millis * 10) / 10

const timelineOf = (found: Found): Report["timeline"] =>
  found.timeline.map((timing) => ({
    collector: timing.name,
    category: timing.category,
    ...runOf(found, timing),
    waited_ms: rounded(timing.waitedMillis)
  }))

/** The results of this program's own collectors; those that it only declares stand in the timeline. */
const categoriesOf = (found: Found) => {
  const results = Object.values(found.results).flat()
  const categories: Record<string, Array<unknown>> = {}
  for (const timing of found.timeline) {
    const { category, name, startedAt } = timing
    if (Bcc.collectors.some((collector) => collector.name === name)) continue
    const result = results.find((result) => result.name === name)
    const { status, ...run } = runOf(found, timing)
    const errors = result?.value.errors ?? []
    ;(categories[category] ??= []).push({
      collector: name,
      category,
      tier: result?.tier ?? 1,
      ...run,
      status: status === "ok" && errors.length > 0 ? "partial" : status,
      attempts: startedAt === null || status === "skipped" ? 0 : 1,
      ...ProcFile.known({ data: result?.value.data }),
      errors: run.reason !== undefined && status !== "skipped" ? [...errors, run.reason] : errors
    })
  }
  // Each collector has its place in the schema, which says what its data are.
  return Effect.orDie(Schema.decodeUnknownEffect(Schema.toType(Categories))(categories))
}

const processors = Effect.map(
  Effect.orElseSucceed(needText("proc/stat"), () => ""),
  (stat) => stat.match(/^cpu\d/gm)?.length ?? 0
)

const memory = Effect.map(readText("proc/meminfo"), (meminfo) => {
  const kibibytes = ProcFile.counters(meminfo ?? "").get("MemTotal")
  return kibibytes === undefined ? undefined : Math.round(kibibytes / 1024 / 1024 * 10) / 10
})
