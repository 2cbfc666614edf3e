import { Orchestrator } from "@effect-orchestra/core"
import { Profiler, Server } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"
import { type Duration, Effect, Exit, Fiber, Layer, Redacted, Schedule, Scope } from "effect"
import { HttpEffect, HttpRouter, type HttpServerRequest } from "effect/http"
import { TestClock } from "effect/testing"
import { decode } from "./model/Pprof.ts"

const app = Orchestrator.layerWith({ name: "app" })
const pprof = "/debug/pprof"
const profiles = "/orchestra/api/v1/profiles"
const plain = Profiler.layerWith({ native: false, heap: false })

/** The routes alone, under the clock of the test. */
const mounted = Effect.fnUntraced(
  function*(options: Server.RouterOptions = { profile: true }, profiler: Layer.Layer<never> | typeof plain = plain) {
    const context = yield* Effect.context<Orchestrator>()
    const routes = Layer.provide(Server.router(options), Layer.provideMerge(profiler, Layer.succeedContext(context)))
    type PerRequest = HttpServerRequest.HttpServerRequest | Scope.Scope
    const handler = HttpEffect.toWebHandlerWith<Orchestrator, PerRequest>(context)(
      yield* HttpRouter.toHttpEffect(routes)
    )
    return (path: string, { headers, ...init }: RequestInit & { readonly headers?: Record<string, string> } = {}) =>
      Effect.promise(() =>
        handler(new Request(`http://localhost${path}`, { headers: { host: "localhost", ...headers }, ...init }))
      )
  }
)

const served = Effect.fnUntraced(function*(options?: Server.ServerOptions) {
  const scope = yield* Effect.acquireRelease(Scope.make(), (scope, exit) => Scope.close(scope, exit))
  const context = yield* Layer.buildWithScope(
    Layer.provide(Server.layer({ port: 0, profile: true, ...options }), plain),
    scope
  )
  const { url } = yield* Effect.provide(Server.Server, context)
  return { close: Scope.close(scope, Exit.void), url }
})

const json = (response: Response): Effect.Effect<any> => Effect.promise(() => response.json())
const text = (response: Response) => Effect.promise(() => response.text())
const profile = (response: Response) =>
  Effect.map(Effect.promise(() => response.arrayBuffer()), (buffer) => decode(new Uint8Array(buffer)))

const sameOrigin = { "sec-fetch-site": "same-origin" }

const post = (body: string) => ({ method: "POST", body, headers: { "content-type": "application/json" } })

/** Until a recording has begun, which takes some turns of the real event loop. */
const begun = Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 100)))

/** What a recording ends with. It sleeps from when the profiler has started on, which nobody sees from outside. */
const ended = <A, E>(recording: Fiber.Fiber<A, E>) =>
  Effect.raceFirst(
    Fiber.join(recording),
    Effect.forever(Effect.andThen(TestClock.adjust("1 second"), Effect.promise(() => new Promise(setImmediate))))
  )

describe("PprofRoutes", () => {
  it.effect("are closed unless the server may profile, and ask for the token", () =>
    Effect.gen(function*() {
      const paths = ["profile", "goroutine", "block", "heap", "trace", "", "cmdline"].map((name) => `${pprof}/${name}`)
      const off = yield* mounted({})
      for (const path of paths) assert.strictEqual((yield* off(path)).status, 403, path)
      assert.strictEqual((yield* off(profiles, post("{}"))).status, 403)
      const guarded = yield* mounted({ profile: true, token: Redacted.make("s3cret") })
      for (const path of paths) assert.strictEqual((yield* guarded(path)).status, 401, path)
      assert.strictEqual((yield* guarded(profiles, post("{}"))).status, 401)
      const bearer = { headers: { authorization: "Bearer s3cret" } }
      assert.strictEqual((yield* guarded(`${pprof}/goroutine`, bearer)).status, 200)
      const session = yield* guarded("/orchestra/api/v1/session", post("{\"token\":\"s3cret\"}"))
      const cookie = session.headers.get("set-cookie")?.split(";")[0] ?? ""
      const ofPage = (body: string) => ({ ...post(body), headers: { ...post(body).headers, cookie, ...sameOrigin } })
      assert.strictEqual((yield* guarded(profiles, ofPage("[]"))).status, 400)
      // The cookie is that of the page, and no page needs these.
      for (const path of paths) {
        assert.strictEqual((yield* guarded(path, { headers: { cookie, ...sameOrigin } })).status, 401, path)
      }
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("are not made at the wish of another site", () =>
    Effect.gen(function*() {
      const get = yield* mounted()
      for (const name of ["profile", "goroutine", "block", "heap"]) {
        for (const site of ["cross-site", "same-site"]) {
          const response = yield* get(`${pprof}/${name}`, { headers: { "sec-fetch-site": site } })
          assert.strictEqual(response.status, 403, name)
          assert.strictEqual((yield* json(response)).check, "origin")
        }
      }
      assert.strictEqual((yield* get(`${pprof}/goroutine`, { headers: { "sec-fetch-site": "none" } })).status, 200)
      assert.strictEqual((yield* get(`${pprof}/goroutine`, { headers: sameOrigin })).status, 200)
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("count nothing where nobody may profile", () =>
    Effect.gen(function*() {
      const { kernel } = yield* Orchestrator
      const counting = (options: Server.RouterOptions) =>
        Effect.scoped(Effect.map(
          mounted(options, Layer.empty),
          () => kernel.observers?.all.filter(({ waited }) => waited !== undefined).length ?? 0
        ))
      assert.strictEqual(yield* counting({ profile: true }), 1 + (yield* counting({})))
    }).pipe(Effect.provide(app)))

  it.effect("hand out the profiles as files that readers take", () =>
    Effect.gen(function*() {
      const get = yield* mounted()
      yield* Orchestrator.fork(Effect.never, { name: "poller" })
      const types = { goroutine: ["routine/count", "fiber/count"], block: ["contentions/count", "delay/nanoseconds"] }
      for (const [name, values] of Object.entries(types)) {
        const response = yield* get(`${pprof}/${name}`)
        assert.strictEqual(response.status, 200)
        assert.strictEqual(response.headers.get("content-type"), "application/octet-stream")
        assert.strictEqual(response.headers.get("content-disposition"), `attachment; filename="${name}.pb.gz"`)
        assert.strictEqual(response.headers.get("cache-control"), "no-store")
        assert.deepStrictEqual((yield* profile(response)).types, values)
      }
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("show the fibers as text, and what there is", () =>
    Effect.gen(function*() {
      const get = yield* mounted()
      yield* Orchestrator.fork(Effect.never, { name: "poller" })
      assert.match(
        yield* text(yield* get(`${pprof}/goroutine?debug=1`)),
        /^fiber profile: total 1\n1 @ poller \[running\]/
      )
      assert.match(
        yield* text(yield* get(`${pprof}/goroutine?debug=2`)),
        /^routine r-1 \[running, 0 s\]: \/app\/poller/
      )
      for (const path of [pprof, `${pprof}/`, `${pprof}/?x=1`]) {
        assert.match(yield* text(yield* get(path)), /^profile .*\ngoroutine .*\nblock .*\nheap /, path)
      }
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("say what they do not have, and why", () =>
    Effect.gen(function*() {
      const get = yield* mounted()
      const expected: ReadonlyArray<readonly [string, number, string]> = [
        ["heap", 501, "npm install @datadog/pprof"],
        ["trace", 501, "no trace"],
        ["cmdline", 404, "no such profile"],
        ["symbol", 404, "no such profile"],
        ["mutex", 404, "no such profile"],
        ...["0", "-1", "120.5", "1e9", "abc", "", "NaN", "1&seconds=2"].map((seconds) =>
          [`profile?seconds=${seconds}`, 400, "seconds"] as const
        ),
        ["profile?format=svg", 400, "format"],
        ["goroutine?debug=3", 400, "debug"]
      ]
      for (const [path, status, detail] of expected) {
        const response = yield* get(`${pprof}/${path}`)
        assert.strictEqual(response.status, status, path)
        assert.strictEqual(response.headers.get("content-type"), "application/problem+json", path)
        assert.include((yield* json(response)).detail, detail, path)
      }
      for (
        const body of ["", "{", "[]", "{\"seconds\":0}", "{\"seconds\":121}", "{\"seconds\":\"1\"}", "{\"format\":1}"]
      ) {
        const response = yield* get(profiles, post(body))
        assert.strictEqual(response.status, 400, body)
        assert.include((yield* json(response)).detail, "body", body)
      }
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("record for 30 seconds unless told otherwise, one at a time", () =>
    Effect.gen(function*() {
      const get = yield* mounted()
      const first = yield* Effect.forkChild(get(`${pprof}/profile`))
      yield* begun
      for (
        const busy of [get(`${pprof}/profile?seconds=1&format=cpuprofile`), get(profiles, post("{\"seconds\":1}"))]
      ) {
        const response = yield* busy
        assert.strictEqual(response.status, 409)
        assert.include((yield* json(response)).detail, "one at a time")
      }
      yield* TestClock.adjust("29 seconds")
      assert.isUndefined(first.pollUnsafe())
      const response = yield* ended(first)
      assert.strictEqual(response.status, 200)
      assert.deepStrictEqual((yield* profile(response)).types, ["samples/count", "cpu/nanoseconds"])
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("record for the page by POST, in either format", () =>
    Effect.gen(function*() {
      const get = yield* mounted()
      const recorded = Effect.fnUntraced(function*(body: string) {
        const fiber = yield* Effect.forkChild(get(profiles, post(body)))
        return yield* ended(fiber)
      })
      const pprof = yield* recorded("{\"seconds\":5}")
      assert.deepStrictEqual((yield* profile(pprof)).types, ["samples/count", "cpu/nanoseconds"])
      const chrome = yield* recorded("{\"seconds\":5,\"format\":\"cpuprofile\"}")
      assert.strictEqual(chrome.headers.get("content-type"), "application/json")
      assert.strictEqual(chrome.headers.get("content-disposition"), "attachment; filename=\"profile.cpuprofile\"")
      assert.containsAllKeys(yield* json(chrome), ["nodes", "samples", "timeDeltas"])
      const form = yield* get(profiles, { method: "POST", body: "{}", headers: { "content-type": "text/plain" } })
      assert.strictEqual(form.status, 415)
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("use the profiler of the context", () =>
    Effect.gen(function*() {
      const own = Layer.effect(
        Profiler.Profiler,
        Effect.map(Profiler.Profiler, (profiler) => ({
          ...profiler,
          cpu: (duration: Duration.Input) =>
            Effect.fail(new Profiler.ProfilerUnavailable({ profile: "cpu", reason: `not for ${String(duration)} ms` }))
        }))
      )
      const get = yield* mounted({ profile: true }, Layer.provide(own, plain))
      const response = yield* get(`${pprof}/profile`)
      assert.strictEqual(response.status, 503)
      assert.strictEqual((yield* json(response)).detail, "no cpu profile: not for 30000 ms")
      const details = yield* Effect.forEach(
        [get(`${pprof}/profile?seconds=0.5`), get(`${pprof}/profile?seconds=120`), get(profiles, post("{}"))],
        Effect.flatMap(json)
      )
      assert.deepStrictEqual(details.map(({ detail }) => detail.slice(-9)), ["or 500 ms", "120000 ms", " 30000 ms"])
    }).pipe(Effect.scoped, Effect.provide(app)))

  // From here on real sockets, since that is what these are about.
  it.live("stop recording when the client goes away", () =>
    Effect.gen(function*() {
      const { url } = yield* served()
      const controller = new AbortController()
      const aborted = fetch(`${url}${pprof}/profile?seconds=60`, { signal: controller.signal }).catch(() => "gone")
      yield* begun
      const status = Effect.promise(() => fetch(`${url}${pprof}/profile?seconds=0.05`).then(({ status }) => status))
      assert.strictEqual(yield* status, 409)
      controller.abort()
      assert.strictEqual(yield* Effect.promise(() => aborted), "gone")
      const again = Effect.flatMap(status, (code) => code === 200 ? Effect.void : Effect.fail(code))
      yield* Effect.retry(again, Schedule.spaced("20 millis")).pipe(Effect.timeout("3 seconds"))
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.live("stop recording when the server is closed", () =>
    Effect.gen(function*() {
      const { close, url } = yield* served()
      const cut = fetch(`${url}${pprof}/profile?seconds=60`).then(({ status }) => status, () => "gone")
      yield* begun
      const from = performance.now()
      yield* close
      assert.isBelow(performance.now() - from, 2000)
      yield* Effect.promise(() => cut)
      const { url: next } = yield* served()
      const again = Effect.promise(() => fetch(`${next}${pprof}/profile?seconds=0.05`).then(({ status }) => status))
      assert.strictEqual(yield* again, 200)
    }).pipe(Effect.scoped, Effect.provide(app)))
})
