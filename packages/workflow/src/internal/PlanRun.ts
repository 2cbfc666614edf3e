/**
 * One run of a plan: a preview, a question, and the changes.
 *
 * Both passes go through the steps in the order of the plan, as many at once as it allows. `stopped` says why nothing more
 * is started: the first failure, or what cut the run.
 *
 * @internal
 */
import * as Group from "@effect-orchestra/core/Group"
import * as Joiner from "@effect-orchestra/core/Joiner"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Formatter from "effect/Formatter"
import * as Predicate from "effect/Predicate"
import type { Need, Plan, Progress, RunOptions } from "../Plan.ts"
import { type Ending, formatState, knownAfter, type Mode, nameOf, type Report, type StepState } from "../PlanReport.ts"
import { PlanError, PlanRefused } from "../WorkflowError.ts"
import { type Node, ordered, problemsOf, selected, type Selection, standingOn } from "./PlanGraph.ts"
import { type Ended, type Failure, type Phase, PlanTasks } from "./PlanTasks.ts"

/** A step as its run sees it. What its effects require stands in the context of the run. */
export interface Work extends Node {
  readonly concurrency: number
  readonly items: ReadonlyArray<Item> | Effect.Effect<ReadonlyArray<Item>, unknown>
}

export interface Item {
  readonly key: string | null
  readonly check: Effect.Effect<Need, unknown>
  readonly apply: Effect.Effect<unknown, unknown>
}

interface Line {
  readonly step: string
  readonly key: string | null
  /** None of a step whose items are not known, or that has none. */
  readonly item: Item | undefined
  state: StepState
  /** Whether what it says has to be found out again, because what it stands on is not applied yet. */
  open: boolean
  millis: number
}

/** What keeps a plan from being run, if anything does: it is found out without running anything of it. */
export const planErrorOf = (plan: Plan<unknown, unknown>, selection: Selection): PlanError | undefined => {
  const steps = worksOf(plan)
  const problems = [
    ...problemsOf(steps, selection),
    ...[plan, ...steps].flatMap(({ concurrency, name }) =>
      Number.isInteger(concurrency) && concurrency > 0
        ? []
        : [`the concurrency of "${name}" is a positive integer, got: ${concurrency}`]
    )
  ]
  return problems.length > 0 ? new PlanError({ plan: plan.name, problems }) : undefined
}

// Every step is made by `stepOf`.
const worksOf = (plan: Plan<unknown, unknown>) => plan.steps as unknown as ReadonlyArray<Work>

/** Runs a plan, unless it has problems. What it requires is in the type of `Plan.run`. */
export const runPlan = (
  plan: Plan<unknown, unknown>,
  options: RunOptions<Mode, unknown>
): Effect.Effect<Report, PlanError | PlanRefused, unknown> =>
  Effect.suspend((): Effect.Effect<Report, PlanError | PlanRefused> =>
    planErrorOf(plan, options) ?? planRun(plan.name, plan.concurrency, worksOf(plan), options as RunOptions<Mode>)
  )

const planRun = (
  name: string,
  concurrency: number,
  steps: ReadonlyArray<Work>,
  options: RunOptions<Mode>
): Effect.Effect<Report, PlanRefused> => {
  let report: Report | undefined = undefined
  return Group.run((group) => {
    const run = new PlanRun(name, concurrency, steps, options, group)
    return Effect.map(run.all, (made) => void (report = made))
  }, { name: `plan ${name}`, joiner: Joiner.collect }).pipe(
    // The group returns the ends of its tasks, after the body has made the report.
    Effect.flatMap(() => report === undefined ? Effect.interrupt : Effect.succeed(report)),
    Effect.withSpan(`plan ${name}`, { attributes: { "plan.mode": options.mode } })
  )
}

class PlanRun {
  private readonly plan: string
  private readonly concurrency: number
  private readonly options: RunOptions<Mode>
  private readonly tasks: PlanTasks
  private readonly order: ReadonlyArray<Work>
  private readonly below: ReadonlyMap<string, ReadonlyArray<string>>
  private readonly selected: ReadonlySet<string>
  private readonly lines: Map<string, ReadonlyArray<Line>>
  /** Why nothing more is started. */
  private stopped: string | undefined = undefined
  private phase: "preview" | "apply" = "preview"
  /** Whether a destructive change that the preview did not show may be applied. */
  private allowed = false
  private declined = false
  private done = 0
  private total: number
  private tell: ((progress: Progress) => void) | undefined

  constructor(
    name: string,
    concurrency: number,
    steps: ReadonlyArray<Work>,
    options: RunOptions<Mode>,
    group: Group.Group
  ) {
    this.plan = name
    this.concurrency = concurrency
    this.options = options
    this.tasks = new PlanTasks(group, options)
    this.order = ordered(steps)
    this.below = standingOn(this.order)
    this.selected = selected(steps, options)
    this.lines = new Map(this.order.map(({ name }) => [name, [
      line(name, null, undefined, { _tag: "NotRun", why: this.selected.has(name) ? "not reached" : "not selected" })
    ]]))
    this.total = this.selected.size
    this.tell = options.onProgress
  }

  get all() {
    return Effect.gen({ self: this }, function*() {
      if (this.options.cut !== undefined) {
        yield* Effect.forkChild(Effect.flatMap(this.options.cut, (by) => this.cut(by)), { startImmediately: true })
      }
      yield* this.inOrder((step) => this.preview(step))
      if (this.options.mode === "apply") {
        const failed = this.first("Failed")
        if (failed !== undefined && this.options.keepGoing !== true) this.stopWith(`${nameOf(failed)} failed`)
        if (yield* this.agreed) {
          this.beginApply()
          yield* this.inOrder((step) => this.apply(step))
        }
      }
      return this.report
    })
  }

  /**
   * Visits the steps, the first in the order of which everything it stands on was visited. As many at once as the plan
   * allows: each worker takes one, or waits until another has done one.
   */
  private inOrder<R>(visit: (step: Work) => Effect.Effect<void, never, R>): Effect.Effect<void, never, R> {
    const waiting = new Set(this.order)
    const visited = new Set<string>()
    let change = Deferred.makeUnsafe<void>()
    const worker = Effect.gen({ self: this }, function*() {
      while (waiting.size > 0) {
        // Taken before the look, so that no visit that ends in between is missed.
        const changed = change
        const next = this.order.find((step) => waiting.has(step) && step.after.every((on) => visited.has(on)))
        if (next === undefined) {
          yield* Deferred.await(changed)
          continue
        }
        waiting.delete(next)
        yield* visit(next)
        visited.add(next.name)
        const ended = change
        change = Deferred.makeUnsafe()
        Deferred.doneUnsafe(ended, Exit.void)
      }
    })
    const workers = Array.from({ length: Math.min(this.concurrency, this.order.length) }, () => worker)
    return Effect.all(workers, { concurrency: "unbounded", discard: true })
  }

  private preview(step: Work) {
    const [only] = this.linesOf(step.name)
    const by = this.blockedBy(step)
    const pending = this.standsOn(step).findLast((on) => this.linesOf(on).some(isPending))
    if (only === undefined || !this.selected.has(step.name)) return Effect.void
    if (by !== undefined) return this.settle(only, { _tag: "Blocked", by })
    if (this.stopped !== undefined) return this.settle(only, { _tag: "NotRun", why: this.stopped })
    if (pending === undefined || isListed(step.items)) return this.resolve(step, pending)
    only.open = true
    return this.settle(only, { _tag: "WouldApply", what: `${knownAfter}${pending})`, destructive: false })
  }

  private apply(step: Work) {
    return Effect.gen({ self: this }, function*() {
      if (!this.selected.has(step.name)) return
      const by = this.blockedBy(step)
      const lines = this.linesOf(step.name)
      const again = lines.some(({ open }) => open) ||
        this.standsOn(step).some((on) => this.linesOf(on).some(({ state }) => state._tag === "Applied"))
      const open = by !== undefined
        ? lines.filter(({ state }) => state._tag !== "Blocked")
        : again
        ? lines
        : lines.filter(isPending)
      this.total += open.filter((line) => !isPending(line)).length
      if (by !== undefined) return yield* this.settleAll(open, { _tag: "Blocked", by })
      if (this.stopped !== undefined) return yield* this.settleAll(open, { _tag: "NotRun", why: this.stopped })
      if (again) yield* this.resolve(step)
      yield* Effect.forEach(this.linesOf(step.name).filter(isPending), (line) => this.applyLine(line), {
        concurrency: step.concurrency,
        discard: true
      })
    })
  }

  /** Reads the items of a step and checks them. `pending` is what it stands on and will be applied, in a preview. */
  private resolve(step: Work, pending?: string) {
    return Effect.gen({ self: this }, function*() {
      const [old] = this.linesOf(step.name)
      if (old === undefined) return
      const listed = isListed(step.items)
        ? { _tag: "Success" as const, value: step.items }
        : yield* this.task(old, "check", step.items)
      if (listed._tag !== "Success") return yield* this.unchecked(old, listed, pending)
      const items = listed.value
      const twice = duplicate(items.map(({ key }) => key))
      if (twice !== undefined) {
        return yield* this.fail(old, "check", { error: `two items have the key "${twice}"`, errorType: "DuplicateKey" })
      }
      if (items.length === 0) return yield* this.settle(old, { _tag: "Satisfied", why: "no items" })
      const lines = items.map((item) => line(step.name, item.key, item, old.state, old.millis))
      this.total += lines.length - this.linesOf(step.name).length
      this.lines.set(step.name, lines)
      yield* Effect.forEach(lines, (line) => this.checkLine(line, pending), {
        concurrency: step.concurrency,
        discard: true
      })
    })
  }

  private checkLine(line: Line, pending: string | undefined) {
    return Effect.gen({ self: this }, function*() {
      if (line.item === undefined) return
      if (this.stopped !== undefined) return yield* this.settle(line, { _tag: "NotRun", why: this.stopped })
      yield* this.say({ _tag: "Checking", ...this.at(line) })
      const ended = yield* this.task(line, "check", line.item.check)
      if (ended._tag !== "Success") return yield* this.unchecked(line, ended, pending)
      if (!isNeed(ended.value)) return yield* this.fail(line, "check", noNeed(ended.value))
      if (ended.value._tag === "Satisfied") return yield* this.settle(line, { _tag: "Satisfied", why: ended.value.why })
      const { destructive = false, what } = ended.value
      const state = { _tag: "WouldApply", what, destructive } as const
      if (this.phase === "preview") yield* this.settle(line, state)
      else line.state = state
    })
  }

  /** What a check that has no answer means. */
  private unchecked(
    line: Line,
    ended: Exclude<Ended<never>, { readonly _tag: "Success" }>,
    pending: string | undefined
  ) {
    if (ended._tag === "Cut") {
      return ended.abandoned
        ? this.fail(line, "check", abandoned)
        : this.settle(line, { _tag: "NotRun", why: this.why })
    }
    if (pending === undefined) return this.fail(line, "check", ended)
    // It may need what will be applied before it.
    line.open = true
    const what = `${knownAfter}${pending}; now: ${ended.error})`
    return this.settle(line, { _tag: "WouldApply", what, destructive: false })
  }

  private applyLine(line: Line) {
    return Effect.gen({ self: this }, function*() {
      const { item, state } = line
      if (item === undefined || state._tag !== "WouldApply") return
      if (this.stopped !== undefined) return yield* this.settle(line, { _tag: "NotRun", why: this.stopped })
      if (state.destructive && !this.allowed) return yield* this.fail(line, "apply", unasked(state.what))
      yield* this.say({ _tag: "Applying", ...this.at(line), what: state.what })
      const ended = yield* this.task(line, "apply", item.apply)
      if (ended._tag === "Success") return yield* this.settle(line, { _tag: "Applied", what: state.what })
      if (ended._tag === "Failure") return yield* this.fail(line, "apply", ended)
      if (!ended.begun) return yield* this.settle(line, { _tag: "NotRun", why: this.why })
      const interrupted = { error: `interrupted, ${this.why}`, errorType: "Interrupted" }
      return yield* this.fail(line, "apply", ended.abandoned ? abandoned : interrupted)
    })
  }

  private task<A>(line: Line, phase: Phase, effect: Effect.Effect<A, unknown>) {
    // A check that has its turn may answer when something failed beside it.
    const stopped = () => (phase === "check" ? this.tasks.cutBy : this.stopped) !== undefined
    return Effect.tap(this.tasks.run(line, phase, effect, stopped), ({ millis }) => {
      line.millis += millis
      return Effect.void
    })
  }

  /** Whether to go on to the changes, or to say what is not run because the run has stopped. */
  private get agreed(): Effect.Effect<boolean, PlanRefused> {
    const pending = this.every.filter(isPending)
    if (this.stopped !== undefined || pending.length === 0) return Effect.succeed(true)
    const { confirm, force } = this.options
    this.allowed = force === true || confirm !== undefined
    if (force === true) return Effect.succeed(true)
    if (confirm === undefined) {
      const details = pending.filter(({ state }) => state._tag === "WouldApply" && state.destructive)
        .map((line) => `${nameOf(line)}: ${formatState(line.state)}`)
      return details.length === 0
        ? Effect.succeed(true)
        : Effect.fail(new PlanRefused({ plan: this.plan, reason: "destructive", details }))
    }
    const answer = Effect.tap(confirm(this.report), (yes) => Effect.sync(() => void (this.declined = !yes)))
    return Effect.raceFirst(answer, Effect.as(this.tasks.wasCut, true))
  }

  private beginApply(): void {
    this.phase = "apply"
    this.done = 0
    this.total = this.every.filter(isPending).length
  }

  /** Stops the run from outside. */
  private cut(by: unknown): Effect.Effect<void> {
    const why = typeof by === "string" ? `stopped by ${by}` : "stopped"
    this.stopWith(why)
    return this.tasks.cut(why)
  }

  /** Why something was not run, or not to its end. */
  private get why(): string {
    return this.tasks.cutBy ?? this.stopped ?? "stopped"
  }

  private stopWith(why: string): void {
    this.stopped ??= why
  }

  private fail(line: Line, phase: Phase, { error, errorType }: Failure) {
    if (this.phase === "apply" && this.options.keepGoing !== true) this.stopWith(`${nameOf(line)} failed`)
    return this.settle(line, { _tag: "Failed", phase, error, errorType })
  }

  private settle(line: Line, state: StepState): Effect.Effect<void> {
    return Effect.suspend(() => {
      line.state = state
      this.done++
      return this.say({ _tag: "Ended", ...this.at(line), state, durationMillis: line.millis })
    })
  }

  private settleAll(lines: ReadonlyArray<Line>, state: StepState) {
    return Effect.forEach(lines, (line) => this.settle(line, state), { discard: true })
  }

  private at({ key, step }: Line) {
    return { phase: this.phase, step, key, done: this.done, total: this.total }
  }

  private say(progress: Progress): Effect.Effect<void> {
    try {
      this.tell?.(progress)
      return Effect.void
    } catch (defect) {
      this.tell = undefined
      return Effect.logWarning(`the progress of plan ${this.plan} is told no more`, Cause.die(defect))
    }
  }

  private linesOf(step: string): ReadonlyArray<Line> {
    return this.lines.get(step) ?? []
  }

  private standsOn(step: Work): ReadonlyArray<string> {
    return this.below.get(step.name) ?? []
  }

  private blockedBy(step: Work): string | undefined {
    return this.standsOn(step).find((on) => this.linesOf(on).some(({ state }) => state._tag === "Failed"))
  }

  private get every(): ReadonlyArray<Line> {
    return this.order.flatMap(({ name }) => this.linesOf(name))
  }

  private first(tag: StepState["_tag"]): Line | undefined {
    return this.every.find(({ state }) => state._tag === tag)
  }

  private get report(): Report {
    const steps = this.every.map(({ key, millis, state, step }) => ({ step, key, state, durationMillis: millis }))
    return { plan: this.plan, mode: this.options.mode, ending: this.ending, steps }
  }

  private get ending(): Ending {
    const applied = this.first("Applied") !== undefined
    if (this.tasks.cutBy !== undefined) return "cut"
    if (this.declined) return "aborted"
    if (this.first("Failed") !== undefined) return applied ? "partial" : "failed"
    if (this.first("WouldApply") !== undefined) return "previewed"
    return applied ? "done" : "nothing"
  }
}

const line = (step: string, key: string | null, item: Item | undefined, state: StepState, millis = 0): Line => ({
  step,
  key,
  item,
  state,
  open: false,
  millis
})

const isPending = ({ state }: Line): boolean => state._tag === "WouldApply"

const isListed = (items: Work["items"]): items is ReadonlyArray<Item> => Array.isArray(items)

const duplicate = <A>(values: ReadonlyArray<A>): A | undefined => {
  const seen = new Set<A>()
  return values.find((value) => seen.size === seen.add(value).size)
}

/** What no compiler saw may say anything, and the report of what was applied is not to be lost by it. */
const isNeed = (said: unknown): boolean =>
  Predicate.isTagged(said, "Satisfied")
    ? "why" in said && typeof said.why === "string"
    : Predicate.isTagged(said, "Change") && "what" in said && typeof said.what === "string"

const noNeed = (said: unknown) => ({
  error: `a check says Satisfied and why, or Change and what, got: ${Formatter.format(said)}`,
  errorType: "NoNeed"
})

const abandoned = { error: "did not end when it was interrupted, and was abandoned", errorType: "Abandoned" }

const unasked = (what: string) => ({
  error: `would ${what}, which is destructive and was not in the preview; it needs force (--force)`,
  errorType: "PlanRefused"
})
