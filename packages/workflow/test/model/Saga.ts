/** What a saga has to do, written down naively: one step after the other, no fibers, no time. */

export interface StepSpec {
  readonly kind: "step"
  readonly name: string
  readonly register: "after" | "before"
  readonly irreversible: boolean
  readonly pivot: boolean
  readonly group: string | undefined
  /** How many attempts fail before one works. */
  readonly failures: number
  readonly dies: boolean
  /** How many tries of its undo fail before one works. */
  readonly undoFailures: number
}

export interface SagaSpec {
  readonly kind: "saga"
  readonly name: string
  readonly order: "reverse" | "parallel" | "grouped"
  readonly onStuck: "continue" | "halt"
  /** Whether the saga around it goes on when it fails. */
  readonly caught: boolean
  readonly items: ReadonlyArray<StepSpec | SagaSpec>
}

/** Attempts of a step, and tries of an undo, at most. */
export const tries = 3

export interface Expected {
  readonly outcome: "Completed" | "Compensated" | "Stuck" | "Committed"
  readonly pivot: string | undefined
  readonly undone: ReadonlyArray<string>
  readonly stuck: ReadonlyArray<string>
  readonly notRun: ReadonlyArray<string>
}

/** What happens, and of each event after how many others it cannot come: what runs at once has one rank. */
export interface Told {
  readonly event: string
  readonly rank: number
}

interface Undo {
  readonly step: StepSpec
}

interface Nested {
  readonly saga: SagaSpec
  readonly entries: ReadonlyArray<Undo | Nested>
}

type Entry = Undo | Nested

export class World {
  readonly told: Array<Told> = []
  /** What is done in the world, by step. */
  readonly done = new Map<string, number>()
  private rank = 0

  run(saga: SagaSpec): Expected & { readonly entries: ReadonlyArray<Entry> } {
    this.tell(`${saga.name} begins`)
    const entries: Array<Entry> = []
    let pivot: string | undefined = undefined
    let failed = false
    for (const item of saga.items) {
      if (item.kind === "saga") {
        const child = this.run(item)
        if (child.pivot !== undefined) pivot ??= `${item.name}/${child.pivot}`
        if (child.outcome === "Completed") {
          if (child.entries.length > 0) entries.push({ saga: item, entries: child.entries })
        } else if (!item.caught) failed = true
      } else {
        if (item.register === "before" && !item.irreversible) entries.push({ step: item })
        failed = !this.attempt(saga.name, item)
        if (!failed) {
          if (item.register === "after" && !item.irreversible) entries.push({ step: item })
          if (item.pivot) pivot ??= item.name
        }
      }
      if (failed) break
    }
    const undone: Array<string> = []
    const stuck: Array<string> = []
    const notRun: Array<string> = []
    if (failed && pivot === undefined) {
      this.undo(saga, entries, saga.onStuck === "halt", "", saga.name, { undone, stuck, notRun }, true)
    }
    const outcome = !failed
      ? "Completed"
      : pivot !== undefined
      ? "Committed"
      : stuck.length > 0
      ? "Stuck"
      : "Compensated"
    this.tell(`${saga.name} ends ${outcome}`)
    return { outcome, pivot, undone, stuck, notRun, entries }
  }

  private tell(event: string): void {
    this.told.push({ event, rank: this.rank++ })
  }

  private attempt(saga: string, { dies, failures, name }: StepSpec): boolean {
    for (let attempt = 1; attempt <= tries; attempt++) {
      this.tell(`${saga}: ${name} forward ${attempt}`)
      const end = dies ? "defect" : attempt <= failures ? "failure" : "success"
      this.tell(`${saga}: ${name} forward ${attempt} ${end}`)
      if (end === "success") {
        this.done.set(name, 1)
        return true
      }
      if (end === "defect") return false
    }
    return false
  }

  /** Whether anything is stuck. */
  private undo(
    saga: SagaSpec,
    entries: ReadonlyArray<Entry>,
    halts: boolean,
    prefix: string,
    teller: string,
    report: { undone: Array<string>; stuck: Array<string>; notRun: Array<string> },
    alone: boolean
  ): boolean {
    const batches: Array<Array<Entry>> = []
    const ofGroup = new Map<string, Array<Entry>>()
    for (const entry of entries.toReversed()) {
      const group = "step" in entry ? entry.step.group : undefined
      const before = saga.order === "parallel"
        ? batches[0]
        : saga.order === "grouped" && group !== undefined
        ? ofGroup.get(group)
        : undefined
      if (before !== undefined) before.push(entry)
      else {
        const batch = [entry]
        batches.push(batch)
        if (group !== undefined) ofGroup.set(group, batch)
      }
    }
    let isStuck = false
    for (const batch of batches) {
      if (isStuck && halts) {
        const skip = (entry: Entry, prefix: string): void => {
          if ("step" in entry) report.notRun.push(prefix + entry.step.name)
          else for (const each of entry.entries.toReversed()) skip(each, `${prefix}${entry.saga.name}/`)
        }
        for (const entry of batch) skip(entry, prefix)
        continue
      }
      const single = alone && batch.length === 1
      for (const entry of batch) {
        if ("step" in entry) {
          if (this.undoStep(entry.step, prefix + entry.step.name, teller, report, single)) isStuck = true
        } else {
          const within = `${prefix}${entry.saga.name}/`
          const halting = halts || entry.saga.onStuck === "halt"
          if (this.undo(entry.saga, entry.entries, halting, within, teller, report, single)) isStuck = true
        }
      }
      if (alone) this.rank++
    }
    return isStuck
  }

  private undoStep(
    { name, undoFailures }: StepSpec,
    step: string,
    teller: string,
    report: { undone: Array<string>; stuck: Array<string> },
    alone: boolean
  ): boolean {
    for (let attempt = 1; attempt <= tries; attempt++) {
      const end = attempt <= undoFailures ? "failure" : "success"
      for (
        const event of [`${teller}: ${step} compensate ${attempt}`, `${teller}: ${step} compensate ${attempt} ${end}`]
      ) {
        this.told.push({ event, rank: alone ? this.rank++ : this.rank })
      }
      if (end === "success") {
        report.undone.push(step)
        this.done.set(name, (this.done.get(name) ?? 0) - 1)
        return false
      }
    }
    report.stuck.push(step)
    return true
  }
}
