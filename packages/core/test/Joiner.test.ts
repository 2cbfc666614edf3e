import { CoreError, Group, Joiner, Orchestrator, Routine } from "@effect-orchestra/core"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Clock, Effect, Exit, Fiber, Option, Random } from "effect"
import { TestClock } from "effect/testing"
import * as Model from "./model/Group.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

const after = (millis: number) => <A, E>(effect: Effect.Effect<A, E>) => Effect.andThen(Effect.sleep(millis), effect)

/** Tasks that say when they are gone, and take a turn for it. */
const recorded = (log: Array<string>) => (name: string, effect: Effect.Effect<string, string>) =>
  Effect.onInterrupt(effect, () => Effect.andThen(Effect.yieldNow, Effect.sync(() => log.push(`${name} gone`))))

/** Forks tasks in a group with a joiner, moves the time by `millis`, and returns the exit. */
const joined = <L extends Joiner.JoinerLambda>(
  joiner: Joiner.Joiner<L>,
  tasks: ReadonlyArray<Effect.Effect<string, string>>,
  millis = 0
) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(
      Effect.exit(Group.run(
        (group) =>
          Effect.forEach(tasks, (task, index) => Group.fork(group, task, { name: `task ${index}` }), { discard: true }),
        { joiner, name: "joined" }
      )),
      { startImmediately: true }
    )
    if (millis > 0) yield* TestClock.adjust(millis)
    return yield* Fiber.join(fiber)
  })

/** The error of an exit that failed with one of this class. */
const failure = <E>(exit: Exit.Exit<unknown, unknown>, type: new(...args: Array<never>) => E): E => {
  const error = Exit.isFailure(exit) ? Option.getOrUndefined(Cause.findErrorOption(exit.cause)) : undefined
  if (error instanceof type) return error
  throw new Error(`expected a ${type.name}, got: ${String(exit)}`)
}

const joiners: { readonly [J in Model.Plan["joiner"]]: (plan: Model.Plan) => Joiner.Policy } = {
  failFast: () => Joiner.failFast,
  all: () => Joiner.all,
  collect: () => Joiner.collect,
  firstSuccess: () => Joiner.firstSuccess,
  firstExit: () => Joiner.firstExit,
  quorum: ({ needed }) => Joiner.quorum(needed),
  partial: ({ time }) => Joiner.partial(time)
}

const ends = {
  succeed: Effect.succeed<number>,
  fail: Effect.fail<number>,
  die: (index: number) => Effect.die(index)
}

/** Times are such that no two sums of them are the same. */
const plans = Effect.gen(function*() {
  const count = yield* Random.nextIntBetween(0, 9)
  const time = Effect.map(Random.nextIntBetween(1, 30), (n) => n * 10_000 + 5_000)
  const tasks = yield* Effect.forEach(Array.from({ length: count }), (_, index) =>
    Effect.gen(function*() {
      const millis = (yield* Random.nextIntBetween(1, 10)) * 10_000 + 2 ** index
      const chance = yield* Random.nextIntBetween(0, 10)
      return { millis, end: chance < 6 ? "succeed" : chance < 9 ? "fail" : "die" } as const
    }))
  const names = Object.keys(joiners) as ReadonlyArray<Model.Plan["joiner"]>
  const plan: Model.Plan = {
    tasks,
    limit: yield* Random.nextIntBetween(1, 6),
    joiner: names[yield* Random.nextIntBetween(0, names.length)] ?? "failFast",
    needed: yield* Random.nextIntBetween(1, 5),
    time: yield* time,
    deadline: (yield* Random.nextIntBetween(0, 4)) === 0 ? (yield* time) + 1_000 : Infinity,
    halts: (yield* Random.nextIntBetween(0, 6)) === 0
  }
  return plan
})

/** An exit in the words of the model. */
const told = (exit: Exit.Exit<unknown, unknown>, joiner: Model.Plan["joiner"]): string => {
  if (Exit.isFailure(exit)) {
    const [reason] = exit.cause.reasons
    if (reason === undefined || Cause.isInterruptReason(reason)) return "interrupted"
    if (Cause.isDieReason(reason)) return `die: ${String(reason.defect)}`
    const { error } = reason
    if (error instanceof CoreError.DeadlineExceeded) return "deadline"
    const failures = (causes: ReadonlyArray<Cause.Cause<unknown>>) =>
      causes.map((cause) => String(Option.getOrUndefined(Cause.findErrorOption(cause)))).join(",")
    if (error instanceof CoreError.NoSuccess) return `none: ${failures(error.failures)}`
    if (error instanceof CoreError.QuorumUnreachable) {
      return `unreachable: ${error.reached} of ${error.needed}: ${failures(error.failures)}`
    }
    return `fail: ${String(error)}`
  }
  const { value } = exit
  const end = (one: Exit.Exit<unknown, unknown>) =>
    Exit.isSuccess(one) ? "succeed" : Cause.hasFails(one.cause) ? "fail" : Cause.hasDies(one.cause) ? "die" : "cut"
  if (value === "body") return "body"
  if (typeof value === "number") return `value: ${value}`
  if (Array.isArray(value)) {
    return joiner === "collect"
      ? `exits: ${value.map((one, index) => `${index} ${end(one)}`).join(",")}`
      : `values: ${value.join(",")}`
  }
  const { failed, succeeded, unfinished } = value as Joiner.PartialResult<unknown, unknown>
  const all = [
    ...succeeded.map(({ index }) => [index, "succeed"] as const),
    ...failed.map(({ cause, index }) => [index, Cause.hasDies(cause) ? "die" : "fail"] as const),
    ...unfinished.map(({ index }) => [index, "cut"] as const)
  ]
  return `exits: ${all.sort(([a], [b]) => a - b).map(([index, end]) => `${index} ${end}`).join(",")}`
}

describe("Joiner", () => {
  it.effect("36. when one actor of a run-group returns, all others are interrupted and awaited, and its result is returned", () =>
    Effect.gen(function*() {
      for (const first of [Effect.succeed("done"), Effect.fail("broken")]) {
        const log: Array<string> = []
        const actor = recorded(log)
        const exit = yield* joined(Joiner.firstExit, [
          actor("a", Effect.never),
          actor("b", after(5)<string, string>(first)),
          actor("c", Effect.never)
        ], 5)
        assert.deepStrictEqual(exit, yield* Effect.exit(first))
        assert.deepStrictEqual(log, ["a gone", "c gone"])
      }
      assert.deepStrictEqual(failure(yield* joined(Joiner.firstExit, []), CoreError.NoSuccess).failures, [])
    }))

  it.effect("54. of five the first success wins though two failed before it, and the losers are awaited; or all five causes are told", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const task = recorded(log)
      const won = yield* joined(Joiner.firstSuccess, [
        task("a", Effect.never),
        task("b", Effect.fail("b")),
        task("c", after(1)(Effect.fail("c"))),
        task("d", after(2)(Effect.succeed("d"))),
        task("e", Effect.never)
      ], 2)
      assert.deepStrictEqual([won, log], [Exit.succeed("d"), ["a gone", "e gone"]])
      const late = ["a", "b", "c", "d", "e"].map((name, index) => after(5 - index)(Effect.fail(name)))
      const lost = failure(yield* joined(Joiner.firstSuccess, late, 5), CoreError.NoSuccess)
      assert.deepStrictEqual(lost.failures, ["a", "b", "c", "d", "e"].map((name) => Cause.fail(name)))
      assert.include(lost.message, "none of 5 tasks")
    }))

  it.effect("55. a quorum of three of five is complete with the third success, and fails as soon as it is unreachable", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const task = recorded(log)
      const reached = yield* joined(Joiner.quorum(3), [
        task("a", after(3)(Effect.succeed("a"))),
        task("b", Effect.never),
        task("c", after(2)(Effect.succeed("c"))),
        task("d", Effect.fail("d")),
        task("e", after(1)(Effect.succeed("e")))
      ], 3)
      assert.deepStrictEqual([reached, log.splice(0)], [Exit.succeed(["a", "c", "e"]), ["b gone"]])
      const missed = failure(
        yield* joined(Joiner.quorum(3), [
          task("a", after(3)(Effect.fail("a"))),
          task("b", Effect.never),
          task("c", after(2)(Effect.fail("c"))),
          task("d", after(1)(Effect.succeed("d"))),
          task("e", Effect.fail("e"))
        ], 3),
        CoreError.QuorumUnreachable
      )
      assert.deepStrictEqual([missed.needed, missed.reached, log], [3, 1, ["b gone"]])
      assert.deepStrictEqual(missed.failures, ["a", "c", "e"].map((name) => Cause.fail(name)))
      // While the body may fork more, nothing is lost.
      const forking = yield* Group.run((group) =>
        Effect.gen(function*() {
          const failed = yield* Group.fork(group, Effect.fail("first"))
          yield* Routine.await(failed)
          yield* Group.fork(group, Effect.succeed("second"))
        }), { joiner: Joiner.quorum(1) })
      assert.deepStrictEqual(forking, ["second"])
      assert.instanceOf(
        failure(yield* joined(Joiner.quorum(1), []), CoreError.QuorumUnreachable),
        CoreError.QuorumUnreachable
      )
    }))

  it.effect("56. partial returns what finished, what failed and what is unfinished, each in the order of submission", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const task = recorded(log)
      const exit = yield* joined(Joiner.partial(10), [
        task("a", after(9)(Effect.succeed("a"))),
        task("b", Effect.never),
        task("c", after(1)(Effect.succeed("c"))),
        task("d", after(2)(Effect.fail("d"))),
        task("e", Effect.die("e")),
        task("f", after(11)(Effect.succeed("f")))
      ], 10)
      assert.deepStrictEqual(
        exit,
        Exit.succeed({
          succeeded: [{ index: 0, name: "task 0", value: "a" }, { index: 2, name: "task 2", value: "c" }],
          failed: [
            { index: 3, name: "task 3", cause: Cause.fail("d") },
            { index: 4, name: "task 4", cause: Cause.die("e") }
          ],
          unfinished: [{ index: 1, name: "task 1" }, { index: 5, name: "task 5" }]
        })
      )
      assert.deepStrictEqual(log, ["b gone", "f gone"])
      const early = yield* joined(Joiner.partial("1 hour"), [Effect.succeed("now")])
      assert.isTrue(Exit.isSuccess(early) && early.value.unfinished.length === 0)
    }))

  it.effect("partial counts tasks that wait for a slot among the unfinished", () =>
    Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(
        Group.run((group) => Effect.forEach(["a", "b", "c"], (name) => Group.fork(group, Effect.never, { name })), {
          joiner: Joiner.partial(5),
          concurrency: 1
        }),
        { startImmediately: true }
      )
      yield* TestClock.adjust(5)
      const { unfinished } = yield* Fiber.join(fiber)
      assert.deepStrictEqual(unfinished.map(({ name }) => name), ["a", "b"])
    }))

  it.effect("all returns the values in fork order; collect every exit, defects and stopped tasks included", () =>
    Effect.gen(function*() {
      const late = [after(2)(Effect.succeed("a")), after(1)(Effect.succeed("b"))]
      assert.deepStrictEqual(yield* joined(Joiner.all, late, 2), Exit.succeed(["a", "b"]))
      const exits = yield* Group.run((group) =>
        Effect.gen(function*() {
          yield* Group.fork(group, Effect.die("defect"))
          yield* Effect.flatMap(Group.fork(group, Effect.never), Routine.stop)
          yield* Group.fork(group, Effect.fail("failure"))
        }), { joiner: Joiner.collect })
      assert.deepStrictEqual(exits.map((exit) => exit._tag), ["Failure", "Failure", "Failure"])
      assert.deepStrictEqual([exits[0], exits[2]], [Exit.die("defect"), Exit.fail("failure")])
    }))

  it.effect("a defect fails the run where exits are not collected, and so does one of a loser's finalizer", () =>
    Effect.gen(function*() {
      for (const one of [Joiner.firstSuccess, Joiner.quorum(1), Joiner.firstExit]) {
        const joiner = one as Joiner.Joiner<Joiner.FirstSuccess>
        assert.deepStrictEqual(
          yield* joined(joiner, [Effect.never, after(1)(Effect.die("defect"))], 1),
          Exit.die("defect")
        )
        const dying = Effect.onInterrupt(Effect.never, () => Effect.die("finalizer"))
        const exit = yield* joined(joiner, [dying, after(1)(Effect.succeed("won"))], 1)
        assert.isTrue(Exit.isFailure(exit) && Cause.squash(exit.cause) === "finalizer")
      }
    }))

  it.effect("a failed body fails the run under every joiner", () =>
    Effect.gen(function*() {
      const joiners = [
        Joiner.failFast,
        Joiner.all,
        Joiner.collect,
        Joiner.firstSuccess,
        Joiner.firstExit,
        Joiner.quorum(1),
        Joiner.partial(1)
      ]
      for (const joiner of joiners) {
        let gone = 0
        const task = Effect.onInterrupt(Effect.never, () => Effect.sync(() => gone++))
        const exit = yield* Effect.exit(
          Group.run((group) => Effect.andThen(Group.fork(group, task), Effect.fail("body")), {
            joiner: joiner as Joiner.Joiner<Joiner.FailFast>
          })
        )
        assert.deepStrictEqual([exit, gone], [Exit.fail("body"), 1])
      }
    }))

  it.effect("what is not needed any more is told so, the body included", () =>
    Effect.gen(function*() {
      const reasons: Array<unknown> = []
      yield* Orchestrator.instrument((event) => {
        if (event._tag === "Exited" && event.exit.reason === "interrupted") reasons.push(event.exit.cancelledBy)
      })
      let body = "running"
      const value = yield* Group.run((group) =>
        Effect.gen(function*() {
          yield* Group.fork(group, Effect.never)
          yield* Group.fork(group, Effect.andThen(Effect.yieldNow, Effect.succeed("won")))
          return yield* Effect.onInterrupt(Effect.never, () => Effect.sync(() => void (body = "interrupted")))
        }), { joiner: Joiner.firstSuccess, name: "race" })
      assert.deepStrictEqual([value, body], ["won", "interrupted"])
      assert.deepStrictEqual(reasons, [{ reason: "not_needed", requester: "/orchestra/race" }])
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("a joiner may be shared by runs, at the same time and one after another", () =>
    Effect.gen(function*() {
      const joiner = Joiner.quorum(2)
      const run = (name: string) => joined(joiner, [Effect.succeed(`${name} 1`), Effect.succeed(`${name} 2`)])
      const exits = yield* Effect.all([run("a"), run("b"), run("c")], { concurrency: 2 })
      const expected = ["a", "b", "c"].map((name) => Exit.succeed([`${name} 1`, `${name} 2`]))
      assert.deepStrictEqual<ReadonlyArray<unknown>>(exits, expected)
    }))

  it.effect("the end of the body halts tasks under a joiner too: they are unfinished", () =>
    Effect.gen(function*() {
      const exits = yield* Group.run(
        (group) => Effect.andThen(Group.fork(group, Effect.succeed("done")), Group.fork(group, Effect.never)),
        {
          joiner: Joiner.collect,
          onBodyEnd: "halt"
        }
      )
      assert.deepStrictEqual(exits.map(Exit.isSuccess), [true, false])
    }))

  describe("make", () => {
    const told = (log: Array<unknown>, verdicts: { readonly timeout?: Joiner.Verdict } = {}) =>
      Joiner.make<string, string, ReadonlyArray<string>>(() => ({
        onFork: ({ index, name }) => void log.push(["fork", index, name]),
        onExit(task, exit, { bodyEnded, remaining }) {
          log.push(["exit", task.index, exit._tag, remaining, bodyEnded])
          return "continue"
        },
        onBodyEnd({ path, remaining }) {
          log.push(["body", path, remaining])
          return "continue"
        },
        onTimeout() {
          log.push("timeout")
          return verdicts.timeout ?? "continue"
        },
        result(body, tasks) {
          log.push(["result", Option.getOrUndefined(body)])
          return Effect.succeed(tasks.map(({ exit, name }) => `${name} ${Option.isSome(exit)}`))
        }
      }), { timeout: 5 })

    it.effect("is told of forks, ends, the body and the time, and makes the result", () =>
      Effect.gen(function*() {
        const log: Array<unknown> = []
        const run = (joiner: ReturnType<typeof told>) =>
          Effect.gen(function*() {
            const fiber = yield* Effect.forkChild(
              Group.run((group) =>
                Effect.gen(function*() {
                  yield* Group.fork(group, after(6)(Effect.succeed("a")), { name: "a" })
                  yield* Group.fork(group, Effect.fail("b"), { name: "b" })
                  yield* Effect.yieldNow
                  return "value"
                }), { joiner, name: "own" }),
              { startImmediately: true }
            )
            yield* TestClock.adjust(6)
            return yield* Fiber.join(fiber)
          })
        assert.deepStrictEqual(yield* run(told(log)), ["a true", "b true"])
        assert.deepStrictEqual(log.splice(0), [
          ["fork", 0, "a"],
          ["fork", 1, "b"],
          ["exit", 1, "Failure", 1, false],
          ["body", "/group/own", 1],
          "timeout",
          ["exit", 0, "Success", 0, true],
          ["result", "value"]
        ])
        assert.deepStrictEqual(yield* run(told(log, { timeout: "stop" })), ["a false", "b true"])
        assert.deepStrictEqual(log.slice(-2), ["timeout", ["result", "value"]])
      }))

    it.effect("that throws fails the run with its defect", () =>
      Effect.gen(function*() {
        const broken = Joiner.make<string, string, void>(() => ({
          onExit: () => {
            throw new Error("judge broken")
          },
          result: () => Effect.void
        }))
        const exit = yield* joined(broken, [Effect.never, Effect.succeed("a")])
        assert.isTrue(Exit.isFailure(exit) && String(Cause.squash(exit.cause)).includes("judge broken"))
      }))

    it.effect("keeps defects for itself where it says so", () =>
      Effect.gen(function*() {
        const exits: Array<unknown> = []
        const joiner = Joiner.make<string, string, string>(() => ({
          onExit(_, exit) {
            exits.push(exit)
            return "stop"
          },
          result: () => Effect.succeed("kept")
        }), { defects: "keep" })
        const exit = yield* joined(joiner, [Effect.never, Effect.die("defect")])
        assert.deepStrictEqual([exit, exits], [Exit.succeed("kept"), [Exit.die("defect")]])
      }))
  })

  it.effect("wrong constants are defects that name them", () =>
    Effect.sync(() => {
      for (const n of [0, -1, 1.5, NaN]) assert.throws(() => Joiner.quorum(n), new RegExp(`got: ${n}$`))
      for (const time of [-1, NaN]) {
        assert.throws(() => Joiner.partial(time), new RegExp(`got: ${time}$`))
        assert.throws(
          () => Joiner.make(() => ({ onExit: () => "stop", result: () => Effect.void }), { timeout: time }),
          new RegExp(`got: ${time}$`)
        )
      }
    }))

  it.effect(
    "whatever tasks, limit, joiner and deadline: result, end, peak and who was interrupted are those of the model",
    () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < seeds; seed++) {
          yield* Effect.gen(function*() {
            const plan = yield* plans
            const expected = Model.outcome(plan)
            const started: Array<number> = []
            const interrupted: Array<number> = []
            let running = 0
            let peak = 0
            const tasks = plan.tasks.map(({ end, millis }, index) =>
              Effect.gen(function*() {
                started.push(index)
                peak = Math.max(peak, ++running)
                yield* Effect.sleep(millis)
                return yield* ends[end](index)
              }).pipe(
                Effect.onInterrupt(() => Effect.sync(() => interrupted.push(index))),
                Effect.ensuring(Effect.sync(() => void running--))
              )
            )
            const run = Group.run(
              (group) => Effect.as(Effect.forEach(tasks, (task) => Group.fork(group, task), { discard: true }), "body"),
              {
                joiner: joiners[plan.joiner](plan) as Joiner.Joiner<Joiner.FailFast>,
                concurrency: plan.limit,
                deadline: plan.deadline,
                onBodyEnd: plan.halts ? "halt" : "wait"
              }
            )
            const start = yield* Clock.currentTimeMillis
            const fiber = yield* Effect.forkChild(
              Effect.zip(Effect.exit(run), Effect.map(Clock.currentTimeMillis, (now) => now - start)),
              { startImmediately: true }
            )
            yield* TestClock.adjust("1 day")
            const [exit, at] = yield* Fiber.join(fiber)
            const seen = {
              result: told(exit, plan.joiner),
              at,
              started,
              interrupted: interrupted.sort((a, b) => a - b),
              peak
            }
            assert.deepStrictEqual(seen, expected, `seed ${seed}: ${JSON.stringify(plan)}`)
            assert.strictEqual((yield* Orchestrator.snapshot).length, 1)
          }).pipe(Random.withSeed(`joiner ${seed}`))
        }
      }).pipe(Effect.provide(Orchestrator.layer)),
    120_000
  )
})
