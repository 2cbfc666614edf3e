/**
 * One orderly change: stop some children, wait for the backoff of those that failed, start them again, each as soon as
 * those that it waits for are ready.
 *
 * It runs in no fiber: every step is a job of the writer, and what it waits for calls back.
 *
 * @internal
 */
import type { Deadline, Job } from "@effect-orchestra/core/Writer"
import type * as Context from "effect/Context"
import type * as Exit from "effect/Exit"
import { type Chain, type Walk, walk } from "../Restart.ts"
import type { Answer, Slot } from "./Slot.ts"
import type { SupervisorNode } from "./SupervisorNode.ts"

export interface Plan {
  /** In start order. */
  readonly members: ReadonlyArray<Slot>
  /** Those whose failure it is about. */
  readonly offenders: ReadonlyArray<Slot>
  /** Whether it is the first start, a start by hand, or a restart. */
  readonly kind: "first" | "command" | "restart"
  /** The monotonic time until which it waits, when that is known. */
  readonly until?: number | undefined
  /** Whether its only member still runs, and is to be stopped first. */
  readonly halts?: boolean | undefined
  /** Why the members are stopped, when that is not for a failure. */
  readonly by?: Context.Context<never> | undefined
}

export class Round implements Job {
  private readonly node: SupervisorNode
  readonly members: ReadonlyArray<Slot>
  readonly kind: Plan["kind"]
  private offenders: ReadonlyArray<Slot>
  private walk: Walk | Chain | undefined = undefined
  private phase: "stopping" | "delaying" | "backoff" | "starting" | "ended" = "stopping"
  /** The monotonic time until which it waits in its backoff. */
  until: number | undefined
  private deadline: Deadline | undefined = undefined
  private delayMillis: number | undefined = undefined
  private readonly halts: boolean
  readonly by: Context.Context<never> | undefined

  constructor(node: SupervisorNode, { by, halts, kind, members, offenders, until }: Plan) {
    this.node = node
    this.members = members
    this.offenders = offenders
    this.kind = kind
    this.until = until
    this.halts = halts === true
    this.by = by
    for (let position = 0; position < members.length; position++) {
      const slot = members[position]
      if (slot === undefined) continue
      slot.round = this
      slot.position = position
    }
  }

  /** Whether it only waits, so that another round may take its place. */
  get isWaiting(): boolean {
    return this.phase === "backoff" || this.kind === "command"
  }

  /** Those of its members that nobody has taken out of it. */
  get staying(): ReadonlyArray<Slot> {
    return this.members.filter((slot) => slot.wanted && slot.round === this)
  }

  get offends(): ReadonlyArray<Slot> {
    return this.offenders
  }

  /** The first step, or the end of the backoff. */
  run(): void {
    switch (this.phase) {
      case "stopping":
        if (this.kind !== "restart" || (this.members.length === 1 && !this.halts)) return this.backOff()
        this.walk = this.walks("reverse")
        return this.stopNext(this.walk)
      case "backoff":
        // Who came meanwhile takes part.
        if (!this.node.restarts.widens(this)) this.startAll()
    }
  }

  /** Whether it waits for its backoff: then that is over now. */
  hurry(): boolean {
    if (this.phase !== "backoff") return false
    this.node.writer.cancel(this.deadline)
    this.run()
    return true
  }

  private walks(direction: "forward" | "reverse"): Walk | Chain {
    const { node, node: { strategy } } = this
    return walk(strategy, strategy === "dependency" ? node.all : this.members, this.members, direction)
  }

  private stopNext(walk: Walk | Chain): void {
    for (let at = walk.next(); at !== undefined; at = walk.next()) {
      const slot = this.members[at]
      // Stopped and started again by hand meanwhile, it is none of this round any more.
      if (slot === undefined || !slot.isLive || (slot.round !== this && slot.wanted)) walk.done(at)
      else this.node.stops.halt(slot, this, at)
    }
    if (walk.left === 0 && this.phase === "stopping") this.backOff()
  }

  /** What ran of the member at this position is gone. */
  halted(position: number): void {
    if (this.phase !== "stopping" || this.walk === undefined) return
    this.walk.done(position)
    this.stopNext(this.walk)
  }

  private backOff(): void {
    if (this.until !== undefined) return this.wait(this.until - this.node.writer.now())
    if (this.kind !== "restart") return this.startAll()
    if (this.offenders.every((slot) => slot.policy.spec.backoff === undefined)) {
      this.delayMillis = 0
      return this.startAll()
    }
    this.phase = "delaying"
    this.node.restarts.delay(this.offenders, (delay) => {
      if (this.phase !== "delaying") return
      if (typeof delay === "number") this.wait(delay)
      else this.node.restarts.exhausted(this, delay)
    })
  }

  private wait(delay: number): void {
    this.delayMillis = Math.max(0, delay)
    if (this.delayMillis === 0) return this.startAll()
    this.phase = "backoff"
    this.until ??= this.node.writer.now() + delay
    this.node.waits(this, delay)
    this.deadline = this.node.writer.after(delay, this)
    this.node.restarts.act()
  }

  private startAll(): void {
    this.phase = "starting"
    this.until = undefined
    // Also where nobody is left whose backoff there would be, what starts again is a restart.
    if (this.kind === "restart") this.delayMillis ??= 0
    this.walk = this.members.length > 1 ? this.walks("forward") : undefined
    this.startNext()
  }

  private startNext(): void {
    const { walk } = this
    if (walk === undefined) {
      const [slot] = this.members
      return slot === undefined || !this.starts(slot) ? this.end() : undefined
    }
    for (let at = walk.next(); at !== undefined; at = walk.next()) {
      const slot = this.members[at]
      if (slot === undefined || !this.starts(slot)) walk.done(at)
    }
    if (walk.left === 0) this.end()
  }

  private starts(slot: Slot): boolean {
    if (!slot.wanted || slot.round !== this || !this.node.restarts.holds(slot)) return false
    this.node.starts.launch(slot, this, this.delayMillis)
    return true
  }

  /** The start of a member has come to its end. */
  started(slot: Slot, answer: Answer): void {
    if (this.phase !== "starting" || slot.round !== this) return
    if (answer === "ready" || answer === "ignored" || answer === "stopped") this.pass(slot)
    else if (answer !== "closed") this.fail(slot, answer)
  }

  /** A member is through. */
  private pass(slot: Slot): void {
    this.walk?.done(slot.position)
    if (this.walk === undefined) return this.end()
    this.startNext()
    this.node.restarts.next()
  }

  private fail(slot: Slot, exit: Exit.Exit<unknown, unknown>): void {
    if (slot.command !== undefined && this.kind !== "first") {
      // Whoever asked for this start takes it back, and nobody restarts it: the others go on without it.
      slot.round = undefined
      this.node.startFailed(this, slot, exit)
      return this.pass(slot)
    }
    for (const at of this.walk?.fail(slot.position) ?? [slot.position]) {
      const out = this.members[at]
      if (out === undefined) continue
      out.round = undefined
      if (out !== slot) this.node.restarts.holds(out)
    }
    this.node.startFailed(this, slot, exit)
    if (this.phase === "starting" && (this.walk === undefined || this.walk.left === 0)) this.end()
  }

  /** A member that is not to run any more: the others go on without it. */
  drop(slot: Slot): void {
    slot.round = undefined
    this.offenders = this.offenders.filter((offender) => offender !== slot)
    if (this.phase === "starting") {
      // Before its turn it is passed over when that comes.
      if (this.walk === undefined || this.walk.isFree(slot.position)) this.pass(slot)
      return
    }
    // Nobody is left whose backoff it is, so nobody waits for it.
    if (this.offenders.length > 0 || (this.phase !== "backoff" && this.phase !== "delaying")) return
    this.node.writer.cancel(this.deadline)
    this.startAll()
  }

  private end(): void {
    this.clear()
    this.node.ended(this)
    this.node.kernel.observers?.settled?.(this.node)
  }

  /** It ends where it is: nothing that it waits for moves it on. */
  cancel(): void {
    this.clear()
  }

  private clear(): void {
    this.phase = "ended"
    this.until = undefined
    this.node.writer.cancel(this.deadline)
    for (const slot of this.members) if (slot.round === this) slot.round = undefined
  }
}
