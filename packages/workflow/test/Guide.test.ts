/**
 * What docs/workflow.md says in tables, against the code. Its examples are executed by doctest; the metrics, paths and
 * alerts that it names are compared by packages/observability/test/Guide.test.ts.
 */
import { Plan, WorkflowError } from "@effect-orchestra/workflow"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Runtime } from "effect"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const own = (path: string) => readFileSync(fileURLToPath(new URL(`../${path}`, import.meta.url)), "utf8")
const page = own("../../docs/workflow.md")

/** The cells of the table whose first title is this. */
const rows = (title: string): ReadonlyArray<ReadonlyArray<string>> => {
  const [, lines = ""] = new RegExp(`^\\| ${title} \\|.*\\n\\|[ -|]+\\n((?:\\|.*\\n)+)`, "m").exec(page) ?? []
  assert.notStrictEqual(lines, "", `a table of ${title}`)
  return lines.trimEnd().split("\n").map((line) => line.slice(2, -2).split(" | ").map((cell) => cell.trim()))
}

/** What stands in backticks. */
const code = (cell: string | undefined) => Array.from((cell ?? "").matchAll(/`([^`]+)`/g), ([, word = ""]) => word)

/** The names of the options in these interfaces of a source. */
const options = (source: string, ...interfaces: ReadonlyArray<string>) =>
  interfaces.flatMap((name) => {
    const [, body = ""] = new RegExp(`^export interface ${name}\\b(.+?)^}`, "ms").exec(source) ?? []
    return Array.from(body.matchAll(/^ {2}readonly (\w+)\??:/gm), ([, option = ""]) => option)
  })

describe("the guide to workflow says", () => {
  it("which exit code each mode and ending has", () => {
    const said = new Map(
      rows("Exit code").flatMap(([codes = "", endings = ""]) =>
        endings.split(", ").map((ending) => [ending.replaceAll("`", ""), codes] as const)
      )
    )
    // A signal has its own code.
    assert.strictEqual(said.get("cut"), "129, 130, 143")
    const applied: Plan.Row = { step: "a", key: null, state: { _tag: "Applied", what: "it" }, durationMillis: 0 }
    // What can be the end of which mode.
    const endings = {
      apply: ["nothing", "done", "aborted", "failed", "partial"],
      "dry-run": ["nothing", "previewed", "failed"],
      check: ["nothing", "previewed", "failed"]
    } as const
    const told = Plan.Mode.literals.flatMap((mode) =>
      endings[mode].map((ending) => {
        const steps = ending === "partial" ? [applied] : []
        const named = [`${ending} with --${mode}`, ending].find((name) => said.has(name)) ?? "none"
        assert.strictEqual(
          said.get(named),
          String(Plan.exitCode({ plan: "p", mode, ending, steps })),
          `${mode} ${ending}`
        )
        return named
      })
    )
    assert.deepStrictEqual(new Set([...told, "cut"]), new Set(said.keys()))
    assert.deepStrictEqual(
      new Set([...said.keys()].map((name) => name.split(" ")[0])),
      new Set<string | undefined>(Plan.Ending.literals)
    )
  })

  it("which errors there are, and which exit code each has", () => {
    const cause = Cause.fail("no")
    const saga = { saga: "s", step: "a", timeoutMillis: 1, cause, undone: [], stuck: [], notRun: [], pivot: "a" }
    const plan = { plan: "p", problems: [], reason: "stale", details: [], flags: [], exitCode: 3 } as const
    const profile = { profile: "p", of: "collector", unknown: [], known: [] } as const
    const file = (operation: "read" | "write") => new WorkflowError.PlanFileError({ file: "f", operation, reason: "r" })
    const all: Record<keyof typeof WorkflowError, ReadonlyArray<unknown>> = {
      StepTimedOut: [new WorkflowError.StepTimedOut(saga)],
      CompensationTimedOut: [new WorkflowError.CompensationTimedOut(saga)],
      SagaAborted: [new WorkflowError.SagaAborted(saga)],
      SagaStuck: [new WorkflowError.SagaStuck(saga)],
      SagaCommitted: [new WorkflowError.SagaCommitted(saga)],
      PlanError: [new WorkflowError.PlanError(plan)],
      PlanRefused: [new WorkflowError.PlanRefused(plan)],
      PlanFlagsError: [new WorkflowError.PlanFlagsError(plan)],
      PlanFileError: [file("write"), file("read")],
      PlanEnded: [],
      UnknownProfile: [new WorkflowError.UnknownProfile(profile)],
      UnknownCollector: [new WorkflowError.UnknownCollector(profile)]
    }
    assert.strictEqual(Runtime.getErrorExitCode(new WorkflowError.PlanEnded(plan)), 3)
    const said = rows("Error").flatMap(([names, , codes]) => code(names).map((name) => [name, codes] as const))
    assert.deepStrictEqual(
      Object.fromEntries(said),
      Object.fromEntries(
        Object.entries(all).map(([name, errors]) => [
          name,
          errors.length === 0 ? "that of the plan" : errors.map(Runtime.getErrorExitCode).join(", ")
        ])
      )
    )
    assert.deepStrictEqual(Object.keys(all).toSorted(), Object.keys(WorkflowError).toSorted())
  })

  it("which flags the command of a plan has", () => {
    const kebab = (name: string) => `--${name.replaceAll(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
    const said = rows("Flag").flatMap(([flags]) => code(flags)).filter((flag) => flag.startsWith("--"))
    assert.deepStrictEqual(said.map((flag) => flag.split(" ")[0]), Object.keys(Plan.flags).map(kebab))
  })

  it("which states, outcomes and options there are", () => {
    assert.deepStrictEqual(
      rows("What the report says of a step").map(([state]) => code(state).at(-1)),
      Object.keys(Plan.StepState.cases)
    )
    const saga = own("src/Saga.ts")
    const [, outcomes = ""] = /^export type Outcome<.+> = (.+)$/m.exec(saga) ?? []
    assert.deepStrictEqual(
      rows("Outcome").map(([outcome]) => code(outcome)[0]),
      outcomes.split(" | ").map((outcome) => outcome.replace(/<.*/, ""))
    )
    const fields = rows("Field").flatMap(([field]) => code(field)).toSorted()
    assert.deepStrictEqual(fields, options(saga, "StepSettings", "StepOptions").toSorted())
    const settings = rows("Option of `outcome` and `run`").flatMap(([option]) => code(option)).toSorted()
    assert.deepStrictEqual(settings, options(saga, "Options").toSorted())
    const bounds = rows("Bound").flatMap(([bound]) => code(bound)[0] ?? [])
    assert.includeMembers(options(own("src/Collect.ts"), "RunOptions", "CollectorOptions"), bounds)
  })
})
