/**
 * Log lines that say which routine they come from, and lines about the lives of routines.
 *
 * Every line that is logged within a routine is annotated with `orchestra.routine.id`, `orchestra.routine.name`,
 * `orchestra.routine.attempt` and, below a supervisor, `orchestra.supervisor.path`, whichever logger prints or exports
 * it. Within supervised routines a line is no event of a span: nothing bounds a span that is open for as long.
 *
 * What becomes of routines is logged once, with `orchestra.event`: `routine.started` and `routine.exited` at level Debug,
 * `routine.restarted` and `mailbox.full` at Warn, `routine.gave_up` and `shutdown.forced` at Error. Of the restarts of a
 * routine the first five in a minute are logged, the others of that minute in one line at its end. A failure that nobody
 * awaits, which the orchestrator logs by itself, is not told again.
 *
 * `Telemetry` makes it: `telemetry.logs`.
 *
 * **Gotchas**
 *
 * A program that provides loggers of its own inside a routine gets its lines as they are.
 *
 * **Example** (The last lines of a routine that somebody looks at)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { Telemetry } from "@effect-orchestra/observability"
 * import { Deferred, Effect, Layer, Logger } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const { logs } = yield* Telemetry
 *   const go = yield* Deferred.make<void>()
 *   const routine = yield* Orchestrator.fork(Effect.andThen(Deferred.await(go), Effect.log("hello")), { name: "greeter" })
 *   yield* logs.watch(routine.id)
 *   yield* Deferred.succeed(go, undefined)
 *   yield* Routine.await(routine)
 *   return (yield* logs.recent(routine.id)).map(({ level, message }) => [level, message])
 * })
 *
 * const layer = Layer.provideMerge(Telemetry.layer, Orchestrator.layer)
 * const quiet = Logger.layer([])
 * await Effect.runPromise(program.pipe(Effect.provide(layer), Effect.provide(quiet))) // => [["Info", "hello"]]
 * ```
 *
 * @since 0.1.0
 */
import type { Kernel } from "@effect-orchestra/core/Kernel"
import { observe, type Observer } from "@effect-orchestra/core/Observer"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { LogLine } from "./internal/AnswerSchema.ts"
import { Lifecycle } from "./internal/Lifecycle.ts"
import { RecentLines } from "./internal/RecentLines.ts"
import { RoutineLoggers } from "./internal/RoutineLoggers.ts"
import type { Runs } from "./internal/Runs.ts"

export { LogLine } from "./internal/AnswerSchema.ts"

/**
 * The lines of the routines of one orchestrator.
 *
 * @category models
 * @since 0.1.0
 */
export interface Logs {
  /**
   * Keeps the lines of the routine of this id from now on, the last 200, for as long as somebody watches: it is forgotten
   * a minute after it was watched last, or when 16 others were watched since.
   */
  readonly watch: (id: string) => Effect.Effect<void>
  /** The lines of a watched routine, oldest first; none of one that is not. */
  readonly recent: (id: string) => Effect.Effect<ReadonlyArray<LogLine>>
}

/**
 * Observes an orchestrator while the scope is open; `followers` tell it of runs. `dropped` is told of lifecycle lines that came faster than they
 * could be logged.
 *
 * @stability unstable
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  kernel: Kernel,
  followers: Runs,
  dropped: (lines: number) => void
): Effect.fn.Return<Logs, never, Scope.Scope> {
  const recent = new RecentLines()
  const loggers = new RoutineLoggers(recent.tell)
  const lifecycle = yield* Lifecycle.make(kernel, dropped)
  const observer: Observer = {
    // Told of every run: only where it is shown.
    ...lifecycle.showsDebug ? { ended: (record, exit) => lifecycle.ended(record, exit) } : undefined,
    concluded: (saga, end) => lifecycle.concluded(saga, end),
    full: (mailbox, capacity) => lifecycle.full(mailbox, capacity),
    abandoned: (record, waited) => lifecycle.abandoned(record, waited)
  }
  followers.lines = {
    starting: (record, context) => {
      lifecycle.started(record)
      return loggers.within(context)
    },
    restarted: (record, supervisor, reason, delay) => lifecycle.restarted(record, supervisor, reason, delay),
    decided: (supervisor, record, decision, exit) => lifecycle.decided(supervisor, record, decision, exit)
  }
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      followers.lines = undefined
    })
  )
  yield* observe(kernel, observer)
  return {
    watch: (id) => Effect.sync(() => recent.watch(id, kernel.writer.now())),
    recent: (id) => Effect.sync(() => recent.recent(id))
  }
})

/**
 * Nothing is kept, annotated or logged.
 *
 * @category constructors
 * @since 0.1.0
 */
export const none: Logs = { watch: () => Effect.void, recent: () => Effect.succeed([]) }
