/** The recent log lines of a routine. */
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import * as Effect from "effect/Effect"
import { Telemetry } from "../Telemetry.ts"
import { type LogLines, NodeNotFound } from "./AnswerSchema.ts"
import { stamp } from "./Lists.ts"
import { Redactor } from "./Redact.ts"

/**
 * The recent log lines of a routine that is listed, which are kept from when they are asked for first. Fails with
 * `NodeNotFound` when there is none of this id.
 *
 * @category operations
 * @since 0.1.0
 */
export const logs = Effect.fnUntraced(function*(id: string) {
  const { kernel } = yield* Orchestrator
  const { logs } = yield* Telemetry
  const redact = yield* Redactor
  if (!(kernel.node(id) instanceof RoutineRecord)) return yield* new NodeNotFound({ node: id })
  yield* logs.watch(id)
  const lines = yield* logs.recent(id)
  const found: typeof LogLines.Type = {
    ...yield* stamp,
    items: lines.map((line) => ({
      ...line,
      message: redact(line.message),
      cause: line.cause === null ? null : redact(line.cause),
      annotations: Object.fromEntries(Object.entries(line.annotations).map(([name, text]) => [name, redact(text)]))
    }))
  }
  return found
})
