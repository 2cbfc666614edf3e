/** Rows 5, 14 and 16: restarting a child, one run after the other, against raw Effect, OTP and suture. */
import type { Orchestrator } from "@effect-orchestra/core"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { Deferred, Effect, Fiber, type Scope } from "effect"
import { against, type Size, timed, type Work } from "./Bench.ts"
import { observed } from "./observed.ts"
import type { Peers } from "./Peer.ts"

const fails = Effect.fail("failed")
const yields = Effect.andThen(Effect.yieldNow, fails)

/** So many runs of a permanent child that end with this failure, and one more that holds. */
const restarts = (count: number, failure: Effect.Effect<never, string>) =>
  Effect.gen(function*() {
    const done = yield* Deferred.make<void>()
    let left = count
    const holds = Effect.andThen(Deferred.succeed(done, undefined), Effect.never)
    const spec = Supervisor.make({
      name: "restarts",
      strategy: "one_for_one",
      intensity: count,
      period: "1 hour",
      children: [Child.make("child", Effect.suspend(() => left-- > 0 ? failure : holds))]
    })
    yield* Supervisor.start(spec)
    yield* Deferred.await(done)
  }).pipe(Effect.orDie, Effect.scoped)

/** What a program without a supervisor does. */
const forks = (count: number, failure: Effect.Effect<never, string>, startImmediately: boolean) =>
  Effect.scopedWith((scope) =>
    Effect.gen(function*() {
      for (let i = 0; i < count; i++) yield* Fiber.await(yield* Effect.forkIn(failure, scope, { startImmediately }))
    })
  )

export const work = (
  { rounds, smoke, warmUp }: Size,
  { go, otp }: Peers
): Effect.Effect<Work, never, Orchestrator | Scope.Scope> =>
  Effect.gen(function*() {
    const count = smoke ? 100 : 10_000
    const orchestrator = yield* Effect.context<Orchestrator>()
    const told = yield* observed
    const supervised = (failure: Effect.Effect<never, string>) =>
      timed("Supervisor", count, Effect.provideContext(restarts(count, failure), orchestrator))
    const raw = (failure: Effect.Effect<never, string>) => ({
      nextTurn: timed("raw fork + await, started in the next turn", count, forks(count, failure, false)),
      atOnce: timed("raw fork + await, started at once", count, forks(count, failure, true))
    })
    const listened = (failure: Effect.Effect<never, string>) =>
      timed("Supervisor with telemetry", count, Effect.provideContext(restarts(count, failure), told))

    const ours = supervised(fails)
    const oursYielding = supervised(yields)
    const theirs = raw(fails)
    const theirsYielding = raw(yields)
    const work = "restart of a child that fails at once"
    const workYielding = "restart of a child that yields and fails"
    const figures = [
      ...against({ row: 5, work, ours }, [
        [theirs.nextTurn, 1.2],
        [theirs.atOnce],
        [otp("one_for_one, all 10,000 in its window", "restart", String(count)), 0.05],
        [otp("one_for_one, 10 in its window", "window", "10")]
      ]),
      ...against({ row: 5, work: workYielding, ours: oursYielding }, [
        [theirsYielding.nextTurn, 1.2],
        [theirsYielding.atOnce]
      ]),
      ...against({ row: 14, work: `${work}, telemetry on`, ours: listened(fails) }, [[ours, 1.15]]),
      ...against({ row: 14, work: `${workYielding}, telemetry on`, ours: listened(yields) }, [[oursYielding, 1.15]]),
      ...against({ row: 16, work, ours }, [[go("suture", "restart", String(count)), 0.5]])
    ]
    return { row: 5, rounds, warmUp, figures }
  })
