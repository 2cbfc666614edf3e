import { Saga } from "@effect-orchestra/workflow"
import { Effect } from "effect"

/** What steps do to the world, and whether each was undone as often as it was done. */
export class World {
  private readonly done = new Map<string, number>()
  private readonly undos = new Map<string, number>()

  /** Done as one thing, and between pauses that nothing can interrupt. */
  readonly take = (name: string, pause: Effect.Effect<unknown> = Effect.void): Effect.Effect<string> =>
    Effect.uninterruptible(Effect.andThen(
      pause,
      Effect.andThen(Effect.sync(() => this.done.set(name, (this.done.get(name) ?? 0) + 1)), Effect.as(pause, name))
    ))

  /** Undoes it if it was done, which only the world knows. */
  readonly give = (name: string, pause: Effect.Effect<unknown> = Effect.void): Effect.Effect<void> =>
    Effect.andThen(
      pause,
      Effect.sync(() => {
        this.undos.set(name, (this.undos.get(name) ?? 0) + 1)
        if (this.done.get(name) === 1) this.done.set(name, 0)
      })
    )

  readonly step = (name: string, pause: Effect.Effect<unknown> = Effect.void, options: object = {}) =>
    Saga.step(name, { run: this.take(name, pause), compensate: () => this.give(name, pause), ...options })

  /** What is done and not undone. */
  get left(): ReadonlyArray<string> {
    return [...this.done].flatMap(([name, count]) => count === 0 ? [] : [count === 1 ? name : `${count} ${name}`])
      .toSorted()
  }

  /** What was undone more than once. */
  get undoneAgain(): ReadonlyArray<string> {
    return [...this.undos].flatMap(([name, count]) => count > 1 ? [name] : [])
  }
}
