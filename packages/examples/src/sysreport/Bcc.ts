/**
 * The collectors of the profiles that need the BCC tools, which trace the kernel. This program does not run them: each is
 * declared, so that a profile may name it, and says why it is skipped.
 */
import { Collect } from "@effect-orchestra/workflow"
import { Effect } from "effect"

const bcc = (name: string, category: string) =>
  Collect.make(name, {
    category,
    // Asked first: what is not there is known before anything is measured, and before a signal can cut it off.
    phase: -1,
    available: Effect.succeed({ tier: 0, reason: `needs the BCC tool ${name}, and this program traces no kernel` }),
    collect: Effect.never
  })

export const collectors = [
  bcc("biolatency", "disk"),
  bcc("biotop", "disk"),
  bcc("oomkill", "memory"),
  bcc("memleak", "memory"),
  bcc("tcpretrans", "network"),
  bcc("tcpstates", "network"),
  bcc("tcplife", "network"),
  bcc("opensnoop", "process"),
  bcc("biostacks", "stacktrace"),
  bcc("offwaketime", "stacktrace"),
  bcc("wakeuptime", "stacktrace")
]
