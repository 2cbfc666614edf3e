import { Orchestrator, Routine } from "@effect-orchestra/core"
import { atEveryOperation } from "@effect-orchestra/core/testing"
import { SupervisorError, TaskSupervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Deferred, Effect, Exit, Fiber, Layer, Logger, Stream } from "effect"
import { pass, scene, settle } from "./Stage.ts"

const tasks = (options: TaskSupervisor.TaskSupervisorOptions = {}) =>
  TaskSupervisor.start(TaskSupervisor.make({ name: "tasks", ...options }))

const live = (ref: TaskSupervisor.TaskRef) =>
  Effect.map(Effect.orDie(TaskSupervisor.countChildren(ref)), ({ specs }) => specs)

/** Inputs that tell how many of them were pulled. */
const inputs = (n = Infinity) => {
  const seen = { pulled: 0 }
  const iterable: Iterable<number> = {
    *[Symbol.iterator]() {
      while (seen.pulled < n) yield ++seen.pulled
    }
  }
  return { iterable, seen }
}

/** Runs of a function, each of which lasts as long as its number says, in milliseconds. */
const lasting = () => {
  const seen = { running: 0, peak: 0, ended: 0 }
  const run = (millis: number) =>
    Effect.gen(function*() {
      seen.peak = Math.max(seen.peak, ++seen.running)
      yield* Effect.sleep(millis)
      return millis
    }).pipe(Effect.ensuring(Effect.sync(() => {
      seen.running--
      seen.ended++
    })))
  return { seen, run }
}

/** 10 ms in a finalizer. (A `TestClock` may be waited for by its warning when something sleeps where it cannot be interrupted.) */
const rest = Effect.flatMap(Effect.forkDetach(Effect.interruptible(Effect.sleep(10))), Fiber.join)

describe("tasks", () => {
  it.effect(
    "139. a success is delivered once, and a failure to the owner: linked, the owner fails with it; else it lives",
    scene(function*() {
      const ref = yield* tasks()
      let runs = 0
      const one = yield* TaskSupervisor.asyncNolink(ref, Effect.sync(() => ++runs))
      assert.deepStrictEqual([yield* Routine.join(one), yield* Routine.join(one), runs], [1, 1, 1])
      const failing = Effect.andThen(Effect.yieldNow, Effect.fail("no"))
      const owner = (linked: boolean) =>
        Effect.scoped(Effect.gen(function*() {
          const task = yield* linked ? TaskSupervisor.async(ref, failing) : TaskSupervisor.asyncNolink(ref, failing)
          const exit = yield* Routine.await(task)
          yield* settle
          return exit
        }))
      const [linked, alone] = [
        yield* Orchestrator.fork(owner(true), { name: "linked" }),
        yield* Orchestrator.fork(owner(false), { name: "alone" })
      ]
      assert.deepStrictEqual<Exit.Exit<unknown, unknown>>(yield* Routine.await(linked), Exit.fail("no"))
      assert.deepStrictEqual(yield* Routine.await(alone), Exit.succeed(Exit.fail("no")))
      // Also one that fails before its owner goes on; an interruption, or a success, is no failure.
      const ends: ReadonlyArray<
        readonly [Effect.Effect<unknown, string>, (exit: Exit.Exit<string, unknown>) => boolean]
      > = [
        [Effect.fail("at once"), (exit) => Exit.isFailure(exit) && Cause.squash(exit.cause) === "at once"],
        [Effect.die("a defect"), (exit) => Exit.isFailure(exit) && Cause.squash(exit.cause) === "a defect"],
        [Effect.interrupt, Exit.isSuccess],
        [Effect.void, Exit.isSuccess]
      ]
      for (const [end, fits] of ends) {
        const owner = Effect.scoped(Effect.andThen(TaskSupervisor.async(ref, end), Effect.as(settle, "alive")))
        assert.isTrue(fits(yield* Routine.await(yield* Orchestrator.fork(owner))))
        // Not in the midst of what ended the one before.
        yield* Effect.yieldNow
        assert.isTrue(fits(yield* Routine.await(yield* Orchestrator.fork(owner))))
      }
      // Where there is no routine the fiber is interrupted.
      const fiber = yield* Effect.forkChild(owner(true))
      const exit = yield* Fiber.await(fiber)
      assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
      assert.strictEqual(yield* live(ref), 0)
    })
  )

  it.effect(
    "140. the end of the owner ends what is linked to it; the rest goes on until the supervisor stops",
    scene(function*() {
      const ref = yield* tasks()
      const ended: Array<string> = []
      const task = (name: string) => Effect.onInterrupt(Effect.never, () => Effect.sync(() => ended.push(name)))
      for (const how of ["succeeded", "failed", "interrupted"] as const) {
        const gate = yield* Deferred.make<void, string>()
        const owner = yield* Orchestrator.fork(Effect.scoped(Effect.gen(function*() {
          yield* TaskSupervisor.async(ref, task("linked"))
          yield* TaskSupervisor.asyncNolink(ref, task("alone"))
          yield* TaskSupervisor.startChild(ref, task("detached"))
          yield* Deferred.await(gate)
        })))
        yield* settle
        assert.strictEqual(yield* live(ref), 3)
        if (how === "succeeded") yield* Deferred.succeed(gate, undefined)
        else if (how === "failed") yield* Deferred.fail(gate, "owner failed")
        else yield* Routine.interrupt(owner)
        yield* Routine.await(owner)
        // It is gone before its owner is.
        assert.deepStrictEqual([how, ended.splice(0), yield* live(ref)], [how, ["linked"], 2])
        for (const { routine } of yield* TaskSupervisor.whichChildren(ref)) {
          yield* TaskSupervisor.terminateChild(ref, routine)
        }
        ended.length = 0
      }
      // An owner may also be a scope within one.
      yield* Effect.scoped(Effect.andThen(TaskSupervisor.async(ref, task("scoped")), settle))
      assert.deepStrictEqual(ended.splice(0), ["scoped"])
      yield* TaskSupervisor.startChild(ref, task("detached"))
      yield* TaskSupervisor.stop(ref)
      assert.deepStrictEqual(ended, ["detached"])
      const late = yield* Effect.flip(TaskSupervisor.startChild(ref, Effect.void))
      assert.strictEqual(late._tag, "SupervisorNotRunning")
    })
  )

  it.effect(
    "141. a supervisor that is full starts no task and says so, in a stream after all of its tasks were stopped",
    scene(function*() {
      const ref = yield* tasks({ maxChildren: 2 })
      let started = 0
      const task = Effect.andThen(Effect.sync(() => void started++), Effect.never)
      const running = [yield* TaskSupervisor.startChild(ref, task), yield* TaskSupervisor.asyncNolink(ref, task)]
      for (
        const start of [TaskSupervisor.startChild(task), TaskSupervisor.async(task), TaskSupervisor.asyncNolink(task)]
      ) {
        const error = yield* Effect.flip(Effect.scoped(start(ref)))
        assert.instanceOf(error, SupervisorError.MaxChildren)
        assert.deepStrictEqual([error.supervisor, error.maxChildren], ["/orchestra/tasks", 2])
      }
      assert.strictEqual(started, 2)
      yield* Effect.forEach(running, (routine) => TaskSupervisor.terminateChild(ref, routine))
      for (const ordered of [true, false]) {
        for (const asyncStream of [TaskSupervisor.asyncStream, TaskSupervisor.asyncStreamNolink]) {
          let ended = 0
          const run = () =>
            Effect.onInterrupt(Effect.never, () => Effect.andThen(settle, Effect.sync(() => void ended++)))
          const stream = asyncStream(ref, inputs().iterable, run, { concurrency: 4, ordered })
          const error = yield* Effect.flip(Stream.runDrain(stream as Stream.Stream<unknown, { readonly _tag: string }>))
          assert.deepStrictEqual([error._tag, ended, yield* live(ref)], ["MaxChildren", 2, 0])
        }
      }
    })
  )

  it.effect(
    "142. a stream of tasks runs no more at once than it may, in order or as they end, and what takes too long is an element of its own",
    scene(function*() {
      const ref = yield* tasks()
      const millis = [50, 10, 40, 20, 9000, 30, 5]
      const collect = Effect.fnUntraced(function*(options: TaskSupervisor.TaskStreamOptions) {
        const { run, seen } = lasting()
        const running = yield* Effect.forkChild(
          Stream.runCollect(TaskSupervisor.asyncStreamNolink(ref, millis, run, options))
        )
        yield* settle
        for (let step = 0; step < 60; step++) yield* pass(5)
        yield* pass(5000)
        yield* pass(100)
        const exits = yield* Fiber.join(running)
        return {
          peak: seen.peak,
          values: exits.map((exit) => {
            if (Exit.isSuccess(exit)) return exit.value
            const error = Cause.squash(exit.cause)
            return error instanceof SupervisorError.TaskTimeout ? `timeout ${error.timeoutMillis}` : error
          })
        }
      })
      assert.deepStrictEqual(yield* collect({ concurrency: 3 }), {
        peak: 3,
        values: [50, 10, 40, 20, "timeout 5000", 30, 5]
      })
      assert.deepStrictEqual(yield* collect({ concurrency: 3, ordered: false, timeout: 45 }), {
        peak: 3,
        values: [10, 20, 40, "timeout 45", 5, 30, "timeout 45"]
      })
      assert.deepStrictEqual(yield* collect({ concurrency: 1, timeout: 35 }), {
        peak: 1,
        values: ["timeout 35", 10, "timeout 35", 20, "timeout 35", 30, 5]
      })
      assert.strictEqual(yield* live(ref), 0)
    }),
    30_000
  )

  it.effect(
    "143. however the stream ends, no task of it is left when it has: also when its consumer has enough",
    scene(function*() {
      const ref = yield* tasks()
      for (const ordered of [true, false]) {
        for (const concurrency of [1, 2, 5]) {
          const run = (n: number) =>
            n === 1
              ? Effect.as(Effect.yieldNow, n)
              : Effect.onInterrupt(Effect.never, () => rest)
          const taking = yield* Effect.forkChild(Stream.runCollect(
            TaskSupervisor.asyncStream(ref, inputs().iterable, run, { concurrency, ordered }).pipe(Stream.take(1))
          ))
          // They end all at once: each needs 10 ms.
          yield* pass(10)
          assert.deepStrictEqual(yield* Fiber.join(taking), [1])
          assert.strictEqual(yield* live(ref), 0)
          // When one of them fails, or takes too long, the others end with it.
          for (const [element, error] of [[Effect.fail("no"), "no"], [Effect.never, "TaskTimeout"]] as const) {
            const { iterable, seen } = inputs()
            const failing = yield* Effect.forkChild(Effect.flip(Stream.runDrain(TaskSupervisor.asyncStream(
              ref,
              iterable,
              (n) => n === 2 ? Effect.andThen(Effect.yieldNow, element) : n === 1 ? Effect.void : run(n),
              { concurrency, ordered, timeout: 100 }
            ))))
            yield* pass(100)
            yield* pass(10)
            const failure = yield* Fiber.join(failing)
            assert.strictEqual(typeof failure === "string" ? failure : failure._tag, error)
            assert.deepStrictEqual([yield* live(ref), seen.pulled <= 2 * concurrency + 2], [0, true])
          }
          const interrupted = yield* Effect.forkChild(
            Stream.runDrain(TaskSupervisor.asyncStream(ref, inputs().iterable, run, { concurrency, ordered }))
          )
          yield* settle
          assert.strictEqual(yield* live(ref), concurrency)
          const interrupting = yield* Effect.forkChild(Fiber.interrupt(interrupted))
          yield* pass(10)
          yield* Fiber.join(interrupting)
          assert.strictEqual(yield* live(ref), 0)
        }
      }
    })
  )

  it.effect(
    "144. a slow first element neither loses nor reorders the others, and input is pulled no further than there is room",
    scene(function*() {
      const ref = yield* tasks()
      for (const source of ["iterable", "stream"]) {
        const gate = yield* Deferred.make<void>()
        const { iterable, seen } = inputs(10)
        const input = source === "iterable" ? iterable : Stream.fromIterable(iterable, { chunkSize: 1 })
        const run = (n: number) => n === 1 ? Effect.as(Deferred.await(gate), n) : Effect.as(Effect.yieldNow, n)
        const collected: Array<number> = []
        const running = yield* Effect.forkChild(
          Stream.runForEach(
            TaskSupervisor.asyncStream(ref, input, run, { concurrency: 3, timeout: "1 hour" }),
            (n) => Effect.sync(() => collected.push(n))
          )
        )
        yield* pass(60_000)
        assert.deepStrictEqual([seen.pulled, collected], [3, []])
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(running)
        assert.deepStrictEqual(collected, Array.from({ length: 10 }, (_, i) => i + 1))
      }
    })
  )

  it.effect(
    "145. a task that fails counts against no budget, however many do",
    scene(function*() {
      const ref = yield* tasks()
      const survivor = yield* TaskSupervisor.asyncNolink(ref, Effect.never)
      for (let i = 0; i < 100; i++) {
        yield* TaskSupervisor.asyncNolink(
          ref,
          i % 2 === 0 ? Effect.fail("no") : Effect.andThen(Effect.yieldNow, Effect.die("no"))
        )
      }
      yield* settle
      const exits = yield* Stream.runCollect(
        TaskSupervisor.asyncStreamNolink(ref, inputs(100).iterable, () => Effect.fail("no"), { concurrency: 10 })
      )
      assert.isTrue(exits.every(Exit.isFailure))
      const [node] = (yield* Orchestrator.snapshot).filter(({ kind }) => kind === "supervisor")
      assert.strictEqual(node?.kind === "supervisor" && node.budget.used, 0)
      assert.deepStrictEqual((yield* TaskSupervisor.whichChildren(ref)).map(({ id }) => id), [survivor.id])
    })
  )

  it.effect(
    "a task has the services of its caller, but a scope of its own",
    scene(function*() {
      class Tenant extends Context.Service<Tenant, string>()("test/Tenant") {}
      const ref = yield* tasks()
      let released = 0
      const task = Effect.gen(function*() {
        yield* Effect.addFinalizer(() => Effect.sync(() => void released++))
        const self = yield* Routine.current
        return `${self._tag === "Some" && self.value.name} of ${yield* Tenant}`
      })
      const all = Effect.gen(function*() {
        const routines = [
          yield* TaskSupervisor.startChild(ref, task),
          yield* TaskSupervisor.asyncNolink(ref, task),
          yield* Effect.scoped(Effect.tap(TaskSupervisor.async(ref, task), Routine.await))
        ]
        const streamed = yield* Stream.runCollect(TaskSupervisor.asyncStream(ref, [1], () => task))
        return [...(yield* Effect.forEach(routines, (routine) => Routine.join(routine))), ...streamed]
      })
      const seen = yield* Effect.provideService(all, Tenant, "acme")
      assert.deepStrictEqual([seen, released], [Array.from({ length: 4 }, () => "tasks of acme"), 4])
    })
  )

  it.effect(
    "a failure that nobody awaits is logged when it was started to be left alone, and only then",
    scene(function*() {
      const lines: Array<string> = []
      const logger = Logger.make(({ message }) => void lines.push(String(message)))
      yield* Effect.gen(function*() {
        const ref = yield* tasks()
        const failing = Effect.andThen(Effect.yieldNow, Effect.fail("no"))
        yield* TaskSupervisor.startChild(ref, Effect.fail("at once"))
        yield* TaskSupervisor.startChild(ref, failing)
        yield* Routine.await(yield* TaskSupervisor.startChild(ref, failing))
        yield* TaskSupervisor.asyncNolink(ref, failing)
        yield* settle
      }).pipe(
        Effect.scoped,
        Effect.provide(Layer.provideMerge(Layer.fresh(Orchestrator.layer), Logger.layer([logger])))
      )
      assert.strictEqual(lines.length, 2)
      assert.isTrue(lines.every((line) => line.includes("failed and nobody awaits it")))
    })
  )

  it.effect(
    "a number that makes no sense is a defect that names it",
    scene(function*() {
      assert.throws(() => TaskSupervisor.make({ name: "tasks", maxChildren: -1 }), "got: -1")
      const ref = yield* tasks()
      for (const options of [{ concurrency: 0 }, { concurrency: 1.5 }]) {
        const exit = yield* Effect.exit(Stream.runDrain(TaskSupervisor.asyncStream(ref, [1], Effect.succeed, options)))
        assert.match(
          String(Exit.isFailure(exit) && Cause.squash(exit.cause)),
          new RegExp(`got: ${options.concurrency}$`)
        )
      }
    })
  )
})

describe("interrupted at any operation", () => {
  const program = (
    kind: "async" | "a stream" | "an unordered stream",
    ref: TaskSupervisor.TaskRef,
    seen: Set<string>
  ) => {
    const task = (name: string) =>
      Effect.acquireUseRelease(
        Effect.sync(() => seen.add(name)),
        () => Effect.andThen(Effect.yieldNow, Effect.yieldNow),
        () => Effect.andThen(Effect.yieldNow, Effect.sync(() => seen.delete(name)))
      )
    if (kind === "async") {
      return Effect.scoped(Effect.gen(function*() {
        const first = yield* TaskSupervisor.async(ref, task("a"))
        yield* TaskSupervisor.async(ref, task("b"))
        yield* Routine.join(first)
      }))
    }
    const stream = TaskSupervisor.asyncStream(ref, ["a", "b", "c", "d"], task, {
      concurrency: 2,
      ordered: kind === "a stream"
    })
    return Effect.asVoid(Stream.runDrain(stream))
  }

  for (const kind of ["async", "a stream", "an unordered stream"] as const) {
    it.effect(`${kind} leaves no task behind`, () =>
      Effect.gen(function*() {
        const ref = yield* tasks()
        const seen = new Set<string>()
        let left: ReadonlyArray<unknown> = [0]
        const operations = yield* atEveryOperation(
          // Gone by the end of the program, not some turns later.
          Effect.onExit(program(kind, ref, seen), () => Effect.map(live(ref), (count) => left = [count, ...seen])),
          (exit) =>
            Effect.gen(function*() {
              assert.isFalse(Exit.isFailure(exit) && Cause.hasDies(exit.cause))
              assert.deepStrictEqual([left, yield* Orchestrator.list], [[0], []])
            }),
          { fibers: "all" }
        )
        assert.isAbove(operations, 50)
      }).pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
  }
})
