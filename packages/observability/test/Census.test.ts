import { Bus, Group, Mailbox, Orchestrator, Routine, Subscription, Topic } from "@effect-orchestra/core"
import { Telemetry } from "@effect-orchestra/observability"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Logger, Random, Schedule, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"

const seeds = Number(process.env["SEEDS"] ?? 200)

const layer = Layer.mergeAll(Telemetry.layerWith({ receiveWaits: true }), Bus.layer).pipe(
  Layer.provideMerge(Orchestrator.layer)
)

/** The values of one metric, by those of its attributes; of a histogram how many there were, and their sum. */
const values = (name: string) =>
  Effect.gen(function*() {
    const { collect } = yield* Telemetry
    const meter = (yield* collect).find(({ metric }) => metric.name === `orchestra.${name}`)
    assert(meter !== undefined, name)
    return Object.fromEntries(Array.from(meter.series.values(), ({ attributes, buckets, value }) => [
      attributes.map(([, value]) => value).join(" "),
      meter.metric.kind === "histogram" ? [buckets.reduce((a, b) => a + b, 0), value] : value
    ]))
  })

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

const overflows = ["suspend", "drop_new", "drop_old", "fail"] as const

interface Live {
  readonly mailbox: Mailbox.Mailbox<number, never, unknown>
  readonly scope: Scope.Closeable
  readonly overflow: (typeof overflows)[number]
}

interface Totals {
  accepted: number
  dropped: number
  rejected: number
  closed: number
  received: number
}

/** Adds what the stats of a mailbox say. */
const add = (into: Totals, { mailbox, overflow }: Live) =>
  Effect.map(Mailbox.stats(mailbox), ({ dropped, received, sent }) => {
    into.accepted += overflow === "drop_new" ? sent - dropped : sent
    into.dropped += dropped
    into.received += received
  })

/** Mailboxes that come and go, on top of what all those have counted that are gone. */
const randomProgram = Effect.fnUntraced(function*(gone: Totals) {
  const pick = (n: number) => Random.nextIntBetween(0, n)
  const live: Array<Live> = []
  const make = Effect.gen(function*() {
    const overflow = overflows[yield* pick(4)] ?? "suspend"
    const scope = yield* Scope.make()
    const options = { name: "m", capacity: 1 + (yield* pick(3)), overflow }
    const mailbox = yield* Mailbox.make<number>(options).pipe(Scope.provide(scope))
    live.push({ mailbox, scope, overflow })
  })
  const close = Effect.fnUntraced(function*(one: Live) {
    yield* add(gone, one)
    yield* Scope.close(one.scope, Exit.void)
    live.splice(live.indexOf(one), 1)
    if (!(yield* Mailbox.trySend(one.mailbox, 0))) gone.closed++
  })
  const compare = Effect.gen(function*() {
    const expected = { ...gone }
    for (const one of live) yield* add(expected, one)
    const { collect } = yield* Telemetry
    const meters = yield* collect
    const actual = { accepted: 0, dropped: 0, rejected: 0, closed: 0, received: 0 }
    for (const { metric, series } of meters) {
      for (const { attributes, value } of series.values()) {
        if (metric.name === "orchestra.mailbox.sent.messages") actual[attributes[1]?.[1] as keyof Totals] += value
        if (metric.name === "orchestra.mailbox.received.messages") actual.received += value
      }
    }
    assert.deepStrictEqual(actual, expected)
  })
  for (let step = 0; step < 30; step++) {
    const what = yield* pick(16)
    const one = live[yield* pick(Math.max(1, live.length))]
    if (one === undefined || what < 2) yield* make
    else if (what === 2) yield* close(one)
    else if (what === 3 && (yield* pick(20)) === 0) yield* compare
    else if (what < 12) {
      const { capacity, length } = yield* Mailbox.stats(one.mailbox)
      if (one.overflow === "suspend" && length === capacity) continue
      if (one.overflow === "fail" && length === capacity) gone.rejected++
      yield* Effect.exit(Mailbox.send(one.mailbox, step))
    } else yield* Mailbox.tryReceive(one.mailbox)
  }
  yield* compare
  for (const one of live.toReversed()) yield* close(one)
})

describe("the metrics of mailboxes", () => {
  it.effect("add up those of one name, and show the fullest and the oldest", () =>
    Effect.gen(function*() {
      const one = yield* Mailbox.make<number>({ name: "orders", capacity: 10 })
      const two = yield* Mailbox.make<number>({ name: "orders", capacity: 4 })
      yield* Mailbox.sendAll(one, [1, 2])
      yield* TestClock.adjust("3 seconds")
      yield* Mailbox.sendAll(two, [1, 2, 3])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* values("mailbox.usage"), { orders: 5 })
      assert.deepStrictEqual(yield* values("mailbox.limit"), { orders: 14 })
      assert.deepStrictEqual(yield* values("mailbox.utilization.max"), { orders: 0.75 })
      assert.deepStrictEqual(yield* values("mailbox.message.age.max"), { orders: 4 })
      yield* Mailbox.receiveAll(one)
      assert.deepStrictEqual(yield* values("mailbox.message.age.max"), { orders: 1 })
      assert.deepStrictEqual(yield* values("mailbox.received.messages"), { orders: 2 })
      yield* Mailbox.receiveAll(two)
      assert.deepStrictEqual(yield* values("mailbox.message.age.max"), { orders: 0 })
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("tell what became of what was sent", () =>
    Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const fails = yield* Mailbox.make<number>({ name: "fails", capacity: 1, overflow: "fail" })
        yield* Mailbox.send(fails, 1)
        yield* Effect.exit(Mailbox.sendAll(fails, [2, 3]))
        const newest = yield* Mailbox.make<number>({ name: "newest", capacity: 1, overflow: "drop_new" })
        yield* Mailbox.sendAll(newest, [1, 2, 3])
        const oldest = yield* Mailbox.make<number>({ name: "oldest", capacity: 1, overflow: "drop_old" })
        yield* Mailbox.sendAll(oldest, [1, 2, 3])
        yield* Mailbox.end(oldest)
        yield* Effect.exit(Mailbox.send(oldest, 4))
      }))
      assert.deepStrictEqual(yield* values("mailbox.sent.messages"), {
        "fails accepted": 1,
        "fails rejected": 2,
        "newest accepted": 1,
        "newest dropped": 2,
        "oldest accepted": 3,
        "oldest dropped": 2,
        "oldest closed": 1
      })
    }).pipe(Effect.provide(layer)))

  it.effect("record waits where there were any, those of receivers only where that was asked for", () => {
    const waits = Effect.scoped(Effect.gen(function*() {
      const mailbox = yield* Mailbox.make<number>({ name: "m", capacity: 1 })
      yield* Mailbox.send(mailbox, 1)
      yield* fork(Mailbox.send(mailbox, 2))
      yield* TestClock.adjust("2 seconds")
      yield* Mailbox.receive(mailbox)
      yield* TestClock.adjust(1)
      yield* Mailbox.receive(mailbox)
      yield* fork(Mailbox.receive(mailbox))
      yield* TestClock.adjust("5 seconds")
      yield* Mailbox.send(mailbox, 3)
      yield* TestClock.adjust(0)
      return yield* values("mailbox.wait.duration")
    }))
    return Effect.gen(function*() {
      assert.deepStrictEqual(yield* Effect.provide(waits, layer), { "m send": [1, 2], "m receive": [1, 5] })
      const silent = Layer.provideMerge(Telemetry.layer, Orchestrator.layer)
      assert.deepStrictEqual(yield* Effect.provide(waits, silent), { "m send": [1, 2] })
    })
  })

  it.effect("do not fall when a mailbox goes, and count nothing twice however often they are read", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const mailbox = yield* Mailbox.make<number>({ name: "m", capacity: 10 }).pipe(Scope.provide(scope))
      yield* Mailbox.sendAll(mailbox, [1, 2, 3])
      yield* values("mailbox.sent.messages")
      yield* Mailbox.receive(mailbox)
      yield* values("mailbox.sent.messages")
      yield* Mailbox.send(mailbox, 4)
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* values("mailbox.sent.messages"), { "m accepted": 4 })
      assert.deepStrictEqual(yield* values("mailbox.received.messages"), { m: 1 })
      assert.deepStrictEqual(yield* values("mailbox.usage"), {})
      const other = yield* Mailbox.make<number>({ name: "m", capacity: 10 })
      yield* Mailbox.send(other, 1)
      assert.deepStrictEqual(yield* values("mailbox.sent.messages"), { "m accepted": 5 })
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect(
    `agree with the stats of the mailboxes, of ${seeds} random programs one after the other`,
    () =>
      Effect.gen(function*() {
        const gone = { accepted: 0, dropped: 0, rejected: 0, closed: 0, received: 0 }
        for (let seed = 0; seed < seeds; seed++) {
          yield* Random.withSeed(randomProgram(gone), `census ${seed}`)
        }
      }).pipe(Effect.provide(layer)),
    30_000 + seeds * 20
  )
})

describe("the metrics of topics", () => {
  const Ticks = Topic.make("Ticks", Schema.Int, { capacity: 4 })
  const News = Topic.make("News", Schema.Int, { capacity: 2, overflow: "drop_old" })
  const Flood = Topic.make("Flood", Schema.Int, { capacity: 2, overflow: "drop_new" })

  it.effect("count messages times subscribers, by what became of them, and agree with the stats of both", () =>
    Effect.gen(function*() {
      const fast = yield* Bus.subscribe(Ticks)
      const slow = yield* Bus.subscribe(Ticks, { name: "slow" })
      const faster = yield* Bus.subscribe(Ticks, { name: "fast" })
      yield* Bus.subscribe(News)
      const flood = yield* Bus.subscribe(Flood)
      for (const n of [1, 2, 3]) {
        yield* Bus.publish(Ticks, n)
        yield* Bus.publish(News, n)
        yield* Bus.publish(Flood, n)
      }
      yield* Subscription.receiveAll(fast)
      yield* Subscription.receive(slow)
      yield* Subscription.receiveAll(faster)
      assert.deepStrictEqual(yield* values("bus.published.messages"), { Ticks: 3, News: 3, Flood: 3 })
      assert.deepStrictEqual(yield* values("bus.delivered.messages"), {
        "Ticks accepted": 9,
        "News accepted": 3,
        "News dropped": 1,
        "Flood accepted": 2,
        "Flood dropped": 1
      })
      assert.deepStrictEqual(yield* values("bus.subscription.active"), { Ticks: 3, News: 1, Flood: 1 })
      assert.deepStrictEqual(yield* values("bus.subscription.lag.max"), { Ticks: 2, News: 2, Flood: 2 })
      assert.deepStrictEqual(yield* values("mailbox.usage"), {
        "Ticks.subscriber": 0,
        "Ticks.slow": 2,
        "Ticks.fast": 0,
        "News.subscriber": 2,
        "Flood.subscriber": 2
      })
      const stats = yield* Effect.map(Bus.stats, (all) => all.map(({ dropped, published }) => [published, dropped]))
      assert.deepStrictEqual(stats, [[3, 0], [3, 1], [3, 1]])
      assert.strictEqual((yield* Subscription.stats(flood)).dropped, 1)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("do not fall when nobody subscribes any more, and know what was left", () =>
    Effect.gen(function*() {
      for (const n of [1, 2]) {
        yield* Effect.scoped(Effect.gen(function*() {
          yield* Bus.subscribe(Ticks)
          yield* Bus.publish(Ticks, n)
          if (n === 1) yield* values("bus.published.messages")
        }))
      }
      assert.deepStrictEqual(yield* values("bus.published.messages"), { Ticks: 2 })
      assert.deepStrictEqual(yield* values("bus.delivered.messages"), {
        "Ticks accepted": 2,
        "Ticks undelivered": 2
      })
      assert.deepStrictEqual(yield* values("bus.subscription.active"), {})
      assert.deepStrictEqual(yield* values("mailbox.sent.messages"), { "Ticks.subscriber accepted": 2 })
    }).pipe(Effect.provide(layer)))

  it.effect("know how old the oldest message of a subscriber is", () =>
    Effect.gen(function*() {
      const ticks = yield* Bus.subscribe(Ticks)
      yield* Bus.publish(Ticks, 1)
      yield* TestClock.adjust("3 seconds")
      yield* Bus.publish(Ticks, 2)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* values("mailbox.message.age.max"), { "Ticks.subscriber": 4 })
      yield* Subscription.receive(ticks)
      assert.deepStrictEqual(yield* values("mailbox.message.age.max"), { "Ticks.subscriber": 1 })
    }).pipe(Effect.scoped, Effect.provide(layer)))
})

describe("the metrics of routines, groups and shutdowns", () => {
  it.effect("show who has not beaten for longest, of those that beat or have to", () =>
    Effect.gen(function*() {
      const beats = (every: number) => Effect.forever(Effect.andThen(Routine.beat, Effect.sleep(every)))
      yield* Orchestrator.fork(beats(1000), { name: "beats" })
      yield* Orchestrator.fork(beats(1_000_000), { name: "beats" })
      yield* Orchestrator.fork(Effect.never, { name: "has to", idleTimeout: "1 hour" })
      yield* Orchestrator.fork(Effect.never, { name: "silent" })
      yield* values("routine.heartbeat.age.max")
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(yield* values("routine.heartbeat.age.max"), { beats: 10, "has to": 10 })
    }).pipe(Effect.provide(layer)))

  it.effect("record how long restarts were put off, where they were", () =>
    Effect.gen(function*() {
      let runs = 0
      yield* Supervisor.start(Supervisor.make({
        name: "top",
        strategy: "one_for_one",
        intensity: 5,
        period: "1 minute",
        children: [
          Child.make("late", Effect.suspend(() => ++runs < 3 ? Effect.fail("no") : Effect.never), {
            backoff: Schedule.spaced("2 seconds")
          }),
          Child.make("once", Effect.suspend(() => ++runs === 2 ? Effect.fail("no") : Effect.never))
        ]
      }))
      yield* TestClock.adjust("10 seconds")
      assert.property(yield* values("routine.restart.delay"), "late")
      assert.notProperty(yield* values("routine.restart.delay"), "once")
      assert.property(yield* values("routine.restarts"), "once top failure")
    }).pipe(Effect.scoped, Effect.provide([layer, Logger.layer([])])))

  it.effect("count the tasks that run, and record how long groups took, by their end", () =>
    Effect.gen(function*() {
      const tasks = Group.run(
        (group) => Effect.forEach([1, 2, 3], () => Group.fork(group, Effect.sleep("2 seconds"))),
        { name: "batch", concurrency: 2 }
      )
      const running = yield* fork(tasks)
      assert.deepStrictEqual(yield* values("group.task.active"), { batch: 2 })
      yield* TestClock.adjust("4 seconds")
      yield* Fiber.join(running)
      assert.deepStrictEqual(yield* values("group.task.active"), {})
      yield* Effect.exit(Group.run((group) => Group.fork(group, Effect.fail(new TypeError("no"))), { name: "batch" }))
      assert.deepStrictEqual(yield* values("group.wait.duration"), {
        "batch success": [1, 4],
        "batch failure TypeError": [1, 0]
      })
    }).pipe(Effect.provide(layer)))

  it.effect("record how long a shutdown was in each phase, and whether it gave anything up", () =>
    Effect.gen(function*() {
      yield* Orchestrator.fork(Effect.never, { drain: Effect.sleep("2 seconds") })
      yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("1 hour")))
      const { interruptAll } = yield* Orchestrator
      yield* fork(interruptAll())
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* values("shutdown.duration"), { interrupt: [1, 5], ask: [1, 2], abandon: [1, 0] })
    }).pipe(Effect.provide(layer)))
})

describe("a reading of all metrics", () => {
  it.effect("that is interrupted leaves nothing half counted", () =>
    Effect.gen(function*() {
      const { kernel } = yield* Orchestrator
      for (let n = 0; n < 2500; n++) yield* Mailbox.make<number>({ name: `m${n % 3}`, capacity: 4 })
      const mailbox = yield* Mailbox.make<number>({ name: "m0", capacity: 4 })
      yield* Mailbox.sendAll(mailbox, [1, 2])
      const { collect } = yield* Telemetry
      for (let cuts = 0; cuts < 3; cuts++) {
        const reading = yield* fork(collect)
        yield* Effect.yieldNow
        yield* Fiber.interrupt(reading)
      }
      const [first, second] = yield* Effect.all([values("mailbox.limit"), values("mailbox.limit")], {
        concurrency: "unbounded"
      })
      assert.deepStrictEqual(first, { m0: 3340, m1: 3332, m2: 3332 })
      assert.deepStrictEqual(second, first)
      assert.deepStrictEqual(yield* values("mailbox.sent.messages"), {
        "m0 accepted": 2,
        "m1 accepted": 0,
        "m2 accepted": 0
      })
      assert.strictEqual(kernel.routines, 0)
    }).pipe(Effect.scoped, Effect.provide(layer)))

  // The real machine: how long one slice holds it.
  it.live("of 100,000 routines holds the loop for less than 2 milliseconds at a time", () =>
    Effect.gen(function*() {
      const { kernel } = yield* Orchestrator
      for (let n = 0; n < 100_000; n++) yield* Orchestrator.fork(Effect.never, { name: `routine ${n % 100}` })
      const cpu = () => {
        const { system, user } = process.cpuUsage()
        return (system + user) / 1000
      }
      const { collect } = yield* Telemetry
      let best = Infinity
      for (let attempt = 0; attempt < 8 && best >= 2; attempt++) {
        let longest = 0
        const reading = yield* Effect.forkChild(collect)
        while (reading.pollUnsafe() === undefined) {
          const before = cpu()
          yield* Effect.yieldNow
          longest = Math.max(longest, cpu() - before)
        }
        best = Math.min(best, longest)
      }
      assert.isBelow(best, 2)
      assert.strictEqual(kernel.routines, 100_000)
    }).pipe(Effect.provide(layer)), 30_000)
})
