import { Orchestrator } from "@effect-orchestra/core"
import type { OrchestratorEvent } from "@effect-orchestra/core/Event"
import { Actions, Server } from "@effect-orchestra/observability"
import { Child, DynamicSupervisor, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Option, Redacted, Schedule, Schema, type Scope } from "effect"
import { HttpEffect, HttpRouter, type HttpServerRequest } from "effect/http"
import { TestClock } from "effect/testing"

const api = "/orchestra/api/v1"
const app = Orchestrator.layerWith({ name: "app" })

const tokens = [
  { label: "viewer", token: Redacted.make("look"), scope: "read" },
  { label: "ada", token: Redacted.make("act"), scope: "control" },
  { label: "bob", token: Redacted.make("too"), scope: "control" }
] as const

/** The routes alone, and everything that is told of actions. */
const mounted = Effect.fnUntraced(function*(options: Server.RouterOptions = { tokens, control: true }) {
  const context = yield* Effect.context<Orchestrator>()
  const app = yield* HttpRouter.toHttpEffect(Layer.provide(Server.router(options), Layer.succeedContext(context)))
  type PerRequest = HttpServerRequest.HttpServerRequest | Scope.Scope
  const handler = HttpEffect.toWebHandlerWith<Orchestrator, PerRequest>(context)(app)
  const events: Array<OrchestratorEvent> = []
  yield* Orchestrator.instrument((event) => void events.push(event))
  const ask = (method: string, path: string, token: string | undefined, body?: string) => {
    const headers = {
      host: "localhost",
      "content-type": "application/json",
      ...token === undefined ? {} : { authorization: `Bearer ${token}` }
    }
    const init = { method, headers, ...body === undefined ? {} : { body } }
    return Effect.promise(() => handler(new Request(`http://localhost${path}`, init)))
  }
  const act = (id: string, action: string, body: unknown = { reason: "a drill" }, token = "act") =>
    ask("POST", `${api}/routines/${encodeURIComponent(id)}/actions/${action}`, token, JSON.stringify(body))
  /** The result of what was accepted, once there is one. */
  const ended = Effect.fnUntraced(function*(response: Response) {
    const { actionId }: any = yield* Effect.promise(() => response.json())
    assert.strictEqual(response.status, 202)
    yield* TestClock.adjust(0)
    const status = yield* ask("GET", response.headers.get("location") ?? "", "look")
    const decoded = yield* Effect.flatMap(
      Effect.promise(() => status.json()),
      Schema.decodeUnknownEffect(Actions.ActionStatus)
    )
    assert.strictEqual(decoded.actionId, actionId)
    return decoded
  })
  const acted = () => events.flatMap((event) => event._tag === "Acted" ? [event] : [])
  const audit = () =>
    acted().map(({ action, by, path, reason, result }) => `${by} ${action} ${path} ${result}: ${reason}`)
  return { ask, act, acted, audit, ended, events }
})

const refused = Effect.fnUntraced(function*(response: Response) {
  const problem: any = yield* Effect.promise(() => response.json())
  assert.strictEqual(response.headers.get("content-type"), "application/problem+json")
  return [response.status, problem.check, problem.detail]
})

/** The listed routine of this name. */
const named = Effect.fnUntraced(function*(name: string) {
  return (yield* Orchestrator.list).find((routine) => routine.name === name) ?? assert.fail(`no routine "${name}"`)
})

const started = (
  db: Child.Child<"db", never, never, unknown, never, never> = Child.make("db", Effect.never)
) =>
  Supervisor.start(Supervisor.make({
    name: "main",
    strategy: "one_for_one",
    intensity: 1,
    period: "1 minute",
    children: [db, Child.make("web", Effect.never)]
  }))

describe("Actions", () => {
  it.effect("restarts a child for its reason, at no charge, and says who did", () =>
    Effect.gen(function*() {
      const { act, acted, audit, ended } = yield* mounted()
      yield* started()
      const { id } = yield* named("db")
      const status = yield* ended(yield* act(id, "restart", { reason: "  new keys " }))
      assert.deepInclude(status, { action: "restart", by: "ada", reason: "new keys", state: "done", routine: id })
      assert.deepStrictEqual(status.target, { id, name: "db", path: "/app/main/db" })
      const { budget, incarnation, lastExit } = yield* named("db")
      assert.deepStrictEqual([incarnation, budget?.used, lastExit?.cancelledBy?.reason], [2, 0, "new keys"])
      assert.deepStrictEqual(audit(), [
        "ada restart /app/main/db requested: new keys",
        "ada restart /app/main/db done: new keys"
      ])
      assert.deepStrictEqual(acted().map(({ actionId }) => actionId), [status.actionId, status.actionId])
      yield* Schema.decodeUnknownEffect(Schema.Array(Actions.Acted))(acted())
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("stops for good what a supervisor would restart, and starts it again", () =>
    Effect.gen(function*() {
      const { act, audit, ended } = yield* mounted()
      yield* started()
      const { id } = yield* named("db")
      assert.deepInclude(yield* ended(yield* act(id, "stop", { reason: "eats the disk" })), { state: "done" })
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual((yield* Orchestrator.list).map(({ name }) => name), ["web"])
      const [past] = (yield* Orchestrator.history).filter((routine) => routine.id === id)
      assert.strictEqual(past?.lastExit?.cancelledBy?.reason, "eats the disk")
      assert.deepStrictEqual(yield* refused(yield* act(id, "stop")), [
        409,
        "state",
        "/app/main/db has ended (interrupted)"
      ])
      const status = yield* ended(yield* act(id, "restart", { reason: "disk cleaned" }))
      const again = yield* named("db")
      assert.deepInclude(status, { state: "done", routine: again.id })
      assert.strictEqual(again.incarnation, 2)
      assert.deepStrictEqual(audit().slice(2), [
        "ada stop /app/main/db refused: a drill",
        "ada restart /app/main/db requested: disk cleaned",
        "ada restart /app/main/db done: disk cleaned"
      ])
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("interrupts only what is named, and leaves the rest to its supervisor", () =>
    Effect.gen(function*() {
      const { act, audit, ended } = yield* mounted()
      yield* started()
      const { id } = yield* named("db")
      for (const confirm of [undefined, "", "DB", "web", id]) {
        const body = confirm === undefined ? { reason: "stuck" } : { reason: "stuck", confirm }
        assert.deepStrictEqual((yield* refused(yield* act(id, "interrupt", body))).slice(0, 2), [400, "confirm"])
      }
      assert.strictEqual((yield* named("db")).incarnation, 1)
      assert.deepInclude(yield* ended(yield* act(id, "interrupt", { reason: "stuck", confirm: "db" })), {
        state: "done"
      })
      const { budget, incarnation, lastExit } = yield* named("db")
      assert.deepStrictEqual([incarnation, budget?.used, lastExit?.cancelledBy?.reason], [2, 1, "stuck"])
      assert.strictEqual(audit().filter((line) => line.includes("refused")).length, 5)
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("releases a quarantined child, found by its last routine", () =>
    Effect.gen(function*() {
      const { act, ended } = yield* mounted()
      let isBroken = true
      const body = Effect.suspend(() => isBroken ? Effect.fail("x") : Effect.never)
      yield* started(Child.make("db", body, { onGiveUp: "quarantine", intensity: 1, period: "1 minute" }))
      yield* TestClock.adjust(0)
      const [kept] = (yield* Orchestrator.snapshot).flatMap((node) => node.kind === "supervisor" ? node.stopped : [])
      assert.strictEqual(kept?.state, "quarantined")
      isBroken = false
      const web = (yield* named("web")).id
      assert.deepStrictEqual(yield* refused(yield* act(web, "release")), [
        409,
        "state",
        "supervisor /app/main: child \"web\" is not quarantined (running)"
      ])
      const status = yield* ended(yield* act(kept?.routine ?? "", "release"))
      assert.deepInclude(status, { state: "done", routine: (yield* named("db")).id })
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("reaches the children of a dynamic supervisor and routines without one", () =>
    Effect.gen(function*() {
      const { act, ended } = yield* mounted()
      const ref = yield* DynamicSupervisor.start(DynamicSupervisor.make({ name: "jobs", child: () => Effect.never }))
      const { id } = yield* DynamicSupervisor.startChild(ref, undefined)
      assert.deepInclude(yield* ended(yield* act(id, "restart")), { state: "done", routine: id })
      assert.deepInclude(yield* ended(yield* act(id, "stop")), { state: "done" })
      assert.strictEqual((yield* DynamicSupervisor.countChildren(ref)).specs, 0)
      assert.strictEqual((yield* act(id, "restart")).status, 404)
      const alone = yield* Orchestrator.fork(Effect.never, { name: "alone" })
      assert.deepStrictEqual(yield* refused(yield* act(alone.id, "restart")), [
        409,
        "state",
        "/app/alone has no supervisor that could start it again"
      ])
      assert.deepInclude(yield* ended(yield* act(alone.id, "stop")), { state: "done" })
      assert.strictEqual((yield* act(alone.id, "stop")).status, 404)
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("tells of an action that is under way, of one that abandons, and of one that fails", () =>
    Effect.gen(function*() {
      const { act, audit, ended } = yield* mounted()
      let runs = 0
      const body = Effect.suspend(() =>
        ++runs === 1 ? Effect.uninterruptible(Effect.never) : Effect.fail("still broken")
      )
      yield* started(Child.make("db", body, { shutdown: "3 seconds", onUnstoppable: "replace", awaitReady: false }))
      const { id } = yield* named("db")
      const stop = yield* act(id, "stop")
      assert.deepInclude(yield* ended(stop.clone()), { state: "running", endedAt: null, detail: null })
      yield* TestClock.adjust("3 seconds")
      const { detail, state } = yield* ended(stop)
      assert.deepStrictEqual([state, detail], ["done", "it ignored its interruption, and was abandoned"])

      const layer = Layer.effectDiscard(Effect.suspend(() => runs++ === 2 ? Effect.fail("still broken") : Effect.void))
      runs = 0
      const ref = yield* Supervisor.start(Supervisor.make({
        name: "other",
        strategy: "one_for_one",
        children: [Child.layer("cache", layer)]
      }))
      const cache = yield* named("cache")
      yield* Supervisor.terminateChild(ref, "cache")
      runs = 2
      const failed = yield* ended(yield* act(cache.id, "restart"))
      assert.deepInclude(failed, {
        state: "failed",
        detail: "supervisor /app/other: child \"cache\" did not start: still broken"
      })
      assert.strictEqual(audit().at(-1), "ada restart /app/other/cache failed: a drill")
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("stands in the log of events, and what failed is shown as far as the redactor lets it", () =>
    Effect.gen(function*() {
      const redact = (text: string) => text.replaceAll("hunter2", "***")
      const { act, ask, ended } = yield* mounted({ tokens, control: true, redact })
      let runs = 0
      const layer = Layer.effectDiscard(
        Effect.suspend(() => ++runs === 1 ? Effect.void : Effect.fail("hunter2 is wrong"))
      )
      const ref = yield* Supervisor.start(Supervisor.make({
        name: "main",
        strategy: "one_for_one",
        children: [Child.layer("db", layer)]
      }))
      const { id } = yield* named("db")
      yield* Supervisor.terminateChild(ref, "db")
      const { detail } = yield* ended(yield* act(id, "restart"))
      assert.match(detail ?? "", /did not start: \*\*\* is wrong$/)
      const page: any = yield* Effect.flatMap(
        ask("GET", `${api}/events?kind=Acted`, "look"),
        (response) => Effect.promise(() => response.json())
      )
      assert.deepStrictEqual(
        page.items.map((item: any) => [item.result, item.level, item.by, item.detail]),
        [["requested", "info", "ada", null], ["failed", "warn", "ada", detail]]
      )
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("ends a backoff", () =>
    Effect.gen(function*() {
      const { act, ended } = yield* mounted()
      let runs = 0
      const body = Effect.suspend(() => ++runs === 1 ? Effect.fail("x") : Effect.never)
      yield* started(Child.make("db", body, { backoff: Schedule.spaced("1 hour") }))
      yield* TestClock.adjust(0)
      const { id, state } = yield* named("db")
      assert.strictEqual(state, "backoff")
      assert.deepStrictEqual(yield* refused(yield* act(id, "interrupt", { reason: "x", confirm: "db" })), [
        409,
        "state",
        "/app/main/db does not run (backoff)"
      ])
      assert.deepInclude(yield* ended(yield* act(id, "restart")), { state: "done" })
      assert.deepInclude(yield* named("db"), { state: "running", incarnation: 2 })
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("is refused without control: by the server, by the token, by no token", () =>
    Effect.gen(function*() {
      const { ask, audit } = yield* mounted()
      const { id } = yield* Orchestrator.fork(Effect.never, { name: "poller" })
      const body = JSON.stringify({ reason: "a drill" })
      const path = `${api}/routines/${id}/actions/stop`
      const check = (response: Response) => Effect.map(refused(response), (told) => told.slice(0, 2))
      assert.deepStrictEqual(yield* check(yield* ask("POST", path, "look", body)), [403, "scope"])
      assert.deepStrictEqual(yield* check(yield* ask("POST", path, "guess", body)), [401, "token"])
      assert.deepStrictEqual(yield* check(yield* ask("POST", path, undefined, body)), [401, "token"])
      for (const options of [{ tokens }, {}, { inspect: true, profile: true }]) {
        const off = yield* mounted(options)
        assert.deepStrictEqual(yield* check(yield* off.act(id, "stop")), [403, "scope"])
      }
      assert.deepStrictEqual(audit(), [])
      assert.strictEqual((yield* named("poller")).state, "running")
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("answers what is wrong with a request", () =>
    Effect.gen(function*() {
      const { act, ask } = yield* mounted()
      const { id } = yield* Orchestrator.fork(Effect.never, { name: "poller" })
      const wrong: ReadonlyArray<readonly [string, string, unknown, number, string | undefined]> = [
        [id, "stop", {}, 400, "reason"],
        [id, "stop", { reason: " \n" }, 400, "reason"],
        [id, "stop", { reason: "x".repeat(501) }, 400, "reason"],
        [id, "stop", { reason: 7 }, 400, "body"],
        [id, "stop", [], 400, "body"],
        [id, "stop", null, 400, "body"],
        [id, "kill", { reason: "x" }, 404, undefined],
        [id, "__proto__", { reason: "x" }, 404, undefined],
        ["r-99999", "stop", { reason: "x" }, 404, undefined]
      ]
      for (const [id, action, body, status, check] of wrong) {
        yield* TestClock.adjust("1 second")
        const told = yield* refused(yield* act(id, action, body))
        assert.deepStrictEqual(told.slice(0, 2), [status, check], `${action} ${JSON.stringify(body)}`)
      }
      for (const id of ["o-0", "s-1", "__proto__", "../x", "é", "%00"]) {
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* act(id, "stop")).status, 404, id)
      }
      const path = `${api}/routines/${id}/actions/stop`
      for (const body of ["", "{", "{\"reason\":"]) {
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual((yield* refused(yield* ask("POST", path, "act", body))).slice(0, 2), [400, "body"])
      }
      assert.strictEqual((yield* ask("GET", `${api}/actions/a-nope`, "act")).status, 404)
      assert.strictEqual((yield* ask("GET", path, "act")).status, 404)
      assert.strictEqual((yield* named("poller")).state, "running")
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("allows each caller ten in a second", () =>
    Effect.gen(function*() {
      const { act } = yield* mounted()
      for (let i = 0; i < 10; i++) assert.strictEqual((yield* act("r-99999", "stop")).status, 404)
      const eleventh = yield* act("r-99999", "stop")
      assert.strictEqual(eleventh.headers.get("retry-after"), "1")
      assert.deepStrictEqual((yield* refused(eleventh)).slice(0, 2), [429, "rate"])
      assert.strictEqual((yield* act("r-99999", "stop", { reason: "x" }, "too")).status, 404)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* act("r-99999", "stop")).status, 404)
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.effect("remembers the last two hundred", () =>
    Effect.gen(function*() {
      const { get, request } = yield* Actions.Actions
      const ids: Array<string> = []
      for (let i = 0; i < 202; i++) {
        const { id } = yield* Orchestrator.fork(Effect.never)
        const { actionId } = yield* request({ action: "stop", id, by: null, reason: "x" })
        ids.push(actionId)
      }
      const known = yield* Effect.forEach(ids, get)
      assert.strictEqual(known.filter(Option.isSome).length, 200)
      assert.isTrue(Option.isNone(yield* get(ids[0] ?? "")))
    }).pipe(Effect.provide(Layer.provideMerge(Actions.Actions.layer, app))))
})
