/** How often and how long routines have waited at mailboxes, and at which. */
import type { Kernel, Node } from "@effect-orchestra/core/Kernel"
import { observe } from "@effect-orchestra/core/Observer"
import type { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { endOf, titlesOf } from "./FiberProfile.ts"
import { Profile } from "./Pprof.ts"

type Operation = "send" | "receive"

interface Waits {
  readonly titles: ReadonlyArray<string>
  readonly routine: string
  times: number
  millis: number
}

/** More would be a profile that nobody reads; the rest is counted together. */
const maxStacks = 2000
const others = ["(others)"]

/** The waits so far, to be written. */
interface Block {
  readonly profile: Effect.Effect<Profile>
}

/** Counts from now on, as long as the scope is open. */
export const make = Effect.fnUntraced(
  function*(kernel: Kernel): Effect.fn.Return<Block, never, Scope.Scope> {
    const stacks = new Map<string, Waits>()
    // By who waits where: to spell out the stack each time would cost more than the wait.
    const known = new WeakMap<Node, WeakMap<Node, { send?: Waits; receive?: Waits }>>()

    const at = (titles: ReadonlyArray<string>, routine: string): Waits => {
      const key = titles.join("\n")
      let waits = stacks.get(key)
      if (waits !== undefined) return waits
      if (stacks.size >= maxStacks && titles !== others) return at(others, "")
      stacks.set(key, waits = { titles, routine, times: 0, millis: 0 })
      return waits
    }

    const find = (node: Node, operation: Operation, record: RoutineRecord | undefined): Waits => {
      let ofNode = known.get(node)
      if (ofNode === undefined) known.set(node, ofNode = new WeakMap())
      // Fibers of no routine are the orchestrator's.
      const by = record ?? kernel
      let ofBoth = ofNode.get(by)
      if (ofBoth === undefined) ofNode.set(by, ofBoth = {})
      const { kind, name } = endOf(node)
      return ofBoth[operation] ??= at([operation, `${kind} ${name}`, ...titlesOf(by)], record?.name ?? "")
    }

    yield* observe(kernel, {
      waited: (node, operation, record, millis) => {
        const waits = find(node, operation, record)
        waits.times++
        waits.millis += millis
      }
    })

    return { profile: write(kernel, stacks) }
  }
)

/** Counts nothing. */
export const none = (kernel: Kernel): Block => ({ profile: write(kernel, new Map()) })

const write = (kernel: Kernel, stacks: ReadonlyMap<string, Waits>) =>
  Effect.map(Clock.currentTimeMillis, (timeMillis) => {
    const profile = new Profile({
      types: [["contentions", "count"], ["delay", "nanoseconds"]],
      program: kernel.name,
      timeMillis,
      period: { type: ["contentions", "count"], value: 1 }
    })
    for (const { millis, routine, times, titles } of stacks.values()) {
      const stack = titles.map((name) => ({ name }))
      profile.add(stack, [times, Math.round(millis * 1e6)], routine === "" ? {} : { routine })
    }
    return profile
  })
