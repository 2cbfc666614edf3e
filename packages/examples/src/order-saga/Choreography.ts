/**
 * Placing an order as choreography: each service reacts to what happened, and says what happened then. Nobody stands
 * above them; `Bus.graph` shows what came of it.
 */
import { Bus, Topic } from "@effect-orchestra/core"
import { Deferred, type Duration, Effect, Schema } from "effect"
import { Order, serviceNames, services } from "./Order.ts"
import { completed, type Outcome, reasonOf } from "./Outcome.ts"
import { answersWithin, attempts, Shop, undoAttempts } from "./Shop.ts"

const Failure = Schema.Struct({ order: Order, why: Schema.String })

export const OrderPlaced = Topic.make("OrderPlaced", Order)
export const StockReserved = Topic.make("StockReserved", Order)
export const PaymentTaken = Topic.make("PaymentTaken", Order)
export const OrderShipped = Topic.make("OrderShipped", Order)
/** A step gave up: everybody undoes what he did for this order. */
export const OrderFailed = Topic.make("OrderFailed", Failure)
export const StepUndone = Topic.make("StepUndone", Schema.Struct({ ...Failure.fields, step: Schema.String }))
/** Steps that were given up. */
const StepsGivenUp = Topic.deadLetters("StepsGivenUp")
/** Undos that were given up: somebody has to look at them. */
const UndosGivenUp = Topic.deadLetters("UndosGivenUp")

/** How many steps are undone when one of them gave up. */
const steps = 3

/** What is known about an order that is under way. */
interface Pending {
  readonly undone: Array<string>
  readonly stuck: Array<string>
  readonly settled: Deferred.Deferred<Outcome>
}

/** Lets the three services and the desk react until the scope closes, and answers how to place an order. */
export const make = Effect.fnUntraced(function*(options: {
  readonly concurrency: number
  readonly patience: Duration.Input
  /** Is told every message, when it was published. */
  readonly onMessage?: (message: Topic.Envelope<unknown>) => Effect.Effect<void>
}) {
  const shop = yield* Shop
  const { concurrency, onMessage = () => Effect.void, patience } = options
  const pending = new Map<string, Pending>()

  const publish = <A>(topic: Topic.Topic<A>, value: NoInfer<A>, { id }: Order) =>
    Effect.tap(Bus.publish(topic, value, { key: id }), onMessage)

  /** A service does its step after the one before. Given up, it becomes a dead letter. */
  const does = <E>(
    group: string,
    topic: Topic.Topic<Order>,
    step: (order: Order) => Effect.Effect<void, E>,
    next: Topic.Topic<Order>
  ) =>
    Bus.react(topic, {
      group,
      key: ({ id }) => id,
      concurrency,
      retry: attempts,
      deadLetter: StepsGivenUp,
      emits: [next],
      handler: (order) => Effect.andThen(Effect.timeout(step(order), answersWithin), publish(next, order, order))
    })

  /** It undoes its step when the order failed: also when it does not know whether it did it. */
  const undoes = <E>(group: string, step: string, undo: (order: Order) => Effect.Effect<number, E>) =>
    Bus.react(OrderFailed, {
      group,
      key: ({ order }) => order.id,
      concurrency,
      retry: undoAttempts(patience),
      deadLetter: UndosGivenUp,
      emits: [StepUndone],
      handler: (failure) =>
        Effect.andThen(
          Effect.timeout(undo(failure.order), answersWithin),
          publish(StepUndone, { ...failure, step }, failure.order)
        )
    })

  yield* does("stock", OrderPlaced, shop.reserve, StockReserved)
  yield* does("payment", StockReserved, shop.charge, PaymentTaken)
  yield* does("shipping", PaymentTaken, shop.ship, OrderShipped)
  yield* undoes("stock", "reserve", shop.release)
  yield* undoes("payment", "charge", shop.refund)
  yield* undoes("shipping", "ship", shop.recall)

  yield* Bus.react(StepsGivenUp, {
    group: "desk",
    emits: [OrderFailed],
    handler: Effect.fnUntraced(function*({ cause, envelope }: Topic.DeadLetter) {
      const order = yield* Schema.decodeUnknownEffect(Order)(envelope.value)
      yield* publish(OrderFailed, { order, why: reasonOf(cause) }, order)
    })
  })

  /** Once every step is undone, or given up, the order is settled. */
  const settle = (orderId: string, why: string, add: (found: Pending) => void) =>
    Effect.suspend(() => {
      const found = pending.get(orderId)
      if (found === undefined) return Effect.void
      add(found)
      const { settled, stuck, undone } = found
      if (undone.length + stuck.length < steps) return Effect.void
      const ending = stuck.length === 0 ? "compensated" as const : "stuck" as const
      return Effect.asVoid(Deferred.succeed(settled, { order: orderId, ending, why, undone, stuck }))
    })

  yield* Bus.react(StepUndone, {
    group: "desk",
    handler: ({ order, step, why }) => settle(order.id, why, ({ undone }) => undone.push(step))
  })
  yield* Bus.react(UndosGivenUp, {
    group: "desk",
    handler: Effect.fnUntraced(function*({ envelope, group }: Topic.DeadLetter) {
      const { order, why } = yield* Schema.decodeUnknownEffect(Failure)(envelope.value)
      const service = serviceNames.find((name) => name === group)
      yield* settle(order.id, why, ({ stuck }) => stuck.push(service === undefined ? group : services[service].take))
    })
  })
  yield* Bus.react(OrderShipped, {
    group: "desk",
    handler: ({ id }) => {
      const found = pending.get(id)
      return found === undefined ? Effect.void : Deferred.succeed(found.settled, completed(id))
    }
  })

  /**
   * Places an order and waits until it is settled. Nothing takes an order back that is under way: the messages are
   * already with others.
   */
  return (order: Order, tell: (outcome: Outcome) => Effect.Effect<void>) =>
    Effect.gen(function*() {
      const settled = yield* Deferred.make<Outcome>()
      pending.set(order.id, { undone: [], stuck: [], settled })
      yield* publish(OrderPlaced, order, order)
      yield* tell(yield* Deferred.await(settled))
    }).pipe(
      Effect.ensuring(Effect.sync(() => pending.delete(order.id))),
      Effect.uninterruptible
    )
})
