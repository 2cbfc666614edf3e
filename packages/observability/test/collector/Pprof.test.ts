import { Mailbox, Orchestrator, Routine } from "@effect-orchestra/core"
import { Metering, Server } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { execFile, spawnSync } from "node:child_process"
import { pbkdf2Sync } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"

const [, minor = "0"] = /go1\.(\d+)/.exec(spawnSync("go", ["version"], { encoding: "utf8" }).stdout ?? "") ?? []
const skip = Number(minor) < 26
if (skip) console.log("skipped: Go 1.26 is not installed, so nobody else reads the profiles")

// Generators, which the engine never makes part of their callers.
function* burnHot(rounds: number): Generator<Uint8Array> {
  yield pbkdf2Sync("password", "salt", rounds, 32, "sha256")
}

function* burnMild(rounds: number): Generator<Uint8Array> {
  yield pbkdf2Sync("password", "salt", rounds, 32, "sha256")
}

function hoard(length: number): ReadonlyArray<object> {
  return Array.from({ length }, (_, n) => ({ n, text: `entry ${n}`, more: [n, n, n] }))
}

const layer = Server.layer({ port: 0, profile: true }).pipe(
  Layer.provideMerge(Orchestrator.layerWith({ name: "app" })),
  Layer.provideMerge(Metering.layer)
)

/** `go tool pprof` with what it is asked to show of the profile at this path. */
const pprof = (path: string, ...show: ReadonlyArray<string>) =>
  Effect.flatMap(Server.Server, ({ url }) =>
    Effect.callback<string>((resume) => {
      const home = mkdtempSync(join(tmpdir(), "pprof-"))
      execFile(
        "go",
        ["tool", "pprof", ...show, `${url}/debug/pprof/${path}`],
        { env: { ...process.env, PPROF_TMPDIR: home } },
        (error, stdout, stderr) => {
          rmSync(home, { recursive: true })
          assert.isNull(error, stderr)
          assert.notMatch(stderr, /warning|error|failed|not available/i)
          resume(Effect.succeed(stdout))
        }
      )
    }))

/** What `-top` shows: the names, those with most first, and the share that each has with what it calls. */
const rows = (top: string) =>
  [...top.matchAll(/^ *\S+ +\S+% +\S+% +\S+ +(\S+)% +(.+)$/gm)].map(([, share, name]) => ({
    share: Number(share),
    name
  }))

/** The share of each value of a label, of all that is labelled. */
const shares = (tags: string, label: string) => {
  const [, values = ""] = new RegExp(`^ *${label}: Total.*\\n((?: +\\S+ \\( *\\S+%\\): .*\\n)*)`, "m").exec(tags) ?? []
  const found = [...values.matchAll(/\( *(\S+)%\): (.*)$/gm)].map(([, share, name]) => [name, Number(share)] as const)
  const all = found.reduce((sum, [, share]) => sum + share, 0)
  return Object.fromEntries(found.map(([name, share]) => [name, share / all]))
}

// A real process reads what a real service says of itself, at the real time that this takes.
describe.skipIf(skip)("go tool pprof", () => {
  it.live(
    "reads the CPU profile: the hot function leads, and its routine as much as it takes",
    () =>
      Effect.gen(function*() {
        const worker = (burn: typeof burnHot, rounds: number) =>
          Effect.forever(Effect.andThen(Effect.sync(() => burn(rounds).next()), Effect.sleep(3)))
        const hot = yield* Orchestrator.fork(worker(burnHot, 40_000), { name: "hot" })
        const mild = yield* Orchestrator.fork(worker(burnMild, 10_000), { name: "mild" })
        const metering = yield* Metering
        const used = Effect.map(
          Effect.all([metering.cpu(hot), metering.cpu(mild)]),
          (all) => all.map(({ cpuMillis }) => cpuMillis)
        )
        const [hotBefore = 0, mildBefore = 0] = yield* used
        const tags = yield* pprof("profile?seconds=3", "-tags")
        const [hotAfter = 0, mildAfter = 0] = yield* used
        const truth = (hotAfter - hotBefore) / (hotAfter - hotBefore + mildAfter - mildBefore)
        const { hot: shown = 0 } = shares(tags, "routine")
        assert.closeTo(shown, truth, 0.15, tags)

        const top = yield* pprof("profile?seconds=1", "-top", "-cum")
        assert.match(top, /^File: app\nType: cpu\n/)
        const share = (wanted: string) => rows(top).find(({ name }) => name === wanted)?.share ?? 0
        assert.isAbove(share("burnHot"), 10, top)
        assert.isAbove(share("burnHot"), share("burnMild"))
        const raw = yield* pprof("profile?seconds=1", "-raw")
        assert.match(raw, /^PeriodType: cpu nanoseconds\nPeriod: 10000000\n[^]*\nsamples\/count cpu\/nanoseconds\n/)
        assert.match(raw, /burnHot \/.*\/Pprof\.test\.ts:\d+/)
        assert.match(raw, /routine:\[hot\]/)
      }).pipe(Effect.provide(layer)),
    30_000
  )

  it.live("reads where the fibers stand", () =>
    Effect.gen(function*() {
      for (let n = 0; n < 30; n++) yield* Orchestrator.fork(Effect.withSpan(Effect.never, "wait"), { name: "many" })
      yield* Orchestrator.fork(Effect.never, { name: "one" })
      const top = yield* pprof("goroutine", "-top")
      assert.match(top, /^File: app\nType: fiber\n/)
      assert.deepStrictEqual(rows(top).map(({ name }) => name), [
        "wait",
        "routine one",
        "orchestrator app",
        "routine many"
      ])
      assert.closeTo(shares(yield* pprof("goroutine", "-tags"), "routine")["many"] ?? 0, 30 / 31, 0.001)
      assert.match(
        yield* pprof("goroutine", "-raw"),
        /\nroutine\/count fiber\/count\[dflt\]\n +30 +30: 1 2 3 \n +routine:\[many\] state:\[running\]\n/
      )
    }).pipe(Effect.provide(layer)), 10_000)

  it.live("reads who has waited where", () =>
    Effect.gen(function*() {
      const mailbox = yield* Mailbox.make<number>({ name: "orders", capacity: 1 })
      yield* Mailbox.send(mailbox, 0)
      const sender = yield* Orchestrator.fork(Mailbox.send(mailbox, 1), { name: "shop" })
      yield* Effect.sleep("200 millis")
      yield* Mailbox.receive(mailbox)
      yield* Routine.join(sender)
      const top = yield* pprof("block", "-top", "-cum")
      assert.match(top, /^File: app\nType: delay\n/)
      assert.deepInclude(rows(top), { share: 100, name: "mailbox orders" })
      assert.deepInclude(rows(top), { share: 100, name: "routine shop" })
      assert.deepStrictEqual(shares(yield* pprof("block", "-tags"), "routine"), { shop: 1 })
      assert.match(yield* pprof("block", "-raw"), /\ncontentions\/count delay\/nanoseconds\n +1 +\d{9}: 1 2 3 4/)
    }).pipe(Effect.scoped, Effect.provide(layer)), 10_000)

  it.live("reads what lies on the heap", () =>
    Effect.gen(function*() {
      const kept = hoard(300_000)
      const top = yield* pprof("heap", "-top", "-cum")
      assert.match(top, /^File: app\nType: inuse_space\n/)
      assert.isAbove(rows(top).find(({ name }) => name === "hoard")?.share ?? 0, 20, top)
      assert.match(yield* pprof("heap", "-raw"), /\ninuse_objects\/count inuse_space\/bytes\n/)
      assert.isAbove(kept.length, 0)
    }).pipe(Effect.provide(layer)), 10_000)
})
