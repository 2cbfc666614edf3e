import { CoreError, Orchestrator } from "@effect-orchestra/core"
import { Child, Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Exit, Fiber, Layer } from "effect"
import { scene, settle } from "./Stage.ts"

class Port extends Context.Service<Port, number>()("test/Port") {}

/** A layer of a supervisor above another layer, what gives it up, and what is told of its end. */
const service = (build: Effect.Effect<number, string> = Effect.succeed(80)) => {
  const log: Array<string> = []
  const end = Deferred.makeUnsafe<never, string>()
  const say = (line: string) => Effect.sync(() => void log.push(line))
  const child = Effect.andThen(Port, Deferred.await(end)).pipe(Effect.ensuring(say("child gone")))
  const spec = Supervisor.make({
    name: "app",
    strategy: "one_for_one",
    intensity: 0,
    children: [Child.make("child", child), Child.make("other", Effect.ensuring(Effect.never, say("other gone")))]
  })
  const port = Layer.effect(Port, Effect.acquireRelease(build, () => say("port closed")))
  return { log, layer: Layer.provide(Supervisor.layer(spec), port), giveUp: Deferred.fail(end, "broken") }
}

describe("launch", () => {
  it.effect(
    "fails when a supervisor in the layer gives up, after all was released",
    scene(function*() {
      const { giveUp, layer, log } = service()
      const launched = yield* Effect.forkChild(Supervisor.launch(layer))
      yield* settle
      assert.isUndefined(launched.pollUnsafe())
      yield* giveUp
      const failure = yield* Effect.flip(Fiber.join(launched))
      assert.instanceOf(failure, CoreError.SupervisorFailure)
      assert.strictEqual(failure.path, "/orchestra/app")
      const given = failure.cause.reasons.map((reason) => reason._tag === "Fail" ? reason.error : undefined)
      assert.instanceOf(given[0], SupervisorError.RestartIntensityReached)
      assert.deepStrictEqual(log, ["child gone", "other gone", "port closed"])
    })
  )

  it.effect(
    "fails with the error of a layer that is not built",
    scene(function*() {
      const { layer, log } = service(Effect.fail("in use"))
      assert.strictEqual(yield* Effect.flip(Supervisor.launch(layer)), "in use")
      assert.deepStrictEqual(log, [])
    })
  )

  it.effect(
    "releases what it built when it is interrupted, and lets others live on",
    scene(function*() {
      const { layer, log } = service()
      const launched = yield* Effect.forkChild(Supervisor.launch(layer))
      yield* settle
      const other = yield* Orchestrator.fork(Effect.never, { name: "other" })
      yield* Fiber.interrupt(launched)
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(launched)))
      assert.deepStrictEqual(log, ["other gone", "child gone", "port closed"])
      assert.include((yield* Orchestrator.list).map(({ id }) => id), other.id)
      yield* Effect.flatMap(Orchestrator, ({ interruptAll }) => interruptAll())
    })
  )
})
