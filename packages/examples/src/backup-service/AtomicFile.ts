/**
 * Writes a file that is there whole or not at all.
 */
import { Effect, FileSystem, Path, Stream } from "effect"
import { createHash } from "node:crypto"
import type { StoredObject } from "./Backup.ts"
import { NotWritten } from "./BackupError.ts"

/**
 * Streams `bytes` to the name `temporary`, brings them to the disk and renames the file to what `place` answers.
 * Returns the digest and the size of what was written; the digest is taken from the very bytes that go to the disk,
 * so a source that changes meanwhile cannot make the two differ.
 *
 * `place` may answer `undefined`: then the bytes are dropped. Whatever happens, `temporary` does not outlive this.
 * Both names must be on one file system.
 */
export const write = Effect.fnUntraced(function*<E, R, E2, R2>(options: {
  readonly bytes: Stream.Stream<Uint8Array, E, R>
  readonly temporary: string
  readonly place: (written: StoredObject) => Effect.Effect<string | undefined, E2, R2>
}) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const { temporary } = options
  const notWritten = Effect.mapError((cause: unknown) => new NotWritten({ path: temporary, cause }))

  const copy = Effect.gen(function*() {
    const file = yield* notWritten(fs.open(temporary, { flag: "wx" }))
    const hash = createHash("sha256")
    let size = 0
    yield* Stream.runForEach(options.bytes, (chunk) => {
      hash.update(chunk)
      size += chunk.length
      // Uninterruptible: a write that is still under way when its descriptor is closed could hit the next file.
      return Effect.uninterruptible(notWritten(file.writeAll(chunk)))
    })
    const written: StoredObject = { sha256: hash.digest("hex"), size }
    const target = yield* Effect.uninterruptible(options.place(written))
    if (target !== undefined) yield* Effect.uninterruptible(notWritten(file.sync))
    return { written, target }
  })

  return yield* Effect.scoped(copy).pipe(
    Effect.tap(({ target }) =>
      target === undefined ? Effect.void : Effect.uninterruptible(Effect.andThen(
        notWritten(fs.rename(temporary, target)),
        syncDirectory(path.dirname(target))
      ))
    ),
    Effect.map(({ written }) => written),
    Effect.ensuring(Effect.ignore(fs.remove(temporary, { force: true })))
  )
})

/** A rename survives a power cut once its directory is on the disk. Not every system can sync one: best effort. */
const syncDirectory = (directory: string) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const handle = yield* fs.open(directory)
    yield* handle.sync
  }).pipe(Effect.scoped, Effect.ignore)
