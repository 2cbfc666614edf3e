/**
 * A fleet of its own in a temporary directory, for tests of myctl. No server outlives it.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { Effect, FileSystem, Layer, Path } from "effect"
import { FetchHttpClient } from "effect/http"
import { readdirSync, readFileSync, readlinkSync } from "node:fs"
import { createServer } from "node:net"
import { fileURLToPath } from "node:url"
import { CacheIndex } from "../src/myctl/CacheIndex.ts"
import { Fleet } from "../src/myctl/Fleet.ts"
import { Operator } from "../src/myctl/Operator.ts"
import { Processes } from "../src/myctl/Processes.ts"

export const platform = NodeServices.layer

const program = fileURLToPath(new URL("../src/myctl/server.ts", import.meta.url))

/** An entry of a manifest; by default ready by line, on any free port. */
export const server = (
  name: string,
  options: {
    readonly args?: ReadonlyArray<string>
    readonly port?: number
    readonly sources?: ReadonlyArray<string>
    readonly stopWithin?: string
    readonly readyWithin?: string
  } = {}
) => ({
  name,
  command: ["node", program, ...options.args ?? []],
  sources: options.sources ?? ["page.txt"],
  readyWithin: options.readyWithin ?? "30 seconds",
  stopWithin: options.stopWithin ?? "30 seconds",
  ...options.port === undefined ? { ready: { line: "is ready on port (\\d+)" } } : { port: options.port }
})

export interface World {
  readonly directory: string
  readonly manifest: string
  readonly state: string
  /** Writes a file beside the manifest. */
  readonly put: (name: string, content: string) => Effect.Effect<void>
  readonly remove: (name: string) => Effect.Effect<void>
  readonly writeManifest: (servers: ReadonlyArray<unknown>) => Effect.Effect<void>
  /** The servers that run, by name. */
  readonly running: Effect.Effect<Record<string, number>>
  /** Everything below the state directory, with its content, but the lock. */
  readonly stored: Effect.Effect<Record<string, string>>
  readonly fleet: Layer.Layer<Fleet | Operator | Processes>
}

/** A new world with this manifest, gone with the scope. */
export const make = (servers: ReadonlyArray<unknown>) =>
  Effect.gen(function*() {
    const fs = yield* FileSystem.FileSystem
    const path = yield* Path.Path
    const directory = yield* fs.realPath(yield* fs.makeTempDirectoryScoped({ prefix: "fleet-" }))
    const state = path.join(directory, "state")
    const put = (name: string, content: string) => Effect.orDie(fs.writeFileString(path.join(directory, name), content))
    const pids = Effect.sync(() => Object.values(processesIn(directory)))
    // Until none is left: a program that was killed may have started one more.
    yield* Effect.addFinalizer(() =>
      Effect.repeat(
        Effect.tap(pids, (pids) => Effect.sync(() => pids.forEach((pid) => kill(pid)))),
        { until: (pids) => pids.length === 0 }
      )
    )
    const world: World = {
      directory,
      manifest: path.join(directory, "fleet.json"),
      state,
      put,
      remove: (name) => Effect.orDie(fs.remove(path.join(directory, name))),
      writeManifest: (servers) => put("fleet.json", JSON.stringify({ servers })),
      running: Effect.sync(() => processesIn(directory)),
      stored: Effect.gen(function*() {
        const names = yield* fs.readDirectory(state, { recursive: true })
        const files = names.filter((name) => /\.(json|log|old|tmp)$/.test(name)).toSorted()
        const contents = yield* Effect.forEach(files, (name) => fs.readFileString(path.join(state, name)))
        return Object.fromEntries(files.map((name, index) => [name, contents[index] ?? ""]))
      }).pipe(Effect.orElseSucceed(() => ({}))),
      fleet: Operator.layer(state).pipe(
        Layer.provideMerge(CacheIndex.layer(state)),
        Layer.provideMerge(Fleet.layer(state)),
        Layer.provideMerge(Processes.layer),
        Layer.provide([platform, FetchHttpClient.layer]),
        Layer.orDie
      )
    }
    yield* put("page.txt", "one")
    yield* world.writeManifest(servers)
    return world
  })

/** Servers run where their manifest is: nobody else does. */
const processesIn = (directory: string): Record<string, number> => {
  const found: Record<string, number> = {}
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      if (readlinkSync(`/proc/${pid}/cwd`) !== directory) continue
      const name = /(?:^|\0)NAME=([^\0]*)/.exec(readFileSync(`/proc/${pid}/environ`, "utf8"))?.[1]
      found[name ?? `process ${pid}`] = Number(pid)
    } catch {
      // It has just ended, or is not ours to look at.
    }
  }
  return found
}

const kill = (pid: number): void => {
  try {
    process.kill(pid, "SIGKILL")
  } catch {
    // It has just ended.
  }
}

/** Free ports, below those that the system gives to clients. */
export const freePorts = (count: number) =>
  Effect.promise(async () => {
    const ports = new Set<number>()
    while (ports.size < count) {
      const port = 12_000 + Math.floor(Math.random() * 18_000)
      const free = await new Promise<boolean>((resolve) => {
        const probe = createServer()
        probe.on("error", () => resolve(false))
        probe.listen(port, "127.0.0.1", () => probe.close(() => resolve(true)))
      })
      if (free) ports.add(port)
    }
    return [...ports]
  })
