/**
 * A program of its own, with `--expose-gc`: KIND COUNT WARMUP. After so many rounds with 1,000 of them, the same for
 * every count, it starts COUNT parked routines (or children, or raw fibers), stops them, and prints what that cost each, in
 * nanoseconds and bytes, and the longest time that the event loop stood still while they stopped, in milliseconds.
 */
import { Orchestrator, type Routine } from "@effect-orchestra/core"
import { DynamicSupervisor } from "@effect-orchestra/supervisor"
import { Effect, Exit, Scope } from "effect"
import { forget, longest, turns } from "./Turns.ts"

const [kind = "", count = "", warmUp = ""] = process.argv.slice(2)

interface Population {
  readonly fork: Effect.Effect<unknown, unknown, Orchestrator>
  readonly stop: Effect.Effect<unknown>
}

/** What can fail is dealt with once, and not each time: that would cost more than the fork. */
const repeat = (times: number, effect: Effect.Effect<unknown, unknown, Orchestrator>) =>
  Effect.gen(function*() {
    for (let i = 0; i < times; i++) yield* effect
  }).pipe(Effect.orDie)

const routines = (options?: Routine.RoutineOptions) =>
  Effect.gen(function*() {
    const orchestrator = yield* Orchestrator
    return { fork: Orchestrator.fork(Effect.never, options), stop: orchestrator.interruptAll() }
  })

const populations: { readonly [kind: string]: Effect.Effect<Population, never, Orchestrator> } = {
  routine: routines(),
  armed: routines({ idleTimeout: "1 hour" }),
  child: Effect.gen(function*() {
    const spec = DynamicSupervisor.make({ name: "children", child: () => Effect.never })
    const children = yield* DynamicSupervisor.start(spec)
    return { fork: DynamicSupervisor.startChild(children, undefined), stop: DynamicSupervisor.stop(children) }
  }).pipe(Effect.orDie, Scope.provide(Scope.makeUnsafe())),
  fiber: Effect.sync(() => {
    const scope = Scope.makeUnsafe()
    return {
      fork: Effect.forkIn(Effect.never, scope, { startImmediately: true }),
      stop: Scope.close(scope, Exit.void)
    }
  })
}

const nanos = () => Number(process.hrtime.bigint())

const used = () => {
  globalThis.gc?.()
  return process.memoryUsage().heapUsed
}

const population = Effect.suspend(() =>
  populations[kind] ?? Effect.die(new Error(`parked.ts knows ${Object.keys(populations)}, got: ${kind}`))
)

const time = (times: number) =>
  Effect.gen(function*() {
    const { fork, stop } = yield* population
    const start = nanos()
    yield* repeat(times, fork)
    const forked = nanos()
    const spans = yield* turns(stop)
    const stopped = nanos()
    return {
      fork: (forked - start) / times,
      stop: (stopped - forked) / times,
      total: (stopped - start) / times,
      spans
    }
  })

/** Apart from the times: a full collection throws away what V8 has learned about objects that are gone. */
const memory = (times: number) =>
  Effect.gen(function*() {
    const { fork, stop } = yield* population
    const before = used()
    yield* repeat(times, fork)
    const heap = used()
    const timers = process.getActiveResourcesInfo().filter((resource) => resource === "Timeout").length
    yield* stop
    return { bytes: (heap - before) / times, heap: heap / 1e6, timers }
  })

const program = Effect.gen(function*() {
  for (let i = 0; i < Number(warmUp); i++) yield* time(1000)
  forget()
  const { spans, ...times } = yield* time(Number(count))
  // The collections are told later.
  yield* Effect.sleep(50)
  return { ...times, ...longest(spans), ...yield* memory(Number(count)) }
})

console.log(JSON.stringify(await Effect.runPromise(Effect.provide(program, Orchestrator.layer))))
