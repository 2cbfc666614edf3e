import { Orchestrator, Routine } from "@effect-orchestra/core"
import { TestOrchestra } from "@effect-orchestra/core/testing"
import { Child, Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  FiberSet,
  Layer,
  Option,
  Pool,
  Random,
  RcMap,
  Resource,
  Schedule,
  Scope,
  Stream
} from "effect"
import { TestClock } from "effect/testing"

class Service extends Context.Service<Service, string>()("test/Service") {}
class Other extends Context.Service<Other, string>()("test/Other") {}

type AnyLayer = Layer.Layer<never, unknown>

const settle = Effect.gen(function*() {
  for (let i = 0; i < 10; i++) yield* Effect.yieldNow
})

/** A fiber's work that fails, once the gate is open. */
const gated = () => {
  const gate = Deferred.makeUnsafe<never, string>()
  return { failing: Deferred.await(gate), open: Deferred.fail(gate, "lost") }
}

/** A supervisor of a child that runs this layer once. */
const spec = (layer: AnyLayer, linkForks = true) =>
  Supervisor.make({
    name: "app",
    strategy: "one_for_one",
    children: [Child.layer("child", layer, { linkForks, restart: "temporary" })]
  })

/** Starts such a child, and gives its routine when it is ready. */
const started = Effect.fnUntraced(function*(layer: AnyLayer, linkForks = true) {
  const ref = yield* Supervisor.start(spec(layer, linkForks))
  const [child] = yield* Supervisor.whichChildren(ref)
  return child?.routine ?? assert.fail("no child")
})

/** Starts the child, opens the gate when it is ready, and tells what became of it. */
const outcome = Effect.fnUntraced(function*(
  make: (failing: Effect.Effect<never, string>) => AnyLayer,
  linkForks: boolean
) {
  const { failing, open } = gated()
  const routine = yield* started(make(failing), linkForks)
  assert.isTrue((yield* Routine.snapshot(routine)).ready)
  yield* open
  yield* settle
  yield* TestClock.adjust("1 minute")
  const { state } = yield* Routine.snapshot(routine)
  return state === "running" ? "running" : yield* Routine.await(routine)
}, Effect.scoped)

type Row = (failing: Effect.Effect<never, string>) => AnyLayer

const lost = Exit.fail("lost")

/** A layer whose build forks this. */
const forking = <E>(fork: Effect.Effect<unknown, E, Scope.Scope>): AnyLayer =>
  Layer.effect(Service, Effect.as(fork, "service"))

const caught: { readonly [name: string]: Row } = {
  "forkScoped in Layer.effect": (failing) => forking(Effect.forkScoped(failing)),
  "in Layer.effectDiscard": (failing) => Layer.effectDiscard(Effect.forkScoped(failing)),
  "in a layer that is provided to another": (failing) =>
    Layer.effect(Other, Effect.map(Service, (service) => service)).pipe(
      Layer.provide(Layer.effect(Service, Effect.as(Effect.forkScoped(failing), "service")))
    ),
  "in one of several merged layers": (failing) =>
    Layer.mergeAll(
      Layer.succeed(Other, "other"),
      Layer.effectDiscard(Effect.void),
      forking(Effect.forkScoped(failing))
    ),
  "in a layer that two others share": (failing) => {
    const shared = Layer.effect(Service, Effect.as(Effect.forkScoped(failing), "service"))
    const first = Layer.provide(Layer.effectDiscard(Service), shared)
    const second = Layer.provide(Layer.effect(Other, Service), shared)
    return Layer.merge(first, second)
  },
  "in a layer that an effect gives": (failing) => Layer.unwrap(Effect.sync(() => forking(Effect.forkScoped(failing)))),
  "forkIn the scope": (failing) => forking(Effect.flatMap(Effect.scope, (scope) => Effect.forkIn(failing, scope))),
  "forked when one before has ended": (failing) =>
    forking(Effect.gen(function*() {
      yield* Fiber.join(yield* Effect.forkScoped(Effect.void))
      yield* Effect.forkScoped(failing)
    })),
  "in a scope that is forked of it": (failing) =>
    forking(Effect.gen(function*() {
      const below = yield* Scope.fork(yield* Scope.fork(yield* Effect.scope, "parallel"))
      yield* Effect.forkIn(failing, below)
    })),
  "Fiber.runIn the scope": (failing) =>
    forking(Effect.map(Effect.scope, (scope) => Fiber.runIn(Effect.runFork(failing), scope))),
  "a stream that runs in a forked fiber": (failing) =>
    forking(Effect.forkScoped(Stream.runDrain(Stream.fromEffect(failing)))),
  "a fiber that joins a FiberSet": (failing) =>
    forking(Effect.gen(function*() {
      const set = yield* FiberSet.make<never, string>()
      yield* FiberSet.run(set, failing)
      yield* Effect.forkScoped(FiberSet.join(set))
    }))
}

const notCaught: { readonly [name: string]: Row } = {
  "a fresh layer: it has a memo map of its own": (failing) => Layer.fresh(forking(Effect.forkScoped(failing))),
  "a layer that a layer builds by itself: it has a memo map below ours": (failing) =>
    forking(Layer.build(Layer.effectDiscard(Effect.forkScoped(failing)))),
  "a fiber that starts at once and fails on the spot": () =>
    forking(Effect.forkScoped(Effect.fail("lost"), { startImmediately: true })),
  "forkDetach": (failing) => forking(Effect.forkDetach(failing)),
  forkChild: (failing) => forking(Effect.forkChild(failing)),
  "a FiberSet that nobody joins": (failing) =>
    forking(Effect.flatMap(FiberSet.make<never, string>(), (set) => FiberSet.run(set, failing)))
}

const falseAlarms: { readonly [name: string]: Row } = {
  "a stream whose failure its PubSub hands on": (failing) =>
    forking(Stream.toPubSub(Stream.fromEffect(failing), { capacity: 1 }))
}

const ignored: { readonly [name: string]: Row } = {
  "a fiber that succeeds": (failing) => forking(Effect.forkScoped(Effect.ignore(failing))),
  "a fiber that its owner interrupts": () =>
    forking(Effect.gen(function*() {
      const fiber = yield* Effect.forkScoped(Effect.never)
      yield* Effect.forkScoped(Fiber.interrupt(fiber))
    })),
  "a stream that is read ahead, at its end": (failing) =>
    forking(Effect.gen(function*() {
      const two = Stream.concat(Stream.make(1), Stream.fromEffectDrain(Effect.ignore(failing)))
      // Nobody pulls: it is the reading ahead that ends.
      yield* Effect.asVoid(Stream.toPull(Stream.buffer(two, { capacity: 4 })))
    })),
  "a pool whose items cannot be acquired": (failing) => forking(Pool.make({ acquire: failing, size: 2 })),
  "a resource that cannot be refreshed": (failing) => {
    let refreshes = 0
    const acquire = Effect.suspend(() => refreshes++ === 0 ? Effect.succeed("first") : failing)
    return forking(Resource.auto(acquire, Schedule.spaced("1 second")))
  },
  "an RcMap whose look-up fails": (failing) =>
    forking(Effect.gen(function*() {
      const map = yield* RcMap.make({ lookup: () => failing, idleTimeToLive: "1 second" })
      yield* Effect.forkScoped(Effect.ignore(RcMap.get(map, "key")))
    })),
  "a stream that is shared": (failing) =>
    forking(Effect.gen(function*() {
      const shared = yield* Stream.share(Stream.fromEffect(failing), { capacity: 1 })
      yield* Effect.forkScoped(Effect.ignore(Stream.runDrain(shared)))
    }))
}

/** One test for each way of forking. */
const rows = (
  table: { readonly [name: string]: Row },
  expected: Exit.Exit<never, string> | "running"
) => {
  for (const [name, make] of Object.entries(table)) {
    it.effect(name, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* outcome(make, true), expected)
        assert.strictEqual(yield* outcome(make, false), "running")
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
  }
}

describe("a fiber that fails behind a layer", () => {
  describe("fails the child", () => {
    rows(caught, lost)

    it.effect("with its defect", () =>
      Effect.gen(function*() {
        const bug = new Error("bug")
        const exit = yield* outcome(
          (failing) => forking(Effect.forkScoped(Effect.catch(failing, () => Effect.die(bug)))),
          true
        )
        assert.deepStrictEqual(exit, Exit.die(bug))
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))

    it.effect("also before the layer is built, and then the build ends with its cause", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const held = Effect.acquireRelease(Effect.void, () => Effect.sync(() => log.push("released")))
        const layer = forking(
          Effect.andThen(held, Effect.andThen(Effect.forkScoped(Effect.fail("early")), Effect.never))
        )
        const failure = yield* Effect.flip(Supervisor.start(spec(layer)))
        assert.deepStrictEqual(failure.cause, Cause.fail("early"))
        assert.deepStrictEqual(log, ["released"])
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
  })

  describe("is not noticed", () => {
    rows(notCaught, "running")

    it.effect("forkChild, which lives as long as the fiber that builds: the run, or its part of several layers", () =>
      Effect.gen(function*() {
        for (const merged of [false, true]) {
          const log: Array<string> = []
          const work = Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("interrupted")))
          const layer = forking(Effect.forkChild(work, { startImmediately: true }))
          const child = yield* started(merged ? Layer.mergeAll(layer, Layer.effectDiscard(Effect.yieldNow)) : layer)
          yield* settle
          assert.deepStrictEqual(log, merged ? ["interrupted"] : [])
          yield* Routine.stop(child)
          assert.deepStrictEqual(log, ["interrupted"])
        }
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
  })

  describe("is a false alarm", () => {
    rows(falseAlarms, lost)

    it.effect("where the builder joins the fiber and handles its failure", () =>
      Effect.gen(function*() {
        const layer = forking(Effect.gen(function*() {
          const fiber = yield* Effect.forkScoped(Effect.fail("lost"))
          yield* Effect.ignore(Fiber.join(fiber))
        }))
        for (const link of [true, false]) {
          const exit = yield* Effect.exit(started(layer, link))
          assert.strictEqual(Exit.isFailure(exit), link)
        }
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
  })

  describe("is rightly ignored", () => {
    rows(ignored, "running")

    it.effect("what is forked after the build, into its scope or into one that was forked of it", () =>
      Effect.gen(function*() {
        for (const below of [false, true]) {
          const { failing, open } = gated()
          const given = yield* Deferred.make<Scope.Scope>()
          const scopes = Effect.flatMap(Effect.scope, (scope) => below ? Scope.fork(scope) : Effect.succeed(scope))
          const layer = forking(Effect.gen(function*() {
            const scope = yield* scopes
            yield* Scope.addFinalizer(scope, Effect.void)
            yield* Deferred.succeed(given, scope)
          }))
          const child = yield* started(layer)
          const scope = yield* Deferred.await(given)
          yield* Effect.forkIn(failing, scope)
          yield* Effect.forkIn(failing, yield* Scope.fork(scope))
          yield* open
          yield* settle
          assert.strictEqual((yield* Routine.snapshot(child)).state, "running")
        }
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))

    it.effect("a fiber that dies of being stopped: with a build that has failed, or with the child", () =>
      Effect.gen(function*() {
        const dying = Effect.onInterrupt(Effect.never, () => Effect.die("while it was stopped"))
        const forked = Effect.andThen(Effect.forkScoped(dying), settle)
        const failing = forking(Effect.andThen(forked, Effect.fail("no")))
        const failure = yield* Effect.flip(Supervisor.start(spec(failing)))
        assert.deepStrictEqual(failure.cause, Cause.fail("no"))
        const child = yield* started(forking(forked))
        yield* Routine.stop(child)
        assert.strictEqual((yield* Routine.snapshot(child)).state, "interrupted")
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))

    it.effect("a fiber of a run that does not end, when another has taken its place", () =>
      Effect.gen(function*() {
        const { failing, open } = gated()
        let runs = 0
        const first = Effect.gen(function*() {
          const below = yield* Scope.fork(yield* Effect.scope)
          yield* Effect.forkIn(failing, below)
          // What stands above is closed first, and takes an hour: the fiber below is not stopped before that.
          yield* Effect.addFinalizer(() => Effect.sleep("1 hour"))
          yield* Effect.forkScoped(Effect.andThen(Effect.sleep("1 second"), Effect.fail("the first run")))
        })
        const layer = forking(Effect.suspend(() => ++runs === 1 ? first : Effect.void))
        const options = { onUnstoppable: "replace", shutdown: "1 second" } as const
        const replacing = Supervisor.make({
          name: "app",
          strategy: "one_for_one",
          children: [Child.layer("child", layer, options)]
        })
        yield* TestClock.adjust(0)
        const ref = yield* Supervisor.start(replacing)
        yield* TestClock.adjust("2 seconds")
        yield* settle
        assert.strictEqual(runs, 2)
        yield* open
        yield* settle
        const [child] = yield* Supervisor.whichChildren(ref)
        assert.deepStrictEqual([child?.state, child?.incarnation], ["running", 2])
        yield* TestClock.adjust("1 hour")
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
  })

  it.effect("a scope is left as it was found: its finalizers run once, in reverse order, and with none it is empty", () =>
    Effect.gen(function*() {
      for (const count of [0, 1, 3]) {
        const log: Array<number> = []
        let scope: Scope.Scope | undefined
        const layer = forking(Effect.gen(function*() {
          scope = yield* Effect.scope
          for (let i = 0; i < count; i++) yield* Effect.addFinalizer(() => Effect.sync(() => log.push(i)))
          yield* Effect.forkScoped(Effect.void)
        }))
        const child = yield* started(layer)
        yield* settle
        assert.strictEqual(scope?.state._tag, count === 0 ? "Empty" : "Open")
        yield* Routine.stop(child)
        assert.deepStrictEqual(log, [0, 1, 2].slice(0, count).reverse())
      }
    }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))

  const seeds = Number(process.env["SEEDS"] ?? 200)

  it.effect(
    "in any order of the build and its fibers, the first failure is that of the child, and nothing is left open",
    () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < seeds; seed++) {
          let open = 0
          const program = Effect.gen(function*() {
            const failures: Array<string> = []
            const self = yield* Deferred.make<Routine.Routine<unknown, unknown>>()
            const held = Effect.acquireRelease(Effect.sync(() => void open++), () =>
              Effect.andThen(Effect.yieldNow, Effect.sync(() => void open--)))
            const part = (name: string) =>
              Layer.effectDiscard(Effect.gen(function*() {
                const current = yield* Routine.current
                if (Option.isSome(current)) {
                  yield* Deferred.succeed(self, current.value)
                }
                yield* held
                const turns = yield* Random.nextIntBetween(0, 6)
                const fails = yield* Random.nextBoolean
                const work = Effect.gen(function*() {
                  for (let i = 0; i < turns; i++) {
                    yield* Effect.yieldNow
                  }
                  if (!fails) {
                    return
                  }
                  failures.push(name)
                  return yield* Effect.fail(name)
                })
                yield* Effect.forkScoped(Effect.andThen(held, work))
                yield* Effect.yieldNow
              }))
            const layer = Layer.mergeAll(part("a"), part("b"), Layer.provideMerge(part("c"), part("d")))
            const exit = yield* Effect.exit(Effect.scoped(Effect.gen(function*() {
              yield* Supervisor.start(spec(layer))
              const child = yield* Deferred.await(self)
              // In virtual time that is until there is nothing else to do.
              yield* Effect.sleep("1 second")
              const { state } = yield* Routine.snapshot(child)
              assert.strictEqual(state, failures.length === 0 ? "running" : "failed")
              if (failures.length > 0) {
                yield* Routine.join(child)
              }
            })))
            const cause = Exit.isSuccess(exit) ? Cause.empty : exit.cause
            const error = Cause.squash(cause)
            const told = error instanceof SupervisorError.StartFailure ? Cause.squash(error.cause) : error
            if (failures.length > 0) {
              assert.include(failures, told, Cause.pretty(cause))
            } else assert.deepStrictEqual(exit, Exit.void)
            assert.strictEqual(open, 0)
          })
          const exit = yield* Effect.exit(TestOrchestra.run(program, { seed, yieldChance: 0.25 }))
          if (Exit.isFailure(exit)) {
            assert.fail(`seed ${seed}: ${Cause.pretty(exit.cause)}`)
          }
        }
      }),
    120_000
  )
})
