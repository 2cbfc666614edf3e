/**
 * What happens, as server-sent events: a stream for each open page, and no more work than one page needs.
 *
 * A stream begins with `hello` and one `snapshot`; after that come `delta` frames with the rows that changed, at most
 * twice a second, and every event of the orchestrator as an `event` frame at once. Streams that ask for the same share
 * their frames, which are made once. A stream that is read slowly never makes the server hold more: beyond 1 MiB it goes
 * on from a snapshot of what is now, and is told how many events it has missed. Who comes back within half a minute, and
 * says which frame it has seen last, is given those since.
 *
 * **Example** (How a stream begins)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Feed, Telemetry } from "@effect-orchestra/observability"
 * import { Effect, Layer, Stream } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const { open } = yield* Feed
 *   const frames = yield* open({ topics: ["overview"] })
 *   const first = yield* Stream.runCollect(Stream.take(frames, 2))
 *   return first.map((frame) => /^event: .*$/m.exec(frame)?.[0])
 * })
 *
 * const layer = Feed.layer.pipe(Layer.provideMerge(Telemetry.layer), Layer.provideMerge(Orchestrator.layer))
 * const events = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(layer)))
 * events // => ["event: hello", "event: snapshot"]
 * ```
 *
 * @since 0.1.0
 */
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { Charts } from "./Charts.ts"
import {
  Channel,
  inParts,
  intervals,
  limits,
  Reader,
  type Subscription,
  type Topic,
  topics
} from "./internal/Channel.ts"
import { shownEvent } from "./internal/Events.ts"
import { monotonicMillis } from "./internal/Monotonic.ts"
import { Redactor } from "./internal/Redact.ts"
import { rowOf } from "./internal/Rows.ts"
import type { Row } from "./internal/RowSchema.ts"
import { totalsOf } from "./internal/Totals.ts"
import { Pace } from "./internal/Walk.ts"
import { worstFirst } from "./internal/WorstFirst.ts"
import { Telemetry } from "./Telemetry.ts"

/**
 * As many streams are open as the server keeps.
 *
 * @category errors
 * @since 0.1.0
 */
export class TooManyStreams extends Schema.TaggedError<TooManyStreams>()("TooManyStreams", { limit: Schema.Int }) {
  override get message() {
    return `${this.limit} streams are open, and no more are kept`
  }
}

/**
 * What a stream is about, and where it goes on.
 *
 * @category models
 * @since 0.1.0
 */
export interface OpenOptions {
  /** The id of the last frame that the client has seen: it is given those since, or a `reset` and a snapshot. */
  readonly lastEventId?: string | undefined
  /** Default: all. */
  readonly topics?: ReadonlyArray<Topic> | undefined
  /** Only the rows and events of these nodes. Default: those that matter most. */
  readonly ids?: ReadonlyArray<string> | undefined
}

/**
 * The live streams of one server.
 *
 * @category services
 * @since 0.1.0
 */
export class Feed extends Context.Service<Feed, {
  /** Takes a place among the streams for as long as the scope is open, or fails with `TooManyStreams`. */
  readonly open: (options?: OpenOptions) => Effect.Effect<Stream.Stream<string>, TooManyStreams, Scope.Scope>
  /** How many streams are open, and how many events they have missed because they were read slowly. */
  readonly stats: () => { readonly active: number; readonly limit: number; readonly dropped: number }
  /** Ends every stream, and those that are opened later. */
  readonly close: Effect.Effect<void>
}>()("@effect-orchestra/observability/Feed") {
  /**
   * Closing the layer ends the streams.
   *
   * @category layers
   * @since 0.1.0
   */
  static readonly layer: Layer.Layer<Feed, never, Orchestrator | Telemetry> = Layer.effect(
    this,
    Effect.suspend(() => Effect.acquireRelease(make, (feed) => feed.close))
  )
}

const make = Effect.gen(function*() {
  const orchestrator = yield* Orchestrator
  const { kernel } = orchestrator
  const { writer } = kernel
  const telemetry = yield* Telemetry
  const { instance } = telemetry
  const redact = yield* Redactor
  const charts = Option.getOrUndefined(yield* Effect.serviceOption(Charts))
  const scope = yield* Effect.scope
  const channels = new Map<string, Channel>()
  let active = 0
  let dropped = 0
  let closed = false
  let sequence = 0

  yield* orchestrator.instrument((event) => {
    for (const channel of channels.values()) channel.tell(event)
  })

  const text = (event: string, data: string, seq?: number): string =>
    `${seq === undefined ? "" : `id: ${instance}-${seq}\n`}event: ${event}\ndata: ${data}\n\n`

  const drop = (events: number): void => {
    dropped += events
    telemetry.dropped("stream", events)
  }

  const add = (channel: Channel, event: string, data: string, events = 0): void => {
    const seq = ++sequence
    channel.add(seq, text(event, data, seq), events)
  }

  /** Rows are JSON already. */
  const withRows = (head: object, rows: ReadonlyArray<string>): string =>
    `${JSON.stringify(head).slice(0, -1)},"rows":[${rows.join(",")}]}`

  const summary = Effect.gen(function*() {
    const { active, restarts, starts } = totalsOf(kernel)
    return { status: yield* orchestrator.status, nodes: kernel.nodes.size + 1, ...active, starts, restarts }
  })

  const headOf = Effect.map(
    Effect.zip(Clock.currentTimeMillis, summary),
    ([at, summary]) => ({ at, summary })
  )

  /** Begins anew with what is to be shown first. */
  const begin = Effect.fnUntraced(function*(channel: Channel) {
    channel.startOver = false
    channel.changed.clear()
    const sent = new Map<string, string>()
    const pace = new Pace()
    const show = (row: Row): void => {
      sent.set(row.id, JSON.stringify(row))
      if (!rests(row)) channel.change(row.id)
    }
    for (const id of channel.topics.has("rows") ? channel.ids ?? (yield* worstFirst(kernel, limits.rows)) : []) {
      const node = kernel.node(id)
      if (node !== undefined) show(rowOf(node, redact))
      if (pace.isOver(16)) yield* pace.rest
    }
    // At once: who comes meanwhile begins with what was before.
    channel.sent = sent
    channel.summary = JSON.stringify(yield* summary)
    if (channel.hasBegun) channel.add(++sequence, undefined)
    channel.hasBegun = true
  })

  const delta = Effect.fnUntraced(function*(channel: Channel) {
    const { sent } = channel
    const removed: Array<string> = []
    const rows: Array<string> = []
    const look = (id: string): void => {
      const node = kernel.node(id)
      if (node === undefined) {
        if (sent.delete(id)) removed.push(id)
        return
      }
      const before = sent.get(id)
      if (before === undefined && sent.size >= 2 * limits.rows) return
      const row = rowOf(node, redact)
      const now = JSON.stringify(row)
      if (now !== before) {
        sent.set(id, now)
        rows.push(now)
      }
      // Not every move is an event, and what stands above changes with what happens below.
      if (channel.ids === undefined && !rests(row)) channel.change(id)
    }
    const changed = new Set(channel.ids ?? channel.changed)
    if (channel.ids === undefined) {
      channel.changed.clear()
      // Supervisors and groups are found by what they own.
      for (const id of changed) {
        let above = kernel.node(id)?.owner
        for (; above !== undefined && !changed.has(above.id); above = above.owner) changed.add(above.id)
      }
    }
    const pace = new Pace()
    if (channel.topics.has("rows")) {
      for (const id of changed) {
        look(id)
        if (pace.isOver(16)) yield* pace.rest
      }
    }
    const head = yield* headOf
    const shown = JSON.stringify(head.summary)
    const isNew = shown !== channel.summary && channel.topics.has("overview")
    channel.summary = shown
    if (rows.length === 0 && removed.length === 0 && !isNew) return
    inParts(rows).forEach((part, index) =>
      add(channel, "delta", withRows({ ...head, removed: index === 0 ? removed : [] }, part))
    )
  })

  const events = (channel: Channel): void => {
    const { dropped: tooMany, events } = channel.takeEvents()
    if (tooMany > 0) {
      drop(tooMany)
      add(channel, "dropped", JSON.stringify({ dropped: tooMany }), tooMany)
    }
    for (const event of events) add(channel, "event", JSON.stringify(shownEvent(event, redact)), 1)
  }

  /** Makes the frames of a channel, while somebody reads it. */
  const drive = Effect.fnUntraced(function*(channel: Channel) {
    let nextDelta = 0
    let nextEvents = 0
    while (!closed && channel.readers.size > 0) {
      const now = yield* monotonicMillis
      const { last } = channel
      const wasNew = !channel.hasBegun
      if (charts !== undefined) yield* charts.look
      if (wasNew) {
        yield* begin(channel)
        nextDelta = now + intervals.delta
      }
      if (channel.waiting > 0 && now >= nextEvents) {
        nextEvents = now + intervals.events
        events(channel)
      }
      if (now >= nextDelta) {
        nextDelta = now + intervals.delta
        yield* channel.startOver ? begin(channel) : delta(channel)
      }
      if (wasNew || channel.last !== last) {
        for (const { wake } of channel.readers) Queue.offerUnsafe(wake, undefined)
      }
      const wait = Math.min(nextDelta, channel.waiting > 0 ? nextEvents : Infinity) - now
      yield* channel.waiting > 0 ? Effect.sleep(wait) : Effect.timeoutOption(Queue.take(channel.wake), wait)
    }
  })

  const driven = (channel: Channel) =>
    Effect.suspend(() => {
      if (channel.isDriven) return Effect.void
      channel.isDriven = true
      const ended = Effect.sync(() => {
        channel.isDriven = false
      })
      return Effect.forkIn(Effect.ensuring(drive(channel), ended), scope)
    })

  const hello = (): string =>
    text(
      "hello",
      JSON.stringify({
        v: 1,
        instance,
        name: orchestrator.name,
        pid: process.pid,
        since: kernel.since,
        seq: sequence,
        intervals
      })
    )

  /** From here on the reader is given what is now, part by part. */
  const giveSnapshot = (channel: Channel, reader: Reader): void => {
    reader.snapshot = inParts(channel.sent.values())
    reader.part = 0
    reader.at = channel.last
  }

  const snapshotPart = Effect.fnUntraced(function*(reader: Reader) {
    const { part, snapshot } = reader
    const head = yield* headOf
    const last = part === snapshot.length - 1
    const rows = snapshot[part] ?? []
    reader.part++
    if (last) reader.snapshot = []
    // Who has seen a part of it has seen none of it.
    return text("snapshot", withRows({ ...head, part: part + 1, last }, rows), last ? reader.at.seq : undefined)
  })

  const greet = (channel: Channel, reader: Reader, lastEventId: string | undefined): ReadonlyArray<string> => {
    const seen = lastEventId?.startsWith(`${instance}-`) === true
      ? channel.seen(Number(lastEventId.slice(instance.length + 1)))
      : undefined
    reader.greeted = true
    if (seen !== undefined) {
      reader.at = seen
      return [hello()]
    }
    giveSnapshot(channel, reader)
    return lastEventId === undefined ? [hello()] : [hello(), text("reset", "{}")]
  }

  /** The frames that a reader has not seen, as many as are handed over at once. */
  const unseen = (channel: Channel, reader: Reader): ReadonlyArray<string> => {
    const frames: Array<string> = []
    if (channel.isLost(reader)) {
      const missed = channel.last.events - reader.at.events
      if (missed > 0) {
        drop(missed)
        frames.push(text("dropped", JSON.stringify({ dropped: missed })))
      }
      giveSnapshot(channel, reader)
      return frames
    }
    let size = 0
    for (let frame = channel.after(reader); frame !== undefined && size < limits.batch; frame = channel.after(reader)) {
      reader.at = frame
      if (frame.text === undefined) {
        reader.snapshot = inParts(channel.sent.values())
        reader.part = 0
        return frames
      }
      size += frame.text.length
      frames.push(frame.text)
    }
    return frames
  }

  /** The frames that are due now; waits until there are some. None: the stream is over. */
  const next = Effect.fnUntraced(function*(channel: Channel, reader: Reader, lastEventId: string | undefined) {
    while (!closed) {
      const now = yield* monotonicMillis
      const frames: Array<string> = []
      if (!reader.greeted && channel.hasBegun) {
        frames.push(...greet(channel, reader, lastEventId))
        yield* driven(channel)
      }
      if (reader.greeted) {
        if (reader.snapshot.length === 0) frames.push(...unseen(channel, reader))
        if (reader.snapshot.length > 0) frames.push(yield* snapshotPart(reader))
      }
      if (frames.length === 0 && now >= reader.nextPing && reader.greeted) frames.push(": ping\n\n")
      if (frames.length > 0) {
        reader.nextPing = now + intervals.ping
        return frames
      }
      yield* Effect.timeoutOption(Queue.take(reader.wake), reader.greeted ? reader.nextPing - now : intervals.ping)
    }
    return []
  })

  const channelOf = Effect.fnUntraced(function*(subscription: Subscription) {
    const key = JSON.stringify([subscription.topics, subscription.ids])
    const known = channels.get(key)
    if (known !== undefined) return known
    // A number of its own: who has seen the last frame of the one before has not seen what this one begins with.
    const channel = new Channel(key, subscription, yield* Queue.sliding<void>(1), ++sequence)
    if (channels.size >= limits.channels) {
      const idle = [...channels.values()].find(({ readers }) => readers.size === 0)
      if (idle !== undefined) channels.delete(idle.key)
    }
    channels.set(key, channel)
    return channel
  })

  /** Whoever comes back soon finds what has happened meanwhile. */
  const leave = (channel: Channel): void => {
    if (channel.readers.size > 0 || closed) return
    writer.cancel(channel.forgotten)
    channel.forgotten = writer.after(intervals.linger, {
      run: () => {
        if (channel.readers.size === 0 && channels.get(channel.key) === channel) channels.delete(channel.key)
      }
    })
  }

  return Feed.of({
    open: Effect.fnUntraced(function*({ ids, lastEventId, topics: asked } = {}) {
      const enter = Effect.suspend(() => {
        if (active >= limits.streams) return Effect.fail(new TooManyStreams({ limit: limits.streams }))
        active++
        telemetry.streaming(1)
        return Effect.void
      })
      yield* Effect.acquireRelease(enter, () =>
        Effect.sync(() => {
          active--
          telemetry.streaming(-1)
        }))
      const reader = new Reader(yield* Queue.sliding<void>(1))
      const channel = yield* channelOf({
        topics: topics.filter((topic) => asked === undefined || asked.includes(topic)),
        ids: ids?.toSorted()
      })
      yield* Effect.acquireRelease(
        Effect.sync(() => channel.readers.add(reader)),
        () =>
          Effect.sync(() => {
            channel.readers.delete(reader)
            leave(channel)
          })
      )
      yield* driven(channel)
      return Stream.paginate(
        undefined,
        () =>
          Effect.map(
            next(channel, reader, lastEventId),
            (frames) => [frames, frames.length === 0 ? Option.none() : Option.some(undefined)] as const
          )
      )
    }),
    stats: () => ({ active, limit: limits.streams, dropped }),
    close: Effect.sync(() => {
      closed = true
      for (const { forgotten, readers, wake } of channels.values()) {
        // It would keep the process from ending.
        writer.cancel(forgotten)
        Queue.offerUnsafe(wake, undefined)
        for (const reader of readers) Queue.offerUnsafe(reader.wake, undefined)
      }
    })
  })
})

const rests = (row: Row): boolean => row.kind === "routine" && row.state === "running" && row.problem === null
