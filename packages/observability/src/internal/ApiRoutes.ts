/** The JSON API and its stream. */
import * as Effect from "effect/Effect"
import type * as HttpEffect from "effect/http/HttpEffect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Option from "effect/Option"
import type * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import * as Api from "../Api.ts"
import { Feed } from "../Feed.ts"
import { answer, refusing } from "./Answer.ts"
import { limits, type Topic, topics } from "./Channel.ts"
import * as Details from "./Details.ts"
import { dump } from "./Dump.ts"
import { eventItem, matched } from "./Events.ts"
import { logs } from "./LogLines.ts"
import { query, valuesOf } from "./Query.ts"
import { Redactor } from "./Redact.ts"
import { problem } from "./Refusal.ts"
import { type Add, api } from "./Route.ts"
import { Pace } from "./Walk.ts"

/** What of the options of the server is shown in a dump: no secret is among them. */
export type ShownOptions = Readonly<Record<string, unknown>>

export const routes = Effect.fnUntraced(function*(add: Add, options: ShownOptions = {}) {
  const get = <Q, I, A extends object, R extends Effect.Services<Parameters<Add>[3]>>(
    path: string,
    schema: Schema.Codec<Q, I>,
    handler: (query: Q) => Effect.Effect<A, Api.BadQuery | Api.NodeNotFound, R>
  ) => add("GET", `${api}${path}`, "read", answer(query(schema, handler)))

  const detail = (
    path: string,
    handler: (id: string) => Effect.Effect<object, Api.NodeNotFound, Effect.Services<Parameters<Add>[3]>>
  ) => add("GET", `${api}${path}`, "read", answer(Effect.flatMap(idOf, handler)))

  yield* get("/overview", Api.OverviewQuery, Api.overviewWith)
  yield* get("/routines", Api.RoutineQuery, Api.routines)
  yield* get("/tree", Api.TreeQuery, Api.tree)
  yield* get("/mailboxes", Api.MailboxQuery, Api.mailboxes)
  yield* get("/buses", Api.NodeQuery, Api.buses)
  yield* get("/groups", Api.NodeQuery, Api.groups)
  yield* get("/sagas", Api.NodeQuery, Api.sagas)
  yield* detail("/routines/:id", Details.routine)
  yield* detail("/routines/:id/history", Details.history)
  yield* detail("/routines/:id/logs", logs)
  yield* detail("/mailboxes/:id", Details.nodeOf("mailbox"))
  yield* detail("/buses/:id", Details.nodeOf("bus", "topic"))
  yield* detail("/groups/:id", Details.nodeOf("group"))
  yield* detail("/sagas/:id", Details.nodeOf("saga"))
  yield* add(
    "GET",
    `${api}/mailboxes/:id/messages`,
    "inspect",
    answer(Effect.flatMap(idOf, (id) => query(Api.MessagesQuery, (query) => Details.messages(id, query))))
  )
  yield* add("GET", `${api}/events`, "read", refusing(query(Api.EventQuery, events)))
  yield* add(
    "GET",
    `${api}/dump`,
    "read",
    Effect.map(dump(options), (chunks) =>
      HttpServerResponse.stream(Stream.rechunk(Stream.fromIterable(chunks), 1), {
        contentType: "application/json",
        headers: { "content-disposition": "attachment; filename=\"orchestra-dump.json\"" }
      }))
  )
  yield* add("GET", `${api}/stream`, "read", refusing(query(Api.StreamQuery, stream)))
  // Not every method: HEAD is answered as GET is where nothing else is told.
  yield* add("GET", "/orchestra/api/*", "open", nothing)
})

const idOf = Effect.map(HttpRouter.params, ({ id = "" }) => id)

const nothing = Effect.succeed(problem(404, "There is nothing at this path"))

/** What the router itself answers, to a path that it cannot read or to another method, is a document as well. */
export const documented: HttpEffect.PreResponseHandler = (request, response) =>
  response.status === 404 && response.body._tag === "Empty" && request.url.startsWith("/orchestra/api/")
    ? nothing
    : Effect.succeed(response)

const events = Effect.fnUntraced(function*(query: typeof Api.EventQuery.Type) {
  if (query.format !== "ndjson") return yield* answer(Api.events(query))
  const redact = yield* Redactor
  const found = yield* matched(query)
  const lines = Stream.paginate(
    0,
    Effect.fnUntraced(function*(from: number) {
      const pace = new Pace()
      let text = ""
      let at = from
      while (at < found.length && text.length < 65_536) {
        const logged = found[at++]
        if (logged !== undefined) text += `${JSON.stringify(eventItem(logged, redact))}\n`
        if (pace.isOver(16)) yield* pace.rest
      }
      const next = at < found.length ? Option.some(at) : Option.none<number>()
      return [text === "" ? [] : [text], next] as const
    })
  )
  return HttpServerResponse.stream(Stream.encodeText(lines), { contentType: "application/x-ndjson" })
})

const isTopic = (topic: string): topic is Topic => (topics as ReadonlyArray<string>).includes(topic)

const stream = Effect.fnUntraced(function*(query: typeof Api.StreamQuery.Type) {
  const request = yield* HttpServerRequest.HttpServerRequest
  const asked = query.topics === undefined ? undefined : valuesOf(query.topics)
  const wrong = asked?.find((topic) => !isTopic(topic))
  if (wrong !== undefined) {
    const detail = `expected ${topics.join(", ")}, got: "${wrong}"`
    return yield* new Api.BadQuery({ parameter: "topics", detail })
  }
  const ids = query.ids === undefined ? undefined : [...new Set(valuesOf(query.ids))]
  if (ids !== undefined && ids.length > limits.ids) {
    return yield* new Api.BadQuery({ parameter: "ids", detail: `at most ${limits.ids}, got: ${ids.length}` })
  }
  const opened = (yield* Feed).open({
    lastEventId: request.headers["last-event-id"],
    topics: asked?.filter(isTopic),
    ids
  })
  const response = Effect.map(opened, (frames) =>
    HttpServerResponse.stream(Stream.encodeText(frames), {
      contentType: "text/event-stream",
      // A stream that ends leaves nothing to keep the connection for, and a closing server would wait for it.
      headers: { connection: "close" }
    }))
  return yield* Effect.catchTag(response, "TooManyStreams", (error) =>
    Effect.succeed(
      HttpServerResponse.setHeader(problem(503, error.message), "retry-after", "10")
    ))
})
