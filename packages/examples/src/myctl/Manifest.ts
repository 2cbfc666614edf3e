/**
 * The manifest: which servers there are to be.
 */
import { Duration, Effect, Option, Path, Schema } from "effect"
import * as JsonFile from "./JsonFile.ts"
import { NotReadable, UnknownServer } from "./MyctlError.ts"

const isRegExp = (text: string): boolean => {
  try {
    return new RegExp(text) instanceof RegExp
  } catch {
    return false
  }
}

/** When a server is ready: by one of two signs. */
const Ready = Schema.Struct({
  /** This path answers 200 on its port. */
  health: Schema.optionalKey(Schema.String.check(Schema.isPattern(/^\//, { expected: "a path such as /health" }))),
  /** Its output has a line that matches; a first group tells the port. */
  line: Schema.optionalKey(Schema.String.check(Schema.makeFilter(isRegExp, { expected: "a regular expression" })))
}).check(
  Schema.makeFilter(({ health, line }) => (health === undefined) !== (line === undefined), {
    expected: "either health or line"
  })
)

const defaultTo = <S extends Schema.Top>(value: S["Encoded"]) => Schema.withDecodingDefaultKey<S>(Effect.succeed(value))

const Time = Schema.DurationFromString.check(
  Schema.makeFilter(Duration.isGreaterThan(Duration.zero), { expected: "a duration greater than 0" })
)

export type Server = typeof Server.Type
export const Server = Schema.Struct({
  /** Names its files in the state directory as well. */
  name: Schema.String.check(
    Schema.isPattern(/^[a-z0-9][a-z0-9-]{0,62}$/, { expected: "a name of small letters, digits and -" })
  ),
  /** Runs in the directory of the manifest, with NAME and PORT in its environment; `node` is the one that runs myctl. */
  command: Schema.NonEmptyArray(Schema.NonEmptyString),
  /** 0 when the server takes any free one, which its ready line tells. */
  port: Schema.Port.pipe(defaultTo(0)),
  ready: Ready.pipe(defaultTo({ health: "/health" })),
  readyWithin: Time.pipe(defaultTo("10 seconds")),
  /** From SIGTERM to SIGKILL. */
  stopWithin: Time.pipe(defaultTo("5 seconds")),
  /** Files and directories, relative to the manifest: when the content of one changes, the server is out of date. */
  sources: Schema.NonEmptyArray(Schema.NonEmptyString)
}).check(
  Schema.makeFilter(({ port, ready }) =>
    ready.health !== undefined && port === 0
      ? { path: ["port"], issue: "expected a port for readiness by /health" }
      : undefined
  )
)

/** As much of a server as it takes to find and to stop it. */
export type Stoppable = Pick<Server, "name" | "stopWithin">

const unique = (field: string, of: (server: Server) => unknown) =>
  Schema.makeFilter((servers: ReadonlyArray<Server>) =>
    servers.flatMap((server, index) =>
      of(server) !== undefined && servers.findIndex((other) => of(other) === of(server)) < index
        ? [{ path: [index, field], issue: `expected a ${field} that no other server has` }]
        : []
    )
  )

export const Manifest = Schema.Struct({
  servers: Schema.NonEmptyArray(Server).check(
    unique("name", ({ name }) => name),
    unique("port", ({ port }) => port === 0 ? undefined : port)
  )
})

export interface Manifest {
  readonly path: string
  /** Commands run here, and sources are relative to it. */
  readonly directory: string
  readonly servers: ReadonlyArray<Server>
}

/** Loads the manifest. Fails with every problem in it, by its path inside the document. */
export const load = Effect.fnUntraced(function*(path: string) {
  const { dirname, resolve } = yield* Path.Path
  const manifest = yield* JsonFile.read(path, Manifest)
  if (Option.isNone(manifest)) return yield* new NotReadable({ path, reason: "it is not there" })
  return { path, directory: dirname(resolve(path)), servers: manifest.value.servers } satisfies Manifest
})

/** The manifest with only these servers; all of them if none is named. */
export const only = Effect.fnUntraced(function*(manifest: Manifest, names: ReadonlyArray<string>) {
  const unknown = names.filter((name) => !manifest.servers.some((server) => server.name === name))
  if (unknown.length > 0) return yield* new UnknownServer({ names: unknown, manifest: manifest.path })
  return names.length === 0
    ? manifest
    : { ...manifest, servers: manifest.servers.filter(({ name }) => names.includes(name)) }
})
