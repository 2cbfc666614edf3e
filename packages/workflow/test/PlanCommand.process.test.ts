import { Plan } from "@effect-orchestra/workflow"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schema, type Scope } from "effect"
import { type Ended, type Running, until, type World, world } from "./PlanProcess.ts"

// These tests run real processes, send them real signals and type on a pseudo terminal (`script` of util-linux): they
// need the real clock. Their time is mostly starting: two processors do it together.

const test = (body: (world: World) => Effect.Effect<void, never, Scope.Scope>) => () =>
  Effect.scoped(Effect.flatMap(world, body))

const hidden = "\u001B[?25l"
const shown = "\u001B[?25h"
const erased = "\u001B[2K"
const decode = Schema.decodeUnknownSync(
  Schema.fromJsonString(Schema.Struct({ exitCode: Schema.Int, ...Plan.Report.fields }))
)

/** The states in the text of a report, by name. */
const statesOf = (text: string) =>
  Object.fromEntries(text.trimEnd().split("\n").slice(1, -1).map((line) => line.trim().split(/ {2,}/)))

const refused = ({ code, stderr, stdout }: Ended, reason: string) => {
  assert.deepStrictEqual([code, stdout], [2, ""])
  assert.include(stderr, reason)
  // No stack.
  assert.notMatch(stderr, /^\s+at /m)
}

const endOf = <E, R>(start: Effect.Effect<Running, E, R>) => Effect.flatMap(start, ({ ended }) => ended)

/** Runs it on a terminal, and types the answer to its question. */
const answered = Effect.fnUntraced(function*(world: World, answer: string, env: Record<string, string> = {}) {
  const running = yield* world.onTerminal("", env)
  yield* until(() => running.output().includes("[y/N] "))
  yield* running.type(answer)
  return yield* running.ended
})

describe.concurrent("Plan.command as a process", { timeout: 120_000 }, () => {
  it.live(
    "56. exits with 1 when the first step fails, with 2 after bad usage, and nothing ran",
    test((world) =>
      Effect.gen(function*() {
        refused(yield* world.run(["--bogus"]), "Unrecognized flag: --bogus")
        refused(yield* world.run(["--log-level", "loud"]), "loud")
        refused(yield* world.run(["--only", "cache,nope"]), `only selects "nope"`)
        refused(yield* world.run(["--only", ""]), `only selects ""`)
        refused(
          yield* world.run([], { CYCLE: "1" }),
          "plan \"deploy\" cannot be run: cycle: \"restart\" after \"report\" after \"restart\""
        )
        assert.deepStrictEqual(world.log(), [])
        world.set("cache.fails")
        const { code, stdout } = yield* world.run([])
        assert.strictEqual(code, 1)
        assert.deepInclude(statesOf(stdout), { cache: "failed: cache does not want to" })
        assert.deepStrictEqual(world.log(), ["began cache"])
      })
    )
  )

  it.live(
    "57. a destructive plan is refused where nobody can be asked, and not run without a yes",
    test((world) =>
      Effect.gen(function*() {
        const destructive = { DESTRUCTIVE: "1" }
        // Standard input is open, and silent.
        refused(
          yield* world.run([], destructive),
          "it is destructive and nobody can be asked; it needs force (--force)"
        )
        const { code } = yield* Effect.scoped(endOf(world.onTerminal(">out 2>err", destructive)))
        refused({ code, stdout: world.read("out"), stderr: world.read("err") }, "nobody can be asked")
        for (const answer of ["n\n", "\n", "\u0004"]) {
          const { code, stdout } = yield* Effect.scoped(answered(world, answer, destructive))
          assert.strictEqual(code, 0)
          assert.include(stdout, "Apply 3 changes or more, 1 destructive? [y/N] ")
          assert.include(stdout, "aborted, nothing was applied")
          assert.deepStrictEqual(world.log(), [])
        }
        const yes = yield* Effect.scoped(answered(world, "y\n", destructive))
        assert.strictEqual(yes.code, 0)
        assert.include(yes.stdout, "done (5 applied)")
      })
    )
  )

  for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143]] as const) {
    it.live(
      `${signal} during an apply lets it roll back when it does not finish in time`,
      test((world) =>
        Effect.gen(function*() {
          world.set("a.waits")
          const running = yield* world.start([], { CUT_GRACE: "1" })
          yield* until(() => world.log().includes("began a"))
          yield* running.kill(signal)
          const ended = yield* running.ended
          assert.strictEqual(ended.code, code)
          assert.deepStrictEqual(world.log(), ["began cache", "ended cache", "began a", "rolled back a"])
          assert.deepInclude(statesOf(ended.stdout), { "restart/c": `not run: stopped by ${signal}` })
        })
      )
    )
  }

  it.live(
    "59. Ctrl-C during an apply: what is in flight finishes, the report is written, exit 130; SIGTERM: 143",
    test((world) =>
      Effect.gen(function*() {
        world.set("a.waits", "b.waits")
        const interrupted = yield* world.onTerminal("--force >out 2>err")
        yield* until(() => world.log().includes("began a"))
        yield* interrupted.type("\u0003")
        yield* until(() => world.read("err").includes("SIGINT: starts nothing more"))
        world.set("a.go")
        assert.strictEqual((yield* interrupted.ended).code, 130)
        assert.deepStrictEqual(statesOf(world.read("out")), {
          cache: "applied: rebuild cache",
          "restart/a": "applied: restart a",
          "restart/b": "not run: stopped by SIGINT",
          "restart/c": "not run: stopped by SIGINT",
          report: "not run: stopped by SIGINT"
        })

        const terminated = yield* world.start(["--json"])
        yield* until(() => world.log().includes("began b"))
        yield* terminated.kill("SIGTERM")
        yield* until(() => terminated.output().includes("SIGTERM: starts nothing more"))
        world.set("b.go")
        const { code, stdout } = yield* terminated.ended
        const report = decode(stdout)
        assert.deepStrictEqual([code, report.exitCode, report.ending], [143, 143, "cut"])
        assert.deepStrictEqual(report.steps.map(({ state }) => state._tag), [
          "Satisfied",
          "Satisfied",
          "Applied",
          "NotRun",
          "NotRun"
        ])
      })
    )
  )

  it.live(
    "a second signal ends it at once, and the cursor is back",
    test((world) =>
      Effect.gen(function*() {
        world.set("a.waits")
        const running = yield* world.onTerminal("--force")
        yield* until(() => running.output().includes("applying 1/"))
        yield* running.type("\u0003")
        yield* until(() => running.output().includes("SIGINT: starts nothing more"))
        // The same signal within 200 ms counts as one.
        yield* Effect.sleep("400 millis")
        yield* running.type("\u0003")
        const { code, stdout } = yield* running.ended
        assert.strictEqual(code, 130)
        assert.isBelow(stdout.lastIndexOf(hidden), stdout.lastIndexOf(shown))
        assert.notInclude(stdout, "stopped on the way")
      })
    )
  )

  it.live(
    "61. --json writes one document with the states of the text, and no escape code without a terminal",
    test((world) =>
      Effect.gen(function*() {
        world.set("b.fails")
        const text = yield* world.run(["--dry-run"])
        const json = yield* world.run(["--dry-run", "--json"])
        const rows = (stdout: string) =>
          Object.fromEntries(decode(stdout).steps.map((row) => [Plan.nameOf(row), Plan.formatState(row.state)]))
        assert.deepStrictEqual(rows(json.stdout), statesOf(text.stdout))

        const applied = yield* world.run(["--json"])
        assert.deepStrictEqual([applied.code, decode(applied.stdout).exitCode], [3, 3])
        // What the steps say, and how it goes.
        assert.include(applied.stderr, "a says hello")
        assert.include(applied.stderr, "a logs")
        assert.include(applied.stderr, "restart/a  applied: restart a")
        assert.notInclude([text, json, applied].map(({ stderr, stdout }) => stdout + stderr).join(), "\u001B")

        const bad = yield* world.run(["--json", "--only", "nope"])
        const { error } = JSON.parse(bad.stdout)
        assert.deepStrictEqual([bad.code, error._tag], [2, "PlanError"])
        assert.strictEqual(bad.stderr, `${error.message}\n`)
      })
    )
  )

  it.live(
    "exits with 1 when the report cannot be written, but not when its reader has gone away",
    test((world) =>
      Effect.gen(function*() {
        const full = yield* endOf(world.onTerminal("--dry-run >/dev/full 2>err"))
        assert.strictEqual(full.code, 1)
        assert.match(world.read("err"), /^cannot write the report: ENOSPC.*\n$/)
        const gone = yield* endOf(world.onTerminal("--dry-run 2>err | true; exit ${PIPESTATUS[0]}"))
        assert.deepStrictEqual([gone.code, world.read("err")], [0, ""])
      })
    )
  )

  it.live(
    "62. a saved plan is refused with the difference when the world has changed since",
    test((world) =>
      Effect.gen(function*() {
        const destructive = { DESTRUCTIVE: "1" }
        const saved = yield* world.run(["--save", "saved.json"], destructive)
        assert.deepStrictEqual([saved.code, saved.stderr, world.log()], [0, "saved to saved.json\n", []])
        world.set("cache")
        refused(
          yield* world.run(["--plan", "saved.json", "--force"]),
          "the world has changed since it was saved: cache: would rebuild cache (destructive) -> ok: cache is there"
        )
        world.set("a", "b", "c", "report")
        refused(yield* world.run(["--plan", "saved.json"]), "the world has changed since it was saved")
        assert.deepStrictEqual(world.log(), [])
        world.unset("cache", "a", "b", "c", "report")
        const applied = yield* world.run(["--plan", "saved.json"], destructive)
        assert.strictEqual(applied.code, 0)
        assert.include(applied.stdout, "done (5 applied)")
      })
    )
  )

  it.live(
    "a saved plan that does not decode is refused with the place and what was expected",
    test((world) =>
      Effect.gen(function*() {
        const read = (content: string) => {
          world.write("saved.json", content)
          return world.run(["--plan", "saved.json"])
        }
        refused(yield* world.run(["--plan", "nowhere.json"]), "cannot read saved plan nowhere.json: ")
        refused(yield* read("{"), "cannot read saved plan saved.json: ")
        yield* world.run(["--save", "saved.json"])
        const saved = JSON.parse(world.read("saved.json"))
        saved.preview.steps[1].state._tag = "Perhaps"
        refused(yield* read(JSON.stringify(saved)), `at ["preview"]["steps"][1]["state"]`)
        assert.deepStrictEqual(world.log(), [])
      })
    )
  )

  it.live(
    "a step is a command of its own, and its saved plan is one of this step",
    test((world) =>
      Effect.gen(function*() {
        const shown = yield* world.run(["--dry-run", "cache"])
        assert.deepInclude(statesOf(shown.stdout), { cache: "would rebuild cache", report: "not run: not selected" })
        yield* world.run(["cache", "--save", "saved.json"])
        refused(yield* world.run(["report", "--plan", "saved.json"]), `it was saved with only "cache", got: "report"`)
        assert.deepStrictEqual(world.log(), [])
        assert.strictEqual((yield* world.run(["--plan", "saved.json"])).code, 0)
        assert.deepStrictEqual(world.log(), ["began cache", "ended cache"])
        assert.strictEqual((yield* world.run(["report"])).code, 0)
        assert.deepStrictEqual(world.log().slice(2), ["began report", "ended report"])
      })
    )
  )

  it.live(
    "needs what the applies require only in order to apply",
    test((world) =>
      Effect.gen(function*() {
        const env = { NO_CREDENTIALS: "1" }
        assert.strictEqual((yield* world.run(["--dry-run"], env)).code, 0)
        assert.strictEqual((yield* world.run(["--check"], env)).code, 1)
        const { code, stderr, stdout } = yield* world.run([], env)
        assert.deepStrictEqual([code, stderr, stdout], [1, "there is no token\n", ""])
        assert.deepStrictEqual(world.log(), [])
      })
    )
  )

  it.live(
    "Ctrl-C at the question exits 130, and nothing ran",
    test((world) =>
      Effect.gen(function*() {
        const { code } = yield* Effect.scoped(answered(world, "\u0003"))
        assert.deepStrictEqual([code, world.log()], [130, []])
      })
    )
  )

  it.live(
    "draws the progress on a terminal, erases it, and leaves standard output to the report",
    test((world) =>
      Effect.gen(function*() {
        world.set("a.waits", "report.waits")
        const running = yield* world.onTerminal("--force >out")
        yield* until(() => /applying 1\/\d \[#+\.+\]\r\n {2}restart\/a/.test(running.output()))
        world.set("a.go")
        // The last thing on the screen, which nothing but the end takes away.
        yield* until(() => /applying 4\/5 \[#+\.+\]\r\n {2}report/.test(running.output()))
        world.set("report.go")
        const { code, stdout } = yield* running.ended
        assert.strictEqual(code, 0)
        // Where the progress was.
        const before = stdout.slice(0, stdout.indexOf("a goes on"))
        assert.isBelow(before.lastIndexOf("applying"), before.lastIndexOf(erased))
        assert.isBelow(stdout.lastIndexOf(hidden), stdout.lastIndexOf(shown))
        assert.isBelow(stdout.lastIndexOf("applying"), stdout.lastIndexOf(erased))
        assert.notInclude(world.read("out"), "\u001B")
        assert.include(world.read("out"), "done (5 applied)")
      })
    )
  )

  it.live(
    "takes the progress away for the question",
    test((world) =>
      Effect.gen(function*() {
        world.set("cache.hides")
        const running = yield* world.onTerminal("")
        yield* until(() => running.output().includes("checking 0/3"))
        world.set("cache.shows")
        yield* until(() => running.output().includes("[y/N] "))
        const asked = running.output()
        assert.isBelow(asked.lastIndexOf(hidden), asked.lastIndexOf(shown))
        assert.isBelow(asked.lastIndexOf("checking"), asked.lastIndexOf(erased))
        yield* running.type("n\n")
        assert.strictEqual((yield* running.ended).code, 0)
      })
    )
  )

  for (const env of [{ CI: "1" }, { NO_COLOR: "1" }, { TERM: "dumb" }]) {
    it.live(
      `writes plain lines to a terminal with ${JSON.stringify(env)}`,
      test((world) =>
        Effect.gen(function*() {
          const { code, stdout } = yield* Effect.scoped(answered(world, "y\n", env))
          assert.strictEqual(code, 0)
          assert.notInclude(stdout, "\u001B")
          assert.include(stdout, "restart/a  applying: restart a\r\n")
        })
      )
    )
  }
})
