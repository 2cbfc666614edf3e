/**
 * A source and a store in a temporary directory, for tests of the backup service.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, FileSystem, Layer, Path, PlatformError, Terminal } from "effect"
import { createHash } from "node:crypto"
import { Display } from "../src/backup-service/Display.ts"
import { Settings } from "../src/backup-service/Settings.ts"

export const platform = NodeServices.layer

export interface World {
  readonly source: string
  readonly store: string
  readonly restored: string
  readonly settings: Layer.Layer<Settings>
  /** Writes a file of the source, with the directories above it. */
  readonly put: (path: string, content: string | Uint8Array) => Effect.Effect<void>
  /** Removes a file or directory of the source. */
  readonly drop: (path: string) => Effect.Effect<void>
  /** The names below a directory, directories left out. */
  readonly files: (directory: string) => Effect.Effect<ReadonlyArray<string>>
}

export interface Options {
  /** Milliseconds. Default: 20. */
  readonly quiet?: number
  /** Milliseconds. Default: an hour, that is never. */
  readonly rescan?: number
  /** The store, relative to the source. Default: beside it. */
  readonly storeInSource?: string
}

/** A new world, gone with the scope. */
export const make = (options: Options = {}) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const directory = yield* fs.realPath(yield* fs.makeTempDirectoryScoped({ prefix: "backup-" }))
    const source = path.join(directory, "source")
    yield* fs.makeDirectory(source)
    const store = options.storeInSource === undefined
      ? path.join(directory, "store")
      : path.join(source, options.storeInSource)
    const settings = Settings.layer({
      source,
      store,
      port: 0,
      quiet: options.quiet ?? 20,
      rescan: options.rescan ?? 3_600_000
    }).pipe(Layer.provide(platform), Layer.orDie)
    const world: World = {
      source,
      store,
      restored: path.join(store, "restored"),
      settings,
      put: Effect.fnUntraced(function*(name, content) {
        const target = path.join(source, name)
        yield* fs.makeDirectory(path.dirname(target), { recursive: true })
        yield* typeof content === "string" ? fs.writeFileString(target, content) : fs.writeFile(target, content)
      }, Effect.orDie),
      drop: (name) => Effect.orDie(fs.remove(path.join(source, name), { recursive: true })),
      files: Effect.fnUntraced(function*(directory) {
        const names = yield* fs.readDirectory(directory, { recursive: true })
        const files = yield* Effect.filter(names, (name) =>
          Effect.map(fs.lstat(path.join(directory, name)), ({ type }) => type !== "Directory"))
        return files.toSorted()
      }, Effect.orDie)
    }
    return world
  }).pipe(Effect.orDie)

export const sha256 = (content: string | Uint8Array): string => createHash("sha256").update(content).digest("hex")

/** Asserts nothing itself: answers the objects whose name is not the digest of their bytes, and all of `tmp/`. */
export const damage = Effect.fnUntraced(function*(world: World) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const objects = yield* world.files(path.join(world.store, "objects"))
  const wrong = yield* Effect.filter(objects, (name) =>
    Effect.map(
      fs.readFile(path.join(world.store, "objects", name)),
      (bytes) => sha256(bytes) !== name.replaceAll(path.sep, "")
    ))
  return [...wrong, ...yield* world.files(path.join(world.store, "tmp"))]
}, Effect.orDie)

/** A display that keeps what it shows. */
export const display = () => {
  const shown: Array<string> = []
  const terminal = Effect.map(Terminal.Terminal, (terminal) =>
    Terminal.make({
      ...terminal,
      display: (text) => Effect.sync(() => shown.push(text))
    }))
  const layer = Layer.effectDiscard(Effect.flatMap(Display, ({ announce }) => announce("started"))).pipe(
    Layer.provideMerge(Display.layer),
    Layer.provide(Layer.effect(Terminal.Terminal, terminal).pipe(Layer.provide(platform)))
  )
  return { shown, layer }
}

/** The file system with some operations replaced, those built on them included. */
export const fileSystem = (change: (real: FileSystem.FileSystem) => Partial<FileSystem.FileSystem>) =>
  Layer.effect(
    FileSystem.FileSystem,
    Effect.map(FileSystem.FileSystem, (real) => FileSystem.make({ ...real, ...change(real) }))
  ).pipe(Layer.provide(platform))

/** The file system with every operation that the store uses wrapped, those on open files included. */
export const wrapped = (
  around: <A, R>(
    operation: Effect.Effect<A, PlatformError.PlatformError, R>,
    name: string,
    path: string
  ) => Effect.Effect<A, PlatformError.PlatformError, R>
) =>
  fileSystem((real) => ({
    open: (path, options) =>
      Effect.map(around(real.open(path, options), "open", path), (file): FileSystem.File => ({
        [FileSystem.FileTypeId]: FileSystem.FileTypeId,
        stat: around(file.stat, "stat", path),
        sync: around(file.sync, "sync", path),
        seek: (offset, from) => file.seek(offset, from),
        read: (buffer) => around(file.read(buffer), "read", path),
        readAlloc: (size) => around(file.readAlloc(size), "read", path),
        truncate: (length) => around(file.truncate(length), "truncate", path),
        write: (buffer) => around(file.write(buffer), "write", path),
        writeAll: (buffer) => around(file.writeAll(buffer), "write", path)
      })),
    stat: (path) => around(real.stat(path), "stat", path),
    makeDirectory: (path, options) => around(real.makeDirectory(path, options), "makeDirectory", path),
    rename: (from, to) => around(real.rename(from, to), "rename", from),
    remove: (path, options) => around(real.remove(path, options), "remove", path)
  }))

/** What the system says when it refuses an operation on a path. */
export const refusal = (tag: "PermissionDenied" | "NotFound" | "Unknown", path: string, description: string) =>
  PlatformError.systemError({ _tag: tag, module: "FileSystem", method: "test", pathOrDescriptor: path, description })
