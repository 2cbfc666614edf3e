/**
 * A plan on the command line: a preview, one question, the apply, a report, and an exit code.
 *
 * Standard output holds the report and nothing else, as text or, with `--json`, as one JSON document; only where it is a
 * terminal do the preview and the question come before it. The progress, and what checks and applies write to the
 * console or to the log, go to standard error: drawn in place on a terminal, as plain lines elsewhere and where `CI`,
 * `NO_COLOR` or `TERM=dumb` is set. What is made here needs Node and the optional peer `@effect/platform-node` when it
 * runs, and is started with `NodeMain.runCommand(Plan.command(plan), { version })`.
 *
 * **Example** (The exit code of a check)
 *
 * ```ts import.meta.vitest
 * import { NodeServices } from "@effect/platform-node"
 * import { Plan } from "@effect-orchestra/workflow"
 * import { Effect } from "effect"
 * import { Command } from "effect/cli"
 *
 * const plan = Plan.make("deploy", [
 *   Plan.step("cache", {
 *     check: Effect.succeed(Plan.Need.Change({ what: "rebuild the cache" })),
 *     apply: Effect.void
 *   })
 * ])
 * const deploy = Command.runWith(Plan.command(plan), { version: "1.0.0" })
 *
 * // deploy:
 * //   cache  would rebuild the cache
 * // changes are pending (1 to apply)
 * const ended = await deploy(["--check"]).pipe(Effect.flip, Effect.provide(NodeServices.layer), Effect.runPromise)
 * ended._tag === "PlanEnded" ? ended.exitCode : 0 // => 1
 * ```
 *
 * @since 0.1.0
 */
import * as Command from "effect/cli/Command"
import * as Flag from "effect/cli/Flag"
import * as Config from "effect/Config"
import * as Console from "effect/Console"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as FileSystem from "effect/FileSystem"
import * as Formatter from "effect/Formatter"
import type * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Path from "effect/Path"
import * as Predicate from "effect/Predicate"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import * as Stdio from "effect/Stdio"
import * as Stream from "effect/Stream"
import * as PlanFile from "./internal/PlanFile.ts"
import { planErrorOf, runPlan } from "./internal/PlanRun.ts"
import type * as PlanTerminal from "./internal/PlanTerminal.ts"
import type { Plan, Progress } from "./Plan.ts"
import { difference, exitCode, format, type Mode, type Report, summary } from "./PlanReport.ts"
import * as PlanScreen from "./PlanScreen.ts"
import { PlanEnded, PlanError, PlanFileError, PlanFlagsError, PlanRefused } from "./WorkflowError.ts"

const names = (name: string) =>
  Flag.String(name).pipe(
    Flag.withMetavar("a,b"),
    Flag.atLeast(0),
    // An empty value stays an (unknown) name: `--only "$unset"` must not select everything.
    Flag.map((values) => values.flatMap((value) => value.split(",")).map((name) => name.trim()))
  )

const flag = (name: string, description: string) =>
  Flag.Boolean(name).pipe(Flag.withoutNegation, Flag.withDescription(description), Flag.withDefault(false))

const file = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withMetavar("file"), Flag.withDescription(description), Flag.optional)

/**
 * The flags of a plan, for a command of one's own that has further ones and hands these to `handle`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const flags = {
  dryRun: flag("dry-run", "Show what would change, and change nothing"),
  check: flag("check", "Exit with 1 if something is to be changed, and change nothing"),
  force: flag("force", "Apply without a question, destructive changes too").pipe(Flag.withAlias("y")),
  keepGoing: flag("keep-going", "After a failure go on with what does not depend on it"),
  only: names("only").pipe(Flag.withDescription("Run these steps alone")),
  skip: names("skip").pipe(Flag.withDescription("Leave these steps out")),
  json: flag("json", "Write the report as one JSON document, and ask nothing"),
  save: file("save", "Write the preview to a file, and change nothing"),
  plan: file("plan", "Apply what this saved preview shows, without a question, if it is still the case")
}

/**
 * The flags of one step of a plan: all but those that select steps.
 *
 * @category constructors
 * @since 0.1.0
 */
export const stepFlags = (({ only: _only, skip: _skip, ...others }) => others)(flags)

/**
 * What the flags were.
 *
 * @category models
 * @since 0.1.0
 */
export interface Flags {
  readonly dryRun: boolean
  readonly check: boolean
  readonly force: boolean
  readonly keepGoing: boolean
  /** The names of the only steps to run; none of them stands for all. */
  readonly only: ReadonlyArray<string>
  readonly skip: ReadonlyArray<string>
  readonly json: boolean
  /** The file to write the preview to. */
  readonly save: Option.Option<string>
  /** The file of the preview to apply. */
  readonly plan: Option.Option<string>
}

const unset: Flags = {
  dryRun: false,
  check: false,
  force: false,
  keepGoing: false,
  only: [],
  skip: [],
  json: false,
  save: Option.none(),
  plan: Option.none()
}

/**
 * How the command of a plan runs it.
 *
 * @category models
 * @since 0.1.0
 */
export interface CommandOptions<ROut = never, E = never, RIn = never> {
  /** What the applies require, built only in order to apply: a dry run needs no credentials to write. */
  readonly apply?: Layer.Layer<ROut, E, RIn> | undefined
  /**
   * How long what is being applied may take to finish after a signal. Default 4 seconds; after half of the grace of
   * `NodeMain` it is stopped in any case.
   */
  readonly cutGrace?: Duration.Input | undefined
  /** How long a check may take. Default 1 minute. */
  readonly checkTimeout?: Duration.Input | undefined
}

/** What a command needs beside what its plan does: `NodeMain.runCommand` has it. */
type Environment = FileSystem.FileSystem | Path.Path | Stdio.Stdio

/**
 * Runs a plan as its flags say, with all that is to be seen of it, and writes its report. A flag that is not there is not
 * set. Succeeds when the exit code is 0, and fails with `PlanEnded`, which has it, when it is another. After a signal the
 * report is still written; the exit code is then that of the signal. What keeps the plan from being run, a failure of the
 * layer of its applies too, is a line on standard error, and its exit code is that of the error.
 *
 * A question is asked only where standard input and output are terminals, without `force` and `json`; anything but `y`
 * or `yes` is a no. Where nobody can be asked a destructive plan is refused, and any other is applied.
 *
 * @category operations
 * @since 0.1.0
 */
export const handle = <RC, RA, ROut = never, E = never, RIn = never>(
  plan: Plan<RC, RA>,
  flags: Partial<Flags>,
  options: CommandOptions<ROut, E, RIn> = {}
): Effect.Effect<void, PlanEnded, RC | Exclude<RA, ROut> | RIn | Environment> =>
  handleOf(plan, { ...unset, ...flags }, options)

/** Runs the plan, or one step of it. */
const handleOf = <RC, RA, ROut, E, RIn>(
  plan: Plan<RC, RA>,
  flags: Flags,
  options: CommandOptions<ROut, E, RIn>,
  step?: string
): Effect.Effect<void, PlanEnded, RC | Exclude<RA, ROut> | RIn | Environment> =>
  // The report is written also when the program is being stopped.
  Effect.uninterruptibleMask(Effect.fnUntraced(function*(restore) {
    const terminal = yield* Effect.promise(() => import("./internal/PlanTerminal.ts"))
    let signalled: number | undefined = undefined
    const cut = Effect.map(terminal.firstSignal, ({ exitCode, signal }) => {
      signalled = exitCode
      return signal
    })

    /** Writes it to standard output, and ends. */
    const end = Effect.fnUntraced(function*(code: number, output: string | undefined) {
      const lost = output === undefined ? false : yield* isLost(output)
      const exitCode = lost && code === 0 ? 1 : code
      if (exitCode !== 0) return yield* new PlanEnded({ plan: plan.name, exitCode })
    })

    const tell = (report: Report) => {
      const code = signalled ?? exitCode(report)
      // What would have been applied has just been read.
      const text = report.ending === "aborted" ? summary(report) : format(report)
      return end(code, flags.json ? json({ exitCode: code, ...report }) : text)
    }

    const refuse = (error: unknown) => {
      const message = error instanceof Error ? error.message : Formatter.format(error)
      const code = Runtime.getErrorExitCode(error)
      const document = json({ exitCode: code, error: { ...documentOf(error), message } })
      return Effect.andThen(Console.error(message), end(code, flags.json ? document : undefined))
    }

    return yield* restore(running(plan, flags, options, step, terminal, cut)).pipe(
      Effect.matchEffect({ onSuccess: tell, onFailure: refuse })
    )
  }))

/** The fields of an error that was to be expected; of any other its tag at most. */
const documentOf = (error: unknown) =>
  isRefusal(error) ? encodeRefusal(error) : Predicate.hasProperty(error, "_tag") ? { _tag: error._tag } : {}

const Refusal = Schema.Union([PlanError, PlanRefused, PlanFileError, PlanFlagsError])
const isRefusal = Schema.is(Refusal)
const encodeRefusal = Schema.encodeSync(Refusal)

const json = (document: object) => JSON.stringify(document, undefined, 2)

const write = (text: string) => Effect.flatMap(Stdio.Stdio, (stdio) => Stream.run(Stream.make(text), stdio.stdout()))

/** Writes a line to standard output. It is lost if the disk is full, say, but not if its reader has gone away. */
const isLost = (text: string) =>
  write(`${text}\n`).pipe(
    Effect.as(false),
    Effect.catch(({ cause, message }) =>
      Predicate.hasProperty(cause, "code") && cause.code === "EPIPE"
        ? Effect.succeed(false)
        : Effect.as(Console.error(`cannot write the report: ${cause instanceof Error ? cause.message : message}`), true)
    )
  )

const running = <RC, RA, ROut, E, RIn>(
  plan: Plan<RC, RA>,
  flags: Flags,
  options: CommandOptions<ROut, E, RIn>,
  step: string | undefined,
  terminal: typeof PlanTerminal,
  cut: Effect.Effect<string>
) => {
  const run = Effect.scoped(Effect.gen(function*() {
    const contradicting = contradictions(flags, step)
    if (contradicting.length > 0) return yield* new PlanFlagsError({ plan: plan.name, flags: contradicting })
    const selection = { only: step === undefined ? flags.only : [step], skip: flags.skip }
    const saved = Option.isSome(flags.plan) ? yield* savedPlan(plan, flags.plan.value, selection) : undefined
    const { only, skip } = saved ?? selection
    const selected = { only: only.length > 0 ? only : undefined, skip }
    // Now, and not when the layer of the applies has been built.
    const wrong = planErrorOf(plan, selected)
    if (wrong !== undefined) return yield* wrong
    const mode = modeOf(flags)
    const display = yield* displayed(terminal)

    const isStill = (saved: PlanFile.Saved, preview: Report) => {
      const details = difference(saved.preview, preview)
      return details.length === 0
        ? Effect.succeed(true)
        : new PlanRefused({ plan: plan.name, reason: "stale", details })
    }
    const confirm = saved !== undefined
      ? (preview: Report) => isStill(saved, preview)
      : (yield* canAsk(flags))
      ? (preview: Report) => display.hiddenDuring(Effect.raceFirst(ask(preview), Effect.as(cut, false)))
      : undefined

    const applying = runPlan(plan, {
      mode,
      // A saved plan is compared in place of the question, which must therefore come.
      force: flags.force && saved === undefined,
      keepGoing: flags.keepGoing,
      ...selected,
      confirm,
      cut: Effect.tap(cut, (signal) =>
        Effect.sync(() => {
          if (display.isBusy()) display.console.error(stopping(signal))
        })),
      cutGrace: options.cutGrace,
      checkTimeout: options.checkTimeout,
      onProgress: display.onProgress
    })
    const report = yield* Effect.provideService(
      mode === "apply" && options.apply !== undefined ? Effect.provide(applying, options.apply) : applying,
      Console.Console,
      display.console
    )

    // There was no question where nothing is to be changed.
    if (saved !== undefined && report.ending === "nothing") yield* isStill(saved, report)
    if (Option.isSome(flags.save)) yield* save(flags.save.value, { version: 1, only, skip, preview: report })
    return report
  }))
  // Without the layer nothing is applied, and so nothing is required of what it has.
  return run as Effect.Effect<
    Effect.Success<typeof run>,
    Effect.Error<typeof run>,
    RC | Exclude<RA, ROut> | RIn | Environment
  >
}

/** Says to whoever pressed Ctrl-C that it was heard. */
const stopping = (signal: string) =>
  `${signal}: starts nothing more, and waits for what runs; a second one ends it at once`

const modeOf = (flags: Flags): Mode =>
  flags.check ? "check" : flags.dryRun || Option.isSome(flags.save) ? "dry-run" : "apply"

/** The flags that were given and exclude each other. */
const contradictions = (flags: Flags, step: string | undefined): ReadonlyArray<string> => {
  const given = (names: Record<string, boolean>) => Object.keys(names).filter((name) => names[name])
  const selecting = given({ "--only": flags.only.length > 0, "--skip": flags.skip.length > 0 })
  if (step !== undefined && selecting.length > 0) return [`the command of step "${step}"`, ...selecting]
  const modes = given({
    "--check": flags.check,
    // What is saved is a dry run.
    "--dry-run": flags.dryRun && Option.isNone(flags.save),
    "--save": Option.isSome(flags.save),
    "--plan": Option.isSome(flags.plan)
  })
  return modes.length > 1 ? modes : []
}

/** Reads the saved plan. It knows its selection; one that is given beside must be the same. */
const savedPlan = Effect.fnUntraced(function*(
  plan: Plan<unknown, unknown>,
  file: string,
  selection: Pick<PlanFile.Saved, "only" | "skip">
) {
  const saved = yield* PlanFile.read(file)
  const wrong = (reason: string) => new PlanFileError({ file, operation: "read", reason })
  if (saved.preview.plan !== plan.name) return yield* wrong(`it is of plan "${saved.preview.plan}"`)
  for (const which of ["only", "skip"] as const) {
    const [asked, was] = [selection[which].toSorted().join(), saved[which].toSorted().join()]
    if (asked !== "" && asked !== was) return yield* wrong(`it was saved with ${which} "${was}", got: "${asked}"`)
  }
  return saved
})

/** Saves a preview, unless it does not know what there is to do. */
const save = (file: string, saved: PlanFile.Saved) =>
  saved.preview.ending === "nothing" || saved.preview.ending === "previewed"
    ? Effect.andThen(PlanFile.write(file, saved), Console.error(`saved to ${file}`))
    : Console.error(`not saved to ${file}: ${summary(saved.preview)}`)

const canAsk = Effect.fnUntraced(function*(flags: Flags) {
  const stdio = yield* Stdio.Stdio
  return !flags.json && (yield* stdio.stdinIsTerminal) && (yield* stdio.stdoutIsTerminal)
})

/** Line by line, and so without a single escape code: the terminal itself does the editing. */
const ask = Effect.fnUntraced(function*(preview: Report) {
  const stdio = yield* Stdio.Stdio
  const newline = Effect.ignore(write("\n"))
  yield* Effect.ignore(write(`${format(preview)}\n${PlanScreen.question(preview)}`))
  const answer = yield* stdio.stdin.pipe(
    Stream.decodeText(),
    Stream.splitLines,
    Stream.runHead,
    Effect.orElseSucceed(Option.none<string>),
    Effect.onInterrupt(() => newline)
  )
  if (Option.isNone(answer)) yield* newline
  return Option.exists(answer, (line) => /^\s*y(es)?\s*$/i.test(line))
})

interface Display extends PlanTerminal.Region {
  readonly onProgress: (progress: Progress) => void
  /** Whether something is checked or applied now. */
  readonly isBusy: () => boolean
}

/** What is seen of the run on standard error while the scope is open. */
const displayed = Effect.fnUntraced(function*(terminal: typeof PlanTerminal) {
  const { error } = yield* Console.Console
  const isDrawn = yield* canDraw
  let screen = PlanScreen.empty
  const region: PlanTerminal.Region = isDrawn
    ? yield* terminal.region((columns, frame) => PlanScreen.lines(screen, columns, frame))
    : { console: terminal.console, hiddenDuring: (effect) => effect }
  return {
    ...region,
    isBusy: () => screen.running.size > 0,
    onProgress: (progress) => {
      screen = PlanScreen.told(screen, progress)
      const line = isDrawn ? undefined : PlanScreen.line(progress)
      if (line !== undefined) error(line)
    }
  } satisfies Display as Display
})

/** Whether standard error is a terminal that can be drawn on, and nobody asked for plain lines. */
const canDraw = Effect.gen(function*() {
  const { stderrIsTerminal } = yield* Stdio.Stdio
  const [ci, noColor, term] = yield* Effect.orDie(
    Config.all(["CI", "NO_COLOR", "TERM"].map((name) => Config.withDefault(Config.String(name), "")))
  )
  return (yield* stderrIsTerminal) && ci === "" && noColor === "" && term !== "dumb"
})

/**
 * The command of a plan, named like it, with the flags of a plan. It has a command for each step, named like the step,
 * that runs this step alone and takes the flags as well.
 *
 * @category constructors
 * @since 0.1.0
 */
export const command = <RC, RA, ROut = never, E = never, RIn = never>(
  plan: Plan<RC, RA>,
  options: CommandOptions<ROut, E, RIn> = {}
) => {
  // Shared: `deploy --dry-run cache` is a dry run of the step.
  const root = Command.make(plan.name).pipe(Command.withSharedFlags(flags))
  const steps = named(plan).map((step) =>
    Command.make(step.name, {}, () => Effect.flatMap(root, (given) => handleOf(plan, given, options, step.name))).pipe(
      Command.withDescription(describe(step))
    )
  )
  return root.pipe(
    Command.withHandler((given) => handle(plan, given, options)),
    Command.withDescription(plan.description ?? "Shows what would change, asks, and changes it"),
    Command.withSubcommands(steps)
  )
}

/**
 * A command for each step of a plan, named like the step, that runs this step alone: to stand beside `command`.
 *
 * @category constructors
 * @since 0.1.0
 */
export const stepCommands = <RC, RA, ROut = never, E = never, RIn = never>(
  plan: Plan<RC, RA>,
  options: CommandOptions<ROut, E, RIn> = {}
) =>
  named(plan).map((step) =>
    Command.make(step.name, stepFlags, (given) => handleOf(plan, { ...unset, ...given }, options, step.name)).pipe(
      Command.withDescription(describe(step))
    )
  )

/** The steps, one of each name: a plan that has two says so when it is run. */
const named = <RC, RA>({ steps }: Plan<RC, RA>) => [...new Map(steps.map((step) => [step.name, step])).values()]

const describe = ({ description, name }: { readonly description: string | undefined; readonly name: string }) =>
  description ?? `Runs step "${name}" alone`
