import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Schedule } from "effect"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"

// These tests run real processes and send them real signals: they need the real clock.

const fixture = fileURLToPath(new URL("fixtures/service.ts", import.meta.url))

/** Runs the fixture, and tells when it is up, and how it ended and what it wrote. */
const start = (...args: ReadonlyArray<string>) => run(process.execPath, [fixture, ...args])

const run = (command: string, args: ReadonlyArray<string>) =>
  Effect.gen(function*() {
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => spawn(command, args, { stdio: ["ignore", "pipe", "pipe"] })),
      (child) => Effect.sync(() => child.kill("SIGKILL"))
    )
    const up = yield* Deferred.make<void>()
    const closed = yield* Deferred.make<{ code: number | null; stdout: string; stderr: string }>()
    let stdout = ""
    let stderr = ""
    child.stdout.on("data", (chunk) => {
      stdout += chunk
      if (stdout.startsWith("up\n")) Deferred.doneUnsafe(up, Effect.void)
    })
    child.stderr.on("data", (chunk) => stderr += chunk)
    // "close" comes when the last process that holds the outputs has ended.
    child.on("close", (code) => Deferred.doneUnsafe(closed, Effect.succeed({ code, stdout, stderr })))
    return {
      up: Deferred.await(up),
      says: (text: string) =>
        Effect.repeat(Effect.sync(() => stdout.includes(text)), {
          until: (said) => said,
          schedule: Schedule.spaced("10 millis")
        }),
      signal: (signal: NodeJS.Signals) => Effect.sync(() => child.kill(signal)),
      end: Deferred.await(closed)
    }
  })

const test = (effect: () => Effect.Effect<void, never, Effect.Services<ReturnType<typeof start>>>) => () =>
  Effect.scoped(effect())

describe("NodeMain (processes)", () => {
  it.live(
    "exits 0 on success, 1 on failure with the error told, with the error's own code if it has one",
    test(() =>
      Effect.gen(function*() {
        assert.strictEqual((yield* Effect.flatMap(start("succeed"), (service) => service.end)).code, 0)
        const failed = yield* Effect.flatMap(start("fail"), (service) => service.end)
        assert.deepStrictEqual([failed.code, failed.stdout], [1, ""])
        assert.include(failed.stderr, "broken")
        assert.strictEqual((yield* Effect.flatMap(start("coded"), (service) => service.end)).code, 42)
      })
    ),
    20_000
  )

  for (const [signal, code] of [["SIGINT", 130], ["SIGTERM", 143], ["SIGHUP", 129]] as const) {
    it.live(
      `${signal} stops gracefully and exits ${code}`,
      test(() =>
        Effect.gen(function*() {
          const service = yield* start(signal === "SIGTERM" ? "layer" : "forever")
          yield* service.up
          yield* service.signal(signal)
          const { code: exited, stderr, stdout } = yield* service.end
          assert.deepStrictEqual([exited, stdout], [code, "up\ndown\n"])
          assert.include(stderr, "0 listeners left")
        })
      ),
      20_000
    )
  }

  it.live(
    "lets whoever waits for the first signal end by itself, and stops nothing before",
    test(() =>
      Effect.gen(function*() {
        const service = yield* start("watching")
        yield* service.up
        yield* service.signal("SIGINT")
        const { code, stderr, stdout } = yield* service.end
        assert.deepStrictEqual([code, stdout, stderr], [130, "up\nreport of SIGINT\nworker stopped\n", ""])
      })
    ),
    20_000
  )

  it.live(
    "stops as any other, within the grace, what waits for the first signal and does not end",
    test(() =>
      Effect.gen(function*() {
        const service = yield* start("watched")
        yield* service.up
        yield* service.signal("SIGTERM")
        const { code, stdout } = yield* service.end
        assert.deepStrictEqual([code, stdout], [143, "up\nheard\ndown\n"])
      })
    ),
    20_000
  )

  it.live(
    "listens to signals until all have heard the first, however fast the program ends",
    test(() =>
      Effect.gen(function*() {
        const service = yield* start("guest")
        yield* service.up
        yield* service.signal("SIGINT")
        assert.strictEqual((yield* service.end).code, 130)
      })
    ),
    20_000
  )

  it.live(
    "ends at once on a second signal while the program ends by itself",
    test(() =>
      Effect.gen(function*() {
        const service = yield* start("watched")
        yield* service.up
        yield* service.signal("SIGTERM")
        yield* service.says("heard")
        yield* service.signal("SIGINT")
        const { code, stdout } = yield* service.end
        assert.deepStrictEqual([code, stdout], [130, "up\nheard\n"])
      })
    ),
    20_000
  )

  it.live(
    "names who is stuck, and exits with the code of the signal all the same",
    test(() =>
      Effect.gen(function*() {
        const service = yield* start("deaf")
        yield* service.up
        yield* service.signal("SIGTERM")
        const { code, stderr, stdout } = yield* service.end
        assert.deepStrictEqual([code, stdout], [143, "up\ndown\n"])
        assert.match(stderr, /stuck: \/orchestra\/deaf, waited \d+ ms/)
      })
    ),
    20_000
  )

  it.live(
    "does not wait for a program that ignores its interruption past the grace",
    test(() =>
      Effect.gen(function*() {
        const service = yield* start("hung")
        yield* service.up
        yield* service.signal("SIGTERM")
        const { code, stderr } = yield* service.end
        assert.strictEqual(code, 143)
        assert.include(stderr, "did not end within 400 ms")
      })
    ),
    20_000
  )

  it.live(
    "35. the first signal stops gracefully, a second ends it at once with its own code",
    test(() =>
      Effect.gen(function*() {
        const service = yield* start("hung")
        yield* service.up
        // The same one within 200 ms is no second one: launchers deliver one Ctrl+C twice.
        yield* service.signal("SIGTERM")
        yield* service.signal("SIGTERM")
        yield* Effect.sleep("50 millis")
        yield* service.signal("SIGINT")
        assert.strictEqual((yield* service.end).code, 130)
      })
    ),
    20_000
  )

  it.live(
    "stopWithParent stops it when the process that started it is gone",
    test(() =>
      Effect.gen(function*() {
        const shell = yield* run("sh", ["-c", `"${process.execPath}" "${fixture}" child; true`])
        yield* shell.up
        yield* shell.signal("SIGKILL")
        assert.strictEqual((yield* shell.end).stdout, "up\ndown\n")
      })
    ),
    20_000
  )

  describe("runCommand", () => {
    it.live(
      "drops one leading --, and provides the orchestrator",
      test(() =>
        Effect.gen(function*() {
          const { code, stdout } = yield* Effect.flatMap(
            start("command", "--", "--times", "3"),
            (command) => command.end
          )
          assert.deepStrictEqual([code, stdout], [0, "orchestra 3\n"])
        })
      ),
      20_000
    )

    it.live(
      "puts usage and errors on stderr for bad usage, with exit code 2",
      test(() =>
        Effect.gen(function*() {
          for (const args of [["--nonsense"], ["--times", "many"]] as const) {
            const { code, stderr, stdout } = yield* Effect.flatMap(start("command", ...args), (command) => command.end)
            assert.deepStrictEqual([code, stdout], [2, ""])
            assert.include(stderr, "USAGE")
            assert.include(stderr, args[args.length - 1] ?? "")
          }
        })
      ),
      20_000
    )

    it.live(
      "--help goes to stdout with exit code 0",
      test(() =>
        Effect.gen(function*() {
          const { code, stderr, stdout } = yield* Effect.flatMap(start("command", "--help"), (command) => command.end)
          assert.deepStrictEqual([code, stderr], [0, ""])
          assert.include(stdout, "USAGE")
        })
      ),
      20_000
    )
  })
})
