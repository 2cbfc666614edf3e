/**
 * What a supervisor does, written to be read and not to be fast: lists, a clock that jumps, and tasks that wait until
 * a condition holds. Every list is in start order. With all durations zero it is OTP's `supervisor`.
 */

/** What a start does when its time has come. */
export type Outcome = "ok" | "fail" | "ignore"

/** How a run is told to end; `kill` is the interruption by a stranger. */
export type End = "success" | "failure" | "kill" | "ignore" | "done"

export interface ChildSpec {
  readonly id: string
  readonly restart: "permanent" | "transient" | "temporary"
  readonly significant?: boolean
  readonly dependsOn?: ReadonlyArray<string>
  /** How long a start takes, how long it takes to end, and then to release what it held. */
  readonly startMillis?: number
  readonly stopMillis?: number
  readonly closeMillis?: number
  /** The delay before each automatic restart. */
  readonly backoffMillis?: number
  /** Makes it a supervisor. */
  readonly tree?: SupervisorSpec
}

export interface SupervisorSpec {
  readonly strategy: "one_for_one" | "one_for_all" | "rest_for_one" | "dependency"
  readonly intensity: number
  /** In milliseconds; without one every restart counts for ever. */
  readonly period?: number
  readonly autoShutdown: "never" | "any_significant" | "all_significant"
  readonly restartStopped: boolean
  readonly children: ReadonlyArray<ChildSpec>
}

/** Children are named by their path below the top supervisor: `a`, `s/b`. */
export type Operation =
  | { readonly op: "plan"; readonly child: string; readonly starts: ReadonlyArray<Outcome> }
  | { readonly op: "exit"; readonly ends: ReadonlyArray<readonly [child: string, end: End]> }
  | { readonly op: "startChild"; readonly child: ChildSpec }
  | { readonly op: "terminateChild" | "restartChild" | "deleteChild"; readonly child: string }
  | { readonly op: "stop" }
  | { readonly op: "advance"; readonly millis: number }

type Answer = (answer: string) => void

/** Waits until what it yields holds. */
type Task<A = void> = Generator<() => boolean, A>

/** One run of a child: of a leaf, or a supervisor from its start to its end. */
interface Run {
  /** It has started. */
  readonly ready: boolean
  /** How it ended; `asked` when its supervisor told it to. */
  readonly end: End | "asked" | undefined
  /** Nothing of it is left. */
  readonly gone: boolean
  ask(): void
}

/** The faults that are planted to see them found. */
export type Fault = "overlap" | "ghost" | "static"

export class World {
  now = 0
  /** `start a` and `end a`, with the time before them. */
  readonly log: Array<string> = []
  /** What was answered to the start (0) and to the operations (1 and up); those that still wait have no answer. */
  readonly answers: Array<string | undefined> = [undefined]
  readonly top: Supervisor
  readonly fault: Fault | undefined
  private readonly plans = new Map<string, ReadonlyArray<Outcome>>()
  private readonly leaves: Array<Leaf> = []
  private readonly supervisors: Array<Supervisor> = []
  private readonly alarms = new Set<number>()
  private tasks: Array<{ readonly task: Task; readonly dropped: () => boolean; until: () => boolean }> = []

  constructor(spec: SupervisorSpec, plans: Readonly<Record<string, ReadonlyArray<Outcome>>> = {}, fault?: Fault) {
    this.fault = fault
    for (const [child, starts] of Object.entries(plans)) this.plans.set(child, starts)
    this.advance(1)
    this.top = new Supervisor(this, spec, "", this.answer(0))
    this.settle()
  }

  private answer(number: number): Answer {
    return (answer) => {
      this.answers[number] ??= answer
    }
  }

  /** It begins when nothing has moved for a millisecond. */
  do(operation: Operation): void {
    const answer = this.answer(this.answers.push(undefined) - 1)
    this.advance(operation.op === "advance" ? operation.millis : 1)
    // Nobody has a handle of a supervisor that is still starting.
    const { ready } = this.top
    switch (operation.op) {
      case "plan":
        this.plans.set(operation.child, operation.starts)
        break
      case "exit":
        this.exit(operation.ends)
        break
      case "startChild":
        if (ready) this.top.startChild(operation.child, answer)
        break
      case "stop":
        if (ready) this.top.stop(answer)
        break
      case "advance":
        break
      default:
        if (ready) this.top[operation.op](operation.child, answer)
    }
    this.settle()
  }

  /** Those that run at that time, one after the other. What ends together is one failure, but under one_for_one. */
  private exit(ends: ReadonlyArray<readonly [child: string, end: End]>): void {
    const leaves = ends.map(([child]) => this.live(child))
    const atOnce = this.supervisors.filter(({ spec }) => spec.strategy === "one_for_one")
    for (const [at, [, end]] of ends.entries()) {
      leaves[at]?.tell(end)
      while (this.step() || atOnce.map((supervisor) => supervisor.decide()).includes(true));
    }
  }

  /** The leaves that run, in path order. */
  get running(): ReadonlyArray<string> {
    return this.leaves.filter(({ gone }) => !gone).map(({ path }) => path).sort()
  }

  private live(path: string): Leaf | undefined {
    return this.leaves.find((leaf) => leaf.path === path && leaf.end === undefined)
  }

  // -- what the tasks use --

  begin(spec: ChildSpec, path: string): Run {
    if (spec.tree !== undefined) return new Supervisor(this, spec.tree, `${path}/`)
    const leaf = new Leaf(this, spec, path)
    this.leaves.push(leaf)
    return leaf
  }

  add(supervisor: Supervisor): void {
    this.supervisors.push(supervisor)
  }

  write(line: string): void {
    this.log.push(`${this.now} ${line}`)
  }

  nextOutcome(path: string): Outcome {
    const [next = "ok", ...rest] = this.plans.get(path) ?? []
    this.plans.set(path, rest)
    return next
  }

  /** Starts a task; it is forgotten where it stands as soon as it is `dropped`. */
  spawn(task: Task, dropped: () => boolean = () => false): void {
    this.tasks.push({ task, dropped, until: () => true })
  }

  /** Holds once so much time has passed. */
  after(millis: number): () => boolean {
    const at = this.now + millis
    this.alarms.add(at)
    return () => this.now >= at
  }

  private advance(millis: number): void {
    const end = this.now + millis
    for (;;) {
      const next = Math.min(...[...this.alarms].filter((at) => at > this.now))
      if (next > end) break
      this.now = next
      this.settle()
    }
    this.now = end
  }

  /** Runs all tasks as far as they get; then the supervisors decide, the inner before the outer; and so on. */
  private settle(): void {
    while (this.step() || this.supervisors.toReversed().map((supervisor) => supervisor.decide()).includes(true));
  }

  private step(): boolean {
    this.tasks = this.tasks.filter(({ dropped }) => !dropped())
    for (const entry of this.tasks) {
      if (entry.dropped() || !entry.until()) continue
      const { done, value } = entry.task.next()
      if (done === true) this.tasks = this.tasks.filter((other) => other !== entry)
      else entry.until = value
      return true
    }
    return false
  }
}

/** What is seen when nothing moves any more, after the start and after each operation. */
export interface Seen {
  /** New answers, with the number of their operation (the start is 0); `exit` and `plan` have none. */
  readonly answers: ReadonlyArray<readonly [operation: number, answer: string]>
  /** What happened since. */
  readonly log: ReadonlyArray<string>
  /** The children of the top supervisor in start order, while it runs. */
  readonly states: ReadonlyArray<readonly [id: string, state: string]> | null
  /** The leaves that run, sorted by path. */
  readonly running: ReadonlyArray<string>
}

/** Does one thing after the other, and tells what was seen. A supervisor that did not start is left alone. */
export const play = (
  spec: SupervisorSpec,
  plans: Readonly<Record<string, ReadonlyArray<Outcome>>>,
  operations: ReadonlyArray<Operation>,
  fault?: Fault
): ReadonlyArray<Seen> => {
  const world = new World(spec, plans, fault)
  const answered = new Set<number>()
  let logged = 0
  const look = (): Seen => {
    const answers = world.answers.flatMap((answer, number) =>
      answer === undefined || answered.has(number) ? [] : [[number, answer] as const]
    )
    for (const [number] of answers) answered.add(number)
    const log = world.log.slice(logged)
    logged = world.log.length
    const states = world.top.state === "running" ? world.top.states : null
    return { answers, log, states, running: world.running }
  }
  const seen = [look()]
  for (const operation of world.answers[0] === "start_failed" ? [] : operations) {
    world.do(operation)
    seen.push(look())
  }
  return seen
}

class Leaf implements Run {
  readonly path: string
  ready = false
  end: Run["end"] = undefined
  gone = false
  private told: Run["end"] = undefined

  constructor(world: World, spec: ChildSpec, path: string) {
    this.path = path
    world.spawn(this.live(world, spec))
  }

  tell(end: End): void {
    this.told ??= end
  }

  ask(): void {
    this.told ??= "asked"
  }

  private *live(world: World, { closeMillis = 0, startMillis = 0, stopMillis = 0 }: ChildSpec): Task {
    world.write(`start ${this.path}`)
    const outcome = world.nextOutcome(this.path)
    const started = world.after(startMillis)
    yield () => started() || this.told !== undefined
    if (this.told === undefined && outcome === "ok") {
      this.ready = true
      yield () => this.told !== undefined
    }
    this.told ??= outcome === "ignore" ? "ignore" : "failure"
    yield world.after(stopMillis)
    this.end = this.told
    yield world.after(closeMillis)
    world.write(`end ${this.path}`)
    this.gone = true
  }
}

/** A child in the list of its supervisor. */
class Child {
  readonly spec: ChildSpec
  readonly isStatic: boolean
  /** Its last run, until nothing of it is left. */
  run: Run | undefined = undefined
  runs = 0
  /** It is to run: not finished, and not stopped by hand. */
  wanted = true
  /** It is asked to end, and will run again. */
  halted = false
  /** It is forgotten as soon as nothing of it is left. */
  doomed = false
  /** It is to be restarted, and no round has begun with it. */
  failed = false
  /** It waits until what it depends on runs. */
  held = false
  round: Round | undefined = undefined
  /** Somebody waits for its start by hand, and forgets it when that fails. */
  byHand: { readonly answer: Answer; readonly forget: boolean } | undefined = undefined

  constructor(spec: ChildSpec, isStatic: boolean) {
    this.spec = spec
    this.isStatic = isStatic
  }

  get isRunning(): boolean {
    return this.wanted && !this.halted && this.run?.ready === true && this.run.end === undefined
  }

  get state(): string {
    if (!this.wanted) return this.run === undefined ? "stopped" : "stopping"
    if (this.isRunning) return "running"
    const first = this.runs === 0 || (this.runs === 1 && !this.halted && this.run?.ready === false && !this.run.end)
    return first || this.byHand !== undefined ? "starting" : "restarting"
  }
}

type Descent = ReadonlyArray<readonly [child: Child, above: ReadonlyArray<Child>]>

/** Some children are stopped, a delay passes, and they are started. */
interface Round {
  readonly kind: "first" | "hand" | "restart"
  readonly members: ReadonlyArray<Child>
  /** Those whose failure it is about. */
  offenders: ReadonlyArray<Child>
  /** When its delay is over, as far as that is known. */
  until: number | undefined
  waits: boolean
  over: boolean
}

class Supervisor implements Run {
  private readonly world: World
  readonly spec: SupervisorSpec
  private readonly path: string
  private children: Array<Child>
  private rounds: Array<Round> = []
  private restarts: Array<number> = []
  /** What has ended by itself and is to be judged, in that order; and whether that was during the first start. */
  private ended: Array<readonly [child: Child, end: Run["end"], early: boolean]> = []
  private why: Run["end"] = undefined
  ready = false
  end: Run["end"] = undefined

  constructor(world: World, spec: SupervisorSpec, path: string, answer: Answer = () => {}) {
    this.world = world
    this.spec = spec
    this.path = path
    this.children = spec.children.map((child) => new Child(child, true))
    world.add(this)
    this.open({ kind: "first", members: this.children, offenders: [], until: undefined, waits: false, over: false })
    world.spawn(this.tellStart(answer))
  }

  get states(): ReadonlyArray<readonly [id: string, state: string]> {
    return this.children.filter(({ doomed }) => !doomed).map((child) => [child.spec.id, child.state])
  }

  get state(): "starting" | "running" | "stopping" | "ended" {
    if (this.end !== undefined) return "ended"
    if (this.why !== undefined) return "stopping"
    return this.ready ? "running" : "starting"
  }

  get gone(): boolean {
    return this.end !== undefined
  }

  ask(): void {
    this.shutDown("asked")
  }

  private *tellStart(answer: Answer): Task {
    yield () => this.ready || this.end !== undefined
    answer(this.ready ? "ok" : this.end === "asked" ? "stopped" : "start_failed")
  }

  // -- who stands on whom --

  private needs(child: Child, other: Child): boolean {
    if (this.spec.strategy !== "dependency") return this.children.indexOf(other) < this.children.indexOf(child)
    const direct = this.children.filter(({ spec }) => child.spec.dependsOn?.includes(spec.id) === true)
    return direct.includes(other) || direct.some((between) => this.needs(between, other))
  }

  /** Those that are restarted when this child is. */
  private groupOf(offender: Child): ReadonlyArray<Child> {
    const known = this.children.filter((child) => this.world.fault !== "static" || child.isStatic || child === offender)
    switch (this.spec.strategy) {
      case "one_for_one":
        return [offender]
      case "one_for_all":
        return known
      case "rest_for_one":
        return known.slice(known.indexOf(offender))
      case "dependency":
        return known.filter((child) => child === offender || this.needs(child, offender))
    }
  }

  // -- runs --

  private begin(child: Child): Run {
    const run = this.world.begin(child.spec, `${this.path}${child.spec.id}`)
    child.run = run
    child.runs++
    child.failed = false
    child.halted = false
    this.world.spawn(this.watch(child, run))
    return run
  }

  private *watch(child: Child, run: Run): Task {
    const isOurs = () => child.run === run && child.wanted && !child.halted && !this.isStopping
    yield () => run.ready || run.end !== undefined
    if (isOurs() && (run.ready || isUnneeded(run.end))) {
      if (!run.ready) this.leave(child, run.end === "done" || child.spec.restart === "temporary")
      const { byHand } = child
      child.byHand = undefined
      // Who is not needed has first released what it held.
      if (run.ready) byHand?.answer("running")
      else this.world.spawn(tellGone(child, () => byHand?.answer("stopped")))
    }
    yield () => run.end !== undefined
    if (isOurs() && run.ready) this.ended.push([child, run.end, !this.ready])
    yield () => run.gone
    if (child.run === run) child.run = undefined
    this.forget(child)
  }

  private forget(child: Child): void {
    if (child.doomed && child.run === undefined) this.children = this.children.filter((other) => other !== child)
  }

  /** It is not to run any more. */
  private leave(child: Child, forget: boolean): void {
    child.wanted = false
    child.doomed ||= forget
    child.failed = false
    child.held = false
    this.ended = this.ended.filter(([other]) => other !== child)
    if (child.round !== undefined) {
      child.round.offenders = child.round.offenders.filter((other) => other !== child)
      child.round = undefined
    }
    this.forget(child)
  }

  // -- rounds --

  private open(round: Round): void {
    this.rounds.push(round)
    for (const child of round.members) child.round = round
    this.world.spawn(this.play(round), () => round.over)
  }

  private finish(round: Round): void {
    round.over = true
    this.rounds = this.rounds.filter((other) => other !== round)
    for (const child of round.members) if (child.round === round) child.round = undefined
  }

  private *play(round: Round): Task {
    if (round.members.length > 1) yield* this.stopAll(this.fromTheTop(round.members), round)
    if (round.offenders.length > 0) {
      const delay = Math.max(...round.offenders.map(({ spec }) => spec.backoffMillis ?? 0))
      round.until ??= this.world.now + delay
      round.waits = round.until > this.world.now
      const due = this.world.after(round.until - this.world.now)
      // Nobody waits for the sake of one that is not to run any more.
      yield () => due() || round.offenders.length === 0
      if (round.waits && due() && this.widens(round)) return
      round.waits = false
    }
    yield* this.startAll(round)
    this.finish(round)
    if (round.kind === "first" && !this.isStopping) this.ready = true
  }

  /** Whoever came while the round waited takes part, if its group is touched. */
  private widens(round: Round): boolean {
    const group = new Set(round.offenders.flatMap((child) => this.groupOf(child)))
    const came = (child: Child) =>
      group.has(child) && child.wanted && child.round !== round &&
      (child.round === undefined || child.round.kind === "hand" || child.round.waits)
    const late = this.children.filter(came)
    if (late.length === 0 || this.spec.strategy === "one_for_one") return false
    for (const other of [round, ...late.map((child) => child.round)]) if (other !== undefined) this.finish(other)
    const members = this.children.filter((child) =>
      late.includes(child) || (round.members.includes(child) && child.wanted)
    )
    this.open({
      kind: "restart",
      members,
      offenders: round.offenders,
      until: this.world.now,
      waits: false,
      over: false
    })
    return true
  }

  /** Each of them, the last first, with those that stand on it. */
  private fromTheTop(members: ReadonlyArray<Child>): Descent {
    return members.toReversed().map((child) => [child, members.filter((other) => this.needs(other, child))])
  }

  /** Each is asked to end when nobody who stands on it is left. */
  private *stopAll(members: Descent, round?: Round): Task {
    const up = new Set(members.map(([child]) => child))
    const stop = function*(self: Supervisor, child: Child, above: ReadonlyArray<Child>): Task {
      yield () => !above.some((other) => up.has(other))
      // Stopped and started again by hand meanwhile, it is none of this round any more.
      if (round === undefined || child.round === round || !child.wanted) yield* self.stopOne(child)
      up.delete(child)
    }
    for (const [child, above] of members) this.world.spawn(stop(this, child, above), () => round?.over === true)
    yield () => up.size === 0
  }

  private *stopOne(child: Child): Task {
    const { run } = child
    if (run === undefined) return
    if (!this.isStopping && child.wanted) {
      if (child.spec.restart === "temporary") {
        const { round } = child
        child.byHand?.answer("start_failed")
        this.leave(child, true)
        // It is a matter of this round until it is gone.
        child.round = round
      } else child.halted = true
    }
    child.failed = false
    run.ask()
    if (this.world.fault === "overlap" && !this.isStopping) child.run = undefined
    yield () => child.run !== run
  }

  /** Each starts when all that it stands on have. */
  private *startAll(round: Round): Task {
    const left = new Set(round.members)
    const start = function*(self: Supervisor, child: Child): Task {
      yield () => ![...left].some((other) => self.needs(child, other))
      if (child.round === round && child.wanted && self.holds(child) && !(yield* self.startOne(child))) {
        // It failed: those that stand on it are out of the round too.
        for (const other of round.members) {
          if (other !== child && !self.needs(other, child)) continue
          if (other.round === round) other.round = undefined
          left.delete(other)
        }
        self.startFailed(child, round)
      } else left.delete(child)
    }
    for (const child of round.members) this.world.spawn(start(this, child), () => round.over)
    yield () => left.size === 0
  }

  /** Starts a child and waits until that is through. False when it failed. */
  private *startOne(child: Child): Task<boolean> {
    if (this.world.fault !== "overlap") yield () => child.run === undefined || !child.wanted
    if (!child.wanted) return true
    const run = this.begin(child)
    yield () => run.ready || run.end !== undefined || !child.wanted
    return run.ready || !child.wanted || isUnneeded(run.end)
  }

  private startFailed(child: Child, { kind }: Round): void {
    if (kind === "first") this.shutDown("failure")
    else if (child.byHand === undefined) child.failed = true
    else {
      const { answer, forget } = child.byHand
      child.byHand = undefined
      this.leave(child, forget || child.spec.restart === "temporary")
      this.world.spawn(tellGone(child, () => answer("start_failed")))
    }
  }

  /** Whether all that it depends on runs. */
  private holds(child: Child): boolean {
    const { dependsOn = [] } = child.spec
    child.held = this.spec.strategy === "dependency" && !dependsOn.every((id) => this.find(id)?.isRunning === true)
    return !child.held
  }

  // -- decisions --

  /** Looks at what has ended by itself. Tells whether there was anything to decide. */
  decide(): boolean {
    if (this.state !== "running") return false
    const judged = this.ended.splice(0, this.spec.strategy === "one_for_one" ? 1 : Infinity)
    for (const [child, end, early] of judged) {
      if (this.isStopping || !child.wanted) continue
      if (isRestarted(child.spec, end)) child.failed = true
      else this.finished(child, end, early)
    }
    return this.restartFailed() || this.resume() || judged.length > 0
  }

  /** It is not started again. */
  private finished(child: Child, end: Run["end"], early: boolean): void {
    const forget = child.spec.restart === "temporary" || end === "done"
    if (early) this.leave(child, forget)
    child.wanted = false
    const { autoShutdown } = this.spec
    const active = this.children.some(({ spec, wanted }) => spec.significant === true && wanted)
    const isOver = autoShutdown === "any_significant" || (autoShutdown === "all_significant" && !active)
    if (child.spec.significant === true && end !== "ignore" && isOver) this.shutDown("success")
    // Others that stand on what it stands on are stopped as if it were still there.
    this.leave(child, forget)
  }

  /**
   * Restarts what has failed: at the same time counts once, but under one_for_one. What touches children that are being stopped or started
   * waits; what touches children that wait joins them, and does not count.
   */
  private restartFailed(): boolean {
    let counted = false
    let acted = false
    const failed = this.children.filter((child) => child.failed)
    while (failed.length > 0 && !this.isStopping) {
      const offenders = failed.splice(0, 1)
      for (;;) {
        const overlaps = (child: Child) => this.groupOf(child).some((member) => group.has(member))
        const group = new Set(offenders.flatMap((child) => this.groupOf(child)))
        const next = failed.findIndex(overlaps)
        if (next === -1) break
        offenders.push(...failed.splice(next, 1))
      }
      const group = new Set(offenders.flatMap((child) => this.groupOf(child)))
      const busy = [...new Set([...group].flatMap(({ round }) => round === undefined ? [] : [round]))]
      if (busy.some(({ kind, waits }) => kind === "restart" && !waits)) continue
      acted = true
      const waiting = busy.filter(({ waits }) => waits)
      if (waiting.length === 0 && (!counted || this.spec.strategy === "one_for_one")) {
        if (!this.admit()) this.shutDown("failure", offenders[0])
        counted = true
      }
      if (this.isStopping) break
      // Who waits already stays one of those it is about.
      const all = [...new Set([...offenders, ...waiting.flatMap((round) => round.offenders)])]
      for (const round of busy) this.finish(round)
      for (const child of waiting.flatMap(({ members }) => members)) if (child.wanted) group.add(child)
      for (const child of offenders) child.failed = false
      const members = this.children.filter((child) =>
        group.has(child) && (child.wanted || (this.spec.restartStopped && child.run === undefined))
      )
      for (const child of members) child.wanted = true
      const until = waiting.length === 0 ? undefined : Math.max(...waiting.map(({ until = 0 }) => until))
      this.open({ kind: "restart", members, offenders: all, until, waits: false, over: false })
    }
    return acted
  }

  private admit(): boolean {
    const { now } = this.world
    this.restarts = this.restarts.filter((at) => now - at < (this.spec.period ?? Infinity))
    if (this.restarts.length >= this.spec.intensity) return false
    this.restarts.push(now)
    return true
  }

  /** Starts what waits for others that run again. */
  private resume(): boolean {
    const held = this.children.filter((child) => child.held && child.wanted && child.round === undefined)
    const members = held.filter(({ spec: { dependsOn = [] } }) =>
      dependsOn.every((id) => this.find(id)?.isRunning === true)
    )
    for (const child of members) child.held = false
    if (members.length > 0) {
      this.open({ kind: "restart", members, offenders: [], until: undefined, waits: false, over: false })
    }
    return members.length > 0
  }

  // -- the end --

  private get isStopping(): boolean {
    return this.why !== undefined
  }

  /** When it gives up, the offender ends first. */
  private shutDown(why: End | "asked", offender?: Child): void {
    if (this.isStopping) return
    this.why = why
    for (const round of this.rounds) if (this.world.fault !== "ghost" || !round.waits) this.finish(round)
    this.ended = []
    for (const child of this.children) child.byHand?.answer("not_running")
    const all = this.fromTheTop(this.children)
    this.world.spawn(
      offender === undefined ? this.close(all, why) : tellGone(offender, () => {
        this.world.spawn(this.close(all, why))
      })
    )
  }

  private *close(all: Descent, why: End | "asked"): Task {
    yield* this.stopAll(all)
    this.end = why
  }

  // -- operations --

  stop(answer: Answer): void {
    this.shutDown("asked")
    this.world.spawn(this.tellEnd(answer))
  }

  private *tellEnd(answer: Answer): Task {
    yield () => this.end !== undefined
    answer("ok")
  }

  startChild(spec: ChildSpec, answer: Answer): void {
    if (this.isStopping) return answer("not_running")
    const present = this.children.find((child) => child.spec.id === spec.id)
    if (present !== undefined) {
      return answer(["stopped", "restarting"].includes(present.state) ? "already_present" : "already_started")
    }
    const { dependsOn = [] } = spec
    const below = this.children.filter((other) => dependsOn.includes(other.spec.id))
    const all = [...below, ...this.children.filter((other) => below.some((child) => this.needs(child, other)))]
    if (below.length < dependsOn.length || all.some((other) => other.spec.dependsOn?.includes(spec.id) === true)) {
      return answer("invalid")
    }
    if (spec.significant === true && this.spec.autoShutdown === "never") return answer("invalid")
    const child = new Child(spec, false)
    this.children = [...this.children, child]
    this.startByHand(child, answer, true)
  }

  restartChild(id: string, answer: Answer): void {
    if (this.isStopping) return answer("not_running")
    const child = this.find(id)
    if (child === undefined) return answer("not_found")
    if (child.state === "restarting") return answer("restarting")
    if (child.state !== "stopped") return answer("running")
    child.wanted = true
    this.startByHand(child, answer, false)
  }

  private startByHand(child: Child, answer: Answer, forget: boolean): void {
    child.byHand = { answer, forget }
    this.open({ kind: "hand", members: [child], offenders: [], until: undefined, waits: false, over: false })
  }

  terminateChild(id: string, answer: Answer): void {
    if (this.isStopping) return answer("not_running")
    const child = this.find(id)
    if (child === undefined) return answer("not_found")
    const { byHand, run } = child
    child.byHand = undefined
    byHand?.answer("start_failed")
    this.leave(child, byHand?.forget === true || child.spec.restart === "temporary")
    run?.ask()
    this.world.spawn(tellGone(child, () => answer("ok")))
  }

  deleteChild(id: string, answer: Answer): void {
    if (this.isStopping) return answer("not_running")
    const child = this.find(id)
    if (child === undefined) return answer("not_found")
    if (child.state === "restarting") return answer("restarting")
    if (child.state !== "stopped") return answer("running")
    this.leave(child, true)
    answer("ok")
  }

  private find(id: string): Child | undefined {
    return this.children.find(({ doomed, spec }) => spec.id === id && !doomed)
  }
}

const isUnneeded = (end: Run["end"]): boolean => end === "ignore" || end === "done"

/** Whether a child that has ended so runs again. */
const isRestarted = ({ restart }: ChildSpec, end: Run["end"]): boolean => {
  if (isUnneeded(end) || restart === "temporary") return false
  return restart === "permanent" || end === "failure" || end === "kill"
}

/** Calls back when nothing of the child is left. */
const tellGone = function*(child: Child, then: () => void): Task {
  yield () => child.run === undefined
  then()
}
