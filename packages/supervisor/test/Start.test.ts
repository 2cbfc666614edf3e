import { CoreError, Orchestrator, Routine } from "@effect-orchestra/core"
import { recorder } from "@effect-orchestra/core/testing"
import { Child, Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Fiber, Option } from "effect"
import { app, pass, scene, settle, shown, slow, used } from "./Stage.ts"

const nobody = Effect.map(Orchestrator.snapshot, (nodes) => nodes.map(({ path }) => path))

describe("start", () => {
  it.effect(
    "1. children start strictly in order, each when the one before is ready, and the caller goes on after the last",
    scene(function*(stage) {
      for (const kind of ["child", "layer"] as const) {
        const roles = ["a", "b", "c"].map((id) => stage.actor(id, { start: slow(100) }))
        const children = (yield* Effect.all(roles)).map((actor) => actor[kind]())
        const starting = yield* Effect.forkChild(Supervisor.start(app("one_for_one", children)), {
          startImmediately: true
        })
        yield* pass(99)
        assert.deepStrictEqual(stage.log, ["start a"])
        yield* pass(1)
        assert.deepStrictEqual(stage.log, ["start a", "ready a", "start b"])
        yield* pass(199)
        assert.deepStrictEqual(stage.take(), ["start a", "ready a", "start b", "ready b", "start c"])
        assert.isUndefined(starting.pollUnsafe())
        yield* pass(1)
        assert.isDefined(starting.pollUnsafe())
        yield* Supervisor.stop(yield* Fiber.join(starting))
        assert.deepStrictEqual(stage.take(), ["ready c", "stop c", "stop b", "stop a"])
      }
    })
  )

  it.effect(
    "2. a supervisor without children starts, counts nothing, and stops",
    scene(function*() {
      const ref = yield* Supervisor.start(app("one_for_one", []))
      assert.deepStrictEqual(yield* Supervisor.whichChildren(ref), [])
      assert.deepStrictEqual(yield* Supervisor.countChildren(ref), { specs: 0, active: 0, supervisors: 0, workers: 0 })
      yield* Supervisor.stop(ref)
      yield* Supervisor.await(ref)
      assert.deepStrictEqual(yield* nobody, ["/orchestra"])
    })
  )

  it.effect(
    "3. when a child does not start, those before it are stopped in reverse order, those after it never start, and the caller learns which one and why",
    scene(function*(stage) {
      const boom = new Error("no port")
      const [a, b, d] = yield* stage.cast("a", "b", "d")
      const c = yield* stage.actor("c", { start: () => Effect.andThen(Effect.sleep(100), Effect.fail(boom)) })
      for (const kind of ["child", "layer"] as const) {
        const starting = yield* Effect.forkChild(
          Effect.flip(Supervisor.start(app("one_for_one", [a.child(), b.child(), c[kind](), d.child()]))),
          { startImmediately: true }
        )
        yield* pass(100)
        const failure = yield* Fiber.join(starting)
        assert.instanceOf(failure, SupervisorError.StartFailure)
        assert.deepStrictEqual([failure.supervisor, failure.child], ["/orchestra/app", "c"])
        assert.strictEqual(Option.getOrThrow(Cause.findErrorOption(failure.cause)), boom)
        assert.deepStrictEqual(stage.take(), ["start a", "start b", "start c", "exit c", "stop b", "stop a"])
        assert.deepStrictEqual(yield* nobody, ["/orchestra"])
      }
    })
  )

  it.effect(
    "4. a rollback waits for a child that ignores its interruption as long as its shutdown allows, reports it, and no longer",
    scene(function*(stage) {
      const a = yield* stage.actor("a")
      const b = yield* stage.actor("b", { start: () => Effect.andThen(a.ignoreInterruption(), Effect.fail("no b")) })
      const starting = yield* Effect.forkChild(
        Effect.flip(Supervisor.start(app("one_for_one", [a.child({ shutdown: "300 millis" }), b.child()]))),
        { startImmediately: true }
      )
      yield* pass(299)
      assert.isUndefined(starting.pollUnsafe())
      yield* pass(1)
      assert.isDefined(starting.pollUnsafe())
      assert.strictEqual((yield* Fiber.join(starting)).child, "b")
      const listed = Effect.map(Orchestrator.list, (routines) => routines.map(({ name, state }) => `${name} ${state}`))
      assert.deepStrictEqual(yield* listed, ["a abandoned"])
      yield* a.release
      yield* settle
      assert.deepStrictEqual(yield* listed, [])
      assert.deepStrictEqual(stage.take(), ["start a", "start b", "exit b", "stop a"])
    })
  )

  it.effect(
    "5. a failure, a defect, an interruption from inside and an end before readiness fail a start alike, each told by its cause",
    scene(function*(stage) {
      const a = yield* stage.actor("a")
      const kinds = {
        failure: [
          Effect.fail("typed"),
          (cause: Cause.Cause<unknown>) => Option.getOrUndefined(Cause.findErrorOption(cause)) === "typed"
        ],
        defect: [
          Effect.die("defect"),
          (cause: Cause.Cause<unknown>) => !Cause.hasFails(cause) && Cause.squash(cause) === "defect"
        ],
        interruption: [Effect.interrupt, Cause.hasInterruptsOnly],
        end: [Effect.succeed("invalid"), (cause: Cause.Cause<unknown>) => {
          const error = Option.getOrUndefined(Cause.findErrorOption(cause))
          return error instanceof CoreError.NotReady && error.reason === "ended"
        }]
      } as const
      for (const [kind, [end, fits]] of Object.entries(kinds)) {
        const child = Child.make("c", Effect.andThen(Effect.yieldNow, end), { awaitReady: true })
        const failure = yield* Effect.flip(Supervisor.start(app("one_for_one", [a.child(), child])))
        assert.strictEqual(failure.child, "c", kind)
        assert.isTrue(fits(failure.cause), `${kind}: ${failure.cause}`)
        assert.deepStrictEqual(stage.take(), ["start a", "stop a"], kind)
        assert.deepStrictEqual(yield* nobody, ["/orchestra"], kind)
      }
    })
  )

  it.effect(
    "6. a first start is tried once, whatever the budget, and counts nothing",
    scene(function*(stage) {
      const record = yield* recorder
      const c = yield* stage.actor("c", { start: () => Effect.fail("no c") })
      const spec = app("one_for_one", [c.child({ intensity: 10 })], { intensity: 10 })
      assert.strictEqual((yield* Effect.flip(Supervisor.start(spec))).child, "c")
      yield* pass(60_000)
      assert.strictEqual(c.starts, 1)
      assert.deepStrictEqual(record.tags.filter((tag) => tag === "Restarted" || tag === "BackoffStarted"), [])
    })
  )

  it.effect(
    "7. a child that says it is not needed is listed as stopped, a temporary one is not, and the start goes on",
    scene(function*(stage) {
      const said = { effect: Supervisor.ignore, error: Effect.fail(new SupervisorError.Ignore()) }
      for (const [how, ignore] of Object.entries(said)) {
        for (const awaitReady of [true, false]) {
          for (const restart of ["permanent", "transient", "temporary"] as const) {
            const b = yield* stage.actor("b", { start: slow(10) })
            const a = Child.make("a", ignore, { awaitReady, restart })
            const starting = yield* Effect.forkChild(Supervisor.start(app("one_for_one", [a, b.child()])), {
              startImmediately: true
            })
            yield* pass(10)
            const ref = yield* Fiber.join(starting)
            assert.deepStrictEqual(
              yield* shown(ref),
              restart === "temporary" ? ["b running 1"] : ["a stopped 1", "b running 1"],
              `${how} ${restart} ${awaitReady}`
            )
            assert.strictEqual(yield* used(ref), 0)
            yield* Supervisor.stop(ref)
          }
        }
      }
    })
  )

  it.effect(
    "8. a child that fails while a later one starts is restarted after the start, which succeeds, and counts once",
    scene(function*(stage) {
      for (const strategy of ["one_for_one", "rest_for_one", "one_for_all"] as const) {
        const a = yield* stage.actor("a")
        const b = yield* stage.actor("b", { start: slow(100) })
        const starting = yield* Effect.forkChild(Supervisor.start(app(strategy, [a.child(), b.child()])), {
          startImmediately: true
        })
        yield* a.fail()
        yield* pass(99)
        assert.deepStrictEqual(stage.take(), ["start a", "start b", "exit a"], strategy)
        yield* pass(1)
        const ref = yield* Fiber.join(starting)
        yield* pass(100)
        assert.deepStrictEqual(
          stage.take(),
          strategy === "one_for_one"
            ? ["ready b", "start a"]
            : ["ready b", "stop b", "start a", "start b", "ready b"],
          strategy
        )
        assert.strictEqual(yield* used(ref), 1)
        yield* Supervisor.stop(ref)
        stage.take()
      }
    })
  )

  it.effect(
    "9. with intensity 0 such a start succeeds too, and then the supervisor gives up and stops what runs",
    scene(function*(stage) {
      const a = yield* stage.actor("a")
      const b = yield* stage.actor("b", { start: slow(100) })
      const starting = yield* Effect.forkChild(
        Supervisor.start(app("one_for_one", [a.child(), b.child()], { intensity: 0 })),
        { startImmediately: true }
      )
      yield* a.fail()
      yield* pass(100)
      const ref = yield* Fiber.join(starting)
      const end = yield* Effect.flip(Supervisor.await(ref))
      assert.deepStrictEqual([end._tag, end.child, end.attempts], ["RestartIntensityReached", "a", 1])
      assert.deepStrictEqual(stage.take(), ["start a", "start b", "exit a", "ready b", "stop b"])
    })
  )

  it.effect(
    "10. two children with one id are refused before any child starts",
    scene(function*(stage) {
      const [a, b] = yield* stage.cast("a", "b")
      assert.throws(() => app("one_for_one", [a.child(), b.child(), a.child()]), /different ids, got: a$/)
      // @ts-expect-error: where the ids are known, the compiler refuses them.
      assert.throws(() => Supervisor.make({ name: "app", strategy: "one_for_one", children: [a.child(), a.child()] }))
      yield* settle
      assert.deepStrictEqual(stage.log, [])
      assert.deepStrictEqual(yield* nobody, ["/orchestra"])
    })
  )

  it.effect(
    "11. every wrong option is a defect that names it, and nothing starts",
    scene(function*(stage) {
      const a = yield* stage.actor("a")
      const with_ = (options: Supervisor.SupervisorOptions) => () => app("one_for_one", [a.child()], options)
      const child = (options: Omit<Child.ChildOptions, "dependsOn">) => () => app("one_for_one", [a.child(options)])
      const wrong: ReadonlyArray<readonly [() => unknown, RegExp]> = [
        [with_({ intensity: -1 }), /intensity .*got: -1$/],
        [with_({ intensity: 1.5 }), /intensity .*got: 1.5$/],
        [with_({ intensity: Infinity }), /intensity .*got: Infinity$/],
        [with_({ period: 0 }), /period .*got: 0$/],
        [with_({ period: -1 }), /period .*got: -1$/],
        [with_({ period: Infinity }), /period .*got: Infinity$/],
        [with_({ autoShutdown: "some" as "never" }), /autoShutdown .*got: some$/],
        [with_({ concurrentRestarts: 0 }), /concurrentRestarts.*got: 0$/],
        [with_({ attemptBudget: { attempts: 0, period: 1 } }), /attemptBudget.attempts.*got: 0$/],
        [with_({ attemptBudget: { attempts: 1, period: 0 } }), /attemptBudget: period.*got: 0$/],
        [() => app("all" as "one_for_all", []), /strategy .*got: all$/],
        [child({ shutdown: -1 }), /shutdown.*got: -1$/],
        [child({ restart: "always" as "permanent" }), /restart .*got: always$/],
        [child({ startTimeout: -1 }), /startTimeout.*got: -1$/],
        [child({ intensity: -1 }), /intensity .*got: -1$/],
        [child({ period: 0 }), /period .*got: 0$/],
        [child({ resetAfter: -1 }), /resetAfter.*got: -1$/],
        [child({ significant: true }), /significant .*got: permanent$/],
        [child({ significant: true, restart: "transient" }), /significant .*got: "a" under autoShutdown never$/]
      ]
      for (const [make, message] of wrong) assert.throws(make, message)
      assert.deepStrictEqual([stage.log, yield* nobody], [[], ["/orchestra"]])
    })
  )

  it.effect(
    "12. an unknown option is refused by the compiler, and is a defect that names it",
    scene(function*(stage) {
      const a = yield* stage.actor("a")
      // @ts-expect-error: OTP ignores it.
      assert.throws(() => app("one_for_one", [a.child()], { maxRestarts: 3 }), /unknown option, got: maxRestarts$/)
      // @ts-expect-error: as above.
      assert.throws(() => a.child({ restarts: "permanent" }), /unknown option, got: restarts$/)
      assert.deepStrictEqual(stage.log, [])
    })
  )

  it.effect(
    "13. interrupting the starter interrupts a start that hangs and stops what has started, in no time",
    scene(function*(stage) {
      const a = yield* stage.actor("a")
      const b = yield* stage.actor("b", { start: () => Effect.never })
      for (const kind of ["child", "layer"] as const) {
        const starting = yield* Effect.forkChild(Supervisor.start(app("one_for_one", [a.child(), b[kind]()])), {
          startImmediately: true
        })
        yield* settle
        const before = yield* Effect.clockWith((clock) => clock.currentTimeMillis)
        yield* Fiber.interrupt(starting)
        assert.strictEqual(yield* Effect.clockWith((clock) => clock.currentTimeMillis), before)
        assert.deepStrictEqual(stage.take(), ["start a", "start b", "stop b", "stop a"], kind)
        assert.deepStrictEqual(yield* nobody, ["/orchestra"])
      }
    })
  )

  it.effect(
    "14. a start that takes longer than its startTimeout fails on time, naming the child, and is rolled back",
    scene(function*(stage) {
      const a = yield* stage.actor("a")
      const b = yield* stage.actor("b", { start: () => Effect.never })
      for (const kind of ["child", "layer"] as const) {
        const starting = yield* Effect.forkChild(
          Effect.flip(Supervisor.start(app("one_for_one", [a.child(), b[kind]({ startTimeout: "1 second" })]))),
          { startImmediately: true }
        )
        yield* pass(999)
        assert.isUndefined(starting.pollUnsafe())
        yield* pass(1)
        const failure = yield* Fiber.join(starting)
        assert.strictEqual(failure.child, "b")
        const error = Option.getOrThrow(Cause.findErrorOption(failure.cause))
        assert.instanceOf(error, CoreError.NotReady)
        assert.deepStrictEqual([error.path, error.reason, error.waitedMillis], ["/orchestra/app/b", "timeout", 1000])
        assert.deepStrictEqual(stage.take(), ["start a", "start b", "stop b", "stop a"], kind)
      }
    })
  )

  it.effect(
    "15. what a start tells about itself comes back with startChild and restartChild; an automatic restart does not keep it",
    scene(function*(stage) {
      const a = yield* stage.actor("a", {
        start: (run) => run === 2 ? Effect.void : Routine.readyWith({ port: `${8000 + run}` })
      })
      const ref = yield* Supervisor.start(app("one_for_one", []))
      const info = ({ routine }: Supervisor.ChildInfo) => Effect.map(Routine.snapshot(routine), ({ info }) => info)
      const started = yield* Supervisor.startChild(ref, a.child())
      assert.deepStrictEqual([started.id, started.state, started.incarnation], ["a", "running", 1])
      assert.deepStrictEqual(yield* info(started), { port: "8001" })
      yield* a.fail()
      yield* settle
      assert.deepStrictEqual(yield* shown(ref), ["a running 2"])
      assert.deepStrictEqual(yield* info(started), {})
      yield* Supervisor.terminateChild(ref, "a")
      const again = yield* Supervisor.restartChild(ref, "a")
      assert.deepStrictEqual([again.state, again.incarnation, yield* info(again)], ["running", 3, { port: "8003" }])
    })
  )

  it.effect(
    "16. a child may ask its own supervisor while it starts, at first and at a restart",
    scene(function*(stage) {
      const self = yield* Deferred.make<Supervisor.SupervisorRef>()
      const answers: Array<unknown> = []
      const asks = yield* stage.actor("a", {
        start: () =>
          Effect.gen(function*() {
            const ref = yield* Deferred.await(self)
            answers.push(yield* shown(ref), (yield* Supervisor.countChildren(ref)).active)
          })
      })
      const ref = yield* Supervisor.start(app("one_for_one", []))
      yield* Deferred.succeed(self, ref)
      yield* Supervisor.startChild(ref, asks.child())
      assert.deepStrictEqual(answers.splice(0), [["a starting 1"], 0])
      yield* asks.fail()
      yield* settle
      assert.deepStrictEqual(answers, [["a restarting 2"], 0])
      assert.deepStrictEqual(yield* shown(ref), ["a running 2"])
    })
  )
})
