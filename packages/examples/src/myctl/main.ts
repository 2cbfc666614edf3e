/**
 * Keeps a fleet of local servers as its manifest says.
 *
 *     npx -y pnpm@12 example myctl -- orchestrate
 *     npx -y pnpm@12 example myctl -- status
 *     npx -y pnpm@12 example myctl -- stop
 *
 * From here on read Orchestrate, which has the steps; then Manifest, CacheIndex, Fleet, which looks at what runs, and
 * Operator, which starts and stops it.
 */
import * as NodeMain from "@effect-orchestra/core/NodeMain"
import { Plan } from "@effect-orchestra/workflow"
import { Console, Effect, Layer, Option, Schema } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { FetchHttpClient } from "effect/http"
import { fileURLToPath } from "node:url"
import { tell } from "../Ended.ts"
import { CacheIndex } from "./CacheIndex.ts"
import { Fleet } from "./Fleet.ts"
import * as Manifest from "./Manifest.ts"
import { Operator } from "./Operator.ts"
import * as Orchestrate from "./Orchestrate.ts"
import { Processes } from "./Processes.ts"
import * as Status from "./Status.ts"

const myctl = Command.make("myctl").pipe(
  Command.withDescription("Keeps a fleet of local servers as its manifest says"),
  Command.withSharedFlags({
    manifest: Flag.String("manifest").pipe(
      Flag.withDescription("What the fleet is to be; default fleet.json, beside the program"),
      Flag.withDefault(fileURLToPath(new URL("fleet.json", import.meta.url)))
    ),
    state: Flag.String("state").pipe(
      Flag.withDescription("The directory that holds the cache, and what was started; default .orchestra/myctl"),
      Flag.withDefault(".orchestra/myctl")
    )
  })
)

const servers = Argument.String("server").pipe(
  Argument.withDescription("Only these servers; default all of the manifest"),
  Argument.variadic()
)

/** The manifest, and where the state is. */
const given = Effect.gen(function*() {
  const { manifest, state } = yield* myctl
  return { manifest: yield* Manifest.load(manifest), state }
})

/** What looks at the fleet. */
const eyes = (state: string) =>
  Layer.merge(CacheIndex.layer(state), Fleet.layer(state)).pipe(
    Layer.provideMerge(Processes.layer),
    Layer.provide(FetchHttpClient.layer)
  )

/** After a signal there are five seconds in all; what is not ready by then has an eighth of this to be stopped. */
const cutGrace = "4 seconds"

/** Runs the plan that is made of the manifest. The operator, who can change something, is not there in a dry run. */
const run = (
  flags: Plan.Flags,
  plan: (manifest: Manifest.Manifest) => Plan.Plan<CacheIndex | Fleet, CacheIndex | Operator>,
  servers: ReadonlyArray<string> = []
) =>
  Effect.gen(function*() {
    const { manifest, state } = yield* given
    const selected = yield* Manifest.only(manifest, servers)
    yield* Effect.provide(Plan.handle(plan(selected), flags, { apply: Operator.layer(state), cutGrace }), eyes(state))
  }).pipe(Effect.catch(tell))

const orchestrate = Command.make("orchestrate", Plan.flags, (flags) => run(flags, Orchestrate.plan)).pipe(
  Command.withDescription("Rebuilds the cache if it is stale, then starts and restarts what needs it")
)

const { only: _only, skip: _skip, ...flags } = Plan.flags
const all = { only: [], skip: [] }

const rebuild = Command.make(
  "rebuild",
  flags,
  (flags) => run({ ...flags, ...all }, (manifest) => Orchestrate.rebuild(manifest, { force: flags.force }))
).pipe(
  Command.withDescription("Rebuilds the cache if it is stale; with --force in any case")
)

const restart = Command.make(
  "restart",
  { ...flags, servers },
  ({ servers, ...flags }) =>
    run({ ...flags, ...all }, (manifest) => Orchestrate.restart(manifest, { force: servers.length > 0 }), servers)
).pipe(
  Command.withDescription("Starts and restarts what needs it, by what the cache says; servers that are named anyway")
)

const stop = Command.make(
  "stop",
  { ...flags, servers },
  ({ servers, ...flags }) =>
    run({ ...flags, ...all }, (manifest) => Orchestrate.stop(manifest, { strays: servers.length === 0 }), servers)
).pipe(
  Command.withDescription("Stops the fleet, or the servers that are named")
)

// These change nothing, and so are dry runs in any case.
const look = { json: Plan.flags.json, dryRun: Plan.flags.dryRun }

const check = Command.make(
  "check",
  look,
  ({ json }) => run({ ...unset, json, check: true }, (manifest) => Orchestrate.rebuild(manifest))
).pipe(
  Command.withDescription("Exits with 1 if the cache is stale")
)

const select = Command.make(
  "select",
  look,
  ({ json }) => run({ ...unset, json, dryRun: true }, (manifest) => Orchestrate.restart(manifest))
).pipe(
  Command.withDescription("Shows what needs to be started or restarted, by what the cache says")
)

const unset: Plan.Flags = {
  ...all,
  check: false,
  dryRun: false,
  force: false,
  json: false,
  keepGoing: false,
  plan: Option.none(),
  save: Option.none()
}

const status = Command.make(
  "status",
  { ...look, servers },
  Effect.fnUntraced(function*({ json, servers }) {
    const { manifest, state } = yield* given
    const selected = yield* Manifest.only(manifest, servers)
    const rows = yield* Effect.provide(Status.look(selected, { strays: servers.length === 0 }), eyes(state))
    yield* Console.log(json ? yield* Schema.encodeEffect(document)(rows) : Status.format(rows))
  }, Effect.catch(tell))
).pipe(Command.withDescription("Shows what runs, how it is, and whether it is up to date"))

const document = Schema.fromJsonString(Schema.Array(Status.Row))

NodeMain.runCommand(
  myctl.pipe(Command.withSubcommands([orchestrate, check, rebuild, select, restart, status, stop])),
  { version: "0.1.0" }
)
