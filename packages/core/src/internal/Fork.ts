/** How a routine is forked into the tree: who owns it, what stops it, and whom its failure fails. */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import { NotReady, OrchestratorClosed, RunEnded } from "../CoreError.ts"
import { because, type Kernel, millisOf, type Node, path, type StopLimits, unbounded } from "../Kernel.ts"
import type { Owner, Routine, RoutineOptions } from "../Routine.ts"
import { RoutineRecord, withoutSpan } from "../RoutineRecord.ts"
import { forkedAt, forkSite } from "./ForkSite.ts"

/**
 * What is forked inherits no span, but observers are told of it. The fiber knows whether there is one without a look
 * into its context.
 */
export const contextOf = (
  { cache, context }: Fiber.Fiber<unknown, unknown>,
  { observers }: Kernel
): Context.Context<never> =>
  cache.span === undefined || observers?.starting !== undefined ? context : withoutSpan(context)

// One for all who give none.
export const noOptions: RoutineOptions = {}

/** Who stops a routine, and whom it relies on. */
interface Holder<X = never> {
  /** Closing it stops the routine. */
  readonly scope: Scope.Scope
  /** On whose behalf that is. */
  readonly parent: RoutineRecord | undefined
  /** Whether the failure of the routine fails the present run of its parent. */
  readonly linked: boolean
  /** Says that it takes nothing any more. */
  readonly refusal?: () => X | undefined
}

export const forkUnder = <A, E, R, X = never>(
  kernel: Kernel,
  owner: Node,
  effect: Effect.Effect<A, E, R>,
  context: Context.Context<never>,
  options: RoutineOptions,
  site: string | undefined,
  holder?: Holder<X>
): Effect.Effect<Routine<A, E>, OrchestratorClosed | NotReady | X> => {
  if (kernel.closing !== "open") {
    return Effect.fail(new OrchestratorClosed({ orchestrator: kernel.name, state: kernel.closing }))
  }
  const forked = () => {
    const record = new RoutineRecord(kernel, owner, options)
    forkedAt(record, site)
    // What the effect requires stands in the context.
    record.start(effect as Effect.Effect<A, E>, context, { readyNow: options.ready !== "signal" })
    return record
  }
  if (holder === undefined && options.awaitReady !== true) return Effect.succeed(forked())
  // Interrupted at any point, it either has a holder or is stopped.
  return Effect.uninterruptibleMask((restore) =>
    Effect.suspend((): Effect.Effect<RoutineRecord, NotReady | X> => {
      const refusal = holder?.refusal?.()
      if (refusal !== undefined) return Effect.fail(refusal)
      // Before it runs: it may end the run that it belongs to.
      const run = holder?.linked === true ? holder.parent?.scope : undefined
      const record = forked()
      const ready = options.awaitReady === true ? untilReady(record, options, restore) : Effect.succeed(record)
      return holder === undefined ? ready : Effect.andThen(hold(record, holder, run), ready)
    })
  )
}

/** The scope stops the routine; the end of the routine frees the scope of it, and fails the run that relies on it. */
const hold = (
  record: RoutineRecord,
  { parent, scope }: Holder<unknown>,
  run: Scope.Scope | undefined
): Effect.Effect<void> =>
  Effect.flatMap(Scope.fork(scope), (own) => {
    const limits: StopLimits = { ...unbounded, by: because("scope_closed", parent) }
    const stop = Effect.suspend(() => record.stop(limits) ?? Effect.void)
    const released = (exit: Exit.Exit<unknown, unknown>) => {
      Scope.closeUnsafe(own, exit)
      if (run !== undefined && Exit.isFailure(exit) && !Cause.hasInterruptsOnly(exit.cause)) {
        record.observed = true
        // Another run may have begun beside one that does not end.
        if (parent?.scope === run) parent.failLinked(exit.cause)
      }
    }
    if (record.exit === undefined) record.ended.add(released)
    else released(record.exit)
    return Scope.addFinalizer(own, stop)
  })

const untilReady = Effect.fnUntraced(function*(
  record: RoutineRecord,
  options: RoutineOptions,
  restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
) {
  const { writer } = record.kernel
  const started = writer.now()
  const within = millisOf("a routine's startTimeout", options.startTimeout ?? Infinity)
  const waited = yield* Effect.exit(restore(Effect.timeoutOption(record.readyOrEnded, within)))
  if (record.isReady && Exit.isSuccess(waited)) return record
  record.observed = true
  yield* record.stop({ ...unbounded, by: because("not_ready", record.owner) }) ?? Effect.void
  if (Exit.isFailure(waited)) return yield* Effect.failCause(waited.cause)
  const reason = Option.isSome(waited.value) ? "ended" : "timeout"
  return yield* new NotReady({ path: path(record), reason, waitedMillis: Math.round(writer.now() - started) })
})

/** Forks on behalf of the present run of a routine. */
export const ownerOf = (parent: RoutineRecord): Owner => {
  const { incarnation, kernel, scope } = parent
  const refusal = () => {
    const isOpen = parent.scope === scope && scope?.state._tag !== "Closed"
    return isOpen ? undefined : new RunEnded({ path: path(parent), incarnation })
  }
  const fork = <A, E, R>(effect: Effect.Effect<A, E, R>, options: RoutineOptions = noOptions) => {
    const site = forkSite(fork)
    return Effect.withFiber((fiber) => {
      if (scope === undefined) return Effect.fail(new RunEnded({ path: path(parent), incarnation }))
      const holder = { scope, parent, linked: true, refusal }
      return forkUnder(kernel, parent, effect, contextOf(fiber, kernel), options, site, holder)
    })
  }
  // `NotReady` comes of `awaitReady` alone, and of the services that the effect requires its scope is its own.
  return { fork } as Owner
}
