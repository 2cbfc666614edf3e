/**
 * The program of `programs/plan.ts` as a process in a directory of its own, for tests.
 */
import { Effect, Schedule, type Scope } from "effect"
import { spawn } from "node:child_process"
import * as fs from "node:fs"
import * as os from "node:os"
import * as path from "node:path"
import { fileURLToPath } from "node:url"

const program = fileURLToPath(new URL("programs/plan.ts", import.meta.url))

export interface Ended {
  readonly code: number | null
  readonly stdout: string
  readonly stderr: string
}

export interface Running {
  readonly kill: (signal: NodeJS.Signals) => Effect.Effect<void>
  readonly type: (keys: string) => Effect.Effect<void>
  /** Standard output and standard error so far. */
  readonly output: () => string
  readonly ended: Effect.Effect<Ended>
}

/** A world, see the program. */
export interface World {
  readonly set: (...names: ReadonlyArray<string>) => void
  readonly unset: (...names: ReadonlyArray<string>) => void
  readonly has: (name: string) => boolean
  readonly read: (name: string) => string
  readonly write: (name: string, content: string) => void
  /** What was applied, a line each. */
  readonly log: () => ReadonlyArray<string>
  readonly start: (args: ReadonlyArray<string>, env?: Env) => Effect.Effect<Running, never, Scope.Scope>
  readonly run: (args: ReadonlyArray<string>, env?: Env) => Effect.Effect<Ended>
  /** On a pseudo terminal of 80 columns. What follows the arguments is for the shell, such as `> out`. */
  readonly onTerminal: (args: string, env?: Env) => Effect.Effect<Running, never, Scope.Scope>
}

type Env = Record<string, string>

/** Nothing of where the tests run decides how the program shows itself. */
const plain = { ...process.env, SHELL: "/bin/bash", CI: "", NO_COLOR: "", FORCE_COLOR: "", TERM: "xterm" }

const started = (cwd: string, command: string, args: ReadonlyArray<string>, env: Env) =>
  Effect.acquireRelease(
    Effect.sync((): Running & { readonly child: ReturnType<typeof spawn> } => {
      // Standard input stays open and silent.
      const child = spawn(command, args, { cwd, env: { ...plain, ...env }, stdio: "pipe" })
      let [stdout, stderr] = ["", ""]
      child.stdout.on("data", (data) => stdout += data)
      child.stderr.on("data", (data) => stderr += data)
      const closed = new Promise<Ended>((resolve) => child.on("close", (code) => resolve({ code, stdout, stderr })))
      return {
        child,
        kill: (signal) => Effect.sync(() => void child.kill(signal)),
        type: (keys) => Effect.sync(() => void child.stdin.write(keys)),
        output: () => stdout + stderr,
        ended: Effect.promise(() => closed)
      }
    }),
    ({ child }) => Effect.sync(() => void child.kill("SIGKILL"))
  )

export const world: Effect.Effect<World, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => fs.mkdtempSync(path.join(os.tmpdir(), "plan-"))),
    (directory) => Effect.sync(() => fs.rmSync(directory, { recursive: true, force: true }))
  ),
  (directory): World => {
    const file = (name: string) => path.join(directory, name)
    const start = (args: ReadonlyArray<string>, env: Env = {}) =>
      started(directory, process.execPath, [program, ...args], env)
    return {
      set: (...names) => names.forEach((name) => fs.writeFileSync(file(name), "")),
      unset: (...names) => names.forEach((name) => fs.rmSync(file(name))),
      has: (name) => fs.existsSync(file(name)),
      read: (name) => fs.readFileSync(file(name), "utf8"),
      write: (name, content) => fs.writeFileSync(file(name), content),
      log: () => fs.existsSync(file("log")) ? fs.readFileSync(file("log"), "utf8").trimEnd().split("\n") : [],
      start,
      run: (args, env) => Effect.scoped(Effect.flatMap(start(args, env), ({ ended }) => ended)),
      onTerminal: (args, env = {}) => {
        const command = `stty cols 80 rows 24; exec "${process.execPath}" "${program}" ${args}`
        return started(directory, "script", ["-qec", command, "/dev/null"], env)
      }
    }
  }
)

/** Looks again and again until it is as expected. */
export const until = (isThere: () => boolean) =>
  Effect.sync(isThere).pipe(Effect.repeat({ until: (there) => there, schedule: Schedule.spaced("20 millis") }))
