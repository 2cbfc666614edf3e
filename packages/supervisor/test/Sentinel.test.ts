import { Orchestrator, Routine } from "@effect-orchestra/core"
import { recorder } from "@effect-orchestra/core/testing"
import { Child, Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { listed, now, type Part, piece, play, scenes, used } from "./Play.ts"
import { scene, settle, shown, slow } from "./Stage.ts"

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

const strategies = ["one_for_one", "one_for_all", "rest_for_one", "dependency"] as const

/** Ignores its interruption for so long. */
const deaf = (millis = 60_000) => Effect.uninterruptible(Effect.sleep(millis))

/** A child that runs until it is told how to end. */
const told = (id: string, options?: Omit<Child.ChildOptions, "dependsOn">) => {
  const end = Deferred.makeUnsafe<never, unknown>()
  return {
    child: Child.make(id, Deferred.await(end), options),
    to: (how: Effect.Effect<never, unknown>) => Deferred.completeWith(end, how)
  }
}

describe("what a child may say", () => {
  it.effect(
    "153. that it is not to be restarted: it is forgotten, no failure is told, its siblings are not touched",
    scene(function*(stage) {
      const record = yield* recorder
      const ways = [Supervisor.done, Effect.fail(new SupervisorError.Done()), Effect.die(new SupervisorError.Done())]
      for (const strategy of strategies) {
        for (const restart of ["permanent", "transient", "temporary"] as const) {
          for (const [way, how] of ways.entries()) {
            const where = `${strategy}, ${restart}, way ${way}`
            const [a, z] = yield* stage.cast("a", "z")
            const once = told("once", { restart })
            const app = yield* play([a.child(), once.child, z.child()], { strategy, intensity: 0 })
            const seen = record.events.length
            stage.take()
            yield* once.to(how)
            yield* settle
            assert.deepStrictEqual(yield* shown(app), ["a running 1", "z running 1"], where)
            assert.deepStrictEqual(stage.take(), [], where)
            assert.strictEqual(yield* used(app), 0, where)
            const decided = record.events.slice(seen).flatMap((event) =>
              event._tag === "Decided" ? [`${event.child} ${event.decision} ${event.severity}`] : []
            )
            assert.deepStrictEqual(decided, ["once remove info"], where)
            const failures = record.events.slice(seen).flatMap((event) =>
              event._tag === "Exited" && event.exit.reason !== "success"
                ? [`Exited ${event.exit.reason}`]
                : event._tag === "Stopped" && event.state !== "succeeded"
                ? [`Stopped ${event.state}`]
                : []
            )
            assert.deepStrictEqual(failures, [], where)
            // Its id is free.
            yield* Supervisor.startChild(app, Child.make("once", Effect.never))
            yield* Supervisor.stop(app)
          }
        }
      }
    })
  )

  it.effect(
    "154. that its tree is to end: its supervisor ends normally, and so does the parent, unless that does not go on",
    scene(function*(stage) {
      const ways = [Supervisor.terminateTree, Effect.fail(new SupervisorError.TerminateTree())]
      const record = yield* recorder
      for (const how of ways) {
        for (const propagateTermination of [true, false]) {
          const seen = record.events.length
          const [a, b, c, d] = yield* stage.cast("a", "b", "c", "d")
          const last = told("last")
          const app = yield* play([
            a.child(),
            scenes("outer", [b.child(), scenes("inner", [c.child(), last.child, d.child()])], {
              propagateTermination,
              intensity: 0
            })
          ], { intensity: 0 })
          const ending = yield* fork(Supervisor.await(app))
          stage.take()
          yield* last.to(how)
          yield* settle
          const inside = ["stop d", "stop c", "stop b"]
          if (propagateTermination) {
            yield* now(ending)
            assert.deepStrictEqual(stage.take(), [...inside, "stop a"])
            assert.deepStrictEqual(yield* listed, [])
          } else {
            assert.isUndefined(ending.pollUnsafe())
            assert.deepStrictEqual(stage.take(), inside)
            assert.deepStrictEqual(yield* shown(app), ["a running 1"])
            assert.strictEqual(yield* used(app), 0)
            yield* Supervisor.stop(app)
            stage.take()
          }
          const decided = record.events.slice(seen).flatMap((event) =>
            event._tag === "Decided" ? [`${event.child} ${event.decision} ${event.severity}`] : []
          )
          assert.deepStrictEqual(
            decided,
            propagateTermination
              ? ["last terminate_tree info", "inner terminate_tree info", "outer terminate_tree info"]
              : ["last terminate_tree info", "inner terminate_tree info", "outer remove info"]
          )
        }
      }
      // `run` returns: nothing failed.
      const last = told("last")
      const running = yield* fork(Supervisor.run(piece([last.child])))
      yield* last.to(Supervisor.terminateTree)
      assert.deepStrictEqual(yield* Fiber.await(running), Exit.void)
    })
  )
})

describe("as suture's tests ask", () => {
  it.effect(
    "155. an interruption or a timeout of something else is a failure of the child, not an orderly end",
    scene(function*() {
      const ways: Record<string, Effect.Effect<unknown, unknown>> = {
        "it joins a fiber that was interrupted": Effect.gen(function*() {
          const other = yield* Effect.forkChild(Effect.never)
          yield* Effect.yieldNow
          yield* Fiber.interrupt(other)
          return yield* Fiber.join(other)
        }),
        "it fails with the exit of another scope": Effect.flatMap(
          Effect.exit(Effect.scoped(Effect.interrupt)),
          (exit) => exit
        ),
        "it interrupts itself": Effect.andThen(Effect.yieldNow, Effect.interrupt),
        "a deadline of its own passes": Effect.timeout(Effect.never, "1 second"),
        "a routine that it joins is stopped": Effect.gen(function*() {
          const other = yield* Orchestrator.fork(Effect.never)
          yield* Routine.stop(other)
          return yield* Routine.join(other)
        }).pipe(Effect.provideService(Orchestrator, yield* Orchestrator))
      }
      for (const [way, ends] of Object.entries(ways)) {
        const record = yield* recorder
        let runs = 0
        const body = Effect.suspend(() => ++runs === 1 ? ends : Effect.never)
        const app = yield* play([Child.make("a", body, { restart: "transient" })])
        yield* TestClock.adjust("1 second")
        yield* settle
        assert.deepStrictEqual(yield* shown(app), ["a running 2"], way)
        assert.strictEqual(runs, 2, way)
        const decided = record.events.flatMap((event) =>
          event._tag === "Decided" ? [[event.decision, event.reason, event.severity]] : []
        )
        assert.deepStrictEqual(decided, [["restart", "failure", "error"]], way)
        yield* Supervisor.stop(app)
      }
    })
  )

  it.effect(
    "156. a removal waits for the end, at most for the bound; a late end is still told; a stranger's child is not found",
    scene(function*(stage) {
      const record = yield* recorder
      const finishing = yield* stage.actor("finishing", { stop: slow(200) })
      const finished = yield* stage.actor("finished")
      const app = yield* play([
        finishing.child(),
        finished.child({ restart: "transient" }),
        Child.make("hung", deaf(), { shutdown: "1 second" })
      ])
      yield* finished.succeed
      // One that ends: waited for.
      const removing = yield* fork(Supervisor.terminateChild(app, "finishing"))
      yield* TestClock.adjust("199 millis")
      assert.isUndefined(removing.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* now(removing), "stopped")
      // One that has ended, and one that was removed already.
      assert.strictEqual(yield* Supervisor.terminateChild(app, "finished"), "stopped")
      assert.strictEqual(yield* Supervisor.terminateChild(app, "finished"), "stopped")
      // One that hangs: a bound, and what follows is told.
      const hanging = yield* fork(Supervisor.terminateChild(app, "hung"))
      yield* TestClock.adjust("999 millis")
      assert.isUndefined(hanging.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* now(hanging), "abandoned")
      assert.deepStrictEqual(yield* listed, ["/orchestra/app/hung abandoned"])
      for (
        const operation of [Effect.asVoid(Supervisor.restartChild(app, "hung")), Supervisor.deleteChild(app, "hung")]
      ) {
        const refused: unknown = yield* Effect.flip(operation)
        assert.isTrue(refused instanceof SupervisorError.ChildRunning && refused.state === "abandoned", String(refused))
      }
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(record.of("/orchestra/app/hung").map(({ _tag }) => _tag).slice(-1), ["EndedLate"])
      assert.deepStrictEqual(yield* listed, [])
      yield* Supervisor.deleteChild(app, "hung")
      // The id of another supervisor's child.
      const [stranger] = yield* stage.cast("stranger")
      yield* play([stranger.child()], { name: "other" })
      assert.strictEqual((yield* Effect.flip(Supervisor.terminateChild(app, "stranger")))._tag, "ChildNotFound")
      assert.isTrue(stranger.live)
    })
  )

  it.effect(
    "157. a shutdown with a child that hangs returns at the bound and names it, in nested supervisors too; a clean one names none",
    scene(function*(stage) {
      const hung = (id: string) => Child.make(id, deaf(), { shutdown: "2 seconds" })
      const [a] = yield* stage.cast("a")
      yield* play([a.child(), hung("flat"), scenes("inner", [hung("deep"), Child.make("good", Effect.never)])])
      const stopping = yield* fork(Orchestrator.shutdown())
      yield* TestClock.adjust("3999 millis")
      assert.isUndefined(stopping.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      const report = yield* now(stopping)
      assert.deepStrictEqual([report.clean, report.durationMillis, a.live], [false, 4000, false])
      // Who was abandoned first has waited for the other, too.
      assert.deepStrictEqual(report.stuck.map(({ path, waitedMillis }) => [path, waitedMillis]).toSorted(), [
        ["/orchestra/app/flat", 2000],
        ["/orchestra/app/inner/deep", 4000]
      ])
      yield* TestClock.adjust("1 minute")
      const again = yield* Orchestrator.shutdown()
      assert.deepStrictEqual([again.clean, again.stuck], [true, []])
    })
  )

  it.effect(
    "158. what is added before the start is started in order; what is added after the end is refused at once",
    scene(function*(stage) {
      const [a, b, c, d] = yield* stage.cast("a", "b", "c", "d")
      // A specification is a value: to add to it makes another.
      const spec = piece([a.child(), b.child()])
      const app = yield* Supervisor.start(piece([...spec.children as ReadonlyArray<Part>, c.child()]))
      assert.deepStrictEqual(stage.take(), ["start a", "start b", "start c"])
      assert.strictEqual(spec.children.length, 2)
      yield* Supervisor.stop(app)
      const adding = yield* fork(Effect.flip(Supervisor.startChild(app, d.child())))
      yield* settle
      assert.strictEqual((yield* now(adding))._tag, "SupervisorNotRunning")
      assert.strictEqual(d.starts, 0)
    })
  )

  it.effect(
    "159. a specification that runs can be started again, and one that was stopped: each is a supervisor of its own",
    scene(function*() {
      let runs = 0
      const spec = piece([Child.make("a", Effect.andThen(Effect.sync(() => void runs++), Effect.never))])
      const first = yield* Supervisor.start(spec)
      const second = yield* Supervisor.start(spec)
      assert.notStrictEqual(first.id, second.id)
      assert.strictEqual(runs, 2)
      const paths = Effect.map(Orchestrator.list, (nodes) => nodes.map(({ path }) => path))
      assert.deepStrictEqual(yield* paths, ["/orchestra/app/a", `/orchestra/app#${second.id}/a`])
      yield* Supervisor.stop(first)
      assert.deepStrictEqual(yield* shown(second), ["a running 1"])
      const third = yield* Supervisor.start(spec)
      assert.deepStrictEqual([yield* shown(third), runs], [["a running 1"], 3])
      // The one that was stopped stays so.
      assert.strictEqual((yield* Effect.flip(Supervisor.whichChildren(first)))._tag, "SupervisorNotRunning")
    })
  )

  it.effect(
    "160. a hundred supervisors in each other, started and stopped at once, neither block nor leave anything",
    scene(function*() {
      let open = 0
      const leaf = Child.make(
        "leaf",
        Effect.andThen(
          Effect.acquireRelease(Effect.sync(() => void open++), () => Effect.sync(() => void open--)),
          Effect.never
        )
      )
      let nested = piece([leaf], { name: "s100" })
      for (let depth = 99; depth > 0; depth--) nested = piece([Child.supervisor(nested)], { name: `s${depth}` })
      const app = yield* Supervisor.start(nested)
      assert.strictEqual(open, 1)
      yield* Supervisor.stop(app)
      assert.deepStrictEqual([open, yield* listed], [0, []])
      // Stopped while it starts, and side by side.
      for (const turns of [0, 1, 10, 100]) {
        const starting = yield* fork(Effect.scoped(Supervisor.start(nested)))
        for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
        yield* Fiber.interrupt(starting)
        assert.deepStrictEqual([open, yield* listed], [0, []], `after ${turns} turns`)
      }
      const wide = yield* play(
        Array.from({ length: 100 }, (_, index) => scenes(`s${index}`, [leaf]))
      )
      assert.strictEqual(open, 100)
      yield* Supervisor.stop(wide)
      assert.deepStrictEqual([open, yield* listed], [0, []])
    })
  )
})
