/** What two players of one sequence show, side by side: where they differ, and the smallest sequence where they do. */
import { SeededRandom } from "@effect-orchestra/core/testing"
import { Effect } from "effect"
import * as Sequence from "./model/Sequence.ts"
import type { Seen } from "./model/Supervisor.ts"

export type Shown = ReadonlyArray<Seen>

export const sequenceOf = (seed: string, scope: Sequence.Scope): Sequence.Sequence => {
  const random = new SeededRandom(seed)
  return Sequence.make(() => random.nextDoubleUnsafe(), scope)
}

/**
 * Where there is no order, none is compared: where children depend on some others only, after several ends at once, and
 * between the end of a child that is stopped by hand and the start of the one that waited for it.
 */
const ordered = (sequence: Sequence.Sequence, step: number): boolean => {
  const operation = sequence.operations[step - 1]
  if (Sequence.has(sequence, "dependency")) return false
  return operation?.op !== "terminateChild" && !(operation?.op === "exit" && operation.ends.length > 1)
}

const sorted = (log: ReadonlyArray<string>): ReadonlyArray<string> => {
  const key = (line: string) => {
    const [time = "", , path = ""] = line.split(" ")
    return `${time.padStart(20)} ${path}`
  }
  return log.toSorted((a, b) => key(a) < key(b) ? -1 : key(a) > key(b) ? 1 : 0)
}

/** The log without its times. */
export const untimed = (shown: Shown): Shown =>
  shown.map((seen) => ({ ...seen, log: seen.log.map((line) => line.replace(/^\d+ /, "")) }))

const lines = (sequence: Sequence.Sequence, shown: Shown): ReadonlyArray<string> =>
  shown.map((seen, step) => JSON.stringify(ordered(sequence, step) ? seen : { ...seen, log: sorted(seen.log) }))

export const differ = (sequence: Sequence.Sequence, one: Shown, other: Shown): boolean => {
  const others = lines(sequence, other)
  return one.length !== other.length || lines(sequence, one).some((line, step) => line !== others[step])
}

/** Two ways to play sequences. */
export interface Players<E, R> {
  readonly one: (sequences: ReadonlyArray<Sequence.Sequence>) => Effect.Effect<ReadonlyArray<Shown>, E, R>
  readonly other: (sequences: ReadonlyArray<Sequence.Sequence>) => Effect.Effect<ReadonlyArray<Shown>, E, R>
}

/**
 * Compares them on the sequences of so many seeds. Dies with the first seed whose sequence they play differently, and with
 * the smallest part of that sequence, as code.
 */
export const compare = Effect.fnUntraced(function*<E, R>(
  { one, other }: Players<E, R>,
  seeds: number,
  sequence: (seed: number) => Sequence.Sequence
) {
  const difference = Effect.fnUntraced(function*(sequences: ReadonlyArray<Sequence.Sequence>) {
    const [ones, others] = [yield* one(sequences), yield* other(sequences)]
    return sequences.findIndex((sequence, at) => differ(sequence, ones[at] ?? [], others[at] ?? []))
  })
  for (let from = 0; from < seeds; from += batch) {
    const sequences = Array.from({ length: Math.min(batch, seeds - from) }, (_, i) => sequence(from + i))
    const found = yield* difference(sequences)
    let smallest = sequences[found]
    if (smallest === undefined) continue
    for (let next: Sequence.Sequence | undefined = smallest; next !== undefined;) {
      smallest = next
      const candidates = Sequence.smaller(smallest)
      next = candidates[yield* difference(candidates)]
    }
    const [[ones = []], [others = []]] = [yield* one([smallest]), yield* other([smallest])]
    return yield* Effect.die(new Error(`seed ${from + found}: ${report(smallest, ones, others)}`))
  }
})

const batch = 1000

/** The sequence, and step by step what the one shows (<), what the other shows (>), or both (=). */
export const report = (sequence: Sequence.Sequence, one: Shown, other: Shown): string => {
  const ones = lines(sequence, one)
  const others = lines(sequence, other)
  const steps = Array.from({ length: Math.max(ones.length, others.length) }, (_, step) =>
    ones[step] === others[step]
      ? [`= ${ones[step]}`]
      : [`< ${ones[step] ?? "nothing"}`, `> ${others[step] ?? "nothing"}`])
  return [Sequence.print(sequence), ...steps.flat()].join("\n")
}
