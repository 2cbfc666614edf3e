/**
 * Programs as processes of their own, for tests; `run`, `start` and `announced` are for the backup service.
 */
import { type Duration, Effect, Schedule } from "effect"
import { type ChildProcess, spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

export const main = fileURLToPath(new URL("../src/backup-service/main.ts", import.meta.url))

export interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly stdout: string
  readonly stderr: string
}

export interface ServiceProcess {
  readonly child: ChildProcess
  readonly pid: number
  readonly output: () => { readonly stdout: string; readonly stderr: string }
  /** Waits for its end. */
  readonly ended: Effect.Effect<Ended>
  /** The same, for one that may take longer. */
  readonly endedWithin: (limit: Duration.Input) => Effect.Effect<Ended>
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<Ended>
}

export interface Running extends ServiceProcess {
  /** As its first line says. */
  readonly api: string
  readonly orchestra: string
}

/** Starts a command; whatever of it is left when the scope closes is killed. */
export const spawned = (command: string, args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
  Effect.acquireRelease(
    Effect.sync((): ServiceProcess => {
      const child = spawn(command, args, { env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"] })
      const output = { stdout: "", stderr: "" }
      child.stdout.on("data", (data) => output.stdout += data)
      child.stderr.on("data", (data) => output.stderr += data)
      const closed = new Promise<Ended>((resolve) =>
        child.on("close", (code, signal) => resolve({ code, signal, ...output }))
      )
      const endedWithin = (limit: Duration.Input) =>
        Effect.promise(() => closed).pipe(Effect.timeout(limit), Effect.orDie)
      const ended = endedWithin("1 minute")
      return {
        child,
        pid: child.pid ?? 0,
        output: () => output,
        ended,
        endedWithin,
        kill: (signal) => Effect.andThen(Effect.sync(() => child.kill(signal)), ended)
      }
    }),
    ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
  )

/** Runs the service to its end. */
export const run = (args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
  Effect.flatMap(spawned(process.execPath, [main, ...args], env), ({ ended }) => ended)

/** Starts the service on free ports and waits for its first line. */
export const start = (args: ReadonlyArray<string>, env: Record<string, string> = {}) =>
  Effect.flatMap(
    spawned(process.execPath, [main, "--port", "0", "--orchestra-port", "0", ...args], env),
    announced
  )

/** Waits for the first line. */
export const announced = (service: ServiceProcess): Effect.Effect<Running> =>
  until(Effect.sync(() => service.output().stdout), (stdout) => stdout.includes("\n")).pipe(
    Effect.map((stdout) => {
      const [, pid, api, orchestra] =
        /^backup-service, pid (\d+): API (http:\S+), orchestra (http:\S+)\/orchestra\n/.exec(stdout) ?? []
      if (api === undefined || orchestra === undefined) throw new Error(`unexpected first line: ${stdout}`)
      return { ...service, pid: Number(pid), api, orchestra }
    })
  )

export const isAlive = (pid: number): boolean => {
  try {
    return process.kill(pid, 0)
  } catch {
    return false
  }
}

/** Looks again and again until it is as expected. */
export const until = <A, E, R>(
  look: Effect.Effect<A, E, R>,
  isThere: (value: A) => boolean,
  limit: Duration.Input = "30 seconds"
) =>
  look.pipe(
    Effect.repeat({ until: isThere, schedule: Schedule.spaced("20 millis") }),
    Effect.timeout(limit),
    Effect.orDie
  )
