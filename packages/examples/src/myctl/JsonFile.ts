/**
 * Documents of JSON on the disk: decoded by their schema, and there whole or not at all.
 */
import { Effect, FileSystem, Option, Path, type PlatformError, Schema } from "effect"
import { renameSync, writeFileSync } from "node:fs"
import * as JsonDocument from "../JsonDocument.ts"
import { DocumentInvalid, NotReadable, NotWritten } from "./MyctlError.ts"

/** Reads the document at `path`; none is there. Fails with every problem of it, not with the first. */
export const read = Effect.fnUntraced(function*<A, I>(path: string, schema: Schema.Codec<A, I>) {
  const fs = yield* FileSystem.FileSystem
  const text = yield* fs.readFileString(path).pipe(
    Effect.asSome,
    Effect.catchIf(({ reason }) => reason._tag === "NotFound", () => Effect.succeedNone),
    Effect.mapError((error) => new NotReadable({ path, reason: reasonOf(error) }))
  )
  return yield* Effect.transposeOption(
    Option.map(text, (text) =>
      Effect.mapError(
        JsonDocument.decode(schema, text, { onExcessProperty: "error" }),
        (problems) => new DocumentInvalid({ path, problems })
      ))
  )
})

/** Writes the document by a rename, so that no reader sees half of it, and no end of this program leaves half of it. */
export const write = Effect.fnUntraced(function*<A, I>(path: string, schema: Schema.Codec<A, I>, value: A) {
  const fs = yield* FileSystem.FileSystem
  const { dirname } = yield* Path.Path
  const text = textOf(yield* Effect.orDie(Schema.encodeEffect(schema)(value)))
  const temporary = `${path}.${process.pid}.tmp`
  yield* fs.makeDirectory(dirname(path), { recursive: true }).pipe(
    Effect.andThen(fs.writeFileString(temporary, text)),
    Effect.andThen(fs.rename(temporary, path)),
    Effect.ensuring(Effect.ignore(fs.remove(temporary, { force: true }))),
    Effect.mapError((error) => new NotWritten({ path, reason: reasonOf(error) })),
    Effect.uninterruptible
  )
})

/** The same at once, for what may not be forgotten even if the program is killed right then. Throws what went wrong. */
export const writeNow = <A, I>(path: string, schema: Schema.Codec<A, I>, value: A): void => {
  const temporary = `${path}.${process.pid}.tmp`
  writeFileSync(temporary, textOf(Schema.encodeSync(schema)(value)))
  renameSync(temporary, path)
}

const textOf = (document: unknown): string => `${JSON.stringify(document, null, 2)}\n`

export const reasonOf = ({ reason }: PlatformError.PlatformError): string =>
  reason._tag === "NotFound"
    ? "it is not there"
    : reason.description ?? (reason._tag === "BadResource" ? "it is no file" : reason._tag)
