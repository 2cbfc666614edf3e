/**
 * For tests of programs that are built on this package.
 *
 * @since 0.1.0
 */
export * as Chaos from "./Chaos.ts"
export { atEveryOperation } from "./Interruption.ts"
export { assertNoLeaks, type LeakOptions } from "./Leak.ts"
export { type Recorder, recorder } from "./Recorder.ts"
export { SeededRandom } from "./SeededRandom.ts"
export { SeededScheduler, type SeededSchedulerOptions } from "./SeededScheduler.ts"
export { type SteerableChild, steerableChild, type SteerableChildOptions } from "./SteerableChild.ts"
export * as TestError from "./TestError.ts"
export * as TestOrchestra from "./TestOrchestra.ts"
