import { Orchestrator, Routine } from "@effect-orchestra/core"
import { atEveryOperation } from "@effect-orchestra/core/testing"
import { Child, PartitionSupervisor, Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Context, Effect, Exit, Fiber, Layer, Option, Schedule, Scope } from "effect"
import { pass, scene, settle, slow, type Stage } from "./Stage.ts"

class Shard extends Context.Service<Shard, { readonly partition: number; readonly run: number }>()("test/Shard") {}

/** Partitions that give a service, and what fails the present run of each. */
const shards = (options: PartitionSupervisor.PartitionOptions = {}) => {
  const runs: Array<number> = []
  const fails: Array<(error: string) => void> = []
  const spec = PartitionSupervisor.make({
    name: "shards",
    partitions: 3,
    ...options,
    child: (partition) =>
      Layer.effect(
        Shard,
        Effect.gen(function*() {
          const run = runs[partition] = (runs[partition] ?? 0) + 1
          yield* Orchestrator.forkScoped(Effect.callback<never, string>((resume) => {
            fails[partition] = (error) => resume(Effect.fail(error))
          }))
          return { partition, run }
        })
      )
  })
  return { spec, runs, fail: (partition: number) => Effect.sync(() => fails[partition]?.("failed")) }
}

/** Partitions that are actors. */
const troupe = (stage: Stage, n: number, options: PartitionSupervisor.PartitionOptions = {}) =>
  Effect.map(
    Effect.forEach(Array.from({ length: n }, (_, i) => `${i}`), (id) => stage.actor(id)),
    (actors) => ({
      actors,
      spec: PartitionSupervisor.make({
        name: "shards",
        partitions: n,
        ...options,
        child: (partition) => actors[partition]?.effect ?? Effect.never
      })
    })
  )

const shown = (ref: PartitionSupervisor.PartitionRef<unknown, unknown, unknown>) =>
  Effect.map(
    Effect.orDie(PartitionSupervisor.whichChildren(ref)),
    (children) => children.map(({ id, incarnation, state }) => `${id} ${state} ${incarnation}`)
  )

const keys = [0, 1, 2, 3, -1, -2, 1e9, "a", "b", "user-1", "", 1.5, NaN, true, null, undefined, 7n, { id: 1 }, ["a", 1]]

describe("partition supervisors", () => {
  it.effect(
    "136. equal keys go to the same of the partitions 0 to n - 1; one that fails restarts alone, and the way leads to its next run",
    scene(function*() {
      const { fail, runs, spec } = shards()
      const ref = yield* PartitionSupervisor.start(spec)
      assert.deepStrictEqual(yield* shown(ref), ["0 running 1", "1 running 1", "2 running 1"])
      assert.strictEqual(ref.partitions, 3)
      const of = (key: unknown) => PartitionSupervisor.partitionOf(ref, key)
      for (const key of keys) {
        const partition = yield* of(key)
        assert.include([0, 1, 2], partition, String(key))
        // What is equal, and not only what is the same.
        assert.strictEqual(yield* of(typeof key === "object" ? structuredClone(key) : key), partition)
      }
      assert.deepStrictEqual(
        yield* Effect.forEach([0, 1, 2, 3, -1, -2, -3, -0, 1e9, 2 ** 40, -(2 ** 40) - 1], of),
        [0, 1, 2, 0, 1, 2, 0, 0, 1, 1, 2]
      )
      // The hash of a string is the same in every process.
      assert.deepStrictEqual(yield* Effect.forEach(["a", "b", "user-1", "user-2"], of), [1, 1, 1, 2])
      const names = yield* Effect.forEach(Array.from({ length: 300 }, (_, i) => `user-${i}`), of)
      for (const partition of [0, 1, 2]) assert.isAbove(names.filter((one) => one === partition).length, 60)
      const at = (key: unknown) =>
        PartitionSupervisor.use(ref, key, Shard, ({ partition, run }) => Effect.succeed(`${partition} run ${run}`))
      assert.deepStrictEqual(yield* Effect.forEach([0, 1, -2], at), ["0 run 1", "1 run 1", "2 run 1"])
      yield* fail(1)
      yield* settle
      assert.deepStrictEqual(yield* shown(ref), ["0 running 1", "1 running 2", "2 running 1"])
      assert.deepStrictEqual(yield* Effect.forEach([0, 1, -2], at), ["0 run 1", "1 run 2", "2 run 1"])
      assert.deepStrictEqual(runs, [1, 2, 1])
      // The budget is shared, unless each has its own.
      yield* Effect.forEach([0, 1, 2], fail)
      yield* settle
      assert.strictEqual((yield* Effect.flip(PartitionSupervisor.await(ref))).window.intensity, 3)
    })
  )

  it.effect(
    "137. there is at least one partition, and as many as at first at most; with none left a lookup fails",
    scene(function*(stage) {
      for (const partitions of [0, -1, 1.5, NaN]) {
        assert.throws(() => shards({ partitions }), `got: ${partitions}`)
      }
      // @ts-expect-error a partition that is never restarted would be missing for ever
      assert.throws(() => shards({ restart: "temporary" }), "got: temporary")
      const { actors, spec } = yield* troupe(stage, 4)
      const ref = yield* PartitionSupervisor.start(spec)
      const of = (key: number) => PartitionSupervisor.partitionOf(ref, key)
      stage.take()
      assert.strictEqual(yield* PartitionSupervisor.resize(ref, 2), 4)
      assert.deepStrictEqual(stage.take(), ["stop 3", "stop 2"])
      assert.deepStrictEqual([ref.partitions, yield* Effect.forEach([0, 1, 2, 3], of)], [2, [0, 1, 0, 1]])
      assert.deepStrictEqual(yield* shown(ref), ["0 running 1", "1 running 1", "2 stopped 1", "3 stopped 1"])
      assert.strictEqual(yield* PartitionSupervisor.resize(ref, 3), 2)
      assert.deepStrictEqual([stage.take(), yield* of(5)], [["start 2"], 2])
      assert.strictEqual(yield* PartitionSupervisor.resize(3)(ref), 3)
      assert.strictEqual(yield* PartitionSupervisor.resize(ref, 0), 3)
      assert.deepStrictEqual(stage.take(), ["stop 2", "stop 1", "stop 0"])
      for (const lookup of [of(1), PartitionSupervisor.routine(ref, 1)]) {
        const error = yield* Effect.flip<unknown, SupervisorError.ServiceUnavailable, never>(lookup)
        assert.instanceOf(error, SupervisorError.ServiceUnavailable)
        assert.deepStrictEqual([error.path, error.state], ["/orchestra/shards", "without partitions"])
      }
      assert.strictEqual(yield* PartitionSupervisor.resize(ref, 4), 0)
      assert.deepStrictEqual(stage.take(), ["start 0", "start 1", "start 2", "start 3"])
      assert.deepStrictEqual(yield* PartitionSupervisor.countChildren(ref), {
        specs: 4,
        active: 4,
        supervisors: 0,
        workers: 4
      })
      for (const partitions of [5, -1, 1.5]) {
        const exit = yield* Effect.exit(PartitionSupervisor.resize(ref, partitions))
        assert.match(String(Exit.isFailure(exit) && Cause.squash(exit.cause)), new RegExp(`got: ${partitions}$`))
      }
      assert.isTrue(actors.every(({ live }) => live))
      yield* PartitionSupervisor.stop(ref)
      assert.deepStrictEqual(stage.take(), ["stop 3", "stop 2", "stop 1", "stop 0"])
      assert.strictEqual((yield* Effect.flip(PartitionSupervisor.resize(ref, 1)))._tag, "SupervisorNotRunning")
      const stopped = yield* Effect.flip(PartitionSupervisor.routine(ref, 0))
      assert.strictEqual(stopped._tag, "ServiceUnavailable")
    })
  )

  it.effect(
    "138. a lookup while the partition is between two runs waits for the next, or fails when its time is up; never is it given what is gone",
    scene(function*(stage) {
      const { fail, spec } = shards({ backoff: Schedule.spaced("3 seconds"), unavailable: { wait: "2 seconds" } })
      const ref = yield* PartitionSupervisor.start(spec)
      const at = (key: number) => PartitionSupervisor.use(ref, key, Shard, ({ run }) => Effect.succeed(run))
      yield* fail(1)
      yield* settle
      const early = yield* Effect.forkChild(Effect.flip(at(1)))
      yield* pass(1500)
      const late = yield* Effect.forkChild(at(1))
      const interrupted = yield* Effect.forkChild(at(1))
      // The others are there.
      assert.strictEqual(yield* at(0), 1)
      yield* pass(499)
      assert.isUndefined(early.pollUnsafe())
      yield* pass(1)
      const error = yield* Fiber.join(early)
      assert.instanceOf(error, SupervisorError.ServiceUnavailable)
      assert.deepStrictEqual(
        [error.service, error.path, error.state],
        ["test/Shard", "/orchestra/shards/1", "restarting"]
      )
      yield* Fiber.interrupt(interrupted)
      assert.isUndefined(late.pollUnsafe())
      yield* pass(1000)
      assert.strictEqual(yield* Fiber.join(late), 2)
      // With no time to wait it is told at once.
      const { fail: failNow, spec: atOnce } = shards({
        backoff: Schedule.spaced("3 seconds"),
        unavailable: { wait: 0 }
      })
      const impatient = yield* PartitionSupervisor.start(atOnce)
      yield* failNow(1)
      yield* settle
      const now = yield* Clock.currentTimeMillis
      const refused = yield* Effect.flip(PartitionSupervisor.use(impatient, 1, Shard, Effect.succeed))
      assert.deepStrictEqual([refused.state, yield* Clock.currentTimeMillis], ["restarting", now])
      // A stop, a smaller number, and a budget that is used up are told to those who wait.
      for (const how of ["stop", "resize", "quarantine", "terminate"] as const) {
        const { actors, spec } = yield* troupe(stage, 2, {
          backoff: how === "quarantine" ? Schedule.recurs(0) : Schedule.spaced("3 seconds"),
          ...(how === "quarantine" ? { onGiveUp: "quarantine" as const } : {})
        })
        const b = actors[1] ?? assert.fail()
        const other = yield* PartitionSupervisor.start(spec)
        const routine = yield* PartitionSupervisor.routine(other, 1)
        assert.strictEqual(routine, b.routine)
        yield* b.fail()
        if (how !== "quarantine") yield* settle
        const waiting = yield* Effect.forkChild(Effect.exit(PartitionSupervisor.routine(other, 1)), {
          startImmediately: true
        })
        if (how !== "quarantine") assert.isUndefined(waiting.pollUnsafe())
        if (how === "stop") yield* PartitionSupervisor.stop(other)
        if (how === "resize") yield* PartitionSupervisor.resize(other, 1)
        if (how === "terminate") yield* Routine.stop(b.routine)
        yield* settle
        const exit = yield* Fiber.join(waiting)
        if (how === "resize") {
          // The key goes elsewhere now.
          assert.deepStrictEqual(exit, Exit.succeed(actors[0]?.routine as typeof routine))
        } else {
          const failure = Exit.isFailure(exit) ? Option.getOrThrow(Cause.findErrorOption(exit.cause)) : assert.fail(how)
          assert.include(how === "quarantine" ? ["quarantined"] : ["stopped", "stopping"], failure.state, how)
        }
        assert.deepStrictEqual((yield* Orchestrator.list).filter(({ state }) => state === "stopping"), [])
        yield* PartitionSupervisor.stop(other)
      }
    })
  )

  it.effect(
    "the routine of a partition is the same in every run, and is not given before it is ready",
    scene(function*() {
      let runs = 0
      const spec = PartitionSupervisor.make({
        name: "shards",
        partitions: 1,
        awaitReady: true,
        child: (partition) =>
          Effect.gen(function*() {
            const run = ++runs
            if (run > 1) yield* Effect.sleep(1000)
            yield* Routine.readyWith({ run: `${partition}.${run}` })
            return run === 1 ? yield* Effect.andThen(Effect.sleep(10), Effect.fail("once")) : yield* Effect.never
          })
      })
      const ref = yield* PartitionSupervisor.start(spec)
      const first = yield* PartitionSupervisor.routine(ref, "any")
      yield* pass(10)
      const waiting = yield* Effect.forkChild(PartitionSupervisor.routine(ref, "any"))
      yield* pass(999)
      assert.isUndefined(waiting.pollUnsafe())
      yield* pass(1)
      assert.strictEqual(yield* Fiber.join(waiting), first)
      assert.deepStrictEqual((yield* Routine.snapshot(first)).info, { run: "0.2" })
    })
  )

  it.effect(
    "a routine that waits for a partition is blocked for as long as it waits, and no longer",
    scene(function*() {
      const { fail, spec } = shards({ backoff: Schedule.spaced("3 seconds") })
      const ref = yield* PartitionSupervisor.start(spec)
      yield* fail(1)
      yield* settle
      const waiting = Effect.exit(PartitionSupervisor.use(ref, 1, Shard, () => Effect.void))
      const bounded = Effect.ignore(Effect.timeout(waiting, "1 second"))
      const waiters = yield* Effect.forEach(
        [waiting, bounded],
        (wait) => Orchestrator.forkScoped(Effect.andThen(wait, Effect.never))
      )
      for (let second = 0; second < 10; second++) yield* pass(1000)
      assert.deepStrictEqual(
        yield* Effect.forEach(
          waiters,
          (waiter) => Effect.map(Routine.stats(waiter), ({ blockedMillis }) => blockedMillis)
        ),
        [3000, 1000]
      )
    })
  )

  it.effect(
    "one that cannot be started again leaves the number as it was",
    scene(function*(stage) {
      const last = yield* stage.actor("last", { start: (run) => run === 2 ? Effect.fail("no") : Effect.void })
      const { actors } = yield* troupe(stage, 3)
      const spec = PartitionSupervisor.make({
        name: "shards",
        partitions: 4,
        awaitReady: true,
        child: (partition) =>
          (actors[partition] ?? last).effect.pipe((effect) =>
            partition === 3 ? effect : Effect.andThen(Routine.ready, effect)
          )
      })
      const ref = yield* PartitionSupervisor.start(spec)
      yield* PartitionSupervisor.resize(ref, 1)
      stage.take()
      const failure = yield* Effect.flip(PartitionSupervisor.resize(ref, 4))
      assert.instanceOf(failure, SupervisorError.StartFailure)
      assert.deepStrictEqual([failure.child, ref.partitions], ["3", 1])
      assert.deepStrictEqual(stage.take(), ["start 1", "start 2", "start last", "exit last", "stop 2", "stop 1"])
      assert.strictEqual(yield* PartitionSupervisor.resize(ref, 4), 1)
      assert.deepStrictEqual((yield* shown(ref)).map((line) => line.split(" ")[1]), Array(4).fill("running"))
    })
  )

  it.effect(
    "two changes of the number at once are made one after the other",
    scene(function*(stage) {
      const actors = yield* Effect.forEach(["0", "1", "2", "3"], (id) => stage.actor(id, { stop: slow(100) }))
      const spec = PartitionSupervisor.make({
        name: "shards",
        partitions: 4,
        child: (partition) => actors[partition]?.effect ?? Effect.never
      })
      const ref = yield* PartitionSupervisor.start(spec)
      const fewer = yield* Effect.forkChild(PartitionSupervisor.resize(ref, 1), { startImmediately: true })
      const more = yield* Effect.forkChild(PartitionSupervisor.resize(ref, 3), { startImmediately: true })
      const abandoned = yield* Effect.forkChild(PartitionSupervisor.resize(ref, 0), { startImmediately: true })
      assert.strictEqual(ref.partitions, 1)
      yield* settle
      yield* Fiber.interrupt(abandoned)
      // The one that has begun goes on by itself.
      yield* Fiber.interrupt(fewer)
      for (let step = 0; step < 4; step++) yield* pass(100)
      assert.strictEqual(yield* Fiber.join(more), 1)
      assert.deepStrictEqual(yield* shown(ref), ["0 running 1", "1 running 2", "2 running 2", "3 stopped 1"])
      // While it stops, its first partition still runs, but is not to be used.
      const stopping = yield* Effect.forkChild(PartitionSupervisor.stop(ref), { startImmediately: true })
      yield* settle
      assert.isTrue(actors[0]?.live)
      assert.strictEqual((yield* Effect.flip(PartitionSupervisor.routine(ref, 0))).state, "stopping")
      for (let step = 0; step < 3; step++) yield* pass(100)
      yield* Fiber.join(stopping)
    })
  )

  it.effect(
    "it is the child of another supervisor as any layer is, and group strategies are its own",
    scene(function*() {
      class Shards extends Context.Service<Shards, PartitionSupervisor.PartitionRef<never, unknown, Shard>>()(
        "test/Shards"
      ) {}
      const { fail, spec } = shards({ strategy: "one_for_all", intensity: 1 })
      let seen: Array<string> = []
      const user = Effect.gen(function*() {
        const ref = yield* Shards
        seen = yield* Effect.forEach(
          [0, 1, 2],
          (key) =>
            PartitionSupervisor.use(ref, key, Shard, ({ partition, run }) => Effect.succeed(`${partition}.${run}`))
        )
        return yield* Effect.never
      })
      const app = Supervisor.make({
        name: "app",
        strategy: "rest_for_one",
        children: [
          Child.layer("shards", Layer.effect(Shards, PartitionSupervisor.start(spec))),
          Child.make("user", user)
        ]
      })
      yield* Supervisor.start(app)
      assert.deepStrictEqual(seen, ["0.1", "1.1", "2.1"])
      yield* fail(1)
      yield* settle
      yield* fail(1)
      yield* settle
      // One round for all three; then it had used its budget up, and started afresh with whoever stands after it.
      assert.deepStrictEqual(seen, ["0.3", "1.3", "2.3"])
    })
  )
})

describe("interrupted at any operation", () => {
  it.effect("a change of the number is made or is not", () =>
    Effect.gen(function*() {
      const scope = yield* Effect.scope
      for (const [from, to] of [[1, 3], [3, 1]] as const) {
        let ref: PartitionSupervisor.PartitionRef<unknown, unknown, unknown> | undefined = undefined
        const spec = PartitionSupervisor.make({
          name: "shards",
          partitions: 3,
          awaitReady: true,
          child: () =>
            Effect.andThen(
              Effect.andThen(Effect.yieldNow, Routine.ready),
              Effect.onInterrupt(Effect.never, () => Effect.yieldNow)
            )
        })
        const prepared = Effect.gen(function*() {
          const started = yield* Scope.provide(PartitionSupervisor.start(spec), scope)
          yield* PartitionSupervisor.resize(started, from)
          ref = started
          return started
        })
        const seen = new Set<number>()
        const operations = yield* atEveryOperation(
          Effect.flatMap(Effect.uninterruptible(prepared), PartitionSupervisor.resize(to)),
          () =>
            Effect.gen(function*() {
              const shards = ref
              if (shards === undefined) return
              ref = undefined
              yield* settle
              const running = (yield* PartitionSupervisor.countChildren(shards)).active
              assert.strictEqual(running, shards.partitions)
              assert.include([from, to], running)
              seen.add(running)
              yield* PartitionSupervisor.stop(shards)
            }),
          { fibers: "all" }
        )
        assert.isAbove(operations, 20)
        assert.strictEqual(seen.size, 2)
      }
    }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
})
