/**
 * What keeps a collector from its data: a source it cannot do without.
 */
import { Schema } from "effect"

/** The file or directory cannot be read. */
export class SourceUnreadable extends Schema.TaggedError<SourceUnreadable>()("SourceUnreadable", {
  path: Schema.String,
  reason: Schema.String
}) {
  override get message() {
    return `Could not read ${this.path}: ${this.reason}`
  }
}

/** The file is there and does not say what it should. */
export class SourceMalformed extends Schema.TaggedError<SourceMalformed>()("SourceMalformed", {
  path: Schema.String,
  expected: Schema.String
}) {
  override get message() {
    return `${this.path} does not have ${this.expected}`
  }
}
