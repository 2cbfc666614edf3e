/**
 * A Collector for tests: an HTTP server that decodes what it is sent with the schema of OpenTelemetry's own exporter, and
 * that can be told to misbehave.
 */
import generated from "@opentelemetry/otlp-transformer/build/src/generated/root.js"
import { Effect } from "effect"
import { createServer, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { gunzipSync } from "node:zlib"

export type Value = string | number | boolean | null | ReadonlyArray<Value>
export interface Attributed {
  readonly attributes: Readonly<Record<string, Value>>
}
export interface Point extends Attributed {
  readonly startTimeUnixNano: string
  readonly timeUnixNano: string
  readonly asDouble?: number
  readonly count?: string
  readonly sum?: number
  readonly bucketCounts?: ReadonlyArray<string>
  readonly explicitBounds?: ReadonlyArray<number>
}
export interface Metric {
  readonly name: string
  readonly unit: string
  readonly description: string
  readonly gauge?: { readonly dataPoints: ReadonlyArray<Point> }
  readonly sum?: {
    readonly dataPoints: ReadonlyArray<Point>
    readonly isMonotonic?: boolean
    readonly aggregationTemporality: string
  }
  readonly histogram?: { readonly dataPoints: ReadonlyArray<Point>; readonly aggregationTemporality: string }
}
export interface Span extends Attributed {
  readonly name: string
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId?: string
  readonly status?: { readonly code?: string; readonly message?: string }
  readonly events: ReadonlyArray<Attributed & { readonly name: string }>
  readonly links: ReadonlyArray<Attributed & { readonly traceId: string; readonly spanId: string }>
}
export interface LogRecord extends Attributed {
  readonly body: Value
  readonly severityText: string
  readonly traceId?: string
  readonly spanId?: string
}

// What was generated knows its messages; its types only say that there are some.
const root = generated as any

const messages = {
  "/v1/traces": root.opentelemetry.proto.collector.trace.v1.ExportTraceServiceRequest,
  "/v1/metrics": root.opentelemetry.proto.collector.metrics.v1.ExportMetricsServiceRequest,
  "/v1/logs": root.opentelemetry.proto.collector.logs.v1.ExportLogsServiceRequest
}

export const make = Effect.acquireRelease(
  Effect.promise(async () => {
    const receiver = new Receiver()
    await receiver.listen(0)
    return receiver
  }),
  (receiver) => Effect.promise(() => receiver.close())
)

export class Receiver {
  port = 0
  readonly spans: Array<Span> = []
  readonly logs: Array<LogRecord> = []
  /** Each export, the last one at the end. */
  readonly metrics: Array<ReadonlyArray<Metric>> = []
  readonly resources: Array<Readonly<Record<string, Value>>> = []
  readonly scopes = new Set<string>()
  readonly requests: Array<{ readonly path: string; readonly headers: Readonly<Record<string, unknown>> }> = []
  /** Answers in place of the receiver, which then keeps nothing. */
  misbehave: ((response: ServerResponse, path: string) => void) | undefined
  private server = createServer()

  get url(): string {
    return `http://127.0.0.1:${this.port}`
  }

  async listen(port: number): Promise<void> {
    this.server = createServer((request, response) => {
      const chunks: Array<Buffer> = []
      request.on("data", (chunk: Buffer) => chunks.push(chunk))
      request.on("end", () => {
        const path = request.url ?? ""
        this.requests.push({ path, headers: request.headers })
        if (this.misbehave !== undefined) return this.misbehave(response, path)
        const body = Buffer.concat(chunks)
        this.take(path, request.headers["content-encoding"] === "gzip" ? gunzipSync(body) : body)
        response.writeHead(200, { "content-type": "application/x-protobuf" }).end()
      })
      request.on("error", () => {})
    })
    await new Promise<void>((resolve) => this.server.listen(port, "127.0.0.1", resolve))
    this.port = (this.server.address() as AddressInfo).port
  }

  async close(): Promise<void> {
    this.server.closeAllConnections()
    await new Promise((resolve) => this.server.close(resolve))
  }

  private take(path: string, body: Uint8Array): void {
    const message = messages[path as keyof typeof messages]
    const data = message.toObject(message.decode(body), { longs: String, enums: String, bytes: String, arrays: true })
    const [{ resource, ...groups }] = data.resourceSpans ?? data.resourceMetrics ?? data.resourceLogs
    this.resources.push(attributes(resource.attributes))
    for (const group of groups.scopeSpans ?? groups.scopeMetrics ?? groups.scopeLogs) {
      this.scopes.add(`${path} ${group.scope.name}`)
      this.spans.push(...plain(group.spans ?? []) as Array<Span>)
      this.logs.push(...plain(group.logRecords ?? []) as Array<LogRecord>)
      if (group.metrics !== undefined) this.metrics.push(plain(group.metrics) as Array<Metric>)
    }
  }
}

/** Attributes become objects, any-values become values, ids hexadecimal, the enums of no interest stay. */
const plain = (value: unknown, key = ""): unknown => {
  if (key === "attributes") return attributes(value as ReadonlyArray<KeyValue>)
  if (key === "body") return anyValue(value as Record<string, unknown>)
  if (key.endsWith("Id")) return Buffer.from(value as string, "base64").toString("hex")
  if (Array.isArray(value)) return value.map((item) => plain(item))
  if (value === null || typeof value !== "object") return value
  return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, plain(inner, key)]))
}

interface KeyValue {
  readonly key: string
  readonly value: Record<string, unknown>
}

const attributes = (list: ReadonlyArray<KeyValue>) =>
  Object.fromEntries(list.map(({ key, value }) => [key, anyValue(value)]))

const anyValue = (value: Record<string, unknown>): Value => {
  const array = value["arrayValue"] as { readonly values: ReadonlyArray<Record<string, unknown>> } | undefined
  if (array !== undefined) return array.values.map(anyValue)
  const [kind, inner] = Object.entries(value)[0] ?? []
  return kind === "intValue" ? Number(inner) : (inner ?? null) as Value
}
