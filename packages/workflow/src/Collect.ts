/**
 * Asks many sources at once and keeps what answers in time: the report lists every answer, and everything that is missing
 * with its reason.
 *
 * `Collect.run` never fails. Each collector is a routine of one group, in slots of a bounded number; one that fails, dies,
 * takes too long or is cut off by the deadline or a signal is `missing` and says why, one that is not available here is
 * `skipped` and says why. Everything is in the order in which the collectors were given, whatever ended first. Nothing
 * outlives the report but what ignores its interruption: that is named `stuck` in it, and stays in the tree as abandoned.
 *
 * **Example** (Two answers, and the reason why there is no third)
 *
 * ```ts import.meta.vitest
 * import { Collect } from "@effect-orchestra/workflow"
 * import { Effect } from "effect"
 *
 * const report = await Effect.runPromise(Collect.run([
 *   Collect.make("load", { category: "cpu", collect: Effect.succeed(0.7) }),
 *   Collect.make("disks", { category: "disk", collect: Effect.never }),
 *   Collect.make("cores", { category: "cpu", collect: Effect.delay(Effect.succeed(4), 5) })
 * ], { deadline: "50 millis" }))
 *
 * report.results["cpu"]?.map(({ name, value }) => [name, value]) // => [["load", 0.7], ["cores", 4]]
 * report.missing.map((missing) => Collect.reason(missing)) // => ["cut off by the deadline"]
 * Collect.exitCode(report) // => 3
 * ```
 *
 * @since 0.1.0
 */
import * as Group from "@effect-orchestra/core/Group"
import * as Joiner from "@effect-orchestra/core/Joiner"
import { millisOf } from "@effect-orchestra/core/Kernel"
import * as Routine from "@effect-orchestra/core/Routine"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { UnknownCollector, UnknownProfile } from "./WorkflowError.ts"

const TypeId = "~effect-orchestra/workflow/Collect"

/**
 * Whether a collector can work here: its tier, which is 0 when it cannot, for the reason.
 *
 * @category models
 * @since 0.1.0
 */
export interface Availability {
  readonly tier: number
  readonly reason?: string | undefined
}

/**
 * What there is to know of a collector before it is run.
 *
 * @category models
 * @since 0.1.0
 */
export interface Any {
  readonly [TypeId]: typeof TypeId
  readonly name: string
  readonly category: string
  readonly phase: number
  readonly timeout: Duration.Duration | undefined
}

/**
 * A source to ask. What it acquires lives until it has ended.
 *
 * @category models
 * @since 0.1.0
 */
export interface Collector<out A, out R = never> extends Any {
  readonly available: Effect.Effect<Availability, unknown, R>
  readonly collect: Effect.Effect<A, unknown, R>
}

/**
 * How a collector works.
 *
 * @category models
 * @since 0.1.0
 */
export interface CollectorOptions<A, E, R, EA = never, RA = never> {
  /** Where its result stands in the report. */
  readonly category: string
  readonly collect: Effect.Effect<A, E, R>
  /** Asked first, within its time. Default: tier 1. */
  readonly available?: Effect.Effect<Availability, EA, RA> | undefined
  /** How long it may take, from when it has its slot. Default: the `timeout` of the run. */
  readonly timeout?: Duration.Input | undefined
  /** The collectors of a phase start when all those of lower phases have ended. Default 0. */
  readonly phase?: number | undefined
}

/**
 * Makes a collector. Its name is that of its routine, and unique in a run.
 *
 * @category constructors
 * @since 0.1.0
 */
export const make = <A, E, R, EA = never, RA = never>(
  name: string,
  options: CollectorOptions<A, E, R, EA, RA>
): Collector<A, R | RA> => ({
  [TypeId]: TypeId,
  name,
  category: options.category,
  phase: phaseOf(name, options.phase),
  timeout: timeOf(`the timeout of collector "${name}"`, options.timeout),
  available: options.available ?? everywhere,
  collect: options.collect
})

const everywhere = Effect.succeed<Availability>({ tier: 1 })

const phaseOf = (name: string, phase = 0): number => {
  if (Number.isNaN(phase)) throw new Error(`the phase of collector "${name}" is a number, got: ${phase}`)
  return phase
}

const timeOf = (what: string, input: Duration.Input | undefined): Duration.Duration | undefined =>
  input === undefined ? undefined : Duration.millis(millisOf(what, input))

/**
 * Tests whether a value is a `Collector`.
 *
 * @category guards
 * @since 0.1.0
 */
export const isCollector = (u: unknown): u is Any => Predicate.hasProperty(u, TypeId)

/** The value of a collector. @since 0.1.0 */
export type Value<C> = C extends Collector<infer A, infer _R> ? A : never

/** What a collector requires beside its scope. @since 0.1.0 */
export type Requirements<C> = C extends Collector<infer _A, infer R> ? Exclude<R, Scope.Scope> : never

const Time = Schema.DurationFromString.check(
  Schema.makeFilter((duration) => !Duration.isNegative(duration) || "a duration of 0 or more")
)

/**
 * Which collectors are run, and how long they may take. Data: decode one from JSON with `Profile`, where durations are
 * written `"30 seconds"`.
 *
 * @category models
 * @since 0.1.0
 */
export const Profile = Schema.Struct({
  name: Schema.NonEmptyString,
  /** Their names, or `["all"]`. */
  collectors: Schema.NonEmptyArray(Schema.NonEmptyString),
  /** Those of them that are left out. */
  exclude: Schema.optionalKey(Schema.Array(Schema.NonEmptyString)),
  /** How long the collectors of a category may take, instead of `timeout`. */
  focus: Schema.optionalKey(Schema.Record(Schema.String, Time)),
  /** How long each may take. */
  timeout: Schema.optionalKey(Time),
  /** How long all of them may take. */
  deadline: Schema.optionalKey(Time),
  /** How many run at once. */
  concurrency: Schema.optionalKey(Schema.Int.check(Schema.isGreaterThan(0)))
})

/** @since 0.1.0 */
export type Profile = typeof Profile.Type

/**
 * Finds a profile by its name; fails with `UnknownProfile`, which lists those that there are.
 *
 * @category getters
 * @since 0.1.0
 */
export const profile = <P extends Profile>(
  profiles: ReadonlyArray<P>,
  name: string
): Effect.Effect<P, UnknownProfile> => {
  const found = profiles.find((each) => each.name === name)
  return found === undefined
    ? Effect.fail(new UnknownProfile({ profile: name, known: profiles.map(({ name }) => name) }))
    : Effect.succeed(found)
}

/**
 * The collectors that a profile names, in the order in which they are given, with the time that it leaves each. Fails
 * with `UnknownCollector` when the profile names a collector, or in `focus` a category, that is not there.
 *
 * @category operations
 * @since 0.1.0
 */
export const select = <C extends Any>(
  collectors: ReadonlyArray<C>,
  profile: Profile
): Effect.Effect<ReadonlyArray<C>, UnknownCollector> =>
  Effect.suspend(() => {
    const { collectors: chosen, exclude = [], name, timeout } = profile
    const focus = new Map(Object.entries(profile.focus ?? {}))
    const all = chosen.includes("all")
    const absent = (of: "collector" | "category", wanted: ReadonlyArray<string>, known: ReadonlyArray<string>) => {
      const unknown = wanted.filter((name) => !known.includes(name))
      return unknown.length === 0
        ? Effect.void
        : Effect.fail(new UnknownCollector({ profile: name, of, unknown, known }))
    }
    const names = collectors.map(({ name }) => name)
    const categories = [...new Set(collectors.map(({ category }) => category))]
    return absent("collector", [...chosen.filter((name) => name !== "all"), ...exclude], names).pipe(
      Effect.andThen(absent("category", [...focus.keys()], categories)),
      Effect.as(
        collectors.filter(({ name }) => (all || chosen.includes(name)) && !exclude.includes(name))
          .map((collector) => ({
            ...collector,
            timeout: focus.get(collector.category) ?? collector.timeout ?? timeout
          }))
      )
    )
  })

/**
 * How collectors are run.
 *
 * @category models
 * @since 0.1.0
 */
export interface RunOptions {
  /** The name of the group. Default `"collect"`. */
  readonly name?: string | undefined
  /** After this time whatever still runs or waits is cut off. Default: never. */
  readonly deadline?: Duration.Input | undefined
  /** How many run at once. Default 8. */
  readonly concurrency?: number | "unbounded" | undefined
  /** How long each may take that does not say so itself, from when it has its slot. Default: no bound. */
  readonly timeout?: Duration.Input | undefined
  /** When this completes, whatever still runs or waits is cut off, as by a signal. `NodeMain.firstSignal`, say. */
  readonly cut?: Effect.Effect<unknown> | undefined
  /** How long one may take to end that was interrupted, before it is left behind. Default 1 second. */
  readonly grace?: Duration.Input | undefined
  /** Told synchronously of each that starts and ends. What it throws is logged, and it is told no more. */
  readonly onProgress?: ((progress: Progress) => void) | undefined
}

/**
 * That a collector has started, or ended: `status` as in the timeline, `done` of `total` have ended. One that is skipped
 * does not start.
 *
 * @category models
 * @since 0.1.0
 */
export type Progress =
  | { readonly _tag: "Started"; readonly name: string; readonly category: string; readonly total: number }
  | Progress.Ended

/** @since 0.1.0 */
export declare namespace Progress {
  /** @since 0.1.0 */
  export interface Ended extends Timing {
    readonly _tag: "Ended"
    /** Why there is no result; empty when there is one. */
    readonly reason: string
    readonly done: number
    readonly total: number
  }
}

/**
 * Why a collector has no result. An interruption by a stranger is a failure.
 *
 * @category models
 * @since 0.1.0
 */
export type Why =
  | { readonly _tag: "TimedOut"; readonly afterMillis: number }
  | { readonly _tag: "Failed"; readonly cause: Cause.Cause<unknown> }
  | { readonly _tag: "Cut"; readonly by: "deadline" | "signal" }

/** What a collector found. @category models @since 0.1.0 */
export interface Result<out A> {
  readonly name: string
  readonly category: string
  readonly tier: number
  readonly value: A
}

/**
 * A collector without a result; `stuck` when it ignored its interruption and still runs.
 *
 * @category models
 * @since 0.1.0
 */
export interface Missing {
  readonly name: string
  readonly category: string
  readonly why: Why
  readonly stuck: boolean
}

/** A collector that is not available here. @category models @since 0.1.0 */
export interface Skipped {
  readonly name: string
  readonly category: string
  readonly reason: string
}

/**
 * When a collector ran. `startedAt` is a time of day in milliseconds, null when it never started; `waitedMillis` is from
 * the start of the run until it had its slot, `durationMillis` from there to its end.
 *
 * @category models
 * @since 0.1.0
 */
export interface Timing {
  readonly name: string
  readonly category: string
  readonly status: "ok" | "timeout" | "error" | "skipped" | "interrupted" | "stuck"
  readonly startedAt: number | null
  readonly waitedMillis: number
  readonly durationMillis: number
}

/**
 * What a run of collectors gave, each list in the order in which they were given. It is `complete` when none is missing.
 *
 * @category models
 * @since 0.1.0
 */
export interface Report<out A> {
  readonly complete: boolean
  readonly results: Readonly<Record<string, ReadonlyArray<Result<A>>>>
  readonly missing: ReadonlyArray<Missing>
  readonly skipped: ReadonlyArray<Skipped>
  readonly timeline: ReadonlyArray<Timing>
  readonly durationMillis: number
}

/**
 * Runs collectors, and returns when all have ended, or the time is up, with the report of what there is. Never fails.
 * Collectors that are cut off, or interrupted with the run, have `grace` to end, finalizers included. Two of one name are
 * a defect.
 *
 * @category operations
 * @since 0.1.0
 */
export const run = <const C extends ReadonlyArray<Any>>(
  collectors: C,
  options: RunOptions = {}
): Effect.Effect<Report<Value<C[number]>>, never, Requirements<C[number]>> =>
  // Every collector is made by `make`. What they require stands in the context, and the values are theirs.
  running(collectors as ReadonlyArray<Any> as ReadonlyArray<Collector<unknown>>, options) as Effect.Effect<
    Report<Value<C[number]>>
  >

const running = Effect.fnUntraced(function*(
  collectors: ReadonlyArray<Collector<unknown>>,
  options: RunOptions
) {
  const names = collectors.map(({ name }) => name)
  const twice = names.find((name, index) => names.indexOf(name) !== index)
  if (twice !== undefined) throw new Error(`the names of collectors are unique, got twice: ${twice}`)
  const round = new Round(collectors, options, yield* Clock.Clock)
  const phases = [...new Set(collectors.map(({ phase }) => phase))].sort((a, b) => a - b)
  const deadline = millisOf("the deadline of collectors", options.deadline ?? Duration.infinity)
  const cut = Effect.raceFirst(
    Effect.as(Effect.catchCause(options.cut ?? Effect.never, uncut), "signal" as const),
    deadline === Infinity ? Effect.never : Effect.as(Effect.sleep(deadline), "deadline" as const)
  ).pipe(Effect.map((by) => void (round.cut = by)))

  yield* Group.run((group) => {
    const all = Effect.forEach(phases, (phase) => {
      const attempts = round.attempts.filter(({ collector }) => collector.phase === phase)
      // One after the other: they have their slots in this order, whoever the scheduler prefers. What waits for an end is
      // started at once: a fiber that yields before its first step can lose its interruption.
      const started = Effect.forEach(
        attempts,
        (attempt) =>
          Effect.flatMap(attempt.start(group), (watched) => Effect.forkChild(watched, { startImmediately: true }))
      )
      return Effect.flatMap(started, Fiber.joinAll)
    }, { discard: true })
    // Here and not by the group: it waits without a bound for what it interrupts itself.
    return Effect.raceFirst(cut, all).pipe(Effect.ensuring(round.close))
  }, { name: options.name ?? "collect", concurrency: options.concurrency ?? 8, joiner: Joiner.collect })
  return round.report()
})

/** A run never fails, and goes on without what cannot say when it is to be cut. */
const uncut = (cause: Cause.Cause<unknown>): Effect.Effect<never> =>
  Effect.andThen(
    Effect.logError("collectors are cut by nothing any more: what was to cut them failed", cause),
    Effect.never
  )

/** One run of all collectors. */
class Round {
  readonly attempts: ReadonlyArray<Attempt>
  readonly clock: Clock.Clock
  readonly began: number
  readonly grace: number
  readonly timeout: Duration.Duration | undefined
  private onProgress: RunOptions["onProgress"]
  private done = 0
  /** Whether nothing starts any more. */
  isClosed = false
  cut: "deadline" | "signal" = "signal"

  constructor(collectors: ReadonlyArray<Collector<unknown>>, options: RunOptions, clock: Clock.Clock) {
    this.clock = clock
    this.began = this.now()
    this.grace = millisOf("the grace of collectors", options.grace ?? "1 second")
    this.timeout = timeOf("the timeout of collectors", options.timeout)
    this.onProgress = options.onProgress
    this.attempts = collectors.map((collector) => new Attempt(this, collector))
  }

  now(): number {
    return Number(this.clock.monotonicTimeNanosUnsafe()) / 1_000_000
  }

  /** Ends what has not ended. */
  readonly close: Effect.Effect<void> = Effect.suspend(() => {
    this.isClosed = true
    return Effect.forEach(this.attempts, (attempt) => attempt.end({ _tag: "Cut", by: this.cut }), {
      concurrency: "unbounded",
      discard: true
    })
  })

  tell(progress: () => Progress): Effect.Effect<void> {
    return Effect.suspend(() => {
      const { onProgress } = this
      if (onProgress === undefined) return Effect.void
      return Effect.catchDefect(Effect.sync(() => onProgress(progress())), (defect) => {
        this.onProgress = undefined
        return Effect.logError("the progress of collectors is told no more: its function threw", defect)
      })
    })
  }

  get total(): number {
    return this.attempts.length
  }

  ended(attempt: Attempt): Effect.Effect<void> {
    const done = ++this.done
    return this.tell(() => ({
      _tag: "Ended",
      ...attempt.timing(),
      reason: attempt.skipped ?? (attempt.why === undefined ? "" : reason({ why: attempt.why, stuck: attempt.stuck })),
      done,
      total: this.total
    }))
  }

  report(): Report<unknown> {
    const results = new Map<string, Array<Result<unknown>>>()
    const missing: Array<Missing> = []
    const skipped: Array<Skipped> = []
    for (const { collector: { category, name }, skipped: reason, stuck, tier, value, why } of this.attempts) {
      if (why !== undefined) missing.push({ name, category, why, stuck })
      else if (reason !== undefined) skipped.push({ name, category, reason })
      else results.set(category, [...results.get(category) ?? [], { name, category, tier, value }])
    }
    return {
      complete: missing.length === 0,
      results: Object.fromEntries(results),
      missing,
      skipped,
      timeline: this.attempts.map((attempt) => attempt.timing()),
      durationMillis: this.now() - this.began
    }
  }
}

/** One collector in one run. */
class Attempt {
  readonly collector: Collector<unknown>
  private readonly round: Round
  private routine: Routine.Routine<unknown, unknown> | undefined = undefined
  private startedAt: number | null = null
  private started = 0
  private endedAt: number | undefined = undefined
  tier = 0
  value: unknown = undefined
  skipped: string | undefined = undefined
  why: Why | undefined = undefined
  stuck = false

  constructor(round: Round, collector: Collector<unknown>) {
    this.round = round
    this.collector = collector
  }

  /** Starts it when there is a slot; returns what waits for its end, or ends it when it has taken too long. */
  start(group: Group.Group): Effect.Effect<Effect.Effect<void>> {
    const { collector: { name, timeout = this.round.timeout }, round: { grace } } = this
    const watched = Effect.map(Group.fork(group, this.task, { name, shutdown: grace }), (routine) => {
      const end = Routine.await(routine)
      if (timeout === undefined) return Effect.andThen(end, this.end(undefined))
      return Effect.flatMap(Effect.timeoutOption(end, timeout), (exit) =>
        this.end(
          Option.isSome(exit) ? undefined : { _tag: "TimedOut", afterMillis: Duration.toMillis(timeout) }
        ))
    })
    // The task belongs to the group, whose joiner looks at no task.
    return watched as Effect.Effect<Effect.Effect<void>>
  }

  private get task(): Effect.Effect<void, unknown> {
    const { available, collect, category, name } = this.collector
    return Effect.gen({ self: this }, function*() {
      const routine = Option.getOrUndefined(yield* Routine.current)
      // The end did not see whoever says only now that it runs, and nobody would stop it. Nothing may stand in between.
      if (this.round.isClosed) return yield* Effect.interrupt
      this.routine = routine
      this.startedAt = this.round.clock.currentTimeMillisUnsafe()
      this.started = this.round.now()
      const { reason, tier } = yield* available
      this.tier = tier
      if (tier === 0) {
        this.skipped = reason ?? "not available"
        return
      }
      yield* this.round.tell(() => ({ _tag: "Started", name, category, total: this.round.total }))
      this.value = yield* collect
    })
  }

  /** Makes it end, for this reason if it has not ended by itself. */
  end(why: Why | undefined): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const { routine } = this
      if (this.endedAt !== undefined) return
      if (routine === undefined) {
        this.why = why
      } else {
        const { state } = yield* Routine.snapshot(routine)
        if (state === "running" || state === "stopping") {
          this.why ??= why
          // It may be on its way out by its timeout: then it has the rest of that grace, and not another.
          yield* Effect.raceFirst(
            Routine.stop(routine, 0, reasons[this.why?._tag ?? "Cut"]),
            Routine.await(routine)
          )
        }
        this.stuck = (yield* Routine.snapshot(routine)).state === "abandoned"
        const exit = yield* Routine.await(routine)
        if (Exit.isFailure(exit)) this.why ??= { _tag: "Failed", cause: exit.cause }
      }
      this.endedAt = this.round.now()
      yield* this.round.ended(this)
    })
  }

  timing(): Timing {
    const { endedAt = this.round.now(), round: { began }, started, startedAt } = this
    return {
      name: this.collector.name,
      category: this.collector.category,
      status: this.status,
      startedAt,
      waitedMillis: (startedAt === null ? endedAt : started) - began,
      durationMillis: startedAt === null ? 0 : endedAt - started
    }
  }

  private get status(): Timing["status"] {
    if (this.stuck) return "stuck"
    switch (this.why?._tag) {
      case undefined:
        return this.skipped === undefined ? "ok" : "skipped"
      case "TimedOut":
        return "timeout"
      case "Cut":
        return "interrupted"
      case "Failed":
        return Cause.hasInterruptsOnly(this.why.cause) ? "interrupted" : "error"
    }
  }
}

const reasons = { TimedOut: "timeout", Cut: "cut", Failed: "failed" } as const

/**
 * Why a collector is missing, in a few words.
 *
 * @category getters
 * @since 0.1.0
 */
export const reason = ({ stuck, why }: Pick<Missing, "why" | "stuck">): string =>
  because(why) + (stuck ? ", and does not end" : "")

const because = (why: Why): string => {
  switch (why._tag) {
    case "TimedOut":
      return `took longer than ${Duration.format(Duration.millis(why.afterMillis))}`
    case "Cut":
      return `cut off by the ${why.by}`
    case "Failed": {
      if (Cause.hasInterruptsOnly(why.cause)) return "interrupted"
      const error = Cause.squash(why.cause)
      const message = error instanceof Error ? error.message || error.name : String(error)
      return Cause.hasDies(why.cause) ? `panic: ${message}` : message
    }
  }
}

/**
 * The exit code of a command that collects: 0 when nothing is missing, else 3. What is skipped is not missing.
 *
 * @category getters
 * @since 0.1.0
 */
export const exitCode = (report: Report<unknown>): 0 | 3 => report.complete ? 0 : 3
