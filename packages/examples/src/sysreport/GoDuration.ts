/**
 * Durations as Go writes them: `10s`, `1m30s`, `500ms`.
 */
import { Duration, Option } from "effect"

const units: { readonly [unit: string]: number } = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

/** `None` for what is no duration, or one of nothing. */
export const parse = (text: string): Option.Option<Duration.Duration> => {
  if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text)) return Option.none()
  let millis = 0
  for (const [, amount, unit = ""] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g)) {
    millis += Number(amount) * (units[unit] ?? 0)
  }
  return millis > 0 ? Option.some(Duration.millis(millis)) : Option.none()
}

export const format = (duration: Duration.Duration): string => {
  const millis = Math.round(Duration.toMillis(duration))
  if (millis > 0 && millis < 1000) return `${millis}ms`
  const hours = Math.floor(millis / 3_600_000)
  const minutes = Math.floor(millis / 60_000) % 60
  const seconds = millis % 60_000 / 1000
  return (hours > 0 ? `${hours}h` : "") + (millis >= 60_000 ? `${minutes}m` : "") + `${seconds}s`
}
