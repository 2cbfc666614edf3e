/** What compiles and what does not: read by the compiler alone. */
import * as NodeMain from "@effect-orchestra/core/NodeMain"
import { Plan } from "@effect-orchestra/workflow"
import { Context, Effect, Layer } from "effect"
import { Command } from "effect/cli"

class Reader extends Context.Service<Reader, { readonly r: number }>()("types/Reader") {}
class Writer extends Context.Service<Writer, { readonly w: number }>()("types/Writer") {}
class Token extends Context.Service<Token, { readonly t: number }>()("types/Token") {}

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const is = <_T extends true>() => undefined

const plan = Plan.make("deploy", [
  Plan.step("cache", {
    check: Effect.as(Reader, Plan.Need.Satisfied({ why: "there" })),
    apply: Effect.asVoid(Writer)
  })
])
const writer = Layer.effect(Writer, Effect.as(Token, { w: 1 }))

// The layer of the applies takes their requirement away, and brings its own; what it may fail with is told.
const command = Plan.command(plan, { apply: writer })
is<Equals<Exclude<Command.Services<typeof command>, Command.Environment>, Reader | Token>>()
is<Equals<Exclude<Command.Services<ReturnType<typeof steps>[number]>, Command.Environment>, Reader | Writer>>()
const steps = () => Plan.stepCommands(plan)

const needed = Layer.mergeAll(Layer.succeed(Reader, { r: 1 }), Layer.succeed(Token, { t: 1 }))
NodeMain.runCommand(Command.provide(command, needed), { version: "1.0.0" })

// @ts-expect-error nobody provides the reader
NodeMain.runCommand(command, { version: "1.0.0" })

// A command of one's own hands on the flags it has.
Command.make("own", { json: Plan.flags.json }, (flags) => Plan.handle(plan, flags, { apply: writer }))
Command.make("own", Plan.stepFlags, (flags) => Plan.handle(plan, { ...flags, only: ["cache"] }))

// @ts-expect-error there is no such flag
Effect.runFork(Plan.handle(Plan.make("empty", []), { maybe: true }))
