/** The spans of a stop of the whole tree, made when it is over. */
import type { Kernel } from "@effect-orchestra/core/Kernel"
import type { Phase } from "@effect-orchestra/core/Shutdown"
import * as Exit from "effect/Exit"
import * as Attributes from "../Attributes.ts"
import type { SpanOptions, Tracing } from "./Tracing.ts"

/** The stop of a routine. */
interface Stop extends SpanOptions {
  readonly at: bigint
  readonly until: bigint
  readonly exit: Exit.Exit<unknown, unknown>
}

interface Stay {
  readonly from: bigint
  until: bigint | undefined
  remaining: number
  readonly stops: Array<Stop>
}

/** From how long on the stop of a routine has a span (nanoseconds), and how many have at most. */
const slow = 1_000_000_000n
const maxStops = 128

export class ShutdownSpans {
  private readonly kernel: Kernel
  private readonly tracing: Tracing
  private from = 0n
  private readonly phases = new Map<Phase, Stay>()
  private current: Stay | undefined = undefined
  private stops = 0
  private forced = 0

  constructor(kernel: Kernel, tracing: Tracing) {
    this.kernel = kernel
    this.tracing = tracing
  }

  /** A stop of the tree enters a phase, or is over. */
  enter(phase: Phase | undefined): void {
    const now = this.tracing.now()
    if (this.phases.size === 0) this.from = now
    if (this.current !== undefined) {
      this.current.until = now
      this.current.remaining = this.kernel.routines
    }
    if (phase === undefined) return this.over(now)
    const known = this.phases.get(phase)
    this.current = known ?? { from: now, until: undefined, remaining: 0, stops: [] }
    if (known === undefined) this.phases.set(phase, this.current)
  }

  /** A routine has been stopped, or is not waited for any more. */
  stopped(stop: Stop, isForced: boolean): void {
    if (isForced) this.forced++
    if (!isForced && stop.until - stop.at < slow) return
    if (this.stops++ < maxStops) this.current?.stops.push(stop)
  }

  /** A stop that is not over when nobody looks any more. */
  close(): void {
    if (this.phases.size > 0) this.enter(undefined)
  }

  private over(until: bigint): void {
    const { forced, from, stops, tracing } = this
    const phases = [...this.phases]
    this.phases.clear()
    this.current = undefined
    this.stops = this.forced = 0
    const context = tracing.around
    if (context === undefined) return
    const remaining = this.kernel.routines
    tracing.later(() => {
      const shutdown = tracing.make(context, {
        name: "shutdown",
        at: from,
        attributes: {
          [Attributes.shutdownForced]: forced,
          [Attributes.shutdownRemaining]: remaining,
          ...(stops > maxStops ? { [Attributes.shutdownOmitted]: stops - maxStops } : undefined)
        }
      })
      if (shutdown === undefined) return
      for (const [phase, stay] of phases) {
        // The last one is but the moment in which it is seen what is left.
        if (phase === "abandon" && stay.stops.length === 0 && forced === 0) continue
        const span = tracing.make(context, {
          name: phase,
          parent: shutdown,
          at: stay.from,
          attributes: { [Attributes.shutdownPhase]: phase, [Attributes.shutdownRemaining]: stay.remaining }
        })
        for (const stop of stay.stops) tracing.made(context, { ...stop, parent: span })
        span?.end(stay.until ?? until, Exit.void)
      }
      const left = forced === 0 ? Exit.void : Exit.die(new Error(`${forced} routines ignored their interruption`))
      shutdown.end(until, left)
    })
  }
}
