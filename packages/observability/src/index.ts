/**
 * What runs, how it fares and why it restarted: metrics, a JSON API, a live page, and the rules that keep them private.
 *
 * @since 0.1.0
 */
export * as Access from "./Access.ts"
export * as Actions from "./Actions.ts"
export * as Api from "./Api.ts"
export * as Attributes from "./Attributes.ts"
export { Charts } from "./Charts.ts"
export { EventLog } from "./EventLog.ts"
export { Feed } from "./Feed.ts"
export * as Logs from "./Logs.ts"
export * as Meter from "./Meter.ts"
export { Metering } from "./Metering.ts"
export * as MetricTable from "./MetricTable.ts"
export * as Otlp from "./Otlp.ts"
export * as OtlpSettings from "./OtlpSettings.ts"
export * as Profiler from "./Profiler.ts"
export * as Prometheus from "./Prometheus.ts"
export * as Sampler from "./Sampler.ts"
export * as Security from "./Security.ts"
export * as Server from "./Server.ts"
export * as Session from "./Session.ts"
export { Telemetry } from "./Telemetry.ts"
export * as Token from "./Token.ts"
export * as Traces from "./Traces.ts"
