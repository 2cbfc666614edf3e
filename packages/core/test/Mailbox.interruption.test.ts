import { Mailbox, type Reply } from "@effect-orchestra/core"
import { nodeOf } from "@effect-orchestra/core/MailboxNode"
import { atEveryOperation } from "@effect-orchestra/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Option, Scheduler, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"

const forked = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

const turns = Effect.forEach([1, 2, 3, 4], () => Effect.yieldNow, { discard: true })

/**
 * A mailbox that is refilled with new numbers before a program runs; afterwards every number that it took over was seen
 * by the program, is inside, or was undelivered, and each once (with `again`, at least once).
 */
const counted = Effect.fnUntraced(function*(capacity: number, again = false) {
  const scope = yield* Scope.make()
  const seen: Array<number> = []
  const mailbox = yield* Mailbox.make<number>({ capacity, onUndelivered: (n) => void seen.push(n) })
    .pipe(Scope.provide(scope))
  let last = 0
  const next = () => ++last
  const refill = Effect.sync(() => {
    while (Mailbox.offerUnsafe(mailbox, last + 1) === "sent") last++
  })
  const note = (messages: ReadonlyArray<number>) => void seen.push(...messages)
  const check = Effect.gen(function*() {
    yield* turns
    const inside: Array<number> = []
    for (let more = true; more;) {
      const message = yield* Mailbox.tryReceive(mailbox)
      if (Option.isSome(message)) inside.push(message.value)
      else more = false
    }
    const { blockedReceivers, blockedSenders, handling, length, sent } = mailbox.stats
    assert.deepStrictEqual({ blockedReceivers, blockedSenders, handling, length }, {
      blockedReceivers: 0,
      blockedSenders: 0,
      handling: 0,
      length: 0
    })
    note(inside)
    if (!again) assert.strictEqual(new Set(seen).size, seen.length, "a message came twice")
    assert.strictEqual(new Set(seen).size, sent, "a message was lost")
  })
  return { mailbox, next, refill, note, check, close: Scope.close(scope, Exit.void) }
})

/** A program that receives in a way, from what is inside and after waiting. */
const receiving = (
  receive: (
    mailbox: Mailbox.Mailbox<number>,
    note: (messages: ReadonlyArray<number>) => void
  ) => Effect.Effect<unknown, unknown>,
  again = false
) =>
  Effect.gen(function*() {
    const { check, mailbox, next, note, refill } = yield* counted(3, again)
    const program = Effect.gen(function*() {
      yield* refill
      yield* receive(mailbox, note)
      yield* refill
      yield* receive(mailbox, note)
      yield* refill
      note(yield* Mailbox.receiveAll(mailbox))
      yield* Effect.forkChild(Effect.andThen(turns, Mailbox.sendAll(mailbox, [next(), next()])))
      yield* receive(mailbox, note)
    })
    return { program, check }
  })

const ways = {
  receive: receiving((mailbox, note) => Effect.map(Mailbox.receive(mailbox), (message) => note([message]))),
  tryReceive: receiving((mailbox, note) =>
    Effect.map(Mailbox.tryReceive(mailbox), (message) => note(Option.toArray(message)))
  ),
  receiveAll: receiving((mailbox, note) => Effect.map(Mailbox.receiveAll(mailbox), note)),
  receiveBetween: receiving((mailbox, note) => Effect.map(Mailbox.receiveBetween(mailbox, 1, 2), note)),
  // A handler that is cut after it has noted the message, and before it has ended, gets it again.
  receiveWith: receiving(
    (mailbox, note) =>
      Mailbox.receiveWith(mailbox, (message) => Effect.andThen(Effect.yieldNow, Effect.sync(() => note([message])))),
    true
  ),
  // The chunk that it is at when it is interrupted goes back whole.
  stream: receiving(
    (mailbox, note) =>
      Stream.runForEachArray(
        Stream.take(Mailbox.stream(mailbox, { chunk: 1 }), 2),
        (messages) => Effect.andThen(Effect.yieldNow, Effect.sync(() => note(messages)))
      ),
    true
  )
}

describe("Mailbox, interrupted", () => {
  it.effect("50. a receive that is cut at the moment of delivery leaves the message to another, once", () =>
    Effect.gen(function*() {
      const mailbox = yield* Mailbox.make<number>({ capacity: 4 })
      const first = yield* forked(Mailbox.receive(mailbox))
      const second = yield* forked(Mailbox.receive(mailbox))
      yield* Mailbox.send(mailbox, 1)
      yield* Fiber.interrupt(first)
      assert.strictEqual(yield* Fiber.join(second), 1)
      assert.deepInclude(mailbox.stats, { sent: 1, received: 1, length: 0 })

      for (const [name, way] of Object.entries(ways)) {
        const { check, program } = yield* way
        assert.isAbove(yield* atEveryOperation(program, () => check), 20, name)
      }
    }))

  it.effect(
    "a receive that is cut where its fiber yields loses nothing, however often it yields",
    () =>
      Effect.gen(function*() {
        for (const way of Object.values(ways)) {
          for (let operations = 3; operations < 12; operations++) {
            const { check, program } = yield* way
            const yielding = Effect.provideService(program, Scheduler.MaxOpsBeforeYield, operations)
            for (let cut = 0, running = true; running; cut++) {
              const fiber = yield* Effect.forkDetach(yielding, { startImmediately: true })
              for (let turn = 0; turn < cut; turn++) yield* Effect.yieldNow
              running = fiber.pollUnsafe() === undefined
              yield* Fiber.interrupt(fiber)
              yield* check
            }
          }
        }
      }),
    20_000
  )

  it.effect("a sender that is cut leaves nothing behind but what it has sent", () =>
    Effect.gen(function*() {
      const { check, mailbox, next, note, refill } = yield* counted(2)
      const program = Effect.gen(function*() {
        yield* refill
        yield* Effect.forkChild(Effect.andThen(turns, Effect.map(Mailbox.receiveAll(mailbox), note)))
        yield* Mailbox.send(mailbox, next())
        yield* Effect.forkChild(Effect.forEach([1, 2, 3], () => Effect.map(Mailbox.receiveAll(mailbox), note)))
        yield* Mailbox.sendAll(mailbox, [next(), next(), next(), next()])
        yield* Mailbox.send(mailbox, next())
      })
      assert.isAbove(yield* atEveryOperation(program, () => check), 20)
    }))

  it.effect("a question that is cut is forgotten, and its answer dropped", () =>
    Effect.gen(function*() {
      type Question = Reply.Reply<number>
      const mailbox = yield* Mailbox.make<Question>({ capacity: 1 })
      const answered: Array<boolean> = []
      const answer = Mailbox.receiveWith(mailbox, (reply) =>
        Effect.map(Mailbox.reply(reply, 1), (taken) => void answered.push(taken)))
      const program = Effect.gen(function*() {
        yield* Effect.forkChild(Effect.andThen(turns, Effect.forever(answer)))
        // The first finds room, the second waits for it.
        const both = [1, 2].map(() =>
          Mailbox.ask(mailbox, (reply: Question) => reply, { timeout: Infinity })
        )
        yield* Effect.all(both, { concurrency: 2 })
        yield* Mailbox.ask(mailbox, (reply: Question) => reply)
      })
      const check = Effect.gen(function*() {
        yield* turns
        while (mailbox.stats.length > 0) yield* answer
        assert.deepInclude(mailbox.stats, { handling: 0, blockedSenders: 0, blockedReceivers: 0 })
        assert.isTrue((nodeOf(mailbox).questions?.size ?? 0) === 0, "a question was not forgotten")
      })
      assert.isAbove(yield* atEveryOperation(program, () => check), 20)
      assert.includeMembers(answered, [true, false])
    }))

  it.effect("27. a timeout that races with a delivery has the message received or still inside, never lost", () =>
    Effect.gen(function*() {
      const { check, mailbox, next, note } = yield* counted(4)
      for (const early of [true, false]) {
        for (let turn = 0; turn < 6; turn++) {
          const receiver = yield* forked(Effect.map(
            Effect.timeoutOption(Mailbox.receive(mailbox), "1 second"),
            (message) => note(Option.toArray(message))
          ))
          const fire = forked(TestClock.adjust("1 second"))
          const deliver = Mailbox.send(mailbox, next())
          yield* early ? fire : deliver
          for (let i = 0; i < turn; i++) yield* Effect.yieldNow
          yield* early ? deliver : fire
          yield* Fiber.join(receiver)
          yield* check
        }
      }
    }))

  it.effect("a sender that yields before it waits does not send to a mailbox that closes meanwhile", () =>
    Effect.gen(function*() {
      for (let operations = 3; operations < 10; operations++) {
        for (let turn = 0; turn < 6; turn++) {
          const { check, close, mailbox, next, refill } = yield* counted(1)
          yield* refill
          const sender = yield* Mailbox.send(mailbox, next()).pipe(
            Effect.provideService(Scheduler.MaxOpsBeforeYield, operations),
            (effect) => Effect.forkDetach(effect, { startImmediately: true })
          )
          for (let i = 0; i < turn; i++) yield* Effect.yieldNow
          yield* close
          assert.isTrue(Exit.isFailure(yield* Fiber.await(sender)))
          assert.strictEqual(mailbox.stats.length, 0)
          yield* check
        }
      }
    }))

  it.effect("what a receiver was handed when the mailbox closed is undelivered if it is cut", () =>
    Effect.gen(function*() {
      for (let turn = 0; turn < 6; turn++) {
        const { check, close, mailbox, next, note } = yield* counted(2)
        // It yields at every operation, so that it is cut with the message in its hands.
        const receiver = yield* Effect.map(Mailbox.receive(mailbox), (message) => note([message])).pipe(
          Effect.provideService(Scheduler.MaxOpsBeforeYield, 3),
          (effect) => Effect.forkDetach(effect, { startImmediately: true })
        )
        yield* Mailbox.send(mailbox, next())
        for (let i = 0; i < turn; i++) yield* Effect.yieldNow
        yield* close
        yield* Fiber.interrupt(receiver)
        yield* check
      }
    }))
})
