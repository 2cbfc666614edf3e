/**
 * The fibers that a layer forks into its scope while it is built, by plain Effect: nobody else would hear of their end.
 *
 * A scope keeps its finalizers in a map, under the fiber for one that was forked into it, and under the scope for one
 * that was forked of it. All that is public and typed (`Scope.State.Open`), if not promised: with a map of ours in its
 * place we are told of both. A scope keeps its first finalizer beside the map, and is `Empty` without any, so that it has
 * to begin `Open` with an anchor in the map. What is memoized is built in a scope that hangs on no other, which the memo
 * map hands out. `LinkedForks.test.ts` has a test for each way of forking, for the day that Effect changes any of this.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Predicate from "effect/Predicate"
import type * as Scope from "effect/Scope"

/** Is told of each failure of a fiber that was forked into `scope`, or into a scope of it, before the `end`. @internal */
export class LinkedForks implements Layer.MemoMap {
  readonly "~effect/Layer/MemoMap" = "~effect/Layer/MemoMap"
  private readonly memoized = Layer.makeMemoMapUnsafe()
  private readonly failed: (cause: Cause.Cause<unknown>) => void
  /** The scopes that are watched and open, until the end. */
  private watched: Set<Watched> | undefined = new Set()

  constructor(scope: Scope.Scope, failed: (cause: Cause.Cause<unknown>) => void) {
    this.failed = failed
    this.watch(scope)
  }

  get<RIn, E, ROut>(
    layer: Layer.Layer<ROut, E, RIn>,
    scope: Scope.Scope
  ): Effect.Effect<Context.Context<ROut>, E, RIn> | undefined {
    return this.memoized.get(layer, scope)
  }

  getOrElseMemoize<RIn, E, ROut>(
    layer: Layer.Layer<ROut, E, RIn>,
    scope: Scope.Scope,
    build: (memoMap: Layer.MemoMap, scope: Scope.Scope) => Effect.Effect<Context.Context<ROut>, E, RIn>
  ): Effect.Effect<Context.Context<ROut>, E, RIn> {
    return this.memoized.getOrElseMemoize(layer, scope, (_, own) => {
      this.watch(own)
      return build(this, own)
    })
  }

  /** What is forked from now on is the forker's business. */
  end(): void {
    const { watched } = this
    this.watched = undefined
    for (const each of watched ?? []) each.end()
  }

  /** A scope that holds something already is not new, and is watched or none of ours. */
  private watch(scope: Scope.Scope): void {
    if (this.watched !== undefined && scope.state._tag === "Empty") {
      this.watched.add(new Watched(scope, (key) => this.added(key, scope), (self) => this.watched?.delete(self)))
    }
  }

  private added(key: {}, scope: Scope.Scope): void {
    if (this.watched === undefined) return
    if (Fiber.isFiber(key)) key.addObserver((exit) => this.exited(exit, scope))
    else if (isScope(key)) this.watch(key)
  }

  private exited(exit: Exit.Exit<unknown, unknown>, scope: Scope.Scope): void {
    // What its scope has interrupted was to end, however it did.
    if (Exit.isSuccess(exit) || scope.state._tag === "Closed") return
    if (exit.cause.reasons.some(isFailure)) this.failed(exit.cause)
  }
}

/** A stream says by `Done` that it is over: that is no failure. */
const isFailure = (reason: Cause.Reason<unknown>): boolean =>
  Cause.isDieReason(reason) || (Cause.isFailReason(reason) && !Cause.isDone(reason.error))

const isScope = (u: unknown): u is Scope.Scope => Predicate.hasProperty(u, "~effect/Scope")

type Finalizer = (exit: Exit.Exit<unknown, unknown>) => Effect.Effect<void>

/** The finalizers of a scope, which tell what each belongs to. */
class Watched extends Map<{}, Finalizer> {
  private readonly scope: Scope.Scope
  private readonly added: (key: {}) => void

  constructor(scope: Scope.Scope, added: (key: {}) => void, closed: (self: Watched) => void) {
    super()
    this.scope = scope
    this.added = added
    super.set(this, () => Effect.sync(() => closed(this)))
    scope.state = { _tag: "Open", finalizerKey: undefined, finalizer: undefined, finalizers: this }
  }

  override set(key: {}, finalizer: Finalizer): this {
    super.set(key, finalizer)
    this.added(key)
    return this
  }

  /** Takes the anchor out, as the scope would. */
  end(): void {
    this.delete(this)
    const { state } = this.scope
    if (this.size === 0 && state._tag === "Open" && state.finalizers === this) this.scope.state = { _tag: "Empty" }
  }
}
