/**
 * What changed in a tree of directories, according to the operating system.
 *
 * One watch for each directory, set by whoever walks the tree, and not the recursive watch of Node: on Linux that stops
 * silently at the first file it may not read, follows symbolic links, and needs a watch for every single file.
 */
import { Deferred, type Duration, Effect, Exit, FiberMap, FileSystem, Latch, Path, type Scope, Stream } from "effect"

export interface Changes {
  /** Watches a directory; from the return on, no change in it is lost. Does nothing if it is watched already. */
  readonly watch: (directory: string) => Effect.Effect<void>
  /** Stops watching a directory and all below it. */
  readonly unwatch: (directory: string) => Effect.Effect<void>
  /** Counts a path as changed. */
  readonly note: (path: string) => Effect.Effect<void>
  /**
   * Waits for a change and then for `quiet` without another one, at most ten times `quiet`. Returns all paths that
   * changed, once each. When the root is among them there is nothing left to wait for.
   */
  readonly burst: Effect.Effect<ReadonlySet<string>>
}

/** So many changed paths are kept; more of them count as a change of the root. */
const limit = 10_000

export const make = Effect.fnUntraced(function*(options: {
  readonly root: string
  readonly quiet: Duration.Duration
  /** Told why a directory cannot be watched: only scans will find what changes in it. */
  readonly onUnwatched: (directory: string, cause: unknown) => Effect.Effect<void>
}): Effect.fn.Return<Changes, never, FileSystem.FileSystem | Path.Path | Scope.Scope> {
  const fs = yield* FileSystem.FileSystem
  const path = yield* Path.Path
  const watches = yield* FiberMap.make<string>()
  /** What was watched under a name: another directory may since have taken it. */
  const identities = new Map<string, string>()
  const some = yield* Latch.make()
  let changed = new Set<string>()
  let events = 0

  const note = (changedPath: string) =>
    Effect.suspend(() => {
      if (changed.size >= limit) changed = new Set([options.root])
      changed.add(changedPath)
      events++
      return Effect.asVoid(some.open)
    })

  const watch = Effect.fnUntraced(function*(directory: string) {
    const identity = yield* fs.lstat(directory).pipe(
      Effect.map(({ birthtime, dev, ino }) => JSON.stringify([String(dev), String(ino), birthtime])),
      Effect.orElseSucceed(() => "")
    )
    if (identities.get(directory) === identity && FiberMap.hasUnsafe(watches, directory)) return
    identities.set(directory, identity)
    const ready = Deferred.makeUnsafe<void>()
    const stream = fs.watch(directory, { onReady: () => Deferred.doneUnsafe(ready, Exit.void) })
    yield* FiberMap.run(
      watches,
      directory,
      Stream.runForEach(stream, (event) => note(path.join(directory, event.path))).pipe(
        Effect.catch((cause) => options.onUnwatched(directory, cause)),
        Effect.ensuring(Deferred.succeed(ready, undefined))
      )
    )
    yield* Deferred.await(ready)
  })

  const unwatch = (directory: string) =>
    Effect.suspend(() => {
      if (!identities.has(directory)) return Effect.void
      const below = Array.from(identities.keys()).filter((name) =>
        name === directory || name.startsWith(directory + path.sep)
      )
      below.forEach((name) => identities.delete(name))
      return Effect.forEach(below, (name) => FiberMap.remove(watches, name), { discard: true })
    })

  const burst = Effect.gen(function*() {
    yield* some.await
    for (let round = 0, seen = 0; round < 10 && seen !== events && !changed.has(options.root); round++) {
      seen = events
      yield* Effect.sleep(options.quiet)
    }
    some.closeUnsafe()
    const all = changed
    changed = new Set()
    return all
  })

  return { watch, unwatch, note, burst }
})
