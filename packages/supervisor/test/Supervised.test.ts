import { Orchestrator, Routine } from "@effect-orchestra/core"
import { Child, Supervised, Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Schedule, Stream } from "effect"
import { pass, scene, settle } from "./Stage.ts"

type Answers = Effect.Effect<string>

/** Knows its run by a field that nobody else can read. */
class Connection {
  readonly #run: number
  readonly brand = "connection"
  readonly calls: { count: number }
  readonly latch: Deferred.Deferred<void>
  constructor(run: number, calls: { count: number }, latch: Deferred.Deferred<void>) {
    this.#run = run
    this.calls = calls
    this.latch = latch
  }
  query(sql: string): Effect.Effect<string, "db"> {
    return sql === "bad" ? Effect.fail("db") : Effect.succeed(`${sql} of ${this.#run}`)
  }
  get ping(): Answers {
    return Effect.succeed(`pong of ${this.#run}`)
  }
  twice<A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<readonly [A, A], E, R> {
    return Effect.zip(effect, effect)
  }
  rows(count: number): Stream.Stream<string> {
    return Stream.map(Stream.range(1, count), (row) => `row ${row} of ${this.#run}`)
  }
  get feed(): Stream.Stream<string, "feed"> {
    return Stream.make(`news of ${this.#run}`)
  }
  slow(): Answers {
    return Effect.suspend(() => {
      this.calls.count++
      return Effect.as(Deferred.await(this.latch), `slow of ${this.#run}`)
    })
  }
}

interface Shape extends Pick<Connection, "query" | "ping" | "twice" | "rows" | "feed" | "slow" | "brand"> {}

class Db extends Context.Service<Db, Shape>()("test/Db") {}
class Send extends Context.Service<Send, (to: string) => Answers>()("test/Send") {}

const facade = Supervised.stable(Db, {
  streams: ["rows"],
  constants: ["brand"],
  unavailable: { query: () => "db" as const, feed: () => "feed" as const }
})

/** A layer that counts its runs, and a crash of the present one. */
const database = (start: (run: number) => Effect.Effect<unknown, string> = () => Effect.void) => {
  const calls = { count: 0 }
  const latch = Deferred.makeUnsafe<void>()
  const closing: Array<(run: number) => Effect.Effect<unknown>> = []
  let runs = 0
  let crash = Deferred.makeUnsafe<never, string>()
  const live = Layer.effectContext(Effect.gen(function*() {
    const run = ++runs
    yield* start(run)
    yield* Effect.addFinalizer(() => Effect.forEach(closing, (close) => close(run)))
    const mine = crash = Deferred.makeUnsafe<never, string>()
    yield* Orchestrator.forkScoped(Deferred.await(mine))
    return Context.make(Db, new Connection(run, calls, latch)).pipe(
      Context.add(Send, (to) => Effect.succeed(`mail of ${run} to ${to}`))
    )
  }))
  return { live, calls, latch, closing, crash: Effect.suspend(() => Deferred.fail(crash, "crash")) }
}

type DbChild<Out> = Child.Child<"db", Db | Send, Out, unknown, Orchestrator>

const app = <Out>(child: DbChild<Out>, options: Supervisor.SupervisorOptions = {}) =>
  Supervisor.make({ name: "app", strategy: "one_for_one", intensity: 100, ...options, children: [child] })

const backoff = Schedule.spaced("1 second")

/** Starts the child with a sibling, and returns what that was given. */
const start = Effect.fnUntraced(function*<Out>(child: DbChild<Out>, options: Supervisor.SupervisorOptions = {}) {
  const seen = Deferred.makeUnsafe<Context.Context<Out>>()
  const look = Effect.contextWith((context: Context.Context<Out>) => Deferred.succeed(seen, context))
  const sibling = Child.make("sibling", Effect.andThen(look, Effect.never))
  const spec = Supervisor.make({
    name: "app",
    strategy: "one_for_one",
    intensity: 100,
    ...options,
    // The sibling reads whatever the child exports.
    children: [child, sibling as unknown as Child.Child<"sibling", never, never, never, never>]
  })
  return { ref: yield* Supervisor.start(spec), context: yield* Deferred.await(seen) }
})

const use = (sql: string) => Supervised.use(Db, (db) => db.query(sql))

const failure = (exit: Exit.Exit<unknown, unknown>): unknown => Exit.isFailure(exit) ? Cause.squash(exit.cause) : exit

const unavailable = (state: string, path = "/orchestra/app/db") =>
  new SupervisorError.ServiceUnavailable({ service: "test/Db", path, state })

describe("a supervised service", () => {
  it.effect(
    "answers by the same references from the next run, and until then lets them wait",
    scene(function*() {
      const { crash, live } = database()
      const context = yield* Layer.build(Supervisor.layer(app(Child.layer("db", live, { stable: [facade], backoff }))))
      const db = Context.get(context, Db)
      const handle = yield* Effect.provideContext(Supervised.handle(Db), context)
      const query = db.query("select")
      const all = Effect.all([
        query,
        db.ping,
        handle.use(({ ping }) => ping),
        Effect.flatMap(handle.get, ({ ping }) => ping),
        Effect.provideContext(use("select"), context)
      ], { concurrency: "unbounded" })
      const answers = (run: number) => [
        `select of ${run}`,
        `pong of ${run}`,
        `pong of ${run}`,
        `pong of ${run}`,
        `select of ${run}`
      ]
      assert.deepStrictEqual(yield* all, answers(1))
      for (const run of [2, 3]) {
        yield* crash
        yield* settle
        const waiting = yield* Effect.forkChild(all)
        yield* pass(999)
        assert.isUndefined(waiting.pollUnsafe())
        yield* pass(1)
        assert.deepStrictEqual(yield* Fiber.join(waiting), answers(run))
      }
    })
  )

  it.effect(
    "is waited for at most as long as the supervisor says, and tells what its child was doing",
    scene(function*() {
      const { crash, live } = database()
      const child = Child.layer("db", live, { stable: [facade], backoff: Schedule.spaced("1 minute") })
      const context = yield* Layer.build(Supervisor.layer(app(child, { unavailable: { wait: "2 seconds" } })))
      const db = Context.get(context, Db)
      yield* crash
      yield* settle
      const typed = yield* Effect.forkChild(Effect.provideContext(use("select"), context))
      yield* pass(1000)
      const defect = yield* Effect.forkChild(db.ping)
      const mapped = yield* Effect.forkChild(db.query("select"))
      yield* pass(999)
      assert.isUndefined(typed.pollUnsafe())
      yield* pass(1)
      assert.deepStrictEqual(yield* Fiber.await(typed), Exit.fail(unavailable("restarting")))
      assert.isUndefined(defect.pollUnsafe())
      yield* pass(1000)
      assert.deepStrictEqual(yield* Fiber.await(defect), Exit.die(unavailable("restarting")))
      assert.deepStrictEqual(yield* Fiber.await(mapped), Exit.fail("db" as const))
    })
  )

  it.effect(
    "is not waited for at all with a wait of 0",
    scene(function*() {
      const { crash, live } = database()
      const context = yield* Layer.build(
        Supervisor.layer(app(Child.layer("db", live, { backoff }), { unavailable: { wait: 0 } }))
      )
      yield* crash
      yield* settle
      const exit = yield* Effect.exit(Effect.provideContext(use("select"), context))
      assert.deepStrictEqual(exit, Exit.fail(unavailable("restarting")))
    })
  )

  const ends: ReadonlyArray<{
    readonly how: string
    readonly options?: Pick<Child.ChildOptions, "intensity" | "onGiveUp">
    readonly act: (ref: Supervisor.SupervisorRef, crash: Effect.Effect<unknown>) => Effect.Effect<unknown, unknown>
    readonly state: string
    readonly again?: (ref: Supervisor.SupervisorRef) => Effect.Effect<unknown, unknown>
  }> = [
    {
      how: "stopped by hand",
      act: (ref) => Supervisor.terminateChild(ref, "db"),
      state: "stopped",
      again: (ref) => Supervisor.restartChild(ref, "db")
    },
    {
      how: "quarantined",
      options: { intensity: 0, onGiveUp: "quarantine" },
      act: (_, crash) => crash,
      state: "quarantined",
      again: (ref) => Supervisor.release(ref, "db")
    },
    {
      how: "deleted",
      act: (ref) => Effect.andThen(Supervisor.terminateChild(ref, "db"), Supervisor.deleteChild(ref, "db")),
      state: `without child "db"`
    },
    {
      how: "stopped with its supervisor",
      act: (ref) => Supervisor.stop(ref),
      state: "stopped"
    }
  ]
  for (const { act, again, how, options, state } of ends) {
    it.effect(
      `fails at once when its child is ${how}, also who waited already`,
      scene(function*() {
        const { crash, live } = database()
        const { context, ref } = yield* start(Child.layer("db", live, { stable: [facade], backoff, ...options }))
        const db = Context.get(context, Db)
        const call = Effect.all([
          Effect.exit(Effect.provideContext(use("select"), context)),
          Effect.exit(db.ping)
        ])
        const error = unavailable(state, how === "deleted" ? "/orchestra/app" : undefined)
        if (options === undefined) {
          // Between two runs.
          yield* crash
          yield* settle
          const waiting = yield* Effect.forkChild(Effect.provideContext(use("select"), context))
          yield* settle
          yield* act(ref, crash)
          yield* settle
          assert.instanceOf(failure(yield* Fiber.await(waiting)), SupervisorError.ServiceUnavailable)
        } else yield* act(ref, crash)
        yield* settle
        assert.deepStrictEqual(yield* call, [Exit.fail(error), Exit.die(error)])
        if (again === undefined) return
        yield* again(ref)
        assert.strictEqual(yield* db.ping, "pong of 2")
        assert.strictEqual(yield* Effect.provideContext(use("a"), context), "a of 2")
      })
    )
  }

  it.effect(
    "lets a call under way end as the old instance ends it: neither repeated nor cut",
    scene(function*() {
      const { calls, crash, latch, live } = database()
      const { context } = yield* start(Child.layer("db", live, { stable: [facade] }))
      const db = Context.get(context, Db)
      const handled = yield* Effect.forkChild(Effect.provideContext(Supervised.use(Db, (db) => db.slow()), context))
      const faced = yield* Effect.forkChild(db.slow())
      yield* settle
      yield* crash
      yield* settle
      assert.strictEqual(yield* db.ping, "pong of 2")
      yield* Deferred.succeed(latch, undefined)
      assert.deepStrictEqual([yield* Fiber.join(handled), yield* Fiber.join(faced)], ["slow of 1", "slow of 1"])
      assert.strictEqual(calls.count, 2)
    })
  )

  it.effect(
    "is gone before its old instance is released, also for a facade",
    scene(function*() {
      const { closing, crash, live } = database()
      const { context } = yield* start(Child.layer("db", live, { stable: [facade] }))
      const answers: Array<string> = []
      const handle = yield* Effect.provideContext(Supervised.handle(Db), context)
      closing.push((run) =>
        Effect.gen(function*() {
          for (const ping of [handle.use((db) => db.ping), Context.get(context, Db).ping]) {
            const call = yield* Effect.forkDetach(Effect.onExit(ping, (exit) =>
              Effect.sync(() =>
                void answers.push(`closing ${run}: ${Exit.isSuccess(exit) ? exit.value : exit}`)
              )))
            yield* settle
            assert.isUndefined(call.pollUnsafe())
          }
        })
      )
      yield* crash
      yield* Effect.andThen(settle, Effect.andThen(settle, settle))
      assert.deepStrictEqual(answers, ["closing 1: pong of 2", "closing 1: pong of 2"])
      closing.length = 0
    })
  )

  it.effect(
    "counts as blocked time of the routine that waits for it, which may be interrupted",
    scene(function*() {
      const { crash, live } = database()
      const { context } = yield* start(Child.layer("db", live, { backoff: Schedule.spaced("3 seconds") }))
      yield* crash
      yield* settle
      const routine = yield* Effect.provideContext(
        Orchestrator.fork(Effect.exit(use("select"))),
        Context.merge(context, Context.pick(Orchestrator)(yield* Effect.context<Orchestrator>()))
      )
      const interrupted = yield* Effect.forkChild(Effect.provideContext(use("select"), context))
      yield* pass(1000)
      yield* Fiber.interrupt(interrupted)
      yield* pass(2000)
      assert.deepStrictEqual(yield* Routine.join(routine), Exit.succeed("select of 2"))
      assert.strictEqual((yield* Routine.stats(routine)).blockedMillis, 3000)
    })
  )

  it.effect(
    "serves thousands of callers that wait for it, each of which may give up",
    scene(function*() {
      const { crash, live } = database()
      const { context } = yield* start(Child.layer("db", live, { backoff }))
      const call = Effect.provideContext(Supervised.use(Db, (db) => db.ping), context)
      yield* crash
      yield* settle
      const answers: Array<string> = []
      const callers: Array<Fiber.Fiber<unknown, unknown>> = []
      const caller = Effect.map(call, (answer) => void answers.push(answer))
      for (let i = 0; i < 2000; i++) callers.push(yield* Effect.forkChild(caller, { startImmediately: true }))
      for (const caller of callers.slice(0, 1000)) caller.interruptUnsafe()
      yield* pass(1000)
      assert.deepStrictEqual([answers.length, new Set(answers)], [1000, new Set(["pong of 2"])])
    })
  )
})

describe("a facade", () => {
  it.effect(
    "passes members of every kind on to the instance itself",
    scene(function*() {
      const { crash, live } = database()
      const sends = Supervised.stable(Send)
      const { context } = yield* start(Child.layer("db", live, { stable: [facade, sends], backoff }))
      const db = Context.get(context, Db)
      const send = Context.get(context, Send)
      const all = Effect.all({
        effect: db.ping,
        method: db.query("select"),
        error: Effect.flip(db.query("bad")),
        generic: db.twice(Effect.succeed(7)),
        streams: Stream.runCollect(db.rows(2)),
        stream: Stream.runCollect(db.feed),
        call: send("ann")
      }, { concurrency: "unbounded" })
      const answers = (run: number) => ({
        effect: `pong of ${run}`,
        method: `select of ${run}`,
        error: "db",
        generic: [7, 7],
        streams: [`row 1 of ${run}`, `row 2 of ${run}`],
        stream: [`news of ${run}`],
        call: `mail of ${run} to ann`
      })
      assert.strictEqual(db.brand, "connection")
      assert.deepStrictEqual<unknown>(yield* all, answers(1))
      yield* crash
      yield* settle
      const waiting = yield* Effect.forkChild(all)
      yield* pass(1000)
      assert.deepStrictEqual<unknown>(yield* Fiber.join(waiting), answers(2))
      // What is no member of the type stays with the instance.
      assert.sameMembers(Object.keys(db), ["query", "ping", "twice", "rows", "feed", "slow", "brand"])
    })
  )

  it.effect(
    "dies of what its members cannot fail with, and fails with what they can",
    scene(function*() {
      const { live } = database()
      const sends = Supervised.stable(Send)
      const { context, ref } = yield* start(Child.layer("db", live, { stable: [facade, sends] }))
      const db = Context.get(context, Db)
      yield* Supervisor.terminateChild(ref, "db")
      const exits = yield* Effect.all([
        Effect.exit(db.ping),
        Effect.exit(db.twice(Effect.void)),
        Effect.exit(Stream.runCollect(db.rows(1))),
        Effect.exit(db.query("select")),
        Effect.exit(Stream.runCollect(db.feed)),
        Effect.exit(Context.get(context, Send)("ann"))
      ])
      const { path, state } = unavailable("stopped")
      const noMail = new SupervisorError.ServiceUnavailable({ service: "test/Send", path, state })
      const gone = unavailable("stopped")
      assert.deepStrictEqual<unknown>(exits, [
        Exit.die(gone),
        Exit.die(gone),
        Exit.die(gone),
        Exit.fail("db"),
        Exit.fail("feed"),
        Exit.die(noMail)
      ])
      assert.strictEqual(noMail.message, "service test/Send is unavailable: /orchestra/app/db is stopped")
    })
  )

  it.effect(
    "maps only its own unavailability, not an error of the same kind that the instance has",
    scene(function*() {
      const inner = unavailable("elsewhere", "/elsewhere")
      class Proxy extends Context.Service<
        Proxy,
        { readonly call: Effect.Effect<void, SupervisorError.ServiceUnavailable | "mapped"> }
      >()("test/Proxy") {}
      const spec = Supervisor.make({
        name: "app",
        strategy: "one_for_one",
        children: [
          Child.layer("proxy", Layer.succeed(Proxy, { call: Effect.fail(inner) }), {
            stable: [Supervised.stable(Proxy, { unavailable: { call: () => "mapped" as const } })]
          })
        ]
      })
      const context = yield* Layer.build(Supervisor.layer(spec))
      assert.strictEqual(yield* Effect.flip(Context.get(context, Proxy).call), inner)
    })
  )
})

describe("what a supervisor exports", () => {
  it.effect(
    "is no instance and nothing that building left behind: handles of all, facades where asked for",
    scene(function*() {
      const { live } = database()
      const context = yield* Layer.build(Supervisor.layer(app(Child.layer("db", live, { stable: [facade] }))))
      const keys = [...context.mapUnsafe.keys()].map((key) => key.replace(/.*Supervised\//, "of "))
      assert.sameMembers(keys, [
        "of exports/s-1",
        "of test/Db",
        "of test/Send",
        "test/Db",
        "effect/Layer/CurrentMemoMap"
      ])
      assert.notInstanceOf(Context.get(context, Db), Connection)
      const sibling = yield* start(Child.layer("db", live))
      assert.isFalse(sibling.context.mapUnsafe.has("test/Db"))
      assert.isFalse(sibling.context.mapUnsafe.has("effect/Layer/CurrentMemoMap"))
    })
  )

  it.effect(
    "is given to the children that start later, and not to those before",
    scene(function*() {
      const { live } = database()
      const seen: Array<string> = []
      const look = <const D extends string = never>(
        id: string,
        options?: { readonly dependsOn: ReadonlyArray<D> }
      ) =>
        Child.make(
          id,
          Effect.gen(function*() {
            const db = yield* Effect.serviceOption(Db)
            const answer = db._tag === "None" ? "none" : yield* db.value.ping
            seen.push(`${id}: ${answer}${db._tag === "Some" && db.value instanceof Connection ? ", itself" : ""}`)
            return yield* Effect.never
          }),
          options
        )
      const strategies = ["one_for_one", "rest_for_one", "one_for_all"] as const
      for (const strategy of strategies) {
        const { crash, live } = database()
        const children = [look("before"), Child.layer("db", live, { stable: [facade] }), look("after")] as const
        yield* Supervisor.start(Supervisor.make({ name: strategy, strategy, children }))
        yield* crash
        yield* settle
        const itself = strategy === "one_for_one" ? "" : ", itself"
        const first = ["before: none", `after: pong of 1${itself}`]
        assert.deepStrictEqual(seen.splice(0), [
          ...first,
          ...strategy === "one_for_all" ? ["before: none"] : [],
          ...strategy === "one_for_one" ? [] : [`after: pong of 2${itself}`]
        ], strategy)
      }
      yield* Supervisor.start(Supervisor.make({
        name: "dependency",
        strategy: "dependency",
        children: [
          Child.layer("db", live, { stable: [facade] }),
          look("free"),
          look("bound", { dependsOn: ["db"] })
        ]
      }))
      yield* settle
      assert.sameMembers(seen, ["free: none", "bound: pong of 1, itself"])
    })
  )

  it.effect(
    "goes through nested supervisors, and outlives their restarts",
    scene(function*() {
      const { crash, live } = database()
      const inner = Supervisor.make({
        name: "inner",
        strategy: "one_for_one",
        intensity: 1,
        children: [Child.layer("db", live, { stable: [facade] })]
      })
      const outer = Supervisor.make({
        name: "outer",
        strategy: "one_for_one",
        children: [Child.supervisor(inner, { backoff })]
      })
      const context = yield* Layer.build(Supervisor.layer(outer))
      const db = Context.get(context, Db)
      assert.strictEqual(yield* db.ping, "pong of 1")
      yield* crash
      yield* settle
      assert.deepStrictEqual([yield* db.ping, yield* Effect.provideContext(use("a"), context)], ["pong of 2", "a of 2"])
      // The inner supervisor gives up, and its parent starts it again.
      yield* crash
      const waiting = yield* Effect.forkChild(Effect.all([db.ping, Effect.provideContext(use("a"), context)]))
      yield* pass(999)
      assert.isUndefined(waiting.pollUnsafe())
      yield* pass(1)
      assert.deepStrictEqual(yield* Fiber.join(waiting), ["pong of 3", "a of 3"])
    })
  )

  it.effect(
    "of a nested supervisor that is stopped fails at once, and so does its stopped child",
    scene(function*() {
      const { live } = database()
      const inner = Supervisor.make({
        name: "inner",
        strategy: "one_for_one",
        autoShutdown: "any_significant",
        children: [
          Child.layer("db", live, { stable: [facade] }),
          Child.make("end", Effect.sleep("1 second"), { restart: "transient", significant: true })
        ]
      })
      const outer = Supervisor.make({
        name: "outer",
        strategy: "one_for_one",
        children: [Child.supervisor(inner, { restart: "transient" })]
      })
      const context = yield* Layer.build(Supervisor.layer(outer))
      assert.strictEqual(yield* Context.get(context, Db).ping, "pong of 1")
      yield* pass(1000)
      const exit = yield* Effect.exit(Effect.provideContext(use("a"), context))
      assert.deepStrictEqual(exit, Exit.fail(unavailable("stopped", "/orchestra/outer/inner")))
    })
  )

  it.effect(
    "is there for a child that was not needed at first: unavailable until somebody starts it",
    scene(function*() {
      const { live } = database((run) => run === 1 ? Supervisor.ignore : Effect.void)
      const { context, ref } = yield* start(Child.layer("db", live, { stable: [facade] }))
      const db = Context.get(context, Db)
      const handle = yield* Effect.provideContext(Supervised.handle(Db), context)
      const call = Effect.all([
        Effect.exit(handle.get),
        Effect.exit(Effect.provideContext(use("a"), context)),
        Effect.exit(Effect.suspend(() => db.ping))
      ])
      const gone = unavailable("stopped")
      assert.deepStrictEqual<unknown>(yield* call, [Exit.fail(gone), Exit.fail(gone), Exit.die(gone)])
      assert.strictEqual(yield* Effect.succeed(db), db)
      yield* Supervisor.restartChild(ref, "db")
      assert.strictEqual(yield* db.ping, "pong of 2")
      assert.deepStrictEqual(yield* Stream.runCollect(db.rows(1)), ["row 1 of 2"])
      assert.strictEqual(yield* handle.use(({ ping }) => ping), "pong of 2")
      assert.strictEqual(yield* Effect.provideContext(use("a"), context), "a of 2")
    })
  )

  it.effect(
    "stands beside that of another supervisor",
    scene(function*() {
      class Other extends Context.Service<Other, Answers>()("test/Other") {}
      const { live } = database(() => Supervisor.ignore)
      const other = Supervisor.make({
        name: "other",
        strategy: "one_for_one",
        children: [Child.layer("other", Layer.succeed(Other, Effect.succeed("other")))]
      })
      const one = Supervisor.layer(app(Child.layer("db", live)))
      const two = Supervisor.layer(other)
      const both = Effect.all([Supervised.use(Other, (other) => other), Effect.flip(use("a"))])
      for (const layer of [Layer.merge(one, two), Layer.merge(two, one)]) {
        assert.deepStrictEqual<unknown>(yield* Effect.provide(both, layer), ["other", unavailable("stopped")])
      }
    })
  )

  it.effect(
    "follows a new specification: what is added reads what stands before it, and references last",
    scene(function*() {
      const { crash, live } = database()
      const seen: Array<string> = []
      const reader = (id: string) =>
        Child.make(
          id,
          Effect.gen(function*() {
            seen.push(`${id}: ${yield* (yield* Db).ping}`)
            return yield* Effect.never
          })
        )
      const db = Child.layer("db", live, { stable: [facade] })
      const options = { name: "app", strategy: "one_for_one" } as const
      const { context, ref } = yield* start(db)
      const spec = Supervisor.make({ ...options, children: [db, reader("a"), reader("b")] })
      yield* Supervisor.reconcile(ref, spec)
      yield* settle
      assert.deepStrictEqual(seen, ["a: pong of 1", "b: pong of 1"])
      yield* crash
      yield* settle
      assert.strictEqual(yield* Context.get(context, Db).ping, "pong of 2")
      const other = database()
      yield* Supervisor.reconcile(
        ref,
        Supervisor.make({ ...options, children: [Child.layer("db", other.live, { stable: [facade] })] })
      )
      assert.strictEqual(yield* Context.get(context, Db).ping, "pong of 1")
    })
  )
})
