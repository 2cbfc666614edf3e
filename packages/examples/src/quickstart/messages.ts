/**
 * Typed messages: customers ask a desk through its mailbox; the desk publishes what it sold on a topic; the post reacts
 * to that and says, on another topic, what it sent. Nobody there knows who listens.
 */
import { Bus, Mailbox, Orchestrator, type Reply, Subscription, Topic } from "@effect-orchestra/core"
import { Console, Effect, Schedule, Schema } from "effect"
import { Command } from "effect/cli"

class SoldOut extends Schema.TaggedError<SoldOut>()("SoldOut", { item: Schema.String }) {}

interface Order {
  readonly item: string
  readonly price: Reply.Reply<number, SoldOut>
}

const Sold = Topic.make("Sold", Schema.Struct({ item: Schema.String }))
const Sent = Topic.make("Sent", Schema.Struct({ item: Schema.String, attempt: Schema.Int }))

const prices = new Map([["globe", 40], ["atlas", 25]])

const sell = Effect.fnUntraced(function*({ item, price }: Order) {
  const known = prices.get(item)
  if (known === undefined) return yield* Mailbox.replyFail(price, new SoldOut({ item }))
  yield* Bus.publish(Sold, { item })
  return yield* Mailbox.reply(price, known)
})

const program = Effect.gen(function*() {
  const orders = yield* Mailbox.make<Order>({ name: "orders", capacity: 8 })
  yield* Orchestrator.fork(Effect.forever(Mailbox.receiveWith(orders, sell)), { name: "desk", resources: [orders] })

  const sent = yield* Bus.subscribe(Sent)
  yield* Bus.react(Sold, {
    group: "post",
    key: ({ item }) => item,
    retry: Schedule.recurs(2),
    handler: ({ item }, { attempt }) =>
      item === "globe" && attempt === 1 ? Effect.fail("it broke") : Bus.publish(Sent, { item, attempt })
  })

  for (const item of ["atlas", "globe", "sundial"]) {
    const price = Mailbox.ask(orders, (price: Order["price"]) => ({ item, price }))
    yield* price.pipe(
      Effect.flatMap((price) => Console.log(`${item}: ${price}`)),
      Effect.catchTag("SoldOut", (error) => Console.log(`${error.item}: sold out`))
    )
  }
  for (let parcels = 0; parcels < 2; parcels++) {
    const { value: { attempt, item } } = yield* Subscription.receive(sent)
    yield* Console.log(`sent: ${item}, attempt ${attempt}`)
  }
  const { length, received } = yield* Mailbox.stats(orders)
  yield* Console.log(`orders: received ${received}, waiting ${length}`)
  yield* Console.log(Bus.formatGraph(yield* Bus.graph))
}).pipe(Effect.scoped, Effect.provide(Bus.layer))

export const messages = Command.make("messages", {}, () => program).pipe(
  Command.withDescription("Questions through a mailbox, and what is published on a bus")
)
