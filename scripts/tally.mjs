// A reporter for `.ci/run`: writes "<passed> <failed>" to the file `outputFile.tally` names.
// A skipped test, a suite that did not load and an unhandled error count as failed, and so does a run of no tests.
import { writeFileSync } from "node:fs"

export default class Tally {
  onInit(vitest) {
    this.file = vitest.config.outputFile.tally
  }

  onTestRunEnd(modules, unhandled) {
    const tests = modules.flatMap((module) => [...module.children.allTests()])
    const ended = (state) => tests.filter((test) => test.result().state === state)
    const suites = modules.flatMap((module) => [module, ...module.children.allSuites()])
    const broken = suites.filter((suite) => suite.errors().length > 0)
    const passed = ended("passed").length
    const failed = tests.length - passed + broken.length + unhandled.length + (tests.length === 0 ? 1 : 0)
    for (const test of tests.filter((test) => !["passed", "failed"].includes(test.result().state))) {
      console.log(`did not run: |${test.project.name}| ${test.module.relativeModuleId} > ${test.fullName}`)
    }
    if (failed > 0) process.exitCode = 1
    writeFileSync(this.file, `${passed} ${failed}\n`)
  }
}
