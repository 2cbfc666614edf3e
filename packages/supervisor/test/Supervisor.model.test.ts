import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { compare, differ, sequenceOf, type Shown } from "./Comparison.ts"
import type { Scope, Sequence } from "./model/Sequence.ts"
import { play } from "./model/Supervisor.ts"
import { perform } from "./Player.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

const scope: Scope = {
  strategies: ["one_for_one", "one_for_all", "rest_for_one", "dependency"],
  ends: ["success", "failure", "failure", "kill", "ignore", "done"],
  timed: true,
  transientGivesUp: true,
  restartStopped: [true, false]
}

type Sequences = ReadonlyArray<Sequence>

const model = (sequences: Sequences) =>
  Effect.sync((): ReadonlyArray<Shown> => sequences.map(({ operations, plans, spec }) => play(spec, plans, operations)))

const library = (sequences: Sequences) => Effect.forEach(sequences, (sequence) => perform(sequence))

const sequence = (seed: number) => sequenceOf(`supervisor ${seed}`, scope)

describe("Supervisor, seeded", () => {
  it.effect(
    "does what the naive model does, however long starts, stops and delays take",
    () => compare({ one: library, other: model }, seeds, sequence),
    300_000
  )

  // A restart that does not wait, a stop that forgets who is in its backoff, a group without those added by hand.
  for (const fault of ["overlap", "ghost", "static"] as const) {
    it(`sees the fault "${fault}" of a supervisor within 500 seeds`, () => {
      const isSeen = (seed: number) => {
        const { operations, plans, spec } = sequence(seed)
        return differ(sequence(seed), play(spec, plans, operations), play(spec, plans, operations, fault))
      }
      assert.isTrue(Array.from({ length: 500 }, (_, seed) => seed).some(isSeen))
    })
  }
})
