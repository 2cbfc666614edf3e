/** How a page exchanges its token for a cookie, asks what it may do, and logs out. */
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import { IncomingMessage } from "node:http"
import { TLSSocket } from "node:tls"
import { Access, Caller } from "../Access.ts"
import { limits, type SessionInfo, SignIn } from "../Session.ts"
import { json } from "./Answer.ts"
import { body } from "./Body.ts"
import { type Add, api } from "./Route.ts"

const path = `${api}/session` as const

export const routes = Effect.fnUntraced(function*(add: Add) {
  yield* add("GET", path, "read", whoAmI)
  yield* add("POST", path, "open", signIn)
  yield* add("DELETE", path, "open", signOut)
})

const told = (access: Access["Service"], caller: Caller): HttpServerResponse.HttpServerResponse => {
  const info: SessionInfo = {
    v: 1,
    label: caller.label,
    may: access.may(caller),
    session: caller.session !== undefined
  }
  return json(info)
}

const whoAmI = Effect.gen(function*() {
  const access = yield* Access
  const caller = yield* Caller
  const request = yield* HttpServerRequest.HttpServerRequest
  const id = request.cookies[access.cookie]
  const answer = told(access, caller)
  // Kept for as long as the session here.
  return caller.session === undefined || id === undefined ? answer : withCookie(answer, access, request, id)
})

const signIn = body(SignIn, "{ \"token\": \"...\" }", ({ token }) =>
  Effect.gen(function*() {
    const access = yield* Access
    const request = yield* HttpServerRequest.HttpServerRequest
    const { caller, id } = yield* access.signIn(token)
    const answer = told(access, caller)
    return id === undefined ? answer : withCookie(answer, access, request, id)
  }).pipe(Effect.catch((refused) => Effect.succeed(refused))))

const signOut = Effect.gen(function*() {
  const access = yield* Access
  const request = yield* HttpServerRequest.HttpServerRequest
  yield* access.signOut
  const empty = HttpServerResponse.empty({ status: 204 })
  return HttpServerResponse.expireCookieUnsafe(empty, access.cookie, options(request))
})

const withCookie = (
  answer: HttpServerResponse.HttpServerResponse,
  access: Access["Service"],
  request: HttpServerRequest.HttpServerRequest,
  id: string
): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.setCookieUnsafe(answer, access.cookie, id, { ...options(request), maxAge: limits.idle })

const options = (request: HttpServerRequest.HttpServerRequest) => ({
  httpOnly: true,
  sameSite: "strict" as const,
  path: "/orchestra",
  secure: isSecure(request)
})

/** Also behind a proxy that ends TLS: then the browser says so, and its word has been checked by then. */
const isSecure = ({ headers, source }: HttpServerRequest.HttpServerRequest): boolean =>
  (source instanceof IncomingMessage && source.socket instanceof TLSSocket) ||
  headers.origin?.startsWith("https:") === true
