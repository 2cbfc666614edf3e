import { Orchestrator } from "@effect-orchestra/core"
import * as NodeHttpServer from "@effect/platform-node/NodeHttpServer"
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, FileSystem, Layer, type Path, Queue, Ref, Schema, Stream } from "effect"
import { FetchHttpClient, HttpRouter, ProblemDetails } from "effect/http"
import { HttpApiClient } from "effect/http-api"
import * as Net from "node:net"
import { Api } from "../src/backup-service/Api.ts"
import * as ApiServer from "../src/backup-service/ApiServer.ts"
import { Chaos } from "../src/backup-service/Chaos.ts"
import { Database } from "../src/backup-service/Database.ts"
import { FileWatcher } from "../src/backup-service/FileWatcher.ts"
import { Restore } from "../src/backup-service/Restore.ts"
import { Store } from "../src/backup-service/Store.ts"
import * as BackupWorld from "./BackupWorld.ts"

/** The services that the API stands on: the real ones, but for the watcher. */
const services = (world: BackupWorld.World, { chaos, scan }: Options) =>
  Layer.fresh(Restore.layer).pipe(
    Layer.provideMerge(Layer.fresh(Database.layer)),
    Layer.provideMerge(Layer.fresh(Store.layer)),
    Layer.provideMerge(Chaos.layer({ enabled: chaos })),
    Layer.provideMerge(Layer.succeed(FileWatcher, { scan })),
    Layer.provideMerge(Layer.merge(world.settings, NodeHttpServer.layerHttpServices))
  )

interface Options {
  readonly chaos: boolean
  readonly scan: Effect.Effect<void>
}

interface Setting {
  readonly world: BackupWorld.World
  readonly scans: Ref.Ref<number>
  /** Sends a request; a write is JSON unless the headers say otherwise. */
  readonly request: (method: string, url: string, options?: {
    readonly body?: unknown
    readonly headers?: Record<string, string>
  }) => Effect.Effect<Response>
  /** Backs up a file. */
  readonly save: (path: string, content: string) => Effect.Effect<void>
}

const withApi = <A, E>(
  test: (setting: Setting) => Effect.Effect<A, E, Database | Store | Chaos | FileSystem.FileSystem | Path.Path>,
  { chaos } = { chaos: true }
) =>
  Effect.gen(function*() {
    const world = yield* BackupWorld.make()
    const scans = yield* Ref.make(0)
    yield* Effect.gen(function*() {
      const context = yield* Effect.context<Layer.Success<ReturnType<typeof services>>>()
      const { dispose, handler } = HttpRouter.toWebHandler(
        ApiServer.routes.pipe(Layer.provideMerge(Layer.succeedContext(context))),
        { disableLogger: true }
      )
      yield* Effect.addFinalizer(() => Effect.promise(dispose))
      const database = yield* Database
      const store = yield* Store
      return yield* test({
        world,
        scans,
        request: (method, url, { body, headers } = {}) =>
          Effect.promise(() =>
            handler(
              new Request(`http://localhost${url}`, {
                method,
                headers: {
                  host: "localhost",
                  ...(method === "GET" ? {} : { "content-type": "application/json" }),
                  ...headers
                },
                ...(body === undefined ? {} : { body: typeof body === "string" ? body : JSON.stringify(body) })
              })
            )
          ),
        save: (path, content) =>
          store.add(Stream.make(new TextEncoder().encode(content))).pipe(
            Effect.flatMap((object) => database.record({ path, ...object, modifiedAt: null })),
            Effect.orDie,
            Effect.asVoid
          )
      })
    }).pipe(Effect.scoped, Effect.provide(services(world, { chaos, scan: Ref.update(scans, (n) => n + 1) })))
  }).pipe(Effect.provide(BackupWorld.platform))

const json = (response: Response) => Effect.promise((): Promise<any> => response.json())

/** Asserts that a response is a problem document of this status, and answers it. */
const problem = Effect.fnUntraced(function*(response: Response, status: number) {
  assert.strictEqual(response.status, status)
  assert.strictEqual(response.headers.get("content-type"), ProblemDetails.contentType)
  const document = yield* Schema.decodeUnknownEffect(ProblemDetails.Schema)(yield* json(response))
  assert.strictEqual(document.status, status)
  assert.isString(document.title)
  return document
})

describe("GET /files", () => {
  it.effect("lists in pages, by prefix", () =>
    withApi(Effect.fnUntraced(function*({ request, save }) {
      const database = yield* Database
      for (const path of ["a/1", "a/2", "a/3", "b"]) yield* save(path, path)
      yield* save("a/2", "again")
      yield* database.markDeleted(["a/3"])
      const first = yield* json(yield* request("GET", "/files?prefix=a/&limit=2"))
      assert.deepStrictEqual(first.items, [
        { path: "a/1", sha256: BackupWorld.sha256("a/1"), size: 3, versions: 1, deleted: false },
        { path: "a/2", sha256: BackupWorld.sha256("again"), size: 5, versions: 2, deleted: false }
      ])
      const second = yield* json(yield* request("GET", `/files?prefix=a/&limit=2&cursor=${first.cursor}`))
      assert.deepStrictEqual(second, {
        items: [{ path: "a/3", sha256: BackupWorld.sha256("a/3"), size: 3, versions: 1, deleted: true }]
      })
      const all = yield* json(yield* request("GET", "/files"))
      assert.deepStrictEqual(all.items.map((item: { path: string }) => item.path), ["a/1", "a/2", "a/3", "b"])
      assert.notProperty(all, "cursor")
    })))

  it.effect("answers 100 items at a time unless asked otherwise, at most 500", () =>
    withApi(Effect.fnUntraced(function*({ request, save }) {
      for (let i = 0; i < 101; i++) yield* save(`${1000 + i}`, "x")
      assert.lengthOf((yield* json(yield* request("GET", "/files"))).items, 100)
      const page = yield* json(yield* request("GET", "/files?limit=101"))
      assert.lengthOf(page.items, 101)
      assert.notProperty(page, "cursor")
      assert.strictEqual((yield* request("GET", "/files?limit=500")).status, 200)
    })))

  it.effect.each([
    "limit=0",
    "limit=501",
    "limit=ten",
    "limit=1.5",
    "limit=",
    "limit=1&limit=2",
    "cursor=%25",
    "prefix=a&prefix=b"
  ])(
    "answers 400 to ?%s",
    (query) =>
      withApi(Effect.fnUntraced(function*({ request }) {
        yield* problem(yield* request("GET", `/files?${query}`), 400)
      }))
  )
})

describe("GET /versions", () => {
  it.effect("lists the versions of a file, newest first, in pages", () =>
    withApi(Effect.fnUntraced(function*({ request, save }) {
      for (const content of ["one", "two", "three"]) yield* save("näme with/blank", content)
      yield* save("other", "x")
      const url = `/versions?path=${encodeURIComponent("näme with/blank")}`
      const { items } = yield* json(yield* request("GET", url))
      assert.deepStrictEqual(items[0], {
        id: 3,
        path: "näme with/blank",
        sha256: BackupWorld.sha256("three"),
        size: 5,
        at: "1970-01-01T00:00:00.000Z"
      })
      assert.deepStrictEqual(items.map((item: { id: number }) => item.id), [3, 2, 1])
      const first = yield* json(yield* request("GET", `${url}&limit=2`))
      const second = yield* json(yield* request("GET", `${url}&limit=2&cursor=${first.cursor}`))
      assert.deepStrictEqual([...first.items, ...second.items], items)
      assert.notProperty(second, "cursor")
      assert.deepStrictEqual(yield* json(yield* request("GET", "/versions?path=unknown")), { items: [] })
    })))

  it.effect.each(["", "?path=", "?path=a&path=b", "?path=a&cursor=xyz", "?path=a&limit=-1"])(
    "answers 400 to %s",
    (query) =>
      withApi(Effect.fnUntraced(function*({ request }) {
        yield* problem(yield* request("GET", `/versions${query}`), 400)
      }))
  )
})

describe("GET /versions/{id}/content", () => {
  it.effect("streams the bytes of any version", () =>
    withApi(Effect.fnUntraced(function*({ request, save }) {
      const old = "old ".repeat(100_000)
      yield* save("file", old)
      yield* save("file", "new")
      yield* save("empty", "")
      const response = yield* request("GET", "/versions/1/content")
      assert.strictEqual(response.headers.get("content-type"), "application/octet-stream")
      assert.strictEqual(response.headers.get("content-length"), `${old.length}`)
      assert.strictEqual(response.headers.get("etag"), `"${BackupWorld.sha256(old)}"`)
      assert.strictEqual(yield* Effect.promise(() => response.text()), old)
      const latest = yield* request("GET", "/versions/2/content")
      assert.strictEqual(yield* Effect.promise(() => latest.text()), "new")
      const empty = yield* request("GET", "/versions/3/content")
      assert.strictEqual(yield* Effect.promise(() => empty.text()), "")
    })))

  it.effect("answers 404 to an unknown version and 400 to what is no id", () =>
    withApi(Effect.fnUntraced(function*({ request }) {
      const missing = yield* problem(yield* request("GET", "/versions/7/content"), 404)
      assert.include(missing, { id: 7, type: "urn:backup-service:version-not-found" })
      for (const id of ["seven", "-1", "1.5", "%00", "1e400"]) {
        yield* problem(yield* request("GET", `/versions/${id}/content`), 400)
      }
    })))

  it.effect("answers 500 when the content is missing, and never completes a damaged one", () =>
    withApi(Effect.fnUntraced(function*({ request, save, world }) {
      const fs = yield* FileSystem.FileSystem
      const content = "x".repeat(200_000)
      yield* save("file", content)
      const sha256 = BackupWorld.sha256(content)
      const object = `${world.store}/objects/${sha256.slice(0, 2)}/${sha256.slice(2)}`
      yield* fs.writeFileString(object, `y${content.slice(1)}`)
      const response = yield* request("GET", "/versions/1/content")
      const exit = yield* Effect.exit(Effect.tryPromise(() => response.text()))
      assert.isTrue(Exit.isFailure(exit))
      yield* fs.remove(object)
      const { detail } = yield* problem(yield* request("GET", "/versions/1/content"), 500)
      assert.include(detail, "missing")
    })))
})

describe("POST /restore", () => {
  it.effect("restores a version under its own name or another, replacing what is there", () =>
    withApi(Effect.fnUntraced(function*({ request, save, world }) {
      const fs = yield* FileSystem.FileSystem
      yield* save("dir/file", "old")
      yield* save("dir/file", "newer")
      const response = yield* request("POST", "/restore", { body: { versionId: 1 } })
      assert.strictEqual(response.status, 200)
      assert.deepStrictEqual(yield* json(response), {
        sha256: BackupWorld.sha256("old"),
        size: 3,
        restoredTo: `${world.restored}/dir/file`
      })
      assert.strictEqual(yield* fs.readFileString(`${world.restored}/dir/file`), "old")
      yield* request("POST", "/restore", { body: { versionId: 2 } })
      assert.strictEqual(yield* fs.readFileString(`${world.restored}/dir/file`), "newer")
      yield* request("POST", "/restore", { body: { versionId: 1, to: "a/./b" } })
      assert.strictEqual(yield* fs.readFileString(`${world.restored}/a/b`), "old")
      assert.deepStrictEqual(yield* world.files(world.restored), ["a/b", "dir/file"])
    })))

  it.effect("refuses every way out of the restore directory, and leaves nothing outside", () =>
    withApi(Effect.fnUntraced(function*({ request, save, world }) {
      const fs = yield* FileSystem.FileSystem
      yield* save("file", "content")
      yield* fs.makeDirectory(`${world.restored}/directory`, { recursive: true })
      yield* fs.writeFileString(`${world.restored}/plain`, "plain")
      yield* fs.symlink(world.source, `${world.restored}/out`)
      yield* fs.symlink(`${world.source}/victim`, `${world.restored}/link`)
      const refused = [
        "../x",
        "..",
        "a/../../x",
        "a/../x",
        "/etc/passwd",
        "a\0b",
        "..\\x",
        ".",
        "",
        "./",
        "out/x",
        "out/new/x",
        "directory",
        "directory/",
        "plain/x",
        ".partial/x",
        "./.partial/x",
        ".partial",
        "x".repeat(256),
        "é".repeat(200),
        "d/".repeat(2100) + "x"
      ]
      for (const to of refused) {
        const { detail } = yield* problem(yield* request("POST", "/restore", { body: { versionId: 1, to } }), 400)
        assert.isString(detail, to)
      }
      assert.deepStrictEqual(yield* fs.readDirectory(world.source), [])
      // The link itself is replaced, not what it leads to.
      assert.strictEqual((yield* request("POST", "/restore", { body: { versionId: 1, to: "link" } })).status, 200)
      assert.deepStrictEqual(yield* fs.readDirectory(world.source), [])
      assert.strictEqual(yield* fs.readFileString(`${world.restored}/link`), "content")
    })))

  it.effect("gives damaged bytes no name", () =>
    withApi(Effect.fnUntraced(function*({ request, save, world }) {
      const fs = yield* FileSystem.FileSystem
      yield* save("file", "content")
      const sha256 = BackupWorld.sha256("content")
      yield* fs.writeFileString(`${world.store}/objects/${sha256.slice(0, 2)}/${sha256.slice(2)}`, "CONTENT")
      yield* problem(yield* request("POST", "/restore", { body: { versionId: 1 } }), 500)
      assert.deepStrictEqual(yield* world.files(world.restored), [])
    })))

  it.effect("answers 404 to an unknown version and 400 to a body that says nothing", () =>
    withApi(Effect.fnUntraced(function*({ request }) {
      yield* problem(yield* request("POST", "/restore", { body: { versionId: 1 } }), 404)
      for (
        const body of ["", "{", "[]", "null", "{}", { versionId: "1" }, { versionId: -1 }, { versionId: 1, to: 5 }]
      ) {
        yield* problem(yield* request("POST", "/restore", { body }), 400)
      }
    })))
})

describe("POST /scan and GET /stats", () => {
  it.effect("asks the watcher and answers 202", () =>
    withApi(Effect.fnUntraced(function*({ request, scans }) {
      const response = yield* request("POST", "/scan")
      assert.strictEqual(response.status, 202)
      assert.strictEqual(yield* Ref.get(scans), 1)
    })))

  it.effect("tells the totals and the last run", () =>
    withApi(Effect.fnUntraced(function*({ request, save }) {
      const database = yield* Database
      yield* save("a", "same")
      yield* save("b", "same")
      const id = yield* database.startRun("scan")
      const counts = { files: 2, stored: 2, unchanged: 0, deleted: 0, vanished: 0, skipped: 1, failed: 0 }
      yield* database.finishRun(id, counts, false)
      assert.deepStrictEqual(yield* json(yield* request("GET", "/stats")), {
        files: 2,
        deleted: 0,
        versions: 2,
        objects: 1,
        bytes: 4,
        runs: 1,
        lastRun: {
          id,
          kind: "scan",
          startedAt: "1970-01-01T00:00:00.000Z",
          finishedAt: "1970-01-01T00:00:00.000Z",
          partial: false,
          ...counts
        }
      })
    })))
})

describe("every answer", () => {
  it.effect("is a problem document for unknown paths and methods", () =>
    withApi(Effect.fnUntraced(function*({ request }) {
      for (const path of ["/", "/nothing", "/files/x", "/versions/1", "/chaos", "/versions/1/content/x"]) {
        yield* problem(yield* request("GET", path), 404)
      }
      const refused = yield* request("DELETE", "/files")
      assert.strictEqual(refused.headers.get("allow"), "GET")
      yield* problem(refused, 405)
      yield* problem(yield* request("GET", "/restore"), 405)
      yield* problem(yield* request("PUT", "/versions/1/content"), 405)
      assert.strictEqual((yield* request("HEAD", "/files")).status, 200)
    })))

  it.effect("is refused to foreign names, foreign origins, and writes that are not JSON, and is hardened", () =>
    withApi(Effect.fnUntraced(function*({ request, scans }) {
      yield* problem(yield* request("GET", "/files", { headers: { host: "evil.example" } }), 421)
      yield* problem(yield* request("POST", "/scan", { headers: { origin: "http://evil.example" } }), 403)
      yield* problem(yield* request("POST", "/scan", { headers: { "content-type": "text/plain" } }), 415)
      yield* problem(yield* request("POST", "/restore", { body: { versionId: 1, to: "x".repeat(70_000) } }), 400)
      yield* problem(yield* request("GET", `/files?prefix=${"x".repeat(5000)}`), 414)
      assert.strictEqual(yield* Ref.get(scans), 0)
      for (const path of ["/files", "/nothing", "/versions/7/content"]) {
        const { headers } = yield* request("GET", path)
        assert.strictEqual(headers.get("x-content-type-options"), "nosniff")
        assert.include(headers.get("content-security-policy"), "default-src 'none'")
      }
    })))

  it.effect("is 500 and says why when the database is gone", () =>
    Effect.gen(function*() {
      const world = yield* BackupWorld.make()
      const context = yield* Layer.build(services(world, { chaos: false, scan: Effect.void })).pipe(Effect.scoped)
      const { dispose, handler } = HttpRouter.toWebHandler(
        ApiServer.routes.pipe(Layer.provideMerge(Layer.succeedContext(context))),
        { disableLogger: true }
      )
      yield* Effect.addFinalizer(() => Effect.promise(dispose))
      for (const path of ["/files", "/versions?path=a", "/versions/1/content", "/stats"]) {
        const request = new Request(`http://localhost${path}`, { headers: { host: "localhost" } })
        const { detail } = yield* problem(yield* Effect.promise(() => handler(request)), 500)
        assert.include(detail, "database")
      }
    }).pipe(Effect.provide(BackupWorld.platform)))
})

describe("POST /chaos/{target}", () => {
  it.effect("kills what it names, once", () =>
    withApi(Effect.fnUntraced(function*({ request }) {
      const { orders } = yield* Chaos
      for (const target of ["database", "watcher", "api"] as const) {
        const response = yield* request("POST", `/chaos/${target}`)
        assert.strictEqual(response.status, 202)
        yield* Queue.take(orders[target])
      }
      yield* problem(yield* request("POST", "/chaos/disk"), 400)
    })))

  it.effect("is not there unless asked for", () =>
    withApi(
      Effect.fnUntraced(function*({ request }) {
        yield* problem(yield* request("POST", "/chaos/api"), 404)
      }),
      { chaos: false }
    ))

  it.effect("reaches the incarnation that runs, not the next one", () =>
    Effect.gen(function*() {
      yield* Chaos.kill("api")
      yield* Layer.build(Chaos.mortal("api"))
      yield* Effect.yieldNow
      assert.deepStrictEqual((yield* Orchestrator.list).map(({ state }) => state), ["running"])
      yield* Chaos.kill("api")
      yield* Effect.yieldNow
      assert.deepStrictEqual(yield* Orchestrator.list, [])
    }).pipe(Effect.provide(Layer.merge(Chaos.layer({ enabled: true }), Orchestrator.layer))))
})

// Real sockets, whose clients take no notice of a test clock.
describe("the server", () => {
  const running = <A, E, R>(world: BackupWorld.World, test: Effect.Effect<A, E, R>) =>
    Effect.provide(
      test,
      Layer.fresh(ApiServer.layer).pipe(
        Layer.provide(services(world, { chaos: false, scan: Effect.sleep("100 millis") }))
      )
    )

  it.live("comes back on the port that it had, though clients hang on to it", () =>
    Effect.gen(function*() {
      const world = yield* BackupWorld.make()
      yield* Effect.gen(function*() {
        const first = Effect.gen(function*() {
          const url = yield* ApiServer.ApiAddress.url
          const client = yield* HttpApiClient.make(Api, { baseUrl: url })
          assert.deepStrictEqual(yield* client.files({ query: {} }), { items: [] })
          const head = "HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
          const requests = [
            // One that keeps its connection, one that never reads, one that says nothing, two that never end their request,
            // and one that is answered while the server closes, and keeps its connection.
            `GET /files ${head}\r\n`,
            `GET /files ${head}\r\n`.repeat(2000),
            "",
            "POST /restore HTTP/1.1\r\nhost: loc",
            `POST /restore ${head}content-length: 9\r\n\r\n{`,
            `POST /scan ${head}content-length: 0\r\n\r\n`
          ]
          return { url, sockets: yield* Effect.forEach(requests, (text) => hangOn(url, text)) }
        })
        const { sockets, url } = yield* Effect.timeout(running(world, first), "10 seconds")
        // A connection that outlived its server would swallow the next request.
        yield* Effect.timeout(Effect.forEach(sockets, untilClosed), "10 seconds")
        assert.strictEqual(yield* running(world, ApiServer.ApiAddress.url), url)
      }).pipe(Effect.provide(ApiServer.ApiAddress.layer.pipe(Layer.provide(world.settings))))
    }).pipe(Effect.provide([FetchHttpClient.layer, BackupWorld.platform])), 30_000)

  it.live("names the port that is taken and the flag to choose another", () =>
    Effect.gen(function*() {
      const world = yield* BackupWorld.make()
      const taken = yield* Effect.acquireRelease(
        Effect.callback<Net.Server>((resume) => {
          const server = Net.createServer().listen(0, "127.0.0.1", () => resume(Effect.succeed(server)))
        }),
        (server) => Effect.sync(() => server.close())
      )
      const address = taken.address()
      const port = address !== null && typeof address === "object" ? address.port : 0
      const error = yield* Effect.flip(running(world, Effect.void)).pipe(
        Effect.provideService(ApiServer.ApiAddress, { port: yield* Ref.make(port) })
      )
      assert.strictEqual(error.message, `Port ${port} is taken: choose another with --port`)
    }).pipe(Effect.provide(BackupWorld.platform)))
})

/** Opens a connection, sends what it is told, and does not let go. */
const hangOn = (url: string, text: string) =>
  Effect.callback<Net.Socket>((resume) => {
    const { hostname, port } = new URL(url)
    const socket = Net.connect(Number(port), hostname, () => {
      socket.write(text)
      setTimeout(() => resume(Effect.succeed(socket)), 20)
    })
    socket.on("error", () => {})
  })

/** Waits until the other side has closed the connection. */
const untilClosed = (socket: Net.Socket) =>
  Effect.callback<void>((resume) => {
    if (socket.closed) return resume(Effect.void)
    socket.on("close", () => resume(Effect.void)).resume()
  })
