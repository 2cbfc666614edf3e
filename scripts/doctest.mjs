// Runs every fence marked `ts import.meta.vitest` of README.md, docs/ and the docstrings, and checks its types.
// A line that ends in `// => value` is an assertion: the statement before it must equal the value.
//
// Each fence becomes a module of its own, moved down to the line it has in its source, so that an error names
// that line; its directory is named like the source.
import { spawnSync } from "node:child_process"
import { globSync, mkdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { parseSync } from "vite"

const out = ".artifacts/doctest"
const sources = globSync(["README.md", "docs/**/*.md", "packages/*/src/**/*.ts"]).toSorted()

const fencesOf = (source) => {
  const fences = []
  let fence
  readFileSync(source, "utf8").split("\n").forEach((text, index) => {
    const line = index + 1
    if (fence !== undefined) {
      const content = text.startsWith(fence.prefix) ? text.slice(fence.prefix.length) : text.trim().replace(/^\*$/, "")
      if (content.trimEnd() === "```") fence = undefined
      else fence.lines.push(content)
    } else if (/```.*import\.meta\.vitest/.test(text)) {
      const prefix = /^(\s*(?:\* )?)```ts import\.meta\.vitest\s*$/.exec(text)?.[1]
      if (prefix === undefined) throw new Error(`${source}:${line}: write the fence as "\`\`\`ts import.meta.vitest"`)
      fence = { line, prefix, lines: [] }
      fences.push(fence)
    }
  })
  if (fence !== undefined) throw new Error(`${source}:${fence.line}: this fence has no end`)
  return fences
}

const statementsOf = (node) => {
  if (node === null || typeof node !== "object") return []
  const nested = Object.values(node).flatMap(statementsOf)
  return node.type === "ExpressionStatement" || node.type === "VariableDeclaration" ? [node, ...nested] : nested
}

const withAssertions = (name, code) => {
  const { comments, errors, program } = parseSync("fence.ts", code)
  if (errors.length > 0) throw new Error(`${name}: ${errors[0].message}\n${errors[0].codeframe}`)
  const statements = statementsOf(program)
  const insertions = comments.flatMap(({ start, value }) => {
    const expected = /^ => (.+)$/.exec(value)?.[1]
    if (expected === undefined) return []
    const statement = statements.find(({ end }) => end <= start && /^[^\S\n]*$/.test(code.slice(end, start)))
    if (statement === undefined) throw new Error(`${name}: "//${value}" stands behind no statement`)
    if (statement.type === "VariableDeclaration") {
      const variable = statement.declarations[0].id.name
      return [[statement.end, `; __expect(${variable}).toStrictEqual(${expected})`]]
    }
    const { start: from, end: to } = statement.expression
    return [[from, "__expect("], [to, `).toStrictEqual(${expected})`]]
  })
  return insertions.toSorted(([a], [b]) => b - a).reduce(
    (text, [at, inserted]) => text.slice(0, at) + inserted + text.slice(at),
    code
  )
}

rmSync(out, { recursive: true, force: true })
let count = 0
for (const source of sources) {
  const fences = fencesOf(source)
  if (fences.length === 0) continue
  mkdirSync(`${out}/${source}`, { recursive: true })
  for (const { line, lines } of fences) {
    const code = withAssertions(`${source}:${line}`, lines.join("\n"))
    const header = `import { expect as __expect } from "vitest"`
    writeFileSync(`${out}/${source}/${line}.ts`, `${header}${"\n".repeat(line)}${code}\n`)
  }
  const tests = fences.map(({ line }) => `it("${source}:${line}", () => import("./${line}.ts"))`)
  writeFileSync(`${out}/${source}/fences.test.ts`, [`import { it } from "vitest"`, ...tests, ""].join("\n"))
  count += fences.length
}
if (count === 0) throw new Error(`no fence in ${sources.length} files`)
writeFileSync(
  `${out}/tsconfig.json`,
  JSON.stringify({
    extends: "../../tsconfig.base.json",
    compilerOptions: {
      composite: false,
      incremental: false,
      noEmit: true,
      noUnusedLocals: false,
      noUnusedParameters: false,
      types: ["node"]
    },
    include: ["**/*.ts"]
  })
)

const run = (command, ...args) => {
  const { status, stdout, stderr } = spawnSync(command, args, { cwd: out, encoding: "utf8", maxBuffer: Infinity })
  process.stdout.write(`${stdout}${stderr}`.replaceAll(/\/\d+\.ts\b/g, ""))
  return status === 0
}
const typed = run("tsc", "--project", "tsconfig.json")
const ran = run(
  "vitest",
  "run",
  // A fence may be a simulation, and the machine busy.
  "--testTimeout=30000",
  "--reporter=default",
  "--reporter=../../scripts/tally.mjs",
  "--outputFile.tally=../doctest.tally"
)
console.log(`doctest: ${count} fences${typed ? "" : ", types are wrong"}${ran ? "" : ", runs failed"}`)
if (!typed || !ran) process.exitCode = 1
