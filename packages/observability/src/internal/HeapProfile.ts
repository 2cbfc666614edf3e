/** What lies on the heap, as `@datadog/pprof` samples it. */
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { frameAt } from "./CpuProfile.ts"
import { loaded, type Native } from "./NativeProfiler.ts"
import { Profile } from "./Pprof.ts"

const intervalBytes = 512 * 1024
const stackDepth = 64

/** There is one sampler in a process: the first begins, the last ends. */
let users = 0

const types = [["inuse_objects", "count"], ["inuse_space", "bytes"]] as const

/** Samples as long as the scope is open, where the package can be had. */
export const start = Effect.fnUntraced(function*(
  loading: Effect.Effect<Option.Option<Native>>
): Effect.fn.Return<
  { readonly profile: (program: string, timeMillis: number) => Effect.Effect<Profile, unknown> } | undefined,
  never,
  Scope.Scope
> {
  const found = yield* loading
  if (found._tag === "None") return undefined
  const { heap } = found.value
  // Somebody else in the process may sample already: then it is his sampler that is read, and his to stop.
  yield* Effect.acquireRelease(
    Effect.option(Effect.try(() => {
      if (users === 0) heap.start(intervalBytes, stackDepth)
      users++
    })),
    (begun) =>
      Effect.sync(() => {
        if (begun._tag === "Some" && --users === 0) heap.stop()
      })
  )
  return {
    profile: Effect.fnUntraced(function*(program: string, timeMillis: number) {
      const recorded = yield* Effect.try(() => heap.profile())
      const profile = new Profile({ types, program, timeMillis, period: { type: types[1], value: intervalBytes } })
      const { samples, typeOf } = loaded(recorded)
      const objects = typeOf("inuse_objects") ?? typeOf("objects") ?? 0
      const space = typeOf("inuse_space") ?? typeOf("space") ?? 1
      let written = 0
      for (const { stack, values } of samples(frameAt)) {
        profile.add(stack, [values[objects] ?? 0, values[space] ?? 0])
        if (++written % 500 === 0) yield* Effect.yieldNow
      }
      return profile
    })
  }
})
