import { Mailbox, Orchestrator, Routine } from "@effect-orchestra/core"
import { Api, Charts, EventLog, Feed, Metering, Telemetry } from "@effect-orchestra/observability"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Layer, Scope } from "effect"
import { TestClock } from "effect/testing"

const layer = Feed.layer.pipe(
  Layer.provideMerge(Charts.layer),
  Layer.provideMerge(EventLog.layer),
  Layer.provideMerge(Telemetry.layer),
  Layer.provideMerge(Orchestrator.layerWith({ name: "app" }))
)

const overview = Effect.suspend(() => Api.overviewWith({ points: 900 }))

const chart = (overview: Api.Overview, name: string) =>
  overview.charts.series.find((series) => series.name === name)?.values ?? assert.fail(name)

const rules = Effect.map(
  Effect.andThen(TestClock.adjust("1001 millis"), overview),
  ({ lints }) => lints.map(({ path, rule, severity }) => `${severity} ${rule} ${path}`)
)

/** A child that fails a second after each start. */
const flaky = (times: number, options: { readonly intensity?: number } = {}) =>
  Effect.suspend(() => {
    let runs = 0
    const run = Effect.suspend(() =>
      ++runs > times ? Effect.never : Effect.andThen(Effect.sleep("1 second"), Effect.fail("boom"))
    )
    return Supervisor.start(Supervisor.make({
      name: "top",
      strategy: "one_for_one",
      intensity: options.intensity ?? 100,
      period: "1 minute",
      children: [Child.make("flaky", run)]
    }))
  })

describe("EventLog", () => {
  it.effect("keeps the last 10,000 events, and counts those that had to go", () =>
    Effect.gen(function*() {
      const log = yield* EventLog
      for (let n = 0; n < 2600; n++) yield* Orchestrator.fork(Effect.void)
      // Four for each routine.
      const all = log.all()
      assert.strictEqual(all.length, 10_000)
      assert.deepStrictEqual([all[0]?.event.seq, all.at(-1)?.event.seq], [401, 10_400])
      assert.strictEqual(log.evicted(), 400)
      const meters = yield* Effect.flatMap(Telemetry, ({ collect }) => collect)
      const dropped = meters.find(({ metric }) => metric.name === "orchestra.telemetry.dropped.items")
      assert.deepStrictEqual(
        Array.from(dropped?.series.values() ?? [], ({ attributes, value }) => [attributes[0]?.[1], value])
          .find(([signal]) => signal === "event"),
        ["event", 400]
      )
      assert.deepInclude((yield* overview).telemetry.events, { held: 10_000, limit: 10_000, evicted: 400 })
    }).pipe(Effect.provide(layer)))

  it.effect("says how much each event matters", () =>
    Effect.gen(function*() {
      const log = yield* EventLog
      yield* flaky(2, { intensity: 1 })
      yield* TestClock.adjust("3 seconds")
      const levels = new Map(log.all().map(({ event, level }) => [event._tag, level]))
      assert.deepInclude(Object.fromEntries(levels), {
        Forked: "debug",
        Ready: "debug",
        Exited: "warn",
        Restarted: "warn",
        GaveUp: "error"
      })
    }).pipe(Effect.exit, Effect.scoped, Effect.provide(layer)))

  it.effect("counts what happened within the last minute", () =>
    Effect.gen(function*() {
      yield* flaky(5)
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual((yield* overview).rates, { starts: 6, restarts: 5, failures: 5 })
      yield* TestClock.adjust("57 seconds")
      assert.deepStrictEqual((yield* overview).rates, { starts: 3, restarts: 3, failures: 3 })
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual((yield* overview).rates, { starts: 0, restarts: 0, failures: 0 })
    }).pipe(Effect.scoped, Effect.provide(layer)))
})

describe("Charts", () => {
  it.effect("begin when somebody looks, have a value a second, and stop a minute after the last look", () =>
    Effect.gen(function*() {
      yield* flaky(40)
      yield* TestClock.adjust("10 seconds")
      yield* overview
      yield* TestClock.adjust("30 seconds")
      const during = yield* overview
      const restarts = chart(during, "restarts")
      assert.strictEqual(restarts.length, 900)
      // Nobody looked in the first ten seconds.
      assert.deepStrictEqual(restarts.slice(0, 869).filter((value) => value !== null), [])
      assert.strictEqual(restarts.slice(-30).reduce<number>((sum, value) => sum + (value ?? 0), 0), 30)
      assert.deepStrictEqual(chart(during, "restarts top"), restarts)
      assert.isAbove(chart(during, "process.heap").at(-1) ?? 0, 1e6)
      yield* TestClock.adjust("3 minutes")
      const later = chart(yield* overview, "restarts")
      // The look has begun another.
      assert.strictEqual(later.at(-3), null)
      assert.isAtMost(later.filter((value) => value !== null).length, 30 + 62)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("go on while a stream is open", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      yield* Effect.asVoid(Scope.provide(Feed.use((feed) => feed.open()), scope))
      yield* TestClock.adjust("5 minutes")
      const values = chart(yield* overview, "routines.running")
      assert.isAtLeast(values.slice(-290).filter((value) => value !== null).length, 285)
      yield* Scope.close(scope, Exit.void)
    }).pipe(Effect.scoped, Effect.provide(layer)), 20_000)

  it.effect("are at most 40, however many supervisors restart", () =>
    Effect.gen(function*() {
      yield* overview
      for (let n = 0; n < 60; n++) {
        let runs = 0
        yield* Supervisor.start(Supervisor.make({
          name: `s${n}`,
          strategy: "one_for_one",
          intensity: 10,
          period: "1 minute",
          children: [Child.make("once", Effect.suspend(() => ++runs === 1 ? Effect.fail("boom") : Effect.never))]
        }))
      }
      yield* TestClock.adjust("3 seconds")
      const { charts } = yield* overview
      assert.isAtMost(charts.series.length, 40)
      const total = charts.series.filter(({ name }) => name.startsWith("restarts "))
        .flatMap(({ values }) => values).reduce<number>((sum, value) => sum + (value ?? 0), 0)
      assert.strictEqual(total, 60)
      assert.include(charts.series.map(({ name }) => name), "restarts _OTHER")
    }).pipe(Effect.scoped, Effect.provide(layer)))
})

describe("lints", () => {
  it.effect("find nothing where nothing is wrong", () =>
    Effect.gen(function*() {
      yield* Orchestrator.fork(Effect.never)
      yield* Mailbox.make({ capacity: 1 })
      assert.deepStrictEqual(yield* rules, [])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("find a loop of crashes and a budget that is nearly used up, and forget them when they are over", () =>
    Effect.gen(function*() {
      yield* flaky(5, { intensity: 6 })
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* rules, ["error budget /app/top", "error crash_loop /app/top/flaky"])
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(yield* rules, [])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("remember a supervisor that gave up for a quarter of an hour", () =>
    Effect.gen(function*() {
      yield* flaky(2, { intensity: 1 })
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(yield* rules, ["error gave_up /app/top"])
      yield* TestClock.adjust("16 minutes")
      assert.deepStrictEqual(yield* rules, [])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("find a mailbox that is full, whose senders wait, whose messages are old, and that nobody reads", () =>
    Effect.gen(function*() {
      const mailbox = yield* Mailbox.make<number>({ name: "orders", capacity: 10 })
      yield* Mailbox.sendAll(mailbox, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
      yield* Effect.forkScoped(Mailbox.send(mailbox, 11), { startImmediately: true })
      assert.deepStrictEqual(yield* rules, ["error mailbox_full /app/orders", "warning sender_blocked /app/orders"])
      yield* TestClock.adjust("31 seconds")
      assert.deepStrictEqual(yield* rules, [
        "error mailbox_full /app/orders",
        "warning message_age /app/orders",
        "warning sender_blocked /app/orders",
        "warning mailbox_without_receiver /app/orders"
      ])
      const { top } = yield* overview
      assert.deepStrictEqual(top.mailboxes.map(({ depth, path, utilization }) => [path, depth, utilization]), [
        ["/app/orders", 10, 1]
      ])
      for (let n = 0; n < 11; n++) yield* Mailbox.receive(mailbox)
      assert.deepStrictEqual(yield* rules, [])
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("find a heartbeat that is late, and a stop that takes too long", () =>
    Effect.gen(function*() {
      yield* Orchestrator.fork(Effect.never, { name: "quiet", idleTimeout: "10 minutes" })
      const stubborn = yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("1 hour")), {
        name: "stubborn",
        shutdown: "30 minutes"
      })
      yield* TestClock.adjust("6 minutes")
      assert.deepStrictEqual(yield* rules, ["warning heartbeat_stale /app/quiet"])
      yield* Effect.forkScoped(Routine.stop(stubborn), { startImmediately: true })
      assert.deepStrictEqual(yield* rules, ["warning heartbeat_stale /app/quiet"])
      yield* TestClock.adjust("31 minutes")
      assert.include(yield* rules, "error stopping_past_grace /app/stubborn")
      yield* TestClock.adjust("1 hour")
    }).pipe(Effect.scoped, Effect.provide(layer)))

  // The time that code takes is real.
  it.live("find who held the event loop, and the summary who takes the processor", () =>
    Effect.gen(function*() {
      const burn = Effect.sync(() => {
        for (const until = performance.now() + 80; performance.now() < until;);
      })
      yield* Orchestrator.fork(Effect.andThen(Effect.andThen(Effect.sleep(5), burn), Effect.never), { name: "pdf" })
      yield* Orchestrator.fork(Effect.never, { name: "idle" })
      yield* Effect.sleep(200)
      const { lints, top } = yield* overview
      assert.deepStrictEqual(lints.map(({ path, rule }) => `${rule} ${path}`), ["slow_slice /app/pdf"])
      assert.strictEqual(top.cpu[0]?.path, "/app/pdf")
      const { items } = yield* Api.routines({ q: "pdf" })
      assert.isAtLeast(items[0]?.cpu?.ms ?? 0, 80)
      assert.isAtLeast(items[0]?.cpu?.maxSliceMs ?? 0, 80)
    }).pipe(Effect.provide(Layer.provide(layer, Metering.layer))))

  it.effect("tell that streams were too slow for what happened", () =>
    Effect.gen(function*() {
      const done = yield* Deferred.make<void>()
      yield* Effect.asVoid(Feed.use((feed) => feed.open()))
      yield* TestClock.adjust(0)
      for (let n = 0; n < 500; n++) yield* Orchestrator.fork(Deferred.await(done))
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* rules, ["warning telemetry_dropped null"])
    }).pipe(Effect.scoped, Effect.provide(layer)))
})
