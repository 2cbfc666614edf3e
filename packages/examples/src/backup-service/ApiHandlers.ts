/**
 * Answers the requests of `Api` and `ChaosApi`.
 */
import { Effect, Option } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { Api, BackupBroken, ChaosApi, RestoreRefused, VersionNotFound } from "./Api.ts"
import { Chaos } from "./Chaos.ts"
import { Database } from "./Database.ts"
import { FileWatcher } from "./FileWatcher.ts"
import { Restore } from "./Restore.ts"
import { Store } from "./Store.ts"

const defaultLimit = 100

export const backups = HttpApiBuilder.group(
  Api,
  "backups",
  Effect.fnUntraced(function*(handlers) {
    const database = yield* Database
    const store = yield* Store
    const { restore } = yield* Restore
    const { scan } = yield* FileWatcher

    const findVersion = Effect.fnUntraced(function*(id: number) {
      const version = yield* Effect.mapError(database.version(id), broken)
      if (Option.isNone(version)) return yield* new VersionNotFound({ id, detail: `There is no version ${id}` })
      return version.value
    })

    return handlers.handleAll({
      files: ({ query: { cursor, limit = defaultLimit, prefix = "" } }) =>
        database.files(prefix, { after: cursor, limit: limit + 1 }).pipe(
          Effect.mapBoth({ onFailure: broken, onSuccess: pageOf(limit, ({ path }) => path) })
        ),
      versions: ({ query: { cursor, limit = defaultLimit, path } }) =>
        database.versions(path, { after: cursor, limit: limit + 1 }).pipe(
          Effect.mapBoth({ onFailure: broken, onSuccess: pageOf(limit, ({ id }) => id) })
        ),
      content: Effect.fnUntraced(function*({ params: { id } }) {
        const version = yield* findVersion(id)
        yield* Effect.mapError(store.check(version), broken)
        return HttpServerResponse.stream(store.read(version), {
          contentType: "application/octet-stream",
          contentLength: version.size,
          headers: { "content-disposition": "attachment", etag: `"${version.sha256}"` }
        })
      }),
      restore: Effect.fnUntraced(function*({ payload: { to, versionId } }) {
        const version = yield* findVersion(versionId)
        const restoredTo = yield* Effect.mapError(
          restore(version, to ?? version.path),
          (error) => error._tag === "RestoreRefused" ? new RestoreRefused({ detail: error.message }) : broken(error)
        )
        return { sha256: version.sha256, size: version.size, restoredTo }
      }),
      scan: () => scan,
      stats: () => Effect.mapError(database.stats, broken)
    })
  })
)

export const chaos = HttpApiBuilder.group(
  ChaosApi,
  "chaos",
  Effect.fnUntraced(function*(handlers) {
    const context = yield* Effect.context<Chaos>()
    return handlers.handle("kill", ({ params: { target } }) =>
      // Runs when the answer has been sent: the target may be the API itself.
      Effect.addFinalizer(() => Effect.provideContext(Chaos.kill(target), context)))
  })
)

const broken = (error: Error) => new BackupBroken({ detail: error.message })

/** The first `limit` of the items that were asked for, which is one more: that one tells whether there is a next page. */
const pageOf =
  <Item, Position>(limit: number, positionOf: (item: Item) => Position) =>
  (items: ReadonlyArray<Item>): { readonly items: ReadonlyArray<Item>; readonly cursor?: Position } => {
    const last = items[limit - 1]
    return items.length > limit && last !== undefined
      ? { items: items.slice(0, limit), cursor: positionOf(last) }
      : { items }
  }
