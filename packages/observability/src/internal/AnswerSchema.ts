/** The answers of the API, what it can be asked, and how it refuses. */
import { CancelledBy } from "@effect-orchestra/core/Event"
import * as Schema from "effect/Schema"
import { BusRow, Cpu, Depth, GroupRow, LastExit, MailboxRow, RoutineRow, Row, SagaRow, TopicRow } from "./RowSchema.ts"

/**
 * Routines by state, and how many nodes have a problem.
 *
 * @category models
 * @since 0.1.0
 */
export const Counts = Schema.Struct({
  pending: Schema.Int,
  starting: Schema.Int,
  running: Schema.Int,
  backoff: Schema.Int,
  stopping: Schema.Int,
  abandoned: Schema.Int,
  problems: Schema.Int
})

/** @since 0.1.0 */
export type Counts = typeof Counts.Type

const envelope = { v: Schema.Literal(1), generatedAt: Schema.Finite, instance: Schema.String }

/**
 * The rules by which the server finds what is worth a look.
 *
 * @category models
 * @since 0.1.0
 */
export const LintRule = Schema.Literals([
  "crash_loop",
  "budget",
  "gave_up",
  "mailbox_full",
  "message_age",
  "sender_blocked",
  "heartbeat_stale",
  "slow_slice",
  "never_yields",
  "stopping_past_grace",
  "mailbox_without_receiver",
  "saga_stuck",
  "telemetry_dropped"
])

/** @since 0.1.0 */
export type LintRule = typeof LintRule.Type

/**
 * Something worth a look, in words: of the node `id`, or of no node that is still there.
 *
 * @category models
 * @since 0.1.0
 */
export const Lint = Schema.Struct({
  rule: LintRule,
  severity: Schema.Literals(["error", "warning"]),
  id: Schema.NullOr(Schema.String),
  path: Schema.NullOr(Schema.String),
  text: Schema.String,
  since: Schema.NullOr(Schema.Finite)
})

/** @since 0.1.0 */
export type Lint = typeof Lint.Type

/**
 * The last minutes of one figure, one value for each `stepMs`, the last of them at `until`; `null` where nobody looked
 * and so nothing was sampled.
 *
 * @category models
 * @since 0.1.0
 */
export const Chart = Schema.Struct({
  name: Schema.String,
  unit: Schema.String,
  values: Schema.Array(Schema.NullOr(Schema.Finite))
})

/** @since 0.1.0 */
export type Chart = typeof Chart.Type

const Ref = { id: Schema.String, path: Schema.String }

/**
 * How the telemetry itself fares: what it holds, and how much of it was dropped since the start.
 *
 * @category models
 * @since 0.1.0
 */
export const TelemetryHealth = Schema.Struct({
  /** Of events that were forgotten because newer ones came, `evicted`. */
  events: Schema.Struct({ held: Schema.Int, limit: Schema.Int, evicted: Schema.Int }),
  streams: Schema.Struct({ active: Schema.Int, limit: Schema.Int, dropped: Schema.Int }),
  templates: Schema.Struct({ held: Schema.Int, limit: Schema.Int }),
  history: Schema.Struct({ held: Schema.Int, limit: Schema.Int })
})

/** @since 0.1.0 */
export type TelemetryHealth = typeof TelemetryHealth.Type

/**
 * The answer to `/overview`. Of `problems` and `lints` these are the worst 100, `counts.problems` is all of the former;
 * `rates` are per minute, over the last one.
 *
 * @category models
 * @since 0.1.0
 */
export const Overview = Schema.Struct({
  ...envelope,
  name: Schema.String,
  status: Schema.Literals(["open", "closing", "closed"]),
  since: Schema.Finite,
  nodes: Schema.Int,
  counts: Counts,
  starts: Schema.Int,
  restarts: Schema.Int,
  rates: Schema.Struct({ starts: Schema.Int, restarts: Schema.Int, failures: Schema.Int }),
  problems: Schema.Array(Row),
  lints: Schema.Array(Lint),
  top: Schema.Struct({
    cpu: Schema.Array(Schema.Struct({ ...Ref, ...Cpu.fields })),
    mailboxes: Schema.Array(Schema.Struct({ ...Ref, ...Depth.fields, utilization: Schema.Finite }))
  }),
  charts: Schema.Struct({ stepMs: Schema.Int, until: Schema.Finite, series: Schema.Array(Chart) }),
  telemetry: TelemetryHealth,
  process: Schema.Struct({
    pid: Schema.Int,
    node: Schema.String,
    uptimeMs: Schema.Finite,
    rssBytes: Schema.Finite,
    heapUsedBytes: Schema.Finite,
    heapTotalBytes: Schema.Finite,
    cpuMs: Schema.Finite
  }),
  build: Schema.Struct({ version: Schema.String, effect: Schema.String, platform: Schema.String })
})

/** @since 0.1.0 */
export type Overview = typeof Overview.Type

const pageOf = <S extends Schema.Top>(item: S) =>
  Schema.Struct({
    ...envelope,
    items: Schema.Array(item),
    page: Schema.Struct({
      cursor: Schema.NullOr(Schema.String),
      hasMore: Schema.Boolean,
      total: Schema.Int,
      totalExact: Schema.Boolean
    })
  })

/**
 * The answer to `/routines`. `cursor` asks for the rows after the last one; rows that did not move are neither
 * repeated nor skipped. `totalExact` is false where `total` is some seconds old.
 *
 * @category models
 * @since 0.1.0
 */
export const RoutinePage = pageOf(RoutineRow)

/** @since 0.1.0 */
export type RoutinePage = typeof RoutinePage.Type

/**
 * The answer to `/mailboxes`.
 *
 * @category models
 * @since 0.1.0
 */
export const MailboxPage = pageOf(MailboxRow)

/**
 * The answer to `/buses`: buses and their topics.
 *
 * @category models
 * @since 0.1.0
 */
export const BusPage = pageOf(Schema.Union([BusRow, TopicRow]))

/**
 * The answer to `/groups`.
 *
 * @category models
 * @since 0.1.0
 */
export const GroupPage = pageOf(GroupRow)

/**
 * The answer to `/sagas`.
 *
 * @category models
 * @since 0.1.0
 */
export const SagaPage = pageOf(SagaRow)

const Owner = Schema.Struct({ ...Ref, kind: Schema.String, name: Schema.String })

/**
 * The answer to `/routines/{id}`. `owners` lead from the orchestrator down to it; of its `children` these are the first
 * 20; `waits` says where the present run stands, as far as that is known.
 *
 * @category models
 * @since 0.1.0
 */
export const RoutineDetail = Schema.Struct({
  ...envelope,
  routine: RoutineRow,
  /** Whether it is listed, and not only remembered. */
  live: Schema.Boolean,
  owners: Schema.Array(Owner),
  stats: Schema.NullOr(Schema.Struct({
    uptimeMs: Schema.Finite,
    idleMs: Schema.Finite,
    busyMs: Schema.Finite,
    blockedMs: Schema.Finite
  })),
  waits: Schema.NullOr(Schema.Struct({
    /** For messages or for room, how many of its fibers. */
    blockedFibers: Schema.Int,
    /** The innermost named function first. */
    frames: Schema.Array(Schema.String)
  })),
  mailboxes: Schema.Array(MailboxRow),
  children: Schema.Struct({ total: Schema.Int, items: Schema.Array(Owner) }),
  config: Schema.Struct({
    shutdownMs: Schema.NullOr(Schema.Finite),
    idleTimeoutMs: Schema.NullOr(Schema.Finite),
    drains: Schema.Boolean
  })
})

/** @since 0.1.0 */
export type RoutineDetail = typeof RoutineDetail.Type

/**
 * The answer to `/mailboxes/{id}`, `/buses/{id}` and `/groups/{id}`; of its `children` these are the first 20.
 *
 * @category models
 * @since 0.1.0
 */
export const NodeDetail = Schema.Struct({
  ...envelope,
  node: Row,
  owners: Schema.Array(Owner),
  children: Schema.Struct({ total: Schema.Int, items: Schema.Array(Row) })
})

/** @since 0.1.0 */
export type NodeDetail = typeof NodeDetail.Type

/**
 * The answer to `/routines/{id}/history`: the last 50 exits at most, the newest first.
 *
 * @category models
 * @since 0.1.0
 */
export const History = Schema.Struct({
  ...envelope,
  items: Schema.Array(Schema.Struct({ ...LastExit.fields, cancelledBy: Schema.NullOr(CancelledBy) }))
})

/** @since 0.1.0 */
export type History = typeof History.Type

/**
 * A line that a routine has logged: when (`at`, epoch milliseconds), in which run, and within which span. Texts are cut at
 * 2,048 characters; what every line of a routine says of it is left out of `annotations`.
 *
 * @category models
 * @since 0.1.0
 */
export const LogLine = Schema.Struct({
  at: Schema.Finite,
  level: Schema.String,
  incarnation: Schema.Int,
  message: Schema.String,
  cause: Schema.NullOr(Schema.String),
  annotations: Schema.Record(Schema.String, Schema.String),
  traceId: Schema.NullOr(Schema.String),
  spanId: Schema.NullOr(Schema.String)
})

/** @since 0.1.0 */
export type LogLine = typeof LogLine.Type

/**
 * The answer to `/routines/{id}/logs`: the newest lines last. They are kept from when somebody looks first, so the first
 * answer has none.
 *
 * @category models
 * @since 0.1.0
 */
export const LogLines = Schema.Struct({
  ...envelope,
  items: Schema.Array(LogLine)
})

/**
 * The answer to `/mailboxes/{id}/messages`: the next messages, each cut at 2 KB and redacted, and `depth`, how many there
 * are in all. Nothing is taken.
 *
 * @category models
 * @since 0.1.0
 */
export const Messages = Schema.Struct({
  ...envelope,
  depth: Schema.Int,
  items: Schema.Array(Schema.Struct({ preview: Schema.String, truncated: Schema.Boolean }))
})

/** @since 0.1.0 */
export type Messages = typeof Messages.Type

/**
 * A node with what stands below it: `counts` of everything below and itself, the `children` that were asked for, and
 * how many `more` it has.
 *
 * @category models
 * @since 0.1.0
 */
export interface TreeNode {
  readonly node: Row
  readonly counts: Counts
  readonly children: ReadonlyArray<TreeNode>
  readonly more: number
}

/** @since 0.1.0 */
export const TreeNode = Schema.Struct({
  node: Row,
  counts: Counts,
  children: Schema.Array(Schema.suspend((): Schema.Codec<TreeNode> => TreeNode)),
  more: Schema.Int
})

/**
 * The answer to `/tree`.
 *
 * @category models
 * @since 0.1.0
 */
export const Tree = Schema.Struct({ ...envelope, root: TreeNode })

/** @since 0.1.0 */
export type Tree = typeof Tree.Type

/**
 * How much an event matters.
 *
 * @category models
 * @since 0.1.0
 */
export const Level = Schema.Literals(["debug", "info", "warn", "error"])

/** @since 0.1.0 */
export type Level = typeof Level.Type

/**
 * An event of the orchestrator with its level. What else it carries depends on its tag.
 *
 * @category models
 * @since 0.1.0
 */
export const EventItem = Schema.StructWithRest(
  Schema.Struct({
    _tag: Schema.String,
    seq: Schema.Int,
    at: Schema.Finite,
    level: Level,
    path: Schema.String,
    id: Schema.String,
    name: Schema.String,
    incarnation: Schema.Int
  }),
  [Schema.Record(Schema.String, Schema.Unknown)]
)

/** @since 0.1.0 */
export type EventItem = typeof EventItem.Type

/**
 * The answer to `/events`, in the order in which they happened. `next` is what to ask for as `since` to go on; `oldest`
 * is the first event that is still remembered: what came before it has been forgotten.
 *
 * @category models
 * @since 0.1.0
 */
export const EventPage = Schema.Struct({
  ...envelope,
  items: Schema.Array(EventItem),
  page: Schema.Struct({
    next: Schema.Int,
    hasMore: Schema.Boolean,
    oldest: Schema.NullOr(Schema.Int),
    evicted: Schema.Int
  })
})

/** @since 0.1.0 */
export type EventPage = typeof EventPage.Type

/**
 * The answer to `/dump`: what belongs into a report of a fault. `truncated` names what did not fit into 10 MB.
 *
 * @category models
 * @since 0.1.0
 */
export const Dump = Schema.Struct({
  ...envelope,
  overview: Overview,
  options: Schema.Record(Schema.String, Schema.Unknown),
  tree: Schema.Array(Row),
  events: Schema.Array(EventItem),
  ended: Schema.Array(RoutineRow),
  truncated: Schema.Array(Schema.String)
})

const limit = (max: number, min = 1) =>
  Schema.FiniteFromString.check(Schema.isInt(), Schema.isBetween({ minimum: min, maximum: max }))

const text = Schema.String.check(Schema.isMaxLength(256))

const direction = Schema.optionalKey(Schema.Literals(["asc", "desc"]))

/**
 * What lists can be sorted by.
 *
 * @category models
 * @since 0.1.0
 */
export const routineSorts = ["problem", "name", "path", "state", "since", "restarts"] as const

/** @since 0.1.0 */
const nodeSorts = ["path", "name", "since"] as const

/** @since 0.1.0 */
const mailboxSorts = ["utilization", "depth", ...nodeSorts] as const

/** One or several, repeated (`state=a&state=b`) or in one value (`state=a,b`). */
const Several = Schema.Union([Schema.String, Schema.Array(Schema.String)])

/**
 * What `/routines` can be asked: `q` is looked for in name, path, id and last error, whatever its case; `sort` is
 * `problem` (worst first, then by path), `name`, `path`, `state`, `since` or `restarts`.
 *
 * @category models
 * @since 0.1.0
 */
export const RoutineQuery = Schema.Struct({
  q: Schema.optionalKey(text),
  state: Schema.optionalKey(Several),
  supervisor: Schema.optionalKey(Schema.String),
  sort: Schema.optionalKey(Schema.Literals(routineSorts)),
  dir: direction,
  limit: Schema.optionalKey(limit(500)),
  cursor: Schema.optionalKey(Schema.String)
})

/**
 * What `/buses`, `/groups` and `/sagas` can be asked: `q` is looked for in name, path and id.
 *
 * @category models
 * @since 0.1.0
 */
export const NodeQuery = Schema.Struct({
  q: Schema.optionalKey(text),
  sort: Schema.optionalKey(Schema.Literals(nodeSorts)),
  dir: direction,
  limit: Schema.optionalKey(limit(500)),
  cursor: Schema.optionalKey(Schema.String)
})

/**
 * What `/mailboxes` can be asked: by default the fullest come first.
 *
 * @category models
 * @since 0.1.0
 */
export const MailboxQuery = Schema.Struct({
  ...NodeQuery.fields,
  sort: Schema.optionalKey(Schema.Literals(mailboxSorts))
})

/**
 * What `/tree` can be asked: `root` is an id or a path (default: the orchestrator), `depth` how many levels below it
 * (default and most: 3), `limit` how many nodes in all (default 200, most 500); upper levels come first.
 *
 * @category models
 * @since 0.1.0
 */
export const TreeQuery = Schema.Struct({
  root: Schema.optionalKey(Schema.String),
  depth: Schema.optionalKey(limit(3)),
  limit: Schema.optionalKey(limit(500))
})

/**
 * What `/overview` can be asked: `points` are the seconds of its charts, at most 900, by default none.
 *
 * @category models
 * @since 0.1.0
 */
export const OverviewQuery = Schema.Struct({ points: Schema.optionalKey(limit(900, 0)) })

/**
 * What `/mailboxes/{id}/messages` can be asked.
 *
 * @category models
 * @since 0.1.0
 */
export const MessagesQuery = Schema.Struct({ limit: Schema.optionalKey(limit(20)) })

/**
 * What `/events` can be asked: those after the number `since` (without it the newest), of the tags `kind`, of at least
 * this `level`, with paths that begin with `path`. `format=ndjson` gives all of them, a line each.
 *
 * @category models
 * @since 0.1.0
 */
export const EventQuery = Schema.Struct({
  since: Schema.optionalKey(limit(Number.MAX_SAFE_INTEGER, 0)),
  kind: Schema.optionalKey(Several),
  level: Schema.optionalKey(Level),
  path: Schema.optionalKey(Schema.String),
  limit: Schema.optionalKey(limit(500)),
  format: Schema.optionalKey(Schema.Literals(["json", "ndjson"]))
})

/**
 * What `/stream` can be asked: `topics` of `overview`, `rows` and `events`, by default all; `ids` of the nodes whose rows
 * it is about, at most 500, by default the ones that matter most.
 *
 * @category models
 * @since 0.1.0
 */
export const StreamQuery = Schema.Struct({
  topics: Schema.optionalKey(Several),
  ids: Schema.optionalKey(Several)
})

/**
 * A query that cannot be answered: `parameter` has a value that is not understood.
 *
 * @category errors
 * @since 0.1.0
 */
export class BadQuery extends Schema.TaggedError<BadQuery>()("BadQuery", {
  parameter: Schema.String,
  detail: Schema.String
}) {
  override get message() {
    return `${this.parameter}: ${this.detail}`
  }
}

/**
 * There is no node of that id or path.
 *
 * @category errors
 * @since 0.1.0
 */
export class NodeNotFound extends Schema.TaggedError<NodeNotFound>()("NodeNotFound", { node: Schema.String }) {
  override get message() {
    return `there is no node "${this.node}"`
  }
}
