/**
 * What the testing kit finds. All of them reach a test as defects: no program under test can catch one by mistake.
 *
 * **Example** (What a test reads that leaves a routine behind)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { TestOrchestra } from "@effect-orchestra/core/testing"
 * import { Effect } from "effect"
 *
 * const leaking = TestOrchestra.run(Orchestrator.fork(Effect.never, { name: "poller" }), {
 *   orchestrator: { name: "app" }
 * })
 * const leak = await Effect.runPromise(Effect.catchDefect(leaking, Effect.succeed))
 *
 * const first = String(leak).split("\n")[0] // => "Leak: 1 node is still live:"
 * ```
 *
 * @since 0.1.0
 */
import * as Schema from "effect/Schema"
import { State } from "../Event.ts"

/**
 * A node that is still there: where it stands in the tree, its state, and the line that forked it. That is known of a
 * routine whose `fork` was called while the program ran, as in a generator, not of one that was written before.
 *
 * @category models
 * @since 0.1.0
 */
export const LiveNode = Schema.Struct({ path: Schema.String, state: State, forkSite: Schema.NullOr(Schema.String) })

/** @since 0.1.0 */
export type LiveNode = typeof LiveNode.Type

const lines = (nodes: ReadonlyArray<LiveNode>): string =>
  nodes.map(({ forkSite, path, state }) => `\n  ${path} (${state})${forkSite === null ? "" : `, forked ${forkSite}`}`)
    .join("")

/**
 * A test left nodes of the tree behind.
 *
 * @category errors
 * @since 0.1.0
 */
export class Leak extends Schema.TaggedError<Leak>()("Leak", { nodes: Schema.Array(LiveNode) }) {
  override get message(): string {
    const { length } = this.nodes
    return `${length === 1 ? "1 node is" : `${length} nodes are`} still live:${lines(this.nodes)}`
  }
}

/**
 * Nothing was ready, nobody slept, and the program had not ended. `atMillis` is the virtual time; the same `seed` gets
 * there again.
 *
 * @category errors
 * @since 0.1.0
 */
export class Deadlock extends Schema.TaggedError<Deadlock>()("Deadlock", {
  seed: Schema.String,
  atMillis: Schema.Finite,
  nodes: Schema.Array(LiveNode)
}) {
  override get message(): string {
    return `after ${this.atMillis} ms of virtual time (seed ${this.seed}) nothing is ready, nobody sleeps, and the ` +
      `program has not ended; it cannot wait for anything outside, such as a promise. Live:${lines(this.nodes)}`
  }
}

/**
 * The program had not ended after so many steps: it does not come to an end, or needs more `maxSteps`.
 *
 * @category errors
 * @since 0.1.0
 */
export class Livelock extends Schema.TaggedError<Livelock>()("Livelock", {
  seed: Schema.String,
  atMillis: Schema.Finite,
  steps: Schema.Int,
  nodes: Schema.Array(LiveNode)
}) {
  override get message(): string {
    return `after ${this.steps} steps and ${this.atMillis} ms of virtual time (seed ${this.seed}) the program has not ` +
      `ended. Live:${lines(this.nodes)}`
  }
}

/**
 * A steerable child was started while it still ran. `starts` counts this start.
 *
 * @category errors
 * @since 0.1.0
 */
export class Overlap extends Schema.TaggedError<Overlap>()("Overlap", { child: Schema.String, starts: Schema.Int }) {
  override get message(): string {
    return `start ${this.starts} of the steerable child "${this.child}" came while an earlier one still ran`
  }
}

/**
 * A failure that chaos made up.
 *
 * @category errors
 * @since 0.1.0
 */
export class ChaosFault extends Schema.TaggedError<ChaosFault>()("ChaosFault", { point: Schema.String }) {
  override get message(): string {
    return `chaos failed the point "${this.point}"`
  }
}
