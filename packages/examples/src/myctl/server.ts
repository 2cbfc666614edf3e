/**
 * One server of the fleet. There are 40 of them, so it is small and quick to start: without Effect.
 *
 *     NAME=web-01 PORT=7301 node server.ts --page pages/web.txt
 *
 * It answers `/health` and shows its page, says on which port when it is ready, and stops gracefully on SIGTERM.
 */
import { readFileSync } from "node:fs"
import { createServer } from "node:http"
import { parseArgs } from "node:util"

const { values } = parseArgs({
  options: {
    /** What `/` shows. It is read once, so a change needs a restart; without the file there is no server. */
    page: { type: "string" },
    /** How long it takes to start and to stop, in milliseconds. */
    "start-delay": { type: "string", default: "0" },
    "stop-delay": { type: "string", default: "0" },
    /** It ignores SIGTERM. */
    stubborn: { type: "boolean", default: false },
    /** Its health is 503 as long as this file is there. */
    "sick-if": { type: "string" }
  }
})

const name = process.env["NAME"] ?? "server"

const fail = (error: unknown): never => {
  console.error(`${name} cannot start: ${error instanceof Error ? error.message : String(error)}`)
  process.exit(1)
}

const readPage = (path: string): string => {
  try {
    return readFileSync(path, "utf8")
  } catch (error) {
    return fail(error)
  }
}

const page = values.page === undefined ? name : readPage(values.page)

const isSick = (): boolean => {
  try {
    return values["sick-if"] !== undefined && readFileSync(values["sick-if"]).length >= 0
  } catch {
    return false
  }
}

const server = createServer(({ url }, response) => {
  if (url === "/health") {
    const sick = isSick()
    response.writeHead(sick ? 503 : 200, { "content-type": "application/json" })
    response.end(JSON.stringify({ name, pid: process.pid, status: sick ? "sick" : "ok" }))
  } else {
    response.writeHead(url === "/" ? 200 : 404, { "content-type": "text/plain" })
    response.end(url === "/" ? page : "not found\n")
  }
})

server.on("error", fail)

process.on("SIGTERM", () => {
  console.log(`${name} was asked to stop`)
  if (values.stubborn) return
  // Requests under way are answered first.
  server.close(() => setTimeout(() => process.exit(0), Number(values["stop-delay"])))
  server.closeIdleConnections()
})

setTimeout(() => {
  server.listen(Number(process.env["PORT"] ?? 0), "127.0.0.1", () => {
    const address = server.address()
    console.log(`${name} is ready on port ${typeof address === "object" ? address?.port : address}`)
  })
}, Number(values["start-delay"]))
