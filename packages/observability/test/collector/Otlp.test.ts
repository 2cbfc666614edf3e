import { Mailbox, Orchestrator, Routine } from "@effect-orchestra/core"
import { Otlp, Prometheus, Telemetry } from "@effect-orchestra/observability"
import * as OpenTelemetry from "@effect-orchestra/observability/OpenTelemetry"
import { Backoff, Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Layer, Logger } from "effect"
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import { type JsonAttribute, make, until } from "./OtelCollector.ts"

const backupService = fileURLToPath(new URL("../../../examples/src/backup-service/main.ts", import.meta.url))

const variants = { light: Otlp.layer, sdk: OpenTelemetry.layer }

process.env["OTEL_BSP_SCHEDULE_DELAY"] = "50"
process.env["OTEL_BLRP_SCHEDULE_DELAY"] = "50"
process.env["OTEL_EXPORTER_OTLP_TIMEOUT"] = "1000"

/** A program that exports, with what it warned about. */
const exporting = <A, E>(
  variant: keyof typeof variants,
  endpoint: string,
  program: Effect.Effect<A, E, Orchestrator | Telemetry>
) => {
  const warnings: Array<string> = []
  const logger = Logger.make<unknown, void>(({ logLevel, message }) => {
    if (logLevel === "Warn") warnings.push(String(message))
  })
  const layer = variants[variant]({ endpoint, metricInterval: "300 millis" }).pipe(
    Layer.provideMerge(Telemetry.layer),
    Layer.provideMerge(Orchestrator.layerWith({ name: "app" })),
    Layer.provideMerge(Logger.layer([logger]))
  )
  return Effect.map(Effect.provide(program, layer), (value) => ({ value, warnings }))
}

/** Something of everything: runs that end in different ways, restarts, a mailbox. */
const workload = Effect.gen(function*() {
  let failures = 0
  const steady = yield* Deferred.make<void>()
  const flaky = Effect.suspend(() =>
    failures++ < 2
      ? Effect.fail(new Error("not yet"))
      : Effect.andThen(Deferred.succeed(steady, undefined), Effect.never)
  )
  yield* Supervisor.start(Supervisor.make({
    name: "root",
    strategy: "one_for_one",
    children: [
      Child.make("flaky", flaky, {
        backoff: Backoff.exponential({ base: "1 millis", max: "1 millis", jitter: "none" })
      })
    ]
  }))
  yield* Deferred.await(steady)
  for (let index = 0; index < 5; index++) {
    const job = yield* Orchestrator.fork(Effect.log("at work"), { name: "job" })
    yield* Routine.join(job)
  }
  const broken = yield* Orchestrator.fork(Effect.fail(new Error("no")), { name: "broken" })
  yield* Effect.exit(Routine.join(broken))
  const mailbox = yield* Mailbox.make<number>({ name: "orders", capacity: 4 })
  yield* Mailbox.send(mailbox, 1)
  yield* Mailbox.send(mailbox, 2)
})

/** Types and samples of a scrape, with labels in order and without what only the Collector adds. */
const read = (text: string) => {
  const types = new Map<string, string>()
  const samples = new Map<string, number>()
  for (const line of text.split("\n")) {
    const [, name, type] = /^# TYPE (\S+) (\S+)$/.exec(line) ?? []
    if (name !== undefined && type !== undefined) types.set(name.replace(/_total$/, ""), type)
    const [, series, labels = "", value] = /^([a-z_0-9]+)(?:\{(.*)\})? (\S+)/.exec(line.split(" # ")[0] ?? "") ?? []
    if (series === undefined) continue
    const own = Array.from(
      labels.matchAll(/([a-z_0-9]+)="((?:\\.|[^"\\])*)"/g),
      ([, label, value]) => `${label}=${value}`
    )
      .filter((label) => !/^(?:job|instance|otel_scope_\w+)=/.test(label))
    samples.set(`${series}{${own.sort().join(",")}}`, Number(value))
  }
  return { types, samples }
}

const attribute = (attributes: ReadonlyArray<JsonAttribute> | undefined, name: string) =>
  attributes?.find(({ key }) => key === name)?.value.stringValue

describe("a real Collector", () => {
  for (const variant of ["light", "sdk"] as const) {
    it.live(
      `${variant}: shows Prometheus what a scrape of our own shows: names, types, units, values`,
      () =>
        Effect.gen(function*() {
          const collector = yield* make
          const program = Effect.gen(function*() {
            yield* workload
            yield* Effect.sleep("800 millis")
            const { collect, resource } = yield* Telemetry
            const own = read(yield* Effect.flatMap(collect, (meters) => Prometheus.render(meters, resource)))
            return { own, shown: read(yield* collector.scrape) }
          }).pipe(Effect.scoped)
          const { value: { own, shown } } = yield* exporting(variant, collector.url, program)
          const names = Array.from(shown.types.keys()).filter((name) =>
            /^(?:orchestra|process|nodejs|v8js)_/.test(name)
          )
          assert.isAbove(names.length, 20)
          // Nothing is called differently (`_ratio`, a unit twice) and nothing is of another type.
          for (const name of names) {
            // The one that has a Prometheus name of its own: what follows from the rules, its linter refuses.
            const ours = name === "process_unix_file_descriptor_count" ? "process_open_fds" : name
            assert.strictEqual(shown.types.get(name), own.types.get(ours), name)
          }
          const series = Array.from(shown.samples.keys()).filter((key) => key.startsWith("orchestra_"))
          assert.isAbove(series.length, 50)
          // What changes by itself between the two is not compared.
          const steady = series.filter((key) => !/_age_|telemetry_series|mailbox/.test(key))
          for (const key of steady) assert.strictEqual(shown.samples.get(key), own.samples.get(key), key)
        }),
      60_000
    )

    it.live(
      `${variant}: keeps traces with their links, and log lines with their annotations`,
      () =>
        Effect.gen(function*() {
          const collector = yield* make
          yield* exporting(variant, collector.url, Effect.scoped(Effect.withSpan(workload, "request")))
          yield* until(() => {
            const isThere = collector.spans().some(({ name }) => name === "request")
            return isThere && collector.logs().length >= 5 ? true : undefined
          })
          const spans = collector.spans()
          const [request] = spans.filter(({ name }) => name === "request")
          const jobs = spans.filter(({ name }) => name === "run job")
          assert.lengthOf(jobs, 5)
          for (const { parentSpanId, traceId } of jobs) {
            assert.deepStrictEqual([traceId, parentSpanId], [request?.traceId ?? "", request?.spanId ?? ""])
          }
          const linked = spans.filter(({ links = [] }) => links.length > 0)
          assert.isAbove(linked.length, 0)
          const known = new Set(spans.map(({ spanId }) => spanId))
          for (const { links = [] } of linked) for (const { spanId } of links) assert.isTrue(known.has(spanId))
          assert.lengthOf(known, spans.length, "no span twice")
          const lines = collector.logs().filter(({ body }) => body.stringValue === "at work")
          assert.lengthOf(lines, 5)
          for (const { attributes, traceId } of lines) {
            assert.strictEqual(attribute(attributes, "orchestra.routine.name"), "job")
            assert.strictEqual(traceId, request?.traceId)
          }
        }),
      60_000
    )

    it.live(
      `${variant}: may be killed in mid-run: the program goes on as fast, counts its losses, and finds it again`,
      () =>
        Effect.gen(function*() {
          const collector = yield* make
          const span = Effect.withSpan(Effect.void, "work")
          const round = Effect.gen(function*() {
            const start = performance.now()
            for (let index = 0; index < 5000; index++) yield* span
            return performance.now() - start
          })
          const dropped = Effect.gen(function*() {
            const { collect } = yield* Telemetry
            const meter = (yield* collect).find(({ metric }) => metric.name === "orchestra.telemetry.dropped.items")
            return Array.from(meter?.series.values() ?? []).reduce((sum, { value }) => sum + value, 0)
          })
          const fastest = Effect.map(Effect.replicateEffect(round, 7), (times) => Math.min(...times))
          const program = Effect.gen(function*() {
            yield* round
            yield* Effect.sleep("500 millis")
            const healthy = yield* fastest
            yield* until(() => collector.spans().length > 0 ? true : undefined)
            yield* collector.kill
            const lostBefore = yield* dropped
            const heap = process.memoryUsage().heapUsed
            const dead = yield* fastest
            const grown = process.memoryUsage().heapUsed - heap
            yield* Effect.sleep("1500 millis")
            const lost = (yield* dropped) - lostBefore
            yield* collector.start
            const before = collector.spans().length
            yield* Effect.forkScoped(Effect.forever(Effect.andThen(span, Effect.sleep("20 millis"))))
            yield* until(() => collector.spans().length > before ? true : undefined)
            yield* Effect.sleep("300 millis")
            return { ratio: dead / healthy, grown, lost }
          }).pipe(Effect.scoped)
          const { value: { grown, lost, ratio }, warnings } = yield* exporting(variant, collector.url, program)
          console.log(`${variant}: with the Collector dead ${ratio.toFixed(2)} times as long, ${lost} spans lost`)
          assert.isBelow(ratio, 2)
          assert.isBelow(grown, 60_000_000)
          // What fits in the queue waits, and what was under way is given up.
          assert.isAbove(lost, 35_000 - 2048 - 512)
          assert.lengthOf(warnings.filter((line) => line.includes("does not reach")), 1, warnings.join("\n"))
          assert.lengthOf(warnings.filter((line) => line.includes("again after")), 1, warnings.join("\n"))
        }),
      60_000
    )
  }

  it.live("is told by the backup service what it does, with one flag", () =>
    Effect.gen(function*() {
      const collector = yield* make
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "otelcol-backup-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
      )
      writeFileSync(join(directory, "file.txt"), "content")
      const places = ["--source", directory, "--store", join(directory, "store"), "--otlp", collector.url]
      const child = yield* Effect.acquireRelease(
        Effect.sync(() => spawn(process.execPath, [backupService, "--port", "0", "--orchestra-port", "0", ...places])),
        (child) => Effect.sync(() => child.kill("SIGKILL"))
      )
      let output = ""
      child.stdout.on("data", (data) => output += data)
      const api = yield* until(() => /API (http:\S+),/.exec(output)?.[1])
      yield* until(() => output.includes("stored 1") ? true : undefined)
      writeFileSync(join(directory, "other.txt"), "more")
      const headers = { "content-type": "application/json" }
      yield* Effect.promise(() => fetch(`${api}/scan`, { method: "POST", headers }))
      const copy = yield* until(() =>
        collector.spans().find(({ attributes }) => attribute(attributes, "file.path") === "other.txt")
      )
      const request = yield* until(() =>
        collector.spans().find(({ name, traceId }) => name === "POST" && traceId === copy.traceId)
      )
      assert.strictEqual(attribute(request.attributes, "url.path"), "/scan")
      child.kill("SIGTERM")
      yield* until(() => child.exitCode ?? undefined)
      const last = yield* until(() => collector.metrics().at(-1))
      assert.includeMembers(last.map(({ name }) => name), ["orchestra.routine.starts", "process.cpu.time"])
    }), 60_000)
})
