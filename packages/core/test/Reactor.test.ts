import { Bus, Group, Orchestrator, Subscription, Topic } from "@effect-orchestra/core"
import { atEveryOperation } from "@effect-orchestra/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Layer, Logger, Random, Schedule, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"

const seeds = Number(process.env["SEEDS"] ?? 200)

const Order = Schema.Struct({ id: Schema.String, n: Schema.Int })
const Orders = Topic.make("Orders", Order)
const Numbers = Topic.make("Numbers", Schema.Int)
const inBus = Effect.provide(Bus.layer)
const turns = (n: number) => Effect.repeat(Effect.yieldNow, { times: n })
const publishAll = <E>(topic: Topic.Topic<number, E>, ...numbers: ReadonlyArray<number>) =>
  Effect.forEach(numbers, (n) => Bus.publish(topic, n), { discard: true })
const groupStats = (group: string) =>
  Effect.map(Bus.stats, (topics) => topics.flatMap(({ groups }) => groups).find((stats) => stats.group === group))
const logged = (messages: Array<string>) =>
  Effect.provide(Logger.layer([Logger.make(({ message }) => void messages.push(String(message)))]))

describe("Bus.react", () => {
  it.effect("OR45. events of one key are handled one at a time and in order, different keys in parallel", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const running = new Map<string, number>()
      let peak = 0
      yield* Bus.react(Orders, {
        group: "stock",
        concurrency: 3,
        key: ({ id }) => id,
        handler: ({ id, n }) =>
          Effect.gen(function*() {
            assert.strictEqual(running.get(id) ?? 0, 0)
            running.set(id, 1)
            peak = Math.max(peak, [...running.values()].reduce((sum, count) => sum + count, 0))
            yield* Effect.sleep(10)
            log.push(`${id}${n}`)
            running.set(id, 0)
          })
      })
      for (const n of [1, 2, 3]) for (const id of ["a", "b"]) yield* Bus.publish(Orders, { id, n })
      yield* TestClock.adjust(30)
      assert.deepStrictEqual(log, ["a1", "b1", "a2", "b2", "a3", "b3"])
      assert.strictEqual(peak, 2)
    }).pipe(inBus))

  it.effect("OR50. a message whose handler keeps failing becomes a dead letter with event, error and attempts, blocks no other key, and is handled once redriven", () => {
    const dead = Topic.deadLetters("stock.dlq")
    let broken = true
    const log: Array<string> = []
    return Effect.gen(function*() {
      yield* Bus.react(Orders, {
        group: "stock",
        key: ({ id }) => id,
        retry: Schedule.max([Schedule.spaced(100), Schedule.recurs(2)]),
        deadLetter: dead,
        handler: ({ id, n }, { attempt }) =>
          Effect.suspend(() => {
            if (id === "bad" && broken) return Effect.fail(`no stock at attempt ${attempt}`)
            log.push(`${id}${n}@${attempt}`)
            return Effect.void
          })
      })
      const bad = yield* Bus.publish(Orders, { id: "bad", n: 1 })
      yield* Bus.publish(Orders, { id: "good", n: 1 })
      yield* TestClock.adjust(150)
      yield* Bus.publish(Orders, { id: "good", n: 2 })
      yield* TestClock.adjust(100)
      assert.deepStrictEqual(log, ["good1@1", "good2@1"])
      const letters = yield* Effect.scoped(Effect.gen(function*() {
        const queue = yield* Bus.subscribe(dead)
        const [letter] = yield* Subscription.receiveAll(queue)
        yield* Bus.publish(dead, letter!.value)
        return letter
      }))
      const { attempts, cause, envelope, group } = letters!.value
      assert.deepStrictEqual([envelope.id, envelope.value, attempts, group], [bad.id, bad.value, 3, "stock"])
      assert.deepStrictEqual(cause, Cause.fail("no stock at attempt 3"))
      assert.deepStrictEqual([letters?.causationId, letters?.correlationId], [bad.id, bad.correlationId])
      broken = false
      assert.strictEqual(yield* Bus.redrive(dead), 1)
      yield* turns(3)
      assert.deepStrictEqual(log, ["good1@1", "good2@1", "bad1@4"])
      assert.deepInclude(yield* groupStats("stock"), {
        taken: 4,
        held: 0,
        handled: 3,
        retried: 2,
        deadLettered: 1,
        redriven: 1,
        duplicates: 0
      })
    }).pipe(inBus)
  })

  it.effect("OR51. a new subscriber changes no publisher, and the graph shows it", () => {
    const Reserved = Topic.make("Reserved", Schema.String)
    const publisher = Effect.forEach([1, 2], (n) => Bus.publish(Orders, { id: "a", n }), { discard: true })
    return Effect.gen(function*() {
      const run = Effect.andThen(Orchestrator.fork(publisher, { name: "checkout" }), turns(5))
      const handler = ({ id }: typeof Order.Type) => Bus.publish(Reserved, id)
      yield* Bus.react(Orders, { group: "stock", handler, deadLetter: "stock.dlq" })
      yield* run
      assert.strictEqual(
        Bus.formatGraph(yield* Bus.graph),
        "Orders (broadcast, 1 subscriber) <- checkout\n  stock -> Reserved ! stock.dlq\nReserved (broadcast, 0 subscribers) <- stock"
      )
      const mails: Array<string> = []
      yield* Bus.react(Reserved, {
        group: "mail",
        handler: (id) => Effect.sync(() => mails.push(id)),
        emits: [Numbers]
      })
      yield* run
      assert.strictEqual(
        Bus.formatGraph(yield* Bus.graph),
        "Orders (broadcast, 1 subscriber) <- checkout\n  stock -> Reserved ! stock.dlq\n" +
          "Reserved (broadcast, 1 subscriber) <- stock\n  mail -> Numbers"
      )
      assert.deepStrictEqual(mails, ["a", "a"])
    }).pipe(Effect.provide(Layer.provideMerge(Bus.layer, Orchestrator.layer)))
  })

  describe("delivery", () => {
    it.effect("nothing published after it returned is missed, and each group gets everything", () =>
      Effect.gen(function*() {
        const seen: Array<string> = []
        for (const group of ["a", "b"]) {
          yield* Bus.react(Numbers, { group, handler: (n) => Effect.sync(() => seen.push(`${group}${n}`)) })
        }
        yield* publishAll(Numbers, 1, 2)
        yield* turns(3)
        assert.deepStrictEqual(seen.sort(), ["a1", "a2", "b1", "b2"])
      }).pipe(inBus))

    it.effect("groups and subscribers share the messages of a queue", () => {
      const jobs = Topic.make("Jobs", Schema.Int, { kind: "queue" })
      return Effect.gen(function*() {
        const seen: Array<number> = []
        const handler = (n: number) => Effect.sync(() => seen.push(n))
        yield* publishAll(jobs, 1, 2)
        yield* Bus.react(jobs, { group: "a", handler })
        yield* Bus.react(jobs, { group: "b", handler })
        yield* publishAll(jobs, 3, 4, 5)
        yield* turns(5)
        assert.deepStrictEqual(seen.sort(), [1, 2, 3, 4, 5])
      }).pipe(inBus)
    })

    it.effect("a message without a key waits for no other", () =>
      Effect.gen(function*() {
        const seen: Array<number> = []
        yield* Bus.react(Numbers, {
          group: "g",
          retry: Schedule.spaced(100),
          handler: (n, { attempt }) => n === 1 && attempt === 1 ? Effect.fail("no") : Effect.sync(() => seen.push(n))
        })
        yield* publishAll(Numbers, 1, 2)
        yield* TestClock.adjust(0)
        assert.deepStrictEqual(seen, [2])
        yield* TestClock.adjust(100)
        assert.deepStrictEqual(seen, [2, 1])
      }).pipe(inBus))

    it.effect("the key of the envelope is the default", () =>
      Effect.gen(function*() {
        const seen: Array<number> = []
        yield* Bus.react(Numbers, {
          group: "g",
          concurrency: 4,
          retry: Schedule.spaced(100),
          handler: (n, { attempt }) => n === 1 && attempt === 1 ? Effect.fail("no") : Effect.sync(() => seen.push(n))
        })
        yield* Bus.publish(Numbers, 1, { key: "k" })
        yield* Bus.publish(Numbers, 2, { key: "k" })
        yield* Bus.publish(Numbers, 3, { key: "other" })
        yield* TestClock.adjust(100)
        assert.deepStrictEqual(seen, [3, 1, 2])
      }).pipe(inBus))

    it.effect("never handles more at once than its concurrency, and holds at most 16 messages for each", () =>
      Effect.gen(function*() {
        let running = 0
        let peak = 0
        const gate = yield* Deferred.make<void>()
        yield* Bus.react(Numbers, {
          group: "g",
          concurrency: 2,
          key: () => "all",
          handler: () => Effect.andThen(Effect.sync(() => peak = Math.max(peak, ++running)), Deferred.await(gate))
        })
        const others: Array<number> = []
        yield* Bus.react(Numbers, {
          group: "parallel",
          concurrency: 2,
          handler: (n) => Effect.andThen(Effect.sync(() => others.push(n)), Deferred.await(gate))
        })
        yield* publishAll(Numbers, ...Array.from({ length: 100 }, (_, i) => i))
        yield* turns(5)
        assert.deepStrictEqual([peak, others.length], [1, 2])
        const held = yield* Effect.forEach(["g", "parallel"], groupStats)
        assert.deepStrictEqual(held.map((stats) => stats?.held), [32, 2])
        yield* Deferred.succeed(gate, undefined)
        yield* turns(200)
        assert.deepInclude(yield* groupStats("g"), { held: 0, handled: 100 })
        assert.deepInclude(yield* groupStats("parallel"), { held: 0, handled: 100 })
      }).pipe(inBus))

    it.effect("messages behind a key that waits for its next attempt are handled once the hold is free again", () =>
      Effect.gen(function*() {
        const seen: Array<number> = []
        yield* Bus.react(Numbers, {
          group: "g",
          key: (n) => n < 20 ? "stuck" : "free",
          retry: Schedule.spaced(100),
          handler: (n, { attempt }) => n === 0 && attempt === 1 ? Effect.fail("no") : Effect.sync(() => seen.push(n))
        })
        yield* publishAll(Numbers, ...Array.from({ length: 25 }, (_, i) => i))
        yield* TestClock.adjust(99)
        assert.deepStrictEqual(seen, [])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual([...seen].sort((a, b) => a - b), Array.from({ length: 25 }, (_, i) => i))
      }).pipe(inBus))

    it.effect("no fiber is forked for a message", () =>
      Effect.gen(function*() {
        const fibers = new Set<number>()
        yield* Bus.react(Numbers, { group: "g", handler: () => Effect.map(Effect.fiberId, (id) => fibers.add(id)) })
        yield* publishAll(Numbers, 1, 2)
        yield* turns(3)
        yield* publishAll(Numbers, 3)
        yield* turns(3)
        assert.strictEqual((yield* groupStats("g"))?.handled, 3)
        assert.strictEqual(fibers.size, 1)
      }).pipe(inBus))

    it.effect("a worker that was idle behind a full hold goes on when there is room in it", () =>
      Effect.gen(function*() {
        const seen: Array<number> = []
        yield* Bus.react(Numbers, {
          group: "g",
          concurrency: 2,
          key: (n) => n < 40 ? "slow" : "fast",
          handler: (n) => n === 0 ? Effect.sleep(10) : n < 40 ? Effect.never : Effect.sync(() => seen.push(n))
        })
        yield* publishAll(Numbers, ...Array.from({ length: 32 }, (_, i) => i), 40)
        yield* TestClock.adjust(9)
        assert.deepStrictEqual(seen, [])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(seen, [40])
      }).pipe(inBus))

    it.effect("a handler publishes with the message that it handles as the cause, also from what it forks", () =>
      Effect.gen(function*() {
        const replies = yield* Bus.subscribe(Numbers)
        yield* Bus.react(Orders, {
          group: "g",
          handler: ({ n }) => Effect.andThen(Effect.forkChild(Bus.publish(Numbers, n)), Bus.publish(Numbers, n + 1))
        })
        const order = yield* Bus.publish(Orders, { id: "a", n: 1 }, { correlationId: "flow" })
        yield* turns(3)
        for (const reply of yield* Subscription.receiveAll(replies)) {
          assert.deepInclude(reply, { causationId: order.id, correlationId: "flow" })
        }
        const outside = yield* Bus.publish(Numbers, 1)
        assert.strictEqual(outside.causationId, undefined)
      }).pipe(inBus))

    it.effect("a task of the handler's group publishes on behalf of the message, a routine that outlives it does not", () =>
      Effect.gen(function*() {
        const replies = yield* Bus.subscribe(Numbers)
        yield* Bus.react(Orders, {
          group: "stock",
          handler: ({ n }) =>
            Effect.andThen(
              Orchestrator.fork(Effect.andThen(Effect.sleep("1 second"), Bus.publish(Numbers, -n))),
              Group.run((group) => Group.fork(group, Bus.publish(Numbers, n)))
            )
        })
        const order = yield* Bus.publish(Orders, { id: "a", n: 1 })
        const [inside] = yield* Subscription.receiveAll(replies)
        yield* TestClock.adjust("1 second")
        const [later] = yield* Subscription.receiveAll(replies)
        assert.deepStrictEqual([inside?.value, inside?.causationId], [1, order.id])
        assert.deepStrictEqual([later?.value, later?.causationId], [-1, undefined])
      }).pipe(Effect.scoped, Effect.provide(Layer.provideMerge(Bus.layer, Orchestrator.layer))))

    it.effect("the scope of a handler is closed when it ends", () =>
      Effect.gen(function*() {
        let open = 0
        const resource = Effect.acquireRelease(Effect.sync(() => open++), () => Effect.sync(() => open--))
        yield* Bus.react(Numbers, { group: "g", handler: () => resource })
        yield* publishAll(Numbers, 1, 2)
        yield* turns(5)
        assert.strictEqual((yield* groupStats("g"))?.handled, 2)
        assert.strictEqual(open, 0)
      }).pipe(inBus))

    it.effect("a duplicate id is skipped and counted, per group", () =>
      Effect.gen(function*() {
        const seen: Array<string> = []
        yield* Bus.react(Numbers, { group: "a", handler: (n) => Effect.sync(() => seen.push(`a${n}`)) })
        yield* Bus.react(Numbers, { group: "b", dedup: false, handler: (n) => Effect.sync(() => seen.push(`b${n}`)) })
        yield* Bus.publish(Numbers, 1, { id: "same" })
        yield* Bus.publish(Numbers, 2, { id: "same" })
        yield* turns(3)
        assert.deepStrictEqual(seen.sort(), ["a1", "b1", "b2"])
        assert.deepInclude(yield* groupStats("a"), { duplicates: 1, handled: 1, taken: 2 })
        assert.deepInclude(yield* groupStats("b"), { duplicates: 0, handled: 2 })
      }).pipe(inBus))

    it.effect("remembers the last 10,000 ids", () =>
      Effect.gen(function*() {
        let seen = 0
        const publish = (id: string) => Bus.publish(Numbers, 1, { id })
        yield* Bus.react(Numbers, { group: "g", handler: () => Effect.sync(() => seen++) })
        yield* publish("first")
        yield* Effect.forEach(Array.from({ length: 9999 }, (_, i) => `${i}`), publish)
        yield* publish("first")
        yield* turns(100)
        assert.strictEqual(seen, 10_000)
        yield* publish("last")
        yield* turns(3)
        yield* publish("first")
        yield* turns(3)
        assert.strictEqual(seen, 10_002)
      }).pipe(inBus), 5000)
  })

  describe("failure", () => {
    it.effect("defects, and a handler that interrupts itself, are failures too", () => {
      const dead = Topic.deadLetters("dlq")
      return Effect.gen(function*() {
        const handlers = [
          () => Effect.die("defect"),
          () => Effect.interrupt,
          () => {
            throw new Error("thrown")
          }
        ]
        yield* Bus.react(Numbers, { group: "g", deadLetter: dead, handler: (n) => handlers[n]?.() ?? Effect.void })
        yield* publishAll(Numbers, 0, 1, 2, 3)
        yield* turns(5)
        const letters = yield* Effect.flatMap(Bus.subscribe(dead), Subscription.receiveAll)
        assert.deepStrictEqual(
          letters.map(({ value: { attempts, cause } }) => [attempts, cause.reasons.map(({ _tag }) => _tag)]),
          [[1, ["Die"]], [1, ["Interrupt"]], [1, ["Die"]]]
        )
        assert.deepInclude(yield* groupStats("g"), { handled: 1, deadLettered: 3, held: 0 })
      }).pipe(inBus)
    })

    it.effect("a key that throws, or a schedule that dies, gives the message up", () => {
      const dead = Topic.deadLetters("dlq")
      return Effect.gen(function*() {
        yield* Bus.react(Numbers, {
          group: "key",
          deadLetter: dead,
          key: () => {
            throw new Error("no key")
          },
          handler: () => Effect.void
        })
        yield* Bus.react(Numbers, {
          group: "schedule",
          deadLetter: dead,
          retry: Schedule.addDelay(Schedule.forever, () => Effect.die("no delay")),
          handler: () => Effect.fail("no")
        })
        yield* Bus.react(Numbers, {
          group: "never",
          deadLetter: dead,
          retry: Schedule.spaced(Infinity),
          handler: () => Effect.fail("no")
        })
        yield* publishAll(Numbers, 0)
        yield* turns(5)
        const letters = yield* Effect.flatMap(Bus.subscribe(dead), Subscription.receiveAll)
        assert.deepStrictEqual(letters.map(({ value: { group } }) => group), ["key", "schedule", "never"])
      }).pipe(inBus)
    })

    it.effect("without a dead letter it is logged once and counted", () => {
      const messages: Array<string> = []
      return Effect.gen(function*() {
        yield* Bus.react(Numbers, { group: "g", retry: Schedule.recurs(2), handler: () => Effect.fail("no") })
        const { id } = yield* Bus.publish(Numbers, 0)
        yield* turns(10)
        assert.deepStrictEqual(messages.length, 1)
        assert.include(messages[0], `/bus/bus/Numbers: group g gave up on ${id} at attempt 3`)
        assert.deepInclude(yield* groupStats("g"), { lost: 1, retried: 2, held: 0, deadLettered: 0 })
      }).pipe(inBus, logged(messages))
    })

    it.effect("a dead letter that nobody can take holds up nothing: it is logged and counted", () => {
      const messages: Array<string> = []
      const dead = Topic.deadLetters("dlq", { capacity: 1 })
      const alarm = Topic.make("alarm", Schema.Unknown as unknown as typeof dead.schema)
      return Effect.gen(function*() {
        yield* Bus.react(Numbers, { group: "full", deadLetter: dead, handler: () => Effect.fail("no") })
        yield* Bus.react(Numbers, { group: "unheard", deadLetter: alarm, handler: () => Effect.fail("no") })
        yield* publishAll(Numbers, 1, 2)
        yield* turns(5)
        assert.strictEqual(messages.length, 3)
        assert.deepInclude(yield* groupStats("full"), { lost: 1, deadLettered: 1, held: 0 })
        assert.deepInclude(yield* groupStats("unheard"), { lost: 2, deadLettered: 0, held: 0 })
      }).pipe(inBus, logged(messages))
    })

    it.effect("what was dead-lettered is no duplicate when it is published again", () =>
      Effect.gen(function*() {
        let fails = true
        yield* Bus.react(Numbers, {
          group: "g",
          deadLetter: "dlq",
          handler: () => Effect.suspend(() => fails ? Effect.fail("no") : Effect.void)
        })
        yield* Bus.publish(Numbers, 0, { id: "same" })
        yield* turns(3)
        fails = false
        yield* Bus.publish(Numbers, 0, { id: "same" })
        yield* turns(3)
        assert.deepInclude(yield* groupStats("g"), { handled: 1, deadLettered: 1, duplicates: 0 })
      }).pipe(inBus))
  })

  describe("redrive", () => {
    it.effect("keeps the letters of groups that react no more, in their order", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const handler = () => Effect.fail("no")
        yield* Scope.provide(Bus.react(Numbers, { group: "gone", deadLetter: "dlq", handler }), scope)
        yield* publishAll(Numbers, 1, 2)
        yield* turns(3)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(yield* Bus.redrive("dlq"), 0)
        const seen: Array<unknown> = []
        yield* Bus.react(Numbers, { group: "gone", handler: (n) => Effect.sync(() => seen.push(n)) })
        assert.strictEqual(yield* Bus.redrive("dlq"), 2)
        yield* turns(3)
        assert.deepStrictEqual(seen, [1, 2])
        assert.strictEqual(yield* Bus.redrive("dlq"), 0)
      }).pipe(inBus))

    it.effect("waits while the group holds all it may, and hands each letter over once", () => {
      const dead = Topic.deadLetters("dlq")
      return Effect.gen(function*() {
        let fails = true
        const seen: Array<number> = []
        yield* Bus.react(Numbers, {
          group: "g",
          deadLetter: dead,
          handler: (n) => Effect.suspend(() => fails ? Effect.fail("no") : Effect.as(Effect.yieldNow, seen.push(n)))
        })
        const all = Array.from({ length: 50 }, (_, i) => i)
        yield* publishAll(Numbers, ...all)
        yield* turns(3)
        fails = false
        assert.strictEqual(yield* Bus.redrive(dead), 50)
        yield* turns(50)
        assert.deepStrictEqual(seen, all)
      }).pipe(inBus)
    })
  })

  describe("end", () => {
    it.effect("closing the scope interrupts the handlers, waits for them, and counts what was not handled", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const scope = yield* Scope.make()
        const handler = (n: number) =>
          Effect.never.pipe(
            Effect.onInterrupt(() => Effect.andThen(Effect.yieldNow, Effect.sync(() => log.push(`cut ${n}`))))
          )
        yield* Bus.subscribe(Numbers)
        yield* Scope.provide(Bus.react(Numbers, { group: "g", concurrency: 2, handler }), scope)
        yield* publishAll(Numbers, 1, 2, 3)
        yield* turns(3)
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(log, ["cut 1", "cut 2"])
        const [stats] = yield* Bus.stats
        assert.deepInclude(stats, { subscribers: 1, undelivered: 3, groups: [] })
        yield* publishAll(Numbers, ...Array.from({ length: 1000 }, (_, i) => i))
      }).pipe(inBus))

    it.effect("what was not handled goes back to a queue, in its order", () => {
      const jobs = Topic.make("Jobs", Schema.Int, { kind: "queue" })
      return Effect.gen(function*() {
        const scope = yield* Scope.make()
        const react = Bus.react(jobs, {
          group: "g",
          key: (n) => n === 2 ? "other" : "key",
          retry: Schedule.spaced(100),
          handler: (n) => n === 2 ? Effect.fail("later") : Effect.never
        })
        yield* Scope.provide(react, scope)
        yield* publishAll(jobs, 2, 1, 3, 4)
        yield* turns(3)
        yield* Scope.close(scope, Exit.void)
        const seen: Array<string> = []
        yield* Bus.react(jobs, {
          group: "g",
          handler: (n, { attempt }) => Effect.sync(() => seen.push(`${n}@${attempt}`))
        })
        yield* TestClock.adjust(1000)
        assert.deepStrictEqual(seen, ["2@2", "1@1", "3@1", "4@1"])
      }).pipe(inBus)
    })

    it.effect("whoever stops the routine of the group unsubscribes it", () => {
      const narrow = Topic.make("Narrow", Schema.Int, { capacity: 1 })
      return Effect.gen(function*() {
        yield* Bus.react(narrow, { group: "g", handler: () => Effect.never })
        yield* publishAll(narrow, 1)
        yield* turns(3)
        yield* Effect.forkChild(publishAll(narrow, 2, 3, 4))
        yield* turns(3)
        const orchestrator = yield* Orchestrator
        yield* orchestrator.interruptAll()
        assert.deepStrictEqual(yield* Bus.stats, [])
        yield* publishAll(narrow, 5, 6)
        yield* Bus.react(narrow, { group: "g", handler: () => Effect.void })
      }).pipe(Effect.provide(Layer.provideMerge(Bus.layer, Orchestrator.layer)))
    })

    it.effect("one group reacts once to a topic", () =>
      Effect.gen(function*() {
        const react = Bus.react(Numbers, { group: "g", handler: () => Effect.void })
        yield* react
        const exit = yield* Effect.exit(react)
        assert.isTrue(Exit.isFailure(exit) && String(Cause.squash(exit.cause)).includes("got: g again on Numbers"))
        assert.strictEqual((yield* Bus.stats)[0]?.subscribers, 1)
      }).pipe(inBus))
  })

  it.effect("interrupted at every operation, each message is handled once, a dead letter, or undelivered", () => {
    const dead = Topic.deadLetters("dlq", { capacity: 10_000 })
    return Effect.gen(function*() {
      const other = yield* Bus.subscribe(Numbers, { capacity: 10_000 })
      let handled: Array<number> = []
      let undelivered = 0
      const program = Effect.gen(function*() {
        yield* Bus.react(Numbers, {
          group: "g",
          concurrency: 2,
          retry: Schedule.recurs(1),
          deadLetter: dead,
          handler: (n) =>
            n % 3 === 0
              ? Effect.fail("no")
              : Effect.uninterruptible(Effect.andThen(Effect.yieldNow, Effect.sync(() => handled.push(n))))
        })
        for (let n = 0; n < 6; n++) {
          yield* Bus.publish(Numbers, n)
          if (n % 2 === 1) yield* Effect.yieldNow
        }
        yield* turns(6)
      })
      let most = 0
      const operations = yield* atEveryOperation(program, () =>
        Effect.gen(function*() {
          const published = yield* Effect.map(
            Effect.flatMap(Subscription.tryReceive(other), (first) =>
              first._tag === "None" ? Effect.succeed([]) : Effect.map(
                Effect.flatMap(Subscription.stats(other), ({ length }) =>
                  length === 0 ? Effect.succeed([]) : Subscription.receiveAll(other)),
                (rest) => [first.value, ...rest]
              )),
            (messages) =>
              messages.map(({ value }) =>
                value
              )
          )
          const letters = yield* Effect.scoped(Effect.flatMap(Bus.subscribe(dead), (subscription) =>
            Effect.flatMap(Subscription.stats(subscription), ({ length }) =>
              length === 0 ? Effect.succeed([]) : Subscription.receiveAll(subscription))))
          const settled = [
            ...handled,
            ...letters.map(({ value }) =>
              value.envelope.value as number
            )
          ]
          assert.strictEqual(new Set(settled).size, settled.length)
          const total = (yield* Bus.stats)[0]?.undelivered ?? 0
          // A handler that is cut behind its last step has done it all and is not handled, for each of two workers.
          const counted = settled.length + total - undelivered
          assert.isTrue(counted >= published.length && counted <= published.length + 2)
          most = Math.max(most, settled.length)
          undelivered = total
          handled = []
        }))
      assert.isAbove(operations, 20)
      assert.strictEqual(most, 6)
    }).pipe(inBus)
  }, 5000)

  it.effect(
    `keeps its promises under ${seeds} seeds of handlers that fail, wait and die`,
    () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < seeds; seed++) {
          yield* Effect.scoped(storm).pipe(inBus, Random.withSeed(`reactor ${seed}`))
        }
      }),
    30_000 + seeds * 20
  )

  const storm = Effect.gen(function*() {
    const dead = Topic.deadLetters("dlq")
    const letters = yield* Bus.subscribe(dead)
    const concurrency = yield* Random.nextIntBetween(1, 5)
    const running = new Set<string>()
    const outcomes = new Map<string, Array<string>>()
    const order = new Map<string, Array<number>>()
    let active = 0
    yield* Bus.react(Orders, {
      group: "g",
      concurrency,
      key: ({ id }) => id,
      retry: Schedule.max([Schedule.spaced(10), Schedule.recurs(2)]),
      deadLetter: dead,
      handler: ({ id, n }) =>
        Effect.gen(function*() {
          assert.isFalse(running.has(id))
          running.add(id)
          assert.isAtMost(++active, concurrency)
          const kind = yield* Random.nextIntBetween(0, 6)
          if (kind === 0) yield* Effect.yieldNow
          if (kind === 1) yield* Effect.sleep(7)
          if (kind === 2) return yield* Effect.fail("no")
          if (kind === 3) return yield* Effect.die("no")
          outcomes.set(`${id}${n}`, [...(outcomes.get(`${id}${n}`) ?? []), "handled"])
          order.set(id, [...(order.get(id) ?? []), n])
        }).pipe(Effect.ensuring(Effect.sync(() => {
          running.delete(id)
          active--
        })))
    })
    for (let n = 0; n < 20; n++) {
      yield* Bus.publish(Orders, { id: `k${yield* Random.nextIntBetween(0, 4)}`, n })
      if (n % 7 === 0) yield* TestClock.adjust(5)
    }
    // The clock may jump before a handler that is just being started sleeps: so it jumps again.
    for (let jump = 0; jump < 30; jump++) yield* TestClock.adjust(50)
    const stats = yield* groupStats("g")
    const buried = (stats?.deadLettered ?? 0) === 0 ? [] : yield* Subscription.receiveAll(letters)
    for (const { value: { envelope } } of buried) {
      const { id, n } = envelope.value as typeof Order.Type
      outcomes.set(`${id}${n}`, [...(outcomes.get(`${id}${n}`) ?? []), "dead"])
    }
    assert.strictEqual(outcomes.size, 20)
    for (const [, outcome] of outcomes) assert.strictEqual(outcome.length, 1)
    for (const [, numbers] of order) assert.deepStrictEqual(numbers, [...numbers].sort((a, b) => a - b))
    assert.deepInclude(stats, { taken: 20, held: 0, handled: 20 - buried.length, deadLettered: buried.length, lost: 0 })
  })
})
