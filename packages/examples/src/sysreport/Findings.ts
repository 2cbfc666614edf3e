/**
 * The data of a report by what it is about, and why it is not there.
 */
import type { Categories, Result } from "./Report.ts"

const resultsOf = ({ container, cpu, disk, memory, network, process, system }: Categories) => ({
  cpu: cpu?.[0],
  memory: memory?.[0],
  disk: disk?.[0],
  network: network?.[0],
  process: process?.[0],
  container: container?.[0],
  system: system?.find((result) => result.collector === "system_info"),
  gpu: system?.find((result) => result.collector === "gpu_pcie")
})

type Results = ReturnType<typeof resultsOf>
export type Source = keyof Results
export type Data = { readonly [S in Source]: NonNullable<NonNullable<Results[S]>["data"]> }

export interface Findings {
  /** The data of the collectors that have some. */
  readonly data: { readonly [S in Source]?: Data[S] | undefined }
  /** Why a collector has no data. */
  readonly absent: (source: Source) => string
}

export const make = (categories: Categories): Findings => {
  const results = resultsOf(categories)
  const { container, cpu, disk, gpu, memory, network, process, system } = results
  return {
    data: {
      cpu: cpu?.data,
      memory: memory?.data,
      disk: disk?.data,
      network: network?.data,
      process: process?.data,
      container: container?.data,
      system: system?.data,
      gpu: gpu?.data
    },
    absent: (source) => {
      const result: Result | undefined = results[source]
      if (result === undefined) return `${collectors[source]} was not selected`
      return `${result.collector}: ${result.status}${result.reason === undefined ? "" : `, ${result.reason}`}`
    }
  }
}

const collectors = {
  cpu: "cpu_utilization",
  memory: "memory_info",
  disk: "disk_stats",
  network: "network_stats",
  process: "process_info",
  container: "container_info",
  system: "system_info",
  gpu: "gpu_pcie"
} satisfies Record<Source, Result["collector"]>

/** `part` in percent of `whole`; not known where there is no whole. */
export const percentOf = (part: number | undefined, whole: number | undefined): number | undefined =>
  part === undefined || whole === undefined || whole <= 0 ? undefined : 100 * part / whole

/** The greatest of the values that are known, and what has it. */
export const worst = <A extends object>(
  of: ReadonlyArray<A>,
  value: (each: A) => number | undefined,
  name: (each: A) => string
): { readonly value: number; readonly subject: string } | undefined => {
  let found: { value: number; subject: string } | undefined
  for (const each of of) {
    const candidate = value(each)
    if (candidate !== undefined && (found === undefined || candidate > found.value)) {
      found = { value: candidate, subject: name(each) }
    }
  }
  return found
}
