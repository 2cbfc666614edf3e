/** CPU profiles: recorded by the engine's own profiler, or by `@datadog/pprof`, which also knows who runs. */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Profiler as V8 } from "node:inspector"
import { fileURLToPath } from "node:url"
import type { Metering } from "../Metering.ts"
import { loaded, type Native, type NativeProfile } from "./NativeProfiler.ts"
import { type Frame, Profile } from "./Pprof.ts"

/** A look at the stack every 10 ms, as Go does: 100 a second cost less than one per cent. */
export const intervalMicros = 10_000

/** What is being recorded, until the scope is closed. `stop` may be called once. */
export interface Recording<A> {
  readonly stop: Effect.Effect<A, unknown>
}

/** What the engine's profiler records, in the form that Chrome DevTools reads. */
export const inspector: Effect.Effect<Recording<V8.Profile>, unknown, Scope.Scope> = Effect.gen(function*() {
  // Not every Node has it, and who never profiles should not notice.
  const { Session } = yield* Effect.tryPromise(() => import("node:inspector/promises"))
  const session = yield* Effect.acquireRelease(
    Effect.try(() => {
      const session = new Session()
      session.connect()
      return session
    }),
    // Whatever it records ends with it.
    (session) => Effect.sync(() => session.disconnect())
  )
  yield* Effect.tryPromise(() => session.post("Profiler.enable"))
  yield* Effect.tryPromise(() => session.post("Profiler.setSamplingInterval", { interval: intervalMicros }))
  yield* Effect.tryPromise(() => session.post("Profiler.start"))
  return { stop: Effect.map(Effect.tryPromise(() => session.post("Profiler.stop")), ({ profile }) => profile) }
})

const types = [["samples", "count"], ["cpu", "nanoseconds"]] as const

const profileOf = (program: string, durationMillis: number) =>
  Effect.map(Clock.currentTimeMillis, (now) =>
    new Profile({
      types,
      program,
      timeMillis: now - durationMillis,
      durationMillis,
      period: { type: types[1], value: intervalMicros * 1000 }
    }))

/** How many samples are written before other fibers run. */
const slice = 500

/** A sample counts for the time until the next one; those when the process had nothing to do are left out. */
export const fromInspector = Effect.fnUntraced(function*(recorded: V8.Profile, program: string) {
  const { endTime, nodes, samples = [], startTime, timeDeltas = [] } = recorded
  const profile = yield* profileOf(program, (endTime - startTime) / 1000)
  const own = new Map<number, { samples: number; micros: number }>()
  let at = startTime
  for (const [i, id] of samples.entries()) {
    at += timeDeltas[i] ?? 0
    const micros = Math.max(0, timeDeltas[i + 1] ?? endTime - at)
    const node = own.get(id)
    if (node === undefined) own.set(id, { samples: 1, micros })
    else {
      node.samples++
      node.micros += micros
    }
  }
  const parents = new Map<number, V8.ProfileNode>()
  for (const node of nodes) for (const child of node.children ?? []) parents.set(child, node)
  const frames = new Map<V8.ProfileNode, Frame>()
  const frameOf = (node: V8.ProfileNode) => {
    const { functionName, lineNumber, url } = node.callFrame
    const frame = frames.get(node) ?? frameAt(functionName, url, lineNumber + 1)
    frames.set(node, frame)
    return frame
  }
  let written = 0
  for (const node of nodes) {
    const sampled = own.get(node.id)
    if (sampled === undefined || node.callFrame.functionName === "(idle)") continue
    const stack: Array<Frame> = []
    // The root stands for the process.
    for (let at = node, up = parents.get(at.id); up !== undefined; at = up, up = parents.get(at.id)) {
      stack.push(frameOf(at))
    }
    profile.add(stack, [sampled.samples, Math.round(sampled.micros * 1000)])
    if (++written % slice === 0) yield* Effect.yieldNow
  }
  return profile
})

/** What `@datadog/pprof` records, each sample with the routine that ran. */
export const native = Effect.fnUntraced(function*(
  { time }: Native,
  onSlice: Metering["Service"]["onSlice"] | undefined
): Effect.fn.Return<Recording<NativeProfile>, unknown, Scope.Scope> {
  yield* Effect.acquireRelease(
    Effect.try(() => time.start({ intervalMicros, withContexts: true, collectCpuTime: true })),
    () => Effect.sync(() => time.isStarted() && time.stop())
  )
  if (onSlice !== undefined) {
    const contexts = new Map<string, { readonly routine: string }>()
    const nobody = {}
    yield* onSlice((running) => {
      // What a slice calls must not throw, and the profiler does when it has stopped.
      if (!time.isStarted()) return
      if (running === undefined) return time.setContext(nobody)
      const routine = running.name
      let context = contexts.get(routine)
      if (context === undefined) contexts.set(routine, context = { routine })
      time.setContext(context)
    })
  }
  const stop = Effect.try(() => time.stop(false, ({ context }) => ({ ...context?.context }), ["routine"]))
  return { stop }
})

/** Time on the CPU where the platform tells it, else the time that passed. */
export const fromNative = Effect.fnUntraced(function*(recorded: NativeProfile, program: string) {
  const profile = yield* profileOf(program, Number(recorded.durationNanos) / 1e6)
  const { samples, typeOf } = loaded(recorded)
  const cpu = typeOf("cpu") ?? typeOf("wall") ?? 1
  const taken = typeOf("sample") ?? 0
  const added = new Map<string, { stack: ReadonlyArray<Frame>; values: [number, number]; labels: Labels }>()
  let seen = 0
  for (const { key, labels, stack, values } of samples(frameAt)) {
    if (++seen % slice === 0) yield* Effect.yieldNow
    if (stack[0]?.name === "(idle)") continue
    const routine = labels["routine"]
    const id = `${key} ${routine}`
    const same = added.get(id)
    const [count, nanos] = [values[taken] ?? 0, values[cpu] ?? 0]
    if (same === undefined) added.set(id, { stack, values: [count, nanos], labels })
    else {
      same.values[0] += count
      same.values[1] += nanos
    }
  }
  for (const { labels, stack, values } of added.values()) profile.add(stack, values, labels)
  return profile
})

type Labels = { readonly [key: string]: string }

/** Functions without a name are told apart by where they stand: readers add up what has the same name. */
export const frameAt = (name: string, url: string, line: number): Frame => {
  const file = url.startsWith("file:") ? pathOf(url) : url
  const isNamed = name !== "" && !name.startsWith("(anonymous")
  const place = file === "" ? "" : ` ${file.slice(file.lastIndexOf("/") + 1)}:${line}`
  return { name: isNamed ? name : `(anonymous)${place}`, file, line: Math.max(0, line) }
}

const pathOf = (url: string): string => {
  try {
    return fileURLToPath(url)
  } catch {
    return url
  }
}
