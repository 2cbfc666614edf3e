/**
 * What stands behind a mailbox: its queue, who waits at either end of it, and its counts.
 *
 * The queue is Effect's and holds the messages; who waits stands in a line of ours. Effect's queue resumes its
 * producers within the step of the consumer that made room: one may interrupt the other that has a message in its
 * hands, and a chain of queues nests run loops until Node aborts. Here a job of the writer serves those who wait, one
 * after the other, and what is handed to a receiver that is cut comes back to the front.
 *
 * For what is built from mailboxes; programs use `Mailbox`.
 *
 * @stability unstable
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import type * as Option from "effect/Option"
import { pipeArguments } from "effect/Pipeable"
import type * as Queue from "effect/Queue"
import { Backlog, Item, type Stored } from "./Backlog.ts"
import { MailboxClosed, MailboxFull } from "./CoreError.ts"
import type { State } from "./Event.ts"
import {
  type Demand,
  type Ending,
  messagesOf,
  nothing,
  one,
  poll,
  Receiver,
  Sender,
  type Taken,
  whole
} from "./internal/Ends.ts"
import type { Marks } from "./internal/Marks.ts"
import { isSteady } from "./internal/Steady.ts"
import { type Kernel, Node, path, shown } from "./Kernel.ts"
import { Line, type Place } from "./Line.ts"
import type { DeadLetter, Mailbox, MailboxOptions, Offered, Overflow, UndeliveredReason } from "./Mailbox.ts"
import type { Carrier, Flow, MailboxView } from "./Observer.ts"
import type { MailboxSnapshot, MailboxStats } from "./Snapshot.ts"
import type { Job } from "./Writer.ts"

/** @internal */
export const TypeId = "~effect-orchestra/core/Mailbox"

/**
 * A question that waits for its answer.
 *
 * @category models
 * @since 0.1.0
 */
export interface Question {
  /** Nobody will answer it any more. */
  readonly gone: (reason: UndeliveredReason) => void
}

/**
 * The node of a mailbox.
 *
 * @category models
 * @since 0.1.0
 */
export class MailboxNode<in out A, in out E> extends Node implements Mailbox<A, E>, MailboxView, Job {
  readonly [TypeId] = variance
  readonly kind = "mailbox"
  readonly incarnation = 1
  readonly kernel: Kernel
  readonly options: MailboxOptions<A>
  /** What goes with its messages, if anything does. */
  readonly carrier: Carrier | undefined
  readonly capacity: number
  readonly overflow: Overflow
  private readonly backlog: Backlog<A>
  readonly senders = new Line<Sender<A>>()
  readonly receivers = new Line<Receiver<A>>()
  /** Whether a job that serves those who wait is on its way. */
  private armed = false
  ending: Ending<E> | undefined = undefined
  /** Whether nothing is received any more. */
  closed = false
  private since: number
  private sent = 0
  private received = 0
  private dropped = 0
  private handling = 0
  private redelivered = 0
  private deadLettered = 0
  private undelivered = 0
  /** Of those sent, the ones that never went in; of those dropped, the ones that had; and what came back. */
  private untaken = 0
  private droppedLate = 0
  private returned = 0
  private marks: Marks | undefined = undefined
  /** Whether it was told that it is full and has not been half empty since. */
  private toldFull = false
  private full: Exit.Exit<never, MailboxFull> | undefined = undefined
  /** Questions by the messages that ask them. */
  questions: Map<A, Question> | undefined = undefined
  /** How many hold it open at either end. */
  readonly holders = { senders: 0, receivers: 0 }

  constructor(kernel: Kernel, owner: Node | undefined, queue: Queue.Queue<Stored<A>>, options: MailboxOptions<A>) {
    super(kernel.nextId(), options.name ?? "mailbox", owner ?? kernel)
    this.kernel = kernel
    this.options = options
    this.carrier = kernel.observers?.carrier?.("mailbox", this.name)
    this.capacity = options.capacity
    this.overflow = options.overflow ?? "suspend"
    this.backlog = new Backlog(queue, options.sizeOf, this.carrier !== undefined)
    this.since = kernel.writer.now()
    kernel.add(this)
  }

  pipe() {
    return pipeArguments(this, arguments)
  }

  get length(): number {
    return this.backlog.length
  }

  /** The next messages, at most so many, without taking them: it costs no more than these, however long the queue. */
  peek(max: number): ReadonlyArray<A> {
    return this.backlog.peek(max)
  }

  /** Whether no message will come any more. */
  private get isDrained(): boolean {
    return this.ending !== undefined && this.length === 0 && this.senders.size === 0
  }

  // --- sending

  send(
    message: A,
    fiber: Fiber.Fiber<unknown, unknown>,
    carried?: unknown
  ): Effect.Effect<void, MailboxClosed | MailboxFull> {
    if (this.ending !== undefined) return this.refused(this.ending.send, 1)
    const stored = this.backlog.stored(message, carried)
    return this.offerStored(stored) === "full" ? this.blocked([stored], fiber) : Effect.void
  }

  offer(message: A): Offered {
    return this.ending === undefined
      ? this.offerStored(this.backlog.stored(message))
      : this.refused<Offered>("closed", 1)
  }

  /** Whether it took the message, which it does not if that waits or drops. */
  trySend(message: A): boolean {
    return this.isOpen && this.offer(message) === "sent" || this.refused(false, 1)
  }

  /** Tells a sender that so many messages are not taken. */
  private refused<R>(answer: R, messages: number): R {
    this.kernel.observers?.refused?.(this, this.ending === undefined ? "rejected" : "closed", messages)
    return answer
  }

  /** Whether a message can be sent that neither waits nor is dropped. */
  get isOpen(): boolean {
    return this.ending === undefined && (this.overflow === "drop_old" || this.hasRoom)
  }

  /** Nobody overtakes a sender that waits. */
  private get hasRoom(): boolean {
    return this.length < this.capacity && this.senders.size === 0
  }

  private offerStored(stored: Stored<A>): Offered {
    if (this.hasRoom) {
      this.put(stored)
      this.tellFull()
      return "sent"
    }
    if (this.overflow === "suspend" || this.overflow === "fail") return "full"
    if (this.overflow === "drop_new") {
      this.sent++
      this.untaken++
      this.drop(this.backlog.item(stored))
      return "dropped"
    }
    // What came back from a receiver that was cut may stand above the capacity.
    const oldest = this.take(1 + this.length - this.capacity)
    this.put(stored)
    for (const item of oldest) this.drop(item)
    return "sent"
  }

  sendAll(
    messages: Iterable<A>,
    fiber: Fiber.Fiber<unknown, unknown>
  ): Effect.Effect<void, MailboxClosed | MailboxFull> {
    if (this.ending !== undefined) {
      return this.refused(this.ending.send, this.kernel.observers === undefined ? 0 : Array.from(messages).length)
    }
    const items = this.backlog.allStored(messages)
    if (items.length === 0 || (this.senders.size === 0 && items.length <= this.capacity - this.length)) {
      this.putAll(items)
      return Effect.void
    }
    // A copy: the caller's array is the caller's.
    if (this.overflow === "suspend" || this.overflow === "fail") return this.blocked(items.slice(), fiber)
    for (const item of items) this.offerStored(item)
    return Effect.void
  }

  /** There is no room for these. */
  private blocked(
    items: ReadonlyArray<Stored<A>>,
    fiber: Fiber.Fiber<unknown, unknown>
  ): Effect.Effect<void, MailboxClosed | MailboxFull> {
    if (this.overflow === "fail") return this.refused(this.refusal, items.length)
    return Effect.callback<void, MailboxClosed>((resume) => {
      // It may have ended since the step before.
      if (this.ending !== undefined) return resume(this.refused(this.ending.send, items.length))
      return Effect.sync(this.lineUp(items, fiber, resume))
    })
  }

  /** Sends now, or when there is room, and says how that ended. Returns how to wait for room no more. */
  sendThen(
    message: A,
    fiber: Fiber.Fiber<unknown, unknown>,
    ended: (exit: Exit.Exit<void, MailboxClosed | MailboxFull>) => void
  ): (() => void) | undefined {
    let exit: Exit.Exit<void, MailboxClosed | MailboxFull> = Exit.void
    if (this.ending !== undefined) exit = this.refused(this.ending.send, 1)
    else {
      const stored = this.backlog.stored(message)
      if (this.offerStored(stored) === "full") {
        if (this.overflow === "suspend") return this.lineUp([stored], fiber, ended)
        exit = this.refused(this.refusal, 1)
      }
    }
    ended(exit)
    return undefined
  }

  private get refusal(): Exit.Exit<never, MailboxFull> {
    return this.full ??= Exit.fail(new MailboxFull({ mailbox: path(this), capacity: this.capacity }))
  }

  private lineUp(
    items: ReadonlyArray<Stored<A>>,
    fiber: Fiber.Fiber<unknown, unknown>,
    resume: (exit: Exit.Exit<void, MailboxClosed>) => void
  ): () => void {
    const sender = new Sender(fiber, items)
    // It is resumed with the end of a send.
    sender.resume = resume as Place["resume"]
    this.senders.add(sender, this.kernel.writer.now())
    this.arm()
    return () => {
      if (!sender.waits) return
      this.leave(this.senders, sender)
      // Others may have waited for this one alone.
      this.arm()
    }
  }

  /** Whoever waited waits no more. */
  private leave<W extends Place>(line: Line<W>, waiting: W): void {
    const millis = line.delete(waiting, this.kernel.writer.now())
    const operation = waiting instanceof Sender ? "send" : "receive"
    this.kernel.observers?.waited?.(this, operation, waiting.record, millis, waiting.span)
  }

  /** Remembers when the next messages are sent, while somebody observes. What receivers wait for gets no age. */
  private mark(messages: number): void {
    const { observers, writer } = this.kernel
    // One mark for a turn.
    if (observers === undefined || this.marks?.last === writer.turn()) return
    if (this.receivers.size >= this.length + messages) return void (this.marks = undefined)
    const number = this.sent - this.untaken
    ;(this.marks ??= observers.marks()).add(number, writer.turn(), number - this.length)
  }

  /** How long ago the oldest message inside was sent, to the turn; undefined when that is not known. */
  oldestMillis(now: number): number | undefined {
    const sentAt = this.length === 0 ? undefined : this.marks?.at(this.sent - this.untaken - this.length)
    return sentAt === undefined ? undefined : now - sentAt
  }

  /** What went in, what overflowed, and what receivers were handed, each time it was. None of it ever falls. */
  get flow(): Flow {
    return {
      accepted: this.sent - this.untaken,
      dropped: this.dropped - this.droppedLate,
      received: this.received + this.returned
    }
  }

  private put(stored: Stored<A>): void {
    this.mark(1)
    this.sent++
    this.backlog.put(stored)
    this.arm()
  }

  private putAll(items: ReadonlyArray<Stored<A>>): void {
    this.mark(items.length)
    this.sent += items.length
    this.backlog.putAll(items)
    this.arm()
    this.tellFull()
  }

  private tellFull(): void {
    if (this.length < this.capacity || this.toldFull) return
    this.toldFull = true
    const { bus, observers } = this.kernel
    observers?.full?.(this, this.capacity)
    if (bus.observed) bus.emit("MailboxFull", this, { capacity: this.capacity })
  }

  // --- receiving

  /** Whether a fiber that comes now may take a message: none that is about to get it has waited longer. */
  private get mayTake(): boolean {
    return this.length > 0 && (this.receivers.size === 0 || !this.armed)
  }

  private isEnough(min: number): boolean {
    return this.length >= Math.min(min, this.ending === undefined ? this.capacity : 1)
  }

  readonly receive: Effect.Effect<A, E | MailboxClosed> = Effect.withFiber((fiber) => {
    if (!this.backlog.isBare || !this.mayTake || !isSteady(fiber)) {
      return this.receiveFor(one as Demand<A, A>, fiber)
    }
    this.received++
    const exit = this.backlog.takeExit()
    this.freed()
    return exit
  })

  receiveMany(
    min: number,
    max: number,
    fiber: Fiber.Fiber<unknown, unknown>
  ): Effect.Effect<Array<A>, E | MailboxClosed> {
    return this.receiveFor<Array<A>>({ min, max, shape: messagesOf }, fiber)
  }

  /** At least one message, handed on within the step that takes it. */
  receiveChunk<B>(
    max: number,
    handOn: (taken: Taken<A>) => B,
    fiber: Fiber.Fiber<unknown, unknown>
  ): Effect.Effect<B, E | MailboxClosed> {
    return this.receiveFor({ min: 1, max, shape: handOn }, fiber)
  }

  tryReceive(fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<Option.Option<A>> {
    if (this.isDrained) return Effect.succeedNone
    // It fails when it is drained, and for nothing else.
    return this.receiveFor(poll as Demand<A, Option.Option<A>>, fiber) as Effect.Effect<Option.Option<A>>
  }

  /** One message with what is remembered of it. */
  readonly receiveItem: Effect.Effect<Item<A>, E | MailboxClosed> = Effect.withFiber((fiber) =>
    this.receiveFor(whole as Demand<A, Item<A>>, fiber)
  )

  private receiveFor<B>(
    demand: Demand<A, B>,
    fiber: Fiber.Fiber<unknown, unknown>
  ): Effect.Effect<B, E | MailboxClosed> {
    if (this.isDrained && this.ending !== undefined) return this.ending.receive
    const { max, min, shape } = demand
    const hasEnough = this.mayTake && this.isEnough(min)
    if (hasEnough ? isSteady(fiber) : min === 0) return Effect.succeed(shape(hasEnough ? this.hand(max) : nothing()))
    const { writer } = this.kernel
    const receiver = new Receiver(fiber, demand)
    return Effect.callback<B, E | MailboxClosed>((resume) => {
      // It is resumed with what its demand makes of messages, or with an end.
      receiver.resume = resume as Place["resume"]
      // Things may have changed since the step before.
      if (min === 0 || (this.mayTake && this.isEnough(min))) {
        const taken = receiver.taken = this.mayTake ? this.hand(max) : nothing()
        writer.nextTurn({ run: () => writer.wake({ run: () => resume(Effect.succeed(shape(taken))) }) })
      } else {
        this.receivers.add(receiver, writer.now())
        this.arm()
      }
      return Effect.suspend(() => {
        if (!receiver.waits) return this.restore(receiver.taken)
        this.leave(this.receivers, receiver)
        return Effect.void
      })
    })
  }

  /** Takes at most so many messages, with what is remembered of them. */
  private take(max: number): Array<Item<A>> {
    const items = this.backlog.take(max)
    this.freed()
    return items
  }

  /** There is room, for those who wait if there are any. */
  private freed(): void {
    if (this.toldFull && this.senders.size === 0 && this.length * 2 <= this.capacity) this.toldFull = false
    this.arm()
  }

  /** Takes for a receiver. */
  private hand(max: number): Taken<A> {
    const items = this.backlog.isBare ? undefined : this.backlog.take(max)
    const messages = items === undefined ? this.backlog.takeBare(max) : items.map(({ message }) => message)
    this.received += messages.length
    this.freed()
    return { messages, items }
  }

  /** Takes back what was handed to a receiver that was cut: once, whoever asks. */
  restore(taken: Taken<A>): Effect.Effect<void> {
    const { items, messages } = taken
    taken.messages = []
    taken.items = undefined
    this.received -= messages.length
    this.returned += messages.length
    return this.back(items ?? messages.map((message) => new Item(message, 0, 1)))
  }

  /** Puts messages back to the front: they are the next ones. */
  private back(items: ReadonlyArray<Item<A>>): Effect.Effect<void> {
    if (this.closed) return this.discard(items)
    this.backlog.back(items)
    this.arm()
    return Effect.void
  }

  // --- handling

  /** A handler has the message. */
  begin(): void {
    this.received--
    this.returned++
    this.handling++
  }

  handled(): void {
    this.handling--
    this.returned--
    this.received++
  }

  /** The handler was interrupted, which is no fault of the message. */
  unhandled(item: Item<A>): Effect.Effect<void> {
    this.handling--
    return this.back([item])
  }

  redeliver({ attempt, carried, message, size }: Item<A>): Effect.Effect<void> {
    this.handling--
    if (!this.closed) this.redelivered++
    return this.back([new Item(message, size, attempt + 1, carried)])
  }

  dropFailed(item: Item<A>): void {
    this.handling--
    this.droppedLate++
    this.drop(item)
  }

  /** Gives up a message that a handler has, or had. */
  giveUp(item: Item<A>, reason: DeadLetter<A>["reason"], cause: Cause.Cause<unknown>): Effect.Effect<void> {
    const { deadLetter } = this.options
    const { attempt, message } = item
    const settle = (taken: boolean) => {
      this.handling--
      if (taken) {
        this.deadLettered++
        this.gone(message, reason)
      } else {
        this.undelivered++
        this.tell(message, reason)
      }
    }
    const letter: DeadLetter<A> = { message, reason, attempts: reason === "closed" ? attempt - 1 : attempt, cause }
    if (typeof deadLetter !== "function") {
      return Effect.sync(() => settle(deadLetter !== undefined && nodeOf(deadLetter).offer(letter) === "sent"))
    }
    return Effect.suspend(() => deadLetter(letter)).pipe(
      Effect.onExit((exit) => Effect.sync(() => settle(Exit.isSuccess(exit)))),
      Effect.catchCause((cause) => Effect.logError(`the dead letter of ${path(this)} failed`, cause))
    )
  }

  private discard(items: ReadonlyArray<Item<A>>): Effect.Effect<void> {
    this.handling += items.length
    return Effect.forEach(items, (item) => this.giveUp(item, "closed", Cause.empty), { discard: true })
  }

  private drop({ message }: Item<A>): void {
    this.dropped++
    this.tell(message, "dropped")
  }

  /** A message reaches nobody. */
  private tell(message: A, reason: UndeliveredReason): void {
    this.gone(message, reason)
    try {
      this.options.onUndelivered?.(message, reason)
    } catch (defect) {
      Effect.runForkWith(this.kernel.context)(Effect.logError(`onUndelivered of ${path(this)} threw`, defect))
    }
  }

  private gone(message: A, reason: UndeliveredReason): void {
    this.questions?.get(message)?.gone(reason)
  }

  // --- serving those who wait

  /** Sees to it that those who wait are served soon, but not within the step that makes it possible. */
  private arm(): void {
    if (this.armed || !this.isServable) return
    this.armed = true
    this.kernel.writer.nextTurn(this.serving)
  }

  // Those who wait are fibers: waking them comes after the decisions.
  private readonly serving: Job = { run: () => this.kernel.writer.wake(this) }

  private get isServable(): boolean {
    return (this.receivers.size > 0 && (this.length > 0 || this.isDrained)) ||
      (this.senders.size > 0 && (this.length < this.capacity || this.closed))
  }

  /** Serves one of those who wait. */
  run(): void {
    const go = this.nextSender() ?? this.nextReceiver()
    this.armed = go !== undefined && this.isServable
    if (this.armed) this.kernel.writer.wake(this)
    go?.()
  }

  private nextSender(): (() => void) | undefined {
    const sender = this.senders.first
    if (sender === undefined) return undefined
    const { items, offset } = sender
    sender.offset = Math.min(items.length, offset + Math.max(0, this.capacity - this.length))
    if (sender.offset > offset) this.putAll(items.slice(offset, sender.offset))
    if (sender.offset < items.length) return undefined
    const end = this.closed ? this.ending?.send : undefined
    this.leave(this.senders, sender)
    return () => sender.resume(end ?? Exit.void)
  }

  private nextReceiver(): (() => void) | undefined {
    const ending = this.isDrained ? this.ending : undefined
    let receiver = this.receivers.first
    while (receiver !== undefined && ending === undefined && !this.isEnough(receiver.demand.min)) {
      receiver = this.receivers.after(receiver)
    }
    if (receiver === undefined) return undefined
    const { demand: { max, shape }, resume } = receiver
    this.leave(this.receivers, receiver)
    if (ending !== undefined) return () => resume(ending.receive)
    const taken = receiver.taken = this.hand(max)
    return () => resume(Effect.succeed(shape(taken)))
  }

  // --- ending

  /** Takes no message any more. What is inside, and what senders wait with, is still received. */
  end(reason: MailboxClosed["reason"], cause?: Cause.Cause<E>): boolean {
    if (this.ending !== undefined) return false
    const send = Exit.fail(new MailboxClosed({ mailbox: path(this), reason }))
    this.ending = { reason, send, receive: cause === undefined ? send : Exit.failCause(cause) }
    this.since = this.kernel.writer.now()
    this.arm()
    return true
  }

  /** Nothing is received any more: what is left reaches nobody. */
  close(): Effect.Effect<void> {
    if (this.closed) return Effect.void
    this.closed = true
    const left = this.take(Infinity)
    const inside = left.length
    for (let sender = this.senders.first; sender !== undefined; sender = this.senders.after(sender)) {
      for (const stored of sender.items.slice(sender.offset)) left.push(this.backlog.item(stored))
      this.sent += sender.items.length - sender.offset
      sender.offset = sender.items.length
    }
    // An end that loses messages is none.
    if (this.ending?.reason === "ended" && left.length > 0) this.ending = undefined
    this.end("closed")
    this.arm()
    const waiting = left.length - inside
    this.untaken += waiting
    if (waiting > 0) this.refused(undefined, waiting)
    this.kernel.remove(this)
    const questions = [...this.questions?.values() ?? []]
    return Effect.ensuring(
      this.discard(left),
      Effect.sync(() => questions.forEach((question) => question.gone("closed")))
    )
  }

  stop(): undefined {
    return undefined
  }

  get status(): State {
    if (this.ending === undefined) return "running"
    return !this.isDrained ? "stopping" : this.ending.reason === "failed" ? "failed" : "succeeded"
  }

  get stats(): MailboxStats {
    const now = this.kernel.writer.now()
    return {
      length: this.length,
      capacity: this.capacity,
      sent: this.sent,
      received: this.received,
      dropped: this.dropped,
      undelivered: this.undelivered,
      handling: this.handling,
      redelivered: this.redelivered,
      deadLettered: this.deadLettered,
      blockedSenders: this.senders.size,
      blockedReceivers: this.receivers.size,
      blockedSendMillis: this.senders.watch.total(now),
      blockedReceiveMillis: this.receivers.watch.total(now),
      bytes: this.backlog.bytes
    }
  }

  snapshot(): MailboxSnapshot {
    const health = this.status === "failed" ? "failed" : "ok"
    return { ...shown(this, this.kernel, this.since), health, overflow: this.overflow, stats: this.stats }
  }
}

const variance = { _A: identity, _E: identity, _Full: identity }

/**
 * The node of a mailbox: every mailbox is one.
 *
 * @category getters
 * @since 0.1.0
 */
export const nodeOf = <A, E, Full>(self: Mailbox<A, E, Full>): MailboxNode<A, E> =>
  // The interface hides what only the mailbox may touch.
  self as unknown as MailboxNode<A, E>
