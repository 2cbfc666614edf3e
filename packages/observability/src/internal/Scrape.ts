/** What a scraper asks for in its headers, and one rendering for all that ask at once. */
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { Telemetry } from "../Telemetry.ts"
import { type Format, write } from "./Exposition.ts"
import { gzip } from "./Gzip.ts"
import { monotonicMillis } from "./Monotonic.ts"
import { problem } from "./Refusal.ts"
import type { Add } from "./Route.ts"

export const contentTypes: { readonly [format in Format]: string } = {
  text: "text/plain; version=0.0.4; charset=utf-8",
  openmetrics: "application/openmetrics-text; version=1.0.0; charset=utf-8"
}

export const routes = Effect.fnUntraced(function*(add: Add) {
  yield* add("GET", "/metrics", "read", yield* handler)
})

/** The handler of one path. Renders in fibers of its scope, so that a scraper that goes away takes nothing along. */
export const handler = Effect.map(Effect.all([Telemetry, Effect.scope]), ([telemetry, scope]) => {
  const plain = (format: Format) =>
    shared(scope, Effect.flatMap(telemetry.collect, (meters) => encode(write(meters, telemetry.resource, format))))
  const both = (format: Format) => {
    const identity = plain(format)
    return { identity, gzip: shared(scope, Effect.flatMap(identity, gzip)) }
  }
  const bodies = { text: both("text"), openmetrics: both("openmetrics") }

  return Effect.gen(function*() {
    const { headers } = yield* HttpServerRequest.HttpServerRequest
    const format = negotiate(headers.accept)
    const encoding = acceptsGzip(headers["accept-encoding"]) ? "gzip" : "identity"
    const body = bodies[format][encoding]
    const seconds = Number(headers["x-prometheus-scrape-timeout-seconds"])
    const done = seconds > 0 && seconds < Infinity
      ? yield* Effect.timeoutOption(body, seconds * 900)
      : Option.some(yield* body)
    return Option.match(done, { onNone: () => tooLate, onSome: (bytes) => respond(bytes, format, encoding) })
  })
})

const respond = (bytes: Uint8Array, format: Format, encoding: "gzip" | "identity") =>
  HttpServerResponse.uint8Array(bytes, {
    contentType: contentTypes[format],
    headers: {
      "cache-control": "no-store",
      vary: "Accept, Accept-Encoding",
      ...(encoding === "gzip" ? { "content-encoding": "gzip" } : {})
    }
  })

/** An answer that comes later than the scraper waits is work for nobody. */
const tooLate = problem(503, "The metrics could not be rendered within 90 % of the scrape timeout")

/** Lets other fibers run after every piece. */
const encode = Effect.fnUntraced(function*(pieces: Iterable<string>) {
  const encoded: Array<Uint8Array> = []
  for (const piece of pieces) {
    encoded.push(Buffer.from(piece))
    yield* Effect.yieldNow
  }
  return Buffer.concat(encoded)
})

/**
 * Whoever asks while `compute` runs, or within a second of its start, gets the result of that run. What failed is
 * given to those who waited for it, and to nobody else.
 */
export const shared = <A>(scope: Scope.Scope, compute: Effect.Effect<A>): Effect.Effect<A> => {
  let current: { readonly since: number; readonly result: Deferred.Deferred<A>; state: "running" | "kept" } | undefined
  return Effect.flatMap(monotonicMillis, (now) => {
    if (current !== undefined && (current.state === "running" || now - current.since < 1000)) {
      return Deferred.await(current.result)
    }
    const result = Deferred.makeUnsafe<A>()
    const mine: NonNullable<typeof current> = { since: now, result, state: "running" }
    current = mine
    const run = Effect.onExit(compute, (exit) => {
      if (exit._tag === "Success") mine.state = "kept"
      else if (current === mine) current = undefined
      return Deferred.done(result, exit)
    })
    // No interruption between the note that it runs and the fact.
    return Effect.andThen(Effect.uninterruptible(Effect.forkIn(run, scope)), Deferred.await(result))
  })
}

/**
 * The format that the header prefers: the higher quality, then the one that is named more exactly, then the one that
 * is named first. A scraper that accepts neither gets text.
 */
export const negotiate = (accept: string | undefined): Format => {
  const ranges = accept === undefined ? [] : accept.split(",").map(mediaRange)
  const text = preference(ranges, ["text/plain", "text/*", "*/*"], ["0.0.4"])
  const open = preference(ranges, ["application/openmetrics-text", "application/*", "*/*"], ["1.0.0", "0.0.1"])
  if (open.quality === 0 || open.quality < text.quality) return "text"
  if (open.quality > text.quality || open.rank < text.rank) return "openmetrics"
  return open.rank === text.rank && open.index < text.index ? "openmetrics" : "text"
}

interface MediaRange {
  readonly type: string
  readonly version: string | undefined
  readonly quality: number
}

const mediaRange = (entry: string): MediaRange => {
  const [type = "", ...parameters] = entry.split(";").map((part) => part.trim())
  const parameter = (name: string) =>
    parameters.find((each) => each.toLowerCase().startsWith(`${name}=`))?.slice(name.length + 1).replaceAll("\"", "")
  return { type: type.toLowerCase(), version: parameter("version"), quality: quality(parameter("q")) }
}

/** What is no number between 0 and 1 counts as not said. */
const quality = (given: string | undefined): number => {
  const value = given === undefined || given === "" ? 1 : Number(given)
  return value >= 0 && value <= 1 ? value : 1
}

/** By the range that names it most exactly, as RFC 9110 12.5.1 says. */
const preference = (
  ranges: ReadonlyArray<MediaRange>,
  types: ReadonlyArray<string>,
  versions: ReadonlyArray<string>
) => {
  for (const [rank, type] of types.entries()) {
    const fits = (range: MediaRange) =>
      range.type === type && (range.version === undefined || versions.includes(range.version))
    const index = ranges.findIndex(fits)
    if (index !== -1) return { quality: ranges[index]?.quality ?? 0, rank, index }
  }
  return { quality: 0, rank: types.length, index: ranges.length }
}

const acceptsGzip = (header: string | undefined): boolean => {
  const codings = (header ?? "").split(",").map(mediaRange)
  const named = codings.find(({ type }) => type === "gzip" || type === "x-gzip") ??
    codings.find(({ type }) => type === "*")
  return named !== undefined && named.quality > 0
}
