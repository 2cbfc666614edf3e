/** What compiles and what does not: read by the compiler alone. */
import { Group, Routine } from "@effect-orchestra/core"
import { Context, Effect } from "effect"

class Db extends Context.Service<Db, { readonly n: number }>()("types/Db") {}

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const is = <_T extends true>() => undefined

// The errors of the tasks join those of the body; what they require, but for their scope, is required.
const mixed = Group.run((group) =>
  Effect.gen(function*() {
    const first = yield* Group.fork(group, Effect.as(Effect.fail("a" as const), 1))
    yield* Effect.addFinalizer(() => Effect.void).pipe(Group.fork(group))
    yield* Effect.flatMap(Db, () => Effect.fail("b" as const)).pipe(Group.fork(group, { name: "late" }))
    return yield* Routine.join(first)
  })
)
is<Equals<typeof mixed, Effect.Effect<number, "a" | "b", Db>>>()

// @ts-expect-error a fork belongs into a run
Effect.runPromise(Effect.suspend(() => Group.fork(undefined as never, Effect.void)))

export { mixed }
