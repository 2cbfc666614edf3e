/**
 * The JSON that the server gives out: what the tree looks like now, as a summary, as a page of routines, as a tree.
 *
 * The page, scripts and tests decode it with the schemas of this module. Times are epoch milliseconds, durations
 * milliseconds, paths and words those of the orchestrator. Fields may be added within `v: 1`.
 *
 * Everything is computed when asked, in slices: no request holds the event loop while it walks a large tree.
 *
 * **Example** (A page of routines, without a server)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Api, Telemetry } from "@effect-orchestra/observability"
 * import { Effect, Layer } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   for (const name of ["mailer", "poller"]) yield* Orchestrator.fork(Effect.never, { name })
 *   const { items, page } = yield* Api.routines({ q: "mail" })
 *   return { paths: items.map(({ path }) => path), total: page.total }
 * })
 *
 * const layer = Layer.provideMerge(Telemetry.layer, Orchestrator.layer)
 * await Effect.runPromise(program.pipe(Effect.provide(layer))) // => { paths: ["/orchestra/mailer"], total: 1 }
 * ```
 *
 * @since 0.1.0
 */
import { ExitReason, Health, type RunExit, State } from "@effect-orchestra/core/Event"
import type { Kernel, Node } from "@effect-orchestra/core/Kernel"
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import {
  type Budget as CoreBudget,
  MailboxStats,
  type NodeSnapshot,
  type RoutineSnapshot
} from "@effect-orchestra/core/Snapshot"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { Telemetry } from "./Telemetry.ts"

/**
 * Restarts `used` of the `max` that a supervisor allows within `windowMs`.
 *
 * @category models
 * @since 0.1.0
 */
export const Budget = Schema.Struct({ used: Schema.Int, max: Schema.Int, windowMs: Schema.Finite })

/**
 * How a run ended.
 *
 * @category models
 * @since 0.1.0
 */
export const LastExit = Schema.Struct({
  incarnation: Schema.Int,
  at: Schema.Finite,
  reason: ExitReason,
  errorType: Schema.NullOr(Schema.String),
  message: Schema.NullOr(Schema.String),
  ranMs: Schema.Finite
})

const baseRow = {
  id: Schema.String,
  name: Schema.String,
  path: Schema.String,
  /** The id of the node above, `null` for the orchestrator. */
  parent: Schema.NullOr(Schema.String),
  state: State,
  health: Health,
  /** When it entered its state. */
  since: Schema.Finite,
  /** What is wrong with it, in words; `null` when nothing is. */
  problem: Schema.NullOr(Schema.String)
}

/**
 * A routine: `incarnation` counts its runs from 1, `budget` is what its next restart is charged to.
 *
 * @category models
 * @since 0.1.0
 */
export const RoutineRow = Schema.Struct({
  kind: Schema.Literal("routine"),
  ...baseRow,
  ready: Schema.Boolean,
  startedAt: Schema.NullOr(Schema.Finite),
  incarnation: Schema.Int,
  restarts: Schema.Int,
  nextStartAt: Schema.NullOr(Schema.Finite),
  supervisor: Schema.NullOr(Schema.String),
  budget: Schema.NullOr(Budget),
  lastExit: Schema.NullOr(LastExit),
  lastBeat: Schema.NullOr(Schema.Finite),
  info: Schema.Record(Schema.String, Schema.String),
  forkSite: Schema.NullOr(Schema.String),
  attributes: Schema.Record(Schema.String, Schema.String)
})

/** @since 0.1.0 */
export type RoutineRow = typeof RoutineRow.Type

/**
 * Any node of the tree.
 *
 * @category models
 * @since 0.1.0
 */
export const Row = Schema.Union([
  RoutineRow,
  Schema.Struct({
    kind: Schema.Literal("supervisor"),
    ...baseRow,
    strategy: Schema.String,
    budget: Budget,
    /** The children that do not run. A quarantined one used up its restart budget. */
    stopped: Schema.Array(Schema.Struct({
      id: Schema.String,
      state: Schema.Literals(["stopped", "quarantined"]),
      since: Schema.Finite,
      lastExit: Schema.NullOr(LastExit)
    }))
  }),
  Schema.Struct({
    kind: Schema.Literal("group"),
    ...baseRow,
    active: Schema.Int,
    concurrency: Schema.NullOr(Schema.Int)
  }),
  Schema.Struct({ kind: Schema.Literal("mailbox"), ...baseRow, overflow: Schema.String, stats: MailboxStats }),
  Schema.Struct({
    kind: Schema.Literal("topic"),
    ...baseRow,
    delivery: Schema.Literals(["queue", "broadcast"]),
    published: Schema.Int,
    subscribers: Schema.Int
  }),
  Schema.Struct({ kind: Schema.Literal("bus"), ...baseRow }),
  Schema.Struct({ kind: Schema.Literal("orchestrator"), ...baseRow })
])

/** @since 0.1.0 */
export type Row = typeof Row.Type

/** Routines by state, and how many nodes have a problem. */
const Counts = Schema.Struct({
  pending: Schema.Int,
  starting: Schema.Int,
  running: Schema.Int,
  backoff: Schema.Int,
  stopping: Schema.Int,
  abandoned: Schema.Int,
  problems: Schema.Int
})

const envelope = { v: Schema.Literal(1), generatedAt: Schema.Finite, instance: Schema.String }

/**
 * The answer to `/overview`. `problems` are the worst 100, `counts.problems` is all of them.
 *
 * @category models
 * @since 0.1.0
 */
export const Overview = Schema.Struct({
  ...envelope,
  name: Schema.String,
  status: Schema.Literals(["open", "closing", "closed"]),
  since: Schema.Finite,
  counts: Counts,
  starts: Schema.Int,
  restarts: Schema.Int,
  problems: Schema.Array(Row),
  process: Schema.Struct({ pid: Schema.Int, node: Schema.String, uptimeMs: Schema.Finite, rssBytes: Schema.Finite })
})

/** @since 0.1.0 */
export type Overview = typeof Overview.Type

/**
 * The answer to `/routines`. `cursor` asks for the rows after the last one; rows that did not move are neither
 * repeated nor skipped.
 *
 * @category models
 * @since 0.1.0
 */
export const RoutinePage = Schema.Struct({
  ...envelope,
  items: Schema.Array(RoutineRow),
  page: Schema.Struct({
    cursor: Schema.NullOr(Schema.String),
    hasMore: Schema.Boolean,
    total: Schema.Int,
    totalExact: Schema.Boolean
  })
})

/** @since 0.1.0 */
export type RoutinePage = typeof RoutinePage.Type

/**
 * A node with what stands below it: `counts` of everything below and itself, the `children` that were asked for, and
 * how many `more` it has.
 *
 * @category models
 * @since 0.1.0
 */
export interface TreeNode {
  readonly node: Row
  readonly counts: typeof Counts.Type
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

const sorts = ["problem", "name", "path", "state", "since", "restarts"] as const

const limit = (max: number) =>
  Schema.FiniteFromString.check(Schema.isInt(), Schema.isBetween({ minimum: 1, maximum: max }))

/** One or several, repeated (`state=a&state=b`) or in one value (`state=a,b`). */
const States = Schema.Union([Schema.String, Schema.Array(Schema.String)])

/**
 * What `/routines` can be asked: `q` is looked for in name, path, id and last error, whatever its case; `sort` is
 * `problem` (worst first, then by path), `name`, `path`, `state`, `since` or `restarts`.
 *
 * @category models
 * @since 0.1.0
 */
export const RoutineQuery = Schema.Struct({
  q: Schema.optionalKey(Schema.String),
  state: Schema.optionalKey(States),
  supervisor: Schema.optionalKey(Schema.String),
  sort: Schema.optionalKey(Schema.Literals(sorts)),
  dir: Schema.optionalKey(Schema.Literals(["asc", "desc"])),
  limit: Schema.optionalKey(limit(500)),
  cursor: Schema.optionalKey(Schema.String)
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

/**
 * A node as the API shows it.
 *
 * @category getters
 * @since 0.1.0
 */
export const row = (node: Node): Row => rowOf(node, node.snapshot())

const rowOf = (node: Node, snapshot: NodeSnapshot): Row => {
  const parent = node.owner?.id ?? null
  const problem = problemOf(snapshot)
  switch (snapshot.kind) {
    case "routine":
      return routineRow(node, snapshot)
    case "supervisor":
      return {
        ...snapshot,
        parent,
        problem,
        budget: budgetOf(snapshot.budget),
        stopped: snapshot.stopped.map((child) => ({ ...child, lastExit: lastExitOf(child.lastExit) }))
      }
    default:
      return { ...snapshot, parent, problem }
  }
}

const routineRow = ({ owner }: Node, snapshot: RoutineSnapshot): RoutineRow => {
  const { budget, lastExit } = snapshot
  return {
    ...snapshot,
    parent: owner?.id ?? null,
    problem: problemOf(snapshot),
    budget: budget === null ? null : budgetOf(budget),
    lastExit: lastExitOf(lastExit)
  }
}

const lastExitOf = (exit: RunExit | null): typeof LastExit.Type | null => {
  if (exit === null) return null
  const { at, errorType, incarnation, message, ranMillis: ranMs, reason } = exit
  return { incarnation, at, reason, errorType, message, ranMs }
}

const budgetOf = ({ max, periodMillis, used }: CoreBudget) => ({ used, max, windowMs: periodMillis })

const problemOf = (node: NodeSnapshot): string | null => {
  if (node.health === "stuck") return "ignores its interruption"
  if (node.kind === "routine" && node.state === "backoff") {
    const last = node.lastExit
    const why = last === null
      ? ""
      : `: ${last.errorType ?? last.reason}${last.message === null ? "" : ` ${last.message}`}`
    return `waits for its next start after run ${node.incarnation}${why}`
  }
  const quarantined = node.kind === "supervisor" ? node.stopped.filter(({ state }) => state === "quarantined") : []
  if (quarantined.length > 0) return `quarantined: ${quarantined.map(({ id }) => id).join(", ")}`
  if (node.kind === "supervisor" && node.budget.used > 0 && node.budget.used > 0.8 * node.budget.max) {
    const { max, periodMillis, used } = node.budget
    return `close to giving up: ${used} of ${max} restarts in ${periodMillis / 1000} s`
  }
  return node.health === "ok" ? null : node.health
}

/** How bad it is: 0 is worst, 4 has no problem. */
const rank = (snapshot: NodeSnapshot): number =>
  problemOf(snapshot) === null
    ? 4
    : snapshot.health === "stuck"
    ? 0
    : snapshot.health === "failed"
    ? 1
    : snapshot.kind === "supervisor"
    ? 2
    : 3

/** A node as it was when a walk came by. What the answer shows of it is made at the end, of the few that it shows. */
interface Seen<S extends NodeSnapshot = NodeSnapshot> {
  readonly node: Node
  readonly snapshot: S
}

/** Looks at every node but the orchestrator, letting other fibers run after every 1,000. */
const visit = Effect.fnUntraced(function*(kernel: Kernel, look: (seen: Seen) => void) {
  let visited = 0
  for (const node of kernel.nodes.values()) {
    look({ node, snapshot: node.snapshot() })
    if (++visited % 1000 === 0) yield* Effect.yieldNow
  }
})

const stamp = Effect.gen(function*() {
  const { instance } = yield* Telemetry
  return { v: 1 as const, generatedAt: yield* Clock.currentTimeMillis, instance }
})

/** The smallest `size` of what is added, in order. One pass and no sort: most rows lose against the last at once. */
class Smallest<A> {
  readonly items: Array<A> = []
  private readonly size: number
  private readonly compare: (a: A, b: A) => number

  constructor(size: number, compare: (a: A, b: A) => number) {
    this.size = size
    this.compare = compare
  }

  add(item: A): void {
    const last = this.items[this.size - 1]
    if (last !== undefined && this.compare(item, last) >= 0) return
    let low = 0
    let high = this.items.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const other = this.items[middle]
      if (other !== undefined && this.compare(item, other) < 0) high = middle
      else low = middle + 1
    }
    this.items.splice(low, 0, item)
    if (this.items.length > this.size) this.items.pop()
  }
}

const number = (id: string): number => Number(id.slice(id.indexOf("-") + 1))

const byRank = (a: Seen, b: Seen): number =>
  rank(a.snapshot) - rank(b.snapshot) || number(a.snapshot.id) - number(b.snapshot.id)

const shownOf = ({ node, snapshot }: Seen): Row => rowOf(node, snapshot)

/**
 * The rows to show first: every node that has routines below it, and the worst routines, at most `size` of each.
 * `total` counts all nodes.
 *
 * @category operations
 * @since 0.1.0
 */
export const worstFirst = Effect.fnUntraced(function*(kernel: Kernel, size: number) {
  const structure: Array<Row> = [row(kernel)]
  const worst = new Smallest<Seen>(size, byRank)
  let total = 1
  yield* visit(kernel, (seen) => {
    total++
    if (seen.snapshot.kind === "routine") worst.add(seen)
    else if (structure.length < size) structure.push(shownOf(seen))
  })
  return { rows: [...structure, ...worst.items.map(shownOf)], total }
})

/**
 * The summary. Waits for one walk over the tree, to find what is wrong.
 *
 * @category operations
 * @since 0.1.0
 */
export const overview: Effect.Effect<Overview, never, Orchestrator | Telemetry> = Effect.gen(function*() {
  const { kernel, name, status } = yield* Orchestrator
  const worst = new Smallest<Seen>(100, byRank)
  const counts = noCounts()
  yield* visit(kernel, (seen) => {
    count(counts, seen.snapshot)
    if (problemOf(seen.snapshot) !== null) worst.add(seen)
  })
  const totals = (yield* Orchestrator.stats).reduce(
    (sum, template) => ({ starts: sum.starts + template.starts, restarts: sum.restarts + template.restarts }),
    { starts: 0, restarts: 0 }
  )
  return {
    ...yield* stamp,
    name,
    status: yield* status,
    since: kernel.since,
    counts,
    ...totals,
    problems: worst.items.map(shownOf),
    process: {
      pid: process.pid,
      node: process.versions.node,
      uptimeMs: Math.round(process.uptime() * 1000),
      rssBytes: process.memoryUsage.rss()
    }
  }
})

type Counts = { -readonly [K in keyof typeof Counts.Type]: number }

const noCounts = (): Counts => ({
  pending: 0,
  starting: 0,
  running: 0,
  backoff: 0,
  stopping: 0,
  abandoned: 0,
  problems: 0
})

const count = (counts: Counts, snapshot: NodeSnapshot): void => {
  if (problemOf(snapshot) !== null) counts.problems++
  // The final states but `abandoned` are not counted: what has ended is no longer listed.
  if (snapshot.kind === "routine" && isCounted(snapshot.state)) counts[snapshot.state]++
}

const isCounted = (state: State): state is Exclude<keyof Counts, "problems"> => Object.hasOwn(Counts.fields, state)

/** What a cursor remembers: the sort it belongs to, and the key and id of the last row it has seen. */
const Cursor = Schema.fromJsonString(Schema.Tuple([
  Schema.Literals(sorts),
  Schema.Literals(["asc", "desc"]),
  Schema.Union([Schema.String, Schema.Finite]),
  Schema.String
]))

interface Keyed {
  readonly key: string | number
  readonly id: string
}

const keyOf = (routine: RoutineSnapshot, sort: typeof sorts[number]): string | number =>
  sort === "problem" ? `${rank(routine)}${routine.path}` : routine[sort]

const compareKeyed = (direction: 1 | -1) => (a: Keyed, b: Keyed): number =>
  direction * (a.key < b.key ? -1 : a.key > b.key ? 1 : number(a.id) - number(b.id))

/**
 * A page of routines. Waits for one walk over the tree; fails with `BadQuery` on a parameter that it cannot use.
 *
 * @category operations
 * @since 0.1.0
 */
export const routines = Effect.fnUntraced(function*(query: typeof RoutineQuery.Type) {
  const { kernel } = yield* Orchestrator
  const { dir = "asc", limit = 100, sort = "problem", supervisor } = query
  const states = yield* statesOf(query.state)
  const text = query.q?.toLowerCase() ?? ""
  const after = query.cursor === undefined ? undefined : yield* readCursor(query.cursor, sort, dir)
  const compare = compareKeyed(dir === "asc" ? 1 : -1)
  const rows = new Smallest<Keyed & Seen<RoutineSnapshot>>(limit + 1, compare)
  let total = 0
  yield* visit(kernel, ({ node, snapshot }) => {
    if (snapshot.kind !== "routine" || states?.has(snapshot.state) === false) return
    if (supervisor !== undefined && snapshot.supervisor !== supervisor) return
    if (text !== "" && !matches(snapshot, text)) return
    total++
    const keyed = { key: keyOf(snapshot, sort), id: snapshot.id, node, snapshot }
    if (after === undefined || compare(after, keyed) < 0) rows.add(keyed)
  })
  const hasMore = rows.items.length > limit
  const items = rows.items.slice(0, limit)
  const last = items.at(-1)
  const page: RoutinePage = {
    ...yield* stamp,
    items: items.map(({ node, snapshot }) => routineRow(node, snapshot)),
    page: {
      cursor: hasMore && last !== undefined
        ? Buffer.from(JSON.stringify([sort, dir, last.key, last.id])).toString("base64url")
        : null,
      hasMore,
      total,
      totalExact: true
    }
  }
  return page
})

const matches = ({ id, lastExit, name, path }: RoutineSnapshot, text: string): boolean =>
  [name, path, id, lastExit?.errorType, lastExit?.message].some((field) => field?.toLowerCase().includes(text) === true)

const decodeState = Schema.decodeUnknownResult(State)

const statesOf = Effect.fnUntraced(function*(given: string | ReadonlyArray<string> | undefined) {
  if (given === undefined) return undefined
  const states = [given].flat().flatMap((each) => each.split(","))
  const wrong = states.find((state) => Result.isFailure(decodeState(state)))
  if (wrong === undefined) return new Set<string>(states)
  return yield* new BadQuery({ parameter: "state", detail: `expected ${State.literals.join(", ")}, got: "${wrong}"` })
})

const readCursor = (cursor: string, sort: string, dir: string): Effect.Effect<Keyed, BadQuery> => {
  const read = Schema.decodeUnknownOption(Cursor)(Buffer.from(cursor, "base64url").toString())
  const matching = Option.filter(read, ([ofSort, ofDir]) => ofSort === sort && ofDir === dir)
  return Option.match(matching, {
    onNone: () => Effect.fail(new BadQuery({ parameter: "cursor", detail: "it belongs to another query" })),
    onSome: ([, , key, id]) => Effect.succeed({ key, id })
  })
}

/**
 * A part of the tree. Waits for one walk over the tree; fails with `NodeNotFound` when there is no such root.
 *
 * @category operations
 * @since 0.1.0
 */
export const tree = Effect.fnUntraced(function*(query: typeof TreeQuery.Type) {
  const { kernel } = yield* Orchestrator
  const counts = new Map<Node, Counts>()
  let root: Node | undefined = query.root === undefined ? kernel : undefined
  const look = ({ node, snapshot }: Seen): void => {
    if (root === undefined && (snapshot.id === query.root || snapshot.path === query.root)) root = node
    for (let above: Node | undefined = node; above !== undefined; above = above.owner) {
      let sum = counts.get(above)
      if (sum === undefined) counts.set(above, sum = noCounts())
      count(sum, snapshot)
    }
  }
  look({ node: kernel, snapshot: kernel.snapshot() })
  yield* visit(kernel, look)
  if (root === undefined) return yield* new NodeNotFound({ node: query.root ?? "" })
  const found: Tree = { ...yield* stamp, root: levels(root, counts, query.depth ?? 3, query.limit ?? 200) }
  return found
})

interface Building {
  readonly from: Node
  readonly node: Row
  readonly counts: Counts
  readonly children: Array<Building>
  more: number
}

/** Breadth first, so that a wide level takes the room of what stands below it and not of what stands beside it. */
const levels = (root: Node, counts: ReadonlyMap<Node, Counts>, depth: number, limit: number): TreeNode => {
  const build = (from: Node): Building => ({
    from,
    node: row(from),
    counts: counts.get(from) ?? noCounts(),
    children: [],
    more: 0
  })
  const top = build(root)
  let room = limit - 1
  let level = [top]
  for (let remaining = depth; level.length > 0; remaining--) {
    const next: Array<Building> = []
    for (const parent of level) {
      for (const child of parent.from.children ?? []) {
        if (remaining === 0 || room === 0) {
          parent.more++
          continue
        }
        room--
        const built = build(child)
        parent.children.push(built)
        next.push(built)
      }
    }
    level = next
  }
  return shown(top)
}

const shown = ({ children, counts, more, node }: Building): TreeNode => ({
  node,
  counts,
  children: children.map(shown),
  more
})
