/**
 * A plan whose world is the working directory. The file `NAME` is there once step or server NAME is. `NAME.fails` makes
 * its apply fail, and `NAME.waits` wait for the file `NAME.go`; `NAME.broken` makes its check fail, and `NAME.hides` wait
 * for the file `NAME.shows`. Every apply is a line of the file `log`.
 */
import * as NodeMain from "@effect-orchestra/core/NodeMain"
import { Plan } from "@effect-orchestra/workflow"
import { Console, Context, Effect, Layer, Schedule } from "effect"
import * as fs from "node:fs"

const servers = ["a", "b", "c"]

class Credentials extends Context.Service<Credentials, { readonly token: string }>()("test/Credentials") {
  static readonly layer = Layer.effect(
    Credentials,
    process.env["NO_CREDENTIALS"] === undefined
      ? Effect.succeed({ token: "x" })
      : Effect.fail(new Error("there is no token"))
  )
}

const is = (name: string) => fs.existsSync(name)
const log = (line: string) => Effect.sync(() => fs.appendFileSync("log", `${line}\n`))

const comes = (name: string) =>
  Effect.sync(() => is(name)).pipe(
    Effect.repeat({ until: (there) => there, schedule: Schedule.spaced("10 millis") })
  )

const check = (name: string, what: string, destructive: boolean) =>
  Effect.gen(function*() {
    if (is(`${name}.hides`)) yield* comes(`${name}.shows`)
    if (is(`${name}.broken`)) return yield* Effect.fail(new Error(`cannot look at ${name}`))
    return is(name) ? Plan.Need.Satisfied({ why: `${name} is there` }) : Plan.Need.Change({ what, destructive })
  })

const apply = (name: string) =>
  Effect.gen(function*() {
    yield* Credentials
    yield* log(`began ${name}`)
    yield* Console.log(`${name} says hello`)
    yield* Effect.log(`${name} logs`)
    if (is(`${name}.waits`)) {
      yield* Effect.onInterrupt(comes(`${name}.go`), () => log(`rolled back ${name}`))
      yield* Console.log(`${name} goes on`)
    }
    if (is(`${name}.fails`)) return yield* Effect.fail(new Error(`${name} does not want to`))
    yield* Effect.sync(() => fs.writeFileSync(name, ""))
    yield* log(`ended ${name}`)
  })

const cache = Plan.step("cache", {
  check: check("cache", "rebuild cache", process.env["DESTRUCTIVE"] === "1"),
  apply: apply("cache")
})

const restart = Plan.each("restart", {
  after: process.env["CYCLE"] === "1" ? ["report"] : ["cache"],
  items: Effect.succeed(servers),
  key: (server) => server,
  check: (server) => check(server, `restart ${server}`, false),
  apply
})

const report = Plan.step("report", {
  after: ["restart"],
  check: check("report", "write report", false),
  apply: apply("report")
})

const plan = Plan.make("deploy", [cache, restart, report])

NodeMain.runCommand(
  Plan.command(plan, {
    apply: Credentials.layer,
    cutGrace: process.env["CUT_GRACE"] === "1" ? "200 millis" : "4 seconds"
  }),
  { version: "1.0.0" }
)
