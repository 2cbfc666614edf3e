import { Bus, Subscription, Topic } from "@effect-orchestra/core"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Random, Schema, Scope } from "effect"
import { type Overflow, type Reader, TopicModel } from "./model/Bus.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

interface Pair {
  readonly model: Reader
  readonly real: Subscription.Subscription<number>
  readonly scope: Scope.Closeable
}

const overflows: ReadonlyArray<Overflow> = ["suspend", "drop_new", "drop_old"]
const values = (messages: ReadonlyArray<Topic.Envelope<number>>) => messages.map(({ value }) => value)

const broadcast = Effect.gen(function*() {
  const replay = yield* Random.nextIntBetween(0, 2)
  const topic = Topic.make("T", Schema.Int, { capacity: 4, replay })
  const model = new TopicModel(replay)
  // Somebody always reads, so that the counts of the topic are kept.
  const pairs: Array<Pair> = []
  const subscribe = Effect.gen(function*() {
    const capacity = yield* Random.nextIntBetween(Math.max(1, replay), 4)
    const overflow = overflows[yield* Random.nextIntBetween(0, 2)] ?? "suspend"
    const scope = yield* Scope.make()
    const real = yield* Scope.provide(Bus.subscribe(topic, { capacity, overflow }), scope)
    pairs.push({ model: model.subscribe(capacity, overflow), real, scope })
  })
  const publishing: Array<readonly [number, Fiber.Fiber<unknown, unknown>]> = []
  yield* subscribe
  for (let n = 0; n < 60; n++) {
    const pair = pairs[yield* Random.nextIntBetween(0, pairs.length - 1)]
    if (pair === undefined) continue
    switch (yield* Random.nextIntBetween(0, 9)) {
      case 0:
        if (pairs.length < 4) yield* subscribe
        break
      case 1:
        if (pairs.length === 1) break
        pairs.splice(pairs.indexOf(pair), 1)
        model.unsubscribe(pair.model)
        yield* Scope.close(pair.scope, Exit.void)
        break
      case 2: {
        const cut = publishing[yield* Random.nextIntBetween(0, Math.max(0, publishing.length - 1))]
        if (cut === undefined) break
        model.cancel(cut[0])
        yield* Fiber.interrupt(cut[1])
        break
      }
      case 3:
      case 4:
        if (pair.model.inside.length === 0) break
        assert.deepStrictEqual(values(yield* Subscription.receiveAll(pair.real)), model.take(pair.model, Infinity))
        break
      case 5:
        if (pair.model.inside.length === 0) break
        assert.deepStrictEqual([(yield* Subscription.receive(pair.real)).value], model.take(pair.model, 1))
        break
      default:
        model.publish(n)
        publishing.push([n, yield* Effect.forkChild(Bus.publish(topic, n), { startImmediately: true })])
    }
    assert.strictEqual((yield* Bus.stats)[0]?.blockedPublishers, model.waiting.length)
    for (const { model, real } of pairs) {
      const { dropped, length, received, sent, undelivered } = yield* Subscription.stats(real)
      assert.deepStrictEqual([length, dropped], [model.inside.length, model.dropped])
      assert.strictEqual(sent, received + dropped + undelivered + length)
    }
  }
  for (const { model: reader, real } of pairs) {
    if (reader.inside.length > 0) {
      assert.deepStrictEqual(values(yield* Subscription.receiveAll(real)), model.take(reader, Infinity))
    }
  }
})

const queue = Effect.gen(function*() {
  const topic = Topic.make("Q", Schema.Int, { kind: "queue", capacity: 3 })
  const model = new TopicModel(0)
  const reader = model.subscribe(3, "suspend")
  const subscriptions = [yield* Bus.subscribe(topic), yield* Bus.subscribe(topic)]
  for (let n = 0; n < 40; n++) {
    const real = subscriptions[yield* Random.nextIntBetween(0, 1)]
    if (real === undefined || (yield* Random.nextIntBetween(0, 2)) > 0) {
      model.publish(n)
      yield* Effect.forkChild(Bus.publish(topic, n), { startImmediately: true })
    } else if (reader.inside.length > 0) {
      assert.deepStrictEqual([(yield* Subscription.receive(real)).value], model.take(reader, 1))
    }
    assert.strictEqual((yield* Bus.stats)[0]?.blockedPublishers, model.waiting.length)
  }
})

describe("Bus against its model", () => {
  for (const [name, program] of [["broadcast", broadcast], ["queue", queue]] as const) {
    it.effect(`a ${name} does what the naive model does, under ${seeds} seeds`, () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < seeds; seed++) {
          yield* Effect.scoped(program).pipe(Effect.provide(Bus.layer), Random.withSeed(`${name} ${seed}`))
        }
      }), 30_000 + seeds * 20)
  }
})
