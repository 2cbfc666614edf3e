/** The signs of life of a run, and who looks at them. */
import type { RoutineRecord } from "../RoutineRecord.ts"
import type { Stopwatch } from "../Stopwatch.ts"
import type { Deadline, Job } from "../Writer.ts"

export class Vitals {
  /** Set by a beat, and taken back by whoever looks. */
  beaten = false
  private lastBeat: number | undefined = undefined
  busy: Stopwatch | undefined = undefined
  blocked: Stopwatch | undefined = undefined
  watchdog: Watchdog | undefined = undefined
  info: Readonly<Record<string, string>> | undefined = undefined
  askedAt: number | undefined = undefined
  /** The monotonic time by which it has to end, for what stands below it. */
  endsBy: number | undefined = undefined
  stuck = false
  linkForks = false

  /** When it last beat, as far as anybody has looked. */
  heard(now: number): number | undefined {
    if (this.beaten) {
      this.beaten = false
      this.lastBeat = now
    }
    return this.lastBeat
  }
}

/** Looks four times in an idle timeout whether a routine has beaten. A beat itself only sets a flag. */
export class Watchdog implements Job {
  private readonly record: RoutineRecord
  private readonly idleTimeout: number
  private deadline: Deadline | undefined = undefined

  constructor(record: RoutineRecord, idleTimeout: number) {
    this.record = record
    this.idleTimeout = idleTimeout
  }

  arm(now: number): void {
    const left = this.idleTimeout - this.record.idle(now)
    this.deadline = this.record.kernel.writer.after(Math.min(this.idleTimeout / 4, left), this)
  }

  disarm(): void {
    this.record.kernel.writer.cancel(this.deadline)
  }

  run(): void {
    const now = this.record.kernel.writer.now()
    const idle = this.record.idle(now)
    if (idle >= this.idleTimeout) this.record.timeOut(idle)
    else this.arm(now)
  }
}
