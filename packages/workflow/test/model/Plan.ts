/**
 * What a run of a plan does when one thing goes after the other, told naively: every question about the graph is answered
 * by walking it again. Knows nothing of the package.
 */

export type Answer = "satisfied" | "change" | "destructive" | "fail" | "die"

export interface PlannedItem {
  readonly key: string
  readonly check: Answer
  /** What its check says once something that its step stands on was applied. */
  readonly later: Answer
  readonly apply: "ok" | "fail" | "die"
}

export interface PlannedStep {
  readonly name: string
  readonly after: ReadonlyArray<string>
  /** Of `each`; a plain step has one item. */
  readonly each: boolean
  readonly items: ReadonlyArray<PlannedItem>
}

export interface Options {
  readonly mode: "apply" | "dry-run" | "check"
  readonly force: boolean
  readonly keepGoing: boolean
  readonly only: ReadonlyArray<string> | undefined
  readonly skip: ReadonlyArray<string> | undefined
  readonly answer: "yes" | "no" | undefined
}

export interface Outcome {
  readonly refused: boolean
  readonly asked: number
  /** Such as `restart/web: NotRun restart/api failed`. */
  readonly rows: ReadonlyArray<string>
  /** What was applied or tried to be, in order. */
  readonly applies: ReadonlyArray<string>
}

/** The names below a step, however far. */
export const below = (steps: ReadonlyArray<PlannedStep>, name: string): ReadonlyArray<string> => {
  const after = steps.find((step) => step.name === name)?.after ?? []
  return [...after, ...after.flatMap((other) => below(steps, other))]
}

/** Again and again the first declared step whose `after` are all there. */
export const inOrder = (steps: ReadonlyArray<PlannedStep>): ReadonlyArray<PlannedStep> => {
  const order: Array<PlannedStep> = []
  while (order.length < steps.length) {
    const next = steps.find((step) =>
      !order.includes(step) && step.after.every((name) => order.some((other) => other.name === name))
    )
    if (next === undefined) throw new Error("a cycle")
    order.push(next)
  }
  return order
}

interface Row {
  readonly step: PlannedStep
  readonly item: PlannedItem | undefined
  state: string
}

export const outcome = (steps: ReadonlyArray<PlannedStep>, options: Options): Outcome => {
  const order = inOrder(steps)
  const applies: Array<string> = []
  let rows: Array<Row> = []
  let stopped: string | undefined = undefined
  let asked = 0

  const isSelected = (step: PlannedStep) =>
    (options.only === undefined || options.only.includes(step.name)) && !(options.skip ?? []).includes(step.name)
  const nameOf = ({ item, step }: Row) => step.each && item !== undefined ? `${step.name}/${item.key}` : step.name
  const told = () => rows.map((row) => `${nameOf(row)}: ${row.state}`)
  /** Those below a step that have a row in this state, in order. */
  const those = (step: PlannedStep, state: string) =>
    order.filter((other) =>
      below(steps, step.name).includes(other.name) &&
      rows.some((row) => row.step === other && row.state.startsWith(state))
    ).map((other) => other.name)
  const replace = (step: PlannedStep, by: ReadonlyArray<Row>) => {
    const others = rows.filter((row) => row.step !== step)
    rows = order.flatMap((other) => other === step ? by : others.filter((row) => row.step === other))
  }
  const answered = (answer: Answer, pending: string | undefined) =>
    answer === "satisfied"
      ? "Satisfied"
      : answer === "change" || answer === "destructive"
      ? `WouldApply ${answer}`
      : pending === undefined
      ? "Failed check"
      : `WouldApply (known after ${pending}; now: ${answer})`
  const checked = (step: PlannedStep, pending: string | undefined) => {
    if (step.items.length === 0) return replace(step, [{ step, item: undefined, state: "Satisfied" }])
    const changed = those(step, "Applied").length > 0
    replace(
      step,
      step.items.map((item) => ({ step, item, state: answered(changed ? item.later : item.check, pending) }))
    )
  }
  const tried = (row: Row) => {
    const destructive = row.state === "WouldApply destructive"
    if (destructive && !options.force && options.answer === undefined) return "Failed unasked"
    applies.push(nameOf(row))
    return row.item?.apply === "ok" ? "Applied" : "Failed apply"
  }

  for (const step of order) {
    const [by] = those(step, "Failed")
    const pending = those(step, "WouldApply").at(-1)
    const one = (state: string) => replace(step, [{ step, item: undefined, state }])
    if (!isSelected(step)) one("NotRun not selected")
    else if (by !== undefined) one(`Blocked ${by}`)
    else if (step.each && pending !== undefined) one(`WouldApply (known after ${pending})`)
    else checked(step, pending)
  }
  if (options.mode !== "apply") return { refused: false, asked, rows: told(), applies }

  const failed = rows.find(({ state }) => state.startsWith("Failed"))
  if (failed !== undefined && !options.keepGoing) stopped = `${nameOf(failed)} failed`
  const pending = rows.filter(({ state }) => state.startsWith("WouldApply"))
  if (stopped === undefined && pending.length > 0 && !options.force) {
    if (options.answer !== undefined) asked++
    else if (pending.some(({ state }) => state === "WouldApply destructive")) {
      return { refused: true, asked, rows: [], applies }
    }
    if (options.answer === "no") return { refused: false, asked, rows: told(), applies }
  }

  for (const step of order.filter(isSelected)) {
    const [by] = those(step, "Failed")
    const mine = () => rows.filter((row) => row.step === step)
    const again = those(step, "Applied").length > 0 || mine().some(({ state }) => state.includes("(known after"))
    if (by !== undefined) {
      // What the preview has said already stays.
      for (const row of mine()) if (!row.state.startsWith("Blocked")) row.state = `Blocked ${by}`
    } else if (stopped !== undefined) {
      for (const row of mine()) if (again || row.state.startsWith("WouldApply")) row.state = `NotRun ${stopped}`
    } else {
      if (again) checked(step, undefined)
      const bad: Row | undefined = again ? mine().find(({ state }) => state === "Failed check") : undefined
      if (bad !== undefined && !options.keepGoing) {
        stopped = `${nameOf(bad)} failed`
        for (const row of mine().slice(mine().indexOf(bad) + 1)) row.state = `NotRun ${stopped}`
      }
      for (const row of mine()) {
        if (!row.state.startsWith("WouldApply")) continue
        row.state = stopped === undefined ? tried(row) : `NotRun ${stopped}`
        if (row.state.startsWith("Failed") && !options.keepGoing) stopped ??= `${nameOf(row)} failed`
      }
    }
  }
  return { refused: false, asked, rows: told(), applies }
}
