import { Routine } from "@effect-orchestra/core"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { app, pass, scene, shown } from "./Stage.ts"

class Pool extends Context.Service<Pool, { readonly run: number; answers: boolean }>()("test/Pool") {}

describe("a probed child", () => {
  it.effect(
    "is restarted when its probe gives up, and the next run is probed afresh, with what it gives",
    scene(function*() {
      let run = 0
      const pools: Array<Pool["Service"]> = []
      const layer = Layer.effect(
        Pool,
        Effect.sync(() => {
          const pool = { run: ++run, answers: true }
          pools.push(pool)
          return pool
        })
      )
      const asked: Array<number> = []
      const probe = Effect.gen(function*() {
        const pool = yield* Pool
        asked.push(pool.run)
        if (!pool.answers) return yield* Effect.fail("no answer")
      })
      const spec = Supervisor.make({
        name: "app",
        strategy: "one_for_one",
        children: [Child.layer("pool", layer, { probe, every: "1 second", failures: 2 })]
      })
      const ref = yield* Supervisor.start(spec)
      yield* pass(1000)
      const [pool] = pools
      if (pool !== undefined) pool.answers = false
      yield* pass(1000)
      assert.deepStrictEqual(yield* shown(ref), ["pool running 1"])
      yield* pass(1000)
      assert.deepStrictEqual(yield* shown(ref), ["pool running 2"])
      const [child] = yield* Supervisor.whichChildren(ref)
      const [last] = child === undefined ? [] : yield* Routine.attempts(child.routine)
      assert.deepStrictEqual([last?.reason, last?.errorType], ["defect", "ProbeFailed"])
      yield* pass(3000)
      assert.deepStrictEqual(asked, [1, 1, 1, 2, 2, 2])
    })
  )

  it.effect(
    "is not probed between its runs, nor before it is ready",
    scene(function*({ actor }) {
      const slow = yield* actor("slow", { start: () => Effect.sleep("5 seconds") })
      let probes = 0
      const probe = Effect.sync(() => void probes++)
      yield* Effect.forkScoped(Supervisor.start(app("one_for_one", [slow.child({ probe, every: "1 second" })])))
      yield* pass(5500)
      assert.strictEqual(probes, 0)
      yield* pass(1000)
      assert.strictEqual(probes, 1)
      yield* slow.fail()
      yield* pass(4000)
      assert.strictEqual(probes, 1)
      yield* pass(2500)
      assert.strictEqual(probes, 2)
    })
  )

  it.effect(
    "whose run ignores its interruption is stuck past its bound, and replaced where it says so",
    scene(function*() {
      let run = 0
      const deaf = Effect.suspend(() => ++run === 1 ? Effect.uninterruptible(Effect.sleep("1 minute")) : Effect.never)
      const spec = Supervisor.make({
        name: "app",
        strategy: "one_for_one",
        children: [
          Child.make("deaf", deaf, {
            probe: Effect.suspend(() => run === 1 ? Effect.fail("no") : Effect.void),
            every: "1 second",
            failures: 1,
            shutdown: "2 seconds",
            onUnstoppable: "replace"
          })
        ]
      })
      const ref = yield* Supervisor.start(spec)
      yield* pass(2999)
      assert.deepStrictEqual(yield* shown(ref), ["deaf running 1"])
      yield* pass(5)
      assert.deepStrictEqual(yield* shown(ref), ["deaf running 2"])
    })
  )

  it.effect(
    "and one that gives no sign of life are ended alike: past its bound a run is replaced, or waited for",
    scene(function*() {
      for (const onUnstoppable of ["replace", "wait"] as const) {
        let run = 0
        const deaf = Effect.suspend(() =>
          ++run === 1 ? Effect.uninterruptible(Effect.sleep("1 minute")) : Effect.andThen(Routine.beat, Effect.never)
        )
        const spec = Supervisor.make({
          name: onUnstoppable,
          strategy: "one_for_one",
          children: [Child.make("deaf", deaf, { idleTimeout: "40 seconds", shutdown: "2 seconds", onUnstoppable })]
        })
        const ref = yield* Supervisor.start(spec)
        yield* pass(41_999)
        assert.strictEqual(run, 1)
        yield* pass(2)
        assert.strictEqual(run, onUnstoppable === "replace" ? 2 : 1)
        yield* pass(20_000)
        assert.strictEqual(run, 2)
        yield* Supervisor.stop(ref)
      }
    })
  )
})
