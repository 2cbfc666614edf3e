/**
 * Real processes, on the real clock: signals, kills, exit codes, ports, and what is on the disk afterwards.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, type Path, Schedule, Schema, type Scope, Stream } from "effect"
import { FetchHttpClient } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import { spawnSync } from "node:child_process"
import { createServer, type Server } from "node:net"
import { DatabaseSync } from "node:sqlite"
import { Api } from "../src/backup-service/Api.ts"
import * as BackupWorld from "./BackupWorld.ts"
import * as ServiceProcess from "./ServiceProcess.ts"

const { isAlive, until } = ServiceProcess

const withWorld = <A, E>(
  test: (
    world: BackupWorld.World,
    args: ReadonlyArray<string>
  ) => Effect.Effect<A, E, FileSystem.FileSystem | Path.Path | Scope.Scope>
) =>
  Effect.flatMap(BackupWorld.make(), (world) => test(world, ["--source", world.source, "--store", world.store])).pipe(
    Effect.provide(BackupWorld.platform)
  )

const client = ({ api }: ServiceProcess.Running) =>
  HttpApiClient.make(Api, { baseUrl: api }).pipe(Effect.provide(FetchHttpClient.layer))

type Client = Effect.Success<ReturnType<typeof client>>

/** The content of the latest version of each file. */
const backedUp = Effect.fnUntraced(function*(api: Client) {
  const { items } = yield* api.files({ query: { limit: 500 } })
  const contents = yield* Effect.forEach(
    items.filter(({ deleted }) => !deleted),
    ({ path }) => Effect.map(latest(api, path), ({ content }) => [path, content] as const)
  )
  return Object.fromEntries(contents)
})

const latest = Effect.fnUntraced(function*(api: Client, path: string) {
  const { items: [version] } = yield* api.versions({ query: { path } })
  if (version === undefined) return yield* Effect.die(`no version of ${path}`)
  return { version, content: yield* content(api, version.id) }
})

const content = (api: Client, id: number) =>
  Effect.flatMap(api.content({ params: { id } }), (bytes) => Stream.mkString(Stream.decodeText(bytes)))

const post = (url: string) =>
  Effect.promise(() => fetch(url, { method: "POST", headers: { "content-type": "application/json" } }))

const text = (url: string) => Effect.promise(() => fetch(url).then((response) => response.text()))

/** Everything in the store is whole, and nothing is left of the process. */
const assertSound = Effect.fnUntraced(function*(world: BackupWorld.World, service: ServiceProcess.ServiceProcess) {
  assert.throws(() => process.kill(service.pid, 0), "ESRCH")
  assert.deepStrictEqual(yield* BackupWorld.damage(world), [])
  const db = new DatabaseSync(`${world.store}/backup.db`, { readOnly: true })
  assert.deepStrictEqual({ ...db.prepare("PRAGMA integrity_check").get() }, { integrity_check: "ok" })
  db.close()
})

const Tree = Schema.Struct({
  root: Schema.Struct({
    children: Schema.Array(Schema.Struct({
      node: Schema.Struct({ path: Schema.String, strategy: Schema.optionalKey(Schema.String) }),
      children: Schema.Array(Schema.Struct({
        node: Schema.Struct({
          id: Schema.String,
          path: Schema.String,
          state: Schema.String,
          incarnation: Schema.optionalKey(Schema.Int)
        })
      }))
    }))
  })
})

/** The three parts, as `/tree` shows them below their supervisor. */
const children = Effect.fnUntraced(function*({ orchestra }: ServiceProcess.Running) {
  const { root } = yield* Schema.decodeUnknownEffect(Schema.fromJsonString(Tree))(
    yield* text(`${orchestra}/orchestra/api/v1/tree`)
  )
  const supervisor = root.children.find(({ node }) => node.path === "/orchestra/backup")
  const named = (name: string) =>
    supervisor?.children.find(({ node }) => node.path === `/orchestra/backup/${name}`)?.node
  return { database: named("database"), watcher: named("watcher"), api: named("api") }
})

/** The value of one series of `/metrics`, whatever the order of its labels. */
const metric = (metrics: string, name: string, labels: Record<string, string>) => {
  const line = metrics.split("\n").find((line) =>
    line.startsWith(`${name}{`) && Object.entries(labels).every(([key, value]) => line.includes(`${key}="${value}"`))
  )
  return line === undefined ? undefined : Number(line.slice(line.lastIndexOf(" ")))
}

const promtool = spawnSync("promtool", ["--version"]).status === 0
if (!promtool && process.env["CI"] === undefined) {
  console.log("promtool is not installed: the metrics are not checked by it")
}

/** After the death of the database. */
const assertMetrics = Effect.fnUntraced(function*({ orchestra }: ServiceProcess.Running) {
  const metrics = yield* text(`${orchestra}/metrics`)
  const supervisor = { orchestra_supervisor_name: "backup" }
  const restarts = (name: string, reason: string) =>
    metric(metrics, "orchestra_routine_restarts_total", {
      ...supervisor,
      orchestra_routine_name: name,
      orchestra_restart_reason: reason
    })
  const decisions = metrics.split("\n").filter((line) => line.startsWith("orchestra_supervisor_decisions_total{"))
  assert.lengthOf(decisions, 1)
  assert.strictEqual(
    metric(metrics, "orchestra_supervisor_decisions_total", {
      ...supervisor,
      orchestra_supervisor_decision: "restart_group"
    }),
    1
  )
  assert.deepStrictEqual(
    [restarts("database", "defect"), restarts("watcher", "sibling"), restarts("api", "sibling")],
    [1, 1, 1]
  )
  if (promtool || process.env["CI"] !== undefined) {
    const check = spawnSync("promtool", ["check", "metrics"], { input: metrics, encoding: "utf8" })
    assert.deepStrictEqual([check.status, check.stdout, check.stderr], [0, "", ""])
  }
})

const options = { timeout: 60_000 }

describe("the backup service", options, () => {
  it.live(
    "backs up what changes, survives the death of each part, and stops when told",
    () =>
      withWorld(Effect.fnUntraced(function*(world, args) {
        yield* world.put("a.txt", "one")
        const service = yield* ServiceProcess.start([...args, "--chaos"])
        assert.strictEqual(service.pid, service.child.pid)
        const api = yield* client(service)
        yield* until(backedUp(api), (files) => files["a.txt"] === "one")
        const saved = yield* latest(api, "a.txt")
        yield* world.put("a.txt", "two")
        yield* world.put("new/b.txt", "three")
        yield* until(backedUp(api), (files) => files["a.txt"] === "two" && files["new/b.txt"] === "three")

        const before = yield* children(service)
        const incarnations = { database: 1, watcher: 1, api: 1 }
        for (const target of ["database", "watcher", "api"] as const) {
          assert.strictEqual((yield* post(`${service.api}/chaos/${target}`)).status, 202)
          if (target === "database") incarnations.database++
          if (target !== "api") incarnations.watcher++
          incarnations.api++
          const after = yield* until(
            children(service),
            ({ api }) => api?.incarnation === incarnations.api && api.state === "running"
          ).pipe(Effect.timeout("2 seconds"))
          assert.strictEqual(yield* content(api, saved.version.id), "one")
          for (const part of ["database", "watcher", "api"] as const) {
            assert.strictEqual(after[part]?.id, before[part]?.id)
            assert.strictEqual(after[part]?.incarnation, incarnations[part], `${part} after the death of ${target}`)
          }
          if (target === "database") yield* assertMetrics(service)
        }
        assert.include(service.output().stdout, "database ended (defect): restart_group")
        yield* world.put("a.txt", "four")
        yield* until(backedUp(api), (files) => files["a.txt"] === "four")

        const { code, stderr } = yield* service.kill("SIGTERM")
        assert.strictEqual(code, 143)
        assert.notInclude(stderr, "stuck")
        yield* assertSound(world, service)
      }))
  )

  it.live(
    "loses nothing and leaves nothing half-written when it is killed in mid-scan",
    () =>
      withWorld(Effect.fnUntraced(function*(world, args) {
        const names = Array.from({ length: 1000 }, (_, i) => `${i % 10}/${i}`)
        for (const name of names) yield* world.put(name, name.repeat(500))
        const objects = Effect.map(world.files(`${world.store}/objects`), (files) => files.length)

        const killed = yield* ServiceProcess.start(args)
        yield* until(objects, (count) => count > 20)
        assert.strictEqual((yield* killed.kill("SIGKILL")).signal, "SIGKILL")
        const early = yield* objects
        assert.isBelow(early, names.length)

        const service = yield* ServiceProcess.start(args)
        const api = yield* client(service)
        yield* until(api.stats(), ({ files, lastRun }) => files === names.length && lastRun?.finishedAt !== undefined)
        for (const name of [names[0], names[500], names[999]]) {
          assert.strictEqual((yield* latest(api, name ?? "")).content, name?.repeat(500))
        }
        const stats = yield* api.stats()
        assert.include(stats, { versions: names.length, objects: names.length })
        assert.isFalse(stats.lastRun?.partial)
        assert.strictEqual((yield* service.kill("SIGTERM")).code, 143)
        yield* assertSound(world, service)
        const db = new DatabaseSync(`${world.store}/backup.db`, { readOnly: true })
        const runs = db.prepare("SELECT partial FROM runs WHERE kind = 'scan' ORDER BY id").all()
        db.close()
        assert.deepStrictEqual(runs.map((run) => run["partial"]), [1, 0])
      }))
  )

  it.live(
    "gives up when a part dies again and again, with everything stopped",
    () =>
      withWorld(Effect.fnUntraced(function*(world, args) {
        const service = yield* ServiceProcess.start([...args, "--chaos"])
        for (let incarnation = 1; incarnation <= 4; incarnation++) {
          yield* until(children(service), ({ api }) => api?.incarnation === incarnation && api.state === "running")
          yield* post(`${service.api}/chaos/api`)
        }
        const { code, stderr } = yield* service.ended
        assert.strictEqual(code, 1)
        assert.include(stderr, `gave up on child "api" after 4 starts`)
        yield* assertSound(world, service)
      }))
  )

  it.live(
    "waits for its port when another process has taken it for a moment",
    () =>
      withWorld(Effect.fnUntraced(function*(_, args) {
        const service = yield* ServiceProcess.start([...args, "--chaos"])
        const answers = Effect.promise(() => fetch(`${service.api}/stats`).then(({ ok }) => ok, () => false))
        assert.isTrue(yield* answers)
        yield* post(`${service.api}/chaos/api`)
        // Taken as soon as the API has let go of it.
        const other = yield* Effect.retry(listening(Number(new URL(service.api).port)), Schedule.spaced("1 millis"))
        yield* until(Effect.sync(() => service.output().stdout), (stdout) => stdout.includes("api ended (failure)"))
        other.close()
        yield* until(answers, (answered) => answered)
      }))
  )
})

// Their time is mostly starting: two processors do it together.
describe.concurrent("the backup service, beside others", options, () => {
  it.live(
    "keeps a second instance away from its store, and does not mind it",
    () =>
      withWorld(Effect.fnUntraced(function*(world, args) {
        const first = yield* ServiceProcess.start(args)
        const [port, orchestraPort] = [first.api, first.orchestra].map((url) => new URL(url).port)
        const second = yield* ServiceProcess.run([...args, "--port", `${port}`, "--orchestra-port", `${orchestraPort}`])
        assert.strictEqual(second.code, 1)
        assert.strictEqual(second.stdout, "")
        assert.strictEqual(second.stderr, `The store ${world.store} is in use by process ${first.pid}\n`)
        assert.strictEqual((yield* Effect.promise(() => fetch(`${first.api}/stats`))).status, 200)
        assert.strictEqual((yield* first.kill("SIGINT")).code, 130)
        const third = yield* ServiceProcess.run([...args, "--port", "0", "--orchestra-port", "0", "--for", "0s"])
        assert.strictEqual(third.code, 0)
        yield* assertSound(world, first)
      }))
  )

  it.live(
    "names the port that is taken and the flag to choose another, and leaves nothing behind",
    () =>
      withWorld(Effect.fnUntraced(function*(world, args) {
        const port = yield* takenPort
        for (const [flag, other] of [["--port", "--orchestra-port"], ["--orchestra-port", "--port"]] as const) {
          const { code, stderr, stdout } = yield* ServiceProcess.run([...args, flag, `${port}`, other, "0"])
          assert.strictEqual(code, 1)
          assert.strictEqual(stdout, "")
          assert.strictEqual(stderr, `Port ${port} is taken: choose another with ${flag}\n`)
        }
        const after = yield* ServiceProcess.run([...args, "--port", "0", "--orchestra-port", "0", "--for", "0s"])
        assert.strictEqual(after.code, 0)
        assert.deepStrictEqual(yield* BackupWorld.damage(world), [])
      }))
  )

  it.live("refuses a corrupt database and leaves it as it is", () =>
    withWorld(Effect.fnUntraced(function*(world, args) {
      const fs = yield* FileSystem.FileSystem
      const file = `${world.store}/backup.db`
      yield* fs.makeDirectory(world.store)
      yield* fs.writeFileString(file, "nonsense".repeat(1000))
      const { code, stderr, stdout } = yield* ServiceProcess.run([...args, "--port", "0", "--orchestra-port", "0"])
      assert.deepStrictEqual([code, stdout], [1, ""])
      assert.include(stderr, file)
      assert.lengthOf(stderr.trimEnd().split("\n"), 1)
      assert.strictEqual(yield* fs.readFileString(file), "nonsense".repeat(1000))
    })))

  it.live("stops when the process that started it is killed", () =>
    withWorld(Effect.fnUntraced(function*(world, args) {
      const command = [process.execPath, ServiceProcess.main, "--port", "0", "--orchestra-port", "0", ...args]
      // The second command keeps the shell from becoming the service.
      const shell = yield* ServiceProcess.spawned("sh", ["-c", `${command.join(" ")}; true`])
      const service = yield* ServiceProcess.announced(shell)
      assert.notStrictEqual(service.pid, shell.pid)
      yield* Effect.addFinalizer(() => Effect.ignore(Effect.try(() => process.kill(service.pid, "SIGKILL"))))
      process.kill(shell.pid, "SIGKILL")
      yield* until(Effect.sync(() => isAlive(service.pid)), (alive) => !alive)
      yield* assertSound(world, service)
    })))

  it.live("stops by itself after the time that --for gives it, and sums up", () =>
    withWorld(Effect.fnUntraced(function*(world, args) {
      yield* world.put("a", "content")
      yield* world.put("b", "content")
      const env = { BACKUP_FOR: "1s", BACKUP_PORT: "0", BACKUP_ORCHESTRA_PORT: "not a port" }
      const { code, stderr, stdout } = yield* ServiceProcess.run([...args, "--orchestra-port", "0"], env)
      assert.strictEqual(stderr, "")
      assert.strictEqual(code, 0)
      assert.include(stdout, "backup: files 2, versions 2, contents 1, bytes 7\n")
    })))

  it.live(
    "answers wrong usage with exit code 2, and touches nothing",
    () =>
      withWorld(Effect.fnUntraced(function*(world, args) {
        const fs = yield* FileSystem.FileSystem
        yield* world.put("file", "")
        const usage: ReadonlyArray<readonly [ReadonlyArray<string>, Record<string, string>]> = [
          [["--unknown"], {}],
          [["--port", "65536"], {}],
          [["--for", "20 parsecs"], {}],
          [[], { BACKUP_PORT: "http" }]
        ]
        for (const [wrong, env] of usage) {
          const { code, stderr, stdout } = yield* ServiceProcess.run([...args, ...wrong], env)
          assert.deepStrictEqual([code, stdout], [2, ""], wrong.join(" "))
          assert.include(stderr, "USAGE")
        }
        const sources = [`${world.source}/missing`, `${world.source}/file`]
        for (const source of sources) {
          const { code, stderr, stdout } = yield* ServiceProcess.run(["--store", world.store, "--source", source])
          assert.deepStrictEqual([code, stdout], [2, ""])
          assert.include(stderr, `--source ${source}: `)
        }
        assert.isFalse(yield* fs.exists(world.store))
        const inside = yield* ServiceProcess.run(["--source", world.source, "--store", `${world.source}/..`])
        assert.strictEqual(inside.code, 2)
        assert.include(inside.stderr, "lies inside the store")
        const around = yield* ServiceProcess.run([...args, "--restore-dir", world.store])
        assert.strictEqual(around.code, 2)
        assert.include(around.stderr, "--restore-dir")
      }))
  )
})

const listening = (port: number) =>
  Effect.acquireRelease(
    Effect.callback<Server, Error>((resume) => {
      const server = createServer().on("error", (error) => resume(Effect.fail(error)))
      server.listen(port, "127.0.0.1", () => resume(Effect.succeed(server)))
    }),
    (server) => Effect.sync(() => server.close())
  )

const takenPort = Effect.map(Effect.orDie(listening(0)), (server) => {
  const address = server.address()
  return address !== null && typeof address === "object" ? address.port : 0
})
