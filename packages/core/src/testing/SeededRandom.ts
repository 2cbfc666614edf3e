/**
 * Randomness that is the same for the same seed, as a `Random` and for what else a seed decides.
 *
 * **Example** (The same seed, the same numbers)
 *
 * ```ts import.meta.vitest
 * import { SeededRandom } from "@effect-orchestra/core/testing"
 * import { Effect, Random } from "effect"
 *
 * const three = Effect.all([Random.next, Random.next, Random.next])
 * const draw = (seed: string) =>
 *   Effect.runPromise(Effect.provideService(three, Random.Random, new SeededRandom(seed)))
 *
 * const [a, b, c] = await Promise.all([draw("a"), draw("a"), draw("c")])
 * a // => b
 * const differs = a[0] !== c[0] // => true
 * ```
 *
 * @since 0.1.0
 */
import type * as Random from "effect/Random"

/**
 * A small generator of random numbers (mulberry32). Not for secrets.
 *
 * @category models
 * @since 0.1.0
 */
export class SeededRandom implements Random.Random {
  private state: number

  constructor(seed: number | string) {
    // FNV-1a spreads seeds that differ by one digit.
    let hash = 0x811c9dc5
    for (const char of String(seed)) hash = Math.imul(hash ^ (char.codePointAt(0) ?? 0), 0x01000193)
    this.state = hash
  }

  /** 32 random bits, as an integer that is not negative. */
  nextBits(): number {
    this.state = (this.state + 0x6d2b79f5) | 0
    let bits = Math.imul(this.state ^ (this.state >>> 15), this.state | 1)
    bits ^= bits + Math.imul(bits ^ (bits >>> 7), bits | 61)
    return (bits ^ (bits >>> 14)) >>> 0
  }

  /** An integer from 0 up to, and without, `bound`. */
  below(bound: number): number {
    return this.nextBits() % bound
  }

  /** True with this probability. */
  chance(probability: number): boolean {
    return this.nextBits() < probability * 2 ** 32
  }

  nextDoubleUnsafe(): number {
    return ((this.nextBits() >>> 5) * 2 ** 26 + (this.nextBits() >>> 6)) / 2 ** 53
  }

  nextIntUnsafe(): number {
    const { MAX_SAFE_INTEGER, MIN_SAFE_INTEGER } = Number
    return Math.floor(this.nextDoubleUnsafe() * (MAX_SAFE_INTEGER - MIN_SAFE_INTEGER + 1)) + MIN_SAFE_INTEGER
  }
}
