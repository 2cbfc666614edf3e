import { Bus, Group, Joiner, Mailbox, Orchestrator, Routine, Subscription, Topic } from "@effect-orchestra/core"
import type { OrchestratorEvent } from "@effect-orchestra/core/Event"
import { Chaos, SeededRandom, TestOrchestra } from "@effect-orchestra/core/testing"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, identity, Schema } from "effect"
import { forgetfulPool, hastyRace, lossyReceive } from "./model/Broken.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

/** What the storm is about, so that it can also be let loose on what is known to be broken. */
interface Subject {
  readonly receive: <A, E>(receive: Effect.Effect<A, E>) => Effect.Effect<A, E>
  readonly race: (contenders: ReadonlyArray<Effect.Effect<number, string>>) => Effect.Effect<number, unknown>
  readonly pool: (
    limit: number,
    producers: ReadonlyArray<ReadonlyArray<Effect.Effect<void, string>>>
  ) => Effect.Effect<void, unknown>
}

const ours: Subject = {
  receive: (receive) => receive,
  race: (contenders) =>
    Group.run((group) => Effect.forEach(contenders, (contender) => Group.fork(group, contender)), {
      joiner: Joiner.firstSuccess
    }),
  pool: (concurrency, producers) =>
    Group.run((group) => {
      // Nothing but the group itself releases the first one from where it waits for a slot.
      const produce = (tasks: ReadonlyArray<Effect.Effect<void, string>>, index: number) =>
        (index === 0 ? Effect.uninterruptible : identity)(Effect.forEach(tasks, (task) => Group.fork(group, task)))
      return Effect.forEach(producers, produce, { concurrency: "unbounded" })
    }, { concurrency })
}

/** What one storm decides, and what it has found wrong. */
class Storm {
  readonly subject: Subject
  readonly faults: Array<string> = []
  private readonly dice: SeededRandom

  constructor(seed: number, subject: Subject) {
    this.dice = new SeededRandom(`storm ${seed}`)
    this.subject = subject
  }

  /** Whether a task of the pool has failed: from then on it starts none. */
  private failed = false

  /** Looks at what happens in the tree. */
  saw(event: OrchestratorEvent): void {
    if (!event.path.startsWith("/orchestra/part 2/pool/group/")) return
    if (event._tag === "Ready" && this.failed) this.faults.push(`${event.path} started after its pool had failed`)
    if (event._tag === "Exited" && (event.exit.reason === "failure" || event.exit.reason === "defect")) {
      this.failed = true
    }
  }

  /** From 1 to `max`. */
  upTo(max: number): number {
    return 1 + this.dice.below(max)
  }

  chance(probability: number): boolean {
    return this.dice.chance(probability)
  }

  pick<A>(first: A, ...rest: ReadonlyArray<A>): A {
    return [first, ...rest][this.dice.below(1 + rest.length)] ?? first
  }

  /** A while in which others run. */
  pause(): Effect.Effect<void> {
    return this.chance(0.5)
      ? Effect.sleep(this.upTo(5))
      : Effect.asVoid(Effect.replicateEffect(Effect.yieldNow, this.upTo(8)))
  }

  some<A>(max: number, make: (index: number) => A): ReadonlyArray<A> {
    return Array.from({ length: this.upTo(max) }, (_, index) => make(index))
  }
}

/** Receivers are killed and replaced while messages pass: each message that was sent is received or undelivered once. */
const messages = Effect.fnUntraced(function*(storm: Storm, ledger: Ledger) {
  const mailbox = yield* Mailbox.make<string>({
    capacity: storm.upTo(3),
    overflow: storm.pick("suspend", "suspend", "drop_new", "drop_old", "drop_old"),
    onUndelivered: (message) => void ledger.seen.push(message)
  })
  const producer = (name: number) =>
    Effect.forEach(storm.some(6, (index) => `${name}.${index}`), (message) =>
      Effect.uninterruptibleMask((restore) => {
        ledger.attempted.add(message)
        return Effect.andThen(
          restore(Mailbox.send(mailbox, message)),
          Effect.sync(() => ledger.acknowledged.add(message))
        )
      }).pipe(Effect.andThen(Chaos.point("sent"))))
  const receive = () =>
    storm.subject.receive(storm.pick<Effect.Effect<string | ReadonlyArray<string>, unknown>>(
      Mailbox.receive(mailbox),
      Mailbox.receiveAll(mailbox),
      Mailbox.receiveBetween(mailbox, 1, 2)
    ))
  const received = (received: string | ReadonlyArray<string>) =>
    Effect.sync(() => void ledger.seen.push(...typeof received === "string" ? [received] : received))
  const consuming = (between: Effect.Effect<void>) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.forever(
        Effect.andThen(Effect.flatMap(restore(Effect.suspend(receive)), received), restore(between))
      )
    ).pipe(Effect.catch(() => Effect.void))
  const consumer = consuming(Chaos.point("received"))
  const consumers = yield* Effect.forEach(
    storm.some(3, String),
    () => Orchestrator.forkScoped(consumer, { name: "consumer" })
  )
  const producers = yield* Effect.forEach(
    storm.some(3, producer),
    (producer) => Orchestrator.forkScoped(producer, { name: "producer" })
  )
  for (let i = 0; i < storm.upTo(4); i++) {
    yield* storm.pause()
    const prey = consumers[storm.upTo(consumers.length) - 1]
    if (prey !== undefined) yield* storm.chance(0.5) ? Routine.interrupt(prey) : Routine.stop(prey)
    consumers.push(yield* Orchestrator.forkScoped(consumer, { name: "consumer" }))
  }
  // One that is spared, so that nobody sends for ever.
  consumers.push(yield* Orchestrator.forkScoped(consuming(Effect.void), { name: "consumer" }))
  yield* Effect.forEach(producers, Routine.await)
  yield* Mailbox.end(mailbox)
  yield* Effect.forEach(consumers, Routine.await)
  yield* consuming(Effect.void)
})

class Ledger {
  readonly attempted = new Set<string>()
  readonly acknowledged = new Set<string>()
  /** Received or undelivered. */
  readonly seen: Array<string> = []

  get faults(): ReadonlyArray<string> {
    const seen = new Set(this.seen)
    return [
      ...Array.from(this.acknowledged).filter((message) => !seen.has(message)).map((message) => `lost ${message}`),
      ...this.seen.filter((message, index) => this.seen.indexOf(message) !== index).map((message) =>
        `doubled ${message}`
      ),
      ...this.seen.filter((message) => !this.attempted.has(message)).map((message) => `made up ${message}`)
    ]
  }
}

const Told = Topic.make("Told", Schema.String, { capacity: 2 })

/** Readers of two subscriptions are killed and replaced: what is published reaches both once, or nobody. */
const broadcasts = Effect.fnUntraced(function*(storm: Storm) {
  const published = new Set<string>()
  const subscriptions = yield* Effect.forEach(
    ["a", "b"],
    (name) => Effect.map(Bus.subscribe(Told, { name }), (subscription) => ({ subscription, seen: new Array<string>() }))
  )
  const reading = (between: Effect.Effect<void>) => ({ seen, subscription }: typeof subscriptions[number]) =>
    Effect.uninterruptibleMask((restore) =>
      Effect.forever(
        Effect.andThen(
          Effect.flatMap(
            restore(Subscription.receive(subscription)),
            ({ value }) => Effect.sync(() => void seen.push(value))
          ),
          restore(between)
        )
      )
    )
  const forked = (between: Effect.Effect<void>) =>
    Effect.forEach(subscriptions, (each) => Orchestrator.forkScoped(reading(between)(each), { name: "reader" }))
  const publisher = (name: number) =>
    Effect.forEach(
      storm.some(5, (index) => `${name}.${index}`),
      (value) =>
        Effect.uninterruptibleMask((restore) =>
          Effect.andThen(restore(Bus.publish(Told, value)), Effect.sync(() => void published.add(value)))
        ).pipe(Effect.andThen(Chaos.point("published")))
    )
  const publishers = yield* Effect.forEach(
    storm.some(3, publisher),
    (publisher) => Orchestrator.forkScoped(publisher, { name: "publisher" })
  )
  for (let i = 0; i < storm.upTo(3); i++) {
    const readers = yield* forked(Chaos.point("read"))
    yield* storm.pause()
    const preys: ReadonlyArray<Routine.Routine<unknown, unknown>> = storm.chance(0.3)
      ? [...readers, ...publishers]
      : readers
    for (const prey of preys) yield* Routine.interrupt(prey)
  }
  const spared = yield* forked(Effect.void)
  yield* Effect.forEach(publishers, Routine.await)
  // What is left is read when nobody is ready any more.
  yield* Effect.sleep("1 second")
  yield* Effect.forEach(spared, (routine) => Routine.stop(routine))
  const [a = [], b = []] = subscriptions.map(({ seen }) => seen.toSorted())
  if (a.join() !== b.join()) storm.faults.push(`one subscription saw ${a.join()}, the other ${b.join()}`)
  if (new Set(a).size < a.length) storm.faults.push(`doubled among ${a.join()}`)
  for (const value of published) if (!a.includes(value)) storm.faults.push(`published ${value}, and nobody saw it`)
}, Effect.provide(Bus.layer))

/** Work that is in progress from its first instruction to the end of its finalizer, which takes a while. */
class Work {
  private readonly storm: Storm
  open = 0
  peak = 0
  constructor(storm: Storm) {
    this.storm = storm
  }

  of<A>(value: A): Effect.Effect<A, string> {
    const { storm } = this
    const finalizer = Effect.andThen(storm.pause(), Effect.sync(() => void this.open--))
    const body = Effect.andThen(storm.pause(), Effect.andThen(Chaos.point("work"), storm.pause()))
    const begun = Effect.sync(() => {
      this.peak = Math.max(this.peak, ++this.open)
    })
    return Effect.acquireUseRelease(
      begun,
      () => storm.chance(0.1) ? Effect.fail("boom") : Effect.as(body, value),
      () => finalizer
    )
  }
}

/** Once a race is over, nobody runs any more. */
const races = Effect.fnUntraced(function*(storm: Storm) {
  for (let i = 0; i < storm.upTo(3); i++) {
    const work = new Work(storm)
    const over = Effect.sync(() => {
      if (work.open > 0) storm.faults.push(`${work.open} run after their race`)
    })
    yield* Effect.ignoreCause(Effect.ensuring(storm.subject.race(storm.some(4, (index) => work.of(index))), over))
  }
})

/** However a pool ends, no more than its limit ran at once, nobody runs any more, and no producer waits for ever. */
const pools = Effect.fnUntraced(function*(storm: Storm) {
  const work = new Work(storm)
  const limit = storm.upTo(3)
  const over = Effect.sync(() => {
    if (work.open > 0) storm.faults.push(`${work.open} run after their pool`)
    if (work.peak > limit) storm.faults.push(`${work.peak} ran at once in a pool of ${limit}`)
  })
  const producers = storm.some(3, () => storm.some(4, () => work.of(undefined)))
  const pool = Effect.ensuring(storm.subject.pool(limit, producers), over)
  const routine = yield* Orchestrator.forkScoped(Effect.ignoreCause(pool), { name: "pool" })
  if (storm.chance(0.5)) {
    yield* storm.pause()
    yield* storm.chance(0.5) ? Routine.interrupt(routine) : Routine.stop(routine)
  }
  yield* Routine.await(routine)
})

/** Runs one storm; returns what was wrong, and how often chaos struck. */
const storming = (seed: number, subject: Subject) => {
  const storm = new Storm(seed, subject)
  const ledger = new Ledger()
  const program = Effect.gen(function*() {
    yield* Orchestrator.instrument((event) => storm.saw(event))
    const parts = [
      Effect.orDie(messages(storm, ledger)),
      races(storm),
      Effect.orDie(pools(storm)),
      Effect.orDie(broadcasts(storm))
    ]
    const routines = yield* Effect.forEach(
      parts,
      (part, index) => Orchestrator.fork(part, { name: `part ${index}` })
    )
    if (storm.chance(0.2)) {
      yield* storm.pause()
      yield* Orchestrator.interruptAll()
    }
    for (const routine of routines) yield* Routine.await(routine)
    return (yield* Chaos.log).length
  }).pipe(Effect.orDie, Effect.provide(Chaos.layer({ seed, kill: 0.03, delay: [0.2, "10 millis"], fail: 0.03 })))
  return Effect.map(Effect.exit(TestOrchestra.run(program, { seed })), (exit) => ({
    struck: Exit.isSuccess(exit) ? exit.value : 0,
    faults: [...storm.faults, ...ledger.faults, ...Exit.isSuccess(exit) ? [] : [String(exit.cause)]]
  }))
}

/** The first seed that finds a fault. */
const firstFault = Effect.fnUntraced(function*(subject: Subject) {
  for (let seed = 0; seed < 500; seed++) {
    const { faults } = yield* storming(seed, subject)
    if (faults.length > 0) return { seed, faults }
  }
  return undefined
})

describe("a storm of kills, delays and failures", () => {
  it.effect("leaks nothing, loses no message, doubles none, and hangs nowhere", () =>
    Effect.gen(function*() {
      let struck = 0
      for (let seed = 0; seed < seeds; seed++) {
        const result = yield* storming(seed, ours)
        if (result.faults.length > 0) assert.fail(`seed ${seed}: ${result.faults.join("; ")}`)
        struck += result.struck
      }
      assert.isAbove(struck, seeds)
    }), 600_000)

  it.effect("finds a receive that loses its message", () =>
    Effect.gen(function*() {
      const found = yield* firstFault({ ...ours, receive: lossyReceive })
      assert.match(found?.faults.join() ?? "", /lost/)
    }), 120_000)

  it.effect("finds a race that does not await its losers", () =>
    Effect.gen(function*() {
      const found = yield* firstFault({ ...ours, race: hastyRace })
      assert.match(found?.faults.join() ?? "", /run after their race/)
    }), 120_000)

  it.effect("finds a pool that forgets who waits for a slot", () =>
    Effect.gen(function*() {
      const found = yield* firstFault({ ...ours, pool: forgetfulPool })
      assert.match(found?.faults.join() ?? "", /Deadlock|Leak/)
    }), 120_000)
})
