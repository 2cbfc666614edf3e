/**
 * The peers that are no JavaScript, built into `.artifacts` where their toolchain is on the machine, and our own
 * processes. Each prints its measurement as one line of JSON.
 */
import { Console, Effect } from "effect"
import { execFileSync } from "node:child_process"
import { mkdirSync } from "node:fs"
import { fileURLToPath } from "node:url"
import type { Sample, Source } from "./Bench.ts"

const at = (path: string) => fileURLToPath(new URL(`../${path}`, import.meta.url))

const run = (command: string, args: ReadonlyArray<string>, cwd = at(".")) =>
  execFileSync(command, args, { cwd, encoding: "utf8", stdio: ["ignore", "pipe", "pipe"] })

/** While it runs this process does nothing: both would want the same cores. */
const printed = (name: string, command: string, args: ReadonlyArray<string>): Source => ({
  name,
  sample: Effect.sync(() => JSON.parse(run(command, args)) as Sample)
})

/** One of our own programs of this folder, in a Node of its own. */
export const node = (name: string, program: string, args: ReadonlyArray<string>, flags: ReadonlyArray<string> = []) =>
  printed(name, process.execPath, [...flags, at(`src/${program}`), ...args])

/** A work of a peer, or undefined where the peer is not. */
export type Peer = (name: string, ...args: ReadonlyArray<string>) => Source | undefined

const built = (name: string, build: () => Peer): Effect.Effect<Peer> =>
  Effect.catch(Effect.try(build), ({ cause }) => {
    const error = cause as NodeJS.ErrnoException
    const why = error.code === "ENOENT"
      ? "not on this machine"
      : `not built: ${error.message.trim().split("\n").at(-1)}`
    return Effect.as(Console.log(`${name}: ${why}, its columns are skipped`), () => undefined)
  })

const go = built("go", () => {
  const binary = at(".artifacts/go-peer")
  run("go", ["build", "-o", binary, "."], at("peers/go"))
  return (name, ...args) => printed(`Go: ${name}`, binary, args)
})

const otp = built("erlang", () => {
  mkdirSync(at(".artifacts"), { recursive: true })
  run("erlc", ["-o", at(".artifacts"), at("peers/otp/otp_peer.erl")])
  return (name, ...args) =>
    printed(`OTP: ${name}`, "erl", ["-noshell", "-pa", at(".artifacts"), "-run", "otp_peer", "main", ...args])
})

export interface Peers {
  readonly go: Peer
  readonly otp: Peer
}

/** Builds them all, and says which are left out. */
export const peers: Effect.Effect<Peers> = Effect.all({ go, otp })
