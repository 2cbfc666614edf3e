/**
 * What this program takes itself, with the programs that it has started, from `/proc/self`: a report that hides its own
 * weight is not one of an idle machine.
 */
import { Effect, FileSystem } from "effect"
import * as ProcFile from "./ProcFile.ts"

interface Usage {
  readonly userMillis: number | undefined
  readonly systemMillis: number | undefined
  readonly rssBytes: number | undefined
  readonly readBytes: number | undefined
  readonly writtenBytes: number | undefined
  readonly contextSwitches: number | undefined
}

/** Linux gives its programs 100 ticks a second, whatever the kernel has inside. */
const millisOfTick = 10

export const parse = (stat: string, status: string, io: string): Usage => {
  // The name in brackets may hold anything; after it the state is the third field.
  const fields = stat.slice(stat.lastIndexOf(")") + 1).trim().split(" ").map(ProcFile.number)
  const ticks = (own: number, children: number) => {
    const [a, b] = [fields[own - 3], fields[children - 3]]
    return a === undefined || b === undefined ? undefined : (a + b) * millisOfTick
  }
  const said = ProcFile.counters(status)
  const bytes = ProcFile.counters(io)
  const [voluntary, forced] = [said.get("voluntary_ctxt_switches"), said.get("nonvoluntary_ctxt_switches")]
  return {
    userMillis: ticks(14, 16),
    systemMillis: ticks(15, 17),
    rssBytes: ProcFile.kibibytes(said.get("VmRSS")),
    readBytes: bytes.get("read_bytes"),
    writtenBytes: bytes.get("write_bytes"),
    contextSwitches: voluntary === undefined || forced === undefined ? undefined : voluntary + forced
  }
}

/** Its own process, wherever the roots of the report are. */
const usage = Effect.gen(function*() {
  const fs = yield* FileSystem.FileSystem
  const text = (file: string) => Effect.orElseSucceed(fs.readFileString(`/proc/self/${file}`), () => "")
  return parse(yield* text("stat"), yield* text("status"), yield* text("io"))
})

/** Begins to watch; what it returns tells what was taken since. */
export const watch = Effect.map(usage, (before) =>
  Effect.map(usage, (after) => {
    const since = (what: keyof Usage) => {
      const [from, to] = [before[what], after[what]]
      return from === undefined || to === undefined ? undefined : to - from
    }
    return ProcFile.known({
      cpu_user_ms: since("userMillis"),
      cpu_system_ms: since("systemMillis"),
      memory_rss_bytes: after.rssBytes,
      disk_read_bytes: since("readBytes"),
      disk_write_bytes: since("writtenBytes"),
      context_switches: since("contextSwitches")
    })
  }))
