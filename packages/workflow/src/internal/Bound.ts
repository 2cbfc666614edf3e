/** What runs in a fiber of its own, so that it can be cut: when its time is over, or when whoever waits is interrupted. */
import { because, cancelledBy } from "@effect-orchestra/core/Kernel"
import { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import type { Writer } from "@effect-orchestra/core/Writer"
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import type { SagaNode } from "./SagaNode.ts"

/** How long something may take, and once it was cut how long it is waited for. Milliseconds. */
export interface Bound {
  readonly within: number
  readonly grace: number
}

/** How long an undo may take to end whose time is over. */
export const grace = 1000

/**
 * How it ended, if it did: what ignores its interruption past its grace has no exit. `cut` is why it was interrupted: the
 * cause of whoever waited, or nothing but that its time was over.
 */
export type Ran<A, E> =
  | { readonly exit: Exit.Exit<A, E>; readonly cut: undefined }
  | { readonly exit: Exit.Exit<A, E> | undefined; readonly cut: "deadline" | Cause.Cause<never> }

/** What is run, under the name that it is abandoned under, who is told when it is cut, and what a success after all means. */
export interface Task<A, E> {
  readonly name: string
  readonly effect: Effect.Effect<A, E>
  readonly context: Context.Context<never>
  readonly onCut?: () => void
  readonly late?: (exit: Exit.Success<A, E>) => Effect.Effect<unknown>
}

/**
 * Runs a task within a bound. Only where `restore` makes it so can it be interrupted from outside. It has a fiber of its
 * own even where it has no bound: an interruption takes from a fiber what it has just done, while from here it is seen
 * whether it had.
 */
export const bounded = <A, E>(
  saga: SagaNode,
  { context, effect, late, name, onCut }: Task<A, E>,
  { grace, within }: Bound,
  restore: <A2, E2, R2>(effect: Effect.Effect<A2, E2, R2>) => Effect.Effect<A2, E2, R2> = identity
): Effect.Effect<Ran<A, E>> =>
  Effect.suspend(() => {
    const { writer } = saga.kernel
    const fiber = writer.start(context, effect)
    const exit = fiber.pollUnsafe()
    if (exit !== undefined) return Effect.succeed({ exit, cut: undefined })
    return Effect.flatMap(Effect.exit(restore(ended(writer, fiber, within))), (waited) => {
      if (Exit.isSuccess(waited) && waited.value !== undefined) {
        return Effect.succeed<Ran<A, E>>({ exit: waited.value, cut: undefined })
      }
      const cut = Exit.isSuccess(waited) ? "deadline" : waited.cause
      onCut?.()
      interrupt(writer, fiber, reasonOf(cut, saga))
      const asked = writer.now()
      return Effect.map(ended(writer, fiber, grace), (exit): Ran<A, E> => {
        if (exit === undefined) {
          const awaited = Effect.flatMap(
            Fiber.await(fiber),
            (exit) => Exit.isSuccess(exit) && late !== undefined ? late(exit) : Effect.void
          )
          abandon(saga, name, awaited, writer.now() - asked)
        }
        return { exit, cut }
      })
    })
  })

/** Whoever interrupted us interrupts what we wait for. */
const reasonOf = (cut: "deadline" | Cause.Cause<never>, saga: SagaNode): Context.Context<never> => {
  if (cut === "deadline") return because("deadline", saga)
  const said = Cause.annotations(cut)
  return cancelledBy(said) === null ? because("interrupted", saga) : said
}

/**
 * Interrupts a fiber, but not within an uninterruptible region: the interruption would take effect where that ends, and
 * what was done in there would be lost with it. Most such regions end with the fiber, whose result is then known.
 */
const interrupt = (
  writer: Writer,
  fiber: Fiber.Fiber<unknown, unknown>,
  by: Context.Context<never>,
  lookAgain = 1
): void => {
  if (fiber.pollUnsafe() !== undefined) return
  // Effect tells it to the fiber itself alone; a fiber that does not say so is interrupted at once.
  const { interruptible } = fiber as { readonly interruptible?: boolean }
  if (interruptible !== false) return writer.wake({ run: () => fiber.interruptUnsafe(undefined, by) })
  writer.after(lookAgain, { run: () => interrupt(writer, fiber, by, Math.min(1000, 2 * lookAgain)) })
}

/** Waits for the end of a fiber, at most so long. */
const ended = <A, E>(
  writer: Writer,
  fiber: Fiber.Fiber<A, E>,
  millis: number
): Effect.Effect<Exit.Exit<A, E> | undefined> =>
  Effect.callback((resume) => {
    const wake = (exit: Exit.Exit<A, E> | undefined) => writer.wake({ run: () => resume(Effect.succeed(exit)) })
    const deadline = writer.after(millis, { run: () => wake(fiber.pollUnsafe()) })
    const forget = fiber.addObserver((exit) => {
      writer.cancel(deadline)
      wake(exit)
    })
    return Effect.sync(() => {
      writer.cancel(deadline)
      forget()
    })
  })

/** Lists what is no longer waited for as a routine, until it has ended. */
export const abandon = (saga: SagaNode, name: string, ended: Effect.Effect<unknown>, waitedMillis: number): void => {
  const record = new RoutineRecord(saga.kernel, saga.isListed ? saga : saga.kernel, { name })
  record.start(Effect.uninterruptible(ended), saga.kernel.context, { readyNow: true })
  // Since then it was asked to end.
  record.since = saga.kernel.writer.now() - waitedMillis
  record.abandon(waitedMillis)
}
