/**
 * The graph of a plan, decided without running anything: what is wrong with it, in which order its steps go, what stands
 * on what, and which are selected.
 *
 * @internal
 */

export interface Node {
  readonly name: string
  readonly after: ReadonlyArray<string>
}

export interface Selection {
  readonly only?: ReadonlyArray<string> | undefined
  readonly skip?: ReadonlyArray<string> | undefined
}

/** Everything that is wrong with the names of a plan, and with a selection of them. */
export const problemsOf = (nodes: ReadonlyArray<Node>, { only = [], skip = [] }: Selection): ReadonlyArray<string> => {
  const names = nodes.map(({ name }) => name)
  const known = new Set(names)
  const unknown = (what: string, wanted: ReadonlyArray<string>) =>
    wanted.filter((name) => !known.has(name)).map((name) => `${what} "${name}", which is no step: ${listed(names)}`)
  const twice = new Set(names.filter((name, index) => names.indexOf(name) !== index))
  return [
    ...Array.from(twice, (name) => `there are two steps "${name}"`),
    ...(known.has("") ? ["a step has an empty name"] : []),
    ...nodes.flatMap(({ after, name }) => unknown(`step "${name}" is after`, after)),
    ...cyclesOf(nodes).map((path) => `cycle: ${path.map((name) => `"${name}"`).join(" after ")}`),
    ...unknown("only selects", only),
    ...unknown("skip leaves out", skip)
  ]
}

const listed = (names: ReadonlyArray<string>) =>
  names.length === 0 ? "there is none" : `there are ${names.map((name) => `"${name}"`).join(", ")}`

/** The paths that lead back to where they began, each with its first name repeated at the end. */
const cyclesOf = (nodes: ReadonlyArray<Node>): ReadonlyArray<ReadonlyArray<string>> => {
  const after = new Map(nodes.map((node) => [node.name, node.after]))
  const cycles: Array<ReadonlyArray<string>> = []
  const left = new Set<string>()
  const path: Array<string> = []
  const visit = (name: string): void => {
    if (left.has(name)) return
    if (path.includes(name)) return void cycles.push([...path.slice(path.indexOf(name)), name])
    path.push(name)
    for (const next of after.get(name) ?? []) visit(next)
    path.pop()
    left.add(name)
  }
  for (const { name } of nodes) visit(name)
  return cycles
}

/** The order in which the steps go one by one: as declared, but each after those it is after. */
export const ordered = <N extends Node>(nodes: ReadonlyArray<N>): ReadonlyArray<N> => {
  const done = new Set<string>()
  const waiting = new Set(nodes)
  while (waiting.size > 0) {
    const next = nodes.find((node) => waiting.has(node) && node.after.every((name) => done.has(name)))
    // Only of a plan with problems.
    if (next === undefined) break
    waiting.delete(next)
    done.add(next.name)
  }
  return Array.from(done, (name) => nodes.find((node) => node.name === name)).filter((node) => node !== undefined)
}

/** What each step stands on, directly or through others, in the order of the plan. */
export const standingOn = (order: ReadonlyArray<Node>): ReadonlyMap<string, ReadonlyArray<string>> => {
  const all = new Map<string, ReadonlyArray<string>>()
  for (const { after, name } of order) {
    const below = new Set(after.flatMap((other) => [...(all.get(other) ?? []), other]))
    all.set(name, order.map((node) => node.name).filter((other) => below.has(other)))
  }
  return all
}

/** The names that are selected: all of them, or `only` some, without those to `skip`. */
export const selected = (nodes: ReadonlyArray<Node>, { only, skip }: Selection): ReadonlySet<string> =>
  new Set(
    nodes.map(({ name }) => name).filter((name) => (only?.includes(name) ?? true) && !(skip?.includes(name) ?? false))
  )
