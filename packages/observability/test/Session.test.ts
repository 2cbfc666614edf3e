import { Orchestrator } from "@effect-orchestra/core"
import { Server, Session } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Redacted, Schema, type Scope } from "effect"
import { HttpEffect, HttpRouter, type HttpServerRequest } from "effect/http"

const path = "/orchestra/api/v1/session"
const app = Orchestrator.layerWith({ name: "app" })
const own = { "sec-fetch-site": "same-origin", "content-type": "application/json" }

/** The routes alone, as a page of theirs calls them. */
const mounted = Effect.fnUntraced(function*(options: Server.RouterOptions) {
  const context = yield* Effect.context<Orchestrator>()
  const app = yield* HttpRouter.toHttpEffect(Layer.provide(Server.router(options), Layer.succeedContext(context)))
  type PerRequest = HttpServerRequest.HttpServerRequest | Scope.Scope
  const handler = HttpEffect.toWebHandlerWith<Orchestrator, PerRequest>(context)(app)
  return (method: string, path: string, headers: Record<string, string> = own, body?: string) => {
    const init = { method, headers: { host: "localhost", ...headers }, ...body === undefined ? {} : { body } }
    return Effect.promise(() => handler(new Request(`http://localhost${path}`, init)))
  }
})

const info = (response: Response) =>
  Effect.flatMap(Effect.promise(() => response.json()), Schema.decodeUnknownEffect(Session.SessionInfo))

const check = (response: Response) =>
  Effect.promise(() => response.json().then((problem: any) => `${response.status} ${problem.check}`))

/** What the browser keeps: the name and the value. */
const cookieOf = (response: Response) => response.headers.get("set-cookie")?.split(";")[0] ?? assert.fail("no cookie")

const token = Redacted.make("s3cret")
const signIn = JSON.stringify({ token: "s3cret" })

describe("Session", () => {
  it.effect("is begun with the token, and known by a cookie that no script can read and no other site sends", () =>
    Effect.gen(function*() {
      const ask = yield* mounted({ token, control: true })
      assert.strictEqual(yield* check(yield* ask("GET", path)), "401 token")
      const begun = yield* ask("POST", path, own, signIn)
      assert.deepStrictEqual(yield* info(begun), { v: 1, label: "token", may: ["read", "control"], session: true })
      const cookie = begun.headers.get("set-cookie") ?? ""
      assert.match(
        cookie,
        /^orchestra-[0-9a-f]{8}=[\w-]{43}; Max-Age=43200; Path=\/orchestra; HttpOnly; SameSite=Strict$/
      )
      assert.notInclude(cookie, "s3cret")
      const headers = { ...own, cookie: cookieOf(begun) }
      const known = yield* ask("GET", path, headers)
      assert.deepStrictEqual(yield* info(known), { v: 1, label: "token", may: ["read", "control"], session: true })
      assert.strictEqual(cookieOf(known), cookieOf(begun))
      for (const route of ["overview", "routines", "tree", "stream"]) {
        assert.strictEqual((yield* ask("GET", `/orchestra/api/v1/${route}`, headers)).status, 200, route)
      }
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("has a cookie for https alone where the page came by https", () =>
    Effect.gen(function*() {
      const ask = yield* mounted({ token })
      const begun = yield* ask("POST", path, { ...own, origin: "https://localhost" }, signIn)
      assert.include(begun.headers.get("set-cookie") ?? "", "; Secure")
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("lets nobody scrape or profile by its cookie", () =>
    Effect.gen(function*() {
      const ask = yield* mounted({ token, profile: true })
      const headers = { ...own, cookie: cookieOf(yield* ask("POST", path, own, signIn)) }
      for (const route of ["/metrics", "/debug/pprof/goroutine"]) {
        assert.strictEqual(yield* check(yield* ask("GET", route, headers)), "401 token", route)
        const { status } = yield* ask("GET", route, { ...headers, authorization: "Bearer s3cret" })
        assert.strictEqual(status, 200, route)
      }
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("ends when it is logged out, with the stream that it reads", () =>
    Effect.gen(function*() {
      const ask = yield* mounted({ token })
      const headers = { ...own, cookie: cookieOf(yield* ask("POST", path, own, signIn)) }
      const stream = yield* ask("GET", "/orchestra/api/v1/stream", headers)
      const read = yield* Effect.forkChild(Effect.promise(() => stream.text()), { startImmediately: true })
      const left = yield* ask("DELETE", path, headers)
      assert.strictEqual(left.status, 204)
      assert.match(left.headers.get("set-cookie") ?? "", /^orchestra-\w+=; Max-Age=0; Path=\/orchestra; Expires=.*1970/)
      assert.strictEqual(yield* check(yield* ask("GET", path, headers)), "401 token")
      yield* Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 20)))
      assert.isDefined(read.pollUnsafe())
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("is not needed where no token is asked for", () =>
    Effect.gen(function*() {
      const ask = yield* mounted({ profile: true })
      const nobody: Session.SessionInfo = { v: 1, label: null, may: ["read", "profile"], session: false }
      assert.deepStrictEqual(yield* info(yield* ask("GET", path)), nobody)
      const begun = yield* ask("POST", path, own, signIn)
      assert.deepStrictEqual(yield* info(begun), nobody)
      assert.isNull(begun.headers.get("set-cookie"))
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("is refused to a wrong token and to what is no JSON of the kind, without repeating it", () =>
    Effect.gen(function*() {
      const ask = yield* mounted({ token })
      assert.strictEqual(yield* check(yield* ask("POST", path, own, JSON.stringify({ token: "x" }))), "401 token")
      for (const body of ["", "{", "null", "[]", "\"s3cret\"", "{\"token\":7}", "{\"Token\":\"s3cret\"}"]) {
        const response = yield* ask("POST", path, own, body)
        assert.isNull(response.headers.get("set-cookie"), body)
        const text = yield* Effect.promise(() => response.text())
        assert.strictEqual(response.status, 400, body)
        assert.deepInclude(JSON.parse(text), { check: "body" })
        assert.notInclude(text, "s3cret")
      }
      assert.strictEqual(yield* check(yield* ask("POST", path, own, "x".repeat(70_000))), "413 body")
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("cannot be begun, ended or used for a change from anywhere else, with the cookie and all", () =>
    Effect.gen(function*() {
      const ask = yield* mounted({ token, control: true })
      const cookie = cookieOf(yield* ask("POST", path, own, signIn))
      const json = { "content-type": "application/json" }
      const attacks: ReadonlyArray<readonly [string, Record<string, string>, string]> = [
        ["a page on another port", { ...json, cookie, "sec-fetch-site": "same-site" }, "403 origin"],
        ["the same on plain HTTP to a name", { ...json, cookie, origin: "http://localhost:8080" }, "403 origin"],
        ["another site", { ...json, cookie, "sec-fetch-site": "cross-site", origin: "http://evil.test" }, "403 origin"],
        ["a sandboxed frame", { ...json, cookie, origin: "null" }, "403 origin"],
        ["no header that says where from", { ...json, cookie }, "403 origin"],
        ["a form", { "content-type": "text/plain", cookie, "sec-fetch-site": "same-origin" }, "415 content_type"],
        ["a rebound name", { ...own, cookie, host: "evil.test" }, "421 host"]
      ]
      const routes: ReadonlyArray<readonly [string, string]> = [
        ["POST", path],
        ["DELETE", path],
        ["POST", "/orchestra/api/v1/routines/r-1/actions/stop"],
        ["PUT", "/orchestra/api/v1/anything"]
      ]
      for (const [method, route] of routes) {
        for (const [name, headers, expected] of attacks) {
          const response = yield* ask(method, route, headers, signIn)
          assert.isNull(response.headers.get("set-cookie"), name)
          assert.strictEqual(yield* check(response), expected, `${method} ${route} by ${name}`)
        }
      }
      assert.strictEqual((yield* ask("GET", path, { ...own, cookie })).status, 200)
    }).pipe(Effect.scoped, Effect.provide(app)))
})
