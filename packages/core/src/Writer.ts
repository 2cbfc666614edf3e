/**
 * The single writer of one orchestrator: a synchronous trampoline, and the one queue of deadlines.
 *
 * Whoever wants the tree to change enqueues a job; who finds the writer idle drains it. Jobs never wait: work that
 * takes time is a fiber or a deadline whose end is another job. Wake-ups of user fibers (`await`, `join`, a slot of a
 * group) and starts go to a second queue that runs when no decision is left, and never nested: waking a fiber runs its
 * program on the spot, and a chain of wake-ups nested on the JavaScript stack aborts Node at some 770 links.
 *
 * For packages that add their own kind of node; programs do not need it.
 *
 * @stability unstable
 * @since 0.1.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Scheduler from "effect/Scheduler"

/**
 * Something for the writer to do, at once and without waiting.
 *
 * @category models
 * @since 0.1.0
 */
export interface Job {
  run(): void
}

/**
 * A moment to do something at, unless it is cancelled first.
 *
 * @category models
 * @since 0.1.0
 */
export interface Deadline extends Job {
  readonly at: number
  readonly order: number
  cancelled: boolean
}

/** After so many jobs the rest waits for the next turn of the scheduler, so that a storm cannot hold the loop. */
const jobsPerTurn = 512

/**
 * The writer. `now` is the monotonic clock in milliseconds, `wall` the time of day.
 *
 * @category models
 * @since 0.1.0
 */
export class Writer {
  readonly context: Context.Context<never>
  readonly clock: Clock.Clock
  private readonly live: boolean
  private readonly dispatcher: Scheduler.SchedulerDispatcher
  private decisions = new Fifo()
  private wakes = new Fifo()
  private draining = false
  private scheduled = false
  private depth = 0
  private order = 0
  private deciding = false
  private instant: number | undefined = undefined
  private turned: number | undefined = undefined
  private offset = NaN
  private compared = NaN
  private readonly deadlines = new Deadlines()
  private sleeper: { readonly fiber: Fiber.Fiber<void>; readonly until: number } | undefined = undefined

  constructor(context: Context.Context<never>) {
    this.context = context
    this.clock = Context.get(context, Clock.Clock)
    this.live = this.clock === Context.get(Context.empty(), Clock.Clock)
    this.dispatcher = Context.get(context, Scheduler.Scheduler).makeDispatcher()
  }

  /** The monotonic clock, in milliseconds. A decision that waited for another happens at one time, however long it takes. */
  now(): number {
    return this.deciding ? this.instant ??= this.read() : this.read()
  }

  /** The same, asked for once in a turn of the scheduler: for what is done so often that to ask would cost more than it. */
  turn(): number {
    if (this.turned !== undefined) return this.turned
    this.nextTurn(this.endTurn)
    return this.turned = this.now()
  }

  private readonly endTurn: Job = { run: () => void (this.turned = undefined) }

  private read(): number {
    // The clock of the platform, unless a test has its own: as a number of milliseconds it costs half.
    return this.live ? performance.now() : Number(this.clock.monotonicTimeNanosUnsafe()) / 1_000_000
  }

  wall(): number {
    return this.clock.currentTimeMillisUnsafe()
  }

  /** The time of day, in whole milliseconds, that belongs to the monotonic time `at`. */
  shown(at: number): number {
    // To ask both clocks costs as much as what it is asked for: not more than once a second.
    if (!(Math.abs(at - this.compared) < 1000)) {
      this.compared = at
      const offset = this.wall() - this.now()
      // The two clocks drift by fractions; only when the time of day was set anew does what is shown move with it.
      if (!(Math.abs(offset - this.offset) < 1000)) this.offset = offset
    }
    return Math.round(this.offset + at)
  }

  /** Runs a decision: now if the writer is idle, else after the ones before it. */
  submit(job: Job): void {
    if (this.draining || this.scheduled) this.decisions.push(job)
    else this.drain(job)
  }

  /** Runs a wake-up or a start once no decision is left. */
  wake(job: Job): void {
    if (this.draining || this.scheduled) this.wakes.push(job)
    else this.drain(job)
  }

  /** Runs a decision in the next turn of the scheduler, when what happens "at the same time" is all known. */
  nextTurn(job: Job): void {
    this.dispatcher.scheduleTask(() => this.submit(job), 0)
  }

  /** Starts a fiber at once; beyond 32 starts within starts it begins in the next turn instead. */
  start<A, E, R>(context: Context.Context<R>, effect: Effect.Effect<A, E, R>): Fiber.Fiber<A, E> {
    // From here on it is a program that takes the time.
    this.deciding = false
    if (this.depth >= 32) return Effect.runForkWith(context)(Effect.andThen(Effect.yieldNow, effect))
    this.depth++
    const fiber = Effect.runForkWith(context)(effect)
    this.depth--
    return fiber
  }

  /** Runs a decision `millis` from now. Never, when `millis` is infinite. */
  after(millis: number, job: Job): Deadline {
    const never = millis === Infinity
    const deadline: Deadline = { at: this.now() + millis, order: ++this.order, cancelled: never, run: () => job.run() }
    if (never) return deadline
    this.deadlines.push(deadline)
    this.arm()
    return deadline
  }

  /** Waits `millis`, on the queue of deadlines. */
  sleep(millis: number): Effect.Effect<void> {
    return Effect.callback((resume) => {
      const deadline = this.after(millis, { run: () => this.wake({ run: () => resume(Effect.void) }) })
      return Effect.sync(() => this.cancel(deadline))
    })
  }

  cancel(deadline: Deadline | undefined): void {
    if (deadline === undefined || deadline.cancelled) return
    deadline.cancelled = true
    this.deadlines.forget()
    if (this.deadlines.live === 0) this.arm()
  }

  private drain(first: Job): void {
    this.draining = true
    try {
      let count = 0
      let job: Job | undefined = first
      while (job !== undefined) {
        job.run()
        if (++count === jobsPerTurn) break
        job = this.decisions.shift()
        this.instant = undefined
        this.deciding = job !== undefined
        job ??= this.wakes.shift()
      }
    } finally {
      this.deciding = false
      this.draining = false
      // More than fits into a turn, or what stood behind a job that threw.
      if (this.decisions.length > 0 || this.wakes.length > 0) {
        this.scheduled = true
        this.dispatcher.scheduleTask(this.resume, 0)
      }
    }
  }

  private readonly resume = () => {
    this.scheduled = false
    const job = this.decisions.shift() ?? this.wakes.shift()
    if (job !== undefined) this.drain(job)
  }

  /** Keeps exactly one fiber asleep, until the next deadline; none when there is none. */
  private arm(): void {
    const next = this.deadlines.peek()
    const { sleeper: before } = this
    if (before !== undefined && next !== undefined && before.until <= next.at) return
    // Forgotten first: the end of a sleeper that is not ours any more arms nothing.
    this.sleeper = undefined
    before?.fiber.interruptUnsafe()
    if (next === undefined) return
    // A timer may fire a fraction of a millisecond early, and so never asks for less than one.
    const sleep = this.clock.sleep(Duration.millis(Math.max(1, Math.ceil(next.at - this.now()))))
    const fiber = Effect.runForkWith(this.context)(sleep)
    const sleeper = { fiber, until: next.at }
    this.sleeper = sleeper
    fiber.addObserver(() => {
      if (this.sleeper !== sleeper) return
      this.sleeper = undefined
      const now = this.now()
      for (let due = this.deadlines.peek(); due !== undefined && due.at <= now; due = this.deadlines.peek()) {
        this.deadlines.pop()
        due.cancelled = true
        this.submit(due)
      }
      this.arm()
    })
  }
}

/**
 * Fibers that wait for one thing. Most things have one waiter, which costs no set.
 *
 * @category models
 * @since 0.1.0
 */
export class Waiters<A> {
  private first: ((value: A) => void) | undefined = undefined
  private rest: Set<(value: A) => void> | undefined = undefined

  get isEmpty(): boolean {
    return this.first === undefined && (this.rest === undefined || this.rest.size === 0)
  }

  add(waiter: (value: A) => void): void {
    if (this.first === undefined) this.first = waiter
    else (this.rest ??= new Set()).add(waiter)
  }

  delete(waiter: (value: A) => void): void {
    if (this.first === waiter) this.first = undefined
    else this.rest?.delete(waiter)
  }

  /** Wakes them all, in the order they came, by way of the writer. */
  wake(writer: Writer, value: A): void {
    const { first, rest } = this
    this.first = undefined
    this.rest = undefined
    if (first !== undefined) writer.wake({ run: () => first(value) })
    if (rest !== undefined) { for (const waiter of rest) writer.wake({ run: () => waiter(value) }) }
  }
}

/**
 * Waits until `waiters` are woken, or takes what `already` gives. Interrupting it is O(1), however many wait.
 *
 * A fiber may yield between any two operations, so what was looked at before the wait can have come true by the time
 * that it begins, and nobody would wake it: whoever waits for a condition says it as `already`.
 *
 * @category operations
 * @since 0.1.0
 */
export const waitFor = <A>(
  waiters: Waiters<A>,
  already?: () => Effect.Effect<A> | undefined
): Effect.Effect<A> =>
  Effect.callback((resume) => {
    const known = already?.()
    if (known !== undefined) return resume(known)
    const waiter = (value: A) => resume(Effect.succeed(value))
    waiters.add(waiter)
    return Effect.sync(() => waiters.delete(waiter))
  })

/** First in, first out, without moving what is behind. Emptied, it keeps its room: it is so after almost every job. */
class Fifo {
  private items: Array<Job | undefined> = []
  private head = 0
  private tail = 0

  get length(): number {
    return this.tail - this.head
  }

  push(job: Job): void {
    this.items[this.tail++] = job
  }

  shift(): Job | undefined {
    if (this.head === this.tail) return undefined
    const job = this.items[this.head]
    this.items[this.head++] = undefined
    if (this.head === this.tail) {
      this.head = 0
      this.tail = 0
      if (this.items.length > 1024) this.items = []
    } else if (this.head >= 1024 && this.head * 2 >= this.tail) {
      this.items = this.items.slice(this.head, this.tail)
      this.tail -= this.head
      this.head = 0
    }
    return job
  }
}

/** A binary heap by time, then by order of arrival. Cancelled entries stay until they come up or outnumber the live ones. */
class Deadlines {
  private heap: Array<Deadline> = []
  live = 0

  push(deadline: Deadline): void {
    this.live++
    this.heap.push(deadline)
    this.up(this.heap.length - 1)
  }

  forget(): void {
    this.live--
    if (this.heap.length < 64 || this.live * 2 > this.heap.length) return
    const kept = this.heap.filter((deadline) => !deadline.cancelled)
    this.heap = []
    this.live = 0
    for (const deadline of kept) this.push(deadline)
  }

  peek(): Deadline | undefined {
    while (this.heap[0]?.cancelled === true) this.removeTop()
    return this.heap[0]
  }

  pop(): void {
    this.live--
    this.removeTop()
  }

  private removeTop(): void {
    const last = this.heap.pop()
    if (last === undefined || this.heap.length === 0) return
    this.heap[0] = last
    this.down()
  }

  private up(start: number): void {
    for (let i = start; i > 0;) {
      const parent = (i - 1) >> 1
      if (!this.before(i, parent)) return
      this.swap(i, parent)
      i = parent
    }
  }

  private down(): void {
    for (let i = 0;;) {
      const left = 2 * i + 1
      const first = this.before(left + 1, left) ? left + 1 : left
      if (!this.before(first, i)) return
      this.swap(i, first)
      i = first
    }
  }

  private before(a: number, b: number): boolean {
    const x = this.heap[a]
    const y = this.heap[b]
    if (x === undefined || y === undefined) return x !== undefined
    return x.at < y.at || (x.at === y.at && x.order < y.order)
  }

  private swap(a: number, b: number): void {
    const { heap } = this
    const x = heap[a]
    const y = heap[b]
    if (x === undefined || y === undefined) return
    heap[a] = y
    heap[b] = x
  }
}
