import { Orchestrator } from "@effect-orchestra/core"
import { steerableChild } from "@effect-orchestra/core/testing"
import { Backoff, Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Random, Schedule, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { capped, DecayModel } from "./model/Backoff.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

/** What a schedule says to failures at these times: its outputs, and its delays in milliseconds. */
const driven = <A>(schedule: Schedule.Schedule<A>, times: ReadonlyArray<number>) =>
  Effect.gen(function*() {
    const step = yield* Schedule.toStep(schedule)
    const outputs: Array<A> = []
    const delays: Array<number> = []
    for (const time of times) {
      const [output, delay] = yield* Effect.orDie(step(time, undefined))
      outputs.push(output)
      delays.push(Duration.toMillis(delay))
    }
    return { outputs, delays }
  })

const zeros = (count: number): ReadonlyArray<number> => Array.from({ length: count }, () => 0)

const mean = (values: ReadonlyArray<number>): number => values.reduce((a, b) => a + b, 0) / values.length

const near = (a: number, b: number, within: number, what: string) =>
  assert.isBelow(Math.abs(a - b), within, `${what}: ${a} is not near ${b}`)

describe("Backoff", () => {
  describe("exponential", () => {
    it.effect("grows by its factor up to its cap", () =>
      Effect.gen(function*() {
        const delays = (options: Parameters<typeof Backoff.exponential>[0], count: number) =>
          Effect.map(driven(Backoff.exponential({ ...options, jitter: "none" }), zeros(count)), ({ delays }) => delays)
        assert.deepStrictEqual(yield* delays({}, 11), [
          100,
          200,
          400,
          800,
          1600,
          3200,
          6400,
          12_800,
          25_600,
          30_000,
          30_000
        ])
        assert.deepStrictEqual(yield* delays({ base: "2 seconds", factor: 3, max: "1 minute" }, 5), [
          2000,
          6000,
          18_000,
          54_000,
          60_000
        ])
        assert.deepStrictEqual(yield* delays({ factor: 1 }, 3), [100, 100, 100])
        assert.deepStrictEqual(yield* delays({ base: 5, max: 5 }, 2), [5, 5])
      }))

    it.effect("stays at its cap however often it is asked", () =>
      Effect.gen(function*() {
        const { delays } = yield* driven(Backoff.exponential({ jitter: "none" }), zeros(1200))
        assert.strictEqual(delays.at(-1), 30_000)
      }))

    it.effect("stays within the bounds of its jitter on random options", () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < seeds; seed++) {
          yield* Effect.gen(function*() {
            const base = yield* Random.nextIntBetween(1, 1000)
            const factor = yield* Random.nextBetween(1, 4)
            const max = base + (yield* Random.nextIntBetween(0, 100_000))
            const [jitter, least] = yield* Random.choice([["full", 0], ["equal", 0.5], ["none", 1]] as const)
            const { delays, outputs } = yield* driven(Backoff.exponential({ base, factor, max, jitter }), zeros(20))
            delays.forEach((delay, index) => {
              const cap = capped(base, factor, max, index + 1)
              near(Duration.toMillis(outputs[index] ?? 0), cap, 1e-3, "output")
              assert.isAtMost(delay, cap + 1e-3)
              assert.isAtLeast(delay, least * cap - 1e-3)
            })
          }).pipe(Random.withSeed(`exponential ${seed}`))
        }
      }), 60_000)

    it.effect("spreads evenly, also at its cap", () =>
      Effect.gen(function*() {
        const shares = (jitter: Backoff.Jitter) =>
          Effect.map(
            driven(Backoff.exponential({ base: 1000, max: 1000, jitter }), zeros(4000)),
            ({ delays }) => delays.map((delay) => delay / 1000)
          ).pipe(Random.withSeed("shares"))
        const full = yield* shares("full")
        near(mean(full), 0.5, 0.02, "mean of full")
        near(full.filter((share) => share > 0.9).length / full.length, 0.1, 0.02, "the last tenth of full")
        near(full.filter((share) => share < 0.1).length / full.length, 0.1, 0.02, "the first tenth of full")
        const equal = yield* shares("equal")
        near(mean(equal), 0.75, 0.02, "mean of equal")
        assert.isAtLeast(Math.min(...equal), 0.5)
        assert.isBelow(Math.min(...equal), 0.51)
        assert.isAbove(Math.max(...equal), 0.99)
      }))
  })

  describe("decorrelated", () => {
    it.effect(
      "draws each delay from between its base and three times the one before, up to its cap",
      () =>
        Effect.gen(function*() {
          for (let seed = 0; seed < seeds; seed++) {
            yield* Effect.gen(function*() {
              const base = yield* Random.nextIntBetween(1, 1000)
              const max = base + (yield* Random.nextIntBetween(0, 100_000))
              const { delays } = yield* driven(Backoff.decorrelated({ base, max }), zeros(20))
              let previous = base
              for (const delay of delays) {
                assert.isAtLeast(delay, base - 1e-3)
                assert.isAtMost(delay, Math.min(max, previous * 3) + 1e-3)
                previous = delay
              }
            }).pipe(Random.withSeed(`decorrelated ${seed}`))
          }
        }),
      60_000
    )

    it.effect("grows from failure to failure, and begins anew with each use", () =>
      Effect.gen(function*() {
        const schedule = Backoff.decorrelated({ base: 10, max: "1 hour" })
        const nth: Array<ReadonlyArray<number>> = []
        for (let use = 0; use < 1000; use++) nth.push((yield* driven(schedule, zeros(3))).delays)
        const means = [0, 1, 2].map((index) => mean(nth.map((delays) => delays[index] ?? NaN)))
        // From between 10 and 30; then the mean of 10 and 3 times what the mean was before.
        near(means[0] ?? NaN, 20, 1, "first")
        near(means[1] ?? NaN, 35, 2, "second")
        near(means[2] ?? NaN, 57.5, 5, "third")
      }).pipe(Random.withSeed("growth")))
  })

  describe("decay", () => {
    it.effect("agrees with a naive model on random failures", () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < seeds; seed++) {
          yield* Effect.gen(function*() {
            const threshold = yield* Random.nextBetween(0, 6)
            const decay = yield* Random.nextIntBetween(1, 60_000)
            const model = new DecayModel(threshold, decay)
            const times: Array<number> = []
            let now = yield* Random.nextIntBetween(0, 1_000_000)
            for (let n = 0; n < 30; n++) {
              times.push(now)
              now += yield* Random.nextIntBetween(0, decay)
            }
            const { delays, outputs } = yield* driven(Backoff.decay({ threshold, decay, pause: 7000 }), times)
            times.forEach((time, index) => {
              const { pauses, sum } = model.fail(time)
              near(outputs[index] ?? NaN, sum, 1e-9, "sum")
              assert.strictEqual(delays[index], pauses ? 7000 : 0)
            })
          }).pipe(Random.withSeed(`decay ${seed}`))
        }
      }), 60_000)

    it.effect("pauses above its threshold, not at it, and counts anew after the pause", () =>
      Effect.gen(function*() {
        const { delays, outputs } = yield* driven(Backoff.decay({ threshold: 2, decay: "Infinity" }), zeros(7))
        assert.deepStrictEqual(outputs, [1, 2, 3, 1, 2, 3, 1])
        assert.deepStrictEqual(delays, [0, 0, 15_000, 0, 0, 15_000, 0])
      }))

    it.effect("shortens its pause by its jitter", () =>
      Effect.gen(function*() {
        const pauses = (jitter: Backoff.Jitter) =>
          Effect.map(driven(Backoff.decay({ threshold: 0, pause: 1000, jitter }), zeros(1000)), ({ delays }) => delays)
        const full = yield* pauses("full")
        near(mean(full), 500, 40, "mean of full")
        assert.isAtMost(Math.max(...full), 1000)
        near(mean(yield* pauses("equal")), 750, 20, "mean of equal")
      }).pipe(Random.withSeed("pauses")))
  })

  for (
    const [name, schedule] of Object.entries({
      exponential: Backoff.exponential(),
      decorrelated: Backoff.decorrelated(),
      decay: Backoff.decay({ threshold: 1, jitter: "full" })
    })
  ) {
    it.effect(`${name} is the same under the same seed, and another under another`, () =>
      Effect.gen(function*() {
        const delays = (seed: string) =>
          Effect.map(driven<unknown>(schedule, zeros(20)), ({ delays }) => delays).pipe(Random.withSeed(seed))
        const first = yield* delays("a")
        assert.deepStrictEqual(yield* delays("a"), first)
        assert.notDeepEqual(yield* delays("b"), first)
      }))
  }

  for (
    const [what, make, message] of [
      ["a base of zero", () => Backoff.exponential({ base: 0 }), /base of a backoff is a positive duration, got: 0$/],
      ["a negative base", () => Backoff.decorrelated({ base: -1 }), /base of a backoff is a duration .*, got: -1$/],
      [
        "a cap without an end",
        () => Backoff.exponential({ max: "Infinity" }),
        /max of a backoff is finite, got: Infinity$/
      ],
      [
        "a cap below the base",
        () => Backoff.decorrelated({ base: 10, max: 9 }),
        /at least its base of 10 ms, got: 9 ms$/
      ],
      ["a factor that shrinks", () => Backoff.exponential({ factor: 0.9 }), /factor of a backoff .*, got: 0\.9$/],
      ["a factor that is no number", () => Backoff.exponential({ factor: NaN }), /factor of a backoff .*, got: NaN$/],
      ["a negative threshold", () => Backoff.decay({ threshold: -1 }), /threshold of a backoff .*, got: -1$/],
      [
        "a threshold that is no number",
        () => Backoff.decay({ threshold: NaN }),
        /threshold of a backoff .*, got: NaN$/
      ],
      ["a decay of zero", () => Backoff.decay({ decay: 0 }), /decay of a backoff is a positive duration, got: 0$/],
      [
        "a pause without an end",
        () => Backoff.decay({ pause: Infinity }),
        /pause of a backoff is finite, got: Infinity$/
      ],
      // @ts-expect-error no such jitter
      ["an unknown jitter", () => Backoff.exponential({ jitter: "half" }), /one of full, equal, none, got: half$/],
      // @ts-expect-error no such option
      ["an unknown option", () => Backoff.decorrelated({ factor: 2 }), /unknown option of a backoff, got: factor$/]
    ] as const
  ) {
    it(`${what} is a defect`, () => {
      assert.throws(make, message)
    })
  }

  describe("under a supervisor", () => {
    const settle = Effect.forEach(Array.from({ length: 20 }), () => Effect.yieldNow, { discard: true })

    /** Children that fail on command, under a decaying rate of failures, and the delay of each restart. */
    const supervised = Effect.fnUntraced(function*(
      names: ReadonlyArray<string>,
      options: Parameters<typeof Backoff.decay>[0]
    ) {
      const restarts: Array<string> = []
      yield* Orchestrator.instrument((event) => {
        if (event._tag === "Restarted") restarts.push(`${event.name} after ${event.delayMillis}`)
      })
      const steered = yield* Effect.forEach(names, (name) => steerableChild<void, string>({ name }))
      const sums: Array<number> = []
      const backoff = Schedule.tap(Backoff.decay(options), ({ output }) => Effect.sync(() => void sums.push(output)))
      yield* Supervisor.start(Supervisor.make({
        name: "app",
        strategy: "one_for_one",
        intensity: 1000,
        children: steered.map(({ effect }, index) =>
          Child.make(names[index] ?? "", effect, { backoff, resetAfter: "1 day" })
        )
      }))
      return {
        restarts,
        sums,
        fail: (index: number) => Effect.andThen(steered[index]?.fail("no") ?? Effect.void, settle),
        starts: () => steered.map(({ starts }) => starts),
        live: () => steered.map(({ live }) => live)
      }
    })

    const test = <A, E>(body: Effect.Effect<A, E, Orchestrator | Scope.Scope>) => () =>
      Effect.provide(body, Orchestrator.layer)

    it.effect(
      "150. failures lose half their weight in each span of decay, and the pause begins above the threshold, not before",
      test(Effect.gen(function*() {
        const { fail, live, restarts, starts, sums } = yield* supervised(["a"], {
          threshold: 3.5,
          decay: "30 seconds"
        })
        yield* fail(0)
        yield* fail(0)
        yield* TestClock.adjust("30 seconds")
        yield* fail(0)
        yield* fail(0)
        // The third: two that are worth 1, and 1.
        assert.deepStrictEqual(sums, [1, 2, 2, 3])
        assert.deepStrictEqual(restarts, ["a after 0", "a after 0", "a after 0", "a after 0"])
        yield* fail(0)
        assert.deepStrictEqual(live(), [false])
        yield* TestClock.adjust("14999 millis")
        assert.deepStrictEqual(live(), [false])
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual(live(), [true])
        assert.deepStrictEqual(restarts.slice(4), ["a after 15000"])
        assert.deepStrictEqual(starts(), [6])
      }))
    )

    it.effect(
      "151. while one child pauses the others run; at the end of the pause its count is zero and it runs again",
      test(Effect.gen(function*() {
        const { fail, live, restarts, starts } = yield* supervised(["a", "b"], { threshold: 1, pause: "10 seconds" })
        yield* fail(0)
        yield* fail(0)
        assert.deepStrictEqual(live(), [false, true])
        // The other fails and is restarted meanwhile, at once: its failures are its own.
        yield* fail(1)
        assert.deepStrictEqual(live(), [false, true])
        assert.deepStrictEqual(starts(), [2, 2])
        yield* TestClock.adjust("10 seconds")
        assert.deepStrictEqual(live(), [true, true])
        assert.deepStrictEqual(restarts, ["a after 0", "b after 0", "a after 10000"])
        // From zero: the next failure is the first again.
        yield* fail(0)
        assert.deepStrictEqual(restarts.slice(3), ["a after 0"])
        assert.deepStrictEqual(live(), [true, true])
      }))
    )

    it.effect(
      "152. a failure of one child during the pause of another extends nobody's pause",
      test(Effect.gen(function*() {
        const { fail, live } = yield* supervised(["a", "b"], { threshold: 1, pause: "10 seconds" })
        yield* fail(0)
        yield* fail(0)
        yield* TestClock.adjust("6 seconds")
        yield* fail(1)
        yield* fail(1)
        assert.deepStrictEqual(live(), [false, false])
        yield* TestClock.adjust("3999 millis")
        assert.deepStrictEqual(live(), [false, false])
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual(live(), [true, false])
        yield* TestClock.adjust("5999 millis")
        assert.deepStrictEqual(live(), [true, false])
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual(live(), [true, true])
      }))
    )
  })
})
