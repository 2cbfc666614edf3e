import type { Plan } from "@effect-orchestra/workflow"
import { empty, line, lines, question, type Screen, told } from "@effect-orchestra/workflow/PlanScreen"
import { assert, describe, it } from "@effect/vitest"
import { CliOutput } from "effect/cli"

const at = (phase: Plan.Progress["phase"], step: string, key: string | null, done: number, total: number) => ({
  phase,
  step,
  key,
  done,
  total
})

const applying = (running: ReadonlyArray<string>, done: number, total: number): Screen => ({
  phase: "apply",
  running: new Set(running),
  done,
  total
})

describe("PlanScreen", () => {
  it("knows what runs, and how far it is", () => {
    const screen = ([
      { _tag: "Applying", what: "restart", ...at("apply", "restart", "a", 1, 4) },
      { _tag: "Checking", ...at("apply", "restart", "b", 1, 4) },
      { _tag: "Applying", what: "restart", ...at("apply", "restart", "b", 1, 4) },
      {
        _tag: "Ended",
        state: { _tag: "Applied", what: "restart" },
        durationMillis: 3,
        ...at("apply", "restart", "a", 2, 4)
      }
    ] satisfies Array<Plan.Progress>).reduce(told, empty)
    assert.deepStrictEqual(screen, applying(["restart/b"], 2, 4))
  })

  it("shows a bar, and a line for each that runs", () => {
    assert.deepStrictEqual(lines(applying(["restart/a", "restart/b"], 3, 6), 30, 0), [
      "⠋ applying 3/6 [######......]",
      "  restart/a",
      "  restart/b"
    ])
    assert.deepStrictEqual(lines({ ...empty, total: 2 }, 30, 1), ["⠙ checking 0/2 [............]"])
    assert.deepStrictEqual(lines(empty, 30, 12), ["⠹ checking 0/0"])
  })

  it("shows eight that run, or seven and how many more", () => {
    const names = Array.from({ length: 40 }, (_, index) => `s${index}`)
    assert.strictEqual(lines(applying(names.slice(0, 8), 0, 40), 80, 0).length, 9)
    const many = lines(applying(names, 0, 40), 80, 0)
    assert.deepStrictEqual([many.length, many.at(-2), many.at(-1)], [9, "  s6", "  and 33 more"])
  })

  it("stays within any width, wide characters and control characters too", () => {
    const screen = applying(["a".repeat(100), "サーバー".repeat(30), "tab\there\u001B[2J"], 12, 40)
    for (let columns = 0; columns <= 120; columns++) {
      for (const line of lines(screen, columns, columns)) {
        assert.isTrue(CliOutput.displayWidth(line) < Math.max(1, columns), `${columns}: ${line}`)
        assert.notMatch(line, /\p{Cc}/u)
      }
    }
    assert.strictEqual(lines(screen, 20, 0)[1], `  ${"a".repeat(16)}…`)
  })

  it("says in plain lines what is applied and how that ended, and nothing of checks", () => {
    const ended = (phase: Plan.Progress["phase"], state: Plan.StepState) =>
      line({ _tag: "Ended", state, durationMillis: 1, ...at(phase, "restart", "a", 1, 4) })
    assert.strictEqual(
      line({ _tag: "Applying", what: "restart it", ...at("apply", "restart", "a", 0, 4) }),
      "restart/a  applying: restart it"
    )
    assert.strictEqual(ended("apply", { _tag: "Applied", what: "restart it" }), "restart/a  applied: restart it")
    assert.strictEqual(
      ended("apply", { _tag: "Failed", phase: "apply", error: "no", errorType: "Error" }),
      "restart/a  failed: no"
    )
    assert.isUndefined(ended("apply", { _tag: "NotRun", why: "not selected" }))
    assert.isUndefined(ended("preview", { _tag: "WouldApply", what: "restart it", destructive: true }))
    assert.isUndefined(line({ _tag: "Checking", ...at("apply", "restart", "a", 0, 4) }))
  })

  it("asks for the whole change, and says how much of it is destructive or not known", () => {
    const preview = (...states: ReadonlyArray<Plan.StepState>): Plan.Report => ({
      plan: "p",
      mode: "apply",
      ending: "previewed",
      steps: states.map((state, index) => ({ step: `s${index}`, key: null, state, durationMillis: 0 }))
    })
    const change = (what: string, destructive = false) => ({ _tag: "WouldApply" as const, what, destructive })
    const ok = { _tag: "Satisfied" as const, why: "ok" }
    assert.strictEqual(question(preview(change("x"), ok)), "Apply 1 change? [y/N] ")
    assert.strictEqual(
      question(preview(change("x", true), change("y"), ok)),
      "Apply 2 changes, 1 destructive? [y/N] "
    )
    assert.strictEqual(question(preview(change("x"), change("(known after x)"))), "Apply 2 changes or more? [y/N] ")
  })
})
