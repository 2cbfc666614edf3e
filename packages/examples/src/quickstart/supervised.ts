/**
 * A supervised worker: when its connection is lost it comes back, after a pause that grows, where it was.
 */
import type { Event } from "@effect-orchestra/core"
import { Backoff, Child, Supervisor } from "@effect-orchestra/supervisor"
import { Console, Effect, Ref, Schema, Stream } from "effect"
import { Command } from "effect/cli"

class ConnectionLost extends Schema.TaggedError<ConnectionLost>()("ConnectionLost", { part: Schema.Int }) {
  override get message() {
    return `connection lost at part ${this.part}`
  }
}

/** Gets five parts, from a server that hangs up after two. What is done outlives a run: it stands outside. */
const download = Effect.fnUntraced(function*(done: Ref.Ref<number>) {
  for (let served = 0;; served++) {
    const part = (yield* Ref.get(done)) + 1
    if (part > 5) return
    if (served === 2) return yield* new ConnectionLost({ part })
    yield* Effect.sleep("50 millis")
    yield* Ref.set(done, part)
    yield* Console.log(`part ${part}`)
  }
})

const spec = (done: Ref.Ref<number>) =>
  Supervisor.make({
    name: "import",
    strategy: "one_for_one",
    intensity: 5,
    period: "1 minute",
    // The end of the worker is the end of the program.
    autoShutdown: "any_significant",
    children: [
      Child.make("download", download(done), {
        restart: "transient",
        significant: true,
        backoff: Backoff.exponential({ base: "200 millis", max: "5 seconds", jitter: "equal" })
      })
    ]
  })

const tell = (event: Event.OrchestratorEvent) => {
  if (event._tag === "BackoffStarted") return Console.log(`the next run in ${Math.round(event.delayMillis)} ms`)
  if (event._tag !== "Exited" || event.exit.reason === "success") return Effect.void
  return Console.log(`run ${event.incarnation}: ${event.exit.message}`)
}

const program = Effect.gen(function*() {
  const supervisor = yield* Supervisor.start(spec(yield* Ref.make(0)))
  yield* Effect.forkScoped(Stream.runForEach(Supervisor.events(supervisor), tell))
  yield* Supervisor.await(supervisor)
  yield* Console.log("all parts are there")
}).pipe(Effect.scoped)

export const supervised = Command.make("supervised", {}, () => program).pipe(
  Command.withDescription("A worker that loses its connection and comes back, with backoff")
)
