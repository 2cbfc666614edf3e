/** Rows 8, 9 and 14: messages through a mailbox, one by one and in batches, against a raw `Queue`, Go and OTP. */
import { Mailbox } from "@effect-orchestra/core"
import { Effect, Queue, type Scope, Stream } from "effect"
import { against, type Size, type Source, timed, type Work } from "./Bench.ts"
import { observed } from "./observed.ts"
import type { Peers } from "./Peer.ts"

const capacity = 512
const batch = Array.from({ length: capacity }, (_, index) => index)

/** One way through which messages go. */
interface Channel {
  readonly name: string
  readonly send: Effect.Effect<unknown, unknown>
  readonly receive: Effect.Effect<unknown, unknown>
  readonly sendAll: Effect.Effect<unknown, unknown>
  readonly receiveAll: Effect.Effect<ReadonlyArray<number>, unknown>
  readonly stream: Stream.Stream<number, unknown>
}

const repeated = (times: number, effect: Effect.Effect<unknown, unknown>) =>
  Effect.gen(function*() {
    for (let i = 0; i < times; i++) yield* effect
  })

/** From one fiber to another, which ends when it has them all. */
const across = (produce: Effect.Effect<unknown, unknown>, consume: Effect.Effect<unknown, unknown>) =>
  Effect.andThen(Effect.forkChild(produce), consume)

export const works = (
  { rounds, smoke, warmUp }: Size,
  { go, otp }: Peers
): Effect.Effect<ReadonlyArray<Work>, never, Scope.Scope> =>
  Effect.gen(function*() {
    const mailbox = yield* Mailbox.make<number>({ capacity })
    const watched = yield* Effect.provideContext(Mailbox.make<number>({ capacity }), yield* observed)
    const queue = yield* Queue.bounded<number>(capacity)
    const channel = (name: string, mailbox: Mailbox.Mailbox<number>): Channel => ({
      name,
      send: Mailbox.send(mailbox, 1),
      receive: Mailbox.receive(mailbox),
      sendAll: Mailbox.sendAll(mailbox, batch),
      receiveAll: Mailbox.receiveAll(mailbox),
      stream: Mailbox.stream(mailbox)
    })
    const ours = channel("Mailbox", mailbox)
    const listened = channel("Mailbox with telemetry", watched)
    const raw: Channel = {
      name: "raw Queue",
      send: Queue.offer(queue, 1),
      receive: Queue.take(queue),
      sendAll: Queue.offerAll(queue, batch),
      receiveAll: Queue.takeAll(queue),
      stream: Stream.fromQueue(queue)
    }
    const count = capacity * (smoke ? 1 : 100)
    const source = (name: string, messages: number, effect: Effect.Effect<unknown, unknown>) =>
      timed(name, messages, Effect.orDie(effect))

    const alone = ({ name, receive, send }: Channel) =>
      source(name, count, repeated(count, Effect.andThen(send, receive)))
    const between = ({ name, receive, send }: Channel) =>
      source(name, count, across(repeated(count, send), repeated(count, receive)))
    const batches = smoke ? 2 : 1000
    const batchesAlone = ({ name, receiveAll, sendAll }: Channel) =>
      source(name, batches * capacity, repeated(batches, Effect.andThen(sendAll, receiveAll)))
    const batchesBetween = ({ name, receiveAll, sendAll }: Channel) =>
      source(
        name,
        batches * capacity,
        across(
          repeated(batches, sendAll),
          Effect.gen(function*() {
            for (let received = 0; received < batches * capacity;) received += (yield* receiveAll).length
          })
        )
      )

    const streamed = ({ name, sendAll, stream }: Channel) =>
      source(
        name,
        batches * capacity,
        across(repeated(batches, sendAll), Stream.runDrain(Stream.take(stream, batches * capacity)))
      )

    const messages = String(smoke ? 1000 : 1_000_000)
    const peers = [[go("buffered channel", "channel", messages), 1], [
      otp("mailbox", "mailbox", messages),
      0.3
    ]] as const
    const one = { row: 8, work: "send + receive" }
    const many = { row: 9, work: "a message in batches of 512" }
    const oursAlone = alone(ours)
    const oursBetween = between(ours)
    const told = (work: string, ours: Source, silent: Source) =>
      against({ row: 14, work: `${one.work}, ${work}, telemetry on`, ours }, [[silent, 1.03]])
    return [
      {
        row: 8,
        rounds,
        warmUp,
        figures: [
          ...against({ ...one, work: `${one.work}, one fiber`, ours: oursAlone }, [[alone(raw), 1.2]]),
          ...against({ ...one, work: `${one.work}, two fibers`, ours: oursBetween }, [[between(raw), 1.2]]),
          ...told("one fiber", alone(listened), oursAlone),
          ...told("two fibers", between(listened), oursBetween)
        ]
      },
      {
        row: 9,
        rounds,
        warmUp,
        figures: [
          ...against({ ...many, work: `${many.work}, one fiber`, ours: batchesAlone(ours) }, [
            [batchesAlone(raw)],
            ...peers
          ]),
          ...against({ ...many, work: `${many.work}, two fibers`, ours: batchesBetween(ours) }, [
            [batchesBetween(raw)],
            ...peers
          ]),
          ...against({ ...many, work: `${many.work}, as a stream`, ours: streamed(ours) }, [[streamed(raw)], ...peers])
        ]
      }
    ]
  })
