import { Orchestrator, Routine } from "@effect-orchestra/core"
import { atEveryOperation } from "@effect-orchestra/core/testing"
import { Child, Registry, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Context, Data, Deferred, Effect, Exit, Fiber, Layer, Option, Queue, Random, Schedule, Scope } from "effect"
import { TestClock } from "effect/testing"
import { LockModel, RegistryModel } from "./model/Registry.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

const layer = Layer.provideMerge(Registry.layer, Orchestrator.layer)

const test = <A, E>(body: Effect.Effect<A, E, Orchestrator | Registry | Scope.Scope>) => () =>
  Effect.provide(body, layer)

const settle = Effect.forEach(Array.from({ length: 10 }), () => Effect.yieldNow, { discard: true })

const forked = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

type Needs = Registry | Scope.Scope | Orchestrator

/** A routine's effect that does what it is told, in its own fiber, until it is told to fail. */
class Actor {
  private readonly commands = Effect.runSync(Queue.unbounded<Effect.Effect<void, string, Needs>>())
  routine: Routine.Routine<unknown, unknown> | undefined = undefined

  readonly effect: Effect.Effect<never, string, Needs> = Effect.gen({ self: this }, function*() {
    this.routine = Option.getOrUndefined(yield* Routine.current)
    return yield* Effect.forever(Effect.flatten(Queue.take(this.commands)))
  })

  /** What it says to an effect that it runs. */
  run<A, E>(effect: Effect.Effect<A, E, Needs>): Effect.Effect<A, E> {
    const answer = Deferred.makeUnsafe<A, E>()
    const command = Effect.flatMap(Effect.exit(effect), (exit) => Effect.asVoid(Deferred.done(answer, exit)))
    return Effect.andThen(Queue.offer(this.commands, command), Deferred.await(answer))
  }

  private tell(command: Effect.Effect<void, string>): Effect.Effect<void> {
    return Effect.andThen(Queue.offer(this.commands, command), settle)
  }

  readonly fail = this.tell(Effect.fail("told to"))
  readonly die = this.tell(Effect.die("told to"))

  get stop(): Effect.Effect<void> {
    return this.routine === undefined ? Effect.void : Effect.asVoid(Routine.stop(this.routine))
  }
}

const fork = (name: string) =>
  Effect.gen(function*() {
    const actor = new Actor()
    yield* Orchestrator.fork(actor.effect, { name })
    return actor
  })

/** Actors as the children of a supervisor, which are restarted after a second. */
const supervised = <const Names extends ReadonlyArray<string>>(...names: Names) =>
  Effect.gen(function*() {
    const actors = names.map((name) => [name, new Actor()] as const)
    yield* Supervisor.start(Supervisor.make({
      name: "app",
      strategy: "one_for_one",
      intensity: 1000,
      children: actors.map(([name, actor]) =>
        Child.make(name, actor.effect, { backoff: Schedule.spaced("1 second"), restart: "transient" })
      )
    }))
    return Object.fromEntries(actors) as { readonly [Name in Names[number]]: Actor }
  })

const Rooms = Registry.unique<number>("rooms")
const Listeners = Registry.duplicate<number>("listeners")

const nothingHeld = Effect.gen(function*() {
  assert.deepStrictEqual(yield* Registry.stats, [])
})

describe("Registry", () => {
  describe("a unique name", () => {
    it.effect(
      "146. is refused to a second, who is told the holder, and is free in the same step in which the holder ends",
      test(Effect.gen(function*() {
        const context = yield* Effect.context<Needs>()
        const takeOver: Array<string> = []
        // Told of the final state while the writer makes it, before anybody who waits for it.
        yield* Orchestrator.instrument((event) => {
          if (event._tag !== "Stopped") return
          const exit = Effect.runSyncExitWith(context)(Registry.register(Rooms, event.name, 2))
          takeOver.push(`${event.name} ${event.state} ${exit._tag}`)
        })
        for (
          const [name, end] of [
            ["failed", (actor: Actor) => actor.fail],
            ["died", (actor: Actor) => actor.die],
            ["interrupted", ({ routine }: Actor) => routine === undefined ? Effect.void : Routine.interrupt(routine)],
            ["stopped", (actor: Actor) => actor.stop]
          ] as const
        ) {
          const actor = yield* fork(name)
          yield* actor.run(Registry.register(Rooms, name, 1))
          const refused = yield* Effect.flip(Registry.register(Rooms, name, 0))
          assert.strictEqual(refused._tag, "AlreadyRegistered")
          assert.strictEqual(refused.message, `registry rooms: /orchestra/${name} holds "${name}"`)
          assert.deepStrictEqual(yield* Registry.lookup(Rooms, name), Option.some(1))
          yield* end(actor)
          assert.deepStrictEqual(yield* Registry.lookup(Rooms, name), Option.some(2))
        }
        assert.deepStrictEqual(takeOver, [
          "failed failed Success",
          "died defect Success",
          "interrupted interrupted Success",
          "stopped interrupted Success"
        ])
      }))
    )

    it.effect(
      "147. is kept for the next run of its child, which takes it at once and without a cost to the budget",
      test(Effect.gen(function*() {
        let runs = 0
        const die = Deferred.makeUnsafe<never, string>()
        const room = Effect.gen(function*() {
          yield* Registry.register(Rooms, "lobby", ++runs)
          return yield* runs === 1 ? Deferred.await(die) : Effect.never
        })
        yield* Supervisor.start(Supervisor.make({
          name: "app",
          strategy: "one_for_one",
          intensity: 1,
          children: [Child.make("lobby", room, { backoff: Schedule.spaced("1 second") })]
        }))
        assert.strictEqual(yield* Registry.whereis(Rooms, "lobby"), 1)
        yield* Deferred.fail(die, "no")
        yield* settle
        // Between the runs: held, not served.
        assert.deepStrictEqual(yield* Registry.lookup(Rooms, "lobby"), Option.none())
        const stranger = yield* fork("stranger")
        const refused = yield* Effect.flip(stranger.run(Registry.register(Rooms, "lobby", 0)))
        assert.strictEqual(refused.holder, "/orchestra/app/lobby")
        const waiting = yield* forked(Registry.whereis(Rooms, "lobby"))
        yield* TestClock.adjust("999 millis")
        assert.isUndefined(waiting.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* Fiber.join(waiting), 2)
        assert.deepStrictEqual(yield* Registry.lookup(Rooms, "lobby"), Option.some(2))
        const snapshot = yield* Effect.flatMap(Orchestrator, ({ find }) => find("/orchestra/app"))
        assert.deepStrictEqual(
          Option.map(snapshot, (node) => node.kind === "supervisor" ? node.budget.used : node.kind),
          Option.some(1)
        )
      }))
    )

    it.effect(
      "gets a new value when its routine registers it again",
      test(Effect.gen(function*() {
        const actor = yield* fork("a")
        yield* actor.run(Registry.register(Rooms, "x", 1))
        yield* actor.run(Effect.forkChild(Registry.register(Rooms, "x", 2)).pipe(Effect.flatMap(Fiber.join)))
        assert.deepStrictEqual(yield* Registry.lookup(Rooms, "x"), Option.some(2))
        assert.strictEqual(yield* Registry.count(Rooms), 1)
      }))
    )

    it.effect(
      "is free when a child ends for good, though it was kept before",
      test(Effect.gen(function*() {
        const { a, b } = yield* supervised("a", "b")
        yield* a.run(Registry.register(Rooms, "x", 1))
        yield* a.fail
        const waiting = yield* forked(Effect.flip(Registry.whereis(Rooms, "x")))
        yield* a.stop
        const failure = yield* Fiber.join(waiting)
        assert.strictEqual(failure.message, "registry rooms: nobody holds \"x\"")
        yield* b.run(Registry.register(Rooms, "x", 2))
        yield* b.stop
        yield* nothingHeld
      }))
    )

    it.effect(
      "is kept for a layer that registers it while it is built",
      test(Effect.gen(function*() {
        class Room extends Context.Service<Room, number>()("test/Room") {}
        const die = Deferred.makeUnsafe<never, string>()
        let runs = 0
        const RoomLive = Layer.effect(
          Room,
          Effect.gen(function*() {
            yield* Registry.register(Rooms, "x", ++runs)
            if (runs === 1) yield* Orchestrator.forkScoped(Deferred.await(die))
            return runs
          })
        )
        yield* Supervisor.start(Supervisor.make({
          name: "app",
          strategy: "one_for_one",
          children: [Child.layer("room", Layer.fresh(RoomLive), { backoff: Schedule.spaced("1 second") })]
        }))
        yield* Deferred.fail(die, "no")
        yield* settle
        const stats = { name: "rooms", kind: "unique", entries: 0, restarting: 1, waiting: 0, locked: 0 } as const
        assert.deepStrictEqual(yield* Registry.stats, [stats])
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* Registry.stats, [{ ...stats, entries: 1, restarting: 0 }])
        assert.strictEqual(yield* Registry.whereis(Rooms, "x"), 2)
      }))
    )

    it.effect(
      "is kept, and not served, while the finalizers of a run take their time",
      test(Effect.gen(function*() {
        const actor = yield* fork("a")
        yield* actor.run(Effect.addFinalizer(() =>
          // What is registered by then belongs to no run.
          Effect.andThen(
            Effect.andThen(Registry.register(Rooms, "late", 3), Registry.register(Listeners, "late", 3)),
            Effect.sleep("1 second")
          ).pipe(Effect.ignore)
        ))
        yield* actor.run(Registry.register(Rooms, "x", 1))
        yield* actor.fail
        assert.deepStrictEqual(yield* Registry.lookup(Rooms, "x"), Option.none())
        assert.deepStrictEqual(yield* Registry.lookup(Rooms, "late"), Option.none())
        assert.deepStrictEqual(yield* Registry.lookup(Listeners, "late"), [])
        assert.strictEqual((yield* Effect.flip(Registry.register(Rooms, "x", 2))).holder, "/orchestra/a")
        yield* TestClock.adjust("1 second")
        yield* nothingHeld
      }))
    )

    it.effect(
      "passes to the run that replaces one that cannot be stopped",
      test(Effect.gen(function*() {
        const a = new Actor()
        const release = Deferred.makeUnsafe<void>()
        let runs = 0
        const stuck = Effect.gen(function*() {
          const run = ++runs
          yield* Registry.register(Rooms, "x", run)
          yield* Registry.register(Listeners, "x", run)
          return yield* run === 1 ? Effect.uninterruptible(Deferred.await(release)) : Effect.never
        })
        yield* Supervisor.start(Supervisor.make({
          name: "app",
          strategy: "one_for_all",
          children: [
            Child.make("stuck", stuck, { shutdown: "1 second", onUnstoppable: "replace" }),
            Child.make("a", a.effect)
          ]
        }))
        yield* a.fail
        // Asked to stop, and not stopped: still its own.
        assert.deepStrictEqual(yield* Registry.lookup(Rooms, "x"), Option.some(1))
        yield* TestClock.adjust("1 second")
        yield* settle
        const replaced = Effect.gen(function*() {
          assert.deepStrictEqual(yield* Registry.lookup(Rooms, "x"), Option.some(2))
          assert.deepStrictEqual(yield* Registry.lookup(Listeners, "x"), [2])
        })
        yield* replaced
        yield* Deferred.succeed(release, undefined)
        yield* settle
        yield* replaced
      }))
    )

    it.effect(
      "is free when its routine is abandoned",
      test(Effect.gen(function*() {
        const stuck = Effect.uninterruptible(Effect.andThen(Registry.register(Rooms, "x", 1), Effect.never))
        const routine = yield* Orchestrator.fork(stuck, { name: "stuck", shutdown: "1 second" })
        const stopping = yield* forked(Routine.stop(routine))
        yield* TestClock.adjust("999 millis")
        assert.deepStrictEqual(yield* Registry.lookup(Rooms, "x"), Option.some(1))
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* Fiber.join(stopping), "abandoned")
        yield* nothingHeld
      }))
    )
  })

  describe("many entries of one key", () => {
    it.effect(
      "148. are all reached, vanish as their routines end, are given up twice without harm, and changed by no stranger",
      test(Effect.gen(function*() {
        const { a, b } = yield* supervised("a", "b")
        yield* a.run(Registry.register(Listeners, "news", 1))
        yield* b.run(Registry.register(Listeners, "news", 2))
        yield* a.run(Registry.register(Listeners, "news", 3))
        yield* b.run(Registry.register(Listeners, "other", 4))
        const heard: Array<string> = []
        const say = (key: string) =>
          Registry.dispatch(Listeners, key, (n) =>
            Effect.map(Routine.current, (routine) => {
              heard.push(`${n} by ${Option.match(routine, { onNone: () => "nobody", onSome: ({ name }) => name })}`)
            }))
        assert.strictEqual(yield* b.run(say("news")), 3)
        // In the caller.
        assert.deepStrictEqual(heard, ["1 by b", "2 by b", "3 by b"])
        heard.length = 0
        assert.strictEqual(yield* say("nobody"), 0)
        assert.deepStrictEqual(heard, [])
        assert.deepStrictEqual(yield* Registry.keys(Listeners), ["news", "other"])
        assert.strictEqual(yield* Registry.count(Listeners), 4)
        // Not those of others, and not twice.
        yield* Registry.unregister(Listeners, "news")
        assert.strictEqual(yield* Registry.count(Listeners), 4)
        yield* b.run(Registry.unregister(Listeners, "news"))
        yield* b.run(Registry.unregister(Listeners, "news"))
        assert.deepStrictEqual(yield* Registry.lookup(Listeners, "news"), [1, 3])
        // The run ends: nothing of it is left, neither now nor in the next.
        yield* a.fail
        assert.deepStrictEqual(yield* Registry.lookup(Listeners, "news"), [])
        yield* TestClock.adjust("1 second")
        yield* a.run(Registry.register(Listeners, "news", 5))
        assert.deepStrictEqual(yield* Registry.lookup(Listeners, "news"), [5])
        // A value belongs to its owner.
        yield* a.run(Registry.register(Rooms, "x", 1))
        const refused = yield* Effect.flip(b.run(Registry.updateValue(Rooms, "x", (n) => n + 1)))
        assert.strictEqual(refused.message, "registry rooms: the value of \"x\" belongs to /orchestra/app/a")
        yield* b.run(Registry.unregister(Rooms, "x"))
        assert.strictEqual(yield* a.run(Registry.updateValue(Rooms, "x", (n) => n + 1)), 2)
        assert.deepStrictEqual(yield* Registry.lookup(Rooms, "x"), Option.some(2))
        yield* a.stop
        yield* b.stop
        yield* nothingHeld
      }))
    )

    it.effect(
      "are not handed out by a dispatch once they have ended, nor those that came after it began",
      test(Effect.gen(function*() {
        const [a, b] = [yield* fork("a"), yield* fork("b")]
        yield* a.run(Registry.register(Listeners, "news", 1))
        yield* b.run(Registry.register(Listeners, "news", 2))
        const heard: Array<number> = []
        const reached = yield* Registry.dispatch(Listeners, "news", (n) => {
          heard.push(n)
          return Effect.andThen(a.run(Registry.register(Listeners, "news", 3)), b.stop)
        })
        assert.deepStrictEqual(heard, [1])
        assert.strictEqual(reached, 1)
        assert.deepStrictEqual(yield* Registry.lookup(Listeners, "news"), [1, 3])
      }))
    )

    it.effect(
      "are dispatched to at once when the caller says so, and no further after a failure",
      test(Effect.gen(function*() {
        for (const n of [1, 2, 3]) yield* Registry.register(Listeners, "news", n)
        const all = yield* forked(
          Registry.dispatch(Listeners, "news", () => Effect.sleep("1 second"), { concurrency: "unbounded" })
        )
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(all), 3)
        const heard: Array<number> = []
        const failing = Registry.dispatch(Listeners, "news", (n) => {
          heard.push(n)
          return n === 2 ? Effect.fail("no") : Effect.void
        })
        assert.strictEqual(yield* Effect.flip(failing), "no")
        assert.deepStrictEqual(heard, [1, 2])
      }))
    )
  })

  describe("whereis", () => {
    it.effect(
      "fails at once when nobody holds the name",
      test(Effect.gen(function*() {
        const failure = yield* Effect.flip(Registry.whereis(Rooms, "x"))
        assert.deepInclude(failure, {
          _tag: "NameUnavailable",
          registry: "rooms",
          key: "x",
          holder: null,
          waitedMillis: 0
        })
      }))
    )

    it.effect(
      "waits as long as its namespace says, then names the holder",
      test(Effect.gen(function*() {
        const Patient = Registry.unique<number>("patient", { wait: "700 millis" })
        const { a } = yield* supervised("a")
        yield* a.run(Registry.register(Patient, "x", 1))
        yield* a.fail
        const waiting = yield* forked(Effect.flip(Registry.whereis(Patient, "x")))
        yield* TestClock.adjust("699 millis")
        assert.isUndefined(waiting.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        const failure = yield* Fiber.join(waiting)
        assert.strictEqual(
          failure.message,
          "registry patient: /orchestra/app/a, which holds \"x\", was not back after 700 ms"
        )
        assert.strictEqual((yield* Registry.stats)[0]?.waiting, 0)
      }))
    )

    it.effect(
      "waits through several restarts within its bound, and for a run that registers late",
      test(Effect.gen(function*() {
        const { a } = yield* supervised("a")
        yield* a.run(Registry.register(Rooms, "x", 1))
        yield* a.fail
        const waiting = yield* Effect.forEach([1, 2, 3], () => forked(Registry.whereis(Rooms, "x")))
        assert.strictEqual((yield* Registry.stats)[0]?.waiting, 3)
        yield* TestClock.adjust("1 second")
        yield* a.fail
        yield* TestClock.adjust("2 seconds")
        assert.isTrue(waiting.every((fiber) => fiber.pollUnsafe() === undefined))
        yield* a.run(Registry.register(Rooms, "x", 2))
        assert.deepStrictEqual(yield* Fiber.joinAll(waiting), [2, 2, 2])
        assert.strictEqual((yield* Registry.stats)[0]?.waiting, 0)
      }))
    )

    it.effect(
      "leaves nobody waiting, wherever it is interrupted",
      test(Effect.gen(function*() {
        const { a } = yield* supervised("a")
        yield* a.run(Registry.register(Rooms, "x", 1))
        yield* a.fail
        const again = Effect.andThen(a.run(Effect.void), a.run(Registry.register(Rooms, "x", 2)))
        const program = Effect.gen(function*() {
          const both = yield* Effect.forEach([1, 2], () => forked(Registry.whereis(Rooms, "x")))
          yield* TestClock.adjust("1 second")
          yield* again
          yield* Fiber.joinAll(both)
        })
        const operations = yield* atEveryOperation(
          program,
          () =>
            Effect.gen(function*() {
              yield* TestClock.adjust("1 second")
              yield* settle
              assert.strictEqual((yield* Registry.stats)[0]?.waiting, 0)
              yield* a.fail
            }),
          { fibers: "all" }
        )
        assert.isAbove(operations, 20)
      }))
    )
  })

  describe("outside a routine", () => {
    it.effect(
      "a name belongs to the fiber and lasts as long as its scope",
      test(Effect.gen(function*() {
        const scope = yield* Scope.make()
        yield* Registry.register(Rooms, "x", 1).pipe(Scope.provide(scope))
        assert.strictEqual(yield* Registry.updateValue(Rooms, "x", (n) => n + 1), 2)
        const other = yield* Effect.flip(
          yield* forked(Effect.exit(Registry.register(Rooms, "x", 3))).pipe(
            Effect.flatMap(Fiber.join)
          )
        )
        assert.match(other.holder, /^fiber #\d+$/)
        yield* Scope.close(scope, Exit.void)
        yield* nothingHeld
        // Registered when it is too late, it is gone at once.
        yield* Registry.register(Rooms, "x", 1).pipe(Scope.provide(scope))
        yield* nothingHeld
      }))
    )

    it.effect(
      "a scope forgets what was given up, and a name that was registered again belongs to the last scope",
      test(Effect.gen(function*() {
        const [first, second] = [yield* Scope.make(), yield* Scope.make()]
        yield* Registry.register(Rooms, "x", 1).pipe(Scope.provide(first))
        yield* Registry.unregister(Rooms, "x")
        assert.strictEqual(first.state._tag, "Empty")
        yield* Registry.register(Rooms, "x", 1).pipe(Scope.provide(first))
        yield* Registry.register(Rooms, "x", 2).pipe(Scope.provide(second))
        assert.strictEqual(first.state._tag, "Empty")
        yield* Scope.close(first, Exit.void)
        assert.deepStrictEqual(yield* Registry.lookup(Rooms, "x"), Option.some(2))
        yield* Scope.close(second, Exit.void)
        yield* nothingHeld
      }))
    )

    it.effect(
      "nothing is left, wherever a registration is interrupted",
      test(Effect.gen(function*() {
        const program = Effect.gen(function*() {
          yield* Registry.register(Rooms, "x", 1)
          yield* Registry.register(Listeners, "x", 1)
          yield* Registry.register(Listeners, "x", 2)
          yield* Registry.unregister(Rooms, "x")
          yield* Registry.register(Rooms, "y", 1)
          yield* Registry.updateValue(Rooms, "y", (n) => n + 1)
        })
        assert.isAbove(yield* atEveryOperation(program, () => nothingHeld), 20)
      }))
    )
  })

  it.effect(
    "a scope within a run ends the names that were registered in it",
    test(Effect.gen(function*() {
      const actor = yield* fork("a")
      yield* actor.run(Effect.scoped(Effect.gen(function*() {
        yield* Registry.register(Rooms, "x", 1)
        yield* Registry.register(Listeners, "x", 1)
        assert.strictEqual(yield* Registry.count(Rooms), 1)
      })))
      yield* nothingHeld
      // Registered again in the scope of the run, it lasts as long as that.
      yield* actor.run(Effect.gen(function*() {
        const run = yield* Scope.Scope
        yield* Effect.scoped(Effect.gen(function*() {
          yield* Registry.register(Rooms, "x", 1)
          yield* Registry.register(Rooms, "x", 2).pipe(Scope.provide(run))
        }))
      }))
      assert.deepStrictEqual(yield* Registry.lookup(Rooms, "x"), Option.some(2))
    }))
  )

  it.effect(
    "keys are compared by structure",
    test(Effect.gen(function*() {
      class Seat extends Data.Class<{ readonly row: number; readonly column: number }> {}
      const Seats = Registry.unique<string, Seat>("seats")
      yield* Registry.register(Seats, new Seat({ row: 1, column: 2 }), "me")
      assert.deepStrictEqual(yield* Registry.lookup(Seats, new Seat({ row: 1, column: 2 })), Option.some("me"))
      assert.deepStrictEqual(yield* Registry.lookup(Seats, new Seat({ row: 2, column: 1 })), Option.none())
      const failure = yield* Effect.flip(Registry.whereis(Seats, new Seat({ row: 2, column: 1 })))
      assert.include(failure.message, "\"row\":2")
      yield* Registry.unregister(Seats, new Seat({ row: 1, column: 2 }))
      yield* nothingHeld
    }))
  )

  it.effect(
    "a second namespace of one name is a defect where it is used",
    test(Effect.gen(function*() {
      yield* Registry.register(Rooms, "x", 1)
      const exit = yield* Effect.exit(Registry.lookup(Registry.unique<string>("rooms"), "x"))
      assert.include(String(exit), "two namespaces of one registry have one name, got: rooms")
    }))
  )

  it("an empty name and a negative wait are defects", () => {
    assert.throws(() => Registry.unique(""), /the name of a namespace is not empty, got: ""$/)
    assert.throws(() => Registry.duplicate(""), /the name of a namespace is not empty, got: ""$/)
    assert.throws(() => Registry.unique("x", { wait: -1 }), /the wait of a namespace .*, got: -1$/)
  })

  it.effect(
    "works without an orchestrator",
    () =>
      Effect.gen(function*() {
        yield* Registry.register(Rooms, "x", 1)
        assert.strictEqual(yield* Registry.whereis(Rooms, "x"), 1)
        assert.strictEqual(yield* Registry.lock(Rooms, "x", Effect.succeed(2)), 2)
      }).pipe(Effect.provide(Registry.layer))
  )

  it.effect("agrees with a naive model on random commands", () =>
    Effect.gen(function*() {
      for (let seed = 0; seed < seeds; seed++) {
        yield* modelled.pipe(Effect.scoped, Effect.provide(layer), Random.withSeed(`registry ${seed}`))
      }
    }), 120_000)

  describe("lock", () => {
    /** Runs for a second under a key, and writes down when it begins and ends. */
    const journal = () => {
      const lines: Array<string> = []
      const work = (key: string, name: string, end: Effect.Effect<void, string> = Effect.sleep("1 second")) =>
        Registry.lock(
          Rooms,
          key,
          Effect.sync(() => void lines.push(`+${name}`)).pipe(
            Effect.andThen(end),
            Effect.ensuring(Effect.sync(() => void lines.push(`-${name}`)))
          )
        )
      return { lines, work }
    }

    it.effect(
      "149. runs those of one key one after the other, and is free however its holder ends; who was interrupted is skipped",
      test(Effect.gen(function*() {
        const { lines, work } = journal()
        const fibers = {
          a: yield* forked(work("k", "a")),
          b: yield* forked(work("k", "b", Effect.fail("no"))),
          c: yield* forked(work("k", "c", Effect.die("no"))),
          d: yield* forked(work("k", "d")),
          e: yield* forked(work("k", "e", Effect.never)),
          f: yield* forked(work("k", "f")),
          other: yield* forked(work("other", "other"))
        }
        assert.deepStrictEqual(lines, ["+a", "+other"])
        // Waits, and is skipped.
        yield* Fiber.interrupt(fibers.d)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(lines.slice(2), ["-a", "+b", "-b", "+c", "-c", "+e", "-other"])
        // Is inside.
        yield* Fiber.interrupt(fibers.e)
        assert.deepStrictEqual(lines.slice(9), ["-e", "+f"])
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(fibers.f)
        assert.isTrue(Exit.hasFails(yield* Fiber.await(fibers.b)))
        assert.isTrue(Exit.hasDies(yield* Fiber.await(fibers.c)))
        yield* nothingHeld
      }))
    )

    it.effect(
      "lets a fiber that is inside go on, and keeps out what it has forked",
      test(Effect.gen(function*() {
        const { lines, work } = journal()
        const forks: Array<Fiber.Fiber<void, string>> = []
        yield* Registry.lock(
          Rooms,
          "k",
          Effect.gen(function*() {
            yield* work("k", "inner", Effect.void)
            forks.push(yield* forked(work("k", "forked", Effect.void)))
            assert.deepStrictEqual(lines, ["+inner", "-inner"])
          })
        )
        yield* Fiber.joinAll(forks)
        assert.deepStrictEqual(lines, ["+inner", "-inner", "+forked", "-forked"])
        yield* nothingHeld
      }))
    )

    it.effect(
      "counts the wait as blocked time of the routine",
      test(Effect.gen(function*() {
        yield* forked(Registry.lock(Rooms, "k", Effect.sleep("1 second")))
        const routine = yield* Orchestrator.fork(Registry.lock(Rooms, "k", Effect.never))
        yield* TestClock.adjust("3 seconds")
        assert.strictEqual((yield* Routine.stats(routine)).blockedMillis, 1000)
      }))
    )

    it.effect(
      "is free again, and never held by two, wherever anybody is interrupted",
      test(Effect.gen(function*() {
        let inside = 0
        let most = 0
        const work = Registry.lock(
          Rooms,
          "k",
          Effect.acquireUseRelease(
            Effect.sync(() => {
              most = Math.max(most, ++inside)
            }),
            () => Effect.yieldNow,
            () => Effect.sync(() => void inside--)
          )
        )
        const check = Effect.gen(function*() {
          yield* settle
          assert.strictEqual(inside, 0)
          assert.isAtMost(most, 1)
          yield* nothingHeld
          yield* Registry.lock(Rooms, "k", Effect.void)
        })
        // Who is inside, who waits, and who comes when it is free again.
        const three = Effect.gen(function*() {
          const first = yield* forked(work)
          yield* work
          yield* Fiber.join(first)
          yield* work
        })
        assert.isAbove(yield* atEveryOperation(three, () => check), 20)
        const all = Effect.all([work, work, work], { concurrency: "unbounded", discard: true })
        assert.isAbove(yield* atEveryOperation(all, () => check, { fibers: "all" }), 20)
      }))
    )

    it.effect(
      "agrees with a naive model when random fibers come, leave and are interrupted",
      () =>
        Effect.gen(function*() {
          for (let seed = 0; seed < seeds; seed++) {
            yield* locked.pipe(Effect.scoped, Effect.provide(layer), Random.withSeed(`lock ${seed}`))
          }
        }),
      120_000
    )
  })
})

/** One random history of locks. */
const locked = Effect.gen(function*() {
  const model = new LockModel()
  const inside = new Map<string, number>()
  const workers: Array<{ id: number; key: string; done: Deferred.Deferred<void>; fiber: Fiber.Fiber<void> }> = []
  for (let id = 0; id < 40; id++) {
    const key = yield* Random.choice(["x", "y", "z"] as const)
    if ((yield* Random.nextIntBetween(0, 3)) > 0 || workers.length === 0) {
      const done = Deferred.makeUnsafe<void>()
      model.enter(key, id)
      const fiber = yield* forked(
        Registry.lock(
          Rooms,
          key,
          Effect.sync(() => {
            assert.isFalse(inside.has(key), "two are inside")
            inside.set(key, id)
          }).pipe(Effect.andThen(Deferred.await(done)), Effect.ensuring(Effect.sync(() => void inside.delete(key))))
        )
      )
      workers.push({ id, key, done, fiber })
    } else {
      const worker = workers.splice(yield* Random.nextIntBetween(0, workers.length - 1), 1)[0]
      if (worker === undefined) continue
      const isInside = model.inside(worker.key) === worker.id
      model.leave(worker.key, worker.id)
      if (isInside && (yield* Random.nextBoolean)) {
        yield* Deferred.succeed(worker.done, undefined)
        yield* Fiber.await(worker.fiber)
      } else yield* Fiber.interrupt(worker.fiber)
    }
    for (const key of ["x", "y", "z"]) assert.strictEqual(inside.get(key), model.inside(key))
    const [stats] = yield* Registry.stats
    assert.strictEqual(stats?.locked ?? 0, model.locked)
  }
  yield* Fiber.interruptAll(workers.map(({ fiber }) => fiber))
  yield* nothingHeld
})

/** One random history of names. */
const modelled = Effect.gen(function*() {
  const model = new RegistryModel()
  const children = yield* supervised("a", "b")
  const actors = new Map<string, Actor>([["a", children.a], ["b", children.b], ["c", yield* fork("c")]])
  const paths = new Map([["/orchestra/app/a", "a"], ["/orchestra/app/b", "b"], ["/orchestra/c", "c"]])
  const down = new Set<string>()
  for (let step = 0; step < 40; step++) {
    const [name, actor] = yield* Random.choice([...actors] as [[string, Actor], ...Array<[string, Actor]>])
    const key = yield* Random.choice(["x", "y", "z"] as const)
    const command = yield* Random.choice(
      ["unique", "unique", "duplicate", "update", "unregister", "unregister many", "crash", "restart"] as const
    )
    if (command === "restart") {
      yield* TestClock.adjust("1 second")
      down.clear()
    } else if (!down.has(name)) {
      switch (command) {
        case "unique": {
          const exit = yield* Effect.exit(actor.run(Effect.flip(Registry.register(Rooms, key, step))))
          const holder = Exit.isSuccess(exit) ? paths.get(exit.value.holder) : undefined
          assert.strictEqual(holder, model.register("unique", key, name, step))
          break
        }
        case "duplicate":
          yield* actor.run(Registry.register(Listeners, key, step))
          model.register("duplicate", key, name, step)
          break
        case "update": {
          const updated = yield* actor.run(Effect.option(Registry.updateValue(Rooms, key, (n) => n + 1000)))
          assert.strictEqual(Option.getOrUndefined(updated), model.update(key, name, (n) => n + 1000))
          break
        }
        case "unregister":
          yield* actor.run(Registry.unregister(Rooms, key))
          model.unregister("unique", key, name)
          break
        case "unregister many":
          yield* actor.run(Registry.unregister(Listeners, key))
          model.unregister("duplicate", key, name)
          break
        case "crash":
          yield* actor.fail
          if (name === "c") {
            model.end(name)
            actors.set("c", yield* fork("c"))
          } else {
            model.crash(name)
            down.add(name)
          }
      }
    }
    for (const key of ["x", "y", "z"]) {
      assert.deepStrictEqual(Option.toArray(yield* Registry.lookup(Rooms, key)), [...model.values("unique", key)])
      assert.deepStrictEqual(yield* Registry.lookup(Listeners, key), model.values("duplicate", key))
    }
    assert.deepStrictEqual([...yield* Registry.keys(Rooms)].sort(), model.keys("unique"))
    assert.deepStrictEqual([...yield* Registry.keys(Listeners)].sort(), model.keys("duplicate"))
    assert.strictEqual(yield* Registry.count(Rooms), model.count("unique"))
    assert.strictEqual(yield* Registry.count(Listeners), model.count("duplicate"))
    const held = (yield* Registry.stats).reduce((total, { restarting }) => total + restarting, 0)
    assert.strictEqual(held, model.restarting)
  }
  for (const actor of actors.values()) yield* actor.stop
  yield* nothingHeld
})
