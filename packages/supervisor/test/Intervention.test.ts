import { Orchestrator, Routine } from "@effect-orchestra/core"
import { Child, DynamicSupervisor, Intervention, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Fiber, Option, Random, Schedule, type Scope } from "effect"
import { TestClock } from "effect/testing"

const found = Effect.fnUntraced(function*(id: string) {
  return Option.getOrThrow(yield* Intervention.find(id))
})

/** The listed routine of this name. */
const named = Effect.fnUntraced(function*(name: string) {
  const routine = (yield* Orchestrator.list).find((routine) => routine.name === name)
  return yield* found(routine?.id ?? assert.fail(`no routine "${name}"`))
})

const run = (name: string) =>
  Effect.map(Effect.flatMap(named(name), Routine.snapshot), ({ incarnation, state }) => [incarnation, state])

const restarted = (name: string, reason?: string) =>
  Effect.flatMap(named(name), (routine) => Effect.flatten(Intervention.restart(routine, reason)))

const refusal = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.match(effect, { onFailure: ({ _tag }) => _tag, onSuccess: () => "done" })

const scoped = <A, E>(effect: Effect.Effect<A, E, Orchestrator | Scope.Scope>) =>
  effect.pipe(Effect.scoped, Effect.provide(Orchestrator.layer))

describe("Intervention", () => {
  it.effect("restarts one child in the same routine, for the reason given and at no charge", () =>
    scoped(Effect.gen(function*() {
      yield* Supervisor.start(Supervisor.make({
        name: "app",
        strategy: "one_for_one",
        intensity: 1,
        children: [Child.make("a", Effect.never), Child.make("b", Effect.never)]
      }))
      const before = yield* named("a")
      for (const expected of [2, 3]) {
        const after = yield* restarted("a", "rotated keys")
        assert.strictEqual(after.id, before.id)
        assert.deepStrictEqual(yield* run("a"), [expected, "running"])
      }
      assert.deepStrictEqual(yield* run("b"), [1, "running"])
      const { budget, lastExit, restarts } = yield* Routine.snapshot(before)
      assert.deepStrictEqual([budget?.used, restarts], [0, 2])
      assert.deepStrictEqual(lastExit?.cancelledBy, { reason: "rotated keys", requester: null })
    })))

  it.effect("restarts with it those that stand on it", () =>
    scoped(Effect.gen(function*() {
      yield* Supervisor.start(Supervisor.make({
        name: "app",
        strategy: "rest_for_one",
        intensity: 0,
        children: [Child.make("a", Effect.never), Child.make("b", Effect.never), Child.make("c", Effect.never)]
      }))
      yield* restarted("b")
      yield* TestClock.adjust(0)
      assert.deepStrictEqual([yield* run("a"), yield* run("b"), yield* run("c")], [
        [1, "running"],
        [2, "running"],
        [2, "running"]
      ])
    })))

  it.effect("ends a backoff", () =>
    scoped(Effect.gen(function*() {
      let runs = 0
      const body = Effect.suspend(() => ++runs === 1 ? Effect.fail("x") : Effect.never)
      yield* Supervisor.start(Supervisor.make({
        name: "app",
        strategy: "one_for_one",
        children: [Child.make("a", body, { backoff: Schedule.spaced("1 hour") })]
      }))
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(yield* run("a"), [1, "backoff"])
      yield* restarted("a")
      assert.deepStrictEqual(yield* run("a"), [2, "running"])
      yield* TestClock.adjust("2 hours")
      assert.deepStrictEqual(yield* run("a"), [2, "running"])
    })))

  it.effect("waits for the run that ends, and leaves a run that fails to the supervisor", () =>
    scoped(Effect.gen(function*() {
      const go = yield* Deferred.make<void>()
      let runs = 0
      const body = Effect.suspend(() =>
        ++runs === 2
          ? Effect.fail("x")
          : Effect.onInterrupt(Effect.andThen(Routine.ready, Effect.never), () => Deferred.await(go))
      )
      yield* Supervisor.start(Supervisor.make({
        name: "app",
        strategy: "one_for_one",
        children: [Child.make("a", body, { awaitReady: true, shutdown: "1 hour" })]
      }))
      const a = yield* named("a")
      const through = yield* Effect.forkChild(Effect.flatten(Intervention.restart(a)), { startImmediately: true })
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(through.pollUnsafe(), undefined)
      assert.strictEqual(yield* refusal(Intervention.restart(a)), "ChildRestarting")
      yield* Deferred.succeed(go, undefined)
      yield* TestClock.adjust(0)
      assert.isDefined(through.pollUnsafe())
      assert.deepStrictEqual(yield* run("a"), [3, "running"])
      assert.strictEqual((yield* Routine.snapshot(a)).budget?.used, 1)
    })))

  it.effect("starts again what somebody has stopped, found by its last routine", () =>
    scoped(Effect.gen(function*() {
      const ref = yield* Supervisor.start(Supervisor.make({
        name: "app",
        strategy: "one_for_one",
        children: [Child.make("a", Effect.never), Child.make("b", Effect.never)]
      }))
      const { id } = yield* named("a")
      yield* Supervisor.terminateChild(ref, "a")
      const [kept] = (yield* Orchestrator.snapshot).flatMap((node) => node.kind === "supervisor" ? node.stopped : [])
      assert.strictEqual(kept?.routine, id)
      const old = yield* found(id)
      const after = yield* Effect.flatten(Intervention.restart(old))
      assert.notStrictEqual(after.id, id)
      assert.deepStrictEqual(yield* run("a"), [2, "running"])
      assert.isTrue(Option.isNone(yield* Intervention.find(id)))
      assert.strictEqual(yield* refusal(Intervention.restart(old)), "ChildNotFound")
    })))

  it.effect("releases what is quarantined, and nothing else", () =>
    scoped(Effect.gen(function*() {
      let isBroken = true
      const body = Effect.suspend(() => isBroken ? Effect.fail("x") : Effect.never)
      yield* Supervisor.start(Supervisor.make({
        name: "app",
        strategy: "one_for_one",
        children: [Child.make("a", body, { onGiveUp: "quarantine", intensity: 1, period: "1 minute" })]
      }))
      yield* TestClock.adjust(0)
      const [kept] = (yield* Orchestrator.snapshot).flatMap((node) => node.kind === "supervisor" ? node.stopped : [])
      assert.strictEqual(kept?.state, "quarantined")
      const old = yield* found(kept?.routine ?? "")
      isBroken = false
      const after = yield* Effect.flatten(Intervention.release(old))
      assert.deepStrictEqual(yield* run("a"), [3, "running"])
      assert.strictEqual(yield* refusal(Intervention.release(after)), "NotQuarantined")
    })))

  it.effect("reaches the children of a dynamic supervisor, which keep their place", () =>
    scoped(Effect.gen(function*() {
      const ref = yield* DynamicSupervisor.start(DynamicSupervisor.make({ name: "jobs", child: () => Effect.never }))
      const job = yield* DynamicSupervisor.startChild(ref, undefined)
      yield* DynamicSupervisor.startChild(ref, undefined)
      const after = yield* Effect.flatten(Intervention.restart(yield* found(job.id)))
      assert.strictEqual(after.id, job.id)
      assert.strictEqual((yield* Routine.snapshot(job)).incarnation, 2)
      assert.strictEqual((yield* DynamicSupervisor.countChildren(ref)).active, 2)
    })))

  it.effect("keeps nobody from starting when it starts a child into the backoff of its group, and that fails", () =>
    scoped(Effect.gen(function*() {
      const fails = yield* Deferred.make<never, string>()
      let isFirst = true
      const a = Effect.suspend(() =>
        isFirst ? Effect.onExit(Deferred.await(fails), () => Effect.sync(() => isFirst = false)) : Effect.never
      )
      let runs = 0
      const b = Effect.suspend(() =>
        ++runs === 1
          ? Effect.andThen(Routine.ready, Effect.never)
          : Effect.andThen(Effect.sleep("1 second"), Effect.fail("x"))
      )
      const ref = yield* Supervisor.start(Supervisor.make({
        name: "app",
        strategy: "rest_for_one",
        children: [
          Child.make("a", a, { backoff: Schedule.spaced("100 millis") }),
          Child.make("b", b, { awaitReady: true }),
          Child.make("c", Effect.never)
        ]
      }))
      const { id } = yield* named("b")
      yield* Supervisor.terminateChild(ref, "b")
      yield* Deferred.fail(fails, "x")
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(yield* run("c"), [1, "backoff"])
      const through = yield* Effect.forkChild(Effect.flip(Effect.flatten(Intervention.restart(yield* found(id)))), {
        startImmediately: true
      })
      yield* TestClock.adjust("10 seconds")
      assert.strictEqual((yield* Fiber.join(through))._tag, "StartFailure")
      assert.deepStrictEqual([yield* run("a"), yield* run("c")], [[2, "running"], [2, "running"]])
      assert.deepStrictEqual((yield* stopped).map(({ id }) => id), ["b"])
    })))

  it.effect("refuses what it cannot start again", () =>
    scoped(Effect.gen(function*() {
      const alone = yield* Orchestrator.fork(Effect.never, { name: "alone" })
      assert.strictEqual(yield* refusal(Intervention.restart(alone)), "NotSupervised")
      assert.strictEqual(yield* refusal(Intervention.release(alone)), "NotSupervised")
      const ref = yield* Supervisor.start(Supervisor.make({
        name: "app",
        strategy: "one_for_one",
        children: [Child.make("once", Effect.never, { restart: "temporary" }), Child.make("a", Effect.never)]
      }))
      const once = yield* named("once")
      assert.strictEqual(yield* refusal(Intervention.restart(once)), "TemporaryChild")
      assert.deepStrictEqual(yield* run("once"), [1, "running"])
      const a = yield* named("a")
      yield* Supervisor.stop(ref)
      assert.strictEqual(yield* refusal(Intervention.restart(a)), "SupervisorNotRunning")
      for (const id of ["r-999", "s-1", "", "__proto__", "o-0"]) {
        assert.isTrue(Option.isNone(yield* Intervention.find(id)), id)
      }
    })))
})

const seeds = Number(process.env["SEEDS"] ?? 50)

/** A child whose runs say when they begin and end, and how they are to end. */
class Actor {
  readonly name: string
  live = 0
  overlapped = false
  isBroken = false
  /** Whether nobody turns the clock any more. */
  isOver = false
  fails: Deferred.Deferred<never, string> | undefined = undefined

  constructor(name: string) {
    this.name = name
  }

  /** Takes some time to begin and to end. */
  readonly run = Effect.gen({ self: this }, function*() {
    yield* Effect.acquireRelease(
      Effect.sync(() => {
        this.overlapped ||= this.live > 0
        this.live++
      }),
      () => Effect.andThen(this.isOver ? Effect.void : Effect.sleep("5 millis"), Effect.sync(() => void this.live--))
    )
    yield* Effect.sleep("3 millis")
    if (this.isBroken) return yield* Effect.fail("broken")
    yield* Routine.ready
    const fails = this.fails = yield* Deferred.make<never, string>()
    return yield* Deferred.await(fails)
  }).pipe(Effect.scoped)
}

const strategies = ["one_for_one", "one_for_all", "rest_for_one", "dependency"] as const

/** What the supervisors keep and do not run. */
const stopped = Effect.map(
  Orchestrator.snapshot,
  (nodes) => nodes.flatMap((node) => node.kind === "supervisor" ? node.stopped : [])
)

/** Something happens to one of them. */
const happens = Effect.fnUntraced(function*(actor: Actor) {
  const listed = (yield* Orchestrator.list).find(({ name }) => name === actor.name)
  const kept = (yield* stopped).find(({ id }) => id === actor.name)
  const routine = yield* Intervention.find(listed?.id ?? kept?.routine ?? "")
  const what = yield* Random.nextIntBetween(0, 9)
  if (what === 6) actor.isBroken = !actor.isBroken
  if (what === 7 && actor.fails !== undefined) yield* Deferred.fail(actor.fails, "failed")
  if (what > 5 || Option.isNone(routine)) return
  const operation = what < 4
    ? Effect.flatten(Intervention.restart(routine.value, "by hand"))
    : what === 4
    ? Routine.stop(routine.value)
    : Routine.interrupt(routine.value)
  const fiber = yield* Effect.forkChild(Effect.exit(operation), { startImmediately: true })
  if (yield* Random.nextBoolean) yield* Effect.forkChild(Fiber.interrupt(fiber))
})

/** Three of them; by `dependency` the second and the third stand on the first. */
const troupe = ([a, b, c]: readonly [Actor, Actor, Actor], strategy: (typeof strategies)[number]) => {
  const options = { awaitReady: true, backoff: Schedule.spaced("4 millis"), shutdown: "1 second" } as const
  const limits = { name: "app", intensity: 1000, period: "1 second" } as const
  const first = Child.make("a", a.run, options)
  return strategy === "dependency"
    ? Supervisor.make({
      ...limits,
      strategy,
      children: [
        first,
        Child.make("b", b.run, { ...options, dependsOn: ["a"] }),
        Child.make("c", c.run, { ...options, dependsOn: ["a"] })
      ]
    })
    : Supervisor.make({
      ...limits,
      strategy,
      children: [first, Child.make("b", b.run, options), Child.make("c", c.run, options)]
    })
}

const play = Effect.fnUntraced(function*(
  actors: readonly [Actor, Actor, Actor],
  strategy: (typeof strategies)[number]
) {
  const started = yield* Effect.forkChild(Supervisor.start(troupe(actors, strategy)))
  yield* TestClock.adjust("20 millis")
  yield* Fiber.join(started)
  for (let step = 0; step < 30; step++) {
    yield* happens(actors[yield* Random.nextIntBetween(0, 2)] ?? assert.fail())
    yield* TestClock.adjust(yield* Random.nextIntBetween(0, 6))
  }
  for (const actor of actors) actor.isBroken = false
  yield* TestClock.adjust("1 second")
  for (const { routine } of yield* stopped) {
    yield* Effect.forkChild(Effect.exit(Effect.flatten(Intervention.restart(yield* found(routine)))))
    yield* TestClock.adjust("1 second")
  }
  const states = (yield* Orchestrator.list).map(({ name, state }) => `${name} ${state}`).toSorted()
  assert.deepStrictEqual(states, ["a running", "b running", "c running"])
  for (const { live, overlapped } of actors) assert.deepStrictEqual([live, overlapped], [1, false])
})

describe("Intervention at random", () => {
  it.effect(
    "leaves every child that is to run running, one run at a time, whatever comes together",
    () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < seeds; seed++) {
          const actors = [new Actor("a"), new Actor("b"), new Actor("c")] as const
          const strategy = strategies[seed % strategies.length] ?? assert.fail()
          const told = Effect.catchDefect(
            play(actors, strategy),
            (defect) => Effect.die(new Error(`seed ${seed}, ${strategy}`, { cause: defect }))
          )
          // What closes the scope cannot turn its clock.
          const isOver = Effect.sync(() => actors.forEach((actor) => actor.isOver = true))
          yield* scoped(Effect.ensuring(told, isOver)).pipe(Random.withSeed(`intervention ${seed}`))
          assert.deepStrictEqual(actors.map(({ live }) => live), [0, 0, 0])
        }
      }),
    60_000
  )
})
