/**
 * How the messages of one topic reach its subscribers.
 *
 * All subscribers read one log, each at its own place, so that publishing costs the same for one subscriber as for a
 * hundred: a queue for each of ten costs 1.3 times Effect's `PubSub` before there is an envelope. The log is a chain
 * of segments; what everybody has read hangs on nothing (but for the last segment of 128) and is collected.
 *
 * `room` is how many messages fit for everybody without looking again. Taking only adds to it, so it is counted anew
 * when it is used up: then, and only then, publishing visits the subscribers, and those that lose messages lose one.
 */
import * as Effect from "effect/Effect"
import * as MutableList from "effect/MutableList"
import type * as Tracer from "effect/Tracer"
import { firstOf } from "../Backlog.ts"
import { BusClosed, MailboxClosed, MailboxFull } from "../CoreError.ts"
import type { State } from "../Event.ts"
import { type Kernel, Node, path, shown } from "../Kernel.ts"
import { Line, Place } from "../Line.ts"
import type { Flow, MailboxView, TopicView } from "../Observer.ts"
import type { RoutineRecord } from "../RoutineRecord.ts"
import type { MailboxSnapshot, MailboxStats, TopicSnapshot } from "../Snapshot.ts"
import { carried, type Definition, type Envelope, type Overflow } from "../Topic.ts"
import type { Job } from "../Writer.ts"
import type { Marks } from "./Marks.ts"

type Message = Envelope<unknown>

/** Whoever waits for a message. It looks again when it is woken: another may have been faster. */
export class Taker extends Place implements Job {
  readonly run: () => void

  constructor(record: RoutineRecord | undefined, span: Tracer.AnySpan | undefined, run: () => void) {
    super(record?.blocked, record, span)
    this.run = run
  }
}

export type Published = Effect.Effect<Message, BusClosed | MailboxFull>

/** How the bus publishes a message on a topic. */
type Send = (topic: Definition, message: Message, record: RoutineRecord | undefined) => Published

/** A publisher that waits for room. */
class Publisher extends Place implements Job {
  readonly message: Message
  published: Published

  constructor(record: RoutineRecord | undefined, message: Message) {
    super(record?.blocked, record)
    this.message = message
    this.published = Effect.succeed(message)
  }

  run(): void {
    this.resume(this.published)
  }
}

const segmentSize = 128

class Segment {
  readonly messages: Array<Message> = []
  next: Segment | undefined = undefined
}

/** The state of a topic in a bus. */
export class TopicNode extends Node implements TopicView, Job {
  readonly kind = "topic"
  readonly incarnation = 1
  status: State = "running"
  readonly kernel: Kernel
  readonly topic: Definition
  private readonly since: number
  private readonly send: Send
  segment = new Segment()
  /** How many messages were published, and the place in the log behind the last. */
  published = 0
  private room = 0
  private readonly replayed = MutableList.make<Message>()
  readonly inboxes = new Set<Inbox>()
  /** The one inbox of a queue. */
  readonly shared: Inbox | undefined
  /** How many subscriptions there are, those of groups included. */
  subscribers = 0
  readonly publishers = new Line<Publisher>()
  /** How many takers wait in all inboxes. */
  takers = 0
  private signalled = false
  dropped = 0
  undelivered = 0
  /** How many messages reached an inbox, counting each inbox, and how many passed one by. */
  offered = 0
  passed = 0
  marks: Marks | undefined = undefined

  constructor(kernel: Kernel, owner: Node, topic: Definition, send: Send) {
    super(kernel.nextId(), topic.name, owner)
    this.kernel = kernel
    this.send = send
    this.topic = topic
    this.since = kernel.writer.now()
    kernel.add(this)
    this.shared = topic.kind === "queue" ? new Inbox(this, "queue", topic.capacity, topic.overflow) : undefined
  }

  /** How many messages reached an inbox, counting each inbox. It never falls. */
  get delivered(): number {
    return this.offered - this.passed
  }

  /** Whether nothing would be lost with it. */
  get isIdle(): boolean {
    return this.subscribers === 0 && this.publishers.size === 0 && this.replayed.length === 0 &&
      (this.shared === undefined || this.shared.length === 0)
  }

  /** An inbox of its own, with what is replayed inside. */
  open(name: string, capacity: number, overflow: Overflow): Inbox {
    return new Inbox(this, name, capacity, overflow, MutableList.toArray(this.replayed))
  }

  /** Reaches every subscriber at once, waiting until all that do not lose messages have room, or nobody. */
  publish(message: Message, record: RoutineRecord | undefined): Published {
    if (this.publishers.size === 0) {
      const full = this.room > 0 ? undefined : this.makeRoom()
      if (full === undefined) {
        this.deliver(message)
        return Effect.succeed(message)
      }
      if (full.overflow === "fail") return Effect.fail(full.isFull)
    }
    const { publishers } = this
    const { writer } = this.kernel
    const publisher = new Publisher(record, message)
    const waited = Effect.callback<unknown, unknown>((resume) => {
      // The bus may have been closed, or the topic freed, since we looked.
      if (this.status !== "running") return resume(Effect.suspend(() => this.send(this.topic, message, record)))
      publisher.resume = resume
      publishers.add(publisher, writer.now())
      // And there may be room.
      this.pump()
      return Effect.sync(() => {
        if (publisher.waits) this.left(publisher)
      })
    })
    // It is resumed with what was published.
    return waited as Published
  }

  /** Publishes if that needs no waiting, and says to how many inboxes. */
  tryPublish(message: Message): number {
    if (this.publishers.size > 0 || (this.room <= 0 && this.makeRoom() !== undefined)) return 0
    this.deliver(message)
    let reached = 0
    for (const inbox of this.inboxes) if (!inbox.missed) reached++
    return reached
  }

  private deliver(message: Message): void {
    this.room--
    const { observers } = this.kernel
    if (observers !== undefined) {
      const { [carried]: back } = message
      if (back !== undefined) back.reached = this.inboxes.size
      ;(this.marks ??= observers.marks()).add(this.published, this.kernel.writer.turn(), 0)
    }
    this.published++
    this.offered += this.inboxes.size
    if (this.inboxes.size > 0) {
      let { segment } = this
      if (segment.messages.length === segmentSize) segment = this.segment = segment.next = new Segment()
      segment.messages.push(message)
    }
    if (this.topic.replay > 0) {
      MutableList.append(this.replayed, message)
      if (this.replayed.length > this.topic.replay) MutableList.take(this.replayed)
    }
    if (this.takers > 0) this.signal()
    if (this.room === 0 && this.kernel.bus.observed) { for (const inbox of this.inboxes) inbox.tellFull() }
  }

  /** Counts the room anew. Returns an inbox in the way, or undefined when the next message has room everywhere. */
  private makeRoom(): Inbox | undefined {
    let room = Infinity
    let inTheWay: Inbox | undefined
    for (const inbox of this.inboxes) {
      const free = inbox.capacity - inbox.length
      if (free > 0) room = Math.min(room, free)
      else if (inbox.overflow === "fail") return inbox
      else if (inbox.overflow === "suspend") inTheWay = inbox
      else room = 1
    }
    if (inTheWay !== undefined) return inTheWay
    if (room === 1) { for (const inbox of this.inboxes) inbox.giveWay() }
    this.room = room
    return undefined
  }

  /** An inbox has less room than was counted. */
  recount(): void {
    this.room = 0
  }

  /** Publishes for those who wait, first come first served, as far as there is room. */
  pump(): void {
    const { publishers } = this
    for (let { first } = publishers; first !== undefined; first = publishers.first) {
      const full = this.room > 0 ? undefined : this.makeRoom()
      if (full === undefined) this.deliver(first.message)
      else if (full.overflow === "fail") first.published = Effect.fail(full.isFull)
      else return
      this.release(first)
    }
  }

  private release(publisher: Publisher): void {
    this.left(publisher)
    this.kernel.writer.wake(publisher)
  }

  /** A publisher waits no more. */
  private left(publisher: Publisher): void {
    const { observers, writer } = this.kernel
    const millis = this.publishers.delete(publisher, writer.now())
    observers?.waited?.(this, "send", publisher.record, millis, publisher.span)
  }

  /** Wakes takers in the next turn, once for all that is published in this one. */
  signal(): void {
    if (this.signalled) return
    this.signalled = true
    this.kernel.writer.nextTurn(this)
  }

  run(): void {
    this.signalled = false
    for (const inbox of this.inboxes) inbox.wakeTakers()
  }

  /** The bus is closed: what is inside can still be taken, whoever waits to publish fails. */
  end(bus: string): void {
    const { publishers } = this
    for (let { first } = publishers; first !== undefined; first = publishers.first) {
      first.published = Effect.fail(new BusClosed({ bus }))
      this.release(first)
    }
    for (const inbox of this.inboxes) inbox.end()
    this.leave()
  }

  leave(): void {
    this.status = "succeeded"
    this.shared?.end()
    this.kernel.remove(this)
  }

  snapshot(): TopicSnapshot {
    return {
      ...shown(this, this.kernel, this.since),
      health: "ok",
      delivery: this.topic.kind,
      published: this.published,
      subscribers: this.subscribers
    }
  }

  stop(): undefined {
    return undefined
  }
}

/** What waits for one subscriber, or for the competing subscribers of a queue. */
export class Inbox extends Node implements MailboxView {
  readonly kind = "mailbox"
  readonly incarnation = 1
  status: State = "running"
  readonly topic: TopicNode
  readonly capacity: number
  readonly overflow: Overflow
  private readonly since: number
  /** What comes before the log: what was replayed, given back, or moved here while new messages are lost. */
  private readonly front = MutableList.make<Message>()
  /** Where it reads the log; undefined while new messages pass it by. */
  private segment: Segment | undefined
  private index: number
  private place: number
  private sent: number
  private received = 0
  private dropped = 0
  private undelivered = 0
  private redelivered = 0
  private returned = 0
  private told = false
  readonly takers = new Line<Taker>()
  /** Why nothing comes any more. */
  closed: MailboxClosed["reason"] | undefined = undefined

  constructor(
    topic: TopicNode,
    name: string,
    capacity: number,
    overflow: Overflow,
    replayed: ReadonlyArray<Message> = []
  ) {
    super(topic.kernel.nextId(), name, topic)
    this.topic = topic
    this.capacity = capacity
    this.overflow = overflow
    this.since = topic.kernel.writer.now()
    this.segment = topic.segment
    this.index = topic.segment.messages.length
    this.place = topic.published
    MutableList.appendAll(this.front, replayed)
    topic.offered += replayed.length
    this.sent = replayed.length - topic.published
    topic.inboxes.add(this)
    topic.recount()
    topic.kernel.add(this)
  }

  get length(): number {
    return this.front.length + (this.segment === undefined ? 0 : this.topic.published - this.place)
  }

  /** Whether the last message passed it by. */
  get missed(): boolean {
    return this.segment === undefined
  }

  /** What somebody is told who may not wait. */
  get isFull(): MailboxFull {
    return new MailboxFull({ mailbox: path(this), capacity: this.capacity })
  }

  get isClosed(): MailboxClosed {
    return new MailboxClosed({ mailbox: path(this), reason: this.closed ?? "closed" })
  }

  take(): Message | undefined {
    const message = this.oldest()
    if (message === undefined) return undefined
    this.received++
    this.tookSome()
    return message
  }

  /** The next messages, at most so many, without taking them. */
  peek(max: number): ReadonlyArray<Message> {
    const messages = firstOf(this.front, max)
    let { index } = this
    for (let { segment } = this; segment !== undefined && messages.length < max; segment = segment.next) {
      messages.push(...segment.messages.slice(index, index + max - messages.length))
      index = 0
    }
    return messages
  }

  takeAll(): Array<Message> {
    const parts = this.front.length === 0 ? [] : [MutableList.takeAll(this.front)]
    while (this.segment !== undefined && this.place < this.topic.published) {
      if (this.index === segmentSize) this.advance()
      const part = this.index === 0 ? this.segment.messages : this.segment.messages.slice(this.index)
      this.index += part.length
      this.place += part.length
      parts.push(part)
    }
    // As runs of memory: one by one, ten subscribers would take longer to read than one publisher to write.
    const messages = ([] as Array<Message>).concat(...parts)
    this.received += messages.length
    if (messages.length > 0) this.tookSome()
    return messages
  }

  private oldest(): Message | undefined {
    return this.front.length > 0 ? MutableList.take(this.front) as Message : this.fromLog()
  }

  private fromLog(): Message | undefined {
    if (this.segment === undefined || this.place === this.topic.published) return undefined
    if (this.index === segmentSize) this.advance()
    this.place++
    return this.segment.messages[this.index++]
  }

  private advance(): void {
    this.segment = this.segment?.next
    this.index = 0
  }

  private tookSome(): void {
    this.told = false
    if (this.segment === undefined && this.closed === undefined) this.attach()
    if (this.topic.publishers.size > 0) this.topic.pump()
  }

  private attach(): void {
    this.segment = this.topic.segment
    this.index = this.segment.messages.length
    this.place = this.topic.published
  }

  /** Makes room for the next message, or lets it pass by, if it is full. */
  giveWay(): void {
    if (this.length < this.capacity) return
    this.dropped++
    this.topic.dropped++
    if (this.overflow === "drop_old") return void this.oldest()
    this.topic.passed++
    this.detach()
  }

  /** Holds what is inside, and nothing of the log. */
  private detach(): void {
    for (let message = this.fromLog(); message !== undefined; message = this.fromLog()) {
      MutableList.append(this.front, message)
    }
    this.segment = undefined
  }

  /** Takes back what was taken and not handled, before everything else and beyond the capacity. */
  giveBack(messages: ReadonlyArray<Message>): void {
    if (this.closed === "closed") return this.giveUp(messages.length)
    MutableList.prependAll(this.front, messages)
    this.received -= messages.length
    this.returned += messages.length
    this.redelivered += messages.length
    this.topic.recount()
    if (this.takers.size > 0) this.topic.signal()
  }

  /** What was taken from here and will not be handled. */
  giveUp(count: number): void {
    this.received -= count
    this.returned += count
    this.undelivered += count
    this.topic.undelivered += count
  }

  tellFull(): void {
    if (this.told || this.length < this.capacity) return
    this.told = true
    this.topic.kernel.bus.emit("MailboxFull", this, { capacity: this.capacity })
  }

  park(taker: Taker): void {
    this.takers.add(taker, this.topic.kernel.writer.now())
    this.topic.takers++
  }

  /** Whether it still waited. */
  unpark(taker: Taker): boolean {
    if (!taker.waits) return false
    const { observers, writer } = this.topic.kernel
    const millis = this.takers.delete(taker, writer.now())
    observers?.waited?.(this, "receive", taker.record, millis, taker.span)
    this.topic.takers--
    return true
  }

  wakeTakers(count = this.length): void {
    for (let left = count; left > 0; left--) {
      const taker = this.takers.first
      if (taker === undefined) return
      this.unpark(taker)
      this.topic.kernel.writer.wake(taker)
    }
  }

  /** Nothing comes any more; what is inside can still be taken. */
  end(): void {
    if (this.closed !== undefined) return
    this.sent += this.topic.published
    this.detach()
    this.closed = "ended"
    this.topic.inboxes.delete(this)
    this.topic.kernel.remove(this)
    this.wakeTakers(Infinity)
  }

  /** Nobody takes any more: what is inside is undelivered. */
  close(): void {
    this.end()
    this.closed = "closed"
    this.undelivered += this.front.length
    this.topic.undelivered += this.front.length
    MutableList.clear(this.front)
    // It may have been all that a publisher waited for.
    this.topic.pump()
  }

  /** As that of a mailbox. */
  get flow(): Flow {
    const { dropped, overflow, received, returned, topic } = this
    const sent = this.sent + (this.closed === undefined ? topic.published : 0)
    return { accepted: overflow === "drop_old" ? sent : sent - dropped, dropped, received: received + returned }
  }

  /** How long ago the oldest message inside was published, to the turn; undefined when that is not known. */
  oldestMillis(now: number): number | undefined {
    const { front, length, place, topic } = this
    const at = length === 0 ? undefined : topic.marks?.at(place - front.length)
    return at === undefined ? undefined : now - at
  }

  get stats(): MailboxStats {
    const { capacity, dropped, length, overflow, received, redelivered, takers, topic, undelivered } = this
    const { publishers } = topic
    const now = topic.kernel.writer.now()
    return {
      length,
      capacity,
      sent: this.sent + (this.closed === undefined ? topic.published : 0),
      received,
      dropped,
      undelivered,
      redelivered,
      deadLettered: 0,
      handling: 0,
      blockedSenders: overflow === "suspend" && length >= capacity ? publishers.size : 0,
      // The waits of publishers are those of the topic; a queue has one inbox, and they are the same.
      blockedSendMillis: topic.shared === this ? publishers.watch.total(now) : 0,
      blockedReceivers: takers.size,
      blockedReceiveMillis: takers.watch.total(now),
      bytes: 0
    }
  }

  snapshot(): MailboxSnapshot {
    return {
      ...shown(this, this.topic.kernel, this.since),
      health: "ok",
      overflow: this.overflow,
      stats: this.stats
    }
  }

  stop(): undefined {
    return undefined
  }
}
