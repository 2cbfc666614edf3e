/** What a request is refused with: a problem document (RFC 9457), of a check one that names it. */
import type * as Headers from "effect/http/Headers"
import * as HttpServerResponse from "effect/http/HttpServerResponse"
import * as ProblemDetails from "effect/http/ProblemDetails"
import { STATUS_CODES } from "node:http"

export type Check =
  | "url"
  | "headers"
  | "syntax"
  | "timeout"
  | "host"
  | "token"
  | "scope"
  | "origin"
  | "content_type"
  | "body"
  | "rate"
  | "reason"
  | "confirm"
  | "state"

export const title = (status: number): string => STATUS_CODES[status] ?? "Error"

const problemOf = (status: number, detail: string) => ({
  type: ProblemDetails.blankType,
  title: title(status),
  status,
  detail
})

export const refusalOf = (status: number, check: Check, detail: string) => ({ ...problemOf(status, detail), check })

export const problem = (status: number, detail: string): HttpServerResponse.HttpServerResponse =>
  ProblemDetails.toResponse(problemOf(status, detail))

export const refusal = (status: number, check: Check, detail: string): HttpServerResponse.HttpServerResponse =>
  ProblemDetails.toResponse(refusalOf(status, check, detail))

export const unauthorized = (detail: string): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.setHeader(refusal(401, "token", detail), "www-authenticate", "Bearer")

/** `waitMillis` is when it may be tried again. */
export const tooMany = (detail: string, waitMillis: number): HttpServerResponse.HttpServerResponse =>
  HttpServerResponse.setHeader(
    refusal(429, "rate", detail),
    "retry-after",
    String(Math.max(1, Math.ceil(waitMillis / 1000)))
  )

/** The site that a browser asks for, if that is neither a page of this server nor its user. */
export const foreignSite = (headers: Headers.Headers): string | undefined => {
  const site = headers["sec-fetch-site"]
  return site === undefined || site === "same-origin" || site === "none" ? undefined : site
}
