import { Orchestrator, Routine } from "@effect-orchestra/core"
import { atEveryOperation } from "@effect-orchestra/core/testing"
import { Plan, WorkflowError } from "@effect-orchestra/workflow"
import { assert, describe, it } from "@effect/vitest"
import { Context, Data, Deferred, Effect, Exit, Fiber, Latch, Logger, Runtime, Schema } from "effect"
import { TestClock } from "effect/testing"

class Credentials extends Context.Service<Credentials, { readonly token: string }>()("test/Credentials") {}

class Refused extends Data.TaggedError("Refused")<{ readonly port: number }> {
  override get message() {
    return `port ${this.port} refused`
  }
}

/** A world of things, what was done to them, and steps that do it. */
const world = (...there: ReadonlyArray<string>) => {
  const things = new Set(there)
  const log: Array<string> = []
  const needOf = (name: string, destructive = false) =>
    things.has(name)
      ? Plan.Need.Satisfied({ why: "there" })
      : Plan.Need.Change({ what: `make ${name}`, destructive })
  const check = (name: string, destructive?: boolean) =>
    Effect.sync(() => {
      log.push(`check ${name}`)
      return needOf(name, destructive)
    })
  const apply = (name: string) =>
    Effect.sync(() => {
      log.push(`apply ${name}`)
      things.add(name)
    })
  const step = (name: string, after: ReadonlyArray<string> = [], destructive?: boolean) =>
    Plan.step(name, { after, check: check(name, destructive), apply: apply(name) })
  return { things, log, check, apply, step }
}

const statesOf = (report: Plan.Report) =>
  Object.fromEntries(report.steps.map((row) => [Plan.nameOf(row), Plan.formatState(row.state)]))

const codeOf = (error: object) => Runtime.getErrorExitCode(error)

describe("Plan", () => {
  it.effect("52. a plan of which everything is satisfied applies nothing, says that there is nothing to do, and is exit 0", () =>
    Effect.gen(function*() {
      const plan = Plan.make("calm", [
        Plan.step("cache", {
          check: Effect.succeed(Plan.Need.Satisfied({ why: "cache valid" })),
          apply: Effect.die("applied")
        }),
        Plan.each("restart", {
          after: ["cache"],
          items: Effect.succeed(["web", "api"]),
          key: (name) => name,
          check: () => Effect.succeed(Plan.Need.Satisfied({ why: "fresh" })),
          apply: () => Effect.die("applied")
        }),
        Plan.each("nobody", {
          items: Effect.succeed([]),
          key: String,
          check: () => Effect.die("checked"),
          apply: () => Effect.die("applied")
        })
      ])
      const report = yield* Plan.run(plan, { mode: "apply", confirm: () => Effect.die("asked") })
      assert.strictEqual(report.ending, "nothing")
      assert.strictEqual(Plan.exitCode(report), 0)
      assert.strictEqual(
        Plan.format(report),
        [
          "calm:",
          "  cache        ok: cache valid",
          "  restart/web  ok: fresh",
          "  restart/api  ok: fresh",
          "  nobody       ok: no items",
          "nothing to do (4 ok)"
        ].join("\n")
      )
    }))

  it.effect("53. a dry run makes all checks, evaluates no apply, lists what would be changed, is exit 0, and needs no write credentials", () =>
    Effect.gen(function*() {
      let evaluated = 0
      const { check, log } = world()
      const write = Effect.andThen(Credentials, ({ token }) => Effect.sync(() => evaluated += token.length))
      const plan = Plan.make("deploy", [
        Plan.step("cache", { check: check("cache", true), apply: write }),
        Plan.each("restart", {
          items: Effect.succeed(["web", "api"]),
          key: (name) => name,
          check: (name) => check(name),
          apply: () => {
            evaluated++
            return write
          }
        }),
        Plan.each("announce", {
          after: ["cache"],
          items: Effect.die("listed"),
          key: String,
          check: () => Effect.die("checked"),
          apply: () => write
        }),
        Plan.step("report", { after: ["announce"], check: check("report"), apply: write })
      ])
      // There are no credentials in this context: it would not compile with mode "apply".
      const report = yield* Plan.run(plan, { mode: "dry-run" })
      assert.deepStrictEqual(log, ["check cache", "check web", "check api", "check report"])
      assert.strictEqual(evaluated, 0)
      assert.strictEqual(Plan.exitCode(report), 0)
      assert.strictEqual(
        Plan.format(report),
        [
          "deploy:",
          "  cache        would make cache (destructive)",
          "  restart/web  would make web",
          "  restart/api  would make api",
          "  announce     (known after cache)",
          "  report       would make report",
          "changes are pending (5 to apply)"
        ].join("\n")
      )
    }))

  it.effect("54. a check is exit 1 when changes are pending, and exit 2 when it cannot find out", () =>
    Effect.gen(function*() {
      const { apply, log, step } = world("there")
      const check = (...steps: ReadonlyArray<Plan.Step<never, never>>) =>
        Plan.run(Plan.make("look", steps), { mode: "check" })
      const broken = Plan.step("broken", { check: Effect.fail(new Refused({ port: 80 })), apply: apply("broken") })

      assert.strictEqual(Plan.exitCode(yield* check(step("there"))), 0)
      const pending = yield* check(step("there"), step("missing"))
      assert.deepStrictEqual([pending.ending, Plan.exitCode(pending)], ["previewed", 1])
      const failed = yield* check(step("missing"), broken, step("there"))
      assert.strictEqual(Plan.exitCode(failed), 2)
      assert.deepStrictEqual(statesOf(failed), {
        missing: "would make missing",
        broken: "check failed: port 80 refused",
        there: "ok: there"
      })
      assert.isFalse(log.some((line) => line.startsWith("apply")))
    }))

  it.effect("55. after the second of three items fails the third is not run, or is with keep-going; both are exit 3, and what stands on the failed one is blocked", () =>
    Effect.gen(function*() {
      const trial = (keepGoing: boolean) => {
        const { apply, check, log, step } = world()
        const plan = Plan.make("orchestrate", [
          Plan.each("restart", {
            items: Effect.succeed(["a", "b", "c"]),
            key: (name) => name,
            check: (name) => check(name),
            apply: (name) => name === "b" ? Effect.fail(new Refused({ port: 7 })) : apply(name)
          }),
          step("announce", ["restart"]),
          step("celebrate", ["announce"]),
          step("other")
        ])
        return Effect.map(Plan.run(plan, { mode: "apply", keepGoing }), (report) => ({
          did: log.filter((line) => line.startsWith("apply")),
          ending: report.ending,
          exit: Plan.exitCode(report),
          states: statesOf(report)
        }))
      }
      const blocked = { announce: "blocked by restart", celebrate: "blocked by restart" }
      assert.deepStrictEqual(yield* trial(false), {
        did: ["apply a"],
        ending: "partial",
        exit: 3,
        states: {
          "restart/a": "applied: make a",
          "restart/b": "failed: port 7 refused",
          "restart/c": "not run: restart/b failed",
          ...blocked,
          other: "not run: restart/b failed"
        }
      })
      assert.deepStrictEqual(yield* trial(true), {
        did: ["apply a", "apply c", "apply other"],
        ending: "partial",
        exit: 3,
        states: {
          "restart/a": "applied: make a",
          "restart/b": "failed: port 7 refused",
          "restart/c": "applied: make c",
          ...blocked,
          other: "applied: make other"
        }
      })
    }))

  it.effect("58. with force nobody is asked; with force and dry run nothing is changed", () =>
    Effect.gen(function*() {
      const { log, step } = world()
      const plan = Plan.make("wipe", [step("disk", [], true)])
      const confirm = () => Effect.die("asked")
      const dry = yield* Plan.run(plan, { mode: "dry-run", force: true, confirm })
      assert.deepStrictEqual([dry.ending, Plan.exitCode(dry), log], ["previewed", 0, ["check disk"]])
      const report = yield* Plan.run(plan, { mode: "apply", force: true, confirm })
      assert.deepStrictEqual([report.ending, Plan.exitCode(report)], ["done", 0])
      assert.deepStrictEqual(log, ["check disk", "check disk", "apply disk"])
    }))

  it.effect("60. a second run right after a partial failure applies what is missing, and nothing else", () =>
    Effect.gen(function*() {
      const { apply, check, log, step } = world()
      let broken = true
      const plan = Plan.make("orchestrate", [
        step("cache"),
        Plan.each("restart", {
          after: ["cache"],
          items: Effect.succeed(["a", "b", "c"]),
          key: (name) => name,
          check: (name) => check(name),
          apply: (name) => name === "b" && broken ? Effect.fail("refused") : apply(name)
        }),
        step("announce", ["restart"])
      ])
      const applied = Effect.map(Plan.run(plan, { mode: "apply" }), (report) => {
        const did = log.filter((line) => line.startsWith("apply"))
        log.length = 0
        return [Plan.exitCode(report), ...did]
      })
      assert.deepStrictEqual(yield* applied, [3, "apply cache", "apply a"])
      broken = false
      assert.deepStrictEqual(yield* applied, [0, "apply b", "apply c", "apply announce"])
      assert.deepStrictEqual(yield* applied, [0])
    }))

  describe("what is checked again", () => {
    it.effect("is what stands on something that was applied, right before its turn, and nothing else", () =>
      Effect.gen(function*() {
        const { check, log, step, things } = world("calm", "moved")
        const plan = Plan.make("once", [
          step("calm"),
          step("change", ["calm"]),
          Plan.step("base", { check: check("base"), apply: Effect.sync(() => void things.delete("moved")) }),
          step("moved", ["base"]),
          step("unmoved", ["calm"]),
          step("settled", ["moved"])
        ])
        const report = yield* Plan.run(plan, { mode: "apply" })
        assert.deepStrictEqual(log, [
          ...["calm", "change", "base", "moved", "unmoved", "settled"].map((name) => `check ${name}`),
          "apply change",
          "check moved",
          "apply moved",
          "apply unmoved",
          "check settled",
          "apply settled"
        ])
        assert.strictEqual(Plan.exitCode(report), 0)
      }))

    it.effect("finds that nothing is needed any more", () =>
      Effect.gen(function*() {
        const { apply, check, log, step, things } = world()
        const plan = Plan.make("once", [
          Plan.step("both", {
            check: check("both"),
            apply: Effect.andThen(apply("both"), Effect.sync(() => things.add("late")))
          }),
          step("late", ["both"])
        ])
        const report = yield* Plan.run(plan, { mode: "apply" })
        assert.deepStrictEqual(statesOf(report), { both: "applied: make both", late: "ok: there" })
        assert.deepStrictEqual(log, ["check both", "check late", "apply both", "check late"])
      }))

    it.effect("reads the items of a list after what it stands on was applied", () =>
      Effect.gen(function*() {
        const { check, apply, log, step, things } = world()
        const plan = Plan.make("late", [
          step("index"),
          Plan.each("restart", {
            after: ["index"],
            items: Effect.sync(() => [...things].map((name) => `${name} user`)),
            key: (name) => name,
            check: (name) => check(name),
            apply
          })
        ])
        const asked: Array<Plan.Report> = []
        const report = yield* Plan.run(plan, {
          mode: "apply",
          confirm: (preview) => Effect.sync(() => asked.push(preview) > 0)
        })
        assert.deepStrictEqual(asked.map(statesOf), [{ index: "would make index", restart: "(known after index)" }])
        assert.deepStrictEqual(asked.map(({ ending }) => ending), ["previewed"])
        assert.deepStrictEqual(statesOf(report), {
          index: "applied: make index",
          "restart/index user": "applied: make index user"
        })
        assert.deepStrictEqual(log, ["check index", "apply index", "check index user", "apply index user"])
      }))

    it.effect("may fail before what it needs was applied, and says so in the preview", () =>
      Effect.gen(function*() {
        const { step, things } = world()
        const table = Effect.suspend(() =>
          things.has("database")
            ? Effect.succeed(Plan.Need.Change({ what: "create the table" }))
            : Effect.fail(new Error("no such database"))
        )
        const plan = Plan.make("store", [
          step("database"),
          Plan.step("table", { after: ["database"], check: table, apply: Effect.void })
        ])
        const preview = yield* Plan.run(plan, { mode: "check" })
        assert.strictEqual(statesOf(preview)["table"], "(known after database; now: no such database)")
        assert.strictEqual(Plan.exitCode(preview), 1)
        const report = yield* Plan.run(plan, { mode: "apply" })
        assert.strictEqual(statesOf(report)["table"], "applied: create the table")
      }))
  })

  describe("a plan that cannot be run", () => {
    it.effect("says everything that is wrong with it, and runs nothing", () =>
      Effect.gen(function*() {
        const { log, step } = world()
        const plan = Plan.make("wrong", [
          step("a", ["c"]),
          step("b", ["a"]),
          step("c", ["b"]),
          step("d"),
          step("d", ["nowhere"]),
          step("e", ["e"])
        ], { concurrency: 0 })
        const error = yield* Effect.flip(Plan.run(plan, { mode: "apply", force: true, only: ["x"], skip: ["a", "y"] }))
        const known = `there are "a", "b", "c", "d", "d", "e"`
        assert.deepStrictEqual(
          error,
          new WorkflowError.PlanError({
            plan: "wrong",
            problems: [
              `there are two steps "d"`,
              `step "d" is after "nowhere", which is no step: ${known}`,
              `cycle: "a" after "c" after "b" after "a"`,
              `cycle: "e" after "e"`,
              `only selects "x", which is no step: ${known}`,
              `skip leaves out "y", which is no step: ${known}`,
              `the concurrency of "wrong" is a positive integer, got: 0`
            ]
          })
        )
        assert.strictEqual(codeOf(error), 2)
        assert.include(error.message, `plan "wrong" cannot be run: there are two steps "d"; step "d"`)
        assert.deepStrictEqual(log, [])
      }))

    it.effect("is refused when it is destructive and nobody can be asked; a harmless one goes on", () =>
      Effect.gen(function*() {
        const { log, step } = world()
        const refused = yield* Effect.flip(
          Plan.run(Plan.make("wipe", [step("disk", [], true), step("log")]), { mode: "apply" })
        )
        assert.deepStrictEqual(
          refused,
          new WorkflowError.PlanRefused({
            plan: "wipe",
            reason: "destructive",
            details: ["disk: would make disk (destructive)"]
          })
        )
        assert.strictEqual(codeOf(refused), 2)
        assert.deepStrictEqual(log, ["check disk", "check log"])
        const disks = Array.from({ length: 7 }, (_, n) => step(`disk${n}`, [], true))
        const { details, message } = yield* Effect.flip(
          Effect.catchTag(Plan.run(Plan.make("wipe", disks), { mode: "apply" }), "PlanError", Effect.die)
        )
        assert.strictEqual(details.length, 7)
        assert.match(message, /disk4: would make disk4 \(destructive\); and 2 more$/)
        assert.strictEqual((yield* Plan.run(Plan.make("tidy", [step("log")]), { mode: "apply" })).ending, "done")
      }))

    it.effect("is not applied when the answer is no, and the report says what was declined", () =>
      Effect.gen(function*() {
        const { log, step } = world()
        const plan = Plan.make("wipe", [step("disk", [], true), step("log")])
        const report = yield* Plan.run(plan, { mode: "apply", confirm: () => Effect.succeed(false) })
        assert.deepStrictEqual([report.ending, Plan.exitCode(report)], ["aborted", 0])
        assert.deepStrictEqual(statesOf(report), { disk: "would make disk (destructive)", log: "would make log" })
        assert.deepStrictEqual(log, ["check disk", "check log"])
      }))

    it.effect("is not applied when who confirms refuses it, such as when the saved plan is stale", () =>
      Effect.gen(function*() {
        const { log, step, things } = world()
        const plan = Plan.make("saved", [step("disk"), step("log")])
        const saved = yield* Plan.run(plan, { mode: "dry-run" })
        const confirm = (fresh: Plan.Report) => {
          const details = Plan.difference(saved, fresh)
          return details.length === 0
            ? Effect.succeed(true)
            : Effect.fail(new WorkflowError.PlanRefused({ plan: "saved", reason: "stale", details }))
        }
        things.add("disk")
        const stale = yield* Effect.flip(Plan.run(plan, { mode: "apply", confirm }))
        assert.strictEqual(
          stale.message,
          "plan \"saved\" refused, the world has changed since it was saved: disk: would make disk -> ok: there"
        )
        assert.isFalse(log.includes("apply log"))
        things.delete("disk")
        assert.strictEqual((yield* Plan.run(plan, { mode: "apply", confirm })).ending, "done")
      }))

    it.effect("does not apply unasked a destructive change that only became known on the way", () =>
      Effect.gen(function*() {
        const trial = (options: { readonly force?: boolean; readonly confirm?: () => Effect.Effect<boolean> }) =>
          Effect.gen(function*() {
            const { apply, check, log, step } = world()
            const plan = Plan.make("late", [
              step("index"),
              Plan.each("wipe", {
                after: ["index"],
                items: Effect.succeed(["disk"]),
                key: (name) => name,
                check: (name) => check(name, true),
                apply
              })
            ])
            const report = yield* Plan.run(plan, { mode: "apply", ...options })
            return [Plan.exitCode(report), statesOf(report)["wipe/disk"], log.includes("apply disk")]
          })
        assert.deepStrictEqual(yield* trial({}), [
          3,
          "failed: would make disk, which is destructive and was not in the preview; it needs force (--force)",
          false
        ])
        assert.deepStrictEqual(yield* trial({ force: true }), [0, "applied: make disk", true])
        assert.deepStrictEqual(yield* trial({ confirm: () => Effect.succeed(true) }), [0, "applied: make disk", true])
      }))
  })

  describe("a failure", () => {
    it.effect("of a check stops the run before anything is applied; with keep-going the rest is applied", () =>
      Effect.gen(function*() {
        const { apply, log, step } = world()
        const plan = Plan.make("broken", [
          step("first"),
          Plan.step("broken", { check: Effect.fail("unreadable"), apply: apply("broken") }),
          step("stands", ["broken"])
        ])
        const report = yield* Plan.run(plan, { mode: "apply", confirm: () => Effect.die("asked") })
        assert.deepStrictEqual([report.ending, Plan.exitCode(report)], ["failed", 1])
        assert.deepStrictEqual(statesOf(report), {
          first: "not run: broken failed",
          broken: "check failed: unreadable",
          stands: "blocked by broken"
        })
        assert.deepStrictEqual(log, ["check first"])
        const going = yield* Plan.run(plan, { mode: "apply", keepGoing: true })
        assert.deepStrictEqual([Plan.exitCode(going), statesOf(going)["first"]], [3, "applied: make first"])
      }))

    it.effect("names its error or defect, and whatever throws is one", () =>
      Effect.gen(function*() {
        const need = Effect.succeed(Plan.Need.Change({ what: "try" }))
        const items = Effect.succeed(["x"])
        const thrown = () => {
          throw new TypeError("thrown")
        }
        const throwing: () => Effect.Effect<Plan.Need> = thrown
        const plan = Plan.make("all kinds", [
          Plan.step("fails", { check: need, apply: Effect.fail(new Refused({ port: 80 })) }),
          Plan.step("dies", { check: need, apply: Effect.die(new RangeError("too far")) }),
          Plan.step("gives up", { check: need, apply: Effect.interrupt }),
          Plan.step("word", { check: Effect.fail("a word"), apply: Effect.void }),
          Plan.each("list", {
            items: Effect.fail(new Refused({ port: 1 })),
            key: String,
            check: () => need,
            apply: () => need
          }),
          Plan.each("key", { items, key: thrown, check: () => need, apply: () => need }),
          Plan.each("check", { items, key: String, check: throwing, apply: () => need }),
          Plan.each("apply", { items, key: String, check: () => need, apply: throwing }),
          Plan.each("none", { items: Effect.succeed(5 as never), key: String, check: () => need, apply: () => need }),
          ...[undefined, true, { _tag: "Chnge" }, { _tag: "Change" }].map((said, index) =>
            Plan.step(`says ${index}`, { check: Effect.succeed(said as never), apply: Effect.die("applied") })
          ),
          Plan.each("twice", {
            items: Effect.succeed(["x", "y", "x"]),
            key: String,
            check: () => need,
            apply: () => need
          })
        ])
        const report = yield* Plan.run(plan, { mode: "apply", keepGoing: true })
        assert.strictEqual(report.ending, "failed")
        assert.deepStrictEqual(
          report.steps.map(({ state, ...row }) =>
            state._tag === "Failed"
              ? [Plan.nameOf(row), state.phase, state.errorType, state.error]
              : [Plan.nameOf(row), state._tag]
          ),
          [
            ["fails", "apply", "Refused", "port 80 refused"],
            ["dies", "apply", "RangeError", "too far"],
            ["gives up", "apply", "Interrupted", "interrupted"],
            ["word", "check", "string", "a word"],
            ["list", "check", "Refused", "port 1 refused"],
            ["key", "check", "TypeError", "thrown"],
            ["check/x", "check", "TypeError", "thrown"],
            ["apply/x", "apply", "TypeError", "thrown"],
            ["none", "check", "TypeError", "items is not iterable"],
            ["says 0", "check", "NoNeed", `a check says Satisfied and why, or Change and what, got: undefined`],
            ["says 1", "check", "NoNeed", `a check says Satisfied and why, or Change and what, got: true`],
            ["says 2", "check", "NoNeed", `a check says Satisfied and why, or Change and what, got: {"_tag":"Chnge"}`],
            ["says 3", "check", "NoNeed", `a check says Satisfied and why, or Change and what, got: {"_tag":"Change"}`],
            ["twice", "check", "DuplicateKey", "two items have the key \"x\""]
          ]
        )
      }))

    it.effect("is an interruption by a stranger, with the reason", () =>
      Effect.gen(function*() {
        const { check } = world()
        const self = yield* Deferred.make<Routine.Routine<unknown, unknown>>()
        const apply = Routine.current.pipe(
          Effect.flatMap((current) => Deferred.completeWith(self, Effect.fromOption(current).pipe(Effect.orDie))),
          Effect.andThen(Effect.never)
        )
        const plan = Plan.make("stopped", [Plan.step("long", { check: check("long"), apply })])
        const running = yield* Effect.forkChild(Plan.run(plan, { mode: "apply" }))
        yield* Routine.stop(yield* Deferred.await(self), 0, "not on a Friday")
        const report = yield* Fiber.join(running)
        assert.deepStrictEqual([report.ending, statesOf(report)], ["failed", {
          long: "failed: interrupted: not on a Friday"
        }])
      }))

    it.effect("is one line, whatever it says and whatever it is of", () =>
      Effect.gen(function*() {
        const plan = Plan.make("loud", [
          Plan.each("say", {
            items: Effect.succeed(["a\nb"]),
            key: String,
            check: () => Effect.succeed(Plan.Need.Change({ what: "shout" })),
            apply: () => Effect.fail(new Error("\u001B[31mred\u001B[0m\r\n\tand more\n"))
          })
        ])
        const report = yield* Plan.run(plan, { mode: "apply" })
        const lines = ["loud:", "  say/a b  failed: red and more", "failed, nothing was applied (1 failed)"]
        assert.deepStrictEqual(Plan.format(report).split("\n"), lines)
      }))

    it.effect("is a check that takes too long", () =>
      Effect.gen(function*() {
        const plan = Plan.make("slow", [Plan.step("hangs", { check: Effect.never, apply: Effect.void })])
        const running = yield* Effect.forkChild(Plan.run(plan, { mode: "check", checkTimeout: "3 seconds" }))
        yield* TestClock.adjust("2999 millis")
        assert.isUndefined(running.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        const report = yield* Fiber.join(running)
        assert.deepStrictEqual(report.steps.map(({ durationMillis, state }) => [durationMillis, state]), [
          [3000, { _tag: "Failed", phase: "check", error: "Operation timed out after '3s'", errorType: "TimeoutError" }]
        ])
        const wrong = yield* Effect.exit(Plan.run(plan, { mode: "check", checkTimeout: -1 }))
        assert.match(String(wrong), /the checkTimeout of a plan is a duration of 0 or more, got: -1/)
      }))

    it.effect("never cuts what is being applied beside it", () =>
      Effect.gen(function*() {
        const { apply, check, log } = world()
        const plan = Plan.make("beside", [
          Plan.each("restart", {
            items: Effect.succeed(["a", "b", "c"]),
            key: (name) => name,
            check: (name) => check(name),
            apply: (name) =>
              Effect.delay(name === "a" ? Effect.fail("refused") : apply(name), name === "a" ? 500 : 1000),
            concurrency: 2
          })
        ])
        const running = yield* Effect.forkChild(Plan.run(plan, { mode: "apply" }))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(statesOf(yield* Fiber.join(running)), {
          "restart/a": "failed: refused",
          "restart/b": "applied: make b",
          "restart/c": "not run: restart/a failed"
        })
        assert.isTrue(log.includes("apply b"))
      }))
  })

  describe("a selection", () => {
    it.effect("runs only some, or leaves some out; what stands on those runs as if they were there", () =>
      Effect.gen(function*() {
        const { log, step } = world()
        const plan = Plan.make("parts", [step("a"), step("b", ["a"]), step("c", ["b"])])
        const report = yield* Plan.run(plan, { mode: "apply", skip: ["b"] })
        assert.deepStrictEqual(statesOf(report), {
          a: "applied: make a",
          b: "not run: not selected",
          c: "applied: make c"
        })
        assert.strictEqual(report.ending, "done")
        log.length = 0
        const only = yield* Plan.run(plan, { mode: "apply", only: ["b", "c"], skip: ["c"] })
        assert.deepStrictEqual([log, only.ending], [["check b", "apply b"], "done"])
        assert.strictEqual((yield* Plan.run(plan, { mode: "apply", only: [] })).ending, "nothing")
      }))
  })

  describe("concurrency", () => {
    it.effect("is one after the other in the declared order by default, each after what it stands on", () =>
      Effect.gen(function*() {
        const { log, step } = world()
        yield* Plan.run(Plan.make("order", [step("z", ["y"]), step("c"), step("y"), step("a", ["z"])]), {
          mode: "apply"
        })
        assert.deepStrictEqual(log.filter((line) => line.startsWith("apply")), [
          "apply c",
          "apply y",
          "apply z",
          "apply a"
        ])
      }))

    it.effect("bounds the steps and the items of a step that run at once, and lets nothing wait without need", () =>
      Effect.gen(function*() {
        const { apply, check } = world()
        const slow = (name: string) => Effect.delay(apply(name), "1 second")
        const plan = Plan.make("at once", [
          Plan.step("slow", { check: check("slow"), apply: slow("slow") }),
          Plan.step("stands", { after: ["slow"], check: check("stands"), apply: slow("stands") }),
          Plan.each("restart", {
            items: Effect.succeed(["a", "b", "c", "d", "e"]),
            key: (name) => name,
            check,
            apply: slow,
            concurrency: 3
          })
        ], { concurrency: 2 })
        const ends: Array<string> = []
        const running = yield* Effect.forkChild(Plan.run(plan, {
          mode: "apply",
          onProgress: (progress) => {
            if (progress._tag === "Ended" && progress.phase === "apply") ends.push(Plan.nameOf(progress))
          }
        }))
        yield* TestClock.adjust("1 second")
        assert.sameMembers(ends.splice(0), ["slow", "restart/a", "restart/b", "restart/c"])
        yield* TestClock.adjust("1 second")
        assert.sameMembers(ends, ["stands", "restart/d", "restart/e"])
        assert.strictEqual((yield* Fiber.join(running)).ending, "done")
      }))
  })

  describe("progress", () => {
    it.effect("tells what begins and ends, and how many of how many have ended in each phase", () =>
      Effect.gen(function*() {
        const { apply, check, step } = world("calm")
        const plan = Plan.make("told", [
          step("calm"),
          step("index"),
          Plan.each("restart", {
            after: ["index"],
            items: Effect.succeed(["a", "b"]),
            key: (name) => name,
            check,
            apply
          })
        ])
        const told: Array<string> = []
        yield* Plan.run(plan, {
          mode: "apply",
          onProgress: (progress) => {
            const state = progress._tag === "Ended" ? ` ${progress.state._tag}` : ""
            told.push(`${progress.done}/${progress.total} ${progress._tag} ${Plan.nameOf(progress)}${state}`)
          }
        })
        assert.deepStrictEqual(told, [
          "0/3 Checking calm",
          "1/3 Ended calm Satisfied",
          "1/3 Checking index",
          "2/3 Ended index WouldApply",
          "3/3 Ended restart WouldApply",
          "0/2 Applying index",
          "1/2 Ended index Applied",
          "1/3 Checking restart/a",
          "1/3 Checking restart/b",
          "1/3 Applying restart/a",
          "2/3 Ended restart/a Applied",
          "2/3 Applying restart/b",
          "3/3 Ended restart/b Applied"
        ])
      }))

    it.effect("that throws is logged, told no more, and stops nothing", () =>
      Effect.gen(function*() {
        const { step } = world()
        const lines: Array<unknown> = []
        let told = 0
        const report = yield* Plan.run(Plan.make("told", [step("a"), step("b")]), {
          mode: "apply",
          onProgress: () => {
            told++
            throw new Error("no screen")
          }
        }).pipe(Effect.provide(Logger.layer([Logger.make(({ message }) => lines.push(message))])))
        assert.deepStrictEqual([report.ending, told, lines.length], ["done", 1, 1])
        assert.include(String(lines[0]), "the progress of plan told is told no more")
      }))
  })

  describe("in the tree", () => {
    it.effect("is a group of its name, with what runs in it by step and key", () =>
      Effect.gen(function*() {
        const { check, step } = world("cache")
        const seen = yield* Deferred.make<ReadonlyArray<string>>()
        const look = Effect.flatMap(Orchestrator.list, (nodes) => Deferred.succeed(seen, nodes.map(({ path }) => path)))
        const plan = Plan.make("orchestrate", [
          step("cache"),
          Plan.each("restart", { items: Effect.succeed(["web"]), key: String, check, apply: () => look })
        ])
        const routine = yield* Orchestrator.fork(Plan.run(plan, { mode: "apply" }), { name: "main" })
        yield* Routine.join(routine)
        assert.deepStrictEqual(yield* Deferred.await(seen), [
          "/orchestra/main",
          "/orchestra/main/plan orchestrate/restart%2Fweb"
        ])
        assert.deepStrictEqual(yield* Orchestrator.list, [])
      }).pipe(Effect.provide(Orchestrator.layer)))
  })

  describe("a cut", () => {
    /** Two slow steps and a third: what the report says when the run is cut while the first is applied. */
    const cutDuring = (slow: Effect.Effect<unknown>, options: Partial<Plan.RunOptions<"apply">> = {}) =>
      Effect.gen(function*() {
        const { apply, check, log, step } = world()
        const begun = yield* Latch.make()
        const cut = yield* Deferred.make<string>()
        const plan = Plan.make("cut", [
          Plan.step("slow", {
            check: check("slow"),
            apply: Effect.andThen(begun.open, slow).pipe(Effect.andThen(apply("slow")))
          }),
          step("next"),
          step("stands", ["slow"])
        ])
        const running = yield* Effect.forkChild(
          Plan.run(plan, { mode: "apply", cut: Deferred.await(cut), ...options }),
          { startImmediately: true }
        )
        yield* begun.await
        yield* Deferred.succeed(cut, "SIGINT")
        return { running, log }
      })

    it.effect("lets what is being applied finish within its grace, and starts nothing more", () =>
      Effect.gen(function*() {
        const { log, running } = yield* cutDuring(Effect.sleep("3 seconds"))
        yield* TestClock.adjust("3 seconds")
        const report = yield* Fiber.join(running)
        assert.deepStrictEqual([report.ending, Plan.exitCode(report)], ["cut", 3])
        assert.deepStrictEqual(statesOf(report), {
          slow: "applied: make slow",
          next: "not run: stopped by SIGINT",
          stands: "not run: stopped by SIGINT"
        })
        assert.deepStrictEqual(log.filter((line) => line.startsWith("apply")), ["apply slow"])
      }))

    it.effect("interrupts what takes longer, and waits for what it gives back", () =>
      Effect.gen(function*() {
        let back = false
        const slow = Effect.onInterrupt(Effect.never, () =>
          Effect.delay(Effect.sync(() => void (back = true)), "400 millis"))
        const { running } = yield* cutDuring(slow)
        yield* TestClock.adjust("3999 millis")
        assert.isUndefined(running.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        yield* TestClock.adjust("400 millis")
        const report = yield* Fiber.join(running)
        assert.isTrue(back)
        assert.deepStrictEqual([report.ending, Plan.exitCode(report)], ["cut", 1])
        assert.deepStrictEqual(statesOf(report), {
          slow: "failed: interrupted, stopped by SIGINT",
          next: "not run: stopped by SIGINT",
          stands: "blocked by slow"
        })
      }))

    it.effect("abandons what ignores its interruption, and names it", () =>
      Effect.gen(function*() {
        const { running } = yield* cutDuring(Effect.uninterruptible(Effect.sleep("1 hour")), { cutGrace: "8 seconds" })
        yield* TestClock.adjust("8 seconds")
        yield* TestClock.adjust("999 millis")
        assert.isUndefined(running.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        const [slow] = (yield* Fiber.join(running)).steps
        assert.deepStrictEqual(slow?.state, {
          _tag: "Failed",
          phase: "apply",
          error: "did not end when it was interrupted, and was abandoned",
          errorType: "Abandoned"
        })
      }))

    it.effect("that comes just before a check or an apply begins keeps it from beginning", () =>
      Effect.forEach(["Checking", "Applying"] as const, (moment) =>
        Effect.gen(function*() {
          const { log, step } = world()
          let cutNow = () => {}
          const cut = Effect.callback<string>((resume) => {
            cutNow = () => resume(Effect.succeed("SIGINT"))
          })
          const report = yield* Plan.run(Plan.make("early", [step("a")]), {
            mode: "apply",
            cut,
            onProgress: ({ _tag }) => _tag === moment ? cutNow() : undefined
          })
          assert.deepStrictEqual([report.ending, statesOf(report)], ["cut", { a: "not run: stopped by SIGINT" }])
          assert.deepStrictEqual(log, moment === "Checking" ? [] : ["check a"])
        })))

    it.effect("says what interrupted something, even if a failure had stopped the rest before", () =>
      Effect.gen(function*() {
        const { check } = world()
        const cut = yield* Deferred.make<string>()
        const plan = Plan.make("both", [
          Plan.step("fails", { check: check("fails"), apply: Effect.delay(Effect.fail("refused"), "1 second") }),
          Plan.step("runs", { check: check("runs"), apply: Effect.never }),
          Plan.step("waits", { check: check("waits"), apply: Effect.never })
        ], { concurrency: 2 })
        const running = yield* Effect.forkChild(Plan.run(plan, { mode: "apply", cut: Deferred.await(cut) }))
        yield* TestClock.adjust("1 second")
        yield* Deferred.succeed(cut, "SIGHUP")
        yield* TestClock.adjust("4 seconds")
        assert.deepStrictEqual(statesOf(yield* Fiber.join(running)), {
          fails: "failed: refused",
          runs: "failed: interrupted, stopped by SIGHUP",
          waits: "not run: fails failed"
        })
      }))

    it.effect("interrupts a check at once", () =>
      Effect.gen(function*() {
        const { step } = world()
        const cut = yield* Deferred.make<string>()
        const plan = Plan.make("look", [
          step("first"),
          Plan.step("hangs", {
            check: Effect.andThen(Deferred.succeed(cut, "SIGTERM"), Effect.never),
            apply: Effect.void
          }),
          step("last")
        ])
        const report = yield* Plan.run(plan, {
          mode: "apply",
          cut: Deferred.await(cut),
          confirm: () => Effect.die("asked")
        })
        assert.strictEqual(report.ending, "cut")
        const why = "not run: stopped by SIGTERM"
        assert.deepStrictEqual(statesOf(report), { first: why, hangs: why, last: why })
      }))

    it.effect("interrupts the question", () =>
      Effect.gen(function*() {
        const { log, step } = world()
        const cut = yield* Deferred.make<void>()
        const confirm = () => Effect.andThen(Deferred.succeed(cut, undefined), Effect.never)
        const report = yield* Plan.run(Plan.make("asked", [step("a")]), {
          mode: "apply",
          cut: Deferred.await(cut),
          confirm
        })
        assert.deepStrictEqual([report.ending, statesOf(report)], ["cut", { a: "not run: stopped" }])
        assert.deepStrictEqual(log, ["check a"])
      }))

    it.effect("that comes before anything runs lets nothing begin", () =>
      Effect.gen(function*() {
        const { log, step } = world()
        const report = yield* Plan.run(Plan.make("early", [step("a")]), {
          mode: "dry-run",
          cut: Effect.succeed("SIGINT")
        })
        assert.deepStrictEqual([report.ending, statesOf(report), log], ["cut", { a: "not run: stopped by SIGINT" }, []])
      }))
  })

  it.effect("interrupted at any operation, leaves nothing running behind", () =>
    Effect.gen(function*() {
      let running = 0
      let begun = 0
      let ended = 0
      const work = Effect.acquireUseRelease(
        Effect.sync(() => {
          running++
          begun++
        }),
        () => Effect.andThen(Effect.yieldNow, Effect.sync(() => void ended++)),
        () => Effect.andThen(Effect.yieldNow, Effect.sync(() => void running--))
      )
      const need = Plan.Need.Change({ what: "work" })
      const plan = Plan.make("often", [
        Plan.step("a", { check: Effect.as(work, need), apply: work }),
        Plan.each("b", {
          after: ["a"],
          items: Effect.succeed(["x", "y"]),
          key: String,
          check: () => Effect.as(work, need),
          apply: () => work,
          concurrency: 2
        }),
        Plan.step("c", { check: Effect.as(work, need), apply: work })
      ], { concurrency: 2 })
      let through = 0
      const operations = yield* atEveryOperation(
        Plan.run(plan, { mode: "apply", cut: Effect.never }),
        (exit) =>
          Effect.gen(function*() {
            const before = begun
            assert.strictEqual(running, 0)
            yield* Effect.yieldNow
            assert.strictEqual(begun, before)
            if (Exit.isSuccess(exit)) through++
          }),
        { fibers: "all" }
      )
      assert.isAbove(operations, 200)
      assert.strictEqual(through, 1)
      assert.isAbove(ended, 0)
    }), 30_000)

  describe("a report", () => {
    const reportOf = (
      mode: Plan.Mode,
      ending: Plan.Ending,
      ...states: ReadonlyArray<Plan.StepState>
    ): Plan.Report => ({
      plan: "p",
      mode,
      ending,
      steps: states.map((state, index) => ({ step: `s${index}`, key: null, state, durationMillis: 0 }))
    })
    const applied: Plan.StepState = { _tag: "Applied", what: "x" }
    const failed: Plan.StepState = { _tag: "Failed", phase: "apply", error: "e", errorType: "E" }
    const pending: Plan.StepState = { _tag: "WouldApply", what: "x", destructive: false }
    const notRun: Plan.StepState = { _tag: "NotRun", why: "stopped" }

    it("has an exit code for each mode and ending", () => {
      const table: ReadonlyArray<readonly [Plan.Mode, Plan.Ending, ReadonlyArray<Plan.StepState>, number]> = [
        ["apply", "nothing", [], 0],
        ["apply", "done", [applied], 0],
        ["apply", "aborted", [pending], 0],
        ["apply", "previewed", [pending], 0],
        ["apply", "failed", [failed], 1],
        ["apply", "partial", [applied, failed], 3],
        ["apply", "cut", [applied, notRun], 3],
        ["apply", "cut", [notRun], 1],
        ["dry-run", "nothing", [], 0],
        ["dry-run", "previewed", [pending], 0],
        ["dry-run", "failed", [pending, failed], 1],
        ["dry-run", "cut", [notRun], 1],
        ["check", "nothing", [], 0],
        ["check", "previewed", [pending], 1],
        ["check", "failed", [pending, failed], 2],
        ["check", "cut", [notRun], 2]
      ]
      for (const [mode, ending, states, code] of table) {
        assert.strictEqual(Plan.exitCode(reportOf(mode, ending, ...states)), code, `${mode} ${ending}`)
      }
    })

    it("is read back from the JSON that it was written to", () => {
      const report = reportOf("apply", "partial", applied, failed, pending, notRun, { _tag: "Blocked", by: "s1" })
      const codec = Schema.fromJsonString(Plan.Report)
      assert.deepStrictEqual(Schema.decodeUnknownSync(codec)(Schema.encodeSync(codec)(report)), report)
    })

    it("differs from another in its states, not in its times", () => {
      const before = reportOf("dry-run", "previewed", pending, applied)
      const slower = { ...before, steps: before.steps.map((row) => ({ ...row, durationMillis: 9 })) }
      assert.deepStrictEqual(Plan.difference(before, slower), [])
      assert.deepStrictEqual(
        Plan.difference(before, reportOf("apply", "previewed", pending, notRun, pending)),
        ["s1: applied: x -> not run: stopped", "s2: not there -> would x"]
      )
      assert.deepStrictEqual(Plan.difference(before, { ...before, plan: "q" }), ["plan: p -> q"])
    })
  })
})
