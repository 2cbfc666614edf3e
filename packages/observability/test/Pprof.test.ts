import { assert, describe, it } from "@effect/vitest"
import { Effect, Random } from "effect"
import type * as Gzip from "../src/internal/Gzip.ts"
import type * as Pprof from "../src/internal/Pprof.ts"
import { decode } from "./model/Pprof.ts"

// Their paths are those of no package: the compiler would not know what to make of them.
const { Profile } = (await import(new URL("../src/internal/Pprof.ts", import.meta.url).href)) as typeof Pprof
const { gzip } = (await import(new URL("../src/internal/Gzip.ts", import.meta.url).href)) as typeof Gzip

const options = {
  types: [["samples", "count"], ["cpu", "nanoseconds"]] as const,
  program: "orders-api",
  timeMillis: 1_795_170_000_123
}

describe("Pprof", () => {
  it("writes what a profile says of itself", () => {
    const profile = new Profile({
      ...options,
      durationMillis: 1500.25,
      period: { type: ["cpu", "nanoseconds"], value: 10_000_000 },
      shown: "samples"
    })
    const { durationNanos, period, program, samples, shown, strings, timeNanos, types } = decode(profile.bytes)
    assert.deepStrictEqual(types, ["samples/count", "cpu/nanoseconds"])
    assert.deepInclude({ durationNanos, period, program, shown }, {
      durationNanos: 1_500_250_000,
      period: "10000000 cpu/nanoseconds",
      program: "orders-api",
      shown: "samples"
    })
    assert.strictEqual(timeNanos, 1_795_170_000_123_000_000)
    assert.strictEqual(strings[0], "")
    assert.deepStrictEqual(samples, [])
  })

  it("writes each function and each string once", () => {
    const profile = new Profile(options)
    const main = { name: "main", file: "/app/main.ts", line: 3 }
    profile.add([{ name: "burn", file: "/app/main.ts", line: 7 }, main], [1, 10])
    profile.add([{ ...main }], [1, 10], { routine: "main" })
    profile.add([{ ...main, line: 4 }], [1, 10], { routine: "burn" })
    const { functions, strings } = decode(profile.bytes)
    assert.strictEqual(functions, 3)
    assert.strictEqual(new Set(strings).size, strings.length)
  })

  it.effect("whatever is added is read again, numbers beyond 32 bits and text in any script too", () =>
    Effect.gen(function*() {
      const pick = <A>(from: ReadonlyArray<A>) =>
        Effect.map(Random.nextIntBetween(0, from.length - 1), (i) => from[i] as A)
      const names = ["main", "", "böse\n\0", "非同期", "🎻", "x".repeat(300)]
      const sizes = [0, 1, 127, 128, 300, 2 ** 31, 2 ** 32 + 5, 2 ** 53 - 1]
      const profile = new Profile(options)
      const added = []
      for (let n = 0; n < 300; n++) {
        const stack = []
        for (let depth = yield* Random.nextIntBetween(0, 80); depth > 0; depth--) {
          stack.push({ name: yield* pick(names), file: yield* pick(names), line: yield* pick([0, 1, 70_000]) })
        }
        const labels = n % 3 === 0 ? {} : { routine: yield* pick(names), state: yield* pick(names) }
        const values = [yield* pick(sizes), yield* pick(sizes)]
        profile.add(stack, values, labels)
        added.push({ stack, values, labels })
      }
      assert.deepStrictEqual(decode(yield* gzip(profile.bytes)).samples, added)
    }).pipe(Random.withSeed("pprof")))
})
