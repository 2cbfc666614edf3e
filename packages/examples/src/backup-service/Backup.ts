/**
 * The records of a backup: the files it knows, their versions, and the runs that made them.
 */
import { Schema } from "effect"

/** Names a content: the lower-case hex digest of its bytes. */
export const Sha256 = Schema.String.check(Schema.isPattern(/^[0-9a-f]{64}$/))

/** A content in the store. */
export const StoredObject = Schema.Struct({
  sha256: Sha256,
  /** Bytes. */
  size: Schema.Natural
})
export type StoredObject = typeof StoredObject.Type

/** A file at its latest version. `path` is relative to the source, with `/` between names. */
export const BackedUpFile = Schema.Struct({
  path: Schema.String,
  ...StoredObject.fields,
  /** How many versions there are, this one included. */
  versions: Schema.Natural,
  /** No longer in the source; its versions stay. */
  deleted: Schema.Boolean
})
export type BackedUpFile = typeof BackedUpFile.Type

/** One content that a file once had. */
export const Version = Schema.Struct({
  /** Counts up over all files: the newer version has the greater id. */
  id: Schema.Natural,
  path: Schema.String,
  ...StoredObject.fields,
  at: Schema.DateTimeUtc
})
export type Version = typeof Version.Type

/** What a run met and did. */
export const Counts = Schema.Struct({
  /** Files looked at. */
  files: Schema.Natural,
  /** New versions. */
  stored: Schema.Natural,
  unchanged: Schema.Natural,
  /** Files found gone from the source. */
  deleted: Schema.Natural,
  /** Files that disappeared between being listed and being read. */
  vanished: Schema.Natural,
  /** What is neither a file nor a directory: symbolic links, sockets, pipes, devices. */
  skipped: Schema.Natural,
  /** Files and directories that could not be read, and contents that could not be stored. */
  failed: Schema.Natural
})
export type Counts = typeof Counts.Type

/** One pass over the source: all of it (`scan`) or what a burst of events named (`change`). */
export const Run = Schema.Struct({
  id: Schema.Natural,
  kind: Schema.Literals(["scan", "change"]),
  startedAt: Schema.DateTimeUtc,
  /** Absent while it runs. */
  finishedAt: Schema.optionalKey(Schema.DateTimeUtc),
  /** Something failed or the run was cut short: the source holds more than the backup. */
  partial: Schema.Boolean,
  ...Counts.fields
})
export type Run = typeof Run.Type

export const Stats = Schema.Struct({
  /** Files now in the source. */
  files: Schema.Natural,
  /** Files that are gone from the source. */
  deleted: Schema.Natural,
  versions: Schema.Natural,
  /** Different contents. */
  objects: Schema.Natural,
  /** Their sizes together. */
  bytes: Schema.Natural,
  runs: Schema.Natural,
  lastRun: Schema.optionalKey(Run)
})
export type Stats = typeof Stats.Type
