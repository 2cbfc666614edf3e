/**
 * Profiles of a service that runs: what its CPU time goes to and for which routine, where its fibers stand, who waits at
 * which mailbox, what lies on its heap.
 *
 * All of them are in the format of pprof, gzipped, for `go tool pprof` and whatever else reads it. `Server` gives them
 * out below `/debug/pprof/`, to who may `profile`.
 *
 * By itself it uses the profiler of the engine. With the optional package `@datadog/pprof` installed, and with
 * `Metering`, each sample of the CPU profile has the routine that ran as its label `routine`; and there is a heap
 * profile.
 *
 * **Example** (Where the fibers stand)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Profiler } from "@effect-orchestra/observability"
 * import { Effect, Layer } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const refresh = Effect.never.pipe(Effect.withSpan("refresh"))
 *   yield* Orchestrator.fork(refresh, { name: "cache" })
 *   yield* Orchestrator.fork(refresh, { name: "cache" })
 *   const text = yield* Effect.flatMap(Profiler.Profiler, (profiler) => profiler.fiberText("grouped"))
 *   return text.split("\n").map((line) => line.split("\t").slice(0, 2).join(" "))
 * })
 *
 * const layer = Layer.provideMerge(Profiler.layer, Orchestrator.layer)
 * const [total, crowd, ...stack] = await Effect.runPromise(program.pipe(Effect.provide(layer)))
 * total // => "fiber profile: total 2"
 * crowd // => "2 @ cache [running]"
 * stack.slice(0, 3) // => ["# refresh", "# routine cache", "# orchestrator orchestra"]
 * ```
 *
 * @since 0.1.0
 */
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as BlockProfile from "./internal/BlockProfile.ts"
import * as CpuProfile from "./internal/CpuProfile.ts"
import * as FiberProfile from "./internal/FiberProfile.ts"
import { gzip } from "./internal/Gzip.ts"
import * as HeapProfile from "./internal/HeapProfile.ts"
import * as NativeProfiler from "./internal/NativeProfiler.ts"
import { meteringOf } from "./Metering.ts"

/**
 * A CPU profile is being recorded already: there is one profiler in a process.
 *
 * @category errors
 * @since 0.1.0
 */
export class ProfilerBusy extends Schema.TaggedError<ProfilerBusy>()("ProfilerBusy", {}) {
  override get message() {
    return "a CPU profile is being recorded: there is one at a time"
  }
}

/**
 * The profiler cannot be had: this Node is built or run without one, or somebody else in the process uses it.
 *
 * @category errors
 * @since 0.1.0
 */
export class ProfilerUnavailable extends Schema.TaggedError<ProfilerUnavailable>()("ProfilerUnavailable", {
  profile: Schema.Literals(["cpu", "heap"]),
  reason: Schema.String
}) {
  override get message() {
    return `no ${this.profile} profile: ${this.reason}`
  }
}

/**
 * This profile needs a package that is not installed, or not used.
 *
 * @category errors
 * @since 0.1.0
 */
export class PackageMissing extends Schema.TaggedError<PackageMissing>()("PackageMissing", {
  package: Schema.String
}) {
  override get message() {
    return `it needs the package ${this.package}: npm install ${this.package}`
  }
}

/**
 * What a profiler uses, and what it does before anybody asks.
 *
 * @category models
 * @since 0.1.0
 */
export interface ProfilerOptions {
  /** Whether to use `@datadog/pprof` where it is installed. Default: true. */
  readonly native?: boolean | undefined
  /** Whether to sample what lies on the heap from the start, with that package. Default: true. */
  readonly heap?: boolean | undefined
  /** Whether to count from the start who waits at which mailbox. Default: true. */
  readonly block?: boolean | undefined
}

/**
 * Makes profiles. Each is a file: `pprof`, gzipped, unless it says otherwise.
 *
 * @category services
 * @since 0.1.0
 */
export class Profiler extends Context.Service<Profiler, {
  /**
   * Records what the CPU does for so long, a look each 10 ms, and returns it: `samples` and `cpu` nanoseconds by
   * function. With the package it is time on the CPU, and each sample has the label `routine` if `Metering` is there;
   * else it is the time that passed while the process was not idle. Interrupted, it stops.
   *
   * Fails at once with `ProfilerBusy` while another one in this process records, and with `ProfilerUnavailable`.
   *
   * Starting and ending it stops the process for some milliseconds, a big one for some tens. A function that spends its
   * time in one long loop, and that the engine had compiled in the midst of that loop before, does not show: its time is
   * its callers'. Nor does one that the engine had made part of its caller.
   */
  readonly cpu: (duration: Duration.Input) => Effect.Effect<Uint8Array, ProfilerBusy | ProfilerUnavailable>
  /** The same by the engine's profiler, as the JSON that Chrome DevTools and editors open as `.cpuprofile`. */
  readonly cpuprofile: (duration: Duration.Input) => Effect.Effect<string, ProfilerBusy | ProfilerUnavailable>
  /**
   * Where the fibers of all routines stand now, by `fiber` count and `routine` count with the labels `state` and
   * `routine`. The stack is what a fiber waits for, if that is a mailbox; the spans and `Effect.fn`s it is in; its
   * routine, and who stands above. Fibers that Effect has detached (`Effect.forkDetach`) are not seen.
   */
  readonly fibers: Effect.Effect<Uint8Array>
  /** The same for reading: `"grouped"` by place, or `"full"`, each by itself with its path. At most 10,000 of them. */
  readonly fiberText: (detail: "grouped" | "full") => Effect.Effect<string>
  /**
   * How often and how long routines have waited at mailboxes, by operation, mailbox and routine. A wait counts when it
   * is over. Of more than 2,000 stacks the rest is `(others)`.
   */
  readonly block: Effect.Effect<Uint8Array>
  /**
   * What lies on the heap, by the function that allocated it since the profiler was made: a sample each 512 KiB.
   * Fails with `PackageMissing`, and with `ProfilerUnavailable` if the package does not work here.
   */
  readonly heap: Effect.Effect<Uint8Array, PackageMissing | ProfilerUnavailable>
}>()("@effect-orchestra/observability/Profiler") {}

/**
 * A profiler of the orchestrator, with the defaults.
 *
 * @category layers
 * @since 0.1.0
 */
export const layer: Layer.Layer<Profiler, never, Orchestrator> = Layer.suspend(() => layerWith())

/**
 * A profiler of the orchestrator. Give it to the layer of a `Server`, which else makes its own.
 *
 * @category layers
 * @since 0.1.0
 */
export const layerWith = (options: ProfilerOptions = {}): Layer.Layer<Profiler, never, Orchestrator> =>
  Layer.effect(Profiler, make(options))

/**
 * The profiler in the context; where there is none, one with these options.
 *
 * @category layers
 * @since 0.1.0
 */
export const shared = (options: ProfilerOptions = {}): Layer.Layer<Profiler, never, Orchestrator> =>
  Layer.unwrap(
    Effect.map(Effect.serviceOption(Profiler), (own) =>
      Option.isSome(own) ? Layer.succeed(Profiler, own.value) : layerWith(options))
  )

/** The profiler of the process is one, however many orchestrators there are. */
const one = Semaphore.makeUnsafe(1)

const make = Effect.fnUntraced(function*(
  { block = true, heap = true, native = true }: ProfilerOptions
): Effect.fn.Return<Profiler["Service"], never, Orchestrator | Scope.Scope> {
  const { kernel, name } = yield* Orchestrator
  const metering = meteringOf(kernel)
  // Loaded when it is needed first: that maps a library of some megabytes.
  const loading = yield* Effect.cached(native ? Effect.option(NativeProfiler.load) : Effect.succeedNone)
  const sampling = heap ? yield* HeapProfile.start(loading) : undefined
  const blocked = block ? yield* BlockProfile.make(kernel) : BlockProfile.none(kernel)

  const exclusively = <A, R>(effect: Effect.Effect<A, unknown, R>) =>
    one.withPermitsIfAvailable(1)(effect).pipe(
      Effect.mapError((error) => new ProfilerUnavailable({ profile: "cpu", reason: reasonOf(error) })),
      Effect.flatMap(Option.match({
        onNone: () => Effect.fail(new ProfilerBusy()),
        onSome: Effect.succeed
      }))
    )

  const record = Effect.fnUntraced(function*<A>(
    recording: Effect.Effect<CpuProfile.Recording<A>, unknown, Scope.Scope>,
    duration: Duration.Input
  ) {
    const { stop } = yield* recording
    yield* Effect.sleep(duration)
    return yield* stop
  }, Effect.scoped)

  const cpu = (duration: Duration.Input) =>
    Effect.flatMap(loading, (found) =>
      exclusively(
        found._tag === "None"
          ? Effect.flatMap(record(CpuProfile.inspector, duration), (cpu) => CpuProfile.fromInspector(cpu, name))
          : Effect.flatMap(
            record(CpuProfile.native(found.value, metering?.onSlice), duration),
            (cpu) => CpuProfile.fromNative(cpu, name)
          )
      )).pipe(Effect.flatMap((profile) => gzip(profile.bytes)))

  return Profiler.of({
    cpu,
    cpuprofile: (duration) =>
      Effect.map(exclusively(record(CpuProfile.inspector, duration)), (cpu) => JSON.stringify(cpu)),
    fibers: Effect.flatMap(FiberProfile.profile(kernel), (profile) => gzip(profile.bytes)),
    fiberText: (detail) => detail === "full" ? FiberProfile.full(kernel) : FiberProfile.grouped(kernel),
    block: Effect.flatMap(blocked.profile, (profile) => gzip(profile.bytes)),
    heap: Effect.gen(function*() {
      if ((yield* loading)._tag === "None" || sampling === undefined) {
        return yield* new PackageMissing({ package: NativeProfiler.name })
      }
      const profile = yield* Effect.mapError(
        sampling.profile(name, yield* Clock.currentTimeMillis),
        (error) => new ProfilerUnavailable({ profile: "heap", reason: reasonOf(error) })
      )
      return yield* gzip(profile.bytes)
    })
  })
})

const reasonOf = (error: unknown): string =>
  Predicate.hasProperty(error, "cause") && Predicate.isError(error.cause)
    ? error.cause.message
    : Predicate.isError(error)
    ? error.message
    : String(error)
