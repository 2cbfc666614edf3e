/**
 * How a row is measured: both sides in one process, interleaved, the median of the ratios of all rounds after a
 * warm-up. Absolute times mean nothing on a shared machine and are only shown.
 */
import { Effect } from "effect"

/** One figure: our side against a reference, and the budget that their ratio has, if any. */
export interface Row {
  readonly row: number
  readonly name: string
  readonly budget: number | undefined
  /** How many operations one call of a side performs. */
  readonly operations: number
  readonly ours: Effect.Effect<void>
  readonly reference: Effect.Effect<void>
}

export interface Result {
  readonly row: number
  readonly name: string
  readonly oursNanos: number
  readonly referenceNanos: number
  readonly ratio: number
  readonly budget: number | undefined
}

const median = (values: ReadonlyArray<number>): number => [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN

const timed = (side: Effect.Effect<void>, operations: number) =>
  Effect.gen(function*() {
    const start = process.hrtime.bigint()
    yield* side
    return Number(process.hrtime.bigint() - start) / operations
  })

/** Runs a row. With `rounds` of 1 it only shows that the row still runs. */
export const measure = (row: Row, rounds: number): Effect.Effect<Result> =>
  Effect.gen(function*() {
    const warmUp = rounds === 1 ? 0 : 3
    const ours: Array<number> = []
    const reference: Array<number> = []
    for (let round = -warmUp; round < rounds; round++) {
      // Who goes first changes with the round, so that neither side always pays for the other's garbage.
      const first = yield* timed(round % 2 === 0 ? row.ours : row.reference, row.operations)
      const second = yield* timed(round % 2 === 0 ? row.reference : row.ours, row.operations)
      if (round < 0) continue
      ours.push(round % 2 === 0 ? first : second)
      reference.push(round % 2 === 0 ? second : first)
    }
    return {
      row: row.row,
      name: row.name,
      oursNanos: Math.round(median(ours)),
      referenceNanos: Math.round(median(reference)),
      ratio: Number(median(ours.map((value, index) => value / (reference[index] ?? NaN))).toFixed(2)),
      budget: row.budget
    }
  })

export const table = (results: ReadonlyArray<Result>): string => {
  const cells = results.map((result) => [
    String(result.row),
    result.name,
    `${result.oursNanos} ns`,
    `${result.referenceNanos} ns`,
    result.ratio.toFixed(2),
    result.budget === undefined ? "" : `<= ${result.budget}${result.ratio <= result.budget ? "" : "  MISSED"}`
  ])
  const head = ["row", "work", "ours", "reference", "ratio", "budget"]
  const widths = head.map((title, column) => Math.max(title.length, ...cells.map((row) => row[column]?.length ?? 0)))
  const line = (row: ReadonlyArray<string>) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ")
  return [line(head), ...cells.map(line)].join("\n")
}
