/**
 * Seeded faults at named points of a program.
 *
 * A program marks the places where something may go wrong with `Chaos.point`, and asks `Chaos.drops` where it may lose
 * a message. Both do nothing until a test provides `Chaos.layer`: then the seed decides where the routine is killed,
 * held up or failed, and `Chaos.log` tells what was done.
 *
 * **Example** (A worker that survives being killed one time in three)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { Chaos, TestOrchestra } from "@effect-orchestra/core/testing"
 * import { Effect, Exit } from "effect"
 *
 * const work = Effect.as(Chaos.point("before-write"), "written")
 * const program = Effect.gen(function*() {
 *   const exits: Array<string> = []
 *   for (let i = 0; i < 30; i++) {
 *     const exit = yield* Effect.flatMap(Orchestrator.fork(work), Routine.await)
 *     exits.push(Exit.isSuccess(exit) ? exit.value : "killed")
 *   }
 *   const killed = exits.filter((exit) => exit === "killed").length
 *   return { killed, counts: yield* Chaos.counts }
 * })
 *
 * const chaotic = program.pipe(Effect.provide(Chaos.layer({ seed: 1, kill: 1 / 3 })))
 * const { counts, killed } = await Effect.runPromise(TestOrchestra.run(chaotic))
 * counts // => { "kill before-write": killed }
 * const some = killed > 3 && killed < 20 // => true
 * ```
 *
 * @since 0.1.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { because, path } from "../Kernel.ts"
import { Orchestrator } from "../Orchestrator.ts"
import { Current, RoutineRecord } from "../RoutineRecord.ts"
import { SeededRandom } from "./SeededRandom.ts"
import { ChaosFault } from "./TestError.ts"

/**
 * What goes wrong, and how often: each number is a probability from 0 (the default) to 1, drawn at every point.
 *
 * @category models
 * @since 0.1.0
 */
export interface ChaosOptions {
  /** What decides. Default 0. */
  readonly seed?: number | string | undefined
  /** The running routine is interrupted as by a stranger; outside a routine, the fiber. */
  readonly kill?: number | undefined
  /** The fiber sleeps for up to `max`. */
  readonly delay?: readonly [chance: number, max: Duration.Input] | undefined
  /** The fiber dies with a `ChaosFault`. */
  readonly fail?: number | undefined
  /** The same, at points that a run passes before it is ready. */
  readonly failStart?: number | undefined
  /** `Chaos.drops` says yes. */
  readonly drop?: number | undefined
}

/**
 * One fault: what was done, at which point, to the routine at which path (null: to no routine), and when (wall clock).
 *
 * @category models
 * @since 0.1.0
 */
export interface Injection {
  readonly kind: "kill" | "delay" | "fail" | "drop"
  readonly point: string
  readonly path: string | null
  readonly at: number
}

/**
 * Marks a place where something may go wrong. Without `Chaos.layer` it does nothing.
 *
 * @category operations
 * @since 0.1.0
 */
export const point = (name: string): Effect.Effect<void> =>
  Effect.withFiber((fiber) => fiber.getRef(Active)?.strike(name, fiber) ?? Effect.void)

/**
 * Whether the message at hand is to be lost. Without `Chaos.layer` never.
 *
 * @category operations
 * @since 0.1.0
 */
export const drops = (name: string): Effect.Effect<boolean> =>
  Effect.withFiber((fiber) => Effect.succeed(fiber.getRef(Active)?.drops(name, fiber) ?? false))

/**
 * Lets things go wrong in the effects that it is provided to, and in all they fork.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer = (options: ChaosOptions): Layer.Layer<never> => Layer.sync(Active)(() => new Injector(options))

/**
 * What was done so far.
 *
 * @category getters
 * @since 0.1.0
 */
export const log: Effect.Effect<ReadonlyArray<Injection>> = Effect.withFiber((fiber) =>
  Effect.sync(() => fiber.getRef(Active)?.injections.slice() ?? [])
)

/**
 * How often what was done so far, by `"kind point"`: a test that nothing happened to has tested nothing.
 *
 * @category getters
 * @since 0.1.0
 */
export const counts: Effect.Effect<Readonly<Record<string, number>>> = Effect.map(log, (injections) => {
  const counts: Record<string, number> = {}
  for (const { kind, point } of injections) counts[`${kind} ${point}`] = (counts[`${kind} ${point}`] ?? 0) + 1
  return counts
})

/**
 * How the monkey behaves.
 *
 * @category models
 * @since 0.1.0
 */
export interface MonkeyOptions {
  /** How long it waits between two kills. */
  readonly every: Duration.Input
  /** What decides whom it kills. Default 0. */
  readonly seed?: number | string | undefined
  /** Whom it may kill, by path. Default: everyone but itself. */
  readonly only?: ((path: string) => boolean) | undefined
}

/**
 * Interrupts a routine of the orchestrator, picked at random, again and again. Never ends: fork it. What it did is in
 * `log`, at the point `"monkey"`, if there is a `Chaos.layer`.
 *
 * @category operations
 * @since 0.1.0
 */
export const monkey = Effect.fnUntraced(function*({ every, only = () => true, seed = 0 }: MonkeyOptions) {
  const { kernel, list } = yield* Orchestrator
  const self = yield* Current
  const injector = yield* Active
  const random = new SeededRandom(`monkey ${seed}`)
  while (true) {
    yield* Effect.sleep(every)
    const alive = (yield* list).filter(({ path }) => only(path)).map(({ id }) => kernel.node(id))
      .filter((node) => node instanceof RoutineRecord && node !== self && node.fiber !== undefined)
    const prey = alive[random.below(Math.max(1, alive.length))]
    if (!(prey instanceof RoutineRecord)) continue
    injector?.add("kill", "monkey", prey)
    prey.interruptRun(because("chaos", self))
  }
})

class Injector {
  private readonly options: ChaosOptions
  private readonly random: SeededRandom
  private readonly longest: number
  readonly injections: Array<Injection> = []

  constructor(options: ChaosOptions) {
    const { delay, drop, fail, failStart, kill } = options
    for (const [name, chance = 0] of Object.entries({ kill, delay: delay?.[0], fail, failStart, drop })) {
      if (!(chance >= 0 && chance <= 1)) throw new Error(`chaos: ${name} is a probability from 0 to 1, got: ${chance}`)
    }
    this.options = options
    this.longest = delay === undefined ? 0 : Duration.toMillis(delay[1])
    this.random = new SeededRandom(`chaos ${options.seed ?? 0}`)
  }

  strike(point: string, fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<void> {
    const { delay, fail = 0, failStart = 0, kill = 0 } = this.options
    const record = fiber.getRef(Current)
    if (this.random.chance(kill)) {
      this.add("kill", point, record)
      const by = because("chaos", undefined)
      if (record === undefined) fiber.interruptUnsafe(undefined, by)
      else record.interruptRun(by)
      return Effect.yieldNow
    }
    const starting = record !== undefined && !record.isReady
    if (this.random.chance(fail) || (starting && this.random.chance(failStart))) {
      this.add("fail", point, record)
      return Effect.die(new ChaosFault({ point }))
    }
    if (delay === undefined || !this.random.chance(delay[0])) return Effect.void
    this.add("delay", point, record)
    return Effect.sleep(this.random.nextDoubleUnsafe() * this.longest)
  }

  drops(point: string, fiber: Fiber.Fiber<unknown, unknown>): boolean {
    const drop = this.random.chance(this.options.drop ?? 0)
    if (drop) this.add("drop", point, fiber.getRef(Current))
    return drop
  }

  add(kind: Injection["kind"], point: string, record: RoutineRecord | undefined): void {
    const routine = record === undefined ? null : path(record)
    this.injections.push({ kind, point, path: routine, at: record?.kernel.writer.wall() ?? 0 })
  }
}

/** Who lets things go wrong. */
const Active = Context.Reference<Injector | undefined>("@effect-orchestra/core/testing/Chaos", {
  defaultValue: () => undefined
})
