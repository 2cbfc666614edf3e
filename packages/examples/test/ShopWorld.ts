/**
 * A shop without processes: the ledgers of the three services in memory, and faults as they are ordered.
 */
import { SeededRandom } from "@effect-orchestra/core/testing"
import { Effect, Layer } from "effect"
import * as Ledger from "../src/order-saga/Ledger.ts"
import { type Operation, operations, type Order, services, total, van } from "../src/order-saga/Order.ts"
import { Refused, Unavailable } from "../src/order-saga/OrderError.ts"
import { Shop } from "../src/order-saga/Shop.ts"

export const order: Order = { id: "o-1", customer: "ada", item: "globe", quantity: 2 }

export interface World {
  readonly shop: Layer.Layer<Shop>
  /** The requests that came, in order. */
  readonly requests: Array<Operation>
  /** What the next requests come to: the effect is lost, or the answer, or it comes late and nobody waits, or never. */
  readonly faults: { [O in Operation]?: Array<"none" | "fail" | "lose" | "late" | "hang"> }
  /** What an order holds of the accounts globe, ada and van; asking gives it back. */
  readonly held: (orderId?: string) => Effect.Effect<ReadonlyArray<number>>
}

/** How late an effect is. */
export const late = "15 seconds"

/** Orders random faults, so few of an undo that it works in the end. */
export const spoil = ({ faults }: World, seed: number) => {
  const random = new SeededRandom(`shop ${seed}`)
  for (const operation of operations) {
    faults[operation] = Array.from({ length: 3 }, () => {
      const kinds = ["none", "none", "fail", "lose", "late", "hang"] as const
      return kinds[Math.floor(random.nextDoubleUnsafe() * kinds.length)] ?? "none"
    })
  }
}

export const make = Effect.gen(function*() {
  const requests: World["requests"] = []
  const faults: World["faults"] = {}
  const open = (account: string, amount: number) => Effect.orDie(Ledger.open(":memory:", { [account]: amount }))
  const stock = yield* open("globe", 10)
  const payment = yield* open("ada", 100_000)
  const shipping = yield* open(van, 100)

  const request = <A, E>(operation: Operation, effect: Effect.Effect<A, E>) =>
    Effect.suspend((): Effect.Effect<A, E | Unavailable> => {
      requests.push(operation)
      const fault = faults[operation]?.shift()
      const lost = Effect.fail(new Unavailable({ operation, reason: "no answer" }))
      if (fault === "late") return Effect.andThen(Effect.forkDetach(Effect.delay(effect, late)), Effect.never)
      if (fault === "hang") return Effect.never
      if (fault === "fail") return lost
      return fault === "lose" ? Effect.andThen(effect, lost) : effect
    })
  const take = (ledger: Ledger.Ledger, operation: Operation, entry: (order: Order) => Ledger.Entry) => (order: Order) =>
    request(
      operation,
      Effect.flatMap(
        Effect.orDie(ledger.take(order.id, entry(order))),
        (reason) => reason === undefined ? Effect.void : Effect.fail(new Refused({ operation, reason }))
      )
    )
  const giveBack = (ledger: Ledger.Ledger, operation: Operation) => (order: Order) =>
    request(operation, Effect.orDie(ledger.giveBack(order.id)))

  const shop = Layer.succeed(Shop, {
    reserve: take(stock, services.stock.take, ({ item, quantity }) => ({ account: item, amount: quantity })),
    charge: take(payment, services.payment.take, (order) => ({ account: order.customer, amount: total(order) })),
    ship: take(shipping, services.shipping.take, ({ quantity }) => ({ account: van, amount: quantity })),
    release: giveBack(stock, services.stock.giveBack),
    refund: giveBack(payment, services.payment.giveBack),
    recall: giveBack(shipping, services.shipping.giveBack)
  })
  const held = (orderId = order.id) =>
    Effect.forEach([stock, payment, shipping], (ledger) => Effect.orDie(ledger.giveBack(orderId)))
  return { shop, requests, faults, held } satisfies World
})
