/**
 * Which spans are worth sending, decided when they end: all orchestration spans that failed or took long, and of the
 * rest the traces of a fixed ratio.
 *
 * It wraps whatever `Tracer` there is, Effect's OTLP tracer and that of the OpenTelemetry SDK alike: spans are made by
 * it at once, with their ids, links and context, and one that is not kept is never ended there, so that no exporter
 * hears of it. It also holds every span to 128 events, 128 links and 128 attributes, which Effect does not.
 *
 * **Details**
 *
 * - A trace is kept or not by its id, so that all processes with the same ratio agree. What a sampled request from
 *   elsewhere brings with it is kept.
 * - Where a trace is not kept, the spans that end within an orchestration span that is still open are held until that
 *   one ends, the last 128 of each and 10,000 in all. If it fails or is slow, they are sent with it, and so are all
 *   spans around it that are still open.
 * - What the tracer itself does not sample stays unsampled.
 *
 * **Gotchas**
 *
 * - A parent that ended well before its child failed is gone: the child is sent without it.
 * - A request to another process carries the mark "sampled" while the decision is still open: that process may send
 *   spans of traces of which this one sends none.
 * - The ratio of an OpenTelemetry SDK sampler comes first, and what that drops nobody brings back: leave it at
 *   `always_on`.
 *
 * **Example** (One of a hundred, and every failure)
 *
 * ```ts import.meta.vitest
 * import { Sampler } from "@effect-orchestra/observability"
 * import { Context, Effect, Tracer } from "effect"
 *
 * const sent: Array<string> = []
 * const tracer = Tracer.make({
 *   span(options) {
 *     const span = Tracer.nativeTracer.span(options)
 *     const end = span.end
 *     span.end = (time, exit) => (sent.push(span.name), end.call(span, time, exit))
 *     return span
 *   }
 * })
 *
 * const annotations = Context.make(Sampler.Watched, true)
 * const program = Effect.gen(function*() {
 *   yield* Effect.void.pipe(Effect.withSpan("fine", { annotations }))
 *   const query = Effect.withSpan(Effect.void, "query")
 *   yield* Effect.andThen(query, Effect.fail("no")).pipe(Effect.withSpan("broken", { annotations }), Effect.ignore)
 * })
 *
 * await Effect.runPromise(Effect.withTracer(program, Sampler.make(tracer, { ratio: 0 })))
 * sent // => ["query", "broken"]
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Tracer from "effect/Tracer"
import * as Attributes from "./Attributes.ts"

/**
 * What a sampler keeps.
 *
 * @category models
 * @since 0.1.0
 */
export interface SamplerOptions {
  /** The share of traces that is kept whatever becomes of them: a number from 0 to 1. Default 1. */
  readonly ratio?: number | undefined
  /** From how long on an orchestration span is kept. Default 10 seconds. */
  readonly slow?: Duration.Input | undefined
  /** Told how many spans were held, and then dropped for want of room. */
  readonly dropped?: ((spans: number) => void) | undefined
}

/**
 * The annotation of a span that is kept whenever it fails or is slow. Orchestration spans have it; a program may give it
 * to spans of its own: `Effect.withSpan("checkout", { annotations: Context.make(Sampler.Watched, true) })`.
 *
 * @category references
 * @since 0.1.0
 */
export const Watched = Context.Reference<boolean>("@effect-orchestra/observability/Sampler/Watched", {
  defaultValue: () => false
})

/** How many events, links and attributes a span takes, and how many spans are held within one. */
const limit = 128

/** How many spans are held in all. */
const maxHeld = 10_000

/**
 * A tracer that sends no span but those that are kept, each within its limits. What has been wrapped stays so: wrapping
 * it again decides nothing anew.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (tracer: Tracer.Tracer, options: SamplerOptions = {}): Tracer.Tracer => {
  const { ratio = 1 } = options
  if (!(ratio >= 0 && ratio <= 1)) throw new Error(`the ratio of a sampler is a number from 0 to 1, got: ${ratio}`)
  const slow = Duration.toNanosUnsafe(options.slow ?? "10 seconds")
  const pool: Pool = { ratio, slow, dropped: options.dropped, held: 0 }
  return Tracer.make({
    span: (options) => track(tracer.span(within(options)), pool),
    context: tracer.context
  })
}

/**
 * Puts a sampler around the tracer that is there. Provide it to the program, and the tracer to it.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options?: SamplerOptions): Layer.Layer<never> =>
  Layer.effect(Tracer.Tracer, Effect.map(Effect.tracer, (tracer) => make(tracer, options)))

/**
 * Holds a span to 128 events, 128 links and 128 attributes from now on, and returns it. What is beyond is left out; its
 * attribute `orchestra.span.dropped` says how much that was.
 *
 * @category operations
 * @since 0.1.0
 */
export const limited = (span: Tracer.Span): Tracer.Span => track(span, undefined)

/**
 * Whether it is certain that a span is sent: sampled by its tracer, and kept by the sampler if there is one. `end` is how
 * and when it is about to end, in nanoseconds of the wall clock. What is decided only with a span around it is not certain.
 *
 * @category getters
 * @since 0.1.0
 */
export const isKept = (span: Tracer.Span, end?: { readonly at: bigint; readonly exit: Exit.Exit<unknown, unknown> }) =>
  span.sampled && (span as Tracked)[key]?.isCertain(end) !== false

/** The options of a span, with no more links than it may have. */
const within = (options: SpanOptions): SpanOptions =>
  options.links.length > limit ? { ...options, links: options.links.slice(0, limit) } : options

type SpanOptions = Parameters<Tracer.Tracer["span"]>[0]

/** What the spans of one sampler share. */
interface Pool {
  readonly ratio: number
  readonly slow: bigint
  readonly dropped: ((spans: number) => void) | undefined
  held: number
}

const key: unique symbol = Symbol.for("@effect-orchestra/observability/Sampler")

interface Tracked extends Tracer.Span {
  [key]?: Track | undefined
}

/** What is remembered of a span. */
class Track {
  readonly span: Tracer.Span
  readonly parent: Track | undefined
  readonly pool: Pool | undefined
  /** Its methods as its tracer made them. */
  private readonly attribute: Tracer.Span["attribute"]
  private readonly event: Tracer.Span["event"]
  private readonly addLinks: Tracer.Span["addLinks"]
  private readonly finish: Tracer.Span["end"]
  private readonly isWatched: boolean
  private keep: boolean
  private events = 0
  private dropped = 0
  private ended: readonly [endTime: bigint, exit: Exit.Exit<unknown, unknown>] | undefined = undefined
  /** Spans that have ended within it, and are sent if it is. */
  private held: Array<Track> | undefined = undefined

  constructor(span: Tracer.Span, pool: Pool | undefined, parent: Track | undefined) {
    this.span = span
    this.pool = pool
    this.parent = parent
    this.attribute = span.attribute
    this.event = span.event
    this.addLinks = span.addLinks
    this.finish = span.end
    this.isWatched = Context.get(span.annotations, Watched)
    this.keep = pool === undefined || !span.sampled || parent === undefined && isChosen(span, pool)
  }

  setAttribute(name: string, value: unknown): void {
    if (this.ended !== undefined) return
    const { attributes } = this.span
    if (attributes.size < limit || attributes.has(name)) this.attribute.call(this.span, name, value)
    else this.dropped++
  }

  addEvent(...event: Parameters<Tracer.Span["event"]>): void {
    if (this.ended !== undefined) return
    if (this.events++ < limit) this.event.apply(this.span, event)
    else this.dropped++
  }

  link(links: ReadonlyArray<Tracer.SpanLink>): void {
    if (this.ended !== undefined) return
    const fit = links.slice(0, Math.max(0, limit - this.span.links.length))
    this.dropped += links.length - fit.length
    if (fit.length > 0) this.addLinks.call(this.span, fit)
  }

  end(endTime: bigint, exit: Exit.Exit<unknown, unknown>): void {
    if (this.ended !== undefined) return
    const isKept = this.isKept(endTime, exit)
    this.ended = [endTime, exit]
    if (isKept) return this.send()
    let holder = this.parent
    while (holder !== undefined && (!holder.isWatched || holder.ended !== undefined)) holder = holder.parent
    // What it holds has ended before it, and goes where it goes.
    for (const track of [...this.release(), this]) holder?.hold(track)
  }

  /** Whether it is kept, as far as that is known. */
  isCertain(end: { readonly at: bigint; readonly exit: Exit.Exit<unknown, unknown> } | undefined): boolean {
    if (this.keep) return true
    // What has ended is dropped, or held for a span around it.
    if (this.ended !== undefined) return false
    return this.isWithinKept || end !== undefined && this.isWatched && (hasFailed(end.exit) || this.isSlow(end.at))
  }

  private isKept(endTime: bigint, exit: Exit.Exit<unknown, unknown>): boolean {
    this.keep = this.isCertain({ at: endTime, exit })
    if (!this.keep) return false
    for (let above = this.parent; above?.keep === false; above = above.parent) above.keep = true
    return true
  }

  private get isWithinKept(): boolean {
    let above = this.parent
    while (above?.keep === false) above = above.parent
    return above !== undefined
  }

  private isSlow(endTime: bigint): boolean {
    return this.pool !== undefined && endTime - this.span.status.startTime >= this.pool.slow
  }

  private hold(track: Track): void {
    const { pool } = this
    if (pool === undefined) return
    const held = this.held ??= []
    const isFull = held.length >= limit
    if (isFull || pool.held >= maxHeld) pool.dropped?.(1)
    if (isFull) held.shift()
    else if (pool.held < maxHeld) pool.held++
    else return
    held.push(track)
  }

  private release(): ReadonlyArray<Track> {
    const { held, pool } = this
    this.held = undefined
    if (held === undefined || pool === undefined) return []
    pool.held -= held.length
    return held
  }

  private send(): void {
    for (const track of this.release()) track.send()
    if (this.ended === undefined) return
    if (this.dropped > 0) this.attribute.call(this.span, Attributes.spanDropped, this.dropped)
    this.finish.apply(this.span, [...this.ended])
  }
}

const track = (span: Tracked, pool: Pool | undefined): Tracer.Span => {
  // One that is wrapped already, or that its tracer gives out again and again.
  if (span[key] !== undefined || !Object.isExtensible(span)) return span
  const parent = Option.getOrUndefined(span.parent)
  const above = parent?._tag === "Span" ? (parent as Tracked)[key] : undefined
  // The span itself, not a stand-in: tracers know theirs by their class.
  span[key] = new Track(span, pool, above?.pool === pool ? above : undefined)
  return Object.assign(span, limitedMethods)
}

const limitedMethods = {
  attribute(this: Tracked, name: string, value: unknown) {
    this[key]?.setAttribute(name, value)
  },
  event(this: Tracked, ...event: Parameters<Tracer.Span["event"]>) {
    this[key]?.addEvent(...event)
  },
  addLinks(this: Tracked, links: ReadonlyArray<Tracer.SpanLink>) {
    this[key]?.link(links)
  },
  end(this: Tracked, endTime: bigint, exit: Exit.Exit<unknown, unknown>) {
    this[key]?.end(endTime, exit)
  }
}

/** Whether a trace is kept that begins here: as its caller says, else by its id. */
const isChosen = ({ parent, traceId }: Tracer.Span, { ratio }: Pool): boolean =>
  ratio === 1 || (Option.isSome(parent) && parent.value._tag === "ExternalSpan" && parent.value.sampled) ||
  // The last 13 digits are 52 bits, which a number holds exactly.
  Number.parseInt(traceId.slice(-13), 16) / 2 ** 52 < ratio

/** An interruption is no failure. */
const hasFailed = (exit: Exit.Exit<unknown, unknown>): boolean =>
  Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)
