/**
 * Finds out which files stand in the source.
 */
import { Effect, FileSystem, Option, Path } from "effect"
import { NotReadable } from "./BackupError.ts"
import { isInside, Settings } from "./Settings.ts"

export interface Survey {
  /** By path, relative to the source. */
  readonly files: ReadonlyMap<string, Found>
  /** Nothing is known about these paths and what is below them. */
  readonly unreadable: ReadonlyArray<NotReadable>
  /** Entries that are neither a file nor a directory. Links are not followed: they may lead out of the source. */
  readonly skipped: number
  /** Entries that were listed and then gone. */
  readonly vanished: number
}

export interface Found {
  readonly size: number
  /** Milliseconds. */
  readonly modifiedAt: number | undefined
}

/**
 * Looks at `roots` (absolute paths) and all below them. Never fails: what it cannot look at is part of the answer.
 *
 * Every directory is handed to `onDirectory` before it is listed: who watches it from then on can miss nothing.
 * Whatever is not, or no longer, a directory is handed to `onOther`.
 */
export const make = Effect.fnUntraced(function*(options: {
  readonly onDirectory: (directory: string) => Effect.Effect<void>
  readonly onOther: (path: string) => Effect.Effect<void>
}) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const { restoreDirectory, source, store } = yield* Settings

  return (roots: Iterable<string>): Effect.Effect<Survey> =>
    Effect.gen(function*() {
      const files = new Map<string, Found>()
      const unreadable: Array<NotReadable> = []
      let skipped = 0
      let vanished = 0

      const visit = (absolute: string, isRoot: boolean): Effect.Effect<void> =>
        Effect.gen(function*() {
          // The backup of the backup of the backup.
          if (isInside(absolute, store, path) || isInside(absolute, restoreDirectory, path)) return
          const { mtime, size, type } = yield* fs.lstat(absolute)
          if (type === "Directory") {
            yield* options.onDirectory(absolute)
            const names = yield* fs.readDirectory(absolute)
            return yield* Effect.forEach(names, (name) => visit(path.join(absolute, name), false), {
              concurrency: 8,
              discard: true
            })
          }
          yield* options.onOther(absolute)
          if (type === "File") {
            const modifiedAt = Option.getOrUndefined(mtime)?.getTime()
            files.set(keyOf(path, source, absolute), { size: Number(size), modifiedAt })
          } else skipped++
        }).pipe(
          Effect.catch((cause) => {
            // BadResource: something above it is now a file.
            const isGone = cause.reason._tag === "NotFound" || cause.reason._tag === "BadResource"
            if (!isGone || absolute === source) {
              unreadable.push(new NotReadable({ path: keyOf(path, source, absolute), vanished: false, cause }))
              return Effect.void
            }
            if (!isRoot) vanished++
            return options.onOther(absolute)
          })
        )

      /** Something above it may meanwhile be a link: then it is not in the source any more. */
      const isReached = (root: string) =>
        fs.realPath(path.dirname(root)).pipe(
          Effect.map((real) => root === source || real === path.dirname(root)),
          Effect.orElseSucceed(() => true)
        )
      yield* Effect.forEach(roots, (root) =>
        Effect.flatMap(isReached(root), (reached) => reached ? visit(root, true) : options.onOther(root)), {
        discard: true
      })
      return { files, unreadable, skipped, vanished }
    })
})

/** The name of a file in the backup, the same on every system; "" for the source itself. */
export const keyOf = (path: Path.Path, source: string, absolute: string): string =>
  path.relative(source, absolute).split(path.sep).join("/")
