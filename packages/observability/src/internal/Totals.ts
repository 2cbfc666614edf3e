/** What the templates of an orchestrator add up to: known without a look at any routine. */
import type { Kernel } from "@effect-orchestra/core/Kernel"

export const totalsOf = (kernel: Kernel) => {
  const states = { pending: 0, starting: 0, running: 0, backoff: 0, stopping: 0 }
  const totals = { active: states, starts: 0, restarts: 0 }
  for (const { active, restarts, starts } of kernel.stats()) {
    states.pending += active.pending
    states.starting += active.starting
    states.running += active.running
    states.backoff += active.backoff
    states.stopping += active.stopping
    totals.starts += starts
    totals.restarts += restarts
  }
  return totals
}
