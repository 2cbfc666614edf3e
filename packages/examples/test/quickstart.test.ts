/**
 * The programs of the quickstart as processes: what they print, what they answer, how they end.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { fileURLToPath } from "node:url"
import { spawned, until } from "./ServiceProcess.ts"

const main = fileURLToPath(new URL("../src/quickstart/main.ts", import.meta.url))

const started = (...args: ReadonlyArray<string>) => spawned(process.execPath, [main, ...args])
const finished = (...args: ReadonlyArray<string>) => Effect.flatMap(started(...args), ({ ended }) => ended)

const text = (url: string) => Effect.promise(() => fetch(url).then((response) => response.text()))
const status = (url: string) => Effect.promise(() => fetch(url).then((response) => response.status))

const lines = (output: string) => output.trimEnd().split("\n")

// Their time is mostly waiting: they do it together.
describe.concurrent("the quickstart", { timeout: 30_000 }, () => {
  it.live("lists its five programs, and refuses another name", () =>
    Effect.gen(function*() {
      const [list, unknown] = yield* Effect.all([finished(), finished("nonsense")], { concurrency: 2 })
      assert.strictEqual(list.code, 0)
      const [, programs = ""] = list.stdout.split("SUBCOMMANDS\n")
      const names = lines(programs).map((line) => line.trim().split(" ")[0])
      assert.deepStrictEqual(names, ["routine", "messages", "supervised", "metrics", "shutdown"])

      assert.deepStrictEqual([unknown.code, unknown.stdout], [2, ""])
      assert.include(unknown.stderr, "nonsense")
    }))

  it.live("routine: one that beats is well, one that stops beating is degraded, then ended by its idle timeout", () =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* finished("routine")
      assert.deepStrictEqual([code, stderr], [0, ""])
      const [pages, unwell, titles, row, ended, ...more] = lines(stdout)
      assert.strictEqual(pages, "read 12 pages")
      assert.strictEqual(unwell, "/orchestra/poller: running, degraded")
      assert.match(titles ?? "", /^ID +PATH +STATE +HEALTH +UPTIME +IDLE +BUSY%/)
      assert.match(row ?? "", /^r-1 +\/orchestra\/poller +running +degraded +\d+ms +\d+ms/)
      assert.match(
        ended ?? "",
        /^\/orchestra\/poller: timed_out, \/orchestra\/poller gave no sign of life for [1-9][0-9]{3,} ms$/
      )
      assert.deepStrictEqual(more, [])
    }))

  it.live("messages: questions are answered, a failed reaction is repeated, and the graph says who talks to whom", () =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* finished("messages")
      assert.deepStrictEqual([code, stderr], [0, ""])
      assert.deepStrictEqual(lines(stdout), [
        "atlas: 25",
        "globe: 40",
        "sundial: sold out",
        "sent: atlas, attempt 1",
        "sent: globe, attempt 2",
        "orders: received 3, waiting 0",
        "Sent (broadcast, 1 subscriber) <- post",
        "Sold (broadcast, 1 subscriber) <- desk",
        "  post -> Sent"
      ])
    }))

  it.live("supervised: a worker that fails comes back after a pause that grows, where it was", () =>
    Effect.gen(function*() {
      const { code, stderr, stdout } = yield* finished("supervised")
      assert.deepStrictEqual([code, stderr], [0, ""])
      const pauses = Array.from(stdout.matchAll(/^the next run in (\d+) ms$/gm), ([, millis]) => Number(millis))
      assert.deepStrictEqual(lines(stdout.replaceAll(/\d+ ms/g, "N ms")), [
        "part 1",
        "part 2",
        "run 1: connection lost at part 3",
        "the next run in N ms",
        "part 3",
        "part 4",
        "run 2: connection lost at part 5",
        "the next run in N ms",
        "part 5",
        "all parts are there"
      ])
      const [first = 0, second = 0] = pauses
      assert.isTrue(first >= 100 && first <= 200, `${first}`)
      assert.isTrue(second >= 200 && second <= 400, `${second}`)
    }))

  it.live("metrics: the page is served, the restarts are counted, and the service stays ready", () =>
    Effect.gen(function*() {
      const service = yield* started("metrics", "--port", "0")
      const { stdout } = yield* until(Effect.sync(service.output), ({ stdout }) => stdout.includes("Ctrl+C"))
      const [page = "", metrics = "", ready = ""] = ["page", "metrics", "ready"].map((name) =>
        new RegExp(`^${name} (http:\\S+)$`, "m").exec(stdout)?.[1] ?? assert.fail(`no ${name} in ${stdout}`)
      )
      assert.match(yield* text(page), /<!doctype html>/i)

      const restarts = /^orchestra_routine_restarts_total\{.*routine_name="flaky".*reason="failure".*\} (\d+)$/m
      const scraped = yield* until(text(metrics), (metrics) => Number(restarts.exec(metrics)?.[1]) >= 1)
      assert.match(scraped, /^orchestra_routine_active\{.*name="steady".*state="running".*\} 1$/m)
      assert.match(scraped, /^orchestra_supervisor_restart_budget_utilization_ratio\{.*"service".*\} 0\.\d+$/m)
      assert.strictEqual(yield* status(ready), 200)

      const { code, stderr } = yield* service.kill("SIGTERM")
      assert.deepStrictEqual([code, stderr], [143, ""])
    }))

  it.live("shutdown: the intake stops first, what was taken is finished, and the database closes last", () =>
    Effect.gen(function*() {
      const service = yield* started("shutdown")
      yield* until(Effect.sync(service.output), ({ stdout }) => stdout.includes("job 4 saved"))
      const { code, stderr, stdout } = yield* service.kill("SIGTERM")
      assert.deepStrictEqual([code, stderr], [143, ""])

      const told = lines(stdout)
      const closed = told.findIndex((line) => line.startsWith("intake closed"))
      const [before, after] = [told.slice(0, closed), told.slice(closed + 1)]
      const taken = Number(/^intake closed after job (\d+)$/.exec(told[closed] ?? "")?.[1])
      assert.isAbove(taken, before.length - 1, "jobs waited when the stop came")
      assert.deepStrictEqual(
        [...before, ...after],
        ["database open", ...Array.from({ length: taken }, (_, job) => `job ${job + 1} saved`), "database closed"]
      )
    }))

  it.live("shutdown: what ignores its interruption is named, and the program ends all the same", () =>
    Effect.gen(function*() {
      const service = yield* started("shutdown", "--stuck")
      yield* until(Effect.sync(service.output), ({ stdout }) => stdout.includes("job 1 saved"))
      const { code, stderr, stdout } = yield* service.kill("SIGINT")
      assert.strictEqual(code, 130)
      assert.match(stdout, /database closed\n$/)
      const [head = "", stuck = "", ...more] = lines(stderr)
      assert.match(head, /^stopped 3 in \d+ ms, 1 left running$/)
      assert.match(stuck, /^ {2}stuck: \/orchestra\/deaf, waited \d{3,4} ms$/)
      assert.deepStrictEqual(more, [])
    }))
})
