/**
 * For tests of programs that are built on this package.
 *
 * @since 0.1.0
 */
export { atEveryOperation } from "./Interruption.ts"
