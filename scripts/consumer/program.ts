/** What a user of the published packages might write: type-checked and run against their tarballs. */
import { Orchestrator, Routine } from "@effect-orchestra/core"
import { Effect } from "effect"
import assert from "node:assert/strict"

const program = Effect.gen(function*() {
  const sum = yield* Orchestrator.fork(Effect.succeed(1 + 1), { name: "sum" })
  yield* Orchestrator.fork(Effect.never, { name: "poller" })
  const value = yield* Routine.join(sum)
  const report = yield* Orchestrator.shutdown()
  return { clean: report.clean, value }
}).pipe(Effect.provide(Orchestrator.layer))

assert.deepEqual(await Effect.runPromise(program), { clean: true, value: 2 })
console.log("the program ran")
