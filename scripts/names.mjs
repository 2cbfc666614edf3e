// The rules about names that oxlint cannot express: files, and tests.
import { globSync, readFileSync } from "node:fs"
import { basename } from "node:path"

const faults = []
const files = globSync("packages/*/{src,test}/**", { withFileTypes: true }).map((entry) => ({
  path: `${entry.parentPath}/${entry.name}`,
  isTest: entry.isFile() && /\.test\.tsx?$/.test(entry.name)
}))

for (const { path } of files) {
  // The first part of the name: `Routine.types.ts` is a type test, `types.ts` is a drawer for everything.
  if (/^(utils?|helpers?|common|types)$/i.test(basename(path).split(".")[0])) {
    faults.push(`${path}: name it after the one thing it holds`)
  }
}

const title = /\b(?:it|test)(?:\.\w+)*(?:\([^()]*\))?\(\s*(["'`])((?:\\.|(?!\1).)*)\1/g
const switchedOff = /\b(?:it|test|describe|suite)(?:\.\w+)*\.(?:only|skip|todo|fails)\b/g
const numbers = new Map()

for (const { path } of files.filter((file) => file.isTest)) {
  const source = readFileSync(path, "utf8")
  const at = (index) => `${path}:${source.slice(0, index).split("\n").length}`
  for (const match of source.matchAll(switchedOff)) {
    faults.push(`${at(match.index)}: ${match[0]}: every test runs`)
  }
  for (const { 2: name, index } of source.matchAll(title)) {
    if (/^should\b/i.test(name)) faults.push(`${at(index)}: "${name}": say what it does, without "should"`)
    if (!/^\d/.test(name)) continue
    const number = /^(\d+)\. /.exec(name)?.[1]
    if (number === undefined) {
      faults.push(`${at(index)}: "${name}": a number at the start is written "N. "`)
      continue
    }
    const key = `${path.split("/")[1]} ${number}`
    if (numbers.has(key)) faults.push(`${at(index)}: "${name}": this number is taken at ${numbers.get(key)}`)
    numbers.set(key, at(index))
  }
}

for (const fault of faults) console.error(fault)
const tests = files.filter((file) => file.isTest).length
console.log(`names: ${files.length} names, ${tests} files of tests, ${faults.length} faults`)
if (faults.length > 0 || tests === 0) process.exitCode = 1
