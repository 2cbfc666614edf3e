/**
 * What the services keep, what goes wrong in them, and how an auditor sees it.
 */
import * as NodeServices from "@effect/platform-node/NodeServices"
import { assert, describe, it } from "@effect/vitest"
import { Effect, FileSystem } from "effect"
import { DatabaseSync } from "node:sqlite"
import * as Audit from "../src/order-saga/Audit.ts"
import * as Faults from "../src/order-saga/Faults.ts"
import * as Ledger from "../src/order-saga/Ledger.ts"
import { opening, random, serviceNames, total, van } from "../src/order-saga/Order.ts"

const ledger = Ledger.open(":memory:", { globe: 10 })
const two = { account: "globe", amount: 2 }

describe("the ledger of a service", () => {
  it.effect("takes once and gives back once, however often it is asked", () =>
    Effect.gen(function*() {
      const { giveBack, take } = yield* ledger
      for (let times = 0; times < 3; times++) assert.isUndefined(yield* take("o-1", two))
      assert.isUndefined(yield* take("o-2", { ...two, amount: 8 }))
      assert.strictEqual(yield* take("o-3", two), "there is not enough of globe")
      assert.deepStrictEqual([yield* giveBack("o-1"), yield* giveBack("o-1")], [2, 0])
      assert.isUndefined(yield* take("o-3", two))
    }))

  it.effect("refuses what arrives after its cancellation", () =>
    Effect.gen(function*() {
      const { giveBack, take } = yield* ledger
      assert.strictEqual(yield* giveBack("o-1"), 0)
      assert.strictEqual(yield* take("o-1", two), "the order was cancelled")
    }))

  it.effect("refuses another request under the same key, and an account that it does not have", () =>
    Effect.gen(function*() {
      const { take } = yield* ledger
      yield* take("o-1", two)
      assert.strictEqual(yield* take("o-1", { ...two, amount: 3 }), "the order took 2 of globe before")
      assert.strictEqual(yield* take("o-2", { ...two, account: "moon" }), "there is not enough of moon")
    }))
})

describe("the faults of a service", () => {
  const charges = Effect.fnUntraced(function*(seed: string) {
    const fault = Faults.make({ fail: [["charge", 0.3]], lose: [["charge", 0.1]], slow: [["reserve", 1]] }, seed)
    return yield* Effect.forEach(Array.from({ length: 1000 }), (_, order) => fault("charge", `o-${order}`))
  })

  it.effect("come as often as they were ordered, and the same for the same seed", () =>
    Effect.gen(function*() {
      const first = yield* charges("one")
      const count = (fault: string | undefined) => first.filter((found) => found === fault).length
      assert.isTrue(count("fail") > 240 && count("fail") < 360, `${count("fail")} failed`)
      assert.isTrue(count("lose") > 40 && count("lose") < 110, `${count("lose")} were lost`)
      assert.strictEqual(count("slow"), 0)
      assert.deepStrictEqual(yield* charges("one"), first)
      assert.notDeepEqual(yield* charges("two"), first)
    }))

  it.effect("are thrown anew for each attempt", () =>
    Effect.gen(function*() {
      const fault = Faults.make({ fail: [["charge", 0.5]], lose: [], slow: [] }, "seed")
      const attempts = yield* Effect.forEach(Array.from({ length: 20 }), () => fault("charge", "o-1"))
      assert.lengthOf(new Set(attempts), 2)
    }))
})

/** The ledgers of the three services in a directory, with some orders that are complete. */
const books = Effect.gen(function*() {
  const directory = yield* (yield* FileSystem.FileSystem).makeTempDirectoryScoped()
  const [stock, payment, shipping] = yield* Effect.forEach(
    serviceNames,
    (name) => Ledger.open(`${directory}/${name}.db`, opening(100)[name])
  )
  if (stock === undefined || payment === undefined || shipping === undefined) return yield* Effect.die("three ledgers")
  const orders = yield* Effect.forEach([1, 2, 3], (number) => random("seed", number))
  for (const order of orders) {
    const { customer, id, item, quantity } = order
    yield* stock.take(id, { account: item, amount: quantity })
    yield* payment.take(id, { account: customer, amount: total(order) })
    yield* shipping.take(id, { account: van, amount: quantity })
  }
  return { directory, stock, payment, shipping }
})

describe("the audit", () => {
  it.effect("finds complete orders in balance, and undone ones nowhere", () =>
    Effect.gen(function*() {
      const { directory, payment, shipping, stock } = yield* books
      for (const ledger of [stock, payment, shipping]) yield* ledger.giveBack("seed-2")
      const audit = yield* Audit.audit(directory)
      assert.isTrue(Audit.balances(audit))
      assert.strictEqual(audit.complete, 2)
      assert.lengthOf(audit.accounts, 8)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("names the order of which one service holds what another one does not", () =>
    Effect.gen(function*() {
      const { directory, payment } = yield* books
      yield* payment.giveBack("seed-2")
      const audit = yield* Audit.audit(directory)
      assert.isFalse(Audit.balances(audit))
      assert.isTrue(Audit.balances(audit, new Set(["seed-2"])))
      assert.deepStrictEqual(audit.unbalanced.map(({ order }) => order), ["seed-2"])
      assert.match(Audit.format(audit), /in pieces: 1\n {2}seed-2: \d \w+ reserved, nothing charged, \d shipped$/)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("is refused where an account is not there, with nothing in its place", () =>
    Effect.gen(function*() {
      const { directory } = yield* books
      const file = `${directory}/payment.db`
      const db = new DatabaseSync(file)
      db.exec("DELETE FROM entries; DELETE FROM accounts WHERE name = 'ada'")
      db.close()
      const error = yield* Effect.flip(Audit.audit(directory))
      assert.strictEqual(error.message, `${file} cannot be used: it has no account ada`)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("sees a charge of a cent too much, and an account that lost a unit", () =>
    Effect.gen(function*() {
      const { directory } = yield* books
      const payment = new DatabaseSync(`${directory}/payment.db`)
      payment.exec("UPDATE entries SET amount = amount + 1 WHERE orderId = 'seed-1'")
      payment.close()
      const stock = new DatabaseSync(`${directory}/stock.db`)
      stock.exec("UPDATE accounts SET available = available - 1 WHERE name = 'atlas'")
      stock.close()
      const audit = yield* Audit.audit(directory)
      assert.isFalse(Audit.balances(audit, new Set(["seed-1"])))
      assert.deepStrictEqual(audit.unbalanced.map(({ order }) => order), ["seed-1"])
      assert.match(Audit.format(audit), /stock +atlas .* off by 1\n/)
      assert.match(Audit.format(audit), /payment +\w+ .* off by -0\.01\n/)
    }).pipe(Effect.provide(NodeServices.layer)))

  it.effect("refuses a directory without the databases, and creates none", () =>
    Effect.gen(function*() {
      const fs = yield* FileSystem.FileSystem
      const directory = yield* fs.makeTempDirectoryScoped()
      const error = yield* Effect.flip(Audit.audit(directory))
      assert.include(error.message, "stock.db cannot be used")
      assert.deepStrictEqual(yield* fs.readDirectory(directory), [])
    }).pipe(Effect.provide(NodeServices.layer)))
})
