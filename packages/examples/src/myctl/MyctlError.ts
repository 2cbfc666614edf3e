/**
 * Every error of myctl. Each is one line for the user, and holds what it was about.
 */
import { Runtime, Schema } from "effect"

/** A document does not hold what it must: nothing was run. `problems` name the path inside it and what was expected. */
export class DocumentInvalid extends Schema.TaggedError<DocumentInvalid>()("DocumentInvalid", {
  path: Schema.String,
  problems: Schema.Array(Schema.String)
}) {
  override readonly [Runtime.errorExitCode] = 2
  override get message() {
    return `${this.path}: ${this.problems.join("; ")}`
  }
}

/** A file could not be read, or is not there. */
export class NotReadable extends Schema.TaggedError<NotReadable>()("NotReadable", {
  path: Schema.String,
  reason: Schema.String
}) {
  override readonly [Runtime.errorExitCode] = 2
  override get message() {
    return `Could not read ${this.path}: ${this.reason}`
  }
}

/** A file of the state directory could not be written: not writable, disk full. */
export class NotWritten extends Schema.TaggedError<NotWritten>()("NotWritten", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `Could not write ${this.path}: ${this.reason}`
  }
}

/** Another myctl changes what runs. */
export class StateInUse extends Schema.TaggedError<StateInUse>()("StateInUse", {
  directory: Schema.String,
  pid: Schema.Int
}) {
  override get message() {
    return `The state in ${this.directory} is in use by process ${this.pid}`
  }
}

/** Names that the manifest does not have. */
export class UnknownServer extends Schema.TaggedError<UnknownServer>()("UnknownServer", {
  names: Schema.Array(Schema.String),
  manifest: Schema.String
}) {
  override readonly [Runtime.errorExitCode] = 2
  override get message() {
    return `${this.manifest} has no server named ${this.names.join(", ")}`
  }
}

/** The cache does not know from what a server is built. */
export class NotInCache extends Schema.TaggedError<NotInCache>()("NotInCache", {
  server: Schema.String
}) {
  override get message() {
    return `the cache does not have ${this.server}: rebuild it`
  }
}

/** The command of a server could not be started at all. */
export class NotStarted extends Schema.TaggedError<NotStarted>()("NotStarted", {
  server: Schema.String,
  command: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `${this.server} could not be started with ${this.command}: ${this.reason}`
  }
}

/** A server was started and ended again, or was not ready in time. It does not run any more. */
export class NotReady extends Schema.TaggedError<NotReady>()("NotReady", {
  server: Schema.String,
  reason: Schema.String,
  /** The last lines of its log. */
  tail: Schema.Array(Schema.String),
  log: Schema.String
}) {
  override get message() {
    const end = this.tail.length === 0 ? `${this.log} is empty` : `${this.log} ends: ${this.tail.join(" | ")}`
    return `${this.server} did not become ready: ${this.reason}; ${end}`
  }
}

/** A server is there even after SIGKILL, or is not ours to kill. */
export class NotStopped extends Schema.TaggedError<NotStopped>()("NotStopped", {
  server: Schema.String,
  pid: Schema.Int,
  reason: Schema.String
}) {
  override get message() {
    return `${this.server}, pid ${this.pid}, could not be stopped: ${this.reason}`
  }
}
