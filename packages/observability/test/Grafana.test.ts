import { MetricTable } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"
import { spawnSync } from "node:child_process"
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

interface Panel {
  readonly id: number
  readonly type: string
  readonly title: string
  readonly description?: string
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly targets?: ReadonlyArray<{ readonly expr: string; readonly legendFormat: string }>
}

const read = (path: string) => readFileSync(new URL(`../${path}`, import.meta.url), "utf8")
const dashboard = JSON.parse(read("grafana/orchestra.json"))
const panels: ReadonlyArray<Panel> = dashboard.panels

/** What Grafana puts in before it asks. */
const filledIn = (expr: string) =>
  expr.replaceAll("$__rate_interval", "1m").replaceAll("$__range", "1h").replaceAll(/\$(service|instance)/g, ".+")

const queries = [
  ...panels.flatMap(({ targets = [], title }) => targets.map((target) => ({ title, ...target }))),
  ...dashboard.annotations.list.map(({ expr, name, textFormat, titleFormat }: Record<string, string>) => ({
    title: name,
    expr,
    legendFormat: `${titleFormat}${textFormat}`
  })),
  // `label_values(metric{...}, label)` is Grafana's; what it asks for is the series and one of their labels.
  ...dashboard.templating.list.filter(({ type }: { type: string }) => type === "query").map(
    ({ name, query }: { name: string; query: { query: string } }) => {
      const [, expr, label] = /^label_values\((.*), (\w+)\)$/.exec(query.query) ?? assert.fail(query.query)
      return { title: name, expr, legendFormat: `{{${label}}}` }
    }
  ),
  ...[...read("rules/orchestra.rules.yml").matchAll(/alert: (\w+)\n +expr: (.*)\n/g)].map((
    [, title = "", expr = ""]
  ) => ({
    title,
    expr,
    legendFormat: ""
  }))
].map((query) => ({ ...query, expr: filledIn(query.expr) }))

/** The labels of each sample, by the name of the sample. */
const samples = new Map<string, ReadonlyArray<string>>()
for (const metric of MetricTable.all) {
  const name = MetricTable.prometheusName(metric)
  const labels = ["instance", "job", ...metric.attributes.map(MetricTable.labelName)]
  if (metric.kind !== "histogram") samples.set(name, labels)
  else for (const suffix of ["_bucket", "_sum", "_count"]) samples.set(name + suffix, [...labels, "le"])
}
samples.set("up", ["instance", "job"])
samples.set("target_info", ["instance", "job", "service_name", "service_instance_id", "telemetry_sdk_name"])

const words = new Set(["by", "without", "or", "unless", "offset"])
const names = (list: string | undefined) => list?.match(/\w+/g) ?? []

/** What an expression speaks of: selectors with the labels they match, and the labels that it groups by. */
const parsed = (expr: string) => {
  const grouped: Array<string> = []
  const rest = expr.replaceAll(/"[^"]*"/g, "\"\"").replaceAll(/\b(?:by|without) \(([^)]*)\)/g, (_, list: string) => {
    grouped.push(...names(list))
    return ""
  })
  const selectors = [...rest.matchAll(/(?<![\w$])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?(?!\w|\s*\()/g)]
    .filter(([, name = ""]) => !words.has(name) && !/^\d/.test(name))
    .map(([, name = "", matchers]) => ({
      name,
      matched: [...(matchers ?? "").matchAll(/(\w+)\s*[=!]/g)].map((m) => m[1] ?? "")
    }))
  return { grouped, selectors }
}

describe("the Grafana dashboard and the rules", () => {
  it("have queries to look at", () => {
    assert.isAbove(queries.length, 70)
    assert.deepStrictEqual(parsed("sum by (a, le) (rate(m{x=\"{y=\", z!~\"1\"}[5m])) or (n unless n offset 5m) > 5"), {
      grouped: ["a", "le"],
      selectors: [{ name: "m", matched: ["x", "z"] }, { name: "n", matched: [] }, { name: "n", matched: [] }]
    })
  })

  it("ask only for metrics and labels that are in the table", () => {
    for (const { expr, legendFormat, title } of queries) {
      const { grouped, selectors } = parsed(expr)
      const here = `${title}: ${expr}`
      assert.isNotEmpty(selectors, here)
      const labels = new Set<string>()
      for (const { matched, name } of selectors) {
        const known = samples.get(name)
        assert.isDefined(known, `${here}: ${name}`)
        for (const label of matched) assert.include(known, label, here)
        for (const label of known ?? []) labels.add(label)
      }
      for (const label of grouped) assert.isTrue(labels.has(label), `${here}: ${label}`)
      const left = /\bby \(/.test(expr) ? new Set(grouped) : labels
      for (const [, label = ""] of legendFormat.matchAll(/\{\{(\w+)\}\}/g)) {
        assert.isTrue(left.has(label), `${here}: ${label}`)
      }
    }
  })

  it("show every metric of an orchestrator", () => {
    const shown = new Set(queries.flatMap(({ expr }) => parsed(expr).selectors.map(({ name }) => name)))
    for (const metric of MetricTable.orchestra) {
      const name = MetricTable.prometheusName(metric)
      assert.isTrue(["", "_bucket", "_sum", "_count"].some((suffix) => shown.has(name + suffix)), name)
    }
  })

  const noPromtool = spawnSync("promtool", ["--version"]).error !== undefined
  const skipPromtool = noPromtool && process.env.CI === undefined
  if (skipPromtool) console.log("skipped: promtool is not installed, so nobody else reads the queries of the dashboard")

  it.skipIf(skipPromtool)("are PromQL, says promtool", ({ onTestFinished }) => {
    // A recording rule takes any expression; JSON is YAML.
    const rules = queries.map(({ expr }, index) => ({ record: `query:${index}`, expr }))
    const folder = mkdtempSync(join(tmpdir(), "orchestra-queries-"))
    onTestFinished(() => rmSync(folder, { recursive: true }))
    const check = (rules: ReadonlyArray<object>) => {
      writeFileSync(join(folder, "queries.yml"), JSON.stringify({ groups: [{ name: "dashboard", rules }] }))
      return spawnSync("promtool", ["check", "rules", "queries.yml"], { cwd: folder, encoding: "utf8" })
    }
    const { status, stderr, stdout } = check(rules)
    assert.strictEqual(stderr, "")
    assert.include(stdout, `SUCCESS: ${queries.length} rules found`)
    assert.strictEqual(status, 0)
    assert.notStrictEqual(check([{ record: "broken", expr: "sum by (" }]).status, 0)
  })

  it("lay out panels that do not overlap, each with a title and words on what it shows", () => {
    assert.strictEqual(new Set(panels.map(({ id }) => id)).size, panels.length)
    const taken = new Map<string, string>()
    for (const { description, gridPos: { h, w, x, y }, title, type } of panels) {
      assert.isNotEmpty(title)
      if (type !== "row") assert.match(description ?? "", /\.$/, title)
      assert.isAtMost(x + w, 24, title)
      for (let row = y; row < y + h; row++) {
        for (let column = x; column < x + w; column++) {
          assert.isUndefined(taken.get(`${row} ${column}`), title)
          taken.set(`${row} ${column}`, title)
        }
      }
    }
    assert.deepStrictEqual(panels.filter(({ type }) => type === "row").map(({ title }) => title), [
      "Overview",
      "Restarts",
      "Runs",
      "Mailboxes",
      "Bus",
      "Groups and sagas",
      "Shutdown",
      "Process and event loop",
      "Telemetry"
    ])
  })
})
