/** JSON in slices: what is large is written piece by piece, and others run in between. */
import * as Effect from "effect/Effect"
import { Pace } from "./Walk.ts"

/** Whether it may hold more than is written at once. Rows do not; pages, trees and dumps do. */
const isLarge = (value: object): boolean =>
  Array.isArray(value)
    ? value.length > 0 && typeof value[0] === "object"
    : Object.values(value).some((each) => typeof each === "object" && each !== null && isNested(each))

const isNested = (value: object): boolean =>
  Array.isArray(value) ? value.length > 0 && typeof value[0] === "object" : Object.hasOwn(value, "children") ||
    Object.hasOwn(value, "items")

function* pieces(value: unknown): Generator<string> {
  if (typeof value !== "object" || value === null || !isLarge(value)) {
    yield JSON.stringify(value) ?? "null"
  } else if (Array.isArray(value)) {
    yield "["
    for (let at = 0; at < value.length; at++) {
      if (at > 0) yield ","
      yield* pieces(value[at])
    }
    yield "]"
  } else {
    let separator = "{"
    for (const [key, each] of Object.entries(value)) {
      if (each === undefined) continue
      yield `${separator}${JSON.stringify(key)}:`
      yield* pieces(each)
      separator = ","
    }
    yield separator === "{" ? "{}" : "}"
  }
}

/** As bytes: to write them a string would be turned into bytes at once. */
export const encoded = Effect.fnUntraced(function*(value: unknown) {
  const chunks: Array<Uint8Array> = []
  const pace = new Pace()
  let text = ""
  for (const piece of pieces(value)) {
    text += piece
    if (text.length > 32_768) {
      chunks.push(Buffer.from(text))
      text = ""
    }
    if (pace.isOver(16)) yield* pace.rest
  }
  chunks.push(Buffer.from(text))
  return Buffer.concat(chunks)
})
