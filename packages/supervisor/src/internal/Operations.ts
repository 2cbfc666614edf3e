/**
 * What is done to a supervisor by hand: each operation is a job of the writer, is answered at once or when what it
 * started is through, and leaves nothing behind when its caller is interrupted.
 *
 * @internal
 */
import { because, type Node, path, type StopLimits, unbounded } from "@effect-orchestra/core/Kernel"
import type { Routine } from "@effect-orchestra/core/Routine"
import { Current } from "@effect-orchestra/core/RoutineRecord"
import { waitFor } from "@effect-orchestra/core/Writer"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { type Any, type ChildSpec, problemOf } from "../Child.ts"
import type { ChildCounts, ChildInfo } from "../Supervisor.ts"
import {
  AlreadyPresent,
  AlreadyStarted,
  ChildNotFound,
  ChildRestarting,
  ChildRunning,
  InvalidChild,
  NotQuarantined,
  StartFailure,
  SupervisorNotRunning,
  TemporaryChild
} from "../SupervisorError.ts"
import { type Answer, type ChildRecord, Slot } from "./Slot.ts"
import { inherited, standing } from "./Starts.ts"
import type { SupervisorNode } from "./SupervisorNode.ts"

/** The limits of a stop that somebody asks for. */
export const asked = (fiber: Fiber.Fiber<unknown, unknown>): StopLimits => ({
  ...unbounded,
  by: because("stopped", fiber.getRef(Current))
})

const isBelow = (node: Node | undefined, above: Node): boolean =>
  node !== undefined && (node === above || isBelow(node.owner, above))

/** Stops it all. A caller from below is stopped by it, and so does not wait. */
export const stop = (node: SupervisorNode): Effect.Effect<void> =>
  Effect.withFiber((fiber) => {
    const stopping = node.stop({ ...asked(fiber), told: true })
    return stopping === undefined || isBelow(fiber.getRef(Current), node) ? Effect.void : stopping
  })

const notRunning = (node: SupervisorNode) => new SupervisorNotRunning({ supervisor: path(node), state: node.status })

export const refused = (node: SupervisorNode) => Effect.fail(notRunning(node))

/** Answers at once. */
const ask = <A, E>(
  node: SupervisorNode,
  answer: () => Effect.Effect<A, E>
): Effect.Effect<A, E | SupervisorNotRunning> =>
  Effect.suspend((): Effect.Effect<A, E | SupervisorNotRunning> =>
    node.isStopping ? Effect.fail(notRunning(node)) : answer()
  )

/** Does something as a job; what it gives back undoes it when the caller is interrupted before it is answered. */
const command = <A, E>(
  node: SupervisorNode,
  run: (
    answer: (effect: Effect.Effect<A, E | SupervisorNotRunning>) => void,
    fiber: Fiber.Fiber<unknown, unknown>
  ) => Effect.Effect<void> | void
): Effect.Effect<A, E | SupervisorNotRunning> =>
  Effect.withFiber((fiber) =>
    Effect.callback<A, E | SupervisorNotRunning>((resume) => {
      let undo: Effect.Effect<void> | void = undefined
      let isOver = false
      node.submit(() => {
        if (isOver) return
        if (node.isStopping) return resume(Effect.fail(notRunning(node)))
        undo = run((effect) => node.writer.wake({ run: () => resume(effect) }), fiber)
      })
      return Effect.suspend(() => {
        isOver = true
        return undo ?? Effect.void
      })
    })
  )

/** The child of this id, if any that is not about to be forgotten. */
const find = (node: SupervisorNode, id: string, slot = node.slots.get(id)): Slot | undefined =>
  slot?.doomed === true ? undefined : slot

const notFound = (node: SupervisorNode, child: string) =>
  Effect.fail(new ChildNotFound({ supervisor: path(node), child }))

const running = (node: SupervisorNode, child: string, state: string) =>
  Effect.fail(new ChildRunning({ supervisor: path(node), child, state }))

/** Starts a child by hand, and answers when it is ready, or not needed, or did not start. */
const startByHand = (
  node: SupervisorNode,
  slot: Slot,
  answer: (effect: Effect.Effect<ChildInfo, StartFailure | SupervisorNotRunning>) => void,
  limits: StopLimits,
  forget: boolean
): Effect.Effect<void> => {
  const takeBack = (then: () => void) => {
    slot.doomed ||= forget
    node.terminateSlot(slot, limits, then)
  }
  const failure = (cause: Cause.Cause<unknown>) =>
    Effect.fail(new StartFailure({ supervisor: path(node), child: slot.id, cause }))
  // Whoever waits for its start already is told, too.
  const other = slot.command
  const mine = (end: Answer) => {
    other?.(end)
    const told = () => answer(Effect.succeed(slot.info))
    if (end === "ready") return told()
    if (end === "ignored") return node.stops.whenEnded(slot, limits, told)
    if (end === "closed") return answer(Effect.fail(notRunning(node)))
    if (end === "stopped") {
      slot.doomed ||= forget
      return answer(failure(Cause.interrupt()))
    }
    takeBack(() => answer(end._tag === "Failure" ? failure(end.cause) : failure(Cause.empty)))
  }
  slot.command = mine
  const isFirst = other === undefined && slot.round === undefined
  if (isFirst) node.open({ members: [slot], offenders: [], kind: "command" })
  return Effect.callback((resume) => {
    if (slot.command === mine) slot.command = other
    if (!isFirst) return resume(Effect.void)
    node.submit(() => takeBack(() => node.writer.wake({ run: () => resume(Effect.void) })))
  })
}

/** Starts a child that does not run; fails, and leaves it stopped, when it does not start. */
export const startSlot = (
  node: SupervisorNode,
  slot: Slot,
  limits: StopLimits
): Effect.Effect<ChildInfo, StartFailure | SupervisorNotRunning> =>
  command<ChildInfo, StartFailure>(node, (answer) => {
    // It runs already, or somebody has deleted it meanwhile.
    if ((slot.wanted && slot.isLive) || node.slots.get(slot.id) !== slot) return answer(Effect.sync(() => slot.info))
    if (slot.wanted && (slot.round ?? slot.command) !== undefined) return startByHand(node, slot, answer, limits, false)
    const left = standing(slot)
    if (left !== undefined) return answer(occupied(node, slot.id, left))
    return startAgain(node, slot, answer, limits)
  })

/** A child that is to be another does not start: there is one of its id. */
export const occupied = (node: SupervisorNode, child: string, state: string): Effect.Effect<never, StartFailure> => {
  const supervisor = path(node)
  const cause = Cause.fail(new ChildRunning({ supervisor, child, state }))
  return Effect.fail(new StartFailure({ supervisor, child, cause }))
}

export const startChild = (
  node: SupervisorNode,
  child: Any
): Effect.Effect<
  ChildInfo,
  StartFailure | AlreadyStarted | AlreadyPresent | ChildRunning | InvalidChild | SupervisorNotRunning
> =>
  command(node, (answer, fiber) => {
    const supervisor = path(node)
    const present = node.slots.get(child.id)
    if (present !== undefined) {
      const { state } = present
      if (present.isLive && present.record.isFinal) return answer(running(node, child.id, "abandoned"))
      return answer(
        state === "running" || state === "starting" || state === "stopping"
          ? Effect.fail(new AlreadyStarted({ supervisor, child: child.id }))
          : Effect.fail(new AlreadyPresent({ supervisor, child: child.id, state }))
      )
    }
    const problem = problemOf({ ...node.spec, children: [child] }, node.slots)
    if (problem !== undefined) {
      const told = `${problem.rule}, got: ${problem.got}`
      return answer(Effect.fail(new InvalidChild({ supervisor, child: child.id, problem: told })))
    }
    const slot = node.add(child, Context.merge(node.context, inherited(fiber.context, node.kernel)))
    return startByHand(node, slot, answer, asked(fiber), true)
  })

/** Starts a child of a template, and answers with its routine when it is ready; `add` may refuse it. */
export const startAnonymous = <E>(
  node: SupervisorNode,
  add: () => Slot | Effect.Effect<never, E>
): Effect.Effect<Routine<unknown, unknown>, E | StartFailure | SupervisorNotRunning> =>
  Effect.map(
    command<ChildInfo, E | StartFailure>(node, (answer, fiber) => {
      const slot = add()
      return slot instanceof Slot ? startByHand(node, slot, answer, asked(fiber), true) : answer(slot)
    }),
    ({ routine }) => routine
  )

/** Starts a child of a template that nobody waits for; one that does not start is forgotten. */
export const startUnattended = (
  node: SupervisorNode,
  slot: Slot,
  failed: (cause: Cause.Cause<unknown>) => void
): void => {
  slot.command = (end) => {
    if (end === "ready" || end === "ignored" || end === "closed") return
    slot.doomed = true
    if (end === "stopped") return
    node.terminateSlot(slot, unbounded, () => failed(Exit.isFailure(end) ? end.cause : Cause.empty))
  }
  node.submit(() => {
    if (!node.isStopping) node.open({ members: [slot], offenders: [], kind: "command" })
  })
}

export const terminateChild = (
  node: SupervisorNode,
  id: string,
  known?: Slot
): Effect.Effect<"stopped" | "abandoned", ChildNotFound | SupervisorNotRunning> =>
  command(node, (answer, fiber) => {
    const slot = find(node, id, known)
    if (slot === undefined) return answer(notFound(node, id))
    const { record } = slot
    const told = () =>
      answer(Effect.sync(() => record.status === "abandoned" && record.scope !== undefined ? "abandoned" : "stopped"))
    node.terminateSlot(slot, asked(fiber), told)
    // From within it nobody could wait for its end.
    if (isBelow(fiber.getRef(Current), record)) answer(Effect.succeed("stopped"))
  })

/** Why a child that is to be started by hand cannot be. */
const busy = (node: SupervisorNode, slot: Slot) => {
  const { state } = slot
  if (state === "restarting") return Effect.fail(new ChildRestarting({ supervisor: path(node), child: slot.id }))
  if (state !== "stopped" && state !== "quarantined") return running(node, slot.id, state)
  const left = standing(slot)
  return left === undefined ? undefined : running(node, slot.id, left)
}

const startAgain = (
  node: SupervisorNode,
  slot: Slot,
  answer: (effect: Effect.Effect<ChildInfo, StartFailure | SupervisorNotRunning>) => void,
  limits: StopLimits
) => {
  if (slot.quarantined) {
    const { bus } = node.kernel
    if (bus.observed) bus.emit("Released", slot.record, { supervisor: node.name })
    slot.quarantined = false
    slot.window = slot.policy.window
  }
  slot.step = undefined
  node.revive(slot)
  return startByHand(node, slot, answer, limits, false)
}

export const restartChild = (
  node: SupervisorNode,
  id: string
): Effect.Effect<ChildInfo, ChildNotFound | ChildRunning | ChildRestarting | StartFailure | SupervisorNotRunning> =>
  command(node, (answer, fiber) => {
    const slot = find(node, id)
    if (slot === undefined) return answer(notFound(node, id))
    const refusal = busy(node, slot)
    return refusal === undefined ? startAgain(node, slot, answer, asked(fiber)) : answer(refusal)
  })

export const release = (
  node: SupervisorNode,
  id: string,
  known?: Slot
): Effect.Effect<ChildInfo, ChildNotFound | ChildRunning | NotQuarantined | StartFailure | SupervisorNotRunning> =>
  command(node, (answer, fiber) => {
    const slot = find(node, id, known)
    if (slot === undefined) return answer(notFound(node, id))
    const { state } = slot
    if (!slot.quarantined) {
      return answer(Effect.fail(new NotQuarantined({ supervisor: path(node), child: id, state })))
    }
    const left = standing(slot)
    return left === undefined ? startAgain(node, slot, answer, asked(fiber)) : answer(running(node, id, left))
  })

/** Its last routine is no child any more: another runs, or it was forgotten. */
const isPast = ({ isForgotten, doomed, node, policy, record }: Slot, routine: ChildRecord): boolean =>
  record !== routine || doomed || isForgotten || (!policy.isTemplate && node.slots.get(policy.spec.id) !== record.slot)

/** The routine that a child is ready in, whatever failed on the way. */
const readyAfter = (record: ChildRecord, run: number): Effect.Effect<Routine<unknown, unknown>, StartFailure> => {
  const known = () => record.isFinal || (record.incarnation > run && record.isReady) ? Effect.void : undefined
  return Effect.flatMap(waitFor(record.waiting.ready, known), () => {
    if (record.isFinal) {
      const { id, lastExit, node } = record.slot
      const cause = Exit.isFailure(lastExit) ? lastExit.cause : Cause.empty
      return Effect.fail(new StartFailure({ supervisor: path(node), child: id, cause }))
    }
    return known() === undefined ? readyAfter(record, run) : Effect.succeed(record)
  })
}

/** Decides at once, and returns how to wait for the end of what that began. */
export const restartNow = (
  slot: Slot,
  routine: ChildRecord,
  reason: string
): Effect.Effect<
  Effect.Effect<
    Routine<unknown, unknown>,
    StartFailure | SupervisorNotRunning | ChildNotFound | ChildRunning | ChildRestarting
  >,
  ChildNotFound | ChildRunning | ChildRestarting | TemporaryChild | SupervisorNotRunning
> => {
  const { node } = slot
  return command(node, (answer, fiber) => {
    const { id } = slot
    const supervisor = path(node)
    if (isPast(slot, routine)) return answer(notFound(node, id))
    if (slot.policy.restart === "temporary") return answer(Effect.fail(new TemporaryChild({ supervisor, child: id })))
    const by = because(reason, fiber.getRef(Current))
    if (slot.wanted) {
      const { incarnation } = routine
      if (node.restarts.renew(slot, by)) return answer(Effect.succeed(readyAfter(routine, incarnation)))
      return answer(
        slot.state === "restarting" || slot.isRunning
          ? Effect.fail(new ChildRestarting({ supervisor, child: id }))
          : running(node, id, slot.state)
      )
    }
    const refusal = busy(node, slot)
    if (refusal !== undefined) return answer(refusal)
    answer(Effect.succeed(startedAgain(slot)))
  })
}

/** Starts what does not run, unless somebody else was first. */
const startedAgain = (slot: Slot) => Effect.map(startSlot(slot.node, slot, unbounded), ({ routine }) => routine)

export const releaseNow = (
  slot: Slot,
  routine: ChildRecord
): Effect.Effect<
  Effect.Effect<
    Routine<unknown, unknown>,
    StartFailure | SupervisorNotRunning | ChildNotFound | ChildRunning | NotQuarantined
  >,
  ChildNotFound | ChildRunning | NotQuarantined | SupervisorNotRunning
> => {
  const { node } = slot
  return command(node, (answer) => {
    const { id, state } = slot
    if (isPast(slot, routine)) return answer(notFound(node, id))
    if (!slot.quarantined) return answer(Effect.fail(new NotQuarantined({ supervisor: path(node), child: id, state })))
    const left = standing(slot)
    if (left !== undefined) return answer(running(node, id, left))
    answer(Effect.succeed(Effect.map(release(node, id, slot), (info) => info.routine)))
  })
}

export const deleteChild = (
  node: SupervisorNode,
  id: string
): Effect.Effect<void, ChildNotFound | ChildRunning | ChildRestarting | SupervisorNotRunning> =>
  ask(node, (): Effect.Effect<void, ChildNotFound | ChildRunning | ChildRestarting> => {
    const slot = find(node, id)
    if (slot === undefined) return notFound(node, id)
    const refusal = busy(node, slot) ?? (slot.isLive ? running(node, id, "abandoned") : undefined)
    return refusal ?? Effect.sync(() => node.remove(slot))
  })

export const whichChildren = (node: SupervisorNode): Effect.Effect<ReadonlyArray<ChildInfo>, SupervisorNotRunning> =>
  ask(node, () => Effect.succeed(node.all.filter(({ doomed }) => !doomed).map(({ info }) => info)))

export const countChildren = (node: SupervisorNode): Effect.Effect<ChildCounts, SupervisorNotRunning> =>
  ask(node, () => {
    const kept = node.all.filter(({ doomed }) => !doomed)
    const supervisors = kept.filter(({ policy }) => policy.spec.type === "supervisor").length
    return Effect.succeed({
      specs: kept.length,
      active: kept.filter(({ isRunning }) => isRunning).length,
      supervisors,
      workers: kept.length - supervisors
    })
  })

export const childSpec = (
  node: SupervisorNode,
  id: string
): Effect.Effect<ChildSpec, ChildNotFound | SupervisorNotRunning> =>
  ask(node, () => {
    const slot = find(node, id)
    return slot === undefined ? notFound(node, id) : Effect.succeed(slot.policy.spec)
  })
