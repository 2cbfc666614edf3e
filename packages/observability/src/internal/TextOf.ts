/**
 * Any value as text, as far as the text has room: it costs no more than what it shows, and runs no code of whoever made the
 * value, be it a getter, a `toString` or a `toJSON`.
 */

class Writing {
  private readonly parts: Array<string> = []
  private readonly seen = new Set<object>()
  private room: number
  isWhole = true

  constructor(room: number) {
    this.room = room
  }

  get text(): string {
    return this.parts.join("")
  }

  private put(text: string): boolean {
    if (text.length > this.room) this.isWhole = false
    this.parts.push(text.slice(0, this.room))
    this.room = Math.max(0, this.room - text.length)
    return this.isWhole
  }

  write(value: unknown): boolean {
    if (typeof value === "string") {
      if (value.length > this.room) this.isWhole = false
      return this.put(JSON.stringify(value.slice(0, this.room)))
    }
    if (typeof value === "function") return this.put("(function)")
    if (typeof value !== "object" || value === null) return this.put(String(value))
    if (this.seen.has(value)) return this.put("(again)")
    this.seen.add(value)
    const isWhole = Array.isArray(value) ? this.list(value) : this.record(value)
    this.seen.delete(value)
    return isWhole
  }

  private list(values: ReadonlyArray<unknown>): boolean {
    if (!this.put("[")) return false
    for (let at = 0; at < values.length; at++) {
      if (!((at === 0 || this.put(",")) && this.property(values, String(at)))) return false
    }
    return this.put("]")
  }

  private record(value: object): boolean {
    if (!this.put("{")) return false
    let first = true
    for (const key in value) {
      if (!Object.hasOwn(value, key)) continue
      if (!((first || this.put(",")) && this.put(`${JSON.stringify(key)}:`) && this.property(value, key))) return false
      first = false
    }
    // What an error says is not enumerable.
    for (const key of ["message", "_tag"]) {
      const own = Object.getOwnPropertyDescriptor(value, key)
      if (own === undefined || own.enumerable === true) continue
      if (!((first || this.put(",")) && this.put(`"${key}":`) && this.property(value, key))) return false
      first = false
    }
    return this.put("}")
  }

  private property(of: object, key: string): boolean {
    const own = Object.getOwnPropertyDescriptor(of, key)
    return own === undefined || own.get !== undefined ? this.put("(computed)") : this.write(own.value)
  }
}

export const textOf = (value: unknown, room: number): { readonly text: string; readonly isWhole: boolean } => {
  if (typeof value === "string") return { text: value.slice(0, room), isWhole: value.length <= room }
  const writing = new Writing(room)
  try {
    writing.write(value)
  } catch {
    // A proxy may throw at anything.
    return { text: "(it cannot be shown)", isWhole: false }
  }
  return writing
}
