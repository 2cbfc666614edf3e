import { Orchestrator } from "@effect-orchestra/core"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, FileSystem, Layer, Random, Stream } from "effect"
import * as BackupRun from "../src/backup-service/BackupRun.ts"
import { Database } from "../src/backup-service/Database.ts"
import { Restore } from "../src/backup-service/Restore.ts"
import { Store } from "../src/backup-service/Store.ts"
import * as BackupWorld from "./BackupWorld.ts"

const seeds = Number(process.env["SEEDS"] ?? 200)

/** Few names, so that files and directories get in each other's way. */
const names = ["a", "b", "a/a", "a/b", "b/a", "b/b", "a/b/a", "b/a/b"]
const contents = ["", "one", "two", "three".repeat(20_000)]

const pick = <A>(items: ReadonlyArray<A>) =>
  Effect.flatMap(Random.nextIntBetween(0, items.length - 1), (index) => Effect.fromNullishOr(items[index])).pipe(
    Effect.orDie
  )

/** What the source holds, and every content that a scan has seen of each file, oldest first. */
interface Model {
  readonly source: Map<string, string>
  readonly history: Map<string, Array<string>>
}

/** Does to the source what it does to the model. */
const change = Effect.fnUntraced(function*(world: BackupWorld.World, { source }: Model) {
  const fs = yield* FileSystem.FileSystem
  const path = yield* pick(names)
  const clear = Effect.gen(function*() {
    for (const name of source.keys()) {
      if (name === path || name.startsWith(`${path}/`) || path.startsWith(`${name}/`)) {
        yield* world.drop(name)
        source.delete(name)
      }
    }
    yield* fs.remove(`${world.source}/${path}`, { recursive: true, force: true })
  })
  if (yield* Random.nextBoolean) {
    const content = yield* pick(contents)
    if (source.has(path)) yield* world.put(path, content)
    else yield* Effect.andThen(clear, world.put(path, content))
    source.set(path, content)
  } else yield* clear
})

const remember = ({ history, source }: Model) => {
  for (const [path, content] of source) {
    const versions = history.get(path) ?? []
    if (versions.at(-1) !== content) history.set(path, [...versions, content])
  }
}

const assertEqual = Effect.fnUntraced(function*(world: BackupWorld.World, { history, source }: Model) {
  const database = yield* Database
  const store = yield* Store
  const files = yield* database.files("", { limit: 100 })
  const expected = Array.from(history, ([path, versions]) => ({
    path,
    sha256: BackupWorld.sha256(versions.at(-1) ?? ""),
    size: versions.at(-1)?.length ?? 0,
    versions: versions.length,
    deleted: !source.has(path)
  })).toSorted((a, b) => a.path < b.path ? -1 : 1)
  assert.deepStrictEqual(files, expected)
  for (const [path, versions] of history) {
    const found = yield* database.versions(path, { limit: 100 })
    const read = yield* Effect.forEach(
      found.toReversed(),
      (version) => Stream.mkString(Stream.decodeText(store.read(version)))
    )
    assert.deepStrictEqual(read, versions)
  }
  assert.deepStrictEqual(yield* BackupWorld.damage(world), [])
})

const restoreOne = Effect.fnUntraced(function*(world: BackupWorld.World, { history }: Model) {
  const fs = yield* FileSystem.FileSystem
  const database = yield* Database
  const { restore } = yield* Restore
  const [path, versions] = yield* pick(Array.from(history))
  const found = yield* database.versions(path, { limit: 100 })
  const index = yield* Random.nextIntBetween(0, found.length - 1)
  const version = yield* Effect.orDie(Effect.fromNullishOr(found[index]))
  yield* restore(version, "restored")
  assert.strictEqual(yield* fs.readFileString(`${world.restored}/restored`), versions[versions.length - 1 - index])
})

const unwatched = { watch: () => Effect.void, unwatch: () => Effect.void, note: () => Effect.void, burst: Effect.never }

const story = Effect.gen(function*() {
  const world = yield* BackupWorld.make()
  const model: Model = { source: new Map(), history: new Map() }
  let countdown = 0
  let interrupt = () => {}
  const fileSystem = BackupWorld.wrapped((operation) =>
    Effect.suspend(() => {
      if (--countdown === 0) queueMicrotask(interrupt)
      return operation
    })
  )
  const services = Layer.fresh(Restore.layer).pipe(
    Layer.provideMerge(Layer.fresh(Database.layer)),
    Layer.provideMerge(Layer.fresh(Store.layer)),
    Layer.provideMerge(BackupWorld.display().layer),
    Layer.provideMerge(Layer.merge(world.settings, Orchestrator.layer)),
    Layer.provide(fileSystem),
    Layer.provideMerge(BackupWorld.platform)
  )
  yield* Effect.gen(function*() {
    const run = yield* Effect.provide(BackupRun.make(unwatched), fileSystem)
    const scan = run(new Set([world.source]))
    for (let step = 0; step < 4; step++) {
      const changes = yield* Random.nextIntBetween(1, 6)
      for (let i = 0; i < changes; i++) yield* change(world, model)
      if (yield* Random.nextBoolean) {
        countdown = yield* Random.nextIntBetween(1, 30)
        const interrupted = yield* Effect.forkChild(scan)
        interrupt = () => interrupted.interruptUnsafe()
        yield* Fiber.await(interrupted)
        countdown = 0
        assert.deepStrictEqual(yield* BackupWorld.damage(world), [])
      }
      yield* scan
      remember(model)
      yield* assertEqual(world, model)
      if (model.history.size > 0) yield* restoreOne(world, model)
    }
  }).pipe(Effect.provide(services))
}).pipe(Effect.provide(BackupWorld.platform), Effect.scoped)

describe("the backup", () => {
  it.effect(
    `follows its source through ${seeds} random stories of changes, interrupted scans and restores`,
    () =>
      Effect.forEach(
        Array.from({ length: seeds }, (_, seed) => seed),
        (seed) => story.pipe(Random.withSeed(`${seed}`), Effect.annotateLogs("seed", seed), failWith(seed)),
        { concurrency: 4, discard: true }
      ),
    10_000 + 300 * seeds
  )
})

/** Names the seed of a failure. */
const failWith = (seed: number) => <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.catchCause(effect, (cause) => Effect.die(new Error(`seed ${seed}`, { cause })))
