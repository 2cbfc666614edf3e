/**
 * The root of a tree of routines: it forks them, lists them, tells what happens, and stops them.
 *
 * There is one orchestrator in a program, provided by one layer at its root. Everything forked with it is named,
 * registered before it runs, and stopped when the orchestrator is: nothing outlives it unseen.
 *
 * **Example** (A tree of two routines, and how it is stopped)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   yield* Orchestrator.fork(Effect.never, { name: "poller" })
 *   yield* Orchestrator.fork(Effect.never, { name: "poller" })
 *   const before = yield* Orchestrator.list
 *   const report = yield* Orchestrator.shutdown()
 *   return { paths: before.map((routine) => routine.path), clean: report.clean, stopped: report.stopped }
 * })
 *
 * const { clean, paths, stopped } = await Effect.runPromise(program.pipe(Effect.provide(Orchestrator.layer)))
 * paths // => ["/orchestra/poller", "/orchestra/poller#r-2"]
 * clean // => true
 * stopped // => 2
 * ```
 *
 * @since 0.1.0
 */
import * as Console from "effect/Console"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { NotReady, OrchestratorClosed, SupervisorFailure } from "./CoreError.ts"
import type { OrchestratorEvent } from "./Event.ts"
import { contextOf, forkUnder, noOptions } from "./internal/Fork.ts"
import { forkSite, keepForkSites } from "./internal/ForkSite.ts"
import { because, descendants, type Hook, Kernel, type Node, path, Stopping, tree } from "./Kernel.ts"
import type { Routine, RoutineOptions } from "./Routine.ts"
import { Current, RoutineRecord } from "./RoutineRecord.ts"
import * as Shutdown from "./Shutdown.ts"
import {
  formatStats,
  type NodeSnapshot,
  type RoutineSnapshot,
  type TemplateStats,
  type TreeSnapshot
} from "./Snapshot.ts"

/**
 * Where an orchestrator stands: it takes routines, is stopping them, or has stopped them.
 *
 * @category models
 * @since 0.1.0
 */
export type Status = "open" | "closing" | "closed"

/**
 * How an orchestrator is made.
 *
 * @category models
 * @since 0.1.0
 */
export interface OrchestratorOptions {
  /** The first segment of every path. Default `"orchestra"`. */
  readonly name?: string | undefined
  /** The budget of a shutdown that is not given one. */
  readonly shutdown?: Shutdown.ShutdownBudget | undefined
  /** How many routines that have ended it remembers. Default 1,000; 0 turns it off. */
  readonly history?: number | undefined
  /** Whether the line that forked each routine is kept, for snapshots, reports and leaks. Default false: it costs microseconds. */
  readonly forkSites?: boolean | undefined
}

/**
 * The progress of a shutdown: its phase, and how many routines still run.
 *
 * @category models
 * @since 0.1.0
 */
export interface ShutdownProgress {
  readonly phase: Shutdown.Phase | undefined
  readonly remaining: number
}

/**
 * The orchestrator of a program.
 *
 * @category services
 * @since 0.1.0
 */
export class Orchestrator extends Context.Service<Orchestrator, {
  readonly name: string
  /** What supervisors and other kinds of node build on. */
  readonly kernel: Kernel
  /** Whether it takes routines. */
  readonly status: Effect.Effect<Status>
  /** A routine by its id, while it is live or abandoned. */
  readonly get: (id: string) => Effect.Effect<Option.Option<RoutineSnapshot>>
  /** Any node by its path. */
  readonly find: (path: string) => Effect.Effect<Option.Option<NodeSnapshot>>
  /** The live routines, in the order they were forked. */
  readonly list: Effect.Effect<ReadonlyArray<RoutineSnapshot>>
  /** Everything, from the orchestrator down. */
  readonly tree: Effect.Effect<TreeSnapshot>
  /** Every node without its nesting, parents before their children. */
  readonly snapshot: Effect.Effect<ReadonlyArray<NodeSnapshot>>
  /** The last routines that have ended and are no longer listed, oldest first. */
  readonly history: Effect.Effect<ReadonlyArray<RoutineSnapshot>>
  /** Prints one line for each live routine: who it is, how it fares, how it spends its time, what waits for it. */
  readonly printStats: Effect.Effect<void>
  /** Counts by template name, kept as things happen: reading them visits no routine. */
  readonly stats: Effect.Effect<ReadonlyArray<TemplateStats>>
  /** What happens from now on. A stream that lags more than 1,024 events loses the oldest and is told how many. */
  readonly events: Stream.Stream<OrchestratorEvent>
  /** Tells a function of every event, synchronously and in order, while the scope is open. One that throws is removed. */
  readonly instrument: (hook: Hook) => Effect.Effect<void, never, Scope.Scope>
  /** Fails when a supervisor without a parent gives up. Else it never ends. */
  readonly fatal: Effect.Effect<never, SupervisorFailure>
  /** Stops every routine within `budget`; the orchestrator stays open and nothing is restarted. */
  readonly interruptAll: (budget?: Shutdown.ShutdownBudget, reason?: string) => Effect.Effect<Shutdown.ShutdownReport>
  /**
   * Stops everything within `budget` and takes no new routine; from the first moment on no routine counts as ready.
   * Concurrent calls share one result. A call after a shutdown that left something running tries again. `reason`
   * (default `"shutdown"`) travels with the interruptions.
   */
  readonly shutdown: (budget?: Shutdown.ShutdownBudget, reason?: string) => Effect.Effect<Shutdown.ShutdownReport>
  /** How far a shutdown has come. */
  readonly shutdownProgress: Effect.Effect<ShutdownProgress>
}>()("@effect-orchestra/core/Orchestrator") {
  /**
   * An orchestrator with the defaults. Closing the layer shuts it down.
   *
   * @category layers
   * @since 0.1.0
   */
  static readonly layer: Layer.Layer<Orchestrator> = Layer.effect(this, Effect.suspend(() => make({})))

  /**
   * An orchestrator with options. Call it once: every call makes another orchestrator.
   *
   * @category layers
   * @since 0.1.0
   */
  static layerWith(options: OrchestratorOptions): Layer.Layer<Orchestrator> {
    return Layer.effect(this, Effect.suspend(() => make(options)))
  }

  /**
   * Forks a routine that the orchestrator owns, and returns at once; with `awaitReady` when it is ready. It is
   * registered before its first instruction, and starts immediately. Of the caller's context it inherits neither the
   * scope, which is its own, nor the span. Fails with `OrchestratorClosed` when shutdown has begun, and with
   * `NotReady` (and the routine is stopped) when `awaitReady` is not met.
   *
   * @category operations
   * @since 0.1.0
   */
  static fork<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options: RoutineOptions & { readonly awaitReady: true }
  ): Effect.Effect<Routine<A, E>, OrchestratorClosed | NotReady, Exclude<R, Scope.Scope> | Orchestrator>
  static fork<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options?: RoutineOptions
  ): Effect.Effect<Routine<A, E>, OrchestratorClosed, Exclude<R, Scope.Scope> | Orchestrator>
  static fork<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options: RoutineOptions = noOptions
  ): Effect.Effect<Routine<A, E>, OrchestratorClosed | NotReady, Exclude<R, Scope.Scope> | Orchestrator> {
    const site = forkSite(Orchestrator.fork)
    return Effect.withFiber((fiber) => {
      const { kernel } = Context.getUnsafe(fiber.context, Orchestrator)
      return forkUnder(kernel, kernel, effect, contextOf(fiber, kernel), options, site)
    })
  }

  /**
   * The same as `fork`, owned by the caller's scope: closing the scope stops the routine. Within the layer of a
   * supervised child it stands below that child and is linked to it: its failure fails the child, with its cause.
   *
   * @category operations
   * @since 0.1.0
   */
  static forkScoped<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options: RoutineOptions & { readonly awaitReady: true }
  ): Effect.Effect<Routine<A, E>, OrchestratorClosed | NotReady, R | Scope.Scope | Orchestrator>
  static forkScoped<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options?: RoutineOptions
  ): Effect.Effect<Routine<A, E>, OrchestratorClosed, R | Scope.Scope | Orchestrator>
  static forkScoped<A, E, R>(
    effect: Effect.Effect<A, E, R>,
    options: RoutineOptions = noOptions
  ): Effect.Effect<Routine<A, E>, OrchestratorClosed | NotReady, R | Scope.Scope | Orchestrator> {
    const site = forkSite(Orchestrator.forkScoped)
    return Effect.withFiber((fiber) => {
      const { kernel } = Context.getUnsafe(fiber.context, Orchestrator)
      const parent = fiber.getRef(Current)
      const scope = Context.getUnsafe(fiber.context, Scope.Scope)
      const holder = { scope, parent, linked: parent?.linksForks === true }
      return forkUnder(kernel, parent ?? kernel, effect, contextOf(fiber, kernel), options, site, holder)
    })
  }

  /** `list` of the orchestrator in the context. */
  static readonly list = Effect.flatMap(this, (orchestrator) => orchestrator.list)

  /** `tree` of the orchestrator in the context. */
  static readonly tree = Effect.flatMap(this, (orchestrator) => orchestrator.tree)

  /** `snapshot` of the orchestrator in the context. */
  static readonly snapshot = Effect.flatMap(this, (orchestrator) => orchestrator.snapshot)

  /** `stats` of the orchestrator in the context. */
  static readonly stats = Effect.flatMap(this, (orchestrator) => orchestrator.stats)

  /** `history` of the orchestrator in the context. */
  static readonly history = Effect.flatMap(this, (orchestrator) => orchestrator.history)

  /** `printStats` of the orchestrator in the context. */
  static readonly printStats = Effect.flatMap(this, (orchestrator) => orchestrator.printStats)

  /** `events` of the orchestrator in the context. */
  static readonly events = Stream.unwrap(Effect.map(this, (orchestrator) => orchestrator.events))

  /** `instrument` of the orchestrator in the context. */
  static readonly instrument = (hook: Hook) => Effect.flatMap(this, (orchestrator) => orchestrator.instrument(hook))

  /** `fatal` of the orchestrator in the context. */
  static readonly fatal = Effect.flatMap(this, (orchestrator) => orchestrator.fatal)

  /** `get` of the orchestrator in the context. */
  static readonly get = (id: string) => Effect.flatMap(this, (orchestrator) => orchestrator.get(id))

  /** `find` of the orchestrator in the context. */
  static readonly find = (path: string) => Effect.flatMap(this, (orchestrator) => orchestrator.find(path))

  /** `interruptAll` of the orchestrator in the context. */
  static readonly interruptAll = (budget?: Shutdown.ShutdownBudget, reason?: string) =>
    Effect.flatMap(this, (orchestrator) => orchestrator.interruptAll(budget, reason))

  /** `shutdown` of the orchestrator in the context. */
  static readonly shutdown = (budget?: Shutdown.ShutdownBudget, reason?: string) =>
    Effect.flatMap(this, (orchestrator) => orchestrator.shutdown(budget, reason))
}

/**
 * The kernel of the orchestrator in this context, or of the routine that runs in it. Without either it is `around`, or a
 * kernel of its own for what is made now: it works the same and is listed nowhere.
 *
 * @stability unstable
 * @category getters
 * @since 0.1.0
 */
export const kernelOf = (context: Context.Context<never>, name: string, around?: Kernel): Kernel =>
  Context.getOrUndefined(context as Context.Context<Orchestrator>, Orchestrator)?.kernel ??
    Context.get(context, Current)?.kernel ??
    around ??
    // Nobody could look at its history.
    new Kernel(name, Context.omit(Scope.Scope)(context) as Context.Context<never>, { history: 0 })

const make = Effect.fnUntraced(function*(options: OrchestratorOptions) {
  const context = yield* Effect.context<never>()
  const kernel = new Kernel(
    options.name ?? "orchestra",
    Context.omit(Scope.Scope)(context) as Context.Context<never>,
    options
  )
  if (kernel.forkSites) yield* keepForkSites
  let running: Deferred.Deferred<Shutdown.ShutdownReport> | undefined = undefined

  const stopAll = Effect.fnUntraced(function*(budget: Shutdown.ShutdownBudget, by: Context.Context<never>) {
    const { writer } = kernel
    const started = writer.now()
    const before = kernel.routines
    const limits = Shutdown.limits(budget, started, by)
    const stop = kernel.stopping = new Stopping(kernel)
    const roots: Array<Node> = []
    for (let node = kernel.children?.last; node !== undefined; node = node.previous) roots.push(node)
    // A hundred thousand are stopped in slices, this one included, so that the process still answers meanwhile.
    if (roots.length > 1000) yield* Effect.yieldNow
    for (let i = 0; i < roots.length; i++) {
      const stopping = roots[i]?.stop(limits)
      if (stopping !== undefined) yield* stopping
      else if (i % 1000 === 999) yield* Effect.yieldNow
    }
    // What has ended and is listed only for what still runs below it is not left.
    const left = routines(kernel).filter((record) =>
      !record.isFinal || record.scope !== undefined || record.status === "abandoned"
    )
    stop.end(left.length)
    if (left.length === 0) kernel.stopping = undefined
    const now = writer.now()
    return {
      clean: left.length === 0,
      durationMillis: writer.now() - started,
      stopped: Math.max(0, before - left.length),
      phases: stop.phases,
      stuck: left.map((record) => {
        const { forkSite, lastBeat, path } = record.snapshot()
        const phase = record.isFinal ? "abandon" as const : "interrupt" as const
        return {
          path,
          phase,
          waitedMillis: record.askedAt === undefined ? 0 : now - record.askedAt,
          lastBeat,
          forkSite
        }
      }),
      failures: stop.failures
    }
  }, Effect.uninterruptible)

  const shutdown = (budget: Shutdown.ShutdownBudget = options.shutdown ?? {}, reason = "shutdown") =>
    Effect.withFiber((fiber): Effect.Effect<Shutdown.ShutdownReport> => {
      if (running !== undefined) return Deferred.await(running)
      const deferred = Deferred.makeUnsafe<Shutdown.ShutdownReport>()
      running = deferred
      kernel.closing = "closing"
      kernel.move("stopping")
      return stopAll(budget, because(reason, fiber.getRef(Current) ?? kernel)).pipe(
        Effect.onExit((exit) =>
          Effect.sync(() => {
            if (Exit.isSuccess(exit) && exit.value.clean) {
              kernel.closing = "closed"
              kernel.move("succeeded")
            }
            running = undefined
            Deferred.doneUnsafe(deferred, exit)
          })
        ),
        Effect.forkDetach({ startImmediately: true }),
        Effect.andThen(Deferred.await(deferred))
      )
    })

  yield* Effect.addFinalizer(() => kernel.closing === "closed" ? Effect.void : shutdown())

  return Orchestrator.of({
    name: kernel.name,
    kernel,
    status: Effect.sync(() => kernel.closing),
    get: (id) =>
      Effect.sync(() => {
        const node = kernel.node(id)
        return node instanceof RoutineRecord ? Option.some(node.snapshot()) : Option.none()
      }),
    find: (wanted) => Effect.sync(() => Option.map(find(kernel, wanted), (node) => node.snapshot())),
    list: Effect.sync(() => routines(kernel).map((record) => record.snapshot())),
    tree: Effect.sync(() => tree(kernel)),
    snapshot: Effect.sync(() => [kernel, ...descendants(kernel)].map((node) => node.snapshot())),
    history: Effect.sync(() => kernel.history.ended.all.map((ended) => ended.snapshot())),
    printStats: Effect.suspend(() =>
      Console.log(
        formatStats(routines(kernel).map((record) => ({ routine: record.snapshot(), stats: record.stats() })))
      )
    ),
    stats: Effect.sync(() => kernel.stats()),
    events: kernel.bus.stream,
    instrument: (hook) =>
      Effect.asVoid(Effect.acquireRelease(
        Effect.sync(() => kernel.bus.instrument(hook)),
        (remove) => Effect.sync(remove)
      )),
    fatal: Deferred.await(kernel.failed),
    interruptAll: (budget, reason = "shutdown") =>
      Effect.withFiber((fiber) =>
        stopAll(budget ?? options.shutdown ?? {}, because(reason, fiber.getRef(Current) ?? kernel))
      ),
    shutdown,
    shutdownProgress: Effect.sync(() => ({ phase: kernel.stopping?.phase, remaining: kernel.routines }))
  })
})

/** In the order they were forked. */
const routines = (kernel: Kernel): ReadonlyArray<RoutineRecord> =>
  descendants(kernel).filter((node) => node instanceof RoutineRecord).sort((a, b) => a.number - b.number)

const find = (kernel: Kernel, wanted: string): Option.Option<Node> =>
  Option.fromUndefinedOr([kernel, ...descendants(kernel)].find((node) => path(node) === wanted))
