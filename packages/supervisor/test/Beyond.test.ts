import { Orchestrator, Routine } from "@effect-orchestra/core"
import { atEveryOperation, recorder, TestOrchestra } from "@effect-orchestra/core/testing"
import { Child, type Restart, Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Schedule, type Scope, Stream } from "effect"
import { now, type Part, piece, play, scenes, used } from "./Play.ts"
import { type Actor, failsAt, pass, type Play, scene, settle, shown, slow } from "./Stage.ts"

const strategies: ReadonlyArray<Restart.Strategy> = ["one_for_one", "one_for_all", "rest_for_one", "dependency"]
const groups: ReadonlyArray<Restart.Strategy> = ["one_for_all", "rest_for_one"]

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

/** Fails the present run of an actor so often, each time when it runs again. */
const failing = Effect.fnUntraced(function*(actor: Actor, times: number) {
  for (let time = 0; time < times; time++) {
    yield* actor.fail()
    yield* settle
  }
})

/** What a supervisor shows of itself. */
const look = ({ id }: Supervisor.SupervisorRef) =>
  Effect.map(Orchestrator.snapshot, (nodes) => {
    const node = nodes.find((node) => node.id === id)
    return node?.kind === "supervisor" ? node : assert.fail("no such supervisor")
  })

/** A leaf that fails as soon as it runs, and how often it has. */
const poison = () => {
  let starts = 0
  const effect = Effect.suspend(() => Effect.andThen(Effect.yieldNow, Effect.fail(`run ${++starts} failed`)))
  return { effect, starts: () => starts }
}

describe("a budget of a child's own", () => {
  it.effect(
    "is charged for it alone; used up, the child is charged to the shared one once and its own begins anew",
    scene(function*() {
      for (const strategy of strategies) {
        for (const [own, shared] of [[0, 0], [0, 2], [1, 1], [2, 2], [3, 1], [2, 0]] as const) {
          const { effect, starts } = poison()
          const failure = yield* Effect.flip(Supervisor.run(piece([
            Child.make("other", Effect.never),
            Child.make("leaf", effect, { intensity: own, period: "1 minute" })
          ], { strategy, intensity: shared, period: "1 minute" })))
          assert.strictEqual(starts(), (own + 1) * (shared + 1), `${strategy} ${own} ${shared}`)
          assert.deepInclude(failure, { _tag: "RestartIntensityReached", child: "leaf", attempts: starts() })
        }
      }
    })
  )

  it.effect(
    "is shown with the child, and neither of the two budgets is used by the failures of the other",
    scene(function*(stage) {
      const [a, b] = yield* stage.cast("a", "b")
      const app = yield* play([a.child({ intensity: 2, period: "10 seconds" }), b.child()], { intensity: 2 })
      yield* failing(a, 2)
      yield* failing(b, 1)
      const budgetOf = (actor: Actor) => Effect.map(Routine.snapshot(actor.routine), ({ budget }) => budget)
      assert.deepStrictEqual(yield* budgetOf(a), { used: 2, max: 2, periodMillis: 10_000 })
      assert.deepStrictEqual(yield* budgetOf(b), { used: 1, max: 2, periodMillis: 5000 })
      assert.strictEqual(yield* used(app), 1)
      // Half-open: at ten seconds the two have left the window.
      yield* pass(9999)
      assert.deepStrictEqual((yield* budgetOf(a))?.used, 2)
      yield* pass(1)
      yield* failing(a, 2)
      assert.strictEqual(yield* used(app), 0)
      assert.deepStrictEqual(yield* shown(app), ["a running 5", "b running 2"])
      // The fifth is escalated: one in the shared budget, none in its own.
      yield* failing(a, 1)
      assert.deepStrictEqual([yield* used(app), (yield* budgetOf(a))?.used], [1, 0])
    })
  )

  it.effect(
    "is charged also when the child fails while a round of others waits that it joins",
    scene(function*(stage) {
      const [a, b] = yield* stage.cast("a", "b")
      const app = yield* play([
        a.child({ intensity: 0, onGiveUp: "quarantine" }),
        b.child({ backoff: Schedule.spaced("1 second") })
      ], { strategy: "rest_for_one" })
      yield* b.fail()
      yield* settle
      yield* failing(a, 1)
      assert.deepStrictEqual(yield* shown(app), ["a quarantined 1", "b restarting 1"])
      yield* pass(1000)
      assert.deepStrictEqual(yield* shown(app), ["a quarantined 1", "b running 2"])
    })
  )

  it.effect(
    "used up, leaves alone whoever is being started by hand: its caller is answered",
    scene(function*(stage) {
      for (const fails of [true, false]) {
        const [a] = yield* stage.cast("a")
        const b = yield* stage.actor("b", {
          start: () => Effect.andThen(Effect.sleep(1000), fails ? Effect.fail("no") : Effect.void)
        })
        const app = yield* play([a.child({ intensity: 0, onGiveUp: "quarantine" })], { strategy: "rest_for_one" })
        const starting = yield* fork(Effect.exit(Supervisor.startChild(app, b.child())))
        yield* settle
        yield* failing(a, 1)
        assert.deepStrictEqual(yield* shown(app), ["a quarantined 1", "b starting 1"])
        yield* pass(1000)
        assert.strictEqual(Exit.isFailure(yield* now(starting)), fails)
        assert.deepStrictEqual(yield* shown(app), ["a quarantined 1", ...(fails ? [] : ["b running 1"])])
        yield* Supervisor.stop(app)
      }
    })
  )

  it.effect(
    "used up, the child is released when it has ended, not before",
    scene(function*() {
      const once = Effect.andThen(
        Effect.addFinalizer(() => Effect.sleep("1 second")),
        Effect.andThen(Effect.yieldNow, Effect.fail("no"))
      )
      for (const onUnstoppable of ["wait", "replace"] as const) {
        const child = Child.make("a", once, { intensity: 0, onGiveUp: "quarantine", onUnstoppable })
        const app = yield* play([child], { name: onUnstoppable })
        yield* pass(500)
        const early = yield* Effect.flip(Supervisor.release(app, "a"))
        assert.deepInclude(early, { _tag: "ChildRunning", state: "stopping" })
        yield* pass(500)
        assert.strictEqual((yield* Supervisor.release(app, "a")).incarnation, 2)
        yield* pass(1000)
      }
    })
  )

  it.effect(
    "D1. a poison child is quarantined, and 99 siblings never notice",
    () => {
      const log: Array<unknown> = []
      const logger = Logger.layer([Logger.make(({ logLevel, message }) => void log.push([logLevel, message]))])
      return Effect.gen(function*() {
        const record = yield* recorder
        let starts = 0
        let isCured = false
        const bad = Effect.suspend(() => ++starts > 0 && isCured ? Effect.never : Effect.fail("poison"))
        const siblings = Array.from({ length: 99 }, (_, i) => Child.make(`child-${i}`, Effect.never))
        const app = yield* play([
          ...siblings.slice(0, 50),
          Child.make("poison", Effect.andThen(Effect.yieldNow, bad), {
            intensity: 3,
            onGiveUp: "quarantine",
            backoff: Schedule.spaced("100 millis")
          }),
          ...siblings.slice(50)
        ], { intensity: 0 })
        yield* pass(1000)
        assert.strictEqual(starts, 4)
        const states = yield* shown(app)
        assert.strictEqual(states[50], "poison quarantined 4")
        assert.strictEqual(states.filter((state) => state.endsWith("running 1")).length, 99)
        // What is told: once, with the number of starts.
        const told = record.log.filter((line) => /^(Quarantined|Decided .*quarantine)/.test(line))
        assert.deepStrictEqual(told, [
          "Decided /orchestra/app run 1: child poison, decision quarantine, reason failure, severity error",
          "Quarantined /orchestra/app/poison run 4: supervisor app, attempts 4"
        ])
        assert.deepStrictEqual(log, [["Error", ["/orchestra/app/poison is quarantined after 4 starts"]]])
        assert.isTrue(record.events.every(({ _tag, name }) => !name.startsWith("child-") || /Forked|Ready/.test(_tag)))
        // What is shown.
        const { budget, health, stopped } = yield* look(app)
        assert.deepStrictEqual([health, budget.used], ["degraded", 0])
        assert.deepStrictEqual(stopped.map(({ id, lastExit, state }) => [id, state, lastExit?.message]), [
          ["poison", "quarantined", "poison"]
        ])
        assert.deepStrictEqual(yield* Supervisor.countChildren(app), {
          specs: 100,
          active: 99,
          supervisors: 0,
          workers: 100
        })
        const again = yield* Effect.flip(Supervisor.startChild(app, Child.make("poison", Effect.never)))
        assert.deepInclude(again, { _tag: "AlreadyPresent", state: "quarantined" })
        // A release begins with a fresh budget and a fresh backoff.
        yield* Supervisor.release(app, "poison")
        assert.strictEqual((yield* look(app)).health, "ok")
        const wrong = yield* Effect.flip(Supervisor.release(app, "poison"))
        assert.deepInclude(wrong, { _tag: "NotQuarantined", state: "running" })
        yield* pass(1000)
        assert.deepStrictEqual([starts, (yield* shown(app))[50]], [8, "poison quarantined 8"])
        isCured = true
        const info = yield* Supervisor.restartChild(app, "poison")
        assert.deepInclude(info, { state: "running", incarnation: 9 })
        assert.deepStrictEqual([(yield* look(app)).health, (yield* look(app)).stopped], ["ok", []])
        assert.deepStrictEqual(record.log.filter((line) => line.startsWith("Released")).length, 2)
        assert.strictEqual(log.length, 2)
      }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(TestOrchestra.layer, logger)))
    }
  )

  it.effect(
    "of none, a child is quarantined when its backoff ends, and when the budget of all is used up",
    scene(function*(stage) {
      for (const strategy of strategies) {
        const [a, b] = yield* stage.cast("a", "b")
        const ends = yield* play([
          a.child({ backoff: Schedule.recurs(2), onGiveUp: "quarantine" }),
          b.child()
        ], { strategy, intensity: 10 })
        yield* failing(a, 3)
        // The group was stopped before its backoff was known to have ended, and goes on.
        const others = strategy === "one_for_one" || strategy === "dependency" ? 1 : 4
        assert.deepStrictEqual(
          [yield* shown(ends), (yield* look(ends)).health],
          [["a quarantined 3", `b running ${others}`], "degraded"],
          strategy
        )
        yield* Supervisor.stop(ends)

        const [c, d] = yield* stage.cast("c", "d")
        const all = yield* play([c.child({ onGiveUp: "quarantine" }), d.child()], { strategy, intensity: 1 })
        yield* failing(c, 2)
        assert.deepStrictEqual((yield* shown(all))[0], "c quarantined 2", strategy)
        // Who is not to be quarantined ends it.
        yield* d.fail()
        const end = yield* Effect.flip(Supervisor.await(all))
        assert.deepInclude(end, { child: "d" }, strategy)
      }
    })
  )

  it.effect(
    "when a member of a group is quarantined because it does not start again, those after it start without it",
    scene(function*(stage) {
      for (const strategy of groups) {
        const a = yield* stage.actor("a")
        const b = yield* stage.actor("b", { start: failsAt(2) })
        const [c, d] = yield* stage.cast("c", "d")
        const app = yield* play([
          a.child(),
          b.child({ intensity: 1, onGiveUp: "quarantine" }),
          c.child(),
          d.child()
        ], { strategy, intensity: 5 })
        stage.take()
        yield* b.fail()
        yield* settle
        assert.deepStrictEqual(
          yield* shown(app),
          [`a running ${strategy === "one_for_all" ? 2 : 1}`, "b quarantined 2", "c running 2", "d running 2"],
          strategy
        )
        // And so does a restart of the group that does not touch it.
        yield* a.fail()
        yield* settle
        assert.deepStrictEqual(
          (yield* shown(app)).slice(1),
          ["b quarantined 2", "c running 3", "d running 3"],
          strategy
        )
        assert.deepInclude(yield* Supervisor.release(app, "b"), { state: "running", incarnation: 3 }, strategy)
      }
    })
  )
})

/** Nested supervisors, each of one child, with a leaf that always fails. */
const nest = (leaf: Part, intensities: ReadonlyArray<number>, direction: Supervisor.SupervisorOptions = {}) => {
  const period = "1 minute"
  const [outermost = 0, ...below] = intensities
  const child = below.reduceRight<Part>(
    (part, intensity, depth) => scenes(`level-${depth + 1}`, [part], { intensity, period }),
    leaf
  )
  return piece([child], { intensity: outermost, period, ...direction })
}

describe("an attempt budget", () => {
  it.effect(
    "D8. bounds the restarts of a whole tree, in which those of nested supervisors multiply",
    scene(function*() {
      for (const [intensities, unbounded] of [[[2, 2], 9], [[3, 3], 16], [[1, 2, 1], 12]] as const) {
        for (let attempts = 0; attempts <= unbounded; attempts++) {
          const { effect, starts } = poison()
          const budget = attempts === 0 ? {} : { attemptBudget: { attempts, period: "1 minute" } } as const
          const failure = yield* Effect.flip(Supervisor.run(nest(Child.make("leaf", effect), intensities, budget)))
          const isBounded = attempts > 0 && attempts < unbounded
          assert.strictEqual(starts(), isBounded ? attempts + 1 : unbounded, `${intensities} within ${attempts}`)
          assert(failure._tag === "RestartIntensityReached")
          assert.strictEqual(failure.supervisor, "/orchestra/app")
          if (!isBounded) assert.strictEqual(failure.child, "level-1")
          else {
            // It names the leaf, and says why.
            const path = intensities.slice(1).map((_, i) => `level-${i + 1}`).join("/")
            assert.deepStrictEqual([failure.child, failure.window], [`${path}/leaf`, {
              intensity: attempts,
              periodMillis: 60_000
            }])
            assert.include(failure.message, `run ${attempts + 1} failed`)
          }
        }
      }
    })
  )

  it.effect(
    "counts what fails at its start like what fails later",
    scene(function*() {
      for (const awaitReady of [true, false]) {
        let starts = 0
        const leaf = Effect.suspend(() =>
          ++starts === 1
            ? Effect.andThen(Routine.ready, Effect.andThen(Effect.yieldNow, Effect.fail("once")))
            : Effect.fail("again")
        )
        const failure = yield* Effect.flip(Supervisor.run(nest(Child.make("leaf", leaf, { awaitReady }), [5, 5], {
          attemptBudget: { attempts: 4, period: "1 minute" }
        })))
        assert.deepInclude(failure, { child: "level-1/leaf" })
        assert.strictEqual(starts, 5)
      }
    })
  )

  it.effect(
    "gives up at once: no child of the tree is restarted afterwards, and its siblings are stopped in reverse order",
    scene(function*(stage) {
      const [a, b, c, d] = yield* stage.cast("a", "b", "c", "d")
      const app = yield* Effect.forkChild(Supervisor.run(piece([
        a.child(),
        scenes("inner", [b.child({ backoff: Schedule.spaced("1 second") }), c.child()], { intensity: 100 }),
        d.child()
      ], { intensity: 100, attemptBudget: { attempts: 3, period: "10 seconds" } })))
      yield* settle
      yield* c.fail()
      yield* settle
      yield* b.fail()
      yield* settle
      yield* d.fail()
      yield* settle
      stage.take()
      yield* c.fail()
      yield* settle
      assert.deepStrictEqual(stage.take(), ["exit c", "stop d", "stop a"])
      const failure = yield* Effect.flip(Fiber.join(app))
      assert.deepInclude(failure, { child: "inner/c", attempts: 2 })
    })
  )

  it.effect(
    "counts an attempt while it is less than a period old, and a restart of a group once",
    scene(function*(stage) {
      const [a, b, c] = yield* stage.cast("a", "b", "c")
      const app = yield* play([
        scenes("inner", [a.child(), b.child(), c.child()], { strategy: "one_for_all", intensity: 100 })
      ], { attemptBudget: { attempts: 2, period: "10 seconds" } })
      // Three failures in one turn are one.
      yield* Effect.all([a.fail(), b.fail(), c.fail()], { concurrency: "unbounded" })
      yield* pass(4000)
      yield* b.fail()
      // The first has left the window.
      yield* pass(6000)
      yield* c.fail()
      yield* pass(3999)
      assert.deepStrictEqual([a.starts, (yield* shown(app))[0]], [4, "inner running 1"])
      yield* a.fail()
      yield* settle
      const failure = yield* Effect.flip(Supervisor.await(app))
      assert.deepInclude(failure, { child: "inner/a" })
      assert.strictEqual(a.starts, 4)
    })
  )

  it.effect(
    "is not charged with what is no attempt: a quarantine, a start by hand, an end in good order",
    scene(function*(stage) {
      const [a, b] = yield* stage.cast("a", "b")
      const app = yield* play([
        a.child({ intensity: 1, onGiveUp: "quarantine" }),
        b.child({ restart: "transient" })
      ], { intensity: 0, attemptBudget: { attempts: 1, period: "1 hour" } })
      yield* failing(a, 2)
      yield* b.succeed
      yield* settle
      yield* Supervisor.restartChild(app, "b")
      yield* Supervisor.release(app, "a")
      assert.deepStrictEqual(yield* shown(app), ["a running 3", "b running 2"])
      yield* failing(a, 1)
      const failure = yield* Effect.flip(Supervisor.await(app))
      assert.deepInclude(failure, { child: "a", window: { intensity: 1, periodMillis: 3_600_000 } })
    })
  )

  it.effect(
    "can be set, changed and taken away while it runs",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      const children = [a.child()]
      const budget = (attempts: number) => ({ attemptBudget: { attempts, period: "1 hour" } }) as const
      const app = yield* play(children, { intensity: 100, ...budget(2) })
      yield* failing(a, 2)
      // Another counts from 0, the same goes on.
      const report = yield* Supervisor.reconcile(app, piece(children, { intensity: 100, ...budget(3) }))
      assert.deepStrictEqual(report.flags, ["attemptBudget"])
      yield* failing(a, 2)
      const same = yield* Supervisor.reconcile(app, piece(children, { intensity: 100, ...budget(3) }))
      assert.deepStrictEqual(same.flags, [])
      yield* failing(a, 1)
      yield* Supervisor.reconcile(app, piece(children, { intensity: 100 }))
      yield* failing(a, 10)
      assert.deepStrictEqual(yield* shown(app), ["a running 16"])
      yield* Supervisor.reconcile(app, piece(children, { intensity: 100, ...budget(1) }))
      yield* failing(a, 2)
      assert.deepInclude(yield* Effect.flip(Supervisor.await(app)), { child: "a", attempts: 17 })
    })
  )

  it.effect(
    "below another, the one that is used up first gives up, and its end is an attempt of the other",
    scene(function*() {
      const { effect, starts } = poison()
      const failure = yield* Effect.flip(Supervisor.run(piece([
        scenes("inner", [Child.make("leaf", effect)], {
          intensity: 100,
          attemptBudget: { attempts: 2, period: "1 hour" }
        })
      ], { intensity: 100, attemptBudget: { attempts: 7, period: "1 hour" } })))
      // 1 2 3, inner again 4 5 6, inner again 7 8; each but the first an attempt.
      assert.strictEqual(starts(), 8)
      assert.deepInclude(failure, { supervisor: "/orchestra/app", child: "inner/leaf" })
    })
  )
})

/** An actor that depends on others. */
const on = (
  actor: Actor,
  dependsOn: ReadonlyArray<string>,
  options: Omit<Child.ChildOptions, "dependsOn"> = {}
): Part => ({
  ...actor.child(options),
  spec: { ...actor.child(options).spec, dependsOn }
})

describe("the strategy dependency", () => {
  it.effect(
    "D2. starts each child when what it depends on is ready, restarts exactly what stands on a failed one, stops the other way round",
    scene(function*(stage) {
      const clock = yield* Effect.clockWith(Effect.succeed)
      const began = clock.currentTimeMillisUnsafe()
      const at = () => clock.currentTimeMillisUnsafe() - began
      const times: Array<string> = []
      const timed = (id: string, start: number, stop: number) =>
        stage.actor(id, {
          start: () => Effect.andThen(Effect.sync(() => void times.push(`${id} ${at()}`)), Effect.sleep(start)),
          stop: () => Effect.andThen(Effect.sleep(stop), Effect.sync(() => void times.push(`${id} gone ${at()}`)))
        })
      const a = yield* timed("a", 100, 10)
      const b = yield* timed("b", 50, 10)
      const c = yield* timed("c", 200, 30)
      const d = yield* timed("d", 10, 10)
      const e = yield* timed("e", 10, 10)
      const starting = yield* fork(play([
        a.child(),
        on(b, ["a"]),
        on(c, ["a"]),
        on(d, ["b", "c"]),
        on(e, ["b"])
      ], { strategy: "dependency" }))
      yield* pass(310)
      const app = yield* now(starting)
      // The slow one holds up who depends on it, and nobody else.
      assert.deepStrictEqual(times.splice(0), ["a 0", "b 100", "c 100", "e 150", "d 300"])
      // A leaf restarts alone.
      yield* d.fail()
      yield* pass(690)
      assert.deepStrictEqual(times.splice(0), ["d 310"])
      // The middle with what stands on it, the root with all.
      yield* b.fail()
      yield* pass(1000)
      assert.deepStrictEqual(times.splice(0), ["e gone 1010", "d gone 1010", "b 1010", "d 1060", "e 1060"])
      yield* a.fail()
      yield* pass(1000)
      assert.deepStrictEqual(times.splice(0), [
        "e gone 2010",
        "d gone 2010",
        "b gone 2020",
        "c gone 2040",
        "a 2040",
        "b 2140",
        "c 2140",
        "e 2190",
        "d 2340"
      ])
      const stopping = yield* fork(Supervisor.stop(app))
      yield* pass(50)
      yield* now(stopping)
      assert.deepStrictEqual(times, ["e gone 3010", "d gone 3010", "b gone 3020", "c gone 3040", "a gone 3050"])
    })
  )

  it.effect(
    "gives a dependent the service of the run that it stands on, and a new one when that runs again",
    scene(function*(stage) {
      class Db extends Context.Service<Db, { readonly run: number }>()("beyond/Db") {}
      class Cache extends Context.Service<Cache, { readonly db: number }>()("beyond/Cache") {}
      const [pump] = yield* stage.cast("pump")
      let run = 0
      const seen: Array<string> = []
      const db = Layer.effect(Db, Effect.map(Orchestrator.forkScoped(pump.effect), () => ({ run: ++run })))
      const cache = Layer.effect(Cache, Effect.map(Db, ({ run }) => ({ db: run })))
      const api = Effect.gen(function*() {
        seen.push(`db ${(yield* Db).run}, cache on ${(yield* Cache).db}`)
        return yield* Effect.never
      })
      yield* Supervisor.start(Supervisor.make({
        name: "app",
        strategy: "dependency",
        children: [
          Child.layer("db", db),
          Child.layer("cache", cache, { dependsOn: ["db"] }),
          Child.make("api", api, { dependsOn: ["db", "cache"] })
        ]
      }))
      yield* failing(pump, 1)
      assert.deepStrictEqual(seen, ["db 1, cache on 1", "db 2, cache on 2"])
    })
  )

  it.effect(
    "restarts what fails apart in one turn in rounds that do not wait for each other, counted once; what overlaps, in one",
    scene(function*(stage) {
      const a = yield* stage.actor("a", { start: (run) => run === 1 ? Effect.void : Effect.sleep(1000) })
      const [b, c, d] = yield* stage.cast("b", "c", "d")
      const app = yield* play([a.child(), on(b, ["a"]), c.child(), on(d, ["c"])], { strategy: "dependency" })
      stage.take()
      yield* Effect.all([a.fail(), c.fail()], { concurrency: "unbounded" })
      yield* settle
      assert.deepStrictEqual(yield* shown(app), ["a restarting 2", "b restarting 1", "c running 2", "d running 2"])
      assert.strictEqual(yield* used(app), 1)
      // And one fails again while the other still starts.
      yield* failing(c, 1)
      assert.deepStrictEqual((yield* shown(app)).slice(2), ["c running 3", "d running 3"])
      yield* pass(1000)
      assert.deepStrictEqual((yield* shown(app)).slice(0, 2), ["a running 2", "b running 2"])
      assert.strictEqual(yield* used(app), 2)
      stage.take()
      // One restart for two that stand on each other.
      yield* Effect.all([d.fail(), c.fail()], { concurrency: "unbounded" })
      yield* settle
      assert.deepStrictEqual(stage.take().filter((line) => line.startsWith("start")), ["start c", "start d"])
      assert.strictEqual(yield* used(app), 3)
    })
  )

  it.effect(
    "merges failures that have a dependent in common, and leaves the others out",
    scene(function*(stage) {
      const [a, b, c, d] = yield* stage.cast("a", "b", "c", "d")
      const record = yield* recorder
      const app = yield* play([a.child(), b.child(), on(c, ["a", "b"]), d.child()], { strategy: "dependency" })
      yield* Effect.all([b.fail(), a.fail(), d.fail()], { concurrency: "unbounded" })
      yield* settle
      assert.deepStrictEqual(yield* shown(app), ["a running 2", "b running 2", "c running 2", "d running 2"])
      assert.strictEqual(yield* used(app), 1)
      const decided = record.events.flatMap((event) =>
        event._tag === "Decided" ? [`${event.child} ${event.decision}`] : []
      )
      assert.deepStrictEqual(decided.toSorted(), ["a restart_group", "b restart_group", "d restart"])
    })
  )

  it.effect(
    "holds a child whose dependency does not run, and starts it when that runs again",
    scene(function*(stage) {
      const a = yield* stage.actor("a")
      const b = yield* stage.actor("b")
      const c = yield* stage.actor("c")
      const app = yield* play([
        a.child({ intensity: 0, onGiveUp: "quarantine" }),
        on(b, ["a"]),
        on(c, ["b"])
      ], { strategy: "dependency" })
      // Who runs goes on without it; who fails meanwhile is held, with what stands on it.
      yield* failing(a, 1)
      assert.deepStrictEqual(yield* shown(app), ["a quarantined 1", "b running 1", "c running 1"])
      yield* failing(b, 1)
      assert.deepStrictEqual(yield* shown(app), ["a quarantined 1", "b restarting 1", "c restarting 1"])
      yield* pass(60_000)
      yield* Supervisor.release(app, "a")
      yield* settle
      assert.deepStrictEqual(yield* shown(app), ["a running 2", "b running 2", "c running 2"])
      // The same where somebody has stopped it, and it is restarted by hand.
      yield* Supervisor.terminateChild(app, "b")
      yield* failing(c, 1)
      assert.deepStrictEqual(yield* shown(app), ["a running 2", "b stopped 2", "c restarting 2"])
      const refused = yield* Effect.flip(Supervisor.restartChild(app, "c"))
      assert.strictEqual(refused._tag, "ChildRestarting")
      yield* Supervisor.restartChild(app, "b")
      yield* settle
      assert.deepStrictEqual(yield* shown(app), ["a running 2", "b running 3", "c running 3"])
      // Who is held can be stopped, and stays so.
      yield* Supervisor.terminateChild(app, "b")
      yield* failing(c, 1)
      yield* Supervisor.terminateChild(app, "c")
      yield* Supervisor.restartChild(app, "b")
      yield* pass(60_000)
      assert.deepStrictEqual(yield* shown(app), ["a running 2", "b running 4", "c stopped 3"])
    })
  )

  it.effect(
    "holds who was to start after one that does not start again, also when that one is stopped meanwhile",
    scene(function*(stage) {
      for (const backoff of [undefined, Schedule.spaced("1 second")]) {
        const failed = yield* Deferred.make<void>()
        const b = yield* stage.actor("b", {
          start: (run) =>
            run === 2 ? Effect.andThen(Deferred.succeed(failed, undefined), Effect.fail("no")) : Effect.void
        })
        const [a, c] = yield* stage.cast("a", "c")
        const app = yield* play([a.child(), on(b, ["a"], { backoff }), on(c, ["b"])], { strategy: "dependency" })
        // In the turn in which it fails, or in its backoff.
        const stopping = yield* fork(Effect.andThen(
          Deferred.await(failed),
          Effect.andThen(backoff === undefined ? Effect.void : settle, Supervisor.terminateChild(app, "b"))
        ))
        yield* failing(a, 1)
        yield* settle
        yield* now(stopping)
        yield* pass(1000)
        assert.deepStrictEqual(yield* shown(app), ["a running 2", "b stopped 2", "c restarting 1"])
        yield* Supervisor.restartChild(app, "b")
        yield* settle
        assert.deepStrictEqual(yield* shown(app), ["a running 2", "b running 3", "c running 2"])
        yield* Supervisor.stop(app)
      }
    })
  )

  it.effect(
    "refuses a cycle, with the ids along it, and an id that nobody has: at make, startChild and reconcile",
    scene(function*(stage) {
      const [a, b, c] = yield* stage.cast("a", "b", "c")
      const make = (children: ReadonlyArray<Part>) => () => piece(children, { strategy: "dependency" })
      assert.throws(
        make([on(a, ["c"]), on(b, ["a"]), on(c, ["b"])]),
        /no child depends on itself, got: a -> c -> b -> a$/
      )
      assert.throws(make([on(a, ["a"])]), /no child depends on itself, got: a -> a$/)
      assert.throws(make([a.child(), on(b, ["zoe"])]), /"b" depends on a child of the supervisor, got: zoe$/)
      assert.throws(
        () => piece([a.child(), on(b, ["a"])]),
        /dependsOn needs the strategy dependency, got: "b" under one_for_one$/
      )
      const app = yield* play([a.child({ restart: "temporary" }), on(b, ["a"])], { strategy: "dependency" })
      const missing = yield* Effect.flip(Supervisor.startChild(app, on(c, ["zoe"])))
      assert.deepInclude(missing, {
        _tag: "InvalidChild",
        child: "c",
        problem: `"c" depends on a child of the supervisor, got: zoe`
      })
      const itself = yield* Effect.flip(Supervisor.startChild(app, on(c, ["c"])))
      assert.deepInclude(itself, { _tag: "InvalidChild", problem: "no child depends on itself, got: c -> c" })
      // The id of a child that was forgotten is taken by one that depends on who depends on it.
      yield* a.succeed
      yield* settle
      const around = yield* Effect.flip(Supervisor.startChild(app, on(a, ["b"])))
      assert.strictEqual(around._tag, "InvalidChild")
      assert.include(around.message, "no child depends on itself, got: b -> a -> b")
      // What a specification cannot be made with cannot be reconciled either.
      const spec = piece([a.child(), b.child()], { strategy: "dependency" })
      const wrong = { ...spec, children: [on(a, ["b"]), on(b, ["a"])] }
      const refused = yield* Effect.flip(Supervisor.reconcile(app, wrong))
      assert.include(refused.message, "no child depends on itself, got: a -> b -> a")
      const unknown = yield* Effect.flip(Supervisor.reconcile(app, { ...spec, children: [on(b, ["zoe"])] }))
      assert.include(unknown.message, `"b" depends on a child of the supervisor, got: zoe`)
      assert.deepStrictEqual(yield* shown(app), ["b running 1"])
      yield* Supervisor.reconcile(app, { ...spec, children: [a.child(), on(b, ["a"])] })
      assert.deepStrictEqual((yield* shown(app)).length, 2)
    })
  )
})

/** Layers that rely on one thing, take so long to be built again, and say how many of them are. */
const herd = (size: number, millis: number, fails: (id: string, run: number) => boolean = () => false) => {
  const down = Deferred.makeUnsafe<never, string>()
  const seen = { starting: 0, peak: 0, order: [] as Array<string>, runs: new Map<string, number>() }
  const child = (_: unknown, i: number): Play => {
    const id = `layer-${i}`
    return Child.layer(
      id,
      Layer.effectDiscard(Effect.gen(function*() {
        const run = (seen.runs.get(id) ?? 0) + 1
        seen.runs.set(id, run)
        if (run === 1) return yield* Orchestrator.forkScoped(Deferred.await(down))
        seen.order.push(id)
        seen.peak = Math.max(seen.peak, ++seen.starting)
        yield* Effect.ensuring(Effect.sleep(millis), Effect.sync(() => seen.starting--))
        return fails(id, run) ? yield* Effect.fail("not yet") : undefined
      }))
    )
  }
  return { seen, down: Deferred.fail(down, "down"), children: Array.from({ length: size }, child) }
}

describe("concurrentRestarts", () => {
  const herded = (children: ReadonlyArray<Play>, concurrentRestarts: number, strategy: "one_for_one" | "dependency") =>
    Supervisor.start(Supervisor.make({ name: "app", strategy, concurrentRestarts, intensity: 10_000, children }))

  for (const strategy of ["one_for_one", "dependency"] as const) {
    it.effect(
      `under ${strategy} so many of 200 start again at once, in turn, and everything else is served meanwhile`,
      scene(function*(stage) {
        const { children, down, seen } = herd(200, 10)
        const app = yield* herded(children, 7, strategy)
        yield* down
        yield* settle
        assert.deepStrictEqual([seen.starting, seen.order.length], [7, 7])
        yield* pass(20)
        assert.deepStrictEqual([seen.starting, seen.peak, seen.order.length], [7, 7, 21])
        // What is done by hand waits for no turn.
        const [extra] = yield* stage.cast("extra")
        assert.strictEqual((yield* now(yield* fork(Supervisor.startChild(app, extra.child())))).state, "running")
        assert.strictEqual(yield* now(yield* fork(Supervisor.terminateChild(app, "layer-150"))), "stopped")
        assert.deepStrictEqual((yield* Supervisor.countChildren(app)).active, 15)
        assert.strictEqual(seen.peak, 7)
        // Who is stopped gives its turn on at once, who is passed over when that comes.
        assert.strictEqual(yield* now(yield* fork(Supervisor.terminateChild(app, "layer-20"))), "stopped")
        yield* settle
        assert.deepStrictEqual([seen.starting, seen.order.length, seen.order.at(-1)], [7, 22, "layer-21"])
        seen.peak = 0
        yield* pass(10 * Math.ceil(199 / 7))
        assert.deepStrictEqual([seen.peak, (yield* Supervisor.countChildren(app)).active], [7, 199])
        assert.deepStrictEqual(
          seen.order,
          Array.from({ length: 200 }, (_, i) => `layer-${i}`).filter((id) => id !== "layer-150")
        )
        yield* Supervisor.stop(app)
      })
    )
  }

  it.effect(
    "nobody starves: who does not start goes to the end of the line",
    scene(function*() {
      const { children, down, seen } = herd(50, 10, (id) => Number(id.slice(6)) < 5)
      const app = yield* herded(children, 3, "one_for_one")
      yield* down
      yield* settle
      yield* pass(10 * Math.ceil(60 / 3))
      assert.strictEqual((yield* Supervisor.countChildren(app)).active, 45)
      assert.strictEqual(seen.peak, 3)
      const stopping = yield* fork(Supervisor.stop(app))
      yield* settle
      yield* now(stopping)
      assert.strictEqual(seen.starting, 0)
    })
  )

  it.effect(
    "a stop ends who starts and who waits for its turn, and nobody starts any more",
    scene(function*() {
      for (const strategy of ["one_for_one", "dependency"] as const) {
        const { children, down, seen } = herd(200, 10)
        const app = yield* herded(children, 7, strategy)
        yield* down
        yield* pass(25)
        const before = seen.order.length
        yield* now(yield* fork(Supervisor.stop(app)))
        yield* pass(1000)
        assert.deepStrictEqual([seen.starting, seen.order.length, seen.peak], [0, before, 7])
      }
    })
  )

  it.effect(
    "a turn is given on however it ends: ready, failed, too late, not needed",
    scene(function*(stage) {
      const ends = {
        ready: Effect.void,
        failed: Effect.fail("no"),
        late: Effect.never,
        ignored: Supervisor.ignore,
        done: Supervisor.done
      }
      const actors = yield* Effect.forEach(
        Object.entries(ends),
        ([id, end]) =>
          stage.actor(id, { start: (run) => run === 2 ? Effect.andThen(Effect.sleep(10), end) : Effect.void })
      )
      const app = yield* play(
        actors.map((actor) => actor.child({ startTimeout: "100 millis" })),
        { concurrentRestarts: 1, intensity: 100 }
      )
      yield* Effect.forEach(actors, (actor) => actor.fail(), { concurrency: "unbounded" })
      yield* pass(1000)
      assert.deepStrictEqual(yield* shown(app), [
        "ready running 2",
        "failed running 3",
        "late running 3",
        "ignored stopped 2"
      ])
      // And the line is free again.
      yield* failing(actors[0] ?? assert.fail(), 1)
      assert.strictEqual((yield* shown(app))[0], "ready running 3")
    })
  )

  it.effect(
    "can be changed while it runs",
    scene(function*() {
      const { children, down, seen } = herd(100, 10)
      const spec = (concurrentRestarts: number) =>
        Supervisor.make({ name: "app", strategy: "one_for_one", concurrentRestarts, intensity: 1000, children })
      const app = yield* Supervisor.start(spec(2))
      yield* down
      yield* settle
      yield* Supervisor.reconcile(app, spec(10))
      yield* pass(10)
      assert.strictEqual(seen.starting, 10)
      yield* Supervisor.reconcile(app, spec(4))
      yield* pass(10)
      assert.strictEqual(seen.starting, 4)
    })
  )
})

describe("onUnstoppable", () => {
  /** A child whose first run, once it is to end, takes a minute more; and how that end comes about. */
  const ways: Readonly<
    Record<string, {
      readonly strategy?: Restart.Strategy
      readonly options?: Omit<Child.ChildOptions, "dependsOn" | "awaitReady">
      /** What the first run does. */
      readonly run: Effect.Effect<unknown, unknown, Scope.Scope>
      /** What ends it, beside itself; when that is due. */
      readonly end?: (a: Actor) => Effect.Effect<void>
      readonly after?: number
    }>
  > = {
    "it has failed, and its finalizers hang": {
      run: Effect.andThen(
        Effect.addFinalizer(() => Effect.sleep("1 minute")),
        Effect.andThen(Effect.yieldNow, Effect.fail("no"))
      )
    },
    "it gives no sign of life": {
      options: { idleTimeout: "40 seconds" },
      run: Effect.uninterruptible(Effect.sleep("100 seconds")),
      after: 40_000
    },
    "a sibling fails under rest_for_one": {
      strategy: "rest_for_one",
      run: Effect.uninterruptible(Effect.sleep("1 minute")),
      end: (a) => a.fail()
    },
    "a sibling fails under one_for_all": {
      strategy: "one_for_all",
      run: Effect.uninterruptible(Effect.sleep("1 minute")),
      end: (a) => a.fail()
    },
    "what it depends on fails": {
      strategy: "dependency",
      options: {},
      run: Effect.uninterruptible(Effect.sleep("1 minute")),
      end: (a) => a.fail()
    }
  }

  for (const [what, { after = 0, end, options, run, strategy = "one_for_one" }] of Object.entries(ways)) {
    for (const onUnstoppable of ["wait", "replace"] as const) {
      it.effect(
        `${onUnstoppable}: where ${what}, the next run ${
          onUnstoppable === "wait" ? "waits for its end" : "starts beside it"
        }`,
        scene(function*(stage) {
          const record = yield* recorder
          const [a] = yield* stage.cast("a")
          let runs = 0
          const stuck: Play = Child.make(
            "stuck",
            Effect.suspend((): Effect.Effect<unknown, unknown, Scope.Scope> =>
              ++runs === 1 ? run : Effect.forever(Effect.andThen(Routine.beat, Effect.sleep("10 seconds")))
            ),
            { shutdown: "1 second", onUnstoppable, ...options }
          )
          const child = strategy === "dependency" ? { ...stuck, spec: { ...stuck.spec, dependsOn: ["a"] } } : stuck
          const app = yield* Supervisor.start(Supervisor.make({ name: "app", strategy, children: [a.child(), child] }))
          yield* settle
          if (end !== undefined) yield* end(a)
          yield* pass(after + 999)
          assert.strictEqual(runs, 1)
          yield* pass(1)
          const paths = Effect.map(
            Orchestrator.list,
            (nodes) =>
              nodes.filter(({ name }) => name === "stuck").map(({ incarnation, state }) => `${state} ${incarnation}`)
          )
          const told = () => record.of("/orchestra/app/stuck").map(({ _tag, incarnation }) => `${_tag} ${incarnation}`)
          if (onUnstoppable === "wait") {
            assert.deepStrictEqual([runs, told().includes("Stuck 1")], [1, true])
            yield* pass(59_000)
            assert.strictEqual(runs, 2)
            assert.notInclude(record.tags, "Replaced")
            assert.deepStrictEqual(yield* paths, ["running 2"])
          } else {
            assert.strictEqual(runs, 2)
            assert.deepStrictEqual((yield* shown(app))[1], "stuck running 2")
            assert.deepStrictEqual((yield* paths).toSorted(), ["abandoned 1", "running 2"])
            const replaced = record.events.filter((event) => event._tag === "Replaced")
            assert.deepStrictEqual(replaced.map(({ incarnation, waitedMillis }) => [incarnation, waitedMillis]), [[
              1,
              1000
            ]])
            yield* pass(58_999)
            assert.notInclude(record.tags, "EndedLate")
            yield* pass(1)
            const late = record.events.filter((event) => event._tag === "EndedLate")
            assert.deepStrictEqual(late.map(({ incarnation, name }) => `${name} ${incarnation}`), ["stuck 1"])
            assert.deepStrictEqual(yield* paths, ["running 2"])
          }
          assert.strictEqual(told().filter((line) => line === "Restarted 2").length, 1)
        })
      )
    }
  }

  it.effect(
    "restartChild, release and reconcile refuse to start beside one that was abandoned, unless the child says replace",
    scene(function*() {
      for (const onUnstoppable of ["wait", "replace"] as const) {
        const record = yield* recorder
        let runs = 0
        const deaf = Child.make(
          "deaf",
          Effect.suspend(() => ++runs === 1 ? Effect.uninterruptible(Effect.sleep("1 minute")) : Effect.never),
          { shutdown: "1 second", onUnstoppable }
        )
        const app = yield* play([deaf], { name: onUnstoppable })
        const stopping = yield* fork(Supervisor.terminateChild(app, "deaf"))
        yield* pass(1000)
        assert.strictEqual(yield* now(stopping), "abandoned")
        const again = yield* fork(Effect.exit(Supervisor.restartChild(app, "deaf")))
        const exit = yield* now(again)
        if (onUnstoppable === "replace") {
          assert.deepStrictEqual([yield* shown(app), runs], [["deaf running 2"], 2])
          const replaced = record.events.flatMap((event) =>
            event._tag === "Replaced" ? [[event.path, event.incarnation, event.waitedMillis]] : []
          )
          assert.deepStrictEqual(replaced, [["/orchestra/replace/deaf", 1, 1000]])
          yield* pass(59_000)
          assert.strictEqual(record.log.filter((line) => line.startsWith("EndedLate")).length, 1)
          // Its late end is not that of the child.
          assert.deepStrictEqual(yield* shown(app), ["deaf running 2"])
          continue
        }
        assert.isTrue(Exit.isFailure(exit) && String(exit.cause).includes("abandoned"))
        yield* pass(59_000)
        yield* Supervisor.restartChild(app, "deaf")
        assert.deepStrictEqual(yield* shown(app), ["deaf running 2"])
      }
    })
  )

  it.effect(
    "the late end of a run answers nobody who starts the child again beside it, whatever its restart type",
    scene(function*() {
      for (const restart of ["permanent", "transient"] as const) {
        let runs = 0
        const deaf = Child.make(
          "deaf",
          Effect.suspend(() =>
            ++runs === 1
              ? Effect.uninterruptible(Effect.sleep("2 seconds"))
              : Effect.andThen(Effect.sleep("5 seconds"), Effect.andThen(Routine.ready, Effect.never))
          ),
          { shutdown: "1 second", onUnstoppable: "replace", restart }
        )
        const app = yield* play([deaf], { name: restart })
        yield* now(yield* fork(Effect.andThen(settle, Effect.void)))
        const stopping = yield* fork(Supervisor.terminateChild(app, "deaf"))
        yield* pass(1000)
        yield* now(stopping)
        const again = yield* fork(
          Supervisor.reconcile(app, piece([{ ...deaf, spec: { ...deaf.spec, awaitReady: true } }], { name: restart }))
        )
        yield* now(again)
        const starting = yield* fork(Supervisor.restartChild(app, "deaf"))
        yield* pass(1000)
        assert.deepStrictEqual([starting.pollUnsafe(), yield* shown(app)], [undefined, ["deaf starting 2"]])
        yield* pass(4000)
        assert.strictEqual((yield* now(starting)).state, "running")
      }
    })
  )

  it.effect(
    "a temporary child that a restart of its group abandons is forgotten when it ends",
    scene(function*(stage) {
      const [a, b] = yield* stage.cast("a", "b")
      const deaf = Child.make("deaf", Effect.uninterruptible(Effect.sleep("1 minute")), {
        shutdown: "1 second",
        restart: "temporary"
      })
      const app = yield* play([a.child(), deaf], { strategy: "one_for_all" })
      yield* a.fail()
      yield* pass(1000)
      assert.deepStrictEqual(yield* shown(app), ["a running 2"])
      const early = yield* Effect.flip(Supervisor.startChild(app, { ...b.child(), id: "deaf" }))
      assert.deepInclude(early, { _tag: "ChildRunning", state: "abandoned" })
      yield* pass(59_000)
      yield* Supervisor.startChild(app, Child.make("deaf", b.effect))
      assert.deepStrictEqual(yield* shown(app), ["a running 2", "deaf running 1"])
    })
  )

  it.effect(
    "a supervisor does not run again beside a child that was abandoned below it, unless one of them says replace",
    scene(function*(stage) {
      const endings = {
        "restarted with its group": { strategy: "one_for_all" as const, end: (a: Actor, _leaf: Actor) => a.fail() },
        "given up": { strategy: "one_for_one" as const, end: (_a: Actor, leaf: Actor) => leaf.fail() }
      }
      for (const [what, { end, strategy }] of Object.entries(endings)) {
        for (const replaces of [undefined, "leaf", "inner"]) {
          const [a, leaf] = yield* stage.cast("a", "leaf")
          let runs = 0
          const deaf = Child.make(
            "deaf",
            Effect.suspend(() => ++runs === 1 ? Effect.uninterruptible(Effect.sleep("1 minute")) : Effect.never),
            { shutdown: "1 second", onUnstoppable: replaces === "leaf" ? "replace" : "wait" }
          )
          const app = yield* play([
            a.child(),
            scenes("inner", [deaf, leaf.child()], {
              intensity: 0,
              child: { onUnstoppable: replaces === "inner" ? "replace" : "wait" }
            })
          ], { strategy, intensity: 5 })
          yield* end(a, leaf)
          yield* pass(1000)
          assert.strictEqual(runs, replaces === undefined ? 1 : 2, `${what} ${replaces}`)
          yield* pass(58_999)
          assert.strictEqual(runs, replaces === undefined ? 1 : 2, `${what} ${replaces}`)
          yield* pass(1)
          assert.deepStrictEqual([runs, (yield* shown(app))[1]], [2, "inner running 2"], `${what} ${replaces}`)
          yield* Supervisor.stop(app)
        }
      }
    })
  )

  it.effect(
    "nor is it started beside one by hand",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      const deaf = Child.make("deaf", Effect.uninterruptible(Effect.sleep("1 minute")), { shutdown: "1 second" })
      const app = yield* play([scenes("inner", [deaf, a.child()])])
      const stopping = yield* fork(Supervisor.terminateChild(app, "inner"))
      yield* pass(1000)
      assert.strictEqual(yield* now(stopping), "stopped")
      const refused = yield* Effect.flip(Supervisor.restartChild(app, "inner"))
      assert.deepInclude(refused, { _tag: "ChildRunning", state: "abandoned" })
      yield* pass(59_000)
      yield* Supervisor.restartChild(app, "inner")
      assert.deepStrictEqual(yield* shown(app), ["inner running 2"])
    })
  )

  it.effect(
    "one that is replaced again and again leaves each run listed until it ends, and the stop waits for the last alone",
    scene(function*() {
      let live = 0
      const deaf = Child.make(
        "deaf",
        Effect.andThen(
          Effect.acquireRelease(Effect.sync(() => void live++), () => Effect.sync(() => void live--)),
          Effect.uninterruptible(Effect.sleep("1 hour"))
        ),
        { shutdown: "1 second", onUnstoppable: "replace", idleTimeout: "10 seconds" }
      )
      const app = yield* play([deaf], { intensity: 100 })
      yield* pass(34_000)
      assert.deepStrictEqual([live, yield* shown(app)], [4, ["deaf running 4"]])
      const states = Effect.map(
        Orchestrator.list,
        (nodes) => nodes.map(({ incarnation, state }) => `${state} ${incarnation}`).toSorted()
      )
      assert.deepStrictEqual(yield* states, ["abandoned 1", "abandoned 2", "abandoned 3", "running 4"])
      const stopping = yield* fork(Supervisor.stop(app))
      yield* pass(1000)
      yield* now(stopping)
      assert.deepStrictEqual(yield* states, ["abandoned 1", "abandoned 2", "abandoned 3", "abandoned 4"])
      yield* pass(3_600_000)
      assert.deepStrictEqual([live, yield* states], [0, []])
    })
  )
})

describe("the end of a supervisor in the midst of a restart", () => {
  const endings: Readonly<
    Record<
      string,
      (scene: {
        readonly app: Supervisor.SupervisorRef
        readonly running: Fiber.Fiber<unknown, unknown>
        readonly last: Actor
      }) => Effect.Effect<unknown, never, Orchestrator>
    >
  > = {
    "it is stopped": ({ app }) => Supervisor.stop(app),
    "whoever runs it is interrupted": ({ running }) => Fiber.interrupt(running),
    "all is shut down": () => Orchestrator.shutdown(),
    "a child ends the tree": ({ app, last }) =>
      Effect.andThen(last.fail(new SupervisorError.TerminateTree()), Effect.exit(Supervisor.await(app))),
    "it gives up on another": ({ app, last }) => Effect.andThen(last.fail(), Effect.exit(Supervisor.await(app)))
  }

  for (const strategy of strategies) {
    for (const [what, end] of Object.entries(endings)) {
      // In a group what fails meanwhile joins the restart.
      if (what === "it gives up on another" && groups.includes(strategy)) continue
      it.effect(
        `under ${strategy}, when ${what}: whatever was under way is over, and nothing starts any more`,
        scene(function*(stage) {
          // In which second of the restart it happens, and how often the offender has been started by then.
          const starts = strategy === "one_for_one" ? [1, 1, 2, 2] : [1, 1, 1, 2]
          for (const [second, started] of starts.entries()) {
            const a = yield* stage.actor("a", { start: (run) => run === 1 ? Effect.void : Effect.sleep(1000) })
            const b = yield* stage.actor("b", { stop: slow(300) })
            const last = yield* stage.actor("last")
            const thinking = Schedule.spaced("1 second").pipe(
              Schedule.modifyDelay(({ duration }) => Effect.delay(Effect.succeed(duration), "1 second"))
            )
            const closing = Effect.andThen(Effect.addFinalizer(() => Effect.sleep("1 second")), a.effect)
            const offender = Child.make("a", closing, { awaitReady: true, backoff: thinking })
            const dependent = strategy === "dependency" ? on(b, ["a"]) : b.child()
            const spec = piece([last.child({ intensity: 0, onGiveUp: "escalate" }), offender, dependent], {
              strategy,
              intensity: 1
            })
            const ref = yield* Deferred.make<Supervisor.SupervisorRef>()
            const run = Effect.scoped(
              Effect.flatMap(
                Supervisor.start(spec),
                (app) => Effect.andThen(Deferred.succeed(ref, app), Supervisor.await(app))
              )
            )
            const running = yield* fork(Effect.exit(run))
            const app = yield* Deferred.await(ref)
            yield* settle
            yield* a.fail()
            yield* pass(500 + 1000 * second)
            assert.deepStrictEqual([a.starts, b.live], [started, strategy === "one_for_one" || b.live])
            // Who is to say so may have been stopped with the others.
            const ended = last.live ? end : endings["it is stopped"] ?? end
            const isEnding = yield* fork(ended({ app, running, last }))
            yield* pass(1500)
            yield* now(isEnding)
            assert.isDefined(running.pollUnsafe())
            assert.deepStrictEqual([a.live, b.live, last.live], [false, false, false])
            stage.take()
            yield* pass(60_000)
            assert.deepStrictEqual([stage.take(), a.starts], [[], started])
            assert.deepStrictEqual(yield* Orchestrator.list, [])
            if (what === "all is shut down") return
          }
        })
      )
    }
  }
})

describe("interrupted at every operation", () => {
  for (const strategy of strategies) {
    it.effect(
      `a session with restarts under ${strategy} leaves nothing`,
      () =>
        Effect.gen(function*() {
          let open = 0
          let overlaps = 0
          const resource = Effect.sync(() => {
            let runs = 0
            return Effect.acquireRelease(
              Effect.sync(() => {
                open++
                if (++runs > 1) overlaps++
              }),
              () => Effect.andThen(Effect.yieldNow, Effect.sync(() => (open--, runs--)))
            )
          })
          const session = Effect.gen(function*() {
            const { a, b, c } = { a: yield* resource, b: yield* resource, c: yield* resource }
            const failed = yield* Deferred.make<never, string>()
            let starts = 0
            const first = Effect.suspend(() => ++starts === 1 ? Deferred.await(failed) : Effect.never)
            const dependsOn = strategy === "dependency" ? ["a"] : []
            const make = (
              id: string,
              effect: Effect.Effect<unknown, unknown, Scope.Scope>,
              options: Child.ChildOptions
            ) => {
              const child = Child.make(id, effect, { ...options, dependsOn: [] })
              return { ...child, spec: { ...child.spec, dependsOn: options.dependsOn ?? [] } } as Part
            }
            const app = yield* play([
              make("a", Effect.andThen(a, Effect.andThen(Routine.ready, first)), { awaitReady: true }),
              make("b", Effect.andThen(b, Effect.andThen(Routine.ready, Effect.never)), {
                awaitReady: true,
                dependsOn
              }),
              make("c", Effect.andThen(c, Effect.never), { dependsOn })
            ], { strategy })
            yield* Deferred.fail(failed, "no")
            while (starts < 2) yield* Effect.yieldNow
            yield* Supervisor.terminateChild(app, "c")
            yield* Supervisor.restartChild(app, "c")
            yield* Supervisor.stop(app)
          })
          for (const fibers of ["own", "all"] as const) {
            const operations = yield* atEveryOperation(session, () =>
              Effect.gen(function*() {
                assert.deepStrictEqual([open, overlaps], [0, 0])
                assert.strictEqual((yield* Orchestrator.snapshot).length, 1)
              }), { fibers })
            assert.isAbove(operations, 20)
          }
        }).pipe(Effect.provide(TestOrchestra.layer)),
      10_000
    )
  }
})

describe("the other points", () => {
  it.effect(
    "D3. started is not ready: who depends on a child waits for it, in bounds; one that hangs later has failed",
    scene(function*(stage) {
      const a = yield* stage.actor("a", { start: slow(1000) })
      let beats = 0
      const heart = Effect.forever(Effect.andThen(
        Effect.suspend(() => ++beats === 3 ? Effect.never : Routine.beat),
        Effect.sleep("1 second")
      ))
      const starting = yield* fork(play([
        a.child({ startTimeout: "2 seconds" }),
        Child.make("heart", heart, { idleTimeout: "2 seconds" }),
        Child.make("probed", Effect.never, {
          probe: Effect.suspend(() => beats < 8 ? Effect.void : Effect.fail("dead")),
          every: "1 second",
          failures: 2
        })
      ]))
      yield* pass(999)
      assert.strictEqual(beats, 0)
      yield* pass(1)
      const app = yield* now(starting)
      yield* pass(2999)
      assert.deepStrictEqual(yield* shown(app), ["a running 1", "heart running 1", "probed running 1"])
      yield* pass(3000)
      assert.deepStrictEqual(yield* shown(app), ["a running 1", "heart running 2", "probed running 1"])
      const { lastExit } = yield* Routine.snapshot((yield* Supervisor.whichChildren(app))[1]?.routine ?? assert.fail())
      assert.strictEqual(lastExit?.reason, "idle_timeout")
      yield* pass(6000)
      assert.isAbove((yield* Supervisor.whichChildren(app))[2]?.incarnation ?? 0, 1)
      // And one that is never ready is not waited for.
      const never = yield* stage.actor("never", { start: () => Effect.never })
      const failing = yield* fork(Effect.flip(Supervisor.startChild(app, never.child({ startTimeout: "2 seconds" }))))
      yield* pass(2000)
      assert.include(String((yield* now(failing)).message), "was not ready within 2000 ms")
    })
  )

  it.effect(
    "D4. nothing waits for a slow start or a slow stop but who asked for it, and both can be cut short",
    scene(function*(stage) {
      const slowly = yield* stage.actor("slow", { start: slow(60_000) })
      const deaf = yield* stage.actor("deaf", { stop: slow(60_000) })
      const [a, b] = yield* stage.cast("a", "b")
      const app = yield* play([deaf.child({ shutdown: "infinity" }), a.child()])
      const starting = yield* fork(Effect.exit(Supervisor.startChild(app, slowly.child())))
      const stopping = yield* fork(Supervisor.terminateChild(app, "deaf"))
      yield* settle
      assert.isUndefined(stopping.pollUnsafe())
      yield* failing(a, 1)
      assert.deepStrictEqual(yield* shown(app), ["deaf stopping 1", "a running 2", "slow starting 1"])
      const quick = yield* fork(Supervisor.startChild(app, b.child()))
      assert.strictEqual((yield* now(quick)).state, "running")
      // One start for all who ask for it.
      const second = yield* Effect.flip(Supervisor.startChild(app, slowly.child()))
      assert.strictEqual(second._tag, "AlreadyStarted")
      assert.strictEqual(slowly.starts, 1)
      assert.strictEqual(yield* now(yield* fork(Supervisor.terminateChild(app, "slow"))), "stopped")
      yield* now(starting)
      const all = yield* fork(Supervisor.stop(app))
      yield* pass(60_000)
      yield* now(all)
    })
  )

  it.effect(
    "D5. a supervisor ends with its path, its offender, why and within what: all the way up",
    scene(function*() {
      const boom = new Error("disk full")
      const inner = scenes("inner", [Child.make("leaf", Effect.andThen(Effect.yieldNow, Effect.die(boom)))], {
        intensity: 1,
        period: "1 minute"
      })
      const failure = yield* Effect.flip(Supervisor.run(piece([inner], { intensity: 1 })))
      assert(failure._tag === "RestartIntensityReached")
      assert.deepStrictEqual([failure.supervisor, failure.child, failure.attempts, failure.causes.length], [
        "/orchestra/app",
        "inner",
        2,
        2
      ])
      for (const cause of failure.causes) {
        const below = Cause.squash(cause)
        assert(below instanceof SupervisorError.RestartIntensityReached)
        assert.deepStrictEqual([below.supervisor, below.child, below.attempts, below.window], [
          "/orchestra/app/inner",
          "leaf",
          2,
          { intensity: 1, periodMillis: 60_000 }
        ])
        assert.deepStrictEqual(below.causes.map(Cause.squash), [boom, boom])
      }
      assert.include(failure.message, "disk full")
    })
  )

  it.effect(
    "D6. a routine outlives the runs of its child: it shows each, tells what changes, and ends when the child does",
    scene(function*(stage) {
      const a = yield* stage.actor("a")
      const app = yield* play([a.child({ backoff: Schedule.spaced("1 second") })])
      yield* settle
      const { routine } = a
      const changes: Array<string> = []
      const watching = yield* fork(
        Stream.runForEach(
          Routine.changes(routine),
          ({ incarnation, state }) => Effect.sync(() => void changes.push(`${state} ${incarnation}`))
        )
      )
      const end = yield* fork(Routine.await(routine))
      yield* failing(a, 1)
      yield* pass(1000)
      assert.strictEqual((yield* Supervisor.whichChildren(app))[0]?.routine, routine)
      assert.deepInclude(yield* Routine.snapshot(routine), { state: "running", incarnation: 2, restarts: 1 })
      assert.isUndefined(end.pollUnsafe())
      yield* Supervisor.stop(app)
      yield* now(watching)
      assert.isTrue(Exit.isFailure(yield* now(end)))
      assert.includeMembers(changes, ["backoff 1", "running 2", "stopping 2", "interrupted 2"])
      assert.strictEqual(new Set(changes).size, changes.length)
    })
  )

  it.effect(
    "D7. each transition is one event, in order and without gaps; a snapshot shows what is left of the budgets, and when",
    scene(function*(stage) {
      const a = yield* stage.actor("a")
      const record = yield* recorder
      const app = yield* play([a.child({ backoff: Schedule.spaced("1 second") })], { intensity: 3, period: "1 minute" })
      yield* failing(a, 1)
      const { nextStartAt, state } = yield* Routine.snapshot(a.routine)
      const { at } = record.events.find(({ _tag }) => _tag === "BackoffStarted") ?? assert.fail()
      assert.deepStrictEqual([state, nextStartAt], ["backoff", at + 1000])
      assert.deepStrictEqual((yield* look(app)).budget, { used: 1, max: 3, periodMillis: 60_000 })
      yield* pass(1000)
      assert.deepStrictEqual(
        record.events.map(({ _tag, incarnation, seq }, i) => [_tag, incarnation, seq - i]),
        ["Forked", "Ready", "Decided", "Exited", "BackoffStarted", "Restarted", "Ready"].map((tag, i) => [
          tag,
          [0, 1, 1, 1, 1, 2, 2][i],
          record.events[0]?.seq
        ])
      )
    })
  )

  it.effect(
    "D9. a stop within a bound ends on time whatever hangs, at any depth, and its report names each leaf that does",
    scene(function*(stage) {
      const [good] = yield* stage.cast("good")
      const deaf = () =>
        Child.make("deaf", Effect.uninterruptible(Effect.sleep("10 minutes")), { shutdown: "infinity" })
      yield* play([deaf(), scenes("mid", [deaf(), scenes("low", [deaf(), good.child()])])])
      const stopping = yield* fork(Orchestrator.shutdown({ grace: 0, interrupt: "5 seconds" }))
      yield* pass(4999)
      assert.isUndefined(stopping.pollUnsafe())
      yield* pass(1)
      const { clean, durationMillis, stuck } = yield* now(stopping)
      assert.deepStrictEqual([clean, durationMillis, good.live], [false, 5000, false])
      assert.includeMembers(stuck.map(({ path }) => path), [
        "/orchestra/app/deaf",
        "/orchestra/app/mid/deaf",
        "/orchestra/app/mid/low/deaf"
      ])
    })
  )

  it.effect(
    "D10. another specification is applied as a difference or not at all, and what is impossible is refused before anything",
    scene(function*(stage) {
      const [a, b, c] = yield* stage.cast("a", "b", "c")
      const app = yield* play([a.child(), b.child()])
      stage.take()
      const same = yield* Supervisor.reconcile(app, piece([a.child(), b.child()]))
      assert.deepStrictEqual([same.unchanged, stage.take()], [["a", "b"], []])
      const broken = Child.make("broken", Effect.fail("no"), { awaitReady: true })
      yield* Effect.flip(Supervisor.reconcile(app, piece([a.child(), c.child(), broken])))
      assert.deepStrictEqual(stage.take(), ["stop b", "start c", "stop c", "start b"])
      const spec = piece([a.child()])
      const refused = yield* Effect.flip(
        Supervisor.reconcile(app, { ...spec, children: [...spec.children, ...spec.children] })
      )
      assert.strictEqual(refused._tag, "InvalidChild")
      assert.deepStrictEqual([stage.take(), yield* shown(app)], [[], ["a running 1", "b running 2"]])
    })
  )
})
