/**
 * `network_stats`: interfaces, TCP and UDP, the path of received packets through the kernel, and how it is set up.
 */
import { Collect } from "@effect-orchestra/workflow"
import { Effect, Record, Schema } from "effect"
import * as ProcFile from "../ProcFile.ts"
import { type File, readNumber, readText } from "../Roots.ts"
import { rate, rise, type Sample, sample } from "../Sampling.ts"
import { ask, type Collected, where } from "./Collected.ts"
import { describe, Interface, parseDev, readPhysical } from "./Interfaces.ts"
import { neglected, parseNetTcp, parseSs } from "./Sockets.ts"

export const Tcp = Schema.Struct({
  curr_estab: Schema.optionalKey(Schema.Finite),
  active_opens: Schema.optionalKey(Schema.Finite),
  passive_opens: Schema.optionalKey(Schema.Finite),
  retrans_segs: Schema.optionalKey(Schema.Finite),
  out_segs: Schema.optionalKey(Schema.Finite),
  retrans_rate_per_sec: Schema.optionalKey(Schema.Finite),
  in_errs: Schema.optionalKey(Schema.Finite),
  out_rsts: Schema.optionalKey(Schema.Finite),
  time_wait_count: Schema.optionalKey(Schema.Finite),
  close_wait_count: Schema.optionalKey(Schema.Finite)
})
export type Tcp = typeof Tcp.Type

export const Conntrack = Schema.Struct({
  count: Schema.Finite,
  max: Schema.Finite,
  usage_pct: Schema.Finite,
  drops: Schema.optionalKey(Schema.Finite),
  insert_failed: Schema.optionalKey(Schema.Finite),
  early_drop: Schema.optionalKey(Schema.Finite),
  drop_rate: Schema.optionalKey(Schema.Finite)
})
export type Conntrack = typeof Conntrack.Type

/** Counters since boot; `_rate` is per second of the sample. */
export const TcpExt = Schema.Struct({
  listen_overflows: Schema.optionalKey(Schema.Finite),
  listen_drops: Schema.optionalKey(Schema.Finite),
  tcp_abort_on_memory: Schema.optionalKey(Schema.Finite),
  tcp_ofo_queue: Schema.optionalKey(Schema.Finite),
  prune_called: Schema.optionalKey(Schema.Finite),
  tcp_rcvq_drop: Schema.optionalKey(Schema.Finite),
  tcp_zero_window_drop: Schema.optionalKey(Schema.Finite),
  tcp_timeouts: Schema.optionalKey(Schema.Finite),
  tcp_lost_retransmit: Schema.optionalKey(Schema.Finite),
  tcp_fast_retrans: Schema.optionalKey(Schema.Finite),
  tcp_backlog_drop: Schema.optionalKey(Schema.Finite),
  tcp_req_q_full_drop: Schema.optionalKey(Schema.Finite),
  sync_cookies_sent: Schema.optionalKey(Schema.Finite),
  listen_overflows_rate: Schema.optionalKey(Schema.Finite),
  listen_drops_rate: Schema.optionalKey(Schema.Finite),
  tcp_abort_on_memory_rate: Schema.optionalKey(Schema.Finite),
  tcp_ofo_queue_rate: Schema.optionalKey(Schema.Finite),
  prune_called_rate: Schema.optionalKey(Schema.Finite),
  tcp_rcvq_drop_rate: Schema.optionalKey(Schema.Finite),
  tcp_zero_window_drop_rate: Schema.optionalKey(Schema.Finite)
})
export type TcpExt = typeof TcpExt.Type

export const Udp = Schema.Struct({
  rcvbuf_errors: Schema.optionalKey(Schema.Finite),
  sndbuf_errors: Schema.optionalKey(Schema.Finite),
  in_errors: Schema.optionalKey(Schema.Finite),
  rcvbuf_err_rate: Schema.optionalKey(Schema.Finite)
})
export type Udp = typeof Udp.Type

export const Softnet = Schema.Struct({
  /** Since boot. */
  stats: Schema.Array(Schema.Struct({
    cpu: Schema.Natural,
    processed: Schema.Finite,
    dropped: Schema.Finite,
    time_squeeze: Schema.Finite
  })),
  /** NET_RX softirqs of the sample. */
  irq_distribution: Schema.Array(Schema.Struct({ cpu: Schema.Natural, net_rx_delta: Schema.Finite })),
  drop_rate: Schema.Finite,
  squeeze_rate: Schema.Finite
})
export type Softnet = typeof Softnet.Type

/** Settings by the last part of their name: `net.core.somaxconn` is `somaxconn`. */
export const Sysctls = Schema.Struct({
  somaxconn: Schema.optionalKey(Schema.Finite),
  netdev_max_backlog: Schema.optionalKey(Schema.Finite),
  netdev_budget: Schema.optionalKey(Schema.Finite),
  netdev_budget_usecs: Schema.optionalKey(Schema.Finite),
  rmem_default: Schema.optionalKey(Schema.Finite),
  rmem_max: Schema.optionalKey(Schema.Finite),
  wmem_default: Schema.optionalKey(Schema.Finite),
  wmem_max: Schema.optionalKey(Schema.Finite),
  default_qdisc: Schema.optionalKey(Schema.String),
  tcp_congestion_control: Schema.optionalKey(Schema.String),
  /** Three numbers in one line: minimum, default, maximum. */
  tcp_rmem: Schema.optionalKey(Schema.String),
  tcp_wmem: Schema.optionalKey(Schema.String),
  tcp_mem: Schema.optionalKey(Schema.String),
  /** Two numbers in one line: first, last. */
  ip_local_port_range: Schema.optionalKey(Schema.String),
  tcp_tw_reuse: Schema.optionalKey(Schema.Finite),
  tcp_max_tw_buckets: Schema.optionalKey(Schema.Finite),
  tcp_max_syn_backlog: Schema.optionalKey(Schema.Finite),
  tcp_syncookies: Schema.optionalKey(Schema.Finite),
  tcp_fastopen: Schema.optionalKey(Schema.Finite),
  tcp_slow_start_after_idle: Schema.optionalKey(Schema.Finite),
  tcp_fin_timeout: Schema.optionalKey(Schema.Finite),
  tcp_keepalive_time: Schema.optionalKey(Schema.Finite),
  tcp_mtu_probing: Schema.optionalKey(Schema.Finite),
  tcp_window_scaling: Schema.optionalKey(Schema.Finite),
  tcp_notsent_lowat: Schema.optionalKey(Schema.Finite),
  gc_thresh1: Schema.optionalKey(Schema.Finite),
  gc_thresh3: Schema.optionalKey(Schema.Finite)
})
export type Sysctls = typeof Sysctls.Type

export const NetworkData = Schema.Struct({
  sample_seconds: Schema.Finite,
  interfaces: Schema.Array(Interface),
  tcp: Schema.optionalKey(Tcp),
  conntrack: Schema.optionalKey(Conntrack),
  tcp_ext: Schema.optionalKey(TcpExt),
  udp: Schema.optionalKey(Udp),
  softnet: Schema.optionalKey(Softnet),
  socket_mem: Schema.optionalKey(Schema.Struct({
    tcp_inuse: Schema.Finite,
    tcp_orphans: Schema.Finite,
    tcp_mem_pages: Schema.Finite,
    udp_inuse: Schema.Finite
  })),
  sysctls: Sysctls,
  /** Listening sockets whose queue is at least half full; left out where nothing tells. */
  listen_sockets: Schema.optionalKey(Schema.Array(Schema.Struct({
    local_addr: Schema.String,
    recv_q: Schema.Finite,
    send_q: Schema.Finite,
    fill_pct: Schema.Finite
  }))),
  /** Established connections with more than 64 KiB that their process has not read. */
  recvq_saturated_count: Schema.optionalKey(Schema.Natural)
})
export type NetworkData = typeof NetworkData.Type

type Counters = ReadonlyMap<string, number>
type Tables = ReadonlyMap<string, Counters>

/** What a processor did with packets that came in. */
interface Arrivals {
  readonly processed: number
  readonly dropped: number
  readonly squeezed: number
}

/** `/proc/net/softnet_stat`, hexadecimal, a line for each processor that is on; newer kernels tell which in column 13. */
export const parseSoftnet = (text: string): ReadonlyMap<number, Arrivals> =>
  new Map(
    ProcFile.lines(text).flatMap((line, index) => {
      const values = ProcFile.words(line).map(ProcFile.hexadecimal)
      const [processed, dropped, squeezed] = values
      if (processed === undefined || dropped === undefined || squeezed === undefined) return []
      return [[values[12] ?? index, { processed, dropped, squeezed }]]
    })
  )

/** `/proc/softirqs`: the interrupts of received packets by processor. */
export const parseSoftirqs = (text: string): ReadonlyMap<number, number> => {
  const [head = "", ...rows] = ProcFile.lines(text)
  const received = rows.find((row) => row.trim().startsWith("NET_RX:")) ?? ""
  const counts = ProcFile.words(received).slice(1).map(ProcFile.number)
  return new Map(
    ProcFile.words(head).flatMap((name, at) => {
      const [cpu, count] = [ProcFile.index(name.slice("CPU".length)), counts[at]]
      return cpu === undefined || count === undefined ? [] : [[cpu, count]]
    })
  )
}

/** `/proc/net/sockstat` and `sockstat6`: `TCP: inuse 1 orphan 0 tw 0 alloc 1 mem 223`. */
export const parseSockstat = (text: string): Tables =>
  new Map(
    ProcFile.lines(text).flatMap((line) => {
      const [, protocol, fields = ""] = /^(\w+): (.*)$/.exec(line) ?? []
      const words = ProcFile.words(fields)
      return protocol === undefined ? [] : [[
        protocol,
        new Map(words.flatMap((word, at) => {
          const value = ProcFile.number(words[at + 1])
          return at % 2 === 1 || value === undefined ? [] : [[word, value]]
        }))
      ]]
    })
  )

/** `/proc/net/stat/nf_conntrack`: names, then a line for each processor, hexadecimal; the sums of all of them. */
export const parseConntrack = (text: string): Counters => {
  const [head = [], ...rows] = ProcFile.lines(text).map(ProcFile.words)
  const sums = new Map<string, number>()
  for (const row of rows) {
    for (const [at, name] of head.entries()) {
      sums.set(name, (sums.get(name) ?? 0) + (ProcFile.hexadecimal(row[at]) ?? 0))
    }
  }
  return sums
}

const readTables = (file: File) => Effect.map(readText(file), (text) => ProcFile.tables(text ?? ""))
const parsed = <A>(file: File, parse: (text: string) => A) => Effect.map(readText(file), (text) => parse(text ?? ""))

/** All that is counted. */
const readCounters = (errors: Array<string>) =>
  Effect.all({
    interfaces: parsed("proc/net/dev", parseDev),
    physical: readPhysical(errors),
    snmp: readTables("proc/net/snmp"),
    netstat: readTables("proc/net/netstat"),
    softnet: parsed("proc/net/softnet_stat", parseSoftnet),
    softirqs: parsed("proc/softirqs", parseSoftirqs),
    conntrack: parsed("proc/net/stat/nf_conntrack", parseConntrack)
  })
type Reading = Effect.Success<ReturnType<typeof readCounters>>

const tcpOf = (reading: Sample<Reading>): Tcp | undefined => {
  const total = (name: string) => reading.after.snmp.get("Tcp")?.get(name)
  return reading.after.snmp.has("Tcp")
    ? ProcFile.known({
      curr_estab: total("CurrEstab"),
      active_opens: total("ActiveOpens"),
      passive_opens: total("PassiveOpens"),
      retrans_segs: total("RetransSegs"),
      out_segs: total("OutSegs"),
      retrans_rate_per_sec: rate(reading, ({ snmp }) => snmp.get("Tcp")?.get("RetransSegs")),
      in_errs: total("InErrs"),
      out_rsts: total("OutRsts")
    })
    : undefined
}

const tcpExtOf = (reading: Sample<Reading>): TcpExt | undefined => {
  const total = (name: string) => reading.after.netstat.get("TcpExt")?.get(name)
  const perSecond = (name: string) => rate(reading, ({ netstat }) => netstat.get("TcpExt")?.get(name))
  return reading.after.netstat.has("TcpExt")
    ? ProcFile.known({
      listen_overflows: total("ListenOverflows"),
      listen_drops: total("ListenDrops"),
      tcp_abort_on_memory: total("TCPAbortOnMemory"),
      tcp_ofo_queue: total("TCPOFOQueue"),
      prune_called: total("PruneCalled"),
      tcp_rcvq_drop: total("TCPRcvQDrop"),
      tcp_zero_window_drop: total("TCPZeroWindowDrop"),
      tcp_timeouts: total("TCPTimeouts"),
      tcp_lost_retransmit: total("TCPLostRetransmit"),
      tcp_fast_retrans: total("TCPFastRetrans"),
      tcp_backlog_drop: total("TCPBacklogDrop"),
      tcp_req_q_full_drop: total("TCPReqQFullDrop"),
      sync_cookies_sent: total("SyncookiesSent"),
      listen_overflows_rate: perSecond("ListenOverflows"),
      listen_drops_rate: perSecond("ListenDrops"),
      tcp_abort_on_memory_rate: perSecond("TCPAbortOnMemory"),
      tcp_ofo_queue_rate: perSecond("TCPOFOQueue"),
      prune_called_rate: perSecond("PruneCalled"),
      tcp_rcvq_drop_rate: perSecond("TCPRcvQDrop"),
      tcp_zero_window_drop_rate: perSecond("TCPZeroWindowDrop")
    })
    : undefined
}

const udpOf = (reading: Sample<Reading>): Udp | undefined => {
  const total = (name: string) => reading.after.snmp.get("Udp")?.get(name)
  return reading.after.snmp.has("Udp")
    ? ProcFile.known({
      rcvbuf_errors: total("RcvbufErrors"),
      sndbuf_errors: total("SndbufErrors"),
      in_errors: total("InErrors"),
      rcvbuf_err_rate: rate(reading, ({ snmp }) => snmp.get("Udp")?.get("RcvbufErrors"))
    })
    : undefined
}

const softnetOf = ({ after, before, seconds }: Sample<Reading>): Softnet | undefined => {
  // The counters of each processor have 32 bits, so that their sum may not be compared with the one before.
  const perSecond = (of: keyof Arrivals) =>
    seconds <= 0 ? 0 : Array.from(after.softnet).reduce((sum, [cpu, now]) => {
      const then = before.softnet.get(cpu)
      return then === undefined ? sum : sum + rise(then[of], now[of])
    }, 0) / seconds
  return after.softnet.size === 0 ? undefined : {
    stats: Array.from(after.softnet, ([cpu, { dropped, processed, squeezed }]) => ({
      cpu,
      processed,
      dropped,
      time_squeeze: squeezed
    })),
    irq_distribution: Array.from(after.softirqs).flatMap(([cpu, now]) => {
      const then = before.softirqs.get(cpu)
      return then === undefined ? [] : [{ cpu, net_rx_delta: rise(then, now) }]
    }),
    drop_rate: perSecond("dropped"),
    squeeze_rate: perSecond("squeezed")
  }
}

const readConntrack = Effect.fnUntraced(function*(reading: Sample<Reading>) {
  const count = yield* readNumber("proc/sys/net/netfilter/nf_conntrack_count")
  const max = yield* readNumber("proc/sys/net/netfilter/nf_conntrack_max")
  if (count === undefined || max === undefined || max === 0) return undefined
  const total = (name: string) => reading.after.conntrack.get(name)
  const conntrack: Conntrack = ProcFile.known({
    count,
    max,
    usage_pct: 100 * count / max,
    drops: total("drop"),
    insert_failed: total("insert_failed"),
    early_drop: total("early_drop"),
    drop_rate: rate(reading, ({ conntrack }) => conntrack.get("drop"))
  })
  return conntrack
})

/** The sockets of TCP, from `ss` where it is there: it alone knows how full a queue may be. */
const readSockets = Effect.fnUntraced(function*(errors: Array<string>) {
  const told = yield* ask(errors, "ss", "-H", "-t", "-a", "-n")
  if (told !== undefined) return neglected(parseSs(told))
  const tables = yield* Effect.forEach(["proc/net/tcp", "proc/net/tcp6"] as const, readText)
  return tables.every((table) => table === undefined)
    ? undefined
    : neglected(tables.flatMap((table) => parseNetTcp(table ?? "")))
})

const numeric = {
  somaxconn: "core/somaxconn",
  netdev_max_backlog: "core/netdev_max_backlog",
  netdev_budget: "core/netdev_budget",
  netdev_budget_usecs: "core/netdev_budget_usecs",
  rmem_default: "core/rmem_default",
  rmem_max: "core/rmem_max",
  wmem_default: "core/wmem_default",
  wmem_max: "core/wmem_max",
  tcp_tw_reuse: "ipv4/tcp_tw_reuse",
  tcp_max_tw_buckets: "ipv4/tcp_max_tw_buckets",
  tcp_max_syn_backlog: "ipv4/tcp_max_syn_backlog",
  tcp_syncookies: "ipv4/tcp_syncookies",
  tcp_fastopen: "ipv4/tcp_fastopen",
  tcp_slow_start_after_idle: "ipv4/tcp_slow_start_after_idle",
  tcp_fin_timeout: "ipv4/tcp_fin_timeout",
  tcp_keepalive_time: "ipv4/tcp_keepalive_time",
  tcp_mtu_probing: "ipv4/tcp_mtu_probing",
  tcp_window_scaling: "ipv4/tcp_window_scaling",
  tcp_notsent_lowat: "ipv4/tcp_notsent_lowat",
  gc_thresh1: "ipv4/neigh/default/gc_thresh1",
  gc_thresh3: "ipv4/neigh/default/gc_thresh3"
} as const

const textual = {
  default_qdisc: "core/default_qdisc",
  tcp_congestion_control: "ipv4/tcp_congestion_control",
  tcp_rmem: "ipv4/tcp_rmem",
  tcp_wmem: "ipv4/tcp_wmem",
  tcp_mem: "ipv4/tcp_mem",
  ip_local_port_range: "ipv4/ip_local_port_range"
} as const

const setting = (path: string) => readText(`proc/sys/net/${path}`)
const readSysctls = Effect.gen(function*() {
  const numbers = yield* Effect.all(Record.map(numeric, (path) => Effect.map(setting(path), ProcFile.number)))
  const texts = yield* Effect.all(
    Record.map(textual, (path) => Effect.map(setting(path), (text) => text?.replace(/\s+/g, " ")))
  )
  return ProcFile.known({ ...numbers, ...texts }) satisfies Sysctls
})

const collect = Effect.gen(function*() {
  const errors: Array<string> = []
  const reading = yield* sample(readCounters(errors))
  const { after, before, seconds } = reading
  const sockets = yield* readSockets(errors)
  const sockstat = parseSockstat(
    `${(yield* readText("proc/net/sockstat")) ?? ""}\n${(yield* readText("proc/net/sockstat6")) ?? ""}`
  )
  const inUse = (protocol: string, field: string) => sockstat.get(protocol)?.get(field) ?? 0
  const tcp = tcpOf(reading)
  const data: NetworkData = ProcFile.known({
    sample_seconds: seconds,
    interfaces: yield* Effect.forEach(after.interfaces, ([name, now]) =>
      describe(name, {
        counters: { before: before.interfaces.get(name) ?? now, after: now, seconds },
        physical: after.physical.get(name),
        earlier: before.physical.get(name)
      }, errors)),
    tcp: tcp && {
      ...tcp,
      ...ProcFile.known({
        time_wait_count: sockstat.get("TCP")?.get("tw"),
        close_wait_count: sockets?.close_wait_count
      })
    },
    conntrack: yield* readConntrack(reading),
    tcp_ext: tcpExtOf(reading),
    udp: udpOf(reading),
    softnet: softnetOf(reading),
    socket_mem: sockstat.size === 0 ? undefined : {
      tcp_inuse: inUse("TCP", "inuse") + inUse("TCP6", "inuse"),
      tcp_orphans: inUse("TCP", "orphan"),
      tcp_mem_pages: inUse("TCP", "mem"),
      udp_inuse: inUse("UDP", "inuse") + inUse("UDP6", "inuse")
    },
    sysctls: yield* readSysctls,
    listen_sockets: sockets?.listen_sockets,
    recvq_saturated_count: sockets?.recvq_saturated_count
  })
  return { data, errors: Array.from(new Set(errors)) } satisfies Collected<NetworkData>
})

export const networkStats = Collect.make("network_stats", {
  category: "network",
  available: where("proc/net/dev"),
  collect
})
