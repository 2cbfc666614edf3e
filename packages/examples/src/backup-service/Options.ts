/**
 * The options of the command. Each can also be given as an environment variable, which the flag overrides.
 */
import { Config, Duration, Option, Schema } from "effect"
import { Flag } from "effect/cli"

const port = (flag: string, variable: string, standard: number, description: string) =>
  Flag.Int(flag).pipe(
    Flag.withDescription(`${description}, 0 for any free one; default ${standard} (${variable})`),
    Flag.withFallbackConfig(Config.Int(variable)),
    Flag.withDefault(standard),
    Flag.filter((port) => port >= 0 && port <= 65_535, (port) => `Expected a port from 0 to 65535, got ${port}`)
  )

const directory = (flag: string, variable: string, description: string) =>
  Flag.String(flag).pipe(
    Flag.withDescription(`${description} (${variable})`),
    Flag.withFallbackConfig(Config.String(variable)),
    Flag.withSchema(Schema.NonEmptyString)
  )

/** A duration as one types it: `500ms`, `20s`, `1.5m`, `2h`. */
const duration = (text: string): Option.Option<Duration.Duration> => {
  const [, amount, unit = ""] = /^(\d+(?:\.\d+)?)(ms|s|m|h)$/.exec(text) ?? []
  return Option.map(Option.fromUndefinedOr(milliseconds[unit]), (millis) => Duration.millis(Number(amount) * millis))
}
const milliseconds: { readonly [unit: string]: number } = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }

export const options = {
  source: directory("source", "BACKUP_SOURCE", "The directory to back up; default packages").pipe(
    Flag.withDefault("packages")
  ),
  store: directory("store", "BACKUP_STORE", "The directory that holds the backup; default .orchestra/backup").pipe(
    Flag.withDefault(".orchestra/backup")
  ),
  restoreDirectory: directory(
    "restore-dir",
    "BACKUP_RESTORE_DIR",
    "The directory for restored files; default restored, in the store"
  ).pipe(Flag.optional),
  port: port("port", "BACKUP_PORT", 8080, "The port of the API"),
  orchestraPort: port("orchestra-port", "BACKUP_ORCHESTRA_PORT", 9090, "The port that shows the service at work"),
  otlp: Flag.String("otlp").pipe(
    Flag.withDescription(
      "Send traces, logs and metrics to this OpenTelemetry Collector, http://127.0.0.1:4318 say (BACKUP_OTLP)"
    ),
    Flag.withFallbackConfig(Config.String("BACKUP_OTLP")),
    Flag.optional
  ),
  token: Flag.Redacted("token").pipe(
    Flag.withDescription("Ask for this token at the orchestra port, better given as the variable (BACKUP_TOKEN)"),
    Flag.withFallbackConfig(Config.Redacted("BACKUP_TOKEN")),
    Flag.optional
  ),
  profile: Flag.Boolean("profile").pipe(
    Flag.withDescription("Give out profiles below /debug/pprof, at the orchestra port (BACKUP_PROFILE)"),
    Flag.withFallbackConfig(Config.Boolean("BACKUP_PROFILE")),
    Flag.withDefault(false)
  ),
  chaos: Flag.Boolean("chaos").pipe(
    Flag.withDescription("Let POST /chaos/{database|watcher|api} kill that part (BACKUP_CHAOS)"),
    Flag.withFallbackConfig(Config.Boolean("BACKUP_CHAOS")),
    Flag.withDefault(false)
  ),
  for: Flag.String("for").pipe(
    Flag.withDescription("Stop so long after all is ready, for example 20s or 5m; default never (BACKUP_FOR)"),
    Flag.withFallbackConfig(Config.String("BACKUP_FOR")),
    Flag.filterMap(duration, (text) => `Expected a duration such as 20s or 5m, got ${text}`),
    Flag.optional
  )
}
