import { Orchestrator } from "@effect-orchestra/core"
import { type Kernel, Node } from "@effect-orchestra/core/Kernel"
import { atEveryOperation, TestOrchestra } from "@effect-orchestra/core/testing"
import { Waiters } from "@effect-orchestra/core/Writer"
import { Child, type Supervised, Supervisor } from "@effect-orchestra/supervisor"
import { assert, describe, it } from "@effect/vitest"
import { Cause, Context, Effect, Exit, Fiber, Layer, Random } from "effect"
import { TestClock } from "effect/testing"
import type * as Internal from "../src/internal/Exports.ts"
import * as Model from "./model/Service.ts"

// A supervisor makes them; nobody else is to import them, but for their tests.
const { Exports } = (await import(new URL("../src/internal/Exports.ts", import.meta.url).href)) as typeof Internal

const seeds = Number(process.env["SEEDS"] ?? 200)

class Db extends Context.Service<Db, { readonly run: number }>()("test/Db") {}

/** A place in the tree. */
class Place extends Node {
  readonly kind = "supervisor"
  readonly incarnation = 1
  readonly status = "running"
  override bare = true
  stop() {
    return undefined
  }
  snapshot(): never {
    throw new Error("nobody looks")
  }
}

class FakeSlot implements Internal.Offer {
  readonly record: Node
  readonly offered = new Waiters<void>()
  services: Context.Context<never> | undefined = undefined
  exports: Internal.Exports | undefined = undefined
  unavailable: string | undefined = undefined
  state = "restarting"
  private readonly kernel: Kernel
  constructor(kernel: Kernel, name: string, owner: Node) {
    this.kernel = kernel
    this.record = new Place(0, name, owner)
  }
  tell() {
    this.offered.wake(this.kernel.writer, undefined)
  }
}

class FakeSupervisor extends Place implements Internal.Exporter {
  readonly spec: Supervisor.Any
  readonly slots: ReadonlyMap<string, FakeSlot>
  isStopping = false
  private readonly kernel: Kernel
  constructor(kernel: Kernel, spec: Supervisor.Any, owner: Node | undefined) {
    super(0, spec.name, owner)
    this.kernel = kernel
    this.spec = spec
    this.slots = new Map(spec.children.map(({ id }) => [id, new FakeSlot(kernel, id, this)]))
  }
  override get transparent() {
    return this.owner !== undefined
  }
  get writer() {
    return this.kernel.writer
  }
  get strategy() {
    return this.spec.strategy
  }
  slot(id: string): FakeSlot {
    return this.slots.get(id) ?? assert.fail(`no child ${id}`)
  }
}

const dbSpec = (wait: number) =>
  Supervisor.make({
    name: "inner",
    strategy: "one_for_one",
    unavailable: { wait },
    children: [Child.layer("db", Layer.succeed(Db, { run: 0 }))]
  })

/** A tree of an outer supervisor, an inner one, and its database; and what can happen to it. */
const tree = Effect.fnUntraced(function*(wait: number) {
  const { kernel } = yield* Orchestrator
  const innerSpec = dbSpec(1)
  const children = [Child.supervisor(innerSpec)] as const
  const outerSpec = Supervisor.make({ name: "outer", strategy: "one_for_one", unavailable: { wait }, children })
  const outer = new FakeSupervisor(kernel, outerSpec, undefined)
  const exports = new Exports(outer)
  const place = outer.slot("inner")
  let inner = new FakeSupervisor(kernel, innerSpec, place.record)
  let run = 0
  place.exports = new Exports(inner)
  const take = (step: Exclude<Model.Step, { readonly _tag: "Call" | "Interrupt" | "Pass" }>["_tag"]) => {
    const db = inner.slot("db")
    switch (step) {
      case "Offer":
        db.services = Context.make(Db, { run: ++run }) as Context.Context<never>
        return db.tell()
      case "Drop":
        db.services = undefined
        return undefined
      case "Stop":
        db.services = undefined
        db.unavailable = "stopped"
        return db.tell()
      case "Revive":
        db.unavailable = undefined
        return undefined
      case "End":
        inner.isStopping = true
        db.services = undefined
        db.unavailable = "stopped"
        return db.tell()
      case "Gone":
        place.exports = undefined
        return undefined
      case "Again":
        inner = new FakeSupervisor(kernel, innerSpec, place.record)
        place.exports = new Exports(inner)
        return place.tell()
      case "Quit":
        place.unavailable = "stopped"
        return place.tell()
      default:
        place.unavailable = undefined
        return undefined
    }
  }
  // What a call leaves behind shows nowhere else.
  const deadlines = Reflect.get(kernel.writer, "deadlines") as { readonly live: number }
  /** How much is there of calls that wait. */
  const waiting = () => [place, inner.slot("db")].filter(({ offered }) => !offered.isEmpty).length + deadlines.live
  return {
    get: exports.handleOf(Db.key).get as Supervised.SupervisedHandle<{ run: number }>["get"],
    take,
    waiting
  }
})

const told = (
  exit: Exit.Exit<{ readonly run: number }, { readonly path: string; readonly state: string }> | undefined
) => {
  if (exit === undefined) return undefined
  if (Exit.isSuccess(exit)) return `run ${exit.value.run}`
  const error = exit.cause.reasons.find(Cause.isFailReason)?.error
  return error === undefined ? "interrupted" : `${error.path} is ${error.state}`
}

const kinds = ["Offer", "Drop", "Stop", "Revive", "End", "Gone", "Again", "Quit", "Resume", "Call", "Call"] as const

describe("the services of nested supervisors", () => {
  it.effect(
    "are given, waited for and refused as a naive model says",
    () =>
      Effect.gen(function*() {
        for (let seed = 0; seed < seeds; seed++) {
          const run = Effect.gen(function*() {
            const wait = yield* Random.nextIntBetween(1, 40)
            const { get, take, waiting } = yield* tree(wait)
            const model = new Model.Service(wait)
            const calls: Array<
              Fiber.Fiber<{ readonly run: number }, { readonly path: string; readonly state: string }>
            > = []
            const log: Array<string> = []
            for (let i = 0; i < 60; i++) {
              const at = yield* Random.nextIntBetween(0, kinds.length + 3)
              const kind = kinds[at]
              const step: Model.Step = kind !== undefined
                ? { _tag: kind }
                : at === kinds.length
                ? { _tag: "Interrupt", call: yield* Random.nextIntBetween(0, calls.length + 1) }
                : { _tag: "Pass", millis: yield* Random.nextIntBetween(1, 30) }
              if (!model.allows(step)) continue
              log.push(step._tag)
              model.take(step)
              if (step._tag === "Pass") yield* TestClock.adjust(step.millis)
              else if (step._tag === "Call") calls.push(yield* Effect.forkChild(get, { startImmediately: true }))
              else if (step._tag === "Interrupt") calls[step.call]?.interruptUnsafe()
              else take(step._tag)
              const answers = calls.map((call) => told(call.pollUnsafe()))
              const expected = model.calls.map(({ answer }) => answer)
              assert.deepStrictEqual(answers, expected, `seed ${seed}: ${log.join(" ")}`)
            }
            if (calls.every((call) => call.pollUnsafe() !== undefined)) assert.strictEqual(waiting(), 0, `seed ${seed}`)
            yield* TestClock.adjust(wait)
            assert.strictEqual(waiting(), 0, `seed ${seed}: ${log.join(" ")}`)
          })
          yield* run.pipe(Random.withSeed(`exports ${seed}`), Effect.scoped, Effect.provide(TestOrchestra.layer))
        }
      }),
    60_000
  )

  it.effect(
    "leave nothing of a call that was interrupted at any operation",
    () =>
      Effect.gen(function*() {
        const { get, take, waiting } = yield* tree(1000)
        const come = Effect.andThen(Effect.yieldNow, Effect.sync(() => take("Offer")))
        const call = Effect.gen(function*() {
          for (let i = 0; i < 3; i++) {
            const offer = yield* Effect.forkChild(come)
            yield* get
            yield* Fiber.join(offer)
            take("Drop")
          }
        })
        const check = () =>
          Effect.sync(() => {
            assert.strictEqual(waiting(), 0)
            take("Drop")
          })
        assert.isAbove(yield* atEveryOperation(call, check), 20)
      }).pipe(Effect.scoped, Effect.provide(TestOrchestra.layer))
  )
})
