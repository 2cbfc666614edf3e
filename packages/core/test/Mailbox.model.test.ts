import { CoreError, Mailbox } from "@effect-orchestra/core"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Option, Random, Scope } from "effect"
import { Model, type Outcome, type Overflow, type Step } from "./model/Mailbox.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

const settled = Effect.forEach([1, 2, 3, 4], () => Effect.yieldNow, { discard: true })

const pick = <A>(from: ReadonlyArray<A>) => Effect.map(Random.nextIntBetween(0, from.length - 1), (i) => from[i] as A)

const overflows: ReadonlyArray<Overflow> = ["suspend", "suspend", "drop_new", "drop_old", "fail"]

const tagOf = (error: unknown): string =>
  error instanceof CoreError.MailboxClosed
    ? `MailboxClosed ${error.reason}`
    : error instanceof CoreError.MailboxFull
    ? "MailboxFull"
    : String(error)

const outcomeOf = (exit: Exit.Exit<Outcome, unknown>): Outcome => {
  if (Exit.isSuccess(exit)) return exit.value
  if (Cause.hasInterruptsOnly(exit.cause)) return { _tag: "interrupted" }
  return { _tag: "failed", tag: tagOf(Cause.squash(exit.cause)) }
}

const attempts = 2

/** The call of a step on a real mailbox. */
const call = (mailbox: Mailbox.Mailbox<number, string, unknown>, step: Step): Effect.Effect<Outcome, unknown> => {
  const received = (messages: ReadonlyArray<number>): Outcome => ({ _tag: "received", messages })
  switch (step._tag) {
    case "send": {
      const [only] = step.messages
      return Effect.as(
        step.messages.length === 1 && only !== undefined
          ? Mailbox.send(mailbox, only)
          : Mailbox.sendAll(mailbox, step.messages),
        { _tag: "sent" } as const
      )
    }
    case "trySend":
      return Effect.map(Mailbox.trySend(mailbox, step.message), (taken) => ({ _tag: "offered", taken }))
    case "receive":
      return step.max === 1
        ? Effect.map(Mailbox.receive(mailbox), (message) => received([message]))
        : Effect.map(Mailbox.receiveBetween(mailbox, step.min, step.max), received)
    case "tryReceive":
      return Effect.map(Mailbox.tryReceive(mailbox), (message) => received(Option.toArray(message)))
    case "handle":
      return Effect.suspend(() => {
        let seen: Outcome = { _tag: "interrupted" }
        return Effect.as(
          Mailbox.receiveWith(mailbox, (message, { attempt }) => {
            seen = { _tag: "handled", message, attempt }
            return step.succeeds ? Effect.void : Effect.fail("handler")
          }, { attempts }),
          0
        ).pipe(Effect.map(() => seen))
      })
    case "end":
      return Effect.as(Mailbox.end(mailbox), { _tag: "sent" } as const)
    case "fail":
      return Effect.as(Mailbox.fail(mailbox, "boom"), { _tag: "sent" } as const)
    default:
      return Effect.succeed({ _tag: "sent" } as const)
  }
}

const randomStep = Effect.fnUntraced(function*(made: number, next: () => number) {
  const roll = yield* Random.nextIntBetween(0, 99)
  if (roll < 30 || made === 0) return { _tag: "send", messages: [next()] } as const
  if (roll < 38) {
    const messages = Array.from({ length: yield* Random.nextIntBetween(0, 4) }, next)
    return { _tag: "send", messages } as const
  }
  if (roll < 44) return { _tag: "trySend", message: next() } as const
  if (roll < 60) return { _tag: "receive", min: 1, max: 1 } as const
  if (roll < 68) {
    const min = yield* Random.nextIntBetween(1, 4)
    return { _tag: "receive", min, max: min + 1 } as const
  }
  if (roll < 73) return { _tag: "tryReceive" } as const
  if (roll < 85) return { _tag: "handle", succeeds: yield* Random.nextBoolean } as const
  if (roll < 95) return { _tag: "interrupt", call: yield* Random.nextIntBetween(0, made - 1) } as const
  return { _tag: yield* pick(["end", "fail", "close"] as const) } as const
})

const againstTheModel = Effect.fnUntraced(function*() {
  const capacity = yield* Random.nextIntBetween(1, 4)
  const overflow = yield* pick(overflows)
  const model = new Model(capacity, overflow, attempts)
  const scope = yield* Scope.make()
  const undelivered: Array<string> = []
  const mailbox = yield* Mailbox.make<number, string>({
    capacity,
    overflow,
    sizeOf: (yield* Random.nextBoolean) ? () => 10 : undefined,
    onUndelivered: (message, reason) => void undelivered.push(`${message} ${reason}`)
  }).pipe(Scope.provide(scope))
  const fibers: Array<Fiber.Fiber<Outcome, unknown>> = []
  const steps: Array<Step> = []
  let message = 0
  for (let i = 0; i < 16; i++) {
    const step: Step = yield* randomStep(fibers.length, () => ++message)
    steps.push(step)
    if (step._tag === "interrupt" && fibers[step.call] !== undefined) fibers[step.call]?.interruptUnsafe()
    if (step._tag === "close") yield* Scope.close(scope, Exit.void)
    const made = fibers.length
    fibers.push(yield* Effect.forkChild(call(mailbox, step), { startImmediately: true }))
    yield* settled
    model.step(made, step)
    if (!model.outcomes.has(made) && step._tag !== "send" && step._tag !== "receive" && step._tag !== "handle") {
      model.outcomes.set(made, { _tag: "sent" })
    }
    const outcomes = fibers.map((fiber) => {
      const exit = fiber.pollUnsafe()
      return exit === undefined ? undefined : outcomeOf(exit)
    })
    const stats = mailbox.stats
    const story = `${overflow} of ${capacity}: ${JSON.stringify(steps)}`
    assert.deepStrictEqual(outcomes, fibers.map((_, at) => model.outcomes.get(at)), story)
    assert.deepStrictEqual(undelivered, model.undelivered, story)
    assert.deepInclude(stats, {
      length: model.inside.length,
      sent: model.sent,
      received: model.received,
      dropped: model.dropped,
      redelivered: model.redelivered,
      undelivered: model.undelivered.length - model.dropped,
      handling: 0,
      deadLettered: 0,
      blockedSenders: model.senders.length,
      blockedReceivers: model.receivers.length
    }, story)
    assert.strictEqual(stats.sent, stats.received + stats.dropped + stats.undelivered + stats.length, story)
    assert.isTrue(stats.bytes === 0 || stats.bytes === 10 * stats.length, story)
  }
  yield* Scope.close(scope, Exit.void)
})

/** Fibers that send and receive and are interrupted at random, with no regard to each other. */
const storm = Effect.fnUntraced(function*() {
  const capacity = yield* Random.nextIntBetween(1, 3)
  const seen: Array<number> = []
  const sent = new Set<number>()
  const unsure = new Set<number>()
  const scope = yield* Scope.make()
  const mailbox = yield* Mailbox.make<number>({
    capacity,
    onUndelivered: (message) => void seen.push(message)
  }).pipe(Scope.provide(scope))
  const pause = Effect.flatMap(
    Random.nextIntBetween(0, 3),
    (n) => Effect.forEach(Array.from({ length: n }), () => Effect.yieldNow, { discard: true })
  )
  let message = 0
  const sender = Effect.suspend(() => {
    const mine = ++message
    // Interrupted while it is being admitted, it may have been sent all the same.
    unsure.add(mine)
    return Effect.map(Mailbox.send(mailbox, mine), () => void sent.add(mine))
  })
  const note = (messages: ReadonlyArray<number>) => void seen.push(...messages)
  const receivers = [
    Effect.map(Mailbox.receive(mailbox), (one) => note([one])),
    Effect.map(Mailbox.receiveAll(mailbox), note),
    Effect.map(Mailbox.receiveBetween(mailbox, 2, 3), note),
    Effect.asVoid(Mailbox.receiveWith(mailbox, (one) => Effect.andThen(pause, Effect.sync(() => note([one])))))
  ]
  const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
  for (let i = 0; i < 24; i++) {
    const what = (yield* Random.nextBoolean) ? sender : yield* pick(receivers)
    fibers.push(
      yield* Effect.forkChild(Effect.andThen(pause, what), { startImmediately: yield* Random.nextBoolean })
    )
    if ((yield* Random.nextIntBetween(0, 2)) === 0) (yield* pick(fibers)).interruptUnsafe()
    if ((yield* Random.nextIntBetween(0, 1)) === 0) yield* Effect.yieldNow
  }
  yield* pause
  yield* Scope.close(scope, Exit.void)
  yield* Effect.forEach(fibers, (fiber) => Fiber.await(fiber), { discard: true })
  const { length, received, sent: taken, undelivered } = mailbox.stats
  assert.deepStrictEqual([length, taken], [0, received + undelivered])
  assert.strictEqual(new Set(seen).size, seen.length, "a message came twice")
  assert.strictEqual(seen.length, taken, "a message was lost")
  for (const one of sent) assert.include(seen, one)
  for (const one of seen) assert.isTrue(unsure.has(one))
})

describe("Mailbox, seeded", () => {
  it.effect("does what the naive model does, step by step", () =>
    Effect.gen(function*() {
      for (let seed = 0; seed < seeds; seed++) yield* Random.withSeed(againstTheModel(), `mailbox ${seed}`)
    }), 60_000)

  it.effect("loses and doubles nothing, whoever is interrupted when", () =>
    Effect.gen(function*() {
      for (let seed = 0; seed < seeds; seed++) yield* Random.withSeed(storm(), `mailbox storm ${seed}`)
    }), 60_000)
})
