/**
 * Which children of a supervisor are to be restarted, with whom, after what delay, and whether the budgets allow it.
 *
 * @internal
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pull from "effect/Pull"
import * as Schedule from "effect/Schedule"
import { affected, Window } from "../Restart.ts"
import type { Any } from "../Supervisor.ts"
import type { Round } from "./Round.ts"
import type { Slot } from "./Slot.ts"
import { standing } from "./Starts.ts"
import type { SupervisorNode } from "./SupervisorNode.ts"

/** So many causes are kept for whoever asks why it gave up. */
const keptCauses = 10

type Failure = readonly [Slot, Exit.Exit<unknown, unknown>]

/** Which budgets an attempt has been charged to: the shared one, and those of everything below a supervisor. */
interface Paid {
  shared: boolean
  below: boolean
}

/** What joins an attempt that has been charged. */
const settled: Paid = { shared: true, below: true }

export class Restarts {
  private readonly node: SupervisorNode
  /** What is to be restarted, and how it ended. */
  private readonly failed = new Map<Slot, Exit.Exit<unknown, unknown>>()
  /** What waits for a dependency to run again. */
  private readonly held = new Set<Slot>()
  /** The last causes of restarts, oldest first. */
  readonly causes: Array<Cause.Cause<unknown>> = []
  /** The budget that its children share. */
  window: Window
  /** The budget of everything below it. */
  private subtree: Window | undefined

  constructor(node: SupervisorNode, { attemptBudget, intensity, period }: Any) {
    this.node = node
    this.window = new Window(intensity, Duration.toMillis(period))
    this.subtree = subtreeOf(attemptBudget)
  }

  /** Other budgets apply from now on, and count from 0; the same go on. */
  tune({ attemptBudget, intensity, period }: Any): void {
    const millis = Duration.toMillis(period)
    if (intensity !== this.window.intensity || millis !== this.window.period) {
      this.window = new Window(intensity, millis)
    }
    const subtree = subtreeOf(attemptBudget)
    if (subtree?.intensity !== this.subtree?.intensity || subtree?.period !== this.subtree?.period) {
      this.subtree = subtree
    }
  }

  /** A child is to be restarted: at once, or under a group strategy with whatever else fails in the same turn. */
  add(slot: Slot, exit: Exit.Exit<unknown, unknown>): void {
    const { node } = this
    if (node.strategy === "one_for_one" && slot.round === undefined) return this.restartAlone(slot, exit)
    this.failed.set(slot, exit)
    if (node.strategy !== "one_for_one") this.next()
  }

  /** Something is over that others may have waited for: what has failed comes before what was held. */
  next(): void {
    if (this.failed.size === 0 && this.held.size === 0) return
    if (this.node.strategy === "one_for_one") return this.act()
    this.node.writer.nextTurn({
      run: () => {
        this.act()
        this.resume()
      }
    })
  }

  /** The shortest way: a child that starts at once needs no round, unless its finalizers take their time. */
  private restartAlone(slot: Slot, exit: Exit.Exit<unknown, unknown>): void {
    if (!this.affords(slot, exit, { shared: false, below: false })) return
    this.node.decided(slot, "restart", exit)
    if (slot.policy.isDirect && slot.isLive && this.node.spec.concurrentRestarts === Infinity) slot.isDirect = true
    else this.openAlone(slot)
  }

  /**
   * Somebody wants a child that is to run to run anew, with those that its strategy restarts with it: uncharged, and not
   * while another round is busy with one of them. Returns whether that is under way.
   */
  renew(slot: Slot, by: Context.Context<never>): boolean {
    const { node } = this
    if (node.status !== "running") return false
    if (slot.round !== undefined) return slot.round.hurry()
    if (!slot.isRunning) return false
    const touched = node.strategy === "one_for_one" ? [slot] : affected(node.strategy, node.all, [slot])
    const members = touched.filter(({ wanted }) => wanted)
    if (members.some(({ round, record }) => round !== undefined || record.isClosing)) return false
    for (const member of members) member.reason = member === slot ? "interrupted" : "sibling"
    node.open({ members, offenders: [], kind: "restart", halts: true, by })
    return true
  }

  openAlone(slot: Slot): void {
    slot.isDirect = false
    this.node.open({ members: [slot], offenders: [slot], kind: "restart" })
  }

  /** A child is not to be restarted any more, or has just been started: that makes good whatever it failed of before. */
  delete(slot: Slot): void {
    this.failed.delete(slot)
    this.held.delete(slot)
  }

  clear(): void {
    this.failed.clear()
    this.held.clear()
  }

  /** Restarts what has failed, as far as no round is busy with it. */
  act(): void {
    const { node } = this
    if (this.failed.size === 0 || node.status !== "running") return
    if (node.strategy === "one_for_one") {
      for (const [slot, exit] of this.failed) {
        if (slot.round !== undefined) continue
        this.failed.delete(slot)
        this.restartAlone(slot, exit)
        if (node.isStopping) return
      }
      return
    }
    const { all } = node
    const paid: Paid = { shared: false, below: false }
    for (const batch of this.batches(all)) {
      const members = affected(node.strategy, all, batch.map(([slot]) => slot))
      // A round that starts its members gets through first; one that only waits goes on in the new one.
      if (members.some(({ round }) => round?.isWaiting === false)) continue
      for (const [slot] of batch) this.failed.delete(slot)
      this.restart(batch, paid)
      if (node.isStopping) return
    }
  }

  /** What failed, in start order; under `dependency` those apart whose restarts touch no child in common. */
  private batches(all: ReadonlyArray<Slot>): ReadonlyArray<ReadonlyArray<Failure>> {
    const failures: ReadonlyArray<Failure> = all.flatMap((slot) => {
      const exit = this.failed.get(slot)
      return exit === undefined ? [] : [[slot, exit]]
    })
    if (this.node.strategy !== "dependency") return [failures]
    const batches: Array<{ readonly failures: Array<Failure>; readonly touched: Set<Slot> }> = []
    for (const failure of failures) {
      const touched = affected("dependency", all, [failure[0]])
      const overlapping = batches.filter((batch) => touched.some((slot) => batch.touched.has(slot)))
      const merged = {
        failures: [...overlapping.flatMap((batch) => batch.failures), failure],
        touched: new Set([...overlapping.flatMap((batch) => [...batch.touched]), ...touched])
      }
      for (const batch of overlapping) batches.splice(batches.indexOf(batch), 1)
      batches.push(merged)
    }
    return batches.map((batch) => batch.failures)
  }

  /**
   * Opens the round of those that failed, as far as their budgets allow it. A round that takes the place of one that
   * waited, and all rounds of the same turn, are counted once.
   */
  private restart(failures: ReadonlyArray<Failure>, paid: Paid): void {
    const { node } = this
    const { all, strategy } = node
    const touchedBy = (slots: ReadonlyArray<Slot>) => slots.length === 0 ? [] : affected(strategy, all, slots)
    const joins = touchedBy(failures.map(([slot]) => slot)).some(({ round }) => round?.until !== undefined)
    const admitted = failures.filter(([slot, exit]) =>
      !node.isStopping && this.affords(slot, exit, joins ? settled : paid)
    )
    if (node.isStopping) return
    const touched = touchedBy(admitted.map(([slot]) => slot))
    const rounds = new Set(touched.flatMap(({ round }) => round === undefined ? [] : [round]))
    const waiting = [...rounds].filter(({ until }) => until !== undefined)
    const until = waiting.length === 0 ? undefined : Math.max(...waiting.map(({ until = 0 }) => until))
    // Those that were to start after one that is not to run any more start without it.
    const refused = failures.flatMap((failure) => admitted.includes(failure) ? [] : [failure[0]])
    const left = touchedBy(refused.filter(({ quarantined }) => quarantined)).filter(({ isLive, round, wanted }) =>
      wanted && !isLive && round === undefined
    )
    const taken = new Set([...touched, ...left, ...waiting.flatMap((round) => round.staying)])
    for (const round of rounds) node.cancel(round)
    for (const [slot, exit] of admitted) node.decided(slot, taken.size > 1 ? "restart_group" : "restart", exit)
    const blamed = new Set([...waiting.flatMap(({ offends }) => offends), ...admitted.map(([slot]) => slot)])
    // OTP's rule: the restart of a group starts all of it.
    if (node.spec.restartStopped) {
      for (const slot of touched) {
        if (!slot.wanted && !slot.quarantined && !slot.doomed && !slot.isLive && standing(slot) === undefined) {
          node.revive(slot)
        }
      }
    }
    const members = all.filter((slot) => slot.wanted && taken.has(slot))
    if (members.length === 0) return
    const offenders = [...blamed].filter(({ wanted }) => wanted)
    for (const slot of members) if (!blamed.has(slot)) slot.reason = "sibling"
    node.open({ members, offenders, kind: "restart", until })
  }

  /** Why the next run of a child is needed. */
  private blame(slot: Slot, exit: Exit.Exit<unknown, unknown>): void {
    slot.lastExit = exit
    slot.reason = slot.record.reason(exit)
    this.note(exit)
  }

  private note(exit: Exit.Exit<unknown, unknown>): void {
    this.causes.push(Exit.isFailure(exit) ? exit.cause : Cause.fail("ended successfully"))
    if (this.causes.length > keptCauses) this.causes.shift()
  }

  /**
   * Charges an attempt to every budget that it is the matter of, but for those that are `paid`, and gives up on the child
   * when one is used up. What is no attempt is not charged.
   */
  private affords(slot: Slot, exit: Exit.Exit<unknown, unknown>, paid: Paid): boolean {
    const { node } = this
    const now = node.writer.now()
    this.blame(slot, exit)
    const { window } = slot
    if (window?.admit(now) !== true) {
      const isQuarantined = slot.policy.spec.onGiveUp === "quarantine"
      // Escalated: once in the shared budget, and the own one begins anew.
      slot.window = slot.policy.window
      const isShared = (window === undefined || !isQuarantined) && (paid.shared || this.window.admit(now))
      if (!isShared) {
        // Where a supervisor above may not try again either, that one gives up: it names the child.
        if (isQuarantined || paid.below || node.admitsBelow(slot, now, "look")) node.giveUpOn(slot, exit)
        return false
      }
      paid.shared = true
    }
    if (!paid.below && !node.admitsBelow(slot, now, "charge")) return false
    paid.below = true
    return true
  }

  /** Whether the budget of everything below allows one more, which is charged to it, or only looked for. */
  admits(now: number, how: "charge" | "look"): boolean {
    const { subtree } = this
    if (subtree === undefined) return true
    return how === "charge" ? subtree.admit(now) : subtree.used(now) < subtree.intensity
  }

  /** The delay before the next start in milliseconds, the longest of these; or the child whose schedule has ended. */
  delay(offenders: ReadonlyArray<Slot>, then: (delay: number | Slot) => void): void {
    const { context, writer } = this.node
    const delays = Effect.forEach(offenders, (slot) => this.nextDelay(slot))
    const told = (exit: Exit.Exit<ReadonlyArray<number | undefined>>) => {
      const [first] = offenders
      if (Exit.isSuccess(exit)) {
        const ended = offenders.find((_, i) => exit.value[i] === undefined)
        then(ended ?? Math.max(...exit.value.map((delay = 0) => delay)))
      } else if (first !== undefined) {
        // A defect in what the user gave, the schedule, is final.
        first.lastExit = exit
        this.note(exit)
        then(first)
      }
    }
    writer.wake({
      run: () =>
        void Effect.runForkWith(context)(delays).addObserver((exit) => writer.submit({ run: () => told(exit) }))
    })
  }

  private readonly nextDelay = Effect.fnUntraced(function*(this: Restarts, slot: Slot) {
    const { resetAfter, spec: { backoff } } = slot.policy
    if (backoff === undefined) return 0
    if (slot.ranMillis >= resetAfter) slot.step = undefined
    const step = slot.step ??= yield* Schedule.toStep(backoff)
    const cause = Exit.isFailure(slot.lastExit) ? slot.lastExit.cause : Cause.empty
    return yield* Pull.matchEffect(step(this.node.writer.now(), cause), {
      onSuccess: ([, delay]) => Effect.succeed<number | undefined>(Duration.toMillis(delay)),
      onDone: () => Effect.succeed(undefined),
      onFailure: Effect.failCause
    })
  })

  /** The backoff of a member has ended for good: the others go on without it, if the supervisor does. */
  exhausted(round: Round, slot: Slot): void {
    const { node } = this
    const { staying } = round
    node.cancel(round)
    node.giveUpOn(slot, slot.lastExit)
    if (node.isStopping) return
    const members = staying.filter(({ wanted }) => wanted)
    const offenders = round.offends.filter(({ wanted }) => wanted)
    if (members.length > 0) node.open({ members, offenders, kind: "restart" })
  }

  /** Puts a wider round in the place of one whose backoff is over, if its strategy touches children that came later. */
  widens(round: Round): boolean {
    const { node } = this
    if (node.strategy === "one_for_one") return false
    // What another round has begun to start stays with that.
    const touched = affected(node.strategy, node.all, round.offends).filter((slot) =>
      slot.wanted && slot.round?.isWaiting !== false
    )
    if (touched.every((slot) => slot.round === round)) return false
    const joined = new Set([...round.staying, ...touched])
    for (const each of new Set([round, ...touched.map((slot) => slot.round)])) if (each !== undefined) node.cancel(each)
    const members = node.all.filter((slot) => joined.has(slot))
    node.open({ members, offenders: round.offends, kind: "restart", until: node.writer.now() })
    return true
  }

  /** Whether all that a child depends on runs; else it waits for that. */
  holds(slot: Slot): boolean {
    if (this.node.strategy !== "dependency" || this.runsBelow(slot)) return true
    this.held.add(slot)
    return false
  }

  private runsBelow(slot: Slot, or?: ReadonlySet<string>): boolean {
    return slot.dependsOn.every((id) => or?.has(id) === true || this.node.slots.get(id)?.isRunning === true)
  }

  /** Starts what waited for a dependency that runs again. */
  private resume(): void {
    if (this.held.size === 0 || this.node.status !== "running") return
    let members = this.node.all.filter((slot) => this.held.has(slot) && slot.wanted && slot.round === undefined)
    // Those that wait for each other come together: the round starts each in its turn.
    for (let size = Infinity; members.length < size;) {
      size = members.length
      const ids = new Set(members.map(({ id }) => id))
      members = members.filter((slot) => this.runsBelow(slot, ids))
    }
    for (const slot of members) this.held.delete(slot)
    if (members.length > 0) this.node.open({ members, offenders: [], kind: "restart" })
  }
}

const subtreeOf = (budget: Any["attemptBudget"]): Window | undefined =>
  budget === undefined ? undefined : new Window(budget.attempts, Duration.toMillis(budget.period))
