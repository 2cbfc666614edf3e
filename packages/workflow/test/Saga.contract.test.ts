import { Group, Orchestrator, Routine, Snapshot } from "@effect-orchestra/core"
import { observe, type SagaEnd, type StepEnd } from "@effect-orchestra/core/Observer"
import { assertNoLeaks, TestOrchestra } from "@effect-orchestra/core/testing"
import { Saga, SagaEvent, type WorkflowError } from "@effect-orchestra/workflow"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Option, Schedule, Schema, Tracer } from "effect"
import { TestClock } from "effect/testing"

const once = Schedule.recurs(0)

const works = (name: string, compensate: Effect.Effect<unknown, unknown> = Effect.void, options: object = {}) =>
  Saga.step(name, { run: Effect.succeed(name), compensate: () => compensate, ...options })

const fails = Saga.step("failing", { run: Effect.fail("no"), compensate: Saga.irreversible })

const hangs = (name: string) => Saga.step(name, { run: Effect.never, compensate: Saga.irreversible })

const deaf = Effect.uninterruptible(Effect.sleep("2 minutes"))

/** Runs in the background, from now on, and nobody waits for its end. */
const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkDetach(effect, { startImmediately: true })

const nodes = Effect.map(Orchestrator.snapshot, (nodes) => nodes.slice(1).map(({ path, state }) => `${path} ${state}`))

const saga = Effect.map(
  Orchestrator.snapshot,
  (nodes) => nodes.find((node): node is Snapshot.SagaSnapshot => node.kind === "saga")
)

describe("Saga", () => {
  describe("in the tree", () => {
    it.effect("stands below the routine that runs it, a nested one below its parent, and leaves when it ends", () =>
      Effect.gen(function*() {
        const child = Saga.run(hangs("b"), { name: "child" })
        const routine = yield* Orchestrator.fork(Saga.run(Effect.andThen(works("a"), child), { name: "trip" }), {
          name: "booking"
        })
        assert.deepStrictEqual(yield* nodes, [
          "/orchestra/booking running",
          "/orchestra/booking/trip running",
          "/orchestra/booking/trip/child running"
        ])
        yield* Routine.stop(routine)
        yield* assertNoLeaks()
      }).pipe(Effect.provide(TestOrchestra.layer)))

    it.effect("shows its steps and its direction, and how it fares", () =>
      Effect.gen(function*() {
        const child = Saga.run(
          Effect.andThen(
            works("b", Effect.sleep(10)),
            works("p", Effect.andThen(Effect.sleep(5), Effect.fail("cannot")))
          ),
          {
            name: "child",
            compensationRetry: once
          }
        )
        const body = Effect.all([works("a", Effect.sleep(10)), child, Effect.sleep(5), fails], { discard: true })
        const running = yield* fork(Saga.outcome(body, { name: "trip", compensationRetry: once }))
        const look = Effect.map(saga, (node) => {
          if (node === undefined) return undefined
          const encoded = Schema.encodeUnknownSync(Snapshot.NodeSnapshot)(node)
          assert.deepStrictEqual(Schema.decodeUnknownSync(Snapshot.NodeSnapshot)(encoded), node)
          const { direction, health, state, steps } = node
          return [direction, state, health, ...steps.map(({ attempt, name, state }) => `${name} ${state} ${attempt}`)]
        })
        assert.deepStrictEqual(yield* look, [
          "forward",
          "running",
          "ok",
          "a done 1",
          "child/b done 1",
          "child/p done 1"
        ])
        yield* TestClock.adjust(5)
        const behind = (...states: ReadonlyArray<string>) => [
          "compensate",
          "stopping",
          ...states,
          "failing failed 1"
        ]
        assert.deepStrictEqual(
          yield* look,
          behind("degraded", "a done 1", "child/b done 1", "child/p undoing 1")
        )
        yield* TestClock.adjust(5)
        assert.deepStrictEqual(yield* look, behind("stuck", "a done 1", "child/b undoing 1", "child/p stuck 1"))
        yield* TestClock.adjust(10)
        assert.deepStrictEqual(yield* look, behind("stuck", "a undoing 1", "child/b undone 1", "child/p stuck 1"))
        yield* TestClock.adjust(10)
        yield* Fiber.join(running)
        assert.deepStrictEqual(yield* look, undefined)
      }).pipe(Effect.provide(TestOrchestra.layer)))

    it.effect("is stopped by a shutdown, and named where it takes too long", () =>
      Effect.gen(function*() {
        const told: Array<string> = []
        const options = { onOutcome: ({ _tag }: { readonly _tag: string }) => Effect.sync(() => told.push(_tag)) }
        const quick = yield* fork(Saga.outcome(Effect.andThen(works("a"), hangs("b")), { ...options, name: "quick" }))
        yield* fork(Saga.outcome(Effect.andThen(works("a", deaf), hangs("b")), { ...options, name: "slow" }))
        const shutdown = yield* fork(Orchestrator.shutdown({ grace: "1 second", interrupt: "1 second" }))
        yield* TestClock.adjust("2 seconds")
        const report = yield* Fiber.join(shutdown)
        assert.deepStrictEqual(told, ["Compensated"])
        assert.isTrue(Exit.isFailure(yield* Fiber.await(quick)))
        assert.deepStrictEqual([report.clean, report.stuck.map(({ path, waitedMillis }) => [path, waitedMillis])], [
          false,
          [["/orchestra/slow/compensation", 1000]]
        ])
        yield* TestClock.adjust("2 minutes")
        yield* assertNoLeaks()
      }).pipe(Effect.provide(TestOrchestra.layer)))

    it.effect("undoes when the routine, the group or the timeout around it stops it", () =>
      Effect.gen(function*() {
        let undone = 0
        const body = Effect.andThen(works("a", Effect.sync(() => undone++)), hangs("b"))
        const routine = yield* Orchestrator.fork(Saga.run(body))
        yield* Routine.interrupt(routine)
        assert.strictEqual(undone, 1)
        const timed = yield* fork(Effect.timeoutOption(Saga.run(body), "1 second"))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual([yield* Fiber.join(timed), undone], [Option.none(), 2])
        const group = Group.run((group) => Effect.andThen(Group.fork(group, Saga.run(body)), Effect.fail("stop")))
        assert.deepStrictEqual([yield* Effect.flip(group), undone], ["stop", 3])
        yield* assertNoLeaks()
      }).pipe(Effect.provide(TestOrchestra.layer)))
  })

  describe("never hangs", () => {
    it.effect("a deaf undo is stuck when its time is over, and listed until it ends", () =>
      Effect.gen(function*() {
        const ends: Array<string> = []
        yield* Orchestrator.instrument((event) => {
          if (event._tag === "SagaStepEnded") ends.push(`${event.step} ${event.direction} ${event.outcome}`)
        })
        const body = Effect.all([works("a"), works("b", deaf), fails], { discard: true })
        const running = yield* fork(Saga.outcome(body, { name: "trip", compensationTimeout: "10 seconds" }))
        yield* TestClock.adjust("11 seconds")
        const outcome = yield* Fiber.join(running)
        assert.isTrue(outcome._tag === "Stuck")
        if (outcome._tag !== "Stuck") return
        assert.deepStrictEqual([outcome.cause, outcome.undone], [Cause.fail("no"), ["a"]])
        const [{ cause, step } = { cause: Cause.empty, step: "none" }] = outcome.stuck
        const error = Cause.squash(cause) as WorkflowError.CompensationTimedOut
        const message = `the undo of step "b" of saga "trip" took longer than 10s`
        assert.deepStrictEqual([step, error._tag, error.message], ["b", "CompensationTimedOut", message])
        assert.deepStrictEqual(yield* nodes, ["/orchestra/trip failed", "/orchestra/trip/compensate b abandoned"])
        yield* TestClock.adjust("2 minutes")
        yield* assertNoLeaks()
        assert.deepStrictEqual(ends.slice(3), ["b compensate timed_out", "a compensate success"])
      }).pipe(Effect.provide(TestOrchestra.layer)))

    it.effect("the time of an undo counts all its tries, and its own bounds go before those of the saga", () =>
      Effect.gen(function*() {
        let tries = 0
        const retried = Effect.suspend(() => ++tries < 3 ? Effect.fail("cannot") : Effect.never)
        const ends: Array<string> = []
        yield* Orchestrator.instrument((event) => {
          if (event._tag === "SagaStepEnded" && event.direction === "compensate") ends.push(event.outcome)
        })
        const own = { compensationTimeout: "2500 millis", compensationRetry: Schedule.spaced("1 second") }
        const running = yield* fork(Saga.outcome(Effect.andThen(works("a", retried, own), fails)))
        yield* TestClock.adjust("2500 millis")
        const outcome = yield* Fiber.join(running)
        assert.deepStrictEqual([outcome._tag, tries], ["Stuck", 3])
        if (outcome._tag === "Stuck") {
          const [first, second] = outcome.stuck[0]?.cause.reasons.filter(Cause.isFailReason) ?? []
          assert.match(String(first?.error), /^CompensationTimedOut/)
          assert.strictEqual(second?.error, "cannot")
        }
        assert.deepStrictEqual(ends, ["failure", "failure", "timed_out"])
      }).pipe(Effect.provide(TestOrchestra.layer)))

    it.effect("an undo that works while it is being cut has worked", () =>
      Effect.gen(function*() {
        const late = Effect.uninterruptible(Effect.sleep("10500 millis"))
        const body = Effect.andThen(works("a", late), fails)
        const running = yield* fork(Saga.outcome(body, { compensationTimeout: "10 seconds" }))
        yield* TestClock.adjust("11 seconds")
        assert.deepStrictEqual((yield* Fiber.join(running))._tag, "Compensated")
      }))

    it.effect("a deaf attempt is left when its grace is over, not tried again, and undone when it succeeds after all", () =>
      Effect.gen(function*() {
        const deafly = (register: "after" | "before", pivot: boolean) =>
          Effect.gen(function*() {
            const undone: Array<unknown> = []
            let attempts = 0
            const step = Saga.step("a", {
              run: Effect.andThen(Effect.sync(() => attempts++), Effect.as(deaf, "late!")),
              timeout: "1 second",
              retry: Schedule.recurs(3),
              // Both ways to register take an undo that asks nothing of the result.
              register: register as "after",
              compensate: (result: unknown) => Effect.sync(() => undone.push(result))
            })
            const body = Effect.andThen(works("first", Effect.void, { pivot }), step)
            const running = yield* fork(Saga.outcome(body, { name: "trip", compensationTimeout: "10 seconds" }))
            yield* TestClock.adjust("11 seconds")
            const { _tag } = yield* Fiber.join(running)
            assert.deepStrictEqual(yield* nodes, ["/orchestra/trip failed", "/orchestra/trip/step a abandoned"])
            assert.strictEqual(attempts, 1)
            yield* TestClock.adjust("2 minutes")
            yield* assertNoLeaks()
            return [_tag, ...undone]
          })
        assert.deepStrictEqual(yield* deafly("after", false), ["Compensated", "late!"])
        // What was undone when nobody knew of it is undone again: it was done after that.
        assert.deepStrictEqual(yield* deafly("before", false), ["Compensated", Option.none(), Option.some("late!")])
        assert.deepStrictEqual(yield* deafly("after", true), ["Committed"])
      }).pipe(Effect.provide(TestOrchestra.layer)))

    it.effect("a step that is left running when the body ends is stopped, and no saga is completed by it", () =>
      Effect.gen(function*() {
        const undone: Array<string> = []
        const undo = (name: string) => () => Effect.sync(() => undone.push(name))
        const stray = Saga.step("stray", { run: Effect.never, register: "before", compensate: undo("stray") })
        const finishing = Saga.step("finishing", { run: deaf, compensate: undo("finishing") })
        const a = Saga.step("a", { run: Effect.void, compensate: undo("a") })
        const body = Effect.all([a, fork(stray), fork(finishing)], { discard: true })
        const running = yield* fork(Saga.outcome(body, { name: "trip", compensationTimeout: "10 seconds" }))
        yield* TestClock.adjust("10 seconds")
        const outcome = yield* Fiber.join(running)
        assert.isTrue(outcome._tag === "Compensated")
        if (outcome._tag !== "Compensated") return
        assert.include(String(Cause.squash(outcome.cause)), "got one that left: stray, finishing")
        assert.deepStrictEqual([outcome.undone, undone], [["stray", "a"], ["stray", "a"]])
        assert.deepStrictEqual(yield* nodes, ["/orchestra/trip failed", "/orchestra/trip/step finishing abandoned"])
        yield* TestClock.adjust("2 minutes")
        assert.deepStrictEqual(undone, ["stray", "a", "finishing"])
        yield* assertNoLeaks()
      }).pipe(Effect.provide(TestOrchestra.layer)))

    it.effect("what is told of the outcome may fail or hang, and the saga ends", () =>
      Effect.gen(function*() {
        for (const onOutcome of [() => Effect.fail("no"), () => Effect.die("no"), () => deaf]) {
          const running = yield* fork(Saga.run(works("a"), { onOutcome, compensationTimeout: "1 second" }))
          yield* TestClock.adjust("2 seconds")
          assert.strictEqual(yield* Fiber.join(running), "a")
        }
      }))
  })

  describe("step", () => {
    it.effect("a pivot that succeeds too late for its timeout is passed all the same", () =>
      Effect.gen(function*() {
        const late = { run: Effect.uninterruptible(Effect.sleep(20)), timeout: 10, pivot: true }
        const running = yield* fork(Saga.outcome(Effect.andThen(works("a"), works("p", Effect.void, late))))
        yield* TestClock.adjust(10)
        yield* TestClock.adjust(10)
        const outcome = yield* Fiber.join(running)
        assert.isTrue(outcome._tag === "Committed" && outcome.pivot === "p")
      }))

    it.effect("names are unique, and the second of one name does not run", () =>
      Effect.gen(function*() {
        let runs = 0
        const step = Saga.step("leg", { run: Effect.sync(() => runs++), compensate: () => Effect.void })
        const outcome = yield* Saga.outcome(Effect.andThen(step, step), { name: "trip" })
        assert.strictEqual(runs, 1)
        assert.isTrue(outcome._tag === "Compensated")
        if (outcome._tag !== "Compensated") return
        assert.deepStrictEqual(outcome.undone, ["leg"])
        const message = `the names of the steps of saga "trip" are unique, got: leg`
        assert.deepStrictEqual((Cause.squash(outcome.cause) as Error).message, message)
      }))

    it.effect("none begins when the body has ended, not in an undo either", () =>
      Effect.gen(function*() {
        const body = Effect.andThen(works("a", works("b") as Effect.Effect<string>), fails)
        const outcome = yield* Saga.outcome(body, { name: "trip", compensationRetry: once })
        assert.isTrue(outcome._tag === "Stuck")
        if (outcome._tag !== "Stuck") return
        const message = `no step of saga "trip" begins after its body has ended, got: b`
        assert.deepStrictEqual((Cause.squash(outcome.stuck[0]?.cause ?? Cause.empty) as Error).message, message)
      }))

    it.effect("a wrong constant is a defect", () =>
      Effect.gen(function*() {
        const options = { run: Effect.void, compensate: () => Effect.void }
        assert.throws(() => Saga.step("a", { ...options, timeout: -1 }), /the timeout of step "a" .* got: -1/)
        assert.throws(() => Saga.outcome(Effect.void, { compensationTimeout: NaN }), /saga "saga" .* got: NaN/)
        const wrong = (constants: object) => constants as never
        assert.throws(
          () => Saga.step("a", wrong({ ...options, register: "befor" })),
          /of step "a" .* got: befor$/
        )
        assert.throws(() => Saga.outcome(Effect.void, wrong({ order: "forward" })), /saga "saga" .* got: forward$/)
        assert.throws(() => Saga.outcome(Effect.void, wrong({ onStuck: "stop" })), /saga "saga" .* got: stop$/)
        yield* Effect.void
      }))

    it.effect("an undo that is no effect is stuck, and says so", () =>
      Effect.gen(function*() {
        const ends: Array<string> = []
        yield* Orchestrator.instrument((event) => {
          if (event._tag === "SagaStepEnded") ends.push(`${event.step} ${event.direction} ${event.outcome}`)
        })
        const outcome = yield* Saga.outcome(Effect.all([works("a", 5 as never), fails], { discard: true }))
        assert.isTrue(outcome._tag === "Stuck")
        if (outcome._tag !== "Stuck") return
        assert.match(String(Cause.squash(outcome.stuck[0]?.cause ?? Cause.empty)), /Not a valid effect: 5/)
        assert.strictEqual(ends.at(-1), "a compensate defect")
      }).pipe(Effect.provide(TestOrchestra.layer)))

    it.effect("an undo has the services that its step had", () =>
      Effect.gen(function*() {
        const seen: Array<string | undefined> = []
        const step = Saga.step("a", {
          run: Effect.void,
          compensate: () =>
            Effect.map(Effect.serviceOption(Tracer.ParentSpan), (span) => seen.push(Option.getOrUndefined(span)?._tag))
        })
        yield* Saga.outcome(Effect.andThen(step, fails))
        assert.deepStrictEqual(seen, ["Span"])
      }))
  })

  describe("order", () => {
    const taking = (name: string, millis: number, group?: string) =>
      works(name, Effect.sleep(millis), group === undefined ? {} : { group })

    it.effect("grouped: the undos of a group run at once, the groups one after the other, the newest first", () =>
      Effect.gen(function*() {
        const steps = [
          taking("a", 10, "g"),
          taking("b", 20, "g"),
          taking("c", 10),
          taking("d", 10, "h"),
          taking("e", 20, "h")
        ]
        const running = yield* fork(
          Saga.outcome(Effect.all([...steps, fails], { discard: true }), { order: "grouped" })
        )
        yield* TestClock.adjust(20)
        yield* TestClock.adjust(10)
        yield* TestClock.adjust(20)
        const outcome = yield* Fiber.join(running)
        assert.isTrue(outcome._tag === "Compensated")
        if (outcome._tag === "Compensated") assert.deepStrictEqual(outcome.undone, ["d", "e", "c", "a", "b"])
      }))
  })

  describe("run", () => {
    const failing = (...steps: ReadonlyArray<Effect.Effect<unknown, never, Saga.Journal>>) =>
      Effect.flip(Saga.run(Effect.andThen(Effect.all(steps), fails), { name: "trip", compensationRetry: once }))

    it.effect("fails with what became of it", () =>
      Effect.gen(function*() {
        const aborted = yield* failing(works("a"))
        assert.deepStrictEqual([aborted._tag, aborted.message, aborted.cause], [
          "SagaAborted",
          `saga "trip" failed and was undone: no`,
          Cause.fail("no")
        ])
        const stuck = yield* failing(works("a", Effect.fail("cannot")))
        assert.deepStrictEqual([stuck._tag, stuck.message], [
          "SagaStuck",
          `saga "trip" failed and is stuck, what a did could not be undone: no`
        ])
        const committed = yield* failing(works("a", Effect.void, { pivot: true }))
        assert.deepStrictEqual([committed._tag, committed.message], [
          "SagaCommitted",
          `saga "trip" failed after "a", from where there is no way back: no`
        ])
      }))
  })

  describe("nested", () => {
    it.effect("a pivot that it passed is one of its parent, whatever became of it", () =>
      Effect.gen(function*() {
        const child = Effect.ignore(
          Saga.run(Effect.andThen(works("p", Effect.void, { pivot: true }), fails), { name: "child" })
        )
        const outcome = yield* Saga.outcome(Effect.all([works("a"), child, fails], { discard: true }))
        assert.deepStrictEqual(outcome, { _tag: "Committed", cause: Cause.fail("no"), pivot: "child/p" })
      }))

    it.effect("one that was undone is not undone again by its parent", () =>
      Effect.gen(function*() {
        let undos = 0
        const child = Effect.ignore(Saga.run(Effect.andThen(works("a", Effect.sync(() => undos++)), fails)))
        const outcome = yield* Saga.outcome(Effect.andThen(child, fails))
        assert.deepStrictEqual([outcome, undos], [{ _tag: "Compensated", cause: Cause.fail("no"), undone: [] }, 1])
      }))

    it.effect("a parent that halts halts in the middle of it; one that halts itself does not halt its parent", () =>
      Effect.gen(function*() {
        const nested = (outer: "halt" | "continue", inner: "halt" | "continue") => {
          const child = Saga.run(Effect.all([works("b"), works("c", Effect.fail("cannot"))]), {
            name: "n",
            onStuck: inner,
            compensationRetry: once
          })
          const body = Effect.all([works("a"), child, fails], { discard: true })
          return Effect.map(
            Saga.outcome(body, { onStuck: outer, compensationRetry: once }),
            (outcome) => outcome._tag === "Stuck" ? [outcome.undone, outcome.notRun] : outcome._tag
          )
        }
        assert.deepStrictEqual(yield* nested("halt", "continue"), [[], ["n/b", "a"]])
        assert.deepStrictEqual(yield* nested("continue", "halt"), [["a"], ["n/b"]])
        assert.deepStrictEqual(yield* nested("continue", "continue"), [["n/b", "a"], []])
      }))
  })

  describe("tells", () => {
    it.effect("spans: of the saga, its steps and its undos, which link to their step", () =>
      Effect.gen(function*() {
        const spans: Array<Tracer.Span> = []
        const tracer = Tracer.make({
          span: (options) => {
            const span = new Tracer.NativeSpan(options)
            spans.push(span)
            return span
          }
        })
        const child = Saga.run(works("b"), { name: "child" })
        const body = Effect.all([works("a"), child, fails], { discard: true })
        yield* Effect.provideService(Saga.outcome(body, { name: "trip", key: "order 7" }), Tracer.Tracer, tracer)
        const shown = spans.map(({ kind, links, name, parent, status }) => {
          const failed = status._tag === "Ended" && Exit.isFailure(status.exit)
          const linked = links.map(({ span }) => span._tag === "Span" ? ` -> ${span.name}` : "").join()
          const of = Option.isSome(parent) && parent.value._tag === "Span" ? `${parent.value.name}: ` : ""
          return `${kind} ${of}${name}${linked}${failed ? " failed" : ""}`
        })
        assert.deepStrictEqual(shown, [
          "internal saga trip failed",
          "internal saga trip: step a",
          "internal saga trip: saga child",
          "internal saga child: step b",
          "internal saga trip: step failing failed",
          "internal saga trip: compensate child/b -> step b",
          "internal saga trip: compensate a -> step a"
        ])
        const attributes = spans[0]?.attributes
        assert.match(String(attributes?.get("orchestra.saga.key.hash")), /^[0-9a-f]{8}$/)
        assert.strictEqual(attributes?.get("orchestra.outcome"), "compensated")
      }))

    it.effect("observers: how each step and each undo ended after all attempts, and how the saga did", () =>
      Effect.gen(function*() {
        const { kernel } = yield* Orchestrator
        const steps: Array<string> = []
        const ends: Array<SagaEnd> = []
        yield* observe(kernel, {
          stepped: (_, { direction, exit, failures, millis, step, stuck }: StepEnd) =>
            void steps.push([step, direction, exit._tag, failures, millis, stuck].join(" ")),
          concluded: (_, end) => void ends.push(end)
        })
        let attempts = 0
        const flaky = Effect.suspend(() => ++attempts < 3 ? Effect.fail("not yet") : Effect.void)
        const body = Effect.all([
          works("a", Effect.fail("cannot")),
          works("b", Effect.void, { run: flaky, retry: Schedule.spaced(5) }),
          fails
        ], { discard: true })
        const running = yield* fork(Saga.outcome(body, { compensationRetry: Schedule.recurs(1) }))
        yield* TestClock.adjust(5)
        yield* TestClock.adjust(5)
        yield* Fiber.join(running)
        assert.deepStrictEqual(steps, [
          "a forward Success 0 0 false",
          "b forward Success 2 10 false",
          "failing forward Failure 1 0 false",
          "b compensate Success 0 0 false",
          "a compensate Failure 2 0 true"
        ])
        assert.deepStrictEqual(ends, [{ outcome: "stuck", millis: 10, stuck: ["a"] }])
      }).pipe(Effect.provide(TestOrchestra.layer)))

    it.effect("events that encode", () =>
      Effect.gen(function*() {
        let events = 0
        yield* Orchestrator.instrument((event) => {
          if (!event._tag.startsWith("Saga")) return
          const codec = Schema.toCodecJson(SagaEvent.SagaEvent)
          assert.deepStrictEqual(
            Schema.decodeUnknownSync(codec)(Schema.encodeUnknownSync(codec)(event as never)),
            event
          )
          events++
        })
        yield* Saga.outcome(Effect.andThen(works("a"), fails))
        assert.strictEqual(events, 8)
      }).pipe(Effect.provide(TestOrchestra.layer)))
  })
})
