/**
 * Who is told what happens inside, as it happens and without an event being made of it.
 *
 * An event says where and when in plain data, which costs more than much of what it tells. Whoever only counts, or gives
 * a run its span, observes instead: it gets the nodes themselves, synchronously, most of the time within a decision of
 * the writer. It does little, it never waits, and runs nothing of the user's. One that throws is logged and removed.
 *
 * Without an observer nothing here costs more than a branch.
 *
 * **Example** (How long a sender waited for room)
 *
 * ```ts import.meta.vitest
 * import { Mailbox, Orchestrator } from "@effect-orchestra/core"
 * import { observe } from "@effect-orchestra/core/Observer"
 * import { Effect } from "effect"
 *
 * const waits: Array<string> = []
 * const program = Effect.gen(function*() {
 *   const { kernel } = yield* Orchestrator
 *   yield* observe(kernel, { waited: (node, operation) => void waits.push(`${operation} ${node.name}`) })
 *   const mailbox = yield* Mailbox.make<string>({ name: "letters", capacity: 1 })
 *   yield* Mailbox.send(mailbox, "a")
 *   yield* Effect.forkChild(Mailbox.send(mailbox, "b"), { startImmediately: true })
 *   yield* Effect.andThen(Mailbox.receive(mailbox), Mailbox.receive(mailbox))
 * })
 *
 * await Effect.runPromise(program.pipe(Effect.scoped, Effect.provide(Orchestrator.layer)))
 * waits // => ["send letters", "receive letters"]
 * ```
 *
 * @stability unstable
 * @since 0.1.0
 */
import type * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import type * as Exit from "effect/Exit"
import type * as Scope from "effect/Scope"
import type * as Tracer from "effect/Tracer"
import type { ExitReason } from "./Event.ts"
import { Marks } from "./internal/Marks.ts"
import type { Kernel, Node, Stopping } from "./Kernel.ts"
import type { RoutineRecord } from "./RoutineRecord.ts"
import type { Phase } from "./Shutdown.ts"

export { errorTypeOf } from "./internal/ErrorOf.ts"

/**
 * How a group ended, or a round of a long-lived one: `waitMillis` from its beginning (a round begins with its `join`)
 * until the last of it had ended, and how many tasks were forked. What a joiner makes of the tasks is `exit` too.
 *
 * @category models
 * @since 0.1.0
 */
export interface GroupEnd {
  readonly exit: Exit.Exit<unknown, unknown>
  readonly waitMillis: number
  readonly size: number
  /** Of a round: the span of whoever joins. */
  readonly span: Tracer.AnySpan | undefined
}

/**
 * What goes with one message. Of one that is published it learns how many inboxes were `reached`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Carried {
  reached: number | undefined
}

/**
 * What goes with messages, from whoever sends them to whoever handles them: the span of the sender, say. What it makes
 * of effects fails with nothing but what they fail with.
 *
 * @category models
 * @since 0.1.0
 */
export interface Carrier {
  /** Sends a message, or publishes it, with what goes with it. */
  sending<A, E>(send: (carried: Carried | undefined) => Effect.Effect<A, E>): Effect.Effect<A, E>
  /** Handles a message, with which that came. */
  handling<A, E, R>(handled: Effect.Effect<A, E, R>, carried: unknown): Effect.Effect<A, E, R>
}

/**
 * How a step of a saga, or with the direction `compensate` its compensation, ended after all its attempts, of which
 * `failures` failed. `stuck` says that a compensation gave up.
 *
 * @category models
 * @since 0.1.0
 */
export interface StepEnd {
  readonly step: string
  readonly direction: "forward" | "compensate"
  readonly exit: Exit.Exit<unknown, unknown>
  readonly millis: number
  readonly failures: number
  readonly stuck: boolean
}

/**
 * How a saga ended, how long it had run, and the steps whose compensation gave up.
 *
 * @category models
 * @since 0.1.0
 */
export interface SagaEnd {
  readonly outcome: "completed" | "compensated" | "stuck" | "committed"
  readonly millis: number
  readonly stuck: ReadonlyArray<string>
}

/**
 * What an observer may be told. Times are monotonic milliseconds.
 *
 * @category models
 * @since 0.1.0
 */
export interface Observer {
  /**
   * A run begins; with the context that is returned. `spawner` is the span of whoever forked it, which is in the context
   * of a task alone. Called where the run itself is: what belongs to the user may be called here.
   */
  starting?(
    record: RoutineRecord,
    context: Context.Context<never>,
    spawner: Tracer.AnySpan | undefined
  ): Context.Context<never>
  /** A run is ready: before `starting` where it is as soon as it begins. */
  ready?(record: RoutineRecord): void
  /** Somebody asks for the end of a run. */
  asked?(record: RoutineRecord): void
  /** A run goes on, as an abandoned routine of its own, so that the next may start beside it. */
  left?(record: RoutineRecord, left: RoutineRecord): void
  /** A routine ignored its interruption, and is no longer waited for. */
  abandoned?(record: RoutineRecord, waitedMillis: number): void
  /** A node that is no routine is no longer listed. What it had counted by then is all that it tells. */
  removed?(node: Node): void
  /**
   * A run has ended at `now`, its finalizers included. `record.reason(exit)` says why, `record.startedAt` when it began,
   * and `record.incarnation` which it was.
   */
  ended?(record: RoutineRecord, exit: Exit.Exit<unknown, unknown>, now: number): void
  /** The next run of a supervised child begins, `delayMillis` after it was decided. */
  restarted?(record: RoutineRecord, supervisor: Node, reason: ExitReason | "sibling", delayMillis: number): void
  /** A supervisor has decided what the end of a child's run means. */
  decided?(supervisor: Node, record: RoutineRecord, decision: string, exit: Exit.Exit<unknown, unknown>): void
  /** What a supervisor began to stop and to start is stopped and started. */
  settled?(supervisor: Node): void
  /**
   * A fiber was suspended until there was room, or a message, or it was interrupted: `record` is its routine. The node
   * is a mailbox, the inbox of a subscription, or, for whoever publishes, a topic. `span` is the
   * one that the fiber was in.
   */
  waited?(
    node: Node,
    operation: "send" | "receive",
    record: RoutineRecord | undefined,
    millis: number,
    span: Tracer.AnySpan | undefined
  ): void
  /**
   * What goes with the messages of a mailbox, asked for when that is made, or of a topic, asked for with each message.
   * It costs an object for each message: only where it is wanted.
   */
  carrier?(kind: "mailbox" | "topic", name: string): Carrier | undefined
  /** A mailbox became full, for the first time since it was half empty. */
  full?(mailbox: Node, capacity: number): void
  /** So many messages were not taken: the mailbox was full and fails its senders, or was closed. */
  refused?(mailbox: Node, outcome: "rejected" | "closed", messages: number): void
  /** The body of a group begins; with the context that is returned. Called where the body itself is. */
  opening?(group: Node, context: Context.Context<never>): Context.Context<never>
  /** A group has failed for the first time: everything in it is interrupted. */
  failing?(group: Node, cause: Cause.Cause<unknown>): void
  /** A group, or a round of one, has ended. */
  grouped?(group: Node, end: GroupEnd): void
  /** A step of a saga has ended, or its compensation. */
  stepped?(saga: Node, end: StepEnd): void
  /** A saga has ended. It is listed until then. */
  concluded?(saga: Node, end: SagaEnd): void
  /**
   * A stop of the whole tree enters a phase, the first being `ask`. It may enter one again: one routine is asked after
   * another was interrupted. Without a phase it is over, and `stop.phases` says how long it was in each.
   */
  stopping?(stop: Stopping, phase: Phase | undefined): void
}

/**
 * How many messages went in, were dropped because there was no room (with `"drop_old"` they had gone in), and were
 * handed to receivers, those that came back each time.
 *
 * @category models
 * @since 0.1.0
 */
export interface Flow {
  readonly accepted: number
  readonly dropped: number
  readonly received: number
}

/**
 * What is read of every node of the kind `mailbox`, the inbox of a subscription among them.
 *
 * @category models
 * @since 0.1.0
 */
export interface MailboxView {
  readonly length: number
  readonly capacity: number
  readonly flow: Flow
  readonly oldestMillis: (now: number) => number | undefined
}

/**
 * What is read of every node of the kind `topic`: the messages published, those that reached an inbox (each counts),
 * those that a subscriber lost because it had no room, and those that nobody took any more. None of these falls.
 *
 * @category models
 * @since 0.1.0
 */
export interface TopicView {
  readonly published: number
  readonly delivered: number
  readonly dropped: number
  readonly undelivered: number
  readonly subscribers: number
  readonly inboxes: Iterable<MailboxView>
}

/**
 * Tells an observer of everything from now on, until the scope closes.
 *
 * @category operations
 * @since 0.1.0
 */
export const observe = (kernel: Kernel, observer: Observer): Effect.Effect<void, never, Scope.Scope> =>
  Effect.asVoid(Effect.acquireRelease(
    Effect.sync(() => observeUnsafe(kernel, observer)),
    (remove) => Effect.sync(remove)
  ))

/**
 * The same at once. Returns how to tell it no more.
 *
 * @category operations
 * @since 0.1.0
 */
export const observeUnsafe = (kernel: Kernel, observer: Observer): () => void => {
  const observers = kernel.observers ??= new Observers(kernel)
  observers.add(observer)
  return () => observers.remove(observer)
}

/**
 * The observers of a kernel, which has none of these while there are none: to be told of, each hook is a function that
 * tells all who listen, and undefined where nobody does.
 *
 * @category models
 * @since 0.1.0
 */
export class Observers implements Hooks {
  private readonly kernel: Kernel
  all: ReadonlyArray<Observer> = []
  starting: Hooks["starting"] = undefined
  ready: Hooks["ready"] = undefined
  asked: Hooks["asked"] = undefined
  left: Hooks["left"] = undefined
  abandoned: Hooks["abandoned"] = undefined
  removed: Hooks["removed"] = undefined
  ended: Hooks["ended"] = undefined
  restarted: Hooks["restarted"] = undefined
  decided: Hooks["decided"] = undefined
  settled: Hooks["settled"] = undefined
  waited: Hooks["waited"] = undefined
  full: Hooks["full"] = undefined
  refused: Hooks["refused"] = undefined
  opening: Hooks["opening"] = undefined
  carrier: Hooks["carrier"] = undefined
  failing: Hooks["failing"] = undefined
  grouped: Hooks["grouped"] = undefined
  stepped: Hooks["stepped"] = undefined
  concluded: Hooks["concluded"] = undefined
  stopping: Hooks["stopping"] = undefined

  constructor(kernel: Kernel) {
    this.kernel = kernel
  }

  add(observer: Observer): void {
    this.become([...this.all, observer])
  }

  remove(observer: Observer): void {
    this.become(this.all.filter((each) => each !== observer))
  }

  /** When messages were sent, which is kept while somebody observes. */
  marks(): Marks {
    return new Marks()
  }

  private become(all: ReadonlyArray<Observer>): void {
    this.all = all
    if (all.length === 0) this.kernel.observers = undefined
    // The hooks are all that it has beside these two.
    const { all: _, kernel: __, ...hooks } = this
    for (const what of Object.keys(hooks) as Array<keyof Hooks>) {
      const tells = all.flatMap((observer) => {
        const listen = observer[what] as Listen | undefined
        return listen === undefined ? [] : [this.guarded(observer, listen.bind(observer), gives.has(what))]
      })
      Object.assign(this, { [what]: what === "carrier" ? firstOf(tells) : inTurn(tells, gives.has(what)) })
    }
  }

  /** Positional: some are called several times for a run, which takes half a microsecond. */
  private guarded(observer: Observer, listen: Listen, gives: boolean): Listen {
    return (a, b, c, d, e) => {
      try {
        return listen(a, b, c, d, e)
      } catch (defect) {
        this.remove(observer)
        Effect.runForkWith(this.kernel.context)(Effect.logError("an observer threw and was removed", defect))
        return gives ? b : undefined
      }
    }
  }
}

/** What gives a context. */
const gives = new Set<keyof Observer>(["starting", "opening"])

/** What the first says that says anything. */
const firstOf = (tells: ReadonlyArray<Listen>): Listen | undefined =>
  tells.length < 2 ? tells[0] : (a, b, c, d, e) => {
    for (const tell of tells) {
      const said = tell(a, b, c, d, e)
      if (said !== undefined) return said
    }
    return undefined
  }

/** One after the other; where they give a context, each gets that of the one before. */
const inTurn = (tells: ReadonlyArray<Listen>, gives: boolean): Listen | undefined =>
  tells.length < 2 ? tells[0] : (a, b, c, d, e) => {
    let context = b
    for (const tell of tells) {
      const given = tell(a, context, c, d, e)
      if (gives) context = given
    }
    return context
  }

type Hooks = { -readonly [K in keyof Observer]-?: Observer[K] | undefined }

type Listen = (a: unknown, b: unknown, c: unknown, d: unknown, e: unknown) => unknown
