/**
 * The restart decision, without effects: what an exit means, whether it asks for a restart, whether the budget allows
 * one, and who is touched by it. The rules are OTP's; where ours differ the comment says so.
 *
 * **Example** (A budget of one restart in ten seconds)
 *
 * ```ts import.meta.vitest
 * import { Restart } from "@effect-orchestra/supervisor"
 *
 * const window = new Restart.Window(1, 10_000)
 * window.admit(0) // => true
 * window.admit(9_999) // => false
 * window.admit(10_000) // => true
 *
 * Restart.decide("transient", "normal") // => "stop"
 * Restart.plan("rest_for_one", 5, 2) // => { stop: [4, 3], start: [2, 3, 4] }
 * ```
 *
 * @since 0.1.0
 */
import * as Exit from "effect/Exit"

/**
 * Who is restarted when a child fails: it alone, or it and those that started after it.
 *
 * @category models
 * @since 0.1.0
 */
export type Strategy = "one_for_one" | "rest_for_one"

/**
 * When a child is restarted: always, or only after an abnormal end.
 *
 * @category models
 * @since 0.1.0
 */
export type RestartType = "permanent" | "transient"

/**
 * What the end of a run means. An interruption that the supervisor did not ask for is abnormal, like OTP's `kill`.
 *
 * @category models
 * @since 0.1.0
 */
export type Ending = "normal" | "abnormal"

/**
 * Classifies the exit of a run that the supervisor did not end itself.
 *
 * @category getters
 * @since 0.1.0
 */
export const classify = (exit: Exit.Exit<unknown, unknown>): Ending => Exit.isSuccess(exit) ? "normal" : "abnormal"

const decisions: { readonly [R in RestartType]: { readonly [E in Ending]: "restart" | "stop" } } = {
  permanent: { normal: "restart", abnormal: "restart" },
  transient: { normal: "stop", abnormal: "restart" }
}

/**
 * Whether a child of this restart type runs again after such an end. A child that stops touches no sibling, whatever
 * the strategy.
 *
 * @category getters
 * @since 0.1.0
 */
export const decide = (restart: RestartType, ending: Ending): "restart" | "stop" => decisions[restart][ending]

/**
 * Which children a restart of child `failed` out of `count` touches, by position in start order: whom to stop first,
 * in reverse order, and whom to start then, in order.
 *
 * @category getters
 * @since 0.1.0
 */
export const plan = (
  strategy: Strategy,
  count: number,
  failed: number
): { readonly stop: ReadonlyArray<number>; readonly start: ReadonlyArray<number> } => {
  if (strategy === "one_for_one") return { stop: [], start: [failed] }
  const start = Array.from({ length: count - failed }, (_, i) => failed + i)
  return { stop: start.slice(1).reverse(), start }
}

/**
 * The restart budget: at most `intensity` restarts within `period` milliseconds. A restart counts while
 * `now - t < period` (OTP counts whole seconds, inclusively). Every attempt counts, also one that fails; a restart of
 * a whole group counts once. O(1) a decision on average, O(intensity) memory.
 *
 * @category models
 * @since 0.1.0
 */
export class Window {
  readonly intensity: number
  readonly period: number
  private times: Array<number> = []
  private head = 0

  constructor(intensity: number, period: number) {
    this.intensity = intensity
    this.period = period
  }

  /** Counts a restart at the monotonic time `now`, unless the budget is used up. */
  admit(now: number): boolean {
    if (this.used(now) >= this.intensity) return false
    this.times.push(now)
    return true
  }

  /** How many restarts count at `now`. */
  used(now: number): number {
    while (this.head < this.times.length && now - (this.times[this.head] ?? now) >= this.period) this.head++
    if (this.head > 64 && this.head * 2 > this.times.length) {
      this.times = this.times.slice(this.head)
      this.head = 0
    }
    return this.times.length - this.head
  }
}
