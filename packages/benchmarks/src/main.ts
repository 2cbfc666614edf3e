/**
 * `pnpm bench` measures and prints; `--write` also updates `results.json`; `--smoke` runs each row once, briefly, to
 * see that it still runs.
 */
import { Orchestrator } from "@effect-orchestra/core"
import * as NodeMain from "@effect-orchestra/core/NodeMain"
import { Console, Effect, FileSystem } from "effect"
import { Command, Flag } from "effect/cli"
import { fileURLToPath } from "node:url"
import { measure, table } from "./Bench.ts"
import * as routine from "./routine.ts"

const bench = Command.make("bench", {
  smoke: Flag.Boolean("smoke").pipe(Flag.withDefault(false)),
  write: Flag.Boolean("write").pipe(Flag.withDefault(false))
}, ({ smoke, write }) =>
  Effect.gen(function*() {
    const rows = yield* routine.rows(smoke ? 100 : 20_000)
    const results = yield* Effect.forEach(rows, (row) => measure(row, smoke ? 1 : 9))
    if (results.length === 0) return yield* Effect.die(new Error("no row was measured"))
    yield* Console.log(smoke ? `${results.length} rows run` : table(results))
    if (write) {
      const file = fileURLToPath(new URL("../results.json", import.meta.url))
      const fs = yield* FileSystem.FileSystem
      yield* fs.writeFileString(file, JSON.stringify({ node: process.version, results }, null, 2) + "\n")
    }
  }).pipe(Effect.scoped))

NodeMain.runCommand(bench, { version: "0.1.0", orchestrator: Orchestrator.layer })
