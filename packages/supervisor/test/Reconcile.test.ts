import { Orchestrator, Routine } from "@effect-orchestra/core"
import { assertNoLeaks, atEveryOperation } from "@effect-orchestra/core/testing"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, type Scope } from "effect"
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

  /** A supervisor of two children; the first takes a second to stop, and another specification leaves it out. */
  const midway = Effect.fnUntraced(function*(next: ReadonlyArray<Child.Any>) {
    yield* TestClock.adjust(0)
    const slow = Child.make("slow", Effect.onInterrupt(Effect.never, () => Effect.sleep("1 second")))
    const ref = yield* Supervisor.start(app([slow, Child.make("a", a)]))
    take()
    const fiber = yield* Effect.forkChild(Effect.exit(Supervisor.reconcile(ref, app(next))), { startImmediately: true })
    const rest = Effect.gen(function*() {
      yield* TestClock.adjust("1 second")
      const exit = yield* Fiber.join(fiber)
      for (let i = 0; i < 10; i++) yield* Effect.yieldNow
      return exit
    })
    const stop = Effect.gen(function*() {
      const stopping = yield* Effect.forkChild(Supervisor.stop(ref), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(stopping)
    })
    return { ref, rest, stop }
  })
  const broken = Child.make("broken", Effect.fail("no"), { awaitReady: true })

  it.effect("takes nobody in when the supervisor is stopped meanwhile", () =>
    scene(Effect.gen(function*() {
      const { ref, rest } = yield* midway([Child.make("a", a), Child.make("b", b)])
      const stopping = yield* Effect.forkChild(Supervisor.stop(ref), { startImmediately: true })
      const exit = yield* rest
      yield* Fiber.join(stopping)
      assert.isTrue(Exit.isFailure(exit) && Cause.pretty(exit.cause).includes("is not running"))
      assert.deepStrictEqual([take(), yield* Orchestrator.list], [["stop a"], []])
    })))

  it.effect("leaves alone what is added, deleted or stopped by hand meanwhile, also when it is taken back", () =>
    scene(Effect.gen(function*() {
      for (const fails of [false, true]) {
        const next = [Child.make("a", b2), Child.make("b", b), ...(fails ? [broken] : [])]
        const { ref, rest, stop } = yield* midway(next)
        yield* Supervisor.startChild(ref, Child.make("c", c))
        yield* Supervisor.deleteChild(ref, "a")
        const exit = yield* rest
        assert.strictEqual(Exit.isFailure(exit), fails)
        const states = yield* shown(ref)
        assert.deepStrictEqual(states, fails ? ["slow running 2", "c running 1"] : ["b running 1", "c running 1"])
        yield* stop
      }
    })))

  it.effect("fails where somebody has taken the id of a child that is to be added; and leaves them that of one it has removed", () =>
    scene(Effect.gen(function*() {
      const { ref, rest, stop } = yield* midway([Child.make("b", b2)])
      yield* Supervisor.startChild(ref, Child.make("a", c))
      yield* Supervisor.startChild(ref, Child.make("b", b))
      const exit = yield* rest
      assert.isTrue(Exit.isFailure(exit) && Cause.pretty(exit.cause).includes(`child "b" is running`))
      assert.deepStrictEqual(yield* shown(ref), ["slow running 2", "a running 1", "b running 1"])
      assert.deepStrictEqual(take().filter((line) => line.startsWith("start")), ["start c", "start b"])
      yield* stop
    })))

  it.effect("starts a temporary child that it replaces, or that stands on one, anew", () =>
    scene(Effect.gen(function*() {
      const temporary = { restart: "temporary" } as const
      const children = (first: typeof a) => [Child.make("a", first), Child.make("b", b, temporary), Child.make("c", c)]
      const ref = yield* Supervisor.start(app(children(a), {}, "rest_for_one"))
      take()
      const report = yield* Supervisor.reconcile(ref, app(children(b2), {}, "rest_for_one"))
      assert.deepStrictEqual([report.replaced, report.restarted], [["a"], ["b", "c"]])
      assert.deepStrictEqual(yield* shown(ref), ["a running 2", "b running 2", "c running 2"])
      assert.deepStrictEqual(take(), ["stop c", "stop b", "stop a", "start b2", "start b", "start c"])
    })))

  it.effect("starts nothing beside a child of the same id that was abandoned", () =>
    scene(Effect.gen(function*() {
      const deaf = Child.make("deaf", Effect.uninterruptible(Effect.sleep("1 minute")), { shutdown: "1 second" })
      const ref = yield* Supervisor.start(app([Child.make("a", a), deaf]))
      const removing = yield* Effect.forkChild(Supervisor.reconcile(ref, app([Child.make("a", a)])))
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(removing)
      const failure = yield* Effect.flip(Supervisor.reconcile(ref, app([Child.make("a", a), Child.make("deaf", b)])))
      assert.include(String(failure.message), `child "deaf" is abandoned`)
      yield* TestClock.adjust("1 minute")
      yield* Supervisor.reconcile(ref, app([Child.make("a", a), Child.make("deaf", b)]))
      assert.deepStrictEqual(yield* shown(ref), ["a running 1", "deaf running 1"])
    })))

  it.effect("waits with whoever has begun the same start, and both are answered", () =>
    scene(Effect.gen(function*() {
      const spec = (one: typeof a) =>
        Supervisor.make({
          name: "app",
          strategy: "dependency",
          children: [Child.make("a", one), Child.make("c", c, { dependsOn: ["a"] })]
        })
      const slow = Effect.onInterrupt(a, () => Effect.sleep("1 second"))
      yield* TestClock.adjust(0)
      const ref = yield* Supervisor.start(spec(slow))
      const reconciling = yield* Effect.forkChild(Supervisor.reconcile(ref, spec(b)), { startImmediately: true })
      // While its dependency stops: it is held.
      const restarting = yield* Effect.forkChild(Supervisor.restartChild(ref, "c"), { startImmediately: true })
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual((yield* Fiber.join(reconciling)).restarted, ["c"])
      assert.strictEqual((yield* Fiber.join(restarting)).state, "running")
      assert.deepStrictEqual(yield* shown(ref), ["a running 2", "c running 2"])
    })))

  it.effect("gives a temporary child that may run again from now on what it runs", () =>
    scene(Effect.gen(function*() {
      const ref = yield* Supervisor.start(app([Child.make("a", a, { restart: "temporary" })]))
      yield* Supervisor.reconcile(ref, app([Child.make("a", a)]))
      const [child] = yield* Supervisor.whichChildren(ref)
      if (child !== undefined) yield* Routine.interrupt(child.routine)
      for (let i = 0; i < 5; i++) yield* Effect.yieldNow
      assert.deepStrictEqual(yield* shown(ref), ["a running 2"])
    })))

  it.effect("forgets whom it removes, whatever they say on their way out", () =>
    scene(Effect.gen(function*() {
      for (const last of [Supervisor.ignore, Effect.fail("no")]) {
        let runs = 0
        const told = yield* Deferred.make<void>()
        const leaving = Effect.suspend(() =>
          ++runs === 1 ? Effect.andThen(Routine.ready, a) : Effect.andThen(Deferred.await(told), last)
        )
        const slow = Effect.onInterrupt(Effect.never, () => Effect.sleep("1 second"))
        yield* TestClock.adjust(0)
        const quarantine = { awaitReady: true, onGiveUp: "quarantine", intensity: 1, period: "1 minute" } as const
        const children = [Child.make("leaving", leaving, quarantine), Child.make("slow", slow)]
        const ref = yield* Supervisor.start(app(children))
        const [child] = yield* Supervisor.whichChildren(ref)
        if (child !== undefined) yield* Routine.interrupt(child.routine)
        const removing = yield* Effect.forkChild(Supervisor.reconcile(ref, app([])), { startImmediately: true })
        yield* Deferred.succeed(told, undefined)
        for (let i = 0; i < 5; i++) yield* Effect.yieldNow
        assert.strictEqual((yield* Effect.flip(Supervisor.restartChild(ref, "leaving")))._tag, "ChildNotFound")
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual((yield* Fiber.join(removing)).removed, ["leaving", "slow"])
        assert.deepStrictEqual([runs, yield* shown(ref)], [2, []])
        yield* Supervisor.stop(ref)
      }
    })))

  it.effect("taken back, it leaves no circle of those who depend on each other: all of them still stop", () =>
    scene(Effect.gen(function*() {
      const spec = (children: ReadonlyArray<Child.Any>) =>
        Supervisor.make({ name: "app", strategy: "dependency", children: [...children] }) as Supervisor.Supervisor<
          never,
          never,
          never
        >
      const ref = yield* Supervisor.start(spec([Child.make("d", a), Child.make("c", c, { dependsOn: ["d"] })]))
      yield* Supervisor.terminateChild(ref, "d")
      yield* Supervisor.deleteChild(ref, "d")
      const never = Child.make("slow", Effect.never, { awaitReady: true, startTimeout: "1 hour" })
      const changing = yield* Effect.forkChild(Supervisor.reconcile(ref, spec([Child.make("c", b), never])), {
        startImmediately: true
      })
      for (let i = 0; i < 5; i++) yield* Effect.yieldNow
      const again = Child.make("d", b2)
      yield* Supervisor.startChild(ref, { ...again, spec: { ...again.spec, dependsOn: ["c"] } })
      yield* Fiber.interrupt(changing)
      for (let i = 0; i < 5; i++) yield* Effect.yieldNow
      assert.deepStrictEqual(yield* shown(ref), ["c running 3", "d running 1"])
      yield* Supervisor.stop(ref)
    })))
})
