/** Dynamic supervisors of actors, of effects and of layers, and what their tests read of them. */
import { Orchestrator } from "@effect-orchestra/core"
import { DynamicSupervisor } from "@effect-orchestra/supervisor"
import { assert } from "@effect/vitest"
import { Effect, Layer, type Scope } from "effect"
import type { Actor } from "./Stage.ts"

export type Ref = DynamicSupervisor.DynamicRef<never, unknown, unknown>

/** A dynamic supervisor of actors. */
export const troupe = (options: DynamicSupervisor.DynamicOptions = {}) =>
  DynamicSupervisor.start(
    DynamicSupervisor.make({ name: "workers", child: (actor: Actor) => actor.effect, ...options })
  )

/** A dynamic supervisor of whatever is to be run. */
export const anything = (options: DynamicSupervisor.DynamicOptions = {}) =>
  DynamicSupervisor.start(
    DynamicSupervisor.make({ name: "workers", child: (effect: Effect.Effect<unknown, unknown>) => effect, ...options })
  )

/** A dynamic supervisor of layers. */
export const layers = (options: DynamicSupervisor.DynamicOptions = {}) =>
  DynamicSupervisor.start(
    DynamicSupervisor.make({
      name: "workers",
      child: (build: Effect.Effect<unknown, unknown, Orchestrator | Scope.Scope>) => Layer.effectDiscard(build),
      ...options
    })
  )

/** The children as `"<state> <incarnation>"`. */
export const states = (ref: Ref) =>
  Effect.map(
    Effect.orDie(DynamicSupervisor.whichChildren(ref)),
    (children) => children.map(({ incarnation, state }) => `${state} ${incarnation}`)
  )

export const counts = (ref: Ref) =>
  Effect.map(
    Effect.orDie(DynamicSupervisor.countChildren(ref)),
    ({ active, specs, supervisors, workers }) => [specs, active, supervisors, workers]
  )

/** How many restarts count in the budget. */
export const used = ({ id }: Ref) =>
  Effect.map(Orchestrator.snapshot, (nodes) => {
    const node = nodes.find((node) => node.id === id)
    return node?.kind === "supervisor" ? node.budget.used : assert.fail("no such supervisor")
  })

/** A dynamic supervisor of actors that are layers. */
export const layered = (options: DynamicSupervisor.DynamicOptions = {}) =>
  DynamicSupervisor.start(DynamicSupervisor.make({
    name: "workers",
    child: (actor: Actor) => {
      const { body } = actor.layer()
      // What it requires is known.
      return body._tag === "Layer" ? body.layer as Layer.Layer<never, unknown, Orchestrator> : assert.fail()
    },
    ...options
  }))
