/**
 * The three services, each a process of its own under a supervisor: one that dies is started again, on another port.
 */
import { Routine } from "@effect-orchestra/core"
import { Backoff, Child, Supervisor } from "@effect-orchestra/supervisor"
import { Console, Context, Effect, Layer, Option, Path, Ref, Stream } from "effect"
import { ChildProcess } from "effect/process"
import { fileURLToPath } from "node:url"
import * as Faults from "./Faults.ts"
import { opening, type ServiceName, serviceNames } from "./Order.ts"
import { ServiceEnded } from "./OrderError.ts"

export interface ServicesOptions {
  /** Where their databases are. */
  readonly directory: string
  readonly seed: string
  /** How many orders the accounts of a new database are meant for. */
  readonly orders: number
  readonly faults: Faults.Faults
}

/** Where the services are found. Nowhere while one of them is down. */
export class Addresses extends Context.Service<
  Addresses,
  {
    readonly [S in ServiceName]: Ref.Ref<string | undefined>
  }
>()("order-saga/Addresses") {
  static readonly layer = Layer.effect(
    Addresses,
    Effect.all({
      stock: Ref.make<string | undefined>(undefined),
      payment: Ref.make<string | undefined>(undefined),
      shipping: Ref.make<string | undefined>(undefined)
    })
  )
}

/** The database of a service. */
export const databaseOf = (directory: string, service: ServiceName) =>
  Effect.map(Path.Path, (path) => path.join(directory, `${service}.db`))

/** Starts a service and stays as long as it lives. */
const served = Effect.fnUntraced(function*(service: ServiceName, { directory, faults, orders, seed }: ServicesOptions) {
  const address = (yield* Addresses)[service]
  const open = Object.entries(opening(orders)[service]).flatMap(([name, amount]) => ["--open", `${name}=${amount}`])
  const database = yield* databaseOf(directory, service)
  const process = yield* ChildProcess.make(
    globalThis.process.execPath,
    [program, service, "--database", database, "--seed", seed, ...open, ...Faults.args(faults)],
    { stdin: "ignore", stderr: "inherit", forceKillAfter: "3 seconds" }
  )
  const ended = (reason: string) => new ServiceEnded({ service, reason })
  const line = yield* process.stdout.pipe(Stream.decodeText(), Stream.splitLines, Stream.runHead)
  const url = /http:\S+$/.exec(Option.getOrElse(line, () => ""))?.[0]
  if (url === undefined) return yield* ended("it did not say where it listens")
  yield* Console.error(Option.getOrElse(line, () => ""))
  yield* Effect.acquireRelease(Ref.set(address, url), () => Ref.set(address, undefined))
  yield* Routine.ready
  const code = yield* Effect.mapError(process.exitCode, ({ message }) => ended(message))
  return yield* ended(`exit code ${code}`)
}, Effect.scoped)

const program = fileURLToPath(new URL("service.ts", import.meta.url))

/** A service may come back at once; one that cannot is tried a few times, and ever later. */
const backoff = Backoff.exponential({ base: "100 millis", max: "2 seconds", jitter: "none" })

export const layer = (options: ServicesOptions) =>
  Layer.provideMerge(
    Supervisor.layer(Supervisor.make({
      name: "services",
      strategy: "one_for_one",
      children: serviceNames.map((name) => Child.make(name, served(name, options), { awaitReady: true, backoff }))
    })),
    Addresses.layer
  )
