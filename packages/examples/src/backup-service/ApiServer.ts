/**
 * Serves the HTTP interface on 127.0.0.1.
 */
import { Security } from "@effect-orchestra/observability"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { Cause, Context, Duration, Effect, Layer, Ref } from "effect"
import { HttpMethod, HttpRouter, HttpServer, HttpServerError, HttpServerResponse, ProblemDetails } from "effect/http"
import { HttpApi, HttpApiBuilder, type HttpApiGroup, HttpApiMiddleware } from "effect/http-api"
import { createServer } from "node:http"
import { Api, ChaosApi } from "./Api.ts"
import * as ApiHandlers from "./ApiHandlers.ts"
import { PortUnavailable } from "./BackupError.ts"
import { Chaos } from "./Chaos.ts"
import { Settings } from "./Settings.ts"

const host = "127.0.0.1"

/** Where the API is found. Outlives the server, so that one that was restarted comes back on the port it had. */
export class ApiAddress extends Context.Service<ApiAddress, { readonly port: Ref.Ref<number> }>()(
  "backup-service/ApiAddress"
) {
  static readonly layer = Layer.effect(
    ApiAddress,
    Effect.gen(function*() {
      const { port } = yield* Settings
      return { port: yield* Ref.make(port) }
    })
  )

  static readonly url = ApiAddress.use(({ port }) => Effect.map(Ref.get(port), (port) => `http://${host}:${port}`))
}

/** All that the API answers, in a router without a server. */
export const routes = Layer.suspend(() => {
  const backups = Layer.merge(HttpApiBuilder.layer(Api), otherMethods(Api)).pipe(Layer.provide(ApiHandlers.backups))
  const chaos = Layer.merge(HttpApiBuilder.layer(ChaosApi), otherMethods(ChaosApi)).pipe(
    Layer.provide(ApiHandlers.chaos)
  )
  const chaosIfEnabled = Layer.unwrap(Chaos.useSync(({ enabled }) => enabled ? chaos : Layer.empty))
  return Layer.merge(backups, chaosIfEnabled).pipe(
    Layer.provide(HttpApiMiddleware.layerProblemDetails({ includeDetails: true })),
    Layer.provideMerge(problems),
    Layer.provideMerge(Security.layer())
  )
})

/** The API on a port of its own, built when it listens. */
export const layer = Layer.suspend(() =>
  HttpRouter.serve(routes, { disableLogger: true, disableListenLog: true }).pipe(
    Layer.provide(server),
    Layer.provide(NodeHttpServer.layerHttpServices)
  )
)

/** Listens on the address; closing it waits at most half a second for answers under way, then cuts all connections. */
const server = Layer.effect(
  HttpServer.HttpServer,
  Effect.gen(function*() {
    const address = yield* ApiAddress
    const port = yield* Ref.get(address.port)
    const node = createServer({
      headersTimeout: Duration.toMillis("10 seconds"),
      requestTimeout: Duration.toMillis("30 seconds"),
      keepAliveTimeout: Duration.toMillis("75 seconds")
    })
    const server = yield* NodeHttpServer.make(() => node, { host, port, gracefulShutdownTimeout: "500 millis" }).pipe(
      Effect.mapError(({ cause }) => new PortUnavailable({ port, flag: "--port", cause }))
    )
    // A client that got its answer while the server closed keeps its connection, and nobody answers on it any more.
    yield* Effect.addFinalizer(() => Effect.sync(() => node.closeAllConnections()))
    if ("port" in server.address) yield* Ref.set(address.port, server.address.port)
    return server
  })
)

const problem = (status: number, title: string, detail: string) =>
  ProblemDetails.toResponse({ type: ProblemDetails.blankType, status, title, detail })

/** What no handler answers: unknown paths, and the defects of handlers. */
const problems = HttpRouter.use((router) =>
  router.addGlobalMiddleware((app) =>
    Effect.catchCause(app, (cause) => {
      const error = Cause.squash(cause)
      const reason = HttpServerError.isHttpServerError(error) ? error.reason._tag : undefined
      if (reason === "RouteNotFound") return Effect.succeed(problem(404, "Not Found", "There is nothing at this path"))
      if (reason === "RequestParseError") return Effect.succeed(problem(400, "Bad Request", "The body cannot be read"))
      if (Cause.hasInterruptsOnly(cause)) return Effect.failCause(cause)
      return Effect.as(
        Effect.logError("A request failed", cause),
        problem(500, "Internal Server Error", "The log of the service says more")
      )
    })
  )
)

/** Answers 405 for the methods that an API does not have on its paths. */
const otherMethods = <Id extends string, Groups extends HttpApiGroup.Constraint>(api: HttpApi.HttpApi<Id, Groups>) => {
  const known = new Map<string, Array<string>>()
  HttpApi.reflect(api, {
    onGroup: () => {},
    onEndpoint: ({ endpoint }) => {
      known.set(endpoint.path, [...(known.get(endpoint.path) ?? []), endpoint.method])
    }
  })
  return HttpRouter.addAll(
    Array.from(known).flatMap(([path, methods]) => {
      const refusal = HttpServerResponse.setHeader(
        problem(405, "Method Not Allowed", `Allowed here: ${methods.join(", ")}`),
        "allow",
        methods.join(", ")
      )
      // HEAD is GET without a body.
      const others = Array.from(HttpMethod.all).filter((method) =>
        !methods.includes(method === "HEAD" ? "GET" : method)
      )
      return others.map((method) => HttpRouter.route(method, `/${path.slice(1)}`, refusal))
    })
  )
}
