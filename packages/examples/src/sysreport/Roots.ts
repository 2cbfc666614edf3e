/**
 * Where the kernel and the system tell about themselves. All files are read through here, so that a directory of
 * fixtures can stand for a machine.
 */
import { Context, Effect, FileSystem, Layer } from "effect"
import * as ProcFile from "./ProcFile.ts"
import { SourceUnreadable } from "./SourceError.ts"

export class Roots extends Context.Service<Roots, {
  readonly proc: string
  readonly sys: string
  readonly etc: string
}>()("sysreport/Roots") {
  /** Default: those of this machine. */
  static readonly layer = (roots?: {
    readonly proc?: string | undefined
    readonly sys?: string | undefined
    readonly etc?: string | undefined
  }): Layer.Layer<Roots> =>
    Layer.succeed(Roots, { proc: roots?.proc ?? "/proc", sys: roots?.sys ?? "/sys", etc: roots?.etc ?? "/etc" })
}

/** A file under one of the roots. */
export type File = `${"proc" | "sys" | "etc"}/${string}`

const at = <A, E>(file: File, use: (fs: FileSystem.FileSystem, path: string) => Effect.Effect<A, E>) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const roots = yield* Roots
    const slash = file.indexOf("/")
    // The type of `File` says that one of the three stands before the first slash.
    return yield* use(fs, roots[file.slice(0, slash) as keyof typeof roots] + file.slice(slash))
  })

/** The content of a file, without which the caller cannot go on. */
export const needText = (file: File): Effect.Effect<string, SourceUnreadable, Roots | FileSystem.FileSystem> =>
  at(file, (fs, path) =>
    Effect.mapError(
      fs.readFileString(path),
      ({ reason }) => new SourceUnreadable({ path, reason: reason._tag })
    ))

/**
 * The content of a file, trimmed; `undefined` if it cannot be read, for whatever reason: files of the kernel come and
 * go with the process or the device they are about, and some of them refuse to be read.
 */
export const readText = (file: File): Effect.Effect<string | undefined, never, Roots | FileSystem.FileSystem> =>
  at(file, (fs, path) =>
    fs.readFileString(path).pipe(
      Effect.map((text) => text.trim()),
      Effect.orElseSucceed(() => undefined)
    ))

/** The number that is all of a file. */
export const readNumber = (file: File) => Effect.map(readText(file), ProcFile.number)

/** The names in a directory, in the order of their numbers (`cpu2` before `cpu10`); none if it cannot be read. */
export const readNames = (
  directory: File
): Effect.Effect<ReadonlyArray<string>, never, Roots | FileSystem.FileSystem> =>
  at(directory, (fs, path) =>
    fs.readDirectory(path).pipe(
      Effect.map((names) => names.toSorted(byNumber.compare)),
      Effect.orElseSucceed(() => [])
    ))

const byNumber = new Intl.Collator("en", { numeric: true })

/** The last part of where a symbolic link leads. */
export const readLinkName = (link: File): Effect.Effect<string | undefined, never, Roots | FileSystem.FileSystem> =>
  at(link, (fs, path) =>
    fs.readLink(path).pipe(
      Effect.map((target) => target.slice(target.lastIndexOf("/") + 1)),
      Effect.orElseSucceed(() => undefined)
    ))

export const isThere = (file: File): Effect.Effect<boolean, never, Roots | FileSystem.FileSystem> =>
  at(file, (fs, path) => Effect.orElseSucceed(fs.exists(path), () => false))
