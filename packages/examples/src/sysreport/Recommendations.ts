/**
 * What to do, most urgent first. A setting that differs from what is often advised is no reason: each rule asks for
 * evidence in this sample that the machine would gain by it.
 */
import { machine } from "./advice/Machine.ts"
import { network } from "./advice/Network.ts"
import type { Findings } from "./Findings.ts"
import type { Anomaly, Recommendation } from "./Report.ts"

/**
 * Ranked by the worst anomaly that a recommendation is for, then what mends before what tunes, then by its impact, then
 * in the order of the rules.
 */
export const recommend = (
  { data }: Findings,
  anomalies: ReadonlyArray<Anomaly>
): ReadonlyArray<Recommendation> => {
  const severities = new Map(anomalies.map(({ metric, severity }) => [metric, severity === "critical" ? 2 : 1]))
  return [...machine, ...network].flatMap((advice) => {
    const severity = Math.max(0, ...advice.against.map((metric) => severities.get(metric) ?? 0))
    const rank = severity * 100 + (advice.type === "fix" ? 10 : 0) + impacts[advice.impact]
    return advice.when(data).map((occasion) => ({
      rank,
      category: advice.category,
      type: advice.type,
      title: occasion.title ?? advice.title,
      commands: occasion.commands,
      persistent: occasion.persistent,
      expected_impact: `${advice.impact}: ${advice.gain}`,
      evidence: Object.entries(occasion.evidence).flatMap(([name, value]) =>
        value === undefined ? [] : [`${name}=${typeof value === "number" ? Number(value.toFixed(2)) : value}`]
      ).join(", "),
      source: advice.source
    }))
  })
    .sort((one, other) => other.rank - one.rank)
    .map(({ rank: _, ...recommendation }, index) => ({ priority: index + 1, ...recommendation }))
}

const impacts = { high: 3, medium: 2, low: 1 }
