/**
 * A group whose results are read one by one, in fork order. A task keeps its slot until its result is read.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type { RoutineRecord } from "../RoutineRecord.ts"
import { Waiters, waitFor } from "../Writer.ts"
import { GroupNode, type TaskRecord } from "./GroupNode.ts"

export class StreamNode extends GroupNode {
  private readonly unread = new Set<TaskRecord>()
  private readonly changed = new Waiters<void>()

  protected override open(): void {
    super.open()
    this.kept = this.unread
  }

  override closed(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>, now: number): void {
    // One that was stopped has nothing to read.
    if (Exit.isSuccess(exit)) this.held++
    super.closed(record, exit, now)
    this.changed.wake(this.kernel.writer, undefined)
  }

  protected override finish(outcome: Effect.Effect<unknown, unknown>): void {
    super.finish(outcome)
    this.changed.wake(this.kernel.writer, undefined)
  }

  /** The next result in fork order. Done when the body has ended and all is read; fails with the group. */
  readonly pull: Effect.Effect<readonly [unknown], unknown> = Effect.suspend(() => {
    for (const task of this.unread) {
      if (this.cause !== undefined || task.exit === undefined) break
      this.unread.delete(task)
      if (!Exit.isSuccess(task.exit)) continue
      this.held--
      this.fill()
      return Effect.succeed([task.exit.value] as const)
    }
    const { outcome } = this
    if (outcome !== undefined) return Effect.andThen(outcome, Cause.done())
    return Effect.andThen(waitFor(this.changed, () => this.isReadable ? Effect.void : undefined), this.pull)
  })

  private get isReadable(): boolean {
    const [next] = this.unread
    return this.outcome !== undefined || (this.cause === undefined && next?.exit !== undefined)
  }
}
