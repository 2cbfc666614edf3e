/**
 * What is known about files, versions and runs, in the SQLite database `backup.db` of the store.
 */
import { Clock, Context, Effect, Layer, Option, Path, Schema, Struct } from "effect"
import { BackedUpFile, type Counts, Run, Stats, StoredObject, Version } from "./Backup.ts"
import type { DatabaseFailed } from "./BackupError.ts"
import { Settings } from "./Settings.ts"
import * as Sqlite from "./Sqlite.ts"

/** The part of a list that one request asks for: what comes behind `after`, at most `limit` items. */
export interface Page<Cursor> {
  readonly after?: Cursor | undefined
  readonly limit: number
}

/** How a file was last seen. `modifiedAt` (ms) is `null` if it proves nothing, see BackupRun.ts. */
export const Sighting = Schema.Struct({
  path: Schema.String,
  ...StoredObject.fields,
  modifiedAt: Schema.NullOr(Schema.Int)
})
export type Sighting = typeof Sighting.Type

export class Database extends Context.Service<Database, {
  /** By path. */
  readonly files: (prefix: string, page: Page<string>) => Effect.Effect<ReadonlyArray<BackedUpFile>, DatabaseFailed>
  /** Newest first. */
  readonly versions: (path: string, page: Page<number>) => Effect.Effect<ReadonlyArray<Version>, DatabaseFailed>
  readonly version: (id: number) => Effect.Effect<Option.Option<Version>, DatabaseFailed>
  /** Nothing if the file is unknown or deleted. */
  readonly lastSeen: (path: string) => Effect.Effect<Option.Option<Sighting>, DatabaseFailed>
  /** Remembers how a file was seen. Answers whether its content is a new version. */
  readonly record: (seen: Sighting) => Effect.Effect<boolean, DatabaseFailed>
  /** The files that are not deleted, at `path` or below it; "" means everywhere. */
  readonly present: (path: string) => Effect.Effect<ReadonlyArray<string>, DatabaseFailed>
  /** Answers how many of them were not deleted before. */
  readonly markDeleted: (paths: ReadonlyArray<string>) => Effect.Effect<number, DatabaseFailed>
  readonly startRun: (kind: Run["kind"]) => Effect.Effect<number, DatabaseFailed>
  readonly finishRun: (id: number, counts: Counts, partial: boolean) => Effect.Effect<void, DatabaseFailed>
  readonly stats: Effect.Effect<Stats, DatabaseFailed>
}>()("backup-service/Database") {
  /** Opens the database, creating it if it is not there. The runs that a killed process left open become partial. */
  static readonly layer = Layer.effect(
    Database,
    Effect.gen(function*() {
      const { store } = yield* Settings
      const file = (yield* Path.Path).join(store, "backup.db")
      const sqlite = yield* Sqlite.open({ file, schema, version: 1 })

      const files = sqlite.query(
        "list files",
        FileRow,
        `SELECT path, sha256, size, deleted, (SELECT count(*) FROM versions v WHERE v.path = f.path) AS versions
         FROM files f WHERE path > :after AND ${startsWith("prefix")} ORDER BY path LIMIT :limit`
      )
      const versions = sqlite.query(
        "list versions",
        VersionRow,
        "SELECT * FROM versions WHERE path = :path AND id < :after ORDER BY id DESC LIMIT :limit"
      )
      const version = sqlite.first("find a version", VersionRow, "SELECT * FROM versions WHERE id = :id")
      const lastSeen = sqlite.first(
        "find a file",
        Sighting,
        "SELECT path, sha256, size, modifiedAt FROM files WHERE path = :path AND deleted = 0"
      )
      const present = sqlite.query(
        "list files",
        Schema.Struct({ path: Schema.String }),
        `SELECT path FROM files WHERE deleted = 0 AND (path = :path OR ${startsWith("below")})`
      )
      const totals = sqlite.first(
        "count",
        Totals,
        `SELECT (SELECT count(*) FROM files WHERE deleted = 0) AS files,
                (SELECT count(*) FROM files WHERE deleted = 1) AS deleted,
                (SELECT count(*) FROM versions) AS versions,
                (SELECT count(*) FROM runs) AS runs,
                count(*) AS objects, coalesce(sum(size), 0) AS bytes
         FROM (SELECT DISTINCT sha256, size FROM versions)`
      )
      const lastRun = sqlite.first("find the last run", RunRow, "SELECT * FROM runs ORDER BY id DESC LIMIT 1")
      const startRun = sqlite.command("start a run", "INSERT INTO runs (kind, startedAt) VALUES (:kind, :at)")
      const finishRun = sqlite.command(
        "finish a run",
        `UPDATE runs SET finishedAt = :at, partial = :partial, files = :files, stored = :stored, unchanged = :unchanged,
         deleted = :deleted, vanished = :vanished, skipped = :skipped, failed = :failed WHERE id = :id`
      )
      const closeRuns = sqlite.command(
        "close old runs",
        "UPDATE runs SET finishedAt = :at, partial = 1 WHERE finishedAt IS NULL"
      )
      yield* closeRuns({ at: yield* Clock.currentTimeMillis })

      return {
        files: (prefix, { after = "", limit }) => files({ prefix, after, limit }),
        versions: (path, { after = Number.MAX_SAFE_INTEGER, limit }) => versions({ path, after, limit }),
        version: (id) => version({ id }),
        lastSeen: (path) => lastSeen({ path }),
        record: Effect.fnUntraced(function*({ modifiedAt, path, sha256, size }) {
          const at = yield* Clock.currentTimeMillis
          return yield* sqlite.transaction("record a file", (db) => {
            const isNew = db.prepare("SELECT sha256 FROM files WHERE path = ?").get(path)?.["sha256"] !== sha256
            if (isNew) {
              db.prepare("INSERT INTO versions (path, sha256, size, at) VALUES (?, ?, ?, ?)").run(
                path,
                sha256,
                size,
                at
              )
            }
            db.prepare(putFile).run(path, sha256, size, modifiedAt)
            return isNew
          })
        }),
        present: (path) =>
          Effect.map(present({ path, below: path === "" ? "" : `${path}/` }), (rows) => rows.map((row) => row.path)),
        markDeleted: (paths) =>
          sqlite.transaction("mark files as deleted", (db) => {
            const statement = db.prepare("UPDATE files SET deleted = 1 WHERE path = ? AND deleted = 0")
            return paths.reduce((marked, path) => marked + Number(statement.run(path).changes), 0)
          }),
        startRun: (kind) => Effect.flatMap(Clock.currentTimeMillis, (at) => startRun({ kind, at })),
        finishRun: (id, counts, partial) =>
          Effect.flatMap(Clock.currentTimeMillis, (at) => finishRun({ id, at, partial: Number(partial), ...counts }))
            .pipe(
              Effect.asVoid
            ),
        stats: Effect.gen(function*() {
          const counted = Option.getOrThrow(yield* totals({}))
          const last = yield* lastRun({})
          return Option.match(last, {
            onNone: () => counted,
            onSome: ({ finishedAt, ...run }) => ({
              ...counted,
              lastRun: finishedAt === null ? run : { ...run, finishedAt }
            })
          })
        })
      }
    })
  )
}

const schema = `
  CREATE TABLE files (
    path TEXT PRIMARY KEY, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
    modifiedAt INTEGER, deleted INTEGER NOT NULL
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE versions (
    id INTEGER PRIMARY KEY AUTOINCREMENT, path TEXT NOT NULL, sha256 TEXT NOT NULL, size INTEGER NOT NULL,
    at INTEGER NOT NULL
  ) STRICT;
  CREATE INDEX versions_of_path ON versions (path, id);
  CREATE TABLE runs (
    id INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, startedAt INTEGER NOT NULL, finishedAt INTEGER,
    partial INTEGER NOT NULL DEFAULT 0, files INTEGER NOT NULL DEFAULT 0, stored INTEGER NOT NULL DEFAULT 0,
    unchanged INTEGER NOT NULL DEFAULT 0, deleted INTEGER NOT NULL DEFAULT 0, vanished INTEGER NOT NULL DEFAULT 0,
    skipped INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0
  ) STRICT`

const putFile = `
  INSERT INTO files (path, sha256, size, modifiedAt, deleted) VALUES (?, ?, ?, ?, 0)
  ON CONFLICT (path) DO UPDATE
  SET sha256 = excluded.sha256, size = excluded.size, modifiedAt = excluded.modifiedAt, deleted = 0`

/** Uses the index, as LIKE and substr() do not: what begins with a prefix sorts before it and a byte that no text has. */
const startsWith = (parameter: string) => `path >= :${parameter} AND path < :${parameter} || x'ff'`

const FileRow = Schema.Struct({ ...BackedUpFile.fields, deleted: Schema.BooleanFromBit })
const VersionRow = Schema.Struct({ ...Version.fields, at: Schema.DateTimeUtcFromMillis })
const RunRow = Schema.Struct({
  ...Run.fields,
  startedAt: Schema.DateTimeUtcFromMillis,
  finishedAt: Schema.NullOr(Schema.DateTimeUtcFromMillis),
  partial: Schema.BooleanFromBit
})
const Totals = Schema.Struct(Struct.omit(Stats.fields, ["lastRun"]))
