/**
 * Random sequences of operations on OTP's own supervisor, on the model and on the library: all three show the same.
 *
 * One operation at a time, each until nothing moves any more. What the library does otherwise on purpose is kept out,
 * and has tests of its own:
 *
 * - the window: OTP counts whole seconds. Here every restart counts.
 * - stopped members of a group that is restarted: `restartStopped: true` is OTP's rule.
 * - a supervisor that gave up: its end is normal in OTP, a failure here. No transient supervisor gives up.
 * - failures at the same time: under rest_for_one OTP's count depends on their order. One child ends at a time.
 * - a retry that is cancelled: OTP retries at once, so between two operations there is none to cancel.
 * - a supervisor that is killed: OTP leaves its children to themselves. Only leaves are killed.
 * - what OTP has not: the strategy dependency, backoff, `Supervisor.done`, `Supervisor.ignore` of a child that runs.
 */
import { describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { compare, sequenceOf, type Shown, untimed } from "./Comparison.ts"
import type { Sequence } from "./model/Sequence.ts"
import { play } from "./model/Supervisor.ts"
import * as Peer from "./otp/Peer.ts"
import { perform } from "./Player.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

const skip = Peer.isMissing && process.env["CI"] === undefined
if (skip) console.log("skipped: erl is not installed, so OTP's own supervisor is not asked")

const sequence = (seed: number) =>
  sequenceOf(`otp ${seed}`, {
    strategies: ["one_for_one", "one_for_all", "rest_for_one"],
    ends: ["success", "failure", "kill"],
    timed: false,
    transientGivesUp: false,
    restartStopped: [true]
  })

type Sequences = ReadonlyArray<Sequence>

const otp = (sequences: Sequences) => Effect.sync(() => Peer.perform(sequences))

const model = (sequences: Sequences) =>
  Effect.sync((): ReadonlyArray<Shown> =>
    sequences.map(({ operations, plans, spec }) => untimed(play(spec, plans, operations)))
  )

const library = (sequences: Sequences) =>
  Effect.forEach(sequences, (sequence) => Effect.map(perform(sequence), untimed))

describe.skipIf(skip)("OTP's supervisor, seeded", () => {
  it.effect(
    "does what the model does, after every operation",
    () => compare({ one: otp, other: model }, seeds, sequence),
    120_000
  )

  it.effect(
    "does what the library does, after every operation",
    () => compare({ one: otp, other: library }, seeds, sequence),
    300_000
  )
})
