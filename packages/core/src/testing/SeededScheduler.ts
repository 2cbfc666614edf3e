/**
 * A scheduler that tries other orders: same seed, same order; another seed, another order.
 *
 * Effect's own scheduler runs what is ready first come, first served, so a test sees one interleaving of many. This
 * one picks at each step one of the ready tasks (of the most urgent priority), and makes fibers yield between two
 * operations now and then, wherever they may. What still holds under some hundred seeds hardly depends on luck.
 *
 * `TestOrchestra.run` runs a program under it in virtual time; to run one under it alone, provide it as the
 * `Scheduler`.
 *
 * **Example** (Three fibers in an order that the seed decides)
 *
 * ```ts import.meta.vitest
 * import { SeededScheduler } from "@effect-orchestra/core/testing"
 * import { Effect } from "effect"
 *
 * const order = (seed: number) => {
 *   const log: Array<string> = []
 *   const step = (name: string) => Effect.andThen(Effect.yieldNow, Effect.sync(() => void log.push(name)))
 *   const program = Effect.all([step("a"), step("b"), step("c")], { concurrency: "unbounded" })
 *   return Effect.runPromise(Effect.as(program, log), { scheduler: new SeededScheduler(seed) })
 * }
 *
 * const first = await order(1)
 * first // => await order(1)
 * const seen = new Set(await Promise.all([1, 2, 3, 4, 5, 6, 7, 8].map(async (seed) => (await order(seed)).join(""))))
 * const several = seen.size > 1 // => true
 * ```
 *
 * @since 0.1.0
 */
import type * as Fiber from "effect/Fiber"
import * as Scheduler from "effect/Scheduler"
import { SeededRandom } from "./SeededRandom.ts"

/**
 * How a seeded scheduler behaves.
 *
 * @category models
 * @since 0.1.0
 */
export interface SeededSchedulerOptions {
  /** How likely a fiber yields between two operations: 0 to 0.25. Default: 0, or between 1/64 and 1/4, as the seed decides. */
  readonly yieldChance?: number | undefined
  /** Whether somebody calls `step`; else it runs by itself, like Effect's own scheduler. Default false. */
  readonly manual?: boolean | undefined
}

type Task = () => void

const { shouldYield: ownShouldYield } = Scheduler.MixedScheduler.prototype

/** So many steps run before the process may do something else. */
const stepsPerTurn = 512

/**
 * The scheduler. One of them serves all fibers of a program. It extends Effect's, so that code which asks what that one
 * would do between two operations sees that this one has a rule of its own.
 *
 * @category services
 * @since 0.1.0
 */
export class SeededScheduler extends Scheduler.MixedScheduler {
  private readonly random: SeededRandom
  private readonly threshold: number
  private readonly host: Scheduler.SchedulerDispatcher | undefined
  private readonly dispatcher: Scheduler.SchedulerDispatcher
  /** The most urgent first. */
  private buckets: Array<{ readonly priority: number; readonly tasks: Array<Task> }> = []
  private armed = false
  private closed = false

  constructor(seed: number | string, options: SeededSchedulerOptions = {}) {
    super("sync")
    this.random = new SeededRandom(`scheduler ${seed}`)
    const chance = options.yieldChance ?? [0, 1 / 64, 1 / 32, 1 / 16, 1 / 8, 1 / 4][this.random.below(6)] ?? 0
    // To come back from a yield is an operation too: from 1/2 on a fiber would yield more often than it gets on.
    if (!(chance >= 0 && chance <= 0.25)) {
      throw new Error(`the yieldChance of a seeded scheduler is between 0 and 0.25, got: ${chance}`)
    }
    this.threshold = chance * 2 ** 32
    // Without yields of ours it is Effect's very function, which code may look at to know what it can rely on.
    if (chance === 0) this.shouldYield = ownShouldYield
    this.host = options.manual === true ? undefined : new Scheduler.MixedScheduler().makeDispatcher()
    this.dispatcher = {
      scheduleTask: (task, priority) => this.schedule(task, priority),
      flush: () => {
        while (this.step());
      }
    }
  }

  override makeDispatcher(): ReturnType<Scheduler.MixedScheduler["makeDispatcher"]> {
    // That type is the class of Effect's own, which has more than anybody may use.
    return this.dispatcher as ReturnType<Scheduler.MixedScheduler["makeDispatcher"]>
  }

  override shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    return this.random.nextBits() < this.threshold || ownShouldYield(fiber)
  }

  /** Runs one of the ready tasks; returns false when there is none. */
  step(): boolean {
    const task = this.pick()
    task?.()
    return task !== undefined
  }

  /** Forgets what is ready, and takes nothing more: nothing runs under it again. */
  close(): void {
    this.closed = true
    this.buckets = []
  }

  private schedule(task: Task, priority: number): void {
    if (this.closed) return
    let index = this.buckets.findIndex((bucket) => bucket.priority >= priority)
    if (index === -1) index = this.buckets.length
    const bucket = this.buckets[index]
    if (bucket?.priority === priority) bucket.tasks.push(task)
    else this.buckets.splice(index, 0, { priority, tasks: [task] })
    this.arm()
  }

  private pick(): Task | undefined {
    for (const { tasks } of this.buckets) {
      if (tasks.length === 0) continue
      const index = this.random.below(tasks.length)
      const task = tasks[index]
      const last = tasks.pop()
      if (index < tasks.length && last !== undefined) tasks[index] = last
      return task
    }
    return undefined
  }

  private arm(): void {
    if (this.armed || this.host === undefined) return
    this.armed = true
    this.host.scheduleTask(this.turn, 0)
  }

  private readonly turn = () => {
    this.armed = false
    for (let steps = 0; steps < stepsPerTurn; steps++) if (!this.step()) return
    this.arm()
  }
}
