/**
 * The parts of myctl: its manifest, its cache, and real servers that are started and stopped.
 */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, FileSystem, type Path, type Scope } from "effect"
import { spawn } from "node:child_process"
import { fileURLToPath } from "node:url"
import * as CacheIndex from "../src/myctl/CacheIndex.ts"
import { Fleet } from "../src/myctl/Fleet.ts"
import * as Manifest from "../src/myctl/Manifest.ts"
import { Operator } from "../src/myctl/Operator.ts"
import { type Identity, Processes } from "../src/myctl/Processes.ts"
import * as FleetWorld from "./FleetWorld.ts"
import { until } from "./ServiceProcess.ts"

const { server } = FleetWorld

const withWorld = <A, E>(
  servers: ReadonlyArray<unknown>,
  test: (world: FleetWorld.World) => Effect.Effect<A, E, FileSystem.FileSystem | Path.Path | Scope.Scope>
) => Effect.flatMap(FleetWorld.make(servers), test).pipe(Effect.scoped, Effect.provide(FleetWorld.platform))

describe("Manifest", () => {
  const problems = Effect.fnUntraced(function*(content: string) {
    return yield* withWorld([], (world) =>
      Effect.andThen(
        world.put("fleet.json", content),
        Effect.map(Effect.flip(Manifest.load(world.manifest)), ({ message }) => message.replaceAll(world.directory, ""))
      ))
  })

  it.effect("names every problem by its path inside the document, with what was expected and what was there", () =>
    Effect.gen(function*() {
      const good = { name: "a", command: ["node"], port: 7000, sources: ["x"] }
      const told = (servers: unknown) => problems(JSON.stringify({ servers }))
      assert.include(yield* problems("{"), "/fleet.json: expected JSON: ")
      assert.strictEqual(yield* problems("[]"), "/fleet.json: the document: expected object, got []")
      assert.strictEqual(yield* problems("{}"), "/fleet.json: servers: missing key")
      assert.strictEqual(yield* told([]), "/fleet.json: servers[0]: missing key")
      assert.strictEqual(
        yield* told([{ ...good, name: "A B" }, { ...good, name: "b", port: "80", stopWithin: "soon" }]),
        "/fleet.json: servers[0].name: expected a name of small letters, digits and -, got \"A B\"; " +
          "servers[1].port: expected number, got \"80\"; " +
          "servers[1].stopWithin: expected a valid Duration string, got \"soon\""
      )
      assert.strictEqual(
        yield* told([{ ...good, port: 0 }]),
        "/fleet.json: servers[0].port: expected a port for readiness by /health, got 0"
      )
      assert.strictEqual(
        yield* told([good, { ...good, prot: 1 }]),
        "/fleet.json: servers[1].prot: expected no excess property, got 1"
      )
      assert.strictEqual(
        yield* told([{ ...good, readyWithin: "-1 seconds", stopWithin: "0 seconds" }]),
        "/fleet.json: servers[0].readyWithin: expected a duration greater than 0, got \"-1 seconds\"; " +
          "servers[0].stopWithin: expected a duration greater than 0, got \"0 seconds\""
      )
      assert.strictEqual(
        yield* told([good, { ...good, name: "b" }, { ...good, port: 7001 }]),
        "/fleet.json: servers[2].name: expected a name that no other server has, got \"a\"; " +
          "servers[1].port: expected a port that no other server has, got 7000"
      )
      assert.strictEqual(
        yield* told([{ ...good, ready: { line: "(" } }]),
        "/fleet.json: servers[0].ready.line: expected a regular expression, got \"(\""
      )
      assert.strictEqual(
        yield* told([{ ...good, ready: {} }, { ...good, ready: { health: "/", line: "x" } }]),
        "/fleet.json: servers[0].ready: expected either health or line, got {}; " +
          "servers[1].ready: expected either health or line, got {\"health\":\"/\",\"line\":\"x\"}"
      )
    }))

  it.effect("describes 40 servers by default, which are all there to be built from", () =>
    Effect.gen(function*() {
      const manifest = yield* Manifest.load(fileURLToPath(new URL("../src/myctl/fleet.json", import.meta.url)))
      assert.lengthOf(manifest.servers, 40)
      const index = yield* CacheIndex.make(manifest)
      assert.lengthOf(Object.keys(index.servers), 40)
    }).pipe(Effect.provide(FleetWorld.platform)))
})

describe("CacheIndex", () => {
  it.effect("tells which servers stand on what has changed", () =>
    withWorld(
      [server("a"), server("b", { sources: ["other.txt"] }), server("c", { sources: ["other.txt", "tree"] })],
      Effect.fnUntraced(function*(world) {
        const fs = yield* FileSystem.FileSystem
        yield* fs.makeDirectory(`${world.directory}/tree/deep`, { recursive: true })
        yield* world.put("other.txt", "1")
        yield* world.put("tree/deep/file", "1")
        const index = Effect.flatMap(Manifest.load(world.manifest), CacheIndex.make)
        const first = yield* index
        assert.deepStrictEqual(CacheIndex.stale(first, yield* index), { sources: [], servers: [] })

        // A new time with the old content is no change.
        yield* world.put("page.txt", "one")
        assert.deepStrictEqual(CacheIndex.stale(first, yield* index), { sources: [], servers: [] })
        yield* world.put("page.txt", "two")
        assert.deepStrictEqual(CacheIndex.stale(first, yield* index), { sources: ["page.txt"], servers: ["a"] })

        const second = yield* index
        yield* fs.rename(`${world.directory}/tree/deep/file`, `${world.directory}/tree/deep/renamed`)
        assert.deepStrictEqual(CacheIndex.stale(second, yield* index), { sources: ["tree"], servers: ["c"] })

        const third = yield* index
        yield* world.writeManifest([server("a", { args: ["--stubborn"] }), server("b", { sources: ["other.txt"] })])
        assert.deepStrictEqual(CacheIndex.stale(third, yield* index), { sources: ["tree"], servers: ["a", "c"] })
      })
    ))

  it.effect("fails with the name of a source that is not there", () =>
    withWorld([server("a", { sources: ["missing.txt"] })], (world) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(Effect.flatMap(Manifest.load(world.manifest), CacheIndex.make))
        assert.strictEqual(error.message, `Could not read ${world.directory}/missing.txt: it is not there`)
      })))

  it.effect("is empty when its file is damaged", () =>
    withWorld([server("a")], (world) =>
      Effect.gen(function*() {
        yield* world.put("index.json", "{\"sources\": 1}")
        const { stored } = yield* CacheIndex.CacheIndex
        assert.deepStrictEqual(yield* stored, { sources: {}, servers: {} })
      }).pipe(Effect.provide(CacheIndex.CacheIndex.layer(world.directory)))))
})

// On the real clock: these are real processes.
describe("Operator, with real servers", () => {
  const withFleet = (
    servers: ReadonlyArray<unknown>,
    test: (
      world: FleetWorld.World,
      manifest: Manifest.Manifest,
      servers: Manifest.Server
    ) => Effect.Effect<void, unknown, Fleet | Operator | Processes | FileSystem.FileSystem | Path.Path | Scope.Scope>
  ) =>
    withWorld(
      servers,
      Effect.fnUntraced(function*(world) {
        const manifest = yield* Manifest.load(world.manifest)
        const [first] = manifest.servers
        if (first === undefined) return assert.fail("no server")
        yield* test(world, manifest, first).pipe(Effect.provide(world.fleet))
      })
    )

  it.live(
    "starts a server that outlives the scope, finds it again, and stops it gracefully",
    () =>
      withFleet([server("a", { args: ["--stop-delay", "100"] })], (world, manifest, server) =>
        Effect.gen(function*() {
          const operator = yield* Operator
          yield* operator.restart(manifest, server, "hash")
          const { find } = yield* Fleet
          const instance = yield* find(server)
          assert.isDefined(instance)
          assert.include(instance, { hash: "hash", ready: true })
          assert.deepStrictEqual(yield* world.running, { a: instance.pid })
          const page = yield* Effect.promise(() => fetch(`http://127.0.0.1:${instance.port}/`).then((it) => it.text()))
          assert.strictEqual(page, "a")
          assert.isBelow(Duration.toSeconds(instance.uptime), 60)

          yield* operator.restart(manifest, server, "another")
          const next = yield* find(server)
          assert.isDefined(next)
          assert.notStrictEqual(next.pid, instance.pid)
          assert.strictEqual(next.hash, "another")
          assert.include((yield* world.stored)["logs/a.log.old"], "a was asked to stop")

          yield* operator.stop(server)
          assert.isUndefined(yield* find(server))
          assert.deepStrictEqual(yield* world.running, {})
        })),
    { timeout: 60_000 }
  )

  it.live(
    "kills a server that ignores SIGTERM when its time is up",
    () =>
      withFleet(
        [server("a", { args: ["--stubborn"], stopWithin: "100 millis" })],
        (world, manifest, server) =>
          Effect.gen(function*() {
            const operator = yield* Operator
            yield* operator.restart(manifest, server, "hash")
            yield* operator.stop(server)
            assert.deepStrictEqual(yield* world.running, {})
          })
      ),
    { timeout: 60_000 }
  )

  it.live(
    "tells the end of the log of a server that ends at once",
    () =>
      withFleet(
        [server("a", { args: ["--page", "missing.txt"] })],
        (world, manifest, server) =>
          Effect.gen(function*() {
            const error = yield* Effect.flip(Operator.use((operator) => operator.restart(manifest, server, "hash")))
            assert.strictEqual(
              error.message,
              `a did not become ready: it ended with code 1; ${world.state}/logs/a.log ends: ` +
                "a cannot start: ENOENT: no such file or directory, open 'missing.txt'"
            )
            assert.isUndefined(yield* Fleet.use(({ find }) => find(server)))
          })
      ),
    { timeout: 60_000 }
  )

  it.live(
    "says why a command cannot be started",
    () =>
      withFleet(
        [{ ...server("a"), command: ["no-such-program", "--x"] }],
        (world, manifest, server) =>
          Effect.gen(function*() {
            const { restart } = yield* Operator
            const message = Effect.map(Effect.flip(restart(manifest, server, "hash")), ({ message }) => message)
            const cannot = "a could not be started with no-such-program --x: "
            assert.strictEqual(yield* message, `${cannot}spawn no-such-program ENOENT`)
            const fs = yield* FileSystem.FileSystem
            yield* fs.remove(`${world.state}/logs`, { recursive: true })
            assert.include(yield* message, `${cannot}ENOENT: no such file or directory, open`)
          })
      ),
    { timeout: 60_000 }
  )

  it.live("leaves nothing of a server that is not ready in time, or is given up", () =>
    withFleet(
      [server("a", { args: ["--start-delay", "100000"], readyWithin: "300 millis" })],
      (world, manifest, server) =>
        Effect.gen(function*() {
          const operator = yield* Operator
          const error = yield* Effect.flip(operator.restart(manifest, server, "hash"))
          assert.include(error.message, "a did not become ready: it was not within 300ms")
          assert.deepStrictEqual(yield* world.running, {})

          const patient = { ...server, readyWithin: Duration.minutes(10) }
          const exit = yield* operator.restart(manifest, patient, "hash").pipe(
            Effect.raceFirst(until(world.running, ({ a }) => a !== undefined)),
            Effect.exit
          )
          assert.isTrue(Exit.isSuccess(exit))
          assert.deepStrictEqual(yield* world.running, {})
        })
    ), { timeout: 60_000 })

  it.live(
    "does not take another process on the port for the server",
    () =>
      Effect.flatMap(
        FleetWorld.freePorts(1),
        ([port]) =>
          withFleet([server("a", { port: port ?? 0 })], (_world, manifest, server) =>
            Effect.gen(function*() {
              const operator = yield* Operator
              yield* operator.restart(manifest, server, "hash")
              const { find, illness } = yield* Fleet
              const instance = yield* find(server)
              assert.isDefined(instance)
              assert.isUndefined(yield* illness(server, instance))
              assert.strictEqual(
                yield* illness(server, { ...instance, pid: 1 }),
                `port ${port} belongs to process ${instance.pid}`
              )
              const twin = { ...server, name: "twin" }
              const error = yield* Effect.flip(operator.restart(manifest, twin, "hash"))
              assert.include(error.message, "twin did not become ready: it ended with code 1")
              assert.include(error.message, "EADDRINUSE")
            }))
      ),
    { timeout: 60_000 }
  )

  it.live(
    "never touches a process that only has the pid of a server",
    () =>
      withFleet([server("a")], (world, _manifest, server) =>
        Effect.gen(function*() {
          const stranger = yield* Effect.acquireRelease(
            Effect.sync(() => spawn("sleep", ["600"], { stdio: "ignore" })),
            (child) => Effect.sync(() => child.kill("SIGKILL"))
          )
          const pid = stranger.pid ?? 0
          const fs = yield* FileSystem.FileSystem
          yield* fs.writeFileString(
            `${world.state}/servers/a.json`,
            JSON.stringify({ pid, started: "boot/1", port: 1, hash: "hash", ready: true })
          )
          assert.isUndefined(yield* Fleet.use(({ find }) => find(server)))
          yield* Operator.use(({ stop }) => stop(server))
          const { stop } = yield* Processes
          assert.strictEqual(yield* stop({ pid, started: "boot/1" }, Duration.millis(1)), "was gone")
          assert.isTrue(stranger.kill(0))
          assert.isNull(stranger.exitCode)
          assert.isNull(stranger.signalCode)
        })),
    { timeout: 60_000 }
  )

  it.live(
    "remembers a process in the moment in which it starts, and keeps none that it cannot remember",
    () =>
      withFleet([server("a")], (world) =>
        Effect.gen(function*() {
          const { start, stop, uptime } = yield* Processes
          const known: Array<Identity> = []
          const process = (remember: (identity: Identity) => void) =>
            start({
              command: ["sleep", "600"],
              directory: world.directory,
              env: {},
              log: `${world.directory}/log`,
              remember: (identity) => {
                known.push(identity)
                remember(identity)
              }
            })
          const starting = yield* Effect.forkChild(process(() => {}), { startImmediately: true })
          // Not one turn of the event loop later.
          assert.strictEqual(known.length, 1)
          const { pid, started } = yield* Fiber.join(starting)
          assert.deepStrictEqual(known, [{ pid, started }])
          assert.strictEqual(yield* stop({ pid, started }, Duration.seconds(10)), "ended")
          const full = () => {
            throw new Error("the disk is full")
          }
          assert.strictEqual(yield* Effect.flip(process(full)), "the disk is full")
          const [, lost] = known
          if (lost === undefined) return assert.fail("it was not started")
          yield* until(uptime(lost), (uptime) => uptime === undefined)
        })),
    { timeout: 60_000 }
  )

  it.live(
    "says that a state does not decode, and where",
    () =>
      withFleet([server("a")], (world, _manifest, server) =>
        Effect.gen(function*() {
          const fs = yield* FileSystem.FileSystem
          yield* fs.writeFileString(`${world.state}/servers/a.json`, "{\"pid\": 1}")
          const error = yield* Effect.flip(Fleet.use(({ find }) => find(server)))
          assert.include(error.message, "servers/a.json: pid: expected a value greater than 1, got 1")
        })),
    { timeout: 60_000 }
  )

  it.live("lets one at a time work on a state", () =>
    withFleet([server("a")], (world) =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(Effect.provide(Effect.void, world.fleet, { local: true }))
        assert.include(String(exit), `is in use by process ${process.pid}`)
      })), { timeout: 60_000 })
})
