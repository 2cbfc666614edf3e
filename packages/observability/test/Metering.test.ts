import { Orchestrator, Routine } from "@effect-orchestra/core"
import type { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import { type Meter, Metering, Telemetry } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Scheduler } from "effect"

const layer = Layer.provideMerge(Orchestrator.layer, Metering.layer)

/**
 * The time that a machine would take, moved by `burn` alone: the meter reads `performance.now` and no clock of the
 * program. With it a test says what it means to the millisecond, however busy the machine is.
 */
let machine = 0
const burn = (millis: number) => Effect.sync(() => void (machine += millis))
const timedBy = (now: () => number) =>
  Layer.effectDiscard(Effect.acquireRelease(
    Effect.sync(() => {
      const real = performance.now
      performance.now = now
      return real
    }),
    (real) => Effect.sync(() => void (performance.now = real))
  ))
const onMachine = timedBy(() => machine)

/**
 * The time that the thread really had a core, where Node tells it (24): a machine that is busy with other things stops a
 * thread anywhere, in what is burned and between, and the one is no measure of the other.
 */
const onThread = process.threadCpuUsage === undefined ? Layer.empty : timedBy(() => {
  const { system, user } = process.threadCpuUsage()
  return (system + user) / 1000
})

const metered = Layer.provideMerge(layer, onMachine)

const seriesOf = (meters: ReadonlyArray<Meter.Meter>, metric: string, name: string) =>
  meters.find((meter) => meter.metric.name === metric)?.series.get(JSON.stringify([name]))

/** An effect that waits for the callback of whoever calls the next of these. */
const callbacks = () => {
  const resumes: Array<() => void> = []
  const waits = Effect.callback<void>((resume) => void resumes.push(() => resume(Effect.void)))
  return { resumes, waits }
}

/** Counts what is asked of it. */
class Counting implements Scheduler.Scheduler {
  readonly executionMode = "async"
  private readonly inner = new Scheduler.MixedScheduler()
  asked = 0
  tasks = 0
  shouldYield(fiber: Fiber.Fiber<unknown, unknown>) {
    this.asked++
    return this.inner.shouldYield(fiber)
  }
  makeDispatcher(): Scheduler.SchedulerDispatcher {
    const inner = this.inner.makeDispatcher()
    return {
      scheduleTask: (task, priority) => {
        this.tasks++
        inner.scheduleTask(task, priority)
      },
      flush: () => inner.flush()
    }
  }
}

/** How often a busy fiber yields. */
const yieldsOf = (limit: number, metered: boolean) =>
  Effect.gen(function*() {
    const counting = new Counting()
    const own = Layer.succeed(Scheduler.Scheduler, counting)
    const busy = Effect.gen(function*() {
      const before = counting.tasks
      for (let i = 0; i < 5000; i++) yield* Effect.sync(() => i)
      return counting.tasks - before
    }).pipe(Effect.provideService(Scheduler.MaxOpsBeforeYield, limit))
    return yield* Effect.provide(busy, metered ? Layer.provideMerge(Metering.layer, own) : own)
  })

describe("Metering", () => {
  describe("cpu", () => {
    // Live: what is burned is real. Again if the engine itself, collecting or compiling, took more than 5 % between burns.
    it.live("is what each routine really used, however it ran", () =>
      Effect.gen(function*() {
        const metering = yield* Metering
        /** What was burned, by name, measured around each burn. */
        const spent = new Map<string, number>()
        const burn = (name: string, millis: number) =>
          Effect.sync(() => {
            const start = performance.now()
            while (performance.now() - start < millis);
            spent.set(name, (spent.get(name) ?? 0) + performance.now() - start)
          })
        const parts: { readonly [name: string]: Effect.Effect<unknown, unknown, Orchestrator> } = {
          // Some 80 ms each, in slices of different lengths that fall between those of the others.
          loop: burn("loop", 80),
          yields: Effect.repeat(Effect.andThen(burn("yields", 8), Effect.yieldNow), { times: 9 }),
          operations: Effect.repeat(burn("operations", 8), { times: 9 }),
          sleeps: Effect.repeat(Effect.andThen(Effect.sleep(1), burn("sleeps", 8)), { times: 9 }),
          promises: Effect.repeat(Effect.andThen(Effect.promise(() => Promise.resolve()), burn("promises", 8)), {
            times: 9
          }),
          callbacks: Effect.repeat(
            Effect.andThen(
              Effect.callback<void>((resume) => void setImmediate(() => resume(Effect.void))),
              burn("callbacks", 8)
            ),
            { times: 9 }
          ),
          children: Effect.repeat(
            Effect.gen(function*() {
              const own = burn("children", 5)
              const child = Effect.andThen(own, Effect.andThen(Effect.yieldNow, own))
              const fibers = [
                yield* Effect.forkChild(child, { startImmediately: true }),
                yield* Effect.forkChild(child)
              ]
              yield* own
              yield* Fiber.awaitAll(fibers)
            }),
            { times: 3 }
          ),
          nested: Effect.repeat(
            Effect.gen(function*() {
              yield* burn("nested", 6)
              // Runs at once, within this slice.
              const inner = yield* Orchestrator.fork(
                Effect.andThen(burn("inner", 12), Effect.andThen(Effect.yieldNow, burn("inner", 6))),
                { name: "inner" }
              )
              yield* burn("nested", 6)
              const context = yield* Effect.context()
              yield* Effect.sync(() => Effect.runSyncWith(context)(burn("nested", 6)))
              yield* Routine.join(inner)
            }),
            { times: 3 }
          ),
          finalizers: Effect.scoped(Effect.addFinalizer(() => burn("finalizers", 40))).pipe(
            Effect.andThen(Effect.addFinalizer(() => Effect.andThen(burn("finalizers", 40), Effect.yieldNow))),
            Effect.andThen(Effect.yieldNow)
          ) as Effect.Effect<void>
        }
        const routines = new Map<string, Routine.Routine<unknown, unknown>>()
        for (const [name, effect] of Object.entries(parts)) {
          routines.set(name, yield* Orchestrator.fork(Effect.andThen(Effect.yieldNow, effect), { name }))
        }
        // What belongs to no routine is charged to none.
        yield* burn("nobody", 50)
        for (const routine of routines.values()) yield* Routine.join(routine)
        const measured = (name: string) =>
          (seriesOf(metering.meters, "orchestra.routine.cpu.time", name)?.value ?? 0) * 1000
        for (const [name, millis] of spent) {
          if (name === "nobody") continue
          assert.closeTo(measured(name) / millis, 1, 0.05, `${name}: ${measured(name)} ms of ${millis}`)
          const slices = seriesOf(metering.meters, "orchestra.routine.slice.duration", name)
          assert.closeTo(slices?.value ?? 0, measured(name) / 1000, 1e-6)
          const routine = routines.get(name)
          if (routine === undefined) continue
          const cpu = yield* metering.cpu(routine)
          assert.closeTo(cpu.cpuMillis, measured(name), 0.001)
          assert.strictEqual(slices?.buckets.reduce((sum, count) => sum + count), cpu.slices)
        }
        assert.strictEqual(spent.size, Object.keys(parts).length + 2)
      }).pipe(Effect.provide(Layer.provideMerge(layer, onThread))), { retry: 3, timeout: 30_000 })

    it.effect("takes the time of a fiber that runs within a slice out of it", () =>
      Effect.gen(function*() {
        const metering = yield* Metering
        const outer = yield* Orchestrator.fork(
          Effect.gen(function*() {
            yield* burn(6)
            const inner = yield* Orchestrator.fork(Effect.andThen(burn(20), Effect.never))
            yield* burn(6)
            return inner
          })
        )
        const inner = yield* Routine.join(outer)
        assert.strictEqual((yield* metering.cpu(inner)).cpuMillis, 20)
        const { cpuMillis, longestSliceMillis, slices } = yield* metering.cpu(outer)
        assert.strictEqual(cpuMillis, 12)
        // It went on: that is one slice still.
        assert.strictEqual(longestSliceMillis, cpuMillis)
        assert.strictEqual(slices, 1)
      }).pipe(Effect.provide(metered)))

    it.effect("counts the slice that runs", () =>
      Effect.gen(function*() {
        const metering = yield* Metering
        const routine = yield* Orchestrator.fork(Effect.gen(function*() {
          yield* Effect.yieldNow
          yield* burn(10)
          const self = yield* Routine.current
          assert(self._tag === "Some")
          return yield* metering.cpu(self.value)
        }))
        const seen = yield* Routine.join(routine)
        assert.strictEqual(seen.cpuMillis, 10)
        assert.strictEqual(seen.longestSliceMillis, 10)
      }).pipe(Effect.provide(metered)))

    it.effect("knows nothing of time in which a routine waits, and tells its share of the last 5 to 10 seconds", () =>
      Effect.gen(function*() {
        const metering = yield* Metering
        const wake = yield* Deferred.make<void>()
        const routine = yield* Orchestrator.fork(
          Effect.gen(function*() {
            yield* burn(100)
            yield* Deferred.await(wake)
            yield* burn(3000)
            return yield* Effect.never
          })
        )
        const share = Effect.map(metering.cpu(routine), (cpu) => Number(cpu.share.toFixed(2)))
        machine += 100
        assert.strictEqual((yield* metering.cpu(routine)).cpuMillis, 100)
        assert.strictEqual(yield* share, 0.5)
        machine += 1800
        yield* Deferred.succeed(wake, undefined)
        yield* Effect.yieldNow
        assert.strictEqual((yield* metering.cpu(routine)).cpuMillis, 3100)
        assert.strictEqual(yield* share, 0.62)
        // What a window has seen fades while the next one lasts.
        machine += 7500
        assert.strictEqual(yield* share, 0.3)
        machine += 2500
        assert.strictEqual(yield* share, 0)
        assert.strictEqual((yield* metering.cpu(routine)).cpuMillis, 3100)
        assert.deepStrictEqual(metering.cpuOf(routine as unknown as RoutineRecord), yield* metering.cpu(routine))
      }).pipe(Effect.provide(metered)))

    it.effect("is zero of what it does not meter", () =>
      Effect.gen(function*() {
        const metering = yield* Layer.build(Metering.layer)
        const routine = yield* Orchestrator.fork(burn(5))
        assert.deepStrictEqual(yield* Context.get(metering, Metering).cpu(routine), {
          cpuMillis: 0,
          longestSliceMillis: 0,
          slices: 0,
          share: 0
        })
      }).pipe(Effect.scoped, Effect.provide(Layer.merge(Layer.fresh(Orchestrator.layer), onMachine))))
  })

  describe("schedulers", () => {
    it.effect("wraps the one of the program, which is asked as before", () =>
      Effect.gen(function*() {
        const counting = new Counting()
        const own = Layer.succeed(Scheduler.Scheduler, counting)
        yield* Effect.gen(function*() {
          const metering = yield* Metering
          const routine = yield* Orchestrator.fork(
            Effect.repeat(Effect.andThen(burn(1), Effect.yieldNow), { times: 9 })
          )
          yield* Routine.join(routine)
          const { cpuMillis, slices } = yield* metering.cpu(routine)
          assert.strictEqual(cpuMillis, 10)
          assert.strictEqual(slices, 11)
        }).pipe(Effect.provide(Layer.provide(metered, own)))
        assert.isAtLeast(counting.tasks, 10)
        assert.isAtLeast(counting.asked, 30)
      }))

    it.effect("lets a fiber yield as often as it would without, whatever its limit", () =>
      Effect.gen(function*() {
        for (const limit of [64, 2048]) {
          const plain = yield* yieldsOf(limit, false)
          assert.isAbove(plain, 0)
          // One more or less, by where the count stood when it began.
          assert.closeTo(yield* yieldsOf(limit, true), plain, 1)
        }
      }))

    it.effect("meters the routines of a program that knows nothing of it, on the scheduler that they bring", () =>
      Effect.gen(function*() {
        const counting = new Counting()
        const forked = Effect.gen(function*() {
          const routine = yield* Orchestrator.fork(Effect.andThen(Effect.yieldNow, burn(5)))
          yield* Routine.join(routine)
          return routine
        })
        const metering = yield* Layer.build(Metering.layer)
        // Only the orchestrator stands above it.
        const below = Layer.build(Layer.provide(Orchestrator.layer, Layer.succeedContext(metering)))
        const orchestrator = yield* below
        const plain = yield* Effect.provideContext(forked, orchestrator)
        const own = yield* forked.pipe(
          Effect.provideContext(Context.add(orchestrator, Scheduler.Scheduler, counting))
        )
        for (const routine of [plain, own]) {
          assert.strictEqual((yield* Context.get(metering, Metering).cpu(routine)).cpuMillis, 5)
        }
        assert.isAtLeast(counting.tasks, 1)
      }).pipe(Effect.scoped, Effect.provide(onMachine)))

    it.effect("is one meter on a scheduler that is metered already", () =>
      Effect.gen(function*() {
        const once = yield* Effect.context<Metering>()
        const twice = yield* Layer.build(Layer.fresh(Metering.layer))
        assert.strictEqual(Context.get(twice, Scheduler.Scheduler), Context.get(once, Scheduler.Scheduler))
        const routine = yield* Effect.provideContext(Orchestrator.fork(burn(5)), twice)
        assert.strictEqual((yield* Context.get(twice, Metering).cpu(routine)).cpuMillis, 5)
        assert.deepStrictEqual(
          yield* Context.get(twice, Metering).cpu(routine),
          yield* Context.get(once, Metering).cpu(routine)
        )
      }).pipe(Effect.scoped, Effect.provide(metered)))

    it.effect("ends the slices of a task that throws", () =>
      Effect.gen(function*() {
        const metering = yield* Metering
        const dispatcher = (yield* Scheduler.Scheduler).makeDispatcher()
        const { resumes, waits } = callbacks()
        const routine = yield* Orchestrator.fork(Effect.andThen(waits, Effect.andThen(burn(2), Effect.never)))
        dispatcher.scheduleTask(() => {
          resumes[0]?.()
          throw new Error("not ours")
        }, 0)
        yield* Effect.sync(() => {
          assert.throws(() => dispatcher.flush(), "not ours")
          machine += 10
        })
        assert.strictEqual((yield* metering.cpu(routine)).cpuMillis, 2)
      }).pipe(Effect.provide(metered)))

    it.effect("charges nobody for the time between a callback that resumed a routine and the next", () =>
      Effect.gen(function*() {
        const metering = yield* Metering
        const { resumes, waits } = callbacks()
        const routine = yield* Orchestrator.fork(Effect.gen(function*() {
          for (const millis of [2, 3, 1]) {
            yield* waits
            yield* burn(millis)
          }
        }))
        yield* Effect.promise(async () => {
          for (let turn = 0; turn < 3; turn++) {
            await new Promise((resolve) => setImmediate(resolve))
            machine += 100
            resumes[turn]?.()
          }
        })
        const { cpuMillis, longestSliceMillis, slices } = yield* metering.cpu(routine)
        assert.deepStrictEqual([cpuMillis, longestSliceMillis, slices], [6, 3, 4])
      }).pipe(Effect.provide(metered)))

    it("reads the field of a fiber that says whether it runs, which Effect does not promise", async () => {
      const states: Array<unknown> = []
      const fiber = Effect.runFork(Effect.withFiber((self) => {
        states.push((self as unknown as { readonly _running: unknown })._running)
        return Effect.yieldNow
      }))
      states.push((fiber as unknown as { readonly _running: unknown })._running)
      await Effect.runPromise(Fiber.join(fiber))
      assert.deepStrictEqual(states, [true, false])
    })
  })

  describe("longSlices", () => {
    it.effect("says who held the event loop, when and for how long", () =>
      Effect.gen(function*() {
        const metering = yield* Metering
        const before = Math.round(performance.timeOrigin + machine)
        const pdf = yield* Orchestrator.fork(Effect.andThen(burn(40), burn(30)), { name: "pdf" })
        yield* Orchestrator.fork(burn(40), { name: "quick" })
        yield* Effect.yieldNow
        yield* burn(60)
        yield* Effect.yieldNow
        const [first, second, ...rest] = yield* metering.longSlices
        assert.deepStrictEqual(first?.routine, { id: pdf.id, name: "pdf", path: "/orchestra/pdf" })
        assert.strictEqual(first?.durationMillis, 70)
        assert.strictEqual(first?.at, before)
        assert.strictEqual(second?.routine, undefined)
        assert.deepStrictEqual(rest, [])
      }).pipe(Effect.provide(metered)))

    it.effect("keeps the last hundred", () =>
      Effect.gen(function*() {
        const metering = yield* Metering
        for (let i = 0; i < 120; i++) yield* Orchestrator.fork(burn(60), { name: `slow-${i}` })
        yield* Effect.yieldNow
        const names = (yield* metering.longSlices).map(({ routine }) => routine?.name)
        assert.deepStrictEqual(names, Array.from({ length: 100 }, (_, i) => `slow-${i + 20}`))
      }).pipe(Effect.provide(metered)))
  })

  describe("onSlice", () => {
    it.effect("says whose code runs from now on, until the scope closes", () =>
      Effect.gen(function*() {
        const metering = yield* Metering
        const heard: Array<string | undefined> = []
        const also: Array<string | undefined> = []
        const running = Effect.gen(function*() {
          yield* metering.onSlice((record) => void heard.push(record?.name))
          yield* metering.onSlice((record) => void also.push(record?.name))
          const outer = Effect.gen(function*() {
            yield* Orchestrator.fork(Effect.andThen(Effect.void, Effect.never), { name: "inner" })
            yield* Effect.void
            yield* Effect.yieldNow
          })
          yield* Routine.join(yield* Orchestrator.fork(outer, { name: "outer" }))
        })
        yield* Effect.scoped(running)
        assert.deepStrictEqual(also, heard)
        // The program itself is nobody, and goes on between.
        const changes = heard.filter((name, index) => index === 0 || name !== heard[index - 1])
        assert.deepStrictEqual(changes.filter((name) => name !== undefined), ["outer", "inner", "outer", "outer"])
        assert.isTrue(changes.includes(undefined))
        const { length } = heard
        yield* Routine.join(yield* Orchestrator.fork(Effect.yieldNow))
        assert.strictEqual(heard.length, length)
      }).pipe(Effect.provide(metered)))
  })

  describe("meters", () => {
    it.effect("are bounded, and keep what a routine used when it is gone", () =>
      Effect.gen(function*() {
        const metering = yield* Metering
        for (let i = 0; i < 300; i++) yield* Routine.join(yield* Orchestrator.fork(Effect.yieldNow, { name: `n-${i}` }))
        yield* Effect.yieldNow
        for (const { series } of metering.meters) assert.strictEqual(series.size, 201)
        const [, durations] = metering.meters
        const counted = Array.from(durations?.series.values() ?? [], ({ buckets }) => buckets.reduce((a, b) => a + b))
        assert.strictEqual(counted.reduce((a, b) => a + b), 600)
        assert.strictEqual(durations?.series.get("overflow")?.buckets.reduce((a, b) => a + b), 200)
      }).pipe(Effect.provide(metered)))

    it.effect("are collected with all others, where there is a meter below the orchestrator", () =>
      Effect.gen(function*() {
        const names = Effect.gen(function*() {
          yield* Routine.join(yield* Orchestrator.fork(burn(3), { name: "pdf" }))
          const meters = yield* Effect.flatMap(Telemetry, ({ collect }) => collect)
          return meters.flatMap(({ metric, series }) =>
            series.size > 0 && /cpu\.time|slice/.test(metric.name) ? [`${metric.name} ${series.size}`] : []
          )
        })
        const above = Layer.provideMerge(Telemetry.layer, Orchestrator.layer)
        assert.deepStrictEqual(yield* Effect.provide(names, Layer.fresh(above)), ["process.cpu.time 2"])
        assert.deepStrictEqual(yield* Effect.provide(names, Layer.provide(Layer.fresh(above), Metering.layer)), [
          "orchestra.routine.cpu.time 1",
          "orchestra.routine.slice.duration 1",
          "process.cpu.time 2"
        ])
      }))
  })
})
