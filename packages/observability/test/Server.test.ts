import { Orchestrator, Routine } from "@effect-orchestra/core"
import { Api, Prometheus, Server } from "@effect-orchestra/observability"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Layer, Redacted, Schedule, Schema, Scope, Tracer } from "effect"
import { HttpEffect, HttpRouter, type HttpServerRequest } from "effect/http"
import { TestClock } from "effect/testing"
import { spawnSync } from "node:child_process"
import * as Net from "node:net"

const api = "/orchestra/api/v1"
const app = Orchestrator.layerWith({ name: "app" })

/** The routes alone, under the clock of the test. */
const mounted = Effect.fnUntraced(function*(options?: Server.RouterOptions) {
  const context = yield* Effect.context<Orchestrator>()
  const app = yield* HttpRouter.toHttpEffect(Layer.provide(Server.router(options), Layer.succeedContext(context)))
  type PerRequest = HttpServerRequest.HttpServerRequest | Scope.Scope
  const handler = HttpEffect.toWebHandlerWith<Orchestrator, PerRequest>(context)(app)
  return (path: string, headers: Record<string, string> = {}, method = "GET") =>
    Effect.promise(() =>
      handler(new Request(`http://localhost${path}`, { method, headers: { host: "localhost", ...headers } }))
    )
})

const json = (response: Response) => Effect.promise(() => response.json())
const text = (response: Response) => Effect.promise(() => response.text())

/** A server on a free port, and a way to ask it. */
const served = Effect.fnUntraced(function*(options?: Server.ServerOptions) {
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
  const context = yield* Layer.buildWithScope(Server.layer({ port: 0, ...options }), scope)
  const { port, url } = yield* Effect.provide(Server.Server, context)
  const get = (path: string, init?: RequestInit) => Effect.promise(() => fetch(`${url}${path}`, init))
  return { close: Scope.close(scope, Exit.void), get, port, url }
})

const elapsed = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const from = performance.now()
    yield* effect
    return performance.now() - from
  })

const noPromtool = spawnSync("promtool", ["--version"]).error !== undefined
const skipPromtool = noPromtool && process.env.CI === undefined
if (skipPromtool) console.log("skipped: promtool is not installed, so nobody else reads the metrics")

describe("Server", () => {
  describe("routes", () => {
    it.effect("answers on every path that it has, with the right type", () =>
      Effect.gen(function*() {
        const get = yield* mounted()
        const types: ReadonlyArray<readonly [string, string]> = [
          ["/healthz", "text/plain"],
          ["/readyz", "application/json"],
          ["/metrics", Prometheus.contentTypes.text],
          ["/orchestra", "text/html; charset=utf-8"],
          ["/orchestra/routines/r-1?q=x", "text/html; charset=utf-8"],
          [`${api}/overview`, "application/json"],
          [`${api}/routines`, "application/json"],
          [`${api}/tree`, "application/json"],
          [`${api}/stream`, "text/event-stream"]
        ]
        for (const [path, type] of types) {
          const response = yield* get(path)
          assert.strictEqual(response.status, 200, path)
          assert.strictEqual(response.headers.get("content-type"), type, path)
          assert.strictEqual(response.headers.get("cache-control"), "no-store", path)
        }
      }).pipe(Effect.scoped, Effect.provide(app)))

    it.effect("answers what the schemas say", () =>
      Effect.gen(function*() {
        yield* Orchestrator.fork(Effect.never, { name: "poller" })
        const get = yield* mounted()
        const decoded = <S extends Schema.Codec<any, any>>(path: string, schema: S) =>
          Effect.flatMap(Effect.flatMap(get(`${api}/${path}`), json), Schema.decodeUnknownEffect(schema))
        assert.deepInclude((yield* decoded("overview", Api.Overview)).counts, { running: 1 })
        assert.strictEqual((yield* decoded("routines?q=poll", Api.RoutinePage)).page.total, 1)
        assert.strictEqual((yield* decoded("tree", Api.Tree)).root.children[0]?.node.path, "/app/poller")
      }).pipe(Effect.scoped, Effect.provide(app)))

    it.effect("answers a problem document to what it does not understand or have", () =>
      Effect.gen(function*() {
        const get = yield* mounted()
        const paths: ReadonlyArray<readonly [string, number, string]> = [
          [`${api}/routines?limit=501`, 400, "limit"],
          [`${api}/routines?state=dead`, 400, "got: \"dead\""],
          [`${api}/routines?cursor=x`, 400, "cursor"],
          [`${api}/tree?depth=9`, 400, "depth"],
          [`${api}/tree?root=/nope`, 404, "/nope"],
          [`${api}/nothing`, 404, "nothing"],
          [`${api}/routines/%`, 404, "nothing"],
          [`${api}/routines/${"r".repeat(200)}`, 404, "nothing"],
          ["/orchestra/api", 404, "nothing"]
        ]
        for (const [path, status, detail] of paths) {
          const response = yield* get(path)
          assert.strictEqual(response.headers.get("content-type"), "application/problem+json", path)
          const problem: any = yield* json(response)
          assert.deepInclude(problem, { status }, path)
          assert.include(problem.detail, detail)
        }
      }).pipe(Effect.scoped, Effect.provide(app)))

    it.effect("answers HEAD as it does GET, and a method that it does not have with a document", () =>
      Effect.gen(function*() {
        const get = yield* mounted({ token: Redacted.make("secret") })
        for (
          const path of [`${api}/overview`, `${api}/routines`, `${api}/dump`, `${api}/stream`, "/debug/pprof/block"]
        ) {
          const head = yield* get(path, {}, "HEAD")
          assert.deepStrictEqual([head.status, yield* text(head)], [path.startsWith("/debug") ? 403 : 401, ""], path)
        }
        const ours = { authorization: "Bearer secret" }
        const head = yield* get(`${api}/routines`, ours, "HEAD")
        assert.deepStrictEqual([head.status, yield* text(head)], [200, ""])
        assert.strictEqual((yield* get(`${api}/nothing`, ours, "HEAD")).status, 404)
        const response = yield* get(`${api}/routines`, { ...ours, "content-type": "application/json" }, "PUT")
        assert.strictEqual(response.headers.get("content-type"), "application/problem+json")
        assert.deepInclude(yield* json(response), { status: 404 })
      }).pipe(Effect.scoped, Effect.provide(app)))

    it.effect("serves a page without inline code, and its assets under names that change with them", () =>
      Effect.gen(function*() {
        const get = yield* mounted()
        const page = yield* text(yield* get("/orchestra"))
        assert.notMatch(page, /<script(?![^>]* src=)|<style|\son\w+=|\sstyle=|javascript:/)
        const assets = new Set([...page.matchAll(/"(\/orchestra\/assets\/[^"]+)"/g)].map(([, path]) => path ?? ""))
        assert.strictEqual(assets.size, 3)
        for (const path of assets) {
          assert.match(path, /\.[0-9a-f]{12}\.(js|css|svg)$/)
          const response = yield* get(path)
          assert.strictEqual(response.status, 200)
          assert.strictEqual(response.headers.get("cache-control"), "public, max-age=31536000, immutable")
          assert.match(response.headers.get("content-type") ?? "", /^(text\/(javascript|css)|image\/svg)/)
          assert.notMatch(yield* text(response), /innerHTML|outerHTML|insertAdjacentHTML|document\.write|https:/)
        }
      }).pipe(Effect.scoped, Effect.provide(app)))

    it.effect("checks the name it is called by, except where probes and scrapers call", () =>
      Effect.gen(function*() {
        const get = yield* mounted({ allowedHosts: ["app.example"] })
        for (const path of ["/healthz", "/readyz", "/metrics", "/orchestra", `${api}/overview`, `${api}/stream`]) {
          const open = path === "/healthz" || path === "/readyz" || path === "/metrics"
          assert.strictEqual((yield* get(path, { host: "evil.test" })).status, open ? 200 : 421, path)
          assert.strictEqual((yield* get(path, { host: "app.example:9090" })).status, 200, path)
        }
      }).pipe(Effect.scoped, Effect.provide(app)))

    it.effect("asks for the token wherever there is something to see, however the path is spelled", () =>
      Effect.gen(function*() {
        const get = yield* mounted({ token: Redacted.make("s3cret") })
        for (const path of ["/healthz", "/readyz", "/orchestra", "/orchestra/routines"]) {
          assert.strictEqual((yield* get(path)).status, 200, path)
        }
        const asked = ["overview", "routines", "tree", "stream"].map((path) => `${api}/${path}`)
        const spelled = [
          "/orchestra//api/v1/overview",
          "//orchestra/api/v1/overview/",
          "/ORCHESTRA/Api/v1/Overview",
          "/orchestra/%61pi/v1/overview",
          "/orchestra/x/../api/v1/overview",
          "/METRICS"
        ]
        for (const path of ["/metrics", ...asked, ...spelled]) {
          const response = yield* get(path)
          const type = response.headers.get("content-type") ?? ""
          // Either it is asked for, or the path is none of the API's and shows the page or nothing.
          assert.isTrue(response.status === 401 || type.startsWith("text/html"), `${path}: ${response.status} ${type}`)
        }
        for (const path of ["/metrics", ...asked]) {
          assert.strictEqual((yield* get(path)).status, 401, path)
          assert.strictEqual((yield* get(path, { authorization: "Bearer s3cret" })).status, 200, path)
        }
      }).pipe(Effect.scoped, Effect.provide(app)))

    it.effect("renders the metrics once for all scrapes of a second", () =>
      Effect.gen(function*() {
        const get = yield* mounted()
        const starts = Effect.map(Effect.flatMap(get("/metrics"), text), (metrics) =>
          /^orchestra_routine_starts_total.* (\d+)$/m.exec(metrics)?.[1])
        yield* Orchestrator.fork(Effect.never)
        assert.deepStrictEqual(yield* Effect.all([starts, starts], { concurrency: 2 }), ["1", "1"])
        yield* Orchestrator.fork(Effect.never)
        assert.strictEqual(yield* starts, "1")
        yield* TestClock.adjust("1001 millis")
        assert.strictEqual(yield* starts, "2")
      }).pipe(Effect.scoped, Effect.provide(app)))
  })

  describe("readyz", () => {
    const readiness = Effect.fnUntraced(function*(get: (path: string) => Effect.Effect<Response>) {
      const response = yield* get("/readyz")
      const body: any = yield* json(response)
      return [response.status, body.status, ...body.checks.map((check: any) => `${check.name} ${check.status}`)]
    })

    it.effect("turns to 503 with the first phase of a shutdown, and stays there", () =>
      Effect.gen(function*() {
        const get = yield* mounted()
        yield* Orchestrator.fork(Effect.never, { drain: Effect.sleep("2 seconds") })
        assert.deepStrictEqual(yield* readiness(get), [200, "pass", "app pass"])
        yield* Effect.forkChild(Orchestrator.shutdown(), { startImmediately: true })
        assert.deepStrictEqual(yield* readiness(get), [503, "fail", "app fail"])
        assert.strictEqual((yield* get("/healthz")).status, 200)
        yield* TestClock.adjust("3 seconds")
        assert.deepStrictEqual(yield* readiness(get), [503, "fail", "app fail"])
        const overview: any = yield* json(yield* get(`${api}/overview`))
        assert.strictEqual(overview.status, "closed")
      }).pipe(Effect.scoped, Effect.provide(app)))

    it.effect("waits for the supervisors at the top to have started, and does not mind their restarts", () =>
      Effect.gen(function*() {
        const get = yield* mounted()
        const go = yield* Deferred.make<void>()
        let runs = 0
        const slow = Effect.andThen(Deferred.await(go), Effect.andThen(Routine.ready, Effect.never))
        const flaky = Effect.suspend(() =>
          ++runs === 1 ? Effect.andThen(Effect.sleep("1 second"), Effect.die("x")) : Effect.never
        )
        yield* Effect.forkScoped(Supervisor.start(Supervisor.make({
          name: "main",
          strategy: "one_for_one",
          children: [Child.make("slow", slow, { awaitReady: true }), Child.make("flaky", flaky)]
        })))
        yield* TestClock.adjust(0)
        assert.deepStrictEqual(yield* readiness(get), [503, "fail", "app pass", "/app/main fail"])
        yield* Deferred.succeed(go, undefined)
        yield* TestClock.adjust(0)
        assert.deepStrictEqual(yield* readiness(get), [200, "pass", "app pass", "/app/main pass"])
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* readiness(get), [200, "pass", "app pass", "/app/main pass"])
        assert.strictEqual(runs, 2)
      }).pipe(Effect.scoped, Effect.provide(app)))
  })

  // From here on real sockets, since that is what these are about.
  describe("listening", () => {
    it.live("takes a free port and names it, also on IPv6", () =>
      Effect.gen(function*() {
        const first = yield* served()
        assert.strictEqual(first.url, `http://127.0.0.1:${first.port}`)
        assert.strictEqual(yield* text(yield* first.get("/healthz")), "ok")
        const second = yield* served({ host: "::1" })
        assert.strictEqual(second.url, `http://[::1]:${second.port}`)
        assert.strictEqual((yield* second.get(`${api}/overview`)).status, 200)
      }).pipe(Effect.scoped, Effect.provide(app)))

    it.live("refuses an address that others can reach, unless there is a token or an explicit word", () =>
      Effect.gen(function*() {
        const open = { host: "0.0.0.0" }
        const error = yield* Effect.flip(served(open))
        assert.deepInclude(error, { _tag: "InsecureBind", host: "0.0.0.0" })
        yield* served({ ...open, insecure: true })
        const guarded = yield* served({ ...open, token: Redacted.make("s3cret") })
        const status = (init?: RequestInit) =>
          Effect.promise(() => fetch(`http://127.0.0.1:${guarded.port}${api}/tree`, init).then(({ status }) => status))
        assert.strictEqual(yield* status(), 401)
        assert.strictEqual(yield* status({ headers: { authorization: "Bearer s3cret" } }), 200)
      }).pipe(Effect.scoped, Effect.provide(app)))

    it.live("fails when the port is taken", () =>
      Effect.gen(function*() {
        const { port } = yield* served()
        const error = yield* Effect.flip(served({ port }))
        assert(error._tag === "ServeError")
        assert.deepInclude(error.cause, { code: "EADDRINUSE", port })
      }).pipe(Effect.scoped, Effect.provide(app)))

    it.live("does not show up in the traces of the service", () =>
      Effect.gen(function*() {
        const spans: Array<string> = []
        const tracer = Tracer.make({
          span: (options) => {
            spans.push(options.name)
            return new Tracer.NativeSpan(options)
          }
        })
        const { get } = yield* served().pipe(Effect.provideService(Tracer.Tracer, tracer))
        yield* get(`${api}/overview`)
        assert.deepStrictEqual(spans, [])
      }).pipe(Effect.scoped, Effect.provide(app)))
  })

  describe("stream", () => {
    it.live("tells what happens as it happens", () =>
      Effect.gen(function*() {
        const { get } = yield* served()
        const response = yield* get(`${api}/stream`, { headers: { "last-event-id": "7" } })
        const chunks = response.body?.pipeThrough(new TextDecoderStream()).getReader() ?? assert.fail()
        let received = ""
        const until = (text: string) =>
          Effect.promise(async () => {
            while (!received.includes(text)) received += (await chunks.read()).value ?? assert.fail(received)
          })
        yield* until("event: snapshot")
        assert.match(received, /^event: hello\ndata: \{.*\}\n\nevent: reset\n/)
        yield* Orchestrator.fork(Effect.never, { name: "poller" })
        yield* until("\"_tag\":\"Ready\"")
        yield* until("event: delta")
        assert.match(received, /event: delta\ndata: .*"path":"\/app\/poller"/)
        yield* Effect.promise(() => chunks.cancel())
      }).pipe(Effect.scoped, Effect.provide(app)))

    it.live("answers 503 to the seventeenth, until one of the others goes away", () =>
      Effect.gen(function*() {
        const { get } = yield* served()
        const controllers = Array.from({ length: 16 }, () => new AbortController())
        for (const { signal } of controllers) {
          assert.strictEqual((yield* get(`${api}/stream`, { signal })).status, 200)
        }
        const refused = yield* get(`${api}/stream`)
        assert.strictEqual(refused.status, 503)
        assert.strictEqual(refused.headers.get("retry-after"), "10")
        assert.include(yield* text(refused), "16 streams are open")
        controllers[5]?.abort()
        const again = Effect.flatMap(get(`${api}/stream`), ({ status }) =>
          status === 200 ? Effect.void : Effect.fail(status))
        yield* Effect.retry(again, Schedule.spaced("20 millis")).pipe(Effect.timeout("5 seconds"))
        for (const controller of controllers) {
          controller.abort()
        }
      }).pipe(Effect.scoped, Effect.provide(app)))
  })

  describe("closing", () => {
    it.live("goes on while the orchestrator shuts down, then ends the streams and is gone at once", () =>
      Effect.gen(function*() {
        const { close, get, url } = yield* served()
        const response = yield* get(`${api}/stream`)
        const everything = response.text()
        yield* Orchestrator.shutdown()
        assert.strictEqual((yield* get("/readyz")).status, 503)
        assert.isBelow(yield* elapsed(close), 400)
        assert.include(yield* Effect.promise(() => everything), "event: hello")
        const error: unknown = yield* Effect.flip(Effect.tryPromise(() => fetch(`${url}/healthz`)))
        assert.isDefined(error)
      }).pipe(Effect.scoped, Effect.provide(app)))

    it.live(
      "does not wait for who never finishes a request or never reads an answer, and hangs up on them",
      () =>
        Effect.gen(function*() {
          const { close, port } = yield* served()
          for (let n = 0; n < 3000; n++) {
            yield* Orchestrator.fork(Effect.never, { attributes: { note: "x".repeat(1000) } })
          }
          const sockets: Array<Net.Socket> = []
          const open = (request: string) =>
            Effect.callback<void>((resume) => {
              const socket = Net.connect(port, "127.0.0.1", () => socket.write(request, () => resume(Effect.void)))
              socket.on("error", () => {})
              sockets.push(socket)
            })
          const head = "HTTP/1.1\r\nHost: localhost\r\n"
          yield* open("GET /healthz HTTP/1.1\r\nHost: local")
          yield* open(`POST ${api}/x ${head}Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{`)
          yield* open(`GET ${api}/stream ${head}\r\n`)
          yield* open(`GET ${api}/routines?limit=500 ${head}\r\n`.repeat(30))
          yield* Effect.sleep("1 second")
          assert.isBelow(yield* elapsed(close), 2000)
          // Each of them comes to an end when it is read; a connection that the server kept would not.
          for (const socket of sockets) {
            yield* Effect.callback<void>((resume) => {
              if (socket.closed) resume(Effect.void)
              else socket.on("close", () => resume(Effect.void)).resume()
            }).pipe(Effect.timeout("2 seconds"))
          }
        }).pipe(Effect.scoped, Effect.provide(app)),
      15_000
    )
  })

  // A real process reads what a real service says of itself.
  it.live.skipIf(skipPromtool)(
    "promtool has nothing to say about the metrics of a service",
    () =>
      Effect.gen(function*() {
        const { get } = yield* served()
        let runs = 0
        const flaky = Effect.suspend(() => ++runs === 1 ? Effect.fail(new Error("once")) : Effect.never)
        yield* Supervisor.start(Supervisor.make({
          name: "backup",
          strategy: "rest_for_one",
          children: [Child.make("database", flaky), Child.make("watcher", Effect.never)]
        }))
        yield* Orchestrator.fork(Effect.void, { name: "<img src=x onerror=\"alert(1)\">\n\\" })
        yield* Effect.sleep("100 millis")
        const metrics = yield* text(yield* get("/metrics"))
        for (const { name } of [...metrics.matchAll(/^# TYPE (?<name>\S+)/gm)].map(({ groups }) => groups ?? {})) {
          assert.match(metrics, new RegExp(`^${name}(_bucket)?[ {]`, "m"), `${name} has no sample`)
        }
        const { error, status, stderr, stdout } = spawnSync("promtool", ["check", "metrics"], {
          input: metrics,
          encoding: "utf8"
        })
        assert.deepStrictEqual([error, stdout, stderr, status], [undefined, "", "", 0])
      }).pipe(Effect.scoped, Effect.provide(app))
  )
})
