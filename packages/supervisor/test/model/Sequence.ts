/**
 * Random supervisors and what is done to them, as data: made from random numbers, made smaller, printed as code.
 */
import type { ChildSpec, End, Operation, Outcome, SupervisorSpec } from "./Supervisor.ts"

export interface Sequence {
  readonly spec: SupervisorSpec
  /** What the first starts do, by path; those that follow succeed. */
  readonly plans: Readonly<Record<string, ReadonlyArray<Outcome>>>
  readonly operations: ReadonlyArray<Operation>
}

/** What a sequence may contain. */
export interface Scope {
  readonly strategies: ReadonlyArray<SupervisorSpec["strategy"]>
  readonly ends: ReadonlyArray<End>
  /** Whether starts, stops and restarts take time, restarts are forgotten, and several children end at once. */
  readonly timed: boolean
  /** Whether a transient supervisor may give up. */
  readonly transientGivesUp: boolean
  readonly restartStopped: ReadonlyArray<boolean>
}

/** Gives numbers from 0 up to 1. */
export type Random = () => number

const between = (random: Random, least: number, most: number) => least + Math.floor(random() * (most - least + 1))
const pick = <A>(random: Random, from: ReadonlyArray<A>): A => from[between(random, 0, from.length - 1)] as A
const chance = (random: Random, percent: number) => random() * 100 < percent
const some = <A>(random: Random, least: number, most: number, one: () => A) =>
  Array.from({ length: between(random, least, most) }, one)

/** More restarts than a sequence can ask for. */
const generous = 100

const outcomes: ReadonlyArray<Outcome> = ["ok", "fail", "fail", "ignore"]

/** Durations are so long and so odd that two never end at once by accident. */
const millis = (random: Random) => between(random, 2, 10_000_000)

export const make = (random: Random, scope: Scope): Sequence => {
  const ids = ["a", "b", "c", "d", "e", "f"]
  const paths = new Set(ids)
  let significance = false

  const treeOf = (
    children: ReadonlyArray<string>,
    prefix: string,
    depth: number,
    slow: boolean,
    intensity = chance(random, 50) ? generous : between(random, 0, 3)
  ): SupervisorSpec => {
    const strategy = pick(random, scope.strategies)
    const autoShutdown = chance(random, 60) ? "never" : pick(random, ["any_significant", "all_significant"] as const)
    significance ||= autoShutdown !== "never"
    const tree: Omit<SupervisorSpec, "children"> = {
      strategy,
      autoShutdown,
      intensity,
      restartStopped: pick(random, scope.restartStopped),
      ...(scope.timed ? { period: millis(random) } : {})
    }
    return {
      ...tree,
      children: children.map((id, index) => child(id, tree, children.slice(0, index), prefix, depth, slow))
    }
  }

  const child = (
    id: string,
    parent: Pick<SupervisorSpec, "autoShutdown" | "strategy">,
    others: ReadonlyArray<string>,
    prefix: string,
    depth: number,
    above: boolean
  ): ChildSpec => {
    // Of those that start at the same time, which begins before the other has failed is nobody's business.
    const slow = above || parent.strategy === "dependency"
    const isTree = depth < 2 && chance(random, 12)
    const restart = pick(random, ["permanent", "permanent", "transient", "temporary"] as const)
    const path = `${prefix}${id}`
    paths.add(path)
    const significant = parent.autoShutdown !== "never" && restart !== "permanent" && chance(random, 70)
    return {
      id,
      restart,
      ...(significant ? { significant } : {}),
      ...(parent.strategy === "dependency"
        ? {
          dependsOn: others.filter((other) => other !== id && chance(random, depth === 1 && prefix === "" ? 15 : 40))
        }
        : {}),
      ...(scope.timed && !isTree
        ? {
          ...(slow || chance(random, 40) ? { startMillis: millis(random) } : {}),
          ...(chance(random, 30) ? { stopMillis: millis(random) } : {}),
          ...(chance(random, 30) ? { closeMillis: millis(random) } : {}),
          ...(chance(random, 40) ? { backoffMillis: millis(random) } : {})
        }
        : {}),
      ...(isTree
        ? {
          tree: treeOf(
            ["x", "y", "z"].slice(0, between(random, 0, 3)),
            `${path}/`,
            depth + 1,
            slow,
            restart === "transient" && !scope.transientGivesUp ? generous : undefined
          )
        }
        : {})
    }
  }

  const spec = treeOf(ids.slice(0, between(random, 1, 5)), "", 0, false)
  const dynamic = { autoShutdown: spec.autoShutdown, strategy: spec.strategy }

  const operation = (): Operation => {
    const roll = random() * 100
    if (roll < 40) {
      // The end of a significant child may come before or after what ends at the same time.
      const several = scope.timed && !significance && chance(random, 30) ? between(random, 2, 4) : 1
      // So may what two supervisors do, one of them below the other.
      const from = several === 1 ? [...paths] : ids
      const ends = some(random, several, several, () => [pick(random, from), pick(random, scope.ends)] as const)
      return { op: "exit", ends: [...new Map(ends)] }
    }
    if (roll < 55) {
      return { op: "plan", child: pick(random, [...paths]), starts: some(random, 1, 4, () => pick(random, outcomes)) }
    }
    if (roll < 67) return { op: "startChild", child: child(pick(random, ids), dynamic, ids, "", 1, false) }
    if (roll < 78) return { op: "terminateChild", child: pick(random, ids) }
    if (roll < 90) return { op: "restartChild", child: pick(random, ids) }
    if (roll < 98) return { op: "deleteChild", child: pick(random, ids) }
    return { op: "stop" }
  }

  const plans: Record<string, ReadonlyArray<Outcome>> = {}
  for (const path of paths) {
    if (chance(random, 8)) plans[path] = [pick(random, outcomes)]
  }
  const operations = some(random, 1, 16, operation)
  return {
    spec,
    plans,
    operations: scope.timed
      ? operations.flatMap((operation, at) =>
        // Most do not begin before it has started.
        at === 0 && chance(random, 85)
          ? [{ op: "advance", millis: 1_000_000_000 } as const, operation]
          : chance(random, 50)
          ? [operation, { op: "advance", millis: millis(random) } as const]
          : [operation]
      )
      : operations
  }
}

const without = <A>(list: ReadonlyArray<A>): ReadonlyArray<ReadonlyArray<A>> =>
  list.map((_, at) => [...list.slice(0, at), ...list.slice(at + 1)])

const smallerChild = (child: ChildSpec, slow: boolean): ReadonlyArray<ChildSpec> => {
  const { backoffMillis: _b, significant: _s, tree, ...plain } = child
  if (tree !== undefined) {
    const leaf = slow ? { ...plain, startMillis: 1000 } : plain
    return [leaf, ...smallerSpec(tree, slow).map((tree) => ({ ...child, tree }))]
  }
  return (["backoffMillis", "closeMillis", "significant", "startMillis", "stopMillis"] as const).flatMap((key) => {
    const { [key]: value, ...rest } = child
    return value === undefined || (slow && key === "startMillis") ? [] : [rest]
  })
}

const smallerSpec = (spec: SupervisorSpec, above = false): ReadonlyArray<SupervisorSpec> => {
  const slow = above || spec.strategy === "dependency"
  const { autoShutdown, children, intensity } = spec
  return [
    ...without(children).map((children) => {
      const ids = children.map(({ id }) => id)
      return {
        ...spec,
        children: children.map((child) =>
          child.dependsOn === undefined
            ? child
            : { ...child, dependsOn: child.dependsOn.filter((id) => ids.includes(id)) }
        )
      }
    }),
    ...children.flatMap((child, at) =>
      smallerChild(child, slow).map((smaller) => ({ ...spec, children: children.with(at, smaller) }))
    ),
    ...(intensity < generous ? [{ ...spec, intensity: generous }] : []),
    ...(autoShutdown === "never" || children.some(({ significant }) => significant)
      ? []
      : [{ ...spec, autoShutdown: "never" as const }])
  ]
}

const smallerOperation = (operation: Operation, { strategy }: SupervisorSpec): ReadonlyArray<Operation> => {
  switch (operation.op) {
    case "exit":
      return operation.ends.length < 2 ? [] : without(operation.ends).map((ends) => ({ ...operation, ends }))
    case "plan":
      return operation.starts.length < 2 ? [] : without(operation.starts).map((starts) => ({ ...operation, starts }))
    case "startChild":
      return smallerChild(operation.child, strategy === "dependency").map((child) => ({ ...operation, child }))
    default:
      return []
  }
}

/** The sequences that are one step smaller. */
export const smaller = ({ operations, plans, spec }: Sequence): ReadonlyArray<Sequence> => [
  ...operations.map((_, at) => ({ spec, plans, operations: operations.slice(0, at) })),
  ...without(operations).map((operations) => ({ spec, plans, operations })),
  ...smallerSpec(spec).map((spec) => ({ spec, plans, operations })),
  ...without(Object.entries(plans)).map((entries) => ({ spec, plans: Object.fromEntries(entries), operations })),
  ...operations.flatMap((operation, at) =>
    smallerOperation(operation, spec).map((smaller) => ({ spec, plans, operations: operations.with(at, smaller) }))
  )
]

/** A sequence that a test can be written from. */
export const print = ({ operations, plans, spec }: Sequence): string => {
  const json = (value: unknown) => JSON.stringify(value).replaceAll(/"(\w+)":/g, "$1: ").replaceAll(",", ", ")
  const { children, ...rest } = spec
  return [
    "{",
    `  spec: { ...${json(rest)}, children: [`,
    ...children.map((child) => `    ${json(child)},`),
    "  ] },",
    `  plans: ${json(plans)},`,
    "  operations: [",
    ...operations.map((operation) => `    ${json(operation)},`),
    "  ]",
    "}"
  ].join("\n")
}

/** Whether it has a supervisor of this strategy. */
export const has = ({ operations, spec }: Sequence, strategy: SupervisorSpec["strategy"]): boolean => {
  const below = ({ children, ...spec }: SupervisorSpec): boolean =>
    spec.strategy === strategy || children.some(({ tree }) => tree !== undefined && below(tree))
  const children = operations.flatMap((operation) => operation.op === "startChild" ? [operation.child] : [])
  return below({ ...spec, children: [...spec.children, ...children] })
}
