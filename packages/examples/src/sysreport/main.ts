/**
 * Says how a Linux machine is: what its processors, memory, disks and network do, what is wrong with that, and what to do
 * about it.
 *
 *     npx -y pnpm@12 example sysreport -- collect --profile quick --output report.json
 *     npx -y pnpm@12 example sysreport -- diff before.json report.json
 *
 * From here on read Collecting (Profiles, collectors, Bcc, Observer), then Analysis and Diff. Report is the document.
 */
import * as NodeMain from "@effect-orchestra/core/NodeMain"
import { Effect, Layer, Option } from "effect"
import { Command } from "effect/cli"
import { EndedWith, tell } from "../Ended.ts"
import * as Collecting from "./Collecting.ts"
import { Commands } from "./Commands.ts"
import * as Diff from "./Diff.ts"
import * as Document from "./Document.ts"
import * as Options from "./Options.ts"
import * as Output from "./Output.ts"
import * as Report from "./Report.ts"
import { Roots } from "./Roots.ts"

const collect = Command.make("collect", Options.collect, (given) => {
  const [proc, sys, etc] = [given.procRoot, given.sysRoot, given.etcRoot].map(Option.getOrUndefined)
  const ofThisMachine = proc === undefined && sys === undefined
  const request = { ...given, duration: Option.getOrUndefined(given.duration), ofThisMachine }
  return Effect.gen(function*() {
    yield* Output.check(given.output)
    const report = yield* Collecting.collect(request)
    yield* Output.write(given.output, yield* Report.encode(report))
    // The report says itself what these codes stand for.
    const critical = report.summary.anomalies.some(({ severity }) => severity === "critical")
    if (given.failOnCritical && critical) return yield* new EndedWith({ exitCode: 4 })
    if (report.metadata.status !== "complete") return yield* new EndedWith({ exitCode: 3 })
  }).pipe(
    Effect.provide(Layer.merge(Roots.layer({ proc, sys, etc }), ofThisMachine ? Commands.layer() : Commands.none)),
    Effect.catch(tell)
  )
}).pipe(Command.withDescription("Looks at the machine and writes a report"))

const diff = Command.make("diff", Options.diff, ({ base, current, output }) =>
  Effect.gen(function*() {
    const before = yield* Document.read("report", base, Report.Report)
    const now = yield* Document.read("report", current, Report.Report)
    yield* Output.write(output, yield* Diff.encode(Diff.diff(before, now)))
  }).pipe(Effect.catch(tell))).pipe(Command.withDescription("Says what has changed from one report to another"))

const command = Command.make("sysreport").pipe(
  Command.withDescription("Reports on the health of a Linux machine, from /proc and /sys"),
  Command.withSubcommands([collect, diff])
)

NodeMain.runCommand(command, { version: Collecting.version })
