/** The summary: how it goes, what is wrong, what to look at first. */
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Charts } from "../Charts.ts"
import { EventLog } from "../EventLog.ts"
import { Feed } from "../Feed.ts"
import type { Lint, Overview, OverviewQuery, TelemetryHealth } from "./AnswerSchema.ts"
import { stamp } from "./Lists.ts"
import { Redactor } from "./Redact.ts"
import { rowOf, stuckText } from "./Rows.ts"
import { survey } from "./Survey.ts"
import { totalsOf } from "./Totals.ts"
import { effectVersion, version } from "./Version.ts"

/** Supervisors that gave up are told of for so long, in milliseconds. */
const told = 15 * 60_000

const mostLints = 100

/**
 * The summary; what is found by a walk over the tree may be a second old. Of charts it has those `points` that it is asked
 * for.
 *
 * @category operations
 * @since 0.1.0
 */
export const overviewWith = Effect.fnUntraced(function*({ points = 0 }: typeof OverviewQuery.Type) {
  const { kernel, name, status } = yield* Orchestrator
  const redact = yield* Redactor
  const log = Option.getOrUndefined(yield* Effect.serviceOption(EventLog))
  const charts = Option.getOrUndefined(yield* Effect.serviceOption(Charts))
  const feed = Option.getOrUndefined(yield* Effect.serviceOption(Feed))
  if (charts !== undefined) yield* charts.look
  const { abandoned, cpu, lints, mailboxes, problemCount, problems } = yield* survey(kernel)
  const { active, restarts, starts } = totalsOf(kernel)
  const header = yield* stamp
  const telemetry: TelemetryHealth = {
    events: { held: log?.all().length ?? 0, limit: log?.limit ?? 0, evicted: log?.evicted() ?? 0 },
    streams: feed?.stats() ?? { active: 0, limit: 0, dropped: 0 },
    templates: { held: Math.min(kernel.templates.size, 200), limit: 200 },
    history: { held: kernel.history.ended.all.length, limit: kernel.history.ended.limit }
  }
  const memory = process.memoryUsage()
  const used = process.cpuUsage()
  const found: Overview = {
    ...header,
    name,
    status: yield* status,
    since: kernel.since,
    nodes: kernel.nodes.size + 1,
    counts: { ...active, abandoned, problems: problemCount },
    starts,
    restarts,
    rates: log?.minute() ?? { starts: 0, restarts: 0, failures: 0 },
    problems: problems.map((node) => rowOf(node, redact)),
    lints: [...stuckSagas(log, header.generatedAt), ...gaveUp(log, header.generatedAt), ...lints, ...dropped(telemetry)]
      .slice(0, mostLints),
    top: { cpu, mailboxes },
    charts: charts === undefined
      ? { stepMs: 1000, until: header.generatedAt, series: [] }
      : yield* charts.read(points),
    telemetry,
    process: {
      pid: process.pid,
      node: process.versions.node,
      uptimeMs: Math.round(process.uptime() * 1000),
      rssBytes: memory.rss,
      heapUsedBytes: memory.heapUsed,
      heapTotalBytes: memory.heapTotal,
      cpuMs: Math.round((used.user + used.system) / 1000)
    },
    build: { version, effect: effectVersion, platform: `${process.platform} ${process.arch}` }
  }
  return found
})

/**
 * The summary without charts.
 *
 * @category operations
 * @since 0.1.0
 */
export const overview = overviewWith({})

const gaveUp = (log: EventLog["Service"] | undefined, now: number): ReadonlyArray<Lint> =>
  (log?.gaveUp() ?? []).filter(({ at }) => now - at <= told).toReversed().map(({ at, attempts, child, id, path }) => ({
    rule: "gave_up",
    severity: "error",
    id,
    path,
    text: `gave up over ${child} after ${attempts} ${attempts === 1 ? "restart" : "restarts"}`,
    since: at
  }))

const stuckSagas = (log: EventLog["Service"] | undefined, now: number): ReadonlyArray<Lint> =>
  (log?.stuckSagas() ?? []).filter(({ at }) => now - at <= told).toReversed().map(({ at, id, path, steps }) => ({
    rule: "saga_stuck",
    severity: "error",
    id,
    path,
    text: stuckText(steps),
    since: at
  }))

const dropped = ({ streams }: TelemetryHealth): ReadonlyArray<Lint> =>
  streams.dropped === 0 ? [] : [{
    rule: "telemetry_dropped",
    severity: "warning",
    id: null,
    path: null,
    text: `${streams.dropped} events came faster than the pages that were open could read`,
    since: null
  }]
