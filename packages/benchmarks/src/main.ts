/**
 * `pnpm bench` measures and prints; `--write` also updates `results.json` and `README.md`; `--smoke` runs each row
 * once, briefly, to see that it still runs. `--row 11` takes one row alone.
 */
import { Orchestrator } from "@effect-orchestra/core"
import * as NodeMain from "@effect-orchestra/core/NodeMain"
import { Console, Effect, FileSystem, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { fileURLToPath } from "node:url"
import * as api from "./api.ts"
import * as beat from "./beat.ts"
import { measure, type Result, type Size, size, type Work } from "./Bench.ts"
import * as bundle from "./bundle.ts"
import * as bus from "./bus.ts"
import * as group from "./group.ts"
import * as mailbox from "./mailbox.ts"
import * as metering from "./metering.ts"
import { table, withFigures } from "./Page.ts"
import * as Peer from "./Peer.ts"
import * as population from "./population.ts"
import * as restart from "./restart.ts"
import * as restartGroup from "./restartGroup.ts"
import * as routine from "./routine.ts"
import * as saga from "./saga.ts"
import * as window from "./window.ts"

const at = (path: string) => fileURLToPath(new URL(`../${path}`, import.meta.url))

const works = (size: Size) =>
  Effect.gen(function*() {
    const peers = yield* Peer.peers
    return [
      yield* routine.work(size),
      yield* restart.work(size, peers),
      yield* window.work(size, peers),
      yield* restartGroup.work(size, peers),
      ...population.works(size, peers),
      ...(yield* mailbox.works(size, peers)),
      yield* bus.work(size),
      yield* beat.work(size),
      api.work(size),
      yield* metering.work(size),
      group.work(size, peers),
      bundle.work,
      saga.work(size)
    ]
  })

/** A work without the figures of other rows, and so without the measurements that they alone need. */
const only = (row: number) => (work: Work): Work => ({
  ...work,
  figures: work.figures.filter((figure) => figure.row === row)
})

const results = Effect.fnUntraced(function*(smoke: boolean, row: Option.Option<number>) {
  const all = yield* works(size(smoke))
  const wanted = Option.isSome(row) ? all.map(only(row.value)) : all
  const measured = yield* Effect.forEach(wanted, measure)
  return measured.flat().sort((a, b) => a.row - b.row)
})

/** The ones that were not measured now stay as they are: each is a ratio of one run. */
const merged = (before: ReadonlyArray<Result>, now: ReadonlyArray<Result>) => {
  const rows = new Set(now.map(({ row }) => row))
  return [...before.filter(({ row }) => !rows.has(row)), ...now].sort((a, b) => a.row - b.row)
}

const bench = Command.make("bench", {
  smoke: Flag.Boolean("smoke").pipe(Flag.withDefault(false)),
  write: Flag.Boolean("write").pipe(Flag.withDefault(false)),
  row: Flag.Int("row").pipe(Flag.optional)
}, ({ row, smoke, write }) =>
  Effect.gen(function*() {
    if (smoke && write) return yield* Effect.die(new Error("what --smoke measures is not worth writing"))
    const now = yield* results(smoke, row)
    if (now.length === 0) return yield* Effect.die(new Error("no row was measured"))
    const broken = now.filter(({ ratio }) => !Number.isFinite(ratio))
    if (broken.length > 0) return yield* Effect.die(new Error(`nothing was measured:\n${table(broken)}`))
    yield* Console.log(smoke ? `${now.length} figures of ${new Set(now.map(({ row }) => row)).size} rows` : table(now))

    const fs = yield* FileSystem.FileSystem
    const page = yield* fs.readFileString(at("README.md"))
    const file = yield* fs.readFileString(at("results.json"))
    const before: ReadonlyArray<Result> = JSON.parse(file).results
    if (write) {
      const all = merged(Option.isSome(row) ? before : [], now)
      yield* fs.writeFileString(
        at("results.json"),
        JSON.stringify({ node: process.version, results: all }, null, 2) + "\n"
      )
      yield* fs.writeFileString(at("README.md"), withFigures(page, all))
    } else if (smoke && withFigures(page, before) !== page) {
      return yield* Effect.die(new Error("README.md says something else than results.json: run `pnpm bench --write`"))
    }
  }).pipe(Effect.scoped))

NodeMain.runCommand(bench, { version: "0.1.0", orchestrator: Orchestrator.layer })
