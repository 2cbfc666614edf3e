/**
 * What is told of every run, told once: to be an observer costs as much as most of what is done here with what is
 * observed, so counts, spans and lines share one.
 */
import type { Kernel } from "@effect-orchestra/core/Kernel"
import { observe, type Observer } from "@effect-orchestra/core/Observer"

/** Those who follow runs. */
export class Runs {
  counts: Required<Pick<Observer, "ended" | "restarted" | "decided">> | undefined = undefined
  spans: Required<Pick<Observer, "starting">> | undefined = undefined
  lines: Required<Pick<Observer, "starting" | "restarted" | "decided">> | undefined = undefined

  /** Tells those that are there by now, while the scope is open. */
  observe(kernel: Kernel) {
    const observer: Observer = {
      ended: (record, exit, now) => this.counts?.ended(record, exit, now),
      restarted: (record, supervisor, reason, delay) => {
        this.counts?.restarted(record, supervisor, reason, delay)
        this.lines?.restarted(record, supervisor, reason, delay)
      },
      decided: (supervisor, record, decision, exit) => {
        this.counts?.decided(supervisor, record, decision, exit)
        this.lines?.decided(supervisor, record, decision, exit)
      }
    }
    // Whoever changes nothing of a context is not asked for it.
    if (this.spans !== undefined || this.lines !== undefined) {
      observer.starting = (record, context, spawner) => {
        const own = this.spans === undefined ? context : this.spans.starting(record, context, spawner)
        return this.lines === undefined ? own : this.lines.starting(record, own, spawner)
      }
    }
    return observe(kernel, observer)
  }
}
