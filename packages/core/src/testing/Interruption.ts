/**
 * Interruption at every operation: what a program leaves behind when it is cut at any point.
 *
 * **Example** (A resource that is closed wherever the program is interrupted)
 *
 * ```ts import.meta.vitest
 * import { atEveryOperation } from "@effect-orchestra/core/testing"
 * import { Effect } from "effect"
 *
 * let open = 0
 * const resource = Effect.acquireRelease(Effect.sync(() => void open++), () => Effect.sync(() => void open--))
 *
 * const operations = await Effect.runPromise(atEveryOperation(
 *   Effect.andThen(resource, Effect.yieldNow),
 *   () => Effect.sync(() => { if (open !== 0) throw new Error("left open") })
 * ))
 * const tried = operations > 5 // => true
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { MixedScheduler } from "effect/Scheduler"
import type * as Scope from "effect/Scope"

/** Interrupts the first fiber that it sees when the nth operation, of it or of any fiber, is about to run. */
class Interrupter extends MixedScheduler {
  private left: number
  private readonly ofAll: boolean
  private target: Fiber.Fiber<unknown, unknown> | undefined = undefined

  constructor(operations: number, ofAll: boolean) {
    super()
    this.left = operations
    this.ofAll = ofAll
  }

  override shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    if (this.target === undefined) this.target = fiber
    if ((this.ofAll || fiber === this.target) && this.left-- === 0) this.target.interruptUnsafe()
    return super.shouldYield(fiber)
  }

  get through(): boolean {
    return this.left >= 0
  }
}

/**
 * Runs a program again and again, each time interrupting its fiber one operation later, until it gets through. After
 * each time, and five turns of the scheduler, `check` says whether anything was left behind. Operations are those of the
 * program's own fiber, or with `{ fibers: "all" }` of every fiber that it forks too: it is then interrupted while they
 * run. Returns how many operations were tried: a test that expects a number sees that the program really ran.
 *
 * @category operations
 * @since 0.1.0
 */
export const atEveryOperation: <A, E, R, B, E2, R2>(
  program: Effect.Effect<A, E, R>,
  check: (exit: Exit.Exit<A, E>) => Effect.Effect<B, E2, R2>,
  options?: { readonly fibers?: "own" | "all" | undefined }
) => Effect.Effect<number, E2, Exclude<R, Scope.Scope> | R2> = Effect.fnUntraced(function*(program, check, options) {
  const context = yield* Effect.context<Exclude<Effect.Services<typeof program>, Scope.Scope>>()
  for (let operations = 0;; operations++) {
    const scheduler = new Interrupter(operations, options?.fibers === "all")
    const fiber = Effect.runForkWith(context)(Effect.scoped(program), { scheduler })
    const exit = yield* Fiber.await(fiber)
    for (let turn = 0; turn < 5; turn++) yield* Effect.yieldNow
    yield* check(exit)
    if (scheduler.through) return operations
  }
})
