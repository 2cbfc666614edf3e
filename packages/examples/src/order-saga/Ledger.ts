/**
 * What a service keeps in its SQLite database: accounts, and what each order took from one of them.
 *
 * An order takes once, however often it asks, and gives back once. Who cancels an order that has not taken leaves a mark:
 * a request that was believed lost and arrives after its cancellation must not take any more.
 */
import { Effect, Schema, type Scope } from "effect"
import { DatabaseSync } from "node:sqlite"
import { LedgerFailed } from "./OrderError.ts"

export const Entry = Schema.Struct({
  account: Schema.NonEmptyString,
  amount: Schema.Int.check(Schema.isGreaterThan(0))
})
export type Entry = typeof Entry.Type

export interface Ledger {
  /** Takes for an order. Answers why it does not, if so. */
  readonly take: (order: string, entry: Entry) => Effect.Effect<string | undefined, LedgerFailed>
  /** Gives back what the order took, and answers how much that was; it takes no more from now on. */
  readonly giveBack: (order: string) => Effect.Effect<number, LedgerFailed>
}

/** Opens the ledger in `file` until the scope closes; one that is not there begins with these accounts. */
export const open = Effect.fnUntraced(function*(
  file: string,
  accounts: { readonly [account: string]: number }
): Effect.fn.Return<Ledger, LedgerFailed, Scope.Scope> {
  const attempt = <A>(run: () => A) => Effect.try({ try: run, catch: (cause) => new LedgerFailed({ file, cause }) })
  const db = yield* Effect.acquireRelease(
    attempt(() => new DatabaseSync(file, { timeout: 2000 })),
    (db) => Effect.ignore(Effect.try(() => db.close()))
  )

  /** All of `run` happens, or nothing. It cannot wait: the connection is one for all fibers. */
  const transaction = <A>(run: () => A) =>
    attempt(() => {
      db.exec("BEGIN IMMEDIATE")
      try {
        const result = run()
        db.exec("COMMIT")
        return result
      } finally {
        if (db.isTransaction) db.exec("ROLLBACK")
      }
    })

  yield* attempt(() => db.exec("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL"))
  yield* transaction(() => {
    db.exec(schema)
    const insert = db.prepare("INSERT OR IGNORE INTO accounts VALUES (:name, :opening, :opening)")
    for (const [name, opening] of Object.entries(accounts)) insert.run({ name, opening })
  })

  const find = db.prepare("SELECT account, amount, state FROM entries WHERE orderId = ?")
  const withdraw = db.prepare("UPDATE accounts SET available = available - ? WHERE name = ? AND available >= ?")
  const deposit = db.prepare("UPDATE accounts SET available = available + ? WHERE name = ?")
  const insert = db.prepare("INSERT INTO entries VALUES (?, ?, ?, ?)")
  const mark = db.prepare("UPDATE entries SET state = 'given back' WHERE orderId = ?")

  return {
    take: (order, { account, amount }) =>
      transaction(() => {
        const found = find.get(order)
        if (found?.["state"] === "given back") return "the order was cancelled"
        if (found !== undefined) {
          return found["account"] === account && found["amount"] === amount
            ? undefined
            : `the order took ${String(found["amount"])} of ${String(found["account"])} before`
        }
        if (withdraw.run(amount, account, amount).changes === 0) return `there is not enough of ${account}`
        insert.run(order, account, amount, "taken")
        return undefined
      }),
    giveBack: (order) =>
      transaction(() => {
        const found = find.get(order)
        if (found === undefined) insert.run(order, "", 0, "given back")
        if (found?.["state"] !== "taken") return 0
        const amount = Number(found["amount"])
        deposit.run(amount, String(found["account"]))
        mark.run(order)
        return amount
      })
  }
})

const schema = `
  CREATE TABLE IF NOT EXISTS accounts (
    name TEXT PRIMARY KEY, opening INTEGER NOT NULL, available INTEGER NOT NULL CHECK (available >= 0)
  ) STRICT, WITHOUT ROWID;
  CREATE TABLE IF NOT EXISTS entries (
    orderId TEXT PRIMARY KEY, account TEXT NOT NULL, amount INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('taken', 'given back'))
  ) STRICT, WITHOUT ROWID`
