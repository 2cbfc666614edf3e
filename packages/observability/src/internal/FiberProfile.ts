/**
 * Where each fiber of the tree stands: what it waits for, the functions and spans that it is in as far as Effect knows
 * them, its routine, and who stands above that.
 *
 * `fiber.cache` is Effect's own and no documented contract: what is missing there is left out.
 */
import { type Kernel, type Node, path } from "@effect-orchestra/core/Kernel"
import { Line } from "@effect-orchestra/core/Line"
import { RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import { walk } from "@effect-orchestra/core/Walk"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import { type Frame, Profile } from "./Pprof.ts"

/** A function or span that a fiber is in; who asks where that stands makes it look. */
interface Call {
  readonly name: string
  readonly where: () => string | undefined
}

/** The fiber of a routine, a fiber forked within it, or a routine that has none at present. */
interface Seen {
  readonly record: RoutineRecord
  readonly kind: "main" | "child" | "none"
  readonly calls: ReadonlyArray<Call>
}

/** Those that stand at the same place in the same state. */
interface Crowd {
  readonly stack: ReadonlyArray<Frame>
  readonly state: string
  readonly routine: string
  fibers: number
  routines: number
}

/** What is shown of one stack, at most; a loop that forks itself can make a tree of any depth. */
const maxCalls = 64
const maxWaits = 4
const maxOwners = 64

/** How many routines are looked at before other fibers run. */
const slice = 100

/** The fibers as a profile: how many fibers, and of how many routines, stand at each place. */
export const profile = Effect.fnUntraced(function*(kernel: Kernel) {
  const crowds = yield* gather(kernel)
  const profile = new Profile({
    types: [["routine", "count"], ["fiber", "count"]],
    program: kernel.name,
    timeMillis: yield* Clock.currentTimeMillis,
    shown: "fiber"
  })
  for (const [n, { fibers, routine, routines, stack, state }] of crowds.entries()) {
    profile.add(stack, [routines, fibers], { routine, state })
    if (n % slice === slice - 1) yield* Effect.yieldNow
  }
  return profile
})

/** The same as text, most first: what `?debug=1` of Go's is. */
export const grouped = Effect.fnUntraced(function*(kernel: Kernel) {
  const crowds = yield* gather(kernel)
  const total = crowds.reduce((sum, { fibers }) => sum + fibers, 0)
  const shown = crowds.sort((a, b) => b.fibers - a.fibers).slice(0, maxShown)
  const lines = [`fiber profile: total ${total}`]
  for (const { fibers, routine, stack, state } of shown) {
    lines.push(`${fibers} @ ${routine} [${state}]`, ...stack.map((frame) => `#\t${shownFrame(frame)}`), "")
  }
  return ended(lines, crowds.length - shown.length)
})

/** Each of them by itself: what `?debug=2` of Go's is. */
export const full = Effect.fnUntraced(function*(kernel: Kernel) {
  const now = yield* Clock.currentTimeMillis
  const lines: Array<string> = []
  let seen = 0
  yield* visit(kernel, ({ calls, kind, record }) => {
    if (++seen > maxShown) return
    const { id, since, state } = record.snapshot()
    const what = kind === "child" ? "fiber of routine" : "routine"
    lines.push(`${what} ${id} [${state}, ${Math.max(0, Math.round((now - since) / 1000))} s]: ${path(record)}`)
    for (const call of calls) lines.push(shownFrame(frameOf(call)))
    lines.push("")
  })
  return ended(lines, seen - maxShown)
})

/** Text is for reading; who wants all takes the profile. */
const maxShown = 10_000

const ended = (lines: ReadonlyArray<string>, left: number): string =>
  left > 0 ? [...lines, `... and ${left} more`, ""].join("\n") : lines.join("\n")

const shownFrame = ({ file, line, name }: Frame): string => file === undefined ? name : `${name}\t${file}:${line}`

/** Places beyond this many are one: whoever names each routine otherwise has as many as routines. */
const maxCrowds = 10_000
const others = "(others)"

/** Every crowd, in the order of its first. */
const gather = Effect.fnUntraced(function*(kernel: Kernel) {
  const crowds = new Map<string, Crowd>()
  const owners = new Map<string, Frame>()

  const make = ({ calls, record }: Seen, titles: ReadonlyArray<string>): Crowd => {
    const frames = titles.map((name, i) => {
      const known = owners.get(name) ?? { name, ...(i === 0 ? forkedAt(record) : {}) }
      owners.set(name, known)
      return known
    })
    const { name: routine, status: state } = record
    return { stack: [...calls.map(frameOf), ...frames], state, routine, fibers: 0, routines: 0 }
  }

  const crowdOf = (seen: Seen): Crowd => {
    const { calls, record } = seen
    const titles = titlesOf(record)
    const key = [record.status, ...calls.map(({ name }) => name), "", ...titles].join("\n")
    const known = crowds.get(key)
    if (known !== undefined) return known
    const isFull = crowds.size >= maxCrowds
    const crowd = isFull
      ? crowds.get(others) ?? { stack: [{ name: others }], state: others, routine: others, fibers: 0, routines: 0 }
      : make(seen, titles)
    crowds.set(isFull ? others : key, crowd)
    return crowd
  }

  yield* visit(kernel, (seen) => {
    const crowd = crowdOf(seen)
    if (seen.kind !== "none") crowd.fibers++
    if (seen.kind !== "child") crowd.routines++
  })
  return [...crowds.values()]
})

/** The routine and who stands above it, by their names alone: a thousand of one kind are one crowd. */
export const titlesOf = (node: Node): ReadonlyArray<string> => {
  const titles: Array<string> = []
  for (let at: Node | undefined = node; at !== undefined && titles.length < maxOwners; at = at.owner) {
    if (at === node || !at.transparent) titles.push(`${at.kind} ${at.name}`)
  }
  return titles
}

const forkedAt = (record: RoutineRecord): Partial<Frame> => placeOf(record.snapshot().forkSite ?? undefined)

const frameOf = ({ name, where }: Call): Frame => ({ name, ...placeOf(where()) })

/** The first place that a line of a stack trace names. */
const placeOf = (trace: string | undefined): Partial<Frame> => {
  const [, file, line] = /(?:\(|^\s*(?:at )?)([^()\n]+?):(\d+):\d+\)?\s*$/m.exec(trace ?? "") ?? []
  return file === undefined ? {} : { file: file.replace(/^file:\/\//, ""), line: Number(line) }
}

/** Looks at every fiber that can be reached from the tree. */
const visit = Effect.fnUntraced(function*(kernel: Kernel, look: (seen: Seen) => void) {
  const waits = yield* waiting(kernel)
  const forked: Array<{ readonly record: RoutineRecord; readonly fiber: AnyFiber }> = []
  const fork = (record: RoutineRecord, parent: AnyFiber) => {
    for (const fiber of childrenOf(parent)) forked.push({ record, fiber })
  }
  yield* walk(kernel, (record) => {
    if (!(record instanceof RoutineRecord)) return
    const { fiber } = record
    if (fiber === undefined) return look({ record, kind: "none", calls: [called(idleness(record))] })
    look({ record, kind: "main", calls: [...waits.get(record) ?? [], ...callsOf(fiber)] })
    fork(record, fiber)
  }, slice)
  // Afterwards, since one routine may have any number of them. Grows while it is gone through.
  for (const [n, { fiber, record }] of forked.entries()) {
    if (n % slice === slice - 1) yield* Effect.yieldNow
    if (fiber.pollUnsafe() !== undefined) continue
    look({ record, kind: "child", calls: callsOf(fiber) })
    fork(record, fiber)
  }
})

type AnyFiber = Fiber.Fiber<unknown, unknown>

const called = (name: string): Call => ({ name, where: nowhere })

const nowhere = () => undefined

const idleness = (record: RoutineRecord): string =>
  record.status === "backoff"
    ? "(waits for its next start)"
    : record.isClosing
    ? "(runs its finalizers)"
    : `(has no fiber: ${record.status})`

const ends = { senders: "send", publishers: "send", receivers: "receive", takers: "receive" } as const

/** What is named as the place of a wait: for the inbox of a subscriber, which says nothing by itself, its topic. */
export const endOf = (node: Node): Node => node.owner?.kind === "topic" ? node.owner : node

/**
 * Who waits at which mailbox, or for the subscribers of a topic. Which fiber of the routine it is nobody knows: it may be
 * one that Effect made for a timeout.
 */
const waiting = Effect.fnUntraced(function*(kernel: Kernel) {
  const waits = new Map<RoutineRecord, Array<Call>>()
  yield* walk(kernel, (node) => {
    for (const [end, operation] of Object.entries(ends)) {
      const line = Predicate.hasProperty(node, end) ? node[end] : undefined
      if (!(line instanceof Line)) continue
      const name = `${operation} ${endOf(node).name}`
      for (let { first: place } = line; place !== undefined; place = line.after(place)) {
        if (place.record === undefined) continue
        const calls = waits.get(place.record) ?? []
        if (calls.length < maxWaits && !calls.some((call) => call.name === name)) calls.push(called(name))
        waits.set(place.record, calls)
      }
    }
  })
  return waits
})

/** The functions made by `Effect.fn` and the spans that a fiber is in, innermost first. */
const callsOf = (fiber: AnyFiber): ReadonlyArray<Call> => {
  const calls: Array<Call> = []
  const names = new Set<string>()
  const cache: Partial<Fiber.Fiber.Cache> | undefined = fiber.cache
  for (let frame = cache?.stackFrame; frame !== undefined && calls.length < maxCalls; frame = frame.parent) {
    const { name, parent, stack } = frame
    // Above the frame of a call stands that of where its function is defined, which says more.
    const isDefined = parent?.name === `${name} (definition)`
    calls.push({ name, where: isDefined ? parent.stack : stack })
    names.add(name)
    if (isDefined) frame = parent
  }
  for (let span = cache?.span; span?._tag === "Span" && calls.length < maxCalls;) {
    if (!names.has(span.name)) calls.push(called(span.name))
    span = Option.getOrUndefined(span.parent)
  }
  return calls
}

/** The fibers forked within this one. Not by its `children()`, which makes a set for each that has none. */
const childrenOf = (fiber: AnyFiber): Iterable<AnyFiber> => {
  const children = Predicate.hasProperty(fiber, "_children") ? fiber._children : undefined
  // What is in it is what Effect puts there.
  return children instanceof Set ? children as Set<AnyFiber> : []
}
