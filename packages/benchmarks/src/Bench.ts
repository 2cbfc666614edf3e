/**
 * How a figure is measured: its sides in one run, interleaved, the median of the ratios of all rounds after a warm-up.
 * Absolute numbers mean nothing on a shared machine and are only shown.
 */
import { Effect } from "effect"
import { setFlagsFromString } from "node:v8"
import { runInNewContext } from "node:vm"

/** What one measurement of a source gives, by field. */
export type Sample = Readonly<Record<string, number>>

/** Something that is measured once a round, however many figures read it. */
export interface Source {
  readonly name: string
  readonly sample: Effect.Effect<Sample>
}

/** A field of our side against the same field of a reference, and the budget that their ratio has, if any. */
export interface Figure {
  readonly row: number
  readonly work: string
  readonly unit: Unit
  readonly field: string
  readonly ours: Source
  readonly reference: Source
  readonly budget: number | undefined
}

export type Unit = "ns" | "ms" | "bytes" | "MB" | "kB" | "timers"

/** Figures whose sources are measured together. */
export interface Work {
  readonly row: number
  readonly rounds: number
  readonly warmUp: number
  readonly figures: ReadonlyArray<Figure>
}

export interface Result {
  readonly row: number
  readonly work: string
  readonly reference: string
  readonly unit: Unit
  readonly ours: number
  readonly theirs: number
  readonly ratio: number
  readonly budget: number | null
}

/** How much is measured: with `smoke` each row runs once, to see that it still runs. */
export interface Size {
  readonly smoke: boolean
  readonly rounds: number
  readonly warmUp: number
}

export const size = (smoke: boolean): Size => smoke ? { smoke, rounds: 1, warmUp: 0 } : { smoke, rounds: 9, warmUp: 3 }

/** A source that times an effect of so many operations: nanoseconds an operation, in the field `time`. */
export const timed = (name: string, operations: number, effect: Effect.Effect<unknown>): Source => ({
  name,
  sample: Effect.gen(function*() {
    const start = process.hrtime.bigint()
    yield* effect
    return { time: Number(process.hrtime.bigint() - start) / operations }
  })
})

/** A bound that stands for a reference: a budget of 1 says that we stay below it. */
export const bound = (name: string, sample: Sample): Source => ({ name, sample: Effect.succeed(sample) })

/** Our source against each of the references. */
export const against = (
  what: Pick<Figure, "row" | "work" | "ours"> & Partial<Pick<Figure, "unit" | "field">>,
  references: ReadonlyArray<readonly [reference: Source | undefined, budget?: number | undefined]>
): ReadonlyArray<Figure> =>
  references.flatMap(([reference, budget]) =>
    reference === undefined ? [] : [{ unit: "ns", field: "time", ...what, reference, budget }]
  )

setFlagsFromString("--expose-gc")
const gc: (options: { readonly type: "minor" }) => void = runInNewContext("gc")
/** The young garbage alone: a full collection throws away what V8 has learned about objects that are gone. */
const collect = () => gc({ type: "minor" })

export const median = (values: ReadonlyArray<number>): number =>
  [...values].sort((a, b) => a - b)[values.length >> 1] ?? NaN

const precise = (value: number): number => Number(value.toPrecision(3))

export const measure = ({ figures, rounds, warmUp }: Work): Effect.Effect<ReadonlyArray<Result>> =>
  Effect.gen(function*() {
    const sources = Array.from(new Set(figures.flatMap(({ ours, reference }) => [ours, reference])))
    const samples: Array<ReadonlyMap<Source, Sample>> = []
    for (let round = -warmUp; round < rounds; round++) {
      // Who goes first changes with the round, and nobody pays for the garbage of another.
      const order = round % 2 === 0 ? sources : sources.toReversed()
      const sampled = new Map<Source, Sample>()
      for (const source of order) {
        collect()
        sampled.set(source, yield* source.sample)
      }
      if (round >= 0) samples.push(sampled)
    }
    return figures.map(({ budget, field, ours, reference, row, unit, work }) => {
      const read = (source: Source) => samples.map((sample) => sample.get(source)?.[field] ?? NaN)
      const mine = read(ours)
      const theirs = read(reference)
      return {
        row,
        work,
        reference: reference.name,
        unit,
        ours: precise(median(mine)),
        theirs: precise(median(theirs)),
        ratio: precise(median(mine.map((value, round) => value / (theirs[round] ?? NaN)))),
        budget: budget ?? null
      }
    })
  })
