import { Group, Orchestrator, Routine } from "@effect-orchestra/core"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Scope } from "effect"

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

describe("100,000 tasks of a group", () => {
  it.effect("fail at once, and each failure is in the cause", () =>
    Effect.gen(function*() {
      const gate = yield* Deferred.make<void>()
      const exit = yield* Effect.exit(Group.run((group) =>
        Effect.gen(function*() {
          for (let n = 0; n < many; n++) {
            // Else the first failure interrupts the others before they fail.
            yield* Group.fork(group, Effect.uninterruptible(Effect.andThen(Deferred.await(gate), Effect.fail(n))))
          }
          yield* Deferred.succeed(gate, undefined)
        })
      ))
      assert.strictEqual(Exit.isFailure(exit) && exit.cause.reasons.filter(Cause.isFailReason).length, many)
    }), 30_000)

  it.effect(
    "wait for a slot and are released with the cause, or run one after the other",
    () =>
      Effect.gen(function*() {
        let ran = 0
        const task = Effect.sync(() => void ran++)
        const waiting = (first: Effect.Effect<void, string>) =>
          Effect.exit(Group.run((group) =>
            Effect.andThen(
              Group.fork(group, Effect.andThen(Effect.yieldNow, first)),
              Effect.forEach(Array.from({ length: many }), () => Effect.exit(Group.fork(group, task)), {
                concurrency: "unbounded",
                discard: true
              })
            ), { concurrency: 1 }))
        assert.deepStrictEqual([yield* waiting(Effect.fail("root")), ran], [Exit.fail("root"), 0])
        assert.deepStrictEqual([yield* waiting(Effect.void), ran], [Exit.void, many])
      }),
    30_000
  )
})

describe("5,000 groups, each in a task or in the body of the one before", () => {
  // 5,000 races of raw Effect nested like this overflow the stack.
  const depth = 5000
  const nested = (inner: Effect.Effect<void, string>, n: number): Effect.Effect<void, string> =>
    n === 0 ? inner : Group.run((group): Effect.Effect<unknown, string, Group.Task<void, string>> => {
      const next = Effect.suspend(() => nested(inner, n - 1))
      return n % 2 === 0 ? next : Effect.flatMap(Group.fork(group, next), Routine.join)
    }) as Effect.Effect<void, string>

  it.effect(
    "end one after the other, fail with the failure of the innermost, and are interrupted",
    () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* Effect.exit(nested(Effect.yieldNow, depth)), Exit.void)
        assert.deepStrictEqual(
          yield* Effect.exit(nested(Effect.andThen(Effect.yieldNow, Effect.fail("deep")), depth)),
          Exit.fail("deep")
        )
        const fiber = yield* Effect.forkChild(nested(Effect.never, depth))
        for (let turn = 0; turn < depth / 8; turn++) yield* Effect.yieldNow
        yield* Fiber.interrupt(fiber)
      }),
    30_000
  )

  it.effect("nested 3,000 deep are listed with their paths, and end", () =>
    Effect.gen(function*() {
      const nest = (depth: number): Effect.Effect<void, never, Orchestrator> =>
        depth === 0 ? Effect.never : Effect.scoped(Effect.gen(function*() {
          yield* Orchestrator.forkScoped(Effect.suspend(() => nest(depth - 1)), { name: "n" })
          return yield* Effect.never
        })).pipe(Effect.orDie)
      yield* Orchestrator.fork(nest(3000), { name: "n" })
      for (let turn = 0; turn < 500; turn++) yield* Effect.yieldNow
      const routines = yield* Orchestrator.list
      assert.strictEqual(routines.at(-1)?.path, `/orchestra${"/n".repeat(3001)}`)
      const report = yield* Orchestrator.shutdown()
      assert.deepStrictEqual([report.clean, report.stopped], [true, 3001])
    }).pipe(Effect.provide(Orchestrator.layer)), 30_000)
})
