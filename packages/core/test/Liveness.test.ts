import { CoreError, Group, Orchestrator, Routine, Snapshot } from "@effect-orchestra/core"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Option, Schema, Stream } from "effect"
import { TestClock, TestConsole } from "effect/testing"

const provided = Effect.provide(Orchestrator.layer)

describe("an idle timeout", () => {
  it.effect("interrupts a run that does not beat, at its time; whoever awaits it sees the defect", () =>
    Effect.gen(function*() {
      const routine = yield* Orchestrator.fork(Effect.never, { idleTimeout: "10 seconds" })
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* Routine.snapshot(routine)).health, "ok")
      yield* TestClock.adjust("4999 millis")
      assert.deepStrictEqual(yield* Effect.map(Routine.snapshot(routine), ({ health, state }) => [state, health]), [
        "running",
        "degraded"
      ])
      yield* TestClock.adjust("1 millis")
      const exit = yield* Routine.await(routine)
      assert.isTrue(Exit.isFailure(exit))
      if (Exit.isFailure(exit)) {
        const error = Cause.squash(exit.cause)
        assert.isTrue(error instanceof CoreError.IdleTimeout && error.idleMillis === 10_000)
        assert.deepStrictEqual(
          Routine.cancellation(exit),
          Option.some({
            reason: "idle_timeout",
            requester: "/orchestra/routine"
          })
        )
      }
      const { health, lastExit, state } = yield* Routine.snapshot(routine)
      assert.deepStrictEqual([state, health, lastExit?.reason, lastExit?.errorType], [
        "timed_out",
        "failed",
        "idle_timeout",
        "IdleTimeout"
      ])
    }).pipe(provided))

  it.effect("never comes while the run beats often enough, and at most a quarter late when it stops", () =>
    Effect.gen(function*() {
      const beats = Effect.gen(function*() {
        for (let beat = 0; beat < 100; beat++) {
          yield* Routine.beat
          yield* Effect.sleep("9 seconds")
        }
        return yield* Effect.never
      })
      const routine = yield* Orchestrator.fork(beats, { idleTimeout: "10 seconds" })
      yield* TestClock.adjust("891 seconds")
      assert.strictEqual((yield* Routine.snapshot(routine)).state, "running")
      yield* TestClock.adjust("9999 millis")
      assert.strictEqual((yield* Routine.snapshot(routine)).state, "running")
      yield* TestClock.adjust("2501 millis")
      assert.strictEqual((yield* Routine.snapshot(routine)).state, "timed_out")
    }).pipe(provided))

  it.effect("does not come while the routine is being stopped", () =>
    Effect.gen(function*() {
      const routine = yield* Orchestrator.fork(Effect.never, {
        idleTimeout: "1 second",
        drain: Effect.sleep("3 seconds")
      })
      const stopping = yield* Effect.forkChild(Routine.stop(routine), { startImmediately: true })
      yield* TestClock.adjust("3 seconds")
      yield* Fiber.join(stopping)
      assert.strictEqual((yield* Routine.snapshot(routine)).state, "interrupted")
    }).pipe(provided))

  it.effect("of a run that ignores its interruption: it is abandoned after its bound, and ends late", () =>
    Effect.gen(function*() {
      const tags: Array<string> = []
      yield* Orchestrator.instrument((event) => void tags.push(event._tag))
      const routine = yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("1 minute")), {
        idleTimeout: "1 second",
        shutdown: "2 seconds"
      })
      yield* TestClock.adjust("2999 millis")
      assert.strictEqual((yield* Routine.snapshot(routine)).state, "stopping")
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(yield* Effect.map(Routine.snapshot(routine), ({ health, state }) => [state, health]), [
        "abandoned",
        "stuck"
      ])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(tags, ["Forked", "Ready", "Abandoned", "Stopped", "Exited", "EndedLate"])
      assert.deepStrictEqual(yield* Orchestrator.list, [])
    }).pipe(Effect.scoped, provided))

  it.effect("fails the group of the task, with the defect", () =>
    Effect.gen(function*() {
      const running = yield* Effect.forkChild(
        Group.run((group) => Group.fork(group, Effect.never, { idleTimeout: "1 second" })),
        { startImmediately: true }
      )
      yield* TestClock.adjust("1 second")
      const exit = yield* Fiber.await(running)
      assert.isTrue(Exit.isFailure(exit) && Cause.squash(exit.cause) instanceof CoreError.IdleTimeout)
    }).pipe(provided))

  it.effect(
    "of 100,000 routines ends exactly those that are silent",
    () =>
      Effect.gen(function*() {
        const silent = 1000
        const resumes: Array<() => void> = []
        const beating = Effect.forever(
          Effect.andThen(Routine.beat, Effect.callback<void>((resume) => void resumes.push(() => resume(Effect.void))))
        )
        for (let n = 0; n < 100_000; n++) {
          yield* Orchestrator.fork(n % 100 === 0 ? Effect.never : beating, { idleTimeout: "30 seconds" })
        }
        yield* TestClock.adjust("20 seconds")
        for (const resume of resumes.splice(0)) resume()
        yield* TestClock.adjust("10 seconds")
        for (let turn = 0; turn < 300; turn++) yield* Effect.yieldNow
        const ended = (yield* Orchestrator.history).map(({ state }) => state)
        assert.deepStrictEqual([ended.length, new Set(ended)], [silent, new Set(["timed_out"])])
        yield* Orchestrator.interruptAll()
      }).pipe(Effect.provide(Orchestrator.layerWith({ history: 2000 }))),
    60_000
  )

  it.effect("that is not positive is a defect that names it", () =>
    Effect.gen(function*() {
      for (const idleTimeout of [0, -1, NaN]) {
        const exit = yield* Effect.exit(Orchestrator.fork(Effect.never, { idleTimeout }))
        assert.isTrue(Exit.isFailure(exit) && String(Cause.squash(exit.cause)).endsWith(`got: ${idleTimeout}`))
      }
      const exit = yield* Effect.exit(Orchestrator.fork(Effect.never, { shutdown: -1 }))
      assert.isTrue(Exit.isFailure(exit) && String(Cause.squash(exit.cause)).endsWith("got: -1"))
      assert.deepStrictEqual(yield* Orchestrator.list, [])
    }).pipe(provided))
})

describe("the time of a routine", () => {
  it.effect("counts busy and idle time, what is under way included, and starts anew with nothing", () =>
    Effect.gen(function*() {
      const routine = yield* Orchestrator.fork(Effect.gen(function*() {
        yield* Effect.sleep("1 second")
        yield* Routine.beat
        yield* Routine.busy(Effect.sleep("4 seconds"))
        yield* Routine.addBusy("1 minute")
        return yield* Effect.never
      }))
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Routine.stats(routine)).idleMillis, 0)
      yield* TestClock.adjust("3 seconds")
      const during = yield* Routine.stats(routine)
      assert.deepStrictEqual([during.uptimeMillis, during.busyMillis, during.idleMillis, during.blockedMillis], [
        4000,
        3000,
        3000,
        0
      ])
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* Routine.stats(routine)).busyMillis, 64_000)
      yield* Routine.interrupt(routine)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* Routine.stats(routine)).uptimeMillis, 14_000)
    }).pipe(provided))

  it.effect("busy time ends when the busy effect is interrupted or fails", () =>
    Effect.gen(function*() {
      const routine = yield* Orchestrator.fork(Effect.gen(function*() {
        yield* Effect.exit(Routine.busy(Effect.andThen(Effect.sleep("1 second"), Effect.fail("no"))))
        yield* Effect.timeoutOption(Routine.busy(Effect.never), "2 seconds")
        return yield* Effect.never
      }))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Routine.stats(routine)).busyMillis, 3000)
    }).pipe(provided))

  it.effect("outside a routine beat, busy, addBusy and readyWith do nothing", () =>
    Effect.gen(function*() {
      yield* Routine.beat
      yield* Routine.addBusy("1 second")
      yield* Routine.readyWith({ port: "80" })
      assert.strictEqual(yield* Routine.busy(Effect.succeed(1)), 1)
      const negative = yield* Effect.exit(Routine.addBusy(-5))
      assert.isTrue(Exit.isFailure(negative) && String(Cause.squash(negative.cause)).endsWith("got: -5"))
    }))
})

describe("what can be seen of a routine", () => {
  it.effect("readyWith shows what it says, and makes it ready", () =>
    Effect.gen(function*() {
      const routine = yield* Orchestrator.fork(
        Effect.andThen(Routine.readyWith({ port: "8080" }), Effect.never),
        { ready: "signal", awaitReady: true }
      )
      const { info, ready } = yield* Routine.snapshot(routine)
      assert.deepStrictEqual([info, ready], [{ port: "8080" }, true])
    }).pipe(provided))

  it.effect("changes gives the present state, every change, and ends with the final one", () =>
    Effect.gen(function*() {
      const routine = yield* Orchestrator.fork(
        Effect.gen(function*() {
          yield* Effect.sleep("1 second")
          yield* Routine.ready
          yield* Effect.sleep("1 second")
        }),
        { ready: "signal" }
      )
      const states = Effect.map(Stream.runCollect(Routine.changes(routine)), (all) => all.map(({ state }) => state))
      const first = yield* Effect.forkChild(states, { startImmediately: true })
      const cut = yield* Effect.forkChild(states, { startImmediately: true })
      yield* Fiber.interrupt(cut)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(yield* Fiber.join(first), ["starting", "running", "succeeded"])
      assert.deepStrictEqual(yield* states, ["succeeded"])
    }).pipe(provided))

  it.effect("a reader of changes may act on what it reads", () =>
    Effect.gen(function*() {
      const routine = yield* Orchestrator.fork(Effect.never)
      const read = yield* Stream.runCollect(
        Routine.changes(routine).pipe(
          Stream.tap(({ state }) => state === "running" ? Routine.stop(routine) : Effect.void)
        )
      )
      assert.deepStrictEqual(read.map(({ state }) => state), ["running", "stopping", "interrupted"])
    }).pipe(provided))

  it.effect("the fork site is kept only where it is asked for, and names the line that forked", () =>
    Effect.gen(function*() {
      const site = Effect.gen(function*() {
        const routine = yield* Orchestrator.fork(Effect.never)
        return (yield* Routine.snapshot(routine)).forkSite
      })
      assert.strictEqual(yield* Effect.provide(site, Orchestrator.layer), null)
      assert.match(
        (yield* Effect.provide(site, Orchestrator.layerWith({ forkSites: true }))) ?? "",
        /Liveness\.test\.ts:\d+:\d+\)?$/
      )
      assert.strictEqual(yield* Effect.provide(site, Orchestrator.layer), null)
    }))

  it.effect("history remembers the last routines that ended, oldest first, and what they were", () =>
    Effect.gen(function*() {
      yield* Orchestrator.fork(Effect.succeed("a large value"), { name: "a" })
      yield* Orchestrator.fork(Effect.fail(new Error("no")), { name: "b", attributes: { region: "eu" } })
      const live = yield* Orchestrator.fork(Effect.never, { name: "c" })
      yield* TestClock.adjust("3 seconds")
      yield* Routine.interrupt(live, "over")
      yield* Orchestrator.fork(Effect.never, { name: "still live" })
      const history = yield* Orchestrator.history
      const encoded = yield* Schema.encodeEffect(Schema.Array(Snapshot.RoutineSnapshot))(history)
      assert.deepStrictEqual(JSON.parse(JSON.stringify(encoded)), history)
      assert.deepStrictEqual(
        history.map(({ attributes, lastExit, path, state }) => [path, state, lastExit?.message, attributes]),
        [["/orchestra/b", "failed", "no", { region: "eu" }], ["/orchestra/c", "interrupted", null, {}]]
      )
      assert.deepStrictEqual([history[1]?.lastExit?.ranMillis, history[1]?.lastExit?.cancelledBy?.reason], [
        3000,
        "over"
      ])
    }).pipe(Effect.provide(Orchestrator.layerWith({ history: 2 }))))

  it.effect("a history that is no whole number is a defect that names it; 0 turns it off", () =>
    Effect.gen(function*() {
      for (const history of [-1, 1.5, NaN]) {
        const exit = yield* Effect.exit(Effect.provide(Orchestrator.list, Orchestrator.layerWith({ history })))
        assert.isTrue(Exit.isFailure(exit) && String(Cause.squash(exit.cause)).endsWith(`got: ${history}`))
      }
      const off = Effect.andThen(Orchestrator.fork(Effect.void), Orchestrator.history)
      assert.deepStrictEqual(yield* Effect.provide(off, Orchestrator.layerWith({ history: 0 })), [])
    }))

  it.effect("printStats prints a line for each live routine", () =>
    Effect.gen(function*() {
      const resource = { stats: { length: 3, capacity: 10, bytes: 42 } }
      yield* Orchestrator.fork(Routine.busy(Effect.never), { name: "poller", resources: [resource] })
      yield* Orchestrator.fork(Effect.never, { name: "idler" })
      yield* TestClock.adjust("2 hours")
      yield* Orchestrator.printStats
      const [text] = yield* TestConsole.logLines
      assert.deepStrictEqual(String(text).split("\n").map((line) => line.trim().split(/\s+/).join(" ")), [
        "ID PATH STATE HEALTH UPTIME IDLE BUSY% BUSY BLOCKED Q(LEN/CAP) Q(BYTES) RESTARTS ERR",
        "r-1 /orchestra/poller running ok 7200s 7200s 100 7200s 0ms 3/10 42 0 -",
        "r-2 /orchestra/idler running ok 7200s 7200s 0 0ms 0ms 0/0 0 0 -"
      ])
    }).pipe(provided))
})

describe("many at once", () => {
  it.effect("61. ten thousand short routines leave nothing live, a history at its bound and a bounded number of series", () =>
    Effect.gen(function*() {
      for (let n = 0; n < 10_000; n++) yield* Orchestrator.fork(Effect.succeed(n), { name: `job ${n % 500}` })
      assert.deepStrictEqual(yield* Orchestrator.list, [])
      assert.strictEqual((yield* Orchestrator.history).length, 1000)
      const stats = yield* Orchestrator.stats
      assert.strictEqual(stats.length, 201)
      assert.strictEqual(stats.reduce((sum, { starts }) => sum + starts, 0), 10_000)
    }).pipe(provided))

  it.effect("62. a snapshot while routines fork and end has no child without its parent, and a stable order", () =>
    Effect.gen(function*() {
      const churn = Effect.forever(
        Group.run((group) =>
          Effect.all([
            Group.fork(group, Effect.yieldNow),
            Group.fork(group, Group.run((inner) => Group.fork(inner, Effect.yieldNow)))
          ])
        )
      )
      for (let n = 0; n < 5; n++) yield* Orchestrator.fork(churn, { name: "churn" })
      const seen = new Set<number>()
      for (let turn = 0; turn < 200; turn++) {
        yield* Effect.yieldNow
        const nodes = yield* Orchestrator.snapshot
        const paths = new Set(nodes.map(({ path }) => path))
        assert.strictEqual(paths.size, nodes.length)
        for (const { path } of nodes.slice(1)) assert.isTrue(paths.has(path.slice(0, path.lastIndexOf("/"))), path)
        const numbers = (yield* Orchestrator.list).map(({ id }) => Number(id.slice(2)))
        assert.deepStrictEqual(numbers, [...numbers].sort((a, b) => a - b))
        seen.add(nodes.length)
      }
      assert.isAbove(seen.size, 1)
      yield* Orchestrator.interruptAll()
    }).pipe(provided))
})
