import { Orchestrator, Routine } from "@effect-orchestra/core"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Scope } from "effect"

const many = 100_000

// What is quadratic, or nests on the JavaScript stack, does not get through these.
describe("100,000 routines", () => {
  it.effect("each waiting for the one before end one after the other", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<number>()
      let last = yield* Orchestrator.fork(Deferred.await(gate))
      for (let n = 0; n < many; n++) {
        last = yield* Orchestrator.fork(Effect.map(Routine.join(last), (length) => length + 1))
      }
      yield* Deferred.succeed(gate, 0)
      assert.strictEqual(yield* Routine.join(last), many)
    }).pipe(Effect.provide(Orchestrator.layer)), 30_000)

  it.effect("waiting for one routine can all be interrupted, or all be woken", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const one = yield* Orchestrator.fork(Deferred.await(gate))
      const waiting: Array<Fiber.Fiber<void>> = []
      let woken = 0
      const waiter = Effect.map(Routine.await(one), () => void woken++)
      for (let n = 0; n < many; n++) waiting.push(yield* Effect.forkChild(waiter, { startImmediately: true }))
      yield* Fiber.interruptAll(waiting.splice(0, many / 2))
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.awaitAll(waiting)
      assert.strictEqual(woken, many / 2)
    }).pipe(Effect.provide(Orchestrator.layer)), 30_000)

  it.effect("end although a hook throws at the first", () =>
    Effect.gen(function*() {
      let told = 0
      yield* Orchestrator.instrument(() => {
        throw new Error("a broken hook")
      })
      yield* Orchestrator.instrument((event) => {
        if (event._tag === "Stopped") told++
      })
      for (let n = 0; n < many; n++) yield* Orchestrator.fork(Effect.void)
      assert.deepStrictEqual([told, yield* Orchestrator.list], [many, []])
    }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)), 30_000)

  it.effect("forked into one scope end when it is closed", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      for (let n = 0; n < many; n++) yield* Scope.provide(Orchestrator.forkScoped(Effect.never), scope)
      assert.strictEqual((yield* Orchestrator.list).length, many)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* Orchestrator.list, [])
    }).pipe(Effect.provide(Orchestrator.layer)), 30_000)

  it.effect("are stopped by a shutdown", () =>
    Effect.gen(function*() {
      for (let n = 0; n < many; n++) yield* Orchestrator.fork(Effect.never)
      const report = yield* Orchestrator.shutdown()
      assert.deepStrictEqual([report.clean, report.stopped], [true, many])
    }).pipe(Effect.provide(Orchestrator.layer)), 30_000)
})
