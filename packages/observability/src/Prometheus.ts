/**
 * Renders meters as Prometheus reads them: OpenMetrics 1.0, and the text format 0.0.4 for whoever does not ask for it.
 *
 * Names, units and types come from `MetricTable`, so that what Prometheus scrapes here is what an OpenTelemetry
 * Collector would show it. Series stand in the order in which they were first seen, which does not change while
 * the process lives.
 *
 * **Example** (Two starts of one routine, as Prometheus scrapes them)
 *
 * ```ts import.meta.vitest
 * import { Meter, MetricTable, Prometheus } from "@effect-orchestra/observability"
 * import { Effect } from "effect"
 *
 * const starts = Meter.make(MetricTable.routineStarts)
 * starts.add(["mailer"], 2)
 *
 * const text = await Effect.runPromise(Prometheus.render([starts], { "service.name": "orders" }))
 * text.includes('orchestra_routine_starts_total{orchestra_routine_name="mailer"} 2') // => true
 * text.includes('target_info{service_name="orders"} 1') // => true
 * ```
 *
 * @since 0.1.0
 */
import type { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import * as Effect from "effect/Effect"
import * as HttpRouter from "effect/http/HttpRouter"
import * as Layer from "effect/Layer"
import type * as Redacted from "effect/Redacted"
import { write } from "./internal/Exposition.ts"
import * as Scrape from "./internal/Scrape.ts"
import type { Meter } from "./Meter.ts"
import * as Security from "./Security.ts"
import { Telemetry } from "./Telemetry.ts"

/**
 * The formats that Prometheus reads: `text` is version 0.0.4, `openmetrics` is OpenMetrics 1.0, which alone carries
 * exemplars and units.
 *
 * @category models
 * @since 0.1.0
 */
export type Format = "text" | "openmetrics"

/**
 * Where `router` answers, and to whom.
 *
 * @category models
 * @since 0.1.0
 */
export interface RouterOptions {
  /** Default: `/metrics`. */
  readonly path?: HttpRouter.PathInput | undefined
  /** Asked as `Authorization: Bearer`. Default: nothing is asked. */
  readonly token?: Redacted.Redacted | undefined
}

/**
 * The media type of each format.
 *
 * @category constants
 * @since 0.1.0
 */
export const contentTypes: { readonly [format in Format]: string } = Scrape.contentTypes

/**
 * The format that an `Accept` header prefers: the higher quality, then the one that is named more exactly, then the one
 * that is named first. A scraper that accepts neither, or says nothing, gets `text`.
 *
 * @category getters
 * @since 0.1.0
 */
export const negotiate = (accept: string | undefined): Format => Scrape.negotiate(accept)

/**
 * Renders meters, with `resource` (what is measured: service name, process, runtime) as `target_info`. The format is
 * `text` unless `options` say otherwise.
 *
 * **Details**
 *
 * Lets other fibers run after every 250 samples, so that a large rendering does not hold the event loop. One
 * histogram is always rendered whole: its buckets, sum and count agree.
 *
 * @category operations
 * @since 0.1.0
 */
export const render = Effect.fnUntraced(function*(
  meters: ReadonlyArray<Meter>,
  resource: { readonly [attribute: string]: string },
  options?: { readonly format?: Format | undefined }
) {
  let out = ""
  for (const piece of write(meters, resource, options?.format ?? "text")) {
    out += piece
    yield* Effect.yieldNow
  }
  return out
})

/**
 * The metrics alone, to mount in a server that is there already.
 *
 * **Details**
 *
 * Answers in the format that `Accept` prefers, compressed if `Accept-Encoding` allows it. Scrapes that come at once,
 * or within a second, share one rendering, which a scraper that goes away does not end. What cannot be rendered
 * within 90 % of `X-Prometheus-Scrape-Timeout-Seconds` is answered with 503.
 *
 * **Gotchas**
 *
 * The rules of `Security.layer` are not installed. To keep scrapes out of your traces, provide
 * `HttpMiddleware.layerTracerDisabledForUrls(["/metrics"])` to the server.
 *
 * **Example** (Metrics beside the routes of a service)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Prometheus } from "@effect-orchestra/observability"
 * import { Layer } from "effect"
 * import { HttpRouter, HttpServerResponse } from "effect/http"
 *
 * const app = Layer.mergeAll(
 *   HttpRouter.add("GET", "/", HttpServerResponse.text("hello")),
 *   Prometheus.router({ path: "/internal/metrics" })
 * )
 * const { handler } = HttpRouter.toWebHandler(Layer.provide(app, Orchestrator.layer), { disableLogger: true })
 *
 * const response = await handler(new Request("http://localhost/internal/metrics"))
 * response.headers.get("content-type") // => Prometheus.contentTypes.text
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const router = (
  options: RouterOptions = {}
): Layer.Layer<never, never, HttpRouter.HttpRouter | Orchestrator> => {
  const guard = Security.bearer(options.token)
  const route = Effect.fnUntraced(function*(router: HttpRouter.HttpRouter) {
    yield* router.add("GET", options.path ?? "/metrics", guard(yield* Scrape.handler))
  })
  return Layer.provide(HttpRouter.use(route), Telemetry.shared)
}
