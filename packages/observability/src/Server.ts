/**
 * The server that tells how the tree fares: health, metrics, a JSON API, and a page that shows it live.
 *
 * It is not a part of the tree that it shows. It goes on answering while the orchestrator shuts down (`/readyz` with
 * 503, so that no new work is sent here) until its own layer is closed.
 *
 * **Example** (A service that can be looked at)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Server } from "@effect-orchestra/observability"
 * import { Effect, Layer } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   yield* Orchestrator.fork(Effect.never, { name: "poller" })
 *   const { url } = yield* Server.Server
 *   const ready = yield* Effect.promise(() => fetch(`${url}/readyz`))
 *   return ready.status
 * })
 *
 * const layer = Layer.provideMerge(Server.layer({ port: 0 }), Orchestrator.layer)
 * await Effect.runPromise(program.pipe(Effect.provide(layer))) // => 200
 * ```
 *
 * @since 0.1.0
 */
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpMiddleware from "effect/http/HttpMiddleware"
import * as HttpRouter from "effect/http/HttpRouter"
import type { ServeError } from "effect/http/HttpServerError"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as ProblemDetails from "effect/http/ProblemDetails"
import * as Layer from "effect/Layer"
import * as NetAddress from "effect/net/NetAddress"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { createServer } from "node:http"
import * as Api from "./Api.ts"
import * as Dashboard from "./Dashboard.ts"
import { Feed } from "./Feed.ts"
import * as Prometheus from "./Prometheus.ts"
import * as Security from "./Security.ts"
import { Telemetry } from "./Telemetry.ts"

/**
 * What the routes ask of those who call them.
 *
 * @category models
 * @since 0.1.0
 */
export interface RouterOptions {
  /** Names, without a port, that the server answers to beside `localhost` and its own address. Default: none. */
  readonly allowedHosts?: ReadonlyArray<string> | undefined
  /** Asked as `Authorization: Bearer` for `/metrics` and the API. Default: nothing is asked. */
  readonly token?: Redacted.Redacted | undefined
}

/**
 * Where the server listens and for whom.
 *
 * @category models
 * @since 0.1.0
 */
export interface ServerOptions extends RouterOptions {
  /** 0 takes a free one, which `Server.port` names. Default: 9090. */
  readonly port?: number | undefined
  /** Default: `127.0.0.1`, which no other machine can reach. */
  readonly host?: string | undefined
  /** Listen on an address that other machines can reach, without a token. Default: false. */
  readonly insecure?: boolean | undefined
}

/**
 * The server that is running.
 *
 * @category services
 * @since 0.1.0
 */
export class Server extends Context.Service<Server, {
  /** The port it really listens on. */
  readonly port: number
  /** Its address as a URL, without a slash at the end: `http://127.0.0.1:9090`. */
  readonly url: string
}>()("@effect-orchestra/observability/Server") {}

/**
 * Serves the routes of `router` on a port of its own. Built when it listens; closing it ends the open streams, waits
 * at most 0.5 seconds for other answers under way, and closes every connection.
 *
 * Fails with `InsecureBind` for an address that other machines can reach, without a `token` or `insecure: true`, and
 * with `ServeError` when the port cannot be had.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (
  options: ServerOptions = {}
): Layer.Layer<Server, Security.InsecureBind | ServeError, Orchestrator> => {
  const app = routes(options)
  return Layer.effect(Server, make(options, app)).pipe(
    Layer.provide(Feed.layer),
    Layer.provide(Telemetry.layer)
  )
}

/**
 * The routes alone, rules of `Security` included, to mount in a server that is there already. Their paths begin with
 * `/healthz`, `/readyz`, `/metrics` and `/orchestra`, and must not be moved below a prefix.
 *
 * **Gotchas**
 *
 * An open page holds its stream for as long as the server lives: give that server a short `gracefulShutdownTimeout`.
 *
 * @category layers
 * @since 0.1.0
 */
export const router = (
  options: RouterOptions = {}
): Layer.Layer<never, never, HttpRouter.HttpRouter | Orchestrator> =>
  routes(options).pipe(Layer.provide(Feed.layer), Layer.provide(Telemetry.layer))

const make = Effect.fnUntraced(function*(options: ServerOptions, app: ReturnType<typeof routes>) {
  const { host = "127.0.0.1", port = 9090 } = options
  yield* Security.checkBind({ ...options, host })
  const node = createServer({
    headersTimeout: Duration.toMillis("10 seconds"),
    requestTimeout: Duration.toMillis("30 seconds"),
    keepAliveTimeout: Duration.toMillis("75 seconds"),
    connectionsCheckingInterval: Duration.toMillis("5 seconds")
  })
  const server = yield* NodeHttpServer.make(() => node, { port, host, gracefulShutdownTimeout: "500 millis" })
  // Else whoever sends a request without ever finishing it would keep this process alive.
  yield* Effect.addFinalizer(() => Effect.sync(() => node.closeAllConnections()))
  const feed = yield* Feed
  yield* Effect.provideService(
    server.serve(yield* HttpRouter.toHttpEffect(app)),
    // Whoever looks at a service should not see himself looking.
    HttpMiddleware.TracerDisabledWhen,
    () => true
  )
  // Added last, so run first: the server waits for the streams, which do not end by themselves.
  yield* Effect.addFinalizer(() => feed.close)
  const { address } = server
  return Server.of({
    port: "port" in address ? address.port : 0,
    url: NetAddress.formatUrlUnsafe(address).replace(/\/$/, "")
  })
})

const routes = (options: RouterOptions) => {
  const guard = Security.bearer(options.token)
  const rules = Security.layer({ allowedHosts: options.allowedHosts, anyHost: ["/healthz", "/readyz", "/metrics"] })
  const api = "/orchestra/api/v1"
  return HttpRouter.use(Effect.fnUntraced(function*(router) {
    // Not all of the context: the scope of this layer must not stand in for that of a request.
    const context = Context.pick(Orchestrator, Telemetry, Feed)(
      yield* Effect.context<Orchestrator | Telemetry | Feed>()
    )
    type Handler<R> = Effect.Effect<HttpServerResponse.HttpServerResponse, never, R>
    const get = <R>(path: HttpRouter.PathInput, handler: Handler<R>) =>
      router.add("GET", path, Effect.provideContext(handler, context))
    yield* get("/healthz", Effect.succeed(HttpServerResponse.text("ok")))
    yield* get("/readyz", readiness)
    yield* get("/metrics", guard(yield* scrape))
    for (const { content, headers, path } of yield* Dashboard.files) {
      yield* get(path, Effect.succeed(HttpServerResponse.uint8Array(content, { headers })))
    }
    yield* get(`${api}/overview`, guard(answer(Api.overview)))
    yield* get(`${api}/routines`, guard(answer(query(Api.RoutineQuery, Api.routines))))
    yield* get(`${api}/tree`, guard(answer(query(Api.TreeQuery, Api.tree))))
    yield* get(`${api}/stream`, guard(stream))
    yield* router.add("*", "/orchestra/api/*", problem(404, "Not Found", "There is nothing at this path"))
  })).pipe(Layer.provideMerge(rules))
}

const json = (body: object, status = 200) => HttpServerResponse.jsonUnsafe(body, { status })

const problem = (status: number, title: string, detail: string) =>
  ProblemDetails.toResponse({ type: ProblemDetails.blankType, title, status, detail })

/**
 * Ready while the orchestrator takes routines and every supervisor right below it runs. A child that is being
 * restarted does not make a service unready: that is what its supervisor is for.
 */
const readiness = Effect.gen(function*() {
  const { kernel, status } = yield* Orchestrator
  const checks = [{ name: kernel.name, status: (yield* status) === "open" ? "pass" : "fail", since: kernel.since }]
  for (const node of kernel.children ?? []) {
    if (node.kind !== "supervisor") continue
    const { path, since, state } = node.snapshot()
    checks.push({ name: path, status: state === "running" ? "pass" : "fail", since })
  }
  const ready = checks.every((check) => check.status === "pass")
  return json({ status: ready ? "pass" : "fail", checks }, ready ? 200 : 503)
})

/** The handler of a scrape. Those that come at once, or within a second, share one rendering. */
const scrape = Effect.flatMap(Telemetry, ({ collect, resource }) =>
  collect.pipe(
    Effect.flatMap((meters) => Prometheus.render(meters, resource)),
    Effect.map((text) => HttpServerResponse.text(text, { contentType: Prometheus.contentType })),
    Effect.cachedWithTTL("1 second")
  ))

const answer = <R>(body: Effect.Effect<object, Api.BadQuery | Api.NodeNotFound, R>) =>
  body.pipe(
    Effect.map((value) => json(value)),
    Effect.catchTag("BadQuery", (error) => Effect.succeed(problem(400, "Bad Request", error.message))),
    Effect.catchTag("NodeNotFound", (error) => Effect.succeed(problem(404, "Not Found", error.message)))
  )

const query = <Q, I, A, E, R>(schema: Schema.Codec<Q, I>, handler: (query: Q) => Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const given = yield* HttpServerRequest.ParsedSearchParams
    const decoded = yield* Effect.mapError(
      Schema.decodeUnknownEffect(schema)(given),
      (error) => new Api.BadQuery({ parameter: "query", detail: error.message })
    )
    return yield* handler(decoded)
  })

const stream = Effect.gen(function*() {
  const request = yield* HttpServerRequest.HttpServerRequest
  const frames = yield* (yield* Feed).open(request.headers["last-event-id"])
  return HttpServerResponse.stream(Stream.encodeText(frames), {
    contentType: "text/event-stream",
    // A stream that ends leaves nothing to keep the connection for, and a closing server would wait for it.
    headers: { connection: "close" }
  })
}).pipe(
  Effect.catchTag("TooManyStreams", (error) =>
    Effect.succeed(
      HttpServerResponse.setHeader(problem(503, "Service Unavailable", error.message), "retry-after", "10")
    ))
)
