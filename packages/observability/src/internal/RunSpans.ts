/** The spans of runs, of their starts and stops, and of what supervisors decide. */
import { type Kernel, type Node, path } from "@effect-orchestra/core/Kernel"
import { errorTypeOf, type Observer } from "@effect-orchestra/core/Observer"
import type { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import * as Context from "effect/Context"
import * as Exit from "effect/Exit"
import * as Tracer from "effect/Tracer"
import * as Attributes from "../Attributes.ts"
import { annotationsOf } from "./RoutineLoggers.ts"
import type { ShutdownSpans } from "./ShutdownSpans.ts"
import type { Tracing } from "./Tracing.ts"

/** A run that has a span: its own, or, where it is meant to run for ever, that of its start. */
interface Run {
  readonly record: RoutineRecord
  readonly incarnation: number
  readonly context: Context.Context<never>
  readonly span: Tracer.Span
  /** Whether the span is that of the start alone. */
  readonly lasts: boolean
  isOpen: boolean
  askedAt: bigint | undefined
}

/** A supervisor that stops or starts more than the child that has ended. */
interface Supervision {
  span: Tracer.Span | undefined
  exit: Exit.Exit<unknown, unknown>
}

/** Decisions that touch siblings. */
const wide: ReadonlySet<string> = new Set(["restart_group", "escalate", "give_up", "auto_shutdown", "terminate_tree"])

/** Decisions that are an end. */
const final: ReadonlySet<string> = new Set(["escalate", "give_up"])

export class RunSpans implements Observer {
  private readonly kernel: Kernel
  private readonly tracing: Tracing
  private readonly shutdown: ShutdownSpans
  /** The last run of each that had one. */
  private readonly runs = new WeakMap<RoutineRecord, Run>()
  private readonly open = new Set<Run>()
  private readonly supervisions = new Map<Node, Supervision>()
  /** Whether any run had a span: without a tracer none has. */
  private isUsed = false
  /** The context that was seen last in which no spans are made. */
  private silent: Context.Context<never> | undefined = undefined
  /** The restart that begins with the next start, which follows in the same step. */
  private restarting: Readonly<Record<string, unknown>> | undefined = undefined

  constructor(kernel: Kernel, tracing: Tracing, shutdown: ShutdownSpans) {
    this.kernel = kernel
    this.tracing = tracing
    this.shutdown = shutdown
  }

  /** The span of its present run, else of its last one. */
  spanOf(record: RoutineRecord): Tracer.Span | undefined {
    return this.isUsed ? this.runs.get(record)?.span : undefined
  }

  /** The span that it is in by itself: that of its present run. */
  present(record: RoutineRecord): Tracer.Span | undefined {
    const run = this.runs.get(record)
    return run?.isOpen === true && !run.lasts ? run.span : undefined
  }

  /** A run begins: that is asked also before there is anything to be told of. */
  begin(
    record: RoutineRecord,
    context: Context.Context<never>,
    spawner: Tracer.AnySpan | undefined
  ): Context.Context<never> {
    const { restarting, tracing } = this
    this.restarting = undefined
    if (context === this.silent) return context
    if (!tracing.isOn(context)) {
      this.silent = context
      return context
    }
    const { lasts } = record
    const supervision = record.owner === undefined ? undefined : this.supervisions.get(record.owner)
    const links: Array<Tracer.SpanLink> = []
    const before = this.runs.get(record)
    if (before !== undefined) links.push(linkTo(before.span, "previous_run"))
    if (supervision?.span !== undefined) links.push(linkTo(supervision.span, "supervisor"))
    const at = tracing.now()
    const span = tracing.make(context, {
      name: `${lasts ? "start" : "run"} ${record.name}`,
      parent: lasts || record.options.root === true ? undefined : spawner,
      links,
      attributes: attributesOf(record),
      at
    })
    if (span === undefined) return context
    record.past.traceId = span.traceId
    const run: Run = {
      record,
      incarnation: record.incarnation,
      context,
      span,
      lasts,
      isOpen: true,
      askedAt: undefined
    }
    this.isUsed = true
    this.runs.set(record, run)
    this.open.add(run)
    if (restarting !== undefined) {
      const failed = before === undefined ? [] : [linkTo(before.span, "previous_run")]
      if (supervision === undefined) tracing.later(() => span.event("orchestra.restart", at, restarting))
      else {
        tracing.later(() => {
          supervision.span?.event("orchestra.restart", at, { ...restarting, [Attributes.routineName]: record.name })
          if (failed.length > 0) supervision.span?.addLinks(failed)
        })
      }
    }
    this.tell(supervision, "orchestra.child.started", record)
    if (!lasts) return Context.add(context, Tracer.ParentSpan, span)
    if (record.isReady) this.end(run, Exit.void)
    return context
  }

  ready(record: RoutineRecord): void {
    const run = this.runOf(record)
    if (run?.lasts === true) this.end(run, Exit.void)
  }

  restarted(record: RoutineRecord, _supervisor: Node, reason: string, delayMillis: number): void {
    this.restarting = {
      [Attributes.routineAttempt]: record.incarnation,
      [Attributes.restartDelay]: delayMillis / 1000,
      [Attributes.restartReason]: reason,
      [Attributes.errorType]: record.past.lastExit?.errorType ?? undefined
    }
  }

  asked(record: RoutineRecord): void {
    const run = this.runOf(record)
    if (run !== undefined) run.askedAt ??= this.tracing.now()
  }

  left(record: RoutineRecord, left: RoutineRecord): void {
    const run = this.runs.get(record)
    if (run !== undefined) this.runs.set(left, run)
  }

  abandoned(record: RoutineRecord): void {
    const run = this.runOf(record)
    if (run !== undefined) this.stopped(run, true)
  }

  ended(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>): void {
    const run = this.runOf(record)
    if (run === undefined) return
    const reason = record.reason(exit)
    if (run.isOpen) {
      this.end(run, exit, () => {
        run.span.attribute(Attributes.exitReason, reason)
        const type = errorTypeOf(reason, exit)
        if (type !== undefined) run.span.attribute(Attributes.errorType, type)
      })
    }
    this.stopped(run, false)
    const { owner } = record
    if (owner !== undefined) this.tell(this.supervisions.get(owner), "orchestra.child.stopped", record, { reason })
  }

  decided(supervisor: Node, record: RoutineRecord, decision: string, exit: Exit.Exit<unknown, unknown>): void {
    if (!wide.has(decision)) return
    const { supervisions, tracing } = this
    const context = tracing.around
    const at = tracing.now()
    const known = supervisions.get(supervisor)
    const told = { [Attributes.supervisorDecision]: decision, [Attributes.routineName]: record.name }
    if (known !== undefined) {
      if (final.has(decision)) known.exit = exit
      return tracing.later(() => known.span?.event("orchestra.decision", at, told))
    }
    if (context === undefined) return
    const supervision: Supervision = { span: undefined, exit: final.has(decision) ? exit : Exit.void }
    supervisions.set(supervisor, supervision)
    const snapshot = supervisor.snapshot()
    const { budget, strategy } = snapshot.kind === "supervisor" ? snapshot : { budget: undefined, strategy: undefined }
    const failed = this.spanOf(record)
    const attributes = {
      [Attributes.supervisorName]: supervisor.name,
      [Attributes.supervisorPath]: snapshot.path,
      [Attributes.supervisorStrategy]: strategy,
      [Attributes.budgetUsed]: budget?.used,
      [Attributes.budgetMax]: budget?.max,
      ...told
    }
    tracing.later(() => {
      supervision.span = tracing.make(context, {
        name: `supervise ${supervisor.name}`,
        links: failed === undefined ? [] : [linkTo(failed, "failed_run")],
        attributes,
        at
      })
    })
  }

  removed(node: Node): void {
    this.settled(node)
  }

  settled(supervisor: Node): void {
    const supervision = this.supervisions.get(supervisor)
    if (supervision === undefined) return
    this.supervisions.delete(supervisor)
    const at = this.tracing.now()
    this.tracing.later(() => supervision.span?.end(at, supervision.exit))
  }

  /** Ends what is open: nobody will hear of its end. */
  close(): void {
    for (const run of this.open) this.end(run, Exit.interrupt())
    for (const supervisor of this.supervisions.keys()) this.settled(supervisor)
  }

  /** Its present run, if that has a span. What is told before the run has begun is of none. */
  private runOf(record: RoutineRecord): Run | undefined {
    const run = this.runs.get(record)
    return run?.incarnation === record.incarnation ? run : undefined
  }

  private end(run: Run, exit: Exit.Exit<unknown, unknown>, before?: () => void): void {
    if (!run.isOpen) return
    run.isOpen = false
    this.open.delete(run)
    const at = this.tracing.now()
    this.tracing.later(() => {
      before?.()
      run.span.end(at, exit)
    })
  }

  /** What was asked to stop has, or is not waited for any more. */
  private stopped(run: Run, isForced: boolean): void {
    const { context, record, span } = run
    const { askedAt: at } = run
    run.askedAt = undefined
    if (at === undefined) return
    const until = this.tracing.now()
    const stop = {
      name: `stop ${record.name}`,
      links: [linkTo(span, run.lasts ? "start" : "run")],
      attributes: { ...attributesOf(record), [Attributes.stopForced]: isForced },
      at,
      until,
      exit: isForced ? Exit.die(new Error(`${path(record)} ignored its interruption`)) : Exit.void
    }
    if (this.kernel.stopping !== undefined) this.shutdown.stopped(stop, isForced)
    else if (run.lasts) this.tracing.later(() => this.tracing.made(context, stop))
  }

  private tell(
    supervision: Supervision | undefined,
    event: string,
    record: RoutineRecord,
    more?: { readonly reason: string }
  ): void {
    if (supervision === undefined) return
    const at = this.tracing.now()
    const attributes = {
      [Attributes.routineId]: record.id,
      [Attributes.routineName]: record.name,
      [Attributes.routineAttempt]: record.incarnation,
      ...(more === undefined ? undefined : { [Attributes.exitReason]: more.reason })
    }
    this.tracing.later(() => supervision.span?.event(event, at, attributes))
  }
}

const attributesOf = (record: RoutineRecord): Record<string, unknown> => ({
  ...annotationsOf(record),
  ...(record.isSupervised ? { [Attributes.supervisorName]: record.owner?.name } : undefined)
})

export const linkTo = (span: Tracer.AnySpan, kind: string): Tracer.SpanLink => ({
  span,
  attributes: { [Attributes.link]: kind }
})
