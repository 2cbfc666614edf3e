import { Mailbox } from "@effect-orchestra/core"
import { TestOrchestra } from "@effect-orchestra/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"

describe("a mailbox that a message came back to when it was full", () => {
  it.effect("drops as many of the oldest as it is above its capacity, and tells of each", () =>
    Effect.gen(function*() {
      for (let seed = 0; seed < 200; seed++) {
        const seen: Array<string> = []
        const program = Effect.gen(function*() {
          const mailbox = yield* Mailbox.make<string>({
            capacity: 1,
            overflow: "drop_old",
            onUndelivered: (message) => void seen.push(message)
          })
          const receive = Effect.uninterruptibleMask((restore) =>
            Effect.flatMap(restore(Mailbox.receive(mailbox)), (message) => Effect.sync(() => void seen.push(message)))
          )
          const receiver = yield* Effect.forkChild(receive, { startImmediately: true })
          yield* Mailbox.send(mailbox, "a")
          yield* Mailbox.send(mailbox, "b")
          yield* Fiber.interrupt(receiver)
          yield* Mailbox.send(mailbox, "c")
        })
        yield* TestOrchestra.run(program, { seed, yieldChance: 0.25 })
        assert.deepStrictEqual(seen.toSorted(), ["a", "b", "c"], `seed ${seed}`)
      }
    }), 10_000)
})
