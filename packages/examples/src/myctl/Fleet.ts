/**
 * What runs of the fleet. Looks only, changes nothing.
 */
import { Array, Context, Duration, Effect, FileSystem, Layer, Option, Path, Schedule, Schema } from "effect"
import { HttpClient, HttpClientResponse } from "effect/http"
import * as JsonFile from "./JsonFile.ts"
import type * as Manifest from "./Manifest.ts"
import type { DocumentInvalid, NotReadable } from "./MyctlError.ts"
import { Identity, Processes } from "./Processes.ts"

/** A server as it was started, in a file of its own: many are started at once. */
export type Instance = typeof Instance.Type
export const Instance = Schema.Struct({
  ...Identity.fields,
  port: Schema.Port,
  /** What it was built from. */
  hash: Schema.String,
  /** Whether it has ever been ready. */
  ready: Schema.Boolean
})

export interface Running extends Instance {
  readonly uptime: Duration.Duration
}

export class Fleet extends Context.Service<Fleet, {
  /** The process of a server, if it runs and is the one that was started: its pid may be somebody else's by now. */
  readonly find: (server: Manifest.Stoppable) => Effect.Effect<Running | undefined, DocumentInvalid | NotReadable>
  /** Servers that were started, and that the manifest does not have any more. */
  readonly strays: (manifest: Manifest.Manifest) => Effect.Effect<ReadonlyArray<Manifest.Stoppable>>
  /** Asks a running server how it is. `undefined` is well, anything else says what is wrong. */
  readonly illness: (server: Manifest.Server, instance: Instance) => Effect.Effect<string | undefined>
  /** Looks again and again until a server that was just started is ready, and returns its port. */
  readonly awaitReady: (server: Manifest.Server, instance: Instance) => Effect.Effect<number>
  /** The last lines that a server wrote. */
  readonly tail: (server: Manifest.Server) => Effect.Effect<ReadonlyArray<string>>
  /** Where a server's state and its log are. */
  readonly files: (server: Manifest.Stoppable) => { readonly state: string; readonly log: string }
}>()("myctl/Fleet") {
  static readonly layer = (directory: string) =>
    Layer.effect(
      Fleet,
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const path = yield* Path.Path
        const platform = yield* Effect.context<FileSystem.FileSystem | Path.Path>()
        const processes = yield* Processes
        const http = yield* HttpClient.HttpClient

        const files = ({ name }: Manifest.Stoppable) => ({
          state: path.join(directory, "servers", `${name}.json`),
          log: path.join(directory, "logs", `${name}.log`)
        })

        const find = Effect.fnUntraced(function*(server: Manifest.Stoppable) {
          const stored = yield* JsonFile.read(files(server).state, Instance).pipe(Effect.provide(platform))
          if (Option.isNone(stored)) return undefined
          const uptime = yield* processes.uptime(stored.value)
          return uptime === undefined ? undefined : { ...stored.value, uptime }
        })

        const illness = Effect.fnUntraced(function*({ ready }: Manifest.Server, { pid, port }: Instance) {
          if (ready.health === undefined) return undefined
          return yield* http.get(`http://127.0.0.1:${port}${ready.health}`).pipe(
            Effect.flatMap((response) =>
              response.status === 200
                ? HttpClientResponse.schemaBodyJson(Health)(response).pipe(
                  Effect.orElseSucceed((): typeof Health.Type => ({})),
                  // Another process may have taken the port; one that does not tell its pid is believed.
                  Effect.map((health) =>
                    health.pid === undefined || health.pid === pid
                      ? undefined
                      : `port ${port} belongs to process ${health.pid}`
                  )
                )
                : Effect.succeed(`${ready.health} answers ${response.status}`)
            ),
            Effect.timeout("2 seconds"),
            Effect.catchTags({
              HttpClientError: () => Effect.succeed(`${ready.health} does not answer`),
              TimeoutError: () => Effect.succeed(`${ready.health} does not answer within 2 seconds`)
            })
          )
        })

        const output = (server: Manifest.Server) => Effect.orElseSucceed(fs.readFileString(files(server).log), () => "")

        /** The port of a server that is ready. */
        const readyPort = Effect.fnUntraced(function*(server: Manifest.Server, instance: Instance) {
          if (server.ready.line === undefined) {
            return (yield* illness(server, instance)) === undefined ? Option.some(server.port) : Option.none()
          }
          const lines = (yield* output(server)).split("\n").slice(0, -1)
          const pattern = new RegExp(server.ready.line)
          return Option.map(
            Array.findFirst(lines, (line) => Option.fromNullishOr(pattern.exec(line))),
            ([, port]) => Number(port ?? server.port)
          )
        })

        return {
          find,
          illness,
          strays: ({ servers }) =>
            fs.readDirectory(path.join(directory, "servers")).pipe(
              Effect.orElseSucceed((): ReadonlyArray<string> => []),
              Effect.map((files) => {
                const names = files.filter((file) => file.endsWith(".json")).map((file) => path.basename(file, ".json"))
                const strays = names.filter((name) => !servers.some((server) => server.name === name)).toSorted()
                return strays.map((name) => ({ name, stopWithin: Duration.seconds(5) }))
              })
            ),
          files,
          awaitReady: (server, instance) =>
            Effect.flatMap(readyPort(server, instance), Effect.fromOption).pipe(
              // It is not there yet.
              Effect.retry(Schedule.spaced("50 millis")),
              Effect.orDie
            ),
          tail: (server) =>
            Effect.map(output(server), (text) => text.split("\n").filter((line) => line.trim() !== "").slice(-5))
        }
      })
    )
}

const Health = Schema.Struct({ pid: Schema.optionalKey(Schema.Int) })
