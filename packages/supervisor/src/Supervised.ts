/**
 * Services of supervised layers, as those outside their group see them: through something that outlives a restart.
 *
 * An instance dies with the run that built it, so a supervisor never exports one. For every service `S` of a
 * `Child.layer` it exports `Supervised<S>`: `Supervised.use(S, f)` runs `f` with the instance of the present run. A child
 * with `stable: [Supervised.stable(S)]` also exports `S` itself, as a facade that passes each call on.
 *
 * A call that comes while the child starts or is between two runs waits for the next one, up to the supervisor's
 * `unavailable.wait` (5 seconds by default); one that comes when no run is to be expected fails at once. A call that is
 * under way when the run ends is neither repeated nor cut short: it ends as the dead instance ends it.
 *
 * In a group that is restarted together later children read the instance itself. What they wait for there, in a
 * finalizer, would wait for them: use no `Supervised.use` of a sibling in a finalizer.
 *
 * **Example** (A counter that is asked across its restart)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Child, Supervised, Supervisor } from "@effect-orchestra/supervisor"
 * import { Context, Deferred, Effect, Layer } from "effect"
 *
 * class Counter extends Context.Service<Counter, {
 *   readonly next: Effect.Effect<number>
 *   readonly smash: Effect.Effect<void>
 * }>()("app/Counter") {}
 *
 * let runs = 0
 * const CounterLive = Layer.effect(Counter, Effect.gen(function*() {
 *   const smashed = yield* Deferred.make<never, string>()
 *   yield* Orchestrator.forkScoped(Deferred.await(smashed))
 *   let count = 100 * ++runs
 *   return { next: Effect.sync(() => ++count), smash: Effect.asVoid(Deferred.fail(smashed, "smashed")) }
 * }))
 *
 * const app = Supervisor.make({
 *   name: "app",
 *   strategy: "one_for_one",
 *   children: [Child.layer("counter", CounterLive, { stable: [Supervised.stable(Counter)] })]
 * })
 *
 * const program = Effect.gen(function*() {
 *   const counter = yield* Counter
 *   const before = yield* counter.next
 *   yield* counter.smash
 *   while ((yield* counter.next) < 200) yield* Effect.yieldNow
 *   return [before, yield* Supervised.use(Counter, ({ next }) => next)]
 * })
 *
 * const live = Layer.provideMerge(Supervisor.layer(app), Orchestrator.layer)
 * await Effect.runPromise(Effect.provide(program, live)) // => [101, 202]
 * ```
 *
 * @since 0.1.0
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Stream from "effect/Stream"
import { handleIn, handleKey } from "./internal/Exports.ts"
import type { ServiceUnavailable } from "./SupervisorError.ts"

const TypeId = "~effect-orchestra/supervisor/Supervised"

/**
 * The identifier, in requirements and in what a layer gives, of a service that is reached through its supervisor.
 *
 * @category models
 * @since 0.1.0
 */
export interface Supervised<in out I> {
  readonly [TypeId]: (_: I) => I
}

/**
 * A service whose instance changes with each run of the child that gives it. The handle stays the same.
 *
 * @category models
 * @since 0.1.0
 */
export interface SupervisedHandle<in out S> {
  /** The instance of the present run: waits for it, or fails, as `Supervised.use` does. Not to be kept. */
  readonly get: Effect.Effect<S, ServiceUnavailable>
  /** Runs `f` with it. */
  readonly use: <A, E, R>(f: (service: S) => Effect.Effect<A, E, R>) => Effect.Effect<A, E | ServiceUnavailable, R>
}

/**
 * The handle of a service, to be kept and used without a look into the context.
 *
 * @category getters
 * @since 0.1.0
 */
export const handle = <I, S>(tag: Context.Key<I, S>): Effect.Effect<SupervisedHandle<S>, never, Supervised<I>> =>
  Effect.withFiber(({ context }) => Effect.succeed(handleIn(context, tag)))

/**
 * Runs `f` with the instance of the present run, chosen when it is run. While there is none it waits, at most for the
 * supervisor's `unavailable.wait`, and then fails with `ServiceUnavailable`; at once where no run is to be expected.
 *
 * @category operations
 * @since 0.1.0
 */
export const use = <I, S, A, E, R>(
  tag: Context.Key<I, S>,
  f: (service: NoInfer<S>) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | ServiceUnavailable, R | Supervised<I>> =>
  Effect.withFiber(({ context }) => handleIn(context, tag).use(f))

/**
 * A service that never restarts, for tests of what calls `Supervised.use`.
 *
 * **Example** (No supervisor)
 *
 * ```ts import.meta.vitest
 * import { Supervised } from "@effect-orchestra/supervisor"
 * import { Context, Effect } from "effect"
 *
 * class Clock extends Context.Service<Clock, { readonly now: Effect.Effect<number> }>()("app/Clock") {}
 *
 * const later = Effect.map(Supervised.use(Clock, (clock) => clock.now), (now) => now + 1)
 * const tested = Effect.provide(later, Supervised.succeed(Clock, { now: Effect.succeed(41) }))
 *
 * await Effect.runPromise(tested) // => 42
 * ```
 *
 * @category layers
 * @since 0.1.0
 */
export const succeed = <I, S>(tag: Context.Key<I, S>, service: NoInfer<S>): Layer.Layer<Supervised<I>> =>
  Layer.succeed(handleKey(tag))({ get: Effect.succeed(service), use: (f) => f(service) })

/**
 * That a child also exports the service itself, and how its members are passed on.
 *
 * @category models
 * @since 0.1.0
 */
export interface Facade<out I, out S> {
  readonly tag: Context.Key<I, S>
  readonly streams: ReadonlySet<PropertyKey>
  readonly constants: ReadonlySet<PropertyKey>
  readonly unavailable: { readonly [member: PropertyKey]: ((error: ServiceUnavailable) => unknown) | undefined }
}

/**
 * How the members of a facade are passed on.
 *
 * @category models
 * @since 0.1.0
 */
export interface StableOptions<S, Streams, Constants> {
  /** The methods that return a `Stream`: all of them. */
  readonly streams?: ReadonlyArray<Streams> | undefined
  /** The members that are data and the same in every run, such as a brand: taken from the first. */
  readonly constants?: ReadonlyArray<Constants> | undefined
  /** What a member fails with, instead of dying, while there is no instance. It can only be an error that it has. */
  readonly unavailable?:
    | { readonly [M in keyof S]?: ((error: ServiceUnavailable) => ErrorOf<S[M]>) | undefined }
    | undefined
}

/**
 * Makes a child export the service itself, as an object that passes each call on to the instance of the present run.
 * It waits as `Supervised.use` does; what that would fail with is a defect here, unless `unavailable` maps it.
 *
 * That is possible only where every member is an `Effect`, a `Stream`, or a function that returns one (or where the
 * whole service is a function that returns an `Effect`). `streams` has to name the methods that return a `Stream`;
 * `constants` may name data. Any other member is a compile error that names it, and asks for `Supervised.use`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const stable = <
  I,
  S,
  const Streams extends StreamMethods<S> = never,
  const Constants extends keyof S = never
>(
  tag:
    & Context.Key<I, S>
    & IfNone<Exclude<Unstable<S>, Constants>, NotStable<Exclude<Unstable<S>, Constants>>>
    & IfNone<Exclude<StreamMethods<S>, Streams>, NotNamed<Exclude<StreamMethods<S>, Streams>>>,
  options: StableOptions<S, Streams, Constants> = {}
): Facade<I, S> => ({
  tag,
  streams: new Set(options.streams),
  constants: new Set(options.constants),
  unavailable: options.unavailable ?? {}
})

type IfNone<Members, Problem> = [Members] extends [never] ? unknown : Problem

/**
 * Says which members keep a service from having a facade.
 *
 * @category models
 * @since 0.1.0
 */
export interface NotStable<Members> {
  readonly "these members cannot survive a restart, use Supervised.use": Members
}

/**
 * Says which methods of a service return a `Stream` without being named in `streams`.
 *
 * @category models
 * @since 0.1.0
 */
export interface NotNamed<Members> {
  readonly "these methods return a Stream, name them in streams": Members
}

/** Exactly an `Effect` or a `Stream`: a type with more members, such as a query builder, is neither. */
type Kind<A> = A extends Effect.Effect<infer B, infer E, infer R>
  ? Effect.Effect<B, E, R> extends A ? "effect" : "other"
  : A extends Stream.Stream<infer B, infer E, infer R> ? Stream.Stream<B, E, R> extends A ? "stream" : "other"
  : "other"

/** What a function returns, under each of up to four signatures: those that it does not have are unknown. */
type Returned<F> = F extends {
  (...args: never): infer A
  (...args: never): infer B
  (...args: never): infer C
  (...args: never): infer D
} ? Known<A> | Known<B> | Known<C> | (IsNever<D> extends true ? "other" : Kind<D>)
  : "other"

type Known<A> = unknown extends A ? never : Kind<A>

type IsNever<A> = [A] extends [never] ? true : false

type IsFunction<M> = [M] extends [(...args: never) => unknown] ? true : false

/** A function with members of its own would lose them. */
type KindOfMember<M> = IsFunction<M> extends true ? IsNever<keyof M> extends true ? Returned<M> : "other" : Kind<M>

type Only<Is extends string, M> = IsNever<M> extends true ? false : [KindOfMember<M>] extends [Is] ? true : false

/**
 * The methods of a service that return a `Stream`.
 *
 * @category models
 * @since 0.1.0
 */
export type StreamMethods<S> = {
  [M in keyof S]-?: [IsFunction<S[M]>, Only<"stream", S[M]>] extends [true, true] ? M : never
}[keyof S]

/**
 * The members of a service that keep it from having a facade.
 *
 * @category models
 * @since 0.1.0
 */
export type Unstable<S> =
  | { [M in keyof S]-?: true extends Only<"effect", S[M]> | Only<"stream", S[M]> ? Indexed<M> : M }[keyof S]
  | (IsFunction<S> extends true ? [Returned<S>] extends ["effect"] ? never : "the call itself" : never)

/** Nobody knows the members of a record. */
type Indexed<M> = string extends M ? M : number extends M ? M : symbol extends M ? M : never

type ErrorOf<M> = M extends (...args: never) => infer A ? ErrorOf<A>
  : M extends Effect.Effect<infer _A, infer E, infer _R> ? E
  : M extends Stream.Stream<infer _A, infer E, infer _R> ? E
  : never
