/**
 * Stands for a service that is rebuilt: each member passes on to the instance of the present run.
 *
 * @internal
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { Facade, SupervisedHandle } from "../Supervised.ts"
import type { ServiceUnavailable } from "../SupervisorError.ts"

/** A handle that also tells at once. */
interface Instances extends SupervisedHandle<unknown> {
  readonly now: unknown
  readonly failure: ServiceUnavailable
}

// The types of `Supervised.stable` saw to it that a member is what it is taken for here.
type Member = (...args: ReadonlyArray<unknown>) => unknown
type Members = { [name: PropertyKey]: unknown }
type Passed = Effect.Effect<unknown, unknown>
type PassedStream = Stream.Stream<unknown, unknown>

/** The members are those of the first instance. While there never was one, whoever reads a member is told so. @internal */
export const facadeOf = (facade: Facade<unknown, unknown>, instances: Instances): unknown => {
  const first = instances.now
  if (first !== undefined) return standIn(facade, instances, first)
  let made: object | undefined = undefined
  const known = (): object | undefined => {
    const first = made === undefined ? instances.now : undefined
    return first === undefined ? made : made = standIn(facade, instances, first)
  }
  return new Proxy(itself(instances), {
    get: (_, name) => {
      const target = known()
      if (target !== undefined) return Reflect.get(target, name)
      // Those are read by whoever is merely handed it.
      if (typeof name === "symbol" || name === "then" || name === "toJSON") return undefined
      throw instances.failure
    },
    has: (_, name) => Reflect.has(known() ?? {}, name)
  })
}

const standIn = (facade: Facade<unknown, unknown>, instances: Instances, first: unknown): object => {
  if (typeof first === "function") return itself(instances)
  const self: Members = {}
  // Its members may be those of a class.
  for (let at = first; at !== null && at !== Object.prototype; at = Object.getPrototypeOf(at)) {
    for (const name of Reflect.ownKeys(at as object)) {
      if (name === "constructor" || Object.hasOwn(self, name)) continue
      const member = (first as Members)[name]
      if (facade.constants.has(name)) self[name] = member
      else {
        const passed = passOn(instances, name, member, facade)
        if (passed !== undefined) self[name] = passed
      }
    }
  }
  return self
}

/** What a member becomes; nothing, if it is the instance's own business. */
const passOn = (
  instances: Instances,
  name: PropertyKey,
  member: unknown,
  facade: Facade<unknown, unknown>
): unknown => {
  const unavailable = facade.unavailable[name]
  const got = unavailable === undefined ? Effect.orDie(instances.get) : Effect.mapError(instances.get, unavailable)
  const pass = (read: (service: unknown) => unknown): Passed =>
    Effect.suspend(() => {
      const { now } = instances
      return now === undefined ? Effect.flatMap(got, read as (service: unknown) => Passed) : read(now) as Passed
    })
  const passStream = (read: (service: unknown) => unknown): PassedStream =>
    Stream.unwrap(Effect.map(got, read as (service: unknown) => PassedStream))
  const value = (service: unknown) => (service as Members)[name]
  if (Effect.isEffect(member)) return pass(value)
  if (Stream.isStream(member)) return passStream(value)
  if (typeof member !== "function") return undefined
  const through = facade.streams.has(name) ? passStream : pass
  // Called on the instance itself, that may have fields of its own.
  return (...args: ReadonlyArray<unknown>) =>
    through((service) => (service as { readonly [name: PropertyKey]: Member })[name]?.(...args))
}

/** A service that is a function. */
const itself = (instances: Instances): Member => {
  const got = Effect.orDie(instances.get)
  return (...args) => Effect.flatMap(got, (service) => (service as Member)(...args) as Passed)
}
