/**
 * A graceful stop: Ctrl+C (or `kill`) stops the intake first, lets the worker finish what it was given, and closes the
 * database last. With `--stuck` something ignores its interruption: the report names it, and the program ends anyway.
 */
import { Mailbox, Orchestrator, Routine } from "@effect-orchestra/core"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { Console, Context, Effect, Layer, Stream } from "effect"
import { Command, Flag } from "effect/cli"

class Database extends Context.Service<Database, { readonly save: (job: number) => Effect.Effect<void> }>()(
  "quickstart/Database"
) {
  static readonly layer = Layer.effect(
    Database,
    Effect.gen(function*() {
      yield* Effect.acquireRelease(Console.log("database open"), () => Console.log("database closed"))
      return { save: (job) => Effect.andThen(Effect.sleep("150 millis"), Console.log(`job ${job} saved`)) }
    })
  )
}

/** Takes jobs faster than they can be saved. */
const intake = Effect.fnUntraced(function*(jobs: Mailbox.Mailbox<number>) {
  let taken = 0
  yield* Effect.addFinalizer(() => Console.log(`intake closed after job ${taken}`))
  while (true) {
    yield* Mailbox.send(jobs, taken + 1)
    taken++
    yield* Effect.sleep("100 millis")
  }
})

/** Asked to stop, it takes no more jobs, and ends when it has saved those that wait. */
const worker = Effect.fnUntraced(function*(jobs: Mailbox.Mailbox<number>) {
  const { save } = yield* Database
  yield* Effect.forkChild(Effect.andThen(Routine.stopRequested, Mailbox.end(jobs)))
  yield* Stream.runForEach(Mailbox.stream(jobs), save)
})

const program = Effect.fnUntraced(function*(stuck: boolean) {
  const jobs = yield* Mailbox.make<number>({ name: "jobs", capacity: 16 })
  const service = Supervisor.make({
    name: "service",
    strategy: "rest_for_one",
    children: [
      Child.layer("database", Database.layer),
      Child.make("worker", worker(jobs), { mailbox: jobs }),
      Child.make("intake", intake(jobs))
    ]
  })
  if (stuck) {
    yield* Orchestrator.fork(Effect.uninterruptible(Effect.never), { name: "deaf", shutdown: "300 millis" })
  }
  yield* Supervisor.run(service)
}, Effect.scoped)

const stuck = Flag.Boolean("stuck").pipe(
  Flag.withDescription("Add something that does not stop"),
  Flag.withDefault(false)
)

export const shutdown = Command.make("shutdown", { stuck }, ({ stuck }) => program(stuck)).pipe(
  Command.withDescription("Stop in order, finish what was begun, name who is stuck")
)
