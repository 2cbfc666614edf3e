/**
 * The reaction of one group to one topic: its handler, its retries, its dead letters.
 *
 * As many workers as its concurrency take messages and run the handler in their own fibers: none is forked for a
 * message. Messages of one key stand in a lane, and a lane is with one worker at a time; one that waits for its next
 * attempt is with nobody.
 *
 * `Bus.react` makes it; its options and counts stand here.
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import { type Inbox, Taker } from "./internal/Delivery.ts"
import { path } from "./Kernel.ts"
import { carried, type DeadLetter, type Definition, type Envelope, type Topic } from "./Topic.ts"
import { type Deadline, type Job, Waiters, waitFor } from "./Writer.ts"

/**
 * How a group reacts to a topic.
 *
 * @category models
 * @since 0.1.0
 */
export interface ReactOptions<A, R = never, RS = never> {
  /** The name of the group: its routine in the tree, its entry in graph and stats. One reaction a topic. */
  readonly group: string
  /** Handles a message. Its scope is closed when it ends. A failure of any kind leads to `retry`. */
  readonly handler: (value: A, envelope: Envelope<A>) => Effect.Effect<unknown, unknown, R>
  /**
   * Messages of one key are handled one at a time and in order; without a key they are independent of each other.
   * Default: the key of the envelope.
   */
  readonly key?: ((value: A) => string | undefined) | undefined
  /** How many messages are handled at once, a positive integer. Default 1. */
  readonly concurrency?: number | undefined
  /** When a failed message is handled again; its input is the error or defect. Default: never. */
  readonly retry?: Schedule.Schedule<unknown, unknown, unknown, RS> | undefined
  /** Where the messages go that the group gave up on. Without it, or when it is full, they are logged and counted. */
  readonly deadLetter?: string | Topic<DeadLetter, unknown> | undefined
  /** Whether a message is skipped whose id is among the last 10,000 that the group took. Default true. */
  readonly dedup?: boolean | undefined
  /** The topics that the handler publishes on, for the graph, which else shows them once they were. */
  readonly emits?: ReadonlyArray<Definition> | undefined
}

/**
 * What became of the messages that a group took. Each is handled, a duplicate, dead-lettered, lost (given up without
 * a dead letter; it was logged), undelivered (given up or back at the end of the reaction), or still `held`.
 * `retried` counts further attempts, `redriven` messages that came back from dead letters.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupStats {
  readonly group: string
  readonly taken: number
  readonly held: number
  readonly handled: number
  readonly duplicates: number
  readonly retried: number
  readonly deadLettered: number
  readonly lost: number
  readonly undelivered: number
  readonly redriven: number
}

/**
 * The message that the running fiber handles, and for which group.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export const Handling = Context.Reference<Handling | undefined>("@effect-orchestra/core/Reactor/Handling", {
  defaultValue: () => undefined
})

/** @since 0.1.0 */
export interface Handling {
  readonly envelope: Envelope<unknown>
  readonly group: string
  readonly emits: Set<string>
}

/** How many messages a group holds outside its inbox, for each that it handles at once. */
const heldPerWorker = 16

/** How many ids a group remembers. */
const remembered = 10_000

/** The last ids, in a ring. */
class Ids {
  private readonly known = new Set<string>()
  private readonly ring: Array<string> = []
  private at = 0

  /** Whether it is new. */
  add(id: string): boolean {
    if (this.known.has(id)) return false
    const oldest = this.ring[this.at]
    if (oldest !== undefined) this.known.delete(oldest)
    this.ring[this.at] = id
    this.at = (this.at + 1) % remembered
    this.known.add(id)
    return true
  }

  forget(id: string): void {
    this.known.delete(id)
  }
}

type Step = (now: number, input: unknown) => Pull.Pull<[unknown, Duration.Duration], unknown, unknown>

interface Item {
  envelope: Envelope<unknown>
  /** What the key function threw. */
  readonly broken: { readonly defect: unknown } | undefined
  /** Where its retries stand, from the first failure on. */
  step: Step | undefined
  backoff: Deadline | undefined
}

/** Messages of one key, the first of which is handled, waits to be, or waits for its next attempt. */
class Lane implements Job {
  readonly key: string | undefined
  readonly items: Array<Item>
  private readonly reactor: Reactor

  constructor(reactor: Reactor, key: string | undefined, item: Item) {
    this.reactor = reactor
    this.key = key
    this.items = [item]
  }

  /** The backoff is over. */
  run(): void {
    this.reactor.enter(this)
  }
}

/** @internal */
export interface Wiring {
  readonly inbox: Inbox
  readonly emits: Set<string>
  /** Publishes a dead letter if somebody takes it. */
  readonly bury: (letter: DeadLetter) => boolean
}

/**
 * The reaction of a group while its scope is open.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export class Reactor {
  readonly group: string
  readonly inbox: Inbox
  private readonly wiring: Wiring
  // The types of messages and requirements are known to the caller of `react` alone, who gives the context.
  private readonly options: ReactOptions<unknown>
  private readonly concurrency: number
  private readonly ids: Ids | undefined
  /** What was taken and is not settled, in the order it came. */
  private readonly items = new Set<Item>()
  private readonly lanes = new Map<string, Lane>()
  private readonly ready: Array<Lane> = []
  private readonly idle = new Set<Taker>()
  private readonly roomWaiters = new Waiters<void>()
  private closed = false
  private taken = 0
  private handled = 0
  private duplicates = 0
  private retried = 0
  private deadLettered = 0
  private lost = 0
  private undelivered = 0
  private redriven = 0

  constructor(options: ReactOptions<unknown>, wiring: Wiring) {
    const { concurrency = 1, dedup = true, group } = options
    this.group = group
    this.options = options
    this.wiring = wiring
    this.inbox = wiring.inbox
    this.concurrency = concurrency
    this.ids = dedup ? new Ids() : undefined
  }

  get stats(): GroupStats {
    const { deadLettered, duplicates, group, handled, items, lost, redriven, retried, taken, undelivered } = this
    return {
      group,
      taken,
      held: items.size,
      handled,
      duplicates,
      retried,
      deadLettered,
      lost,
      undelivered,
      redriven
    }
  }

  /** Runs until it is interrupted. */
  get work(): Effect.Effect<void> {
    const { concurrency } = this
    if (concurrency === 1) return this.worker
    return Effect.forEach(Array.from({ length: concurrency }), () => this.worker, {
      concurrency: "unbounded",
      discard: true
    })
  }

  private readonly worker: Effect.Effect<never> = Effect.uninterruptibleMask((restore) =>
    Effect.gen({ self: this }, function*() {
      while (true) {
        const lane = this.next()
        const item = lane?.items[0]
        if (lane === undefined || item === undefined) {
          yield* restore(this.wait)
          continue
        }
        const exit = yield* Effect.exit(restore(this.handle(item)))
        if (Exit.isSuccess(exit)) {
          this.succeed(lane, item)
          continue
        }
        // A worker that is interrupted ends here: its message was not handled. A handler that interrupts itself failed.
        if (Cause.hasInterruptsOnly(exit.cause)) yield* restore(Effect.void)
        yield* this.fail(lane, item, exit.cause)
      }
    })
  )

  private handle({ broken, envelope }: Item): Effect.Effect<unknown, unknown> {
    const { emits } = this.wiring
    const { kernel: { observers }, name } = this.inbox.topic
    const handled = Effect.suspend(() =>
      broken === undefined ? this.options.handler(envelope.value, envelope) : Effect.die(broken.defect)
    )
    return Effect.provideService(
      Effect.scoped(observers?.carrier?.("topic", name)?.handling(handled, envelope[carried]) ?? handled),
      Handling,
      { envelope, group: this.group, emits }
    )
  }

  private get isFull(): boolean {
    return this.items.size >= heldPerWorker * this.concurrency
  }

  /** A lane to work on, from those that are ready or from the inbox. */
  private next(): Lane | undefined {
    if (this.closed) return undefined
    let lane = this.ready.shift()
    while (lane === undefined && !this.isFull) {
      const envelope = this.inbox.take()
      if (envelope === undefined) return undefined
      this.taken++
      lane = this.admit(envelope)
    }
    return lane
  }

  /** The lane of a new message, if no other message of its key is here. */
  private admit(envelope: Envelope<unknown>): Lane | undefined {
    if (this.ids?.add(envelope.id) === false) {
      this.duplicates++
      return undefined
    }
    let { key } = envelope
    let broken: Item["broken"]
    if (this.options.key !== undefined) {
      try {
        key = this.options.key(envelope.value)
      } catch (defect) {
        broken = { defect }
      }
    }
    const item: Item = { envelope, broken, step: undefined, backoff: undefined }
    this.items.add(item)
    const lane = key === undefined ? undefined : this.lanes.get(key)
    if (lane !== undefined) return void lane.items.push(item)
    const fresh = new Lane(this, key, item)
    if (key !== undefined) this.lanes.set(key, fresh)
    return fresh
  }

  /** Waits for a message or for the end of a backoff. */
  private readonly wait: Effect.Effect<void> = Effect.callback((resume) => {
    const { idle, inbox } = this
    if (this.ready.length > 0 || (inbox.length > 0 && !this.isFull)) return resume(Effect.void)
    const taker = new Taker(undefined, undefined, () => {
      idle.delete(taker)
      resume(Effect.void)
    })
    idle.add(taker)
    inbox.park(taker)
    return Effect.sync(() => {
      idle.delete(taker)
      inbox.unpark(taker)
    })
  })

  /** A lane may be worked on. */
  enter(lane: Lane): void {
    if (this.closed) return
    this.ready.push(lane)
    for (const taker of this.idle) {
      // One that a message woke may take that.
      if (!this.inbox.unpark(taker)) continue
      this.idle.delete(taker)
      return this.inbox.topic.kernel.writer.wake(taker)
    }
  }

  private succeed(lane: Lane, item: Item): void {
    if (this.closed) return
    this.handled++
    this.settle(lane, item)
  }

  private settle(lane: Lane, item: Item): void {
    const { topic } = this.inbox
    const wasFull = this.isFull
    this.items.delete(item)
    lane.items.shift()
    // Whoever settled it looks for the next at once: nobody else need be woken for that.
    if (lane.items.length > 0) this.ready.push(lane)
    else if (lane.key !== undefined) this.lanes.delete(lane.key)
    if (!wasFull) return
    if (this.idle.size > 0) topic.signal()
    this.roomWaiters.wake(topic.kernel.writer, undefined)
  }

  private fail(lane: Lane, item: Item, cause: Cause.Cause<unknown>): Effect.Effect<void> {
    if (this.closed) return Effect.void
    return Effect.flatMap(this.delay(item, Cause.squash(cause)), (delay) => {
      if (this.closed) return Effect.void
      if (typeof delay !== "number") {
        return this.giveUp(lane, item, delay === undefined ? cause : Cause.combine(cause, delay))
      }
      this.retried++
      item.envelope = { ...item.envelope, attempt: item.envelope.attempt + 1 }
      if (delay <= 0) this.enter(lane)
      else item.backoff = this.inbox.topic.kernel.writer.after(delay, lane)
      return Effect.void
    })
  }

  /** How many milliseconds until the next attempt; nothing, or what is wrong with the schedule, when there is none. */
  private delay(item: Item, input: unknown): Effect.Effect<number | Cause.Cause<unknown> | undefined> {
    const { retry } = this.options
    if (retry === undefined) return Effect.undefined
    const { writer } = this.inbox.topic.kernel
    const steps = item.step === undefined ? Schedule.toStep(retry) : Effect.succeed(item.step)
    return Effect.flatMap(steps, (step) => {
      item.step = step
      return Pull.matchEffect(step(writer.wall(), input), {
        onSuccess: ([, delay]) => {
          const millis = Duration.toMillis(delay)
          // Never is no time to try again.
          return Effect.succeed(Number.isFinite(millis) ? millis : undefined)
        },
        onFailure: (cause) => Effect.succeed(cause),
        onDone: () => Effect.undefined
      })
    })
  }

  private giveUp(lane: Lane, item: Item, cause: Cause.Cause<unknown>): Effect.Effect<void> {
    const { envelope } = item
    const { group } = this
    // Published or redriven once more, it is no duplicate.
    this.ids?.forget(envelope.id)
    const buried = this.wiring.bury({ envelope, cause, attempts: envelope.attempt, group })
    if (buried) this.deadLettered++
    else this.lost++
    this.settle(lane, item)
    if (buried) return Effect.void
    const { attempt, id } = envelope
    return Effect.logError(`${path(this.inbox.topic)}: group ${group} gave up on ${id} at attempt ${attempt}`, cause)
  }

  /** Takes a dead letter back. Says whether there was room. */
  redrive(letter: DeadLetter): boolean {
    if (this.isFull || this.closed) return false
    this.taken++
    this.redriven++
    const lane = this.admit({ ...letter.envelope, attempt: letter.attempts + 1 })
    if (lane !== undefined) this.enter(lane)
    return true
  }

  /** Completes when something was settled, or the reaction has ended. */
  get room(): Effect.Effect<void> {
    return waitFor(this.roomWaiters, () => this.isFull && !this.closed ? undefined : Effect.void)
  }

  /** Its workers have ended. What they did not handle goes back to a queue; of a broadcast it is undelivered. */
  end(): void {
    if (this.closed) return
    this.closed = true
    const { inbox, items } = this
    const { shared, kernel } = inbox.topic
    for (const { backoff } of items) kernel.writer.cancel(backoff)
    this.undelivered = items.size
    if (shared === inbox && inbox.closed === undefined) inbox.giveBack(Array.from(items, ({ envelope }) => envelope))
    else inbox.giveUp(items.size)
    items.clear()
    this.roomWaiters.wake(kernel.writer, undefined)
  }
}

/**
 * What a handler requires of its surroundings; its scope is its own.
 *
 * @category models
 * @since 0.1.0
 */
export type HandlerServices<R> = Exclude<R, Scope.Scope>
