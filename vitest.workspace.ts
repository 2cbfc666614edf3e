/** The test projects, one for each package, named like their folders. */
const project = (name: string) => ({
  extends: true as const,
  test: { name, root: `packages/${name}`, include: ["test/**/*.test.ts"] }
})

export default [
  project("core"),
  project("supervisor"),
  project("observability"),
  project("examples"),
  project("benchmarks")
]
