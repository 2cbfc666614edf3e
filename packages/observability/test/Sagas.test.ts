import { Orchestrator } from "@effect-orchestra/core"
import { Api, EventLog, MetricTable, Telemetry } from "@effect-orchestra/observability"
import type { Metric } from "@effect-orchestra/observability/MetricTable"
import { Saga } from "@effect-orchestra/workflow"
import { assert, describe, it } from "@effect/vitest"
import { Data, Effect, Fiber, Layer, Logger, References, Schedule } from "effect"
import { TestClock } from "effect/testing"

class NoCard extends Data.TaggedError("NoCard")<{}> {}

const layer = EventLog.layer.pipe(
  Layer.provideMerge(Telemetry.layer),
  Layer.provideMerge(Orchestrator.layerWith({ name: "app" }))
)

/** Reserves, then charges; `undo` takes the reservation back. */
const order = (charge: Effect.Effect<unknown, NoCard>, undo: Effect.Effect<void, string> = Effect.void) =>
  Saga.outcome(
    Effect.andThen(
      Saga.step("reserve", { run: Effect.sleep("2 seconds"), compensate: () => undo }),
      Saga.step("charge", { run: charge, compensate: Saga.irreversible })
    ),
    { name: "order", compensationRetry: Schedule.spaced("1 second").pipe(Schedule.upTo({ times: 2 })) }
  )

const seriesOf = Effect.fnUntraced(function*(metric: Metric) {
  const meters = yield* Effect.flatMap(Telemetry, ({ collect }) => collect)
  const meter = meters.find(({ metric: { name } }) => name === metric.name) ?? assert.fail(metric.name)
  return [...meter.series.values()].map(({ attributes, buckets, value }) => [
    attributes.map(([name, value]) => `${name.replace("orchestra.", "")}=${value}`).join(" "),
    metric.kind === "histogram" ? buckets.reduce((sum, count) => sum + count, 0) : value
  ])
})

const lints = Effect.map(Api.overview, ({ lints }) => lints.map(({ path, rule, text }) => `${rule} ${path} ${text}`))

describe("sagas", () => {
  it.effect("are counted while they run, and by how they and their steps ended", () =>
    Effect.gen(function*() {
      const good = yield* Effect.forkChild(order(Effect.never), { startImmediately: true })
      const bad = yield* Effect.forkChild(order(new NoCard()), { startImmediately: true })
      assert.deepStrictEqual(yield* seriesOf(MetricTable.sagaActive), [["saga.name=order", 2]])
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(bad)
      assert.deepStrictEqual(yield* seriesOf(MetricTable.sagaActive), [["saga.name=order", 1]])
      yield* Fiber.interrupt(good)
      yield* order(Effect.void, Effect.void).pipe(
        Effect.forkChild,
        Effect.tap(TestClock.adjust("2 seconds")),
        Effect.flatMap(Fiber.join)
      )
      assert.sameDeepMembers(yield* seriesOf(MetricTable.sagaDuration), [
        ["saga.name=order outcome=compensated", 2],
        ["saga.name=order outcome=completed", 1]
      ])
      assert.sameDeepMembers(yield* seriesOf(MetricTable.sagaStepDuration), [
        ["saga.name=order saga.step.name=reserve saga.step.direction=forward", 3],
        ["saga.name=order saga.step.name=charge saga.step.direction=forward error.type=NoCard", 1],
        ["saga.name=order saga.step.name=charge saga.step.direction=forward", 2],
        ["saga.name=order saga.step.name=reserve saga.step.direction=compensate", 2]
      ])
      assert.deepStrictEqual(yield* seriesOf(MetricTable.sagaCompensationFailures), [])
    }).pipe(Effect.provide(layer)))

  it.effect("are a finding as soon as a step cannot be undone, while others still are", () =>
    Effect.gen(function*() {
      const undo = (effect: Effect.Effect<void, string>) => ({ run: Effect.void, compensate: () => effect })
      const body = Effect.gen(function*() {
        yield* Saga.step("flight", undo(Effect.sleep("10 seconds")))
        yield* Saga.step("hotel", undo(Effect.fail("closed")))
        return yield* Effect.fail("no car")
      })
      const trip = Saga.outcome(body, { name: "trip", compensationRetry: Schedule.recurs(0) })
      yield* Effect.forkChild(trip, { startImmediately: true })
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(yield* lints, ["saga_stuck /app/trip cannot undo hotel"])
      const { items: [row] } = yield* Api.sagas({})
      assert.deepInclude(row, { health: "stuck", direction: "compensate", problem: "cannot undo hotel" })
      // An undo is not interrupted: it ends.
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual((yield* Api.sagas({})).items, [])
    }).pipe(Effect.provide(layer)))

  it.effect("are listed with their steps", () =>
    Effect.gen(function*() {
      yield* Effect.forkChild(order(Effect.never), { startImmediately: true })
      const { items: [row] } = yield* Api.sagas({})
      assert.deepInclude(row, { kind: "saga", path: "/app/order", direction: "forward", pivot: null, problem: null })
      assert.deepStrictEqual(row?.steps, [{ name: "reserve", state: "running", attempt: 1 }])
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual((yield* Api.sagas({ q: "order" })).items[0]?.steps, [
        { name: "reserve", state: "done", attempt: 1 },
        { name: "charge", state: "running", attempt: 1 }
      ])
      assert.deepStrictEqual((yield* Api.sagas({ q: "stock" })).items, [])
    }).pipe(Effect.provide(layer)))

  it.effect("that cannot be undone are an error: a count, a line, an event, a finding for a quarter of an hour", () =>
    Effect.gen(function*() {
      const lines: Array<string> = []
      const logger = Logger.make(({ fiber, logLevel, message }) => {
        const event = fiber.getRef(References.CurrentLogAnnotations)["orchestra.event"]
        if (event === "saga.stuck") lines.push(`${logLevel} ${Array.isArray(message) ? message.join(" ") : message}`)
      })
      yield* Effect.gen(function*() {
        const log = yield* EventLog
        const stuck = yield* Effect.forkChild(order(new NoCard(), Effect.fail("no stock")), { startImmediately: true })
        yield* TestClock.adjust("3 seconds")
        assert.deepStrictEqual(yield* lints, [])
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(stuck))._tag, "Stuck")
        yield* TestClock.adjust("2 seconds")
        // One compensation that gave up, after three tries.
        assert.deepStrictEqual(yield* seriesOf(MetricTable.sagaCompensationFailures), [
          ["saga.name=order saga.step.name=reserve", 1]
        ])
        assert.deepStrictEqual(yield* lints, ["saga_stuck /app/order cannot undo reserve"])
        assert.deepStrictEqual(
          log.all().filter(({ level }) => level !== "debug").map(({ event, level }) => `${level} ${event._tag}`),
          ["warn SagaStepEnded", "warn SagaStepEnded", "warn SagaStepEnded", "warn SagaStepEnded", "error SagaEnded"]
        )
        yield* TestClock.adjust("16 minutes")
        assert.deepStrictEqual(yield* lints, [])
      }).pipe(Effect.provide(Layer.provideMerge(layer, Logger.layer([logger]))))
      assert.deepStrictEqual(lines, ["Error /app/order is stuck: what reserve did could not be undone"])
    }))
})
