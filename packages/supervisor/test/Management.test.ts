import { Orchestrator, Routine } from "@effect-orchestra/core"
import { atEveryOperation, recorder, steerableChild, TestOrchestra } from "@effect-orchestra/core/testing"
import { Child, Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Duration, Effect, Exit, Fiber, Layer, Option, Schedule } from "effect"
import { TestClock } from "effect/testing"
import { listed, now, type Part, piece, play, scenes, used } from "./Play.ts"
import { failsAt, scene, settle, shown, slow } from "./Stage.ts"

const interleavings = Math.max(1000, Number(process.env["SEEDS"] ?? 0))

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

/** The tag of what an operation fails with, or what it returns, shown. */
const outcome = <A, E extends { readonly _tag: string }, R>(
  operation: Effect.Effect<A, E, R>,
  show: (value: A) => string = String
) => Effect.match(operation, { onFailure: ({ _tag }) => _tag as string, onSuccess: show })

const state = ({ state }: Supervisor.ChildInfo) => state

describe("management", () => {
  it.effect(
    "80. every operation in every state of a child does what OTP's does",
    scene(function*(stage) {
      // In "restarting" the next start is awaited, or under way; "stopped" is a child that somebody stopped, or that
      // had finished.
      const ways = {
        running: ["running"],
        restarting: ["waiting", "starting"],
        stopped: ["terminated", "finished"],
        absent: ["absent"]
      } as const
      const table = {
        startChild: {
          running: "AlreadyStarted",
          restarting: "AlreadyPresent",
          stopped: "AlreadyPresent",
          absent: "running, then running"
        },
        restartChild: {
          running: "ChildRunning",
          restarting: "ChildRestarting",
          stopped: "running, then running",
          absent: "ChildNotFound"
        },
        terminateChild: {
          running: "stopped, then stopped",
          restarting: "stopped, then stopped",
          stopped: "stopped",
          absent: "ChildNotFound"
        },
        deleteChild: {
          running: "ChildRunning",
          restarting: "ChildRestarting",
          stopped: "gone, then absent",
          absent: "ChildNotFound"
        },
        childSpec: {
          running: "a transient worker",
          restarting: "a transient worker",
          stopped: "a transient worker",
          absent: "ChildNotFound"
        },
        whichChildren: { running: "a running", restarting: "a restarting", stopped: "a stopped", absent: "" },
        countChildren: {
          running: "specs 1, active 1",
          restarting: "specs 1, active 0",
          stopped: "specs 1, active 0",
          absent: "specs 0, active 0"
        }
      }
      const run = (operation: keyof typeof table, ref: Supervisor.SupervisorRef, child: Part) => {
        switch (operation) {
          case "startChild":
            return outcome(Supervisor.startChild(ref, child), state)
          case "restartChild":
            return outcome(Supervisor.restartChild(ref, "a"), state)
          case "terminateChild":
            return outcome(Supervisor.terminateChild(ref, "a"))
          case "deleteChild":
            return outcome(Supervisor.deleteChild(ref, "a"), () => "gone")
          case "childSpec":
            return outcome(Supervisor.childSpec(ref, "a"), ({ id, restart, type }) => `${id} ${restart} ${type}`)
          case "whichChildren":
            return outcome(
              Supervisor.whichChildren(ref),
              (all) => all.map(({ id, state }) => `${id} ${state}`).join()
            )
          case "countChildren":
            return outcome(
              Supervisor.countChildren(ref),
              ({ active, specs }) => `specs ${specs}, active ${active}`
            )
        }
      }
      const stateOf = (ref: Supervisor.SupervisorRef) =>
        Effect.map(Supervisor.whichChildren(ref), ([child]) => child?.state ?? "absent")
      for (const operation of Object.keys(table) as ReadonlyArray<keyof typeof table>) {
        for (const before of Object.keys(ways) as ReadonlyArray<keyof typeof ways>) {
          for (const way of ways[before]) {
            const a = yield* stage.actor("a", {
              start: (run) => way === "starting" && run === 2 ? Effect.never : Effect.void
            })
            const backoff = way === "waiting" ? Schedule.spaced("1 minute") : undefined
            const child = a.child({ restart: "transient", backoff, startTimeout: "1 day" })
            const app = yield* play(way === "absent" ? [] : [child], { intensity: 1 })
            if (before === "restarting") yield* a.fail()
            if (way === "finished") yield* a.succeed
            if (way === "terminated") yield* Supervisor.terminateChild(app, "a")
            yield* settle
            const where = `${operation} of a child that is ${way}`
            assert.strictEqual(yield* stateOf(app), before, where)
            const starts = a.starts
            const result = yield* run(operation, app, child)
            const after = yield* stateOf(app)
            const [expected, then = before] = table[operation][before].split(", then ")
            assert.deepStrictEqual([result, after], [expected, then], where)
            // What was refused changed nothing, and nothing undoes a stop later.
            if (after === "stopped" || after === "absent") yield* TestClock.adjust("2 minutes")
            assert.strictEqual(a.starts, after === "running" && before !== "running" ? starts + 1 : starts, where)
            yield* Supervisor.stop(app)
          }
        }
      }
    })
  )

  it.effect(
    "81. adding a child that does not start fails with the cause; nothing is kept, retried or counted",
    scene(function*(stage) {
      const [a] = yield* stage.cast("a")
      const app = yield* play([a.child()], { intensity: 0 })
      let starts = 0
      const tried = Effect.sync(() => void starts++)
      const notReady = (end: Effect.Effect<unknown, unknown>) =>
        Child.make("b", Effect.andThen(tried, Effect.andThen(Effect.yieldNow, end)), {
          awaitReady: true,
          backoff: Schedule.spaced("1 second")
        })
      const ways: ReadonlyArray<readonly [child: Part, cause: (cause: Cause.Cause<unknown>) => boolean]> = [
        [notReady(Effect.fail("no b")), (cause) => Option.getOrNull(Cause.findErrorOption(cause)) === "no b"],
        [notReady(Effect.die("broken")), (cause) => Cause.hasDies(cause) && Cause.squash(cause) === "broken"],
        [notReady(Effect.interrupt), Cause.hasInterrupts],
        [notReady(Effect.void), () => true],
        [
          Child.layer("b", Layer.effectDiscard(Effect.andThen(tried, Effect.fail("no layer")))),
          (cause) => Cause.squash(cause) === "no layer"
        ],
        [
          scenes("b", [Child.make("leaf", Effect.andThen(tried, Effect.fail("no leaf")), { awaitReady: true })]),
          (cause) => Cause.squash(cause) instanceof SupervisorError.StartFailure
        ]
      ]
      for (const [index, [child, fits]] of ways.entries()) {
        starts = 0
        const failure = yield* Effect.flip(Supervisor.startChild(app, child))
        assert(failure._tag === "StartFailure", `way ${index}: ${failure._tag}`)
        assert.deepStrictEqual([failure.supervisor, failure.child], ["/orchestra/app", "b"])
        assert.isTrue(fits(failure.cause), `way ${index}: ${failure.cause}`)
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(starts, 1, `way ${index}`)
        assert.deepStrictEqual(yield* shown(app), ["a running 1"])
        assert.deepStrictEqual(yield* listed, ["/orchestra/app/a running"])
      }
      assert.strictEqual(yield* used(app), 0)
      // The id is free.
      assert.strictEqual((yield* Supervisor.startChild(app, Child.make("b", Effect.never))).state, "running")
    })
  )

  it.effect(
    "82. adding a child that says it is not needed succeeds without a run; it is kept unless it is temporary",
    scene(function*() {
      const ignored = (body: Effect.Effect<never, unknown>) => Effect.andThen(Effect.yieldNow, body)
      for (const restart of ["permanent", "transient", "temporary"] as const) {
        const ways: ReadonlyArray<Part> = [
          Child.make("a", ignored(Supervisor.ignore), { awaitReady: true, restart }),
          Child.make("a", ignored(Effect.fail(new SupervisorError.Ignore())), { awaitReady: true, restart }),
          Child.layer("a", Layer.effectDiscard(ignored(Supervisor.ignore)), { restart })
        ]
        for (const child of ways) {
          const app = yield* play([], { intensity: 0 })
          const info = yield* Supervisor.startChild(app, child)
          assert.deepStrictEqual([info.id, info.state], ["a", "stopped"])
          yield* TestClock.adjust("1 minute")
          assert.deepStrictEqual(yield* shown(app), restart === "temporary" ? [] : ["a stopped 1"])
          assert.deepStrictEqual(yield* listed, [])
          yield* Supervisor.stop(app)
        }
      }
    })
  )

  it.effect(
    "83. terminating is idempotent on a stopped child, fails on an unknown one, and forgets a temporary one",
    scene(function*(stage) {
      const [a, b] = yield* stage.cast("a", "b")
      const app = yield* play([a.child(), b.child({ restart: "temporary" })])
      stage.take()
      for (let time = 0; time < 3; time++) assert.strictEqual(yield* Supervisor.terminateChild(app, "a"), "stopped")
      assert.strictEqual(yield* Supervisor.terminateChild(app, "b"), "stopped")
      assert.deepStrictEqual(stage.take(), ["stop a", "stop b"])
      assert.deepStrictEqual(yield* shown(app), ["a stopped 1"])
      for (const id of ["b", "nobody"]) {
        const failure = yield* Effect.flip(Supervisor.terminateChild(app, id))
        assert(failure._tag === "ChildNotFound")
        assert.deepStrictEqual([failure.supervisor, failure.child], ["/orchestra/app", id])
      }
    })
  )

  it.effect(
    "84. a restart by hand whose start fails says why; the child stays stopped and is not tried again",
    scene(function*(stage) {
      const a = yield* stage.actor("a", { start: failsAt(2) })
      const b = yield* stage.actor("b")
      const app = yield* play([a.child({ backoff: Schedule.spaced("1 second") }), b.child()], {
        strategy: "one_for_all",
        intensity: 5
      })
      yield* Supervisor.terminateChild(app, "a")
      const failure = yield* Effect.flip(Supervisor.restartChild(app, "a"))
      assert(failure._tag === "StartFailure")
      assert.strictEqual(Cause.squash(failure.cause), "start 2 failed")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(a.starts, 2)
      assert.strictEqual(yield* used(app), 0)
      assert.deepStrictEqual(yield* shown(app), ["a stopped 2", "b running 1"])
      assert.strictEqual((yield* Supervisor.restartChild(app, "a")).state, "running")
      assert.deepStrictEqual(yield* shown(app), ["a running 3", "b running 1"])
      assert.strictEqual(yield* used(app), 0)
    })
  )

  it.effect(
    "85. children are listed in start order, whatever was restarted",
    scene(function*(stage) {
      for (const strategy of ["one_for_one", "one_for_all", "rest_for_one", "dependency"] as const) {
        const [a, b, c, d] = yield* stage.cast("a", "b", "c", "d")
        const app = yield* play([a.child(), b.child(), c.child()], { strategy })
        const ids = Effect.map(Supervisor.whichChildren(app), (children) => children.map(({ id }) => id).join(""))
        assert.strictEqual(yield* ids, "abc", strategy)
        yield* Supervisor.startChild(app, d.child())
        assert.strictEqual(yield* ids, "abcd", strategy)
        for (const actor of [b, a, d]) {
          yield* actor.fail()
          yield* settle
          assert.strictEqual(yield* ids, "abcd", strategy)
        }
        yield* Supervisor.terminateChild(app, "b")
        assert.strictEqual(yield* ids, "abcd", strategy)
        yield* Supervisor.restartChild(app, "b")
        assert.strictEqual(yield* ids, "abcd", strategy)
        // Who is deleted and added again comes last.
        yield* Supervisor.terminateChild(app, "b")
        yield* Supervisor.deleteChild(app, "b")
        yield* Supervisor.startChild(app, b.child())
        assert.strictEqual(yield* ids, "acdb", strategy)
        yield* Supervisor.stop(app)
      }
    })
  )

  it.effect(
    "86. the counts are right with children running, restarting and stopped, and never negative",
    scene(function*(stage) {
      const [a, b, c, d] = yield* stage.cast("a", "b", "c", "d")
      const waits = { backoff: Schedule.spaced("1 minute") }
      const app = yield* play([
        a.child(),
        b.child(waits),
        c.child(),
        scenes("inner", [Child.make("leaf", Effect.never)])
      ])
      const counts = Supervisor.countChildren(app)
      assert.deepStrictEqual(yield* counts, { specs: 4, active: 4, supervisors: 1, workers: 3 })
      yield* b.fail()
      yield* Supervisor.terminateChild(app, "c")
      yield* settle
      assert.deepStrictEqual(yield* counts, { specs: 4, active: 2, supervisors: 1, workers: 3 })
      yield* Supervisor.startChild(app, d.child(waits))
      yield* d.fail()
      yield* settle
      assert.deepStrictEqual(yield* counts, { specs: 5, active: 2, supervisors: 1, workers: 4 })
      for (const id of ["b", "d", "inner", "a"]) {
        yield* Supervisor.terminateChild(app, id)
        yield* Supervisor.terminateChild(app, id)
      }
      assert.deepStrictEqual(yield* counts, { specs: 5, active: 0, supervisors: 1, workers: 4 })
      for (const id of ["a", "b", "c", "d", "inner"]) yield* Supervisor.deleteChild(app, id)
      assert.deepStrictEqual(yield* counts, { specs: 0, active: 0, supervisors: 0, workers: 0 })
    })
  )

  it.effect(
    "87. a specification is told with all its defaults",
    scene(function*() {
      const app = yield* play([
        Child.make("a", Effect.never),
        scenes("b", []),
        Child.make("c", Effect.andThen(Routine.ready, Effect.never), {
          awaitReady: true,
          restart: "transient",
          shutdown: "brutal_kill",
          intensity: 7,
          onGiveUp: "quarantine",
          attributes: { region: "eu" }
        })
      ])
      const [a, b, c] = yield* Effect.forEach(["a", "b", "c"], (id) => Supervisor.childSpec(app, id))
      const shownSpec = (spec: Child.ChildSpec | undefined): Record<string, unknown> => ({
        ...spec,
        shutdown: Duration.isDuration(spec?.shutdown) ? Duration.toMillis(spec.shutdown) : spec?.shutdown,
        startTimeout: spec === undefined ? undefined : Duration.toMillis(spec.startTimeout),
        resetAfter: spec === undefined ? undefined : Duration.toMillis(spec.resetAfter),
        budget: spec?.budget === undefined
          ? undefined
          : [spec.budget.intensity, Duration.toMillis(spec.budget.period)]
      })
      const defaults = {
        type: "worker",
        restart: "permanent",
        shutdown: 5000,
        significant: false,
        awaitReady: false,
        startTimeout: Infinity,
        backoff: undefined,
        resetAfter: 30_000,
        budget: undefined,
        onGiveUp: "escalate",
        onUnstoppable: "wait",
        dependsOn: [],
        linkForks: true,
        idleTimeout: undefined,
        mailbox: [],
        attributes: {}
      }
      assert.deepInclude(shownSpec(a), { id: "a", ...defaults })
      assert.deepInclude(shownSpec(b), { id: "b", ...defaults, type: "supervisor", shutdown: "infinity" })
      assert.deepInclude(shownSpec(c), {
        id: "c",
        ...defaults,
        awaitReady: true,
        restart: "transient",
        shutdown: "brutal_kill",
        startTimeout: 30_000,
        budget: [7, 5000],
        onGiveUp: "quarantine",
        attributes: { region: "eu" }
      })
    })
  )

  it.effect(
    "88. a stop and a failure at the same time: stopped first, not counted; failed first, counted; never both, nor neither",
    () =>
      Effect.gen(function*() {
        // In one turn: one_for_one has judged the failure on the spot, the others judge what is left at its end.
        for (const strategy of ["one_for_one", "one_for_all", "rest_for_one", "dependency"] as const) {
          yield* scene(function*(stage) {
            const record = yield* recorder
            const fails = yield* Deferred.make<never, string>()
            const [b] = yield* stage.cast("b")
            let runs = 0
            const body = Effect.suspend(() => ++runs === 1 ? Deferred.await(fails) : Effect.never)
            const app = yield* play([Child.make("a", body), b.child()], { strategy })
            yield* Deferred.fail(fails, "no")
            yield* Supervisor.terminateChild(app, "a")
            yield* TestClock.adjust("1 minute")
            const counted = strategy === "one_for_one" ? 1 : 0
            assert.strictEqual(record.tags.filter((tag) => tag === "Decided").length, counted, strategy)
            const [a, sibling] = yield* Supervisor.whichChildren(app)
            assert.deepStrictEqual([a?.state, sibling?.state, b.starts], ["stopped", "running", 1], strategy)
          })()
        }
        const histories: Record<string, number> = {}
        for (let seed = 0; seed < interleavings; seed++) {
          const intensity = seed % 2
          const history = yield* TestOrchestra.run(
            Effect.gen(function*() {
              const a = yield* steerableChild<void, string>({ name: "a" })
              const record = yield* recorder
              const strategy = (["one_for_one", "one_for_all", "rest_for_one"] as const)[(seed >> 1) % 3] ??
                "one_for_one"
              const app = yield* play([Child.make("a", a.effect)], { intensity, strategy })
              const failing = yield* Effect.forkChild(a.fail("no"))
              const [end] = yield* Effect.all([
                Effect.exit(Supervisor.terminateChild(app, "a")),
                Effect.yieldNow
              ], { concurrency: "unbounded" })
              const starts = a.starts
              assert.isFalse(a.live, "it lives after its stop")
              yield* Effect.sleep("1 minute")
              assert.strictEqual(a.starts, starts, "it was started after its stop")
              yield* Fiber.interrupt(failing)
              const decisions = record.events.flatMap((event) => event._tag === "Decided" ? [event.decision] : [])
              if (decisions.length === 0) {
                assert.deepStrictEqual(end, Exit.succeed("stopped"))
                assert.isAtMost(starts, 1)
                assert.deepStrictEqual(yield* shown(app), ["a stopped 1"])
                return "stopped first"
              }
              if (intensity === 0) {
                assert.deepStrictEqual([decisions, starts], [["give_up"], 1])
                const ended = yield* Effect.exit(Supervisor.await(app))
                assert.isTrue(Exit.isFailure(ended), "it gave up and says that it did not")
                return "failed first, and that was one too many"
              }
              assert.deepStrictEqual([decisions, end], [["restart"], Exit.succeed("stopped")])
              // A second run may have been stopped before its first instruction, or never have begun.
              assert.isAtMost(starts, 2)
              const [info] = yield* Supervisor.whichChildren(app)
              assert.strictEqual(info?.state, "stopped")
              assert.include([starts, 2], info?.incarnation)
              return `failed first, then stopped in run ${starts}`
            }),
            { seed }
          ).pipe(Effect.catchDefect((defect) => Effect.die(new Error(`seed ${seed}: ${defect}`, { cause: defect }))))
          histories[history] = (histories[history] ?? 0) + 1
        }
        // Each of them did happen.
        assert.includeMembers(Object.keys(histories), [
          "stopped first",
          "failed first, and that was one too many",
          "failed first, then stopped in run 2"
        ])
      }),
    60_000
  )

  it.effect(
    "89. while a child is being added slowly, queries answer, a failure is handled, and a stop works",
    scene(function*(stage) {
      const a = yield* stage.actor("a")
      const b = yield* stage.actor("b", { start: slow(10_000) })
      const app = yield* play([a.child()])
      const adding = yield* fork(Effect.flip(Supervisor.startChild(app, b.child())))
      yield* settle
      assert.deepStrictEqual(yield* shown(app), ["a running 1", "b starting 1"])
      assert.deepStrictEqual(yield* Supervisor.countChildren(app), {
        specs: 2,
        active: 1,
        supervisors: 0,
        workers: 2
      })
      yield* a.fail()
      yield* settle
      assert.deepStrictEqual(yield* shown(app), ["a running 2", "b starting 1"])
      stage.take()
      yield* Supervisor.stop(app)
      assert.deepStrictEqual(stage.take(), ["stop b", "stop a"])
      assert.strictEqual((yield* now(adding))._tag, "SupervisorNotRunning")
    })
  )

  it.effect(
    "90. while a child takes its time to stop, the failure of another is handled without delay",
    scene(function*(stage) {
      const a = yield* stage.actor("a", { stop: slow(3000) })
      const b = yield* stage.actor("b")
      const app = yield* play([a.child(), b.child()])
      const stopping = yield* fork(Supervisor.terminateChild(app, "a"))
      yield* settle
      yield* b.fail()
      yield* settle
      assert.deepStrictEqual(yield* shown(app), ["a stopping 1", "b running 2"])
      assert.isUndefined(stopping.pollUnsafe())
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* now(stopping), "stopped")
    })
  )

  it.effect(
    "91. of two that add the same id at once one starts it and the other is told so",
    () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < 100; seed++) {
          yield* TestOrchestra.run(
            Effect.gen(function*() {
              const a = yield* steerableChild({ name: "a" })
              const app = yield* play([])
              const start = Effect.andThen(Effect.sleep("1 second"), Effect.andThen(Routine.ready, a.effect))
              const add = outcome(Supervisor.startChild(app, Child.make("a", start, { awaitReady: true })), state)
              const results = yield* Effect.all([add, add], { concurrency: "unbounded" })
              assert.deepStrictEqual(results.toSorted(), ["AlreadyStarted", "running"], `seed ${seed}`)
              yield* a.started
              assert.deepStrictEqual([a.starts, yield* shown(app)], [1, ["a running 1"]], `seed ${seed}`)
            }),
            { seed }
          )
        }
      }),
    120_000
  )

  it.effect(
    "92. stops and restarts of one child at once: no second run beside another, no stop lost",
    () =>
      Effect.gen(function*() {
        // A start that came through is told as one, though the child is being stopped by the time that this is heard.
        yield* scene(function*() {
          const ref = yield* Deferred.make<Supervisor.SupervisorRef>()
          let runs = 0
          const stopsItself = Effect.gen(function*() {
            yield* Routine.ready
            if (++runs > 1) yield* Supervisor.terminateChild(yield* Deferred.await(ref), "a")
            return yield* Effect.never
          })
          const app = yield* play([Child.make("a", stopsItself, { awaitReady: true })])
          yield* Deferred.succeed(ref, app)
          yield* Supervisor.terminateChild(app, "a")
          assert.strictEqual((yield* Supervisor.restartChild(app, "a")).state, "running")
          yield* settle
          assert.deepStrictEqual(yield* shown(app), ["a stopped 2"])
        })()
        const seen = new Set<string>()
        for (let seed = 0; seed < interleavings; seed++) {
          const history = yield* TestOrchestra.run(
            Effect.gen(function*() {
              const a = yield* steerableChild<void, string>({ name: "a" })
              // Slow to start and slow to go, so that each meets the other half way.
              const body = Effect.andThen(
                Effect.andThen(Effect.sleep(seed % 3), Routine.ready),
                Effect.ensuring(a.effect, Effect.sleep(seed % 5))
              )
              const app = yield* play([Child.make("a", body, { awaitReady: true })])
              const stopped = seed % 2 === 1
              if (stopped) yield* Supervisor.terminateChild(app, "a")
              const terminate = outcome(Supervisor.terminateChild(app, "a"))
              const restart = outcome(Supervisor.restartChild(app, "a"), state)
              const [first, second, third] = yield* Effect.all([
                terminate,
                seed % 7 < 3 ? terminate : restart,
                Effect.delay(restart, seed % 4)
              ], { concurrency: "unbounded" })
              assert.strictEqual(first, "stopped")
              assert.include(["stopped", "running", "ChildRunning", "StartFailure"], second)
              assert.include(["running", "ChildRunning", "StartFailure"], third)
              // Whatever their order was, it now runs, or has been stopped.
              yield* Effect.sleep("1 second")
              const [now] = yield* Supervisor.whichChildren(app)
              assert.include(["running", "stopped"], now?.state)
              assert.strictEqual(a.live, now?.state === "running")
              // A stop that comes after them all is the last word.
              assert.strictEqual(yield* Supervisor.terminateChild(app, "a"), "stopped")
              const { starts } = a
              yield* Effect.sleep("1 minute")
              assert.deepStrictEqual([a.live, a.starts], [false, starts])
              yield* a.check
              return `${stopped ? "stopped" : "running"}: ${first}, ${second}, ${third}, then ${now?.state}`
            }),
            { seed }
          ).pipe(Effect.catchDefect((defect) => Effect.die(new Error(`seed ${seed}: ${defect}`, { cause: defect }))))
          seen.add(history)
        }
        assert.isAbove(seen.size, 5)
      }),
    120_000
  )

  it.effect(
    "93. on a supervisor that stops, was stopped or gave up, every operation fails at once, and starts nothing",
    scene(function*(stage) {
      const operations = (app: Supervisor.SupervisorRef, child: Part) =>
        [
          Supervisor.startChild(app, child),
          Supervisor.startChild(app, Child.make("a", Effect.never)),
          Supervisor.terminateChild(app, "a"),
          Supervisor.restartChild(app, "a"),
          Supervisor.restartChild(app, "stopped"),
          Supervisor.deleteChild(app, "stopped"),
          Supervisor.release(app, "a"),
          Supervisor.whichChildren(app),
          Supervisor.countChildren(app),
          Supervisor.childSpec(app, "a")
        ] as ReadonlyArray<Effect.Effect<unknown, { readonly _tag: string }>>
      for (const end of ["stopping", "stopped", "gave up"] as const) {
        const a = yield* stage.actor("a", { stop: slow(1000) })
        const [other, late] = yield* stage.cast("stopped", "late")
        const app = yield* play([a.child(), other.child()], { intensity: 0 })
        yield* Supervisor.terminateChild(app, "stopped")
        if (end === "gave up") {
          yield* a.fail()
          assert.isTrue(Exit.isFailure(yield* Effect.exit(Supervisor.await(app))))
        } else {
          yield* fork(Supervisor.stop(app))
          yield* settle
          if (end === "stopped") yield* TestClock.adjust("1 second")
        }
        for (const operation of operations(app, late.child())) {
          const calling = yield* fork(Effect.flip(operation))
          yield* settle
          const ended = calling.pollUnsafe()
          assert(ended !== undefined && Exit.isSuccess(ended), `${end}: an operation hangs or succeeds`)
          const failure = ended.value
          assert(failure._tag === "SupervisorNotRunning", `${end}: ${failure._tag}`)
          assert(failure instanceof SupervisorError.SupervisorNotRunning)
          assert.strictEqual(failure.supervisor, "/orchestra/app")
          assert.strictEqual(failure.state === "stopping", end === "stopping", failure.state)
        }
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual([late.starts, other.starts, a.starts], [0, 1, 1])
        // These two have nothing left to wait for.
        yield* Supervisor.stop(app)
        assert.strictEqual(Exit.isFailure(yield* Effect.exit(Supervisor.await(app))), end === "gave up")
      }
    })
  )

  it.effect(
    "94. interrupting who adds takes the child out again; interrupting who stops does not interrupt the stop",
    scene(function*(stage) {
      const a = yield* stage.actor("a", { stop: slow(1000) })
      const b = yield* stage.actor("b", { start: slow(5000), stop: slow(1000) })
      const app = yield* play([a.child()])
      stage.take()
      const adding = yield* fork(Supervisor.startChild(app, b.child()))
      yield* settle
      assert.deepStrictEqual(yield* shown(app), ["a running 1", "b starting 1"])
      const interrupting = yield* fork(Fiber.interrupt(adding))
      yield* TestClock.adjust("999 millis")
      assert.isUndefined(interrupting.pollUnsafe(), "the interruption returned before the child was gone")
      yield* TestClock.adjust("1 millis")
      yield* now(interrupting)
      assert.deepStrictEqual(stage.take(), ["start b", "stopping b", "stop b"])
      assert.deepStrictEqual(yield* shown(app), ["a running 1"])
      // Nothing of it is left: it can be added again.
      const again = yield* fork(Supervisor.startChild(app, b.child()))
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual((yield* now(again)).state, "running")
      stage.take()

      const stopping = yield* fork(Supervisor.terminateChild(app, "a"))
      yield* settle
      yield* Fiber.interrupt(stopping)
      assert.deepStrictEqual(yield* shown(app), ["a stopping 1", "b running 1"])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(stage.take(), ["stopping a", "stop a"])
      assert.deepStrictEqual(yield* shown(app), ["a stopped 1", "b running 1"])
    })
  )
})

describe("interrupted at any operation", () => {
  /** A child that holds something, and takes some operations to start. */
  const holding = () => {
    const held = { open: 0, most: 0 }
    const hold = Effect.acquireRelease(
      Effect.sync(() => held.most = Math.max(held.most, ++held.open)),
      () => Effect.sync(() => void held.open--)
    )
    const child = Child.make(
      "a",
      Effect.gen(function*() {
        yield* hold
        for (let step = 0; step < 5; step++) yield* Effect.yieldNow
        yield* Routine.ready
        return yield* Effect.never
      }),
      { awaitReady: true }
    )
    return { child, held }
  }

  it.effect(
    "an addition is whole or undone",
    scene(function*() {
      for (const fibers of ["own", "all"] as const) {
        const { child, held } = holding()
        const app = yield* play([])
        let [undone, whole] = [0, 0]
        yield* atEveryOperation(Supervisor.startChild(app, child), (exit) =>
          Effect.gen(function*() {
            yield* settle
            if (Exit.isSuccess(exit) || held.open > 0) {
              assert.deepStrictEqual([yield* shown(app), held.open, ++whole > 0], [["a running 1"], 1, true])
              yield* Supervisor.terminateChild(app, "a")
              return yield* Supervisor.deleteChild(app, "a")
            }
            // Once it came through, it does so wherever it is interrupted later.
            assert.deepStrictEqual([yield* shown(app), yield* listed, whole, ++undone > 0], [[], [], 0, true])
          }), { fibers })
        assert.isAbove(undone, 3)
        assert.isAbove(whole, 0)
        assert.strictEqual(held.most, 1)
        yield* Supervisor.stop(app)
      }
    })
  )

  it.effect(
    "a stop is not begun, or goes on to its end",
    scene(function*() {
      for (const fibers of ["own", "all"] as const) {
        const { child, held } = holding()
        const app = yield* play([child])
        let [untouched, stopped] = [0, 0]
        yield* atEveryOperation(Supervisor.terminateChild(app, "a"), (exit) =>
          Effect.gen(function*() {
            yield* settle
            const [now] = yield* Supervisor.whichChildren(app)
            if (Exit.isSuccess(exit)) assert.strictEqual(now?.state, "stopped")
            if (now?.state === "running") return void assert.deepStrictEqual([held.open, ++untouched > 0], [1, true])
            assert.deepStrictEqual([now?.state, held.open, ++stopped > 0], ["stopped", 0, true])
            yield* Supervisor.restartChild(app, "a")
          }), { fibers })
        assert.isAbove(untouched, 0)
        assert.isAbove(stopped, 1)
        assert.strictEqual(held.most, 1)
        yield* Supervisor.stop(app)
      }
    })
  )

  it.effect(
    "a restart by hand is whole or undone, and never beside another run",
    scene(function*() {
      for (const fibers of ["own", "all"] as const) {
        const { child, held } = holding()
        const app = yield* play([child])
        yield* Supervisor.terminateChild(app, "a")
        let [undone, whole] = [0, 0]
        yield* atEveryOperation(Supervisor.restartChild(app, "a"), (exit) =>
          Effect.gen(function*() {
            yield* settle
            const [now] = yield* Supervisor.whichChildren(app)
            if (Exit.isSuccess(exit) || held.open > 0) {
              assert.deepStrictEqual([now?.state, held.open, ++whole > 0], ["running", 1, true])
              yield* Supervisor.terminateChild(app, "a")
              return
            }
            assert.deepStrictEqual([now?.state, yield* listed, whole, ++undone > 0], ["stopped", [], 0, true])
            // No ghost undoes that.
            yield* TestClock.adjust("1 minute")
            assert.strictEqual(held.open, 0)
          }), { fibers })
        assert.isAbove(undone, 3)
        assert.isAbove(whole, 0)
        assert.strictEqual(held.most, 1)
        yield* Supervisor.stop(app)
      }
    })
  )

  it.effect(
    "a start and all that is done to the children, interrupted with every fiber of theirs, leaves nothing behind",
    scene(function*() {
      for (const fibers of ["own", "all"] as const) {
        const { child, held } = holding()
        const spec = piece([child, scenes("inner", [Child.make("leaf", Effect.never)])])
        const late = holding()
        const session = Effect.gen(function*() {
          const app = yield* Supervisor.start(spec)
          yield* Supervisor.terminateChild(app, "a")
          yield* Supervisor.restartChild(app, "a")
          yield* Supervisor.terminateChild(app, "a")
          yield* Supervisor.deleteChild(app, "a")
          yield* Supervisor.startChild(app, late.child)
          yield* Supervisor.stop(app)
        })
        const operations = yield* atEveryOperation(session, () =>
          Effect.gen(function*() {
            yield* settle
            assert.deepStrictEqual([held.open, late.held.open], [0, 0])
            assert.deepStrictEqual(yield* listed, [])
            assert.strictEqual((yield* Orchestrator.snapshot).length, 1)
          }), { fibers })
        assert.isAbove(operations, fibers === "own" ? 20 : 100)
        assert.deepStrictEqual([held.most, late.held.most], [1, 1])
      }
    })
  )
})
