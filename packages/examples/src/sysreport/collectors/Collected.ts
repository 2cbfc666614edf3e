/**
 * What a collector hands over, and when it has nothing to work with.
 */
import type { Collect } from "@effect-orchestra/workflow"
import { Effect, type FileSystem } from "effect"
import { Answer, Commands } from "../Commands.ts"
import { type File, isThere, type Roots } from "../Roots.ts"

export interface Collected<Data> {
  readonly data: Data
  /** What is there and could not be asked: its fields are left out of the data. */
  readonly errors: ReadonlyArray<string>
}

/** Available where there is such a file. All collectors are of tier 1: they need no more than files and plain programs. */
export const where = (file: File): Effect.Effect<Collect.Availability, never, Roots | FileSystem.FileSystem> =>
  Effect.map(isThere(file), (there) => there ? { tier: 1 } : { tier: 0, reason: `no /${file}` })

/** What a program writes, as far as it does; `errors` hears what kept it from writing all. */
export const ask = Effect.fnUntraced(
  function*(errors: Array<string>, program: string, ...parameters: ReadonlyArray<string>) {
    const { run } = yield* Commands
    return Answer.$match(yield* run(program, ...parameters), {
      Written: ({ problem, text }) => {
        if (problem !== undefined) errors.push(problem)
        return text
      },
      NotThere: () => undefined,
      Failed: ({ problem }) => {
        errors.push(problem)
        return undefined
      }
    })
  }
)
