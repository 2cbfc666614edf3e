/**
 * How the server looks at many nodes without holding the event loop: in slices, one walk at a time, and what several ask
 * for at once is worked out once.
 */
import { type Kernel, type Node, path, segment } from "@effect-orchestra/core/Kernel"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Semaphore from "effect/Semaphore"

/** In milliseconds: a quarter of what a slice may take, for there is more in it than a walk, and machines are slower than this one. */
const slice = 0.5

/** Says when it is time to let others run. The clock is the real one: it is the real event loop that is held. */
export class Pace {
  private ticks = 0
  private began = performance.now()

  /** Whether to yield now, and then the next slice begins. Looks at the clock once in `every` times. */
  isOver(every = 64): boolean {
    if (++this.ticks % every !== 0) return false
    return performance.now() - this.began > slice
  }

  readonly rest: Effect.Effect<void> = Effect.map(Effect.yieldNow, () => {
    this.began = performance.now()
  })
}

/** Does something with each, in slices. */
export const inSlices = <A>(items: Iterable<A>, look: (item: A, index: number) => void, every = 64) =>
  Effect.gen(function*() {
    const pace = new Pace()
    let index = 0
    for (const item of items) {
      look(item, index++)
      if (pace.isOver(every)) yield* pace.rest
    }
  })

/** What is worked out, or was: then it counts until the monotonic time `until`. */
interface Flight {
  readonly fiber: Fiber.Fiber<unknown, unknown>
  until: number
}

/** What is remembered of a kernel by those who look at it. Nothing of it keeps a node alive that has ended. */
class Looking {
  /** Walks stand in a line: two at once would hold the event loop twice as long. */
  readonly turn = Semaphore.makeUnsafe(1)
  readonly flights = new Map<string, Flight>()
}

const looking = new WeakMap<Kernel, Looking>()

const lookingAt = (kernel: Kernel): Looking => {
  const known = looking.get(kernel)
  if (known !== undefined) return known
  const made = new Looking()
  looking.set(kernel, made)
  return made
}

/** Looks at every node but the orchestrator, in the order in which they came. */
export const visit = (kernel: Kernel, look: (node: Node) => void): Effect.Effect<void> =>
  Semaphore.withPermit(
    lookingAt(kernel).turn,
    Effect.suspend(() => inSlices(kernel.nodes.values(), look, 32))
  )

/**
 * Who asks for the same while it is worked out gets the same, and so does who asks within `hold` milliseconds. With
 * `most`, what is held is large: under keys that begin with the same word the oldest go beyond so many, and all go when
 * their time is over, even when nobody asks any more. What is worked out for several does not end with the one who asked
 * first.
 */
export const shared = <A, E, R>(
  kernel: Kernel,
  key: string,
  effect: Effect.Effect<A, E, R>,
  { hold = 0, most }: { readonly hold?: number; readonly most?: number } = {}
): Effect.Effect<A, E, R> =>
  Effect.gen(function*() {
    const { flights } = lookingAt(kernel)
    const { writer } = kernel
    const known = flights.get(key)
    // The key says what is worked out, and so what of.
    if (known !== undefined && writer.now() < known.until) return yield* Fiber.join(known.fiber as Fiber.Fiber<A, E>)
    if (most !== undefined) {
      const [family = ""] = key.split(" ", 1)
      const held = Array.from(flights.keys()).filter((other) => other.startsWith(`${family} `))
      for (const oldest of held.slice(0, Math.max(0, held.length + 1 - most))) flights.delete(oldest)
    }
    const fiber = yield* Effect.forkDetach(effect)
    const flight: Flight = { fiber, until: Infinity }
    const forget = () => {
      if (flights.get(key) === flight) flights.delete(key)
    }
    flights.set(key, flight)
    fiber.addObserver((exit) => {
      if (hold === 0 || exit._tag === "Failure") return forget()
      flight.until = writer.now() + hold
      // A timer would keep a process from ending, for a second and for nothing.
      if (most !== undefined) writer.after(hold, { run: forget })
    })
    return yield* Fiber.join(fiber)
  })

/** The smallest `size` of what is added, in order. One pass and no sort: most lose against the last at once. */
export class Smallest<A> {
  readonly items: Array<A> = []
  private readonly size: number
  private readonly compare: (a: A, b: A) => number

  constructor(size: number, compare: (a: A, b: A) => number) {
    this.size = size
    this.compare = compare
  }

  add(item: A): void {
    const last = this.items[this.size - 1]
    if (last !== undefined && this.compare(item, last) >= 0) return
    let low = 0
    let high = this.items.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const other = this.items[middle]
      if (other !== undefined && this.compare(item, other) < 0) high = middle
      else low = middle + 1
    }
    this.items.splice(low, 0, item)
    if (this.items.length > this.size) this.items.pop()
  }
}

/** Sorts in slices: runs of 1,000 by themselves, then two and two into one. */
export const sorted = Effect.fnUntraced(function*<A>(items: ReadonlyArray<A>, compare: (a: A, b: A) => number) {
  let runs: Array<Array<A>> = []
  const pace = new Pace()
  for (let at = 0; at < items.length; at += 1000) {
    runs.push(items.slice(at, at + 1000).sort(compare))
    if (pace.isOver(1)) yield* pace.rest
  }
  while (runs.length > 1) {
    const next: Array<Array<A>> = []
    for (let at = 0; at < runs.length; at += 2) {
      const [left = [], right = []] = [runs[at], runs[at + 1]]
      const merged: Array<A> = []
      let l = 0
      let r = 0
      while (l < left.length || r < right.length) {
        const a = left[l]
        const b = right[r]
        if (b === undefined || (a !== undefined && compare(a, b) <= 0)) {
          if (a !== undefined) merged.push(a)
          l++
        } else {
          merged.push(b)
          r++
        }
        if (pace.isOver()) yield* pace.rest
      }
      next.push(merged)
    }
    runs = next
  }
  return runs[0] ?? []
})

/** The paths of many nodes: what stands above them is worked out once. */
export class Paths {
  private owner: Node | undefined = undefined
  private above = ""
  private readonly known = new Map<Node, string>()

  of(node: Node): string {
    const { owner } = node
    if (owner === undefined || node.transparent) return path(node)
    if (owner !== this.owner) {
      this.owner = owner
      const known = this.known.get(owner)
      this.above = known ?? path(owner)
      if (known === undefined) this.known.set(owner, this.above)
    }
    return `${this.above}/${segment(node)}`
  }
}
