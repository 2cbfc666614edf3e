/**
 * How the children of a supervisor are started: when, with what, how long it may take, and how it ends.
 *
 * @internal
 */
import { NotReady } from "@effect-orchestra/core/CoreError"
import { because, descendants, type Kernel, path, unbounded } from "@effect-orchestra/core/Kernel"
import { type RoutineRecord, withoutSpan } from "@effect-orchestra/core/RoutineRecord"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Scope from "effect/Scope"
import type { Any } from "../Supervisor.ts"
import { build } from "./Build.ts"
import { type Exports, exportsOf } from "./Exports.ts"
import type { Round } from "./Round.ts"
import { type Answer, ChildRecord, type Slot, Start } from "./Slot.ts"
import type { SupervisorNode } from "./SupervisorNode.ts"

export class Starts {
  private readonly node: SupervisorNode
  /** How a supervisor is run as a child. */
  private readonly nested: (spec: Any, slot: Slot) => Effect.Effect<void, unknown>
  /** What the children see of each other, from the first start on. */
  private exports: Exports | undefined = undefined
  /** How many restarts are under way, and which wait for their turn. */
  private restarting = 0
  private readonly line = new Set<() => void>()

  constructor(node: SupervisorNode, nested: (spec: Any, slot: Slot) => Effect.Effect<void, unknown>) {
    this.node = node
    this.nested = nested
  }

  /**
   * Starts a child for the round that it is in, when nothing of it runs any more; `delayMillis` is the backoff before a
   * restart.
   */
  launch(slot: Slot, round: Round, delayMillis: number | undefined): void {
    if (slot.record.scope !== undefined && !this.replaced(slot)) {
      slot.blocked = this.later(slot, round, delayMillis)
      return this.boundEnd(slot)
    }
    const left = slot.policy.spec.onUnstoppable === "wait" ? abandonedBelow(slot.record) : undefined
    if (left !== undefined) {
      const later = this.later(slot, round, delayMillis)
      return void left.onRunEnd(() => this.node.submit(later))
    }
    if (delayMillis !== undefined) {
      if (this.restarting >= this.node.spec.concurrentRestarts) {
        return void this.line.add(this.later(slot, round, delayMillis))
      }
      this.restarting++
    }
    slot.start = new Start(slot, round, delayMillis)
    this.node.writer.wake(slot.start)
  }

  private later(slot: Slot, round: Round, delayMillis: number | undefined): () => void {
    return () =>
      slot.round === round && slot.wanted ? this.launch(slot, round, delayMillis) : round.started(slot, "stopped")
  }

  /** Whose turn it is to be restarted. */
  private next(): void {
    for (const again of this.line) {
      if (this.restarting >= this.node.spec.concurrentRestarts) return
      this.line.delete(again)
      again()
    }
  }

  /** How long the end of the run before may take is the rule of its stop. */
  private boundEnd(slot: Slot): void {
    const { record } = slot
    if (!record.isClosing || record.isStuck) return
    const limits = this.node.stops.limitsOf(slot, unbounded)
    const stopper = { missed: (waited: number) => this.overdue(slot, waited), gone: () => {} }
    this.node.writer.wake({ run: () => record.endThen(limits, stopper) })
  }

  run(start: Start): void {
    const { slot } = start
    if (slot.start !== start) return
    if (this.node.isStopping || !slot.wanted) return this.settle(slot, start, "stopped")
    const { readyNow, startTimeout } = slot.policy
    this.node.restarts.delete(slot)
    this.now(slot, start.delayMillis)
    if (readyNow) return this.settle(slot, start, "ready")
    if (startTimeout !== Infinity && slot.start === start) this.bound(start, startTimeout)
  }

  private bound(start: Start, startTimeout: number): void {
    const { writer } = this.node
    const asked = writer.now()
    start.deadline = writer.after(startTimeout, { run: () => this.tooLate(start.slot, start, asked) })
  }

  /** Starts a run on the spot: not within a decision. */
  now(slot: Slot, delayMillis?: number): void {
    const { policy, record } = slot
    const isFirst = record.incarnation === 0
    const isLayer = slot.body?._tag === "Layer"
    const effect = this.effectOf(slot)
    // A child that never runs again does not keep what it was started with.
    if (policy.restart === "temporary") slot.body = undefined
    this.exports ??= exportsOf(this.node)
    record.start(effect, this.exports.contextOf(policy.spec, slot.context), {
      readyNow: policy.readyNow,
      linkForks: isLayer,
      // A later run must not find what the run before has left in its scope.
      scope: isFirst && !isLayer ? undefined : Scope.makeUnsafe(),
      begun: delayMillis === undefined || isFirst ? undefined : this.restarted(slot, delayMillis)
    })
  }

  /** A start is over; `start` says which, for it may have been given up before. */
  settle(slot: Slot, start: Start | undefined, answer: Answer): void {
    if (start === undefined || slot.start !== start) return
    slot.start = undefined
    this.node.writer.cancel(start.deadline)
    if (answer === "ready" && slot.nested !== undefined) slot.tell()
    if (answer === "ready" || answer === "ignored") slot.answer(answer)
    if (start.delayMillis !== undefined) {
      this.restarting--
      this.next()
    }
    start.round.started(slot, answer)
  }

  /** Nothing that waits for its turn is started any more. */
  clear(): void {
    this.line.clear()
  }

  /** A start that cannot be interrupted fails on time all the same; what is left of it stays listed as stuck. */
  private tooLate(slot: Slot, start: Start, asked: number): void {
    if (slot.start !== start) return
    const { record } = slot
    const { writer } = this.node
    const waitedMillis = writer.now() - asked
    const late = Exit.fail(
      new NotReady({ path: path(record), reason: "timeout", waitedMillis: Math.round(waitedMillis) })
    )
    start.late = late
    record.interruptRun(because("not_ready", this.node))
    const stillThere = () => {
      if (slot.start !== start) return
      if (record.scope !== undefined) this.overdue(slot, waitedMillis)
      this.settle(slot, start, late)
    }
    // Behind the interruption, and what ends on the spot.
    writer.wake({ run: () => writer.nextTurn({ run: stillThere }) })
  }

  private effectOf(slot: Slot): Effect.Effect<unknown, unknown> {
    const { body } = slot
    switch (body?._tag) {
      // What the child requires stands in the context that it is started with: the types saw to it.
      case "Effect":
        return body.effect as Effect.Effect<unknown, unknown>
      case "Layer":
        return build(
          body.layer as Layer.Layer<never, unknown>,
          (services) => {
            slot.services = services
            slot.tell()
          },
          slot.policy.spec.linkForks
        )
      case "Supervisor":
        return this.nested(body.spec, slot)
      case undefined:
        return Exit.die(new Error(`temporary child "${slot.id}" was started twice`))
    }
  }

  /** What a probe of a child sees: what the child was started with, and what its layer gives. */
  servicesOf({ context, policy, services }: Slot): Context.Context<never> {
    const given = exportsOf(this.node).contextOf(policy.spec, context)
    return services === undefined ? given : Context.merge(given, services)
  }

  /** A restart is counted, and told when it has its number. */
  private restarted({ reason, record }: Slot, delayMillis: number): (() => void) | undefined {
    const { node } = this
    const { bus, observers } = node.kernel
    record.past.restarts++
    record.template.restarts++
    if (!bus.observed && observers === undefined) return undefined
    return () => {
      observers?.restarted?.(record, node, reason, delayMillis)
      if (bus.observed) bus.emit("Restarted", record, { supervisor: node.name, reason, delayMillis })
    }
  }

  /** A run ignores its interruption: the next waits for it, or takes its place. */
  overdue(slot: Slot, waitedMillis: number): void {
    const { blocked, record } = slot
    if (!record.isStuck) {
      record.vitals.stuck = true
      if (this.node.kernel.bus.observed) this.node.kernel.bus.emit("Stuck", record, { waitedMillis })
    }
    if (slot.policy.spec.onUnstoppable === "wait" || blocked === undefined) return
    slot.blocked = undefined
    blocked()
  }

  private replaced({ policy, record }: Slot): boolean {
    if (policy.spec.onUnstoppable === "wait" || !record.isStuck) return false
    record.leave(this.beside(record))
    return true
  }

  /** Tells that the next run starts beside one that goes on, and returns how long that one was waited for. */
  beside(record: RoutineRecord): number {
    const waitedMillis = record.askedAt === undefined ? 0 : this.node.writer.now() - record.askedAt
    if (this.node.kernel.bus.observed) this.node.kernel.bus.emit("Replaced", record, { waitedMillis })
    return waitedMillis
  }
}

/** A child of a supervisor below that was abandoned there: no run that would start it again stands beside it. */
const abandonedBelow = (record: RoutineRecord): RoutineRecord | undefined =>
  record.children?.isEmpty === false
    ? descendants(record).find((node): node is ChildRecord =>
      node instanceof ChildRecord && node.isFinal && node.scope !== undefined &&
      node.slot.policy.spec.onUnstoppable === "wait"
    )
    : undefined

/** What is left of a child that does not run, if no other run may stand beside it. @internal */
export const standing = ({ isLive, policy, record }: Slot): "stopping" | "abandoned" | undefined => {
  if (isLive && !record.isFinal) return "stopping"
  if (policy.spec.onUnstoppable === "replace") return undefined
  return isLive || abandonedBelow(record) !== undefined ? "abandoned" : undefined
}

/**
 * A child builds its layers with a memo map of its own, whatever its supervisor is built with. Where its `kernel` has
 * observers they are told of the span of whoever starts it.
 *
 * @internal
 */
export const inherited = (context: Context.Context<never>, kernel?: Kernel): Context.Context<never> =>
  Context.omit(Scope.Scope, Layer.CurrentMemoMap)(
    kernel?.observers?.starting === undefined ? withoutSpan(context) : context
  ) as Context.Context<never>
