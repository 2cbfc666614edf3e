/**
 * What is remembered of the past, in bounded memory: the routines that have ended, and the last runs of each child.
 *
 * Nothing here holds on to what a routine returned, failed with or acquired.
 *
 * **Example** (The last two of three)
 *
 * ```ts import.meta.vitest
 * import { Ring } from "@effect-orchestra/core/History"
 *
 * const ring = new Ring<string>(2)
 * const forgotten = ["a", "b", "c"].map((item) => ring.push(item))
 * forgotten // => [undefined, undefined, "a"]
 * ring.all // => ["b", "c"]
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
import type { RunExit } from "./Event.ts"
import type { RoutineSnapshot } from "./Snapshot.ts"

/**
 * The last so many of what was pushed.
 *
 * @category models
 * @since 0.1.0
 */
export class Ring<A> {
  readonly limit: number
  private readonly items: Array<A> = []
  private next = 0

  constructor(limit: number) {
    this.limit = limit
  }

  /** Returns what it had to forget. */
  push(item: A): A | undefined {
    if (this.limit === 0) return item
    const { items, next } = this
    const { [next]: forgotten } = items
    items[next] = item
    this.next = next + 1 === this.limit ? 0 : next + 1
    return forgotten
  }

  /** Oldest first. */
  get all(): ReadonlyArray<A> {
    return [...this.items.slice(this.next), ...this.items.slice(0, this.next)]
  }
}

/** So many runs are remembered of one child, and so many of all together. */
const runsOfOne = 50
const runsInAll = 20_000

/**
 * The last runs of one child, oldest first.
 *
 * @category models
 * @since 0.1.0
 */
export class Attempts {
  readonly exits: Array<RunExit> = []
  /** How many it has forgotten by itself, and the whole still counts. */
  forgotten = 0
}

/**
 * What is remembered of a routine beyond its present run.
 *
 * @category models
 * @since 0.1.0
 */
export class Past {
  /** How often a run followed one that the keeper did not want to end. */
  restarts = 0
  nextStartAt: number | undefined = undefined
  lastExit: RunExit | undefined = undefined
  /** The line that forked it, where the orchestrator keeps them. */
  forkSite: string | undefined = undefined
  /** The trace of its present run, where that has one. */
  traceId: string | undefined = undefined
  readonly attempts = new Attempts()
}

/**
 * A routine that has ended, as it can still be shown.
 *
 * @category models
 * @since 0.1.0
 */
export interface Ended {
  snapshot(): RoutineSnapshot
}

/**
 * The past of one orchestrator. `limit` is how many ended routines it remembers.
 *
 * @category models
 * @since 0.1.0
 */
export class History {
  readonly ended: Ring<Ended>
  private readonly attempts = new Ring<Attempts>(runsInAll)

  constructor(limit = 1000) {
    if (!(Number.isInteger(limit) && limit >= 0)) {
      throw new Error(`an orchestrator's history is a whole number of routines, got: ${limit}`)
    }
    this.ended = new Ring(limit)
  }

  /** Remembers a run of a child. */
  keep(attempts: Attempts, exit: RunExit): void {
    attempts.exits.push(exit)
    if (attempts.exits.length > runsOfOne) {
      attempts.exits.shift()
      attempts.forgotten++
    }
    const oldest = this.attempts.push(attempts)
    if (oldest === undefined) return
    if (oldest.forgotten > 0) oldest.forgotten--
    else oldest.exits.shift()
  }
}
