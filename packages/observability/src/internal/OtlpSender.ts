/**
 * Sends what the light exporter has made: a bounded queue and one request at a time for each signal. Whoever fills a
 * queue never waits; what does not fit, or is not delivered in time, is lost and counted.
 */
import * as Clock from "effect/Clock"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Headers from "effect/http/Headers"
import type * as HttpBody from "effect/http/HttpBody"
import * as HttpClient from "effect/http/HttpClient"
import type * as HttpClientError from "effect/http/HttpClientError"
import * as HttpClientRequest from "effect/http/HttpClientRequest"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Result from "effect/Result"
import type { Target } from "../OtlpSettings.ts"
import type { Outage } from "./Outage.ts"

export interface SenderOptions {
  readonly signal: string
  readonly target: Target
  /** In items, that is spans or log records. */
  readonly maxQueue: number
  readonly outage: Outage
  readonly lost: (items: number) => void
}

export interface Sender {
  /** Takes a batch or, when there is no room, loses it. The body is made when its turn has come. */
  readonly offer: (items: number, body: () => HttpBody.HttpBody) => void
  /** Sends one request now, beside the queue. */
  readonly send: (items: number, body: () => HttpBody.HttpBody) => Effect.Effect<void>
  /** Waits until the queue is empty and nothing is under way. */
  readonly drained: Effect.Effect<void>
  /** Counts what still waits or is under way as lost: nobody will wait for it. */
  readonly abandon: () => void
}

/** Statuses after which the same request may well succeed: those of the OTLP specification. */
const retryable = new Set([429, 502, 503, 504])

export const make = Effect.fnUntraced(function*(options: SenderOptions) {
  const { outage, signal, target } = options
  const clock = yield* Clock.Clock
  const client = HttpClient.tap(yield* HttpClient.HttpClient, (response) => Effect.ignore(response.arrayBuffer))
  const base = HttpClientRequest.post(target.url, { headers: target.headers })
  const queue = yield* Queue.unbounded<{ readonly items: number; readonly body: () => HttpBody.HttpBody }>()
  let waiting = 0
  let idle = Deferred.makeUnsafe<void>()
  Deferred.doneUnsafe(idle, Effect.void)

  /** Tries once: `undefined` when delivered, else why not, and after how many milliseconds again, if at all. */
  const attempt = Effect.fnUntraced(function*(request: HttpClientRequest.HttpClientRequest) {
    const response = yield* client.execute(request)
    if (response.status < 300) return undefined
    const after = retryAfter(response.headers["retry-after"], clock.currentTimeMillisUnsafe())
    return { reason: `HTTP status ${response.status}`, again: retryable.has(response.status), after }
  }, Effect.catch((error) => Effect.succeed({ reason: reasonOf(error), again: true, after: undefined })))

  /** Tries again until `timeout`, then says why it gave up. */
  const deliver = Effect.fnUntraced(function*(request: HttpClientRequest.HttpClientRequest) {
    const deadline = clock.currentTimeMillisUnsafe() + target.timeout
    for (let backoff = 1000;; backoff = Math.min(backoff * 1.5, 5000)) {
      const left = deadline - clock.currentTimeMillisUnsafe()
      const failure = yield* Effect.timeoutOrElse(attempt(request), {
        duration: Math.max(1, left),
        orElse: () => Effect.succeed({ reason: `no answer in ${target.timeout} ms`, again: false, after: undefined })
      })
      if (failure?.again !== true) return failure?.reason
      const after = failure.after ?? backoff * (yield* Random.nextBetween(0.8, 1.2))
      if (clock.currentTimeMillisUnsafe() + after >= deadline) return failure.reason
      yield* Effect.sleep(after)
    }
  })

  const failed = (items: number, reason: string) => {
    options.lost(items)
    outage.failed(signal, items, reason)
  }

  const send = Effect.fnUntraced(
    function*(items: number, body: () => HttpBody.HttpBody) {
      const plain = HttpClientRequest.setBody(base, body())
      const request = target.compression === "gzip" ? yield* HttpClientRequest.compressBody(plain, "gzip") : plain
      const reason = yield* deliver(request)
      if (reason === undefined) outage.delivered(signal)
      else failed(items, reason)
    },
    // Else every request would make spans, which make requests.
    Effect.withTracerEnabled(false),
    Effect.provideService(HttpClient.TracerPropagationEnabled, false),
    (sending, items) => Effect.catchDefect(sending, (defect) => Effect.sync(() => failed(items, String(defect))))
  )

  yield* Queue.take(queue).pipe(
    Effect.flatMap(({ body, items }) =>
      Effect.ensuring(
        send(items, body),
        Effect.sync(() => {
          waiting -= items
          if (waiting === 0) Deferred.doneUnsafe(idle, Effect.void)
        })
      )
    ),
    Effect.forever,
    Effect.forkScoped
  )

  const sender: Sender = {
    offer: (items, body) => {
      if (waiting + items > options.maxQueue) return options.lost(items)
      if (waiting === 0) idle = Deferred.makeUnsafe()
      waiting += items
      Queue.offerUnsafe(queue, { items, body })
    },
    send,
    drained: Effect.suspend(() => Deferred.await(idle)),
    abandon: () => {
      if (waiting > 0) failed(waiting, "the program ended before it was sent")
    }
  }
  return sender
})

const retryAfter = (value: string | undefined, now: number): number | undefined => {
  const parsed = value === undefined ? undefined : Headers.parseRetryAfter(value)
  if (parsed === undefined || Result.isFailure(parsed)) return undefined
  return Duration.toMillis(Headers.retryAfterDelay(parsed.success, now))
}

/** The system's word for it, such as ECONNREFUSED, rather than "fetch failed". */
const reasonOf = (error: HttpClientError.HttpClientError): string => {
  let cause: unknown = error.reason
  for (let depth = 0; depth < 5 && cause instanceof Object; depth++) {
    if ("code" in cause && typeof cause.code === "string") return cause.code
    cause = "cause" in cause ? cause.cause : undefined
  }
  return error.message
}
