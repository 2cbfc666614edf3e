/**
 * What a question to a mailbox is answered with, once.
 *
 * `Mailbox.ask` makes one and waits for it; whoever receives the question answers with `Mailbox.reply`.
 *
 * **Example** (A question and its answer)
 *
 * ```ts import.meta.vitest
 * import { Mailbox, type Reply } from "@effect-orchestra/core"
 * import { Effect } from "effect"
 *
 * interface Square {
 *   readonly of: number
 *   readonly reply: Reply.Reply<number>
 * }
 *
 * const program = Effect.gen(function*() {
 *   const mailbox = yield* Mailbox.make<Square>({ capacity: 8 })
 *   const serve = Mailbox.receiveWith(mailbox, ({ of, reply }) => Mailbox.reply(reply, of * of))
 *   yield* Effect.forkChild(Effect.forever(serve))
 *   return yield* Mailbox.ask(mailbox, (reply: Reply.Reply<number>) => ({ of: 7, reply }))
 * })
 *
 * await Effect.runPromise(Effect.scoped(program)) // => 49
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { AskTimeout, type MailboxClosed, type MailboxFull, Unanswered } from "./CoreError.ts"
import { type Node, path } from "./Kernel.ts"
import type { UndeliveredReason } from "./Mailbox.ts"
import type { MailboxNode, Question } from "./MailboxNode.ts"
import type { Deadline } from "./Writer.ts"

const TypeId = "~effect-orchestra/core/Reply"

/**
 * The handle that a question carries: it takes a `B`, or an error `E`.
 *
 * @category models
 * @since 0.1.0
 */
export interface Reply<in B, in E = never> {
  readonly [TypeId]: { readonly _B: (_: B) => void; readonly _E: (_: E) => void }
}

/** What a question needs of a mailbox. */
type Asked<A> = Pick<MailboxNode<A, never>, "kernel" | "questions" | "sendThen"> & Node & {
  readonly ending: { readonly send: Exit.Exit<never, MailboxClosed> } | undefined
}

/** What it may fail with beside the error that it is answered with. */
type Failure = AskTimeout | MailboxClosed | MailboxFull | Unanswered

/**
 * A question under way.
 *
 * @stability unstable
 * @category models
 * @since 0.1.0
 */
export class Answer<A, B, E> implements Reply<B, E>, Question {
  readonly [TypeId] = variance
  private readonly node: Asked<A>
  private exit: Exit.Exit<B, E | Failure> | undefined = undefined
  private resume: (exit: Exit.Exit<B, E | Failure>) => void = () => undefined
  private message: A | undefined = undefined
  private deadline: Deadline | undefined = undefined
  private unsend: (() => void) | undefined = undefined

  constructor(node: Asked<A>) {
    this.node = node
  }

  /** Sends the message that carries this, and waits so many milliseconds for the answer. */
  ask(message: A, millis: number, fiber: Fiber.Fiber<unknown, unknown>): Effect.Effect<B, E | Failure> {
    const { node } = this
    const { writer } = node.kernel
    const started = writer.now()
    return Effect.callback((resume) => {
      this.message = message
      this.resume = resume
      ;(node.questions ??= new Map()).set(message, this)
      const late = () => {
        this.settle(Exit.fail(new AskTimeout({ mailbox: path(node), waitedMillis: writer.now() - started })))
      }
      this.deadline = writer.after(millis, { run: late })
      this.unsend = node.sendThen(message, fiber, (sent) => {
        if (Exit.isFailure(sent)) this.settle(Exit.failCause(sent.cause))
      })
      return Effect.sync(() => this.settle(Exit.interrupt()))
    })
  }

  /** False when it has been settled before. */
  settle(exit: Exit.Exit<B, E | Failure>): boolean {
    if (this.exit !== undefined) return false
    this.exit = exit
    const { kernel: { writer }, questions } = this.node
    writer.cancel(this.deadline)
    this.unsend?.()
    questions?.delete(this.message as A)
    // Not within the step that answers: a chain of answers would nest.
    writer.nextTurn({ run: () => writer.wake({ run: () => this.resume(exit) }) })
    return true
  }

  gone(reason: UndeliveredReason): void {
    const { ending } = this.node
    this.settle(
      reason === "closed" && ending !== undefined
        ? ending.send
        : Exit.fail(new Unanswered({ mailbox: path(this.node), reason: reason === "dropped" ? reason : "failed" }))
    )
  }
}

const ignore = (): void => undefined

const variance = { _B: ignore, _E: ignore }

/** @internal */
export const answerOf = <B, E>(self: Reply<B, E>): Answer<unknown, B, E> =>
  // Every reply is made by `Mailbox.ask`.
  self as unknown as Answer<unknown, B, E>
