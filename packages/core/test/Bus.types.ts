/** What compiles and what does not: read by the compiler alone. */
import { Bus, type CoreError, type Orchestrator, Subscription, Topic } from "@effect-orchestra/core"
import { Context, Effect, Schedule, Schema, type Scope } from "effect"

class Db extends Context.Service<Db, { readonly n: number }>()("types/BusDb") {}

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const is = <_T extends true>() => undefined

const Orders = Topic.make("Orders", Schema.Struct({ id: Schema.String }))
const Failing = Topic.make("Failing", Schema.Int, { overflow: "fail" })
type Order = { readonly id: string }

// Publishing fails with `MailboxFull` only where the topic says so.
const published = Bus.publish(Orders, { id: "a" })
is<Equals<typeof published, Effect.Effect<Topic.Envelope<Order>, CoreError.BusClosed, Bus>>>()
const failing = Bus.publish(Failing, 1)
is<Equals<typeof failing, Effect.Effect<Topic.Envelope<number>, CoreError.BusClosed | CoreError.MailboxFull, Bus>>>()

// @ts-expect-error another type than the topic's
export const wrong = Bus.publish(Orders, { id: 1 })

// @ts-expect-error a field of it missing
export const missing = Bus.publish(Orders, {})

const subscribed = Bus.subscribe(Orders)
is<Equals<typeof subscribed, Effect.Effect<Subscription.Subscription<Order>, CoreError.BusClosed, Bus | Scope.Scope>>>()
const received = Effect.flatMap(subscribed, Subscription.receive)
is<Equals<Effect.Success<typeof received>, Topic.Envelope<Order>>>()

// @ts-expect-error read as another type
export const read: Effect.Effect<Subscription.Subscription<number>, unknown, Bus | Scope.Scope> = subscribed

// @ts-expect-error a subscriber cannot make publishing fail
export const failingSubscriber = Bus.subscribe(Orders, { overflow: "fail" })

// What a handler and its schedule require is required, but for the handler's scope.
const reaction = Bus.react(Orders, {
  group: "g",
  key: ({ id }) => id,
  retry: Schedule.recurs(3),
  handler: (order, { attempt }) =>
    Effect.gen(function*() {
      yield* Effect.addFinalizer(() => Effect.void)
      yield* Db
      return yield* Effect.fail(`${order.id} ${attempt}`)
    })
})
is<Equals<typeof reaction, Effect.Effect<void, CoreError.BusClosed, Db | Bus | Scope.Scope>>>()

// @ts-expect-error the handler of another type
export const otherHandler = Bus.react(Orders, { group: "g", handler: (n: number) => Effect.succeed(n) })

// @ts-expect-error dead letters go where dead letters belong
export const otherLetters = Bus.react(Orders, { group: "g", deadLetter: Failing, handler: () => Effect.void })
export const letters = Bus.react(Orders, { group: "g", deadLetter: Topic.deadLetters("d"), handler: () => Effect.void })

// @ts-expect-error a topic of numbers is none of unknowns
export const widened: Topic.Topic<unknown, unknown> = Failing

// A bus needs no orchestrator.
export const alone: Effect.Effect<void> = Effect.scoped(Effect.ignore(subscribed)).pipe(Effect.provide(Bus.layer))
export type { Orchestrator }
