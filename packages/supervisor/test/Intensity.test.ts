import { Orchestrator } from "@effect-orchestra/core"
import { recorder } from "@effect-orchestra/core/testing"
import { Child, Restart, Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Effect, Option } from "effect"
import { app, pass, scene, settle, shown, slow, used } from "./Stage.ts"

/** A child that fails so long after every start, and how often it has started. */
const failing = (id: string, every: number) => {
  const seen = { runs: 0 }
  const effect = Effect.andThen(
    Effect.sync(() => void seen.runs++),
    Effect.andThen(Effect.sleep(every), Effect.suspend(() => Effect.fail(`run ${seen.runs}`)))
  )
  return { child: Child.make(id, effect), seen }
}

describe("restart intensity", () => {
  it.effect(
    "46. with intensity 0 the first failure ends the supervisor and nothing is restarted",
    scene(function*(stage) {
      const record = yield* recorder
      const [a] = yield* stage.cast("a")
      for (const strategy of ["one_for_one", "one_for_all", "rest_for_one"] as const) {
        const ref = yield* Supervisor.start(app(strategy, [a.child()], { intensity: 0 }))
        yield* a.fail()
        const end = yield* Effect.flip(Supervisor.await(ref))
        assert.deepStrictEqual([end.child, end.attempts], ["a", 1])
        assert.deepStrictEqual(stage.take(), ["start a", "exit a"])
      }
      assert.notInclude(record.tags, "Restarted")
    })
  )

  it.effect(
    "47. with intensity n there are n restarts within the period, and the next failure ends the supervisor",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      for (const kind of ["child", "layer"] as const) {
        for (const intensity of [1, 2, 3]) {
          const before = a.starts
          const ref = yield* Supervisor.start(app("one_for_one", [a[kind]()], { intensity }))
          for (let failure = 1; failure <= intensity; failure++) {
            yield* a.fail()
            yield* pass(1000)
            assert.deepStrictEqual(yield* shown(ref), [`a running ${failure + 1}`])
          }
          assert.strictEqual(yield* used(ref), intensity)
          yield* a.fail()
          assert.strictEqual((yield* Effect.flip(Supervisor.await(ref))).attempts, intensity + 1)
          assert.strictEqual(a.starts - before, intensity + 1)
        }
      }
    })
  )

  it.effect(
    "48. what is longer ago than the period is forgotten: n failures, a pause, n failures",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      const ref = yield* Supervisor.start(app("one_for_one", [a.child()], { intensity: 3, period: "10 seconds" }))
      for (let time = 0; time < 3; time++) {
        for (let failure = 0; failure < 3; failure++) {
          yield* a.fail()
          yield* settle
        }
        yield* pass(11_000)
        assert.strictEqual(yield* used(ref), 0)
      }
      assert.deepStrictEqual(yield* shown(ref), ["a running 10"])
    })
  )

  it.effect(
    "49. the period slides: intensity 2 in 10 s lets 0, 9, 11 and 20.5 s pass, and ends at the third of 0, 5 and 9 s",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      const failAt = Effect.fnUntraced(function*(times: ReadonlyArray<number>) {
        const ref = yield* Supervisor.start(app("one_for_one", [a.child()], { intensity: 2, period: "10 seconds" }))
        let now = 0
        for (const time of times) {
          yield* pass(time - now)
          now = time
          yield* a.fail()
          yield* settle
        }
        return ref
      })
      const alive = yield* failAt([0, 9000, 11_000, 20_500])
      assert.deepStrictEqual(yield* shown(alive), ["a running 5"])
      yield* Supervisor.stop(alive)
      const dead = yield* failAt([0, 5000, 9000])
      assert.strictEqual((yield* Effect.flip(Supervisor.await(dead))).attempts, 3)
    })
  )

  it.effect(
    "50. a restart counts until just before it is a period old, to the millisecond",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      for (const [later, alive] of [[999, false], [1000, true], [1001, true]] as const) {
        const ref = yield* Supervisor.start(app("one_for_one", [a.child()], { intensity: 1, period: "1 second" }))
        // Not at a full second.
        yield* pass(307)
        yield* a.fail()
        yield* pass(later)
        yield* a.fail()
        yield* settle
        assert.strictEqual(a.live, alive, `${later} ms later`)
        yield* Supervisor.stop(ref)
      }
    })
  )

  it.effect(
    "51. under one_for_one the failures of all children share one budget; a budget of one's own is apart",
    scene(function*(stage) {
      const [a, b, c] = yield* stage.cast("a", "b", "c")
      const ref = yield* Supervisor.start(
        app("one_for_one", [a.child(), b.child(), c.child({ intensity: 2 })], { intensity: 2 })
      )
      for (const actor of [a, c, b, c]) {
        yield* actor.fail()
        yield* settle
      }
      assert.deepStrictEqual(yield* shown(ref), ["a running 2", "b running 2", "c running 3"])
      assert.strictEqual(yield* used(ref), 2)
      yield* a.fail()
      assert.strictEqual((yield* Effect.flip(Supervisor.await(ref))).child, "a")
    })
  )

  it.effect(
    "52. the restart of a group of 50 counts once",
    scene(function*(stage) {
      const actors = yield* Effect.forEach(Array.from({ length: 50 }, (_, i) => `child-${i}`), (id) => stage.actor(id))
      for (const strategy of ["one_for_all", "rest_for_one"] as const) {
        const ref = yield* Supervisor.start(app(strategy, actors.map((actor) => actor.child()), { intensity: 3 }))
        yield* actors[0]?.fail() ?? Effect.void
        yield* settle
        while (actors.at(-1)?.live !== true) yield* Effect.yieldNow
        yield* settle
        assert.deepStrictEqual(
          (yield* Supervisor.whichChildren(ref)).map(({ incarnation, state }) => [state, incarnation]),
          actors.map(() => ["running", 2])
        )
        assert.strictEqual(yield* used(ref), 1)
        yield* Supervisor.stop(ref)
      }
    })
  )

  it.effect(
    "53. every attempt counts, also one that fails: a child that never starts again is tried intensity times more",
    scene(function*(stage) {
      for (const kind of ["child", "layer"] as const) {
        const a = yield* stage.actor("a", { start: (run) => run === 1 ? Effect.void : Effect.fail(`start ${run}`) })
        const ref = yield* Supervisor.start(app("one_for_one", [a[kind]()], { intensity: 3 }))
        yield* a.fail()
        const end = yield* Effect.flip(Supervisor.await(ref))
        assert.deepStrictEqual([a.starts, end.attempts], [4, 4], kind)
        assert.deepStrictEqual(
          end.causes.map((cause) => Option.getOrUndefined(Cause.findErrorOption(cause))),
          ["a failed", "start 2", "start 3", "start 4"]
        )
      }
    })
  )

  it.effect(
    "54. what is done by hand counts nothing",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      const ref = yield* Supervisor.start(app("one_for_one", [a.child()], { intensity: 0 }))
      for (let time = 1; time <= 20; time++) {
        assert.strictEqual(yield* Supervisor.terminateChild(ref, "a"), "stopped")
        yield* Supervisor.restartChild(ref, "a")
      }
      assert.deepStrictEqual(yield* shown(ref), ["a running 21"])
      assert.strictEqual(yield* used(ref), 0)
    })
  )

  it.effect(
    "55. giving up starts nothing more, stops the others in reverse order within their bounds, and is told once",
    scene(function*(stage) {
      const record = yield* recorder
      const [b, c] = yield* stage.cast("b", "c")
      const a = yield* stage.actor("a", { stop: slow(100) })
      const d = yield* stage.actor("d")
      const inner = Supervisor.make({
        name: "inner",
        strategy: "one_for_one",
        intensity: 0,
        children: [a.child(), b.child(), c.child({ shutdown: "300 millis" }), d.child()]
      })
      const ref = yield* Supervisor.start(app("one_for_one", [Child.supervisor(inner)], { intensity: 0 }))
      yield* c.ignoreInterruption()
      stage.take()
      yield* b.fail()
      yield* pass(299)
      assert.deepStrictEqual(stage.take(), ["exit b", "stop d"])
      yield* pass(101)
      assert.deepStrictEqual(stage.take(), ["stopping a", "stop a"])
      const end = yield* Effect.flip(Supervisor.await(ref))
      assert.strictEqual(end.child, "inner")
      assert.instanceOf(
        Option.getOrThrow(Cause.findErrorOption(end.causes[0] ?? Cause.empty)),
        SupervisorError.RestartIntensityReached
      )
      yield* c.release
      yield* pass(60_000)
      assert.deepStrictEqual(stage.take(), ["stop c"])
      const told = (path: string, tag: string) => record.of(path).filter(({ _tag }) => _tag === tag).length
      assert.strictEqual(told("/orchestra/app/inner", "GaveUp"), 1)
      assert.strictEqual(told("/orchestra/app/inner", "Exited"), 1)
      assert.strictEqual(told("/orchestra/app", "GaveUp"), 1)
    })
  )

  it.effect(
    "56. the end says which child it was, why its last restarts were needed, how often it was started, and the window",
    scene(function*(stage) {
      const [a, b] = yield* stage.cast("a", "b")
      const give = Effect.fnUntraced(function*(intensity: number) {
        const ref = yield* Supervisor.start(
          app("one_for_one", [a.child(), b.child()], { intensity, period: "1 minute" })
        )
        for (let failure = 0; failure <= intensity; failure++) {
          yield* a.fail(`failure ${failure}`)
          yield* settle
        }
        return yield* Effect.flip(Supervisor.await(ref))
      })
      const errors = ({ causes }: SupervisorError.RestartIntensityReached) =>
        causes.map((cause) => Option.getOrUndefined(Cause.findErrorOption(cause)))
      const end = yield* give(2)
      assert.deepStrictEqual(
        [end.supervisor, end.child, end.attempts, end.window],
        ["/orchestra/app", "a", 3, { intensity: 2, periodMillis: 60_000 }]
      )
      assert.deepStrictEqual(errors(end), ["failure 0", "failure 1", "failure 2"])
      assert.include(end.message, "failure 2")
      // The last ten, oldest first.
      assert.deepStrictEqual(errors(yield* give(12)), Array.from({ length: 10 }, (_, i) => `failure ${i + 3}`))
    })
  )

  /** A supervisor that gives up at the first failure of its child, below another. */
  const below = (restart: Restart.RestartType) =>
    scene(function*(stage) {
      const record = yield* recorder
      const [a, b] = yield* stage.cast("a", "b")
      const inner = Supervisor.make({ name: "inner", strategy: "one_for_one", intensity: 0, children: [a.child()] })
      const ref = yield* Supervisor.start(
        app("one_for_one", [Child.supervisor(inner, { restart }), b.child()], { intensity: 1 })
      )
      stage.take()
      yield* a.fail()
      yield* settle
      assert.deepStrictEqual(stage.take(), ["exit a", "start a"])
      assert.deepStrictEqual(yield* shown(ref), ["inner running 2", "b running 1"])
      assert.strictEqual(yield* used(ref), 1)
      assert.deepStrictEqual(
        record.events.flatMap((event) =>
          event._tag === "Decided" ? [`${event.path} ${event.decision} ${event.severity}`] : []
        ),
        ["/orchestra/app/inner escalate error", "/orchestra/app restart error"]
      )
      yield* a.fail()
      assert.strictEqual((yield* Effect.flip(Supervisor.await(ref))).child, "inner")
    })

  it.effect(
    "57. a permanent supervisor that gave up is restarted by its parent, which counts once",
    below("permanent")
  )

  it.effect("58. giving up is abnormal: a transient supervisor that gave up is restarted too", below("transient"))

  it.effect(
    "59. budgets multiply: a leaf that fails 5 ms after every start is started (intensity + 1) squared times",
    scene(function*() {
      for (const [intensity, runs] of [[2, 9], [3, 16]] as const) {
        const { child, seen } = failing("leaf", 5)
        const inner = Supervisor.make({ name: "inner", strategy: "one_for_one", intensity, children: [child] })
        const root = yield* Effect.forkChild(
          Effect.exit(Supervisor.run(app("one_for_one", [Child.supervisor(inner)], { intensity })))
        )
        yield* pass(5 * runs - 1)
        assert.isUndefined(root.pollUnsafe())
        yield* pass(1)
        assert.isDefined(root.pollUnsafe())
        yield* pass(60_000)
        assert.strictEqual(seen.runs, runs)
      }
    })
  )

  it.effect(
    "60. a leaf that fails at its start adds up instead: twice by its supervisor, twice by the parent through it",
    scene(function*(stage) {
      const leaf = yield* stage.actor("leaf", { start: (run) => run === 1 ? Effect.void : Effect.fail("no") })
      const inner = Supervisor.make({
        name: "inner",
        strategy: "one_for_one",
        intensity: 2,
        children: [leaf.child()]
      })
      const ref = yield* Supervisor.start(app("one_for_one", [Child.supervisor(inner)], { intensity: 2 }))
      yield* leaf.fail()
      const end = yield* Effect.flip(Supervisor.await(ref))
      assert.strictEqual(end.child, "inner")
      assert.strictEqual(leaf.starts, 1 + 4)
      const causes = end.causes.map((cause) => Option.getOrThrow(Cause.findErrorOption(cause)))
      assert.deepStrictEqual(
        causes.map((error) => error instanceof Error && error.name),
        ["RestartIntensityReached", "StartFailure", "StartFailure"]
      )
    })
  )

  it.effect(
    "61. a supervisor that was restarted has an empty window",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      const inner = Supervisor.make({ name: "inner", strategy: "one_for_one", intensity: 2, children: [a.child()] })
      const ref = yield* Supervisor.start(app("one_for_one", [Child.supervisor(inner)], { intensity: 1 }))
      const budget = Effect.map(
        Orchestrator.snapshot,
        (nodes) =>
          nodes.flatMap((node) => node.kind === "supervisor" && node.name === "inner" ? [node.budget.used] : [])
      )
      for (const times of [3, 2]) {
        for (let failure = 0; failure < times; failure++) {
          yield* a.fail()
          yield* settle
        }
        assert.deepStrictEqual(yield* budget, [times === 3 ? 0 : 2])
      }
      assert.deepStrictEqual(yield* shown(ref), ["inner running 2"])
    })
  )

  it.effect(
    "62. a jump of the wall clock, in either direction, changes nothing",
    scene(function*(stage) {
      const clock = yield* Clock.Clock
      let skew = 0
      const skewed: Clock.Clock = Object.create(clock, {
        currentTimeMillisUnsafe: { value: () => clock.currentTimeMillisUnsafe() + skew },
        currentTimeNanosUnsafe: { value: () => clock.currentTimeNanosUnsafe() + BigInt(skew) * 1_000_000n },
        currentTimeMillis: { value: Effect.sync(() => clock.currentTimeMillisUnsafe() + skew) },
        currentTimeNanos: { value: Effect.sync(() => clock.currentTimeNanosUnsafe() + BigInt(skew) * 1_000_000n) }
      })
      const hour = 3_600_000
      const program = Effect.gen(function*() {
        const [a] = yield* stage.cast("a")
        const ref = yield* Supervisor.start(app("one_for_one", [a.child()], { intensity: 2, period: "10 seconds" }))
        for (const jump of [hour, -2 * hour]) {
          yield* a.fail()
          yield* settle
          skew += jump
        }
        assert.strictEqual(yield* used(ref), 2)
        // It forgets in its own time.
        yield* pass(10_000)
        assert.strictEqual(yield* used(ref), 0)
        for (const jump of [hour, hour, 0]) {
          yield* a.fail()
          yield* settle
          skew += jump
        }
        assert.strictEqual((yield* Effect.flip(Supervisor.await(ref))).attempts, 5)
      })
      yield* Effect.scoped(program).pipe(
        Effect.provide(Orchestrator.layer),
        Effect.provideService(Clock.Clock, skewed)
      )
    })
  )

  it("63. a window keeps as many entries as its intensity, however many restarts there were", () => {
    for (const intensity of [0, 3, 100]) {
      const window = new Restart.Window(intensity, 10)
      const size = () => JSON.stringify(window).length
      for (let now = 0; now < 1000; now++) window.admit(now * 3)
      const before = size()
      for (let now = 1000; now < 1_000_000; now++) window.admit(now * 3)
      assert.isAtMost(size(), 20 * (before + 100))
    }
  })

  it.effect(
    "165. the budget is one of time: of runs that fail after 1 s the fourth ends the supervisor, of 2 s none ever does",
    scene(function*() {
      for (const [every, runs] of [[1000, 4], [2000, undefined]] as const) {
        const { child, seen } = failing("a", every)
        const running = yield* Effect.forkChild(Effect.exit(Supervisor.run(app("one_for_one", [child]))))
        yield* pass(60 * every)
        if (runs === undefined) assert.strictEqual(seen.runs, 61)
        else assert.strictEqual(seen.runs, runs)
        assert.strictEqual(running.pollUnsafe() !== undefined, runs !== undefined)
      }
    })
  )
})
