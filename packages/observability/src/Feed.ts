/**
 * What happens, as server-sent events: a stream for each open page, and no more work than the pages need.
 *
 * A stream begins with `hello` and one `snapshot`; after that come `delta` frames with the nodes that changed, at most
 * twice a second, and every event of the orchestrator as an `event` frame at once. A stream that is read slowly never
 * makes the server hold more: what changed is kept as a set of ids and rendered when there is room, so that an old
 * state is replaced by a newer one instead of being queued, and events beyond a bound are dropped and counted.
 *
 * @since 0.1.0
 */
import type { OrchestratorEvent } from "@effect-orchestra/core/Event"
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
import * as Api from "./Api.ts"
import { Telemetry } from "./Telemetry.ts"

const limits = {
  streams: 16,
  /** Routines in a snapshot, and other nodes. A stream follows at most as many again that come later. */
  rows: 1000,
  /** Changes since its last frame at which a stream starts over with a snapshot. */
  changes: 2000,
  /** Events that wait for a stream. */
  events: 256,
  /** Characters of a frame, give or take one row. */
  frame: 60_000
}

/** In milliseconds. Events go out at once, but a storm of them in batches. */
const intervals = { delta: 500, events: 50, ping: 15_000 }

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
 * The live streams of one server.
 *
 * @category services
 * @since 0.1.0
 */
export class Feed extends Context.Service<Feed, {
  /**
   * Takes a place among the streams for as long as the scope is open, or fails with `TooManyStreams`. With the id of
   * the last frame that the client has seen, the stream says `reset` first: frames are not replayed.
   */
  readonly open: (
    lastEventId: string | undefined
  ) => Effect.Effect<Stream.Stream<string>, TooManyStreams, Scope.Scope>
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

/** One reader, and all that is kept for it. */
class Client {
  /** One token at most: wakes the reader when something happened. It is scheduled, unlike a latch opened by a hook. */
  readonly wake: Queue.Queue<void>
  readonly changed = new Set<string>()
  /** Rows by id as they were last sent, to send only what differs. */
  readonly sent = new Map<string, string>()
  events: Array<OrchestratorEvent> = []
  dropped = 0
  summary = ""
  startOver = false
  greeted = false
  /** On the monotonic clock, in milliseconds. */
  nextDelta = 0
  nextEvents = 0
  nextPing = 0

  constructor(wake: Queue.Queue<void>) {
    this.wake = wake
  }

  tell(event: OrchestratorEvent): void {
    if (this.events.length === limits.events) {
      this.dropped += this.events.length
      this.events = []
    }
    this.events.push(event)
    this.change(event.id)
    Queue.offerUnsafe(this.wake, undefined)
  }

  change(id: string): void {
    if (this.startOver) return
    this.changed.add(id)
    if (this.changed.size <= limits.changes) return
    this.startOver = true
    this.changed.clear()
  }
}

const make = Effect.gen(function*() {
  const orchestrator = yield* Orchestrator
  const { kernel } = orchestrator
  const { instance } = yield* Telemetry
  const clients = new Set<Client>()
  let closed = false
  let sequence = 0

  yield* orchestrator.instrument((event) => {
    for (const client of clients) client.tell(event)
  })

  const frame = (event: string, data: object): string => text(event, JSON.stringify(data))

  /** Rows are JSON already. */
  const withRows = (event: string, head: object, rows: ReadonlyArray<string>): string =>
    text(event, `${JSON.stringify(head).slice(0, -1)},"rows":[${rows.join(",")}]}`)

  const text = (event: string, data: string): string => `id: ${++sequence}\nevent: ${event}\ndata: ${data}\n\n`

  const summary = Effect.gen(function*() {
    const totals = { pending: 0, starting: 0, running: 0, backoff: 0, stopping: 0, starts: 0, restarts: 0 }
    for (const { active, restarts, starts } of yield* orchestrator.stats) {
      totals.pending += active.pending
      totals.starting += active.starting
      totals.running += active.running
      totals.backoff += active.backoff
      totals.stopping += active.stopping
      totals.starts += starts
      totals.restarts += restarts
    }
    return { status: yield* orchestrator.status, nodes: kernel.nodes.size + 1, ...totals }
  })

  const hello = (lastEventId: string | undefined): ReadonlyArray<string> => [
    frame("hello", { v: 1, instance, name: orchestrator.name, pid: process.pid, since: kernel.since, intervals }),
    ...lastEventId === undefined ? [] : [frame("reset", {})]
  ]

  const snapshot = Effect.fnUntraced(function*(client: Client) {
    client.startOver = false
    client.changed.clear()
    client.sent.clear()
    const { rows } = yield* Api.worstFirst(kernel, limits.rows)
    const parts = inParts(rows.map((row) => remember(client, row)))
    for (const row of rows) if (!rests(row)) client.change(row.id)
    const head = { at: yield* Clock.currentTimeMillis, summary: yield* summary }
    client.summary = JSON.stringify(head.summary)
    return parts.map((part, index) =>
      withRows("snapshot", { ...head, part: index + 1, last: index === parts.length - 1 }, part)
    )
  })

  const delta = Effect.fnUntraced(function*(client: Client) {
    const removed: Array<string> = []
    const rows: Array<string> = []
    const look = (id: string): void => {
      const node = kernel.node(id)
      if (node === undefined) {
        if (client.sent.delete(id)) removed.push(id)
        return
      }
      const before = client.sent.get(id)
      const row = Api.row(node)
      if (before === undefined && client.sent.size >= 2 * limits.rows) return
      const now = remember(client, row)
      if (now !== before) rows.push(now)
      // Not every move is an event, and what stands above changes with what happens below.
      if (!rests(row)) client.change(id)
    }
    const changed = new Set(client.changed)
    client.changed.clear()
    // Supervisors and groups are found by what they own.
    for (const id of changed) {
      let above = kernel.node(id)?.owner
      for (; above !== undefined && !changed.has(above.id); above = above.owner) changed.add(above.id)
    }
    let looked = 0
    for (const id of changed) {
      look(id)
      if (++looked % 500 === 0) yield* Effect.yieldNow
    }
    const head = { at: yield* Clock.currentTimeMillis, summary: yield* summary }
    const unchanged = JSON.stringify(head.summary) === client.summary
    client.summary = JSON.stringify(head.summary)
    if (rows.length === 0 && removed.length === 0 && unchanged) return []
    return inParts(rows).map((part, index) => withRows("delta", { ...head, removed: index === 0 ? removed : [] }, part))
  })

  const events = (client: Client): ReadonlyArray<string> => {
    const { dropped, events } = client
    client.events = []
    client.dropped = 0
    return [...dropped === 0 ? [] : [frame("dropped", { dropped })], ...events.map((event) => frame("event", event))]
  }

  /** The frames that are due now; waits until there are some. None: the stream is over. */
  const next = Effect.fnUntraced(function*(client: Client, lastEventId: string | undefined) {
    while (!closed) {
      const now = Number(yield* Clock.monotonicTimeNanos) / 1_000_000
      const frames: Array<string> = []
      if (!client.greeted) {
        client.greeted = true
        client.nextDelta = now + intervals.delta
        frames.push(...hello(lastEventId), ...(yield* snapshot(client)))
      }
      if (now >= client.nextEvents && client.events.length > 0) {
        client.nextEvents = now + intervals.events
        frames.push(...events(client))
      }
      if (now >= client.nextDelta) {
        client.nextDelta = now + intervals.delta
        frames.push(...(client.startOver ? yield* snapshot(client) : yield* delta(client)))
      }
      if (frames.length === 0 && now >= client.nextPing) frames.push(": ping\n\n")
      if (frames.length > 0) {
        client.nextPing = now + intervals.ping
        return frames
      }
      const wait = Math.min(client.nextDelta, client.events.length > 0 ? client.nextEvents : Infinity) - now
      yield* client.events.length > 0 ? Effect.sleep(wait) : Effect.timeoutOption(Queue.take(client.wake), wait)
    }
    return []
  })

  return Feed.of({
    open: Effect.fnUntraced(function*(lastEventId) {
      const client = new Client(yield* Queue.sliding<void>(1))
      const enter = Effect.suspend(() =>
        clients.size < limits.streams
          ? Effect.succeed(clients.add(client))
          : Effect.fail(new TooManyStreams({ limit: limits.streams }))
      )
      yield* Effect.acquireRelease(enter, () => Effect.sync(() => clients.delete(client)))
      return Stream.paginate(
        undefined,
        () =>
          Effect.map(
            next(client, lastEventId),
            (frames) => [frames, frames.length === 0 ? Option.none() : Option.some(undefined)] as const
          )
      )
    }),
    close: Effect.sync(() => {
      closed = true
      for (const client of clients) Queue.offerUnsafe(client.wake, undefined)
    })
  })
})

const rests = (row: Api.Row): boolean => row.kind === "routine" && row.state === "running" && row.problem === null

/** Keeps the row as it is about to be sent, as the text of its JSON. */
const remember = (client: Client, row: Api.Row): string => {
  const text = JSON.stringify(row)
  client.sent.set(row.id, text)
  return text
}

/** At least one part, if need be an empty one. */
const inParts = (rows: ReadonlyArray<string>): ReadonlyArray<ReadonlyArray<string>> => {
  let part: Array<string> = []
  const parts = [part]
  let size = 0
  for (const row of rows) {
    if (size + row.length > limits.frame && part.length > 0) {
      parts.push(part = [])
      size = 0
    }
    part.push(row)
    size += row.length
  }
  return parts
}
