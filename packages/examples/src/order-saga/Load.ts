/**
 * Many orders at once, and what became of them. A signal ends the intake; what is under way is undone or completed.
 */
import * as NodeMain from "@effect-orchestra/core/NodeMain"
import { Clock, Console, Effect } from "effect"
import { EndedWith } from "../Ended.ts"
import * as Audit from "./Audit.ts"
import * as Order from "./Order.ts"
import { endings, type Outcome } from "./Outcome.ts"

/** Places an order, and tells what became of it also when it is interrupted. */
export type Place<E, R> = (
  order: Order.Order,
  tell: (outcome: Outcome) => Effect.Effect<void>
) => Effect.Effect<unknown, E, R>

/** How many outcomes lie between two lines of progress. */
const stride = 100

export const load = Effect.fnUntraced(function*<E, R>(place: Place<E, R>, options: {
  readonly mode: string
  readonly orders: number
  readonly concurrency: number
  readonly seed: string
  readonly directory: string
}) {
  const { concurrency, directory, mode, orders, seed } = options
  const outcomes: Array<Outcome> = []
  const tell = (outcome: Outcome) =>
    Effect.suspend(() => {
      outcomes.push(outcome)
      return outcomes.length % stride === 0 ? Console.error(`${outcomes.length} of ${orders}`) : Effect.void
    })
  const work = Effect.forEach(
    Array.from({ length: orders }, (_, at) => at + 1),
    (number) => Effect.flatMap(Order.random(seed, number), (order) => place(order, tell)),
    { concurrency, discard: true }
  )

  const started = yield* Clock.monotonicTimeNanos
  yield* Effect.raceFirst(work, NodeMain.firstSignal)
  const seconds = Number((yield* Clock.monotonicTimeNanos) - started) / 1e9
  const audit = yield* Audit.audit(directory)

  yield* Console.log(
    [
      `${outcomes.length} of ${orders} orders, ${mode}, seed ${seed}, ${seconds.toFixed(1)} s`,
      ...endings.map((ending) =>
        `  ${ending.padEnd(12)}${outcomes.filter((outcome) => outcome.ending === ending).length}`
      ),
      ...reasons(outcomes),
      "",
      Audit.format(audit)
    ].join("\n")
  )
  const stuck = outcomes.filter(({ ending }) => ending === "stuck")
  for (const { order, stuck: steps, why } of stuck) {
    yield* Console.log(`stuck: order ${order}: ${steps.join(", ")} (${why})`)
  }
  if (!Audit.balances(audit, new Set(stuck.map(({ order }) => order)))) return yield* new EndedWith({ exitCode: 1 })
  if (stuck.length > 0) return yield* new EndedWith({ exitCode: 3 })
}, Effect.uninterruptible)

/** Why orders were not completed, the most frequent first. */
const reasons = (outcomes: ReadonlyArray<Outcome>) => {
  const counts = new Map<string, number>()
  for (const { ending, why } of outcomes) {
    if (ending !== "completed") counts.set(why, (counts.get(why) ?? 0) + 1)
  }
  return Array.from(counts).toSorted(([, one], [, other]) => other - one).map(([why, count]) => `    ${count} ${why}`)
}
