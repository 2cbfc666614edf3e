/**
 * A dynamic supervisor that runs, and how its children get into it.
 *
 * @internal
 */
import { path } from "@effect-orchestra/core/Kernel"
import type { Routine } from "@effect-orchestra/core/Routine"
import type { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"
import type * as Child from "../Child.ts"
import type { DynamicRef, DynamicSupervisor } from "../DynamicSupervisor.ts"
import { MaxChildren, type StartFailure, type SupervisorNotRunning } from "../SupervisorError.ts"
import * as Operations from "./Operations.ts"
import { ChildRecord, Policy, type Slot } from "./Slot.ts"
import type { SupervisorNode } from "./SupervisorNode.ts"

/** What every start may fail with. */
export type Refusal = Effect.Effect<never, MaxChildren | SupervisorNotRunning>

export class DynamicChildren implements DynamicRef<unknown, never, never> {
  declare readonly "~effect-orchestra/supervisor/DynamicSupervisor": DynamicRef<
    unknown,
    never,
    never
  >["~effect-orchestra/supervisor/DynamicSupervisor"]
  readonly spec: DynamicSupervisor<unknown, unknown, unknown, unknown>
  readonly node: SupervisorNode
  readonly effect: Policy
  readonly layer: Policy
  /** What the children were started with, where that is kept. */
  readonly args = new Map<number, unknown>()

  constructor(spec: DynamicSupervisor<unknown, unknown, unknown, unknown>, node: SupervisorNode) {
    this.spec = spec
    this.node = node
    this.effect = new Policy("Effect", spec.childSpec, true)
    this.layer = new Policy("Layer", spec.childSpec, true)
  }

  get id(): string {
    return this.node.id
  }

  get name(): string {
    return this.node.name
  }

  /** Why no child can be started now. */
  get refusal(): Refusal | undefined {
    const { node, spec: { maxChildren } } = this
    if (node.isStopping) return Operations.refused(node)
    return node.size < maxChildren
      ? undefined
      : Effect.fail(new MaxChildren({ supervisor: path(node), maxChildren }))
  }

  /** Takes a child in. It has no id but the number of its routine. */
  add(body: Child.Body, context: Context.Context<never> = this.node.context): Slot {
    return this.node.addAnonymous(body, body._tag === "Layer" ? this.layer : this.effect, context)
  }

  /** The child that runs as this routine. */
  find(routine: Routine<unknown, unknown>): Slot | undefined {
    return routine instanceof ChildRecord && routine.slot.node === this.node ? routine.slot : undefined
  }

  private addWith(body: Child.Body, arg: unknown, span?: Tracer.AnySpan): Slot {
    const { context, kernel: { observers } } = this.node
    const isTold = observers?.starting !== undefined && span !== undefined
    const slot = this.add(body, isTold ? Context.add(context, Tracer.ParentSpan, span) : context)
    const { number } = slot.record
    if (!this.spec.restore) return slot
    this.args.set(number, arg)
    slot.record.ended.add(() => this.args.delete(number))
    return slot
  }

  private bodyOf(arg: unknown): Child.Body {
    const made = this.spec.child(arg)
    return Effect.isEffect(made) ? { _tag: "Effect", effect: made } : { _tag: "Layer", layer: made }
  }

  /** Starts a child, and returns its routine when it is ready. */
  start(arg: unknown): Effect.Effect<Routine<unknown, unknown>, StartFailure | MaxChildren | SupervisorNotRunning> {
    return Effect.withFiber(({ cache: { span } }): ReturnType<DynamicChildren["start"]> => {
      const { node, refusal } = this
      if (refusal !== undefined) return refusal
      const body = this.bodyOf(arg)
      if (body._tag === "Effect" && this.effect.readyNow) return Effect.succeed(this.now(this.addWith(body, arg, span)))
      // What was asked for at the same time may have come first.
      return Operations.startAnonymous(node, () => this.refusal ?? this.addWith(body, arg, span))
    })
  }

  /** Starts a child that nobody waits for; `failed` is told when it does not start, `gone` when nothing of it is left. */
  startUnattended(arg: unknown, failed: (cause: Cause.Cause<unknown>) => void, gone: () => void): void {
    const slot = this.addWith(this.bodyOf(arg), arg)
    onGone(slot.record, gone)
    if (slot.policy.readyNow) this.now(slot)
    else Operations.startUnattended(this.node, slot, failed)
  }

  /** Starts the run of a child on the spot. */
  now(slot: Slot): RoutineRecord {
    this.node.starts.now(slot)
    return slot.record
  }
}

/** An abandoned one takes its place until it has ended after all. */
const onGone = (record: RoutineRecord, gone: () => void): void => {
  record.ended.add(() => void (record.scope === undefined ? gone() : record.onRunEnd(gone)))
}
