/** What compiles and what does not: read by the compiler alone. */
import { Plan, type WorkflowError } from "@effect-orchestra/workflow"
import { Context, Effect, type Schema } from "effect"

class Reader extends Context.Service<Reader, { readonly r: number }>()("types/Reader") {}
class Lister extends Context.Service<Lister, { readonly l: number }>()("types/Lister") {}
class Writer extends Context.Service<Writer, { readonly w: number }>()("types/Writer") {}
class Restarter extends Context.Service<Restarter, { readonly s: number }>()("types/Restarter") {}
class Terminal extends Context.Service<Terminal, { readonly t: number }>()("types/Terminal") {}

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const is = <_T extends true>() => undefined

type Run<R, E = WorkflowError.PlanError | WorkflowError.PlanRefused> = Effect.Effect<Plan.Report, E, R>

const satisfied: Plan.Need = Plan.Need.Satisfied({ why: "there" })

const cache = Plan.step("cache", {
  check: Effect.flatMap(Reader, () => Effect.fail("unreadable" as const)),
  apply: Effect.asVoid(Writer)
})
is<Equals<typeof cache, Plan.Step<Reader, Writer>>>()

// What an effect acquires is released with it.
const scoped = Plan.step("scoped", {
  check: Effect.as(Effect.addFinalizer(() => Effect.void), satisfied),
  apply: Effect.andThen(Effect.addFinalizer(() => Effect.void), Writer)
})
is<Equals<typeof scoped, Plan.Step<never, Writer>>>()

const restart = Plan.each("restart", {
  after: ["cache"],
  items: Lister.pipe(Effect.as([{ name: "web", port: 80 }])),
  key: ({ name }) => name,
  check: ({ port }) => Effect.as(Reader, Plan.Need.Change({ what: `restart ${port}`, destructive: true })),
  apply: ({ port }) => Effect.as(Restarter, port)
})
is<Equals<typeof restart, Plan.Step<Lister | Reader, Restarter>>>()

// The items are what the list holds, however it is made.
Plan.each("mapped", {
  items: Effect.gen(function*() {
    const { l } = yield* Lister
    return new Map([["web", l]])
  }),
  key: ([name, port]) => name.repeat(port),
  check: ([, port]) => Effect.succeed(Plan.Need.Change({ what: port.toFixed() })),
  apply: ([name]) => Effect.sync(() => name.length)
})

// The requirements of a plan are those of its steps, checks and applies apart.
const plan = Plan.make("both", [cache, restart])
is<Equals<typeof plan, Plan.Plan<Reader | Lister, Writer | Restarter>>>()
is<Equals<ReturnType<typeof Plan.make<readonly []>>, Plan.Plan<never, never>>>()

// What only looks needs nothing that may write.
const dry = Plan.run(plan, { mode: "dry-run" })
is<Equals<typeof dry, Run<Reader | Lister>>>()
const check = Plan.run(plan, { mode: "check", keepGoing: true, onProgress: ({ done, total }) => done / total })
is<Equals<typeof check, Run<Reader | Lister>>>()
const apply = Plan.run(plan, { mode: "apply" })
is<Equals<typeof apply, Run<Reader | Lister | Writer | Restarter>>>()

// A mode that is known at run time only may be the one that writes.
declare const mode: Plan.Mode
const any = Plan.run(plan, { mode, confirm: (preview) => Effect.as(Terminal, preview.steps.length < 3) })
is<Equals<typeof any, Run<Reader | Lister | Writer | Restarter | Terminal>>>()

// A plan of a command needs no more than it says.
declare const takes: (plan: Plan.Plan<Reader | Lister | Terminal, Writer | Restarter>) => void
takes(plan)

// @ts-expect-error a mode is one of three
Plan.run(plan, { mode: "plan" })

// @ts-expect-error a check says what is needed
Plan.step("no need", { check: Effect.succeed(true), apply: Effect.void })

// @ts-expect-error there is no step without a check
Plan.step("no check", { apply: Effect.void })

// A report is what its schema says.
is<Equals<Schema.Schema.Type<typeof Plan.Report>, Plan.Report>>()
