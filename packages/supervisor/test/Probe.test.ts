import { Orchestrator, Routine } from "@effect-orchestra/core"
import type { Event } from "@effect-orchestra/core"
import type { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import { TestOrchestra } from "@effect-orchestra/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Duration, Effect, Exit, Fiber, Random } from "effect"
import { TestClock } from "effect/testing"
import type * as Probe from "../src/internal/Probe.ts"
import type * as SupervisorError from "../src/SupervisorError.ts"
import * as Model from "./model/Probe.ts"

// Whoever starts a child calls these; nobody else is to import them, but for their tests.
const { probeOf, watch } = (await import(new URL("../src/internal/Probe.ts", import.meta.url).href)) as typeof Probe

const settle = Effect.gen(function*() {
  for (let i = 0; i < 10; i++) yield* Effect.yieldNow
})

/** Forks a routine that is probed from now on. */
const probed = Effect.fnUntraced(function*<R = never>(
  options: Probe.ProbeOptions<R>,
  body: Effect.Effect<unknown> = Effect.never,
  routineOptions?: Routine.RoutineOptions
) {
  const routine = yield* Orchestrator.fork(body, { name: "child", ...routineOptions })
  const probe = probeOf("child", options)
  assert.isDefined(probe)
  watch(routine as unknown as RoutineRecord, probe, (yield* Effect.context<R>()) as Context.Context<never>)
  return routine
})

const failure = (exit: Exit.Exit<unknown, unknown>): SupervisorError.ProbeFailed => {
  assert.isTrue(Exit.isFailure(exit))
  const error = (exit as Exit.Failure<unknown, unknown>).cause.reasons.find(Cause.isDieReason)?.defect
  assert.propertyVal(error, "_tag", "ProbeFailed")
  return error as SupervisorError.ProbeFailed
}

const state = (routine: Routine.Routine<unknown, unknown>) =>
  Effect.map(Routine.snapshot(routine), ({ state }) => state)

describe("a probe", () => {
  it.effect("runs every 10 seconds, the first after 10, and a run that answers goes on", () =>
    Effect.gen(function*() {
      let probes = 0
      const routine = yield* probed({ probe: Effect.sync(() => ++probes) })
      yield* TestClock.adjust("9999 millis")
      assert.strictEqual(probes, 0)
      yield* TestClock.adjust("1 millis")
      assert.strictEqual(probes, 1)
      yield* TestClock.adjust("90 seconds")
      assert.strictEqual(probes, 10)
      assert.strictEqual(yield* state(routine), "running")
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("that fails three times in a row ends the run as failed, with the defect ProbeFailed", () =>
    Effect.gen(function*() {
      const log: Array<unknown> = []
      const body = Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("finalized")))
      const routine = yield* probed({ probe: Effect.fail("no answer to ping") }, body)
      yield* TestClock.adjust("29999 millis")
      assert.strictEqual(yield* state(routine), "running")
      yield* TestClock.adjust("1 millis")
      const error = failure(yield* Routine.await(routine))
      assert.strictEqual(error.path, "/orchestra/child")
      assert.strictEqual(error.failures, 3)
      assert.deepStrictEqual(error.cause, Cause.fail("no answer to ping"))
      assert.strictEqual(error.message, "/orchestra/child failed 3 probes in a row: no answer to ping")
      assert.deepStrictEqual(log, ["finalized"])
      const { lastExit, state: final } = yield* Routine.snapshot(routine)
      assert.deepStrictEqual([final, lastExit?.reason, lastExit?.errorType], ["defect", "defect", "ProbeFailed"])
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("that succeeds in between starts the count anew; a defect or an interruption counts like a failure", () =>
    Effect.gen(function*() {
      const answers = [Effect.fail("1"), Effect.die("2"), Effect.succeed(false), Effect.interrupt, Effect.fail("5")]
      let probes = 0
      const probe = Effect.suspend((): Effect.Effect<unknown, string> => answers[probes++] ?? Effect.die("6"))
      const routine = yield* probed({ probe, every: "1 second" })
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* state(routine), "running")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(failure(yield* Routine.await(routine)).cause, Cause.die("6"))
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("that takes longer than its timeout is interrupted and has failed", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const probe = Effect.onInterrupt(Effect.sleep("2 seconds"), () => Effect.sync(() => log.push("interrupted")))
      const routine = yield* probed({ probe, failures: 2 })
      yield* TestClock.adjust("10999 millis")
      assert.deepStrictEqual(log, [])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(log, ["interrupted"])
      // Since it was asked, and not since it gave no answer.
      yield* TestClock.adjust("9999 millis")
      assert.strictEqual(yield* state(routine), "running")
      yield* TestClock.adjust("1 millis")
      const { cause } = failure(yield* Routine.await(routine))
      const error = Cause.squash(cause)
      assert.isTrue(Cause.isTimeoutError(error))
      assert.include(String(error), "no answer within 1000 ms")
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("that ignores its interruption holds up nothing: it is not asked again, and each time counts as a failure", () =>
    Effect.gen(function*() {
      let probes = 0
      const probe = Effect.suspend(() => {
        probes++
        return Effect.uninterruptible(Effect.never)
      })
      const routine = yield* probed({ probe, every: "3 seconds" })
      yield* TestClock.adjust("8999 millis")
      assert.strictEqual(yield* state(routine), "running")
      yield* TestClock.adjust("1 millis")
      failure(yield* Routine.await(routine))
      assert.strictEqual(probes, 1)
      assert.deepStrictEqual(yield* Orchestrator.list, [])
      assert.isTrue((yield* Orchestrator.shutdown()).clean)
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("ends with its run: none is asked after it, and one under way is interrupted", () =>
    Effect.gen(function*() {
      let probes = 0
      let interrupted = 0
      const probe = Effect.suspend(() => {
        probes++
        return Effect.onInterrupt(Effect.never, () => Effect.sync(() => interrupted++))
      })
      const routine = yield* probed({ probe })
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual([probes, interrupted], [1, 0])
      yield* Routine.stop(routine)
      yield* settle
      assert.deepStrictEqual([probes, interrupted], [1, 1])
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(probes, 1)
      assert.strictEqual(yield* state(routine), "interrupted")
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("is not asked of a run that is draining, or closing what it holds, and fails neither", () =>
    Effect.gen(function*() {
      let probes = 0
      const probe = Effect.suspend(() => {
        probes++
        return Effect.fail("half closed")
      })
      const options = { probe, every: "1 second", failures: 1 } as const
      const draining = yield* probed(options, Effect.never, { drain: Effect.sleep("3 seconds") })
      const held = Effect.acquireRelease(Effect.void, () => Effect.sleep("3 seconds"))
      const closing = yield* probed(options, Effect.asVoid(held) as Effect.Effect<void>)
      const stopping = yield* Effect.forkChild(Routine.stop(draining), { startImmediately: true })
      // The first sleep within a finalizer is cut.
      yield* TestClock.adjust(0)
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual(yield* Fiber.join(stopping), "stopped")
      assert.strictEqual(probes, 0)
      assert.deepStrictEqual([yield* state(draining), yield* state(closing)], ["interrupted", "succeeded"])
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("that fails a run which ignores its interruption leaves it to its bound", () =>
    Effect.gen(function*() {
      const body = Effect.uninterruptible(Effect.sleep("1 hour"))
      const options = { probe: Effect.fail("no"), every: "1 second", failures: 1 } as const
      const routine = yield* probed(options, body, { shutdown: "2 seconds" })
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* state(routine), "stopping")
      yield* TestClock.adjust("2 seconds")
      assert.strictEqual(yield* state(routine), "abandoned")
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(yield* Orchestrator.list, [])
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("sees the services it is given, in a scope of its own, and belongs to no routine", () =>
    Effect.gen(function*() {
      class Pool extends Context.Service<Pool, string>()("test/Pool") {}
      const log: Array<string> = []
      const probe = Effect.gen(function*() {
        yield* Effect.addFinalizer(() => Effect.sync(() => log.push("closed")))
        log.push(yield* Pool, (yield* Routine.current)._tag)
        yield* Routine.beat
      })
      const routine = yield* probed({ probe, every: "1 second" }).pipe(Effect.provideService(Pool, "pool"))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(log, ["pool", "None", "closed"])
      // To be asked is no sign of life.
      assert.isNull((yield* Routine.snapshot(routine)).lastBeat)
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("tells who ended the run, and why", () =>
    Effect.gen(function*() {
      const events: Array<Event.OrchestratorEvent> = []
      yield* Orchestrator.instrument((event) => void events.push(event))
      const routine = yield* probed({ probe: Effect.fail("no"), every: "1 second", failures: 1 })
      yield* TestClock.adjust("1 second")
      yield* Routine.await(routine)
      const exited = events.find((event) => event._tag === "Exited")
      assert.deepStrictEqual(exited?.exit.cancelledBy, { reason: "probe_failed", requester: "/orchestra/child" })
      assert.strictEqual(exited?.exit.reason, "defect")
    }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))

  it("with wrong constants is a defect that says what it got", () => {
    const probe = Effect.void
    const wrong: ReadonlyArray<readonly [Probe.ProbeOptions<unknown>, string]> = [
      [{ probe, every: 0 }, "child \"a\": every is more than 0, got: 0"],
      [{ probe, timeout: "-1 millis" }, "child \"a\": timeout is a duration of 0 or more, got: -1 millis"],
      [{ probe, failures: 0 }, "child \"a\": failures is a positive integer, got: 0"],
      [{ probe, timeout: "11 seconds" }, "child \"a\": timeout is at most every (10000 ms), got: 11 seconds"],
      [{ every: "1 second" }, "child \"a\": every belongs to a probe, got: no probe"]
    ]
    for (const [options, message] of wrong) assert.throws(() => probeOf("child \"a\"", options), message)
    assert.isUndefined(probeOf("child \"a\"", {}))
  })

  const seeds = Number(process.env["SEEDS"] ?? 200)

  it.effect(
    "gives a run up when the model does, after as many probes",
    () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < seeds; seed++) {
          const program = Effect.gen(function*() {
            const every = 4 * (yield* Random.nextIntBetween(1, 10))
            const options: Model.Options = {
              every,
              timeout: 4 * (yield* Random.nextIntBetween(0, every / 4 - 1)) + 2,
              failures: yield* Random.nextIntBetween(1, 4)
            }
            const answers: Array<Model.Answer> = []
            for (let i = 0; i < 12; i++) {
              // No two things at one moment, in an order that nobody has promised.
              const after = 4 * (yield* Random.nextIntBetween(0, 12))
              const kind = yield* Random.nextIntBetween(0, 6)
              answers.push(
                kind < 2
                  ? { _tag: "yes", after }
                  : kind < 4
                  ? { _tag: "no", after }
                  : kind < 5
                  ? { _tag: "hangs" }
                  : { _tag: "ignores", until: after + 41 }
              )
            }
            const expected = Model.givesUp(options, answers)
            let started = 0
            const probe = Effect.suspend((): Effect.Effect<void, string> => {
              const answer = answers[started++]
              switch (answer?._tag) {
                case undefined:
                case "hangs":
                  return Effect.never
                case "yes":
                  return Effect.sleep(Duration.millis(answer.after))
                case "no":
                  return Effect.andThen(Effect.sleep(Duration.millis(answer.after)), Effect.fail("no"))
                case "ignores":
                  return Effect.uninterruptible(Effect.sleep(Duration.millis(answer.until)))
              }
            })
            const routine = yield* probed({ probe, ...options })
            if (expected === undefined) return yield* Effect.asVoid(Routine.stop(routine))
            yield* Effect.sleep(Duration.millis(expected.at - 1))
            assert.strictEqual(yield* state(routine), "running")
            yield* Effect.sleep(Duration.millis(1))
            assert.strictEqual(failure(yield* Routine.await(routine)).failures, options.failures)
            assert.strictEqual(started, expected.started)
          })
          const exit = yield* Effect.exit(TestOrchestra.run(program, { seed }))
          if (Exit.isFailure(exit)) assert.fail(`seed ${seed}: ${Cause.pretty(exit.cause)}`)
        }
      }),
    120_000
  )
})
