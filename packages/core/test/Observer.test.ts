import { Bus, Group, Joiner, Mailbox, Orchestrator, Routine, Subscription, Topic } from "@effect-orchestra/core"
import type { Node } from "@effect-orchestra/core/Kernel"
import { nodeOf } from "@effect-orchestra/core/MailboxNode"
import { observe as observing, type Observer } from "@effect-orchestra/core/Observer"
import { walk } from "@effect-orchestra/core/Walk"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Fiber, Layer, Logger, Option, Schema, Scope } from "effect"
import { TestClock } from "effect/testing"

/** Observes from now on. */
const observe = (observer: Observer) => Effect.flatMap(Orchestrator, ({ kernel }) => observing(kernel, observer))

const run = <A, E>(test: Effect.Effect<A, E, Orchestrator | Bus | Scope.Scope>) =>
  Effect.provide(test, Layer.provideMerge(Bus.layer, Orchestrator.layer))

const fork = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.forkChild(effect, { startImmediately: true })

const asked = (exit: Exit.Exit<unknown, unknown>) => Exit.isSuccess(exit) ? "success" : Cause.pretty(exit.cause)

describe("Observer", () => {
  it.effect("is told how each run ended, with its routine", () =>
    run(Effect.gen(function*() {
      const told: Array<string> = []
      yield* observe({
        ended: (record, exit, now) =>
          void told.push(`${record.name} ${record.reason(exit)} ${now - (record.startedAt ?? 0)}`)
      })
      yield* Orchestrator.fork(Effect.sleep("2 seconds"), { name: "a" })
      const b = yield* Orchestrator.fork(Effect.never, { name: "b" })
      yield* TestClock.adjust("2 seconds")
      yield* Routine.stop(b)
      assert.deepStrictEqual(told, ["a success 2000", "b interrupted 2000"])
    })))

  it.effect("is told who waited for room and for messages, only where somebody did, and how long", () =>
    run(Effect.scoped(Effect.gen(function*() {
      const told: Array<unknown> = []
      yield* observe({
        waited: (node, operation, record, millis) => void told.push([node.name, operation, record?.name, millis])
      })
      const mailbox = yield* Mailbox.make<number>({ name: "m", capacity: 1 })
      yield* Mailbox.send(mailbox, 1)
      yield* Orchestrator.fork(Mailbox.send(mailbox, 2), { name: "sender" })
      yield* TestClock.adjust("3 seconds")
      yield* Mailbox.receive(mailbox)
      yield* TestClock.adjust(1)
      yield* Mailbox.receive(mailbox)
      const receiver = yield* Orchestrator.fork(Mailbox.receive(mailbox), { name: "receiver" })
      yield* TestClock.adjust("1 second")
      yield* Routine.stop(receiver)
      assert.deepStrictEqual(told, [["m", "send", "sender", 3000], ["m", "receive", "receiver", 1000]])
    }))))

  it.effect("is told of publishers and subscribers that waited", () =>
    run(Effect.scoped(Effect.gen(function*() {
      const told: Array<unknown> = []
      yield* observe({
        waited: (node, operation, record, millis) => void told.push([node.kind, operation, record?.name, millis])
      })
      const Ticks = Topic.make("Ticks", Schema.Int, { capacity: 1 })
      const subscription = yield* Bus.subscribe(Ticks)
      yield* Bus.publish(Ticks, 1)
      yield* Orchestrator.fork(Bus.publish(Ticks, 2), { name: "publisher" })
      yield* TestClock.adjust("3 seconds")
      yield* Subscription.receiveAll(subscription)
      yield* TestClock.adjust(0)
      yield* Subscription.receiveAll(subscription)
      const reader = yield* Orchestrator.fork(Subscription.receive(subscription), { name: "reader" })
      yield* TestClock.adjust("1 second")
      yield* Routine.stop(reader)
      assert.deepStrictEqual(told, [["topic", "send", "publisher", 3000], ["mailbox", "receive", "reader", 1000]])
    }))))

  it.effect("is told of messages that a mailbox refused, and of those that waited when it was closed", () =>
    run(Effect.gen(function*() {
      const told: Array<unknown> = []
      yield* observe({ refused: (node, outcome, messages) => void told.push([node.name, outcome, messages]) })
      yield* Effect.scoped(Effect.gen(function*() {
        const fails = yield* Mailbox.make<number>({ name: "fails", capacity: 2, overflow: "fail" })
        yield* Mailbox.sendAll(fails, [1, 2])
        yield* Effect.exit(Mailbox.send(fails, 3))
        yield* Effect.exit(Mailbox.sendAll(fails, [3, 4, 5]))
        yield* Mailbox.trySend(fails, 3)
        yield* Mailbox.end(fails)
        yield* Effect.exit(Mailbox.sendAll(fails, new Set([6, 7])))
        yield* Mailbox.trySend(fails, 8)
        const waits = yield* Mailbox.make<number>({ name: "waits", capacity: 1 })
        yield* fork(Mailbox.sendAll(waits, [1, 2, 3]))
        yield* TestClock.adjust(0)
      }))
      assert.deepStrictEqual(told, [
        ["fails", "rejected", 1],
        ["fails", "rejected", 3],
        ["fails", "rejected", 1],
        ["fails", "closed", 2],
        ["fails", "closed", 1],
        ["waits", "closed", 2]
      ])
    })))

  it.effect("is told how a group ended, and what its joiner made of it", () =>
    run(Effect.gen(function*() {
      const told: Array<unknown> = []
      yield* observe({
        grouped: (node, { exit, size, waitMillis }) => void told.push([node.name, asked(exit), size, waitMillis])
      })
      yield* Group.run((group) => Group.fork(group, Effect.void), { name: "good" })
      yield* Effect.exit(Group.run((group) => Group.fork(group, Effect.fail("bad")), { name: "bad" }))
      const none = Group.run((group) => Group.fork(group, Effect.fail("x")), {
        name: "none",
        joiner: Joiner.firstSuccess
      })
      yield* Effect.exit(none)
      const cut = yield* fork(Group.run((group) => Group.fork(group, Effect.never), { name: "cut" }))
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.interrupt(cut)
      assert.deepStrictEqual(told.map((each) => (each as Array<unknown>).toSpliced(1, 1)), [
        ["good", 1, 0],
        ["bad", 1, 0],
        ["none", 1, 0],
        ["cut", 1, 2000]
      ])
      const exits = told.map((each) => String((each as Array<unknown>)[1]).split("\n", 1)[0])
      assert.deepStrictEqual(exits.map((text) => text?.replace(/^Error: /, "").slice(0, 7)), [
        "success",
        "bad",
        "NoSucce",
        "Interru"
      ])
    })))

  it.effect("is told of each round of a long-lived group, and not of its closing", () =>
    run(Effect.gen(function*() {
      const told: Array<unknown> = []
      yield* observe({ grouped: (_, { exit, size, waitMillis }) => void told.push([asked(exit), size, waitMillis]) })
      yield* Effect.scoped(Effect.gen(function*() {
        const group = yield* Group.make()
        yield* Group.fork(group, Effect.sleep("3 seconds"))
        yield* TestClock.adjust("1 second")
        yield* fork(Group.join(group))
        yield* TestClock.adjust("2 seconds")
        yield* Group.fork(group, Effect.void)
        yield* Group.fork(group, Effect.void)
        yield* Group.join(group)
        yield* Group.fork(group, Effect.never)
      }))
      assert.deepStrictEqual(told, [["success", 1, 2000], ["success", 2, 0]])
    })))

  it.effect("is told once of a round that several join", () =>
    run(Effect.scoped(Effect.gen(function*() {
      let told = 0
      yield* observe({ grouped: () => void told++ })
      const group = yield* Group.make<void, never, Joiner.All>({ joiner: Joiner.all })
      yield* Group.fork(group, Effect.sleep("1 second"))
      const joins = yield* Effect.forEach([1, 2, 3], () => fork(Group.join(group)))
      yield* TestClock.adjust("1 second")
      yield* Effect.forEach(joins, Fiber.join)
      assert.strictEqual(told, 1)
    }))))

  it.effect("is told of the phases of a shutdown, and when it is over", () =>
    run(Effect.gen(function*() {
      const told: Array<unknown> = []
      yield* observe({
        stopping: (stop, phase) =>
          void told.push(phase ?? stop.phases.map(({ durationMillis, phase }) => `${phase} ${durationMillis}`))
      })
      yield* Orchestrator.fork(Effect.never, { drain: Effect.sleep("2 seconds") })
      const { shutdown } = yield* Orchestrator
      yield* fork(shutdown())
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(told, ["ask", "interrupt", "abandon", ["ask 2000", "interrupt 0"]])
    })))

  it.effect("is told what is no longer listed, if that is no routine", () =>
    run(Effect.gen(function*() {
      const gone: Array<string> = []
      yield* observe({ removed: (node) => void gone.push(`${node.kind} ${node.name}`) })
      yield* Effect.scoped(Mailbox.make({ name: "m", capacity: 1 }))
      yield* Effect.flatMap(Orchestrator.fork(Effect.void, { name: "r" }), Routine.join)
      assert.deepStrictEqual(gone, ["mailbox m"])
    })))

  it.effect("is told nothing any more once it was removed, and costs nothing when it is the last", () =>
    run(Effect.gen(function*() {
      const { kernel } = yield* Orchestrator
      let told = 0
      const [one, another] = [yield* Scope.make(), yield* Scope.make()]
      for (const scope of [one, another]) yield* Scope.provide(observe({ ended: () => void told++ }), scope)
      yield* Effect.flatMap(Orchestrator.fork(Effect.void), Routine.join)
      assert.strictEqual(told, 2)
      yield* Scope.close(one, Exit.void)
      yield* Effect.flatMap(Orchestrator.fork(Effect.void), Routine.join)
      assert.strictEqual(told, 3)
      yield* Scope.close(another, Exit.void)
      assert.isUndefined(kernel.observers)
      yield* Effect.flatMap(Orchestrator.fork(Effect.void), Routine.join)
      assert.strictEqual(told, 3)
    })))

  it.effect("that throws is removed and logged; the others are told all the same", () => {
    const logged: Array<unknown> = []
    return run(Effect.gen(function*() {
      let told = 0
      yield* observe({
        ended: () => {
          throw new Error("oops")
        }
      })
      yield* observe({ ended: () => void told++ })
      const jobs = [yield* Orchestrator.fork(Effect.void), yield* Orchestrator.fork(Effect.void)]
      yield* Effect.forEach(jobs, Routine.join)
      assert.strictEqual(told, 2)
      assert.strictEqual(logged.length, 1)
    })).pipe(Effect.provide(Logger.layer([Logger.make(({ message }) => logged.push(message))])))
  })
})

describe("flow and age of a mailbox", () => {
  it.effect("counts what went in, what overflowed, and each time that something was handed over", () =>
    run(Effect.scoped(Effect.gen(function*() {
      const newest = yield* Mailbox.make<number>({ capacity: 2, overflow: "drop_new" })
      yield* Mailbox.sendAll(newest, [1, 2, 3, 4])
      assert.deepStrictEqual(nodeOf(newest).flow, { accepted: 2, dropped: 2, received: 0 })
      const oldest = yield* Mailbox.make<number>({ capacity: 2, overflow: "drop_old" })
      yield* Mailbox.sendAll(oldest, [1, 2, 3])
      assert.deepStrictEqual(nodeOf(oldest).flow, { accepted: 3, dropped: 1, received: 0 })
      yield* Mailbox.receiveWith(oldest, () => Effect.fail("no"), { attempts: 2 })
      yield* Mailbox.receiveWith(oldest, () => Effect.fail("no"), { attempts: 2 })
      yield* Mailbox.receiveWith(oldest, () => Effect.fail("no"), { onFailure: "drop" })
      assert.deepStrictEqual(nodeOf(oldest).flow, { accepted: 3, dropped: 1, received: 3 })
    }))))

  it.effect("knows the age of the oldest message inside while somebody observes", () =>
    run(Effect.scoped(Effect.gen(function*() {
      const { kernel } = yield* Orchestrator
      const mailbox = yield* Mailbox.make<number>({ capacity: 10 })
      const age = () => nodeOf(mailbox).oldestMillis(kernel.writer.now())
      yield* Mailbox.send(mailbox, 0)
      assert.isUndefined(age())
      yield* Mailbox.receive(mailbox)
      yield* observe({})
      for (const n of [1, 2, 3]) {
        yield* Mailbox.send(mailbox, n)
        yield* TestClock.adjust("1 second")
      }
      assert.strictEqual(age(), 3000)
      yield* Mailbox.receive(mailbox)
      assert.strictEqual(age(), 2000)
      yield* Mailbox.receiveAll(mailbox)
      assert.isUndefined(age())
      yield* TestClock.adjust("1 hour")
      yield* fork(Mailbox.receive(mailbox))
      yield* Mailbox.sendAll(mailbox, [4, 5])
      yield* TestClock.adjust("1 second")
      assert.strictEqual(age(), 1000)
      yield* Mailbox.receiveAll(mailbox)
      yield* TestClock.adjust("1 hour")
      // What a receiver left behind that waited for it has no age, and not that of others long ago.
      const receiver = yield* fork(Mailbox.receive(mailbox))
      yield* Mailbox.send(mailbox, 6)
      yield* Fiber.interrupt(receiver)
      yield* TestClock.adjust("1 second")
      assert.isUndefined(age())
    }))))

  it.effect("keeps the age of a long backlog in little memory", () =>
    run(Effect.scoped(Effect.gen(function*() {
      const { kernel } = yield* Orchestrator
      yield* observe({})
      const mailbox = yield* Mailbox.make<number>({ capacity: 1000 })
      for (let n = 0; n < 300; n++) {
        yield* Mailbox.send(mailbox, n)
        yield* TestClock.adjust(1000)
      }
      let estimated = 0
      for (let n = 0; n < 300; n++) {
        const age = nodeOf(mailbox).oldestMillis(kernel.writer.now()) ?? 0
        if (age > (300 - n) * 1000) estimated++
        // Never younger than it is, and older by the gap of two marks at most.
        assert.isAtLeast(age, (300 - n) * 1000)
        assert.isAtMost(age, 300_000)
        yield* Mailbox.receive(mailbox)
      }
      assert.isAbove(estimated, 200)
    }))))
})

describe("walk", () => {
  const names = (visited: ReadonlyArray<Node>) => visited.map((node) => node.name)

  it.effect("gives a run the context it begins with, and is told of the span of whoever forked it", () =>
    run(Effect.gen(function*() {
      const Mark = Context.Reference("Mark", { defaultValue: () => "none" })
      const told: Array<unknown> = []
      yield* observe({
        starting: (record, context, spawner) => {
          told.push([record.name, spawner?._tag === "Span" ? spawner.name : undefined])
          return Context.add(context, Mark, record.name)
        }
      })
      const seen = Effect.all([
        Effect.service(Mark),
        Effect.map(Effect.option(Effect.currentSpan), Option.map(({ name }) => name))
      ])
      const job = yield* Effect.withSpan(Orchestrator.fork(seen, { name: "job" }), "request")
      const task = yield* Effect.withSpan(
        Group.run((group) => Effect.flatMap(Group.fork(group, seen, { name: "task" }), Routine.join)),
        "grouped"
      )
      assert.deepStrictEqual(yield* Routine.join(job), ["job", Option.none()])
      assert.deepStrictEqual(task, ["task", Option.some("grouped")])
      assert.deepStrictEqual(told, [["job", "request"], ["task", "grouped"]])
    })))

  it.effect("gives what is forked no span when nobody observes any more", () =>
    run(Effect.gen(function*() {
      yield* Effect.scoped(observe({ starting: (_, context) => context }))
      const span = yield* Effect.withSpan(Orchestrator.fork(Effect.option(Effect.currentSpan)), "request")
      assert.deepStrictEqual(yield* Routine.join(span), Option.none())
    })))

  it.effect("is told what a run, a group and a mailbox go through", () =>
    run(Effect.scoped(Effect.gen(function*() {
      const told: Array<string> = []
      yield* observe({
        ready: (record) => void told.push(`ready ${record.name}`),
        asked: (record) => void told.push(`asked ${record.name}`),
        abandoned: (record, waited) => void told.push(`abandoned ${record.name} ${waited}`),
        full: (mailbox, capacity) => void told.push(`full ${mailbox.name} ${capacity}`),
        opening: (group, context) => {
          told.push(`opening ${group.name}`)
          return context
        },
        failing: (group, cause) => void told.push(`failing ${group.name} ${Cause.squash(cause)}`)
      })
      const slow = yield* Orchestrator.fork(Effect.andThen(Effect.sleep("1 second"), Routine.ready), {
        name: "slow",
        ready: "signal"
      })
      yield* TestClock.adjust("1 second")
      yield* Routine.await(slow)
      const deaf = yield* Orchestrator.fork(Effect.uninterruptible(Effect.sleep("60 seconds")), { name: "deaf" })
      yield* fork(Routine.stop(deaf, 0))
      yield* TestClock.adjust("5 seconds")
      yield* Effect.exit(Group.run((group) => Group.fork(group, Effect.fail("no")), { name: "both" }))
      const mailbox = yield* Mailbox.make<number>({ name: "box", capacity: 1 })
      yield* Mailbox.send(mailbox, 1)
      assert.deepStrictEqual(told, [
        "ready slow",
        "ready deaf",
        "asked deaf",
        "abandoned deaf 5000",
        "opening both",
        "ready routine",
        "failing both no",
        "full box 1"
      ])
    }))))

  it.effect("lets something go with messages, back to the handler each time", () =>
    run(Effect.scoped(Effect.gen(function*() {
      const handled: Array<unknown> = []
      let sent = 0
      yield* observe({
        carrier: (kind, name) =>
          name === "plain" ? undefined : {
            sending: (send) => send({ reached: kind === "topic" ? -1 : sent++ }),
            handling: (effect, carried) => Effect.andThen(Effect.sync(() => handled.push(carried)), effect)
          }
      })
      for (const name of ["boxed", "plain"]) {
        const mailbox = yield* Mailbox.make<string>({ name, capacity: 4 })
        yield* Mailbox.send(mailbox, "a")
        yield* Mailbox.trySend(mailbox, "b")
        let tries = 0
        for (let n = 0; n < 3; n++) {
          yield* Mailbox.receiveWith(mailbox, () => ++tries === 1 ? Effect.fail("once") : Effect.void)
        }
        assert.strictEqual(mailbox.stats.bytes, 0)
      }
      const Ticks = Topic.make("Ticks", Schema.Int)
      yield* Bus.react(Ticks, { group: "a", handler: () => Effect.void })
      yield* Bus.publish(Ticks, 1)
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(handled, [{ reached: 0 }, { reached: 0 }, undefined, { reached: 1 }])
    }))))

  it.effect("visits every node once, parents first", () =>
    run(Effect.gen(function*() {
      const { kernel } = yield* Orchestrator
      yield* fork(
        Group.run((group) => Effect.andThen(Group.fork(group, Effect.never, { name: "task" }), Effect.never), {
          name: "group"
        })
      )
      for (const name of ["b", "c"]) yield* Orchestrator.fork(Effect.never, { name })
      const visited: Array<Node> = []
      yield* walk(kernel, (node) => void visited.push(node), 1)
      assert.deepStrictEqual(names(visited), ["bus", "group", "task", "b", "c"])
    })))

  it.effect("goes on where it stood when that goes meanwhile, and can be cut", () =>
    run(Effect.gen(function*() {
      const { kernel } = yield* Orchestrator
      const routines = yield* Effect.forEach(["a", "b", "c", "d"], (name) => Orchestrator.fork(Effect.never, { name }))
      const visited: Array<Node> = []
      const walking = yield* fork(walk(kernel, (node) => void visited.push(node), 2))
      // It stands at the next, which goes, and so does the one behind it.
      for (const index of [1, 2]) yield* Routine.stop(routines[index] ?? routines[0]!)
      yield* Fiber.join(walking)
      assert.deepStrictEqual(names(visited), ["bus", "a", "d"])
      const cut = yield* fork(walk(kernel, (node) => void visited.push(node), 1))
      yield* Fiber.interrupt(cut)
      assert.isAtMost(visited.length, 5)
      yield* Routine.stop(routines[0]!)
    })))
})
