/** A tracer that keeps what it is told, as an exporter would see it. */
import { Tracer } from "effect"

type Ended = Extract<Tracer.SpanStatus, { readonly _tag: "Ended" }>

export class Recorder {
  readonly started: Array<Recorded> = []
  readonly ended: Array<Recorded> = []
  readonly tracer = Tracer.make({
    span: (options) => {
      const span = new Recorded(options, this.ended)
      this.started.push(span)
      return span
    }
  })

  /** The spans that were started and have not ended. */
  get open(): ReadonlyArray<string> {
    return this.started.filter((span) => !this.ended.includes(span)).map(({ name }) => name)
  }

  /** The one span of this name that has ended. */
  one(name: string): Recorded {
    const found = this.ended.filter((span) => span.name === name)
    if (found.length !== 1 || found[0] === undefined) {
      throw new Error(`there is one span "${name}", got: ${found.length} of ${this.ended.map(({ name }) => name)}`)
    }
    return found[0]
  }

  all(name: string): ReadonlyArray<Recorded> {
    return this.ended.filter((span) => span.name === name)
  }
}

type Native = Tracer.Span & {
  readonly events: Array<[name: string, time: bigint, attributes: Record<string, unknown>]>
}

/** Effect's own span, which tells of its end. */
export class Recorded implements Tracer.Span {
  readonly _tag = "Span"
  private readonly native: Native
  private readonly ends: Array<Recorded>
  readonly root: boolean

  constructor(options: Parameters<Tracer.Tracer["span"]>[0], ends: Array<Recorded>) {
    // The tracer of Effect makes spans that keep their events.
    this.native = Tracer.nativeTracer.span(options) as Native
    this.ends = ends
    this.root = options.root
  }

  get name() {
    return this.native.name
  }
  get spanId() {
    return this.native.spanId
  }
  get traceId() {
    return this.native.traceId
  }
  get parent() {
    return this.native.parent
  }
  get annotations() {
    return this.native.annotations
  }
  get status() {
    return this.native.status
  }
  get attributes() {
    return this.native.attributes
  }
  get links() {
    return this.native.links
  }
  get events() {
    return this.native.events
  }
  get sampled() {
    return this.native.sampled
  }
  get kind() {
    return this.native.kind
  }

  /** How it ended. */
  get over(): Ended {
    if (this.status._tag !== "Ended") throw new Error(`"${this.name}" has not ended`)
    return this.status
  }

  end(...args: Parameters<Tracer.Span["end"]>) {
    this.native.end(...args)
    this.ends.push(this)
  }
  attribute(key: string, value: unknown) {
    this.native.attribute(key, value)
  }
  event(...args: Parameters<Tracer.Span["event"]>) {
    this.native.event(...args)
  }
  addLinks(links: ReadonlyArray<Tracer.SpanLink>) {
    this.native.addLinks(links)
  }
}
