/**
 * What stands between a browser and a local HTTP server: who may bind, which names it answers to, which
 * requests may change something, and the headers of every answer.
 *
 * A server on `127.0.0.1` is within reach of every page that its user opens. A page reaches it under a name
 * of its own that resolves to this machine (DNS rebinding, stopped by the `Host` check), or by a request
 * from one origin to another (stopped by the check of `Sec-Fetch-Site`, `Origin` and content type). The
 * rules know nothing of the server that they protect: install them in any `HttpRouter` by `Security.layer`.
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as HttpEffect from "effect/http/HttpEffect"
import * as HttpIncomingMessage from "effect/http/HttpIncomingMessage"
import * as HttpRouter from "effect/http/HttpRouter"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type * as Layer from "effect/Layer"
import * as NetAddress from "effect/net/NetAddress"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Result from "effect/Result"
import * as Schema from "effect/Schema"
import { IncomingMessage } from "node:http"
import { TLSSocket } from "node:tls"
import { type Check as Refused, refusal, unauthorized } from "./internal/Refusal.ts"
import { bearerOf, digest, isGiven, type Labelled, sameDigest } from "./Token.ts"

/**
 * What a server may be asked, and under which name.
 *
 * @category models
 * @since 0.1.0
 */
export interface Options {
  /**
   * Names or IP literals, without a port, that this server answers to beside `localhost` and the address at
   * which it was reached. Default: none.
   */
  readonly allowedHosts?: ReadonlyArray<string> | undefined
  /**
   * Exact paths that answer under any name: probes and scrapers call them by names that nobody lists.
   * Default: none.
   */
  readonly anyHost?: ReadonlyArray<string> | undefined
  /** Bytes a request body may have. Default: 65,536. */
  readonly maxBodySize?: number | undefined
}

/**
 * The check that refused a request; stands as `check` in the problem document.
 *
 * @category models
 * @since 0.1.0
 */
export type Check = Refused

/**
 * A server that has no token was told to listen where other machines can reach it.
 *
 * @category errors
 * @since 0.1.0
 */
export class InsecureBind extends Schema.TaggedError<InsecureBind>()("InsecureBind", {
  host: Schema.String
}) {
  override get message() {
    return `Listening on a non-loopback address needs a token, or an explicit \`insecure: true\`, got: "${this.host}"`
  }
}

/**
 * Fails with `InsecureBind` when `host` is not loopback and neither a token nor `insecure: true` is given.
 * Never waits; call it before listening.
 *
 * **Details**
 *
 * Loopback is `localhost`, `127.0.0.0/8` and `::1`. Any other name counts as reachable from outside, because
 * what it resolves to can change. An empty token counts as none: that is what an unset variable looks like.
 *
 * @category operations
 * @since 0.1.0
 */
export const checkBind = (options: {
  readonly host: string
  readonly token?: Redacted.Redacted | "generate" | undefined
  readonly tokens?: ReadonlyArray<Labelled> | undefined
  readonly insecure?: boolean | undefined
}): Effect.Effect<void, InsecureBind> => {
  const { host, insecure, token, tokens = [] } = options
  const hasToken = token === "generate" || isGiven(token) || tokens.some(({ token }) => isGiven(token))
  return isLoopback(host) || insecure === true || hasToken ? Effect.void : Effect.fail(new InsecureBind({ host }))
}

const isLoopback = (host: string): boolean =>
  host.toLowerCase() === "localhost" ||
  Result.match(canonicalIp(host), { onFailure: () => false, onSuccess: (ip) => NetAddress.isLoopback(ip) })

/**
 * Installs the rules in front of every route of an `HttpRouter`, unknown paths included.
 *
 * **Details**
 *
 * In this order, each refusal is an RFC 9457 problem document that names the failing `check`:
 *
 * - `url`, 414: a request target over 4,096 bytes.
 * - `host`, 400: `Host` is missing, repeated or malformed (RFC 9112, 3.2). 421: it is neither `localhost`, nor
 *   an IP literal equal to the address at which the socket was reached, nor in `allowedHosts`. Ports are not
 *   compared (rebinding needs a *name*); case, one trailing dot and the spelling of IPv6 do not matter.
 * - `origin`, 403, for every method but GET, HEAD and OPTIONS: `Sec-Fetch-Site` is there and is not
 *   `same-origin`; or it is absent (browsers leave it out on plain HTTP to a name) and `Origin` is there and is
 *   not scheme + `Host`. A request with **neither** header passes if it has no cookie: every browser sends `Origin` with
 *   such a method, so it is curl or another program, which no foreign page can steer and which needs no cookie.
 * - `content_type`, 415, for the same methods: the content type is not `application/json`. HTML forms cannot
 *   send that one, so this also holds against a browser too old for the headers above. It is asked even of a
 *   request without a body.
 * - `body`, 413: `Content-Length` over `maxBodySize`; a longer body without `Content-Length` fails when read.
 *
 * Every answer carries a Content Security Policy with Trusted Types, `nosniff`, `no-referrer`, same-origin
 * COOP and CORP, and `Cache-Control: no-store` unless the route set its own. No CORS header is ever sent.
 *
 * **Example** (A program is let in, a foreign page is not)
 *
 * ```ts import.meta.vitest
 * import { Security } from "@effect-orchestra/observability"
 * import { Layer } from "effect"
 * import { HttpRouter, HttpServerResponse } from "effect/http"
 *
 * const app = HttpRouter.add("POST", "/scan", HttpServerResponse.empty({ status: 202 })).pipe(
 *   Layer.provideMerge(Security.layer({ allowedHosts: ["backup.example"] }))
 * )
 * const { handler } = HttpRouter.toWebHandler(app, { disableLogger: true })
 * const post = (headers: Record<string, string>) =>
 *   handler(
 *     new Request("http://backup.example/scan", {
 *       method: "POST",
 *       headers: { host: "backup.example", "content-type": "application/json", ...headers }
 *     })
 *   ).then((response) => response.status)
 *
 * await post({}) // => 202
 * await post({ origin: "http://evil.example" }) // => 403
 * await post({ host: "evil.example" }) // => 421
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: Options = {}): Layer.Layer<never, never, HttpRouter.HttpRouter> => {
  const rules = middleware(options)
  return HttpRouter.use((router) => router.addGlobalMiddleware(rules))
}

/**
 * The same rules as `layer`, for a server without a router: wraps one HTTP effect.
 *
 * @category middleware
 * @since 0.1.0
 */
export const middleware = (options: Options = {}) => {
  const refuse = makeRefusal(options)
  const maxBodySize = BigInt(options.maxBodySize ?? defaultMaxBodySize)
  return <E, R>(
    app: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>
  ): Effect.Effect<HttpServerResponse.HttpServerResponse, E, R | HttpServerRequest.HttpServerRequest> =>
    Effect.withFiber((fiber) => {
      const request = Context.getUnsafe(fiber.context, HttpServerRequest.HttpServerRequest)
      // Not a wrapper around `app`: what the router or the server answers to a failure must carry them as well.
      HttpEffect.appendPreResponseHandlerUnsafe(fiber.context, harden)
      const refused = refuse(request)
      return refused === undefined
        ? Effect.provideService(app, HttpIncomingMessage.MaxBodySize, maxBodySize)
        : Effect.succeed(refused)
    })
}

/**
 * Wraps the HTTP effect of a route so that it needs `Authorization: Bearer` with this token, else answers 401 (`check`:
 * `token`). Without a token, or with an empty one, the route is left as it is.
 *
 * **Details**
 *
 * It belongs on routes rather than in front of them: a list of protected paths is only as good as its idea of how
 * the router reads `//` and `%61`. What is compared are SHA-256 digests, in constant time.
 *
 * @category middleware
 * @since 0.1.0
 */
export const bearer = (token: Redacted.Redacted | undefined) => {
  const expected = isGiven(token) ? digest(Redacted.value(token)) : undefined
  return <E, R>(
    app: Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>
  ): Effect.Effect<HttpServerResponse.HttpServerResponse, E, R | HttpServerRequest.HttpServerRequest> =>
    expected === undefined ? app : Effect.flatMap(HttpServerRequest.HttpServerRequest, (request) => {
      const given = bearerOf(request.headers)
      return given !== undefined && sameDigest(digest(given), expected)
        ? app
        : Effect.succeed(unauthorized("Authorization: Bearer is missing or does not carry the token"))
    })
}

const defaultMaxBodySize = 64 * 1024
const maxUrlLength = 4096
const safeMethods = new Set(["GET", "HEAD", "OPTIONS"])

/** Answers what to refuse the request with, `undefined` if it may pass. */
const makeRefusal = (options: Options) => {
  const allowedHosts = (options.allowedHosts ?? []).map(allowedHost)
  const anyHost = new Set(options.anyHost)
  const maxBodySize = options.maxBodySize ?? defaultMaxBodySize

  return (request: HttpServerRequest.HttpServerRequest): HttpServerResponse.HttpServerResponse | undefined => {
    if (request.url.length > maxUrlLength) {
      return refusal(414, "url", `The request target has more than ${maxUrlLength} bytes`)
    }
    if (!anyHost.has(pathOf(request.url))) {
      const host = hostOf(request)
      if (host === undefined) return refusal(400, "host", "The Host header is missing, repeated or malformed")
      if (!allowedHosts.some((allowed) => sameHost(allowed, host)) && !isLocalAddress(request, host)) {
        return refusal(421, "host", `This server does not answer to the name "${showHost(host)}"`)
      }
    }
    if (!safeMethods.has(request.method)) {
      const foreign = foreignOrigin(request)
      if (foreign !== undefined) return refusal(403, "origin", foreign)
      if (!/^application\/json *(;|$)/i.test(request.headers["content-type"] ?? "")) {
        return refusal(415, "content_type", `${request.method} needs Content-Type: application/json`)
      }
    }
    if (Number(request.headers["content-length"] ?? 0) > maxBodySize) {
      return refusal(413, "body", `The request body has more than ${maxBodySize} bytes`)
    }
    return undefined
  }
}

/**
 * The path that exemptions are compared with, byte for byte. A spelling that the router would fold into an
 * exempt path (`//healthz`, `/healthz/`) is not exempt: the comparison can only err towards checking.
 */
const pathOf = (url: string): string => /^[^?#]*/.exec(url)?.[0] ?? url

type Host = string | NetAddress.IpAddress

/** `undefined` for what is not `name`, `1.2.3.4` or `[v6]`, each with or without a port. */
const parseHost = (header: string): Host | undefined => {
  const [, v6, name, port = ""] = /^(?:\[([0-9a-f:.]+)\]|([a-z0-9_.-]+))(?::(\d{0,5}))?$/i.exec(header) ?? []
  if (Number(port) > 65_535) return undefined
  if (v6 !== undefined) return Result.getOrUndefined(canonicalIp(v6))
  const bare = name?.toLowerCase().replace(/\.$/, "")
  return bare === undefined || bare === "" ? undefined : Result.getOrElse(canonicalIp(bare), () => bare)
}

/** An IPv4 address that a dual-stack socket reports as `::ffff:127.0.0.1` is that IPv4 address. */
const canonicalIp = (literal: string): Result.Result<NetAddress.IpAddress, NetAddress.NetAddressError> =>
  Result.map(NetAddress.ipFromString(literal), (ip) => NetAddress.toCanonical(ip))

const sameHost = (a: Host, b: Host): boolean => Equal.equals(a, b)

const showHost = (host: Host): string => typeof host === "string" ? host : NetAddress.formatIp(host)

const allowedHost = (entry: string): Host => {
  // A bare IPv6 literal is what people write in a list of hosts; only a header needs the brackets.
  const host = Result.getOrElse(canonicalIp(entry), () => /:\d*$/.test(entry) ? undefined : parseHost(entry))
  if (host === undefined) {
    throw new Error(`allowedHosts takes names or IP literals without a port, got: ${JSON.stringify(entry)}`)
  }
  return host
}

const hostOf = (request: HttpServerRequest.HttpServerRequest): Host | undefined => {
  const { source } = request
  // Node keeps the first of several Host lines; which one a proxy in front looked at is anybody's guess.
  if (source instanceof IncomingMessage && (source.headersDistinct.host?.length ?? 0) > 1) return undefined
  return request.headers.host === undefined ? undefined : parseHost(request.headers.host)
}

const isLocalAddress = (request: HttpServerRequest.HttpServerRequest, host: Host): boolean => {
  if (host === "localhost") return true
  if (typeof host === "string" || !(request.source instanceof IncomingMessage)) return false
  // A link-local address carries its zone (`fe80::1%eth0`), which a Host header does not.
  const local = request.source.socket.localAddress?.replace(/%.*$/, "")
  return local !== undefined &&
    Result.match(canonicalIp(local), { onFailure: () => false, onSuccess: (ip) => sameHost(ip, host) })
}

const foreignOrigin = (request: HttpServerRequest.HttpServerRequest): string | undefined => {
  const site = request.headers["sec-fetch-site"]
  if (site !== undefined) {
    return site === "same-origin" ? undefined : `Sec-Fetch-Site must be "same-origin", got: "${site}"`
  }
  const origin = request.headers.origin
  if (origin === undefined) {
    return request.headers.cookie === undefined ? undefined : "A request with a cookie needs Origin or Sec-Fetch-Site"
  }
  const own = Option.map(HttpServerRequest.toURL(request), (url) => `${schemeOf(request, url)}//${url.host}`)
  return Option.contains(own, origin) ? undefined : `Origin must be that of this server, got: "${origin}"`
}

/** `toURL` reads the scheme off the request line, where a client may have written any. */
const schemeOf = (request: HttpServerRequest.HttpServerRequest, url: URL): string =>
  request.protocol === undefined && request.source instanceof IncomingMessage
    ? request.source.socket instanceof TLSSocket ? "https:" : "http:"
    : url.protocol

const headers = {
  "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; " +
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; " +
    "require-trusted-types-for 'script'",
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin"
}

const harden: HttpEffect.PreResponseHandler = (_request, response) =>
  Effect.succeed(HttpServerResponse.setHeaders(response, {
    "cache-control": "no-store",
    ...response.headers,
    ...headers
  }))
