// Tests against a real OpenTelemetry Collector and the real tools of Go: `pnpm test:collector`. Builds the Collector when
// there is none in the cache, which takes a minute or more. Without Go it says so and does nothing.
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from "node:fs"
import { homedir } from "node:os"
import { join, resolve } from "node:path"

const builder = "go.opentelemetry.io/collector/cmd/builder@v0.159.0"
const manifest = resolve("packages/observability/test/collector/manifest.yaml")
const cache = join(process.env.XDG_CACHE_HOME || join(homedir(), ".cache"), "effect-orchestra")

const found = spawnSync("go", ["version"], { encoding: "utf8" }).stdout ?? ""
const [, major, minor] = /\bgo(\d+)\.(\d+)/.exec(found)?.map(Number) ?? [0, 0, 0]
if (major < 1 || (major === 1 && minor < 26)) {
  console.log(`test:collector skipped: a real Collector needs Go 1.26 or later, found ${found.trim() || "none"}`)
  process.exit(0)
}

const hash = createHash("sha256").update(builder).update(readFileSync(manifest)).digest("hex").slice(0, 16)
const collector = join(cache, `otelcol-${hash}`)
if (!existsSync(collector)) build()

const { status } = spawnSync("npx", [
  "-y",
  "pnpm@12",
  "exec",
  "vitest",
  "run",
  "--config",
  "vitest.collector.config.ts"
], {
  env: { ...process.env, OTELCOL: collector },
  stdio: "inherit"
})
process.exit(status ?? 1)

function build() {
  console.log(`building a Collector into ${collector}`)
  mkdirSync(cache, { recursive: true })
  const directory = mkdtempSync(join(cache, "build-"))
  const go = (command, args) => {
    const { status } = spawnSync(command, args, {
      cwd: directory,
      env: { ...process.env, GOBIN: directory, GOFLAGS: "-buildvcs=false" },
      stdio: ["ignore", "ignore", "inherit"]
    })
    if (status === 0) return
    rmSync(directory, { recursive: true, force: true })
    console.error(`${command} ${args.join(" ")} failed`)
    process.exit(1)
  }
  go("go", ["install", builder])
  go(join(directory, "builder"), ["--config", manifest])
  // Whole or not at all, also when two build at once.
  renameSync(join(directory, "otelcol-test", "otelcol-test"), collector)
  rmSync(directory, { recursive: true, force: true })
}
