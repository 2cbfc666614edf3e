/**
 * The HTTP interface as data: what the server implements, what clients and tests are generated from.
 */
import { Schema } from "effect"
import { HttpApi, HttpApiEndpoint, HttpApiError, HttpApiGroup, HttpApiMiddleware, HttpApiSchema } from "effect/http-api"
import { BackedUpFile, Stats, StoredObject, Version } from "./Backup.ts"
import { Target } from "./Chaos.ts"

export class VersionNotFound extends HttpApiError.Problem<VersionNotFound>()("VersionNotFound", {
  type: "urn:backup-service:version-not-found",
  status: 404,
  title: "There is no such version"
}, { id: Schema.Natural }) {}

export class RestoreRefused extends HttpApiError.Problem<RestoreRefused>()("RestoreRefused", {
  type: "urn:backup-service:restore-refused",
  status: 400,
  title: "Nothing is restored to such a place"
}) {}

/** Something is wrong with the backup itself; the log of the service says more. */
export class BackupBroken extends HttpApiError.Problem<BackupBroken>()("BackupBroken", {
  type: "urn:backup-service:broken",
  status: 500,
  title: "The backup could not do this"
}) {}

const Path = Schema.NonEmptyString.check(Schema.isMaxLength(4096))
const Id = Schema.Natural

/** The query of a list that comes in pages, and one page. A cursor is opaque: where the page before ended. */
const listed = <Position extends Schema.Codec<unknown, string>>(position: Position) => {
  const cursor = Schema.optionalKey(Schema.StringFromBase64Url.pipe(Schema.decodeTo(position)))
  return {
    query: { cursor, limit: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 500 }))) },
    page: <Item extends Schema.Constraint>(item: Item) => Schema.Struct({ items: Schema.Array(item), cursor })
  }
}
const byPath = listed(Schema.String)
const byId = listed(Schema.FiniteFromString.check(Schema.isInt()))

export class Backups extends HttpApiGroup.make("backups", { topLevel: true }).add(
  HttpApiEndpoint.get("files", "/files", {
    query: { prefix: Schema.optionalKey(Schema.String), ...byPath.query },
    success: byPath.page(BackedUpFile),
    error: BackupBroken
  }),
  HttpApiEndpoint.get("versions", "/versions", {
    query: { path: Path, ...byId.query },
    success: byId.page(Version),
    error: BackupBroken
  }),
  HttpApiEndpoint.get("content", "/versions/:id/content", {
    params: { id: Id },
    success: HttpApiSchema.StreamUint8Array(),
    error: [VersionNotFound, BackupBroken]
  }),
  HttpApiEndpoint.post("restore", "/restore", {
    payload: Schema.Struct({ versionId: Id, to: Schema.optionalKey(Path) }),
    success: Schema.Struct({ ...StoredObject.fields, restoredTo: Schema.String }),
    error: [VersionNotFound, RestoreRefused, BackupBroken]
  }),
  HttpApiEndpoint.post("scan", "/scan", { success: HttpApiSchema.Accepted }),
  HttpApiEndpoint.get("stats", "/stats", { success: Stats, error: BackupBroken })
) {}

export class Api extends HttpApi.make("backup-service").add(Backups).middleware(HttpApiMiddleware.ProblemDetails) {}

/** There only with `--chaos`. */
export class ChaosApi extends HttpApi.make("chaos").add(
  HttpApiGroup.make("chaos", { topLevel: true }).add(
    HttpApiEndpoint.post("kill", "/chaos/:target", {
      params: { target: Target },
      success: HttpApiSchema.Accepted
    })
  )
).middleware(HttpApiMiddleware.ProblemDetails) {}
