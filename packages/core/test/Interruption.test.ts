import { Group, Joiner, Orchestrator, Routine } from "@effect-orchestra/core"
import { atEveryOperation } from "@effect-orchestra/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope, Stream } from "effect"

const nothingLeft = Effect.gen(function*() {
  const nodes = yield* Orchestrator.snapshot
  assert.deepStrictEqual(nodes.map(({ path }) => path), ["/orchestra"])
})

/** A resource, and whether every one that was opened is closed again. */
const counted = () => {
  let open = 0
  const resource = Effect.acquireRelease(Effect.sync(() => void open++), () => Effect.sync(() => void open--))
  return { resource, check: () => Effect.andThen(nothingLeft, Effect.sync(() => assert.strictEqual(open, 0))) }
}

describe("interrupted at any operation", () => {
  it.effect("Group.run leaves no task, and no resource of a task, behind", () =>
    Effect.gen(function*() {
      const { check, resource } = counted()
      const task = Effect.andThen(resource, Effect.yieldNow)
      const operations = yield* atEveryOperation(
        Group.run((group) => Effect.forEach([1, 2, 3], () => Group.fork(group, task)), { concurrency: 2 }),
        check,
        { fibers: "all" }
      )
      assert.isAbove(operations, 20)
    }).pipe(Effect.provide(Orchestrator.layer)))

  /** Tasks that hold a resource: one is slow, one succeeds, one fails. */
  const tasks = (group: Group.Group, resource: Effect.Effect<void, never, Scope.Scope>) =>
    Effect.forEach(
      [Effect.never, Effect.succeed(1), Effect.fail("no"), Effect.succeed(2)],
      (end) => Group.fork(group, Effect.andThen(resource, Effect.andThen(Effect.yieldNow, end)))
    )

  for (
    const [name, joiner] of Object.entries({
      failFast: Joiner.failFast,
      all: Joiner.all,
      firstSuccess: Joiner.firstSuccess,
      firstExit: Joiner.firstExit,
      quorum: Joiner.quorum(2),
      collect: Joiner.collect,
      partial: Joiner.partial("1 second")
    })
  ) {
    it.effect(`Group.run with ${name} leaves no task, and no resource of a task, behind`, () =>
      Effect.gen(function*() {
        const { check, resource } = counted()
        const options = {
          joiner: joiner as Joiner.Joiner<Joiner.FailFast>,
          concurrency: 3,
          deadline: "1 minute",
          // Else those that want every exit wait for the task that never ends.
          onBodyEnd: name === "collect" || name === "partial" ? "halt" : "wait"
        } as const
        const operations = yield* atEveryOperation(Group.run((group) => tasks(group, resource), options), check, {
          fibers: "all"
        })
        assert.isAbove(operations, 20)
      }).pipe(Effect.provide(Orchestrator.layer)))
  }

  it.effect("Group.start leaves no task behind, ready or not", () =>
    Effect.gen(function*() {
      const { check, resource } = counted()
      const server = Effect.andThen(resource, Effect.andThen(Effect.yieldNow, Routine.ready))
      const operations = yield* atEveryOperation(
        Group.run((group) =>
          Effect.gen(function*() {
            yield* Group.start(group, Effect.andThen(server, Effect.never))
            yield* Effect.exit(Group.start(group, Effect.andThen(resource, Effect.fail("before"))))
            yield* Group.start(group, Effect.andThen(server, Effect.yieldNow), { startTimeout: "1 second" })
          }), { onBodyEnd: "halt", concurrency: 2 }),
        check,
        { fibers: "all" }
      )
      assert.isAbove(operations, 20)
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("Group.stream leaves no task behind, read to its end or not", () =>
    Effect.gen(function*() {
      const { check, resource } = counted()
      const numbers = Group.stream(
        (group) =>
          Effect.forEach(
            [1, 2, 3, 4],
            (n) => Group.fork(group, Effect.andThen(resource, Effect.as(Effect.yieldNow, n)))
          ),
        { concurrency: 2 }
      )
      const operations = yield* atEveryOperation(
        Effect.andThen(Stream.runDrain(numbers), Stream.runDrain(Stream.take(numbers, 2))),
        check,
        { fibers: "all" }
      )
      assert.isAbove(operations, 20)
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("Group.make and join leave no task behind", () =>
    Effect.gen(function*() {
      const { check, resource } = counted()
      const operations = yield* atEveryOperation(
        Effect.gen(function*() {
          const group = yield* Group.make<void, string>({ concurrency: 2 })
          const task = Effect.andThen(resource, Effect.yieldNow)
          yield* Effect.forEach([1, 2, 3], () => Group.fork(group, task))
          yield* Group.join(group)
          yield* Group.fork(group, task)
          yield* Group.fork(group, Effect.fail("round two"))
          yield* Effect.exit(Group.join(group))
          yield* Group.fork(group, Effect.andThen(resource, Effect.never))
        }),
        check,
        { fibers: "all" }
      )
      assert.isAbove(operations, 20)
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("Orchestrator.forkScoped leaves no routine behind", () =>
    Effect.gen(function*() {
      const { check, resource } = counted()
      const operations = yield* atEveryOperation(
        Effect.andThen(Orchestrator.forkScoped(Effect.andThen(resource, Effect.never)), Effect.yieldNow),
        check
      )
      assert.isAbove(operations, 5)
    }).pipe(Effect.provide(Orchestrator.layer)))

  it.effect("a fork that awaits readiness leaves no routine behind", () =>
    Effect.gen(function*() {
      const { check, resource } = counted()
      const body = Effect.andThen(
        resource,
        Effect.andThen(Effect.yieldNow, Effect.andThen(Routine.ready, Effect.never))
      )
      const operations = yield* atEveryOperation(
        Orchestrator.forkScoped(body, { ready: "signal", awaitReady: true }),
        check
      )
      assert.isAbove(operations, 5)
    }).pipe(Effect.provide(Orchestrator.layer)))
})
