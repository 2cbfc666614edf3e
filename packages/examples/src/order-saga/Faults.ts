/**
 * What goes wrong in a service, by chance, and so that the same seed makes the same go wrong.
 */
import { Effect, Option, Random } from "effect"
import { Flag } from "effect/cli"
import { type Operation, operations } from "./Order.ts"

/**
 * `fail`: an error before the effect. `lose`: the effect, and no answer. `slow`: the effect, long after the caller has
 * given up.
 */
export type Fault = "fail" | "lose" | "slow"

/** How likely each fault is, from 0 to 1, for each operation. */
export type Faults = { readonly [F in Fault]: ReadonlyArray<readonly [Operation, number]> }

const kinds = ["fail", "lose", "slow"] as const

const chance = (text: string): Option.Option<readonly [Operation, number]> => {
  const [, name, digits] = /^([a-z]+):(\d+(?:\.\d+)?)$/.exec(text) ?? []
  const operation = operations.find((operation) => operation === name)
  const probability = Number(digits)
  return operation !== undefined && probability <= 1 ? Option.some([operation, probability]) : Option.none()
}

const flag = (fault: Fault, description: string) =>
  Flag.String(fault).pipe(
    Flag.withDescription(`${description}: an operation (${operations.join(", ")}) and how likely it is`),
    Flag.filterMap(chance, (text) => `Expected an operation and a probability such as charge:0.3, got ${text}`),
    Flag.atLeast(0)
  )

export const flags = {
  fail: flag("fail", "Fail before the effect"),
  lose: flag("lose", "Lose the answer after the effect"),
  slow: flag("slow", "Answer after the caller has given up")
}

/** The arguments that give a service its share of the faults. */
export const args = (faults: Faults): ReadonlyArray<string> =>
  kinds.flatMap((fault) => faults[fault].flatMap(([operation, chance]) => [`--${fault}`, `${operation}:${chance}`]))

/** Decides for each request what goes wrong. Each attempt of an order is a new throw of the dice. */
export const make = (faults: Faults, seed: string) => {
  const attempts = new Map<string, number>()
  return (operation: Operation, order: string): Effect.Effect<Fault | undefined> =>
    Effect.suspend(() => {
      const request = `${operation} ${order}`
      const attempt = (attempts.get(request) ?? 0) + 1
      attempts.set(request, attempt)
      return Effect.findFirst(kinds, (fault) => {
        const probability = faults[fault].findLast(([of]) => of === operation)?.[1] ?? 0
        return Effect.map(Random.next, (thrown) => thrown < probability)
      }).pipe(Effect.map(Option.getOrUndefined), Random.withSeed(`${seed} ${request} ${attempt}`))
    })
}
