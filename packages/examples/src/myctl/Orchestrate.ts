/**
 * The plans of myctl, and their steps. `check` looks and needs no right to change anything, `apply` works through the operator.
 */
import { Plan } from "@effect-orchestra/workflow"
import { Console, Effect } from "effect"
import * as CacheIndex from "./CacheIndex.ts"
import { Fleet } from "./Fleet.ts"
import type { Manifest, Server, Stoppable } from "./Manifest.ts"
import { NotInCache } from "./MyctlError.ts"
import { Operator } from "./Operator.ts"

const { Need } = Plan

/** How many servers are restarted at once. */
const concurrency = 8

/** The cache first: what it says is acted upon. */
export const plan = (manifest: Manifest) =>
  Plan.make("orchestrate", [cache(manifest, { leadsOn: true }), restarts(manifest, { after: ["cache"] })])

export const rebuild = (manifest: Manifest, options: { readonly force?: boolean } = {}) =>
  Plan.make("rebuild", [cache(manifest, options)])

export const restart = (manifest: Manifest, options: { readonly force?: boolean } = {}) =>
  Plan.make("restart", [restarts(manifest, options)])

/** Stops what runs; the whole fleet with what the manifest does not have any more. */
export const stop = (manifest: Manifest, options: { readonly strays: boolean }) =>
  Plan.make("stop", [stops(manifest, options)])

/** The cache says what the servers are built from: stale when a source or the manifest has changed. */
const cache = (manifest: Manifest, options: {
  /** Rebuilds it even if it is valid. */
  readonly force?: boolean
  /** What it says is acted upon, so that running servers will be restarted. */
  readonly leadsOn?: boolean
} = {}) =>
  Plan.step("cache", {
    description: "what the servers are built from",
    check: Effect.gen(function*() {
      const index = yield* CacheIndex.CacheIndex
      const stored = yield* index.stored
      const fresh = yield* index.fresh(manifest)
      const { servers, sources } = CacheIndex.stale(stored, fresh)
      if (servers.length + sources.length === 0) {
        return options.force === true
          ? Need.Change({ what: "rebuild the cache, which is valid" })
          : Need.Satisfied({ why: `the cache is valid: ${count(Object.keys(fresh.sources).length, "source")}` })
      }
      const { find } = yield* Fleet
      const stand = yield* Effect.filter(
        manifest.servers.filter(({ name }) => servers.includes(name)),
        (server) => Effect.map(find(server), (running) => running !== undefined),
        { concurrency }
      )
      const why = Object.keys(stored.servers).length === 0
        ? "there is none"
        : `${listed(sources.length > 0 ? sources : servers)} changed`
      return stand.length === 0 || options.leadsOn !== true
        ? Need.Change({ what: `rebuild the cache: ${why}` })
        : Need.Change({
          what: `rebuild the cache: ${why}, under ${count(stand.length, "running server")}`,
          destructive: true
        })
    }),
    apply: Operator.use(({ rebuild }) => rebuild(manifest))
  })

/** Starts what does not run, restarts what is out of date or not well. To restart is destructive, to start is not. */
const restarts = (manifest: Manifest, options: {
  readonly after?: ReadonlyArray<string>
  /** Restarts all of them, well or not. */
  readonly force?: boolean
} = {}) =>
  Plan.each("restart", {
    description: "every server runs, as its sources are, and is well",
    after: options.after ?? [],
    items: Effect.gen(function*() {
      if (options.after === undefined) yield* Effect.ignore(warnOfStale(manifest))
      return manifest.servers
    }),
    key: ({ name }) => name,
    concurrency,
    check: (server) => needs(server, options.force === true),
    apply: (server) =>
      Operator.use((operator) => Effect.flatMap(hashOf(server), (hash) => operator.restart(manifest, server, hash)))
  })

const stops = (manifest: Manifest, options: { readonly strays: boolean }) =>
  Plan.each("stop", {
    description: "no server runs",
    items: options.strays
      ? Effect.map(Fleet.use(({ strays }) => strays(manifest)), (strays) => [...manifest.servers, ...strays])
      : Effect.succeed<ReadonlyArray<Stoppable>>(manifest.servers),
    key: ({ name }) => name,
    concurrency,
    check: (server) =>
      Effect.map(Fleet.use(({ find }) => find(server)), (running) =>
        running === undefined
          ? Need.Satisfied({ why: "does not run" })
          : Need.Change({ what: `stop pid ${running.pid}`, destructive: true })),
    apply: (server) => Operator.use((operator) => operator.stop(server))
  })

/** Says so when the cache, which is believed, is stale. */
const warnOfStale = Effect.fnUntraced(function*(manifest: Manifest) {
  const index = yield* CacheIndex.CacheIndex
  const { servers } = CacheIndex.stale(yield* index.stored, yield* index.fresh(manifest))
  const stale = manifest.servers.map(({ name }) => name).filter((name) => servers.includes(name))
  if (stale.length > 0) yield* Console.error(`the cache is stale for ${listed(stale)}: rebuild it`)
})

const needs = Effect.fnUntraced(function*(server: Server, force: boolean) {
  const { find, illness } = yield* Fleet
  const hash = yield* hashOf(server)
  const running = yield* find(server)
  if (running === undefined) return Need.Change({ what: "start: does not run" })
  const again = (why: string) => Need.Change({ what: `restart pid ${running.pid}: ${why}`, destructive: true })
  if (!running.ready) return again("has never been ready")
  if (running.hash !== hash) return again("out of date")
  const ill = yield* illness(server, running)
  if (ill !== undefined) return again(ill)
  return force ? again("asked for") : Need.Satisfied({ why: `up to date, pid ${running.pid}` })
})

const hashOf = Effect.fnUntraced(function*({ name }: Server) {
  const { stored } = yield* CacheIndex.CacheIndex
  const hash = (yield* stored).servers[name]
  return hash ?? (yield* new NotInCache({ server: name }))
})

const count = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? "" : "s"}`

const listed = (names: ReadonlyArray<string>): string =>
  names.length > 4 ? `${names.slice(0, 3).join(", ")} and ${names.length - 3} more` : names.join(", ")
