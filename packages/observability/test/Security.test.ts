import { Security } from "@effect-orchestra/observability"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted } from "effect"
import { HttpRouter, HttpServer, HttpServerRequest, HttpServerResponse } from "effect/http"
import * as Http from "node:http"
import * as Net from "node:net"

const app = (options?: Security.Options) =>
  Layer.mergeAll(
    HttpRouter.add("*", "/thing", HttpServerResponse.text("ok")),
    HttpRouter.add("GET", "/healthz", HttpServerResponse.text("ok")),
    HttpRouter.add("GET", "/cached", HttpServerResponse.text("page", { headers: { "cache-control": "max-age=1" } })),
    HttpRouter.add("POST", "/echo", (request) => Effect.map(Effect.orDie(request.text), HttpServerResponse.text)),
    HttpRouter.add("GET", "/broken", Effect.die("a defect")),
    Security.layer(options)
  )

/** Through the router alone: there is no socket, so only names can pass the Host check. */
const send = (
  path: string,
  init: { readonly method?: string; readonly headers?: Record<string, string>; readonly body?: string } = {},
  options?: Security.Options
) =>
  Effect.promise(() => {
    const { handler } = HttpRouter.toWebHandler(app(options), { disableLogger: true })
    const headers = { host: "localhost:9090", ...init.headers }
    return handler(new Request(`http://localhost:9090${path}`, { method: "GET", ...init, headers }))
  })

const refused = Effect.fnUntraced(function*(response: Response, status: number, check: Security.Check) {
  const body = yield* Effect.promise(() => response.text())
  assert.strictEqual(response.status, status, body)
  assert.strictEqual(response.headers.get("content-type"), "application/problem+json")
  const problem: unknown = JSON.parse(body)
  assert.deepInclude(problem, { type: "about:blank", status, check })
})

const json = { "content-type": "application/json" }

describe("Security", () => {
  describe("checkBind", () => {
    const bind = (host: string, options?: { readonly token?: Redacted.Redacted; readonly insecure?: boolean }) =>
      Effect.map(Effect.exit(Security.checkBind({ host, ...options })), (exit) => exit._tag)

    it.effect.each(["127.0.0.1", "127.8.8.8", "::1", "0:0:0:0:0:0:0:1", "::ffff:127.0.0.1", "localhost", "LocalHost"])(
      "lets a server listen on %s without a token",
      (host) => Effect.map(bind(host), (tag) => assert.strictEqual(tag, "Success"))
    )

    it.effect.each(["0.0.0.0", "::", "", "192.168.1.7", "localhost.example.com", "127.0.0.1.example.com"])(
      "refuses to listen on %o without a token or an explicit word",
      Effect.fnUntraced(function*(host) {
        assert.deepStrictEqual(yield* Effect.flip(Security.checkBind({ host })), new Security.InsecureBind({ host }))
        assert.strictEqual(yield* bind(host, { insecure: false }), "Failure")
        assert.strictEqual(yield* bind(host, { token: Redacted.make("") }), "Failure")
        assert.strictEqual(yield* bind(host, { token: Redacted.make("secret") }), "Success")
        assert.strictEqual(yield* bind(host, { insecure: true }), "Success")
      })
    )
  })

  describe("host", () => {
    it.effect.each(["localhost", "localhost:9090", "LOCALHOST:1", "localhost.", "localhost.:9090", "localhost:"])(
      "answers to the loopback name %s",
      Effect.fnUntraced(function*(host) {
        assert.strictEqual((yield* send("/thing", { headers: { host } })).status, 200)
      })
    )

    it.effect.each([
      "evil.test",
      "evil.test:9090",
      "localhost.evil.test",
      "evil.localhost",
      "localhost..",
      "127.0.0.1",
      "[::1]"
    ])(
      "answers 421 to the foreign name %s",
      (host) => Effect.flatMap(send("/thing", { headers: { host } }), (response) => refused(response, 421, "host"))
    )

    it.effect.each([
      "",
      "local host",
      "localhost:99999",
      "localhost:x",
      "::1",
      "[::1",
      "[evil]",
      "a@localhost",
      "a, b"
    ])(
      "answers 400 to the malformed Host %o",
      (host) => Effect.flatMap(send("/thing", { headers: { host } }), (response) => refused(response, 400, "host"))
    )

    it.effect("answers to the names it was given, whatever the case, port and spelling", () =>
      Effect.gen(function*() {
        const options = { allowedHosts: ["Orders.Example.", "10.0.0.7", "2001:DB8::1", "[2001:db8::2]"] }
        for (
          const host of ["orders.example", "ORDERS.example.:443", "10.0.0.7:80", "[2001:db8:0:0::1]", "[2001:db8::2]"]
        ) {
          assert.strictEqual((yield* send("/thing", { headers: { host } }, options)).status, 200, host)
        }
        yield* refused(yield* send("/thing", { headers: { host: "orders.example.evil.test" } }, options), 421, "host")
      }))

    it("rejects an allowed host that has a port or is no host", () => {
      for (const entry of ["orders.example:80", "http://orders.example", "", "[::1]:80"]) {
        assert.throws(() => Security.layer({ allowedHosts: [entry] }), `got: ${JSON.stringify(entry)}`)
      }
    })

    it.effect("is not asked on the paths that answer under any name, spelled exactly", () =>
      Effect.gen(function*() {
        const options = { anyHost: ["/healthz"] }
        const headers = { host: "10.0.0.9:9090" }
        assert.strictEqual((yield* send("/healthz", { headers }, options)).status, 200)
        assert.strictEqual((yield* send("/healthz?full#x", { headers }, options)).status, 200)
        for (const path of ["/healthz/", "//healthz", "/healthz/x", "/Healthz", "/x?/healthz"]) {
          yield* refused(yield* send(path, { headers }, options), 421, "host")
        }
      }))

    // A real socket: what counts is the address at which the request arrived.
    it.live("answers to the address of its own socket, and to no other address", () =>
      Effect.gen(function*() {
        const port = yield* listen("127.0.0.1")
        const get = (head: string) => Effect.map(raw(port, "127.0.0.1", head), (answer) => answer.slice(9, 12))
        assert.strictEqual(yield* get(`GET /thing HTTP/1.1\r\nHost: 127.0.0.1:${port}`), "200")
        assert.strictEqual(yield* get("GET /thing HTTP/1.1\r\nHost: 127.0.0.1.:1"), "200")
        assert.strictEqual(yield* get("GET /thing HTTP/1.1\r\nHost: [::ffff:127.0.0.1]"), "200")
        assert.strictEqual(yield* get("GET /thing HTTP/1.1\r\nHost: 127.0.0.2"), "421")
        assert.strictEqual(yield* get("GET /thing HTTP/1.1\r\nHost: 10.0.0.1"), "421")
        assert.strictEqual(yield* get("GET /thing HTTP/1.1\r\nHost: [::1]"), "421")
        assert.strictEqual(yield* get("GET /thing HTTP/1.1\r\nHost: 0x7f000001"), "421")
      }).pipe(Effect.scoped))

    // A real socket, see above.
    it.live("refuses a missing Host, two of them, and a foreign one in the request line", () =>
      Effect.gen(function*() {
        const port = yield* listen("127.0.0.1")
        const get = (head: string) => Effect.map(raw(port, "127.0.0.1", head), (answer) => answer.slice(9, 12))
        assert.strictEqual(yield* get("GET /thing HTTP/1.1"), "400")
        assert.strictEqual(yield* get("GET /thing HTTP/1.0"), "400")
        assert.strictEqual(yield* get("GET /thing HTTP/1.1\r\nHost: localhost\r\nHost: localhost"), "400")
        assert.strictEqual(yield* get("GET /thing HTTP/1.1\r\nHost: localhost\r\nHost: evil.test"), "400")
        assert.strictEqual(yield* get("GET http://evil.test/thing HTTP/1.1\r\nHost: localhost"), "421")
        assert.strictEqual(yield* get("GET http://localhost/thing HTTP/1.1\r\nHost: localhost"), "200")
      }).pipe(Effect.scoped))

    // A real socket, see above.
    it.live("compares IPv6 addresses by value, and knows an IPv4 address on a dual-stack socket", () =>
      Effect.gen(function*() {
        const port = yield* listen("::")
        const get = (address: string, host: string) =>
          Effect.map(raw(port, address, `GET /thing HTTP/1.1\r\nHost: ${host}`), (answer) => answer.slice(9, 12))
        assert.strictEqual(yield* get("::1", `[::1]:${port}`), "200")
        assert.strictEqual(yield* get("::1", "[0:0:0:0:0:0:0:1]"), "200")
        assert.strictEqual(yield* get("::1", "[::2]"), "421")
        assert.strictEqual(yield* get("127.0.0.1", "127.0.0.1"), "200")
        assert.strictEqual(yield* get("127.0.0.1", "[::ffff:7f00:1]"), "200")
      }).pipe(Effect.scoped))
  })

  describe("bearer", () => {
    const get = (token: string | undefined, authorization?: string) => {
      const guarded = Security.bearer(token === undefined ? undefined : Redacted.make(token))
      const { handler } = HttpRouter.toWebHandler(
        HttpRouter.add("GET", "/", guarded(Effect.succeed(HttpServerResponse.text("ok")))),
        { disableLogger: true }
      )
      const headers = authorization === undefined ? {} : { authorization }
      return Effect.promise(() => handler(new Request("http://localhost/", { headers })))
    }

    it.effect("lets in who carries the token, and answers 401 to everyone else", () =>
      Effect.gen(function*() {
        const missing = yield* get("s3cret")
        assert.strictEqual(missing.headers.get("www-authenticate"), "Bearer")
        yield* refused(missing, 401, "token")
        for (const wrong of ["Bearer s3cre", "Bearer s3cret2", "Bearer", "Basic s3cret", "s3cret", "Bearer s3cret x"]) {
          yield* refused(yield* get("s3cret", wrong), 401, "token")
        }
        assert.strictEqual((yield* get("s3cret", "Bearer s3cret")).status, 200)
        assert.strictEqual((yield* get("s3cret", "bearer  s3cret")).status, 200)
      }))

    it.effect("asks nothing without a token", () =>
      Effect.gen(function*() {
        assert.strictEqual((yield* get(undefined)).status, 200)
        assert.strictEqual((yield* get("")).status, 200)
      }))
  })

  describe("writes", () => {
    it.effect.each(["POST", "PUT", "PATCH", "DELETE", "PROPFIND"])(
      "%s needs a JSON content type",
      (method) =>
        Effect.gen(function*() {
          yield* refused(yield* send("/thing", { method }), 415, "content_type")
          for (const type of ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", "text/json"]) {
            yield* refused(yield* send("/thing", { method, headers: { "content-type": type } }), 415, "content_type")
          }
          for (const type of ["application/json", "Application/JSON; charset=utf-8", "application/json ;x"]) {
            assert.notStrictEqual(
              (yield* send("/thing", { method, headers: { "content-type": type } })).status,
              415,
              type
            )
          }
        })
    )

    it.effect.each(["POST", "PUT", "PATCH", "DELETE"])(
      "%s passes from a page of this server",
      (method) =>
        Effect.gen(function*() {
          const from = (headers: Record<string, string>) => send("/thing", { method, headers: { ...json, ...headers } })
          assert.strictEqual((yield* from({ "sec-fetch-site": "same-origin" })).status, 200)
          assert.strictEqual((yield* from({ origin: "http://localhost:9090" })).status, 200)
        })
    )

    it.effect.each(["POST", "PUT", "PATCH", "DELETE"])(
      "%s from another site answers 403, naming the check",
      (method) =>
        Effect.gen(function*() {
          const from = (headers: Record<string, string>) => send("/thing", { method, headers: { ...json, ...headers } })
          for (const site of ["cross-site", "same-site", "none", "Same-Origin", "same-origin, same-origin"]) {
            yield* refused(yield* from({ "sec-fetch-site": site }), 403, "origin")
            yield* refused(yield* from({ "sec-fetch-site": site, origin: "http://localhost:9090" }), 403, "origin")
          }
          for (
            const origin of [
              "http://localhost:8080", // another port
              "http://localhost",
              "https://localhost:9090", // another scheme
              "http://evil.test:9090",
              "http://localhost:9090.evil.test",
              "null",
              ""
            ]
          ) {
            yield* refused(yield* from({ origin }), 403, "origin")
          }
        })
    )

    it.effect("a foreign form answers 403 rather than 415", () =>
      Effect.gen(function*() {
        const headers = { "content-type": "text/plain", origin: "http://evil.test" }
        yield* refused(yield* send("/thing", { method: "POST", headers }), 403, "origin")
      }))

    it.effect("a program that sends neither Origin nor Sec-Fetch-Site passes", () =>
      Effect.gen(function*() {
        const response = yield* send("/echo", { method: "POST", headers: json, body: "{}" })
        assert.strictEqual(yield* Effect.promise(() => response.text()), "{}")
      }))

    it.effect.each(["GET", "HEAD"])("%s is no write: it passes from anywhere", (method) =>
      Effect.gen(function*() {
        const headers = { "sec-fetch-site": "cross-site", origin: "http://evil.test" }
        assert.strictEqual((yield* send("/thing", { method, headers })).status, 200)
      }))
  })

  describe("limits", () => {
    it.effect("refuses a request target over 4 KB", () =>
      Effect.gen(function*() {
        assert.strictEqual((yield* send(`/thing?${"x".repeat(4000)}`)).status, 200)
        yield* refused(yield* send(`/thing?${"x".repeat(4096)}`), 414, "url")
      }))

    it.effect("refuses a body over the limit by its announced length", () =>
      Effect.gen(function*() {
        const post = (body: string, options?: Security.Options) =>
          send("/echo", { method: "POST", headers: { ...json, "content-length": String(body.length) }, body }, options)
        assert.strictEqual((yield* post("x".repeat(65_536))).status, 200)
        yield* refused(yield* post("x".repeat(65_537)), 413, "body")
        yield* refused(yield* post("xxxxx", { maxBodySize: 4 }), 413, "body")
      }))

    // A real socket, which carries a chunked body.
    it.live("stops reading a body of unknown length at the limit", () =>
      Effect.gen(function*() {
        const port = yield* listen("127.0.0.1", { maxBodySize: 4 })
        const post = (body: string) =>
          raw(
            port,
            "127.0.0.1",
            "POST /body HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked",
            `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`
          )
        assert.include(yield* post("1234"), " 200 ")
        assert.include(yield* post("12345"), " 413 ")
      }).pipe(Effect.scoped))
  })

  describe("headers", () => {
    const secure = (response: Response) => {
      const csp = response.headers.get("content-security-policy")
      assert.include(csp, "default-src 'none'")
      assert.include(csp, "frame-ancestors 'none'")
      assert.include(csp, "require-trusted-types-for 'script'")
      assert.strictEqual(response.headers.get("x-content-type-options"), "nosniff")
      assert.strictEqual(response.headers.get("referrer-policy"), "no-referrer")
      assert.strictEqual(response.headers.get("cross-origin-opener-policy"), "same-origin")
      assert.strictEqual(response.headers.get("cross-origin-resource-policy"), "same-origin")
      for (const name of response.headers.keys()) assert.isFalse(name.startsWith("access-control-"), name)
    }

    it.effect("stand on every answer: success, refusal, unknown path and defect", () =>
      Effect.gen(function*() {
        const headers = { origin: "http://evil.test" }
        for (const [path, status] of [["/thing", 200], ["/nowhere", 404], ["/broken", 500]] as const) {
          const response = yield* send(path, { headers })
          assert.strictEqual(response.status, status)
          secure(response)
        }
        const foreign = yield* send("/thing", { headers: { host: "evil.test" } })
        secure(foreign)
        yield* refused(foreign, 421, "host")
        secure(yield* send("/thing", { method: "OPTIONS", headers }))
      }))

    it.effect("forbid caching unless the route decided otherwise", () =>
      Effect.gen(function*() {
        assert.strictEqual((yield* send("/thing")).headers.get("cache-control"), "no-store")
        assert.strictEqual((yield* send("/cached")).headers.get("cache-control"), "max-age=1")
      }))
  })

  it.effect("wraps an HTTP effect that has no router", () =>
    Effect.gen(function*() {
      const run = Security.middleware()(Effect.succeed(HttpServerResponse.text("ok")))
      const call = (host: string) =>
        run.pipe(
          Effect.provideService(
            HttpServerRequest.HttpServerRequest,
            HttpServerRequest.fromWeb(new Request("http://x/", { headers: { host } }))
          ),
          Effect.map((response) => response.status)
        )
      assert.strictEqual(yield* call("localhost"), 200)
      assert.strictEqual(yield* call("evil.test"), 421)
    }))
})

/** Serves the routes on a free port of a real address. */
const listen = (host: string, options?: Security.Options) =>
  Effect.gen(function*() {
    const body = HttpRouter.add("POST", "/body", (request) => Effect.map(request.text, HttpServerResponse.text))
    const server = HttpRouter.serve(Layer.merge(app(options), body), { disableLogger: true, disableListenLog: true })
    const context = yield* Layer.build(
      Layer.provideMerge(
        server,
        NodeHttpServer.layer(() => Http.createServer(), { port: 0, host, gracefulShutdownTimeout: "100 millis" })
      )
    )
    return yield* HttpServer.HttpServer.use(({ address }) =>
      "port" in address ? Effect.succeed(address.port) : Effect.die("no port")
    ).pipe(Effect.provide(context))
  })

/** Bytes on the wire: `fetch` would tidy up the headers that these tests are about. */
const raw = (port: number, address: string, head: string, body = "") =>
  Effect.callback<string>((resume) => {
    const socket = Net.connect(port, address, () => socket.write(`${head}\r\nConnection: close\r\n\r\n${body}`))
    let answer = ""
    socket.setEncoding("utf8")
    socket.on("data", (chunk) => answer += String(chunk))
    socket.on("close", () => resume(Effect.succeed(answer)))
    socket.on("error", (error) => resume(Effect.die(error)))
    return Effect.sync(() => socket.destroy())
  })
