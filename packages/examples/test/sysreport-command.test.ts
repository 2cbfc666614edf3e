/**
 * What `sysreport` asks of its collectors, and what it makes of their answers, on machines that are directories.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, FileSystem, Layer, Option, Path, Runtime, Schema, Stdio } from "effect"
import { TestClock } from "effect/testing"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import * as Bcc from "../src/sysreport/Bcc.ts"
import * as Collecting from "../src/sysreport/Collecting.ts"
import * as GoDuration from "../src/sysreport/GoDuration.ts"
import * as Observer from "../src/sysreport/Observer.ts"
import * as Output from "../src/sysreport/Output.ts"
import * as Profiles from "../src/sysreport/Profiles.ts"
import * as Progress from "../src/sysreport/Progress.ts"
import * as Report from "../src/sysreport/Report.ts"
import * as World from "./SysreportWorld.ts"

const plain: Collecting.Request = {
  profile: "standard",
  focus: [],
  duration: undefined,
  quiet: true,
  ofThisMachine: false
}

/** A report of a machine, in virtual time. */
const reported = (machine: string, request: Partial<Collecting.Request> = {}) =>
  Effect.gen(function*() {
    const running = yield* Effect.forkChild(Collecting.collect({ ...plain, ...request }))
    yield* TestClock.adjust("2 minutes")
    return yield* Fiber.join(running)
  }).pipe(Effect.provide(Layer.merge(World.layer(machine), Path.layer)))

describe("sysreport collect", () => {
  it.effect("writes what it can read again", () =>
    Effect.gen(function*() {
      const report = yield* reported("busy")
      assert.deepStrictEqual(yield* Report.decode(yield* Report.encode(report), "a report"), report)
    }))

  it.effect("fills in what is known of the machine beside the measurements", () =>
    Effect.gen(function*() {
      const { categories, metadata, system } = yield* reported("pod")
      assert.deepStrictEqual(system, categories.system?.[0]?.data)
      assert.isDefined(system?.kernel)
      const { capabilities, cgroup_version, container_env } = metadata
      assert.strictEqual(container_env, "kubernetes")
      assert.deepStrictEqual(cgroup_version, categories.container?.[0]?.data?.cgroup_version)
      assert.include(capabilities, "procfs")
    }))

  it.effect("samples a category in focus for as long as the profile says, and the others for a second", () =>
    Effect.gen(function*() {
      const { categories, metadata } = yield* reported("busy", { focus: ["network"] })
      assert.deepStrictEqual(metadata.focus_areas, ["network"])
      assert.strictEqual(categories.network?.[0]?.data?.sample_seconds, 30)
      assert.strictEqual(categories.cpu?.[0]?.data?.sample_seconds, 1)
    }))

  it.effect("samples all for as long as it is told, which may be longer than a profile takes", () =>
    Effect.gen(function*() {
      const { categories, metadata } = yield* reported("busy", { duration: Duration.seconds(45) })
      assert.deepStrictEqual([metadata.status, metadata.duration], ["complete", "45s"])
      assert.strictEqual(categories.disk?.[0]?.data?.sample_seconds, 45)
    }))

  it.effect("tells every collector that was selected, in the order of their declaration", () =>
    Effect.gen(function*() {
      const { timeline } = yield* reported("idle", { profile: "deep" })
      assert.deepStrictEqual(
        timeline.map(({ collector }) => collector),
        Collecting.collectors.map(({ name }) => name)
      )
    }))
})

describe("a request that cannot be met", () => {
  /** With a profile of this content. */
  const refused = (content: string, request: Partial<Collecting.Request> = {}) =>
    Effect.gen(function*() {
      const directory = yield* Effect.acquireRelease(
        Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "sysreport-"))),
        (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true }))
      )
      const profile = path.join(directory, "profile.json")
      fs.writeFileSync(profile, content)
      const error = yield* Effect.flip(Collecting.collect({ ...plain, profile, ...request }))
      assert.strictEqual(Runtime.getErrorExitCode(error), 2)
      return error.message.replace(`${directory}/`, "")
    }).pipe(Effect.scoped, Effect.provide(Layer.merge(World.layer("idle"), Path.layer)))

  it.effect("is refused with every problem of the profile, and its place", () =>
    Effect.gen(function*() {
      assert.match(yield* refused("{"), /^profile profile\.json: expected JSON: /)
      assert.strictEqual(
        yield* refused(`{ "name": "", "duration": "soon", "collectors": ["cpu_utilization", 7] }`),
        "profile profile.json: name: expected a value with a length of at least 1, got \"\"; " +
          "collectors[1]: expected string, got 7; duration: expected a valid Duration string, got \"soon\""
      )
      assert.strictEqual(
        yield* refused(`{ "name": "odd", "duration": "0 seconds", "collectors": ["all"], "exlude": ["disk_stats"] }`),
        "profile profile.json: exlude: expected no excess property, got [\"disk_stats\"]; " +
          "duration: expected a duration greater than 0, got \"0 seconds\""
      )
      assert.strictEqual(
        yield* refused("{}", { profile: "none.json" }),
        "profile none.json: there is no such file"
      )
    }))

  it.effect("is refused when it names what is not there, with what is", () =>
    Effect.gen(function*() {
      assert.match(
        yield* refused(`{ "name": "odd", "duration": "1 seconds", "collectors": ["cpu_usage"] }`),
        /^profile "odd" names no collector that there is with "cpu_usage"; there are system_info, cpu_utilization, /
      )
      assert.match(
        yield* refused(
          `{ "name": "odd", "duration": "1 seconds", "collectors": ["all"], "focus": { "dsk": "1 seconds" } }`
        ),
        /^profile "odd" names no category that there is with "dsk"; there are system, cpu, /
      )
      assert.match(
        yield* refused("{}", { profile: "quick", focus: ["cpu", "cups"] }),
        /^--focus: there is no category cups; there are system, cpu, /
      )
    }))
})

describe("Profiles", () => {
  const select = (name: string, focus: ReadonlyArray<string>) =>
    Effect.gen(function*() {
      const profile = yield* Profiles.find(name)
      const selected = yield* Profiles.select(Bcc.collectors, profile, { focus, duration: undefined })
      return selected.map(({ name }) => name)
    }).pipe(Effect.provide(World.layer("idle")))

  it.effect("leave out of the costly collectors those that are not in focus, when something is", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* select("deep", ["network"]), ["tcpretrans", "tcpstates", "tcplife"])
      assert.strictEqual((yield* select("deep", [])).length, Bcc.collectors.length)
      assert.notInclude(yield* select("standard", []), "memleak")
    }))

  it.effect("name only collectors and categories that there are", () =>
    Effect.forEach(Profiles.profiles, (profile) => {
      const focus = Object.keys(profile.focus ?? {})
      return Profiles.select(Collecting.collectors, profile, { focus, duration: undefined })
    }))

  it("have time for the longest sample", () => {
    for (const profile of Profiles.profiles) {
      const focus = Object.keys(profile.focus ?? {})
      for (const category of focus) {
        const sample = Profiles.sampleOf(profile, { focus, duration: undefined }, category)
        const deadline = Profiles.deadlineOf(profile, { focus, duration: undefined })
        assert.isTrue(Duration.isLessThan(sample, deadline), `${profile.name} ${category}`)
      }
    }
  })

  it("are data: ours survive a file", () => {
    const codec = Schema.fromJsonString(Schema.Array(Profiles.Profile))
    assert.deepStrictEqual(
      Schema.decodeSync(codec)(Schema.encodeSync(codec)(Profiles.profiles)),
      Profiles.profiles
    )
  })
})

describe("GoDuration", () => {
  it("reads and writes durations as Go does", () => {
    const durations: ReadonlyArray<readonly [string, number]> = [
      ["500ms", 500],
      ["10s", 10_000],
      ["1.5s", 1500],
      ["1m30s", 90_000],
      ["1m0s", 60_000],
      ["1h0m5s", 3_605_000]
    ]
    for (const [text, millis] of durations) {
      assert.deepStrictEqual(Option.map(GoDuration.parse(text), Duration.toMillis), Option.some(millis), text)
      assert.strictEqual(GoDuration.format(Duration.millis(millis)), text)
    }
  })

  it("refuses what is no duration, and one of nothing", () => {
    for (const text of ["", "10", "s", "-1s", "0s", "1d", "1 s", "1s later"]) {
      assert.isTrue(Option.isNone(GoDuration.parse(text)), text)
    }
  })
})

describe("Observer", () => {
  it("adds the programs that have ended to its own time, whatever it is called", () => {
    const stat = `7 (node (a) b) S 1 7 7 0 -1 4194560 100 200 0 0 31 12 5 3 20 0 11 0 1000 1 2`
    const status = "Name:\tnode\nVmRSS:\t   2048 kB\nvoluntary_ctxt_switches:\t40\nnonvoluntary_ctxt_switches:\t2\n"
    assert.deepStrictEqual(Observer.parse(stat, status, "rchar: 1\nread_bytes: 4096\nwrite_bytes: 8192\n"), {
      userMillis: 360,
      systemMillis: 150,
      rssBytes: 2_097_152,
      readBytes: 4096,
      writtenBytes: 8192,
      contextSwitches: 42
    })
  })

  it("does not know what the system does not tell", () => {
    assert.deepStrictEqual(Object.values(Observer.parse("", "", "")).filter((value) => value !== undefined), [])
  })
})

describe("Output", () => {
  it.effect("takes its place when all of it is on the disk", () =>
    Effect.gen(function*() {
      const log: Array<string> = []
      const told = (what: string) => Effect.sync(() => void log.push(what.replace(`.${process.pid}.`, ".PID.")))
      // Of a file that is open, these two are asked for.
      const file = { writeAll: () => told("write"), sync: told("sync") } as unknown as FileSystem.File
      yield* Output.write("/tmp/report.json", "{}").pipe(Effect.provide(FileSystem.layerNoop({
        open: (name) => Effect.as(told(`open ${name}`), file),
        rename: (from, to) => told(`rename ${from} ${to}`),
        remove: () => Effect.void
      })))
      assert.deepStrictEqual(log, [
        "open /tmp/report.json.PID.tmp",
        "write",
        "sync",
        "rename /tmp/report.json.PID.tmp /tmp/report.json"
      ])
    }).pipe(Effect.provide(Layer.merge(Path.layer, Stdio.layerTest({})))))
})

describe("Progress", () => {
  it("says of each collector how it ended", () => {
    const ended = (status: "ok" | "timeout" | "error" | "skipped" | "interrupted" | "stuck", reason = "") =>
      Progress.describe({
        _tag: "Ended",
        name: "disk_stats",
        category: "disk",
        status,
        reason,
        startedAt: 0,
        waitedMillis: 500,
        durationMillis: 1040,
        done: 1,
        total: 2
      })
    assert.deepStrictEqual([
      Progress.describe({ _tag: "Started", name: "disk_stats", category: "disk", total: 2 }),
      ended("ok"),
      ended("skipped", "no disk"),
      ended("error", "unreadable"),
      ended("timeout", "took longer than 2s"),
      ended("stuck", "took longer than 2s, and does not end"),
      ended("interrupted", "cut off by the signal")
    ], [
      "  [disk_stats] collecting...",
      "  [disk_stats] done (1.0s)",
      "  [disk_stats] skipped: no disk",
      "  [disk_stats] error: unreadable",
      "  [disk_stats] timeout: took longer than 2s",
      "  [disk_stats] timeout: took longer than 2s, and does not end",
      "  [disk_stats] interrupted (cut off by the signal)"
    ])
  })
})
