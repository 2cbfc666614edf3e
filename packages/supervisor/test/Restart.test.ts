import { Restart, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Random } from "effect"

const seeds = Number(process.env.SEEDS ?? 200)

describe("Restart", () => {
  describe("classify and decide", () => {
    const exits = [
      ["success", Exit.void],
      ["failure", Exit.fail("x")],
      ["defect", Exit.die("x")],
      ["interruption by a stranger", Exit.interrupt(7)],
      ["ignore", Exit.die(new SupervisorError.Ignore())],
      ["done, said as a failure", Exit.fail(new SupervisorError.Done())],
      ["terminateTree", Exit.die(new SupervisorError.TerminateTree())]
    ] as const
    const verdicts = {
      permanent: ["restart", "restart", "restart", "restart", "stop", "remove", "terminate_tree"],
      transient: ["stop", "restart", "restart", "restart", "stop", "remove", "terminate_tree"],
      temporary: ["remove", "remove", "remove", "remove", "remove", "remove", "terminate_tree"]
    } as const
    for (const restart of ["permanent", "transient", "temporary"] as const) {
      exits.forEach(([name, exit], index) => {
        it(`${restart} after ${name}: ${verdicts[restart][index]}`, () => {
          assert.strictEqual(Restart.decide(restart, Restart.classify(exit)), verdicts[restart][index])
        })
      })
    }
  })

  const members = (edges: Readonly<Record<string, ReadonlyArray<string>>>) =>
    Object.entries(edges).map(([id, dependsOn]) => ({ id, dependsOn }))

  describe("affected", () => {
    const [a, b, c] = ["a", "b", "c"].map((id) => ({ id, dependsOn: [] }))
    if (a === undefined || b === undefined || c === undefined) throw new Error("three members")

    it("one_for_one touches the failed alone, one_for_all all, rest_for_one those from the first failed on", () => {
      assert.deepStrictEqual(Restart.affected("one_for_one", [a, b, c], [b]), [b])
      assert.deepStrictEqual(Restart.affected("one_for_all", [a, b, c], [b]), [a, b, c])
      assert.deepStrictEqual(Restart.affected("rest_for_one", [a, b, c], [b]), [b, c])
      assert.deepStrictEqual(Restart.affected("rest_for_one", [a, b, c], [c, b]), [b, c])
    })

    it("dependency touches the failed and all that stand on it, directly or not, in start order", () => {
      const all = members({ d: ["b", "c"], b: ["a"], c: ["a"], a: [], e: [] })
      const ids = (id: string) =>
        Restart.affected("dependency", all, all.filter((member) => member.id === id)).map((member) => member.id)
      assert.deepStrictEqual(ids("a"), ["d", "b", "c", "a"])
      assert.deepStrictEqual(ids("b"), ["d", "b"])
      assert.deepStrictEqual(ids("e"), ["e"])
    })
  })

  describe("order", () => {
    it("is a chain, and under dependency what each waits for, through those that are no members", () => {
      const all = members({ a: [], b: ["a"], c: ["b"], d: [] })
      assert.deepStrictEqual(Restart.order("rest_for_one", all, all), [[], [0], [1], [2]])
      assert.deepStrictEqual(Restart.order("dependency", all, all), [[], [0], [1], []])
      const withoutB = all.filter(({ id }) => id !== "b")
      assert.deepStrictEqual(Restart.order("dependency", all, withoutB), [[], [0], []])
    })
  })

  describe("cycle", () => {
    it("names the way round", () => {
      assert.isUndefined(Restart.cycle(members({ a: [], b: ["a"], c: ["a", "b"] })))
      assert.deepStrictEqual(Restart.cycle(members({ x: [], a: ["c"], b: ["a"], c: ["b"] })), ["a", "c", "b", "a"])
      assert.deepStrictEqual(Restart.cycle(members({ a: ["a"] })), ["a", "a"])
    })
  })

  describe("Walk", () => {
    it("frees each when all that it waits for are done, and backwards the other way", () => {
      const diamond = [[], [0], [0], [1, 2]]
      const forward = new Restart.Walk(diamond)
      assert.deepStrictEqual([forward.next(), forward.next()], [0, undefined])
      forward.done(0)
      assert.deepStrictEqual([forward.next(), forward.next(), forward.next()], [1, 2, undefined])
      forward.done(1)
      assert.isUndefined(forward.next())
      forward.done(2)
      assert.strictEqual(forward.next(), 3)
      const reverse = new Restart.Walk(diamond, "reverse")
      assert.deepStrictEqual([reverse.next(), reverse.next()], [3, undefined])
    })

    it("gives up what waits for one that fails", () => {
      const walk = new Restart.Walk([[], [0], [1], []])
      assert.deepStrictEqual([walk.fail(1), walk.left], [[1, 2], 2])
    })
  })

  describe("Chain", () => {
    it("walks as a Walk does where each waits for the one before it", () => {
      const random = (seed: number) => {
        let state = seed + 1
        return (below: number) => {
          state = (state * 48_271) % 2_147_483_647
          return state % below
        }
      }
      for (let seed = 0; seed < 500; seed++) {
        const next = random(seed)
        const count = 1 + next(6)
        const direction = next(2) === 0 ? "forward" : "reverse"
        const all = Array.from({ length: count }, (_, i) => ({ id: String(i), dependsOn: [] }))
        const chain = Restart.walk("one_for_all", all, all, direction)
        const walk = new Restart.Walk(Restart.order("one_for_all", all, all), direction)
        assert.instanceOf(chain, Restart.Chain)
        for (let at = walk.next(); at !== undefined; at = walk.next()) {
          assert.deepStrictEqual([chain.next(), chain.next()], [at, undefined], `seed ${seed}`)
          if (next(4) === 0) assert.deepStrictEqual(chain.fail(at), walk.fail(at), `seed ${seed}`)
          else for (let i = next(2); i >= 0; i--) for (const each of [chain, walk]) each.done(at)
          if (walk.left === 0) break
          const free = (each: Restart.Walk | Restart.Chain) => all.map((_, at) => each.isFree(at))
          assert.deepStrictEqual([chain.left, free(chain)], [walk.left, free(walk)], `seed ${seed}`)
        }
        assert.deepStrictEqual([chain.left, chain.next()], [walk.left, walk.next()], `seed ${seed}`)
      }
    })

    it("is a Walk where children depend on each other", () => {
      const all = members({ a: [], b: ["a"] })
      assert.instanceOf(Restart.walk("dependency", all, all), Restart.Walk)
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
  })
})
