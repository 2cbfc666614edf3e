import { assert, describe, it } from "@effect/vitest"
import { DateTime, Effect, FileSystem, Layer, Option, type Path } from "effect"
import { TestClock } from "effect/testing"
import { DatabaseSync } from "node:sqlite"
import { Database } from "../src/backup-service/Database.ts"
import * as BackupWorld from "./BackupWorld.ts"

/** A world whose store is there, as it is when the database opens. */
const withWorld = <A, E>(
  test: (world: BackupWorld.World) => Effect.Effect<A, E, FileSystem.FileSystem | Path.Path>
) =>
  Effect.gen(function*() {
    const world = yield* BackupWorld.make()
    const fs = yield* FileSystem.FileSystem
    yield* fs.makeDirectory(world.store)
    return yield* test(world)
  }).pipe(Effect.provide(BackupWorld.platform))

const layer = (world: BackupWorld.World) =>
  Layer.fresh(Database.layer).pipe(Layer.provide(Layer.merge(world.settings, BackupWorld.platform)))

const withDatabase = <A, E>(test: (database: Database["Service"]) => Effect.Effect<A, E>) =>
  withWorld((world) => Database.use(test).pipe(Effect.provide(layer(world))))

const sighting = (path: string, content: string, modifiedAt: number | null = null) => ({
  path,
  sha256: BackupWorld.sha256(content),
  size: content.length,
  modifiedAt
})

const counts = { files: 3, stored: 1, unchanged: 1, deleted: 1, vanished: 0, skipped: 2, failed: 0 }

describe("Database", () => {
  it.effect("makes a version of each new content, and none of one that is unchanged", () =>
    withDatabase(Effect.fnUntraced(function*(database) {
      assert.isTrue(yield* database.record(sighting("a", "one")))
      yield* TestClock.adjust("1 minute")
      assert.isTrue(yield* database.record(sighting("a", "two", 7)))
      assert.isFalse(yield* database.record(sighting("a", "two", 8)))
      assert.isTrue(yield* database.record(sighting("a", "one")))
      const versions = yield* database.versions("a", { limit: 10 })
      assert.deepStrictEqual(versions.map(({ id, sha256, size }) => [id, sha256, size]), [
        [3, BackupWorld.sha256("one"), 3],
        [2, BackupWorld.sha256("two"), 3],
        [1, BackupWorld.sha256("one"), 3]
      ])
      assert.deepStrictEqual(versions.map(({ at }) => DateTime.toEpochMillis(at)), [60_000, 60_000, 0])
      assert.deepStrictEqual(yield* database.version(2), Option.fromNullishOr(versions[1]))
      assert.deepStrictEqual(yield* database.version(4), Option.none())
      assert.deepStrictEqual(yield* database.lastSeen("a"), Option.some(sighting("a", "one")))
    })))

  it.effect("keeps the versions of a deleted file, and takes it back", () =>
    withDatabase(Effect.fnUntraced(function*(database) {
      yield* database.record(sighting("a", "one"))
      assert.strictEqual(yield* database.markDeleted(["a", "never seen"]), 1)
      assert.strictEqual(yield* database.markDeleted(["a"]), 0)
      const [file] = yield* database.files("", { limit: 10 })
      assert.deepStrictEqual(file, {
        path: "a",
        sha256: BackupWorld.sha256("one"),
        size: 3,
        versions: 1,
        deleted: true
      })
      assert.deepStrictEqual(yield* database.lastSeen("a"), Option.none())
      assert.deepStrictEqual(yield* database.present(""), [])
      assert.isFalse(yield* database.record(sighting("a", "one")))
      assert.deepStrictEqual(yield* database.present(""), ["a"])
    })))

  it.effect("lists by prefix, taken literally, page by page", () =>
    withDatabase(Effect.fnUntraced(function*(database) {
      const paths = ["%", "A/1", "a", "a/", "a/1", "a/2", "a/\u{10ffff}", "a/é", "a0", "a_b", "b", "é/x"]
      for (const path of paths) yield* database.record(sighting(path, path))
      const list = (prefix: string, limit: number) =>
        Effect.gen(function*() {
          const pages: Array<ReadonlyArray<string>> = []
          for (let after: string | undefined;; after = pages.at(-1)?.at(-1)) {
            const page = yield* database.files(prefix, { after, limit })
            if (page.length === 0) return pages.flat()
            assert.isAtMost(page.length, limit)
            pages.push(page.map(({ path }) => path))
          }
        })
      for (const prefix of ["", "a", "a/", "a_", "%", "é", "A", "none"]) {
        const expected = paths.filter((path) => path.startsWith(prefix)).toSorted(byBytes)
        for (const limit of [1, 2, 100]) assert.deepStrictEqual(yield* list(prefix, limit), expected, prefix)
      }
      assert.deepStrictEqual(yield* database.present("a"), ["a", "a/", "a/1", "a/2", "a/é", "a/\u{10ffff}"])
      assert.deepStrictEqual(yield* database.present("a/1"), ["a/1"])
    })))

  it.effect("lists versions page by page", () =>
    withDatabase(Effect.fnUntraced(function*(database) {
      for (let i = 0; i < 5; i++) {
        yield* database.record(sighting("a", `a${i}`))
        yield* database.record(sighting("b", `b${i}`))
      }
      const first = yield* database.versions("a", { limit: 2 })
      const second = yield* database.versions("a", { limit: 10, after: first[1]?.id })
      assert.deepStrictEqual(first.map(({ id }) => id), [9, 7])
      assert.deepStrictEqual(second.map(({ id }) => id), [5, 3, 1])
    })))

  it.effect("tells what a run did, and what the backup holds", () =>
    withDatabase(Effect.fnUntraced(function*(database) {
      const nothing = { files: 0, deleted: 0, versions: 0, objects: 0, bytes: 0, runs: 0 }
      assert.deepStrictEqual(yield* database.stats, nothing)
      const id = yield* database.startRun("scan")
      for (const path of ["a", "b", "c"]) yield* database.record(sighting(path, path === "c" ? "other" : "same"))
      yield* database.markDeleted(["b"])
      const during = yield* database.stats
      assert.deepStrictEqual(during.lastRun && "finishedAt" in during.lastRun, false)
      yield* TestClock.adjust(5)
      yield* database.finishRun(id, counts, true)
      const { lastRun, ...totals } = yield* database.stats
      assert.deepStrictEqual(totals, { files: 2, deleted: 1, versions: 3, objects: 2, bytes: 9, runs: 1 })
      assert.deepStrictEqual(lastRun, {
        id,
        kind: "scan",
        startedAt: DateTime.makeUnsafe(0),
        finishedAt: DateTime.makeUnsafe(5),
        partial: true,
        ...counts
      })
    })))

  it.effect("keeps everything over a restart, and calls a run partial that a killed process left open", () =>
    withWorld(Effect.fnUntraced(function*(world) {
      yield* Database.use((database) =>
        Effect.andThen(database.record(sighting("a", "one")), database.startRun("change"))
      ).pipe(Effect.provide(layer(world)))
      yield* Database.use(Effect.fnUntraced(function*(database) {
        assert.deepStrictEqual(yield* database.present(""), ["a"])
        const { lastRun } = yield* database.stats
        assert.isTrue(lastRun?.partial)
        assert.isDefined(lastRun?.finishedAt)
      })).pipe(Effect.provide(layer(world)))
    })))

  it.effect("leaves a whole file without a log behind when it is closed", () =>
    withWorld(Effect.fnUntraced(function*(world) {
      yield* Database.use((database) => database.record(sighting("a", "one"))).pipe(Effect.provide(layer(world)))
      assert.deepStrictEqual(yield* world.files(world.store), ["backup.db"])
      const db = new DatabaseSync(`${world.store}/backup.db`, { readOnly: true })
      assert.deepStrictEqual({ ...db.prepare("PRAGMA integrity_check").get() }, { integrity_check: "ok" })
      db.close()
    })))

  it.effect("fails with the operation once it is closed", () =>
    withWorld(Effect.fnUntraced(function*(world) {
      const database = yield* Database.pipe(Effect.provide(layer(world)))
      const error = yield* Effect.flip(database.record(sighting("a", "one")))
      assert.strictEqual(error._tag, "DatabaseFailed")
      assert.strictEqual(error.operation, "record a file")
      assert.strictEqual((yield* Effect.flip(database.stats))._tag, "DatabaseFailed")
    })))

  it.effect("undoes a transaction that fails half-way", () =>
    withWorld(Effect.fnUntraced(function*(world) {
      yield* Database.use(Effect.fnUntraced(function*(database) {
        yield* database.record(sighting("a", "one"))
        // The version is inserted first; then the file is refused, because its size is no number.
        const wrong = { ...sighting("a", "two"), size: Number.NaN, sha256: BackupWorld.sha256("two") }
        assert.strictEqual((yield* Effect.flip(database.record(wrong)))._tag, "DatabaseFailed")
        assert.lengthOf(yield* database.versions("a", { limit: 10 }), 1)
        assert.isTrue(yield* database.record(sighting("a", "two")))
      })).pipe(Effect.provide(layer(world)))
    })))

  describe("refuses and leaves as it is", () => {
    const refusal = Effect.fnUntraced(function*(world: BackupWorld.World) {
      const fs = yield* FileSystem.FileSystem
      const file = `${world.store}/backup.db`
      const before = yield* fs.readFile(file)
      const error = yield* Effect.flip(Effect.scoped(Layer.build(layer(world))))
      assert.strictEqual(error._tag, "DatabaseRefused")
      assert.include(error.message, file)
      assert.isTrue(Buffer.from(before).equals(yield* fs.readFile(file)))
      return error
    })

    const filled = (world: BackupWorld.World) =>
      Database.use((database) =>
        Effect.forEach(
          Array.from({ length: 500 }, (_, i) => `file ${i}`),
          (path) => database.record(sighting(path, path))
        )
      ).pipe(Effect.provide(layer(world)))

    it.effect("what is no database", () =>
      withWorld(Effect.fnUntraced(function*(world) {
        const fs = yield* FileSystem.FileSystem
        yield* fs.writeFileString(`${world.store}/backup.db`, "these are my holiday photographs".repeat(100))
        assert.include((yield* refusal(world)).message, "not a database")
      })))

    it.effect("a damaged database", () =>
      withWorld(Effect.fnUntraced(function*(world) {
        const fs = yield* FileSystem.FileSystem
        yield* filled(world)
        const bytes = yield* fs.readFile(`${world.store}/backup.db`)
        yield* fs.writeFile(`${world.store}/backup.db`, bytes.fill(0x5a, 4096 * 3, 4096 * 6))
        yield* refusal(world)
      })))

    it.effect("a database that was cut off", () =>
      withWorld(Effect.fnUntraced(function*(world) {
        const fs = yield* FileSystem.FileSystem
        yield* filled(world)
        yield* fs.truncate(`${world.store}/backup.db`, 4096 * 4)
        yield* refusal(world)
      })))

    it.effect("the database of a newer version and that of another program", () =>
      withWorld(Effect.fnUntraced(function*(world) {
        const fs = yield* FileSystem.FileSystem
        const file = `${world.store}/backup.db`
        const make = (sql: string) =>
          Effect.sync(() => {
            const db = new DatabaseSync(file)
            db.exec(sql)
            db.close()
          })
        yield* make("CREATE TABLE songs (title TEXT)")
        assert.include((yield* refusal(world)).message, "format is 0")
        yield* fs.remove(file)
        yield* make("CREATE TABLE files (path TEXT); PRAGMA user_version = 2")
        assert.include((yield* refusal(world)).message, "format is 2")
      })))
  })
})

const byBytes = (a: string, b: string) => Buffer.compare(Buffer.from(a), Buffer.from(b))
