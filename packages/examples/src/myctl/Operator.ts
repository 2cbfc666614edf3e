/**
 * Starts and stops servers. One at a time works on a state directory.
 */
import { Context, Duration, Effect, FileSystem, Layer, Path } from "effect"
import * as StoreLock from "../backup-service/StoreLock.ts"
import * as CacheIndex from "./CacheIndex.ts"
import { Fleet, Instance } from "./Fleet.ts"
import * as JsonFile from "./JsonFile.ts"
import type { Manifest, Server, Stoppable } from "./Manifest.ts"
import {
  type DocumentInvalid,
  type NotReadable,
  NotReady,
  NotStarted,
  NotStopped,
  NotWritten,
  StateInUse
} from "./MyctlError.ts"
import { type Identity, Processes } from "./Processes.ts"

export class Operator extends Context.Service<Operator, {
  /**
   * Stops a server gracefully if it runs, starts it, and waits until it is ready. One that does not become ready, or is
   * given up by an interruption, does not go on running.
   */
  readonly restart: (manifest: Manifest, server: Server, hash: string) => Effect.Effect<
    void,
    DocumentInvalid | NotReadable | NotWritten | NotStopped | NotStarted | NotReady
  >
  /** Makes the cache anew. */
  readonly rebuild: (manifest: Manifest) => Effect.Effect<void, NotReadable | NotWritten>
  /** Stops a server, with force when its time is up. */
  readonly stop: (server: Stoppable) => Effect.Effect<void, DocumentInvalid | NotReadable | NotStopped>
}>()("myctl/Operator") {
  static readonly layer = (directory: string) =>
    Layer.effect(
      Operator,
      Effect.gen(function*() {
        const fs = yield* FileSystem.FileSystem
        const { join } = yield* Path.Path
        const cache = yield* CacheIndex.CacheIndex
        const fleet = yield* Fleet
        const processes = yield* Processes
        const platform = yield* Effect.context<FileSystem.FileSystem | Path.Path>()

        for (const name of ["servers", "logs"]) {
          yield* fs.makeDirectory(join(directory, name), { recursive: true }).pipe(
            Effect.mapError((error) => new NotWritten({ path: directory, reason: JsonFile.reasonOf(error) }))
          )
        }
        yield* StoreLock.acquire({ file: join(directory, "lock"), store: directory, pid: process.pid }).pipe(
          Effect.catchTags({
            StoreLocked: ({ pid }) => Effect.fail(new StateInUse({ directory, pid })),
            NotWritten: ({ message }) => Effect.fail(new NotWritten({ path: directory, reason: message }))
          })
        )

        const save = (server: Server, instance: Instance) =>
          Effect.provide(JsonFile.write(fleet.files(server).state, Instance, instance), platform)

        const end = (server: Stoppable, instance: Instance, within: Duration.Duration) =>
          processes.stop(instance, within).pipe(
            Effect.andThen(Effect.ignore(fs.remove(fleet.files(server).state, { force: true }))),
            Effect.mapError((reason) => new NotStopped({ server: server.name, pid: instance.pid, reason }))
          )

        /** It has not served anybody yet, and after a signal there is little time. */
        const giveUp = (server: Server, instance: Instance) =>
          Effect.ignore(end(server, instance, Duration.min(server.stopWithin, Duration.millis(200))))

        const stop = Effect.fnUntraced(function*(server: Stoppable) {
          const running = yield* fleet.find(server)
          if (running !== undefined) yield* end(server, running, server.stopWithin)
        })

        /** Not interruptible: a process that no file knows would never be stopped. */
        const start = Effect.fnUntraced(function*(manifest: Manifest, server: Server, hash: string) {
          const { log, state } = fleet.files(server)
          yield* Effect.ignore(fs.rename(log, `${log}.old`))
          const instanceOf = ({ pid, started }: Identity): Instance => ({
            pid,
            started,
            port: server.port,
            hash,
            ready: false
          })
          const { ended, ...identity } = yield* processes.start({
            command: server.command,
            directory: manifest.directory,
            env: { NAME: server.name, PORT: String(server.port) },
            log,
            remember: (identity) => JsonFile.writeNow(state, Instance, instanceOf(identity))
          }).pipe(
            Effect.mapError((reason) =>
              new NotStarted({ server: server.name, command: server.command.join(" "), reason })
            )
          )
          return { instance: instanceOf(identity), ended }
        }, Effect.uninterruptible)

        const awaitReady = Effect.fnUntraced(
          function*(server: Server, instance: Instance, ended: Effect.Effect<string>) {
            const notReady = Effect.fnUntraced(function*(reason: string) {
              const tail = yield* fleet.tail(server)
              return yield* new NotReady({ server: server.name, reason, tail, log: fleet.files(server).log })
            })
            const port = yield* fleet.awaitReady(server, instance).pipe(
              Effect.raceFirst(Effect.flatMap(ended, notReady)),
              Effect.timeoutOrElse({
                duration: server.readyWithin,
                orElse: () => notReady(`it was not within ${Duration.format(server.readyWithin)}`)
              })
            )
            yield* save(server, { ...instance, port, ready: true })
          }
        )

        return {
          stop,
          rebuild: (manifest) =>
            Effect.flatMap(cache.fresh(manifest), (index) => JsonFile.write(cache.file, CacheIndex.Index, index)).pipe(
              Effect.provide(platform)
            ),
          restart: (manifest, server, hash) =>
            Effect.uninterruptibleMask((restore) =>
              Effect.gen(function*() {
                yield* restore(stop(server))
                const { ended, instance } = yield* start(manifest, server, hash)
                yield* restore(awaitReady(server, instance, ended)).pipe(
                  Effect.onError(() => giveUp(server, instance))
                )
              })
            )
        }
      })
    )
}
