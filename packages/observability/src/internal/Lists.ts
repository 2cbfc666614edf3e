/**
 * Pages of nodes. The first page of a list is one pass that keeps the first of them; a page behind it comes from an index
 * of the whole list, made in slices and held for 5 seconds.
 */
import { State } from "@effect-orchestra/core/Event"
import type { Kernel, Node } from "@effect-orchestra/core/Kernel"
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import type { NodeSnapshot } from "@effect-orchestra/core/Snapshot"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { Telemetry } from "../Telemetry.ts"
import {
  BadQuery,
  type BusPage,
  type GroupPage,
  type MailboxPage,
  type MailboxQuery,
  type NodeQuery,
  type RoutinePage,
  type RoutineQuery,
  type routineSorts,
  type SagaPage
} from "./AnswerSchema.ts"
import { valuesOf } from "./Query.ts"
import { Redactor } from "./Redact.ts"
import { rankOf, routineRow, rowOf } from "./Rows.ts"
import type { Row } from "./RowSchema.ts"
import { Pace, Paths, shared, Smallest, sorted, visit } from "./Walk.ts"

type Key = string | number

interface Entry {
  readonly key: Key
  readonly number: number
}

/** How long an index is held, in milliseconds, and how many are. */
const hold = 5000
const indexes = 4

interface List {
  /** Tells its cursors from those of other lists. */
  readonly noun: string
  readonly sort: string
  readonly dir: "asc" | "desc"
  readonly limit: number
  readonly cursor: string | undefined
  /** What it lists, in words: lists of the same words are the same. */
  readonly filter: string
  readonly accepts: (node: Node, paths: Paths) => boolean
  readonly key: (node: Node, paths: Paths) => Key
}

const compareEntries = (dir: "asc" | "desc") => {
  const direction = dir === "asc" ? 1 : -1
  return (a: Entry, b: Entry): number => direction * (a.key < b.key ? -1 : a.key > b.key ? 1 : a.number - b.number)
}

export const stamp = Effect.gen(function*() {
  const { instance } = yield* Telemetry
  return { v: 1 as const, generatedAt: yield* Clock.currentTimeMillis, instance }
})

/** What a cursor remembers: the list it belongs to, and the key and number of the last row that was seen. */
const Cursor = Schema.fromJsonString(Schema.Tuple([
  Schema.String,
  Schema.String,
  Schema.Literals(["asc", "desc"]),
  Schema.Union([Schema.String, Schema.Finite]),
  Schema.Int
]))

const decodeCursor = Schema.decodeUnknownOption(Cursor)

const readCursor = ({ dir, noun, sort }: List, cursor: string): Effect.Effect<Entry, BadQuery> =>
  Option.match(
    Option.filter(
      decodeCursor(Buffer.from(cursor, "base64url").toString()),
      ([ofNoun, ofSort, ofDir]) => ofNoun === noun && ofSort === sort && ofDir === dir
    ),
    {
      onNone: () => Effect.fail(new BadQuery({ parameter: "cursor", detail: "it belongs to another query" })),
      onSome: ([, , , key, number]) => Effect.succeed({ key, number })
    }
  )

const writeCursor = ({ dir, noun, sort }: List, { key, number }: Entry): string =>
  Buffer.from(JSON.stringify([noun, sort, dir, key, number])).toString("base64url")

const entriesOf = Effect.fnUntraced(function*(kernel: Kernel, list: List, each: (entry: Entry) => void) {
  const paths = new Paths()
  yield* visit(kernel, (node) => {
    if (list.accepts(node, paths)) each({ key: list.key(node, paths), number: node.number })
  })
})

/** Found by one pass. */
const firstPage = Effect.fnUntraced(function*(kernel: Kernel, list: List) {
  const first = new Smallest<Entry>(list.limit + 1, compareEntries(list.dir))
  let total = 0
  yield* entriesOf(kernel, list, (entry) => {
    total++
    first.add(entry)
  })
  return { entries: first.items, total, totalExact: true }
})

const makeIndex = Effect.fnUntraced(function*(kernel: Kernel, list: List) {
  const entries: Array<Entry> = []
  yield* entriesOf(kernel, list, (entry) => entries.push(entry))
  return { at: kernel.writer.now(), entries: yield* sorted(entries, compareEntries(list.dir)) }
})

/** Found in an index. What has ended since, or fits the filter no more, is passed over. */
const laterPage = Effect.fnUntraced(function*(kernel: Kernel, list: List, after: Entry) {
  const { at, entries } = yield* shared(
    kernel,
    `index ${list.noun} ${list.sort} ${list.dir} ${list.filter}`,
    makeIndex(kernel, list),
    { hold, most: indexes }
  )
  const compare = compareEntries(list.dir)
  let low = 0
  let high = entries.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const entry = entries[middle]
    if (entry !== undefined && compare(entry, after) <= 0) low = middle + 1
    else high = middle
  }
  const found: Array<Entry> = []
  const paths = new Paths()
  const pace = new Pace()
  for (; low < entries.length && found.length <= list.limit; low++) {
    const entry = entries[low]
    const node = entry === undefined ? undefined : kernel.nodes.get(entry.number)
    if (entry !== undefined && node !== undefined && list.accepts(node, paths)) found.push(entry)
    if (pace.isOver()) yield* pace.rest
  }
  return { entries: found, total: entries.length, totalExact: at === kernel.writer.now() }
})

const pageOf = Effect.fnUntraced(function*<A>(list: List, show: (node: Node) => A | undefined) {
  const { kernel } = yield* Orchestrator
  const after = list.cursor === undefined ? undefined : yield* readCursor(list, list.cursor)
  const { entries, total, totalExact } = yield* after === undefined
    ? shared(kernel, `page ${list.noun} ${list.sort} ${list.dir} ${list.limit} ${list.filter}`, firstPage(kernel, list))
    : laterPage(kernel, list, after)
  const hasMore = entries.length > list.limit
  const shown = entries.slice(0, list.limit)
  const last = shown.at(-1)
  const items: Array<A> = []
  const pace = new Pace()
  for (const { number } of shown) {
    const node = kernel.nodes.get(number)
    const item = node === undefined ? undefined : show(node)
    if (item !== undefined) items.push(item)
    if (pace.isOver(16)) yield* pace.rest
  }
  return {
    ...yield* stamp,
    items,
    page: {
      cursor: hasMore && last !== undefined ? writeCursor(list, last) : null,
      hasMore,
      total,
      totalExact
    }
  }
})

const contains = (field: string | null | undefined, text: string): boolean =>
  field?.toLowerCase().includes(text) === true

const named = (node: Node, paths: Paths, text: string): boolean =>
  contains(node.name, text) || contains(node.id, text) || contains(paths.of(node), text)

/** Which routines a keeper has, by the path of it. */
const keyOfRoutine = (node: RoutineRecord, paths: Paths, sort: typeof routineSorts[number]): Key => {
  switch (sort) {
    case "problem":
      return `${rankOf(node)}${paths.of(node)}`
    case "path":
      return paths.of(node)
    case "name":
      return node.name
    case "state":
      return node.status
    case "since":
      return node.kernel.writer.shown(node.since)
    case "restarts":
      // Those of most are none, and asking for their past would make one.
      return node.incarnation > 1 ? node.past.restarts : 0
  }
}

const isState = Schema.is(State)

/**
 * A page of routines. Waits for a walk over the tree, unless another that asks the same has begun one; fails with
 * `BadQuery` on a parameter that it cannot use.
 *
 * @category operations
 * @since 0.1.0
 */
export const routines = Effect.fnUntraced(function*(query: typeof RoutineQuery.Type) {
  const redact = yield* Redactor
  const { cursor, dir = "asc", limit = 100, sort = "problem", supervisor } = query
  const given = query.state === undefined ? undefined : valuesOf(query.state)
  const wrong = given?.find((state) => !isState(state))
  if (wrong !== undefined) {
    const detail = `expected ${State.literals.join(", ")}, got: "${wrong}"`
    return yield* new BadQuery({ parameter: "state", detail })
  }
  const states = given === undefined ? undefined : new Set<string>(given)
  const text = query.q?.toLowerCase() ?? ""
  const list: List = {
    noun: "routines",
    sort,
    dir,
    limit,
    cursor,
    filter: JSON.stringify([text, given?.toSorted() ?? null, supervisor ?? null]),
    accepts: (node, paths) => {
      if (!(node instanceof RoutineRecord) || states?.has(node.status) === false) return false
      if (supervisor !== undefined) {
        if (!node.isSupervised || node.owner === undefined || paths.of(node.owner) !== supervisor) return false
      }
      if (text === "" || named(node, paths, text)) return true
      const exit = node.incarnation === 0 ? undefined : node.lastExit
      return exit !== undefined && (contains(exit.errorType, text) || contains(exit.message, text))
    },
    key: (node, paths) => node instanceof RoutineRecord ? keyOfRoutine(node, paths, sort) : ""
  }
  const page: RoutinePage = yield* pageOf(list, (node) => {
    const snapshot = node.snapshot()
    return snapshot.kind === "routine" ? routineRow(node, redact, snapshot) : undefined
  })
  return page
})

const nodes = <K extends Row["kind"]>(noun: string, kinds: ReadonlyArray<K>) =>
  Effect.fnUntraced(function*(query: typeof MailboxQuery.Type) {
    const redact = yield* Redactor
    const { cursor, limit = 100, sort = "path" } = query
    const byFill = sort === "utilization" || sort === "depth"
    const text = query.q?.toLowerCase() ?? ""
    const wanted = new Set<NodeSnapshot["kind"]>(kinds)
    const list: List = {
      noun,
      sort,
      dir: query.dir ?? (byFill ? "desc" : "asc"),
      limit,
      cursor,
      filter: text,
      accepts: (node, paths) => wanted.has(node.kind) && (text === "" || named(node, paths, text)),
      key: (node, paths) => {
        if (sort === "path") return paths.of(node)
        if (sort === "name") return node.name
        const snapshot = node.snapshot()
        if (!byFill) return snapshot.since
        if (snapshot.kind !== "mailbox") return 0
        const { capacity, length } = snapshot.stats
        return sort === "depth" ? length : length / capacity
      }
    }
    return yield* pageOf(list, (node) => {
      const row = rowOf(node, redact)
      // The list accepts these kinds alone.
      return row as Extract<Row, { readonly kind: K }>
    })
  })

/**
 * A page of mailboxes, by default the fullest first.
 *
 * @category operations
 * @since 0.1.0
 */
export const mailboxes = (query: typeof MailboxQuery.Type) => mailboxesSorted({ sort: "utilization", ...query })

const mailboxesSorted: (
  query: typeof MailboxQuery.Type
) => Effect.Effect<typeof MailboxPage.Type, BadQuery, Orchestrator | Telemetry> = nodes("mailboxes", ["mailbox"])

/**
 * A page of buses and their topics.
 *
 * @category operations
 * @since 0.1.0
 */
export const buses: (
  query: typeof NodeQuery.Type
) => Effect.Effect<typeof BusPage.Type, BadQuery, Orchestrator | Telemetry> = nodes("buses", ["bus", "topic"])

/**
 * A page of groups.
 *
 * @category operations
 * @since 0.1.0
 */
export const groups: (
  query: typeof NodeQuery.Type
) => Effect.Effect<typeof GroupPage.Type, BadQuery, Orchestrator | Telemetry> = nodes("groups", ["group"])

/**
 * A page of sagas.
 *
 * @category operations
 * @since 0.1.0
 */
export const sagas: (
  query: typeof NodeQuery.Type
) => Effect.Effect<typeof SagaPage.Type, BadQuery, Orchestrator | Telemetry> = nodes("sagas", ["saga"])
