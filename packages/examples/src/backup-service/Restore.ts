/**
 * Puts versions back: into the restore directory, never anywhere else.
 */
import { Context, Effect, FileSystem, Layer, Path } from "effect"
import * as AtomicFile from "./AtomicFile.ts"
import type { Version } from "./Backup.ts"
import { NotWritten, type ObjectDamaged, RestoreRefused } from "./BackupError.ts"
import { isInside, Settings } from "./Settings.ts"
import { Store } from "./Store.ts"

export class Restore extends Context.Service<Restore, {
  /**
   * Restores a version to `to`, relative to the restore directory, and returns the absolute path once the file is on
   * the disk. A file that is there is replaced. The bytes are checked before they get their name.
   */
  readonly restore: (version: Version, to: string) => Effect.Effect<string, RestoreRefused | ObjectDamaged | NotWritten>
}>()("backup-service/Restore") {
  static readonly layer = Layer.effect(
    Restore,
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const path = yield* Path.Path
      const { restoreDirectory } = yield* Settings
      const store = yield* Store
      const context = yield* Effect.context<FileSystem.FileSystem | Path.Path>()

      // Beside the restored files, because a rename cannot leave its file system. What a killed process left goes now.
      const temporary = path.join(restoreDirectory, reserved)
      yield* Effect.ignore(fs.remove(temporary, { recursive: true, force: true }))
      let restored = 0

      const resolve = (to: string) => {
        const names = to.split(/[/\\]/)
        const target = path.resolve(restoreDirectory, to)
        const refuse = (reason: string) => Effect.fail(new RestoreRefused({ to, reason }))
        if (to.includes("\0")) return refuse("it holds a NUL character")
        if (path.isAbsolute(to) || names.includes("..") || !isInside(target, restoreDirectory, path)) {
          return refuse("it leads out of the restore directory")
        }
        if (target === restoreDirectory || isInside(target, temporary, path)) {
          return refuse("it is not the name of a file")
        }
        if (byteLength(target) > 4000 || names.some((name) => byteLength(name) > 255)) return refuse("it is too long")
        return Effect.succeed(target)
      }

      /** Creates the directories above `target`. A symbolic link among them would lead who knows where. */
      const makeParents = Effect.fnUntraced(function*(to: string, target: string) {
        yield* fs.makeDirectory(temporary, { recursive: true })
        let directory = restoreDirectory
        for (const name of path.relative(restoreDirectory, path.dirname(target)).split(path.sep)) {
          directory = path.join(directory, name)
          const type = yield* typeOf(directory)
          if (type === undefined) yield* fs.makeDirectory(directory, { recursive: true })
          else if (type !== "Directory") {
            return yield* new RestoreRefused({ to, reason: `${directory} is not a directory` })
          }
        }
        if ((yield* typeOf(target)) === "Directory") {
          return yield* new RestoreRefused({ to, reason: "there is a directory of this name" })
        }
      })
      const typeOf = (target: string) =>
        fs.lstat(target).pipe(
          Effect.map(({ type }) => type),
          Effect.catchIf((error) => error.reason._tag === "NotFound", () => Effect.undefined)
        )

      return {
        restore: Effect.fnUntraced(function*(version, to) {
          const target = yield* resolve(to)
          yield* makeParents(to, target).pipe(
            Effect.catchTag("PlatformError", (cause) => Effect.fail(new NotWritten({ path: target, cause })))
          )
          yield* AtomicFile.write({
            bytes: store.read(version),
            temporary: path.join(temporary, String(restored++)),
            place: () => Effect.succeed(target)
          }).pipe(Effect.provideContext(context))
          return target
        })
      }
    })
  )
}

/** The directory for files on their way; nothing can be restored into it. */
const reserved = ".partial"

const byteLength = (text: string) => new TextEncoder().encode(text).length
