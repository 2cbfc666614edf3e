/**
 * Three faults that programs of many fibers have, as small as they come: what the storm of `Chaos.test.ts` has to find.
 */
import { type Cause, Deferred, Effect, Exit } from "effect"

/** Has what it received in its hands for a moment: interrupted there, it is lost. */
export const lossyReceive = <A, E>(receive: Effect.Effect<A, E>): Effect.Effect<A, E> =>
  Effect.flatMap(receive, (message) => Effect.as(Effect.yieldNow, message))

/** Interrupts those who lost, and does not wait until they have ended. */
export const hastyRace = <A, E>(contenders: ReadonlyArray<Effect.Effect<A, E>>): Effect.Effect<A, unknown> =>
  Effect.gen(function*() {
    const first = yield* Deferred.make<A, unknown>()
    let left = contenders.length
    const fibers = yield* Effect.forEach(
      contenders,
      (contender) =>
        Effect.forkDetach(Effect.onExit(contender, (exit) =>
          Effect.sync(() => {
            left--
            if (Exit.isSuccess(exit) || left === 0) Deferred.doneUnsafe(first, exit)
          })))
    )
    return yield* Effect.ensuring(
      Deferred.await(first),
      Effect.sync(() => {
        for (const fiber of fibers) fiber.interruptUnsafe()
      })
    )
  })

/** Runs the tasks of some producers, so many at once. When it fails it forgets the producers that wait for a slot. */
export const forgetfulPool = <E>(
  limit: number,
  producers: ReadonlyArray<ReadonlyArray<Effect.Effect<void, E>>>
): Effect.Effect<void, E> =>
  Effect.suspend(() => {
    let active = 0
    let failure: Cause.Cause<E> | undefined = undefined
    const waiting: Array<() => void> = []
    const slot = Effect.callback<void>((resume) => {
      if (active++ < limit) return resume(Effect.void)
      waiting.push(() => resume(Effect.void))
    })
    const run = (task: Effect.Effect<void, E>) =>
      Effect.onExit(task, (exit) =>
        Effect.sync(() => {
          active--
          if (Exit.isFailure(exit)) failure ??= exit.cause
          if (failure === undefined) waiting.shift()?.()
        }))
    const produce = (tasks: ReadonlyArray<Effect.Effect<void, E>>) =>
      Effect.forEach(tasks, (task) =>
        Effect.flatMap(Effect.uninterruptible(slot), () =>
          failure === undefined ? Effect.ignoreCause(run(task)) : Effect.failCause(failure)))
    return Effect.asVoid(Effect.forEach(producers, produce, { concurrency: "unbounded" }))
  })
