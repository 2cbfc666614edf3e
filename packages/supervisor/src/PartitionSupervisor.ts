/**
 * Several copies of one child, and the rule which of them a key belongs to: a bottleneck, divided. Elixir:
 * `PartitionSupervisor`.
 *
 * Each copy is a child `"0"`, `"1"`, ... of a supervisor. A key belongs to the same copy for as long as their number stays
 * the same; whoever asks for one that is between two runs waits for the next.
 *
 * **Example** (Four counters, each of which counts its own keys)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { PartitionSupervisor } from "@effect-orchestra/supervisor"
 * import { Context, Effect, Layer } from "effect"
 *
 * class Counter extends Context.Service<Counter, { readonly next: Effect.Effect<number> }>()("app/Counter") {}
 *
 * const spec = PartitionSupervisor.make({
 *   name: "counters",
 *   partitions: 4,
 *   child: () => Layer.sync(Counter, () => {
 *     let count = 0
 *     return { next: Effect.sync(() => ++count) }
 *   })
 * })
 *
 * const program = Effect.gen(function*() {
 *   const counters = yield* PartitionSupervisor.start(spec)
 *   const next = (user: number) => PartitionSupervisor.use(counters, user, Counter, ({ next }) => next)
 *   return [yield* next(1), yield* next(2), yield* next(5), yield* next(-1)]
 * })
 *
 * const counted = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
 * counted // => [1, 1, 2, 3]
 * ```
 *
 * @since 0.1.0
 */
import type { OrchestratorEvent } from "@effect-orchestra/core/Event"
import { path, positive } from "@effect-orchestra/core/Kernel"
import type { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import type { Routine } from "@effect-orchestra/core/Routine"
import { Current } from "@effect-orchestra/core/RoutineRecord"
import type { Deadline } from "@effect-orchestra/core/Writer"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { dual } from "effect/Function"
import * as Hash from "effect/Hash"
import type * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import type * as Stream from "effect/Stream"
import * as Child from "./Child.ts"
import { cores } from "./internal/Cores.ts"
import type { Slot } from "./internal/Slot.ts"
import { nodeOf, type SupervisorNode } from "./internal/SupervisorNode.ts"
import type { RestartType, Strategy } from "./Restart.ts"
import * as Supervisor from "./Supervisor.ts"
import {
  type RestartIntensityReached,
  ServiceUnavailable,
  type StartFailure,
  type SupervisorNotRunning
} from "./SupervisorError.ts"

const TypeId = "~effect-orchestra/supervisor/PartitionSupervisor"

/**
 * How a partition supervisor and its partitions behave. `intensity` and `period` are the budget that they share.
 *
 * @category models
 * @since 0.1.0
 */
export interface PartitionOptions extends
  Pick<
    Supervisor.SupervisorOptions,
    "intensity" | "period" | "attemptBudget" | "concurrentRestarts" | "propagateTermination" | "unavailable"
  >,
  Omit<Child.ChildOptions, "restart" | "intensity" | "period" | "significant" | "dependsOn">
{
  /** How many there are: a positive integer. Default: the number of processors. */
  readonly partitions?: number | undefined
  /** Whether partitions are restarted alone. Default `"one_for_one"`. */
  readonly strategy?: Exclude<Strategy, "dependency"> | undefined
  /** When a partition runs again after it ended. Default `"permanent"`. */
  readonly restart?: Exclude<RestartType, "temporary"> | undefined
  /** A restart budget for each partition alone, in place of the shared one. */
  readonly childBudget?: Pick<Child.ChildOptions, "intensity" | "period"> | undefined
}

/**
 * The specification of a partition supervisor.
 *
 * @category models
 * @since 0.1.0
 */
export interface PartitionSupervisor<out A, out E, out Out, out R, out Name extends string = string> {
  readonly [TypeId]: { readonly A: A; readonly E: E; readonly Out: Out; readonly R: R }
  readonly name: Name
  readonly supervisor: Supervisor.Supervisor<never, unknown, R, Name>
}

/**
 * A partition supervisor that has been started. `partitions` is how many there are at present.
 *
 * @category models
 * @since 0.1.0
 */
export interface PartitionRef<out A, out E, out Out> {
  readonly [TypeId]: { readonly A: A; readonly E: E; readonly Out: Out }
  readonly id: string
  readonly name: string
  readonly partitions: number
}

/**
 * Describes a partition supervisor, calling `child` for each partition. Nothing starts. A wrong constant is a defect that
 * names it.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make: {
  <const Name extends string, A, E, R>(
    options: PartitionOptions & { readonly name: Name; readonly child: (partition: number) => Effect.Effect<A, E, R> }
  ): PartitionSupervisor<A, E, never, Exclude<R, Scope.Scope>, Name>
  <const Name extends string, ROut, E, R>(
    options: PartitionOptions & { readonly name: Name; readonly child: (partition: number) => Layer.Layer<ROut, E, R> }
  ): PartitionSupervisor<never, E, ROut, R, Name>
} = (
  {
    attemptBudget,
    child,
    childBudget,
    concurrentRestarts,
    intensity,
    name,
    partitions = cores(),
    period,
    propagateTermination,
    strategy = "one_for_one",
    unavailable,
    ...options
  }:
    & Omit<PartitionOptions, "restart">
    & {
      readonly restart?: RestartType | undefined
      readonly name: string
      readonly child: (
        partition: number
      ) => Effect.Effect<unknown, unknown, unknown> | Layer.Layer<never, unknown, unknown>
    }
) => {
  positive(`partition supervisor "${name}": partitions`, partitions)
  if (options.restart === "temporary") {
    throw new Error(`partition supervisor "${name}": restart is permanent or transient, got: ${options.restart}`)
  }
  const children = Array.from({ length: partitions }, (_, partition): Child.Any => {
    const made = child(partition)
    const spec = { ...options, ...childBudget }
    return Effect.isEffect(made)
      ? Child.make(String(partition), made, spec)
      : Child.layer(String(partition), made, spec)
  })
  const supervisor = Supervisor.make({
    name,
    strategy,
    intensity,
    period,
    attemptBudget,
    concurrentRestarts,
    propagateTermination,
    unavailable,
    children
  })
  // The type id carries types only.
  return { name, supervisor } as unknown as PartitionSupervisor<never, never, never, never, never>
}

class Ref implements PartitionRef<never, never, never> {
  declare readonly [TypeId]: PartitionRef<never, never, never>[typeof TypeId]
  readonly supervisor: Supervisor.SupervisorRef
  readonly children: ReadonlyArray<Child.Any>
  partitions: number
  /** One change of their number at a time. */
  readonly resizing = Semaphore.makeUnsafe(1)

  constructor(supervisor: Supervisor.SupervisorRef, { children }: Supervisor.Any) {
    this.supervisor = supervisor
    this.children = children
    this.partitions = children.length
  }

  get id(): string {
    return this.supervisor.id
  }

  get name(): string {
    return this.supervisor.name
  }

  get node(): SupervisorNode {
    return nodeOf(this.supervisor)
  }

  /** How many a key of this type is divided among decides on its partition. */
  partitionOf(key: unknown): number {
    return Math.abs(Number.isInteger(key) ? Number(key) : Hash.hash(key)) % this.partitions
  }
}

// Every ref is made by this module.
const refOf = (self: PartitionRef<unknown, unknown, unknown>): Ref => self as Ref

/**
 * Starts a partition supervisor that the scope owns, and waits until its last partition is ready; otherwise as
 * `Supervisor.start`. As a child of another supervisor:
 * `Child.layer(id, Layer.effect(Shards, PartitionSupervisor.start(spec)))`.
 *
 * @category operations
 * @since 0.1.0
 */
export const start = <A, E, Out, R>(
  spec: PartitionSupervisor<A, E, Out, R>
): Effect.Effect<PartitionRef<A, E, Out>, StartFailure, R | Scope.Scope | Orchestrator> =>
  Effect.map(Supervisor.start(spec.supervisor), (supervisor) => new Ref(supervisor, spec.supervisor))

const missing = ({ node }: Ref, service: string, state: string): ServiceUnavailable =>
  new ServiceUnavailable({ service, path: path(node), state })

/**
 * The partition of a key: for an integer its absolute value modulo their number, for anything else a hash of what it
 * is made of. Fails with `ServiceUnavailable` after a `resize` to 0.
 *
 * @category getters
 * @since 0.1.0
 */
export const partitionOf = (
  self: PartitionRef<unknown, unknown, unknown>,
  key: unknown
): Effect.Effect<number, ServiceUnavailable> =>
  Effect.suspend(() => {
    const ref = refOf(self)
    return ref.partitions === 0
      ? Effect.fail(missing(ref, ref.name, "without partitions"))
      : Effect.succeed(ref.partitionOf(key))
  })

/**
 * Runs `f` with the service that the present run of the key's partition gives. Between two runs it waits for the next, at
 * most for `unavailable.wait` (5 seconds by default). Fails with `ServiceUnavailable` after that, and at once where no run
 * is to be expected: the partition is stopped, or there is none.
 *
 * @category operations
 * @since 0.1.0
 */
export const use = <A, E, Out, I extends Out, S, B, E2, R2>(
  self: PartitionRef<A, E, Out>,
  key: unknown,
  tag: Context.Key<I, S>,
  f: (service: NoInfer<S>) => Effect.Effect<B, E2, R2>
): Effect.Effect<B, E2 | ServiceUnavailable, R2> =>
  Effect.flatMap(
    present(refOf(self), key, tag.key, ({ services }) =>
      // What stands under the key of a tag has its type.
      services === undefined ? undefined : Context.getOrUndefined(services as Context.Context<I>, tag)),
    f
  )

/**
 * The routine of the key's partition, which stays the same when it is restarted. Waits and fails as `use` does.
 *
 * @category operations
 * @since 0.1.0
 */
export const routine = <A, E>(
  self: PartitionRef<A, E, unknown>,
  key: unknown
): Effect.Effect<Routine<A, E>, ServiceUnavailable> =>
  present(refOf(self), key, self.name, ({ isRunning, record }) => isRunning ? record : undefined)

/** What `read` finds in the partition of a key, as soon as it does. The key is looked up again at each look. */
const present = <A>(
  ref: Ref,
  key: unknown,
  service: string,
  read: (slot: Slot) => A | undefined
): Effect.Effect<A, ServiceUnavailable> =>
  Effect.withFiber((fiber) => {
    const { node, node: { writer } } = ref
    let slot: Slot | undefined = undefined
    /** What there is, or why it is not worth waiting. */
    const look = (): Effect.Effect<A, ServiceUnavailable> | undefined => {
      if (ref.partitions === 0) return Effect.fail(missing(ref, service, "without partitions"))
      const id = String(ref.partitionOf(key))
      slot = node.slots.get(id)
      if (slot === undefined) return Effect.fail(missing(ref, service, `without partition ${id}`))
      const found = node.isStopping ? undefined : read(slot)
      if (found !== undefined) return Effect.succeed(found)
      const state = slot.unavailable ?? (node.isStopping ? "stopping" : undefined)
      return state === undefined ? undefined : Effect.fail(unavailable(slot, state))
    }
    const unavailable = ({ record }: Slot, state: string) =>
      new ServiceUnavailable({ service, path: path(record), state })
    const late = () => slot === undefined ? missing(ref, service, "restarting") : unavailable(slot, slot.state)
    const now = look()
    if (now !== undefined) return now
    const wait = Duration.toMillis(node.spec.unavailable.wait)
    if (wait === 0) return Effect.fail(late())
    return Effect.callback<A, ServiceUnavailable>((resume) => {
      const blocked = fiber.getRef(Current)?.blocked
      let watched: Slot | undefined = undefined
      let isOver = false
      const leave = () => {
        watched?.offered.delete(again)
        watched?.record.waiting.ready.delete(again)
      }
      const end = () => {
        if (isOver) return
        isOver = true
        leave()
        writer.cancel(deadline)
        blocked?.leave(writer.now())
      }
      const again = () => {
        if (isOver) return
        leave()
        const found = look()
        if (found !== undefined) {
          end()
          return resume(found)
        }
        watched = slot
        watched?.offered.add(again)
        watched?.record.waiting.ready.add(again)
      }
      blocked?.enter(writer.now())
      const deadline: Deadline = writer.after(wait, {
        run: () => {
          const failure = late()
          end()
          writer.wake({ run: () => resume(Effect.fail(failure)) })
        }
      })
      again()
      return Effect.sync(end)
    })
  })

/**
 * Changes how many partitions there are, up to as many as it was made with, and returns how many there were. Fewer: keys
 * go to those that are left from now on, then the highest are stopped; interrupting that does not keep them. More: the
 * stopped ones are started again, and keys go to them when all are ready; when one does not start (`StartFailure`), or
 * the call is interrupted, those are stopped again. With 0 every lookup fails. Any other number is a defect.
 *
 * @category operations
 * @since 0.1.0
 */
export const resize: {
  (
    partitions: number
  ): (self: PartitionRef<unknown, unknown, unknown>) => Effect.Effect<number, StartFailure | SupervisorNotRunning>
  (
    self: PartitionRef<unknown, unknown, unknown>,
    partitions: number
  ): Effect.Effect<number, StartFailure | SupervisorNotRunning>
} = dual(
  2,
  (self: PartitionRef<unknown, unknown, unknown>, partitions: number) =>
    Effect.uninterruptibleMask((restore) => {
      const ref = refOf(self)
      const initial = ref.children.length
      if (!(Number.isInteger(partitions) && partitions >= 0 && partitions <= initial)) {
        throw new Error(`the partitions of "${ref.name}" are a whole number from 0 to ${initial}, got: ${partitions}`)
      }
      const between = (from: number, to: number) => ref.children.slice(from, to)
      const change = Effect.suspend((): Effect.Effect<number, StartFailure | SupervisorNotRunning> => {
        const before = ref.partitions
        if (partitions > before) {
          const added = between(before, partitions)
          return Effect.forEach(added, (child) => startAgain(ref, child), { discard: true }).pipe(
            restore,
            Effect.onError(() => Effect.ignore(stopped(ref, added))),
            Effect.map(() => {
              ref.partitions = partitions
              return before
            })
          )
        }
        ref.partitions = partitions
        return Effect.as(stopped(ref, between(partitions, before)), before)
      })
      const done = Effect.ensuring(change, ref.resizing.release(1))
      // What has begun to shrink goes on by itself.
      const begun = Effect.suspend(() =>
        partitions < ref.partitions
          ? Effect.flatMap(Effect.forkDetach(done, { startImmediately: true }), (fiber) => restore(Fiber.join(fiber)))
          : done
      )
      return Effect.andThen(restore(ref.resizing.take(1)), begun)
    })
)

/** One that has said that it is done stays away. */
const startAgain = ({ supervisor }: Ref, { id }: Child.Any) =>
  Effect.catchTag(
    Supervisor.restartChild(supervisor, id),
    ["ChildNotFound", "ChildRunning", "ChildRestarting"],
    () => Effect.void
  )

/** The highest first. */
const stopped = ({ supervisor }: Ref, children: ReadonlyArray<Child.Any>) =>
  Effect.forEach(
    children.toReversed(),
    ({ id }) => Effect.catchTag(Supervisor.terminateChild(supervisor, id), "ChildNotFound", () => Effect.void),
    { discard: true }
  )

/**
 * The partitions in their order, those that are stopped included. Waits for nothing.
 *
 * @category getters
 * @since 0.1.0
 */
export const whichChildren = (
  self: PartitionRef<unknown, unknown, unknown>
): Effect.Effect<ReadonlyArray<Supervisor.ChildInfo>, SupervisorNotRunning> =>
  Supervisor.whichChildren(refOf(self).supervisor)

/**
 * Counts the partitions. Waits for nothing.
 *
 * @category getters
 * @since 0.1.0
 */
export const countChildren = (
  self: PartitionRef<unknown, unknown, unknown>
): Effect.Effect<Supervisor.ChildCounts, SupervisorNotRunning> => Supervisor.countChildren(refOf(self).supervisor)

/**
 * Waits until the supervisor has ended with all its partitions. Fails when it gave up.
 *
 * @category operations
 * @since 0.1.0
 */
const await_ = (self: PartitionRef<unknown, unknown, unknown>): Effect.Effect<void, RestartIntensityReached> =>
  Supervisor.await(refOf(self).supervisor)

export {
  // `await` is a reserved word.
  await_ as await
}

/**
 * Stops the partitions in reverse order, as `Supervisor.stop`.
 *
 * @category operations
 * @since 0.1.0
 */
export const stop = (self: PartitionRef<unknown, unknown, unknown>): Effect.Effect<void> =>
  Supervisor.stop(refOf(self).supervisor)

/**
 * What happens to this supervisor and below it, from now on.
 *
 * @category getters
 * @since 0.1.0
 */
export const events = (self: PartitionRef<unknown, unknown, unknown>): Stream.Stream<OrchestratorEvent> =>
  Supervisor.events(refOf(self).supervisor)
