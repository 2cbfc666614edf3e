/** The spans of messages: of who sends or publishes them, and of who handles them. */
import type { Carrier, Observer } from "@effect-orchestra/core/Observer"
import * as Effect from "effect/Effect"
import * as Tracer from "effect/Tracer"
import * as Attributes from "../Attributes.ts"
import { linkTo } from "./RunSpans.ts"
import type { SpanOptions, Tracing } from "./Tracing.ts"

type Kind = "mailbox" | "topic"

export class MessageSpans implements Observer {
  private readonly tracing: Tracing
  private readonly names: ReadonlySet<string> | undefined

  constructor(tracing: Tracing, names: ReadonlyArray<string> | undefined) {
    this.tracing = tracing
    this.names = names === undefined ? undefined : new Set(names)
  }

  carrier(kind: Kind, name: string): Carrier | undefined {
    if (this.names?.has(name) === false) return undefined
    const { tracing } = this
    const operation = kind === "mailbox" ? "send" : "publish"
    const sending = optionsOf(name, operation, "send", "producer")
    const processing = optionsOf(name, "process", "process", "consumer")
    return {
      sending: (send) =>
        tracing.within(sending, (span) => {
          if (span === undefined) return send(undefined)
          const carried: Carried = { span, reached: undefined }
          return Effect.onExit(send(carried), () =>
            Effect.sync(() => {
              if (carried.reached !== undefined) span.attribute(Attributes.busFanOut, carried.reached)
            }))
        }),
      handling: (handled, carried) => {
        // It is what `sending` gave.
        const sender = (carried as Carried | undefined)?.span
        const links = sender === undefined ? [] : [linkTo(sender, "sender")]
        return tracing.within(
          { ...processing, links },
          (span) => span === undefined ? handled : Effect.provideService(handled, Tracer.ParentSpan, span)
        )
      }
    }
  }
}

/** What goes with a message: the span of its sender, and back how many it has reached. */
interface Carried {
  readonly span: Tracer.Span
  reached: number | undefined
}

const optionsOf = (name: string, operation: string, type: string, kind: Tracer.SpanKind): SpanOptions => ({
  name: `${operation} ${name}`,
  kind,
  attributes: {
    "messaging.system": "effect_orchestra",
    "messaging.destination.name": name,
    "messaging.operation.name": operation,
    "messaging.operation.type": type
  }
})
