/**
 * A child whose every run a test steers: it ends, fails, dies, hangs, or ignores its interruption when it is told to.
 *
 * **Example** (Failing a child and seeing it start again)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { assertNoLeaks, steerableChild, TestOrchestra } from "@effect-orchestra/core/testing"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const worker = yield* steerableChild<string, "boom">({ name: "worker" })
 *   const routine = yield* Orchestrator.fork(Effect.retry(worker.effect, { times: 1 }), { name: "worker" })
 *   yield* worker.fail("boom")
 *   yield* worker.succeed("done")
 *   const value = yield* Routine.join(routine)
 *   yield* assertNoLeaks()
 *   return { value, starts: worker.starts, live: worker.live }
 * })
 *
 * const seen = await Effect.runPromise(program.pipe(Effect.provide(TestOrchestra.layer)))
 * seen // => { value: "done", starts: 2, live: false }
 * ```
 *
 * @since 0.1.0
 */
import * as Deferred from "effect/Deferred"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { ready } from "../Routine.ts"
import { Current } from "../RoutineRecord.ts"
import { recordFault } from "./Leak.ts"
import { Overlap } from "./TestError.ts"

/**
 * How a steerable child is made.
 *
 * @category models
 * @since 0.1.0
 */
export interface SteerableChildOptions {
  /** What an `Overlap` calls it. Default `"child"`. */
  readonly name?: string | undefined
}

/**
 * A child and what steers it. Every command waits until a run has taken it, also for a run that is yet to come: after
 * `fail`, a `succeed` waits for the restart. Commands are taken in their order.
 *
 * @category models
 * @since 0.1.0
 */
export interface SteerableChild<A, E> {
  /** What is forked, as often as it is restarted. A second run while the first still runs dies with an `Overlap`. */
  readonly effect: Effect.Effect<A, E>
  /** Ends the run with a value. */
  succeed(value: A): Effect.Effect<void>
  /** Fails the run. */
  fail(error: E): Effect.Effect<void>
  /** Ends the run with a defect. */
  die(defect: unknown): Effect.Effect<void>
  /** The run takes no further command; only an interruption ends it. */
  readonly hang: Effect.Effect<void>
  /** The run says `Routine.ready`. */
  readonly ready: Effect.Effect<void>
  /** The run ignores interruptions for so long, without a duration until `release`; then it goes on. */
  ignoreInterruption(duration?: Duration.Input): Effect.Effect<void>
  /** Ends what `ignoreInterruption` began. */
  readonly release: Effect.Effect<void>
  /** Waits until a run is under way. */
  readonly started: Effect.Effect<void>
  /** Dies with the `Overlap` of two runs, if there was one. `assertNoLeaks` does too, where a routine ran them. */
  readonly check: Effect.Effect<void>
  /** How many runs there have been. */
  readonly starts: number
  /** Whether a run is under way. */
  readonly live: boolean
}

type Restore = <A, E>(effect: Effect.Effect<A, E>) => Effect.Effect<A, E>

interface Command<A, E> {
  /** What the run does, uninterruptible; its value ends the run, undefined lets it go on. */
  readonly act: (restore: Restore) => Effect.Effect<{ readonly value: A } | undefined, E>
  readonly taken: () => void
}

/**
 * Makes a steerable child.
 *
 * @category constructors
 * @since 0.1.0
 */
export const steerableChild = <A = void, E = never>(
  options: SteerableChildOptions = {}
): Effect.Effect<SteerableChild<A, E>> => Effect.sync(() => new Steered<A, E>(options.name ?? "child"))

class Steered<A, E> implements SteerableChild<A, E> {
  private readonly name: string
  private readonly commands: Array<Command<A, E>> = []
  /** Wakes the run that waits for a command. */
  private wake: (() => void) | undefined = undefined
  private begun = Deferred.makeUnsafe<void>()
  private released = Deferred.makeUnsafe<void>()
  private overlap: Overlap | undefined = undefined
  starts = 0
  live = false

  constructor(name: string) {
    this.name = name
  }

  // A run is taken on, and off, wherever it is interrupted.
  readonly effect: Effect.Effect<A, E> = Effect.uninterruptibleMask((restore) =>
    Effect.withFiber((fiber) => {
      this.starts++
      if (this.live) {
        const overlap = this.overlap ??= new Overlap({ child: this.name, starts: this.starts })
        const kernel = fiber.getRef(Current)?.kernel
        if (kernel !== undefined) recordFault(kernel, overlap)
        return Effect.die(overlap)
      }
      this.live = true
      Deferred.doneUnsafe(this.begun, Effect.void)
      const ended = Effect.sync(() => {
        this.live = false
        this.begun = Deferred.makeUnsafe()
      })
      return Effect.ensuring(this.obey(restore), ended)
    })
  )

  /** A command stays in its place until the run can no longer be interrupted before it acts. */
  private obey(restore: Restore): Effect.Effect<A, E> {
    return Effect.flatMap(restore(this.commanded), () => {
      const command = this.commands.shift()
      if (command === undefined) return this.obey(restore)
      command.taken()
      return Effect.flatMap(
        command.act(restore),
        (end) => end === undefined ? this.obey(restore) : Effect.succeed(end.value)
      )
    })
  }

  private readonly commanded: Effect.Effect<void> = Effect.callback((resume) => {
    if (this.commands.length > 0) return resume(Effect.void)
    const wake = this.wake = () => resume(Effect.void)
    return Effect.sync(() => {
      if (this.wake === wake) this.wake = undefined
    })
  })

  private command(act: Command<A, E>["act"]): Effect.Effect<void> {
    return Effect.callback((resume) => {
      const command: Command<A, E> = { act, taken: () => resume(Effect.void) }
      this.commands.push(command)
      const { wake } = this
      this.wake = undefined
      wake?.()
      return Effect.sync(() => {
        const place = this.commands.indexOf(command)
        if (place !== -1) this.commands.splice(place, 1)
      })
    })
  }

  succeed(value: A): Effect.Effect<void> {
    return this.command(() => Effect.succeed({ value }))
  }

  fail(error: E): Effect.Effect<void> {
    return this.command(() => Effect.fail(error))
  }

  die(defect: unknown): Effect.Effect<void> {
    return this.command(() => Effect.die(defect))
  }

  readonly hang = this.command((restore) => restore(Effect.never))
  readonly ready = this.command(() => Effect.as(ready, undefined))

  ignoreInterruption(duration: Duration.Input = Infinity): Effect.Effect<void> {
    return this.command(() => {
      const released = this.released = Deferred.makeUnsafe<void>()
      return Effect.as(Effect.raceFirst(Deferred.await(released), Effect.sleep(duration)), undefined)
    })
  }

  readonly release = Effect.sync(() => void Deferred.doneUnsafe(this.released, Effect.void))
  readonly started = Effect.suspend(() => Deferred.await(this.begun))
  readonly check = Effect.suspend(() => this.overlap === undefined ? Effect.void : Effect.die(this.overlap))
}
