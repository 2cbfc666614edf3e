import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const own = (path: string) => fileURLToPath(new URL(`../${path}`, import.meta.url))

const absent = spawnSync("prometheus", ["--version"]).error !== undefined
const skip = absent && process.env.CI === undefined
if (skip) console.log("skipped: prometheus is not installed, so nobody scrapes a process")

/** Starts a process and kills it when the scope closes; `output` is what it said so far. */
const spawned = (command: string, args: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] })
      let output = ""
      child.stdout.on("data", (data) => output += data)
      child.stderr.on("data", (data) => output += data)
      return { child, output: () => output }
    }),
    ({ child }) => kill(child)
  )

const kill = (child: ChildProcess) =>
  Effect.callback<void>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.void)
    child.on("exit", () => resume(Effect.void)).kill("SIGKILL")
  })

const freePort = Effect.callback<number>((resume) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const address = server.address()
    server.close(() => resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0)))
  })
})

/** Asks again until the answer is as it should be, which the last one must be. */
const until = <A, E, R>(ask: Effect.Effect<A, E, R>, holds: (answer: A) => boolean, message: string) =>
  ask.pipe(
    Effect.filterOrFail(holds, (answer) => new Error(`${message}: ${JSON.stringify(answer)}`)),
    Effect.retry({ schedule: Schedule.spaced("250 millis"), times: 60 })
  )

/** The service, when it answers. */
const service = Effect.fnUntraced(function*(port: number) {
  const started = yield* spawned(process.execPath, [own("test/support/scraped.ts"), String(port)])
  yield* until(Effect.sync(started.output), (output) => /^http:.*\n/.test(output), "the service does not start")
  return started
})

const config = (target: number) =>
  JSON.stringify({
    global: { scrape_interval: "1s", scrape_timeout: "1s", evaluation_interval: "1s" },
    rule_files: ["orchestra.rules.yml"],
    scrape_configs: [{ job_name: "orchestra", static_configs: [{ targets: [`127.0.0.1:${target}`] }] }]
  })

/** Prometheus itself, and its API. */
const prometheus = Effect.fnUntraced(function*(target: number) {
  const folder = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "orchestra-prometheus-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  writeFileSync(join(folder, "prometheus.yml"), config(target))
  cpSync(own("rules/orchestra.rules.yml"), join(folder, "orchestra.rules.yml"))
  const port = yield* freePort
  const { output } = yield* spawned("prometheus", [
    `--config.file=${join(folder, "prometheus.yml")}`,
    `--storage.tsdb.path=${join(folder, "data")}`,
    `--web.listen-address=127.0.0.1:${port}`,
    "--enable-feature=exemplar-storage",
    "--log.level=warn"
  ])
  const ask = (path: string, parameters: Record<string, string> = {}) =>
    Effect.tryPromise(() =>
      fetch(`http://127.0.0.1:${port}/api/v1/${path}?${new URLSearchParams(parameters)}`).then((response) =>
        response.json()
      )
    ).pipe(
      Effect.map((answer: any) => {
        assert.strictEqual(
          answer.status,
          "success",
          `${JSON.stringify(parameters)} ${JSON.stringify(answer)} ${output()}`
        )
        return answer.data
      })
    )
  const value = (query: string) =>
    Effect.map(ask("query", { query }), ({ result }) => result.length === 0 ? NaN : Number(result[0].value[1]))
  return { ask, value, output }
})

const dashboard: ReadonlyArray<string> = JSON.parse(readFileSync(own("grafana/orchestra.json"), "utf8")).panels.flatMap(
  ({ targets = [] }: { targets?: ReadonlyArray<{ expr: string }> }) =>
    targets.map(({ expr }) =>
      expr.replaceAll("$__rate_interval", "10s").replaceAll("$__range", "1m").replaceAll("$instance", ".+")
    )
)

describe("Prometheus", () => {
  // Another program, with its own clock, decides.
  it.live.skipIf(skip)(
    "scrapes a service for half a minute, through a crash, and misses nothing",
    () =>
      Effect.gen(function*() {
        const port = yield* freePort
        const first = yield* service(port)
        const { ask, output, value } = yield* prometheus(port)
        const target = Effect.map(ask("targets"), ({ activeTargets }) => activeTargets[0])
        const up = until(target, (is) => is?.health === "up" && is.lastError === "", "the target is not up")
        yield* up

        yield* Effect.sleep("14 seconds")
        const text = yield* Effect.promise(() => fetch(`http://127.0.0.1:${port}/metrics`).then((all) => all.text()))
        const { status, stderr, stdout } = spawnSync("promtool", ["check", "metrics"], {
          input: text,
          encoding: "utf8"
        })
        assert.deepStrictEqual([status, stdout, stderr], [0, "", ""])
        const missed = yield* value("count_over_time(up[14s]) - sum_over_time(up[14s])")
        // A busy machine may answer one too late.
        assert.isAtMost(missed, 1)
        const before = yield* value("fixture_ticks_total")
        assert.isAbove(before, 50)

        yield* kill(first.child)
        yield* until(target, (is) => is.health === "down", "the target is not down")
        const second = yield* service(port)
        yield* up
        yield* Effect.sleep("14 seconds")
        yield* up

        // Each of the two has counted from 0; Prometheus sees one counter that went on.
        const after = yield* value("fixture_ticks_total")
        assert.isAbove(after, 50)
        assert.strictEqual(yield* value("resets(fixture_ticks_total[2m])"), 1)
        assert.isAbove(yield* value("increase(fixture_ticks_total[2m])"), 1.2 * Math.max(before, after))
        const restarts = yield* value(
          "sum(increase(orchestra_routine_restarts_total{orchestra_routine_name=\"flaky\"}[2m]))"
        )
        assert.isAbove(restarts, 1.2 * (yield* value("sum(orchestra_routine_restarts_total)")))

        const info = yield* ask("query", { query: "target_info" })
        assert.deepInclude(info.result[0].metric, { service_name: "scraped", telemetry_sdk_name: "effect-orchestra" })

        const traces = new Set((first.output() + second.output()).match(/^[0-9a-f]{32}$/gm))
        const now = Date.now() / 1000
        const found = yield* ask("query_exemplars", {
          query: "orchestra_routine_run_duration_seconds_bucket{orchestra_routine_name=\"job\"}",
          start: String(now - 60),
          end: String(now + 1)
        })
        const exemplars = found.flatMap(({ exemplars }: any) => exemplars)
        assert.isAbove(exemplars.length, 10)
        for (const { labels } of exemplars) assert.isTrue(traces.has(labels.trace_id), labels.trace_id)

        const types = yield* ask("metadata", { limit: "1000" })
        assert.deepStrictEqual(types.fixture_size_bytes, [{ type: "histogram", unit: "bytes", help: "Sizes." }])
        assert.deepStrictEqual(types.fixture_ticks.map(({ type }: any) => type), ["counter"])

        const answers = yield* Effect.forEach(
          dashboard,
          (query) => Effect.map(ask("query", { query }), ({ result }) => result)
        )
        assert.isAbove(answers.filter((result) => result.length > 0).length, 30)

        const { groups } = yield* ask("rules")
        for (const rule of groups[0].rules) assert.strictEqual(rule.health, "ok", `${rule.name}: ${rule.lastError}`)
        const firing = yield* ask("alerts")
        assert.deepStrictEqual(
          firing.alerts.filter(({ state }: any) => state === "firing").map(({ labels }: any) => [
            labels.alertname,
            labels.orchestra_routine_name ?? labels.orchestra_telemetry_signal
          ]).sort(),
          // The gauge that took the name of a counter is left out at every scrape.
          [["OrchestraRestartsTooOften", "flaky"], ["OrchestraTelemetryDropped", "metric"]]
        )
        assert.strictEqual(output(), "")
      }).pipe(Effect.scoped),
    90_000
  )
})
