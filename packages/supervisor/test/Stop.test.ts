import { Orchestrator, Routine } from "@effect-orchestra/core"
import { recorder } from "@effect-orchestra/core/testing"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { listed, now, type Part, piece, play, scenes } from "./Play.ts"
import { scene, settle, slow } from "./Stage.ts"

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

/** How long an effect takes by the clock of the test: it is moved in steps of `step` milliseconds, a minute at most. */
const timed = <A, E, R>(effect: Effect.Effect<A, E, R>, step = 50) =>
  Effect.gen(function*() {
    const fiber = yield* fork(effect)
    yield* settle
    let millis = 0
    while (fiber.pollUnsafe() === undefined && millis < 60_000) {
      yield* TestClock.adjust(step)
      yield* settle
      millis += step
    }
    const exit = fiber.pollUnsafe() ?? assert.fail("it takes more than a minute")
    return { millis, value: yield* exit }
  })

/** Ignores its interruption for so long. */
const deaf = (millis = 60_000) => Effect.uninterruptible(Effect.sleep(millis))

describe("stop", () => {
  it.effect(
    "96. children are ended in exact reverse order, each gone with its finalizers before the next is asked",
    scene(function*(stage) {
      const gone = (id: string) => Effect.addFinalizer(() => Effect.sync(() => void stage.log.push(`closed ${id}`)))
      for (const strategy of ["one_for_one", "one_for_all", "rest_for_one"] as const) {
        const a = yield* stage.actor("a", { stop: slow(100) })
        const b = yield* stage.actor("b", { stop: slow(100) })
        const c = yield* stage.actor("c", { stop: slow(100) })
        const app = yield* play([
          Child.make("a", Effect.andThen(gone("a"), a.effect)),
          b.layer(),
          Child.make("c", Effect.andThen(gone("c"), c.effect))
        ], { strategy })
        stage.take()
        const { millis } = yield* timed(Supervisor.stop(app))
        assert.deepStrictEqual(stage.take(), [
          "stopping c",
          "stop c",
          "closed c",
          "stopping b",
          "stop b",
          "stopping a",
          "stop a",
          "closed a"
        ])
        assert.strictEqual(millis, 300)
      }
    })
  )

  it.effect(
    "97. a child that needs less than its bound ends gracefully, and that is no error",
    scene(function*(stage) {
      const record = yield* recorder
      const a = yield* stage.actor("a", { stop: slow(200) })
      const app = yield* play([a.child({ shutdown: "500 millis" })])
      const { millis } = yield* timed(Supervisor.stop(app))
      assert.strictEqual(millis, 200)
      assert.strictEqual((yield* Routine.snapshot(a.routine)).state, "interrupted")
      const errors = record.events.filter((event) =>
        event._tag === "Stuck" || event._tag === "Abandoned" || (event._tag === "Decided" && event.severity === "error")
      )
      assert.deepStrictEqual(errors, [])
    })
  )

  it.effect(
    "98. a child that ignores its stop is abandoned at its bound, told, and delays nobody else",
    scene(function*(stage) {
      const record = yield* recorder
      const [a, c] = yield* stage.cast("a", "c")
      const app = yield* play([a.child(), Child.make("b", deaf(), { shutdown: "300 millis" }), c.child()])
      stage.take()
      const stopping = yield* fork(Supervisor.stop(app))
      yield* TestClock.adjust("299 millis")
      assert.deepStrictEqual([stage.take(), stopping.pollUnsafe()], [["stop c"], undefined])
      yield* TestClock.adjust("1 millis")
      yield* now(stopping)
      assert.deepStrictEqual(stage.take(), ["stop a"])
      const abandoned = record.events.flatMap((event) =>
        event._tag === "Abandoned" ? [[event.path, event.waitedMillis]] : []
      )
      assert.deepStrictEqual(abandoned, [["/orchestra/app/b", 300]])
      assert.deepStrictEqual(yield* listed, ["/orchestra/app/b abandoned"])
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(record.tags.at(-1), "EndedLate")
      assert.deepStrictEqual(yield* listed, [])
    })
  )

  it.effect(
    "99. brutal_kill and a bound of 0 wait for nothing, infinity for ten minutes",
    scene(function*(stage) {
      for (const shutdown of ["brutal_kill", 0] as const) {
        const [a] = yield* stage.cast("a")
        // Who would be asked, and could take its time, is not.
        const drains = Effect.andThen(Routine.onDrain(Effect.sleep("1 second")), Routine.stopRequested)
        const app = yield* play([
          a.child({ shutdown }),
          Child.make("drains", Effect.andThen(drains, Effect.sleep("1 second")), { shutdown }),
          Child.make("deaf", deaf(), { shutdown })
        ])
        stage.take()
        const { millis } = yield* timed(Supervisor.stop(app))
        assert.strictEqual(millis, 0, String(shutdown))
        // Who ends at once was not abandoned.
        assert.deepStrictEqual(stage.take(), ["stop a"], String(shutdown))
        assert.strictEqual((yield* Routine.snapshot(a.routine)).state, "interrupted", String(shutdown))
        assert.deepStrictEqual(yield* listed, ["/orchestra/app/deaf abandoned"], String(shutdown))
        yield* TestClock.adjust("1 minute")
      }
      const app = yield* play([Child.make("patient", deaf(10 * 60_000), { shutdown: "infinity" })])
      const stopping = yield* fork(Supervisor.terminateChild(app, "patient"))
      yield* TestClock.adjust(10 * 60_000 - 1)
      assert.isUndefined(stopping.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(yield* now(stopping), "stopped")
    })
  )

  it.effect(
    "100. a child that fails while it is being stopped is told with its cause, one that succeeds is not an error",
    scene(function*() {
      const record = yield* recorder
      const asked = (end: Effect.Effect<unknown, unknown>) =>
        Effect.andThen(Routine.stopRequested, Effect.delay(end, "100 millis"))
      for (const restart of ["permanent", "transient", "temporary"] as const) {
        const seen = record.events.length
        const app = yield* play([
          Child.make("fails", asked(Effect.fail("could not save")), { restart }),
          Child.make("dies", asked(Effect.die("broken")), { restart }),
          Child.make("saves", asked(Effect.succeed("saved")), { restart })
        ], { intensity: 0 })
        const { millis } = yield* timed(Supervisor.stop(app))
        assert.strictEqual(millis, 300)
        const events = record.events.slice(seen)
        const exits = events.flatMap((event) =>
          event._tag === "Exited" ? [`${event.name} ${event.exit.reason} ${event.exit.message}`] : []
        )
        assert.deepStrictEqual(exits, ["saves success null", "dies defect broken", "fails failure could not save"])
        assert.notInclude(events.map(({ _tag }) => _tag), "Decided")
      }
      // The report of a shutdown names who failed in it, and nobody else.
      yield* play([
        Child.make("fails", asked(Effect.fail("could not save"))),
        Child.make("saves", asked(Effect.succeed("saved")))
      ])
      const { value: report } = yield* timed(Orchestrator.shutdown())
      assert.deepStrictEqual(report.failures, [{ path: "/orchestra/app/fails", message: "could not save" }])
    })
  )

  it.effect(
    "101. a stop gets through children that are graceful, deaf, killed brutally, finished and restarting",
    scene(function*(stage) {
      const [killed, finished, restarting] = yield* stage.cast("killed", "finished", "restarting")
      const graceful = yield* stage.actor("graceful", { stop: slow(200) })
      const app = yield* play([
        graceful.child(),
        Child.make("deaf", deaf(), { shutdown: "300 millis" }),
        killed.child({ shutdown: "brutal_kill" }),
        finished.child({ restart: "transient" }),
        restarting.child({ backoff: Schedule.spaced("1 hour") })
      ])
      const routines = yield* Supervisor.whichChildren(app)
      yield* finished.succeed
      yield* restarting.fail()
      yield* settle
      const { millis } = yield* timed(Supervisor.stop(app))
      assert.strictEqual(millis, 500)
      const ends = yield* Effect.forEach(routines, ({ routine }) => Routine.snapshot(routine))
      assert.deepStrictEqual(ends.map(({ lastExit, name, state }) => `${name} ${state} ${lastExit?.reason}`), [
        "graceful interrupted interrupted",
        "deaf abandoned abandoned",
        "killed interrupted interrupted",
        "finished succeeded success",
        "restarting failed failure"
      ])
      yield* TestClock.adjust("2 hours")
      assert.strictEqual(restarting.starts, 1)
    })
  )

  it.effect(
    "102. what fails during a stop is neither restarted nor counted",
    scene(function*(stage) {
      for (const strategy of ["one_for_one", "one_for_all", "rest_for_one", "dependency"] as const) {
        const record = yield* recorder
        const [a, b] = yield* stage.cast("a", "b")
        const app = yield* play([
          a.child(),
          b.child(),
          Child.make("slow", Effect.onInterrupt(Effect.never, () => Effect.sleep("1 second"))),
          Child.make("bad", Effect.onInterrupt(Effect.never, () => Effect.die("in a finalizer")))
        ], { strategy, intensity: 0 })
        const stopping = yield* fork(Supervisor.stop(app))
        yield* settle
        if (strategy !== "dependency") {
          yield* a.fail()
          yield* b.fail()
        }
        yield* TestClock.adjust("1 second")
        yield* now(stopping)
        assert.deepStrictEqual(yield* Effect.exit(Supervisor.await(app)), Exit.void, strategy)
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual([a.starts, b.starts], [1, 1], strategy)
        assert.deepStrictEqual(
          record.tags.filter((tag) => tag === "Decided" || tag === "Restarted" || tag === "GaveUp"),
          [],
          strategy
        )
      }
    })
  )

  it.effect(
    "103. a tree of three levels is stopped depth first, the last started subtree first",
    scene(function*(stage) {
      const leaf = (id: string) => Effect.map(stage.actor(id, { stop: slow(10) }), (actor) => actor.child())
      const [a, b1, b2, c1, c2, d] = yield* Effect.all([
        leaf("a"),
        leaf("b1"),
        leaf("b2"),
        leaf("c1"),
        leaf("c2"),
        leaf("d")
      ])
      const app = yield* play([
        a,
        scenes("first", [b1, scenes("deep", [c1, c2]), b2]),
        d,
        scenes("last", [yield* leaf("e1"), yield* leaf("e2")])
      ])
      stage.take()
      yield* timed(Supervisor.stop(app), 10)
      assert.deepStrictEqual(
        stage.take().filter((line) => line.startsWith("stop ")),
        ["e2", "e1", "d", "b2", "c2", "c1", "b1", "a"].map((id) => `stop ${id}`)
      )
    })
  )

  it.effect(
    "104. whatever ends the owner of a supervisor, its children are stopped before the owner has ended",
    scene(function*(stage) {
      for (const end of ["success", "failure", "defect", "interrupt"] as const) {
        const [a, b] = yield* stage.cast("a", "b")
        const told = yield* Deferred.make<void, string>()
        const owner = yield* Orchestrator.fork(
          Effect.andThen(Supervisor.start(piece([a.child(), b.child()])), Deferred.await(told)),
          { name: "owner" }
        )
        const ended = yield* fork(
          Effect.andThen(Effect.exit(Routine.await(owner)), Effect.sync(() => void stage.log.push("the owner ended")))
        )
        yield* settle
        stage.take()
        if (end === "success") yield* Deferred.succeed(told, undefined)
        if (end === "failure") yield* Deferred.fail(told, "no")
        if (end === "defect") yield* Deferred.die(told, "broken")
        if (end === "interrupt") yield* Routine.interrupt(owner)
        yield* now(ended)
        assert.deepStrictEqual(stage.take(), ["stop b", "stop a", "the owner ended"], end)
      }
      // The same of a scope, a fiber that runs one, and a layer.
      const [a] = yield* stage.cast("a")
      const spec = piece([a.child()])
      const owners = [
        Effect.scoped(Effect.andThen(Supervisor.start(spec), settle)),
        Effect.flatMap(fork(Supervisor.run(spec)), (fiber) => Effect.andThen(settle, Fiber.interrupt(fiber))),
        Effect.scoped(Effect.andThen(Layer.build(Supervisor.layer(spec)), settle))
      ]
      for (const owner of owners) {
        yield* owner
        assert.deepStrictEqual(stage.take(), ["start a", "stop a"])
      }
    })
  )

  it.effect(
    "105. two stops at once, and one more, all return; each child is stopped once",
    scene(function*(stage) {
      const a = yield* stage.actor("a", { stop: slow(300) })
      const b = yield* stage.actor("b", { stop: slow(300) })
      const app = yield* play([a.child(), b.child()])
      stage.take()
      const record = yield* recorder
      const first = yield* fork(Supervisor.stop(app))
      yield* TestClock.adjust("100 millis")
      const second = yield* fork(Supervisor.stop(app))
      yield* TestClock.adjust("499 millis")
      assert.deepStrictEqual([first.pollUnsafe(), second.pollUnsafe()], [undefined, undefined])
      yield* TestClock.adjust("1 millis")
      yield* now(first)
      yield* now(second)
      yield* Supervisor.stop(app)
      assert.deepStrictEqual(stage.take(), ["stopping b", "stop b", "stopping a", "stop a"])
      assert.deepStrictEqual(
        record.events.filter(({ _tag }) => _tag === "StopRequested").map(({ path }) => path),
        ["/orchestra/app", "/orchestra/app/b", "/orchestra/app/a"]
      )
    })
  )

  it.effect(
    "106. a stop from within the own tree returns at once, goes on, and ends its caller",
    scene(function*(stage) {
      for (const depth of ["child", "grandchild", "fiber of a child"] as const) {
        const [a, z] = yield* stage.cast("a", "z")
        const ref = yield* Deferred.make<Supervisor.SupervisorRef>()
        const write = (line: string) => Effect.sync(() => void stage.log.push(line))
        const stops = Effect.flatMap(Deferred.await(ref), Supervisor.stop).pipe(
          Effect.andThen(write("returned")),
          Effect.andThen(Effect.never),
          Effect.onInterrupt(() => write("interrupted"))
        )
        const caller = Child.make(
          "caller",
          depth === "fiber of a child" ? Effect.andThen(Effect.forkChild(stops), Effect.never) : stops
        )
        const app = yield* play([
          a.child(),
          depth === "grandchild" ? scenes("inner", [caller]) : caller,
          z.child()
        ])
        stage.take()
        yield* Deferred.succeed(ref, app)
        yield* Supervisor.await(app)
        // The caller goes on until the stop has come to it.
        assert.deepStrictEqual(
          stage.take().filter((line) => line !== "returned"),
          ["stop z", "interrupted", "stop a"],
          depth
        )
        assert.deepStrictEqual(yield* listed, [], depth)
      }
      // It does not wait for what waits for it, even where it could not be interrupted.
      const ref = yield* Deferred.make<Supervisor.SupervisorRef>()
      const firm = Effect.flatMap(Deferred.await(ref), Supervisor.stop).pipe(
        Effect.andThen(Effect.sync(() => void stage.log.push("returned"))),
        Effect.uninterruptible
      )
      const app = yield* play([Child.make("firm", firm, { shutdown: "infinity" })])
      yield* Deferred.succeed(ref, app)
      yield* now(yield* fork(Supervisor.await(app)))
      assert.deepStrictEqual(stage.take(), ["returned"])
    })
  )

  it.effect(
    "107. a deadline for the whole tree is kept, and the report names every child that hangs with its path",
    () =>
      Effect.gen(function*() {
        // Also of a stop that is under way, and has no bound: it gets no more time than that.
        for (const stopping of [false, true]) {
          yield* scene(function*() {
            const hangs = Child.make("hangs", deaf(), { shutdown: "infinity" })
            const app = yield* play([
              hangs,
              scenes("mid", [hangs, scenes("low", [hangs, Child.make("good", Effect.never)])])
            ])
            const terminating = yield* fork(
              stopping ? Supervisor.terminateChild(app, "hangs") : Effect.succeed("abandoned")
            )
            if (stopping) yield* fork(Supervisor.stop(app))
            const shutdown = yield* fork(Orchestrator.shutdown({ grace: 0, interrupt: "5 seconds" }))
            yield* TestClock.adjust("4999 millis")
            assert.isUndefined(shutdown.pollUnsafe())
            yield* TestClock.adjust("1 millis")
            const report = yield* now(shutdown)
            assert.strictEqual(yield* now(terminating), "abandoned")
            assert.deepStrictEqual([report.clean, report.durationMillis], [false, 5000])
            const leaves = ["/orchestra/app/hangs", "/orchestra/app/mid/hangs", "/orchestra/app/mid/low/hangs"]
            const stuck = report.stuck.map(({ path }) => path)
            assert.includeMembers(stuck, leaves)
            // Beside them at most the supervisors that could not end on time because of them.
            for (const path of stuck) {
              assert.isTrue(leaves.some((leaf) => leaf === path || leaf.startsWith(`${path}/`)), path)
            }
            for (const { phase } of report.stuck) assert.strictEqual(phase, "abandon")
          })()
        }
      })
  )

  it.effect(
    "108. independent children are stopped in parallel under the strategy dependency, dependents before what they stand on",
    scene(function*(stage) {
      const cast = Effect.forEach(["a", "b", "c", "d"], (id) => stage.actor(id, { stop: slow(200) }))
      const independent = yield* play((yield* cast).map((actor) => actor.child()), { strategy: "dependency" })
      assert.strictEqual((yield* timed(Supervisor.stop(independent))).millis, 200)

      const [a, b, c, d] = yield* cast
      assert(a !== undefined && b !== undefined && c !== undefined && d !== undefined)
      const diamond = yield* play([
        a.child(),
        Child.make("b", b.effect, { dependsOn: ["a"] }),
        Child.make("c", c.effect, { dependsOn: ["a"] }),
        Child.make("d", d.effect, { dependsOn: ["b", "c"] })
      ], { strategy: "dependency" })
      stage.take()
      assert.strictEqual((yield* timed(Supervisor.stop(diamond))).millis, 600)
      const order = stage.take().filter((line) => line.startsWith("stop "))
      assert.deepStrictEqual([order[0], order.slice(1, 3).toSorted(), order[3]], [
        "stop d",
        ["stop b", "stop c"],
        "stop a"
      ])
    })
  )

  it.effect(
    "109. a supervisor with a bound of its own orphans nobody: who hangs below it is abandoned, listed and reported",
    scene(function*(stage) {
      const tree = <A>(stop: (app: Supervisor.SupervisorRef) => Effect.Effect<A, unknown, Orchestrator>) =>
        Effect.gen(function*() {
          const [a, good] = yield* stage.cast("a", "good")
          const app = yield* play([
            a.child(),
            scenes("inner", [good.child(), Child.make("hangs", deaf(), { shutdown: "infinity" })], {
              child: { shutdown: "1 second" }
            })
          ])
          stage.take()
          const { millis, value } = yield* timed(stop(app))
          assert.strictEqual(millis, 1000)
          assert.includeMembers([...yield* listed], ["/orchestra/app/inner/hangs abandoned"])
          // The others were stopped for all that.
          assert.deepStrictEqual(stage.take(), ["stop good", "stop a"])
          return value
        })
      yield* tree(Supervisor.stop)
      yield* TestClock.adjust("2 minutes")
      yield* tree((app) => Supervisor.terminateChild(app, "inner").pipe(Effect.andThen(Supervisor.stop(app))))
      yield* TestClock.adjust("2 minutes")
      const report = yield* tree(() => Orchestrator.shutdown())
      assert.isFalse(report.clean)
      assert.include(report.stuck.map(({ path }) => path), "/orchestra/app/inner/hangs")
    })
  )

  it.effect(
    "110. what a child has acquired is released exactly once, in reverse, however it ends",
    scene(function*(stage) {
      const write = (line: string) => Effect.sync(() => void stage.log.push(line))
      const hold = (id: string) => Effect.acquireRelease(write(`open ${id}`), () => write(`close ${id}`))
      const held = Effect.andThen(hold("1"), Effect.andThen(hold("2"), hold("3")))
      const opened = ["open 1", "open 2", "open 3"]
      const closed = ["close 3", "close 2", "close 1"]
      const ends = ["stop", "terminate", "brutal", "fail", "die", "finish", "scope", "deaf"] as const
      const kinds: ReadonlyArray<(body: Effect.Effect<unknown, unknown>, shutdown: "brutal_kill" | 1000) => Part> = [
        (body, shutdown) => Child.make("a", Effect.andThen(held, body), { restart: "temporary", shutdown }),
        (body, shutdown) =>
          Child.layer(
            "a",
            Layer.effectDiscard(Effect.andThen(held, Orchestrator.forkScoped(body, { shutdown: 0 }))),
            { restart: "temporary", shutdown }
          )
      ]
      for (const [kind, child] of kinds.entries()) {
        for (const end of ends) {
          // The end of a routine that a layer forked is not that of the layer, unless it failed.
          if (kind === 1 && end === "finish") continue
          const where = `kind ${kind}, ${end}`
          const [a] = yield* stage.cast("a")
          const app = yield* play([child(end === "deaf" ? deaf() : a.effect, end === "brutal" ? "brutal_kill" : 1000)])
          yield* settle
          assert.deepStrictEqual(stage.take().filter((line) => line.startsWith("open")), opened, where)
          if (end === "fail") yield* a.fail()
          if (end === "die") yield* a.die("broken")
          if (end === "finish") yield* a.succeed
          if (end === "terminate") yield* Supervisor.terminateChild(app, "a")
          if (end === "deaf") yield* timed(Supervisor.terminateChild(app, "a"))
          if (end === "stop" || end === "brutal" || end === "scope") yield* Supervisor.stop(app)
          yield* settle
          // Who is abandoned still holds it, until the end.
          if (end === "deaf" && kind === 0) {
            assert.deepStrictEqual(stage.take(), [], where)
            yield* TestClock.adjust("1 minute")
          }
          assert.deepStrictEqual(stage.take().filter((line) => line.startsWith("close")), closed, where)
          yield* Supervisor.stop(app)
          yield* TestClock.adjust("2 minutes")
          assert.deepStrictEqual(stage.take().filter((line) => line.startsWith("close")), [], where)
        }
      }
    })
  )
})
