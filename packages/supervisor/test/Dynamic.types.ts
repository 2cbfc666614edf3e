/** What compiles and what does not, of dynamic, task and partition supervisors: read by the compiler alone. */
import type { Orchestrator, Routine } from "@effect-orchestra/core"
import {
  DynamicSupervisor,
  PartitionSupervisor,
  type SupervisorError,
  TaskSupervisor
} from "@effect-orchestra/supervisor"
import { Context, Effect, type Exit, Layer, type Scope, type Stream } from "effect"

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const is = <_T extends true>() => undefined

class Pool extends Context.Service<Pool, { readonly size: number }>()("types/Pool") {}
class Cache extends Context.Service<Cache, { readonly get: Effect.Effect<string, "gone"> }>()("types/Cache") {}

declare const scoped: Effect.Effect<number, "no", Pool | Scope.Scope>
declare const input: Stream.Stream<string, "broken", Cache>

type Refused = SupervisorError.MaxChildren | SupervisorError.SupervisorNotRunning

// A template says what its argument is, and what its children end with; each run has a scope of its own.
const spec = DynamicSupervisor.make({ name: "workers", child: (_: string) => scoped })
const started = DynamicSupervisor.start(spec)
is<
  Equals<
    typeof started,
    Effect.Effect<
      DynamicSupervisor.DynamicRef<string, number, "no">,
      SupervisorError.StartFailure,
      Pool | Scope.Scope | Orchestrator
    >
  >
>()
declare const ref: DynamicSupervisor.DynamicRef<string, number, "no">
const child = DynamicSupervisor.startChild(ref, "job")
is<Equals<typeof child, Effect.Effect<Routine.Routine<number, "no">, SupervisorError.StartFailure | Refused>>>()

// @ts-expect-error another argument than the template's
export const wrongArgument = DynamicSupervisor.startChild(ref, 1)

// @ts-expect-error dynamic children depend on nobody
DynamicSupervisor.make({ name: "workers", child: (_: string) => scoped, dependsOn: ["pool"] })

const consuming = DynamicSupervisor.consume(ref, input)
is<Equals<typeof consuming, Effect.Effect<void, "broken" | Refused, Cache>>>()

// @ts-expect-error elements that the template does not take
export const wrongElements = DynamicSupervisor.consume(ref, Effect.succeed(1))

// A task requires what its caller has, but for a scope.
declare const tasks: TaskSupervisor.TaskRef
const alone = TaskSupervisor.asyncNolink(tasks, scoped)
is<Equals<typeof alone, Effect.Effect<Routine.Routine<number, "no">, Refused, Pool>>>()
const linked = TaskSupervisor.async(tasks, scoped)
is<Equals<typeof linked, Effect.Effect<Routine.Routine<number, "no">, Refused, Pool | Scope.Scope>>>()

const values = TaskSupervisor.asyncStream(tasks, input, (element) => Effect.as(scoped, element.length))
is<
  Equals<typeof values, Stream.Stream<number, "no" | "broken" | SupervisorError.TaskTimeout | Refused, Pool | Cache>>
>()
const exits = TaskSupervisor.asyncStreamNolink(tasks, ["a"], () => scoped)
is<Equals<typeof exits, Stream.Stream<Exit.Exit<number, "no" | SupervisorError.TaskTimeout>, Refused, Pool>>>()

// A partition gives what its layer gives, and nothing else.
const shards = PartitionSupervisor.make({
  name: "shards",
  partitions: 2,
  child: () => Layer.effect(Cache, Effect.as(Pool, { get: Effect.succeed("") }))
})
is<Equals<typeof shards, PartitionSupervisor.PartitionSupervisor<never, never, Cache, Pool, "shards">>>()
declare const shard: PartitionSupervisor.PartitionRef<never, never, Cache>
const used = PartitionSupervisor.use(shard, "key", Cache, ({ get }) => get)
is<Equals<typeof used, Effect.Effect<string, "gone" | SupervisorError.ServiceUnavailable>>>()

// @ts-expect-error no partition gives that
export const notGiven = PartitionSupervisor.use(shard, "key", Pool, ({ size }) => Effect.succeed(size))

declare const runs: PartitionSupervisor.PartitionRef<number, "no", never>
const routine = PartitionSupervisor.routine(runs, 1)
is<Equals<typeof routine, Effect.Effect<Routine.Routine<number, "no">, SupervisorError.ServiceUnavailable>>>()
