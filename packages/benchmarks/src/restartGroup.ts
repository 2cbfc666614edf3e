/** Rows 7 and 15: a group that is restarted as a whole, against OTP, and by its size. */
import type { Orchestrator } from "@effect-orchestra/core"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { Deferred, Effect, Exit } from "effect"
import { against, type Size, timed, type Work } from "./Bench.ts"
import type { Peers } from "./Peer.ts"

/** Its first child fails once the last one runs, so many times. */
const restarts = (children: number, times: number) =>
  Effect.gen(function*() {
    const done = yield* Deferred.make<void>()
    let left = times
    let fail = (_: Effect.Effect<never, string>) => {}
    const first = Effect.callback<never, string>((resume) => {
      fail = resume
    })
    // When it yields, the others are started, and so is it.
    const last = Effect.andThen(
      Effect.yieldNow,
      Effect.suspend(() => {
        if (left-- > 0) fail(Effect.fail("failed"))
        else Deferred.doneUnsafe(done, Exit.void)
        return Effect.never
      })
    )
    const body = (index: number) => index === 0 ? first : index === children - 1 ? last : Effect.never
    const spec = Supervisor.make({
      name: "group",
      strategy: "one_for_all",
      intensity: times,
      period: "1 hour",
      children: Array.from({ length: children }, (_, index) => Child.make(`child ${index}`, body(index)))
    })
    yield* Supervisor.start(spec)
    yield* Deferred.await(done)
  }).pipe(Effect.orDie, Effect.scoped)

export const work = ({ rounds, smoke, warmUp }: Size, { otp }: Peers): Effect.Effect<Work, never, Orchestrator> =>
  Effect.gen(function*() {
    const context = yield* Effect.context<Orchestrator>()
    const size = smoke ? 100 : 1000
    const group = (name: string, children: number, times: number) =>
      timed(name, children * times, Effect.provideContext(restarts(children, times), context))
    const thousand = group("one_for_all of 1,000", size, 20)
    const more = group("one_for_all of 10,000", size * 10, 2)
    const figures = [
      ...against({ row: 7, work: "restart of a group of 1,000, each child", ours: thousand }, [
        [otp("one_for_all of 1,000", "group", String(size)), 0.5]
      ]),
      ...against({ row: 15, work: "restart of a group of 10,000, each child", ours: more }, [[thousand, 1.3]])
    ]
    return { row: 7, rounds, warmUp, figures }
  })
