/** Log lines about the lives of routines. */
import { type Kernel, type Node, path } from "@effect-orchestra/core/Kernel"
import type { Observer, SagaEnd } from "@effect-orchestra/core/Observer"
import type { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import type { Deadline } from "@effect-orchestra/core/Writer"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as LogLevel from "effect/LogLevel"
import * as Queue from "effect/Queue"
import * as References from "effect/References"
import * as Attributes from "../Attributes.ts"
import { annotationsOf } from "./RoutineLoggers.ts"

/** How many restarts of a routine are logged each in how many milliseconds; the others in one line. */
const maxRestarts = 5
const period = 60_000

/** Of how many routines restarts are counted, and as whose the others are: no routine has this number. */
const maxCounted = 1000
const others = 0

/** How many lines wait to be logged. */
const maxWaiting = 1024

interface Line {
  readonly level: LogLevel.Severity
  readonly event: string
  readonly message: string
  readonly annotations: Record<string, unknown>
  /** Known only when it is logged: whether somebody else says it. */
  readonly isSaid?: (() => boolean) | undefined
}

/** The restarts of one routine since the first of them. */
interface Restarts {
  readonly since: number
  readonly path: string
  readonly record: RoutineRecord | undefined
  count: number
}

/**
 * Makes lines of what happens and logs them in a fiber of its own, never within a decision. `dropped` is told of lines
 * that came faster than they could be logged.
 */
export class Lifecycle implements Observer {
  private readonly kernel: Kernel
  private readonly dropped: (lines: number) => void
  private readonly queue: Queue.Queue<Line>
  readonly showsDebug: boolean
  private readonly restarts = new Map<number, Restarts>()
  private deadline: Deadline | undefined = undefined

  private constructor(kernel: Kernel, dropped: (lines: number) => void, queue: Queue.Queue<Line>, showsDebug: boolean) {
    this.kernel = kernel
    this.dropped = dropped
    this.queue = queue
    this.showsDebug = showsDebug
  }

  /** It logs until its scope is closed, and then what is left. */
  static readonly make = Effect.fnUntraced(function*(kernel: Kernel, dropped: (lines: number) => void) {
    const queue = yield* Queue.dropping<Line>(maxWaiting)
    const minimum = Context.get(yield* Effect.context<never>(), References.MinimumLogLevel)
    const lifecycle = new Lifecycle(kernel, dropped, queue, !LogLevel.isGreaterThan(minimum, "Debug"))
    // After the fiber below has been interrupted.
    yield* Effect.addFinalizer(() => lifecycle.close)
    yield* Effect.forkScoped(Effect.forever(
      // What has been taken is logged: no interruption comes in between.
      Effect.uninterruptibleMask((restore) =>
        Effect.flatMap(restore(Queue.takeAll(queue)), (lines) =>
          // What a routine becomes in this turn is known in the next: whether its failure is anybody's.
          Effect.andThen(Effect.yieldNow, Effect.forEach(lines, log, { discard: true })))
      )
    ))
    return lifecycle
  })

  private readonly close = Effect.suspend(() => {
    this.kernel.writer.cancel(this.deadline)
    for (const [id] of this.restarts) this.sum(id)
    return Effect.flatMap(Queue.clear(this.queue), Effect.forEach(log, { discard: true }))
  })

  private tell(line: Line): void {
    if (!Queue.offerUnsafe(this.queue, line)) this.dropped(1)
  }

  /** A run begins. */
  started(record: RoutineRecord): void {
    if (!this.showsDebug) return
    const message = `${path(record)} started`
    this.tell({ level: "Debug", event: "routine.started", message, annotations: annotationsOf(record) })
  }

  ended(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>): void {
    if (!this.showsDebug) return
    const reason = record.reason(exit)
    this.tell({
      level: "Debug",
      event: "routine.exited",
      message: `${path(record)} exited: ${reason}`,
      annotations: { ...annotationsOf(record), [Attributes.exitReason]: reason },
      // The orchestrator itself logs, with its cause, the failure of a routine that nobody awaits.
      isSaid: () => !record.observed && Exit.isFailure(exit) && reason !== "interrupted"
    })
  }

  restarted(record: RoutineRecord, _supervisor: Node, reason: string, delayMillis: number): void {
    const now = this.kernel.writer.now()
    const counted = this.countRestart(record, now)
    if (counted > maxRestarts) return
    this.tell({
      level: "Warn",
      event: "routine.restarted",
      message: `${path(record)} is restarted, attempt ${record.incarnation}, after ${reason}`,
      annotations: {
        ...annotationsOf(record),
        [Attributes.restartReason]: reason,
        [Attributes.restartDelay]: delayMillis / 1000
      }
    })
  }

  decided(supervisor: Node, record: RoutineRecord, decision: string, exit: Exit.Exit<unknown, unknown>): void {
    if (decision !== "give_up" && decision !== "escalate") return
    const why = Exit.isFailure(exit) ? `: ${Cause.pretty(exit.cause).split("\n", 1)[0]}` : ""
    this.tell({
      level: "Error",
      event: "routine.gave_up",
      message: `${path(supervisor)} gave up on ${record.name}${why}`,
      annotations: annotationsOf(record)
    })
  }

  concluded(saga: Node, { outcome, stuck }: SagaEnd): void {
    if (outcome !== "stuck") return
    this.tell({
      level: "Error",
      event: "saga.stuck",
      message: `${path(saga)} is stuck: what ${stuck.join(", ")} did could not be undone`,
      annotations: { [Attributes.sagaName]: saga.name }
    })
  }

  full(mailbox: Node, capacity: number): void {
    this.tell({
      level: "Warn",
      event: "mailbox.full",
      message: `${path(mailbox)} is full: ${capacity} messages`,
      annotations: { [Attributes.mailboxName]: mailbox.name }
    })
  }

  abandoned(record: RoutineRecord, waitedMillis: number): void {
    if (this.kernel.stopping === undefined) return
    this.tell({
      level: "Error",
      event: "shutdown.forced",
      message: `${path(record)} ignored its interruption for ${Math.round(waitedMillis)} ms and is left running`,
      annotations: annotationsOf(record)
    })
  }

  /** How often it was restarted lately, this time included. */
  private countRestart(record: RoutineRecord, now: number): number {
    const isKnown = this.restarts.size < maxCounted || this.restarts.has(record.number)
    const id = isKnown ? record.number : others
    let restarts = this.restarts.get(id)
    if (restarts !== undefined && now - restarts.since >= period) {
      this.sum(id)
      restarts = undefined
    }
    if (restarts === undefined) {
      restarts = isKnown
        ? { since: now, path: path(record), record, count: 0 }
        // All others together: none of them is logged by itself.
        : { since: now, path: "other routines", record: undefined, count: maxRestarts }
      this.restarts.set(id, restarts)
      this.arm(now)
    }
    return ++restarts.count
  }

  /** Those whose time is over come first: they came first. */
  private sweep(now: number): void {
    for (const [id, { since }] of this.restarts) {
      if (now - since < period) return
      this.sum(id)
    }
  }

  private arm(now: number): void {
    const [first] = this.restarts.values()
    if (first === undefined || this.deadline?.cancelled === false) return
    this.deadline = this.kernel.writer.after(first.since + period - now, {
      run: () => {
        const now = this.kernel.writer.now()
        this.sweep(now)
        this.arm(now)
      }
    })
  }

  private sum(id: number): void {
    const restarts = this.restarts.get(id)
    this.restarts.delete(id)
    if (restarts === undefined || restarts.count <= maxRestarts) return
    const more = restarts.count - maxRestarts
    this.tell({
      level: "Warn",
      event: "routine.restarted",
      message: `${restarts.path}: ${more} more ${more === 1 ? "restart" : "restarts"} within a minute`,
      annotations: {
        ...(restarts.record === undefined ? {} : annotationsOf(restarts.record)),
        [Attributes.restarts]: more
      }
    })
  }
}

const log = ({ annotations, event, isSaid, level, message }: Line): Effect.Effect<void> =>
  Effect.suspend(() =>
    isSaid?.() === true
      ? Effect.void
      : Effect.annotateLogs(Effect.logWithLevel(level)(message), { ...annotations, [Attributes.event]: event })
  )
