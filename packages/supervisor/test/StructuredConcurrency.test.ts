import { Routine } from "@effect-orchestra/core"
import { recorder } from "@effect-orchestra/core/testing"
import { Child, Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Duration, Effect, Exit, Random, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { listed, now, play, scenes, used } from "./Play.ts"
import { scene, settle, shown, slow } from "./Stage.ts"

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

describe("structured concurrency: supervision", () => {
  it.effect(
    "SC39. an exponential backoff grows up to its cap, keeps within its jitter, is spread below the cap, and is that of its seed",
    scene(function*() {
      const cap = 10_000
      const backoff = Schedule.exponential("100 millis").pipe(
        Schedule.modifyDelay(({ duration }) =>
          Effect.map(Random.next, (part) => Math.min(Duration.toMillis(duration), cap) * (1 - part / 2))
        )
      )
      const delaysOf = (seed: string) =>
        Effect.scoped(Effect.gen(function*() {
          const record = yield* recorder
          const fails = Child.make("fails", Effect.fail("no"), { backoff })
          const app = yield* play([fails], { intensity: 1000 }).pipe(Random.withSeed(seed))
          for (let run = 0; run < 14; run++) yield* TestClock.adjust(cap)
          yield* Supervisor.stop(app)
          return record.events.flatMap((event) => event._tag === "BackoffStarted" ? [event.delayMillis] : []).slice(
            0,
            14
          )
        }))
      const delays = yield* delaysOf("one")
      assert.strictEqual(delays.length, 14)
      for (const [run, delay] of delays.entries()) {
        const whole = Math.min(100 * 2 ** run, cap)
        assert.isTrue(delay > whole / 2 && delay <= whole, `delay ${run} is ${delay}`)
      }
      const capped = delays.slice(7)
      assert.strictEqual(new Set(capped).size, capped.length)
      assert.isBelow(Math.max(...capped), cap)
      assert.deepStrictEqual(yield* delaysOf("one"), delays)
      assert.notDeepEqual(yield* delaysOf("two"), delays)
    })
  )

  it.effect(
    "SC40. after a run that was stable the backoff begins from its first delay again",
    scene(function*(stage) {
      for (const resetAfter of [undefined, "2 minutes"] as const) {
        const stable = resetAfter === undefined ? 30_000 : 120_000
        const record = yield* recorder
        const [a] = yield* stage.cast("a")
        const app = yield* play([a.child({ backoff: Schedule.exponential("1 second"), resetAfter })], {
          intensity: 100
        })
        const fails = (after: number) =>
          Effect.gen(function*() {
            yield* TestClock.adjust(after)
            const before = a.starts
            yield* a.fail()
            for (let second = 0; second < 60 && a.starts === before; second++) yield* TestClock.adjust("1 second")
          })
        for (const after of [0, 10, stable - 1, stable, 0, stable + 1]) yield* fails(after)
        const delays = record.events.flatMap((event) => event._tag === "BackoffStarted" ? [event.delayMillis] : [])
        assert.deepStrictEqual(delays, [1000, 2000, 4000, 1000, 2000, 1000])
        yield* Supervisor.stop(app)
      }
    })
  )

  it.effect(
    "SC41. more failures than its period allows: it gives up, stops the siblings, and tells its parent once, with the last cause",
    scene(function*(stage) {
      const record = yield* recorder
      const [a, b, c] = yield* stage.cast("a", "b", "c")
      const app = yield* play([
        scenes("inner", [a.child(), b.child(), c.child()], { intensity: 2, period: "10 seconds" })
      ], { intensity: 1 })
      for (let time = 1; time <= 3; time++) {
        stage.take()
        yield* b.fail(`failure ${time}`)
        yield* settle
        yield* TestClock.adjust("1 second")
      }
      assert.deepStrictEqual(stage.take(), ["exit b", "stop c", "stop a", "start a", "start b", "start c"])
      assert.deepStrictEqual(yield* shown(app), ["inner running 2"])
      const toParent = record.of("/orchestra/app").filter(({ _tag }) => _tag === "Decided")
      assert.strictEqual(toParent.length, 1)
      assert.deepInclude(toParent[0], { child: "inner", decision: "restart", reason: "failure", severity: "error" })
      // And as a value: what the parent says when it gives up itself carries who, why, how often and within what.
      for (let time = 1; time <= 3; time++) {
        yield* b.fail(`again ${time}`)
        yield* settle
      }
      const failure = yield* Effect.flip(Supervisor.await(app))
      assert.deepInclude(failure, { supervisor: "/orchestra/app", child: "inner", attempts: 2 })
      const causes = failure.causes.map((cause) => Cause.squash(cause))
      const last = causes.at(-1)
      assert(last instanceof SupervisorError.RestartIntensityReached)
      assert.deepInclude(last, {
        supervisor: "/orchestra/app/inner",
        child: "b",
        window: { intensity: 2, periodMillis: 10_000 }
      })
      assert.deepStrictEqual(last.causes.map((cause) => Cause.squash(cause)), ["again 1", "again 2", "again 3"])
      assert.strictEqual(causes.length, 2)
      assert.deepStrictEqual(yield* listed, [])
    })
  )

  it.effect(
    "SC42. when the second of three fails, one_for_all and rest_for_one stop in reverse and start in order",
    scene(function*(stage) {
      const expected = {
        one_for_one: ["exit b", "start b"],
        one_for_all: ["exit b", "stop c", "stop a", "start a", "start b", "start c"],
        rest_for_one: ["exit b", "stop c", "start b", "start c"]
      } as const
      for (const strategy of ["one_for_one", "one_for_all", "rest_for_one"] as const) {
        const [a, b, c] = yield* stage.cast("a", "b", "c")
        const app = yield* play([a.child(), b.child(), c.child()], { strategy, intensity: 1 })
        stage.take()
        yield* b.fail()
        yield* settle
        assert.deepStrictEqual(stage.take(), expected[strategy], strategy)
        assert.strictEqual(yield* used(app), 1)
        yield* Supervisor.stop(app)
      }
    })
  )

  it.effect(
    "SC43. one that says it is done ends alone; one that ends the tree ends its supervisor and the parent, unless shielded",
    scene(function*(stage) {
      for (const shielded of [true, false]) {
        const says = yield* Deferred.make<never>()
        const ends = yield* Deferred.make<never>()
        const [a, b] = yield* stage.cast("a", "b")
        const app = yield* play([
          a.child(),
          scenes("inner", [
            b.child(),
            Child.make("once", Deferred.await(says)),
            Child.make("last", Deferred.await(ends))
          ], { propagateTermination: !shielded, intensity: 0 })
        ], { intensity: 0 })
        stage.take()
        const inner = "/orchestra/app/inner"
        yield* Deferred.completeWith(says, Supervisor.done)
        yield* settle
        assert.deepStrictEqual(stage.take(), [])
        assert.deepStrictEqual(
          (yield* listed).map((line) => line.split(" ")[0]),
          ["/orchestra/app/a", inner, `${inner}/b`, `${inner}/last`]
        )
        yield* Deferred.completeWith(ends, Supervisor.terminateTree)
        yield* settle
        assert.deepStrictEqual(stage.take(), shielded ? ["stop b"] : ["stop b", "stop a"])
        assert.deepStrictEqual(yield* listed, shielded ? ["/orchestra/app/a running"] : [])
        yield* Supervisor.stop(app)
        assert.deepStrictEqual(yield* Effect.exit(Supervisor.await(app)), Exit.void)
        stage.take()
      }
    })
  )

  it.effect(
    "SC44. a supervisor in backoff that is shut down does not wait for the delay, and no restart is counted",
    scene(function*(stage) {
      for (const strategy of ["one_for_one", "one_for_all", "rest_for_one", "dependency"] as const) {
        const record = yield* recorder
        const [a, b] = yield* stage.cast("a", "b")
        const app = yield* play([a.child({ backoff: Schedule.spaced("1 hour") }), b.child()], { strategy })
        const { routine } = a
        yield* a.fail()
        yield* settle
        assert.strictEqual((yield* Routine.snapshot(routine)).state, "backoff", strategy)
        yield* now(yield* fork(Supervisor.stop(app)))
        const { incarnation, restarts, state } = yield* Routine.snapshot(routine)
        assert.deepStrictEqual([incarnation, restarts, state], [1, 0, "failed"], strategy)
        yield* TestClock.adjust("2 hours")
        assert.deepStrictEqual([a.starts, record.tags.includes("Restarted")], [1, false], strategy)
      }
    })
  )

  it.effect(
    "SC45. a run without a heartbeat is ended alone, as an idle timeout; policy decides on the next; backoff is not idle time",
    scene(function*(stage) {
      const record = yield* recorder
      const [sibling] = yield* stage.cast("sibling")
      let runs = 0
      const beats = Effect.gen(function*() {
        runs++
        // The first run falls silent after three seconds, the next ones never do.
        for (let second = 0; runs > 1 || second < 3; second++) {
          yield* Routine.beat
          yield* Effect.sleep("1 second")
        }
        return yield* Effect.never
      })
      // The watch of a run ends with it.
      let briefs = 0
      const brief = Effect.suspend(() =>
        ++briefs === 1
          ? Effect.andThen(Effect.sleep("1 second"), Effect.fail("brief"))
          : Effect.forever(Effect.andThen(Routine.beat, Effect.sleep("1 second")))
      )
      const app = yield* play([
        Child.make("worker", beats, { idleTimeout: "4 seconds", backoff: Schedule.spaced("20 seconds") }),
        sibling.child(),
        Child.make("brief", brief, { idleTimeout: "4 seconds", backoff: Schedule.spaced("2 seconds") }),
        Child.make("once", Effect.never, { idleTimeout: "4 seconds", restart: "temporary" })
      ], { intensity: 2 })
      // The last beat was at two seconds; never early, and at most a quarter late.
      yield* TestClock.adjust("5999 millis")
      assert.deepStrictEqual(yield* shown(app), ["worker running 1", "sibling running 1", "brief running 2"])
      yield* TestClock.adjust("1001 millis")
      assert.deepStrictEqual(yield* shown(app), ["worker restarting 1", "sibling running 1", "brief running 2"])
      const [{ routine } = assert.fail()] = yield* Supervisor.whichChildren(app)
      const [attempt] = yield* Routine.attempts(routine)
      assert.deepInclude(attempt, { reason: "idle_timeout", errorType: "IdleTimeout" })
      yield* TestClock.adjust("21 seconds")
      assert.deepStrictEqual([runs, yield* shown(app)], [2, [
        "worker running 2",
        "sibling running 1",
        "brief running 2"
      ]])
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual([runs, yield* used(app)], [2, 0])
      const decided = record.events.flatMap((event) =>
        event._tag === "Decided" ? [`${event.child} ${event.decision} ${event.reason}`] : []
      )
      assert.deepStrictEqual(decided, [
        "brief restart failure",
        "once remove idle_timeout",
        "worker restart idle_timeout"
      ])
    })
  )

  it.effect(
    "SC46. a removal awaits the end, no later failure undoes it; adding during a storm of restarts is accepted",
    scene(function*(stage) {
      const a = yield* stage.actor("a", { stop: slow(2000) })
      const storm = Child.make("storm", Effect.andThen(Effect.sleep("1 millis"), Effect.fail("again")))
      const app = yield* play([a.child(), storm], { intensity: 100_000 })
      const removing = yield* fork(
        Effect.andThen(Supervisor.terminateChild(app, "a"), Supervisor.deleteChild(app, "a"))
      )
      for (let step = 0; step < 20; step++) yield* TestClock.adjust("99 millis")
      assert.isUndefined(removing.pollUnsafe())
      yield* TestClock.adjust("20 millis")
      yield* now(removing)
      const [added] = yield* stage.cast("added")
      assert.strictEqual((yield* now(yield* fork(Supervisor.startChild(app, added.child())))).state, "running")
      yield* TestClock.adjust("100 millis")
      const children = yield* Supervisor.whichChildren(app)
      assert.deepStrictEqual(children.map(({ id }) => id), ["storm", "added"])
      assert.deepStrictEqual([a.starts, added.starts], [1, 1])
      // One that ignores its removal is waited for no longer than its bound, and is not run again either.
      const deaf = Effect.andThen(Effect.uninterruptible(Effect.sleep("1 minute")), Effect.fail("late"))
      yield* Supervisor.startChild(app, Child.make("deaf", deaf, { shutdown: "1 second" }))
      yield* Supervisor.terminateChild(app, "storm")
      const abandoning = yield* fork(Supervisor.terminateChild(app, "deaf"))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* now(abandoning), "abandoned")
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(yield* shown(app), [
        `storm stopped ${children[0]?.incarnation}`,
        "added running 1",
        "deaf stopped 1"
      ])
    })
  )
})
