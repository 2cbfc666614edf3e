/**
 * A walk over the whole tree that holds nobody up.
 *
 * For packages that look at every node; programs ask for `Orchestrator.snapshot`.
 *
 * **Example** (The names of all that runs)
 *
 * ```ts import.meta.vitest
 * import { Orchestrator } from "@effect-orchestra/core"
 * import { walk } from "@effect-orchestra/core/Walk"
 * import { Effect } from "effect"
 *
 * const program = Effect.gen(function*() {
 *   const { kernel } = yield* Orchestrator
 *   for (const name of ["mailer", "poller"]) yield* Orchestrator.fork(Effect.never, { name })
 *   const names: Array<string> = []
 *   yield* walk(kernel, (node) => void names.push(node.name))
 *   return names
 * })
 *
 * await Effect.runPromise(Effect.provide(program, Orchestrator.layer)) // => ["mailer", "poller"]
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type { Kernel, Node } from "./Kernel.ts"

/**
 * Visits every node below the orchestrator, parents before their children, and lets others run after each `slice` of them
 * (default 2,000). A node that comes or goes meanwhile may be missed; none is visited twice.
 *
 * @category operations
 * @since 0.1.0
 */
export const walk = (kernel: Kernel, visit: (node: Node) => void, slice = 2000): Effect.Effect<void> =>
  Effect.suspend(() => {
    const walker = new Walker(kernel)
    const step = () => {
      for (let left = slice; left > 0 && walker.at !== undefined; left--) {
        const node = walker.at
        walker.advance()
        visit(node)
      }
      return walker.at === undefined ? Effect.void : Effect.yieldNow
    }
    const steps = Effect.whileLoop({
      while: () => walker.at !== undefined,
      body: () => Effect.suspend(step),
      step: () => undefined
    })
    const walkers = kernel.walkers ??= new Set()
    walkers.add(walker)
    const arrived = Effect.sync(() => {
      walkers.delete(walker)
      if (walkers.size === 0) kernel.walkers = undefined
    })
    return Effect.ensuring(steps, arrived)
  })

/** Where a walk stands, while the tree changes below its feet. @internal */
export class Walker {
  private readonly root: Node
  at: Node | undefined

  constructor(root: Node) {
    this.root = root
    this.at = root.children?.first
  }

  advance(): void {
    this.at = this.at?.children?.first ?? this.behind(this.at)
  }

  /** A node that has no children goes. */
  leave(node: Node): void {
    if (this.at === node) this.at = this.behind(node)
  }

  private behind(node: Node | undefined): Node | undefined {
    let at = node
    while (at !== undefined && at !== this.root && at.next === undefined) at = at.owner
    return at === this.root ? undefined : at?.next
  }
}
