import { Group, Orchestrator, Routine } from "@effect-orchestra/core"
import { assertNoLeaks, recorder, SeededScheduler, TestError, TestOrchestra } from "@effect-orchestra/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Effect, Exit, Latch, Metric, Random, Schedule, Scheduler } from "effect"
import { TestClock } from "effect/testing"

/** The defect that an effect dies with. */
const defectOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.flip(Effect.catchDefect(Effect.asVoid(effect), Effect.fail))

describe("TestOrchestra", () => {
  describe("run", () => {
    it.effect(
      "58. time jumps to the next deadline when all are blocked: a backoff of an hour ends in milliseconds",
      () =>
        Effect.gen(function*() {
          let attempts = 0
          const flaky = Effect.suspend(() => ++attempts < 3 ? Effect.fail("not yet") : Effect.succeed(attempts))
          const started = performance.now()
          const seen = yield* TestOrchestra.run(Effect.gen(function*() {
            const routine = yield* Orchestrator.fork(Effect.retry(flaky, Schedule.spaced("1 hour")))
            return [yield* Routine.join(routine), yield* Clock.currentTimeMillis]
          }))
          assert.deepStrictEqual(seen, [3, 7_200_000])
          assert.isBelow(performance.now() - started, 1000)
        })
    )

    it.effect("59. one seed gives one log of events, other seeds put what happens at the same time in other orders", () =>
      Effect.gen(function*() {
        const logOf = (options: TestOrchestra.RunOptions) =>
          TestOrchestra.run(
            Effect.scoped(Effect.gen(function*() {
              const record = yield* recorder
              yield* Group.run((group) =>
                Effect.forEach(["a", "b", "c"], (name) => Group.fork(group, Effect.sleep("1 second"), { name }))
              )
              return record.log
            })),
            options
          )
        const logs: Array<ReadonlyArray<string>> = []
        for (let seed = 0; seed < 20; seed++) {
          // Where the fibers do not yield, the order is that of the picks alone.
          const options = { seed, yieldChance: seed < 5 ? undefined : 0 }
          const log = yield* logOf(options)
          assert.deepStrictEqual(yield* logOf(options), log)
          logs.push(log)
        }
        // The same things happen ...
        assert.strictEqual(new Set(logs.map((log) => log.toSorted().join("\n"))).size, 1)
        // ... in several of the six orders that three can end in.
        const orders = logs.slice(5).map((log) => log.filter((line) => line.startsWith("Exited")).join("\n"))
        assert.isAbove(new Set(orders).size, 2)
      }))

    it.effect("60. a routine that is left alive fails the run, and is named with its path and the line that forked it", () =>
      Effect.gen(function*() {
        const leaking = Effect.suspend(() => Orchestrator.fork(Effect.never, { name: "poller" }))
        const leak = yield* defectOf(TestOrchestra.run(leaking))
        assert.instanceOf(leak, TestError.Leak)
        if (!(leak instanceof TestError.Leak)) return
        const [node] = leak.nodes
        assert.deepStrictEqual([leak.nodes.length, node?.path, node?.state], [1, "/orchestra/poller", "running"])
        assert.include(node?.forkSite, "TestOrchestra.test.ts")
        assert.include(leak.message, `/orchestra/poller (running), forked ${node?.forkSite}`)
      }))

    it.effect("tells who waits when nothing can go on, with the seed and the time", () =>
      Effect.gen(function*() {
        const program = Effect.gen(function*() {
          const never = yield* Deferred.make<void>()
          yield* Effect.sleep("2 seconds")
          const waiter = yield* Orchestrator.fork(Deferred.await(never), { name: "waiter" })
          yield* Routine.join(waiter)
        })
        const deadlock = yield* defectOf(TestOrchestra.run(program, { seed: "s" }))
        assert.instanceOf(deadlock, TestError.Deadlock)
        if (!(deadlock instanceof TestError.Deadlock)) return
        assert.deepStrictEqual([deadlock.seed, deadlock.atMillis], ["s", 2000])
        assert.deepStrictEqual(deadlock.nodes.map(({ path }) => path), ["/orchestra/waiter"])
        assert.include(deadlock.message, "/orchestra/waiter (running)")
      }))

    it.effect("runs the finalizers of a program that it gives up", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const finalizer = Effect.andThen(Effect.sleep("1 minute"), Effect.sync(() => log.push("finalized")))
        yield* defectOf(TestOrchestra.run(Effect.onInterrupt(Effect.never, () => finalizer)))
        assert.deepStrictEqual(log, ["finalized"])
      }))

    it.effect("gives up a program that can be neither ended nor interrupted", () =>
      Effect.gen(function*() {
        const deadlock = yield* defectOf(TestOrchestra.run(Effect.uninterruptible(Effect.never)))
        assert.instanceOf(deadlock, TestError.Deadlock)
      }))

    it.effect("gives up a program that has not ended after so many steps", () =>
      Effect.gen(function*() {
        const busy = Effect.forever(Effect.sleep("1 second"))
        const livelock = yield* defectOf(
          TestOrchestra.run(Effect.andThen(Orchestrator.fork(busy, { name: "busy" }), Effect.never), { maxSteps: 500 })
        )
        assert.instanceOf(livelock, TestError.Livelock)
        if (!(livelock instanceof TestError.Livelock)) return
        assert.deepStrictEqual(livelock.nodes.map(({ path }) => path), ["/orchestra/busy"])
        assert.isBelow(livelock.atMillis, 500_000)
        const spinning = yield* defectOf(TestOrchestra.run(Effect.forever(Effect.void), { maxSteps: 500 }))
        assert.instanceOf(spinning, TestError.Livelock)
      }))

    it.effect("returns what the program returns, and fails with what it fails with", () =>
      Effect.gen(function*() {
        const exits: Array<Exit.Exit<unknown, unknown>> = [
          Exit.succeed(1),
          Exit.fail("boom"),
          Exit.die("broken"),
          Exit.interrupt(7)
        ]
        for (const exit of exits) {
          assert.deepStrictEqual(yield* Effect.exit(TestOrchestra.run(Effect.andThen(Effect.yieldNow, exit))), exit)
        }
      }))

    it.effect("tells the failure of a program, not what it left behind by failing", () =>
      Effect.gen(function*() {
        const failing = Effect.andThen(Orchestrator.fork(Effect.never), Effect.fail("boom"))
        assert.deepStrictEqual(yield* Effect.exit(TestOrchestra.run(failing)), Exit.fail("boom"))
      }))

    it.effect("stops what is left when it is told not to look for leaks", () =>
      Effect.gen(function*() {
        let stopped = false
        const poller = Effect.onInterrupt(Effect.never, () => Effect.sync(() => void (stopped = true)))
        yield* TestOrchestra.run(Orchestrator.fork(poller), { assertNoLeaks: false })
        assert.isTrue(stopped)
      }))

    it.effect("closes the scope of the program before it looks for leaks", () =>
      TestOrchestra.run(Orchestrator.forkScoped(Effect.onInterrupt(Effect.never, () => Effect.sleep("1 second")))))

    it.effect("has a clock that TestClock.adjust understands", () =>
      Effect.gen(function*() {
        const adjusting = Effect.gen(function*() {
          const work = Effect.andThen(Effect.sleep("1 minute"), Effect.replicateEffect(Effect.yieldNow, 5))
          const routine = yield* Orchestrator.fork(work)
          yield* TestClock.adjust("1 minute")
          return (yield* Routine.snapshot(routine)).state
        })
        for (let seed = 0; seed < 10; seed++) {
          assert.strictEqual(yield* TestOrchestra.run(adjusting, { seed }), "succeeded")
        }
      }))

    it.effect("wakes sleepers in the order of their times, also when some have gone", () =>
      Effect.gen(function*() {
        const seen: Array<number> = []
        const sleeper = (seconds: number) =>
          Effect.andThen(Effect.sleep(`${seconds} seconds`), Effect.sync(() => seen.push(seconds)))
        const all = [5, 3, 9, 1, 7].map((seconds) => sleeper(seconds).pipe(Effect.timeoutOption("6 seconds")))
        yield* TestOrchestra.run(Effect.all(all, { concurrency: "unbounded" }))
        assert.deepStrictEqual(seen, [1, 3, 5])
      }))

    it.effect("does not jump to a time that nobody waits for any more", () =>
      Effect.gen(function*() {
        const program = Effect.andThen(Effect.timeoutOption(Effect.sleep("1 hour"), "1 second"), Effect.never)
        const deadlock = yield* defectOf(TestOrchestra.run(program))
        assert.strictEqual(deadlock instanceof TestError.Deadlock ? deadlock.atMillis : deadlock, 1000)
      }))

    it.effect("draws the same random numbers for the same seed", () =>
      Effect.gen(function*() {
        const draw = (seed: number) => TestOrchestra.run(Effect.all([Random.next, Random.nextInt]), { seed })
        assert.deepStrictEqual(yield* draw(1), yield* draw(1))
        assert.notDeepEqual(yield* draw(1), yield* draw(2))
      }))

    it("refuses a limit of steps that is none", () => {
      assert.throws(() => TestOrchestra.run(Effect.void, { maxSteps: 0 }), /positive integer, got: 0/)
      assert.throws(() => new SeededScheduler(1, { yieldChance: 2 }), /between 0 and 0.25, got: 2/)
    })
  })

  describe("layer", () => {
    it.effect("has a clock, a random source and a metric registry of its own", () =>
      Effect.gen(function*() {
        const runs = Metric.counter("runs")
        const seen = Effect.gen(function*() {
          yield* Metric.update(runs, 1)
          yield* TestClock.adjust("1 second")
          return [yield* Random.next, yield* Clock.currentTimeMillis, (yield* Metric.value(runs)).count]
        })
        const first = yield* Effect.provide(seen, TestOrchestra.layerWith({ seed: 1 }))
        assert.deepStrictEqual(yield* Effect.provide(seen, TestOrchestra.layerWith({ seed: 1 })), first)
        assert.deepStrictEqual(first.slice(1), [1000, 1])
        assert.strictEqual(yield* Clock.currentTimeMillis, 0)
      }))
  })
})

describe("assertNoLeaks", () => {
  it.effect("lets pass what the baseline held, and names what came since", () =>
    Effect.gen(function*() {
      yield* Orchestrator.fork(Effect.never, { name: "service" })
      const baseline = yield* Orchestrator.snapshot
      yield* assertNoLeaks({ baseline })
      yield* Orchestrator.fork(Effect.never, { name: "request" })
      const leak = yield* defectOf(assertNoLeaks({ baseline }))
      assert.deepStrictEqual(
        leak instanceof TestError.Leak ? leak.nodes.map(({ path }) => path) : leak,
        ["/orchestra/request"]
      )
    }).pipe(Effect.provide(TestOrchestra.layer)))

  it.effect("waits for what is just ending", () =>
    Effect.gen(function*() {
      const ending = yield* Latch.make()
      const finalizer = Effect.andThen(ending.await, Effect.replicateEffect(Effect.yieldNow, 10))
      yield* Orchestrator.fork(Effect.ensuring(Effect.void, finalizer))
      yield* ending.open
      yield* assertNoLeaks()
    }).pipe(Effect.provide(TestOrchestra.layer)))
})

describe("SeededScheduler", () => {
  it.effect("runs by itself under a program that is not in virtual time", () =>
    Effect.gen(function*() {
      const orders = new Set<string>()
      for (let seed = 0; seed < 10; seed++) {
        const order: Array<number> = []
        const step = (n: number) => Effect.andThen(Effect.yieldNow, Effect.sync(() => order.push(n)))
        const steps = Effect.forEach([1, 2, 3], step, { concurrency: "unbounded" })
        yield* Effect.provideService(steps, Scheduler.Scheduler, new SeededScheduler(seed))
        orders.add(order.join(""))
      }
      assert.isAbove(orders.size, 2)
    }))

  it("runs the most urgent first", () => {
    const order: Array<number> = []
    const dispatcher = new SeededScheduler(1, { manual: true }).makeDispatcher()
    for (const priority of [2, 0, 1, 2, 0]) dispatcher.scheduleTask(() => order.push(priority), priority)
    dispatcher.flush()
    assert.deepStrictEqual(order, [0, 0, 1, 2, 2])
  })
})
