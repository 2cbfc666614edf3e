/**
 * What the batch processors of the SDK keep to themselves: how much waits, what found no room, and what was given up.
 */
import type { SpanExporter } from "@opentelemetry/sdk-trace-base"
import type { Outage } from "./Outage.ts"

type Result = Parameters<Parameters<SpanExporter["export"]>[1]>[0]

/** What the exporters of all signals have in common. */
export interface Exporter<Batch> {
  readonly export: (batch: Batch, done: (result: Result) => void) => void
  readonly forceFlush: () => Promise<void>
  readonly shutdown: () => Promise<void>
}

export interface Queue {
  /** Whether there is room for one more, which is counted as lost otherwise. */
  readonly enter: () => boolean
  /** The exporter, with what it gives up counted. */
  readonly watch: <Batch>(exporter: Exporter<Batch>, size: (batch: Batch) => number) => Exporter<Batch>
  /** Sent with each request; none is sent any more once the queue is closed. */
  readonly headers: () => Promise<Record<string, string>>
  /** Counts what still waits or is under way as lost: nobody will wait for it. */
  readonly close: () => void
}

export const make = (options: {
  readonly signal: string
  readonly maxQueue: number
  readonly headers: Readonly<Record<string, string>>
  readonly outage: Outage
  readonly lost: (items: number) => void
}): Queue => {
  const { lost, maxQueue, outage, signal } = options
  let waiting = 0
  let underWay = 0
  let isClosed = false

  const failed = (items: number, reason: string) => {
    lost(items)
    outage.failed(signal, items, reason)
  }

  return {
    enter: () => {
      if (waiting >= maxQueue || isClosed) {
        lost(1)
        return false
      }
      waiting++
      return true
    },
    watch: (exporter, size) => ({
      export: (batch, done) => {
        const items = size(batch)
        waiting -= items
        underWay += items
        exporter.export(batch, (result) => {
          underWay -= items
          if (!isClosed) {
            if (result.code === 0) outage.delivered(signal)
            else failed(items, reasonOf(result.error))
          }
          done(result)
        })
      },
      forceFlush: () => exporter.forceFlush(),
      shutdown: () => exporter.shutdown()
    }),
    // A fresh object: the SDK writes into it.
    headers: () => isClosed ? Promise.reject(new Error("closed")) : Promise.resolve({ ...options.headers }),
    close: () => {
      isClosed = true
      if (waiting + underWay > 0) failed(waiting + underWay, "the program ended before it was sent")
    }
  }
}

/** The SDK gives no error for a status that it has tried again in vain, and only a code for a refused connection. */
const reasonOf = (error: Error | undefined): string => {
  if (error === undefined) return "no answer but errors"
  const code = "code" in error ? error.code : undefined
  if (typeof code === "number") return `HTTP status ${code}`
  return typeof code === "string" ? code : error.message
}
