/**
 * The JSON that the server gives out: what the tree looks like now, as a summary, as a page of routines, as a tree.
 *
 * The page, scripts and tests decode it with the schemas of this module. Times are epoch milliseconds, durations
 * milliseconds, paths and words those of the orchestrator. Fields may be added within `v: 1`.
 *
 * Everything is computed when asked, in slices: no request holds the event loop while it walks a large tree.
 *
 * **Example** (A page of routines, without a server)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { Api, Telemetry } from "@effect-orchestra/observability"
 * import { Effect, Layer } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   for (const name of ["mailer", "poller"]) yield* Orchestrator.fork(Effect.never, { name })
 *   const { items, page } = yield* Api.routines({ q: "mail" })
 *   return { paths: items.map(({ path }) => path), total: page.total }
 * })
 *
 * const layer = Layer.provideMerge(Telemetry.layer, Orchestrator.layer)
 * await Effect.runPromise(program.pipe(Effect.provide(layer))) // => { paths: ["/orchestra/mailer"], total: 1 }
 * ```
 *
 * @since 0.1.0
 */
import type { Node } from "@effect-orchestra/core/Kernel"
import { redacting } from "./internal/Redact.ts"
import { rowOf } from "./internal/Rows.ts"
import type { Row } from "./internal/RowSchema.ts"

export * from "./internal/AnswerSchema.ts"
export { history, messages, nodeOf, routine } from "./internal/Details.ts"
export { events } from "./internal/Events.ts"
export { buses, groups, mailboxes, routines, sagas } from "./internal/Lists.ts"
export { logs } from "./internal/LogLines.ts"
export { overview, overviewWith } from "./internal/Overview.ts"
export * from "./internal/RowSchema.ts"
export { tree } from "./internal/Trees.ts"

/**
 * A node as the API shows it.
 *
 * @category getters
 * @since 0.1.0
 */
export const row = (node: Node): Row => rowOf(node, plain)

const plain = redacting(undefined)
