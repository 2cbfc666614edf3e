/**
 * An orchestrator for tests: under a `TestClock` that the test moves, or run to its end in virtual time.
 *
 * `layer` is for tests that move the clock step by step. `run` runs a whole program under a seeded scheduler: when all
 * fibers are blocked, time jumps to the next deadline; when there is none either, it is a deadlock, and the test is told
 * who waits.
 *
 * **Example** (A backoff of an hour, and a wait without an end)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { TestOrchestra } from "@effect-orchestra/core/testing"
 * import { Clock, Effect, Schedule } from "effect"
 *
 * let attempts = 0
 * const flaky = Effect.suspend(() => ++attempts < 3 ? Effect.fail("not yet") : Effect.succeed(attempts))
 * const program = Effect.gen(function*() {
 *   const routine = yield* Orchestrator.fork(Effect.retry(flaky, Schedule.spaced("1 hour")), { name: "flaky" })
 *   return [yield* Routine.join(routine), yield* Clock.currentTimeMillis]
 * })
 *
 * await Effect.runPromise(TestOrchestra.run(program)) // => [3, 7_200_000]
 *
 * const stuck = Effect.flatMap(Orchestrator.fork(Effect.never, { name: "waiter" }), Routine.join)
 * const deadlock = await Effect.runPromise(Effect.catchDefect(TestOrchestra.run(stuck), (defect) => Effect.succeed(String(defect))))
 * const named = deadlock.includes("/orchestra/waiter (running)") // => true
 * ```
 *
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Random from "effect/Random"
import { Scheduler } from "effect/Scheduler"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/testing/TestClock"
import { because, descendants, type Kernel, positive } from "../Kernel.ts"
import { Orchestrator, type OrchestratorOptions } from "../Orchestrator.ts"
import { assertNoLeaks, liveNodes } from "./Leak.ts"
import { SeededRandom } from "./SeededRandom.ts"
import { SeededScheduler, type SeededSchedulerOptions } from "./SeededScheduler.ts"
import { Deadlock, Livelock } from "./TestError.ts"
import { VirtualClock } from "./VirtualClock.ts"

/**
 * How a test orchestrator is made.
 *
 * @category models
 * @since 0.1.0
 */
export interface TestOrchestraOptions {
  /** What decides `Random`, and in `run` the order of what is ready. Default 0. */
  readonly seed?: number | string | undefined
  /** The options of the orchestrator. Fork sites are kept unless they say otherwise. */
  readonly orchestrator?: OrchestratorOptions | undefined
}

/**
 * An orchestrator on a `TestClock` of its own, with a metric registry of its own and a seeded `Random`.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWith = (options: TestOrchestraOptions): Layer.Layer<Orchestrator> =>
  Layer.provideMerge(
    Orchestrator.layerWith(orchestratorOptions(options)),
    Layer.mergeAll(
      TestClock.layer(),
      Layer.sync(Metric.MetricRegistry)(() => new Map()),
      Layer.sync(Random.Random)(() => randomOf(options))
    )
  )

/**
 * `layerWith` with the defaults.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Orchestrator> = Layer.suspend(() => layerWith({}))

/**
 * How a program is run.
 *
 * @category models
 * @since 0.1.0
 */
export interface RunOptions extends TestOrchestraOptions, Pick<SeededSchedulerOptions, "yieldChance"> {
  /** After so many steps the run is given up as a `Livelock`: a positive integer. Default 1,000,000. */
  readonly maxSteps?: number | undefined
  /** Whether what the program leaves in the tree is a `Leak`. Default true. */
  readonly assertNoLeaks?: boolean | undefined
}

/**
 * Runs a program, with an orchestrator and a scope of its own, to its end in virtual time, and returns or fails as it
 * does. Dies with a `Deadlock` when all are blocked and nobody sleeps, with a `Livelock` when there is no end to it, and
 * with a `Leak` when it succeeded but left something in the tree after its scope was closed.
 *
 * Nothing of it outlives the run. There is no place in it for anything that is not an effect: a promise, a timer or a
 * socket is not waited for, and waiting for one is a `Deadlock`.
 *
 * @category operations
 * @since 0.1.0
 */
export const run = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  options: RunOptions = {}
): Effect.Effect<A, E, Exclude<R, Orchestrator | Scope.Scope>> => {
  const maxSteps = positive("the maxSteps of a run", options.maxSteps ?? 1_000_000)
  return Effect.contextWith((outer: Context.Context<Exclude<R, Orchestrator | Scope.Scope>>) => {
    const scheduler = new SeededScheduler(options.seed ?? 0, { manual: true, yieldChance: options.yieldChance })
    const clock = new VirtualClock(scheduler)
    const context = outer.pipe(
      Context.add(Scheduler, scheduler),
      Context.add(Clock.Clock, clock),
      Context.add(Random.Random, randomOf(options)),
      Context.add(Metric.MetricRegistry, new Map())
    )
    let kernel: Kernel | undefined
    const program = Effect.scoped(Effect.gen(function*() {
      const built = yield* Layer.build(Orchestrator.layerWith(orchestratorOptions(options)))
      kernel = Context.get(built, Orchestrator).kernel
      // What is left of R after the orchestrator and the scope stands in the context that it is forked with.
      const scoped = Effect.scoped(effect) as Effect.Effect<A, E, Exclude<R, Orchestrator | Scope.Scope> | Orchestrator>
      const value = yield* Effect.provideContext(scoped, built)
      if (options.assertNoLeaks !== false) yield* Effect.provideContext(assertNoLeaks(), built)
      return value
    }))
    const fiber = Effect.runForkWith(context)(program)
    const driven = (steps: number) => drive(scheduler, clock, fiber, steps)
    const end = driven(maxSteps)
    let verdict: Deadlock | Livelock | undefined = undefined
    if (end !== "ended") {
      const nodes = kernel === undefined ? [] : liveNodes(descendants(kernel).map((node) => node.snapshot()))
      const where = { seed: String(options.seed ?? 0), atMillis: clock.currentTimeMillisUnsafe(), nodes }
      verdict = end === "deadlock" ? new Deadlock(where) : new Livelock({ ...where, steps: maxSteps })
      // Its finalizers may run; what waits even then is dropped.
      fiber.interruptUnsafe(undefined, because(end, undefined))
      driven(stepsToEnd)
    }
    // What was told in the end, such as a failure that nobody awaited, still reaches the log.
    for (let steps = 0; steps < stepsToEnd && scheduler.step(); steps++);
    scheduler.close()
    return verdict === undefined ? fiber.pollUnsafe() ?? Effect.never : Effect.die(verdict)
  })
}

/** How many steps a run that was given up has to end, and one that has ended for what it left ready. */
const stepsToEnd = 100_000

const drive = (
  scheduler: SeededScheduler,
  clock: VirtualClock,
  fiber: Fiber.Fiber<unknown, unknown>,
  maxSteps: number
): "ended" | "deadlock" | "livelock" => {
  for (let steps = 0; fiber.pollUnsafe() === undefined; steps++) {
    if (steps >= maxSteps) return "livelock"
    if (!scheduler.step() && !clock.advance()) return "deadlock"
  }
  return "ended"
}

const randomOf = ({ seed = 0 }: TestOrchestraOptions) => new SeededRandom(`random ${seed}`)

const orchestratorOptions = ({ orchestrator }: TestOrchestraOptions): OrchestratorOptions => ({
  forkSites: true,
  ...orchestrator
})
