import { fileURLToPath } from "node:url"

/** The test projects, one for each package, named like their folders. */
const project = (name: string, options = {}) => ({
  extends: true as const,
  test: { name, root: `packages/${name}`, include: ["test/**/*.test.ts"], ...options }
})

// These start real processes and look at real clocks: one file at a time, when all others are done.
// Every process compiles the same modules: from the second on they find them compiled, which halves a start.
const alone = {
  fileParallelism: false,
  sequence: { groupOrder: 1 },
  env: { NODE_COMPILE_CACHE: fileURLToPath(new URL("node_modules/.cache/compiled", import.meta.url)) }
}
const processes = ["test/**/*.process.test.ts"]
const programs = [
  "test/{guide.process,myctl,myctl-fleet,order-saga,quickstart,sysreport}.test.ts",
  "test/backup-service*.test.ts"
]

export default [
  project("core"),
  project("supervisor"),
  project("workflow", { exclude: processes }),
  project("workflow-process", { root: "packages/workflow", include: processes, ...alone }),
  // What needs the tools of Go is run by `pnpm test:collector`.
  project("observability", { exclude: ["test/collector/**"] }),
  project("examples", { exclude: programs }),
  project("examples-process", { root: "packages/examples", include: programs, ...alone }),
  project("benchmarks", alone)
]
