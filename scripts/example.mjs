// `pnpm example` lists the examples, `pnpm example <name> [arguments]` becomes one.
import { globSync } from "node:fs"
import { basename, dirname, join } from "node:path"

const root = join(import.meta.dirname, "..")
const mains = globSync("packages/examples/src/*/main.ts", { cwd: root }).toSorted()
const [name, ...args] = process.argv.slice(2)
const main = mains.find((path) => basename(dirname(path)) === name)

if (main === undefined) {
  const list = ["usage: pnpm example <name> [arguments]", ...mains.map((path) => `  ${basename(dirname(path))}`)]
  if (name === undefined) {
    console.log(list.join("\n"))
  } else {
    console.error(`no example is named ${name}\n${list.join("\n")}`)
    process.exitCode = 2
  }
} else {
  // Not a child process: a terminal sends Ctrl+C to both, and a forwarded one would be the second, which forces.
  process.execve(process.execPath, [process.execPath, join(root, main), ...args])
}
