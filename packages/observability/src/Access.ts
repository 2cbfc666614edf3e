/**
 * Who is let in, and what for: tokens, the sessions that pages exchange them for, and what a server allows at all.
 *
 * Where no token is configured everybody is let in, which is why such a server listens on the loopback alone. Looking is
 * always possible then; looking into messages, taking profiles and acting are off unless they are enabled. Acting asks for
 * a token even there: one is generated when none is given.
 *
 * **Example** (Two tokens, of which one may act)
 *
 * ```ts import.meta.vitest
 * import { Access } from "@effect-orchestra/observability"
 * import { Effect, Redacted } from "effect"
 * import { HttpServerRequest, HttpServerResponse } from "effect/http"
 *
 * const access = Access.make({
 *   control: true,
 *   tokens: [
 *     { label: "prometheus", token: Redacted.make("look"), scope: "read" },
 *     { label: "on call", token: Redacted.make("act"), scope: "control" }
 *   ]
 * })
 * const guarded = access.require("control")(Effect.succeed(HttpServerResponse.text("done")))
 * const ask = (token: string) => {
 *   const request = new Request("http://localhost/", { headers: { authorization: `Bearer ${token}` } })
 *   const given = Effect.provideService(HttpServerRequest.HttpServerRequest, HttpServerRequest.fromWeb(request))
 *   return Effect.runPromise(Effect.map(given(guarded), ({ status }) => status))
 * }
 *
 * await ask("act") // => 200
 * await ask("look") // => 403
 * await ask("guess") // => 401
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as HttpBody from "effect/http/HttpBody"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { Limiter } from "./internal/Limiter.ts"
import { monotonicMillis } from "./internal/Monotonic.ts"
import { foreignSite, refusal, tooMany, unauthorized } from "./internal/Refusal.ts"
import { type Session, Sessions } from "./Session.ts"
import { Telemetry } from "./Telemetry.ts"
import * as Token from "./Token.ts"

/**
 * Who may do what. Everything beyond looking is off unless it is enabled.
 *
 * @category models
 * @since 0.1.0
 */
export interface AccessOptions {
  /**
   * Asked for `/metrics`, the API and all beyond, and good for whatever is enabled. `"generate"` makes one at random; so
   * does `control` where there is no other. It is printed once, in a link to the page. Default: nothing is asked.
   *
   * Give a long and random one: wrong ones are slowed down, but nothing else protects a short one from being guessed.
   */
  readonly token?: Redacted.Redacted | "generate" | undefined
  /** More of them, each with a label that the audit names and the most that it is good for. Default: none. */
  readonly tokens?: ReadonlyArray<Token.Labelled> | undefined
  /** Look into messages. Default: false. */
  readonly inspect?: boolean | undefined
  /** Take profiles. Default: false. */
  readonly profile?: boolean | undefined
  /** Restart, stop, interrupt and release routines. Asks for a token, see `token`. Default: false. */
  readonly control?: boolean | undefined
}

/**
 * Whose request it is: the label of the token, null where none is asked for, and the most that it is good for.
 *
 * @category models
 * @since 0.1.0
 */
export interface Caller {
  readonly label: string | null
  readonly scope: Token.Scope
  /** Tells callers apart where they are counted: the session, the token, or the address. */
  readonly key: string
  readonly session: Session | undefined
}

/**
 * Whose request is being answered, within a handler that `require` wraps.
 *
 * @category models
 * @since 0.1.0
 */
export const Caller = Context.Reference<Caller>("@effect-orchestra/observability/Access/Caller", {
  defaultValue: () => ({ label: null, scope: "read", key: "", session: undefined })
})

type Handler<E, R> = Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>

/**
 * How the handler of a route is guarded.
 *
 * @category models
 * @since 0.1.0
 */
export interface RequireOptions {
  /** Whether the cookie of a session does not count, since it is there for the page alone. Default: false. */
  readonly bearerOnly?: boolean | undefined
}

/**
 * The door of a server.
 *
 * @category services
 * @since 0.1.0
 */
export class Access extends Context.Service<Access, {
  /** The token that was generated, if one was. */
  readonly generated: Redacted.Redacted | undefined
  /** The labels of the tokens that it knows; where there is none, nothing is asked. */
  readonly labels: ReadonlyArray<string>
  /**
   * Wraps the handler of a route so that it needs this scope. Else 403 (`check`: `scope`) when the scope is not enabled
   * or the token has less, and 401 (`token`) without a token, with a wrong one, or with a session that is over. The
   * handler finds its `Caller`.
   *
   * More than ten wrong tokens in a minute from one address (of IPv6: one /64 network) are answered with 429 (`rate`), a
   * second late. A right one is let in all the same, and at once.
   */
  readonly require: (
    scope: Token.Scope,
    options?: RequireOptions
  ) => <E, R>(app: Handler<E, R>) => Handler<E, R | HttpServerRequest.HttpServerRequest>
  /** Exchanges a token for a session: its id, to be kept in the cookie; nothing where no token is asked for. */
  readonly signIn: (
    token: string
  ) => Effect.Effect<
    { readonly caller: Caller; readonly id: string | undefined },
    HttpServerResponse.HttpServerResponse,
    HttpServerRequest.HttpServerRequest
  >
  /** Ends the session of the request, if it has one. */
  readonly signOut: Effect.Effect<void, never, HttpServerRequest.HttpServerRequest>
  /** What the caller may do here. */
  readonly may: (caller: Caller) => ReadonlyArray<Token.Scope>
  /** The name of the cookie: cookies are sent to every port of a host, so each process has a name of its own. */
  readonly cookie: string
}>()("@effect-orchestra/observability/Access") {
  /**
   * @category layers
   * @since 0.1.0
   */
  static layer(options: AccessOptions): Layer.Layer<Access, never, Telemetry> {
    return Layer.effect(this, Effect.map(Telemetry, ({ instance }) => make({ ...options, instance })))
  }
}

/** What a wrong token may cost the server: so many addresses are remembered, so many answers are held back at once. */
const failures = { limit: 10, windowMillis: 60_000, keys: 1000, delay: "1 second", delayed: 32 } as const

interface Known {
  readonly label: string
  readonly scope: Token.Scope
  readonly digest: Uint8Array
}

/**
 * Makes the door. `instance` goes into the name of the cookie. A label that is empty or stands twice is a defect.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = (options: AccessOptions & { readonly instance?: string | undefined }): Access["Service"] => {
  const { generated, known } = tokensOf(options)
  const sessions = new Sessions()
  const wrong = new Limiter(failures)
  const cookie = `orchestra-${options.instance ?? "session"}`
  let delayed = 0

  const enabled = (scope: Token.Scope): boolean => scope === "read" || options[scope] === true

  const identify = (given: string): Known | undefined => {
    const digest = Token.digest(given)
    // All of them, so that how long it takes does not tell which.
    return known.filter((token) => Token.sameDigest(token.digest, digest))[0]
  }

  const refuseToken = Effect.fnUntraced(function*(request: HttpServerRequest.HttpServerRequest) {
    const wait = wrong.take(addressOf(request), yield* monotonicMillis)
    if (wait === 0) return unauthorized("The token is wrong")
    if (delayed < failures.delayed) {
      delayed++
      yield* Effect.ensuring(Effect.sleep(failures.delay), Effect.sync(() => void delayed--))
    }
    return tooMany("Too many wrong tokens came from this address", wait)
  })

  const sessionOf = (request: HttpServerRequest.HttpServerRequest, now: number): Session | undefined => {
    const id = request.cookies[cookie]
    return id === undefined ? undefined : sessions.find(id, now)
  }

  /** Whose request it is, or why it is nobody's. */
  const callerOf = Effect.fnUntraced(function*(request: HttpServerRequest.HttpServerRequest, bearerOnly: boolean) {
    if (known.length === 0) return anonymous(request)
    const given = Token.bearerOf(request.headers)
    if (given !== undefined) {
      const token = identify(given)
      return token === undefined ? yield* refuseToken(request) : named(token, `token ${token.label}`)
    }
    // Browsers send a cookie with what a page on another *port* of this host asks for, whatever its `SameSite`. That
    // page cannot read the answer, but it could hold all the streams.
    const foreign = bearerOnly ? undefined : foreignSite(request.headers)
    const session = bearerOnly ? undefined : sessionOf(request, yield* monotonicMillis)
    if (session === undefined) return unauthorized(missing(bearerOnly))
    return foreign === undefined
      ? named(session, `session ${session.key}`, session)
      : refusal(403, "origin", `A session counts for the page of this server alone, got: Sec-Fetch-Site: "${foreign}"`)
  })

  const require: Access["Service"]["require"] = (scope, { bearerOnly = false } = {}) => (app) =>
    Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
      if (!enabled(scope)) {
        return Effect.succeed(refusal(403, "scope", `This server does not allow it: enable \`${scope}\``))
      }
      return Effect.flatMap(callerOf(request, bearerOnly), (caller) => {
        if (HttpServerResponse.isHttpServerResponse(caller)) return Effect.succeed(caller)
        if (!Token.allows(caller.scope, scope)) {
          const detail = `It needs the scope "${scope}", got: a token "${caller.label}" of scope "${caller.scope}"`
          return Effect.succeed(refusal(403, "scope", detail))
        }
        const answer = Effect.provideService(app, Caller, caller)
        return caller.session === undefined ? answer : Effect.map(answer, whileOpen(caller.session))
      })
    })

  return Access.of({
    generated,
    labels: known.map(({ label }) => label),
    cookie,
    require,
    signIn: Effect.fnUntraced(function*(given) {
      const request = yield* HttpServerRequest.HttpServerRequest
      if (known.length === 0) return { caller: anonymous(request), id: undefined }
      const token = identify(given)
      if (token === undefined) return yield* Effect.flatMap(refuseToken(request), Effect.fail)
      const now = yield* monotonicMillis
      const id = sessions.begin(token, now)
      const session = sessions.find(id, now)
      return { caller: named(token, `session ${session?.key}`, session), id }
    }),
    signOut: Effect.gen(function*() {
      const session = sessionOf(yield* HttpServerRequest.HttpServerRequest, yield* monotonicMillis)
      if (session !== undefined) sessions.end(session)
    }),
    may: (caller) => Token.scopes.filter((scope) => enabled(scope) && Token.allows(caller.scope, scope))
  })
}

/** What is not given is not asked for; an empty token is what an unset variable looks like. */
const tokensOf = (options: AccessOptions) => {
  const { control, token, tokens = [] } = options
  const labels = new Set(["token"])
  const known: Array<Known> = []
  const add = (label: string, scope: Token.Scope, secret: Redacted.Redacted) =>
    known.push({ label, scope, digest: Token.digest(Redacted.value(secret)) })
  for (const { label, scope = "read", token: secret } of tokens) {
    if (label === "" || labels.has(label)) {
      throw new Error(`each of \`tokens\` has a label of its own, not "token", got: ${JSON.stringify(label)}`)
    }
    labels.add(label)
    if (Token.isGiven(secret)) add(label, scope, secret)
  }
  if (token !== "generate" && Token.isGiven(token)) add("token", "control", token)
  const isNeeded = token === "generate" || (control === true && known.length === 0)
  const generated = isNeeded ? Redacted.make(Token.secret()) : undefined
  if (generated !== undefined) add("token", "control", generated)
  return { generated, known }
}

const missing = (bearerOnly: boolean): string =>
  bearerOnly
    ? "Authorization: Bearer is missing"
    : "Authorization: Bearer is missing, and there is no session, or it is over"

const anonymous = (request: HttpServerRequest.HttpServerRequest): Caller => ({
  label: null,
  scope: "control",
  key: `address ${addressOf(request)}`,
  session: undefined
})

const named = (
  { label, scope }: { readonly label: string; readonly scope: Token.Scope },
  key: string,
  session?: Session
): Caller => ({ label, scope, key, session })

/** Of IPv6 the /64 network, which is what one customer has at least. */
const addressOf = (request: HttpServerRequest.HttpServerRequest): string => {
  const remote = Option.getOrElse(request.remoteAddress, () => "").replace(/%.*$/, "")
  const ip = Result.getOrUndefined(Result.map(NetAddress.ipFromString(remote), (ip) => NetAddress.toCanonical(ip)))
  if (ip === undefined) return remote
  return NetAddress.isIpv6Address(ip) ? NetAddress.ipv6ToSegments(ip).slice(0, 4).join(":") : NetAddress.formatIp(ip)
}

/** A stream that a session reads ends with the session. */
const whileOpen = (session: Session) => (response: HttpServerResponse.HttpServerResponse) => {
  const { body } = response
  if (body._tag !== "Stream") return response
  const used = Effect.sync(() => void session.streams++)
  const unused = Effect.flatMap(monotonicMillis, (now) =>
    Effect.sync(() => {
      session.streams--
      session.seenAt = now
    }))
  const stream = Stream.unwrap(Effect.as(
    Effect.acquireRelease(used, () => unused),
    Stream.interruptWhen(body.stream, Deferred.await(session.over))
  ))
  return HttpServerResponse.setBody(response, HttpBody.stream(stream, body.contentType, body.contentLength))
}
