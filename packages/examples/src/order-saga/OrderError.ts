/**
 * Every error of the program. Each says whose fault it was, and holds what it was about.
 */
import { Runtime, Schema } from "effect"
import { operations, serviceNames } from "./Order.ts"

/** A service says no and will say so again: there is not enough, or the order was cancelled before. */
export class Refused extends Schema.TaggedError<Refused>()("Refused", {
  operation: Schema.Literals(operations),
  reason: Schema.String
}) {
  override get message() {
    return `${this.operation} refused: ${this.reason}`
  }
}

/** A request was not answered as it should: whether it had an effect is not known. */
export class Unavailable extends Schema.TaggedError<Unavailable>()("Unavailable", {
  operation: Schema.Literals(operations),
  reason: Schema.String
}) {
  override get message() {
    return `${this.operation} unavailable: ${this.reason}`
  }
}

/** The process of a service ended by itself, or could not begin. */
export class ServiceEnded extends Schema.TaggedError<ServiceEnded>()("ServiceEnded", {
  service: Schema.Literals(serviceNames),
  reason: Schema.String
}) {
  override get message() {
    return `The service ${this.service} ended: ${this.reason}`
  }
}

/** The database of a service cannot be opened or read, or the directory of all three. */
export class LedgerFailed extends Schema.TaggedError<LedgerFailed>()("LedgerFailed", {
  file: Schema.String,
  cause: Schema.Defect()
}) {
  override readonly [Runtime.errorExitCode] = 2
  override get message() {
    return `${this.file} cannot be used: ${this.cause instanceof Error ? this.cause.message : String(this.cause)}`
  }
}
