/**
 * What Node itself refuses, before there is a request to answer: a client too slow, a head too large, bytes that are no
 * HTTP. It gets a problem document as every other refusal, and its connection is closed.
 */
import type { Server } from "node:http"
import { refusalOf, title } from "./Refusal.ts"

export const answerClientErrors = (server: Server): void => {
  server.on("clientError", (error: NodeJS.ErrnoException, socket) => {
    if (error.code === "ECONNRESET" || !socket.writable) return void socket.destroy()
    const body = bodyOf(error.code)
    const text = JSON.stringify(body)
    const head = [
      `HTTP/1.1 ${body.status} ${title(body.status)}`,
      "Connection: close",
      "Content-Type: application/problem+json",
      `Content-Length: ${Buffer.byteLength(text)}`,
      "Cache-Control: no-store",
      "X-Content-Type-Options: nosniff"
    ]
    socket.end(`${head.join("\r\n")}\r\n\r\n${text}`, () => socket.destroy())
  })
}

const bodyOf = (code: string | undefined) => {
  switch (code) {
    case "ERR_HTTP_REQUEST_TIMEOUT":
      return refusalOf(408, "timeout", "The request took too long to come")
    case "HPE_HEADER_OVERFLOW":
      return refusalOf(431, "headers", "The head of the request is too large")
    default:
      return refusalOf(400, "syntax", "That is no HTTP request")
  }
}
