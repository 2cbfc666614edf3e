import { Orchestrator, Routine } from "@effect-orchestra/core"
import { assertNoLeaks, atEveryOperation, TestOrchestra } from "@effect-orchestra/core/testing"
import { Collect } from "@effect-orchestra/workflow"
import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Context,
  Deferred,
  Duration,
  Effect,
  Exit,
  Fiber,
  Latch,
  Logger,
  type Option,
  Random,
  Runtime,
  Schema
} from "effect"
import { TestClock } from "effect/testing"
import { type Outcome, type Source, whatIsReported } from "./model/Collect.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

const after = (millis: number, value = millis) => Effect.delay(Effect.succeed(value), millis)

const collector = <A, E, R>(name: string, collect: Effect.Effect<A, E, R>, options: {
  readonly category?: string
  readonly timeout?: number
  readonly phase?: number
  readonly available?: Effect.Effect<Collect.Availability>
} = {}) => Collect.make(name, { category: "c", ...options, collect })

/** Runs, and moves the clock until there is a report. */
const reported = <A, R>(run: Effect.Effect<Collect.Report<A>, never, R>, step = 1) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(run, { startImmediately: true })
    while (fiber.pollUnsafe() === undefined) yield* TestClock.adjust(step)
    return yield* Fiber.join(fiber)
  })

const named = (report: Collect.Report<unknown>) => report.missing.map(({ name, why }) => [name, why._tag])
const found = (report: Collect.Report<unknown>) =>
  Object.values(report.results).flat().map(({ name, value }) => [name, value])
const stillThere = Effect.map(
  Orchestrator.list,
  (routines) => routines.map(({ path, state }) => `${path} ${state}`)
)

const inOrchestra = Effect.provide(Orchestrator.layer)

describe("Collect", () => {
  describe("run", () => {
    it.effect("63. one collector fails, one dies, one hangs, two work: two results, three reasons, at the deadline", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const report = yield* reported(Collect.run([
          collector("sick", Effect.fail(new Error("no such device"))),
          collector("cpu", after(20, 1)),
          collector("slow", Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("slow cleaned")))),
          collector("boom", Effect.die(new Error("index out of range"))),
          collector("memory", after(10, 2))
        ], { deadline: "60 millis" }))

        assert.deepStrictEqual(found(report), [["cpu", 1], ["memory", 2]])
        assert.deepStrictEqual(
          report.missing.map((missing) => [missing.name, Collect.reason(missing), missing.stuck]),
          [
            ["sick", "no such device", false],
            ["slow", "cut off by the deadline", false],
            ["boom", "panic: index out of range", false]
          ]
        )
        assert.deepStrictEqual([report.complete, report.durationMillis], [false, 60])
        assert.deepStrictEqual(log, ["slow cleaned"])
        assert.strictEqual(Collect.exitCode(report), 3)
      }))

    it.effect("64. at the first signal the report says what has ended, and names what was cut off by it", () =>
      Effect.gen(function*() {
        const signal = yield* Deferred.make<string>()
        const fiber = yield* Effect.forkChild(Collect.run([
          collector("quick", after(10)),
          collector("running", after(100)),
          collector("waiting", after(1))
        ], { cut: Deferred.await(signal), concurrency: 1, deadline: 1000 }))
        yield* TestClock.adjust(50)
        yield* Deferred.succeed(signal, "SIGINT")
        const report = yield* Fiber.join(fiber)

        assert.deepStrictEqual(found(report), [["quick", 10]])
        assert.deepStrictEqual(report.missing.map(({ name, why }) => [name, why]), [
          ["running", { _tag: "Cut", by: "signal" }],
          ["waiting", { _tag: "Cut", by: "signal" }]
        ])
        assert.deepStrictEqual(
          report.timeline.map(({ durationMillis, status, waitedMillis }) => [
            status,
            waitedMillis,
            durationMillis
          ]),
          [["ok", 0, 10], ["interrupted", 10, 40], ["interrupted", 50, 0]]
        )
        assert.strictEqual(report.timeline[2]?.startedAt, null)
      }))

    it.effect("65. one that ignores its cancellation is named after the grace, and left behind in the tree", () =>
      Effect.gen(function*() {
        const deaf = yield* Latch.make()
        const report = yield* reported(Collect.run([
          collector("deaf", Effect.uninterruptible(deaf.await)),
          collector("good", after(5))
        ], { deadline: "100 millis", grace: "300 millis" }))

        assert.strictEqual(report.durationMillis, 400)
        assert.deepStrictEqual(found(report), [["good", 5]])
        assert.deepStrictEqual(report.missing, [
          { name: "deaf", category: "c", why: { _tag: "Cut", by: "deadline" }, stuck: true }
        ])
        assert.deepStrictEqual(report.timeline.map(({ status }) => status), ["stuck", "ok"])
        assert.deepStrictEqual(yield* stillThere, ["/orchestra/collect/deaf abandoned"])
        yield* deaf.open
        yield* TestClock.adjust(1)
        yield* assertNoLeaks()
      }).pipe(inOrchestra))

    it.effect("66. results come in the order of the declaration, and an unknown profile is a usage error", () =>
      Effect.gen(function*() {
        const report = yield* reported(Collect.run([
          collector("third", after(30), { category: "a" }),
          collector("first", after(10), { category: "b" }),
          collector("second", after(20), { category: "a" })
        ]))
        assert.deepStrictEqual(found(report), [["third", 30], ["second", 20], ["first", 10]])
        assert.deepStrictEqual(report.timeline.map(({ name }) => name), ["third", "first", "second"])
        assert.isTrue(report.complete)

        const error = yield* Effect.flip(Collect.profile([{ name: "quick", collectors: ["all"] }], "fast"))
        assert.strictEqual(error.message, `there is no profile "fast"; there are quick`)
        assert.strictEqual(Runtime.getErrorExitCode(error), 2)
      }))

    it.effect("gives a slot that ends to the one that waits longest, and a time from when it has the slot", () =>
      Effect.gen(function*() {
        const report = yield* reported(Collect.run([
          collector("a", after(30)),
          collector("b", after(50)),
          collector("c", after(30)),
          collector("d", after(60))
        ], { concurrency: 2, timeout: "40 millis" }))
        assert.deepStrictEqual(
          report.timeline.map(({ durationMillis, name, status, waitedMillis }) => [
            name,
            status,
            waitedMillis,
            durationMillis
          ]),
          [["a", "ok", 0, 30], ["b", "timeout", 0, 40], ["c", "ok", 30, 30], ["d", "timeout", 40, 40]]
        )
        assert.deepStrictEqual(named(report), [["b", "TimedOut"], ["d", "TimedOut"]])
      }))

    it.effect("takes the slot back from one that has timed out and ignores it", () =>
      Effect.gen(function*() {
        const deaf = yield* Latch.make()
        const report = yield* reported(Collect.run([
          collector("deaf", Effect.uninterruptible(deaf.await), { timeout: 10 }),
          collector("next", after(5))
        ], { concurrency: 1, grace: 20 }))
        assert.deepStrictEqual(found(report), [["next", 5]])
        assert.deepStrictEqual(report.missing.map((missing) => Collect.reason(missing)), [
          "took longer than 10ms, and does not end"
        ])
        assert.strictEqual(report.durationMillis, 35)
        yield* deaf.open
      }))

    it.effect("starts the collectors of a phase when all those of the phase before have ended", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const told = (name: string, millis: number, phase: number) =>
          collector(
            name,
            Effect.sync(() => log.push(`${name} starts`)).pipe(
              Effect.andThen(Effect.sleep(millis)),
              Effect.andThen(Effect.sync(() => log.push(`${name} ends`)))
            ),
            { phase }
          )
        yield* reported(Collect.run([told("heavy", 10, 2), told("light", 20, 1), told("lighter", 30, 1)]))
        assert.deepStrictEqual(log, [
          "light starts",
          "lighter starts",
          "light ends",
          "lighter ends",
          "heavy starts",
          "heavy ends"
        ])
      }))

    it.effect("skips what is not available, which is not missing", () =>
      Effect.gen(function*() {
        const report = yield* reported(Collect.run([
          collector("bpf", after(1), { available: Effect.succeed({ tier: 0, reason: "no bcc tools" }) }),
          collector("proc", after(1), { available: Effect.succeed({ tier: 1 }) })
        ]))
        assert.deepStrictEqual(report.skipped, [{ name: "bpf", category: "c", reason: "no bcc tools" }])
        assert.deepStrictEqual(report.timeline.map(({ status }) => status), ["skipped", "ok"])
        assert.deepStrictEqual([report.complete, Collect.exitCode(report)], [true, 0])
      }))

    it.effect("bounds the question whether a collector is available as it bounds the collector", () =>
      Effect.gen(function*() {
        const report = yield* reported(
          Collect.run([collector("asks", after(1), { available: Effect.never, timeout: 10 })])
        )
        assert.deepStrictEqual(named(report), [["asks", "TimedOut"]])
      }))

    it.effect("closes what a collector has acquired before it reports", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const open = Effect.acquireRelease(Effect.void, () =>
          Effect.andThen(Effect.yieldNow, Effect.sync(() => log.push("closed"))))
        yield* reported(Collect.run([
          collector("good", Effect.as(open, 1)),
          collector("cut", Effect.andThen(open, Effect.never))
        ], { deadline: 10 }))
        assert.deepStrictEqual(log, ["closed", "closed"])
      }))

    it.effect("takes any name for a category, also those that every object has", () =>
      Effect.gen(function*() {
        const collectors = ["constructor", "__proto__"].map((category) =>
          collector(category, Effect.succeed(1), { category })
        )
        const selected = yield* Collect.select(collectors, { name: "all", collectors: ["all"], focus: {} })
        const report = yield* Collect.run(selected)
        assert.deepStrictEqual(Object.keys(report.results), ["constructor", "__proto__"])
        assert.strictEqual(Collect.exitCode(report), 0)
      }))

    it.effect("starts nothing when it is cut before it begins", () =>
      Effect.gen(function*() {
        let started = false
        const report = yield* Collect.run([collector("late", Effect.sync(() => started = true))], { cut: Effect.void })
        assert.deepStrictEqual(named(report), [["late", "Cut"]])
        assert.isFalse(started)
      }))

    it.effect("reports on nothing at once", () =>
      Effect.gen(function*() {
        const report = yield* Collect.run([])
        assert.deepStrictEqual([report.complete, report.timeline], [true, []])
      }))

    it.effect("gives each collector the services that it requires", () =>
      Effect.gen(function*() {
        class Root extends Context.Service<Root, string>()("Root") {}
        const run: Effect.Effect<Collect.Report<string | number>, never, Root> = Collect.run([
          Collect.make("root", { category: "c", collect: Effect.map(Root, (root) => root) }),
          collector("number", after(0))
        ])
        const report = yield* Effect.provideService(run, Root, "/proc")
        assert.deepStrictEqual(found(report), [["root", "/proc"], ["number", 0]])
      }).pipe(Effect.provide(TestOrchestra.layer)))

    it.effect("takes one that a stranger interrupts for missing", () =>
      Effect.gen(function*() {
        const told = yield* Deferred.make<Option.Option<Routine.Routine<unknown, unknown>>>()
        const fiber = yield* Effect.forkChild(Collect.run([
          collector(
            "shot",
            Effect.andThen(Effect.flatMap(Routine.current, (routine) => Deferred.succeed(told, routine)), Effect.never)
          ),
          collector("good", after(5))
        ]))
        const shot = yield* Effect.flatMap(Deferred.await(told), Effect.fromOption)
        yield* Routine.interrupt(shot)
        yield* TestClock.adjust(5)
        const report = yield* Fiber.join(fiber)
        assert.deepStrictEqual(found(report), [["good", 5]])
        assert.deepStrictEqual(report.missing.map((missing) => Collect.reason(missing)), ["interrupted"])
        assert.deepStrictEqual(report.timeline.map(({ status }) => status), ["interrupted", "ok"])
      }).pipe(inOrchestra))

    it.effect("is a group of routines named after the collectors, in the tree while it runs", () =>
      Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(
          Collect.run([collector("cpu", after(5)), collector("disk", after(5))], { name: "sysreport", concurrency: 1 })
        )
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(yield* stillThere, [
          "/orchestra/sysreport/cpu running",
          "/orchestra/sysreport/disk pending"
        ])
        yield* TestClock.adjust(9)
        yield* Fiber.join(fiber)
        yield* assertNoLeaks()
      }).pipe(inOrchestra))

    it.effect("ends all collectors when it is interrupted, and leaves behind what ignores it", () =>
      Effect.gen(function*() {
        const deaf = yield* Latch.make()
        let cleaned = 0
        const clean = Effect.onInterrupt(Effect.never, () => Effect.sync(() => cleaned++))
        const fiber = yield* Effect.forkChild(Collect.run([
          collector("one", clean),
          collector("deaf", Effect.uninterruptible(deaf.await)),
          collector("two", clean)
        ], { grace: 100 }))
        yield* TestClock.adjust(10)
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber))
        yield* TestClock.adjust(99)
        assert.deepStrictEqual([cleaned, interrupting.pollUnsafe()], [2, undefined])
        yield* TestClock.adjust(1)
        yield* Fiber.join(interrupting)
        assert.deepStrictEqual(yield* stillThere, ["/orchestra/collect/deaf abandoned"])
        yield* deaf.open
      }).pipe(inOrchestra))

    it.effect("ends with the tree when that is shut down", () =>
      Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(Collect.run([collector("one", Effect.never)]))
        yield* TestClock.adjust(1)
        yield* Orchestrator.shutdown()
        assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(fiber)))
      }).pipe(inOrchestra))

    it.effect("interrupted at any operation, it leaves nothing behind", () =>
      Effect.gen(function*() {
        let open = 0
        const held = Effect.acquireRelease(Effect.sync(() => open++), () => Effect.sync(() => open--))
        const collectors = ["a", "b", "c"].map((name, phase) =>
          collector(name, Effect.andThen(held, Effect.yieldNow), { phase: phase % 2 })
        )
        const tried = yield* atEveryOperation(
          Collect.run([...collectors, collector("d", Effect.fail("no"))], { concurrency: 1 }),
          () => Effect.andThen(assertNoLeaks(), Effect.sync(() => assert.strictEqual(open, 0))),
          { fibers: "all" }
        )
        assert.isAbove(tried, 100)
      }).pipe(inOrchestra))

    it.effect("tells of each that starts and ends, in the order in which that happens", () =>
      Effect.gen(function*() {
        const told: Array<string> = []
        const onProgress = (progress: Collect.Progress) => {
          told.push(
            progress._tag === "Started"
              ? `${progress.name} starts`
              : `${progress.name} ${progress.status} ${progress.done}/${progress.total} ${progress.reason}`
          )
        }
        yield* reported(Collect.run([
          collector("slow", after(20)),
          collector("bpf", after(1), { available: Effect.delay(Effect.succeed({ tier: 0, reason: "no bcc" }), 5) }),
          collector("sick", Effect.delay(Effect.fail("broken"), 10))
        ], { onProgress }))
        assert.deepStrictEqual(told, [
          "slow starts",
          "sick starts",
          "bpf skipped 1/3 no bcc",
          "sick error 2/3 broken",
          "slow ok 3/3 "
        ])
      }))

    it.effect("reports whatever the categories are called", () =>
      Effect.gen(function*() {
        const categories = ["__proto__", "constructor", "toString"]
        const report = yield* reported(
          Collect.run(categories.map((category) => collector(`of ${category}`, after(1), { category })))
        )
        assert.deepStrictEqual(Object.keys(report.results), categories)
        assert.isTrue(report.complete)
      }))

    it.effect("is not cut by what fails to say whether it is", () =>
      Effect.gen(function*() {
        for (const cut of [Effect.die("lost"), Effect.fail("lost") as Effect.Effect<never, never>]) {
          const report = yield* reported(Collect.run([collector("a", after(10))], { cut }))
          assert.deepStrictEqual(found(report), [["a", 10]])
        }
      }).pipe(Effect.provide(Logger.layer([]))))

    it.effect("goes on without telling its progress when what is told throws", () =>
      Effect.gen(function*() {
        const logged: Array<string> = []
        const report = yield* reported(
          Collect.run([collector("a", after(1)), collector("b", after(2))], {
            onProgress: () => {
              throw new Error("the terminal is gone")
            }
          })
        ).pipe(Effect.provide(Logger.layer([Logger.make(({ message }) => void logged.push(String(message)))])))
        assert.isTrue(report.complete)
        assert.strictEqual(logged.length, 1)
      }))

    it("refuses a phase that has no place among the others", () => {
      assert.throws(
        () => collector("a", Effect.void, { phase: NaN }),
        /the phase of collector "a" is a number, got: NaN$/
      )
    })

    it.effect("refuses two collectors of one name", () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(Collect.run([collector("a", Effect.void), collector("a", Effect.void)]))
        assert.include(String(Exit.isFailure(exit) && Cause.squash(exit.cause)), "unique, got twice: a")
      }))
  })

  describe("select", () => {
    const collectors = [
      collector("cpu", after(1), { category: "cpu" }),
      collector("disk", after(1), { category: "disk", timeout: 700 }),
      collector("net", after(1), { category: "network" })
    ]
    const decode = Schema.decodeUnknownEffect(Schema.fromJsonString(Collect.Profile))
    const selected = (json: string) =>
      Effect.map(
        Effect.flatMap(decode(json), (profile) => Collect.select(collectors, profile)),
        (selected) => selected.map(({ name, timeout }) => [name, timeout && Duration.toMillis(timeout)])
      )

    it.effect("takes those that the profile names, in the order of their declaration, without those excluded", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(
          yield* selected(`{ "name": "few", "collectors": ["net", "cpu"] }`),
          [["cpu", undefined], ["net", undefined]]
        )
        assert.deepStrictEqual(
          yield* selected(`{ "name": "most", "collectors": ["all"], "exclude": ["cpu"] }`),
          [["disk", 700], ["net", undefined]]
        )
      }))

    it.effect("leaves each the time of its category, or its own, or that of the profile", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(
          yield* selected(
            `{ "name": "focused", "collectors": ["all"], "timeout": "2 seconds", "focus": { "network": "30 seconds" } }`
          ),
          [["cpu", 2000], ["disk", 700], ["net", 30_000]]
        )
      }))

    it.effect("fails with every name that it does not know, and says which it knows", () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(
          selected(`{ "name": "odd", "collectors": ["cpu", "cpus"], "exclude": ["nets"] }`)
        )
        assert.strictEqual(
          error.message,
          `profile "odd" names no collector that there is with "cpus", "nets"; there are cpu, disk, net`
        )
        const category = yield* Effect.flip(
          selected(`{ "name": "odd", "collectors": ["all"], "focus": { "stacks": "1 second" } }`)
        )
        assert.include(category.message, `no category that there is with "stacks"; there are cpu, disk, network`)
      }))

    it.effect("decodes profiles only whole, and says where one is wrong", () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(selected(`{ "name": "odd", "collectors": ["all"], "deadline": "soon" }`))
        assert.include(error.message, `["deadline"]`)
      }))
  })
})

describe("Collect, seeded", () => {
  it.effect("reports what the model reports", () =>
    Effect.gen(function*() {
      for (let seed = 0; seed < seeds; seed++) yield* Random.withSeed(againstTheModel(seed), `collect ${seed}`)
    }), 60_000 + seeds * 20)

  it.effect(
    "is bounded, and tells of all that began, when slots come free at the moment of the cut",
    () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < seeds; seed++) yield* Random.withSeed(allAtOnce(seed), `collect at once ${seed}`)
      }),
    60_000 + seeds * 20
  )
})

/** Slots come free, collectors time out and all is cut at the same few moments. */
const allAtOnce = Effect.fnUntraced(function*(seed: number) {
  const upTo = (n: number) => Random.nextIntBetween(1, n)
  const begun = new Set<string>()
  const collectors: Array<Collect.Collector<void>> = []
  for (let i = 0; i < 5; i++) {
    const takes = yield* upTo(3)
    const collect = Effect.andThen(Effect.sync(() => begun.add(`${i}`)), Effect.sleep(takes === 3 ? 1000 : takes))
    collectors.push(collector(`${i}`, Effect.uninterruptible(collect), { timeout: yield* upTo(4) }))
  }
  const limits = { concurrency: yield* upTo(2), deadline: yield* upTo(6), grace: yield* upTo(2) }
  const report = yield* TestOrchestra.run(Effect.tap(Collect.run(collectors, limits), Effect.sleep(5000)), { seed })
  assert.isAtMost(report.durationMillis, limits.deadline + limits.grace, `collect ${seed}`)
  const told = report.timeline.filter(({ startedAt }) => startedAt !== null).map(({ name }) => name)
  // One may be cut between its start and its first step.
  assert.includeMembers(told, [...begun], `collect ${seed}`)
})

const againstTheModel = Effect.fnUntraced(function*(seed: number) {
  const upTo = (n: number) => Random.nextIntBetween(0, n - 1)
  const chance = (p: number) => Effect.map(Random.next, (drawn) => drawn < p)
  const sources: Array<Source> = []
  for (let i = yield* upTo(9); i > 0; i--) {
    sources.push({
      ends: (["well", "well", "failing", "dying"] as const)[yield* upTo(4)] ?? "well",
      deaf: yield* chance(0.25),
      available: yield* chance(0.9),
      takes: 1 + (yield* upTo(1_000_000)),
      timeout: 1 + (yield* upTo(2_000_000)),
      phase: yield* upTo(3)
    })
  }
  const limits = {
    concurrency: 1 + (yield* upTo(4)),
    deadline: 1 + (yield* upTo(4_000_000)),
    grace: 1 + (yield* upTo(500_000))
  }
  const endings = { well: Effect.void, failing: Effect.fail("failed"), dying: Effect.die("died") }
  const program = Collect.run(
    sources.map(({ available, deaf, ends, phase, takes, timeout }, index) => {
      const collect = Effect.andThen(Effect.sleep(takes), endings[ends])
      return collector(`${index}`, deaf ? Effect.uninterruptible(collect) : collect, {
        phase,
        timeout,
        available: Effect.succeed({ tier: available ? 1 : 0 })
      })
    }),
    limits
  )
  // Until those that were left behind have ended: then nothing is there.
  const report = yield* TestOrchestra.run(Effect.tap(program, Effect.sleep(1_000_000)), { seed })
  const reported = report.timeline.map(({ durationMillis, status, waitedMillis }): Outcome => ({
    status,
    waited: Math.round(waitedMillis),
    duration: Math.round(durationMillis)
  }))
  assert.deepStrictEqual(reported, whatIsReported(sources, limits), `collect ${seed}`)
})
