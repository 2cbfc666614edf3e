/**
 * What the streams of one subscription have in common: the frames, made once for all of them, and a place among them for
 * each reader. A reader holds nothing but its place; one that falls behind goes on from what is now.
 */
import type { OrchestratorEvent } from "@effect-orchestra/core/Event"
import type { Deadline } from "@effect-orchestra/core/Writer"
import * as Queue from "effect/Queue"
import type { StreamQuery } from "./AnswerSchema.ts"

export const limits = {
  streams: 16,
  /** Routines in a snapshot, and other nodes. A stream follows at most as many again that come later. */
  rows: 1000,
  /** Ids that a stream can be about. */
  ids: 500,
  /** Changes since the last frame at which a stream starts over with a snapshot. */
  changes: 2000,
  /** Events that wait for the next batch. */
  events: 256,
  /** Characters of a frame, give or take one row. */
  frame: 60_000,
  /** Frames that are kept for who comes back, and their characters. */
  frames: 2048,
  kept: 2 * 1024 * 1024,
  /** Characters that a reader may be behind. */
  behind: 1024 * 1024,
  /** Characters handed to a reader at once. */
  batch: 64 * 1024,
  /** Subscriptions, those that nobody reads included. */
  channels: 24
}

/** In milliseconds. Events go out at once, but a storm of them in batches; `linger` is for who comes back. */
export const intervals = { delta: 500, events: 50, ping: 15_000, linger: 30_000 }

export const topics = ["overview", "rows", "events"] as const

export type Topic = typeof topics[number]

export interface Subscription {
  readonly topics: ReadonlyArray<Topic>
  readonly ids: ReadonlyArray<string> | undefined
}

export type Asked = typeof StreamQuery.Type

/** What all frames up to one of them add up to: characters, and events told or said to be dropped. */
interface Totals {
  readonly seq: number
  readonly size: number
  readonly events: number
}

interface Frame extends Totals {
  /** Undefined stands for a snapshot, which each reader takes as it is when he comes to it. */
  readonly text: string | undefined
}

export class Reader {
  /** One token at most: wakes the reader when there are frames. */
  readonly wake: Queue.Queue<void>
  at: Totals = { seq: 0, size: 0, events: 0 }
  greeted = false
  /** What is left of a snapshot that it is being given, and the number of the last frame that this makes up for. */
  snapshot: Array<ReadonlyArray<string>> = []
  part = 0
  /** On the monotonic clock, in milliseconds. */
  nextPing = 0

  constructor(wake: Queue.Queue<void>) {
    this.wake = wake
  }
}

export class Channel {
  readonly key: string
  readonly topics: ReadonlySet<Topic>
  readonly ids: ReadonlySet<string> | undefined
  readonly readers = new Set<Reader>()
  /** One token at most: wakes who makes the frames. It is scheduled, unlike a latch opened by a hook. */
  readonly wake: Queue.Queue<void>
  /** The rows by id as they were last sent, as JSON. */
  sent: Map<string, string> = new Map()
  readonly changed = new Set<string>()
  startOver = false
  /** Whether `sent` is what a reader can begin with. */
  hasBegun = false
  isDriven = false
  /** When it is forgotten, while nobody reads it. */
  forgotten: Deadline | undefined = undefined
  summary = ""
  private events: Array<OrchestratorEvent> = []
  private dropped = 0
  private frames: Array<Frame> = []
  /** The first frame that is kept; those before it are moved out now and then. */
  private first = 0
  private gone: Totals
  private head: Totals

  constructor(key: string, { ids, topics }: Subscription, wake: Queue.Queue<void>, seq: number) {
    this.key = key
    this.topics = new Set(topics)
    this.ids = ids === undefined ? undefined : new Set(ids)
    this.wake = wake
    this.head = this.gone = { seq, size: 0, events: 0 }
  }

  /** The last frame that there is. */
  get last(): Totals {
    return this.head
  }

  get waiting(): number {
    return this.events.length + this.dropped
  }

  tell(event: OrchestratorEvent): void {
    if (this.topics.has("rows") && this.ids === undefined) this.change(event.id)
    if (!this.topics.has("events") || this.readers.size === 0 || this.ids?.has(event.id) === false) return
    if (this.events.length === limits.events) {
      this.dropped += this.events.length
      this.events = []
    }
    this.events.push(event)
    Queue.offerUnsafe(this.wake, undefined)
  }

  change(id: string): void {
    if (this.startOver) return
    this.changed.add(id)
    if (this.changed.size <= limits.changes) return
    this.startOver = true
    this.changed.clear()
  }

  /** The events since the last time, and how many were too many. */
  takeEvents(): { readonly dropped: number; readonly events: ReadonlyArray<OrchestratorEvent> } {
    const { dropped, events } = this
    this.events = []
    this.dropped = 0
    return { dropped, events }
  }

  /** Adds a frame of so many events; `text` is told its number. Undefined: a snapshot. */
  add(seq: number, text: string | undefined, events = 0): void {
    const { head } = this
    const frame = { seq, text, size: head.size + (text?.length ?? 0), events: head.events + events }
    this.head = frame
    this.frames.push(frame)
    while (
      this.frames.length - this.first > limits.frames ||
      (this.first < this.frames.length && frame.size - this.gone.size > limits.kept)
    ) {
      this.gone = this.frames[this.first++] ?? this.gone
    }
    if (this.first > 2 * limits.frames) {
      this.frames = this.frames.slice(this.first)
      this.first = 0
    }
  }

  /** What a reader has seen who has seen the frame of this number last; undefined when that is not known any more. */
  seen(seq: number): Totals | undefined {
    if (seq === this.head.seq) return this.head
    if (seq === this.gone.seq) return this.gone
    const frame = this.frames[this.indexAfter(seq) - 1]
    return frame?.seq === seq ? frame : undefined
  }

  /** Whether a reader is so far behind that it goes on from what is now. */
  isLost({ at }: Reader): boolean {
    return at.seq < this.gone.seq || this.head.size - at.size > limits.behind
  }

  /** The next frame for a reader; undefined when it has seen all. */
  after({ at }: Reader): Frame | undefined {
    return at.seq >= this.head.seq ? undefined : this.frames[this.indexAfter(at.seq)]
  }

  private indexAfter(seq: number): number {
    let low = this.first
    let high = this.frames.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if ((this.frames[middle]?.seq ?? Infinity) <= seq) low = middle + 1
      else high = middle
    }
    return low
  }
}

/** At least one part, if need be an empty one. */
export const inParts = (rows: Iterable<string>): Array<ReadonlyArray<string>> => {
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
