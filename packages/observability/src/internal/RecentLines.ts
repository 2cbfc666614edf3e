/** The last log lines of the routines that somebody looks at. */
import type { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import * as Cause from "effect/Cause"
import * as Inspectable from "effect/Inspectable"
import type * as Logger from "effect/Logger"
import * as References from "effect/References"
import type { LogLine } from "./AnswerSchema.ts"

/** How many lines of a routine are kept, of how many routines, and for how long after the last look (milliseconds). */
const maxLines = 200
const maxWatched = 16
const patience = 60_000

/** The longest text that is kept of a message, a cause or an annotation. */
const maxText = 2048

interface Watched {
  readonly lines: Array<LogLine>
  lookedAt: number
}

export class RecentLines {
  private readonly watched = new Map<string, Watched>()

  /** Keeps the lines of a routine from now on; of those that nobody has looked at for longest it forgets one. */
  watch(id: string, now: number): void {
    const before = this.watched.get(id)
    this.watched.delete(id)
    for (const [other, { lookedAt }] of this.watched) {
      if (now - lookedAt >= patience || this.watched.size >= maxWatched) this.watched.delete(other)
    }
    this.watched.set(id, { lines: before?.lines ?? [], lookedAt: now })
  }

  recent(id: string): ReadonlyArray<LogLine> {
    return [...this.watched.get(id)?.lines ?? []]
  }

  readonly tell = (record: RoutineRecord, line: Logger.Options<unknown>): void => {
    if (this.watched.size === 0) return
    const { id } = record
    const watched = this.watched.get(id)
    if (watched === undefined) return
    if (record.kernel.writer.now() - watched.lookedAt >= patience) return void this.watched.delete(id)
    if (watched.lines.length === maxLines) watched.lines.shift()
    watched.lines.push(shown(record, line))
  }
}

const shown = (record: RoutineRecord, { cause, date, fiber, logLevel, message }: Logger.Options<unknown>): LogLine => {
  const span = fiber.cache.span
  const annotations: Record<string, string> = {}
  for (const [name, value] of Object.entries(fiber.getRef(References.CurrentLogAnnotations))) {
    if (!name.startsWith("orchestra.")) annotations[name] = text(value)
  }
  return {
    at: date.getTime(),
    level: logLevel,
    incarnation: record.incarnation,
    message: text((Array.isArray(message) ? message : [message]).map((part) => text(part)).join(" ")),
    cause: cause.reasons.length === 0 ? null : text(Cause.pretty(cause)),
    annotations,
    traceId: span?.traceId ?? null,
    spanId: span?.spanId ?? null
  }
}

const text = (value: unknown): string =>
  (typeof value === "string" ? value : Inspectable.toStringUnknown(value, 0)).slice(0, maxText)
