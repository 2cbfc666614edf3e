/**
 * How the children of a supervisor are stopped: in which order, within what bounds, for good or to run again.
 *
 * @internal
 */
import { because, type StopLimits, unbounded } from "@effect-orchestra/core/Kernel"
import type { Stopper } from "@effect-orchestra/core/RoutineRecord"
import type { Job } from "@effect-orchestra/core/Writer"
import { walk } from "../Restart.ts"
import type { Round } from "./Round.ts"
import type { Slot } from "./Slot.ts"
import type { SupervisorNode } from "./SupervisorNode.ts"

/** So many children are stopped at once. */
const stopsAtOnce = 1000

/** The stop of a child for good: it ends, misses its bound, or misses a tighter one that came later. */
export class End implements Stopper, Job {
  private readonly slot: Slot
  private readonly told: () => void
  /** An earlier stop of the same child. */
  private readonly before: End | undefined
  private isOver = false

  constructor(slot: Slot, then: () => void) {
    this.slot = slot
    this.told = then
    this.before = slot.ending
  }

  missed(waitedMillis: number): void {
    this.slot.record.abandon(waitedMillis)
  }

  gone(): void {
    this.slot.node.writer.submit(this)
  }

  run(): void {
    this.before?.run()
    if (this.isOver) return
    this.isOver = true
    this.told()
  }
}

/** The stop of a member of a round that starts it again. */
class Halt implements Stopper, Job {
  private readonly slot: Slot
  private readonly round: Round
  private readonly position: number

  constructor(slot: Slot, round: Round, position: number) {
    this.slot = slot
    this.round = round
    this.position = position
  }

  missed(waitedMillis: number): void {
    const { slot } = this
    if (slot.wanted) return slot.node.starts.overdue(slot, waitedMillis)
    slot.record.abandon(waitedMillis)
    slot.node.retire(slot)
  }

  gone(): void {
    this.slot.node.writer.submit(this)
  }

  run(): void {
    this.round.halted(this.position)
  }
}

export class Stops {
  private readonly node: SupervisorNode
  /** How long the stop of all may take, once they are being stopped. */
  limits: StopLimits = unbounded

  /** The limits of a stop after which the child runs again. */
  private readonly restarting: StopLimits

  constructor(node: SupervisorNode) {
    this.node = node
    this.restarting = { ...unbounded, by: because("restart", node), told: true }
  }

  /** Stops what runs of a child that is to run again, or of a temporary one for good; then tells the round. */
  halt(slot: Slot, round: Round, position: number): void {
    const { record } = slot
    if (slot.policy.restart === "temporary") {
      slot.wanted = false
      slot.doomed = true
      slot.tell()
      slot.answer("stopped")
    }
    this.node.restarts.delete(slot)
    this.node.starts.settle(slot, slot.start, "closed")
    const limits = round.by === undefined ? this.restarting : { ...this.restarting, by: round.by }
    const stopper = new Halt(slot, round, position)
    if (record.isClosing) record.endThen(this.limitsOf(slot, limits), stopper)
    else this.stopRun(slot, limits, stopper)
  }

  /** Stops a child for good. */
  end(slot: Slot, limits: StopLimits, gone: () => void): void {
    const { record } = slot
    if (record.isFinal) return gone()
    if (record.scope === undefined) {
      record.settle(slot.lastExit)
      return gone()
    }
    slot.ending = new End(slot, gone)
    this.stopRun(slot, limits, slot.ending)
  }

  /** A supervisor below ends by itself, within the same bounds; else nothing of it would be told. */
  private stopRun(slot: Slot, given: StopLimits, stopper: Stopper): void {
    const { nested, record } = slot
    const limits = this.limitsOf(slot, given)
    if (nested === undefined) return record.stopThen(limits, stopper)
    const deadline = Math.min(limits.deadline, this.node.writer.now() + limits.interrupt)
    const left = { ...given, deadline }
    record.stopThen({ ...limits, interrupt: unbounded.interrupt, deadline: Infinity }, stopper, (ended) => {
      if (nested.isEnded) return ended()
      nested.endWaiters.add(() => this.node.submit(ended))
      this.node.submit(() => nested.shutDown(left))
    })
  }

  /** Waits for the end of a run that ends, within its bound. */
  whenEnded(slot: Slot, limits: StopLimits, then: () => void): void {
    const { record } = slot
    if (record.scope === undefined || record.isFinal) return then()
    record.endThen(this.limitsOf(slot, limits), {
      missed: (waited) => record.abandon(waited),
      gone: () => this.node.submit(then)
    })
  }

  /** Less time is left than was thought. */
  tighten(limits: StopLimits): void {
    if (this.node.isEnded || limits.deadline >= this.limits.deadline) return
    this.limits = { ...this.limits, deadline: limits.deadline }
    for (const slot of this.node.all) {
      if (slot.nested !== undefined) slot.nested.shutDown(this.limits)
      else if (slot.record.stopping) this.whenEnded(slot, this.limits, () => slot.ending?.run())
    }
  }

  /** Stops these for good, each when those that stand on it are gone. */
  all(slots: ReadonlyArray<Slot>, then: () => void): void {
    if (this.node.spec.isDynamic === true) return this.together(slots, then)
    const order = walk(this.node.strategy, slots, slots, "reverse")
    let isLooping = false
    const next = () => {
      if (isLooping) return
      isLooping = true
      for (let at = order.next(); at !== undefined; at = order.next()) {
        const slot = slots[at]
        const position = at
        if (slot === undefined) continue
        this.end(slot, this.limits, () => {
          order.done(position)
          next()
        })
      }
      isLooping = false
      if (order.left === 0 && !this.node.isEnded) then()
    }
    next()
  }

  /** Those that need no other, in slices: the process answers meanwhile, and what a slice leaves is garbage while it is young. */
  private together(slots: ReadonlyArray<Slot>, then: () => void): void {
    let left = slots.length + 1
    const gone = () => {
      if (--left === 0) then()
    }
    const slice = (from: number) => {
      for (const slot of slots.slice(from, from + stopsAtOnce)) {
        this.node.close(slot)
        this.end(slot, this.limits, gone)
      }
      if (from + stopsAtOnce >= slots.length) gone()
      else this.node.writer.wake({ run: () => slice(from + stopsAtOnce) })
    }
    slice(0)
  }

  /** What the child's own `shutdown` makes of them. */
  limitsOf(slot: Slot, limits: StopLimits): StopLimits {
    const { bound } = slot.policy
    if (slot.record.isStuck || bound === 0) return { ...limits, grace: 0, interrupt: 0 }
    return limits.interrupt === bound ? limits : { ...limits, interrupt: bound }
  }
}
