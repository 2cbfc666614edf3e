/**
 * The last 15 minutes of a few figures, a value a second: how many routines run, how many start, restart and fail, how full
 * the fullest mailbox is, what the process takes.
 *
 * They are sampled while somebody looks, and for a minute after; before that nothing is, and the charts have a gap. What
 * takes a walk over the tree is sampled for 5 seconds after a look. At most 40 charts: the restarts of 24 supervisors are
 * told by name.
 *
 * **Example** (The charts that there are)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Charts, EventLog } from "@effect-orchestra/observability"
 * import { Effect, Layer } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const charts = yield* Charts
 *   yield* charts.look
 *   yield* Effect.sleep("20 millis")
 *   const { series } = yield* charts.read(60)
 *   return series.slice(0, 3).map(({ name, unit, values }) => `${name} ${unit} ${values.length}`)
 * })
 *
 * const layer = Charts.layer.pipe(Layer.provideMerge(EventLog.layer), Layer.provideMerge(Orchestrator.layer))
 * const names = await Effect.runPromise(program.pipe(Effect.provide(layer)))
 * names // => ["routines.pending {routine} 60", "routines.starting {routine} 60", "routines.running {routine} 60"]
 * ```
 *
 * @since 0.1.0
 */
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { performance } from "node:perf_hooks"
import { EventLog } from "./EventLog.ts"
import type { Chart } from "./internal/AnswerSchema.ts"
import { survey } from "./internal/Survey.ts"
import { totalsOf } from "./internal/Totals.ts"
import { Pace } from "./internal/Walk.ts"

const points = 900
const maxSeries = 40

/** In milliseconds: how long after the last look it goes on to sample, and to walk over the tree for it. */
const linger = 60_000
const walk = 5000

const stepMs = 1000

/** One figure in a ring of seconds: NaN where nothing is known. */
class Series {
  readonly unit: string
  readonly values = new Float64Array(points).fill(NaN)

  constructor(unit: string) {
    this.unit = unit
  }
}

/**
 * The charts of one orchestrator.
 *
 * @category services
 * @since 0.1.0
 */
export class Charts extends Context.Service<Charts, {
  /** Somebody looks. */
  readonly look: Effect.Effect<void>
  /** The last so many seconds. */
  readonly read: (
    last: number
  ) => Effect.Effect<{ readonly stepMs: number; readonly until: number; readonly series: ReadonlyArray<Chart> }>
}>()("@effect-orchestra/observability/Charts") {
  /**
   * Samples nothing until somebody looks.
   *
   * @category layers
   * @since 0.1.0
   */
  static readonly layer: Layer.Layer<Charts, never, Orchestrator | EventLog> = Layer.effect(
    this,
    Effect.suspend(() => make)
  )
}

const make = Effect.gen(function*() {
  const orchestrator = yield* Orchestrator
  const { kernel } = orchestrator
  const { writer } = kernel
  const log = yield* EventLog
  const scope = yield* Effect.scope
  const series = new Map<string, Series>()
  const seconds = new Float64Array(points).fill(-1)
  let looked = -Infinity
  let sampler: Fiber.Fiber<void> | undefined

  const put = (at: number, name: string, unit: string, value: number): void => {
    let known = series.get(name)
    if (known === undefined) {
      if (series.size === maxSeries) return
      series.set(name, known = new Series(unit))
    }
    known.values[at] = value
  }

  let before = { ...log.tally(), by: new Map(log.restartsBy()), at: writer.now() }
  let loop = performance.eventLoopUtilization()
  let used = process.cpuUsage()

  const sample = Effect.gen(function*() {
    const now = writer.now()
    const second = Math.floor(now / stepMs)
    const at = second % points
    seconds[at] = second
    for (const { values } of series.values()) values[at] = NaN
    for (const [state, count] of Object.entries(totalsOf(kernel).active)) {
      put(at, `routines.${state}`, "{routine}", count)
    }
    const tally = log.tally()
    put(at, "starts", "{start}", tally.starts - before.starts)
    put(at, "restarts", "{restart}", tally.restarts - before.restarts)
    put(at, "failures", "{failure}", tally.failures - before.failures)
    const by = new Map(log.restartsBy())
    for (const [name, count] of by) put(at, `restarts ${name}`, "{restart}", count - (before.by.get(name) ?? 0))
    const { heapUsed, rss } = process.memoryUsage()
    put(at, "process.heap", "By", heapUsed)
    put(at, "process.memory", "By", rss)
    const utilization = performance.eventLoopUtilization()
    put(at, "eventloop.utilization", "1", performance.eventLoopUtilization(utilization, loop).utilization)
    loop = utilization
    const usage = process.cpuUsage()
    const passed = Math.max(1, now - before.at)
    put(at, "process.cpu", "1", (usage.user + usage.system - used.user - used.system) / 1000 / passed)
    used = usage
    before = { ...tally, by, at: now }
    if (now - looked > walk) return
    const { mailboxes, problemCount } = yield* survey(kernel)
    put(at, "mailbox.utilization.max", "1", mailboxes[0]?.utilization ?? 0)
    put(at, "problems", "{node}", problemCount)
  })

  const sampling = Effect.gen(function*() {
    before = { ...log.tally(), by: new Map(log.restartsBy()), at: writer.now() }
    while (writer.now() - looked <= linger) {
      yield* sample
      yield* Effect.sleep(stepMs)
    }
  }).pipe(Effect.ensuring(Effect.sync(() => {
    sampler = undefined
  })))

  return Charts.of({
    look: Effect.suspend(() => {
      looked = writer.now()
      if (sampler !== undefined) return Effect.void
      return Effect.map(Effect.forkIn(sampling, scope, { startImmediately: false }), (fiber) => {
        sampler = fiber
      })
    }),
    read: Effect.fnUntraced(function*(last) {
      const now = Math.floor(writer.now() / stepMs)
      const until = yield* Clock.currentTimeMillis
      const size = Math.min(last, points)
      const shown: Array<Chart> = []
      const pace = new Pace()
      for (const [name, { unit, values: sampled }] of size === 0 ? [] : series) {
        const values: Array<number | null> = []
        for (let second = now - size + 1; second <= now; second++) {
          const at = second % points
          const value = second < 0 || seconds[at] !== second ? NaN : sampled[at] ?? NaN
          values.push(Number.isNaN(value) ? null : value)
        }
        shown.push({ name, unit, values })
        if (pace.isOver(1)) yield* pace.rest
      }
      return { stepMs, until, series: shown }
    })
  })
})
