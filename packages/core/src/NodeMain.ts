/**
 * The main function of a service or a command line on Node: signals, a graceful stop, exit codes.
 *
 * The first SIGINT, SIGTERM or SIGHUP stops the tree within the grace; the process then ends with 130, 143 or 129,
 * even if something was stuck, which is named on stderr. A second signal ends it at once with its own code. (Terminals
 * and package managers deliver one Ctrl-C twice; the same signal within 200 ms counts as one.) Without a signal the
 * exit code is 0, or 1, or the `Runtime.errorExitCode` of the error.
 *
 * This module needs Node and the optional peer `@effect/platform-node`, and so is not in the barrel.
 *
 * @since 0.1.0
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import * as Cause from "effect/Cause"
import * as CliError from "effect/cli/CliError"
import * as CliOutput from "effect/cli/CliOutput"
import * as Command from "effect/cli/Command"
import * as Console from "effect/Console"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as Schedule from "effect/Schedule"
import * as fs from "node:fs"
import process from "node:process"
import { Orchestrator } from "./Orchestrator.ts"
import * as Shutdown from "./Shutdown.ts"

/**
 * How a program is run.
 *
 * @category models
 * @since 0.1.0
 */
export interface RunOptions {
  /** How long a graceful stop may take, from the first signal to the end of the process. Default 10 seconds. */
  readonly grace?: Duration.Input | undefined
  /** Whether to stop, as on SIGHUP, when the process that started this one is gone. Default false. */
  readonly stopWithParent?: boolean | undefined
  /** The orchestrator of the program. Default `Orchestrator.layer`. */
  readonly orchestrator?: Layer.Layer<Orchestrator> | undefined
}

const exitCodes = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const

/**
 * A signal that stops the program.
 *
 * @category models
 * @since 0.1.0
 */
export type Signal = keyof typeof exitCodes

const signals: ReadonlyArray<Signal> = ["SIGHUP", "SIGINT", "SIGTERM"]

/** The first signal that came, and how many wait for it. */
const came = Deferred.makeUnsafe<Signal>()
let watchers = 0

/**
 * Waits for the first signal, and returns it. A program in which somebody waits for it when it comes is left to end by
 * itself for half of its grace, its report written, before it is stopped as any other is. The second signal ends the
 * process at once. Without `run` or `runCommand` it waits for ever.
 *
 * @category operations
 * @since 0.1.0
 */
export const firstSignal: Effect.Effect<Signal> = Effect.acquireUseRelease(
  Effect.sync(() => void watchers++),
  () => Deferred.await(came),
  () => Effect.sync(() => void watchers--)
)

/**
 * Runs a program, or a layer until it is stopped, with an orchestrator, and ends the process with it. The program ends
 * as well, with exit code 1, when a supervisor without a parent gives up.
 *
 * @category operations
 * @since 0.1.0
 */
export const run = <A, E>(
  program: Effect.Effect<A, E, Orchestrator> | Layer.Layer<A, E, Orchestrator>,
  options: RunOptions = {}
): void => main<A, E>(Effect.isEffect(program) ? program : Layer.launch(program), options)

/**
 * Runs a command of `effect/cli` with the arguments of the process, as `run` does; one leading `--` is dropped, as
 * package managers pass it on. Help that was asked for goes to stdout with exit code 0; wrong usage puts help and
 * error on stderr, with exit code 2.
 *
 * @category operations
 * @since 0.1.0
 */
export const runCommand = <Name extends string, Input, ContextInput, E, R extends Orchestrator | Command.Environment>(
  command: Command.Command<Name, Input, ContextInput, E, R>,
  options: RunOptions & { readonly version: string }
): void => {
  const args = process.argv.slice(2)
  const program = Command.runWith(command, { version: options.version })(args[0] === "--" ? args.slice(1) : args).pipe(
    Effect.provideService(CliOutput.Presenter, presenter),
    Effect.provide(NodeServices.layer)
  )
  // What is left of the command's requirements is the orchestrator.
  main(program as Effect.Effect<void, unknown, Orchestrator>, options)
}

/** The default presenter, with everything about wrong usage on stderr. */
const presenter: CliOutput.Presenter = {
  present: (event) =>
    event._tag === "InvalidInvocation"
      ? Effect.flatMap(Console.Console, (console) =>
        Effect.provideService(CliOutput.defaultPresenter.present(event), Console.Console, {
          ...console,
          log: console.error
        }))
      : CliOutput.defaultPresenter.present(event)
}

const main = <A, E>(program: Effect.Effect<A, E, Orchestrator>, options: RunOptions): void => {
  const grace = Duration.toMillis(options.grace ?? "10 seconds")
  let orchestrator: Orchestrator["Service"] | undefined = undefined
  let first: { readonly signal: Signal; readonly at: number } | undefined = undefined

  const racing = Effect.gen(function*() {
    orchestrator = yield* Orchestrator
    return yield* Effect.raceFirst(program, orchestrator.fatal)
  }).pipe(Effect.provide(options.orchestrator ?? Orchestrator.layer), Effect.tapCause(report))

  Runtime.makeRunMain(({ fiber, teardown }) => {
    const stop = Effect.fnUntraced(function*(signal: Signal) {
      const started = process.uptime()
      const watched = watchers > 0
      yield* Deferred.succeed(came, signal)
      if (watched && Option.isSome(yield* Effect.timeoutOption(Fiber.await(fiber), grace / 2))) return
      const rest = Math.max(0, grace - (process.uptime() - started) * 1000) / 2
      const report = yield* orchestrator?.shutdown({ grace: rest, interrupt: rest }, signal) ??
        Effect.succeed(undefined)
      if (report !== undefined && !report.clean) yield* Console.error(Shutdown.format(report))
      fiber.interruptUnsafe()
      const left = Math.max(500, grace - (process.uptime() - started) * 1000)
      if (Option.isSome(yield* Effect.timeoutOption(Fiber.await(fiber), left))) return
      yield* Console.error(`the program did not end within ${grace} ms`)
      end()
    })

    const onSignal = (signal: Signal) => {
      if (first === undefined) {
        first = { signal, at: process.uptime() }
        // Not before the other listeners were told: one may end the process by the signal when it finds itself alone.
        queueMicrotask(() => Effect.runFork(stop(signal)))
      } else if (signal !== first.signal || process.uptime() - first.at > 0.2) {
        process.exit(exitCodes[signal])
      }
    }
    for (const signal of signals) process.on(signal, onSignal)

    // A reader of our output that went away is no reason to end without a graceful stop.
    const ignore = () => {}
    const outputs = [process.stdout, process.stderr]
    for (const output of outputs) output.on("error", ignore)

    const watch = options.stopWithParent === true ? Effect.runFork(untilOrphaned) : undefined
    watch?.addObserver((exit) => {
      if (Exit.isSuccess(exit)) onSignal("SIGHUP")
    })

    /** Ends the process once what was written is out. */
    const end = (code = 1) => {
      watch?.interruptUnsafe()
      for (const signal of signals) process.off(signal, onSignal)
      const last = first === undefined ? code : exitCodes[first.signal]
      process.stdout.write("", () => process.stderr.write("", () => process.exit(last)))
    }
    fiber.addObserver((exit) => teardown(exit, end))
  })(racing, { teardown, disableErrorReporting: true })
}

/** Tells on stderr why the program failed, unless its error says that this was done: stdout is the program's own. */
const report = (cause: Cause.Cause<unknown>): Effect.Effect<void> =>
  Cause.hasInterruptsOnly(cause) || !Runtime.getErrorReported(Cause.squash(cause))
    ? Effect.void
    : Console.error(Cause.pretty(cause))

const teardown: Runtime.Teardown = (exit, onExit) => {
  const error = Exit.isFailure(exit) ? Cause.squash(exit.cause) : undefined
  const misused = CliError.isCliError(error) && error._tag === "ShowHelp" && error.errors.length > 0
  return misused ? onExit(2) : Runtime.defaultTeardown(exit, onExit)
}

/**
 * Completes when one of the processes that started this one is gone. Those are its parent, and above it the package
 * managers and their shells: killing `npx` leaves `pnpm` and its shell behind, and neither passes the signal on.
 */
const untilOrphaned = Effect.suspend(() => {
  const parent = process.ppid
  const starters = startersOf(parent)
  const orphaned = Effect.sync(() =>
    process.ppid !== parent || starters.some(({ pid, started }) => processOf(pid)?.started !== started)
  )
  return Effect.repeat(orphaned, { schedule: Schedule.spaced("500 millis"), until: (gone) => gone })
})

interface Process {
  readonly pid: number
  readonly parent: number
  /** In clock ticks since boot: a pid that was given to another process has another start. */
  readonly started: string
  readonly command: string
}

/** A live process, where the system has `/proc`. */
const processOf = (pid: number): Process | undefined => {
  try {
    const stat = fs.readFileSync(`/proc/${pid}/stat`, "utf8")
    // The name in brackets may hold anything; after it come state, parent, and at the 20th place the start.
    const [state, parent, ...rest] = stat.slice(stat.lastIndexOf(")") + 2).split(" ")
    if (state === "Z" || state === "X") return undefined
    const command = fs.readFileSync(`/proc/${pid}/cmdline`, "utf8").replaceAll("\0", " ")
    return { pid, parent: Number(parent), started: rest[17] ?? "", command }
  } catch {
    return undefined
  }
}

const isLauncher = ({ command }: Process): boolean =>
  /(^|[/\s])(npm|npx|pnpm|pnpx|yarn|corepack)\b/.test(command) || /^(\S*\/)?(sh|dash|bash|zsh) -c /.test(command)

const startersOf = (pid: number): ReadonlyArray<Process> => {
  const starters: Array<Process> = []
  let next = pid > 1 ? processOf(pid) : undefined
  while (next !== undefined && (starters.length === 0 || isLauncher(next))) {
    starters.push(next)
    next = isLauncher(next) && next.parent > 1 ? processOf(next.parent) : undefined
  }
  return starters
}
