/**
 * How much CPU each routine takes, and which one holds the event loop.
 *
 * Nothing in JavaScript says what a program's parts cost: here every slice is timed, from the moment at which a fiber
 * begins to run until it suspends, yields or ends, by way of the `Scheduler` through which Effect runs them. The time
 * of the fibers that a routine forks, and of its finalizers, is its own; a fiber that runs within the slice of another
 * is taken out of that. Provide it below the orchestrator.
 *
 * **Example** (Who takes the time)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { Metering } from "@effect-orchestra/observability"
 * import { Effect, Layer } from "effect"
 *
 * const burn = (millis: number) =>
 *   Effect.sync(() => {
 *     for (const until = performance.now() + millis; performance.now() < until;);
 *   })
 *
 * const program = Effect.gen(function*() {
 *   const metering = yield* Metering
 *   const pdf = yield* Orchestrator.fork(Effect.andThen(burn(60), Effect.never), { name: "pdf" })
 *   const mail = yield* Orchestrator.fork(Effect.andThen(Effect.sleep(20), burn(5)), { name: "mail" })
 *   yield* Routine.join(mail)
 *   const [heavy, light] = [yield* metering.cpu(pdf), yield* metering.cpu(mail)]
 *   const [blocker] = yield* metering.longSlices
 *   return { isHeavier: heavy.cpuMillis > light.cpuMillis, blocker: blocker?.routine?.path }
 * })
 *
 * const layer = Layer.provideMerge(Orchestrator.layer, Metering.layer)
 * const { blocker, isHeavier } = await Effect.runPromise(Effect.provide(program, layer))
 * isHeavier // => true
 * blocker // => "/orchestra/pdf"
 * ```
 *
 * @since 0.1.0
 */
import { type Kernel, RunContext } from "@effect-orchestra/core/Kernel"
import type { Routine } from "@effect-orchestra/core/Routine"
import type { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Scheduler from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import { MeteredScheduler, Slices } from "./internal/Slices.ts"
import type { Meter } from "./Meter.ts"

/**
 * What a routine has used since it was forked, in milliseconds for which its fibers ran. `share` is that of the last 5
 * to 10 seconds, 1 being a whole thread.
 *
 * @category models
 * @since 0.1.0
 */
export interface Cpu {
  readonly cpuMillis: number
  readonly longestSliceMillis: number
  readonly slices: number
  readonly share: number
}

/**
 * A slice of more than 50 milliseconds: when it began (epoch milliseconds), how long it held the event loop, and whose
 * it was; undefined is a fiber that belongs to no routine.
 *
 * @category models
 * @since 0.1.0
 */
export interface LongSlice {
  readonly at: number
  readonly durationMillis: number
  readonly routine: { readonly id: string; readonly name: string; readonly path: string } | undefined
}

/**
 * The meter of the CPU that routines take.
 *
 * **Details**
 *
 * What it measures is the time for which a fiber held the thread, as the wall clock says it: on a machine whose cores
 * are all taken, time in which the thread itself waited is included. Costs a comparison for each operation of a fiber,
 * and some 200 to 300 ns for each slice.
 *
 * **Gotchas**
 *
 * Nobody is charged for what runs outside fibers: the callback of a timer before it resumes one, a promise that runs
 * on by itself. Nothing says when a fiber has suspended, so what follows until the end of the callback that resumed
 * it, or until the next operation of the fiber that ran it, is its own. A fiber with `PreventSchedulerYield` asks no
 * scheduler, and is not seen. Build the layer in an asynchronous run: `runSync` brings a scheduler of its own.
 *
 * @category services
 * @since 0.1.0
 */
export class Metering extends Context.Service<Metering, {
  /** What a routine has used; zero of everything before it runs. Waits for nothing. */
  readonly cpu: (routine: Routine<unknown, unknown>) => Effect.Effect<Cpu>
  /** The same of its record, at once; undefined before it runs. For packages that look at every node. */
  readonly cpuOf: (record: RoutineRecord) => Cpu | undefined
  /** The last 100 slices of more than 50 milliseconds, oldest first. */
  readonly longSlices: Effect.Effect<ReadonlyArray<LongSlice>>
  /**
   * Calls a function with the routine whose code runs from now on, undefined being none, until the scope closes: a
   * profiler labels its samples with it. It runs in every slice: it must be fast, and must not throw.
   */
  readonly onSlice: (listener: (running: RoutineRecord | undefined) => void) => Effect.Effect<void, never, Scope.Scope>
  /** `orchestra.routine.cpu.time` and `orchestra.routine.slice.duration`, by template name. */
  readonly meters: ReadonlyArray<Meter>
}>()("@effect-orchestra/observability/Metering") {
  /**
   * Meters all that runs above it: the routines of an orchestrator, whoever forks them, and every fiber of a program
   * that has it in its context. It wraps the scheduler of the context in which it is built, and of every routine that
   * brings another; on a scheduler that is metered already, it is the meter that is there.
   *
   * @category layers
   * @since 0.1.0
   */
  static readonly layer: Layer.Layer<Metering> = Layer.effectContext(Effect.map(Effect.context<never>(), (context) => {
    const around = Context.get(context, Scheduler.Scheduler)
    const scheduler = around instanceof MeteredScheduler ? around : new MeteredScheduler(new Slices(), around)
    return Context.make(Metering, make(scheduler.slices)).pipe(
      Context.add(Scheduler.Scheduler, scheduler),
      Context.add(RunContext, over(scheduler))
    )
  }))
}

/** The meter below an orchestrator, where there is one. @internal */
export const meteringOf = ({ context }: Kernel): Metering["Service"] | undefined =>
  // Nothing says that the kernel's context holds it; it does where it is provided below the orchestrator.
  Context.getOrUndefined(context as Context.Context<Metering>, Metering)

const make = (slices: Slices): Metering["Service"] => ({
  // Every routine is made of a record; the interface hides what only the tree may touch.
  cpu: (routine) => Effect.sync(() => slices.cpuOf(routine as RoutineRecord) ?? nothing),
  cpuOf: (record) => slices.cpuOf(record),
  longSlices: Effect.sync(() => slices.longSlices()),
  onSlice: (listener) =>
    Effect.asVoid(Effect.acquireRelease(
      Effect.sync(() => slices.listen(listener)),
      (remove) => Effect.sync(remove)
    )),
  meters: [slices.cpu, slices.durations]
})

const nothing: Cpu = { cpuMillis: 0, longestSliceMillis: 0, slices: 0, share: 0 }

/** Puts the scheduler of this meter below a run whose own is another: around that, once for each. */
const over = (own: MeteredScheduler) => {
  const made = new WeakMap<Scheduler.Scheduler, MeteredScheduler>([[own.inner, own]])
  return (context: Context.Context<never>): Context.Context<never> => {
    const given = Context.get(context, Scheduler.Scheduler)
    if (given instanceof MeteredScheduler && given.slices === own.slices) return context
    let metered = made.get(given)
    if (metered === undefined) made.set(given, metered = new MeteredScheduler(own.slices, given))
    return Context.add(context, Scheduler.Scheduler, metered)
  }
}
