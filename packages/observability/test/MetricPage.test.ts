import { Bus, Group, Mailbox, Orchestrator, Routine, Subscription, Topic } from "@effect-orchestra/core"
import { type Meter, MetricTable, Prometheus, Telemetry } from "@effect-orchestra/observability"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { Saga } from "@effect-orchestra/workflow"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, Schedule, Schema } from "effect"
import { TestClock } from "effect/testing"

/**
 * The page of the specification, one line a metric: name, kind and unit, attributes with their closed values, name in
 * Prometheus. Renaming one breaks dashboards and alerts: change a line only with a reason.
 */
const page = `
orchestra.routine.active | gauge {routine} | orchestra.routine.name, orchestra.routine.state = pending starting running backoff stopping | orchestra_routine_active
orchestra.routine.starts | counter {start} | orchestra.routine.name | orchestra_routine_starts_total
orchestra.routine.run.duration | histogram s | orchestra.routine.name, orchestra.exit.reason = success failure defect interrupted idle_timeout abandoned, error.type | orchestra_routine_run_duration_seconds
orchestra.routine.restarts | counter {restart} | orchestra.routine.name, orchestra.supervisor.name, orchestra.restart.reason = success failure defect interrupted idle_timeout abandoned sibling | orchestra_routine_restarts_total
orchestra.routine.restart.delay | histogram s | orchestra.routine.name | orchestra_routine_restart_delay_seconds
orchestra.routine.heartbeat.age.max | gauge s | orchestra.routine.name | orchestra_routine_heartbeat_age_max_seconds
orchestra.routine.cpu.time (opt) | counter s | orchestra.routine.name | orchestra_routine_cpu_time_seconds_total
orchestra.routine.slice.duration (opt) | histogram s | orchestra.routine.name | orchestra_routine_slice_duration_seconds
orchestra.supervisor.decisions | counter {decision} | orchestra.supervisor.name, orchestra.supervisor.decision = restart restart_group stop ignore remove quarantine escalate give_up auto_shutdown terminate_tree | orchestra_supervisor_decisions_total
orchestra.supervisor.restart.budget.utilization | gauge 1 | orchestra.supervisor.name | orchestra_supervisor_restart_budget_utilization_ratio
orchestra.mailbox.usage | gauge {message} | orchestra.mailbox.name | orchestra_mailbox_usage
orchestra.mailbox.limit | gauge {message} | orchestra.mailbox.name | orchestra_mailbox_limit
orchestra.mailbox.utilization.max | gauge 1 | orchestra.mailbox.name | orchestra_mailbox_utilization_max_ratio
orchestra.mailbox.message.age.max | gauge s | orchestra.mailbox.name | orchestra_mailbox_message_age_max_seconds
orchestra.mailbox.sent.messages | counter {message} | orchestra.mailbox.name, orchestra.mailbox.outcome = accepted dropped rejected closed | orchestra_mailbox_sent_messages_total
orchestra.mailbox.received.messages | counter {message} | orchestra.mailbox.name | orchestra_mailbox_received_messages_total
orchestra.mailbox.wait.duration | histogram s | orchestra.mailbox.name, orchestra.mailbox.operation = send receive | orchestra_mailbox_wait_duration_seconds
orchestra.bus.published.messages | counter {message} | orchestra.bus.topic | orchestra_bus_published_messages_total
orchestra.bus.delivered.messages | counter {message} | orchestra.bus.topic, orchestra.bus.outcome = accepted dropped undelivered | orchestra_bus_delivered_messages_total
orchestra.bus.subscription.active | gauge {subscription} | orchestra.bus.topic | orchestra_bus_subscription_active
orchestra.bus.subscription.lag.max | gauge {message} | orchestra.bus.topic | orchestra_bus_subscription_lag_max
orchestra.group.wait.duration | histogram s | orchestra.group.name, orchestra.outcome = success failure defect interrupted, error.type | orchestra_group_wait_duration_seconds
orchestra.group.task.active | gauge {task} | orchestra.group.name | orchestra_group_task_active
orchestra.saga.duration | histogram s | orchestra.saga.name, orchestra.outcome = completed compensated stuck committed | orchestra_saga_duration_seconds
orchestra.saga.active | gauge {saga} | orchestra.saga.name | orchestra_saga_active
orchestra.saga.step.duration | histogram s | orchestra.saga.name, orchestra.saga.step.name, orchestra.saga.step.direction = forward compensate, error.type | orchestra_saga_step_duration_seconds
orchestra.saga.compensation.failures | counter {failure} | orchestra.saga.name, orchestra.saga.step.name | orchestra_saga_compensation_failures_total
orchestra.shutdown.duration | histogram s | orchestra.shutdown.phase = ask interrupt abandon | orchestra_shutdown_duration_seconds
orchestra.shutdown.remaining | gauge {routine} | orchestra.shutdown.phase = ask interrupt abandon | orchestra_shutdown_remaining
orchestra.telemetry.dropped.items | counter {item} | orchestra.telemetry.signal = event log metric span stream | orchestra_telemetry_dropped_items_total
orchestra.telemetry.series | gauge {series} | | orchestra_telemetry_series
orchestra.http.stream.active | gauge {stream} | | orchestra_http_stream_active
`.trim().split("\n")

/** A line of the page, read. */
const read = (line: string) => {
  const [named = "", kindAndUnit = "", attributes = "", prometheus = ""] = line.split("|").map((cell) => cell.trim())
  const [kind, unit] = kindAndUnit.split(" ")
  const given = attributes === "" ? [] : attributes.split(", ").map((each) => each.split(" = "))
  return {
    name: named.replace(" (opt)", ""),
    optIn: named.endsWith(" (opt)"),
    kind,
    unit,
    attributes: given.map(([name]) => name),
    values: Object.fromEntries(
      given.flatMap(([name, values]) => values === undefined ? [] : [[name, values.split(" ")]])
    ),
    prometheus
  }
}

const rows = page.map(read)

/** What has no values: metering is a part of its own. */
const withoutValues = (name: string) => /\.(cpu\.time|slice\.duration)$/.test(name)

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })
const stubborn = Effect.uninterruptible(Effect.sleep("1 hour"))
const Ticks = Topic.make("Ticks", Schema.Int, { capacity: 1 })
const News = Topic.make("News", Schema.Int, { capacity: 1, overflow: "drop_old" })

/** A program in which everything happens that is counted. */
const everything = Effect.gen(function*() {
  yield* Orchestrator.fork(Effect.void, { name: "succeeds" })
  yield* Effect.exit(Effect.flatMap(Orchestrator.fork(Effect.fail("no"), { name: "fails" }), Routine.await))
  yield* Effect.exit(Effect.flatMap(Orchestrator.fork(Effect.die("oh"), { name: "dies" }), Routine.await))
  yield* Effect.flatMap(Orchestrator.fork(Effect.never, { name: "stopped" }), Routine.stop)
  const idle = yield* Orchestrator.fork(Effect.never, { name: "idle", idleTimeout: "1 second" })
  yield* TestClock.adjust("1 second")
  yield* Routine.await(idle)
  const late = yield* Orchestrator.fork(stubborn, { name: "late" })
  yield* fork(Routine.stop(late))
  yield* TestClock.adjust("2 hours")
  yield* Orchestrator.fork(Effect.andThen(Routine.beat, Effect.never), { name: "beats" })

  let runs = 0
  yield* Supervisor.start(Supervisor.make({
    name: "top",
    strategy: "one_for_one",
    intensity: 5,
    period: "1 minute",
    children: [
      Child.make("child", Effect.suspend(() => ++runs < 3 ? Effect.fail("again") : Effect.never), {
        backoff: Schedule.spaced("1 second")
      })
    ]
  }))
  yield* TestClock.adjust("10 seconds")

  yield* Effect.scoped(Effect.gen(function*() {
    const mailbox = yield* Mailbox.make<number>({ name: "fails", capacity: 1, overflow: "fail" })
    yield* Mailbox.send(mailbox, 1)
    yield* Effect.exit(Mailbox.send(mailbox, 2))
    yield* Mailbox.receive(mailbox)
    yield* Mailbox.end(mailbox)
    yield* Effect.exit(Mailbox.send(mailbox, 3))
    const dropping = yield* Mailbox.make<number>({ name: "drops", capacity: 1, overflow: "drop_new" })
    yield* Mailbox.sendAll(dropping, [1, 2])
  }))
  const waiting = yield* Mailbox.make<number>({ name: "waits", capacity: 1 })
  yield* Mailbox.send(waiting, 1)
  yield* fork(Mailbox.send(waiting, 2))
  yield* TestClock.adjust("1 second")
  yield* Mailbox.receive(waiting)
  yield* Mailbox.receive(waiting)
  const receiver = yield* fork(Mailbox.receive(waiting))
  yield* Fiber.interrupt(receiver)
  yield* Mailbox.send(waiting, 3)
  yield* TestClock.adjust("7 seconds")

  yield* Effect.scoped(Effect.gen(function*() {
    yield* Bus.subscribe(Ticks)
    yield* Bus.publish(Ticks, 1)
  }))
  const ticks = yield* Bus.subscribe(Ticks)
  yield* Bus.subscribe(News)
  for (const n of [1, 2]) yield* Bus.publish(News, n)
  yield* Bus.publish(Ticks, 1)
  yield* Subscription.receive(ticks)
  yield* Bus.publish(Ticks, 2)

  const ending = <A, E>(task: Effect.Effect<A, E>) =>
    Effect.exit(Group.run((group) => Group.fork(group, task), { name: "batch" }))
  yield* ending(Effect.void)
  yield* ending(Effect.fail("no"))
  yield* ending(Effect.die("oh"))
  yield* Fiber.interrupt(yield* fork(ending(Effect.never)))
  yield* fork(ending(Effect.never))

  const saga = (
    last: Effect.Effect<unknown, string>,
    options: { readonly undo?: Effect.Effect<void, string>; readonly pivot?: boolean } = {}
  ) =>
    Saga.outcome(
      Effect.andThen(
        Saga.step("reserve", { run: Effect.void, compensate: () => options.undo ?? Effect.void, pivot: options.pivot }),
        Saga.step("charge", { run: last, compensate: Saga.irreversible })
      ),
      { name: "order", compensationRetry: Schedule.recurs(0) }
    )
  yield* saga(Effect.void)
  yield* saga(Effect.fail("no"))
  yield* saga(Effect.fail("no"), { pivot: true })
  yield* saga(Effect.fail("no"), { undo: Effect.fail("broken") })
  yield* fork(saga(Effect.never))

  yield* Orchestrator.fork(Effect.never, { name: "drains", drain: Effect.sleep("1 second") })
  yield* Orchestrator.fork(stubborn, { name: "stubborn" })
  const { dropped, streaming } = yield* Telemetry
  for (const signal of ["event", "log", "metric", "span", "stream"] as const) dropped(signal, 2)
  streaming(1)
  streaming(1)
  streaming(-1)
})

const stopping = Effect.gen(function*() {
  const { interruptAll } = yield* Orchestrator
  yield* fork(interruptAll())
  yield* TestClock.adjust("30 seconds")
})

const layer = Layer.mergeAll(Telemetry.layerWith({ receiveWaits: true }), Bus.layer).pipe(
  Layer.provideMerge(Orchestrator.layer)
)

const found = (meters: ReadonlyArray<Meter.Meter>, name: string) => {
  const meter = meters.find(({ metric }) => metric.name === name)
  assert(meter !== undefined, name)
  return meter
}

const valuesOf = ({ series }: Meter.Meter, attribute: string) =>
  new Set(
    [...series.values()].flatMap(({ attributes }) =>
      attributes.flatMap(([name, value]) => name === attribute ? [value] : [])
    )
  )

describe("the page of metrics", () => {
  it.each(rows)("$name is in the table as the page says", ({ prometheus, values, ...row }) => {
    const metric = MetricTable.orchestra.find(({ name }) => name === row.name)
    assert(metric !== undefined)
    const { attributes, kind, name, optIn = false, unit } = metric
    assert.deepStrictEqual({ name, kind, unit, attributes: [...attributes], optIn }, row)
    assert.strictEqual(MetricTable.prometheusName(metric), prometheus)
    assert.deepStrictEqual({ ...metric.values }, values)
  })

  it("has a line for each metric of the table, in its order", () => {
    assert.deepStrictEqual(MetricTable.orchestra.map(({ name }) => name), rows.map(({ name }) => name))
  })

  it.effect("is what a running program emits, each line with values and nothing beside them", () =>
    Effect.gen(function*() {
      yield* everything
      const { collect, resource } = yield* Telemetry
      const before = yield* collect
      const depth = found(before, "orchestra.mailbox.usage").series
      assert.isAbove(depth.size, 0)
      // What is gone when everything has stopped is looked at first.
      const live = new Map(before.map((meter) => [meter.metric.name, meter]))
      yield* stopping
      const after = yield* collect
      const text = yield* Prometheus.render([...live.values(), ...after], resource)
      for (const row of rows) {
        const meters = [found(before, row.name), found(after, row.name)]
        const all = meters.flatMap(({ series }) => [...series.values()])
        assert.strictEqual(all.length > 0, !withoutValues(row.name), row.name)
        for (const { attributes } of all) {
          for (const [name, value] of attributes) {
            assert.include(row.attributes, name)
            const closed = row.values[name]
            if (closed !== undefined) assert.include(closed, value, `${row.name} ${name}`)
          }
        }
        if (all.length === 0) continue
        const sample = row.kind === "histogram" ? `${row.prometheus}_bucket{` : row.prometheus
        assert.isTrue(text.split("\n").some((line) => line.startsWith(sample)), sample)
      }
      // Where a program can make every one of the closed values, this one has.
      for (
        const [name, attribute] of [
          ["orchestra.routine.active", "orchestra.routine.state"],
          ["orchestra.routine.run.duration", "orchestra.exit.reason"],
          ["orchestra.mailbox.sent.messages", "orchestra.mailbox.outcome"],
          ["orchestra.mailbox.wait.duration", "orchestra.mailbox.operation"],
          ["orchestra.bus.delivered.messages", "orchestra.bus.outcome"],
          ["orchestra.group.wait.duration", "orchestra.outcome"],
          ["orchestra.saga.duration", "orchestra.outcome"],
          ["orchestra.saga.step.duration", "orchestra.saga.step.direction"],
          ["orchestra.shutdown.duration", "orchestra.shutdown.phase"],
          ["orchestra.telemetry.dropped.items", "orchestra.telemetry.signal"]
        ] as const
      ) {
        const closed = rows.find((row) => row.name === name)?.values[attribute]
        assert.sameMembers([...valuesOf(found(after, name), attribute)], closed ?? [], name)
      }
    }).pipe(Effect.scoped, Effect.provide([layer, Logger.layer([])])))
})
