/**
 * Keeps the backup equal to the source: scans all of it at start, on request and now and then, and in between backs up
 * what the operating system says has changed.
 */
import { Orchestrator } from "@effect-orchestra/core"
import { Context, Effect, Layer, Option, Schedule, Tracer } from "effect"
import * as BackupRun from "./BackupRun.ts"
import * as Changes from "./Changes.ts"
import { Display } from "./Display.ts"
import { Settings } from "./Settings.ts"

/** So many links a span takes. */
const maxLinks = 128

export class FileWatcher extends Context.Service<FileWatcher, {
  /**
   * Asks for a scan and returns at once. The scan begins when the current run has ended, so that it sees all that
   * changed before it was asked for; requests that wait together get one scan. It is in the trace of the first one.
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

      /** Spans of those who wait for a scan. */
      let asking: Array<Tracer.AnySpan> = []
      const scan = Effect.flatMap(Effect.serviceOption(Tracer.ParentSpan), (span) => {
        if (Option.isSome(span) && asking.length < maxLinks) asking.push(span.value)
        return changes.note(source)
      })
      // Without a request the run is its own trace: the routine below lives as long as the service.
      const traced = <A, E, R>(run: Effect.Effect<A, E, R>) => {
        const [parent, ...others] = asking
        asking = []
        const links = others.map((span) => ({ span, attributes: {} }))
        return Effect.withSpan(run, "backup run", parent === undefined ? { root: true } : { parent, links })
      }

      // A run that the database did not let finish is made good by the next scan.
      const work = Effect.flatMap(changes.burst, (changed) => traced(run(changed))).pipe(
        Effect.catch((error) => display.line(error.message))
      )

      yield* Orchestrator.forkScoped(Effect.forever(work), { name: "run" })
      // The first scan at once. Later ones find what the watches missed: they have limits that the kernel sets.
      yield* Orchestrator.forkScoped(Effect.repeat(changes.note(source), Schedule.spaced(rescan)), { name: "rescan" })
      return { scan }
    })
  )
}
