/**
 * The last 10,000 events of an orchestrator: what happened before anybody looked.
 *
 * **Example** (What was worth a warning)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { EventLog } from "@effect-orchestra/observability"
 * import { Effect, Layer } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const job = yield* Orchestrator.fork(Effect.fail("boom"), { name: "job" })
 *   yield* Effect.exit(Routine.join(job))
 *   const log = yield* EventLog
 *   return log.all().filter(({ level }) => level === "warn").map(({ event }) => `${event.path} ${event._tag}`)
 * })
 *
 * const layer = Layer.provideMerge(EventLog.layer, Orchestrator.layer)
 * await Effect.runPromise(program.pipe(Effect.provide(layer))) // => ["/orchestra/job Exited"]
 * ```
 *
 * @since 0.1.0
 */
import type { OrchestratorEvent } from "@effect-orchestra/core/Event"
import { Ring } from "@effect-orchestra/core/History"
import { path } from "@effect-orchestra/core/Kernel"
import { observe } from "@effect-orchestra/core/Observer"
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import type { GaveUp } from "@effect-orchestra/supervisor/SupervisorEvent"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { Level } from "./internal/AnswerSchema.ts"
import { Telemetry } from "./Telemetry.ts"

/** So many events are kept, and so many of supervisors that gave up. */
const limit = 10_000
const lastWords = 20

/** Supervisors beyond so many are counted together. */
const maxSupervisors = 24

/** What stands for all supervisors that are not counted by name. */
const otherSupervisors = "_OTHER"

/**
 * An event and how much it matters.
 *
 * @category models
 * @since 0.1.0
 */
export interface Logged {
  readonly event: OrchestratorEvent
  readonly level: Level
}

/**
 * A saga that ended with steps that it could not undo.
 *
 * @category models
 * @since 0.1.0
 */
export interface StuckSaga {
  readonly at: number
  readonly id: string
  readonly path: string
  readonly steps: ReadonlyArray<string>
}

/**
 * Counts since the log was made, and how many of each there were in the last minute.
 *
 * @category models
 * @since 0.1.0
 */
export interface Tally {
  readonly starts: number
  readonly restarts: number
  readonly failures: number
}

/**
 * The events of an orchestrator that are remembered.
 *
 * @category services
 * @since 0.1.0
 */
export class EventLog extends Context.Service<EventLog, {
  /** Oldest first. */
  readonly all: () => ReadonlyArray<Logged>
  /** How many are kept. */
  readonly limit: number
  /** How many had to go because newer ones came. */
  readonly evicted: () => number
  /** The last supervisors that gave up, oldest first. */
  readonly gaveUp: () => ReadonlyArray<typeof GaveUp.Type>
  /** The last sagas that ended with something they could not undo, oldest first. */
  readonly stuckSagas: () => ReadonlyArray<StuckSaga>
  readonly tally: () => Tally
  /** What was counted within the last 60 seconds. */
  readonly minute: () => Tally
  /** Restarts by the name of the supervisor, those of most supervisors as `_OTHER`. */
  readonly restartsBy: () => ReadonlyMap<string, number>
}>()("@effect-orchestra/observability/EventLog") {
  /**
   * Follows the orchestrator from the moment the layer is built.
   *
   * @category layers
   * @since 0.1.0
   */
  static readonly layer: Layer.Layer<EventLog, never, Orchestrator> = Layer.effect(this, Effect.suspend(() => make))
}

/** The last 60 seconds, a second each. */
class Minute {
  private readonly seconds = new Float64Array(60).fill(-1)
  private readonly counts = new Float64Array(60)

  add(second: number): void {
    const at = second % 60
    if (this.seconds[at] !== second) {
      this.seconds[at] = second
      this.counts[at] = 0
    }
    this.counts[at] = (this.counts[at] ?? 0) + 1
  }

  total(now: number): number {
    let sum = 0
    for (let at = 0; at < 60; at++) {
      const second = this.seconds[at] ?? -1
      if (second > now - 60 && second <= now) sum += this.counts[at] ?? 0
    }
    return sum
  }
}

const make = Effect.gen(function*() {
  const orchestrator = yield* Orchestrator
  const { writer } = orchestrator.kernel
  const telemetry = Option.getOrUndefined(yield* Effect.serviceOption(Telemetry))
  const events = new Ring<OrchestratorEvent>(limit)
  const gaveUp = new Ring<typeof GaveUp.Type>(lastWords)
  const stuckSagas = new Ring<StuckSaga>(lastWords)
  const by = new Map<string, number>()
  const tally = { starts: 0, restarts: 0, failures: 0 }
  const minutes = { starts: new Minute(), restarts: new Minute(), failures: new Minute() }
  let evicted = 0

  const second = () => Math.floor(writer.now() / 1000)

  const count = (what: keyof Tally): void => {
    tally[what]++
    minutes[what].add(second())
  }

  yield* orchestrator.instrument((event) => {
    if (events.push(event) !== undefined) {
      evicted++
      telemetry?.dropped("event", 1)
    }
    if (event._tag === "Forked") count("starts")
    else if (event._tag === "Restarted") {
      count("starts")
      count("restarts")
      const name = by.has(event.supervisor) || by.size < maxSupervisors ? event.supervisor : otherSupervisors
      by.set(name, (by.get(name) ?? 0) + 1)
    } else if (event._tag === "Exited" && isFailure(event.exit.reason)) count("failures")
    else if (event._tag === "GaveUp") gaveUp.push(event)
  })

  yield* observe(orchestrator.kernel, {
    concluded: (saga, { outcome, stuck }) => {
      if (outcome !== "stuck") return
      stuckSagas.push({ at: writer.shown(writer.now()), id: saga.id, path: path(saga), steps: stuck })
    }
  })

  return EventLog.of({
    all: () => events.all.map((event) => ({ event, level: levelOf(event) })),
    limit,
    evicted: () => evicted,
    gaveUp: () => gaveUp.all,
    stuckSagas: () => stuckSagas.all,
    tally: () => ({ ...tally }),
    minute: () => {
      const now = second()
      return {
        starts: minutes.starts.total(now),
        restarts: minutes.restarts.total(now),
        failures: minutes.failures.total(now)
      }
    },
    restartsBy: () => by
  })
})

const isFailure = (reason: string): boolean =>
  reason === "failure" || reason === "defect" || reason === "idle_timeout" || reason === "abandoned"

/**
 * How much an event matters: what comes and goes `debug`, what somebody asked for `info`, failures and what follows from
 * them `warn`, and `error` what does not mend itself.
 *
 * @category getters
 * @since 0.1.0
 */
export const levelOf = (event: OrchestratorEvent): Level => {
  switch (event._tag) {
    case "Forked":
    case "Ready":
    case "Stopped":
      return "debug"
    case "StopRequested":
    case "Released":
      return "info"
    case "Acted":
      return event.result === "refused" || event.result === "failed" ? "warn" : "info"
    case "Exited":
      return isFailure(event.exit.reason) ? "warn" : "debug"
    case "Decided":
      return event.decision === "give_up" || event.decision === "escalate" || event.decision === "quarantine"
        ? "error"
        : event.severity === "error"
        ? "warn"
        : "info"
    case "Stuck":
    case "Abandoned":
    case "GaveUp":
    case "Quarantined":
      return "error"
    default:
      return "severity" in event ? levels[String(event.severity)] ?? "warn" : "warn"
  }
}

/** What events of packages that this one does not know say themselves. */
const levels: { readonly [severity: string]: Level } = { debug: "debug", info: "info", warning: "warn", error: "error" }
