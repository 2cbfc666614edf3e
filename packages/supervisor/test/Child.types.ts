/** What compiles and what does not: read by the compiler alone. */
import type { CoreError, Orchestrator } from "@effect-orchestra/core"
import { Child, type Restart, Supervised, Supervisor, type SupervisorError } from "@effect-orchestra/supervisor"
import { Context, Effect, type Layer, type Scope } from "effect"

class Config extends Context.Service<Config, { readonly url: string }>()("types/Config") {}
class Db extends Context.Service<Db, { readonly query: Effect.Effect<string, "db"> }>()("types/Db") {}
class Api extends Context.Service<Api, { readonly port: number }>()("types/Api") {}

declare const DbLive: Layer.Layer<Db, "connect", Config>
declare const ApiLive: Layer.Layer<Api, "listen", Db>

type Equals<A, B> = (<T>() => T extends A ? 1 : 2) extends (<T>() => T extends B ? 1 : 2) ? true : false
const is = <_T extends true>() => undefined

// What an earlier sibling gives is provided; what nobody gives is required.
const chain = Supervisor.make({
  name: "chain",
  strategy: "rest_for_one",
  children: [Child.layer("db", DbLive), Child.layer("api", ApiLive), Child.make("job", Effect.asVoid(Api))]
})
type Handles = Supervised.Supervised<Db> | Supervised.Supervised<Api>
is<Equals<typeof chain, Supervisor.Supervisor<Handles, "connect" | "listen", Config, "chain">>>()
is<
  Equals<
    ReturnType<typeof run>,
    Effect.Effect<
      void,
      SupervisorError.StartFailure | SupervisorError.RestartIntensityReached,
      Config | Orchestrator
    >
  >
>()
const run = () => Supervisor.run(chain)
const layer = Supervisor.layer(chain)
is<Equals<typeof layer, Layer.Layer<Handles, SupervisorError.StartFailure, Config | Orchestrator>>>()
const launched = Supervisor.launch(layer)
is<
  Equals<
    typeof launched,
    Effect.Effect<never, SupervisorError.StartFailure | CoreError.SupervisorFailure, Config | Orchestrator>
  >
>()

// A supervisor is a child under its own name, and shows its siblings what it exports.
const nested = Child.supervisor(chain)
is<
  Equals<
    typeof nested,
    Child.Child<
      "chain",
      never,
      Handles,
      SupervisorError.StartFailure | SupervisorError.RestartIntensityReached,
      Config
    >
  >
>()
const readsDb = Supervised.use(Db, (db) => db.query)
const above = Supervisor.make({
  name: "above",
  strategy: "one_for_one",
  children: [nested, Child.make("reader", readsDb)]
})
is<
  Equals<
    typeof above,
    Supervisor.Supervisor<
      Handles,
      | SupervisorError.StartFailure
      | SupervisorError.RestartIntensityReached
      | SupervisorError.ServiceUnavailable
      | "db",
      Config,
      "above"
    >
  >
>()

Supervisor.make({
  name: "order",
  strategy: "rest_for_one",
  // @ts-expect-error the database starts after what needs it
  children: [Child.layer("api", ApiLive), Child.layer("db", DbLive)]
})

Supervisor.make({
  name: "raw",
  strategy: "one_for_one",
  // @ts-expect-error under one_for_one a child is not rebuilt with its sibling, and so may not hold what it gives
  children: [Child.layer("db", DbLive), Child.layer("api", ApiLive)]
})

// What survives a restart may be read: a handle, or a facade.
const stable = Child.layer("db", DbLive, { stable: [Supervised.stable(Db)] })
const survives = Supervisor.make({
  name: "survives",
  strategy: "one_for_one",
  children: [stable, Child.layer("api", ApiLive), Child.make("reader", readsDb)]
})
is<Equals<Requires<typeof survives>, Config>>()
type Requires<S> = S extends Supervisor.Supervisor<infer _Out, infer _E, infer R, infer _N> ? R : never

Supervisor.make({
  name: "early",
  strategy: "one_for_one",
  // @ts-expect-error the handle of a child that starts later
  children: [Child.make("reader", readsDb), stable]
})

// Under dependency a child reads what it depends on, and nothing else.
const graph = Supervisor.make({
  name: "graph",
  strategy: "dependency",
  children: [
    stable,
    Child.layer("api", ApiLive, { dependsOn: ["db"] }),
    Child.make("reader", Effect.andThen(readsDb, Api), { dependsOn: ["db", "api"] })
  ]
})
is<Equals<Requires<typeof graph>, Config>>()

Supervisor.make({
  name: "undeclared",
  strategy: "dependency",
  // @ts-expect-error the dependency is not named
  children: [Child.layer("db", DbLive), Child.layer("api", ApiLive)]
})

Supervisor.make({
  name: "undeclared",
  strategy: "dependency",
  // @ts-expect-error nor is that of what survives a restart
  children: [stable, Child.make("reader", readsDb)]
})

Supervisor.make({
  name: "indirect",
  strategy: "dependency",
  children: [
    stable,
    Child.layer("api", ApiLive, { dependsOn: ["db"] }),
    // @ts-expect-error each service that is read, also one that a dependency depends on
    Child.make("reader", readsDb, { dependsOn: ["api"] })
  ]
})

Supervisor.make({
  name: "unknown",
  strategy: "dependency",
  // @ts-expect-error nobody has this id
  children: [Child.layer("db", DbLive), Child.layer("api", ApiLive, { dependsOn: ["database"] })]
})

Supervisor.make({
  name: "circle",
  strategy: "dependency",
  // @ts-expect-error it starts later
  children: [Child.make("a", Effect.void, { dependsOn: ["b"] }), Child.make("b", Effect.void)]
})

// A layer may wrap the service of the same name that the supervisor itself requires.
declare const Cached: Layer.Layer<Db, never, Db>
const wrapped = Supervisor.make({
  name: "wrapped",
  strategy: "one_for_one",
  children: [Child.layer("cached", Cached)]
})
is<Equals<Requires<typeof wrapped>, Db>>()

Supervisor.make({
  name: "wrapped",
  strategy: "one_for_one",
  // @ts-expect-error but not that of a sibling
  children: [Child.layer("db", DbLive), Child.layer("cached", Cached)]
})

// A probe adds what it requires, less what the child gives, and its errors are nobody's.
declare const probe: Effect.Effect<boolean, "probe", Config | Db | Scope.Scope>
const probed = [
  Child.make("effect", Effect.void, { probe, every: "1 second", timeout: 100, failures: 5 }),
  Child.layer("layer", DbLive, { probe, stable: [Supervised.stable(Db)] }),
  Child.supervisor(chain, { probe: Supervised.use(Db, () => probe) })
] as const
is<Equals<Child.Phantom<(typeof probed)[0]>["R"], Config | Db>>()
is<Equals<Child.Phantom<(typeof probed)[1]>["R"], Config>>()
is<Equals<Child.Phantom<(typeof probed)[2]>["R"], Config | Db>>()
is<Equals<Child.Phantom<(typeof probed)[0]>["E"], never>>()

// A list of unknown length requires what any of its children requires.
const many = Supervisor.make({
  name: "many",
  strategy: "one_for_one",
  children: [1, 2].map((n) => Child.make(`n${n}`, Effect.andThen(Config, Effect.fail("n" as const))))
})
is<Equals<typeof many, Supervisor.Supervisor<never, "n", Config, "many">>>()

// Ids that are not literals are not known to be the same.
declare const worker: (id: string) => Child.Child<string, never, never, never, never>
declare const numbered: (n: number) => Child.Child<`worker-${number}`, never, never, never, never>
Supervisor.make({
  name: "workers",
  strategy: "one_for_one",
  children: [worker("a"), worker("b"), numbered(1), numbered(2), Child.make("c", Effect.void)]
})

// A hundred children, each of which reads what the one before it gives.
interface Link<Id> {
  readonly link: Id
}
declare const LinkLive: <Id, Before>() => Layer.Layer<Link<Id>, Id, Link<Before>>
const link = <const Id extends string, const Before extends string>(id: Id, _before: Before) =>
  Child.layer(id, LinkLive<Id, Before>())
const ten = <const T extends string, const Before extends string>(t: T, before: Before) =>
  [
    link(`${t}0`, before),
    link(`${t}1`, `${t}0`),
    link(`${t}2`, `${t}1`),
    link(`${t}3`, `${t}2`),
    link(`${t}4`, `${t}3`),
    link(`${t}5`, `${t}4`),
    link(`${t}6`, `${t}5`),
    link(`${t}7`, `${t}6`),
    link(`${t}8`, `${t}7`),
    link(`${t}9`, `${t}8`)
  ] as const
const hundred = Supervisor.make({
  name: "hundred",
  strategy: "rest_for_one",
  children: [
    ...ten("0", "first"),
    ...ten("1", "09"),
    ...ten("2", "19"),
    ...ten("3", "29"),
    ...ten("4", "39"),
    ...ten("5", "49"),
    ...ten("6", "59"),
    ...ten("7", "69"),
    ...ten("8", "79"),
    ...ten("9", "89")
  ]
})
is<Equals<Requires<typeof hundred>, Link<"first">>>()

const node = <const Id extends string, const Before extends string>(id: Id, before: Before) =>
  Child.layer(id, LinkLive<Id, Before>(), { dependsOn: [before] })
const tenNodes = <const T extends string, const Before extends string>(t: T, before: Before) =>
  [
    node(`${t}0`, before),
    node(`${t}1`, `${t}0`),
    node(`${t}2`, `${t}1`),
    node(`${t}3`, `${t}2`),
    node(`${t}4`, `${t}3`),
    node(`${t}5`, `${t}4`),
    node(`${t}6`, `${t}5`),
    node(`${t}7`, `${t}6`),
    node(`${t}8`, `${t}7`),
    node(`${t}9`, `${t}8`)
  ] as const
const hundredNodes = Supervisor.make({
  name: "hundredNodes",
  strategy: "dependency",
  children: [
    link("first", "config"),
    ...tenNodes("0", "first"),
    ...tenNodes("1", "09"),
    ...tenNodes("2", "19"),
    ...tenNodes("3", "29"),
    ...tenNodes("4", "39"),
    ...tenNodes("5", "49"),
    ...tenNodes("6", "59"),
    ...tenNodes("7", "69"),
    ...tenNodes("8", "79"),
    ...tenNodes("9", "89")
  ]
})
is<Equals<Requires<typeof hundredNodes>, Link<"config">>>()

const crew = [1, 2].map((n) => Child.make(`worker-${n}`, Effect.andThen(Db, Effect.never)))
const withCrew = Supervisor.make({
  name: "withCrew",
  strategy: "rest_for_one",
  children: [Child.layer("db", DbLive), ...crew]
})
is<Equals<Requires<typeof withCrew>, Config>>()
const crewAlone = Supervisor.make({ name: "crewAlone", strategy: "rest_for_one", children: crew })
is<Equals<Requires<typeof crewAlone>, Db>>()

Supervisor.make({
  name: "twice",
  strategy: "one_for_one",
  // @ts-expect-error two children share an id
  children: [Child.make("a", Effect.void), Child.make("a", Effect.void)]
})

Supervisor.make({
  name: "option",
  strategy: "one_for_one",
  // @ts-expect-error an unknown option
  intensty: 3,
  children: [Child.make("a", Effect.void)]
})

Child.make("option", Effect.void, {
  // @ts-expect-error an unknown option
  restrt: "permanent"
})

Supervisor.make({
  name: "strategy",
  // @ts-expect-error an unknown strategy
  strategy: "one_for_two",
  children: []
})

// @ts-expect-error a layer is ready when it is built
Child.layer("ready", DbLive, { awaitReady: true })

const strategy: Restart.Strategy = chain.strategy

export { run, strategy }
