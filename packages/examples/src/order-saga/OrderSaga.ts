/**
 * Placing an order as a saga: the whole flow stands in one place, each step with what undoes it.
 */
import { Saga } from "@effect-orchestra/workflow"
import { type Duration, Effect } from "effect"
import type { Order } from "./Order.ts"
import { completed, type Outcome, reasonOf } from "./Outcome.ts"
import { answersWithin, attempts, Shop, undoAttempts } from "./Shop.ts"

/**
 * The steps of an order. Each is registered before it runs: a service that did not answer may have done what it was
 * asked for. Once the parcel is on its way there is no way back.
 */
const steps = Effect.fnUntraced(function*(order: Order) {
  const shop = yield* Shop
  const asked = { register: "before", retry: attempts, timeout: answersWithin } as const
  const undo = <E>(request: Effect.Effect<number, E>) => () => Effect.timeout(request, answersWithin)
  yield* Saga.step("reserve", { ...asked, run: shop.reserve(order), compensate: undo(shop.release(order)) })
  yield* Saga.step("charge", { ...asked, run: shop.charge(order), compensate: undo(shop.refund(order)) })
  yield* Saga.step("ship", { ...asked, run: shop.ship(order), compensate: undo(shop.recall(order)), pivot: true })
})

/** Answers how to place an order. What becomes of it is told also when that is interrupted. */
export const make =
  (options: { readonly patience: Duration.Input }) => (order: Order, tell: (outcome: Outcome) => Effect.Effect<void>) =>
    Saga.outcome(steps(order), {
      name: "order",
      key: order.id,
      compensationTimeout: options.patience,
      compensationRetry: undoAttempts(options.patience),
      onOutcome: (outcome) => tell(told(order.id, outcome))
    })

const told = (order: string, outcome: Saga.Outcome<void, unknown>): Outcome => {
  if (outcome._tag === "Completed") return completed(order)
  const why = reasonOf(outcome.cause)
  switch (outcome._tag) {
    case "Compensated":
      return { order, ending: "compensated", why, undone: outcome.undone, stuck: [] }
    case "Stuck":
      return { order, ending: "stuck", why, undone: outcome.undone, stuck: outcome.stuck.map(({ step }) => step) }
    case "Committed":
      return { order, ending: "committed", why, undone: [], stuck: [] }
  }
}
