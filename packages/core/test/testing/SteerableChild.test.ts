import { Group, Orchestrator, Routine } from "@effect-orchestra/core"
import {
  assertNoLeaks,
  atEveryOperation,
  steerableChild,
  TestError,
  TestOrchestra
} from "@effect-orchestra/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"

describe("steerableChild", () => {
  it.effect("succeeds, fails and dies when it is told to", () =>
    Effect.gen(function*() {
      const child = yield* steerableChild<number, string>()
      const exits: Array<Exit.Exit<number, string>> = []
      for (const command of [child.succeed(1), child.fail("boom"), child.die("broken")]) {
        const routine = yield* Orchestrator.fork(child.effect)
        yield* command
        exits.push(yield* Routine.await(routine))
      }
      assert.deepStrictEqual(exits, [Exit.succeed(1), Exit.fail("boom"), Exit.die("broken")])
      assert.deepStrictEqual([child.starts, child.live], [3, false])
    }).pipe(Effect.provide(TestOrchestra.layer)))

  it.effect("lets a command wait for the run that takes it", () =>
    Effect.gen(function*() {
      const child = yield* steerableChild()
      const command = yield* Effect.forkChild(child.succeed(), { startImmediately: true })
      assert.isUndefined(command.pollUnsafe())
      yield* Effect.flatMap(Orchestrator.fork(child.effect), Routine.join)
      assert.deepStrictEqual(yield* Fiber.await(command), Exit.void)
    }).pipe(Effect.provide(TestOrchestra.layer)))

  it.effect("forgets a command that nobody waits for any more", () =>
    Effect.gen(function*() {
      const child = yield* steerableChild<string>()
      yield* Fiber.interrupt(yield* Effect.forkChild(child.succeed("forgotten"), { startImmediately: true }))
      const routine = yield* Orchestrator.fork(child.effect)
      yield* child.succeed("taken")
      assert.strictEqual(yield* Routine.join(routine), "taken")
    }).pipe(Effect.provide(TestOrchestra.layer)))

  it.effect("says that it is ready", () =>
    Effect.gen(function*() {
      const child = yield* steerableChild()
      const routine = yield* Orchestrator.fork(child.effect, { ready: "signal" })
      const before = yield* Routine.snapshot(routine)
      yield* child.ready
      const after = yield* Routine.snapshot(routine)
      assert.deepStrictEqual([before.ready, after.ready], [false, true])
    }).pipe(Effect.provide(TestOrchestra.layer)))

  it.effect("hangs until it is interrupted", () =>
    Effect.gen(function*() {
      const child = yield* steerableChild()
      const routine = yield* Orchestrator.fork(child.effect)
      yield* child.hang
      const command = yield* Effect.forkChild(child.succeed(), { startImmediately: true })
      yield* Effect.yieldNow
      assert.isUndefined(command.pollUnsafe())
      assert.strictEqual(yield* Routine.stop(routine), "stopped")
    }).pipe(Effect.provide(TestOrchestra.layer)))

  it.effect("ignores its interruption for as long as it is told", () =>
    Effect.gen(function*() {
      const child = yield* steerableChild()
      const routine = yield* Orchestrator.fork(child.effect)
      yield* child.ignoreInterruption("3 seconds")
      const stopping = yield* Effect.forkChild(Routine.stop(routine), { startImmediately: true })
      yield* TestClock.adjust("2999 millis")
      assert.isTrue(child.live)
      yield* TestClock.adjust("1 millis")
      assert.isFalse(child.live)
      assert.strictEqual(yield* Fiber.join(stopping), "stopped")
    }).pipe(Effect.provide(TestOrchestra.layer)))

  it.effect("ignores its interruption until it is released", () =>
    Effect.gen(function*() {
      const child = yield* steerableChild()
      const routine = yield* Orchestrator.fork(child.effect)
      yield* child.ignoreInterruption()
      const stopping = yield* Effect.forkChild(Routine.stop(routine), { startImmediately: true })
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* Fiber.join(stopping), "abandoned")
      assert.isTrue(child.live)
      yield* child.release
      yield* Effect.yieldNow
      assert.isFalse(child.live)
      yield* assertNoLeaks()
    }).pipe(Effect.provide(TestOrchestra.layer)))

  it.effect("dies at once when two runs overlap, and assertNoLeaks tells of it", () =>
    Effect.gen(function*() {
      const child = yield* steerableChild({ name: "db" })
      const first = yield* Orchestrator.fork(child.effect)
      const second = yield* Effect.flatMap(Orchestrator.fork(child.effect), Routine.await)
      const overlap = new TestError.Overlap({ child: "db", starts: 2 })
      assert.deepStrictEqual(second, Exit.die(overlap))
      yield* child.succeed()
      yield* Routine.join(first)
      assert.deepStrictEqual(yield* Effect.exit(child.check), Exit.die(overlap))
      assert.deepStrictEqual(yield* Effect.exit(assertNoLeaks()), Exit.die(overlap))
    }).pipe(Effect.provide(TestOrchestra.layer)))

  it.effect("needs no orchestrator: a group runs it too", () =>
    Effect.gen(function*() {
      const child = yield* steerableChild<never, "boom">()
      const exit = yield* Effect.exit(
        Group.run((group) => Effect.andThen(Group.fork(group, child.effect), child.fail("boom")))
      )
      assert.isTrue(Exit.isFailure(exit) && Cause.hasFails(exit.cause))
      yield* child.check
    }))

  it.effect("is taken off wherever it is interrupted", () =>
    Effect.gen(function*() {
      const child = yield* steerableChild()
      const commanded = Effect.forkChild(Effect.andThen(child.ready, child.succeed()), { startImmediately: true })
      const operations = yield* atEveryOperation(
        Effect.flatMap(commanded, (command) => Effect.ensuring(child.effect, Fiber.interrupt(command))),
        () =>
          Effect.andThen(
            Effect.sync(() => assert.isFalse(child.live)),
            child.check
          )
      )
      assert.isAbove(operations, 20)
    }))
})
