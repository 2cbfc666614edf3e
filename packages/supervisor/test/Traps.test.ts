import { steerableChild, TestOrchestra } from "@effect-orchestra/core/testing"
import { Child, type Restart, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Random, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { listed, play, scenes } from "./Play.ts"
import { scene, settle, shown, slow, Stage } from "./Stage.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

const strategies: ReadonlyArray<Restart.Strategy> = ["one_for_one", "one_for_all", "rest_for_one", "dependency"]

const told = (seed: number) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.catchDefect(effect, (defect) => Effect.die(new Error(`seed ${seed}: ${defect}`, { cause: defect })))

describe("traps that others fell into", () => {
  it.effect(
    "171. no last restart comes through a stop; a supervisor that ended starts nothing; what is cancelled early is gone",
    () =>
      Effect.gen(function*() {
        // The stop comes just before the next start is due, at the same time, and just after.
        const starts = new Set<number>()
        for (let seed = 0; seed < seeds; seed++) {
          const [before, after] = yield* TestOrchestra.run(
            Effect.gen(function*() {
              const a = yield* steerableChild<void, string>({ name: "a" })
              const late = yield* steerableChild({ name: "late" })
              const backoff = seed % 4 === 3 ? undefined : Schedule.spaced("10 millis")
              const app = yield* play([Child.make("a", a.effect, { backoff }), Child.make("b", Effect.never)], {
                strategy: strategies[seed % 3] ?? "one_for_one"
              })
              yield* a.fail("no")
              yield* Effect.sleep(9 + seed % 3)
              const adding = yield* Effect.forkChild(
                Effect.exit(Supervisor.startChild(app, Child.make("late", late.effect)))
              )
              if (seed % 2 === 0) yield* Effect.yieldNow
              yield* Supervisor.stop(app)
              const before = [a.starts, late.starts]
              assert.deepStrictEqual([a.live, late.live], [false, false])
              assert.isTrue(Exit.isFailure(yield* Effect.exit(Supervisor.restartChild(app, "a"))))
              yield* Effect.sleep("1 hour")
              yield* Fiber.join(adding)
              return [before, [a.starts, late.starts]]
            }),
            { seed }
          ).pipe(told(seed))
          assert.deepStrictEqual(after, before, `seed ${seed}`)
          starts.add(after?.[0] ?? 0)
        }
        // Both did happen: the next run came before the stop, and the stop before it.
        assert.deepStrictEqual([...starts].toSorted(), [1, 2])
        // Who is interrupted as soon as it asked has changed nothing.
        yield* scene(function*(stage) {
          const [b] = yield* stage.cast("b")
          const app = yield* play([])
          for (let turns = 0; turns < 5; turns++) {
            const adding = yield* Effect.forkChild(Supervisor.startChild(app, b.child()), {
              startImmediately: turns > 0
            })
            for (let turn = 1; turn < turns; turn++) yield* Effect.yieldNow
            yield* Fiber.interrupt(adding)
            const kept = yield* shown(app)
            if (kept.length > 0) yield* Supervisor.terminateChild(app, "b")
            if (kept.length > 0) yield* Supervisor.deleteChild(app, "b")
            assert.isTrue(turns > 0 || kept.length === 0)
            assert.deepStrictEqual([yield* listed, b.live], [[], false])
          }
        })()
      }),
    120_000
  )

  it.effect(
    "172. a start by hand takes the place of the restart that was pending: no ghost of it undoes a later stop",
    scene(function*(stage) {
      for (const strategy of strategies) {
        const [a, b] = yield* stage.cast("a", "b")
        const app = yield* play([a.child({ backoff: Schedule.spaced("10 seconds") }), b.child()], { strategy })
        yield* a.fail()
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual(
          [(yield* Supervisor.whichChildren(app))[0]?.state, a.starts],
          ["restarting", 1],
          strategy
        )
        yield* Supervisor.terminateChild(app, "a")
        yield* Supervisor.restartChild(app, "a")
        assert.strictEqual(a.starts, 2)
        // When the old restart is due, it is not made beside the new run ...
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual([a.starts, a.live], [2, true], strategy)
        yield* Supervisor.terminateChild(app, "a")
        // ... nor after a stop.
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual([a.starts, a.live], [2, false], strategy)
        // Nor does a child of the same id, added anew, inherit it.
        yield* Supervisor.restartChild(app, "a")
        yield* a.fail()
        yield* settle
        yield* Supervisor.terminateChild(app, "a")
        yield* Supervisor.deleteChild(app, "a")
        yield* Supervisor.startChild(app, Child.make("a", Effect.never))
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(a.starts, 3, strategy)
        const children = yield* Supervisor.whichChildren(app)
        assert.deepStrictEqual(children.map(({ id, incarnation }) => [id, incarnation]), [["b", b.starts], ["a", 1]])
        yield* Supervisor.stop(app)
      }
    })
  )

  it.effect(
    "173. who gives up stops just its own present children, in reverse order, each once",
    scene(function*(stage) {
      for (const strategy of strategies) {
        const [a, gone, bad, d, added, stranger] = yield* stage.cast("a", "gone", "bad", "d", "added", "stranger")
        const app = yield* play([a.child(), gone.child(), bad.child(), scenes("deep", [d.child()])], {
          strategy,
          intensity: 0
        })
        const other = yield* play([stranger.child()], { name: "other" })
        yield* Supervisor.terminateChild(app, "gone")
        yield* Supervisor.deleteChild(app, "gone")
        yield* Supervisor.startChild(app, added.child())
        stage.take()
        yield* bad.fail()
        assert.isTrue(Exit.isFailure(yield* Effect.exit(Supervisor.await(app))), strategy)
        const [first, ...stops] = stage.take()
        assert.strictEqual(first, "exit bad")
        // Independent children are stopped together under the strategy dependency.
        const reverse = ["stop added", "stop d", "stop a"]
        if (strategy === "dependency") assert.sameMembers(stops, reverse)
        else assert.deepStrictEqual(stops, reverse, strategy)
        assert.deepStrictEqual([stranger.live, gone.starts], [true, 1], strategy)
        yield* Supervisor.stop(other)
      }
      // One level down: the parent's other children are not its business.
      const [a, b, bad] = yield* stage.cast("a", "b", "bad")
      const inner = scenes("inner", [b.child(), bad.child()], { intensity: 0, child: { restart: "temporary" } })
      const app = yield* play([inner, a.child()])
      stage.take()
      yield* bad.fail()
      yield* settle
      assert.deepStrictEqual(stage.take(), ["exit bad", "stop b"])
      assert.deepStrictEqual(yield* shown(app), ["a running 1"])
    })
  )

  it.effect(
    "174. a stop that meets a restart half way, wherever, wins: nothing runs and nothing starts afterwards",
    () =>
      Effect.gen(function*() {
        let restarts = 0
        for (let seed = 0; seed < seeds; seed++) {
          restarts += yield* TestOrchestra.run(
            Effect.gen(function*() {
              const stage = new Stage()
              const cast = yield* Effect.forEach(["a", "b", "c"], (id) =>
                stage.actor(id, { start: slow(seed % 4), stop: slow(seed % 3) }))
              const app = yield* play(
                cast.map((actor) =>
                  actor.child()
                ),
                {
                  strategy: strategies[seed % 4] ?? "one_for_one",
                  intensity: 100
                }
              )
              const failing = yield* Effect.forEach(
                cast,
                (actor, index) => Effect.forkChild(Effect.delay(actor.fail(), index))
              )
              const byHand = yield* Effect.forkChild(
                Effect.exit(Effect.andThen(Supervisor.terminateChild(app, "b"), Supervisor.restartChild(app, "b")))
              )
              yield* Effect.sleep(yield* Random.nextIntBetween(0, 12))
              const whole = seed % 2 === 0
              if (whole) yield* Supervisor.stop(app)
              else yield* Supervisor.terminateChild(app, "a")
              const starts = cast.map((actor) => actor.starts)
              const stopped = whole ? cast : cast.slice(0, 1)
              for (const { id, live } of stopped) assert.isFalse(live, `${id} lives`)
              yield* Effect.forEach(failing, (fiber) => Fiber.interrupt(fiber))
              yield* Effect.sleep("1 hour")
              yield* Fiber.interrupt(byHand)
              for (const [index, { id, live, starts: now }] of stopped.entries()) {
                assert.deepStrictEqual([live, now], [false, starts[index]], `${id} started again`)
              }
              for (const actor of cast) yield* actor.check
              return cast.reduce((sum, actor) => sum + actor.starts - 1, 0)
            }),
            { seed }
          ).pipe(told(seed))
        }
        assert.isAbove(restarts, seeds)
      }),
    120_000
  )
})
