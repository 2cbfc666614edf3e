// Packs every published package, installs the tarballs with plain npm outside the workspace, and there imports every
// entry point, type-checks them together with `consumer/program.ts`, and runs both. Entry points that need optional peers
// come last, when those are installed as a README says: everything else must do without them.
import { execFileSync } from "node:child_process"
import { cpSync, existsSync, globSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { published } from "./published.mjs"

const run = (cwd, command, ...args) => execFileSync(command, args, { cwd, stdio: ["ignore", "pipe", "inherit"] })
const versionOf = (name) => JSON.parse(readFileSync(`node_modules/${name}/package.json`, "utf8")).version
const assert = (condition, message) => {
  if (!condition) throw new Error(message)
}

const packs = resolve(".artifacts/packs")
const project = mkdtempSync(join(tmpdir(), "effect-orchestra-consumer-"))
try {
  rmSync(packs, { recursive: true, force: true })
  mkdirSync(packs, { recursive: true })
  for (const { path } of published) run(path, "npx", "-y", "pnpm@12", "pack", "--pack-destination", packs)
  const dependencies = Object.fromEntries([
    ...published.map(({ manifest: { name, version } }) => [
      name,
      `file:${join(packs, `${name.slice(1).replace("/", "-")}-${version}.tgz`)}`
    ]),
    ...["effect", "@effect/platform-node", "typescript", "@types/node"].map((name) => [name, versionOf(name)])
  ])
  writeFileSync(join(project, "package.json"), JSON.stringify({ private: true, type: "module", dependencies }))
  console.log(String(run(project, "npm", "install", "--no-audit", "--no-fund")))

  const entries = published.flatMap(({ manifest: { name }, path }) => {
    const installed = join(project, "node_modules", name)
    const files = globSync("**", { cwd: installed })
    const manifest = readFileSync(join(installed, "package.json"), "utf8")
    assert(!/"(workspace|catalog):/.test(manifest), `${name}: its package.json speaks of the workspace: ${manifest}`)
    const strays = files.filter((file) => /(^|\/)(test|\.artifacts)\/|\.test\.|\.types\.|tsbuildinfo/.test(file))
    assert(strays.length === 0, `${name}: ${strays.join(", ")} should not be published`)
    assert(files.includes("LICENSE"), `${name}: no LICENSE`)
    assert(!existsSync(`${path}/README.md`) || files.includes("README.md"), `${name}: no README.md`)
    // A folder has one way in, its index.
    const modules = globSync(["*.js", "*/index.js"], { cwd: join(installed, "dist") }).toSorted()
    assert(modules.includes("index.js") && modules.length > 1, `${name}: nothing to import but ${modules.join(", ")}`)
    return modules.map((file) => join(name, file.replace(/(\/?index)?\.js$/, "")))
  })

  const importAll = (entries) =>
    writeFileSync(
      join(project, "entries.ts"),
      [
        ...entries.map((entry, index) => `import * as entry${index} from "${entry}"`),
        `const entries = [${entries.map((_, index) => `entry${index}`).join(", ")}]`,
        "console.log(`${entries.length} entry points, ${entries.flatMap(Object.keys).length} exports`)\n"
      ].join("\n")
    )
  cpSync("scripts/consumer/program.ts", join(project, "program.ts"))
  writeFileSync(
    join(project, "tsconfig.json"),
    JSON.stringify({
      compilerOptions: {
        strict: true,
        exactOptionalPropertyTypes: true,
        noEmit: true,
        module: "NodeNext",
        target: "ES2024",
        // No `lib`: Effect's own declarations name types of the default one (`CryptoKey`).
        types: ["node"],
        skipLibCheck: false
      }
    })
  )
  const check = (entries, ...programs) => {
    importAll(entries)
    console.log(String(run(project, join(project, "node_modules/.bin/tsc"), "--project", ".")))
    for (const program of ["entries.ts", ...programs]) process.stdout.write(run(project, process.execPath, program))
  }
  const needsPeers = "@effect-orchestra/observability/OpenTelemetry"
  assert(entries.includes(needsPeers), `there is no ${needsPeers}`)
  assert(!existsSync(join(project, "node_modules/@opentelemetry")), "the packages of OpenTelemetry are not optional")
  check(entries.filter((entry) => entry !== needsPeers), "program.ts")
  const readme = readFileSync("packages/observability/README.md", "utf8")
  const [, peers] = /^npm install (@effect\/opentelemetry.*)$/m.exec(readme) ?? []
  assert(peers !== undefined, "the README does not say what OpenTelemetry needs")
  console.log(String(run(project, "npm", "install", "--no-audit", "--no-fund", ...peers.split(" "))))
  check(entries)
  console.log(`consumer: ${published.length} packages, ${entries.length} entry points`)
} catch (error) {
  // What the failed command said on its standard output is the reason.
  console.error(`${error.stdout ?? ""}${error.message}`)
  process.exitCode = 1
} finally {
  rmSync(project, { recursive: true, force: true })
}
