/**
 * Documents of JSON from outside: decoded whole, or refused with what is wrong and where.
 */
import { Effect, Predicate, Schema, SchemaIssue } from "effect"

/** Decodes the text of a document. Fails with every problem of it, as in `servers[3].port: expected number, got "x"`. */
export const decode = Effect.fnUntraced(function*<A, I>(
  schema: Schema.Codec<A, I>,
  text: string,
  options: { readonly onExcessProperty?: "ignore" | "error" } = {}
): Effect.fn.Return<A, ReadonlyArray<string>> {
  const document = yield* Effect.try({
    try: (): unknown => JSON.parse(text),
    catch: (cause) => [`expected JSON: ${cause instanceof Error ? cause.message : String(cause)}`]
  })
  return yield* Schema.decodeUnknownEffect(schema)(document, { errors: "all", ...options }).pipe(
    Effect.mapError(({ issue }) =>
      SchemaIssue.makeFormatterStandardSchemaV1()(issue).issues.map(({ message, path = [] }) =>
        describe(document, message, path.map((part) => typeof part === "object" ? part.key : part))
      )
    )
  )
})

const describe = (document: unknown, message: string, path: ReadonlyArray<PropertyKey>): string => {
  const place = path.reduce<string>(
    (place, key) => typeof key === "number" ? `${place}[${key}]` : `${place}${place === "" ? "" : "."}${String(key)}`,
    ""
  )
  const got = path.reduce<unknown>((value, key) => Predicate.hasProperty(value, key) ? value[key] : undefined, document)
  const shown = got === undefined ? "" : `, got ${brief(JSON.stringify(got))}`
  return `${place === "" ? "the document" : place}: ${message[0]?.toLowerCase()}${message.slice(1)}${shown}`
}

const brief = (text: string): string => text.length > 60 ? `${text.slice(0, 59)}…` : text
