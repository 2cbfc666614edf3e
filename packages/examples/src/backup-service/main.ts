/**
 * A backup service of three parts: a database, a watcher of files that writes to it, an API that reads from it.
 * They start in this order and stop in reverse. When one of them fails it comes back, with those that stand on it.
 *
 *     npx -y pnpm@12 start --chaos
 *     curl -X POST -H 'content-type: application/json' http://127.0.0.1:8080/chaos/database
 *
 * From here on read Store (AtomicFile, StoreLock), then the three parts: Database (Sqlite), FileWatcher (BackupRun,
 * Survey, Changes), ApiServer (Api, ApiHandlers, Restore). Chaos kills them.
 */
import { Orchestrator } from "@effect-orchestra/core"
import * as NodeMain from "@effect-orchestra/core/NodeMain"
import { Metering, Otlp, Server, Telemetry } from "@effect-orchestra/observability"
import { Backoff, Child, Supervisor } from "@effect-orchestra/supervisor"
import { type Duration, Effect, Layer, Logger, Option, Stream } from "effect"
import { Command } from "effect/cli"
import { tell } from "../Ended.ts"
import * as ApiServer from "./ApiServer.ts"
import { PortUnavailable } from "./BackupError.ts"
import { Chaos } from "./Chaos.ts"
import { Database } from "./Database.ts"
import { Display } from "./Display.ts"
import { FileWatcher } from "./FileWatcher.ts"
import { options } from "./Options.ts"
import { Restore } from "./Restore.ts"
import { Settings } from "./Settings.ts"
import { Store } from "./Store.ts"

/** What a part lacks when it fails, its port say, may be there again a moment later. One service alone needs no jitter. */
const backoff = Backoff.exponential({ base: "100 millis", max: "5 seconds", jitter: "none" })

const service = Supervisor.make({
  name: "backup",
  strategy: "rest_for_one",
  children: [
    Child.layer("database", Layer.merge(Database.layer, Chaos.mortal("database")), { backoff }),
    Child.layer("watcher", Layer.merge(FileWatcher.layer, Chaos.mortal("watcher")), { backoff }),
    Child.layer("api", Layer.merge(ApiServer.layer, Chaos.mortal("api")).pipe(Layer.provide(Restore.layer)), {
      backoff
    })
  ]
})

/** Runs until the supervisor has ended, or `limit` after all is ready. */
const run = Effect.fnUntraced(function*(limit: Option.Option<Duration.Duration>) {
  const supervisor = yield* Supervisor.start(service)
  const { announce, line } = yield* Display
  const decisions = Stream.filter(Supervisor.events(supervisor), (event) => event._tag === "Decided")
  yield* Effect.forkScoped(
    Stream.runForEach(decisions, ({ child, decision, reason }) => line(`${child} ended (${reason}): ${decision}`)),
    { startImmediately: true }
  )
  const { url } = yield* Server.Server
  const api = yield* ApiServer.ApiAddress.url
  yield* announce(`backup-service, pid ${process.pid}: API ${api}, orchestra ${url}/orchestra`)
  const timeUp = Option.match(limit, { onNone: () => Effect.never, onSome: Effect.sleep })
  yield* Effect.raceFirst(Supervisor.await(supervisor), timeUp)
}, Effect.scoped)

/** What the backup holds in the end. The database is opened once more: its child has been stopped. */
const summarize = Effect.gen(function*() {
  const { line } = yield* Display
  const { bytes, files, lastRun, objects, versions } = yield* Database.use(({ stats }) => stats)
  yield* line(`backup: files ${files}, versions ${versions}, contents ${objects}, bytes ${bytes}`)
  if (lastRun?.partial === true) yield* line("The last run was partial: start again to complete the backup")
}).pipe(Effect.provide(Database.layer))

const command = Command.make("backup-service", options, (given) => {
  const port = given.orchestraPort
  const orchestra = Server.layer({ port, profile: given.profile, token: Option.getOrUndefined(given.token) }).pipe(
    Layer.catchTag(
      "ServeError",
      ({ cause }) =>
        Layer.effect(Server.Server, Effect.fail(new PortUnavailable({ port, flag: "--orchestra-port", cause })))
    )
  )
  const settings = Settings.layer({ ...given, restoreDirectory: Option.getOrUndefined(given.restoreDirectory) })
  const environment = Layer.mergeAll(
    orchestra,
    Display.layer,
    ApiServer.ApiAddress.layer,
    Chaos.layer({ enabled: given.chaos })
  ).pipe(
    // Before the servers: a second instance is to hear of the first one, not of a port.
    Layer.provideMerge(Store.layer),
    Layer.provideMerge(settings),
    Layer.provideMerge(Option.match(given.otlp, {
      onNone: () => Layer.empty,
      onSome: (endpoint) => Otlp.layer({ endpoint })
    })),
    // One for the server and the Collector, so that both tell the same.
    Layer.provideMerge(Telemetry.layerWith({ resource: { "service.name": "backup-service" } })),
    Layer.provideMerge(logger)
  )
  return Effect.andThen(run(given.for), summarize).pipe(Effect.provide(environment), Effect.catch(tell))
}).pipe(Command.withDescription("Backs up a directory, and lets you look at the backup and restore from it"))

/** Standard output is for the display. */
const logger = Logger.layer([Logger.withConsoleError(Logger.formatLogFmt)])

NodeMain.runCommand(command, {
  version: "0.1.0",
  stopWithParent: true,
  // Below all that runs, so that it knows which routine takes the CPU.
  orchestrator: Layer.provide(Orchestrator.layer, Metering.layer)
})
