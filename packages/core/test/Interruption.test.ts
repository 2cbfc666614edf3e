import { Group, Orchestrator, Routine } from "@effect-orchestra/core"
import { atEveryOperation } from "@effect-orchestra/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"

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
        check
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
