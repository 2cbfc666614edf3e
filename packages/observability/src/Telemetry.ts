/**
 * Turns what happens in the tree into metrics.
 *
 * Counters and histograms follow the events of the orchestrator through its instrumentation hook; gauges are read
 * from the orchestrator when somebody asks, so that they cost nothing in between.
 *
 * **Example** (What has been counted)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { Telemetry } from "@effect-orchestra/observability"
 * import { Effect, Layer } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   yield* Effect.flatMap(Orchestrator.fork(Effect.void, { name: "job" }), Routine.join)
 *   const meters = yield* Effect.flatMap(Telemetry, (telemetry) => telemetry.collect)
 *   const starts = meters.find(({ metric }) => metric.name === "orchestra.routine.starts")
 *   return Array.from(starts?.series.values() ?? [], ({ attributes, value }) => [attributes, value])
 * })
 *
 * const layer = Layer.provideMerge(Telemetry.layer, Orchestrator.layer)
 * const series = await Effect.runPromise(program.pipe(Effect.provide(layer)))
 * series // => [[[["orchestra.routine.name", "job"]], 1]]
 * ```
 *
 * @since 0.1.0
 */
import type { Exited } from "@effect-orchestra/core/Event"
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import type { Decided, Restarted } from "@effect-orchestra/supervisor/SupervisorEvent"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Meter from "./Meter.ts"
import * as MetricTable from "./MetricTable.ts"
import * as ProcessMetrics from "./ProcessMetrics.ts"

/**
 * The metrics of one orchestrator and its process.
 *
 * @category services
 * @since 0.1.0
 */
export class Telemetry extends Context.Service<Telemetry, {
  /** Random for each start of the process: tells a restarted one from the one before. */
  readonly instance: string
  /** What is measured: the OpenTelemetry resource. */
  readonly resource: { readonly [attribute: string]: string }
  /** Every metric of `MetricTable.all`, in that order, as it stands now. */
  readonly collect: Effect.Effect<ReadonlyArray<Meter.Meter>>
}>()("@effect-orchestra/observability/Telemetry") {
  /**
   * Follows the orchestrator from the moment the layer is built: what ended before is not counted.
   *
   * @category layers
   * @since 0.1.0
   */
  static readonly layer: Layer.Layer<Telemetry, never, Orchestrator> = Layer.effect(this, Effect.suspend(() => make))
}

const make = Effect.gen(function*() {
  MetricTable.register(MetricTable.all)
  const orchestrator = yield* Orchestrator
  const instance = (yield* Random.nextIntBetween(0, 2 ** 32)).toString(16).padStart(8, "0")
  const runs = Meter.make(MetricTable.routineRunDuration)
  const restarts = Meter.make(MetricTable.routineRestarts)
  const decisions = Meter.make(MetricTable.supervisorDecisions)
  const warned = new Set<Meter.Meter>()

  const exited = ({ exit, name }: typeof Exited.Type) =>
    runs.record([name, exit.reason, exit.errorType ?? undefined], exit.ranMillis / 1000)
  const restarted = ({ name, reason, supervisor }: typeof Restarted.Type) => restarts.add([name, supervisor, reason], 1)
  const decided = ({ decision, name }: typeof Decided.Type) => decisions.add([name, decision], 1)

  yield* orchestrator.instrument((event) => {
    if (event._tag === "Exited") exited(event)
    else if (event._tag === "Restarted") restarted(event)
    else if (event._tag === "Decided") decided(event)
  })

  const routines = Effect.map(orchestrator.stats, (stats) => {
    const active = Meter.make(MetricTable.routineActive)
    const starts = Meter.make(MetricTable.routineStarts)
    for (const template of stats) {
      for (const [state, count] of Object.entries(template.active)) active.add([template.name, state], count)
      starts.add([template.name], template.starts)
    }
    return [active, starts] as const
  })

  const budgets = Effect.gen(function*() {
    const utilization = Meter.make(MetricTable.supervisorBudgetUtilization)
    let visited = 0
    for (const node of orchestrator.kernel.nodes.values()) {
      if (node.kind === "supervisor") {
        const snapshot = node.snapshot()
        if (snapshot.kind === "supervisor") utilization.max([snapshot.name], budgetUtilization(snapshot.budget))
      }
      if (++visited % 2000 === 0) yield* Effect.yieldNow
    }
    return utilization
  })

  const shutdown = Effect.gen(function*() {
    const meter = Meter.make(MetricTable.shutdownRemaining)
    for (const phase of ["ask", "interrupt", "abandon"]) meter.add([phase], 0)
    // Outside a shutdown nobody needs to be counted.
    if (orchestrator.kernel.stopping === undefined) return meter
    const { phase, remaining } = yield* orchestrator.shutdownProgress
    if (phase !== undefined) meter.add([phase], remaining)
    return meter
  })

  const collect = Effect.gen(function*() {
    const [active, starts] = yield* routines
    const meters = [
      active,
      starts,
      runs,
      restarts,
      decisions,
      yield* budgets,
      yield* shutdown,
      ...yield* ProcessMetrics.collect
    ]
    for (const meter of [runs, restarts, decisions]) {
      if (!Meter.overflowed(meter) || warned.has(meter)) continue
      warned.add(meter)
      yield* Effect.logWarning(`${meter.metric.name} has too many series: the rest is counted as otel.metric.overflow`)
    }
    return meters
  })

  return Telemetry.of({
    instance,
    resource: {
      "service.name": orchestrator.name,
      "service.instance.id": instance,
      "process.pid": String(process.pid),
      "process.runtime.name": "nodejs",
      "process.runtime.version": process.versions.node,
      "telemetry.sdk.name": "effect-orchestra",
      "telemetry.sdk.language": "nodejs"
    },
    collect
  })
})

/**
 * How much of a restart budget is used, 1 being all of it. A budget of no restarts is used up by the first.
 *
 * @category getters
 * @since 0.1.0
 */
export const budgetUtilization = (budget: { readonly used: number; readonly max: number }): number =>
  budget.max === 0 ? Math.min(budget.used, 1) : budget.used / budget.max
