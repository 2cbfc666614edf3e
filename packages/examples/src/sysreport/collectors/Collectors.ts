/**
 * All collectors, in the order of the report.
 */
import { containerInfo } from "./Container.ts"
import { cpuUtilization } from "./Cpu.ts"
import { diskStats } from "./Disk.ts"
import { gpuPcie } from "./Gpu.ts"
import { memoryInfo } from "./Memory.ts"
import { networkStats } from "./Network.ts"
import { processInfo } from "./Process.ts"
import { systemInfo } from "./System.ts"

export const collectors = [
  systemInfo,
  cpuUtilization,
  memoryInfo,
  diskStats,
  networkStats,
  processInfo,
  containerInfo,
  gpuPcie
] as const
