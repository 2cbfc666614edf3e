/** What a topic does, the naive way: every subscriber has a list, and publishers stand in another. */
export type Overflow = "suspend" | "drop_new" | "drop_old"

export interface Reader {
  readonly capacity: number
  readonly overflow: Overflow
  readonly inside: Array<number>
  dropped: number
}

export class TopicModel {
  readonly replay: number
  readonly readers = new Set<Reader>()
  waiting: Array<number> = []
  last: Array<number> = []

  constructor(replay: number) {
    this.replay = replay
  }

  subscribe(capacity: number, overflow: Overflow): Reader {
    const reader = { capacity, overflow, inside: [...this.last], dropped: 0 }
    this.readers.add(reader)
    return reader
  }

  unsubscribe(reader: Reader): void {
    this.readers.delete(reader)
    this.settle()
  }

  publish(message: number): void {
    this.waiting.push(message)
    this.settle()
  }

  cancel(message: number): void {
    this.waiting = this.waiting.filter((other) => other !== message)
    this.settle()
  }

  take(reader: Reader, count: number): Array<number> {
    const taken = reader.inside.splice(0, count)
    this.settle()
    return taken
  }

  private settle(): void {
    while (this.waiting.length > 0) {
      const held = [...this.readers].some(({ capacity, inside, overflow }) =>
        overflow === "suspend" && inside.length >= capacity
      )
      if (held) return
      this.deliver(this.waiting.shift() ?? 0)
    }
  }

  private deliver(message: number): void {
    for (const reader of this.readers) {
      if (reader.inside.length < reader.capacity) {
        reader.inside.push(message)
        continue
      }
      reader.dropped++
      if (reader.overflow === "drop_new") continue
      reader.inside.shift()
      reader.inside.push(message)
    }
    this.last = this.replay === 0 ? [] : [...this.last, message].slice(-this.replay)
  }
}
