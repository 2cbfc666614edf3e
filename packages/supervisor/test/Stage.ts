/**
 * Where the scenarios play: children that say what they do, and a scene that leaves nothing behind.
 *
 * The lines of the log: `start a` (a run began), `ready a` (where readiness is awaited), `exit a` (it ended by itself),
 * `stop a` (it was interrupted and is gone), `stopping a` before that where stopping takes some steps.
 */
import { Orchestrator, Routine } from "@effect-orchestra/core"
import { assertNoLeaks, type SteerableChild, steerableChild, TestOrchestra } from "@effect-orchestra/core/testing"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { assert } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Layer, type Scope } from "effect"
import { TestClock } from "effect/testing"

/** What an actor does at the ends of its runs; `run` counts them from 1. */
export interface Role {
  /** Done before it is ready; with it, the child awaits readiness. */
  readonly start?: (run: number) => Effect.Effect<unknown, unknown>
  /** Done, uninterruptibly, after its interruption. */
  readonly stop?: (run: number) => Effect.Effect<unknown>
}

/** A child that logs, and does what its test says: see `SteerableChild`. */
export interface Actor<out Id extends string = string> extends Omit<SteerableChild<void, unknown>, "fail" | "succeed"> {
  readonly id: Id
  /** Fails the run, with `"<id> failed"` where nothing else is given. */
  fail(error?: unknown): Effect.Effect<void>
  /** Ends the run normally. */
  readonly succeed: Effect.Effect<void>
  /** A stranger interrupts the run. Waits until it is gone. */
  readonly kill: Effect.Effect<void>
  /** Its routine, once it has started. */
  readonly routine: Routine.Routine<unknown, unknown>
  /** The child of a supervisor that runs it. */
  child(options?: Omit<Child.ChildOptions, "dependsOn">): Child.Child<Id, never, never, unknown, never, never>
  /** The same as a layer: its start is the build; then its failure is that of a linked routine. */
  layer(
    options?: Omit<Child.ChildOptions, "awaitReady" | "dependsOn">
  ): Child.Child<Id, never, never, unknown, Orchestrator, never>
}

/** A log, and the actors that write it. */
export class Stage {
  readonly log: Array<string> = []

  /** The log since the last take. */
  take(): ReadonlyArray<string> {
    return this.log.splice(0)
  }

  /** An actor. */
  readonly actor = <const Id extends string>(id: Id, { start, stop }: Role = {}): Effect.Effect<Actor<Id>> =>
    Effect.map(steerableChild<void, unknown>({ name: id }), (steer) => {
      const write = (line: string) => Effect.sync(() => void this.log.push(`${line} ${id}`))
      let routine: Routine.Routine<unknown, unknown> | undefined = undefined
      let run = 0
      const begin = Effect.gen(function*() {
        const self = yield* Routine.current
        if (self._tag === "Some") routine = self.value
        run++
        yield* write("start")
        if (start === undefined) return
        yield* start(run)
        yield* write("ready")
        yield* Routine.ready
      })
      const end = (exit: Exit.Exit<unknown, unknown>) =>
        Exit.isSuccess(exit) || !Cause.hasInterrupts(exit.cause)
          ? write("exit")
          : stop === undefined
          ? write("stop")
          : Effect.andThen(write("stopping"), Effect.andThen(stop(run), write("stop")))
      const effect = Effect.onExit(Effect.andThen(begin, steer.effect), end)
      const build = Effect.andThen(
        Effect.acquireRelease(Effect.void, (_, exit) => end(exit)),
        Effect.andThen(begin, Orchestrator.forkScoped(steer.effect, { name: `${id}-pump` }))
      )
      return {
        id,
        effect,
        succeed: steer.succeed(),
        fail: (error: unknown = `${id} failed`) => steer.fail(error),
        die: (defect) => steer.die(defect),
        hang: steer.hang,
        ready: steer.ready,
        ignoreInterruption: (duration) => steer.ignoreInterruption(duration),
        release: steer.release,
        started: steer.started,
        check: steer.check,
        kill: Effect.suspend(() => Routine.interrupt(routine ?? assert.fail(`${id} never ran`))),
        get routine() {
          return routine ?? assert.fail(`${id} never ran`)
        },
        get starts() {
          return run
        },
        get live() {
          return steer.live
        },
        child: (options) => Child.make(id, effect, { awaitReady: start !== undefined, ...options }),
        layer: (options) => Child.layer(id, Layer.effectDiscard(build), options)
      }
    })

  /** Actors without a role. */
  readonly cast = <const Ids extends ReadonlyArray<string>>(...ids: Ids) =>
    Effect.forEach(ids, (id) => this.actor(id)) as Effect.Effect<{ readonly [I in keyof Ids]: Actor<Ids[I]> }>
}

/** A child that needs nothing but the orchestrator. */
export type Play = Child.Child<string, never, unknown, unknown, Orchestrator, never>

/** A supervisor `app` of these children. */
export const app = (
  strategy: "one_for_one" | "one_for_all" | "rest_for_one",
  children: ReadonlyArray<Play>,
  options: Supervisor.SupervisorOptions = {}
) => Supervisor.make({ name: "app", strategy, children, ...options })

/** How many restarts count in the budget of a supervisor. */
export const used = ({ id }: Supervisor.SupervisorRef) =>
  Effect.map(Orchestrator.snapshot, (nodes) => {
    const node = nodes.find((node) => node.id === id)
    return node?.kind === "supervisor" ? node.budget.used : assert.fail("no such supervisor")
  })

/** Lets everything happen that needs no time. */
export const settle = Effect.gen(function*() {
  for (let turn = 0; turn < 40; turn++) yield* Effect.yieldNow
})

/** Lets so much time pass, and everything happen that is due before and after. */
export const pass = (millis: number) => Effect.andThen(settle, Effect.andThen(TestClock.adjust(millis), settle))

/** The children as `"<id> <state> <incarnation>"`, in start order. */
export const shown = (ref: Supervisor.SupervisorRef) =>
  Effect.map(
    Effect.orDie(Supervisor.whichChildren(ref)),
    (children) => children.map(({ id, incarnation, state }) => `${id} ${state} ${incarnation}`)
  )

/** Takes so long. */
export const slow = (millis: number) => () => Effect.sleep(millis)

/** Fails the given runs at their start. */
export const failsAt = (...runs: ReadonlyArray<number>) => (run: number) =>
  Effect.andThen(Effect.yieldNow, runs.includes(run) ? Effect.fail(`start ${run} failed`) : Effect.void)

/**
 * The body of a test, on an orchestrator and a clock of its own. In the end its scope is closed, with an hour to do so;
 * nothing may be left, and no two runs of an actor may have overlapped.
 */
export const scene = <Eff extends Effect.Effect<unknown, unknown, Orchestrator | Scope.Scope>>(
  body: (stage: Stage) => Generator<Eff, unknown, never>
) =>
() =>
  Effect.gen(function*() {
    // The first sleep under a TestClock arms its warning in an interruptible region: not within a finalizer.
    yield* TestClock.adjust(0)
    const stage = new Stage()
    const played = yield* Deferred.make<void>()
    const play = yield* Effect.forkChild(
      Effect.scoped(Effect.ensuring(Effect.gen(() => body(stage)), Deferred.succeed(played, undefined))),
      { startImmediately: true }
    )
    yield* Deferred.await(played)
    yield* TestClock.adjust("1 hour")
    const exit = play.pollUnsafe() ?? assert.fail(`the scene does not end: ${stage.log.join(", ")}`)
    yield* exit
    yield* assertNoLeaks()
  }).pipe(Effect.provide(TestOrchestra.layer))
