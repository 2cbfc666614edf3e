import { defineConfig } from "vitest/config"
import projects from "./vitest.workspace.ts"

const inCi = process.env.CI !== undefined

export default defineConfig({
  test: {
    projects,
    maxWorkers: 2,
    reporters: inCi ? ["default", "json", "./scripts/tally.mjs"] : ["default"],
    outputFile: { json: ".artifacts/test.json", tally: ".artifacts/test.tally" }
  }
})
