/**
 * Processes that outlive the program that starts them. Needs Linux: who a process is, is read from `/proc`.
 *
 * The processes of `effect/process` end with their scope. These must not, so they are Node's own: detached, each the
 * leader of a group, with a file as their output.
 */
import { Clock, Context, Deferred, Duration, Effect, Layer, Schedule, Schema } from "effect"
import { spawn } from "node:child_process"
import { closeSync, openSync, readFileSync } from "node:fs"

/** A pid may be given to another process; with its start it names one process alone, even after the machine's own. */
export const Identity = Schema.Struct({
  pid: Schema.Int.check(Schema.isGreaterThan(1)),
  started: Schema.NonEmptyString
})
export type Identity = typeof Identity.Type

export interface Started extends Identity {
  /** Waits for the end of the process, as long as this program runs, and tells how it ended. */
  readonly ended: Effect.Effect<string>
}

export class Processes extends Context.Service<Processes, {
  /** How long the process has been running, if it does. */
  readonly uptime: (identity: Identity) => Effect.Effect<Duration.Duration | undefined>
  /** Starts a process whose output goes to the file `log`. Fails with the reason when there is no such program. */
  readonly start: (options: {
    readonly command: ReadonlyArray<string>
    readonly directory: string
    readonly env: Record<string, string>
    readonly log: string
    /** Called with it before anything else can happen, even the end of this program: it may not wait. */
    readonly remember: (identity: Identity) => void
  }) => Effect.Effect<Started, string>
  /**
   * Stops a process with SIGTERM, and with SIGKILL after `within`. Waits until it is gone; fails with the reason when it
   * does not go. A process that is not the one of this identity is left alone.
   */
  readonly stop: (
    identity: Identity,
    within: Duration.Duration
  ) => Effect.Effect<"was gone" | "ended" | "killed", string>
}>()("myctl/Processes") {
  static readonly layer = Layer.sync(Processes, () => ({ uptime, start, stop }))
}

const start: Processes["Service"]["start"] = (
  { command: [program = "", ...args], directory, env, log, remember }
) =>
  Effect.gen(function*() {
    const ended = yield* Deferred.make<string>()
    const output = yield* Effect.try({ try: () => openSync(log, "w"), catch: messageOf })
    const identity = yield* Effect.callback<Identity, string>((resume) => {
      const child = spawn(program === "node" ? process.execPath : program, args, {
        cwd: directory,
        env: { ...process.env, ...env },
        detached: true,
        stdio: ["ignore", output, output]
      })
      closeSync(output)
      child.unref()
      child.on("error", ({ message }) => resume(Effect.fail(message)))
      child.on("exit", (code, signal) => Deferred.doneUnsafe(ended, Effect.succeed(describe(code, signal))))
      const { pid } = child
      // The error that says why comes later.
      if (pid === undefined) return
      // One that has already ended has no start any more.
      const identity = { pid, started: statOf(pid)?.started ?? "gone" }
      try {
        remember(identity)
        resume(Effect.succeed(identity))
      } catch (cause) {
        child.kill("SIGKILL")
        resume(Effect.fail(messageOf(cause)))
      }
    })
    return { ...identity, ended: Deferred.await(ended) }
  }).pipe(Effect.uninterruptible)

const describe = (code: number | null, signal: string | null): string =>
  signal === null ? `it ended with code ${code}` : `it was ended by ${signal}`

const uptime: Processes["Service"]["uptime"] = (identity) =>
  Effect.sync(() => {
    const stat = statOf(identity.pid)
    return stat?.started === identity.started ? Duration.seconds(secondsSinceBoot() - stat.ticks / 100) : undefined
  })

const stop: Processes["Service"]["stop"] = Effect.fnUntraced(function*(identity, within) {
  if (!(yield* signal(identity, "SIGTERM"))) return "was gone"
  if (yield* isGone(identity, within)) return "ended"
  yield* signal(identity, "SIGKILL")
  if (yield* isGone(identity, Duration.seconds(5))) return "killed"
  return yield* Effect.fail("it is there even after SIGKILL")
})

/** Nothing comes between the look and the signal; SIGKILL is for all that the process has started. */
const signal = (identity: Identity, name: "SIGTERM" | "SIGKILL"): Effect.Effect<boolean, string> =>
  Effect.try({
    try: () => {
      if (statOf(identity.pid)?.started !== identity.started) return false
      return process.kill(name === "SIGKILL" ? -identity.pid : identity.pid, name)
    },
    catch: messageOf
  })

const messageOf = (cause: unknown): string => cause instanceof Error ? cause.message : String(cause)

/** Looks until the process is gone, at most so long. */
const isGone = Effect.fnUntraced(function*(identity: Identity, within: Duration.Duration) {
  const deadline = (yield* Clock.currentTimeMillis) + Duration.toMillis(within)
  const look = Effect.gen(function*() {
    const gone = statOf(identity.pid)?.started !== identity.started
    return { gone, late: (yield* Clock.currentTimeMillis) >= deadline }
  })
  const { gone } = yield* Effect.repeat(look, {
    schedule: Schedule.spaced("20 millis"),
    until: ({ gone, late }) => gone || late
  })
  return gone
})

/** Boot and tick at which the process started; none for one that is dead, even if nobody has collected it yet. */
const statOf = (pid: number): { readonly ticks: number; readonly started: string } | undefined => {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, "utf8")
    // The name in brackets may hold anything; after it come the state, and at the 20th place the start.
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    if (fields[0] === "Z" || fields[0] === "X") return undefined
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim()
    return { ticks: Number(fields[19]), started: `${boot}/${fields[19]}` }
  } catch {
    return undefined
  }
}

const secondsSinceBoot = (): number => Number.parseFloat(readFileSync("/proc/uptime", "utf8"))
