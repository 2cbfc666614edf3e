/**
 * What customers order, and what the three services are called and do.
 */
import { Effect, Random, Schema } from "effect"

export const Order = Schema.Struct({
  /** The key that makes every request about this order one that may be sent again. */
  id: Schema.NonEmptyString,
  customer: Schema.NonEmptyString,
  item: Schema.NonEmptyString,
  quantity: Schema.Int.check(Schema.isGreaterThan(0))
})
export type Order = typeof Order.Type

/** Prices in cents. */
export const prices: { readonly [item: string]: number } = { globe: 4000, atlas: 2500, sundial: 9900 }

/** What `quantity` of `item` costs, in cents. */
export const total = ({ item, quantity }: Pick<Order, "item" | "quantity">) => quantity * (prices[item] ?? 0)

/** A service takes something from one of its accounts for an order, and gives it back. */
export const services = {
  stock: { take: "reserve", giveBack: "release" },
  payment: { take: "charge", giveBack: "refund" },
  shipping: { take: "ship", giveBack: "recall" }
} as const
export type ServiceName = keyof typeof services
export const serviceNames = ["stock", "payment", "shipping"] as const satisfies ReadonlyArray<ServiceName>
export type Operation = (typeof services)[ServiceName]["take" | "giveBack"]
export const operations = ["reserve", "charge", "ship", "release", "refund", "recall"] as const satisfies ReadonlyArray<
  Operation
>

/** The account of the shipping service: one place for each unit that is sent. */
export const van = "van"

export const customers = ["ada", "ben", "cem", "dora"] as const

/** What the accounts hold before the first order, for so many orders: some of it runs out, as in life. */
export const opening = (orders: number): { readonly [S in ServiceName]: { readonly [account: string]: number } } => ({
  stock: Object.fromEntries(Object.keys(prices).map((item) => [item, Math.ceil(orders * 0.65)])),
  payment: Object.fromEntries(customers.map((customer) => [customer, Math.ceil(orders * 0.27) * 11_000])),
  shipping: { [van]: orders * 2 }
})

/** An order as customers place them: the same for the same seed and number. */
export const random = (seed: string, number: number): Effect.Effect<Order> =>
  Effect.gen(function*() {
    const oneOf = <A>(all: ReadonlyArray<A>, otherwise: A) =>
      Effect.map(Random.nextIntBetween(0, all.length - 1), (at) => all[at] ?? otherwise)
    return {
      id: `${seed}-${number}`,
      customer: yield* oneOf(customers, "ada"),
      item: yield* oneOf(Object.keys(prices), "globe"),
      quantity: yield* Random.nextIntBetween(1, 3)
    }
  }).pipe(Random.withSeed(`${seed} order ${number}`))
