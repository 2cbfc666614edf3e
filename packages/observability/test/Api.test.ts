import { Bus, Mailbox, Orchestrator, Routine, Topic } from "@effect-orchestra/core"
import { Api, Telemetry } from "@effect-orchestra/observability"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Data, Deferred, Effect, Layer, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"

const layer = Layer.provideMerge(Telemetry.layer, Orchestrator.layerWith({ name: "app" }))

class Oops extends Data.TaggedError("Oops")<{ readonly message: string }> {}

const routines = (query: Record<string, string | ReadonlyArray<string>>) =>
  Effect.flatMap(Schema.decodeUnknownEffect(Api.RoutineQuery)(query), Api.routines)

const tree = (query: Record<string, string>) =>
  Effect.flatMap(Schema.decodeUnknownEffect(Api.TreeQuery)(query), Api.tree)

const names = (page: Api.RoutinePage) => page.items.map((item) => item.name)

/** What was encoded is what the schema decodes: the shapes hold for whoever reads them. */
const roundTrip = <S extends Schema.Codec<any, any>>(schema: S, value: S["Type"]) =>
  Effect.map(
    Schema.decodeUnknownEffect(schema)(JSON.parse(JSON.stringify(value))),
    (decoded) => assert.deepStrictEqual(decoded, value)
  )

/** A supervisor with a child that waits for its second run. */
const withBackoff = Effect.gen(function*() {
  const crash = yield* Deferred.make<never, Oops>()
  let runs = 0
  const mailer = Effect.suspend(() => ++runs === 1 ? Deferred.await(crash) : Effect.never)
  yield* Supervisor.start(Supervisor.make({
    name: "mail",
    strategy: "one_for_one",
    intensity: 1,
    period: "1 minute",
    children: [
      Child.make("queue", Effect.never),
      Child.make("mailer", mailer, { backoff: Schedule.spaced("10 seconds"), attributes: { region: "eu" } })
    ]
  }))
  yield* TestClock.adjust("3 seconds")
  yield* Deferred.fail(crash, new Oops({ message: "connection refused" }))
  yield* TestClock.adjust("1 second")
})

describe("Api", () => {
  describe("routines", () => {
    it.effect("shows a child that waits for its next run: why, since when, and until when", () =>
      Effect.gen(function*() {
        yield* TestClock.adjust("1 second")
        yield* withBackoff
        const page = yield* routines({})
        yield* roundTrip(Api.RoutinePage, page)
        assert.deepStrictEqual(names(page), ["mailer", "queue"])
        assert.deepStrictEqual(page.items[0], {
          kind: "routine",
          id: page.items[0]?.id ?? "",
          name: "mailer",
          path: "/app/mail/mailer",
          parent: page.items[0]?.parent ?? "",
          state: "backoff",
          health: "degraded",
          problem: "waits for its next start after run 1: Oops connection refused",
          ready: page.items[0]?.ready ?? assert.fail(),
          since: 4000,
          startedAt: 1000,
          incarnation: 1,
          restarts: 0,
          nextStartAt: 14_000,
          supervisor: "/app/mail",
          budget: { used: 1, max: 1, windowMs: 60_000 },
          lastExit: {
            incarnation: 1,
            at: 4000,
            reason: "failure",
            errorType: "Oops",
            message: "connection refused",
            ranMs: 3000,
            traceId: null
          },
          lastBeat: null,
          cpu: null,
          mailbox: null,
          links: { self: `/orchestra/api/v1/routines/${page.items[0]?.id}` },
          info: {},
          forkSite: null,
          attributes: { region: "eu" }
        })
      }).pipe(Effect.scoped, Effect.provide(layer)))

    it.effect("pages through all routines without repeating or skipping one", () =>
      Effect.gen(function*() {
        for (let n = 0; n < 2345; n++) yield* Orchestrator.fork(Effect.never, { name: `n${n % 7}` })
        for (const sort of ["problem", "name", "path", "state", "since", "restarts"]) {
          for (const dir of ["asc", "desc"]) {
            const seen = new Set<string>()
            let cursor: string | null = null
            let pages = 0
            do {
              const page: Api.RoutinePage = yield* routines({
                sort,
                dir,
                limit: "500",
                ...cursor === null ? {} : { cursor }
              })
              assert.strictEqual(page.page.total, 2345)
              assert.strictEqual(page.page.hasMore, page.page.cursor !== null)
              for (const { id } of page.items) {
                assert.isFalse(seen.has(id), `${id} twice by ${sort} ${dir}`)
                seen.add(id)
              }
              cursor = page.page.cursor
              pages++
            } while (cursor !== null)
            assert.strictEqual(seen.size, 2345)
            assert.strictEqual(pages, 5)
          }
        }
      }).pipe(Effect.provide(layer)))

    it.effect("goes on after the last row seen, whatever ended in between", () =>
      Effect.gen(function*() {
        const forked: Array<Routine.Routine<never>> = []
        for (let n = 0; n < 6; n++) forked.push(yield* Orchestrator.fork(Effect.never, { name: `n${n}` }))
        const first = yield* routines({ sort: "name", limit: "3" })
        assert.deepStrictEqual(names(first), ["n0", "n1", "n2"])
        for (const index of [1, 2, 3]) yield* Routine.stop(forked[index] ?? assert.fail())
        const second = yield* routines({ sort: "name", limit: "3", cursor: first.page.cursor ?? "" })
        assert.deepStrictEqual(names(second), ["n4", "n5"])
        assert.deepInclude(second.page, { cursor: null, hasMore: false, total: 3 })
      }).pipe(Effect.provide(layer)))

    it.effect("sorts by a key in both directions, equal ones in the order they came", () =>
      Effect.gen(function*() {
        for (const name of ["b", "a", "c", "a"]) yield* Orchestrator.fork(Effect.never, { name })
        const paths = (query: Record<string, string>) =>
          Effect.map(routines({ sort: "name", ...query }), ({ items }) => items.map(({ path }) => path))
        assert.deepStrictEqual(yield* paths({}), ["/app/a", "/app/a#r-4", "/app/b", "/app/c"])
        assert.deepStrictEqual(yield* paths({ dir: "desc" }), ["/app/c", "/app/b", "/app/a#r-4", "/app/a"])
      }).pipe(Effect.provide(layer)))

    it.effect("finds by text in name, path, id and last error, whatever its case", () =>
      Effect.gen(function*() {
        yield* withBackoff
        yield* Orchestrator.fork(Effect.never, { name: "poller" })
        const found = (q: string) => Effect.map(routines({ q }), names)
        assert.deepStrictEqual(yield* found("POLL"), ["poller"])
        assert.deepStrictEqual(yield* found("/mail/"), ["mailer", "queue"])
        assert.deepStrictEqual(yield* found("refused"), ["mailer"])
        assert.deepStrictEqual(yield* found("oops"), ["mailer"])
        assert.deepStrictEqual(yield* found("nothing like it"), [])
        assert.strictEqual((yield* found("")).length, 3)
      }).pipe(Effect.scoped, Effect.provide(layer)))

    it.effect("filters by states and supervisor", () =>
      Effect.gen(function*() {
        yield* withBackoff
        yield* Orchestrator.fork(Effect.never, { name: "poller" })
        assert.deepStrictEqual(names(yield* routines({ state: "backoff" })), ["mailer"])
        assert.deepStrictEqual(names(yield* routines({ state: "backoff,running" })), ["mailer", "queue", "poller"])
        assert.deepStrictEqual(names(yield* routines({ state: ["backoff", "stopping"] })), ["mailer"])
        assert.deepStrictEqual(names(yield* routines({ supervisor: "/app/mail" })), ["mailer", "queue"])
        assert.deepStrictEqual(names(yield* routines({ supervisor: "/app/nobody" })), [])
      }).pipe(Effect.scoped, Effect.provide(layer)))

    it.effect("refuses a state that there is not, and a cursor of another query", () =>
      Effect.gen(function*() {
        for (let n = 0; n < 3; n++) yield* Orchestrator.fork(Effect.never)
        assert.include((yield* Effect.flip(routines({ state: "running,dead" }))).message, "got: \"dead\"")
        const { page } = yield* routines({ limit: "1", sort: "name" })
        const cursor = page.cursor ?? assert.fail()
        for (const query of [{ cursor: "nonsense" }, { cursor }, { cursor, sort: "name", dir: "desc" }]) {
          assert.deepInclude(yield* Effect.flip(routines(query)), { _tag: "BadQuery", parameter: "cursor" })
        }
      }).pipe(Effect.provide(layer)))

    it.effect.each<Record<string, string>>([{ limit: "0" }, { limit: "501" }, { limit: "1.5" }, { limit: "x" }, {
      sort: "id"
    }, { dir: "up" }])(
      "refuses %o",
      (query) =>
        Effect.map(
          Effect.flip(routines(query)),
          ({ message }) => assert.include(message, Object.keys(query).join())
        ).pipe(Effect.provide(layer))
    )

    it.effect("lets other fibers run while it walks many routines", () =>
      Effect.gen(function*() {
        for (let n = 0; n < 20_000; n++) yield* Orchestrator.fork(Effect.never)
        let turns = 0
        const other = yield* Effect.forkChild(
          Effect.forever(Effect.andThen(Effect.sync(() => turns++), Effect.yieldNow))
        )
        yield* routines({})
        other.interruptUnsafe()
        assert.isAtLeast(turns, 3)
      }).pipe(Effect.provide(layer)))
  })

  describe("tree", () => {
    it.effect("shows mailboxes, and the topics of a bus with who subscribes and reacts", () =>
      Effect.gen(function*() {
        const Orders = Topic.make("orders", Schema.String)
        yield* Mailbox.make<string>({ name: "inbox", capacity: 10 })
        yield* Bus.react(Orders, { group: "stock", handler: () => Effect.never })
        yield* Bus.subscribe(Orders, { name: "audit" })
        yield* Bus.publish(Orders, "o-1")
        const { kernel } = yield* Orchestrator
        const rows = Array.from(kernel.nodes.values(), Api.row)
        assert.deepStrictEqual(rows.map(({ kind, path }) => `${kind} ${path}`), [
          "bus /app/bus",
          "mailbox /app/inbox",
          "topic /app/bus/orders",
          "mailbox /app/bus/orders/stock.inbox",
          "routine /app/bus/orders/stock",
          "mailbox /app/bus/orders/audit"
        ])
        yield* roundTrip(Schema.Array(Api.Row), rows)
      }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(Bus.layer, layer))))

    it.effect("nests what stands below, with counts rolled up", () =>
      Effect.gen(function*() {
        yield* withBackoff
        const { root } = yield* tree({})
        yield* roundTrip(Api.Tree, yield* tree({}))
        assert.strictEqual(root.node.path, "/app")
        assert.deepInclude(root.counts, { running: 1, backoff: 1, problems: 2 })
        const [mail] = root.children
        assert.deepInclude(mail?.node, {
          kind: "supervisor",
          path: "/app/mail",
          budget: { used: 1, max: 1, windowMs: 60_000 },
          problem: "close to giving up: 1 of 1 restarts in 60 s"
        })
        assert.deepStrictEqual(mail?.children.map(({ node }) => [node.path, node.parent]), [
          ["/app/mail/queue", mail?.node.id ?? null],
          ["/app/mail/mailer", mail?.node.id ?? null]
        ])
      }).pipe(Effect.scoped, Effect.provide(layer)))

    it.effect("keeps id and path of a child over its restart, and counts its run", () =>
      Effect.gen(function*() {
        yield* withBackoff
        const mailer = Effect.map(tree({ root: "/app/mail/mailer" }), ({ root }) => root.node)
        const before = yield* mailer
        yield* TestClock.adjust("10 seconds")
        const after = yield* mailer
        assert.strictEqual(after.id, before.id)
        assert.deepInclude(after, { state: "running", health: "ok", incarnation: 2, restarts: 1 })
      }).pipe(Effect.scoped, Effect.provide(layer)))

    it.effect("begins at a root, by path or id, and goes as deep as asked", () =>
      Effect.gen(function*() {
        yield* withBackoff
        const byPath = (yield* tree({ root: "/app/mail" })).root
        assert.strictEqual((yield* tree({ root: byPath.node.id })).root.node.path, "/app/mail")
        assert.strictEqual(byPath.children.length, 2)
        const shallow = (yield* tree({ depth: "1" })).root
        assert.deepStrictEqual(shallow.children.map(({ children, more }) => [children.length, more]), [[0, 2]])
        assert.deepInclude(yield* Effect.flip(tree({ root: "/nope" })), { _tag: "NodeNotFound", node: "/nope" })
      }).pipe(Effect.scoped, Effect.provide(layer)))

    it.effect("shows no more nodes than asked, upper levels first, and says how many are left out", () =>
      Effect.gen(function*() {
        yield* withBackoff
        for (let n = 0; n < 1000; n++) yield* Orchestrator.fork(Effect.never)
        const { root } = yield* tree({ limit: "10" })
        assert.strictEqual(root.children.length, 9)
        assert.strictEqual(root.more, 992)
        assert.strictEqual(root.counts.running, 1001)
        assert.deepInclude(root.children[0], { children: [], more: 2 })
      }).pipe(Effect.scoped, Effect.provide(layer)))
  })

  describe("overview", () => {
    it.effect("counts, and lists the worst first", () =>
      Effect.gen(function*() {
        yield* withBackoff
        for (let n = 0; n < 3; n++) yield* Orchestrator.fork(Effect.never)
        const overview = yield* Api.overview
        yield* roundTrip(Api.Overview, overview)
        assert.deepInclude(overview, { v: 1, name: "app", status: "open", starts: 5, restarts: 0, since: 0 })
        assert.deepInclude(overview.counts, { running: 4, backoff: 1, problems: 2 })
        assert.deepStrictEqual(overview.problems.map(({ path }) => path), ["/app/mail", "/app/mail/mailer"])
        assert.strictEqual(overview.process.pid, process.pid)
      }).pipe(Effect.scoped, Effect.provide(layer)))

    it.effect("says that a shutdown is under way, and what ignores it", () =>
      Effect.gen(function*() {
        yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("1 hour")), { name: "stubborn" })
        yield* Effect.forkChild(Orchestrator.shutdown(), { startImmediately: true })
        assert.strictEqual((yield* Api.overview).status, "closing")
        yield* TestClock.adjust("20 seconds")
        const { counts, problems } = yield* Api.overview
        assert.strictEqual(counts.abandoned, 1)
        assert.deepStrictEqual(problems.map(({ path, problem }) => [path, problem]), [
          ["/app/stubborn", "ignores its interruption"]
        ])
        yield* TestClock.adjust("1 hour")
      }).pipe(Effect.provide(layer)))
  })
})
