/**
 * One SQLite connection through `node:sqlite`, with typed rows and typed errors.
 */
import { Array, Effect, type Option, Schema, type Scope } from "effect"
import { DatabaseSync, type SQLInputValue } from "node:sqlite"
import { DatabaseFailed, DatabaseRefused } from "./BackupError.ts"

export interface Parameters {
  readonly [name: string]: SQLInputValue
}

export interface Sqlite {
  /** Prepares a query now; the answer runs it and decodes its rows. `operation` names it in errors. */
  readonly query: <A, I>(
    operation: string,
    row: Schema.Codec<A, I>,
    sql: string
  ) => (parameters: Parameters) => Effect.Effect<ReadonlyArray<A>, DatabaseFailed>
  /** The same, for a query of which only the first row counts. */
  readonly first: <A, I>(
    operation: string,
    row: Schema.Codec<A, I>,
    sql: string
  ) => (parameters: Parameters) => Effect.Effect<Option.Option<A>, DatabaseFailed>
  /** Prepares a command now; the answer runs it and gives the id of the row that it inserted. */
  readonly command: (
    operation: string,
    sql: string
  ) => (parameters: Parameters) => Effect.Effect<number, DatabaseFailed>
  /** All of `run` happens, or nothing. It cannot wait: the connection is one for all fibers. */
  readonly transaction: <A>(operation: string, run: (db: DatabaseSync) => A) => Effect.Effect<A, DatabaseFailed>
}

/**
 * Opens `file`, creating it with `schema` if it is not there, until the scope closes. A file that is damaged, or holds
 * something else than `schema` in this `version`, is refused and not changed.
 */
export const open = Effect.fnUntraced(function*(options: {
  readonly file: string
  readonly schema: string
  readonly version: number
}): Effect.fn.Return<Sqlite, DatabaseRefused, Scope.Scope> {
  const refused = (cause: unknown) =>
    new DatabaseRefused({ path: options.file, reason: cause instanceof Error ? cause.message : String(cause) })
  const db = yield* Effect.acquireRelease(
    Effect.try({ try: () => new DatabaseSync(options.file, { timeout: 2000 }), catch: refused }),
    // Closing writes what is left in the write-ahead log into the file. Without that it is merely done at the next start.
    (db) => Effect.ignore(Effect.try(() => db.close()))
  )
  yield* Effect.try({ try: () => prepare(db, options), catch: refused })

  const attempt = <A>(operation: string, run: () => A) =>
    Effect.try({ try: run, catch: (cause) => new DatabaseFailed({ operation, cause }) })
  const query: Sqlite["query"] = (operation, row, sql) => {
    const statement = db.prepare(sql)
    const decode = Schema.decodeUnknownEffect(Schema.Array(row))
    return (parameters) =>
      Effect.flatMap(
        attempt(operation, () => statement.all(parameters)),
        (rows) => Effect.mapError(decode(rows), (cause) => new DatabaseFailed({ operation, cause }))
      )
  }
  return {
    query,
    first: (operation, row, sql) => {
      const all = query(operation, row, sql)
      return (parameters) => Effect.map(all(parameters), Array.head)
    },
    command: (operation, sql) => {
      const statement = db.prepare(sql)
      return (parameters) => attempt(operation, () => Number(statement.run(parameters).lastInsertRowid))
    },
    transaction: (operation, run) =>
      attempt(operation, () => {
        db.exec("BEGIN IMMEDIATE")
        try {
          const result = run(db)
          db.exec("COMMIT")
          return result
        } finally {
          if (db.isTransaction) db.exec("ROLLBACK")
        }
      })
  }
})

const prepare = (db: DatabaseSync, { schema, version }: { readonly schema: string; readonly version: number }) => {
  const value = (pragma: string) => Object.values(db.prepare(pragma).get() ?? {})[0]
  const health = value("PRAGMA quick_check")
  if (health !== "ok") throw new Error(String(health))
  const found = value("PRAGMA user_version")
  if (found === 0 && value("SELECT count(*) FROM sqlite_schema") === 0) {
    db.exec(`BEGIN; ${schema}; PRAGMA user_version = ${version}; COMMIT`)
  } else if (found !== version) {
    throw new Error(`its format is ${found}, this program knows ${version}`)
  }
  // NORMAL: a power cut may take the last commits, never the consistency; the next scan finds what they recorded.
  db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON")
}
