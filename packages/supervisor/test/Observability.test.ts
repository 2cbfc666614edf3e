import { Orchestrator } from "@effect-orchestra/core"
import { recorder, TestOrchestra } from "@effect-orchestra/core/testing"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Random, Schedule, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Lifecycle } from "./model/Lifecycle.ts"
import { listed, now, piece, play, scenes } from "./Play.ts"
import { scene, settle, shown, slow, Stage } from "./Stage.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

describe("what is told", () => {
  it.effect(
    "161. every transition is told once, with path, id, run and time, and each child's events are a legal life",
    () =>
      Effect.gen(function*() {
        // One life in full.
        yield* scene(function*(stage) {
          const record = yield* recorder
          const a = yield* stage.actor("a", { start: slow(10) })
          const starting = yield* fork(play([
            a.child({ backoff: Schedule.spaced("1 second") }),
            Child.make("deaf", Effect.uninterruptible(Effect.sleep("1 minute")), { shutdown: "300 millis" })
          ], { intensity: 2 }))
          yield* TestClock.adjust("10 millis")
          const app = yield* now(starting)
          yield* a.fail()
          yield* TestClock.adjust("1 second")
          yield* TestClock.adjust("10 millis")
          yield* Supervisor.terminateChild(app, "a")
          const again = yield* fork(Supervisor.restartChild(app, "a"))
          yield* TestClock.adjust("10 millis")
          yield* now(again)
          const stopping = yield* fork(Supervisor.stop(app))
          yield* TestClock.adjust("300 millis")
          yield* now(stopping)
          yield* TestClock.adjust("1 minute")
          const of = (name: string) => record.log.filter((line) => line.split(/[ :]/)[1] === `/orchestra/app${name}`)
          assert.deepStrictEqual(of("/a"), [
            "Forked /orchestra/app/a",
            "Ready /orchestra/app/a run 1",
            "Exited /orchestra/app/a run 1: failure _OTHER: a failed",
            "BackoffStarted /orchestra/app/a run 1: delayMillis 1000, attempt 2",
            "Restarted /orchestra/app/a run 2: supervisor app, reason failure, delayMillis 1000",
            "Ready /orchestra/app/a run 2",
            "StopRequested /orchestra/app/a run 2: stopped from outside",
            "Exited /orchestra/app/a run 2: interrupted (stopped from outside)",
            "Stopped /orchestra/app/a run 2: state interrupted",
            "Forked /orchestra/app/a",
            "Ready /orchestra/app/a run 3",
            "StopRequested /orchestra/app/a run 3: stopped from outside",
            "Exited /orchestra/app/a run 3: interrupted (stopped from outside)",
            "Stopped /orchestra/app/a run 3: state interrupted"
          ])
          assert.deepStrictEqual(of("/deaf"), [
            "Forked /orchestra/app/deaf",
            "Ready /orchestra/app/deaf run 1",
            "StopRequested /orchestra/app/deaf run 1: stopped from outside",
            "Abandoned /orchestra/app/deaf run 1",
            "Stopped /orchestra/app/deaf run 1: state abandoned",
            "Exited /orchestra/app/deaf run 1: abandoned (stopped from outside)",
            "EndedLate /orchestra/app/deaf run 1"
          ])
          assert.deepStrictEqual(of("").slice(0, 2), [
            "Decided /orchestra/app run 1: child a, decision restart, reason failure, severity error",
            "StopRequested /orchestra/app run 1: stopped from outside"
          ])
          const times = record.of("/orchestra/app/a").map(({ at }) => at)
          const [begun = 0] = times
          assert.deepStrictEqual(times.slice(0, 6).map((at) => at - begun), [0, 10, 10, 10, 1010, 1020])
        })()

        // One that is stuck is told so once, whatever rounds follow.
        yield* scene(function*(stage) {
          const record = yield* recorder
          const [a, c] = yield* stage.cast("a", "c")
          const app = yield* play([
            a.child(),
            c.child({ backoff: Schedule.spaced("1 second") }),
            Child.make("deaf", Effect.uninterruptible(Effect.sleep("1 minute")), { shutdown: "1 millis" })
          ], { strategy: "rest_for_one" })
          yield* c.fail()
          yield* TestClock.adjust("500 millis")
          yield* a.fail()
          yield* TestClock.adjust("2 minutes")
          assert.deepStrictEqual((yield* shown(app)).slice(0, 2), ["a running 2", "c running 2"])
          const told = record.of("/orchestra/app/deaf").map(({ _tag, incarnation }) => `${_tag} ${incarnation}`)
          assert.deepStrictEqual(told.filter((line) => line === "Stuck 1"), ["Stuck 1"])
        })()

        // Who runs again because of one that is not to any more is told to be restarted.
        yield* scene(function*(stage) {
          const record = yield* recorder
          const [a, b] = yield* stage.cast("a", "b")
          const thinking = Schedule.spaced("1 second").pipe(
            Schedule.modifyDelay(({ duration }) => Effect.delay(Effect.succeed(duration), "1 second"))
          )
          const app = yield* play([a.child({ backoff: thinking }), b.child()], { strategy: "one_for_all" })
          yield* a.fail()
          yield* settle
          yield* Supervisor.terminateChild(app, "a")
          yield* TestClock.adjust("1 minute")
          assert.deepStrictEqual(yield* shown(app), ["a stopped 1", "b running 2"])
          const tags = record.of("/orchestra/app/b").map(({ _tag }) => _tag)
          assert.deepStrictEqual(tags.slice(-3), ["Exited", "Restarted", "Ready"])
        })()

        // Many lives, as they may be.
        let told = 0
        for (let seed = 0; seed < seeds; seed++) {
          const strategies = ["one_for_one", "one_for_all", "rest_for_one", "dependency"] as const
          yield* TestOrchestra.run(
            Effect.gen(function*() {
              const record = yield* recorder
              const stage = new Stage()
              const backoff = seed % 3 === 0 ? Schedule.spaced("3 millis") : undefined
              const restarts = ["permanent", "transient", "temporary"] as const
              const cast = yield* Effect.forEach(["a", "b", "c", "d"], (id, index) =>
                Effect.gen(function*() {
                  const role = {
                    ...(index % 2 === 0 ? { start: slow(yield* Random.nextIntBetween(0, 3)) } : {}),
                    ...(index > 1 ? { stop: slow(yield* Random.nextIntBetween(0, 3)) } : {})
                  }
                  return yield* stage.actor(id, role)
                }))
              const spec = piece(
                cast.map((actor, index) =>
                  actor.child({
                    restart: restarts[(seed + index) % 3],
                    backoff,
                    shutdown: index === 3 ? "1 millis" : "1 second"
                  })
                ),
                { strategy: strategies[seed % 4] ?? "one_for_one", intensity: 15, period: "20 millis" }
              )
              const app = yield* Supervisor.start(spec)
              for (let step = 0; step < 15; step++) {
                const actor = cast[(yield* Random.nextIntBetween(0, 1000)) % 4] ?? assert.fail()
                const command = yield* Random.nextIntBetween(0, 8)
                const doing = command < 4
                  ? actor.fail()
                  : command === 4
                  ? actor.succeed
                  : command === 5
                  ? Effect.exit(Supervisor.terminateChild(app, actor.id))
                  : command === 6
                  ? Effect.exit(Supervisor.restartChild(app, actor.id))
                  : Effect.exit(Supervisor.deleteChild(app, actor.id))
                yield* Effect.forkChild(doing)
                yield* Effect.sleep(yield* Random.nextIntBetween(0, 4))
              }
              yield* Supervisor.stop(app)
              yield* Effect.sleep("1 minute")
              const lives = new Map<string, Lifecycle>()
              for (const [index, event] of record.events.entries()) {
                const before = record.events[index - 1]
                if (before !== undefined) {
                  assert.strictEqual(event.seq, before.seq + 1)
                  assert.isAtLeast(event.at, before.at)
                }
                if (!event.path.startsWith("/orchestra/app/")) continue
                const life = lives.get(event.path) ?? new Lifecycle()
                lives.set(event.path, life)
                const fault = life.next(event)
                if (fault !== undefined) {
                  const history = record.log.slice(0, index + 1).filter((line) => line.includes(event.path))
                  assert.fail(`${event.path}: ${fault}\n${history.join("\n")}`)
                }
              }
              for (const [path, life] of lives) assert.isTrue(life.isFinal, path)
              told += record.events.length
            }),
            { seed }
          ).pipe(Effect.catchDefect((defect) => Effect.die(new Error(`seed ${seed}: ${defect}`, { cause: defect }))))
        }
        assert.isAbove(told, 20 * seeds)
      }),
    60_000
  )

  it.effect(
    "162. a permanent child's normal end is told as an error, a transient's is not; at the end: exit, limit, siblings, supervisor",
    scene(function*(stage) {
      const record = yield* recorder
      const [permanent, transient] = yield* stage.cast("permanent", "transient")
      const app = yield* play([permanent.child(), transient.child({ restart: "transient" })])
      yield* permanent.succeed
      yield* transient.succeed
      yield* settle
      const decided = record.events.flatMap((event) =>
        event._tag === "Decided" ? [`${event.child}: ${event.decision} after ${event.reason}, ${event.severity}`] : []
      )
      assert.deepStrictEqual(decided, [
        "permanent: restart after success, error",
        "transient: stop after success, info"
      ])
      yield* Supervisor.stop(app)

      for (const strategy of ["one_for_one", "one_for_all", "rest_for_one", "dependency"] as const) {
        const [a, b, c] = yield* stage.cast("a", "b", "c")
        const outer = yield* play([
          scenes("inner", [a.child(), b.child(), c.child()], {
            strategy,
            intensity: 0,
            child: { restart: "temporary" }
          })
        ])
        const seen = record.events.length
        yield* b.fail()
        yield* settle
        const below = record.events.slice(seen).flatMap(({ _tag, path }) =>
          path.startsWith("/orchestra/app/inner") ? [`${_tag} ${path.slice("/orchestra/app/".length)}`] : []
        )
        const order = ["Exited inner/b", "GaveUp inner", "Exited inner/c", "Exited inner/a", "Exited inner"]
        assert.deepStrictEqual(below.filter((line) => order.includes(line)), order, strategy)
        yield* Supervisor.stop(outer)
      }
    })
  )

  it.effect(
    "163. a listener that is slow, fails or dies neither delays nor ends anything",
    scene(function*() {
      let runs = 0
      const busy = Child.make("busy", Effect.suspend(() => ++runs < 500 ? Effect.yieldNow : Effect.never))
      yield* Orchestrator.instrument(() => {
        throw new Error("a bad hook")
      })
      const app = yield* play([Child.make("quiet", Effect.never)], { intensity: 5000 })
      const listeners = [
        Stream.runForEach(Supervisor.events(app), () => Effect.never),
        Stream.runForEach(Supervisor.events(app), () => Effect.die("a bad listener")),
        Stream.runForEach(Supervisor.events(app), () => Effect.fail("no"))
      ]
      for (const listener of listeners) yield* fork(Effect.exit(listener))
      yield* settle
      const record = yield* recorder
      yield* Supervisor.startChild(app, busy)
      while (runs < 500) yield* Effect.yieldNow
      yield* settle
      assert.deepStrictEqual(yield* shown(app), ["quiet running 1", "busy running 500"])
      assert.strictEqual(record.tags.filter((tag) => tag === "Restarted").length, 499)
      yield* now(yield* fork(Supervisor.stop(app)))
      assert.deepStrictEqual(yield* listed, [])
    })
  )

  it.effect(
    "164. the snapshot of a tree of three levels is whole, and waits for no start or stop under way",
    scene(function*(stage) {
      const late = yield* stage.actor("late", { start: slow(10_000) })
      const slowly = yield* stage.actor("slowly", { stop: slow(3000) })
      const [a, b] = yield* stage.cast("a", "b")
      const ref = yield* Deferred.make<Supervisor.SupervisorRef>()
      yield* play([
        a.child(),
        scenes("mid", [
          b.child({ backoff: Schedule.spaced("1 hour") }),
          scenes("low", [slowly.child()]),
          // It adds to its own tree.
          Child.make("adder", Effect.flatMap(Deferred.await(ref), (app) => Supervisor.startChild(app, late.child())))
        ])
      ]).pipe(Effect.flatMap((app) => Deferred.succeed(ref, app)))
      yield* settle
      yield* b.fail()
      const stopping = yield* fork(Effect.flatMap(Deferred.await(ref), (app) => Supervisor.terminateChild(app, "mid")))
      yield* settle
      const nodes = yield* Orchestrator.snapshot
      const found = Object.fromEntries(nodes.map((node) => [`${node.kind} ${node.path}`, node.state]))
      assert.deepInclude(found, {
        "orchestrator /orchestra": "running",
        "supervisor /orchestra/app": "running",
        "routine /orchestra/app/a": "running",
        "routine /orchestra/app/mid": "stopping",
        "routine /orchestra/app/mid/low": "stopping",
        "routine /orchestra/app/mid/low/slowly": "stopping"
      })
      const paths = new Set(nodes.map(({ path }) => path))
      for (const { path } of nodes.slice(1)) {
        assert.isTrue(paths.has(path.slice(0, path.lastIndexOf("/"))), `${path} has no parent`)
      }
      assert.strictEqual(new Set(nodes.map(({ id }) => id)).size, nodes.length)
      yield* TestClock.adjust("1 minute")
      yield* now(stopping)
    })
  )
})
