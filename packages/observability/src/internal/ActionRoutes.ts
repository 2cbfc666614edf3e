/** How a page, a terminal or a script acts on a routine, and asks what became of it. */
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { Caller } from "../Access.ts"
import { Action, ActionBody, Actions } from "../Actions.ts"
import { json } from "./Answer.ts"
import { body } from "./Body.ts"
import { Limiter } from "./Limiter.ts"
import { monotonicMillis } from "./Monotonic.ts"
import { Redactor } from "./Redact.ts"
import { problem, refusal, tooMany } from "./Refusal.ts"
import { type Add, api } from "./Route.ts"

export const routes = Effect.fnUntraced(function*(add: Add) {
  const limiter = new Limiter({ limit: 10, windowMillis: 1000, keys: 100 })
  yield* add("POST", `${api}/routines/:id/actions/:action`, "control", limited(limiter, act))
  yield* add("GET", `${api}/actions/:id`, "read", result)
})

/** At most ten in a second for each session, token, or address that has none. */
const limited = <E, R>(limiter: Limiter, app: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>) =>
  Effect.gen(function*() {
    const { key } = yield* Caller
    const wait = limiter.take(key, yield* monotonicMillis)
    return wait === 0 ? yield* app : tooMany("At most 10 actions in a second", wait)
  })

const act = Effect.gen(function*() {
  const { action: named = "", id = "" } = yield* HttpRouter.params
  const action = Option.getOrUndefined(Schema.decodeUnknownOption(Action)(named))
  if (action === undefined) return problem(404, `there is no action "${named}"`)
  const { label: by } = yield* Caller
  return yield* body(
    ActionBody,
    "{ \"reason\": \"...\", \"confirm\": \"...\" }",
    ({ confirm, reason = "" }) =>
      Effect.gen(function*() {
        const { request } = yield* Actions
        const { actionId } = yield* request({ action, id, by, reason, confirm })
        return HttpServerResponse.setHeader(json({ v: 1, actionId }, 202), "location", `${api}/actions/${actionId}`)
      }).pipe(Effect.catchTags({
        MissingReason: (error) => Effect.succeed(refusal(400, "reason", error.message)),
        NotConfirmed: (error) => Effect.succeed(refusal(400, "confirm", error.message)),
        NodeNotFound: (error) => Effect.succeed(problem(404, error.message)),
        WrongState: (error) => Effect.succeed(refusal(409, "state", error.message))
      }))
  )
})

const result = Effect.gen(function*() {
  const { id = "" } = yield* HttpRouter.params
  const { get } = yield* Actions
  const redact = yield* Redactor
  return Option.match(yield* get(id), {
    onNone: () => problem(404, `there is no action "${id}", or it is forgotten`),
    // It may be the error of a start that failed.
    onSome: (status) => json({ ...status, detail: status.detail === null ? null : redact(status.detail) })
  })
})
