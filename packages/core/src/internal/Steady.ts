/** Whether a fiber can be interrupted between this step and the next. */
import type * as Fiber from "effect/Fiber"
import { MixedScheduler } from "effect/Scheduler"

const shouldYield = MixedScheduler.prototype.shouldYield

/**
 * Whether this step of the fiber and the next are one: nothing can interrupt it in between, and what the one takes the
 * other hands on. They are not where the fiber is about to yield because it has run long, nor under a scheduler that
 * overrides Effect's rule for that: one may even interrupt there, as the tests of interruption do. What wraps Effect's
 * scheduler, as the test clock does, keeps its rule.
 */
export const isSteady = (
  { cache: { maxOpsBeforeYield, scheduler }, currentOpCount }: Fiber.Fiber<unknown, unknown>
): boolean =>
  currentOpCount + 1 < maxOpsBeforeYield &&
  (scheduler.shouldYield === shouldYield || !(scheduler instanceof MixedScheduler))
