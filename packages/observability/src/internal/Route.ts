/** How a group of routes is added to the router: `needed` is the scope that it asks for, or nothing is asked. */
import type { Orchestrator } from "@effect-orchestra/core/Orchestrator"
import type * as Effect from "effect/Effect"
import type * as HttpRouter from "effect/http/HttpRouter"
import type * as HttpServerRequest from "effect/http/HttpServerRequest"
import type * as HttpServerResponse from "effect/http/HttpServerResponse"
import type * as Scope from "effect/Scope"
import type { Access } from "../Access.ts"
import type { Actions } from "../Actions.ts"
import type { Charts } from "../Charts.ts"
import type { EventLog } from "../EventLog.ts"
import type { Feed } from "../Feed.ts"
import type { Profiler } from "../Profiler.ts"
import type { Telemetry } from "../Telemetry.ts"
import type { Scope as Needed } from "../Token.ts"

/** Below it stands the API. */
export const api = "/orchestra/api/v1"

/** What every handler may use. */
export type Provided = Orchestrator | Telemetry | Feed | EventLog | Charts | Access | Actions | Profiler

/** What each request brings. */
export type Given =
  | HttpServerRequest.HttpServerRequest
  | HttpServerRequest.ParsedSearchParams
  | HttpRouter.RouteContext
  | Scope.Scope

export type Add = (
  method: "GET" | "POST" | "DELETE" | "*",
  path: HttpRouter.PathInput,
  needed: Needed | "open",
  handler: Effect.Effect<HttpServerResponse.HttpServerResponse, never, Provided | Given>
) => Effect.Effect<void>
