/** What is counted by looking: one walk through the tree for all of it. */
import type { Kernel, Node } from "@effect-orchestra/core/Kernel"
import type { MailboxView, TopicView } from "@effect-orchestra/core/Observer"
import { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import { walk } from "@effect-orchestra/core/Walk"
import * as Effect from "effect/Effect"
import * as Meter from "../Meter.ts"
import * as MetricTable from "../MetricTable.ts"

/** So many nodes are visited before others run. */
const slice = 500

/** The counts of a node as they were added to the counters last. None of them falls. */
type Counts = readonly [number, number, number, number]

const nothing: Counts = [0, 0, 0, 0]

/** The name of a mailbox in metrics; that of the inbox of a subscription begins with its topic. */
export const mailboxName = (node: Node): string =>
  node.kind === "mailbox" && node.owner?.kind === "topic" ? `${node.owner.name}.${node.name}` : node.name

/**
 * Counters of what nodes have counted themselves. Each is read when somebody asks and when it goes, and what it has
 * counted since the last time is added: so they neither fall when it goes nor count anything twice.
 */
export class Census {
  private readonly kernel: Kernel
  private readonly bounds: Meter.Bounds
  private readonly seen = new Map<Node, Counts>()
  readonly sent: Meter.Meter
  readonly received: Meter.Meter
  readonly published: Meter.Meter
  readonly delivered: Meter.Meter
  readonly meters: ReadonlyArray<Meter.Meter>

  constructor(kernel: Kernel, bounds: Meter.Bounds) {
    this.kernel = kernel
    this.bounds = bounds
    this.sent = Meter.make(MetricTable.mailboxSent, bounds)
    this.received = Meter.make(MetricTable.mailboxReceived, bounds)
    this.published = Meter.make(MetricTable.busPublished, bounds)
    this.delivered = Meter.make(MetricTable.busDelivered, bounds)
    this.meters = [this.sent, this.received, this.published, this.delivered]
  }

  /** A node is not visited any more. */
  gone(node: Node): void {
    this.count(node)
    this.seen.delete(node)
  }

  private count(node: Node): void {
    if (node.kind === "mailbox") this.countMailbox(node)
    else if (node.kind === "topic") this.countTopic(node)
  }

  private countMailbox(node: Node): void {
    const { accepted, dropped, received } = mailboxOf(node).flow
    const before = this.seen.get(node)
    if (before !== undefined && before[0] === accepted && before[1] === dropped && before[2] === received) return
    const [wasAccepted, wasDropped, wasReceived] = before ?? nothing
    const name = mailboxName(node)
    this.seen.set(node, [accepted, dropped, received, 0])
    this.sent.add([name, "accepted"], accepted - wasAccepted)
    // One that drops nothing has no series for it.
    if (dropped > wasDropped) this.sent.add([name, "dropped"], dropped - wasDropped)
    this.received.add([name], received - wasReceived)
  }

  private countTopic(node: Node): void {
    const { delivered, dropped, published, undelivered } = topicOf(node)
    const { name } = node
    const before = this.seen.get(node) ?? nothing
    this.seen.set(node, [published, delivered, dropped, undelivered])
    this.published.add([name], published - before[0])
    this.delivered.add([name, "accepted"], delivered - before[1])
    if (dropped > before[2]) this.delivered.add([name, "dropped"], dropped - before[2])
    if (undelivered > before[3]) this.delivered.add([name, "undelivered"], undelivered - before[3])
  }

  /** Visits every node, in slices. */
  readonly take = Effect.suspend(() => {
    const { bounds, kernel } = this
    const gauges = {
      heartbeats: Meter.make(MetricTable.routineHeartbeatAge, bounds),
      budgets: Meter.make(MetricTable.supervisorBudgetUtilization, bounds),
      usage: Meter.make(MetricTable.mailboxUsage, bounds),
      limit: Meter.make(MetricTable.mailboxLimit, bounds),
      utilization: Meter.make(MetricTable.mailboxUtilization, bounds),
      ages: Meter.make(MetricTable.mailboxMessageAge, bounds),
      subscriptions: Meter.make(MetricTable.busSubscriptions, bounds),
      lags: Meter.make(MetricTable.busSubscriptionLag, bounds),
      tasks: Meter.make(MetricTable.groupTaskActive, bounds),
      sagas: Meter.make(MetricTable.sagaActive, bounds)
    }
    const { ages, budgets, heartbeats, lags, limit, sagas, subscriptions, tasks, usage, utilization } = gauges
    const now = kernel.writer.now()

    const routine = (record: RoutineRecord) => {
      const age = record.heartbeatAge(now)
      if (age !== undefined) heartbeats.max([record.name], age / 1000)
      // A task waits for its slot, or runs.
      if (record.owner?.kind === "group" && record.status !== "pending") tasks.add([record.owner.name], 1)
    }

    /** By name: one look-up a mailbox, instead of one for each of its metrics. */
    const boxes = new Map<string, { usage: number; limit: number; utilization: number; age: number }>()
    const mailbox = (node: Node) => {
      const name = mailboxName(node)
      const view = mailboxOf(node)
      const { capacity, length } = view
      let box = boxes.get(name)
      if (box === undefined) boxes.set(name, box = { usage: 0, limit: 0, utilization: 0, age: 0 })
      box.usage += length
      box.limit += capacity
      box.utilization = Math.max(box.utilization, length / capacity)
      box.age = Math.max(box.age, view.oldestMillis(now) ?? 0)
    }

    const fill = () => {
      for (const [name, box] of boxes) {
        usage.add([name], box.usage)
        limit.add([name], box.limit)
        utilization.max([name], box.utilization)
        ages.max([name], box.age / 1000)
      }
      return gauges
    }

    const topic = (node: Node) => {
      const { inboxes, subscribers } = topicOf(node)
      const name = [node.name]
      subscriptions.add(name, subscribers)
      lags.max(name, 0)
      for (const { length } of inboxes) lags.max(name, length)
    }

    const visit = (node: Node) => {
      if (node instanceof RoutineRecord) return routine(node)
      this.count(node)
      if (node.kind === "mailbox") mailbox(node)
      else if (node.kind === "topic") topic(node)
      else if (node.kind === "group") tasks.add([node.name], 0)
      else if (node.kind === "saga") sagas.add([node.name], 1)
      else if (node.kind === "supervisor") budgets.max([node.name], budgetUtilization(budgetOf(node)))
    }

    return Effect.map(walk(kernel, visit, slice), fill)
  })
}

/** How much of a restart budget is used, 1 being all of it. A budget of no restarts is used up by the first. */
const budgetUtilization = (budget: { readonly used: number; readonly max: number }): number =>
  budget.max === 0 ? Math.min(budget.used, 1) : budget.used / budget.max

// What the nodes of each kind are is known to their packages; that they have these is tested.
const mailboxOf = (node: Node): Node & MailboxView => node as Node & MailboxView
const topicOf = (node: Node): Node & TopicView => node as Node & TopicView
const budgetOf = (node: Node) => (node as Node & { readonly budget: { used: number; max: number } }).budget
