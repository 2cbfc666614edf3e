import { Orchestrator } from "@effect-orchestra/core"
import { assertNoLeaks, TestOrchestra } from "@effect-orchestra/core/testing"
import { Saga } from "@effect-orchestra/workflow"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Random, Schedule } from "effect"
import { type SagaSpec, type StepSpec, tries, World } from "./model/Saga.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

const chance = (percent: number) => Effect.map(Random.nextIntBetween(0, 100, { halfOpen: true }), (n) => n < percent)

const pick = <const A>(...of: ReadonlyArray<A>) =>
  Effect.map(Random.nextIntBetween(0, of.length, { halfOpen: true }), (n) => of[n] as A)

let names = 0

const aStep = Effect.gen(function*() {
  const fails = yield* chance(12)
  const step: StepSpec = {
    kind: "step",
    name: `s${++names}`,
    register: yield* pick("after", "before"),
    irreversible: yield* chance(15),
    pivot: yield* chance(8),
    group: yield* pick("g", "h", undefined),
    failures: fails ? tries : yield* pick(0, 0, 0, 1, 2),
    dies: yield* chance(3),
    undoFailures: yield* pick(0, 0, 0, 0, 1, 2, tries)
  }
  return step
})

const aSaga = (depth: number): Effect.Effect<SagaSpec> =>
  Effect.gen(function*() {
    const items = yield* Effect.forEach(
      Array.from({ length: yield* Random.nextIntBetween(0, 6, { halfOpen: true }) }),
      () =>
        Effect.flatMap(chance(depth === 0 ? 0 : 30), (nested): Effect.Effect<StepSpec | SagaSpec> =>
          nested ? aSaga(depth - 1) : aStep)
    )
    return {
      kind: "saga",
      name: `n${++names}`,
      order: yield* pick("reverse", "reverse", "parallel", "grouped"),
      onStuck: yield* pick("continue", "halt"),
      caught: yield* chance(30),
      items
    }
  })

/** The saga itself; it notes what it does to the world. */
const program = (saga: SagaSpec, done: Map<string, number>): Effect.Effect<Saga.Outcome<void, string>> => {
  const body = Effect.forEach(saga.items, (item): Effect.Effect<unknown, string, Saga.Journal> => {
    if (item.kind === "saga") {
      return Effect.flatMap(
        program(item, done),
        (outcome) => outcome._tag === "Completed" || item.caught ? Effect.void : Effect.fail(`${item.name} failed`)
      )
    }
    const { dies, failures, group, irreversible, name, pivot, register, undoFailures } = item
    let attempts = 0
    let undos = 0
    return Saga.step(name, {
      run: Effect.suspend(() => {
        if (dies) return Effect.die(name)
        if (++attempts <= failures) return Effect.fail(name)
        done.set(name, 1)
        return Effect.void
      }),
      // Both ways to register take an undo that does not look at the result.
      register: register as "after",
      compensate: irreversible ? Saga.irreversible : () =>
        Effect.suspend(() => {
          if (++undos <= undoFailures) return Effect.fail(name)
          done.set(name, (done.get(name) ?? 0) - 1)
          return Effect.void
        }),
      retry: Schedule.recurs(tries - 1),
      pivot,
      group
    })
  }, { discard: true })
  const { name, onStuck, order } = saga
  return Saga.outcome(body, { name, onStuck, order, compensationRetry: Schedule.recurs(tries - 1) })
}

const run = Effect.fnUntraced(function*(spec: SagaSpec) {
  const told: Array<string> = []
  yield* Orchestrator.instrument((event) => {
    if (event._tag === "SagaStarted") told.push(`${event.name} begins`)
    if (event._tag === "SagaStepStarted") {
      told.push(`${event.name}: ${event.step} ${event.direction} ${event.attempt}`)
    }
    if (event._tag === "SagaStepEnded") {
      told.push(`${event.name}: ${event.step} ${event.direction} ${event.attempt} ${event.outcome}`)
    }
    if (event._tag === "SagaEnded") {
      told.push(`${event.name} ends ${event.outcome.charAt(0).toUpperCase()}${event.outcome.slice(1)}`)
    }
  })
  const done = new Map<string, number>()
  const outcome = yield* program(spec, done)
  yield* assertNoLeaks()
  return { outcome, told, done }
}, Effect.scoped)

describe("Saga and its model", () => {
  it.effect("any tree of steps and sagas ends, undoes and tells as the naive model says", () =>
    Effect.gen(function*() {
      const endings = new Set<string>()
      for (let seed = 0; seed < seeds; seed++) {
        names = 0
        const spec = yield* Random.withSeed(aSaga(2), `saga ${seed}`)
        const world = new World()
        const expected = world.run(spec)
        const { done, outcome, told } = yield* run(spec)
        const context = () => `seed ${seed}: ${JSON.stringify(spec, undefined, 1)}`
        assert.strictEqual(outcome._tag, expected.outcome, context())
        endings.add(outcome._tag)
        assert.deepStrictEqual(told.toSorted(), world.told.map(({ event }) => event).toSorted(), context())
        const ranks = new Map(world.told.map(({ event, rank }) => [event, rank]))
        const order = told.map((event) => ranks.get(event) ?? NaN)
        assert.deepStrictEqual(order, order.toSorted((a, b) => a - b), context())
        assert.deepStrictEqual([...done].toSorted(), [...world.done].toSorted(), context())
        const same = (actual: ReadonlyArray<string>, wanted: ReadonlyArray<string>) =>
          assert.deepStrictEqual(actual.toSorted(), wanted.toSorted(), context())
        if (outcome._tag === "Compensated") same(outcome.undone, expected.undone)
        if (outcome._tag === "Committed") assert.strictEqual(outcome.pivot, expected.pivot, context())
        if (outcome._tag === "Stuck") {
          same(outcome.undone, expected.undone)
          same(outcome.stuck.map(({ step }) => step), expected.stuck)
          same(outcome.notRun, expected.notRun)
        }
      }
      assert.strictEqual(endings.size, 4)
    }).pipe(Effect.provide(TestOrchestra.layer)), 60_000)
})
