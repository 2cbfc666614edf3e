/**
 * Takes the README's picture anew: the browser test of the backup service makes it, this puts it in its place.
 */
import { spawnSync } from "node:child_process"
import { copyFileSync, mkdirSync, rmSync } from "node:fs"

const made = ".artifacts/orchestra.png"
const place = "docs/images/orchestra.png"

rmSync(made, { force: true })
const test = spawnSync(process.execPath, ["node_modules/vitest/vitest.mjs", "run", "backup-service.browser"], {
  stdio: "inherit",
  env: { ...process.env, CI: "1" }
})
if (test.status !== 0) process.exit(test.status ?? 1)
mkdirSync("docs/images", { recursive: true })
copyFileSync(made, place)
console.log(`${place} is current`)
