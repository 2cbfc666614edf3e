/** `@datadog/pprof`, the optional package that knows who runs, and what lies on the heap. */
import * as Effect from "effect/Effect"
import type { Frame } from "./Pprof.ts"

/** The name of the package. In a variable, so that a bundler does not insist on having it. */
export const name = "@datadog/pprof"

type Int = number | bigint

/** A profile as the package hands it out: profile.proto as objects. */
export interface NativeProfile {
  readonly sampleType: ReadonlyArray<{ readonly type: Int }>
  readonly sample: ReadonlyArray<{
    readonly locationId: ReadonlyArray<Int>
    readonly value: ReadonlyArray<Int>
    readonly label: ReadonlyArray<{ readonly key: Int; readonly str: Int }>
  }>
  readonly location: ReadonlyArray<{
    readonly id: Int
    readonly line: ReadonlyArray<{ readonly functionId: Int; readonly line: Int }>
  }>
  readonly function: ReadonlyArray<{ readonly id: Int; readonly name: Int; readonly filename: Int }>
  readonly stringTable: { readonly strings: ReadonlyArray<string> }
  readonly durationNanos: Int
}

interface Context {
  readonly context?: { readonly [label: string]: string } | undefined
}

/** What is used of the package. */
export interface Native {
  readonly time: {
    readonly start: (options: {
      readonly intervalMicros: number
      readonly withContexts: boolean
      readonly collectCpuTime: boolean
    }) => void
    readonly stop: (
      restart?: boolean,
      labels?: (sample: { readonly context?: Context }) => { readonly [label: string]: string },
      lowCardinality?: Array<string>
    ) => NativeProfile
    readonly isStarted: () => boolean
    readonly setContext: (context: object) => void
  }
  readonly heap: {
    readonly start: (intervalBytes: number, stackDepth: number) => void
    readonly stop: () => void
    readonly profile: () => NativeProfile
  }
}

/** Fails where it is not installed, or has no binary for this platform. */
export const load: Effect.Effect<Native, unknown> = Effect.tryPromise(
  // What the package exports is more than this.
  (): Promise<Native> => import(/* @vite-ignore */ name)
)

/** What is in such a profile. A sample's `key` is the same for the same stack. */
export const loaded = (profile: NativeProfile) => {
  const { strings } = profile.stringTable
  const text = (index: Int) => strings[Number(index)] ?? ""
  const functions = new Map(profile.function.map((one) => [one.id, one]))
  const locations = new Map(profile.location.map((one) => [one.id, one]))

  function* samples(frameAt: (name: string, url: string, line: number) => Frame) {
    const frames = new Map<Int, Frame>()
    const frameOf = (id: Int) => {
      let frame = frames.get(id)
      if (frame === undefined) {
        const line = locations.get(id)?.line[0]
        const called = line === undefined ? undefined : functions.get(line.functionId)
        frame = frameAt(text(called?.name ?? 0), text(called?.filename ?? 0), Number(line?.line ?? 0))
        frames.set(id, frame)
      }
      return frame
    }
    for (const { label, locationId, value } of profile.sample) {
      yield {
        key: locationId.join(),
        stack: locationId.map(frameOf),
        values: value.map(Number),
        labels: Object.fromEntries(label.map(({ key, str }) => [text(key), text(str)]))
      }
    }
  }

  return {
    samples,
    /** At which index the values of this type stand. */
    typeOf: (name: string): number | undefined => {
      const index = profile.sampleType.findIndex(({ type }) => text(type) === name)
      return index === -1 ? undefined : index
    }
  }
}
