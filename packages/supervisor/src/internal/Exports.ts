/**
 * What a supervisor lets others see of the services of its children: handles and facades that outlive the runs.
 *
 * A handle finds the instance when it is asked, through the slots of the tree: nothing is moved when a run begins or
 * ends. Which services a layer gives is known once it was built. A call for one that was never seen, of a child that was
 * not needed when its supervisor started, looks through all that give any.
 *
 * @internal
 */
import { type Node, path } from "@effect-orchestra/core/Kernel"
import { Current } from "@effect-orchestra/core/RoutineRecord"
import type { Stopwatch } from "@effect-orchestra/core/Stopwatch"
import type { Deadline, Waiters, Writer } from "@effect-orchestra/core/Writer"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Child from "../Child.ts"
import type { Member, Strategy } from "../Restart.ts"
import type { Facade, Supervised, SupervisedHandle } from "../Supervised.ts"
import type { Any as Supervisor } from "../Supervisor.ts"
import { ServiceUnavailable } from "../SupervisorError.ts"
import { facadeOf } from "./Facade.ts"

/** A child in its place, as far as its services go: a `Slot`. @internal */
export interface Offer {
  readonly record: Node
  /** For who waited in vain. */
  readonly state: string
  /** What its layer gives, from when it is built until its run ends: gone before its scope is closed. */
  readonly services: Context.Context<never> | undefined
  /** Those of the supervisor that is its body, from when that is ready until its run ends. */
  readonly exports: Exports | undefined
  /** Woken when `services` or `exports` come, and when it is clear that they will not. */
  readonly offered: Waiters<void>
  /** Its state, when nothing comes of waiting. */
  readonly unavailable: string | undefined
}

/** The supervisor: a `SupervisorNode`. @internal */
export interface Exporter extends Node {
  readonly writer: Writer
  readonly strategy: Strategy
  readonly spec: Pick<Supervisor, "children" | "unavailable">
  /** Those that were deleted are not in it. */
  readonly slots: ReadonlyMap<string, Offer>
  /** Whether it is on its way to its end. A parent may start it again, so callers wait there. */
  readonly isStopping: boolean
}

/** A child that gives anything, and what is known of that. */
class Giver {
  readonly child: Child.Any
  readonly handles = new Map<string, Handle<unknown>>()
  readonly facades = new Map<Facade<unknown, unknown>, unknown>()
  /** The keys of all that it was ever seen to give, and what was looked at last. */
  keys: ReadonlySet<string> = new Set()
  looked: Context.Context<never> | Exports | undefined = undefined
  /** The last context with what it gives, and what that was made of. */
  given: Given | undefined = undefined

  constructor(child: Child.Any) {
    this.child = child
  }
}

interface Given {
  readonly before: Context.Context<never>
  readonly keys: ReadonlySet<string>
  readonly raw: Context.Context<never> | undefined
  readonly context: Context.Context<never>
}

/** Why there is no instance and will be none, for all one knows. */
interface Absence {
  readonly node: Node
  readonly state: string
}

/** @internal */
export class Exports {
  readonly exporter: Exporter
  /** How long a call waits, in milliseconds. */
  readonly wait: number
  /** In start order. */
  private givers: ReadonlyArray<Giver> = []
  /** How many of them stand before each child. */
  private readonly positions = new Map<string, number>()
  /** Who gives a service, of those that were asked for without saying whom. */
  private readonly owners = new Map<string, Giver>()
  readonly handles = new Map<string, Handle<unknown>>()

  constructor(exporter: Exporter) {
    this.exporter = exporter
    this.wait = Duration.toMillis(exporter.spec.unavailable.wait)
    this.update()
  }

  /** Follows the specification of its supervisor. What is known of a child that stays is kept. */
  update(): void {
    const before = new Map(this.givers.map((giver) => [giver.child, giver]))
    const givers: Array<Giver> = []
    this.positions.clear()
    this.owners.clear()
    for (const child of this.exporter.spec.children) {
      this.positions.set(child.id, givers.length)
      if (child.body._tag !== "Effect") givers.push(before.get(child) ?? new Giver(child))
    }
    this.givers = givers
  }

  /** What goes out to those around the supervisor: no instance of any run. */
  get context(): Context.Context<never> {
    const services = new Map<string, unknown>()
    for (const giver of this.givers) this.addStable(services, giver)
    return Context.makeUnsafe(services)
  }

  /**
   * What a child is started with: `context`, and what the children before it give. Members of a group get the instances,
   * since they are rebuilt with them. A child that was added by hand comes last in its group, and else brings all itself.
   */
  contextOf({ dependsOn, id }: Member, context: Context.Context<never>): Context.Context<never> {
    const { givers } = this
    if (givers.length === 0) return context
    const { strategy } = this.exporter
    const visible = strategy === "dependency"
      ? givers.filter((giver) => dependsOn.includes(giver.child.id))
      : givers.slice(0, this.positions.get(id) ?? (strategy === "one_for_one" ? 0 : givers.length))
    return visible.reduce((before, giver) => this.with(before, giver), context)
  }

  /** Those that come after the same children are given the same context, until one of these has another run. */
  private with(before: Context.Context<never>, giver: Giver): Context.Context<never> {
    const { slots, strategy } = this.exporter
    const keys = this.keysOf(giver)
    const raw = strategy === "one_for_one" ? undefined : slots.get(giver.child.id)?.services
    const { given } = giver
    if (given !== undefined && given.before === before && given.keys === keys && given.raw === raw) return given.context
    const services = new Map<string, unknown>(before.mapUnsafe)
    this.addStable(services, giver)
    raw?.mapUnsafe.forEach((service, key) => services.set(key, service))
    const context = Context.makeUnsafe<never>(services)
    giver.given = { before, keys, raw, context }
    return context
  }

  private addStable(services: Map<string, unknown>, giver: Giver): void {
    services.set(`${prefix}exports/${this.exporter.id}`, this)
    for (const key of this.keysOf(giver)) services.set(prefix + key, this.handleOf(key, giver))
    for (const facade of facades(giver.child)) {
      const handle = this.handleOf(facade.tag.key, giver)
      const known = giver.facades.get(facade) ?? facadeOf(facade, handle)
      giver.facades.set(facade, known)
      services.set(facade.tag.key, known)
    }
  }

  private keysOf(giver: Giver): ReadonlySet<string> {
    const slot = this.exporter.slots.get(giver.child.id)
    const look = slot?.services ?? slot?.exports
    if (look === undefined || look === giver.looked) return giver.keys
    giver.looked = look
    const keys = look instanceof Exports ? look.keys : [...look.mapUnsafe.keys()]
    if (keys.some((key) => !giver.keys.has(key))) giver.keys = new Set([...giver.keys, ...keys])
    return giver.keys
  }

  private get keys(): ReadonlyArray<string> {
    return this.givers.flatMap((giver) => [...this.keysOf(giver)])
  }

  /** The same for the same key, as long as the supervisor lives: of this child, or of whoever is found to give it. */
  handleOf(key: string, giver?: Giver): Handle<unknown> {
    const { handles } = giver ?? this
    const known = handles.get(key)
    if (known !== undefined) return known
    const handle = new Handle(this, key, giver)
    handles.set(key, handle)
    return handle
  }

  /** The instance of the present run, if there is one. */
  instance(key: string, giver?: Giver): unknown {
    const owner = giver ?? this.owners.get(key)
    if (owner !== undefined) {
      const slot = this.exporter.slots.get(owner.child.id)
      if (slot === undefined) return undefined
      return slot.services === undefined ? slot.exports?.instance(key) : slot.services.mapUnsafe.get(key)
    }
    for (const giver of this.givers.toReversed()) {
      const service = this.instance(key, giver)
      if (service === undefined) continue
      this.owners.set(key, giver)
      return service
    }
    return undefined
  }

  /** Why there is no instance; undefined, and the children in `waits`, when there may be one if one waits for them. */
  absence(key: string, giver: Giver | undefined, waits: Array<Offer>): Absence | undefined {
    const { exporter } = this
    const owner = giver ?? this.owners.get(key)
    if (owner !== undefined) {
      const slot = exporter.slots.get(owner.child.id)
      if (slot === undefined) return { node: exporter, state: `without child "${owner.child.id}"` }
      const { exports, record, services } = slot
      if (services !== undefined) return { node: record, state: without }
      // What ends may be started again by the supervisor around it.
      if (exports !== undefined && !exports.exporter.isStopping) return exports.absence(key, undefined, waits)
      const state = slot.unavailable ?? (exporter.isStopping ? "stopping" : undefined)
      if (state !== undefined) return { node: record, state }
      waits.push(slot)
      return undefined
    }
    const before = waits.length
    let absence: Absence = { node: exporter, state: without }
    for (const giver of this.givers) {
      const one = this.absence(key, giver, waits)
      if (one !== undefined && one.state !== without) absence = one
    }
    return waits.length > before ? undefined : absence
  }
}

const exported = new WeakMap<Exporter, Exports>()

/** The exports of a supervisor: the same each time. @internal */
export const exportsOf = (exporter: Exporter): Exports => {
  const known = exported.get(exporter) ?? new Exports(exporter)
  exported.set(exporter, known)
  return known
}

const without = "running without it"

/** Finds a service, whichever run gives it. @internal */
export class Handle<S> implements SupervisedHandle<S> {
  private readonly exports: Exports
  private readonly key: string
  private readonly giver: Giver | undefined

  constructor(exports: Exports, key: string, giver: Giver | undefined) {
    this.exports = exports
    this.key = key
    this.giver = giver
  }

  /** The instance of the present run, if there is one. */
  get now(): S | undefined {
    // What stands under the key of a tag has its type.
    return this.exports.instance(this.key, this.giver) as S | undefined
  }

  readonly get: Effect.Effect<S, ServiceUnavailable> = Effect.withFiber((fiber) => {
    const service = this.now
    return service === undefined ? this.wait(fiber.getRef(Current)?.blocked) : Effect.succeed(service)
  })

  readonly use = <A, E, R>(f: (service: S) => Effect.Effect<A, E, R>): Effect.Effect<A, E | ServiceUnavailable, R> =>
    Effect.suspend(() => this.run(f))

  /** As `use`, for who is in the midst of being run. */
  run<A, E, R>(f: (service: S) => Effect.Effect<A, E, R>): Effect.Effect<A, E | ServiceUnavailable, R> {
    const service = this.now
    return service === undefined ? Effect.flatMap(this.get, f) : f(service)
  }

  /** What a call that does not wait fails with. */
  get failure(): ServiceUnavailable {
    const waits: Array<Offer> = []
    return this.failed(this.exports.absence(this.key, this.giver, waits), waits)
  }

  private failed(absence: Absence | undefined, waits: ReadonlyArray<Offer>): ServiceUnavailable {
    const [offer] = waits
    const { node, state } = absence ?? { node: offer?.record ?? this.exports.exporter, state: offer?.state ?? without }
    return new ServiceUnavailable({ service: this.key, path: path(node), state })
  }

  private wait(blocked: Stopwatch | undefined): Effect.Effect<S, ServiceUnavailable> {
    return Effect.callback((resume) => {
      const { exporter: { writer }, wait } = this.exports
      let waits: Array<Offer> = []
      let deadline: Deadline | undefined = undefined
      const leave = () => {
        for (const { offered } of waits) offered.delete(look)
        waits = []
      }
      const end = () => {
        leave()
        if (deadline === undefined) return
        writer.cancel(deadline)
        blocked?.leave(writer.now())
        deadline = undefined
      }
      const look = () => {
        leave()
        const service = this.now
        const absence = service === undefined ? this.exports.absence(this.key, this.giver, waits) : undefined
        if (service === undefined && absence === undefined && wait > 0) {
          for (const { offered } of waits) offered.add(look)
          if (deadline !== undefined) return
          deadline = writer.after(wait, { run: late })
          blocked?.enter(writer.now())
          return
        }
        const answer = service === undefined ? Effect.fail(this.failed(absence, waits)) : Effect.succeed(service)
        end()
        resume(answer)
      }
      const late = () => {
        const failure = this.failed(undefined, waits)
        end()
        writer.wake({ run: () => resume(Effect.fail(failure)) })
      }
      look()
      return Effect.sync(end)
    })
  }
}

/** The facades of a child: for a supervisor those of all below it. */
const facades = ({ body, spec }: Child.Any): ReadonlyArray<Facade<unknown, unknown>> =>
  body._tag === "Supervisor" ? body.spec.children.flatMap(facades) : spec.stable

const prefix = "~effect-orchestra/supervisor/Supervised/"

const handleKeys = new Map<string, Context.Key<unknown, unknown>>()

/** Under what the handle of a service stands in a context. @internal */
export const handleKey = <I, S>(tag: Context.Key<I, S>): Context.Key<Supervised<I>, SupervisedHandle<S>> => {
  const known = handleKeys.get(tag.key) ?? Context.Service<unknown, unknown>(prefix + tag.key)
  handleKeys.set(tag.key, known)
  // It is made for this tag.
  return known as Context.Key<Supervised<I>, SupervisedHandle<S>>
}

/** The handle of a service among the services of a fiber. @internal */
export const handleIn = <I, S>(context: Context.Context<never>, tag: Context.Key<I, S>): SupervisedHandle<S> => {
  const key = handleKey(tag)
  const handle = Context.getOrUndefined(context, key)
  if (handle !== undefined) return handle
  const around = [...context.mapUnsafe.values()].filter((service) => service instanceof Exports).reverse()
  const exports = around.find((exports) => exports.instance(tag.key) !== undefined) ??
    around.find((exports) => exports.handleOf(tag.key).failure.state !== without) ?? around[0]
  if (exports === undefined) throw new Error(`Service not found: ${key.key}`)
  // What stands under the key of a tag has its type.
  return exports.handleOf(tag.key) as unknown as SupervisedHandle<S>
}
