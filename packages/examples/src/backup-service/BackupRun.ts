/**
 * One run: brings the backup of some part of the source up to date.
 */
import { Clock, Effect, Exit, FileSystem, Option, Path, Stream, type Types } from "effect"
import type { Counts } from "./Backup.ts"
import { type DatabaseFailed, NotReadable, type NotWritten } from "./BackupError.ts"
import type { Changes } from "./Changes.ts"
import { Database } from "./Database.ts"
import { Display } from "./Display.ts"
import { Settings } from "./Settings.ts"
import { Store } from "./Store.ts"
import * as Survey from "./Survey.ts"

/** Files that are read and stored at the same time. */
const concurrency = 4

/** Files of a run that get a span each. The first scan of a large source would make as many as it has files. */
const tracedFiles = 100

/** Milliseconds in which a file may be modified twice and keep its time of modification. */
const clockTick = 2000

/** Failures that are told one by one; of more only the number is told. */
const toldFailures = 20

/**
 * Answers how to run on some roots: absolute paths, each with all below it. A file that fails is told and counted, and
 * the run goes on; it fails only if the database does.
 */
export const make = Effect.fnUntraced(function*(changes: Changes) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const { source } = yield* Settings
  const store = yield* Store
  const database = yield* Database
  const display = yield* Display
  const look = yield* Survey.make({ onDirectory: changes.watch, onOther: changes.unwatch })

  /** Failures since the last scan began, and those of the time before: what failed before is not told again. */
  let failing = new Set<string>()
  let failedBefore = new Set<string>()
  let failuresTold = 0
  const onFailure = (key: string, error: NotReadable | NotWritten | DatabaseFailed) => {
    const isTold = failedBefore.has(key) || failing.has(key) || failing.size >= toldFailures
    failing.add(key)
    if (isTold) return Effect.void
    failuresTold++
    return display.line(error.message)
  }

  const isUnknown = ([key, found]: readonly [string, Survey.Found]) =>
    Effect.map(
      database.lastSeen(key),
      Option.match({
        onNone: () => true,
        onSome: (seen) => seen.modifiedAt !== found.modifiedAt || seen.size !== found.size
      })
    )

  const findGone = Effect.fnUntraced(function*(roots: ReadonlyArray<string>, { files, unreadable }: Survey.Survey) {
    const present = yield* Effect.forEach(roots, (root) => database.present(Survey.keyOf(path, source, root)))
    const isHidden = (key: string) =>
      unreadable.some((place) => place.path === "" || `${key}/`.startsWith(`${place.path}/`))
    return Array.from(new Set(present.flat())).filter((key) => !files.has(key) && !isHidden(key))
  })

  const backUp = Effect.fnUntraced(
    function*(key: string, found: Survey.Found) {
      const readAt = yield* Clock.currentTimeMillis
      const object = yield* store.add(
        fs.stream(path.join(source, key)).pipe(
          Stream.mapError((cause) => new NotReadable({ path: key, vanished: cause.reason._tag === "NotFound", cause }))
        )
      )
      // A time of modification that could come again after this reading is not kept: then the next scan reads once more.
      const isSettled = found.modifiedAt !== undefined && found.modifiedAt < readAt - clockTick
      const seen = { path: key, ...object, modifiedAt: isSettled ? found.modifiedAt : null }
      return (yield* database.record(seen)) ? "stored" : "unchanged"
    },
    (outcome, key) =>
      Effect.catch(outcome, (error) =>
        error._tag === "NotReadable" && error.vanished
          ? Effect.as(database.markDeleted([key]), "vanished" as const)
          : Effect.as(onFailure(key, error), "failed" as const))
  )

  const tracedBackUp = (key: string, found: Survey.Found) =>
    Effect.tap(backUp(key, found), (outcome) => Effect.annotateCurrentSpan("backup.outcome", outcome)).pipe(
      Effect.withSpan("back up file", { attributes: { "file.path": key, "file.size": found.size } })
    )

  return Effect.fnUntraced(function*(changed: ReadonlySet<string>) {
    const kind = changed.has(source) ? "scan" : "change"
    const roots = kind === "scan" ? [source] : Array.from(changed)
    const survey = yield* look(roots)
    const unknown = yield* Effect.filter(survey.files, isUnknown)
    const gone = yield* findGone(roots, survey)
    if (kind === "change" && unknown.length + gone.length + survey.unreadable.length === 0) return

    const counts: Types.Mutable<Counts> = {
      files: survey.files.size,
      stored: 0,
      unchanged: survey.files.size - unknown.length,
      deleted: 0,
      vanished: survey.vanished,
      skipped: survey.skipped,
      failed: survey.unreadable.length
    }
    const toldBefore = failuresTold
    yield* Effect.annotateCurrentSpan({ "backup.kind": kind, "backup.files.new": unknown.length })
    if (kind === "scan") {
      failedBefore = failing
      failing = new Set()
    }
    const work = Effect.gen(function*() {
      counts.deleted = yield* database.markDeleted(gone)
      yield* Effect.forEach(survey.unreadable, (error) => onFailure(error.path, error), { discard: true })
      let done = 0
      yield* Effect.forEach(
        unknown,
        ([key, found], index) =>
          Effect.flatMap(index < tracedFiles ? tracedBackUp(key, found) : backUp(key, found), (outcome) => {
            counts[outcome]++
            return kind === "scan" ? display.progress(++done, unknown.length) : Effect.void
          }),
        { concurrency, discard: true }
      )
    })
    yield* Effect.acquireUseRelease(
      database.startRun(kind),
      () => work,
      (id, exit) => database.finishRun(id, counts, counts.failed > 0 || Exit.isFailure(exit))
    )
    if (counts.stored + counts.deleted > 0 || failuresTold > toldBefore) yield* display.line(`${kind}: ${told(counts)}`)
  })
})

const told = ({ deleted, failed, files, stored, vanished }: Counts) =>
  `files ${files}, stored ${stored}, deleted ${deleted}, vanished ${vanished}, failed ${failed}`
