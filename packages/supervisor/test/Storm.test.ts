import { Orchestrator } from "@effect-orchestra/core"
import { atEveryOperation } from "@effect-orchestra/core/testing"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Layer, Random, Schedule } from "effect"
import { TestClock } from "effect/testing"

const seeds = Number(process.env.SEEDS ?? 200)

/**
 * A child whose every run is watched: two that overlap, or a run that starts after the end, are faults. It can be told
 * to fail at any time, and may be slow to start and slow to end.
 */
const watched = (id: string, faults: Array<string>, over: () => boolean) => {
  let live = 0
  let runs = 0
  let fail = Deferred.makeUnsafe<never, string>()
  const enter = Effect.sync(() => {
    if (live > 0) faults.push(`two runs of ${id} overlap`)
    if (over()) faults.push(`${id} started after the end`)
    live++
    runs++
    fail = Deferred.makeUnsafe<never, string>()
    return fail
  })
  const leave = Effect.sync(() => void live--)
  const body = (slowStart: number, slowEnd: number) =>
    Layer.effectDiscard(Effect.gen(function*() {
      const signal = yield* Effect.acquireRelease(enter, () => Effect.andThen(Effect.sleep(slowEnd), leave))
      yield* Effect.sleep(slowStart)
      yield* Orchestrator.forkScoped(Deferred.await(signal))
    }))
  return {
    id,
    body,
    fail: Effect.suspend(() => Deferred.fail(fail, `${id} failed`)),
    live: () => live,
    runs: () => runs
  }
}

describe("a storm of failures", () => {
  for (const strategy of ["one_for_one", "rest_for_one"] as const) {
    it.effect(
      `under ${strategy}: no two runs overlap, nothing starts after the end, nothing is left`,
      () =>
        Effect.gen(function*() {
          let restarts = 0
          for (let seed = 0; seed < seeds; seed++) {
            yield* Effect.gen(function*() {
              const faults: Array<string> = []
              let ended = false
              const children = ["a", "b", "c", "d"].map((id) => watched(id, faults, () => ended))
              const layers = yield* Effect.forEach(children, ({ body, id }) =>
                Effect.gen(function*() {
                  const layer = body(yield* Random.nextIntBetween(0, 3), yield* Random.nextIntBetween(0, 3))
                  const backoff = (yield* Random.nextBoolean) ? Schedule.spaced("2 millis") : undefined
                  return Child.layer(id, layer, { backoff, startTimeout: "1 second" })
                }))
              const intensity = yield* Random.nextIntBetween(0, 40)
              const spec = Supervisor.make({ name: "app", strategy, intensity, period: "20 millis", children: layers })
              const fiber = yield* Effect.forkChild(Supervisor.run(spec), { startImmediately: true })
              for (let step = 0; step < 25; step++) {
                const child = children[yield* Random.nextIntBetween(0, children.length)]
                if (child !== undefined) yield* child.fail
                yield* TestClock.adjust(yield* Random.nextIntBetween(0, 12))
              }
              const stopping = yield* Effect.forkChild(Fiber.interrupt(fiber), { startImmediately: true })
              yield* TestClock.adjust("1 minute")
              yield* Fiber.join(stopping)
              ended = true
              yield* TestClock.adjust("1 minute")
              assert.deepStrictEqual(faults, [], `seed ${seed}`)
              assert.deepStrictEqual(children.map(({ live }) => live()), [0, 0, 0, 0], `seed ${seed}`)
              assert.strictEqual((yield* Orchestrator.snapshot).length, 1, `seed ${seed}`)
              for (const { runs } of children) restarts += runs() - 1
            }).pipe(Random.withSeed(`${strategy} ${seed}`))
          }
          assert.isAbove(restarts, 5 * seeds)
        }).pipe(Effect.provide(Orchestrator.layer)),
      120_000
    )
  }
})

describe("interrupted at any operation", () => {
  it.effect("a start leaves no child behind", () =>
    Effect.gen(function*() {
      let open = 0
      const resource = Effect.acquireRelease(Effect.sync(() => void open++), () => Effect.sync(() => void open--))
      const spec = Supervisor.make({
        name: "app",
        strategy: "rest_for_one",
        children: [
          Child.layer("a", Layer.effectDiscard(resource)),
          Child.make("b", Effect.andThen(resource, Effect.never)),
          Child.layer("c", Layer.effectDiscard(Effect.andThen(resource, Effect.yieldNow)))
        ]
      })
      const operations = yield* atEveryOperation(Supervisor.start(spec), () =>
        Effect.gen(function*() {
          assert.strictEqual(open, 0)
          assert.strictEqual((yield* Orchestrator.snapshot).length, 1)
        }))
      assert.isAbove(operations, 10)
    }).pipe(Effect.provide(Orchestrator.layer)))
})
