/**
 * What runs, how it fares and why it restarted: metrics, a JSON API, a live page, and the rules that keep them private.
 *
 * @since 0.1.0
 */
export * as Api from "./Api.ts"
export { Feed } from "./Feed.ts"
export * as Meter from "./Meter.ts"
export * as MetricTable from "./MetricTable.ts"
export * as Prometheus from "./Prometheus.ts"
export * as Security from "./Security.ts"
export * as Server from "./Server.ts"
export { Telemetry } from "./Telemetry.ts"
