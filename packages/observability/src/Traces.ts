/**
 * Spans of what is orchestrated, made by the tracer that the program runs with.
 *
 * | What | Span |
 * | --- | --- |
 * | a run of a routine, a task, a transient or temporary child | `run NAME`, below the span of whoever forked it |
 * | a permanent child | `start NAME` and `stop NAME`: no span is open as long as it runs, and its work begins traces of its own |
 * | a restart | the event `orchestra.restart`, and a link to the run before |
 * | a decision that touches siblings, or gives up | `supervise NAME`, with an event for each child that stops or starts |
 * | `Group.run`, `Group.join` | `wait NAME`, around its tasks; the event `first_failure` |
 * | a mailbox that made somebody wait 10 ms or longer | the event `orchestra.mailbox.blocked` on the span of whoever waited |
 * | a message, where `messages` asks for it | `send NAME` or `publish NAME`, and, linked to it, `process NAME` |
 * | a shutdown | `shutdown`, a span for each of its phases, and `stop NAME` for what took a second or had to be left |
 *
 * All but those of messages are internal spans. An interruption is no error: it leaves the status of a span unset.
 *
 * With the tracer that Effect has by default, which sends nothing, nothing is made. `Telemetry` makes it:
 * `telemetry.traces`.
 *
 * **Gotchas**
 *
 * - What started before the telemetry has no span.
 * - Effect sets the status of a span that succeeds to `Ok`, and writes an error as an `exception` event.
 * - A routine that nobody supervises has a span for as long as it runs. Supervise what runs for ever.
 *
 * **Example** (The spans of a routine)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { Telemetry } from "@effect-orchestra/observability"
 * import { Effect, Layer, Tracer } from "effect"
 *
 * const spans: Array<Tracer.Span> = []
 * const tracer = Tracer.make({
 *   span(options) {
 *     const span = Tracer.nativeTracer.span(options)
 *     spans.push(span)
 *     return span
 *   }
 * })
 *
 * const program = Effect.gen(function*() {
 *   const job = yield* Orchestrator.fork(Effect.withSpan(Effect.void, "query"), { name: "job" })
 *   yield* Routine.await(job)
 * }).pipe(Effect.withSpan("request"))
 *
 * const layer = Layer.provideMerge(Telemetry.layer, Orchestrator.layer)
 * await Effect.runPromise(program.pipe(Effect.provide(layer), Effect.withTracer(tracer)))
 * spans.map(({ name }) => name) // => ["request", "run job", "query"]
 * new Set(spans.map(({ traceId }) => traceId)).size // => 1
 * ```
 *
 * @since 0.1.0
 */
import type { Kernel } from "@effect-orchestra/core/Kernel"
import { observe, type Observer, observeUnsafe } from "@effect-orchestra/core/Observer"
import type { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type * as Tracer from "effect/Tracer"
import * as Attributes from "./Attributes.ts"
import { GroupSpans } from "./internal/GroupSpans.ts"
import { MessageSpans } from "./internal/MessageSpans.ts"
import type { Runs } from "./internal/Runs.ts"
import { RunSpans } from "./internal/RunSpans.ts"
import { ShutdownSpans } from "./internal/ShutdownSpans.ts"
import { Tracing } from "./internal/Tracing.ts"
import * as Sampler from "./Sampler.ts"

/**
 * Which spans are made.
 *
 * @category models
 * @since 0.1.0
 */
export interface TracesOptions {
  /** Whether spans are made also with Effect's default tracer, which sends nothing. Default false: a span costs 1.3 us. */
  readonly always?: boolean | undefined
  /**
   * The mailboxes and topics, by their names, whose messages have spans, or `true` for all: `send NAME` or
   * `publish NAME`, and linked to it `process NAME` around the handler that `Mailbox.receiveWith` or `Bus.react` was
   * given. A mailbox that was made before the telemetry has none, nor have `trySend`, `sendAll` and `ask`. Default: none.
   * It costs two spans and an object for each message.
   */
  readonly messages?: boolean | ReadonlyArray<string> | undefined
}

/**
 * The spans of one orchestrator.
 *
 * @category models
 * @since 0.1.0
 */
export interface Traces {
  /** The span of the present run of a routine, else of its last one; of a permanent child that of its start. */
  readonly spanOf: (record: RoutineRecord) => Tracer.Span | undefined
}

/** From how many milliseconds on it is told that somebody waited at a mailbox. */
const blocked = 10

/**
 * Makes spans of what happens in an orchestrator while the scope is open; those that are open then end with it. `followers`
 * tell it of runs.
 *
 * @stability unstable
 * @category constructors
 * @since 0.1.0
 */
export const make = Effect.fnUntraced(function*(
  kernel: Kernel,
  followers: Runs,
  options: TracesOptions = {}
): Effect.fn.Return<Traces, never, Scope.Scope> {
  const tracing = new Tracing(kernel, yield* Effect.context<never>(), options.always === true)
  const shutdown = new ShutdownSpans(kernel, tracing)
  const runs = new RunSpans(kernel, tracing, shutdown)
  const groups = new GroupSpans(kernel, tracing)
  const waited: Observer["waited"] = (node, operation, record, millis, given) => {
    if (millis < blocked || tracing.around === undefined) return
    const inside = given?._tag === "Span" && given.status._tag === "Started" ? given : undefined
    const span = inside ?? (record === undefined ? undefined : runs.present(record))
    if (span === undefined) return
    const at = tracing.now()
    // Whoever waited goes on within this step, and its span may end: later would be too late.
    tracing.guarded(() =>
      Sampler.limited(span).event("orchestra.mailbox.blocked", at, {
        duration_s: millis / 1000,
        [Attributes.mailboxName]: node.name,
        [Attributes.mailboxOperation]: operation
      })
    )
  }
  const { messages = false } = options
  // As long as there is no tracer nothing else is worth being told.
  const first: Observer = {
    opening: (group, context) => groups.begin(group, context),
    waited,
    stopping: (_, phase) => shutdown.enter(phase)
  }
  followers.spans = { starting: (record, context, spawner) => runs.begin(record, context, spawner) }
  let removals: ReadonlyArray<() => void> = []
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      followers.spans = undefined
      tracing.began = undefined
      for (const remove of removals) remove()
      runs.close()
      groups.close()
      shutdown.close()
    })
  )
  yield* observe(kernel, first)
  if (messages !== false) yield* observe(kernel, new MessageSpans(tracing, messages === true ? undefined : messages))
  tracing.began = () => {
    removals = [runs, groups].map((observer) => observeUnsafe(kernel, observer))
  }
  return { spanOf: (record) => runs.spanOf(record) }
})

/**
 * No spans.
 *
 * @category constructors
 * @since 0.1.0
 */
export const none: Traces = { spanOf: () => undefined }
