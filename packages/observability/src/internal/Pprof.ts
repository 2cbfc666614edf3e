/**
 * Writes profiles in the format of pprof (profile.proto), which `go tool pprof`, Parca, Pyroscope and speedscope read.
 *
 * Samples are written as they are added, so that who adds many can let other fibers run in between; the fields of a
 * message may come in any order.
 */
/** A function in a stack. `line` counts from 1; 0 and an empty file stand for what nobody knows. */
export interface Frame {
  readonly name: string
  readonly file?: string | undefined
  readonly line?: number | undefined
}

export type ValueType = readonly [type: string, unit: string]

export interface ProfileOptions {
  /** What the values of each sample are, in their order. A reader shows the last one unless told otherwise. */
  readonly types: ReadonlyArray<ValueType>
  /** Shown as the file that was profiled. */
  readonly program: string
  readonly timeMillis: number
  readonly durationMillis?: number | undefined
  readonly period?: { readonly type: ValueType; readonly value: number } | undefined
  /** The type that a reader shows first. */
  readonly shown?: string | undefined
}

/** A profile that is being written. */
export class Profile {
  private readonly out = new Message()
  private readonly message = new Message()
  private readonly inner = new Message()
  private readonly strings = new Map<string, number>()
  private readonly locations = new Map<string, number>()
  /** The same, for frames that come again as the same object. */
  private readonly known = new Map<Frame, number>()

  constructor(options: ProfileOptions) {
    this.string("")
    for (const type of options.types) this.out.message(1, this.valueType(type))
    // Says that nothing is to be looked up in a binary.
    const mapping = this.message.clear().int(1, 1).int(5, this.string(options.program))
    for (const has of [7, 8, 9]) mapping.int(has, 1)
    this.out.message(3, mapping)
    this.out.int(9, options.timeMillis * 1e6).int(10, Math.round((options.durationMillis ?? 0) * 1e6))
    const { period, shown } = options
    if (period !== undefined) this.out.message(11, this.valueType(period.type)).int(12, period.value)
    if (shown !== undefined) this.out.int(14, this.string(shown))
  }

  /** Adds a sample. Its stack begins with the innermost frame. */
  add(
    stack: ReadonlyArray<Frame>,
    values: ReadonlyArray<number>,
    labels: { readonly [key: string]: string } = {}
  ): void {
    const ids = stack.map((frame) => this.location(frame))
    const sample = this.message.clear().packed(1, ids).packed(2, values)
    for (const [key, value] of Object.entries(labels)) {
      sample.message(3, this.inner.clear().int(1, this.string(key)).int(2, this.string(value)))
    }
    this.out.message(2, sample)
  }

  /** The profile so far. */
  get bytes(): Uint8Array {
    return this.out.bytes
  }

  private valueType([type, unit]: ValueType): Message {
    return this.message.clear().int(1, this.string(type)).int(2, this.string(unit))
  }

  private location(frame: Frame): number {
    const known = this.known.get(frame)
    if (known !== undefined) return known
    const { file = "", line = 0, name } = frame
    const key = `${name}\0${file}\0${line}`
    let id = this.locations.get(key)
    if (id === undefined) {
      id = this.locations.size + 1
      this.locations.set(key, id)
      const title = this.string(name)
      // Each location is one function: the engine tells where a function begins, not where in it a call stands.
      const described = this.message.clear().int(1, id).int(2, title).int(3, title)
      this.out.message(5, described.int(4, this.string(file)).int(5, line))
      const place = this.message.clear().int(1, id).int(2, 1)
      this.out.message(4, place.message(4, this.inner.clear().int(1, id).int(2, line)))
    }
    this.known.set(frame, id)
    return id
  }

  private string(value: string): number {
    let index = this.strings.get(value)
    if (index === undefined) {
      index = this.strings.size
      this.strings.set(value, index)
      this.out.text(6, value)
    }
    return index
  }
}

const encoder = new TextEncoder()

/** A message of protocol buffers that grows. */
class Message {
  private buffer = new Uint8Array(256)
  private length = 0

  get bytes(): Uint8Array {
    return this.buffer.subarray(0, this.length)
  }

  clear(): this {
    this.length = 0
    return this
  }

  /** A number of 0 or more. 0 is the default and is not written. */
  int(field: number, value: number): this {
    if (value <= 0) return this
    this.varint(field << 3)
    this.varint(value)
    return this
  }

  packed(field: number, values: ReadonlyArray<number>): this {
    let length = 0
    for (const value of values) length += sizeOf(value)
    this.varint(field << 3 | 2)
    this.varint(length)
    for (const value of values) this.varint(value)
    return this
  }

  text(field: number, value: string): this {
    return this.chunk(field, encoder.encode(value))
  }

  message(field: number, { bytes }: Message): this {
    return this.chunk(field, bytes)
  }

  private chunk(field: number, bytes: Uint8Array): this {
    this.varint(field << 3 | 2)
    this.varint(bytes.length)
    this.reserve(bytes.length)
    this.buffer.set(bytes, this.length)
    this.length += bytes.length
    return this
  }

  /** Not by shifts: nanoseconds of the day have more than 32 bits. */
  private varint(value: number): void {
    this.reserve(10)
    let rest = value
    while (rest >= 128) {
      this.buffer[this.length++] = rest % 128 | 128
      rest = Math.floor(rest / 128)
    }
    this.buffer[this.length++] = rest
  }

  private reserve(more: number): void {
    if (this.length + more <= this.buffer.length) return
    const grown = new Uint8Array(2 * (this.length + more))
    grown.set(this.bytes)
    this.buffer = grown
  }
}

const sizeOf = (value: number): number => {
  let size = 1
  for (let rest = value; rest >= 128; rest = Math.floor(rest / 128)) size++
  return size
}
