/** What the routes of the API answer with: JSON, or why not. */
import * as Effect from "effect/Effect"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import type { BadQuery, NodeNotFound } from "./AnswerSchema.ts"
import { encoded } from "./Encode.ts"
import { problem } from "./Refusal.ts"

export const json = (body: object, status = 200) => HttpServerResponse.jsonUnsafe(body, { status })

/** A handler that refuses as the API does. */
export const refusing = <R>(
  handler: Effect.Effect<HttpServerResponse.HttpServerResponse, BadQuery | NodeNotFound, R>
) =>
  handler.pipe(
    Effect.catchTag("BadQuery", (error) => Effect.succeed(problem(400, error.message))),
    Effect.catchTag("NodeNotFound", (error) => Effect.succeed(problem(404, error.message)))
  )

export const answer = <R>(body: Effect.Effect<object, BadQuery | NodeNotFound, R>) =>
  refusing(
    body.pipe(
      Effect.flatMap(encoded),
      Effect.map((bytes) => HttpServerResponse.uint8Array(bytes, { contentType: "application/json" }))
    )
  )
