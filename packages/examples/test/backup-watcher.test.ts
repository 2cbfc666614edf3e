/**
 * These tests run on the real clock: the files and the watches are those of the operating system, which no test clock
 * moves. None asserts a duration; each waits until what it expects is there.
 */
import { Orchestrator } from "@effect-orchestra/core"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, FileSystem, Layer, type Path, Schedule, Stream, Terminal } from "effect"
import { TerminalCapabilities } from "effect/cli"
import { vi } from "vitest"
import type { Stats } from "../src/backup-service/Backup.ts"
import { Database } from "../src/backup-service/Database.ts"
import { Display } from "../src/backup-service/Display.ts"
import { FileWatcher } from "../src/backup-service/FileWatcher.ts"
import { Store } from "../src/backup-service/Store.ts"
import * as BackupWorld from "./BackupWorld.ts"

vi.setConfig({ testTimeout: 30_000 })

type Services = FileWatcher | Database | Store | FileSystem.FileSystem | Path.Path

interface Setting extends BackupWorld.Options {
  readonly fileSystem?: Layer.Layer<FileSystem.FileSystem>
  readonly shown?: ReturnType<typeof BackupWorld.display>
  /** Before the watcher starts. */
  readonly prepare?: (world: BackupWorld.World) => Effect.Effect<void, unknown, FileSystem.FileSystem | Path.Path>
}

const services = (
  world: BackupWorld.World,
  { fileSystem = BackupWorld.platform, shown = BackupWorld.display() }: Setting
) =>
  Layer.fresh(FileWatcher.layer).pipe(
    Layer.provideMerge(Layer.fresh(Database.layer)),
    Layer.provideMerge(Layer.fresh(Store.layer)),
    Layer.provide(Layer.mergeAll(shown.layer, world.settings, Orchestrator.layer)),
    Layer.provide(fileSystem),
    Layer.provide(BackupWorld.platform)
  )

/** Runs the test when the first scan has ended. */
const watching = <A, E>(setting: Setting, test: (world: BackupWorld.World) => Effect.Effect<A, E, Services>) =>
  Effect.gen(function*() {
    const world = yield* BackupWorld.make(setting)
    yield* setting.prepare?.(world) ?? Effect.void
    yield* Effect.andThen(untilRuns(1), test(world)).pipe(Effect.provide(services(world, setting)))
    assert.deepStrictEqual(yield* BackupWorld.damage(world), [])
  }).pipe(Effect.provide(BackupWorld.platform))

const until = <A, E, R>(look: Effect.Effect<A, E, R>, isThere: (value: A) => boolean) =>
  Effect.repeat(look, { until: isThere, schedule: Schedule.spaced("5 millis") }).pipe(Effect.timeout("10 seconds"))

const stats = Database.use((database) => database.stats)

const untilRuns = (count: number) =>
  until(stats, ({ lastRun, runs }) => runs >= count && lastRun?.finishedAt !== undefined)

const untilStats = (isThere: (stats: Stats) => boolean) => until(stats, isThere)

/** What the backup says stands in the source. */
const backedUp = Effect.gen(function*() {
  const database = yield* Database
  const store = yield* Store
  const files = yield* database.files("", { limit: 1000 })
  const contents = yield* Effect.forEach(
    files.filter(({ deleted }) => !deleted),
    (file) =>
      Effect.map(Stream.mkString(Stream.decodeText(store.read(file))), (content) => [file.path, content] as const)
  )
  return Object.fromEntries(contents)
})

const versions = (path: string) => Database.use((database) => database.versions(path, { limit: 1000 }))

describe("a scan", () => {
  it.live("backs up every file, and the same content once", () =>
    watching({
      prepare: Effect.fnUntraced(function*({ put }) {
        yield* put("a.txt", "same")
        yield* put("deep/er/b.txt", "same")
        yield* put("deep/empty", "")
        yield* put("näme with\nnewline", "x")
      })
    }, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* backedUp, {
          "a.txt": "same",
          "deep/er/b.txt": "same",
          "deep/empty": "",
          "näme with\nnewline": "x"
        })
        const { lastRun, objects } = yield* stats
        assert.strictEqual(objects, 3)
        assert.include(lastRun, { kind: "scan", files: 4, stored: 4, failed: 0, partial: false })
      })))

  it.live("reads no file again that has not changed, and makes no version of one that was only touched", () => {
    const reads: Array<string> = []
    return watching({
      fileSystem: BackupWorld.wrapped((operation, name, path) => {
        if (name === "open" && path.includes("/source/")) reads.push(path)
        return operation
      }),
      prepare: Effect.fnUntraced(function*({ put, source }) {
        const fs = yield* FileSystem.FileSystem
        yield* put("old", "old")
        yield* fs.utimes(`${source}/old`, 1000, 1000)
        yield* put("young", "young")
      })
    }, ({ source }) =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const watcher = yield* FileWatcher
        assert.sameMembers(reads.splice(0), [`${source}/old`, `${source}/young`])
        yield* watcher.scan
        yield* untilRuns(2)
        // A file that is modified twice in one tick of the clock shows it by nothing but its bytes.
        assert.deepStrictEqual(reads.splice(0), [`${source}/young`])
        yield* fs.utimes(`${source}/old`, 2000, 2000)
        yield* watcher.scan
        yield* untilRuns(3)
        assert.include(reads, `${source}/old`)
        assert.lengthOf(yield* versions("old"), 1)
      }))
  })

  it.live("skips links and never leaves the source", () =>
    watching({
      prepare: Effect.fnUntraced(function*({ put, source }) {
        const fs = yield* FileSystem.FileSystem
        yield* put("real/file", "content")
        yield* fs.symlink("/etc", `${source}/outside`)
        yield* fs.symlink(`${source}/real/file`, `${source}/inside`)
        yield* fs.symlink(`${source}/nowhere`, `${source}/broken`)
        yield* fs.symlink(source, `${source}/real/loop`)
      })
    }, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* backedUp, { "real/file": "content" })
        assert.include((yield* stats).lastRun, { files: 1, skipped: 4, failed: 0, partial: false })
      })))

  it.live("never looks into the store, though it lies in the source", () =>
    watching({
      storeInSource: "hidden/backup",
      prepare: Effect.fnUntraced(function*({ put, restored }) {
        const fs = yield* FileSystem.FileSystem
        yield* put("hidden/file", "content")
        yield* fs.makeDirectory(restored, { recursive: true })
        yield* fs.writeFileString(`${restored}/copy`, "copy")
      })
    }, ({ put }) =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* backedUp, { "hidden/file": "content" })
        yield* put("hidden/backup/intruder", "x")
        yield* put("hidden/later", "y")
        yield* untilStats(({ files }) => files === 2)
        assert.deepStrictEqual(yield* backedUp, { "hidden/file": "content", "hidden/later": "y" })
      })))

  it.live("tells and counts what it cannot read, goes on, and calls the run partial", () => {
    const shown = BackupWorld.display()
    return watching({
      shown,
      fileSystem: BackupWorld.fileSystem((real) => ({
        open: (path, options) => path.endsWith("secret") ? denied(path) : real.open(path, options),
        readDirectory: (path, options) => path.endsWith("private") ? denied(path) : real.readDirectory(path, options)
      })),
      prepare: Effect.fnUntraced(function*({ put }) {
        for (const name of ["a", "private/b", "secret", "z"]) yield* put(name, name)
      })
    }, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* backedUp, { a: "a", z: "z" })
        assert.include((yield* stats).lastRun, { stored: 2, failed: 2, partial: true })
        const tellsOf = (name: string) =>
          shown.shown.filter((line) => line.startsWith(`Could not read ${name}: `)).length
        assert.deepStrictEqual([tellsOf("secret"), tellsOf("private")], [1, 1])
        yield* FileWatcher.use(({ scan }) => scan)
        yield* untilRuns(2)
        assert.include((yield* stats).lastRun, { failed: 2, partial: true })
        assert.deepStrictEqual([tellsOf("secret"), tellsOf("private")], [1, 1])
      }))
  })

  it.live("does not take for deleted what it merely cannot see", () => {
    let hidden = false
    return watching({
      fileSystem: BackupWorld.fileSystem((real) => ({
        readDirectory: (path, options) =>
          hidden && path.endsWith("private") ? denied(path) : real.readDirectory(path, options),
        lstat: (path) => hidden && path.endsWith("source") ? denied(path) : real.lstat(path)
      })),
      prepare: Effect.fnUntraced(function*({ put }) {
        yield* put("private/file", "content")
        yield* put("privateer", "content")
      })
    }, ({ drop }) =>
      Effect.gen(function*() {
        hidden = true
        yield* FileWatcher.use(({ scan }) => scan)
        yield* untilRuns(2)
        assert.include(yield* stats, { files: 2, deleted: 0 })
        assert.isTrue((yield* stats).lastRun?.partial)
        yield* drop("privateer")
        yield* untilStats(({ deleted }) => deleted === 1)
        assert.deepStrictEqual(Object.keys(yield* backedUp), ["private/file"])
      }))
  })

  it.live("counts files that vanish between being listed and being read", () =>
    watching({
      fileSystem: BackupWorld.fileSystem((real) => ({
        // Gone at the moment it is opened, another one at the moment it is looked at.
        open: (path, options) =>
          path.endsWith("fleeting")
            ? Effect.andThen(real.remove(path), real.open(path, options))
            : real.open(path, options),
        lstat: (path) => path.endsWith("ghost") ? Effect.andThen(real.remove(path), real.lstat(path)) : real.lstat(path)
      })),
      prepare: Effect.fnUntraced(function*({ put }) {
        for (const name of ["fleeting", "ghost", "lasting"]) yield* put(name, name)
      })
    }, () =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* backedUp, { lasting: "lasting" })
        assert.include((yield* stats).lastRun, { stored: 1, vanished: 2, failed: 0, partial: false })
      })))

  it.live("calls a run partial when the disk is full, and makes it good later", () => {
    let full = true
    return watching({
      fileSystem: BackupWorld.wrapped((operation, name, path) =>
        full && name === "write" && path.includes("/tmp/") ? denied(path) : operation
      ),
      prepare: ({ put }) => Effect.andThen(put("a", "a"), put("b", "b"))
    }, (world) =>
      Effect.gen(function*() {
        assert.include((yield* stats).lastRun, { stored: 0, failed: 2, partial: true })
        assert.deepStrictEqual(yield* BackupWorld.damage(world), [])
        assert.deepStrictEqual(yield* backedUp, {})
        full = false
        yield* FileWatcher.use(({ scan }) => scan)
        yield* untilRuns(2)
        assert.deepStrictEqual(yield* backedUp, { a: "a", b: "b" })
        assert.isFalse((yield* stats).lastRun?.partial)
      }))
  })

  it.live("records the bytes that it stored of a file that changes while it is read", () => {
    let isChanging = true
    return watching({
      fileSystem: BackupWorld.wrapped((operation, name, path) =>
        isChanging && name === "read" && path.endsWith("log")
          ? Effect.tap(operation, () => {
            isChanging = false
            return Effect.flatMap(FileSystem.FileSystem, (fs) => fs.writeFileString(path, "y".repeat(200_000))).pipe(
              Effect.provide(BackupWorld.platform)
            )
          })
          : operation
      ),
      prepare: ({ put }) => put("log", "x".repeat(200_000))
    }, () =>
      // `watching` compares every object with its name; in the end the latest state is there.
      until(backedUp, ({ log }) => log === "y".repeat(200_000)))
  })

  it.live("is asked for once by those who wait together", () =>
    watching({ prepare: ({ put }) => put("a", "a") }, () =>
      Effect.gen(function*() {
        const { scan } = yield* FileWatcher
        for (let i = 0; i < 20; i++) yield* scan
        yield* untilRuns(2)
        yield* Effect.sleep("100 millis")
        assert.strictEqual((yield* stats).runs, 2)
      })))

  it.live("shows its progress in steps of 10 %", () => {
    const shown = BackupWorld.display()
    return watching({
      shown,
      prepare: ({ put }) => Effect.forEach(Array.from({ length: 30 }, (_, i) => `${i}`), (name) => put(name, name))
    }, () =>
      Effect.gen(function*() {
        yield* until(Effect.sync(() => shown.shown.length), (lines) => lines === 12)
        const percents = Array.from({ length: 10 }, (_, i) => `${10 * (i + 1)} % (${3 * (i + 1)} of 30 files)\n`)
        assert.deepStrictEqual(shown.shown, [
          "started\n",
          ...percents,
          "scan: files 30, stored 30, deleted 0, vanished 0, failed 0\n"
        ])
      }))
  })
})

describe("the display", () => {
  it.effect("rewrites one line on a terminal, and tells nothing before its first line", () => {
    const shown: Array<string> = []
    const terminal = Terminal.make({
      columns: Effect.succeed(80),
      rows: Effect.succeed(24),
      size: Effect.never,
      readInput: Effect.never,
      readLine: Effect.never,
      display: (text) => Effect.sync(() => shown.push(text))
    })
    return Effect.gen(function*() {
      const { announce, line, progress } = yield* Display
      const early = yield* Effect.forkChild(line("early"), { startImmediately: true })
      assert.deepStrictEqual(shown, [])
      yield* announce("first")
      yield* Fiber.join(early)
      for (let done = 1; done <= 400; done++) yield* progress(done, 400)
      yield* line("last")
      const clear = "\r\u001b[2K"
      assert.deepStrictEqual(shown.slice(0, 3), ["first\n", `${clear}early\n`, `${clear}1 % (4 of 400 files)`])
      assert.deepStrictEqual(shown.slice(-3), [`${clear}99 % (396 of 400 files)`, clear, `${clear}last\n`])
      assert.lengthOf(shown, 103)
    }).pipe(
      Effect.provide(Display.layer),
      Effect.provideService(Terminal.Terminal, terminal),
      Effect.provideService(TerminalCapabilities.TerminalCapabilities, {
        canColor: false,
        canAnimate: true,
        canPrompt: false
      })
    )
  })
})

describe("the watch", () => {
  it.live("backs up what is written, replaced, moved and deleted", () =>
    watching({
      prepare: Effect.fnUntraced(function*({ put }) {
        for (const name of ["changed", "deleted", "kept/file", "linked/file", "moved", "replaced/file"]) {
          yield* put(name, name)
        }
      })
    }, ({ drop, put, source }) =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        yield* put("changed", "new content")
        yield* drop("deleted")
        yield* fs.rename(`${source}/moved`, `${source}/there`)
        yield* drop("replaced")
        yield* put("replaced", "a file now")
        yield* drop("linked")
        yield* fs.symlink(`${source}/kept`, `${source}/linked`)
        const expected = JSON.stringify({
          changed: "new content",
          "kept/file": "kept/file",
          replaced: "a file now",
          there: "moved"
        })
        yield* until(backedUp, (files) => JSON.stringify(files) === expected)
        assert.lengthOf(yield* versions("changed"), 2)
        assert.lengthOf(yield* versions("deleted"), 1)
      })))

  it.live("sees all that happens in directories that come, go, and come again", () =>
    watching({}, ({ drop, put }) =>
      Effect.gen(function*() {
        yield* put("a/b/c/file", "1")
        yield* until(backedUp, (files) => files["a/b/c/file"] === "1")
        yield* put("a/b/c/file", "2")
        yield* until(backedUp, (files) => files["a/b/c/file"] === "2")
        yield* drop("a")
        yield* put("a/b/c/file", "3")
        yield* until(backedUp, (files) => files["a/b/c/file"] === "3")
        yield* put("a/b/c/file", "4")
        yield* put("a/b/other", "5")
        yield* until(backedUp, (files) => files["a/b/c/file"] === "4" && files["a/b/other"] === "5")
        yield* drop("a")
        yield* until(backedUp, (files) => Object.keys(files).length === 0)
      })))

  it.live("follows a directory that is moved", () =>
    watching({ prepare: ({ put }) => put("old/deep/file", "1") }, ({ put, source }) =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        yield* fs.rename(`${source}/old`, `${source}/new`)
        yield* until(backedUp, (files) => files["new/deep/file"] === "1" && files["old/deep/file"] === undefined)
        yield* put("new/deep/file", "2")
        yield* until(backedUp, (files) => files["new/deep/file"] === "2")
      })))

  it.live("misses nothing that appears while a directory is being listed", () =>
    watching({
      fileSystem: BackupWorld.fileSystem((real) => ({
        readDirectory: (path, options) =>
          Effect.tap(real.readDirectory(path, options), () =>
            path.endsWith("busy")
              ? Effect.ignore(real.writeFileString(`${path}/late`, "late", { flag: "wx" }))
              : Effect.void)
      })),
      prepare: ({ put }) => put("busy/early", "early")
    }, () => until(backedUp, (files) => files["busy/late"] === "late")))

  it.live("stops watching the directories that are gone", () => {
    const watched = new Set<string>()
    return watching({
      fileSystem: BackupWorld.fileSystem((real) => ({
        watch: (path, options) =>
          Stream.suspend(() => {
            watched.add(path)
            return real.watch(path, options)
          }).pipe(Stream.ensuring(Effect.sync(() => watched.delete(path))))
      })),
      prepare: Effect.fnUntraced(function*({ put }) {
        for (const name of ["a/b/c", "replaced/d", "stays/e"]) yield* put(name, name)
      })
    }, ({ drop, put, source }) =>
      Effect.gen(function*() {
        const names = ["", "/a", "/a/b", "/replaced", "/stays"]
        assert.sameMembers(Array.from(watched), names.map((name) => source + name))
        yield* drop("a")
        yield* drop("replaced")
        yield* put("replaced", "a file now")
        yield* until(Effect.sync(() => watched.size), (size) => size === 2)
        assert.sameMembers(Array.from(watched), [source, `${source}/stays`])
      }))
  })

  it.live("makes one version of a burst of writes: the last", () =>
    watching({ quiet: 150, prepare: ({ put }) => put("log", "") }, ({ put }) =>
      Effect.gen(function*() {
        for (let i = 1; i <= 40; i++) {
          yield* put("log", `line ${i}`)
          yield* Effect.sleep("5 millis")
        }
        yield* until(backedUp, (files) => files["log"] === "line 40")
        assert.lengthOf(yield* versions("log"), 2)
      })))

  it.live("backs up a file that never stops changing", () =>
    watching({ quiet: 20, prepare: ({ put }) => put("log", "") }, ({ put }) =>
      Effect.gen(function*() {
        let line = 0
        const writer = yield* Effect.forkChild(
          Effect.forever(Effect.andThen(Effect.suspend(() => put("log", `line ${line++}`)), Effect.sleep("5 millis")))
        )
        yield* until(versions("log"), (found) => found.length > 3)
        assert.isUndefined(writer.pollUnsafe())
        yield* Fiber.interrupt(writer)
      })))

  it.live("gives way to scans where the system does not let it watch", () => {
    const shown = BackupWorld.display()
    return watching({
      shown,
      rescan: 50,
      fileSystem: BackupWorld.fileSystem(() => ({ watch: (path) => Stream.fromEffect(denied(path)) })),
      prepare: ({ put }) => put("a", "1")
    }, ({ put, source }) =>
      Effect.gen(function*() {
        yield* put("a", "2")
        yield* put("b/c", "3")
        yield* until(backedUp, (files) => files["a"] === "2" && files["b/c"] === "3")
        assert.isTrue(shown.shown.some((line) => line.startsWith(`Cannot watch ${source}, will only scan it`)))
      }))
  })

  it.live("survives the loss of the source and finds it again", () =>
    watching({ rescan: 50, prepare: ({ put }) => put("a", "1") }, ({ put, source }) =>
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        yield* fs.rename(source, `${source}.away`)
        yield* untilStats(({ lastRun }) => lastRun?.partial === true)
        assert.include(yield* stats, { files: 1, deleted: 0 })
        yield* fs.rename(`${source}.away`, source)
        yield* untilStats(({ lastRun }) => lastRun?.partial === false)
        yield* put("a", "2")
        yield* until(backedUp, (files) => files["a"] === "2")
      })))
})

const denied = (path: string) => Effect.fail(BackupWorld.refusal("PermissionDenied", path, "permission denied"))
