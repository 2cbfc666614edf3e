/** How a saga runs: its body, then, if that failed, the way back. */
import { because } from "@effect-orchestra/core/Kernel"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import * as Hash from "effect/Hash"
import type * as Tracer from "effect/Tracer"
import type { Options, Outcome } from "../Saga.ts"
import { abandon, bounded, grace } from "./Bound.ts"
import { Compensation } from "./Compensation.ts"
import { type SagaNode } from "./SagaNode.ts"
import { spanned } from "./Span.ts"

type AnyOutcome = Outcome<unknown, unknown>

/** Runs the body of the saga that `open` makes, in the fiber that asks. */
export const running = (
  open: (fiber: Fiber.Fiber<unknown, unknown>) => SagaNode,
  body: (node: SagaNode) => Effect.Effect<unknown, unknown>,
  { key, onOutcome }: Pick<Options, "key" | "onOutcome">
): Effect.Effect<AnyOutcome> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.withFiber((fiber) => {
      const node = open(fiber)
      const attributes = key === undefined ? undefined : { "orchestra.saga.key.hash": hashed(key) }
      const saga = spanned(`saga ${node.name}`, { attributes }, (span) =>
        Effect.flatMap(Effect.exit(restore(body(node))), (exit) =>
          Effect.map(settle(node, exit, span), (outcome) => {
            span.attribute("orchestra.outcome", tag(outcome))
            if (outcome._tag !== "Completed") {
              // It succeeds in saying so, but what its span is about has failed.
              span.end(node.kernel.writer.clock.currentTimeNanosUnsafe(), Exit.failCause(outcome.cause))
            }
            return outcome
          })))
      return Effect.flatMap(saga, (outcome) => {
        if (onOutcome === undefined) return Effect.succeed(conclude(node, outcome))
        return Effect.map(
          tell(node, () =>
            onOutcome(outcome), fiber),
          () =>
            conclude(node, outcome)
        )
      })
    })
  )

const hashed = (key: string): string => (Hash.string(key) >>> 0).toString(16).padStart(8, "0")

/** What becomes of a saga whose body has ended so. */
const settle = (
  node: SagaNode,
  ended: Exit.Exit<unknown, unknown>,
  span: Tracer.Span
): Effect.Effect<AnyOutcome> =>
  Effect.flatMap(clear(node), (left) => {
    const exit = Exit.isSuccess(ended) ? complete(node, left, ended) : ended
    node.phase = "closed"
    if (Exit.isSuccess(exit)) return Effect.succeed<AnyOutcome>({ _tag: "Completed", value: exit.value })
    const { cause } = exit
    if (node.pivot !== undefined) return Effect.succeed<AnyOutcome>({ _tag: "Committed", cause, pivot: node.pivot })
    node.turn()
    const compensation = new Compensation(node, cause, span)
    return Effect.map(compensation.all(node.entries, node.settings, node.settings.halts), (isStuck): AnyOutcome => {
      const { notRun, stuck, undone } = compensation
      return isStuck ? { _tag: "Stuck", cause, undone, stuck, notRun } : { _tag: "Compensated", cause, undone }
    })
  })

/** Whether a body that succeeded is all there is to its saga. */
const complete = (
  node: SagaNode,
  left: ReadonlyArray<string>,
  ended: Exit.Exit<unknown, unknown>
): Exit.Exit<unknown, unknown> => {
  if (left.length > 0) {
    return Exit.die(
      new Error(
        `the body of saga "${node.name}" waits for all steps that it runs, got one that left: ${left.join(", ")}`
      )
    )
  }
  // The parent has ended meanwhile, and nobody else would undo it.
  return node.parent?.adopt(node) === false ? Exit.interrupt() : ended
}

/** Ends what still runs in it, and returns the names: nothing outlives a saga. */
const clear = (node: SagaNode): Effect.Effect<ReadonlyArray<string>> =>
  Effect.suspend(() => {
    node.phase = "closing"
    if (node.running.size === 0) return Effect.succeed([])
    const { kernel: { writer }, settings: { compensationMillis } } = node
    const left = [...node.running]
    const by = because("body_ended", node)
    for (const { fiber } of left) writer.wake({ run: () => fiber.interruptUnsafe(undefined, by) })
    return Effect.map(node.idle(compensationMillis), () => {
      for (const running of node.running) abandon(node, `step ${running.name}`, node.left(running), compensationMillis)
      return left.map(({ name }) => name)
    })
  })

/** Tells somebody how it ended, who may take their time but not for ever. */
const tell = (
  node: SagaNode,
  telling: () => Effect.Effect<unknown, unknown>,
  { context }: Fiber.Fiber<unknown, unknown>
): Effect.Effect<void> => {
  const task = { name: "onOutcome", effect: Effect.suspend(telling), context }
  const bound = { within: node.settings.compensationMillis, grace }
  return Effect.flatMap(bounded(node, task, bound), ({ cut, exit }) => {
    if (exit !== undefined && Exit.isSuccess(exit)) return Effect.void
    const why = cut === undefined ? exit.cause : "it took too long"
    return Effect.logWarning(`saga "${node.name}" could not tell its outcome`, why)
  })
}

const tag = (outcome: AnyOutcome) => outcome._tag.toLowerCase() as Lowercase<AnyOutcome["_tag"]>

/** It has ended: nothing is listed any more but what was abandoned. */
const conclude = <O extends AnyOutcome>(node: SagaNode, settled: O): O => {
  const { kernel: { bus, observers, writer } } = node
  const outcome = tag(settled)
  const stuck = settled._tag === "Stuck" ? settled.stuck.map(({ step }) => step) : []
  const millis = writer.now() - node.began
  observers?.concluded?.(node, { outcome, millis, stuck })
  if (bus.observed) {
    bus.emit("SagaEnded", node, {
      outcome,
      severity: outcome === "completed" ? "info" : outcome === "compensated" ? "warning" : "error",
      durationMillis: millis,
      pivot: node.pivot ?? null,
      undone: "undone" in settled ? settled.undone : [],
      stuck,
      notRun: settled._tag === "Stuck" ? settled.notRun : []
    })
  }
  node.end(outcome === "completed" ? "succeeded" : "failed")
  return settled
}
