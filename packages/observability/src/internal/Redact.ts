/** What the texts of users pass before anybody sees them: errors, messages, lines of logs. */
import * as Context from "effect/Context"

export type Redact = (text: string) => string

/** What a redactor is given at most: it is user code, and runs in the step of a request. */
const looked = 16 * 1024

const shownText = 4 * 1024

/** Of a redactor that throws nothing is shown. Redacted first and cut then: half a secret matches no pattern. */
export const redacting = (redact: Redact | undefined): Redact => (text) => {
  if (redact === undefined) return text.slice(0, shownText)
  try {
    return redact(text.slice(0, looked)).slice(0, shownText)
  } catch {
    return "(the redactor failed)"
  }
}

export const Redactor = Context.Reference<Redact>("@effect-orchestra/observability/Redactor", {
  defaultValue: () => redacting(undefined)
})
