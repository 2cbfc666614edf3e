/**
 * What this process uses: CPU, memory, file descriptors, uptime. Read when asked, kept nowhere.
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import { readdir } from "node:fs/promises"
import * as Meter from "./Meter.ts"
import * as MetricTable from "./MetricTable.ts"

/**
 * Reads the `process.*` metrics. Waits for one directory listing; never fails: where the platform does not list
 * file descriptors (everywhere but Linux) that metric has no value.
 *
 * @category metrics
 * @since 0.1.0
 */
export const collect: Effect.Effect<ReadonlyArray<Meter.Meter>> = Effect.gen(function*() {
  const cpu = Meter.make(MetricTable.processCpuTime)
  const { system, user } = process.cpuUsage()
  cpu.add(["user"], user / 1_000_000)
  cpu.add(["system"], system / 1_000_000)
  const memory = Meter.make(MetricTable.processMemoryUsage)
  memory.add([], process.memoryUsage.rss())
  const uptime = Meter.make(MetricTable.processUptime)
  uptime.add([], process.uptime())
  const descriptors = Meter.make(MetricTable.processFileDescriptors)
  const open = yield* Effect.option(Effect.tryPromise(() => readdir("/proc/self/fd")))
  // One of them is the descriptor of the listing itself.
  if (open._tag === "Some") descriptors.add([], open.value.length - 1)
  return [cpu, memory, uptime, descriptors]
})
