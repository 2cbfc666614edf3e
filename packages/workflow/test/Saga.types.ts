import { Saga, type WorkflowError } from "@effect-orchestra/workflow"
import { type Cause, Context, Effect, type Option, Schedule } from "effect"

class Flights extends Context.Service<Flights, { readonly id: string }>()("test/Flights") {}
class Cards extends Context.Service<Cards, { readonly id: string }>()("test/Cards") {}
class Clerk extends Context.Service<Clerk, { readonly id: string }>()("test/Clerk") {}

type Equal<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
const is = <T extends true>(): T | void => undefined

const book: Effect.Effect<string, "full", Flights> = Effect.as(Flights, "LH 400")

// The undo knows the result, and what it requires is required of the step.
const flight = Saga.step("flight", {
  run: book,
  compensate: (id, cause) => {
    is<Equal<typeof id, string>>()
    is<Equal<typeof cause, Cause.Cause<unknown>>>()
    return Effect.as(Clerk, id.length)
  }
})
is<Equal<typeof flight, Effect.Effect<string, "full", Flights | Clerk | Saga.Journal>>>()

// Registered before, it may not know it.
const card = Saga.step("card", {
  run: Cards.pipe(Effect.as(1)),
  register: "before",
  compensate: (id) => {
    is<Equal<typeof id, Option.Option<number>>>()
    return Effect.void
  }
})
is<Equal<typeof card, Effect.Effect<number, never, Cards | Saga.Journal>>>()

// A timeout adds its error; a retry sees it.
const mail = Saga.step("mail", {
  run: Effect.void,
  timeout: "1 second",
  retry: Schedule.recurs(2),
  compensate: Saga.irreversible,
  pivot: true
})
is<Equal<typeof mail, Effect.Effect<void, WorkflowError.StepTimedOut, Saga.Journal>>>()

const trip = Effect.andThen(flight, Effect.andThen(card, mail))
const outcome = Saga.outcome(trip, { onOutcome: (outcome) => Effect.as(Clerk, outcome._tag) })
is<
  Equal<
    typeof outcome,
    Effect.Effect<Saga.Outcome<void, "full" | WorkflowError.StepTimedOut>, never, Flights | Clerk | Cards>
  >
>()

const run = Saga.run(card)
is<
  Equal<
    typeof run,
    Effect.Effect<
      number,
      WorkflowError.SagaAborted<never> | WorkflowError.SagaStuck<never> | WorkflowError.SagaCommitted<never>,
      Cards
    >
  >
>()

// @ts-expect-error a step says how it is undone, if only that it cannot be
Saga.step("silent", { run: Effect.void })

// @ts-expect-error undefined does not say so
Saga.step("vague", { run: Effect.void, compensate: undefined })

// @ts-expect-error the result is an Option where it may not be known
Saga.step("sure", { run: Effect.succeed(1), register: "before", compensate: (id: number) => Effect.succeed(id) })

// @ts-expect-error a step belongs to a saga
Effect.runFork(Saga.step("alone", { run: Effect.void, compensate: Saga.irreversible }))
