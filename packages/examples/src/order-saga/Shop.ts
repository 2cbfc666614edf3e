/**
 * What the shop asks of the services. An order is the key of all that is asked for it, so anything may be asked again.
 */
import { Context, type Duration, Effect, Layer, Ref, Schedule } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import { Api } from "./Api.ts"
import { type Operation, type Order, type ServiceName, services, total, van } from "./Order.ts"
import { Refused, Unavailable } from "./OrderError.ts"
import { Addresses } from "./Services.ts"

type Take = (order: Order) => Effect.Effect<void, Refused | Unavailable>
/** Answers how much was given back: nothing if nothing had been taken. */
type GiveBack = (order: Order) => Effect.Effect<number, Unavailable>

export class Shop extends Context.Service<Shop, {
  readonly reserve: Take
  readonly charge: Take
  readonly ship: Take
  readonly release: GiveBack
  readonly refund: GiveBack
  readonly recall: GiveBack
}>()("order-saga/Shop") {
  /** Over HTTP. */
  static readonly layer = Layer.effect(
    Shop,
    Effect.gen(function*() {
      const stock = yield* client("stock", ({ item, quantity }) => ({ account: item, amount: quantity }))
      const payment = yield* client("payment", (order) => ({ account: order.customer, amount: total(order) }))
      const shipping = yield* client("shipping", ({ quantity }) => ({ account: van, amount: quantity }))
      return {
        reserve: stock.take,
        charge: payment.take,
        ship: shipping.take,
        release: stock.giveBack,
        refund: payment.giveBack,
        recall: shipping.giveBack
      }
    })
  )
}

const client = Effect.fnUntraced(
  function*(service: ServiceName, entry: (order: Order) => { readonly account: string; readonly amount: number }) {
    const { giveBack, take } = services[service]
    const address = (yield* Addresses)[service]
    const api = yield* HttpApiClient.make(Api, {
      transformClient: HttpClient.mapRequestEffect((request) =>
        Effect.map(Ref.get(address), (url) => HttpClientRequest.prependUrl(request, url ?? nowhere))
      )
    })
    const unavailable = (operation: Operation) => (error: Error) =>
      new Unavailable({ operation, reason: reasonOf(error) })
    return {
      take: ((order) =>
        api.take({ params: { order: order.id }, payload: entry(order) }).pipe(
          Effect.mapError((error) =>
            error._tag === "NotTaken"
              ? new Refused({ operation: take, reason: error.reason })
              : unavailable(take)(error)
          )
        )) satisfies Take,
      giveBack: ((order) =>
        api.giveBack({ params: { order: order.id } }).pipe(
          Effect.mapBoth({ onFailure: unavailable(giveBack), onSuccess: ({ amount }) => amount })
        )) satisfies GiveBack
    }
  }
)

/** The port of a service that is down: nobody listens there. */
const nowhere = "http://127.0.0.1:1"

const reasonOf = (error: Error): string =>
  "reason" in error && typeof error.reason === "string" ? error.reason : "no answer"

/** How long anybody waits for an answer. */
export const answersWithin = "2 seconds"

/** A request is sent again twice, but not when the answer was no. */
export const attempts = Schedule.exponential("50 millis").pipe(
  Schedule.upTo({ times: 2 }),
  Schedule.while(({ input }) => !(input instanceof Refused))
)

/** What was taken has to be given back: that is tried for long enough that a service that died is there again. */
export const undoAttempts = (patience: Duration.Input) =>
  Schedule.min([Schedule.exponential("100 millis"), Schedule.spaced("1 second")]).pipe(
    Schedule.upTo({ duration: patience })
  )

/** The same shop, but every answer is told. */
export const narrated = (tell: (line: string) => Effect.Effect<void>) =>
  Effect.updateService(Shop, (shop) => {
    const take = (operation: Operation, request: Take): Take => (order) =>
      Effect.tap(request(order), tell(`${operation}: done`)).pipe(
        Effect.tapError(({ message }) => tell(message)),
        Effect.onInterrupt(() => tell(`${operation}: nobody waits any longer`))
      )
    const giveBack = (operation: Operation, request: GiveBack): GiveBack => (order) =>
      request(order).pipe(
        Effect.tap((amount) => tell(`${operation}: ${amount === 0 ? "there was nothing" : `${amount} given back`}`)),
        Effect.tapError(({ message }) => tell(message))
      )
    return {
      reserve: take("reserve", shop.reserve),
      charge: take("charge", shop.charge),
      ship: take("ship", shop.ship),
      release: giveBack("release", shop.release),
      refund: giveBack("refund", shop.refund),
      recall: giveBack("recall", shop.recall)
    }
  })
