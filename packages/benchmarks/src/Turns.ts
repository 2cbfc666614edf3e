/** How long the event loop stood still, with and without the garbage collector. */
import { Effect } from "effect"
import { PerformanceObserver } from "node:perf_hooks"

type Interval = readonly [from: number, to: number]

/** With the processor time in it, in milliseconds, which other threads of ours can only make more. */
export type Span = readonly [...Interval, spent: number]

const collections: Array<Interval> = []
new PerformanceObserver((list) => {
  for (const { duration, startTime } of list.getEntries()) collections.push([startTime, startTime + duration])
}).observe({ entryTypes: ["gc"] })

/** The collections so far do not matter. */
export const forget = () => {
  collections.length = 0
}

const spentBy = () => {
  const { system, user } = process.cpuUsage()
  return (system + user) / 1000
}

/** The turns of the event loop that took longer than so many milliseconds, while the effect ran. */
export const turns = (effect: Effect.Effect<unknown>, least = 0) =>
  Effect.suspend(() => {
    const spans: Array<Span> = []
    let last = performance.now()
    let before = spentBy()
    const look = () => {
      const now = performance.now()
      const spent = spentBy()
      if (now - last > least) spans.push([last, now, spent - before])
      last = now
      before = spent
    }
    let next = setImmediate(function turn() {
      look()
      next = setImmediate(turn)
    })
    return Effect.map(effect, () => {
      clearImmediate(next)
      look()
      return spans
    })
  })

const inside = ([from, to]: Interval, [begin, end]: Span) => Math.max(0, Math.min(to, end) - Math.max(from, begin))

/**
 * The longest of them in milliseconds: as it was, and without the garbage collections that fell into it, of which one is
 * told a while later, and the time in which other processes had its core. Neither bound of the latter is too low: a turn
 * takes no more than what is left of it without collections, and no more than all its processor time.
 */
export const longest = (spans: ReadonlyArray<Span>) => ({
  pause: Math.max(0, ...spans.map(([from, to]) => to - from)),
  slice: Math.max(
    0,
    ...spans.map((span) =>
      Math.min(span[2], collections.reduce((rest, spent) => rest - inside(spent, span), span[1] - span[0]))
    )
  )
})
