/** What compiles and what does not: read by the compiler alone. */
import { type CoreError, Mailbox, type Reply } from "@effect-orchestra/core"
import { Effect, type Exit, type Scope, type Stream } from "effect"

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const is = <_T extends true>() => undefined

declare const overflow: Mailbox.Overflow

// Only a mailbox that may refuse says so in its type.
const waits = Mailbox.make<number>({ capacity: 1 })
is<Equals<typeof waits, Effect.Effect<Mailbox.Mailbox<number>, never, Scope.Scope>>>()
const drops = Mailbox.make<number, string>({ capacity: 1, overflow: "drop_old" })
is<Equals<typeof drops, Effect.Effect<Mailbox.Mailbox<number, string>, never, Scope.Scope>>>()
const refuses = Mailbox.make<number>({ capacity: 1, overflow: "fail" })
type Refusing = Mailbox.Mailbox<number, never, CoreError.MailboxFull>
is<Equals<typeof refuses, Effect.Effect<Refusing, never, Scope.Scope>>>()
const either = Mailbox.make<number>({ capacity: 1, overflow })
is<Equals<typeof either, Effect.Effect<Refusing, never, Scope.Scope>>>()

declare const mailbox: Mailbox.Mailbox<number, string>
declare const refusing: Refusing

const sent = Mailbox.send(mailbox, 1)
is<Equals<typeof sent, Effect.Effect<void, CoreError.MailboxClosed>>>()
const refused = refusing.pipe(Mailbox.send(1))
is<Equals<typeof refused, Effect.Effect<void, CoreError.MailboxClosed | CoreError.MailboxFull>>>()
const received = Mailbox.receive(mailbox)
is<Equals<typeof received, Effect.Effect<number, string | CoreError.MailboxClosed>>>()
const stream = Mailbox.stream(mailbox)
is<Equals<typeof stream, Stream.Stream<number, string | CoreError.MailboxClosed>>>()
const handled = mailbox.pipe(
  Mailbox.receiveWith((n: number) => n > 1 ? Effect.fail("bad" as const) : Effect.succeed(n))
)
is<Equals<typeof handled, Effect.Effect<Exit.Exit<number, "bad">, string | CoreError.MailboxClosed>>>()

interface Question {
  readonly reply: Reply.Reply<boolean, "no">
}
declare const questions: Mailbox.Mailbox<Question>
const asked = Mailbox.ask(questions, (reply: Reply.Reply<boolean, "no">) => ({ reply }))
is<
  Equals<
    typeof asked,
    Effect.Effect<boolean, "no" | CoreError.AskTimeout | CoreError.MailboxClosed | CoreError.Unanswered>
  >
>()

// @ts-expect-error it is a mailbox of numbers
Mailbox.send(mailbox, "one")
// @ts-expect-error it fails with strings
Mailbox.fail(mailbox, 1)
// @ts-expect-error no mailbox is without bound
Mailbox.make<number>({})
// @ts-expect-error a mailbox of numbers takes no other messages
const widened: Mailbox.Mailbox<number | string> = mailbox

// Dead letters go to another mailbox, whatever it does when it is full.
declare const dead: Mailbox.Mailbox<Mailbox.DeadLetter<number>, never, CoreError.MailboxFull>
const withDead = Mailbox.make<number>({ capacity: 1, deadLetter: dead })

export { asked, handled, received, refused, sent, stream, widened, withDead }
