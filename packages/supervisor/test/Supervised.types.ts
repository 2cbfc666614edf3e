/** What compiles and what does not: read by the compiler alone. */
import { Child, Supervised, type SupervisorError } from "@effect-orchestra/supervisor"
import { Context, type Data, Effect, type Layer, type PubSub, type Queue, type Stream } from "effect"
import type { HttpClient } from "effect/http"
import { KeyValueStore } from "effect/persistence"
import { SqlClient } from "effect/sql"

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const is = <_T extends true>() => undefined

interface Row {
  readonly id: number
}
class Down extends (null as unknown as typeof Data.TaggedError<"Down">)("Down") {}

class Db extends Context.Service<Db, {
  readonly query: (sql: string) => Effect.Effect<ReadonlyArray<Row>, "db" | Down>
  readonly ping: Effect.Effect<void>
  readonly transaction: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | "db", R>
}>()("types/Db") {}

// A handle adds its error and its requirement to those of what it runs.
const used = Supervised.use(Db, (db) => db.query("select"))
is<
  Equals<
    typeof used,
    Effect.Effect<
      ReadonlyArray<Row>,
      "db" | Down | SupervisorError.ServiceUnavailable,
      Supervised.Supervised<Db>
    >
  >
>()
const handle = Supervised.handle(Db)
is<
  Equals<
    typeof handle,
    Effect.Effect<Supervised.SupervisedHandle<Context.Service.Shape<typeof Db>>, never, Supervised.Supervised<Db>>
  >
>()
declare const db: Context.Service.Shape<typeof Db>
const still = Supervised.succeed(Db, db)
is<Equals<typeof still, Layer.Layer<Supervised.Supervised<Db>>>>()
is<Equals<Supervised.Unstable<typeof db>, never>>()

// Effects, functions that return one, streams and classes may have a facade.
Supervised.stable(Db)
Supervised.stable(Db, { unavailable: { query: () => "db" as const, transaction: () => "db" as const } })
// @ts-expect-error a member can only fail with an error that it has
Supervised.stable(Db, { unavailable: { query: () => "other" as const } })
// @ts-expect-error this one cannot fail
Supervised.stable(Db, { unavailable: { ping: () => "db" as const } })
// @ts-expect-error an unknown option
Supervised.stable(Db, { unavailabel: {} })

class Pool {
  readonly #size = 1
  private readonly open = 2
  get(): Effect.Effect<number> {
    return Effect.succeed(this.#size + this.open)
  }
}
class Pools extends Context.Service<Pools, Pool>()("types/Pools") {}
Supervised.stable(Pools)

class Feed extends Context.Service<Feed, {
  readonly all: Stream.Stream<Row, "feed">
  readonly since: (id: number) => Stream.Stream<Row, "feed">
  readonly of: (name: string) => Stream.Stream<Row>
  readonly last: Effect.Effect<Row>
}>()("types/Feed") {}
is<Equals<Supervised.StreamMethods<Context.Service.Shape<typeof Feed>>, "since" | "of">>()
Supervised.stable(Feed, { streams: ["since", "of"], unavailable: { all: () => "feed" as const } })
// @ts-expect-error a method that returns a stream is not named: of
Supervised.stable(Feed, { streams: ["since"] })
// @ts-expect-error none is named
Supervised.stable(Feed)
// @ts-expect-error not a method that returns a stream
Supervised.stable(Feed, { streams: ["since", "of", "last"] })

class Send extends Context.Service<Send, (to: string) => Effect.Effect<void, "mail">>()("types/Send") {}
Supervised.stable(Send)

Supervised.stable(KeyValueStore.KeyValueStore, { constants: ["~effect/persistence/KeyValueStore"] })
// @ts-expect-error its brand is data
Supervised.stable(KeyValueStore.KeyValueStore)

// Anything else is named.
class Conf
  extends Context.Service<Conf, { readonly size: number; readonly load: Effect.Effect<void> }>()("types/Conf")
{}
is<Equals<Supervised.Unstable<Context.Service.Shape<typeof Conf>>, "size">>()
Supervised.stable(Conf, { constants: ["size"] })
// @ts-expect-error size is data
Supervised.stable(Conf)
const named: Context.Key<Conf, Context.Service.Shape<typeof Conf>> & Supervised.NotStable<"size"> = null as never
// @ts-expect-error the problem names the member, and no other
const other: typeof named = null as unknown as Context.Key<Conf, never> & Supervised.NotStable<"load">

type Rejected<S> = Supervised.Unstable<S>
type Rejects<S, Members> = Equals<Rejected<S>, Members>
is<Rejects<{ readonly nested: { readonly run: Effect.Effect<void> } }, "nested">>()
is<Rejects<{ readonly sync: () => number; readonly ok: () => Effect.Effect<number> }, "sync">>()
is<Rejects<{ readonly promise: () => Promise<number> }, "promise">>()
is<Rejects<{ readonly queue: Queue.Queue<number>; readonly pubsub: PubSub.PubSub<number> }, "queue" | "pubsub">>()
is<Rejects<{ readonly either: Effect.Effect<number> | number }, "either">>()
is<Rejects<{ readonly some: () => Effect.Effect<number> | undefined }, "some">>()
is<Rejects<{ readonly optional?: () => Effect.Effect<number> }, "optional">>()
is<Rejects<{ readonly any: any; readonly anyReturned: () => any }, "any" | "anyReturned">>()
is<Rejects<{ readonly unknown: unknown; readonly unknownReturned: () => unknown }, "unknown" | "unknownReturned">>()
is<Rejects<{ readonly never: () => never }, "never">>()
is<Rejects<{ readonly [name: string]: () => Effect.Effect<number> }, string>>()
is<Rejects<() => number, "the call itself">>()
is<Rejects<() => Stream.Stream<number>, "the call itself">>()
is<Rejects<(() => Effect.Effect<number>) & { readonly size: number }, "size">>()
is<Rejects<{ readonly withMembers: (() => Effect.Effect<number>) & { readonly size: number } }, "withMembers">>()
is<Rejects<{ readonly union: () => Effect.Effect<1, "a"> | Effect.Effect<2, "b"> }, never>>()
is<
  Rejects<
    { readonly symbol: Effect.Effect<void>; readonly [Symbol.iterator]: () => Iterator<number> },
    typeof Symbol.iterator
  >
>()

// Every signature counts.
interface Overloaded {
  readonly fine: { (id: number): Effect.Effect<number>; (id: string): Effect.Effect<string> }
  readonly curried: {
    (id: number): (name: string) => Effect.Effect<number>
    (id: number, name: string): Effect.Effect<number>
  }
  readonly mixed: { (id: number): Stream.Stream<number>; (id: string): Effect.Effect<string> }
  readonly generic: { <A>(a: A): Effect.Effect<A>; <A, B>(a: A, b: B): Effect.Effect<A | B> }
}
is<Rejects<Overloaded, "curried" | "mixed">>()

// An effect that is more than an effect, such as a statement, would lose the rest.
interface Statement extends Effect.Effect<ReadonlyArray<Row>, "sql"> {
  readonly stream: Stream.Stream<Row, "sql">
}
is<Rejects<{ readonly statement: (sql: string) => Statement }, "statement">>()
// @ts-expect-error a statement builder
Supervised.stable(SqlClient.SqlClient)
// @ts-expect-error a client that is combined
Supervised.stable(null as unknown as typeof HttpClient.HttpClient)

// The facade is exported beside the handles of all that the layer gives.
declare const Live: Layer.Layer<Db | Conf, "connect", Feed>
const child = Child.layer("db", Live, { stable: [Supervised.stable(Db)] })
is<
  Equals<
    typeof child,
    Child.Child<"db", Db | Conf, Supervised.Supervised<Db> | Supervised.Supervised<Conf> | Db, "connect", Feed>
  >
>()
const two = Child.layer("db", Live, {
  stable: [Supervised.stable(Db), Supervised.stable(Conf, { constants: ["size"] })],
  restart: "permanent"
})
is<
  Equals<
    typeof two,
    Child.Child<
      "db",
      Db | Conf,
      Supervised.Supervised<Db> | Supervised.Supervised<Conf> | Db | Conf,
      "connect",
      Feed
    >
  >
>()
// @ts-expect-error the layer does not give it
Child.layer("db", Live, { stable: [Supervised.stable(Send)] })
// @ts-expect-error an unknown option beside it
Child.layer("db", Live, { stable: [Supervised.stable(Db)], restrt: "permanent" })
// @ts-expect-error an effect gives nothing
Child.make("db", Effect.void, { stable: [Supervised.stable(Db)] })

export { other }
