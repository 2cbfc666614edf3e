import { Bus, Group, Mailbox, Orchestrator, Routine, Topic } from "@effect-orchestra/core"
import type { Kernel } from "@effect-orchestra/core/Kernel"
import { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import { atEveryOperation } from "@effect-orchestra/core/testing"
import { Sampler, Telemetry } from "@effect-orchestra/observability"
import { Child, DynamicSupervisor, Supervisor, TaskSupervisor } from "@effect-orchestra/supervisor"
import * as OtelTracer from "@effect/opentelemetry/OtelTracer"
import { assert, describe, it } from "@effect/vitest"
import { SpanStatusCode } from "@opentelemetry/api"
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from "@opentelemetry/sdk-trace-base"
import {
  Cause,
  Data,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Logger,
  Option,
  Schedule,
  Schema,
  type Scope,
  Tracer
} from "effect"
import { TestClock } from "effect/testing"
import { type Recorded, Recorder } from "./support/Recorder.ts"

class Oops extends Data.TaggedError("Oops")<{ readonly message: string }> {}

const quiet = Logger.layer([])

/** Runs a program with telemetry and a recorder as its tracer; what its scope holds ends first. */
const traced = <A, E>(
  program: (recorder: Recorder) => Effect.Effect<A, E, Orchestrator | Telemetry | Scope.Scope>,
  options: Parameters<typeof Telemetry.layerWith>[0] = {}
) =>
  Effect.suspend(() => {
    const recorder = new Recorder()
    const layer = Layer.provideMerge(Telemetry.layerWith(options), Orchestrator.layerWith({ name: "app" })).pipe(
      Layer.provideMerge(quiet),
      Layer.provideMerge(Layer.succeed(Tracer.Tracer, recorder.tracer))
    )
    return Effect.as(Effect.provide(Effect.scoped(program(recorder)), layer), recorder)
  })

const parentOf = (span: Recorded) => Option.getOrUndefined(span.parent)?.spanId
const linksOf = (span: Recorded) =>
  span.links.map(({ attributes, span }) => [attributes["orchestra.link"], span.spanId])
const eventsOf = (span: Recorded) => span.events.map(([name]) => name)
const attribute = (span: Recorded, name: string) => span.attributes.get(name)

describe("Traces", () => {
  it.effect("finds the tracer and the span of a run whatever the one before had", () =>
    Effect.gen(function*() {
      const recorder = new Recorder()
      const fork = Orchestrator.fork(Effect.void, { name: "job" })
      yield* Effect.gen(function*() {
        yield* fork
        yield* Effect.withTracer(Effect.withSpan(fork, "request"), recorder.tracer)
        yield* fork
        yield* Effect.withTracer(fork, recorder.tracer)
      }).pipe(Effect.provide(Layer.provideMerge(Telemetry.layer, Orchestrator.layer)))
      const runs = recorder.all("run job")
      assert.deepStrictEqual(runs.map(parentOf), [recorder.one("request").spanId, undefined])
    }))

  it.effect("gives a run its span, below that of whoever forked it, with its id, its end and its work", () =>
    Effect.gen(function*() {
      const recorder = yield* traced(() =>
        Effect.gen(function*() {
          const work = Effect.withSpan(Effect.sleep("2 seconds"), "work")
          const job = yield* Effect.withSpan(Orchestrator.fork(work, { name: "job" }), "request")
          const root = yield* Effect.withSpan(Orchestrator.fork(Effect.void, { name: "apart", root: true }), "other")
          yield* TestClock.adjust("2 seconds")
          yield* Routine.await(job)
          yield* Routine.await(root)
        })
      )
      const run = recorder.one("run job")
      assert.strictEqual(parentOf(run), recorder.one("request").spanId)
      assert.strictEqual(parentOf(recorder.one("work")), run.spanId)
      assert.strictEqual(run.kind, "internal")
      assert.isTrue(Exit.isSuccess(run.over.exit))
      assert.strictEqual(run.over.endTime - run.over.startTime, 2_000_000_000n)
      assert.match(String(attribute(run, "orchestra.routine.id")), /^r-\d+$/)
      assert.strictEqual(attribute(run, "orchestra.routine.name"), "job")
      assert.strictEqual(attribute(run, "orchestra.routine.attempt"), 1)
      assert.strictEqual(attribute(run, "orchestra.exit.reason"), "success")
      assert.isFalse(run.attributes.has("error.type"))
      assert.isFalse(run.attributes.has("orchestra.supervisor.path"))
      assert.isUndefined(parentOf(recorder.one("run apart")))
      assert.isTrue(recorder.one("run apart").root)
    }))

  it.effect("says why a run failed, and leaves an interruption without an error", () =>
    Effect.gen(function*() {
      const recorder = yield* traced(() =>
        Effect.gen(function*() {
          const failing = yield* Orchestrator.fork(new Oops({ message: "no" }), { name: "failing" })
          yield* Routine.await(failing)
          yield* Routine.stop(yield* Orchestrator.fork(Effect.never, { name: "stopped" }))
        })
      )
      const failing = recorder.one("run failing")
      assert.strictEqual(attribute(failing, "error.type"), "Oops")
      assert.strictEqual(attribute(failing, "orchestra.exit.reason"), "failure")
      assert.isTrue(Exit.isFailure(failing.over.exit))
      const { exit } = recorder.one("run stopped").over
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
    }))

  it.effect("links the runs of a transient child, and tells of the restart on the second", () =>
    Effect.gen(function*() {
      let runs = 0
      const flaky = Effect.suspend(() => ++runs === 1 ? Effect.fail(new Oops({ message: "no" })) : Effect.void)
      const recorder = yield* traced(() =>
        Effect.gen(function*() {
          yield* Supervisor.start(Supervisor.make({
            name: "jobs",
            strategy: "one_for_one",
            children: [Child.make("flaky", flaky, { restart: "transient" })]
          }))
          yield* TestClock.adjust("1 second")
        })
      )
      const [first, second] = recorder.all("run flaky")
      assert(first !== undefined && second !== undefined)
      assert.deepStrictEqual(linksOf(second), [["previous_run", first.spanId]])
      assert.strictEqual(attribute(second, "orchestra.supervisor.name"), "jobs")
      assert.strictEqual(attribute(second, "orchestra.supervisor.path"), "/app/jobs")
      const [event] = second.events
      assert.strictEqual(event?.[0], "orchestra.restart")
      assert.deepStrictEqual(event?.[2], {
        "orchestra.routine.attempt": 2,
        "orchestra.restart.delay_s": 0,
        "orchestra.restart.reason": "failure",
        "error.type": "Oops"
      })
      assert.deepStrictEqual(recorder.all("supervise jobs"), [])
    }))

  it.effect("encloses a permanent child in nothing but the spans of its start and its stop", () =>
    Effect.gen(function*() {
      const crash = yield* Deferred.make<never, Oops>()
      let runs = 0
      const child = Effect.gen(function*() {
        const first = ++runs === 1
        yield* Effect.sleep("1 second")
        yield* Routine.ready
        yield* Effect.withSpan(Effect.void, "work")
        return yield* first ? Deferred.await(crash) : Effect.never
      })
      const recorder = yield* traced((recorder) =>
        Effect.gen(function*() {
          const ref = yield* Effect.forkChild(Supervisor.start(Supervisor.make({
            name: "app",
            strategy: "one_for_one",
            children: [Child.make("server", child, { awaitReady: true, backoff: Schedule.spaced("2 seconds") })]
          })))
          yield* TestClock.adjust("1 second")
          const supervisor = yield* Fiber.join(ref)
          assert.deepStrictEqual(recorder.open, [])
          yield* Deferred.fail(crash, new Oops({ message: "no" }))
          yield* TestClock.adjust("4 seconds")
          yield* Effect.forkChild(Supervisor.terminateChild(supervisor, "server"), { startImmediately: true })
          yield* TestClock.adjust("1 second")
        })
      )
      const [first, second] = recorder.all("start server")
      assert(first !== undefined && second !== undefined)
      assert.strictEqual(first.over.endTime - first.over.startTime, 1_000_000_000n)
      assert.isUndefined(parentOf(first))
      assert.deepStrictEqual(linksOf(second), [["previous_run", first.spanId]])
      assert.deepStrictEqual(
        second.events.map(([name, , attributes]) => [name, attributes["orchestra.restart.delay_s"]]),
        [
          ["orchestra.restart", 2]
        ]
      )
      for (const work of recorder.all("work")) assert.isUndefined(parentOf(work))
      const stop = recorder.one("stop server")
      assert.isUndefined(parentOf(stop))
      assert.deepStrictEqual(linksOf(stop), [["start", second.spanId]])
      assert.deepStrictEqual(recorder.all("run server"), [])
    }).pipe(Effect.scoped))

  it.effect("gives a decision that touches siblings a span with what it stops and starts", () =>
    Effect.gen(function*() {
      const crash = yield* Deferred.make<never, Oops>()
      let runs = 0
      const database = Effect.suspend(() => ++runs === 1 ? Deferred.await(crash) : Effect.never)
      const recorder = yield* traced(() =>
        Effect.gen(function*() {
          yield* Supervisor.start(Supervisor.make({
            name: "backup",
            strategy: "rest_for_one",
            intensity: 4,
            period: "1 minute",
            children: [Child.make("database", database), Child.make("watcher", Effect.never)]
          }))
          yield* Deferred.fail(crash, new Oops({ message: "gone" }))
          yield* TestClock.adjust("1 second")
        })
      )
      const span = recorder.one("supervise backup")
      assert.isUndefined(parentOf(span))
      assert.strictEqual(attribute(span, "orchestra.supervisor.strategy"), "rest_for_one")
      assert.strictEqual(attribute(span, "orchestra.supervisor.decision"), "restart_group")
      assert.strictEqual(attribute(span, "orchestra.supervisor.budget.used"), 1)
      assert.strictEqual(attribute(span, "orchestra.supervisor.budget.max"), 4)
      assert.deepStrictEqual(
        span.events.map(([name, , attributes]) => [name, attributes["orchestra.routine.name"]]),
        [
          ["orchestra.child.stopped", "watcher"],
          ["orchestra.restart", "database"],
          ["orchestra.child.started", "database"],
          ["orchestra.restart", "watcher"],
          ["orchestra.child.started", "watcher"]
        ]
      )
      const [before, after] = recorder.all("start database")
      assert(before !== undefined && after !== undefined)
      assert.deepInclude(linksOf(span), ["failed_run", before.spanId])
      assert.deepStrictEqual(linksOf(after), [["previous_run", before.spanId], ["supervisor", span.spanId]])
      assert.deepStrictEqual(eventsOf(after), [])
    }))

  it.effect("gives a supervisor that gives up a span that fails", () =>
    Effect.gen(function*() {
      const recorder = yield* traced(() =>
        Effect.gen(function*() {
          const failing = Effect.andThen(Effect.sleep("1 second"), new Oops({ message: "no" }))
          yield* Supervisor.start(Supervisor.make({
            name: "doomed",
            strategy: "one_for_one",
            intensity: 1,
            period: "1 minute",
            children: [Child.make("failing", failing), Child.make("beside", Effect.never)]
          }))
          yield* TestClock.adjust("5 seconds")
        }).pipe(Effect.exit)
      )
      const span = recorder.one("supervise doomed")
      assert.strictEqual(attribute(span, "orchestra.supervisor.decision"), "give_up")
      assert.isTrue(Exit.isFailure(span.over.exit))
      assert.deepStrictEqual(eventsOf(span), ["orchestra.child.stopped"])
      assert.strictEqual(recorder.all("stop beside").length, 1)
    }))

  it.effect("puts the tasks of a group below its span, which tells of the first failure", () =>
    Effect.gen(function*() {
      const recorder = yield* traced(() =>
        Effect.gen(function*() {
          const group = Group.run((group) =>
            Effect.gen(function*() {
              yield* Group.fork(group, Effect.andThen(Effect.sleep("1 second"), new Oops({ message: "no" })), {
                name: "failing"
              })
              yield* Group.fork(group, Effect.never, { name: "other" })
            }), { name: "both", concurrency: 2 })
          yield* Effect.forkChild(Effect.exit(Effect.withSpan(group, "request")), { startImmediately: true })
          yield* TestClock.adjust("3 seconds")
        })
      )
      const span = recorder.one("wait both")
      assert.strictEqual(parentOf(span), recorder.one("request").spanId)
      assert.strictEqual(attribute(span, "orchestra.group.size"), 2)
      assert.strictEqual(attribute(span, "orchestra.group.concurrency"), 2)
      assert.strictEqual(attribute(span, "orchestra.outcome"), "failure")
      assert.deepStrictEqual(span.events.map(([name, , attributes]) => [name, attributes]), [
        ["first_failure", { "error.type": "Oops" }]
      ])
      for (const name of ["run failing", "run other"]) assert.strictEqual(parentOf(recorder.one(name)), span.spanId)
      assert.strictEqual(span.over.endTime - span.over.startTime, 1_000_000_000n)
    }))

  it.effect("gives each round of a long-lived group a span", () =>
    Effect.gen(function*() {
      const recorder = yield* traced(() =>
        Effect.gen(function*() {
          const group = yield* Group.make({ name: "rounds" })
          yield* Group.fork(group, Effect.sleep("2 seconds"))
          yield* TestClock.adjust("1 second")
          yield* Effect.forkChild(Effect.withSpan(Group.join(group), "joining"), { startImmediately: true })
          yield* TestClock.adjust("1 second")
        })
      )
      const span = recorder.one("wait rounds")
      assert.strictEqual(parentOf(span), recorder.one("joining").spanId)
      assert.strictEqual(attribute(span, "orchestra.group.size"), 1)
      assert.strictEqual(span.over.endTime - span.over.startTime, 1_000_000_000n)
    }))

  it.effect("says on the span of whoever waited 10 ms or longer at a mailbox that it did", () =>
    Effect.gen(function*() {
      const recorder = yield* traced(() =>
        Effect.gen(function*() {
          const mailbox = yield* Mailbox.make<number>({ name: "orders", capacity: 1 })
          const sending = (n: number) => Effect.withSpan(Mailbox.send(mailbox, n), `sending ${n}`)
          yield* sending(1)
          yield* Effect.forkChild(sending(2), { startImmediately: true })
          yield* TestClock.adjust("9 millis")
          yield* Mailbox.receive(mailbox)
          yield* TestClock.adjust("1 millis")
          yield* Effect.forkChild(sending(3), { startImmediately: true })
          yield* TestClock.adjust("10 millis")
          yield* Mailbox.receive(mailbox)
          yield* TestClock.adjust("1 millis")
          yield* Mailbox.receive(mailbox)
          const consumer = yield* Orchestrator.fork(Mailbox.receive(mailbox), { name: "consumer" })
          yield* TestClock.adjust("20 millis")
          yield* Mailbox.send(mailbox, 4)
          yield* Routine.await(consumer)
        })
      )
      for (const name of ["sending 1", "sending 2"]) assert.deepStrictEqual(recorder.one(name).events, [])
      const blocked = (name: string) => recorder.one(name).events.map(([name, , attributes]) => [name, attributes])
      assert.deepStrictEqual(blocked("sending 3"), [["orchestra.mailbox.blocked", {
        duration_s: 0.01,
        "orchestra.mailbox.name": "orders",
        "orchestra.mailbox.operation": "send"
      }]])
      assert.deepStrictEqual(blocked("run consumer"), [["orchestra.mailbox.blocked", {
        duration_s: 0.02,
        "orchestra.mailbox.name": "orders",
        "orchestra.mailbox.operation": "receive"
      }]])
    }))

  it.effect("gives a shutdown a span with its phases, and a stop one if it is slow or forced", () =>
    Effect.gen(function*() {
      const recorder = yield* traced(() =>
        Effect.gen(function*() {
          const { shutdown } = yield* Orchestrator
          yield* Orchestrator.fork(Effect.never, { name: "docile" })
          yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("2 seconds")), { name: "slow" })
          yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("60 seconds")), { name: "deaf" })
          yield* Orchestrator.fork(Effect.never, { name: "draining", drain: Effect.sleep("3 seconds") })
          yield* Effect.forkChild(shutdown({ grace: "4 seconds", interrupt: "5 seconds" }), { startImmediately: true })
          yield* TestClock.adjust("20 seconds")
          yield* TestClock.adjust("60 seconds")
        })
      )
      const shutdown = recorder.one("shutdown")
      assert.isUndefined(parentOf(shutdown))
      assert.strictEqual(attribute(shutdown, "orchestra.shutdown.forced"), 1)
      assert.isTrue(Exit.isFailure(shutdown.over.exit))
      for (const phase of ["ask", "interrupt"]) {
        assert.strictEqual(parentOf(recorder.one(phase)), shutdown.spanId)
        assert.strictEqual(attribute(recorder.one(phase), "orchestra.shutdown.phase"), phase)
      }
      assert.strictEqual(attribute(recorder.one("ask"), "orchestra.shutdown.remaining"), 3)
      assert.deepStrictEqual(
        recorder.ended.filter(({ name }) => name.startsWith("stop ")).map((span) => [
          span.name,
          attribute(span, "orchestra.stop.forced")
        ]),
        [["stop draining", false], ["stop deaf", true]]
      )
      assert.strictEqual(parentOf(recorder.one("stop deaf")), recorder.one("interrupt").spanId)
    }))

  it.effect("puts what is started on behalf of a request below it, also under supervisors", () =>
    Effect.gen(function*() {
      const recorder = yield* traced(() =>
        Effect.gen(function*() {
          const tasks = yield* TaskSupervisor.start(TaskSupervisor.make({ name: "tasks" }))
          const task = yield* Effect.withSpan(TaskSupervisor.asyncNolink(tasks, Effect.void), "by task")
          const uploads = yield* DynamicSupervisor.start(DynamicSupervisor.make({
            name: "uploads",
            restart: "temporary",
            child: (_: number) => Effect.sleep("1 second")
          }))
          const upload = yield* Effect.withSpan(DynamicSupervisor.startChild(uploads, 1), "by upload")
          yield* TestClock.adjust("1 second")
          yield* Routine.await(task)
          yield* Routine.await(upload)
        })
      )
      const parents = recorder.ended.filter(({ name }) => name.startsWith("run ")).map(parentOf)
      assert.deepStrictEqual(parents, [recorder.one("by task").spanId, recorder.one("by upload").spanId])
    }))

  it.effect("makes nothing with the tracer that Effect has by default, unless it is asked to", () =>
    Effect.gen(function*() {
      const span = (options: Parameters<typeof Telemetry.layerWith>[0]) =>
        Effect.gen(function*() {
          const { traces } = yield* Telemetry
          const { kernel } = yield* Orchestrator
          const seen = yield* Deferred.make<Option.Option<Tracer.AnySpan>>()
          const job = Effect.flatMap(Effect.option(Effect.currentParentSpan), (span) => Deferred.succeed(seen, span))
          const { id } = yield* Effect.withSpan(
            Orchestrator.fork(Effect.andThen(job, Effect.never), { name: "job" }),
            "request"
          )
          const found = traces.spanOf(record(kernel, id))
          return [Option.getOrUndefined(yield* Deferred.await(seen)), found]
        }).pipe(Effect.provide(Layer.provideMerge(Telemetry.layerWith(options), Orchestrator.layer)))
      assert.deepStrictEqual(yield* span({}), [undefined, undefined])
      assert.deepStrictEqual(yield* span({ traces: false }), [undefined, undefined])
      const [inside, outside] = yield* span({ traces: { always: true } })
      assert.strictEqual(inside, outside)
      assert.strictEqual(inside?._tag === "Span" ? inside.name : undefined, "run job")
    }))

  it.effect("goes on without spans when a tracer throws, and says so once", () =>
    Effect.gen(function*() {
      const logged: Array<unknown> = []
      const tracer = Tracer.make({
        span() {
          throw new Error("no spans today")
        }
      })
      const layer = Layer.provideMerge(Telemetry.layer, Orchestrator.layer).pipe(
        Layer.provideMerge(Logger.layer([Logger.make(({ message }) => logged.push(message))]))
      )
      const exits = yield* Effect.gen(function*() {
        const group = Group.run((group) => Group.fork(group, Effect.succeed(1)))
        const routines = yield* Effect.replicateEffect(Orchestrator.fork(Effect.succeed(2)), 3)
        yield* group
        return yield* Effect.forEach(routines, Routine.await)
      }).pipe(Effect.provide(layer), Effect.withTracer(tracer))
      assert.deepStrictEqual(exits, [Exit.succeed(2), Exit.succeed(2), Exit.succeed(2)])
      assert.strictEqual(logged.length, 1)
      assert.include(String(logged[0]), "a tracer threw")
    }))

  it.effect("ends what is open when nobody looks any more", () =>
    Effect.gen(function*() {
      const recorder = yield* traced((recorder) =>
        Effect.gen(function*() {
          yield* Orchestrator.fork(Effect.never, { name: "endless" })
          assert.deepStrictEqual(recorder.open, ["run endless"])
        })
      )
      assert.deepStrictEqual(recorder.open, [])
    }))

  it.effect("leaves no span open, whenever a program is interrupted", () =>
    Effect.gen(function*() {
      const recorder = new Recorder()
      const program = Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 1 })
        const job = yield* Orchestrator.forkScoped(Effect.withSpan(Mailbox.receive(mailbox), "work"), { name: "job" })
        yield* Group.run((group) =>
          Effect.gen(function*() {
            yield* Group.fork(group, Effect.yieldNow)
            yield* Group.fork(group, Mailbox.send(mailbox, 1))
          })
        )
        yield* Routine.await(job)
      }).pipe(Effect.scoped, Effect.withSpan("all"))
      const layer = Layer.provideMerge(Telemetry.layer, Orchestrator.layer).pipe(
        Layer.provideMerge(Layer.succeed(Tracer.Tracer, recorder.tracer))
      )
      const tried = yield* Effect.provide(
        atEveryOperation(program, () =>
          Effect.gen(function*() {
            yield* Effect.yieldNow
            yield* Effect.yieldNow
            assert.deepStrictEqual(recorder.open, [])
          })),
        [layer, quiet]
      )
      assert.isAbove(tried, 20)
    }))

  it.effect("gives the exemplars of metrics and the exits of runs their trace", () =>
    Effect.gen(function*() {
      const recorder = yield* traced(() =>
        Effect.gen(function*() {
          const { collect } = yield* Telemetry
          const orchestrator = yield* Orchestrator
          const events: Array<unknown> = []
          yield* orchestrator.instrument((event) => event._tag === "Exited" && events.push(event.exit.traceId))
          const job = yield* Orchestrator.fork(new Oops({ message: "no" }), { name: "job" })
          yield* Routine.await(job)
          const duration = (yield* collect).find(({ metric }) => metric.name === "orchestra.routine.run.duration")
          const [series] = duration?.series.values() ?? []
          const exemplars = series?.exemplars.filter((exemplar) => exemplar !== undefined) ?? []
          const [ended] = yield* orchestrator.history
          const span = (yield* Routine.snapshot(job)).lastExit?.traceId
          assert.deepStrictEqual([ended?.lastExit?.traceId, ...events, exemplars[0]?.traceId], [span, span, span])
          assert.isString(span)
        })
      )
      const span = recorder.one("run job")
      assert.strictEqual(span.traceId.length, 32)
    }))

  it.effect("gives a restart the trace of the run that ended", () =>
    Effect.gen(function*() {
      const traces: Array<string | undefined> = []
      const recorder = yield* traced(() =>
        Effect.gen(function*() {
          let runs = 0
          const flaky = Effect.suspend(() => ++runs === 1 ? new Oops({ message: "no" }) : Effect.never)
          const children = [Child.make("flaky", flaky, { restart: "transient" })]
          yield* Supervisor.start(Supervisor.make({ name: "jobs", strategy: "one_for_one", children }))
          yield* TestClock.adjust("1 second")
          const meters = yield* Effect.flatMap(Telemetry, ({ collect }) => collect)
          for (const { metric, series } of meters) {
            if (metric.name !== "orchestra.routine.restarts") continue
            for (const { exemplars } of series.values()) traces.push(exemplars[0]?.spanId)
          }
        })
      )
      assert.deepStrictEqual(traces, [recorder.all("run flaky")[0]?.spanId])
    }))

  it.effect("points no exemplar at a span that is not sampled, or that the sampler may drop", () =>
    Effect.gen(function*() {
      const exemplars = Effect.fnUntraced(
        function*(tracer: Tracer.Tracer) {
          const { collect } = yield* Telemetry
          yield* Effect.gen(function*() {
            for (const effect of [Effect.void, new Oops({ message: "no" })]) {
              yield* Effect.flatMap(Orchestrator.fork(effect, { name: "job" }), Routine.await)
            }
            const slow = yield* Orchestrator.fork(Effect.sleep("10 seconds"), { name: "slow" })
            yield* TestClock.adjust("10 seconds")
            yield* Routine.await(slow)
            const child = Child.make("permanent", Effect.andThen(Effect.sleep("1 second"), new Oops({ message: "no" })))
            yield* Supervisor.start(Supervisor.make({ name: "sup", strategy: "one_for_one", children: [child] }))
            yield* TestClock.adjust("1 second")
          }).pipe(Effect.withTracer(tracer))
          const duration = (yield* collect).find(({ metric }) => metric.name === "orchestra.routine.run.duration")
          return Array.from(duration?.series.values() ?? [])
            .filter(({ exemplars }) => exemplars.some((exemplar) => exemplar !== undefined))
            .map(({ attributes }) => attributes.slice(0, 2).map(([, value]) => value).join(" "))
        },
        Effect.provide(Telemetry.layer.pipe(Layer.provideMerge(Orchestrator.layer), Layer.provideMerge(quiet))),
        Effect.scoped
      )

      const { tracer } = new Recorder()
      const all = ["job success", "job failure", "slow success", "permanent failure"]
      assert.deepStrictEqual(yield* exemplars(tracer), all)
      assert.deepStrictEqual(yield* exemplars(Sampler.make(tracer, { ratio: 0 })), ["job failure", "slow success"])
      const unsampled = Tracer.make({ span: (options) => tracer.span({ ...options, sampled: false }) })
      assert.deepStrictEqual(yield* exemplars(unsampled), [])
    }))

  it.effect("has its spans kept by a sampler when they fail", () =>
    Effect.gen(function*() {
      const recorder = new Recorder()
      const layer = Layer.provideMerge(Telemetry.layer, Orchestrator.layer).pipe(Layer.provideMerge(quiet))
      yield* Effect.gen(function*() {
        for (const effect of [Effect.void, new Oops({ message: "no" })]) {
          yield* Effect.exit(Effect.flatMap(
            Orchestrator.fork(Effect.andThen(Effect.withSpan(Effect.void, "query"), effect), { name: "job" }),
            Routine.await
          ))
        }
      }).pipe(Effect.provide(layer), Effect.withTracer(Sampler.make(recorder.tracer, { ratio: 0 })))
      assert.deepStrictEqual(recorder.ended.map(({ name }) => name), ["query", "run job"])
      assert.strictEqual(attribute(recorder.one("run job"), "error.type"), "Oops")
    }))

  it.effect("gives messages spans where they are asked for, that of the handler linked to that of the sender", () =>
    Effect.gen(function*() {
      const recorder = yield* traced(() =>
        Effect.gen(function*() {
          const orders = yield* Mailbox.make<number>({ name: "orders", capacity: 1 })
          const others = yield* Mailbox.make<number>({ name: "others", capacity: 2 })
          yield* Effect.withSpan(Mailbox.send(orders, 1), "request")
          yield* Effect.forkChild(Mailbox.send(orders, 2), { startImmediately: true })
          yield* Mailbox.send(others, 3)
          yield* TestClock.adjust("1 second")
          let tries = 0
          const handler = (order: number) =>
            Effect.withSpan(order === 1 && ++tries === 1 ? Effect.fail("once") : Effect.void, `handled ${order}`)
          for (let n = 0; n < 3; n++) yield* Mailbox.receiveWith(orders, handler)
          yield* Mailbox.receiveWith(others, Effect.succeed)
          assert.strictEqual(orders.stats.bytes, 0)
        }), { traces: { messages: ["orders"] } })
      const [first, second] = recorder.all("send orders")
      assert(first !== undefined && second !== undefined)
      assert.strictEqual(parentOf(first), recorder.one("request").spanId)
      assert.deepStrictEqual([...first.attributes], [
        ["messaging.system", "effect_orchestra"],
        ["messaging.destination.name", "orders"],
        ["messaging.operation.name", "send"],
        ["messaging.operation.type", "send"]
      ])
      assert.strictEqual(second.over.endTime - second.over.startTime, 1_000_000_000n)
      const processed = recorder.all("process orders")
      assert.deepStrictEqual(processed.map(linksOf), [
        [["sender", first.spanId]],
        [["sender", first.spanId]],
        [["sender", second.spanId]]
      ])
      assert.deepStrictEqual([first.kind, processed[0]?.kind], ["producer", "consumer"])
      assert.isTrue(Exit.isFailure(processed[0]?.over.exit ?? Exit.void))
      assert.strictEqual(parentOf(recorder.one("handled 2")), processed[2]?.spanId)
      assert.deepStrictEqual(recorder.ended.filter(({ name }) => name.endsWith("others")), [])
    }))

  it.effect("does the same for a topic, and says how many subscribers were reached", () =>
    Effect.gen(function*() {
      const Orders = Topic.make("orders", Schema.Int)
      const recorder = yield* traced(() =>
        Effect.gen(function*() {
          let tries = 0
          const handler = () => Effect.suspend(() => ++tries === 1 ? Effect.fail("once") : Effect.void)
          const retry = { schedule: Schedule.recurs(1) }
          yield* Bus.react(Orders, { group: "mail", handler, retry: retry.schedule })
          yield* Bus.react(Orders, { group: "stock", handler: () => Effect.void })
          yield* Bus.publish(Orders, 1)
          yield* TestClock.adjust("5 seconds")
        }).pipe(Effect.provide(Bus.layer)), { traces: { messages: true } })
      const publish = recorder.one("publish orders")
      assert.strictEqual(attribute(publish, "orchestra.bus.fan_out"), 2)
      const processed = recorder.all("process orders")
      assert.strictEqual(processed.length, 3)
      for (const span of processed) assert.deepStrictEqual(linksOf(span), [["sender", publish.spanId]])
    }))

  it.effect("is exported by the SDK of OpenTelemetry: parents, links, status, and nothing that is not kept", () =>
    Effect.gen(function*() {
      const exporter = new InMemorySpanExporter()
      const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
      const otel = yield* Effect.provideService(OtelTracer.make, OtelTracer.OtelTracer, provider.getTracer("test"))
      let runs = 0
      const flaky = Effect.suspend(() =>
        Effect.withSpan(++runs === 1 ? new Oops({ message: "no" }) : Effect.void, "query")
      )
      yield* Effect.gen(function*() {
        yield* Effect.withSpan(
          Effect.flatMap(Orchestrator.fork(Effect.void, { name: "fine" }), Routine.await),
          "request"
        )
        yield* Supervisor.start(Supervisor.make({
          name: "jobs",
          strategy: "one_for_one",
          children: [Child.make("flaky", flaky, { restart: "transient" })]
        }))
        yield* Routine.stop(
          yield* Orchestrator.fork(Effect.never, { name: "slow" }).pipe(
            Effect.tap(TestClock.adjust("10 seconds"))
          )
        )
      }).pipe(
        Effect.scoped,
        Effect.provide([Layer.provideMerge(Telemetry.layer, Orchestrator.layer), quiet]),
        Effect.withTracer(Sampler.make(otel, { ratio: 0 }))
      )
      const spans = exporter.getFinishedSpans()
      assert.deepStrictEqual(spans.map(({ name, status }) => [name, status.code]), [
        ["query", SpanStatusCode.ERROR],
        ["run flaky", SpanStatusCode.ERROR],
        ["run slow", SpanStatusCode.UNSET]
      ])
      const [query, flakyRun] = spans
      assert.strictEqual(query?.parentSpanContext?.spanId, flakyRun?.spanContext().spanId)
      assert.strictEqual(query?.spanContext().traceId, flakyRun?.spanContext().traceId)
      assert.deepInclude(flakyRun?.attributes, { "error.type": "Oops", "orchestra.routine.attempt": 1 })
      assert.deepStrictEqual(flakyRun?.events.map(({ name }) => name), ["exception"])
    }))

  it.effect("ends the span of a run beside which the next was started, when that has ended", () =>
    Effect.gen(function*() {
      let runs = 0
      const deaf = Effect.suspend(() =>
        ++runs === 1 ? Effect.uninterruptible(Effect.sleep("100 seconds")) : Effect.never
      )
      const recorder = yield* traced((recorder) =>
        Effect.gen(function*() {
          yield* Supervisor.start(Supervisor.make({
            name: "jobs",
            strategy: "one_for_one",
            children: [
              Child.make("deaf", deaf, {
                restart: "transient",
                idleTimeout: "10 seconds",
                shutdown: "1 second",
                onUnstoppable: "replace"
              })
            ]
          }))
          yield* TestClock.adjust("20 seconds")
          assert.isAbove(runs, 1)
          const first = recorder.started.find(({ name }) => name === "run deaf")
          assert.include(recorder.open, "run deaf")
          assert.strictEqual(first?.status._tag, "Started")
          yield* TestClock.adjust("90 seconds")
          assert.strictEqual(first?.status._tag, "Ended")
        })
      )
      assert.deepStrictEqual(recorder.open, [])
    }))
})

/** The record of a live routine. */
const record = (kernel: Kernel, id: string): RoutineRecord => {
  const node = kernel.node(id)
  assert(node instanceof RoutineRecord)
  return node
}
