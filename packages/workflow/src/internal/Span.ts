/** Spans that leave the causes of what runs in them as they are: `Effect.withSpan` notes itself in each. */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"

export const spanned = <A, E, R>(
  name: string,
  options: Tracer.SpanOptionsNoTrace,
  use: (span: Tracer.Span) => Effect.Effect<A, E, R>
): Effect.Effect<A, E, Exclude<R, Tracer.ParentSpan>> =>
  Effect.useSpan(
    name,
    { kind: "internal", ...options },
    (span) => Effect.provideService(use(span), Tracer.ParentSpan, span)
  )

export const withParent = (context: Context.Context<never>, span: Tracer.AnySpan): Context.Context<never> =>
  // A span is nothing that an effect requires.
  Context.add(context, Tracer.ParentSpan, span) as Context.Context<never>
