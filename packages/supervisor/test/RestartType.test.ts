import { Orchestrator, Routine } from "@effect-orchestra/core"
import { recorder } from "@effect-orchestra/core/testing"
import { Child, Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Layer } from "effect"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { app, type Play, scene, settle, shown, used } from "./Stage.ts"

describe("restart types", () => {
  it.effect(
    "17. a permanent child is restarted after a success, an interruption, a failure and a defect",
    scene(function*(stage) {
      for (const kind of ["child", "layer"] as const) {
        const a = yield* stage.actor("a")
        const ref = yield* Supervisor.start(app("one_for_one", [a[kind]()], { intensity: 10 }))
        // The end of what a layer has forked, unless it failed, is not an end of the layer.
        const ends = [a.fail(), a.die("defect"), a.kill, ...(kind === "child" ? [a.succeed] : [])]
        for (const [index, end] of ends.entries()) {
          yield* end
          yield* settle
          assert.deepStrictEqual(yield* shown(ref), [`a running ${index + 2}`])
        }
        assert.strictEqual(yield* used(ref), ends.length)
        yield* Supervisor.stop(ref)
      }
    })
  )

  it.effect(
    "18. a transient child is restarted after a failure and a defect; after a success it is stopped and kept",
    scene(function*(stage) {
      const record = yield* recorder
      const [a] = yield* stage.cast("a")
      const ref = yield* Supervisor.start(app("one_for_one", [a.child({ restart: "transient" })]))
      yield* a.fail()
      yield* settle
      assert.deepStrictEqual(yield* shown(ref), ["a running 2"])
      yield* a.die("defect")
      yield* settle
      assert.deepStrictEqual(yield* shown(ref), ["a running 3"])
      yield* a.succeed
      yield* settle
      assert.deepStrictEqual(yield* shown(ref), ["a stopped 3"])
      assert.strictEqual((yield* Supervisor.childSpec(ref, "a")).restart, "transient")
      assert.deepStrictEqual(
        record.events.flatMap((event) => event._tag === "Decided" ? [`${event.decision} ${event.severity}`] : []),
        ["restart error", "restart error", "stop info"]
      )
    })
  )

  it.effect(
    "19. a transient child that ends in order, in whatever words, is not restarted, and that is no error",
    scene(function*(stage) {
      const record = yield* recorder
      const orderly: ReadonlyArray<readonly [how: string, Effect.Effect<unknown, unknown>, left: Array<string>]> = [
        ["a value", Effect.succeed({ reason: "shutdown" }), ["a stopped 1"]],
        ["not needed", Supervisor.ignore, ["a stopped 1"]],
        ["not needed, as an error", Effect.fail(new SupervisorError.Ignore()), ["a stopped 1"]],
        ["done", Supervisor.done, []],
        ["done, as an error", Effect.fail(new SupervisorError.Done()), []]
      ]
      for (const [how, end, left] of orderly) {
        const child = Child.make("a", Effect.andThen(Effect.yieldNow, end), { restart: "transient" })
        const ref = yield* Supervisor.start(app("one_for_one", [child], { intensity: 0 }))
        yield* settle
        assert.deepStrictEqual(yield* shown(ref), left, how)
        yield* Supervisor.stop(ref)
      }
      const a = yield* stage.actor("a")
      const ref = yield* Supervisor.start(app("one_for_one", [a.child({ restart: "transient" })], { intensity: 0 }))
      yield* Routine.stop(a.routine)
      yield* settle
      assert.deepStrictEqual(yield* shown(ref), ["a stopped 1"])
      assert.deepStrictEqual(
        record.events.filter((event) => event._tag === "Decided" && event.severity === "error"),
        []
      )
    })
  )

  it.effect(
    "20. an interruption that nobody asked the supervisor for is abnormal: a transient child is restarted",
    scene(function*(stage) {
      let runs = 0
      const itself = Effect.suspend(() =>
        ++runs === 1 ? Effect.andThen(Effect.yieldNow, Effect.interrupt) : Effect.never
      )
      const [a] = yield* stage.cast("a")
      const children = [a.child({ restart: "transient" }), Child.make("b", itself, { restart: "transient" })]
      const ref = yield* Supervisor.start(app("one_for_one", children))
      yield* a.kill
      yield* settle
      assert.deepStrictEqual(yield* shown(ref), ["a running 2", "b running 2"])
      assert.strictEqual(yield* used(ref), 2)
    })
  )

  it.effect(
    "21. a temporary child is never restarted and is forgotten at once: its id is free",
    scene(function*(stage) {
      const [a, b] = yield* stage.cast("a", "b")
      for (const kind of ["child", "layer"] as const) {
        const temporary = a[kind]({ restart: "temporary" })
        const ref = yield* Supervisor.start(app("one_for_one", [temporary, b.child()], { intensity: 0 }))
        for (const end of kind === "child" ? [a.fail(), a.succeed, a.die("defect"), a.kill] : [a.fail(), a.kill]) {
          yield* end
          yield* settle
          assert.deepStrictEqual(yield* shown(ref), ["b running 1"])
          assert.strictEqual((yield* Effect.flip(Supervisor.childSpec(ref, "a")))._tag, "ChildNotFound")
          assert.strictEqual((yield* Supervisor.startChild(ref, temporary)).state, "running")
          assert.deepStrictEqual(yield* shown(ref), ["b running 1", "a running 1"])
        }
        yield* Supervisor.stop(ref)
      }
    })
  )

  it.effect(
    "22. a transient child that has ended is still present: it cannot be added, it can be restarted",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      const ref = yield* Supervisor.start(app("one_for_one", [a.child({ restart: "transient" })]))
      yield* a.succeed
      yield* settle
      const refused = yield* Effect.flip(Supervisor.startChild(ref, a.child({ restart: "transient" })))
      assert.instanceOf(refused, SupervisorError.AlreadyPresent)
      assert.deepStrictEqual([refused.supervisor, refused.child, refused.state], ["/orchestra/app", "a", "stopped"])
      assert.strictEqual((yield* Supervisor.restartChild(ref, "a")).state, "running")
      assert.deepStrictEqual(yield* shown(ref), ["a running 2"])
      assert.strictEqual(a.starts, 2)
    })
  )

  it.effect(
    "23. a temporary child may fail as often as it is added: that counts nothing",
    scene(function*(stage) {
      const [a, b] = yield* stage.cast("a", "b")
      const ref = yield* Supervisor.start(app("one_for_one", [b.child()], { intensity: 0 }))
      for (let time = 1; time <= 20; time++) {
        yield* Supervisor.startChild(ref, a.child({ restart: "temporary" }))
        yield* a.fail()
        yield* settle
      }
      assert.deepStrictEqual(yield* shown(ref), ["b running 1"])
      assert.deepStrictEqual([a.starts, yield* used(ref)], [20, 0])
    })
  )

  it.effect(
    "24. a transient child may end normally as often as it is restarted by hand: that counts nothing",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      const ref = yield* Supervisor.start(app("one_for_one", [a.child({ restart: "transient" })], { intensity: 0 }))
      for (let time = 1; time <= 20; time++) {
        yield* a.succeed
        yield* settle
        assert.deepStrictEqual(yield* shown(ref), [`a stopped ${time}`])
        yield* Supervisor.restartChild(ref, "a")
      }
      assert.deepStrictEqual(yield* shown(ref), ["a running 21"])
      assert.deepStrictEqual([a.starts, yield* used(ref)], [21, 0])
    })
  )

  it.effect(
    "25. a restarted child gets what it got at first: arguments, services and attributes, also when it was added later",
    scene(function*() {
      class Tenant extends Context.Service<Tenant, string>()("test/Tenant") {}
      const seen: Array<string> = []
      const child = (id: string, argument: string) =>
        Child.make(
          id,
          Effect.gen(function*() {
            seen.push(`${id} ${argument} of ${yield* Tenant}`)
            yield* Effect.yieldNow
            return yield* seen.length < 4 ? Effect.fail("again") : Effect.never
          }),
          { attributes: { argument } }
        )
      const spec = Supervisor.make({ name: "app", strategy: "one_for_one", children: [child("a", "one")] })
      const ref = yield* Effect.provideService(Supervisor.start(spec), Tenant, "acme")
      yield* Effect.provideService(Supervisor.startChild(ref, child("b", "two")), Tenant, "emca")
      const before = yield* Supervisor.childSpec(ref, "b")
      yield* settle
      assert.deepStrictEqual(seen.toSorted(), ["a one of acme", "a one of acme", "b two of emca", "b two of emca"])
      assert.deepStrictEqual(yield* shown(ref), ["a running 2", "b running 2"])
      assert.deepStrictEqual(yield* Supervisor.childSpec(ref, "b"), before)
      assert.deepStrictEqual(
        (yield* Orchestrator.list).map(({ attributes }) => attributes),
        [{ argument: "one" }, { argument: "two" }]
      )
    })
  )

  const endsAtOnce = (fails: boolean) => {
    const seen = { runs: 0 }
    const end = fails ? Effect.fail("at once") : Effect.void
    const first = Effect.suspend(() => ++seen.runs === 1 ? end : Effect.never)
    const layer = Orchestrator.forkScoped(fails ? first : Effect.andThen(first, Effect.fail("at once")))
    const children: Readonly<Record<string, Play>> = {
      "before anything": Child.make("a", first),
      "with its readiness": Child.make("a", Effect.andThen(Routine.ready, first), { awaitReady: true }),
      "with its build": Child.layer("a", Layer.effectDiscard(layer))
    }
    return { seen, children }
  }

  it.effect(
    "26. a child that ends in the moment it is ready is restarted, never listed as running for ever",
    scene(function*() {
      for (const fails of [true, false]) {
        for (const how of ["before anything", "with its readiness", "with its build"]) {
          for (
            const [strategy, later] of [
              ["one_for_one", false],
              ["one_for_one", true],
              ["one_for_all", false],
              ["rest_for_one", true]
            ] as const
          ) {
            const { children, seen } = endsAtOnce(fails)
            const child = children[how] ?? assert.fail(how)
            const ref = yield* Supervisor.start(app(strategy, later ? [] : [child]))
            if (later) yield* Supervisor.startChild(ref, child)
            yield* settle
            assert.deepStrictEqual(
              [seen.runs, ...(yield* shown(ref))],
              [2, "a running 2"],
              `${how} ${fails} ${strategy} ${later}`
            )
            assert.strictEqual(yield* used(ref), 1)
            yield* Supervisor.stop(ref)
          }
        }
      }
    })
  )

  it.effect(
    "27. a permanent child that succeeds at once is started intensity + 1 times",
    scene(function*() {
      for (const end of [Effect.void, Effect.yieldNow]) {
        let runs = 0
        const child = Child.make("a", Effect.andThen(Effect.sync(() => void runs++), end))
        const failure = yield* Effect.flip(Supervisor.run(app("one_for_one", [child], { intensity: 3 })))
        assert.instanceOf(failure, SupervisorError.RestartIntensityReached)
        assert.deepStrictEqual([runs, failure.child, failure.attempts], [4, "a", 4])
      }
    })
  )

  it.effect(
    "28. what a temporary child was made of is not kept once it runs",
    scene(function*() {
      setFlagsFromString("--expose-gc")
      const collect: () => void = runInNewContext("gc")
      const ref = yield* Supervisor.start(app("one_for_one", []))
      const start = (restart: "temporary" | "permanent") =>
        Effect.suspend(() => {
          const argument = { bytes: new Uint8Array(1_000_000) }
          const child = Child.make(
            restart,
            Effect.suspend(() => argument.bytes.length > 0 ? Effect.never : Effect.void),
            {
              restart
            }
          )
          return Effect.as(Supervisor.startChild(ref, child), new WeakRef(argument))
        })
      const [temporary, permanent] = [yield* start("temporary"), yield* start("permanent")]
      yield* settle
      collect()
      assert.deepStrictEqual([permanent, temporary].map((ref) => ref.deref() !== undefined), [true, false])
      assert.deepStrictEqual(yield* shown(ref), ["temporary running 1", "permanent running 1"])
    })
  )

  it.effect(
    "166. an end between the start and its observation is seen, at the first run and at every restart",
    scene(function*() {
      let runs = 0
      const child = Child.make("a", Effect.suspend(() => ++runs <= 100 ? Effect.fail(`run ${runs}`) : Effect.never))
      const ref = yield* Supervisor.start(app("one_for_one", [child], { intensity: 100 }))
      while (runs <= 100) yield* Effect.yieldNow
      yield* settle
      assert.deepStrictEqual(yield* shown(ref), ["a running 101"])
      assert.strictEqual(yield* used(ref), 100)
    })
  )
})
