/** Row 10: a message that is broadcast to 10 subscribers, against a raw `PubSub`. */
import { Bus, Subscription, Topic } from "@effect-orchestra/core"
import { Context, Effect, Layer, PubSub, Schema, type Scope } from "effect"
import { against, type Size, timed, type Work } from "./Bench.ts"

const capacity = 512
const subscribers = 10

export const work = ({ rounds, smoke, warmUp }: Size): Effect.Effect<Work, never, Scope.Scope> =>
  Effect.gen(function*() {
    const batches = smoke ? 2 : 50
    const bus = Context.get(yield* Layer.build(Bus.layer), Bus)
    const topic = Topic.make("bench", Schema.Number, { kind: "broadcast", capacity })
    const subscriptions = yield* Effect.replicateEffect(Bus.subscribe(topic), subscribers).pipe(
      Effect.provideService(Bus, bus),
      Effect.orDie
    )
    const pubsub = yield* PubSub.bounded<number>(capacity)
    const raw = yield* Effect.replicateEffect(PubSub.subscribe(pubsub), subscribers)

    /** A batch published one by one, then taken by each subscriber at once. */
    const broadcast = <A>(
      name: string,
      publish: (message: number) => Effect.Effect<unknown, unknown, Bus>,
      receivers: ReadonlyArray<A>,
      receiveAll: (receiver: A) => Effect.Effect<ReadonlyArray<unknown>, unknown>
    ) =>
      timed(
        name,
        batches * capacity,
        Effect.gen(function*() {
          for (let batch = 0; batch < batches; batch++) {
            for (let i = 0; i < capacity; i++) yield* publish(i)
            for (const receiver of receivers) {
              const received = yield* receiveAll(receiver)
              if (received.length !== capacity) return yield* Effect.die(new Error(`${name} lost messages`))
            }
          }
        }).pipe(Effect.orDie, Effect.provideService(Bus, bus))
      )
    const ours = broadcast(
      "Bus.publish",
      (message) => Bus.publish(topic, message),
      subscriptions,
      Subscription.receiveAll
    )
    let ids = 0
    const enveloped = yield* PubSub.bounded<unknown>(capacity)
    const carrying = broadcast(
      "raw PubSub of envelopes",
      (value) => {
        const id = `e-${++ids}`
        const at = Date.now()
        return PubSub.publish(enveloped, {
          id,
          topic: "bench",
          key: undefined,
          value,
          at,
          attempt: 1,
          correlationId: id
        })
      },
      yield* Effect.replicateEffect(PubSub.subscribe(enveloped), subscribers),
      PubSub.takeAll
    )
    const reference = broadcast("raw PubSub", (message) => PubSub.publish(pubsub, message), raw, PubSub.takeAll)
    return {
      row: 10,
      rounds,
      warmUp,
      figures: against({ row: 10, work: "broadcast to 10", ours }, [[reference, 1.2], [carrying]])
    }
  })
