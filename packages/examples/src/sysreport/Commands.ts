/**
 * Runs the programs that know what the files of the kernel do not say.
 */
import { Context, Data, Duration, Effect, Layer, Stream } from "effect"
import { ChildProcess, ChildProcessSpawner } from "effect/process"

/** How the run of a program ended. */
export type Answer = Data.TaggedEnum<{
  /** It wrote `text`. With a `problem` it then failed, and the text may lack something. */
  Written: { readonly text: string; readonly problem: string | undefined }
  /** There is no such program. */
  NotThere: {}
  Failed: { readonly problem: string }
}>
export const Answer = Data.taggedEnum<Answer>()

/** What a program is allowed. */
export interface Limits {
  /** How long it may run; then it is sent SIGINT, and its group with it. Default 5 seconds. */
  readonly deadline?: Duration.Input | undefined
  /** How long it may go on after that before it is sent SIGKILL. Default 3 seconds. */
  readonly grace?: Duration.Input | undefined
  /** How much it may write. Default 50 MB. */
  readonly maxBytes?: number | undefined
}

export class Commands extends Context.Service<Commands, {
  /** Runs a program to its end, or to the deadline. It does not outlive the effect. */
  readonly run: (program: string, ...parameters: ReadonlyArray<string>) => Effect.Effect<Answer>
  /** The processes that were started until now, from the moment on at which each was. */
  readonly pids: Effect.Effect<ReadonlySet<number>>
}>()("sysreport/Commands") {
  /** The programs of this machine. */
  static readonly layer = (limits: Limits = {}) =>
    Layer.effect(
      Commands,
      Effect.gen(function*() {
        const deadline = Duration.fromInputUnsafe(limits.deadline ?? "5 seconds")
        const maxBytes = limits.maxBytes ?? 50_000_000
        const spawner = yield* ChildProcessSpawner.ChildProcessSpawner
        const pids = new Set<number>()

        const run = Effect.fnUntraced(function*(program: string, ...parameters: ReadonlyArray<string>) {
          const child = yield* spawner.spawn(ChildProcess.make(program, parameters, {
            stdin: "ignore",
            env: { LC_ALL: "C" },
            extendEnv: true,
            killSignal: "SIGINT",
            forceKillAfter: limits.grace ?? "3 seconds"
          }))
          pids.add(child.pid)
          const [text, complaint, exitCode] = yield* Effect.all([
            capped(child.stdout, maxBytes),
            capped(child.stderr, maxBytes),
            child.exitCode
          ], { concurrency: "unbounded" })
          if (exitCode === 0) return Answer.Written({ text, problem: undefined })
          const problem = `${program}: ${complaint.split("\n")[0] || `exit code ${exitCode}`}`
          return text === "" ? Answer.Failed({ problem }) : Answer.Written({ text, problem })
        }, Effect.scoped)

        return Commands.of({
          run: (program, ...parameters) =>
            run(program, ...parameters).pipe(
              Effect.catchTags({
                TooMuch: () =>
                  Effect.succeed(Answer.Failed({ problem: `${program}: wrote more than ${maxBytes} bytes` })),
                PlatformError: ({ message, reason }) =>
                  Effect.succeed(
                    reason._tag === "NotFound"
                      ? Answer.NotThere()
                      : Answer.Failed({ problem: `${program}: ${message}` })
                  )
              }),
              Effect.timeoutOrElse({
                duration: deadline,
                orElse: () =>
                  Effect.succeed(
                    Answer.Failed({ problem: `${program}: did not end within ${Duration.format(deadline)}` })
                  )
              })
            ),
          pids: Effect.sync(() => new Set(pids))
        })
      })
    )

  /** No programs: they would tell of this machine, where the roots tell of another one. */
  static readonly none = Layer.succeed(Commands, {
    run: () => Effect.succeed(Answer.NotThere()),
    pids: Effect.succeed(new Set<number>())
  })
}

class TooMuch extends Data.TaggedError("TooMuch") {}

/** The text of a stream, that fails beyond `maxBytes`. */
const capped = <E>(output: Stream.Stream<Uint8Array, E>, maxBytes: number): Effect.Effect<string, E | TooMuch> =>
  Effect.suspend(() => {
    let bytes = 0
    return output.pipe(
      Stream.tap((chunk) => (bytes += chunk.length) > maxBytes ? Effect.fail(new TooMuch()) : Effect.void),
      Stream.decodeText,
      Stream.mkString
    )
  })
