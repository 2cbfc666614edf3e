/**
 * Five programs to begin with, each one page long. Read them in this order: routine, messages, supervised, metrics,
 * shutdown.
 *
 *     npx -y pnpm@12 example quickstart               # lists them
 *     npx -y pnpm@12 example quickstart -- supervised # runs one
 *
 * `NodeMain.runCommand` gives each its orchestrator, stops it gracefully on a signal, and sets the exit code.
 */
import * as NodeMain from "@effect-orchestra/core/NodeMain"
import { Command } from "effect/cli"
import { messages } from "./messages.ts"
import { metrics } from "./metrics.ts"
import { routine } from "./routine.ts"
import { shutdown } from "./shutdown.ts"
import { supervised } from "./supervised.ts"

const quickstart = Command.make("quickstart").pipe(
  Command.withDescription("Five programs to begin with"),
  Command.withSubcommands([routine, messages, supervised, metrics, shutdown])
)

NodeMain.runCommand(quickstart, { version: "0.1.0", stopWithParent: true })
