/**
 * What a subscriber of a `Topic` holds: its messages, in the order they were published.
 *
 * `Bus.subscribe` makes one. Each subscription of a broadcast has its messages to itself; those of a queue compete,
 * and whoever has waited longest gets the next message. It ends with its scope.
 *
 * **Example** (Two subscribers of a broadcast)
 *
 * ```ts import.meta.vitest
 * import { Bus, Subscription, Topic } from "@effect-orchestra/core"
 * import { Effect, Schema } from "effect"
 *
 * const Ticks = Topic.make("Ticks", Schema.Int)
 *
 * const program = Effect.gen(function*() {
 *   const one = yield* Bus.subscribe(Ticks)
 *   const two = yield* Bus.subscribe(Ticks, { capacity: 2, overflow: "drop_old" })
 *   for (const tick of [1, 2, 3]) yield* Bus.publish(Ticks, tick)
 *   const all = yield* Subscription.receiveAll(one)
 *   const last = yield* Subscription.receiveAll(two)
 *   const { dropped } = yield* Subscription.stats(two)
 *   return [all.map((message) => message.value), last.map((message) => message.value), dropped]
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Bus.layer))) // => [[1, 2, 3], [2, 3], 1]
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Stream from "effect/Stream"
import type { MailboxClosed } from "./CoreError.ts"
import { type Inbox, Taker } from "./internal/Delivery.ts"
import { isSteady } from "./internal/Steady.ts"
import { Current } from "./RoutineRecord.ts"
import type { MailboxStats } from "./Snapshot.ts"
import type { Envelope } from "./Topic.ts"

const TypeId = "~effect-orchestra/core/Subscription"

/**
 * A subscription to messages `A`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Subscription<out A> {
  readonly [TypeId]: { readonly _A: (_: never) => A }
}

/**
 * Tests whether a value is a `Subscription`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isSubscription = (u: unknown): u is Subscription<unknown> => Predicate.hasProperty(u, TypeId)

/**
 * Takes the next message, and waits while there is none. Interrupted at any moment it has taken none. Fails with
 * `MailboxClosed` when the scope of the subscription is closed, or that of the bus and all messages are taken.
 *
 * @category operations
 * @since 0.1.0
 */
export const receive = <A>(self: Subscription<A>): Effect.Effect<Envelope<A>, MailboxClosed> =>
  stateOf(self).receiving((inbox) => inbox.take(), one)

/**
 * Takes the next message if there is one. Never waits for one: `None` when there is none. Fails like `receive`.
 *
 * @category operations
 * @since 0.1.0
 */
export const tryReceive = <A>(self: Subscription<A>): Effect.Effect<Option.Option<Envelope<A>>, MailboxClosed> =>
  stateOf(self).receiving(
    (inbox) => inbox.length === 0 && inbox.closed !== undefined ? undefined : Option.fromUndefinedOr(inbox.take()),
    Option.toArray
  )

/**
 * Takes all messages there are, and waits while there is none. Fails like `receive`.
 *
 * @category operations
 * @since 0.1.0
 */
export const receiveAll = <A>(self: Subscription<A>): Effect.Effect<ReadonlyArray<Envelope<A>>, MailboxClosed> =>
  stateOf(self).receiving((inbox) => inbox.length === 0 ? undefined : inbox.takeAll(), identity)

const one = (message: Envelope<unknown>) => [message]

/**
 * The messages as a stream, taken as they are there, those of a queue one by one. It ends when the bus or the
 * subscription is closed.
 *
 * @category operations
 * @since 0.1.0
 */
export const stream = <A>(self: Subscription<A>): Stream.Stream<Envelope<A>> => {
  const take = stateOf(self).competes ? Effect.map(receive(self), (message) => [message]) : receiveAll(self)
  const pull = Effect.catch(take, () => Cause.done())
  // Nothing is taken that is empty.
  return Stream.fromPull(Effect.succeed(pull as Effect.Effect<readonly [Envelope<A>], Cause.Done>))
}

/**
 * The counts of what waits for this subscription; the subscriptions of a queue share them.
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = (self: Subscription<unknown>): Effect.Effect<MailboxStats> =>
  Effect.sync(() => stateOf(self).inbox.stats)

/** @internal */
export class SubscriptionState<A> implements Subscription<A> {
  readonly [TypeId] = variance
  readonly inbox: Inbox
  closed = false
  private readonly waiting = new Set<Taker>()
  private readonly left: () => void

  constructor(inbox: Inbox, left: () => void) {
    this.inbox = inbox
    this.left = left
  }

  get competes(): boolean {
    return this.inbox.topic.shared === this.inbox
  }

  /**
   * Takes what `take` finds, or waits for it. What was taken and does not reach the fiber goes `back`. The messages of
   * this inbox are those of the topic's type.
   */
  receiving<Found, B>(
    take: (inbox: Inbox) => Found | undefined,
    back: (found: Found) => ReadonlyArray<Envelope<unknown>>
  ): Effect.Effect<B, MailboxClosed> {
    return Effect.withFiber((fiber) => {
      const { inbox } = this
      if (this.closed) return Effect.fail(inbox.isClosed)
      if (inbox.length > 0 && !isSteady(fiber)) return this.waitFor(take, back, fiber)
      const found = take(inbox)
      if (found !== undefined) return Effect.succeed(found as unknown as B)
      return inbox.closed === undefined ? this.waitFor(take, back, fiber) : Effect.fail(inbox.isClosed)
    })
  }

  private waitFor<Found, B>(
    take: (inbox: Inbox) => Found | undefined,
    back: (found: Found) => ReadonlyArray<Envelope<unknown>>,
    fiber: Fiber.Fiber<unknown, unknown>
  ): Effect.Effect<B, MailboxClosed> {
    const { inbox } = this
    const { topic } = inbox
    const { writer } = topic.kernel
    const record = fiber.getRef(Current)
    return Effect.callback((resume) => {
      let taken: Found | undefined
      let cut = false
      const hand = () => {
        // Interrupted on its way, it leaves the message to the next.
        if (cut) return topic.signal()
        taken = this.closed ? undefined : take(inbox)
        const failed = taken === undefined && (this.closed || inbox.closed !== undefined)
        if (taken === undefined && !failed) return inbox.park(taker)
        this.waiting.delete(taker)
        resume(failed ? Effect.fail(inbox.isClosed) : Effect.succeed(taken as unknown as B))
      }
      const taker = new Taker(record, fiber.cache.span, hand)
      this.waiting.add(taker)
      inbox.park(taker)
      // Not at once: resumed here, it could not give back what it took.
      if (this.closed || inbox.closed !== undefined || inbox.length > 0) {
        writer.nextTurn({ run: () => this.wake(taker) })
      }
      return Effect.sync(() => {
        cut = true
        if (taken !== undefined) return inbox.giveBack(back(taken))
        inbox.unpark(taker)
        this.waiting.delete(taker)
      })
    })
  }

  private wake(taker: Taker): void {
    if (this.inbox.unpark(taker)) this.inbox.topic.kernel.writer.wake(taker)
  }

  close(): void {
    if (this.closed) return
    this.closed = true
    for (const taker of this.waiting) this.wake(taker)
    if (!this.competes) this.inbox.close()
    this.left()
  }
}

const variance = { _A: (_: never): never => _ }

// Every subscription is made by the bus.
const stateOf = <A>(self: Subscription<A>): SubscriptionState<A> => self as SubscriptionState<A>
