import { Orchestrator, Routine } from "@effect-orchestra/core"
import { assertNoLeaks, atEveryOperation } from "@effect-orchestra/core/testing"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Fiber, Layer, type Scope } from "effect"
import { TestClock } from "effect/testing"

const journal: Array<string> = []
const worker = (id: string) =>
  Effect.acquireRelease(
    Effect.sync(() => void journal.push(`start ${id}`)),
    () => Effect.sync(() => void journal.push(`stop ${id}`))
  ).pipe(Effect.andThen(Effect.never))

const take = () => journal.splice(0)

const [a, b, c, b2] = ["a", "b", "c", "b2"].map(worker)
if (a === undefined || b === undefined || c === undefined || b2 === undefined) throw new Error("four workers")

const app = (
  children: ReadonlyArray<Child.Any>,
  options: Supervisor.SupervisorOptions = {},
  strategy: "one_for_one" | "rest_for_one" = "one_for_one"
) =>
  Supervisor.make({ name: "app", strategy, children: [...children], ...options }) as Supervisor.Supervisor<
    never,
    never,
    never
  >

const shown = (ref: Supervisor.SupervisorRef) =>
  Effect.map(
    Supervisor.whichChildren(ref),
    (children) => children.map(({ id, incarnation, state }) => `${id} ${state} ${incarnation}`)
  )

const scene = <A, E>(body: Effect.Effect<A, E, Orchestrator | Scope.Scope>) =>
  Effect.andThen(Effect.sync(take), Effect.andThen(Effect.scoped(body), assertNoLeaks())).pipe(
    Effect.provide(Orchestrator.layer)
  )

describe("Supervisor.reconcile", () => {
  it.effect(
    "95. changed flags apply, a changed spec applies from the next restart on, a new id is started, a removed one stopped; invalid: nothing changes",
    () =>
      scene(Effect.gen(function*() {
        const ref = yield* Supervisor.start(app([Child.make("a", a), Child.make("b", b)]))
        take()
        const invalid = app([Child.make("a", a), Child.make("c", c)])
        const twice = { ...invalid, children: [...invalid.children, ...invalid.children] }
        const refused = yield* Effect.flip(Supervisor.reconcile(ref, twice))
        assert.strictEqual(refused._tag, "InvalidChild")
        assert.deepStrictEqual([take(), yield* shown(ref)], [[], ["a running 1", "b running 1"]])

        const next = app([Child.make("c", c), Child.make("a", a, { shutdown: "1 minute" })], { intensity: 7 })
        const report = yield* Supervisor.reconcile(ref, next)
        assert.deepStrictEqual(report, {
          added: ["c"],
          removed: ["b"],
          replaced: [],
          updated: ["a"],
          restarted: [],
          unchanged: [],
          flags: ["intensity"]
        })
        assert.deepStrictEqual(take(), ["stop b", "start c"])
        assert.deepStrictEqual(yield* shown(ref), ["c running 1", "a running 1"])
        const [supervisor] = (yield* Orchestrator.snapshot).filter((node) => node.kind === "supervisor")
        assert.strictEqual(supervisor?.budget.max, 7)
      }))
  )

  it.effect("a child with another effect is started again under the same path, with those that stand on it", () =>
    scene(Effect.gen(function*() {
      const ref = yield* Supervisor.start(
        app([Child.make("a", a), Child.make("b", b), Child.make("c", c)], {}, "rest_for_one")
      )
      take()
      const next = app([Child.make("a", a), Child.make("b", b2), Child.make("c", c)], {}, "rest_for_one")
      const report = yield* Supervisor.reconcile(ref, next)
      assert.deepStrictEqual([report.replaced, report.restarted, report.unchanged], [["b"], ["c"], ["a"]])
      assert.deepStrictEqual(take(), ["stop c", "stop b", "start b2", "start c"])
      assert.deepStrictEqual(yield* shown(ref), ["a running 1", "b running 2", "c running 2"])
    })))

  it.effect("what somebody has stopped stays stopped, and what is the same is not touched", () =>
    scene(Effect.gen(function*() {
      const spec = app([Child.make("a", a), Child.make("b", b)])
      const ref = yield* Supervisor.start(spec)
      yield* Supervisor.terminateChild(ref, "b")
      take()
      const report = yield* Supervisor.reconcile(ref, app([Child.make("a", a), Child.make("b", b2)]))
      assert.deepStrictEqual([report.replaced, take()], [["b"], []])
      assert.deepStrictEqual(yield* shown(ref), ["a running 1", "b stopped 1"])
      yield* Supervisor.restartChild(ref, "b")
      assert.deepStrictEqual(take(), ["start b2"])
    })))

  it.effect("a child that does not start takes everything back", () =>
    scene(Effect.gen(function*() {
      const ref = yield* Supervisor.start(app([Child.make("a", a), Child.make("b", b)]))
      take()
      const next = app([
        Child.make("c", c),
        Child.make("b", b2),
        Child.make("d", Effect.fail("no d"), { awaitReady: true })
      ], { intensity: 7 })
      const failure = yield* Effect.flip(Supervisor.reconcile(ref, next))
      assert.strictEqual(failure._tag === "StartFailure" ? failure.child : failure._tag, "d")
      for (let i = 0; i < 5; i++) yield* Effect.yieldNow
      assert.deepStrictEqual(yield* shown(ref), ["a running 2", "b running 3"])
      const runs = take().filter((line) => line.startsWith("start"))
      assert.deepStrictEqual(runs, ["start c", "start b2", "start a", "start b"])
      const [supervisor] = (yield* Orchestrator.snapshot).filter((node) => node.kind === "supervisor")
      assert.strictEqual(supervisor?.budget.max, 3)
    })))

  it.effect("interrupted at any operation it is done or taken back", () =>
    scene(Effect.gen(function*() {
      const program = Effect.gen(function*() {
        const ref = yield* Supervisor.start(app([Child.make("a", a), Child.make("b", b)], {}, "rest_for_one"))
        yield* Supervisor.reconcile(
          ref,
          app([Child.make("a", a), Child.make("b", b2), Child.make("c", c)], {}, "rest_for_one")
        )
      })
      const operations = yield* atEveryOperation(program, () =>
        Effect.gen(function*() {
          assert.strictEqual((yield* Orchestrator.snapshot).length, 1)
          const lines = take()
          assert.strictEqual(
            lines.filter((line) => line.startsWith("start")).length,
            lines.filter((line) => line.startsWith("stop")).length
          )
        }))
      assert.isAbove(operations, 20)
    })))

  it.effect("a slow one is interrupted and takes back what it has done, while failures elsewhere are served", () =>
    scene(Effect.gen(function*() {
      const ref = yield* Supervisor.start(app([Child.make("a", a), Child.make("b", b)]))
      take()
      const slow = Child.make("slow", Effect.andThen(Effect.sleep("1 hour"), Routine.ready), {
        awaitReady: true,
        startTimeout: "2 hours"
      })
      const fiber = yield* Effect.forkChild(Supervisor.reconcile(ref, app([Child.make("a", a), slow])), {
        startImmediately: true
      })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* shown(ref), ["a running 1", "slow starting 1"])
      const [first] = yield* Supervisor.whichChildren(ref)
      if (first !== undefined) yield* Routine.interrupt(first.routine)
      for (let i = 0; i < 5; i++) yield* Effect.yieldNow
      assert.deepStrictEqual(yield* shown(ref), ["a running 2", "slow starting 1"])
      yield* Fiber.interrupt(fiber)
      for (let i = 0; i < 5; i++) yield* Effect.yieldNow
      assert.deepStrictEqual(yield* shown(ref), ["a running 2", "b running 2"])
    })))

  it.effect("a new child has what its caller provides, and what its siblings give", () =>
    scene(Effect.gen(function*() {
      class Db extends Context.Service<Db, string>()("reconcile/Db") {}
      class Name extends Context.Service<Name, string>()("reconcile/Name") {}
      const db = Child.layer("db", Layer.succeed(Db, "db"))
      const ref = yield* Supervisor.start(Supervisor.make({ name: "app", strategy: "rest_for_one", children: [db] }))
      const seen: Array<string> = []
      const reader = Child.make(
        "reader",
        Effect.gen(function*() {
          seen.push(yield* Db, yield* Name)
          return yield* Effect.never
        })
      )
      const next = Supervisor.make({ name: "app", strategy: "rest_for_one", children: [db, reader] })
      yield* Effect.provideService(Supervisor.reconcile(ref, next), Name, "ada")
      assert.deepStrictEqual(seen, ["db", "ada"])
    })))
})
