import { Bus, Mailbox, Orchestrator, Routine, Subscription, Topic } from "@effect-orchestra/core"
import { Metering, Profiler } from "@effect-orchestra/observability"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Schedule, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"
import { spawnSync } from "node:child_process"
import { pbkdf2Sync } from "node:crypto"
import { decode, type Sample, total } from "./model/Pprof.ts"

const app = Orchestrator.layerWith({ name: "app" })
const plain = { native: false, heap: false }
const profiled = (options: Profiler.ProfilerOptions = plain) => Layer.provideMerge(Profiler.layerWith(options), app)

/** One of the profiles of the profiler in the context, read. */
const taken = <E>(make: (profiler: Profiler.Profiler["Service"]) => Effect.Effect<Uint8Array, E>) =>
  Effect.map(Effect.flatMap(Profiler.Profiler, make), decode)

const names = ({ stack }: Sample) => stack.map(({ name }) => name)

/** The share of the last value that stands below samples with this function. */
const share = (samples: ReadonlyArray<Sample>, name: string) =>
  total(samples, 1, (sample) => names(sample).includes(name)) / total(samples, 1)

// Generators, which the engine never makes part of their callers, and no loops: the engine does not tell of what it had
// optimized in these two ways before the profile began.
function* burnHot(rounds: number): Generator<Uint8Array> {
  yield pbkdf2Sync("password", "salt", rounds, 32, "sha256")
}

function* burnMild(rounds: number): Generator<Uint8Array> {
  yield pbkdf2Sync("password", "salt", rounds, 32, "sha256")
}

/** Four parts for one, in turns. */
const load = Effect.gen(function*() {
  const worker = (burn: typeof burnHot, rounds: number) =>
    Effect.forever(Effect.andThen(Effect.sync(() => burn(rounds).next()), Effect.sleep(5)))
  yield* Orchestrator.fork(worker(burnHot, 40_000), { name: "hot" })
  yield* Orchestrator.fork(worker(burnMild, 10_000), { name: "mild" })
})

describe("Profiler", () => {
  // Real time on a real CPU, so these are few, and only look at what leads.
  describe("cpu", () => {
    it.live("names the functions that take the time, those that take most first, by the engine's profiler", () =>
      Effect.gen(function*() {
        yield* load
        const { durationNanos, period, program, samples, types } = yield* taken(({ cpu }) => cpu("800 millis"))
        assert.deepStrictEqual(types, ["samples/count", "cpu/nanoseconds"])
        assert.deepStrictEqual([program, period], ["app", "10000000 cpu/nanoseconds"])
        assert.isAtLeast(durationNanos, 790e6)
        assert.isAtMost(total(samples, 1), durationNanos)
        assert.isAbove(share(samples, "burnHot"), 0.1)
        assert.isAbove(share(samples, "burnHot"), share(samples, "burnMild"))
        const hot = samples.flatMap(({ stack }) => stack).find(({ name }) => name === "burnHot")
        assert.match(hot?.file ?? "", /^\/.*\/test\/Profiler\.test\.ts$/)
        assert.isAbove(hot?.line ?? 0, 1)
        const all = new Set(samples.flatMap(names))
        assert.isFalse(all.has("(idle)") || all.has("(root)") || all.has(""))
      }).pipe(Effect.provide(profiled())))

    it.live("labels each sample with the routine that ran, with the package and a meter", () =>
      Effect.gen(function*() {
        yield* load
        const { samples, types } = yield* taken(({ cpu }) => cpu("800 millis"))
        assert.deepStrictEqual(types, ["samples/count", "cpu/nanoseconds"])
        assert.isAbove(share(samples, "burnHot"), share(samples, "burnMild"))
        const labelled = (routine: string) => total(samples, 1, ({ labels }) => labels["routine"] === routine)
        assert.isAbove(labelled("hot"), labelled("mild"))
        assert.isAbove((labelled("hot") + labelled("mild")) / total(samples, 1), 0.2)
        const hot = samples.filter((sample) => names(sample).includes("burnHot"))
        assert.isAbove(total(hot, 1, ({ labels }) => labels["routine"] === "hot") / total(hot, 1), 0.8)
        // One for each stack and routine, not one for each look.
        const keys = samples.map((sample) => JSON.stringify([sample.labels, sample.stack]))
        assert.strictEqual(new Set(keys).size, keys.length)
      }).pipe(
        Effect.provide(Layer.provideMerge(profiled({ heap: false }), Metering.layer))
      ))

    it.live("hands out what the engine has recorded for Chrome", () =>
      Effect.gen(function*() {
        yield* load
        const { cpuprofile } = yield* Profiler.Profiler
        const recorded: any = JSON.parse(yield* cpuprofile("200 millis"))
        assert.containsAllKeys(recorded, ["nodes", "samples", "timeDeltas", "startTime", "endTime"])
        assert.include(recorded.nodes.map(({ callFrame }: any) => callFrame.functionName), "burnHot")
      }).pipe(Effect.provide(profiled())))

    for (const native of [false, true]) {
      it.effect(`is one at a time, and an interrupted one ends (package: ${native})`, () =>
        Effect.gen(function*() {
          yield* Effect.promise(() => import("@datadog/pprof"))
          const { cpu, cpuprofile } = yield* Profiler.Profiler
          const busy = Effect.all([Effect.flip(cpu("1 second")), Effect.flip(cpuprofile("1 second"))])
          const first = yield* Effect.forkChild(cpu("30 seconds"))
          yield* begun
          assert.deepStrictEqual((yield* busy).map(({ _tag }) => _tag), ["ProfilerBusy", "ProfilerBusy"])
          yield* TestClock.adjust("29 seconds")
          assert.isUndefined(first.pollUnsafe())
          assert.isNotEmpty(yield* ended(first))

          const second = yield* Effect.forkChild(cpu("30 seconds"))
          yield* begun
          yield* Fiber.interrupt(second)
          const third = yield* Effect.forkChild(cpu("1 second"))
          assert.isNotEmpty(yield* ended(third))
        }).pipe(Effect.provide(profiled({ native, heap: false }))))
    }

    it.live("says so when somebody else has the package's profiler, and leaves it to him", () =>
      Effect.gen(function*() {
        const { time } = yield* Effect.promise(() => import("@datadog/pprof"))
        yield* Effect.acquireRelease(Effect.sync(() => time.start()), () => Effect.sync(() => time.stop()))
        const { cpu } = yield* Profiler.Profiler
        const error = yield* Effect.flip(cpu(10))
        assert.strictEqual(error.message, "no cpu profile: Wall profiler is already started")
        assert.isTrue(time.isStarted())
      }).pipe(Effect.scoped, Effect.provide(profiled({ heap: false }))))

    // A real process, since a process cannot give up the right by itself.
    it.live("says so where Node forbids the profiler", () =>
      Effect.sync(() => {
        const script = `
          import { Orchestrator } from "@effect-orchestra/core"
          import * as Profiler from "@effect-orchestra/observability/Profiler"
          import { Effect, Layer } from "effect"
          const layer = Layer.provide(Profiler.layerWith({ native: false }), Orchestrator.layer)
          const cpu = Effect.flatMap(Profiler.Profiler, ({ cpu }) => Effect.flip(cpu(10)))
          const { _tag, message } = await Effect.runPromise(Effect.provide(cpu, layer))
          console.log(_tag, message)
        `
        const { stderr, stdout } = spawnSync(
          process.execPath,
          ["--permission", "--allow-fs-read=*", "--input-type=module", "--eval", script],
          { cwd: new URL("..", import.meta.url), encoding: "utf8" }
        )
        assert.match(stdout, /^ProfilerUnavailable no cpu profile: .*Access to this API has been restricted/, stderr)
      }), 10_000)
  })

  describe("fibers", () => {
    it.effect("tells where fibers stand: what they wait for, functions, spans, routine and who stands above", () =>
      Effect.gen(function*() {
        const inbox = yield* Mailbox.make<string>({ name: "inbox", capacity: 1 })
        const defined = lineHere() + 1
        const fetchUser = Effect.fn("fetchUser")(function*(_id: number) {
          return yield* Effect.withSpan(Mailbox.receive(inbox), "load")
        })
        yield* Effect.forkScoped(Supervisor.start(Supervisor.make({
          name: "main",
          strategy: "one_for_one",
          children: [
            Child.make("reader", Effect.andThen(fetchUser(1), Effect.never)),
            Child.make("idle", Effect.never)
          ]
        })))
        yield* TestClock.adjust(0)
        const { program, samples, shown, types } = yield* taken(({ fibers }) => fibers)
        assert.deepStrictEqual([program, shown, types], ["app", "fiber", ["routine/count", "fiber/count"]])
        assert.deepStrictEqual(samples.map(names), [
          ["receive inbox", "load", "fetchUser", "routine reader", "supervisor main", "orchestrator app"],
          ["routine idle", "supervisor main", "orchestrator app"]
        ])
        assert.deepStrictEqual(samples.map(({ labels }) => labels), [
          { routine: "reader", state: "running" },
          { routine: "idle", state: "running" }
        ])
        const fetching = samples[0]?.stack.find(({ name }) => name === "fetchUser")
        assert.match(fetching?.file ?? "", /test\/Profiler\.test\.ts$/)
        assert.strictEqual(fetching?.line, defined)
      }).pipe(Effect.scoped, Effect.provide(profiled())))

    it.effect(
      "counts those of one kind together, fibers forked within them too, and those that have none",
      () =>
        Effect.gen(function*() {
          const twins = Effect.andThen(Effect.forkChild(Effect.never.pipe(Effect.withSpan("twin"))), Effect.never)
          for (let n = 0; n < 3; n++) yield* Orchestrator.fork(twins, { name: "pair" })
          const failing = Supervisor.make({
            name: "main",
            strategy: "one_for_one",
            intensity: 100,
            children: [Child.make("flaky", Effect.fail(new Error("no")), { backoff: Schedule.spaced("1 minute") })]
          })
          yield* Effect.forkScoped(Effect.exit(Supervisor.start(failing)))
          const released = yield* Deferred.make<void>()
          yield* Orchestrator.fork(Effect.acquireRelease(Effect.void, () => Deferred.await(released)), { name: "held" })
          yield* TestClock.adjust(0)
          const { samples } = yield* taken(({ fibers }) => fibers)
          const shown = samples.map((sample) => [...sample.values, sample.labels["state"], ...names(sample)].join(" "))
          assert.deepStrictEqual(shown.sort(), [
            "0 3 running twin routine pair orchestrator app",
            "1 0 backoff (waits for its next start) routine flaky supervisor main orchestrator app",
            "1 0 stopping (runs its finalizers) routine held orchestrator app",
            "3 3 running routine pair orchestrator app"
          ])
          yield* Deferred.succeed(released, undefined)
        }).pipe(Effect.scoped, Effect.provide(profiled())),
      1000
    )

    it.effect("knows the waits of both ends of mailboxes and of topics", () =>
      Effect.gen(function*() {
        const full = yield* Mailbox.make<number>({ name: "full", capacity: 1 })
        yield* Mailbox.send(full, 1)
        yield* Orchestrator.fork(Mailbox.send(full, 2), { name: "sender" })
        const empty = yield* Mailbox.make<number>({ name: "empty", capacity: 1 })
        yield* Orchestrator.fork(Effect.timeout(Mailbox.receive(empty), "1 hour"), { name: "receiver" })
        const ticks = Topic.make("Ticks", Schema.Number, { capacity: 1 })
        const subscription = yield* Bus.subscribe(ticks)
        yield* Bus.publish(ticks, 1)
        yield* Orchestrator.fork(Bus.publish(ticks, 2), { name: "publisher" })
        const news = yield* Bus.subscribe(Topic.make("News", Schema.String))
        yield* Orchestrator.fork(Subscription.receive(news), { name: "reader" })
        yield* TestClock.adjust(0)
        const waits = Effect.map(taken(({ fibers }) => fibers), ({ samples }) =>
          samples.map((sample) => names(sample)[0]))
        assert.deepStrictEqual(yield* waits, ["send full", "receive empty", "send Ticks", "receive News"])
        yield* Mailbox.receive(full)
        yield* Subscription.receive(subscription)
        yield* TestClock.adjust(0)
        assert.deepStrictEqual(yield* waits, ["receive empty", "receive News"])
      }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(Bus.layer, profiled()))))

    it.effect("is there as text, grouped with most first, or each with its id and path", () =>
      Effect.gen(function*() {
        const { fiberText } = yield* Profiler.Profiler
        yield* Orchestrator.fork(Effect.never, { name: "alone" })
        for (let n = 0; n < 2; n++) yield* Orchestrator.fork(Effect.withSpan(Effect.never, "wait"), { name: "twin" })
        yield* TestClock.adjust("90 seconds")
        assert.deepStrictEqual(
          (yield* fiberText("grouped")).split("\n").map((line) => line.replace(/\t[^\t]*:\d+$/, "")),
          [
            "fiber profile: total 3",
            "2 @ twin [running]",
            "#\twait",
            "#\troutine twin",
            "#\torchestrator app",
            "",
            "1 @ alone [running]",
            "#\troutine alone",
            "#\torchestrator app",
            ""
          ]
        )
        const full = (yield* fiberText("full")).split("\n").filter((line) => line.startsWith("routine"))
        assert.deepStrictEqual(full, [
          "routine r-1 [running, 90 s]: /app/alone",
          "routine r-2 [running, 90 s]: /app/twin",
          "routine r-3 [running, 90 s]: /app/twin#r-3"
        ])
      }).pipe(Effect.provide(profiled())))

    it.effect(
      "lets others run while it goes through a large tree, and shows 10,000 of them as text",
      () =>
        Effect.gen(function*() {
          const { fiberText, fibers } = yield* Profiler.Profiler
          for (let n = 0; n < 10_500; n++) yield* Orchestrator.fork(Effect.never, { name: "one" })
          let turns = 0
          const ticker = yield* Effect.forkChild(
            Effect.forever(Effect.andThen(Effect.sync(() => turns++), Effect.yieldNow))
          )
          const { samples } = decode(yield* fibers)
          assert.isAbove(turns, 30)
          assert.strictEqual(total(samples, 1), 10_500)
          const text = yield* fiberText("full")
          assert.isTrue(text.endsWith("... and 500 more\n"))
          assert.strictEqual(text.match(/^routine /gm)?.length, 10_000)
          yield* Fiber.interrupt(ticker)
        }).pipe(Effect.provide(profiled())),
      5000
    )
  })

  describe("places", () => {
    it.effect("are 10,000 at most, and the rest is counted together", () =>
      Effect.gen(function*() {
        for (let n = 0; n < 10_007; n++) yield* Orchestrator.fork(Effect.never, { name: `name ${n}` })
        const { samples } = yield* taken(({ fibers }) => fibers)
        assert.strictEqual(samples.length, 10_001)
        assert.deepStrictEqual(samples.slice(-1).map((sample) => [names(sample), sample.values]), [[["(others)"], [
          7,
          7
        ]]])
        assert.strictEqual(total(samples, 1), 10_007)
      }).pipe(Effect.provide(profiled())), 5000)
  })

  describe("block", () => {
    it.effect("counts waits that are over and their time by operation, mailbox and routine", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ name: "orders", capacity: 1 })
        for (let n = 0; n < 3; n++) yield* Orchestrator.fork(Mailbox.send(mailbox, n), { name: "shop" })
        yield* TestClock.adjust("2 seconds")
        const reader = yield* Orchestrator.fork(
          Effect.forever(Effect.andThen(Mailbox.receive(mailbox), Effect.sleep("1 second"))),
          { name: "clerk" }
        )
        yield* TestClock.adjust("5 seconds")
        yield* Mailbox.send(mailbox, 3)
        yield* TestClock.adjust("10 seconds")
        const { samples, types } = yield* taken(({ block }) => block)
        assert.deepStrictEqual(types, ["contentions/count", "delay/nanoseconds"])
        assert.deepStrictEqual(samples.map((sample) => [names(sample), sample.values, sample.labels]), [
          [["send", "mailbox orders", "routine shop", "orchestrator app"], [2, 5e9], { routine: "shop" }],
          [["receive", "mailbox orders", "routine clerk", "orchestrator app"], [1, 2e9], { routine: "clerk" }]
        ])
        yield* Routine.stop(reader)
        assert.strictEqual(total((yield* taken(({ block }) => block)).samples, 0), 4)

        const both = yield* Mailbox.make<number>({ name: "both", capacity: 1 })
        yield* Mailbox.send(both, 1)
        const turns = Effect.andThen(
          Mailbox.send(both, 2),
          Effect.andThen(Mailbox.receive(both), Mailbox.receive(both))
        )
        yield* Orchestrator.fork(turns, { name: "turns" })
        yield* TestClock.adjust("1 second")
        yield* Mailbox.receive(both)
        yield* TestClock.adjust("1 second")
        yield* Mailbox.send(both, 3)
        yield* TestClock.adjust(0)
        const { samples: all } = yield* taken(({ block }) => block)
        assert.deepStrictEqual(
          all.filter(({ labels }) => labels["routine"] === "turns").map((sample) => [names(sample)[0], sample.values]),
          [["send", [1, 1e9]], ["receive", [1, 1e9]]]
        )
      }).pipe(Effect.scoped, Effect.provide(profiled())))

    it.effect(
      "counts together what is beyond 2,000 stacks, and fibers of no routine for the orchestrator",
      () =>
        Effect.gen(function*() {
          const wait = (name: string) =>
            Effect.gen(function*() {
              const mailbox = yield* Mailbox.make<number>({ name, capacity: 1 })
              const fiber = yield* Effect.forkChild(Mailbox.receive(mailbox), { startImmediately: true })
              yield* Mailbox.send(mailbox, 1)
              yield* Fiber.join(fiber)
            }).pipe(Effect.scoped)
          for (let n = 0; n < 2010; n++) yield* wait(`m${n}`)
          yield* wait("m0")
          const { samples } = yield* taken(({ block }) => block)
          assert.strictEqual(samples.length, 2001)
          assert.deepStrictEqual(samples.slice(0, 1).map(names), [["receive", "mailbox m0", "orchestrator app"]])
          assert.deepStrictEqual(samples.map(({ values }) => values[0]).filter((times) => times !== 1), [2, 10])
          assert.deepStrictEqual(samples.slice(-1).map(names), [["(others)"]])
        }).pipe(Effect.provide(profiled())),
      5000
    )

    it.effect("is empty where nothing is counted", () =>
      Effect.gen(function*() {
        const { kernel } = yield* Orchestrator
        assert.isUndefined(kernel.observers)
        assert.deepStrictEqual((yield* taken(({ block }) => block)).samples, [])
      }).pipe(Effect.provide(profiled({ ...plain, block: false }))))
  })

  describe("heap", () => {
    it.live("names who allocated what is still there", () =>
      Effect.gen(function*() {
        const kept = hoard(200_000)
        const { samples, types } = yield* taken(({ heap }) => heap)
        assert.deepStrictEqual(types, ["inuse_objects/count", "inuse_space/bytes"])
        const own = samples.filter(({ stack }) => stack.length > 1 || stack[0]?.name !== "(external)")
        assert.isAbove(share(own, "hoard"), 0.3)
        assert.isAbove(kept.length, 0)
      }).pipe(Effect.provide(profiled({}))))

    it.effect("names the package where it is not used", () =>
      Effect.gen(function*() {
        const { heap } = yield* Profiler.Profiler
        const error = yield* Effect.flip(heap)
        assert.strictEqual(error._tag, "PackageMissing")
        assert.include(error.message, "npm install @datadog/pprof")
      }).pipe(Effect.provide(profiled({ native: false }))))

    it.live("ends with the last profiler of the process", () =>
      Effect.gen(function*() {
        const pprof = yield* Effect.promise(() => import("@datadog/pprof"))
        const [first, second] = [yield* Scope.make(), yield* Scope.make()]
        yield* Layer.buildWithScope(profiled({}), first)
        yield* Layer.buildWithScope(profiled({}), second)
        yield* Scope.close(first, Exit.void)
        assert.isNotEmpty(pprof.heap.profile().sample)
        yield* Scope.close(second, Exit.void)
        assert.throws(() => pprof.heap.profile(), "not enabled")

        // What somebody else has begun is his to end.
        pprof.heap.start(1024 * 1024, 16)
        yield* Effect.provide(taken(({ heap }) => heap), profiled({}))
        assert.isNotEmpty(pprof.heap.profile().sample)
        pprof.heap.stop()
      }))
  })
})

/** Until a recording has begun, which takes some turns of the real event loop. */
const begun = Effect.promise(() => new Promise((resolve) => setTimeout(resolve, 100)))

/** What a recording ends with. It sleeps from when the profiler has started on, which nobody sees from outside. */
const ended = <A, E>(recording: Fiber.Fiber<A, E>) =>
  Effect.raceFirst(
    Fiber.join(recording),
    Effect.forever(Effect.andThen(TestClock.adjust("1 second"), Effect.promise(() => new Promise(setImmediate))))
  )

/** The line of the caller. */
const lineHere = () => Number(/Profiler\.test\.ts:(\d+)/.exec(new Error().stack?.split("\n")[2] ?? "")?.[1])

function hoard(length: number): ReadonlyArray<object> {
  return Array.from({ length }, (_, n) => ({ n, text: `entry ${n}`, more: [n, n, n] }))
}
