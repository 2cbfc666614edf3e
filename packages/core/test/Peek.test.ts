import { Bus, Mailbox, Orchestrator, Subscription, Topic } from "@effect-orchestra/core"
import { nodeOf } from "@effect-orchestra/core/MailboxNode"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Random, Schema } from "effect"

const layer = Layer.provideMerge(Bus.layer, Orchestrator.layerWith({ name: "app" }))

/** The one inbox that there is, which is no mailbox of anybody. */
const inbox = Effect.map(Orchestrator, ({ kernel }) => {
  const node = [...kernel.nodes.values()].find(({ kind }) => kind === "mailbox")
  assert(node !== undefined && "peek" in node && typeof node.peek === "function")
  // Whatever has it takes a number.
  const { peek } = node as unknown as { readonly peek: (max: number) => ReadonlyArray<Topic.Envelope<string>> }
  return (max: number) => peek.call(node, max).map(({ value }) => value)
})

describe("a look into a mailbox", () => {
  it.effect("shows the next messages in their order, and takes none", () =>
    Effect.gen(function*() {
      for (const sizeOf of [undefined, (message: number) => message]) {
        const mailbox = yield* Mailbox.make<number>({ capacity: 10, sizeOf })
        const node = nodeOf(mailbox)
        assert.deepStrictEqual(node.peek(3), [])
        yield* Mailbox.sendAll(mailbox, [1, 2, 3, 4])
        assert.deepStrictEqual(node.peek(3), [1, 2, 3])
        assert.deepStrictEqual(node.peek(0), [])
        assert.strictEqual(yield* Mailbox.receive(mailbox), 1)
        assert.deepStrictEqual(node.peek(10), [2, 3, 4])
        assert.deepInclude(mailbox.stats, { length: 3, received: 1, sent: 4 })
      }
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("begins with what came back", () =>
    Effect.gen(function*() {
      const mailbox = yield* Mailbox.make<number>({ capacity: 10 })
      const node = nodeOf(mailbox)
      yield* Mailbox.sendAll(mailbox, [1, 2, 3, 4, 5])
      yield* node.restore({ messages: yield* node.receiveMany(1, 2, yield* Effect.fiber), items: undefined })
      for (let max = 0; max <= 6; max++) assert.deepStrictEqual(node.peek(max), [1, 2, 3, 4, 5].slice(0, max))
    }).pipe(Effect.scoped, Effect.provide(layer)))

  it.effect("shows what a subscriber has not taken, across the segments of its topic", () =>
    Effect.gen(function*() {
      const numbers = Topic.make("numbers", Schema.String, { kind: "broadcast", capacity: 1000 })
      const subscription = yield* Bus.subscribe(numbers, {})
      const peek = yield* inbox
      assert.deepStrictEqual(peek(5), [])
      for (let n = 0; n < 300; n++) yield* Bus.publish(numbers, String(n))
      let taken = 0
      while (taken < 300) {
        const expected = Array.from({ length: Math.min(200, 300 - taken) }, (_, at) => String(taken + at))
        assert.deepStrictEqual(peek(200), expected)
        assert.deepStrictEqual(peek(1), expected.slice(0, 1))
        const step = yield* Random.nextIntBetween(1, 60)
        for (let n = 0; n < step && taken < 300; n++, taken++) yield* Subscription.receive(subscription)
      }
      assert.deepStrictEqual(peek(5), [])
    }).pipe(Effect.scoped, Effect.provide(layer)))
})
