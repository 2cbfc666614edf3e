/** OTP's own supervisor: sequences go in, and what was seen comes out. */
import { spawnSync } from "node:child_process"
import { fileURLToPath } from "node:url"
import type { Sequence } from "../model/Sequence.ts"
import type { ChildSpec, Operation, Seen, SupervisorSpec } from "../model/Supervisor.ts"

const module = fileURLToPath(new URL("supervisor_peer.erl", import.meta.url))
const main = `{ok, M, B} = compile:file(${
  JSON.stringify(module)
}, [binary, report]), code:load_binary(M, "", B), M:main().`

export const isMissing = spawnSync("erl", ["-version"]).error !== undefined

/** Plays sequences; those of time and of our own words it does not know. */
export const perform = (sequences: ReadonlyArray<Sequence>): ReadonlyArray<ReadonlyArray<Seen>> => {
  const { status, stderr, stdout } = spawnSync("erl", ["-noshell", "-eval", main], {
    input: sequences.map((sequence) => `${sequenceTerm(sequence)}.\n`).join(""),
    encoding: "utf8",
    env: { ...process.env, ERL_CRASH_DUMP_SECONDS: "0" },
    maxBuffer: 2 ** 30,
    timeout: 120_000
  })
  if (status !== 0) throw new Error(`erl ended with ${status}: ${stderr}${stdout.slice(-1000)}`)
  return stdout.trim().split("\n").map((line) => {
    const steps: ReadonlyArray<readonly [string | null, Seen["log"], Seen["states"], Seen["running"]]> = JSON.parse(
      line
    )
    return steps.map(([answer, log, states, running], number) => ({
      answers: answer === null ? [] : [[number, answer]],
      log,
      states,
      running
    }))
  })
}

const text = JSON.stringify

const sequenceTerm = ({ operations, plans, spec }: Sequence): string =>
  `{${specTerm(spec)}, [${Object.entries(plans).map(planTerm)}], [${operations.map(operationTerm)}]}`

const planTerm = ([child, starts]: readonly [string, ReadonlyArray<string>]) => `{${text(child)}, [${starts}]}`

const specTerm = ({ autoShutdown, children, intensity, strategy }: SupervisorSpec): string =>
  `{${strategy}, ${intensity}, ${autoShutdown}, [${children.map(childTerm)}]}`

const childTerm = ({ id, restart, significant = false, tree }: ChildSpec): string =>
  `{${text(id)}, ${restart}, ${significant}, ${tree === undefined ? "leaf" : specTerm(tree)}}`

const operationTerm = (operation: Operation): string => {
  switch (operation.op) {
    case "plan":
      return `{plan, ${text(operation.child)}, [${operation.starts}]}`
    case "exit":
      return `{exit, [${operation.ends.map(([child, end]) => `{${text(child)}, ${end}}`)}]}`
    case "startChild":
      return `{start_child, ${childTerm(operation.child)}}`
    case "terminateChild":
      return `{terminate_child, ${text(operation.child)}}`
    case "restartChild":
      return `{restart_child, ${text(operation.child)}}`
    case "deleteChild":
      return `{delete_child, ${text(operation.child)}}`
    case "stop":
      return "stop"
    case "advance":
      throw new Error("OTP's clock is the real one")
  }
}
