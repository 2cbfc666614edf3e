/** The spans of groups. */
import { reasonOf } from "@effect-orchestra/core/Event"
import type { Kernel, Node } from "@effect-orchestra/core/Kernel"
import { errorTypeOf, type GroupEnd, type Observer } from "@effect-orchestra/core/Observer"
import type * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Exit from "effect/Exit"
import * as Tracer from "effect/Tracer"
import * as Attributes from "../Attributes.ts"
import type { Tracing } from "./Tracing.ts"

export class GroupSpans implements Observer {
  private readonly kernel: Kernel
  private readonly tracing: Tracing
  private readonly open = new Map<Node, Tracer.Span>()

  constructor(kernel: Kernel, tracing: Tracing) {
    this.kernel = kernel
    this.tracing = tracing
  }

  /** The body of a group begins. Its tasks are forked within its span. */
  begin(group: Node, context: Context.Context<never>): Context.Context<never> {
    if (!this.tracing.isOn(context)) return context
    const span = this.tracing.make(context, {
      name: `wait ${group.name}`,
      parent: Context.getOrUndefined(context as Context.Context<Tracer.ParentSpan>, Tracer.ParentSpan),
      attributes: attributesOf(group)
    })
    if (span === undefined) return context
    this.open.set(group, span)
    return Context.add(context, Tracer.ParentSpan, span)
  }

  failing(group: Node, cause: Cause.Cause<unknown>): void {
    const span = this.open.get(group)
    if (span === undefined) return
    const at = this.tracing.now()
    const exit = Exit.failCause(cause)
    const type = errorTypeOf(reasonOf(exit), exit)
    this.tracing.later(() =>
      span.event("first_failure", at, type === undefined ? undefined : { [Attributes.errorType]: type })
    )
  }

  grouped(group: Node, end: GroupEnd): void {
    const at = this.tracing.now()
    const attributes = { [Attributes.groupSize]: end.size, [Attributes.outcome]: reasonOf(end.exit) }
    const span = this.open.get(group)
    if (span !== undefined) {
      this.open.delete(group)
      return this.tracing.later(() => {
        for (const [key, value] of Object.entries(attributes)) span.attribute(key, value)
        span.end(at, end.exit)
      })
    }
    // A round of a long-lived group: its tasks belong to whoever forked them.
    const context = this.tracing.around
    if (context === undefined) return
    const options = {
      name: `wait ${group.name}`,
      parent: end.span,
      attributes: { ...attributesOf(group), ...attributes },
      at: at - BigInt(Math.round(end.waitMillis * 1_000_000)),
      until: at,
      exit: end.exit
    }
    this.tracing.later(() => this.tracing.made(context, options))
  }

  /** Its end is told before, or in the same turn by whoever waits for it; of one that is interrupted there, by nobody. */
  removed(node: Node): void {
    if (!this.open.has(node)) return
    this.kernel.writer.nextTurn({ run: () => this.kernel.writer.nextTurn({ run: () => this.cut(node) }) })
  }

  close(): void {
    for (const group of this.open.keys()) this.cut(group)
  }

  private cut(group: Node): void {
    const span = this.open.get(group)
    this.open.delete(group)
    const at = this.tracing.now()
    if (span !== undefined) this.tracing.later(() => span.end(at, Exit.interrupt()))
  }
}

const attributesOf = (group: Node): Record<string, unknown> => {
  const snapshot = group.snapshot()
  const concurrency = snapshot.kind === "group" ? snapshot.concurrency ?? "unbounded" : undefined
  return { [Attributes.groupName]: group.name, [Attributes.groupConcurrency]: concurrency }
}
