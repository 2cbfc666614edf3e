/**
 * A service that can be looked at: a live page, metrics for Prometheus, and whether it is ready.
 */
import { Routine } from "@effect-orchestra/core"
import { Server } from "@effect-orchestra/observability"
import { Backoff, Child, Supervisor } from "@effect-orchestra/supervisor"
import { Console, Effect, Schema } from "effect"
import { Command, Flag } from "effect/cli"

class NoLuck extends Schema.TaggedError<NoLuck>()("NoLuck", {}) {}

const steady = Effect.forever(Effect.andThen(Routine.beat, Routine.busy(Effect.sleep("200 millis"))))
const flaky = Effect.andThen(Effect.sleep("500 millis"), new NoLuck())

const service = Supervisor.make({
  name: "service",
  strategy: "one_for_one",
  intensity: 20,
  children: [
    Child.make("steady", steady, { idleTimeout: "5 seconds" }),
    Child.make("flaky", flaky, { backoff: Backoff.exponential({ base: "500 millis", max: "2 seconds" }) })
  ]
})

const program = Effect.gen(function*() {
  const { url } = yield* Server.Server
  yield* Supervisor.start(service)
  yield* Console.log(`page ${url}/orchestra\nmetrics ${url}/metrics\nready ${url}/readyz\nCtrl+C stops it`)
  return yield* Effect.never
}).pipe(Effect.scoped)

const port = Flag.Int("port").pipe(Flag.withDescription("0 for any free one; default 9090"), Flag.withDefault(9090))

export const metrics = Command.make(
  "metrics",
  { port },
  ({ port }) => Effect.provide(program, Server.layer({ port }))
).pipe(
  Command.withDescription("A service with a live page and metrics")
)
