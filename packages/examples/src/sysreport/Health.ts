/**
 * One number for a machine: 100 less what its troubles cost.
 *
 * The use of a resource and an anomaly may be two views of one trouble: a processor that is busy all the time, and the
 * rule that says so. What judges the same aspect of the same resource costs once, as much as the dearest of its views.
 */
import { type Aspect, rules } from "./Anomalies.ts"
import type { Anomaly, Resource, Resources } from "./Report.ts"

/** From 0 to 100. What is not known costs nothing, and is told beside the score. */
export const score = (resources: Resources, anomalies: ReadonlyArray<Anomaly>): number => {
  const costs = new Map<string, number>()
  const charge = (trouble: string, cost: number) => costs.set(trouble, Math.max(cost, costs.get(trouble) ?? 0))
  for (const [name, weight] of weights) {
    const resource = resources[name]
    if (resource === undefined) continue
    for (const [aspect, cost] of aspects) {
      charge(`${name}/${aspect}` satisfies Aspect, Math.trunc(cost(resource) * weight))
    }
  }
  for (const { metric, severity } of anomalies) charge(judgedBy.get(metric) ?? metric, severity === "critical" ? 10 : 5)
  let health = 100
  for (const cost of costs.values()) health -= cost
  return Math.max(0, health)
}

const judgedBy = new Map(rules.flatMap(({ judges, metric }) => judges === undefined ? [] : [[metric, judges]]))

const weights: ReadonlyArray<readonly [keyof Resources, number]> = [
  ["cpu", 1.5],
  ["memory", 1.5],
  ["disk", 1],
  ["network", 1],
  ["container_cpu", 1.2],
  ["container_memory", 1.2]
]

/** What a resource costs by an aspect, before its weight. Counts of what waits have no whole, and cost nothing. */
const aspects: ReadonlyArray<readonly ["utilization" | "saturation" | "errors", (resource: Resource) => number]> = [
  ["utilization", ({ utilization_pct: of = 0 }) => of >= 95 ? 15 : of >= 85 ? 8 : of >= 70 ? 3 : 0],
  ["saturation", ({ saturation_pct: of = 0 }) => of > 50 ? 15 : of > 10 ? 8 : of > 1 ? 3 : 0],
  ["errors", ({ errors: of }) => of > 1000 ? 10 : of > 100 ? 5 : of > 0 ? 2 : 0]
]
