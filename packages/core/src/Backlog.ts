/**
 * What is inside a mailbox: messages in the order they came, and before them those that came back.
 *
 * Effect's queue holds them, bare where nothing has to be remembered of a message but itself: then a message costs no
 * more than it does in that queue.
 *
 * For what is built from mailboxes; programs use `Mailbox`.
 *
 * **Example** (What comes back is the next)
 *
 * ```ts import.meta.vitest
 * import { Backlog } from "@effect-orchestra/core/Backlog"
 * import { Effect, Queue } from "effect"
 *
 * const queue = await Effect.runPromise(Queue.bounded<any>(4))
 * const backlog = new Backlog<string>(queue, (message) => message.length)
 * for (const message of ["a", "bb", "ccc"]) backlog.put(backlog.stored(message))
 * const taken = backlog.take(2)
 * backlog.bytes // => 3
 * backlog.back(taken)
 * backlog.take(Infinity).map(({ message }) => message) // => ["a", "bb", "ccc"]
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
import type * as Exit from "effect/Exit"
import * as MutableList from "effect/MutableList"
import * as Queue from "effect/Queue"

/**
 * A message with what is remembered of it: its size, how often it was tried, this time included, and what goes with it.
 *
 * @category models
 * @since 0.1.0
 */
export class Item<out A> {
  readonly message: A
  readonly size: number
  readonly attempt: number
  readonly carried: unknown

  constructor(message: A, size: number, attempt: number, carried?: unknown) {
    this.message = message
    this.size = size
    this.attempt = attempt
    this.carried = carried
  }
}

/**
 * How a message stands in the queue: as an item where messages have sizes, else bare.
 *
 * @category models
 * @since 0.1.0
 */
export type Stored<A> = A | Item<A>

/**
 * The messages inside a mailbox. It keeps no bound: whoever puts one in has looked whether there is room.
 *
 * @category models
 * @since 0.1.0
 */
export class Backlog<in out A> {
  private readonly queue: Queue.Queue<Stored<A>>
  private readonly sizeOf: ((message: A) => number) | undefined
  /** What came back, the next one last. */
  private readonly front: Array<Item<A>> = []
  bytes = 0

  constructor(queue: Queue.Queue<Stored<A>>, sizeOf: ((message: A) => number) | undefined, carries = false) {
    this.queue = queue
    // Messages with which something goes have a size, like those that are measured.
    this.sizeOf = sizeOf ?? (carries ? weightless : undefined)
  }

  get length(): number {
    return this.front.length + this.queue.messages.length
  }

  /** Whether all that is inside is bare messages. */
  get isBare(): boolean {
    return this.front.length === 0 && this.sizeOf === undefined
  }

  /** How a message will stand inside. Asks for its size, and is a defect when that is none. */
  stored(message: A, carried?: unknown): Stored<A> {
    if (this.sizeOf === undefined) return message
    const size = this.sizeOf(message)
    if (!(Number.isInteger(size) && size >= 0)) {
      throw new Error(`the size of a message is an integer of at least 0, got: ${size}`)
    }
    return new Item(message, size, 1, carried)
  }

  allStored(messages: Iterable<A>): ReadonlyArray<Stored<A>> {
    return this.sizeOf === undefined && Array.isArray(messages)
      ? messages
      : Array.from(messages, (message) => this.stored(message))
  }

  item(stored: Stored<A>): Item<A> {
    // What is stored is an item exactly when messages have sizes.
    return this.sizeOf === undefined ? new Item(stored as A, 0, 1) : stored as Item<A>
  }

  put(stored: Stored<A>): void {
    Queue.offerUnsafe(this.queue, stored)
    if (this.sizeOf !== undefined) this.bytes += this.item(stored).size
  }

  putAll(all: ReadonlyArray<Stored<A>>): void {
    Queue.offerAllUnsafe(this.queue, all)
    if (this.sizeOf !== undefined) { for (const stored of all) this.bytes += this.item(stored).size }
  }

  /** At most so many messages. */
  take(max: number): Array<Item<A>> {
    const items: Array<Item<A>> = []
    while (items.length < max && this.length > 0) {
      // The queue is not empty when the front is.
      const item = this.front.pop() ?? this.item(MutableList.take(this.queue.messages) as Stored<A>)
      this.bytes -= item.size
      items.push(item)
    }
    return items
  }

  /** At most so many messages, of those that are bare. */
  takeBare(max: number): Array<A> {
    return MutableList.takeN(this.queue.messages, max)
  }

  /** One message that is bare, as the exit that the queue gives for it. */
  takeExit(): Exit.Exit<A> {
    // There is one, and this queue never ends.
    return Queue.takeUnsafe(this.queue) as Exit.Exit<A>
  }

  /** The next messages, at most so many, without taking them. */
  peek(max: number): Array<A> {
    const { front, queue } = this
    const messages = front.slice(-max).reverse().map(({ message }) => message)
    return front.length >= max || max === 0
      ? messages.slice(0, max)
      : [
        ...messages,
        ...firstOf(queue.messages, max - messages.length).map((stored) => this.item(stored as Stored<A>).message)
      ]
  }

  /** Puts messages back to the front: they are the next ones. */
  back(items: ReadonlyArray<Item<A>>): void {
    for (const item of items.toReversed()) {
      this.bytes += item.size
      this.front.push(item)
    }
  }
}

/**
 * The first of a list, at most so many, without taking them.
 *
 * @category getters
 * @since 0.1.0
 */
export const firstOf = <A>(list: MutableList.MutableList<A>, max: number): Array<A> => {
  const found: Array<A> = []
  for (let bucket = list.head; bucket !== undefined && found.length < max; bucket = bucket.next) {
    found.push(...bucket.array.slice(bucket.offset, bucket.offset + max - found.length))
  }
  return found
}

const weightless = () => 0
