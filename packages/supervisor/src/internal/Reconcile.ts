/**
 * How a running supervisor is brought to another specification: what differs, in which order that is changed, and how it
 * is taken back when a child does not start.
 *
 * @internal
 */
import { path, type StopLimits } from "@effect-orchestra/core/Kernel"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Equal from "effect/Equal"
import * as Exit from "effect/Exit"
import * as Semaphore from "effect/Semaphore"
import { type Any as AnyChild, type Body, type ChildSpec, problemOf } from "../Child.ts"
import { affected, cycle } from "../Restart.ts"
import type { Any, ReconcileReport } from "../Supervisor.ts"
import { InvalidChild, type StartFailure, type SupervisorNotRunning } from "../SupervisorError.ts"
import { exportsOf } from "./Exports.ts"
import { asked, occupied, refused, startSlot } from "./Operations.ts"
import { Policy, type Slot } from "./Slot.ts"
import { inherited, standing } from "./Starts.ts"
import type { SupervisorNode } from "./SupervisorNode.ts"

/** What it was, for when it has to be so again. */
interface Before {
  readonly slot: Slot
  readonly body: Body | undefined
  readonly policy: Policy
  readonly context: Context.Context<never>
  readonly runs: boolean
}

const flags = [
  "strategy",
  "intensity",
  "period",
  "autoShutdown",
  "restartStopped",
  "attemptBudget",
  "concurrentRestarts",
  "propagateTermination",
  "unavailable"
] as const

/** One at a time for each supervisor. */
const turns = new WeakMap<SupervisorNode, Semaphore.Semaphore>()

const turnOf = (node: SupervisorNode): Semaphore.Semaphore => {
  const turn = turns.get(node) ?? Semaphore.makeUnsafe(1)
  turns.set(node, turn)
  return turn
}

export const reconcile = (
  node: SupervisorNode,
  next: Any
): Effect.Effect<ReconcileReport, StartFailure | InvalidChild | SupervisorNotRunning> =>
  turnOf(node).withPermit(Effect.withFiber((
    fiber
  ): Effect.Effect<ReconcileReport, StartFailure | InvalidChild | SupervisorNotRunning> => {
    if (node.isStopping) return refused(node)
    const supervisor = path(node)
    const invalid = (child: string, problem: string) => Effect.fail(new InvalidChild({ supervisor, child, problem }))
    if (next.name !== node.name) return invalid(next.name, `the name of a supervisor is kept, got: ${next.name}`)
    const problem = problemOf(next)
    if (problem !== undefined) return invalid(problem.child, `${problem.rule}, got: ${problem.got}`)
    const context = Context.merge(node.context, inherited(fiber.context))
    return new Change(node, next, context, asked(fiber)).done
  }))

/** Whether a child runs the same thing. */
const sameBody = (slot: Slot, { body }: AnyChild): boolean => {
  const own = slot.body
  if (own === undefined || own._tag !== body._tag) return own === undefined
  if (own._tag === "Effect" && body._tag === "Effect") return own.effect === body.effect
  if (own._tag === "Layer" && body._tag === "Layer") return own.layer === body.layer
  return own._tag === "Supervisor" && body._tag === "Supervisor" && own.spec === body.spec
}

const same = (a: unknown, b: unknown): boolean =>
  Duration.isDuration(a) && Duration.isDuration(b) ? Duration.equals(a, b) : Equal.equals(a, b)

const sameSpec = (a: ChildSpec, b: ChildSpec): boolean =>
  (Object.keys({ ...a, ...b }) as ReadonlyArray<keyof ChildSpec>).every((key) => same(a[key], b[key]))

class Change {
  private readonly node: SupervisorNode
  private readonly next: Any
  private readonly context: Context.Context<never>
  private readonly limits: StopLimits
  private readonly spec: Any
  private readonly before: ReadonlyArray<Before>
  private readonly children: ReadonlyMap<string, AnyChild>
  private readonly report: ReconcileReport
  private readonly made = new Set<Slot>()

  constructor(node: SupervisorNode, next: Any, context: Context.Context<never>, limits: StopLimits) {
    this.node = node
    this.next = next
    this.context = context
    this.limits = limits
    this.spec = node.spec
    this.before = node.all.filter(({ doomed }) => !doomed).map((slot) => ({
      slot,
      body: slot.body,
      policy: slot.policy,
      context: slot.context,
      runs: slot.wanted
    }))
    this.children = new Map(next.children.map((child) => [child.id, child]))
    this.report = this.difference()
  }

  private difference(): ReconcileReport {
    const present = new Map(this.before.map(({ slot }) => [slot.id, slot]))
    const kept = this.next.children.flatMap((child) => {
      const slot = present.get(child.id)
      return slot === undefined ? [] : [{ child, slot }]
    })
    const replaced = kept.filter(({ child, slot }) => !sameBody(slot, child)).map(({ slot }) => slot.id)
    const updated = kept.filter(({ child, slot }) =>
      !replaced.includes(slot.id) && !sameSpec(slot.policy.spec, child.spec)
    ).map(({ slot }) => slot.id)
    const specs = this.next.children.map(({ spec }) => spec)
    const failed = specs.filter(({ id }) => replaced.includes(id))
    // Under a group strategy what stands on a child is rebuilt with it.
    const touched = failed.length === 0 ? [] : affected(this.next.strategy, specs, failed).map(({ id }) => id)
    const restarted = touched.filter((id) => present.get(id)?.wanted === true && !replaced.includes(id))
    const changed = new Set([...replaced, ...updated, ...restarted])
    return {
      added: specs.map(({ id }) => id).filter((id) => !present.has(id)),
      removed: [...present.keys()].filter((id) => !this.children.has(id)),
      replaced,
      updated,
      restarted,
      unchanged: kept.map(({ slot }) => slot.id).filter((id) => !changed.has(id)),
      flags: flags.filter((flag) => !same(this.spec[flag], this.next[flag]))
    }
  }

  get done(): Effect.Effect<ReconcileReport, StartFailure | SupervisorNotRunning> {
    return Effect.onExit(
      this.changes,
      (exit) => Exit.isSuccess(exit) || this.node.isStopping ? Effect.void : this.takenBack
    )
  }

  private get changes(): Effect.Effect<ReconcileReport, StartFailure | SupervisorNotRunning> {
    const { added, removed, replaced, restarted } = this.report
    const stopped = this.before.filter(({ slot }) => [...removed, ...replaced, ...restarted].includes(slot.id))
    for (const { slot } of stopped) slot.doomed = removed.includes(slot.id)
    return Effect.suspend(() => this.stop(stopped.map(({ slot }) => slot))).pipe(
      Effect.andThen(Effect.suspend((): Effect.Effect<void, StartFailure | SupervisorNotRunning> => {
        // It may have been stopped meanwhile, and takes nobody in any more.
        if (this.node.isStopping) return refused(this.node)
        const taken = this.taken
        if (taken !== undefined) return occupied(this.node, taken.id, taken.record.isFinal ? "abandoned" : taken.state)
        this.apply(this.next, this.next.children.flatMap((child) => this.slotOf(child) ?? []))
        const started = [...added, ...replaced, ...restarted]
        const wasStopped = (slot: Slot) =>
          this.before.some((before) => before.slot === slot && !before.runs && !slot.quarantined)
        return this.start(this.node.all.filter((slot) => started.includes(slot.id) && !wasStopped(slot)))
      })),
      Effect.as(this.report)
    )
  }

  /** Who has an id that is to be added: somebody has added it meanwhile, or it was removed and has not ended yet. */
  private get taken(): Slot | undefined {
    return this.report.added.flatMap((id) => this.node.slots.get(id) ?? []).find((slot) =>
      !slot.doomed || (slot.isLive && this.children.get(slot.id)?.spec.onUnstoppable === "wait")
    )
  }

  /** The child in its place, as it is to be from now on; nothing where it has gone by itself meanwhile. */
  private slotOf(child: AnyChild): Slot | undefined {
    const known = this.before.find(({ slot }) => slot.id === child.id)?.slot
    if (known === undefined) {
      const slot = this.node.add(child, this.context)
      this.made.add(slot)
      return slot
    }
    if (!this.isKept(known)) return undefined
    if (!sameBody(known, child)) known.context = this.context
    if (this.isStopped(known)) {
      // A temporary one was forgotten when it was stopped, and what it runs when it was started.
      known.body = child.body
      known.doomed = false
    }
    known.policy = new Policy(child.body._tag, child.spec)
    // A temporary one has not kept what it runs, and may run again from now on.
    if (known.policy.restart !== "temporary") known.body ??= child.body
    const [own, next] = [known.window, known.policy.window]
    if (own?.intensity !== next?.intensity || own?.period !== next?.period) known.window = next
    return known
  }

  /** Whether it is stopped here. */
  private isStopped({ id }: Slot): boolean {
    const { removed, replaced, restarted } = this.report
    return [...removed, ...replaced, ...restarted].includes(id)
  }

  /** Whether it still has its place: nobody else has forgotten it, or put another there. */
  private isKept(slot: Slot): boolean {
    const present = this.node.slots.get(slot.id)
    return present === slot || (present === undefined && slot.doomed && this.isStopped(slot))
  }

  private apply(spec: Any, slots: ReadonlyArray<Slot>): void {
    this.node.spec = spec
    this.node.restarts.tune(spec)
    // What was removed and still runs stays until it has ended, and what was added by hand meanwhile stays.
    const known = new Set([...this.before.map(({ slot }) => slot), ...this.made])
    const ids = new Set(slots.map(({ id }) => id))
    const left = this.node.all.filter((slot) => !ids.has(slot.id) && (slot.doomed || !known.has(slot)))
    for (const slot of left) this.loosen(slot, [...slots, ...left])
    this.node.arrange([...slots, ...left])
    exportsOf(this.node).update()
  }

  /** One that was added by hand meanwhile depends on nobody who depends on it again. */
  private loosen(slot: Slot, all: ReadonlyArray<Slot>): void {
    const others = all.filter((other) => other !== slot).map(({ policy }) => policy.spec)
    const { spec } = slot.policy
    const dependsOn = spec.dependsOn.filter((on) => cycle([...others, { ...spec, dependsOn: [on] }]) === undefined)
    if (dependsOn.length < spec.dependsOn.length) slot.policy = slot.policy.dependingOn(dependsOn)
  }

  private stop(slots: ReadonlyArray<Slot>): Effect.Effect<void> {
    return Effect.forEach(
      slots.toReversed(),
      (slot) =>
        Effect.callback<void>((resume) => {
          this.node.submit(() =>
            this.node.terminateSlot(slot, this.limits, () => this.node.writer.wake({ run: () => resume(Effect.void) }))
          )
        }),
      { discard: true }
    )
  }

  private start(slots: ReadonlyArray<Slot>): Effect.Effect<void, StartFailure | SupervisorNotRunning> {
    return Effect.forEach(slots, (slot) => startSlot(this.node, slot, this.limits), { discard: true })
  }

  /** Everything is again what it was before. */
  private get takenBack(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const changed = this.before.filter(({ slot }) => this.isStopped(slot))
      const undone = this.node.all.filter((slot) =>
        this.made.has(slot) || changed.some((before) => before.slot === slot)
      )
      for (const slot of this.made) slot.doomed = true
      return Effect.andThen(
        this.stop(undone),
        Effect.suspend(() => {
          if (this.node.isStopping) return Effect.void
          // What a temporary one has run is not known any more.
          const kept = this.before.filter(({ body, slot }) =>
            this.isKept(slot) && (body !== undefined || !this.isStopped(slot))
          )
          for (const { body, context, policy, slot } of kept) {
            Object.assign(slot, { body, context, policy })
            if (this.isStopped(slot)) slot.doomed = false
          }
          this.apply(this.spec, kept.map(({ slot }) => slot))
          // One that was abandoned stays stopped.
          const again = changed.flatMap((before) => {
            const { runs, slot } = before
            const isFree = runs && !slot.quarantined && !slot.isLive && standing(slot) === undefined
            return kept.includes(before) && isFree ? [slot] : []
          })
          for (const slot of again) this.node.revive(slot)
          if (again.length > 0) this.node.open({ members: again, offenders: [], kind: "restart" })
          return Effect.void
        })
      )
    })
  }
}
