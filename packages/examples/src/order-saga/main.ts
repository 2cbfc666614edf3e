/**
 * A shop of three services, stock, payment and shipping, each a process of its own that fails on request. An order is
 * placed as a saga, or as choreography; either way nothing is lost and nothing is sold twice, which an audit of the
 * three databases shows.
 *
 *     npx -y pnpm@12 example order-saga -- saga --fail ship:1
 *     npx -y pnpm@12 example order-saga -- load --orders 1000 --mode choreography
 *
 * From here on read OrderSaga and Choreography, which place one order; Load places many; Shop asks the Services that
 * run service.ts (Api, Ledger, Faults); Audit reads what is in their databases.
 */
import { Bus, type CoreError } from "@effect-orchestra/core"
import * as NodeMain from "@effect-orchestra/core/NodeMain"
import { Console, Effect, FileSystem, Layer, Option, Random } from "effect"
import { Command } from "effect/cli"
import { FetchHttpClient } from "effect/http"
import * as StoreLock from "../backup-service/StoreLock.ts"
import { EndedWith, tell } from "../Ended.ts"
import * as Audit from "./Audit.ts"
import * as Choreography from "./Choreography.ts"
import { load, type Place } from "./Load.ts"
import * as Options from "./Options.ts"
import { LedgerFailed } from "./OrderError.ts"
import * as OrderSaga from "./OrderSaga.ts"
import { exitCode, format } from "./Outcome.ts"
import * as Services from "./Services.ts"
import { narrated, Shop } from "./Shop.ts"

interface Opened {
  readonly directory: string
  readonly seed: string
}

/** Opens the shop: a directory, three services, a client that asks them, and a bus. */
const withShop = Effect.fnUntraced(
  function*<E extends Error, R>(
    given: Options.Shop,
    orders: number,
    use: (opened: Opened) => Effect.Effect<void, E, R>
  ) {
    const fs = yield* FileSystem.FileSystem
    const seed = Option.isSome(given.seed) ? given.seed.value : String(yield* Random.nextIntBetween(1000, 9999))
    const directory = Option.isSome(given.data)
      ? given.data.value
      : yield* fs.makeTempDirectoryScoped({ prefix: "order-saga-" })
    yield* fs.makeDirectory(directory, { recursive: true }).pipe(
      Effect.mapError(({ reason }) => {
        const cause = reason._tag === "AlreadyExists" ? "it is no directory" : reason.message
        return new LedgerFailed({ file: directory, cause })
      })
    )
    // Beside another one its audit would find orders in pieces that are only under way.
    yield* StoreLock.acquire({ file: `${directory}/lock`, store: directory, pid: process.pid })
    const environment = Layer.merge(Shop.layer, Bus.layer).pipe(
      Layer.provideMerge(Services.layer({ directory, seed, orders, faults: given })),
      Layer.provide(FetchHttpClient.layer)
    )
    return yield* Effect.provide(use({ directory, seed }), environment)
  },
  Effect.scoped,
  Effect.catch(tell)
)

/** Places one order. A signal undoes it, where that can be. */
const one = <E, R>(place: Place<E, R>, order: Omit<Parameters<Place<E, R>>[0], "id">, { seed }: Opened) =>
  Effect.gen(function*() {
    let exit = 0
    const placing = place({ ...order, id: seed }, (outcome) => {
      exit = exitCode(outcome)
      return Console.log(format(outcome))
    })
    yield* Effect.raceFirst(placing, NodeMain.firstSignal)
    if (exit !== 0) return yield* new EndedWith({ exitCode: exit })
  })

const saga = Command.make(
  "saga",
  { ...Options.shop, ...Options.order },
  (given) =>
    withShop(
      given,
      100,
      (opened) => one(OrderSaga.make(given), given, opened).pipe(narrated((line) => Console.log(`  ${line}`)))
    )
).pipe(
  Command.withDescription("Place one order as a saga")
)

const choreography = Command.make(
  "choreography",
  { ...Options.shop, ...Options.order },
  (given) =>
    withShop(given, 100, (opened) =>
      Effect.gen(function*() {
        const place = yield* Choreography.make({
          concurrency: 1,
          patience: given.patience,
          onMessage: ({ causationId, id, topic }) =>
            Console.log(`${topic} ${id}${causationId === undefined ? "" : ` because of ${causationId}`}`)
        })
        yield* Console.log(`${Bus.formatGraph(yield* Bus.graph)}\n`)
        yield* one(place, given, opened)
      }).pipe(narrated((line) => Console.log(`  ${line}`)), Effect.scoped))
).pipe(
  Command.withDescription("Place one order as choreography")
)

const loadCommand = Command.make(
  "load",
  { ...Options.shop, ...Options.load },
  (given) =>
    withShop(Options.orUsual(given), given.orders, (opened) =>
      Effect.gen(function*() {
        const place: Place<CoreError.BusClosed, Shop | Bus> = given.mode === "saga"
          ? OrderSaga.make(given) :
          yield* Choreography.make(given)
        yield* load(place, { ...given, ...opened })
      }).pipe(Effect.scoped))
).pipe(
  Command.withDescription("Place many orders at once while the services fail, then audit the databases")
)

const audit = Command.make("audit", { data: Options.data }, ({ data }) =>
  Effect.gen(function*() {
    const audit = yield* Audit.audit(data)
    yield* Console.log(Audit.format(audit))
    if (!Audit.balances(audit)) return yield* new EndedWith({ exitCode: 1 })
  }).pipe(Effect.catch(tell))).pipe(
    Command.withDescription("Read the three databases, and say whether stock and money balance")
  )

const command = Command.make("order-saga").pipe(
  Command.withDescription("Orders that are completed or undone, whatever fails"),
  Command.withSubcommands([saga, choreography, loadCommand, audit])
)

NodeMain.runCommand(command, { version: "0.1.0", stopWithParent: true, grace: "1 minute" })
