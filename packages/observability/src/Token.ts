/**
 * The secrets that callers identify themselves with, and what each of them may do.
 *
 * **Example** (A token that nobody can guess)
 *
 * ```ts import.meta.vitest
 * import { Token } from "@effect-orchestra/observability"
 * import { Effect, Redacted } from "effect"
 *
 * const token = await Effect.runPromise(Token.generate)
 * Buffer.from(Redacted.value(token), "base64url").length // => 32
 * Token.allows("profile", "inspect") // => true
 * Token.allows("read", "control") // => false
 * ```
 *
 * @since 0.1.0
 */
import * as Effect from "effect/Effect"
import type * as Headers from "effect/http/Headers"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { createHash, randomBytes, timingSafeEqual } from "node:crypto"

/**
 * What a caller may do, each with all before it: look, look into messages, take profiles, act.
 *
 * @category models
 * @since 0.1.0
 */
export const Scope = Schema.Literals(["read", "inspect", "profile", "control"])

/** @since 0.1.0 */
export type Scope = typeof Scope.Type

/**
 * Every scope, each before those that hold it.
 *
 * @category models
 * @since 0.1.0
 */
export const scopes: ReadonlyArray<Scope> = Scope.literals

/**
 * Whether who has one scope may do what another asks for.
 *
 * @category guards
 * @since 0.1.0
 */
export const allows = (has: Scope, needed: Scope): boolean => scopes.indexOf(needed) <= scopes.indexOf(has)

/**
 * A token with a name. The label stands for the token wherever it is told who did something.
 *
 * @category models
 * @since 0.1.0
 */
export interface Labelled {
  readonly label: string
  /** An empty one is none: that is what an unset variable looks like. */
  readonly token: Redacted.Redacted
  /** The most that it is good for, out of what the server has enabled. Default: `read`. */
  readonly scope?: Scope | undefined
}

/**
 * A new token of 256 bits, from the randomness that the machine has for secrets.
 *
 * @category constructors
 * @since 0.1.0
 */
export const generate: Effect.Effect<Redacted.Redacted> = Effect.sync(() => Redacted.make(secret()))

/** 256 bits as 43 characters that need no escape anywhere. @internal */
export const secret = (): string => randomBytes(32).toString("base64url")

/** @internal */
export const isGiven = (token: Redacted.Redacted | undefined): token is Redacted.Redacted =>
  token !== undefined && Redacted.value(token) !== ""

/**
 * The token that `Authorization` carries. A scheme of ours that is malformed is a wrong token; that of a proxy in front
 * is none.
 *
 * @internal
 */
export const bearerOf = ({ authorization = "" }: Headers.Headers): string | undefined =>
  /^bearer +(\S+) *$/i.exec(authorization)?.[1] ?? (/^bearer\b/i.test(authorization) ? "" : undefined)

/** All of them have the same length, so they can be compared in constant time. @internal */
export const digest = (value: string): Uint8Array => createHash("sha256").update(value).digest()

/** @internal */
export const sameDigest = (a: Uint8Array, b: Uint8Array): boolean => timingSafeEqual(a, b)
