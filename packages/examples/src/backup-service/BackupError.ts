/**
 * Every error of the backup service. Each says whose fault it was, and holds what it was about.
 */
import { Runtime, Schema } from "effect"

/** The command cannot do what it was asked to: nothing was touched. */
export class OptionInvalid extends Schema.TaggedError<OptionInvalid>()("OptionInvalid", {
  option: Schema.String,
  value: Schema.String,
  reason: Schema.String
}) {
  override readonly [Runtime.errorExitCode] = 2
  override get message() {
    return `${this.option} ${this.value}: ${this.reason}`
  }
}

/** Another process works on this store. */
export class StoreLocked extends Schema.TaggedError<StoreLocked>()("StoreLocked", {
  store: Schema.String,
  pid: Schema.Int
}) {
  override get message() {
    return `The store ${this.store} is in use by process ${this.pid}`
  }
}

/** The store, or a restored file, could not be written: not writable, disk full. */
export class NotWritten extends Schema.TaggedError<NotWritten>()("NotWritten", {
  path: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `Could not write ${this.path}: ${reasonOf(this.cause)}`
  }
}

/** The store lost an object, or its bytes are no longer those that were stored. */
export class ObjectDamaged extends Schema.TaggedError<ObjectDamaged>()("ObjectDamaged", {
  sha256: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `The stored object ${this.sha256} is damaged: ${this.reason}`
  }
}

/** The database file is not one, is damaged, or was written by a newer version. It is left as it is. */
export class DatabaseRefused extends Schema.TaggedError<DatabaseRefused>()("DatabaseRefused", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `The database ${this.path} cannot be used and was left as it is: ${this.reason}`
  }
}

/** A statement failed. */
export class DatabaseFailed extends Schema.TaggedError<DatabaseFailed>()("DatabaseFailed", {
  operation: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return `The database failed to ${this.operation}: ${reasonOf(this.cause)}`
  }
}

/** A file or directory of the source could not be read; "" is the source itself. */
export class NotReadable extends Schema.TaggedError<NotReadable>()("NotReadable", {
  path: Schema.String,
  /** It was listed, and is gone. */
  vanished: Schema.Boolean,
  cause: Schema.Defect()
}) {
  override get message() {
    return `Could not read ${this.path === "" ? "the source" : this.path}: ${reasonOf(this.cause)}`
  }
}

/** Nothing is restored to such a place. */
export class RestoreRefused extends Schema.TaggedError<RestoreRefused>()("RestoreRefused", {
  to: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `Cannot restore to ${JSON.stringify(this.to)}: ${this.reason}`
  }
}

/** A server cannot listen where `flag` tells it to. */
export class PortUnavailable extends Schema.TaggedError<PortUnavailable>()("PortUnavailable", {
  port: Schema.Int,
  flag: Schema.String,
  cause: Schema.Defect()
}) {
  override get message() {
    return hasCode(this.cause, "EADDRINUSE")
      ? `Port ${this.port} is taken: choose another with ${this.flag}`
      : `Cannot listen on port ${this.port} (${this.flag}): ${reasonOf(this.cause)}`
  }
}

const hasCode = (cause: unknown, code: string): boolean =>
  cause instanceof Error && "code" in cause && cause.code === code

const reasonOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)
