/**
 * Where the service reads, keeps and restores files, and how patient it is.
 */
import { Context, Duration, Effect, FileSystem, Layer, Path } from "effect"
import { NotWritten, OptionInvalid } from "./BackupError.ts"

/** Paths are absolute and free of symbolic links, so that "inside" is a matter of comparing names. */
export class Settings extends Context.Service<Settings, {
  readonly source: string
  readonly store: string
  readonly restoreDirectory: string
  /** Of the API; 0 asks for any free one. */
  readonly port: number
  /** The silence that ends a burst of changes. */
  readonly quiet: Duration.Duration
  /** Time between two scans that look for what the watch missed. */
  readonly rescan: Duration.Duration
}>()("backup-service/Settings") {
  static readonly layer = (options: {
    readonly source: string
    readonly store: string
    /** Default: `restored` in the store. */
    readonly restoreDirectory?: string | undefined
    /** Default: 8080. */
    readonly port?: number | undefined
    /** Default: 200 milliseconds. */
    readonly quiet?: Duration.Input | undefined
    /** Default: 1 minute. */
    readonly rescan?: Duration.Input | undefined
  }): Layer.Layer<Settings, OptionInvalid | NotWritten, FileSystem.FileSystem | Path.Path> =>
    Layer.effect(
      Settings,
      Effect.gen(function*() {
        const path = yield* Path.Path
        const source = yield* checkSource(options.source)
        const store = yield* realPath(path.resolve(options.store))
        const restoreDirectory = yield* realPath(path.resolve(options.restoreDirectory ?? path.join(store, "restored")))
        const refuse = (option: string, value: string, reason: string) => new OptionInvalid({ option, value, reason })
        if (isInside(source, store, path)) {
          return yield* refuse("--source", options.source, `lies inside the store ${store}`)
        }
        if (isInside(source, restoreDirectory, path)) {
          return yield* refuse("--source", options.source, `lies inside the restore directory ${restoreDirectory}`)
        }
        // A restored file could replace one of the store.
        if (isInside(store, restoreDirectory, path)) {
          return yield* refuse("--restore-dir", restoreDirectory, `holds the store ${store}`)
        }
        return {
          source,
          store,
          restoreDirectory,
          port: options.port ?? 8080,
          quiet: Duration.fromInputUnsafe(options.quiet ?? "200 millis"),
          rescan: Duration.fromInputUnsafe(options.rescan ?? "1 minute")
        }
      })
    )
}

/** Whether `child` is `parent` or lies below it. Both are absolute. */
export const isInside = (child: string, parent: string, path: Path.Path): boolean => {
  const relative = path.relative(parent, child)
  return relative !== ".." && !relative.startsWith(`..${path.sep}`) && !path.isAbsolute(relative)
}

const checkSource = Effect.fnUntraced(function*(source: string) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const invalid = (reason: string) => new OptionInvalid({ option: "--source", value: source, reason })
  const real = yield* fs.realPath(path.resolve(source)).pipe(Effect.mapError(() => invalid("does not exist")))
  const { type } = yield* fs.stat(real).pipe(Effect.mapError(() => invalid("cannot be read")))
  if (type !== "Directory") return yield* invalid("is not a directory")
  yield* fs.access(real, { readable: true }).pipe(Effect.mapError(() => invalid("cannot be read")))
  return real
})

/** The real path that `path` has, or will have once it is created. */
const realPath = (
  target: string
): Effect.Effect<string, NotWritten, FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    return yield* fs.realPath(target).pipe(
      Effect.catchIf(
        (error) => error.reason._tag === "NotFound" && path.dirname(target) !== target,
        () => Effect.map(realPath(path.dirname(target)), (parent) => path.join(parent, path.basename(target)))
      ),
      Effect.catchTag("PlatformError", (cause) => Effect.fail(new NotWritten({ path: target, cause })))
    )
  })
