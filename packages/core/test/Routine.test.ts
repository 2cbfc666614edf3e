import { Orchestrator, Routine } from "@effect-orchestra/core"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Option, type Scope } from "effect"
import { TestClock } from "effect/testing"

const provided = <A, E>(effect: Effect.Effect<A, E, Orchestrator | Scope.Scope>) =>
  Effect.provide(effect, Orchestrator.layer)

const state = (routine: Routine.Routine<unknown, unknown>) =>
  Effect.map(Routine.snapshot(routine), ({ health, state }) => [state, health])

describe("Routine", () => {
  describe("await and join", () => {
    it.effect("tell how it ended, also when it has ended long ago", () =>
      provided(Effect.gen(function*() {
        const ok = yield* Orchestrator.fork(Effect.andThen(Effect.yieldNow, Effect.succeed(1)))
        const failed = yield* Orchestrator.fork(Effect.fail("no"))
        const died = yield* Orchestrator.fork(Effect.die("defect"))
        assert.deepStrictEqual(yield* Routine.await(ok), Exit.succeed(1))
        assert.deepStrictEqual(yield* Routine.await(ok), Exit.succeed(1))
        assert.strictEqual(yield* Routine.join(ok), 1)
        assert.strictEqual(yield* Effect.flip(Routine.join(failed)), "no")
        assert.isTrue(Cause.hasDies(yield* Effect.flip(Effect.sandbox(Routine.join(died)))))
        assert.deepStrictEqual(yield* state(ok), ["succeeded", "ok"])
        assert.deepStrictEqual(yield* state(failed), ["failed", "failed"])
        assert.deepStrictEqual(yield* state(died), ["defect", "failed"])
      })))

    it.effect("an interrupted waiter leaves the others and the routine alone", () =>
      provided(Effect.gen(function*() {
        const gate = yield* Deferred.make<number>()
        const routine = yield* Orchestrator.fork(Deferred.await(gate))
        const first = yield* Effect.forkChild(Routine.join(routine), { startImmediately: true })
        const second = yield* Effect.forkChild(Routine.join(routine), { startImmediately: true })
        yield* Fiber.interrupt(first)
        yield* Deferred.succeed(gate, 7)
        assert.strictEqual(yield* Fiber.join(second), 7)
      })))

    it.effect("a nest of 2,000 routines that start at once does not overflow the stack", () =>
      provided(Effect.gen(function*() {
        const nest = (depth: number): Effect.Effect<number, unknown, Orchestrator> =>
          depth === 0
            ? Effect.succeed(0)
            : Effect.map(Effect.flatMap(Orchestrator.fork(nest(depth - 1)), Routine.join), (n) => n + 1)
        assert.strictEqual(yield* nest(2000), 2000)
      })))
  })

  describe("scope", () => {
    it.effect("is its own: finalizers run at its end, in reverse order, before anybody hears of the end", () =>
      provided(Effect.gen(function*() {
        const log: Array<string> = []
        const body = Effect.gen(function*() {
          yield* Effect.addFinalizer(() => Effect.sync(() => log.push("first")))
          yield* Effect.addFinalizer(() => Effect.andThen(Effect.yieldNow, Effect.sync(() => log.push("second"))))
        })
        yield* Effect.flatMap(Orchestrator.fork(body), Routine.join)
        assert.deepStrictEqual(log, ["second", "first"])
      })))

    it.effect("a finalizer that fails turns success into a defect, and stands behind a failure", () =>
      provided(Effect.gen(function*() {
        const bad = Effect.addFinalizer(() => Effect.die("finalizer"))
        const succeeded = yield* Effect.flatMap(Orchestrator.fork(bad), Routine.await)
        assert.isTrue(Exit.isFailure(succeeded) && Cause.hasDies(succeeded.cause))
        const failed = yield* Effect.flatMap(
          Orchestrator.fork(Effect.andThen(bad, Effect.fail("first"))),
          Routine.await
        )
        assert.deepStrictEqual(
          Exit.isFailure(failed) && failed.cause.reasons.map((reason) => reason._tag),
          ["Fail", "Die"]
        )
      })))
  })

  describe("interrupt", () => {
    it.effect("waits for the finalizers", () =>
      provided(Effect.gen(function*() {
        let gone = false
        const routine = yield* Orchestrator.fork(
          Effect.never.pipe(Effect.ensuring(Effect.andThen(Effect.yieldNow, Effect.sync(() => gone = true))))
        )
        yield* Routine.interrupt(routine)
        assert.isTrue(gone)
        assert.deepStrictEqual(yield* state(routine), ["interrupted", "ok"])
      })))

    it.effect("after the end changes nothing", () =>
      provided(Effect.gen(function*() {
        const routine = yield* Orchestrator.fork(Effect.succeed(1))
        yield* Routine.interrupt(routine)
        assert.deepStrictEqual(yield* state(routine), ["succeeded", "ok"])
      })))
  })

  describe("stop", () => {
    it.effect("lets a drain finish before it interrupts", () =>
      provided(Effect.gen(function*() {
        const log: Array<string> = []
        const routine = yield* Orchestrator.fork(
          Effect.never.pipe(Effect.onInterrupt(() => Effect.sync(() => log.push("interrupted")))),
          { drain: Effect.andThen(Effect.sleep("1 second"), Effect.sync(() => log.push("drained"))) }
        )
        const fiber = yield* Effect.forkChild(Routine.stop(routine), { startImmediately: true })
        yield* TestClock.adjust("999 millis")
        assert.deepStrictEqual(yield* state(routine), ["stopping", "ok"])
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* Fiber.join(fiber), "stopped")
        assert.deepStrictEqual(log, ["drained", "interrupted"])
      })))

    it.effect("does not wait for a drain past the grace", () =>
      provided(Effect.gen(function*() {
        const routine = yield* Orchestrator.fork(Effect.never, { drain: Effect.never })
        const fiber = yield* Effect.forkChild(Routine.stop(routine, "2 seconds"), { startImmediately: true })
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(yield* Fiber.join(fiber), "stopped")
      })))

    it.effect("a routine that watches stopRequested ends by itself, without an interruption", () =>
      provided(Effect.gen(function*() {
        const routine = yield* Orchestrator.fork(
          Effect.andThen(Routine.stopRequested, Effect.as(Effect.sleep("1 second"), "finished"))
        )
        const fiber = yield* Effect.forkChild(Routine.stop(routine), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(fiber), "stopped")
        assert.deepStrictEqual(yield* Routine.await(routine), Exit.succeed("finished"))
      })))

    it.effect("abandons what ignores its interruption; it stays listed until it ends, and its state stays", () =>
      provided(Effect.gen(function*() {
        const { list } = yield* Orchestrator
        const routine = yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("1 hour")), {
          shutdown: "1 second"
        })
        const fiber = yield* Effect.forkChild(Routine.stop(routine), { startImmediately: true })
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(fiber), "abandoned")
        assert.strictEqual((yield* list).length, 1)
        yield* TestClock.adjust("1 hour")
        assert.strictEqual((yield* list).length, 0)
        assert.deepStrictEqual(yield* state(routine), ["abandoned", "stuck"])
      })))

    it.effect("of a routine that has ended returns at once", () =>
      provided(Effect.gen(function*() {
        const routine = yield* Orchestrator.fork(Effect.void)
        assert.strictEqual(yield* Routine.stop(routine), "stopped")
      })))
  })

  describe("ready", () => {
    it.effect("awaitReady returns when the routine says so", () =>
      provided(Effect.gen(function*() {
        const body = Effect.andThen(Effect.sleep("1 second"), Effect.andThen(Routine.ready, Effect.never))
        const fiber = yield* Effect.forkChild(
          Orchestrator.fork(body, { ready: "signal", awaitReady: true }),
          { startImmediately: true }
        )
        yield* TestClock.adjust("999 millis")
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.isTrue((yield* Routine.snapshot(yield* Fiber.join(fiber))).ready)
      })))

    it.effect("fails and stops the routine when it is too late, or has ended", () =>
      provided(Effect.gen(function*() {
        const late = yield* Effect.forkChild(
          Effect.flip(Orchestrator.fork(Effect.never, { ready: "signal", awaitReady: true, startTimeout: "1 second" })),
          { startImmediately: true }
        )
        yield* TestClock.adjust("1 second")
        const error = yield* Fiber.join(late)
        assert.isTrue(error._tag === "NotReady" && error.reason === "timeout" && error.waitedMillis === 1000)
        const ended = yield* Effect.flip(Orchestrator.fork(Effect.void, { ready: "signal", awaitReady: true }))
        assert.isTrue(ended._tag === "NotReady" && ended.reason === "ended")
        assert.deepStrictEqual(yield* Orchestrator.list, [])
      })))
  })

  describe("current", () => {
    it.effect("is the routine inside, and nothing outside", () =>
      provided(Effect.gen(function*() {
        assert.isTrue(Option.isNone(yield* Routine.current))
        yield* Routine.ready
        const id = Effect.map(Routine.current, Option.map((routine) => routine.id))
        const routine = yield* Orchestrator.fork(Effect.flatMap(Effect.forkChild(id), Fiber.join))
        assert.deepStrictEqual(yield* Routine.join(routine), Option.some(routine.id))
      })))
  })

  describe("context", () => {
    it.effect("inherits services, but neither the span nor the scope of the caller", () =>
      provided(Effect.gen(function*() {
        class Tenant extends Context.Service<Tenant, string>()("test/Tenant") {}
        const outer = yield* Effect.scope
        const body = Effect.gen(function*() {
          return { tenant: yield* Tenant, span: yield* Effect.option(Effect.currentSpan), scope: yield* Effect.scope }
        })
        const seen = yield* Effect.flatMap(Orchestrator.fork(body), Routine.join).pipe(
          Effect.withSpan("request"),
          Effect.provideService(Tenant, "acme")
        )
        assert.strictEqual(seen.tenant, "acme")
        assert.isTrue(Option.isNone(seen.span))
        assert.notStrictEqual(seen.scope, outer)
      })))
  })
})
