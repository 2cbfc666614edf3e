import { Bus, Orchestrator, Routine, Subscription, Topic } from "@effect-orchestra/core"
import { atEveryOperation } from "@effect-orchestra/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Option, References, Schema, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"

const Numbers = Topic.make("Numbers", Schema.Int)
const values = <A>(messages: ReadonlyArray<Topic.Envelope<A>>) => messages.map(({ value }) => value)
const inBus = Effect.provide(Bus.layer)
const publishAll = <E>(topic: Topic.Topic<number, E>, ...numbers: ReadonlyArray<number>) =>
  Effect.forEach(numbers, (n) => Bus.publish(topic, n), { discard: true })
const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })
const drain = <A>(subscription: Subscription.Subscription<A>) =>
  Effect.map(Subscription.stats(subscription), ({ length }) => length).pipe(
    Effect.flatMap((length) =>
      length === 0 ? Effect.succeed([]) : Effect.map(Subscription.receiveAll(subscription), values)
    )
  )
const turns = (n: number) => Effect.forEach(Array.from({ length: n }), () => Effect.yieldNow, { discard: true })
const defect = (effect: Effect.Effect<unknown, unknown, Bus | Scope.Scope>) =>
  Effect.map(
    Effect.exit(Effect.scoped(effect)),
    (exit) => Exit.isFailure(exit) && Cause.hasDies(exit.cause) ? String(Cause.squash(exit.cause)) : "no defect"
  )
const thrown = (make: () => unknown) => {
  try {
    make()
  } catch (error) {
    return String(error)
  }
  return "no defect"
}

describe("Bus", () => {
  it.effect("52. both of two subscribers see all messages from their subscription on, a slow one by its own overflow policy, and closing the scope frees the topic", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      yield* Bus.publish(Numbers, 0)
      const fast = yield* Scope.provide(Bus.subscribe(Numbers), scope)
      const slow = yield* Scope.provide(Bus.subscribe(Numbers, { capacity: 2, overflow: "drop_old" }), scope)
      yield* publishAll(Numbers, 1, 2, 3, 4)
      assert.deepStrictEqual([yield* drain(fast), yield* drain(slow)], [[1, 2, 3, 4], [3, 4]])
      assert.strictEqual((yield* Subscription.stats(slow)).dropped, 2)
      assert.deepStrictEqual((yield* Bus.stats).map(({ subscribers, topic }) => [topic, subscribers]), [["Numbers", 2]])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(yield* Bus.stats, [])
      assert.deepStrictEqual((yield* Bus.graph).map(({ subscribers, topic }) => [topic, subscribers]), [["Numbers", 0]])
    }).pipe(inBus))

  describe("broadcast", () => {
    it.effect("each subscriber follows its own overflow policy", () =>
      Effect.gen(function*() {
        const dropOld = yield* Bus.subscribe(Numbers, { capacity: 2, overflow: "drop_old" })
        const dropNew = yield* Bus.subscribe(Numbers, { capacity: 2, overflow: "drop_new" })
        const own = yield* Bus.subscribe(Numbers)
        yield* publishAll(Numbers, 1, 2, 3)
        assert.strictEqual((yield* Subscription.receive(dropNew)).value, 1)
        yield* publishAll(Numbers, 4, 5)
        assert.deepStrictEqual(
          [yield* drain(dropOld), yield* drain(dropNew), yield* drain(own)],
          [[4, 5], [2, 4], [1, 2, 3, 4, 5]]
        )
        const counts = yield* Effect.forEach([dropOld, dropNew, own], Subscription.stats)
        assert.deepStrictEqual(
          counts.map(({ dropped, length, received, sent }) => ({ dropped, length, received, sent })),
          [
            { dropped: 3, length: 0, received: 2, sent: 5 },
            { dropped: 2, length: 0, received: 3, sent: 5 },
            { dropped: 0, length: 0, received: 5, sent: 5 }
          ]
        )
      }).pipe(inBus))

    it.effect("a new subscriber first gets what the topic replays", () => {
      const topic = Topic.make("Replayed", Schema.Int, { replay: 2 })
      return Effect.gen(function*() {
        yield* publishAll(topic, 1, 2, 3)
        const late = yield* Bus.subscribe(topic)
        yield* publishAll(topic, 4)
        const later = yield* Bus.subscribe(topic, { capacity: 2, overflow: "drop_new" })
        yield* publishAll(topic, 5)
        assert.deepStrictEqual([yield* drain(late), yield* drain(later)], [[2, 3, 4, 5], [3, 4]])
      }).pipe(inBus)
    })

    it.effect("reads across many segments of its log, one by one and in batches", () =>
      Effect.gen(function*() {
        const one = yield* Bus.subscribe(Numbers, { capacity: 2000 })
        const two = yield* Bus.subscribe(Numbers, { capacity: 300, overflow: "drop_old" })
        const all = Array.from({ length: 1000 }, (_, i) => i)
        yield* publishAll(Numbers, ...all)
        const singly = yield* Effect.forEach(all.slice(0, 500), () => Subscription.receive(one))
        assert.deepStrictEqual([...values(singly), ...(yield* drain(one))], all)
        assert.deepStrictEqual(yield* drain(two), all.slice(700))
      }).pipe(inBus))

    it.effect("publishing waits until all that suspend have room, then reaches all at once", () => {
      const topic = Topic.make("Narrow", Schema.Int, { capacity: 1 })
      return Effect.gen(function*() {
        const one = yield* Bus.subscribe(topic)
        const two = yield* Bus.subscribe(topic)
        yield* Bus.publish(topic, 1)
        const waiting = yield* fork(Bus.publish(topic, 2))
        assert.deepStrictEqual(yield* drain(one), [1])
        assert.deepStrictEqual([yield* drain(one), waiting.pollUnsafe()], [[], undefined])
        assert.strictEqual((yield* Bus.stats)[0]?.blockedPublishers, 1)
        yield* TestClock.adjust("3 seconds")
        assert.strictEqual((yield* Bus.stats)[0]?.blockedPublishMillis, 3000)
        assert.deepStrictEqual(yield* drain(two), [1])
        assert.strictEqual((yield* Fiber.join(waiting)).value, 2)
        assert.deepStrictEqual([yield* drain(one), yield* drain(two)], [[2], [2]])
      }).pipe(inBus)
    })

    it.effect("publishers are served in the order they came, and one that gives up holds up nobody", () => {
      const topic = Topic.make("Narrow", Schema.Int, { capacity: 1 })
      return Effect.gen(function*() {
        const subscription = yield* Bus.subscribe(topic)
        yield* Bus.publish(topic, 0)
        const waiting = yield* Effect.forEach([1, 2, 3, 4], (n) => fork(Bus.publish(topic, n)))
        yield* Fiber.interrupt(waiting[0]!)
        yield* Fiber.interrupt(waiting[2]!)
        const seen: Array<number> = []
        for (let i = 0; i < 3; i++) seen.push((yield* Subscription.receive(subscription)).value)
        assert.deepStrictEqual(seen, [0, 2, 4])
        assert.deepStrictEqual(yield* drain(subscription), [])
      }).pipe(inBus)
    })

    it.effect("a subscriber that leaves releases who waited for it", () => {
      const topic = Topic.make("Narrow", Schema.Int, { capacity: 1 })
      return Effect.gen(function*() {
        const scope = yield* Scope.make()
        yield* Scope.provide(Bus.subscribe(topic), scope)
        const other = yield* Bus.subscribe(topic, { capacity: 5 })
        yield* Bus.publish(topic, 1)
        const waiting = yield* fork(Effect.andThen(Bus.publish(topic, 2), Bus.publish(topic, 3)))
        yield* Scope.close(scope, Exit.void)
        yield* Fiber.join(waiting)
        assert.deepStrictEqual(yield* drain(other), [1, 2, 3])
      }).pipe(inBus)
    })

    it.effect("a topic that fails reaches nobody when one subscriber is full", () => {
      const topic = Topic.make("Failing", Schema.Int, { capacity: 1, overflow: "fail" })
      return Effect.gen(function*() {
        const roomy = yield* Bus.subscribe(topic, { capacity: 5, overflow: "suspend" })
        yield* Bus.subscribe(topic, { name: "full" })
        yield* Bus.publish(topic, 1)
        const error = yield* Effect.flip(Bus.publish(topic, 2))
        assert.deepInclude(error, { _tag: "MailboxFull", mailbox: "/bus/bus/Failing/full", capacity: 1 })
        assert.deepStrictEqual(yield* drain(roomy), [1])
      }).pipe(inBus)
    })

    it.effect("a stream sees what is published while it runs, and ends with the bus", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const context = yield* Layer.buildWithScope(Bus.layer, scope)
        const collected = yield* fork(
          Effect.provideContext(Stream.runCollect(Stream.map(Bus.stream(Numbers), ({ value }) => value)), context)
        )
        yield* Effect.provideContext(publishAll(Numbers, 1, 2), context)
        yield* Effect.yieldNow
        yield* Effect.provideContext(publishAll(Numbers, 3), context)
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(yield* Fiber.join(collected), [1, 2, 3])
      }))
  })

  describe("queue", () => {
    const Jobs = Topic.make("Jobs", Schema.Int, { kind: "queue", capacity: 2 })

    it.effect("every message goes to exactly one subscriber, in the order they asked", () =>
      Effect.gen(function*() {
        const one = yield* Bus.subscribe(Jobs)
        const two = yield* Bus.subscribe(Jobs)
        const takers = yield* Effect.forEach(
          [one, two, one],
          (subscription) => fork(Subscription.receive(subscription))
        )
        yield* publishAll(Jobs, 1, 2, 3)
        assert.deepStrictEqual(values(yield* Fiber.joinAll(takers)), [1, 2, 3])
      }).pipe(inBus))

    it.effect("messages wait while nobody subscribes, as many as fit", () =>
      Effect.gen(function*() {
        const publishing = yield* fork(publishAll(Jobs, 1, 2, 3))
        assert.deepStrictEqual([(yield* Bus.stats)[0]?.length, publishing.pollUnsafe()], [2, undefined])
        const taken = yield* Effect.scoped(Effect.flatMap(Bus.subscribe(Jobs), Subscription.receive))
        yield* Fiber.join(publishing)
        const rest = yield* Effect.scoped(Effect.flatMap(Bus.subscribe(Jobs), Subscription.receiveAll))
        assert.deepStrictEqual([taken.value, values(rest)], [1, [2, 3]])
        assert.deepStrictEqual(yield* Bus.stats, [])
      }).pipe(inBus))

    it.effect("a subscription that was closed fails at once, the others go on", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const closed = yield* Scope.provide(Bus.subscribe(Jobs), scope)
        const open = yield* Bus.subscribe(Jobs)
        const waiting = yield* fork(Effect.flip(Subscription.receive(closed)))
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual((yield* Fiber.join(waiting))._tag, "MailboxClosed")
        assert.strictEqual((yield* Effect.flip(Subscription.tryReceive(closed))).reason, "closed")
        yield* Bus.publish(Jobs, 1)
        assert.strictEqual((yield* Subscription.receive(open)).value, 1)
        assert.deepStrictEqual(yield* Subscription.tryReceive(open), Option.none())
      }).pipe(inBus))
  })

  describe("envelopes", () => {
    it.effect("have ids of the orchestrator's counter, the given key and time, and correlate with themselves", () =>
      Effect.gen(function*() {
        yield* TestClock.setTime(5000)
        const first = yield* Bus.publish(Numbers, 7, { key: "k" })
        assert.deepStrictEqual({ ...first }, {
          id: first.id,
          topic: "Numbers",
          key: "k",
          value: 7,
          at: 5000,
          attempt: 1,
          causationId: undefined,
          correlationId: first.id
        })
        assert.match(first.id, /^e-\d+$/)
        const given = { id: "mine", causationId: "c", correlationId: "r" }
        assert.deepInclude(yield* Bus.publish(Numbers, 8, given), given)
      }).pipe(inBus))
  })

  describe("closed", () => {
    it.effect("everything fails at once, and what was inside can still be taken", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const context = yield* Layer.buildWithScope(Bus.layerWith({ name: "events" }), scope)
        const jobs = Topic.make("Jobs", Schema.Int, { kind: "queue", capacity: 1 })
        const inIt = Effect.provideContext(context)
        const full = yield* inIt(Bus.subscribe(jobs))
        const empty = yield* inIt(Bus.subscribe(Numbers))
        yield* inIt(Bus.publish(jobs, 1))
        const publishing = yield* fork(Effect.flip(inIt(Bus.publish(jobs, 2))))
        const receiving = yield* fork(Effect.flip(Subscription.receive(empty)))
        yield* Scope.close(scope, Exit.void)
        assert.deepInclude(yield* Fiber.join(publishing), { _tag: "BusClosed", bus: "events" })
        assert.deepInclude(yield* Fiber.join(receiving), { _tag: "MailboxClosed", reason: "ended" })
        assert.strictEqual((yield* Subscription.receive(full)).value, 1)
        const after = [
          Bus.publish(Numbers, 1),
          Bus.subscribe(Numbers),
          Stream.runDrain(Bus.stream(Numbers)),
          Bus.react(Numbers, { group: "g", handler: () => Effect.void }),
          Bus.redrive(Topic.deadLetters("dead"))
        ] as const
        for (const operation of after) {
          assert.strictEqual(
            (yield* Effect.flip(inIt(operation as Effect.Effect<unknown, { _tag: string }, Bus>)))._tag,
            "BusClosed"
          )
        }
      }))
  })

  it.effect("a publisher that is about to wait sees that the bus was closed", () =>
    Effect.gen(function*() {
      const jobs = Topic.make("Jobs", Schema.Int, { kind: "queue", capacity: 1 })
      for (let operations = 0; operations < 8; operations++) {
        const scope = yield* Scope.make()
        const context = yield* Layer.buildWithScope(Layer.fresh(Bus.layer), scope)
        yield* Effect.provideContext(Bus.publish(jobs, 1), context)
        const publishing = yield* Effect.flip(Bus.publish(jobs, 2)).pipe(
          Effect.provideContext(context),
          // Fewer, and it only yields.
          Effect.provideService(References.MaxOpsBeforeYield, 3),
          fork
        )
        yield* turns(operations)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual((yield* Fiber.join(publishing))._tag, "BusClosed")
      }
    }))

  describe("topics", () => {
    it.effect("one name is one topic", () =>
      Effect.gen(function*() {
        yield* Bus.subscribe(Numbers)
        const other = Topic.make("Numbers", Schema.Int, { capacity: 5 })
        assert.include(
          yield* defect(Bus.publish(other, 1)),
          "is the broadcast topic \"Numbers\" (capacity 1024, overflow suspend, replay 0): one topic has the name, " +
            "got: another broadcast topic \"Numbers\" (capacity 5, overflow suspend, replay 0)"
        )
        assert.include(yield* defect(Bus.subscribe(other)), "got: another")
        assert.include(yield* defect(Bus.react(other, { group: "g", handler: () => Effect.void })), "got: another")
      }).pipe(inBus))

    it.effect("are found or made by name, and freed when they hold nothing", () =>
      Effect.gen(function*() {
        const jobs = yield* Bus.topic("by name", 3)
        yield* Bus.publish(jobs, "anything")
        assert.deepStrictEqual((yield* Bus.stats).map(({ kind, length, topic }) => [topic, kind, length]), [[
          "by name",
          "queue",
          1
        ]])
        const again = yield* Bus.topic("by name")
        assert.include(yield* defect(Bus.topic("by name", 4)), "got: another queue topic \"by name\" (capacity 4")
        yield* Bus.subscribe(Numbers)
        assert.include(yield* defect(Bus.topic("Numbers")), "got: another queue topic \"Numbers\"")
        const message = yield* Effect.scoped(Effect.flatMap(Bus.subscribe(again), Subscription.receive))
        assert.strictEqual(message.value, "anything")
        assert.deepStrictEqual((yield* Bus.stats).map(({ topic }) => topic), ["Numbers"])
      }).pipe(inBus))

    it.effect("nothing is kept of ten thousand that nobody subscribes", () =>
      Effect.gen(function*() {
        for (let i = 0; i < 10_000; i++) yield* Bus.publish(Topic.make(`t${i}`, Schema.Int), i)
        assert.deepStrictEqual(yield* Bus.stats, [])
        assert.isAtMost((yield* Bus.graph).length, 1000)
      }).pipe(inBus), 5000)

    it.effect("bad constants are defects that name them", () =>
      Effect.gen(function*() {
        const make = (options: Topic.TopicOptions) =>
          thrown(() => Topic.make("t", Schema.Int, options as { replay: 0 }))
        for (const capacity of [0, -1, 1.5, NaN]) {
          assert.include(make({ capacity }), `the capacity of a topic is a positive integer, got: ${capacity}`)
          assert.include(
            yield* defect(Bus.subscribe(Numbers, { capacity })),
            `the capacity of a subscription is a positive integer, got: ${capacity}`
          )
        }
        for (const replay of [-1, 0.5, NaN, 3]) {
          assert.include(make({ replay, capacity: 2 }), `an integer from 0 to its capacity, got: ${replay}`)
        }
        assert.include(make({ kind: "queue", replay: 1 }), "a queue topic keeps no replay, got: 1")
        assert.include(thrown(() => Topic.make("", Schema.Int)), "the name of a topic is not empty, got: \"\"")
        assert.include(
          yield* defect(Bus.subscribe(Numbers, { name: "" })),
          "the name of a subscription is not empty, got: \"\""
        )
        const replayed = Topic.make("r", Schema.Int, { replay: 4 })
        assert.include(yield* defect(Bus.subscribe(replayed, { capacity: 3 })), "the replay of its topic, 4, got: 3")
        const queue = Topic.make("q", Schema.Int, { kind: "queue" })
        assert.include(yield* defect(Bus.subscribe(queue, { capacity: 3 })), "share its capacity and overflow, got: 3")
        assert.include(
          yield* defect(Effect.provide(Effect.void, Layer.fresh(Bus.layerWith({ name: "" })))),
          "the name of a bus is not empty, got: \"\""
        )
        for (const concurrency of [0, -1, 1.5, NaN]) {
          assert.include(
            yield* defect(Bus.react(Numbers, { group: "g", concurrency, handler: () => Effect.void })),
            `the concurrency of a group is a positive integer, got: ${concurrency}`
          )
        }
        assert.include(
          yield* defect(Bus.react(Numbers, { group: "", handler: () => Effect.void })),
          "the name of a group is not empty, got: \"\""
        )
        assert.include(
          yield* defect(Bus.redrive(Topic.make("d", Schema.Any as never))),
          "only a queue keeps dead letters"
        )
        assert.deepStrictEqual(yield* Bus.stats, [])
      }).pipe(inBus))
  })

  describe("tree", () => {
    it.effect("bus, topics, mailboxes and reactions stand below each other, and leave with their scopes", () =>
      Effect.gen(function*() {
        const paths = Effect.map(Orchestrator.snapshot, (nodes) => nodes.map(({ kind, path }) => `${kind} ${path}`))
        const scope = yield* Scope.make()
        yield* Scope.provide(
          Effect.gen(function*() {
            yield* Bus.subscribe(Numbers)
            yield* Bus.react(Numbers, { group: "doubling", handler: () => Effect.void })
            yield* Bus.publish(Topic.make("Jobs", Schema.Int, { kind: "queue" }), 1)
          }),
          scope
        )
        assert.deepStrictEqual(yield* paths, [
          "orchestrator /orchestra",
          "bus /orchestra/bus",
          "topic /orchestra/bus/Numbers",
          "mailbox /orchestra/bus/Numbers/subscriber",
          "mailbox /orchestra/bus/Numbers/doubling.inbox",
          "routine /orchestra/bus/Numbers/doubling",
          "topic /orchestra/bus/Jobs",
          "mailbox /orchestra/bus/Jobs/queue"
        ])
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(yield* paths, [
          "orchestrator /orchestra",
          "bus /orchestra/bus",
          "topic /orchestra/bus/Jobs",
          "mailbox /orchestra/bus/Jobs/queue"
        ])
      }).pipe(Effect.provide(Layer.provideMerge(Bus.layer, Orchestrator.layer))))

    it.effect("a shutdown stops the reactions, and a closed bus has left", () =>
      Effect.gen(function*() {
        const scope = yield* Scope.make()
        const orchestra = yield* Layer.build(Orchestrator.layer)
        const bus = yield* Layer.buildWithScope(Bus.layer, scope).pipe(Effect.provideContext(orchestra))
        let stopped = 0
        const handler = () => Effect.ensuring(Effect.never, Effect.sync(() => stopped++))
        yield* Effect.gen(function*() {
          yield* Bus.react(Numbers, { group: "g", handler })
          yield* Bus.publish(Numbers, 1)
          yield* Effect.yieldNow
        }).pipe(Effect.provideContext(bus))
        const report = yield* Effect.flatMap(Orchestrator, (orchestrator) => orchestrator.shutdown()).pipe(
          Effect.provideContext(orchestra)
        )
        assert.deepStrictEqual([report.clean, report.stopped, stopped], [true, 1, 1])
        const late = yield* Effect.flip(Bus.react(Numbers, { group: "g", handler })).pipe(Effect.provideContext(bus))
        assert.strictEqual(late._tag, "BusClosed")
        yield* Scope.close(scope, Exit.void)
        const left = yield* Effect.provideContext(Orchestrator.snapshot, orchestra)
        assert.deepStrictEqual(left.map(({ path }) => path), ["/orchestra"])
      }))

    it.effect("tells once that a mailbox became full", () =>
      Effect.gen(function*() {
        const told: Array<string> = []
        yield* Orchestrator.instrument((event) => {
          if (event._tag === "MailboxFull") told.push(event.path)
        })
        const subscription = yield* Bus.subscribe(Numbers, { capacity: 2, overflow: "drop_old" })
        yield* publishAll(Numbers, 1, 2, 3, 4)
        assert.deepStrictEqual(told, ["/orchestra/bus/Numbers/subscriber"])
        yield* drain(subscription)
        yield* publishAll(Numbers, 1, 2, 3)
        assert.strictEqual(told.length, 2)
      }).pipe(Effect.provide(Layer.provideMerge(Bus.layer, Orchestrator.layer))))
  })

  it.effect("a routine that waits for a message or for room is blocked meanwhile", () =>
    Effect.gen(function*() {
      const narrow = Topic.make("Narrow", Schema.Int, { capacity: 1 })
      const subscription = yield* Bus.subscribe(narrow)
      const receiver = yield* Orchestrator.fork(Subscription.receive(subscription))
      yield* TestClock.adjust("2 seconds")
      const publisher = yield* Orchestrator.fork(publishAll(narrow, 1, 2, 3))
      yield* TestClock.adjust("1 second")
      const blocked = [yield* Routine.stats(receiver), yield* Routine.stats(publisher)]
      assert.deepStrictEqual(blocked.map(({ blockedMillis }) => blockedMillis), [2000, 1000])
      assert.deepInclude(yield* Subscription.stats(subscription), { blockedSenders: 1, blockedReceiveMillis: 2000 })
    }).pipe(Effect.provide(Layer.provideMerge(Bus.layer, Orchestrator.layer))))

  describe("interrupted at every operation", () => {
    it.effect("publish reaches everybody or nobody", () =>
      Effect.gen(function*() {
        const topic = Topic.make("Narrow", Schema.Int, { capacity: 3 })
        const one = yield* Bus.subscribe(topic, { capacity: 100_000 })
        const two = yield* Bus.subscribe(topic)
        let seen: Array<number> = []
        const note = Effect.uninterruptible(Effect.map(drain(two), (numbers) => void seen.push(...numbers)))
        const program = Effect.gen(function*() {
          yield* publishAll(topic, 1, 2, 3)
          const taker = yield* fork(Effect.andThen(Effect.yieldNow, note))
          yield* publishAll(topic, 4, 5)
          yield* Fiber.join(taker)
          yield* Bus.publish(topic, 6)
        })
        let most = 0
        const operations = yield* atEveryOperation(program, () =>
          Effect.gen(function*() {
            yield* note
            most = Math.max(most, seen.length)
            assert.deepStrictEqual(seen, [1, 2, 3, 4, 5, 6].slice(0, seen.length))
            assert.deepStrictEqual(yield* drain(one), seen)
            assert.strictEqual((yield* Bus.stats)[0]?.blockedPublishers, 0)
            seen = []
          }))
        assert.strictEqual(most, 6)
        assert.isAbove(operations, 20)
      }).pipe(inBus), 5000)

    it.effect("subscribe leaves no subscription behind", () =>
      Effect.gen(function*() {
        const program = Effect.gen(function*() {
          const subscription = yield* Bus.subscribe(Numbers)
          yield* Bus.publish(Numbers, 1)
          yield* Subscription.receive(subscription)
          yield* Stream.runDrain(Stream.take(Bus.stream(Topic.make("None", Schema.Int)), 0))
          yield* Bus.react(Numbers, { group: "g", handler: () => Effect.void })
        })
        const operations = yield* atEveryOperation(program, () =>
          Effect.map(Bus.stats, (stats) => assert.deepStrictEqual(stats, [])))
        assert.isAbove(operations, 20)
      }).pipe(inBus), 5000)

    it.effect("receive neither loses nor doubles a message", () =>
      Effect.gen(function*() {
        const jobs = Topic.make("Jobs", Schema.Int, { kind: "queue" })
        const rest = yield* Bus.subscribe(jobs)
        let seen: Array<number> = []
        const note = (messages: ReadonlyArray<Topic.Envelope<number>>) =>
          Effect.sync(() => void seen.push(...values(messages)))
        const program = Effect.uninterruptibleMask((restore) =>
          Effect.gen(function*() {
            const subscription = yield* Bus.subscribe(jobs)
            yield* publishAll(jobs, 1, 2)
            yield* Effect.flatMap(restore(Subscription.receive(subscription)), (message) => note([message]))
            yield* Effect.flatMap(
              restore(Subscription.tryReceive(subscription)),
              (found) => note(Option.toArray(found))
            )
            yield* fork(publishAll(jobs, 3).pipe(Effect.delay(0), Effect.andThen(publishAll(jobs, 4, 5))))
            yield* fork(TestClock.adjust(0))
            yield* Effect.flatMap(restore(Subscription.receive(subscription)), (message) => note([message]))
            yield* Effect.flatMap(restore(Subscription.receiveAll(subscription)), note)
          })
        )
        const operations = yield* atEveryOperation(program, () =>
          Effect.gen(function*() {
            const inside = yield* drain(rest)
            const { received, sent } = yield* Subscription.stats(rest)
            assert.strictEqual(received, sent)
            assert.deepStrictEqual([...seen, ...inside], [1, 2, 3, 4, 5].slice(0, seen.length + inside.length))
            seen = []
          }))
        assert.isAbove(operations, 20)
      }).pipe(inBus), 5000)
  })
})
