/**
 * Whether a test has left anything behind: routines, groups, mailboxes, supervisors.
 *
 * **Example** (A routine that was left is named)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator, Routine } from "@effect-orchestra/core"
 * import { assertNoLeaks, TestOrchestra } from "@effect-orchestra/core/testing"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const poller = yield* Orchestrator.fork(Effect.never, { name: "poller" })
 *   const leak = yield* Effect.flip(Effect.catchDefect(assertNoLeaks(), (leak) => Effect.fail(String(leak))))
 *   yield* Routine.stop(poller)
 *   yield* assertNoLeaks()
 *   return leak
 * })
 *
 * const leak = await Effect.runPromise(program.pipe(Effect.provide(TestOrchestra.layer)))
 * const named = leak.includes("/orchestra/poller (running)") // => true
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type { Kernel } from "../Kernel.ts"
import { Orchestrator } from "../Orchestrator.ts"
import type { NodeSnapshot } from "../Snapshot.ts"
import { Leak, type LiveNode, type Overlap } from "./TestError.ts"

/**
 * How leaks are looked for.
 *
 * @category models
 * @since 0.1.0
 */
export interface LeakOptions {
  /** What may be there: an `Orchestrator.snapshot` that was taken before. Default: nothing. */
  readonly baseline?: ReadonlyArray<NodeSnapshot> | undefined
}

/** What the kit itself found wrong in a tree. */
const faults = new WeakMap<Kernel, Array<Overlap>>()

/** @internal */
export const recordFault = (kernel: Kernel, fault: Overlap): void => {
  const before = faults.get(kernel)
  if (before === undefined) faults.set(kernel, [fault])
  else before.push(fault)
}

/** @internal */
export const liveNodes = (nodes: ReadonlyArray<NodeSnapshot>): ReadonlyArray<LiveNode> =>
  nodes.flatMap((node) =>
    node.kind === "orchestrator"
      ? []
      : [{ path: node.path, state: node.state, forkSite: node.kind === "routine" ? node.forkSite : null }]
  )

/** What is just ending has so many turns of the scheduler for it. */
const turns = 100

/**
 * Dies with a `Leak` when the tree holds anything that `baseline` does not, and with an `Overlap` when two incarnations
 * of a steerable child overlapped in it. What is ending gets some turns of the scheduler to do so; time is not moved.
 *
 * @category operations
 * @since 0.1.0
 */
export const assertNoLeaks: (
  options?: LeakOptions
) => Effect.Effect<void, never, Orchestrator> = Effect.fnUntraced(function*({ baseline = [] } = {}) {
  const orchestrator = yield* Orchestrator
  const known = new Set(baseline.map(({ id }) => id))
  const left = Effect.map(orchestrator.snapshot, (nodes) => liveNodes(nodes.filter(({ id }) => !known.has(id))))
  let nodes = yield* left
  for (let turn = 0; turn < turns && nodes.length > 0; turn++) {
    yield* Effect.yieldNow
    nodes = yield* left
  }
  const [fault] = faults.get(orchestrator.kernel) ?? []
  if (fault !== undefined) return yield* Effect.die(fault)
  if (nodes.length > 0) return yield* Effect.die(new Leak({ nodes }))
})
