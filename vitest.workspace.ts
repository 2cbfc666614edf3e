/** The test projects, one for each package, named like their folders. */
const project = (name: string, options = {}) => ({
  extends: true as const,
  test: { name, root: `packages/${name}`, include: ["test/**/*.test.ts"], ...options }
})

// These start real processes and look at real clocks: one file at a time, when all others are done.
const alone = { fileParallelism: false, sequence: { groupOrder: 1 } }

export default [
  project("core"),
  project("supervisor"),
  // What needs the tools of Go is run by `pnpm test:collector`.
  project("observability", { exclude: ["test/collector/**"] }),
  project("examples", alone),
  project("benchmarks", alone)
]
