/**
 * Documents from outside: read and decoded whole, or refused with what is wrong and where.
 */
import { Effect, FileSystem, type Schema } from "effect"
import * as JsonDocument from "../JsonDocument.ts"
import { DocumentInvalid } from "./SysreportError.ts"

export const read = Effect.fnUntraced(function*<A, I>(
  what: DocumentInvalid["what"],
  file: string,
  schema: Schema.Codec<A, I>
) {
  const fs = yield* FileSystem.FileSystem
  const text = yield* Effect.mapError(
    fs.readFileString(file),
    ({ reason }) => {
      const why = reason._tag === "BadResource" ? "it is no file" : reason.message
      const problem = reason._tag === "NotFound" ? "there is no such file" : `cannot be read: ${why}`
      return new DocumentInvalid({ what, file, problems: [problem] })
    }
  )
  return yield* decode(what, file, schema, text)
})

/** Decodes the text of a document; `file` is where it is from. */
export const decode = <A, I>(what: DocumentInvalid["what"], file: string, schema: Schema.Codec<A, I>, text: string) =>
  // A key of a profile that is not known is a slip; a report may be of a later version.
  JsonDocument.decode(schema, text, { onExcessProperty: what === "profile" ? "error" : "ignore" }).pipe(
    Effect.mapError((problems) => new DocumentInvalid({ what, file, problems }))
  )
