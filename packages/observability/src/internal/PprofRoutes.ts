/** The profiles, where `go tool pprof` looks for them, and the same for the page. */
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Schema from "effect/Schema"
import { type PackageMissing, Profiler, type ProfilerBusy, type ProfilerUnavailable } from "../Profiler.ts"
import type { BadQuery } from "./AnswerSchema.ts"
import { body } from "./Body.ts"
import { query } from "./Query.ts"
import { foreignSite, problem, refusal } from "./Refusal.ts"
import { type Add, api } from "./Route.ts"

const maxSeconds = 120

const Format = Schema.Literals(["pprof", "cpuprofile"])

const isLong = Schema.isBetween({ minimum: 0, maximum: maxSeconds, exclusiveMinimum: true })

const CpuQuery = Schema.Struct({
  seconds: Schema.optionalKey(Schema.FiniteFromString.check(isLong)),
  format: Schema.optionalKey(Format)
})

const TextQuery = Schema.Struct({ debug: Schema.optionalKey(Schema.Literals(["0", "1", "2"])) })

/** What the page sends: `seconds` above 0, at most 120. */
const CpuRequest = Schema.Struct({
  seconds: Schema.optionalKey(Schema.Finite.check(isLong)),
  format: Schema.optionalKey(Format)
})

const expected = `{ "seconds": 30, "format": "pprof" }, with at most ${maxSeconds} seconds, or "cpuprofile"`

export const routes = Effect.fnUntraced(function*(always: Add) {
  const add: Add = (method, path, needed, handler) => always(method, path, needed, unlessForeign(handler))
  const base = "/debug/pprof"
  yield* add("GET", `${base}/profile`, "profile", answer(query(CpuQuery, cpu)))
  yield* add("GET", `${base}/goroutine`, "profile", answer(query(TextQuery, fibers)))
  yield* add("GET", `${base}/block`, "profile", answer(block))
  yield* add("GET", `${base}/heap`, "profile", answer(heap))
  yield* add("GET", `${base}/trace`, "profile", Effect.succeed(noTrace))
  yield* add("*", `${base}/*`, "profile", rest)
  yield* add("POST", `${api}/profiles`, "profile", answer(body(CpuRequest, expected, cpu)))
})

/** To look is to make work here, so no page of another site may, be it only as the source of an image. */
const unlessForeign = <R>(handler: Effect.Effect<HttpServerResponse.HttpServerResponse, never, R>) =>
  Effect.flatMap(HttpServerRequest.HttpServerRequest, ({ headers }) => {
    const site = foreignSite(headers)
    return site === undefined
      ? handler
      : Effect.succeed(refusal(403, "origin", `Sec-Fetch-Site must be "same-origin" or "none", got: "${site}"`))
  })

const index = HttpServerResponse.text(
  `profile    what the CPU does: ?seconds=30 (at most ${maxSeconds}), ?format=cpuprofile for Chrome
goroutine  where the fibers stand: ?debug=1 grouped as text, ?debug=2 each by itself
block      who has waited at which mailbox
heap       what lies on the heap (with the package @datadog/pprof)

go tool pprof http://.../debug/pprof/profile
`
)

// The router takes the one for a path below the other.
const rest = Effect.map(
  HttpServerRequest.HttpServerRequest,
  ({ method, url }) => method === "GET" && /^\/debug\/pprof\/?($|\?)/.test(url) ? index : nothing
)

const cpu = Effect.fnUntraced(function*({ format = "pprof", seconds = 30 }: typeof CpuRequest.Type) {
  const profiler = yield* Profiler
  const duration = seconds * 1000
  if (format === "pprof") return file(yield* profiler.cpu(duration), "profile.pb.gz")
  return HttpServerResponse.text(yield* profiler.cpuprofile(duration), {
    contentType: "application/json",
    headers: attachment("profile.cpuprofile")
  })
})

const fibers = Effect.fnUntraced(function*({ debug = "0" }: typeof TextQuery.Type) {
  const profiler = yield* Profiler
  if (debug === "0") return file(yield* profiler.fibers, "goroutine.pb.gz")
  return HttpServerResponse.text(yield* profiler.fiberText(debug === "1" ? "grouped" : "full"))
})

const block = Effect.gen(function*() {
  return file(yield* (yield* Profiler).block, "block.pb.gz")
})

const heap = Effect.gen(function*() {
  return file(yield* (yield* Profiler).heap, "heap.pb.gz")
})

const file = (content: Uint8Array, name: string) =>
  HttpServerResponse.uint8Array(content, { contentType: "application/octet-stream", headers: attachment(name) })

const attachment = (name: string) => ({ "content-disposition": `attachment; filename="${name}"` })

type Failure = BadQuery | ProfilerBusy | ProfilerUnavailable | PackageMissing

const answer = <R>(response: Effect.Effect<HttpServerResponse.HttpServerResponse, Failure, R>) =>
  Effect.catch(response, (error) => Effect.succeed(problem(statuses[error._tag], error.message)))

const statuses = {
  BadQuery: 400,
  ProfilerBusy: 409,
  PackageMissing: 501,
  ProfilerUnavailable: 503
} as const

const noTrace = problem(501, "There is no trace of the execution: Node has no counterpart of Go's")

const nothing = problem(404, "There is no such profile")
