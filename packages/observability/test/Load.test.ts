import { Mailbox, Orchestrator, Routine } from "@effect-orchestra/core"
import { Api, Server, Telemetry } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Random } from "effect"
import { TestClock } from "effect/testing"
import { monitorEventLoopDelay } from "node:perf_hooks"

const layer = Layer.provideMerge(Telemetry.layer, Orchestrator.layerWith({ name: "app" }))

/** A routine that counts the walks that come by. */
const counting = Effect.gen(function*() {
  const walks = { count: 0 }
  const mailbox = yield* Mailbox.make<string>({ name: "counted", capacity: 1 })
  const node = mailbox as unknown as { snapshot: () => unknown }
  const { snapshot } = node
  node.snapshot = () => {
    walks.count++
    return snapshot.call(mailbox)
  }
  return walks
})

const many = (count: number) =>
  Effect.gen(function*() {
    for (let n = 0; n < count; n++) yield* Orchestrator.fork(Effect.never, { name: `n${n % 50}` })
  })

/** How often the event loop turned while the effect ran. */
const turns = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    let count = 0
    let running = true
    const look = () => {
      count++
      if (running) setImmediate(look)
    }
    setImmediate(look)
    yield* effect
    running = false
    return count
  })

describe("under load", () => {
  it.effect("the same question at the same time is answered by one walk", () =>
    Effect.gen(function*() {
      const walks = yield* counting
      yield* many(2000)
      const ask = Api.mailboxes({ sort: "depth" })
      yield* Effect.all([ask, ask, ask, ask, ask], { concurrency: "unbounded" })
      // One look of the walk, and one for the row of each answer.
      assert.strictEqual(walks.count, 1 + 5)
      yield* ask
      assert.strictEqual(walks.count, 1 + 5 + 2)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("summaries and trees of a second share one walk", () =>
    Effect.gen(function*() {
      const walks = yield* counting
      yield* Effect.all([Api.overview, Api.overview, Api.overview], { concurrency: "unbounded" })
      yield* Api.overview
      const first = walks.count
      yield* TestClock.adjust("1 second")
      yield* Api.overview
      assert.strictEqual(walks.count, 2 * first)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("who goes away does not take the answer from the others", () =>
    Effect.gen(function*() {
      yield* many(20_000)
      const ask = Api.routines({ sort: "name", q: "n1" })
      const first = yield* Effect.forkChild(ask, { startImmediately: true })
      const second = yield* Effect.forkChild(ask, { startImmediately: true })
      yield* Fiber.interrupt(first)
      assert.strictEqual((yield* Fiber.join(second)).page.total, 11 * 400)
    }).pipe(Effect.provide(layer)))

  it.effect("a later page comes from an index that is held for 5 seconds, and is as good as a walk", () =>
    Effect.gen(function*() {
      const forked: Array<Routine.Routine<never>> = []
      for (let n = 0; n < 3000; n++) forked.push(yield* Orchestrator.fork(Effect.never, { name: `n${n % 7}` }))
      const page = (cursor: string | null) =>
        Api.routines({ sort: "name", limit: 500, ...cursor === null ? {} : { cursor } })
      const first = yield* page(null)
      const second = yield* page(first.page.cursor)
      assert.deepInclude(second.page, { total: 3000, totalExact: true })
      const next = yield* page(second.page.cursor)
      yield* TestClock.adjust("1 second")
      // What ends meanwhile is passed over, and the total is that of the index.
      const gone = forked.find(({ id }) => id === next.items[0]?.id) ?? assert.fail()
      yield* Routine.stop(gone)
      const again = yield* page(second.page.cursor)
      assert.deepInclude(again.page, { total: 3000, totalExact: false })
      assert.deepStrictEqual(again.items[0]?.id, next.items[1]?.id)
      yield* TestClock.adjust("5 seconds")
      assert.deepInclude((yield* page(second.page.cursor)).page, { total: 2999, totalExact: true })
    }).pipe(Effect.provide(layer)))

  it.effect("a later page passes over what fits the question no more", () =>
    Effect.gen(function*() {
      const forked: Array<Routine.Routine<never>> = []
      const stubborn = Effect.uninterruptible(Effect.sleep("3 seconds"))
      for (let n = 0; n < 9; n++) forked.push(yield* Orchestrator.fork(Effect.andThen(stubborn, Effect.never)))
      const page = (cursor: string | null) =>
        Api.routines({ state: "running", sort: "since", limit: 3, ...cursor === null ? {} : { cursor } })
      const first = yield* page(null)
      const second = yield* page(first.page.cursor)
      const next = second.items[1]?.id
      yield* Effect.forkChild(Routine.stop(forked.find(({ id }) => id === next) ?? assert.fail()), {
        startImmediately: true
      })
      const again = yield* page(first.page.cursor)
      assert.deepStrictEqual(again.items.map(({ state }) => state), ["running", "running", "running"])
      assert.notInclude(again.items.map(({ id }) => id), next)
      yield* TestClock.adjust("3 seconds")
    }).pipe(Effect.provide(layer)))

  it.effect("pages of an index are what one sort of everything gives", () =>
    Effect.gen(function*() {
      const names = yield* Effect.forEach(
        Array.from({ length: 4321 }),
        () => Effect.map(Random.nextIntBetween(0, 500), (n) => `n${n}`)
      ).pipe(Random.withSeed("pages"))
      for (const name of names) yield* Orchestrator.fork(Effect.never, { name })
      const { kernel } = yield* Orchestrator
      const paths = Array.from(kernel.nodes.values(), (node) => node.snapshot().path)
      for (const dir of ["asc", "desc"] as const) {
        const seen: Array<string> = []
        let cursor: string | null = null
        do {
          const page: Api.RoutinePage = yield* Api.routines({
            sort: "path",
            dir,
            limit: 400,
            ...cursor === null ? {} : { cursor }
          })
          seen.push(...page.items.map(({ path }) => path))
          cursor = page.page.cursor
        } while (cursor !== null)
        const expected = paths.toSorted((a, b) => a < b ? -1 : 1)
        assert.deepStrictEqual(seen, dir === "asc" ? expected : expected.reverse())
      }
    }).pipe(Effect.provide(layer)))

  it.effect("paths that are worked out together are those of the nodes, however they nest", () =>
    Effect.gen(function*() {
      const nested = Effect.gen(function*() {
        yield* Orchestrator.fork(Effect.never, { name: "in/ner" })
        return yield* Effect.never
      })
      for (const name of ["a", "b", "a"]) yield* Orchestrator.fork(nested, { name })
      const { kernel } = yield* Orchestrator
      for (const node of kernel.nodes.values()) {
        const { path } = node.snapshot()
        assert.strictEqual((yield* Api.tree({ root: path })).root.node.id, node.id)
      }
    }).pipe(Effect.provide(layer)))

  // On the real event loop. How long a slice takes is the machine's affair, and the bench has the figures; here: that
  // others run in between while an answer is worked out, and more often the more there is to look at.
  it.effect("no answer about 50,000 routines is worked out at once", () =>
    Effect.gen(function*() {
      const asks = Effect.gen(function*() {
        const { page } = yield* Api.routines({ sort: "path", limit: 10 })
        const all: Record<string, Effect.Effect<unknown, Api.BadQuery | Api.NodeNotFound, Orchestrator | Telemetry>> = {
          overview: Api.overview,
          routines: Api.routines({ limit: 500 }),
          search: Api.routines({ q: "n4", sort: "name" }),
          later: Api.routines({ sort: "path", limit: 10, cursor: page.cursor ?? "" }),
          tree: Api.tree({ limit: 500 })
        }
        const counts: Record<string, number> = {}
        for (const [name, ask] of Object.entries(all)) {
          yield* TestClock.adjust("10 seconds")
          counts[name] = yield* turns(ask)
        }
        return counts
      })
      yield* many(20)
      const few = yield* asks
      yield* many(50_000)
      for (const [name, count] of Object.entries(yield* asks)) assert.isAtLeast(count, (few[name] ?? 0) + 3, name)
    }).pipe(Effect.provide(layer)), 60_000)

  // A real server and the real event loop, for some seconds: what it is about is time.
  it.live("a scrape each second of 100,000 routines leaves the event loop as it was", () =>
    Effect.gen(function*() {
      yield* many(100_000)
      const { url } = yield* Server.Server
      const scrape = Effect.promise(() => fetch(`${url}/metrics`).then((response) => response.text()))
      const delay = <A>(meanwhile: Effect.Effect<A>) =>
        Effect.gen(function*() {
          const histogram = monitorEventLoopDelay({ resolution: 10 })
          histogram.enable()
          yield* Effect.raceFirst(
            Effect.forever(Effect.andThen(meanwhile, Effect.sleep("1 second"))),
            Effect.sleep(2200)
          )
          histogram.disable()
          return histogram.percentile(99) / 1e6
        })
      yield* scrape
      const more: Array<number> = []
      for (let round = 0; round < 3 && !(Math.min(...more) < 5); round++) {
        const before = yield* delay(Effect.void)
        more.push((yield* delay(scrape)) - before)
      }
      // The calmest of the rounds: the machine has other things to do.
      assert.isBelow(Math.min(...more), 5)
    }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(Server.layer({ port: 0 }), layer))), 60_000)
})
