/** How the samplers of the SDK stand to the one that decides when a span ends, `Sampler`. */
import * as Otel from "@opentelemetry/api"
import {
  AlwaysOffSampler,
  AlwaysOnSampler,
  ParentBasedSampler,
  type Sampler,
  SamplingDecision
} from "@opentelemetry/sdk-trace-base"
import type { Sampling } from "../OtlpSettings.ts"

/**
 * For the spans of Effect. With a ratio every span is made, for it is not known yet which will fail, and the sampler
 * that wraps the tracer chooses.
 */
export const ofEffect = (sampling: Sampling): Sampler =>
  sampling.ratio < 1 ? new AlwaysOnSampler() : ofParent(sampling, sampling.never)

/** For the spans of other instrumentation, which nobody looks at again: by the same rule, at their start. */
export const ofOthers = (sampling: Sampling): Sampler =>
  sampling.ratio < 1 ? new Ratio(sampling) : ofParent(sampling, sampling.never)

const ofParent = ({ parent }: Sampling, never: boolean): Sampler => {
  const root = never ? new AlwaysOffSampler() : new AlwaysOnSampler()
  return parent ? new ParentBasedSampler({ root }) : root
}

class Ratio implements Sampler {
  private readonly sampling: Sampling

  constructor(sampling: Sampling) {
    this.sampling = sampling
  }

  shouldSample(context: Otel.Context, traceId: string) {
    const parent = Otel.trace.getSpanContext(context)
    // A parent in this process is marked as sampled while its fate is open still.
    const isKept = this.sampling.parent && parent?.isRemote === true
      ? (parent.traceFlags & Otel.TraceFlags.SAMPLED) !== 0
      : Number.parseInt(traceId.slice(-13), 16) / 2 ** 52 < this.sampling.ratio
    return { decision: isKept ? SamplingDecision.RECORD_AND_SAMPLED : SamplingDecision.NOT_RECORD }
  }
}
