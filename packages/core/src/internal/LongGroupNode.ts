/**
 * A group whose tasks come and go in rounds: a join ends a round.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Tracer from "effect/Tracer"
import { GroupClosed } from "../CoreError.ts"
import { because, type Kernel, type Node, type StopLimits } from "../Kernel.ts"
import type { RoutineRecord } from "../RoutineRecord.ts"
import { GroupNode, type Settings } from "./GroupNode.ts"

export class LongGroupNode extends GroupNode {
  private closing = false

  constructor(place: readonly [Kernel, Node], settings: Settings, current: RoutineRecord | undefined) {
    super(place, settings, current)
    this.open()
  }

  /** Ends the round; whoever joins while it ends sees the same. */
  readonly join: Effect.Effect<unknown, unknown> = Effect.withFiber(({ cache: { span } }) =>
    Effect.callback((resume) => this.joined(span, resume))
  )

  private joined(
    span: Tracer.AnySpan | undefined,
    resume: (outcome: Effect.Effect<unknown, unknown>) => void
  ): Effect.Effect<void> | void {
    const { endWaiters, kernel: { writer } } = this
    if (this.outcome !== undefined) return resume(Effect.failCause(this.stopped ?? Cause.interrupt()))
    const first = endWaiters.isEmpty
    const waiter = (outcome: Effect.Effect<unknown, unknown>) => {
      this.told = true
      resume(outcome)
    }
    endWaiters.add(waiter)
    if (first) {
      this.began = writer.now()
      this.joiningSpan = span
      writer.submit({
        run: () => {
          if (endWaiters.isEmpty) return
          this.arm()
          this.endBody(Exit.void)
        }
      })
    }
    return Effect.sync(() => {
      endWaiters.delete(waiter)
      if (!endWaiters.isEmpty || this.closing) return
      this.bodyExit = undefined
      writer.cancel(this.timeout)
    })
  }

  /** Its own end is nobody's result. */
  protected override telling(outcome: Effect.Effect<unknown, unknown>): Effect.Effect<unknown, unknown> {
    return this.endWaiters.isEmpty ? outcome : super.telling(outcome)
  }

  protected override finish(outcome: Effect.Effect<unknown, unknown>): void {
    if (this.closing) return super.finish(outcome)
    const { writer } = this.kernel
    writer.cancel(this.timeout)
    this.stopped = this.cause = this.bodyExit = undefined
    this.behind = []
    this.told = false
    this.before = this.forked
    this.open()
    this.move("running")
    this.endWaiters.wake(writer, outcome)
  }

  /** Interrupts and awaits everything. A failure that nobody has seen is logged. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    const { cause } = this
    const closed = Cause.fail(new GroupClosed({ group: this.path })) as Cause.Cause<never>
    if (cause === undefined) this.fail(closed, because("scope_closed", this))
    this.stopped = closed
    this.end()
    const unseen = cause !== undefined && !this.told && !Cause.hasInterruptsOnly(cause)
    const log = unseen ? Effect.logError(`${this.path} failed and nobody joined it`, cause) : Effect.void
    return Effect.andThen(this.ended, log)
  })

  override stop(limits: StopLimits): Effect.Effect<void> | undefined {
    const stopping = super.stop(limits)
    this.end()
    return stopping
  }

  /** There is no further round. */
  private end(): void {
    this.closing = true
    this.bodyExit ??= Exit.void
    this.check()
  }
}
