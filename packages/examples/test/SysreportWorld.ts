/**
 * Machines that are directories: files under `fixtures/sysreport`, what programs write under `commands`, and under
 * `later` what differs in the second reading.
 */
import { Clock, Effect, FileSystem, Layer, PlatformError } from "effect"
import * as fs from "node:fs"
import * as path from "node:path"
import { fileURLToPath } from "node:url"
import { Answer, Commands } from "../src/sysreport/Commands.ts"
import { Roots } from "../src/sysreport/Roots.ts"

export const fixtures = fileURLToPath(new URL("fixtures/sysreport", import.meta.url))

/** Replaces the content of files on their way to the reader; `undefined` is a file that is not there. */
export type Change = (file: string, content: string) => string | undefined

/** Reads at once, so that a test can move the clock between two readings. */
export const layer = (name: string, change: Change = (_, content) => content) => {
  const directory = path.join(fixtures, name)
  const reading = <A>(file: string, read: (file: string) => A) =>
    Effect.flatMap(Clock.currentTimeMillis, (now) => {
      const later = path.join(directory, "later", path.relative(directory, file))
      return Effect.try({
        try: () => read(now > 0 && fs.existsSync(later) && !fs.statSync(later).isDirectory() ? later : file),
        catch: () =>
          PlatformError.systemError({ _tag: "NotFound", module: "FileSystem", method: "read", pathOrDescriptor: file })
      })
    })
  const text = (file: string) =>
    reading(file, (actual) => {
      const content = change(path.relative(directory, file), fs.readFileSync(actual, "utf8"))
      if (content === undefined) throw new Error("not there")
      return content
    })
  return Layer.mergeAll(
    FileSystem.layerNoop({
      readFileString: text,
      readDirectory: (file) => reading(file, (actual) => fs.readdirSync(actual)),
      readLink: (file) => reading(file, (actual) => fs.readlinkSync(actual)),
      exists: (file) => Effect.map(Effect.option(text(file)), (found) => found._tag === "Some" || isDirectory(file))
    }),
    Roots.layer({
      proc: path.join(directory, "proc"),
      sys: path.join(directory, "sys"),
      etc: path.join(directory, "etc")
    }),
    Layer.succeed(Commands, {
      // What `ethtool -S eth0` writes is in `ethtool-S.txt`.
      run: (program, flag = "") =>
        text(path.join(directory, "commands", `${program}${program === "ethtool" ? flag : ""}.txt`)).pipe(
          Effect.map((text) => Answer.Written({ text, problem: undefined })),
          Effect.orElseSucceed(() => Answer.NotThere())
        ),
      pids: Effect.succeed(new Set<number>())
    })
  )
}

const isDirectory = (file: string) => fs.existsSync(file) && fs.statSync(file).isDirectory()
