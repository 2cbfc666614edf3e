import { Plan } from "@effect-orchestra/workflow"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Random, Result } from "effect"
import { type Answer, below, type Options, outcome, type PlannedStep } from "./model/Plan.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

const pick = <A>(from: ReadonlyArray<A>) => Effect.map(Random.nextIntBetween(0, from.length - 1), (i) => from[i] as A)

const some = <A>(from: ReadonlyArray<A>, oneIn: number) =>
  Effect.filter(from, () => Effect.map(Random.nextIntBetween(1, oneIn), (n) => n === 1))

const answers: ReadonlyArray<Answer> = [
  ...["satisfied", "satisfied", "satisfied", "change", "change", "change", "change"] as const,
  ...["destructive", "destructive", "fail", "die"] as const
]

const names = ["a", "b", "c", "d", "e", "f"]

/** Steps whose `after` point anywhere without a cycle, declared in any order. */
const someSteps = (answers: ReadonlyArray<Answer>, ends: ReadonlyArray<"ok" | "fail" | "die">) =>
  Effect.gen(function*() {
    const count = yield* Random.nextIntBetween(1, names.length)
    const steps = yield* Effect.forEach(names.slice(0, count), (name, index) =>
      Effect.gen(function*() {
        const each = yield* pick([true, false])
        const keys = each ? ["x", "y", "z"].slice(0, yield* Random.nextIntBetween(0, 3)) : [""]
        const items = yield* Effect.forEach(keys, (key) =>
          Effect.gen(function*() {
            return { key, check: yield* pick(answers), later: yield* pick(answers), apply: yield* pick(ends) }
          }))
        return { name, after: yield* some(names.slice(0, index), 3), each, items }
      }))
    return yield* Random.shuffle(steps)
  })

const modes: ReadonlyArray<Options["mode"]> = ["apply", "apply", "apply", "dry-run", "check"]

const replies: ReadonlyArray<Options["answer"]> = ["yes", "no", undefined, undefined]

const someOptions = Effect.fnUntraced(function*(steps: ReadonlyArray<PlannedStep>) {
  const known = steps.map(({ name }) => name)
  const options: Options = {
    mode: yield* pick(modes),
    force: yield* pick([true, false, false]),
    keepGoing: yield* pick([true, false]),
    only: yield* pick([undefined, undefined, yield* some(known, 2)]),
    skip: yield* pick([undefined, undefined, yield* some(known, 4)]),
    answer: yield* pick(replies)
  }
  return options
})

/** The steps on a world that remembers what was applied. */
const world = (steps: ReadonlyArray<PlannedStep>, turns: number) => {
  const applies: Array<string> = []
  const applied = new Set<string>()
  let running = 0
  let peak = 0
  let healed = false
  const taking = Effect.gen(function*() {
    for (let turn = 0; turn < turns; turn++) yield* Effect.yieldNow
  })
  const needOf = (answer: Answer): Effect.Effect<Plan.Need, string> => {
    switch (answer) {
      case "satisfied":
        return Effect.succeed(Plan.Need.Satisfied({ why: "so" }))
      case "fail":
        return Effect.fail("fail")
      case "die":
        return Effect.die(new Error("die"))
      default:
        return Effect.succeed(Plan.Need.Change({ what: answer, destructive: answer === "destructive" }))
    }
  }
  const made = steps.map(({ after, each, items, name }) => {
    const under = below(steps, name)
    const idOf = (key: string) => each ? `${name}/${key}` : name
    const itemOf = (key: string) => items.find((item) => item.key === key) ?? assert.fail(`no item ${key}`)
    const check = (key: string) =>
      Effect.suspend(() => {
        const { check, later } = itemOf(key)
        if (applied.has(idOf(key))) return needOf("satisfied")
        return needOf(
          under.some((other) => Array.from(applied).some((id) => id.split("/")[0] === other)) ? later : check
        )
      }).pipe(Effect.andThen((need) => Effect.as(taking, need)))
    const apply = (key: string) =>
      Effect.suspend(() => {
        applies.push(idOf(key))
        peak = Math.max(peak, ++running)
        const end = healed ? "ok" : itemOf(key).apply
        return Effect.andThen(
          taking,
          Effect.suspend(() => {
            if (end === "ok") applied.add(idOf(key))
            return end === "ok" ? Effect.void : end === "fail" ? Effect.fail("fail") : Effect.die(new Error("die"))
          })
        )
      }).pipe(Effect.ensuring(Effect.sync(() => void running--)))
    return { name, after, each, keys: items.map(({ key }) => key), check, apply }
  })
  const plan = (concurrency: number) =>
    Plan.make(
      "model",
      made.map(({ after, apply, check, each, keys, name }) =>
        each
          ? Plan.each(name, {
            after,
            items: Effect.succeed(keys),
            key: (key: string) => key,
            check,
            apply,
            concurrency
          })
          : Plan.step(name, { after, check: check(""), apply: apply("") })
      ),
      { concurrency }
    )
  return { plan, applies, applied, peak: () => peak, running: () => running, heal: () => void (healed = true) }
}

const stateOf = (state: Plan.StepState): string => {
  switch (state._tag) {
    case "WouldApply":
      return `WouldApply ${state.what}`
    case "Failed":
      return `Failed ${state.errorType === "PlanRefused" ? "unasked" : state.phase}`
    case "Blocked":
      return `Blocked ${state.by}`
    case "NotRun":
      return `NotRun ${state.why}`
    default:
      return state._tag
  }
}

const rowsOf = (report: Plan.Report) => report.steps.map((row) => `${Plan.nameOf(row)}: ${stateOf(row.state)}`)

const run = (plan: Plan.Plan<never, never>, { answer, ...options }: Options) => {
  let asked = 0
  const last = new Map<string, Plan.Progress>()
  let most = 0
  return Plan.run(plan, {
    ...options,
    onProgress: (progress) => {
      most = Math.max(most, progress.done - progress.total)
      last.set(progress.phase, progress)
    },
    confirm: answer === undefined ? undefined : () =>
      Effect.sync(() => {
        asked++
        return answer === "yes"
      })
  }).pipe(
    Effect.result,
    Effect.map((result) => {
      assert.strictEqual(most, 0)
      for (const { done, phase, total } of last.values()) assert.strictEqual(done, total, `what has ended in ${phase}`)
      return { result, asked }
    })
  )
}

const refusedOr = (result: Result.Result<Plan.Report, { readonly _tag: string }>) =>
  Result.isSuccess(result)
    ? { refused: false, rows: rowsOf(result.success) }
    : { refused: result.failure._tag === "PlanRefused", rows: [] }

describe("a plan against its model", () => {
  it.effect("has the states, the order and the questions of one thing after the other", () =>
    Effect.gen(function*() {
      for (let seed = 0; seed < seeds; seed++) {
        yield* Effect.gen(function*() {
          const steps = yield* someSteps(answers, ["ok", "ok", "ok", "fail", "die"])
          const options = yield* someOptions(steps)
          const { applies, plan } = world(steps, yield* Random.nextIntBetween(0, 2))
          const { asked, result } = yield* run(plan(1), options)
          const real = { ...refusedOr(result), asked, applies }
          assert.deepStrictEqual(real, outcome(steps, options), `seed ${seed}: ${JSON.stringify({ steps, options })}`)
        }).pipe(Random.withSeed(`plan ${seed}`))
      }
    }), 60_000)

  it.effect("has the same states with several at once, when failures stop nothing", () =>
    Effect.gen(function*() {
      let most = 0
      for (let seed = 0; seed < seeds; seed++) {
        yield* Effect.gen(function*() {
          const steps = yield* someSteps(answers, ["ok", "ok", "ok", "fail", "die"])
          const options = { ...yield* someOptions(steps), keepGoing: true }
          const { applies, peak, plan } = world(steps, yield* Random.nextIntBetween(1, 3))
          const { result } = yield* run(plan(3), options)
          const expected = outcome(steps, options)
          const real = { ...refusedOr(result), applies: applies.toSorted() }
          assert.deepStrictEqual(real, {
            refused: expected.refused,
            rows: expected.rows,
            applies: expected.applies.toSorted()
          }, `seed ${seed}: ${JSON.stringify({ steps, options })}`)
          most = Math.max(most, peak())
        }).pipe(Random.withSeed(`plan at once ${seed}`))
      }
      assert.isAbove(most, 3)
    }), 60_000)

  it.effect(
    "with several at once, finishes what runs when something fails, and says of the rest why it did not run",
    () =>
      Effect.gen(function*() {
        let stopped = 0
        for (let seed = 0; seed < seeds; seed++) {
          yield* Effect.gen(function*() {
            const steps = yield* someSteps(answers, ["ok", "ok", "fail"])
            const options: Options = { ...yield* someOptions(steps), mode: "apply", force: true, keepGoing: false }
            const { applied, plan, running } = world(steps, yield* Random.nextIntBetween(1, 3))
            const { result } = yield* run(plan(3), options)
            assert.strictEqual(running(), 0)
            const report = yield* Effect.fromResult(result)
            const states = new Map(report.steps.map((row) => [Plan.nameOf(row), row.state]))
            const done = Array.from(states).filter(([, { _tag }]) => _tag === "Applied").map(([name]) => name)
            assert.sameMembers(done, Array.from(applied))
            for (const state of states.values()) {
              if (state._tag === "Blocked") {
                const failed = report.steps.some((row) => row.step === state.by && row.state._tag === "Failed")
                assert.isTrue(failed, `seed ${seed}: blocked by ${state.by}`)
              }
              if (state._tag === "NotRun" && state.why !== "not selected") {
                stopped++
                assert.strictEqual(
                  states.get(state.why.replace(/ failed$/, ""))?._tag,
                  "Failed",
                  `seed ${seed}: ${state.why}`
                )
              }
              assert.notStrictEqual(state._tag, "WouldApply", `seed ${seed}`)
            }
          }).pipe(Random.withSeed(`plan stopped ${seed}`))
        }
        assert.isAbove(stopped, seeds / 10)
      }),
    60_000
  )

  it.effect(
    "applies in a second run exactly what the first one did not, wherever that failed",
    () =>
      Effect.gen(function*() {
        let halves = 0
        for (let seed = 0; seed < seeds; seed++) {
          yield* Effect.gen(function*() {
            const drawn = yield* someSteps(["satisfied", "change", "change", "destructive"], [
              "ok",
              "ok",
              "fail",
              "die"
            ])
            const steps = drawn.map((step) => ({
              ...step,
              items: step.items.map((item) => ({ ...item, later: item.check }))
            }))
            const needed = steps.flatMap(({ each, items, name }) =>
              items.filter(({ check }) => check !== "satisfied").map(({ key }) => each ? `${name}/${key}` : name)
            )
            const { applied, applies, heal, plan } = world(steps, 1)
            const concurrency = yield* Random.nextIntBetween(1, 3)
            const options = { mode: "apply", force: true, keepGoing: yield* pick([true, false]) } as const
            yield* Plan.run(plan(concurrency), options)
            const missing = needed.filter((id) => !applied.has(id))
            if (missing.length > 0 && applied.size > 0) halves++
            heal()
            applies.length = 0
            const second = yield* Plan.run(plan(concurrency), options)
            assert.sameMembers(applies, missing, `seed ${seed}`)
            assert.strictEqual(second.ending, missing.length > 0 ? "done" : "nothing")
            assert.strictEqual((yield* Plan.run(plan(concurrency), options)).ending, "nothing")
          }).pipe(Random.withSeed(`plan twice ${seed}`))
        }
        assert.isAbove(halves, seeds / 10)
      }),
    60_000
  )
})
