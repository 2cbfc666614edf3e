/** A supervisor over the actors of a stage, and what its tests read of it. */
import { Orchestrator } from "@effect-orchestra/core"
import type { Snapshot } from "@effect-orchestra/core"
import { Child, type Restart, Supervisor } from "@effect-orchestra/supervisor"
import { assert } from "@effect/vitest"
import { Effect, type Fiber } from "effect"
import { settle } from "./Stage.ts"

/** A child of a play: it requires nothing but the tree. */
export type Part = Child.Child<string, never, never, unknown, Orchestrator, string>

/** What a play is given beside its children; ten restarts are allowed unless it says otherwise. */
export type Direction = Supervisor.SupervisorOptions & {
  readonly name?: string
  readonly strategy?: Restart.Strategy
}

/** The specification of a supervisor called `app`. */
export const piece = (
  children: ReadonlyArray<Part>,
  { name = "app", strategy = "one_for_one", ...options }: Direction = {}
) => Supervisor.make({ intensity: 10, ...options, name, strategy, children })

/** Starts a supervisor called `app`. */
export const play = (children: ReadonlyArray<Part>, direction?: Direction) =>
  Supervisor.start(piece(children, direction))

/** A supervisor as a child of another. */
export const scenes = (
  name: string,
  children: ReadonlyArray<Part>,
  { child, ...direction }: Direction & { readonly child?: Omit<Child.ChildOptions, "awaitReady" | "dependsOn"> } = {}
): Part => Child.supervisor(piece(children, { ...direction, name }), child)

/** What a fiber has come to by now, without more time. */
export const now = <A, E>(fiber: Fiber.Fiber<A, E>) =>
  Effect.gen(function*() {
    yield* settle
    return yield* fiber.pollUnsafe() ?? assert.fail("it still waits")
  })

/** How many restarts stand in the budget of a supervisor now. */
export const used = ({ id }: Supervisor.SupervisorRef) =>
  Effect.map(Orchestrator.snapshot, (nodes) => {
    const node = nodes.find((node): node is Snapshot.SupervisorSnapshot => node.kind === "supervisor" && node.id === id)
    return node?.budget.used ?? assert.fail(`${id} is not listed`)
  })

/** The routines that are listed, as `"<path> <state>"`. */
export const listed = Effect.map(Orchestrator.list, (nodes) => nodes.map(({ path, state }) => `${path} ${state}`))
