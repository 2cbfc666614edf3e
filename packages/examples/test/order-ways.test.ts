/**
 * One order, either way, in a shop without processes.
 */
import { Bus, type Topic } from "@effect-orchestra/core"
import { atEveryOperation, TestOrchestra } from "@effect-orchestra/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import * as Choreography from "../src/order-saga/Choreography.ts"
import * as OrderSaga from "../src/order-saga/OrderSaga.ts"
import type { Outcome } from "../src/order-saga/Outcome.ts"
import * as ShopWorld from "./ShopWorld.ts"

const { order } = ShopWorld

const seeds = Number(process.env["SEEDS"] ?? 100)

interface Placing {
  readonly onMessage?: (message: Topic.Envelope<unknown>) => Effect.Effect<void>
  readonly placed?: typeof order
  readonly seed?: number
}
type Way = (world: ShopWorld.World, options?: Placing) => Effect.Effect<Outcome | undefined>

/** Places the order in virtual time, and answers what became of it. */
const choreography: Way = ({ shop }, { onMessage = () => Effect.void, placed = order, seed = 0 } = {}) => {
  const outcomes: Array<Outcome> = []
  const program = Effect.gen(function*() {
    const place = yield* Choreography.make({ concurrency: 4, patience: "20 seconds", onMessage })
    yield* place(placed, (outcome) => Effect.sync(() => outcomes.push(outcome)))
    yield* Effect.sleep(ShopWorld.late)
    assert.lengthOf(outcomes, 1)
    return outcomes[0]
  }).pipe(Effect.scoped, Effect.provide([shop, Bus.layer]), Effect.orDie)
  return TestOrchestra.run(program, { seed })
}

const place = OrderSaga.make({ patience: "20 seconds" })

const saga: Way = ({ shop }, { placed = order, seed = 0 } = {}) => {
  const outcomes: Array<Outcome> = []
  const program = Effect.gen(function*() {
    yield* place(placed, (outcome) => Effect.sync(() => outcomes.push(outcome)))
    yield* Effect.sleep(ShopWorld.late)
    assert.lengthOf(outcomes, 1)
    return outcomes[0]
  })
  return TestOrchestra.run(Effect.provide(program, shop), { seed })
}

/** What the order holds in the end, in cents and units, by how it ended. */
const complete = [2, 8000, 2]
const nothing = [0, 0, 0]

describe("an order as choreography", () => {
  it.effect("is reserved, charged and shipped, each because of the one before", () =>
    Effect.gen(function*() {
      const world = yield* ShopWorld.make
      const messages: Array<Topic.Envelope<unknown>> = []
      const outcome = yield* choreography(world, {
        onMessage: (message) => Effect.sync(() => messages.push(message))
      })
      assert.strictEqual(outcome?.ending, "completed")
      assert.deepStrictEqual(world.requests, ["reserve", "charge", "ship"])
      assert.deepStrictEqual(messages.map(({ topic }) => topic), [
        "OrderPlaced",
        "StockReserved",
        "PaymentTaken",
        "OrderShipped"
      ])
      assert.deepStrictEqual(
        messages.slice(1).map(({ causationId }) => causationId),
        messages.slice(0, -1).map(({ id }) => id)
      )
      assert.lengthOf(new Set(messages.map(({ correlationId }) => correlationId)), 1)
      assert.deepStrictEqual(yield* world.held(), complete)
    }))
})

describe("an order as a saga that is interrupted", () => {
  it.effect("is complete or undone, wherever that happens", () =>
    Effect.gen(function*() {
      const world = yield* ShopWorld.make
      const endings = new Set<string>()
      let number = 0
      let told: ReadonlyArray<Outcome> = []
      const placing = Effect.suspend(() => {
        told = []
        return place(
          { ...order, id: `o-${++number}` },
          (outcome) => Effect.sync(() => void (told = [...told, outcome]))
        )
      })
      const operations = yield* atEveryOperation(
        Effect.provide(placing, world.shop),
        () =>
          Effect.gen(function*() {
            const ending = told[0]?.ending ?? "not begun"
            endings.add(ending)
            assert.isAtMost(told.length, 1)
            const isThere = ending === "completed" || ending === "committed"
            assert.deepStrictEqual(yield* world.held(`o-${number}`), isThere ? complete : nothing, ending)
          })
      )
      assert.isAbove(operations, 20)
      assert.includeMembers(Array.from(endings), ["not begun", "compensated", "committed", "completed"])
    }))
})

for (const [name, way] of [["a saga", saga], ["choreography", choreography]] as const) {
  describe(`an order as ${name}`, () => {
    it.effect("is undone when a step gives up, also where the answer was lost", () =>
      Effect.gen(function*() {
        const world = yield* ShopWorld.make
        world.faults.charge = ["fail", "hang", "lose"]
        const outcome = yield* way(world)
        assert.strictEqual(outcome?.ending, "compensated")
        assert.strictEqual(outcome?.why, "charge unavailable: no answer")
        assert.includeMembers(Array.from(outcome?.undone ?? []), ["reserve", "charge"])
        assert.deepStrictEqual(world.requests.filter((operation) => operation === "charge").length, 3)
        assert.deepStrictEqual(yield* world.held(), nothing)
      }))

    it.effect("is not asked for again when a service refuses it", () =>
      Effect.gen(function*() {
        const world = yield* ShopWorld.make
        const outcome = yield* way(world, { placed: { ...order, quantity: 11 } })
        assert.strictEqual(outcome?.ending, "compensated")
        assert.strictEqual(outcome?.why, "reserve refused: there is not enough of globe")
        assert.lengthOf(world.requests.filter((operation) => operation === "reserve"), 1)
        assert.deepStrictEqual(yield* world.held(), nothing)
      }))

    it.effect("is stuck when an undo gives up, and the others are undone all the same", () =>
      Effect.gen(function*() {
        const world = yield* ShopWorld.make
        world.faults.ship = ["fail", "fail", "fail"]
        world.faults.refund = Array.from({ length: 100 }, () => "fail")
        const outcome = yield* way(world)
        assert.strictEqual(outcome?.ending, "stuck")
        assert.deepStrictEqual(outcome?.stuck, ["charge"])
        assert.sameMembers(Array.from(outcome?.undone ?? []), ["reserve", "ship"])
        world.faults.refund = []
        assert.deepStrictEqual(yield* world.held(), [0, 8000, 0])
      }))

    it.effect(
      "is complete or undone, whatever fails, and in whatever order things happen",
      () =>
        Effect.gen(function*() {
          const endings = new Set<string>()
          for (let seed = 0; seed < seeds; seed++) {
            const world = yield* ShopWorld.make
            ShopWorld.spoil(world, seed)
            const outcome = yield* way(world, { seed })
            endings.add(outcome?.ending ?? "")
            const held = yield* world.held()
            assert.deepStrictEqual(held, outcome?.ending === "completed" ? complete : nothing, `seed ${seed}`)
          }
          assert.deepStrictEqual(Array.from(endings).toSorted(), ["compensated", "completed"])
        }),
      30_000
    )
  })
}
