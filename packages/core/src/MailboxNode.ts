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
import * as Option from "effect/Option"
import { pipeArguments } from "effect/Pipeable"
import type * as Queue from "effect/Queue"
import { MixedScheduler } from "effect/Scheduler"
import { Backlog, Item, type Stored } from "./Backlog.ts"
import { MailboxClosed, MailboxFull } from "./CoreError.ts"
import type { State } from "./Event.ts"
import { type Kernel, Node, path, shown } from "./Kernel.ts"
import { Line, Place } from "./Line.ts"
import type { DeadLetter, Mailbox, MailboxOptions, Offered, Overflow, UndeliveredReason } from "./Mailbox.ts"
import { Current } from "./RoutineRecord.ts"
import type { MailboxSnapshot, MailboxStats } from "./Snapshot.ts"
import type { Stopwatch } from "./Stopwatch.ts"
import type { Job } from "./Writer.ts"

/** @internal */
export const TypeId = "~effect-orchestra/core/Mailbox"

/** Why it takes no message any more, and what senders and receivers fail with. */
interface Ending<E> {
  readonly reason: MailboxClosed["reason"]
  readonly send: Exit.Exit<never, MailboxClosed>
  readonly receive: Exit.Exit<never, E | MailboxClosed>
}

const nothing = (): Taken<never> => ({ messages: [], items: undefined })

class Sender<A> extends Place {
  readonly items: ReadonlyArray<Stored<A>>
  offset = 0

  constructor(own: Stopwatch | undefined, items: ReadonlyArray<Stored<A>>) {
    super(own)
    this.items = items
  }
}

/**
 * What was taken for a receiver: messages, and as items where more than themselves is to be remembered of them.
 *
 * @category models
 * @since 0.1.0
 */
export interface Taken<out A> {
  messages: ReadonlyArray<A>
  items: ReadonlyArray<Item<A>> | undefined
}

/** How many messages a receiver wants, and what it makes of them. */
interface Demand<A, B> {
  readonly min: number
  readonly max: number
  readonly shape: (taken: Taken<A>) => B
}

class Receiver<A> extends Place {
  readonly demand: Demand<A, unknown>
  /** What it was handed, until it goes on. */
  taken: Taken<A> = nothing()

  constructor(own: Stopwatch | undefined, demand: Demand<A, unknown>) {
    super(own)
    this.demand = demand
  }
}

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

const shouldYield = MixedScheduler.prototype.shouldYield

/**
 * Whether this step of the fiber and the next are one: nothing can interrupt it in between, and what the one takes the
 * other hands on. They are not where the fiber is about to yield because it has run long, nor under a scheduler that
 * overrides Effect's rule for that: one may even interrupt there, as the tests of interruption do. What wraps Effect's
 * scheduler, as the test clock does, keeps its rule.
 *
 * @category getters
 * @since 0.1.0
 */
export const isSteady = (
  { cache: { maxOpsBeforeYield, scheduler }, currentOpCount }: Fiber.Fiber<unknown, unknown>
): boolean =>
  currentOpCount + 1 < maxOpsBeforeYield &&
  (scheduler.shouldYield === shouldYield || !(scheduler instanceof MixedScheduler))

/**
 * The node of a mailbox.
 *
 * @category models
 * @since 0.1.0
 */
export class MailboxNode<in out A, in out E> extends Node implements Mailbox<A, E>, Job {
  readonly [TypeId] = variance
  readonly kind = "mailbox"
  readonly incarnation = 1
  readonly kernel: Kernel
  readonly options: MailboxOptions<A>
  readonly capacity: number
  readonly overflow: Overflow
  private readonly backlog: Backlog<A>
  private readonly senders = new Line<Sender<A>>()
  private readonly receivers = new Line<Receiver<A>>()
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
    this.capacity = options.capacity
    this.overflow = options.overflow ?? "suspend"
    this.backlog = new Backlog(queue, options.sizeOf)
    this.since = kernel.writer.now()
    kernel.add(this)
  }

  pipe() {
    return pipeArguments(this, arguments)
  }

  get length(): number {
    return this.backlog.length
  }

  /** Whether no message will come any more. */
  private get isDrained(): boolean {
    return this.ending !== undefined && this.length === 0 && this.senders.size === 0
  }

  // --- sending

  send(message: A, fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<void, MailboxClosed | MailboxFull> {
    if (this.ending !== undefined) return this.ending.send
    const stored = this.backlog.stored(message)
    return this.offerStored(stored) === "full" ? this.blocked([stored], fiber) : Effect.void
  }

  offer(message: A): Offered {
    return this.ending === undefined ? this.offerStored(this.backlog.stored(message)) : "closed"
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
    if (this.ending !== undefined) return this.ending.send
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
    if (this.overflow === "fail") return this.refusal
    const own = fiber.getRef(Current)?.blocked
    return Effect.callback<void, MailboxClosed>((resume) => {
      // It may have ended since the step before.
      if (this.ending !== undefined) return resume(this.ending.send)
      return Effect.sync(this.lineUp(items, own, resume))
    })
  }

  /** Sends now, or when there is room, and says how that ended. Returns how to wait for room no more. */
  sendThen(
    message: A,
    own: Stopwatch | undefined,
    ended: (exit: Exit.Exit<void, MailboxClosed | MailboxFull>) => void
  ): (() => void) | undefined {
    let exit: Exit.Exit<void, MailboxClosed | MailboxFull> = Exit.void
    if (this.ending !== undefined) exit = this.ending.send
    else {
      const stored = this.backlog.stored(message)
      if (this.offerStored(stored) === "full") {
        if (this.overflow === "suspend") return this.lineUp([stored], own, ended)
        exit = this.refusal
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
    own: Stopwatch | undefined,
    resume: (exit: Exit.Exit<void, MailboxClosed>) => void
  ): () => void {
    const { writer } = this.kernel
    const sender = new Sender(own, items)
    // It is resumed with the end of a send.
    sender.resume = resume as Place["resume"]
    this.senders.add(sender, writer.now())
    this.arm()
    return () => {
      if (!sender.waits) return
      this.senders.delete(sender, writer.now())
      // Others may have waited for this one alone.
      this.arm()
    }
  }

  private put(stored: Stored<A>): void {
    this.sent++
    this.backlog.put(stored)
    this.arm()
  }

  private putAll(items: ReadonlyArray<Stored<A>>): void {
    this.sent += items.length
    this.backlog.putAll(items)
    this.arm()
    this.tellFull()
  }

  private tellFull(): void {
    if (this.length < this.capacity || this.toldFull) return
    this.toldFull = true
    const { bus } = this.kernel
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
    const receiver = new Receiver(fiber.getRef(Current)?.blocked, demand)
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
        this.receivers.delete(receiver, writer.now())
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
    this.handling++
  }

  handled(): void {
    this.handling--
    this.received++
  }

  /** The handler was interrupted, which is no fault of the message. */
  unhandled(item: Item<A>): Effect.Effect<void> {
    this.handling--
    return this.back([item])
  }

  redeliver({ attempt, message, size }: Item<A>): Effect.Effect<void> {
    this.handling--
    if (!this.closed) this.redelivered++
    return this.back([new Item(message, size, attempt + 1)])
  }

  dropFailed(item: Item<A>): void {
    this.handling--
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
    this.senders.delete(sender, this.kernel.writer.now())
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
    this.receivers.delete(receiver, this.kernel.writer.now())
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
    for (let sender = this.senders.first; sender !== undefined; sender = this.senders.after(sender)) {
      for (const stored of sender.items.slice(sender.offset)) left.push(this.backlog.item(stored))
      this.sent += sender.items.length - sender.offset
      sender.offset = sender.items.length
    }
    // An end that loses messages is none.
    if (this.ending?.reason === "ended" && left.length > 0) this.ending = undefined
    this.end("closed")
    this.arm()
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
    const {
      backlog: { bytes },
      capacity,
      deadLettered,
      dropped,
      handling,
      length,
      received,
      redelivered,
      sent,
      undelivered
    } = this
    return {
      length,
      capacity,
      sent,
      received,
      dropped,
      undelivered,
      handling,
      redelivered,
      deadLettered,
      blockedSenders: this.senders.size,
      blockedReceivers: this.receivers.size,
      blockedSendMillis: this.senders.watch.total(now),
      blockedReceiveMillis: this.receivers.watch.total(now),
      bytes
    }
  }

  snapshot(): MailboxSnapshot {
    const health = this.status === "failed" ? "failed" : "ok"
    return { ...shown(this, this.kernel, this.since), health, overflow: this.overflow, stats: this.stats }
  }
}

const one: Demand<unknown, unknown> = { min: 1, max: 1, shape: ({ messages }) => messages[0] }

const whole: Demand<unknown, unknown> = {
  min: 1,
  max: 1,
  shape: ({ items, messages }) => items === undefined ? new Item(messages[0], 0, 1) : items[0]
}

const poll: Demand<unknown, unknown> = {
  min: 0,
  max: 1,
  shape: ({ messages }) => messages.length === 0 ? Option.none() : Option.some(messages[0])
}

// It is nobody else's.
const messagesOf = <A>({ messages }: Taken<A>): Array<A> => messages as Array<A>

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
