import { recorder } from "@effect-orchestra/core/testing"
import { Child, Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { listed, play, scenes, used } from "./Play.ts"
import { scene, settle, shown } from "./Stage.ts"

/** How a supervisor ended; undefined while it runs. */
const end = (app: Supervisor.SupervisorRef) =>
  Effect.gen(function*() {
    const waiting = yield* Effect.forkChild(Supervisor.await(app), { startImmediately: true })
    yield* settle
    const exit = waiting.pollUnsafe()
    yield* Fiber.interrupt(waiting)
    return exit
  })

const strategies = ["one_for_one", "one_for_all", "rest_for_one", "dependency"] as const

const any = { autoShutdown: "any_significant" } as const
const all = { autoShutdown: "all_significant" } as const
const significant = { significant: true, restart: "transient" } as const

describe("significant children", () => {
  it.effect(
    "111. any_significant: the normal end of a significant child stops the others in reverse and ends the supervisor",
    scene(function*(stage) {
      const record = yield* recorder
      for (const strategy of strategies) {
        const [a, n, z] = yield* stage.cast("a", "n", "z")
        const s = yield* stage.actor("s")
        const app = yield* play([
          a.child(),
          n.child({ restart: "transient" }),
          s.child(significant),
          z.child()
        ], { ...any, strategy })
        stage.take()
        yield* n.succeed
        assert.isUndefined(yield* end(app), strategy)
        yield* s.succeed
        assert.deepStrictEqual(yield* end(app), Exit.void, strategy)
        assert.deepStrictEqual(stage.take(), ["exit n", "exit s", "stop z", "stop a"], strategy)
        const [last] = record.events.filter((event) => event._tag === "Decided").slice(-1)
        assert.deepInclude(last, { child: "s", decision: "auto_shutdown", reason: "success", severity: "info" })
      }
      // To be done is to end by oneself.
      for (const said of [Supervisor.done, Effect.fail(new SupervisorError.Done())]) {
        const app = yield* play([Child.make("s", Effect.andThen(Effect.sleep("1 second"), said), significant)], any)
        assert.isUndefined(yield* end(app))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* end(app), Exit.void)
      }
    })
  )

  it.effect(
    "112. any_significant: a significant child that fails is restarted if it is transient, and ends the supervisor if it is temporary",
    scene(function*(stage) {
      for (const way of ["fail", "die", "kill"] as const) {
        const [a, s, t] = yield* stage.cast("a", "s", "t")
        const app = yield* play([
          a.child(),
          s.child(significant),
          t.child({ significant: true, restart: "temporary" })
        ], any)
        const failing = (actor: typeof s | typeof t) =>
          way === "fail" ? actor.fail() : way === "die" ? actor.die("broken") : actor.kill
        yield* failing(s)
        assert.isUndefined(yield* end(app), way)
        assert.deepStrictEqual(yield* shown(app), ["a running 1", "s running 2", "t running 1"], way)
        stage.take()
        yield* failing(t)
        assert.deepStrictEqual(yield* end(app), Exit.void, way)
        assert.deepStrictEqual(stage.take(), [way === "kill" ? "stop t" : "exit t", "stop s", "stop a"], way)
      }
    })
  )

  it.effect(
    "113. all_significant: only the end of the last significant child ends the supervisor",
    scene(function*(stage) {
      const [s1, s2, n] = yield* stage.cast("s1", "s2", "n")
      const app = yield* play([s1.child(significant), s2.child(significant), n.child()], all)
      stage.take()
      yield* s1.succeed
      assert.isUndefined(yield* end(app))
      assert.deepStrictEqual(yield* shown(app), ["s1 stopped 1", "s2 running 1", "n running 1"])
      yield* s2.succeed
      assert.deepStrictEqual(yield* end(app), Exit.void)
      assert.deepStrictEqual(stage.take(), ["exit s1", "exit s2", "stop n"])
    })
  )

  it.effect(
    "114. all_significant: a significant child that is about to run again counts as active",
    scene(function*(stage) {
      for (const way of ["waiting", "starting"] as const) {
        const s1 = yield* stage.actor("s1", {
          start: (run) => way === "starting" && run === 2 ? Effect.sleep("1 second") : Effect.void
        })
        const [s2] = yield* stage.cast("s2")
        const backoff = way === "waiting" ? Schedule.spaced("1 second") : undefined
        const app = yield* play([s1.child({ ...significant, backoff }), s2.child(significant)], all)
        yield* s1.fail()
        yield* settle
        assert.deepStrictEqual(yield* shown(app), [`s1 restarting ${way === "waiting" ? 1 : 2}`, "s2 running 1"])
        yield* s2.succeed
        assert.isUndefined(yield* end(app), way)
        yield* TestClock.adjust("1 second")
        assert.isUndefined(yield* end(app), way)
        assert.deepStrictEqual(yield* shown(app), ["s1 running 2", "s2 stopped 1"], way)
        yield* s1.succeed
        assert.deepStrictEqual(yield* end(app), Exit.void, way)
      }
    })
  )

  it.effect(
    "115. to terminate a significant child by hand never ends the supervisor",
    scene(function*(stage) {
      for (const mode of [any, all]) {
        for (const restart of ["transient", "temporary"] as const) {
          const [s, n] = yield* stage.cast("s", "n")
          const app = yield* play([s.child({ significant: true, restart }), n.child()], mode)
          yield* Supervisor.terminateChild(app, "s")
          yield* TestClock.adjust("1 minute")
          assert.isUndefined(yield* end(app), `${mode.autoShutdown}, ${restart}`)
          assert.isTrue(n.live)
          yield* Supervisor.stop(app)
        }
      }
    })
  )

  it.effect(
    "116. all_significant: one terminated by hand does not count; the normal end of the other ends the supervisor",
    scene(function*(stage) {
      const [s1, s2, n] = yield* stage.cast("s1", "s2", "n")
      const app = yield* play([s1.child(significant), s2.child(significant), n.child()], all)
      yield* Supervisor.terminateChild(app, "s1")
      assert.isUndefined(yield* end(app))
      yield* s2.succeed
      assert.deepStrictEqual(yield* end(app), Exit.void)
    })
  )

  it.effect(
    "117. all_significant: when the last active one is terminated by hand the supervisor lingers, as OTP's does",
    scene(function*(stage) {
      const [s1, s2, n] = yield* stage.cast("s1", "s2", "n")
      const app = yield* play([s1.child(significant), s2.child(significant), n.child()], all)
      yield* s2.succeed
      assert.isUndefined(yield* end(app))
      yield* Supervisor.terminateChild(app, "s1")
      yield* TestClock.adjust("1 minute")
      assert.isUndefined(yield* end(app))
      assert.deepStrictEqual(yield* shown(app), ["s1 stopped 1", "s2 stopped 1", "n running 1"])
      // It can go on from there: the next own end of one is the last.
      yield* Supervisor.restartChild(app, "s1")
      yield* s1.succeed
      assert.deepStrictEqual(yield* end(app), Exit.void)
    })
  )

  it.effect(
    "118. a significant child that is stopped with its group does not end the supervisor; a transient one runs again",
    scene(function*(stage) {
      for (const mode of [any, all]) {
        for (const strategy of ["one_for_all", "rest_for_one"] as const) {
          const where = `${mode.autoShutdown}, ${strategy}`
          const [n, s, t] = yield* stage.cast("n", "s", "t")
          const app = yield* play([
            n.child(),
            s.child(significant),
            t.child({ significant: true, restart: "temporary" })
          ], { ...mode, strategy })
          yield* n.fail()
          assert.isUndefined(yield* end(app), where)
          assert.deepStrictEqual(yield* shown(app), ["n running 2", "s running 2"], where)
          assert.deepStrictEqual([s.starts, t.starts, t.live], [2, 1, false], where)
          yield* s.succeed
          assert.deepStrictEqual(yield* end(app), Exit.void, where)
        }
      }
    })
  )

  it.effect(
    "119. a supervisor that so ended is a normal end to its parent: a significant one ends that too, another is left stopped",
    scene(function*(stage) {
      const [a, b] = yield* stage.cast("a", "b")
      const s = yield* stage.actor("s")
      const inner = (options: Parameters<typeof scenes>[2]) =>
        scenes("inner", [s.child(significant)], { ...any, ...options })
      const ends = yield* play([a.child(), inner({ child: significant }), b.child()], any)
      stage.take()
      yield* s.succeed
      assert.deepStrictEqual(yield* end(ends), Exit.void)
      assert.deepStrictEqual(stage.take(), ["exit s", "stop b", "stop a"])

      const stays = yield* play([a.child(), inner({ child: { restart: "transient" } }), b.child()], {
        ...any,
        intensity: 0
      })
      yield* s.succeed
      assert.isUndefined(yield* end(stays))
      assert.deepStrictEqual(yield* shown(stays), ["a running 1", "inner stopped 1", "b running 1"])
      assert.strictEqual(s.starts, 2)
    })
  )

  it.effect(
    "120. a permanent supervisor that so ended is restarted by its parent, and counted",
    scene(function*(stage) {
      const [s, n] = yield* stage.cast("s", "n")
      const app = yield* play([scenes("inner", [s.child(significant), n.child()], any)], { intensity: 1 })
      yield* s.succeed
      yield* settle
      assert.deepStrictEqual(yield* shown(app), ["inner running 2"])
      assert.deepStrictEqual([s.starts, n.starts, yield* used(app)], [2, 2, 1])
      yield* s.succeed
      const ended = yield* end(app)
      assert(ended !== undefined && Exit.isFailure(ended))
    })
  )

  it.effect(
    "121. an automatic end cancels the restart of another child",
    scene(function*(stage) {
      const [a, b, s] = yield* stage.cast("a", "b", "s")
      const slowly = yield* stage.actor("slowly", {
        start: (run) => run === 1 ? Effect.void : Effect.sleep("1 minute")
      })
      const app = yield* play([
        a.child(),
        b.child({ backoff: Schedule.spaced("1 minute") }),
        slowly.child(),
        s.child(significant)
      ], any)
      yield* b.fail()
      yield* slowly.fail()
      yield* settle
      assert.deepStrictEqual(yield* shown(app), ["a running 1", "b restarting 1", "slowly restarting 2", "s running 1"])
      yield* s.succeed
      assert.deepStrictEqual(yield* end(app), Exit.void)
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual([b.starts, slowly.starts, yield* listed], [1, 2, []])
    })
  )

  it.effect(
    "122. a significant child that says it is not needed ends nothing, and is not active",
    scene(function*(stage) {
      const from = (run: number) => (now: number) => now >= run ? Supervisor.ignore : Effect.void
      for (const first of [1, 2]) {
        const s1 = yield* stage.actor("s1", { start: from(first) })
        const [n] = yield* stage.cast("n")
        const app = yield* play([s1.child(significant), n.child()], any)
        if (first === 2) yield* s1.fail()
        assert.isUndefined(yield* end(app), `any, ignored in run ${first}`)
        assert.deepStrictEqual(yield* shown(app), [`s1 stopped ${first}`, "n running 1"])
        yield* Supervisor.stop(app)
      }
      for (const first of [1, 2]) {
        const s1 = yield* stage.actor("s1", { start: from(first) })
        const [s2, n] = yield* stage.cast("s2", "n")
        const app = yield* play([s1.child(significant), s2.child(significant), n.child()], all)
        if (first === 2) yield* s1.fail()
        assert.isUndefined(yield* end(app), `all, ignored in run ${first}`)
        yield* s2.succeed
        assert.deepStrictEqual(yield* end(app), Exit.void, `all, ignored in run ${first}`)
      }
      // The last active one fails, and is then not needed: as in OTP, that does not end the supervisor.
      const s1 = yield* stage.actor("s1", { start: from(2) })
      const app = yield* play([s1.child(significant)], all)
      yield* s1.fail()
      assert.isUndefined(yield* end(app))
      assert.deepStrictEqual(yield* shown(app), ["s1 stopped 2"])
    })
  )
})
