/** Who runs, and for how long: the open slices of this thread, and what they add up to. */
import { path } from "@effect-orchestra/core/Kernel"
import { Current, type RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import type * as Fiber from "effect/Fiber"
import type * as Scheduler from "effect/Scheduler"
import { performance } from "node:perf_hooks"
import * as Meter from "../Meter.ts"
import type { Cpu, LongSlice } from "../Metering.ts"
import * as MetricTable from "../MetricTable.ts"

/** What one routine has used. `recent` and `earlier` are the CPU of the window that began at `window`, and of the one before. */
interface Account {
  cpu: number
  slices: number
  longest: number
  readonly opened: number
  window: number
  recent: number
  earlier: number
  readonly totals: Totals
}

/** What all routines of one name have used. */
interface Totals {
  readonly cpu: Meter.Series
  readonly slices: Meter.Series
}

/** A slice that is open. Used again and again: there is one a level, and a slice may last less than an allocation. */
interface Frame {
  fiber: Fiber.Fiber<unknown, unknown> | undefined
  record: RoutineRecord | undefined
  began: number
  spent: number
}

/** The share of the CPU is that of the last so many milliseconds. */
const windowMillis = 5000

/** As many names as a metric takes; the totals of further ones are looked up each time. */
const cachedNames = 200

const longMillis = 50
const longKept = 100

export type Listener = (record: RoutineRecord | undefined) => void

// The time of the machine that a program takes, which a test clock does not move.
const now = (): number => performance.now()

/** The fields that Effect keeps of a fiber and does not show: whether its run loop is on the stack. */
type Running = { readonly _running?: boolean }

const hasStopped = (fiber: Fiber.Fiber<unknown, unknown> | undefined): boolean =>
  // `unknown` between: the interface of a fiber and its class share no such field.
  (fiber as unknown as Running | undefined)?._running === false

/**
 * The open slices form a stack: a fiber whose operation runs another fiber goes on when that one suspends. Nothing tells
 * when a fiber stops running, so a slice ends when the next thing is seen: another fiber that begins, the one below that
 * goes on, the end of the task that the scheduler runs, or, outside such a task (a timer or a promise resumes a fiber),
 * the microtask after it. Time always belongs to the top of the stack, so that none is counted twice.
 */
export class Slices {
  /** The fiber on top of the stack: that is all that a scheduler compares for each operation. */
  current: Fiber.Fiber<unknown, unknown> | undefined = undefined
  readonly cpu = Meter.make(MetricTable.routineCpuTime)
  readonly durations = Meter.make(MetricTable.routineSliceDuration)
  private readonly frames: Array<Frame> = []
  private depth = 0
  private mark = 0
  private tasks = 0
  private closing = false
  private readonly accounts = new WeakMap<RoutineRecord, Account>()
  private readonly totals = new Map<string, Totals>()
  private readonly long: Array<LongSlice> = []
  private longNext = 0
  private readonly listeners = new Set<Listener>()
  private heard: Listener | undefined = undefined

  /** A fiber runs that is not on top. */
  enter(fiber: Fiber.Fiber<unknown, unknown>): void {
    const at = this.charge()
    // The first operation of a run loop has the number 1: any other belongs to one that is open already.
    if (fiber.currentOpCount > 1) {
      for (let level = this.depth - 1; level >= 0; level--) {
        if (this.frames[level]?.fiber === fiber) return this.closeTo(level + 1, at)
      }
    }
    this.closeStopped(at)
    const level = this.depth++
    const frame = this.frames[level] ??= { fiber: undefined, record: undefined, began: 0, spent: 0 }
    frame.fiber = this.current = fiber
    frame.record = fiber.getRef(Current)
    frame.began = this.mark
    frame.spent = 0
    this.heard?.(frame.record)
    if (this.tasks === 0 && !this.closing) {
      this.closing = true
      queueMicrotask(this.closeAll)
    }
  }

  /** Runs a task of a scheduler: what it opens ends with it. */
  run(task: () => void): void {
    // Something runs already when a program drains its scheduler by hand.
    if (this.depth > 0) this.closeStopped(this.charge())
    const outer = this.depth
    this.tasks++
    try {
      task()
    } finally {
      this.tasks--
      if (this.depth > outer) this.closeTo(outer, this.charge())
    }
  }

  cpuOf(record: RoutineRecord): Cpu | undefined {
    const at = this.depth > 0 ? this.charge() : now()
    const account = this.accounts.get(record)
    let open = 0
    let longest = account?.longest ?? 0
    for (let level = 0; level < this.depth; level++) {
      const frame = this.frames[level]
      if (frame?.record !== record) continue
      open += frame.spent
      longest = Math.max(longest, frame.spent)
    }
    if (account === undefined) return open === 0 ? undefined : view(open, longest, 1, 1)
    turn(account, at)
    const rest = 1 - (at - account.window) / windowMillis
    const seen = Math.min(windowMillis, Math.max(1, at - account.opened))
    const share = (account.recent + open + account.earlier * rest) / seen
    return view(account.cpu + open, longest, account.slices, share)
  }

  longSlices(): ReadonlyArray<LongSlice> {
    return [...this.long.slice(this.longNext), ...this.long.slice(0, this.longNext)]
  }

  /** Calls the listener whenever the code of another routine, or of none, begins or goes on to run. */
  listen(listener: Listener): () => void {
    this.listeners.add(listener)
    this.hear()
    return () => {
      this.listeners.delete(listener)
      this.hear()
    }
  }

  private hear(): void {
    const [first, ...rest] = this.listeners
    this.heard = rest.length === 0 ? first : (record) => this.listeners.forEach((listener) => listener(record))
  }

  /** The time since the last look belongs to the top. */
  private charge(): number {
    const at = now()
    const top = this.frames[this.depth - 1]
    if (top !== undefined) top.spent += at - this.mark
    return this.mark = at
  }

  /** Closes those on top whose fiber is not on the stack of the thread any more. */
  private closeStopped(at: number): void {
    let open = this.depth
    while (open > 0 && hasStopped(this.frames[open - 1]?.fiber)) open--
    if (open < this.depth) this.closeTo(open, at)
  }

  private readonly closeAll = (): void => {
    this.closing = false
    if (this.depth > 0) this.closeTo(0, this.charge())
  }

  private closeTo(outer: number, at: number): void {
    while (this.depth > outer) {
      const frame = this.frames[--this.depth]
      if (frame === undefined) continue
      this.close(frame, at)
      frame.fiber = undefined
      frame.record = undefined
    }
    const top = this.frames[this.depth - 1]
    this.current = top?.fiber
    this.heard?.(top?.record)
  }

  private close({ began, record, spent }: Frame, at: number): void {
    if (spent > longMillis) this.keep(began, spent, record)
    if (record === undefined) return
    const account = this.accounts.get(record) ?? this.open(record, began)
    account.cpu += spent
    account.slices++
    if (spent > account.longest) account.longest = spent
    turn(account, at)
    account.recent += spent
    const { cpu, slices } = account.totals
    const seconds = spent / 1000
    cpu.value += seconds
    Meter.recordIn(slices, boundaries, seconds)
  }

  private open(record: RoutineRecord, opened: number): Account {
    const account: Account = {
      cpu: 0,
      slices: 0,
      longest: 0,
      opened,
      window: opened,
      recent: 0,
      earlier: 0,
      totals: this.totalsOf(record.name)
    }
    this.accounts.set(record, account)
    return account
  }

  private totalsOf(name: string): Totals {
    const known = this.totals.get(name)
    if (known !== undefined) return known
    const made = { cpu: this.cpu.at([name]), slices: this.durations.at([name]) }
    if (this.totals.size < cachedNames) this.totals.set(name, made)
    return made
  }

  private keep(began: number, durationMillis: number, record: RoutineRecord | undefined): void {
    const { long } = this
    const routine = record === undefined ? undefined : { id: record.id, name: record.name, path: path(record) }
    const slice = { at: Math.round(performance.timeOrigin + began), durationMillis, routine }
    if (long.length < longKept) long.push(slice)
    else {
      long[this.longNext] = slice
      this.longNext = (this.longNext + 1) % longKept
    }
  }
}

const boundaries = MetricTable.routineSliceDuration.boundaries ?? []

const view = (cpuMillis: number, longestSliceMillis: number, slices: number, share: number): Cpu => ({
  cpuMillis,
  longestSliceMillis,
  slices,
  share: Math.min(1, Math.max(0, share))
})

/** Goes on to the present window. */
const turn = (account: Account, at: number): void => {
  const past = Math.floor((at - account.window) / windowMillis)
  if (past <= 0) return
  account.earlier = past === 1 ? account.recent : 0
  account.recent = 0
  account.window += past * windowMillis
}

/** A scheduler that says who runs to `slices`, and leaves everything else to `inner`. */
export class MeteredScheduler implements Scheduler.Scheduler {
  readonly executionMode: "sync" | "async"
  readonly slices: Slices
  readonly inner: Scheduler.Scheduler

  constructor(slices: Slices, inner: Scheduler.Scheduler) {
    this.slices = slices
    this.inner = inner
    this.executionMode = inner.executionMode
  }

  shouldYield(fiber: Fiber.Fiber<unknown, unknown>): boolean {
    const { slices } = this
    if (fiber !== slices.current) slices.enter(fiber)
    return this.inner.shouldYield(fiber)
  }

  makeDispatcher(): Scheduler.SchedulerDispatcher {
    const { slices } = this
    const inner = this.inner.makeDispatcher()
    return {
      scheduleTask: (task, priority) => inner.scheduleTask(() => slices.run(task), priority),
      flush: () => inner.flush()
    }
  }
}
