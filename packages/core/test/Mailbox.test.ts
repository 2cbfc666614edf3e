import { CoreError, type Event, Mailbox, Orchestrator, type Reply, Routine, Snapshot } from "@effect-orchestra/core"
import { nodeOf } from "@effect-orchestra/core/MailboxNode"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Option, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"

const forked = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

const turns = Effect.forEach([1, 2, 3, 4], () => Effect.yieldNow, { discard: true })

/** Whether every message that was taken over is accounted for. */
const adds = ({ deadLettered, dropped, handling, length, received, sent, undelivered }: Snapshot.MailboxStats) =>
  assert.strictEqual(sent, received + dropped + deadLettered + undelivered + handling + length)

/** A mailbox in a scope of its own, what of it was undelivered, and how to close it. */
const closable = Effect.fnUntraced(function*<A, E = never>(options: Mailbox.MailboxOptions<A>) {
  const scope = yield* Scope.make()
  const lost: Array<readonly [A, Mailbox.UndeliveredReason]> = []
  const mailbox = yield* Mailbox.make<A, E>({
    ...options,
    onUndelivered: (message, reason) => void lost.push([message, reason])
  }).pipe(Scope.provide(scope))
  return { mailbox, lost, close: Scope.close(scope, Exit.void) }
})

const reasonOf = <A, E>(effect: Effect.Effect<A, E>) =>
  Effect.map(Effect.flip(effect), (error) => error instanceof CoreError.MailboxClosed ? error.reason : error)

describe("Mailbox", () => {
  describe("sending and receiving", () => {
    it.effect("hands on messages in the order they were sent", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 3 })
        yield* Mailbox.sendAll(mailbox, [1, 2])
        yield* Effect.orDie(Mailbox.send(3)(mailbox))
        assert.deepStrictEqual([yield* Mailbox.receive(mailbox), yield* Mailbox.receive(mailbox)], [1, 2])
        assert.deepStrictEqual(yield* Mailbox.tryReceive(mailbox), Option.some(3))
        assert.deepStrictEqual(yield* Mailbox.tryReceive(mailbox), Option.none())
      }))

    it.effect("serves receivers in the order they came", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 3 })
        const first = yield* forked(Mailbox.receive(mailbox))
        const second = yield* forked(Mailbox.receive(mailbox))
        yield* Mailbox.sendAll(mailbox, [1, 2])
        const third = yield* forked(Mailbox.receive(mailbox))
        yield* Mailbox.send(mailbox, 3)
        assert.deepStrictEqual(yield* Fiber.joinAll([first, second, third]), [1, 2, 3])
      }))

    it.effect("lets nobody overtake a sender that waits", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 1 })
        yield* Mailbox.send(mailbox, 1)
        const blocked = yield* forked(Mailbox.send(mailbox, 2))
        assert.strictEqual(yield* Mailbox.receive(mailbox), 1)
        assert.isFalse(yield* Mailbox.trySend(mailbox, 3))
        yield* Fiber.join(blocked)
        assert.strictEqual(yield* Mailbox.receive(mailbox), 2)
      }))

    it.effect("a sender that is interrupted while it waits has sent nothing", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 1 })
        yield* Mailbox.send(mailbox, 1)
        const blocked = yield* forked(Mailbox.sendAll(mailbox, [2, 3]))
        const behind = yield* forked(Mailbox.send(mailbox, 4))
        yield* Fiber.interrupt(blocked)
        assert.strictEqual(yield* Mailbox.receive(mailbox), 1)
        yield* Fiber.join(behind)
        assert.deepStrictEqual(yield* Mailbox.receiveAll(mailbox), [4])
        assert.strictEqual(mailbox.stats.sent, 2)
      }))

    it.effect("sendAll waits with what has no room, whatever becomes of the caller's array", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 2 })
        const messages = [1, 2, 3, 4, 5]
        const sending = yield* forked(Mailbox.sendAll(mailbox, messages))
        messages.length = 0
        assert.deepStrictEqual(yield* Mailbox.receiveBetween(mailbox, 2, 2), [1, 2])
        assert.deepStrictEqual(yield* Mailbox.receiveBetween(mailbox, 2, 2), [3, 4])
        yield* Fiber.join(sending)
        assert.deepStrictEqual(yield* Mailbox.receiveAll(mailbox), [5])
      }))

    it.effect("receiveBetween waits for its minimum, for what it holds, or for its end", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 3 })
        assert.deepStrictEqual(yield* Mailbox.receiveBetween(mailbox, 0, 2), [])
        const two = yield* forked(Mailbox.receiveBetween(mailbox, 2, 5))
        yield* Mailbox.send(mailbox, 1)
        yield* turns
        assert.isUndefined(two.pollUnsafe())
        yield* Mailbox.send(mailbox, 2)
        assert.deepStrictEqual(yield* Fiber.join(two), [1, 2])
        const many = yield* forked(Mailbox.receiveBetween(mailbox, 9, Infinity))
        yield* Mailbox.sendAll(mailbox, [3, 4, 5])
        assert.deepStrictEqual(yield* Fiber.join(many), [3, 4, 5])
        const rest = yield* forked(Mailbox.receiveBetween(mailbox, 3, 3))
        yield* Mailbox.send(mailbox, 6)
        yield* Mailbox.end(mailbox)
        assert.deepStrictEqual(yield* Fiber.join(rest), [6])
      }))

    it.effect("a receiver that wants more does not keep others from what there is", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 3 })
        const two = yield* forked(Mailbox.receiveBetween(mailbox, 2, 2))
        const one = yield* forked(Mailbox.receive(mailbox))
        yield* Mailbox.send(mailbox, 1)
        assert.strictEqual(yield* Fiber.join(one), 1)
        yield* Mailbox.sendAll(mailbox, [2, 3])
        assert.deepStrictEqual(yield* Fiber.join(two), [2, 3])
      }))
  })

  describe("overflow", () => {
    it.effect("48. each policy does what it says when the mailbox is full, and counts what it drops", () =>
      Effect.gen(function*() {
        const full = Effect.fnUntraced(function*(overflow: Mailbox.Overflow) {
          const opened = yield* closable<number>({ capacity: 2, overflow })
          yield* Mailbox.sendAll(opened.mailbox, [1, 2])
          return opened
        })

        const suspend = yield* full("suspend")
        const blocked = yield* forked(Mailbox.send(suspend.mailbox, 3))
        yield* turns
        assert.isUndefined(blocked.pollUnsafe())
        assert.isFalse(yield* Mailbox.trySend(suspend.mailbox, 4))
        assert.strictEqual(Mailbox.offerUnsafe(suspend.mailbox, 4), "full")
        yield* Mailbox.receive(suspend.mailbox)
        yield* Fiber.join(blocked)
        assert.deepStrictEqual(yield* Mailbox.receiveAll(suspend.mailbox), [2, 3])
        assert.strictEqual(suspend.mailbox.stats.dropped, 0)

        const dropNew = yield* full("drop_new")
        yield* Mailbox.send(dropNew.mailbox, 3)
        yield* Mailbox.sendAll(dropNew.mailbox, [4, 5])
        assert.isFalse(yield* Mailbox.trySend(dropNew.mailbox, 6))
        assert.strictEqual(Mailbox.offerUnsafe(dropNew.mailbox, 7), "dropped")
        assert.deepStrictEqual(dropNew.lost, [[3, "dropped"], [4, "dropped"], [5, "dropped"], [7, "dropped"]])
        assert.deepStrictEqual(yield* Mailbox.receiveAll(dropNew.mailbox), [1, 2])
        assert.strictEqual(dropNew.mailbox.stats.dropped, 4)

        const dropOld = yield* full("drop_old")
        yield* Mailbox.send(dropOld.mailbox, 3)
        assert.isTrue(yield* Mailbox.trySend(dropOld.mailbox, 4))
        assert.strictEqual(Mailbox.offerUnsafe(dropOld.mailbox, 5), "sent")
        assert.deepStrictEqual(dropOld.lost, [[1, "dropped"], [2, "dropped"], [3, "dropped"]])
        assert.deepStrictEqual(yield* Mailbox.receiveAll(dropOld.mailbox), [4, 5])
        assert.strictEqual(dropOld.mailbox.stats.dropped, 3)

        const fail = yield* full("fail")
        const refused = yield* Effect.flip(Mailbox.send(fail.mailbox, 3))
        assert.strictEqual(refused.message, "mailbox /mailbox/mailbox is full: it holds 2")
        yield* Mailbox.receive(fail.mailbox)
        assert.strictEqual((yield* Effect.flip(Mailbox.sendAll(fail.mailbox, [3, 4])))._tag, "MailboxFull")
        assert.deepStrictEqual(yield* Mailbox.receiveAll(fail.mailbox), [2])
        assert.strictEqual(fail.mailbox.stats.dropped, 0)

        for (const { mailbox } of [suspend, dropNew, dropOld, fail]) adds(yield* Mailbox.stats(mailbox))
      }))

    it.effect("is told once, and again when the mailbox has been half empty", () =>
      Effect.gen(function*() {
        const told: Array<Event.OrchestratorEvent> = []
        yield* Orchestrator.instrument((event) => void (event._tag === "MailboxFull" && told.push(event)))
        const mailbox = yield* Mailbox.make<number>({ name: "jobs", capacity: 4, overflow: "drop_old" })
        yield* Mailbox.sendAll(mailbox, [1, 2, 3, 4])
        for (const message of [5, 6]) yield* Mailbox.send(mailbox, message)
        yield* Mailbox.receive(mailbox)
        yield* Mailbox.send(mailbox, 7)
        assert.lengthOf(told, 1)
        assert.deepInclude(told[0], { path: "/orchestra/jobs", capacity: 4 })
        yield* Mailbox.receiveBetween(mailbox, 2, 2)
        yield* Mailbox.sendAll(mailbox, [8, 9])
        assert.lengthOf(told, 2)
      }).pipe(Effect.provide(Orchestrator.layer)))

    it.effect("what onUndelivered throws does not reach the sender", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({
          capacity: 1,
          overflow: "drop_new",
          onUndelivered: () => {
            throw new Error("careless")
          }
        })
        yield* Mailbox.sendAll(mailbox, [1, 2])
        assert.strictEqual(mailbox.stats.dropped, 1)
      }))
  })

  describe("the end", () => {
    it.effect("49. the last sender that closes ends it for receivers, the last receiver breaks it for senders", () =>
      Effect.gen(function*() {
        const ending = yield* closable<number>({ capacity: 4 })
        const [one, two] = [yield* Scope.make(), yield* Scope.make()]
        const sender = yield* Mailbox.sender(ending.mailbox).pipe(Scope.provide(one))
        yield* Mailbox.sender(ending.mailbox).pipe(Scope.provide(two))
        yield* Mailbox.sendAll(sender, [1, 2])
        yield* Scope.close(one, Exit.void)
        yield* Mailbox.send(ending.mailbox, 3)
        yield* Scope.close(two, Exit.void)
        assert.strictEqual(yield* reasonOf(Mailbox.send(ending.mailbox, 4)), "ended")
        assert.strictEqual(yield* reasonOf(Effect.scoped(Mailbox.sender(ending.mailbox))), "ended")
        assert.deepStrictEqual(yield* Stream.runCollect(Mailbox.stream(ending.mailbox)), [1, 2, 3])
        assert.strictEqual(yield* reasonOf(Mailbox.receive(ending.mailbox)), "ended")

        const breaking = yield* closable<number>({ capacity: 1 })
        const [first, last] = [yield* Scope.make(), yield* Scope.make()]
        yield* Mailbox.receiver(breaking.mailbox).pipe(Scope.provide(first))
        const receiver = yield* Mailbox.receiver(breaking.mailbox).pipe(Scope.provide(last))
        yield* Mailbox.send(breaking.mailbox, 1)
        const blocked = yield* forked(Mailbox.send(breaking.mailbox, 2))
        yield* Scope.close(first, Exit.void)
        assert.strictEqual(yield* Mailbox.receive(receiver), 1)
        yield* Fiber.join(blocked)
        const broken = yield* forked(Mailbox.send(breaking.mailbox, 3))
        yield* Scope.close(last, Exit.void)
        assert.strictEqual(yield* reasonOf(Fiber.join(broken)), "closed")
        assert.strictEqual(yield* reasonOf(Mailbox.send(breaking.mailbox, 4)), "closed")
        assert.strictEqual(yield* reasonOf(Effect.scoped(Mailbox.receiver(breaking.mailbox))), "closed")
        assert.deepStrictEqual(breaking.lost, [[2, "closed"], [3, "closed"]])
        adds(breaking.mailbox.stats)
      }))

    it.effect("drains what is inside and what senders wait with, then fails receivers with the error", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number, string>({ capacity: 1 })
        yield* Mailbox.send(mailbox, 1)
        const blocked = yield* forked(Mailbox.send(mailbox, 2))
        assert.isTrue(yield* Mailbox.fail(mailbox, "boom"))
        assert.isFalse(yield* Mailbox.end(mailbox))
        assert.strictEqual(yield* reasonOf(Mailbox.send(mailbox, 3)), "failed")
        assert.deepStrictEqual([yield* Mailbox.receive(mailbox), yield* Mailbox.receive(mailbox)], [1, 2])
        yield* Fiber.join(blocked)
        assert.deepStrictEqual(yield* Effect.exit(Mailbox.receive(mailbox)), Exit.fail("boom"))
        assert.deepStrictEqual(yield* Effect.exit(Stream.runDrain(Mailbox.stream(mailbox))), Exit.fail("boom"))
        assert.deepStrictEqual(yield* Mailbox.tryReceive(mailbox), Option.none())
      }))

    it.effect("wakes every receiver that waits", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 1 })
        const waiting = [
          yield* forked(reasonOf(Mailbox.receive(mailbox))),
          yield* forked(reasonOf(Mailbox.receiveAll(mailbox))),
          yield* forked(reasonOf(Mailbox.receiveWith(mailbox, () => Effect.void)))
        ]
        yield* Mailbox.end(mailbox)
        assert.deepStrictEqual(yield* Fiber.joinAll(waiting), ["ended", "ended", "ended"])
        assert.strictEqual(mailbox.stats.blockedReceivers, 0)
      }))

    it.effect("a closing scope gives back what is left, once, and fails who waits and who comes", () =>
      Effect.gen(function*() {
        const { close, lost, mailbox } = yield* closable<number>({ capacity: 2 })
        yield* Mailbox.sendAll(mailbox, [1, 2])
        const blocked = yield* forked(reasonOf(Mailbox.sendAll(mailbox, [3, 4])))
        yield* close
        assert.strictEqual(yield* Fiber.join(blocked), "closed")
        assert.deepStrictEqual(lost, [[1, "closed"], [2, "closed"], [3, "closed"], [4, "closed"]])
        assert.deepInclude(mailbox.stats, { sent: 4, undelivered: 4, length: 0, blockedSenders: 0 })
        const late: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
          Mailbox.send(mailbox, 5),
          Mailbox.sendAll(mailbox, [5]),
          Mailbox.receive(mailbox),
          Mailbox.receiveAll(mailbox),
          Mailbox.receiveBetween(mailbox, 0, 1),
          Mailbox.receiveWith(mailbox, () => Effect.void),
          Mailbox.ask(mailbox, () => 5),
          Stream.runDrain(Mailbox.stream(mailbox))
        ]
        for (const effect of late) assert.strictEqual(yield* reasonOf(effect), "closed")
        assert.isFalse(yield* Mailbox.trySend(mailbox, 5))
        assert.strictEqual(Mailbox.offerUnsafe(mailbox, 5), "closed")
        assert.deepStrictEqual(yield* Mailbox.tryReceive(mailbox), Option.none())
        assert.isFalse(yield* Mailbox.end(mailbox))
      }))

    it.effect("an end that loses messages does not pass for one", () =>
      Effect.gen(function*() {
        const { close, mailbox } = yield* closable<number>({ capacity: 2 })
        const waiting = yield* forked(reasonOf(Mailbox.receiveBetween(mailbox, 2, 2)))
        yield* Mailbox.send(mailbox, 1)
        yield* Mailbox.end(mailbox)
        yield* close
        assert.strictEqual(yield* Fiber.join(waiting), "closed")
        assert.strictEqual(yield* reasonOf(Stream.runDrain(Mailbox.stream(mailbox))), "closed")
        const whole = yield* closable<number>({ capacity: 2 })
        yield* Mailbox.end(whole.mailbox)
        yield* whole.close
        assert.deepStrictEqual(yield* Stream.runCollect(Mailbox.stream(whole.mailbox)), [])
      }))

    it.effect("fails at once in a finalizer that runs after it", () =>
      Effect.gen(function*() {
        let seen: unknown = undefined
        yield* Effect.scoped(Effect.gen(function*() {
          const holder: { mailbox?: Mailbox.Mailbox<number> } = {}
          yield* Effect.addFinalizer(() =>
            Effect.gen(function*() {
              if (holder.mailbox !== undefined) seen = yield* Effect.exit(reasonOf(Mailbox.send(holder.mailbox, 1)))
            })
          )
          holder.mailbox = yield* Mailbox.make<number>({ capacity: 1 })
        }))
        assert.deepStrictEqual(seen, Exit.succeed("closed"))
      }))
  })

  describe("what is seen of it", () => {
    it.effect("stands in the tree, under the routine that makes it, until its scope closes", () =>
      Effect.gen(function*() {
        const maker = Effect.andThen(Mailbox.make<number>({ name: "jobs", capacity: 1 }), Effect.never)
        const routine = yield* Orchestrator.fork(maker, { name: "worker" })
        const nodes = yield* Orchestrator.snapshot
        assert.deepStrictEqual(nodes.map(({ id, path }) => `${id} ${path}`), [
          "o-0 /orchestra",
          "r-1 /orchestra/worker",
          "m-2 /orchestra/worker/jobs"
        ])
        for (const node of nodes) yield* Schema.encodeEffect(Snapshot.NodeSnapshot)(node)
        yield* Routine.interrupt(routine)
        assert.lengthOf(yield* Orchestrator.snapshot, 1)
      }).pipe(Effect.provide(Orchestrator.layer)))

    it.effect("says whether it runs, drains or has ended", () =>
      Effect.gen(function*() {
        const states = Effect.map(Orchestrator.snapshot, (nodes) =>
          nodes.slice(1).map(({ health, state }) => [state, health]))
        const mailbox = yield* Mailbox.make<number, string>({ capacity: 1 })
        yield* Mailbox.send(mailbox, 1)
        assert.deepStrictEqual(yield* states, [["running", "ok"]])
        yield* Mailbox.fail(mailbox, "boom")
        assert.deepStrictEqual(yield* states, [["stopping", "ok"]])
        yield* Mailbox.receive(mailbox)
        assert.deepStrictEqual(yield* states, [["failed", "failed"]])
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))

    it.effect("51. a sender that is blocked for good shows how long it has waited, while it waits", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 1 })
        yield* Mailbox.send(mailbox, 1)
        const one = yield* forked(Mailbox.send(mailbox, 2))
        yield* TestClock.adjust("3 seconds")
        const two = yield* forked(Mailbox.send(mailbox, 3))
        yield* TestClock.adjust("2 seconds")
        assert.deepInclude(yield* Mailbox.stats(mailbox), { blockedSenders: 2, blockedSendMillis: 7000 })
        yield* Fiber.interrupt(one)
        yield* Mailbox.receive(mailbox)
        yield* Fiber.join(two)
        yield* TestClock.adjust("1 minute")
        assert.deepInclude(yield* Mailbox.stats(mailbox), { blockedSenders: 0, blockedSendMillis: 7000 })
        yield* Mailbox.receive(mailbox)
        const receiver = yield* forked(Mailbox.receive(mailbox))
        yield* TestClock.adjust("4 seconds")
        assert.deepInclude(yield* Mailbox.stats(mailbox), { blockedReceivers: 1, blockedReceiveMillis: 4000 })
        yield* Fiber.interrupt(receiver)
      }))

    it.effect("a wait counts as blocked time of the routine that waits", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 1 })
        const routine = yield* Orchestrator.fork(Mailbox.receive(mailbox))
        yield* TestClock.adjust("5 seconds")
        assert.strictEqual((yield* Routine.stats(routine)).blockedMillis, 5000)
        yield* Mailbox.send(mailbox, 1)
        assert.strictEqual(yield* Routine.join(routine), 1)
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))

    it.effect("belongs to a routine that has it among its resources", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 8, sizeOf: (n) => n })
        yield* Mailbox.sendAll(mailbox, [10, 20])
        const routine = yield* Orchestrator.fork(Effect.never, { resources: [mailbox] })
        assert.deepStrictEqual((yield* Routine.stats(routine)).queue, { length: 2, capacity: 8, bytes: 30 })
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))

    it.effect("asks for the size of each message once", () =>
      Effect.gen(function*() {
        const asked: Array<number> = []
        const mailbox = yield* Mailbox.make<number>({
          capacity: 2,
          sizeOf: (n) => {
            asked.push(n)
            return n
          }
        })
        yield* Mailbox.sendAll(mailbox, [1, 2])
        const blocked = yield* forked(Mailbox.send(mailbox, 4))
        yield* Mailbox.receiveWith(mailbox, () => Effect.fail("again"))
        assert.strictEqual(mailbox.stats.bytes, 3)
        assert.strictEqual(yield* Mailbox.receive(mailbox), 1)
        yield* Fiber.join(blocked)
        assert.strictEqual(mailbox.stats.bytes, 6)
        assert.deepStrictEqual(yield* Mailbox.receiveAll(mailbox), [2, 4])
        assert.strictEqual(mailbox.stats.bytes, 0)
        assert.deepStrictEqual(asked, [1, 2, 4])
      }))
  })

  describe("receiveWith", () => {
    const letters: Array<Mailbox.DeadLetter<string>> = []

    it.effect("53. a worker that crashes while it handles a message has it redelivered, dead-lettered or dropped, and counted", () =>
      Effect.gen(function*() {
        const dead = yield* Mailbox.make<Mailbox.DeadLetter<string>>({ capacity: 8 })
        const { lost, mailbox } = yield* closable<string>({ capacity: 8, deadLetter: dead })
        const tries: Array<string> = []
        const worker = (onFailure: Mailbox.OnFailure) =>
          Mailbox.receiveWith(mailbox, (message, { attempt }) => {
            tries.push(`${message}${attempt}`)
            return message === "ok" ? Effect.succeed("done") : message === "bug" ? Effect.die("bug") : Effect.fail("no")
          }, { onFailure, attempts: 2 })
        const dump = Effect.map(
          Mailbox.receiveAll(dead),
          (all) => all.map(({ attempts, cause, message, reason }) => [message, reason, attempts, Cause.squash(cause)])
        )

        yield* Mailbox.sendAll(mailbox, ["bad", "ok"])
        assert.deepStrictEqual(yield* worker("redeliver"), Exit.fail("no"))
        assert.deepInclude(mailbox.stats, { length: 2, redelivered: 1, received: 0 })
        yield* worker("redeliver")
        assert.deepStrictEqual(yield* worker("redeliver"), Exit.succeed("done"))
        assert.deepStrictEqual(tries, ["bad1", "bad2", "ok1"])
        assert.deepStrictEqual(yield* dump, [["bad", "failed", 2, "no"]])
        assert.deepInclude(mailbox.stats, { length: 0, redelivered: 1, received: 1, deadLettered: 1 })

        yield* Mailbox.sendAll(mailbox, ["bug", "bad"])
        yield* worker("dead_letter")
        assert.deepStrictEqual(yield* dump, [["bug", "failed", 1, "bug"]])
        yield* worker("drop")
        assert.deepStrictEqual(lost, [["bad", "dropped"]])
        assert.deepInclude(mailbox.stats, { sent: 4, dropped: 1, deadLettered: 2, undelivered: 0 })
        adds(mailbox.stats)
      }))

    it.effect("a loop of it goes on past failing messages", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 8 })
        const seen: Array<number> = []
        yield* Mailbox.sendAll(mailbox, [1, 2, 3])
        yield* Mailbox.end(mailbox)
        const worker = Mailbox.receiveWith(
          mailbox,
          (n, { attempt }) => n === 2 && attempt < 3 ? Effect.fail("no") : Effect.sync(() => void seen.push(n))
        )
        assert.strictEqual(yield* reasonOf(Effect.forever(worker)), "ended")
        assert.deepStrictEqual(seen, [1, 2, 3])
        assert.strictEqual(mailbox.stats.redelivered, 2)
      }))

    it.effect("an interrupted handler's message is the next one again, and its attempt does not count", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 8 })
        yield* Mailbox.sendAll(mailbox, [1, 2])
        for (const onFailure of ["redeliver", "dead_letter", "drop"] as const) {
          const hanging = yield* forked(Mailbox.receiveWith(mailbox, () => Effect.never, { onFailure, attempts: 1 }))
          assert.deepInclude(mailbox.stats, { handling: 1, length: 1 })
          yield* Fiber.interrupt(hanging)
          assert.deepInclude(mailbox.stats, { handling: 0, length: 2, redelivered: 0, deadLettered: 0, dropped: 0 })
        }
        const seen = yield* Mailbox.receiveWith(mailbox, (n, { attempt }) => Effect.succeed([n, attempt]))
        assert.deepStrictEqual(seen, Exit.succeed([1, 1]))
      }))

    it.effect("a handler that ends with an interruption that nobody asked of it has failed", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 8 })
        yield* Mailbox.send(mailbox, 1)
        const exit = yield* Mailbox.receiveWith(mailbox, () => Effect.interrupt)
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        assert.deepInclude(mailbox.stats, { redelivered: 1, length: 1 })
      }))

    it.effect("what failed with no dead letters to go to is undelivered", () =>
      Effect.gen(function*() {
        const { lost, mailbox } = yield* closable<number>({ capacity: 8 })
        yield* Mailbox.send(mailbox, 1)
        yield* Mailbox.receiveWith(mailbox, () => Effect.fail("no"), { onFailure: "dead_letter" })
        assert.deepStrictEqual(lost, [[1, "failed"]])
        assert.deepInclude(mailbox.stats, { undelivered: 1, deadLettered: 0 })
      }))

    it.effect("dead letters that have no room block nobody", () =>
      Effect.gen(function*() {
        const dead = yield* Mailbox.make<Mailbox.DeadLetter<number>>({ capacity: 1 })
        const { close, lost, mailbox } = yield* closable<number>({ capacity: 8, deadLetter: dead })
        yield* Mailbox.sendAll(mailbox, [1, 2, 3])
        const worker = Mailbox.receiveWith(mailbox, () => Effect.fail("no"), { onFailure: "dead_letter" })
        yield* worker
        yield* worker
        assert.deepStrictEqual(lost, [[2, "failed"]])
        yield* Mailbox.receive(dead)
        yield* close
        const { attempts, message, reason } = yield* Mailbox.receive(dead)
        assert.deepStrictEqual([message, reason, attempts], [3, "closed", 0])
        assert.deepInclude(mailbox.stats, { deadLettered: 2, undelivered: 1 })
        adds(mailbox.stats)
      }))

    it.effect("dead letters may be an effect, whose defect loses no message silently", () =>
      Effect.gen(function*() {
        const { lost, mailbox } = yield* closable<string>({
          capacity: 8,
          deadLetter: (letter) =>
            letter.message === "worse"
              ? Effect.die("dead letter")
              : Effect.andThen(Effect.yieldNow, Effect.sync(() => void letters.push(letter)))
        })
        yield* Mailbox.sendAll(mailbox, ["bad", "worse"])
        const worker = Mailbox.receiveWith(mailbox, () => Effect.fail("no"), { onFailure: "dead_letter" })
        yield* worker
        yield* worker
        assert.deepStrictEqual(letters.map(({ message }) => message), ["bad"])
        assert.deepStrictEqual(lost, [["worse", "failed"]])
        adds(mailbox.stats)
      }))

    it.effect("what is handled while the mailbox is closed is undelivered if it fails", () =>
      Effect.gen(function*() {
        const { close, lost, mailbox } = yield* closable<number>({ capacity: 8 })
        yield* Mailbox.sendAll(mailbox, [1, 2])
        const fails = yield* forked(
          Mailbox.receiveWith(mailbox, () => Effect.andThen(Effect.yieldNow, Effect.fail("no")))
        )
        const hangs = yield* forked(Mailbox.receiveWith(mailbox, () => Effect.never))
        yield* close
        yield* Fiber.join(fails)
        yield* Fiber.interrupt(hangs)
        assert.deepStrictEqual(lost, [[1, "closed"], [2, "closed"]])
        adds(mailbox.stats)
      }))
  })

  describe("ask", () => {
    interface Question {
      readonly n: number
      readonly reply: Reply.Reply<number, string>
    }
    const double = (reply: Reply.Reply<number, string>): Question => ({ n: 21, reply })

    it.effect("returns the answer, or fails with the error it is answered with", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<Question>({ capacity: 1 })
        const answers = yield* forked(Effect.forEach([1, 2, 3], () => Effect.exit(Mailbox.ask(mailbox, double))))
        const first = yield* Mailbox.receive(mailbox)
        assert.isTrue(yield* Mailbox.reply(first.reply, 42))
        assert.isFalse(yield* Mailbox.reply(first.reply, 43))
        yield* Mailbox.receiveWith(mailbox, ({ n, reply }) => Mailbox.reply(n * 2)(reply))
        yield* Effect.flatMap(Mailbox.receive(mailbox), ({ reply }) => Mailbox.replyFail(reply, "odd"))
        assert.deepStrictEqual(yield* Fiber.join(answers), [Exit.succeed(42), Exit.succeed(42), Exit.fail("odd")])
      }))

    it.effect("times out after 5 seconds or as it says, and drops a late answer", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<Question>({ capacity: 2 })
        const asking = yield* forked(Effect.flip(Mailbox.ask(mailbox, double)))
        const { reply } = yield* Mailbox.receive(mailbox)
        yield* TestClock.adjust("4999 millis")
        assert.isUndefined(asking.pollUnsafe())
        yield* TestClock.adjust("1 millis")
        assert.deepInclude(yield* Fiber.join(asking), { _tag: "AskTimeout", waitedMillis: 5000 })
        assert.isFalse(yield* Mailbox.reply(reply, 42))
        const patient = yield* forked(Mailbox.ask(mailbox, double, { timeout: Infinity }))
        yield* TestClock.adjust("1 hour")
        yield* Effect.flatMap(Mailbox.receive(mailbox), ({ reply }) => Mailbox.reply(reply, 42))
        assert.strictEqual(yield* Fiber.join(patient), 42)
      }))

    it.effect("the timeout holds while the question waits for room, and then it was not sent", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<Question | string>({ capacity: 1 })
        yield* Mailbox.send(mailbox, "full")
        const asking = yield* forked(Effect.flip(Mailbox.ask(mailbox, double, { timeout: "1 second" })))
        yield* TestClock.adjust("1 second")
        assert.deepInclude(yield* Fiber.join(asking), { _tag: "AskTimeout", waitedMillis: 1000 })
        assert.deepStrictEqual(yield* Mailbox.receiveAll(mailbox), ["full"])
        yield* turns
        assert.deepInclude(mailbox.stats, { length: 0, blockedSenders: 0 })
      }))

    it.effect("fails at once when the question is dropped or given up, or the mailbox closes", () =>
      Effect.gen(function*() {
        const endless = { timeout: Infinity }
        const dropping = yield* Mailbox.make<Question>({ capacity: 1, overflow: "drop_old" })
        const dropped = yield* forked(Effect.flip(Mailbox.ask(dropping, double, endless)))
        const failed = yield* forked(Effect.flip(Mailbox.ask(dropping, double, endless)))
        assert.deepInclude(yield* Fiber.join(dropped), { _tag: "Unanswered", reason: "dropped" })
        yield* Mailbox.receiveWith(dropping, () => Effect.fail("no"), { attempts: 1 })
        assert.deepInclude(yield* Fiber.join(failed), { _tag: "Unanswered", reason: "failed" })

        const full = yield* Mailbox.make<Question>({ capacity: 1, overflow: "fail" })
        yield* forked(Mailbox.ask(full, double))
        const { questions } = nodeOf(full)
        assert.deepInclude(yield* Effect.flip(Mailbox.ask(full, double)), { _tag: "MailboxFull", capacity: 1 })
        assert.strictEqual(questions?.size, 1)

        const { close, mailbox } = yield* closable<Question>({ capacity: 1 })
        const received = yield* forked(reasonOf(Mailbox.ask(mailbox, double, endless)))
        yield* Mailbox.receive(mailbox)
        const inside = yield* forked(reasonOf(Mailbox.ask(mailbox, double, endless)))
        const waiting = yield* forked(reasonOf(Mailbox.ask(mailbox, double, endless)))
        yield* close
        assert.deepStrictEqual(yield* Fiber.joinAll([received, inside, waiting]), ["closed", "closed", "closed"])
      }))
  })

  describe("stream", () => {
    it.effect("takes what is inside in chunks, as large as asked", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 8 })
        yield* Mailbox.sendAll(mailbox, [1, 2, 3, 4, 5])
        yield* Mailbox.end(mailbox)
        const chunks = yield* Stream.runCollect(Stream.chunks(Mailbox.stream(mailbox, { chunk: 2 })))
        assert.deepStrictEqual(chunks, [[1, 2], [3, 4], [5]])
      }))

    it.effect("cut with chunks of one, it leaves what it has not handed on", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 8 })
        yield* Mailbox.sendAll(mailbox, [1, 2, 3])
        const taken = yield* Stream.runCollect(Stream.take(Mailbox.stream(mailbox, { chunk: 1 }), 2))
        assert.deepStrictEqual(taken, [1, 2])
        assert.deepStrictEqual(yield* Mailbox.receiveAll(mailbox), [3])
      }))

    it.effect("interrupted, it gives back the chunk that it was at, sizes and all", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 8, sizeOf: (n) => n })
        yield* Mailbox.sendAll(mailbox, [1, 2, 3, 4])
        const seen: Array<number> = []
        const running = yield* forked(Stream.runForEach(Mailbox.stream(mailbox, { chunk: 3 }), (n) => {
          seen.push(n)
          return n === 2 ? Effect.never : Effect.void
        }))
        yield* turns
        assert.deepInclude(mailbox.stats, { length: 1, received: 3, bytes: 4 })
        yield* Fiber.interrupt(running)
        assert.deepStrictEqual(seen, [1, 2])
        assert.deepInclude(mailbox.stats, { length: 4, received: 0, bytes: 10 })
        assert.deepStrictEqual(yield* Mailbox.receiveAll(mailbox), [1, 2, 3, 4])
        adds(mailbox.stats)
      }))

    it.effect("fails when the scope of the mailbox closes, and does not pass for ended", () =>
      Effect.gen(function*() {
        const { close, mailbox } = yield* closable<number>({ capacity: 8 })
        const running = yield* forked(reasonOf(Stream.runDrain(Mailbox.stream(mailbox))))
        yield* turns
        yield* close
        assert.strictEqual(yield* Fiber.join(running), "closed")
      }))
  })

  describe("malformed constants", () => {
    const message = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
      Effect.map(Effect.exit(effect), (exit) => {
        const defect = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
        return defect instanceof Error ? defect.message : "none"
      })

    it.effect("are defects that name the value", () =>
      Effect.gen(function*() {
        for (const capacity of [0, -1, 1.5, NaN, Infinity]) {
          const said = `a mailbox's capacity is a positive integer, got: ${capacity}`
          assert.strictEqual(yield* message(Mailbox.make({ capacity })), said)
        }
        const mailbox = yield* Mailbox.make<number>({ capacity: 1 })
        for (const bad of [-1, NaN, 0.5]) {
          assert.include(yield* message(Mailbox.receiveBetween(mailbox, bad, 1)), `got: ${bad}`)
          assert.include(yield* message(Mailbox.receiveBetween(mailbox, 0, bad)), `got: ${bad}`)
          assert.include(
            yield* message(Mailbox.receiveWith(mailbox, () => Effect.void, { attempts: bad })),
            `got: ${bad}`
          )
          assert.include(yield* message(Stream.runDrain(Mailbox.stream(mailbox, { chunk: bad }))), `got: ${bad}`)
        }
        assert.include(yield* message(Mailbox.receiveBetween(mailbox, 3, 2)), "got: 2")
        for (const timeout of [-1, NaN, "-1 seconds"] as const) {
          assert.include(yield* message(Mailbox.ask(mailbox, () => 1, { timeout })), `got: ${timeout}`)
        }
        for (const size of [-1, NaN, 0.5]) {
          const sized = yield* Mailbox.make<number>({ capacity: 1, sizeOf: () => size })
          assert.include(yield* message(Mailbox.send(sized, 1)), `got: ${size}`)
          assert.strictEqual(sized.stats.length, 0)
        }
      }))
  })

  describe("long chains", () => {
    it.effect("hand on messages, room and the end through 2,000 stages without nesting", () =>
      Effect.gen(function*() {
        const stages: Array<Mailbox.Mailbox<number>> = []
        for (let i = 0; i < 2000; i++) stages.push(yield* Mailbox.make<number>({ capacity: 1 }))
        for (const [i, next] of stages.slice(1).entries()) {
          const stage = Effect.flatMap(Mailbox.receive(stages[i] ?? next), (n) => Mailbox.send(next, n + 1))
          yield* forked(Effect.andThen(Effect.ignore(Effect.forever(stage)), Mailbox.end(next)))
        }
        const [first] = stages
        const last = stages.at(-1)
        if (first === undefined || last === undefined) return
        yield* forked(Effect.andThen(Mailbox.sendAll(first, [0, 1, 2]), Mailbox.end(first)))
        assert.deepStrictEqual(yield* Stream.runCollect(Mailbox.stream(last)), [1999, 2000, 2001])
      }))

    it.effect("answer 1,000 questions that wait for each other without nesting", () =>
      Effect.gen(function*() {
        type Question = Reply.Reply<number>
        const question = (reply: Question) => reply
        const stages: Array<Mailbox.Mailbox<Question>> = []
        for (let i = 0; i < 1000; i++) stages.push(yield* Mailbox.make<Question>({ capacity: 1 }))
        for (const [i, stage] of stages.entries()) {
          const next = stages[i + 1]
          const depth = next === undefined
            ? Effect.succeed(1)
            : Effect.map(Mailbox.ask(next, question), (depth) => depth + 1)
          yield* forked(
            Mailbox.receiveWith(stage, (reply) => Effect.flatMap(depth, (depth) => Mailbox.reply(reply, depth)))
          )
        }
        for (const first of stages.slice(0, 1)) assert.strictEqual(yield* Mailbox.ask(first, question), 1000)
      }))
  })

  describe("with 100,000 that wait", () => {
    const waiting = <A, E>(effect: Effect.Effect<A, E>) =>
      Effect.gen(function*() {
        const fibers: Array<Fiber.Fiber<A, E>> = []
        for (let i = 0; i < 100_000; i++) fibers.push(yield* Effect.forkDetach(effect, { startImmediately: true }))
        return fibers
      })

    it.effect("senders are interrupted or closed in time linear in their number", () =>
      Effect.gen(function*() {
        const { close, lost, mailbox } = yield* closable<number>({ capacity: 1 })
        yield* Mailbox.send(mailbox, 0)
        const fibers = yield* waiting(Mailbox.send(mailbox, 1))
        assert.strictEqual(mailbox.stats.blockedSenders, 100_000)
        for (const fiber of fibers.slice(50_000)) fiber.interruptUnsafe()
        assert.strictEqual(mailbox.stats.blockedSenders, 50_000)
        yield* close
        for (const fiber of fibers) yield* Fiber.await(fiber)
        assert.lengthOf(lost, 50_001)
      }))

    it.effect("receivers are served, interrupted or ended in time linear in their number", () =>
      Effect.gen(function*() {
        const mailbox = yield* Mailbox.make<number>({ capacity: 100_000 })
        const fibers = yield* waiting(Mailbox.receive(mailbox))
        yield* Mailbox.sendAll(mailbox, Array.from({ length: 40_000 }, (_, i) => i))
        for (const fiber of fibers.slice(70_000)) fiber.interruptUnsafe()
        yield* Mailbox.end(mailbox)
        for (const fiber of fibers) yield* Fiber.await(fiber)
        assert.deepInclude(mailbox.stats, { received: 40_000, blockedReceivers: 0, length: 0 })
      }))
  })
})
