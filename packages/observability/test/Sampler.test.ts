import { Sampler } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"
import { Context, Effect, Exit, Fiber, Layer, Option, Tracer } from "effect"
import { TestClock } from "effect/testing"
import { Recorder } from "./support/Recorder.ts"

const watched = { annotations: Context.make(Sampler.Watched, true) }

/** Runs a program with a sampler around a recorder, and returns the names of what was sent, in that order. */
const sent = <A, E>(program: Effect.Effect<A, E>, options: Sampler.SamplerOptions) => {
  const recorder = new Recorder()
  return Effect.as(
    Effect.exit(Effect.withTracer(program, Sampler.make(recorder.tracer, options))),
    recorder
  )
}

const names = (recorder: Recorder) => recorder.ended.map(({ name }) => name)

const inner = Effect.withSpan(Effect.void, "inner")

describe("Sampler", () => {
  it.effect("keeps everything by default, and nothing that is fine with a ratio of 0", () =>
    Effect.gen(function*() {
      const program = Effect.withSpan(inner, "fine", watched)
      assert.deepStrictEqual(names(yield* sent(program, {})), ["inner", "fine"])
      const none = yield* sent(program, { ratio: 0 })
      assert.deepStrictEqual(names(none), [])
      assert.strictEqual(none.started.length, 2)
    }))

  it.effect("keeps what failed with what had ended within it, and the open spans around it", () =>
    Effect.gen(function*() {
      const failing = Effect.withSpan(Effect.andThen(inner, Effect.fail("no")), "run", watched)
      const after = Effect.withSpan(Effect.void, "after")
      const program = Effect.withSpan(Effect.andThen(Effect.ignore(failing), after), "request")
      const beside = Effect.withSpan(Effect.void, "beside")
      assert.deepStrictEqual(names(yield* sent(Effect.andThen(program, beside), { ratio: 0 })), [
        "inner",
        "run",
        "after",
        "request"
      ])
    }))

  it.effect("keeps a failure that nobody watches only within a watched span that fails", () =>
    Effect.gen(function*() {
      const failing = Effect.withSpan(Effect.fail("no"), "query")
      assert.deepStrictEqual(names(yield* sent(failing, { ratio: 0 })), [])
      const handled = Effect.withSpan(Effect.ignore(failing), "run", watched)
      assert.deepStrictEqual(names(yield* sent(handled, { ratio: 0 })), [])
      assert.deepStrictEqual(names(yield* sent(Effect.withSpan(failing, "run", watched), { ratio: 0 })), [
        "query",
        "run"
      ])
    }))

  it.effect("holds what is within two watched spans for the outer one", () =>
    Effect.gen(function*() {
      const fine = Effect.withSpan(inner, "task", watched)
      const program = Effect.withSpan(Effect.andThen(fine, Effect.fail("no")), "group", watched)
      assert.deepStrictEqual(names(yield* sent(program, { ratio: 0 })), ["inner", "task", "group"])
    }))

  it.effect("keeps what is slow and not what was interrupted", () =>
    Effect.gen(function*() {
      const sleeping = (name: string, seconds: number) =>
        Effect.withSpan(Effect.sleep(`${seconds} seconds`), name, watched)
      const program = Effect.gen(function*() {
        const slow = yield* Effect.forkChild(sleeping("slow", 5))
        const quick = yield* Effect.forkChild(sleeping("quick", 4))
        const cut = yield* Effect.forkChild(sleeping("cut", 100))
        yield* TestClock.adjust("4 seconds")
        yield* Fiber.interrupt(cut)
        yield* TestClock.adjust("1 second")
        yield* Fiber.awaitAll([slow, quick])
      })
      assert.deepStrictEqual(names(yield* sent(program, { ratio: 0, slow: "5 seconds" })), ["slow"])
    }))

  it.effect("keeps or drops whole traces, by their id", () =>
    Effect.gen(function*() {
      const trace = Effect.withSpan(Effect.andThen(inner, inner), "outer")
      const { ended, started } = yield* sent(Effect.replicateEffect(trace, 400), { ratio: 0.25 })
      const chosen = started.filter(({ traceId }) => Number.parseInt(traceId.slice(-13), 16) < 2 ** 52 / 4)
      assert.sameMembers(ended, chosen)
      assert.isAbove(ended.length, 3 * 50)
      assert.isBelow(ended.length, 3 * 150)
    }))

  it.effect("keeps what a sampled request brings with it", () =>
    Effect.gen(function*() {
      const parent = Tracer.externalSpan({ traceId: "f".repeat(32), spanId: "a".repeat(16), sampled: true })
      const program = Effect.withSpan(inner, "served", { parent })
      assert.deepStrictEqual(names(yield* sent(program, { ratio: 0 })), ["inner", "served"])
    }))

  it.effect("holds the last spans of each, so many in all, and tells of the others", () =>
    Effect.gen(function*() {
      let dropped = 0
      const options = { ratio: 0, dropped: (n: number) => void (dropped += n) }
      const many = (count: number) => Effect.replicateEffect(inner, count, { discard: true })
      const one = yield* sent(Effect.withSpan(Effect.andThen(many(200), Effect.fail("no")), "run", watched), options)
      assert.strictEqual(one.ended.length, 129)
      assert.strictEqual(dropped, 72)
      dropped = 0
      const run = Effect.withSpan(Effect.andThen(many(100), Effect.never), "run", watched)
      const all = yield* sent(
        Effect.gen(function*() {
          const fibers = yield* Effect.replicateEffect(Effect.forkChild(run, { startImmediately: true }), 120)
          assert.strictEqual(dropped, 2000)
          const unheld = yield* Effect.forkChild(
            Effect.withSpan(Effect.andThen(many(1), Effect.fail("no")), "last", watched)
          )
          yield* Fiber.await(unheld)
          dropped--
          yield* Fiber.interruptAll(fibers)
          return yield* Effect.withSpan(Effect.andThen(many(100), Effect.fail("no")), "late", watched)
        }),
        options
      )
      assert.strictEqual(dropped, 2000)
      assert.deepStrictEqual(names(all).slice(0, 2), ["last", "inner"])
      assert.strictEqual(all.ended.length, 102)
    }))

  it.effect("holds a span to 128 events, links and attributes, and says how many it left out", () =>
    Effect.gen(function*() {
      const other = Tracer.externalSpan({ traceId: "1".repeat(32), spanId: "2".repeat(16) })
      const link: Tracer.SpanLink = { span: other, attributes: {} }
      const program = Effect.withSpan(
        Effect.flatMap(Effect.currentSpan, (span) =>
          Effect.sync(() => {
            for (let n = 0; n < 200; n++) {
              span.event(`event ${n}`, 0n)
              span.attribute(`attribute ${n % 150}`, n)
              span.addLinks([link])
            }
          })),
        "busy",
        { links: Array.from({ length: 100 }, () => link) }
      )
      const { ended: [span] } = yield* sent(program, {})
      assert(span !== undefined)
      assert.strictEqual(span.events.length, 128)
      assert.strictEqual(span.links.length, 128)
      assert.strictEqual(span.attributes.size, 129)
      assert.strictEqual(span.attributes.get("orchestra.span.dropped"), 72 + 172 + 22)
      assert.strictEqual(span.attributes.get("attribute 10"), 160)
      const { ended: [linked] } = yield* sent(
        Effect.withSpan(Effect.void, "linked", { links: Array.from({ length: 300 }, () => link) }),
        {}
      )
      assert.strictEqual(linked?.links.length, 128)
    }))

  it.effect("leaves alone what its tracer does not sample, gives out twice or has wrapped already", () =>
    Effect.gen(function*() {
      const unsampled = yield* sent(Effect.withSpan(Effect.void, "off", { sampled: false }), { ratio: 0 })
      assert.deepStrictEqual(names(unsampled), ["off"])
      const frozen = Object.freeze(new Recorder().tracer.span({
        name: "shared",
        parent: Option.none(),
        annotations: Context.empty(),
        links: [],
        startTime: 0n,
        kind: "internal",
        root: true,
        sampled: true
      }))
      const shared = Tracer.make({ span: () => frozen })
      yield* Effect.withTracer(Effect.withSpan(Effect.void, "any"), Sampler.make(shared))
      const recorder = new Recorder()
      const twice = Sampler.make(Sampler.make(recorder.tracer, { ratio: 0 }))
      yield* Effect.withTracer(Effect.withSpan(Effect.void, "any"), twice)
      assert.deepStrictEqual(recorder.ended, [])
    }))

  it.effect("is put around the tracer that is there, and refuses a ratio that is none", () =>
    Effect.gen(function*() {
      const recorder = new Recorder()
      const layer = Layer.provideMerge(Sampler.layer({ ratio: 0 }), Layer.succeed(Tracer.Tracer, recorder.tracer))
      yield* Effect.provide(inner, layer)
      assert.strictEqual(recorder.started.length, 1)
      assert.deepStrictEqual(recorder.ended, [])
      const exit = yield* Effect.exit(Effect.sync(() => Sampler.make(recorder.tracer, { ratio: 2 })))
      assert.deepStrictEqual(
        exit,
        Exit.die(new Error("the ratio of a sampler is a number from 0 to 1, got: 2"))
      )
    }))
})
