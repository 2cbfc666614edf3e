/**
 * The document that `sysreport collect` writes and `sysreport diff` reads. Its field names are those of melisai 1.1.0;
 * what that has no word for is added: how each collector ended, when it ran, and which rules could not be judged.
 */
import { Effect, Schema } from "effect"
import { ContainerData } from "./collectors/Container.ts"
import { CpuData } from "./collectors/Cpu.ts"
import { DiskData } from "./collectors/Disk.ts"
import { GpuData } from "./collectors/Gpu.ts"
import { MemoryData } from "./collectors/Memory.ts"
import { NetworkData } from "./collectors/Network.ts"
import { ProcessData } from "./collectors/Process.ts"
import { SystemData } from "./collectors/System.ts"
import * as Document from "./Document.ts"

/** The version of this document; one that says another is not read. */
export const schemaVersion = "sysreport/1"

/** How a collector ended. `partial` has data, and says in `errors` what is left out of it. */
export const Status = Schema.Literals(["ok", "partial", "timeout", "error", "skipped", "interrupted"])
export type Status = typeof Status.Type

/** When and how a collector ran. */
const run = {
  status: Status,
  /** Left out if it never started. */
  start_time: Schema.optionalKey(Schema.DateTimeUtcFromString),
  end_time: Schema.optionalKey(Schema.DateTimeUtcFromString),
  /** From its start to its end. */
  duration_ms: Schema.Finite,
  /** It ignored its interruption and still ran when the report was made. */
  stuck: Schema.optionalKey(Schema.Boolean)
}

/** Distributions, events and stacks come from collectors of higher tiers than the files of the kernel. */
export const Histogram = Schema.Struct({
  name: Schema.String,
  unit: Schema.String,
  buckets: Schema.Array(Schema.Struct({ low: Schema.Finite, high: Schema.Finite, count: Schema.Finite })),
  total_count: Schema.Finite,
  p50: Schema.Finite,
  p90: Schema.Finite,
  p99: Schema.Finite,
  p999: Schema.Finite,
  max: Schema.Finite,
  mean: Schema.Finite
})

const resultOf = <Name extends string, Category extends string, Data extends Schema.Constraint>(
  collector: Name,
  category: Category,
  data: Data
) =>
  Schema.Struct({
    collector: Schema.Literal(collector),
    category: Schema.Literal(category),
    tier: Schema.Natural,
    ...run,
    attempts: Schema.Natural,
    /** Why there is no data. */
    reason: Schema.optionalKey(Schema.String),
    /** There with status `ok` and `partial`. */
    data: Schema.optionalKey(data),
    errors: Schema.Array(Schema.String),
    /** The output of a program was longer than what is kept of it. */
    truncated: Schema.optionalKey(Schema.Boolean),
    histograms: Schema.optionalKey(Schema.Array(Histogram)),
    events: Schema.optionalKey(Schema.Array(Schema.Struct({
      time: Schema.String,
      pid: Schema.Natural,
      comm: Schema.String,
      details: Schema.Unknown
    }))),
    stacks: Schema.optionalKey(Schema.Array(Schema.Struct({
      stack: Schema.String,
      count: Schema.Natural,
      type: Schema.String
    })))
  })

const SystemResult = resultOf("system_info", "system", SystemData)
const GpuResult = resultOf("gpu_pcie", "system", GpuData)
const categoryOf = <S extends Schema.Constraint>(result: S) => Schema.optionalKey(Schema.Array(result))

/** What the collectors found, by category. Every collector that was selected has its entry, whether it has data or not. */
export const Categories = Schema.Struct({
  cpu: categoryOf(resultOf("cpu_utilization", "cpu", CpuData)),
  memory: categoryOf(resultOf("memory_info", "memory", MemoryData)),
  disk: categoryOf(resultOf("disk_stats", "disk", DiskData)),
  network: categoryOf(resultOf("network_stats", "network", NetworkData)),
  process: categoryOf(resultOf("process_info", "process", ProcessData)),
  container: categoryOf(resultOf("container_info", "container", ContainerData)),
  system: categoryOf(Schema.Union([SystemResult, GpuResult]))
})
export type Categories = typeof Categories.Type
export type Category = keyof Categories
export type Result = NonNullable<Categories[Category]>[number]

export const Metadata = Schema.Struct({
  tool: Schema.String,
  version: Schema.String,
  schema_version: Schema.Literal(schemaVersion),
  hostname: Schema.String,
  timestamp: Schema.DateTimeUtcFromString,
  /** How long was asked for, as Go writes durations: `10s`, `1m30s`. What it took stands in the timeline. */
  duration: Schema.String,
  profile: Schema.String,
  focus_areas: Schema.Array(Schema.String),
  kernel_version: Schema.optionalKey(Schema.String),
  arch: Schema.String,
  cpus: Schema.Natural,
  memory_gb: Schema.optionalKey(Schema.Finite),
  capabilities: Schema.Array(Schema.String),
  container_env: Schema.optionalKey(Schema.String),
  cgroup_version: Schema.optionalKey(Schema.Literals([1, 2])),
  /** What this program took itself; what cannot be read is left out. */
  observer_overhead: Schema.Struct({
    self_pid: Schema.Natural,
    child_pids: Schema.Array(Schema.Natural),
    cpu_user_ms: Schema.optionalKey(Schema.Finite),
    cpu_system_ms: Schema.optionalKey(Schema.Finite),
    memory_rss_bytes: Schema.optionalKey(Schema.Finite),
    disk_read_bytes: Schema.optionalKey(Schema.Finite),
    disk_write_bytes: Schema.optionalKey(Schema.Finite),
    context_switches: Schema.optionalKey(Schema.Finite)
  }),
  /** `partial` if a collector that was selected and available has no data, `interrupted` if a signal is the reason. */
  status: Schema.Literals(["complete", "partial", "interrupted"])
})
export type Metadata = typeof Metadata.Type

export const Severity = Schema.Literals(["warning", "critical"])
export type Severity = typeof Severity.Type

export const Anomaly = Schema.Struct({
  severity: Severity,
  category: Schema.String,
  metric: Schema.String,
  message: Schema.String,
  /** With two decimals. */
  value: Schema.String,
  /** `warning=0.1, critical=1` */
  threshold: Schema.String,
  unit: Schema.String,
  /** What time the value is of. */
  window: Schema.String,
  /** The device, interface or socket that has the value, of those that could. */
  subject: Schema.optionalKey(Schema.String)
})
export type Anomaly = typeof Anomaly.Type

/** A rule without a judgement. It is neither healthy nor not. */
export const NotEvaluated = Schema.Struct({
  metric: Schema.String,
  category: Schema.String,
  reason: Schema.String
})
export type NotEvaluated = typeof NotEvaluated.Type

/** Utilization, saturation and errors of a resource; what is not known is left out. */
export const Resource = Schema.Struct({
  utilization_pct: Schema.optionalKey(Schema.Finite),
  saturation_pct: Schema.optionalKey(Schema.Finite),
  /** What waits, where that is counted and has no whole to be percent of. */
  saturation_count: Schema.optionalKey(Schema.Finite),
  errors: Schema.Natural
})
export type Resource = typeof Resource.Type

export const Resources = Schema.Struct({
  cpu: Schema.optionalKey(Resource),
  memory: Schema.optionalKey(Resource),
  disk: Schema.optionalKey(Resource),
  network: Schema.optionalKey(Resource),
  container_cpu: Schema.optionalKey(Resource),
  container_memory: Schema.optionalKey(Resource)
})
export type Resources = typeof Resources.Type

export const Hotspot = Schema.Struct({
  category: Schema.String,
  description: Schema.String,
  evidence: Schema.String
})
export type Hotspot = typeof Hotspot.Type

export const Recommendation = Schema.Struct({
  /** Its rank: 1 is what to do first. */
  priority: Schema.Natural,
  category: Schema.String,
  type: Schema.Literals(["fix", "optimization"]),
  title: Schema.String,
  commands: Schema.Array(Schema.String),
  persistent: Schema.Array(Schema.String),
  expected_impact: Schema.String,
  /** `key=value, key=value`: what in this report speaks for it. */
  evidence: Schema.String,
  source: Schema.String
})
export type Recommendation = typeof Recommendation.Type

export const Summary = Schema.Struct({
  /** Of what could be judged; null if nothing could. */
  health_score: Schema.NullOr(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 100 }))),
  /** Rules that were judged, of how many. */
  rules: Schema.Struct({ evaluated: Schema.Natural, total: Schema.Natural }),
  anomalies: Schema.Array(Anomaly),
  not_evaluated: Schema.Array(NotEvaluated),
  hotspots: Schema.Array(Hotspot),
  resources: Resources,
  recommendations: Schema.Array(Recommendation)
})
export type Summary = typeof Summary.Type

/** When a collector ran: it waited for its turn, and then took so long. */
export const Timing = Schema.Struct({
  collector: Schema.String,
  category: Schema.String,
  ...run,
  waited_ms: Schema.Finite,
  /** Why there is no data. */
  reason: Schema.optionalKey(Schema.String)
})
export type Timing = typeof Timing.Type

export const Report = Schema.Struct({
  metadata: Metadata,
  system: Schema.optionalKey(SystemData),
  categories: Categories,
  summary: Summary,
  /** In the order in which the collectors were declared. */
  timeline: Schema.Array(Timing),
  ai_context: Schema.optionalKey(Schema.Struct({
    prompt: Schema.String,
    methodology: Schema.String,
    known_patterns: Schema.Array(Schema.Unknown)
  }))
})
export type Report = typeof Report.Type

const Text = Schema.fromJsonString(Report, { space: 2 })

/** The text of a report, with a line feed at its end. */
export const encode = (report: Report): Effect.Effect<string> =>
  // A report that has its type can be written.
  Schema.encodeEffect(Text)(report).pipe(Effect.map((text) => `${text}\n`), Effect.orDie)

/** Reads what `encode` wrote, or says where it is no report. `file` is where the text is from. */
export const decode = (text: string, file: string) => Document.decode("report", file, Report, text)
