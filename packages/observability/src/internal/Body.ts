/** The JSON body of a request. */
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import type * as Schema from "effect/Schema"
import { refusal } from "./Refusal.ts"

/** Hands on what was sent; `expected` says what it should have been. What came is not repeated: it may be a secret. */
export const body = <A, I, E, R>(
  schema: Schema.Codec<A, I>,
  expected: string,
  handler: (body: A) => Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>
): Effect.Effect<HttpServerResponse.HttpServerResponse, E, R | HttpServerRequest.HttpServerRequest> =>
  Effect.matchEffect(HttpServerRequest.schemaBodyJson(schema), {
    onSuccess: handler,
    onFailure: (error) =>
      Effect.succeed(
        error._tag === "HttpServerError" && error.reason._tag === "RequestParseError" &&
          error.reason.reason === "BodyTooLarge"
          ? refusal(413, "body", "The request body is too large")
          : refusal(400, "body", `The request body must be JSON: ${expected}`)
      )
  })
