/**
 * Where a document goes: to standard output, or to a file that is there whole or not at all.
 */
import { Effect, FileSystem, Option, Path, type PlatformError, Stdio, Stream } from "effect"
import { OutputNotWritten } from "./SysreportError.ts"

export const standardOutput = "-"

const notWritten = (output: string) =>
  Effect.mapError(({ cause, message, reason }: PlatformError.PlatformError) => {
    const said = cause instanceof Error ? cause.message : message
    return new OutputNotWritten({ output, reason: reason._tag === "NotFound" ? "there is no such directory" : said })
  })

/** The file that a name leads to, and what it is; `None` where nothing is. */
const found = Effect.fnUntraced(function*(output: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Effect.orElseSucceed(fs.realPath(output), () => output)
  const info = yield* Effect.option(fs.stat(path))
  return { path, type: Option.map(info, ({ type }) => type) }
})

/** Fails if nothing could be written there. Whoever measures first and writes then asks before. */
export const check = Effect.fnUntraced(function*(output: string) {
  if (output === standardOutput) return
  const fs = yield* FileSystem.FileSystem
  const { dirname } = yield* Path.Path
  const { path, type } = yield* found(output)
  if (Option.contains(type, "Directory")) {
    return yield* new OutputNotWritten({ output, reason: "it is a directory" })
  }
  yield* fs.access(dirname(path), { writable: true }).pipe(notWritten(output))
})

/** Writes all of it; a file is replaced once the new one is on the disk. */
export const write = Effect.fnUntraced(function*(output: string, text: string) {
  const bytes = new TextEncoder().encode(text)
  if (output === standardOutput) {
    const stdio = yield* Stdio.Stdio
    return yield* Stream.run(Stream.succeed(bytes), stdio.stdout({ endOnDone: false })).pipe(
      notWritten("standard output")
    )
  }
  const fs = yield* FileSystem.FileSystem
  const { path, type } = yield* found(output)
  const writeTo = (file: string, flag: "w" | "wx") =>
    Effect.scoped(Effect.gen(function*() {
      const handle = yield* fs.open(file, { flag })
      yield* handle.writeAll(bytes)
      if (flag === "wx") yield* handle.sync
    }))
  // A device or a pipe takes what it is given, and must not be replaced by a file.
  if (Option.isSome(type) && type.value !== "File") return yield* writeTo(path, "w").pipe(notWritten(output))
  const temporary = `${path}.${process.pid}.tmp`
  yield* writeTo(temporary, "wx").pipe(
    Effect.andThen(fs.rename(temporary, path)),
    Effect.ensuring(Effect.ignore(fs.remove(temporary, { force: true }))),
    notWritten(output)
  )
})
