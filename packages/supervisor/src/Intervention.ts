/**
 * What somebody does to one child by hand, knowing nothing of it but its routine: an operator at a page or at a terminal.
 *
 * It works for every child of every kind of supervisor, those of a dynamic one included. The operations answer at once:
 * they refuse with a typed error, or return an effect that carries the matter through and waits for its end. To stop a child for good is `Routine.stop`, to end its present run as if it had failed `Routine.interrupt`.
 *
 * **Example** (Restarting a child that somebody has found in a list)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { Child, Intervention, Supervisor } from "@effect-orchestra/supervisor"
 * import { Effect, Option } from "effect"
 *
 * const spec = Supervisor.make({
 *   name: "app",
 *   strategy: "one_for_one",
 *   intensity: 0,
 *   children: [Child.make("mailer", Effect.never)]
 * })
 *
 * const program = Effect.gen(function*() {
 *   yield* Supervisor.start(spec)
 *   const [found] = (yield* Orchestrator.list).filter(({ name }) => name === "mailer")
 *   const mailer = Option.getOrThrow(yield* Intervention.find(found?.id ?? ""))
 *   yield* Effect.flatten(Intervention.restart(mailer, "new credentials"))
 *   const { incarnation, lastExit } = yield* Routine.snapshot(mailer)
 *   return [incarnation, lastExit?.cancelledBy?.reason]
 * })
 *
 * const told = await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
 * told // => [2, "new credentials"]
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
import { path } from "@effect-orchestra/core/Kernel"
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import { isRoutine, type Routine } from "@effect-orchestra/core/Routine"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Operations from "./internal/Operations.ts"
import { ChildRecord } from "./internal/Slot.ts"
import { SupervisorNode } from "./internal/SupervisorNode.ts"
import {
  type ChildNotFound,
  type ChildRestarting,
  type ChildRunning,
  type NotQuarantined,
  NotSupervised,
  type StartFailure,
  type SupervisorNotRunning,
  type TemporaryChild
} from "./SupervisorError.ts"

/** So many nodes are looked at before others have their turn. */
const slice = 2000

/**
 * The routine of this id: one that is listed, or the last of a child that its supervisor keeps and does not run.
 *
 * @category getters
 * @since 0.1.0
 */
export const find = Effect.fnUntraced(function*(id: string) {
  const { kernel } = yield* Orchestrator
  const listed = kernel.node(id)
  if (listed !== undefined) return isRoutine(listed) ? Option.some<Routine<unknown, unknown>>(listed) : Option.none()
  let looked = 0
  for (const node of kernel.nodes.values()) {
    const kept = node instanceof SupervisorNode ? stoppedChild(node, id) : undefined
    if (kept !== undefined) return Option.some(kept)
    if (++looked % slice === 0) yield* Effect.yieldNow
  }
  return Option.none()
})

/** The child that is kept, does not run, and whose last routine this is. */
const stoppedChild = ({ stopped }: SupervisorNode, id: string): Routine<unknown, unknown> | undefined => {
  for (const { record } of stopped) if (record.id === id) return record
  return undefined
}

/**
 * Ends the present run of a child and starts the next, with those that its supervisor's strategy restarts with it. It is
 * charged to no budget. A child in its backoff starts now; one that was stopped or is quarantined starts again by itself,
 * in a routine of its own. The interruption carries `reason` (default `"restart"`).
 *
 * What it returns waits until the child is ready, and gives the routine it then runs in; a run that fails on the way is
 * the matter of its supervisor, as ever.
 *
 * @category operations
 * @since 0.1.0
 */
export const restart = (
  routine: Routine<unknown, unknown>,
  reason = "restart"
): Effect.Effect<
  Effect.Effect<
    Routine<unknown, unknown>,
    StartFailure | SupervisorNotRunning | ChildNotFound | ChildRunning | ChildRestarting
  >,
  NotSupervised | ChildRunning | ChildRestarting | ChildNotFound | TemporaryChild | SupervisorNotRunning
> => routine instanceof ChildRecord ? Operations.restartNow(routine.slot, routine, reason) : notSupervised(routine)

/**
 * Starts a quarantined child again, with a budget and a backoff that begin anew, as `Supervisor.release` does. What it
 * returns waits until the child is ready, and gives the routine it then runs in.
 *
 * @category operations
 * @since 0.1.0
 */
export const release = (
  routine: Routine<unknown, unknown>
): Effect.Effect<
  Effect.Effect<
    Routine<unknown, unknown>,
    StartFailure | SupervisorNotRunning | ChildNotFound | ChildRunning | NotQuarantined
  >,
  NotSupervised | NotQuarantined | ChildRunning | ChildNotFound | SupervisorNotRunning
> => routine instanceof ChildRecord ? Operations.releaseNow(routine.slot, routine) : notSupervised(routine)

const notSupervised = (routine: Routine<unknown, unknown>) => Effect.fail(new NotSupervised({ path: pathOf(routine) }))

/** Every routine is a node of the tree. */
const pathOf = (routine: Routine<unknown, unknown>): string => path(routine as unknown as Parameters<typeof path>[0])
