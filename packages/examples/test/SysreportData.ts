/**
 * What the collectors find on a machine with nothing wrong with it, all of it known, and the reports made of such data.
 */
import { DateTime } from "effect"
import { analyze } from "../src/sysreport/Analysis.ts"
import type { Data } from "../src/sysreport/Findings.ts"
import { type Categories, type Report, schemaVersion } from "../src/sysreport/Report.ts"

/** By collector; one that is left out was not selected. */
export type Found = { readonly [S in keyof Data]?: Data[S] }

const GiB = 1024 ** 3

/** A kernel as it comes: its settings are those that are often advised against. Its counters have a past. */
export const healthy: Data = {
  cpu: {
    sample_seconds: 1,
    user_pct: 10,
    system_pct: 4,
    iowait_pct: 1,
    idle_pct: 84,
    steal_pct: 0,
    irq_pct: 0.5,
    softirq_pct: 0.5,
    context_switches_per_sec: 4000,
    load_avg_1: 0.8,
    load_avg_5: 0.7,
    load_avg_15: 0.6,
    num_cpus: 4,
    per_cpu: [0, 1, 2, 3].map((cpu) => ({ cpu, user_pct: 10, system_pct: 4, iowait_pct: 1, idle_pct: 84 })),
    sched_latency_ns: 30_000_000,
    sched_min_granularity_ns: 3_000_000,
    psi_some_10: 0.5,
    psi_some_60: 0.4
  },
  memory: {
    sample_seconds: 1,
    total_bytes: 32 * GiB,
    free_bytes: 4 * GiB,
    available_bytes: 20 * GiB,
    cached_bytes: 15 * GiB,
    buffers_bytes: GiB,
    swap_total_bytes: 4 * GiB,
    swap_used_bytes: 0,
    dirty_bytes: 1_000_000,
    major_faults: 90_000,
    minor_faults: 9_000_000,
    major_faults_per_sec: 0,
    minor_faults_per_sec: 800,
    swappiness: 60,
    overcommit_memory: 0,
    overcommit_ratio: 50,
    dirty_ratio: 40,
    dirty_background_ratio: 10,
    huge_pages_total: 0,
    huge_pages_free: 0,
    psi_some_10: 0,
    psi_some_60: 0,
    psi_full_10: 0,
    psi_full_60: 0,
    thp_enabled: "always",
    thp_defrag: "madvise",
    min_free_kbytes: 45_000,
    watermark_scale_factor: 10,
    numa_nodes: [0, 1].map((node) => ({
      node,
      mem_total_bytes: 16 * GiB,
      mem_free_bytes: 2 * GiB,
      numa_hit: 1_000_000,
      numa_miss: 400_000,
      numa_foreign: 400_000,
      miss_ratio: 0.1,
      distance: [10, 21],
      cpus: "0-1"
    })),
    buddy_info: [{ node: 0, zone: "Normal", free_blocks: [10, 5, 2] }],
    reclaim: {
      pgscan_direct: 5_000_000,
      pgscan_kswapd: 9_000_000,
      pgsteal_direct: 4_000_000,
      pgsteal_kswapd: 8_000_000,
      allocstall_normal: 70_000,
      allocstall_movable: 9000,
      compact_stall: 40_000,
      compact_success: 3000,
      compact_fail: 1000,
      thp_fault_alloc: 100_000,
      thp_collapse_alloc: 2000,
      thp_split_page: 80_000,
      oom_kill: 12,
      direct_reclaim_rate: 0,
      compact_stall_rate: 0,
      thp_split_rate: 0,
      oom_kill_rate: 0
    }
  },
  disk: {
    sample_seconds: 1,
    devices: [disk("sda", true, "mq-deadline"), disk("nvme0n1", false, "bfq")],
    total_ops: 40,
    read_ops: 20,
    write_ops: 20,
    psi_some_10: 0.1,
    psi_some_60: 0.1
  },
  network: {
    sample_seconds: 1,
    interfaces: [nic("lo"), nic("eth0")],
    tcp: {
      curr_estab: 40,
      active_opens: 900_000,
      passive_opens: 800_000,
      retrans_segs: 500_000,
      out_segs: 90_000_000,
      retrans_rate_per_sec: 0,
      in_errs: 300,
      out_rsts: 5000,
      time_wait_count: 60,
      close_wait_count: 1
    },
    conntrack: {
      count: 900,
      max: 262_144,
      usage_pct: 0.3,
      drops: 900,
      insert_failed: 80,
      early_drop: 7,
      drop_rate: 0
    },
    tcp_ext: {
      listen_overflows: 30_000,
      listen_drops: 30_000,
      tcp_abort_on_memory: 400,
      tcp_ofo_queue: 9000,
      prune_called: 70_000,
      tcp_rcvq_drop: 600,
      tcp_zero_window_drop: 5000,
      tcp_timeouts: 8000,
      tcp_lost_retransmit: 900,
      tcp_fast_retrans: 700,
      tcp_backlog_drop: 6,
      tcp_req_q_full_drop: 4,
      sync_cookies_sent: 20,
      listen_overflows_rate: 0,
      listen_drops_rate: 0,
      tcp_abort_on_memory_rate: 0,
      tcp_ofo_queue_rate: 0,
      prune_called_rate: 0,
      tcp_rcvq_drop_rate: 0,
      tcp_zero_window_drop_rate: 0
    },
    udp: { rcvbuf_errors: 40_000, sndbuf_errors: 10, in_errors: 40_000, rcvbuf_err_rate: 0 },
    softnet: {
      stats: [{ cpu: 0, processed: 9_000_000, dropped: 5000, time_squeeze: 7000 }],
      irq_distribution: Array.from({ length: 32 }, (_, cpu) => ({ cpu, net_rx_delta: 100 })),
      drop_rate: 0,
      squeeze_rate: 0
    },
    socket_mem: { tcp_inuse: 50, tcp_orphans: 0, tcp_mem_pages: 90, udp_inuse: 8 },
    sysctls: {
      somaxconn: 128,
      netdev_max_backlog: 1000,
      netdev_budget: 300,
      netdev_budget_usecs: 2000,
      rmem_default: 212_992,
      rmem_max: 212_992,
      wmem_default: 212_992,
      wmem_max: 212_992,
      default_qdisc: "fq_codel",
      tcp_congestion_control: "cubic",
      tcp_rmem: "4096\t131072\t2097152",
      tcp_wmem: "4096 16384 2097152",
      tcp_mem: "190000 250000 380000",
      ip_local_port_range: "32768\t60999",
      tcp_tw_reuse: 0,
      tcp_max_tw_buckets: 131_072,
      tcp_max_syn_backlog: 1024,
      tcp_syncookies: 1,
      tcp_fastopen: 1,
      tcp_slow_start_after_idle: 1,
      tcp_fin_timeout: 60,
      tcp_keepalive_time: 7200,
      tcp_mtu_probing: 0,
      tcp_window_scaling: 1,
      tcp_notsent_lowat: 4_294_967_295,
      gc_thresh1: 128,
      gc_thresh3: 1024
    },
    listen_sockets: [],
    recvq_saturated_count: 0
  },
  process: {
    sample_seconds: 1,
    top_by_cpu: [{
      pid: 10,
      comm: "node",
      cpu_pct: 20,
      mem_rss_bytes: GiB,
      mem_pct: 3,
      threads: 12,
      fds: 40,
      state: "S"
    }],
    top_by_mem: [{
      pid: 10,
      comm: "node",
      cpu_pct: 20,
      mem_rss_bytes: GiB,
      mem_pct: 3,
      threads: 12,
      fds: 40,
      state: "S"
    }],
    total_processes: 200,
    running: 1,
    sleeping: 199,
    zombie: 0,
    excluded_pids: [99]
  },
  container: {
    sample_seconds: 1,
    runtime: "docker",
    cgroup_version: 2,
    cgroup_path: "/docker/abc",
    container_id: "abc",
    cpu_quota: 200_000,
    cpu_period: 100_000,
    cpu_throttled_periods: 90_000,
    cpu_throttled_time_us: 800_000_000,
    cpu_throttled_periods_per_sec: 0,
    cpu_throttled_us_per_sec: 0,
    cpu_usage_cores: 0.4,
    cpu_quota_used_pct: 20,
    memory_limit_bytes: 8 * GiB,
    // Nearly all of it is cached files.
    memory_usage_bytes: 7.9 * GiB,
    memory_working_set_bytes: 2 * GiB
  },
  system: {
    os: "Debian GNU/Linux 13",
    kernel: "Linux version 6.12",
    uptime_seconds: 8_000_000,
    boot_params: "quiet",
    filesystems: [{ mount: "/", device: "/dev/sda1", type: "ext4", size_gb: 100, used_pct: 40 }],
    block_devices: [{ name: "sda", type: "hdd", size_gb: 100, model: "Model" }],
    dmesg_errors: []
  },
  gpu: {
    gpus: [{ index: 0, name: "GPU", pci_address: "0000:01:00.0", numa_node: 0, utilization_pct: 5 }],
    nics: [{ name: "eth0", numa_node: 0 }],
    cross_numa_pairs: []
  }
}

function disk(name: string, rotational: boolean, scheduler: string): Data["disk"]["devices"][number] {
  return {
    name,
    read_ops: 10,
    write_ops: 10,
    read_bytes: 40_960,
    write_bytes: 40_960,
    io_in_progress: 0,
    io_time_ms: 30,
    weighted_io_ms: 20,
    utilization_pct: 3,
    avg_latency_ms: 1,
    scheduler,
    queue_depth: 64,
    rotational,
    read_ahead_kb: 128
  }
}

function nic(name: string): Data["network"]["interfaces"][number] {
  return {
    name,
    rx_bytes: 90_000_000_000,
    tx_bytes: 90_000_000_000,
    rx_packets: 80_000_000,
    tx_packets: 80_000_000,
    rx_errors: 5000,
    tx_errors: 0,
    rx_dropped: 90_000,
    tx_dropped: 0,
    rx_bytes_per_sec: 100_000,
    tx_bytes_per_sec: 50_000,
    errors_per_sec: 0,
    driver: "e1000",
    speed: 1000,
    ring_rx_current: 256,
    ring_rx_max: 4096,
    rx_discards: 700_000,
    rx_discards_per_sec: 0,
    mtu: 1500
  }
}

const at = DateTime.makeUnsafe("2026-03-01T12:00:00Z")

export const result = <C extends string, K extends string, D>(collector: C, category: K, data: D) => ({
  collector,
  category,
  tier: 1,
  status: "ok" as const,
  start_time: at,
  end_time: at,
  duration_ms: 1000,
  attempts: 1,
  data,
  errors: []
})

export const categoriesOf = ({ container, cpu, disk, gpu, memory, network, process, system }: Found): Categories => ({
  ...cpu && { cpu: [result("cpu_utilization", "cpu", cpu)] },
  ...memory && { memory: [result("memory_info", "memory", memory)] },
  ...disk && { disk: [result("disk_stats", "disk", disk)] },
  ...network && { network: [result("network_stats", "network", network)] },
  ...process && { process: [result("process_info", "process", process)] },
  ...container && { container: [result("container_info", "container", container)] },
  system: [
    ...system ? [result("system_info", "system", system)] : [],
    ...gpu ? [result("gpu_pcie", "system", gpu)] : []
  ]
})

export const reportOf = (categories: Categories, timestamp = at): Report => ({
  metadata: {
    tool: "sysreport",
    version: "0.1.0",
    schema_version: schemaVersion,
    hostname: "machine",
    timestamp,
    duration: "10s",
    profile: "quick",
    focus_areas: [],
    arch: "x86_64",
    cpus: 4,
    capabilities: [],
    observer_overhead: { self_pid: 99, child_pids: [] },
    status: "complete"
  },
  categories,
  summary: analyze(categories).summary,
  timeline: []
})
