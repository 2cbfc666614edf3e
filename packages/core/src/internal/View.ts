/** What a routine looks like from outside. */
import * as Duration from "effect/Duration"
import type { Health } from "../Event.ts"
import type { Past } from "../History.ts"
import { path, shown } from "../Kernel.ts"
import type { RoutineRecord } from "../RoutineRecord.ts"
import type { RoutineSnapshot, RoutineStats } from "../Snapshot.ts"
import { healthOf } from "./RunExit.ts"
import type { Vitals } from "./Vitals.ts"

export const lookOf = (record: RoutineRecord): Health => {
  if (record.isStuck) return "stuck"
  const { idleTimeout } = record.options
  const isLate = idleTimeout !== undefined && record.scope !== undefined &&
    record.idle(record.kernel.writer.now()) > Duration.toMillis(idleTimeout) / 2
  return healthOf(record.status, isLate)
}

export const snapshotOf = (
  record: RoutineRecord,
  vitals: Vitals | undefined,
  past: Past | undefined
): RoutineSnapshot => {
  const { kernel, owner, since, startedAt } = record
  const { writer } = kernel
  const lastBeat = vitals?.heard(writer.now())
  const nextStartAt = past?.nextStartAt
  return {
    ...shown(record, kernel, since),
    health: record.health,
    // A tree that is being shut down is ready for nothing, from the first phase on.
    ready: record.isReady && record.scope !== undefined && !record.stopping && kernel.closing === "open",
    startedAt: startedAt === undefined ? null : writer.shown(startedAt),
    incarnation: record.incarnation,
    restarts: past?.restarts ?? 0,
    supervisor: record.isSupervised && owner !== undefined ? path(owner) : null,
    nextStartAt: nextStartAt === undefined ? null : writer.shown(nextStartAt),
    budget: null,
    lastExit: record.lastExit ?? null,
    lastBeat: lastBeat === undefined ? null : writer.shown(lastBeat),
    info: vitals?.info ?? {},
    forkSite: past?.forkSite ?? null,
    attributes: record.options.attributes ?? {}
  }
}

export const statsOf = (record: RoutineRecord, vitals: Vitals | undefined): RoutineStats => {
  const now = record.isFinal ? record.since : record.kernel.writer.now()
  const queue = { length: 0, capacity: 0, bytes: 0 }
  for (const { stats } of record.options.resources ?? []) {
    queue.length += stats.length
    queue.capacity += stats.capacity
    queue.bytes += stats.bytes
  }
  return {
    uptimeMillis: record.startedAt === undefined ? 0 : now - record.startedAt,
    idleMillis: record.idle(now),
    busyMillis: vitals?.busy?.total(now) ?? 0,
    blockedMillis: vitals?.blocked?.total(now) ?? 0,
    queue
  }
}
