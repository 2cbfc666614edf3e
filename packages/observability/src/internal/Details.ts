/** One node, and all that is known of it. */
import { type Kernel, type Node, path } from "@effect-orchestra/core/Kernel"
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import type { RoutineSnapshot } from "@effect-orchestra/core/Snapshot"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { StackFrame } from "effect/References"
import {
  type History,
  type Messages,
  type MessagesQuery,
  type NodeDetail,
  NodeNotFound,
  type RoutineDetail
} from "./AnswerSchema.ts"
import { stamp } from "./Lists.ts"
import { type Redact, Redactor } from "./Redact.ts"
import { lastExitOf, mailboxesOf, mailboxRow, routineRow, rowOf } from "./Rows.ts"
import { textOf } from "./TextOf.ts"
import { inSlices, Pace } from "./Walk.ts"

/** So many children are shown, and frames of a stack. */
const shownChildren = 20
const shownFrames = 20

const ownersOf = (node: Node) => {
  const owners: Array<{ id: string; path: string; kind: string; name: string }> = []
  // No chain is endless, but one of ten thousand is no answer.
  for (let above = node.owner; above !== undefined && owners.length < 100; above = above.owner) owners.push(ref(above))
  return owners.reverse()
}

const ref = (node: Node) => ({ id: node.id, path: path(node), kind: node.kind, name: node.name })

/** The first children, and how many there are. */
const childrenOf = Effect.fnUntraced(function*(node: Node) {
  const first: Array<Node> = []
  let total = 0
  const pace = new Pace()
  // What goes while this waits is where the rest cannot be counted from: the number is as good as it gets.
  for (const child of node.children ?? []) {
    if (first.length < shownChildren) first.push(child)
    total++
    if (pace.isOver()) yield* pace.rest
  }
  return { first, total }
})

/** A routine that is listed, else one that is remembered. */
const routineOf = Effect.fnUntraced(function*(kernel: Kernel, id: string) {
  const node = kernel.node(id)
  if (node instanceof RoutineRecord) return { record: node, snapshot: node.snapshot() }
  let found: RoutineSnapshot | undefined
  yield* inSlices(kernel.history.ended.all, (ended) => {
    if (found !== undefined || ("id" in ended && ended.id !== id)) return
    const snapshot = ended.snapshot()
    if (snapshot.id === id) found = snapshot
  })
  if (found === undefined) return yield* new NodeNotFound({ node: id })
  return { record: undefined, snapshot: found }
})

/**
 * All that is known of a routine, which may have ended. Fails with `NodeNotFound` when there is none of this id.
 *
 * @category operations
 * @since 0.1.0
 */
export const routine = Effect.fnUntraced(function*(id: string) {
  const { kernel } = yield* Orchestrator
  const redact = yield* Redactor
  const { record, snapshot } = yield* routineOf(kernel, id)
  const children = record === undefined ? { first: [], total: 0 } : yield* childrenOf(record)
  const detail: RoutineDetail = {
    ...yield* stamp,
    routine: routineRow(record, redact, snapshot),
    live: record !== undefined,
    owners: record === undefined ? [] : ownersOf(record),
    stats: record === undefined ? null : statsOf(record),
    waits: record === undefined ? null : waitsOf(record),
    mailboxes: record === undefined ? [] : mailboxesOf(record).flatMap((node) => {
      const snapshot = node.snapshot()
      return snapshot.kind === "mailbox" ? [mailboxRow(node, redact, snapshot)] : []
    }),
    children: { total: children.total, items: children.first.map(ref) },
    config: {
      shutdownMs: millis(record?.options.shutdown),
      idleTimeoutMs: millis(record?.options.idleTimeout),
      drains: record?.options.drain !== undefined
    }
  }
  return detail
})

const millis = (duration: Duration.Input | undefined): number | null => {
  const value = duration === undefined ? Infinity : Duration.toMillis(duration)
  return Number.isFinite(value) ? value : null
}

const statsOf = (record: RoutineRecord) => {
  const { blockedMillis, busyMillis, idleMillis, uptimeMillis } = record.stats()
  return { uptimeMs: uptimeMillis, idleMs: idleMillis, busyMs: busyMillis, blockedMs: blockedMillis }
}

const waitsOf = (record: RoutineRecord) => {
  if (record.fiber === undefined) return null
  const frames: Array<string> = []
  // What Effect keeps of the stack: the named functions that the fiber is in.
  let frame: StackFrame | undefined = record.fiber.cache.stackFrame
  for (; frame !== undefined && frames.length < shownFrames; frame = frame.parent) frames.push(frame.name)
  return { blockedFibers: record.blocked.active, frames }
}

/**
 * How the last runs of a routine have ended, the newest first. Fails with `NodeNotFound` when there is none of this id.
 *
 * @category operations
 * @since 0.1.0
 */
export const history = Effect.fnUntraced(function*(id: string) {
  const { kernel } = yield* Orchestrator
  const redact = yield* Redactor
  const { record, snapshot } = yield* routineOf(kernel, id)
  const kept = record?.attempts ?? []
  const exits = kept.length > 0 || snapshot.lastExit === null ? kept : [snapshot.lastExit]
  const found: History = {
    ...yield* stamp,
    items: exits.toReversed().flatMap((exit) => {
      const shown = lastExitOf(exit, redact)
      return shown === null ? [] : [{ ...shown, cancelledBy: exit.cancelledBy }]
    })
  }
  return found
})

/**
 * A node of one of these kinds. Fails with `NodeNotFound` when there is none of this id.
 *
 * @category operations
 * @since 0.1.0
 */
export const nodeOf = (...kinds: ReadonlyArray<Node["kind"]>) =>
  Effect.fnUntraced(function*(id: string) {
    const { kernel } = yield* Orchestrator
    const redact = yield* Redactor
    const node = kernel.node(id)
    if (node === undefined || !kinds.includes(node.kind)) return yield* new NodeNotFound({ node: id })
    const { first, total } = yield* childrenOf(node)
    const detail: NodeDetail = {
      ...yield* stamp,
      node: rowOf(node, redact),
      owners: ownersOf(node),
      children: { total, items: first.map((child) => rowOf(child, redact)) }
    }
    return detail
  })

/** A mailbox that shows what is in it. */
interface Peeked extends Node {
  readonly length: number
  readonly peek: (max: number) => ReadonlyArray<unknown>
}

const isPeeked = (node: Node | undefined): node is Peeked => node?.kind === "mailbox" && "peek" in node

/** Bytes of a message that are shown. */
const preview = 2048

/**
 * The next messages of a mailbox, which stay there. Costs no more than these, however many there are. Fails with
 * `NodeNotFound` when there is no mailbox of this id.
 *
 * @category operations
 * @since 0.1.0
 */
export const messages = Effect.fnUntraced(function*(id: string, { limit = 20 }: typeof MessagesQuery.Type) {
  const { kernel } = yield* Orchestrator
  const redact = yield* Redactor
  const node = kernel.node(id)
  if (!isPeeked(node)) return yield* new NodeNotFound({ node: id })
  const found: Messages = {
    ...yield* stamp,
    depth: node.length,
    items: node.peek(limit).map((message) => previewOf(message, redact))
  }
  return found
})

const previewOf = (message: unknown, redact: Redact) => {
  const { isWhole, text } = textOf(message, 2 * preview)
  const shown = redact(text)
  return { preview: cut(shown), truncated: !isWhole || Buffer.byteLength(shown) > preview }
}

/** At most 2 KB, and no half of a character at the end. */
const cut = (text: string): string => {
  const bytes = Buffer.from(text)
  return bytes.length <= preview ? text : bytes.subarray(0, preview).toString().replace(/\uFFFD+$/, "")
}
