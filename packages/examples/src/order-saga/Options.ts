/**
 * The options of the commands.
 */
import { Duration, Option, Schema } from "effect"
import { type Command, Flag } from "effect/cli"
import * as Faults from "./Faults.ts"
import { customers, prices } from "./Order.ts"

const positive = (flag: string, standard: number, description: string) =>
  Flag.Int(flag).pipe(
    Flag.withDescription(`${description}; default ${standard}`),
    Flag.withDefault(standard),
    Flag.filter((value) => value > 0, (value) => `Expected a number from 1 on, got ${value}`)
  )

export const data = Flag.String("data").pipe(
  Flag.withDescription("The directory of the three databases"),
  Flag.withSchema(Schema.NonEmptyString)
)

/** How the shop is opened, whatever is done in it then. */
export const shop = {
  ...Faults.flags,
  seed: Flag.String("seed").pipe(
    Flag.withDescription("The same seed makes the same orders and the same faults; by default any"),
    Flag.withSchema(Schema.NonEmptyString),
    Flag.optional
  ),
  data: data.pipe(
    Flag.withDescription("Keeps the three databases in this directory; by default they are removed in the end"),
    Flag.optional
  ),
  patience: Flag.Finite("patience").pipe(
    Flag.withDescription("For how many seconds an undo is tried; default 10"),
    Flag.withDefault(10),
    Flag.filterMap(
      (seconds) => seconds > 0 ? Option.some(Duration.seconds(seconds)) : Option.none(),
      (seconds) => `Expected seconds, more than 0, got ${seconds}`
    )
  )
}
export type Shop = Command.Command.Config.Infer<typeof shop>

export const order = {
  customer: Flag.Literals("customer", customers).pipe(
    Flag.withDescription("Who orders; default ada"),
    Flag.withDefault(customers[0])
  ),
  item: Flag.Literals("item", Object.keys(prices)).pipe(
    Flag.withDescription("What is ordered; default globe"),
    Flag.withDefault("globe")
  ),
  quantity: positive("quantity", 2, "How many")
}

export const load = {
  mode: Flag.Literals("mode", ["saga", "choreography"]).pipe(
    Flag.withDescription("Which way the orders go; default saga"),
    Flag.withDefault("saga")
  ),
  orders: positive("orders", 1000, "How many orders"),
  concurrency: positive("concurrency", 16, "How many of them at once")
}

/** What goes wrong in a load when nobody says what is to go wrong. */
const usual: Faults.Faults = {
  fail: [["reserve", 0.1], ["charge", 0.3], ["ship", 0.2], ["release", 0.2], ["refund", 0.2], ["recall", 0.2]],
  lose: [["reserve", 0.05], ["charge", 0.1], ["ship", 0.1], ["release", 0.1], ["refund", 0.1], ["recall", 0.1]],
  slow: [["reserve", 0.01], ["charge", 0.01], ["ship", 0.01], ["release", 0.01], ["refund", 0.01], ["recall", 0.01]]
}

export const orUsual = <A extends Shop>(given: A): A =>
  given.fail.length + given.lose.length + given.slow.length > 0 ? given : { ...given, ...usual }
