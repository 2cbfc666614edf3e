/**
 * The names of one registry: who holds which, who waits for them, and whose turn it is with a lock.
 *
 * It changes in place, within one step of the fiber that asks or of the one that ends, and wakes nobody but through the
 * writer. A holder is told of its ends by its routine, once for all of its names.
 *
 * @internal
 */
import { path } from "@effect-orchestra/core/Kernel"
import { Line, Place } from "@effect-orchestra/core/Line"
import { Current, RoutineRecord } from "@effect-orchestra/core/RoutineRecord"
import type { Stopwatch } from "@effect-orchestra/core/Stopwatch"
import { Waiters, type Writer } from "@effect-orchestra/core/Writer"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import type * as Fiber from "effect/Fiber"
import { format } from "effect/Formatter"
import * as MutableHashMap from "effect/MutableHashMap"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import type { Definition, NamespaceStats } from "../Registry.ts"
import { AlreadyRegistered, NameUnavailable, NotOwner } from "../SupervisorError.ts"

type AnyFiber = Fiber.Fiber<unknown, unknown>

/** A routine; or a fiber outside any. */
type Owner = RoutineRecord | AnyFiber

/** Whoever holds names, and which. */
class Holder {
  readonly owner: Owner
  readonly entries = new Set<Entry>()
  readonly watcher = (final: boolean): void => {
    for (const entry of this.entries) {
      if (final) entry.space.remove(entry)
      else entry.space.withdraw(entry)
    }
  }

  constructor(owner: Owner) {
    this.owner = owner
    if (owner instanceof RoutineRecord) (owner.waiting.watchers ??= new Set()).add(this.watcher)
  }

  get path(): string {
    return this.owner instanceof RoutineRecord ? path(this.owner) : `fiber #${this.owner.id}`
  }

  release(): void {
    if (!(this.owner instanceof RoutineRecord)) return
    const { waiting } = this.owner
    if (waiting.watchers?.delete(this.watcher) === true && waiting.watchers.size === 0) waiting.watchers = undefined
  }
}

/** What is held under a key. A unique name outlives the runs of its routine; between them it is held, and not served. */
class Entry {
  readonly space: Space
  readonly key: unknown
  readonly holder: Holder
  value: unknown = undefined
  /** Whether its value is served. */
  live = false
  waiting: Waiters<boolean> | undefined = undefined
  private scope: Scope.Closeable | undefined = undefined

  constructor(space: Space, key: unknown, holder: Holder) {
    this.space = space
    this.key = key
    this.holder = holder
  }

  get isHeld(): boolean {
    return this.holder.entries.has(this)
  }

  /** Ends it with a scope other than that of its run. */
  bind(scope: Scope.Scope): Effect.Effect<void> {
    const own = this.scope = Scope.forkUnsafe(scope)
    return Scope.addFinalizer(
      own,
      Effect.sync(() => {
        if (this.scope === own) this.space.remove(this)
      })
    )
  }

  /** The scope forgets it, and does not run what it would have run. */
  unbind(): void {
    const { scope } = this
    this.scope = undefined
    if (scope !== undefined) Scope.closeUnsafe(scope, Exit.void)
  }
}

/** A place in the line before a lock, or inside. */
class Turn extends Place {
  readonly fiber: AnyFiber
  granted = false

  constructor(fiber: AnyFiber, own: Stopwatch | undefined) {
    super(own)
    this.fiber = fiber
  }

  get come(): Effect.Effect<unknown> {
    return Effect.callback<unknown>((resume) => {
      if (this.granted) resume(Effect.void)
      // It is resumed with nothing that fails.
      else this.resume = resume as Place["resume"]
    })
  }
}

interface Lock {
  inside: Turn
  /** Made for the first that has to wait. */
  line: Line<Turn> | undefined
}

/** What a namespace holds. A registry forgets it when that is nothing. */
class Space {
  readonly table: NameTable
  readonly definition: Definition
  readonly unique = MutableHashMap.empty<unknown, Entry>()
  readonly duplicate = MutableHashMap.empty<unknown, Set<Entry>>()
  readonly locks = MutableHashMap.empty<unknown, Lock>()
  live = 0
  waiting = 0

  constructor(table: NameTable, definition: Definition) {
    this.table = table
    this.definition = definition
  }

  get(key: unknown): Entry | undefined {
    return Option.getOrUndefined(MutableHashMap.get(this.unique, key))
  }

  /** The entries of a key that are served, in the order they came. */
  at(key: unknown): ReadonlyArray<Entry> {
    if (this.definition.kind === "duplicate") {
      return [...Option.getOrElse(MutableHashMap.get(this.duplicate, key), () => [])]
    }
    const entry = this.get(key)
    return entry?.live === true ? [entry] : []
  }

  add(key: unknown, holder: Holder): Entry {
    const entry = new Entry(this, key, holder)
    holder.entries.add(entry)
    if (this.definition.kind === "unique") MutableHashMap.set(this.unique, key, entry)
    else {
      const others = MutableHashMap.get(this.duplicate, key)
      if (Option.isSome(others)) others.value.add(entry)
      else MutableHashMap.set(this.duplicate, key, new Set([entry]))
    }
    return entry
  }

  serve(entry: Entry, value: unknown): void {
    entry.value = value
    if (!entry.live) this.live++
    entry.live = true
    entry.waiting?.wake(this.table.writer, false)
  }

  /** The run that registered it has ended, and maybe another follows, which takes the name over. */
  withdraw(entry: Entry): void {
    entry.unbind()
    if (entry.live) this.live--
    entry.live = false
    entry.value = undefined
    // Nobody waits for one of many.
    if (this.definition.kind === "duplicate") this.remove(entry)
  }

  remove(entry: Entry): void {
    const { holder, key } = entry
    if (!holder.entries.delete(entry)) return
    if (holder.entries.size === 0) this.table.forget(holder)
    entry.unbind()
    if (entry.live) this.live--
    entry.live = false
    if (this.definition.kind === "unique") MutableHashMap.remove(this.unique, key)
    else {
      const others = Option.getOrUndefined(MutableHashMap.get(this.duplicate, key))
      others?.delete(entry)
      if (others?.size === 0) MutableHashMap.remove(this.duplicate, key)
    }
    entry.waiting?.wake(this.table.writer, false)
    this.tidy()
  }

  /** Waits until something becomes of the entry, at most so long. Returns whether that was too long. */
  awaiting(entry: Entry, millis: number): Effect.Effect<boolean> {
    const { writer } = this.table
    return Effect.callback((resume) => {
      if (entry.live || !entry.isHeld) return resume(Effect.succeed(false))
      const waiters = entry.waiting ??= new Waiters()
      let waits = true
      const done = () => {
        // Woken and interrupted in one turn.
        if (!waits) return
        waits = false
        this.waiting--
        waiters.delete(waiter)
        writer.cancel(deadline)
      }
      const waiter = (late: boolean) => {
        done()
        resume(Effect.succeed(late))
      }
      waiters.add(waiter)
      this.waiting++
      const deadline = writer.after(millis, { run: () => writer.wake({ run: () => waiter(true) }) })
      return Effect.sync(done)
    })
  }

  enter(key: unknown, fiber: AnyFiber): Turn | undefined {
    const lock = Option.getOrUndefined(MutableHashMap.get(this.locks, key))
    if (lock?.inside.fiber === fiber) return undefined
    const turn = new Turn(fiber, lock === undefined ? undefined : fiber.getRef(Current)?.blocked)
    if (lock !== undefined) (lock.line ??= new Line()).add(turn, this.table.writer.now())
    else {
      turn.granted = true
      MutableHashMap.set(this.locks, key, { inside: turn, line: undefined })
    }
    return turn
  }

  /** Out of the lock, and the next one is in; or out of the line. */
  leave(key: unknown, turn: Turn): void {
    const { writer } = this.table
    const lock = Option.getOrUndefined(MutableHashMap.get(this.locks, key))
    if (lock === undefined) return
    if (!turn.granted) return void lock.line?.delete(turn, writer.now())
    const { line } = lock
    const next = line?.first
    if (line === undefined || next === undefined) {
      MutableHashMap.remove(this.locks, key)
      return this.tidy()
    }
    line.delete(next, writer.now())
    lock.inside = next
    next.granted = true
    writer.wake({ run: () => next.resume(Effect.void) })
  }

  tidy(): void {
    const { definition, duplicate, locks, unique } = this
    if (MutableHashMap.isEmpty(unique) && MutableHashMap.isEmpty(duplicate) && MutableHashMap.isEmpty(locks)) {
      this.table.spaces.delete(definition.name)
    }
  }

  stats(): NamespaceStats {
    const { definition: { kind, name }, live, locks, unique, waiting } = this
    const held = kind === "unique" ? MutableHashMap.size(unique) - live : 0
    return { name, kind, entries: live, restarting: held, waiting, locked: MutableHashMap.size(locks) }
  }
}

/** @internal */
export class NameTable {
  readonly writer: Writer
  readonly spaces = new Map<string, Space>()
  private readonly holders = new Map<Owner, Holder>()

  constructor(writer: Writer) {
    this.writer = writer
  }

  /** The space of a namespace, if it holds anything. */
  find(definition: Definition): Space | undefined {
    const space = this.spaces.get(definition.name)
    // The types of its keys and values are those of the handle: another could read what this one has written.
    if (space !== undefined && space.definition !== definition) {
      throw new Error(`two namespaces of one registry have one name, got: ${definition.name}`)
    }
    return space
  }

  private open(definition: Definition): Space {
    let space = this.find(definition)
    if (space === undefined) this.spaces.set(definition.name, space = new Space(this, definition))
    return space
  }

  forget(holder: Holder): void {
    this.holders.delete(holder.owner)
    holder.release()
  }

  register(
    definition: Definition,
    key: unknown,
    value: unknown,
    fiber: AnyFiber
  ): Effect.Effect<void, AlreadyRegistered> {
    const owner = ownerOf(fiber)
    const space = this.open(definition)
    const held = space.get(key)
    if (held !== undefined && held.holder.owner !== owner) {
      return Effect.fail(
        new AlreadyRegistered({ registry: definition.name, key: shown(key), holder: held.holder.path })
      )
    }
    const entry = held ?? space.add(key, this.holder(owner))
    entry.unbind()
    space.serve(entry, value)
    const scope = Context.getUnsafe(fiber.context as Context.Context<Scope.Scope>, Scope.Scope)
    if (!(owner instanceof RoutineRecord)) return entry.bind(scope)
    // A finalizer of a run that has ended registered it.
    if (owner.scope === undefined || owner.isClosing) space.withdraw(entry)
    return scope === owner.scope || !entry.live ? Effect.void : entry.bind(scope)
  }

  private holder(owner: Owner): Holder {
    let holder = this.holders.get(owner)
    if (holder === undefined) this.holders.set(owner, holder = new Holder(owner))
    return holder
  }

  unregister(definition: Definition, key: unknown, fiber: AnyFiber): void {
    const owner = ownerOf(fiber)
    const space = this.find(definition)
    if (space === undefined) return
    const held = space.get(key)
    if (held?.holder.owner === owner) space.remove(held)
    for (const entry of space.definition.kind === "duplicate" ? space.at(key) : []) {
      if (entry.holder.owner === owner) space.remove(entry)
    }
  }

  update(
    definition: Definition,
    key: unknown,
    change: (value: unknown) => unknown,
    fiber: AnyFiber
  ): Effect.Effect<unknown, NotOwner> {
    const owner = ownerOf(fiber)
    const entry = this.find(definition)?.get(key)
    if (entry?.live === true && entry.holder.owner === owner) return Effect.succeed(entry.value = change(entry.value))
    const holder = entry === undefined || entry.holder.owner === owner ? null : entry.holder.path
    return Effect.fail(new NotOwner({ registry: definition.name, key: shown(key), holder }))
  }

  whereis(definition: Definition, key: unknown): Effect.Effect<unknown, NameUnavailable> {
    const { writer } = this
    const asked = writer.now()
    const attempt = (late: boolean): Effect.Effect<unknown, NameUnavailable> => {
      const space = this.find(definition)
      const entry = space?.get(key)
      if (entry?.live === true) return Effect.succeed(entry.value)
      const waited = writer.now() - asked
      if (space !== undefined && entry !== undefined && !late) {
        return Effect.flatMap(space.awaiting(entry, definition.waitMillis - waited), attempt)
      }
      return Effect.fail(
        new NameUnavailable({
          registry: definition.name,
          key: shown(key),
          holder: entry?.holder.path ?? null,
          waitedMillis: Math.round(waited)
        })
      )
    }
    return attempt(false)
  }

  /** Runs within an uninterruptible region, of which `restore` is the way out. */
  lock<A, E, R>(
    definition: Definition,
    key: unknown,
    effect: Effect.Effect<A, E, R>,
    fiber: AnyFiber,
    restore: (effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  ): Effect.Effect<A, E, R> {
    const space = this.open(definition)
    const turn = space.enter(key, fiber)
    if (turn === undefined) return restore(effect)
    // The turn is left wherever the fiber is cut, also when it was its turn and it did not know yet.
    return Effect.ensuring(
      restore(turn.granted ? effect : Effect.andThen(turn.come, effect)),
      Effect.sync(() => space.leave(key, turn))
    )
  }
}

const ownerOf = (fiber: AnyFiber): Owner => {
  const record = fiber.getRef(Current)
  return record === undefined || record.isFinal ? fiber : record
}

const shown = (key: unknown): string => typeof key === "string" ? key : format(key)
