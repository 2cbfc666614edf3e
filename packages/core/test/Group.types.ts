/** What compiles and what does not: read by the compiler alone. */
import { type CoreError, Group, Joiner, Routine } from "@effect-orchestra/core"
import { Context, Effect, type Exit, type Option, type Scope, type Stream } from "effect"

class Db extends Context.Service<Db, { readonly n: number }>()("types/Db") {}

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const is = <_T extends true>() => undefined

const num: Effect.Effect<number, "a"> = Effect.as(Effect.fail("a" as const), 1)
const text: Effect.Effect<string, "b", Db> = Effect.flatMap(Db, () => Effect.fail("b" as const))

const both = (group: Group.Group) =>
  Effect.gen(function*() {
    yield* Group.fork(group, num)
    yield* Group.fork(group, text)
    return true
  })

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

const noTasks = Group.run(() => Effect.as(Effect.fail("body" as const), 1))
is<Equals<typeof noTasks, Effect.Effect<number, "body">>>()

// Each joiner computes its own result and errors.
const failFast = Group.run(both, { joiner: Joiner.failFast })
is<Equals<typeof failFast, Effect.Effect<boolean, "a" | "b", Db>>>()

const all = Group.run(both, { joiner: Joiner.all })
is<Equals<typeof all, Effect.Effect<ReadonlyArray<string | number>, "a" | "b", Db>>>()

const collect = Group.run(both, { joiner: Joiner.collect })
is<Equals<typeof collect, Effect.Effect<ReadonlyArray<Exit.Exit<string | number, "a" | "b">>, never, Db>>>()

const firstSuccess = Group.run(both, { joiner: Joiner.firstSuccess })
is<Equals<typeof firstSuccess, Effect.Effect<string | number, CoreError.NoSuccess<"a" | "b">, Db>>>()

const firstExit = Group.run(both, { joiner: Joiner.firstExit })
is<Equals<typeof firstExit, Effect.Effect<string | number, "a" | "b" | CoreError.NoSuccess<never>, Db>>>()

const quorum = Group.run(both, { joiner: Joiner.quorum(2) })
is<Equals<typeof quorum, Effect.Effect<ReadonlyArray<string | number>, CoreError.QuorumUnreachable<"a" | "b">, Db>>>()

const partial = Group.run(both, { joiner: Joiner.partial("1 second") })
is<Equals<typeof partial, Effect.Effect<Joiner.PartialResult<string | number, "a" | "b">, never, Db>>>()

// The error of the body stays beside that of the joiner.
const failing = Group.run((group) => Effect.andThen(both(group), Effect.fail("body" as const)), {
  joiner: Joiner.collect
})
is<Equals<typeof failing, Effect.Effect<ReadonlyArray<Exit.Exit<string | number, "a" | "b">>, "body", Db>>>()

// One of your own takes the tasks that it says it takes.
const sum = Joiner.make<number, "a", number, "odd">(() => {
  let total = 0
  return {
    onExit(_, exit) {
      total += exit._tag === "Success" ? exit.value : 0
      return "continue"
    },
    result: () => total % 2 === 0 ? Effect.succeed(total) : Effect.fail("odd" as const)
  }
})
const summed = Group.run((group) => Group.fork(group, num), { joiner: sum })
is<Equals<typeof summed, Effect.Effect<number, "odd">>>()

const refused = Group.run(both, { joiner: sum })
is<Equals<Effect.Success<typeof refused>, Joiner.TaskNotAccepted<string | number>>>()

const refusedError = Group.run((group) => Group.fork(group, Effect.as(Effect.fail("b" as const), 1)), { joiner: sum })
is<Equals<Effect.Success<typeof refusedError>, Joiner.TaskNotAccepted<"b">>>()

const refusedValue = Group.run((group) => Group.fork(group, Effect.succeed("text")), { joiner: sum })
is<Equals<Effect.Success<typeof refusedValue>, Joiner.TaskNotAccepted<string>>>()

// A deadline is an error where there is one.
const bounded = Group.run(both, { deadline: "1 second" })
is<Equals<typeof bounded, Effect.Effect<boolean, "a" | "b" | CoreError.DeadlineExceeded, Db>>>()

const boundedAll = Group.run(both, { joiner: Joiner.all, deadline: 1000 })
is<
  Equals<
    typeof boundedAll,
    Effect.Effect<ReadonlyArray<string | number>, "a" | "b" | CoreError.DeadlineExceeded, Db>
  >
>()

// Loops, helpers, tasks that fork into their own group, and groups within groups.
const loop = Group.run((group) => Effect.forEach([1, 2], () => Group.fork(group, num), { discard: true }))
is<Equals<typeof loop, Effect.Effect<void, "a">>>()

const nestedFork = Group.run(
  (group) => Effect.asVoid(Group.fork(group, Effect.asVoid(Group.fork(group, Effect.fail("c" as const))))),
  {
    joiner: Joiner.collect
  }
)
is<Equals<typeof nestedFork, Effect.Effect<ReadonlyArray<Exit.Exit<void, "c">>>>>()

const nested = Group.run((outer) =>
  Effect.flatMap(
    Group.run((inner) => Effect.as(Group.fork(inner, num), "inner" as const)),
    (value) => Effect.as(Group.fork(outer, text), value)
  )
)
is<Equals<typeof nested, Effect.Effect<"inner", "a" | "b", Db>>>()

const tried = Group.run((group) => Group.tryFork(group, num))
is<Equals<typeof tried, Effect.Effect<Option.Option<Routine.Routine<number, "a">>, "a">>>()

// What a task fails with before it is ready is the caller's to handle.
const ready = Group.run((group) =>
  Effect.catch(Group.start(group, num), (error) => {
    is<Equals<typeof error, "a" | CoreError.NotReady>>()
    return Effect.succeed(undefined)
  })
)
is<Equals<typeof ready, Effect.Effect<Routine.Routine<number, "a"> | undefined, "a">>>()

// Keys and types stay.
const tuple = Group.all([num, text])
is<Equals<typeof tuple, Effect.Effect<[number, string], "a" | "b", Db>>>()
const record = Group.all({ n: num, t: text }, { deadline: "1 second" })
is<
  Equals<typeof record, Effect.Effect<{ n: number; t: string }, "a" | "b" | CoreError.DeadlineExceeded, Db>>
>()
const array = Group.all([1, 2].map(() => num))
is<Equals<typeof array, Effect.Effect<Array<number>, "a">>>()
const set = Group.all(new Set([num]))
is<Equals<typeof set, Effect.Effect<Array<number>, "a">>>()
const settled = Group.settled({ n: num, t: text })
is<Equals<typeof settled, Effect.Effect<{ n: Exit.Exit<number, "a">; t: Exit.Exit<string, "b"> }, never, Db>>>()
const settledTuple = Group.settled([num, text])
is<Equals<typeof settledTuple, Effect.Effect<[Exit.Exit<number, "a">, Exit.Exit<string, "b">], never, Db>>>()

const streamed = Group.stream(both, { concurrency: 2 })
is<Equals<typeof streamed, Stream.Stream<string | number, "a" | "b", Db>>>()

// A long-lived group says what it takes, and its operations fail with its error.
const long = Group.make<number, "a">()
is<Equals<typeof long, Effect.Effect<Group.LongGroup<number, "a">, never, Scope.Scope>>>()
declare const numbers: Group.LongGroup<number, "a">
const forked = Group.fork(numbers, Effect.succeed(1 as const))
is<Equals<typeof forked, Effect.Effect<Routine.Routine<1, never>, "a" | CoreError.GroupClosed>>>()
const piped = num.pipe(Group.fork(numbers, { name: "n" }))
is<Equals<typeof piped, Effect.Effect<Routine.Routine<number, "a">, "a" | CoreError.GroupClosed>>>()
const joined = Group.join(numbers)
is<Equals<typeof joined, Effect.Effect<void, "a" | CoreError.GroupClosed>>>()
const values = Effect.flatMap(Group.make<number, "a", Joiner.All>({ joiner: Joiner.all }), Group.join)
is<Equals<typeof values, Effect.Effect<ReadonlyArray<number>, "a" | CoreError.GroupClosed, Scope.Scope>>>()

declare const group: Group.Group

// @ts-expect-error a fork belongs into a run
Effect.runPromise(Group.fork(group, Effect.void))

// @ts-expect-error its tasks are numbers
Effect.runPromise(Effect.scoped(Group.fork(numbers, Effect.succeed("text"))))

// @ts-expect-error a joiner other than the default is among the types
Effect.scoped(Group.make<number, "a">({ joiner: Joiner.all }))

// @ts-expect-error Did you mean to write 'concurrency'?
Group.run(both, { concurency: 2 })

// @ts-expect-error only a group with a body can end with it
Group.make({ onBodyEnd: "halt" })

export { all, mixed }
