/** What the API shows of a node, and what is wrong with it. */
import type { RunExit } from "@effect-orchestra/core/Event"
import type { Node } from "@effect-orchestra/core/Kernel"
import { MailboxNode } from "@effect-orchestra/core/MailboxNode"
import type { MailboxView } from "@effect-orchestra/core/Observer"
import { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import type {
  Budget as CoreBudget,
  MailboxSnapshot,
  NodeSnapshot,
  RoutineSnapshot,
  SagaSnapshot
} from "@effect-orchestra/core/Snapshot"
import { meteringOf } from "../Metering.ts"
import type { Redact } from "./Redact.ts"
import { api } from "./Route.ts"
import type { Cpu, Depth, LastExit, MailboxRow, RoutineRow, Row } from "./RowSchema.ts"

const nouns: { readonly [kind in NodeSnapshot["kind"]]: (id: string) => string } = {
  routine: (id) => `${api}/routines/${id}`,
  mailbox: (id) => `${api}/mailboxes/${id}`,
  bus: (id) => `${api}/buses/${id}`,
  topic: (id) => `${api}/buses/${id}`,
  group: (id) => `${api}/groups/${id}`,
  saga: (id) => `${api}/sagas/${id}`,
  supervisor: (id) => `${api}/tree?root=${id}`,
  orchestrator: () => `${api}/overview`
}

/** What every row says that its snapshot does not. */
const around = (node: Node | undefined, snapshot: NodeSnapshot, redact: Redact) => ({
  parent: node?.owner?.id ?? null,
  problem: problemOf(snapshot, redact),
  links: { self: nouns[snapshot.kind](snapshot.id) }
})

export const rowOf = (node: Node, redact: Redact, snapshot: NodeSnapshot = node.snapshot()): Row => {
  switch (snapshot.kind) {
    case "routine":
      return routineRow(node, redact, snapshot)
    case "supervisor":
      return {
        ...snapshot,
        ...around(node, snapshot, redact),
        budget: budgetOf(snapshot.budget),
        stopped: snapshot.stopped.map((child) => ({ ...child, lastExit: lastExitOf(child.lastExit, redact) }))
      }
    default:
      return { ...snapshot, ...around(node, snapshot, redact) }
  }
}

export const mailboxRow = (node: Node, redact: Redact, snapshot: MailboxSnapshot): MailboxRow => ({
  ...snapshot,
  ...around(node, snapshot, redact)
})

/** Of a routine that is only remembered there is no node. */
export const routineRow = (node: Node | undefined, redact: Redact, snapshot: RoutineSnapshot): RoutineRow => {
  const { budget, lastExit } = snapshot
  return {
    ...snapshot,
    ...around(node, snapshot, redact),
    budget: budget === null ? null : budgetOf(budget),
    lastExit: lastExitOf(lastExit, redact),
    cpu: node instanceof RoutineRecord ? cpuOf(node) : null,
    mailbox: node instanceof RoutineRecord ? depthOf(node) : null
  }
}

export const lastExitOf = (exit: RunExit | null, redact: Redact): LastExit | null => {
  if (exit === null) return null
  const { at, errorType, incarnation, message, ranMillis: ranMs, reason } = exit
  return {
    incarnation,
    at,
    reason,
    errorType,
    message: message === null ? null : redact(message),
    ranMs,
    traceId: exit.traceId ?? null
  }
}

export const cpuOf = (record: RoutineRecord, metering = meteringOf(record.kernel)): Cpu | null => {
  const cpu = metering?.cpuOf(record)
  return cpu === undefined
    ? null
    : { ms: rounded(cpu.cpuMillis), share: rounded(cpu.share), maxSliceMs: rounded(cpu.longestSliceMillis) }
}

const rounded = (value: number): number => Math.round(value * 1000) / 1000

/** The mailboxes of a routine: those that it says are its own, else the first few that it has made. */
export const mailboxesOf = (record: RoutineRecord): ReadonlyArray<Node> => {
  const own = (record.options.resources ?? []).filter((resource) => resource instanceof MailboxNode)
  if (own.length > 0) return own
  const made: Array<Node> = []
  let looked = 0
  for (const child of record.children ?? []) {
    if (child.kind === "mailbox") made.push(child)
    if (++looked === 20) break
  }
  return made
}

const depthOf = (record: RoutineRecord): Depth | null => {
  const mailboxes = mailboxesOf(record)
  if (mailboxes.length === 0) return null
  let depth = 0
  let limit = 0
  let oldestMs: number | null = null
  for (const mailbox of mailboxes) {
    const snapshot = mailbox.snapshot()
    if (snapshot.kind !== "mailbox") continue
    depth += snapshot.stats.length
    limit += snapshot.stats.capacity
    const age = headAge(mailbox, record.kernel.writer.now())
    if (age !== null && age > (oldestMs ?? -1)) oldestMs = age
  }
  return { depth, limit, oldestMs }
}

/** For how many milliseconds the next message of a mailbox has waited, where the mailbox knows. */
export const headAge = (mailbox: Node, now: number): number | null => {
  if (mailbox.kind !== "mailbox" || !("oldestMillis" in mailbox)) return null
  // Whatever is of this kind is such a view.
  const age = (mailbox as Node & MailboxView).oldestMillis(now)
  return age === undefined ? null : Math.round(age)
}

const budgetOf = ({ max, periodMillis, used }: CoreBudget) => ({ used, max, windowMs: periodMillis })

export const isSpent = ({ max, used }: CoreBudget): boolean => used > 0 && used > 0.8 * max

export const problemOf = (node: NodeSnapshot, redact: Redact): string | null => {
  if (node.kind === "saga") {
    const stuck = stuckOf(node.steps)
    return stuck.length > 0 ? stuckText(stuck) : node.health === "ok" ? null : "is being undone"
  }
  if (node.health === "stuck") return "ignores its interruption"
  if (node.kind === "routine" && node.state === "backoff") {
    const last = node.lastExit
    const why = last === null
      ? ""
      : `: ${last.errorType ?? last.reason}${last.message === null ? "" : ` ${redact(last.message)}`}`
    return `waits for its next start after run ${node.incarnation}${why}`
  }
  const quarantined = node.kind === "supervisor" ? node.stopped.filter(({ state }) => state === "quarantined") : []
  if (quarantined.length > 0) return `quarantined: ${quarantined.map(({ id }) => id).join(", ")}`
  if (node.kind === "supervisor" && isSpent(node.budget)) {
    const { max, periodMillis, used } = node.budget
    return `close to giving up: ${used} of ${max} restarts in ${periodMillis / 1000} s`
  }
  return node.health === "ok" ? null : node.health
}

/** The steps that could not be undone. */
export const stuckOf = (steps: SagaSnapshot["steps"]): ReadonlyArray<string> =>
  steps.filter(({ state }) => state === "stuck").map(({ name }) => name)

export const stuckText = (steps: ReadonlyArray<string>): string => `cannot undo ${steps.join(", ")}`

/** How bad it is, 0 is worst; `well` has no problem. */
export const well = 4

/** Most nodes are well, and of those no snapshot is made to know it. */
export const rankOf = (node: Node): number => {
  if (node instanceof RoutineRecord) {
    const { health } = node
    return health === "stuck" ? 0 : health === "failed" ? 1 : node.status === "backoff" || health !== "ok" ? 3 : well
  }
  if (node.kind === "topic" || node.kind === "bus") return well
  const snapshot = node.snapshot()
  if (snapshot.health === "stuck") return 0
  if (snapshot.health === "failed") return 1
  if (snapshot.kind === "supervisor") return problemOf(snapshot, (text) => text) === null ? well : 2
  return snapshot.health === "ok" ? well : 3
}
