import { Bus, Orchestrator, Routine, Topic } from "@effect-orchestra/core"
import { atEveryOperation } from "@effect-orchestra/core/testing"
import { Child, DynamicSupervisor, Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Clock,
  Context,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Option,
  Schedule,
  Schema,
  Scope,
  Stream
} from "effect"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"
import { type Actor, pass, scene, settle } from "./Stage.ts"
import { anything, counts, layers, type Ref, states, troupe } from "./Troupe.ts"

const times = <A>(n: number, make: (i: number) => A) => Array.from({ length: n }, (_, i) => make(i))

/** How long something takes, in real milliseconds. */
const took = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const started = performance.now()
    return Effect.map(effect, () => performance.now() - started)
  })

describe("dynamic supervisors", () => {
  it.effect(
    "123. of 1,000 and then 2,000 more children every one is counted, and none when all have ended",
    scene(function*() {
      const gate = yield* Deferred.make<void>()
      const ref = yield* anything({ restart: "transient" })
      for (const [more, all] of [[1000, 1000], [2000, 3000]] as const) {
        for (let i = 0; i < more; i++) yield* DynamicSupervisor.startChild(ref, Deferred.await(gate))
        assert.deepStrictEqual(yield* counts(ref), [all, all, 0, all])
        assert.strictEqual((yield* DynamicSupervisor.whichChildren(ref)).length, all)
      }
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      while ((yield* counts(ref))[0] !== 0) yield* Effect.yieldNow
      assert.deepStrictEqual(yield* counts(ref), [0, 0, 0, 0])
      assert.deepStrictEqual(yield* DynamicSupervisor.whichChildren(ref), [])
    })
  )

  it.effect(
    "124. 100,000 children cost no more than in proportion, and a process with as many still answers",
    () =>
      Effect.gen(function*() {
        const measured = Effect.fnUntraced(function*(size: number) {
          const ref = yield* anything({ intensity: 10 })
          let first: Routine.Routine<unknown, unknown> | undefined = undefined
          const start = yield* took(Effect.gen(function*() {
            for (let i = 0; i < size; i++) {
              const routine = yield* DynamicSupervisor.startChild(ref, Effect.never)
              first ??= routine
            }
          }))
          const list = yield* took(Effect.andThen(DynamicSupervisor.whichChildren(ref), counts(ref)))
          // Whatever the number of others, a failure is handled in as many turns.
          yield* Routine.interrupt(first ?? assert.fail(), "from outside")
          let turns = 0
          for (; (yield* Routine.snapshot(first ?? assert.fail())).incarnation === 1; turns++) yield* Effect.yieldNow
          let during = 0
          const ticking = yield* Effect.forkChild(Effect.forever(Effect.andThen(
            Effect.yieldNow,
            Effect.sync(() => void during++)
          )))
          const stop = yield* took(DynamicSupervisor.stop(ref))
          yield* Fiber.interrupt(ticking)
          return { start, list, turns, during, stop }
        })
        yield* measured(5000)
        const few = yield* measured(1000)
        const many = yield* measured(100_000)
        assert.isBelow(many.start, 1000 * few.start)
        assert.isBelow(many.stop, 1000 * few.stop)
        assert.isBelow(many.list, many.start)
        assert.isAtMost(many.turns, few.turns + 2)
        assert.isAbove(many.during, 50)
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)),
    30_000
  )

  it.effect(
    "125. terminating one of 100,000 looks at no other: 10,000 of them cost no more than 50 times 1,000",
    () =>
      Effect.gen(function*() {
        const ref = yield* anything()
        const all: Array<Routine.Routine<unknown, unknown>> = []
        for (let i = 0; i < 100_000; i++) all.push(yield* DynamicSupervisor.startChild(ref, Effect.never))
        const few = yield* anything()
        const terminate = (ref: Ref, routines: ReadonlyArray<Routine.Routine<unknown, unknown>>) =>
          took(Effect.forEach(routines, (routine) => DynamicSupervisor.terminateChild(ref, routine), { discard: true }))
        const small: Array<number> = []
        const large: Array<number> = []
        for (let batch = 0; batch < 10; batch++) {
          const some: Array<Routine.Routine<unknown, unknown>> = []
          for (let i = 0; i < 1000; i++) some.push(yield* DynamicSupervisor.startChild(few, Effect.never))
          small.push(yield* terminate(few, some))
          large.push(yield* terminate(ref, all.slice(5000 * batch, 5000 * batch + 1000)))
        }
        const middle = large.toSorted((a, b) => a - b)[5] ?? 0
        assert.isBelow(large.reduce((sum, one) => sum + one), 50 * middle)
        assert.isBelow(Math.min(...large), 10 * Math.min(...small))
        assert.deepStrictEqual(yield* counts(ref), [90_000, 90_000, 0, 90_000])
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)),
    30_000
  )

  it.effect(
    "126. maxChildren counts what runs, starts or waits for its restart; the one too many is refused before anything is done",
    scene(function*(stage) {
      let called = 0
      const spec = (maxChildren: number) =>
        DynamicSupervisor.make({
          name: "workers",
          maxChildren,
          restart: "transient",
          backoff: Schedule.spaced("1 second"),
          child: (actor: Actor) => {
            called++
            return actor.effect
          }
        })
      const [a, b, c, d] = yield* stage.cast("a", "b", "c", "d")
      const ref = yield* DynamicSupervisor.start(spec(2))
      yield* DynamicSupervisor.startChild(ref, a)
      const routine = yield* DynamicSupervisor.startChild(ref, b)
      const refused = yield* Effect.flip(DynamicSupervisor.startChild(ref, c))
      assert.instanceOf(refused, SupervisorError.MaxChildren)
      assert.deepStrictEqual([refused.supervisor, refused.maxChildren], ["/orchestra/workers", 2])
      yield* a.fail()
      yield* settle
      assert.deepStrictEqual(yield* states(ref), ["restarting 1", "running 1"])
      assert.strictEqual((yield* Effect.flip(DynamicSupervisor.startChild(ref, c)))._tag, "MaxChildren")
      assert.deepStrictEqual([called, stage.take()], [2, ["start a", "start b", "exit a"]])
      yield* DynamicSupervisor.terminateChild(ref, routine)
      yield* DynamicSupervisor.startChild(ref, c)
      yield* c.succeed
      yield* settle
      yield* DynamicSupervisor.startChild(ref, d)
      assert.strictEqual((yield* Effect.flip(DynamicSupervisor.startChild(ref, b)))._tag, "MaxChildren")
      yield* pass(1000)
      assert.deepStrictEqual(yield* states(ref), ["running 2", "running 1"])
      const none = yield* DynamicSupervisor.start(spec(0))
      assert.strictEqual((yield* Effect.flip(DynamicSupervisor.startChild(none, b)))._tag, "MaxChildren")
      // Also when they are asked for in one moment, and take their time to start.
      const slowly = yield* layers({ maxChildren: 3 })
      const gate = yield* Orchestrator.fork(Effect.sleep(5))
      const starting = Effect.forEach(
        times(10, () => DynamicSupervisor.startChild(slowly, Effect.sleep(10))),
        Effect.exit,
        { concurrency: "unbounded" }
      )
      const starts = yield* Effect.forkChild(Effect.andThen(Routine.await(gate), starting), { startImmediately: true })
      yield* pass(5)
      yield* pass(10)
      const started = (yield* Fiber.join(starts)).filter(Exit.isSuccess)
      assert.deepStrictEqual([started.length, (yield* counts(slowly))[0]], [3, 3])
      for (const maxChildren of [-1, 1.5, NaN]) {
        assert.throws(() => spec(maxChildren), `got: ${maxChildren}`)
      }
    })
  )

  it.effect(
    "127. neither a start that fails nor one that is not needed takes a place",
    scene(function*() {
      for (const later of [Effect.void, Effect.yieldNow]) {
        for (const kind of ["effect", "layer"]) {
          const ref = yield* kind === "layer"
            ? layers({ maxChildren: 1 })
            : anything({ maxChildren: 1, awaitReady: true })
          for (let time = 0; time < 3; time++) {
            const failing = Effect.andThen(later, Effect.fail("no"))
            const failure = yield* Effect.flip(DynamicSupervisor.startChild(ref, failing))
            assert.instanceOf(failure, SupervisorError.StartFailure)
            assert.deepStrictEqual(Cause.findErrorOption(failure.cause), Option.some("no"))
            assert.deepStrictEqual(yield* counts(ref), [0, 0, 0, 0])
            const notNeeded = yield* DynamicSupervisor.startChild(ref, Effect.andThen(later, Supervisor.ignore))
            assert.isTrue(Exit.isSuccess(yield* Routine.await(notNeeded)))
            assert.deepStrictEqual(yield* counts(ref), [0, 0, 0, 0])
          }
          yield* DynamicSupervisor.stop(ref)
        }
      }
    })
  )

  it.effect(
    "128. what the template takes and the argument hold at the start and at every restart",
    scene(function*() {
      class Tenant extends Context.Service<Tenant, string>()("test/Tenant") {}
      const seen: Array<string> = []
      let called = 0
      const spec = DynamicSupervisor.make({
        name: "workers",
        intensity: 10,
        child: (job: string) => {
          called++
          return Effect.gen(function*() {
            seen.push(`${job} of ${yield* Tenant}`)
            yield* Effect.yieldNow
            return yield* seen.length < 6 ? Effect.fail("again") : Effect.never
          })
        }
      })
      const ref = yield* Effect.provideService(DynamicSupervisor.start(spec), Tenant, "acme")
      yield* Effect.provideService(DynamicSupervisor.startChild(ref, "a"), Tenant, "another")
      yield* DynamicSupervisor.startChild(ref, "b")
      yield* settle
      assert.deepStrictEqual([...new Set(seen)].toSorted(), ["a of acme", "b of acme"])
      assert.deepStrictEqual([seen.length, called], [6, 2])
    })
  )

  it.effect(
    "129. children are stopped all at once: 1,000 that need 200 ms in 200 ms, and as long as the slowest may take",
    scene(function*(stage) {
      const time = Effect.fnUntraced(function*(ref: Ref) {
        const started = yield* Clock.currentTimeMillis
        const ended = yield* Effect.forkChild(
          Effect.andThen(DynamicSupervisor.stop(ref), Clock.currentTimeMillis),
          { startImmediately: true }
        )
        for (let step = 0; step < 100; step++) yield* pass(20)
        return (yield* Fiber.join(ended)) - started
      })
      const ref = yield* anything()
      const needing = (millis: number) => Effect.onInterrupt(Effect.never, () => Effect.sleep(millis))
      for (let i = 0; i < 1000; i++) yield* DynamicSupervisor.startChild(ref, needing(200))
      assert.strictEqual(yield* time(ref), 200)
      const bounded = yield* troupe({ shutdown: "600 millis" })
      const actors = yield* stage.cast("a", "b", "c")
      const ignoring = [100, 300, undefined]
      for (const actor of actors) yield* DynamicSupervisor.startChild(bounded, actor)
      for (const [i, actor] of actors.entries()) yield* actor.ignoreInterruption(ignoring[i])
      yield* settle
      assert.strictEqual(yield* time(bounded), 600)
      yield* actors[2].release
    })
  )

  it.effect(
    "130. terminating cancels a pending restart; a second time, or of a stranger, there is nothing to terminate",
    scene(function*(stage) {
      const [a, b] = yield* stage.cast("a", "b")
      const ref = yield* troupe({ backoff: Schedule.spaced("1 second") })
      const other = yield* troupe()
      const routine = yield* DynamicSupervisor.startChild(ref, a)
      const stranger = yield* DynamicSupervisor.startChild(other, b)
      yield* a.fail()
      yield* pass(500)
      assert.deepStrictEqual([yield* states(ref), yield* counts(ref)], [["restarting 1"], [1, 0, 0, 1]])
      assert.strictEqual(yield* DynamicSupervisor.terminateChild(ref, routine), "stopped")
      assert.deepStrictEqual(yield* counts(ref), [0, 0, 0, 0])
      yield* pass(60_000)
      assert.strictEqual(a.starts, 1)
      // Of another orchestrator too, whose routines have the same numbers.
      const elsewhere = yield* Effect.provide(
        Effect.forEach(times(10, (i) => i), () => Orchestrator.fork(Effect.never)),
        Layer.fresh(Orchestrator.layer)
      )
      const again = yield* DynamicSupervisor.startChild(ref, a)
      for (const unknown of [routine, stranger, ...elsewhere]) {
        const error = yield* Effect.flip(DynamicSupervisor.terminateChild(ref, unknown))
        assert.instanceOf(error, SupervisorError.ChildNotFound)
        assert.deepStrictEqual([error.supervisor, error.child], ["/orchestra/workers", unknown.id])
      }
      assert.isTrue(elsewhere.some(({ id }) => id === again.id))
      assert.isTrue(a.live && b.live)
    })
  )

  it.effect(
    "131. one budget for all ends all; a budget of each its own gives up one alone",
    scene(function*(stage) {
      const actors = yield* Effect.forEach(times(100, (i) => `child-${i}`), (id) => stage.actor(id))
      const shared = yield* troupe()
      for (const actor of actors) yield* DynamicSupervisor.startChild(shared, actor)
      yield* Effect.forEach(actors.slice(0, 4), (actor) => actor.fail(), { concurrency: "unbounded" })
      const end = yield* Effect.flip(DynamicSupervisor.await(shared))
      assert.deepStrictEqual([end.supervisor, end.window.intensity], ["/orchestra/workers", 3])
      assert.isFalse(actors.some(({ live }) => live))
      const own = yield* troupe({ childBudget: { intensity: 3 }, onGiveUp: "quarantine" })
      for (const actor of actors) yield* DynamicSupervisor.startChild(own, actor)
      for (let failure = 1; failure <= 4; failure++) {
        yield* actors[0]?.fail() ?? Effect.void
        yield* settle
      }
      const after = yield* states(own)
      assert.deepStrictEqual(
        [after[0], after.filter((state) => state === "running 1").length],
        ["quarantined 4", 99]
      )
      const [first] = yield* DynamicSupervisor.whichChildren(own)
      assert.strictEqual(yield* DynamicSupervisor.terminateChild(own, first?.routine ?? assert.fail()), "stopped")
      assert.deepStrictEqual(yield* counts(own), [99, 99, 0, 99])
    })
  )

  it.effect(
    "a child that has ended is forgotten, also while what it had forked is still listed below it",
    () =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const forked = yield* Deferred.make<Routine.Routine<void, never>>()
        const deaf = Effect.uninterruptible(Deferred.await(gate))
        const ref = yield* anything({ restart: "temporary" })
        const forks = Effect.gen(function*() {
          const owner = yield* Routine.owner
          yield* Deferred.succeed(forked, yield* owner.fork(deaf, { shutdown: 0 }))
          return yield* Effect.never
        })
        const child = yield* DynamicSupervisor.startChild(ref, Effect.orDie(forks))
        const below = yield* Deferred.await(forked)
        assert.strictEqual(yield* DynamicSupervisor.terminateChild(ref, child), "stopped")
        assert.strictEqual((yield* Routine.snapshot(below)).state, "abandoned")
        const { kernel } = yield* Orchestrator
        assert.isDefined(kernel.node(child.id))
        assert.deepStrictEqual([yield* states(ref), yield* counts(ref)], [[], [0, 0, 0, 0]])
        yield* Deferred.succeed(gate, undefined)
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer))
  )

  it.effect(
    "the only run of a child is among its attempts once it has ended, and why",
    () =>
      Effect.gen(function*() {
        const ref = yield* anything({ restart: "temporary" })
        const failed = yield* DynamicSupervisor.startChild(ref, Effect.fail("broken"))
        const stopped = yield* DynamicSupervisor.startChild(ref, Effect.never)
        assert.deepStrictEqual(yield* Routine.attempts(stopped), [])
        yield* DynamicSupervisor.terminateChild(ref, stopped)
        const told = Effect.forEach([failed, stopped], (routine) =>
          Effect.map(Routine.attempts(routine), (attempts) =>
            attempts.map(({ cancelledBy, incarnation, message, reason }) => ({
              incarnation,
              reason,
              why: message ?? cancelledBy?.reason
            }))))
        assert.deepStrictEqual(yield* told, [
          [{ incarnation: 1, reason: "failure", why: "broken" }],
          [{ incarnation: 1, reason: "interrupted", why: "stopped" }]
        ])
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer))
  )

  it.effect(
    "a quarantined child is released with a budget that begins anew, as a routine of its own; no other is",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      const ref = yield* troupe({ childBudget: { intensity: 0 }, onGiveUp: "quarantine" })
      const first = yield* DynamicSupervisor.startChild(ref, a)
      const refused = yield* Effect.flip(DynamicSupervisor.release(ref, first))
      assert.deepStrictEqual([refused._tag, refused.message.includes("running")], ["NotQuarantined", true])
      yield* a.fail()
      yield* settle
      assert.deepStrictEqual(yield* states(ref), ["quarantined 1"])
      const second = yield* DynamicSupervisor.release(ref, first)
      assert.notStrictEqual(second.id, first.id)
      assert.deepStrictEqual([yield* states(ref), yield* counts(ref), a.starts], [["running 2"], [1, 1, 0, 1], 2])
      assert.strictEqual(yield* DynamicSupervisor.terminateChild(ref, second), "stopped")
      assert.strictEqual((yield* Effect.flip(DynamicSupervisor.release(ref, second)))._tag, "ChildNotFound")
    })
  )

  it.effect(
    "132. a child that is not needed at its restart is dropped: its place is free, and the stop later is clean",
    scene(function*(stage) {
      const a = yield* stage.actor("a", { start: (run) => run === 1 ? Effect.void : Supervisor.ignore })
      const [b] = yield* stage.cast("b")
      const spec = DynamicSupervisor.make({
        name: "workers",
        maxChildren: 1,
        child: (actor: Actor) => Effect.andThen(Effect.yieldNow, actor.effect),
        awaitReady: true
      })
      const ref = yield* DynamicSupervisor.start(spec)
      yield* DynamicSupervisor.startChild(ref, a)
      yield* a.fail()
      yield* settle
      assert.deepStrictEqual([a.starts, yield* states(ref), yield* counts(ref)], [2, [], [0, 0, 0, 0]])
      const free = yield* Effect.forkChild(DynamicSupervisor.startChild(ref, b))
      yield* settle
      assert.deepStrictEqual(yield* states(ref), ["starting 1"])
      yield* Fiber.interrupt(free)
      yield* DynamicSupervisor.stop(ref)
      yield* DynamicSupervisor.await(ref)
    })
  )

  it.effect(
    "133. a child that restarts without end keeps no other from being started",
    scene(function*() {
      let runs = 0
      const ref = yield* anything({ intensity: 1_000_000 })
      yield* DynamicSupervisor.startChild(ref, Effect.andThen(Effect.sync(() => void runs++), Effect.fail("again")))
      for (let i = 0; i < 100; i++) {
        const before = runs
        yield* DynamicSupervisor.startChild(ref, Effect.never)
        yield* Effect.yieldNow
        assert.isAbove(runs, before)
        assert.isBelow(runs - before, 2000)
      }
      assert.strictEqual((yield* counts(ref))[0], 101)
    })
  )

  it.effect(
    "134. when the supervisor itself is restarted its children are lost, or with restore started again, once each",
    scene(function*(stage) {
      class Workers extends Context.Service<Workers, DynamicSupervisor.DynamicRef<Actor, void, unknown>>()(
        "test/Workers"
      ) {}
      for (const restore of [false, true]) {
        let workers: Workers["Service"] | undefined = undefined
        const spec = DynamicSupervisor.make({
          name: "workers",
          intensity: 0,
          restore,
          restart: "transient",
          child: (actor: Actor) => actor.effect
        })
        const layer = Layer.effect(
          Workers,
          Effect.tap(DynamicSupervisor.start(spec), (ref) => Effect.sync(() => workers = ref))
        )
        const present = () => workers ?? assert.fail()
        const child = Child.layer("workers", layer)
        yield* Supervisor.start(
          Supervisor.make({ name: "app", strategy: "one_for_one", intensity: 10, children: [child] })
        )
        const actors = yield* stage.cast("a", "b", "c", "d")
        const [a, b, c, d] = actors
        const routines = yield* Effect.forEach(actors, (actor) => DynamicSupervisor.startChild(present(), actor))
        // What has ended or was terminated is not there to come back.
        yield* d.succeed
        yield* settle
        yield* DynamicSupervisor.terminateChild(present(), routines[2] ?? assert.fail())
        for (let time = 2; time <= 3; time++) {
          const before = present()
          if (time === 3 && !restore) yield* DynamicSupervisor.startChild(present(), a)
          yield* a.fail()
          yield* settle
          assert.notStrictEqual(present(), before)
          assert.deepStrictEqual(yield* states(present()), restore ? ["running 1", "running 1"] : [])
          assert.deepStrictEqual([b.starts, c.starts, d.starts], [restore ? time : 1, 1, 1])
        }
      }
    })
  )

  it.effect(
    "what is restored is what ran, once, also where one specification runs twice",
    scene(function*(stage) {
      const seen: Array<DynamicSupervisor.DynamicRef<Actor, void, unknown>> = []
      const spec = DynamicSupervisor.make({
        name: "workers",
        intensity: 0,
        restore: true,
        child: (actor: Actor) => actor.effect
      })
      const start = Effect.tap(DynamicSupervisor.start(spec), (ref) => Effect.sync(() => seen.push(ref)))
      const child = Child.layer("workers", Layer.effectDiscard(Effect.andThen(start, start)))
      yield* Supervisor.start(
        Supervisor.make({ name: "app", strategy: "one_for_one", intensity: 10, children: [child] })
      )
      const [a, b, c] = yield* stage.cast("a", "b", "c")
      const [first, second] = seen.splice(0)
      yield* DynamicSupervisor.startChild(first ?? assert.fail(), a)
      for (const actor of [b, c]) yield* DynamicSupervisor.startChild(second ?? assert.fail(), actor)
      for (const run of [2, 3]) {
        yield* b.fail()
        yield* settle
        assert.deepStrictEqual([a.starts, b.starts, c.starts], [run, run, run])
        assert.deepStrictEqual(yield* Effect.forEach(seen.splice(0), states), [["running 1"], [
          "running 1",
          "running 1"
        ]])
      }
    })
  )

  it.effect(
    "what has ended is not kept to be restored",
    scene(function*() {
      setFlagsFromString("--expose-gc")
      const collect: () => void = runInNewContext("gc")
      interface Job {
        readonly bytes: Uint8Array
        readonly gate: Deferred.Deferred<void>
      }
      const spec = DynamicSupervisor.make({
        name: "workers",
        restore: true,
        restart: "transient",
        child: ({ bytes, gate }: Job) => Effect.andThen(Deferred.await(gate), Effect.sync(() => void bytes.length))
      })
      const kept = yield* Deferred.make<ReadonlyArray<WeakRef<Job>>>()
      const gate = yield* Deferred.make<void>()
      const never = yield* Deferred.make<void>()
      yield* Orchestrator.forkScoped(Effect.gen(function*() {
        const ref = yield* DynamicSupervisor.start(spec)
        const start = (gate: Deferred.Deferred<void>) =>
          Effect.suspend(() => {
            const job = { bytes: new Uint8Array(1_000_000), gate }
            return Effect.as(DynamicSupervisor.startChild(ref, job), new WeakRef(job))
          })
        yield* Deferred.succeed(kept, [yield* start(gate), yield* start(never)])
        return yield* Effect.never
      }))
      const jobs = yield* Deferred.await(kept)
      yield* Deferred.succeed(gate, undefined)
      yield* settle
      collect()
      assert.deepStrictEqual(jobs.map((job) => job.deref() !== undefined), [false, true])
    })
  )

  it.effect(
    "135. 10,000 that fail at once start again a few at a time, and meanwhile others start, and all can be stopped",
    scene(function*() {
      const size = 10_000
      const down = yield* Deferred.make<never, string>()
      let starting = 0
      let peak = 0
      let runs = 0
      const ref = yield* layers({ intensity: 2 * size, concurrentRestarts: 10 })
      const dependent = Effect.gen(function*() {
        starting++
        peak = runs++ < size ? 0 : Math.max(peak, starting)
        yield* Effect.yieldNow
        starting--
        if (runs <= size) yield* Orchestrator.forkScoped(Deferred.await(down))
      })
      for (let i = 0; i < size; i++) yield* DynamicSupervisor.startChild(ref, dependent)
      yield* Deferred.fail(down, "the database is gone")
      while (runs < size + 100) yield* Effect.yieldNow
      let turns = 0
      const other = yield* Effect.forkChild(DynamicSupervisor.startChild(ref, Effect.void))
      for (; other.pollUnsafe() === undefined; turns++) yield* Effect.yieldNow
      assert.isBelow(turns, 20)
      assert.isBelow(runs, 2 * size)
      assert.deepStrictEqual([peak, (yield* counts(ref))[0]], [10, size + 1])
      const before = runs
      yield* DynamicSupervisor.stop(ref)
      assert.isBelow(runs - before, 20)
    }),
    30_000
  )
})

describe("children for the elements of a stream", () => {
  /** The numbers from 1 on, each handed over when it is asked for. */
  const numbers = (n = Infinity) => {
    const seen = { asked: 0 }
    const pull = Effect.suspend(() =>
      ++seen.asked <= n ? Effect.succeed([seen.asked] as const) : Effect.andThen(Effect.yieldNow, Cause.done())
    )
    return { seen, stream: Stream.fromPull(Effect.succeed(pull)) }
  }

  /** Children that end when they are told to. */
  const gated = Effect.fnUntraced(function*(options: DynamicSupervisor.DynamicOptions = {}) {
    const gates = new Map<number, Deferred.Deferred<void, string>>()
    const ref = yield* DynamicSupervisor.start(DynamicSupervisor.make({
      name: "workers",
      restart: "transient",
      ...options,
      child: (n: number) =>
        Effect.suspend(() => {
          const gate = Deferred.makeUnsafe<void, string>()
          gates.set(n, gate)
          return Deferred.await(gate)
        })
    }))
    const end = (n: number) =>
      Effect.andThen(Deferred.succeed(gates.get(n) ?? assert.fail(`no ${n}`), undefined), settle)
    const fail = (n: number) => Effect.andThen(Deferred.fail(gates.get(n) ?? assert.fail(`no ${n}`), "failed"), settle)
    return { ref, end, fail, started: () => gates.size }
  })

  it.effect(
    "asks for no more than live, and again when no more than minDemand are left",
    scene(function*() {
      const { end, ref, started } = yield* gated()
      const { seen, stream } = numbers()
      yield* Effect.forkScoped(DynamicSupervisor.consume(ref, stream, { maxDemand: 4, minDemand: 1 }))
      yield* settle
      const asked: Array<readonly [number, number]> = []
      for (const n of [1, 2, 3, 4, 5, 6]) {
        asked.push([seen.asked, started()])
        yield* end(n)
      }
      assert.deepStrictEqual(asked, [[4, 4], [4, 4], [4, 4], [7, 7], [7, 7], [7, 7]])
      assert.deepStrictEqual([seen.asked, (yield* counts(ref))[0]], [10, 4])
    })
  )

  it.effect(
    "a child that waits for its restart keeps its place; one that somebody started by hand has none",
    scene(function*() {
      const { end, fail, ref, started } = yield* gated({ backoff: Schedule.spaced("1 second") })
      const { seen, stream } = numbers()
      yield* DynamicSupervisor.startChild(ref, 100)
      yield* DynamicSupervisor.startChild(ref, 101)
      yield* Effect.forkScoped(DynamicSupervisor.consume(ref, stream, { maxDemand: 2, minDemand: 1 }))
      yield* settle
      assert.deepStrictEqual([seen.asked, started()], [2, 4])
      yield* fail(1)
      yield* end(100)
      assert.deepStrictEqual([seen.asked, started()], [2, 4])
      yield* pass(1000)
      assert.strictEqual(seen.asked, 2)
      yield* end(1)
      assert.deepStrictEqual([seen.asked, (yield* counts(ref))[0]], [3, 3])
      // Terminated, it is gone too.
      const [, second] = yield* DynamicSupervisor.whichChildren(ref)
      yield* DynamicSupervisor.terminateChild(ref, second?.routine ?? assert.fail())
      yield* settle
      assert.deepStrictEqual([seen.asked, (yield* counts(ref))[0]], [4, 3])
    })
  )

  it.effect(
    "one that was abandoned keeps its place until it has ended after all",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      const ref = yield* troupe({ shutdown: "1 second", maxChildren: 1 })
      let asked = 0
      const stream = Stream.fromPull(Effect.succeed(Effect.sync(() => {
        asked++
        return [a] as const
      })))
      yield* Effect.forkScoped(DynamicSupervisor.consume(ref, stream))
      yield* a.ignoreInterruption()
      const [only] = yield* DynamicSupervisor.whichChildren(ref)
      const outcome = yield* Effect.forkChild(
        DynamicSupervisor.terminateChild(ref, only?.routine ?? assert.fail())
      )
      yield* pass(1000)
      assert.strictEqual(yield* Fiber.join(outcome), "abandoned")
      assert.strictEqual(asked, 1)
      yield* a.release
      yield* settle
      assert.deepStrictEqual([asked, yield* states(ref)], [2, ["running 1"]])
    })
  )

  it.effect(
    "a start that fails, or is not needed, counts as consumed: it is logged, not tried again",
    scene(function*() {
      const lines: Array<string> = []
      const logger = Logger.make(({ message }) => void lines.push(String(message)))
      const tried: Array<number> = []
      const layer = Orchestrator.layer.pipe(Layer.fresh, Layer.provideMerge(Logger.layer([logger])))
      yield* Effect.gen(function*() {
        const ref = yield* DynamicSupervisor.start(DynamicSupervisor.make({
          name: "workers",
          awaitReady: true,
          child: (n: number) => {
            if (n === 3) throw new Error("no such thing")
            tried.push(n)
            const before = n === 1 ? Effect.fail("no") : n === 2 ? Supervisor.ignore : Routine.ready
            return Effect.andThen(Effect.yieldNow, Effect.andThen(before, Effect.never))
          }
        }))
        const { stream } = numbers(6)
        yield* DynamicSupervisor.consume(ref, stream, { maxDemand: 4, minDemand: 2 })
        yield* settle
        assert.deepStrictEqual(tried, [1, 2, 4, 5, 6])
        assert.deepStrictEqual(yield* states(ref), ["running 1", "running 1", "running 1"])
      }).pipe(Effect.scoped, Effect.provide(layer))
      const line = "/orchestra/workers: a child did not start, and what it was to consume is dropped"
      assert.strictEqual(lines.filter((one) => one.startsWith(line)).length, 2)
    })
  )

  it.effect(
    "returns when the stream has ended and fails when it fails; the children go on",
    scene(function*() {
      for (const how of ["ended", "failed", "interrupted"] as const) {
        const { end, ref } = yield* gated()
        const { stream } = numbers(how === "interrupted" ? Infinity : 2)
        const source = how === "failed" ? Stream.concat(stream, Stream.fail("broken")) : stream
        const fiber = yield* Effect.forkChild(
          Effect.exit(DynamicSupervisor.consume(ref, source, { maxDemand: how === "interrupted" ? 2 : 3 }))
        )
        yield* settle
        if (how === "interrupted") yield* Fiber.interrupt(fiber)
        else assert.deepStrictEqual(yield* Fiber.join(fiber), how === "ended" ? Exit.void : Exit.fail("broken"))
        assert.deepStrictEqual(yield* states(ref), ["running 1", "running 1"])
        yield* end(1)
        assert.deepStrictEqual(yield* states(ref), ["running 1"])
        yield* DynamicSupervisor.stop(ref)
      }
    })
  )

  it.effect(
    "fails when the supervisor ends, has ended, or when others leave it no room",
    scene(function*() {
      const { ref } = yield* gated({ maxChildren: 3 })
      const idle = yield* Effect.forkChild(Effect.flip(DynamicSupervisor.consume(ref, Stream.never)))
      const full = yield* Effect.forkChild(Effect.flip(DynamicSupervisor.consume(ref, numbers().stream)))
      yield* settle
      assert.isUndefined(full.pollUnsafe())
      const crowded = yield* Effect.flip(DynamicSupervisor.consume(ref, numbers().stream))
      assert.strictEqual(crowded._tag, "MaxChildren")
      yield* DynamicSupervisor.stop(ref)
      for (const fiber of [idle, full]) assert.strictEqual((yield* Fiber.join(fiber))._tag, "SupervisorNotRunning")
      const late = yield* Effect.flip(DynamicSupervisor.consume(ref, Stream.never))
      assert.strictEqual(late._tag, "SupervisorNotRunning")
    })
  )

  it.effect(
    "a number that makes no sense is a defect that names it",
    scene(function*() {
      const { ref } = yield* gated({ maxChildren: 10 })
      const wrong = [
        { maxDemand: 0 },
        { maxDemand: 11 },
        { maxDemand: 1.5 },
        { maxDemand: 4, minDemand: 4 },
        { maxDemand: 4, minDemand: -1 }
      ]
      for (const options of wrong) {
        const exit = yield* Effect.exit(DynamicSupervisor.consume(ref, Stream.never, options))
        const got = options.minDemand ?? options.maxDemand
        assert.match(String(Exit.isFailure(exit) && Cause.squash(exit.cause)), new RegExp(`got: ${got}$`))
      }
    })
  )

  it.effect(
    "a topic is consumed with back-pressure: what there is no child for stays in it, and publishers wait",
    scene(function*() {
      const { end, ref, started } = yield* gated()
      const Jobs = Topic.make("Jobs", Schema.Number, { kind: "queue", capacity: 2 })
      const program = Effect.gen(function*() {
        const jobs = Stream.map(Bus.stream(Jobs), ({ value }) => value)
        yield* Effect.forkScoped(DynamicSupervisor.consume(ref, jobs, { maxDemand: 2, minDemand: 1 }))
        yield* settle
        let published = 0
        yield* Effect.forkScoped(
          Effect.forEach(
            [1, 2, 3, 4, 5, 6, 7],
            (n) => Effect.tap(Bus.publish(Jobs, n), () => Effect.sync(() => published = n))
          )
        )
        yield* settle
        const log = [[published, started()]]
        for (const n of [1, 2, 3, 4, 5]) {
          yield* end(n)
          log.push([published, started()])
        }
        assert.deepStrictEqual(log, [[4, 2], [5, 3], [6, 4], [7, 5], [7, 6], [7, 7]])
      })
      yield* Effect.provide(Effect.scoped(program), Bus.layer)
    })
  )
})

describe("interrupted at any operation", () => {
  const resource = (open: { count: number }) =>
    Effect.acquireRelease(Effect.sync(() => void open.count++), () => Effect.sync(() => void open.count--))

  for (const kind of ["an effect", "an effect that says when it is ready", "a layer"] as const) {
    it.effect(`a start of ${kind} leaves a child that is counted, or none`, () =>
      Effect.gen(function*() {
        const open = { count: 0 }
        const scope = yield* Effect.scope
        const started = kind === "a layer" ? layers() : anything({ awaitReady: kind !== "an effect" })
        const first = Effect.andThen(resource(open), Effect.forEach([1, 2, 3], () => Effect.yieldNow))
        const body = kind === "a layer"
          ? first
          : Effect.scoped(Effect.andThen(first, Effect.andThen(Routine.ready, Effect.never)))
        let ref: Effect.Success<typeof started> | undefined = undefined
        let outcomes = ""
        const operations = yield* atEveryOperation(
          Effect.gen(function*() {
            // Its children run where the program runs.
            const workers = yield* Effect.uninterruptible(
              Effect.tap(Scope.provide(started, scope), (started) => Effect.sync(() => ref = started))
            )
            yield* Effect.yieldNow
            yield* DynamicSupervisor.startChild(workers, body as Effect.Effect<unknown, never, never>)
          }),
          () =>
            Effect.gen(function*() {
              const workers = ref
              if (workers === undefined) return
              ref = undefined
              yield* settle
              const children = yield* DynamicSupervisor.whichChildren(workers)
              for (const { state } of children) assert.strictEqual(state, "running")
              assert.strictEqual(open.count, children.length)
              assert.strictEqual((yield* Orchestrator.list).length, children.length)
              outcomes += children.length
              yield* DynamicSupervisor.stop(workers)
              assert.strictEqual(open.count, 0)
            }),
          { fibers: "all" }
        )
        assert.isAbove(operations, 20)
        // Taken back until the moment that it is answered.
        assert.match(outcomes, /^0+1+$/)
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
  }

  it.effect("a termination goes on or has not begun", () =>
    Effect.gen(function*() {
      const scope = yield* Effect.scope
      let ref: Effect.Success<ReturnType<typeof anything>> | undefined = undefined
      let outcomes = ""
      const operations = yield* atEveryOperation(
        Effect.gen(function*() {
          const workers = yield* Effect.uninterruptible(
            Effect.tap(Scope.provide(anything(), scope), (started) => Effect.sync(() => ref = started))
          )
          const slowly = Effect.onInterrupt(Effect.never, () => settle)
          const routine = yield* Effect.uninterruptible(DynamicSupervisor.startChild(workers, slowly))
          yield* DynamicSupervisor.terminateChild(workers, routine)
        }),
        () =>
          Effect.gen(function*() {
            const workers = ref
            if (workers === undefined) return
            ref = undefined
            yield* settle
            const children = yield* DynamicSupervisor.whichChildren(workers)
            for (const { state } of children) assert.strictEqual(state, "running")
            outcomes += children.length
            yield* DynamicSupervisor.stop(workers)
            assert.deepStrictEqual(yield* Orchestrator.list, [])
          }),
        { fibers: "all" }
      )
      assert.isAbove(operations, 20)
      assert.match(outcomes, /^0*1+0+$/)
    }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))

  it.effect("what consumes a stream has started a child for what it took, or has not taken it", () =>
    Effect.gen(function*() {
      const ref = yield* anything({ restart: "temporary" })
      let taken = 0
      let ended = 0
      const elements = Stream.fromPull(Effect.succeed(
        Effect.suspend(() => {
          taken++
          return Effect.succeed([Effect.andThen(Effect.yieldNow, Effect.sync(() => void ended++))] as const)
        })
      )).pipe(Stream.take(4))
      const operations = yield* atEveryOperation(
        Effect.andThen(Effect.yieldNow, DynamicSupervisor.consume(ref, elements, { maxDemand: 2 })),
        () =>
          Effect.gen(function*() {
            yield* settle
            assert.deepStrictEqual(yield* Orchestrator.list, [])
            // What it was interrupted with in its hand.
            assert.isAtMost(taken - ended, 1)
            ended = taken
          }),
        { fibers: "all" }
      )
      assert.isAbove(operations, 50)
      assert.isAbove(taken, 100)
    }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
})
