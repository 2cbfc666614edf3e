/** Reads profiles in the format of pprof, field by field as profile.proto numbers them. */
import { gunzipSync } from "node:zlib"

export interface Frame {
  readonly name: string
  readonly file: string
  readonly line: number
}

export interface Sample {
  /** Innermost first. */
  readonly stack: ReadonlyArray<Frame>
  readonly values: ReadonlyArray<number>
  readonly labels: Readonly<Record<string, string>>
}

type Field = { readonly number: number; readonly value: bigint | Uint8Array }

const fieldsOf = (bytes: Uint8Array): ReadonlyArray<Field> => {
  const fields: Array<Field> = []
  let at = 0
  const varint = () => {
    let value = 0n
    for (let shift = 0n;; shift += 7n) {
      const byte = bytes[at++]
      if (byte === undefined || shift > 63n) throw new Error(`a number that does not end, at ${at}`)
      value |= BigInt(byte & 127) << shift
      if (byte < 128) return value
    }
  }
  while (at < bytes.length) {
    const tag = Number(varint())
    const number = tag >> 3
    if ((tag & 7) === 0) fields.push({ number, value: varint() })
    else if ((tag & 7) === 2) {
      const length = Number(varint())
      if (at + length > bytes.length) throw new Error(`a field that is longer than the message, at ${at}`)
      fields.push({ number, value: bytes.subarray(at, at += length) })
    } else throw new Error(`wire type ${tag & 7} at ${at}`)
  }
  return fields
}

const chunks = (fields: ReadonlyArray<Field>, wanted: number): ReadonlyArray<Uint8Array> =>
  fields.flatMap(({ number, value }) => number === wanted && typeof value !== "bigint" ? [value] : [])

const numbers = (fields: ReadonlyArray<Field>, wanted: number): ReadonlyArray<number> =>
  fields.flatMap(({ number, value }) => {
    if (number !== wanted) return []
    // Packed or not, as writers like.
    return typeof value === "bigint" ? [Number(value)] : varints(value)
  })

const varints = (bytes: Uint8Array): ReadonlyArray<number> => {
  const values: Array<number> = []
  let value = 0n
  let shift = 0n
  for (const byte of bytes) {
    value |= BigInt(byte & 127) << shift
    shift += 7n
    if (byte >= 128) continue
    values.push(Number(value))
    value = shift = 0n
  }
  return values
}

const one = (fields: ReadonlyArray<Field>, wanted: number): number => numbers(fields, wanted)[0] ?? 0

export const decode = (file: Uint8Array) => {
  const profile = fieldsOf(file[0] === 0x1f ? gunzipSync(file) : file)
  const strings = chunks(profile, 6).map((bytes) => new TextDecoder("utf-8", { fatal: true }).decode(bytes))
  const text = (index: number) => strings[index] ?? `no string ${index}`
  const inner = (wanted: number) => chunks(profile, wanted).map(fieldsOf)
  const typeOf = (fields: ReadonlyArray<Field>) => `${text(one(fields, 1))}/${text(one(fields, 2))}`

  const functions = new Map(inner(5).map((fields) => [one(fields, 1), fields]))
  const locations = new Map(
    inner(4).map((fields) => {
      const line = fieldsOf(chunks(fields, 4)[0] ?? new Uint8Array())
      const called = functions.get(one(line, 1)) ?? []
      const frame: Frame = { name: text(one(called, 2)), file: text(one(called, 4)), line: one(line, 2) }
      return [one(fields, 1), frame]
    })
  )
  const samples = inner(2).map((fields): Sample => ({
    stack: numbers(fields, 1).map((id) => locations.get(id) ?? { name: `no location ${id}`, file: "", line: 0 }),
    values: numbers(fields, 2),
    labels: Object.fromEntries(
      chunks(fields, 3).map(fieldsOf).map((label) => [text(one(label, 1)), text(one(label, 2))])
    )
  }))
  return {
    strings,
    functions: functions.size,
    types: inner(1).map(typeOf),
    samples,
    program: inner(3).map((mapping) => text(one(mapping, 5)))[0],
    timeNanos: numbers(profile, 9)[0],
    durationNanos: one(profile, 10),
    period: inner(11).map((type) => `${one(profile, 12)} ${typeOf(type)}`)[0],
    shown: text(one(profile, 14))
  }
}

/** The sum of one value over the samples that are chosen. */
export const total = (
  samples: ReadonlyArray<Sample>,
  value: number,
  chosen: (sample: Sample) => boolean = () => true
) => samples.filter(chosen).reduce((sum, { values }) => sum + (values[value] ?? 0), 0)
