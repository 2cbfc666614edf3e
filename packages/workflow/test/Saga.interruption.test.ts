import { Group } from "@effect-orchestra/core"
import { assertNoLeaks, atEveryOperation, TestOrchestra } from "@effect-orchestra/core/testing"
import { Saga } from "@effect-orchestra/workflow"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { World } from "./World.ts"

const pause = Effect.yieldNow

/** Every way in which a step can stand in a saga. */
const program = (world: World, onOutcome: (tag: string) => void, last: Effect.Effect<unknown, string>) => {
  let attempts = 0
  const flaky = Effect.suspend(() => ++attempts < 3 ? Effect.fail("not yet") : world.take("flaky", pause))
  const body = Effect.gen(function*() {
    yield* world.step("plain")
    yield* world.step("slow", pause)
    // Not done as one thing: only who is registered before can undo it.
    const run = Effect.andThen(pause, Effect.andThen(world.take("unsure"), pause))
    yield* world.step("unsure", pause, { register: "before", run })
    yield* world.step("flaky", pause, { run: flaky, retry: Schedule.recurs(3) })
    yield* world.step("timed", pause, { timeout: "1 second" })
    yield* Saga.run(Effect.andThen(world.step("child a", pause), world.step("child b")), { name: "child" })
    yield* Effect.all([world.step("left", pause), world.step("right", pause)], { concurrency: 2 })
    yield* Group.run((group) =>
      Effect.forEach(["x", "y"], (name) => Group.fork(group, world.step(name, pause)), { discard: true })
    )
    yield* Saga.step("last", { run: last, compensate: Saga.irreversible })
  })
  return Saga.outcome(body, { onOutcome: ({ _tag }) => Effect.sync(() => onOutcome(_tag)) })
}

const all = ["child a", "child b", "flaky", "left", "plain", "right", "slow", "timed", "unsure", "x", "y"]

describe("an interrupted Saga", () => {
  for (const fibers of ["own", "all"] as const) {
    for (const [how, last] of [["completes", Effect.void], ["fails", Effect.fail("no last")]] as const) {
      it.effect(
        `has done all or nothing wherever it is interrupted, where it ${how}, by operations of ${fibers} fibers`,
        () =>
          Effect.gen(function*() {
            let world = new World()
            let told: Array<string> = []
            const fresh = Effect.suspend(() => {
              const mine = world = new World()
              const tags: Array<string> = told = []
              return program(mine, (tag) => tags.push(tag), last)
            })
            const endings = new Set<string>()
            const operations = yield* atEveryOperation(
              fresh,
              () =>
                Effect.andThen(
                  assertNoLeaks(),
                  Effect.sync(() => {
                    const [ending = "none", ...more] = told
                    endings.add(ending)
                    assert.deepStrictEqual(more, [])
                    assert.deepStrictEqual(world.undoneAgain, [])
                    assert.deepStrictEqual(world.left, ending === "Completed" ? all : [])
                  })
                ),
              { fibers }
            )
            assert.isAbove(operations, 100)
            assert.isTrue(endings.has("Compensated") && endings.has("Completed") === (how === "completes"))
          }).pipe(Effect.provide(TestOrchestra.layer)),
        20_000
      )
    }
  }
})
