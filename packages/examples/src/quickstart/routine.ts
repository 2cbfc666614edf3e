/**
 * A managed routine that gives signs of life. When it hangs, its idle timeout ends it, and whoever waits for it hears.
 */
import { Orchestrator, Routine } from "@effect-orchestra/core"
import { Console, Effect, Schedule } from "effect"
import { Command } from "effect/cli"

/** Reads twelve pages. The thirteenth never comes. */
const poll = Effect.gen(function*() {
  for (let page = 1; page <= 12; page++) {
    yield* Routine.busy(Effect.sleep("100 millis"))
    yield* Routine.beat
  }
  yield* Console.log("read 12 pages")
  return yield* Effect.never
})

const program = Effect.gen(function*() {
  const poller = yield* Orchestrator.fork(poll, { name: "poller", idleTimeout: "1 second" })

  // Half an idle timeout without a beat, and it no longer counts as well.
  const unwell = yield* Effect.repeat(Routine.snapshot(poller), {
    until: ({ health }) => health !== "ok",
    schedule: Schedule.spaced("20 millis")
  })
  yield* Console.log(`${unwell.path}: ${unwell.state}, ${unwell.health}`)
  yield* Orchestrator.printStats

  yield* Routine.await(poller)
  const ended = yield* Routine.snapshot(poller)
  yield* Console.log(`${ended.path}: ${ended.state}, ${ended.lastExit?.message}`)
})

export const routine = Command.make("routine", {}, () => program).pipe(
  Command.withDescription("A routine that beats, hangs, and is ended by its idle timeout")
)
