import { Collect } from "@effect-orchestra/workflow"
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Exit, Fiber, type FileSystem, Layer, Random, Schema } from "effect"
import { TestClock } from "effect/testing"
import * as fs from "node:fs"
import * as path from "node:path"
import { collectors } from "../src/sysreport/collectors/Collectors.ts"
import { type ContainerData, containerId, containerInfo, parseCgroup } from "../src/sysreport/collectors/Container.ts"
import * as Container from "../src/sysreport/collectors/Container.ts"
import { CpuData, cpuUtilization, parseStat as parseCpuStat } from "../src/sysreport/collectors/Cpu.ts"
import { deviceOf, DiskData, diskStats, isPartition, isVirtual } from "../src/sysreport/collectors/Disk.ts"
import { crossing, GpuData, gpuPcie } from "../src/sysreport/collectors/Gpu.ts"
import { parseDev, parseRing } from "../src/sysreport/collectors/Interfaces.ts"
import { MemoryData, memoryInfo, missRatio } from "../src/sysreport/collectors/Memory.ts"
import { NetworkData, networkStats, parseSoftnet } from "../src/sysreport/collectors/Network.ts"
import { family, parseStat, ProcessData, processInfo } from "../src/sysreport/collectors/Process.ts"
import { neglected, parseNetTcp, parseSs } from "../src/sysreport/collectors/Sockets.ts"
import { parseDf, SystemData, systemInfo } from "../src/sysreport/collectors/System.ts"
import { Answer, Commands } from "../src/sysreport/Commands.ts"
import * as ProcFile from "../src/sysreport/ProcFile.ts"
import { Roots } from "../src/sysreport/Roots.ts"
import { rate, rise, sample, Sampling } from "../src/sysreport/Sampling.ts"
import * as SysreportWorld from "./SysreportWorld.ts"

type Requirements = FileSystem.FileSystem | Roots | Commands

/** What a collector finds in a world whose second reading is a second after the first. */
const found = <A, E>(
  collector: { readonly collect: Effect.Effect<A, E, Requirements> },
  world: string,
  change?: SysreportWorld.Change
) =>
  Effect.gen(function*() {
    const running = yield* Effect.forkChild(collector.collect)
    yield* TestClock.adjust("1 second")
    return yield* Fiber.join(running)
  }).pipe(Effect.provide(SysreportWorld.layer(world, change)))

/** As `found`, for the data alone, that must be what its schema says. */
const dataOf = <A, I, E, Data>(
  collector: { readonly collect: Effect.Effect<{ readonly data: Data }, E, Requirements> },
  schema: Schema.Codec<A, I>,
  world: string,
  change?: SysreportWorld.Change
) => Effect.flatMap(found(collector, world, change), ({ data }) => Schema.decodeUnknownEffect(schema)(data))

const schemas: Record<string, Schema.Codec<unknown>> = {
  cpu_utilization: CpuData,
  memory_info: MemoryData,
  disk_stats: DiskData,
  network_stats: NetworkData,
  process_info: ProcessData,
  container_info: Container.ContainerData,
  system_info: SystemData,
  gpu_pcie: GpuData
}

describe("ProcFile", () => {
  it("reads numbers that are all of a text", () => {
    assert.deepStrictEqual(["12", "-1", "0.05", "", "12 kB", "max", "1e3", undefined].map(ProcFile.number), [
      12,
      -1,
      0.05,
      undefined,
      undefined,
      undefined,
      undefined,
      undefined
    ])
    assert.deepStrictEqual(["ff", "0000000a", "", "xyz"].map(ProcFile.hexadecimal), [255, 10, undefined, undefined])
  })

  it("reads names and numbers, whatever stands around them", () => {
    const counters = ProcFile.counters(
      "pgfault 12\nMemTotal:  7 kB\nActive(anon): 3 kB\nNode 1 MemFree: 9 kB\n\nbroken\nx y"
    )
    assert.deepStrictEqual(Array.from(counters), [["pgfault", 12], ["MemTotal", 7], ["Active(anon)", 3], [
      "MemFree",
      9
    ]])
  })

  it("reads tables of two lines, and nothing of one whose lines do not belong together", () => {
    const tables = ProcFile.tables("Tcp: A B MaxConn\nTcp: 1 2 -1\nUdp: A\nIcmp: 1\nIp: A B\nIp: 5")
    assert.deepStrictEqual(Array.from(tables, ([name, table]) => [name, Object.fromEntries(table)]), [
      ["Tcp", { A: 1, B: 2, MaxConn: -1 }],
      ["Ip", { A: 5 }]
    ])
  })

  it("reads the pressure of some and of all, and no pressure where there is none", () => {
    const text = "some avg10=1.50 avg60=2.25 avg300=0.00 total=9\nfull avg10=0.50 avg60=0.75 avg300=0.00 total=4"
    assert.deepStrictEqual(ProcFile.pressure(text), { some10: 1.5, some60: 2.25, full10: 0.5, full60: 0.75 })
    assert.deepStrictEqual(ProcFile.known(ProcFile.pressure(undefined)), {})
    assert.strictEqual(ProcFile.chosen("always [madvise] never"), "madvise")
  })
})

describe("Sampling", () => {
  it("takes a counter that fell for one that began again, if it had come to the end of its range", () => {
    assert.strictEqual(rise(10, 15), 5)
    assert.strictEqual(rise(2 ** 32 - 10, 5), 15)
    assert.strictEqual(rise(2 ** 40 - 10, 5), 15)
    assert.strictEqual(rise(2 ** 40 - 500_000, 500_000), 1_000_000)
    // Set back: by a driver that was loaded anew, say.
    assert.strictEqual(rise(1000, 3), 3)
    assert.strictEqual(rise(3_000_000_000, 3), 3)
    assert.strictEqual(rise(2 ** 32 - 10, 2 ** 31), 2 ** 31)
  })

  it.effect("divides by the time that passed, and not by the time it meant to wait", () =>
    Effect.gen(function*() {
      let readings = 0
      // Each reading takes 3 seconds.
      const slow = Effect.delay(Effect.sync(() => 40 * readings++), "3 seconds")
      const running = yield* Effect.forkChild(sample(slow))
      yield* TestClock.adjust("7 seconds")
      const sampled = yield* Fiber.join(running)
      assert.strictEqual(sampled.seconds, 4)
      assert.strictEqual(rate(sampled, (count) => count), 10)
    }))

  it.effect("waits as long as it is told, and no longer than it is wanted", () =>
    Effect.gen(function*() {
      const half = Effect.provideService(sample(Effect.succeed(1)), Sampling, { interval: Duration.millis(500) })
      const running = yield* Effect.forkChild(half)
      yield* TestClock.adjust("500 millis")
      assert.strictEqual((yield* Fiber.join(running)).seconds, 0.5)

      const interrupted = yield* Effect.forkChild(sample(Effect.succeed(1)))
      yield* TestClock.adjust("500 millis")
      yield* Fiber.interrupt(interrupted)
      assert.isTrue(Exit.hasInterrupts(yield* Fiber.await(interrupted)))
    }))

  it("has no rate of what one of the readings lacks", () => {
    const sampled = { before: new Map<string, number>(), after: new Map([["a", 3]]), seconds: 1 }
    assert.isUndefined(rate(sampled, (counters) => counters.get("a")))
    assert.isUndefined(rate({ before: 1, after: 2, seconds: 0 }, (count) => count))
  })
})

describe("cpu_utilization", () => {
  it.effect("shares out the time of the sample among all that it was spent on", () =>
    Effect.gen(function*() {
      const data = yield* dataOf(cpuUtilization, CpuData, "busy")
      const { per_cpu, ...all } = data
      assert.deepStrictEqual(all, {
        sample_seconds: 1,
        user_pct: 64,
        system_pct: 20,
        iowait_pct: 10,
        idle_pct: 2,
        steal_pct: 1,
        irq_pct: 1,
        softirq_pct: 2,
        context_switches_per_sec: 42_000,
        load_avg_1: 18.5,
        load_avg_5: 15.25,
        load_avg_15: 9.75,
        num_cpus: 4,
        sched_latency_ns: 18_000_000,
        sched_min_granularity_ns: 2_250_000,
        psi_some_10: 41.25,
        psi_some_60: 38.5
      })
      assert.deepStrictEqual(per_cpu[3], { cpu: 3, user_pct: 64, system_pct: 20, iowait_pct: 10, idle_pct: 2 })
    }))

  it.effect("counts no time that the kernel took back", () =>
    Effect.gen(function*() {
      const { idle_pct, iowait_pct, user_pct } = yield* dataOf(cpuUtilization, CpuData, "idle")
      assert.strictEqual(iowait_pct, 0)
      assert.closeTo(idle_pct ?? 0, 98.5, 0.01)
      assert.closeTo(user_pct ?? 0, 1, 0.01)
    }))

  it.effect("does not know what the processors did if no time passed for them", () =>
    Effect.gen(function*() {
      const data = yield* dataOf(cpuUtilization, CpuData, "pod")
      assert.deepStrictEqual(data, { sample_seconds: 1, context_switches_per_sec: 0, num_cpus: 1, per_cpu: [] })
    }))

  it("leaves out a processor that has nothing to compare with, and the times of guests", () => {
    const stat = parseCpuStat("cpu  10 0 5 80 5 0 0 0 4 0\ncpu0 10 0 5 80 5 0 0 0 4 0\ncpu3 1 2\nintr 5\nctxt 77")
    assert.deepStrictEqual(stat?.all, { user: 10, system: 5, idle: 80, iowait: 5, irq: 0, softirq: 0, steal: 0 })
    assert.deepStrictEqual([Array.from(stat?.cpus.keys() ?? []), stat?.contextSwitches], [[0], 77])
    assert.isUndefined(parseCpuStat("intr 5"))
  })
})

describe("memory_info", () => {
  it.effect("tells what there is, and what was done in the sample to get at it", () =>
    Effect.gen(function*() {
      const data = yield* dataOf(memoryInfo, MemoryData, "busy")
      assert.strictEqual(data.total_bytes, 16_384_000 * 1024)
      assert.strictEqual(data.available_bytes, 400_000 * 1024)
      assert.strictEqual(data.swap_used_bytes, 3 * 1_048_576 * 1024)
      assert.deepStrictEqual([data.huge_pages_total, data.huge_pages_free], [8, 2])
      assert.deepStrictEqual([data.major_faults, data.major_faults_per_sec], [500_400, 400])
      assert.strictEqual(data.minor_faults_per_sec, 80_000)
      assert.deepStrictEqual([data.psi_some_10, data.psi_full_60], [27.5, 10.75])
      assert.deepStrictEqual([data.thp_enabled, data.dirty_ratio, data.min_free_kbytes], ["always", 30, 45_056])
      const { direct_reclaim_rate, compact_stall_rate, oom_kill_rate, pgscan_direct, thp_split_rate } = data.reclaim ??
        {}
      assert.deepStrictEqual([pgscan_direct, direct_reclaim_rate], [1_003_000, 3000])
      assert.deepStrictEqual([compact_stall_rate, thp_split_rate, oom_kill_rate], [240, 4, 1])
      assert.deepStrictEqual(data.buddy_info[1], {
        node: 1,
        zone: "Normal",
        free_blocks: [7000, 500, 10, 0, 0, 0, 0, 0, 0, 0, 0]
      })
    }))

  it.effect("compares the misses of a node with its hits in the sample, not since boot", () =>
    Effect.gen(function*() {
      const { numa_nodes } = yield* dataOf(memoryInfo, MemoryData, "busy")
      assert.deepStrictEqual(numa_nodes.map(({ miss_ratio }) => miss_ratio), [10, 0])
      assert.deepStrictEqual(numa_nodes[1], {
        node: 1,
        mem_total_bytes: 8_192_000 * 1024,
        mem_free_bytes: 90_000 * 1024,
        numa_hit: 8_000_500,
        numa_miss: 10,
        numa_foreign: 5,
        miss_ratio: 0,
        distance: [21, 10],
        cpus: "2-3"
      })
      assert.isUndefined(missRatio({ before: new Map(), after: new Map(), seconds: 1 }))
    }))

  it.effect("works out what is available where the kernel does not say, and leaves out what it does not have", () =>
    Effect.gen(function*() {
      const data = yield* dataOf(memoryInfo, MemoryData, "pod")
      assert.strictEqual(data.available_bytes, (1_000_000 + 10_000 + 500_000) * 1024)
      assert.notProperty(data, "reclaim")
      assert.notProperty(data, "major_faults")
      assert.notProperty(data, "psi_some_10")
      assert.deepStrictEqual([data.numa_nodes, data.buddy_info, data.swap_total_bytes], [[], [], 0])
    }))
})

describe("disk_stats", () => {
  it.effect("tells what whole devices did in the sample", () =>
    Effect.gen(function*() {
      const data = yield* dataOf(diskStats, DiskData, "busy")
      assert.deepStrictEqual(data.devices.map(({ name }) => name), ["sda", "nvme0n1", "sdb"])
      assert.deepStrictEqual(data.devices[0], {
        name: "sda",
        read_ops: 50,
        write_ops: 150,
        read_bytes: 4000 * 512,
        write_bytes: 12_000 * 512,
        io_in_progress: 15,
        io_time_ms: 970,
        weighted_io_ms: 12_000,
        utilization_pct: 97,
        avg_latency_ms: 60,
        scheduler: "mq-deadline",
        queue_depth: 128,
        rotational: true,
        read_ahead_kb: 128
      })
      assert.deepStrictEqual([data.read_ops, data.write_ops, data.total_ops], [150, 450, 600])
      assert.deepStrictEqual([data.psi_some_10, data.psi_some_60], [55.5, 48.25])
    }))

  it.effect("goes on where a counter of milliseconds began again after 49 days", () =>
    Effect.gen(function*() {
      const { devices: [, nvme] } = yield* dataOf(diskStats, DiskData, "busy")
      assert.deepStrictEqual([nvme?.io_time_ms, nvme?.weighted_io_ms], [400, 400])
      assert.deepStrictEqual([nvme?.utilization_pct, nvme?.avg_latency_ms, nvme?.rotational], [40, 1, false])
    }))

  it.effect("does not know the latency of a device on which requests wait and none is done", () =>
    Effect.gen(function*() {
      const { devices: [, , stuck] } = yield* dataOf(diskStats, DiskData, "busy")
      assert.deepStrictEqual([stuck?.io_in_progress, stuck?.utilization_pct], [4, 100])
      assert.notProperty(stuck, "avg_latency_ms")
    }))

  it("takes the share of the time that really passed, and 0 for the latency of a device at rest", () => {
    const at = { reads: 0, sectorsRead: 0, writes: 0, sectorsWritten: 0, inProgress: 0, ioMs: 0, weightedMs: 0 }
    const device = deviceOf("sda", { before: at, after: { ...at, ioMs: 500 }, seconds: 2.5 })
    assert.deepStrictEqual([device.utilization_pct, device.avg_latency_ms], [20, 0])
  })

  it("knows parts of devices and what is none by their names", () => {
    const names = ["sda", "sda1", "xvda", "xvda15", "nvme0n1", "nvme0n1p2", "mmcblk0", "mmcblk0p1", "md0", "nbd0"]
    assert.deepStrictEqual(names.filter((name) => !isPartition(name)), [
      "sda",
      "xvda",
      "nvme0n1",
      "mmcblk0",
      "md0",
      "nbd0"
    ])
    assert.deepStrictEqual(
      ["loop0", "ram1", "zram0", "dm-3", "sr0", "sda", "drbd0"].filter((name) => !isVirtual(name)),
      [
        "sda",
        "drbd0"
      ]
    )
  })
})

describe("network_stats", () => {
  it.effect("tells what went through an interface, and how its hardware is set up", () =>
    Effect.gen(function*() {
      const data = yield* dataOf(networkStats, NetworkData, "busy")
      assert.deepStrictEqual(data.interfaces.map(({ name }) => name), ["lo", "eth0", "eth0:1"])
      assert.deepStrictEqual(data.interfaces[1], {
        name: "eth0",
        rx_bytes: 500_000,
        tx_bytes: 80_900_000,
        rx_packets: 2_009_000,
        tx_packets: 909_000,
        rx_errors: 540,
        tx_errors: 16,
        rx_dropped: 104,
        tx_dropped: 0,
        // The counter of the hardware has 40 bits.
        rx_bytes_per_sec: 1_000_000,
        tx_bytes_per_sec: 900_000,
        errors_per_sec: 50,
        driver: "mlx5_core",
        speed: 10_000,
        rx_queues: 2,
        tx_queues: 2,
        rps_enabled: true,
        xps_enabled: false,
        bond_slave: true,
        mtu: 9000,
        ring_rx_current: 1024,
        ring_rx_max: 8192,
        tso_enabled: true,
        gro_enabled: false,
        gso_enabled: true,
        coalesce_rx_usecs: 8,
        coalesce_rx_frames: 128,
        coalesce_adaptive_rx: true,
        rx_discards: 90_400,
        rx_discards_per_sec: 400,
        rx_buf_errors: 33
      })
    }))

  it.effect("tells totals since boot beside what happens now", () =>
    Effect.gen(function*() {
      const data = yield* dataOf(networkStats, NetworkData, "busy")
      assert.deepStrictEqual(data.tcp, {
        curr_estab: 5210,
        active_opens: 90_010,
        passive_opens: 120_400,
        retrans_segs: 60_080,
        out_segs: 9_020_000,
        retrans_rate_per_sec: 80,
        in_errs: 12,
        out_rsts: 910,
        time_wait_count: 6400,
        close_wait_count: 2
      })
      assert.deepStrictEqual(data.udp, { rcvbuf_errors: 460, sndbuf_errors: 3, in_errors: 560, rcvbuf_err_rate: 60 })
      assert.deepStrictEqual(data.conntrack, {
        count: 60_293,
        max: 65_536,
        usage_pct: 100 * 60_293 / 65_536,
        drops: 53,
        insert_failed: 12,
        early_drop: 4,
        drop_rate: 20
      })
      const { listen_overflows, listen_overflows_rate, prune_called_rate, tcp_abort_on_memory_rate } = data.tcp_ext ??
        {}
      assert.deepStrictEqual([listen_overflows, listen_overflows_rate], [4240, 240])
      assert.deepStrictEqual([prune_called_rate, tcp_abort_on_memory_rate], [8, 2])
      assert.deepStrictEqual(data.socket_mem, {
        tcp_inuse: 5300,
        tcp_orphans: 210,
        tcp_mem_pages: 40_000,
        udp_inuse: 12
      })
      assert.strictEqual(data.sysctls.tcp_rmem, "4096 87380 2097152")
      assert.strictEqual(data.sysctls.gc_thresh3, 1024)
      assert.lengthOf(Object.keys(data.sysctls), 27)
    }))

  it.effect("adds up the processors, each of whose counters begins again by itself", () =>
    Effect.gen(function*() {
      const { softnet } = yield* dataOf(networkStats, NetworkData, "busy")
      assert.strictEqual(softnet?.drop_rate, 0x28)
      assert.strictEqual(softnet?.squeeze_rate, 20)
      assert.deepStrictEqual(softnet?.irq_distribution.map(({ net_rx_delta }) => net_rx_delta), [8000, 100, 200, 100])
      assert.deepStrictEqual(softnet?.stats[0], { cpu: 0, processed: 0x2000, dropped: 0x26, time_squeeze: 30 })
    }))

  it.effect("names the sockets that have what somebody should have taken", () =>
    Effect.gen(function*() {
      const data = yield* dataOf(networkStats, NetworkData, "busy")
      assert.deepStrictEqual(data.listen_sockets, [
        { local_addr: "0.0.0.0:80", recv_q: 100, send_q: 128, fill_pct: 78.125 },
        { local_addr: "[::]:443", recv_q: 64, send_q: 128, fill_pct: 50 }
      ])
      assert.strictEqual(data.recvq_saturated_count, 1)
    }))

  it.effect("counts sockets without ss, but then cannot tell how full a queue is", () =>
    Effect.gen(function*() {
      const data = yield* dataOf(networkStats, NetworkData, "idle")
      assert.deepStrictEqual([data.tcp?.close_wait_count, data.tcp?.time_wait_count], [1, 1])
      assert.strictEqual(data.recvq_saturated_count, 0)
      assert.notProperty(data, "listen_sockets")
      assert.notProperty(data, "conntrack")
      const ens3 = data.interfaces.find(({ name }) => name === "ens3")
      assert.deepStrictEqual([ens3?.driver, ens3?.rx_discards, ens3?.rx_discards_per_sec], ["virtio_net", 0, 0])
      assert.notProperty(ens3, "speed")
      assert.notProperty(ens3, "ring_rx_max")
      assert.strictEqual(data.socket_mem?.tcp_inuse, 6)
    }))

  it.effect("is not incomplete for what a driver cannot tell, but for what could not be asked", () =>
    Effect.gen(function*() {
      const answering = (problem: string) => ({
        collect: Effect.provideService(networkStats.collect, Commands, {
          run: (program) => Effect.succeed(Answer.Failed({ problem: `${program}: ${problem}` })),
          pids: Effect.succeed(new Set<number>())
        })
      })
      const virtual = yield* found(answering("netlink error: Operation not supported"), "idle")
      assert.deepStrictEqual(virtual.errors, ["ss: netlink error: Operation not supported"])
      const denied = yield* found(answering("Operation not permitted"), "idle")
      assert.deepStrictEqual(denied.errors, ["ethtool: Operation not permitted", "ss: Operation not permitted"])
    }))

  it.effect("does not take a counter that the kernel lacks for one that is at rest", () =>
    Effect.gen(function*() {
      const data = yield* dataOf(
        networkStats,
        NetworkData,
        "busy",
        (file, content) =>
          /snmp|netstat/.test(file) ? content.replaceAll(/RetransSegs|RcvbufErrors|ListenOverflows/g, "Other") : content
      )
      assert.strictEqual(data.tcp?.curr_estab, 5210)
      assert.notProperty(data.tcp, "retrans_rate_per_sec")
      assert.notProperty(data.udp, "rcvbuf_err_rate")
      assert.notProperty(data.tcp_ext, "listen_overflows_rate")
    }))

  it("reads interfaces whose numbers follow the colon at once", () => {
    const dev = parseDev("Inter-|\n face |bytes\neth0:1:123 1 2 3 0 0 0 0 456 7 8 9 0 0 0 0\n short: 1 2")
    assert.deepStrictEqual(Array.from(dev.keys()), ["eth0:1"])
    assert.deepStrictEqual([dev.get("eth0:1")?.rx_bytes, dev.get("eth0:1")?.tx_dropped], [123, 9])
  })

  it("takes the number of the processor from the line if it is there, else from its place", () => {
    assert.deepStrictEqual(Array.from(parseSoftnet("1 2 3 0 0 0 0 0 0 0 0 0 5 0 0\n1 2 3").keys()), [5, 1])
  })

  it("reads sockets in the words of ss and in those of the kernel", () => {
    assert.deepStrictEqual(parseSs("LISTEN 1 128 *:80 *:*\nESTAB 9 5 a:1 b:2\nSYN-SENT 0 1 a:1 b:2\nrubbish"), [
      { state: "listen", local: "*:80", received: 1, limit: 128 },
      { state: "established", local: "a:1", received: 9, limit: undefined },
      { state: "other", local: "a:1", received: 0, limit: undefined }
    ])
    const [, established] = parseNetTcp(
      "sl local rem st tx rx\n0: 0:16 0:0 0A 00000000:00000000 x\n1: 0:16 0:1 01 00000000:00010001 x"
    )
    assert.deepStrictEqual(established, { state: "established", local: "0:16", received: 65_537, limit: undefined })
    assert.deepStrictEqual(neglected([]), { close_wait_count: 0, recvq_saturated_count: 0, listen_sockets: [] })
  })

  it("knows no ring of hardware that has none", () => {
    assert.deepStrictEqual(parseRing("netlink error: Operation not supported"), { max: undefined, current: undefined })
  })
})

describe("process_info", () => {
  it.effect("ranks by what was used in the sample, without those that measure", () =>
    Effect.gen(function*() {
      const data = yield* dataOf(processInfo, ProcessData, "busy")
      assert.deepStrictEqual(data.excluded_pids, [700, 701, 702])
      assert.deepStrictEqual(data.top_by_cpu.slice(0, 4).map(({ comm, cpu_pct }) => [comm, cpu_pct]), [
        ["java", 200],
        ["worker", 40],
        ["new", 30],
        ["tini", 0]
      ])
      assert.deepStrictEqual(data.top_by_mem[0], {
        pid: 300,
        comm: "java",
        cpu_pct: 200,
        mem_rss_bytes: 10_000_001 * 1024,
        mem_pct: 100 * 10_000_001 / 16_384_000,
        threads: 240,
        fds: 12,
        state: "R"
      })
    }))

  it.effect("counts states, without the process that is gone when its file is read", () =>
    Effect.gen(function*() {
      const { running, sleeping, top_by_cpu, total_processes, zombie } = yield* dataOf(processInfo, ProcessData, "busy")
      assert.deepStrictEqual({ total_processes, running, sleeping, zombie }, {
        total_processes: 6,
        running: 3,
        sleeping: 2,
        zombie: 1
      })
      assert.isFalse(top_by_cpu.some(({ pid }) => pid === 303 || pid === 305))
      assert.include(top_by_cpu.map(({ comm }) => comm), "a) R (b")
    }))

  it.effect("leaves out what it started even if that has lost its parent", () =>
    Effect.gen(function*() {
      const orphan = Effect.provideService(processInfo.collect, Commands, {
        run: () => Effect.succeed(Answer.NotThere()),
        pids: Effect.succeed(new Set([300]))
      })
      const { excluded_pids, top_by_cpu } = yield* dataOf({ collect: orphan }, ProcessData, "busy")
      assert.deepStrictEqual(excluded_pids, [300, 700, 701, 702])
      assert.strictEqual(top_by_cpu[0]?.comm, "worker")
    }))

  it("finds the end of a name that is made of brackets, blanks and line ends", () => {
    const stat = parseStat(`77 (x) S 1\n(y)) R 5 ${Array.from({ length: 21 }, (_, i) => i).join(" ")}`)
    assert.deepStrictEqual(stat, {
      pid: 77,
      comm: "x) S 1\n(y)",
      state: "R",
      parent: 5,
      ticks: 9 + 10,
      threads: 15,
      startedAt: 17,
      pages: 19
    })
    assert.isUndefined(parseStat("77 (x) R 5 1"))
  })

  it("takes what a process started, and what that started, for its family", () => {
    const process = (pid: number, parent: number) => ({
      pid,
      parent,
      comm: "",
      state: "S",
      ticks: 0,
      threads: 1,
      startedAt: 0,
      pages: 0
    })
    const members = family([process(5, 4), process(4, 3), process(3, 1), process(2, 1)], [3, 99])
    assert.deepStrictEqual(Array.from(members).sort((a, b) => a - b), [3, 4, 5, 99])
  })
})

describe("container_info", () => {
  it.effect("tells what a group of version 1 allows, and what it was denied in the sample", () =>
    Effect.gen(function*() {
      const data = yield* dataOf(containerInfo, Container.ContainerData, "busy")
      const id = "b1946ac92492d2347c6235b4d2611184b1946ac92492d2347c6235b4d2611184"
      const expected: ContainerData = {
        sample_seconds: 1,
        runtime: "docker",
        cgroup_version: 1,
        cgroup_path: `/docker/${id}`,
        container_id: id,
        cpu_quota: 200_000,
        cpu_period: 100_000,
        cpu_throttled_periods: 80_018,
        cpu_throttled_time_us: 901_400_000,
        cpu_throttled_periods_per_sec: 18,
        cpu_throttled_us_per_sec: 1_400_000,
        cpu_usage_cores: 3.8,
        cpu_quota_used_pct: 190,
        memory_limit_bytes: 8_589_934_592,
        memory_usage_bytes: 8_160_437_862,
        memory_working_set_bytes: 8_160_437_862 - 429_496_730
      }
      assert.deepStrictEqual(data, expected)
    }))

  it.effect("finds the limit of version 2 in the group that has it, above the own one", () =>
    Effect.gen(function*() {
      const data = yield* dataOf(containerInfo, Container.ContainerData, "pod")
      assert.deepInclude(data, {
        runtime: "kubernetes",
        cgroup_version: 2,
        container_id: "0123456789abcdef".repeat(4),
        pod_name: "shop-7f9c6d-x2x9z",
        namespace: "shop",
        cpu_quota: 150_000,
        cpu_throttled_periods: 52,
        cpu_throttled_periods_per_sec: 12,
        cpu_quota_used_pct: 180,
        memory_limit_bytes: 536_870_912,
        memory_working_set_bytes: 268_435_456
      })
    }))

  it.effect("has no limits where there are none", () =>
    Effect.gen(function*() {
      const data = yield* dataOf(containerInfo, Container.ContainerData, "idle")
      assert.deepStrictEqual(data, {
        sample_seconds: 1,
        runtime: "none",
        cgroup_version: 2,
        cgroup_path: "/user.slice/user-0.slice/session-3.scope",
        cpu_usage_cores: 0.01,
        memory_usage_bytes: 52_428_800,
        memory_working_set_bytes: 41_943_040
      })
    }))

  it("tells runtimes apart by what they leave behind", () => {
    const none = { cgroup: "0::/", mounts: "", environment: new Map(), init: new Map(), dockerenv: false }
    assert.strictEqual(Container.runtimeOf(none), "none")
    assert.strictEqual(Container.runtimeOf({ ...none, cgroup: "0::/kubepods.slice/x" }), "kubernetes")
    assert.strictEqual(Container.runtimeOf({ ...none, dockerenv: true }), "docker")
    assert.strictEqual(Container.runtimeOf({ ...none, cgroup: "0::/system.slice/docker-00.scope" }), "docker")
    assert.strictEqual(Container.runtimeOf({ ...none, init: new Map([["container", "lxc"]]) }), "lxc")
    const groups = parseCgroup("3:cpu,cpuacct:/a\n0::/b\nrubbish")
    assert.deepStrictEqual(Array.from(groups), [["cpu", "/a"], ["cpuacct", "/a"], ["", "/b"]])
    const mount = `600 500 8:1 /var/lib/docker/containers/${"0".repeat(64)}/hostname /etc/hostname rw`
    assert.strictEqual(containerId(mount), "0".repeat(64))
    assert.isUndefined(containerId("0::/user.slice"))
  })
})

describe("system_info", () => {
  it.effect("says what machine this is", () =>
    Effect.gen(function*() {
      const { data, errors } = yield* found(systemInfo, "busy")
      assert.deepStrictEqual(errors, [])
      assert.deepStrictEqual([data.os, data.kernel, data.uptime_seconds], [
        "Ubuntu 24.04.3 LTS",
        "5.10.0-35-amd64",
        4_320_000
      ])
      assert.deepStrictEqual(data.block_devices.map(({ model, name, type }) => [name, type, model]), [
        ["nvme0n1", "ssd", "SAMSUNG MZVLB512"],
        ["sda", "hdd", "ST1000NM0033"],
        ["sdb", "hdd", "ST1000NM0033"]
      ])
      assert.deepStrictEqual(data.dmesg_errors?.map(({ level, unit }) => [unit, level]), [
        ["kern", "err"],
        ["kern", "warn"],
        ["daemon", "crit"]
      ])
      assert.deepStrictEqual(data.dmesg_errors?.[0], {
        time: "2026-11-21T06:00:00.000001+00:00",
        level: "err",
        unit: "kern",
        message: "sd 1:0:0:0: [sdb] tag#3 timing out command, waited 180s"
      })
    }))

  it.effect("leaves out what only programs know where they are not there", () =>
    Effect.gen(function*() {
      const { data, errors } = yield* found(systemInfo, "pod")
      assert.deepStrictEqual(errors, [])
      assert.deepStrictEqual(data, {
        os: "Alpine Linux v3.22",
        kernel: "6.8.0-1021-aws",
        uptime_seconds: 100,
        block_devices: []
      })
    }))

  it("reads file systems with blanks in their names, and not those that are always full or have no size", () => {
    const text = fs.readFileSync(path.join(SysreportWorld.fixtures, "busy/commands/df.txt"), "utf8")
    const systems = parseDf(text)
    assert.deepStrictEqual(systems.map(({ device, mount, type }) => [mount, device, type]), [
      ["/", "overlay", "overlay"],
      ["/dev", "tmpfs", "tmpfs"],
      ["/mnt/a place with blanks", "/dev/sda2", "ext4"]
    ])
    assert.closeTo(systems[2]?.used_pct ?? 0, 55.56, 0.01)
    assert.closeTo(systems[0]?.size_gb ?? 0, 915.8, 0.1)
  })
})

describe("gpu_pcie", () => {
  it.effect("names a processor and a card that are not on one node", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* dataOf(gpuPcie, GpuData, "busy"), {
        gpus: [{
          index: 0,
          name: "NVIDIA A100-PCIE-40GB",
          pci_address: "0000:41:00.0",
          numa_node: 1,
          utilization_pct: 97,
          memory_total_bytes: 40_960 * 2 ** 20,
          memory_used_bytes: 39_000 * 2 ** 20
        }],
        nics: [{ name: "eth0", numa_node: 0 }],
        cross_numa_pairs: [{ gpu: "0000:41:00.0", gpu_node: 1, nic: "eth0", nic_node: 0 }]
      })
    }))

  it("does not say that all is well where the nodes are not known", () => {
    const gpus = [{ index: 0, name: "", pci_address: "0", numa_node: 1 }]
    assert.deepStrictEqual(crossing({ gpus, nics: [{ name: "eth0", numa_node: 1 }] }), [])
    assert.isUndefined(crossing({ gpus, nics: [{ name: "eth0" }] }))
  })
})

/** Runs all collectors in a world, in virtual time. */
const collected = (
  world: string,
  options: { readonly change?: SysreportWorld.Change; readonly seconds?: number } = {}
) =>
  Effect.gen(function*() {
    const running = yield* Effect.forkChild(Collect.run(collectors, { concurrency: "unbounded" }))
    yield* TestClock.adjust(Duration.seconds(options.seconds ?? 1))
    return yield* Fiber.join(running)
  }).pipe(Effect.provide(SysreportWorld.layer(world, options.change)))
type Report = Effect.Success<ReturnType<typeof collected>>

/** The data of the first result of a category. */
const resultOf = <A, I>(report: Report, category: string, schema: Schema.Codec<A, I>) =>
  Schema.decodeUnknownEffect(schema)(report.results[category]?.[0]?.value.data)

/** That each result is what its schema says, and each reason an error and no defect. */
const assertSound = Effect.fnUntraced(function*(report: Report, what: string) {
  for (const { name, value } of Object.values(report.results).flat()) {
    const exit = yield* Effect.exit(Schema.decodeUnknownEffect(schemas[name] ?? Schema.Never)(value.data))
    assert.isTrue(Exit.isSuccess(exit), `${name}, ${what}: ${Exit.isFailure(exit) ? Cause.pretty(exit.cause) : ""}`)
  }
  for (const { name, why } of report.missing) {
    const expected = why._tag === "Failed" && !Cause.hasDies(why.cause)
    assert.isTrue(expected, `${name}, ${what}: ${why._tag === "Failed" ? Cause.pretty(why.cause) : why._tag}`)
  }
})

describe("All collectors", () => {
  it.effect("are complete on a machine that has everything", () =>
    Effect.gen(function*() {
      const report = yield* collected("busy")
      assert.deepStrictEqual([report.missing, report.skipped], [[], []])
      assert.deepStrictEqual(
        Object.entries(report.results).map(([category, results]) => [category, ...results.map(({ name }) => name)]),
        [
          ["system", "system_info", "gpu_pcie"],
          ["cpu", "cpu_utilization"],
          ["memory", "memory_info"],
          ["disk", "disk_stats"],
          ["network", "network_stats"],
          ["process", "process_info"],
          ["container", "container_info"]
        ]
      )
      assert.isTrue(Object.values(report.results).flat().every(({ tier }) => tier === 1))
    }))

  it.effect("give rates by the second, however long the sample was", () =>
    Effect.gen(function*() {
      const report = yield* Effect.provideService(collected("busy", { seconds: 4 }), Sampling, {
        interval: Duration.seconds(4)
      })
      const [cpu, memory, disk, network, process, container] = yield* Effect.all([
        resultOf(report, "cpu", CpuData),
        resultOf(report, "memory", MemoryData),
        resultOf(report, "disk", DiskData),
        resultOf(report, "network", NetworkData),
        resultOf(report, "process", ProcessData),
        resultOf(report, "container", Container.ContainerData)
      ])
      // Shares of the kernel's own time, and counts of the sample, do not depend on how long it was.
      assert.deepStrictEqual([cpu.user_pct, cpu.context_switches_per_sec], [64, 10_500])
      assert.deepStrictEqual([memory.reclaim?.direct_reclaim_rate, memory.numa_nodes[0]?.miss_ratio], [750, 10])
      assert.deepStrictEqual([disk.devices[0]?.utilization_pct, disk.devices[0]?.read_ops], [24.25, 50])
      assert.deepStrictEqual([network.softnet?.drop_rate, network.tcp?.retrans_rate_per_sec], [10, 20])
      assert.deepStrictEqual([network.interfaces[1]?.errors_per_sec, network.conntrack?.drop_rate], [12.5, 5])
      assert.deepStrictEqual(process.top_by_cpu[0]?.cpu_pct, 50)
      assert.deepStrictEqual([container.cpu_usage_cores, container.cpu_throttled_periods_per_sec], [0.95, 4.5])
    }))

  it.effect("tell what kept a program from saying all", () =>
    Effect.gen(function*() {
      const answer = (answer: Answer) =>
        Effect.provideService(systemInfo.collect, Commands, {
          run: () => Effect.succeed(answer),
          pids: Effect.succeed(new Set<number>())
        }).pipe(Effect.provide(SysreportWorld.layer("busy")))
      const partial = yield* answer(Answer.Written({ text: "/dev/a ext4 10 1 9 10% /", problem: "df: /b: denied" }))
      assert.deepStrictEqual(partial.errors, ["df: /b: denied", "df: /b: denied"])
      assert.lengthOf(partial.data.filesystems ?? [], 1)
      const failed = yield* answer(Answer.Failed({ problem: "denied" }))
      assert.deepStrictEqual(failed.errors, ["denied", "denied"])
      assert.notProperty(failed.data, "dmesg_errors")
    }))

  it.effect("are skipped for a reason where their source is not there", () =>
    Effect.gen(function*() {
      const report = yield* collected("pod")
      assert.deepStrictEqual(report.skipped.map(({ name, reason }) => [name, reason]), [
        ["disk_stats", "no /proc/diskstats"],
        ["network_stats", "no /proc/net/dev"],
        ["gpu_pcie", "no NVIDIA GPU"]
      ])
      assert.deepStrictEqual(report.missing, [])
      const nowhere = yield* collected("nowhere")
      assert.lengthOf(nowhere.skipped, collectors.length)
    }))

  it.effect("fail, and say which file, if that file does not say what it should", () =>
    Effect.gen(function*() {
      const report = yield* collected(
        "idle",
        { change: (file, content) => /^proc\/(stat|meminfo|uptime)$/.test(file) ? "rubbish" : content }
      )
      assert.deepStrictEqual(report.missing.map((missing) => [missing.name, Collect.reason(missing)]), [
        ["system_info", "/proc/uptime does not have a number of seconds"],
        ["cpu_utilization", "/proc/stat does not have a line \"cpu\" with at least 4 numbers"],
        ["memory_info", "/proc/meminfo does not have MemTotal and MemFree"]
      ])
    }))

  const seeds = Number(process.env["SEEDS"] ?? 60)

  it.effect("survive whatever their files say", () =>
    Effect.gen(function*() {
      const worlds = ["idle", "busy", "pod"]
      const files = new Map(worlds.map((world) => {
        const directory = path.join(SysreportWorld.fixtures, world)
        const names = fs.readdirSync(directory, { recursive: true, encoding: "utf8" })
        return [
          world,
          names.filter((name) =>
            !name.startsWith("later/") && fs.statSync(path.join(directory, name), {
              throwIfNoEntry: false
            })?.isFile()
          )
        ]
      }))
      let broken = 0
      for (let seed = 0; seed < seeds; seed++) {
        yield* Effect.gen(function*() {
          const pick = <A>(from: ReadonlyArray<A>) =>
            Effect.map(Random.nextIntBetween(0, from.length), (at) => from[at])
          const world = (yield* pick(worlds)) ?? "idle"
          // A fifth of all files at once, each in its own way.
          const ways = new Map<string, number>()
          for (const file of files.get(world) ?? []) {
            if ((yield* Random.nextIntBetween(0, 5)) === 0) ways.set(file, yield* Random.next)
          }
          const report = yield* collected(world, {
            change: (file, content) => {
              const way = ways.get(file)
              return way === undefined ? content : damaged(content, way)
            }
          })
          broken += report.missing.length
          yield* assertSound(report, `world ${world}, seed ${seed}`)
        }).pipe(Random.withSeed(`damage ${seed}`))
      }
      assert.isAbove(broken, 0)
    }), 120_000)
})

/** What a file may look like on a machine that nobody thought of. */
const damaged = (content: string, way: number): string | undefined => {
  const at = Math.floor(way * 7919) % Math.max(1, content.length)
  switch (Math.floor(way * 9)) {
    case 0:
      return undefined
    case 1:
      return ""
    case 2:
      return content.slice(0, at)
    case 3:
      return content.replaceAll(/\d+/g, (digits) => digits.length % 2 === 0 ? `-${digits}` : digits)
    case 4:
      return content.replaceAll(/\d/g, "x")
    case 5:
      return content.replaceAll(" ", "\t\n")
    case 6:
      return content.replaceAll(/\d+/g, "0")
    case 7:
      return `${content.slice(at)}\0\u{1f600}${content}`
    default:
      return content.replaceAll(/\d+/g, "9".repeat(30))
  }
}

const machine = Layer.merge(Roots.layer(), Commands.layer()).pipe(Layer.provideMerge(NodeServices.layer))

describe("All collectors on this machine", () => {
  // It reads what is there, and real time passes between the two readings.
  it.live.skipIf(!fs.existsSync("/proc/diskstats"))("find what their schemas say", () =>
    Effect.gen(function*() {
      const report = yield* Collect.run(collectors).pipe(
        Effect.provideService(Sampling, { interval: Duration.millis(100) }),
        Effect.provide(machine)
      )
      assert.deepStrictEqual(report.missing.map((missing) => Collect.reason(missing)), [])
      yield* assertSound(report, "this machine")
      const processes = report.results["process"]?.[0]?.value.data
      assert.isTrue(Schema.is(ProcessData)(processes) && processes.excluded_pids.includes(process.pid))
    }), 60_000)
})

/** The processes of a group. Those that nobody has waited for yet are dead all the same. */
const alive = (group: number) =>
  fs.readdirSync("/proc").filter((pid) => /^\d+$/.test(pid)).flatMap((pid) => {
    try {
      const text = fs.readFileSync(`/proc/${pid}/stat`, "utf8")
      const [state, , ofGroup] = text.slice(text.lastIndexOf(")") + 2).split(" ")
      return Number(ofGroup) === group && state !== "Z" ? [pid] : []
    } catch {
      return []
    }
  })

describe("Commands as processes", () => {
  const commands = (limits?: Parameters<typeof Commands.layer>[0]) =>
    Commands.layer(limits).pipe(Layer.provide(NodeServices.layer))
  const run = (limits: Parameters<typeof Commands.layer>[0], program: string, ...parameters: ReadonlyArray<string>) =>
    Commands.use((commands) => Effect.all([commands.run(program, ...parameters), commands.pids])).pipe(
      Effect.provide(commands(limits))
    )
  const script = (limits: Parameters<typeof Commands.layer>[0], text: string) => run(limits, "sh", "-c", text)

  // Real processes take real time.
  it.live("hands over what a program wrote, and what it complained about", () =>
    Effect.gen(function*() {
      const [fine, pids] = yield* script({}, "echo $LC_ALL")
      assert.deepStrictEqual(fine, Answer.Written({ text: "C\n", problem: undefined }))
      assert.strictEqual(pids.size, 1)
      const [half] = yield* script({}, "echo some; echo no more >&2; exit 3")
      assert.deepStrictEqual(half, Answer.Written({ text: "some\n", problem: "sh: no more" }))
      const [none] = yield* script({}, "exit 3")
      assert.deepStrictEqual(none, Answer.Failed({ problem: "sh: exit code 3" }))
    }))

  it.live("says that a program is not there", () =>
    Effect.gen(function*() {
      const [answer] = yield* run({}, "there-is-no-such-program")
      assert.deepStrictEqual(answer, Answer.NotThere())
    }))

  it.live("ends a program that ignores the deadline, and all that it started", () =>
    Effect.gen(function*() {
      const [answer, pids] = yield* script(
        { deadline: "300 millis", grace: "100 millis" },
        "trap '' INT; sleep 600 & sleep 600; sleep 600"
      )
      assert.deepStrictEqual(answer, Answer.Failed({ problem: "sh: did not end within 300ms" }))
      assert.deepStrictEqual(Array.from(pids).flatMap(alive), [])
    }), 30_000)

  it.live(
    "knows a process from its start on, and leaves none behind when it is interrupted",
    () =>
      Effect.gen(function*() {
        const { pids, run } = yield* Commands
        const running = yield* Effect.forkChild(run("sleep", "600"))
        const [pid = 0] = yield* Effect.flatMap(
          pids,
          (pids) => pids.size > 0 ? Effect.succeed(pids) : Effect.fail("none")
        ).pipe(
          Effect.eventually
        )
        assert.lengthOf(alive(pid), 1)
        yield* Fiber.interrupt(running)
        assert.lengthOf(alive(pid), 0)
      }).pipe(Effect.provide(commands())),
    30_000
  )

  it.live("does not take more than it is allowed to", () =>
    Effect.gen(function*() {
      const [answer, pids] = yield* script({ maxBytes: 10_000, grace: "1 second" }, "yes")
      assert.deepStrictEqual(answer, Answer.Failed({ problem: "sh: wrote more than 10000 bytes" }))
      assert.deepStrictEqual(Array.from(pids).flatMap(alive), [])
    }), 30_000)
})
