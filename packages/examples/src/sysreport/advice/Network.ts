/**
 * The network, from the card to the socket.
 */
import type { Data } from "../Findings.ts"
import { above, type Advice, below, from, gregg, kernel, look, quoted, raise, settings } from "./Advice.ts"

const rule = from("network")

export const network: ReadonlyArray<Advice> = [
  rule({
    title: "Use BBR congestion control: packets are lost",
    type: "optimization",
    impact: "medium",
    gain: "throughput that does not break down with each packet lost",
    against: ["tcp_retransmits"],
    source: "Cardwell et al., BBR: Congestion-Based Congestion Control",
    when: ({ sysctls: { tcp_congestion_control }, tcp }) =>
      tcp_congestion_control !== undefined && tcp_congestion_control !== "bbr" && above(tcp?.retrans_rate_per_sec, 1) &&
      settings({ "net.core.default_qdisc": "fq", "net.ipv4.tcp_congestion_control": "bbr" }, {
        tcp_congestion_control,
        retrans_rate_per_sec: tcp?.retrans_rate_per_sec
      })
  }),
  rule({
    title: "Investigate TCP retransmissions",
    type: "fix",
    impact: "high",
    gain: "finds the way on which packets are lost",
    against: ["tcp_retransmits", "network_errors_per_sec"],
    source: gregg(10),
    when: ({ tcp }) =>
      above(tcp?.retrans_rate_per_sec, 1) &&
      look(["ss -ti state established", "nstat -az TcpRetransSegs TcpExtTCPLostRetransmit"], {
        retrans_rate_per_sec: tcp?.retrans_rate_per_sec,
        curr_estab: tcp?.curr_estab
      })
  }),
  rule({
    title: "Allow listeners longer queues",
    type: "optimization",
    impact: "medium",
    gain: "bursts of connections find a place to wait",
    against: ["listen_queue_saturation", "listen_overflows"],
    source: kernel("networking/ip-sysctl"),
    when: ({ sysctls: { somaxconn }, ...data }) =>
      below(somaxconn, 4096) && listenersFill(data) &&
      settings({ "net.core.somaxconn": 4096 }, { somaxconn, listeners_half_full: data.listen_sockets?.length })
  }),
  rule({
    title: "Allow TCP larger receive buffers",
    type: "optimization",
    impact: "medium",
    gain: "throughput on long and fast ways",
    against: [],
    source: gregg(10),
    when: ({ sysctls: { tcp_rmem }, ...data }) =>
      // For windows that are closed there is a fix, with the same buffers.
      below(maximum(tcp_rmem), 4 * MiB) && !above(data.tcp_ext?.tcp_zero_window_drop_rate, 0) &&
      traffic(data) > muchTraffic &&
      settings({ "net.ipv4.tcp_rmem": receiveBuffers }, { tcp_rmem, bytes_per_sec: traffic(data) })
  }),
  rule({
    title: "Allow TCP larger send buffers",
    type: "optimization",
    impact: "medium",
    gain: "throughput on long and fast ways",
    against: [],
    source: gregg(10),
    when: ({ sysctls: { tcp_wmem }, ...data }) =>
      below(maximum(tcp_wmem), 4 * MiB) && traffic(data) > muchTraffic &&
      settings({ "net.ipv4.tcp_wmem": "4096 65536 16777216" }, { tcp_wmem, bytes_per_sec: traffic(data) })
  }),
  rule({
    title: "Use ports in TIME_WAIT for new connections",
    type: "fix",
    impact: "medium",
    gain: "connections to the same address find a port",
    against: ["tcp_timewait"],
    source: gregg(10),
    when: ({ sysctls: { tcp_tw_reuse }, tcp }) =>
      tcp_tw_reuse === 0 && above(tcp?.time_wait_count, 1000) &&
      settings({ "net.ipv4.tcp_tw_reuse": 1 }, { tcp_tw_reuse, time_wait_count: tcp?.time_wait_count })
  }),
  rule({
    title: "Remember more connections that are being made",
    type: "optimization",
    impact: "medium",
    gain: "bursts of connections are not turned away",
    against: ["listen_overflows"],
    source: gregg(10),
    when: ({ sysctls: { tcp_max_syn_backlog }, ...data }) =>
      below(tcp_max_syn_backlog, 4096) && listenersFill(data) &&
      settings({ "net.ipv4.tcp_max_syn_backlog": 8192 }, {
        tcp_max_syn_backlog,
        listeners_half_full: data.listen_sockets?.length
      })
  }),
  rule({
    title: "Connection tracking table approaching capacity: double it",
    type: "fix",
    impact: "high",
    gain: "new connections are not dropped",
    against: ["conntrack_usage_pct"],
    source: kernel("networking/nf_conntrack-sysctl"),
    when: ({ conntrack }) =>
      conntrack !== undefined && conntrack.usage_pct > 70 &&
      settings({ "net.netfilter.nf_conntrack_max": conntrack.max * 2 }, { ...conntrack })
  }),
  rule({
    title: "Enlarge the ring of a network card that discards packets",
    type: "fix",
    impact: "high",
    gain: "bursts of packets find a place",
    against: ["nic_rx_discards"],
    source: gregg(10),
    when: ({ interfaces }) =>
      interfaces.flatMap(({ driver, name, ring_rx_current, ring_rx_max, rx_discards_per_sec }) =>
        ring_rx_max === undefined || !below(ring_rx_current, ring_rx_max / 2) || !above(rx_discards_per_sec, 0)
          ? []
          : look([`ethtool -G ${quoted(name)} rx ${ring_rx_max}`], {
            interface: name,
            ring_rx_current,
            ring_rx_max,
            rx_discards_per_sec,
            driver
          }).map((occasion) => ({ ...occasion, title: `Enlarge the ring of ${name}: it discards packets` }))
      )
  }),
  rule({
    title: "Listeners overflow: allow longer queues, and accept faster",
    type: "fix",
    impact: "high",
    gain: "connections are not turned away",
    against: ["listen_overflows", "listen_queue_saturation"],
    source: "man 2 listen, man 7 socket (SO_REUSEPORT)",
    when: ({ sysctls: { somaxconn, tcp_max_syn_backlog }, tcp_ext }) => {
      const evidence = {
        listen_overflows_rate: tcp_ext?.listen_overflows_rate,
        listen_drops_rate: tcp_ext?.listen_drops_rate,
        somaxconn
      }
      if (!above(tcp_ext?.listen_overflows_rate, 0)) return false
      const larger = settings({
        "net.core.somaxconn": raise(somaxconn, 65_535),
        "net.ipv4.tcp_max_syn_backlog": raise(tcp_max_syn_backlog, 65_535)
      }, evidence)
      return larger.length > 0 ? larger : look(["ss -tnl"], evidence)
    }
  }),
  rule({
    title: "Let more packets wait for the kernel: it drops them",
    type: "fix",
    impact: "high",
    gain: "bursts of packets are not dropped",
    against: ["softnet_dropped"],
    source: "Red Hat, Network Performance Tuning Guide",
    when: ({ softnet, sysctls: { netdev_max_backlog } }) =>
      below(netdev_max_backlog, 5000) && above(softnet?.drop_rate, 0) &&
      settings({ "net.core.netdev_max_backlog": 10_000 }, { netdev_max_backlog, drop_rate: softnet?.drop_rate })
  }),
  rule({
    title: "Allow sockets larger buffers",
    type: "optimization",
    impact: "low",
    gain: "programs that ask for large buffers get them",
    against: [],
    source: "ESnet, Host Tuning",
    when: ({ sysctls: { rmem_max, wmem_max }, ...data }) =>
      // For packets that are dropped there is a fix, with larger ones.
      below(rmem_max, 16 * MiB) && !above(data.udp?.rcvbuf_err_rate, 0) && traffic(data) > muchTraffic &&
      settings({ "net.core.rmem_max": 16 * MiB, "net.core.wmem_max": raise(wmem_max, 16 * MiB) }, {
        rmem_max,
        wmem_max,
        bytes_per_sec: traffic(data)
      })
  }),
  rule({
    title: "Use more ports for outgoing connections",
    type: "optimization",
    impact: "medium",
    gain: "connections do not fail for want of a port",
    against: ["tcp_timewait"],
    source: "man 7 ip (ip_local_port_range)",
    when: ({ sysctls: { ip_local_port_range }, tcp }) => {
      const available = portsOf(ip_local_port_range)
      return below(available, 40_000) && above(socketsOf(tcp), (available ?? 0) / 2) &&
        settings({ "net.ipv4.ip_local_port_range": "1024 65535" }, {
          ip_local_port_range,
          curr_estab: tcp?.curr_estab,
          time_wait_count: tcp?.time_wait_count
        })
    }
  }),
  rule({
    title: "Keep the speed of connections that pause",
    type: "optimization",
    impact: "low",
    gain: "connections that are kept open do not start slowly after each pause",
    against: [],
    source: "RFC 7661",
    when: ({ sysctls: { tcp_slow_start_after_idle }, tcp, ...data }) =>
      tcp_slow_start_after_idle === 1 && above(tcp?.curr_estab, 100) && traffic(data) > muchTraffic &&
      settings({ "net.ipv4.tcp_slow_start_after_idle": 0 }, {
        tcp_slow_start_after_idle,
        curr_estab: tcp?.curr_estab,
        bytes_per_sec: traffic(data)
      })
  }),
  rule({
    title: "Send data with the first packet of a connection",
    type: "optimization",
    impact: "low",
    gain: "one round trip less for each of many short connections",
    against: [],
    source: "RFC 7413",
    when: ({ sysctls: { tcp_fastopen }, tcp }) =>
      below(tcp_fastopen, 3) && above(tcp?.time_wait_count, 1000) &&
      settings({ "net.ipv4.tcp_fastopen": 3 }, { tcp_fastopen, time_wait_count: tcp?.time_wait_count })
  }),
  rule({
    title: "Give receiving more time at once: packets are left over",
    type: "fix",
    impact: "medium",
    gain: "packets are taken from the card before it is full",
    against: ["softnet_time_squeeze"],
    source: gregg(10),
    when: ({ softnet, sysctls: { netdev_budget, netdev_budget_usecs } }) =>
      below(netdev_budget, 600) && above(softnet?.squeeze_rate, 0) &&
      settings({ "net.core.netdev_budget": 600, "net.core.netdev_budget_usecs": raise(netdev_budget_usecs, 8000) }, {
        squeeze_rate: softnet?.squeeze_rate,
        netdev_budget,
        netdev_budget_usecs
      })
  }),
  rule({
    title: "Allow UDP sockets larger buffers: packets are dropped",
    type: "fix",
    impact: "high",
    gain: "bursts of packets find a place",
    against: ["udp_rcvbuf_errors"],
    source: "man 7 udp",
    when: ({ sysctls: { rmem_max }, udp }) =>
      below(rmem_max, 25 * MiB) && above(udp?.rcvbuf_err_rate, 0) &&
      settings({ "net.core.rmem_max": 25 * MiB }, { rcvbuf_err_rate: udp?.rcvbuf_err_rate, rmem_max })
  }),
  rule({
    title: "A process does not read what its connections received",
    type: "fix",
    impact: "medium",
    gain: "finds the process that the other side waits for",
    against: ["tcp_rcvq_drop", "tcp_zero_window_drop"],
    source: gregg(10),
    when: ({ recvq_saturated_count }) =>
      above(recvq_saturated_count, 0) &&
      look(["ss -tnp state established | awk '$1 > 65536'"], { recvq_saturated_count })
  }),
  rule({
    title: "The queue of a listener is almost full",
    type: "fix",
    impact: "high",
    gain: "connections are accepted before they are turned away",
    against: ["listen_queue_saturation"],
    source: "man 7 socket (SO_REUSEPORT)",
    when: ({ listen_sockets = [] }) =>
      listen_sockets.filter(({ fill_pct }) => fill_pct >= 70).flatMap(({ fill_pct, local_addr, recv_q, send_q }) =>
        look([`ss -tnlp src ${quoted(local_addr)}`], { local_addr, recv_q, send_q, fill_pct })
          .map((occasion) => ({ ...occasion, title: `The queue of the listener at ${local_addr} is almost full` }))
      )
  }),
  rule({
    title: "Allow TCP larger receive buffers: windows are closed",
    type: "fix",
    impact: "medium",
    gain: "the other side may go on while a process pauses",
    against: ["tcp_zero_window_drop"],
    source: gregg(10),
    when: ({ sysctls: { tcp_rmem }, tcp_ext }) =>
      above(tcp_ext?.tcp_zero_window_drop_rate, 0) && below(maximum(tcp_rmem), 16 * MiB) &&
      settings({ "net.ipv4.tcp_rmem": receiveBuffers }, {
        tcp_zero_window_drop_rate: tcp_ext?.tcp_zero_window_drop_rate,
        tcp_rmem
      })
  }),
  rule({
    title: "Remember more neighbours",
    type: "optimization",
    impact: "low",
    gain: "no errors of a full table of neighbours",
    against: [],
    source: "man 7 arp",
    when: ({ sysctls: { gc_thresh3 }, tcp }) =>
      gc_thresh3 !== undefined && gc_thresh3 <= 1024 && above(tcp?.curr_estab, 1000) &&
      settings({
        "net.ipv4.neigh.default.gc_thresh1": 2048,
        "net.ipv4.neigh.default.gc_thresh2": 4096,
        "net.ipv4.neigh.default.gc_thresh3": 8192
      }, { gc_thresh3, curr_estab: tcp?.curr_estab })
  }),
  rule({
    title: "Give TCP more memory: what it received is pruned",
    type: "fix",
    impact: "high",
    gain: "packets that were received are not thrown away",
    against: ["tcp_abort_on_memory", "tcp_rcvq_drop"],
    source: kernel("networking/ip-sysctl"),
    when: ({ sysctls: { tcp_mem }, tcp_ext }) => {
      const pages = maximum(tcp_mem)
      return pages !== undefined && above(tcp_ext?.prune_called_rate, 0) &&
        settings({ "net.ipv4.tcp_mem": [pages / 2, pages, pages * 2].map(Math.ceil).join(" ") }, {
          prune_called_rate: tcp_ext?.prune_called_rate,
          tcp_mem
        })
    }
  })
]

type Network = Data["network"]
const MiB = 1024 * 1024
const receiveBuffers = "4096 131072 16777216"

/** The last of three numbers in one line: minimum, default, maximum. */
const maximum = (triple: string | undefined): number | undefined => numbers(triple)[2]

const portsOf = (range: string | undefined): number | undefined => {
  const [first, last] = numbers(range)
  return first === undefined || last === undefined ? undefined : last - first + 1
}

const numbers = (line = ""): ReadonlyArray<number> => line.match(/\d+/g)?.map(Number) ?? []

/** Connections that have a port, or keep it from others. */
const socketsOf = (tcp: Network["tcp"]): number => (tcp?.curr_estab ?? 0) + (tcp?.time_wait_count ?? 0)

/** Bytes per second, both ways, of all interfaces that lead out of the machine. */
const traffic = ({ interfaces }: Pick<Network, "interfaces">): number =>
  interfaces.reduce(
    (sum, { name, rx_bytes_per_sec, tx_bytes_per_sec }) =>
      name === "lo" ? sum : sum + rx_bytes_per_sec + tx_bytes_per_sec,
    0
  )

/** 100 Mbit/s: less of it gains nothing by larger buffers. */
const muchTraffic = 12_500_000

/** Some are half full, which is all that the data tells; for those that overflow there is a fix. */
const listenersFill = ({ listen_sockets, tcp_ext }: Pick<Network, "listen_sockets" | "tcp_ext">): boolean =>
  above(listen_sockets?.length, 0) && !above(tcp_ext?.listen_overflows_rate, 0)
