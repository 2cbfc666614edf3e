/** What is counted as it happens. */
import { reasonOf } from "@effect-orchestra/core/Event"
import type { Kernel, Node, Stopping } from "@effect-orchestra/core/Kernel"
import { errorTypeOf, type GroupEnd, type Observer, type SagaEnd, type StepEnd } from "@effect-orchestra/core/Observer"
import type { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import type { Phase } from "@effect-orchestra/core/Shutdown"
import type * as Exit from "effect/Exit"
import type * as Tracer from "effect/Tracer"
import * as Meter from "../Meter.ts"
import * as MetricTable from "../MetricTable.ts"
import * as Sampler from "../Sampler.ts"
import { type Census, mailboxName } from "./Census.ts"

/** What telemetry had to drop, by what it was. */
export type Signal = "event" | "log" | "metric" | "span" | "stream"

/** The span of a run. */
export type SpanOf = (record: RoutineRecord) => Tracer.Span | undefined

/** Counters and histograms that follow the orchestrator from their making on. */
export class Recorder {
  private readonly kernel: Kernel
  private readonly census: Census
  private readonly spanOf: SpanOf
  private readonly receiveWaits: boolean
  private readonly runs: Meter.Meter
  private readonly restarts: Meter.Meter
  private readonly delays: Meter.Meter
  private readonly decisions: Meter.Meter
  private readonly waits: Meter.Meter
  private readonly groups: Meter.Meter
  private readonly sagas: Meter.Meter
  private readonly steps: Meter.Meter
  private readonly compensationFailures: Meter.Meter
  private readonly phases: Meter.Meter
  private readonly drops: Meter.Meter
  readonly meters: ReadonlyArray<Meter.Meter>
  /** What is told of anything but runs. */
  readonly others: Observer = {
    removed: (node) => this.census.gone(node),
    refused: (mailbox, outcome, messages) => this.census.sent.add([mailboxName(mailbox), outcome], messages),
    waited: (node, operation, record, millis) => this.waited(node, operation, record, millis),
    grouped: (group, end) => this.grouped(group, end),
    stepped: (saga, end) => this.stepped(saga, end),
    concluded: (saga, { millis, outcome }: SagaEnd) => this.sagas.record([saga.name, outcome], millis / 1000),
    stopping: (stop, phase) => this.stopping(stop, phase)
  }
  /** The attributes of what is told most often, filled anew each time: a meter keeps none that it is given. */
  private readonly run: [name: string, reason: string, errorType: string | undefined] = ["", "", undefined]
  private readonly restart: [name: string, supervisor: string, reason: string] = ["", "", ""]
  private readonly decision: [supervisor: string, decision: string] = ["", ""]

  constructor(
    kernel: Kernel,
    census: Census,
    options: { readonly bounds: Meter.Bounds; readonly receiveWaits: boolean; readonly spanOf: SpanOf }
  ) {
    this.kernel = kernel
    this.census = census
    this.spanOf = options.spanOf
    this.receiveWaits = options.receiveWaits
    const meter = (metric: MetricTable.Metric) => Meter.make(metric, options.bounds)
    this.runs = meter(MetricTable.routineRunDuration)
    this.restarts = meter(MetricTable.routineRestarts)
    this.delays = meter(MetricTable.routineRestartDelay)
    this.decisions = meter(MetricTable.supervisorDecisions)
    this.waits = meter(MetricTable.mailboxWaitDuration)
    this.groups = meter(MetricTable.groupWaitDuration)
    this.sagas = meter(MetricTable.sagaDuration)
    this.steps = meter(MetricTable.sagaStepDuration)
    this.compensationFailures = meter(MetricTable.sagaCompensationFailures)
    this.phases = meter(MetricTable.shutdownDuration)
    this.drops = meter(MetricTable.telemetryDropped)
    this.meters = [
      this.runs,
      this.restarts,
      this.delays,
      this.decisions,
      this.waits,
      this.groups,
      this.sagas,
      this.steps,
      this.compensationFailures,
      this.phases,
      this.drops
    ]
  }

  ended(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>, now: number): void {
    const { run } = this
    const ran = (now - (record.startedAt ?? now)) / 1000
    const reason = record.reason(exit)
    run[0] = record.name
    run[1] = reason
    run[2] = errorTypeOf(reason, exit)
    this.runs.record(run, ran, this.exemplar(record, ran, exit))
  }

  restarted(record: RoutineRecord, supervisor: Node, reason: string, delayMillis: number): void {
    const { restart } = this
    restart[0] = record.name
    restart[1] = supervisor.name
    restart[2] = reason
    // That of the run before: the next one has not begun.
    this.restarts.add(restart, 1, this.exemplar(record, 1))
    if (delayMillis > 0) this.delays.record([record.name], delayMillis / 1000)
  }

  decided(supervisor: Node, _: RoutineRecord, decision: string): void {
    this.decision[0] = supervisor.name
    this.decision[1] = decision
    this.decisions.add(this.decision, 1)
  }

  private waited(node: Node, operation: "send" | "receive", record: RoutineRecord | undefined, millis: number): void {
    if (operation === "receive" && !this.receiveWaits) return
    const waited = millis / 1000
    const exemplar = record === undefined ? undefined : this.exemplar(record, waited)
    this.waits.record([mailboxName(node), operation], waited, exemplar)
  }

  private grouped(group: Node, { exit, waitMillis }: GroupEnd): void {
    const reason = reasonOf(exit)
    this.groups.record([group.name, reason, errorTypeOf(reason, exit)], waitMillis / 1000)
  }

  private stepped(saga: Node, { direction, exit, millis, step, stuck }: StepEnd): void {
    const errorType = errorTypeOf(reasonOf(exit), exit)
    this.steps.record([saga.name, step, direction, errorType], millis / 1000)
    if (stuck) this.compensationFailures.add([saga.name, step], 1)
  }

  private stopping(stop: Stopping, phase: Phase | undefined): void {
    if (phase !== undefined) return
    for (const { durationMillis, phase } of stop.phases) this.phases.record([phase], durationMillis / 1000)
    if (stop.abandoned > 0) this.phases.record(["abandon"], 0)
  }

  dropped(signal: Signal, items: number): void {
    this.drops.add([signal], items)
  }

  /** A span that may never be sent is nothing to point at. */
  private exemplar(
    record: RoutineRecord,
    value: number,
    exit?: Exit.Exit<unknown, unknown>
  ): Meter.Exemplar | undefined {
    const span = this.spanOf(record)
    if (span === undefined) return undefined
    const { writer } = this.kernel
    const end = exit === undefined ? undefined : { at: writer.clock.currentTimeNanosUnsafe(), exit }
    return Sampler.isKept(span, end)
      ? { traceId: span.traceId, spanId: span.spanId, value, at: writer.wall() }
      : undefined
  }
}
