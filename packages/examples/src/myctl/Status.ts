/**
 * What `myctl status` shows.
 */
import { Duration, Effect, Schema } from "effect"
import { CacheIndex } from "./CacheIndex.ts"
import { Fleet, type Running } from "./Fleet.ts"
import type { Manifest, Server, Stoppable } from "./Manifest.ts"

export type Row = typeof Row.Type
export const Row = Schema.Struct({
  name: Schema.String,
  pid: Schema.NullOr(Schema.Int),
  port: Schema.NullOr(Schema.Port),
  uptimeSeconds: Schema.NullOr(Schema.Finite),
  /** "ok", "stopped", "starting", or what is wrong. */
  health: Schema.String,
  /** Whether it runs what its sources are now, whatever the cache says. */
  upToDate: Schema.NullOr(Schema.Boolean)
})

/** Looks at every server of the manifest, and with `strays` for what else was started and runs. */
export const look = Effect.fnUntraced(function*(manifest: Manifest, options: { readonly strays: boolean }) {
  const { find, illness, strays } = yield* Fleet
  const { servers } = yield* CacheIndex.use(({ fresh }) => fresh(manifest))
  const stray = Effect.fnUntraced(function*(server: Stoppable) {
    const running = yield* find(server)
    const health = "not in the manifest"
    return running === undefined
      ? stopped(server.name)
      : { ...shown(server.name, running), health, upToDate: false } satisfies Row
  })
  const row = Effect.fnUntraced(function*(server: Server) {
    const running = yield* find(server)
    if (running === undefined) return stopped(server.name)
    const health = running.ready ? (yield* illness(server, running)) ?? "ok" : "starting"
    return { ...shown(server.name, running), health, upToDate: running.hash === servers[server.name] } satisfies Row
  })
  const rows = yield* Effect.forEach(manifest.servers, row, { concurrency: 8 })
  const others = yield* Effect.forEach(options.strays ? yield* strays(manifest) : [], stray)
  return [...rows, ...others.filter(({ pid }) => pid !== null)]
})

const stopped = (name: string): Row => ({
  name,
  pid: null,
  port: null,
  uptimeSeconds: null,
  health: "stopped",
  upToDate: null
})

const shown = (name: string, { pid, port, uptime }: Running) => ({
  name,
  pid,
  port,
  uptimeSeconds: Math.floor(Duration.toSeconds(uptime))
})

/** A table, and a line that sums it up. */
export const format = (rows: ReadonlyArray<Row>): string => {
  const cells = [
    ["NAME", "PID", "PORT", "UPTIME", "HEALTH", "UP TO DATE"],
    ...rows.map(({ health, name, pid, port, upToDate, uptimeSeconds }) =>
      [
        name,
        pid ?? "-",
        port ?? "-",
        uptimeSeconds === null ? "-" : Duration.format(Duration.seconds(uptimeSeconds)),
        health,
        upToDate === null ? "-" : upToDate ? "yes" : "no"
      ].map(String)
    )
  ]
  const widths = cells[0]?.map((_, column) => Math.max(...cells.map((row) => row[column]?.length ?? 0))) ?? []
  const lines = cells.map((row) => row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ").trimEnd())
  const well = rows.filter(({ health, upToDate }) => health === "ok" && upToDate === true)
  return [...lines, `${well.length} of ${rows.length} well and up to date`].join("\n")
}
