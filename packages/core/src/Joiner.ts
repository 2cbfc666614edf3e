/**
 * What the ends of a group's tasks add up to: the result of `Group.run`, and when it is known early.
 *
 * A joiner is a value that any number of runs may share: each run makes its own state. When a joiner knows enough, what
 * still runs is interrupted and awaited before the run returns. Tasks that nobody needs any more count as unfinished,
 * unless they ended by themselves first. Defects fail the run under every joiner but `collect` and `partial`, which hand
 * back whole exits; a failed body fails the run under all of them.
 *
 * **Example** (The first success wins, the rest is not needed)
 *
 * ```ts import.meta.vitest
 * import { Group, Joiner } from "@effect-orchestra/core"
 * import { Effect } from "effect"
 *
 * const fastest = Group.run((group) =>
 *   Effect.gen(function*() {
 *     yield* Group.fork(group, Effect.never, { name: "hanging mirror" })
 *     yield* Group.fork(group, Effect.fail("unreachable"), { name: "broken mirror" })
 *     yield* Group.fork(group, Effect.succeed("the file"), { name: "mirror" })
 *   }), { joiner: Joiner.firstSuccess })
 *
 * await Effect.runPromise(fastest) // => "the file"
 * ```
 *
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import { NoSuccess, QuorumUnreachable } from "./CoreError.ts"
import { millisOf, positive } from "./Kernel.ts"

const TypeId = "~effect-orchestra/core/Joiner"

/**
 * How a joiner computes types: from those of the tasks (`A`, `E`) and of the body's value (`B`) to those of the result.
 *
 * @category models
 * @since 0.1.0
 */
export interface JoinerLambda {
  readonly A: unknown
  readonly E: unknown
  readonly B: unknown
  readonly Out: unknown
  readonly Err: unknown
}

/** @since 0.1.0 */
export type Apply<L extends JoinerLambda, A, E, B> = L & { readonly A: A; readonly E: E; readonly B: B }

/** @since 0.1.0 */
export type Out<L extends JoinerLambda, A, E, B> = Apply<L, A, E, B>["Out"]

/** @since 0.1.0 */
export type Err<L extends JoinerLambda, A, E, B> = Apply<L, A, E, B>["Err"]

/** @since 0.1.0 */
export interface FailFast extends JoinerLambda {
  readonly Out: this["B"]
  readonly Err: this["E"]
}

/** @since 0.1.0 */
export interface All extends JoinerLambda {
  readonly Out: ReadonlyArray<this["A"]>
  readonly Err: this["E"]
}

/** @since 0.1.0 */
export interface Collect extends JoinerLambda {
  readonly Out: ReadonlyArray<Exit.Exit<this["A"], this["E"]>>
  readonly Err: never
}

/** @since 0.1.0 */
export interface FirstSuccess extends JoinerLambda {
  readonly Out: this["A"]
  readonly Err: NoSuccess<this["E"]>
}

/** @since 0.1.0 */
export interface FirstExit extends JoinerLambda {
  readonly Out: this["A"]
  readonly Err: this["E"] | NoSuccess<never>
}

/** @since 0.1.0 */
export interface Quorum extends JoinerLambda {
  readonly Out: ReadonlyArray<this["A"]>
  readonly Err: QuorumUnreachable<this["E"]>
}

/** @since 0.1.0 */
export interface Partial extends JoinerLambda {
  readonly Out: PartialResult<this["A"], this["E"]>
  readonly Err: never
}

/** @since 0.1.0 */
export interface Custom<A, E, Result, Failure> extends JoinerLambda {
  readonly Out: [this["A"]] extends [A] ? [this["E"]] extends [E] ? Result : TaskNotAccepted<this["E"]>
    : TaskNotAccepted<this["A"]>
  readonly Err: Failure
}

/**
 * What a run returns when a task is not of the type that its joiner takes.
 *
 * @category models
 * @since 0.1.0
 */
export interface TaskNotAccepted<out T> {
  readonly "the joiner takes no task of this type": T
}

/**
 * What there was when the time was up: each list in the order the tasks were forked, `index` being the place in it.
 *
 * @category models
 * @since 0.1.0
 */
export interface PartialResult<out A, out E> {
  readonly succeeded: ReadonlyArray<JoinerTask & { readonly value: A }>
  readonly failed: ReadonlyArray<JoinerTask & { readonly cause: Cause.Cause<E> }>
  readonly unfinished: ReadonlyArray<JoinerTask>
}

/**
 * A task as a joiner sees it: `index` is its place in the order of forks.
 *
 * @category models
 * @since 0.1.0
 */
export interface JoinerTask {
  readonly index: number
  readonly name: string
}

/**
 * A task with how it ended; `None` for one that was interrupted because the group stopped.
 *
 * @category models
 * @since 0.1.0
 */
export interface JoinerResult<out A, out E> extends JoinerTask {
  readonly exit: Option.Option<Exit.Exit<A, E>>
}

/**
 * The group as a joiner sees it: how many tasks run or wait for a slot, and whether its body may still fork.
 *
 * @category models
 * @since 0.1.0
 */
export interface JoinerGroup {
  readonly path: string
  readonly remaining: number
  readonly bodyEnded: boolean
}

/**
 * Whether the group goes on, or what still runs is not needed.
 *
 * @category models
 * @since 0.1.0
 */
export type Verdict = "continue" | "stop"

/**
 * The state of a joiner in one run. `onFork`, `onExit`, `onBodyEnd` and `onTimeout` are called synchronously, one at a
 * time, and must do nothing but decide; after the first `"stop"` none is called again. `result` is called when
 * everything has ended; the body's value is `None` when it was interrupted.
 *
 * @category models
 * @since 0.1.0
 */
export interface JoinerState<in A, in E, in B, out Result, out Failure> {
  onFork?(task: JoinerTask): void
  onExit(task: JoinerTask, exit: Exit.Exit<A, E>, group: JoinerGroup): Verdict
  onBodyEnd?(group: JoinerGroup): Verdict
  onTimeout?(group: JoinerGroup): Verdict
  result(
    body: Option.Option<B>,
    tasks: ReadonlyArray<JoinerResult<A, E>>,
    group: JoinerGroup
  ): Effect.Effect<Result, Failure>
}

/**
 * What the ends of a group's tasks add up to.
 *
 * @category models
 * @since 0.1.0
 */
export interface Joiner<in out L extends JoinerLambda> extends Policy {
  readonly [TypeId]: (_: L) => L
}

/**
 * What a group does with its joiner.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export interface Policy {
  /** Makes the state of one run; without one the body's value is the result. */
  readonly make: (() => JoinerState<never, never, never, unknown, unknown>) | undefined
  /** Whether the first failure of a task fails the run. */
  readonly failFast: boolean
  /** Whether a defect of a task is a result like any other. */
  readonly keepsDefects: boolean
  /** Whether `result` looks at the tasks. */
  readonly keepsTasks: boolean
  /** Milliseconds until `onTimeout`. */
  readonly timeout: number
}

/**
 * How a joiner of your own treats time and defects.
 *
 * @category models
 * @since 0.1.0
 */
export interface JoinerOptions {
  /** When `onTimeout` is called, from the start of the group; without one the group stops then. Default: never. */
  readonly timeout?: Duration.Input | undefined
  /** Whether a defect of a task fails the run (`"fail"`, the default) or goes to `onExit` (`"keep"`). */
  readonly defects?: "fail" | "keep" | undefined
}

const joiner = <L extends JoinerLambda>(make: Policy["make"], policy: globalThis.Partial<Policy> = {}): Joiner<L> =>
  // The lambda is there for the compiler alone.
  ({ make, failFast: false, keepsDefects: false, keepsTasks: true, timeout: Infinity, ...policy }) as Joiner<L>

/**
 * The body's value, or the first failure of the body or of a task, which stops the rest. What `run` does without a
 * joiner.
 *
 * @category joiners
 * @since 0.1.0
 */
export const failFast: Joiner<FailFast> = joiner(undefined, { failFast: true, keepsTasks: false })

/**
 * The values of all tasks in fork order, or the first failure, which stops the rest. A task that was stopped by
 * `Routine.stop` has no value: its interruption is a failure here.
 *
 * @category joiners
 * @since 0.1.0
 */
export const all: Joiner<All> = joiner(() => ({
  onExit: () => "continue",
  result: (_, tasks) =>
    Effect.succeed(
      tasks.flatMap(({ exit }) => Option.isSome(exit) && Exit.isSuccess(exit.value) ? [exit.value.value] : [])
    )
}), { failFast: true })

/**
 * The exits of all tasks in fork order, defects and interruptions included. No failure of a task stops the others.
 *
 * @category joiners
 * @since 0.1.0
 */
export const collect: Joiner<Collect> = joiner(() => ({
  onExit: () => "continue",
  result: (_, tasks) => Effect.succeed(tasks.map(({ exit }) => Option.getOrElse(exit, () => Exit.interrupt())))
}), { keepsDefects: true })

/**
 * The value of the first task that succeeds, which stops the rest. When all have failed, or there is none, `NoSuccess`
 * with every cause.
 *
 * @category joiners
 * @since 0.1.0
 */
export const firstSuccess: Joiner<FirstSuccess> = joiner(() => {
  let winner: Exit.Success<unknown> | undefined = undefined
  return {
    onExit(_, exit) {
      if (Exit.isFailure(exit)) return "continue"
      winner = exit
      return "stop"
    },
    result: (_, tasks, group) => winner ?? Effect.fail(new NoSuccess({ group: group.path, failures: causes(tasks) }))
  }
})

/**
 * The end of the first task that ends, success or failure, which stops the rest: an actor of a run-group returns, and
 * all go. `NoSuccess` when there was no task.
 *
 * @category joiners
 * @since 0.1.0
 */
export const firstExit: Joiner<FirstExit> = joiner(() => {
  let first: Exit.Exit<unknown, unknown> | undefined = undefined
  return {
    onExit(_, exit) {
      first = exit
      return "stop"
    },
    result: (_, __, group) => first ?? Effect.fail(new NoSuccess({ group: group.path, failures: [] }))
  }
}, { keepsTasks: false })

/**
 * The values of the first `n` tasks that succeed, in fork order; their end stops the rest. Fails with
 * `QuorumUnreachable`, and stops the rest, once the body has ended and too few tasks are left. `n` is a positive
 * integer.
 *
 * @category joiners
 * @since 0.1.0
 */
export const quorum = (n: number): Joiner<Quorum> => {
  positive("a quorum", n)
  return joiner(() => {
    const won: Array<{ readonly index: number; readonly value: unknown }> = []
    const judge = ({ bodyEnded, remaining }: JoinerGroup): Verdict =>
      won.length === n || bodyEnded && won.length + remaining < n ? "stop" : "continue"
    return {
      onExit({ index }, exit: Exit.Exit<unknown, unknown>, group) {
        if (Exit.isSuccess(exit)) won.push({ index, value: exit.value })
        return judge(group)
      },
      onBodyEnd: judge,
      result: (_, tasks, { path }) =>
        won.length === n
          ? Effect.succeed(won.sort((a, b) => a.index - b.index).map(({ value }) => value))
          : Effect.fail(
            new QuorumUnreachable({ group: path, needed: n, reached: won.length, failures: causes(tasks) })
          )
    }
  })
}

/**
 * What has ended after `duration`, sorted into values, causes (defects included) and what is unfinished, which is
 * stopped. Returns earlier when everything has ended.
 *
 * @category joiners
 * @since 0.1.0
 */
export const partial = (duration: Duration.Input): Joiner<Partial> =>
  joiner(() => ({
    onExit: () => "continue",
    result(_, tasks) {
      const succeeded: Array<JoinerTask & { readonly value: unknown }> = []
      const failed: Array<JoinerTask & { readonly cause: Cause.Cause<unknown> }> = []
      const unfinished: Array<JoinerTask> = []
      for (const { exit, index, name } of tasks) {
        if (Option.isNone(exit)) unfinished.push({ index, name })
        else if (Exit.isSuccess(exit.value)) succeeded.push({ index, name, value: exit.value.value })
        else failed.push({ index, name, cause: exit.value.cause })
      }
      return Effect.succeed({ succeeded, failed, unfinished })
    }
  }), { keepsDefects: true, timeout: millisOf("the time of a partial result", duration) })

/**
 * A joiner of your own. `make` makes the state of one run; the types that its `onExit` takes are those of the tasks it
 * accepts. One that throws fails the run with that defect.
 *
 * @category joiners
 * @since 0.1.0
 */
export const make = <A, E, Result, Failure = never>(
  make: () => JoinerState<A, E, unknown, Result, Failure>,
  { defects, timeout }: JoinerOptions = {}
): Joiner<Custom<A, E, Result, Failure>> =>
  joiner(make, {
    keepsDefects: defects === "keep",
    timeout: timeout === undefined ? Infinity : millisOf("the timeout of a joiner", timeout)
  })

const causes = (tasks: ReadonlyArray<JoinerResult<unknown, unknown>>): ReadonlyArray<Cause.Cause<never>> =>
  tasks.flatMap(({ exit }) =>
    // Their error type is known to the caller of `run` alone.
    Option.isSome(exit) && Exit.isFailure(exit.value) ? [exit.value.cause as Cause.Cause<never>] : []
  )
