import { Orchestrator } from "@effect-orchestra/core"
import { Server } from "@effect-orchestra/observability"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { Saga } from "@effect-orchestra/workflow"
import { assert, describe, it } from "@effect/vitest"
import { Console, Data, Deferred, Effect, Exit, Fiber, Layer, Redacted, Schedule, Scope } from "effect"
import { existsSync } from "node:fs"
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import { fileURLToPath } from "node:url"
import { type Browser, chromium, type Page } from "playwright-core"

const executablePath = "/usr/bin/chromium"
const artifacts = fileURLToPath(new URL("../../../.artifacts/", import.meta.url))
const skip = !existsSync(executablePath) && process.env.CI === undefined
if (skip) console.log(`skipped: there is no ${executablePath} to look at the page with`)

const args = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync"
]

const browserWith = (...more: ReadonlyArray<string>) =>
  Effect.acquireRelease(
    Effect.promise(() => chromium.launch({ executablePath, args: [...args, ...more] })),
    (browser) => Effect.promise(() => browser.close())
  )

const browser = browserWith()

/** A server of somebody else on another port of this machine. */
const elsewhere = Effect.map(
  Effect.acquireRelease(
    Effect.callback<Http.Server>((resume) => {
      const page = "<!doctype html><title>elsewhere</title><link rel=icon href=data:,><body>"
      const server = Http.createServer((_, response) => response.setHeader("content-type", "text/html").end(page))
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => void server.close())
  ),
  (server) => (server.address() as AddressInfo).port
)

/** The link that a server prints belongs to whoever reads the output of a service, not of these tests. */
const silent = Layer.succeed(Console.Console)({ ...console, error: () => {} })

class RemoteError extends Data.TaggedError("RemoteError")<{ readonly message: string }> {}

class DiskError extends Data.TaggedError("DiskError")<{ readonly message: string }> {}

/** A service of three parts that stand on each other. Each `crash` ends the present run of the database. */
const service = Effect.gen(function*() {
  let crash = yield* Deferred.make<never, DiskError>()
  const database = Effect.suspend(() => Deferred.await(crash))
  yield* Supervisor.start(Supervisor.make({
    name: "backup",
    strategy: "rest_for_one",
    intensity: 5,
    period: "1 minute",
    children: [
      Child.make("database", database, { backoff: Schedule.spaced("100 millis") }),
      Child.make("watcher", Effect.never),
      Child.make("api", Effect.never)
    ]
  }))
  return {
    crash: Effect.gen(function*() {
      const old = crash
      crash = yield* Deferred.make<never, DiskError>()
      yield* Deferred.fail(old, new DiskError({ message: "disk I/O error" }))
    })
  }
})

/** An open page, and everything that it complained about. */
const open = Effect.fnUntraced(
  function*(browser: Browser, url: string, options: Parameters<Browser["newPage"]>[0] = {}) {
    const page = yield* Effect.acquireRelease(
      Effect.promise(() => browser.newPage({ viewport: { width: 1280, height: 800 }, ...options })),
      (page) => Effect.promise(() => page.close())
    )
    const complaints: Array<string> = []
    page.on("console", (message) => complaints.push(message.text()))
    page.on("pageerror", (error) => complaints.push(String(error)))
    page.on("dialog", (dialog) => complaints.push(`dialog ${dialog.message()}`))
    yield* Effect.promise(() =>
      page.addInitScript(
        `addEventListener("securitypolicyviolation", (e) => console.error("CSP", e.violatedDirective))`
      )
    )
    yield* Effect.promise(() => page.goto(url))
    yield* Effect.promise(() => page.getByText("live", { exact: true }).waitFor())
    return { complaints, page }
  }
)

/** The cells of a routine's row. */
const row = (page: Page, name: string) =>
  page.locator("#rows tr").filter({ has: page.getByText(name, { exact: true }) })

const rowNames = (page: Page) => Effect.promise(() => page.locator("#rows td.name strong").allTextContents())

const hidden = (page: Page, value: boolean) =>
  Effect.promise(() =>
    page.evaluate(`Object.defineProperty(document, "hidden", { configurable: true, value: ${value} });
      document.dispatchEvent(new Event("visibilitychange"))`)
  )

const app = Layer.provideMerge(Server.layer({ port: 0 }), Orchestrator.layerWith({ name: "backup-service" }))

// A real browser, a real server and their clocks.
describe.skipIf(skip)("the page in a browser", () => {
  it.live("shows a restart within a second, without a reload", () =>
    Effect.gen(function*() {
      const { crash } = yield* service
      const { url } = yield* Server.Server
      const { complaints, page } = yield* open(yield* browser, `${url}/orchestra`)
      const run = (name: string) => Effect.promise(() => row(page, name).locator("td.incarnation").textContent())
      yield* Effect.promise(() => row(page, "api").waitFor())
      assert.deepStrictEqual(yield* rowNames(page), ["api", "database", "watcher"])
      yield* Effect.promise(() => page.evaluate("window.loadedOnce = true"))
      for (const expected of ["2", "3"]) {
        const from = performance.now()
        yield* crash
        for (const name of ["database", "watcher", "api"]) {
          const runs = page.locator("td.incarnation", { hasText: expected })
          yield* Effect.promise(() => row(page, name).filter({ has: runs, hasText: "running" }).waitFor())
        }
        assert.isBelow(performance.now() - from, 1000)
      }
      assert.deepStrictEqual([yield* run("database"), yield* run("watcher"), yield* run("api")], ["3", "3", "3"])
      assert.isTrue(yield* Effect.promise(() => page.evaluate("window.loadedOnce")))
      const exit = yield* Effect.promise(() => row(page, "database").locator("td.exit").textContent())
      assert.strictEqual(exit, "failure: DiskError disk I/O error")
      const tree = yield* Effect.promise(() => page.locator("#tree").innerText())
      assert.match(tree, /backup.*rest_for_one, 2 of 5 restarts in 1 min/s)
      const events = yield* Effect.promise(() => page.locator("#events").innerText())
      assert.include(events, "/backup-service/backup/database starts run 3 (failure)")
      assert.deepStrictEqual(complaints, [])
      yield* Supervisor.start(Supervisor.make({
        name: "offsite",
        strategy: "one_for_one",
        children: [
          Child.make("upload", new RemoteError({ message: "connect ECONNREFUSED 10.0.0.7:22" }), {
            backoff: Schedule.spaced("30 seconds")
          })
        ]
      }))
      yield* Effect.promise(() => page.getByText("waits for its next start after run 1").waitFor())
      assert.deepStrictEqual(yield* rowNames(page), ["upload", "api", "database", "watcher"])
      // Settled, so that the picture shows no row in the colour of a change.
      yield* Effect.sleep("2 seconds")
      yield* Effect.promise(() => page.screenshot({ path: `${artifacts}dashboard.png`, fullPage: true }))
      for (const [name, colorScheme, width] of [["dark", "dark", 1280], ["narrow", "light", 360]] as const) {
        yield* Effect.promise(() => page.emulateMedia({ colorScheme }))
        yield* Effect.promise(() => page.setViewportSize({ width, height: 800 }))
        yield* Effect.promise(() => page.screenshot({ path: `${artifacts}dashboard-${name}.png`, fullPage: true }))
        assert.isAtMost(
          yield* Effect.promise(() => page.evaluate<number>("document.documentElement.scrollWidth")),
          width
        )
      }
    }).pipe(Effect.scoped, Effect.provide(app)), 30_000)

  it.live("shows a saga with its steps, and what it cannot undo", () =>
    Effect.gen(function*() {
      const [charge, refund] = [yield* Deferred.make<never, RemoteError>(), yield* Deferred.make<void>()]
      const order = Effect.gen(function*() {
        yield* Saga.step("reserve", { run: Effect.void, compensate: () => Deferred.await(refund) })
        yield* Saga.step("pack", { run: Effect.void, compensate: () => Effect.fail("sealed") })
        return yield* Saga.step("charge", { run: Deferred.await(charge), compensate: Saga.irreversible })
      })
      const { url } = yield* Server.Server
      const { complaints, page } = yield* open(yield* browser, `${url}/orchestra`)
      const shown = (text: string) => Effect.promise(() => page.getByText(text).first().waitFor())
      const saga = yield* Effect.forkChild(
        Saga.outcome(order, { name: "order", compensationRetry: Schedule.recurs(0) })
      )
      yield* shown("saga, reserve done, pack done, charge running")
      yield* Deferred.fail(charge, new RemoteError({ message: "no answer" }))
      yield* shown("saga, goes back, reserve undoing, pack stuck, charge failed")
      yield* Effect.promise(() => page.locator("#problem-list").getByText("cannot undo pack").waitFor())
      yield* Deferred.succeed(refund, undefined)
      assert.strictEqual((yield* Fiber.join(saga))._tag, "Stuck")
      yield* shown("could not undo pack")
      yield* Effect.promise(() => page.locator("#tree").getByText("saga,").waitFor({ state: "detached" }))
      const events = yield* Effect.promise(() => page.locator("#events").innerText())
      assert.match(events, /\/backup-service\/order does charge: failure after .*\(RemoteError\)/)
      assert.match(events, /\/backup-service\/order undoes reserve: success after/)
      assert.deepStrictEqual(complaints, [])
    }).pipe(Effect.scoped, Effect.provide(app)), 30_000)

  it.live("shows what the application chose as text, whatever it is", () =>
    Effect.gen(function*() {
      const name = "<img src=x onerror=alert(1)>"
      yield* Orchestrator.fork(Effect.never, { name, attributes: { [name]: name } })
      yield* Supervisor.start(Supervisor.make({
        name: `"><script>alert(2)</script>`,
        strategy: "one_for_one",
        children: [
          Child.make("'\"</title><svg onload=alert(3)>", Effect.die(new Error(name)), {
            backoff: Schedule.spaced("1 hour")
          })
        ]
      }))
      const { url } = yield* Server.Server
      const { complaints, page } = yield* open(yield* browser, `${url}/orchestra`)
      yield* Effect.promise(() => row(page, name).waitFor())
      const names = yield* rowNames(page)
      assert.deepStrictEqual(names, ["'\"</title><svg onload=alert(3)>", name])
      for (const where of ["#rows", "#tree", "#problem-list"]) {
        const text = yield* Effect.promise(() => page.locator(where).innerText())
        assert.include(text, where === "#problem-list" ? name : "'\"</title><svg onload=alert(3)>")
      }
      const made = yield* Effect.promise(() => page.locator("main :is(img, svg, script), script:not([src])").count())
      assert.strictEqual(made, 0)
      assert.deepStrictEqual(complaints, [])
    }).pipe(Effect.scoped, Effect.provide(app)), 30_000)

  it.live(
    "is refused every way to make markup of text, and any code that is not its own",
    () =>
      Effect.gen(function*() {
        const { url } = yield* Server.Server
        const { complaints, page } = yield* open(yield* browser, `${url}/orchestra`)
        const attempt = (code: string) =>
          Effect.promise(() =>
            page.evaluate(`(() => { try { ${code}; return "done" } catch (e) { return e.name } })()`)
          )
        assert.strictEqual(yield* attempt(`document.body.innerHTML = "<b>x</b>"`), "TypeError")
        assert.strictEqual(
          yield* attempt(
            `const s = document.createElement("script"); s.text = "window.x = 1"; document.body.append(s)`
          ),
          "TypeError"
        )
        yield* Effect.promise(() => page.evaluate(`fetch("http://127.0.0.1:1/").catch(() => 0)`))
        // The browser tells of a violation in a task of its own.
        const told = (what: string) => Effect.suspend(() => complaints.includes(what) ? Effect.void : Effect.fail(what))
        for (const what of ["CSP require-trusted-types-for", "CSP connect-src"]) {
          yield* Effect.retry(told(what), Schedule.spaced("10 millis")).pipe(Effect.timeout("5 seconds"))
        }
      }).pipe(Effect.scoped, Effect.provide(app)),
    30_000
  )

  it.live(
    "can be read, filtered and sorted from the keyboard, and its address holds the view",
    () =>
      Effect.gen(function*() {
        for (const name of ["alpha", "beta", "gamma"]) yield* Orchestrator.fork(Effect.never, { name })
        const { url } = yield* Server.Server
        const { page } = yield* open(yield* browser, `${url}/orchestra`)
        yield* Effect.promise(() => row(page, "gamma").waitFor())
        yield* Effect.promise(() => page.keyboard.press("/"))
        yield* Effect.promise(() => page.keyboard.type("A/al"))
        yield* Effect.promise(() => page.getByText("No routine matches.").waitFor())
        assert.deepStrictEqual(yield* rowNames(page), [])
        yield* Effect.promise(() => page.locator("#filter").fill("ET"))
        yield* Effect.promise(() => row(page, "beta").waitFor())
        assert.deepStrictEqual(yield* rowNames(page), ["beta"])
        assert.strictEqual(new URL(page.url()).search, "?q=ET")
        yield* Effect.promise(() => page.locator("#filter").fill(""))
        yield* Effect.promise(() => row(page, "alpha").waitFor())
        // From the filter, tab goes to the first heading; twice enter sorts by it downwards.
        for (const key of ["Tab", "Enter", "Enter"]) yield* Effect.promise(() => page.keyboard.press(key))
        yield* Effect.promise(() => page.locator("th.name[aria-sort=descending]").waitFor())
        assert.deepStrictEqual(yield* rowNames(page), ["gamma", "beta", "alpha"])
        yield* Effect.promise(() => page.reload())
        yield* Effect.promise(() => row(page, "alpha").waitFor())
        assert.deepStrictEqual(yield* rowNames(page), ["gamma", "beta", "alpha"])
      }).pipe(Effect.scoped, Effect.provide(app)),
    30_000
  )

  it.live(
    "holds no connection while nobody looks, and is up to date again when somebody does",
    () =>
      Effect.gen(function*() {
        const { url } = yield* Server.Server
        const { page } = yield* open(yield* browser, `${url}/orchestra`)
        const aborted = page.waitForEvent("requestfailed", (request) => request.url().endsWith("/stream"))
        yield* hidden(page, true)
        assert.strictEqual((yield* Effect.promise(() => aborted)).failure()?.errorText, "net::ERR_ABORTED")
        yield* Orchestrator.fork(Effect.never, { name: "meanwhile" })
        yield* hidden(page, false)
        yield* Effect.promise(() => row(page, "meanwhile").waitFor())
        yield* Effect.promise(() => page.getByText("live", { exact: true }).waitFor())
      }).pipe(Effect.scoped, Effect.provide(app)),
    30_000
  )

  it.live(
    "says since when it is stale and why, and recovers by itself when the server is back",
    () =>
      Effect.gen(function*() {
        const start = Effect.fnUntraced(function*(port: number, name: string) {
          const scope = yield* Scope.make()
          const orchestrator = Orchestrator.layerWith({ name })
          const context = yield* Layer.buildWithScope(
            Layer.provideMerge(Server.layer({ port }), Layer.fresh(orchestrator)),
            scope
          )
          const server = yield* Effect.provide(Server.Server, context)
          return { ...server, close: Scope.close(scope, Exit.void) }
        })
        const first = yield* start(0, "first")
        const { page } = yield* open(yield* browser, `${first.url}/orchestra`)
        yield* first.close
        yield* Effect.promise(() => page.getByText(/Stale since .*: the server (closed|cannot)/).waitFor())
        yield* Effect.promise(() => page.locator("main.old").waitFor())
        const second = yield* start(first.port, "second")
        yield* Effect.addFinalizer(() => second.close)
        yield* Effect.promise(() => page.getByRole("heading", { name: "second" }).waitFor())
        yield* Effect.promise(() => page.locator("main:not(.old)").waitFor())
        assert.isFalse(yield* Effect.promise(() => page.locator("#stale").isVisible()))
      }).pipe(Effect.scoped),
    30_000
  )

  it.live(
    "exchanges the token of its address for a cookie, and is known by that from then on",
    () =>
      Effect.gen(function*() {
        const context = yield* Layer.build(Layer.provideMerge(
          Server.layer({ port: 0, token: Redacted.make("s3cret"), control: true }),
          Orchestrator.layer
        ))
        const { url } = yield* Effect.provide(Server.Server, context)
        const chrome = yield* browser
        const visitor = yield* Effect.promise(() => chrome.newContext())
        const page = yield* Effect.promise(() => visitor.newPage())
        const asked: Array<string | undefined> = []
        const complaints: Array<string> = []
        page.on("request", (request) => asked.push(request.headers()["authorization"], request.headers()["referer"]))
        page.on("console", (message) => complaints.push(message.text()))
        yield* Effect.promise(() => page.goto(`${url}/orchestra?q=x#token=s3cret`))
        yield* Effect.promise(() => page.getByText("live", { exact: true }).waitFor())
        assert.strictEqual(page.url(), `${url}/orchestra?q=x`)
        const [cookie, ...others] = yield* Effect.promise(() => visitor.cookies(`${url}/orchestra`))
        assert.deepInclude(cookie, { httpOnly: true, sameSite: "Strict", path: "/orchestra", secure: false })
        assert.deepStrictEqual(others, [])
        assert.deepStrictEqual(yield* Effect.promise(() => visitor.cookies(`${url}/debug/pprof/heap`)), [])
        const seen = "JSON.stringify([document.cookie, { ...localStorage }, { ...sessionStorage }, location.href])"
        assert.strictEqual(
          yield* Effect.promise(() => page.evaluate(seen)),
          JSON.stringify(["", {}, {}, `${url}/orchestra?q=x`])
        )
        yield* Effect.promise(() => page.reload())
        yield* Effect.promise(() => page.getByText("token · may act").waitFor())
        assert.isFalse(asked.some((header) => header?.includes("s3cret")))
        yield* Effect.promise(() => page.getByRole("button", { name: "Log out" }).click())
        yield* Effect.promise(() => page.getByText("You have logged out.").waitFor())
        yield* Effect.promise(() => page.reload())
        yield* Effect.promise(() => page.getByText(/This server asks for a token/).waitFor())
        // The browser itself reports the 401.
        assert.deepStrictEqual(complaints.filter((text) => !text.includes("401")), [])
      }).pipe(Effect.scoped),
    30_000
  )

  it.live(
    "asks for the token in a form, and again when it is wrong",
    () =>
      Effect.gen(function*() {
        const tokens = [{ label: "viewer", token: Redacted.make("look") }]
        const context = yield* Layer.build(Layer.provideMerge(Server.layer({ port: 0, tokens }), Orchestrator.layer))
        const { url } = yield* Effect.provide(Server.Server, context)
        const chrome = yield* browser
        const page = yield* Effect.promise(() => chrome.newPage())
        yield* Effect.promise(() => page.goto(`${url}/orchestra`))
        yield* Effect.promise(() => page.getByText(/This server asks for a token/).waitFor())
        yield* Effect.promise(() => page.keyboard.type("guess"))
        yield* Effect.promise(() => page.keyboard.press("Enter"))
        yield* Effect.promise(() => page.getByText("That token is wrong.").waitFor())
        yield* Effect.promise(() => page.screenshot({ path: `${artifacts}dashboard-login.png` }))
        yield* Effect.promise(() => page.getByLabel("Token").fill("look"))
        yield* Effect.promise(() => page.keyboard.press("Enter"))
        yield* Effect.promise(() => page.getByText("live", { exact: true }).waitFor())
        yield* Effect.promise(() => page.getByText("viewer · read-only").waitFor())
        assert.isFalse(yield* Effect.promise(() => page.locator("#login").isVisible()))
        // A link of the server, opened where the page is open already.
        yield* Effect.promise(() => page.getByRole("button", { name: "Log out" }).click())
        yield* Effect.promise(() => page.getByText("You have logged out.").waitFor())
        yield* Effect.promise(() => page.evaluate("location.hash = '#token=look'"))
        yield* Effect.promise(() => page.getByText("live", { exact: true }).waitFor())
        assert.strictEqual(page.url(), `${url}/orchestra`)
      }).pipe(Effect.scoped),
    30_000
  )

  it.live(
    "shows its token again to a server that has started anew",
    () =>
      Effect.gen(function*() {
        const start = Effect.fnUntraced(function*(port: number, name: string) {
          const scope = yield* Scope.make()
          const layer = Layer.provideMerge(
            Server.layer({ port, token: Redacted.make("s3cret") }),
            Layer.fresh(Orchestrator.layerWith({ name }))
          )
          const server = yield* Effect.provide(Server.Server, yield* Layer.buildWithScope(layer, scope))
          return { ...server, close: Scope.close(scope, Exit.void) }
        })
        const first = yield* start(0, "first")
        const { page } = yield* open(yield* browser, `${first.url}/orchestra#token=s3cret`)
        yield* first.close
        const second = yield* start(first.port, "second")
        yield* Effect.addFinalizer(() => second.close)
        yield* Effect.promise(() => page.getByRole("heading", { name: "second" }).waitFor())
        yield* Effect.promise(() => page.getByText("live", { exact: true }).waitFor())
      }).pipe(Effect.scoped),
    30_000
  )

  it.live(
    "cannot be acted for by other pages, on another port or under another name, whatever the browser sends along",
    () =>
      Effect.gen(function*() {
        const { id } = yield* Orchestrator.fork(Effect.never, { name: "victim" })
        const { port, token, url } = yield* Server.Server
        const chrome = yield* browserWith("--host-resolver-rules=MAP *.test 127.0.0.1")
        const visitor = yield* Effect.promise(() => chrome.newContext())
        const own = yield* Effect.promise(() => visitor.newPage())
        yield* Effect.promise(() => own.goto(`${url}/orchestra#token=${Redacted.value(token ?? assert.fail())}`))
        yield* Effect.promise(() => own.getByText("live", { exact: true }).waitFor())
        const acted: Array<string> = []
        yield* Orchestrator.instrument((event) => event._tag === "Acted" ? void acted.push(event.result) : undefined)

        const action = `${url}/orchestra/api/v1/routines/${id}/actions/stop`
        const foreign = yield* elsewhere
        for (const origin of [`http://127.0.0.1:${foreign}`, `http://evil.test:${foreign}`]) {
          const page = yield* Effect.promise(() => visitor.newPage())
          yield* Effect.promise(() => page.goto(origin))
          const post = (type: string) =>
            `fetch("${action}", { method: "POST", mode: "no-cors", credentials: "include",
              headers: { "content-type": "${type}" }, body: '{"reason":"x"}' }).then((r) => r.type, (e) => e.name)`
          // It arrives, and what is answered is kept from the page.
          assert.strictEqual(yield* Effect.promise(() => page.evaluate(post("text/plain"))), "TypeError")
          const preflighted = post("application/json").replace("no-cors", "cors")
          assert.strictEqual(yield* Effect.promise(() => page.evaluate(preflighted)), "TypeError")
          const read = `fetch("${url}/orchestra/api/v1/overview", { mode: "no-cors", credentials: "include" })
            .then((r) => r.type, (e) => e.name)`
          assert.strictEqual(yield* Effect.promise(() => page.evaluate(read)), "TypeError")
          const form = `const f = document.createElement("form"); f.method = "POST"; f.enctype = "text/plain";
            f.action = "${action}"; const i = document.createElement("input"); i.name = '{"reason":"x","y":"';
            i.value = '"}'; f.append(i); document.body.append(f); f.submit()`
          const navigated = page.waitForResponse((response) => response.url() === action)
          yield* Effect.promise(() => page.evaluate(form))
          assert.strictEqual((yield* Effect.promise(() => navigated)).status(), 403)
        }

        const rebound = yield* Effect.promise(() => visitor.newPage())
        const answer = yield* Effect.promise(() => rebound.goto(`http://rebound.test:${port}/orchestra`))
        assert.strictEqual(answer?.status(), 421)
        assert.deepStrictEqual(acted, [])
        const fine = `fetch("${action}", { method: "POST", headers: { "content-type": "application/json" },
          body: '{"reason":"a drill"}' }).then((r) => r.status)`
        assert.strictEqual(yield* Effect.promise(() => own.evaluate(fine)), 202)
        yield* Effect.retry(
          Effect.suspend(() => acted.includes("done") ? Effect.void : Effect.fail("not yet")),
          Schedule.spaced("10 millis")
        ).pipe(Effect.timeout("5 seconds"))
        yield* Effect.promise(() => own.getByText("done by token: stop (a drill)").waitFor())
      }).pipe(
        Effect.scoped,
        Effect.provide(Layer.provideMerge(
          Server.layer({ port: 0, control: true }).pipe(Layer.provide(silent)),
          Orchestrator.layerWith({ name: "backup-service" })
        ))
      ),
    30_000
  )
})
