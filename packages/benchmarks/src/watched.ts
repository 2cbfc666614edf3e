/**
 * A program of its own: KIND COUNT ROUNDS. Starts COUNT parked routines and the server that shows them, asks the server
 * ROUNDS times for what KIND says from another process, and prints the longest time that the event loop stood still
 * in the calmest of the rounds, in milliseconds: as it was (`pause`), and without the garbage collections that fell into it
 * and the time in which other processes had its core (`slice`).
 * `KIND` is a path, or `stream` for opening streams, or `idle` for nothing at all.
 */
import { Orchestrator } from "@effect-orchestra/core"
import { Server } from "@effect-orchestra/observability"
import { Effect, Layer } from "effect"
import { spawn } from "node:child_process"
import { longest, type Span, turns } from "./Turns.ts"

const [kind = "", count = "", rounds = ""] = process.argv.slice(2)

/** Asks from a process of its own: to read an answer takes an event loop as long as to write it. */
const asker = `
process.on("message", async (url) => {
  const controller = new AbortController()
  const response = await fetch(url, { signal: controller.signal })
  if (url.endsWith("stream")) {
    const reader = response.body.getReader()
    await reader.read()
    await reader.read()
    controller.abort()
  } else {
    await response.arrayBuffer()
  }
  process.send(response.status)
})
`

const program = Effect.gen(function*() {
  const { url } = yield* Server.Server
  for (let n = 0; n < Number(count); n++) {
    yield* Orchestrator.fork(Effect.never, { name: `worker-${n % 20}` })
  }
  const asking = spawn(process.execPath, ["-e", asker], { stdio: ["ignore", "inherit", "inherit", "ipc"] })
  const ask = (path: string) =>
    Effect.callback<void>((resume) => {
      asking.once("message", (status) =>
        resume(status === 200 ? Effect.void : Effect.die(new Error(`${path}: ${status}`))))
      asking.send(url + path)
    })
  const path = kind.startsWith("/") ? kind : `/orchestra/api/v1/${kind}`
  const once = kind === "idle" ? Effect.sleep("20 millis") : ask(path)
  const asked: Array<ReadonlyArray<Span>> = []
  for (let round = rounds === "1" ? 0 : -3; round < Number(rounds); round++) {
    // Longer than a second: what is shared for one is made anew.
    yield* Effect.sleep("1100 millis")
    const spans = yield* turns(once, 0.5)
    if (round >= 0) asked.push(spans)
  }
  // The collections are told later.
  yield* Effect.sleep(50)
  asking.kill()
  // What the machine does to a round it does not do to all of them; what we do we do each time.
  const figures = asked.map(longest)
  return {
    pause: Math.min(...figures.map(({ pause }) => pause)),
    slice: Math.min(...figures.map(({ slice }) => slice))
  }
}).pipe(Effect.scoped)

const layer = Layer.provideMerge(Server.layer({ port: 0, inspect: true, profile: true }), Orchestrator.layer)
console.log(JSON.stringify(await Effect.runPromise(Effect.provide(program, layer))))
process.exit(0)
