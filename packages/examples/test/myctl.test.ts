/**
 * myctl as a process, and its fleet of real servers, on the real clock.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem, type Path, Schema, type Scope } from "effect"
import { fileURLToPath } from "node:url"
import * as FleetWorld from "./FleetWorld.ts"
import { type Ended, spawned, until } from "./ServiceProcess.ts"

const { server } = FleetWorld

const main = fileURLToPath(new URL("../src/myctl/main.ts", import.meta.url))

const start = (world: FleetWorld.World, ...args: ReadonlyArray<string>) =>
  spawned(process.execPath, [main, ...args, "--manifest", world.manifest, "--state", world.state])

/** Runs myctl to its end. There is no terminal. */
const myctl = (world: FleetWorld.World, ...args: ReadonlyArray<string>) =>
  Effect.flatMap(start(world, ...args), ({ ended }) => ended)

const withWorld = <A, E>(
  servers: ReadonlyArray<unknown>,
  test: (world: FleetWorld.World) => Effect.Effect<A, E, FileSystem.FileSystem | Path.Path | Scope.Scope>
) => Effect.flatMap(FleetWorld.make(servers), test).pipe(Effect.scoped, Effect.provide(FleetWorld.platform))

const assertEnded = ({ code, stderr, stdout }: Ended, expected: number) =>
  assert.strictEqual(code, expected, `${stdout}\n${stderr}`)

const names = (count: number) => Array.from({ length: count }, (_, i) => `s-${String(i + 1).padStart(2, "0")}`)

/** What a report says of each server. */
const Report = Schema.fromJsonString(Schema.Struct({
  ending: Schema.String,
  steps: Schema.Array(Schema.Struct({
    step: Schema.String,
    key: Schema.NullOr(Schema.String),
    state: Schema.Struct({ _tag: Schema.String })
  }))
}))

const states = Effect.fnUntraced(function*({ stdout }: Ended) {
  const { ending, steps } = yield* Schema.decodeUnknownEffect(Report)(stdout)
  const all: Record<string, string> = { ending }
  for (const { key, state, step } of steps) all[key ?? step] = state._tag
  return all
})

const options = { timeout: 240_000 }

describe("myctl as a process", options, () => {
  it.live(
    "changes nothing in a dry run, then starts 40 servers, then finds nothing to do",
    () =>
      Effect.flatMap(FleetWorld.freePorts(10), (ports) =>
        withWorld(
          names(40).map((name, index) => server(name, index < ports.length ? { port: ports[index] ?? 0 } : {})),
          Effect.fnUntraced(function*(world) {
            const dry = yield* myctl(world, "orchestrate", "--dry-run")
            assertEnded(dry, 0)
            assert.include(dry.stdout, "would")
            assert.isFalse(yield* FileSystem.FileSystem.use((fs) => fs.exists(world.state)))
            assert.deepStrictEqual(yield* world.running, {})

            const first = yield* myctl(world, "orchestrate")
            assertEnded(first, 0)
            const running = yield* world.running
            assert.deepStrictEqual(Object.keys(running).toSorted(), names(40))

            const stored = yield* world.stored
            const second = yield* myctl(world, "orchestrate", "--json")
            assertEnded(second, 0)
            const report = yield* states(second)
            assert.strictEqual(report["ending"], "nothing")
            assert.deepStrictEqual(
              report,
              {
                ending: "nothing",
                cache: "Satisfied",
                ...Object.fromEntries(names(40).map((name) => [name, "Satisfied"]))
              }
            )
            assert.deepStrictEqual(yield* world.running, running)
            assert.deepStrictEqual(yield* world.stored, stored)

            const status = yield* myctl(world, "status")
            assert.include(status.stdout, "40 of 40 well and up to date")

            const stopped = yield* myctl(world, "stop", "--force")
            assertEnded(stopped, 0)
            assert.deepStrictEqual(yield* world.running, {})
          })
        ))
  )

  it.live(
    "starts eight at once; after Ctrl+C it reports what it has done, and leaves nothing half started",
    () =>
      withWorld(
        [
          server("a"),
          ...names(12).map((name) => server(name, { args: ["--start-delay", "600000"], readyWithin: "1 hour" }))
        ],
        Effect.fnUntraced(function*(world) {
          const running = yield* start(world, "orchestrate", "--json")
          yield* until(world.stored, (files) => files["servers/a.json"]?.includes("\"ready\": true") === true)
          // None of these is ever ready: eight are waited for.
          yield* until(world.running, (servers) => Object.keys(servers).length > 8)
          const ended = yield* running.kill("SIGINT")
          assertEnded(ended, 130)
          const report = yield* states(ended)
          assert.include(report, { ending: "cut", cache: "Applied", a: "Applied" })
          assert.deepStrictEqual(names(12).map((name) => report[name]), [
            ...names(8).map(() => "Failed"),
            ...names(4).map(() => "NotRun")
          ])
          assert.deepStrictEqual(Object.keys(yield* world.running), ["a"])
        })
      )
  )
})

// Their time is mostly starting: two processors do it together.
describe.concurrent("myctl as a process, beside others", options, () => {
  it.live("restarts what stands on a source that has changed, and nothing else", () =>
    withWorld(
      [server("a"), server("b", { sources: ["other.txt"] }), server("c", { sources: ["other.txt", "page.txt"] })],
      Effect.fnUntraced(function*(world) {
        yield* world.put("other.txt", "one")
        assertEnded(yield* myctl(world, "orchestrate"), 0)
        const before = yield* world.running

        yield* world.put("other.txt", "two")
        assertEnded(yield* myctl(world, "check"), 1)
        const preview = yield* myctl(world, "orchestrate", "--dry-run")
        assert.include(
          preview.stdout,
          "would rebuild the cache: other.txt changed, under 2 running servers (destructive)"
        )

        // Running servers would be stopped, and nobody is there to say yes.
        const refused = yield* myctl(world, "orchestrate")
        assertEnded(refused, 2)
        assert.deepStrictEqual(yield* world.running, before)

        assertEnded(yield* myctl(world, "orchestrate", "--force"), 0)
        const after = yield* world.running
        assert.strictEqual(after["a"], before["a"])
        assert.notStrictEqual(after["b"], before["b"])
        assert.notStrictEqual(after["c"], before["c"])
        assertEnded(yield* myctl(world, "check"), 0)
      })
    ))

  it.live("takes each step alone: check, rebuild, select, restart, status, stop", () =>
    withWorld(
      [server("a"), server("b", { sources: ["other.txt"] })],
      Effect.fnUntraced(function*(world) {
        yield* world.put("other.txt", "one")
        const select = Effect.flatMap(myctl(world, "select", "--json"), states)
        // Nobody knows yet what they are built from.
        assertEnded(yield* myctl(world, "check"), 1)
        assertEnded(yield* myctl(world, "restart"), 1)
        assertEnded(yield* myctl(world, "rebuild", "--dry-run"), 0)
        assert.deepStrictEqual(yield* world.stored, {})
        assertEnded(yield* myctl(world, "rebuild"), 0)
        assert.notInclude((yield* myctl(world, "rebuild", "--force")).stdout, "nothing to do")

        assert.deepStrictEqual(yield* select, { ending: "previewed", a: "WouldApply", b: "WouldApply" })
        assertEnded(yield* myctl(world, "restart", "a"), 0)
        const first = yield* world.running
        assert.deepStrictEqual(Object.keys(first), ["a"])
        assert.deepStrictEqual(yield* select, { ending: "previewed", a: "Satisfied", b: "WouldApply" })
        // Named, it is restarted although it is well.
        assertEnded(yield* myctl(world, "restart", "a"), 2)
        assertEnded(yield* myctl(world, "restart", "a", "--force"), 0)
        assert.notStrictEqual((yield* world.running)["a"], first["a"])
        assertEnded(yield* myctl(world, "restart"), 0)

        yield* world.put("other.txt", "two")
        const believing = yield* myctl(world, "select")
        assert.include(believing.stdout, "nothing to do")
        assert.include(believing.stderr, "the cache is stale for b: rebuild it\n")
        const { stdout } = yield* myctl(world, "status", "--json")
        const rows = yield* Schema.decodeUnknownEffect(Rows)(stdout)
        const { a = 0, b } = yield* world.running
        assert.deepStrictEqual(rows.map(({ port: _, ...row }) => row), [
          { name: "a", pid: a, health: "ok", upToDate: true },
          { name: "b", pid: b, health: "ok", upToDate: false }
        ])
        for (const { port } of rows) assert.isAbove(port, 0)

        assertEnded(yield* myctl(world, "stop", "b", "--force"), 0)
        assert.deepStrictEqual(yield* world.running, { a })

        // The manifest forgets it; whoever started it can end it all the same.
        yield* world.writeManifest([server("b", { sources: ["other.txt"] })])
        assert.match((yield* myctl(world, "status")).stdout, /^a .*not in the manifest/m)
        assertEnded(yield* myctl(world, "stop", "--force"), 0)
        assert.deepStrictEqual(yield* world.running, {})
      })
    ))

  it.live(
    "names a server that does not become ready with the end of its log; the next run starts only that one",
    () =>
      withWorld(
        [server("a"), server("b", { args: ["--page", "missing.txt"] }), server("c")],
        Effect.fnUntraced(function*(world) {
          const partial = yield* myctl(world, "orchestrate")
          assertEnded(partial, 3)
          assert.include(partial.stdout, "b did not become ready")
          assert.include(partial.stdout, "no such file or directory, open 'missing.txt'")
          const { a, c } = yield* world.running
          assert.isDefined(a)

          yield* world.put("missing.txt", "found")
          const second = yield* myctl(world, "orchestrate", "--json")
          assertEnded(second, 0)
          // It was started beside the one that failed, or not any more.
          const report = yield* states(second)
          assert.deepStrictEqual(report, {
            ending: "done",
            cache: "Satisfied",
            a: "Satisfied",
            b: "Applied",
            c: c === undefined ? "Applied" : "Satisfied"
          })
          assert.deepStrictEqual(Object.keys(yield* world.running).toSorted(), ["a", "b", "c"])
          assert.strictEqual((yield* world.running)["a"], a)
        })
      )
  )

  it.live(
    "restarts a server that died, and one that is not well",
    () =>
      Effect.flatMap(FleetWorld.freePorts(2), ([one = 0, two = 0]) =>
        withWorld(
          [server("a", { port: one, args: ["--sick-if", "sick.txt"] }), server("b", { port: two }), server("c")],
          Effect.fnUntraced(function*(world) {
            assertEnded(yield* myctl(world, "orchestrate"), 0)
            const before = yield* world.running
            process.kill(before["b"] ?? 0, "SIGKILL")
            yield* until(world.running, ({ b }) => b === undefined)
            yield* world.put("sick.txt", "")
            const status = yield* myctl(world, "status")
            assert.match(status.stdout, /^a .*\/health answers 503/m)
            assert.match(status.stdout, /^b .*stopped/m)
            assert.include(status.stdout, "1 of 3 well")

            // It comes back as sick as it was, and is waited for until it is well.
            const orchestrate = yield* start(world, "orchestrate", "--force")
            yield* until(world.running, ({ a }) => a !== undefined && a !== before["a"])
            yield* world.remove("sick.txt")
            assertEnded(yield* orchestrate.ended, 0)
            const after = yield* world.running
            assert.deepStrictEqual(Object.keys(after).toSorted(), ["a", "b", "c"])
            assert.strictEqual(after["c"], before["c"])
          })
        ))
  )

  it.live("refuses a bad manifest with the path inside it, and runs nothing", () =>
    withWorld(
      [server("a"), { ...server("b"), port: "80" }],
      Effect.fnUntraced(function*(world) {
        for (const command of ["orchestrate", "rebuild", "status"]) {
          const refused = yield* myctl(world, command)
          assertEnded(refused, 2)
          assert.strictEqual(
            refused.stderr,
            `${world.manifest}: servers[1].port: expected number, got "80"\n`
          )
          assert.strictEqual(refused.stdout, "")
        }
        assert.deepStrictEqual(yield* world.stored, {})
        assert.deepStrictEqual(yield* world.running, {})
        yield* world.remove("fleet.json")
        assertEnded(yield* myctl(world, "orchestrate"), 2)
        yield* world.writeManifest([server("a")])
        assertEnded(yield* myctl(world, "restart", "nobody"), 2)
        assertEnded(yield* myctl(world, "orchestrate", "--only", "nothing"), 2)
        assert.deepStrictEqual(yield* world.running, {})
      })
    ))
})

const Rows = Schema.fromJsonString(Schema.Array(Schema.Struct({
  name: Schema.String,
  pid: Schema.Int,
  port: Schema.Int,
  health: Schema.String,
  upToDate: Schema.Boolean
})))
