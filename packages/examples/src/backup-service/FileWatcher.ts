/**
 * Keeps the backup equal to the source: scans all of it at start, on request and now and then, and in between backs up
 * what the operating system says has changed.
 */
import { Orchestrator } from "@effect-orchestra/core"
import { Context, Effect, Layer, Schedule } from "effect"
import * as BackupRun from "./BackupRun.ts"
import * as Changes from "./Changes.ts"
import { Display } from "./Display.ts"
import { Settings } from "./Settings.ts"

export class FileWatcher extends Context.Service<FileWatcher, {
  /**
   * Asks for a scan and returns at once. The scan begins when the current run has ended, so that it sees all that
   * changed before it was asked for; requests that wait together get one scan.
   */
  readonly scan: Effect.Effect<void>
}>()("backup-service/FileWatcher") {
  static readonly layer = Layer.effect(
    FileWatcher,
    Effect.gen(function*() {
      const { quiet, rescan, source } = yield* Settings
      const display = yield* Display
      const changes = yield* Changes.make({
        root: source,
        quiet,
        onUnwatched: (directory, cause) => display.line(`Cannot watch ${directory}, will only scan it: ${cause}`)
      })
      const run = yield* BackupRun.make(changes)
      const scan = changes.note(source)

      // A run that the database did not let finish is made good by the next scan.
      const work = Effect.flatMap(changes.burst, run).pipe(Effect.catch((error) => display.line(error.message)))

      yield* Orchestrator.forkScoped(Effect.forever(work), { name: "run" })
      // The first scan at once. Later ones find what the watches missed: they have limits that the kernel sets.
      yield* Orchestrator.forkScoped(Effect.repeat(scan, Schedule.spaced(rescan)), { name: "rescan" })
      return { scan }
    })
  )
}
