/**
 * What the data says: anomalies, the use of resources, health, and what to do about it.
 */
import * as Anomalies from "./Anomalies.ts"
import * as Findings from "./Findings.ts"
import * as Health from "./Health.ts"
import { hotspots } from "./Hotspots.ts"
import { recommend } from "./Recommendations.ts"
import type { Categories, NotEvaluated, Summary } from "./Report.ts"
import { use } from "./Use.ts"

/**
 * The rules that have no data, or not enough of it, are in `notEvaluated`, which the summary has too: they are not healthy
 * and not ill. If none has, there is no score.
 */
export const analyze = (
  categories: Categories
): { readonly summary: Summary; readonly notEvaluated: ReadonlyArray<NotEvaluated> } => {
  const findings = Findings.make(categories)
  const { anomalies, notEvaluated } = Anomalies.judge(findings)
  const resources = use(findings)
  const total = Anomalies.rules.length
  const evaluated = total - notEvaluated.length
  return {
    summary: {
      health_score: evaluated === 0 ? null : Health.score(resources, anomalies),
      rules: { evaluated, total },
      anomalies,
      not_evaluated: notEvaluated,
      hotspots: hotspots(findings),
      resources,
      recommendations: recommend(findings, anomalies)
    },
    notEvaluated
  }
}
