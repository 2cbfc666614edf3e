/**
 * One process at a time works on a store.
 *
 * The lock is a lock of the kernel, which SQLite takes on the file `lock`: it ends with the process that holds it,
 * however that dies. A file that only holds a pid cannot do this without a race: two starters may both find the
 * holder dead, and the second then removes the lock of the first; and a pid may long belong to another program.
 */
import { Effect, Schedule, Schema, type Scope } from "effect"
import { DatabaseSync } from "node:sqlite"
import { NotWritten, StoreLocked } from "./BackupError.ts"

const Holder = Schema.Struct({ pid: Schema.Int })

/** Holds the lock of `store` until the scope closes. Does not wait for another holder: fails, naming its pid. */
export const acquire = Effect.fnUntraced(function*(
  options: { readonly file: string; readonly store: string; readonly pid: number }
): Effect.fn.Return<void, StoreLocked | NotWritten, Scope.Scope> {
  const notWritten = (cause: unknown) => new NotWritten({ path: options.file, cause })
  const attempt = <A>(run: () => A) => Effect.try({ try: run, catch: notWritten })

  const lock = yield* Effect.acquireRelease(
    attempt(() => new DatabaseSync(options.file, { timeout: 0 })),
    (lock) => Effect.sync(() => lock.close())
  )
  const take = attempt(() => {
    // The holder writes its pid, then keeps the right to write, which leaves everybody the right to read.
    lock.exec("BEGIN IMMEDIATE; CREATE TABLE IF NOT EXISTS holder (pid INTEGER); DELETE FROM holder")
    lock.prepare("INSERT INTO holder VALUES (?)").run(options.pid)
    lock.exec("COMMIT; BEGIN IMMEDIATE")
  })
  const holder = attempt(() => Schema.decodeUnknownOption(Holder)(lock.prepare("SELECT pid FROM holder").get())).pipe(
    // Busy: the new holder is writing its pid at this moment.
    Effect.retry({ while: isBusy, schedule: Schedule.spaced("10 millis"), times: 100 }),
    Effect.flatMap(Effect.fromOption),
    Effect.catchTag("NoSuchElementError", () => Effect.fail(notWritten(new Error("somebody unknown holds the lock"))))
  )
  yield* take.pipe(
    Effect.catchIf(
      isBusy,
      () => Effect.flatMap(holder, ({ pid }) => Effect.fail(new StoreLocked({ store: options.store, pid })))
    )
  )
})

const sqliteBusy = 5

const isBusy = (error: NotWritten): boolean =>
  error.cause instanceof Error && "errcode" in error.cause && error.cause.errcode === sqliteBusy
