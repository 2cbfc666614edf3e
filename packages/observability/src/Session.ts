/**
 * The sessions of browsers: a page hands in its token once, and is known by a cookie from then on.
 *
 * The cookie holds 256 random bits and nothing else; what they stand for is kept here, by their digest. There are at most
 * 16 sessions, the one that was used least recently gives way; one that was not used for 12 hours is over.
 *
 * **Example** (What a page asks before it shows a button)
 *
 * ```ts import.meta.vitest
 * import { Session } from "@effect-orchestra/observability"
 * import { Schema } from "effect"
 *
 * const answer = { v: 1, label: "on call", may: ["read", "control"], session: true }
 * Schema.decodeUnknownSync(Session.SessionInfo)(answer).may.includes("control") // => true
 * ```
 *
 * @since 0.1.0
 */
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { digest, Scope, secret } from "./Token.ts"

/**
 * The answer of `GET /orchestra/api/v1/session`, and of the `POST` that begins one: who the caller is (null where no
 * token is asked for) and what it may do here.
 *
 * @category models
 * @since 0.1.0
 */
export const SessionInfo = Schema.Struct({
  v: Schema.Literal(1),
  label: Schema.NullOr(Schema.String),
  may: Schema.Array(Scope),
  /** Whether it came with the cookie, so that there is something to log out of. */
  session: Schema.Boolean
})

/** @since 0.1.0 */
export type SessionInfo = typeof SessionInfo.Type

/**
 * What is asked of `POST /orchestra/api/v1/session`.
 *
 * @category models
 * @since 0.1.0
 */
export const SignIn = Schema.Struct({ token: Schema.String })

/** @internal */
export const limits = { sessions: 16, idle: Duration.hours(12) }

const idleMillis = Duration.toMillis(limits.idle)

/** A browser that has handed in a token. Times are monotonic milliseconds. @internal */
export interface Session {
  readonly key: string
  readonly label: string
  readonly scope: Scope
  seenAt: number
  /** Who reads a stream uses the session all the time. */
  streams: number
  readonly over: Deferred.Deferred<void>
}

/** @internal */
export class Sessions {
  /** By the digest of their id, the one that was used last at the end. */
  private readonly open = new Map<string, Session>()

  get size(): number {
    return this.open.size
  }

  /** Begins one, and gives the id that the browser is to keep. */
  begin(owner: { readonly label: string; readonly scope: Scope }, now: number): string {
    for (const session of this.open.values()) if (isOver(session, now)) this.end(session)
    for (const oldest of this.open.values()) {
      if (this.open.size < limits.sessions) break
      this.end(oldest)
    }
    const id = secret()
    const key = keyOf(id)
    this.open.set(key, { ...owner, key, seenAt: now, streams: 0, over: Deferred.makeUnsafe() })
    return id
  }

  /** The session of this id, which is used by that. */
  find(id: string, now: number): Session | undefined {
    const session = this.open.get(keyOf(id))
    if (session === undefined) return undefined
    if (isOver(session, now)) {
      this.end(session)
      return undefined
    }
    session.seenAt = now
    this.open.delete(session.key)
    this.open.set(session.key, session)
    return session
  }

  /** What it still reads ends, too. */
  end(session: Session): void {
    this.open.delete(session.key)
    Deferred.doneUnsafe(session.over, Effect.void)
  }
}

const keyOf = (id: string): string => Buffer.from(digest(id)).toString("hex")

const isOver = ({ seenAt, streams }: Session, now: number): boolean => streams === 0 && now - seenAt >= idleMillis
