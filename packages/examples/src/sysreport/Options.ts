/**
 * The options of the commands.
 */
import { Schema } from "effect"
import { Argument, Flag } from "effect/cli"
import * as GoDuration from "./GoDuration.ts"
import * as Output from "./Output.ts"

const output = Flag.String("output").pipe(
  Flag.withAlias("o"),
  Flag.withDescription("The file to write, or - for standard output, the default"),
  Flag.withSchema(Schema.NonEmptyString),
  Flag.withDefault(Output.standardOutput)
)

const root = (name: "proc" | "sys" | "etc") =>
  Flag.Directory(`${name}-root`).pipe(
    Flag.withDescription(`Read this directory instead of /${name}`),
    Flag.optional
  )

export const collect = {
  profile: Flag.String("profile").pipe(
    Flag.withAlias("p"),
    Flag.withDescription("quick, standard (the default) or deep, or a JSON file with a profile of your own"),
    Flag.withDefault("standard")
  ),
  focus: Flag.String("focus").pipe(
    Flag.withAlias("f"),
    Flag.withDescription("Categories to look at for longer, as the profile says: network,disk"),
    Flag.map((list) => list.split(",").map(category).filter((category) => category !== "")),
    Flag.withDefault([])
  ),
  output,
  duration: Flag.String("duration").pipe(
    Flag.withDescription("How long each sample takes, such as 500ms, 5s or 1m; default 1s"),
    Flag.filterMap(GoDuration.parse, (text) => `Expected a duration such as 500ms or 5s, got ${text}`),
    Flag.optional
  ),
  quiet: Flag.Boolean("quiet").pipe(
    Flag.withAlias("q"),
    Flag.withDescription("Tell nothing on standard error"),
    Flag.withDefault(false)
  ),
  failOnCritical: Flag.Boolean("fail-on-critical").pipe(
    Flag.withDescription("Exit with 4 when an anomaly is critical"),
    Flag.withDefault(false)
  ),
  procRoot: root("proc"),
  sysRoot: root("sys"),
  etcRoot: root("etc")
}

const category = (name: string) => name.trim() === "stacks" ? "stacktrace" : name.trim()

const report = (name: string, description: string) => Argument.String(name).pipe(Argument.withDescription(description))

export const diff = {
  base: report("base", "The report to compare with"),
  current: report("current", "The report that is compared"),
  output
}
