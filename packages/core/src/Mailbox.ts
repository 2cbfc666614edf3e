/**
 * A bounded queue between fibers that says what it does: what it holds, what it lost and why, and who waits for it.
 *
 * It keeps three promises that a bare queue does not. What is full has a policy (`overflow`). A message is received,
 * dropped, dead-lettered, undelivered or still inside, and is counted as exactly one of these. And whoever waits, for
 * room or for a message, may be interrupted at any moment without a message being lost or doubled.
 *
 * **Example** (What is inside at the end is still received)
 *
 * ```ts import.meta.vitest
 * import { Mailbox } from "@effect-orchestra/core"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const mailbox = yield* Mailbox.make<number>({ capacity: 2, overflow: "drop_old" })
 *   yield* Mailbox.sendAll(mailbox, [1, 2, 3])
 *   yield* Mailbox.end(mailbox)
 *   const messages = yield* Mailbox.receiveAll(mailbox)
 *   const after = yield* Effect.flip(Mailbox.receive(mailbox))
 *   const { dropped, received, sent } = yield* Mailbox.stats(mailbox)
 *   return { messages, after: after.message, counts: { sent, received, dropped } }
 * })
 *
 * const { after, counts, messages } = await Effect.runPromise(Effect.scoped(program))
 * messages // => [2, 3]
 * after // => "mailbox /mailbox/mailbox has been ended"
 * counts // => { sent: 3, received: 2, dropped: 1 }
 * ```
 *
 * @since 0.1.0
 */
import type { NonEmptyReadonlyArray } from "effect/Array"
import * as Cause from "effect/Cause"
import * as Channel from "effect/Channel"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import type * as Option from "effect/Option"
import type { Pipeable } from "effect/Pipeable"
import * as Predicate from "effect/Predicate"
import type * as Pull from "effect/Pull"
import * as Queue from "effect/Queue"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { Item, Stored } from "./Backlog.ts"
import type { AskTimeout, MailboxClosed, MailboxFull, Unanswered } from "./CoreError.ts"
import type { Taken } from "./internal/Ends.ts"
import { millisOf, positive } from "./Kernel.ts"
import { MailboxNode, nodeOf, TypeId } from "./MailboxNode.ts"
import { kernelOf } from "./Orchestrator.ts"
import { Answer, answerOf, type Reply } from "./Reply.ts"
import { Current } from "./RoutineRecord.ts"
import type { MailboxStats } from "./Snapshot.ts"

/**
 * A mailbox of messages `A`, whose receivers may fail with `E` when it is failed. `Full` is `MailboxFull` where its
 * overflow policy is `"fail"`, else `never`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Mailbox<in out A, in out E = never, out Full = never> extends Pipeable {
  readonly [TypeId]: {
    readonly _A: (_: A) => A
    readonly _E: (_: E) => E
    readonly _Full: (_: never) => Full
  }
  readonly id: string
  readonly name: string
  /** Its counts at this moment. */
  readonly stats: MailboxStats
}

/**
 * What a full mailbox does with one message more: the sender waits (`"suspend"`), the new message is dropped
 * (`"drop_new"`), the oldest one is (`"drop_old"`), or the send fails with `MailboxFull` (`"fail"`).
 *
 * @category models
 * @since 0.1.0
 */
export type Overflow = "suspend" | "drop_new" | "drop_old" | "fail"

/**
 * Why a message reached nobody: a policy dropped it, its handler failed and there was no dead letter for it, or the
 * mailbox was closed.
 *
 * @category models
 * @since 0.1.0
 */
export type UndeliveredReason = "dropped" | "failed" | "closed"

/**
 * A message that was given up: because its handler failed `attempts` times, the last time with `cause`, or because the
 * mailbox was closed before anybody received it.
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetter<out A> {
  readonly message: A
  readonly reason: "failed" | "closed"
  readonly attempts: number
  readonly cause: Cause.Cause<unknown>
}

/**
 * How a mailbox is made.
 *
 * @category models
 * @since 0.1.0
 */
export interface MailboxOptions<A> {
  /** Its name in the tree. Default `"mailbox"`. */
  readonly name?: string | undefined
  /** How many messages it holds: a positive integer. */
  readonly capacity: number
  /** What it does when it is full. Default `"suspend"`. */
  readonly overflow?: Overflow | undefined
  /** The size of a message in bytes, for `stats`; called once for each. */
  readonly sizeOf?: ((message: A) => number) | undefined
  /** Told of each message that reaches nobody and is no dead letter, once. What it throws is logged. */
  readonly onUndelivered?: ((message: A, reason: UndeliveredReason) => void) | undefined
  /**
   * Where messages go that failed or that are left when the mailbox is closed: another mailbox, which is never waited
   * for, or an effect, which is. What they cannot take is undelivered.
   */
  readonly deadLetter?:
    | Mailbox<DeadLetter<A>, never, unknown>
    | ((letter: DeadLetter<A>) => Effect.Effect<void>)
    | undefined
}

/**
 * What became of a message that was offered: `"full"` and `"closed"` leave it with the caller.
 *
 * @category models
 * @since 0.1.0
 */
export type Offered = "sent" | "dropped" | "full" | "closed"

/**
 * Makes a mailbox. It stands in the tree under the routine that makes it, until the scope closes: then what is left
 * inside, and what senders that still wait hold, is undelivered, and who waits for it fails with `MailboxClosed`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: {
  <A, E = never>(
    options: MailboxOptions<A> & { readonly overflow: "fail" }
  ): Effect.Effect<Mailbox<A, E, MailboxFull>, never, Scope.Scope>
  <A, E = never>(
    options: MailboxOptions<A> & { readonly overflow?: Exclude<Overflow, "fail"> | undefined }
  ): Effect.Effect<Mailbox<A, E>, never, Scope.Scope>
  <A, E = never>(options: MailboxOptions<A>): Effect.Effect<Mailbox<A, E, MailboxFull>, never, Scope.Scope>
} = <A, E = never>(options: MailboxOptions<A>): Effect.Effect<Mailbox<A, E>, never, Scope.Scope> =>
  Effect.withFiber((fiber) => {
    const capacity = positive("a mailbox's capacity", options.capacity)
    const kernel = kernelOf(fiber.context, "mailbox")
    return Effect.acquireRelease(
      Effect.map(
        Queue.bounded<Stored<A>>(capacity),
        (queue) => new MailboxNode<A, E>(kernel, fiber.getRef(Current), queue, options)
      ),
      (node) => node.close()
    )
  })

/**
 * Sends a message. While the mailbox is full it waits for room, drops, or fails with `MailboxFull`, as its overflow
 * policy says. Interrupted while it waits, the message has not been sent. Fails with `MailboxClosed` at once when the
 * mailbox has ended, and when its scope closes while it waits.
 *
 * @category operations
 * @since 0.1.0
 */
export const send: {
  <A>(message: A): <E, Full>(self: Mailbox<A, E, Full>) => Effect.Effect<void, MailboxClosed | Full>
  <A, E, Full>(self: Mailbox<A, E, Full>, message: A): Effect.Effect<void, MailboxClosed | Full>
} = dual(
  2,
  <A, E, Full>(self: Mailbox<A, E, Full>, message: A) =>
    Effect.withFiber((fiber) => {
      const node = nodeOf(self)
      return node.carrier?.sending((carried) => node.send(message, fiber, carried)) ?? node.send(message, fiber)
    })
)

/**
 * Sends a message if that needs no waiting and drops no new message. Never waits and never fails: false when the
 * mailbox is full or has ended. With `"drop_old"` it is never full.
 *
 * @category operations
 * @since 0.1.0
 */
export const trySend: {
  <A>(message: A): <E, Full>(self: Mailbox<A, E, Full>) => Effect.Effect<boolean>
  <A, E, Full>(self: Mailbox<A, E, Full>, message: A): Effect.Effect<boolean>
} = dual(2, <A, E, Full>(self: Mailbox<A, E, Full>, message: A) => Effect.sync(() => nodeOf(self).trySend(message)))

/**
 * `send` without its waiting, at once: for a mailbox of overflow `"suspend"` or `"fail"` that has no room it is
 * `"full"`, and `send` is what waits for room.
 *
 * @category operations
 * @since 0.1.0
 */
export const offerUnsafe = <A, E, Full>(self: Mailbox<A, E, Full>, message: A): Offered => nodeOf(self).offer(message)

/**
 * Sends messages in their order. Waits until all have room; interrupted meanwhile, the first of them are sent and the
 * others are not. With `"fail"` it is all or none. Fails as `send` does.
 *
 * @category operations
 * @since 0.1.0
 */
export const sendAll: {
  <A>(messages: Iterable<A>): <E, Full>(self: Mailbox<A, E, Full>) => Effect.Effect<void, MailboxClosed | Full>
  <A, E, Full>(self: Mailbox<A, E, Full>, messages: Iterable<A>): Effect.Effect<void, MailboxClosed | Full>
} = dual(
  2,
  <A, E, Full>(self: Mailbox<A, E, Full>, messages: Iterable<A>) =>
    Effect.withFiber((fiber) => nodeOf(self).sendAll(messages, fiber))
)

/**
 * Receives the oldest message, and waits for one. Receivers that wait are served in the order they came. Fails with
 * `MailboxClosed`, or with the error of `fail`, when there will be no message any more.
 *
 * @category operations
 * @since 0.1.0
 */
export const receive = <A, E, Full>(self: Mailbox<A, E, Full>): Effect.Effect<A, E | MailboxClosed> =>
  nodeOf(self).receive

/**
 * Receives the oldest message if there is one now. Never fails: `None` also when the mailbox has ended.
 *
 * @category operations
 * @since 0.1.0
 */
export const tryReceive = <A, E, Full>(self: Mailbox<A, E, Full>): Effect.Effect<Option.Option<A>> =>
  Effect.withFiber((fiber) => nodeOf(self).tryReceive(fiber))

/**
 * Receives all that is inside, and waits until that is at least one message. Fails as `receive` does.
 *
 * @category operations
 * @since 0.1.0
 */
export const receiveAll = <A, E, Full>(self: Mailbox<A, E, Full>): Effect.Effect<Array<A>, E | MailboxClosed> =>
  Effect.withFiber((fiber) => nodeOf(self).receiveMany(1, Infinity, fiber))

/**
 * Receives at most `max` messages, and waits until there are `min` (or as many as the mailbox holds, or the rest of
 * one that has ended). Both are integers, `max` may be infinite. Fails as `receive` does.
 *
 * @category operations
 * @since 0.1.0
 */
export const receiveBetween: {
  (min: number, max: number): <A, E, Full>(
    self: Mailbox<A, E, Full>
  ) => Effect.Effect<Array<A>, E | MailboxClosed>
  <A, E, Full>(self: Mailbox<A, E, Full>, min: number, max: number): Effect.Effect<Array<A>, E | MailboxClosed>
} = dual(3, <A, E, Full>(self: Mailbox<A, E, Full>, min: number, max: number) =>
  Effect.withFiber((fiber) => {
    if (!(Number.isInteger(min) && min >= 0)) {
      throw new Error(`receiveBetween takes a minimum that is an integer of at least 0, got: ${min}`)
    }
    if (!((Number.isInteger(max) || max === Infinity) && max >= Math.max(1, min))) {
      throw new Error(`receiveBetween takes a maximum that is an integer of at least its minimum and 1, got: ${max}`)
    }
    return nodeOf(self).receiveMany(min, max, fiber)
  }))

/**
 * Takes no new message any more; what is inside, and what senders wait with, is still received, and after that
 * receivers fail with `MailboxClosed`. False when the mailbox had ended before.
 *
 * @category operations
 * @since 0.1.0
 */
export const end = <A, E, Full>(self: Mailbox<A, E, Full>): Effect.Effect<boolean> =>
  Effect.sync(() => nodeOf(self).end("ended"))

/**
 * Ends the mailbox like `end`, but receivers fail with `error` once what is inside has been received.
 *
 * @category operations
 * @since 0.1.0
 */
export const fail: {
  <E>(error: E): <A, Full>(self: Mailbox<A, E, Full>) => Effect.Effect<boolean>
  <A, E, Full>(self: Mailbox<A, E, Full>, error: E): Effect.Effect<boolean>
} = dual(2, <A, E, Full>(self: Mailbox<A, E, Full>, error: E) => failCause(self, Cause.fail(error)))

/**
 * Ends the mailbox like `end`, but receivers fail with `cause` once what is inside has been received.
 *
 * @category operations
 * @since 0.1.0
 */
export const failCause: {
  <E>(cause: Cause.Cause<E>): <A, Full>(self: Mailbox<A, E, Full>) => Effect.Effect<boolean>
  <A, E, Full>(self: Mailbox<A, E, Full>, cause: Cause.Cause<E>): Effect.Effect<boolean>
} = dual(
  2,
  <A, E, Full>(self: Mailbox<A, E, Full>, cause: Cause.Cause<E>) => Effect.sync(() => nodeOf(self).end("failed", cause))
)

/**
 * Holds the mailbox open for sending while the scope is open, and returns it. When the last sender that was made this
 * way is gone, the mailbox ends as by `end`. Fails with `MailboxClosed` when it has ended already.
 *
 * @category operations
 * @since 0.1.0
 */
export const sender = <A, E, Full>(
  self: Mailbox<A, E, Full>
): Effect.Effect<Mailbox<A, E, Full>, MailboxClosed, Scope.Scope> => {
  const node = nodeOf(self)
  const hold = Effect.suspend(() => {
    if (node.ending !== undefined) return node.ending.send
    node.holders.senders++
    return Effect.succeed(self)
  })
  return Effect.acquireRelease(hold, () => Effect.sync(() => --node.holders.senders === 0 && node.end("ended")))
}

/**
 * Holds the mailbox open for receiving while the scope is open, and returns it. When the last receiver that was made
 * this way is gone, the mailbox is closed as by its scope: what is left is undelivered, and senders fail with
 * `MailboxClosed`. Fails with it when the mailbox has been closed already.
 *
 * @category operations
 * @since 0.1.0
 */
export const receiver = <A, E, Full>(
  self: Mailbox<A, E, Full>
): Effect.Effect<Mailbox<A, E, Full>, MailboxClosed, Scope.Scope> => {
  const node = nodeOf(self)
  const hold = Effect.suspend(() => {
    if (node.closed && node.ending !== undefined) return node.ending.send
    node.holders.receivers++
    return Effect.succeed(self)
  })
  return Effect.acquireRelease(hold, () => --node.holders.receivers === 0 ? node.close() : Effect.void)
}

/**
 * What it holds, what it has done, and who waits now. Waits for nothing.
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = <A, E, Full>(self: Mailbox<A, E, Full>): Effect.Effect<MailboxStats> =>
  Effect.sync(() => self.stats)

/**
 * Tests whether a value is a `Mailbox`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isMailbox = (u: unknown): u is Mailbox<unknown, unknown, unknown> => Predicate.hasProperty(u, TypeId)

/**
 * What `receiveWith` does with a message whose handler fails: it goes back to the front and is tried again, `attempts`
 * times in all, and is a dead letter then (`"redeliver"`); it is a dead letter at once (`"dead_letter"`); it is dropped
 * (`"drop"`).
 *
 * @category models
 * @since 0.1.0
 */
export type OnFailure = "redeliver" | "dead_letter" | "drop"

/**
 * How `receiveWith` handles failure.
 *
 * @category models
 * @since 0.1.0
 */
export interface HandlerOptions {
  /** Default `"redeliver"`. */
  readonly onFailure?: OnFailure | undefined
  /** How often a message is tried with `"redeliver"`: a positive integer. Default 3. */
  readonly attempts?: number | undefined
}

/**
 * Receives one message and runs a handler with it and the number of its attempt, from 1. Returns how the handler ended:
 * a handler that fails or dies does not fail this, so a loop of it keeps running; `onFailure` says what becomes of the
 * message. Interrupted, the message goes back to the front and this attempt does not count. Fails as `receive` does.
 *
 * **Gotchas**
 *
 * What the dead-letter effect of the mailbox does cannot be interrupted.
 *
 * @category operations
 * @since 0.1.0
 */
export const receiveWith: {
  <A, B, E2, R>(
    handler: (message: A, delivery: { readonly attempt: number }) => Effect.Effect<B, E2, R>,
    options?: HandlerOptions
  ): <E, Full>(self: Mailbox<A, E, Full>) => Effect.Effect<Exit.Exit<B, E2>, E | MailboxClosed, R>
  <A, E, Full, B, E2, R>(
    self: Mailbox<A, E, Full>,
    handler: (message: A, delivery: { readonly attempt: number }) => Effect.Effect<B, E2, R>,
    options?: HandlerOptions
  ): Effect.Effect<Exit.Exit<B, E2>, E | MailboxClosed, R>
} = dual((args) => isMailbox(args[0]), <A, E, Full, B, E2, R>(
  self: Mailbox<A, E, Full>,
  handler: (message: A, delivery: { readonly attempt: number }) => Effect.Effect<B, E2, R>,
  { attempts = 3, onFailure = "redeliver" }: HandlerOptions = {}
): Effect.Effect<Exit.Exit<B, E2>, E | MailboxClosed, R> =>
  Effect.uninterruptibleMask((restore) => {
    positive("how often a message is tried", attempts)
    const node = nodeOf(self)
    const failed = (item: Item<A>, cause: Cause.Cause<E2>) => {
      if (onFailure === "drop") return Effect.sync(() => node.dropFailed(item))
      return onFailure === "redeliver" && item.attempt < attempts
        ? node.redeliver(item)
        : node.giveUp(item, "failed", cause)
    }
    return Effect.flatMap(restore(node.receiveItem), (item) => {
      node.begin()
      const handling = Effect.suspend(() => handler(item.message, { attempt: item.attempt }))
      const handled = restore(node.carrier?.handling(handling, item.carried) ?? handling)
      return Effect.flatMap(Effect.exit(handled), (exit): Effect.Effect<Exit.Exit<B, E2>> => {
        if (Exit.isSuccess(exit)) {
          node.handled()
          return Effect.succeed(exit)
        }
        // Of a fiber that is being interrupted nothing more is run: that it is not the fault of the message.
        return Effect.flatMap(Effect.exit(restore(Effect.void)), (alive) =>
          Exit.isSuccess(alive)
            ? Effect.as(failed(item, exit.cause), exit)
            : Effect.andThen(node.unhandled(item), Effect.failCause(Cause.interrupt())))
      })
    })
  }))

/**
 * The messages from now on, in chunks of all that is inside, or of at most `chunk` messages. A chunk that the stream is
 * at when it is interrupted goes back to the front, and may be seen again. The stream ends when the mailbox has ended,
 * and fails as `receive` does.
 *
 * **Gotchas**
 *
 * A stream that ends before its mailbox does, by `Stream.take` or because its consumer fails, has received the whole
 * chunk that it was at. With `chunk: 1` that is one message.
 *
 * @category operations
 * @since 0.1.0
 */
export const stream = <A, E, Full>(
  self: Mailbox<A, E, Full>,
  { chunk = Infinity }: { readonly chunk?: number | undefined } = {}
): Stream.Stream<A, E | MailboxClosed> =>
  Stream.fromChannel(Channel.fromTransform((_, scope: Scope.Scope) => {
    if (chunk !== Infinity) positive("the chunk of a stream", chunk)
    const node = nodeOf(self)
    // It is received when the stream asks for the next one.
    let last: Taken<A> | undefined
    const handOn = (taken: Taken<A>) => {
      last = taken
      // It is at least one.
      return taken.messages as ReadonlyArray<A> & NonEmptyReadonlyArray<A>
    }
    const pull = Effect.withFiber((fiber) => {
      last = undefined
      return node.receiveChunk(chunk, handOn, fiber)
    })
    return Effect.as(
      Scope.addFinalizerExit(
        scope,
        (exit) =>
          last !== undefined && Exit.isFailure(exit) && Cause.hasInterrupts(exit.cause)
            ? node.restore(last)
            : Effect.void
      ),
      Effect.catch(
        pull,
        (error): Pull.Pull<never, E | MailboxClosed> =>
          node.ending?.reason === "ended" ? Cause.done() : Effect.fail(error)
      )
    )
  }))

/**
 * Sends a question, made with the handle that it is answered with, and waits for the answer, at most for `timeout`
 * (default 5 seconds; an infinite one waits for ever). Fails with the error it is answered with; with `AskTimeout`; with
 * `MailboxClosed` at once when the mailbox has ended, or closes before there is an answer; with `Unanswered` when the
 * question is dropped or its handler fails. A late answer is dropped.
 *
 * @category operations
 * @since 0.1.0
 */
export const ask: {
  <A, B, E2 = never>(
    question: (reply: Reply<B, E2>) => A,
    options?: { readonly timeout?: Duration.Input | undefined }
  ): <E, Full>(
    self: Mailbox<A, E, Full>
  ) => Effect.Effect<B, E2 | AskTimeout | MailboxClosed | Unanswered | Full>
  <A, E, Full, B, E2 = never>(
    self: Mailbox<A, E, Full>,
    question: (reply: Reply<B, E2>) => A,
    options?: { readonly timeout?: Duration.Input | undefined }
  ): Effect.Effect<B, E2 | AskTimeout | MailboxClosed | Unanswered | Full>
} = dual((args) => isMailbox(args[0]), <A, E, Full, B, E2>(
  self: Mailbox<A, E, Full>,
  question: (reply: Reply<B, E2>) => A,
  options?: { readonly timeout?: Duration.Input | undefined }
): Effect.Effect<B, E2 | AskTimeout | MailboxClosed | Unanswered | Full> =>
  Effect.withFiber((fiber) => {
    const millis = millisOf("the timeout of a question", options?.timeout ?? "5 seconds")
    const answer = new Answer<A, B, E2>(nodeOf(self))
    // It fails with `MailboxFull` where the type of the mailbox says so.
    return answer.ask(question(answer), millis, fiber) as Effect.Effect<
      B,
      E2 | AskTimeout | MailboxClosed | Unanswered | Full
    >
  }))

/**
 * Answers a question. False when that comes too late.
 *
 * @category operations
 * @since 0.1.0
 */
export const reply: {
  <B>(value: B): <E>(self: Reply<B, E>) => Effect.Effect<boolean>
  <B, E>(self: Reply<B, E>, value: B): Effect.Effect<boolean>
} = dual(2, <B, E>(self: Reply<B, E>, value: B) => Effect.sync(() => answerOf(self).settle(Exit.succeed(value))))

/**
 * Answers a question with an error. False when that comes too late.
 *
 * @category operations
 * @since 0.1.0
 */
export const replyFail: {
  <E>(error: E): <B>(self: Reply<B, E>) => Effect.Effect<boolean>
  <B, E>(self: Reply<B, E>, error: E): Effect.Effect<boolean>
} = dual(2, <B, E>(self: Reply<B, E>, error: E) => Effect.sync(() => answerOf(self).settle(Exit.fail(error))))
