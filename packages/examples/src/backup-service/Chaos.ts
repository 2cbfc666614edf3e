/**
 * Kills one part of the service on request, to show what its supervisor makes of it.
 */
import { Orchestrator } from "@effect-orchestra/core"
import { Context, Effect, Layer, Queue, Schema } from "effect"

export const Target = Schema.Literals(["database", "watcher", "api"])
export type Target = typeof Target.Type

export class Chaos extends Context.Service<Chaos, {
  /** Whether anything may be killed at all. */
  readonly enabled: boolean
  /** Orders to die: each is obeyed by whoever takes it. */
  readonly orders: { readonly [T in Target]: Queue.Queue<void> }
}>()("backup-service/Chaos") {
  static readonly layer = ({ enabled }: { readonly enabled: boolean }) =>
    Layer.effect(
      Chaos,
      Effect.map(
        Effect.all({
          database: Queue.sliding<void>(1),
          watcher: Queue.sliding<void>(1),
          api: Queue.sliding<void>(1)
        }),
        (orders) => ({ enabled, orders })
      )
    )

  /** Kills `target`. Returns at once, and does nothing if it is down at this moment. */
  static readonly kill = (target: Target) =>
    Effect.flatMap(Chaos, ({ orders }) => Queue.offer(orders[target], undefined))

  /** Merged with the layer of a child, makes it mortal: a routine of that child dies when the child is to be killed. */
  static readonly mortal = (target: Target) =>
    Layer.effectDiscard(Effect.gen(function*() {
      const { enabled, orders } = yield* Chaos
      if (!enabled) return
      // An order from before this incarnation was meant for another one.
      yield* Queue.clear(orders[target])
      const death = Effect.andThen(Queue.take(orders[target]), Effect.die(new Error(`chaos: ${target}`)))
      yield* Orchestrator.forkScoped(death, { name: "chaos" })
    }))
}
