/**
 * A preview in a file: what `--save` writes and `--plan` reads.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as FileSystem from "effect/FileSystem"
import * as Path from "effect/Path"
import * as Schema from "effect/Schema"
import { Report } from "../PlanReport.ts"
import { PlanFileError } from "../WorkflowError.ts"

/** The preview, and the selection that it is of. */
const Saved = Schema.Struct({
  version: Schema.Literal(1),
  only: Schema.Array(Schema.String),
  skip: Schema.Array(Schema.String),
  preview: Report
})

/** @internal */
export type Saved = typeof Saved.Type

const Document = Schema.fromJsonString(Saved)
const decode = Schema.decodeUnknownEffect(Document, { errors: "all" })
const encode = Schema.encodeEffect(Document)

const failed = (file: string, operation: "read" | "write") => (error: { readonly message: string }) =>
  // The place inside the document stands on a line of its own.
  new PlanFileError({ file, operation, reason: error.message.replaceAll(/\s*\n\s*/g, " ") })

/**
 * Reads a preview, or says what in it is not as expected, and where.
 *
 * @internal
 */
export const read = Effect.fnUntraced(function*(file: string) {
  const fs = yield* FileSystem.FileSystem
  return yield* Effect.mapError(Effect.flatMap(fs.readFileString(file), decode), failed(file, "read"))
})

/**
 * Writes a preview: the file is there whole, or as it was.
 *
 * @internal
 */
export const write = Effect.fnUntraced(function*(file: string, saved: Saved) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  yield* Effect.gen(function*() {
    // In the same directory: a rename does not cross file systems.
    const temporary = yield* fs.makeTempFileScoped({ directory: path.dirname(file), prefix: ".plan-" })
    yield* fs.writeFileString(temporary, `${yield* encode(saved)}\n`)
    yield* fs.rename(temporary, file)
  }).pipe(Effect.scoped, Effect.mapError(failed(file, "write")), Effect.uninterruptible)
})
