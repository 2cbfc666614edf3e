import { Writer } from "@effect-orchestra/core/Writer"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Random } from "effect"
import { TestClock } from "effect/testing"

const seeds = Number(process.env["SEEDS"] ?? 200)

/** A writer, and how many fibers sleep on its clock at this moment. */
const make = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  let asleep = 0
  const counting: Clock.Clock = {
    ...clock,
    sleep: (duration) =>
      Effect.acquireUseRelease(
        Effect.sync(() => void asleep++),
        () => clock.sleep(duration),
        () => Effect.sync(() => void asleep--)
      )
  }
  const context = yield* Effect.context<never>().pipe(Effect.provideService(Clock.Clock, counting))
  return { writer: new Writer(context), asleep: () => asleep }
})

describe("Writer", () => {
  it.effect("runs decisions before wake-ups, and neither within another", () =>
    Effect.gen(function*() {
      const { writer } = yield* make
      const log: Array<string> = []
      let depth = 0
      const job = (name: string, more: () => void = () => {}) => ({
        run: () => {
          assert.strictEqual(++depth, 1)
          log.push(name)
          more()
          depth--
        }
      })
      writer.submit(job("a", () => {
        writer.wake(job("woken"))
        writer.submit(job("b", () => writer.submit(job("c"))))
      }))
      assert.deepStrictEqual(log, ["a", "b", "c", "woken"])
    }))

  it.effect("a decision happens at one time, and what it starts or wakes reads the clock", () =>
    Effect.gen(function*() {
      const clock = yield* Clock.Clock
      let time = 0n
      const passing: Clock.Clock = { ...clock, monotonicTimeNanosUnsafe: () => time += 1_000_000n }
      const context = yield* Effect.context<never>().pipe(Effect.provideService(Clock.Clock, passing))
      const writer = new Writer(context)
      const now = () => writer.now()
      const times: Array<number> = []
      const look = () => void times.push(now(), now())
      writer.submit({
        run: () => {
          writer.wake({ run: look })
          writer.submit({ run: look })
          writer.submit({
            run: () => {
              look()
              writer.start(context, Effect.sync(look))
            }
          })
        }
      })
      look()
      assert.deepStrictEqual(times, [1, 1, 2, 2, 3, 4, 5, 6, 7, 8])
    }))

  it.effect("leaves what is beyond 512 jobs to the next turn of the scheduler", () =>
    Effect.gen(function*() {
      const { writer } = yield* make
      let ran = 0
      writer.submit({
        run: () => {
          for (let i = 0; i < 2000; i++) writer.submit({ run: () => void ran++ })
        }
      })
      assert.strictEqual(ran, 511)
      for (let i = 0; i < 5; i++) yield* Effect.yieldNow
      assert.strictEqual(ran, 2000)
    }))

  it.effect("goes on after a job that throws", () =>
    Effect.gen(function*() {
      const { writer } = yield* make
      const log: Array<string> = []
      assert.throws(() =>
        writer.submit({
          run: () => {
            writer.submit({ run: () => void log.push("behind it") })
            throw new Error("job")
          }
        })
      )
      yield* Effect.yieldNow
      writer.submit({ run: () => void log.push("later") })
      assert.deepStrictEqual(log, ["behind it", "later"])
    }))

  it.effect("sleeps with one fiber however many deadlines there are, and with none when there is none", () =>
    Effect.gen(function*() {
      const { asleep, writer } = yield* make
      const nothing = { run: () => {} }
      const late = writer.after(1000, nothing)
      const early = writer.after(10, nothing)
      const never = writer.after(Infinity, nothing)
      for (let i = 0; i < 100; i++) writer.after(500 - i, nothing)
      assert.strictEqual(asleep(), 1)
      writer.cancel(never)
      writer.cancel(early)
      yield* TestClock.adjust("500 millis")
      assert.strictEqual(asleep(), 1)
      writer.cancel(late)
      writer.cancel(late)
      assert.strictEqual(asleep(), 0)
      writer.after(5, nothing)
      assert.strictEqual(asleep(), 1)
      yield* TestClock.adjust("5 millis")
      assert.strictEqual(asleep(), 0)
    }))

  it.effect("meets every deadline that is not cancelled, at its time and in order", () =>
    Effect.gen(function*() {
      for (let seed = 0; seed < seeds; seed++) {
        yield* Effect.gen(function*() {
          const { asleep, writer } = yield* make
          const expected: Array<{ readonly at: number; readonly order: number }> = []
          const met: Array<{ readonly at: number; readonly order: number }> = []
          for (let order = 0; order < 40; order++) {
            const at = yield* Random.nextIntBetween(1, 20)
            const deadline = writer.after(at, { run: () => met.push({ at, order }) })
            if (yield* Random.nextBoolean) writer.cancel(deadline)
            else expected.push({ at, order })
          }
          yield* TestClock.adjust("20 millis")
          expected.sort((a, b) => a.at - b.at || a.order - b.order)
          assert.deepStrictEqual(met, expected, `seed ${seed}`)
          assert.strictEqual(asleep(), 0, `seed ${seed}`)
        }).pipe(Random.withSeed(`deadlines ${seed}`))
      }
    }), 120_000)
})
