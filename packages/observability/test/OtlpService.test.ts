/** The backup service of the examples as a process of its own, exporting with one flag. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as OtlpReceiver from "./OtlpReceiver.ts"

const main = fileURLToPath(new URL("../../examples/src/backup-service/main.ts", import.meta.url))

const until = <A>(look: () => A | undefined) =>
  Effect.suspend(() => {
    const found = look()
    return found === undefined ? Effect.fail("not yet") : Effect.succeed(found)
  }).pipe(Effect.retry(Schedule.spaced("20 millis")), Effect.timeout("15 seconds"), Effect.orDie)

const directory = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "otlp-service-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

const started = Effect.fnUntraced(function*(args: ReadonlyArray<string>, env: Record<string, string>) {
  const output = { stdout: "", stderr: "" }
  const child = yield* Effect.acquireRelease(
    Effect.sync((): ChildProcess => {
      const child = spawn(process.execPath, [main, "--port", "0", "--orchestra-port", "0", ...args], {
        env: { ...process.env, ...env },
        stdio: ["ignore", "pipe", "pipe"]
      })
      child.stdout.on("data", (data) => output.stdout += data)
      child.stderr.on("data", (data) => output.stderr += data)
      return child
    }),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )
  const ended = new Promise<number | null>((resolve) => child.on("close", (code) => resolve(code)))
  return { child, output, ended }
})

describe("the backup service with --otlp", () => {
  it.live("shows in the trace of a request the copy that it caused", () =>
    Effect.gen(function*() {
      const receiver = yield* OtlpReceiver.make
      const source = yield* directory
      const store = yield* directory
      writeFileSync(join(source, "first.txt"), "first")
      const { child, ended, output } = yield* started(
        ["--source", source, "--store", store, "--otlp", receiver.url],
        { OTEL_BSP_SCHEDULE_DELAY: "50", OTEL_METRIC_EXPORT_INTERVAL: "200" }
      )
      const api = yield* until(() => /API (http:\S+),/.exec(output.stdout)?.[1])
      yield* until(() => output.stdout.includes("stored 1") ? true : undefined)
      writeFileSync(join(source, "second.txt"), "second")
      const response = yield* Effect.promise(() =>
        fetch(`${api}/scan`, { method: "POST", headers: { "content-type": "application/json" } })
      )
      assert.strictEqual(response.status, 202)
      const named = (name: string) =>
        receiver.spans.find((span) => span.name === name && span.attributes["file.path"] !== "first.txt")
      const copy = yield* until(() => named("back up file"))
      assert.deepInclude(copy.attributes, { "file.path": "second.txt", "file.size": 6, "backup.outcome": "stored" })
      const run = yield* until(() => receiver.spans.find(({ spanId }) => spanId === copy.parentSpanId))
      assert.strictEqual(run.name, "backup run")
      assert.strictEqual(run.attributes["backup.kind"], "scan")
      const request = yield* until(() => receiver.spans.find(({ spanId }) => spanId === run.parentSpanId))
      assert.deepInclude(request, { name: "POST", traceId: copy.traceId })
      assert.strictEqual(request.attributes["url.path"], "/scan")
      // The first scan was nobody's request, and no span is open as long as the service runs.
      const first = receiver.spans.find(({ name, spanId }) => name === "backup run" && spanId !== run.spanId)
      assert.isDefined(first)
      assert.notStrictEqual(first?.traceId, run.traceId)
      assert.isTrue(first?.parentSpanId === undefined || first.parentSpanId === "")

      yield* until(() => receiver.metrics.length > 0 ? true : undefined)
      const starts = receiver.metrics.at(-1)?.find(({ name }) => name === "orchestra.routine.starts")
      const names = starts?.sum?.dataPoints.map(({ attributes }) => attributes["orchestra.routine.name"])
      assert.includeMembers(names ?? [], ["database", "watcher", "api"])
      for (const resource of receiver.resources) assert.strictEqual(resource["service.name"], "backup-service")

      child.kill("SIGTERM")
      assert.strictEqual(yield* Effect.promise(() => ended), 143)
      assert.isDefined(receiver.spans.find(({ name }) => name === "shutdown"))
      assert.strictEqual(output.stderr, "")
    }), 40_000)

  it.live("says what is wrong with the address, and does not start", () =>
    Effect.gen(function*() {
      const source = yield* directory
      const store = yield* directory
      const { ended, output } = yield* started(["--source", source, "--store", store, "--otlp", "collector"], {})
      assert.strictEqual(yield* Effect.promise(() => ended), 1)
      assert.strictEqual(output.stderr, "endpoint is to be an http or https URL, got: \"collector\"\n")
    }), 20_000)
})
