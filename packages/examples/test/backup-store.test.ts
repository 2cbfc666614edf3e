import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, FileSystem, Layer, type Path, Stream } from "effect"
import { spawn } from "node:child_process"
import { once } from "node:events"
import { Store } from "../src/backup-service/Store.ts"
import * as BackupWorld from "./BackupWorld.ts"

const bytes = (...chunks: ReadonlyArray<string>) =>
  Stream.fromIterable(chunks.map((text) => new TextEncoder().encode(text)))

const read = (store: Store["Service"], object: { readonly sha256: string; readonly size: number }) =>
  Stream.mkString(Stream.decodeText(store.read(object)))

const layer = (world: BackupWorld.World, fileSystem: Layer.Layer<FileSystem.FileSystem> = BackupWorld.platform) =>
  Layer.fresh(Store.layer).pipe(
    Layer.provide(fileSystem),
    Layer.provide(Layer.merge(world.settings, BackupWorld.platform))
  )

const withWorld = <A, E>(
  test: (world: BackupWorld.World) => Effect.Effect<A, E, FileSystem.FileSystem | Path.Path>
) => Effect.flatMap(BackupWorld.make(), test).pipe(Effect.provide(BackupWorld.platform))

const objectPath = (world: BackupWorld.World, sha256: string) =>
  `${world.store}/objects/${sha256.slice(0, 2)}/${sha256.slice(2)}`

describe("Store", () => {
  it.effect("keeps a content under the name of its digest, over restarts", () =>
    withWorld(Effect.fnUntraced(function*(world) {
      const chunks = Array.from({ length: 40 }, (_, i) => `${i}`.repeat(5000))
      const object = yield* Store.use((store) => store.add(bytes(...chunks))).pipe(Effect.provide(layer(world)))
      const content = chunks.join("")
      assert.deepStrictEqual(object, { sha256: BackupWorld.sha256(content), size: content.length })
      assert.deepStrictEqual(yield* world.files(`${world.store}/objects`), [
        `${object.sha256.slice(0, 2)}/${object.sha256.slice(2)}`
      ])
      const later = yield* Store.use((store) => read(store, object)).pipe(Effect.provide(layer(world)))
      assert.strictEqual(later, content)
    })))

  it.effect("stores an unchanged content once, the empty one too", () =>
    withWorld(Effect.fnUntraced(function*(world) {
      const fs = yield* FileSystem.FileSystem
      yield* Effect.gen(function*() {
        const store = yield* Store
        const first = yield* store.add(bytes("same"))
        const before = yield* fs.stat(objectPath(world, first.sha256))
        assert.deepStrictEqual(yield* store.add(bytes("sa", "me")), first)
        const after = yield* fs.stat(objectPath(world, first.sha256))
        assert.deepStrictEqual(after.ino, before.ino)
        const empty = yield* store.add(bytes())
        assert.deepStrictEqual(yield* store.add(bytes("")), empty)
        assert.strictEqual(yield* read(store, empty), "")
      }).pipe(Effect.provide(layer(world)))
      assert.lengthOf(yield* world.files(`${world.store}/objects`), 2)
      assert.deepStrictEqual(yield* BackupWorld.damage(world), [])
    })))

  it.effect("keeps nothing of a content whose source fails half-way", () =>
    withWorld(Effect.fnUntraced(function*(world) {
      const error = yield* Store.use((store) =>
        Effect.flip(store.add(Stream.concat(bytes("half"), Stream.fail("unplugged"))))
      ).pipe(Effect.provide(layer(world)))
      assert.strictEqual(error, "unplugged")
      assert.deepStrictEqual(yield* world.files(`${world.store}/objects`), [])
      assert.deepStrictEqual(yield* BackupWorld.damage(world), [])
    })))

  it.effect("keeps nothing of a content for which the disk has no room, and says what it could not write", () =>
    withWorld(Effect.fnUntraced(function*(world) {
      let room = 2
      const full = BackupWorld.wrapped((operation, name, path) =>
        Effect.suspend(() =>
          name === "write" && room-- <= 0
            ? Effect.fail(BackupWorld.refusal("Unknown", path, "no space left"))
            : operation
        )
      )
      const error = yield* Store.use((store) => Effect.flip(store.add(bytes("a", "b", "c")))).pipe(
        Effect.provide(layer(world, full))
      )
      assert.strictEqual(error._tag, "NotWritten")
      assert.include(error.message, "no space left")
      assert.deepStrictEqual(yield* world.files(`${world.store}/objects`), [])
      assert.deepStrictEqual(yield* BackupWorld.damage(world), [])
    })))

  it.effect("fails a read of damaged bytes before the last of them, and does not pass off a missing object", () =>
    withWorld(Effect.fnUntraced(function*(world) {
      const fs = yield* FileSystem.FileSystem
      yield* Effect.gen(function*() {
        const store = yield* Store
        const content = "x".repeat(150_000)
        const object = yield* store.add(bytes(content))
        yield* fs.writeFileString(objectPath(world, object.sha256), `${content.slice(1)}y`)
        let received = 0
        const error = yield* Effect.flip(Stream.runForEach(store.read(object), (chunk) =>
          Effect.sync(() => {
            received += chunk.length
          })))
        assert.strictEqual(error._tag, "ObjectDamaged")
        assert.isBelow(received, content.length)

        yield* fs.writeFileString(objectPath(world, object.sha256), content.slice(1))
        assert.include((yield* Effect.flip(store.check(object))).message, "149999 bytes")
        assert.include((yield* Effect.flip(read(store, object))).message, "ends after 149999 bytes")

        yield* fs.remove(objectPath(world, object.sha256))
        assert.include((yield* Effect.flip(store.check(object))).message, "missing")
        assert.strictEqual((yield* Effect.flip(read(store, object)))._tag, "ObjectDamaged")
      }).pipe(Effect.provide(layer(world)))
    })))

  it.effect("replaces an object of the wrong size when its content comes again", () =>
    withWorld(Effect.fnUntraced(function*(world) {
      const fs = yield* FileSystem.FileSystem
      yield* Effect.gen(function*() {
        const store = yield* Store
        const object = yield* store.add(bytes("content"))
        yield* fs.writeFileString(objectPath(world, object.sha256), "cont")
        yield* store.add(bytes("content"))
        assert.strictEqual(yield* read(store, object), "content")
      }).pipe(Effect.provide(layer(world)))
    })))

  it.effect("empties its temporary directory at start", () =>
    withWorld(Effect.fnUntraced(function*(world) {
      const fs = yield* FileSystem.FileSystem
      yield* fs.makeDirectory(`${world.store}/tmp/deep`, { recursive: true })
      yield* fs.writeFileString(`${world.store}/tmp/deep/7`, "half")
      yield* Effect.void.pipe(Effect.provide(layer(world)))
      assert.deepStrictEqual(yield* fs.readDirectory(`${world.store}/tmp`), [])
    })))

  const moments = ["before", "during", "after"] as const
  it.effect.each(moments)(
    "interrupted %s any operation, leaves no half object and no temporary file",
    (moment) =>
      withWorld(Effect.fnUntraced(function*(world) {
        let victim: Fiber.Fiber<unknown, unknown> | undefined
        let countdown = 0
        const interrupt = Effect.sync(() => victim?.interruptUnsafe())
        const interrupting = BackupWorld.wrapped((operation) =>
          Effect.suspend(() => {
            if (victim === undefined || --countdown !== 0) return operation
            if (moment === "before") return Effect.andThen(interrupt, operation)
            if (moment === "after") return Effect.ensuring(operation, interrupt)
            queueMicrotask(() => victim?.interruptUnsafe())
            return operation
          })
        )
        const interrupted = yield* Effect.gen(function*() {
          const store = yield* Store
          for (let n = 1;; n++) {
            countdown = n
            // Another content each time, or there would be nothing left to store.
            const add = store.add(bytes(`chunk ${n}`, "chunk", moment))
            victim = yield* Effect.forkChild(add)
            const exit = yield* Fiber.await(victim)
            victim = undefined
            if (countdown > 0) {
              assert.isTrue(Exit.isSuccess(exit))
              return n - 1
            }
            assert.deepStrictEqual(yield* BackupWorld.damage(world), [], `operation ${n}`)
          }
        }).pipe(Effect.provide(layer(world, interrupting)))
        // Open, two reads of nothing: at least the writes, the look for the object, its directory, the sync, the rename.
        assert.isAtLeast(interrupted, 8)
      }))
  )
})

describe("the lock of a Store", () => {
  it.effect("keeps a second one out, naming the process that holds it, until it is released", () =>
    withWorld(Effect.fnUntraced(function*(world) {
      const error = yield* Effect.flip(Effect.scoped(Layer.build(layer(world)))).pipe(Effect.provide(layer(world)))
      assert.strictEqual(error._tag, "StoreLocked")
      assert.include(error.message, `process ${process.pid}`)
      yield* Effect.void.pipe(Effect.provide(layer(world)))
    })))

  // Real processes: the kernel takes the lock from one that is killed, and decides between those that start together.
  it.live("is had by one of many starters, and passes on when its holder is killed", () =>
    withWorld(Effect.fnUntraced(function*(world) {
      const fs = yield* FileSystem.FileSystem
      yield* fs.makeDirectory(world.store)
      const starters = yield* Effect.acquireRelease(
        Effect.sync(() => Array.from({ length: 6 }, () => startHolder(world))),
        (starters) => Effect.sync(() => starters.forEach(({ child }) => child.kill("SIGKILL")))
      )
      const answers = yield* Effect.promise(() => Promise.all(starters.map(({ answer }) => answer)))
      const [holder, ...others] = starters.filter((_, i) => answers[i] === "held")
      assert.isDefined(holder)
      assert.lengthOf(others, 0)
      const refused = answers.filter((answer) => answer !== "held")
      assert.deepStrictEqual(new Set(refused), new Set([`StoreLocked ${holder?.child.pid}`]))

      const locked = yield* Effect.flip(Effect.scoped(Layer.build(layer(world))))
      assert.include(locked.message, `process ${holder?.child.pid}`)
      holder?.child.kill("SIGKILL")
      yield* Effect.promise(() => once(holder?.child ?? process, "exit"))
      yield* Effect.void.pipe(Effect.provide(layer(world)))
    }, Effect.scoped)))
})

const startHolder = (world: BackupWorld.World) => {
  const program = `
    import { Effect, Exit, Scope } from "effect"
    import * as StoreLock from "${new URL("../src/backup-service/StoreLock.ts", import.meta.url)}"
    const acquire = StoreLock.acquire({ file: "${world.store}/lock", store: "", pid: process.pid })
    Effect.runPromise(Effect.provideService(acquire, Scope.Scope, Scope.makeUnsafe())).then(
      () => { console.log("held"); setInterval(() => {}, 1000) },
      (error) => console.log(error._tag, error.pid)
    )`
  const child = spawn(process.execPath, ["--input-type=module", "--eval", program], {
    cwd: import.meta.dirname,
    stdio: ["ignore", "pipe", "inherit"]
  })
  return { child, answer: once(child.stdout, "data").then(([data]) => String(data).trim()) }
}
