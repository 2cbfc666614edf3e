/**
 * The cache: an index on the disk of what each server is built from, its command and the content of its sources.
 */
import { Context, Effect, FileSystem, Layer, Option, Path, Schema } from "effect"
import { createHash } from "node:crypto"
import * as JsonFile from "./JsonFile.ts"
import type { Manifest } from "./Manifest.ts"
import { NotReadable } from "./MyctlError.ts"

export type Index = typeof Index.Type
export const Index = Schema.Struct({
  /** The hash of each source. */
  sources: Schema.Record(Schema.String, Schema.String),
  /** The hash of each server: of its command, of how it is started, and of its sources. */
  servers: Schema.Record(Schema.String, Schema.String)
})

export class CacheIndex extends Context.Service<CacheIndex, {
  /** What the cache says; empty when there is none, or one that cannot be read: it can be made again. */
  readonly stored: Effect.Effect<Index>
  /** What it would say if it were made now. */
  readonly fresh: (manifest: Manifest) => Effect.Effect<Index, NotReadable>
  /** The file that holds it. */
  readonly file: string
}>()("myctl/CacheIndex") {
  static readonly layer = (directory: string) =>
    Layer.effect(
      CacheIndex,
      Effect.gen(function*() {
        const { join } = yield* Path.Path
        const file = join(directory, "index.json")
        const context = yield* Effect.context<FileSystem.FileSystem | Path.Path>()
        return {
          stored: JsonFile.read(file, Index).pipe(
            Effect.orElseSucceed(Option.none<Index>),
            Effect.map(Option.getOrElse((): Index => ({ sources: {}, servers: {} }))),
            Effect.provide(context)
          ),
          fresh: (manifest) => Effect.provide(make(manifest), context),
          file
        }
      })
    )
}

/** Hashes all sources, each once. */
export const make = Effect.fnUntraced(function*({ directory, servers }: Manifest) {
  const { resolve } = yield* Path.Path
  const names = [...new Set(servers.flatMap(({ sources }) => sources))]
  const hashes = yield* Effect.forEach(names, (name) => hashOf(resolve(directory, name)), { concurrency: 8 })
  const sources: Record<string, string> = Object.fromEntries(names.map((name, index) => [name, hashes[index] ?? ""]))
  return {
    sources,
    servers: Object.fromEntries(servers.map((server) => [
      server.name,
      digest(JSON.stringify([server.command, server.port, server.ready, server.sources.map((name) => sources[name])]))
    ]))
  } satisfies Index
})

/** The hash of a file, or of a directory with all that is in it. */
const hashOf = (path: string): Effect.Effect<string, NotReadable, FileSystem.FileSystem | Path.Path> =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const { join } = yield* Path.Path
    const { type } = yield* fs.stat(path)
    if (type !== "Directory") return digest(yield* fs.readFile(path))
    const names = (yield* fs.readDirectory(path)).toSorted()
    const hashes = yield* Effect.forEach(names, (name) => hashOf(join(path, name)))
    return digest(JSON.stringify(names.map((name, index) => [name, hashes[index]])))
  }).pipe(
    Effect.catchTag(
      "PlatformError",
      (error) => Effect.fail(new NotReadable({ path, reason: JsonFile.reasonOf(error) }))
    )
  )

const digest = (content: string | Uint8Array): string => createHash("sha256").update(content).digest("hex")

/** What is no longer as the cache has it: sources by content, servers by what they are built from. */
export const stale = (stored: Index, fresh: Index) => ({
  sources: differing(stored.sources, fresh.sources),
  servers: differing(stored.servers, fresh.servers)
})

const differing = (one: Record<string, string>, other: Record<string, string>): ReadonlyArray<string> =>
  [...new Set([...Object.keys(other), ...Object.keys(one)])].filter((name) => one[name] !== other[name])
