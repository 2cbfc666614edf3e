/** What a user of the published packages might write: type-checked and run against their tarballs. */
import { Orchestrator, Routine } from "@effect-orchestra/core"
import * as NodeMain from "@effect-orchestra/core/NodeMain"
import { Server } from "@effect-orchestra/observability"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { Plan, Saga } from "@effect-orchestra/workflow"
import { Context, Effect, Layer } from "effect"
import assert from "node:assert/strict"

class Pool extends Context.Service<Pool, { readonly size: number }>()("consumer/Pool") {}

const app = Supervisor.make({
  name: "app",
  strategy: "rest_for_one",
  children: [
    Child.layer("pool", Layer.succeed(Pool, { size: 4 })),
    Child.make("worker", Effect.andThen(Pool, Effect.never))
  ]
})

const program = Effect.gen(function*() {
  yield* Supervisor.start(app)
  const sum = yield* Orchestrator.fork(Effect.succeed(1 + 1), { name: "sum" })
  assert.equal(yield* Routine.join(sum), 2)
  const { url } = yield* Server.Server
  const page = yield* Effect.promise(() => fetch(`${url}/orchestra`).then((response) => response.text()))
  assert.match(page, /<html/)
  const metrics = yield* Effect.promise(() => fetch(`${url}/metrics`).then((response) => response.text()))
  assert.match(metrics, /orchestra_routine_starts_total\{orchestra_routine_name="worker"\} 1/)
  const undone: Array<string> = []
  const trip = Effect.gen(function*() {
    yield* Saga.step("flight", {
      run: Effect.succeed("LH 400"),
      compensate: (id) => Effect.sync(() => undone.push(id))
    })
    yield* Saga.step("car", { run: Effect.fail("no car"), compensate: Saga.irreversible })
  })
  assert.equal((yield* Saga.outcome(trip))._tag, "Compensated")
  assert.deepEqual(undone, ["LH 400"])
  const change = Effect.succeed(Plan.Need.Change({ what: "write it" }))
  const plan = Plan.make("consumer", [Plan.step("file", { check: change, apply: Effect.void })])
  assert.equal(Plan.exitCode(yield* Plan.run(plan, { mode: "check" })), 1)
  const report = yield* Orchestrator.shutdown()
  assert.deepEqual({ clean: report.clean, stopped: report.stopped }, { clean: true, stopped: 2 })
  console.log("the program ran")
}).pipe(Effect.scoped)

NodeMain.run(Effect.provide(program, Server.layer({ port: 0 })))
