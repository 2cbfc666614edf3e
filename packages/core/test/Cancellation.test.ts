import { Group, Orchestrator, Routine } from "@effect-orchestra/core"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Option, Tracer } from "effect"
import { TestClock } from "effect/testing"

const Level = Context.Reference<string>("test/Level", { defaultValue: () => "default" })

describe("cancellation", () => {
  it.effect("25. a shielded section completes, a deadline inside it still applies, and cancellation lands right after", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const note = (line: string) => Effect.sync(() => void log.push(line))
      const routine = yield* Orchestrator.fork(Effect.gen(function*() {
        yield* Effect.uninterruptible(Effect.gen(function*() {
          yield* Effect.sleep("1 second")
          const inner = yield* Effect.timeoutOption(Effect.never, "1 second")
          yield* note(`deadline inside: ${inner._tag}`)
          yield* Effect.sleep("1 second")
          yield* note("section complete")
        }))
        yield* Effect.yieldNow
        yield* note("after the section")
      }))
      const stopping = yield* Effect.forkChild(Routine.interrupt(routine), { startImmediately: true })
      yield* TestClock.adjust("2999 millis")
      assert.deepStrictEqual([stopping.pollUnsafe(), ...log], [undefined, "deadline inside: None"])
      yield* TestClock.adjust("1 millis")
      yield* Fiber.join(stopping)
      assert.deepStrictEqual(log, ["deadline inside: None", "section complete"])
      assert.strictEqual((yield* Routine.snapshot(routine)).state, "interrupted")
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("26. a cancelled routine that tries to go on is cancelled at its next suspension, without a busy loop", () =>
    Effect.gen(function*() {
      let turns = 0
      const stubborn = Effect.forever(Effect.exit(Effect.suspend(() => {
        turns++
        return Effect.never
      })))
      const routine = yield* Orchestrator.fork(stubborn)
      yield* Routine.interrupt(routine)
      assert.strictEqual(turns, 1)
      assert.isTrue(Exit.hasInterrupts(yield* Routine.await(routine)))
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("28. the reason and the requester of a cancellation are in the exit, in the events and in the trace", () =>
    Effect.gen(function*() {
      const told: Array<unknown> = []
      const spans: Array<Tracer.Span> = []
      yield* Orchestrator.instrument((event) => {
        if (event._tag === "StopRequested") told.push(event.by)
        if (event._tag === "Exited" && event.name === "victim") told.push(event.exit.cancelledBy)
      })
      const tracer = Tracer.make({
        span: (options) => {
          const span = new Tracer.NativeSpan(options)
          spans.push(span)
          return span
        }
      })
      const seen = yield* Deferred.make<unknown>()
      const body = Effect.never.pipe(
        Effect.onInterrupt(() => Effect.void),
        Effect.onExit((exit) => Deferred.succeed(seen, Option.getOrUndefined(Routine.cancellation(exit)))),
        Effect.withSpan("work"),
        Effect.withTracer(tracer)
      )
      const victim = yield* Orchestrator.fork(body, { name: "victim" })
      yield* Effect.flatMap(
        Orchestrator.fork(Routine.stop(victim, "1 second", "replaced by a newer one"), { name: "deployer" }),
        Routine.join
      )
      const by = { reason: "replaced by a newer one", requester: "/orchestra/deployer" }
      assert.deepStrictEqual(Routine.cancellation(yield* Routine.await(victim)), Option.some(by))
      assert.deepStrictEqual(yield* Deferred.await(seen), by)
      assert.deepStrictEqual(told, [by, by])
      assert.deepStrictEqual((yield* Orchestrator.history)[0]?.lastExit?.cancelledBy, by)
      assert.deepStrictEqual((yield* Routine.snapshot(victim)).lastExit?.cancelledBy, by)
      const [span] = spans
      const end = span?.status._tag === "Ended" ? span.status.exit : Exit.void
      assert.deepStrictEqual(Routine.cancellation(end), Option.some(by))
    }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))

  it.effect("29. an interruption of something else that a routine waits for is its failure, not a success", () =>
    Effect.gen(function*() {
      const joinsInterrupted = Effect.gen(function*() {
        const other = yield* Effect.forkChild(Effect.never, { startImmediately: true })
        yield* Fiber.interrupt(other)
        return yield* Fiber.join(other)
      })
      const routine = yield* Orchestrator.fork(joinsInterrupted)
      assert.isTrue(Exit.isFailure(yield* Routine.await(routine)))
      const { health, lastExit, state } = yield* Routine.snapshot(routine)
      assert.deepStrictEqual([state, health, lastExit?.reason, lastExit?.errorType], [
        "failed",
        "failed",
        "failure",
        "Interrupted"
      ])
      const group = yield* Effect.exit(Group.run((group) => Group.fork(group, joinsInterrupted)))
      assert.isTrue(Exit.isFailure(group))
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("30. what a callback settles with after it was cancelled is dropped, and its disposer is called once", () =>
    Effect.gen(function*() {
      let settle: (value: number) => void = () => {}
      let disposed = 0
      const got: Array<number> = []
      const operation = Effect.callback<number>((resume) => {
        settle = (value) => resume(Effect.succeed(value))
        return Effect.sync(() => void disposed++)
      })
      const routine = yield* Orchestrator.fork(Effect.map(operation, (value) => void got.push(value)))
      yield* Routine.interrupt(routine)
      settle(1)
      yield* Effect.yieldNow
      assert.deepStrictEqual([got, disposed], [[], 1])
      assert.strictEqual((yield* Routine.snapshot(routine)).state, "interrupted")
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("38. a timeout inside a finalizer fires during shutdown", () =>
    Effect.gen(function*() {
      const outcome = yield* Deferred.make<string>()
      const body = Effect.never.pipe(
        Effect.ensuring(Effect.flatMap(
          Effect.timeoutOption(Effect.never, "1 second"),
          (ended) => Deferred.succeed(outcome, ended._tag)
        ))
      )
      yield* Orchestrator.fork(body)
      yield* TestClock.adjust(0)
      const stopping = yield* Effect.forkChild(Orchestrator.shutdown(), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.isTrue((yield* Fiber.join(stopping)).clean)
      assert.strictEqual(yield* Deferred.await(outcome), "None")
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("47. stopping or interrupting a routine that has ended changes nothing of it", () =>
    Effect.gen(function*() {
      const fine = yield* Orchestrator.fork(Effect.succeed(42))
      const broken = yield* Orchestrator.fork(Effect.fail("broken"))
      for (const routine of [fine, broken]) {
        const before = { snapshot: yield* Routine.snapshot(routine), exit: yield* Routine.await(routine) }
        yield* TestClock.adjust("1 second")
        yield* Routine.interrupt(routine)
        assert.strictEqual(yield* Routine.stop(routine), "stopped")
        yield* Orchestrator.interruptAll()
        const after = { snapshot: yield* Routine.snapshot(routine), exit: yield* Routine.await(routine) }
        assert.deepStrictEqual(after, before)
      }
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("63. children read what the parent provides; what one overrides its siblings do not see, and it ends with its scope", () =>
    Effect.gen(function*() {
      const read = Effect.map(Level, (level) => level)
      const joined = <A, E, R>(effect: Effect.Effect<A, E, R>, group: Group.Group) =>
        Effect.flatMap(Group.fork(group, effect), Routine.join)
      const levels = yield* Group.run((group) =>
        Effect.all([
          joined(read, group),
          joined(Effect.all([Effect.provideService(read, Level, "own"), read]), group),
          joined(read, group)
        ])
      ).pipe(Effect.provideService(Level, "parent"))
      assert.deepStrictEqual(levels, ["parent", ["own", "parent"], "parent"])
      assert.strictEqual(yield* read, "default")
    }))

  it.effect("a defect keeps its stack, and is no typed failure", () =>
    Effect.gen(function*() {
      const boom = new Error("boom")
      const routine = yield* Orchestrator.fork(Effect.sync(() => {
        throw boom
      }))
      const exit = yield* Routine.await(routine)
      assert.isTrue(Exit.isFailure(exit) && !Cause.hasFails(exit.cause) && Cause.squash(exit.cause) === boom)
      assert.strictEqual((yield* Routine.snapshot(routine)).state, "defect")
    }).pipe(Effect.provide(Orchestrator.layer)))
})
