/**
 * What keeps the command from its report. Each error is one line on stderr.
 */
import { Runtime, Schema } from "effect"

/** There is no process file system to ask: nothing was measured. */
export class ProcNotThere extends Schema.TaggedError<ProcNotThere>()("ProcNotThere", { root: Schema.String }) {
  override readonly [Runtime.errorExitCode] = 2
  override get message() {
    return `${this.root} is no process file system of Linux: it has no file stat`
  }
}

/** A profile or a report that cannot be read, or is not one: nothing was measured. */
export class DocumentInvalid extends Schema.TaggedError<DocumentInvalid>()("DocumentInvalid", {
  what: Schema.Literals(["profile", "report"]),
  file: Schema.String,
  problems: Schema.Array(Schema.String)
}) {
  override readonly [Runtime.errorExitCode] = 2
  override get message() {
    return `${this.what} ${this.file}: ${this.problems.join("; ")}`
  }
}

/** `--focus` names what is no category: nothing was measured. */
export class FocusUnknown extends Schema.TaggedError<FocusUnknown>()("FocusUnknown", {
  unknown: Schema.Array(Schema.String),
  known: Schema.Array(Schema.String)
}) {
  override readonly [Runtime.errorExitCode] = 2
  override get message() {
    return `--focus: there is no category ${this.unknown.join(", ")}; there are ${this.known.join(", ")}`
  }
}

/** The report could not be written. */
export class OutputNotWritten extends Schema.TaggedError<OutputNotWritten>()("OutputNotWritten", {
  output: Schema.String,
  reason: Schema.String
}) {
  override readonly [Runtime.errorExitCode] = 1
  override get message() {
    return `could not write ${this.output}: ${this.reason}`
  }
}
