/**
 * What has happened in a tree, as a test wants to read it.
 *
 * **Example** (Waiting for an event, and the log of a routine that fails)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { recorder, TestOrchestra } from "@effect-orchestra/core/testing"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const record = yield* recorder
 *   const routine = yield* Orchestrator.fork(Effect.fail(new Error("no route")), { name: "dialer" })
 *   yield* Routine.await(routine)
 *   yield* record.await((event) => event._tag === "Stopped")
 *   return record.log
 * })
 *
 * const log = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(TestOrchestra.layer)))
 * log // => ["Forked /orchestra/dialer", "Ready /orchestra/dialer run 1", "Exited /orchestra/dialer run 1: failure Error: no route", "Stopped /orchestra/dialer run 1: state failed"]
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { baseFields, type CancelledBy, type OrchestratorEvent, type RunExit } from "../Event.ts"
import { Orchestrator } from "../Orchestrator.ts"
import type { Writer } from "../Writer.ts"

/**
 * The events of an orchestrator since the recorder was made, in their order.
 *
 * @category models
 * @since 0.1.0
 */
export interface Recorder {
  readonly events: ReadonlyArray<OrchestratorEvent>
  readonly tags: ReadonlyArray<OrchestratorEvent["_tag"]>
  /** The events of one node, by its path. */
  of(path: string): ReadonlyArray<OrchestratorEvent>
  /**
   * One line for each event, for comparison with another run: without ids of events and times of the clock, so that
   * only what happened, and in which order, makes a difference.
   */
  readonly log: ReadonlyArray<string>
  /** Waits for the first event that fits, which may have happened already. Dies when the recorder's scope is closed. */
  await(predicate: (event: OrchestratorEvent) => boolean): Effect.Effect<OrchestratorEvent>
}

/**
 * Records the events of the orchestrator in the context while the scope is open.
 *
 * @category constructors
 * @since 0.1.0
 */
export const recorder: Effect.Effect<Recorder, never, Orchestrator | Scope.Scope> = Effect.gen(function*() {
  const orchestrator = yield* Orchestrator
  const recording = new Recording(orchestrator.kernel.writer)
  yield* Effect.addFinalizer(() => Effect.sync(() => recording.close()))
  yield* orchestrator.instrument((event) => recording.add(event))
  return recording
})

interface Waiting {
  readonly fits: (event: OrchestratorEvent) => boolean
  readonly resume: (effect: Effect.Effect<OrchestratorEvent>) => void
}

const closed = Effect.die(new Error("the recorder is closed: its scope has ended"))

class Recording implements Recorder {
  private readonly writer: Writer
  private readonly waiting = new Set<Waiting>()
  private open = true
  readonly events: Array<OrchestratorEvent> = []

  constructor(writer: Writer) {
    this.writer = writer
  }

  get tags(): ReadonlyArray<OrchestratorEvent["_tag"]> {
    return this.events.map(({ _tag }) => _tag)
  }

  of(path: string): ReadonlyArray<OrchestratorEvent> {
    return this.events.filter((event) => event.path === path)
  }

  get log(): ReadonlyArray<string> {
    return this.events.map(line)
  }

  await(fits: Waiting["fits"]): Effect.Effect<OrchestratorEvent> {
    return Effect.callback((resume) => {
      const seen = this.events.find(fits)
      if (seen !== undefined) return resume(Effect.succeed(seen))
      if (!this.open) return resume(closed)
      const waiting = { fits, resume }
      this.waiting.add(waiting)
      return Effect.sync(() => this.waiting.delete(waiting))
    })
  }

  add(event: OrchestratorEvent): void {
    this.events.push(event)
    for (const waiting of this.waiting) if (waiting.fits(event)) this.wake(waiting, Effect.succeed(event))
  }

  close(): void {
    this.open = false
    for (const waiting of this.waiting) this.wake(waiting, closed)
  }

  private wake(waiting: Waiting, effect: Effect.Effect<OrchestratorEvent>): void {
    this.waiting.delete(waiting)
    this.writer.wake({ run: () => waiting.resume(effect) })
  }
}

/** What a clock has measured; a `delayMillis` was decided. */
const measured = new Set(["waitedMillis", "ranMillis", "at"])

const line = (event: OrchestratorEvent): string => {
  const run = event.incarnation === 0 ? "" : ` run ${event.incarnation}`
  const details = Object.entries(event)
    .filter(([key, value]) => key !== "_tag" && !(key in baseFields) && !measured.has(key) && value !== null)
    .map(([key, value]) => shown(key, value))
  return `${event._tag} ${event.path}${run}${details.length === 0 ? "" : `: ${details.join(", ")}`}`
}

/** The events of other packages have fields of their own; these two are the same everywhere. */
const shown = (key: string, value: unknown): string => {
  if (key === "exit") return shownExit(value as RunExit)
  if (key === "by") return shownBy(value as CancelledBy)
  return `${key} ${typeof value === "string" ? value : JSON.stringify(value)}`
}

const shownExit = ({ cancelledBy, errorType, message, reason }: RunExit): string => {
  const by = cancelledBy === null ? "" : ` (${shownBy(cancelledBy)})`
  return errorType === null ? `${reason}${by}` : `${reason} ${errorType}: ${message}${by}`
}

const shownBy = ({ reason, requester }: CancelledBy): string =>
  requester === null ? `${reason} from outside` : `${reason} by ${requester}`
