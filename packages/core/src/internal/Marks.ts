/**
 * When the messages of a mailbox were sent, in bounded memory: who is where in the order of them, and one time for all
 * of a turn of the scheduler. With more turns than marks, a message may seem as old as one before it.
 */
const limit = 64

export class Marks {
  private readonly numbers: Array<number> = []
  private readonly times: Array<number> = []
  /** The time of the last mark. */
  last = NaN

  /** The message of this number is sent; those below `head` are gone. */
  add(number: number, at: number, head: number): void {
    const { numbers, times } = this
    if (this.last === at) return
    this.last = at
    const next = numbers.findIndex((n) => n > head)
    const gone = (next === -1 ? numbers.length : next) - 1
    if (gone > 0) {
      numbers.splice(0, gone)
      times.splice(0, gone)
    }
    numbers.push(number)
    times.push(at)
    if (numbers.length <= limit) return
    // Every second goes: the older, the fewer remain.
    for (let i = numbers.length - 2; i > 0; i -= 2) {
      numbers.splice(i, 1)
      times.splice(i, 1)
    }
  }

  /** When the message of this number was sent; undefined when nobody looked then. */
  at(number: number): number | undefined {
    return this.times[this.numbers.findLastIndex((n) => n <= number)]
  }
}
