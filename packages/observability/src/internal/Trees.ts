/** A part of the tree, with what stands below each node of it. */
import type { Kernel, Node } from "@effect-orchestra/core/Kernel"
import { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import * as Effect from "effect/Effect"
import { type Counts, NodeNotFound, type Tree, type TreeNode, type TreeQuery } from "./AnswerSchema.ts"
import { stamp } from "./Lists.ts"
import { type Redact, Redactor } from "./Redact.ts"
import { rowOf } from "./Rows.ts"
import type { Row } from "./RowSchema.ts"
import { addCounts, countNode, noCounts, type Survey, survey } from "./Survey.ts"
import { Pace, Paths, visit } from "./Walk.ts"

/**
 * A part of the tree; its counts may be a second old. Waits for a walk over the tree; fails with `NodeNotFound` when there
 * is no such root.
 *
 * @category operations
 * @since 0.1.0
 */
export const tree = Effect.fnUntraced(function*(query: typeof TreeQuery.Type) {
  const { kernel } = yield* Orchestrator
  const redact = yield* Redactor
  const root = query.root === undefined ? kernel : yield* find(kernel, query.root)
  if (root === undefined) return yield* new NodeNotFound({ node: query.root ?? "" })
  const { below } = yield* survey(kernel)
  const found: Tree = {
    ...yield* stamp,
    root: yield* levels(root, redact, below, query.depth ?? 3, query.limit ?? 200)
  }
  return found
})

/** The node of this id or path. */
const find = Effect.fnUntraced(function*(kernel: Kernel, wanted: string) {
  if (!wanted.startsWith("/")) return kernel.node(wanted)
  const paths = new Paths()
  let found: Node | undefined = paths.of(kernel) === wanted ? kernel : undefined
  yield* visit(kernel, (node) => {
    if (found === undefined && paths.of(node) === wanted) found = node
  })
  return found
})

interface Building {
  readonly from: Node
  readonly node: Row
  readonly counts: Counts
  readonly children: Array<Building>
  more: number
}

/** Breadth first, so that a wide level takes the room of what stands below it and not of what stands beside it. */
const levels = Effect.fnUntraced(function*(
  root: Node,
  redact: Redact,
  below: Survey["below"],
  depth: number,
  limit: number
) {
  const build = (from: Node): Building => {
    const counts = noCounts()
    countNode(counts, from)
    const under = below.get(from.number)
    if (under !== undefined) addCounts(counts, under.counts)
    return { from, node: rowOf(from, redact), counts, children: [], more: under?.children ?? 0 }
  }
  const pace = new Pace()
  const top = build(root)
  let room = limit - 1
  let level = [top]
  for (let remaining = depth; level.length > 0 && remaining > 0; remaining--) {
    const next: Array<Building> = []
    for (const parent of level) {
      const shown: Array<Node> = []
      let isWhole = true
      for (const child of parent.from.children ?? []) {
        if (shown.length === room) {
          isWhole = false
          break
        }
        shown.push(child)
      }
      room -= shown.length
      // How many there are is known from the walk alone: to count them here would take as long.
      parent.more = isWhole ? 0 : Math.max(1, parent.more - shown.length)
      for (const child of shown) {
        const built = build(child)
        parent.children.push(built)
        next.push(built)
        if (pace.isOver(16)) yield* pace.rest
      }
    }
    level = next
  }
  return shown(top)
})

const shown = ({ children, counts, more, node }: Building): TreeNode => ({
  node,
  counts,
  children: children.map(shown),
  more
})
