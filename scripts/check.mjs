// Types of every package (`tsc -b`), then Effect's own diagnostics over all of them in one program.
// Both are compared with the files on disk: a check that looked at nothing is not green.
import { execFileSync, spawnSync } from "node:child_process"
import { globSync } from "node:fs"
import { join, relative } from "node:path"

const files = globSync("packages/*/{src,test}/**/*.{ts,tsx}")
const faults = []

if (spawnSync("tsc", ["-b"], { stdio: "inherit" }).status !== 0) faults.push("tsc -b failed")

const config = (project) => JSON.parse(execFileSync("tsc", ["-p", project, "--showConfig"], { encoding: "utf8" }))
const typed = new Set(
  config("tsconfig.json").references.flatMap(({ path }) =>
    config(path).references.flatMap((reference) => {
      const project = join(path, reference.path)
      return (config(project).files ?? []).map((file) => join(project, "..", file))
    })
  )
)
for (const file of files) if (!typed.has(file)) faults.push(`${file}: tsc -b does not see it`)

const { status, stdout, stderr } = spawnSync("effect-tsgo", [
  "diagnostics",
  "--strict",
  "--severity=error,warning",
  "--format=json",
  `--project=${join(import.meta.dirname, "tsconfig.check.json")}`
], { encoding: "utf8", maxBuffer: Infinity })
if (!stdout.startsWith("{")) throw new Error(`effect-tsgo ended with ${status}: ${stdout}${stderr}`)
const { diagnostics, summary } = JSON.parse(stdout)
for (const { file, line, column, severity, name, message } of diagnostics) {
  faults.push(`${relative(".", file)}:${line}:${column} ${severity} ${name}: ${message}`)
}
if (summary.filesChecked !== files.length) {
  faults.push(`Effect's diagnostics saw ${summary.filesChecked} of ${files.length} files`)
}
if (status !== 0 && diagnostics.length === 0) faults.push(`effect-tsgo ended with ${status}: ${stderr}`)

for (const fault of faults) console.error(fault)
console.log(
  `check: ${typed.size} files typed, ${summary.filesChecked} seen by Effect's diagnostics, ${faults.length} faults`
)
if (faults.length > 0 || files.length === 0) process.exitCode = 1
