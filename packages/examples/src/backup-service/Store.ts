/**
 * The contents of the backup, each kept once under the name of its SHA-256.
 *
 *     objects/ab/cdef...   a content; appears under this name only when complete
 *     tmp/                 contents being written; emptied at start
 *     lock                 held by the process that works on the store
 *     backup.db            see Database.ts
 */
import { Context, Effect, FileSystem, Layer, Path, Stream } from "effect"
import { createHash } from "node:crypto"
import * as AtomicFile from "./AtomicFile.ts"
import type { StoredObject } from "./Backup.ts"
import { NotWritten, ObjectDamaged } from "./BackupError.ts"
import { Settings } from "./Settings.ts"
import * as StoreLock from "./StoreLock.ts"

export class Store extends Context.Service<Store, {
  /** Stores a content and returns its name, when it is on the disk. One that is there already is not stored again. */
  readonly add: <E>(bytes: Stream.Stream<Uint8Array, E>) => Effect.Effect<StoredObject, E | NotWritten>
  /** Fails when the object is not there, or not in its size. */
  readonly check: (object: StoredObject) => Effect.Effect<void, ObjectDamaged>
  /** The content; its last chunk comes only if the bytes are those that were stored. */
  readonly read: (object: StoredObject) => Stream.Stream<Uint8Array, ObjectDamaged>
}>()("backup-service/Store") {
  /** Takes the lock of the store, creates what is missing, and empties `tmp/`. */
  static readonly layer = Layer.effect(
    Store,
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const { store } = yield* Settings
      const objects = path.join(store, "objects")
      const temporary = path.join(store, "tmp")
      const notWritten = (target: string) =>
        Effect.mapError((cause: unknown) => new NotWritten({ path: target, cause }))
      const makeDirectory = (target: string) => notWritten(target)(fs.makeDirectory(target, { recursive: true }))

      yield* makeDirectory(store)
      yield* StoreLock.acquire({ file: path.join(store, "lock"), store, pid: process.pid })
      yield* notWritten(temporary)(fs.remove(temporary, { recursive: true, force: true }))
      yield* makeDirectory(temporary)
      yield* makeDirectory(objects)

      const pathOf = (sha256: string) => path.join(objects, sha256.slice(0, 2), sha256.slice(2))
      const check = (object: StoredObject) =>
        fs.stat(pathOf(object.sha256)).pipe(
          Effect.mapError((error) =>
            damaged(object, error.reason._tag === "NotFound" ? "it is missing" : error.message)
          ),
          Effect.flatMap(({ size }) =>
            size === BigInt(object.size) ? Effect.void : Effect.fail(damaged(object, `it has ${size} bytes`))
          )
        )

      // Unique, because `tmp/` was empty and the lock is ours.
      let written = 0
      const add = <E>(bytes: Stream.Stream<Uint8Array, E>) =>
        AtomicFile.write({
          bytes,
          temporary: path.join(temporary, String(written++)),
          place: (object) =>
            check(object).pipe(
              Effect.as(undefined),
              Effect.catch(() => {
                const target = pathOf(object.sha256)
                return Effect.as(makeDirectory(path.dirname(target)), target)
              })
            )
        }).pipe(
          Effect.provideService(FileSystem.FileSystem, fs),
          Effect.provideService(Path.Path, path)
        )

      const read = (object: StoredObject) =>
        Stream.suspend(() => {
          const hash = createHash("sha256")
          let size = 0
          return fs.stream(pathOf(object.sha256)).pipe(
            Stream.mapError((error) => damaged(object, error.message)),
            Stream.mapEffect((chunk) => {
              hash.update(chunk)
              size += chunk.length
              const complete = size < object.size || (size === object.size && hash.digest("hex") === object.sha256)
              return complete ? Effect.succeed(chunk) : Effect.fail(damaged(object, "its bytes have changed"))
            }),
            Stream.concat(Stream.suspend(() =>
              size === object.size ? Stream.empty : Stream.fail(damaged(object, `it ends after ${size} bytes`))
            ))
          )
        })

      return { add: (bytes) => Effect.suspend(() => add(bytes)), check, read }
    })
  )
}

const damaged = ({ sha256 }: StoredObject, reason: string) => new ObjectDamaged({ sha256, reason })
