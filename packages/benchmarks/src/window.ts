/** Row 6: the decision to restart, by how many restarts the window holds; and what OTP pays for its list of them. */
import { Orchestrator } from "@effect-orchestra/core"
import { Child, Restart, Supervisor } from "@effect-orchestra/supervisor"
import { Clock, Context, Deferred, Effect, Exit, Layer, Scope } from "effect"
import { against, type Size, type Source, timed, type Work } from "./Bench.ts"
import type { Peers } from "./Peer.ts"

const named = (intensity: number) => `a window of ${intensity.toLocaleString("en")}`

/** A clock on which time passes by itself alone. */
const steered = (live: Clock.Clock) => {
  let nanos = 0n
  const clock: Clock.Clock = {
    currentTimeMillisUnsafe: () => live.currentTimeMillisUnsafe(),
    currentTimeMillis: live.currentTimeMillis,
    currentTimeNanosUnsafe: () => live.currentTimeNanosUnsafe(),
    currentTimeNanos: live.currentTimeNanos,
    monotonicTimeNanosUnsafe: () => nanos,
    monotonicTimeNanos: Effect.sync(() => nanos),
    sleep: (duration) => live.sleep(duration)
  }
  return { clock, pass: () => void (nanos += 1_000_000n) }
}

/** A child that fails when it is told to, so many times in a row, one a millisecond: its window is always full. */
const restarting = Effect.fnUntraced(function*(intensity: number) {
  const { clock, pass } = steered(yield* Clock.Clock)
  let left = 0
  let told = Deferred.makeUnsafe<void>()
  let done = Deferred.makeUnsafe<void>()
  const child = Effect.suspend(() => {
    pass()
    if (left-- > 0) return Effect.fail("failed")
    told = Deferred.makeUnsafe<void>()
    Deferred.doneUnsafe(done, Exit.void)
    return Effect.andThen(Deferred.await(told), Effect.fail("failed"))
  })
  const spec = Supervisor.make({
    name: "window",
    strategy: "one_for_one",
    intensity,
    period: intensity,
    children: [Child.make("child", child)]
  })
  const layer = Layer.provide(Orchestrator.layerWith({}), Layer.succeed(Clock.Clock, clock))
  const context = Context.merge(yield* Effect.context<Scope.Scope>(), yield* Layer.build(layer))
  yield* Effect.orDie(Effect.provideContext(Supervisor.start(spec), context))
  const fail = (times: number) =>
    Effect.suspend(() => {
      done = Deferred.makeUnsafe<void>()
      left = times - 1
      Deferred.doneUnsafe(told, Exit.void)
      return Deferred.await(done)
    })
  yield* fail(intensity)
  return fail
})

/** It is filled when it is first measured: that takes a while. */
const restarts = (intensity: number, count: number) =>
  Effect.gen(function*() {
    const scope = yield* Effect.scope
    const filled = yield* Effect.cached(Scope.provide(restarting(intensity), scope))
    const name = named(intensity)
    const sample = Effect.flatMap(filled, (fail) => timed(name, count, fail(count)).sample)
    return { name, sample }
  })

/** The window alone. */
const admissions = (intensity: number, count: number): Source => {
  const window = new Restart.Window(intensity, intensity)
  let now = 0
  const admit = (times: number) => {
    for (let i = 0; i < times; i++) {
      if (!window.admit(++now)) throw new Error(`the window is full at ${now}`)
    }
  }
  const filled = Effect.sync(() => now === 0 ? admit(intensity) : undefined)
  const name = named(intensity)
  const { sample } = timed(name, count, Effect.sync(() => admit(count)))
  return { name, sample: Effect.andThen(filled, sample) }
}

export const work = ({ rounds, smoke, warmUp }: Size, { otp }: Peers): Effect.Effect<Work, never, Scope.Scope> =>
  Effect.gen(function*() {
    const full = smoke ? 1000 : 1_000_000
    const count = smoke ? 100 : 10_000
    const few = yield* restarts(10, count)
    const many = yield* restarts(full, count)
    const held = smoke ? 100 : 10_000
    const otpFew = otp("one_for_one, 10 in its window", "window", "10")
    const otpMany = otp("one_for_one, 10,000 in its window", "window", String(held))
    const work = "restart, 1,000,000 in the window"
    const decisions = smoke ? 1000 : 1_000_000
    const figures = [
      ...against({ row: 6, work, ours: many }, [[few, 1.3], [otpFew], [otpMany]]),
      ...against({ row: 6, work: "the window alone, of 1,000,000", ours: admissions(full, decisions) }, [
        [admissions(10, decisions), 1.3]
      ]),
      ...(otpMany === undefined
        ? []
        : against({ row: 6, work: "OTP's restart, 10,000 in the window", ours: otpMany }, [[otpFew]]))
    ]
    return { row: 6, rounds, warmUp, figures }
  })
