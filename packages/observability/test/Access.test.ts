import { Access, Token } from "@effect-orchestra/observability"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Option, Redacted } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import { TestClock } from "effect/testing"

type Door = Access.Access["Service"]

interface Asking {
  readonly token?: string
  readonly cookie?: string
  readonly from?: string
  readonly headers?: Record<string, string>
}

const requestOf = ({ cookie, from = "127.0.0.1", headers, token }: Asking) =>
  HttpServerRequest.fromWeb(
    new Request("http://localhost/", {
      headers: {
        ...token === undefined ? {} : { authorization: `Bearer ${token}` },
        ...cookie === undefined ? {} : { cookie },
        ...headers
      }
    })
  ).modify({ remoteAddress: Option.some(from) })

const asking = (asking: Asking) => Effect.provideService(HttpServerRequest.HttpServerRequest, requestOf(asking))

const who = Effect.map(Access.Caller, ({ label, scope }) => HttpServerResponse.text(`${label} ${scope}`))

/** Who the caller is taken for, or the status and the check that refuse it. */
const ask = (access: Door, scope: Token.Scope, from: Asking = {}, options?: Access.RequireOptions) =>
  asking(from)(access.require(scope, options)(who)).pipe(
    Effect.flatMap((response) => {
      const web = HttpServerResponse.toWeb(response)
      return Effect.promise(() => web.text().then((text) => web.status === 200 ? text : refused(web.status, text)))
    })
  )

const refused = (status: number, text: string): string => {
  const problem: { readonly check?: string } = JSON.parse(text)
  return `${status} ${problem.check}`
}

const secret = (value: string) => Redacted.make(value)

const labelled = [
  { label: "prometheus", token: secret("look") },
  { label: "support", token: secret("into"), scope: "inspect" },
  { label: "on call", token: secret("act"), scope: "control" }
] as const

describe("Access", () => {
  it.effect("lets everybody look where no token is configured, and do nothing else unless it is enabled", () =>
    Effect.gen(function*() {
      for (const options of [{}, { token: secret("") }, { tokens: [{ label: "unset", token: secret("") }] }]) {
        const access = Access.make(options)
        assert.strictEqual(access.generated, undefined)
        assert.strictEqual(yield* ask(access, "read"), "null control")
        for (const scope of ["inspect", "profile", "control"] as const) {
          assert.strictEqual(yield* ask(access, scope), "403 scope", scope)
        }
      }
      const access = Access.make({ inspect: true, profile: true })
      assert.strictEqual(yield* ask(access, "inspect"), "null control")
      assert.strictEqual(yield* ask(access, "profile"), "null control")
    }))

  it.effect("generates 256 bits when it is told to, and when control is enabled without a token", () =>
    Effect.gen(function*() {
      const seen = new Set<string>()
      for (const options of [{ token: "generate" }, { control: true }, { control: true, token: secret("") }] as const) {
        const access = Access.make(options)
        const token = Redacted.value(access.generated ?? assert.fail())
        assert.strictEqual(Buffer.from(token, "base64url").length, 32)
        seen.add(token)
        assert.strictEqual(yield* ask(access, "read"), "401 token")
        assert.strictEqual(yield* ask(access, "read", { token }), "token control")
      }
      assert.strictEqual(seen.size, 3)
      assert.strictEqual(Access.make({ control: true, token: secret("given") }).generated, undefined)
      assert.strictEqual(Access.make({ control: true, tokens: labelled }).generated, undefined)
    }))

  it.effect("knows each token by its label, and lets it do what it and the server allow", () =>
    Effect.gen(function*() {
      const access = Access.make({ tokens: labelled, token: secret("all"), inspect: true, control: true })
      const row = Effect.fnUntraced(function*(token: string) {
        return yield* Effect.forEach(Token.scopes, (scope) => ask(access, scope, { token }))
      })
      assert.deepStrictEqual(yield* row("look"), ["prometheus read", "403 scope", "403 scope", "403 scope"])
      assert.deepStrictEqual(yield* row("into"), ["support inspect", "support inspect", "403 scope", "403 scope"])
      assert.deepStrictEqual(yield* row("act"), ["on call control", "on call control", "403 scope", "on call control"])
      assert.deepStrictEqual(yield* row("all"), ["token control", "token control", "403 scope", "token control"])
      const caller = (scope: Token.Scope) => ({ label: "x", scope, key: "x", session: undefined })
      assert.deepStrictEqual(access.may(caller("control")), ["read", "inspect", "control"])
      assert.deepStrictEqual(access.may(caller("profile")), ["read", "inspect"])
    }))

  it("rejects labels that are empty or stand twice", () => {
    for (const label of ["", "a", "token"]) {
      const tokens = [{ label: "a", token: secret("1") }, { label, token: secret("2") }]
      assert.throws(() => Access.make({ tokens }), `got: ${JSON.stringify(label)}`)
    }
  })

  it.effect("takes another scheme of authorization for that of a proxy, and a malformed one of its own for a wrong token", () =>
    Effect.gen(function*() {
      const access = Access.make({ token: secret("s3cret") })
      const asked = (authorization: string) => ask(access, "read", { headers: { authorization } })
      for (const wrong of ["Bearer", "Bearer s3cret x", "Bearer s3cre", "Bearer s3cret2", "bearer"]) {
        assert.strictEqual(yield* asked(wrong), "401 token", wrong)
      }
      assert.strictEqual(yield* asked("bearer  s3cret"), "token control")
      const { id } = yield* asking({})(access.signIn("s3cret"))
      const headers = { authorization: "Basic eDp5", cookie: `${access.cookie}=${id}` }
      assert.strictEqual(yield* ask(access, "read", { headers }), "token control")
      assert.strictEqual(
        yield* ask(access, "read", { headers: { ...headers, authorization: "Bearer x" } }),
        "401 token"
      )
    }))

  describe("wrong tokens", () => {
    it.effect("are answered late with 429 from the eleventh in a minute on, and the right one is let in at once", () =>
      Effect.gen(function*() {
        const access = Access.make({ token: secret("s3cret") })
        for (let i = 0; i < 10; i++) assert.strictEqual(yield* ask(access, "read", { token: `x${i}` }), "401 token")
        const eleventh = yield* Effect.forkChild(ask(access, "read", { token: "x" }), { startImmediately: true })
        assert.strictEqual(yield* ask(access, "read", { token: "s3cret" }), "token control")
        assert.strictEqual(yield* ask(access, "read", { token: "x", from: "10.0.0.9" }), "401 token")
        yield* TestClock.adjust("999 millis")
        assert.strictEqual(eleventh.pollUnsafe(), undefined)
        yield* TestClock.adjust("1 millis")
        assert.strictEqual(yield* Fiber.join(eleventh), "429 rate")
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* ask(access, "read", { token: "x" }), "401 token")
      }))

    it.effect("say when to try again, and a missing token is no wrong one", () =>
      Effect.gen(function*() {
        const access = Access.make({ token: secret("s3cret") })
        for (let i = 0; i < 30; i++) assert.strictEqual(yield* ask(access, "read"), "401 token")
        for (let i = 0; i < 10; i++) yield* ask(access, "read", { token: "x" })
        const late = yield* Effect.forkChild(asking({ token: "x" })(access.require("read")(who)))
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(late)).headers["retry-after"], "60")
      }))

    it.effect("are counted by address: an IPv4 one however it is written, an IPv6 one with its network", () =>
      Effect.gen(function*() {
        const access = Access.make({ token: secret("s3cret") })
        const late = Effect.fnUntraced(function*(from: string) {
          const answer = asking({ token: "x", from })(access.require("read")(who))
          const fiber = yield* Effect.forkChild(answer, { startImmediately: true })
          return fiber.pollUnsafe() === undefined
        })
        for (let i = 0; i < 10; i++) yield* late("10.0.0.1")
        assert.isTrue(yield* late("::ffff:10.0.0.1"))
        for (let i = 0; i < 10; i++) yield* late(`2001:db8:0:1::${i}`)
        assert.isTrue(yield* late("2001:db8:0:1:ffff::1"))
        assert.isFalse(yield* late("2001:db8:0:2::1"))
      }))

    it.effect("hold back 32 answers at most", () =>
      Effect.gen(function*() {
        const access = Access.make({ token: secret("s3cret") })
        for (let i = 0; i < 10; i++) yield* ask(access, "read", { token: "x" })
        const waiting = yield* Effect.forEach(
          Array.from({ length: 40 }),
          () => Effect.forkChild(ask(access, "read", { token: "x" }), { startImmediately: true })
        )
        yield* TestClock.adjust("999 millis")
        assert.strictEqual(waiting.filter((fiber) => fiber.pollUnsafe() === undefined).length, 32)
        for (const fiber of waiting) yield* Fiber.interrupt(fiber)
        const answer = asking({ token: "x" })(access.require("read")(who))
        const next = yield* Effect.forkChild(answer, { startImmediately: true })
        assert.strictEqual(next.pollUnsafe(), undefined)
      }))
  })

  describe("sessions", () => {
    const signedIn = Effect.fnUntraced(function*(access: Door, token = "s3cret") {
      const { id } = yield* asking({})(access.signIn(token))
      return `other=1; ${access.cookie}=${id}`
    })

    it.effect("stand for the token, under a name of the process", () =>
      Effect.gen(function*() {
        const access = Access.make({ tokens: labelled, inspect: true, instance: "a1b2" })
        assert.strictEqual(access.cookie, "orchestra-a1b2")
        const cookie = yield* signedIn(access, "into")
        assert.notInclude(cookie, "into")
        assert.strictEqual(yield* ask(access, "inspect", { cookie }), "support inspect")
        assert.strictEqual(yield* ask(access, "read", { cookie: cookie.replace("a1b2", "c3d4") }), "401 token")
        assert.strictEqual(yield* ask(access, "read", { cookie: `${access.cookie}=into` }), "401 token")
        const other = Access.make({ tokens: labelled, instance: "a1b2" })
        assert.strictEqual(yield* ask(other, "read", { cookie }), "401 token")
      }))

    it.effect("do not count where only Bearer does", () =>
      Effect.gen(function*() {
        const access = Access.make({ token: secret("s3cret"), profile: true })
        const cookie = yield* signedIn(access)
        assert.strictEqual(yield* ask(access, "profile", { cookie }), "token control")
        assert.strictEqual(yield* ask(access, "profile", { cookie }, { bearerOnly: true }), "401 token")
        assert.strictEqual(yield* ask(access, "profile", { token: "s3cret" }, { bearerOnly: true }), "token control")
      }))

    it.effect("count for the page of this server alone, though a page on another port sends the cookie", () =>
      Effect.gen(function*() {
        const access = Access.make({ token: secret("s3cret") })
        const cookie = yield* signedIn(access)
        const from = (site: string) => ask(access, "read", { cookie, headers: { "sec-fetch-site": site } })
        assert.strictEqual(yield* from("same-origin"), "token control")
        assert.strictEqual(yield* from("none"), "token control")
        assert.strictEqual(yield* from("same-site"), "403 origin")
        assert.strictEqual(yield* from("cross-site"), "403 origin")
      }))

    it.effect("end after twelve hours without a use, and when they are logged out", () =>
      Effect.gen(function*() {
        const access = Access.make({ token: secret("s3cret") })
        const cookie = yield* signedIn(access)
        for (let i = 0; i < 3; i++) {
          yield* TestClock.adjust("11 hours")
          assert.strictEqual(yield* ask(access, "read", { cookie }), "token control")
        }
        yield* TestClock.adjust("12 hours")
        assert.strictEqual(yield* ask(access, "read", { cookie }), "401 token")
        const again = yield* signedIn(access)
        yield* asking({ cookie: again })(access.signOut)
        assert.strictEqual(yield* ask(access, "read", { cookie: again }), "401 token")
        yield* asking({ cookie: again })(access.signOut)
      }))

    it.effect("are sixteen at most: the one that was used least recently gives way", () =>
      Effect.gen(function*() {
        const access = Access.make({ token: secret("s3cret") })
        const [first, second, ...rest] = yield* Effect.forEach(Array.from({ length: 16 }), () => signedIn(access))
        assert.strictEqual(yield* ask(access, "read", { cookie: first ?? "" }), "token control")
        const last = yield* signedIn(access)
        assert.strictEqual(yield* ask(access, "read", { cookie: second ?? "" }), "401 token")
        for (const cookie of [first ?? "", ...rest, last]) {
          assert.strictEqual(yield* ask(access, "read", { cookie }), "token control")
        }
      }))

    it.effect("cannot be had for a wrong token, which is counted as everywhere", () =>
      Effect.gen(function*() {
        const access = Access.make({ token: secret("s3cret") })
        for (let i = 0; i < 10; i++) {
          assert.strictEqual((yield* Effect.flip(asking({})(access.signIn("x")))).status, 401)
        }
        const late = yield* Effect.forkChild(Effect.flip(asking({ token: "x" })(access.signIn("x"))))
        yield* TestClock.adjust("1 second")
        assert.strictEqual((yield* Fiber.join(late)).status, 429)
        assert.isDefined((yield* asking({})(access.signIn("s3cret"))).id)
      }))
  })
})
