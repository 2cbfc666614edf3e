/**
 * The HTTP interface of each of the three services: both requests may be sent again and again.
 */
import { Schema } from "effect"
import { HttpApi, HttpApiEndpoint, HttpApiError, HttpApiGroup, HttpApiSchema } from "effect/http-api"
import { Entry } from "./Ledger.ts"

/** It will not do this, now or later. */
export class NotTaken extends HttpApiError.Problem<NotTaken>()("NotTaken", {
  type: "urn:order-saga:not-taken",
  status: 409,
  title: "The service refuses"
}, { reason: Schema.String }) {}

/** It cannot do this now. */
export class OutOfOrder extends HttpApiError.Problem<OutOfOrder>()("OutOfOrder", {
  type: "urn:order-saga:out-of-order",
  status: 503,
  title: "The service is out of order"
}, { reason: Schema.String }) {}

const params = { order: Schema.NonEmptyString }

export class Entries extends HttpApiGroup.make("entries", { topLevel: true }).add(
  HttpApiEndpoint.put("take", "/orders/:order", {
    params,
    payload: Entry,
    success: HttpApiSchema.NoContent,
    error: [NotTaken, OutOfOrder]
  }),
  HttpApiEndpoint.delete("giveBack", "/orders/:order", {
    params,
    success: Schema.Struct({ amount: Schema.Int }),
    error: OutOfOrder
  })
) {}

export class Api extends HttpApi.make("order-saga").add(Entries) {}
