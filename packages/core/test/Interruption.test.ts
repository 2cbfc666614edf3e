import { Group, Orchestrator, Routine } from "@effect-orchestra/core"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, type Scope } from "effect"
import { MixedScheduler } from "effect/Scheduler"

/** A scheduler that interrupts a fiber when it is about to run its nth operation. */
class Interrupter extends MixedScheduler {
  private left: number
  target: Fiber.Fiber<unknown, unknown> | undefined = undefined

  constructor(operations: number) {
    super()
    this.left = operations
  }

  override shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    if (this.target === undefined) this.target = fiber
    if (fiber === this.target && this.left-- === 0) fiber.interruptUnsafe()
    return super.shouldYield(fiber)
  }

  get through(): boolean {
    return this.left >= 0
  }
}

/**
 * Runs a program again and again, each time interrupting it one operation later, until it gets through; after each
 * time `check` says whether anything was left behind. Returns how many operations were tried.
 */
const atEveryOperation = <A, E>(
  program: Effect.Effect<A, E, Orchestrator | Scope.Scope>,
  check: Effect.Effect<void, never, Orchestrator>
) =>
  Effect.gen(function*() {
    const context = yield* Effect.context<Orchestrator>()
    for (let operations = 0;; operations++) {
      const scheduler = new Interrupter(operations)
      yield* Fiber.await(Effect.runForkWith(context)(Effect.scoped(program), { scheduler }))
      for (let i = 0; i < 5; i++) yield* Effect.yieldNow
      yield* check
      if (scheduler.through) return operations
    }
  })

const nothingLeft = Effect.gen(function*() {
  const nodes = yield* Orchestrator.snapshot
  assert.deepStrictEqual(nodes.map(({ path }) => path), ["/orchestra"])
})

/** A resource, and whether every one that was opened is closed again. */
const counted = () => {
  let open = 0
  const resource = Effect.acquireRelease(Effect.sync(() => void open++), () => Effect.sync(() => void open--))
  return { resource, check: Effect.andThen(nothingLeft, Effect.sync(() => assert.strictEqual(open, 0))) }
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
