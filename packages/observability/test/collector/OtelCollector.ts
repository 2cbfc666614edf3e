/**
 * The real Collector as a process: what it receives it writes to a file, a line for each request, and shows to
 * Prometheus.
 */
import { Effect, Schedule } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

const binary = process.env["OTELCOL"] ?? ""

/** A port that nobody listens on. */
export const freePort = Effect.promise(() =>
  new Promise<number>((resolve) => {
    const server = createServer()
    server.listen(0, "127.0.0.1", () => {
      const { port } = server.address() as AddressInfo
      server.close(() => resolve(port))
    })
  })
)

export const until = <A>(look: () => A | undefined) =>
  Effect.suspend(() => {
    const found = look()
    return found === undefined ? Effect.fail("not yet") : Effect.succeed(found)
  }).pipe(Effect.retry(Schedule.spaced("20 millis")), Effect.timeout("30 seconds"), Effect.orDie)

/** Starts one; whatever is left of it when the scope closes is killed. */
export const make = Effect.gen(function*() {
  const directory = yield* Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "otelcol-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  )
  const collector = new OtelCollector(directory, yield* freePort, yield* freePort)
  yield* Effect.addFinalizer(() => collector.kill)
  yield* collector.start
  return collector
})

export class OtelCollector {
  private readonly directory: string
  private readonly port: number
  private readonly prometheusPort: number
  private child: ChildProcess | undefined = undefined
  private output = ""
  /** One for each start: what a killed one was writing ends in mid-line. */
  private readonly files: Array<string> = []

  constructor(directory: string, port: number, prometheusPort: number) {
    this.directory = directory
    this.port = port
    this.prometheusPort = prometheusPort
  }

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  /** On the same ports as before. */
  readonly start = Effect.gen({ self: this }, function*() {
    const config = join(this.directory, "config.yaml")
    const file = join(this.directory, `otlp-${this.files.length}.jsonl`)
    this.files.push(file)
    writeFileSync(
      config,
      `receivers: {otlp: {protocols: {http: {endpoint: "127.0.0.1:${this.port}"}}}}
exporters:
  file: {path: ${file}, flush_interval: 100ms}
  prometheus: {endpoint: "127.0.0.1:${this.prometheusPort}", enable_open_metrics: true}
service:
  telemetry: {metrics: {level: none}}
  pipelines:
    traces: {receivers: [otlp], exporters: [file]}
    metrics: {receivers: [otlp], exporters: [file, prometheus]}
    logs: {receivers: [otlp], exporters: [file]}
`
    )
    this.output = ""
    const child = spawn(binary, ["--config", config], { stdio: ["ignore", "pipe", "pipe"] })
    this.child = child
    child.stdout.on("data", (data) => this.output += data)
    child.stderr.on("data", (data) => this.output += data)
    yield* until(() => {
      if (child.exitCode !== null) throw new Error(`the Collector ended: ${this.output}`)
      return this.output.includes("Everything is ready") ? true : undefined
    })
  })

  readonly kill = Effect.promise(async () => {
    const { child } = this
    if (child === undefined || child.exitCode !== null || child.signalCode !== null) return
    const ended = new Promise((resolve) => child.once("exit", resolve))
    child.kill("SIGKILL")
    await ended
  })

  private lines(): ReadonlyArray<OtlpJson> {
    return this.files.filter((file) => existsSync(file)).flatMap((file) =>
      // The last line may not be whole yet.
      readFileSync(file, "utf8").split("\n").slice(0, -1).map((line) => JSON.parse(line))
    )
  }

  spans(): ReadonlyArray<JsonSpan> {
    return this.lines().flatMap(({ resourceSpans = [] }) =>
      resourceSpans.flatMap(({ scopeSpans }) => scopeSpans.flatMap(({ spans }) => spans))
    )
  }

  logs(): ReadonlyArray<JsonLog> {
    return this.lines().flatMap(({ resourceLogs = [] }) =>
      resourceLogs.flatMap(({ scopeLogs }) => scopeLogs.flatMap(({ logRecords }) => logRecords))
    )
  }

  /** Each export, the last one at the end. */
  metrics(): ReadonlyArray<ReadonlyArray<JsonMetric>> {
    return this.lines().flatMap(({ resourceMetrics = [] }) =>
      resourceMetrics.map(({ scopeMetrics }) => scopeMetrics.flatMap(({ metrics }) => metrics))
    )
  }

  /** What its Prometheus exporter shows to Prometheus, which asks for OpenMetrics. */
  readonly scrape = Effect.promise(() =>
    fetch(`http://127.0.0.1:${this.prometheusPort}/metrics`, {
      headers: { accept: "application/openmetrics-text; version=1.0.0" }
    }).then((response) => response.text())
  )
}

export interface JsonAttribute {
  readonly key: string
  readonly value: { readonly stringValue?: string; readonly intValue?: string; readonly boolValue?: boolean }
}
export interface JsonSpan {
  readonly name: string
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly attributes?: ReadonlyArray<JsonAttribute>
  readonly links?: ReadonlyArray<{ readonly traceId: string; readonly spanId: string }>
}
export interface JsonLog {
  readonly body: { readonly stringValue?: string }
  readonly severityText: string
  readonly traceId?: string
  readonly attributes?: ReadonlyArray<JsonAttribute>
}
export interface JsonMetric {
  readonly name: string
  readonly unit?: string
}
interface OtlpJson {
  readonly resourceSpans?: ReadonlyArray<{
    readonly scopeSpans: ReadonlyArray<{ readonly spans: ReadonlyArray<JsonSpan> }>
  }>
  readonly resourceLogs?: ReadonlyArray<{
    readonly scopeLogs: ReadonlyArray<{ readonly logRecords: ReadonlyArray<JsonLog> }>
  }>
  readonly resourceMetrics?: ReadonlyArray<{
    readonly scopeMetrics: ReadonlyArray<{ readonly metrics: ReadonlyArray<JsonMetric> }>
  }>
}
