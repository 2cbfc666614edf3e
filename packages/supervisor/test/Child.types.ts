/** What compiles and what does not: read by the compiler alone. */
import type { Orchestrator } from "@effect-orchestra/core"
import { Child, type Restart, Supervisor, type SupervisorError } from "@effect-orchestra/supervisor"
import { Context, Effect, type Layer } from "effect"

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
is<Equals<typeof chain, Supervisor.Supervisor<"connect" | "listen", Config, "chain">>>()
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
const layer: Layer.Layer<never, SupervisorError.StartFailure, Config | Orchestrator> = Supervisor.layer(chain)

// A supervisor is a child under its own name.
const nested = Child.supervisor(chain)
is<Equals<typeof nested.id, "chain">>()

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

export { layer, nested, strategy }
