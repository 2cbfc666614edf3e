import { Orchestrator, Routine } from "@effect-orchestra/core"
import type { Event } from "@effect-orchestra/core"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer, Option, Ref, Schedule, type Scope } from "effect"
import { TestClock } from "effect/testing"

/** A log of what happens, in order. */
const journal = () => {
  const lines: Array<string> = []
  return { lines, write: (line: string) => Effect.sync(() => void lines.push(line)) }
}

/** A child that says when it starts and when it is gone, and fails when told. */
const steerable = (id: string, write: (line: string) => Effect.Effect<void>) => {
  let fail = Deferred.makeUnsafe<never, string>()
  const effect = Effect.suspend(() => {
    const mine = fail = Deferred.makeUnsafe<never, string>()
    return Effect.andThen(write(`start ${id}`), Deferred.await(mine)).pipe(Effect.ensuring(write(`stop ${id}`)))
  })
  return { id, effect, fail: Effect.suspend(() => Deferred.fail(fail, `${id} failed`)) }
}

const settle = Effect.gen(function*() {
  for (let i = 0; i < 10; i++) yield* Effect.yieldNow
})

const states = Effect.map(
  Orchestrator.list,
  (routines) => routines.map((routine) => `${routine.name} ${routine.state} ${routine.incarnation}`)
)

const record = Effect.gen(function*() {
  const { instrument } = yield* Orchestrator
  const seen: Array<Event.OrchestratorEvent> = []
  yield* instrument((event) => void seen.push(event))
  return seen
})

const test = <A, E>(body: () => Effect.Effect<A, E, Orchestrator | Scope.Scope>) => () =>
  body().pipe(Effect.provide(Orchestrator.layer))

describe("Supervisor", () => {
  describe("start", () => {
    it.effect(
      "fails on time when a child is not ready within its startTimeout, even one that cannot be interrupted",
      test(() =>
        Effect.gen(function*() {
          const { lines, write } = journal()
          const hung = Layer.effectDiscard(Effect.acquireRelease(Effect.never, () => Effect.void))
          const spec = Supervisor.make({
            name: "app",
            strategy: "rest_for_one",
            children: [
              Child.make("a", steerable("a", write).effect),
              Child.layer("b", hung, { startTimeout: "1 second" })
            ]
          })
          const fiber = yield* Effect.forkChild(Effect.flip(Supervisor.start(spec)), { startImmediately: true })
          yield* TestClock.adjust("999 millis")
          assert.isUndefined(fiber.pollUnsafe())
          yield* TestClock.adjust("1 millis")
          const failure = yield* Fiber.join(fiber)
          assert.strictEqual(failure.child, "b")
          assert.include(failure.message, "was not ready within 1000 ms")
          assert.deepStrictEqual(lines, ["start a", "stop a"])
          assert.deepStrictEqual(
            (yield* Orchestrator.list).map(({ health, name, state }) => [name, state, health]),
            [["b", "abandoned", "stuck"]]
          )
        })
      )
    )
  })

  describe("start on a closed orchestrator", () => {
    it.effect(
      "fails at once and starts nothing",
      test(() =>
        Effect.gen(function*() {
          yield* Orchestrator.shutdown()
          const spec = Supervisor.make({
            name: "app",
            strategy: "one_for_one",
            children: [Child.make("a", Effect.die("must not run"))]
          })
          const failure = yield* Effect.flip(Supervisor.start(spec))
          assert.include(failure.message, "is closed")
        })
      )
    )
  })

  describe("restart", () => {
    it.effect(
      "one_for_one restarts the failed child alone, under the same id and path",
      test(() =>
        Effect.gen(function*() {
          const { lines, write } = journal()
          const [a, b] = [steerable("a", write), steerable("b", write)]
          const spec = Supervisor.make({
            name: "app",
            strategy: "one_for_one",
            children: [Child.make("a", a.effect), Child.make("b", b.effect)]
          })
          yield* Supervisor.start(spec)
          const before = yield* Orchestrator.list
          yield* a.fail
          yield* settle
          const after = yield* Orchestrator.list
          assert.deepStrictEqual(after.map(({ id, path }) => [id, path]), before.map(({ id, path }) => [id, path]))
          assert.deepStrictEqual(after.map((routine) => routine.incarnation), [2, 1])
          assert.deepStrictEqual(lines, ["start a", "start b", "stop a", "start a"])
          assert.strictEqual(after[0]?.lastExit?.message, "a failed")
        })
      )
    )

    it.effect(
      "Routine.stop ends a child for good",
      test(() =>
        Effect.gen(function*() {
          const ready = yield* Deferred.make<Routine.Routine<unknown, unknown>>()
          const child = Effect.gen(function*() {
            const self = yield* Routine.current
            if (Option.isSome(self)) yield* Deferred.succeed(ready, self.value)
            return yield* Effect.never
          })
          yield* Supervisor.start(
            Supervisor.make({ name: "app", strategy: "one_for_one", children: [Child.make("a", child)] })
          )
          const routine = yield* Deferred.await(ready)
          assert.strictEqual(yield* Routine.stop(routine), "stopped")
          yield* TestClock.adjust("1 hour")
          assert.deepStrictEqual(yield* states, [])
          assert.isTrue(Exit.isFailure(yield* Routine.await(routine)))
        })
      )
    )
  })

  describe("intensity", () => {
    it.effect(
      "a supervisor without a parent that gives up fails the orchestrator",
      test(() =>
        Effect.gen(function*() {
          const spec = Supervisor.make({
            name: "app",
            strategy: "one_for_one",
            intensity: 0,
            children: [Child.make("a", Effect.fail("no"))]
          })
          yield* Supervisor.start(spec)
          const failure = yield* Effect.flip(Orchestrator.fatal)
          assert.strictEqual(failure.path, "/orchestra/app")
        })
      )
    )
  })

  describe("backoff", () => {
    it.effect(
      "gives up when its schedule is broken",
      test(() =>
        Effect.gen(function*() {
          const broken = Schedule.modifyDelay(Schedule.forever, () => Effect.die(new Error("broken schedule")))
          const spec = Supervisor.make({
            name: "app",
            strategy: "one_for_one",
            children: [Child.make("a", Effect.fail("again"), { backoff: broken })]
          })
          const failure = yield* Effect.flip(Supervisor.run(spec))
          assert.include(failure.message, "broken schedule")
        })
      )
    )

    it.effect(
      "gives up when its schedule ends",
      test(() =>
        Effect.gen(function*() {
          const spec = Supervisor.make({
            name: "app",
            strategy: "one_for_one",
            intensity: 100,
            children: [Child.make("a", Effect.fail("again"), { backoff: Schedule.recurs(2) })]
          })
          const failure = yield* Effect.flip(Supervisor.run(spec))
          assert.strictEqual(failure._tag, "RestartIntensityReached")
        })
      )
    )
  })

  describe("stop", () => {
    it.effect(
      "ends the children in reverse order, each gone before the next is asked",
      test(() =>
        Effect.gen(function*() {
          const { lines, write } = journal()
          const slow = (id: string) =>
            Effect.never.pipe(
              Effect.onInterrupt(() =>
                Effect.andThen(write(`stopping ${id}`), Effect.andThen(Effect.sleep("1 second"), write(`gone ${id}`)))
              )
            )
          const spec = Supervisor.make({
            name: "app",
            strategy: "one_for_one",
            children: [Child.make("a", slow("a")), Child.make("b", slow("b"))]
          })
          // The first sleep under a TestClock arms its warning in an interruptible region: not within a finalizer.
          yield* TestClock.adjust(0)
          const app = yield* Supervisor.start(spec)
          const fiber = yield* Effect.forkChild(Supervisor.stop(app), { startImmediately: true })
          yield* TestClock.adjust("2 seconds")
          yield* Fiber.join(fiber)
          assert.deepStrictEqual(lines, ["stopping b", "gone b", "stopping a", "gone a"])
        })
      )
    )

    it.effect(
      "abandons a child that ignores its interruption past its bound, and goes on",
      test(() =>
        Effect.gen(function*() {
          const { lines, write } = journal()
          const spec = Supervisor.make({
            name: "app",
            strategy: "one_for_one",
            children: [
              Child.make("a", steerable("a", write).effect),
              Child.make("deaf", Effect.uninterruptible(Effect.sleep("1 hour")), { shutdown: "300 millis" })
            ]
          })
          const app = yield* Supervisor.start(spec)
          const fiber = yield* Effect.forkChild(Supervisor.stop(app), { startImmediately: true })
          yield* TestClock.adjust("299 millis")
          assert.deepStrictEqual(lines, ["start a"])
          yield* TestClock.adjust("1 millis")
          yield* Fiber.join(fiber)
          assert.deepStrictEqual(lines, ["start a", "stop a"])
          assert.deepStrictEqual(yield* states, ["deaf abandoned 1"])
          // The way to what still runs stays listed, too.
          const paths = Effect.map(Orchestrator.snapshot, (nodes) => nodes.map(({ path }) => path))
          assert.deepStrictEqual(yield* paths, ["/orchestra", "/orchestra/app", "/orchestra/app/deaf"])
          yield* TestClock.adjust("1 hour")
          assert.deepStrictEqual(yield* paths, ["/orchestra"])
        })
      )
    )

    it.effect(
      "wins over a start that is under way",
      test(() =>
        Effect.gen(function*() {
          const { lines, write } = journal()
          const spec = Supervisor.make({
            name: "app",
            strategy: "one_for_one",
            children: [
              Child.make("a", steerable("a", write).effect),
              Child.make("b", Effect.never, { awaitReady: true })
            ]
          })
          const fiber = yield* Effect.forkChild(Effect.exit(Supervisor.start(spec)), { startImmediately: true })
          yield* settle
          const report = yield* Orchestrator.shutdown()
          assert.isTrue(report.clean)
          assert.isTrue(Exit.isFailure(yield* Fiber.join(fiber)))
          assert.deepStrictEqual(lines, ["start a", "stop a"])
        })
      )
    )

    it.effect(
      "called by a child of its own tree does not deadlock",
      test(() =>
        Effect.gen(function*() {
          const ref = yield* Deferred.make<Supervisor.SupervisorRef>()
          const spec = Supervisor.make({
            name: "app",
            strategy: "one_for_one",
            children: [Child.make("a", Effect.flatMap(Deferred.await(ref), Supervisor.stop))]
          })
          const app = yield* Supervisor.start(spec)
          yield* Deferred.succeed(ref, app)
          yield* Supervisor.await(app)
          assert.deepStrictEqual(yield* Orchestrator.list, [])
        })
      )
    )
  })

  describe("layers", () => {
    class Db extends Context.Service<Db, { readonly n: number }>()("test/Db") {}
    class Api extends Context.Service<Api, { readonly db: number }>()("test/Api") {}

    it.effect(
      "give their services to later siblings, rebuilt with them, old resources released first",
      test(() =>
        Effect.gen(function*() {
          const { lines, write } = journal()
          let n = 0
          const crash = yield* Ref.make(Deferred.makeUnsafe<never, string>())
          const DbLive = Layer.effect(
            Db,
            Effect.gen(function*() {
              const mine = ++n
              const signal = Deferred.makeUnsafe<never, string>()
              yield* Ref.set(crash, signal)
              yield* Effect.acquireRelease(write(`open db ${mine}`), () => write(`close db ${mine}`))
              yield* Orchestrator.forkScoped(Deferred.await(signal), { name: "pump" })
              return { n: mine }
            })
          )
          const ApiLive = Layer.effect(
            Api,
            Effect.gen(function*() {
              const db = yield* Db
              yield* Effect.acquireRelease(write(`open api on ${db.n}`), () => write(`close api on ${db.n}`))
              return { db: db.n }
            })
          )
          const spec = Supervisor.make({
            name: "app",
            strategy: "rest_for_one",
            children: [Child.layer("db", DbLive), Child.layer("api", ApiLive)]
          })
          yield* Supervisor.start(spec)
          assert.deepStrictEqual(
            (yield* Orchestrator.list).map(({ path }) => path),
            ["/orchestra/app/db", "/orchestra/app/api", "/orchestra/app/db/pump"]
          )
          yield* Effect.flatMap(Ref.get(crash), (signal) => Deferred.fail(signal, "disk gone"))
          yield* settle
          assert.deepStrictEqual(lines, [
            "open db 1",
            "open api on 1",
            "close db 1",
            "close api on 1",
            "open db 2",
            "open api on 2"
          ])
          const [db] = yield* Orchestrator.list
          assert.deepStrictEqual([db?.incarnation, db?.lastExit?.reason, db?.lastExit?.message], [
            2,
            "failure",
            "disk gone"
          ])
        })
      )
    )
  })

  describe("context", () => {
    it.effect(
      "children inherit services, but not the span of whoever starts the supervisor",
      test(() =>
        Effect.gen(function*() {
          class Tenant extends Context.Service<Tenant, string>()("test/Tenant") {}
          const seen = yield* Deferred.make<{ readonly tenant: string; readonly spans: number }>()
          const child = Effect.gen(function*() {
            const span = yield* Effect.option(Effect.currentSpan)
            yield* Deferred.succeed(seen, { tenant: yield* Tenant, spans: Option.isSome(span) ? 1 : 0 })
            return yield* Effect.never
          })
          const spec = Supervisor.make({ name: "app", strategy: "one_for_one", children: [Child.make("a", child)] })
          yield* Supervisor.start(spec).pipe(Effect.withSpan("request"), Effect.provideService(Tenant, "acme"))
          assert.deepStrictEqual(yield* Deferred.await(seen), { tenant: "acme", spans: 0 })
        })
      )
    )
  })

  describe("nested", () => {
    it.effect(
      "children stand below their supervisor's path, once",
      test(() =>
        Effect.gen(function*() {
          const inner = Supervisor.make({
            name: "inner",
            strategy: "one_for_one",
            children: [Child.make("leaf", Effect.never)]
          })
          yield* Supervisor.start(
            Supervisor.make({ name: "outer", strategy: "one_for_one", children: [Child.supervisor(inner)] })
          )
          assert.deepStrictEqual(
            (yield* Orchestrator.list).map(({ path }) => path),
            ["/orchestra/outer/inner", "/orchestra/outer/inner/leaf"]
          )
        })
      )
    )
  })

  describe("events", () => {
    it.effect(
      "tell each decision and each restart once, in order",
      test(() =>
        Effect.gen(function*() {
          const children = ["a", "b"].map((id) => steerable(id, () => Effect.void))
          const seen = yield* record
          const spec = Supervisor.make({
            name: "app",
            strategy: "rest_for_one",
            children: children.map(({ effect, id }) => Child.make(id, effect))
          })
          yield* Supervisor.start(spec)
          seen.length = 0
          yield* children[0]?.fail ?? Effect.void
          yield* settle
          assert.deepStrictEqual(
            seen.map((event) => `${event._tag} ${event.path} ${event.incarnation}`),
            [
              "Exited /orchestra/app/a 1",
              "Decided /orchestra/app 1",
              "StopRequested /orchestra/app/b 1",
              "Exited /orchestra/app/b 1",
              "Restarted /orchestra/app/a 2",
              "Ready /orchestra/app/a 2",
              "Restarted /orchestra/app/b 2",
              "Ready /orchestra/app/b 2"
            ]
          )
          assert.isTrue(seen.every((event, index) => index === 0 || event.seq === (seen[index - 1]?.seq ?? 0) + 1))
        })
      )
    )
  })

  describe("a child", () => {
    it.effect(
      "remembers how its last 50 runs ended; a sibling remembers on whose behalf it was stopped",
      test(() =>
        Effect.gen(function*() {
          const handles = new Map<string, Routine.Routine<unknown, unknown>>()
          const remember = (id: string) =>
            Effect.map(Routine.current, (routine) => {
              if (Option.isSome(routine)) handles.set(id, routine.value)
            })
          let runs = 0
          const fails = Effect.suspend(() => ++runs <= 60 ? Effect.fail(`run ${runs}`) : Effect.never)
          const spec = Supervisor.make({
            name: "app",
            strategy: "rest_for_one",
            intensity: 100,
            children: [
              Child.make("a", Effect.andThen(remember("a"), Effect.andThen(Effect.yieldNow, fails))),
              Child.make("b", Effect.andThen(remember("b"), Effect.never))
            ]
          })
          yield* Supervisor.start(spec)
          while (runs <= 60) yield* Effect.yieldNow
          const attempts = (id: string) => Routine.attempts(handles.get(id) ?? assert.fail(id))
          const own = yield* attempts("a")
          assert.deepStrictEqual([own.length, own[0]?.message, own.at(-1)?.message], [50, "run 11", "run 60"])
          const siblings = yield* attempts("b")
          assert.deepStrictEqual(siblings.at(-1)?.cancelledBy, { reason: "restart", requester: "/orchestra/app" })
        })
      )
    )
  })
})
