/**
 * The interfaces of the network: what went through them, and how those with hardware behind them are set up.
 */
import { Effect, type FileSystem, Schema } from "effect"
import type { Commands } from "../Commands.ts"
import * as ProcFile from "../ProcFile.ts"
import { isThere, readLinkName, readNames, readNumber, readText, type Roots } from "../Roots.ts"
import { rate, rise, type Sample } from "../Sampling.ts"
import { ask } from "./Collected.ts"

/** Counters are since the interface came up; what ends in `_per_sec` is of the sample. */
export const Interface = Schema.Struct({
  name: Schema.String,
  rx_bytes: Schema.Finite,
  tx_bytes: Schema.Finite,
  rx_packets: Schema.Finite,
  tx_packets: Schema.Finite,
  rx_errors: Schema.Finite,
  tx_errors: Schema.Finite,
  rx_dropped: Schema.Finite,
  tx_dropped: Schema.Finite,
  rx_bytes_per_sec: Schema.Finite,
  tx_bytes_per_sec: Schema.Finite,
  /** Errors and drops, both ways. */
  errors_per_sec: Schema.Finite,
  driver: Schema.optionalKey(Schema.String),
  /** Mbit/s. */
  speed: Schema.optionalKey(Schema.Finite),
  rx_queues: Schema.optionalKey(Schema.Finite),
  tx_queues: Schema.optionalKey(Schema.Finite),
  ring_rx_current: Schema.optionalKey(Schema.Finite),
  ring_rx_max: Schema.optionalKey(Schema.Finite),
  rx_discards: Schema.optionalKey(Schema.Finite),
  rx_discards_per_sec: Schema.optionalKey(Schema.Finite),
  rx_buf_errors: Schema.optionalKey(Schema.Finite),
  rps_enabled: Schema.optionalKey(Schema.Boolean),
  xps_enabled: Schema.optionalKey(Schema.Boolean),
  bond_slave: Schema.optionalKey(Schema.Boolean),
  mtu: Schema.optionalKey(Schema.Finite),
  tso_enabled: Schema.optionalKey(Schema.Boolean),
  gro_enabled: Schema.optionalKey(Schema.Boolean),
  gso_enabled: Schema.optionalKey(Schema.Boolean),
  coalesce_rx_usecs: Schema.optionalKey(Schema.Finite),
  coalesce_rx_frames: Schema.optionalKey(Schema.Finite),
  coalesce_adaptive_rx: Schema.optionalKey(Schema.Boolean)
})
export type Interface = typeof Interface.Type

/** A line of `/proc/net/dev`. */
const columns = [
  "rx_bytes",
  "rx_packets",
  "rx_errors",
  "rx_dropped",
  "rx_fifo",
  "rx_frame",
  "rx_compressed",
  "rx_multicast",
  "tx_bytes",
  "tx_packets",
  "tx_errors",
  "tx_dropped"
] as const
type Dev = Readonly<Record<typeof columns[number], number>>

/** `/proc/net/dev`, by name. */
export const parseDev = (text: string): ReadonlyMap<string, Dev> =>
  new Map(
    ProcFile.lines(text).flatMap((line) => {
      // An alias has a colon in its name; and numbers may follow the last colon without a blank.
      const [, name, rest = ""] = /^\s*(\S+):\s*(\d[\d\s]*)$/.exec(line) ?? []
      const values = ProcFile.words(rest).map(Number)
      if (name === undefined || values.length < columns.length) return []
      // Of each column there is one, as the line before said.
      return [[name, Object.fromEntries(columns.map((column, at) => [column, values[at]])) as unknown as Dev]]
    })
  )

/** `ethtool -S`, `-c`, `-k`: names and values, one to a line, indented. */
export const parseEthtool = (text: string): ReadonlyMap<string, string> =>
  new Map(
    ProcFile.lines(text).flatMap((line) => {
      const [, name, value] = /^\s*([^:]+):\s*(.*?)\s*$/.exec(line) ?? []
      return name === undefined || value === undefined || value === "" ? [] : [[name, value]]
    })
  )

/** `ethtool -g`: how many received packets the ring takes at most, and how many it does now. */
export const parseRing = (text: string) => {
  const [, maximum = "", current = ""] = text.split(/^.*(?:maximums|settings):\s*$/m)
  const received = (section: string) => ProcFile.number(parseEthtool(section).get("RX"))
  return { max: received(maximum), current: received(current) }
}

/** What the hardware counted. Drivers name it as they like: the first name that one has counts. */
interface Hardware {
  readonly discards: number | undefined
  readonly bufErrors: number | undefined
}

const first = (statistics: ReadonlyMap<string, string>, names: ReadonlyArray<string>) =>
  ProcFile.number(names.map((name) => statistics.get(name)).find((value) => value !== undefined))

const discards = ["rx_discards_phy", "rx_discards", "rx_missed_errors", "rx_missed", "rx_out_of_buffer"]
const bufErrors = ["rx_buf_errors", "rx_no_buffer_count", "rx_no_dma_resources", "rx_alloc_failed", "rx_fifo_errors"]

/** What `ethtool` writes. That a driver cannot tell, as those of virtual machines cannot, is no fault of the report. */
const askDriver = Effect.fnUntraced(function*(errors: Array<string>, flag: string, name: string) {
  const problems: Array<string> = []
  const text = yield* ask(problems, "ethtool", flag, name)
  errors.push(...problems.filter((problem) => !/not supported|no stats available/i.test(problem)))
  return text ?? ""
})

/** The counters of the interfaces with hardware behind them, by name. */
export const readPhysical = Effect.fnUntraced(function*(errors: Array<string>) {
  const found = new Map<string, Hardware>()
  for (const name of yield* readNames("sys/class/net")) {
    if (!(yield* isThere(`sys/class/net/${name}/device`))) continue
    const told = parseEthtool(yield* askDriver(errors, "-S", name))
    const kernel = (counter: string) => readNumber(`sys/class/net/${name}/statistics/${counter}`)
    found.set(name, {
      discards: first(told, discards) ?? (yield* kernel("rx_missed_errors")),
      bufErrors: first(told, bufErrors) ?? (yield* kernel("rx_fifo_errors"))
    })
  }
  return found
})

const onOff = (value: string | undefined) =>
  value === undefined ? undefined : value.startsWith("on") ? true : value.startsWith("off") ? false : undefined

/** What only `ethtool` knows of the hardware. */
const readSettings = Effect.fnUntraced(function*(name: string, errors: Array<string>) {
  const told = (flag: string) => askDriver(errors, flag, name)
  const ring = parseRing(yield* told("-g"))
  const features = parseEthtool(yield* told("-k"))
  const coalescing = parseEthtool(yield* told("-c"))
  return {
    ring_rx_current: ring.current,
    ring_rx_max: ring.max,
    tso_enabled: onOff(features.get("tcp-segmentation-offload")),
    gro_enabled: onOff(features.get("generic-receive-offload")),
    gso_enabled: onOff(features.get("generic-segmentation-offload")),
    coalesce_rx_usecs: ProcFile.number(coalescing.get("rx-usecs")),
    coalesce_rx_frames: ProcFile.number(coalescing.get("rx-frames")),
    coalesce_adaptive_rx: onOff(/on|off/.exec(coalescing.get("Adaptive RX") ?? "")?.[0])
  }
})

/** What is told of an interface by the files about it. */
const readDevice = Effect.fnUntraced(function*(name: string) {
  const device = `sys/class/net/${name}` as const
  const queues = yield* readNames(`${device}/queues`)
  const [rx, tx] = ["rx-", "tx-"].map((prefix) => queues.filter((queue) => queue.startsWith(prefix)))
  const steered = (queues: ReadonlyArray<string> | undefined = [], file: string) =>
    Effect.map(
      Effect.forEach(queues, (queue) => readText(`${device}/queues/${queue}/${file}`)),
      // A mask of processors: steered to some of them if any is in it.
      (masks) =>
        masks.every((mask) => mask === undefined) ? undefined : masks.some((mask) => /[1-9a-f]/.test(mask ?? ""))
    )
  const speed = yield* readNumber(`${device}/speed`)
  return {
    driver: yield* readLinkName(`${device}/device/driver`),
    // One that is down or virtual has none, or says -1.
    speed: speed !== undefined && speed > 0 ? speed : undefined,
    rx_queues: rx?.length || undefined,
    tx_queues: tx?.length || undefined,
    rps_enabled: yield* steered(rx, "rps_cpus"),
    xps_enabled: yield* steered(tx, "xps_cpus"),
    bond_slave: (yield* isThere(device)) ? yield* isThere(`${device}/bonding_slave`) : undefined,
    mtu: yield* readNumber(`${device}/mtu`)
  }
})

const failures = ["rx_errors", "tx_errors", "rx_dropped", "tx_dropped"] as const

export const describe = (
  name: string,
  { counters, earlier, physical }: {
    readonly counters: Sample<Dev>
    readonly physical: Hardware | undefined
    readonly earlier: Hardware | undefined
  },
  errors: Array<string>
): Effect.Effect<Interface, never, Roots | Commands | FileSystem.FileSystem> =>
  Effect.gen(function*() {
    const { after, before, seconds } = counters
    const perSecond = (names: ReadonlyArray<keyof Dev>) =>
      seconds <= 0 ? 0 : names.reduce((sum, name) => sum + rise(before[name], after[name]), 0) / seconds
    const hardware = physical && earlier && { before: earlier, after: physical, seconds }
    return {
      name,
      rx_bytes: after.rx_bytes,
      tx_bytes: after.tx_bytes,
      rx_packets: after.rx_packets,
      tx_packets: after.tx_packets,
      rx_errors: after.rx_errors,
      tx_errors: after.tx_errors,
      rx_dropped: after.rx_dropped,
      tx_dropped: after.tx_dropped,
      rx_bytes_per_sec: perSecond(["rx_bytes"]),
      tx_bytes_per_sec: perSecond(["tx_bytes"]),
      errors_per_sec: perSecond(failures),
      ...ProcFile.known({
        ...yield* readDevice(name),
        ...physical && (yield* readSettings(name, errors)),
        rx_discards: physical?.discards,
        rx_discards_per_sec: hardware && rate(hardware, ({ discards }) => discards),
        rx_buf_errors: physical?.bufErrors
      })
    }
  })
