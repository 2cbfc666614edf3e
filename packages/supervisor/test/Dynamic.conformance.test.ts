/**
 * The scenarios of supervision that make sense for children of one template, which are independent and have no ids.
 * `DS17` is scenario 17.
 */
import { Orchestrator, Routine } from "@effect-orchestra/core"
import { recorder, steerableChild, TestOrchestra } from "@effect-orchestra/core/testing"
import { Backoff, Child, DynamicSupervisor, Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Context, Deferred, Effect, Exit, Fiber, Layer, Option, Random, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { listed, now } from "./Play.ts"
import { type Actor, failsAt, pass, scene, settle, slow } from "./Stage.ts"
import { anything, counts, layered, layers, type Ref, states, troupe, used } from "./Troupe.ts"

const { startChild } = DynamicSupervisor

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
    return { millis, value: yield* now(fiber) }
  })

/** Ignores its interruption for so long. */
const deaf = (millis = 60_000) => Effect.uninterruptible(Effect.sleep(millis))

const gaveUp = (ref: Ref) => Effect.flip(DynamicSupervisor.await(ref))

const errors = ({ causes }: SupervisorError.RestartIntensityReached) =>
  causes.map((cause) => Option.getOrUndefined(Cause.findErrorOption(cause)))

/** A supervisor with a dynamic one as its child. */
const around = Effect.fnUntraced(function*(
  options: DynamicSupervisor.DynamicOptions = {},
  outer: Supervisor.SupervisorOptions = {},
  child: Pick<Child.ChildOptions, "restart" | "shutdown"> = {}
) {
  class Workers
    extends Context.Service<Workers, DynamicSupervisor.DynamicRef<Actor, void, unknown>>()("test/Workers")
  {}
  const seen: { ref: Workers["Service"] | undefined } = { ref: undefined }
  const layer = Layer.effect(Workers, Effect.tap(troupe(options), (ref) => Effect.sync(() => seen.ref = ref)))
  const app = yield* Supervisor.start(
    Supervisor.make({ name: "app", strategy: "one_for_one", children: [Child.layer("inner", layer, child)], ...outer })
  )
  return { app, workers: () => seen.ref ?? assert.fail("it has not started") }
})

describe("restart types of dynamic children", () => {
  it.effect(
    "DS17. a permanent child is restarted after a success, an interruption, a failure and a defect",
    scene(function*(stage) {
      for (const start of [troupe, layered]) {
        const ref = yield* start({ intensity: 10 })
        const a = yield* stage.actor("a")
        const routine = yield* startChild(ref, a)
        // The end of what a layer has forked, unless it failed, is not an end of the layer.
        const ends = [a.fail(), a.die("defect"), Routine.interrupt(routine), ...(start === troupe ? [a.succeed] : [])]
        for (const [index, end] of ends.entries()) {
          yield* end
          yield* settle
          assert.deepStrictEqual(yield* states(ref), [`running ${index + 2}`])
        }
        assert.strictEqual(yield* used(ref), ends.length)
        yield* DynamicSupervisor.stop(ref)
      }
    })
  )

  it.effect(
    "DS18. a transient child is restarted after a failure and a defect; after a success it is forgotten",
    scene(function*(stage) {
      const record = yield* recorder
      const ref = yield* troupe({ restart: "transient" })
      const [a] = yield* stage.cast("a")
      const routine = yield* startChild(ref, a)
      yield* a.fail()
      yield* settle
      assert.deepStrictEqual(yield* states(ref), ["running 2"])
      yield* a.die("defect")
      yield* settle
      assert.deepStrictEqual(yield* states(ref), ["running 3"])
      yield* a.succeed
      yield* settle
      assert.deepStrictEqual([yield* states(ref), yield* counts(ref)], [[], [0, 0, 0, 0]])
      assert.deepStrictEqual(yield* Routine.await(routine), Exit.void)
      assert.deepStrictEqual(
        record.events.flatMap((event) =>
          event._tag === "Decided" ? [`${event.child === routine.id} ${event.decision} ${event.severity}`] : []
        ),
        ["true restart error", "true restart error", "true stop info"]
      )
    })
  )

  it.effect(
    "DS19. a transient child that ends in order, in whatever words, is not restarted, and that is no error",
    scene(function*() {
      const record = yield* recorder
      const orderly: ReadonlyArray<readonly [how: string, Effect.Effect<unknown, unknown>]> = [
        ["a value", Effect.succeed({ reason: "shutdown" })],
        ["not needed", Supervisor.ignore],
        ["not needed, as an error", Effect.fail(new SupervisorError.Ignore())],
        ["done", Supervisor.done],
        ["done, as an error", Effect.fail(new SupervisorError.Done())]
      ]
      const ref = yield* anything({ restart: "transient", intensity: 0 })
      for (const [how, end] of orderly) {
        const routine = yield* startChild(ref, Effect.andThen(Effect.yieldNow, end))
        yield* settle
        assert.deepStrictEqual([how, yield* states(ref)], [how, []])
        assert.isTrue(Exit.isSuccess(yield* Routine.await(routine)), how)
      }
      yield* Routine.stop(yield* startChild(ref, Effect.never))
      yield* settle
      assert.deepStrictEqual(yield* states(ref), [])
      assert.deepStrictEqual(
        record.events.filter((event) => event._tag === "Decided" && event.severity === "error"),
        []
      )
    })
  )

  it.effect(
    "DS20. an interruption that nobody asked the supervisor for is abnormal: a transient child is restarted",
    scene(function*() {
      let runs = 0
      const itself = Effect.suspend(() =>
        ++runs === 1 ? Effect.andThen(Effect.yieldNow, Effect.interrupt) : Effect.never
      )
      const ref = yield* anything({ restart: "transient" })
      yield* Routine.interrupt(yield* startChild(ref, Effect.never))
      yield* startChild(ref, itself)
      yield* settle
      assert.deepStrictEqual([yield* states(ref), yield* used(ref)], [["running 2", "running 2"], 2])
    })
  )

  it.effect(
    "DS21. a temporary child is never restarted and is forgotten at once: its place is free",
    scene(function*(stage) {
      for (const start of [troupe, layered]) {
        const ref = yield* start({ restart: "temporary", intensity: 0, maxChildren: 1 })
        const a = yield* stage.actor("a")
        const kill = Effect.flatMap(
          DynamicSupervisor.whichChildren(ref),
          ([child]) => Routine.interrupt(child?.routine ?? assert.fail())
        )
        for (const end of [a.fail(), a.die("defect"), kill, ...(start === troupe ? [a.succeed] : [])]) {
          const routine = yield* startChild(ref, a)
          yield* end
          yield* settle
          assert.deepStrictEqual(yield* states(ref), [])
          const error = yield* Effect.flip(DynamicSupervisor.terminateChild(ref, routine))
          assert.strictEqual(error._tag, "ChildNotFound")
        }
      }
    })
  )

  it.effect(
    "DS23. a temporary child may fail as often as it is started: that counts nothing",
    scene(function*(stage) {
      const [a, b] = yield* stage.cast("a", "b")
      const ref = yield* troupe({ restart: "temporary", intensity: 0 })
      yield* startChild(ref, b)
      for (let time = 1; time <= 20; time++) {
        yield* startChild(ref, a)
        yield* a.fail()
        yield* settle
      }
      assert.deepStrictEqual([yield* states(ref), a.starts, yield* used(ref)], [["running 1"], 20, 0])
    })
  )

  it.effect(
    "DS24. a transient child may end normally as often as it is started: that counts nothing",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      const ref = yield* troupe({ restart: "transient", intensity: 0 })
      for (let time = 1; time <= 20; time++) {
        yield* startChild(ref, a)
        yield* a.succeed
        yield* settle
        assert.deepStrictEqual(yield* states(ref), [])
      }
      assert.deepStrictEqual([a.starts, yield* used(ref)], [20, 0])
    })
  )

  it.effect(
    "DS25. a restarted child gets what it got at first: its argument, services and attributes",
    scene(function*() {
      class Tenant extends Context.Service<Tenant, string>()("test/Tenant") {}
      const seen: Array<string> = []
      const spec = DynamicSupervisor.make({
        name: "workers",
        attributes: { region: "eu" },
        child: (argument: string) =>
          Effect.gen(function*() {
            seen.push(`${argument} of ${yield* Tenant}`)
            yield* Effect.yieldNow
            return yield* seen.length < 4 ? Effect.fail("again") : Effect.never
          })
      })
      const ref = yield* Effect.provideService(DynamicSupervisor.start(spec), Tenant, "acme")
      yield* Effect.provideService(startChild(ref, "one"), Tenant, "another")
      yield* startChild(ref, "two")
      yield* settle
      assert.deepStrictEqual(seen, ["one of acme", "two of acme", "one of acme", "two of acme"])
      assert.deepStrictEqual(
        (yield* Orchestrator.list).map(({ attributes }) => attributes),
        [{ region: "eu" }, { region: "eu" }]
      )
    })
  )

  it.effect(
    "DS26. a child that ends in the moment it is ready is restarted, never listed as running for ever",
    scene(function*() {
      for (const fails of [true, false]) {
        for (const how of ["before anything", "with its readiness", "with its build"]) {
          let runs = 0
          const end = fails ? Effect.fail("at once") : Effect.void
          const first = Effect.suspend(() => ++runs === 1 ? end : Effect.never)
          const ready = Effect.andThen(Routine.ready, first)
          if (how === "with its build") {
            const ref = yield* layers()
            yield* startChild(
              ref,
              Orchestrator.forkScoped(fails ? first : Effect.andThen(first, Effect.fail("at once")))
            )
            yield* settle
            assert.deepStrictEqual([yield* states(ref), runs, yield* used(ref)], [["running 2"], 2, 1])
          } else {
            const ref = yield* anything({ awaitReady: how === "with its readiness" })
            yield* startChild(ref, how === "with its readiness" ? ready : first)
            yield* settle
            assert.deepStrictEqual([yield* states(ref), runs, yield* used(ref)], [["running 2"], 2, 1])
          }
        }
      }
    })
  )

  it.effect(
    "DS27. a permanent child that succeeds at once is started intensity + 1 times",
    scene(function*() {
      for (const end of [Effect.void, Effect.yieldNow]) {
        let runs = 0
        const ref = yield* anything({ intensity: 3 })
        const routine = yield* startChild(ref, Effect.andThen(Effect.sync(() => void runs++), end))
        const failure = yield* gaveUp(ref)
        assert.deepStrictEqual([runs, failure.child, failure.attempts], [4, routine.id, 4])
      }
    })
  )

  it.effect(
    "DS28. what a temporary child was started with is not kept once it runs",
    scene(function*() {
      setFlagsFromString("--expose-gc")
      const collect: () => void = runInNewContext("gc")
      const start = (restart: "temporary" | "permanent") =>
        Effect.gen(function*() {
          const ref = yield* DynamicSupervisor.start(DynamicSupervisor.make({
            name: restart,
            restart,
            child: (argument: { readonly bytes: Uint8Array }) =>
              Effect.suspend(() => argument.bytes.length > 0 ? Effect.never : Effect.void)
          }))
          return yield* Effect.suspend(() => {
            const argument = { bytes: new Uint8Array(1_000_000) }
            return Effect.as(startChild(ref, argument), new WeakRef(argument))
          })
        })
      const kept = [yield* start("permanent"), yield* start("temporary")]
      yield* settle
      collect()
      assert.deepStrictEqual(kept.map((ref) => ref.deref() !== undefined), [true, false])
      assert.strictEqual((yield* Orchestrator.list).length, 2)
    })
  )
})

describe("restart intensity of dynamic children", () => {
  it.effect(
    "DS46. with intensity 0 the first failure ends the supervisor and nothing is restarted",
    scene(function*(stage) {
      const record = yield* recorder
      const [a, b] = yield* stage.cast("a", "b")
      const ref = yield* troupe({ intensity: 0 })
      yield* startChild(ref, a)
      yield* startChild(ref, b)
      yield* a.fail()
      assert.strictEqual((yield* gaveUp(ref)).attempts, 1)
      assert.deepStrictEqual(stage.take(), ["start a", "start b", "exit a", "stop b"])
      assert.notInclude(record.tags, "Restarted")
    })
  )

  it.effect(
    "DS47. with intensity n there are n restarts within the period, and the next failure ends the supervisor",
    scene(function*(stage) {
      for (const start of [troupe, layered]) {
        for (const intensity of [1, 2, 3]) {
          const a = yield* stage.actor("a")
          const ref = yield* start({ intensity })
          yield* startChild(ref, a)
          for (let failure = 1; failure <= intensity; failure++) {
            yield* a.fail()
            yield* pass(1000)
            assert.deepStrictEqual(yield* states(ref), [`running ${failure + 1}`])
          }
          yield* a.fail()
          assert.deepStrictEqual([(yield* gaveUp(ref)).attempts, a.starts], [intensity + 1, intensity + 1])
        }
      }
    })
  )

  it.effect(
    "DS48. what is longer ago than the period is forgotten: n failures, a pause, n failures",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      const ref = yield* troupe({ period: "10 seconds" })
      yield* startChild(ref, a)
      for (let time = 0; time < 3; time++) {
        for (let failure = 0; failure < 3; failure++) {
          yield* a.fail()
          yield* settle
        }
        yield* pass(11_000)
        assert.strictEqual(yield* used(ref), 0)
      }
      assert.deepStrictEqual(yield* states(ref), ["running 10"])
    })
  )

  it.effect(
    "DS49. the period slides: intensity 2 in 10 s lets 0, 9, 11 and 20.5 s pass, and ends at the third of 0, 5 and 9 s",
    scene(function*(stage) {
      for (const [times, alive] of [[[0, 9000, 11_000, 20_500], true], [[0, 5000, 9000], false]] as const) {
        const [a] = yield* stage.cast("a")
        const ref = yield* troupe({ intensity: 2, period: "10 seconds" })
        yield* startChild(ref, a)
        let before = 0
        for (const time of times) {
          yield* pass(time - before)
          before = time
          yield* a.fail()
          yield* settle
        }
        if (alive) assert.deepStrictEqual(yield* states(ref), ["running 5"])
        else assert.strictEqual((yield* gaveUp(ref)).attempts, 3)
      }
    })
  )

  it.effect(
    "DS50. a restart counts until just before it is a period old, to the millisecond",
    scene(function*(stage) {
      for (const [later, alive] of [[999, false], [1000, true], [1001, true]] as const) {
        const [a] = yield* stage.cast("a")
        const ref = yield* troupe({ intensity: 1, period: "1 second" })
        yield* startChild(ref, a)
        yield* pass(307)
        yield* a.fail()
        yield* pass(later)
        yield* a.fail()
        yield* settle
        assert.strictEqual(a.live, alive, `${later} ms later`)
      }
    })
  )

  it.effect(
    "DS51. the failures of all children share one budget, unless each has its own",
    scene(function*(stage) {
      const [a, b, c] = yield* stage.cast("a", "b", "c")
      const shared = yield* troupe({ intensity: 2 })
      yield* startChild(shared, a)
      const second = yield* startChild(shared, b)
      for (const actor of [a, b]) {
        yield* actor.fail()
        yield* settle
      }
      assert.deepStrictEqual([yield* states(shared), yield* used(shared)], [["running 2", "running 2"], 2])
      yield* b.fail()
      assert.strictEqual((yield* gaveUp(shared)).child, second.id)
      const own = yield* troupe({ intensity: 1, childBudget: { intensity: 2 } })
      yield* Effect.forEach([a, b, c], (actor) => startChild(own, actor))
      for (const actor of [a, b, c, a, b, c]) {
        yield* actor.fail()
        yield* settle
      }
      assert.deepStrictEqual([yield* states(own), yield* used(own)], [["running 3", "running 3", "running 3"], 0])
      // Escalated once, its own begins anew; the next of anybody is too much.
      yield* a.fail()
      yield* settle
      assert.deepStrictEqual([(yield* states(own))[0], yield* used(own)], ["running 4", 1])
      yield* b.fail()
      yield* gaveUp(own)
    })
  )

  it.effect(
    "DS53. every attempt counts, also one that fails: a child that never starts again is tried intensity times more",
    scene(function*(stage) {
      for (const start of [troupe, layered]) {
        const a = yield* stage.actor("a", { start: (run) => run === 1 ? Effect.void : Effect.fail(`start ${run}`) })
        const ref = yield* start({ awaitReady: true, intensity: 3 })
        yield* startChild(ref, a)
        yield* a.fail()
        const end = yield* gaveUp(ref)
        assert.deepStrictEqual([a.starts, end.attempts], [4, 4])
        assert.deepStrictEqual(errors(end), ["a failed", "start 2", "start 3", "start 4"])
      }
    })
  )

  it.effect(
    "DS54. what is done by hand counts nothing",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      const ref = yield* troupe({ intensity: 0 })
      for (let time = 1; time <= 20; time++) {
        yield* DynamicSupervisor.terminateChild(ref, yield* startChild(ref, a))
      }
      yield* startChild(ref, a)
      assert.deepStrictEqual([yield* states(ref), a.starts, yield* used(ref)], [["running 1"], 21, 0])
    })
  )

  it.effect(
    "DS55. giving up starts nothing more, stops the others within their bounds, and is told once",
    scene(function*(stage) {
      const record = yield* recorder
      const a = yield* stage.actor("a", { stop: slow(100) })
      const [b, c, d] = yield* stage.cast("b", "c", "d")
      const { app, workers } = yield* around({ intensity: 0, shutdown: "300 millis" }, { intensity: 0 })
      yield* Effect.forEach([a, b, c, d], (actor) => startChild(workers(), actor))
      yield* c.ignoreInterruption()
      stage.take()
      yield* b.fail()
      yield* settle
      assert.deepStrictEqual(stage.take().toSorted(), ["exit b", "stop d", "stopping a"])
      yield* pass(100)
      assert.deepStrictEqual(stage.take(), ["stop a"])
      yield* pass(199)
      assert.notInclude(record.tags, "Abandoned")
      yield* pass(1)
      assert.include(record.tags, "Abandoned")
      const end = yield* Effect.flip(Supervisor.await(app))
      assert.strictEqual(end.child, "inner")
      yield* c.release
      yield* pass(60_000)
      assert.deepStrictEqual(stage.take(), ["stop c"])
      assert.deepStrictEqual(
        record.events.flatMap(({ _tag, path }) => _tag === "GaveUp" ? [path] : []),
        ["/orchestra/app/inner/workers", "/orchestra/app"]
      )
    })
  )

  it.effect(
    "DS56. the end says which child it was, why its last restarts were needed, how often it was started, and the window",
    scene(function*(stage) {
      const [a, b] = yield* stage.cast("a", "b")
      for (const intensity of [2, 12]) {
        const ref = yield* troupe({ intensity, period: "1 minute" })
        yield* startChild(ref, b)
        const routine = yield* startChild(ref, a)
        for (let failure = 0; failure <= intensity; failure++) {
          yield* a.fail(`failure ${failure}`)
          yield* settle
        }
        const end = yield* gaveUp(ref)
        assert.deepStrictEqual(
          [end.supervisor, end.child, end.attempts, end.window],
          ["/orchestra/workers", routine.id, intensity + 1, { intensity, periodMillis: 60_000 }]
        )
        assert.include(end.message, `failure ${intensity}`)
        const from = Math.max(0, intensity - 9)
        assert.deepStrictEqual(
          errors(end),
          Array.from({ length: intensity + 1 - from }, (_, i) => `failure ${from + i}`)
        )
      }
    })
  )

  it.effect(
    "DS57. one that gave up is restarted by its parent, which counts once, whether it is permanent or transient",
    scene(function*(stage) {
      for (const restart of ["permanent", "transient"] as const) {
        const [a] = yield* stage.cast("a")
        const { app, workers } = yield* around({ intensity: 0 }, { intensity: 1 }, { restart })
        const before = workers()
        yield* startChild(before, a)
        yield* a.fail()
        yield* settle
        assert.notStrictEqual(workers(), before)
        assert.strictEqual((yield* Effect.flip(startChild(before, a)))._tag, "SupervisorNotRunning")
        yield* startChild(workers(), a)
        yield* a.fail()
        const end = yield* Effect.flip(Supervisor.await(app))
        assert.strictEqual(end.child, "inner")
        const given = errors(end)
        assert.isTrue(given.every((error) => error instanceof SupervisorError.RestartIntensityReached))
      }
    })
  )

  it.effect(
    "DS59. budgets multiply: what is restored and fails 5 ms after every start is started (intensity + 1) squared times",
    scene(function*() {
      for (const [intensity, runs] of [[2, 9], [3, 16]] as const) {
        let seen = 0
        const leaf = (_: string) =>
          Effect.andThen(Effect.sync(() => void seen++), Effect.andThen(Effect.sleep(5), Effect.fail("no")))
        // The template is the same each time, so its children are.
        const spec = DynamicSupervisor.make({ name: "workers", restore: true, intensity, child: leaf })
        const inner = Layer.effectDiscard(Effect.gen(function*() {
          const ref = yield* DynamicSupervisor.start(spec)
          if (seen === 0) yield* startChild(ref, "leaf")
        }))
        const app = yield* Supervisor.start(Supervisor.make({
          name: "app",
          strategy: "one_for_one",
          intensity,
          children: [Child.layer("inner", inner)]
        }))
        for (let run = 0; run < 2 * runs; run++) yield* pass(5)
        assert.strictEqual((yield* Effect.flip(Supervisor.await(app))).child, "inner")
        assert.strictEqual(seen, runs)
      }
    })
  )

  it.effect(
    "DS61. one that was restarted has an empty window",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      const { workers } = yield* around({ intensity: 2, restore: true })
      yield* startChild(workers(), a)
      for (const [times, left] of [[3, 0], [2, 2]] as const) {
        for (let failure = 0; failure < times; failure++) {
          yield* a.fail()
          yield* settle
        }
        assert.deepStrictEqual([yield* used(workers()), (yield* states(workers())).length], [left, 1])
      }
    })
  )

  it.effect(
    "DS62. a jump of the wall clock, in either direction, changes nothing",
    scene(function*(stage) {
      const clock = yield* Clock.Clock
      let skew = 0
      const skewed: Clock.Clock = Object.create(clock, {
        currentTimeMillisUnsafe: { value: () => clock.currentTimeMillisUnsafe() + skew },
        currentTimeNanosUnsafe: { value: () => clock.currentTimeNanosUnsafe() + BigInt(skew) * 1_000_000n }
      })
      const hour = 3_600_000
      const program = Effect.gen(function*() {
        const [a] = yield* stage.cast("a")
        const ref = yield* troupe({ intensity: 2, period: "10 seconds" })
        yield* startChild(ref, a)
        for (const jump of [hour, -2 * hour]) {
          yield* a.fail()
          yield* settle
          skew += jump
        }
        assert.strictEqual(yield* used(ref), 2)
        yield* pass(10_000)
        assert.strictEqual(yield* used(ref), 0)
        for (const jump of [hour, hour, 0]) {
          yield* a.fail()
          yield* settle
          skew += jump
        }
        assert.strictEqual((yield* gaveUp(ref)).attempts, 5)
      })
      yield* Effect.scoped(program).pipe(
        Effect.provide(Layer.fresh(Orchestrator.layer)),
        Effect.provideService(Clock.Clock, skewed)
      )
    })
  )
})

describe("failing restarts of dynamic children", () => {
  const second = { awaitReady: true, backoff: Schedule.spaced("1 second") }
  const every = Array.from({ length: 100 }, (_, i) => i + 2)

  it.effect(
    "DS64. a restart that fails is tried again until it succeeds, each attempt counts, and no other is touched",
    scene(function*(stage) {
      const b = yield* stage.actor("b", {
        start: (run) => Effect.andThen(run === 1 ? Effect.void : Effect.sleep(10), failsAt(2, 3)(run))
      })
      const a = yield* stage.actor("a", { start: () => Effect.void })
      const ref = yield* troupe({ awaitReady: true, intensity: 5 })
      yield* Effect.forEach([a, b], (actor) => startChild(ref, actor))
      stage.take()
      yield* b.fail()
      yield* settle
      for (const attempt of [2, 3]) {
        assert.deepStrictEqual(yield* states(ref), ["running 1", `restarting ${attempt}`])
        assert.strictEqual(yield* used(ref), attempt - 1)
        yield* pass(10)
      }
      yield* pass(10)
      assert.deepStrictEqual([yield* states(ref), yield* used(ref)], [["running 1", "running 4"], 3])
      assert.deepStrictEqual(stage.take(), ["exit b", "start b", "exit b", "start b", "exit b", "start b", "ready b"])
    })
  )

  it.effect(
    "DS68. terminating a child that is about to restart cancels that for good",
    scene(function*(stage) {
      // Between two attempts, and within one.
      for (const [after, wait] of [[0, 500], [1000, 1500]] as const) {
        const b = yield* stage.actor("b", {
          start: (run) => Effect.andThen(run > 1 ? Effect.sleep(after) : Effect.void, failsAt(...every)(run))
        })
        const ref = yield* troupe(second)
        const routine = yield* startChild(ref, b)
        yield* b.fail()
        yield* pass(wait)
        assert.strictEqual((yield* DynamicSupervisor.whichChildren(ref))[0]?.state, "restarting")
        assert.strictEqual(yield* DynamicSupervisor.terminateChild(ref, routine), "stopped")
        const { starts } = b
        yield* pass(60_000)
        assert.deepStrictEqual([b.starts, yield* states(ref)], [starts, []])
        assert.isTrue(Exit.isFailure(yield* Routine.await(routine)))
      }
    })
  )

  it.effect(
    "DS71. a stop while a child is about to restart is served at once: no further attempt, no word of giving up",
    scene(function*(stage) {
      const record = yield* recorder
      for (const [after, wait] of [[0, 500], [1000, 1500]] as const) {
        const b = yield* stage.actor("b", {
          start: (run) => Effect.andThen(run > 1 ? Effect.sleep(after) : Effect.void, failsAt(...every)(run))
        })
        const ref = yield* troupe(second)
        yield* startChild(ref, b)
        yield* b.fail()
        yield* pass(wait)
        const { starts } = b
        yield* now(yield* fork(DynamicSupervisor.stop(ref)))
        yield* DynamicSupervisor.await(ref)
        yield* pass(60_000)
        assert.deepStrictEqual([b.starts, b.live], [starts, false])
      }
      assert.deepStrictEqual(record.tags.filter((tag) => tag === "GaveUp" || tag === "Stuck"), [])
    })
  )

  it.effect(
    "DS73. another that fails while a retry is pending is handled, and the retry is not done twice",
    scene(function*(stage) {
      const a = yield* stage.actor("a", { start: () => Effect.void })
      const b = yield* stage.actor("b", { start: failsAt(2) })
      const ref = yield* troupe({ ...second, intensity: 10, period: "1 hour" })
      yield* Effect.forEach([a, b], (actor) => startChild(ref, actor))
      yield* b.fail()
      yield* pass(1500)
      yield* a.fail()
      yield* pass(60_000)
      assert.deepStrictEqual([a.starts, b.starts, yield* used(ref)], [2, 3, 3])
      assert.deepStrictEqual(yield* states(ref), ["running 2", "running 3"])
    })
  )

  it.effect(
    "DS74. a child that says at its restart that it is not needed is forgotten, and nobody tries again",
    scene(function*(stage) {
      for (const restart of ["permanent", "transient"] as const) {
        for (const start of [troupe, layered]) {
          const b = yield* stage.actor("b", { start: (run) => run === 1 ? Effect.void : Supervisor.ignore })
          const a = yield* stage.actor("a", { start: () => Effect.void })
          const ref = yield* start({ awaitReady: true, restart })
          yield* Effect.forEach([a, b], (actor) => startChild(ref, actor))
          yield* b.fail()
          yield* pass(60_000)
          assert.deepStrictEqual([yield* states(ref), b.starts, yield* counts(ref)], [["running 1"], 2, [1, 1, 0, 1]])
        }
      }
    })
  )

  it.effect(
    "DS75. a child that is started while another is about to restart starts at once",
    scene(function*(stage) {
      const [b, d] = [
        yield* stage.actor("b", { start: failsAt(2) }),
        yield* stage.actor("d", { start: () => Effect.void })
      ]
      const ref = yield* troupe(second)
      yield* startChild(ref, b)
      yield* b.fail()
      yield* pass(1500)
      stage.take()
      yield* now(yield* fork(startChild(ref, d)))
      assert.deepStrictEqual(stage.take(), ["start d", "ready d"])
      yield* pass(500)
      assert.deepStrictEqual(stage.take(), ["start b", "ready b"])
    })
  )

  it.effect(
    "DS76. a backoff of 1, 2 and 4 s tries 1, 3 and 7 s after the failure; meanwhile all is answered at once; a stop cancels it",
    scene(function*(stage) {
      const times: Array<number> = []
      const b = yield* stage.actor("b", {
        start: (run) =>
          Effect.andThen(
            Effect.map(Clock.currentTimeMillis, (now) => void times.push(now)),
            run === 1 ? Effect.void : Effect.fail("no")
          )
      })
      const a = yield* stage.actor("a", { start: () => Effect.void })
      const ref = yield* troupe({ awaitReady: true, intensity: 10, backoff: Schedule.exponential("1 second") })
      yield* startChild(ref, b)
      const failedAt = yield* Clock.currentTimeMillis
      yield* b.fail()
      yield* pass(7500)
      assert.deepStrictEqual(times.map((time) => time - failedAt).slice(1), [1000, 3000, 7000])
      const before = yield* Clock.currentTimeMillis
      assert.deepStrictEqual([yield* states(ref), yield* counts(ref)], [["restarting 4"], [1, 0, 0, 1]])
      yield* DynamicSupervisor.terminateChild(ref, yield* startChild(ref, a))
      yield* DynamicSupervisor.stop(ref)
      assert.strictEqual(yield* Clock.currentTimeMillis, before)
      yield* pass(60_000)
      assert.strictEqual(b.starts, 4)
    })
  )

  it.effect(
    "DS77. a backoff begins anew after a run as long as resetAfter, for each child alone",
    scene(function*(stage) {
      const [a, b] = yield* stage.cast("a", "b")
      const ref = yield* troupe({
        intensity: 20,
        period: "1 hour",
        backoff: Schedule.exponential("1 second"),
        resetAfter: "10 seconds"
      })
      yield* Effect.forEach([a, b], (actor) => startChild(ref, actor))
      const downFor = Effect.fnUntraced(function*(actor: Actor) {
        const { starts } = actor
        yield* actor.fail()
        let millis = 0
        for (; actor.starts === starts; millis += 500) yield* pass(500)
        return millis
      })
      assert.deepStrictEqual([yield* downFor(a), yield* downFor(a), yield* downFor(a)], [1000, 2000, 4000])
      // It was ready, but not for long; the other has failed for the first time.
      yield* pass(9000)
      assert.deepStrictEqual([yield* downFor(a), yield* downFor(b)], [8000, 1000])
      yield* pass(10_000)
      assert.strictEqual(yield* downFor(a), 1000)
    })
  )

  it.effect(
    "DS79. jitter stays within its bounds, differs between children that fail together, and is that of the seed",
    scene(function*() {
      const spread = (seed: string) =>
        Effect.gen(function*() {
          const starts: Array<number> = []
          const ref = yield* anything({
            intensity: 100,
            backoff: Backoff.exponential({ base: "1 second", jitter: "full" })
          })
          const gate = yield* Deferred.make<never, string>()
          const child = () => {
            let run = 0
            return Effect.suspend(() =>
              ++run === 1
                ? Deferred.await(gate)
                : Effect.andThen(Effect.map(Clock.currentTimeMillis, (now) => void starts.push(now)), Effect.never)
            )
          }
          for (let i = 0; i < 20; i++) yield* startChild(ref, child())
          const failedAt = yield* Clock.currentTimeMillis
          yield* Deferred.fail(gate, "no")
          for (let step = 0; step < 100; step++) yield* pass(20)
          yield* DynamicSupervisor.stop(ref)
          return starts.map((at) => at - failedAt)
        }).pipe(Effect.scoped, Effect.provide(Layer.fresh(Orchestrator.layer)), Random.withSeed(seed))
      const [one, again, other] = [yield* spread("one"), yield* spread("one"), yield* spread("other")]
      assert.deepStrictEqual([one.length, again], [20, one])
      assert.notDeepEqual(other, one)
      assert.isTrue(one.every((delay) => delay >= 0 && delay <= 1020))
      assert.isAbove(new Set(one).size, 10)
    })
  )
})

describe("management of dynamic children", () => {
  it.effect(
    "DS81. a start that fails says why; nothing is kept, retried or counted",
    scene(function*() {
      let starts = 0
      const tried = Effect.sync(() => void starts++)
      const ways: ReadonlyArray<readonly [Effect.Effect<unknown, unknown>, (cause: Cause.Cause<unknown>) => boolean]> =
        [
          [Effect.fail("no b"), (cause) => Option.getOrNull(Cause.findErrorOption(cause)) === "no b"],
          [Effect.die("broken"), (cause) => Cause.hasDies(cause) && Cause.squash(cause) === "broken"],
          [Effect.interrupt, Cause.hasInterrupts],
          [Effect.void, () => true]
        ]
      for (const kind of ["effect", "layer"]) {
        const options = { intensity: 0, backoff: Schedule.spaced("1 second") }
        const effects = yield* anything({ ...options, awaitReady: true })
        const builds = yield* layers(options)
        for (const [end, fits] of ways) {
          // A layer that is built is ready.
          if (kind === "layer" && end === Effect.void) continue
          starts = 0
          const body = Effect.andThen(tried, Effect.andThen(Effect.yieldNow, end))
          const failure = yield* Effect.flip(kind === "layer" ? startChild(builds, body) : startChild(effects, body))
          assert.instanceOf(failure, SupervisorError.StartFailure)
          assert.strictEqual(failure.supervisor.startsWith("/orchestra/workers"), true)
          assert.isTrue(fits(failure.cause), String(failure.cause))
          yield* pass(60_000)
          assert.deepStrictEqual([starts, yield* listed], [1, []])
          assert.deepStrictEqual([yield* counts(effects), yield* used(effects), yield* used(builds)], [
            [0, 0, 0, 0],
            0,
            0
          ])
        }
        yield* DynamicSupervisor.stop(effects)
        yield* DynamicSupervisor.stop(builds)
      }
    })
  )

  it.effect(
    "DS82. starting a child that says it is not needed succeeds without a run, and keeps nothing",
    scene(function*() {
      for (const restart of ["permanent", "transient", "temporary"] as const) {
        const effects = yield* anything({ awaitReady: true, restart, intensity: 0 })
        const builds = yield* layers({ restart, intensity: 0 })
        for (const ignored of [Supervisor.ignore, Effect.fail(new SupervisorError.Ignore())]) {
          for (const body of [ignored, Effect.andThen(Effect.yieldNow, ignored)]) {
            for (const routine of [yield* startChild(effects, body), yield* startChild(builds, body)]) {
              assert.deepStrictEqual(yield* Routine.await(routine), Exit.void)
            }
          }
        }
        assert.deepStrictEqual([yield* counts(effects), yield* counts(builds), yield* listed], [
          [0, 0, 0, 0],
          [0, 0, 0, 0],
          []
        ])
      }
    })
  )

  it.effect(
    "DS83. a child that was terminated, has ended or never was is not found, whatever its type",
    scene(function*(stage) {
      for (const restart of ["permanent", "transient", "temporary"] as const) {
        const [a] = yield* stage.cast("a")
        const ref = yield* troupe({ restart })
        const routine = yield* startChild(ref, a)
        stage.take()
        assert.strictEqual(yield* DynamicSupervisor.terminateChild(ref, routine), "stopped")
        assert.deepStrictEqual(stage.take(), ["stop a"])
        for (let time = 0; time < 2; time++) {
          const error = yield* Effect.flip(DynamicSupervisor.terminateChild(ref, routine))
          assert.strictEqual(error._tag, "ChildNotFound")
        }
      }
    })
  )

  it.effect(
    "DS85. children are listed in the order they came, whatever was restarted",
    scene(function*(stage) {
      const actors = yield* stage.cast("a", "b", "c", "d")
      const [a, b, , d] = actors
      const ref = yield* troupe({ intensity: 10 })
      const routines = yield* Effect.forEach(actors, (actor) => startChild(ref, actor))
      const ids = Effect.map(DynamicSupervisor.whichChildren(ref), (children) => children.map(({ id }) => id))
      for (const actor of [b, a, d]) {
        yield* actor.fail()
        yield* settle
        assert.deepStrictEqual(yield* ids, routines.map(({ id }) => id))
      }
      yield* DynamicSupervisor.terminateChild(ref, routines[1] ?? assert.fail())
      const again = yield* startChild(ref, b)
      assert.deepStrictEqual(yield* ids, [routines[0]?.id, routines[2]?.id, routines[3]?.id, again.id])
    })
  )

  it.effect(
    "DS86. the counts are right with children running, restarting, starting and stopping, and never negative",
    scene(function*(stage) {
      const a = yield* stage.actor("a", { start: () => Effect.void, stop: slow(1000) })
      const b = yield* stage.actor("b", { start: () => Effect.void })
      const c = yield* stage.actor("c", { start: slow(1000) })
      const ref = yield* troupe({ awaitReady: true, backoff: Schedule.spaced("1 minute") })
      const first = yield* startChild(ref, a)
      const second = yield* startChild(ref, b)
      yield* fork(Effect.exit(startChild(ref, c)))
      yield* settle
      assert.deepStrictEqual(yield* counts(ref), [3, 2, 0, 3])
      yield* b.fail()
      yield* settle
      assert.deepStrictEqual(yield* counts(ref), [3, 1, 0, 3])
      yield* DynamicSupervisor.terminateChild(ref, second)
      assert.deepStrictEqual(yield* counts(ref), [2, 1, 0, 2])
      yield* fork(DynamicSupervisor.terminateChild(ref, first))
      yield* settle
      assert.deepStrictEqual([yield* counts(ref), yield* states(ref)], [[1, 0, 0, 1], ["starting 1"]])
      yield* pass(1000)
      assert.deepStrictEqual([yield* counts(ref), yield* states(ref)], [[1, 1, 0, 1], ["running 1"]])
    })
  )

  it.effect(
    "DS88. a stop and a failure at the same time: one of the two histories, never both, nor neither",
    () =>
      Effect.gen(function*() {
        const histories = new Set<string>()
        for (let seed = 0; seed < 1000; seed++) {
          const history = yield* TestOrchestra.run(
            Effect.gen(function*() {
              const a = yield* steerableChild<void, string>({ name: "a" })
              const record = yield* recorder
              const ref = yield* anything({ intensity: seed % 2 })
              const routine = yield* startChild(ref, a.effect)
              const failing = yield* Effect.forkChild(a.fail("no"))
              const [end] = yield* Effect.all([
                Effect.exit(DynamicSupervisor.terminateChild(ref, routine)),
                Effect.yieldNow
              ], { concurrency: "unbounded" })
              const { starts } = a
              assert.isFalse(a.live, "it lives after its stop")
              yield* Effect.sleep("1 minute")
              assert.strictEqual(a.starts, starts, "it was started after its stop")
              yield* Fiber.interrupt(failing)
              const decisions = record.events.flatMap((event) => event._tag === "Decided" ? [event.decision] : [])
              if (decisions.length === 0) {
                assert.deepStrictEqual([end, yield* states(ref)], [Exit.succeed("stopped"), []])
                return "stopped first"
              }
              if (seed % 2 === 0) {
                assert.deepStrictEqual(decisions, ["give_up"])
                assert.isTrue(Exit.isFailure(yield* Effect.exit(DynamicSupervisor.await(ref))))
                return "failed first, and that was one too many"
              }
              assert.deepStrictEqual([decisions, end, yield* states(ref)], [["restart"], Exit.succeed("stopped"), []])
              assert.isAtMost(starts, 2)
              return `failed first, then stopped in run ${starts}`
            }),
            { seed }
          ).pipe(Effect.catchDefect((defect) => Effect.die(new Error(`seed ${seed}: ${defect}`, { cause: defect }))))
          histories.add(history)
        }
        assert.includeMembers([...histories], [
          "stopped first",
          "failed first, and that was one too many",
          "failed first, then stopped in run 2"
        ])
      }),
    60_000
  )

  it.effect(
    "DS89. while a child is being started slowly, queries answer, a failure is handled, and a stop works",
    scene(function*(stage) {
      const a = yield* stage.actor("a", { start: () => Effect.void })
      const b = yield* stage.actor("b", { start: slow(10_000) })
      const ref = yield* troupe({ awaitReady: true })
      yield* startChild(ref, a)
      const adding = yield* fork(Effect.flip(startChild(ref, b)))
      yield* settle
      assert.deepStrictEqual([yield* states(ref), yield* counts(ref)], [["running 1", "starting 1"], [2, 1, 0, 2]])
      yield* a.fail()
      yield* settle
      assert.deepStrictEqual(yield* states(ref), ["running 2", "starting 1"])
      stage.take()
      yield* now(yield* fork(DynamicSupervisor.stop(ref)))
      assert.deepStrictEqual(stage.take().toSorted(), ["stop a", "stop b"])
      assert.strictEqual((yield* now(adding))._tag, "SupervisorNotRunning")
    })
  )

  it.effect(
    "DS90. while a child takes its time to stop, the failure of another is handled without delay",
    scene(function*(stage) {
      const a = yield* stage.actor("a", { stop: slow(3000) })
      const b = yield* stage.actor("b")
      const ref = yield* troupe()
      const routine = yield* startChild(ref, a)
      yield* startChild(ref, b)
      const stopping = yield* fork(DynamicSupervisor.terminateChild(ref, routine))
      yield* settle
      yield* b.fail()
      yield* settle
      assert.deepStrictEqual(yield* states(ref), ["running 2"])
      assert.isUndefined(stopping.pollUnsafe())
      yield* pass(3000)
      assert.strictEqual(yield* now(stopping), "stopped")
    })
  )

  it.effect(
    "DS92. stops of one child at once, and its failure: it is gone once, and nothing of it comes back",
    () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < 300; seed++) {
          yield* TestOrchestra.run(
            Effect.gen(function*() {
              const a = yield* steerableChild<void, string>({ name: "a" })
              const ref = yield* anything({ awaitReady: true })
              const body = Effect.andThen(
                Effect.andThen(Effect.sleep(seed % 3), Routine.ready),
                Effect.ensuring(a.effect, Effect.sleep(seed % 5))
              )
              const routine = yield* startChild(ref, body)
              if (seed % 2 === 1) yield* Effect.forkScoped(a.fail("no"))
              const terminate = Effect.match(DynamicSupervisor.terminateChild(ref, routine), {
                onFailure: ({ _tag }): string => _tag,
                onSuccess: String
              })
              const outcomes = yield* Effect.all([terminate, terminate, Effect.delay(terminate, seed % 4)], {
                concurrency: "unbounded"
              })
              assert.deepStrictEqual(outcomes.toSorted(), ["ChildNotFound", "ChildNotFound", "stopped"], `seed ${seed}`)
              const { starts } = a
              yield* Effect.sleep("1 minute")
              assert.deepStrictEqual([a.live, a.starts, yield* states(ref)], [false, starts, []], `seed ${seed}`)
              yield* a.check
            }),
            { seed }
          )
        }
      }),
    20_000
  )

  it.effect(
    "DS93. on a supervisor that stops, was stopped or gave up, every operation fails at once, and starts nothing",
    scene(function*(stage) {
      for (const end of ["stopping", "stopped", "gave up"] as const) {
        const a = yield* stage.actor("a", { stop: slow(1000) })
        const [late] = yield* stage.cast("late")
        const ref = yield* troupe({ intensity: 0 })
        const routine = yield* startChild(ref, a)
        if (end === "gave up") {
          yield* a.fail()
          yield* gaveUp(ref)
        } else {
          yield* fork(DynamicSupervisor.stop(ref))
          yield* settle
          if (end === "stopped") yield* pass(1000)
        }
        const operations: ReadonlyArray<Effect.Effect<unknown, { readonly _tag: string }>> = [
          startChild(ref, late),
          DynamicSupervisor.terminateChild(ref, routine),
          DynamicSupervisor.whichChildren(ref),
          DynamicSupervisor.countChildren(ref)
        ]
        for (const operation of operations) {
          const failure = yield* now(yield* fork(Effect.flip(operation)))
          assert.instanceOf(failure, SupervisorError.SupervisorNotRunning)
          assert.strictEqual(failure.supervisor, "/orchestra/workers")
          assert.strictEqual(failure.state === "stopping", end === "stopping", failure.state)
        }
        yield* pass(60_000)
        assert.deepStrictEqual([late.starts, a.starts], [0, 1])
        yield* DynamicSupervisor.stop(ref)
        assert.strictEqual(Exit.isFailure(yield* Effect.exit(DynamicSupervisor.await(ref))), end === "gave up")
      }
    })
  )

  it.effect(
    "DS94. interrupting who starts a child takes it out again; interrupting who stops one does not interrupt the stop",
    scene(function*(stage) {
      const a = yield* stage.actor("a", { start: () => Effect.void, stop: slow(1000) })
      const b = yield* stage.actor("b", { start: slow(5000), stop: slow(1000) })
      for (const start of [troupe, layered]) {
        const ref = yield* start({ awaitReady: true })
        const routine = yield* startChild(ref, a)
        stage.take()
        const adding = yield* fork(startChild(ref, b))
        yield* settle
        const interrupting = yield* fork(Fiber.interrupt(adding))
        yield* pass(999)
        assert.isUndefined(interrupting.pollUnsafe(), "the interruption returned before the child was gone")
        yield* pass(1)
        yield* now(interrupting)
        assert.deepStrictEqual(stage.take().slice(0, 3), ["start b", "stopping b", "stop b"])
        assert.deepStrictEqual(yield* states(ref), ["running 1"])
        const stopping = yield* fork(DynamicSupervisor.terminateChild(ref, routine))
        yield* settle
        yield* Fiber.interrupt(stopping)
        yield* pass(1000)
        assert.deepStrictEqual([stage.take().slice(0, 2), yield* states(ref)], [["stopping a", "stop a"], []])
        yield* DynamicSupervisor.stop(ref)
      }
    })
  )
})

describe("shutdown of dynamic children", () => {
  it.effect(
    "DS97. a child that needs less than its bound ends gracefully, and that is no error",
    scene(function*(stage) {
      const record = yield* recorder
      const a = yield* stage.actor("a", { stop: slow(200) })
      const ref = yield* troupe({ shutdown: "500 millis" })
      const routine = yield* startChild(ref, a)
      assert.strictEqual((yield* timed(DynamicSupervisor.stop(ref))).millis, 200)
      assert.strictEqual((yield* Routine.snapshot(routine)).state, "interrupted")
      assert.deepStrictEqual(
        record.tags.filter((tag) => tag === "Stuck" || tag === "Abandoned" || tag === "Decided"),
        []
      )
    })
  )

  it.effect(
    "DS98. a child that ignores its stop is abandoned at its bound, told, and delays nobody else",
    scene(function*(stage) {
      const record = yield* recorder
      const [a, b, c] = yield* stage.cast("a", "b", "c")
      const ref = yield* troupe({ shutdown: "300 millis" })
      const [, hung] = yield* Effect.forEach([a, b, c], (actor) => startChild(ref, actor))
      yield* b.ignoreInterruption()
      stage.take()
      const stopping = yield* fork(DynamicSupervisor.stop(ref))
      yield* settle
      assert.deepStrictEqual(stage.take().toSorted(), ["stop a", "stop c"])
      yield* pass(299)
      assert.isUndefined(stopping.pollUnsafe())
      yield* pass(1)
      yield* now(stopping)
      assert.deepStrictEqual(
        record.events.flatMap((event) => event._tag === "Abandoned" ? [[event.id, event.waitedMillis]] : []),
        [[hung?.id, 300]]
      )
      assert.strictEqual((yield* listed).length, 1)
      yield* b.release
      yield* settle
      assert.deepStrictEqual([record.tags.at(-1), yield* listed], ["EndedLate", []])
    })
  )

  it.effect(
    "DS99. brutal_kill and a bound of 0 wait for nothing, infinity for ten minutes",
    scene(function*(stage) {
      for (const shutdown of ["brutal_kill", 0] as const) {
        const [a, b] = yield* stage.cast("a", "b")
        const ref = yield* troupe({ shutdown })
        yield* Effect.forEach([a, b], (actor) => startChild(ref, actor))
        yield* b.ignoreInterruption()
        stage.take()
        assert.strictEqual((yield* timed(DynamicSupervisor.stop(ref))).millis, 0)
        assert.deepStrictEqual([stage.take(), (yield* listed).length], [["stop a"], 1])
        yield* b.release
        yield* settle
      }
      const ref = yield* anything({ shutdown: "infinity" })
      const routine = yield* startChild(ref, deaf(600_000))
      const stopping = yield* fork(DynamicSupervisor.terminateChild(ref, routine))
      yield* pass(599_999)
      assert.isUndefined(stopping.pollUnsafe())
      yield* pass(1)
      assert.strictEqual(yield* now(stopping), "stopped")
    })
  )

  it.effect(
    "DS100. a child that fails while it is being stopped is told with its cause, one that succeeds is not an error",
    scene(function*() {
      const record = yield* recorder
      const asked = (end: Effect.Effect<unknown, unknown>) =>
        Effect.andThen(Routine.stopRequested, Effect.delay(end, "100 millis"))
      for (const restart of ["permanent", "transient", "temporary"] as const) {
        const seen = record.events.length
        const ref = yield* anything({ restart, intensity: 0 })
        for (const end of [Effect.fail("could not save"), Effect.die("broken"), Effect.succeed("saved")]) {
          yield* startChild(ref, asked(end))
        }
        assert.strictEqual((yield* timed(DynamicSupervisor.stop(ref))).millis, 100)
        const events = record.events.slice(seen)
        assert.deepStrictEqual(
          events.flatMap((event) => event._tag === "Exited" ? [`${event.exit.reason} ${event.exit.message}`] : []),
          ["failure could not save", "defect broken", "success null"]
        )
        assert.notInclude(events.map(({ _tag }) => _tag), "Decided")
      }
    })
  )

  it.effect(
    "DS101. a stop gets through children that are graceful, deaf, starting and restarting",
    scene(function*(stage) {
      const ready = { start: () => Effect.void }
      const graceful = yield* stage.actor("graceful", { ...ready, stop: slow(200) })
      const [deaf, restarting] = [yield* stage.actor("deaf", ready), yield* stage.actor("restarting", ready)]
      const starting = yield* stage.actor("starting", { start: () => Effect.never })
      const ref = yield* troupe({ awaitReady: true, shutdown: "300 millis", backoff: Schedule.spaced("1 hour") })
      const routines = yield* Effect.forEach([graceful, deaf, restarting], (actor) => startChild(ref, actor))
      yield* fork(Effect.exit(startChild(ref, starting)))
      yield* deaf.ignoreInterruption()
      yield* restarting.fail()
      yield* settle
      assert.strictEqual((yield* timed(DynamicSupervisor.stop(ref))).millis, 300)
      const ends = yield* Effect.forEach(routines, (routine) => Routine.snapshot(routine))
      assert.deepStrictEqual(ends.map(({ state }) => state), ["interrupted", "abandoned", "failed"])
      yield* deaf.release
      yield* pass(7_200_000)
      assert.deepStrictEqual([restarting.starts, starting.starts, yield* listed], [1, 1, []])
    })
  )

  it.effect(
    "DS102. what fails during a stop is neither restarted nor counted",
    scene(function*() {
      const record = yield* recorder
      const gate = yield* Deferred.make<never, string>()
      const ref = yield* anything({ intensity: 0 })
      let runs = 0
      yield* startChild(ref, Effect.onInterrupt(Effect.never, () => Effect.sleep("1 second")))
      yield* startChild(ref, Effect.onInterrupt(Effect.never, () => Effect.die("in a finalizer")))
      yield* startChild(
        ref,
        Effect.uninterruptible(Effect.andThen(Effect.sync(() => void runs++), Deferred.await(gate)))
      )
      const stopping = yield* fork(DynamicSupervisor.stop(ref))
      yield* settle
      yield* Deferred.fail(gate, "meanwhile")
      yield* pass(1000)
      yield* now(stopping)
      assert.deepStrictEqual(yield* Effect.exit(DynamicSupervisor.await(ref)), Exit.void)
      yield* pass(60_000)
      assert.strictEqual(runs, 1)
      assert.deepStrictEqual(
        record.tags.filter((tag) => tag === "Decided" || tag === "Restarted" || tag === "GaveUp"),
        []
      )
    })
  )

  it.effect(
    "DS103. dynamic supervisors below each other are stopped depth first, and before what stands before them",
    scene(function*(stage) {
      const [before, a, b, after] = yield* stage.cast("before", "a", "b", "after")
      const below = Layer.effectDiscard(Effect.gen(function*() {
        const outer = yield* layers()
        yield* startChild(
          outer,
          Effect.gen(function*() {
            yield* Effect.addFinalizer(() => Effect.sync(() => void stage.log.push("stop inner")))
            const inner = yield* troupe({ shutdown: "infinity" })
            yield* Effect.forEach([a, b], (actor) => startChild(inner, actor))
          })
        )
      }))
      const ref = yield* Supervisor.start(Supervisor.make({
        name: "app",
        strategy: "one_for_one",
        children: [before.child(), Child.layer("below", below), after.child()]
      }))
      stage.take()
      yield* Supervisor.stop(ref)
      const log = stage.take()
      assert.deepStrictEqual([log[0], log.slice(1, 3).toSorted(), log.slice(3)], [
        "stop after",
        ["stop a", "stop b"],
        ["stop inner", "stop before"]
      ])
    })
  )

  it.effect(
    "DS104. whatever ends the owner of the supervisor, its children are stopped before the owner has ended",
    scene(function*(stage) {
      for (const end of ["success", "failure", "defect", "interrupt"] as const) {
        const [a] = yield* stage.cast("a")
        const told = yield* Deferred.make<void, string>()
        const owner = yield* Orchestrator.fork(Effect.gen(function*() {
          yield* startChild(yield* troupe(), a)
          yield* Deferred.await(told)
        }))
        const ended = yield* fork(
          Effect.andThen(Routine.await(owner), Effect.sync(() => void stage.log.push("the owner ended")))
        )
        yield* settle
        stage.take()
        if (end === "success") yield* Deferred.succeed(told, undefined)
        if (end === "failure") yield* Deferred.fail(told, "no")
        if (end === "defect") yield* Deferred.die(told, "broken")
        if (end === "interrupt") yield* Routine.interrupt(owner)
        yield* now(ended)
        assert.deepStrictEqual(stage.take(), ["stop a", "the owner ended"], end)
      }
    })
  )

  it.effect(
    "DS105. two stops at once, and one more, all return; each child is stopped once",
    scene(function*(stage) {
      const a = yield* stage.actor("a", { stop: slow(300) })
      const b = yield* stage.actor("b", { stop: slow(200) })
      const ref = yield* troupe()
      yield* Effect.forEach([a, b], (actor) => startChild(ref, actor))
      stage.take()
      const first = yield* fork(DynamicSupervisor.stop(ref))
      yield* pass(100)
      const second = yield* fork(DynamicSupervisor.stop(ref))
      yield* pass(199)
      assert.deepStrictEqual([first.pollUnsafe(), second.pollUnsafe()], [undefined, undefined])
      yield* pass(1)
      yield* now(first)
      yield* now(second)
      yield* DynamicSupervisor.stop(ref)
      assert.deepStrictEqual(stage.take(), ["stopping a", "stopping b", "stop b", "stop a"])
    })
  )

  it.effect(
    "DS106. a stop, or its own termination, from within a child returns at once, goes on, and ends its caller",
    scene(function*() {
      for (const how of ["stop", "terminate"] as const) {
        const log: Array<string> = []
        const ref = yield* anything()
        const self = yield* Deferred.make<Routine.Routine<unknown, unknown>>()
        const act = how === "stop"
          ? DynamicSupervisor.stop(ref)
          : Effect.flatMap(Deferred.await(self), (routine) => DynamicSupervisor.terminateChild(ref, routine))
        const caller = Effect.andThen(Effect.yieldNow, act).pipe(
          Effect.andThen(Effect.never),
          Effect.onInterrupt(() => Effect.sync(() => void log.push("interrupted")))
        )
        // Even where it could not be interrupted it does not wait for what waits for it.
        const firm = Effect.uninterruptible(
          Effect.andThen(Effect.yieldNow, Effect.andThen(act, Effect.sync(() => void log.push("returned"))))
        )
        const routine = yield* startChild(ref, how === "stop" ? caller : firm)
        yield* Deferred.succeed(self, routine)
        yield* settle
        assert.deepStrictEqual([log, yield* listed], [[how === "stop" ? "interrupted" : "returned"], []], how)
      }
    })
  )

  it.effect(
    "DS107. a deadline for the whole tree is kept, and the report names every child that hangs with its path",
    scene(function*() {
      const ref = yield* anything({ shutdown: "infinity" })
      const [first, second] = [yield* startChild(ref, deaf()), yield* startChild(ref, deaf())]
      yield* startChild(ref, Effect.never)
      const shutdown = yield* fork(Orchestrator.shutdown({ grace: 0, interrupt: "5 seconds" }))
      yield* pass(4999)
      assert.isUndefined(shutdown.pollUnsafe())
      yield* pass(1)
      const report = yield* now(shutdown)
      assert.isFalse(report.clean)
      assert.deepStrictEqual(
        report.stuck.map(({ path }) => path),
        [`/orchestra/workers/${first.name}`, `/orchestra/workers/${second.name}#${second.id}`]
      )
    })
  )

  it.effect(
    "DS108. children that need 200 ms are stopped in 200 ms",
    scene(function*(stage) {
      const ref = yield* troupe()
      for (const id of ["a", "b", "c", "d"]) yield* startChild(ref, yield* stage.actor(id, { stop: slow(200) }))
      assert.strictEqual((yield* timed(DynamicSupervisor.stop(ref))).millis, 200)
    })
  )

  it.effect(
    "DS109. in a parent with a bound of its own nobody is orphaned: who hangs is abandoned, listed and reported",
    scene(function*(stage) {
      for (const how of ["stop", "shutdown"] as const) {
        const [a, b] = yield* stage.cast("a", "b")
        const { app, workers } = yield* around({ shutdown: "infinity" }, {}, { shutdown: "1 second" })
        const [hung] = yield* Effect.forEach([a, b], (actor) => startChild(workers(), actor))
        yield* a.ignoreInterruption()
        stage.take()
        if (how === "stop") {
          assert.strictEqual((yield* timed(Supervisor.stop(app))).millis, 1000)
        } else {
          const { millis, value } = yield* timed(Orchestrator.shutdown())
          assert.deepStrictEqual([millis, value.clean], [1000, false])
          assert.include(value.stuck.map(({ path }) => path), "/orchestra/app/inner/workers/workers")
        }
        assert.deepStrictEqual(stage.take(), ["stop b"])
        const left = (yield* Orchestrator.list).find(({ id }) => id === hung?.id)
        assert.strictEqual(left?.state, "abandoned", how)
        yield* a.release
        yield* settle
        if (how === "stop") assert.deepStrictEqual(yield* listed, [])
      }
    })
  )

  it.effect(
    "DS110. what a child has acquired is released exactly once, in reverse, however it ends",
    scene(function*(stage) {
      const write = (line: string) => Effect.sync(() => void stage.log.push(line))
      const hold = (id: string) => Effect.acquireRelease(write(`open ${id}`), () => write(`close ${id}`))
      const held = Effect.andThen(hold("1"), hold("2"))
      for (const end of ["stop", "terminate", "brutal", "fail", "finish"] as const) {
        for (const kind of ["effect", "layer"] as const) {
          if (kind === "layer" && end === "finish") continue
          const [a] = yield* stage.cast("a")
          const options = {
            name: "workers",
            restart: "temporary",
            shutdown: end === "brutal" ? "brutal_kill" : "1 second"
          } as const
          const ref = yield* kind === "effect"
            ? DynamicSupervisor.start(
              DynamicSupervisor.make({ ...options, child: (actor: Actor) => Effect.andThen(held, actor.effect) })
            )
            : DynamicSupervisor.start(DynamicSupervisor.make({
              ...options,
              child: (actor: Actor) =>
                Layer.effectDiscard(Effect.andThen(held, Orchestrator.forkScoped(actor.effect, { shutdown: 0 })))
            }))
          const routine = yield* startChild(ref, a)
          yield* settle
          if (end === "fail") yield* a.fail()
          if (end === "finish") yield* a.succeed
          if (end === "terminate") yield* DynamicSupervisor.terminateChild(ref, routine)
          if (end === "stop" || end === "brutal") yield* DynamicSupervisor.stop(ref)
          yield* settle
          yield* DynamicSupervisor.stop(ref)
          const lines = stage.take().filter((line) => line.startsWith("open") || line.startsWith("close"))
          assert.deepStrictEqual(lines, ["open 1", "open 2", "close 2", "close 1"], `${kind} ${end}`)
        }
      }
    })
  )
})

describe("what dynamic children say, and what is told of them", () => {
  it.effect(
    "DS153. that it is not to be restarted: it is forgotten, no failure is told, the others are not touched",
    scene(function*(stage) {
      const record = yield* recorder
      const [a] = yield* stage.cast("a")
      for (const restart of ["permanent", "transient", "temporary"] as const) {
        for (const done of [Supervisor.done, Effect.fail(new SupervisorError.Done())]) {
          const ref = yield* anything({ restart, intensity: 0 })
          yield* startChild(ref, Effect.never)
          yield* startChild(ref, Effect.andThen(Effect.yieldNow, done))
          yield* settle
          assert.deepStrictEqual(yield* states(ref), ["running 1"])
          yield* DynamicSupervisor.stop(ref)
        }
      }
      assert.deepStrictEqual(
        record.events.filter((event) => event._tag === "Decided" && event.severity === "error"),
        []
      )
      assert.strictEqual(a.starts, 0)
    })
  )

  it.effect(
    "DS154. that its tree is to end: all children are stopped, it ends normally, and so does what it stands in, unless that does not go on",
    scene(function*(stage) {
      for (const propagateTermination of [true, false]) {
        const [other] = yield* stage.cast("other")
        let ref: Ref | undefined
        const inner = Layer.effectDiscard(Effect.gen(function*() {
          const started = yield* anything({ propagateTermination })
          ref = started
          yield* startChild(started, other.effect)
          yield* startChild(started, Effect.andThen(Effect.sleep(10), Supervisor.terminateTree))
        }))
        const app = yield* Supervisor.start(Supervisor.make({
          name: "app",
          strategy: "one_for_one",
          children: [Child.layer("inner", inner)]
        }))
        yield* pass(10)
        assert.isFalse(other.live)
        assert.deepStrictEqual(yield* Effect.exit(DynamicSupervisor.await(ref ?? assert.fail())), Exit.void)
        const ended = yield* fork(Supervisor.await(app))
        yield* settle
        assert.strictEqual(ended.pollUnsafe() !== undefined, propagateTermination)
      }
    })
  )

  it.effect(
    "DS155. an interruption or a timeout of something else is a failure of the child, not an orderly end",
    scene(function*() {
      const ref = yield* anything({ restart: "transient" })
      let runs = 0
      const once = (first: Effect.Effect<unknown, unknown>) => {
        let run = 0
        return Effect.suspend(() => {
          runs++
          return ++run === 1 ? first : Effect.never
        })
      }
      const joins = Effect.flatMap(Effect.forkChild(Effect.interrupt), Fiber.join)
      yield* startChild(ref, once(joins))
      yield* startChild(ref, once(Effect.timeout(Effect.never, "1 second")))
      yield* pass(1000)
      assert.deepStrictEqual([yield* states(ref), runs, yield* used(ref)], [["running 2", "running 2"], 4, 2])
    })
  )

  it.effect(
    "DS156. a removal waits for the end, at most for the bound; a late end is still told; a stranger's child is not found",
    scene(function*(stage) {
      const record = yield* recorder
      const a = yield* stage.actor("a", { stop: slow(500) })
      const [b, c] = yield* stage.cast("b", "c")
      const ref = yield* troupe({ shutdown: "1 second" })
      const other = yield* troupe()
      const [first, second] = [yield* startChild(ref, a), yield* startChild(ref, b)]
      const { millis, value } = yield* timed(DynamicSupervisor.terminateChild(ref, first))
      assert.deepStrictEqual([millis, value], [500, "stopped"])
      yield* b.ignoreInterruption()
      const hung = yield* timed(DynamicSupervisor.terminateChild(ref, second))
      assert.deepStrictEqual([hung.millis, hung.value], [1000, "abandoned"])
      yield* b.release
      yield* settle
      assert.strictEqual(record.tags.filter((tag) => tag === "EndedLate").length, 1)
      const stranger = yield* startChild(other, c)
      for (const routine of [first, second, stranger]) {
        assert.strictEqual((yield* Effect.flip(DynamicSupervisor.terminateChild(ref, routine)))._tag, "ChildNotFound")
      }
      assert.isTrue(c.live)
    })
  )

  it.effect(
    "DS159. a specification that runs can be started again, and one that was stopped: each is a supervisor of its own",
    scene(function*(stage) {
      const [a, b] = yield* stage.cast("a", "b")
      const spec = DynamicSupervisor.make({ name: "workers", child: (actor: Actor) => actor.effect })
      const one = yield* DynamicSupervisor.start(spec)
      const two = yield* DynamicSupervisor.start(spec)
      yield* startChild(one, a)
      yield* startChild(two, b)
      yield* DynamicSupervisor.stop(one)
      assert.deepStrictEqual([a.live, b.live], [false, true])
      const again = yield* DynamicSupervisor.start(spec)
      assert.deepStrictEqual([yield* states(again), yield* states(two)], [[], ["running 1"]])
    })
  )

  it.effect(
    "DS160. a hundred dynamic supervisors in each other, started and stopped at once, neither block nor leave anything",
    scene(function*() {
      let leaves = 0
      const nest = (depth: number): Effect.Effect<void, unknown, Orchestrator> =>
        Effect.scoped(Effect.gen(function*() {
          const ref = yield* DynamicSupervisor.start(DynamicSupervisor.make({
            name: `level ${depth}`,
            shutdown: "infinity",
            child: (n: number) => n === 0 ? Effect.andThen(Effect.sync(() => void leaves++), Effect.never) : nest(n)
          }))
          yield* startChild(ref, depth - 1)
          return yield* Effect.never
        }))
      const root = yield* Orchestrator.fork(nest(100))
      for (let turn = 0; leaves === 0 && turn < 1000; turn++) yield* Effect.yieldNow
      assert.strictEqual(leaves, 1)
      assert.strictEqual((yield* Orchestrator.list).length, 101)
      assert.strictEqual(yield* Routine.stop(root), "stopped")
      assert.deepStrictEqual(yield* listed, [])
    })
  )

  it.effect(
    "DS161. every transition of a child is told once, with its path, its id and the number of its run",
    scene(function*(stage) {
      const record = yield* recorder
      const [a] = yield* stage.cast("a")
      const ref = yield* troupe({ backoff: Schedule.spaced("1 second") })
      const routine = yield* startChild(ref, a)
      yield* a.fail()
      yield* pass(1000)
      yield* DynamicSupervisor.terminateChild(ref, routine)
      const own = record.of("/orchestra/workers/workers")
      assert.deepStrictEqual(own.map(({ _tag, incarnation }) => `${_tag} ${incarnation}`), [
        "Forked 0",
        "Ready 1",
        "Exited 1",
        "BackoffStarted 1",
        "Restarted 2",
        "Ready 2",
        "StopRequested 2",
        "Exited 2",
        "Stopped 2"
      ])
      assert.deepStrictEqual([...new Set(own.map(({ id }) => id))], [routine.id])
    })
  )

  it.effect(
    "DS162. a permanent child's normal end is told as an error, a transient's is not; at the end: exit, limit, the others, supervisor",
    scene(function*(stage) {
      const record = yield* recorder
      for (const [restart, severity] of [["permanent", "error"], ["transient", "info"]] as const) {
        const seen = record.events.length
        const ref = yield* anything({ restart })
        let runs = 0
        yield* startChild(ref, Effect.suspend(() => ++runs === 1 ? Effect.yieldNow : Effect.never))
        yield* settle
        const told = record.events.slice(seen).flatMap((event) => event._tag === "Decided" ? [event.severity] : [])
        assert.deepStrictEqual(told, [severity])
        yield* DynamicSupervisor.stop(ref)
      }
      const seen = record.events.length
      const [a, b] = yield* stage.cast("a", "b")
      const ref = yield* troupe({ intensity: 0 })
      const [first, second] = yield* Effect.forEach([a, b], (actor) => startChild(ref, actor))
      yield* a.fail()
      yield* gaveUp(ref)
      const names: Record<string, string> = { [first?.id ?? ""]: "a", [second?.id ?? ""]: "b", [ref.id]: "supervisor" }
      assert.deepStrictEqual(
        record.events.slice(seen).flatMap(({ _tag, id }) =>
          _tag === "Exited" || _tag === "GaveUp" ? [`${_tag} ${names[id]}`] : []
        ),
        ["Exited a", "GaveUp supervisor", "Exited b"]
      )
    })
  )
})
