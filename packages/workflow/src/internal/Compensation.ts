/** How a saga goes back: its undos in their order, each tried again and bounded, and what became of them. */
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Tracer from "effect/Tracer"
import { CompensationTimedOut } from "../WorkflowError.ts"
import { bounded, grace } from "./Bound.ts"
import { Attempts, type Entry, type SagaNode, type Settings, type Undo } from "./SagaNode.ts"
import { spanned, withParent } from "./Span.ts"

/** One way back: what is undone is named by the path of its step in the saga. */
export class Compensation {
  private readonly node: SagaNode
  private readonly cause: Cause.Cause<unknown>
  private readonly span: Tracer.AnySpan
  readonly undone: Array<string> = []
  readonly stuck: Array<{ readonly step: string; readonly cause: Cause.Cause<unknown> }> = []
  readonly notRun: Array<string> = []

  constructor(node: SagaNode, cause: Cause.Cause<unknown>, span: Tracer.AnySpan) {
    this.node = node
    this.cause = cause
    this.span = span
  }

  /** Undoes it all. Returns whether anything is stuck. */
  all(
    entries: ReadonlyArray<Entry>,
    { order }: Settings,
    halts: boolean,
    prefix = ""
  ): Effect.Effect<boolean> {
    let stuck = false
    const undo = Effect.forEach(batches(entries, order), (batch) => {
      if (stuck && halts) return Effect.sync(() => batch.forEach((entry) => this.skip(entry, prefix)))
      return Effect.forEach(batch, (entry) =>
        Effect.map(this.one(entry, halts, prefix), (isStuck) => {
          stuck ||= isStuck
        }), { concurrency: batch.length, discard: true })
    }, { discard: true })
    return Effect.map(undo, () => stuck)
  }

  private one(entry: Entry, halts: boolean, prefix: string): Effect.Effect<boolean> {
    if ("record" in entry) return this.undo(entry, prefix + entry.record.name)
    const { entries, settings } = entry
    return this.all(entries, settings, halts || settings.halts, `${prefix}${settings.name}/`)
  }

  private skip(entry: Entry, prefix: string): void {
    if ("record" in entry) {
      entry.record.state = "not_run"
      this.notRun.push(prefix + entry.record.name)
    } else for (const each of entry.entries.toReversed()) this.skip(each, `${prefix}${entry.settings.name}/`)
  }

  undo(entry: Undo, step: string): Effect.Effect<boolean> {
    const { cause, node, span } = this
    const { context, millis, record } = entry
    return Effect.suspend(() => {
      record.state = "undoing"
      const attempts = new Attempts(node, step, record, "compensate")
      let last: Cause.Cause<unknown> = Cause.empty
      let isCut = false
      const once = Effect.onExit(
        Effect.suspend(() => {
          attempts.start()
          return entry.run(cause)
        }),
        (exit) => {
          if (Exit.isSuccess(exit)) return Effect.sync(() => attempts.end(exit))
          // The last try that failed by itself; of one that was cut, what failed beside the interruption.
          last = isCut ? Cause.combine(last, withoutInterrupts(exit.cause)) : exit.cause
          return Effect.sync(() => attempts.end(exit, isCut ? "timed_out" : undefined))
        }
      )
      // A defect, or an interruption of its own, is one more way in which a try fails.
      const tries = Effect.retry(Effect.sandbox(once), entry.retry)
      const compensated = spanned(`compensate ${step}`, { links: [{ span: entry.span, attributes: {} }] }, () => tries)
      const task = {
        name: `compensate ${step}`,
        effect: compensated,
        context: withParent(context, span),
        onCut: () => void (isCut = true)
      }
      return Effect.map(
        bounded(node, task, { within: millis, grace }),
        ({ cut, exit }) => {
          if (exit !== undefined && Exit.isSuccess(exit)) {
            record.state = "undone"
            this.undone.push(step)
            attempts.conclude(exit)
            return false
          }
          const timedOut = cut === "deadline"
            ? Cause.fail(new CompensationTimedOut({ saga: node.name, step, timeoutMillis: millis }))
            : Cause.empty
          // What is no effect ends the fiber, and no try says how.
          const none = cut === undefined && last.reasons.length === 0
          const cause = Cause.combine(timedOut, none ? exit.cause : last)
          const failure = Exit.failCause(cause)
          attempts.end(failure, none ? undefined : "timed_out")
          record.state = "stuck"
          this.stuck.push({ step, cause })
          node.gaveUp()
          attempts.conclude(failure, true)
          return true
        }
      )
    })
  }
}

/** What failed beside being interrupted. */
export const withoutInterrupts = <E>({ reasons }: Cause.Cause<E>): Cause.Cause<E> =>
  Cause.fromReasons(reasons.filter((reason) => !Cause.isInterruptReason(reason)))

/** What is undone at once, the newest first. */
const batches = (
  entries: ReadonlyArray<Entry>,
  order: Settings["order"]
): ReadonlyArray<ReadonlyArray<Entry>> => {
  const newest = entries.toReversed()
  if (order === "parallel") return [newest]
  const groups = new Map<unknown, Array<Entry>>()
  for (const entry of newest) {
    const key = order === "grouped" && "record" in entry && entry.group !== undefined ? entry.group : entry
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [entry])
    else group.push(entry)
  }
  return [...groups.values()]
}
