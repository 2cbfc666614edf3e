/** Who waits at the ends of a mailbox, and what a receiver makes of messages. */
import type * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import { Item, type Stored } from "../Backlog.ts"
import type { MailboxClosed } from "../CoreError.ts"
import { Place } from "../Line.ts"
import { Current } from "../RoutineRecord.ts"

/** Why it takes no message any more, and what senders and receivers fail with. */
export interface Ending<E> {
  readonly reason: MailboxClosed["reason"]
  readonly send: Exit.Exit<never, MailboxClosed>
  readonly receive: Exit.Exit<never, E | MailboxClosed>
}

export const nothing = (): Taken<never> => ({ messages: [], items: undefined })

/** A fiber that waits at either end. */
class End extends Place {
  constructor(fiber: Fiber.Fiber<unknown, unknown>) {
    const record = fiber.getRef(Current)
    super(record?.blocked, record, fiber.cache.span)
  }
}

export class Sender<A> extends End {
  readonly items: ReadonlyArray<Stored<A>>
  offset = 0

  constructor(fiber: Fiber.Fiber<unknown, unknown>, items: ReadonlyArray<Stored<A>>) {
    super(fiber)
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
export interface Demand<A, B> {
  readonly min: number
  readonly max: number
  readonly shape: (taken: Taken<A>) => B
}

export class Receiver<A> extends End {
  readonly demand: Demand<A, unknown>
  /** What it was handed, until it goes on. */
  taken: Taken<A> = nothing()

  constructor(fiber: Fiber.Fiber<unknown, unknown>, demand: Demand<A, unknown>) {
    super(fiber)
    this.demand = demand
  }
}

export const one: Demand<unknown, unknown> = { min: 1, max: 1, shape: ({ messages }) => messages[0] }

export const whole: Demand<unknown, unknown> = {
  min: 1,
  max: 1,
  shape: ({ items, messages }) => items === undefined ? new Item(messages[0], 0, 1) : items[0]
}

export const poll: Demand<unknown, unknown> = {
  min: 0,
  max: 1,
  shape: ({ messages }) => messages.length === 0 ? Option.none() : Option.some(messages[0])
}

// It is nobody else's.
export const messagesOf = <A>({ messages }: Taken<A>): Array<A> => messages as Array<A>
