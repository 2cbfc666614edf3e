/**
 * The state of a bus: its topics in use, who reacts to them, and what was seen of who publishes what.
 *
 * @stability unstable
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Schema from "effect/Schema"
import { BusClosed } from "./CoreError.ts"
import type { State } from "./Event.ts"
import { type Published, TopicNode } from "./internal/Delivery.ts"
import { type Kernel, Node, path, positive, shown, type StopLimits, unbounded } from "./Kernel.ts"
import type { Carried, Carrier } from "./Observer.ts"
import { type GroupStats, Handling, type ReactOptions, Reactor } from "./Reactor.ts"
import { Current, RoutineRecord, withoutSpan } from "./RoutineRecord.ts"
import type { BusSnapshot } from "./Snapshot.ts"
import { SubscriptionState } from "./Subscription.ts"
import * as Topic from "./Topic.ts"

/**
 * How a message is published. What is left out is made: an id that is unique in the orchestrator, no key, and within
 * the handler of a message that message as its cause.
 *
 * @category models
 * @since 0.1.0
 */
export interface PublishOptions {
  readonly key?: string | undefined
  readonly id?: string | undefined
  readonly causationId?: string | undefined
  readonly correlationId?: string | undefined
}

/**
 * How a broadcast is subscribed, where that differs from the topic. The subscriptions of a queue have no capacity and
 * no overflow of their own: giving one is a defect.
 *
 * @category models
 * @since 0.1.0
 */
export interface SubscribeOptions {
  /** Its name in the tree. Default `"subscriber"`. */
  readonly name?: string | undefined
  /** How many messages wait for this subscriber, at least the topic's replay. */
  readonly capacity?: number | undefined
  /** What happens when it has no room. No subscriber can make publishing fail. */
  readonly overflow?: Exclude<Topic.Overflow, "fail"> | undefined
}

/**
 * The counts of a topic since its first subscriber: messages published, subscribers, publishers that wait for room
 * and how long they have waited (milliseconds, waits in progress included), messages inside, dropped and undelivered,
 * and what its groups did.
 *
 * @category models
 * @since 0.1.0
 */
export interface TopicStats {
  readonly topic: string
  readonly kind: Topic.Definition["kind"]
  readonly published: number
  readonly subscribers: number
  readonly blockedPublishers: number
  readonly blockedPublishMillis: number
  readonly length: number
  readonly dropped: number
  readonly undelivered: number
  readonly groups: ReadonlyArray<GroupStats>
}

/**
 * Who publishes on a topic, who reacts to it, and what those publish in turn. Publishers are routines, or groups whose
 * handler published; they and `emits` are known once something was published, or where `react` declares it.
 * A group that reacts no more is not `active`.
 *
 * @category models
 * @since 0.1.0
 */
export interface TopicGraph {
  readonly topic: string
  readonly kind: Topic.Definition["kind"]
  readonly subscribers: number
  readonly publishers: ReadonlyArray<string>
  readonly groups: ReadonlyArray<{
    readonly group: string
    readonly active: boolean
    readonly emits: ReadonlyArray<string>
    readonly deadLetter: string | null
  }>
}

/** How many topics the graph remembers, and how many publishers of each. */
const remembered = 1000
const rememberedPublishers = 100

/** What was seen of a topic, whether it is in use or not. */
interface Seen {
  readonly topic: Topic.Definition
  readonly publishers: Set<string>
  readonly groups: Map<string, { readonly emits: Set<string>; readonly deadLetter: string | null }>
}

/** The subscription of a group, and the routine of its handlers. */
interface Reaction {
  readonly reactor: Reactor
  readonly record: RoutineRecord
}

/**
 * The bus in the tree.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export class BusNode extends Node {
  readonly kind = "bus"
  readonly incarnation = 1
  status: State = "running"
  private readonly kernel: Kernel
  private readonly since: number
  private readonly topics = new Map<string, TopicNode>()
  /** Who reacts to a topic, by the names of both. */
  private readonly reactions = new Map<string, Map<string, Reaction>>()
  private readonly seen = new Map<string, Seen>()
  /** The context of the last publisher, and who that was. */
  private from: Context.Context<never> | undefined = undefined
  private record: RoutineRecord | undefined = undefined
  private handling: Handling | undefined = undefined

  constructor(kernel: Kernel, owner: Node | undefined, name: string) {
    super(kernel.nextId(), name, owner ?? kernel)
    this.kernel = kernel
    this.since = kernel.writer.now()
    kernel.add(this)
  }

  private get closed(): Effect.Effect<never, BusClosed> | undefined {
    return this.status === "running" ? undefined : Effect.fail(new BusClosed({ bus: this.name }))
  }

  /** What goes with the messages of a topic, if anything does. */
  carrier(topic: Topic.Definition): Carrier | undefined {
    return this.kernel.observers?.carrier?.("topic", topic.name)
  }

  publish(
    topic: Topic.Definition,
    value: unknown,
    options: PublishOptions | undefined,
    fiber: Fiber.Fiber<unknown, unknown>,
    carried?: Carried
  ): Published {
    // A fiber that publishes again and again has one context: it is looked into once.
    if (fiber.context !== this.from) this.comesFrom(fiber)
    const { handling, record } = this
    if (handling !== undefined || record !== undefined) {
      const { publishers } = this.seenOf(topic)
      if (publishers.size < rememberedPublishers) publishers.add(handling?.group ?? record?.name ?? "")
      handling?.emits.add(topic.name)
    }
    const envelope = this.envelope(topic.name, value, options, handling?.envelope)
    return this.send(topic, carried === undefined ? envelope : { ...envelope, [Topic.carried]: carried }, record)
  }

  private readonly send = (
    topic: Topic.Definition,
    message: Topic.Envelope<unknown>,
    record: RoutineRecord | undefined
  ): Published => {
    if (this.status !== "running") return Effect.fail(new BusClosed({ bus: this.name }))
    const node = this.taking(topic)
    return node === undefined ? Effect.succeed(message) : node.publish(message, record)
  }

  private comesFrom(fiber: Fiber.Fiber<unknown, unknown>): void {
    this.from = fiber.context
    this.record = fiber.getRef(Current)
    const handling = fiber.getRef(Handling)
    const handler = handling && this.reactions.get(handling.envelope.topic)?.get(handling.group)?.record
    // What a handler forks into the tree outlives the message, which is the cause of nothing it does later.
    this.handling = handler !== undefined && isWithin(this.record, handler) ? handling : undefined
  }

  private envelope(
    topic: string,
    value: unknown,
    options: PublishOptions | undefined,
    cause: Topic.Envelope<unknown> | undefined
  ): Topic.Envelope<unknown> {
    const id = options?.id ?? `e-${this.kernel.nextId()}`
    return {
      id,
      topic,
      key: options?.key,
      value,
      at: this.kernel.writer.wall(),
      attempt: 1,
      causationId: options?.causationId ?? cause?.id,
      correlationId: options?.correlationId ?? cause?.correlationId ?? id
    }
  }

  /** The topic in use, or undefined when nobody would ever see what is published on it. */
  private taking(topic: Topic.Definition): TopicNode | undefined {
    const node = this.topics.get(topic.name)
    if (node !== undefined && node.topic === topic) return node
    return node === undefined && topic.kind === "broadcast" && topic.replay === 0 ? undefined : this.open(topic)
  }

  /** The topic in use that has the name of this one and is another. */
  private clashing(topic: Topic.Definition): TopicNode | undefined {
    const node = this.topics.get(topic.name)
    if (node === undefined || node.topic === topic) return undefined
    const { capacity, kind, overflow, schema } = node.topic
    // Topics that were asked for by name alone are made as often as they are asked for.
    const byName = (schema === Schema.Unknown || schema === Topic.DeadLetters) && schema === topic.schema
    return byName && kind === topic.kind && capacity === topic.capacity && overflow === topic.overflow
      ? undefined
      : node
  }

  private check(topic: Topic.Definition): void {
    const other = this.clashing(topic)
    if (other === undefined) return
    throw new Error(
      `${path(other)} is the ${described(other.topic)}: one topic has the name, got: another ${described(topic)}`
    )
  }

  private open(topic: Topic.Definition): TopicNode {
    this.check(topic)
    const node = this.topics.get(topic.name)
    if (node !== undefined) return node
    const opened = new TopicNode(this.kernel, this, topic, this.send)
    this.topics.set(topic.name, opened)
    this.seenOf(topic)
    return opened
  }

  private seenOf(topic: Topic.Definition): Seen {
    const known = this.seen.get(topic.name)
    if (known !== undefined) return known
    const seen: Seen = { topic, publishers: new Set(), groups: new Map() }
    this.seen.set(topic.name, seen)
    if (this.seen.size > remembered) this.forgetOldest()
    return seen
  }

  private forgetOldest(): void {
    for (const name of this.seen.keys()) {
      if (this.topics.has(name)) continue
      this.seen.delete(name)
      return
    }
  }

  subscribe<A>(
    topic: Topic.Definition,
    options: SubscribeOptions = {}
  ): Effect.Effect<SubscriptionState<A>, BusClosed> {
    const { capacity = topic.capacity, name = "subscriber", overflow = topic.overflow } = options
    if (name === "") throw new Error("the name of a subscription is not empty, got: \"\"")
    positive("the capacity of a subscription", capacity)
    if (capacity < topic.replay) {
      throw new Error(`the capacity of a subscription holds the replay of its topic, ${topic.replay}, got: ${capacity}`)
    }
    if (topic.kind === "queue" && (options.capacity ?? options.overflow) !== undefined) {
      throw new Error(
        `subscriptions of the queue "${topic.name}" share its capacity and overflow, got: ` +
          `${options.capacity ?? options.overflow}`
      )
    }
    return this.closed ?? Effect.sync(() => {
      const node = this.open(topic)
      node.subscribers++
      return new SubscriptionState<A>(node.shared ?? node.open(name, capacity, overflow), () => this.unsubscribed(node))
    })
  }

  /** A topic without subscribers is forgotten when nothing is lost with it. */
  private unsubscribed(node: TopicNode): void {
    node.subscribers--
    this.free(node)
  }

  private free(node: TopicNode): void {
    if (!node.isIdle || this.topics.get(node.name) !== node) return
    this.topics.delete(node.name)
    node.leave()
  }

  named(name: string, capacity: number | undefined): Topic.Topic<unknown> {
    const node = this.topics.get(name)
    const topic = Topic.make(name, Schema.Unknown, { kind: "queue", capacity: capacity ?? node?.topic.capacity })
    this.check(topic)
    return topic
  }

  react(
    topic: Topic.Definition,
    options: ReactOptions<unknown>,
    context: Context.Context<never>
  ): Effect.Effect<Effect.Effect<void>, BusClosed> {
    const { concurrency = 1, deadLetter, emits = [], group } = options
    if (group === "") throw new Error("the name of a group is not empty, got: \"\"")
    positive("the concurrency of a group", concurrency)
    if (this.reactions.get(topic.name)?.has(group) === true) {
      throw new Error(`a group reacts once to a topic, got: ${group} again on ${topic.name}`)
    }
    if (deadLetter !== undefined) this.check(this.letters(deadLetter))
    if (this.kernel.closing !== "open") return Effect.fail(new BusClosed({ bus: this.name }))
    const subscribed = this.subscribe(topic, topic.kind === "queue" ? {} : { name: `${group}.inbox` })
    return Effect.map(subscribed, (subscription) => {
      const { inbox } = subscription
      const { groups } = this.seenOf(topic)
      const known = groups.get(group)?.emits ?? new Set()
      for (const { name } of emits) known.add(name)
      groups.set(group, {
        emits: known,
        deadLetter: typeof deadLetter === "object" ? deadLetter.name : deadLetter ?? null
      })
      const reactor = new Reactor(options, { inbox, emits: known, bury: (letter) => this.bury(deadLetter, letter) })
      const record = new RoutineRecord(this.kernel, inbox.topic, { name: group })
      const reactions = this.reactions.get(topic.name) ?? new Map<string, Reaction>()
      this.reactions.set(topic.name, reactions.set(group, { reactor, record }))
      const ended = () => {
        if (!reactions.delete(group)) return
        if (reactions.size === 0) this.reactions.delete(topic.name)
        reactor.end()
        subscription.close()
      }
      // Whoever stops the routine ends the reaction: nobody may wait for room that is never made.
      record.ended.add(ended)
      record.start(reactor.work, withoutSpan(context), { readyNow: true })
      return Effect.andThen(Effect.suspend(() => record.stop(unbounded) ?? Effect.void), Effect.sync(ended))
    })
  }

  /** Publishes a dead letter, if somebody can take it now. */
  private bury(target: ReactOptions<unknown>["deadLetter"], letter: Topic.DeadLetter): boolean {
    if (target === undefined || this.status !== "running") return false
    const topic = this.letters(target)
    if (this.clashing(topic) !== undefined) return false
    this.seenOf(topic).publishers.add(letter.group)
    const { envelope: { id: causationId, correlationId, key } } = letter
    const message = this.envelope(topic.name, letter, { key, causationId, correlationId }, undefined)
    return (this.taking(topic)?.tryPublish(message) ?? 0) > 0
  }

  /** The topic of dead letters that is meant by a name. */
  private letters(target: string | Topic.Definition): Topic.Definition {
    if (typeof target !== "string") return target
    const topic = this.topics.get(target)?.topic
    return topic?.schema === Topic.DeadLetters ? topic : Topic.deadLetters(target)
  }

  redrive(target: string | Topic.Definition): Effect.Effect<number, BusClosed> {
    const topic = this.letters(target)
    if (topic.kind !== "queue") throw new Error(`only a queue keeps dead letters, got: ${described(topic)}`)
    this.check(topic)
    const node = this.topics.get(topic.name)
    const inbox = node?.shared
    if (this.closed !== undefined) return this.closed
    if (node === undefined || inbox === undefined) return Effect.succeed(0)
    const kept: Array<Topic.Envelope<unknown>> = []
    let left = inbox.length
    let handed = 0
    const hand = (): Effect.Effect<void> => {
      for (let message = inbox.take(); message !== undefined; message = inbox.take()) {
        // The topic has messages of this type alone.
        const letter = message.value as Topic.DeadLetter
        const reactor = this.reactions.get(letter.envelope.topic)?.get(letter.group)?.reactor
        if (reactor === undefined) kept.push(message)
        else if (reactor.redrive(letter)) handed++
        else {
          inbox.giveBack([message])
          return Effect.flatMap(reactor.room, hand)
        }
        if (--left <= 0) break
      }
      return Effect.void
    }
    return Effect.suspend(hand).pipe(
      Effect.ensuring(Effect.sync(() => {
        inbox.giveBack(kept)
        this.free(node)
      })),
      Effect.map(() => handed)
    )
  }

  graph(): ReadonlyArray<TopicGraph> {
    return Array.from(this.seen.values(), ({ groups, publishers, topic: { kind, name } }) => ({
      topic: name,
      kind,
      subscribers: this.topics.get(name)?.subscribers ?? 0,
      publishers: [...publishers],
      groups: Array.from(groups, ([group, { deadLetter, emits }]) => ({
        group,
        active: this.reactions.get(name)?.has(group) === true,
        emits: [...emits],
        deadLetter
      }))
    }))
  }

  stats(): ReadonlyArray<TopicStats> {
    const now = this.kernel.writer.now()
    return Array.from(this.topics.values(), (node) => ({
      topic: node.name,
      kind: node.topic.kind,
      published: node.published,
      subscribers: node.subscribers,
      blockedPublishers: node.publishers.size,
      blockedPublishMillis: node.publishers.watch.total(now),
      length: Array.from(node.inboxes, (inbox) => inbox.length).reduce((sum, length) => sum + length, 0),
      dropped: node.dropped,
      undelivered: node.undelivered,
      groups: Array.from(this.reactions.get(node.name)?.values() ?? [], ({ reactor }) => reactor.stats)
    }))
  }

  snapshot(): BusSnapshot {
    return { ...shown(this, this.kernel, this.since), health: "ok" }
  }

  /** Stops the reactions; the bus stays open. */
  stop(limits: StopLimits): Effect.Effect<void> | undefined {
    const records = Array.from(this.reactions.values(), (groups) => Array.from(groups.values(), ({ record }) => record))
    return records.length === 0 ? undefined : Effect.forEach(
      records.flat(),
      (record) => record.stop(limits) ?? Effect.void,
      { concurrency: "unbounded", discard: true }
    )
  }

  /** Takes nothing any more, and waits for the handlers. What subscribers still have inside they can take. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.status = "stopping"
    return Effect.andThen(
      this.stop(unbounded) ?? Effect.void,
      Effect.sync(() => {
        for (const node of this.topics.values()) node.end(this.name)
        this.topics.clear()
        this.status = "succeeded"
        this.kernel.remove(this)
      })
    )
  })
}

const described = ({ capacity, kind, name, overflow, replay }: Topic.Definition): string =>
  `${kind} topic "${name}" (capacity ${capacity}, overflow ${overflow}, replay ${replay})`

const isWithin = (node: Node | undefined, above: Node): boolean => {
  let at = node
  while (at !== undefined && at !== above) at = at.owner
  return at !== undefined
}
