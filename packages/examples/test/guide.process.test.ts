/**
 * Every command of docs/observability.md, run as it stands there, in that order. Only the ports are others, the folder
 * `.orchestra` is a temporary one, and spans are sent sooner.
 *
 * A fence `sh` is a command that ends, `sh stays` one that runs on; further words are tools that it needs. A fence `text`
 * behind it is what it prints, in lines of which each must be there; `...` stands for anything.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs"
import * as http from "node:http"
import { createServer } from "node:net"
import { homedir, tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../../..", import.meta.url))
const page = readFileSync(join(root, "docs/observability.md"), "utf8")

interface Command {
  readonly line: number
  readonly words: ReadonlyArray<string>
  readonly script: string
  readonly expected: string
}

const commands: ReadonlyArray<Command> = Array.from(
  page.matchAll(/^```sh *(.*)\n([^]*?)\n```\n(?:\n```text\n([^]*?)\n```\n)?/gm),
  ({ 1: words = "", 2: script = "", 3: expected = "", index }) => ({
    line: page.slice(0, index).split("\n").length,
    words: words.split(" ").filter((word) => word !== ""),
    script,
    expected
  })
)

const isThere = (tool: string) => spawnSync("bash", ["-c", `command -v ${tool}`]).status === 0

/** The Collector that `test:collector` has built, if it has. */
const [built] = globSync(
  join(process.env["XDG_CACHE_HOME"] || join(homedir(), ".cache"), "effect-orchestra/otelcol-*")
)
const hasCollector = built !== undefined || isThere("otelcol")
// In CI there is a Prometheus; Go and a Collector may be missing there, too.
const absent = new Set([
  ...["prometheus", "go"].filter((tool) => !isThere(tool) && (tool === "go" || process.env["CI"] === undefined)),
  ...hasCollector ? [] : ["otelcol"]
])
if (absent.size > 0) console.log(`skipped: commands of the guide that need ${Array.from(absent).join(", ")}`)

const freePort = Effect.callback<number>((resume) => {
  const server = createServer().listen(0, "127.0.0.1", () => {
    const address = server.address()
    server.close(() => resume(Effect.succeed(typeof address === "object" && address !== null ? address.port : 0)))
  })
})

interface Ended {
  readonly code: number | null
  readonly output: () => string
}

/** A terminal in which commands are typed. */
const terminal = (env: Record<string, string>, translated: (text: string) => string) => {
  const running = new Map<string, { readonly child: ChildProcess; readonly ended: Promise<unknown> }>()

  const started = (script: string) => {
    let said = ""
    const child = spawn("bash", ["-e", "-o", "pipefail", "-c", translated(script)], {
      cwd: root,
      env: { ...process.env, ...env },
      // A group of its own, which gets what Ctrl+C sends.
      detached: true,
      stdio: ["ignore", "pipe", "pipe"]
    })
    child.stdout.on("data", (data) => said += data)
    child.stderr.on("data", (data) => said += data)
    const ended = new Promise<Ended>((resolve) => child.on("close", (code) => resolve({ code, output })))
    const output = () => said
    return { child, ended, output }
  }

  const missing = (output: string, expected: string) => {
    const lines = output.split("\n")
    return translated(expected).split("\n").filter((line) => {
      const pattern = line.split("...").map((part) => part.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&")).join(".*")
      return expected !== "" && !lines.some((each) => new RegExp(`^${pattern}$`).test(each))
    })
  }

  const kill = (child: ChildProcess, signal: NodeJS.Signals) => {
    try {
      process.kill(-(child.pid ?? NaN), signal)
    } catch { /* It has ended. */ }
  }

  const stop = (name: string) =>
    Effect.promise(async () => {
      const before = running.get(name)
      if (before === undefined) return
      running.delete(name)
      kill(before.child, "SIGINT")
      await before.ended
    })

  return {
    stay: Effect.fnUntraced(function*({ expected, script }: Command) {
      const name = / start /.test(script) ? "start" : script
      yield* stop(name)
      const { child, ended, output } = yield* Effect.acquireRelease(
        Effect.sync(() => started(script)),
        ({ child }) => Effect.sync(() => kill(child, "SIGKILL"))
      )
      running.set(name, { child, ended })
      yield* Effect.sync(() => missing(output(), expected)).pipe(
        Effect.filterOrFail(
          (lines) => lines.length === 0 && child.exitCode === null,
          (lines) => new Error(`${script}\ndid not print\n${lines.join("\n")}\nbut\n${output()}`)
        ),
        Effect.retry({ schedule: Schedule.spaced("50 millis"), times: 600 })
      )
    }),
    run: ({ expected, script }: Command) =>
      Effect.promise(() => started(script).ended).pipe(
        Effect.filterOrFail(
          ({ code, output }) => code === 0 && missing(output(), expected).length === 0,
          ({ code, output }) =>
            new Error(
              `${script}\nended with ${code}, did not print\n${
                missing(output(), expected).join("\n")
              }\nbut\n${output()}`
            )
        ),
        // What prints something is a question, which may be asked too early.
        Effect.retry({ schedule: Schedule.spaced("250 millis"), times: expected === "" ? 0 : 80 })
      )
  }
}

interface Span {
  readonly name: string
  readonly traceId: string
  readonly id: string
  readonly parentId: string
}

/** As the Collector prints them. */
const spansOf = (log: string): ReadonlyArray<Span> =>
  Array.from(
    log.matchAll(/Trace ID +: (\w+)\n +Parent ID +: (\w*)\n +ID +: (\w+)\n +Name +: (.*)/g),
    ([, traceId = "", parentId = "", id = "", name = ""]) => ({ traceId, parentId, id, name })
  )

/** What there is where no Collector is: takes all and understands nothing. Strings stand in protobuf as they are. */
const sink = (port: number) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      let taken = ""
      const server = http.createServer((request, response) => {
        request.setEncoding("latin1").on("data", (chunk) => taken += chunk).on("end", () => response.end())
      })
      await new Promise<void>((resolve) => server.listen(port, "127.0.0.1", resolve))
      return { server, taken: () => taken }
    }),
    ({ server }) => Effect.sync(() => server.close().closeAllConnections())
  )

const chain = ["back up file", "backup run", "POST"]

describe("the guide to observability", () => {
  it("has commands, and says of each what it needs", () => {
    assert.isAbove(commands.length, 15)
    for (const { line, script, words } of commands) {
      for (const tool of ["otelcol", "prometheus", "promtool", "go"]) {
        const uses = new RegExp(`^${tool} `, "m").test(script)
        const needed = tool === "promtool" ? "prometheus" : tool
        assert.isTrue(!uses || words.includes(needed), `line ${line} needs ${needed}`)
      }
    }
  })

  // Other programs, with their own clocks, do the work.
  it.live("takes a newcomer to a panel, a trace and a profile", () =>
    Effect.gen(function*() {
      const folder = yield* Effect.acquireRelease(
        Effect.sync(() => mkdtempSync(join(tmpdir(), "orchestra-guide-"))),
        (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
      )
      mkdirSync(join(folder, "bin"))
      if (built !== undefined) symlinkSync(built, join(folder, "bin/otelcol"))
      const ports = new Map<string, string>()
      for (const port of ["8080", "9090", "9091", "4318"]) ports.set(port, String(yield* freePort))
      const port = (standard: string) => ports.get(standard) ?? standard
      const { run, stay } = terminal(
        {
          PATH: `${join(folder, "bin")}:${process.env["PATH"]}`,
          BACKUP_PORT: port("8080"),
          BACKUP_ORCHESTRA_PORT: port("9090"),
          OTEL_BSP_SCHEDULE_DELAY: "100"
        },
        (text) => text.replaceAll(".orchestra/", `${folder}/`).replace(/(?<=127\.0\.0\.1:)\d+/g, port)
      )
      const instead = hasCollector ? undefined : yield* sink(Number(port("4318")))

      for (const command of commands) {
        if (command.words.some((word) => absent.has(word))) continue
        yield* command.words.includes("stays") ? stay(command) : run(command)
      }

      const collected = () => instead?.taken() ?? readFileSync(join(folder, "collector.log"), "utf8")
      const log = yield* Effect.sync(collected).pipe(
        Effect.filterOrFail((log) => chain.every((name) => log.includes(name)), () => new Error("there is no trace")),
        Effect.retry({ schedule: Schedule.spaced("100 millis"), times: 100 })
      )
      if (instead !== undefined) return
      const spans = spansOf(log)
      const above = (span: Span | undefined) => spans.find(({ id }) => id === span?.parentId)
      const copy = spans.find(({ name }) => name === "back up file")
      const trace = [copy, above(copy), above(above(copy))]
      assert.deepStrictEqual(trace.map((span) => span?.name), chain)
      assert.strictEqual(new Set(trace.map((span) => span?.traceId)).size, 1)
    }).pipe(Effect.scoped), 180_000)
})
