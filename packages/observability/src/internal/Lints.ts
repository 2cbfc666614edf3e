/** What is worth a look at a node, by rules. */
import { type Node, path } from "@effect-orchestra/core/Kernel"
import type { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import type { MailboxSnapshot, SagaSnapshot, SupervisorSnapshot } from "@effect-orchestra/core/Snapshot"
import * as Duration from "effect/Duration"
import type { LongSlice } from "../Metering.ts"
import type { Lint, LintRule } from "./AnswerSchema.ts"
import { headAge, isSpent, stuckOf, stuckText } from "./Rows.ts"

/** In milliseconds. */
export const bounds = {
  /** Three failures within this are a loop. */
  loop: 60_000,
  message: 30_000,
  recent: 60_000,
  /** One that holds the event loop for so long yields to nobody. */
  never: 1000,
  /** A mailbox that nobody has ever received from, for so long. */
  receiver: 10_000,
  grace: 5000
}

const failures = 3

const lint = (
  node: Node,
  rule: LintRule,
  severity: Lint["severity"],
  since: number | null,
  text: string
): Lint => ({ rule, severity, id: node.id, path: path(node), text, since })

const seconds = (millis: number): string => `${Math.round(millis / 1000)} s`

/** A routine that runs as it should has none, and that is known without a snapshot. */
export const routineLints = (record: RoutineRecord, now: number): ReadonlyArray<Lint> => {
  const found: Array<Lint> = []
  const { incarnation, kernel: { writer }, status } = record
  if (incarnation > failures) {
    const last = record.attempts.slice(-failures)
    const [first] = last
    const wall = writer.shown(now)
    if (
      first !== undefined && last.length === failures && wall - first.at <= bounds.loop &&
      last.every(({ reason }) => reason === "failure" || reason === "defect" || reason === "idle_timeout")
    ) {
      const text = `crashes again and again: ${failures} of its runs within ${seconds(wall - first.at)}`
      found.push(lint(record, "crash_loop", "error", first.at, text))
    }
  }
  if (status === "running" && record.options.idleTimeout !== undefined && record.health === "degraded") {
    const idle = record.idle(now)
    found.push(
      lint(record, "heartbeat_stale", "warning", writer.shown(now - idle), `has not beaten for ${seconds(idle)}`)
    )
  }
  const { askedAt } = record
  if (askedAt !== undefined) {
    const { shutdown } = record.options
    const bound = bounds.grace + (shutdown === undefined ? bounds.grace : Duration.toMillis(shutdown))
    if (now - askedAt > bound) {
      found.push(
        lint(
          record,
          "stopping_past_grace",
          "error",
          writer.shown(askedAt),
          `still stops after ${seconds(now - askedAt)}`
        )
      )
    }
  }
  return found
}

export const supervisorLints = (node: Node, { budget }: SupervisorSnapshot): ReadonlyArray<Lint> =>
  isSpent(budget)
    ? [
      lint(
        node,
        "budget",
        "error",
        null,
        `has used ${budget.used} of ${budget.max} restarts in ${seconds(budget.periodMillis)}`
      )
    ]
    : []

/** What a compensation that gave up leaves behind does not mend itself. */
export const sagaLints = (node: Node, { steps }: SagaSnapshot): ReadonlyArray<Lint> => {
  const stuck = stuckOf(steps)
  return stuck.length === 0 ? [] : [lint(node, "saga_stuck", "error", null, stuckText(stuck))]
}

export const mailboxLints = (
  node: Node,
  { since, state, stats }: MailboxSnapshot,
  now: number,
  wall: number
): ReadonlyArray<Lint> => {
  if (state !== "running" && state !== "stopping") return []
  const found: Array<Lint> = []
  const { blockedReceivers, blockedSenders, capacity, handling, length, received } = stats
  if (length > 0.9 * capacity) {
    const full = Math.round(100 * length / capacity)
    found.push(lint(node, "mailbox_full", "error", null, `is ${full} % full: ${length} of ${capacity} messages`))
  }
  const age = headAge(node, now) ?? 0
  if (age > bounds.message) {
    found.push(lint(node, "message_age", "warning", wall - age, `its oldest message is ${seconds(age)} old`))
  }
  if (blockedSenders > 0) {
    found.push(
      lint(
        node,
        "sender_blocked",
        "warning",
        null,
        `${blockedSenders} ${blockedSenders === 1 ? "waits" : "wait"} for room`
      )
    )
  }
  if (length > 0 && received + handling + blockedReceivers === 0 && wall - since > bounds.receiver) {
    const text = `has ${length === 1 ? "a message" : `${length} messages`}, and nobody has ever received one`
    found.push(lint(node, "mailbox_without_receiver", "warning", since, text))
  }
  return found
}

/** Who held the event loop within the last minute. */
export const sliceLints = (slices: ReadonlyArray<LongSlice>, wall: number): ReadonlyArray<Lint> => {
  const by = new Map<string, { longest: LongSlice; times: number }>()
  for (const slice of slices) {
    if (slice.routine === undefined || wall - slice.at > bounds.recent) continue
    const known = by.get(slice.routine.id)
    if (known === undefined) by.set(slice.routine.id, { longest: slice, times: 1 })
    else {
      known.times++
      if (slice.durationMillis > known.longest.durationMillis) known.longest = slice
    }
  }
  return Array.from(by.values(), ({ longest: { at, durationMillis, routine }, times }): Lint => {
    const never = durationMillis > bounds.never
    return {
      rule: never ? "never_yields" : "slow_slice",
      severity: never ? "error" : "warning",
      id: routine?.id ?? null,
      path: routine?.path ?? null,
      text: `has held the event loop for ${Math.round(durationMillis)} ms (${times} times/min)`,
      since: at
    }
  })
}

export const bySeverity = (a: Lint, b: Lint): number => Number(a.severity !== "error") - Number(b.severity !== "error")
