/**
 * One of the three services, as a process of its own: `service.ts stock --database stock.db --open globe=10`.
 */
import * as NodeMain from "@effect-orchestra/core/NodeMain"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import { Console, Effect, Layer } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { HttpRouter, HttpServer, HttpServerRequest } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { createServer } from "node:http"
import { Api, NotTaken, OutOfOrder } from "./Api.ts"
import * as Faults from "./Faults.ts"
import * as Ledger from "./Ledger.ts"
import { type Operation, serviceNames, services } from "./Order.ts"
import type { LedgerFailed } from "./OrderError.ts"

/** Longer than anybody waits for an answer. */
const long = "3 seconds"

const entries = (ledger: Ledger.Ledger, service: keyof typeof services, fault: ReturnType<typeof Faults.make>) => {
  const { giveBack, take } = services[service]

  /** Does what is asked for, with whatever goes wrong. Not for the caller's sake does it stop halfway. */
  const attempt = <A>(operation: Operation, order: string, effect: Effect.Effect<A, LedgerFailed>) =>
    Effect.gen(function*() {
      const happens = yield* fault(operation, order)
      if (happens === "fail") return yield* new OutOfOrder({ reason: "it failed, as it was told to" })
      if (happens === "slow") yield* Effect.sleep(long)
      const answer = yield* effect
      if (happens === "lose") {
        const request = NodeHttpServerRequest.toIncomingMessage(yield* HttpServerRequest.HttpServerRequest)
        request.socket.destroy()
      }
      return answer
    }).pipe(
      Effect.uninterruptible,
      Effect.catchTag("LedgerFailed", ({ message }) => Effect.fail(new OutOfOrder({ reason: message })))
    )

  return HttpApiBuilder.group(Api, "entries", (handlers) =>
    handlers.handleAll({
      take: Effect.fnUntraced(function*({ params: { order }, payload }) {
        const reason = yield* attempt(take, order, ledger.take(order, payload))
        if (reason !== undefined) return yield* new NotTaken({ reason })
      }),
      giveBack: ({ params: { order } }) =>
        Effect.map(attempt(giveBack, order, ledger.giveBack(order)), (amount) => ({ amount }))
    }))
}

const command = Command.make("service", {
  service: Argument.Literals("service", serviceNames),
  database: Flag.String("database").pipe(Flag.withDescription("The SQLite file")),
  port: Flag.Int("port").pipe(Flag.withDefault(0)),
  seed: Flag.String("seed").pipe(Flag.withDefault("0")),
  open: Flag.KeyValuePair("open").pipe(
    Flag.withDescription("What an account begins with: name=amount"),
    Flag.withDefault({})
  ),
  ...Faults.flags
}, ({ database, open, port, seed, service, ...faults }) =>
  Effect.gen(function*() {
    const accounts = Object.fromEntries(Object.entries(open).map(([name, amount]) => [name, Number(amount)]))
    const ledger = yield* Ledger.open(database, accounts)
    const api = HttpApiBuilder.layer(Api).pipe(Layer.provide(entries(ledger, service, Faults.make(faults, seed))))
    const server = HttpRouter.serve(api, { disableLogger: true, disableListenLog: true }).pipe(
      Layer.provideMerge(
        NodeHttpServer.layer(createServer, { host: "127.0.0.1", port, gracefulShutdownTimeout: "500 millis" })
      )
    )
    return yield* Effect.gen(function*() {
      const { address } = yield* HttpServer.HttpServer
      yield* Console.log(`${service}, pid ${process.pid}: ${HttpServer.formatAddress(address)}`)
      return yield* Effect.never
    }).pipe(Effect.provide(server))
  }).pipe(Effect.scoped))

NodeMain.runCommand(command, { version: "0.1.0", stopWithParent: true, grace: "3 seconds" })
