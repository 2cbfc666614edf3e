/**
 * How spans are made on behalf of others: without a fiber, at times that may have passed, and never within a decision.
 */
import type { Kernel } from "@effect-orchestra/core/Kernel"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as References from "effect/References"
import * as Tracer from "effect/Tracer"
import * as Sampler from "../Sampler.ts"

export interface SpanOptions {
  readonly name: string
  /** Without one it is a root. */
  readonly parent?: Tracer.AnySpan | undefined
  readonly links?: ReadonlyArray<Tracer.SpanLink> | undefined
  readonly attributes: Readonly<Record<string, unknown>>
  /** Nanoseconds of the wall clock. Default: now. */
  readonly at?: bigint | undefined
  readonly kind?: Tracer.SpanKind | undefined
}

// Orchestration spans are kept whenever they fail.
const annotations = Context.make(Sampler.Watched, true)

/** Where spans of one orchestrator are made. */
export class Tracing {
  private readonly kernel: Kernel
  /** Whether also a tracer that sends nothing is asked. */
  private readonly always: boolean
  private isBroken = false
  /** Called once, when there is a tracer for the first time. */
  began: (() => void) | undefined = undefined
  private readonly own: Context.Context<never>
  /** The tracer that was asked last. */
  private last: Context.Context<never> | undefined = undefined

  constructor(kernel: Kernel, context: Context.Context<never>, always: boolean) {
    this.kernel = kernel
    this.always = always
    this.own = context
  }

  /** Whether spans of what runs in this context are made. */
  isOn(context: Context.Context<never>): boolean {
    if (this.isBroken) return false
    const tracer = Context.get(context, Tracer.Tracer)
    if (!this.always && tracer === Tracer.nativeTracer) return false
    if (!Context.get(context, References.TracerEnabled)) return false
    if (this.last === undefined || Context.get(this.last, Tracer.Tracer) !== tracer) {
      this.last = Context.make(Tracer.Tracer, tracer) as Context.Context<never>
      this.began?.()
      this.began = undefined
    }
    return true
  }

  /** Where spans belong that are of no run: the context of the telemetry, else the last one that had a tracer. */
  get around(): Context.Context<never> | undefined {
    return this.isOn(this.own) ? this.own : this.isBroken ? undefined : this.last
  }

  now(): bigint {
    return this.kernel.writer.clock.currentTimeNanosUnsafe()
  }

  /** Makes a span, as `Effect.makeSpan` would in a fiber of this context. Undefined when the tracer throws. */
  make(context: Context.Context<never>, options: SpanOptions): Tracer.Span | undefined {
    return this.guarded(() => {
      const parent = propagated(options.parent)
      const span = Sampler.limited(
        Context.get(context, Tracer.Tracer).span({
          name: options.name,
          parent,
          annotations,
          links: [...Context.get(context, References.TracerSpanLinks), ...options.links ?? []],
          startTime: options.at ?? this.now(),
          kind: options.kind ?? "internal",
          root: Option.isNone(parent),
          sampled: Option.isSome(parent)
            ? parent.value.sampled
            : !LogLevel.isGreaterThan(
              Context.get(context, Tracer.MinimumTraceLevel),
              Context.get(context, Tracer.CurrentTraceLevel)
            )
        })
      )
      const inherited = Context.get(context, References.TracerSpanAnnotations)
      for (const [key, value] of Object.entries({ ...inherited, ...options.attributes })) {
        if (value !== undefined) span.attribute(key, value)
      }
      return span
    })
  }

  /** Makes a span that is over. */
  made(
    context: Context.Context<never>,
    options: SpanOptions & { readonly at: bigint; readonly until: bigint; readonly exit?: Exit.Exit<unknown, unknown> }
  ): Tracer.Span | undefined {
    const span = this.make(context, options)
    if (span !== undefined) this.guarded(() => span.end(options.until, options.exit ?? Exit.void))
    return span
  }

  /** Runs an effect and gives it a span, which ends with it; undefined where no span is made. */
  within<A, E, R>(
    options: SpanOptions,
    inside: (span: Tracer.Span | undefined) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E, R> {
    // No interruption comes between the making of the span and the promise to end it.
    return Effect.uninterruptibleMask((restore) =>
      Effect.withFiber(({ cache, context }) => {
        const span = this.isOn(context) ? this.make(context, { ...options, parent: cache.span }) : undefined
        if (span === undefined) return restore(inside(undefined))
        return Effect.onExit(
          restore(inside(span)),
          (exit) => Effect.sync(() => this.guarded(() => span.end(this.now(), exit)))
        )
      })
    )
  }

  /** Runs what calls a tracer, which is the user's, behind the decisions. */
  later(job: () => void): void {
    if (!this.isBroken) this.kernel.writer.wake({ run: () => this.guarded(job) })
  }

  /** A tracer that throws breaks nothing but the traces. */
  guarded<A>(job: () => A): A | undefined {
    if (this.isBroken) return undefined
    try {
      return job()
    } catch (defect) {
      this.isBroken = true
      Effect.runForkWith(this.kernel.context)(
        Effect.logError("a tracer threw: no more spans are made of what is orchestrated", defect)
      )
      return undefined
    }
  }
}

/** The first span from here up of which others may know. */
const propagated = (span: Tracer.AnySpan | undefined): Option.Option<Tracer.AnySpan> => {
  let at = span
  while (at !== undefined && Context.get(at.annotations, Tracer.DisablePropagation)) {
    at = at._tag === "Span" ? Option.getOrUndefined(at.parent) : undefined
  }
  return Option.fromUndefinedOr(at)
}
