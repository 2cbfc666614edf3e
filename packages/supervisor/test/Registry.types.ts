/** What compiles and what does not: read by the compiler alone. */
import { Registry, type SupervisorError } from "@effect-orchestra/supervisor"
import type { Effect, Option, Scope } from "effect"

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const is = <_T extends true>() => undefined

const Rooms = Registry.unique<{ readonly size: number }>("rooms")
const Seats = Registry.unique<string, { readonly row: number }>("seats")
const Listeners = Registry.duplicate<number>("listeners")

// A name can be taken; one entry of many cannot.
const taken = Registry.register(Rooms, "lobby", { size: 1 })
is<Equals<typeof taken, Effect.Effect<void, SupervisorError.AlreadyRegistered, Registry | Scope.Scope>>>()
const added = Registry.register(Listeners, "news", 1)
is<Equals<typeof added, Effect.Effect<void, never, Registry | Scope.Scope>>>()

// @ts-expect-error another value than the namespace's
export const wrongValue = Registry.register(Rooms, "lobby", { size: "1" })

// @ts-expect-error another key than the namespace's
export const wrongKey = Registry.lookup(Seats, "1")

// One name has one value at most; one key has many entries.
const one = Registry.lookup(Seats, { row: 1 })
is<Equals<typeof one, Effect.Effect<Option.Option<string>, never, Registry>>>()
const many = Registry.lookup(Listeners, "news")
is<Equals<typeof many, Effect.Effect<ReadonlyArray<number>, never, Registry>>>()

const found = Registry.whereis(Rooms, "lobby")
is<Equals<typeof found, Effect.Effect<{ readonly size: number }, SupervisorError.NameUnavailable, Registry>>>()

// @ts-expect-error nobody waits for one of many
export const ofMany = Registry.whereis(Listeners, "news")

// @ts-expect-error nor has one of many a value that could be told from the others
export const updated = Registry.updateValue(Listeners, "news", (n: number) => n)
