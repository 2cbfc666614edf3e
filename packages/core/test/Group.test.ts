import { Group, Orchestrator, Routine } from "@effect-orchestra/core"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Option, Random, Ref } from "effect"
import { TestClock } from "effect/testing"

const seeds = Number(process.env["SEEDS"] ?? 200)

describe("Group", () => {
  describe("run", () => {
    it.effect("returns the body's value after every task has ended", () =>
      Effect.gen(function*() {
        const done = yield* Ref.make(0)
        const value = yield* Group.run((group) =>
          Effect.gen(function*() {
            yield* Group.fork(group, Effect.andThen(Effect.yieldNow, Ref.update(done, (n) => n + 1)))
            yield* Group.fork(group, Effect.andThen(Effect.yieldNow, Ref.update(done, (n) => n + 1)))
            return "body"
          })
        )
        assert.deepStrictEqual([value, yield* Ref.get(done)], ["body", 2])
      }))

    it.effect("interrupts the siblings and the body when a task fails, and awaits their finalizers", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const slow = Effect.never.pipe(
          Effect.onInterrupt(() => Effect.andThen(Effect.yieldNow, Effect.sync(() => log.push("sibling gone"))))
        )
        const exit = yield* Effect.exit(Group.run((group) =>
          Effect.gen(function*() {
            yield* Group.fork(group, slow)
            yield* Group.fork(group, Effect.andThen(Effect.yieldNow, Effect.fail("boom")))
            return yield* Effect.never.pipe(Effect.onInterrupt(() => Effect.sync(() => log.push("body gone"))))
          })
        ))
        assert.deepStrictEqual(exit, Exit.fail("boom"))
        assert.deepStrictEqual(log.sort(), ["body gone", "sibling gone"])
      }))

    it.effect("puts the first failure first and what finalizers add behind it", () =>
      Effect.gen(function*() {
        const dying = Effect.never.pipe(Effect.onInterrupt(() => Effect.die("finalizer")))
        const exit = yield* Effect.exit(
          Group.run((group) => Effect.andThen(Group.fork(group, dying), Group.fork(group, Effect.fail("first"))))
        )
        assert.isTrue(Exit.isFailure(exit))
        if (Exit.isFailure(exit)) {
          const [first, ...rest] = exit.cause.reasons
          assert.isTrue(first !== undefined && Cause.isFailReason(first) && first.error === "first")
          assert.isTrue(rest.some((reason) => Cause.isDieReason(reason) && reason.defect === "finalizer"))
        }
      }))

    it.effect("fails when a finalizer of a succeeding task fails", () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(
          Group.run((group) => Group.fork(group, Effect.addFinalizer(() => Effect.die("late"))))
        )
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      }))

    it.effect("never runs more tasks than its concurrency, and all of them once", () =>
      Effect.gen(function*() {
        let running = 0
        let peak = 0
        let total = 0
        const task = Effect.gen(function*() {
          peak = Math.max(peak, ++running)
          total++
          yield* Effect.yieldNow
          running--
        })
        yield* Group.run((group) => Effect.forEach(Array.from({ length: 100 }), () => Group.fork(group, task)), {
          concurrency: 3
        })
        assert.deepStrictEqual([peak, total, running], [3, 100, 0])
      }))

    it.effect("releases a producer that waits for a slot with the group's cause", () =>
      Effect.gen(function*() {
        const seen = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
        const exit = yield* Effect.exit(Group.run((group) =>
          Effect.gen(function*() {
            yield* Group.fork(group, Effect.andThen(Effect.yieldNow, Effect.fail("root")))
            return yield* Group.fork(group, Effect.never).pipe(Effect.onExit((exit) => Deferred.succeed(seen, exit)))
          }), { concurrency: 1 }))
        assert.deepStrictEqual(exit, Exit.fail("root"))
        const released = yield* Deferred.await(seen)
        assert.isTrue(Exit.isFailure(released) && Option.contains(Cause.findErrorOption(released.cause), "root"))
      }))

    it.effect("tryFork never waits", () =>
      Effect.gen(function*() {
        const [first, second] = yield* Group.run(
          (group) => Effect.all([Group.tryFork(group, Effect.yieldNow), Group.tryFork(group, Effect.yieldNow)]),
          { concurrency: 1 }
        )
        assert.isTrue(Option.isSome(first) && Option.isNone(second))
      }))

    it.effect("interrupting it interrupts every task and waits for them", () =>
      Effect.gen(function*() {
        let gone = 0
        const task = Effect.never.pipe(Effect.onInterrupt(() => Effect.sync(() => gone++)))
        const fiber = yield* Effect.forkChild(
          Group.run((group) => Effect.andThen(Group.fork(group, task), Group.fork(group, task))),
          { startImmediately: true }
        )
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(gone, 2)
      }))

    it.effect("a task that is stopped is no failure, one that a stranger interrupts is", () =>
      Effect.gen(function*() {
        const stopped = yield* Effect.exit(
          Group.run((group) => Effect.flatMap(Group.fork(group, Effect.never), Routine.stop))
        )
        assert.deepStrictEqual(stopped, Exit.succeed("stopped" as const))
        const interrupted = yield* Effect.exit(
          Group.run((group) => Effect.flatMap(Group.fork(group, Effect.never), Routine.interrupt))
        )
        assert.isTrue(Exit.isFailure(interrupted) && Cause.hasInterruptsOnly(interrupted.cause))
      }))

    it.effect("rejects a concurrency that is not a positive integer, naming it", () =>
      Effect.gen(function*() {
        for (const concurrency of [0, -1, 1.5, NaN]) {
          const exit = yield* Effect.exit(Group.run(() => Effect.void, { concurrency }))
          assert.isTrue(Exit.isFailure(exit) && String(Cause.squash(exit.cause)).endsWith(`got: ${concurrency}`))
        }
      }))

    it.effect("its tasks inherit the span of whoever forks them", () =>
      Effect.gen(function*() {
        const task = yield* Group.run((group) =>
          Effect.flatMap(Group.fork(group, Effect.map(Effect.currentSpan, (span) => span.name)), Routine.join)
        ).pipe(Effect.withSpan("request"))
        assert.strictEqual(task, "request")
      }))

    it.effect("is listed below the orchestrator while it runs, and leaves nothing behind", () =>
      Effect.gen(function*() {
        const paths = yield* Group.run((group) =>
          Effect.andThen(
            Group.fork(group, Effect.yieldNow, { name: "task" }),
            Effect.map(Orchestrator.snapshot, (nodes) => nodes.map((node) => node.path))
          ), { name: "import" })
        assert.deepStrictEqual(paths, ["/orchestra", "/orchestra/import", "/orchestra/import/task"])
        assert.strictEqual((yield* Orchestrator.snapshot).length, 1)
      }).pipe(Effect.provide(Orchestrator.layer)))
  })

  it.effect(
    "whatever its tasks do: within its limit, the first failure leads, all ended and nothing left",
    () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < seeds; seed++) {
          yield* Effect.gen(function*() {
            let running = 0
            let peak = 0
            let started = 0
            let ended = 0
            const failures: Array<string> = []
            const task = (index: number, millis: number, fails: boolean) =>
              Effect.gen(function*() {
                started++
                peak = Math.max(peak, ++running)
                yield* Effect.addFinalizer(() =>
                  Effect.sync(() => {
                    running--
                    ended++
                  })
                )
                yield* Effect.sleep(millis)
                if (!fails) return index
                failures.push(`task ${index}`)
                return yield* Effect.fail(`task ${index}`)
              })
            const limit = yield* Random.nextIntBetween(1, 5)
            const count = yield* Random.nextIntBetween(0, 12)
            const failing = yield* Random.nextIntBetween(0, 20)
            const plan = yield* Effect.forEach(
              Array.from({ length: count }, (_, index) => index),
              (index) => Effect.map(Random.nextIntBetween(1, 10), (millis) => task(index, millis, index === failing))
            )
            const fiber = yield* Effect.forkChild(
              Effect.exit(Group.run((group) => Effect.forEach(plan, (effect) => Group.fork(group, effect)), {
                concurrency: limit
              })),
              { startImmediately: true }
            )
            yield* TestClock.adjust("200 millis")
            const exit = yield* Fiber.join(fiber)
            assert.isAtMost(peak, limit, `seed ${seed}`)
            assert.deepStrictEqual([running, ended], [0, started], `seed ${seed}`)
            if (failing < count) assert.deepStrictEqual(exit, Exit.fail(failures[0] ?? "none failed"), `seed ${seed}`)
            else assert.isTrue(Exit.isSuccess(exit) && started === count, `seed ${seed}`)
            assert.strictEqual((yield* Orchestrator.snapshot).length, 1, `seed ${seed}`)
          }).pipe(Random.withSeed(`group ${seed}`))
        }
      }).pipe(Effect.provide(Orchestrator.layer)),
    120_000
  )
})
