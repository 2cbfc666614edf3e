/**
 * What can be published on a `Bus`: a name, the schema of its messages, and how they are delivered.
 *
 * A topic is a constant of the program, made once and shared by whoever publishes and whoever subscribes; its state
 * lives in the bus. On a `"broadcast"` topic every subscriber gets every message; on a `"queue"` topic every message
 * goes to exactly one of the subscribers that compete for it, and waits while there is none.
 *
 * **Example** (Declaring topics)
 *
 * ```ts import.meta.vitest
 * import { Topic } from "@effect-orchestra/core"
 * import { Schema } from "effect"
 *
 * const OrderPlaced = Topic.make("OrderPlaced", Schema.Struct({ orderId: Schema.String }), { replay: 1 })
 * const Mails = Topic.make("Mails", Schema.String, { kind: "queue", capacity: 100, overflow: "drop_old" })
 *
 * const declared = [OrderPlaced.kind, OrderPlaced.capacity, Mails.kind] // => ["broadcast", 1024, "queue"]
 * ```
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import { identity } from "effect/Function"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type { MailboxFull } from "./CoreError.ts"
import { positive } from "./Kernel.ts"
import type { Overflow } from "./Mailbox.ts"
import type { Carried } from "./Observer.ts"

export type { Overflow } from "./Mailbox.ts"

const TypeId = "~effect-orchestra/core/Topic"

/**
 * What a topic is, whatever its messages are.
 *
 * @category models
 * @since 0.1.0
 */
export interface Definition {
  readonly name: string
  readonly schema: Schema.Schema<unknown>
  readonly kind: "queue" | "broadcast"
  readonly capacity: number
  readonly overflow: Overflow
  readonly replay: number
}

/**
 * A topic of messages `A`. Publishing on it can fail with `E`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Topic<in out A, out E = never> extends Definition {
  readonly [TypeId]: { readonly _A: (_: A) => A; readonly _E: (_: never) => E }
  readonly schema: Schema.Schema<A>
}

/**
 * How a topic delivers.
 *
 * @category models
 * @since 0.1.0
 */
export interface TopicOptions {
  /** Every message to every subscriber (`"broadcast"`, the default), or to exactly one (`"queue"`). */
  readonly kind?: Definition["kind"] | undefined
  /** How many messages may wait: for each subscriber of a broadcast, in all of a queue. Default 1,024. */
  readonly capacity?: number | undefined
  /** What happens when a subscriber has no room; losses are that subscriber's. Default `"suspend"`: publishing waits. */
  readonly overflow?: Overflow | undefined
  /** How many of the last messages a new subscriber of a broadcast gets first, at most `capacity`. Default 0. */
  readonly replay?: number | undefined
}

/**
 * A message on its way. `id` is unique in the orchestrator unless the publisher gave one; `at` is when it was
 * published (wall clock milliseconds); `attempt` counts the times that it is handled, from 1. `causationId` is the
 * message whose handler published this one, `correlationId` is shared by everything that one message led to.
 *
 * @category models
 * @since 0.1.0
 */
export interface Envelope<out A> {
  readonly id: string
  readonly topic: string
  readonly key: string | undefined
  readonly value: A
  readonly at: number
  readonly attempt: number
  readonly causationId: string | undefined
  readonly correlationId: string
  /** What goes with it, for observers that ask for it: it learns how many inboxes were reached. */
  readonly [carried]?: Carried | undefined
}

/**
 * Where an envelope has what goes with it.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export const carried: unique symbol = Symbol.for("@effect-orchestra/core/Topic/carried")

/**
 * A message that a group gave up on, after so many `attempts`, and why.
 *
 * @category models
 * @since 0.1.0
 */
export interface DeadLetter<out A = unknown> {
  readonly envelope: Envelope<A>
  readonly cause: Cause.Cause<unknown>
  readonly attempts: number
  readonly group: string
}

/**
 * Makes a topic. A name that is empty, a capacity that is no positive integer or a replay that is no integer from 0
 * to the capacity is a defect.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: {
  <A>(
    name: string,
    schema: Schema.Schema<A>,
    options: TopicOptions & { readonly overflow: "fail" }
  ): Topic<A, MailboxFull>
  <A>(
    name: string,
    schema: Schema.Schema<A>,
    options?: TopicOptions & { readonly overflow?: Exclude<Overflow, "fail"> | undefined }
  ): Topic<A>
} = <A>(name: string, schema: Schema.Schema<A>, options: TopicOptions = {}): Topic<A> => {
  const { capacity = 1024, kind = "broadcast", overflow = "suspend", replay = 0 } = options
  if (name === "") throw new Error("the name of a topic is not empty, got: \"\"")
  positive("the capacity of a topic", capacity)
  if (!(Number.isInteger(replay) && replay >= 0 && replay <= capacity)) {
    throw new Error(`the replay of a topic is an integer from 0 to its capacity, got: ${replay}`)
  }
  if (kind === "queue" && replay > 0) throw new Error(`a queue topic keeps no replay, got: ${replay}`)
  return { [TypeId]: { _A: identity, _E: identity }, name, schema, kind, capacity, overflow, replay }
}

/**
 * Makes a topic for dead letters: a queue, so that they wait for whoever looks, or for `Bus.redrive`. When it is full,
 * further letters are logged and counted instead.
 *
 * @category constructors
 * @since 0.1.0
 */
export const deadLetters = (
  name: string,
  options: { readonly capacity?: number | undefined } = {}
): Topic<DeadLetter, MailboxFull> => make(name, DeadLetters, { ...options, kind: "queue", overflow: "fail" })

/** @internal */
export const DeadLetters = Schema.declare((u): u is DeadLetter =>
  Predicate.hasProperty(u, "envelope") && Predicate.hasProperty(u, "cause")
)

/**
 * Tests whether a value is a `Topic`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isTopic = (u: unknown): u is Topic<unknown, unknown> => Predicate.hasProperty(u, TypeId)
