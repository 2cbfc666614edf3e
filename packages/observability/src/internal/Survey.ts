/**
 * One walk over the tree that finds what no counter knows: what is wrong, what is fullest, how much stands below each
 * node. Whoever asks within a second shares it.
 */
import type { State } from "@effect-orchestra/core/Event"
import { type Kernel, type Node, path } from "@effect-orchestra/core/Kernel"
import { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import * as Effect from "effect/Effect"
import { meteringOf } from "../Metering.ts"
import { Counts, type Lint } from "./AnswerSchema.ts"
import { bySeverity, mailboxLints, routineLints, sagaLints, sliceLints, supervisorLints } from "./Lints.ts"
import { cpuOf, headAge, rankOf, well } from "./Rows.ts"
import type { Cpu, Depth } from "./RowSchema.ts"
import { shared, Smallest, sorted, visit } from "./Walk.ts"
import { worst } from "./WorstFirst.ts"

type Sums = { -readonly [K in keyof Counts]: number }

/** What stands below a node, at first right below it. */
class Below {
  readonly number: number
  readonly owner: number | undefined
  readonly counts = noCounts()
  children = 0

  constructor({ number, owner }: Node) {
    this.number = number
    this.owner = owner?.number
  }
}

export interface Full extends Depth {
  readonly id: string
  readonly path: string
  readonly utilization: number
}

export interface Busy extends Cpu {
  readonly id: string
  readonly path: string
}

export interface Survey {
  /** The worst, worst first. */
  readonly problems: ReadonlyArray<Node>
  readonly problemCount: number
  readonly abandoned: number
  readonly lints: ReadonlyArray<Lint>
  readonly cpu: ReadonlyArray<Busy>
  readonly mailboxes: ReadonlyArray<Full>
  /** By the number of a node that has children. */
  readonly below: ReadonlyMap<number, { readonly counts: Counts; readonly children: number }>
}

export const noCounts = (): Sums => ({
  pending: 0,
  starting: 0,
  running: 0,
  backoff: 0,
  stopping: 0,
  abandoned: 0,
  problems: 0
})

const isCounted = (state: State): state is Exclude<keyof Counts, "problems"> => Object.hasOwn(Counts.fields, state)

/** Counts a node. The final states but `abandoned` are not counted: what has ended is no longer listed. */
export const countNode = (counts: Sums, node: Node, rank = rankOf(node)): void => {
  if (rank < well) counts.problems++
  if (node.kind === "routine" && isCounted(node.status)) counts[node.status]++
}

export const addCounts = (to: Sums, from: Counts): void => {
  to.pending += from.pending
  to.starting += from.starting
  to.running += from.running
  to.backoff += from.backoff
  to.stopping += from.stopping
  to.abandoned += from.abandoned
  to.problems += from.problems
}

const make = Effect.fnUntraced(function*(kernel: Kernel) {
  const { writer } = kernel
  const problems = worst(100)
  const lints = new Smallest<Lint>(100, bySeverity)
  const cpu = new Smallest<{ readonly record: RoutineRecord; readonly cpu: Cpu }>(
    10,
    (a, b) => b.cpu.share - a.cpu.share
  )
  const mailboxes = new Smallest<{ readonly node: Node; readonly depth: number; readonly limit: number }>(
    10,
    (a, b) => b.depth / b.limit - a.depth / a.limit
  )
  const below = new Map<number, Below>()
  let last: Below | undefined
  let problemCount = 0
  let abandoned = 0
  const metering = meteringOf(kernel)
  const now = writer.now()
  const wall = writer.shown(now)

  const inspect = (node: Node): void => {
    const snapshot = node.snapshot()
    if (snapshot.kind === "supervisor") { for (const found of supervisorLints(node, snapshot)) lints.add(found) }
    else if (snapshot.kind === "saga") { for (const found of sagaLints(node, snapshot)) lints.add(found) }
    else if (snapshot.kind === "mailbox") {
      const { stats: { capacity: limit, length: depth } } = snapshot
      if (depth > 0) mailboxes.add({ node, depth, limit })
      for (const found of mailboxLints(node, snapshot, now, wall)) lints.add(found)
    }
  }

  yield* visit(kernel, (node) => {
    const owner = node.owner ?? kernel
    if (last?.number !== owner.number) {
      last = below.get(owner.number) ?? new Below(owner)
      below.set(owner.number, last)
    }
    last.children++
    const rank = rankOf(node)
    countNode(last.counts, node, rank)
    if (rank < well) {
      problemCount++
      problems.add({ node, rank })
    }
    if (!(node instanceof RoutineRecord)) return inspect(node)
    if (node.status === "abandoned") abandoned++
    for (const found of routineLints(node, now)) lints.add(found)
    const used = metering === undefined ? null : cpuOf(node, metering)
    if (used !== null) cpu.add({ record: node, cpu: used })
  })

  if (metering !== undefined) { for (const found of sliceLints(yield* metering.longSlices, wall)) lints.add(found) }

  // A node came after the one that it stands below.
  for (const each of yield* sorted([...below.values()], (a, b) => b.number - a.number)) {
    const above = each.owner === undefined ? undefined : below.get(each.owner)
    if (above !== undefined) addCounts(above.counts, each.counts)
  }

  const survey: Survey = {
    problems: problems.items.map(({ node }) => node),
    problemCount,
    abandoned,
    lints: lints.items,
    cpu: cpu.items.map(({ cpu, record }) => ({ id: record.id, path: path(record), ...cpu })),
    mailboxes: mailboxes.items.map(({ depth, limit, node }) => ({
      id: node.id,
      path: path(node),
      depth,
      limit,
      oldestMs: headAge(node, now),
      utilization: depth / limit
    })),
    below
  }
  return survey
})

export const survey = (kernel: Kernel): Effect.Effect<Survey> => shared(kernel, "survey", make(kernel), { hold: 1000 })
