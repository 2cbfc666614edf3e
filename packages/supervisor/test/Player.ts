/**
 * Where the library plays a sequence of operations: children that do as they are told, and what is seen of them.
 */
import { Orchestrator, Routine } from "@effect-orchestra/core"
import { Current } from "@effect-orchestra/core/RoutineRecord"
import { Child, Supervisor } from "@effect-orchestra/supervisor"
import { Clock, Deferred, Effect, Exit, Layer, Schedule, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { Sequence } from "./model/Sequence.ts"
import type { ChildSpec, End, Operation, Outcome, Seen, SupervisorSpec } from "./model/Supervisor.ts"

/** A run of a leaf that can be told how to end. */
interface Live {
  told: boolean
  readonly end: Deferred.Deferred<void, string>
  readonly routine: Routine.Routine<unknown, unknown> | undefined
}

type Played = Child.Child<string, never, never, unknown, never, string>

const endings: { readonly [E in Exclude<End, "kill">]: Effect.Effect<void, string> } = {
  success: Effect.void,
  failure: Effect.fail("told to fail"),
  ignore: Supervisor.ignore,
  done: Supervisor.done
}

const answerOf = (exit: Exit.Exit<unknown, unknown>): string => {
  if (Exit.isSuccess(exit)) {
    const { value } = exit
    return typeof value === "object" && value !== null && "state" in value ? String(value.state) : "ok"
  }
  const error = exit.cause.reasons.map((reason) => reason._tag === "Fail" ? reason.error : reason)[0]
  const tag = typeof error === "object" && error !== null && "_tag" in error ? String(error._tag) : String(error)
  return answers[tag] ?? tag
}

const answers: Readonly<Record<string, string>> = {
  AlreadyPresent: "already_present",
  AlreadyStarted: "already_started",
  ChildNotFound: "not_found",
  ChildRestarting: "restarting",
  ChildRunning: "running",
  InvalidChild: "invalid",
  StartFailure: "start_failed",
  SupervisorNotRunning: "not_running"
}

class Player {
  private readonly plans: Map<string, ReadonlyArray<Outcome>>
  private readonly live = new Map<string, Live>()
  private readonly log: Array<string> = []
  private answers: Array<readonly [operation: number, answer: string]> = []
  private readonly clock: Clock.Clock
  private ref: Supervisor.SupervisorRef | undefined = undefined
  private routine: Routine.Routine<never, unknown> | undefined = undefined
  /** What no test may see. */
  readonly faults: Array<string> = []

  constructor(plans: Sequence["plans"], clock: Clock.Clock) {
    this.plans = new Map(Object.entries(plans))
    this.clock = clock
  }

  private write(line: string): void {
    this.log.push(`${this.clock.currentTimeMillisUnsafe()} ${line}`)
  }

  // -- the children --

  private tree(name: string, { children, period = 1e15, ...spec }: SupervisorSpec, prefix: string) {
    return Supervisor.make({ ...spec, name, period, children: children.map((child) => this.child(child, prefix)) })
  }

  private child(spec: ChildSpec, prefix: string): Played {
    const { backoffMillis, dependsOn, id, restart, significant = false } = spec
    const path = `${prefix}${id}`
    const options = { restart, significant, dependsOn, shutdown: "infinity" } as const
    if (spec.tree !== undefined) return Child.supervisor(this.tree(id, spec.tree, `${path}/`), options)
    return Child.make(id, this.leaf(path, spec), {
      ...options,
      awaitReady: true,
      startTimeout: Infinity,
      backoff: backoffMillis === undefined ? undefined : Schedule.spaced(backoffMillis)
    })
  }

  private leaf(path: string, { closeMillis = 0, startMillis = 0, stopMillis = 0 }: ChildSpec) {
    return Effect.withFiber((fiber) => {
      if (this.live.has(path)) this.faults.push(`two runs of ${path}`)
      this.write(`start ${path}`)
      const [outcome = "ok", ...rest] = this.plans.get(path) ?? []
      this.plans.set(path, rest)
      const run = { told: false, end: Deferred.makeUnsafe<void, string>(), routine: fiber.getRef(Current) }
      this.live.set(path, run)
      const told = Deferred.await(run.end)
      const started = outcome === "ok"
        ? Effect.andThen(Routine.ready, told)
        : outcome === "fail"
        ? Effect.fail("told not to start")
        : Supervisor.ignore
      const body = startMillis === 0
        ? started
        : Effect.raceFirst(told, Effect.sleep(startMillis)).pipe(
          Effect.andThen(Effect.suspend(() => run.told ? told : started))
        )
      const leave = Effect.sync(() => {
        this.write(`end ${path}`)
        this.live.delete(path)
      })
      const after = (millis: number, effect: Effect.Effect<void>) =>
        millis === 0 ? effect : Effect.andThen(Effect.sleep(millis), effect)
      if (closeMillis === 0) return Effect.ensuring(body, after(stopMillis, leave))
      return Effect.addFinalizer(() => after(closeMillis, leave)).pipe(
        Effect.andThen(stopMillis === 0 ? body : Effect.ensuring(body, Effect.sleep(stopMillis)))
      )
    })
  }

  /** Who is killed ends on the spot, who is told to end in the same turn of the scheduler. */
  private tell(run: Live | undefined, end: End): Effect.Effect<unknown> {
    if (run === undefined || run.told) return Effect.void
    run.told = true
    if (end !== "kill") Deferred.doneUnsafe(run.end, endings[end])
    return end !== "kill" || run.routine === undefined
      ? Effect.void
      : Effect.forkDetach(Routine.interrupt(run.routine), { startImmediately: true })
  }

  // -- the operations --

  /** Does something, and returns when nothing moves any more. It takes a millisecond. */
  private step<A, R>(effect: Effect.Effect<A, never, R>): Effect.Effect<void, never, R> {
    // What a sleeper does when it wakes, and all that follows from it, is what the clock waits for.
    return Effect.forkChild(Effect.andThen(Effect.sleep(1), effect), { startImmediately: true }).pipe(
      Effect.andThen(TestClock.adjust(1))
    )
  }

  private answered<A, E, R>(number: number, effect: Effect.Effect<A, E, R>) {
    return Effect.forkDetach(
      Effect.onExit(effect, (exit) => Effect.sync(() => void this.answers.push([number, answerOf(exit)]))),
      { startImmediately: true }
    )
  }

  start(spec: SupervisorSpec) {
    const effect = Supervisor.start(this.tree("app", spec, "")).pipe(
      Effect.onExit((exit) => Effect.sync(() => void this.answers.push([0, answerOf(exit)]))),
      Effect.tap((ref) => Effect.sync(() => this.ref = ref)),
      Effect.andThen(Effect.never),
      Effect.scoped
    )
    // It gives up to the routine that it was started in.
    const held = Effect.tap(
      Orchestrator.fork(effect, { name: "held" }),
      (routine) => Effect.sync(() => this.routine = routine)
    )
    return this.step(Effect.forkDetach(Effect.flatMap(held, Routine.await), { startImmediately: true }))
  }

  /** Ends it, if it has not ended, and waits: nothing may be left. */
  get finish() {
    const interrupt = this.routine === undefined ? Effect.void : Routine.interrupt(this.routine)
    return this.step(Effect.forkDetach(interrupt, { startImmediately: true })).pipe(
      Effect.andThen(TestClock.adjust(1e9)),
      Effect.andThen(Orchestrator.list),
      Effect.map((left) => {
        for (const { name } of left) this.faults.push(`${name} is left`)
        for (const path of this.live.keys()) this.faults.push(`${path} runs after the end`)
      })
    )
  }

  do(number: number, operation: Operation): Effect.Effect<void> {
    if (operation.op === "advance") return TestClock.adjust(operation.millis)
    return this.step(Effect.suspend(() => this.begin(number, operation)))
  }

  private begin(number: number, operation: Exclude<Operation, { op: "advance" }>): Effect.Effect<unknown> {
    const { ref } = this
    if (operation.op === "plan") {
      this.plans.set(operation.child, operation.starts)
      return Effect.void
    }
    if (operation.op === "exit") {
      const ends = operation.ends.map(([path, end]) => [this.live.get(path), end] as const)
      return Effect.forEach(ends, ([run, end]) => Effect.suspend(() => this.tell(run, end)), { discard: true })
    }
    if (ref === undefined) return Effect.void
    switch (operation.op) {
      case "startChild":
        return this.answered(number, Supervisor.startChild(ref, this.child(operation.child, "")))
      case "stop":
        return this.answered(number, Supervisor.stop(ref))
      case "terminateChild":
        return this.answered(number, Supervisor.terminateChild(ref, operation.child))
      case "restartChild":
        return this.answered(number, Supervisor.restartChild(ref, operation.child))
      case "deleteChild":
        return this.answered(number, Supervisor.deleteChild(ref, operation.child))
    }
  }

  readonly look: Effect.Effect<Seen> = Effect.gen({ self: this }, function*() {
    const children = this.ref === undefined ? undefined : yield* Effect.option(Supervisor.whichChildren(this.ref))
    const seen = {
      answers: this.answers.toSorted(([one], [other]) => one - other),
      log: this.log.splice(0),
      states: children?._tag === "Some" ? children.value.map(({ id, state }) => [id, state] as const) : null,
      running: [...this.live.keys()].sort()
    }
    this.answers = []
    return seen
  })
}

/**
 * What is seen when the library plays the sequence, from time 0. Where there was what nobody may ever see (two runs of a
 * child at once, something that is left in the end) a last step tells it.
 */
export const perform = Effect.fnUntraced(function*({ operations, plans, spec }: Sequence) {
  const scope = yield* Scope.make()
  const context = yield* Layer.buildWithScope(Layer.provideMerge(Orchestrator.layer, TestClock.layer()), scope)
  const played = Effect.gen(function*() {
    const player = new Player(plans, yield* Clock.Clock)
    yield* player.start(spec)
    const seen = [yield* player.look]
    for (const [at, operation] of seen[0]?.answers[0]?.[1] === "start_failed" ? [] : operations.entries()) {
      yield* player.do(at + 1, operation)
      seen.push(yield* player.look)
    }
    yield* player.finish
    if (player.faults.length > 0) seen.push({ answers: [], log: player.faults, states: null, running: [] })
    // What is left may never end.
    else yield* Scope.close(scope, Exit.void)
    return seen
  })
  return yield* Effect.provideContext(played, context)
})
