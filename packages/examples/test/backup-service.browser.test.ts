/**
 * A real browser looks at the page of the running service while its database dies. The picture that it takes is the
 * README's: `pnpm docs:images` puts it there.
 */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import { existsSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { chromium } from "playwright-core"
import * as BackupWorld from "./BackupWorld.ts"
import * as ServiceProcess from "./ServiceProcess.ts"

const executablePath = "/usr/bin/chromium"
const picture = fileURLToPath(new URL("../../../.artifacts/orchestra.png", import.meta.url))
const skip = !existsSync(executablePath) && process.env["CI"] === undefined
if (skip) console.log(`skipped: there is no ${executablePath} to look at the backup service with`)

const args = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]

const page = Effect.acquireRelease(
  Effect.promise(() => chromium.launch({ executablePath, args })),
  (browser) => Effect.promise(() => browser.close())
).pipe(
  Effect.flatMap((browser) => Effect.promise(() => browser.newPage({ viewport: { width: 1280, height: 720 } })))
)

// A real process, a real browser, and their clocks.
describe.skipIf(skip)("the page of the backup service in a browser", () => {
  it.live(
    "shows within a second, without a reload, that the database and what stands on it have come back",
    () =>
      Effect.gen(function*() {
        const world = yield* BackupWorld.make()
        yield* world.put("a.txt", "one")
        const service = yield* ServiceProcess.start(["--source", world.source, "--store", world.store, "--chaos"])
        const open = yield* page
        yield* Effect.promise(() => open.goto(`${service.orchestra}/orchestra`))
        const row = (name: string) => open.locator("#rows tr").filter({ has: open.getByText(name, { exact: true }) })
        const running = (name: string, incarnation: string) =>
          Effect.promise(() =>
            row(name).filter({ hasText: "running" })
              .filter({ has: open.locator("td.incarnation", { hasText: incarnation }) }).waitFor()
          )
        for (const name of ["database", "watcher", "api"]) yield* running(name, "1")
        yield* Effect.promise(() => open.evaluate("window.loadedOnce = true"))

        const crashed = performance.now()
        const headers = { "content-type": "application/json" }
        yield* Effect.promise(() => fetch(`${service.api}/chaos/database`, { method: "POST", headers }))
        for (const name of ["database", "watcher", "api"]) yield* running(name, "2")
        assert.isBelow(performance.now() - crashed, 1000)
        assert.isTrue(yield* Effect.promise(() => open.evaluate("window.loadedOnce")))

        // Settled, so that the picture shows no row in the colour of a change.
        yield* Effect.sleep("2 seconds")
        yield* Effect.promise(() => open.screenshot({ path: picture, fullPage: true }))
        assert.strictEqual((yield* service.kill("SIGTERM")).code, 143)
      }).pipe(Effect.scoped, Effect.provide(BackupWorld.platform)),
    30_000
  )
})
