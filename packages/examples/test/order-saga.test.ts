/**
 * The shop as processes: three services that fail, die and come back; what is printed, how it ends, and what is in the
 * three databases then.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem } from "effect"
import { fileURLToPath } from "node:url"
import * as StoreLock from "../src/backup-service/StoreLock.ts"
import * as Audit from "../src/order-saga/Audit.ts"
import { isAlive, spawned, until } from "./ServiceProcess.ts"

const main = fileURLToPath(new URL("../src/order-saga/main.ts", import.meta.url))

/** Starts it with the words of a command line. */
const started = (line: string) => spawned(process.execPath, [main, ...line.split(" ")])
const finished = (line: string) => Effect.flatMap(started(line), ({ endedWithin }) => endedWithin("90 seconds"))

const temporary = Effect.flatMap(FileSystem.FileSystem, (fs) => fs.makeTempDirectoryScoped())

/** The number behind a word of the report. */
const count = (stdout: string, ending: string) => Number(new RegExp(`^  ${ending} +(\\d+)$`, "m").exec(stdout)?.[1])

/** The pids of the services that were started, by name, the last one counts. */
const pids = (stderr: string): { readonly [service: string]: number } =>
  Object.fromEntries(
    Array.from(stderr.matchAll(/^(\w+), pid (\d+): http/gm), ([, name = "", pid]) => [name, Number(pid)])
  )

/** The databases balance, nothing is in pieces, no process is left. */
const assertSound = Effect.fnUntraced(function*(directory: string, stderr: string) {
  const audit = yield* Audit.audit(directory)
  assert.isTrue(Audit.balances(audit), Audit.format(audit))
  assert.deepStrictEqual(Object.values(pids(stderr)).filter(isAlive), [])
  return audit
})

const ways = ["saga", "choreography"] as const

/** How many orders are a load: the thousand are left to CI. */
const orders = process.env["CI"] === undefined ? 300 : 1000

// Their time is mostly waiting: they do it together.
describe.concurrent("an order in a shop of processes", { timeout: 120_000 }, () => {
  it.live("places an order as choreography, and shows who reacts to whom and what caused what", () =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* finished("choreography --seed 7")
      assert.deepStrictEqual([code, Object.values(pids(stderr)).length], [0, 3])
      assert.include(stdout, "PaymentTaken (broadcast, 1 subscriber)\n  shipping -> OrderShipped ! StepsGivenUp\n")
      const [placed, reserved] = /^OrderPlaced (e-\d+)\n {2}reserve: done\nStockReserved e-\d+ because of (e-\d+)$/m
        .exec(stdout)?.slice(1) ?? []
      assert.isDefined(placed)
      assert.strictEqual(reserved, placed)
      assert.match(stdout, /\norder 7 completed\n$/)
    }))

  it.live("places an order as a saga", () =>
    Effect.gen(function*() {
      const { code, stdout } = yield* finished("saga --seed 7 --item atlas --quantity 3 --customer ben")
      assert.deepStrictEqual([code, stdout], [0, "  reserve: done\n  charge: done\n  ship: done\norder 7 completed\n"])
    }))

  it.live("saga: undoes the newest first, also the charge that came after nobody waited for it any more", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const { code, stderr, stdout } = yield* finished(`saga --slow charge:1 --seed 7 --data ${directory}`)
      assert.deepStrictEqual([code, stdout.split("\n")], [1, [
        "  reserve: done",
        "  charge: nobody waits any longer",
        "  charge: nobody waits any longer",
        "  charge: nobody waits any longer",
        "  refund: 8000 given back",
        "  release: 2 given back",
        "order 7 compensated",
        "  why: step \"charge\" of saga \"order\" took longer than 2s",
        "  undone: charge, reserve",
        ""
      ]])
      const audit = yield* assertSound(directory, stderr)
      assert.strictEqual(audit.complete, 0)
    }).pipe(Effect.provide(NodeServices.layer)))

  for (const way of ways) {
    it.live(`${way}: undoes an order whose payment fails, and says what it undid`, () =>
      Effect.gen(function*() {
        const directory = yield* temporary
        const { code, stderr, stdout } = yield* finished(`${way} --fail charge:1 --seed 7 --data ${directory}`)
        assert.strictEqual(code, 1, stderr)
        assert.include(stdout, "reserve: done\n")
        assert.include(stdout, "release: 2 given back\n")
        assert.include(stdout, "refund: there was nothing\n")
        assert.match(
          stdout,
          /order 7 compensated\n {2}why: charge unavailable: it failed, as it was told to\n {2}undone: /
        )
        const audit = yield* assertSound(directory, stderr)
        assert.deepStrictEqual([audit.complete, audit.accounts.filter(({ taken }) => taken > 0)], [0, []])
      }).pipe(Effect.provide(NodeServices.layer)))

    it.live(`${way}: names the step whose undo gives up, which the audit finds in pieces`, () =>
      Effect.gen(function*() {
        const directory = yield* temporary
        const { code, stdout } = yield* finished(
          `${way} --fail ship:1 --fail refund:1 --patience 0.5 --seed 7 --data ${directory}`
        )
        assert.strictEqual(code, 3)
        assert.match(stdout, /order 7 stuck\n {2}why: ship .*\n {2}undone: .*reserve.*\n {2}stuck: charge\n/)
        const audit = yield* finished(`audit --data ${directory}`)
        assert.strictEqual(audit.code, 1)
        assert.include(audit.stdout, "  7: nothing reserved, ada charged 80.00, nothing shipped\n")
      }).pipe(Effect.provide(NodeServices.layer)))
  }

  it.live("a load ends with 3 when it names what is stuck, with 1 when the audit finds what nobody named", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      const load = `load --orders 3 --seed 7 --fail ship:1 --data ${directory}`
      const stuck = yield* finished(`${load} --fail refund:1 --patience 0.5`)
      assert.strictEqual(stuck.code, 3, stuck.stdout)
      assert.match(stuck.stdout, /^stuck: order 7-1: charge \(ship unavailable: it failed, as it was told to\)$/m)
      const found = yield* finished(load.replace("--seed 7", "--seed 8"))
      assert.strictEqual(found.code, 1, found.stdout)
      assert.include(found.stdout, "  7-1: nothing reserved, ")
    }).pipe(Effect.provide(NodeServices.layer)))

  it.live("refuses what makes no sense before anything is started", () =>
    Effect.gen(function*() {
      const wrong = [
        "load --fail charge:2",
        "load --fail steal:0.5",
        "load --orders 0",
        "load --mode hope",
        "saga --item moon",
        "choreography --patience 0",
        "audit --data /nonexistent"
      ]
      yield* Effect.forEach(
        wrong,
        Effect.fnUntraced(function*(line) {
          const { code, stderr, stdout } = yield* finished(line)
          assert.deepStrictEqual([code, stdout], [2, ""], line)
          assert.deepStrictEqual(pids(stderr), {})
        }),
        { concurrency: 2 }
      )
    }))

  it.live("refuses to work beside another one on the same databases", () =>
    Effect.gen(function*() {
      const directory = yield* temporary
      yield* StoreLock.acquire({ file: `${directory}/lock`, store: directory, pid: process.pid })
      const { code, stderr } = yield* finished(`saga --data ${directory}`)
      assert.deepStrictEqual(
        [code, stderr],
        [1, `The store ${directory} is in use by process ${process.pid}\n`]
      )
    }).pipe(Effect.provide(NodeServices.layer)))
})

// Each of these takes all of a processor.
describe("a load of orders", { timeout: 180_000 }, () => {
  for (const way of ways) {
    it.live(`${way}: orders with random faults balance to the unit`, () =>
      Effect.gen(function*() {
        const directory = yield* temporary
        const { code, stderr, stdout } = yield* finished(
          `load --mode ${way} --orders ${orders} --concurrency 48 --seed 9 --data ${directory}`
        )
        assert.strictEqual(code, 0, stdout + stderr)
        const audit = yield* assertSound(directory, stderr)
        assert.strictEqual(count(stdout, "completed"), audit.complete)
        assert.strictEqual(count(stdout, "completed") + count(stdout, "compensated"), orders)
        assert.isAbove(count(stdout, "compensated"), orders / 50)
        assert.include(stdout, Audit.format(audit))
      }).pipe(Effect.provide(NodeServices.layer)))

    it.live(`${way}: a service that is killed comes back; Ctrl+C lets what is under way settle, and all balances`, () =>
      Effect.gen(function*() {
        const directory = yield* temporary
        const load = yield* started(`load --mode ${way} --orders 100000 --concurrency 32 --seed 9 --data ${directory}`)
        const told = (isThere: (stderr: string) => boolean) =>
          until(Effect.sync(() => load.output().stderr), isThere, "1 minute")
        const { payment } = pids(yield* told((stderr) => stderr.includes("100 of 100000")))
        assert.isDefined(payment)
        process.kill(payment, "SIGKILL")
        // It is there again, and asked.
        yield* told((stderr) => /^payment, pid [^]*^payment, pid [^]* of 100000$/m.test(stderr))
        load.child.kill("SIGINT")
        const { code, stderr, stdout } = yield* load.endedWithin("90 seconds")
        assert.strictEqual(code, 130, stdout + stderr)
        assert.match(stdout, /^\d+ of 100000 orders, /)
        const { complete } = yield* assertSound(directory, stderr)
        assert.strictEqual(count(stdout, "completed") + count(stdout, "committed"), complete, stdout)
      }).pipe(Effect.provide(NodeServices.layer)))
  }
})
