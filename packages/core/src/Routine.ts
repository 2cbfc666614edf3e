/**
 * A managed fiber: it has a name, a place in the tree, a state, a health, and an end that somebody sees.
 *
 * `Orchestrator.fork` makes one. A supervised child is one routine from its first start to its removal, however often
 * it is restarted: same id, same path; `incarnation` counts its runs, and `await` waits for its final end.
 *
 * **Example** (Forking a routine and reading how it ended)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { Effect, Exit } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const routine = yield* Orchestrator.fork(Effect.succeed(42), { name: "answer" })
 *   const exit = yield* Routine.await(routine)
 *   const { path, state } = yield* Routine.snapshot(routine)
 *   return { exit, path, state }
 * })
 *
 * const { exit, path, state } = await Effect.runPromise(program.pipe(Effect.provide(Orchestrator.layer)))
 * exit // => Exit.succeed(42)
 * path // => "/orchestra/answer"
 * state // => "succeeded"
 * ```
 *
 * @since 0.1.0
 */
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import { dual } from "effect/Function"
import * as Option from "effect/Option"
import type { Pipeable } from "effect/Pipeable"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { NotReady, OrchestratorClosed, RunEnded } from "./CoreError.ts"
import type { CancelledBy, RunExit } from "./Event.ts"
import { ownerOf } from "./internal/Fork.ts"
import { because, cancelledBy, millisOf, unbounded } from "./Kernel.ts"
import { Current, type RoutineRecord, TypeId } from "./RoutineRecord.ts"
import type { RoutineSnapshot, RoutineStats } from "./Snapshot.ts"
import { waitFor } from "./Writer.ts"

/**
 * A handle on a managed fiber. It survives restarts.
 *
 * @category models
 * @since 0.1.0
 */
export interface Routine<out A, out E = never> extends Pipeable {
  readonly [TypeId]: { readonly _A: (_: never) => A; readonly _E: (_: never) => E }
  readonly id: string
  readonly name: string
}

/**
 * How a routine is forked.
 *
 * @category models
 * @since 0.1.0
 */
export interface RoutineOptions {
  /** The template name, an attribute of metrics: name the kind of work, not the instance. Default `"routine"`. */
  readonly name?: string | undefined
  /** Shown in snapshots, never in metrics. */
  readonly attributes?: Readonly<Record<string, string>> | undefined
  /** When it counts as ready: as soon as its fiber starts (`"fork"`, the default) or at its `Routine.ready`. */
  readonly ready?: "fork" | "signal" | undefined
  /** Whether the fork waits until it is ready. Default false. */
  readonly awaitReady?: boolean | undefined
  /** With `awaitReady`: how long to wait before the routine is stopped and the fork fails. Default: no bound. */
  readonly startTimeout?: Duration.Input | undefined
  /** Run when a stop is requested; interruption waits for its end, at most for the grace of the stop. */
  readonly drain?: Effect.Effect<void> | undefined
  /** How long an interruption may take before the routine is abandoned. Default 5 seconds. */
  readonly shutdown?: Duration.Input | undefined
  /**
   * A run that does not `Routine.beat` for so long is interrupted; it ends with the defect `IdleTimeout`, and its
   * supervisor, if it has one, decides on the next. Looked at four times in that span, never early, at most a quarter
   * late. Default: no watch.
   */
  readonly idleTimeout?: Duration.Input | undefined
  /**
   * Whether the span of its runs, where runs have spans, begins a trace of its own. Default false: it stands below the
   * span of whoever forks it.
   */
  readonly root?: boolean | undefined
  /** The mailboxes that belong to it: its `stats` sum them up. */
  readonly resources?: ReadonlyArray<Resource> | undefined
}

/**
 * Something with a queue that a routine can own.
 *
 * @category models
 * @since 0.1.0
 */
export interface Resource {
  readonly stats: { readonly length: number; readonly capacity: number; readonly bytes: number }
}

/**
 * Tests whether a value is a `Routine`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isRoutine = (u: unknown): u is Routine<unknown, unknown> => Predicate.hasProperty(u, TypeId)

/**
 * Waits for the final end and returns it as an `Exit`. Never fails. A supervised child has its final end when it will
 * not run again; an abandoned routine counts as interrupted.
 *
 * @category operations
 * @since 0.1.0
 */
const await_ = <A, E>(self: Routine<A, E>): Effect.Effect<Exit.Exit<A, E>> =>
  Effect.suspend(() => {
    const record = recordOf(self)
    record.observed = true
    const { toldExit } = record
    return toldExit === undefined
      ? waitFor(record.ended, () => record.toldExit === undefined ? undefined : Effect.succeed(record.toldExit))
      : Effect.succeed(toldExit)
  })

export {
  // `await` is a reserved word.
  await_ as await
}

/**
 * Waits for the final end; returns its value, or fails with its cause.
 *
 * @category operations
 * @since 0.1.0
 */
export const join = <A, E>(self: Routine<A, E>): Effect.Effect<A, E> => Effect.flatten(await_(self))

/**
 * Interrupts the present run and waits, without a bound, until it has ended with its finalizers. To a supervisor this
 * is a failure like any other (OTP: an exit signal from a stranger), so a permanent or transient child runs again;
 * use `stop` to end it. The interruption carries `reason` (default `"interrupted"`) and the path of the routine that
 * asks, for its finalizers, its exit and the events.
 *
 * @category operations
 * @since 0.1.0
 */
export const interrupt: {
  (reason?: string): <A, E>(self: Routine<A, E>) => Effect.Effect<void>
  <A, E>(self: Routine<A, E>, reason?: string): Effect.Effect<void>
} = dual(
  (args) => isRoutine(args[0]),
  <A, E>(self: Routine<A, E>, reason = "interrupted") =>
    Effect.withFiber((fiber) => {
      const record = recordOf(self)
      const by = because(reason, fiber.getRef(Current))
      return Effect.callback<void>((resume) => {
        if (record.scope === undefined) {
          // A task that waits for its slot never runs.
          record.interruptRun(by)
          return resume(Effect.void)
        }
        record.observed = true
        // Listens first: a supervisor may have started the next run by the time that the interruption returns.
        const cancel = record.onRunEnd(() => resume(Effect.void))
        record.interruptRun(by)
        return Effect.sync(cancel)
      })
    })
)

/**
 * Stops for good: asks (a routine with a drain, or one that watches `stopRequested`, has up to `within`, default 5
 * seconds, to finish), then interrupts, then abandons. Returns `"stopped"`, or `"abandoned"` if it still runs after its
 * bound. Stopping a supervised child is `Supervisor.terminateChild`. `reason` (default `"stopped"`) travels as that of
 * `interrupt`. A routine that has ended stays as it ended.
 *
 * @category operations
 * @since 0.1.0
 */
export const stop: {
  (within?: Duration.Input, reason?: string): <A, E>(self: Routine<A, E>) => Effect.Effect<"stopped" | "abandoned">
  <A, E>(self: Routine<A, E>, within?: Duration.Input, reason?: string): Effect.Effect<"stopped" | "abandoned">
} = dual(
  (args) => isRoutine(args[0]),
  <A, E>(self: Routine<A, E>, within: Duration.Input = unbounded.grace, reason = "stopped") =>
    Effect.withFiber((fiber) => {
      const record = recordOf(self)
      record.observed = true
      const grace = millisOf("the time to stop within", within)
      const limits = { ...unbounded, grace, by: because(reason, fiber.getRef(Current)) }
      return Effect.map(
        record.stop(limits) ?? Effect.void,
        () => record.status === "abandoned" ? "abandoned" as const : "stopped" as const
      )
    })
)

/**
 * Why and on whose behalf an exit was interrupted; `None` if it was not, or nobody said.
 *
 * @category getters
 * @since 0.1.0
 */
export const cancellation = <A, E>(exit: Exit.Exit<A, E>): Option.Option<CancelledBy> =>
  Exit.isSuccess(exit) ? Option.none() : Option.fromNullishOr(cancelledBy(Cause.annotations(exit.cause)))

/**
 * What the routine looks like now. Waits for nothing.
 *
 * @category getters
 * @since 0.1.0
 */
export const snapshot = <A, E>(self: Routine<A, E>): Effect.Effect<RoutineSnapshot> =>
  Effect.sync(() => recordOf(self).snapshot())

/**
 * How the routine spends its time. Waits for nothing.
 *
 * @category getters
 * @since 0.1.0
 */
export const stats = <A, E>(self: Routine<A, E>): Effect.Effect<RoutineStats> =>
  Effect.sync(() => recordOf(self).stats())

/**
 * How the runs of a supervised child ended, oldest first: the last 50, and of all children together the last 20,000.
 * Empty for other routines, which run once.
 *
 * @category getters
 * @since 0.1.0
 */
export const attempts = <A, E>(self: Routine<A, E>): Effect.Effect<ReadonlyArray<RunExit>> =>
  Effect.sync(() => [...recordOf(self).attempts])

/**
 * The routine as it is now, and then whenever its state changes, until it is final. A reader that lags 64 changes
 * behind loses the oldest.
 *
 * @category getters
 * @since 0.1.0
 */
export const changes = <A, E>(self: Routine<A, E>): Stream.Stream<RoutineSnapshot> =>
  Stream.unwrap(Effect.suspend(() => {
    const record = recordOf(self)
    if (record.isFinal) return Effect.succeed(Stream.succeed(record.snapshot()))
    return Effect.map(
      record.waiting.subscribe(),
      (queue) => Stream.concat(Stream.succeed(record.snapshot()), Stream.fromQueue(queue))
    )
  }))

/**
 * A sign of life of the present run, for its `idleTimeout` and whoever looks at it. Costs a look at the fiber's context
 * and a flag: when it was is as coarse as the next look. Does nothing outside a routine.
 *
 * @category operations
 * @since 0.1.0
 */
export const beat: Effect.Effect<void> = Effect.withFiber((fiber) => {
  const record = fiber.getRef(Current)
  if (record !== undefined) record.vitals.beaten = true
  return Effect.void
})

/**
 * Counts the time that an effect takes, what is under way included, as busy time of the routine. Several at once add
 * up. Changes nothing outside a routine.
 *
 * @category operations
 * @since 0.1.0
 */
export const busy = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.withFiber((fiber) => {
    const record = fiber.getRef(Current)
    if (record === undefined) return effect
    const { busy, kernel: { writer } } = record
    return Effect.acquireUseRelease(
      Effect.sync(() => busy.enter(writer.now())),
      () => effect,
      () => Effect.sync(() => busy.leave(writer.now()))
    )
  })

/**
 * Adds busy time that was measured elsewhere. Does nothing outside a routine.
 *
 * @category operations
 * @since 0.1.0
 */
export const addBusy = (duration: Duration.Input): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const millis = millisOf("busy time", duration)
    fiber.getRef(Current)?.busy.add(millis)
    return Effect.void
  })

/**
 * The routine whose fiber runs this, if any. Fibers that a routine forks by plain Effect count as the routine.
 *
 * @category getters
 * @since 0.1.0
 */
export const current: Effect.Effect<Option.Option<Routine<unknown, unknown>>> = Effect.withFiber((fiber) =>
  Effect.succeed(Option.fromUndefinedOr(fiber.getRef(Current)))
)

/**
 * A run of a routine, on whose behalf others may fork.
 *
 * @category models
 * @since 0.1.0
 */
export interface Owner {
  /**
   * Forks a routine that stands below the owner, lives in the scope of its run and is stopped with it. Returns at once;
   * with `awaitReady` when the routine is ready. If it fails, the run fails with its cause; its success and its
   * interruption do not matter. Of the caller's context it inherits neither the scope, which is its own, nor the span.
   *
   * Fails with `RunEnded` when that run has ended or is closing its scope, whatever runs came after it; with
   * `OrchestratorClosed` when shutdown has begun; and with `NotReady` (and the routine is stopped) when `awaitReady` is
   * not met.
   */
  fork<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options: RoutineOptions & { readonly awaitReady: true }
  ): Effect.Effect<Routine<A, E>, RunEnded | OrchestratorClosed | NotReady, Exclude<R, Scope.Scope>>
  fork<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options?: RoutineOptions
  ): Effect.Effect<Routine<A, E>, RunEnded | OrchestratorClosed, Exclude<R, Scope.Scope>>
}

/**
 * The present run of the routine whose fiber runs this, to fork on its behalf later: from a request, say, that a service
 * of a supervised layer answers, where `Effect.forkScoped` would fork into the request.
 *
 * Outside a routine there is no owner, and it dies: `current` says whether there is a routine.
 *
 * **Example** (A service that works in the background for its callers)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { Context, Deferred, Effect } from "effect"
 *
 * class Mailer extends Context.Service<Mailer, { readonly send: (to: string) => Effect.Effect<void> }>()("Mailer") {}
 *
 * const program = Effect.gen(function*() {
 *   const made = yield* Deferred.make<Mailer["Service"]>()
 *   const child = Effect.gen(function*() {
 *     const owner = yield* Routine.owner
 *     const send = (to: string) => Effect.asVoid(Effect.orDie(owner.fork(Effect.never, { name: `mail to ${to}` })))
 *     yield* Deferred.succeed(made, { send })
 *     return yield* Effect.never
 *   })
 *   const routine = yield* Orchestrator.fork(child, { name: "mailer" })
 *   const mailer = yield* Deferred.await(made)
 *   yield* Effect.scoped(mailer.send("ada"))
 *   const during = (yield* Orchestrator.list).map(({ path }) => path)
 *   yield* Routine.stop(routine)
 *   return { during, after: yield* Orchestrator.list }
 * })
 *
 * const { after, during } = await Effect.runPromise(program.pipe(Effect.provide(Orchestrator.layer)))
 * during // => ["/orchestra/mailer", "/orchestra/mailer/mail to ada"]
 * after // => []
 * ```
 *
 * @category getters
 * @since 0.1.0
 */
export const owner: Effect.Effect<Owner> = Effect.withFiber((fiber) => {
  const record = fiber.getRef(Current)
  return record === undefined
    ? Effect.die(new Error("Routine.owner belongs inside a routine, got: a fiber of none"))
    : Effect.succeed(ownerOf(record))
})

/**
 * Says that the present run is ready. Does nothing outside a routine, or when said again.
 *
 * @category operations
 * @since 0.1.0
 */
export const ready: Effect.Effect<void> = Effect.withFiber((fiber) => {
  fiber.getRef(Current)?.markReady()
  return Effect.void
})

/**
 * Says that the present run is ready, and something to know about it, such as the port it listens on: its snapshots
 * show it as `info`.
 *
 * @category operations
 * @since 0.1.0
 */
export const readyWith = (info: Readonly<Record<string, string>>): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const record = fiber.getRef(Current)
    if (record !== undefined) record.vitals.info = info
    return ready
  })

/**
 * Completes when the routine is asked to stop: whoever watches it has the grace of the stop to finish by itself.
 * Never completes outside a routine.
 *
 * @category operations
 * @since 0.1.0
 */
export const stopRequested: Effect.Effect<void> = Effect.withFiber((fiber) => {
  const record = fiber.getRef(Current)
  return record === undefined ? Effect.never : record.stopRequested
})

/**
 * Adds work for when the routine is asked to stop; its interruption waits for it, at most for the grace of the stop.
 * Lasts as long as the present run. Does nothing outside a routine.
 *
 * @category operations
 * @since 0.1.0
 */
export const onDrain = <R>(drain: Effect.Effect<void, never, R>): Effect.Effect<void, never, R> =>
  Effect.contextWith((context: Context.Context<R>) =>
    Effect.sync(() => {
      Context.get(context, Current)?.addDrain(Effect.provideContext(drain, context))
    })
  )

// Every routine is made of a record; the interface hides what only the tree may touch.
const recordOf = (self: Routine<unknown, unknown>): RoutineRecord => self as RoutineRecord
