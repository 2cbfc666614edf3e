/** One answer for a report of a fault: all of it, as far as 10 MB go. */
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import * as Effect from "effect/Effect"
import { EventLog } from "../EventLog.ts"
import { encoded } from "./Encode.ts"
import { eventItem } from "./Events.ts"
import { stamp } from "./Lists.ts"
import { overviewWith } from "./Overview.ts"
import { Redactor } from "./Redact.ts"
import { rankOf, routineRow, rowOf } from "./Rows.ts"
import { inSlices, Pace, visit } from "./Walk.ts"
import { worst } from "./WorstFirst.ts"

/** In characters, for nodes, events and the routines that have ended. */
const budget = { tree: 5_000_000, events: 3_000_000, ended: 1_000_000 }

/** Not more can fit, whatever they are. */
const mostNodes = 20_000

/** Items as JSON until their budget is spent. */
const fitting = Effect.fnUntraced(
  function*<A>(items: Iterable<A>, show: (item: A) => object | undefined, room: number) {
    const shown: Array<string> = []
    const pace = new Pace()
    let left = room
    for (const item of items) {
      const value = show(item)
      if (value !== undefined) {
        const text = JSON.stringify(value)
        if ((left -= Buffer.byteLength(text) + 1) < 0) return { shown, isWhole: false }
        shown.push(text)
      }
      if (pace.isOver(8)) yield* pace.rest
    }
    return { shown, isWhole: true }
  }
)

/**
 * The pieces of the JSON of a `Dump`, as bytes: what is wrong comes first, so that it is there whatever is left out.
 *
 * @category operations
 * @since 0.1.0
 */
export const dump = Effect.fnUntraced(function*(options: object) {
  const { kernel } = yield* Orchestrator
  const redact = yield* Redactor
  const log = yield* EventLog
  const truncated: Array<string> = []
  const overview = yield* overviewWith({ points: 900 })
  const first = worst(Math.min(mostNodes, kernel.nodes.size))
  yield* visit(kernel, (node) => first.add({ node, rank: rankOf(node) }))
  const tree = yield* fitting(
    [{ node: kernel, rank: 0 }, ...first.items],
    ({ node }) => rowOf(node, redact),
    budget.tree
  )
  if (!tree.isWhole || kernel.nodes.size > first.items.length) truncated.push("tree")
  // The newest are those that are not left out.
  const events = yield* fitting(log.all().toReversed(), (logged) => eventItem(logged, redact), budget.events)
  if (!events.isWhole) truncated.push("events")
  const ended = yield* fitting(
    kernel.history.ended.all.toReversed(),
    (ended) => routineRow(undefined, redact, ended.snapshot()),
    budget.ended
  )
  if (!ended.isWhole) truncated.push("ended")
  const head = yield* encoded({ ...yield* stamp, overview, options, truncated })
  const chunks: Array<Uint8Array> = []
  let text = head.toString().slice(0, -1)
  const list = (name: string, items: ReadonlyArray<string>) =>
    Effect.andThen(
      Effect.sync(() => {
        text += `,"${name}":[`
      }),
      Effect.andThen(
        inSlices(items, (item, index) => {
          text += index === 0 ? item : `,${item}`
          if (text.length < 65_536) return
          // Here and not where they are sent: that is one step for all of them.
          chunks.push(Buffer.from(text))
          text = ""
        }),
        Effect.sync(() => {
          text += "]"
        })
      )
    )
  yield* list("tree", tree.shown)
  yield* list("events", events.shown.toReversed())
  yield* list("ended", ended.shown)
  return [...chunks, Buffer.from(`${text}}`)]
})
