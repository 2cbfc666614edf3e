import { recorder } from "@effect-orchestra/core/testing"
import { Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Random, Schedule } from "effect"
import { app, failsAt, pass, scene, settle, shown, type Stage, used } from "./Stage.ts"

const strategies = ["one_for_one", "one_for_all", "rest_for_one"] as const
const second = { backoff: Schedule.spaced("1 second") }

/** `a`, `b` and `c`, of which `b` fails at the start of the given runs, so long after their beginning. */
const withFailing = Effect.fnUntraced(function*(stage: Stage, runs: ReadonlyArray<number>, after = 0) {
  const fails = failsAt(...runs)
  const b = yield* stage.actor("b", {
    start: (run) => Effect.andThen(run > 1 && after > 0 ? Effect.sleep(after) : Effect.void, fails(run))
  })
  const [a, c] = yield* stage.cast("a", "c")
  return [a, b, c] as const
})

const every = Array.from({ length: 100 }, (_, i) => i + 2)

describe("failing restarts", () => {
  it.effect(
    "64. a restart that fails is tried again until it succeeds, each attempt counts, and no sibling is touched",
    scene(function*(stage) {
      const [a, b, c] = yield* withFailing(stage, [2, 3], 10)
      const ref = yield* Supervisor.start(app("one_for_one", [a.child(), b.child(), c.child()], { intensity: 5 }))
      stage.take()
      yield* b.fail()
      yield* settle
      for (const attempt of [2, 3]) {
        assert.deepStrictEqual(yield* shown(ref), ["a running 1", `b restarting ${attempt}`, "c running 1"])
        assert.strictEqual(yield* used(ref), attempt - 1)
        yield* pass(10)
      }
      assert.deepStrictEqual(yield* shown(ref), ["a running 1", "b restarting 4", "c running 1"])
      yield* pass(10)
      assert.deepStrictEqual(yield* shown(ref), ["a running 1", "b running 4", "c running 1"])
      assert.strictEqual(yield* used(ref), 3)
      assert.deepStrictEqual(
        stage.take(),
        ["exit b", "start b", "exit b", "start b", "exit b", "start b", "ready b"]
      )
    })
  )

  it.effect(
    "65. one_for_all stops what a failed round has started, and starts all again from the first",
    scene(function*(stage) {
      const [a, b, c] = yield* withFailing(stage, [2])
      const ref = yield* Supervisor.start(app("one_for_all", [a.child(), b.child(), c.child()]))
      stage.take()
      yield* a.fail()
      yield* settle
      assert.deepStrictEqual(stage.take(), [
        "exit a",
        "stop c",
        "stop b",
        "start a",
        "start b",
        "exit b",
        "stop a",
        "start a",
        "start b",
        "ready b",
        "start c"
      ])
      assert.deepStrictEqual(yield* shown(ref), ["a running 3", "b running 3", "c running 2"])
      assert.strictEqual(yield* used(ref), 2)
    })
  )

  it.effect(
    "66. rest_for_one goes on from the child that did not start; those before it stay",
    scene(function*(stage) {
      const [a, b, c] = yield* withFailing(stage, [2])
      const ref = yield* Supervisor.start(app("rest_for_one", [a.child(), b.child(), c.child()]))
      stage.take()
      yield* a.fail()
      yield* settle
      assert.deepStrictEqual(stage.take(), [
        "exit a",
        "stop c",
        "stop b",
        "start a",
        "start b",
        "exit b",
        "start b",
        "ready b",
        "start c"
      ])
      assert.deepStrictEqual(yield* shown(ref), ["a running 2", "b running 3", "c running 2"])
      assert.strictEqual(yield* used(ref), 2)
    })
  )

  it.effect(
    "67. a round that never gets through is tried intensity times; then what it has started is stopped, and the rest never starts",
    scene(function*(stage) {
      const [a, b, c] = yield* withFailing(stage, every)
      const ref = yield* Supervisor.start(app("one_for_all", [a.child(), b.child(), c.child()], { intensity: 3 }))
      stage.take()
      yield* a.fail()
      const end = yield* Effect.flip(Supervisor.await(ref))
      assert.deepStrictEqual([end.child, end.attempts], ["b", 4])
      const round = ["start a", "start b", "exit b", "stop a"]
      assert.deepStrictEqual(stage.take(), ["exit a", "stop c", "stop b", ...round, ...round, ...round])
    })
  )

  it.effect(
    "68. terminating a child that is about to restart cancels that for good; restarting it by hand works later",
    scene(function*(stage) {
      // Between two attempts, and within one.
      for (const [after, wait] of [[0, 500], [1000, 1500]] as const) {
        const [a, b, c] = yield* withFailing(stage, [2, 3, 4], after)
        const ref = yield* Supervisor.start(app("one_for_one", [a.child(), b.child(second), c.child()]))
        yield* b.fail()
        yield* pass(wait)
        assert.strictEqual((yield* Supervisor.whichChildren(ref))[1]?.state, "restarting")
        assert.strictEqual(yield* Supervisor.terminateChild(ref, "b"), "stopped")
        const { starts } = b
        stage.take()
        yield* pass(60_000)
        assert.deepStrictEqual(yield* shown(ref), ["a running 1", `b stopped ${starts}`, "c running 1"])
        assert.deepStrictEqual(stage.take(), [])
        // It fails to start until its fifth run.
        for (let run = starts + 1; run < 5; run++) {
          const failing = yield* Effect.forkChild(Effect.flip(Supervisor.restartChild(ref, "b")))
          yield* pass(after)
          assert.strictEqual((yield* Fiber.join(failing))._tag, "StartFailure")
        }
        const working = yield* Effect.forkChild(Supervisor.restartChild(ref, "b"))
        yield* pass(after)
        assert.strictEqual((yield* Fiber.join(working)).state, "running")
        assert.deepStrictEqual(yield* shown(ref), ["a running 1", "b running 5", "c running 1"])
        yield* Supervisor.stop(ref)
      }
    })
  )

  it.effect(
    "69. terminating the child that holds up its group lets the round finish without it",
    scene(function*(stage) {
      for (const strategy of ["one_for_all", "rest_for_one"] as const) {
        // Between two attempts, and within one.
        for (const [after, wait] of [[0, 500], [1000, 500]] as const) {
          const [a, b, c] = yield* withFailing(stage, every, after)
          const ref = yield* Supervisor.start(app(strategy, [a.child(), b.child(second), c.child()]))
          yield* a.fail()
          yield* pass(wait)
          const label = `${strategy} ${after}`
          assert.deepStrictEqual((yield* shown(ref)).slice(1), ["b restarting 2", "c restarting 1"], label)
          assert.strictEqual(yield* Supervisor.terminateChild(ref, "b"), "stopped")
          yield* settle
          for (const later of [0, 60_000]) {
            yield* pass(later)
            assert.deepStrictEqual((yield* shown(ref)).slice(1), ["b stopped 2", "c running 2"], label)
            assert.isTrue(a.live && !b.live, label)
          }
          yield* Supervisor.stop(ref)
        }
      }
    })
  )

  it.effect(
    "70. a child that is about to restart can be neither deleted nor restarted nor added",
    scene(function*(stage) {
      for (const [after, wait] of [[0, 500], [1000, 1500]] as const) {
        const [, b] = yield* withFailing(stage, every, after)
        const ref = yield* Supervisor.start(app("one_for_one", [b.child(second)]))
        yield* b.fail()
        yield* pass(wait)
        const { starts } = b
        for (const refused of [Supervisor.deleteChild(ref, "b"), Supervisor.restartChild(ref, "b")]) {
          const error = yield* Effect.flip<unknown, unknown, never>(refused)
          assert.instanceOf(error, SupervisorError.ChildRestarting)
          assert.deepStrictEqual([error.supervisor, error.child], ["/orchestra/app", "b"])
        }
        const present = yield* Effect.flip(Supervisor.startChild(ref, b.child()))
        assert.instanceOf(present, SupervisorError.AlreadyPresent)
        assert.deepStrictEqual([present.child, present.state], ["b", "restarting"])
        assert.deepStrictEqual(yield* shown(ref), [`b restarting ${starts}`])
        yield* Supervisor.stop(ref)
      }
    })
  )

  it.effect(
    "71. a stop while a child is about to restart is served at once: no further attempt, no word of giving up",
    scene(function*(stage) {
      const record = yield* recorder
      for (const strategy of strategies) {
        for (const [after, wait] of [[0, 500], [1000, 1500]] as const) {
          const [a, b, c] = yield* withFailing(stage, every, after)
          const ref = yield* Supervisor.start(app(strategy, [a.child(), b.child(second), c.child()]))
          yield* b.fail()
          yield* pass(wait)
          stage.take()
          const { starts } = b
          const stopping = yield* Effect.forkChild(Supervisor.stop(ref), { startImmediately: true })
          yield* settle
          assert.isDefined(stopping.pollUnsafe(), strategy)
          yield* Supervisor.await(ref)
          yield* pass(60_000)
          assert.strictEqual(b.starts, starts)
          assert.isFalse(a.live || b.live || c.live)
        }
      }
      assert.deepStrictEqual(record.tags.filter((tag) => tag === "GaveUp" || tag === "Stuck"), [])
    })
  )

  it.effect(
    "72. a stop while a group starts stops what it has started in reverse order, and nothing starts any more",
    scene(function*(stage) {
      for (const strategy of ["one_for_all", "rest_for_one"] as const) {
        const [a, b] = yield* stage.cast("a", "b")
        const c = yield* stage.actor("c", { start: (run) => run === 1 ? Effect.void : Effect.sleep(1000) })
        const d = yield* stage.actor("d")
        const ref = yield* Supervisor.start(app(strategy, [a.child(), b.child(), c.child(), d.child()]))
        stage.take()
        yield* a.fail()
        yield* pass(500)
        assert.deepStrictEqual(
          stage.take(),
          ["exit a", "stop d", "stop c", "stop b", "start a", "start b", "start c"]
        )
        const stopping = yield* Effect.forkChild(Supervisor.stop(ref), { startImmediately: true })
        yield* settle
        assert.isDefined(stopping.pollUnsafe(), strategy)
        yield* pass(60_000)
        assert.deepStrictEqual(stage.take(), ["stop c", "stop b", "stop a"])
        yield* Supervisor.await(ref)
      }
    })
  )

  it.effect(
    "73. a sibling that fails while a retry is pending is handled, and the retry is not done twice",
    scene(function*(stage) {
      for (const strategy of strategies) {
        const [a, b, c] = yield* withFailing(stage, [2])
        const ref = yield* Supervisor.start(
          app(strategy, [a.child(), b.child(second), c.child()], { intensity: 10, period: "1 hour" })
        )
        yield* b.fail()
        // Its first restart fails, the second is due a second later. One that is to be restarted with it may be down.
        yield* pass(1500)
        assert.strictEqual(b.starts, 2)
        if (a.live) yield* a.fail()
        yield* pass(60_000)
        assert.strictEqual(b.starts, 3, strategy)
        assert.deepStrictEqual(
          (yield* Supervisor.whichChildren(ref)).map(({ state }) => state),
          ["running", "running", "running"],
          strategy
        )
        if (strategy === "one_for_one") {
          assert.deepStrictEqual([a.starts, c.starts, yield* used(ref)], [2, 1, 3])
        }
        yield* Supervisor.stop(ref)
      }
    })
  )

  it.effect(
    "74. a child that says at its restart that it is not needed is stopped, its siblings run, and nobody tries again",
    scene(function*(stage) {
      for (const strategy of strategies) {
        for (const restart of ["permanent", "transient"] as const) {
          const [a, c] = yield* stage.cast("a", "c")
          const b = yield* stage.actor("b", { start: (run) => run === 1 ? Effect.void : Supervisor.ignore })
          const ref = yield* Supervisor.start(app(strategy, [a.child(), b.child({ restart }), c.child()]))
          yield* b.fail()
          yield* pass(60_000)
          assert.deepStrictEqual(
            yield* shown(ref),
            [
              strategy === "one_for_all" ? "a running 2" : "a running 1",
              "b stopped 2",
              strategy === "one_for_one" ? "c running 1" : "c running 2"
            ],
            strategy
          )
          assert.strictEqual(b.starts, 2)
          yield* Supervisor.stop(ref)
        }
      }
    })
  )

  it.effect(
    "75. a child added while another is about to restart starts at once, and takes part in the next round of its group",
    scene(function*(stage) {
      for (const strategy of strategies) {
        const [a, b, c] = yield* withFailing(stage, [2])
        const d = yield* stage.actor("d")
        const ref = yield* Supervisor.start(app(strategy, [a.child(), b.child(second), c.child()]))
        yield* b.fail()
        yield* pass(1500)
        stage.take()
        yield* Supervisor.startChild(ref, d.child())
        assert.deepStrictEqual(stage.take(), ["start d"], strategy)
        const stopped = a.live ? ["stop a"] : []
        yield* pass(500)
        const rounds = {
          one_for_one: ["start b", "ready b"],
          one_for_all: ["stop d", ...stopped, "start a", "start b", "ready b", "start c", "start d"],
          rest_for_one: ["stop d", "start b", "ready b", "start c", "start d"]
        }
        assert.deepStrictEqual(stage.take(), rounds[strategy], strategy)
        yield* Supervisor.stop(ref)
      }
    })
  )

  it.effect(
    "76. a backoff of 1, 2 and 4 s tries 1, 3 and 7 s after the failure; meanwhile all is answered at once; a stop cancels it",
    scene(function*(stage) {
      const times: Array<number> = []
      const b = yield* stage.actor("b", {
        start: (run) =>
          Effect.andThen(
            Effect.map(Clock.currentTimeMillis, (now) => void times.push(now)),
            run === 1 ? Effect.void : Effect.fail("no")
          )
      })
      const [a, d] = yield* stage.cast("a", "d")
      const backoff = Schedule.exponential("1 second")
      const ref = yield* Supervisor.start(app("one_for_one", [a.child(), b.child({ backoff })], { intensity: 10 }))
      const failedAt = yield* Clock.currentTimeMillis
      yield* b.fail()
      yield* pass(7500)
      assert.deepStrictEqual(times.map((time) => time - failedAt).slice(1), [1000, 3000, 7000])
      const now = yield* Clock.currentTimeMillis
      assert.deepStrictEqual(yield* shown(ref), ["a running 1", "b restarting 4"])
      assert.strictEqual((yield* Supervisor.countChildren(ref)).active, 1)
      yield* Supervisor.startChild(ref, d.child())
      yield* Supervisor.terminateChild(ref, "a")
      assert.deepStrictEqual(yield* shown(ref), ["a stopped 1", "b restarting 4", "d running 1"])
      yield* Supervisor.stop(ref)
      assert.strictEqual(yield* Clock.currentTimeMillis, now)
      yield* pass(60_000)
      assert.strictEqual(b.starts, 4)
    })
  )

  it.effect(
    "77. a backoff begins anew after a run as long as resetAfter, not after one that was merely ready",
    scene(function*(stage) {
      const record = yield* recorder
      const a = yield* stage.actor("a", { start: () => Effect.void })
      const options = { backoff: Schedule.exponential("1 second"), resetAfter: "10 seconds" } as const
      const ref = yield* Supervisor.start(app("one_for_one", [a.child(options)], { intensity: 10 }))
      for (const run of [0, 5000, 9999, 10_000, 0]) {
        yield* pass(run)
        yield* a.fail()
        // Longer than any delay, shorter than it takes to be stable.
        while (!a.live) yield* pass(1000)
      }
      const delays = record.events.flatMap((event) => event._tag === "Restarted" ? [event.delayMillis] : [])
      assert.deepStrictEqual(delays, [1000, 2000, 4000, 1000, 2000])
      yield* Supervisor.stop(ref)
    })
  )

  it.effect(
    "78. a member that fails while its group waits in a backoff joins that round, which counts once",
    scene(function*(stage) {
      for (const strategy of ["one_for_all", "rest_for_one"] as const) {
        // It fails while the members of the round are stopped, or when they are and it waits.
        for (const when of [100, 600]) {
          const [a, b] = yield* stage.cast("a", "b")
          const c = yield* stage.actor("c", { stop: (run) => run === 1 ? Effect.sleep(300) : Effect.void })
          const ref = yield* Supervisor.start(app(strategy, [a.child(), b.child(second), c.child()], { intensity: 1 }))
          yield* b.fail()
          yield* pass(when)
          // Under one_for_all it may have been stopped with the others by then.
          if (a.live) yield* a.fail()
          yield* pass(1250 - when)
          assert.isFalse(a.live || b.live || c.live, `${strategy} ${when}`)
          yield* pass(60_000)
          assert.deepStrictEqual(
            yield* shown(ref),
            ["a running 2", "b running 2", "c running 2"],
            `${strategy} ${when}`
          )
          assert.strictEqual(b.starts, 2)
          yield* Supervisor.stop(ref)
        }
      }
      // The backoff stands when the one that joined is not to run any more; who failed is told so.
      const record = yield* recorder
      const [a, b, c] = yield* stage.cast("a", "b", "c")
      const ref = yield* Supervisor.start(app("rest_for_one", [a.child(), b.child(second), c.child()]))
      yield* b.fail()
      yield* pass(400)
      yield* a.fail()
      yield* pass(100)
      yield* Supervisor.terminateChild(ref, "a")
      yield* pass(499)
      assert.isFalse(b.live)
      yield* pass(1)
      assert.deepStrictEqual(yield* shown(ref), ["a stopped 1", "b running 2", "c running 2"])
      assert.deepStrictEqual(
        record.events.flatMap((event) => event._tag === "Restarted" ? [[event.name, event.reason]] : []),
        [["b", "failure"], ["c", "sibling"]]
      )
    })
  )

  it.effect(
    "79. jitter stays within its bounds and is drawn from the Random of whoever started the supervisor",
    scene(function*(stage) {
      const record = yield* recorder
      const delays = Effect.fnUntraced(function*(seed: string) {
        const [a] = yield* stage.cast("a")
        const backoff = Schedule.jittered(Schedule.spaced("1 second"))
        const spec = app("one_for_one", [a.child({ backoff })], { intensity: 100 })
        const from = record.events.length
        const ref = yield* Random.withSeed(Supervisor.start(spec), seed)
        for (let failure = 0; failure < 20; failure++) {
          yield* a.fail()
          yield* pass(1200)
        }
        yield* Supervisor.stop(ref)
        return record.events.slice(from).flatMap((event) => event._tag === "Restarted" ? [event.delayMillis] : [])
      })
      const [one, same, other] = [yield* delays("one"), yield* delays("one"), yield* delays("other")]
      assert.strictEqual(one.length, 20)
      assert.isTrue([...one, ...other].every((delay) => delay >= 800 && delay <= 1200), one.join())
      assert.isAbove(Math.max(...one) - Math.min(...one), 100)
      assert.deepStrictEqual(same, one)
      assert.notDeepEqual(other, one)
    })
  )

  it.effect(
    "169. a restart that fails, in whatever way, leaves the supervisor alive and is tried again",
    scene(function*(stage) {
      const ways: ReadonlyArray<readonly [string, Effect.Effect<unknown, unknown>]> = [
        ["a failure", Effect.fail("no")],
        ["a defect", Effect.die("no")],
        ["an exception", Effect.sync(() => JSON.parse("{"))],
        ["an interruption", Effect.interrupt],
        ["a timeout", Effect.never]
      ]
      for (const [how, end] of ways) {
        for (
          const [strategy, kind] of [
            ["one_for_one", "child"],
            ["rest_for_one", "layer"],
            ["one_for_all", "child"]
          ] as const
        ) {
          const a = yield* stage.actor("a")
          const b = yield* stage.actor("b", { start: (run) => run === 2 ? end : Effect.void })
          const ref = yield* Supervisor.start(app(strategy, [a.child(), b[kind]({ startTimeout: "1 second" })]))
          yield* b.fail()
          yield* pass(1000)
          const starts = strategy === "one_for_all" ? 3 : 1
          assert.deepStrictEqual(yield* shown(ref), [`a running ${starts}`, "b running 3"], `${how} ${kind}`)
          yield* Supervisor.stop(ref)
        }
      }
    })
  )

  it.effect(
    "170. when the first delayed attempt fails, the second follows, and so on until one succeeds",
    scene(function*(stage) {
      for (const strategy of strategies) {
        const [a, b, c] = yield* withFailing(stage, [2, 3, 4, 5])
        const ref = yield* Supervisor.start(
          app(strategy, [a.child(), b.child(second), c.child()], { intensity: 10 })
        )
        yield* b.fail()
        for (const starts of [1, 2, 3, 4, 5, 6]) {
          yield* pass(starts === 1 ? 999 : 1000)
          assert.strictEqual(b.starts, starts, strategy)
        }
        yield* pass(1)
        assert.isTrue(a.live && b.live && c.live, strategy)
        yield* Supervisor.stop(ref)
      }
    })
  )
})
