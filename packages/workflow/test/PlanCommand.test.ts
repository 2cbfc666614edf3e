import { Plan, type WorkflowError } from "@effect-orchestra/workflow"
import { NodeServices } from "@effect/platform-node"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, Layer, Runtime, Schema, Sink, Stdio, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import { TestConsole } from "effect/testing"

/** A world in memory, in which a step is satisfied once it was applied. */
const world = () => {
  const applied: Array<string> = []
  const step = (
    name: string,
    options: { readonly destructive?: boolean; readonly after?: ReadonlyArray<string> } = {}
  ) =>
    Plan.step(name, {
      after: options.after,
      check: Effect.sync(() =>
        applied.includes(name)
          ? Plan.Need.Satisfied({ why: "applied" })
          : Plan.Need.Change({ what: `apply ${name}`, destructive: options.destructive })
      ),
      apply: Effect.sync(() => void applied.push(name))
    })
  return { applied, step }
}

/** Runs a command with these arguments: its exit code, and what it wrote. `input`: what is typed on a terminal. */
const run = Effect.fnUntraced(function*<Name extends string, Input, Shared>(
  command: Command.Command<Name, Input, Shared, WorkflowError.PlanEnded, Command.Environment>,
  args: ReadonlyArray<string>,
  input?: string
) {
  let stdout = ""
  const isTerminal = Effect.succeed(input !== undefined)
  const stdio = Stdio.layerTest({
    stdout: () => Sink.forEach((text) => Effect.sync(() => stdout += text)),
    stdin: input === undefined ? Stream.never : Stream.make(new TextEncoder().encode(input)),
    stdinIsTerminal: isTerminal,
    stdoutIsTerminal: isTerminal
  })
  const code = yield* Command.runWith(command, { version: "1.0.0" })(args).pipe(
    Effect.match({ onSuccess: () => 0, onFailure: (error) => "exitCode" in error ? error.exitCode : error }),
    Effect.provide(Layer.merge(NodeServices.layer, stdio))
  )
  const stderr = (yield* TestConsole.errorLines).join("\n")
  return { code, stdout, stderr }
})

describe("Plan.command", () => {
  it.effect("takes the names of steps with commas, again and again, or both", () =>
    Effect.gen(function*() {
      const { applied, step } = world()
      const plan = Plan.command(Plan.make("p", [step("a"), step("b"), step("c"), step("d")]))
      yield* run(plan, ["--only", "a, b", "--only", "c", "--skip", "b"])
      assert.deepStrictEqual(applied, ["a", "c"])
    }))

  it.effect("refuses flags that contradict each other", () =>
    Effect.gen(function*() {
      const { applied, step } = world()
      const plan = Plan.command(Plan.make("p", [step("a")]))
      for (
        const [flags, told] of [
          ["--check --dry-run", "--check and --dry-run"],
          ["--check --save f", "--check and --save"],
          ["--save f --plan f", "--save and --plan"],
          ["--plan f --dry-run", "--dry-run and --plan"],
          ["--plan f --check", "--check and --plan"],
          ["a --only a", `the command of step "a" and --only`],
          ["--skip a a", `the command of step "a" and --skip`]
        ] as const
      ) {
        const { code, stderr, stdout } = yield* run(plan, flags.split(" "))
        assert.deepStrictEqual([code, stdout], [2, ""], flags)
        assert.include(stderr, `${told} do not go together`)
      }
      assert.deepStrictEqual(applied, [])
    }))

  it.effect("asks where it can, but not with --force", () =>
    Effect.gen(function*() {
      const { applied, step } = world()
      const plan = Plan.command(Plan.make("p", [step("a", { destructive: true }), step("b")]))
      for (const answer of ["", "\n", "n\n", "ja\n", "yess\n"]) {
        const { code, stdout } = yield* run(plan, [], answer)
        assert.strictEqual(code, 0)
        assert.include(stdout, "Apply 2 changes, 1 destructive? [y/N] ")
        assert.include(stdout, "aborted, nothing was applied")
        assert.deepStrictEqual(applied, [])
      }
      for (const answer of ["y\n", " YES \n", "Yes"]) {
        assert.include((yield* run(plan, [], answer)).stdout, "done (2 applied)")
        assert.deepStrictEqual(applied.splice(0), ["a", "b"])
      }
      assert.notInclude((yield* run(plan, ["-y"], "n\n")).stdout, "[y/N]")
      assert.deepStrictEqual(applied, ["a", "b"])
      assert.notInclude((yield* run(plan, [], "n\n")).stdout, "[y/N]")
    }))

  it.effect("applies what is not destructive where nobody can be asked, as with --json", () =>
    Effect.gen(function*() {
      const { applied, step } = world()
      const plan = Plan.make("p", [step("a"), step("b", { destructive: true })])
      assert.strictEqual((yield* run(Plan.command(plan), ["--json"], "y\n")).code, 2)
      assert.deepStrictEqual(applied, [])
      assert.strictEqual((yield* run(Plan.command(plan), ["--skip", "b", "--json"], "n\n")).code, 0)
      assert.strictEqual((yield* run(Plan.command(plan), ["b", "--force"])).code, 0)
      assert.deepStrictEqual(applied, ["a", "b"])
    }))

  it.effect("lets the steps stand beside it, and says of a bad plan what is wrong with it", () =>
    Effect.gen(function*() {
      const { applied, step } = world()
      const plan = Plan.make("all", [step("a"), step("b", { after: ["a"] })])
      const app = Command.make("app").pipe(Command.withSubcommands([Plan.command(plan), ...Plan.stepCommands(plan)]))
      assert.strictEqual((yield* run(app, ["b", "--check"])).code, 1)
      assert.strictEqual((yield* run(app, ["b"])).code, 0)
      assert.deepStrictEqual(applied, ["b"])
      assert.strictEqual((yield* run(app, ["all"])).code, 0)
      assert.deepStrictEqual(applied, ["b", "a"])

      const { code, stderr } = yield* run(Plan.command(Plan.make("bad", [step("a"), step("a")])), [])
      assert.strictEqual(code, 2)
      assert.include(stderr, `there are two steps "a"`)
    }))

  it.effect("is handled by a command with flags of its own", () =>
    Effect.gen(function*() {
      const { applied, step } = world()
      const app = Command.make("app", { ...Plan.flags, name: Flag.String("name") }, ({ name, ...given }) =>
        Plan.handle(Plan.make("p", [step(name)]), given))
      assert.strictEqual((yield* run(app, ["--name", "x", "--dry-run"])).code, 0)
      assert.deepStrictEqual(applied, [])
      assert.strictEqual((yield* run(app, ["--name", "x"])).code, 0)
      assert.deepStrictEqual(applied, ["x"])
    }))

  it.effect("builds the layer of the applies only in order to apply, and tells of its failure in a line", () =>
    Effect.gen(function*() {
      const { applied, step } = world()
      const layer = Layer.effectDiscard(Effect.fail(new NoToken({ file: "token" })))
      const plan = Plan.command(Plan.make("p", [step("a")]), { apply: layer })
      assert.strictEqual((yield* run(plan, ["--dry-run"])).code, 0)
      assert.strictEqual((yield* run(plan, ["--check"])).code, 1)
      const { code, stderr, stdout } = yield* run(plan, ["--json"])
      assert.deepStrictEqual([code, stderr], [42, "there is no token"])
      assert.deepStrictEqual(JSON.parse(stdout), {
        exitCode: 42,
        error: { _tag: "NoToken", message: "there is no token" }
      })
      // What is wrong is wrong with it or without.
      assert.strictEqual((yield* run(plan, ["--only", "b"])).code, 2)
      assert.deepStrictEqual(applied, [])
    }))

  it.effect("applies a saved plan as long as what is to be done is the same", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const file = `${yield* fs.makeTempDirectoryScoped()}/saved.json`
      const { applied, step } = world()
      let seconds = 0
      const old = Plan.step("old", {
        check: Effect.sync(() => Plan.Need.Satisfied({ why: `${++seconds} s old` })),
        apply: Effect.void
      })
      const plan = (...names: ReadonlyArray<string>) =>
        Plan.command(Plan.make("p", [old, ...names.map((name) => step(name))]))
      assert.strictEqual((yield* run(plan("a"), ["--save", file])).code, 0)
      const more = yield* run(plan("a", "b"), ["--plan", file])
      assert.strictEqual(more.code, 2)
      assert.include(more.stderr, "b: not there -> would apply b")
      assert.deepStrictEqual(applied, [])
      assert.strictEqual((yield* run(plan("a"), ["--plan", file])).code, 0)
      assert.deepStrictEqual(applied, ["a"])
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("saves no preview that does not know what there is to do", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const file = `${yield* fs.makeTempDirectoryScoped()}/saved.json`
      const broken = Plan.step("broken", { check: Effect.fail("no"), apply: Effect.void })
      const { code, stderr } = yield* run(Plan.command(Plan.make("p", [broken])), ["--save", file])
      assert.strictEqual(code, 1)
      assert.include(stderr, "not saved to")
      assert.isFalse(yield* fs.exists(file))
      const { step } = world()
      const plan = Plan.command(Plan.make("p", [step("a")]))
      const nowhere = yield* run(plan, ["--save", `${file}/x`])
      assert.strictEqual(nowhere.code, 1)
      assert.include(nowhere.stderr, "cannot write saved plan")
      assert.strictEqual((yield* run(plan, ["--save", file])).code, 0)
      const other = yield* run(Plan.command(Plan.make("other", [step("a")])), ["--plan", file])
      assert.strictEqual(other.code, 2)
      assert.include(other.stderr, `it is of plan "p"`)
    }).pipe(Effect.provide(NodeServices.layer)))
})

class NoToken extends Schema.TaggedError<NoToken>()("NoToken", { file: Schema.String }) {
  override readonly [Runtime.errorExitCode] = 42
  override get message(): string {
    return `there is no ${this.file}`
  }
}
