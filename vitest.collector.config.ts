import { defineConfig } from "vitest/config"

const inCi = process.env.CI !== undefined

/** What needs the tools of Go: run by `scripts/collector.mjs`, and not a part of `pnpm test`. */
export default defineConfig({
  test: {
    name: "collector",
    root: "packages/observability",
    include: ["test/collector/**/*.test.ts"],
    fileParallelism: false,
    reporters: inCi ? ["default", "../../scripts/tally.mjs"] : ["default"],
    outputFile: { tally: ".artifacts/collector.tally" }
  }
})
