/**
 * `gpu_pcie`: graphics processors, and network cards that hang on another NUMA node than they do.
 */
import { Collect } from "@effect-orchestra/workflow"
import { Effect, Schema } from "effect"
import * as ProcFile from "../ProcFile.ts"
import { type File, isThere, readNames, readNumber, readText } from "../Roots.ts"
import { ask, type Collected } from "./Collected.ts"

export const GpuData = Schema.Struct({
  gpus: Schema.Array(Schema.Struct({
    index: Schema.Natural,
    name: Schema.String,
    pci_address: Schema.String,
    /** Left out on machines with one node. */
    numa_node: Schema.optionalKey(Schema.Natural),
    utilization_pct: Schema.optionalKey(Schema.Finite),
    memory_total_bytes: Schema.optionalKey(Schema.Finite),
    memory_used_bytes: Schema.optionalKey(Schema.Finite)
  })),
  nics: Schema.Array(Schema.Struct({ name: Schema.String, numa_node: Schema.optionalKey(Schema.Natural) })),
  /** Graphics processors and network cards on different nodes; left out where the nodes are not known. */
  cross_numa_pairs: Schema.optionalKey(Schema.Array(Schema.Struct({
    gpu: Schema.String,
    gpu_node: Schema.Natural,
    nic: Schema.String,
    nic_node: Schema.Natural
  })))
})
export type GpuData = typeof GpuData.Type

type Gpu = GpuData["gpus"][number]

const cards = "proc/driver/nvidia/gpus" as const
const mebibyte = 2 ** 20
const query = ["index", "pci.bus_id", "utilization.gpu", "memory.total", "memory.used"].join(",")

interface Load {
  readonly index: number
  readonly utilization: number | undefined
  readonly total: number | undefined
  readonly used: number | undefined
}

/** `nvidia-smi --query-gpu`, by address as the kernel writes it: with 4 digits of the domain, and in small letters. */
export const parseNvidiaSmi = (text: string): ReadonlyMap<string, Load> =>
  new Map(
    ProcFile.lines(text).flatMap((line) => {
      const [index = "", address, ...values] = line.split(",").map((value) => value.trim())
      const [utilization, total, used] = values.map(ProcFile.number)
      const position = ProcFile.index(index)
      if (address === undefined || position === undefined) return []
      return [[address.toLowerCase().slice(-"0000:00:00.0".length), { index: position, utilization, total, used }]]
    })
  )

/** The node of a device. Where there is but one, devices say -1. */
const readNode = (device: File) =>
  Effect.map(readNumber(`${device}/numa_node`), (node) => node !== undefined && node >= 0 ? node : undefined)

const readGpu = Effect.fnUntraced(function*(address: string, position: number, load: Load | undefined) {
  const information = (yield* readText(`${cards}/${address}/information`)) ?? ""
  const gpu: Gpu = ProcFile.known({
    index: load?.index ?? position,
    name: /^Model:\s*(.+)$/m.exec(information)?.[1] ?? "NVIDIA",
    pci_address: address,
    numa_node: yield* readNode(`sys/bus/pci/devices/${address}`),
    utilization_pct: load?.utilization,
    memory_total_bytes: load?.total === undefined ? undefined : load.total * mebibyte,
    memory_used_bytes: load?.used === undefined ? undefined : load.used * mebibyte
  })
  return gpu
})

/** Those of them that are on different nodes; `undefined` if the node of one is not known. */
export const crossing = ({ gpus, nics }: Pick<GpuData, "gpus" | "nics">): GpuData["cross_numa_pairs"] | undefined =>
  [...gpus, ...nics].some(({ numa_node }) => numa_node === undefined) ?
    undefined :
    gpus.flatMap((gpu) =>
      nics.flatMap(({ name, numa_node: nic_node = 0 }) => {
        const { numa_node: gpu_node = 0, pci_address } = gpu
        return gpu_node === nic_node ? [] : [{ gpu: pci_address, gpu_node, nic: name, nic_node }]
      })
    )

const collect = Effect.gen(function*() {
  const errors: Array<string> = []
  const smi = yield* ask(errors, "nvidia-smi", `--query-gpu=${query}`, "--format=csv,noheader,nounits")
  const loads = parseNvidiaSmi(smi ?? "")
  const addresses = yield* readNames(cards)
  const gpus = yield* Effect.forEach(addresses, (address, at) => readGpu(address, at, loads.get(address.toLowerCase())))
  const interfaces = yield* Effect.filter(
    yield* readNames("sys/class/net"),
    (name) => isThere(`sys/class/net/${name}/device`)
  )
  const nics = yield* Effect.forEach(
    interfaces,
    (name) => Effect.map(readNode(`sys/class/net/${name}/device`), (numa_node) => ProcFile.known({ name, numa_node }))
  )
  const data: GpuData = { gpus, nics, ...ProcFile.known({ cross_numa_pairs: crossing({ gpus, nics }) }) }
  return { data, errors } satisfies Collected<GpuData>
})

export const gpuPcie = Collect.make("gpu_pcie", {
  category: "system",
  available: Effect.map(
    readNames(cards),
    (found): Collect.Availability => found.length > 0 ? { tier: 1 } : { tier: 0, reason: "no NVIDIA GPU" }
  ),
  collect
})
