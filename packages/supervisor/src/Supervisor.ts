/**
 * Starts children in order, watches them, restarts what fails, and stops them in reverse order.
 *
 * A spec is a value (`Supervisor.make`); `run`, `start` and `layer` bring it to life. The words and rules are OTP's:
 * strategy, restart type, intensity, period, shutdown. Unlike OTP's, a supervisor never blocks: while one child starts
 * or stops slowly, the failure of another, a query and a stop are served.
 *
 * **Example** (A worker that fails twice and then holds)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Child, Supervisor } from "@effect-orchestra/supervisor"
 * import { Effect } from "effect"
 *
 * let runs = 0
 * const flaky = Effect.suspend(() => ++runs < 3 ? Effect.fail("flaky") : Effect.never)
 *
 * const spec = Supervisor.make({
 *   name: "app",
 *   strategy: "one_for_one",
 *   children: [Child.make("flaky", flaky)]
 * })
 *
 * const program = Effect.gen(function*() {
 *   const app = yield* Supervisor.start(spec)
 *   while (runs < 3) yield* Effect.yieldNow
 *   yield* Supervisor.stop(app)
 *   return runs
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Orchestrator.layer))) // => 3
 * ```
 *
 * @since 0.1.0
 */
import type { OrchestratorEvent } from "@effect-orchestra/core/Event"
import { path, unbounded } from "@effect-orchestra/core/Kernel"
import type { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type * as Child from "./Child.ts"
import { begin, nodeOf, type RefTypeId } from "./internal/SupervisorNode.ts"
import type { Strategy } from "./Restart.ts"
import type { RestartIntensityReached, StartFailure } from "./SupervisorError.ts"

const TypeId = "~effect-orchestra/supervisor/Supervisor"

/**
 * A supervisor specification: what it runs, how it can fail, and what it requires.
 *
 * @category models
 * @since 0.1.0
 */
export interface Supervisor<out E, out R, out Name extends string = string> {
  readonly [TypeId]: { readonly E: E; readonly R: R }
  readonly name: Name
  readonly strategy: Strategy
  readonly intensity: number
  readonly period: Duration.Duration
  readonly children: ReadonlyArray<Child.Any>
}

/**
 * A supervisor that has been started.
 *
 * @category models
 * @since 0.1.0
 */
export interface SupervisorRef {
  readonly [RefTypeId]: typeof RefTypeId
  readonly id: string
  readonly name: string
}

/**
 * Describes a supervisor. Nothing starts. At most `intensity` restarts (default 3) within `period` (default 5 seconds)
 * are made before it gives up; a wrong constant is a defect that names it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <
  const Name extends string,
  const S extends Strategy,
  const C extends ReadonlyArray<Child.Any>
>(options: {
  readonly name: Name
  readonly strategy: S
  readonly intensity?: number | undefined
  readonly period?: Duration.Input | undefined
  readonly children: C & Child.Check<C, S, C[number]>
}): Supervisor<Child.Phantom<C[number]>["E"], Child.Needs<C, S>, Name> => {
  const { children, intensity = 3, name, period = "5 seconds", strategy } = options
  const unknown = Object.keys(options).find((key) => !known.has(key))
  if (unknown !== undefined) throw wrong(name, "unknown option", unknown)
  if (strategy !== "one_for_one" && strategy !== "rest_for_one") {
    throw wrong(name, `strategy is "one_for_one" or "rest_for_one"`, strategy)
  }
  if (!Number.isInteger(intensity) || intensity < 0) {
    throw wrong(name, "intensity is a whole number from 0 on", intensity)
  }
  const periodMillis = Duration.toMillis(period)
  if (!(periodMillis > 0 && periodMillis < Infinity)) throw wrong(name, "period is more than 0 and finite", period)
  const ids = new Set<string>()
  for (const { id } of children) {
    if (ids.has(id)) throw wrong(name, "children have different ids", id)
    ids.add(id)
  }
  const spec = { name, strategy, intensity, period: Duration.millis(periodMillis), children }
  // The type id carries types only.
  return spec as unknown as Supervisor<Child.Phantom<C[number]>["E"], Child.Needs<C, S>, Name>
}

const known: ReadonlySet<string> = new Set(["name", "strategy", "intensity", "period", "children"])

const wrong = (name: string, rule: string, got: unknown) => new Error(`supervisor "${name}": ${rule}, got: ${got}`)

/**
 * Starts a supervisor that the scope owns, and waits until its last child is ready. When a child does not start, those
 * before it are stopped in reverse order and it fails with `StartFailure`; a first start is never retried. Closing the
 * scope stops it. When it gives up it fails the routine that it was started in, or else `Orchestrator.fatal`.
 *
 * @category operations
 * @since 0.1.0
 */
export const start = <E, R>(
  spec: Supervisor<E, R>
): Effect.Effect<SupervisorRef, StartFailure, R | Scope.Scope | Orchestrator> => begin(spec, { escalates: true })

/**
 * Runs a supervisor until it ends: fails with `StartFailure` when it does not start and with `RestartIntensityReached`
 * when it gives up, each after everything was stopped; returns when somebody stopped it. Interrupting it stops it.
 *
 * @category operations
 * @since 0.1.0
 */
export const run = <E, R>(
  spec: Supervisor<E, R>
): Effect.Effect<void, StartFailure | RestartIntensityReached, R | Orchestrator> =>
  Effect.flatMap(begin(spec, { escalates: false }), await_).pipe(
    // A scope in the requirements of a child is its run's own: none is asked of the caller.
    Effect.scoped as <A, E, R>(effect: Effect.Effect<A, E, R | Scope.Scope>) => Effect.Effect<A, E, R>
  )

/**
 * A supervisor as a layer: built when its last child is ready, stopped when the layer is released.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = <E, R>(
  spec: Supervisor<E, R>
): Layer.Layer<never, StartFailure, Exclude<R, Scope.Scope> | Orchestrator> => Layer.effectDiscard(start(spec))

/**
 * Waits until the supervisor has ended with all its children. Fails when it gave up.
 *
 * @category operations
 * @since 0.1.0
 */
const await_ = (self: SupervisorRef): Effect.Effect<void, RestartIntensityReached> => nodeOf(self).awaitEnd

export {
  // `await` is a reserved word.
  await_ as await
}

/**
 * Stops the children in reverse order, each bounded by its own `shutdown`, and waits until they are gone or abandoned.
 * May be called at any time, also while it starts, and again: concurrent calls wait for one stop.
 *
 * @category operations
 * @since 0.1.0
 */
export const stop = (self: SupervisorRef): Effect.Effect<void> =>
  Effect.suspend(() => nodeOf(self).stop(unbounded) ?? Effect.void)

/**
 * What happens to this supervisor and below it, from now on.
 *
 * @category getters
 * @since 0.1.0
 */
export const events = (self: SupervisorRef): Stream.Stream<OrchestratorEvent> => {
  const node = nodeOf(self)
  const own = path(node)
  return Stream.filter(node.kernel.bus.stream, (event) => event.path === own || event.path.startsWith(`${own}/`))
}
