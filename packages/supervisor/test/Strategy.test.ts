import { recorder } from "@effect-orchestra/core/testing"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { app, pass, scene, settle, shown, slow, type Stage, used } from "./Stage.ts"

/** Actors that take 10 ms to stop. */
const slowly = (stage: Stage, ...ids: ReadonlyArray<string>) =>
  Effect.forEach(ids, (id) => stage.actor(id, { stop: slow(10) }))

/** All orders of some things. */
const orders = <A>(all: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> =>
  all.length < 2
    ? [all]
    : all.flatMap((one) => orders(all.filter((other) => other !== one)).map((rest) => [one, ...rest]))

const groups = ["one_for_all", "rest_for_one"] as const

describe("strategies", () => {
  it.effect(
    "29. one_for_one restarts the failed child alone",
    scene(function*(stage) {
      for (const kind of ["child", "layer"] as const) {
        const [a, b, c] = yield* stage.cast("a", "b", "c")
        const ref = yield* Supervisor.start(app("one_for_one", [a[kind](), b[kind](), c[kind]()]))
        stage.take()
        yield* b.fail()
        yield* settle
        assert.deepStrictEqual(stage.take(), ["exit b", "start b"], kind)
        assert.deepStrictEqual(yield* shown(ref), ["a running 1", "b running 2", "c running 1"])
        yield* Supervisor.stop(ref)
      }
    })
  )

  it.effect(
    "30. one_for_all stops the others in reverse order, then starts all in order",
    scene(function*(stage) {
      const [a, b, c] = yield* stage.cast("a", "b", "c")
      const ref = yield* Supervisor.start(app("one_for_all", [a.child(), b.child(), c.child()]))
      stage.take()
      yield* b.fail()
      yield* settle
      assert.deepStrictEqual(stage.take(), ["exit b", "stop c", "stop a", "start a", "start b", "start c"])
      assert.deepStrictEqual(yield* shown(ref), ["a running 2", "b running 2", "c running 2"])
      assert.strictEqual(yield* used(ref), 1)
    })
  )

  it.effect(
    "31. rest_for_one stops those after the failed child in reverse order, then starts from it on in order",
    scene(function*(stage) {
      const actors = yield* slowly(stage, "a", "b", "c", "d", "e")
      const ref = yield* Supervisor.start(app("rest_for_one", actors.map((actor) => actor.child())))
      stage.take()
      yield* actors[2]?.fail() ?? Effect.void
      yield* pass(20)
      assert.deepStrictEqual(
        stage.take(),
        ["exit c", "stopping e", "stop e", "stopping d", "stop d", "start c", "start d", "start e"]
      )
      assert.deepStrictEqual(
        yield* shown(ref),
        ["a running 1", "b running 1", "c running 2", "d running 2", "e running 2"]
      )
    })
  )

  it.effect(
    "32. rest_for_one restarts the last child alone when it fails, and all when the first does",
    scene(function*(stage) {
      const [a, b, c] = yield* stage.cast("a", "b", "c")
      const ref = yield* Supervisor.start(app("rest_for_one", [a.child(), b.child(), c.child()]))
      stage.take()
      yield* c.fail()
      yield* settle
      assert.deepStrictEqual(stage.take(), ["exit c", "start c"])
      yield* a.fail()
      yield* settle
      assert.deepStrictEqual(stage.take(), ["exit a", "stop c", "stop b", "start a", "start b", "start c"])
      assert.deepStrictEqual(yield* shown(ref), ["a running 2", "b running 2", "c running 3"])
    })
  )

  it.effect(
    "33. a temporary sibling is stopped with its group and forgotten",
    scene(function*(stage) {
      const [a, t, c] = yield* stage.cast("a", "t", "c")
      const record = yield* recorder
      for (const strategy of groups) {
        const children = [a.child(), t.child({ restart: "temporary" }), c.child()]
        const ref = yield* Supervisor.start(app(strategy, children))
        stage.take()
        yield* a.fail()
        yield* settle
        assert.deepStrictEqual(stage.take(), ["exit a", "stop c", "stop t", "start a", "start c"], strategy)
        assert.deepStrictEqual(yield* shown(ref), ["a running 2", "c running 2"])
        yield* Supervisor.stop(ref)
      }
      const life = ["Forked", "Ready", "StopRequested", "Exited", "Stopped"]
      assert.deepStrictEqual(record.of("/orchestra/app/t").map(({ _tag }) => _tag), [...life, ...life])
    })
  )

  it.effect(
    "34. a child that is not to be restarted touches no sibling: a temporary that fails, a transient that succeeds",
    scene(function*(stage) {
      const [a, b, c] = yield* stage.cast("a", "b", "c")
      for (const strategy of groups) {
        const children = [a.child(), b.child({ restart: "temporary" }), c.child({ restart: "transient" })]
        const ref = yield* Supervisor.start(app(strategy, children, { intensity: 0 }))
        stage.take()
        yield* b.fail()
        yield* settle
        yield* c.succeed
        yield* settle
        assert.deepStrictEqual(stage.take(), ["exit b", "exit c"], strategy)
        assert.deepStrictEqual(yield* shown(ref), ["a running 1", "c stopped 1"])
        yield* Supervisor.stop(ref)
      }
    })
  )

  /** A supervisor with four children, of which the first and the third do not run. */
  const withStopped = Effect.fnUntraced(function*(
    stage: Stage,
    strategy: (typeof groups)[number],
    how: "terminated" | "finished" | "ignored",
    restartStopped: boolean
  ) {
    let ignored = true
    const start = () => how === "ignored" && ignored ? Supervisor.ignore : Effect.void
    const [a, b, c, d] = yield* Effect.all([
      stage.actor("a", { start }),
      stage.actor("b"),
      stage.actor("c", { start }),
      stage.actor("d")
    ])
    const transient = { restart: "transient" } as const
    const ref = yield* Supervisor.start(
      app(strategy, [a.child(transient), b.child(), c.child(transient), d.child()], { restartStopped })
    )
    for (const actor of how === "ignored" ? [] : [a, c]) {
      if (how === "terminated") yield* Supervisor.terminateChild(ref, actor.id)
      else yield* actor.succeed
    }
    ignored = false
    yield* settle
    assert.deepStrictEqual(
      yield* shown(ref),
      ["a stopped 1", "b running 1", "c stopped 1", "d running 1"],
      `${strategy} ${how}`
    )
    return { b, ref }
  })

  const stopped = ["terminated", "finished", "ignored"] as const

  it.effect(
    "35. one_for_all leaves alone who was stopped by hand, had finished or was not needed; with restartStopped it starts them too",
    scene(function*(stage) {
      for (const restartStopped of [false, true]) {
        for (const how of stopped) {
          const { b, ref } = yield* withStopped(stage, "one_for_all", how, restartStopped)
          yield* b.fail()
          yield* settle
          assert.deepStrictEqual(
            yield* shown(ref),
            restartStopped
              ? ["a running 2", "b running 2", "c running 2", "d running 2"]
              : ["a stopped 1", "b running 2", "c stopped 1", "d running 2"],
            how
          )
          assert.strictEqual(yield* used(ref), 1)
          yield* Supervisor.stop(ref)
        }
      }
    })
  )

  it.effect(
    "36. rest_for_one leaves alone who does not run; with restartStopped it starts those after the failed child, never those before it",
    scene(function*(stage) {
      for (const restartStopped of [false, true]) {
        for (const how of stopped) {
          const { b, ref } = yield* withStopped(stage, "rest_for_one", how, restartStopped)
          yield* b.fail()
          yield* settle
          assert.deepStrictEqual(
            yield* shown(ref),
            ["a stopped 1", "b running 2", restartStopped ? "c running 2" : "c stopped 1", "d running 2"],
            how
          )
          yield* Supervisor.stop(ref)
        }
      }
    })
  )

  it.effect(
    "37. under rest_for_one a child added later is the last, and one deleted and added again moves to the end",
    scene(function*(stage) {
      const [a, b, c, d] = yield* stage.cast("a", "b", "c", "d")
      const ref = yield* Supervisor.start(app("rest_for_one", [a.child(), b.child(), c.child()]))
      yield* Supervisor.startChild(ref, d.child())
      stage.take()
      yield* b.fail()
      yield* settle
      assert.deepStrictEqual(stage.take(), ["exit b", "stop d", "stop c", "start b", "start c", "start d"])
      yield* Supervisor.terminateChild(ref, "b")
      yield* Supervisor.deleteChild(ref, "b")
      yield* Supervisor.startChild(ref, b.child())
      assert.deepStrictEqual(yield* shown(ref), ["a running 1", "c running 2", "d running 2", "b running 1"])
      stage.take()
      yield* d.fail()
      yield* settle
      assert.deepStrictEqual(stage.take(), ["exit d", "stop b", "start d", "start b"])
    })
  )

  it.effect(
    "38. one_for_all restarts the group once when all fail at once, in whatever order",
    scene(function*(stage) {
      const actors = yield* stage.cast("a", "b", "c")
      for (const order of orders(actors)) {
        const ref = yield* Supervisor.start(
          app("one_for_all", actors.map((actor) => actor.child()), { intensity: 1 })
        )
        yield* Effect.forEach(order, (actor) => actor.fail())
        yield* settle
        assert.deepStrictEqual(yield* shown(ref), ["a running 2", "b running 2", "c running 2"])
        assert.strictEqual(yield* used(ref), 1)
        yield* Supervisor.stop(ref)
      }
    })
  )

  it.effect(
    "39. under one_for_one children that fail at once count each",
    scene(function*(stage) {
      const [a, b, c] = yield* stage.cast("a", "b", "c")
      const ref = yield* Supervisor.start(app("one_for_one", [a.child(), b.child(), c.child()], { intensity: 1 }))
      yield* Effect.forEach([a, b], (actor) => actor.fail())
      const end = yield* Effect.flip(Supervisor.await(ref))
      assert.deepStrictEqual([end.child, end.window.intensity], ["b", 1])
      assert.isFalse(c.live)
    })
  )

  it.effect(
    "40. rest_for_one restarts from the earliest child that failed, and counts once, in whatever order they fail",
    scene(function*(stage) {
      const [a, b, c, d] = yield* stage.cast("a", "b", "c", "d")
      for (const failing of [[a, b, c, d], [b, d], [b, c, d]]) {
        for (const order of orders(failing)) {
          const children = [a.child(), b.child(), c.child(), d.child()]
          const ref = yield* Supervisor.start(app("rest_for_one", children, { intensity: 1 }))
          yield* Effect.forEach(order, (actor) => actor.fail())
          yield* settle
          assert.deepStrictEqual(
            yield* shown(ref),
            [failing.includes(a) ? "a running 2" : "a running 1", "b running 2", "c running 2", "d running 2"]
          )
          assert.strictEqual(yield* used(ref), 1)
          yield* Supervisor.stop(ref)
        }
      }
    })
  )

  it.effect(
    "41. a group starts when its slowest member has stopped; who fails meanwhile is absorbed",
    scene(function*(stage) {
      for (const strategy of groups) {
        const [a, b] = yield* stage.cast("a", "b")
        const c = yield* stage.actor("c", { stop: slow(300) })
        const ref = yield* Supervisor.start(app(strategy, [a.child(), b.child(), c.child()], { intensity: 1 }))
        stage.take()
        yield* a.fail()
        yield* pass(100)
        assert.deepStrictEqual(stage.take(), ["exit a", "stopping c"], strategy)
        yield* b.fail()
        yield* pass(199)
        assert.deepStrictEqual(stage.take(), ["exit b"], strategy)
        yield* pass(1)
        assert.deepStrictEqual(stage.take(), ["stop c", "start a", "start b", "start c"], strategy)
        assert.deepStrictEqual(yield* shown(ref), ["a running 2", "b running 2", "c running 2"])
        assert.strictEqual(yield* used(ref), 1)
        const stopping = yield* Effect.forkChild(Supervisor.stop(ref))
        yield* pass(300)
        assert.isDefined(stopping.pollUnsafe())
        stage.take()
      }
    })
  )

  it.effect(
    "42. a sibling that fails while it is stopped for the group is told so, is not counted, and starts again once",
    scene(function*(stage) {
      const record = yield* recorder
      const a = yield* stage.actor("a")
      const b = yield* stage.actor("b", { stop: (run) => run === 1 ? Effect.die(new Error("dirty")) : Effect.void })
      const ref = yield* Supervisor.start(app("one_for_all", [a.child(), b.child()], { intensity: 2 }))
      yield* a.fail()
      yield* settle
      assert.deepStrictEqual(yield* shown(ref), ["a running 2", "b running 2"])
      assert.deepStrictEqual([b.starts, yield* used(ref)], [2, 1])
      assert.deepStrictEqual(
        record.of("/orchestra/app/b").flatMap((event) =>
          event._tag === "Exited" ? [[event.exit.reason, event.exit.message, event.exit.cancelledBy?.reason]] : []
        ),
        [["defect", "dirty", "restart"]]
      )
      assert.strictEqual(record.tags.filter((tag) => tag === "Decided").length, 1)
    })
  )

  it.effect(
    "43. a supervisor among the members is stopped as a whole and comes back with its static children",
    scene(function*(stage) {
      const [a, x, y, z, c] = yield* stage.cast("a", "x", "y", "z", "c")
      const inner = Supervisor.make({ name: "inner", strategy: "one_for_one", children: [x.child(), y.child()] })
      const ref = yield* Supervisor.start(app("one_for_all", [a.child(), Child.supervisor(inner), c.child()]))
      assert.deepStrictEqual(stage.take(), ["start a", "start x", "start y", "start c"])
      yield* c.fail()
      yield* settle
      assert.deepStrictEqual(
        stage.take(),
        ["exit c", "stop y", "stop x", "stop a", "start a", "start x", "start y", "start c"]
      )
      assert.deepStrictEqual(yield* shown(ref), ["a running 2", "inner running 2", "c running 2"])
      assert.strictEqual((yield* Supervisor.countChildren(ref)).supervisors, 1)
      yield* Supervisor.stop(ref)
      stage.take()
      // What was added to it later is lost, what was deleted comes back.
      const refs: Array<Supervisor.SupervisorRef> = []
      const holder = Child.make(
        "holder",
        Effect.flatMap(Supervisor.start(inner), (ref) => {
          refs.push(ref)
          return Supervisor.await(ref)
        })
      )
      yield* Supervisor.start(app("one_for_all", [holder, c.child()]))
      yield* settle
      const [first = assert.fail("not started")] = refs
      yield* Supervisor.startChild(first, z.child())
      yield* Supervisor.terminateChild(first, "x")
      yield* Supervisor.deleteChild(first, "x")
      yield* c.fail()
      yield* settle
      const [, second = assert.fail("not started again")] = refs
      assert.deepStrictEqual(yield* shown(second), ["x running 1", "y running 1"])
      assert.isFalse(z.live)
    })
  )

  it.effect(
    "44. a restart by hand concerns that child alone, whatever the strategy",
    scene(function*(stage) {
      const [a, b, c] = yield* stage.cast("a", "b", "c")
      for (const strategy of groups) {
        const ref = yield* Supervisor.start(app(strategy, [a.child(), b.child(), c.child()], { intensity: 0 }))
        stage.take()
        yield* Supervisor.terminateChild(ref, "b")
        yield* Supervisor.restartChild(ref, "b")
        yield* settle
        assert.deepStrictEqual(stage.take(), ["stop b", "start b"], strategy)
        assert.deepStrictEqual(yield* shown(ref), ["a running 1", "b running 2", "c running 1"])
        yield* Supervisor.stop(ref)
      }
    })
  )

  it.effect(
    "45. a member that fails while a later one starts waits for the end of the round, then there is a second one",
    scene(function*(stage) {
      const [a, c] = yield* stage.cast("a", "c")
      const b = yield* stage.actor("b", { start: (run) => run === 1 ? Effect.void : Effect.sleep(100) })
      const ref = yield* Supervisor.start(app("one_for_all", [a.child(), b.child(), c.child()]))
      stage.take()
      yield* c.fail()
      yield* pass(50)
      assert.deepStrictEqual(stage.take(), ["exit c", "stop b", "stop a", "start a", "start b"])
      yield* a.fail()
      yield* pass(49)
      assert.deepStrictEqual(stage.take(), ["exit a"])
      yield* pass(1)
      assert.deepStrictEqual(stage.take(), ["ready b", "start c", "stop c", "stop b", "start a", "start b"])
      yield* pass(100)
      assert.deepStrictEqual(stage.take(), ["ready b", "start c"])
      assert.deepStrictEqual(yield* shown(ref), ["a running 3", "b running 3", "c running 3"])
      assert.strictEqual(yield* used(ref), 2)
    })
  )

  it.effect(
    "167. a child added later takes part in the restarts of its group like any other",
    scene(function*(stage) {
      const [a, b, c] = yield* stage.cast("a", "b", "c")
      for (const strategy of groups) {
        const ref = yield* Supervisor.start(app(strategy, [a.child()]))
        yield* Supervisor.startChild(ref, b.child())
        yield* Supervisor.startChild(ref, c.child())
        stage.take()
        yield* a.fail()
        yield* settle
        assert.deepStrictEqual(stage.take(), ["exit a", "stop c", "stop b", "start a", "start b", "start c"], strategy)
        yield* b.fail()
        yield* settle
        assert.deepStrictEqual(yield* shown(ref), [
          strategy === "one_for_all" ? "a running 3" : "a running 2",
          "b running 3",
          "c running 3"
        ])
        yield* Supervisor.stop(ref)
      }
    })
  )

  it.effect(
    "168. a member that has never run, or does not run, does not hold up a round",
    scene(function*(stage) {
      const [a, c] = yield* stage.cast("a", "c")
      const never = Child.make("b", Supervisor.ignore)
      for (const strategy of groups) {
        for (const restartStopped of [false, true]) {
          const ref = yield* Supervisor.start(app(strategy, [a.child(), never, c.child()], { restartStopped }))
          yield* Supervisor.startChild(ref, Child.make("d", Supervisor.ignore))
          for (const round of [2, 3]) {
            yield* a.fail()
            yield* settle
            const again = restartStopped ? round : 1
            assert.deepStrictEqual(
              yield* shown(ref),
              [`a running ${round}`, `b stopped ${again}`, `c running ${round}`, `d stopped ${again}`],
              `${strategy} ${restartStopped}`
            )
          }
          yield* Supervisor.stop(ref)
        }
      }
    })
  )
})
