/** The decaying failure rate, written down as what it means: every failure since the last pause, weighed by its age. */
export class DecayModel {
  private readonly threshold: number
  private readonly decay: number
  private times: Array<number> = []

  constructor(threshold: number, decay: number) {
    this.threshold = threshold
    this.decay = decay
  }

  /** The sum after a failure at `now`, and whether it pauses. */
  fail(now: number): { readonly sum: number; readonly pauses: boolean } {
    this.times.push(now)
    const sum = this.times.reduce((total, time) => total + 2 ** ((time - now) / this.decay), 0)
    const pauses = sum > this.threshold
    if (pauses) this.times = []
    return { sum, pauses }
  }
}

/** What `exponential` waits before its jitter, for the nth failure, counted from 1. */
export const capped = (base: number, factor: number, max: number, attempt: number): number => {
  let delay = base
  for (let n = 1; n < attempt; n++) delay = Math.min(max, delay * factor)
  return delay
}
