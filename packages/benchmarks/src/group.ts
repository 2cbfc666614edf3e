/** Row 11: a group of tasks that yield once, against `Effect.forEach` and the peers. */
import { Group } from "@effect-orchestra/core"
import { Effect } from "effect"
import { action, all, run } from "effection"
import PQueue from "p-queue"
import { against, type Size, timed, type Work } from "./Bench.ts"
import type { Peers } from "./Peer.ts"

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

/** What a careful program without a library does: the first failure aborts the others, and it waits for all of them. */
const promises = (tasks: ReadonlyArray<(signal: AbortSignal) => Promise<void>>) => {
  const controller = new AbortController()
  const abort = (error: unknown) => {
    controller.abort(error)
    throw error
  }
  return Promise.allSettled(tasks.map((task) => task(controller.signal).catch(abort)))
    .then(() => controller.signal.throwIfAborted())
}

export const work = ({ rounds, smoke, warmUp }: Size, { go }: Peers): Work => {
  const count = smoke ? 100 : 10_000
  const items = Array.from({ length: count }, (_, index) => index)
  const source = (name: string, effect: Effect.Effect<unknown>) => timed(name, count, effect)
  const ours = source(
    "Group.run",
    Group.run((group) =>
      Effect.gen(function*() {
        for (let i = 0; i < count; i++) yield* Group.fork(group, Effect.yieldNow)
      })
    )
  )
  const forEach = source(
    "Effect.forEach unbounded",
    Effect.forEach(items, () => Effect.yieldNow, { concurrency: "unbounded", discard: true })
  )
  const effection = source(
    "effection all",
    Effect.promise(() =>
      run(() =>
        all(items.map(() =>
          action<void>((resolve) => {
            const immediate = setImmediate(resolve)
            return () => clearImmediate(immediate)
          })
        ))
      )
    )
  )
  const pQueue = source(
    "p-queue",
    Effect.promise(() => {
      const queue = new PQueue()
      return Promise.all(items.map(() => queue.add(turn)))
    })
  )
  const plain = source(
    "promises and AbortController",
    Effect.promise(() => promises(items.map(() => (signal) => turn().then(() => signal.throwIfAborted()))))
  )
  const figures = against({ row: 11, work: "10,000 yielding tasks, each", ours }, [
    [forEach, 1.5],
    [effection, 0.03],
    [pQueue],
    [plain],
    [go("errgroup", "errgroup", String(count))]
  ])
  return { row: 11, rounds, warmUp, figures }
}
