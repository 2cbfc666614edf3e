import { Group, Orchestrator } from "@effect-orchestra/core"
import { assertNoLeaks, TestOrchestra } from "@effect-orchestra/core/testing"
import { Saga, SagaEvent } from "@effect-orchestra/workflow"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Option, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"

/** Steps that say what they do. */
const stage = () => {
  const log: Array<string> = []
  const say = (line: string) => Effect.sync(() => void log.push(line))
  const undo = (name: string) => (result: unknown) =>
    say(`undo ${name} of ${Option.isOption(result) ? Option.getOrElse(result, () => "nobody knows") : String(result)}`)
  const works = (name: string, options: object = {}) =>
    Saga.step(name, { run: Effect.as(say(`do ${name}`), `${name}!`), compensate: undo(name), ...options })
  const fails = (name: string, options: object = {}) =>
    Saga.step(name, {
      run: Effect.andThen(say(`do ${name}`), Effect.fail(`no ${name}`)),
      compensate: undo(name),
      ...options
    })
  const steps = (...steps: ReadonlyArray<Effect.Effect<unknown, unknown, Saga.Journal>>) =>
    Effect.all(steps, { discard: true })
  return { log, say, undo, works, fails, steps }
}

const never = (name: string, options: object = {}) =>
  Saga.step(name, { run: Effect.never, compensate: Saga.irreversible, ...options })

/** Runs, and moves the time meanwhile. */
const within = <A, E, R>(effect: Effect.Effect<A, E, R>, ...pauses: ReadonlyArray<number | string>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(effect, { startImmediately: true })
    for (const pause of pauses) yield* TestClock.adjust(pause as never)
    return yield* Fiber.join(fiber)
  })

const names = (cause: Cause.Cause<unknown>) =>
  cause.reasons.map((reason) =>
    Cause.isFailReason(reason)
      ? (reason.error as { readonly _tag?: string })._tag ?? reason.error
      : Cause.isDieReason(reason)
      ? String(reason.defect)
      : "interrupted"
  )

describe("Saga", () => {
  it.effect("1. three steps succeed, and no undo runs", () =>
    Effect.gen(function*() {
      const { log, works } = stage()
      const outcome = yield* Saga.outcome(Effect.all([works("a"), works("b"), works("c")]))
      assert.deepStrictEqual(outcome, { _tag: "Completed", value: ["a!", "b!", "c!"] })
      assert.deepStrictEqual(log, ["do a", "do b", "do c"])
    }))

  it.effect("2. the third step fails: the second is undone, then the first, and the third is not", () =>
    Effect.gen(function*() {
      const { fails, log, steps, works } = stage()
      const outcome = yield* Saga.outcome(steps(works("a"), works("b"), fails("c")))
      assert.deepStrictEqual(outcome, { _tag: "Compensated", cause: Cause.fail("no c"), undone: ["b", "a"] })
      assert.deepStrictEqual(log, ["do a", "do b", "do c", "undo b of b!", "undo a of a!"])
    }))

  it.effect("3. a step that is registered before it fails is undone too, not knowing what it did", () =>
    Effect.gen(function*() {
      const { fails, log, steps, works } = stage()
      const before = { register: "before" }
      const outcome = yield* Saga.outcome(steps(works("a"), works("b", before), fails("c", before)))
      assert.deepStrictEqual(outcome, { _tag: "Compensated", cause: Cause.fail("no c"), undone: ["c", "b", "a"] })
      assert.deepStrictEqual(log.slice(3), ["undo c of nobody knows", "undo b of b!", "undo a of a!"])
    }))

  it.effect("4. a step times out: what it then does is no success, and it is undone where that is known", () =>
    Effect.gen(function*() {
      const { log, steps, undo, works } = stage()
      const late = (name: string, run: Effect.Effect<string>, options: object = {}) =>
        Saga.step(name, { run, timeout: "1 second", compensate: undo(name), ...options })
      const sleepy = Effect.as(Effect.sleep("3 seconds"), "late!")
      const before = { register: "before" }
      const all = [
        late("cut", sleepy),
        late("unknown", sleepy, before),
        late("done", Effect.uninterruptible(sleepy)),
        late("known", Effect.uninterruptible(sleepy), before)
      ]
      for (const step of all) {
        const outcome = yield* within(Saga.outcome(steps(works("a"), step, works("b"))), "1 second", "2 seconds")
        assert.isTrue(outcome._tag === "Compensated")
        if (outcome._tag === "Compensated") assert.deepStrictEqual(names(outcome.cause), ["StepTimedOut"])
      }
      const undone = log.filter((line) => line !== "do a" && line !== "undo a of a!")
      assert.deepStrictEqual(undone, ["undo unknown of nobody knows", "undo done of late!", "undo known of late!"])
    }))

  it.effect("5. an undo that fails twice and then works is tried three times", () =>
    Effect.gen(function*() {
      const { fails, log, say, steps, works } = stage()
      let tries = 0
      const flaky = works("b", {
        compensate: () =>
          Effect.andThen(say(`try ${++tries}`), Effect.suspend(() => tries < 3 ? Effect.fail("not yet") : Effect.void))
      })
      const outcome = yield* within(Saga.outcome(steps(works("a"), flaky, fails("c"))), "500 millis", "1 second")
      assert.deepStrictEqual(outcome, { _tag: "Compensated", cause: Cause.fail("no c"), undone: ["b", "a"] })
      assert.deepStrictEqual(log.slice(3), ["try 1", "try 2", "try 3", "undo a of a!"])
    }))

  it.effect("6. an undo that never works leaves the saga stuck there: the others run, and the failure stays what it was", () =>
    Effect.gen(function*() {
      const { fails, log, say, steps, works } = stage()
      const stuck = works("b", { compensate: () => Effect.andThen(say("try"), Effect.fail("cannot")) })
      const outcome = yield* within(Saga.outcome(steps(works("a"), stuck, fails("c"))), 500, 1000, 2000, 4000)
      assert.deepStrictEqual(outcome, {
        _tag: "Stuck",
        cause: Cause.fail("no c"),
        undone: ["a"],
        stuck: [{ step: "b", cause: Cause.fail("cannot") }],
        notRun: []
      })
      assert.deepStrictEqual(log.slice(3), ["try", "try", "try", "try", "try", "undo a of a!"])
    }))

  it.effect("7. with halt no undo runs after one that is stuck, and those are listed", () =>
    Effect.gen(function*() {
      const { fails, log, steps, works } = stage()
      const stuck = works("c", { compensate: () => Effect.fail("cannot") })
      const body = steps(works("a"), works("b"), stuck, works("d"), fails("e"))
      const outcome = yield* Saga.outcome(body, { onStuck: "halt", compensationRetry: Schedule.recurs(0) })
      assert.deepStrictEqual(outcome, {
        _tag: "Stuck",
        cause: Cause.fail("no e"),
        undone: ["d"],
        stuck: [{ step: "c", cause: Cause.fail("cannot") }],
        notRun: ["b", "a"]
      })
      assert.deepStrictEqual(log.slice(5), ["undo d of d!"])
    }))

  it.effect("8. an undo that throws, dies or interrupts itself is one that failed", () =>
    Effect.gen(function*() {
      const { fails, log, say, steps, works } = stage()
      const undos = [
        () => {
          throw new Error("thrown")
        },
        () => Effect.die("died"),
        () => Effect.interrupt
      ]
      const body = steps(
        works("z"),
        ...undos.map((undo, n) => {
          const name = `${"abc".at(n)}`
          return works(name, { compensate: () => Effect.andThen(say(`try ${name}`), Effect.suspend(undo)) })
        }),
        fails("x")
      )
      const outcome = yield* Saga.outcome(body, { compensationRetry: Schedule.recurs(1) })
      assert.isTrue(outcome._tag === "Stuck")
      if (outcome._tag !== "Stuck") return
      assert.deepStrictEqual([outcome.cause, outcome.undone], [Cause.fail("no x"), ["z"]])
      assert.deepStrictEqual(outcome.stuck.map(({ cause, step }) => [step, ...names(cause)]), [
        ["c", "interrupted"],
        ["b", "died"],
        ["a", "Error: thrown"]
      ])
      assert.deepStrictEqual(log.slice(5), ["try c", "try c", "try b", "try b", "try a", "try a", "undo z of z!"])
    }))

  it.effect("9. in parallel three undos of 100 ms take 100 ms together, and each has its result", () =>
    Effect.gen(function*() {
      const { fails, steps, works } = stage()
      const slow = (name: string, then: Effect.Effect<unknown, unknown>) =>
        works(name, { compensate: () => Effect.andThen(Effect.sleep(100), then) })
      const body = steps(slow("a", Effect.void), slow("b", Effect.fail("cannot")), slow("c", Effect.void), fails("d"))
      const options = { order: "parallel", onStuck: "halt", compensationRetry: Schedule.recurs(0) } as const
      const outcome = yield* within(Saga.outcome(body, options), 100)
      assert.deepStrictEqual(outcome, {
        _tag: "Stuck",
        cause: Cause.fail("no d"),
        undone: ["c", "a"],
        stuck: [{ step: "b", cause: Cause.fail("cannot") }],
        notRun: []
      })
    }))

  it.effect("10. after a pivot nothing is undone: the saga is committed", () =>
    Effect.gen(function*() {
      const { fails, log, steps, works } = stage()
      const body = steps(works("a"), works("b", { pivot: true }), works("c"), fails("d", { register: "before" }))
      const outcome = yield* Saga.outcome(body)
      assert.deepStrictEqual(outcome, { _tag: "Committed", cause: Cause.fail("no d"), pivot: "b" })
      assert.deepStrictEqual(log, ["do a", "do b", "do c", "do d"])
    }))

  it.effect("11. cancelled while a step runs: what was done is undone before that is told, and a second cancel does not cut it short", () =>
    Effect.gen(function*() {
      const { log, say, steps, works } = stage()
      const slow = works("a", { compensate: () => Effect.andThen(Effect.sleep("10 seconds"), say("undone a")) })
      const told: Array<unknown> = []
      const body = steps(slow, never("b"))
      const saga = yield* Effect.forkChild(
        Saga.outcome(body, { onOutcome: (outcome) => Effect.sync(() => told.push(outcome)) }),
        { startImmediately: true }
      )
      saga.interruptUnsafe(1)
      yield* TestClock.adjust("5 seconds")
      saga.interruptUnsafe(2)
      yield* TestClock.adjust("4 seconds")
      assert.deepStrictEqual([saga.pollUnsafe(), log], [undefined, ["do a"]])
      yield* TestClock.adjust("1 second")
      const exit = yield* Fiber.await(saga)
      assert.deepStrictEqual(log, ["do a", "undone a"])
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      assert.deepStrictEqual(told, [{ _tag: "Compensated", cause: Cause.interrupt(1), undone: ["a"] }])
    }))

  it.effect("12. a step that was tried three times is undone once", () =>
    Effect.gen(function*() {
      const { fails, log, say, steps, works } = stage()
      for (const register of ["after", "before"]) {
        let tries = 0
        const run = Effect.andThen(
          say("do a"),
          Effect.suspend(() => ++tries < 3 ? Effect.fail("no") : Effect.succeed(tries))
        )
        const body = steps(works("a", { run, register, retry: Schedule.recurs(5) }), fails("b"))
        assert.deepStrictEqual((yield* Saga.outcome(body))._tag, "Compensated")
      }
      const once = ["do a", "do a", "do a", "do b", "undo a of 3"]
      assert.deepStrictEqual(log, [...once, ...once])
    }))

  it.effect("13. a nested saga that was complete is undone at its place, the newest first", () =>
    Effect.gen(function*() {
      const { fails, log, steps, works } = stage()
      const child = Saga.run(steps(works("a"), works("b"), works("c")), { name: "child" })
      const body = steps(works("a"), child, works("z"), fails("y"))
      const outcome = yield* Saga.outcome(body)
      assert.deepStrictEqual(outcome, {
        _tag: "Compensated",
        cause: Cause.fail("no y"),
        undone: ["z", "child/c", "child/b", "child/a", "a"]
      })
      assert.deepStrictEqual(log.slice(-5).map((line) => line.slice(0, 6)), [
        "undo z",
        "undo c",
        "undo b",
        "undo a",
        "undo a"
      ])
    }))

  it.effect("14. a step that does not say how it is undone is rejected before anything of it runs", () =>
    Effect.gen(function*() {
      const { log, say } = stage()
      for (const compensate of [undefined, null, "undo"]) {
        const options = { run: say("do a"), compensate }
        assert.throws(
          () => Saga.step("a", options as never),
          `the compensation of step "a" is a function or Saga.irreversible, got: ${String(compensate)}`
        )
      }
      const body = Effect.suspend(() => Saga.step<void, never, never>("a", { run: say("do a") } as never))
      const outcome = yield* Saga.outcome(body)
      assert.deepStrictEqual([outcome._tag, log], ["Compensated", []])
    }))

  it.effect("15. of steps in parallel one fails: the others are stopped, and undone if they had finished or as they are registered", () =>
    Effect.gen(function*() {
      const { log, undo } = stage()
      const pausing = (name: string, millis: number, options: object = {}) =>
        Saga.step(name, { run: Effect.as(Effect.sleep(millis), `${name}!`), compensate: undo(name), ...options })
      const failing = Saga.step("x", {
        run: Effect.andThen(Effect.sleep(20), Effect.fail("no x")),
        compensate: Saga.irreversible
      })
      const steps = [
        pausing("quick", 10),
        failing,
        pausing("after", 30),
        pausing("before", 30, { register: "before" }),
        pausing("deaf", 40, { run: Effect.uninterruptible(Effect.as(Effect.sleep(40), "deaf!")) })
      ]
      const bodies = [
        Effect.all(steps, { concurrency: "unbounded" }),
        Group.run((group) => Effect.forEach(steps, (step) => Group.fork(group, step), { discard: true }))
      ]
      for (const body of bodies) {
        log.length = 0
        const outcome = yield* within(Saga.outcome(body), 10, 10, 20)
        const undone = ["deaf", "quick", "before"]
        assert.deepStrictEqual(outcome, {
          _tag: "Compensated",
          cause: outcome._tag === "Compensated" ? outcome.cause : undefined as never,
          undone
        })
        if (outcome._tag === "Compensated") {
          assert.deepStrictEqual(Cause.findErrorOption(outcome.cause), Option.some("no x"))
        }
        assert.deepStrictEqual(log, ["undo deaf of deaf!", "undo quick of quick!", "undo before of nobody knows"])
      }
    }))

  it.effect("16. steps and undos tell when they start and end: of which saga, which attempt, how long and how it ended", () =>
    Effect.gen(function*() {
      const { steps, works } = stage()
      const events: Array<SagaEvent.SagaEvent> = []
      const isOfSaga = Schema.is(SagaEvent.SagaEvent)
      yield* Orchestrator.instrument((event) => {
        if (isOfSaga(event)) events.push(event)
      })
      let undos = 0
      const body = steps(
        works("a", { compensate: () => ++undos === 1 ? Effect.fail("not yet") : Effect.void }),
        works("b", { run: Effect.never, timeout: 20, retry: Schedule.recurs(1) })
      )
      yield* within(Saga.outcome(body, { name: "trip", compensationRetry: Schedule.spaced(5) }), 20, 20, 5)
      const told = events.map(({ _tag, at: _at, id, incarnation: _, name, path, seq: __, ...rest }) => {
        assert.deepStrictEqual([id, name, path], ["s-1", "trip", "/orchestra/trip"])
        return [_tag, ...Object.values(rest)].join(" ")
      })
      assert.deepStrictEqual(told, [
        "SagaStarted debug",
        "SagaStepStarted debug a forward 1",
        "SagaStepEnded debug a forward 1 0 success ",
        "SagaStepStarted debug b forward 1",
        "SagaStepEnded warning b forward 1 20 timed_out StepTimedOut",
        "SagaStepStarted debug b forward 2",
        "SagaStepEnded warning b forward 2 20 timed_out StepTimedOut",
        "SagaStepStarted debug a compensate 1",
        "SagaStepEnded warning a compensate 1 0 failure _OTHER",
        "SagaStepStarted debug a compensate 2",
        "SagaStepEnded debug a compensate 2 0 success ",
        "SagaEnded compensated warning 45  a  "
      ])
      yield* assertNoLeaks()
    }).pipe(Effect.provide(TestOrchestra.layer)))
})
