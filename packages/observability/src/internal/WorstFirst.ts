/** The nodes to show first. */
import type { Kernel, Node } from "@effect-orchestra/core/Kernel"
import * as Effect from "effect/Effect"
import { rankOf } from "./Rows.ts"
import { Smallest, visit } from "./Walk.ts"

/** Keeps so many of the nodes that are added, the worst first, and of the same rank the oldest. */
export const worst = (size: number) =>
  new Smallest<{ readonly node: Node; readonly rank: number }>(
    size,
    (a, b) => a.rank - b.rank || a.node.number - b.node.number
  )

/** The ids of all nodes that have routines below them, and of the worst routines, at most `size` of each. */
export const worstFirst = Effect.fnUntraced(function*(kernel: Kernel, size: number) {
  const structure = [kernel.id]
  const routines = worst(size)
  yield* visit(kernel, (node) => {
    if (node.kind === "routine") routines.add({ node, rank: rankOf(node) })
    else if (structure.length < size) structure.push(node.id)
  })
  return [...structure, ...routines.items.map(({ node }) => node.id)]
})
