import { Restart } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Random } from "effect"

const seeds = Number(process.env.SEEDS ?? 200)

describe("Restart", () => {
  describe("classify and decide", () => {
    const exits = [
      ["success", Exit.void],
      ["failure", Exit.fail("x")],
      ["defect", Exit.die("x")],
      ["interruption by a stranger", Exit.interrupt(7)]
    ] as const
    const restarted = {
      permanent: [true, true, true, true],
      transient: [false, true, true, true]
    }
    for (const restart of ["permanent", "transient"] as const) {
      exits.forEach(([name, exit], index) => {
        const again = restarted[restart][index] === true
        it(`${restart} after ${name}: ${again ? "restart" : "stop"}`, () => {
          assert.strictEqual(Restart.decide(restart, Restart.classify(exit)), again ? "restart" : "stop")
        })
      })
    }
  })

  describe("plan", () => {
    it("one_for_one touches the failed child alone", () => {
      assert.deepStrictEqual(Restart.plan("one_for_one", 3, 1), { stop: [], start: [1] })
    })

    it("rest_for_one stops the later ones in reverse and starts all from the failed one in order", () => {
      assert.deepStrictEqual(Restart.plan("rest_for_one", 5, 0), { stop: [4, 3, 2, 1], start: [0, 1, 2, 3, 4] })
      assert.deepStrictEqual(Restart.plan("rest_for_one", 5, 4), { stop: [], start: [4] })
    })
  })

  describe("Window", () => {
    it("admits none with intensity 0", () => {
      assert.isFalse(new Restart.Window(0, 1000).admit(0))
    })

    it("is half-open: a restart counts until just before it is a period old", () => {
      const window = new Restart.Window(1, 1000)
      assert.deepStrictEqual([0, 999, 1000, 1999, 2000].map((now) => window.admit(now)), [
        true,
        false,
        true,
        false,
        true
      ])
    })

    it.effect("agrees with a naive model on random sequences", () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < seeds; seed++) {
          yield* Effect.gen(function*() {
            const intensity = yield* Random.nextIntBetween(0, 6)
            const period = yield* Random.nextIntBetween(1, 50)
            const window = new Restart.Window(intensity, period)
            const model: Array<number> = []
            let now = 0
            for (let step = 0; step < 60; step++) {
              now += yield* Random.nextIntBetween(0, 20)
              const counted = model.filter((time) => now - time < period).length
              assert.strictEqual(window.used(now), counted, `seed ${seed}, step ${step}`)
              const admitted = counted < intensity
              assert.strictEqual(window.admit(now), admitted, `seed ${seed}, step ${step}`)
              if (admitted) model.push(now)
            }
          }).pipe(Random.withSeed(`window ${seed}`))
        }
      }), 120_000)

    it("keeps O(intensity) entries over a million restarts", () => {
      const window = new Restart.Window(3, 10)
      for (let now = 0; now < 1_000_000; now++) window.admit(now * 10)
      const kept = (window as unknown as { readonly times: ReadonlyArray<number> }).times.length
      assert.isBelow(kept, 200)
    })
  })
})
