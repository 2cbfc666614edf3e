import { type Event, Group, Orchestrator, Routine, Shutdown } from "@effect-orchestra/core"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"

const provided = Effect.provide(Orchestrator.layer)

describe("shutdown", () => {
  it.effect("31. stops the roots in reverse order, each awaited before the next", () =>
    provided(Effect.gen(function*() {
      const log: Array<string> = []
      for (const name of ["a", "b", "c"]) {
        yield* Orchestrator.fork(
          Effect.never.pipe(Effect.onInterrupt(() =>
            Effect.andThen(
              Effect.sync(() => log.push(`stopping ${name}`)),
              Effect.andThen(
                Effect.yieldNow,
                Effect.sync(() => log.push(`gone ${name}`))
              )
            )
          )),
          { name }
        )
      }
      const report = yield* Orchestrator.shutdown()
      assert.deepStrictEqual(log, ["stopping c", "gone c", "stopping b", "gone b", "stopping a", "gone a"])
      assert.deepStrictEqual([report.clean, report.stopped, report.stuck], [true, 3, []])
    })))

  it.effect("37. of nothing, with no budget, is clean at once", () =>
    provided(Effect.gen(function*() {
      const report = yield* Orchestrator.shutdown({ grace: 0, interrupt: 0 })
      assert.deepStrictEqual([report.clean, report.stopped], [true, 0])
    })))

  it.effect("33. concurrent calls share one result; called again when the laggard has ended, it is clean", () =>
    provided(Effect.gen(function*() {
      yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("1 minute")), { name: "deaf" })
      const first = yield* Effect.forkChild(Orchestrator.shutdown({ grace: "1 second", interrupt: "2 seconds" }), {
        startImmediately: true
      })
      const second = yield* Effect.forkChild(Orchestrator.shutdown(), { startImmediately: true })
      yield* TestClock.adjust("2 seconds")
      const report = yield* Fiber.join(first)
      assert.isFalse(report.clean)
      assert.deepStrictEqual(report.phases, [{ phase: "ask", durationMillis: 0 }, {
        phase: "interrupt",
        durationMillis: 2000
      }])
      assert.deepStrictEqual(report.stuck, [{
        path: "/orchestra/deaf",
        phase: "abandon",
        waitedMillis: 2000,
        lastBeat: null,
        forkSite: null
      }])
      assert.strictEqual(yield* Fiber.join(second), report)
      assert.include(Shutdown.format(report), "stuck: /orchestra/deaf, waited 2000 ms")
      yield* TestClock.adjust("1 minute")
      assert.isTrue((yield* Orchestrator.shutdown()).clean)
    })))

  it.effect("names what failed while it was being stopped", () =>
    provided(Effect.gen(function*() {
      yield* Orchestrator.fork(Effect.ensuring(Effect.never, Effect.die(new Error("late"))), { name: "a" })
      const report = yield* Orchestrator.shutdown()
      assert.deepStrictEqual(report.failures, [{ path: "/orchestra/a", message: "late" }])
    })))

  it.effect("closing the layer shuts down", () =>
    Effect.gen(function*() {
      let gone = false
      yield* provided(Orchestrator.fork(Effect.ensuring(Effect.never, Effect.sync(() => gone = true))))
      assert.isTrue(gone)
    }))

  it.effect("interruptAll stops everything and leaves the orchestrator open", () =>
    provided(Effect.gen(function*() {
      yield* Orchestrator.fork(Effect.never)
      assert.isTrue((yield* Orchestrator.interruptAll()).clean)
      yield* Orchestrator.fork(Effect.never)
      assert.strictEqual((yield* Orchestrator.list).length, 1)
    })))

  it.effect("32. escalates from asking to interrupting to abandoning, and names who is stuck down to the last routine", () =>
    Effect.gen(function*() {
      const deaf = Effect.uninterruptible(Effect.sleep("1 hour"))
      yield* Orchestrator.fork(
        Effect.gen(function*() {
          yield* Orchestrator.forkScoped(Effect.forever(Effect.andThen(Routine.beat, deaf)), {
            name: "inner",
            shutdown: "2 seconds",
            idleTimeout: "4 hours"
          })
          return yield* Group.run((group) =>
            Group.fork(group, Effect.uninterruptible(Effect.sleep("10 hours")), { name: "task", shutdown: "2 seconds" })
          )
        }),
        { name: "outer", shutdown: "3 seconds" }
      )
      const drained: Array<string> = []
      yield* Orchestrator.fork(Effect.never, {
        name: "drains",
        drain: Effect.andThen(Effect.sleep("1 second"), Effect.sync(() => void drained.push("drained")))
      })
      yield* Orchestrator.fork(Effect.never, { name: "drains for too long", drain: Effect.never })
      yield* TestClock.adjust("1 hour")
      const stopping = yield* Effect.forkChild(Orchestrator.shutdown({ grace: "4 seconds", interrupt: "9 seconds" }), {
        startImmediately: true
      })
      yield* TestClock.adjust("13 seconds")
      const report = yield* Fiber.join(stopping)
      assert.deepStrictEqual(drained, ["drained"])
      assert.deepStrictEqual(report.phases.map(({ phase }) => phase), ["ask", "interrupt"])
      assert.isAtMost(report.durationMillis, 13_000)
      assert.deepStrictEqual(report.stuck.map(({ path, phase }) => [path, phase]), [
        ["/orchestra/outer", "abandon"],
        ["/orchestra/outer/inner", "abandon"],
        ["/orchestra/outer/group/task", "abandon"]
      ])
      for (const { waitedMillis } of report.stuck) assert.isAtLeast(waitedMillis, 2000)
      assert.isAtLeast(report.stuck[1]?.lastBeat ?? 0, 3_600_000)
      const lines = Shutdown.format(report)
      for (const { path } of report.stuck) assert.include(lines, `stuck: ${path}`)
    }).pipe(Effect.provide(Orchestrator.layerWith({ forkSites: true }))))

  it.effect("the report and its lines name the line that forked who is stuck, where the orchestrator keeps them", () =>
    Effect.gen(function*() {
      yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("1 minute")))
      const report = yield* Orchestrator.shutdown({ grace: 0, interrupt: 0 })
      assert.match(report.stuck[0]?.forkSite ?? "", /Shutdown\.test\.ts:\d+:\d+/)
      assert.match(Shutdown.format(report), /forked .*Shutdown\.test\.ts/)
      yield* TestClock.adjust("1 minute")
    }).pipe(Effect.provide(Orchestrator.layerWith({ forkSites: true }))))

  it.effect("34. during startup stops what has started, and runs the stop hook of what did not start in time", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const service = (name: string, startsIn: string) =>
        Effect.gen(function*() {
          yield* Effect.acquireRelease(
            Effect.sync(() => void log.push(`start ${name}`)),
            () => Effect.sync(() => void log.push(`stop ${name}`))
          )
          yield* Effect.sleep(startsIn as "1 second")
          yield* Routine.ready
          return yield* Effect.never
        })
      const options = { ready: "signal", awaitReady: true, startTimeout: "1 minute" } as const
      const late = yield* Effect.forkChild(
        Effect.exit(Orchestrator.fork(service("late", "2 minutes"), { ...options, name: "late" })),
        { startImmediately: true }
      )
      yield* TestClock.adjust("1 minute")
      assert.isTrue(Exit.isFailure(yield* Fiber.join(late)))
      assert.deepStrictEqual(log.splice(0), ["start late", "stop late"])

      const startup = yield* Effect.forkChild(
        Effect.exit(
          Effect.forEach(["a", "b", "c"], (name) => Orchestrator.fork(service(name, "1 second"), { ...options, name }))
        ),
        { startImmediately: true }
      )
      yield* TestClock.adjust("1500 millis")
      const report = yield* Orchestrator.shutdown()
      const exit = yield* Fiber.join(startup)
      assert.isTrue(Exit.isFailure(exit))
      assert.deepStrictEqual([report.clean, report.stopped], [true, 2])
      assert.deepStrictEqual(log, ["start a", "start b", "stop b", "stop a"])
    }).pipe(provided))

  it.effect("no routine counts as ready from the first phase on", () =>
    Effect.gen(function*() {
      const first = yield* Orchestrator.fork(Effect.never, { name: "first" })
      const gate = yield* Deferred.make<void>()
      yield* Orchestrator.fork(Effect.never, { name: "last", drain: Deferred.await(gate) })
      assert.isTrue((yield* Routine.snapshot(first)).ready)
      const stopping = yield* Effect.forkChild(Orchestrator.shutdown(), { startImmediately: true })
      const { ready, state } = yield* Routine.snapshot(first)
      assert.deepStrictEqual([ready, state], [false, "running"])
      yield* Deferred.succeed(gate, undefined)
      assert.isTrue((yield* Fiber.join(stopping)).clean)
    }).pipe(provided))

  it.effect("a routine that forks into the tree while it is stopped is told that it is closing, and nothing hangs", () =>
    Effect.gen(function*() {
      const told: Array<string> = []
      const forks = Orchestrator.fork(Effect.never).pipe(
        Effect.matchEffect({
          onFailure: (error) => Effect.sync(() => void told.push(error._tag)),
          onSuccess: () => Effect.void
        })
      )
      yield* Orchestrator.fork(Effect.ensuring(Effect.never, forks))
      yield* Orchestrator.fork(Effect.never, { drain: Effect.provide(forks, yield* Effect.context<Orchestrator>()) })
      assert.isTrue((yield* Orchestrator.shutdown()).clean)
      assert.deepStrictEqual(told, ["OrchestratorClosed", "OrchestratorClosed"])
    }).pipe(provided))

  it.effect("carries its reason to everything that it interrupts", () =>
    Effect.gen(function*() {
      const routine = yield* Orchestrator.fork(Effect.never)
      yield* Orchestrator.shutdown({}, "SIGTERM")
      assert.deepStrictEqual((yield* Routine.snapshot(routine)).lastExit?.cancelledBy, {
        reason: "SIGTERM",
        requester: "/orchestra"
      })
    }).pipe(provided))

  it.effect("a routine forked by a finalizer of the last one to stop is refused; a second shutdown is clean", () =>
    Effect.gen(function*() {
      yield* Orchestrator.fork(Effect.never)
      const events: Array<Event.OrchestratorEvent["_tag"]> = []
      yield* Orchestrator.instrument((event) => void events.push(event._tag))
      assert.isTrue((yield* Orchestrator.shutdown()).clean)
      assert.isTrue((yield* Orchestrator.shutdown()).clean)
      assert.deepStrictEqual(events, ["StopRequested", "Exited", "Stopped"])
    }).pipe(Effect.scoped, provided))

  it.effect("no bound of a routine's own goes past what is left of the budget", () =>
    Effect.gen(function*() {
      const deaf = Effect.uninterruptible(Effect.sleep("1 day"))
      yield* Orchestrator.fork(deaf, { name: "first", shutdown: "1 hour" })
      yield* Orchestrator.fork(deaf, { name: "last", shutdown: "1500 millis" })
      const stopping = yield* Effect.forkChild(Orchestrator.shutdown({ grace: 0, interrupt: "2 seconds" }), {
        startImmediately: true
      })
      yield* TestClock.adjust("2 seconds")
      const report = yield* Fiber.join(stopping)
      assert.deepStrictEqual(report.stuck.map(({ path, waitedMillis }) => [path, waitedMillis]), [
        ["/orchestra/first", 500],
        ["/orchestra/last", 2000]
      ])
      yield* TestClock.adjust("1 day")
    }).pipe(provided))

  it.effect("a negative budget is a defect that names it", () =>
    Effect.gen(function*() {
      for (const [budget, got] of [[{ grace: -1 }, "-1"], [{ interrupt: "-3 seconds" }, "-3 seconds"]] as const) {
        const exit = yield* Effect.exit(Orchestrator.interruptAll(budget))
        assert.isTrue(Exit.isFailure(exit) && String(exit.cause.reasons[0]).includes("Die"))
        assert.include(String(Exit.isFailure(exit) ? exit.cause : ""), `got: ${got}`)
      }
    }).pipe(provided))
})
