/**
 * Whether stock and money balance, to the unit, as the databases of the three services say: nobody else is asked.
 */
import { Effect, type Path, Schema } from "effect"
import { DatabaseSync } from "node:sqlite"
import { opening, prices, type ServiceName, serviceNames } from "./Order.ts"
import { LedgerFailed } from "./OrderError.ts"
import { databaseOf } from "./Services.ts"

/** An account of a service: `opening = available + taken` if it is right. */
export interface Account {
  readonly service: ServiceName
  readonly account: string
  readonly opening: number
  readonly available: number
  /** What orders hold of it. */
  readonly taken: number
}

/** An order of which one service holds something that another one does not. */
export interface Unbalanced {
  readonly order: string
  readonly what: string
}

export interface Audit {
  readonly accounts: ReadonlyArray<Account>
  /** Orders that are complete: reserved, charged with the price of it, and shipped. */
  readonly complete: number
  readonly unbalanced: ReadonlyArray<Unbalanced>
}

/** Whether everything is where it belongs, but for these orders. */
export const balances = ({ accounts, unbalanced }: Audit, but: ReadonlySet<string> = new Set()): boolean =>
  accounts.every(isRight) && unbalanced.every(({ order }) => but.has(order))

export const isRight = ({ available, opening, taken }: Account) => opening === available + taken

const AccountRow = Schema.Struct({
  name: Schema.String,
  opening: Schema.Int,
  available: Schema.Int,
  taken: Schema.Int
})
const EntryRow = Schema.Struct({ orderId: Schema.String, account: Schema.String, amount: Schema.Int })

/** Reads one database in one transaction, and changes nothing. */
const read = Effect.fnUntraced(function*(file: string) {
  const failed = (cause: unknown) => new LedgerFailed({ file, cause })
  const rows = yield* Effect.acquireUseRelease(
    Effect.try({ try: () => new DatabaseSync(file, { readOnly: true, timeout: 2000 }), catch: failed }),
    (db) =>
      Effect.try({
        try: () => {
          db.exec("BEGIN")
          return {
            accounts: db.prepare(
              `SELECT name, opening, available, (
                 SELECT coalesce(sum(amount), 0) FROM entries WHERE account = name AND state = 'taken'
               ) AS taken FROM accounts ORDER BY name`
            ).all(),
            entries: db.prepare("SELECT orderId, account, amount FROM entries WHERE state = 'taken'").all()
          }
        },
        catch: failed
      }),
    (db) => Effect.sync(() => db.close())
  )
  return {
    accounts: yield* Effect.mapError(Schema.decodeUnknownEffect(Schema.Array(AccountRow))(rows.accounts), failed),
    entries: yield* Effect.mapError(Schema.decodeUnknownEffect(Schema.Array(EntryRow))(rows.entries), failed)
  }
})

/** Audits the three databases of a directory. */
export const audit = Effect.fnUntraced(function*(
  directory: string
): Effect.fn.Return<Audit, LedgerFailed, Path.Path> {
  const books = yield* Effect.forEach(
    serviceNames,
    Effect.fnUntraced(function*(service) {
      const file = yield* databaseOf(directory, service)
      const book = yield* read(file)
      const missing = Object.keys(opening(0)[service]).filter((name) => !book.accounts.some((row) => row.name === name))
      if (missing.length > 0) return yield* new LedgerFailed({ file, cause: `it has no account ${missing.join(", ")}` })
      return { service, ...book }
    })
  )
  const [stock, payment, shipping] = books.map(({ entries }) => new Map(entries.map((row) => [row.orderId, row])))
  const orders = new Set(books.flatMap(({ entries }) => entries.map(({ orderId }) => orderId)))

  const unbalanced: Array<Unbalanced> = []
  for (const order of orders) {
    const reserved = stock?.get(order)
    const charged = payment?.get(order)
    const shipped = shipping?.get(order)
    const price = reserved === undefined ? 0 : reserved.amount * (prices[reserved.account] ?? 0)
    if (reserved !== undefined && charged?.amount === price && shipped?.amount === reserved.amount) continue
    const held = [
      reserved === undefined ? "nothing reserved" : `${reserved.amount} ${reserved.account} reserved`,
      charged === undefined ? "nothing charged" : `${charged.account} charged ${euros(charged.amount)}`,
      shipped === undefined ? "nothing shipped" : `${shipped.amount} shipped`
    ]
    unbalanced.push({ order, what: held.join(", ") })
  }
  return {
    accounts: books.flatMap(({ accounts, service }) =>
      accounts.map(({ name, ...account }) => ({ service, account: name, ...account }))
    ),
    complete: orders.size - unbalanced.length,
    unbalanced
  }
})

const euros = (cents: number) => (cents / 100).toFixed(2)

/** The audit as a table, and below it the orders that do not balance. */
export const format = (audit: Audit): string => {
  const columns = ["service", "account", "opening", "available", "in orders", ""]
  const lines = audit.accounts.map((account) => {
    const shown = account.service === "payment" ? euros : String
    const off = account.opening - account.available - account.taken
    const amounts = [account.opening, account.available, account.taken].map(shown)
    return [account.service, account.account, ...amounts, off === 0 ? "balanced" : `off by ${shown(off)}`]
  })
  const widths = columns.map((column, at) => Math.max(column.length, ...lines.map((line) => line[at]?.length ?? 0)))
  const rows = [columns, ...lines].map((line) =>
    line.map((cell, at) => at < 2 || at > 4 ? cell.padEnd(widths[at] ?? 0) : cell.padStart(widths[at] ?? 0)).join("  ")
      .trimEnd()
  )
  return [
    ...rows,
    `orders that are reserved, charged and shipped: ${audit.complete}, in pieces: ${audit.unbalanced.length}`,
    ...audit.unbalanced.map(({ order, what }) => `  ${order}: ${what}`)
  ].join("\n")
}
