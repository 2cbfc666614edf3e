import { Bus, Group, Mailbox, Orchestrator, Routine, Topic } from "@effect-orchestra/core"
import { Api, Server } from "@effect-orchestra/observability"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { Saga } from "@effect-orchestra/workflow"
import { assert, describe, it } from "@effect/vitest"
import { Data, Deferred, Effect, Layer, Option, Schedule, Schema, type Scope } from "effect"
import { HttpEffect, HttpRouter, type HttpServerRequest } from "effect/http"
import { TestClock } from "effect/testing"

const api = "/orchestra/api/v1"
const app = Orchestrator.layerWith({ name: "app" })

class Oops extends Data.TaggedError("Oops")<{ readonly message: string }> {}

/** The routes alone, under the clock of the test. */
const mounted = Effect.fnUntraced(function*(options?: Server.RouterOptions) {
  const context = yield* Effect.context<Orchestrator>()
  const app = yield* HttpRouter.toHttpEffect(Layer.provide(Server.router(options), Layer.succeedContext(context)))
  type PerRequest = HttpServerRequest.HttpServerRequest | Scope.Scope
  const handler = HttpEffect.toWebHandlerWith<Orchestrator, PerRequest>(context)(app)
  return (path: string, headers: Record<string, string> = {}) =>
    Effect.promise(() =>
      handler(new Request(`http://localhost${api}${path}`, { headers: { host: "localhost", ...headers } }))
    )
})

const body = (response: Response): Effect.Effect<any> => Effect.promise(() => response.json())

/** An answer, which has to be what its schema says, with nothing beside it. */
const decoded = <S extends Schema.Codec<any, any>>(response: Response, schema: S): Effect.Effect<S["Type"]> =>
  Effect.gen(function*() {
    assert.strictEqual(response.status, 200, response.url)
    const given = yield* body(response)
    const read = yield* Effect.orDie(Schema.decodeUnknownEffect(schema)(given))
    assert.deepStrictEqual(read, given)
    return read
  })

/** One of everything, and a child that has failed. */
const rich = Effect.gen(function*() {
  const crash = yield* Deferred.make<never, Oops>()
  let runs = 0
  const mailer = Effect.suspend(() => ++runs === 1 ? Deferred.await(crash) : Effect.never)
  yield* Supervisor.start(Supervisor.make({
    name: "mail",
    strategy: "one_for_one",
    intensity: 3,
    period: "1 minute",
    children: [
      Child.make("queue", Effect.never),
      Child.make("mailer", mailer, { backoff: Schedule.spaced("10 seconds"), attributes: { region: "eu" } })
    ]
  }))
  const inbox = yield* Mailbox.make<unknown>({ name: "inbox", capacity: 10 })
  yield* Mailbox.sendAll(inbox, ["first", { order: 7, secret: "s3cret" }, "x".repeat(5000)])
  const orders = Topic.make("orders", Schema.String)
  yield* Bus.subscribe(orders, { name: "audit" })
  yield* Bus.publish(orders, "o-1")
  yield* Group.make({ name: "batch", concurrency: 4 })
  const charge = Saga.step("charge", { run: Effect.never, compensate: Saga.irreversible })
  yield* Effect.forkChild(Saga.outcome(charge, { name: "order" }), { startImmediately: true })
  yield* Orchestrator.fork(Effect.never, {
    name: "poller",
    idleTimeout: "1 hour",
    shutdown: "2 seconds",
    resources: [inbox]
  })
  yield* Effect.exit(Effect.flatMap(Orchestrator.fork(Effect.fail("over"), { name: "job" }), Routine.join))
  yield* TestClock.adjust("3 seconds")
  yield* Deferred.fail(crash, new Oops({ message: "connection refused: s3cret" }))
  yield* TestClock.adjust("1 second")
  const { kernel } = yield* Orchestrator
  const idOf = (name: string) => {
    const node = [...kernel.nodes.values()].find((node) => node.name === name)
    return node?.id ?? assert.fail(name)
  }
  return { idOf, inbox, kernel }
})

const layer = Layer.provideMerge(Bus.layer, app)

describe("the routes of the API", () => {
  it.effect("answer what their schemas say, on a tree with one of everything", () =>
    Effect.gen(function*() {
      const get = yield* mounted({ inspect: true })
      const { idOf, kernel } = yield* rich
      const ended = kernel.history.ended.all[0]?.snapshot().id ?? assert.fail()
      const routes: ReadonlyArray<readonly [string, Schema.Codec<any, any>]> = [
        ["/overview", Api.Overview],
        ["/overview?points=900", Api.Overview],
        ["/routines", Api.RoutinePage],
        ["/routines?limit=1&sort=name&dir=desc&state=backoff,running&q=mail", Api.RoutinePage],
        [`/routines/${idOf("mailer")}`, Api.RoutineDetail],
        [`/routines/${idOf("poller")}`, Api.RoutineDetail],
        [`/routines/${ended}`, Api.RoutineDetail],
        [`/routines/${idOf("mailer")}/history`, Api.History],
        [`/routines/${ended}/history`, Api.History],
        [`/routines/${idOf("mailer")}/logs`, Api.LogLines],
        ["/tree", Api.Tree],
        ["/tree?root=/app/mail&depth=1&limit=2", Api.Tree],
        ["/mailboxes", Api.MailboxPage],
        ["/mailboxes?sort=name&q=in", Api.MailboxPage],
        [`/mailboxes/${idOf("inbox")}`, Api.NodeDetail],
        [`/mailboxes/${idOf("inbox")}/messages?limit=2`, Api.Messages],
        [`/mailboxes/${idOf("audit")}/messages`, Api.Messages],
        ["/buses", Api.BusPage],
        [`/buses/${idOf("bus")}`, Api.NodeDetail],
        [`/buses/${idOf("orders")}`, Api.NodeDetail],
        ["/groups", Api.GroupPage],
        [`/groups/${idOf("batch")}`, Api.NodeDetail],
        ["/sagas", Api.SagaPage],
        [`/sagas/${idOf("order")}`, Api.NodeDetail],
        ["/events", Api.EventPage],
        ["/events?since=0&level=warn&kind=Exited&path=/app/mail&limit=5", Api.EventPage],
        ["/dump", Api.Dump]
      ]
      for (const [path, schema] of routes) {
        const response = yield* get(path)
        assert.strictEqual(response.headers.get("content-type"), "application/json", path)
        assert.strictEqual(response.headers.get("cache-control"), "no-store", path)
        yield* decoded(response, schema)
      }
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("tell all that is known of a routine", () =>
    Effect.gen(function*() {
      const get = yield* mounted()
      const { idOf } = yield* rich
      const mailer = yield* decoded(yield* get(`/routines/${idOf("mailer")}`), Api.RoutineDetail)
      assert.deepInclude(mailer.routine, { name: "mailer", state: "backoff", parent: idOf("mail") })
      assert.deepStrictEqual(mailer.owners.map(({ kind, path }) => `${kind} ${path}`), [
        "orchestrator /app",
        "supervisor /app/mail"
      ])
      const poller = yield* decoded(yield* get(`/routines/${idOf("poller")}`), Api.RoutineDetail)
      assert.deepInclude(poller.config, { shutdownMs: 2000, idleTimeoutMs: 3_600_000, drains: false })
      assert.deepStrictEqual(poller.mailboxes.map(({ name, stats }) => [name, stats.length]), [["inbox", 3]])
      assert.deepStrictEqual(poller.routine.mailbox, { depth: 3, limit: 10, oldestMs: 4000 })
      assert.strictEqual(poller.stats?.uptimeMs, 4000)
      const { items } = yield* decoded(yield* get(`/routines/${idOf("mailer")}/history`), Api.History)
      assert.deepStrictEqual(items.map(({ errorType, incarnation, ranMs }) => [incarnation, errorType, ranMs]), [
        [1, "Oops", 3000]
      ])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("tell of a routine that has ended while it is remembered", () =>
    Effect.gen(function*() {
      const get = yield* mounted()
      const { kernel } = yield* rich
      const { id } = kernel.history.ended.all[0]?.snapshot() ?? assert.fail()
      const detail = yield* decoded(yield* get(`/routines/${id}`), Api.RoutineDetail)
      assert.deepInclude(detail, { live: false, owners: [], stats: null, waits: null })
      assert.deepInclude(detail.routine, { name: "job", state: "failed" })
      const { items } = yield* decoded(yield* get(`/routines/${id}/history`), Api.History)
      assert.deepStrictEqual(items.map(({ reason }) => reason), ["failure"])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("keep at most 50 exits of a routine, the newest first", () =>
    Effect.gen(function*() {
      const get = yield* mounted()
      let runs = 0
      yield* Supervisor.start(Supervisor.make({
        name: "top",
        strategy: "one_for_one",
        intensity: 100,
        period: "1 second",
        children: [Child.make("flaky", Effect.suspend(() => ++runs > 60 ? Effect.never : Effect.fail(`run ${runs}`)))]
      }))
      while (runs <= 60) yield* TestClock.adjust("1 millis")
      const { items } = yield* decoded(yield* get("/routines?q=flaky"), Api.RoutinePage)
      const history = yield* decoded(yield* get(`/routines/${items[0]?.id}/history`), Api.History)
      assert.deepStrictEqual(
        history.items.map(({ message }) => message),
        Array.from({ length: 50 }, (_, n) => `run ${60 - n}`)
      )
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("show messages in their order, cut, without taking them, and only where that is enabled", () =>
    Effect.gen(function*() {
      const { idOf, inbox } = yield* rich
      const closed = yield* mounted()
      assert.strictEqual((yield* closed(`/mailboxes/${idOf("inbox")}/messages`)).status, 403)
      const get = yield* mounted({ inspect: true, redact: (text) => text.replaceAll("s3cret", "***") })
      const { depth, items } = yield* decoded(yield* get(`/mailboxes/${idOf("inbox")}/messages`), Api.Messages)
      assert.strictEqual(depth, 3)
      assert.deepStrictEqual(items.slice(0, 2), [
        { preview: "first", truncated: false },
        { preview: "{\"order\":7,\"secret\":\"***\"}", truncated: false }
      ])
      assert.deepStrictEqual(items[2], { preview: "x".repeat(2048), truncated: true })
      const audit = yield* decoded(yield* get(`/mailboxes/${idOf("audit")}/messages?limit=1`), Api.Messages)
      assert.include(audit.items[0]?.preview, "\"value\":\"o-1\"")
      assert.strictEqual(inbox.stats.length, 3)
      assert.deepStrictEqual(yield* Mailbox.receive(inbox), "first")
      const rest = yield* decoded(yield* get(`/mailboxes/${idOf("inbox")}/messages?limit=1`), Api.Messages)
      assert.deepStrictEqual(rest.items.map(({ preview }) => preview), ["{\"order\":7,\"secret\":\"***\"}"])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("show any message, and run no code of it", () =>
    Effect.gen(function*() {
      const get = yield* mounted({ inspect: true })
      const inbox = yield* Mailbox.make<unknown>({ name: "odd", capacity: 20 })
      const loop: Array<unknown> = []
      loop.push(loop)
      const trap = {
        get secret() {
          return assert.fail("a getter ran")
        },
        toJSON: () => assert.fail("toJSON ran"),
        toString: () => assert.fail("toString ran")
      }
      const thrower = new Proxy({}, {
        ownKeys: () => {
          throw new Error("no")
        }
      })
      const wide = Object.fromEntries(Array.from({ length: 5000 }, (_, n) => [`k${n}`, n]))
      yield* Mailbox.sendAll(inbox, [
        undefined,
        null,
        10n,
        Symbol("s"),
        () => 1,
        loop,
        trap,
        thrower,
        wide,
        "é".repeat(2000),
        new Error("boom"),
        Option.some(1)
      ])
      const { kernel } = yield* Orchestrator
      const id = [...kernel.nodes.values()].find(({ name }) => name === "odd")?.id
      const { items } = yield* decoded(yield* get(`/mailboxes/${id}/messages`), Api.Messages)
      const previews = items.map(({ preview }) => preview)
      assert.deepStrictEqual(previews.slice(0, 8), [
        "undefined",
        "null",
        "10",
        "Symbol(s)",
        "(function)",
        "[(again)]",
        "{\"secret\":(computed),\"toJSON\":(function),\"toString\":(function)}",
        "(it cannot be shown)"
      ])
      for (const preview of previews) assert.isAtMost(Buffer.byteLength(preview), 2048)
      assert.deepStrictEqual(items[8]?.truncated, true)
      assert.strictEqual(previews[9], "é".repeat(1024))
      assert.include(previews[10], "\"message\":\"boom\"")
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("pass every text of the application through the redactor, and show nothing of one that throws", () =>
    Effect.gen(function*() {
      yield* rich
      const everywhere = ["/overview", "/routines", "/tree", "/events?since=0", "/events?format=ndjson", "/dump"]
      const texts = (get: (path: string) => Effect.Effect<Response>) =>
        Effect.forEach(
          everywhere,
          (path) => Effect.flatMap(get(path), (response) => Effect.promise(() => response.text()))
        )
      const open = yield* mounted()
      const redacted = yield* mounted({ redact: (text) => text.replaceAll("s3cret", "***") })
      const broken = yield* mounted({
        redact: () => {
          throw new Error("no")
        }
      })
      // The logs of these servers begin with them.
      const crash = Effect.fail(new Oops({ message: "again: s3cret" }))
      yield* Effect.exit(Effect.flatMap(Orchestrator.fork(crash, { name: "late" }), Routine.join))
      for (const text of yield* texts(open)) assert.include(text, "s3cret")
      for (const text of yield* texts(redacted)) {
        assert.notInclude(text, "s3cret")
        assert.include(text, "***")
      }
      for (const text of yield* texts(broken)) {
        assert.notInclude(text, "refused")
        assert.include(text, "(the redactor failed)")
      }
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("name the parameter that they do not understand", () =>
    Effect.gen(function*() {
      const get = yield* mounted({ inspect: true })
      const { idOf } = yield* rich
      const refused: ReadonlyArray<readonly [string, number, string]> = [
        ["/overview?points=901", 400, "points"],
        ["/overview?points=-1", 400, "points"],
        ["/routines?limit=0", 400, "limit"],
        ["/routines?limit=501", 400, "limit"],
        ["/routines?limit=1e9", 400, "limit"],
        ["/routines?limit=1&limit=2", 400, "limit"],
        ["/routines?sort=id", 400, "sort"],
        ["/routines?dir=up", 400, "dir"],
        ["/routines?state=dead", 400, "state"],
        ["/routines?state=__proto__", 400, "state"],
        [`/routines?q=${"q".repeat(257)}`, 400, "q"],
        ["/routines?cursor=nonsense", 400, "cursor"],
        [`/routines?cursor=${Buffer.from("[\"routines\"]").toString("base64url")}`, 400, "cursor"],
        [`/routines?cursor=${Buffer.from("\uD800").toString("base64url")}`, 400, "cursor"],
        ["/tree?depth=4", 400, "depth"],
        ["/tree?depth=x", 400, "depth"],
        ["/tree?root=/nope", 404, "/nope"],
        ["/tree?root=__proto__", 404, "__proto__"],
        ["/mailboxes?sort=restarts", 400, "sort"],
        [`/mailboxes/${idOf("inbox")}/messages?limit=21`, 400, "limit"],
        ["/buses?limit=x", 400, "limit"],
        ["/groups?cursor=x", 400, "cursor"],
        ["/sagas?limit=0", 400, "limit"],
        ["/events?since=-1", 400, "since"],
        ["/events?since=x", 400, "since"],
        ["/events?level=loud", 400, "level"],
        ["/events?format=xml", 400, "format"],
        ["/events?limit=501", 400, "limit"],
        ["/stream?topics=rows,weather", 400, "topics"],
        [`/stream?ids=${Array.from({ length: 501 }, (_, n) => n).join(",")}`, 400, "ids"]
      ]
      for (const [path, status, parameter] of refused) {
        const response = yield* get(path)
        const shown = `${path.slice(0, 80)}`
        assert.strictEqual(response.status, status, shown)
        assert.strictEqual(response.headers.get("content-type"), "application/problem+json", shown)
        const problem = yield* body(response)
        assert.deepInclude(problem, { status }, shown)
        assert.include(problem.detail, parameter, shown)
        if (status === 400) assert.isTrue(problem.detail.startsWith(`${parameter}: `), problem.detail)
      }
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("know nodes by their ids alone, whatever is in the path", () =>
    Effect.gen(function*() {
      const get = yield* mounted({ inspect: true })
      const { idOf } = yield* rich
      const ids = [
        "r-999999",
        "__proto__",
        "constructor",
        "r-",
        "r-1e0",
        "r--1",
        "%00",
        "%F0%9F%92%A9",
        "%2Fapp%2Fmail"
      ]
      // Of another kind than asked for.
      const routes = [
        ...ids.flatMap((id) => ["routines", "mailboxes", "buses", "groups", "sagas"].map((noun) => `/${noun}/${id}`)),
        ...ids.flatMap((id) => [`/routines/${id}/history`, `/routines/${id}/logs`, `/mailboxes/${id}/messages`]),
        `/routines/${idOf("inbox")}`,
        `/mailboxes/${idOf("poller")}`,
        `/mailboxes/${idOf("poller")}/messages`,
        `/buses/${idOf("inbox")}`,
        `/groups/${idOf("bus")}`,
        `/sagas/${idOf("bus")}`
      ]
      for (const path of routes) {
        const response = yield* get(path)
        assert.strictEqual(response.status, 404, path)
        assert.strictEqual(response.headers.get("content-type"), "application/problem+json", path)
      }
      assert.strictEqual((yield* get("/routines/%")).status, 404)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("find and sort names of any characters", () =>
    Effect.gen(function*() {
      const get = yield* mounted()
      const names = ["<img src=x onerror=alert(1)>", "日本語", "a/b", "__proto__", "\u202Eevil", "💩"]
      for (const name of names) yield* Orchestrator.fork(Effect.never, { name })
      for (const name of names) {
        const page = yield* decoded(yield* get(`/routines?q=${encodeURIComponent(name)}`), Api.RoutinePage)
        assert.deepStrictEqual(page.items.map((row) => row.name), [name])
      }
      const seen: Array<string> = []
      let cursor = ""
      do {
        const page = yield* decoded(yield* get(`/routines?sort=name&limit=1${cursor}`), Api.RoutinePage)
        seen.push(...page.items.map((row) => row.name))
        cursor = page.page.cursor === null ? "" : `&cursor=${page.page.cursor}`
      } while (cursor !== "")
      assert.deepStrictEqual(seen, names.toSorted((a, b) => a < b ? -1 : 1))
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("page through events, filtered, and stream them a line each", () =>
    Effect.gen(function*() {
      const get = yield* mounted()
      yield* rich
      const all = yield* decoded(yield* get("/events?since=0&limit=500"), Api.EventPage)
      assert.strictEqual(all.page.hasMore, false)
      assert.deepStrictEqual(all.items.map(({ seq }) => seq), all.items.map(({ seq }) => seq).toSorted((a, b) => a - b))
      const paged: Array<number> = []
      let since = 0
      for (let more = true; more;) {
        const { items, page } = yield* decoded(yield* get(`/events?since=${since}&limit=3`), Api.EventPage)
        paged.push(...items.map(({ seq }) => seq))
        since = page.next
        more = page.hasMore
      }
      assert.deepStrictEqual(paged, all.items.map(({ seq }) => seq))
      const newest = yield* decoded(yield* get("/events?limit=2"), Api.EventPage)
      assert.deepStrictEqual(newest.items, all.items.slice(-2))
      assert.deepStrictEqual((yield* decoded(yield* get(`/events?since=${since}`), Api.EventPage)).items, [])
      const loud = yield* decoded(yield* get("/events?since=0&level=warn&path=/app/mail"), Api.EventPage)
      assert.isAbove(loud.items.length, 0)
      for (const { level, path } of loud.items) assert.isTrue(level !== "debug" && path.startsWith("/app/mail"))
      const kinds = yield* decoded(yield* get("/events?since=0&kind=Exited&kind=BackoffStarted"), Api.EventPage)
      assert.deepStrictEqual([...new Set(kinds.items.map(({ _tag }) => _tag))].toSorted(), ["BackoffStarted", "Exited"])
      const lines = yield* Effect.flatMap(get("/events?format=ndjson"), (response) =>
        Effect.promise(() => response.text()))
      assert.deepStrictEqual(
        lines.trimEnd().split("\n").map((line) =>
          JSON.parse(line)
        ),
        [...all.items]
      )
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("put what belongs into a report of a fault into one answer, and no secret", () =>
    Effect.gen(function*() {
      const get = yield* mounted({ allowedHosts: ["app.example"], redact: (text) => text.replaceAll("s3cret", "***") })
      yield* rich
      const dump = yield* decoded(yield* get("/dump"), Api.Dump)
      assert.deepInclude(dump.options, { allowedHosts: ["app.example"], inspect: false, redact: true })
      assert.deepStrictEqual(dump.truncated, [])
      assert.deepStrictEqual(dump.tree[0]?.path, "/app")
      // What is wrong comes before what is well.
      assert.deepStrictEqual(dump.tree[1]?.path, "/app/mail/mailer")
      assert.include(dump.ended.map(({ name }) => name), "job")
      assert.isAbove(dump.events.length, 0)
    }).pipe(Effect.scoped, Effect.provide(layer)))
})
