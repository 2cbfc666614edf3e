import { Orchestrator } from "@effect-orchestra/core"
import { Server } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"
import { Console, Effect, Layer, Redacted } from "effect"
import { HttpRouter } from "effect/http"
import * as Net from "node:net"

const api = "/orchestra/api/v1"
const app = Orchestrator.layerWith({ name: "app" })

/** A server on a free port, and what it has printed. */
const served = Effect.fnUntraced(function*(options?: Server.ServerOptions) {
  const printed: Array<string> = []
  const recorder = { ...console, error: (line: string) => void printed.push(line) }
  const context = yield* Layer.build(Server.layer({ port: 0, ...options })).pipe(
    Effect.provideService(Console.Console, recorder)
  )
  const server = yield* Effect.provide(Server.Server, context)
  return { ...server, printed }
})

interface Answer {
  readonly status: string
  readonly body: any
  readonly millis: number
}

/** Says some bytes, waits until the server hangs up, and gives what it said and after how long. */
const told = (port: number, ...said: ReadonlyArray<string>) =>
  Effect.callback<Answer>((resume) => {
    const from = performance.now()
    const socket = Net.connect(port, "127.0.0.1", () => said.forEach((bytes) => socket.write(bytes)))
    let answer = ""
    socket.setEncoding("utf8").on("data", (chunk) => answer += String(chunk)).on("error", () => {})
    socket.on("close", () => {
      const [head = "", body = ""] = answer.split("\r\n\r\n")
      resume(Effect.succeed({
        status: head.slice(9, 12),
        body: body.startsWith("{") ? JSON.parse(body) : body,
        millis: performance.now() - from
      }))
    })
    return Effect.sync(() => socket.destroy())
  }).pipe(Effect.timeout("5 seconds"))

const post = (length: number) =>
  `POST ${api}/session HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: ${length}\r\n\r\n`

// Real sockets and their clocks: what a client does too slowly, or too much of.
describe("a client of the server", () => {
  const short = { headersTimeout: "100 millis", requestTimeout: "200 millis", idleTimeout: "150 millis" } as const

  it.live("that never finishes the head of its request is told so and hung up on", () =>
    Effect.gen(function*() {
      const { port } = yield* served(short)
      const { body, millis, status } = yield* told(port, "GET /healthz HTTP/1.1\r\nHost: local")
      assert.strictEqual(status, "408")
      assert.deepInclude(body, { type: "about:blank", title: "Request Timeout", status: 408, check: "timeout" })
      assert.isAtLeast(millis, 90)
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.live("that never finishes its body is told so and hung up on", () =>
    Effect.gen(function*() {
      const { port } = yield* served({ ...short, token: Redacted.make("s3cret") })
      const { body, millis, status } = yield* told(port, post(20), "{")
      assert.deepStrictEqual([status, body.check], ["408", "timeout"])
      assert.isAtLeast(millis, 190)
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.live("that asks nothing more is hung up on, but not while it reads a stream", () =>
    Effect.gen(function*() {
      const { port, url } = yield* served(short)
      const stream = yield* Effect.promise(() => fetch(`${url}${api}/stream`))
      const { millis, status } = yield* told(port, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
      assert.strictEqual(status, "200")
      assert.isAtLeast(millis, 140)
      assert.isBelow(millis, 2000)
      yield* Effect.sleep("300 millis")
      const reader = stream.body?.getReader() ?? assert.fail()
      assert.isFalse((yield* Effect.promise(() => reader.read())).done)
      yield* Effect.promise(() => reader.cancel())
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.live("that reads nothing of its answers is hung up on", () =>
    Effect.gen(function*() {
      const { port, url } = yield* served({ stallTimeout: "150 millis", idleTimeout: "500 millis" })
      const page = yield* Effect.promise(() => fetch(`${url}/orchestra`).then((response) => response.text()))
      const asset = /"(\/orchestra\/assets\/[^"]+js)"/.exec(page)?.[1] ?? assert.fail()
      const request = `GET ${asset} HTTP/1.1\r\nHost: localhost\r\n\r\n`
      const { length } = yield* Effect.promise(() => fetch(url + asset).then((response) => response.text()))
      // More than the sockets hold.
      const requests = Math.ceil(15_000_000 / length)
      const got = yield* Effect.callback<number>((resume) => {
        let bytes = 0
        const socket = Net.connect(port, "127.0.0.1", () => socket.write(request.repeat(requests)))
        socket.pause().on("data", (chunk) => bytes += chunk.length).on("error", () => {})
        socket.on("close", () => resume(Effect.succeed(bytes)))
        // It reads on when it is too late: whoever does not read does not see the end either.
        const late = setTimeout(() => socket.resume(), 1500)
        return Effect.sync(() => {
          clearTimeout(late)
          socket.destroy()
        })
      }).pipe(Effect.timeout("10 seconds"))
      assert.isBelow(got, requests * length)
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.live("that sends too much of anything is told what", () =>
    Effect.gen(function*() {
      const { port } = yield* served({ token: Redacted.make("s3cret") })
      const host = "Host: localhost\r\nConnection: close\r\n"
      const cases: ReadonlyArray<readonly [string, string, string]> = [
        [`GET /${"x".repeat(4096)} HTTP/1.1\r\n${host}\r\n`, "414", "url"],
        [`GET /${"x".repeat(20_000)} HTTP/1.1\r\n${host}\r\n`, "431", "headers"],
        [`GET / HTTP/1.1\r\n${host}X: ${"x".repeat(20_000)}\r\n\r\n`, "431", "headers"],
        [post(70_000).replace("\r\n\r\n", "\r\nConnection: close\r\n\r\n"), "413", "body"],
        [
          `POST ${api}/session HTTP/1.1\r\n${host}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n` +
          `11170\r\n${"x".repeat(70_000)}\r\n0\r\n\r\n`,
          "413",
          "body"
        ],
        ["\u0016\u0003\u0001 this is TLS\r\n\r\n", "400", "syntax"],
        ["GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", "400", "syntax"]
      ]
      for (const [bytes, status, check] of cases) {
        const answer = yield* told(port, bytes)
        assert.deepStrictEqual([answer.status, answer.body.check], [status, check], bytes.slice(0, 40))
      }
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.live("is let in by the link that the server prints once, and by nothing else", () =>
    Effect.gen(function*() {
      for (
        const options of [{ token: "generate" }, { control: true }, { host: "0.0.0.0", token: "generate" }] as const
      ) {
        const { port, printed, token, url } = yield* served(options)
        const secret = Redacted.value(token ?? assert.fail())
        assert.deepStrictEqual(printed, [`${url}/orchestra#token=${secret}`])
        const ask = (headers: Record<string, string>) =>
          Effect.promise(() =>
            fetch(`http://127.0.0.1:${port}${api}/session`, { headers }).then(({ status }) => status)
          )
        assert.strictEqual(yield* ask({}), 401)
        assert.strictEqual(yield* ask({ authorization: `Bearer ${secret}` }), 200)
      }
      for (const options of [{}, { token: Redacted.make("s3cret") }, { profile: true }]) {
        const { printed, token } = yield* served(options)
        assert.deepStrictEqual([printed, token], [[], undefined])
      }
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.live("on another machine is none of a server that may act and has no token", () =>
    Effect.gen(function*() {
      for (const options of [{ control: true }, { tokens: [{ label: "unset", token: Redacted.make("") }] }]) {
        const error = yield* Effect.flip(served({ host: "0.0.0.0", ...options }))
        assert.strictEqual(error._tag, "InsecureBind")
      }
      yield* served({ host: "0.0.0.0", tokens: [{ label: "ops", token: Redacted.make("s3cret") }] })
    }).pipe(Effect.scoped, Effect.provide(app)))

  it.live("is let in to a server that is mounted elsewhere by a link without an address", () =>
    Effect.gen(function*() {
      const printed: Array<string> = []
      const recorder = { ...console, error: (line: string) => void printed.push(line) }
      yield* Layer.build(Layer.provide(Server.router({ token: "generate" }), HttpRouter.layer)).pipe(
        Effect.provideService(Console.Console, recorder)
      )
      assert.match(printed.join("\n"), /^\/orchestra#token=[\w-]{43}$/)
    }).pipe(Effect.scoped, Effect.provide(app)))
})
