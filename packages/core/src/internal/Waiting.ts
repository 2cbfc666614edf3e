/** Who waits for what becomes of a routine, and who is told of it. */
import type * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import type { RoutineRecord } from "../RoutineRecord.ts"
import type { RoutineSnapshot } from "../Snapshot.ts"
import { Waiters } from "../Writer.ts"

/** How many changes a stream may lag behind before it loses the oldest. */
const changesCapacity = 64

export class Waiting {
  readonly run = new Waiters<void>()
  readonly ready = new Waiters<void>()
  readonly asked = new Waiters<void>()
  drains: Array<Effect.Effect<void>> | undefined = undefined
  /**
   * Are told at once, before anybody who waits for it is woken, that the fiber of a run has ended or nobody waits for it
   * any more (`final` false), or that the routine has its final state: what it holds is not served for a turn longer.
   */
  watchers: Set<(final: boolean) => void> | undefined = undefined
  /** The runs that it no longer waits for, by number, each as a routine of its own until it ends. */
  left: Map<number, RoutineRecord> | undefined = undefined
  /** Annotates an interruption that came before there was a fiber. */
  interruption: Context.Context<never> | undefined = undefined
  private changes: Set<Queue.Queue<RoutineSnapshot, Cause.Done>> | undefined = undefined

  tellChange(record: RoutineRecord): void {
    if (this.changes === undefined || this.changes.size === 0) return
    const snapshot = record.snapshot()
    for (const queue of this.changes) Queue.offerUnsafe(queue, snapshot)
  }

  endChanges(): void {
    this.changes?.forEach((queue) => Queue.endUnsafe(queue))
    this.changes = undefined
  }

  /** The changes from now on, until the scope is closed. */
  subscribe(): Effect.Effect<Queue.Dequeue<RoutineSnapshot, Cause.Done>, never, Scope.Scope> {
    return Effect.acquireRelease(
      Effect.tap(
        Queue.sliding<RoutineSnapshot, Cause.Done>(changesCapacity),
        (queue) => Effect.sync(() => (this.changes ??= new Set()).add(queue))
      ),
      (queue) => Effect.sync(() => this.changes?.delete(queue))
    )
  }
}
