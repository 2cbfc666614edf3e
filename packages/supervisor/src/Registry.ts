/**
 * Names for what runs: who is reached by a key, found by everybody, held by the routine that registered it.
 *
 * A name belongs to its routine and not to a run of it. While a supervised child is between two runs its name stays its
 * own: nobody else gets it, whoever looks for it waits, and the next run takes it again. With the final state of the
 * routine it is free, in the same step. A fiber outside any routine holds a name for its scope.
 *
 * The names of one kind of thing are a namespace: a constant of the program that says what its keys and values are. Keys
 * are compared as `Equal` does, by structure.
 *
 * **Example** (A room that is reached by its name, also while it is restarted)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { Backoff, Child, Registry, Supervisor } from "@effect-orchestra/supervisor"
 * import { Effect, Layer } from "effect"
 *
 * const Rooms = Registry.unique<{ readonly opened: number }>("rooms")
 *
 * let opened = 0
 * const lobby = Effect.gen(function*() {
 *   yield* Registry.register(Rooms, "lobby", { opened: ++opened })
 *   yield* Routine.ready
 *   return opened === 1 ? yield* Effect.die("out of luck") : yield* Effect.never
 * })
 *
 * const spec = Supervisor.make({
 *   name: "house",
 *   strategy: "one_for_one",
 *   children: [Child.make("lobby", lobby, { awaitReady: true, backoff: Backoff.exponential({ base: "1 milli" }) })]
 * })
 *
 * const program = Effect.andThen(Supervisor.start(spec), Registry.whereis(Rooms, "lobby"))
 * const layer = Layer.provideMerge(Registry.layer, Orchestrator.layer)
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(layer))) // => { opened: 2 }
 * ```
 *
 * @since 0.1.0
 */
import { millisOf } from "@effect-orchestra/core/Kernel"
import { kernelOf } from "@effect-orchestra/core/Orchestrator"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as MutableHashMap from "effect/MutableHashMap"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { NameTable } from "./internal/NameTable.ts"
import type { AlreadyRegistered, NameUnavailable, NotOwner } from "./SupervisorError.ts"

const TypeId = "~effect-orchestra/supervisor/Registry/Namespace"

/**
 * What a namespace is, whatever its keys and values are.
 *
 * @category models
 * @since 0.1.0
 */
export interface Definition {
  readonly name: string
  /** Whether a key has one holder at most, or many. */
  readonly kind: "unique" | "duplicate"
  /** How long `whereis` waits for the next run of a holder, in milliseconds. */
  readonly waitMillis: number
}

/**
 * A namespace of keys `K` with values `V`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Namespace<in out K, in out V> extends Definition {
  readonly [TypeId]: { readonly _K: (_: K) => K; readonly _V: (_: V) => V }
}

/**
 * A namespace in which a key has one holder at most.
 *
 * @category models
 * @since 0.1.0
 */
export interface Unique<in out K, in out V> extends Namespace<K, V> {
  readonly kind: "unique"
}

/**
 * A namespace in which a key has any number of entries.
 *
 * @category models
 * @since 0.1.0
 */
export interface Duplicate<in out K, in out V> extends Namespace<K, V> {
  readonly kind: "duplicate"
}

/**
 * The counts of a namespace: `entries` that are served, names that are held while their routine is `restarting`, fibers
 * that are `waiting` for one of those, and keys that are `locked`.
 *
 * @category models
 * @since 0.1.0
 */
export interface NamespaceStats {
  readonly name: string
  readonly kind: Definition["kind"]
  readonly entries: number
  readonly restarting: number
  readonly waiting: number
  readonly locked: number
}

/**
 * The registry of a program.
 *
 * @category services
 * @since 0.1.0
 */
export class Registry extends Context.Service<Registry, {
  /** What supervision builds on. */
  readonly table: NameTable
}>()("@effect-orchestra/supervisor/Registry") {
  /**
   * An empty registry. It has no end of its own: names end with who holds them.
   *
   * @category layers
   * @since 0.1.0
   */
  static readonly layer: Layer.Layer<Registry> = Layer.effect(
    this,
    Effect.withFiber((fiber) =>
      Effect.succeed(Registry.of({ table: new NameTable(kernelOf(fiber.context, "registry").writer) }))
    )
  )

  /**
   * Declares a namespace in which a key has one holder at most. `wait` is how long `whereis` waits for the next run of a
   * holder, by default 5 seconds. An empty name is a defect; so is, where it is used, that another namespace has it.
   *
   * @category constructors
   * @since 0.1.0
   */
  static unique<V, K = string>(
    name: string,
    options: { readonly wait?: Duration.Input | undefined } = {}
  ): Unique<K, V> {
    const waitMillis = millisOf("the wait of a namespace", options.wait ?? "5 seconds")
    return { ...declared(name), kind: "unique", waitMillis }
  }

  /**
   * Declares a namespace in which a key has any number of entries, also of one routine. An empty name is a defect; so
   * is, where it is used, that another namespace has it.
   *
   * @category constructors
   * @since 0.1.0
   */
  static duplicate<V, K = string>(name: string): Duplicate<K, V> {
    return { ...declared(name), kind: "duplicate", waitMillis: 0 }
  }

  /**
   * Registers the running routine under a key, with a value: what others need to reach it. It lasts until the routine
   * is final, or until a scope that is opened within the run closes before the run ends. A unique name is kept between
   * two runs and registered again by the next; many entries of one key end with the run. A name that the routine holds
   * already gets the new value. Fails with `AlreadyRegistered` when another holds a unique name.
   *
   * Outside a routine the name belongs to the fiber, and lasts as long as its scope.
   *
   * @category operations
   * @since 0.1.0
   */
  static register<K, V>(
    names: Unique<K, V>,
    key: NoInfer<K>,
    value: NoInfer<V>
  ): Effect.Effect<void, AlreadyRegistered, Registry | Scope.Scope>
  static register<K, V>(
    names: Duplicate<K, V>,
    key: NoInfer<K>,
    value: NoInfer<V>
  ): Effect.Effect<void, never, Registry | Scope.Scope>
  static register(
    names: Definition,
    key: unknown,
    value: unknown
  ): Effect.Effect<void, AlreadyRegistered, Registry | Scope.Scope> {
    return Effect.uninterruptible(Effect.withFiber((fiber) => tableOf(fiber).register(names, key, value, fiber)))
  }

  /**
   * Gives up what the running routine holds under a key: a unique name, or all its entries. Changes nothing if it holds
   * none.
   *
   * @category operations
   * @since 0.1.0
   */
  static unregister<K, V>(names: Namespace<K, V>, key: NoInfer<K>): Effect.Effect<void, never, Registry> {
    return Effect.withFiber((fiber) => Effect.sync(() => tableOf(fiber).unregister(names, key, fiber)))
  }

  /**
   * The value of a unique name, or the values of all entries of a key in the order they came. Waits for nothing: a
   * routine between two runs has none.
   *
   * @category getters
   * @since 0.1.0
   */
  static lookup<K, V>(names: Unique<K, V>, key: NoInfer<K>): Effect.Effect<Option.Option<V>, never, Registry>
  static lookup<K, V>(names: Duplicate<K, V>, key: NoInfer<K>): Effect.Effect<ReadonlyArray<V>, never, Registry>
  static lookup(
    names: Definition,
    key: unknown
  ): Effect.Effect<Option.Option<unknown> | ReadonlyArray<unknown>, never, Registry> {
    return Effect.withFiber((fiber) =>
      Effect.sync(() => {
        const entries = tableOf(fiber).find(names)?.at(key) ?? []
        if (names.kind === "duplicate") return entries.map(({ value }) => value)
        return Option.map(Option.fromUndefinedOr(entries[0]), ({ value }) => value)
      })
    )
  }

  /**
   * The value of a unique name. While its holder is between two runs it waits for the next, as long as the namespace
   * says. Fails with `NameUnavailable` after that, and at once when nobody holds the name or its holder ends for good. What
   * is done with the value is neither tried again nor cut when the holder ends meanwhile.
   *
   * @category operations
   * @since 0.1.0
   */
  static whereis<K, V>(names: Unique<K, V>, key: NoInfer<K>): Effect.Effect<V, NameUnavailable, Registry> {
    // A namespace holds what was registered with it.
    return Effect.withFiber((fiber) => tableOf(fiber).whereis(names, key) as Effect.Effect<V, NameUnavailable>)
  }

  /**
   * Changes the value of a unique name that the running routine has registered, and returns the new one. Fails with
   * `NotOwner` when another holds the name, or nobody does.
   *
   * @category operations
   * @since 0.1.0
   */
  static updateValue<K, V>(
    names: Unique<K, V>,
    key: NoInfer<K>,
    change: (value: V) => NoInfer<V>
  ): Effect.Effect<V, NotOwner, Registry> {
    return Effect.withFiber((fiber) =>
      // A namespace holds what was registered with it.
      tableOf(fiber).update(names, key, change as (value: unknown) => V, fiber) as Effect.Effect<V, NotOwner>
    )
  }

  /**
   * Runs an effect for each entry of a key, in the running fiber: in the order they came, one after the other unless
   * `concurrency` says more. Those that come meanwhile are left out, and those that end before their turn too. Returns
   * for how many it was run. Its failure ends it: who wants to reach all of them handles their errors in `use`.
   *
   * @category operations
   * @since 0.1.0
   */
  static dispatch<K, V, A, E, R>(
    names: Namespace<K, V>,
    key: NoInfer<K>,
    use: (value: V) => Effect.Effect<A, E, R>,
    options?: { readonly concurrency?: number | "unbounded" | undefined }
  ): Effect.Effect<number, E, R | Registry> {
    return Effect.withFiber((fiber) => {
      let reached = 0
      const each = Effect.forEach(
        tableOf(fiber).find(names)?.at(key) ?? [],
        (entry) => {
          if (!entry.live) return Effect.void
          reached++
          // A namespace holds what was registered with it.
          return use(entry.value as V)
        },
        { concurrency: options?.concurrency ?? 1, discard: true }
      )
      return Effect.map(each, () => reached)
    })
  }

  /**
   * The keys that are served now, in the order they came. Looks at every name of the namespace.
   *
   * @category getters
   * @since 0.1.0
   */
  static keys<K, V>(names: Namespace<K, V>): Effect.Effect<ReadonlyArray<K>, never, Registry> {
    return Effect.withFiber((fiber) =>
      Effect.sync(() => {
        const space = tableOf(fiber).find(names)
        if (space === undefined) return []
        const many = names.kind === "duplicate"
        const keys = many ? MutableHashMap.keys(space.duplicate) : MutableHashMap.keys(space.unique)
        // A namespace holds what was registered with it.
        return Array.from(keys as Iterable<K>).filter((key) => many || space.get(key)?.live === true)
      })
    )
  }

  /**
   * How many entries are served now.
   *
   * @category getters
   * @since 0.1.0
   */
  static count<K, V>(names: Namespace<K, V>): Effect.Effect<number, never, Registry> {
    return Effect.withFiber((fiber) => Effect.sync(() => tableOf(fiber).find(names)?.live ?? 0))
  }

  /**
   * Runs an effect while no other runs under this key: those of one key one after the other, in the order they asked,
   * those of different keys side by side. The lock is free again however the effect ends; who is interrupted while
   * waiting loses its place. A fiber that is inside already goes on. What is locked is the key and not its name: whether
   * anybody holds that does not matter.
   *
   * @category operations
   * @since 0.1.0
   */
  static lock<K, V, A, E, R>(
    names: Namespace<K, V>,
    key: NoInfer<K>,
    effect: Effect.Effect<A, E, R>
  ): Effect.Effect<A, E, R | Registry> {
    return Effect.uninterruptibleMask((restore) =>
      Effect.withFiber((fiber) => tableOf(fiber).lock(names, key, effect, fiber, restore))
    )
  }

  /**
   * The counts of the namespaces that hold anything.
   *
   * @category getters
   * @since 0.1.0
   */
  static readonly stats: Effect.Effect<ReadonlyArray<NamespaceStats>, never, Registry> = Effect.withFiber((fiber) =>
    Effect.sync(() => Array.from(tableOf(fiber).spaces.values(), (space) => space.stats()))
  )
}

const declared = (name: string) => {
  if (name === "") throw new Error("the name of a namespace is not empty, got: \"\"")
  return { [TypeId]: { _K: identity, _V: identity }, name }
}

/** What is required stands in the context of the caller, as the types of the operations say. */
const tableOf = (fiber: Fiber.Fiber<unknown, unknown>): NameTable =>
  Context.getUnsafe(fiber.context as Context.Context<Registry>, Registry).table
