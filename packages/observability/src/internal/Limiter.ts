/**
 * So many in a window of time, for each of many keys. What it keeps is bounded: of more keys than `keys` the one that was
 * heard of least recently is forgotten, and begins anew.
 */
export class Limiter {
  private readonly limit: number
  private readonly windowMillis: number
  private readonly keys: number
  /** When the last ones were, oldest first, on the monotonic clock; in the order in which the keys were heard of. */
  private readonly seen = new Map<string, Array<number>>()

  constructor(options: { readonly limit: number; readonly windowMillis: number; readonly keys: number }) {
    this.limit = options.limit
    this.windowMillis = options.windowMillis
    this.keys = options.keys
  }

  get size(): number {
    return this.seen.size
  }

  /** Counts one more and gives 0; beyond the limit counts nothing, and gives the milliseconds until one more may come. */
  take(key: string, now: number): number {
    const times = this.seen.get(key) ?? []
    this.seen.delete(key)
    this.seen.set(key, times)
    if (this.seen.size > this.keys) {
      for (const oldest of this.seen.keys()) {
        this.seen.delete(oldest)
        break
      }
    }
    const [first] = times
    if (first !== undefined && times.length >= this.limit) {
      if (now < first + this.windowMillis) return first + this.windowMillis - now
      times.shift()
    }
    times.push(now)
    return 0
  }
}
