/**
 * Typed topics within one process: publish, subscribe, and let groups react.
 *
 * Publishing knows no subscriber: who reacts to what is read off `Bus.graph`. In memory, a group gets every message
 * at least once while the process lives and it reacts; what must survive a crash belongs into a durable process.
 *
 * **Example** (A group that reacts, and what it publishes in turn)
 *
 * ```ts import.meta.vitest
 * import { Bus, Subscription, Topic } from "@effect-orchestra/core"
 * import { Effect, Schema } from "effect"
 *
 * const OrderPlaced = Topic.make("OrderPlaced", Schema.Struct({ orderId: Schema.String }))
 * const StockReserved = Topic.make("StockReserved", Schema.String)
 *
 * const program = Effect.gen(function*() {
 *   const reserved = yield* Bus.subscribe(StockReserved)
 *   yield* Bus.react(OrderPlaced, {
 *     group: "stock",
 *     key: (order) => order.orderId,
 *     handler: (order) => Bus.publish(StockReserved, order.orderId)
 *   })
 *   const order = yield* Bus.publish(OrderPlaced, { orderId: "o-1" })
 *   const { causationId, value } = yield* Subscription.receive(reserved)
 *   return { value, caused: causationId === order.id, graph: Bus.formatGraph(yield* Bus.graph) }
 * })
 *
 * const { caused, graph, value } = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Bus.layer)))
 * value // => "o-1"
 * caused // => true
 * graph // => "StockReserved (broadcast, 1 subscriber) <- stock\nOrderPlaced (broadcast, 1 subscriber)\n  stock -> StockReserved"
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import { BusNode, type PublishOptions, type SubscribeOptions, type TopicGraph, type TopicStats } from "./BusNode.ts"
import type { BusClosed } from "./CoreError.ts"
import { kernelOf } from "./Orchestrator.ts"
import type { HandlerServices, ReactOptions } from "./Reactor.ts"
import { Current } from "./RoutineRecord.ts"
import { stream, type Subscription } from "./Subscription.ts"
import type * as Topic from "./Topic.ts"

export type { PublishOptions, SubscribeOptions, TopicGraph, TopicStats } from "./BusNode.ts"

/**
 * The bus of a program.
 *
 * @category services
 * @since 0.1.0
 */
export class Bus extends Context.Service<Bus, {
  readonly name: string
  /** Its place in the tree, with all that it does. */
  readonly node: BusNode
}>()("@effect-orchestra/core/Bus") {
  /**
   * A bus with the defaults. It is listed below the routine that builds it, or below the orchestrator, if there is one.
   *
   * @category layers
   * @since 0.1.0
   */
  static readonly layer: Layer.Layer<Bus> = Layer.effect(this, Effect.suspend(() => make({})))

  /**
   * A bus with options. Call it once: every call makes another bus.
   *
   * @category layers
   * @since 0.1.0
   */
  static layerWith(options: { readonly name?: string | undefined }): Layer.Layer<Bus> {
    return Layer.effect(this, Effect.suspend(() => make(options)))
  }

  /**
   * Publishes a message and returns its envelope. Waits, first come first served, until every subscriber whose overflow
   * is `"suspend"` has room, then reaches all of them at once: interrupted, it has reached everybody or nobody. Fails
   * with `BusClosed`, and on a topic whose overflow is `"fail"` with `MailboxFull`, having reached nobody.
   *
   * @category operations
   * @since 0.1.0
   */
  static publish<A, E>(
    topic: Topic.Topic<A, E>,
    value: NoInfer<A>,
    options?: PublishOptions
  ): Effect.Effect<Topic.Envelope<A>, BusClosed | E, Bus> {
    return Effect.withFiber((fiber) => {
      const node = nodeOf(fiber)
      const published = node.carrier(topic)?.sending((carried) =>
        node.publish(topic, value, options, fiber, carried)
      ) ??
        node.publish(topic, value, options, fiber)
      // The message holds this value, and only a topic whose type says so has inboxes that fail.
      return published as Effect.Effect<Topic.Envelope<A>, BusClosed | E>
    })
  }

  /**
   * Subscribes until the scope closes: to all messages published from now on, after the topic's last `replay` ones.
   * Fails with `BusClosed`.
   *
   * @category operations
   * @since 0.1.0
   */
  static subscribe<A, E>(
    topic: Topic.Topic<A, E>,
    options?: SubscribeOptions
  ): Effect.Effect<Subscription<A>, BusClosed, Bus | Scope.Scope> {
    return Effect.acquireRelease(
      Effect.withFiber((fiber) => nodeOf(fiber).subscribe<A>(topic, options)),
      (subscription) => Effect.sync(() => subscription.close())
    )
  }

  /**
   * Subscribes while the stream is run. It ends when the bus is closed. Fails with `BusClosed` if it was before.
   *
   * @category operations
   * @since 0.1.0
   */
  static stream<A, E>(
    topic: Topic.Topic<A, E>,
    options?: SubscribeOptions
  ): Stream.Stream<Topic.Envelope<A>, BusClosed, Bus> {
    return Stream.unwrap(Effect.map(Bus.subscribe(topic, options), stream))
  }

  /**
   * A topic by its name alone: a queue of unknown messages with `capacity`, by default that of the topic in use, else
   * 1,024. The name of a topic that was declared otherwise, or another capacity than the topic in use has, is a defect.
   *
   * @category operations
   * @since 0.1.0
   */
  static topic(name: string, capacity?: number): Effect.Effect<Topic.Topic<unknown>, never, Bus> {
    return Effect.withFiber((fiber) => Effect.succeed(nodeOf(fiber).named(name, capacity)))
  }

  /**
   * Lets a group react to a topic until the scope closes, and returns as soon as it is subscribed. Every group gets
   * every message of a broadcast, and its share of a queue.
   *
   * A failed message (typed or a defect) is handled again as `retry` says; meanwhile it blocks no other key. Given up,
   * it becomes a dead letter. At most 16 messages for each that is handled at once are held outside the inbox of the
   * group; while all of them are behind a backoff, the rest waits.
   *
   * Closing the scope interrupts the handlers and waits for them. Messages that were not handled go back to a queue;
   * those of a broadcast are counted as undelivered. A second reaction of one group to one topic is a defect: it would
   * break the order. Use `concurrency`. Fails with `BusClosed`.
   *
   * @category operations
   * @since 0.1.0
   */
  static react<A, E, R = never, RS = never>(
    topic: Topic.Topic<A, E>,
    options: ReactOptions<A, R, RS>
  ): Effect.Effect<void, BusClosed, HandlerServices<R> | RS | Bus | Scope.Scope> {
    return Effect.uninterruptible(Effect.withFiber((fiber) => {
      // Messages of this topic reach the handler alone, and what it requires stands in this context.
      const reacting = nodeOf(fiber).react(topic, options as unknown as ReactOptions<unknown>, fiber.context)
      const scope = Context.getUnsafe(fiber.context, Scope.Scope)
      return Effect.flatMap(reacting, (stop) => Scope.addFinalizer(scope, stop))
    }))
  }

  /**
   * Hands the dead letters that wait in a queue back to the groups that gave up on them, and returns how many it handed
   * over. Waits while a group holds all it may. Letters of groups that react no more stay. Their attempts count on; the
   * retries begin anew. Fails with `BusClosed`.
   *
   * @category operations
   * @since 0.1.0
   */
  static redrive<E>(deadLetters: string | Topic.Topic<Topic.DeadLetter, E>): Effect.Effect<number, BusClosed, Bus> {
    return Effect.withFiber((fiber) => nodeOf(fiber).redrive(deadLetters))
  }

  /**
   * Who publishes what, and who reacts to it, in the order the topics were first seen. Of topics that are not
   * in use the last 1,000 are kept.
   *
   * @category getters
   * @since 0.1.0
   */
  static readonly graph: Effect.Effect<ReadonlyArray<TopicGraph>, never, Bus> = Effect.withFiber((fiber) =>
    Effect.sync(() => nodeOf(fiber).graph())
  )

  /**
   * The counts of the topics in use.
   *
   * @category getters
   * @since 0.1.0
   */
  static readonly stats: Effect.Effect<ReadonlyArray<TopicStats>, never, Bus> = Effect.withFiber((fiber) =>
    Effect.sync(() => nodeOf(fiber).stats())
  )

  /**
   * The graph as text: a line for each topic with its publishers, below it a line for each group.
   *
   * @category getters
   * @since 0.1.0
   */
  static formatGraph(graph: ReadonlyArray<TopicGraph>): string {
    return graph.flatMap(({ groups, kind, publishers, subscribers, topic }) => {
      const count = `${subscribers} ${subscribers === 1 ? "subscriber" : "subscribers"}`
      return [
        `${topic} (${kind}, ${count})${publishers.length === 0 ? "" : ` <- ${publishers.join(", ")}`}`,
        ...groups.map(({ active, deadLetter, emits, group }) => {
          const name = active ? group : `(${group})`
          const to = emits.length === 0 ? "" : ` -> ${emits.join(", ")}`
          return `  ${name}${to}${deadLetter === null ? "" : ` ! ${deadLetter}`}`
        })
      ]
    }).join("\n")
  }
}

/** What is required stands in the context of the caller, as the types of the operations say. */
const nodeOf = (fiber: Fiber.Fiber<unknown, unknown>): BusNode =>
  Context.getUnsafe(fiber.context as Context.Context<Bus>, Bus).node

const make = Effect.fnUntraced(function*(options: { readonly name?: string | undefined }) {
  const { name = "bus" } = options
  if (name === "") throw new Error("the name of a bus is not empty, got: \"\"")
  return yield* Effect.acquireRelease(
    Effect.withFiber((fiber) => {
      const node = new BusNode(kernelOf(fiber.context, name), fiber.getRef(Current), name)
      return Effect.succeed(Bus.of({ name, node }))
    }),
    ({ node }) => node.close
  )
})
