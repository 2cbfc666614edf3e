/**
 * What happened to the Collector: one warning when nothing gets through any more, one when it does again, however many
 * signals and batches that concerns.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"

export interface Outage {
  /** A batch was given up. `lost` items are not sent again: 0 for metrics, which the next ones make up for. */
  readonly failed: (signal: string, lost: number, reason: string) => void
  readonly delivered: (signal: string) => void
}

/** The outage of the place that a URL names. */
export type Shared = (url: string) => Effect.Effect<Outage>

/** Signals that go to the same place share its outages. */
export const shared: Effect.Effect<Shared> = Effect.sync(() => {
  const outages = new Map<string, Outage>()
  return Effect.fnUntraced(function*(url) {
    const { origin } = new URL(url)
    const outage = outages.get(origin) ?? (yield* make(origin))
    outages.set(origin, outage)
    return outage
  })
})

/** Logs with the loggers of the caller, which must not be those that export. */
const make = Effect.fnUntraced(function*(endpoint: string) {
  const run = Effect.runForkWith(yield* Effect.context<never>())
  const clock = yield* Clock.Clock
  const failing = new Set<string>()
  let since = 0
  let lost = 0
  const outage: Outage = {
    failed: (signal, count, reason) => {
      if (failing.size === 0) {
        since = clock.currentTimeMillisUnsafe()
        lost = 0
        run(Effect.logWarning(`telemetry does not reach ${endpoint} (${signal}): ${reason}`))
      }
      failing.add(signal)
      lost += count
    },
    delivered: (signal) => {
      if (!failing.delete(signal) || failing.size > 0) return
      const seconds = Math.round((clock.currentTimeMillisUnsafe() - since) / 1000)
      run(
        Effect.logWarning(`telemetry reaches ${endpoint} again after ${seconds} s, ${lost} spans and log records lost`)
      )
    }
  }
  return outage
})
