import { Group, Mailbox, Orchestrator, Routine } from "@effect-orchestra/core"
import { Telemetry } from "@effect-orchestra/observability"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Data, Deferred, Effect, Fiber, Layer, Logger, References, type Scope } from "effect"
import { TestClock } from "effect/testing"
import { Recorder } from "./support/Recorder.ts"

class Oops extends Data.TaggedError("Oops")<{ readonly message: string }> {}

interface Line {
  readonly level: string
  readonly message: string
  readonly annotations: Readonly<Record<string, unknown>>
}

const text = (message: unknown) => String(Array.isArray(message) ? message.join(" ") : message)

/** Runs a program with telemetry, and returns what was logged. */
const logged = <A, E>(
  program: (lines: ReadonlyArray<Line>) => Effect.Effect<A, E, Orchestrator | Telemetry | Scope.Scope>,
  options: { readonly debug?: boolean; readonly telemetry?: Parameters<typeof Telemetry.layerWith>[0] } = {}
) =>
  Effect.suspend(() => {
    const lines: Array<Line> = []
    const logger = Logger.make(({ fiber, logLevel, message }) => {
      lines.push({
        level: logLevel,
        message: text(message),
        annotations: fiber.getRef(References.CurrentLogAnnotations)
      })
    })
    const layer = Layer.provideMerge(
      Telemetry.layerWith(options.telemetry ?? {}),
      Orchestrator.layerWith({ name: "app" })
    ).pipe(
      Layer.provideMerge(Logger.layer([logger])),
      Layer.provideMerge(Layer.succeed(References.MinimumLogLevel, options.debug === true ? "Debug" : "Info"))
    )
    return Effect.as(Effect.provide(Effect.scoped(program(lines)), layer), lines)
  })

const event = (line: Line) => line.annotations["orchestra.event"]
const lifecycle = (lines: ReadonlyArray<Line>) =>
  lines.filter((line) => event(line) !== undefined).map((line) => [line.level, event(line), line.message])

/** Fails once every second. */
const crashing = (intensity: number, period: `${number} minutes` = "10 minutes") =>
  Supervisor.make({
    name: "looping",
    strategy: "one_for_one",
    intensity,
    period,
    children: [Child.make("crashing", Effect.andThen(Effect.sleep("1 second"), new Oops({ message: "no" })))]
  })

describe("Logs", () => {
  it.effect("says on each line of a routine whose it is, also of the fibers and routines within", () =>
    Effect.gen(function*() {
      const lines = yield* logged(() =>
        Effect.gen(function*() {
          yield* Effect.log("outside")
          const inner = Effect.flatMap(Orchestrator.fork(Effect.log("nested"), { name: "nested" }), Routine.await)
          const plain = Effect.flatMap(Effect.forkChild(Effect.log("fiber")), Fiber.join)
          yield* Effect.log("in the job").pipe(
            Effect.annotateLogs("user", "ada"),
            Effect.andThen(plain),
            Effect.andThen(inner),
            (job) => Orchestrator.fork(job, { name: "job" }),
            Effect.flatMap(Routine.await)
          )
          yield* Group.run((group) => Group.fork(group, Effect.log("in a task"), { name: "task" }))
        })
      )
      const names = lines.map(({ annotations, message }) => [message, annotations["orchestra.routine.name"]])
      assert.deepStrictEqual(names, [
        ["outside", undefined],
        ["in the job", "job"],
        ["fiber", "job"],
        ["nested", "nested"],
        ["in a task", "task"]
      ])
      const [, job] = lines
      assert.match(String(job?.annotations["orchestra.routine.id"]), /^r-\d+$/)
      assert.deepStrictEqual(Object.keys(job?.annotations ?? {}), [
        "orchestra.routine.id",
        "orchestra.routine.name",
        "orchestra.routine.attempt",
        "user"
      ])
    }))

  it.effect("names the attempt and the supervisor, whatever the program has said of its lines", () =>
    Effect.gen(function*() {
      let runs = 0
      const child = Effect.suspend(() =>
        Effect.andThen(
          Effect.annotateLogs(Effect.log("hello"), "orchestra.routine.name", "mine"),
          ++runs === 1 ? Effect.fail("once") : Effect.never
        )
      )
      const lines = yield* logged(() =>
        Effect.gen(function*() {
          const children = [Child.make("greeter", child)]
          yield* Supervisor.start(Supervisor.make({ name: "house", strategy: "one_for_one", children }))
          yield* TestClock.adjust("1 second")
        })
      )
      const said = lines.filter(({ message }) => message === "hello").map(({ annotations }) => annotations)
      assert.deepStrictEqual(said.map((annotations) => annotations["orchestra.routine.attempt"]), [1, 2])
      assert.strictEqual(said[0]?.["orchestra.supervisor.path"], "/app/house")
      assert.strictEqual(said[0]?.["orchestra.routine.name"], "mine")
    }))

  it.effect("reaches loggers that a program adds to those that are there, once", () =>
    Effect.gen(function*() {
      const added: Array<unknown> = []
      const logger = Logger.make(({ fiber }) =>
        added.push(fiber.getRef(References.CurrentLogAnnotations)["orchestra.routine.name"])
      )
      const lines = yield* logged(() => {
        const inner = Effect.gen(function*() {
          const { logs } = yield* Telemetry
          const go = yield* Deferred.make<void>()
          const routine = yield* Orchestrator.fork(Effect.andThen(Deferred.await(go), Effect.log("inner")), {
            name: "inner"
          })
          yield* logs.watch(routine.id)
          yield* Deferred.succeed(go, undefined)
          yield* Routine.await(routine)
          assert.strictEqual((yield* logs.recent(routine.id)).length, 1)
        })
        const within = Effect.provide(inner, Logger.layer([logger], { mergeWithExisting: true }))
        return Effect.flatMap(Orchestrator.fork(within, { name: "outer" }), Routine.join)
      })
      assert.deepStrictEqual(lines.map(({ annotations }) => annotations["orchestra.routine.name"]), ["inner"])
      assert.deepStrictEqual(added, ["inner"])
    }))

  it.effect("writes no line of a supervised routine into a span, and those of others", () =>
    Effect.gen(function*() {
      const recorder = new Recorder()
      const lines = Effect.withSpan(Effect.replicateEffect(Effect.log("hello"), 3), "work")
      yield* Effect.gen(function*() {
        yield* Effect.flatMap(Orchestrator.fork(lines, { name: "job" }), Routine.await)
        const children = [Child.make("child", Effect.andThen(lines, Effect.never))]
        yield* Supervisor.start(Supervisor.make({ name: "house", strategy: "one_for_one", children }))
        yield* Effect.yieldNow
      }).pipe(
        Effect.scoped,
        Effect.provide(Layer.provideMerge(Telemetry.layer, Orchestrator.layer)),
        Effect.withTracer(recorder.tracer),
        Effect.provideService(Logger.CurrentLoggers, new Set([Logger.tracerLogger]))
      )
      assert.deepStrictEqual(recorder.all("work").map(({ events }) => events.length), [3, 0])
    }))

  it.effect("holds nothing of 50,000 lines that a permanent routine logs", () =>
    Effect.gen(function*() {
      const recorder = new Recorder()
      const logging = Effect.gen(function*() {
        for (let n = 0; n < 50_000; n++) yield* Effect.log(n)
        return yield* Effect.never
      })
      let count = 0
      const counting = Logger.make(() => void count++)
      yield* Effect.gen(function*() {
        const children = [Child.make("chatty", Effect.withSpan(logging, "for ever"))]
        yield* Supervisor.start(Supervisor.make({ name: "house", strategy: "one_for_one", children }))
        while (count < 50_000) yield* Effect.yieldNow
        const held = recorder.started.reduce((sum, { events }) => sum + events.length, 0)
        assert.strictEqual(held, 0)
        assert.deepStrictEqual(recorder.open, ["for ever"])
      }).pipe(
        Effect.scoped,
        Effect.provide(Layer.provideMerge(Telemetry.layer, Orchestrator.layer)),
        Effect.withTracer(recorder.tracer),
        Effect.provideService(Logger.CurrentLoggers, new Set([Logger.tracerLogger, counting]))
      )
    }), 30_000)

  it.effect("tells of the lives of routines once, each at its level", () =>
    Effect.gen(function*() {
      const lines = yield* logged(() =>
        Effect.gen(function*() {
          yield* Effect.flatMap(Orchestrator.fork(Effect.void, { name: "job" }), Routine.await)
          const mailbox = yield* Mailbox.make<number>({ name: "orders", capacity: 1 })
          yield* Mailbox.send(mailbox, 1)
          yield* Effect.exit(Supervisor.start(crashing(1)))
          yield* TestClock.adjust("5 seconds")
          const { shutdown } = yield* Orchestrator
          yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("60 seconds")), { name: "deaf" })
          yield* Effect.forkChild(shutdown({ grace: 0, interrupt: "2 seconds" }), { startImmediately: true })
          yield* TestClock.adjust("3 seconds")
        }), { debug: true })
      assert.deepStrictEqual(lifecycle(lines), [
        ["Debug", "routine.started", "/app/job started"],
        ["Debug", "routine.exited", "/app/job exited: success"],
        ["Warn", "mailbox.full", "/app/orders is full: 1 messages"],
        ["Debug", "routine.started", "/app/looping/crashing started"],
        ["Debug", "routine.exited", "/app/looping/crashing exited: failure"],
        ["Warn", "routine.restarted", "/app/looping/crashing is restarted, attempt 2, after failure"],
        ["Debug", "routine.started", "/app/looping/crashing started"],
        ["Debug", "routine.exited", "/app/looping/crashing exited: failure"],
        ["Error", "routine.gave_up", "/app/looping gave up on crashing: Oops: no"],
        ["Debug", "routine.started", "/app/deaf started"],
        ["Error", "shutdown.forced", "/app/deaf ignored its interruption for 2000 ms and is left running"]
      ])
      const restarted = lines.find((line) => event(line) === "routine.restarted")
      assert.strictEqual(restarted?.annotations["orchestra.restart.reason"], "failure")
      assert.strictEqual(restarted?.annotations["orchestra.supervisor.path"], "/app/looping")
      assert.strictEqual(restarted?.annotations["orchestra.routine.attempt"], 2)
    }))

  it.effect("says nothing of what is not shown, and of a failure that is told already", () =>
    Effect.gen(function*() {
      const program = (_: ReadonlyArray<Line>) =>
        Effect.gen(function*() {
          yield* Orchestrator.fork(new Oops({ message: "no" }), { name: "unseen" })
          yield* Effect.flatMap(Orchestrator.fork(new Oops({ message: "no" }), { name: "seen" }), Routine.await)
          yield* TestClock.adjust("1 second")
        })
      // No shutdown forces it.
      const stop = (_: ReadonlyArray<Line>) =>
        Effect.gen(function*() {
          const deaf = yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("60 seconds")), { name: "deaf" })
          yield* Effect.forkChild(Routine.stop(deaf, 0), { startImmediately: true })
          yield* TestClock.adjust("60 seconds")
        })
      assert.deepStrictEqual(lifecycle(yield* logged(program)), [])
      assert.deepStrictEqual(lifecycle(yield* logged(stop)), [])
      const lines = yield* logged(program, { debug: true })
      assert.deepStrictEqual(
        lines.map(({ message }) => message),
        [
          "/app/unseen started",
          "/app/unseen failed and nobody awaits it",
          "/app/seen started",
          "/app/seen exited: failure"
        ].sort((a, b) => lines.findIndex((line) => line.message === a) - lines.findIndex((line) => line.message === b))
      )
      assert.strictEqual(lines.length, 4)
      assert.deepStrictEqual(lifecycle(yield* logged(program, { debug: true, telemetry: { logs: false } })), [])
    }))

  it.effect("logs five restarts of a routine in a minute, and how many more there were", () =>
    Effect.gen(function*() {
      const lines = yield* logged(() =>
        Effect.gen(function*() {
          yield* Supervisor.start(crashing(1000, "60 minutes"))
          yield* TestClock.adjust("90 seconds")
        })
      )
      const messages = lifecycle(lines).map(([, , message]) => String(message).replace(/.*crashing:? /, ""))
      const restarted = (attempt: number) => `is restarted, attempt ${attempt}, after failure`
      assert.deepStrictEqual(messages, [
        ...[2, 3, 4, 5, 6].map(restarted),
        "55 more restarts within a minute",
        ...[62, 63, 64, 65, 66].map(restarted),
        "25 more restarts within a minute"
      ])
    }))

  it.effect(
    "counts together the restarts of more routines than it remembers, and what it cannot log",
    () =>
      Effect.gen(function*() {
        let dropped = 0
        const lines = yield* logged(() =>
          Effect.gen(function*() {
            const failing = (n: number) =>
              Child.make(`child-${n}`, Effect.andThen(Effect.sleep("40 seconds"), Effect.fail("no")))
            yield* Supervisor.start(Supervisor.make({
              name: "many",
              strategy: "one_for_one",
              intensity: 10_000,
              period: "1 minute",
              children: Array.from({ length: 1010 }, (_, n) => failing(n))
            }))
            yield* TestClock.adjust("40 seconds")
            const mailboxes = yield* Effect.replicateEffect(Mailbox.make<number>({ capacity: 1 }), 1500)
            yield* Effect.forEach(mailboxes, (mailbox) => Mailbox.send(mailbox, 1)).pipe(
              Effect.provideService(References.PreventSchedulerYield, true)
            )
            yield* TestClock.adjust("60 seconds")
            const { collect } = yield* Telemetry
            const drops = (yield* collect).find(({ metric }) => metric.name === "orchestra.telemetry.dropped.items")
            for (const { attributes: [[, signal] = []], value } of drops?.series.values() ?? []) {
              if (signal === "log") dropped += value
            }
          })
        )
        const others = lifecycle(lines).filter(([, , message]) => String(message).startsWith("other routines"))
        assert.deepStrictEqual(others, [[
          "Warn",
          "routine.restarted",
          "other routines: 20 more restarts within a minute"
        ]])
        assert.strictEqual(lifecycle(lines).filter(([, event]) => event === "mailbox.full").length + dropped, 1500)
        assert.isAbove(dropped, 0)
      }),
    10_000
  )

  it.effect("keeps the last 200 lines of a routine that somebody watches, and for a minute", () =>
    Effect.gen(function*() {
      yield* logged(() =>
        Effect.gen(function*() {
          const { logs } = yield* Telemetry
          const tick = Effect.andThen(Effect.sleep("1 second"), Effect.log("tick", { n: 1 }))
          const chatty = yield* Orchestrator.fork(Effect.forever(tick), { name: "chatty" })
          yield* TestClock.adjust("5 seconds")
          assert.deepStrictEqual(yield* logs.recent(chatty.id), [])
          yield* logs.watch(chatty.id)
          yield* TestClock.adjust("3 seconds")
          const [first, ...rest] = yield* logs.recent(chatty.id)
          assert.deepStrictEqual(first, {
            at: 6000,
            level: "Info",
            incarnation: 1,
            message: "tick {\"n\":1}",
            cause: null,
            annotations: {},
            traceId: null,
            spanId: null
          })
          assert.strictEqual(rest.length, 2)
          for (let minute = 0; minute < 8; minute++) {
            yield* logs.watch(chatty.id)
            yield* TestClock.adjust("30 seconds")
          }
          const all = yield* logs.recent(chatty.id)
          assert.deepStrictEqual([all.length, all[0]?.at, all.at(-1)?.at], [200, 49_000, 248_000])
          yield* TestClock.adjust("1 minute")
          assert.deepStrictEqual(yield* logs.recent(chatty.id), [])
        })
      )
    }))

  it.effect("watches 16 routines, and forgets the one that nobody has looked at for longest", () =>
    Effect.gen(function*() {
      yield* logged(() =>
        Effect.gen(function*() {
          const { logs } = yield* Telemetry
          const go = yield* Deferred.make<void>()
          const say = Effect.andThen(
            Deferred.await(go),
            Effect.logError("x".repeat(5000), new Error("why")).pipe(Effect.annotateLogs("user", "ada"))
          )
          const routines = yield* Effect.replicateEffect(Orchestrator.fork(say), 17)
          for (const { id } of routines.slice(0, 16)) yield* logs.watch(id)
          const [first, second] = routines
          assert(first !== undefined && second !== undefined)
          yield* logs.watch(first.id)
          for (const { id } of routines.slice(16)) yield* logs.watch(id)
          yield* Deferred.succeed(go, undefined)
          yield* Effect.forEach(routines, Routine.await)
          const counts = yield* Effect.forEach(
            routines,
            ({ id }) => Effect.map(logs.recent(id), ({ length }) => length)
          )
          assert.deepStrictEqual(counts, [1, 0, ...Array.from({ length: 15 }, () => 1)])
          const [line] = yield* logs.recent(first.id)
          assert.strictEqual(line?.message.length, 2048)
          assert.deepStrictEqual(line?.annotations, { user: "ada" })
        })
      )
    }))
})
