import { Orchestrator, Routine } from "@effect-orchestra/core"
import { type Keeper, RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import { atEveryOperation, TestOrchestra } from "@effect-orchestra/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Option, Random, Scope, Tracer } from "effect"
import { TestClock } from "effect/testing"

/** A routine that hands out its owner, and then does what it is told. */
const owned = Effect.fnUntraced(function*<A, E>(rest: Effect.Effect<A, E>, options?: Routine.RoutineOptions) {
  const owner = yield* Deferred.make<Routine.Owner>()
  const given = Effect.flatMap(Routine.owner, (own) => Deferred.succeed(owner, own))
  const routine = yield* Orchestrator.fork(Effect.andThen(given, rest), { name: "owner", ...options })
  return { routine, owner: yield* Deferred.await(owner) }
})

const paths = Effect.map(Orchestrator.list, (routines) => routines.map(({ path }) => path))

const settle = Effect.gen(function*() {
  for (let i = 0; i < 10; i++) yield* Effect.yieldNow
})

describe("Routine.owner", () => {
  it.effect("forks below the owner, whoever calls it, and is stopped with its run, finalizers and all", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const { owner, routine } = yield* owned(Effect.never)
      const work = Effect.acquireRelease(Effect.void, () => Effect.sync(() => log.push("work is over")))
      const request = Effect.scoped(
        Effect.andThen(owner.fork(Effect.andThen(work, Effect.never), { name: "work" }), paths)
      )
      assert.deepStrictEqual(yield* request, ["/orchestra/owner", "/orchestra/owner/work"])
      yield* settle
      assert.deepStrictEqual(yield* paths, ["/orchestra/owner", "/orchestra/owner/work"])
      assert.deepStrictEqual(log, [])
      assert.strictEqual(yield* Routine.stop(routine), "stopped")
      assert.deepStrictEqual(log, ["work is over"])
      assert.deepStrictEqual(yield* paths, [])
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("stops what it forked also when the owner's run ends by itself", () =>
    Effect.gen(function*() {
      const end = yield* Deferred.make<string>()
      const { owner, routine } = yield* owned(Deferred.await(end))
      const work = yield* owner.fork(Effect.never)
      yield* Deferred.succeed(end, "done")
      assert.deepStrictEqual(yield* Routine.await(routine), Exit.succeed("done"))
      const told = Option.getOrUndefined(Routine.cancellation(yield* Routine.await(work)))
      assert.deepStrictEqual(told, { reason: "scope_closed", requester: "/orchestra/owner" })
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("a failure or a defect fails the owner with its cause; success and interruption do not", () =>
    Effect.gen(function*() {
      for (const cause of [Cause.fail("no"), Cause.die(new Error("bug"))]) {
        const { owner, routine } = yield* owned(Effect.never)
        yield* Effect.flatMap(owner.fork(Effect.succeed(1)), Routine.join)
        yield* Effect.flatMap(owner.fork(Effect.never), Routine.interrupt)
        yield* settle
        assert.strictEqual((yield* Routine.snapshot(routine)).state, "running")
        const sibling = yield* owner.fork(Effect.never)
        const work = yield* owner.fork(Effect.andThen(Effect.yieldNow, Effect.failCause(cause)))
        assert.deepStrictEqual(yield* Routine.await(routine), Exit.failCause(cause))
        assert.deepStrictEqual(yield* Routine.await(work), Exit.failCause(cause))
        assert.isTrue(Exit.isFailure(yield* Routine.await(sibling)))
      }
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("a failure on the spot, forked in the owner's first step, fails the owner too", () =>
    Effect.gen(function*() {
      const body = Effect.gen(function*() {
        const owner = yield* Routine.owner
        yield* Effect.orDie(owner.fork(Effect.fail("at once")))
        return yield* Effect.never
      })
      const routine = yield* Orchestrator.fork(body)
      assert.deepStrictEqual(yield* Routine.await(routine), Exit.fail("at once"))
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("forks nothing once the run has ended, nor while its finalizers run", () =>
    Effect.gen(function*() {
      const late: Array<string> = []
      const held = Effect.addFinalizer(() =>
        Effect.gen(function*() {
          const owner = yield* Routine.owner
          late.push((yield* Effect.orDie(Effect.flip(owner.fork(Effect.never))))._tag)
        })
      )
      const end = yield* Deferred.make<void>()
      const { owner, routine } = yield* owned(Effect.scoped(Deferred.await(end)))
      const closing = yield* Orchestrator.fork(Effect.andThen(held, Effect.yieldNow), { name: "closing" })
      yield* Deferred.succeed(end, undefined)
      yield* Routine.await(routine)
      const error = yield* Effect.flip(owner.fork(Effect.never))
      assert.strictEqual(error._tag, "RunEnded")
      assert.strictEqual(
        error.message,
        "run 1 of /orchestra/owner has ended: nothing is forked on its behalf any more"
      )
      yield* Routine.await(closing)
      assert.deepStrictEqual(late, ["RunEnded"])
      assert.deepStrictEqual(yield* paths, [])
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("of one run forks nothing into the next, and is not failed by it", () =>
    Effect.gen(function*() {
      const { kernel } = yield* Orchestrator
      const context = yield* Effect.context<never>()
      const owners: Array<Routine.Owner> = []
      const ends: Array<Exit.Exit<unknown, unknown>> = []
      const body = Effect.andThen(Effect.map(Routine.owner, (owner) => owners.push(owner)), Effect.never)
      const start = (record: RoutineRecord) =>
        record.start(body, context, { readyNow: true, scope: Scope.makeUnsafe() })
      const keeper: Keeper = {
        ready: () => {},
        exited: () => {},
        closed: (record, exit, now) => {
          if (ends.push(exit) < 2) start(record)
          else record.settle(exit, now)
        },
        stopChild: (record, limits) => record.stopRun(limits, () => {})
      }
      const record = new RoutineRecord(kernel, kernel, { name: "child" }, keeper)
      start(record)
      assert.strictEqual(owners.length, 1)
      const [first] = owners
      const work = yield* first?.fork(Effect.andThen(Effect.yieldNow, Effect.fail("the first run"))) ??
        Effect.die("none")
      yield* Routine.await(work)
      yield* settle
      const [, second] = owners
      const error = yield* Effect.flip(first?.fork(Effect.never) ?? Effect.die("none"))
      assert.strictEqual(error.message, "run 1 of /orchestra/child has ended: nothing is forked on its behalf any more")
      yield* second?.fork(Effect.andThen(Effect.yieldNow, Effect.fail("the second run"))) ?? Effect.die("none")
      yield* Routine.await(record)
      assert.deepStrictEqual(ends, [Exit.fail("the first run"), Exit.fail("the second run")])
      assert.deepStrictEqual(yield* paths, [])
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("asked for by a fiber that has outlived the run, it forks nothing", () =>
    Effect.gen(function*() {
      const go = yield* Deferred.make<void>()
      const asked = Effect.andThen(
        Deferred.await(go),
        Effect.flatMap(Routine.owner, (owner) => Effect.flip(owner.fork(Effect.never)))
      )
      const routine = yield* Orchestrator.fork(Effect.forkDetach(asked))
      const fiber = yield* Routine.join(routine)
      yield* Deferred.succeed(go, undefined)
      assert.strictEqual((yield* Fiber.join(fiber))._tag, "RunEnded")
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("forks nothing when shutdown has begun", () =>
    Effect.gen(function*() {
      const drained = yield* Deferred.make<string>()
      const drain = Effect.gen(function*() {
        const error = yield* Effect.orDie(Effect.flip((yield* Deferred.await(given)).fork(Effect.void)))
        yield* Deferred.succeed(drained, error._tag)
      })
      const given = yield* Deferred.make<Routine.Owner>()
      const { owner } = yield* owned(Effect.never, { drain })
      yield* Deferred.succeed(given, owner)
      yield* Orchestrator.shutdown()
      assert.strictEqual(yield* Deferred.await(drained), "OrchestratorClosed")
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("with awaitReady returns when the routine is ready, and fails with NotReady in time", () =>
    Effect.gen(function*() {
      const { owner } = yield* owned(Effect.never)
      const ready = Effect.andThen(Effect.sleep("1 second"), Effect.andThen(Routine.ready, Effect.never))
      const options = { ready: "signal", awaitReady: true } as const
      const forking = yield* Effect.forkChild(owner.fork(ready, options), { startImmediately: true })
      yield* TestClock.adjust("999 millis")
      assert.isUndefined(forking.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      assert.isTrue((yield* Routine.snapshot(yield* Fiber.join(forking))).ready)
      const slow = yield* Effect.forkChild(
        Effect.flip(owner.fork(Effect.never, { ...options, startTimeout: "1 second" })),
        { startImmediately: true }
      )
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* Fiber.join(slow))._tag, "NotReady")
      assert.deepStrictEqual(yield* paths, ["/orchestra/owner", "/orchestra/owner/routine"])
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("gives the routine the services of the caller, a scope of its own, and no span", () =>
    Effect.gen(function*() {
      class Region extends Context.Service<Region, string>()("test/Region") {}
      const { owner } = yield* owned(Effect.never)
      const work = Effect.gen(function*() {
        const scope = yield* Effect.scope
        const span = Context.getOption(yield* Effect.context<never>(), Tracer.ParentSpan)
        return { region: yield* Region, scope, span: span._tag }
      })
      const seen = yield* Effect.scoped(Effect.gen(function*() {
        const mine = yield* Effect.scope
        const { region, scope, span } = yield* Effect.flatMap(owner.fork(work), Routine.join)
        return { region, span, isMine: scope === mine }
      })).pipe(Effect.provideService(Region, "eu"), Effect.withSpan("request"))
      assert.deepStrictEqual(seen, { region: "eu", span: "None", isMine: false })
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("the line that called owner.fork is its fork site", () =>
    Effect.gen(function*() {
      const { owner } = yield* owned(Effect.never)
      const work = yield* owner.fork(Effect.never)
      assert.match((yield* Routine.snapshot(work)).forkSite ?? "", /Owner\.test\.ts:\d+:\d+/)
    }).pipe(Effect.provide(Orchestrator.layerWith({ forkSites: true }))))

  it.effect("outside a routine there is none: a defect", () =>
    Effect.gen(function*() {
      const exit = yield* Effect.exit(Routine.owner)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      assert.include(String(Exit.isFailure(exit) && Cause.squash(exit.cause)), "belongs inside a routine, got:")
    }))

  it.effect("interrupted at any operation, a caller leaves nothing that its owner does not stop", () =>
    Effect.gen(function*() {
      let open = 0
      const resource = Effect.acquireRelease(Effect.sync(() => void open++), () => Effect.sync(() => void open--))
      const body = Effect.andThen(
        resource,
        Effect.andThen(Effect.yieldNow, Effect.andThen(Routine.ready, Effect.never))
      )
      let present: { readonly routine: Routine.Routine<never>; readonly owner: Routine.Owner } | undefined
      for (const options of [{}, { ready: "signal", awaitReady: true } as const]) {
        const operations = yield* atEveryOperation(
          Effect.gen(function*() {
            present = undefined
            const { owner, routine } = yield* owned(Effect.never)
            present = { owner, routine }
            yield* owner.fork(body, options)
            yield* Effect.yieldNow
          }),
          () =>
            Effect.gen(function*() {
              for (const { id, path } of yield* Orchestrator.list) {
                assert.include(path, "/orchestra/owner", id)
              }
              if (present === undefined) yield* Orchestrator.interruptAll()
              else {
                // Nobody else may hold it: its end is the end of all.
                yield* Routine.stop(present.routine)
                assert.strictEqual((yield* Effect.flip(present.owner.fork(Effect.void)))._tag, "RunEnded")
              }
              assert.deepStrictEqual(yield* paths, [])
              assert.strictEqual(open, 0)
            })
        )
        assert.isAbove(operations, 20)
      }
    }).pipe(Effect.provide(Orchestrator.layer)))

  const seeds = Number(process.env["SEEDS"] ?? 200)

  it.effect(
    "in any order of callers and the owner's end, a fork fails with RunEnded or is stopped with the run",
    () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < seeds; seed++) {
          let open = 0
          let opened = 0
          const resource = Effect.acquireRelease(
            Effect.sync(() => {
              open++
              opened++
            }),
            () => Effect.andThen(Effect.yieldNow, Effect.sync(() => void open--))
          )
          const program = Effect.gen(function*() {
            const turns = yield* Random.nextIntBetween(0, 20)
            const end = Effect.forEach(Array.from({ length: turns }), () => Effect.yieldNow)
            const { owner, routine } = yield* owned(end)
            const call = Effect.gen(function*() {
              for (let forks = 0; forks < 100; forks++) {
                const work = Effect.andThen(resource, (yield* Random.nextBoolean) ? Effect.void : Effect.never)
                yield* owner.fork(work)
                yield* Effect.yieldNow
              }
            })
            const errors = yield* Effect.forEach([1, 2, 3], () => Effect.flip(call), { concurrency: 3 })
            yield* Routine.await(routine)
            assert.deepStrictEqual(errors.map(({ _tag }) => _tag), ["RunEnded", "RunEnded", "RunEnded"])
            assert.strictEqual(open, 0, `of ${opened}`)
            assert.deepStrictEqual(yield* paths, [])
          })
          const exit = yield* Effect.exit(TestOrchestra.run(program, { seed, yieldChance: 0.25 }))
          if (Exit.isFailure(exit)) assert.fail(`seed ${seed}: ${Cause.pretty(exit.cause)}`)
        }
      }),
    120_000
  )
})
