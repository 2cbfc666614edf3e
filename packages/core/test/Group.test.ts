import { CoreError, Group, Joiner, Orchestrator, Routine } from "@effect-orchestra/core"
import { cancelledBy } from "@effect-orchestra/core/Kernel"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Option, Random, Ref, Scope, Stream } from "effect"
import { TestClock, TestConsole } from "effect/testing"

const seeds = Number(process.env["SEEDS"] ?? 200)

/** The typed errors of a failure, in their order. */
const errors = <A, E>(exit: Exit.Exit<A, E>): ReadonlyArray<E> =>
  Exit.isFailure(exit) ? exit.cause.reasons.filter(Cause.isFailReason).map(({ error }) => error) : []

/** Who interrupted, as the exit says. */
const why = (exit: Exit.Exit<unknown, unknown>) =>
  Exit.isFailure(exit) ? cancelledBy(Cause.annotations(exit.cause)) : null

/** A fork with the group of another run: the compiler counts it to the run around it. */
const asRun = <A, E, R>(fork: Effect.Effect<A, E, R>) => Group.run(() => fork)

describe("Group", () => {
  describe("run", () => {
    it.effect("returns the body's value after every task has ended", () =>
      Effect.gen(function*() {
        const done = yield* Ref.make(0)
        const value = yield* Group.run((group) =>
          Effect.gen(function*() {
            yield* Group.fork(group, Effect.andThen(Effect.yieldNow, Ref.update(done, (n) => n + 1)))
            yield* Group.fork(group, Effect.andThen(Effect.yieldNow, Ref.update(done, (n) => n + 1)))
            return "body"
          })
        )
        assert.deepStrictEqual([value, yield* Ref.get(done)], ["body", 2])
      }))

    it.effect("1. a failing task interrupts its siblings and the body, and the run fails when all of them have ended", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const slow = Effect.never.pipe(
          Effect.onInterrupt(() => Effect.andThen(Effect.yieldNow, Effect.sync(() => log.push("sibling gone"))))
        )
        const exit = yield* Effect.exit(Group.run((group) =>
          Effect.gen(function*() {
            yield* Group.fork(group, slow)
            yield* Group.fork(group, Effect.andThen(Effect.yieldNow, Effect.fail("boom")))
            return yield* Effect.never.pipe(Effect.onInterrupt(() => Effect.sync(() => log.push("body gone"))))
          })
        ))
        assert.deepStrictEqual(exit, Exit.fail("boom"))
        assert.deepStrictEqual(log.sort(), ["body gone", "sibling gone"])
      }))

    it.effect("5. when a finalizer fails too, both errors appear, the cause first", () =>
      Effect.gen(function*() {
        const dying = Effect.never.pipe(Effect.onInterrupt(() => Effect.die("finalizer")))
        const exit = yield* Effect.exit(
          Group.run((group) => Effect.andThen(Group.fork(group, dying), Group.fork(group, Effect.fail("first"))))
        )
        assert.isTrue(Exit.isFailure(exit))
        if (Exit.isFailure(exit)) {
          const [first, ...rest] = exit.cause.reasons
          assert.isTrue(first !== undefined && Cause.isFailReason(first) && first.error === "first")
          assert.isTrue(rest.some((reason) => Cause.isDieReason(reason) && reason.defect === "finalizer"))
        }
      }))

    it.effect("fails when a finalizer of a succeeding task fails", () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(
          Group.run((group) => Group.fork(group, Effect.addFinalizer(() => Effect.die("late"))))
        )
        assert.isTrue(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
      }))

    it.effect("15. of a hundred tasks at a limit of three, at most three run at any moment, and all run once", () =>
      Effect.gen(function*() {
        let running = 0
        let peak = 0
        let total = 0
        const task = Effect.gen(function*() {
          peak = Math.max(peak, ++running)
          total++
          yield* Effect.yieldNow
          running--
        })
        yield* Group.run((group) => Effect.forEach(Array.from({ length: 100 }), () => Group.fork(group, task)), {
          concurrency: 3
        })
        assert.deepStrictEqual([peak, total, running], [3, 100, 0])
      }))

    it.effect("17. a producer that waits for a slot is released with the group's cause", () =>
      Effect.gen(function*() {
        const seen = yield* Deferred.make<Exit.Exit<unknown, unknown>>()
        const exit = yield* Effect.exit(Group.run((group) =>
          Effect.gen(function*() {
            yield* Group.fork(group, Effect.andThen(Effect.yieldNow, Effect.fail("root")))
            return yield* Group.fork(group, Effect.never).pipe(Effect.onExit((exit) => Deferred.succeed(seen, exit)))
          }), { concurrency: 1 }))
        assert.deepStrictEqual(exit, Exit.fail("root"))
        const released = yield* Deferred.await(seen)
        assert.isTrue(Exit.isFailure(released) && Option.contains(Cause.findErrorOption(released.cause), "root"))
      }))

    it.effect("16. tryFork never waits: none when the group is full, a task when there is a slot again", () =>
      Effect.gen(function*() {
        const tried = yield* Group.run((group) =>
          Effect.gen(function*() {
            const first = yield* Group.tryFork(group, Effect.yieldNow)
            const second = yield* Group.tryFork(group, Effect.yieldNow)
            yield* Effect.forEach(Option.toArray(first), Routine.join)
            return [first, second, yield* Group.tryFork(group, Effect.void)]
          }), { concurrency: 1 })
        assert.deepStrictEqual(tried.map(Option.isSome), [true, false, true])
      }))

    it.effect("interrupting it interrupts every task and waits for them", () =>
      Effect.gen(function*() {
        let gone = 0
        const task = Effect.never.pipe(Effect.onInterrupt(() => Effect.sync(() => gone++)))
        const fiber = yield* Effect.forkChild(
          Group.run((group) => Effect.andThen(Group.fork(group, task), Group.fork(group, task))),
          { startImmediately: true }
        )
        yield* Fiber.interrupt(fiber)
        assert.strictEqual(gone, 2)
      }))

    it.effect("a task that is stopped is no failure, one that a stranger interrupts is", () =>
      Effect.gen(function*() {
        const stopped = yield* Effect.exit(
          Group.run((group) => Effect.flatMap(Group.fork(group, Effect.never), Routine.stop))
        )
        assert.deepStrictEqual(stopped, Exit.succeed("stopped" as const))
        const interrupted = yield* Effect.exit(
          Group.run((group) => Effect.flatMap(Group.fork(group, Effect.never), Routine.interrupt))
        )
        assert.isTrue(Exit.isFailure(interrupted) && Cause.hasInterruptsOnly(interrupted.cause))
      }))

    it.effect("18. a limit that is no positive integer is a defect that names it, one changed later has no effect", () =>
      Effect.gen(function*() {
        for (const concurrency of [0, -1, 1.5, NaN]) {
          const exit = yield* Effect.exit(Group.run(() => Effect.void, { concurrency }))
          assert.isTrue(Exit.isFailure(exit) && String(Cause.squash(exit.cause)).endsWith(`got: ${concurrency}`))
        }
        const options = { concurrency: 1 }
        const second = yield* Group.run((group) =>
          Effect.gen(function*() {
            options.concurrency = 0
            yield* Group.fork(group, Effect.yieldNow)
            options.concurrency = 2
            return yield* Group.tryFork(group, Effect.void)
          }), options)
        assert.isTrue(Option.isNone(second))
      }))

    it.effect("its tasks inherit the span of whoever forks them", () =>
      Effect.gen(function*() {
        const task = yield* Group.run((group) =>
          Effect.flatMap(Group.fork(group, Effect.map(Effect.currentSpan, (span) => span.name)), Routine.join)
        ).pipe(Effect.withSpan("request"))
        assert.strictEqual(task, "request")
      }))

    it.effect("is listed below the orchestrator while it runs, and leaves nothing behind", () =>
      Effect.gen(function*() {
        const paths = yield* Group.run((group) =>
          Effect.andThen(
            Group.fork(group, Effect.yieldNow, { name: "task" }),
            Effect.map(Orchestrator.snapshot, (nodes) => nodes.map((node) => node.path))
          ), { name: "import" })
        assert.deepStrictEqual(paths, ["/orchestra", "/orchestra/import", "/orchestra/import/task"])
        assert.strictEqual((yield* Orchestrator.snapshot).length, 1)
      }).pipe(Effect.provide(Orchestrator.layer)))

    it.effect("2. a run with no task returns at once, and so does a join", () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* Group.run(() => Effect.succeed("body")), "body")
        yield* Effect.flatMap(Group.make<number>(), Group.join)
        assert.deepStrictEqual(yield* Group.all([]), [])
      }))

    it.effect("4. two failures of one tick are both in the cause, the first to fail first", () =>
      Effect.gen(function*() {
        const gate = yield* Orchestrator.fork(Effect.yieldNow)
        const exit = yield* Effect.exit(
          Group.run((group) =>
            Effect.forEach(
              ["first", "second"],
              (error) => Group.fork(group, Effect.andThen(Routine.await(gate), Effect.fail(error)))
            )
          )
        )
        assert.deepStrictEqual(errors(exit), ["first", "second"])
      }).pipe(Effect.provide(Orchestrator.layer)))

    it.effect("6. a defect is no failure: it is seen as thrown, and no error handler catches it", () =>
      Effect.gen(function*() {
        const defect = new Error("thrown")
        const exit = yield* Group.run((group) =>
          Group.fork(group, Effect.suspend((): Effect.Effect<never, string> => Effect.die(defect)))
        ).pipe(
          Effect.catch(() => Effect.succeed("caught")),
          Effect.exit
        )
        assert.isTrue(Exit.isFailure(exit) && !Cause.hasFails(exit.cause) && Cause.squash(exit.cause) === defect)
        assert.include(defect.stack, "Group.test.ts")
      }))

    it.effect("7. tasks that throw lose no slot, and the others complete where the policy says so", () =>
      Effect.gen(function*() {
        const tasks = Array.from(
          { length: 20 },
          (_, index) =>
            Effect.andThen(Effect.yieldNow, () => index % 2 === 0 ? Effect.die("thrown") : Effect.succeed(index))
        )
        const exits = yield* Group.settled(tasks, { concurrency: 2 })
        assert.deepStrictEqual(exits.filter(Exit.isSuccess).length, 10)
        assert.deepStrictEqual(exits.map(Exit.isSuccess), tasks.map((_, index) => index % 2 === 1))
      }))

    it.effect("8. when the body returns first, its tasks are waited for, or halted where that is asked", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const body = (group: Group.Group) =>
          Effect.as(
            Group.fork(
              group,
              Effect.andThen(Effect.yieldNow, Effect.sync(() => log.push("finished"))).pipe(
                Effect.onInterrupt(() => Effect.andThen(Effect.yieldNow, Effect.sync(() => log.push("halted"))))
              )
            ),
            "body"
          )
        assert.strictEqual(yield* Group.run(body, { onBodyEnd: "wait" }), "body")
        assert.strictEqual(yield* Group.run(body, { onBodyEnd: "halt" }), "body")
        assert.deepStrictEqual(log, ["finished", "halted"])
      }))

    it.effect("9. a fork into an ended group fails without running, one into a stopping group with its cause", () =>
      Effect.gen(function*() {
        let ran = 0
        const task = Effect.sync(() => void ran++)
        const seen: Array<unknown> = []
        let escaped: Group.Group | undefined
        const exit = yield* Effect.exit(Group.run((group) =>
          Effect.gen(function*() {
            escaped = group
            const late = Effect.exit(Group.fork(group, task)).pipe(
              Effect.tap((exit) => Effect.sync(() => seen.push(exit)))
            )
            yield* Group.fork(group, Effect.never.pipe(Effect.onInterrupt(() => late)))
            yield* Group.fork(group, Effect.fail("root"))
          })
        ))
        assert.deepStrictEqual(exit, Exit.fail("root"))
        assert.deepStrictEqual(seen, [Exit.fail("root")])
        yield* Group.run((group) => Effect.sync(() => void (escaped = group)))
        assert.isDefined(escaped)
        if (escaped === undefined) return
        const late = yield* Effect.exit(asRun(Group.fork(escaped, task)))
        assert.isTrue(Exit.isFailure(late) && Cause.squash(late.cause) instanceof CoreError.GroupClosed)
        assert.isTrue(Option.isNone(yield* asRun(Group.tryFork(escaped, task))))
        // There is nothing left to cancel.
        yield* Group.cancel(escaped)
        assert.isFalse(yield* Group.extend(escaped, 1))
        assert.strictEqual(ran, 0)
      }))

    it.effect("10. inner finalizers of a cancelled group run before outer ones, the last acquired first", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const held = (name: string) =>
          Effect.addFinalizer(() => Effect.andThen(Effect.yieldNow, Effect.sync(() => log.push(name))))
        const fiber = yield* Effect.forkChild(
          Effect.scoped(Effect.andThen(
            held("outer"),
            Group.run((group) =>
              Group.fork(
                group,
                Effect.gen(function*() {
                  yield* held("task, first")
                  yield* held("task, second")
                  yield* Group.run((inner) =>
                    Group.fork(
                      inner,
                      Effect.andThen(Effect.andThen(held("inner, first"), held("inner, second")), Effect.never)
                    )
                  )
                })
              )
            )
          )),
          { startImmediately: true }
        )
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(log, ["inner, second", "inner, first", "task, second", "task, first", "outer"])
      }))

    it.effect("11. a grandchild forked into the outer group outlives its parent, but not the group", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const grandchild = Effect.andThen(Effect.yieldNow, Effect.sync(() => log.push("grandchild")))
        yield* Group.run((outer) =>
          Effect.gen(function*() {
            const child = yield* Group.fork(
              outer,
              Group.run(() => Group.fork(outer, grandchild))
            )
            yield* Routine.join(child)
            log.push("child")
          })
        )
        log.push("group")
        assert.deepStrictEqual(log, ["child", "grandchild", "group"])
      }))

    it.effect("13. a task that cancels its own group does not wait for itself, and the result says who it was", () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(Group.run((group) =>
          Effect.gen(function*() {
            yield* Group.fork(group, Effect.never)
            yield* Group.fork(
              group,
              Effect.andThen(Effect.yieldNow, Effect.andThen(Group.cancel(group), Effect.never)),
              { name: "self" }
            )
            return "body"
          }), { name: "work" }))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        assert.deepStrictEqual(why(exit), { reason: "cancelled", requester: "/orchestra/work/self" })
      }).pipe(Effect.provide(Orchestrator.layer)))

    it.effect("14. a cancelled group tells its first failure, also to code that waits for a slot", () =>
      Effect.gen(function*() {
        const seen: Array<Exit.Exit<unknown, unknown>> = []
        const exit = yield* Effect.exit(Group.run((group) =>
          Effect.gen(function*() {
            yield* Group.fork(group, Effect.andThen(Effect.yieldNow, Effect.fail("first")))
            const note = (exit: Exit.Exit<unknown, unknown>) => Effect.sync(() => void seen.push(exit))
            yield* Effect.forkChild(Effect.onExit(Group.fork(group, Effect.never), note), { startImmediately: true })
            yield* Effect.onExit(Group.fork(group, Effect.never), note)
          }), { concurrency: 1 }))
        assert.deepStrictEqual(exit, Exit.fail("first"))
        assert.deepStrictEqual(seen, [Exit.fail("first"), Exit.fail("first")])
      }))

    it.effect("21. a task that is stopped or interrupted while it waits for a slot never runs", () =>
      Effect.gen(function*() {
        let ran = 0
        const task = Effect.sync(() => void ran++)
        const states = yield* Group.run((group) =>
          Effect.gen(function*() {
            const { kernel } = yield* Orchestrator
            const holder = yield* Group.fork(group, Effect.never)
            const stopped = yield* Effect.forkChild(Group.fork(group, task, { name: "stopped" }), {
              startImmediately: true
            })
            const cut = yield* Effect.forkChild(Group.fork(group, task, { name: "cut" }), { startImmediately: true })
            const killed = yield* Effect.forkChild(Group.fork(group, task, { name: "killed" }), {
              startImmediately: true
            })
            const waiting = (yield* Orchestrator.list).filter(({ state }) => state === "pending")
            const node = (name: string) => kernel.node(waiting.find((routine) => routine.name === name)?.id ?? "")
            const [first, second] = [node("stopped"), node("killed")]
            if (!Routine.isRoutine(first) || !Routine.isRoutine(second)) {
              return yield* Effect.die("not listed as pending")
            }
            yield* Fiber.interrupt(cut)
            yield* Routine.stop(first)
            yield* Routine.interrupt(second)
            yield* Routine.stop(holder)
            const routines = [yield* Fiber.join(stopped), yield* Fiber.join(killed)]
            const exits = yield* Effect.forEach(routines, Routine.await)
            assert.isTrue(exits.every((exit) => Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause)))
            const starts = (yield* Orchestrator.stats).map(({ name, starts }) => `${name} ${starts}`)
            assert.deepStrictEqual(starts, ["routine 1", "stopped 0", "cut 0", "killed 0"])
            // The slot is free.
            return yield* Effect.flatMap(Group.fork(group, Effect.succeed("next")), Routine.join)
          }), { concurrency: 1 })
        assert.deepStrictEqual([states, ran], ["next", 0])
        assert.strictEqual((yield* Orchestrator.snapshot).length, 1)
      }).pipe(Effect.provide(Orchestrator.layer)))

    it.effect("an interrupted caller, a cancelled group and a failing sibling are told to the tasks", () =>
      Effect.gen(function*() {
        const reasons: Array<unknown> = []
        yield* Orchestrator.instrument((event) => {
          if (event._tag === "Exited" && event.name === "told") reasons.push(event.exit.cancelledBy)
        })
        const told = (group: Group.Group) => Group.fork(group, Effect.never, { name: "told" })
        const waiting = (group: Group.Group) => Effect.andThen(told(group), Effect.never)
        const options = { name: "work" }
        yield* Effect.exit(Group.run((group) => Effect.andThen(told(group), Group.cancel(group, "quota")), options))
        yield* Effect.exit(Group.run((group) => Effect.andThen(told(group), Effect.fail("body")), options))
        const caller = yield* Effect.forkChild(Group.run(waiting, options), { startImmediately: true })
        yield* Fiber.interrupt(caller)
        const owner = yield* Orchestrator.fork(Group.run(waiting, options), { name: "owner" })
        yield* Routine.stop(owner)
        yield* Group.run(told, { ...options, onBodyEnd: "halt" })
        yield* Effect.exit(Group.run(told, { ...options, deadline: 0 }))
        assert.deepStrictEqual(reasons, [
          { reason: "quota", requester: null },
          { reason: "sibling_failed", requester: "/orchestra/work" },
          { reason: "interrupted", requester: "/orchestra/work" },
          { reason: "stopped", requester: null },
          { reason: "body_ended", requester: "/orchestra/work" },
          { reason: "deadline", requester: "/orchestra/work" }
        ])
      }).pipe(Effect.provide(Orchestrator.layer)))

    it.effect("an error is caught by its tag unless a finalizer died beside it: a defect is not hidden", () =>
      Effect.gen(function*() {
        const closed = new CoreError.GroupClosed({ group: "mine" })
        const run = (sibling: Effect.Effect<void>) =>
          Group.run((group) => Effect.andThen(Group.fork(group, sibling), Group.fork(group, Effect.fail(closed)))).pipe(
            Effect.catchTag("GroupClosed", () => Effect.succeed("caught")),
            Effect.exit
          )
        assert.deepStrictEqual(yield* run(Effect.never), Exit.succeed("caught"))
        const dying = yield* run(Effect.never.pipe(Effect.onInterrupt(() => Effect.die("finalizer"))))
        assert.isTrue(Exit.isFailure(dying) && Cause.hasDies(dying.cause) && Cause.squash(dying.cause) === closed)
      }))

    it.effect("what the body makes stands below the group, what a task makes below the task", () =>
      Effect.gen(function*() {
        const paths = Effect.map(Orchestrator.snapshot, (nodes) => nodes.map(({ path }) => path))
        const seen = yield* Group.run((group) =>
          Effect.gen(function*() {
            const own = yield* Group.run(() => paths, { name: "inner" })
            const task = Group.fork(group, Group.run(() => paths, { name: "inner" }), { name: "task" })
            return [own, yield* Effect.flatMap(task, Routine.join)]
          }), { name: "outer" })
        assert.deepStrictEqual(seen, [
          ["/orchestra", "/orchestra/outer", "/orchestra/outer/inner"],
          ["/orchestra", "/orchestra/outer", "/orchestra/outer/task", "/orchestra/outer/task/inner"]
        ])
      }).pipe(Effect.provide(Orchestrator.layer)))

    it.effect("a group made by what a group or a routine left behind stands below the orchestrator", () =>
      Effect.gen(function*() {
        const late = yield* Deferred.make<void>()
        const paths = Effect.map(Orchestrator.snapshot, (nodes) => nodes.map(({ path }) => path))
        const detached = Effect.forkDetach(
          Effect.andThen(Deferred.await(late), Group.run(() => paths, { name: "late" })),
          { startImmediately: true }
        )
        const left = [
          yield* Group.run(() => detached),
          yield* Effect.flatMap(Orchestrator.fork(detached), Routine.join)
        ]
        yield* Deferred.succeed(late, undefined)
        for (const fiber of left) {
          assert.include(["/orchestra/late", "/orchestra/late#g-4"], (yield* Fiber.join(fiber))[1])
        }
      }).pipe(Effect.provide(Orchestrator.layer)))

    it.effect("the line that forked a task is kept where the orchestrator keeps them", () =>
      Effect.gen(function*() {
        const sites = yield* Group.run((group) =>
          Effect.gen(function*() {
            yield* Group.fork(group, Effect.never)
            yield* Effect.never.pipe(Group.fork(group, { name: "piped" }))
            yield* Group.tryFork(group, Effect.never)
            yield* Group.start(group, Effect.andThen(Routine.ready, Effect.never))
            return (yield* Orchestrator.list).map(({ forkSite }) => forkSite ?? "unknown")
          }), { onBodyEnd: "halt" })
        assert.strictEqual(sites.length, 4)
        for (const site of sites) assert.match(site, /Group\.test\.ts:\d+/)
      }).pipe(Effect.provide(Orchestrator.layerWith({ forkSites: true }))))

    it.effect("goes on without a task that was stopped and abandoned", () =>
      Effect.gen(function*() {
        const stubborn = Effect.uninterruptible(Effect.sleep("1 hour"))
        const fiber = yield* Effect.forkChild(
          Group.run((group) =>
            Effect.flatMap(Group.fork(group, stubborn, { shutdown: "1 second" }), (task) => Routine.stop(task)), {
            concurrency: 1
          }),
          { startImmediately: true }
        )
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* Fiber.join(fiber), "abandoned")
        yield* TestClock.adjust("1 hour")
        assert.strictEqual((yield* Orchestrator.snapshot).length, 1)
      }).pipe(Effect.provide(Orchestrator.layer)))

    it.effect("a shutdown asks the tasks before it interrupts them", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const task = Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("interrupted")))
        const drain = Effect.andThen(Effect.yieldNow, Effect.sync(() => void log.push("drained")))
        const fiber = yield* Effect.forkChild(
          Group.run((group) => Effect.andThen(Group.fork(group, task, { drain }), Effect.never)),
          { startImmediately: true }
        )
        const report = yield* Orchestrator.shutdown()
        const exit = yield* Fiber.await(fiber)
        assert.deepStrictEqual([report.clean, log], [true, ["drained", "interrupted"]])
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      }).pipe(Effect.provide(Orchestrator.layer)))
  })

  describe("a deadline", () => {
    it.effect("22. of two deadlines the earlier one fires, and the outer is told as outer", () =>
      Effect.gen(function*() {
        const inner = (deadline: number) =>
          Group.run(() => Effect.never, { name: "inner", deadline }).pipe(
            Effect.catchTag("DeadlineExceeded", ({ group }) => Effect.succeed(`${group} was caught`))
          )
        const caught = yield* Effect.forkChild(
          Group.run(() => inner(10), { name: "outer", deadline: 20 }),
          { startImmediately: true }
        )
        const outer = (deadline: number) =>
          Effect.flip(Group.run(() => Effect.andThen(inner(deadline), Effect.never), { name: "outer", deadline: 20 }))
        const later = yield* Effect.forkChild(outer(30), { startImmediately: true })
        const earlier = yield* Effect.forkChild(outer(10), { startImmediately: true })
        const together = yield* Effect.forkChild(outer(20), { startImmediately: true })
        yield* TestClock.adjust(20)
        assert.strictEqual(yield* Fiber.join(caught), "/orchestra/outer/inner was caught")
        for (const fiber of [later, earlier, together]) {
          const error = yield* Fiber.join(fiber)
          assert.match(error.group, /^\/orchestra\/outer(#g-\d+)?$/)
          assert.strictEqual(error.afterMillis, 20)
        }
      }).pipe(Effect.provide(Orchestrator.layer)))

    it.effect("23. with a deadline in the past the body runs to its first suspension at most", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const say = (what: string) => Effect.sync(() => log.push(what))
        const body = Effect.andThen(say("before"), Effect.andThen(Effect.yieldNow, say("after")))
        const error = yield* Effect.flip(Group.run(() => body, { deadline: 0 }))
        assert.instanceOf(error, CoreError.DeadlineExceeded)
        assert.deepStrictEqual(log, ["before"])
        assert.strictEqual(yield* Group.run(() => Effect.succeed("in time"), { deadline: 0 }), "in time")
      }))

    it.effect("24. once it is extended only the new one applies, and when it has fired it cannot be", () =>
      Effect.gen(function*() {
        let fired: boolean | undefined
        const fiber = yield* Effect.forkChild(
          Effect.flip(Group.run((group) =>
            Effect.gen(function*() {
              yield* Effect.sleep(5)
              assert.isTrue(yield* Group.extend(group, "20 millis"))
              return yield* Effect.never.pipe(
                Effect.onInterrupt(() => Effect.map(Group.extend(group, 100), (extended) => fired = extended))
              )
            }), { deadline: 10 })),
          { startImmediately: true }
        )
        yield* TestClock.adjust(5)
        yield* TestClock.adjust(19)
        assert.isUndefined(fiber.pollUnsafe())
        yield* TestClock.adjust(1)
        const error = yield* Fiber.join(fiber)
        assert.deepStrictEqual([error.afterMillis, fired], [25, false])
        assert.isFalse(yield* Group.run((group) => Group.extend(group, 10)))
      }))

    it.effect("waits for what it interrupted, and may be infinite", () =>
      Effect.gen(function*() {
        let closed = false
        const slow = Effect.onInterrupt(Effect.never, () =>
          Effect.andThen(Effect.sleep(50), Effect.sync(() => void (closed = true))))
        const fiber = yield* Effect.forkChild(
          Effect.flip(Group.run((group) =>
            Group.fork(group, slow), { deadline: 10 })),
          { startImmediately: true }
        )
        yield* TestClock.adjust(10)
        yield* TestClock.adjust(0)
        yield* TestClock.adjust(49)
        assert.isFalse(closed)
        yield* TestClock.adjust(1)
        assert.strictEqual((yield* Fiber.join(fiber)).afterMillis, 10)
        assert.isTrue(closed)
        assert.strictEqual(yield* Group.run(() => Effect.succeed(1), { deadline: Infinity }), 1)
      }))

    it.effect("that is negative or no number is a defect that names it", () =>
      Effect.gen(function*() {
        for (const deadline of [-1, NaN]) {
          const exit = yield* Effect.exit(Group.run(() => Effect.void, { deadline }))
          assert.isTrue(Exit.isFailure(exit) && String(Cause.squash(exit.cause)).endsWith(`got: ${deadline}`))
          const extended = yield* Effect.exit(Group.run((group) => Group.extend(group, deadline), { deadline: 1 }))
          assert.isTrue(Exit.isFailure(extended) && String(Cause.squash(extended.cause)).endsWith(`got: ${deadline}`))
        }
      }))
  })

  describe("start", () => {
    const server = Effect.andThen(Effect.sleep(10), Effect.andThen(Routine.ready, Effect.never))

    it.effect("57. the caller goes on when the task is ready; a failure before that is its own, and not the group's", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const fiber = yield* Effect.forkChild(
          Group.run((group) =>
            Effect.gen(function*() {
              yield* Group.start(group, server)
              log.push("ready")
              const failed = yield* Effect.flip(Group.start(group, Effect.fail("port taken")))
              const ended = yield* Effect.flip(Group.start(group, Effect.void, { name: "short" }))
              assert.isTrue(ended instanceof CoreError.NotReady && ended.reason === "ended")
              return failed
            }), { onBodyEnd: "halt" }),
          { startImmediately: true }
        )
        yield* TestClock.adjust(9)
        assert.deepStrictEqual(log, [])
        yield* TestClock.adjust(1)
        assert.strictEqual(yield* Fiber.join(fiber), "port taken")
      }))

    it.effect("a task that was ready is a task like any other", () =>
      Effect.gen(function*() {
        const failing = Effect.andThen(Routine.ready, Effect.andThen(Effect.yieldNow, Effect.fail("later")))
        const exit = yield* Effect.exit(Group.run((group) => Effect.andThen(Group.start(group, failing), Effect.never)))
        assert.deepStrictEqual(exit, Exit.fail("later"))
        const collected = yield* Group.run((group) =>
          Effect.andThen(
            Effect.exit(Group.start(group, Effect.fail("before"))),
            Effect.exit(Group.start(group, failing))
          ), {
          joiner: Joiner.collect
        })
        assert.deepStrictEqual(collected, [Exit.fail("later")])
      }))

    it.effect("stops a task whose caller is interrupted, or that is not ready in time", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const slow = Effect.onInterrupt(server, () => Effect.sync(() => log.push("stopped")))
        const fiber = yield* Effect.forkChild(
          Group.run((group) =>
            Effect.gen(function*() {
              yield* Effect.timeoutOption(Group.start(group, slow), 5)
              log.push("interrupted")
              return yield* Effect.flip(Group.start(group, slow, { startTimeout: 5 }))
            }), { concurrency: 1 }),
          { startImmediately: true }
        )
        yield* TestClock.adjust(5)
        yield* TestClock.adjust(5)
        const error = yield* Fiber.join(fiber)
        assert.deepStrictEqual([
          error instanceof CoreError.NotReady && error.reason,
          error instanceof CoreError.NotReady && error.waitedMillis
        ], ["timeout", 5])
        assert.deepStrictEqual(log, ["stopped", "interrupted", "stopped"])
      }))

    it.effect("waits for a slot first, and is released with the group's cause", () =>
      Effect.gen(function*() {
        const seen: Array<unknown> = []
        const exit = yield* Effect.exit(Group.run((group) =>
          Effect.gen(function*() {
            yield* Group.fork(group, Effect.andThen(Effect.yieldNow, Effect.fail("root")))
            yield* Effect.onExit(Group.start(group, server), (exit) => Effect.sync(() => seen.push(exit)))
          }), { concurrency: 1 }))
        assert.deepStrictEqual([exit, seen], [Exit.fail("root"), [Exit.fail("root")]])
      }))
  })

  describe("make", () => {
    it.effect("12. a second join repeats neither results nor errors of the first", () =>
      Effect.gen(function*() {
        const group = yield* Group.make<number, string, Joiner.All>({ joiner: Joiner.all })
        yield* Group.fork(group, Effect.as(Effect.yieldNow, 1))
        yield* Group.fork(group, Effect.succeed(2))
        assert.deepStrictEqual(yield* Group.join(group), [1, 2])
        yield* Group.fork(group, Effect.succeed(3))
        yield* Group.fork(group, Effect.fail("round two"))
        yield* Effect.yieldNow
        assert.deepStrictEqual(yield* Effect.exit(Group.fork(group, Effect.succeed(4))), Exit.fail("round two"))
        assert.deepStrictEqual(yield* Effect.exit(Group.join(group)), Exit.fail("round two"))
        yield* Group.fork(group, Effect.succeed(5))
        assert.deepStrictEqual(yield* Group.join(group), [5])
        assert.deepStrictEqual(yield* Group.join(group), [])
      }))

    it.effect("shares a join among all who wait, and one that is interrupted ends no round", () =>
      Effect.gen(function*() {
        const group = yield* Group.make<number, never, Joiner.All>({ joiner: Joiner.all })
        yield* Group.fork(group, Effect.as(Effect.sleep(10), 1))
        const given = yield* Effect.forkChild(Group.join(group), { startImmediately: true })
        yield* Fiber.interrupt(given)
        const [first, second] = [
          yield* Effect.forkChild(Group.join(group), { startImmediately: true }),
          yield* Effect.forkChild(Group.join(group), { startImmediately: true })
        ]
        yield* TestClock.adjust(10)
        assert.deepStrictEqual([yield* Fiber.join(first), yield* Fiber.join(second)], [[1], [1]])
      }))

    it.effect("closing its scope interrupts and awaits the tasks; it takes no more", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const scope = yield* Scope.make()
        const group = yield* Scope.provide(Group.make<void>({ concurrency: 1 }), scope)
        const slow = Effect.onInterrupt(Effect.never, () =>
          Effect.andThen(Effect.yieldNow, Effect.sync(() => log.push("gone"))))
        yield* Group.fork(group, slow)
        const parked = yield* Effect.forkChild(Effect.flip(Group.fork(group, slow)), { startImmediately: true })
        const joining = yield* Effect.forkChild(Effect.flip(Group.join(group)), { startImmediately: true })
        yield* Scope.close(scope, Exit.void)
        assert.deepStrictEqual(log, ["gone"])
        const errors = [
          yield* Fiber.join(parked),
          yield* Fiber.join(joining),
          yield* Effect.flip(Group.fork(group, slow)),
          yield* Effect.flip(Group.join(group)),
          yield* Effect.flip(Group.start(group, slow))
        ]
        assert.isTrue(errors.every((error) =>
          error._tag === "GroupClosed"
        ))
        assert.isTrue(Option.isNone(yield* Group.tryFork(group, slow)))
        assert.strictEqual((yield* Orchestrator.snapshot).length, 1)
      }).pipe(Effect.provide(Orchestrator.layer)))

    it.effect("logs a failure that nobody saw when its scope closes, and no other", () =>
      Effect.gen(function*() {
        const fail = Effect.flatMap(Group.make<void, string>(), (group) =>
          Effect.as(Group.fork(group, Effect.andThen(Effect.yieldNow, Effect.fail("unseen"))), group))
        yield* Effect.scoped(Effect.tap(fail, (group) =>
          Effect.exit(Group.join(group))))
        yield* Effect.scoped(Effect.tap(fail, () => Effect.andThen(Effect.yieldNow, Effect.yieldNow)))
        const lines = yield* TestConsole.logLines
        assert.strictEqual(lines.filter((line) => String(line).includes("nobody joined it")).length, 1)
      }))

    it.effect("is ended by a shutdown of its orchestrator", () =>
      Effect.gen(function*() {
        const group = yield* Group.make<void>()
        yield* Group.fork(group, Effect.never)
        assert.isTrue((yield* Orchestrator.shutdown()).clean)
        const exit = yield* Effect.exit(Group.fork(group, Effect.never))
        assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        const joined = yield* Effect.exit(Group.join(group))
        assert.isTrue(Exit.isFailure(joined) && Cause.hasInterruptsOnly(joined.cause))
      }).pipe(Effect.provide(Orchestrator.layer)))
  })

  describe("all and settled", () => {
    it.effect("19. results follow the order of submission, whatever the order of completion", () =>
      Effect.gen(function*() {
        const late = (millis: number) => Effect.as(Effect.sleep(millis), millis)
        const fiber = yield* Effect.forkChild(
          Effect.all([
            Group.all([late(30), late(10), late(20)], { concurrency: 2 }),
            Group.all({ a: late(30), b: late(10) }),
            Group.all(new Set([late(30), late(10)])),
            Group.settled({ a: late(30), b: Effect.fail("b"), c: Effect.die("c") })
          ]),
          { startImmediately: true }
        )
        yield* TestClock.adjust(120)
        assert.deepStrictEqual(yield* Fiber.join(fiber), [
          [30, 10, 20],
          { a: 30, b: 10 },
          [30, 10],
          { a: Exit.succeed(30), b: Exit.fail("b"), c: Exit.die("c") }
        ])
      }))

    it.effect("3. where failures are collected one failure stops nobody, and is told afterwards", () =>
      Effect.gen(function*() {
        let finished = 0
        const slow = Effect.andThen(Effect.yieldNow, Effect.sync(() => ++finished))
        const exits = yield* Group.run(
          (group) =>
            Effect.all([Group.fork(group, slow), Group.fork(group, Effect.fail("early")), Group.fork(group, slow)]),
          { joiner: Joiner.collect }
        )
        assert.deepStrictEqual(exits, [Exit.succeed(1), Exit.fail("early"), Exit.succeed(2)])
      }))

    it.effect("all fails with the first failure, a task that was stopped included, and at its deadline", () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* Effect.exit(Group.all({ a: Effect.never, b: Effect.fail("b") })), Exit.fail("b"))
        const stopped = yield* Effect.exit(
          Group.run((group) => Effect.flatMap(Group.fork(group, Effect.never), Routine.stop), { joiner: Joiner.all })
        )
        assert.isTrue(Exit.isFailure(stopped) && Cause.hasInterruptsOnly(stopped.cause))
        const fiber = yield* Effect.forkChild(Effect.flip(Group.settled([Effect.never], { deadline: 5 })), {
          startImmediately: true
        })
        yield* TestClock.adjust(5)
        assert.strictEqual((yield* Fiber.join(fiber))._tag, "DeadlineExceeded")
      }))
  })

  describe("stream", () => {
    it.effect("20. a slow first task holds back the rest, a bounded number of them, and a failing reader stops the producer", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        let forked = 0
        const numbers = (slow: number) =>
          Group.stream(
            (group) =>
              Effect.forEach(Array.from({ length: 20 }, (_, index) => index), (index) =>
                Effect.andThen(
                  Group.fork(group, Effect.as(index === 0 ? Effect.sleep(slow) : Effect.void, index)),
                  Effect.sync(() => void forked++)
                )).pipe(
                  Effect.onInterrupt(() => Effect.sync(() => log.push("producer stopped")))
                ),
            { concurrency: 4 }
          )
        const fiber = yield* Effect.forkChild(
          Stream.runForEach(numbers(10), (value) => Effect.sync(() => log.push(String(value)))),
          { startImmediately: true }
        )
        yield* TestClock.adjust(9)
        assert.deepStrictEqual([log.splice(0), forked], [[], 4])
        yield* TestClock.adjust(1)
        yield* Fiber.join(fiber)
        assert.deepStrictEqual([log.splice(0).map(Number), forked], [
          Array.from({ length: 20 }, (_, index) => index),
          20
        ])
        const exit = yield* Effect.exit(
          Stream.runForEach(numbers(0), (value) => value === 2 ? Effect.fail("reader") : Effect.void)
        )
        assert.deepStrictEqual([exit, log], [Exit.fail("reader"), ["producer stopped"]])
        assert.strictEqual((yield* Orchestrator.snapshot).length, 1)
      }).pipe(Effect.provide(Orchestrator.layer)))

    it.effect("fails with the first failure when the rest has ended, and reads nothing of a task that was stopped", () =>
      Effect.gen(function*() {
        let gone = false
        const slow = Effect.onInterrupt(
          Effect.never,
          () => Effect.andThen(Effect.yieldNow, Effect.sync(() => void (gone = true)))
        )
        const exit = yield* Effect.exit(
          Stream.runCollect(Group.stream((group) =>
            Effect.andThen(
              Group.fork(group, slow),
              Group.fork(group, Effect.andThen(Effect.yieldNow, Effect.fail("task")))
            )
          ))
        )
        assert.deepStrictEqual([exit, gone], [Exit.fail("task"), true])
        const values = yield* Stream.runCollect(Group.stream((group) =>
          Effect.gen(function*() {
            yield* Group.fork(group, Effect.succeed(1))
            yield* Effect.flatMap(Group.fork(group, Effect.never), Routine.stop)
            yield* Group.fork(group, Effect.succeed(3))
          }), { concurrency: 2 }))
        assert.deepStrictEqual(Array.from(values), [1, 3])
      }))

    it.effect("closes the resources of its body after its tasks", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        yield* Stream.runDrain(Stream.take(
          Group.stream((group) =>
            Effect.gen(function*() {
              yield* Effect.addFinalizer(() => Effect.sync(() => log.push("body")))
              yield* Group.fork(group, Effect.succeed(1))
              yield* Group.fork(group, Effect.onInterrupt(Effect.never, () => Effect.sync(() => log.push("task"))))
            })
          ),
          1
        ))
        assert.deepStrictEqual(log, ["task", "body"])
      }))
  })

  it.effect(
    "whatever its tasks do: within its limit, the first failure leads, all ended and nothing left",
    () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < seeds; seed++) {
          yield* Effect.gen(function*() {
            let running = 0
            let peak = 0
            let started = 0
            let ended = 0
            const failures: Array<string> = []
            const task = (index: number, millis: number, fails: boolean) =>
              Effect.gen(function*() {
                started++
                peak = Math.max(peak, ++running)
                yield* Effect.addFinalizer(() =>
                  Effect.sync(() => {
                    running--
                    ended++
                  })
                )
                yield* Effect.sleep(millis)
                if (!fails) return index
                failures.push(`task ${index}`)
                return yield* Effect.fail(`task ${index}`)
              })
            const limit = yield* Random.nextIntBetween(1, 5)
            const count = yield* Random.nextIntBetween(0, 12)
            const failing = yield* Random.nextIntBetween(0, 20)
            const plan = yield* Effect.forEach(
              Array.from({ length: count }, (_, index) => index),
              (index) => Effect.map(Random.nextIntBetween(1, 10), (millis) => task(index, millis, index === failing))
            )
            const fiber = yield* Effect.forkChild(
              Effect.exit(Group.run((group) => Effect.forEach(plan, (effect) => Group.fork(group, effect)), {
                concurrency: limit
              })),
              { startImmediately: true }
            )
            yield* TestClock.adjust("200 millis")
            const exit = yield* Fiber.join(fiber)
            assert.isAtMost(peak, limit, `seed ${seed}`)
            assert.deepStrictEqual([running, ended], [0, started], `seed ${seed}`)
            if (failing < count) assert.deepStrictEqual(exit, Exit.fail(failures[0] ?? "none failed"), `seed ${seed}`)
            else assert.isTrue(Exit.isSuccess(exit) && started === count, `seed ${seed}`)
            assert.strictEqual((yield* Orchestrator.snapshot).length, 1, `seed ${seed}`)
          }).pipe(Random.withSeed(`group ${seed}`))
        }
      }).pipe(Effect.provide(Orchestrator.layer)),
    120_000
  )
})
