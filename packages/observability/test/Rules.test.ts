import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { execFile, spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const rules = "orchestra.rules.yml"
const tests = "orchestra.rules.test.yml"
const read = (file: string) => readFileSync(new URL(`../rules/${file}`, import.meta.url), "utf8")

const noPromtool = spawnSync("promtool", ["--version"]).error !== undefined
const skipPromtool = noPromtool && process.env.CI === undefined
if (skipPromtool) console.log("skipped: promtool is not installed, so nobody reads the rules")

const folder = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "orchestra-rules-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true }))
)

/** Runs promtool on these rules and the tests that are shipped with them; gives back what it said, "" if all is well. */
const promtool = (text: string, ...command: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const cwd = yield* folder
    writeFileSync(join(cwd, rules), text)
    writeFileSync(join(cwd, tests), read(tests))
    return yield* Effect.callback<string>((resume) => {
      execFile("promtool", command, { cwd }, (error, stdout, stderr) =>
        resume(Effect.succeed(error === null ? "" : `${error.message}\n${stdout}${stderr}`)))
    })
  }).pipe(Effect.scoped)

/** Each comparison of each expression, once too high to be reached and once so low that it always is. */
const mutants = () => {
  const text = read(rules)
  const found: Array<readonly [name: string, text: string]> = []
  for (const { 0: line, index } of text.matchAll(/^ +expr: .*$/gm)) {
    const name = [...text.slice(0, index).matchAll(/alert: (\w+)/g)].at(-1)?.[1] ?? "?"
    for (const comparison of line.matchAll(/ > [\d.]+/g)) {
      for (const other of [" > 1e9", " > -1"]) {
        const at = comparison.index
        const mutant = line.slice(0, at) + other + line.slice(at + comparison[0].length)
        found.push([`${name} at ${at}:${other}`, text.slice(0, index) + mutant + text.slice(index + line.length)])
      }
    }
  }
  return found
}

describe("the rules file", () => {
  it("has the nine alerts, each with words for whoever is woken by it, and a test", () => {
    const text = read(rules)
    const alerts = [...text.matchAll(/- alert: (\w+)/g)].map(([, name]) => name)
    assert.lengthOf(alerts, 9)
    for (const field of ["summary", "description", "runbook", "severity"]) {
      assert.lengthOf(text.match(new RegExp(`\\b${field}: `, "g")) ?? [], 9, field)
    }
    assert.deepStrictEqual([...read(tests).matchAll(/alertname: (\w+)/g)].map(([, name]) => name), alerts)
  })

  // Real processes: Prometheus itself is the judge.
  it.live.skipIf(skipPromtool)("is accepted by promtool, and so are its tests", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* promtool(read(rules), "check", "rules", rules), "")
      assert.strictEqual(yield* promtool(read(rules), "test", "rules", tests), "")
    }))

  it.live.skipIf(skipPromtool)(
    "is guarded by its tests: no threshold can be moved away without one turning red",
    () =>
      Effect.gen(function*() {
        const all = mutants()
        assert.lengthOf(all, 2 * (9 + 4))
        const survived = yield* Effect.filter(all, ([, text]) =>
          Effect.map(promtool(text, "test", "rules", tests), (said) => said === ""), { concurrency: 2 })
        assert.deepStrictEqual(
          survived.map(([name]) =>
            name
          ),
          []
        )
      }),
    60_000
  )
})
