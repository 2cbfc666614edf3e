/** What a request asks for behind the `?`. */
import * as Effect from "effect/Effect"
import * as HttpServerRequest from "effect/http/HttpServerRequest"
import * as Schema from "effect/Schema"
import { BadQuery } from "./AnswerSchema.ts"

/** Hands on what is asked for, or fails with `BadQuery`. */
export const query = <Q, I, A, E, R>(schema: Schema.Codec<Q, I>, handler: (query: Q) => Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const given = yield* HttpServerRequest.ParsedSearchParams
    const decoded = yield* Effect.mapError(
      Schema.decodeUnknownEffect(schema)(given),
      (error) => new BadQuery({ parameter: parameterOf(error.message), detail: error.message })
    )
    return yield* handler(decoded)
  })

/** The parameter that an error of a schema is about: it says where, as `at ["limit"]`. */
const parameterOf = (message: string): string => /at \["([^"]*)"\]/.exec(message)?.[1] ?? "query"

/** The values of a parameter that may be given several times. */
export const valuesOf = (given: string | ReadonlyArray<string>): ReadonlyArray<string> =>
  [given].flat().flatMap((each) => each.split(",")).filter((each) => each !== "")
