// Builds `dist` of every published package from nothing, and fails for a source that gave no output.
import { spawnSync } from "node:child_process"
import { existsSync, globSync, rmSync } from "node:fs"
import { published } from "./published.mjs"

for (const { path } of published) {
  rmSync(`${path}/dist`, { recursive: true, force: true })
  rmSync(`${path}/.artifacts/src.tsbuildinfo`, { force: true })
}
const { status } = spawnSync("tsc", ["-b", ...published.map(({ path }) => `${path}/tsconfig.src.json`)], {
  stdio: "inherit"
})
if (status !== 0) process.exitCode = 1

for (const { path } of published) {
  const modules = globSync("**/*.ts", { cwd: `${path}/src` }).map((file) => file.slice(0, -".ts".length))
  const missing = modules.filter((module) =>
    [".js", ".d.ts"].some((extension) => !existsSync(`${path}/dist/${module}${extension}`))
  )
  console.log(`build: ${path}: ${modules.length - missing.length} modules`)
  if (modules.length === 0) console.error(`${path}: nothing to build`)
  if (missing.length > 0) console.error(`${path}: no output for ${missing.join(", ")}`)
  if (modules.length === 0 || missing.length > 0) process.exitCode = 1
}
if (published.length === 0) throw new Error("no package to build")
