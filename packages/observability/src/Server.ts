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
import { millisOf } from "@effect-orchestra/core/Kernel"
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HttpEffect from "effect/http/HttpEffect"
import * as HttpMiddleware from "effect/http/HttpMiddleware"
import * as HttpRouter from "effect/http/HttpRouter"
import type { ServeError } from "effect/http/HttpServerError"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as Layer from "effect/Layer"
import * as NetAddress from "effect/net/NetAddress"
import * as Redacted from "effect/Redacted"
import { createServer } from "node:http"
import { Access, type AccessOptions } from "./Access.ts"
import { Actions } from "./Actions.ts"
import { Charts } from "./Charts.ts"
import * as Dashboard from "./Dashboard.ts"
import { EventLog } from "./EventLog.ts"
import { Feed } from "./Feed.ts"
import * as ActionRoutes from "./internal/ActionRoutes.ts"
import { json } from "./internal/Answer.ts"
import * as ApiRoutes from "./internal/ApiRoutes.ts"
import { answerClientErrors } from "./internal/ClientError.ts"
import * as PprofRoutes from "./internal/PprofRoutes.ts"
import { redacting, Redactor } from "./internal/Redact.ts"
import type { Add, Provided } from "./internal/Route.ts"
import * as Scrape from "./internal/Scrape.ts"
import * as SessionRoutes from "./internal/SessionRoutes.ts"
import { visit } from "./internal/Walk.ts"
import * as Profiler from "./Profiler.ts"
import * as Security from "./Security.ts"
import { Telemetry } from "./Telemetry.ts"

/**
 * What the routes ask of those who call them.
 *
 * @category models
 * @since 0.1.0
 */
export interface RouterOptions extends AccessOptions {
  /** Names, without a port, that the server answers to beside `localhost` and its own address. Default: none. */
  readonly allowedHosts?: ReadonlyArray<string> | undefined
  /**
   * What texts that are the application's own pass before they are shown: errors, messages, log lines; of one that throws
   * nothing is shown. They are cut at 4 KB behind it. Default: nothing is changed.
   */
  readonly redact?: ((text: string) => string) | undefined
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
  /** How long a client may take for the head of a request. Default: 10 seconds. */
  readonly headersTimeout?: Duration.Input | undefined
  /** How long it may take for all of it. Default: 30 seconds. */
  readonly requestTimeout?: Duration.Input | undefined
  /** How long a connection is kept on which nothing is asked. Default: 75 seconds. */
  readonly idleTimeout?: Duration.Input | undefined
  /**
   * How long nothing may move on a connection whose answer is under way, since the client does not read say. Default: 3
   * minutes; a profile takes up to 2, in which nothing moves.
   */
  readonly stallTimeout?: Duration.Input | undefined
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
  /** The token that was generated, if one was. */
  readonly token: Redacted.Redacted | undefined
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
  return Layer.effect(Server, make(options, app)).pipe(Layer.provide(services(options)))
}

/** What the routes need beside the orchestrator. */
const services = (options: RouterOptions) =>
  Layer.mergeAll(watching(options), Access.layer(options), Actions.layer, profiler(options)).pipe(
    Layer.provideMerge(Telemetry.shared)
  )

/** Who remembers what happens, for those who come later. */
const watching = (options: RouterOptions) =>
  Feed.layer.pipe(
    Layer.provideMerge(Charts.layer),
    Layer.provideMerge(EventLog.layer),
    // Nodes are found by their ids from here on: the index is made while there are few of them.
    Layer.provideMerge(Layer.effectDiscard(Effect.map(Orchestrator, ({ kernel }) => void kernel.nodes.size))),
    Layer.provide(Layer.succeed(Redactor, redacting(options.redact)))
  )

/**
 * The routes alone, rules of `Security` included, to mount in a server that is there already. Their paths begin with
 * `/healthz`, `/readyz`, `/metrics`, `/debug/pprof` and `/orchestra`, and must not be moved below a prefix.
 *
 * **Gotchas**
 *
 * A token that is generated is printed without the address, which nobody knows here.
 *
 * An open page holds its stream for as long as the server lives: give that server a short `gracefulShutdownTimeout`.
 *
 * @category layers
 * @since 0.1.0
 */
export const router = (
  options: RouterOptions = {}
): Layer.Layer<never, never, HttpRouter.HttpRouter | Orchestrator> =>
  Layer.effectDiscard(Effect.flatMap(Access, (access) => printed(access, ""))).pipe(
    Layer.provideMerge(routes(options)),
    Layer.provide(services(options))
  )

/** Where nobody may profile, nothing is sampled. */
const profiler = ({ profile = false }: RouterOptions) => Profiler.shared({ heap: profile, block: profile })

const make = Effect.fnUntraced(function*(options: ServerOptions, app: ReturnType<typeof routes>) {
  const { host = "127.0.0.1", port = 9090 } = options
  yield* Security.checkBind({ ...options, host })
  const node = createServer(limitsOf(options))
  // A stream that nobody reads holds a place among those that are open.
  const stall = millisOf("stallTimeout", options.stallTimeout ?? "3 minutes")
  // 0 is for ever, says Node, which takes no infinity.
  node.timeout = Number.isFinite(stall) ? stall : 0
  answerClientErrors(node)
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
  const url = NetAddress.formatUrlUnsafe(address).replace(/\/$/, "")
  const access = yield* Access
  yield* printed(access, url)
  return Server.of({ port: "port" in address ? address.port : 0, url, token: access.generated })
})

/** What Node cuts off by itself. It looks at its connections as often as the shortest of them needs it. */
const limitsOf = (options: ServerOptions) => {
  const { headersTimeout = "10 seconds", idleTimeout = "75 seconds", requestTimeout = "30 seconds" } = options
  const request = millisOf("requestTimeout", requestTimeout)
  const headers = Math.min(millisOf("headersTimeout", headersTimeout), request)
  return {
    headersTimeout: headers,
    requestTimeout: request,
    keepAliveTimeout: millisOf("idleTimeout", idleTimeout),
    keepAliveTimeoutBuffer: 0,
    connectionsCheckingInterval: Math.min(5000, headers / 2 || 5000)
  }
}

/**
 * The link that lets a browser in, once: the token is in its fragment, which no server and no log ever sees. It goes to
 * the console and not to the logger, since logs are kept and sent elsewhere.
 */
const printed = ({ generated }: Access["Service"], url: string): Effect.Effect<void> =>
  generated === undefined ? Effect.void : Console.error(`${url}/orchestra#token=${Redacted.value(generated)}`)

const routes = (options: RouterOptions) => {
  const rules = Security.layer({ allowedHosts: options.allowedHosts, anyHost: ["/healthz", "/readyz", "/metrics"] })
  return HttpRouter.use(Effect.fnUntraced(function*(router) {
    // Not all of the context: the scope of this layer must not stand in for that of a request.
    const services = Context.pick(Orchestrator, Telemetry, Feed, EventLog, Charts, Access, Actions, Profiler.Profiler)(
      yield* Effect.context<Provided>()
    )
    const context = Context.add(services, Redactor, redacting(options.redact))
    const access = Context.get(context, Access)
    const add: Add = (method, path, needed, handler) => {
      // The cookie is that of the page: it is sent below `/orchestra`, and counts there alone.
      const bearerOnly = !path.startsWith("/orchestra/")
      const guarded = needed === "open" ? handler : access.require(needed, { bearerOnly })(handler)
      return router.add(method, path, Effect.provideContext(guarded, context))
    }
    yield* health(add)
    yield* Scrape.routes(add)
    yield* SessionRoutes.routes(add)
    yield* ActionRoutes.routes(add)
    yield* PprofRoutes.routes(add)
    yield* ApiRoutes.routes(add, shownOptions(options, access))
    yield* router.addGlobalMiddleware((app) =>
      Effect.withFiber((fiber) => {
        HttpEffect.appendPreResponseHandlerUnsafe(fiber.context, ApiRoutes.documented)
        return app
      })
    )
    for (const { content, headers, path } of yield* Dashboard.files) {
      yield* add("GET", path, "open", Effect.succeed(HttpServerResponse.uint8Array(content, { headers })))
    }
  })).pipe(Layer.provideMerge(rules))
}

const shownOptions = (
  { allowedHosts, control, inspect, profile, redact }: RouterOptions,
  { labels }: Access["Service"]
) => ({
  allowedHosts: allowedHosts ?? [],
  token: labels.length > 0,
  redact: redact !== undefined,
  inspect: inspect === true,
  profile: profile === true,
  control: control === true
})

const health = Effect.fnUntraced(function*(add: Add) {
  yield* add("GET", "/healthz", "open", Effect.succeed(HttpServerResponse.text("ok")))
  yield* add("GET", "/readyz", "open", readiness)
})

/**
 * Ready while the orchestrator takes routines and every supervisor right below it runs. A child that is being
 * restarted does not make a service unready: that is what its supervisor is for.
 */
const readiness = Effect.gen(function*() {
  const { kernel, status } = yield* Orchestrator
  const checks = [{ name: kernel.name, status: (yield* status) === "open" ? "pass" : "fail", since: kernel.since }]
  // In slices: there may be as many right below it as there are routines.
  yield* visit(kernel, (node) => {
    if (node.kind !== "supervisor" || node.owner !== kernel) return
    const { path, since, state } = node.snapshot()
    checks.push({ name: path, status: state === "running" ? "pass" : "fail", since })
  })
  const ready = checks.every((check) => check.status === "pass")
  return json({ status: ready ? "pass" : "fail", checks }, ready ? 200 : 503)
})
