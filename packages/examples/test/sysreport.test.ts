/**
 * `sysreport` as a process: what it writes, what it tells, how it ends.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, type Scope } from "effect"
import * as fs from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Report from "../src/sysreport/Report.ts"
import { spawned, until } from "./ServiceProcess.ts"

const main = fileURLToPath(new URL("../src/sysreport/main.ts", import.meta.url))

const started = (args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
  spawned(process.execPath, [main, ...args], env)
const finished = (...args: ReadonlyArray<string>) => Effect.flatMap(started(args), ({ ended }) => ended)

const directory: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => fs.mkdtempSync(join(tmpdir(), "sysreport-"))),
  (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true }))
)

/** Files by their names, in a directory of their own. */
const files = (contents: Record<string, string>) =>
  Effect.map(directory, (root) => {
    for (const [name, content] of Object.entries(contents)) {
      fs.mkdirSync(dirname(join(root, name)), { recursive: true })
      fs.writeFileSync(join(root, name), content)
    }
    return (name: string) => join(root, name)
  })

const decoded = (text: string) => Report.decode(text, "the output")
const written = (file: string) => Effect.suspend(() => decoded(fs.readFileSync(file, "utf8")))

const statuses = (report: Report.Report) =>
  Object.fromEntries(report.timeline.map(({ collector, status }) => [collector, status]))

const brief = ["--duration", "50ms"]
const roots = (proc: string, sys: string) => ["--proc-root", proc, "--sys-root", sys]

const stat = (ticks: number) => `cpu  ${ticks} 0 0 900 0 0 0 0\ncpu0 ${ticks} 0 0 900 0 0 0 0\nctxt 100\n`

// Their time is mostly waiting: they do it together.
describe.concurrent("sysreport as a process", { timeout: 60_000 }, () => {
  it.live("collect writes a report of this machine, says what it does, and leaves nothing else behind", () =>
    Effect.gen(function*() {
      const at = yield* files({ "report.json": "the one before" })
      const { code, stderr, stdout } = yield* finished("--", "collect", "--profile", "quick", "-o", at("report.json"))
      assert.deepStrictEqual([code, stdout], [0, ""])
      assert.deepStrictEqual(fs.readdirSync(at("")), ["report.json"])

      const { categories, metadata, system, timeline } = yield* written(at("report.json"))
      assert.deepStrictEqual([metadata.status, metadata.profile, metadata.duration], ["complete", "quick", "10s"])
      assert.isAbove(metadata.cpus, 0)
      assert.include(metadata.capabilities, "procfs")
      assert.isAbove(metadata.observer_overhead.cpu_user_ms ?? 0, 0)
      assert.isAbove(system?.uptime_seconds ?? 0, 0)
      assert.strictEqual(categories.cpu?.[0]?.status, "ok")
      assert.isAtLeast(categories.cpu?.[0]?.data?.sample_seconds ?? 0, 1)
      assert.deepStrictEqual(timeline.map(({ collector, status }) => `${collector} ${status}`).slice(0, 2), [
        "system_info ok",
        "cpu_utilization ok"
      ])

      assert.match(stderr, /^\[\d+\.\ds\] {3}\[cpu_utilization\] collecting\.\.\.$/m)
      assert.match(stderr, /^\[\d+\.\ds\] {3}\[cpu_utilization\] done \(\d+\.\ds\)$/m)
      assert.match(stderr, /^\[\d+\.\ds\] {3}\[biolatency\] skipped: needs the BCC tool/m)
      assert.match(stderr, /\] Collection complete\. 6 categories, health=\S+\/100, anomalies=\d+\n$/)
    }))

  it.live("what is not available is skipped, which makes no report partial", () =>
    Effect.gen(function*() {
      const at = yield* files({ "proc/stat": stat(100), "sys/block/.keep": "" })
      const { code, stderr, stdout } = yield* finished("collect", "-q", ...brief, ...roots(at("proc"), at("sys")))
      assert.deepStrictEqual([code, stderr], [0, ""])
      const report = yield* decoded(stdout)
      const { cpu_utilization, network_stats, tcpretrans } = statuses(report)
      assert.deepStrictEqual([cpu_utilization, network_stats, tcpretrans], ["ok", "skipped", "skipped"])
      assert.strictEqual(report.categories.network?.[0]?.attempts, 0)
      const skipped = report.timeline.find(({ collector }) => collector === "network_stats")
      assert.include(skipped?.reason, "net/dev")
      assert.deepStrictEqual(report.metadata.capabilities, ["procfs"])
    }))

  it.live("a selected collector that fails makes the report partial, with the reason: exit code 3", () =>
    Effect.gen(function*() {
      const at = yield* files({ "proc/stat": "nothing of use\n" })
      const { code, stderr, stdout } = yield* finished("collect", ...brief, ...roots(at("proc"), at("")))
      assert.strictEqual(code, 3)
      const { categories, metadata } = yield* decoded(stdout)
      const [cpu] = categories.cpu ?? []
      assert.deepStrictEqual([metadata.status, cpu?.status, cpu?.data], ["partial", "error", undefined])
      assert.include(cpu?.errors[0], "does not have")
      assert.match(stderr, /\[cpu_utilization\] error: .*does not have/)
      assert.match(stderr, /\] Collection partial\./)
    }))

  it.live("each collector has its time, and one that takes longer is missing with that reason", () =>
    Effect.gen(function*() {
      const profile = { name: "hasty", duration: "1 seconds", timeout: "100 millis", collectors: ["cpu_utilization"] }
      const at = yield* files({ "hasty.json": JSON.stringify(profile) })
      const { code, stdout } = yield* finished("collect", "-q", "--profile", at("hasty.json"))
      assert.strictEqual(code, 3)
      const { categories, metadata } = yield* decoded(stdout)
      assert.strictEqual(metadata.profile, "hasty")
      assert.strictEqual(categories.cpu?.[0]?.status, "timeout")
      assert.deepStrictEqual(categories.cpu?.[0]?.errors, ["took longer than 100ms"])
    }))

  it.live("a profile limits how many run at once, and the timeline tells who waited", () =>
    Effect.gen(function*() {
      const collectors = ["cpu_utilization", "disk_stats"]
      const profile = { name: "one by one", duration: "1 seconds", concurrency: 1, collectors }
      const at = yield* files({ "slow.json": JSON.stringify(profile) })
      const { stdout } = yield* finished("collect", "-q", "-p", at("slow.json"), "--duration", "300ms")
      const { timeline } = yield* decoded(stdout)
      const [cpu, disk] = timeline
      assert.deepStrictEqual(timeline.map(({ collector }) => collector), collectors)
      assert.isBelow(cpu?.waited_ms ?? 0, cpu?.duration_ms ?? 0)
      assert.isAtLeast(disk?.waited_ms ?? 0, 300)
    }))

  it.live("--duration is that of the samples, and stands in the metadata", () =>
    Effect.gen(function*() {
      const { stdout } = yield* finished("collect", "-q", "-p", "quick", "--duration", "1500ms")
      const { categories, metadata } = yield* decoded(stdout)
      assert.strictEqual(metadata.duration, "1.5s")
      assert.isAtLeast(categories.cpu?.[0]?.data?.sample_seconds ?? 0, 1.5)
    }))

  it.live("programs that a collector asked are counted among the observer's own", () =>
    Effect.gen(function*() {
      const { stdout } = yield* finished("collect", "-q", "-p", "quick", ...brief)
      const { metadata: { capabilities, observer_overhead: { child_pids, self_pid } } } = yield* decoded(stdout)
      assert.isAbove(self_pid, 0)
      if (capabilities.includes("df")) assert.isAbove(child_pids.length, 0)
    }))

  it.live("a critical anomaly fails only a run that asks for it: exit code 4", () =>
    Effect.gen(function*() {
      const at = yield* files({
        "proc/stat": stat(100),
        "proc/meminfo": "MemTotal: 1000000 kB\nMemFree: 10000 kB\nMemAvailable: 10000 kB\n",
        "proc/vmstat": "pgfault 1\n"
      })
      const args = ["collect", "-q", ...brief, ...roots(at("proc"), at(""))]
      const plain = yield* finished(...args)
      assert.strictEqual(plain.code, 0)
      const { summary } = yield* decoded(plain.stdout)
      assert.deepStrictEqual(
        summary.anomalies.map(({ metric, severity }) => [metric, severity]),
        [["memory_utilization", "critical"]]
      )
      const failing = yield* finished(...args, "--fail-on-critical")
      assert.deepStrictEqual([failing.code, failing.stderr], [4, ""])
    }))

  it.live("the first signal cuts what runs, and the report of what has ended is written", () =>
    Effect.gen(function*() {
      const at = yield* files({})
      const process = yield* started(["collect", "--duration", "50s", "--output", at("report.json")])
      yield* until(Effect.sync(process.output), ({ stderr }) => /\[system_info\] done/.test(stderr))
      const { code, stderr } = yield* process.kill("SIGINT")
      assert.strictEqual(code, 130)
      assert.match(stderr, /\[cpu_utilization\] interrupted \(cut off by the signal\)/)
      assert.match(stderr, /\] Collection interrupted\./)
      const report = yield* written(at("report.json"))
      assert.strictEqual(report.metadata.status, "interrupted")
      const { biolatency, cpu_utilization, system_info } = statuses(report)
      assert.deepStrictEqual([system_info, cpu_utilization, biolatency], ["ok", "interrupted", "skipped"])
      assert.deepStrictEqual(fs.readdirSync(at("")), ["report.json"])
    }))

  it.live("SIGTERM does the same, with 143", () =>
    Effect.gen(function*() {
      const process = yield* started(["collect", "--duration", "50s"])
      yield* until(Effect.sync(process.output), ({ stderr }) => /\[cpu_utilization\] collecting/.test(stderr))
      const { code, stdout } = yield* process.kill("SIGTERM")
      assert.strictEqual(code, 143)
      assert.strictEqual((yield* decoded(stdout)).metadata.status, "interrupted")
    }))

  /** Collects with a `df` that hangs and ignores SIGINT, which is passed on to it; waits until it runs. */
  const hanging = Effect.gen(function*() {
    const at = yield* files({
      "report.json": "the one before",
      "bin/df": `#!/bin/sh\ntrap '' INT\necho $$ > "$(dirname "$0")/df.pid"\nexec sleep 30\n`
    })
    fs.chmodSync(at("bin/df"), 0o755)
    const pid = () => fs.existsSync(at("bin/df.pid")) ? fs.readFileSync(at("bin/df.pid"), "utf8") : ""
    const runs = () => fs.existsSync(`/proc/${pid().trim()}/stat`)
    yield* Effect.addFinalizer(() => Effect.sync(() => runs() && process.kill(Number(pid()), "SIGKILL")))
    const sysreport = yield* started(["collect", "-o", at("report.json")], {
      PATH: `${at("bin")}:${process.env["PATH"] ?? ""}`
    })
    yield* until(Effect.sync(pid), (pid) => pid !== "")
    return { at, sysreport, runs }
  })

  it.live("a program that ignores the signal is killed, and named in the report", () =>
    Effect.gen(function*() {
      const { at, runs, sysreport } = yield* hanging
      const { code } = yield* sysreport.kill("SIGINT")
      assert.deepStrictEqual([code, runs()], [130, false])
      const report = yield* written(at("report.json"))
      assert.strictEqual(report.metadata.status, "interrupted")
      const [system] = report.categories.system ?? []
      assert.deepStrictEqual([system?.status, system?.errors], ["interrupted", ["cut off by the signal"]])
    }))

  it.live("the second signal ends it at once, and what was there before is as it was", () =>
    Effect.gen(function*() {
      const { at, sysreport } = yield* hanging
      sysreport.child.kill("SIGINT")
      yield* until(Effect.sync(sysreport.output), ({ stderr }) => /\[cpu_utilization\] interrupted/.test(stderr))
      const { code } = yield* sysreport.kill("SIGTERM")
      assert.strictEqual(code, 143)
      assert.strictEqual(fs.readFileSync(at("report.json"), "utf8"), "the one before")
      assert.deepStrictEqual(fs.readdirSync(at("")), ["bin", "report.json"])
    }))

  it.live("refuses what it cannot do before it measures: exit code 2, and 1 for the output", () =>
    Effect.gen(function*() {
      const at = yield* files({ "odd.json": JSON.stringify({ name: "odd", duration: "soon", collectors: ["all"] }) })
      const refused: ReadonlyArray<readonly [number, RegExp, ...ReadonlyArray<string>]> = [
        [2, /^there is no profile "fast"; there are quick, standard, deep$/, "--profile", "fast"],
        [2, /^profile .*odd\.json: duration: expected a valid Duration string, got "soon"$/, "-p", at("odd.json")],
        [2, /^profile .*: cannot be read: it is no file$/, "-p", at("")],
        [2, /is no process file system of Linux/, "--proc-root", at("")],
        [2, /--prfile/, "--prfile", "quick"],
        [1, /^could not write .*there is no such directory$/, "--output", at("none/report.json")],
        [1, /^could not write .*it is a directory$/, "--output", at("")]
      ]
      yield* Effect.forEach(refused, ([expected, message, ...args]) =>
        Effect.gen(function*() {
          const { code, stderr, stdout } = yield* finished("collect", ...args)
          assert.deepStrictEqual([code, stdout], [expected, ""], args.join(" "))
          assert.match(stderr.trimEnd(), message)
          assert.notInclude(stderr, "collecting...")
        }), { discard: true })
    }))

  it.live("what is no file is written to, and never replaced", () =>
    Effect.gen(function*() {
      const at = yield* files({ "real/report.json": "the one before" })
      fs.symlinkSync("/dev/full", at("full"))
      fs.symlinkSync(at("real/report.json"), at("link.json"))
      const full = yield* finished("collect", "-q", "-p", "quick", ...brief, "-o", at("full"))
      assert.strictEqual(full.code, 1)
      assert.match(full.stderr, /^could not write .*full: .*ENOSPC/)
      const link = yield* finished("collect", "-q", "-p", "quick", ...brief, "-o", at("link.json"))
      assert.strictEqual(link.code, 0)
      assert.strictEqual((yield* written(at("real/report.json"))).metadata.status, "complete")
      for (const name of ["full", "link.json"]) assert.isTrue(fs.lstatSync(at(name)).isSymbolicLink(), name)
      assert.deepStrictEqual([fs.readdirSync(at("")), fs.readdirSync(at("real"))], [["full", "link.json", "real"], [
        "report.json"
      ]])
    }))

  it.live("diff compares two reports, and says of a file that is none where it is wrong", () =>
    Effect.gen(function*() {
      const at = yield* files({ "other.json": `{ "metadata": { "tool": 1 } }` })
      yield* finished("collect", "-q", "-p", "quick", ...brief, "-o", at("report.json"))
      const same = yield* finished("diff", at("report.json"), at("report.json"))
      assert.deepStrictEqual([same.code, same.stderr], [0, ""])
      assert.deepStrictEqual(JSON.parse(same.stdout).changes, [])
      const other = yield* finished("diff", at("report.json"), at("other.json"))
      assert.deepStrictEqual([other.code, other.stdout], [2, ""])
      assert.match(other.stderr, /^report .*other\.json: metadata\.tool: expected string, got 1; /)
    }))
})
