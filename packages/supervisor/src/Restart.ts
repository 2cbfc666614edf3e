/**
 * The restart decision, without effects: what an exit means, whether it asks for a restart, whether the budget allows
 * one, who is touched by it, and in which order. The rules are OTP's; where ours differ the comment says so.
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
 *
 * const [db, cache, api] = [
 *   { id: "db", dependsOn: [] },
 *   { id: "cache", dependsOn: [] },
 *   { id: "api", dependsOn: ["db"] }
 * ] as const
 * const restarted = Restart.affected("dependency", [db, cache, api], [db])
 * restarted // => [db, api]
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Exit from "effect/Exit"
import { Done, Ignore, TerminateTree } from "./SupervisorError.ts"

/**
 * Who is restarted when a child fails: it alone (`one_for_one`), all (`one_for_all`), it and those that started after it
 * (`rest_for_one`), it and those that depend on it, directly or through others (`dependency`; not in OTP).
 *
 * @category models
 * @since 0.1.0
 */
export type Strategy = "one_for_one" | "one_for_all" | "rest_for_one" | "dependency"

/**
 * When a child is restarted: always, only after an abnormal end, or never.
 *
 * @category models
 * @since 0.1.0
 */
export type RestartType = "permanent" | "transient" | "temporary"

/**
 * What the end of a run means. An interruption that the supervisor did not ask for is abnormal, like OTP's `kill`. The
 * last three are what a child says itself: `Supervisor.ignore`, `done` and `terminateTree`.
 *
 * @category models
 * @since 0.1.0
 */
export type Ending = "normal" | "abnormal" | "ignore" | "done" | "terminate_tree"

/**
 * Classifies the exit of a run that the supervisor did not end itself.
 *
 * @category getters
 * @since 0.1.0
 */
export const classify = (exit: Exit.Exit<unknown, unknown>): Ending => {
  if (Exit.isSuccess(exit)) return "normal"
  for (const reason of exit.cause.reasons) {
    const said = Cause.isFailReason(reason) ? reason.error : Cause.isDieReason(reason) ? reason.defect : undefined
    if (said instanceof Ignore) return "ignore"
    if (said instanceof Done) return "done"
    if (said instanceof TerminateTree) return "terminate_tree"
  }
  return "abnormal"
}

/**
 * What follows: the child runs again, is stopped and kept, is forgotten, or its supervisor ends.
 *
 * @category models
 * @since 0.1.0
 */
export type Verdict = "restart" | "stop" | "remove" | "terminate_tree"

const said = { ignore: "stop", done: "remove", terminate_tree: "terminate_tree" } as const

const verdicts: { readonly [R in RestartType]: { readonly [E in Ending]: Verdict } } = {
  permanent: { normal: "restart", abnormal: "restart", ...said },
  transient: { normal: "stop", abnormal: "restart", ...said },
  temporary: { normal: "remove", abnormal: "remove", ...said, ignore: "remove" }
}

/**
 * What becomes of a child of this restart type after such an end. A child that is not restarted touches no sibling,
 * whatever the strategy.
 *
 * @category getters
 * @since 0.1.0
 */
export const decide = (restart: RestartType, ending: Ending): Verdict => verdicts[restart][ending]

/**
 * What the strategies look at: a child's id, and the ids that it depends on (`dependency` alone).
 *
 * @category models
 * @since 0.1.0
 */
export interface Member {
  readonly id: string
  readonly dependsOn: ReadonlyArray<string>
}

/**
 * Which of `all`, in start order, a failure of `failed` touches, the failed ones included.
 *
 * @category getters
 * @since 0.1.0
 */
export const affected = <M extends Member>(
  strategy: Strategy,
  all: ReadonlyArray<M>,
  failed: ReadonlyArray<M>
): ReadonlyArray<M> => {
  switch (strategy) {
    case "one_for_one":
      return failed
    case "one_for_all":
      return all
    case "rest_for_one": {
      const first = new Set(failed)
      return all.slice(all.findIndex((member) => first.has(member)))
    }
    case "dependency": {
      const touched = new Set(failed.map(({ id }) => id))
      // A child is started after what it depends on, but may stand before it in the list.
      for (let size = 0; size !== touched.size;) {
        size = touched.size
        for (const { dependsOn, id } of all) if (dependsOn.some((on) => touched.has(on))) touched.add(id)
      }
      return all.filter(({ id }) => touched.has(id))
    }
  }
}

/**
 * For each member the positions of those that have to be ready before it starts; stopping goes the other way. Under
 * `dependency` what it depends on, also through children that are no members; else the member before it.
 *
 * @category getters
 * @since 0.1.0
 */
export const order = <M extends Member>(
  strategy: Strategy,
  all: ReadonlyArray<M>,
  members: ReadonlyArray<M>
): ReadonlyArray<ReadonlyArray<number>> => {
  if (strategy !== "dependency") return members.map((_, i) => i === 0 ? [] : [i - 1])
  const positions = new Map(members.map(({ id }, i) => [id, i]))
  const byId = new Map(all.map((member) => [member.id, member]))
  const waitsFor = ({ dependsOn }: Member): ReadonlyArray<number> =>
    dependsOn.flatMap((id) => {
      const position = positions.get(id)
      const through = byId.get(id)
      return position === undefined ? through === undefined ? [] : waitsFor(through) : [position]
    })
  return members.map(waitsFor)
}

/**
 * A cycle of dependencies, as the ids along it with the first repeated at its end; undefined when there is none.
 *
 * @category getters
 * @since 0.1.0
 */
export const cycle = (all: ReadonlyArray<Member>): ReadonlyArray<string> | undefined => {
  const byId = new Map(all.map((member) => [member.id, member]))
  const cleared = new Set<string>()
  const visit = (id: string, trail: ReadonlyArray<string>): ReadonlyArray<string> | undefined => {
    const at = trail.indexOf(id)
    if (at !== -1) return [...trail.slice(at), id]
    if (cleared.has(id)) return undefined
    for (const on of byId.get(id)?.dependsOn ?? []) {
      const found = visit(on, [...trail, id])
      if (found !== undefined) return found
    }
    cleared.add(id)
    return undefined
  }
  for (const { id } of all) {
    const found = visit(id, [])
    if (found !== undefined) return found
  }
  return undefined
}

/**
 * Walks positions in an order: each is free when all that it waits for are done. O(positions + waits) in all.
 *
 * @category models
 * @since 0.1.0
 */
export class Walk {
  private readonly waiting: Array<number>
  private readonly after: ReadonlyArray<Array<number>>
  private readonly isDone: Array<boolean>
  /** Free, in the order they became so; the first `taken` have been taken. */
  private readonly free: Array<number> = []
  private taken = 0
  /** How many are not done. */
  left: number

  constructor(waitsFor: ReadonlyArray<ReadonlyArray<number>>, direction: "forward" | "reverse" = "forward") {
    this.left = waitsFor.length
    this.waiting = waitsFor.map(() => 0)
    this.after = waitsFor.map(() => [])
    this.isDone = waitsFor.map(() => false)
    waitsFor.forEach((before, at) => {
      for (const other of before) {
        const [first, second] = direction === "forward" ? [other, at] : [at, other]
        this.after[first]?.push(second)
        this.waiting[second] = (this.waiting[second] ?? 0) + 1
      }
    })
    for (let at = 0; at < waitsFor.length; at++) if (this.waiting[at] === 0) this.free.push(at)
    // Of several that may stop, the last goes first.
    if (direction === "reverse") this.free.reverse()
  }

  /** Takes one that is free. */
  next(): number | undefined {
    return this.taken < this.free.length ? this.free[this.taken++] : undefined
  }

  /** Whether nothing before it is left. */
  isFree(at: number): boolean {
    return this.waiting[at] === 0
  }

  /** It is done: what waited for it alone is free. */
  done(at: number): void {
    if (this.isDone[at] === true) return
    this.isDone[at] = true
    this.left--
    for (const next of this.after[at] ?? []) {
      const left = this.waiting[next] = (this.waiting[next] ?? 0) - 1
      if (left === 0 && this.isDone[next] !== true) this.free.push(next)
    }
  }

  /** It will never be done: neither will those that wait for it. Returns them all, itself first. */
  fail(at: number): ReadonlyArray<number> {
    const failed = [at]
    for (const one of failed) for (const next of this.after[one] ?? []) if (!failed.includes(next)) failed.push(next)
    const left = failed.filter((one) => this.isDone[one] !== true)
    for (const one of left) this.isDone[one] = true
    this.left -= left.length
    return left
  }
}

/**
 * The same where each waits for the one before it: which of `count` positions comes next, in no memory.
 *
 * @category models
 * @since 0.1.0
 */
export class Chain {
  /** How many are not done. */
  left: number
  private readonly count: number
  private readonly direction: "forward" | "reverse"
  private isTaken = false

  constructor(count: number, direction: "forward" | "reverse" = "forward") {
    this.left = count
    this.count = count
    this.direction = direction
  }

  /** The first that is not done. */
  private get at(): number {
    return this.direction === "forward" ? this.count - this.left : this.left - 1
  }

  /** Takes the one that is free. */
  next(): number | undefined {
    if (this.isTaken || this.left === 0) return undefined
    this.isTaken = true
    return this.at
  }

  /** Whether nothing before it is left. */
  isFree(at: number): boolean {
    return this.direction === "forward" ? at <= this.at : at >= this.at
  }

  /** It is done: the one after it is free. */
  done(at: number): void {
    if (this.left === 0 || at !== this.at) return
    this.left--
    this.isTaken = false
  }

  /** It will never be done: neither will those after it. Returns them all, itself first. */
  fail(at: number): ReadonlyArray<number> {
    if (at !== this.at) return []
    const { left } = this
    this.left = 0
    return Array.from({ length: left }, (_, i) => this.direction === "forward" ? at + i : at - i)
  }
}

/**
 * The walk through `members` in the order of a strategy.
 *
 * @category getters
 * @since 0.1.0
 */
export const walk = <M extends Member>(
  strategy: Strategy,
  all: ReadonlyArray<M>,
  members: ReadonlyArray<M>,
  direction: "forward" | "reverse" = "forward"
): Walk | Chain =>
  strategy === "dependency"
    ? new Walk(order(strategy, all, members), direction)
    : new Chain(members.length, direction)

/**
 * The restart budget: at most `intensity` restarts within `period` milliseconds. A restart counts while
 * `now - t < period` (OTP counts whole seconds, inclusively). Every attempt counts, also one that fails; a restart of
 * a whole group counts once. O(1) a decision, and memory for as many restarts as fell into one period.
 *
 * @category models
 * @since 0.1.0
 */
export class Window {
  readonly intensity: number
  readonly period: number
  /** The last restarts, as many as count at most: once so many came, each takes the place of the oldest. */
  private times: Array<number> = []
  private next = 0
  private last = -Infinity

  constructor(intensity: number, period: number) {
    this.intensity = intensity
    this.period = period
  }

  /** Counts a restart at the monotonic time `now`, unless the budget is used up. */
  admit(now: number): boolean {
    if (now - this.last >= this.period) {
      this.times = []
      this.next = 0
    }
    const { intensity, next, times } = this
    // Whether the one that came `intensity` restarts ago counts says it all.
    if (intensity === 0 || (next < times.length && now - (times[next] ?? now) < this.period)) return false
    times[next] = now
    this.next = next + 1 === intensity ? 0 : next + 1
    this.last = now
    return true
  }

  /** How many restarts count at `now`. */
  used(now: number): number {
    const { next, period, times } = this
    const oldest = next < times.length ? next : 0
    let from = 0
    for (let to = times.length; from < to;) {
      const middle = (from + to) >> 1
      if (now - (times[(oldest + middle) % times.length] ?? now) < period) to = middle
      else from = middle + 1
    }
    return times.length - from
  }
}
