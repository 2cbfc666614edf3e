/** The events that somebody asks for. */
import type { OrchestratorEvent } from "@effect-orchestra/core/Event"
import * as Effect from "effect/Effect"
import { EventLog, type Logged } from "../EventLog.ts"
import { type EventItem, type EventPage, type EventQuery, Level } from "./AnswerSchema.ts"
import { stamp } from "./Lists.ts"
import { valuesOf } from "./Query.ts"
import { type Redact, Redactor } from "./Redact.ts"
import { Pace } from "./Walk.ts"

type Query = typeof EventQuery.Type

/** An event as it is shown: errors are texts of the user. */
export const shownEvent = (event: OrchestratorEvent, redact: Redact): OrchestratorEvent => {
  if (event._tag === "Exited" && event.exit.message !== null) {
    return { ...event, exit: { ...event.exit, message: redact(event.exit.message) } }
  }
  return event._tag === "Acted" && event.detail !== null ? { ...event, detail: redact(event.detail) } : event
}

export const eventItem = ({ event, level }: Logged, redact: Redact): EventItem => ({
  ...shownEvent(event, redact),
  level
})

const matching = ({ kind, level, path, since = 0 }: Query) => {
  const kinds = kind === undefined ? undefined : new Set(valuesOf(kind))
  const least = level === undefined ? 0 : Level.literals.indexOf(level)
  return ({ event, level }: Logged): boolean =>
    event.seq > since && kinds?.has(event._tag) !== false && Level.literals.indexOf(level) >= least &&
    (path === undefined || event.path === path || event.path.startsWith(path.endsWith("/") ? path : `${path}/`))
}

/** All that are remembered and asked for, oldest first. */
export const matched = Effect.fnUntraced(function*(query: Query) {
  const fits = matching(query)
  const pace = new Pace()
  const found: Array<Logged> = []
  for (const logged of (yield* EventLog).all()) {
    if (fits(logged)) found.push(logged)
    if (pace.isOver()) yield* pace.rest
  }
  return found
})

/**
 * A page of events, in the order in which they happened: those after `since`, without it the newest.
 *
 * @category operations
 * @since 0.1.0
 */
export const events = Effect.fnUntraced(function*(query: Query) {
  const redact = yield* Redactor
  const log = yield* EventLog
  const { limit = 100, since } = query
  const found = yield* matched(query)
  const shown = since === undefined ? found.slice(-limit) : found.slice(0, limit)
  const hasMore = since !== undefined && found.length > limit
  const all = log.all()
  const newest = all.at(-1)?.event.seq ?? since ?? 0
  const page: EventPage = {
    ...yield* stamp,
    items: shown.map((logged) => eventItem(logged, redact)),
    page: {
      // Where nothing is left behind, whoever goes on need not look through these again.
      next: hasMore ? shown.at(-1)?.event.seq ?? newest : Math.max(newest, since ?? 0),
      hasMore,
      oldest: all[0]?.event.seq ?? null,
      evicted: log.evicted()
    }
  }
  return page
})
