import { Orchestrator, Routine } from "@effect-orchestra/core"
import { atEveryOperation, type Recorder, recorder, TestOrchestra } from "@effect-orchestra/core/testing"
import { Child, type Restart, Supervisor, SupervisorError } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Deferred, Effect, Exit, Fiber, Layer, Random, Schedule, type Scope } from "effect"
import { Lifecycle } from "./model/Lifecycle.ts"

const seeds = Number(process.env.SEEDS ?? 200)

type Play = Child.Child<string, never, unknown, unknown, Orchestrator | Scope.Scope, string>

const chance = (share: number) => Effect.map(Random.next, (drawn) => drawn < share)
const below = (n: number) => Effect.map(Random.next, (drawn) => Math.floor(drawn * n))
const oneOf = <const A extends ReadonlyArray<unknown>>(...options: A) =>
  Effect.map(below(options.length), (at) => options[at] as A[number])
const maybe = <A, R>(share: number, effect: Effect.Effect<A, never, R>) =>
  Effect.flatMap(chance(share), (is) => is ? effect : Effect.succeed(undefined))

/** What is seen of all the leaves of a storm. */
interface Sky {
  readonly faults: Array<string>
  readonly leaves: Map<string, Leaf>
  isOver: boolean
  runs: number
  record?: Recorder
}

/** A leaf of the tree: every run of it is watched. It is slow to start and to end, or does so only long after its bound. */
class Leaf {
  readonly id: string
  /** Whether a run may be replaced, and another so stands beside it. */
  readonly replaces: boolean
  live = 0
  private readonly sky: Sky
  private told = Deferred.makeUnsafe<void, unknown>()

  constructor(id: string, sky: Sky, replaces: boolean) {
    this.id = id
    this.sky = sky
    this.replaces = replaces
    sky.leaves.set(id, this)
  }

  private enter() {
    const { faults, isOver } = this.sky
    if (this.live > 0 && !this.replaces) faults.push(`two runs of ${this.id} overlap`)
    if (isOver && !this.isAbandoned) faults.push(`${this.id} started after the end`)
    this.live++
    this.sky.runs++
    return this.told = Deferred.makeUnsafe<void, unknown>()
  }

  /** One that was given up before it came to this may still come to it: what it takes is given back at once. */
  private get isAbandoned(): boolean {
    const isOwn = (path: string) => path.replaceAll(/#[^/]+/g, "") === `/orchestra/held/app/${this.id}`
    return this.sky.record?.events.some(({ _tag, path }) => _tag === "Abandoned" && isOwn(path)) === true
  }

  private readonly begin = Effect.gen({ self: this }, function*() {
    const [start, end] = [yield* below(3), (yield* chance(0.03)) ? 40 : yield* below(3)]
    const told = yield* Effect.acquireRelease(
      Effect.sync(() => this.enter()),
      () => Effect.andThen(Effect.sleep(end), Effect.sync(() => void this.live--))
    )
    if (yield* chance(0.03)) yield* Effect.uninterruptible(Effect.sleep(40))
    yield* Effect.sleep(start)
    const failure = yield* Random.next
    if (failure < 0.1) return yield* Effect.fail(`${this.id} does not start`)
    if (failure < 0.12) return yield* Supervisor.ignore
    return told
  })

  /** The same each time, so that it may be found to be the same. */
  readonly effects = [1, 2].map(() =>
    Effect.flatMap(this.begin, (told) => Effect.andThen(Routine.ready, Deferred.await(told)))
  )
  readonly layers = [1, 2].map(() =>
    Layer.effectDiscard(Effect.flatMap(this.begin, (told) => Orchestrator.forkScoped(Deferred.await(told))))
  )

  readonly tell = Effect.gen({ self: this }, function*() {
    const drawn = yield* Random.next
    const end = drawn < 0.7
      ? Effect.fail(`${this.id} failed`)
      : drawn < 0.8
      ? Effect.void
      : drawn < 0.88
      ? Effect.die(new Error(`${this.id} died`))
      : drawn < 0.93
      ? Effect.fail(new SupervisorError.Ignore())
      : drawn < 0.97
      ? Effect.fail(new SupervisorError.Done())
      : Effect.fail(new SupervisorError.TerminateTree())
    Deferred.doneUnsafe(this.told, end)
  })
}

const strategies = ["one_for_one", "one_for_all", "rest_for_one", "dependency"] as const

const childOf = Effect.fnUntraced(function*(
  id: string,
  before: ReadonlyArray<string>,
  strategy: Restart.Strategy,
  sky: Sky
) {
  const replaces = id.endsWith("b")
  const leaf = sky.leaves.get(id) ?? new Leaf(id, sky, replaces)
  const backoff = yield* oneOf(undefined, undefined, Schedule.spaced("2 millis"), Schedule.recurs(3))
  const options: Child.ChildOptions = {
    restart: yield* oneOf("permanent", "permanent", "transient", "temporary"),
    shutdown: yield* oneOf("infinity", "brutal_kill", 5, 5, 50),
    startTimeout: yield* oneOf(10, "1 second"),
    backoff,
    resetAfter: yield* oneOf(5, "30 seconds"),
    ...(yield* maybe(0.3, Effect.map(below(3), (intensity) => ({ intensity, period: 20 })))),
    onGiveUp: yield* oneOf("escalate", "quarantine"),
    onUnstoppable: replaces ? "replace" : "wait",
    ...(strategy === "dependency" && before.length > 0
      ? { dependsOn: yield* maybe(0.6, Effect.map(oneOf(...before), (on) => [on])) }
      : {})
  }
  const variant = (yield* chance(0.9)) ? 0 : 1
  const [effect = Effect.never, layer = Layer.empty] = [leaf.effects[variant], leaf.layers[variant]]
  const name = id.split("/").at(-1) ?? id
  // A layer or an effect, always the same.
  const child = id.endsWith("a") || id.endsWith("d")
    ? Child.layer(name, layer, { ...options, dependsOn: [] })
    : Child.make(name, effect, { ...options, awaitReady: id.endsWith("b"), dependsOn: [] })
  return { ...child, spec: { ...child.spec, dependsOn: options.dependsOn ?? [] } } as Play
})

const supervisorOf: (
  name: string,
  prefix: string,
  ids: ReadonlyArray<string>,
  sky: Sky,
  strategy?: Restart.Strategy
) => Effect.Effect<Supervisor.Supervisor<unknown, unknown, Orchestrator | Scope.Scope>> = Effect.fnUntraced(
  function*(name, prefix, ids, sky, fixed) {
    const strategy = fixed ?? (yield* oneOf(...strategies))
    const children: Array<Play> = []
    for (const id of ids) {
      const before = children.map(({ id }) => id)
      if (id !== "nested") children.push(yield* childOf(`${prefix}${id}`, before, strategy, sky))
      else {
        const spec = yield* supervisorOf("nested", `${prefix}nested/`, ["a", "b", "c"], sky)
        children.push(Child.supervisor(spec, { restart: yield* oneOf("permanent", "transient") }) as Play)
      }
    }
    return Supervisor.make({
      name,
      strategy,
      children,
      intensity: yield* oneOf(1, 5, 30, 1000),
      period: 20,
      restartStopped: yield* chance(0.2),
      concurrentRestarts: yield* oneOf("unbounded", 1, 2),
      propagateTermination: yield* chance(0.5),
      attemptBudget: yield* maybe(0.2, Effect.map(below(40), (attempts) => ({ attempts: attempts + 1, period: 20 })))
    }) as Supervisor.Supervisor<unknown, unknown, Orchestrator | Scope.Scope>
  }
)

/** What is true of a supervisor at any time. */
const check = Effect.fnUntraced(function*(app: Supervisor.SupervisorRef, sky: Sky) {
  const told = sky.record?.events.length
  const look = Effect.map(Supervisor.whichChildren(app), (children) => ({
    children,
    seen: JSON.stringify(children.map(({ id, incarnation, state }) => [id, state, incarnation]))
  }))
  const { children, seen } = yield* look
  const counted = yield* Supervisor.countChildren(app)
  // Something happened in between.
  if ((yield* look).seen !== seen || sky.record?.events.length !== told) return
  const supervisors = children.filter(({ type }) => type === "supervisor").length
  const expected = {
    specs: children.length,
    active: children.filter(({ state }) => state === "running").length,
    supervisors,
    workers: children.length - supervisors
  }
  if (JSON.stringify(counted) !== JSON.stringify(expected)) {
    sky.faults.push(`counted ${JSON.stringify(counted)} ${seen}`)
  }
})

const operation = Effect.fnUntraced(function*(app: Supervisor.SupervisorRef, sky: Sky, strategy: Restart.Strategy) {
  const id = yield* oneOf("a", "b", "c", "d", "e", "nested")
  const drawn = yield* Random.next
  if (drawn < 0.25) return yield* Supervisor.terminateChild(app, id)
  if (drawn < 0.45) return yield* Supervisor.restartChild(app, id)
  if (drawn < 0.55) return yield* Supervisor.release(app, id)
  if (drawn < 0.65) return yield* Supervisor.deleteChild(app, id)
  if (drawn < 0.8) {
    const before = strategy === "dependency" ? (yield* Supervisor.whichChildren(app)).map(({ id }) => id) : []
    return yield* Supervisor.startChild(app, yield* childOf(yield* oneOf("d", "e"), before, strategy, sky))
  }
  if (drawn < 0.9) {
    const [child] = yield* Random.shuffle(yield* Supervisor.whichChildren(app))
    return child === undefined ? undefined : yield* Routine.interrupt(child.routine)
  }
  const ids = ["a", "b", "c", "d", "nested"].filter((_, i) => i !== 4)
  return yield* Supervisor.reconcile(
    app,
    yield* supervisorOf("app", "", (yield* Random.shuffle(ids)).slice(0, 3), sky, strategy)
  )
})

/** The lives of all children, as their events tell them. A routine that stands beside another at its path has a path of its own. */
const tell = ({ events, log }: Recorder, sky: Sky) => {
  const lives = new Map<string, Lifecycle>()
  const latest = new Map<string, Lifecycle>()
  for (const [at, event] of events.entries()) {
    const { _tag, id, name, path } = event
    if (!path.startsWith("/orchestra/held/app/") || name === "routine") continue
    const place = path.replaceAll(/#[^/]+/g, "")
    if (_tag === "Forked") lives.set(id, new Lifecycle(latest.get(place)))
    // A supervisor below tells of itself under the path of its routine.
    const life = lives.get(id)
    if (life === undefined) continue
    const fault = life.next(event)
    // A run that was given up may end behind the one that has followed it.
    const isBehind = _tag === "Forked" || _tag === "Exited" || _tag === "EndedLate"
    if (!isBehind && !life.isLeft) latest.set(place, life)
    if (fault === undefined) continue
    const history = log.flatMap((line, i) => i <= at && events[i]?.id === id ? [line] : [])
    sky.faults.push(`${path}: ${fault}\n${history.join("\n")}`)
  }
  for (const [id, life] of lives) {
    if (life.isFinal) continue
    sky.faults.push(`does not end:\n${log.filter((_, i) => events[i]?.id === id).join("\n")}`)
  }
}

/** One storm over one tree, from its start to its end, and what was wrong. */
const storm = Effect.fnUntraced(function*(strategy: Restart.Strategy, sky: Sky) {
  const record = yield* recorder
  const spec = yield* supervisorOf("app", "", yield* Random.shuffle(["a", "b", "c", "d", "nested"]), sky, strategy)
  const started = yield* Deferred.make<Supervisor.SupervisorRef>()
  sky.record = record
  // It gives up to the routine that it is started in.
  const held = yield* Orchestrator.fork(
    Effect.scoped(
      Effect.flatMap(
        Supervisor.start(spec),
        (app) => Effect.andThen(Deferred.succeed(started, app), Supervisor.await(app))
      )
    ),
    { name: "held" }
  )
  const starting = yield* Effect.raceFirst(
    Effect.option(Deferred.await(started)),
    Effect.as(Routine.await(held), undefined)
  )
  const app = starting?._tag === "Some" ? starting.value : undefined
  const operations: Array<Fiber.Fiber<unknown, unknown>> = []
  const stopsAt = yield* below(40)
  for (let step = 0; app !== undefined && step < 25; step++) {
    if (step === stopsAt) {
      operations.push(yield* Effect.forkDetach(yield* oneOf(Supervisor.stop(app), Routine.interrupt(held))))
    }
    const leaves = [...sky.leaves.values()].filter(({ live }) => live > 0)
    for (let failures = yield* below(3); failures > 0 && leaves.length > 0; failures--) {
      yield* (yield* oneOf(...leaves)).tell
    }
    if (yield* chance(0.4)) operations.push(yield* Effect.forkDetach(operation(app, sky, strategy)))
    if (yield* chance(0.1)) {
      yield* Fiber.interrupt((yield* oneOf(...operations)) ?? (yield* Effect.forkDetach(Effect.void)))
    }
    yield* Effect.ignore(check(app, sky))
    yield* Effect.sleep(yield* below(8))
  }
  yield* Routine.interrupt(held)
  sky.isOver = true
  yield* Effect.sleep("1 minute")
  // Whatever was asked for has been answered.
  for (const fiber of operations) {
    const exit = fiber.pollUnsafe()
    if (exit === undefined) sky.faults.push("an operation does not return")
    const defect = exit?._tag === "Failure" ? exit.cause.reasons.find((reason) => reason._tag === "Die") : undefined
    if (defect !== undefined) sky.faults.push(`an operation died: ${defect.defect}`)
  }
  for (const { id, live } of sky.leaves.values()) if (live > 0) sky.faults.push(`${id} is left`)
  if ((yield* Orchestrator.list).length > 0) sky.faults.push("something is listed")
  tell(record, sky)
})

describe("a storm", () => {
  for (const strategy of strategies) {
    it.effect(
      `under ${strategy}: no two runs overlap, every call returns, each life is legal, nothing starts after the end, nothing is left`,
      () =>
        Effect.gen(function*() {
          let runs = 0
          for (let seed = 0; seed < seeds; seed++) {
            const sky: Sky = { faults: [], leaves: new Map(), isOver: false, runs: 0 }
            const exit = yield* Effect.exit(TestOrchestra.run(storm(strategy, sky), { seed: `${strategy} ${seed}` }))
            if (Exit.isFailure(exit)) sky.faults.push(Cause.pretty(exit.cause))
            if (sky.faults.length > 0) {
              assert.fail(`seed ${seed}: ${[...sky.faults, ...(sky.record?.log ?? [])].join("\n")}`)
            }
            runs += sky.runs
          }
          assert.isAbove(runs, 8 * seeds)
        }),
      900_000
    )
  }
})
describe("interrupted at any operation", () => {
  it.effect("a start leaves no child behind", () =>
    Effect.gen(function*() {
      let open = 0
      const resource = Effect.acquireRelease(Effect.sync(() => void open++), () => Effect.sync(() => void open--))
      const spec = Supervisor.make({
        name: "app",
        strategy: "rest_for_one",
        children: [
          Child.layer("a", Layer.effectDiscard(resource)),
          Child.make("b", Effect.andThen(resource, Effect.never)),
          Child.layer("c", Layer.effectDiscard(Effect.andThen(resource, Effect.yieldNow)))
        ]
      })
      const operations = yield* atEveryOperation(Supervisor.start(spec), () =>
        Effect.gen(function*() {
          assert.strictEqual(open, 0)
          assert.strictEqual((yield* Orchestrator.snapshot).length, 1)
        }))
      assert.isAbove(operations, 10)
    }).pipe(Effect.provide(Orchestrator.layer)))
})
