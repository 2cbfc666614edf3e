/**
 * What docs/observability.md says in tables and in passing, against the code, and what docs/workflow.md says of it. Its
 * commands are run by the examples.
 */
import { Mailbox, Orchestrator } from "@effect-orchestra/core"
import { Api, MetricTable, OtlpSettings, Server } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer } from "effect"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"

const own = (path: string) => readFileSync(fileURLToPath(new URL(`../${path}`, import.meta.url)), "utf8")
const page = own("../../docs/observability.md")
/** Of both that which is said in passing. */
const pages = page + own("../../docs/workflow.md")

/** The cells of the tables whose first title is this. */
const rows = (title: string): ReadonlyArray<ReadonlyArray<string>> =>
  Array.from(
    page.matchAll(new RegExp(`^\\| ${title} \\|.*\\n\\|[ -|]+\\n((?:\\|.*\\n)+)`, "gm")),
    ([, lines = ""]) =>
      lines.trimEnd().split("\n").map((line) => line.slice(2, -2).split(" | ").map((cell) => cell.trim()))
  ).flat()

const bare = (cell: string | undefined) => (cell ?? "").replaceAll("`", "")

const metricRow = (metric: MetricTable.Metric): string => {
  const label = (attribute: string) => {
    const values = metric.values?.[attribute]
    return `\`${MetricTable.labelName(attribute)}\`${values === undefined ? "" : ` = ${values.join(", ")}`}`
  }
  const name = `\`${MetricTable.prometheusName(metric)}\`${metric.optIn === true ? " (opt-in)" : ""}`
  return `| ${name} | ${metric.kind} | ${metric.attributes.map(label).join("; ")} | ${metric.description} |`
}

describe("the guide to observability says", () => {
  it("of every metric its name, kind, labels and meaning, as the table in the code does", () => {
    const known = MetricTable.all.map(metricRow)
    assert.deepStrictEqual(page.split("\n").filter((line) => /^\| `(orchestra|process|nodejs|v8js)_/.test(line)), known)
  })

  it("no name of a metric or of its labels that there is not", () => {
    const labels = MetricTable.all.flatMap(({ attributes }) => attributes.map(MetricTable.labelName))
    const known = new Set([...labels, ...MetricTable.all.flatMap(MetricTable.occupiedNames)])
    const named = pages.match(/\b(?:orchestra|nodejs|v8js|process)_\w+/g) ?? []
    assert.isAbove(named.length, 80)
    assert.deepStrictEqual(named.filter((name) => !known.has(name)), [])
  })

  it.effect("of every variable of the environment that is read, its name and its default", () =>
    Effect.gen(function*() {
      const asked = new Set<string>()
      const env = (values: Record<string, string>) => {
        const provider = ConfigProvider.fromEnv({ env: values })
        const noted = ConfigProvider.make((path) => {
          asked.add(path.join("_"))
          return provider.load(path)
        })
        return Effect.provideService(OtlpSettings.read({}, {}), ConfigProvider.ConfigProvider, noted)
      }
      const standard = yield* env({})
      const table = rows("variable")
      assert.deepStrictEqual(table.map(([name]) => bare(name)).sort(), [...asked].sort())
      for (const [name, standing = ""] of table) {
        if (!standing.startsWith("`")) continue
        assert.deepStrictEqual(yield* env({ [bare(name)]: bare(standing) }), standard, bare(name))
        const other = yield* Effect.exit(env({ [bare(name)]: "otherwise", OTEL_TRACES_SAMPLER: "traceidratio" }))
        assert.isFalse(other._tag === "Success" && JSON.stringify(other.value) === JSON.stringify(standard), bare(name))
      }
    }))

  it("of every option that stands before a variable that there is such a one", () => {
    const source = own("src/OtlpSettings.ts")
    for (const [, , , option = ""] of rows("variable")) {
      for (const name of bare(option).split(/[.,] ?/)) {
        if (name !== "") assert.match(source, new RegExp(`readonly ${name}\\?:`))
      }
    }
  })

  // Real requests.
  it.live("of every path which scope it needs", () => {
    const program = Effect.gen(function*() {
      const { url } = yield* Server.Server
      yield* Orchestrator.fork(Effect.never, { name: "routine" })
      yield* Mailbox.make<number>({ name: "mailbox", capacity: 1 })
      const [routine] = yield* Orchestrator.list
      const ask = (path: string, method: string) =>
        Effect.promise(async () => {
          const headers = { "content-type": "application/json" }
          const abort = new AbortController()
          const { status } = await fetch(url + path, { method, headers, signal: abort.signal })
          abort.abort()
          return status
        })
      const table = rows("path")
      assert.isAbove(table.length, 15)
      for (const [where = "", scope = ""] of table) {
        const [method, path] = bare(where).startsWith("POST ") ? ["POST", bare(where).slice(5)] : ["GET", bare(where)]
        const status = yield* ask(path.replace("{id}", routine?.id ?? "").replace("{action}", "stop"), method)
        // Nobody has acted yet.
        const expected = scope === "open" || scope === "read" ? path.includes("/actions/") ? 404 : 200 : 403
        assert.strictEqual(status, expected, `${method} ${path}`)
      }
      // In passing, with what they are asked.
      for (const [, path = ""] of pages.matchAll(/`(\/(?:orchestra|debug|healthz|readyz|metrics)[^`{]*)`/g)) {
        assert.include([200, 403], yield* ask(path, "GET"), path)
      }
    })
    const layer = Layer.provideMerge(Server.layer({ port: 0 }), Orchestrator.layer)
    return Effect.scoped(program).pipe(Effect.provide(layer))
  })

  it("of every path no parameter that it does not take", () => {
    const queries = {
      overview: Api.OverviewQuery,
      routines: Api.RoutineQuery,
      tree: Api.TreeQuery,
      events: Api.EventQuery,
      stream: Api.StreamQuery
    }
    for (const [name, { fields }] of Object.entries(queries)) {
      const answer = rows("path").find(([path]) => bare(path) === `/orchestra/api/v1/${name}`)?.[2] ?? ""
      const named = Array.from(answer.matchAll(/`(\w+)(?:=\w+)?`/g), ([, parameter = ""]) => parameter)
      assert.isAbove(named.length, 0, name)
      assert.includeMembers(Object.keys(fields), named, name)
    }
  })

  it("of rules and dashboard the names that they have", () => {
    const alerts = own("rules/orchestra.rules.yml").match(/(?<=alert: )\w+/g)
    assert.deepStrictEqual(rows("alert").map(([name]) => bare(name)), Array.from(alerts ?? []))
    assert.includeMembers(Array.from(alerts ?? []), Array.from(pages.match(/\bOrchestra[A-Z]\w+/g) ?? []))

    const { panels }: { panels: ReadonlyArray<Panel> } = JSON.parse(own("grafana/orchestra.json"))
    const [, titles = "", panel] = /^Its rows are ([^.]+)\. In \*Restarts\* the panel \*(.+?)\*/m.exec(page) ?? []
    assert.deepStrictEqual(
      Array.from(titles.matchAll(/\*([^*]+)\*/g), ([, title = ""]) => title.replace("\n", " ")),
      panels.filter(({ type }) => type === "row").map(({ title }) => title)
    )
    const queries = panels.filter(({ title }) => title === panel).flatMap(({ targets = [] }) => targets)
    const shown = queries.map(({ expr }) => expr.replace("$instance", ".+"))
    assert.isTrue(shown.some((expr) => page.includes(`'${expr}'`)), `a query of ${panel}: ${shown.join(", ")}`)
  })

  it("how to install every package that OpenTelemetry.layer needs, and so does the README", () => {
    const { peerDependencies }: { peerDependencies: Record<string, string> } = JSON.parse(own("package.json"))
    const needed = Object.keys(peerDependencies).filter((name) => /opentelemetry/.test(name)).sort()
    for (const text of [page, own("README.md"), own("../../README.md")]) {
      const [, packages = ""] = /npm install (@effect\/opentelemetry@\S+ .*)/.exec(text) ?? []
      // The newest of some are of another line than @effect/opentelemetry accepts.
      assert.isTrue(packages.split(" ").every((each) => /.@[~\d]/.test(each)), packages)
      assert.deepStrictEqual(packages.split(" ").map((name) => name.replace(/(?<=.)@.*/, "")).sort(), needed)
    }
  })
})

interface Panel {
  readonly type: string
  readonly title: string
  readonly targets?: ReadonlyArray<{ readonly expr: string }>
}
